//! Answers without a value, words among them, as text: fractions as a/b, arguments in normal form,
//! redundant product signs left out, words in lower case.

use super::exact::Fuel;
use super::expression::value;
use super::latex::{MAX_DEPTH, Node};
use super::words::are_variables;

/// The nodes as words in lower case and without an article, if they are words only: three
/// letters or more, so that xy stays a product.
pub(super) fn as_words(nodes: &[Node]) -> Option<String> {
    let mut text = String::new();
    let mut written = false; // in \text{}, or too long for variables
    for node in nodes {
        match node {
            Node::Word(word) => {
                written |= word.chars().count() >= 2 && word.chars().any(char::is_lowercase);
                text += word;
            }
            Node::Char(c) if c.is_alphabetic() || (!text.is_empty() && "-'".contains(*c)) => {
                text.push(*c);
            }
            Node::Space => text.push(' '),
            _ => return None,
        }
    }
    let text = text.trim();
    let letters = |word: &str| word.chars().filter(|c| c.is_alphabetic()).count();
    let product = |word: &str| are_variables(&word.chars().collect::<Vec<_>>());
    let has_word = (text.split(' ')).any(|word| letters(word) >= 3 && !product(word));
    let difference = text.contains(['-', '\'']) && text.split(['-', '\'']).any(|w| w.len() < 3);
    if ["no", "up"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
    {
        return Some(text.to_lowercase());
    }
    if !written && (difference || !has_word) {
        return None;
    }
    let lower = text.to_lowercase();
    let bare = ["a ", "an ", "the "]
        .iter()
        .find_map(|a| lower.strip_prefix(a));
    Some(bare.unwrap_or(&lower).to_string())
}

/// Any nodes as text.
pub(super) fn render(nodes: &[Node], fuel: &Fuel) -> String {
    rendered(nodes, 0, fuel)
}

fn form(nodes: &[Node], depth: usize, fuel: &Fuel) -> String {
    match value(nodes, true, fuel) {
        Some(value) => value.key(),
        None => rendered(nodes, depth, fuel),
    }
}

fn rendered(nodes: &[Node], depth: usize, fuel: &Fuel) -> String {
    if depth > MAX_DEPTH {
        return nodes.iter().map(of).collect();
    }
    let mut out = String::new();
    let mut at = 0;
    let mut after_command = false;
    while let Some(node) = nodes.get(at) {
        at += 1;
        let piece = match node {
            Node::Command(name) if name == "frac" => {
                let (top, bottom) = (argument(nodes, &mut at), argument(nodes, &mut at));
                let brackets = |nodes: &[Node]| {
                    let text = form(nodes, depth + 1, fuel);
                    if nodes.len() > 1 {
                        format!("({text})")
                    } else {
                        text
                    }
                };
                format!("{}/{}", brackets(top), brackets(bottom))
            }
            Node::Char(c @ ('^' | '_')) => {
                format!("{c}{{{}}}", form(argument(nodes, &mut at), depth + 1, fuel))
            }
            Node::Char('*') => {
                let between = at > 1 && at < nodes.len();
                let digits = matches!(nodes.get(at), Some(Node::Number(_) | Node::Char('*')));
                if digits || !between {
                    "*".into()
                } else {
                    String::new()
                }
            }
            Node::Char(c) if c.is_alphabetic() => {
                let letters = nodes[at - 1..].iter().map_while(|n| match n {
                    Node::Char(c) if c.is_alphabetic() => Some(*c),
                    _ => None,
                });
                let word: String = letters.collect();
                at += word.chars().count() - 1;
                lower_case(&word)
            }
            Node::Word(word) => lower_case(word),
            Node::Space if is_idle(nodes, at - 1) => String::new(),
            Node::Group(inner) => {
                let group = form(inner, depth + 1, fuel);
                format!("{{{group}}}")
            }
            Node::Rows(kind, rows) => table(kind, rows, depth, fuel),
            node => of(node),
        };
        let letter_next = piece.starts_with(|c: char| c.is_ascii_alphabetic());
        if after_command && letter_next {
            out.push(' '); // \cot x
        }
        after_command = matches!(node, Node::Command(name) if name != "frac");
        let ends_in_digit = out.ends_with(|c: char| c.is_ascii_digit());
        if ends_in_digit && piece.starts_with(|c: char| c.is_ascii_digit()) {
            out.push('*'); // 2\frac{3}{x} is not 23/x
        }
        out += &piece;
    }
    out
}

fn table(kind: &str, rows: &[Vec<Vec<Node>>], depth: usize, fuel: &Fuel) -> String {
    let row = |row: &Vec<Vec<Node>>| {
        let cells = row.iter().map(|cell| form(cell, depth + 1, fuel));
        cells.collect::<Vec<_>>().join(" & ")
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!("{kind}({})", rows.join("; "))
}

/// Whether the space at `at` parts neither words nor numbers: "x y" is xy, but "3 4" is not 34.
fn is_idle(nodes: &[Node], at: usize) -> bool {
    let beside = [at.checked_sub(1), Some(at + 1)].map(|at| at.and_then(|at| nodes.get(at)));
    let word = beside.iter().any(|n| matches!(n, Some(Node::Word(_))));
    let numbers = beside.iter().all(|n| matches!(n, Some(Node::Number(_))));
    !word && !numbers
}

/// The argument at `at`: the content of its braces, or one node.
fn argument<'a>(nodes: &'a [Node], at: &mut usize) -> &'a [Node] {
    *at += 1;
    nodes.get(*at - 1).map_or(&[], |node| match node {
        Node::Group(inner) => inner,
        node => std::slice::from_ref(node),
    })
}

/// Words lose their case; capitals alone may be names and keep it.
fn lower_case(word: &str) -> String {
    if word.chars().count() > 1 && word.chars().any(char::is_lowercase) {
        word.to_lowercase()
    } else {
        word.into()
    }
}

/// One node as it is printed.
pub(super) fn of(node: &Node) -> String {
    match node {
        Node::Number(digits) => digits.clone(),
        Node::Char(c) => c.to_string(),
        Node::Command(name) => format!("\\{name}"),
        Node::Word(text) => text.clone(),
        Node::Group(inner) => inner.iter().map(of).collect(),
        Node::Rows(kind, rows) => {
            let cells = rows
                .iter()
                .flatten()
                .map(|cell| cell.iter().map(of).collect());
            format!("{kind}({})", cells.collect::<Vec<String>>().join(" "))
        }
        Node::Space => " ".into(),
    }
}
