//! Where the answer of a solution is, and which rule found it (SEMANTICS.md, "Extraction").

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The rule that found the answer of a solution. In the order in which the lenient grader tries
/// them; the strict one knows `Boxed` and `Fbox` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtractionRule {
    /// `\boxed{...}`, the last one that is closed.
    Boxed,
    /// `\fbox{...}`, likewise.
    Fbox,
    /// `\boxed{...` that a limit cut.
    UnclosedBox,
    /// GSM8K's `#### ...`.
    Hashes,
    /// "final answer is ...".
    FinalAnswer,
    /// "answer is ...".
    AnswerIs,
    /// The last `**...**` with a number in it.
    Bold,
    /// The last number.
    LastNumber,
    /// None found an answer.
    None,
}

impl ExtractionRule {
    /// Every rule.
    pub const ALL: [ExtractionRule; 9] = [
        ExtractionRule::Boxed,
        ExtractionRule::Fbox,
        ExtractionRule::UnclosedBox,
        ExtractionRule::Hashes,
        ExtractionRule::FinalAnswer,
        ExtractionRule::AnswerIs,
        ExtractionRule::Bold,
        ExtractionRule::LastNumber,
        ExtractionRule::None,
    ];

    /// The word for it in results.
    pub fn name(self) -> &'static str {
        match self {
            ExtractionRule::Boxed => "boxed",
            ExtractionRule::Fbox => "fbox",
            ExtractionRule::UnclosedBox => "unclosed-box",
            ExtractionRule::Hashes => "hashes",
            ExtractionRule::FinalAnswer => "final-answer",
            ExtractionRule::AnswerIs => "answer-is",
            ExtractionRule::Bold => "bold",
            ExtractionRule::LastNumber => "last-number",
            ExtractionRule::None => "none",
        }
    }
}

/// How many answers each rule found; `None` has the solutions without an answer.
pub type ExtractionCounts = BTreeMap<ExtractionRule, usize>;

/// Counts rules.
pub fn count_extractions(rules: impl IntoIterator<Item = ExtractionRule>) -> ExtractionCounts {
    let mut counts = ExtractionCounts::new();
    for rule in rules {
        *counts.entry(rule).or_default() += 1;
    }
    counts
}

/// The answer of a solution and the rule that found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extraction {
    /// The rule.
    pub rule: ExtractionRule,
    /// The answer; `None` if the rule is `None`.
    pub text: Option<String>,
}

impl Extraction {
    fn of(found: Option<(ExtractionRule, &str)>) -> Extraction {
        let (rule, text) = found.map_or((ExtractionRule::None, None), |(rule, text)| {
            (rule, Some(text.to_string()))
        });
        Extraction { rule, text }
    }

    /// The content of the last closed box, and nothing else.
    pub(super) fn strict(solution: &str) -> Extraction {
        Extraction::of(boxed(solution, false))
    }

    /// The first rule of the chain that finds an answer.
    pub(super) fn lenient(solution: &str) -> Extraction {
        let found = hoped(solution)
            .or_else(|| boxed(solution, true))
            .or_else(|| unclosed(solution))
            .or_else(|| hashes(solution))
            .or_else(|| stated(solution))
            .or_else(|| bold(solution));
        match found {
            Some(found) => Extraction::of(Some(found)),
            None => match last_number(solution) {
                Some(number) => Extraction {
                    rule: ExtractionRule::LastNumber,
                    text: Some(number),
                },
                None => Extraction::of(None),
            },
        }
    }
}

/// The content of the last `\boxed{...}` or `\fbox{...}` whose braces are closed, trimmed; `None`
/// when there is none or it is empty. Escaped braces (`\{`) do not count. Of nested boxes the
/// innermost last one is read, so `\boxed{\boxed{5}}` gives `5`.
pub fn last_boxed(solution: &str) -> Option<&str> {
    boxed(solution, false).map(|(_, content)| content)
}

