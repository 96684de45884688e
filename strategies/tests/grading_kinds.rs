//! Kinds of answers, a test each: the pairs of `answers/pairs.jsonl` about the kind, and generated
//! answers. What differs in one number, unit, sign, order or name is never equal; what differs in a
//! spelling of the list is. Every test makes at least 200 pairs of both verdicts.

use offshoot_strategies::Grader::Strict;
use serde_json::Value;

const PAIRS: &str = include_str!("answers/pairs.jsonl");

/// An answer, other spellings of it, and other answers.
struct Family {
    answer: String,
    spellings: Vec<String>,
    others: Vec<String>,
}

fn family(answer: &str, spellings: &[String], others: &[String]) -> Family {
    Family {
        answer: answer.into(),
        spellings: spellings.into(),
        others: others.into(),
    }
}

/// Numbers from a seed, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % n as u64) as i64
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high - low + 1)
    }

    /// Two numbers that differ.
    fn two(&mut self, low: i64, high: i64) -> (i64, i64) {
        let a = self.between(low, high);
        loop {
            let b = self.between(low, high);
            if a != b {
                return (a, b);
            }
        }
    }

    fn of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len() as i64) as usize]
    }

    /// Two of the items that differ in their place.
    fn two_of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> (&'a T, &'a T) {
        let (a, b) = self.two(0, items.len() as i64 - 1);
        (items[a as usize], items[b as usize])
    }
}

