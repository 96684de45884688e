//! What brackets hold: tuples, intervals, sets; and what joins sets.

use super::answer::{Answer, chain, separators, single, split};
use super::exact::Fuel;
use super::latex::{Node, closes, opens};
use super::lists::{is_separator, list, parts_of, unordered};
use super::sets;
use super::text;

/// Unions, and other operations on sets.
pub(super) fn joined(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let operation = |node: &Node| ["cup", "cap", "setminus"].iter().any(|name| node.is(name));
    let minus = with_difference(nodes);
    let nodes = minus.as_deref().unwrap_or(nodes);
    let pieces = split(nodes, operation);
    if pieces.len() < 2 {
        return None;
    }
    let between = separators(nodes, &pieces);
    let items: Vec<Answer> = (pieces.iter())
        .map(|piece| list(piece, depth + 1, fuel))
        .collect();
    if let Some(set) = sets::operations(&between, &items, fuel) {
        return Some(set);
    }
    if between.iter().all(|s| s == "\\cup") {
        return Some(unordered(items, true));
    }
    Some(chain(between, items))
}

/// `\mathbb{R}-\{2\}` as a difference of sets.
fn with_difference(nodes: &[Node]) -> Option<Vec<Node>> {
    nodes.first().filter(|n| n.is("mathbb"))?;
    let minus = |pair: &[Node]| pair[0] == Node::Char('-') && pair[1].is("{");
    let at = nodes.windows(2).position(minus)?;
    let mut nodes = nodes.to_vec();
    nodes[at] = Node::Command("setminus".into());
    Some(nodes)
}

/// Tuples, intervals, sets; plain brackets around one part are ignored.
pub(super) fn in_brackets(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let [open, inner @ .., close] = nodes else {
        return match nodes {
            [Node::Command(name)] if name == "emptyset" => Some(sets::empty()),
            _ => None,
        };
    };
    if !encloses(nodes) {
        return None;
    }
    let (open, close) = (text::of(open), text::of(close));
    if open == "\\{" && close == "\\}" {
        return Some(set(inner, depth, fuel));
    }
    let pieces = split(inner, is_separator);
    let matrix = open == "[" && matches!(inner, [Node::Rows(..)]);
    if pieces.len() == 1 && !inner.is_empty() && (open == "(" && close == ")" || matrix) {
        return Some(single(inner, depth + 1, fuel));
    }
    let items: Vec<Answer> = pieces
        .iter()
        .map(|piece| single(piece, depth + 1, fuel))
        .collect();
    // [x = 1, y = 2] names its parts
    let mut labels: Vec<&str> = items.iter().filter_map(|i| i.label.as_deref()).collect();
    labels.sort_unstable();
    labels.dedup();
    if items.len() > 1 && labels.len() == items.len() {
        let bare = items.iter().map(|item| Answer {
            label: None,
            ..item.clone()
        });
        let key = Answer::sequence("(", ")", bare.collect()).key; // it votes with the bare point
        return Some(Answer {
            key,
            ..unordered(items, false)
        });
    }
    Some(Answer::sequence(&open, &close, items))
}

/// The content of `\{ \}`.
fn set(inner: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    if let Some(set) = sets::builder(inner, depth, fuel) {
        return set;
    }
    let mut items = parts_of(&split(inner, is_separator), depth + 1, fuel);
    let mut seen = std::collections::HashSet::new();
    items.retain(|item| {
        let unit = item.unit.as_ref().map(|unit| unit.key.clone());
        seen.insert((item.key.clone(), item.label.clone(), unit))
    });
    if items.iter().any(|item| item.key == "\\ldots") {
        return chain(vec![",".into(); items.len() - 1], items);
    }
    match items.is_empty() {
        true => sets::empty(),
        false => unordered(items, false),
    }
}

/// Whether the first node is a bracket that the last one closes.
pub(super) fn encloses(nodes: &[Node]) -> bool {
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

/// Open ends as they are written in Europe, ]0, 1[ and [0, 1[, with round brackets instead; other
/// nodes as they are.
pub(super) fn outward_brackets(nodes: Vec<Node>) -> Vec<Node> {
    if is_balanced(&nodes) && !ends_outward(&nodes) {
        return nodes;
    }
    let mut turned = nodes.clone();
    let mut start = None;
    for at in 0..turned.len() {
        let (open, bracket) = match (&start, &turned[at]) {
            (None, Node::Char('(' | ')')) | (Some(_), Node::Char('(')) => return nodes,
            (None, Node::Char('[')) => (true, '['),
            (None, Node::Char(']')) => (true, '('),
            (Some(_), Node::Char(']')) => (false, ']'),
            (Some(_), Node::Char('[' | ')')) => (false, ')'),
            _ => continue,
        };
        turned[at] = Node::Char(bracket);
        if open {
            start = Some(at);
            continue;
        }
        let from = start.take().unwrap_or_default();
        let commas = turned[from..at]
            .iter()
            .filter(|n| matches!(n, Node::Char(',' | ';')));
        if commas.count() != 1 {
            return nodes;
        }
    }
    if start.is_none() { turned } else { nodes }
}

/// Whether a `[` stands where only the end of an interval can: behind a number, with nothing that
/// it opens behind it.
fn ends_outward(nodes: &[Node]) -> bool {
    let after_value = |at: usize| {
        at > 0
            && match &nodes[at - 1] {
                Node::Number(_) | Node::Group(_) => true,
                Node::Char(c) => c.is_alphabetic(),
                node => node.is("infty") || node.is("pi"),
            }
    };
    let before_next = |at: usize| match nodes.get(at + 1) {
        None | Some(Node::Char(',' | ';') | Node::Word(_)) => true,
        Some(node) => node.is("cup") || node.is("cap"),
    };
    (0..nodes.len()).any(|at| nodes[at] == Node::Char('[') && after_value(at) && before_next(at))
}

fn is_balanced(nodes: &[Node]) -> bool {
    let mut open: Vec<char> = Vec::new();
    for node in nodes {
        match node {
            Node::Char(c @ ('(' | '[')) => open.push(*c),
            Node::Char(')' | ']') if open.pop().is_none() => return false,
            _ => {}
        }
    }
    open.is_empty()
}
