//! The graders on the true answers of MATH-500, AIME and AMC: every one equals itself and its
//! twins, the same answer written differently, and differs from its neighbours, answers with one
//! thing wrong. The files are not part of this repository; where `../shared/data` is missing the
//! test says so and passes.
//!
//! With `OFFSHOOT_PAIRS=FILE` all pairs are written to FILE, for `offshoot grade`.

use offshoot_strategies::Grader::{Qwen, Strict};
use offshoot_strategies::{Grader, read_problems};
use std::fmt::Write;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");

/// The true answers, or the file that is missing.
fn answers() -> Result<Vec<String>, &'static str> {
    let mut answers = Vec::new();
    for name in ["math500.jsonl", "aime24.jsonl", "amc23.jsonl"] {
        let bytes = std::fs::read(format!("{FOLDER}/{name}")).map_err(|_| name)?;
        let (problems, bad) = read_problems(&bytes);
        assert!(bad.is_empty(), "{name}: {bad:?}");
        answers.extend(problems.into_iter().filter_map(|p| p.answer));
    }
    Ok(answers)
}

/// The same answer in other words.
fn twins(answer: &str) -> Vec<String> {
    let mut twins = vec![
        format!("${answer}$"),
        format!(" {answer} ."),
        format!("\\[ {answer} \\]"),
        format!("{{{answer}}}"),
        format!("\\displaystyle {answer}"),
        answer.replace("\\frac", "\\dfrac"),
        answer
            .replace("\\text", "\\textbf")
            .replace("\\mbox", "\\text"),
        answer.replace(' ', "  "),
        with_left_right(answer),
        with_braces(answer),
        answer
            .replace("\\pi", "π")
            .replace("^\\circ", "°")
            .replace("\\infty", "∞"),
        answer.replace("pmatrix", "bmatrix"),
    ];
    if answer.bytes().all(|b| b.is_ascii_digit()) {
        twins.push(format!("{answer}.0"));
        twins.push(format!("x = {answer}"));
        twins.push(format!("{answer}\\text{{ units}}"));
        twins.push(format!("\\frac{{{answer}}}{{1}}"));
        twins.push(answer.trim_start_matches('0').to_string());
        if answer.len() == 4 {
            twins.push(format!("{},{}", &answer[..1], &answer[1..]));
        }
    }
    twins.retain(|twin| twin != answer && !twin.is_empty());
    twins
}

fn with_left_right(answer: &str) -> String {
    let plain = !answer.contains("\\left") && !answer.contains("\\text") && !answer.contains("\\{");
    match plain {
        true => answer.replace('(', "\\left( ").replace(')', " \\right)"),
        false => answer.replace("\\left", "").replace("\\right", ""),
    }
}

