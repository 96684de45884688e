//! The shape of an answer: a value, a tuple, a set, an equation, words.

use super::exact::{Frac, Fuel, Sum};
use super::expression::value;
use super::latex::{MAX_DEPTH, Node, closes, opens, parse};
use super::relation::relation;
use super::text;
use super::units;

/// Longer answers are compared as text, unchanged.
const MAX_LENGTH: usize = 4096;

/// An answer, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Its label: the `x` of `x = 5` or of `x \in [0, 1]`.
    pub(super) label: Option<String>,
    /// Its unit of measure.
    pub(super) unit: Option<String>,
    /// The letter of `\textbf{(C)}\ 12`.
    pub(super) choice: Option<char>,
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
    /// Words, and anything that has no other shape; the key is the text.
    Text,
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
            body,
            key,
        }
    }

    fn text(nodes: &[Node], fuel: &Fuel) -> Answer {
        Answer::new(Body::Text, text::render(nodes, fuel))
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
        let keys: Vec<&str> = items.iter().map(|item| item.key.as_str()).collect();
        let key = format!("{open}{}{close}", keys.join(","));
        let (open, close) = (open.into(), close.into());
        Answer::new(Body::Sequence { open, close, items }, key)
    }

    /// Reads an answer. Any text has some shape.
    pub(super) fn read(answer: &str, fuel: &Fuel) -> Answer {
        let trimmed = answer.trim();
        let as_it_stands = || Answer::new(Body::Text, trimmed.into());
        if trimmed.len() > MAX_LENGTH {
            return as_it_stands();
        }
        match parse(trimmed) {
            Some(nodes) => list(&nodes, 0, fuel),
            None => as_it_stands(),
        }
    }
}

/// A list, if `nodes` are one, else its only part.
pub(super) fn list(nodes: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    let nodes = trimmed(nodes);
    if depth > MAX_DEPTH || fuel.take(nodes.len() as u64).is_none() {
        return Answer::text(nodes, fuel);
    }
    let mut items = parts(nodes, depth, fuel);
    match items.len() {
        0 => Answer::text(nodes, fuel),
        1 => items.remove(0),
        _ => collection(items),
    }
}

/// The parts between commas; `\pm` makes two of one.
fn parts(nodes: &[Node], depth: usize, fuel: &Fuel) -> Vec<Answer> {
    let mut items = Vec::new();
    for part in split(nodes, is_comma) {
        let part = trimmed(part);
        if part.is_empty() {
            continue;
        }
        if has_choice(part) {
            items.push(single(&with_sign(part, true), depth, fuel));
            items.push(single(&with_sign(part, false), depth, fuel));
        } else {
            items.push(single(part, depth, fuel));
        }
    }
    items
}

/// Whether it contains `\pm`, outside of sets.
fn has_choice(nodes: &[Node]) -> bool {
    let mut sets = 0usize;
    nodes.iter().any(|node| match node {
        Node::Command(name) if name == "{" => {
            sets += 1;
            false
        }
        Node::Command(name) if name == "}" => {
            sets = sets.saturating_sub(1);
            false
        }
        Node::Command(name) => sets == 0 && (name == "pm" || name == "mp"),
        Node::Group(inner) => sets == 0 && has_choice(inner),
        _ => false,
    })
}

/// The nodes with one sign for every `\pm` and the other for every `\mp`.
fn with_sign(nodes: &[Node], upper: bool) -> Vec<Node> {
    (nodes.iter())
        .map(|node| match node {
            Node::Command(name) if name == "pm" => Node::Char(if upper { '+' } else { '-' }),
            Node::Command(name) if name == "mp" => Node::Char(if upper { '-' } else { '+' }),
            Node::Group(inner) => Node::Group(with_sign(inner, upper)),
            node => node.clone(),
        })
        .collect()
}

fn is_comma(node: &Node) -> bool {
    matches!(node, Node::Char(',' | ';'))
}

/// Several parts in any order. A label they share is the label of all.
fn collection(mut items: Vec<Answer>) -> Answer {
    let mut labels: Vec<&str> = items.iter().filter_map(|i| i.label.as_deref()).collect();
    labels.sort_unstable();
    labels.dedup();
    let label = match labels.as_slice() {
        [one] => Some(one.to_string()),
        _ => None,
    };
    if label.is_some() {
        items.iter_mut().for_each(|item| item.label = None);
    }
    let intervals = items
        .iter()
        .all(|item| matches!(&item.body, Body::Sequence { .. }));
    // x < 1 or x > 3
    let union = label.is_some() && intervals;
    let mut answer = unordered(items, union);
    answer.label = label;
    answer
}

