//! The independent reference (`tests/reference/`) makes the choices of fresh results again, and sees
//! when one was another.
//!
//! Python 3 is enough. γ of DORA and the PRM's scores are computed by transformers:
//! `OFFSHOOT_REFERENCE_PYTHON` names an interpreter that has it (default: `python3`); without one
//! that part is left out, which the test says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::common::{embedded, finish, offshoot, report, repository, scratch, stdout_of};

/// The searches whose choices are altered one by one: one of each strategy.
const ALTERED: [&str; 7] = [
    "majority --n 9",
    "best-of-n --n 4",
    "beam --n 8 --lookahead 1 --temperature 1.3",
    "dvts --n 8 --temperature 1.3",
    "rebase --n 8 --temperature 1.3",
    "dora --n 8 --similarity-temperature 1e6",
    "particle-filtering --n 8",
];

/// Searches that are replayed: every strategy and every rule of its own, ties and duplicates (N is
/// large for so few distinct steps), steps that are cut, dead ends, paths that end in different
/// rounds.
const SEARCHES: [&str; 30] = [
    "cot",
    "majority --n 9",
    "majority --n 32 --stop-rule unbeatable",
    "majority --n 32 --stop-rule beta",
    "majority --n 32 --stop-rule bayes-factor --temperature 1.1",
    "majority --n 24 --temperature 1.2 --confidence-bar 10 --confidence-warmup 8 --confidence-window 16",
    "best-of-n --n 8 --selection self-certainty-vote",
    "best-of-n --n 8 --max-tokens 60",
    "best-of-n --n 16 --stop-rule unbeatable",
    "best-of-n --n 16 --stop-rule unbeatable --selection min-max",
    "best-of-n --n 16 --stop-rule beta",
    "best-of-n --n 8 --temperature 1.2 --aggregation product --selection min-max",
    "beam",
    "beam --n 8 --aggregation min --temperature 1.3",
    "beam --n 8 --lookahead 2 --aggregation mean",
    "beam --n 8 --max-step-tokens 16 --temperature 1.3",
    "beam --n 8 --max-step-tokens 13",
    "beam --n 8 --max-steps 3",
    "beam --n 8 --delimiter . --answer-marker= --temperature 1.1",
    "beam --n 12 --beam-mode search-and-learn --temperature 1.3 --max-step-tokens 17",
    "dvts --n 8 --temperature 1.1",
    "dvts --n 8 --max-step-tokens 14 --max-retries 1",
    "rebase --temperature 1.3",
    "rebase --n 8 --max-step-tokens 15 --balance-temperature 0.05",
    "dora --n 8 --similarity-temperature 1e6",
    "dora --n 8 --similarity-temperature 1e6 --temperature 1.3 --max-step-tokens 15",
    "dora --n 16 --similarity-temperature 1e6 --balance-temperature 1",
    "particle-filtering --n 8",
    "particle-filtering --n 8 --max-steps 3 --temperature 1.1",
    "particle-filtering --n 8 --max-step-tokens 16",
];

/// Solves 20 problems of all levels with these flags into a file of `folder`.
fn solve(folder: &Path, file: &str, strategy: &str) {
    let problems = repository("session/src/embedded/nano-heldout.jsonl");
    let lines = fs::read_to_string(problems).expect("the bundled problems");
    let some: Vec<&str> = lines.lines().step_by(10).collect();
    fs::write(folder.join("problems.jsonl"), some.join("\n")).expect("a file is written");
    let fixed = "solve --problems problems.jsonl --trees --json --out";
    let words: Vec<&str> = (fixed.split(' '))
        .chain([file, "--strategy"])
        .chain(strategy.split(' '))
        .collect();
    stdout_of(&offshoot(folder, &words, ""));
}

/// A program of the reference with these arguments.
fn reference(python: &str, folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(python);
    command
        .current_dir(folder)
        .arg("-B")
        .arg(repository("tests/reference").join(program))
        .args(arguments);
    finish(&mut command, "")
}

fn replay(folder: &Path, file: &str) -> Output {
    reference("python3", folder, "replay.py", &[file])
}

