//! The strict grader on hard pairs, both ways, and on noise.

use offshoot_strategies::Grader::Strict;

/// Pairs that are the same answer.
const EQUAL: &[(&str, &str)] = &[
    // integers and their spellings
    ("5", "5"),
    (" 5 ", "5"),
    ("5.", "5"),
    ("$5$", "5"),
    (r"\(5\)", "5"),
    ("+5", "5"),
    ("-0", "0"),
    ("007", "7"),
    ("{5}", "5"),
    ("(5)", "5"),
    (r"\boxed{5}", "5"),
    ("−5", "-5"),
    ("--5", "5"),
    ("5.0", "5"),
    ("5.000", "5"),
    // thousands separators
    ("10,080", "10080"),
    (r"10,\!080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"10\,080", "10080"),
    ("10{,}080", "10080"),
    (r"1{,}234{,}567", "1,234,567"),
    ("1,234.5", "1234.5"),
    (r"\$32,\!348", "32348"),
    ("-1,000", "-1000"),
    // decimals and fractions
    ("0.5", ".5"),
    ("0.5", r"\frac{1}{2}"),
    ("0.50", "1/2"),
    (r"\frac12", "1/2"),
    (r"\frac 12", r"\dfrac{1}{2}"),
    (r"\tfrac{1}{2}", r"\cfrac{1}{2}"),
    (r"\frac43", r"\frac{4}{3}"),
    (r"\frac 59", "5/9"),
    (r"\frac9{19}", r"\frac{9}{19}"),
    (r"\frac{270}7", "270/7"),
    (r"\frac{2}{4}", r"\frac{1}{2}"),
    (r"-\frac{3}{8}", r"\frac{-3}{8}"),
    (r"-\frac{3}{8}", r"\frac{3}{-8}"),
    ("-3/8", r"-\frac38"),
    ("6/3", "2"),
    ("0.25", "25/100"),
    (".35625", "0.35625"),
    ("1.25", r"\frac{5}{4}"),
    ("0.125", "1/8"),
    (r"\frac{1.5}{3}", "0.5"),
    (r"\frac{\frac{1}{2}}{3}", "1/6"),
    // mixed numbers
    (r"1\frac{4}{5}", r"\frac{9}{5}"),
    (r"137 \frac{1}{2}", "137.5"),
    (r"-1\frac{1}{2}", "-1.5"),
    ("3 1/2", "7/2"),
    (r"2\frac12", "2.5"),
    // percentages
    (r"50\%", "0.5"),
    ("50%", r"\frac12"),
    (r"12.5\%", "1/8"),
    (r"50 \%", "50%"),
    // expressions
    ("2^3", "8"),
    ("2^{10}", "1024"),
    ("2^10", "1024"),
    ("2^{-1}", "0.5"),
    ("-2^2", "-4"),
    ("(-2)^2", "4"),
    (r"2\cdot3", "6"),
    (r"2 \times 3", "6"),
    ("2×3", "6"),
    (r"6 \div 4", "1.5"),
    ("1+2*3", "7"),
    ("(1+2)*3", "9"),
    ("2(3)", "6"),
    ("(2)(3)", "6"),
    ("1 - 1/2", "1/2"),
    (r"6.72 \times 10^{-5}", ".0000672"),
    (r"\sqrt{16}", "4"),
    (r"\sqrt4", "2"),
    (r"\sqrt{\frac{4}{9}}", r"\frac23"),
    (r"2\sqrt{25}", "10"),
    (r"\frac{\sqrt{9}}{2}", "1.5"),
    (r"\left(\frac{1}{2}\right)^2", "0.25"),
    ("3²", "9"),
    // LaTeX spelling of what is no number
    (r"11\sqrt2", r"11\sqrt{2}"),
    (r"70 \sqrt{2}", r"70\sqrt{2}"),
    (r"7\cdot\sqrt{2}", r"7\sqrt{2}"),
    (r"\frac{\pi}{2}", r"\dfrac{\pi}{2}"),
    (r"\pi/2", r"\frac{\pi}{2}"),
    ("π", r"\pi"),
    ("2π", r"2 \pi"),
    (r"-\frac{\pi}{6}", r"\frac{-\pi}{6}"),
    ("x^2+3x-6", "x^{2} + 3x - 6"),
    (r"\frac{x+1}{2}", "(x+1)/2"),
    (r"\left(x+1\right)", "x+1"),
    (r"4210_{5}", "4210_5"),
    (r"1 \pm \sqrt{19}", r"1\pm\sqrt{19}"),
    ("x^{0.5}", r"x^{\frac{1}{2}}"),
    (r"(a+5)(b+2)", r"(a + 5) (b + 2)"),
    ("6+9i", "6 + 9i"),
    // tuples, intervals, sets, matrices
    ("(3,4)", r"\left( 3, 4 \right)"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"),
    ("(1/2, 0.5)", r"(0.5,\frac12)"),
    ("(1,234)", "(1, 234)"),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(3/5, 8/3]"),
    (
        r"(-\infty, 2) \cup (3, \infty)",
        r"(-\infty,2)\cup(3,\infty)",
    ),
    ("(-∞,0]", r"(-\infty, 0]"),
    ("1,-2", "-2, 1"),
    ("3, 5, 7", "7,5,3"),
    (r"1 \text{ and } -2", "1,-2"),
    ("1 \\text{ or } -2", "-2,1"),
    (r"\{1,2\}", r"\left\{ 2, 1 \right\}"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1 \pm \sqrt5\}"),
    (
        r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}",
        r"\begin{pmatrix} -\frac13 \\ \frac23 \end{pmatrix}",
    ),
    (
        r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}",
        r"\begin{bmatrix} -1&0\\0&-1\\ \end{bmatrix}",
    ),
    // equations: side by side
    ("y = 2x + 3", "y=2x+3"),
    ("x=1/2", r"x = \frac{1}{2}"),
    (r"x \in [-2,7]", r"x\in[-2, 7]"),
    (r"x \le 3", r"x \leq 3"),
    ("x≥0", r"x \geqslant 0"),
    // units
    (r"90^\circ", "90"),
    (r"90^{\circ}", r"90^\circ"),
    ("90°", r"90^\circ"),
    (r"90\degree", r"90 \text{ degrees}"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"5.4 \text{ cents}", "5.4"),
    (r"15\mbox{ cm}^2", "15"),
    (r"864 \mbox{ inches}^2", r"864 \text{ square inches}"),
    (r"15 \text{ cm}^{2}", r"15 \mathrm{cm}^2"),
    (r"\$18.90", "18.9"),
    ("$18.90$", r"\$18.90"),
    (r"\$5", r"5 \text{ dollars}"),
    ("5 miles", r"5\text{ mile}"),
    (r"3\sqrt{2}\text{ cm}", r"3\sqrt2"),
    // words
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{even}", "Even"),
    (r"\text{(C)}", "C"),
    (r"\textbf{(C)}", "(C)"),
    ("No", "no"),
    ("No solution", r"\text{no solution}"),
    (r"\mathrm{east}", "East."),
    // beyond 128 bits: as text
    ("10^{100}", "10^{100}"),
    (
        "123456789012345678901234567890123456789012345",
        "123456789012345678901234567890123456789012345",
    ),
];