fn unordered(items: Vec<Answer>, union: bool) -> Answer {
    let mut keys: Vec<String> = (items.iter())
        .map(|item| match &item.label {
            Some(label) => format!("{label}={}", item.key),
            None => item.key.clone(),
        })
        .collect();
    keys.sort();
    if union {
        Answer::new(Body::Union(items), keys.join(" cup "))
    } else if items.len() == 1 {
        Answer::new(Body::Collection(items), keys.remove(0))
    } else {
        Answer::new(Body::Collection(items), format!("{{{}}}", keys.join(",")))
    }
}

/// A part that is not a list.
fn single(nodes: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    let nodes = trimmed(nodes);
    if depth > MAX_DEPTH || fuel.take(1 + nodes.len() as u64).is_none() {
        return Answer::text(nodes, fuel);
    }
    if let [Node::Group(inner)] = nodes {
        return list(inner, depth + 1, fuel);
    }
    if let [Node::Text(word), rest @ ..] = nodes
        && !matches!(
            rest,
            [] | [Node::Char('+' | '*' | '/' | '=' | '^' | '_'), ..]
        )
        && let Some(letter) = choice_letter(word)
    {
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
    let (core, unit) = units::split(nodes.to_vec(), fuel);
    let core = text::words(core, 0);
    let core = trimmed(&core);
    let mut answer = if split(core, is_comma).len() > 1 || has_choice(core) {
        list(core, depth + 1, fuel)
    } else {
        plain(core, depth, fuel)
    };
    answer.unit = answer.unit.or(unit);
    answer
}

/// The C of (C), C), (C. and the like.
fn choice_letter(word: &str) -> Option<char> {
    let word = word.trim();
    let letter = word.trim_matches(|c: char| "().: ".contains(c));
    let mut letters = letter.chars();
    let first = letters.next().filter(|c| ('A'..='J').contains(c))?;
    (letters.next().is_none() && letter.len() < word.len()).then_some(first)
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
    if let Some(answer) = name(nodes) {
        return answer;
    }
    match value(nodes, true, fuel) {
        Some(value) => Answer::value(value),
        None => Answer::text(nodes, fuel),
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
        let infinity = Frac::symbol("\\infty");
        let ends = [infinity.negated(), infinity].map(Answer::value);
        return Some(Answer::sequence("(", ")", ends.into()));
    }
    words.map(|words| Answer::new(Body::Text, words))
}

/// Unions, and other operations on sets.
fn joined(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let operation = |node: &Node| matches!(node, Node::Command(name) if matches!(name.as_str(), "cup" | "cap" | "setminus"));
    let pieces = split(nodes, operation);
    if pieces.len() < 2 {
        return None;
    }
    let between = separators(nodes, &pieces);
    let items: Vec<Answer> = (pieces.iter())
        .map(|piece| list(piece, depth + 1, fuel))
        .collect();
    if between.iter().all(|s| s == "\\cup") {
        return Some(unordered(items, true));
    }
    Some(chain(between, items))
}

pub(super) fn chain(between: Vec<String>, items: Vec<Answer>) -> Answer {
    let mut key = String::new();
    for (i, item) in items.iter().enumerate() {
        key += &item.key;
        key += between.get(i).map_or("", String::as_str);
    }
    Answer::new(Body::Relation(between, items), key)
}

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

/// Tuples, intervals, sets; plain brackets around one part are ignored.
fn in_brackets(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let [open, inner @ .., close] = nodes else {
        return match nodes {
            [Node::Command(name)] if name == "emptyset" => {
                Some(Answer::new(Body::Collection(Vec::new()), "{}".into()))
            }
            _ => None,
        };
    };
    if !encloses(nodes) {
        return None;
    }
    let (open, close) = (text::of(open), text::of(close));
    if open == "\\{" && close == "\\}" {
        let mut items = parts(inner, depth + 1, fuel);
        let mut seen = std::collections::HashSet::new();
        items.retain(|item| seen.insert(item.key.clone()));
        return Some(if items.is_empty() {
            Answer::new(Body::Collection(items), "{}".into())
        } else {
            unordered(items, false)
        });
    }
    let pieces = split(inner, is_comma);
    let bracketed_matrix = open == "[" && matrix(trimmed(inner), depth, fuel).is_some();
    if pieces.len() == 1 && !inner.is_empty() && (open == "(" && close == ")" || bracketed_matrix) {
        return Some(single(inner, depth + 1, fuel));
    }
    let items = pieces.iter().map(|piece| list_item(piece, depth, fuel));
    Some(Answer::sequence(&open, &close, items.collect()))
}

fn list_item(nodes: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    single(nodes, depth + 1, fuel)
}

/// Digits and the base they are in.
fn based_number(nodes: &[Node]) -> Option<String> {
    let [core @ .., Node::Char('_'), base] = nodes else {
        return None;
    };
    let core = match core {
        [Node::Char('('), inner @ .., Node::Char(')')] => inner,
        core => core,
    };
    let mut digits = String::new();
    for node in core {
        match node {
            Node::Number(part) if !part.contains('.') => digits += part,
            Node::Char(c) if c.is_ascii_uppercase() => digits.push(*c),
            Node::Char('-') if digits.is_empty() => digits.push('-'),
            _ => return None,
        }
    }
    let words = [
        "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    ];
    let base = match text::of(base).as_str() {
        "sixteen" => "16".into(),
        word => match words.iter().position(|w| *w == word) {
            Some(index) => (index + 2).to_string(),
            None => word.to_string(),
        },
    };
    let number: u32 = base.parse().ok().filter(|base| (2..=36).contains(base))?;
    let has_digit = digits.contains(|c: char| c.is_ascii_digit());
    let fits = digits.chars().all(|c| c == '-' || c.is_digit(number));
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.as_str()),
    };
    let digits = match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    (has_digit && fits).then(|| format!("{sign}{digits}_{number}"))
}

