//! Problems, and the JSONL files they come in.
//!
//! One JSON object per line. Publishers use different names for the same field, so each field has
//! several names, compared without regard to case; other fields are ignored:
//!
//! - problem: `problem`, `question`, `prompt`
//! - answer: `answer` (after `####` if it has that, as in GSM8K), `final_answer` (a list in
//!   OlympiadBench), `extracted_groundtruth`; else the solution's `\boxed{}` or the text after its
//!   `####`
//! - solution: `solution`
//! - level: `level`, a number or "Level 3"
//! - subject: `subject`, `type`
//! - id: `id`, `unique_id`, `url`; else the line number
//!
//! The first name that is there counts.

use crate::last_boxed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;

/// A problem to solve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Unique in its file: `id`, `unique_id` or `url`, else the line number.
    pub id: String,
    /// The question.
    pub problem: String,
    /// The true answer, if known.
    pub answer: Option<String>,
    /// A reference solution, if known.
    pub solution: Option<String>,
    /// Difficulty, 1 to 5 in MATH.
    pub level: Option<u8>,
    /// Field of mathematics.
    pub subject: Option<String>,
}

impl Problem {
    /// A bare question.
    pub fn new(id: impl Into<String>, problem: impl Into<String>) -> Problem {
        Problem {
            id: id.into(),
            problem: problem.into(),
            answer: None,
            solution: None,
            level: None,
            subject: None,
        }
    }
}

/// A malformed line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// The text found and the text expected.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Reads a JSONL file. Malformed lines are returned beside the problems, so that a caller can skip
/// them or fail; blank lines are skipped. A line that is not UTF-8 is malformed.
pub fn read_problems(jsonl: &[u8]) -> (Vec<Problem>, Vec<BadLine>) {
    let mut problems = Vec::new();
    let mut bad = Vec::new();
    let mut lines_by_id: HashMap<String, usize> = HashMap::new();
    let text = jsonl.strip_prefix(b"\xef\xbb\xbf").unwrap_or(jsonl);
    for (index, bytes) in text.split(|&b| b == b'\n').enumerate() {
        let line = index + 1;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let parsed = parse(bytes, line).and_then(|problem| {
            match lines_by_id.insert(problem.id.clone(), line) {
                Some(first) => Err(format!(
                    "id {:?} is already used by line {first}",
                    problem.id
                )),
                None => Ok(problem),
            }
        });
        match parsed {
            Ok(problem) => problems.push(problem),
            Err(reason) => bad.push(BadLine { line, reason }),
        }
    }
    (problems, bad)
}

/// The JSON object on a line of a file; the error says how the line is malformed.
pub fn read_object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let text = str::from_utf8(line).map_err(|_| "is not UTF-8 text".to_string())?;
    let value: Value = serde_json::from_str(text).map_err(|e| {
        let sentence = e.to_string(); // ends in " at line 1 column 7"; the line is ours to name
        let what = sentence.split(" at line ").next().unwrap_or_default();
        format!("is not JSON at column {}: {what}", e.column())
    })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(format!("expected a JSON object, found {}", kind(&value))),
    }
}

fn parse(bytes: &[u8], line: usize) -> Result<Problem, String> {
    let object = read_object(bytes)?;
    let fields = Fields(object.into_iter().collect());
    let problem = fields
        .text(&PROBLEM)?
        .ok_or_else(|| fields.missing(&PROBLEM))?;
    if problem.trim().is_empty() {
        return Err(format!("the field {:?} is empty", fields.name(&PROBLEM)));
    }
    let (stated, solution) = (fields.text(&ANSWER)?, fields.text(&["solution"])?);
    let (answer, solution) = match stated {
        Some(stated) => match after_hashes(&stated) {
            Some(answer) => (Some(answer.into()), solution.or(Some(stated))),
            None => (Some(stated), solution),
        },
        None => {
            let read = solution.as_deref();
            let read = read.and_then(|s| last_boxed(s).or_else(|| after_hashes(s)));
            (read.map(String::from), solution)
        }
    };
    Ok(Problem {
        id: fields.text(&ID)?.unwrap_or_else(|| line.to_string()),
        problem,
        answer,
        solution,
        level: level(fields.get(&["level"]))?,
        subject: fields.text(&SUBJECT)?,
    })
}

const PROBLEM: [&str; 3] = ["problem", "question", "prompt"];
const ANSWER: [&str; 3] = ["answer", "final_answer", "extracted_groundtruth"];
const ID: [&str; 3] = ["id", "unique_id", "url"];
const SUBJECT: [&str; 2] = ["subject", "type"];

/// The answer after GSM8K's reasoning: `#### 18`.
fn after_hashes(text: &str) -> Option<&str> {
    let (_, answer) = text.rsplit_once("####")?;
    Some(answer.trim()).filter(|answer| !answer.is_empty())
}

/// The fields of one line.
struct Fields(Vec<(String, Value)>);