/// Pairs that are different answers.
const DIFFERENT: &[(&str, &str)] = &[
    // no tolerance, no factor of 100
    ("0.5", "50"),
    (r"50\%", "50"),
    ("0.05", "0.5"),
    ("0.333", "1/3"),
    ("0.3333333333333333", r"\frac13"),
    ("3.14", r"\pi"),
    ("1.4142", r"\sqrt2"),
    ("1000", "1000.1"),
    ("10000000", "10000001"),
    ("0.9999999", "1"),
    ("1e3", "1000"),
    // sign, order, digits
    ("5", "-5"),
    ("5", "6"),
    ("12", "21"),
    ("1 2", "12"),
    ("10 080", "10080"),
    ("1/2", "2/1"),
    (r"\frac12", r"\frac21"),
    (r"\frac{1}{2}", "12"),
    (r"2\frac{3}{x}", r"\frac{23}{x}"),
    (r"1\frac{4}{5}", r"\frac{4}{5}"),
    (r"1\frac{4}{5}", r"\frac{14}{5}"),
    ("1.5", "15"),
    ("0.5", "5"),
    ("1,23", "123"),
    ("12,34", "1234"),
    ("0,123", "123"),
    ("1234,567", "1234567"),
    // powers and roots
    ("2^3", "6"),
    ("-2^2", "4"),
    ("2^{3}", "23"),
    ("x^2", "x2"),
    ("x^2", "2x"),
    ("x_2", "x^2"),
    (r"\sqrt{2}", "2"),
    (r"\sqrt{8}", r"\sqrt{2}"),
    (r"\sqrt[3]{8}", r"\sqrt{8}"),
    ("0^0", "1"),
    ("1/0", "2/0"),
    ("10^{100}", "10^{101}"),
    ("1/2004!", "1/2006!"),
    ("5!", "5"),
    // number bases
    ("52_8", "52"),
    ("204_5", "204_6"),
    // text
    ("x", "y"),
    ("a", "A"),
    ("AB", "ab"),
    (r"\text{east}", r"\text{west}"),
    (r"\text{(C)}", r"\text{(D)}"),
    ("x=5", "5"),
    ("x=5", "y=5"),
    ("x<5", "x>5"),
    (r"x \leq 5", "x<5"),
    ("n=2,3,4", "n=1,2,3"),
    ("1-1/e", "1+1/e"),
    (r"\pm 2021", "2021"),
    (r"1 \pm \sqrt{19}", r"1 + \sqrt{19}"),
    ("2k+2", "2k-2"),
    ("2k", "2"),
    ("5a", "5"),
    ("5 m", "5"),
    (r"\frac{1}{2x}", r"\frac{1}{2}x"),
    (r"\frac{x}{y+1}", r"\frac{x}{y}+1"),
    (r"\frac{x+1}{2}", r"x+\frac{1}{2}"),
    (r"\sin 30^\circ", r"\sin 30"),
    (r"\cot x", r"\tan x"),
    // tuples, intervals, sets, matrices
    ("(3,4)", "(4,3)"),
    ("(3,4)", "[3,4]"),
    ("(3,4]", "(3,4)"),
    ("(3,4)", "3.4"),
    ("(1,234)", "1234"),
    ("1,2", "1,2,3"),
    ("1,1,2", "1,2,2"),
    ("1,-2", "(1,-2)"),
    (r"\{1,2\}", "(1,2)"),
    ("3", "3,3"),
    (r"(2,12) \cup (12,102)", "(2,102)"),
    (r"(-\infty,2)", r"(-\infty,2]"),
    (
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}",
    ),
    (
        r"\begin{pmatrix} 1 & 2 \end{pmatrix}",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
    ),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", "(1,2)"),
    // units, when both are stated
    (r"5\text{ cm}", r"5\text{ m}"),
    (r"5 \text{ cents}", r"\$5"),
    (r"15\text{ cm}^2", r"15\text{ cm}"),
    (r"90^\circ", r"90 \text{ cm}"),
    // nothing, and broken braces
    ("", "0"),
    ("", "x"),
    ("{5", "5"),
    ("5}", "5"),
    (r"\frac{1}{2", "1/2"),
];

