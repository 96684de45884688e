//! The shape of an answer: a value, a quantity, a tuple, a set, an equation, words, or unread.
//!
//! What is read goes through these steps, each in a file of its own:
//!
//! 1. LaTeX to nodes, decorations and spellings gone (`latex.rs`, `commands.rs`, `unicode.rs`,
//!    `numbers.rs`, `words.rs`);
//! 2. what stands around the answer: an equals sign or ≈ before it, a condition on n after it
//!    (`conditions.rs`);
//! 3. lists to parts (`lists.rs`);
//! 4. of a part: time of day, choice (`choices.rs`), label and relation (`labels.rs`,
//!    `relation.rs`), matrix (`matrix.rs`), quantity (`quantity.rs`, `units.rs`), brackets and sets
//!    (`brackets.rs`, `sets.rs`), words (`text.rs`), and at last an expression (`expression.rs`).

use super::bases::based_number;
use super::brackets::{in_brackets, joined, outward_brackets};
use super::choices::choice;
use super::exact::{Frac, Fuel, Sum};
use super::expression::value;
use super::latex::{MAX_DEPTH, Node, closes, opens, parse};
use super::lists::{has_choice, is_separator, list};
use super::matrix::matrix;
use super::quantity;
use super::relation::relation;
use super::sets;
use super::text;
use super::units::Unit;

/// Longer answers are compared as text, unchanged.
const MAX_LENGTH: usize = 4096;

/// An answer, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Its label: the `x` of `x = 5` or of `x \in [0, 1]`.
    pub(super) label: Option<String>,
    /// Its unit of measure, or what it counts.
    pub(super) unit: Option<Unit>,
    /// The letter of `\textbf{(C)}\ 12`.
    pub(super) choice: Option<char>,
    /// What a letter of it may be: `k\in\mathbb{Z}`.
    pub(super) condition: Option<String>,
    /// Its shape.
    pub(super) body: Body,
    /// Equal bodies that are written alike have equal keys.
    pub(super) key: String,
}

/// The shapes.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A number or an expression.
    Value(Frac),
    /// Words, a time of day, a number in a base; the key is the text.
    Text,
    /// What no rule reads. It is equal to itself alone, spelling aside; the key is the text.
    Unread,
    /// A tuple, an interval, a ratio: parts in order.
    Sequence {
        open: String,
        close: String,
        items: Vec<Answer>,
    },
    /// A list or set: parts in any order, kept in the order of the answer.
    Collection(Vec<Answer>),
    /// Sets joined by `\cup`, in any order.
    Union(Vec<Answer>),
    /// Rows of cells.
    Matrix(Vec<Vec<Answer>>),
    /// An equation: left side minus right side, up to a factor.
    Equation(Sum),
    /// Any other relation or operation: the operator between the parts, and the parts.
    Relation(Vec<String>, Vec<Answer>),
}

impl Answer {
    pub(super) fn new(body: Body, key: String) -> Answer {
        Answer {
            label: None,
            unit: None,
            choice: None,
            condition: None,
            body,
            key,
        }
    }

    pub(super) fn unread(nodes: &[Node], fuel: &Fuel) -> Answer {
        Answer::new(Body::Unread, text::render(nodes, fuel))
    }

