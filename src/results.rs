//! The results file: one JSON object a line, one line per solved problem.
//!
//! A line is appended and synced when its problem ends, so nothing finished is lost, whatever
//! ends the process. A line that a crash cut short is removed on resuming. When every problem
//! is there, the lines are put into the order of the problem file (through a temporary file and a
//! rename), so an interrupted run ends in the same bytes as an uninterrupted one.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strategies::{
    Grader, Outcome, Problem, Selection, Solution, Strategy, Subsample, Trace, Verdict,
};

use crate::error::{Done, Failure};

/// Everything that decides what a problem's result is. Results of different settings do not go
/// into one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The policy, as named, and its size.
    pub policy: String,
    /// Its parameters.
    pub policy_params: u64,
    /// The PRM, if the strategy uses one.
    pub prm: Option<String>,
    /// Its parameters.
    pub prm_params: Option<u64>,
    /// How the PRM is read.
    pub prm_format: Option<String>,
    /// System message of the policy's prompt.
    pub system: Option<String>,
    /// Line after the problem in the policy's prompt.
    pub instruction: Option<String>,
    /// What becomes of tokens past a model's positions.
    pub past_limit: String,
    /// Storage of the KV cache, if not as the weights.
    pub kv_dtype: Option<String>,
    /// Bits of the matrices, if not as they are stored.
    pub quantize: Option<String>,
    /// The search.
    pub search: strategies::Config,
}

/// Tokens one problem took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Drawn from the policy: kept, dropped, duplicate and looked ahead.
    pub policy: u64,
    /// Given to the PRM, each once.
    pub prm: u64,
}

/// One line of a results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The problem's id.
    pub id: String,
    /// The question.
    pub problem: String,
    /// Difficulty, if known.
    pub level: Option<u8>,
    /// Field, if known.
    pub subject: Option<String>,
    /// The true answer, if known.
    pub answer: Option<String>,
    /// The answer given, by the verdict that counts.
    pub prediction: Option<String>,
    /// Whether it is right, if that is known.
    pub correct: Option<bool>,
    /// The strategy.
    pub strategy: Strategy,
    /// N.
    pub n: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The verdict that counts.
    pub verdict: Selection,
    /// Who compared answers.
    pub grader: Grader,
    /// Every aggregation and selection.
    pub verdicts: Vec<Verdict>,
    /// The verdicts of smaller budgets.
    pub by_n: Vec<Subsample>,
    /// What it took.
    pub tokens: Tokens,
    /// Whether any solution found is right, if that is known.
    pub any_correct: Option<bool>,
    /// The settings of the run.
    pub settings: Settings,
    /// The solutions, with --trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solutions: Option<Vec<Solution>>,
    /// The search tree, with --trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Trace>,
}

impl Line {
    /// The line of a solved problem.
    pub fn new(
        problem: &Problem,
        outcome: Outcome,
        settings: &Settings,
        tokens: Tokens,
        trees: bool,
    ) -> Line {
        let search = &settings.search;
        let graded = problem.answer.is_some();
        Line {
            id: problem.id.clone(),
            problem: problem.problem.clone(),
            level: problem.level,
            subject: problem.subject.clone(),
            answer: problem.answer.clone(),
            prediction: outcome.prediction,
            correct: outcome.correct,
            strategy: search.strategy,
            n: search.n,
            seed: search.seed,
            verdict: outcome.selection,
            grader: outcome.grader,
            verdicts: outcome.verdicts,
            by_n: outcome.by_n,
            tokens,
            any_correct: graded.then(|| outcome.solutions.iter().any(|s| s.correct == Some(true))),
            settings: settings.clone(),
            solutions: trees.then_some(outcome.solutions),
            tree: trees.then_some(outcome.trace),
        }
    }
}

/// A results file being written.
pub struct Results {
    path: PathBuf,
    file: File,
    /// A device or a pipe takes results but holds none.
    regular: bool,
}

