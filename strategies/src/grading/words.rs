//! What a run of letters is: a name, a word, or a product of variables.
//!
//! Words are not products of variables: "boys" is not b·o·s·y, and IV is not VI. In `\text{}`
//! every run is a word. Elsewhere a run is a product only if it looks like one:
//!
//! - one or two letters, not both capitals (`xy`, `Ax`);
//! - letters of a to d, or of w to z, in order or not (`abcd`, `zyx`), or three to five letters
//!   that follow each other (`pqr`);
//! - three small letters in the order of the alphabet (`inx`), in which products are written, or
//!   without a vowel (`mgh`), unless they are a unit (`lbs`) or a common word ("not").
//!
//! Capitals side by side are one name, in their order: `AB` is a segment, `IV` a number.

use super::latex::Node;
use super::unit_table;

/// Names that are written without a backslash, or in `\operatorname{}`, and their commands.
const NAMES: [(&str, &str); 33] = [
    ("pi", "pi"),
    ("sqrt", "sqrt"),
    ("infinity", "infty"),
    ("infty", "infty"),
    ("inf", "infty"),
    ("sin", "sin"),
    ("cos", "cos"),
    ("tan", "tan"),
    ("cot", "cot"),
    ("sec", "sec"),
    ("csc", "csc"),
    ("arcsin", "arcsin"),
    ("arccos", "arccos"),
    ("arctan", "arctan"),
    ("arccot", "arccot"),
    ("sinh", "sinh"),
    ("cosh", "cosh"),
    ("tanh", "tanh"),
    ("ln", "ln"),
    ("lg", "lg"),
    ("log", "log"),
    ("exp", "exp"),
    ("cis", "cis"),
    ("mod", "mod"),
    ("theta", "theta"),
    ("alpha", "alpha"),
    ("beta", "beta"),
    ("gcd", "gcd"),
    ("lcm", "lcm"),
    ("frac", "frac"),
    ("arg", "arg"),
    ("det", "det"),
    ("binom", "binom"),
];

/// Words whose letters are in the order of the alphabet.
const ORDERED_WORDS: [&str; 42] = [
    "act", "age", "aim", "air", "ant", "any", "art", "ask", "begin", "below", "bet", "bit", "box",
    "boy", "buy", "chin", "chip", "city", "cost", "dirt", "dot", "dry", "empty", "first", "fit",
    "fix", "flow", "fly", "for", "forty", "fox", "got", "him", "his", "hit", "hot", "how", "know",
    "lot", "most", "not", "now",
];

/// The command that a word stands for; `call` if a bracket follows it.
pub(super) fn command(word: &str, call: bool) -> Option<&'static str> {
    match word {
        "max" if call => Some("max"),
        "min" if call => Some("min"),
        _ => NAMES
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, c)| *c),
    }
}

/// The nodes of a run of letters outside of text.
pub(super) fn of_run(run: &str) -> Vec<Node> {
    let letters: Vec<char> = run.chars().collect();
    let small = letters.iter().filter(|c| c.is_lowercase()).count();
    let word = || vec![Node::Word(run.into())];
    let product = || letters.iter().map(|c| Node::Char(*c)).collect();
    match letters.len() {
        0 | 1 => product(),
        2 if run == "or" => word(),
        length if small == 0 => {
            if length > 0 {
                word()
            } else {
                product()
            }
        }
        2 => product(),
        length if small == length => {
            let listed = ORDERED_WORDS.contains(&run) || is_unit(run);
            if is_product(&letters) && !listed {
                product()
            } else {
                word()
            }
        }
        // Axy and nRT, but Bob is a name
        3 => {
            let first_only = small == 2 && letters[0].is_uppercase();
            if first_only && !are_variables(&letters[1..]) {
                word()
            } else {
                by_case(&letters)
            }
        }
        _ => word(),
    }
}

/// Whether small letters are a product.
fn is_product(letters: &[char]) -> bool {
    let next = |pair: &[char]| pair[0] as u32 + 1 == pair[1] as u32;
    let vowel = letters.iter().any(|c| "aeiouy".contains(*c));
    (are_variables(letters) && (letters.len() > 3 || in_order(letters) || !letters.contains(&'a')))
        || (letters.len() <= 5 && letters.windows(2).all(next))
        || (letters.len() == 3 && (in_order(letters) || !vowel))
}

/// Whether all are letters that stand for variables, side by side.
pub(super) fn are_variables(letters: &[char]) -> bool {
    let among = |set: &str| letters.iter().all(|c| set.contains(*c));
    among("abcd") || among("wxyz")
}

fn in_order(letters: &[char]) -> bool {
    letters.windows(2).all(|pair| pair[0] < pair[1])
}

fn is_unit(run: &str) -> bool {
    run.len() >= 2 && unit_table::known(run).is_some()
}

/// Capitals side by side as one name, the rest as variables: nRT.
fn by_case(letters: &[char]) -> Vec<Node> {
    let runs = letters.chunk_by(|a, b| a.is_uppercase() && b.is_uppercase());
    runs.map(|run| match run {
        [letter] => Node::Char(*letter),
        capitals => Node::Word(capitals.iter().collect()),
    })
    .collect()
}

/// Whether a word stands between two answers.
pub(super) fn is_conjunction(node: &Node) -> bool {
    node.says("and") || node.says("or")
}
