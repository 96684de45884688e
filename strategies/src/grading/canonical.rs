//! The canonical form of an answer: equal answers, equal texts.

use super::latex::{MAX_DEPTH, Node, closes, opens, parse};
use super::units;
use super::value::value;

/// Longer answers are compared as they stand.
const MAX_LENGTH: usize = 4096;

/// The canonical form and the unit of an answer.
pub(super) fn canonical(answer: &str) -> (String, Option<String>) {
    let trimmed = answer.trim();
    if trimmed.len() > MAX_LENGTH {
        return (trimmed.into(), None);
    }
    let Some(mut nodes) = parse(trimmed) else {
        return (trimmed.into(), None);
    };
    match nodes.last_mut() {
        Some(Node::Char('.')) => drop(nodes.pop()),
        Some(Node::Number(digits)) if digits.ends_with('.') => drop(digits.pop()),
        _ => {}
    }
    let (nodes, unit) = units::split(nodes);
    (form(&words(nodes, 0), 0), unit)
}

/// Text that is no unit is read like the rest: `\text{(C)}` is (C).
fn words(nodes: Vec<Node>, depth: usize) -> Vec<Node> {
    let mut out = Vec::with_capacity(nodes.len());
    for node in nodes {
        match node {
            Node::Text(text) if depth < MAX_DEPTH => {
                let inner = parse(&text).unwrap_or_else(|| text.chars().map(Node::Char).collect());
                out.extend(words(inner, depth + 1));
            }
            Node::Group(inner) => out.push(Node::Group(words(inner, depth + 1))),
            node => out.push(node),
        }
    }
    out
}

/// The canonical form of a part.
fn form(nodes: &[Node], depth: usize) -> String {
    if let Some(value) = value(nodes) {
        return value.to_string();
    }
    if depth > MAX_DEPTH {
        return format!("{nodes:?}");
    }
    if let [Node::Group(inner)] = nodes {
        return form(inner, depth + 1);
    }
    if let Some(matrix) = matrix(nodes, depth) {
        return matrix;
    }
    let is_comma = |n: &Node| *n == Node::Char(',');
    let parts = split_outside_brackets(nodes, is_comma);
    if parts.len() > 1 {
        return sorted(&parts, depth);
    }
    for separates in [is_relation as fn(&Node) -> bool, is_union] {
        let parts = split_outside_brackets(nodes, separates);
        if parts.len() > 1 {
            return joined_with_separators(nodes, &parts, depth);
        }
    }
    if let [open, inner @ .., close] = nodes
        && encloses(nodes)
    {
        let parts = split_outside_brackets(inner, is_comma);
        let set = *open == Node::Command("{".into());
        let plain = (open, close) == (&Node::Char('('), &Node::Char(')'));
        if plain && parts.len() == 1 && !inner.is_empty() {
            return form(inner, depth + 1);
        }
        let forms: Vec<String> = parts.iter().map(|part| form(part, depth + 1)).collect();
        let body = if set {
            sorted(&parts, depth)
        } else {
            forms.join(",")
        };
        return format!("{}{body}{}", text_of(open), text_of(close));
    }
    render(nodes, depth)
}

/// Parts whose order says nothing.
fn sorted(parts: &[&[Node]], depth: usize) -> String {
    let mut forms: Vec<String> = parts.iter().map(|part| form(part, depth + 1)).collect();
    forms.sort();
    forms.join(",")
}

fn joined_with_separators(nodes: &[Node], parts: &[&[Node]], depth: usize) -> String {
    let mut out = String::new();
    let mut at = 0;
    for part in parts {
        out += &form(part, depth + 1);
        at += part.len();
        if let Some(separator) = nodes.get(at) {
            out += &text_of(separator);
        }
        at += 1;
    }
    out
}

fn is_relation(node: &Node) -> bool {
    match node {
        Node::Char(c) => matches!(c, '=' | '<' | '>' | ':'),
        Node::Command(name) => matches!(name.as_str(), "leq" | "geq" | "neq" | "in"),
        _ => false,
    }
}

fn is_union(node: &Node) -> bool {
    matches!(node, Node::Command(name) if name == "cup" || name == "cap")
}

