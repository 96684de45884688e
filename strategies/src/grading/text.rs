//! Answers without a value, words among them, as text: fractions as a/b, arguments in normal form,
//! redundant product signs left out, words in lower case.

use super::exact::Fuel;
use super::expression::value;
use super::latex::{MAX_DEPTH, Node, parse};

/// Text that is not a unit is read like the rest: `\text{(C)}` is (C).
pub(super) fn words(nodes: Vec<Node>, depth: usize) -> Vec<Node> {
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

/// The nodes as words in lower case and without an article, if they are words only: three
/// letters or more, so that xy stays a product.
pub(super) fn as_words(nodes: &[Node]) -> Option<String> {
    let mut text = String::new();
    for node in nodes {
        match node {
            Node::Char(c) if c.is_alphabetic() || (!text.is_empty() && "-'".contains(*c)) => {
                text.push(*c);
            }
            Node::Space => text.push(' '),
            _ => return None,
        }
    }
    let text = text.trim();
    let has_word = text
        .split(' ')
        .any(|word| word.chars().filter(|c| c.is_alphabetic()).count() >= 3);
    let difference = text.contains(['-', '\'']) && text.split(['-', '\'']).any(|w| w.len() < 3);
    if text.eq_ignore_ascii_case("no") {
        return Some("no".into());
    }
    if !has_word || difference {
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
            Node::Group(inner) => {
                let group = form(inner, depth + 1, fuel);
                format!("{{{group}}}")
            }
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

/// The argument at `at`: the content of its braces, or one node.
fn argument<'a>(nodes: &'a [Node], at: &mut usize) -> &'a [Node] {
    *at += 1;
    nodes.get(*at - 1).map_or(&[], |node| match node {
        Node::Group(inner) => inner,
        node => std::slice::from_ref(node),
    })
}

/// Words lose their case; short runs of capitals may be products of variables and keep it.
fn lower_case(word: String) -> String {
    let mut letters = word.chars().skip(1);
    let title = word.chars().count() > 1 && letters.all(char::is_lowercase);
    if word.chars().count() >= 3 || title {
        word.to_lowercase()
    } else {
        word
    }
}

/// One node as it is printed.
pub(super) fn of(node: &Node) -> String {
    match node {
        Node::Number(digits) => digits.clone(),
        Node::Char(c) => c.to_string(),
        Node::Command(name) => format!("\\{name}"),
        Node::Text(text) => text.clone(),
        Node::Group(inner) => inner.iter().map(of).collect(),
        Node::Space => " ".into(),
    }
}