#[test]
fn pairs_are_judged_both_ways() {
    assert!(EQUAL.len() + DIFFERENT.len() >= 120);
    let mut failures = Vec::new();
    let equal = EQUAL.iter().map(|pair| (pair, true));
    for (&(a, b), want) in equal.chain(DIFFERENT.iter().map(|pair| (pair, false))) {
        let key = |x| Strict.canonical(x);
        for (a, b) in [(a, b), (b, a)] {
            if Strict.equivalent(a, b) != want {
                failures.push(format!(
                    "{a:?} ({}) and {b:?} ({}): not {want}",
                    key(a),
                    key(b)
                ));
            }
        }
        if want && key(a) != key(b) {
            failures.push(format!("{a:?} and {b:?} would not vote together"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} wrong:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Noise of bytes and of LaTeX fragments: the grader ends, never panics, finds every answer
/// equal to itself, and is symmetric.
#[test]
fn any_input_is_graded() {
    const PIECES: &[&str] = &[
        "1",
        "23",
        "0",
        ".",
        ",",
        "x",
        "pi",
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
        "\\text{",
        "\\text{ cm}",
        "^",
        "_",
        "-",
        "+",
        "*",
        "/",
        "%",
        "\\%",
        "\\$",
        "$",
        "=",
        "\\cup",
        "\\left",
        "\\right.",
        "\\begin",
        "{pmatrix}",
        "\\end",
        "&",
        "\\\\",
        "^\\circ",
        "\\,",
        ",\\!",
        "é",
        "²",
        "\u{0}",
        "\\boxed{",
        "99999999999999999999",
        "^99",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut previous = String::new();
    for round in 0..60_000 {
        let length = random(24);
        let text: String = match round % 3 {
            0 => {
                let bytes: Vec<u8> = (0..length).map(|_| random(256) as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => (0..length).map(|_| PIECES[random(PIECES.len())]).collect(),
        };
        let _ = Strict.answer(&text);
        assert!(Strict.equivalent(&text, &text), "{text:?} is not itself");
        assert_eq!(
            Strict.equivalent(&text, &previous),
            Strict.equivalent(&previous, &text),
            "{text:?} and {previous:?}"
        );
        previous = text;
    }
}

#[test]
fn deep_and_long_answers_end_quickly() {
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
        "x".repeat(1_000_000),
    ];
    let start = std::time::Instant::now();
    for answer in &answers {
        assert!(Strict.equivalent(answer, answer));
        assert!(!Strict.equivalent(answer, "2"));
    }
    assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
}
