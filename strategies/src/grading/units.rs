//! Units of measure at the end (or, for a currency, the start) of an answer.

use super::exact::Fuel;
use super::expression::{is_circ, is_function, value};
use super::latex::Node;

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
    &["mph", "miles per hour"],
    &["liter", "liters", "litre", "litres"],
    &[
        "milliliter",
        "milliliters",
        "millilitre",
        "millilitres",
        "ml",
    ],
    &[PERCENT, "pct"],
    &["radian", "radians", "rad"],
];

/// The unit of `50\%`: the one that has a value.
pub(super) const PERCENT: &str = "percent";

/// Splits an answer into its quantity and its unit, if it has one at its end or, for a currency, at
/// its start. The word "units" is ignored.
pub(super) fn split(nodes: Vec<Node>, fuel: &Fuel) -> (Vec<Node>, Option<String>) {
    let is_value = |nodes: &[Node]| value(nodes, true, fuel).is_some();
    // in \sin 30^\circ the degrees are the argument's
    let is_angle = |nodes: &[Node]| !nodes.iter().any(|n| is_function(n) || is_circ(n));
    let currency = |node: &Node| match node {
        Node::Command(name) if name == "$" => Some("dollar"),
        Node::Char('€') => Some("euro"),
        Node::Char('£') => Some("pound sterling"),
        _ => None,
    };
    match nodes.as_slice() {
        [sign, rest @ ..] | [rest @ .., sign] if !rest.is_empty() && currency(sign).is_some() => {
            // "\$5 million" or "\$5 \text{dollars}" is 5 of something all the same
            let (core, more) = split_word(rest.to_vec(), fuel);
            let unit = currency(sign).map(String::from);
            return match more.as_deref() {
                None | Some("dollar" | "euro") => (core, unit),
                Some(_) => (rest.to_vec(), unit),
            };
        }
        [Node::Char('-'), sign, rest @ ..] if !rest.is_empty() && currency(sign).is_some() => {
            let negative = std::iter::once(Node::Char('-')).chain(rest.iter().cloned());
            return (negative.collect(), currency(sign).map(String::from));
        }
        [core @ .., Node::Char('^'), circ] if is_circ(circ) && is_angle(core) && is_value(core) => {
            return (core.to_vec(), Some("degree".into()));
        }
        [core @ .., Node::Char('^'), circ, scale] if is_circ(circ) && is_value(core) => {
            let scale = match scale {
                Node::Char(c @ ('C' | 'F')) => Some(c.to_string()),
                Node::Text(text) if text == "C" || text == "F" => Some(text.clone()),
                _ => None,
            };
            if let Some(scale) = scale {
                return (core.to_vec(), Some(format!("degree {scale}")));
            }
        }
        [core @ .., Node::Char('%')] if is_value(core) => {
            return (core.to_vec(), Some(PERCENT.into()));
        }
        _ => {}
    }
    split_word(nodes, fuel)
}

/// A unit written as a word.
fn split_word(nodes: Vec<Node>, fuel: &Fuel) -> (Vec<Node>, Option<String>) {
    let (body, power) = match nodes.as_slice() {
        [body @ .., Node::Char('^'), exponent] => (body, exponent_of(exponent)),
        body => (body, Some(1)),
    };
    let (Some((core, word)), Some(power)) = (trailing_word(body, fuel), power) else {
        return (nodes, None);
    };
    let (name, power) = match word.split_once(' ') {
        Some(("square" | "sq" | "sq.", rest)) => (rest, 2),
        Some(("cubic" | "cu" | "cu.", rest)) => (rest, 3),
        _ => (word.as_str(), power),
    };
    if matches!(name, "unit" | "units") {
        return (core.to_vec(), None);
    }
    let name = match known(name) {
        Some(name) => name,
        None => match name.strip_suffix('s').filter(|rest| rest.len() >= 3) {
            Some(one) => one,
            None => name,
        },
    };
    let unit = match power {
        1 => name.to_string(),
        power => format!("{name}^{power}"),
    };
    (core.to_vec(), Some(unit))
}

fn known(name: &str) -> Option<&'static str> {
    let names = NAMES.iter().find(|names| names.contains(&name));
    names.map(|names| names[0])
}

/// A quantity and the word after it: any `\text{}`; a plain word that is a known unit of at least
/// two letters (one letter may be a variable); or any word after a number and a space.
fn trailing_word<'a>(nodes: &'a [Node], fuel: &Fuel) -> Option<(&'a [Node], String)> {
    let quantity = |nodes: &[Node]| {
        nodes.iter().any(|n| match n {
            Node::Number(_) => true,
            Node::Command(name) => matches!(name.as_str(), "frac" | "sqrt" | "pi"),
            _ => false,
        })
    };
    if let [core @ .., Node::Text(word)] = nodes {
        let letters = word.chars().all(|c| c.is_alphabetic() || " ./".contains(c));
        // (A) of \text{(A)} 5 is a choice; the letters of 1A_{\text{sixteen}} an index
        let index = matches!(core.last(), Some(Node::Char('_' | '^' | '=')));
        let word = word.trim_end_matches('.').to_lowercase();
        return (letters && !index && quantity(core)).then_some((core, word));
    }
    let is_word = |n: &Node| matches!(n, Node::Char(c) if c.is_alphabetic()) || *n == Node::Space;
    let start = nodes.iter().rposition(|n| !is_word(n))? + 1;
    let spaced = nodes.get(start) == Some(&Node::Space);
    let word: String = nodes[start..]
        .iter()
        .map(|n| match n {
            Node::Char(c) => *c,
            _ => ' ',
        })
        .collect();
    let written = word.trim();
    let word = written.to_lowercase();
    let name = word
        .split_once(' ')
        .map_or(word.as_str(), |(first, rest)| match first {
            "square" | "sq" | "cubic" | "cu" => rest,
            _ => &word,
        });
    let unit = known(name).is_some() || matches!(name, "unit" | "units");
    let noun = spaced
        && matches!(nodes.get(start - 1), Some(Node::Number(_)))
        && written.split(' ').all(|w| w.len() >= 3)
        && written.chars().all(|c| c.is_lowercase() || c == ' ');
    let is_unit = name.len() >= 2 && (unit || noun);
    (is_unit && value(&nodes[..start], true, fuel).is_some())
        .then(|| (&nodes[..start], word.clone()))
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