/// The last closed box; the lenient grader takes one without its backslash too.
fn boxed(solution: &str, lenient: bool) -> Option<(ExtractionRule, &str)> {
    // the content of the last closed box, the later start of two that end together
    let mut last: Option<(usize, usize, ExtractionRule)> = None;
    // open braces; for a box, where it starts
    let mut open: Vec<Option<(usize, ExtractionRule)>> = Vec::new();
    let mut at = 0;
    while let Some(c) = solution[at..].chars().next() {
        let rest = &solution[at..];
        let letter = solution[..at].ends_with(|c: char| c.is_alphanumeric());
        if let Some((rule, length)) = opening(rest, lenient && !letter) {
            at += length;
            open.push(Some((at, rule)));
            continue;
        }
        match c {
            '\\' => at += rest.chars().nth(1).map_or(0, char::len_utf8), // skip what is escaped
            '{' => open.push(None),
            '}' => {
                if let Some((start, rule)) = open.pop().flatten() {
                    last = last.max(Some((start, at, rule)));
                }
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    let (start, end, rule) = last?;
    found(rule, &solution[start..end])
}

/// The box that opens here, and the length of its command with its brace.
fn opening(rest: &str, without_backslash: bool) -> Option<(ExtractionRule, usize)> {
    for (name, rule) in [
        ("boxed", ExtractionRule::Boxed),
        ("fbox", ExtractionRule::Fbox),
    ] {
        let command = rest
            .strip_prefix('\\')
            .or(without_backslash.then_some(rest));
        let after = command.and_then(|command| command.strip_prefix(name));
        if let Some(inside) = after.and_then(|after| after.trim_start().strip_prefix('{')) {
            return Some((rule, rest.len() - inside.len()));
        }
    }
    None
}

fn found(rule: ExtractionRule, text: &str) -> Option<(ExtractionRule, &str)> {
    Some(text.trim())
        .filter(|text| !text.is_empty())
        .map(|text| (rule, text))
}

/// Minerva's "final answer is $...$. I hope it is correct."
fn hoped(solution: &str) -> Option<(ExtractionRule, &str)> {
    let (_, rest) = solution.split_once("final answer is $")?;
    let (answer, _) = rest.split_once("$. I hope")?;
    found(ExtractionRule::FinalAnswer, answer)
}

fn unclosed(solution: &str) -> Option<(ExtractionRule, &str)> {
    let (_, content) = solution.rsplit_once("\\boxed{")?;
    found(ExtractionRule::UnclosedBox, content)
}

/// The rest of the line after the last `####`.
fn hashes(solution: &str) -> Option<(ExtractionRule, &str)> {
    let (_, rest) = solution.rsplit_once("####")?;
    let line = rest.trim_start().lines().next()?;
    // a heading in Markdown is no answer
    let answer = line.contains(|c: char| c.is_ascii_digit() || "\\$".contains(c));
    let short = line.split_whitespace().count() <= 2;
    (answer || short).then_some(())?;
    found(ExtractionRule::Hashes, unwrapped(line))
}

/// What follows the last "answer is".
fn stated(solution: &str) -> Option<(ExtractionRule, &str)> {
    let small = solution.to_ascii_lowercase();
    let starts = ["answer is", "answer:", "answer**:", "answer is:"];
    let ends = starts.iter().filter_map(|words| {
        let at = small.rfind(words)?;
        Some((at, at + words.len()))
    });
    let (start, end) = ends.max()?;
    let last = small[..start].trim_end().ends_with("final");
    let rule = if last {
        ExtractionRule::FinalAnswer
    } else {
        ExtractionRule::AnswerIs
    };
    let rest = &solution[end..];
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || ":.".contains(c));
    // "**Answer:** 5" closes its bold before the answer
    let rest = match rest.strip_prefix("**") {
        Some(after) if after.starts_with(char::is_whitespace) => after.trim_start(),
        _ => rest,
    };
    found(rule, clause(rest))
}

/// The answer that a text begins with.
fn clause(text: &str) -> &str {
    for (open, close) in [
        ("**", "**"),
        ("$$", "$$"),
        ("$", "$"),
        ("\\(", "\\)"),
        ("\\[", "\\]"),
    ] {
        if let Some(inside) = text.strip_prefix(open)
            && let Some(end) = inside.find(close)
            && end > 0
        {
            let after = &inside[end + close.len()..];
            // "$3$ and $4$" goes on, and so may "**3** apples"
            if open == "**" || after.trim_start().is_empty() || ends(after) {
                return unwrapped(&inside[..end]);
            }
        }
    }
    let line = text.lines().next().unwrap_or_default();
    let line = &line[..line.find(". ").unwrap_or(line.len())];
    unwrapped(&line[..end_of_answer(line)])
}

fn ends(after: &str) -> bool {
    after.starts_with(['.', '\n', '!'])
}

/// Where a clause goes on after its number: "72, in total", "72 because".
fn end_of_answer(line: &str) -> usize {
    const ON: [&str; 8] = [
        " because ",
        " since ",
        " which ",
        " so ",
        " as ",
        " when ",
        " after ",
        " where ",
    ];
    let number = |end: usize| line[..end].contains(|c: char| c.is_ascii_digit() || c == '\\');
    let comma = line.match_indices(", ").map(|(at, _)| at).find(|at| {
        let next = line[at + 2..].split(|c: char| !c.is_alphabetic()).next();
        let word = next.unwrap_or_default();
        let sentence = word.len() >= 2 && word != "and" && word != "or";
        sentence && number(*at)
    });
    let goes_on = ON
        .iter()
        .filter_map(|word| line.find(word))
        .filter(|at| number(*at));
    comma.into_iter().chain(goes_on).min().unwrap_or(line.len())
}

/// Without the signs of Markdown and of mathematics around it.
fn unwrapped(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ":.*`".contains(c))
        .trim_matches(|c: char| c.is_whitespace() || c == '$')
        .trim()
}

/// The last short `**...**` with a number in it that is no heading such as **Step 2:**.
fn bold(solution: &str) -> Option<(ExtractionRule, &str)> {
    const LONGEST: usize = 100;
    let mut pieces = solution.split("**").skip(1).step_by(2);
    let is_answer = |piece: &&str| {
        let heading = piece.trim_end().ends_with(':')
            || piece.trim_start().to_ascii_lowercase().starts_with("step");
        let digit = piece.contains(|c: char| c.is_ascii_digit());
        digit && !heading && piece.len() <= LONGEST && !piece.contains('\n')
    };
    let mut last = None;
    for piece in pieces.by_ref() {
        if is_answer(&piece) {
            last = Some(piece);
        }
    }
    found(ExtractionRule::Bold, unwrapped(last?))
}

/// The last number of a text, its thousands separators left out.
fn last_number(text: &str) -> Option<String> {
    let text: Vec<char> = text.chars().filter(|c| *c != ',').collect();
    let digit = |at: usize| text.get(at).is_some_and(char::is_ascii_digit);
    let end = text.iter().rposition(char::is_ascii_digit)? + 1;
    let mut start = end;
    while start > 0
        && (digit(start - 1) || (text[start - 1] == '.' && !text[start..end].contains(&'.')))
    {
        start -= 1;
    }
    if start > 0 && text[start - 1] == '-' {
        start -= 1;
    }
    Some(text[start..end].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes() {
        let cases = [
            ("", None),
            ("the answer is 5", None),
            (r"so \boxed{5}.", Some("5")),
            (r"so \boxed {5}.", Some("5")),
            (r"\boxed{ 5 }", Some("5")),
            (r"\boxed{}", None),
            (r"\boxed{ }", None),
            (r"\boxed5", None),
            (r"\boxed{1} then \boxed{2}", Some("2")),
            (r"\boxed{\frac{1}{2}}", Some(r"\frac{1}{2}")),
            (r"\boxed{\text{a {b} c}} x}", Some(r"\text{a {b} c}")),
            (r"\boxed{\{1,2\}}", Some(r"\{1,2\}")),
            (r"\boxed{\left\{ x \right\}}", Some(r"\left\{ x \right\}")),
            (r"\boxed{1, \} 2}", Some(r"1, \} 2")),
            (r"\boxed{\boxed{5}}", Some("5")),
            (r"\boxed{x=\boxed{5}}", Some("5")),
            (r"\boxed{1} and cut \boxed{2", Some("1")),
            (r"\boxed{1} and cut \boxed", Some("1")),
            (r"\boxed{2", None),
            (r"\fbox{3}", Some("3")),
            (r"\boxed{2} and \fbox{3}", Some("3")),
            (r"\fbox{$3$}", Some("$3$")),
            (r"boxed{70}\).", None),
            (r"\boxed{a\\b}", Some(r"a\\b")),
            (r"} { \boxed{5} {", Some("5")),
            (r"\boxed{5 and \boxed{6} and {", Some("6")),
            (r"\boxed{é}", Some("é")),
        ];
        for (solution, want) in cases {
            assert_eq!(last_boxed(solution), want, "in {solution:?}");
            let strict = Extraction::strict(solution).text;
            assert_eq!(strict.as_deref(), want, "strict, in {solution:?}");
        }
    }

    #[test]
    fn the_chain_of_the_lenient_grader() {
        use ExtractionRule::*;
        let cases = [
            ("so \\boxed{5} and 6", Boxed, "5"),
            ("so \\fbox{5} and 6", Fbox, "5"),
            (r"so \(boxed{70}\).", Boxed, "70"),
            ("unboxed{70} is 71", LastNumber, "71"),
            (
                "The final answer is $\\frac12$. I hope it is correct.",
                FinalAnswer,
                "\\frac12",
            ),
            (
                "Then \\boxed{3}. The final answer is $4$. I hope it is correct.",
                FinalAnswer,
                "4",
            ),
            ("Thus the answer is 12. Done", AnswerIs, "12"),
            ("The answer is: $3x$", AnswerIs, "3x"),
            (
                "The answer is 72, in total, so the farmer earns that.",
                AnswerIs,
                "72",
            ),
            ("The answer is 72 because 70 + 2 is.", AnswerIs, "72"),
            ("The answer is 5, 6.", AnswerIs, "5, 6"),
            ("The answer is x = 5, y = 6.", AnswerIs, "x = 5, y = 6"),
            ("The answer is **73**.", AnswerIs, "73"),
            ("**Answer:** 73", AnswerIs, "73"),
            ("**Final Answer**: 73", FinalAnswer, "73"),
            ("Final Answer: The final answer is $73$.", FinalAnswer, "73"),
            (
                "Therefore, the answer is:\n\n\\frac{1}{2}",
                AnswerIs,
                "\\frac{1}{2}",
            ),
            ("The answer is $3$ and $4$.", AnswerIs, "3$ and $4"),
            ("My final answer is 9.", FinalAnswer, "9"),
            ("the answer is 8. Really: the answer is 9", AnswerIs, "9"),
            ("2+40=42\n#### 42\n\nThis took 3 steps.", Hashes, "42"),
            ("#### 1,234", Hashes, "1,234"),
            ("#### Checking the result\nWe get 7", LastNumber, "7"),
            (
                "So there are **12 apples**, as 5 + 7 says.",
                Bold,
                "12 apples",
            ),
            ("**Step 1:** add. We get 7", LastNumber, "7"),
            ("we get 1,234 apples", LastNumber, "1234"),
            ("cut at -2.5", LastNumber, "-2.5"),
            ("costs 12.", LastNumber, "12"),
            ("\\boxed{7x", UnclosedBox, "7x"),
        ];
        for (solution, rule, text) in cases {
            let text = Some(text.to_string());
            assert_eq!(
                Extraction::lenient(solution),
                Extraction { rule, text },
                "in {solution:?}"
            );
        }
        for solution in ["\\boxed{", "no idea", ""] {
            let nothing = Extraction {
                rule: None,
                text: Option::None,
            };
            assert_eq!(Extraction::lenient(solution), nothing, "in {solution:?}");
        }
    }

    #[test]
    fn the_names_are_those_of_serde() {
        for rule in ExtractionRule::ALL {
            let json = serde_json::to_string(&rule).expect("a word");
            assert_eq!(json, format!("{:?}", rule.name()));
        }
    }

    #[test]
    fn many_open_boxes_are_no_answer() {
        // quadratic time would show as a test that takes minutes
        let open = "\\boxed{".repeat(200_000);
        assert_eq!(last_boxed(&open), Option::None);
        for text in ["**", "answer is ", "#### ", "boxed{", "$", "(, "] {
            let _ = Extraction::lenient(&text.repeat(100_000));
        }
    }
}
