//! Relations: `label = value`, inequalities as intervals, equations.

use super::answer::{Answer, Body, chain, list, separators, split, trimmed};
use super::exact::{Frac, Fuel};
use super::latex::Node;
use super::text;

/// Equations, inequalities, memberships.
pub(super) fn relation(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let is_relation = |node: &Node| match node {
        Node::Char(c) => matches!(c, '=' | '<' | '>' | ':'),
        Node::Command(name) => matches!(
            name.as_str(),
            "leq" | "geq" | "neq" | "in" | "approx" | "equiv" | "to" | "rightarrow" | "subset"
        ),
        _ => false,
    };
    let mut sides = split(nodes, is_relation);
    if sides.len() < 2 {
        return None;
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
    let part = |side: &[Node]| list(side, depth + 1, fuel);
    let labels: Vec<Option<String>> = sides.iter().map(|side| label(side)).collect();
    let names: Vec<&str> = between.iter().map(String::as_str).collect();
    if let (["\\in"] | ["\\approx"], [Some(name), _]) = (names.as_slice(), labels.as_slice()) {
        return Some(labelled(part(sides[1]), name));
    }
    if names.iter().all(|s| *s == "=") {
        return Some(equation(&sides, &labels, depth, fuel));
    }
    if let Some(interval) = interval(&sides, &names, &labels, depth, fuel) {
        return Some(interval);
    }
    let mut items: Vec<Answer> = sides.iter().map(|side| part(side)).collect();
    if names.iter().all(|s| *s == ":") {
        let ratio = Answer::sequence("", "", items);
        let key = ratio.key.replace(',', ":");
        return Some(Answer { key, ..ratio });
    }
    // 3 > x is x < 3
    if names.iter().all(|s| matches!(*s, ">" | "\\geq")) {
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
    Some(chain(between, items))
}

fn labelled(mut answer: Answer, name: &str) -> Answer {
    answer.label = Some(name.into());
    answer
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

/// Whether the left side of an equation can be a label: a symbol, a function of symbols, a segment,
/// words.
fn label(nodes: &[Node]) -> Option<String> {
    let nodes = trimmed(nodes);
    if let [Node::Text(words)] = nodes {
        return Some(words.to_lowercase());
    }
    if let Some(words) = text::as_words(nodes) {
        return Some(words);
    }
    let mut rest = nodes;
    let mut letters = 0;
    let mut capitals = true;
    while let Some((first, more)) = rest.split_first() {
        match first {
            Node::Char(c) if c.is_alphabetic() => {
                letters += 1;
                capitals &= c.is_uppercase();
            }
            Node::Char('\'') if letters > 0 => {}
            Node::Char('_') if letters > 0 && !more.is_empty() => {
                rest = &more[1..];
                continue;
            }
            Node::Char('(') if letters == 1 => {
                let [inner @ .., Node::Char(')')] = more else {
                    return None;
                };
                let symbols = |n: &Node| {
                    matches!(n, Node::Char(c) if c.is_alphabetic() || *c == ',') || is_greek(n)
                };
                if inner.is_empty() || !inner.iter().all(symbols) {
                    return None;
                }
                break;
            }
            Node::Command(name) if matches!(name.as_str(), "angle" | "triangle" | "overline") => {}
            Node::Group(inner) if letters == 0 && inner.iter().all(is_capital) => letters += 1,
            node if is_greek(node) => letters += 1,
            _ => return None,
        }
        rest = more;
    }
    let plain = letters == 1 || (letters > 1 && capitals);
    let constant = matches!(nodes, [Node::Char('e' | 'i')]);
    (plain && !constant).then(|| nodes.iter().map(text::of).collect())
}

fn is_capital(node: &Node) -> bool {
    matches!(node, Node::Char(c) if c.is_uppercase())
}

fn is_greek(node: &Node) -> bool {
    const GREEK: [&str; 16] = [
        "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "rho", "sigma",
        "tau", "phi", "varphi", "omega", "Delta", "ell",
    ];
    matches!(node, Node::Command(name) if GREEK.contains(&name.as_str()))
}
