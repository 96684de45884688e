//! Lists: their parts, `\pm` as two of them, and what the parts share.

use super::answer::{Answer, Body, around, chain, keys, single, split, trimmed};
use super::conditions;
use super::exact::Fuel;
use super::latex::{MAX_DEPTH, Node};
use super::quantity;
use super::sets::{self, Joined};
use super::words::is_conjunction;

/// A list, if `nodes` are one, else its only part.
pub(super) fn list(nodes: &[Node], depth: usize, fuel: &Fuel) -> Answer {
    let nodes = around(nodes);
    if depth > MAX_DEPTH || fuel.take(nodes.len() as u64).is_none() {
        return Answer::unread(nodes, fuel);
    }
    if let Some((answer, condition)) = conditions::behind(nodes) {
        let mut answer = list(answer, depth + 1, fuel);
        answer.condition = Some(condition);
        return answer;
    }
    if let Some(answer) = quantity::together(nodes, fuel) {
        return answer;
    }
    let parts = split(nodes, is_separator);
    // "5 or" is cut, and no 5
    let last = parts.last().is_some_and(|part| trimmed(part).is_empty());
    if parts.len() > 1 && last && matches!(nodes.last(), Some(Node::Word(_) | Node::Command(_))) {
        return Answer::unread(nodes, fuel);
    }
    let joined = how_joined(nodes, &parts);
    let (kept, condition) = conditions::without(&parts);
    let mut items = parts_of(&parts[..kept], depth, fuel);
    let mut answer = match items.len() {
        0 => Answer::unread(nodes, fuel),
        1 => items.remove(0),
        _ => collection(items, joined, fuel),
    };
    answer.condition = answer.condition.or(condition);
    answer
}

/// The parts of a list; `\pm` makes two of one.
pub(super) fn parts_of(parts: &[&[Node]], depth: usize, fuel: &Fuel) -> Vec<Answer> {
    let mut items = Vec::new();
    for part in parts {
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
pub(super) fn has_choice(nodes: &[Node]) -> bool {
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

/// Whether the node parts the elements of a list.
pub(super) fn is_separator(node: &Node) -> bool {
    matches!(node, Node::Char(',' | ';'))
        || is_conjunction(node)
        || node.is("wedge")
        || node.is("vee")
        || node.is("\\")
}

/// How the parts of a list are joined: by one "or", by one "and", or by commas alone.
fn how_joined(nodes: &[Node], parts: &[&[Node]]) -> Joined {
    let mut at = 0;
    let mut joined = Joined::Comma;
    for part in parts {
        at += part.len();
        match nodes.get(at) {
            Some(node) if node.says("or") || node.is("vee") => return Joined::Or,
            Some(node) if node.says("and") || node.is("wedge") => joined = Joined::And,
            _ => {}
        }
        at += 1;
    }
    joined
}

/// Several parts. A label or unit they share is the label or unit of all.
fn collection(mut items: Vec<Answer>, joined: Joined, fuel: &Fuel) -> Answer {
    if let Some(answer) = one_quantity(&items) {
        return answer;
    }
    // in 1, 2, ..., n the order says what the dots stand for
    if items.iter().any(|item| item.key == "\\ldots") {
        return chain(vec![",".into(); items.len() - 1], items);
    }
    let mut labels: Vec<&str> = items.iter().filter_map(|i| i.label.as_deref()).collect();
    let every = labels.len() == items.len();
    labels.sort_unstable();
    labels.dedup();
    let shared = match labels.as_slice() {
        [one] => Some(one.to_string()),
        _ => None,
    };
    if shared.is_some() {
        items.iter_mut().for_each(|item| item.label = None);
    }
    let unit = items[0].unit.clone().filter(|unit| {
        let same = |item: &Answer| {
            item.unit
                .as_ref()
                .is_some_and(|other| other.key == unit.key)
        };
        items.iter().all(same)
    });
    if unit.is_some() {
        items.iter_mut().for_each(|item| item.unit = None);
    }
    let set = (shared.is_some() && every && unit.is_none())
        .then(|| sets::conditions(&items, joined, fuel))
        .flatten();
    let mut answer = match set {
        Some(set) => set,
        None => {
            let intervals = |item: &Answer| matches!(&item.body, Body::Sequence { .. });
            // x < a or x > b
            let union = shared.is_some() && every && items.iter().all(intervals);
            unordered(items, union && joined != Joined::And)
        }
    };
    answer.label = shared;
    answer.unit = unit;
    answer
}

/// "2 hours and 30 minutes", "5 feet, 6 inches": one quantity, if each part is less than one of the
/// unit before it.
fn one_quantity(items: &[Answer]) -> Option<Answer> {
    let parts = items.iter().map(|item| match (&item.body, &item.unit) {
        (Body::Value(value), Some(unit)) if item.label.is_none() => {
            Some((value.rational()?, unit.clone()))
        }
        _ => None,
    });
    let parts = parts.collect::<Option<Vec<_>>>()?;
    let less = parts.windows(2).all(|pair| {
        let ((_, large), (value, small)) = (&pair[0], &pair[1]);
        value * &small.factor < large.factor
    });
    less.then(|| quantity::sum(&parts)).flatten()
}

/// Parts in any order.
pub(super) fn unordered(items: Vec<Answer>, union: bool) -> Answer {
    let owned = items.len() > 1 && items.iter().all(|item| item.unit.is_some());
    let mut keys = keys(&items, owned);
    keys.sort();
    if union {
        Answer::new(Body::Union(items), keys.join(" cup "))
    } else if items.len() == 1 {
        Answer::new(Body::Collection(items), keys.remove(0))
    } else {
        Answer::new(Body::Collection(items), format!("{{{}}}", keys.join(",")))
    }
}
