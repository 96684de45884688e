//! Runs the `offshoot` binary and reads its output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Done;
use crate::machine::root;

/// The binary, and a hash of it, which covers code and embedded models.
pub struct Offshoot {
    path: PathBuf,
    /// FNV-1a of the file.
    pub hash: String,
}

/// Right answers among problems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Problems with a known answer.
    pub problems: u64,
    /// Right ones.
    pub correct: u64,
}

/// Counts by level of the problems.
pub type Levels = BTreeMap<String, Count>;

/// One run of `offshoot solve`, as kept in the raw results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The arguments, without the paths of results files.
    pub arguments: Vec<String>,
    /// [`Offshoot::hash`].
    pub binary: String,
    /// FNV-1a of all answers in the problems' order.
    pub answers: String,
    /// Right answers of the run's selection, by N (the run's own and, by subsampling, smaller ones)
    /// and level.
    pub counts: BTreeMap<u64, Levels>,
    /// The output of `--json`.
    pub summary: Value,
}

impl Offshoot {
    /// The binary at `path`; without one, the release build of this workspace, brought up to date.
    pub fn find(path: Option<&Path>) -> Done<Offshoot> {
        let path = match path {
            Some(path) => path.to_path_buf(),
            None => build()?,
        };
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let hash = fnv(&bytes);
        Ok(Offshoot { path, hash })
    }

    /// Runs the binary with these arguments; what it prints is one JSON object.
    pub fn json(&self, arguments: &[String]) -> Done<Value> {
        let words = arguments.join(" ");
        let output = Command::new(&self.path)
            .args(arguments)
            .output()
            .map_err(|e| format!("{}: {e}", self.path.display()))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("offshoot {words}: {}", why.trim()));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("offshoot {words}: {e}"))
    }

    /// Runs `solve` with these arguments; `results` is a file for its lines, gone afterwards.
    pub fn solve(&self, arguments: &[String], results: &Path) -> Done<Run> {
        let _ = std::fs::remove_file(results);
        let mut command = Command::new(&self.path);
        command.arg("solve").args(arguments).arg("--json");
        command.arg("--out").arg(results);
        let output = (command.stderr(std::process::Stdio::inherit()).output())
            .map_err(|e| format!("{}: {e}", self.path.display()))?;
        if !output.status.success() {
            return Err(format!(
                "offshoot solve {}: {}",
                arguments.join(" "),
                output.status
            ));
        }
        let summary: Value = serde_json::from_slice(&output.stdout)
            .map_err(|e| format!("summary of offshoot solve: {e}"))?;
        let lines =
            std::fs::read_to_string(results).map_err(|e| format!("{}: {e}", results.display()))?;
        let _ = std::fs::remove_file(results);
        let (counts, answers) = read_results(&lines)?;
        let run = Run {
            arguments: arguments.to_vec(),
            binary: self.hash.clone(),
            answers,
            counts,
            summary,
        };
        let counted: u64 = run.levels(run.n()?)?.values().map(|c| c.correct).sum();
        if run.summary["correct"].as_u64() != Some(counted) {
            return Err(format!(
                "offshoot solve {}: {counted} right lines in the results, {} in the summary",
                arguments.join(" "),
                run.summary["correct"]
            ));
        }
        Ok(run)
    }
}

impl Run {
    /// N of the run.
    pub fn n(&self) -> Done<u64> {
        self.summary["n"].as_u64().ok_or("summary without n".into())
    }

    /// Right answers by level at this N.
    pub fn levels(&self, n: u64) -> Done<&Levels> {
        let words = self.arguments.join(" ");
        (self.counts.get(&n))
            .ok_or_else(|| format!("offshoot solve {words}: no verdict for N = {n}"))
    }

    /// A number of the summary, named by its path.
    pub fn number(&self, path: &str) -> f64 {
        self.summary
            .pointer(path)
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
    }
}

fn build() -> Done<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--package",
            "offshoot",
            "--package",
            "offshoot-emulator",
            "--message-format",
            "json",
        ])
        .current_dir(root())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo build: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo build: {}", output.status));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "offshoot")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or("cargo build: no binary named offshoot".into())
}

/// Counts by N and level, and the hash of the answers.
fn read_results(lines: &str) -> Done<(BTreeMap<u64, Levels>, String)> {
    let mut counts: BTreeMap<u64, Levels> = BTreeMap::new();
    let mut answers = String::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).map_err(|e| format!("results file: {e}"))?;
        answers += &format!("{}\t{}\n", line["id"], line["prediction"]);
        let level = line["level"].as_u64().map_or("-".into(), |l| l.to_string());
        let mut add = |n: &Value, correct: &Value| {
            if let (Some(n), Some(correct)) = (n.as_u64(), correct.as_bool()) {
                let count = counts
                    .entry(n)
                    .or_default()
                    .entry(level.clone())
                    .or_default();
                count.problems += 1;
                count.correct += u64::from(correct);
            }
        };
        add(&line["n"], &line["correct"]);
        for smaller in line["by_n"].as_array().into_iter().flatten() {
            for verdict in smaller["verdicts"].as_array().into_iter().flatten() {
                if verdict["selection"] == line["selection"] {
                    add(&smaller["n"], &verdict["correct"]);
                }
            }
        }
    }
    Ok((counts, fnv(answers.as_bytes())))
}

/// FNV-1a, 64 bits, in hexadecimal.
fn fnv(bytes: &[u8]) -> String {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        for (text, hash) in [
            ("", "cbf29ce484222325"),
            ("a", "af63dc4c8601ec8c"),
            ("foobar", "85944171f73967e8"),
        ] {
            assert_eq!(fnv(text.as_bytes()), hash, "{text:?}");
        }
    }

    #[test]
    fn results_are_counted_by_n_and_level() {
        let lines = [
            r#"{"id":"1","level":1,"n":4,"correct":true,"selection":"majority","prediction":"7","by_n":[{"n":1,"verdicts":[{"selection":"majority","correct":false},{"selection":"last-max","correct":true}]}]}"#,
            r#"{"id":"2","level":1,"n":4,"correct":false,"selection":"majority","prediction":null,"by_n":[{"n":1,"verdicts":[{"selection":"majority","correct":false}]}]}"#,
            r#"{"id":"3","level":2,"n":4,"correct":null,"selection":"majority","prediction":"1","by_n":[]}"#,
        ];
        let (counts, _) = read_results(&lines.join("\n")).expect("lines");
        let level_1 = |correct| {
            Levels::from([(
                "1".into(),
                Count {
                    problems: 2,
                    correct,
                },
            )])
        };
        assert_eq!(counts, BTreeMap::from([(1, level_1(0)), (4, level_1(1))]));
    }
}