/// The verdicts on the committed pairs about `kind` and on generated families, both ways.
fn check(kind: &str, mut generate: impl FnMut(&mut Random) -> Family) {
    let (mut equal, mut different, mut committed) = (0, 0, 0);
    let mut failures = Vec::new();
    let mut expect = |a: &str, b: &str, want: bool| {
        for (a, b) in [(a, b), (b, a)] {
            if Strict.equivalent(a, b) != want && failures.len() < 40 {
                let forms = [a, b].map(|x| Strict.canonical(x));
                failures.push(format!("{a:?} and {b:?} {forms:?}: not {want}"));
            }
        }
        *(if want { &mut equal } else { &mut different }) += 1;
    };
    for line in PAIRS.lines() {
        let pair: Value = serde_json::from_str(line).expect("a JSON object a line");
        if pair["about"] == kind {
            let text = |name: &str| pair[name].as_str().expect("text").to_string();
            let want = pair["equal"].as_bool().expect("a verdict");
            expect(&text("answer"), &text("prediction"), want);
            committed += 1;
        }
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut made = 0;
    while made < 400 {
        let family = generate(&mut random);
        made += family.spellings.len();
        for (at, spelling) in family.spellings.iter().enumerate() {
            expect(&family.answer, spelling, true);
            let other = &family.others[(at + made) % family.others.len()];
            expect(spelling, other, false);
        }
        for other in &family.others {
            expect(&family.answer, other, false);
        }
    }
    assert!(
        failures.is_empty(),
        "{kind}: {} wrong:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(committed > 0, "{kind}: no committed pair");
    assert!(
        equal >= 200 && different >= 200,
        "{kind}: {equal} equal, {different} different"
    );
}

/// Formats each of the patterns.
macro_rules! all {
    ($($pattern:literal),* $(,)?) => { [$(format!($pattern)),*] };
}

#[test]
fn approximate() {
    check("approximate", |random| {
        let (n, m) = random.two(1, 999);
        let d = random.between(1, 9);
        family(
            &format!("{n}.{d}"),
            &all![
                "\\approx {n}.{d}",
                "≈{n}.{d}",
                "\\simeq {n}.{d}",
                "$\\approx {n}.{d}$ miles/s",
                "\\sim {n}.{d}",
                "about {n}.{d}",
                "x \\approx {n}.{d}",
            ],
            &all![
                "\\approx {m}.{d}",
                "≈{m}.{d}",
                "\\approx -{n}.{d}",
                "\\approx",
                ""
            ],
        )
    });
}

#[test]
fn list_read_as_thousands() {
    check("list read as thousands", |random| {
        let (a, b) = random.two(11, 99);
        let (c, d) = (random.between(100, 998), random.between(1, 9));
        let e = c + 1;
        family(
            &format!("{a}, {c}, {b}, {d}"),
            &all![
                "{a},{c},{b},{d}",
                "{d},{b},{c},{a}",
                "\\{{{a},{c},{b},{d}\\}}",
                "{b}^\\circ,{c}^\\circ,{d}^\\circ,{a}^\\circ",
                "{b}，{c}，{d}，{a}",
            ],
            &all![
                "{a}{c},{b},{d}",
                "{a},{e},{b},{d}",
                "{a},{c},{b}",
                "{a},{c},{b},{d},{d}"
            ],
        )
    });
    check("thousands separators", |random| {
        let (a, b) = (random.between(1, 999), random.between(100, 999));
        let c = random.between(100, 998);
        let next = c + 1;
        family(
            &format!("{a}{b}{c}"),
            &all![
                "{a},{b},{c}",
                "{a},\\!{b},\\!{c}",
                "{a}{{,}}{b}{{,}}{c}",
                "{a}\\,{b}\\,{c}",
                "\\${a},{b},{c}",
                "{a},{b},{c}.0",
            ],
            &all![
                "{a},{b},{next}",
                "{a}, {b}, {c}",
                "{a},{b}",
                "-{a},{b},{c}",
                "{a},{c},{b}1"
            ],
        )
    });
}

#[test]
fn quantities_multiplied_out() {
    const PAIRS: [[&str; 4]; 5] = [
        ["feet", "inches", "ft", "in"],
        ["hours", "minutes", "hr", "min"],
        ["minutes", "seconds", "min", "sec"],
        ["pounds", "ounces", "lb", "oz"],
        ["meters", "centimeters", "m", "cm"],
    ];
    check("quantities multiplied out", |random| {
        let [large, small, l, s] = PAIRS[random.below(5) as usize];
        let (a, b) = random.two(2, 9);
        family(
            &format!("{a} {large} {b} {small}"),
            &all![
                "{a}\\text{{ {large} }}{b}\\text{{ {small}}}",
                "\\text{{{a} {large} {b} {small}}}",
                "{a} \\text{{ {large}}} \\text{{and}} {b} \\text{{ {small}}}",
                "{a}\\text{{ {l} }}{b}\\text{{ {s}}}",
                "{a} {large}, {b} {small}",
            ],
            &all![
                "{b} {large} {a} {small}",
                "{a}\\text{{ {large} }}{a}\\text{{ {small}}}",
                "{a} {small} {b} {large}",
                "{a} {large}",
                "{b} {small}",
            ],
        )
    });
    check("quantities multiplied out", |random| {
        let (a, b) = random.two(2, 99);
        family(
            &format!("{a} R {b}"),
            &all![
                "{a}R{b}",
                "{a} r {b}",
                "{a}\\text{{ remainder }}{b}",
                "{a} remainder {b}"
            ],
            &all!["{b} R {a}", "{a}", "{a}\\text{{ remainder }}{a}", "{a}{b}"],
        )
    });
}

#[test]
fn word_and_number_in_one_text() {
    check("word and number in one text", |random| {
        let (a, b) = random.two(2, 99);
        let noun = random.of(&["apples", "hours", "cm", "students", "square feet", "mph"]);
        let other = random.of(&["pears", "days", "kg", "teachers", "cubic feet", "rpm"]);
        family(
            &format!("{a}\\text{{ {noun}}}"),
            &all![
                "\\text{{{a} {noun}}}",
                "{a} ({noun})",
                "{a} {noun}",
                "{a}",
                "\\mathrm{{{a}~{noun}}}"
            ],
            &all![
                "\\text{{{b} {noun}}}",
                "{b} ({noun})",
                "-{a}\\text{{ {noun}}}",
                "{b} {other}"
            ],
        )
    });
    check("word and number in one text", |random| {
        let (a, b) = random.two(1, 40);
        let suffix = |n: i64| match (n % 100, n % 10) {
            (11..=13, _) => "th",
            (_, 1) => "st",
            (_, 2) => "nd",
            (_, 3) => "rd",
            _ => "th",
        };
        let (th, other) = (suffix(a), suffix(b));
        family(
            &a.to_string(),
            &all![
                "{a}{th}",
                "\\text{{{a}{th}}}",
                "{a}^{{\\text{{{th}}}}}",
                "{a}\\text{{{th}}}"
            ],
            &all![
                "{b}{other}",
                "\\text{{{b}{other}}}",
                "{b}^{{\\text{{{other}}}}}"
            ],
        )
    });
    check("word and number in one text", |random| {
        let (a, b) = random.two(10, 99);
        let (base, other) = random.two(2, 16);
        let digits = |n: i64, base: i64| {
            let (mut n, mut text) = (n, String::new());
            while n > 0 {
                let digit = char::from_digit((n % base) as u32, base as u32).expect("a digit");
                text.insert(0, digit.to_ascii_uppercase());
                n /= base;
            }
            text
        };
        let (x, y) = (digits(a + 300, base), digits(b + 300, base));
        let mut others = all!["{y}_{{{base}}}", "{y}\\text{{ (base {base})}}"].to_vec();
        if x.chars().all(|c| c.is_digit(other as u32)) {
            others.extend(all!["{x}_{{{other}}}"]);
        }
        family(
            &format!("{x}_{base}"),
            &all![
                "{x}_{{{base}}}",
                "{x}\\text{{ (base {base})}}",
                "\\text{{{x} (base {base})}}",
                "{x} base {base}",
                "{x}_{{\\text{{base }}{base}}}",
                "({x})_{{{base}}}",
            ],
            &others,
        )
    });
    check("money", |random| {
        let (a, b) = random.two(2, 99);
        family(
            &format!("\\${a}"),
            &all![
                "\\text{{\\$}}{a}",
                "{a}\\text{{ dollars}}",
                "\\text{{{a} dollars}}",
                "\\${a}.00",
                "\\${a}\\text{{ dollars}}",
            ],
            &all![
                "\\${b}",
                "{a}\\text{{ cents}}",
                "€{a}",
                "-\\${a}",
                "\\${a}\\text{{ million}}"
            ],
        )
    });
}

#[test]
fn counts_change_owners() {
    check("counts change owners", |random| {
        let (a, b) = random.two(2, 99);
        let nouns = [
            "boys",
            "girls",
            "apples",
            "pears",
            "red balls",
            "blue balls",
            "dimes",
        ];
        let (x, y) = random.two_of(&nouns);
        family(
            &format!("{a} {x}, {b} {y}"),
            &all![
                "{b} {y}, {a} {x}",
                "{a}\\text{{ {x}}}, {b}\\text{{ {y}}}",
                "{a} {x} and {b} {y}",
                "\\text{{{a} {x}, {b} {y}}}",
                "{a}\\text{{ {x} and }}{b}\\text{{ {y}}}",
            ],
            &all![
                "{b} {x}, {a} {y}",
                "{a}\\text{{ {y}}}, {b}\\text{{ {x}}}",
                "{a} {x}",
                "{a} {x}, {a} {y}",
                "{b} {x} and {a} {y}",
            ],
        )
    });
}

#[test]
fn compound_units() {
    // spellings of one unit, then another unit
    const UNITS: [[&str; 5]; 6] = [
        [
            "\\mathrm{~m} / \\mathrm{s}",
            "\\text{ m/s}",
            "\\text{ meters per second}",
            "\\ \\mathrm{m\\,s^{-1}}",
            "\\text{ m/s}^2",
        ],
        [
            "\\text{ km/h}",
            "\\text{ kilometers per hour}",
            " \\mathrm{km} / \\mathrm{hr}",
            "\\,\\frac{\\text{km}}{\\text{h}}",
            "\\text{ km}",
        ],
        [
            "\\,\\mathrm{kg}\\,\\mathrm{m}^{-3}",
            "\\text{ kg/m}^3",
            "\\ \\mathrm{kg/m^3}",
            "\\text{ kilograms per cubic meter}",
            "\\text{ kg/m}^2",
        ],
        [
            " \\mathrm{lb} / \\mathrm{in}^{2}",
            "\\text{ pounds per square inch}",
            "\\text{ lb/in}^2",
            " \\mathrm{lb}/\\mathrm{in}^2",
            "\\text{ lb}",
        ],
        [
            "\\text{ N}\\cdot\\text{m}",
            "\\text{ N-m}",
            "\\text{ newton meters}",
            "\\ \\mathrm{N\\,m}",
            "\\text{ N}",
        ],
        [
            "\\;m^{2}",
            "\\text{ m}^2",
            "\\text{ square meters}",
            "\\;\\mathrm{m}^2",
            "\\text{ m}",
        ],
    ];
    check("compound units", |random| {
        let (a, b) = random.two(2, 999);
        let [u, v, w, x, other] = UNITS[random.below(6) as usize];
        family(
            &format!("{a}{u}"),
            &all!["{a}{v}", "{a}{w}", "{a}{x}", "{a}.0{v}"],
            &all!["{b}{u}", "{b}{v}", "-{a}{w}", "{a}{other}", "{b}"],
        )
    });
    check("compound units", |random| {
        let a = random.between(2, 999);
        let [u, v, w, x, _] = UNITS[random.below(6) as usize];
        let next = a + 1;
        family(
            &a.to_string(),
            &all!["{a}{u}", "{a}{v}", "{a}{w}", "{a}{x}"],
            &all!["{next}{u}"],
        )
    });
    // one quantity in two units
    const CONVERSIONS: [(&str, &str, i64); 8] = [
        ("m", "cm", 100),
        ("hours", "minutes", 60),
        ("feet", "inches", 12),
        ("kg", "g", 1000),
        ("dollars", "cents", 100),
        ("weeks", "days", 7),
        ("km", "meters", 1000),
        ("yards", "feet", 3),
    ];
    check("compound units", |random| {
        let a = random.between(2, 99);
        let (large, small, times) = CONVERSIONS[random.below(8) as usize];
        let (b, next) = (a * times, a * times + 1);
        family(
            &format!("{a}\\text{{ {large}}}"),
            &all!["{b}\\text{{ {small}}}"],
            &all!["{a}\\text{{ {small}}}", "{next}\\text{{ {small}}}"],
        )
    });
}

#[test]
fn time_of_day() {
    check("time of day", |random| {
        let (h, other) = random.two(1, 12);
        let (m, later) = random.two(10, 59);
        let (half, no) = if random.below(2) == 0 {
            ("a", "p")
        } else {
            ("p", "a")
        };
        let capital = half.to_uppercase();
        family(
            &format!("{h}:{m} {half}.m."),
            &all![
                "{h}:{m}{half}m",
                "{h}:{m} {capital}M",
                "{h}:{m}\\text{{ {half}.m.}}",
                "\\text{{{h}:{m} {half}m}}",
                "{h}:{m} {capital}.M.",
            ],
            &all![
                "{h}:{m} {no}.m.",
                "{h}:{later} {half}.m.",
                "{other}:{m} {half}m",
                "{h}:{m}",
                "{h} {half}m",
            ],
        )
    });
}

#[test]
fn letters_in_another_order() {
    const ROMAN: [&str; 12] = [
        "I", "II", "III", "IV", "VI", "IX", "XI", "XIV", "XVI", "XL", "LX", "MCM",
    ];
    check("letters in another order", |random| {
        let (a, b) = random.two_of(&ROMAN);
        family(
            a,
            &all![
                "\\text{{{a}}}",
                "\\mathrm{{{a}}}",
                "${a}$",
                "{a}.",
                "\\mathbf{{{a}}}"
            ],
            &all!["{b}", "\\text{{{b}}}", "{a}{b}", "{a}, {b}"],
        )
    });
    check("letters in another order", |random| {
        let letters = ["A", "B", "C", "D", "P", "Q"];
        let (a, b) = random.two_of(&letters);
        let arrow = random.of(&["\\overrightarrow", "\\vec"]);
        family(
            &format!("{arrow}{{{a}{b}}}"),
            &all![
                "\\overrightarrow{{{a}{b}}}",
                "\\vec{{{a}{b}}}",
                "{arrow}{{{a} {b}}}"
            ],
            &all!["{arrow}{{{b}{a}}}", "{b}{a}", "{arrow}{{{a}{a}}}"],
        )
    });
    check("letters in another order", |random| {
        let n = random.between(0x1a, 0xffff) | 0xa00;
        let (text, small) = (format!("{n:X}"), format!("{n:x}"));
        let reversed: String = text.chars().rev().collect();
        let mut others = vec![format!("{:X}_{{16}}", n + 1)];
        if reversed.trim_start_matches('0') != text {
            others.push(format!("{reversed}_{{16}}"));
        }
        family(
            &format!("{text}_{{16}}"),
            &all![
                "{small}_{{16}}",
                "\\text{{{text}}}_{{16}}",
                "{text}_{{\\text{{sixteen}}}}"
            ],
            &others,
        )
    });
}

#[test]
fn bold_letters_taken_for_units() {
    check("bold letters taken for units", |random| {
        let (a, b) = random.two(2, 99);
        let font = random.of(&["\\mathbf", "\\mathit", "\\boldsymbol", "\\bm"]);
        let (x, y) = random.two_of(&["a", "b", "m", "n", "s", "x", "g"]);
        family(
            &format!("{a}{font}{{{x}}}+{b}"),
            &all!["{b}+{a}{font}{{{x}}}", "{a}{font} {x}+{b}", "{a} {x}+{b}"],
            &all![
                "{a}+{b}",
                "{a}{font}{{{y}}}+{b}",
                "{b}{font}{{{x}}}+{a}",
                "{a}{font}{{{x}}}-{b}"
            ],
        )
    });
    check("bold letters taken for units", |random| {
        let (a, b) = random.two(2, 99);
        let (x, y) = random.two_of(&["a", "b", "m", "n", "s", "x", "g"]);
        family(
            &format!("{a}\\vec{{{x}}}"),
            &all![
                "{a}\\overrightarrow{{{x}}}",
                "\\vec{{{x}}}\\cdot {a}",
                "{a} \\vec {x}"
            ],
            &all![
                "{a}",
                "{b}\\vec{{{x}}}",
                "{a}\\vec{{{y}}}",
                "-{a}\\vec{{{x}}}"
            ],
        )
    });
}

#[test]
fn named_points() {
    check("named points", |random| {
        let (a, b) = random.two(-20, 20);
        let (c, d) = random.two(21, 40);
        family(
            &format!("({a},{b}),({c},{d})"),
            &all![
                "(x,y)=({a},{b}),({c},{d})",
                "(x,y)\\in\\{{({a},{b}),({c},{d})\\}}",
                "({c},{d}),({a},{b})",
                "(x,y)=({c},{d})\\text{{ or }}({a},{b})",
            ],
            &all![
                "({a},{b})",
                "(x,y)\\in\\{{({a},{b})\\}}",
                "({b},{a}),({a},{a})"
            ],
        )
    });
    check("named points", |random| {
        let (a, b) = random.two(-20, 20);
        family(
            &format!("({a},{b})"),
            &all![
                "(x,y)=({a},{b})",
                "(a, b) = \\left( {a}, {b} \\right)",
                "[x={a}, y={b}]",
                "x={a}, y={b}",
                "x={a}\\text{{ and }}y={b}",
            ],
            &all![
                "({b},{a})",
                "(x,y)=({b},{a})",
                "x={b}, y={a}",
                "({a},{b},{a})",
                "[x={b}, y={a}]"
            ],
        )
    });
}

#[test]
fn function_labels() {
    check("function labels", |random| {
        let (a, b) = random.two(2, 30);
        let label = random.of(&[
            "f(x)",
            "f{\\left(x \\right)}",
            "f^{-1}(x)",
            "(f\\circ g)(x)",
            "f'(x)",
            "y",
            "f_1(x)",
        ]);
        family(
            &format!("{a}x+{b}"),
            &all![
                "{label}={a}x+{b}",
                "{label} = {b} + {a} x",
                "f\\colon x\\mapsto {a}x+{b}"
            ],
            &all![
                "{label}={b}x+{a}",
                "{label}={a}x-{b}",
                "{a}x",
                "f\\colon x\\mapsto {b}x+{a}"
            ],
        )
    });
    check("function labels", |random| {
        let (a, b) = random.two(2, 99);
        let label = random.of(&[
            "P(A\\cap B)",
            "m\\angle B",
            "AB",
            "\\angle ABC",
            "S_{10}",
            "P(A|B)",
        ]);
        family(
            &a.to_string(),
            &all!["{label}={a}", "{label} = {a}.0"],
            &all!["{label}={b}", "{label}=-{a}"],
        )
    });
}

#[test]
fn sets_in_other_notations() {
    check("sets in other notations", |random| {
        let low = random.between(-30, 20);
        let high = low + random.between(1, 20);
        let next = high + 1;
        family(
            &format!("[{low},{high})"),
            &all![
                "\\{{x|{low}\\leq x<{high}\\}}",
                "\\{{x\\in\\mathbb{{R}}:{low}\\le x<{high}\\}}",
                "[{low},{high}[",
                "x\\ge {low}\\text{{ and }}x<{high}",
                "x<{high} \\wedge x\\ge {low}",
                "{high}>x\\ge {low}",
                "x\\in[{low},{high})",
            ],
            &all![
                "[{low},{high}]",
                "({low},{high})",
                "\\{{x|{low}<x\\leq {high}\\}}",
                "]{low},{high}[",
                "[{low},{next})",
                "x\\ge {low}\\text{{ or }}x<{high}",
            ],
        )
    });
    check("sets in other notations", |random| {
        let a = random.between(-30, 30);
        let next = a + 1;
        family(
            &format!("(-\\infty,{a})\\cup({a},\\infty)"),
            &all![
                "x\\ne {a}",
                "\\mathbb{{R}}\\setminus\\{{{a}\\}}",
                "\\{{x\\mid x\\neq {a}\\}}",
                "x<{a}\\text{{ or }}x>{a}",
                "]{a},\\infty[\\cup]-\\infty,{a}[",
            ],
            &all![
                "x\\ne {next}",
                "\\mathbb{{R}}",
                "x={a}",
                "x>{a}",
                "\\{{{a}\\}}"
            ],
        )
    });
    check("sets in other notations", |random| {
        let (a, b) = random.two(1, 30);
        let c = random.between(-9, 9);
        let (low, high) = (c - a, c + a);
        let sign = if c < 0 {
            format!("+{}", -c)
        } else {
            format!("-{c}")
        };
        family(
            &format!("[{low},{high}]"),
            &all![
                "|x{sign}|\\le {a}",
                "{a}\\ge|x{sign}|",
                "\\left|x{sign}\\right|\\leq {a}"
            ],
            &all!["|x{sign}|<{a}", "|x{sign}|\\ge {a}", "|x{sign}|\\le {b}"],
        )
    });
    check("sets in other notations", |random| {
        let (a, b) = random.two(-30, 30);
        family(
            &format!("{a},{b}"),
            &all![
                "x={a}\\vee x={b}",
                "x={b}\\lor x={a}",
                "x={a}\\text{{ or }}{b}",
                "\\{{{b},{a}\\}}"
            ],
            &all!["x={a}", "\\{{{a}\\}}", "({a},{b})", "x={a}\\vee x={a}"],
        )
    });
}

#[test]
fn decorations() {
    const ANSWERS: [(&str, &str); 5] = [
        ("5", "6"),
        ("\\frac{1}{2}", "\\frac{1}{3}"),
        ("(1,2)", "(2,1)"),
        ("x+1", "x-1"),
        ("\\sqrt{3}", "\\sqrt{5}"),
    ];
    check("decorations", |random| {
        let (a, b) = ANSWERS[random.below(5) as usize];
        let color = random.of(&["red", "blue", "green", "magenta"]);
        let size = random.of(&["\\large", "\\Huge", "\\small", "\\displaystyle", "\\bf"]);
        let around = |x: &str| {
            all![
                "\\color{{{color}}}{{{x}}}",
                "\\textcolor{{{color}}}{{{x}}}",
                "{size} {x}",
                "{x}\\hspace{{1em}}",
                "\\begin{{aligned}}{x}\\end{{aligned}}",
                "\\begin{{align*}}&{x}\\\\\\end{{align*}}",
                "\\fbox{{{x}}}",
                "\\boxed{{{x}}}",
                "\\ensuremath{{{x}}}",
                "={x}",
                "{x}\\quad\\checkmark",
                "\\underline{{{x}}}",
                "{x}。",
                "\\left.{x}\\right.",
            ]
        };
        family(a, &around(a), &around(b))
    });
}

#[test]
fn other_spellings() {
    check("other spellings", |random| {
        let (a, b) = random.two(2, 99);
        family(
            &format!("\\frac{{{a}}}{{{b}}}"),
            &all![
                "{a}\\over {b}",
                "{{{a}\\over{b}}}",
                "{a}/{b}",
                "{a}÷{b}",
                "\\dfrac{{{a}}}{{{b}}}",
                "{a}⁄{b}",
            ],
            &all!["{b}\\over {a}", "-{a}/{b}", "{a}{b}", "{b}÷{a}"],
        )
    });
    check("other spellings", |random| {
        let (a, b) = random.two(-20, 20);
        let double = [2 * a, 2 * b];
        let [c, d] = double;
        family(
            &format!("\\begin{{pmatrix}}{a}\\\\{b}\\end{{pmatrix}}"),
            &all![
                "\\left(\\begin{{array}}{{c}} {a} \\\\[2mm] {b} \\end{{array}}\\right)",
                "\\begin{{bmatrix}}{a}\\cr {b}\\end{{bmatrix}}",
                "\\begin{{psmallmatrix}}{a}\\\\{b}\\end{{psmallmatrix}}",
                "({a},{b})^T",
                "\\frac12\\begin{{pmatrix}}{c}\\\\{d}\\end{{pmatrix}}",
                "-\\begin{{pmatrix}}-({a})\\\\-({b})\\end{{pmatrix}}",
            ],
            &all![
                "\\begin{{pmatrix}}{b}\\\\{a}\\end{{pmatrix}}",
                "({b},{a})^T",
                "\\begin{{pmatrix}}{a}&{b}\\end{{pmatrix}}",
                "({a},{b})",
                "\\frac13\\begin{{pmatrix}}{c}\\\\{b}\\end{{pmatrix}}",
            ],
        )
    });
    check("other spellings", |random| {
        let (r, m) = (random.between(0, 6), random.between(7, 30));
        let (s, k) = (r + 1, m + 1);
        family(
            &format!("{r} \\pmod {{{m}}}"),
            &all![
                "n\\equiv {r}\\pmod{{{m}}}",
                "{r} \\mod {m}",
                "{r}\\ (\\bmod\\ {m})",
                "{r} (mod {m})"
            ],
            &all![
                "{s} \\pmod {{{m}}}",
                "{r} \\pmod {{{k}}}",
                "{r}",
                "{m} \\pmod {{{r}}}"
            ],
        )
    });
    check("other spellings", |random| {
        const FRACTIONS: [(&str, i64, i64); 6] = [
            ("½", 1, 2),
            ("⅓", 1, 3),
            ("¾", 3, 4),
            ("⅖", 2, 5),
            ("⅞", 7, 8),
            ("⅙", 1, 6),
        ];
        let (sign, top, bottom) = FRACTIONS[random.below(6) as usize];
        let (a, b) = random.two(1, 50);
        let whole = a * bottom + top;
        family(
            &format!("\\frac{{{whole}}}{{{bottom}}}"),
            &all![
                "{a}{sign}",
                "{a} {sign}",
                "{a}\\frac{{{top}}}{{{bottom}}}",
                "{a} {top}/{bottom}"
            ],
            &all!["{b}{sign}", "{a}", "{sign}", "-{a}{sign}"],
        )
    });
    check("other spellings", |random| {
        let (n, k) = (random.between(14, 20), random.between(2, 5));
        let j = k + 1;
        family(
            &format!("\\binom{{{n}}}{{{k}}}"),
            &all![
                "{{{n} \\choose {k}}}",
                "{n}\\choose {k}",
                "\\dbinom{{{n}}}{{{k}}}"
            ],
            &all![
                "{{{n} \\choose {j}}}",
                "\\frac{{{n}}}{{{k}}}",
                "{{{k} \\choose {n}}}"
            ],
        )
    });
}

#[test]
fn dots_left_out() {
    check("dots left out", |random| {
        let (a, d) = (random.between(1, 20), random.between(1, 9));
        let (b, c, last) = (a + d, a + 2 * d, a + 30 * d);
        family(
            &format!("{a},{b},{c},\\ldots,{last}"),
            &all![
                "{a}, {b}, {c}, ..., {last}",
                "{a},{b},{c},…,{last}",
                "{a},{b},{c},\\dots,{last}"
            ],
            &all![
                "{a},{b},{c},{last}",
                "{a},{b},{c},...",
                "{a},{b},{c}",
                "{b},{a},{c},\\ldots,{last}",
                "{a},{b},{c},\\ldots,{c}",
            ],
        )
    });
    check("repeating decimals", |random| {
        let (a, b) = random.two(1, 8);
        family(
            &format!("\\frac{{{a}}}{{9}}"),
            &all!["0.({a})", "0.\\overline{{{a}}}", "0.\\dot{{{a}}}"],
            &all!["0.({b})", "0.{a}", "0", "{a}", "0.{a}{a}{a}..."],
        )
    });
}

#[test]
fn large_powers() {
    check("large powers", |random| {
        let base = random.of(&["2", "3", "6", "10", "12", "2018", "97"]);
        let n = random.between(2_000, 900_000);
        let (double, before, after) = (2 * n, n - 1, n + 1);
        let square: i64 = base.parse::<i64>().expect("a number").pow(2);
        family(
            &format!("{base}^{{{double}}}"),
            &all![
                "{square}^{{{n}}}",
                "{base}^{{{n}}}\\cdot {base}^{{{n}}}",
                "({base}^{{{n}}})^2"
            ],
            &all![
                "{square}^{{{after}}}",
                "{base}^{{{n}}}",
                "{square}^{{{before}}}",
                "{base}^{{{double}}}+1",
                "-{base}^{{{double}}}",
            ],
        )
    });
    check("large powers", |random| {
        let n = random.between(400, 5_000);
        let (before, k) = (n - 1, random.between(2, 99));
        family(
            &format!("{k}\\cdot {n}!"),
            &all![
                "{n}!\\cdot {k}",
                "{k}\\cdot {n}\\cdot {before}!",
                "{n}!{k}!/({k}-1)!"
            ],
            &all!["{n}!", "{k}\\cdot {before}!", "{k}+{n}!", "-{k}\\cdot {n}!"],
        )
    });
}

#[test]
fn choices() {
    check("choices", |random| {
        let (letter, other) = random.two_of(&["A", "B", "C", "D", "E"]);
        let a = random.between(1, 99);
        family(
            letter,
            &all![
                "{letter}. {a}",
                "({letter}) {a}",
                "{letter}) {a}",
                "\\textbf{{({letter})}}\\ {a}",
                "\\text{{({letter})}}",
                "\\text{{{letter}}}",
            ],
            &all![
                "{other}. {a}",
                "({other}) {a}",
                "\\textbf{{({other})}}\\ {a}",
                "{other}",
                "({letter})({other})"
            ],
        )
    });
}

#[test]
fn conditions_after_the_answer() {
    check("conditions after the answer", |random| {
        let (a, b) = random.two(2, 30);
        let k = random.of(&["k", "n", "m"]);
        family(
            &format!("\\frac{{\\pi}}{{{a}}}+{b}{k}\\pi"),
            &all![
                "\\frac{{\\pi}}{{{a}}}+{b}{k}\\pi, {k}\\in\\mathbb{{Z}}",
                "x=\\frac{{\\pi}}{{{a}}}+{b}{k}\\pi ({k}\\in\\mathbb{{Z}})",
                "\\frac{{\\pi}}{{{a}}}+{b}{k}\\pi, any integer {k}",
                "\\frac{{\\pi}}{{{a}}}+{b}{k}\\pi\\text{{ where }}{k}\\text{{ is an integer}}",
            ],
            &all![
                "\\frac{{\\pi}}{{{b}}}+{a}{k}\\pi, {k}\\in\\mathbb{{Z}}",
                "{b}{k}\\pi, {k}\\in\\mathbb{{Z}}",
                "\\frac{{\\pi}}{{{a}}}-{b}{k}\\pi",
            ],
        )
    });
}
