//! The results file: one JSON object a line, one line per solved problem.
//!
//! A line is appended and synced when its problem ends, so nothing finished is lost, whatever ends
//! the process. A line that a crash cut short is removed on resuming. When every problem is there,
//! the lines are put into the order of the problem file (through a new file beside it and a
//! rename), so an interrupted run ends in the same bytes as an uninterrupted one. A symbolic link
//! stays a link, mode and owner stay as they are, and no file but this one is touched.
//!
//! An answer that was corrected in the problem file is graded anew: the predictions are in the
//! line.

mod file;

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strategies::{
    Config, ContextOverflow, ExtractionCounts, ExtractionRule, Grader, Level, Outcome, Problem,
    Selection, Solution, Strategy, Subsample, Trace, Verdict,
};

pub use self::file::Results;
use crate::device::kv_dtype_word;
use crate::{Error, Info, Options};

/// The version of the lines written here. A line without a version is of version 0, from before
/// there were versions; a line of a newer version is refused.
pub const SCHEMA: u32 = 1;

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
    /// What happens when a sequence exceeds a model's context length.
    #[serde(alias = "past_limit")]
    pub context_overflow: ContextOverflow,
    /// Storage of the KV cache, if not as the weights.
    pub kv_dtype: Option<String>,
    /// Bits of the matrices, if not as they are stored.
    pub quantize: Option<String>,
    /// The kind of device that computed it; `None` in lines of version 0.
    #[serde(default)]
    pub device: Option<String>,
    /// The CPU's instruction set; `None` on a card.
    #[serde(default)]
    pub instruction_set: Option<String>,
    /// The search.
    pub search: Config,
}

impl Settings {
    /// The settings of a session's searches.
    pub fn new(options: &Options, info: &Info, config: &Config) -> Settings {
        let prm = info.prm.as_ref().filter(|_| config.strategy.needs_prm());
        let policy = info.policy.as_ref();
        Settings {
            policy: policy.map(|policy| policy.name.clone()).unwrap_or_default(),
            policy_params: policy.map_or(0, |policy| policy.params as u64),
            prm: prm.map(|prm| prm.name.clone()),
            prm_params: prm.map(|prm| prm.params as u64),
            prm_format: prm.and_then(|prm| prm.prm_format).map(str::to_string),
            system: info.prompt.system.clone(),
            instruction: info.prompt.instruction.clone(),
            context_overflow: options.engine.context_overflow,
            kv_dtype: options
                .engine
                .kv_dtype
                .map(|dtype| kv_dtype_word(dtype).to_string()),
            quantize: options.engine.quantize.map(|kind| kind.name().to_string()),
            device: Some(info.machine.device.clone()),
            instruction_set: info.machine.instruction_set.map(str::to_string),
            search: config.clone(),
        }
    }
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
    /// [`SCHEMA`] of the program that wrote it.
    #[serde(default)]
    pub schema: u32,
    /// The problem's id.
    pub id: String,
    /// The question.
    pub problem: String,
    /// Difficulty, if known.
    pub level: Option<Level>,
    /// Field, if known.
    pub subject: Option<String>,
    /// The true answer, if known.
    pub answer: Option<String>,
    /// The answer that was selected.
    pub prediction: Option<String>,
    /// The rule that found it; absent where there is no answer, and in lines of earlier releases.
    #[serde(default)]
    pub extraction: Option<ExtractionRule>,
    /// How many solutions' answers each rule found, `none` included; empty in lines of earlier
    /// releases.
    #[serde(default)]
    pub extractions: ExtractionCounts,
    /// Whether it is right, if that is known.
    pub correct: Option<bool>,
    /// The strategy.
    pub strategy: Strategy,
    /// N.
    pub n: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// How the answer was selected.
    #[serde(alias = "verdict")]
    pub selection: Selection,
    /// Who compared answers.
    pub grader: Grader,
    /// Every aggregation and selection.
    pub verdicts: Vec<Verdict>,
    /// The verdicts of smaller budgets.
    pub by_n: Vec<Subsample>,
    /// What it took.
    pub tokens: Tokens,
    /// Whether any solution found is right, if that is known: not where the answer was corrected
    /// later and only solutions that no verdict selects could be right.
    pub any_correct: Option<bool>,
    /// The settings of the run.
    pub settings: Settings,
    /// The solutions, if trees are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solutions: Option<Vec<Solution>>,
    /// The search tree, if trees are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Trace>,
}

