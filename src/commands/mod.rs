//! One file per subcommand.

pub mod bench;
pub mod calibrate;
pub mod completions;
pub mod devices;
pub mod export;
pub mod generate;
pub mod grade;
pub mod inspect;
pub mod kernels;
pub mod plan;
pub mod predict;
pub mod prm_eval;
pub mod quantize;
pub mod score;
pub mod show;
pub mod solve;
pub mod sweep;

use std::io::{Read, Write, stdin, stdout};
use std::path::Path;

use session::Problem;

use crate::error::{Done, Failure, print_failure};

/// The most malformed lines of a problem file that are named: a file of another kind has nothing
/// else.
const MOST_SENTENCES: usize = 20;

/// Writes to standard output.
pub fn print(text: &str) -> Done {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::stdout)
}

/// Prints one JSON object.
pub fn print_json(value: &impl serde::Serialize) -> Done {
    let text = serde_json::to_string(value).map_err(|e| Failure::new(e.to_string()))?;
    print(&(text + "\n"))
}

/// Says what is to know about a session before it works.
pub fn say_notes(info: &session::Info) {
    say_unused_card(&info.machine);
    for warning in info.warnings() {
        eprintln!("warning: {warning}");
    }
}

/// Says why a card that is there is not used.
pub fn say_unused_card(machine: &session::Machine) {
    if let Some(why) = &machine.unused_card {
        eprintln!("running on the CPU: {why}");
    }
}

/// All of standard input, as text.
pub fn read_stdin(what: &str) -> Done<String> {
    let mut text = String::new();
    stdin()
        .read_to_string(&mut text)
        .map_err(|e| Failure::io(&format!("{what} from standard input"), &e))?;
    Ok(text)
}

/// The first `limit` problems of a file, or of the bundled ones, and how many of its lines are none:
/// each of these is said on stderr, or is an error if `strict`.
pub fn read_problems(
    path: Option<&Path>,
    limit: Option<usize>,
    strict: bool,
) -> Done<(Vec<Problem>, usize)> {
    let (mut problems, bad) = match path {
        None => strategies::read_problems(session::embedded::PROBLEMS),
        Some(path) => {
            let file = format!("--problems {}", path.display());
            let bytes = std::fs::read(path).map_err(|e| Failure::io(&file, &e))?;
            let (problems, bad) = strategies::read_problems(&bytes);
            for line in bad.iter().take(MOST_SENTENCES) {
                let failure = Failure::new(format!("{file} {line}"));
                if strict {
                    return Err(failure);
                }
                print_failure(&failure);
            }
            if bad.len() > MOST_SENTENCES {
                let more = bad.len() - MOST_SENTENCES;
                print_failure(&Failure::new(format!("{file}: {more} lines more")));
            }
            if problems.is_empty() {
                return Err(Failure::new(format!("{file}: no problem in it")));
            }
            (problems, bad)
        }
    };
    problems.truncate(limit.unwrap_or(usize::MAX));
    Ok((problems, bad.len()))
}