/// The parts between separators that stand in no brackets.
fn split_outside_brackets(nodes: &[Node], separates: impl Fn(&Node) -> bool) -> Vec<&[Node]> {
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

/// `\begin{pmatrix} a & b \\ c & d \end{pmatrix}`, cell by cell; the kind of bracket is spelling.
fn matrix(nodes: &[Node], depth: usize) -> Option<String> {
    let is = |node: &Node, name: &str| *node == Node::Command(name.into());
    let [begin, Node::Group(_), cells @ .., end, Node::Group(_)] = nodes else {
        return None;
    };
    if !is(begin, "begin") || !is(end, "end") || cells.iter().any(|n| is(n, "begin")) {
        return None;
    }
    let rows = cells.split(|n| is(n, "\\")).filter(|row| !row.is_empty());
    let rows = rows.map(|row| {
        let cells = row
            .split(|n| *n == Node::Char('&'))
            .map(|cell| form(cell, depth + 1));
        cells.collect::<Vec<_>>().join("&")
    });
    Some(format!("matrix({})", rows.collect::<Vec<_>>().join(";")))
}

/// Everything else, as text: fractions as a/b, arguments in canonical form, idle product signs
/// left out, words in lower case.
fn render(nodes: &[Node], depth: usize) -> String {
    let mut out = String::new();
    let mut at = 0;
    let mut after_command = false;
    while let Some(node) = nodes.get(at) {
        at += 1;
        let piece = match node {
            Node::Command(name) if name == "frac" => {
                let (numerator, denominator) = (argument(nodes, &mut at), argument(nodes, &mut at));
                let top = in_brackets(form(numerator, depth + 1), is_sum(numerator));
                let bottom = in_brackets(form(denominator, depth + 1), denominator.len() > 1);
                format!("{top}/{bottom}")
            }
            Node::Command(name) if name == "sqrt" && nodes.get(at) != Some(&Node::Char('[')) => {
                format!("\\sqrt{{{}}}", form(argument(nodes, &mut at), depth + 1))
            }
            Node::Char(c @ ('^' | '_')) => {
                format!("{c}{{{}}}", form(argument(nodes, &mut at), depth + 1))
            }
            Node::Char('*') => {
                let digits = matches!(nodes.get(at), Some(Node::Number(_)));
                if digits { "*".into() } else { String::new() }
            }
            Node::Char(c) if c.is_alphabetic() => {
                let letters = nodes[at - 1..].iter().map_while(|n| match n {
                    Node::Char(c) if c.is_alphabetic() => Some(*c),
                    _ => None,
                });
                let word: String = letters.collect();
                at += word.chars().count() - 1;
                lower_case(word)
            }
            Node::Group(inner) => form(inner, depth + 1),
            node => text_of(node),
        };
        let letter_next = piece.starts_with(|c: char| c.is_ascii_alphabetic());
        if after_command && letter_next {
            out.push(' '); // \cot x
        }
        after_command = matches!(node, Node::Command(name) if name != "frac" && name != "sqrt");
        let ends_in_digit = out.ends_with(|c: char| c.is_ascii_digit());
        if ends_in_digit && piece.starts_with(|c: char| c.is_ascii_digit()) {
            out.push('*'); // 2\frac{3}{x} is not 23/x
        }
        out += &piece;
    }
    out
}

/// The argument at `at`: what is in its braces, or one node.
fn argument<'a>(nodes: &'a [Node], at: &mut usize) -> &'a [Node] {
    *at += 1;
    nodes.get(*at - 1).map_or(&[], |node| match node {
        Node::Group(inner) => inner,
        node => std::slice::from_ref(node),
    })
}

fn is_sum(nodes: &[Node]) -> bool {
    nodes.iter().skip(1).any(|n| match n {
        Node::Char(c) => matches!(c, '+' | '-'),
        Node::Command(name) => name == "pm",
        _ => false,
    })
}

fn in_brackets(text: String, needed: bool) -> String {
    if needed { format!("({text})") } else { text }
}

/// Words lose their case; short runs of capitals may be products of variables and keep it.
fn lower_case(word: String) -> String {
    let mut letters = word.chars().skip(1);
    let title = word.len() > 1 && letters.all(char::is_lowercase);
    match word.chars().count() >= 3 || title {
        true => word.to_lowercase(),
        false => word,
    }
}

/// One node as it is printed.
fn text_of(node: &Node) -> String {
    match node {
        Node::Number(digits) => plain_number(digits),
        Node::Char(c) => c.to_string(),
        Node::Command(name) => format!("\\{name}"),
        Node::Text(text) => text.clone(),
        Node::Group(inner) => inner.iter().map(text_of).collect(),
        Node::Space => " ".into(),
    }
}

/// A number without idle zeros.
fn plain_number(digits: &str) -> String {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    match fraction.trim_end_matches('0') {
        "" => whole.into(),
        fraction => format!("{whole}.{fraction}"),
    }
}
