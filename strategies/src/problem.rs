//! Problems, and the JSONL files they come in.
//!
//! One JSON object a line, in MATH-500's fields (`problem`, `answer`, `solution`, `level`,
//! `subject`, `unique_id`) or with `problem` and `answer` alone. Unknown fields are ignored.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;

/// A problem to solve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Unique in its file: `id` or `unique_id`, else the line number.
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

/// A line that is no problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What was found and what was expected.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Reads a JSONL file. Malformed lines are collected, so that the others still run; blank lines
/// are skipped. The bytes need not all be UTF-8: a line that is not is a malformed line.
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

fn parse(bytes: &[u8], line: usize) -> Result<Problem, String> {
    let text = str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_string())?;
    let value: Value = serde_json::from_str(text).map_err(|e| {
        let sentence = e.to_string(); // ends in " at line 1 column 7"; the line is ours to name
        let what = sentence.split(" at line ").next().unwrap_or_default();
        format!("is not JSON at column {}: {what}", e.column())
    })?;
    let Value::Object(fields) = value else {
        return Err(format!("expected a JSON object, found {}", kind(&value)));
    };
    let problem = text_field(&fields, "problem")?.ok_or("the field \"problem\" is missing")?;
    if problem.trim().is_empty() {
        return Err("the field \"problem\" is empty".into());
    }
    let id = match text_field(&fields, "id")? {
        Some(id) => Some(id),
        None => text_field(&fields, "unique_id")?,
    };
    Ok(Problem {
        id: id.unwrap_or_else(|| line.to_string()),
        problem,
        answer: text_field(&fields, "answer")?,
        solution: text_field(&fields, "solution")?,
        level: level(fields.get("level"))?,
        subject: text_field(&fields, "subject")?,
    })
}

/// A text or a number, as text; absent and null are the same.
fn text_field(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => Err(format!(
            "the field {name:?} is {}, expected text",
            kind(other)
        )),
    }
}

/// `"Level 2"`, `"2"` or `2`. MATH's `"Level ?"` is no level.
fn level(value: Option<&Value>) -> Result<Option<u8>, String> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text == "Level ?" => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
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
                r#"line 1: the field "problem" is missing"#,
            ),
            (
                r#"{"problem":" "}"#,
                r#"line 1: the field "problem" is empty"#,
            ),
            (
                r#"{"problem":["p"]}"#,
                r#"line 1: the field "problem" is a list, expected text"#,
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