impl Fields {
    /// The first of `names` that is there, as the file spells it, and its value. Null is absent.
    fn find(&self, names: &[&str]) -> Option<(&str, &Value)> {
        names.iter().find_map(|name| {
            (self.0.iter())
                .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null())
                .map(|(key, value)| (key.as_str(), value))
        })
    }

    fn get(&self, names: &[&str]) -> Option<&Value> {
        self.find(names).map(|(_, value)| value)
    }

    fn name(&self, names: &[&str]) -> &str {
        self.find(names).map_or("", |(name, _)| name)
    }

    /// Text, a number as text, or a list of these, joined as several answers are.
    fn text(&self, names: &[&str]) -> Result<Option<String>, String> {
        let Some((name, value)) = self.find(names) else {
            return Ok(None);
        };
        let list = match value {
            Value::Array(items) if names != PROBLEM => Some(items),
            _ => None,
        };
        let text = match list {
            Some(items) => (items.iter().map(text_of).collect::<Option<Vec<_>>>())
                .map(|items| items.join(", ")),
            None => text_of(value),
        };
        match text {
            Some(text) if list.is_some() && text.is_empty() => Ok(None),
            Some(text) => Ok(Some(text)),
            None => Err(format!(
                "the field {name:?} is {}, expected text",
                kind(value)
            )),
        }
    }

    /// The sentence for a line that has none of `names`.
    fn missing(&self, names: &[&str]) -> String {
        let quoted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            names.join(", ")
        };
        let mut found: Vec<&str> = self.0.iter().map(|(key, _)| key.as_str()).take(8).collect();
        let more = self.0.len() > found.len();
        found.sort_unstable();
        format!(
            "none of the fields {} is there; found {}{}",
            quoted(names),
            if found.is_empty() {
                "no field".into()
            } else {
                quoted(&found)
            },
            if more { " and more" } else { "" }
        )
    }
}

/// A text or a number, as text; 27.0 is 27. `None` for anything else.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => {
            let text = number.to_string();
            Some(text.strip_suffix(".0").unwrap_or(&text).into())
        }
        _ => None,
    }
}