#[test]
fn the_reference_makes_every_choice_of_every_strategy() {
    let folder = scratch("reference");
    let mut complaints = Vec::new();
    for (number, search) in SEARCHES.iter().enumerate() {
        let file = format!("{number}.jsonl");
        solve(&folder, &file, search);
        let output = replay(&folder, &file);
        if !output.status.success() {
            complaints.push(format!("{search}: {}", said(&output)));
        }
    }
    report(&complaints);
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// What was altered, and what the reference must say of it.
type Alteration = (fn(&mut Value), &'static str);

#[test]
fn the_reference_sees_a_choice_that_was_altered() {
    let folder = scratch("reference-altered");
    solve(&folder, "beam.jsonl", "beam --n 8 --temperature 1.3");
    let text = fs::read_to_string(folder.join("beam.jsonl")).expect("results");
    // A problem with two solutions and dropped steps.
    let whole: Value = (text.lines())
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of results"))
        .find(|line| line["solutions"].as_array().is_some_and(|s| s.len() == 2))
        .expect("a search with two solutions");
    let alterations: [Alteration; 7] = [
        (
            |line| *first(line, "dropped") = json!("kept"),
            ": state: 'dropped' here, 'kept' in the record",
        ),
        (
            |line| *first(line, "duplicate") = json!("dropped"),
            ": state: 'duplicate' here, 'dropped' in the record",
        ),
        (
            |line| line["tree"]["nodes"][1]["value"] = json!(0.123),
            "node 1: value: ",
        ),
        (
            |line| line["solutions"].as_array_mut().expect("a list").reverse(),
            "solutions' last nodes: ",
        ),
        (
            |line| line["verdicts"][0]["solution"] = json!(null),
            "min-max: ",
        ),
        (
            |line| line["prediction"] = json!("none of them"),
            "answer: ",
        ),
        (
            |line| {
                line["tree"]["nodes"].as_array_mut().expect("a list").pop();
            },
            "the reference writes another child of it, the record has no more",
        ),
    ];
    let mut complaints = Vec::new();
    for (alter, expected) in alterations {
        let mut line = whole.clone();
        alter(&mut line);
        fs::write(folder.join("altered.jsonl"), line.to_string()).expect("a file is written");
        let output = replay(&folder, "altered.jsonl");
        let heard = said(&output);
        if output.status.code() != Some(1) || !heard.contains(expected) {
            complaints.push(format!("expected {expected:?}: {heard}"));
        }
    }
    report(&complaints);
}

/// The state of the first node in this state.
fn first<'a>(line: &'a mut Value, state: &str) -> &'a mut Value {
    let nodes = line["tree"]["nodes"].as_array_mut().expect("a list");
    let node = nodes.iter_mut().find(|node| node["state"] == state);
    &mut node.expect("a node in this state")["state"]
}

#[test]
fn the_reference_sees_every_single_choice_that_was_altered() {
    let folder = scratch("reference-mutations");
    let mut complaints = Vec::new();
    for (number, search) in ALTERED.iter().enumerate() {
        let file = format!("{number}.jsonl");
        solve(&folder, &file, search);
        let arguments = [file.as_str(), "--problems", "4"];
        let output = reference("python3", &folder, "mutate.py", &arguments);
        if !output.status.success() {
            complaints.push(format!("{search}: {}", said(&output)));
        }
    }
    report(&complaints);
}

#[test]
fn the_numbers_of_the_reference_are_right() {
    let output = reference("python3", &scratch("reference-unit"), "unit.py", &[]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn what_the_reference_does_not_know_is_refused_by_name() {
    let folder = scratch("reference-refused");
    solve(&folder, "beam.jsonl", "beam --n 4");
    solve(&folder, "dora.jsonl", "dora --n 4");
    let text = fs::read_to_string(folder.join("beam.jsonl")).expect("results");
    let line = text.lines().next().expect("a line");
    let option = |name: &str, value: Value| {
        let mut line: Value = serde_json::from_str(line).expect("a line of results");
        line["settings"]["search"][name] = value;
        line.to_string()
    };
    let selection = line.replace("\"min-max\"", "\"wisest-max\"");
    let dora = fs::read_to_string(folder.join("dora.jsonl")).expect("results");
    let cases = [
        (
            "{\"id\": \"1\"}".into(),
            "no \"settings\"; expected a line of `offshoot solve --trees --out`",
        ),
        (
            option("strategy", json!("later")),
            "the reference has no strategy later; it has cot,",
        ),
        (
            option("beam_mode", json!("later")),
            "the reference has no beam_mode later; it has paper,",
        ),
        (
            option("aggregation", json!("later")),
            "the reference has no aggregation later; it has min,",
        ),
        (
            option("stop_rule", json!("later")),
            "the reference has no stop_rule later; it has none,",
        ),
        (
            option("grader", json!("qwen")),
            "the reference has grader strict only, not qwen",
        ),
        (
            option("later", json!(1)),
            "the reference does not know the option later",
        ),
        (selection, "the reference has no selection wisest-max"),
        (dora, "which needs --policy DIR"),
    ];
    let mut complaints = Vec::new();
    for (text, sentence) in cases {
        fs::write(folder.join("other.jsonl"), text).expect("a file is written");
        let output = replay(&folder, "other.jsonl");
        let heard = said(&output);
        if output.status.code() != Some(2) || !heard.contains(sentence) {
            complaints.push(format!("expected {sentence:?}: {heard}"));
        }
    }
    report(&complaints);
}

#[test]
fn transformers_gives_the_same_scores_and_embeddings() {
    let named = std::env::var("OFFSHOOT_REFERENCE_PYTHON");
    let python = named.as_deref().unwrap_or("python3");
    let there = Command::new(python)
        .args(["-c", "import torch, transformers"])
        .stderr(Stdio::null())
        .status();
    if named.is_err() && !there.is_ok_and(|status| status.success()) {
        eprintln!(
            "left out: python3 has no torch and transformers, OFFSHOOT_REFERENCE_PYTHON is not set"
        );
        return;
    }
    let folder = scratch("reference-models");
    solve(&folder, "dora.jsonl", "dora --n 8");
    solve(&folder, "beam.jsonl", "beam --n 8");
    let (policy, prm) = (embedded("nano-small"), embedded("nano-prm"));
    let (policy, prm) = (policy.to_string_lossy(), prm.to_string_lossy());
    let models = ["--policy", &policy, "--prm", &prm];
    let arguments = ["dora.jsonl", "beam.jsonl"].into_iter().chain(models);
    let arguments: Vec<&str> = arguments.collect();
    let output = reference(python, &folder, "replay.py", &arguments);
    assert!(output.status.success(), "{}", said(&output));
}