impl Line {
    /// The line of a solved problem.
    pub fn new(problem: &Problem, outcome: Outcome, settings: &Settings, trees: bool) -> Line {
        let tokens = Tokens {
            policy: outcome.policy_tokens as u64,
            prm: outcome.prm_tokens as u64,
        };
        let search = &settings.search;
        let graded = problem.answer.is_some();
        let extractions = outcome.extractions();
        Line {
            schema: SCHEMA,
            id: problem.id.clone(),
            problem: problem.problem.clone(),
            level: problem.level.clone(),
            subject: problem.subject.clone(),
            answer: problem.answer.clone(),
            prediction: outcome.prediction,
            extraction: outcome.extraction,
            extractions,
            correct: outcome.correct,
            strategy: search.strategy,
            n: search.n,
            seed: search.seed,
            selection: outcome.selection,
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

    /// Grades the predictions that are here against another true answer.
    fn regrade(&mut self, answer: &str) {
        let grader = self.grader;
        let right = |prediction: &Option<String>| {
            let right = |p: &String| grader.equivalent(p, answer);
            Some(prediction.as_ref().is_some_and(right))
        };
        self.answer = Some(answer.into());
        self.correct = right(&self.prediction);
        let smaller = self.by_n.iter_mut().flat_map(|row| &mut row.verdicts);
        for verdict in self.verdicts.iter_mut().chain(smaller) {
            verdict.correct = right(&verdict.prediction);
        }
        for solution in self.solutions.iter_mut().flatten() {
            solution.correct = right(&solution.answer);
        }
        let smaller = self.by_n.iter().flat_map(|row| &row.verdicts);
        let seen_right = (self.verdicts.iter().chain(smaller)).any(|v| v.correct == Some(true));
        self.any_correct = match &self.solutions {
            Some(all) => Some(all.iter().any(|s| s.correct == Some(true))),
            None => seen_right.then_some(true),
        };
    }
}

/// Why a line that is there cannot stand in the file of a run with these settings and problems.
fn unfit(
    line: &Line,
    settings: &Settings,
    trees: bool,
    by_id: &HashMap<&str, &Problem>,
) -> Option<String> {
    if let Some(difference) = difference(&line.settings, settings) {
        return Some(format!("made with other settings ({difference})"));
    }
    if line.tree.is_some() != trees {
        let (has, wants) = if trees {
            ("without", "with")
        } else {
            ("with", "without")
        };
        return Some(format!("written {has} trees, this run is {wants}"));
    }
    let other = (by_id.get(line.id.as_str())).is_some_and(|p| p.problem != line.problem);
    other.then(|| format!("{:?} is another problem there", line.id))
}

/// The lines of a results file. The setting `setting` names it in errors.
///
/// # Errors
/// A line that is not a result, or one of a newer version than [`SCHEMA`].
pub fn read_lines(setting: &'static str, path: &Path, bytes: &[u8]) -> Result<Vec<Line>, Error> {
    let lines = numbered_lines(setting, path, bytes)?;
    Ok(lines.into_iter().map(|there| there.line).collect())
}

/// A line of a file.
struct Numbered<'a> {
    /// Counted from 1.
    number: usize,
    /// As it is written.
    bytes: &'a [u8],
    line: Line,
}

/// The lines of a file.
fn numbered_lines<'a>(
    setting: &'static str,
    path: &Path,
    bytes: &'a [u8],
) -> Result<Vec<Numbered<'a>>, Error> {
    let lines = not_blank(bytes).map(|(number, bytes)| match read_line(bytes) {
        Ok(line) => Ok(Numbered {
            number,
            bytes,
            line,
        }),
        Err(problem) => Err(Error::File {
            setting,
            file: path.display().to_string(),
            line: Some(number),
            problem,
        }),
    });
    lines.collect()
}

/// The lines that are not blank, with their numbers, without a byte order mark and the white space
/// at their ends: an editor may have been over them.
fn not_blank(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    (1..)
        .zip(bytes.split(|&b| b == b'\n').map(<[u8]>::trim_ascii))
        .filter(|(_, line)| !line.is_empty())
}

fn read_line(bytes: &[u8]) -> Result<Line, String> {
    /// What a line of any version has, read first: a newer one may have other fields.
    #[derive(Deserialize)]
    struct Version {
        #[serde(default)]
        schema: u32,
    }
    let not_a_result = |e: serde_json::Error| format!("not a result of offshoot solve: {e}");
    let version: Version = serde_json::from_slice(bytes).map_err(not_a_result)?;
    if version.schema > SCHEMA {
        return Err(format!(
            "written by a newer offshoot (schema {}, this one reads up to {SCHEMA})",
            version.schema
        ));
    }
    serde_json::from_slice(bytes).map_err(not_a_result)
}

/// The first setting that differs, in words.
pub(crate) fn difference(there: &Settings, here: &Settings) -> Option<String> {
    let mut there = there.clone();
    if there.device.is_none() {
        // From before the device was written down: nothing is known of it.
        there.device.clone_from(&here.device);
        there.instruction_set.clone_from(&here.instruction_set);
    }
    // Sets that give the same bits may share a file.
    if same_bits(&there.instruction_set) == same_bits(&here.instruction_set) {
        there.instruction_set.clone_from(&here.instruction_set);
    }
    let (there, here) = (
        serde_json::to_value(there).ok()?,
        serde_json::to_value(here).ok()?,
    );
    first_difference("", &there, &here)
}

/// One name for all instruction sets that give the same bits: those with fused multiply-add.
fn same_bits(instruction_set: &Option<String>) -> Option<&str> {
    match instruction_set.as_deref() {
        Some("AVX2" | "AVX-512") => Some("fused multiply-add"),
        other => other,
    }
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

    use super::*;

    #[test]
    fn a_newer_line_is_refused_and_an_older_one_has_no_version() {
        let refused = |line: &str| read_line(line.as_bytes()).err().unwrap_or_default();
        let newer = format!("{{\"schema\": {}, \"what\": \"ever\"}}", SCHEMA + 1);
        assert!(
            refused(&newer).contains("newer offshoot"),
            "{}",
            refused(&newer)
        );
        assert!(refused("{}").contains("missing field"), "{}", refused("{}"));
    }

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
