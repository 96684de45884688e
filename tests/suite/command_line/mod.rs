//! The binary from the command line: good calls print what the README promises, bad ones end in one
//! sentence and exit code 2. This file checks calls that must fail and has the cheapest search; the
//! others test flags and their numbers, broken models, problem and results files and the commands' output.

#![cfg(unix)]

mod broken_models;
mod calibrate;
mod files;
mod flags;
mod numbers;
mod odd_models;
mod output;
mod prm_eval;
mod results;

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::{offshoot, report};

/// A call that cannot work.
pub struct Bad<'a> {
    pub arguments: &'a [&'a str],
    pub input: &'a str,
    /// What its first sentence must name.
    pub says: &'a [&'a str],
    /// Lines on stderr; `None` where clap adds its hints.
    pub lines: Option<usize>,
}

pub fn bad<'a>(arguments: &'a [&'a str], says: &'a [&'a str]) -> Bad<'a> {
    Bad {
        arguments,
        input: "",
        says,
        lines: Some(1),
    }
}

/// A call that clap refuses.
pub fn usage<'a>(arguments: &'a [&'a str], says: &'a [&'a str]) -> Bad<'a> {
    Bad {
        lines: None,
        ..bad(arguments, says)
    }
}

/// What is wrong with the end of a bad call, if anything.
pub fn complaint(output: &Output, says: &[&str], lines: Option<usize>) -> Option<String> {
    // A slow machine sees lines of progress before the end.
    let all = String::from_utf8_lossy(&output.stderr);
    let progress = |line: &&str| line.contains(" problems, ") || line.contains(" problems: ");
    let said: Vec<&str> = all.lines().filter(|line| !progress(line)).collect();
    let first = said.first().copied().unwrap_or_default();
    let stderr = said.join("\n");
    let what = if output.status.code() != Some(2) {
        format!("{}, exit code 2 expected", output.status)
    } else if stderr.contains("panicked") {
        "it panicked".into()
    } else if !first.starts_with("error: ") {
        "no sentence".into()
    } else if let Some(missing) = says.iter().find(|s| !stderr.contains(**s)) {
        format!("{missing:?} is not named")
    } else if lines.is_some_and(|lines| stderr.lines().count() != lines) {
        format!("{lines:?} lines expected")
    } else {
        return None;
    };
    Some(format!("{what}: {stderr:?}"))
}

pub fn check(folder: &Path, cases: &[Bad<'_>]) {
    let mut complaints = Vec::new();
    for case in cases {
        let output = offshoot(folder, case.arguments, case.input);
        if let Some(what) = complaint(&output, case.says, case.lines) {
            complaints.push(format!("{:?}: {what}", case.arguments));
        }
    }
    report(&complaints);
}

/// The cheapest search there is.
pub const CHEAP: [&str; 3] = ["solve", "--n", "4"];

/// That search with more arguments.
pub fn cheap<'a>(more: &[&'a str]) -> Vec<&'a str> {
    CHEAP.iter().chain(more).copied().collect()
}

/// The paths that `value` lacks.
pub fn missing<'a>(value: &Value, paths: &[&'a str]) -> Vec<&'a str> {
    let there = |path: &&&str| value.pointer(&format!("/{path}")).is_none();
    paths.iter().filter(there).copied().collect()
}