/// `"Level 2"`, `"2"` or `2`. MATH's `"Level ?"` is not a level.
fn level(value: Option<&Value>) -> Result<Option<u8>, String> {
    let text = match value {
        None => return Ok(None),
        Some(Value::String(text)) if text == "Level ?" => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => text_of(other).unwrap_or_else(|| other.to_string()),
    };
    let digits = text.strip_prefix("Level ").unwrap_or(&text);
    let level = digits.parse().map_err(|_| {
        format!("the field \"level\" is {text:?}, expected a number or \"Level 1\" to \"Level 5\"")
    })?;
    Ok(Some(level))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problem as `id|problem|answer|level|subject`, or the reason.
    fn brief(line: &str) -> String {
        let (problems, bad) = read_problems(line.as_bytes());
        match (problems.first(), bad.first()) {
            (Some(p), None) => {
                let or = |o: &Option<String>| o.clone().unwrap_or("-".into());
                let level = p.level.map_or("-".into(), |l| l.to_string());
                format!(
                    "{}|{}|{}|{level}|{}",
                    p.id,
                    p.problem,
                    or(&p.answer),
                    or(&p.subject)
                )
            }
            (None, Some(bad)) => bad.to_string(),
            _ => format!("{problems:?} {bad:?}"),
        }
    }

    #[test]
    fn line_table() {
        let cases = [
            (r#"{"problem":"p","answer":"4"}"#, "1|p|4|-|-"),
            (r#"{"problem":"p"}"#, "1|p|-|-|-"),
            (r#"{"problem":"p","answer":27.5}"#, "1|p|27.5|-|-"),
            (r#"{"problem":"p","answer":null,"level":null}"#, "1|p|-|-|-"),
            (
                r#"{"problem":"p","unique_id":"u/1.json","level":"Level 2","subject":"Algebra"}"#,
                "u/1.json|p|-|2|Algebra",
            ),
            (
                r#"{"problem":"p","id":7,"unique_id":"u","level":5}"#,
                "7|p|-|5|-",
            ),
            (r#"{"problem":"p","level":"3"}"#, "1|p|-|3|-"),
            (r#"{"problem":"p","level":"Level ?"}"#, "1|p|-|-|-"),
            ("\u{feff}{\"problem\":\"p\"}\r", "1|p|-|-|-"),
            (
                r#"{"problem":"p","level":"hard"}"#,
                r#"line 1: the field "level" is "hard", expected a number or "Level 1" to "Level 5""#,
            ),
            (
                r#"{"problem":"p","level":2.5}"#,
                r#"line 1: the field "level" is "2.5", expected a number or "Level 1" to "Level 5""#,
            ),
            (
                r#"{"answer":"4"}"#,
                r#"line 1: none of the fields "problem", "question", "prompt" is there; found "answer""#,
            ),
            (
                r#"{"problem":" "}"#,
                r#"line 1: the field "problem" is empty"#,
            ),
            (
                r#"{"problem":["p"]}"#,
                r#"line 1: the field "problem" is a list, expected text"#,
            ),
            (
                "{}",
                r#"line 1: none of the fields "problem", "question", "prompt" is there; found no field"#,
            ),
            (
                r#"{"Question":["p"]}"#,
                r#"line 1: the field "Question" is a list, expected text"#,
            ),
            (
                r#"{"problem":"p","answer":{"value":4}}"#,
                r#"line 1: the field "answer" is an object, expected text"#,
            ),
            (
                r#"{"problem":"p","final_answer":[["4"]]}"#,
                r#"line 1: the field "final_answer" is a list, expected text"#,
            ),
            (r#"[1]"#, "line 1: expected a JSON object, found a list"),
            (
                r#"{"problem":"p""#,
                "line 1: is not JSON at column 14: EOF while parsing an object",
            ),
        ];
        let mut failures = Vec::new();
        for (line, want) in cases {
            let got = brief(line);
            if got != want {
                failures.push(format!("{line}\n  gave {got}\n  not  {want}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    /// One line in the form of each publisher, with problems of our own.
    #[test]
    fn every_publishers_form_is_read() {
        let cases = [
            (
                // MATH-500
                r#"{"problem":"What is $2+3$?","solution":"It is $\\boxed{5}$.","answer":"5","subject":"Prealgebra","level":2,"unique_id":"test/prealgebra/1.json"}"#,
                "test/prealgebra/1.json|What is $2+3$?|5|2|Prealgebra",
            ),
            (
                // MATH: no answer beside the solution
                r#"{"problem":"p","level":"Level 3","type":"Algebra","solution":"So $x=\\boxed{\\frac12}$."}"#,
                r"1|p|\frac12|3|Algebra",
            ),
            (
                // AIME24, AMC23 as compute-optimal-tts has them
                r#"{"problem":"p","solution":"long","extracted_groundtruth":"025","url":"https://example.org/I/2"}"#,
                "https://example.org/I/2|p|025|-|-",
            ),
            (
                r#"{"problem":"p","solution":27.0,"extracted_groundtruth":27.0,"url":"https://example.org/12A/1"}"#,
                "https://example.org/12A/1|p|27|-|-",
            ),
            (
                // AIME with capitals
                r#"{"ID":"2024-II-4","Problem":"p","Solution":"s","Answer":33}"#,
                "2024-II-4|p|33|-|-",
            ),
            (
                // AIME25
                r#"{"question":"p","answer":"70","id":"0"}"#,
                "0|p|70|-|-",
            ),
            (
                // GSM8K
                r#"{"question":"q","answer":"2 * 3 = <<2*3=6>>6\nand more\n#### 1,234"}"#,
                "1|q|1,234|-|-",
            ),
            (
                // OlympiadBench
                r#"{"id":1606,"question":"q","solution":["a","b"],"final_answer":["2","-2"],"subfield":"Algebra","subject":"Math","unit":null}"#,
                "1606|q|2, -2|-|Math",
            ),
            (
                r#"{"id":1607,"question":"q","final_answer":null,"solution":["as \\boxed{7}"]}"#,
                "1607|q|7|-|-",
            ),
            (r#"{"prompt":"q","final_answer":[]}"#, "1|q|-|-|-"),
        ];
        let mut failures = Vec::new();
        for (line, want) in cases {
            let got = brief(line);
            if got != want {
                failures.push(format!("{line}\n  gave {got}\n  not  {want}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        let (problems, _) = read_problems(cases[6].0.as_bytes());
        let solution = problems[0].solution.as_deref().unwrap_or_default();
        assert!(solution.starts_with("2 * 3"), "GSM8K's reasoning is kept");
    }

    /// The publishers' own files, where a checkout has them.
    #[test]
    fn the_publishers_files_are_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
        for (name, count, levels) in [
            ("math500.jsonl", 500, true),
            ("aime24.jsonl", 30, false),
            ("amc23.jsonl", 40, false),
            ("gsm8k_test.jsonl", 1319, false),
        ] {
            let Ok(bytes) = std::fs::read(format!("{folder}/{name}")) else {
                println!("{name} is not beside this checkout: not read");
                continue;
            };
            let (problems, bad) = read_problems(&bytes);
            assert_eq!((problems.len(), bad.len()), (count, 0), "{name}: {bad:?}");
            for p in &problems {
                assert!(p.answer.is_some(), "{name}: {} has no answer", p.id);
                assert_eq!(p.level.is_some(), levels, "{name}: {}", p.id);
            }
        }
    }

    #[test]
    fn bad_lines_are_named_and_the_others_still_run() {
        let file = b"{\"problem\":\"a\",\"id\":\"x\"}\n\n{oops\n\xff\xfe\n{\"problem\":\"b\",\"id\":\"x\"}\n{\"problem\":\"c\"}";
        let (problems, bad) = read_problems(file);
        let ids: Vec<&str> = problems.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids, ["x", "6"]);
        let bad: Vec<String> = bad.iter().map(|b| b.to_string()).collect();
        assert_eq!(
            bad,
            [
                "line 3: is not JSON at column 2: key must be a string",
                "line 4: is not UTF-8 text",
                "line 5: id \"x\" is already used by line 1",
            ]
        );
    }
}
