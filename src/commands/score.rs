//! `offshoot score`: the PRM's scores of a solution's steps.

use serde::Serialize;
use strategies::{EnginePrm, Prm};

use super::{print, print_json, read_stdin};
use crate::error::{Done, Failure};
use crate::flags::ScoreFlags;
use crate::models;

#[derive(Serialize)]
struct Printed {
    scores: Vec<f64>,
    tokens_processed: u64,
}

/// Runs the command.
pub fn run(flags: &ScoreFlags) -> Done {
    let text = match flags.steps.as_os_str() == "-" {
        true => read_stdin("--steps")?,
        false => std::fs::read_to_string(&flags.steps)
            .map_err(|e| Failure::io(&format!("--steps {}", flags.steps.display()), &e))?,
    };
    let text = text.replace("\r\n", "\n");
    let steps: Vec<&str> = text
        .split("\n\n")
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect();
    if steps.is_empty() {
        let file = flags.steps.display();
        return Err(Failure::new(format!(
            "--steps {file}: no step in it, expected steps separated by blank lines"
        )));
    }
    let prm = models::open("--prm", &flags.prm)?;
    let format = prm.prm_format("--prm", flags.prm_format)?;
    let (engine, models) = models::engine(&flags.engine, 0, &[(&prm, Some(&*format))])?;
    let scorer = EnginePrm::new(models[0].clone(), format, flags.engine.past_limit);
    let scores = engine.run(async {
        let mut branch = scorer.start(&flags.problem).await?;
        scorer.score(&mut branch, &steps).await
    })??;
    if flags.json {
        return print_json(&Printed {
            scores,
            tokens_processed: models[0].usage().tokens_processed,
        });
    }
    let lines = steps
        .iter()
        .zip(&scores)
        .map(|(step, score)| format!("{score:.6}  {}\n", step.replace('\n', " ")));
    print(&lines.collect::<String>())
}
