//! The graders on hard pairs, both ways, on the publishers' answers, and on noise.
//!
//! `answers/pairs.jsonl` has a pair a line: `answer` and `prediction`, whether they are `equal`
//! (for the strict grader), `qwen` where the Qwen grader says otherwise, and `vote: false` where
//! equal answers have two normal forms, so that they do not vote together.

use offshoot_strategies::Grader::{self, Qwen, Strict};
use serde_json::Value;

const PAIRS: &str = include_str!("answers/pairs.jsonl");

#[test]
fn pairs_are_judged_both_ways() {
    let (mut equal, mut different, mut failures) = (0, 0, Vec::new());
    for (index, line) in PAIRS.lines().enumerate() {
        let pair: Value = serde_json::from_str(line).expect("a JSON object a line");
        let text = |name: &str| pair[name].as_str().expect("text");
        let flag = |name: &str| {
            pair.get(name)
                .map(|value| value.as_bool().expect("a boolean"))
        };
        let (answer, prediction) = (text("answer"), text("prediction"));
        let strict = flag("equal").expect("a verdict");
        *(if strict { &mut equal } else { &mut different }) += 1;
        for (grader, want) in [(Strict, strict), (Qwen, flag("qwen").unwrap_or(strict))] {
            let keys = [answer, prediction].map(|x| grader.canonical(x));
            for (a, b) in [(answer, prediction), (prediction, answer)] {
                if grader.equivalent(a, b) != want {
                    let name = grader.name();
                    failures.push(format!(
                        "line {}: {name}: {a:?} and {b:?} ({keys:?}): not {want}",
                        index + 1
                    ));
                }
            }
            let vote = flag("vote").unwrap_or(strict);
            if grader == Strict && (keys[0] == keys[1]) != vote && strict {
                let line = index + 1;
                failures.push(format!(
                    "line {line}: {keys:?}: vote together is not {vote}"
                ));
            }
        }
    }
    assert!(
        equal >= 200 && different >= 200,
        "{equal} equal, {different} different"
    );
    assert!(
        failures.is_empty(),
        "{} wrong:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The pieces that random answers are made of.
const PIECES: &[&str] = &[
    "1",
    "23",
    "0",
    ".",
    ",",
    ";",
    "x",
    "n",
    "i",
    "e",
    "pi",
    "\\pi",
    " ",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\\{",
    "\\}",
    "\\",
    "\\frac",
    "\\frac12",
    "\\sqrt",
    "\\sqrt[3]",
    "\\text{",
    "\\text{ cm}",
    "\\text{(B)}",
    "^",
    "_",
    "-",
    "+",
    "*",
    "/",
    "!",
    "%",
    "\\%",
    "\\$",
    "$",
    "=",
    "<",
    "\\leq",
    "\\in",
    ":",
    "|",
    "\\cup",
    "\\pm",
    "\\left",
    "\\right.",
    "\\begin",
    "{pmatrix}",
    "\\end",
    "&",
    "\\\\",
    "^\\circ",
    "\\infty",
    "\\sin",
    "\\log",
    "\\ln",
    "\\binom",
    "\\lfloor",
    "\\rfloor",
    "\\overline",
    "\\,",
    ",\\!",
    "and",
    "or",
    "é",
    "²",
    "∞",
    "\u{0}",
    "\\boxed{",
    "99999999999999999999",
    "^99",
    "!!",
    "^{x}",
    "(x+1)",
    "e^{i\\pi}",
    "10^{300}",
    "apples",
    "no",
];

/// Noise of bytes and of LaTeX: every grader ends, never panics, finds every answer equal to
/// itself, and is symmetric.
#[test]
fn any_input_is_graded() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut previous = String::new();
    for round in 0..8_000 {
        let length = random(24);
        let text: String = match round % 4 {
            0 => {
                let bytes: Vec<u8> = (0..length).map(|_| random(256) as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            // a neighbour of what was there before
            1 => {
                let mut chars: Vec<char> = previous.chars().collect();
                let (from, to) = (random(chars.len() + 1), random(chars.len() + 1));
                match chars.get(from) {
                    Some(&c) => chars.insert(to, c),
                    None => chars.truncate(to),
                }
                chars.into_iter().collect()
            }
            _ => (0..length).map(|_| PIECES[random(PIECES.len())]).collect(),
        };
        for grader in Grader::ALL {
            let _ = grader.answer(&text);
            assert!(grader.equivalent(&text, &text), "{text:?} is not itself");
            assert_eq!(
                grader.equivalent(&text, &previous),
                grader.equivalent(&previous, &text),
                "{text:?} and {previous:?}"
            );
        }
        previous = text;
    }
}

#[test]
fn deep_and_long_answers_end() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(1000), close.repeat(1000));
    let answers = [
        deep("{", "}"),
        deep("(", ")"),
        deep("\\sqrt{", "}"),
        deep("\\frac{1}{", "}"),
        deep("\\text{", "}"),
        deep("2^{", "}"),
        deep("[", "]"),
        "2^".repeat(1000) + "2",
        "9".repeat(4000),
        "1,".repeat(2000),
        "-".repeat(4000),
        "(".repeat(4000),
        "\\frac".repeat(800),
        "1+".repeat(2000) + "1",
        "(x+1)^{60}".repeat(60),
        format!("({})^{{40}}", "x+y+z+w+".repeat(40) + "1"),
        format!("{}x{}", "\\sin(x+".repeat(30), ")".repeat(30)),
        format!("x{}", "!".repeat(1000)),
        format!("{}x", "\\sqrt{1+".repeat(30)) + &"}".repeat(30),
        format!("{}2{}", "(a^{b+".repeat(25), "})".repeat(25)),
        "\\pm1,".repeat(700),
        "\\pm".repeat(1300),
        "9^{9^{9^{9}}}".into(),
        "((10^{300}!)!)!".into(),
        "\\frac{1}{1+".repeat(30) + "x" + &"}".repeat(30),
        "\\binom{1000000}{500000}".into(),
        "(a+b+c+d+f+g+h)^{200}".into(),
        (0..300).map(|n| format!("\\sin {n}x,")).collect(),
        "1/7919+".repeat(500) + "1",
        (2..300).map(|n| format!("+\\sqrt{{{n}}}")).collect(),
        (2..300).map(|n| format!("+\\frac{{1}}{{x+{n}}}")).collect(),
        "x".repeat(1_000_000),
    ];
    for answer in &answers {
        assert!(Strict.equivalent(answer, answer));
        assert!(!Strict.equivalent(answer, "2"));
        let _ = Strict.equivalent(answer, &format!("{answer}+1"));
    }
}
