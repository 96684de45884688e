//! Problems, and the files they come in.
//!
//! A file has one JSON object a line, or is one JSON list of objects, as OlympiadBench is
//! distributed. Publishers use different names for the same field, so each field has several names,
//! compared without regard to case; other fields are ignored:
//!
//! - problem: `problem`, `question`, `prompt`
//! - context, which stands before the problem: `context`, `passage` (OlympiadBench, gaokao: a line
//!   of its own, as OlympiadBench's own code has it), `body` (asdiv, SVAMP: the sentences before
//!   the question, as Qwen2.5-Math's `parser.py` joins them)
//! - answer: `answer` (after `####` if it has that, as in GSM8K), `final_answer` (a list in
//!   OlympiadBench), `extracted_groundtruth`; else the solution's `\boxed{}` or the text after its
//!   `####`
//! - solution: `solution`
//! - level: `level`, a number, "Level 3" or a name such as "Hard"
//! - subject: `subject`, `type`
//! - id: `id`, `unique_id`, `url`; else the number of the line, or of the object in its list
//!
//! The first name that is there counts. A blank text is not there, unless it is the problem's.
//! Numbers keep their digits. No problem is lost for its level or subject: what cannot be read is
//! not there.

use crate::last_boxed;
use crate::object::{Object, kind, read_objects, text_of};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;

/// A problem to solve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Unique in its file: `id`, `unique_id` or `url`, else its number.
    pub id: String,
    /// The question, after its context.
    pub problem: String,
    /// The true answer, if known.
    pub answer: Option<String>,
    /// A reference solution, if known.
    pub solution: Option<String>,
    /// Difficulty.
    pub level: Option<Level>,
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

/// How hard a problem is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Level {
    /// A number, 1 to 5 in MATH.
    Number(u8),
    /// A name, such as "Hard".
    Name(String),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Number(number) => number.fmt(f),
            Level::Name(name) => name.fmt(f),
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

/// Reads a problem file. Malformed lines are returned beside the problems, so that a caller can
/// skip them or fail; blank lines are skipped. A line that is not UTF-8 is malformed.
pub fn read_problems(file: &[u8]) -> (Vec<Problem>, Vec<BadLine>) {
    let mut problems = Vec::new();
    let mut bad = Vec::new();
    let mut lines_by_id: HashMap<String, usize> = HashMap::new();
    for record in read_objects(file) {
        let (line, number) = (record.line, record.item.unwrap_or(record.line));
        let parsed = (record
            .object
            .and_then(|object| parse(Fields(object), number)))
        .and_then(
            |problem| match lines_by_id.insert(problem.id.clone(), line) {
                Some(first) => Err(format!(
                    "id {:?} is already used by line {first}",
                    problem.id
                )),
                None => Ok(problem),
            },
        );
        match (parsed, record.item) {
            (Ok(problem), _) => problems.push(problem),
            (Err(reason), None) => bad.push(BadLine { line, reason }),
            (Err(reason), Some(item)) => bad.push(BadLine {
                line,
                reason: format!("object {item} of the list: {reason}"),
            }),
        }
    }
    (problems, bad)
}

fn parse(fields: Fields, number: usize) -> Result<Problem, String> {
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
        problem: fields.problem()?,
        id: fields.text(&ID)?.unwrap_or_else(|| number.to_string()),
        answer,
        solution,
        level: fields.level(),
        subject: fields.text(&SUBJECT).ok().flatten(),
    })
}

const PROBLEM: [&str; 3] = ["problem", "question", "prompt"];
const CONTEXT: [&str; 3] = ["context", "passage", "body"];
const ANSWER: [&str; 3] = ["answer", "final_answer", "extracted_groundtruth"];
const ID: [&str; 3] = ["id", "unique_id", "url"];
const SUBJECT: [&str; 2] = ["subject", "type"];

/// The answer after GSM8K's reasoning: `#### 18`.
fn after_hashes(text: &str) -> Option<&str> {
    let (_, answer) = text.rsplit_once("####")?;
    Some(answer.trim()).filter(|answer| !answer.is_empty())
}

/// The fields of one object.
struct Fields(Object);

impl Fields {
    /// The first of `names` that is there, as the file spells it, and its value. Null is absent.
    fn find(&self, names: &[&str]) -> Option<(&str, &RawValue)> {
        let fields = names
            .iter()
            .filter_map(|name| self.0.find(|key| key.eq_ignore_ascii_case(name)));
        fields.into_iter().find(|(_, value)| kind(value) != "null")
    }

    /// The question after its context.
    fn problem(&self) -> Result<String, String> {
        let (name, value) = self.find(&PROBLEM).ok_or_else(|| self.missing(&PROBLEM))?;
        let problem = text_of(value).ok_or_else(|| not_text(name, value))?;
        if problem.trim().is_empty() {
            return Err(format!("the field {name:?} is empty"));
        }
        let Some((name, value)) = self.find(&CONTEXT) else {
            return Ok(problem);
        };
        let context = text_of(value).ok_or_else(|| not_text(name, value))?;
        let (context, question) = (context.trim(), problem.trim());
        // Some files keep the parts beside the whole.
        if context.is_empty() || question.starts_with(context) {
            return Ok(problem);
        }
        let between = match name.eq_ignore_ascii_case("body") {
            false => "\n",
            true if context.ends_with(char::is_alphanumeric) => ". ",
            true => " ",
        };
        Ok(format!("{context}{between}{question}"))
    }

