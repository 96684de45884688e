//! `offshoot score`: the PRM's scores of a solution's steps.

use futures::executor::block_on;
use serde::Serialize;
use session::{Options, Session};

use super::{print, print_json, read_stdin, say_notes};
use crate::downloads::Downloads;
use crate::error::{Done, Failure};
use crate::flags::ScoreFlags;

#[derive(Serialize)]
struct Printed {
    scores: Vec<f64>,
    tokens_processed: u64,
}

/// The steps of a text, parted by blank lines: those of white space too, with any line ends, after
/// a byte order mark.
fn steps(text: &str) -> Vec<String> {
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
    let lines = lines.map(|line| match line.trim().is_empty() {
        true => "",
        false => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    (text.split("\n\n"))
        .map(|step| step.trim().to_string())
        .filter(|step| !step.is_empty())
        .collect()
}

/// Runs the command.
pub fn run(flags: &ScoreFlags) -> Done {
    let text = match flags.steps.as_os_str() == "-" {
        true => read_stdin("--steps")?,
        false => std::fs::read_to_string(&flags.steps)
            .map_err(|e| Failure::io(&format!("--steps {}", flags.steps.display()), &e))?,
    };
    let steps = steps(&text);
    if steps.is_empty() {
        let file = flags.steps.display();
        return Err(Failure::new(format!(
            "--steps {file}: no step in it, expected steps separated by blank lines"
        )));
    }
    let options = Options {
        prm: Some(flags.prm.clone()),
        prm_format: flags.prm_format,
        engine: flags.engine.options(),
        ..Options::without_models()
    };
    let session = Session::open_watched(&options, &mut Downloads::default())?;
    say_notes(session.info());
    let scores = session.score(flags.problem.clone(), steps.clone()).wait()?;
    let usage = block_on(session.usage())?;
    if flags.json {
        return print_json(&Printed {
            scores,
            tokens_processed: usage.prm.map_or(0, |prm| prm.work.tokens_processed),
        });
    }
    let lines = steps
        .iter()
        .zip(&scores)
        .map(|(step, score)| format!("{score:.6}  {}\n", step.replace('\n', " ")));
    print(&lines.collect::<String>())
}
