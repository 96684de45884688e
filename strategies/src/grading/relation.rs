//! Relations: `label = value`, inequalities as intervals, equations.

use super::answer::{Answer, Body, chain, separators, split, trimmed};
use super::exact::{Frac, Fuel};
use super::labels::{is_symbol, label};
use super::latex::Node;
use super::lists::{list, unordered};
use super::sets;

/// Equations, inequalities, memberships.
pub(super) fn relation(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let is_relation = |node: &Node| match node {
        Node::Char(c) => matches!(c, '=' | '<' | '>' | ':'),
        Node::Command(name) => matches!(
            name.as_str(),
            "leq"
                | "geq"
                | "neq"
                | "in"
                | "notin"
                | "approx"
                | "equiv"
                | "to"
                | "subset"
                | "mapsto"
                | "cong"
                | "sim"
                | "Rightarrow"
                | "iff"
        ),
        _ => false,
    };
    let mut sides = split(nodes, is_relation);
    if sides.len() < 2 {
        return None;
    }
    if let Some(union) = union_of_conditions(nodes, is_relation, depth, fuel) {
        return Some(union);
    }
    // "x =" is cut: no side may be missing
    if sides.iter().any(|side| trimmed(side).is_empty()) {
        return Some(Answer::unread(nodes, fuel));
    }
    let mut between = separators(nodes, &sides);
    // an approximate value follows the exact one
    let about = between.iter().position(|s| s == "\\approx");
    if let Some(about) = about.filter(|&about| about > 0 || label(sides[0]).is_none()) {
        sides.truncate(about + 1);
        between.truncate(about);
        if between.is_empty() {
            return Some(list(sides[0], depth + 1, fuel));
        }
    }
    let labels: Vec<Option<String>> = sides.iter().map(|side| label(side)).collect();
    let names: Vec<&str> = between.iter().map(String::as_str).collect();
    if let Some(answer) = with_label(&sides, &names, &labels, depth, fuel) {
        return Some(answer);
    }
    if let Some(points) = points(&sides, &names, depth, fuel) {
        return Some(points);
    }
    if names.iter().all(|s| *s == "=") {
        return Some(equation(&sides, &labels, depth, fuel));
    }
    if let Some(interval) = interval(&sides, &names, &labels, depth, fuel) {
        return Some(interval);
    }
    if let Some(set) = absolute(&sides, &names, fuel) {
        return Some(set);
    }
    Some(any_other(&sides, between, depth, fuel))
}

/// `x \leq -2 \cup x \geq 3`, which is "or".
fn union_of_conditions(
    nodes: &[Node],
    is_relation: impl Fn(&Node) -> bool,
    depth: usize,
    fuel: &Fuel,
) -> Option<Answer> {
    let pieces = split(nodes, |node| node.is("cup"));
    let conditions = pieces.iter().all(|piece| piece.iter().any(&is_relation));
    if pieces.len() < 2 || !conditions {
        return None;
    }
    let items = pieces.iter().map(|piece| list(piece, depth + 1, fuel));
    let mut items: Vec<Answer> = items.collect();
    let label = items[0].label.clone()?;
    (items.iter().all(|item| item.label.as_ref() == Some(&label))).then_some(())?;
    items.iter_mut().for_each(|item| item.label = None);
    let set = sets::conditions(&items, sets::Joined::Or, fuel)?;
    Some(labelled(set, &label))
}

/// What has a label without being an equation: `x \in [0, 1]`, `x \neq 2`, `n \equiv 3 \pmod 7`,
/// `f : x \mapsto x + 1`.
fn with_label(
    sides: &[&[Node]],
    names: &[&str],
    labels: &[Option<String>],
    depth: usize,
    fuel: &Fuel,
) -> Option<Answer> {
    let part = |side: &[Node]| list(side, depth + 1, fuel);
    match (names, labels) {
        (["\\in"] | ["\\approx"], [Some(name), _]) => Some(labelled(part(sides[1]), name)),
        (["\\equiv"], [Some(name), _]) if sides[1].iter().any(|n| n.is("mod")) => {
            Some(labelled(part(sides[1]), name))
        }
        (["\\neq"], [Some(name), _]) => {
            sets::all_but(&part(sides[1]), fuel).map(|set| labelled(set, name))
        }
        ([":", "\\mapsto"], [Some(f), Some(x), _]) => {
            Some(labelled(part(sides[2]), &format!("{f}({x})")))
        }
        _ => None,
    }
}

fn labelled(mut answer: Answer, name: &str) -> Answer {
    answer.label = Some(name.into());
    answer
}

/// `(x, y) = (1, 2)`, which names the parts, and `(x, y) \in \{...\}`.
fn points(sides: &[&[Node]], names: &[&str], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let [left, right] = sides else { return None };
    let left = trimmed(left);
    let [Node::Char('('), inner @ .., Node::Char(')')] = left else {
        return None;
    };
    let parts = split(inner, |n| *n == Node::Char(','));
    let coordinates: Vec<String> = (parts.iter())
        .map(|part| label(part))
        .collect::<Option<_>>()?;
    if coordinates.len() < 2 {
        return None;
    }
    let right = list(right, depth + 1, fuel);
    match (names, &right.body) {
        (["="], Body::Sequence { open, items, .. })
            if open == "(" && items.len() == coordinates.len() =>
        {
            let named = items.iter().zip(&coordinates);
            let named = named.map(|(item, name)| labelled(item.clone(), name));
            let key = right.key.clone(); // it votes with the bare point
            Some(Answer {
                key,
                ..unordered(named.collect(), false)
            })
        }
        (["="] | ["\\in"], _) => {
            let name = format!("({})", coordinates.join(","));
            Some(labelled(right, &name))
        }
        _ => None,
    }
}