    /// Text, a number as text, or a list of these, joined as several answers are. Blank text is
    /// absent.
    fn text(&self, names: &[&str]) -> Result<Option<String>, String> {
        let fields = names.iter().filter_map(|name| self.find(&[name]));
        let texts = fields.map(|(name, value)| {
            let text = match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
                Ok(items) => (items.into_iter().map(text_of).collect::<Option<Vec<_>>>())
                    .map(|items| items.join(", ")),
                Err(_) => text_of(value),
            };
            text.ok_or_else(|| not_text(name, value))
        });
        let blank =
            |text: &Result<String, String>| text.as_ref().is_ok_and(|t| t.trim().is_empty());
        texts.into_iter().find(|text| !blank(text)).transpose()
    }

    /// `"Level 2"`, `"2"` or `2`, or a name. MATH's `"Level ?"` is not a level, nor is anything but
    /// text and numbers.
    fn level(&self) -> Option<Level> {
        let text = text_of(self.find(&["level"])?.1)?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = match words[..] {
            [number] => Some(number),
            [word, number] if word.eq_ignore_ascii_case("level") => Some(number),
            _ => None,
        };
        match number.map(|number| (number, number.parse())) {
            Some((_, Ok(number))) => Some(Level::Number(number)),
            Some(("?", _)) => None,
            _ if words.is_empty() => None,
            _ => Some(Level::Name(words.join(" "))),
        }
    }

    /// The sentence for an object that has none of `names`.
    fn missing(&self, names: &[&str]) -> String {
        let quoted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            names.join(", ")
        };
        let mut found: Vec<&str> = self.0.names().take(8).collect();
        let more = self.0.names().len() > found.len();
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

fn not_text(name: &str, value: &RawValue) -> String {
    let found = match kind(value) {
        "text" => "no Unicode text",
        other => other,
    };
    format!("the field {name:?} is {found}, expected text")
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
                let level = p.level.as_ref().map_or("-".into(), Level::to_string);
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
            (r#"{"problem":"p","level":"Hard"}"#, "1|p|-|Hard|-"),
            (
                r#"{"problem":"p","level":" very \n hard "}"#,
                "1|p|-|very hard|-",
            ),
            (r#"{"problem":"p","level":""}"#, "1|p|-|-|-"),
            (r#"{"problem":"p","level":"level 2"}"#, "1|p|-|2|-"),
            (r#"{"problem":"p","level":2.5}"#, "1|p|-|2.5|-"),
            (r#"{"problem":"p","level":3.0}"#, "1|p|-|3|-"),
            (
                r#"{"problem":"p","level":4000000000}"#,
                "1|p|-|4000000000|-",
            ),
            (r#"{"problem":"p","level":["a"],"type":{}}"#, "1|p|-|-|-"),
            (
                r#"{"problem":"p","answer":" ","final_answer":"5","id":""}"#,
                "1|p|5|-|-",
            ),
            (
                r#"{"problem":"p","answer":123456789012345678901,"id":12345678901234567890123}"#,
                "12345678901234567890123|p|123456789012345678901|-|-",
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
            (
                r#"[1]"#,
                "line 1: object 1 of the list: expected a JSON object, found a number",
            ),
            (
                r#"{"problem":"p","context":{"a":1}}"#,
                r#"line 1: the field "context" is an object, expected text"#,
            ),
            (
                r#"{"problem":"a \ud800"}"#,
                r#"line 1: the field "problem" is no Unicode text, expected text"#,
            ),
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
            (
                // OlympiadBench's physics
                r#"{"id":2231,"context":"There are 5. 2 come in.","question":"How many?","final_answer":["7"],"subfield":"Mechanics","unit":null}"#,
                "2231|There are 5. 2 come in.\nHow many?|7|-|-",
            ),
            (
                // its other problems
                r#"{"id":3,"context":null,"question":"How many?","level":null}"#,
                "3|How many?|-|-|-",
            ),
            (
                // asdiv
                r#"{"body":"Ann has 5 eggs. ","question":"How many?","answer":"5"}"#,
                "1|Ann has 5 eggs. How many?|5|-|-",
            ),
            (
                // SVAMP
                r#"{"ID":"chal-1","Body":"Each pack costs 76 dollars","Question":"How much?","Answer":51.0,"Type":"Subtraction"}"#,
                "chal-1|Each pack costs 76 dollars. How much?|51|-|Subtraction",
            ),
            (
                // gaokao
                r#"{"passage":"","question":"q"}"#,
                "1|q|-|-|-",
            ),
            (
                r#"{"passage":"A passage.","question":"A passage. And q."}"#,
                "1|A passage. And q.|-|-|-",
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