    /// Its key, marked where no rule reads the answer.
    pub(super) fn form(&self) -> String {
        match self.is_unread() {
            true => format!("? {}", self.key),
            false => self.key.clone(),
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        matches!(self.body, Body::Unread)
    }

    pub(super) fn value(value: Frac) -> Answer {
        let key = value.key();
        Answer::new(Body::Value(value), key)
    }

    pub(super) fn sequence(open: &str, close: &str, items: Vec<Answer>) -> Answer {
        // an end at infinity is open: [-oo, 0] can only mean (-oo, 0]
        let infinite =
            |item: Option<&Answer>| item.is_some_and(|item| item.key.ends_with("\\infty"));
        let pair = items.len() == 2;
        let open = if pair && open == "[" && infinite(items.first()) {
            "("
        } else {
            open
        };
        let close = if pair && close == "]" && infinite(items.last()) {
            ")"
        } else {
            close
        };
        let key = format!("{open}{}{close}", keys(&items, false).join(","));
        let (open, close) = (open.into(), close.into());
        Answer::new(Body::Sequence { open, close, items }, key)
    }

    /// Reads an answer. Any text has some shape.
    pub(super) fn read(answer: &str, fuel: &Fuel) -> Answer {
        let trimmed = answer.trim();
        let as_it_stands = || Answer::new(Body::Unread, trimmed.into());
        if trimmed.len() > MAX_LENGTH {
            return as_it_stands();
        }
        // "5\ " is 5 and a space, but "5\" is no LaTeX
        let cut = trimmed
            .strip_suffix('\\')
            .filter(|_| !answer.ends_with('\\'));
        let Some(nodes) = parse(cut.unwrap_or(trimmed)) else {
            return as_it_stands();
        };
        let nodes = outward_brackets(nodes);
        match around(&nodes) {
            [] => as_it_stands(),
            nodes => list(nodes, 0, fuel),
        }
    }
}

/// The keys of parts; `owned` with their labels and units.
pub(super) fn keys(items: &[Answer], owned: bool) -> Vec<String> {
    (items.iter())
        .map(|item| match (&item.label, &item.unit) {
            (Some(label), _) => format!("{label}={}", item.key),
            (None, Some(unit)) if owned => format!("{} {}", item.key, unit.key),
            _ => item.key.clone(),
        })
        .collect()
}

/// The answer without what says only how it was got: `= 5`, `\approx 5`, "about 5".
pub(super) fn around(nodes: &[Node]) -> &[Node] {
    const NEAR: [&str; 6] = [
        "about",
        "approximately",
        "approx",
        "roughly",
        "around",
        "circa",
    ];
    let mut nodes = trimmed(nodes);
    loop {
        nodes = match nodes {
            [Node::Char('=' | '≈' | '≒' | '~'), rest @ ..] if !rest.is_empty() => trimmed(rest),
            [Node::Command(sign), rest @ ..]
                if matches!(sign.as_str(), "approx" | "sim") && !rest.is_empty() =>
            {
                trimmed(rest)
            }
            [word, rest @ ..] if NEAR.iter().any(|near| word.says(near)) && has_number(rest) => {
                trimmed(rest)
            }
            nodes => return nodes,
        };
    }
}

fn has_number(nodes: &[Node]) -> bool {
    nodes.iter().any(|n| matches!(n, Node::Number(_)))
}

/// A part that is not a list.
pub(super) fn single(nodes: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    let nodes = around(nodes);
    if depth > MAX_DEPTH || fuel.take(1 + nodes.len() as u64).is_none() {
        return Answer::unread(nodes, fuel);
    }
    if let [Node::Group(inner)] = nodes {
        return list(inner, depth + 1, fuel);
    }
    if let Some(text) = quantity::time(nodes).or_else(|| quantity::remainder(nodes)) {
        return Answer::new(Body::Text, text);
    }
    if let Some((letter, rest)) = choice(nodes) {
        let mut answer = list(rest, depth + 1, fuel);
        answer.choice = Some(letter);
        return answer;
    }
    if let Some(answer) = relation(nodes, depth, fuel) {
        return answer;
    }
    if let Some(answer) = matrix(nodes, depth, fuel) {
        return answer;
    }
    if let Some(answer) = quantity::together(nodes, fuel) {
        return answer;
    }
    let Some((core, unit)) = quantity::split(nodes, fuel) else {
        return part(nodes, depth, fuel);
    };
    let mut answer = part(&core, depth, fuel);
    if matches!(answer.body, Body::Unread) {
        return Answer::unread(nodes, fuel);
    }
    if answer.unit.is_none() {
        answer.unit = unit;
    }
    answer
}

/// A part without a unit, which may be a list once the unit is gone.
fn part(nodes: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    let nodes = trimmed(nodes);
    if split(nodes, is_separator).len() > 1 || has_choice(nodes) {
        list(nodes, depth + 1, fuel)
    } else {
        plain(nodes, depth, fuel)
    }
}

/// A part without a unit and without a relation.
fn plain(nodes: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    if let Some(answer) = joined(nodes, depth, fuel) {
        return answer;
    }
    if let Some(answer) = in_brackets(nodes, depth, fuel) {
        return answer;
    }
    if let Some(key) = based_number(nodes) {
        return Answer::new(Body::Text, key);
    }
    if let Some(answer) = residue(nodes, depth, fuel) {
        return answer;
    }
    if let Some(answer) = name(nodes) {
        return answer;
    }
    match value(nodes, true, fuel) {
        Some(value) => Answer::value(value),
        None => Answer::unread(nodes, fuel),
    }
}

/// Words, and the names of sets.
fn name(nodes: &[Node]) -> Option<Answer> {
    let words = text::as_words(nodes);
    let reals = match nodes {
        [Node::Command(bb), Node::Group(inner)] if bb == "mathbb" => {
            inner.as_slice() == [Node::Char('R')]
        }
        [Node::Command(bb), Node::Char('R')] => bb == "mathbb",
        _ => matches!(
            words.as_deref(),
            Some("all real numbers" | "all reals" | "real numbers" | "reals" | "all real number")
        ),
    };
    if reals {
        return Some(sets::reals());
    }
    words.map(|words| Answer::new(Body::Text, words))
}

/// `n \bmod 3`, `3 \pmod 7`.
fn residue(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let at = nodes.iter().position(|n| n.is("mod"))?;
    let (number, modulus) = match (&nodes[..at], &nodes[at + 1..]) {
        ([number @ .., Node::Char('(')], [modulus @ .., Node::Char(')')]) => (number, modulus),
        sides => sides,
    };
    if number.is_empty() || modulus.is_empty() || modulus.iter().any(|n| n.is("mod")) {
        return None;
    }
    let parts = [number, modulus].map(|part| list(part, depth + 1, fuel));
    Some(chain(vec![" mod ".into()], parts.into()))
}

/// Parts with operators between them.
pub(super) fn chain(between: Vec<String>, items: Vec<Answer>) -> Answer {
    let mut key = String::new();
    for (i, item) in items.iter().enumerate() {
        key += &item.key;
        key += between.get(i).map_or("", String::as_str);
    }
    Answer::new(Body::Relation(between, items), key)
}

/// The nodes between the pieces of a split, as text.
pub(super) fn separators(nodes: &[Node], pieces: &[&[Node]]) -> Vec<String> {
    let mut at = 0;
    let ends = pieces.iter().map(|piece| {
        at += piece.len() + 1;
        at - 1
    });
    ends.filter_map(|end| nodes.get(end))
        .map(text::of)
        .collect()
}

/// Without space and punctuation at its ends.
pub(super) fn trimmed(nodes: &[Node]) -> &[Node] {
    let mut nodes = nodes;
    while let [Node::Space, rest @ ..] = nodes {
        nodes = rest;
    }
    loop {
        nodes = match nodes {
            [rest @ .., Node::Space | Node::Char('.' | ',' | ';')] => rest,
            [rest @ .., last] if last.is("\\") => rest,
            nodes => return nodes,
        };
    }
}

/// The parts between separators outside of brackets.
pub(super) fn split(nodes: &[Node], separates: impl Fn(&Node) -> bool) -> Vec<&[Node]> {
    let mut parts = Vec::new();
    let (mut start, mut open) = (0, 0usize);
    for (at, node) in nodes.iter().enumerate() {
        if opens(node) {
            open += 1;
        } else if closes(node) {
            open = open.saturating_sub(1);
        } else if open == 0 && separates(node) {
            parts.push(&nodes[start..at]);
            start = at + 1;
        }
    }
    parts.push(&nodes[start..]);
    parts
}
