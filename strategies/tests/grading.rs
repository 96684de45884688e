//! The graders on hard pairs, both ways, on the publishers' answers, and on noise.
//!
//! `answers/pairs.jsonl` has a pair a line: `answer` and `prediction`, whether they are `equal`
//! (for the strict grader), `qwen` where the Qwen grader says otherwise, `vote: false` where equal
//! answers have two normal forms, so that they do not vote together, and `why` for pairs from
//! public reports.

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

/// Random answers from a seed: bytes, LaTeX, neighbours of what was there before and of the
/// committed pairs, and what is deep, long or huge.
struct Noise {
    state: u64,
    previous: String,
    known: Vec<String>,
}

impl Noise {
    fn new(seed: u64) -> Noise {
        let text = |pair: &Value, name: &str| pair[name].as_str().expect("text").to_string();
        let pairs = PAIRS.lines().flat_map(|line| {
            let pair: Value = serde_json::from_str(line).expect("a JSON object a line");
            [text(&pair, "answer"), text(&pair, "prediction")]
        });
        Noise {
            state: seed,
            previous: String::new(),
            known: pairs.collect(),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) as usize % n
    }

    fn next(&mut self) -> String {
        let length = self.below(24);
        let text = match self.below(32) {
            0..4 => {
                let bytes: Vec<u8> = (0..length).map(|_| self.below(256) as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            4..8 => self.neighbour(self.previous.clone()),
            8..16 => {
                let at = self.below(self.known.len());
                self.neighbour(self.known[at].clone())
            }
            16 => self.extreme(),
            _ => (0..length)
                .map(|_| PIECES[self.below(PIECES.len())])
                .collect(),
        };
        self.previous.clone_from(&text);
        text
    }

    /// The text with a character moved, or cut, or a piece put in.
    fn neighbour(&mut self, text: String) -> String {
        let mut chars: Vec<char> = text.chars().take(200).collect();
        let (from, to) = (self.below(chars.len() + 1), self.below(chars.len() + 1));
        match (self.below(3), chars.get(from).copied()) {
            (0, Some(c)) => chars.insert(to, c),
            (1, _) => {
                let piece = PIECES[self.below(PIECES.len())];
                chars.splice(to..to, piece.chars());
            }
            _ => chars.truncate(to),
        }
        chars.into_iter().collect()
    }

    /// Deep nesting, large exponents and factorials, long lists and products.
    fn extreme(&mut self) -> String {
        const OPEN: [(&str, &str); 10] = [
            ("{", "}"),
            ("(", ")"),
            ("\\sqrt{", "}"),
            ("\\frac{1}{1+", "}"),
            ("\\text{", "}"),
            ("2^{", "}"),
            ("[", "]"),
            ("|", "|"),
            ("\\begin{pmatrix}", "\\end{pmatrix}"),
            ("\\sin(x+", ")"),
        ];
        let (open, close) = OPEN[self.below(OPEN.len())];
        let times = 1 + self.below(40);
        let number = 1 + self.below(1_000_000);
        let piece = PIECES[self.below(PIECES.len())];
        match self.below(6) {
            0 => format!("{}{piece}{}", open.repeat(times), close.repeat(times)),
            1 => format!("{number}^{{{number}}}{piece}"),
            2 => format!("{number}!{piece}{}", "!".repeat(times)),
            3 => format!("{piece}{number},").repeat(times),
            4 => format!("(x+{piece})^{{{times}}}").repeat(times % 5 + 1),
            _ => "9^{".repeat(times % 7) + &number.to_string() + &"}".repeat(times % 7),
        }
    }
}

/// Grades so many random answers with every grader: each ends, never panics, finds every answer
/// equal to itself, and is symmetric. The longest of them, in seconds, and its answers.
fn grade_noise(rounds: usize, seed: u64) -> (f64, [String; 2]) {
    let mut noise = Noise::new(seed);
    let mut longest = (0.0, [String::new(), String::new()]);
    let mut previous = String::new();
    for _ in 0..rounds {
        let text = noise.next();
        for grader in Grader::ALL {
            let _ = grader.extract(&text);
            let again = format!("{text} ");
            let trimmed = text.trim_end();
            if trimmed == text && !text.ends_with('\\') {
                assert!(grader.equivalent(&text, &again), "{text:?} is not itself");
            }
            let start = std::time::Instant::now();
            let verdict = grader.equivalent(&text, &previous);
            let seconds = start.elapsed().as_secs_f64();
            if seconds > longest.0 {
                longest = (seconds, [text.clone(), previous.clone()]);
            }
            let other = grader.equivalent(&previous, &text);
            assert_eq!(verdict, other, "{text:?} and {previous:?}");
        }
        previous = text;
    }
    longest
}

#[test]
fn any_input_is_graded() {
    grade_noise(8_000, 0x9e37_79b9_7f4a_7c15);
}

/// As many inputs as a test has no time for:
///
///     OFFSHOOT_INPUTS=1000000 OFFSHOOT_SEED=7 cargo test --release -p offshoot-strategies \
///         --test grading a_million -- --ignored --nocapture
#[test]
#[ignore = "minutes; see its comment"]
fn a_million_inputs_are_graded() {
    let number = |name: &str, default: u64| {
        let set = std::env::var(name).ok();
        set.map_or(default, |text| text.parse().expect("a number"))
    };
    let rounds = number("OFFSHOOT_INPUTS", 1_000_000) as usize;
    let seed = number("OFFSHOOT_SEED", 7);
    let start = std::time::Instant::now();
    let (longest, answers) = grade_noise(rounds, seed);
    println!(
        "{rounds} inputs from seed {seed}, {} comparisons and {} extractions in {:.0} s; the \
         longest comparison took {:.1} ms: {answers:?}",
        6 * rounds,
        2 * rounds,
        start.elapsed().as_secs_f64(),
        longest * 1e3
    );
}

#[test]
fn graders_work_on_any_thread() {
    let threads: Vec<_> = (0..8u64)
        .map(|seed| std::thread::spawn(move || grade_noise(200, seed + 1)))
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// LaTeX that is cut or broken is not what it begins with.
#[test]
fn what_is_cut_is_not_its_beginning() {
    let cut = [
        "\\left",
        "\\left(",
        "\\text",
        "\\text{",
        "\\text{ cm",
        "\\frac",
        "\\frac{1}",
        "\\frac{1}{2",
        "\\sqrt",
        "\\sqrt(",
        "\\sqrt[3]",
        "^",
        "^{",
        "_",
        "_{2",
        "(",
        "[",
        "\\{",
        "\\color",
        "\\color{red",
        "\\begin",
        "\\begin{pmatrix}",
        "\\begin{pmatrix}1&2",
        "\\cdot",
        "*",
        "/",
        "+",
        "-",
        "=",
        "<",
        "\\leq",
        "\\approx",
        " or",
        " and",
        "\\pm",
        "\\pmod",
        "\\pmod{7",
        "\\hspace",
        "\\hspace{1",
        "\\mathbf",
        "\\over",
        "\\",
        "\\mathrm{",
        "\\in",
        "\\cup",
        "{",
        "}",
        "\\end{pmatrix}",
        "\\binom",
        "\\binom{2}",
        "|",
        "\\sin",
        "\\log_",
        ":",
        "&",
    ];
    let mut failures = Vec::new();
    for answer in [
        "5",
        "x",
        "\\frac{1}{2}",
        "(1,2)",
        "3\\text{ cm}",
        "\\pi",
        "12 apples",
        "x+1",
    ] {
        for cut in cut {
            let broken = format!("{answer}{cut}");
            if Strict.equivalent(answer, &broken) || Strict.equivalent(&broken, answer) {
                failures.push(broken);
            }
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// Integers are compared as integers, never by a part of their digits.
#[test]
fn integers_are_compared_whole() {
    for grader in Grader::ALL {
        for a in (0..1000).step_by(7) {
            for b in [a + 1, a + 100, a + 700, 10 * a + 3, a + 1000] {
                let near = grader == Qwen && f64::from(b - a) <= 1e-4 * f64::from(b);
                let hundred = grader == Qwen && b == 100 * a;
                let (a, b) = (a.to_string(), b.to_string());
                assert_eq!(grader.equivalent(&a, &b), near || hundred, "{a} and {b}");
                assert_eq!(grader.equivalent(&b, &a), near || hundred, "{b} and {a}");
            }
            assert!(grader.equivalent(&format!("{a:03}"), &a.to_string()));
            assert!(grader.equivalent(&format!("{a}.0"), &a.to_string()));
        }
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
