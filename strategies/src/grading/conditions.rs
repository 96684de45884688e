//! Conditions after the answer: what n or k may be, in "2k\pi, k\in\mathbb{Z}" or "any integer n".

use super::answer::trimmed;
use super::latex::Node;
use super::text;

/// The answer without the conditions behind it, and the conditions. Only a letter of the answer can
/// have one, and only what says that it is any number of a kind is one.
pub(super) fn without<'a>(parts: &[&'a [Node]]) -> (usize, Option<String>) {
    let mut kept = parts.len();
    let mut found = Vec::new();
    while kept > 1 {
        let Some((letter, kind)) = condition(trimmed(parts[kept - 1])) else {
            break;
        };
        let named = |nodes: &&'a [Node]| mentions(nodes, letter);
        if !parts[..kept - 1].iter().any(named) {
            break;
        }
        found.push(format!("{letter} {kind}"));
        kept -= 1;
    }
    found.sort();
    (kept, (!found.is_empty()).then(|| found.join(", ")))
}

/// The answer before "where k is an integer" or "(k\in\mathbb{Z})", and the condition.
pub(super) fn behind(nodes: &[Node]) -> Option<(&[Node], String)> {
    let open = |node: &Node| *node == Node::Char('(') || is_introduction(node);
    let at = nodes.iter().rposition(open).filter(|at| *at > 0)?;
    let (letter, kind) = condition(trimmed(&nodes[at..]))?;
    let answer = trimmed(&nodes[..at]);
    mentions(answer, letter).then(|| (answer, format!("{letter} {kind}")))
}

fn is_introduction(node: &Node) -> bool {
    ["where", "for", "with", "when"]
        .iter()
        .any(|word| node.says(word))
        || node.is("forall")
}

/// The letter and the kind of number that it may be.
fn condition(nodes: &[Node]) -> Option<(char, String)> {
    let (nodes, any) = introduced(nodes);
    let letter = |node: &Node| match node {
        Node::Char(c) if c.is_alphabetic() => Some(*c),
        Node::Word(word) if word.chars().count() == 1 => word.chars().next(),
        _ => None,
    };
    let of_kind = |nodes: &[Node]| kind(nodes);
    match nodes {
        [Node::Char('('), inner @ .., Node::Char(')')] => condition(inner),
        [first, sign, set @ ..] if sign.is("in") => Some((letter(first)?, of_set(set)?)),
        // n any integer, n is an integer
        [first, Node::Space, rest @ ..] if letter(first).is_some() && !any => {
            let rest = match rest {
                [verb, Node::Space, rest @ ..] if verb.says("is") || verb.says("are") => rest,
                [Node::Char('i'), Node::Char('s'), Node::Space, rest @ ..] => rest,
                rest => rest,
            };
            Some((letter(first)?, of_kind(introduced(rest).0)?))
        }
        // any integer n
        [rest @ .., Node::Space, last] if any => Some((letter(last)?, of_kind(rest)?)),
        _ => None,
    }
}

/// Without "where", "for any" and the like; whether there was one of them.
fn introduced(nodes: &[Node]) -> (&[Node], bool) {
    let mut rest = trimmed(nodes);
    let mut any = false;
    while let [word, Node::Space, more @ ..] = rest
        && [
            "where", "for", "with", "any", "all", "every", "some", "an", "when", "each",
        ]
        .iter()
        .any(|w| word.says(w))
    {
        any |= ["any", "all", "every", "some", "each"]
            .iter()
            .any(|w| word.says(w));
        rest = more;
    }
    if let [Node::Char('a'), Node::Char('n'), Node::Space, more @ ..] = rest {
        rest = more;
    }
    while let [word, more @ ..] = rest
        && word.is("forall")
    {
        (rest, any) = (more, true);
    }
    (rest, any)
}

/// "integer", "natural numbers".
fn kind(nodes: &[Node]) -> Option<String> {
    let words = text::as_words(nodes)?;
    let words = words.strip_prefix("arbitrary ").unwrap_or(&words);
    Some(match words {
        "integer" | "integers" => "Z".into(),
        "natural number" | "natural numbers" | "positive integer" | "positive integers" => {
            "N".into()
        }
        "real number" | "real numbers" | "real" | "reals" => "R".into(),
        _ => return None,
    })
}

/// `\mathbb{Z}` with its sign.
fn of_set(nodes: &[Node]) -> Option<String> {
    let (set, sign) = match nodes {
        [bb, Node::Group(set), sign @ ..] if bb.is("mathbb") || bb.is("mathbf") => {
            (text::of(set.first()?), sign)
        }
        [bb, set, sign @ ..] if bb.is("mathbb") => (text::of(set), sign),
        [
            set @ (Node::Char('Z' | 'N' | 'R') | Node::Word(_)),
            sign @ ..,
        ] => (text::of(set), sign),
        _ => return None,
    };
    let known = ["Z", "N", "Q", "R", "C"].contains(&set.as_str());
    let sign: String = sign.iter().map(text::of).collect();
    known.then(|| match (set.as_str(), sign.as_str()) {
        ("Z", "^+" | "_+" | "^*") => "N".into(),
        _ => format!("{set}{sign}"),
    })
}

fn mentions(nodes: &[Node], letter: char) -> bool {
    nodes.iter().any(|node| match node {
        Node::Char(c) => *c == letter,
        Node::Word(word) => word.chars().eq(std::iter::once(letter)),
        Node::Group(inner) => mentions(inner, letter),
        Node::Rows(_, rows) => rows.iter().flatten().any(|cell| mentions(cell, letter)),
        _ => false,
    })
}