impl Results {
    /// Opens `path`, making it if need be. Returns what is in it already, by id.
    ///
    /// A file of other settings, with another problem under the id of one of `problems`, or with
    /// a line that is no result, is refused untouched.
    pub fn open(
        path: &Path,
        settings: &Settings,
        trees: bool,
        problems: &[Problem],
    ) -> Done<(Results, HashMap<String, Line>)> {
        let failed = |e: io::Error| Failure::io(&format!("--out {}", path.display()), &e);
        let mut file = (OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false))
        .open(path)
        .map_err(failed)?;
        // Two runs on one file would each redo the other's problems.
        file.try_lock().map_err(|_| {
            Failure::new(format!(
                "--out {}: another run is writing this file",
                path.display()
            ))
        })?;
        let regular = file.metadata().map_err(failed)?.is_file();
        let mut bytes = Vec::new();
        if regular {
            file.read_to_end(&mut bytes).map_err(failed)?;
        }
        // What follows the last line break was cut short by a crash.
        let whole = bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        let lines = read_lines(path, &bytes[..whole])?;
        let texts: HashMap<&str, &str> = (problems.iter())
            .map(|p| (p.id.as_str(), p.problem.as_str()))
            .collect();
        for (number, line) in lines.iter().enumerate() {
            if let Some(difference) = difference(&line.settings, settings) {
                return Err(Failure::new(format!(
                    "--out {} line {}: made with other settings ({difference}); name another file",
                    path.display(),
                    number + 1
                )));
            }
            if line.tree.is_some() != trees {
                let (has, wants) = if trees {
                    ("without", "with")
                } else {
                    ("with", "without")
                };
                return Err(Failure::new(format!(
                    "--out {} line {}: written {has} --trees, this run is {wants}; name another file",
                    path.display(),
                    number + 1
                )));
            }
            if (texts.get(line.id.as_str())).is_some_and(|text| *text != line.problem) {
                return Err(Failure::new(format!(
                    "--out {} line {}: {:?} is another problem there; name another file",
                    path.display(),
                    number + 1,
                    line.id
                )));
            }
        }
        if regular {
            file.set_len(whole as u64).map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
        }
        let done = lines
            .into_iter()
            .map(|line| (line.id.clone(), line))
            .collect();
        Ok((
            Results {
                path: path.into(),
                file,
                regular,
            },
            done,
        ))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::io(&format!("--out {}", self.path.display()), error)
    }

    /// Appends a line; it is on the disk when this returns.
    pub fn append(&mut self, line: &Line) -> Done {
        let mut bytes = serde_json::to_vec(line).map_err(|e| Failure::new(e.to_string()))?;
        bytes.push(b'\n');
        let written = self
            .file
            .write_all(&bytes)
            .and_then(|()| match self.regular {
                true => self.file.sync_data(),
                false => Ok(()),
            });
        written.map_err(|e| self.failed(&e))
    }

    /// Puts the lines into the order of `ids`, once all of them are there.
    pub fn sort(&mut self, ids: &[&str]) -> Done {
        if !self.regular {
            return Ok(());
        }
        let failed = |e: io::Error| Failure::io(&format!("--out {}", self.path.display()), &e);
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.read_to_string(&mut text).map_err(failed)?;
        let rank: HashMap<&str, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let mut lines: Vec<(usize, &str)> = Vec::new();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).map_err(|e| failed(e.into()))?;
            let id = value.get("id").and_then(Value::as_str).unwrap_or_default();
            lines.push((rank.get(id).copied().unwrap_or(usize::MAX), line));
        }
        if lines.is_sorted_by_key(|(rank, _)| *rank) {
            return Ok(());
        }
        lines.sort_by_key(|(rank, _)| *rank);
        let beside = self.path.with_extension("sorting");
        let sorted = lines
            .iter()
            .flat_map(|(_, line)| [line, "\n"])
            .collect::<String>();
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(sorted.as_bytes())?;
            file.sync_data()?;
            std::fs::rename(&beside, &self.path)
        };
        write().map_err(failed)
    }
}

/// The lines of a results file.
pub fn read_lines(path: &Path, bytes: &[u8]) -> Done<Vec<Line>> {
    let mut lines = Vec::new();
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let line = serde_json::from_slice(line).map_err(|e| {
            let place = path.display();
            Failure::new(format!(
                "{place} line {}: not a result of offshoot solve: {e}",
                number + 1
            ))
        })?;
        lines.push(line);
    }
    Ok(lines)
}

/// The first setting that differs, in words.
fn difference(there: &Settings, here: &Settings) -> Option<String> {
    let (there, here) = (
        serde_json::to_value(there).ok()?,
        serde_json::to_value(here).ok()?,
    );
    first_difference("", &there, &here)
}

fn first_difference(name: &str, there: &Value, here: &Value) -> Option<String> {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => (a.keys().chain(b.keys())).find_map(|key| {
            let (a, b) = (
                a.get(key).unwrap_or(&Value::Null),
                b.get(key).unwrap_or(&Value::Null),
            );
            first_difference(key, a, b)
        }),
        _ if there == here => None,
        _ => Some(format!("{name} {there} in the file, {here} now")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::first_difference;

    #[test]
    fn the_setting_that_differs_is_named() {
        for (there, here, expected) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (
                json!({"a": 1, "s": {"n": 4}}),
                json!({"a": 1, "s": {"n": 16}}),
                Some("n 4 in the file, 16 now"),
            ),
            (
                json!({"a": null}),
                json!({"a": "x"}),
                Some("a null in the file, \"x\" now"),
            ),
            (
                json!({}),
                json!({"b": 2}),
                Some("b null in the file, 2 now"),
            ),
        ] {
            let found = first_difference("", &there, &here);
            assert_eq!(found.as_deref(), expected, "{there} and {here}");
        }
    }
}