/// \frac43 as \frac{4}{3}, \sqrt2 as \sqrt{2}, x^2 as x^{2}.
fn with_braces(answer: &str) -> String {
    let mut out = String::new();
    let mut rest = answer;
    let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    while let Some(c) = rest.chars().next() {
        let command = ["\\frac", "\\sqrt", "^"]
            .into_iter()
            .find(|c| rest.starts_with(c));
        let after = command.map(|command| rest[command.len()..].trim_start());
        match (command, after) {
            (Some(command), Some(after)) if digit(after) => {
                let arguments = if command == "\\frac" { 2 } else { 1 };
                out += command;
                rest = after;
                for _ in 0..arguments {
                    rest = rest.trim_start();
                    if digit(rest) {
                        out += &format!("{{{}}}", &rest[..1]);
                        rest = &rest[1..];
                    }
                }
            }
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// Answers with one thing wrong.
fn neighbours(answer: &str) -> Vec<String> {
    let mut neighbours = vec![
        format!("{answer}+1"),
        format!("{answer}, 7919"),
        format!("({answer}, {answer})"),
        format!("\\sqrt{{{answer}}}+3"),
        String::new(),
    ];
    // every number, one more
    let bytes = answer.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            at += 1;
        }
        match answer[start..at].parse::<u64>() {
            Ok(n) => {
                let width = at - start;
                let more = format!("{:0width$}", n + 1);
                if more.len() == width || !answer.contains(',') {
                    neighbours.push(format!("{}{more}{}", &answer[..start], &answer[at..]));
                }
            }
            Err(_) => at += 1,
        }
    }
    for (from, to) in [
        ("+", "-"),
        (" - ", " + "),
        ("\\pi", "e"),
        ("sqrt", "cos"),
        ("(", "["),
        ("]", ")"),
        ("\\pm", "+"),
        ("\\cup", "\\cap"),
        ("\\infty", "0"),
        ("i", "1"),
        ("\\text{", "\\text{x"),
    ] {
        let command =
            from == "i" && answer.contains('\\') || from == "(" && answer.contains("text");
        // around one part, brackets of any kind may be spelling
        // nor is infinity ever in an interval
        let part = from == "(" && (!answer.contains(',') || answer.contains("(-\\infty"));
        if answer.contains(from) && !command && !part {
            neighbours.push(answer.replacen(from, to, 1));
        }
    }
    let value = Strict.canonical(answer);
    if !value.starts_with('-')
        && value != "0"
        && !answer.contains([',', '=', '_', '&'])
        && !answer.contains("\\text")
        && !answer.contains("\\cup")
        && !answer.contains("\\in")
        && !answer.contains("pm")
    {
        neighbours.push(format!("-({answer})"));
    }
    neighbours.retain(|n| n != answer);
    neighbours
}

#[test]
fn true_answers_have_equal_twins_and_different_neighbours() {
    let answers = match answers() {
        Ok(answers) => answers,
        Err(missing) => {
            println!("{FOLDER}/{missing} is not there: nothing compared");
            return;
        }
    };
    assert_eq!(answers.len(), 570);
    let (mut failures, mut pairs, mut lines) = (Vec::new(), 0, String::new());
    let mut expect = |grader: Grader, answer: &str, other: &str, want: bool| {
        pairs += 1;
        let verdicts = [(answer, other), (other, answer)].map(|(a, b)| grader.equivalent(a, b));
        if verdicts != [want; 2] {
            let forms = [answer, other].map(|x| grader.canonical(x));
            let name = grader.name();
            failures.push(format!(
                "{name}: {answer:?} and {other:?} {forms:?}: not {want}"
            ));
        }
        if grader == Strict {
            let line = serde_json::json!({"answer": answer, "prediction": other, "equal": want});
            writeln!(lines, "{line}").expect("a String takes everything");
        }
    };
    for answer in &answers {
        for grader in [Strict, Qwen] {
            expect(grader, answer, answer, true);
            for twin in twins(answer) {
                expect(grader, answer, &twin, true);
            }
        }
        for neighbour in neighbours(answer) {
            expect(Strict, answer, &neighbour, false);
        }
    }
    if let Some(path) = std::env::var_os("OFFSHOOT_PAIRS") {
        std::fs::write(&path, lines).expect("the file can be written");
    }
    println!("{pairs} pairs");
    assert!(
        failures.is_empty(),
        "{} of {pairs} wrong:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// How long 100,000 comparisons of published answers take, each answer with another one:
///
///     cargo test --release -p offshoot-strategies --test grading_published -- \
///         --ignored --nocapture
#[test]
#[ignore = "a measurement"]
fn a_hundred_thousand_comparisons() {
    let answers = match answers() {
        Ok(answers) => answers,
        Err(missing) => {
            println!("{FOLDER}/{missing} is not there: nothing measured");
            return;
        }
    };
    for grader in Grader::ALL {
        let (start, mut equal) = (std::time::Instant::now(), 0);
        for i in 0..100_000 {
            let (a, b) = (
                i % answers.len(),
                (7 * i + i / answers.len()) % answers.len(),
            );
            equal += usize::from(grader.compare(&answers[a], &answers[b]).equal);
        }
        println!(
            "{}: 100,000 comparisons, {equal} equal, in {:.2} s",
            grader.name(),
            start.elapsed().as_secs_f64()
        );
    }
}
