//! Units of measure at the end (or, for a currency, the start) of an answer.

use super::latex::Node;
use super::value::value;

/// Unit words, each line one unit under its first name.
const NAMES: &[&[&str]] = &[
    &["degree", "degrees", "deg"],
    &["dollar", "dollars", "usd"],
    &["cent", "cents"],
    &["inch", "inches", "in"],
    &["foot", "feet", "ft"],
    &["yard", "yards", "yd"],
    &["mile", "miles", "mi"],
    &[
        "millimeter",
        "millimeters",
        "millimetre",
        "millimetres",
        "mm",
    ],
    &[
        "centimeter",
        "centimeters",
        "centimetre",
        "centimetres",
        "cm",
    ],
    &["meter", "meters", "metre", "metres", "m"],
    &["kilometer", "kilometers", "kilometre", "kilometres", "km"],
    &["gram", "grams", "g"],
    &["kilogram", "kilograms", "kg"],
    &["pound", "pounds", "lb", "lbs"],
    &["ounce", "ounces", "oz"],
    &["second", "seconds", "sec", "s"],
    &["minute", "minutes", "min"],
    &["hour", "hours", "hr", "hrs", "h"],
    &["day", "days"],
    &["week", "weeks"],
    &["year", "years", "yr", "yrs"],
    &["unit", "units"],
    &["mph", "miles per hour"],
];

/// Splits an answer into what is measured and its unit, if it ends in one.
pub(super) fn split(mut nodes: Vec<Node>) -> (Vec<Node>, Option<String>) {
    if nodes.len() > 1 && nodes[0] == Node::Command("$".into()) {
        nodes.remove(0);
        return (nodes, Some("dollar".into()));
    }
    if let [core @ .., Node::Char('^'), circ] = nodes.as_slice()
        && is_circ(circ)
        && value(core).is_some()
    {
        return (core.to_vec(), Some("degree".into()));
    }
    let (body, power) = match nodes.as_slice() {
        [body @ .., Node::Char('^'), exponent] => (body, exponent_of(exponent)),
        body => (body, Some(1)),
    };
    let (Some((core, word)), Some(power)) = (trailing_word(body), power) else {
        return (nodes, None);
    };
    let (name, power) = match word.split_once(' ') {
        Some(("square" | "sq" | "sq.", rest)) => (rest, 2),
        Some(("cubic", rest)) => (rest, 3),
        _ => (word.as_str(), power),
    };
    let known = NAMES
        .iter()
        .find(|names| names.contains(&name))
        .map(|names| names[0]);
    let unit = match power {
        1 => known.unwrap_or(name).to_string(),
        power => format!("{}^{power}", known.unwrap_or(name)),
    };
    (core.to_vec(), Some(unit))
}

/// A quantity and the word after it: any `\text{}`, or a plain word that is a known unit of at
/// least two letters (one letter may be a variable).
fn trailing_word(nodes: &[Node]) -> Option<(&[Node], String)> {
    let quantity = |nodes: &[Node]| {
        nodes.iter().any(|n| match n {
            Node::Number(_) => true,
            Node::Command(name) => matches!(name.as_str(), "frac" | "sqrt" | "pi"),
            _ => false,
        })
    };
    if let [core @ .., Node::Text(word)] = nodes {
        let letters = word.chars().all(|c| c.is_alphabetic() || " ./".contains(c));
        return (letters && quantity(core)).then(|| (core, word.to_lowercase()));
    }
    let is_word = |n: &Node| matches!(n, Node::Char(c) if c.is_alphabetic()) || *n == Node::Space;
    let start = nodes.iter().rposition(|n| !is_word(n))? + 1;
    let word: String = nodes[start..]
        .iter()
        .map(|n| match n {
            Node::Char(c) => *c,
            _ => ' ',
        })
        .collect();
    let word = word.trim().to_lowercase();
    let name = word
        .split_once(' ')
        .map_or(word.as_str(), |(first, rest)| match first {
            "square" | "sq" | "cubic" => rest,
            _ => &word,
        });
    let known = name.len() >= 2 && NAMES.iter().any(|names| names.contains(&name));
    (known && value(&nodes[..start]).is_some()).then(|| (&nodes[..start], word.clone()))
}

fn is_circ(node: &Node) -> bool {
    match node {
        Node::Command(name) => name == "circ",
        Node::Group(inner) => matches!(inner.as_slice(), [Node::Command(c)] if c == "circ"),
        _ => false,
    }
}

fn exponent_of(node: &Node) -> Option<u8> {
    let digits = match node {
        Node::Number(digits) => digits,
        Node::Group(inner) => match inner.as_slice() {
            [Node::Number(digits)] => digits,
            _ => return None,
        },
        _ => return None,
    };
    digits.parse().ok()
}