/// `\begin{pmatrix} a & b \\ c & d \end{pmatrix}`, cell by cell; the kind of bracket is ignored,
/// unless it makes a determinant.
fn matrix(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let is = |node: &Node, name: &str| *node == Node::Command(name.into());
    let [begin, Node::Group(kind), cells @ .., end, Node::Group(_)] = nodes else {
        return None;
    };
    let kind: String = kind.iter().map(text::of).collect();
    let kinds = [
        "matrix",
        "pmatrix",
        "bmatrix",
        "Bmatrix",
        "smallmatrix",
        "array",
    ];
    if !is(begin, "begin") || !is(end, "end") || cells.iter().any(|n| is(n, "begin")) {
        return None;
    }
    if !kinds.contains(&kind.as_str()) || depth > MAX_DEPTH {
        return None;
    }
    let cells = match cells {
        [Node::Group(_), cells @ ..] if kind == "array" => cells,
        cells => cells,
    };
    let rows: Vec<Vec<Answer>> = (cells.split(|n| is(n, "\\")))
        .filter(|row| !trimmed(row).is_empty())
        .map(|row| {
            let cells = row.split(|n| *n == Node::Char('&'));
            cells.map(|cell| single(cell, depth + 1, fuel)).collect()
        })
        .collect();
    let keys = rows.iter().map(|row: &Vec<Answer>| {
        let cells: Vec<&str> = row.iter().map(|cell| cell.key.as_str()).collect();
        cells.join(" & ")
    });
    let key = format!("matrix({})", keys.collect::<Vec<_>>().join("; "));
    Some(Answer::new(Body::Matrix(rows), key))
}

/// Without space and punctuation at its ends.
pub(super) fn trimmed(nodes: &[Node]) -> &[Node] {
    let mut nodes = nodes;
    while let [Node::Space, rest @ ..] = nodes {
        nodes = rest;
    }
    while let [rest @ .., Node::Space | Node::Char('.' | ',' | ';')] = nodes {
        nodes = rest;
    }
    nodes
}

/// The parts between separators outside of brackets.
pub(super) fn split(nodes: &[Node], separates: impl Fn(&Node) -> bool) -> Vec<&[Node]> {
    let mut parts = Vec::new();
    let (mut start, mut open, mut environments) = (0, 0usize, 0usize);
    for (at, node) in nodes.iter().enumerate() {
        match node {
            Node::Command(name) if name == "begin" => environments += 1,
            Node::Command(name) if name == "end" => environments = environments.saturating_sub(1),
            _ => {}
        }
        if opens(node) {
            open += 1;
        } else if closes(node) {
            open = open.saturating_sub(1);
        } else if open == 0 && environments == 0 && separates(node) {
            parts.push(&nodes[start..at]);
            start = at + 1;
        }
    }
    parts.push(&nodes[start..]);
    parts
}

/// Whether the first node is a bracket that the last one closes.
fn encloses(nodes: &[Node]) -> bool {
    let mut open = 0usize;
    for (at, node) in nodes.iter().enumerate() {
        if opens(node) {
            open += 1;
        } else if closes(node) {
            open = open.saturating_sub(1);
        }
        if open == 0 {
            return at > 0 && at + 1 == nodes.len();
        }
    }
    false
}