/// What has no meaning of its own here: operators and sides.
fn any_other(sides: &[&[Node]], mut between: Vec<String>, depth: usize, fuel: &Fuel) -> Answer {
    let mut items: Vec<Answer> = (sides.iter())
        .map(|side| list(side, depth + 1, fuel))
        .collect();
    if between.iter().all(|s| *s == ":") {
        let ratio = Answer::sequence("", "", items);
        let key = ratio.key.replace(',', ":");
        return Answer { key, ..ratio };
    }
    // 3 > x is x < 3
    if between.iter().all(|s| matches!(s.as_str(), ">" | "\\geq")) {
        items.reverse();
        between.reverse();
        for sign in &mut between {
            *sign = if sign == ">" {
                "<".into()
            } else {
                "\\leq".into()
            };
        }
    }
    chain(between, items)
}

fn equation(sides: &[&[Node]], labels: &[Option<String>], depth: usize, fuel: &Fuel) -> Answer {
    let part = |side: &[Node]| list(side, depth + 1, fuel);
    let (names, rest) = match labels {
        [Some(name), ..] => (Some(name), &sides[1..]),
        [.., Some(name)] => (Some(name), &sides[..sides.len() - 1]),
        _ => (None, sides),
    };
    let mut items: Vec<Answer> = rest.iter().map(|side| part(side)).collect();
    if let Some(name) = names {
        // x = 1/2 = 0.5: all sides must agree
        let agree = items.windows(2).all(|pair| pair[0].key == pair[1].key);
        let last = items.pop().filter(|_| agree);
        return match last {
            Some(answer) => labelled(answer, name),
            None => chain(
                vec!["=".into(); sides.len() - 1],
                sides.iter().map(|s| part(s)).collect(),
            ),
        };
    }
    if items.windows(2).all(|pair| pair[0].key == pair[1].key) {
        // 1/2 = 0.5
        if let (Some(answer), true) = (items.pop(), items.iter().all(is_number)) {
            return answer;
        }
        items = rest.iter().map(|side| part(side)).collect();
    }
    if let [
        Answer {
            body: Body::Value(left),
            unit: None,
            ..
        },
        Answer {
            body: Body::Value(right),
            unit: None,
            ..
        },
    ] = items.as_slice()
        && (left.has_symbols() || right.has_symbols())
        && let Some(sum) = left.difference(right, fuel).and_then(|d| d.primitive(fuel))
    {
        let key = format!("{}=0", sum.key());
        return Answer::new(Body::Equation(sum), key);
    }
    chain(vec!["=".into(); items.len() - 1], items)
}

fn is_number(answer: &Answer) -> bool {
    matches!(&answer.body, Body::Value(value) if !value.has_symbols())
}

/// x < 3, 0 <= x < 1 and the like, as the interval they are.
fn interval(
    sides: &[&[Node]],
    names: &[&str],
    labels: &[Option<String>],
    depth: usize,
    fuel: &Fuel,
) -> Option<Answer> {
    let up = |sign: &str| matches!(sign, "<" | "\\leq");
    let down = |sign: &str| matches!(sign, ">" | "\\geq");
    let strict = |sign: &str| matches!(sign, "<" | ">");
    let end = |side: &[Node]| {
        let answer = list(side, depth + 1, fuel);
        matches!(answer.body, Body::Value(_)).then_some(answer)
    };
    let infinity = Frac::symbol("\\infty");
    let (name, low, high) = match (sides, names, labels) {
        ([_, a], [sign], [Some(name), None]) if up(sign) => {
            (name, None, Some((end(a)?, strict(sign))))
        }
        ([_, a], [sign], [Some(name), None]) if down(sign) => {
            (name, Some((end(a)?, strict(sign))), None)
        }
        ([a, _], [sign], [None, Some(name)]) if up(sign) => {
            (name, Some((end(a)?, strict(sign))), None)
        }
        ([a, _], [sign], [None, Some(name)]) if down(sign) => {
            (name, None, Some((end(a)?, strict(sign))))
        }
        ([a, _, b], [s, t], [_, Some(name), _]) if up(s) && up(t) => {
            (name, Some((end(a)?, strict(s))), Some((end(b)?, strict(t))))
        }
        ([b, _, a], [t, s], [_, Some(name), _]) if down(s) && down(t) => {
            (name, Some((end(a)?, strict(s))), Some((end(b)?, strict(t))))
        }
        _ => return None,
    };
    let (low, below) = low.unwrap_or((Answer::value(infinity.negated()), true));
    let (high, above) = high.unwrap_or((Answer::value(infinity), true));
    let (open, close) = (if below { "(" } else { "[" }, if above { ")" } else { "]" });
    Some(labelled(
        Answer::sequence(open, close, vec![low, high]),
        name,
    ))
}

/// |x| < a and a > |x|.
fn absolute(sides: &[&[Node]], names: &[&str], fuel: &Fuel) -> Option<Answer> {
    let ([left, right], [sign]) = (sides, names) else {
        return None;
    };
    let mirrored = match *sign {
        "<" => ">",
        ">" => "<",
        "\\leq" => "\\geq",
        "\\geq" => "\\leq",
        _ => return None,
    };
    let (inner, sign, bound) = match (sets::inside_bars(left), sets::inside_bars(right)) {
        (Some(inner), None) => (inner, *sign, right),
        (None, Some(inner)) => (inner, mirrored, left),
        _ => return None,
    };
    inner.iter().any(is_symbol).then_some(())?;
    let (name, set) = sets::absolute(inner, sign, bound, fuel)?;
    Some(labelled(set, &name))
}
