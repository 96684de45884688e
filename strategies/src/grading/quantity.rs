//! Quantities: a number with a unit, an amount of money, several units of one kind together.

use super::answer::Answer;
use super::exact::{Frac, Fuel};
use super::expression::value;
use super::latex::Node;
use super::symbols::{is_circ, is_function};
use super::text::as_words;
use super::unit_table::{PERCENT, known, multiplier};
use super::units::{Unit, temperature, unit};
use num_rational::BigRational;

/// Splits an answer into its number and its unit, if it is a quantity. The word "units" and an
/// ordinal's "th" are no unit.
pub(super) fn split(nodes: &[Node], fuel: &Fuel) -> Option<(Vec<Node>, Option<Unit>)> {
    let is_value = |nodes: &[Node]| value(nodes, true, fuel).is_some();
    // in \sin 30^\circ the degrees are the argument's
    let is_angle = |nodes: &[Node]| !nodes.iter().any(|n| is_function(n) || is_circ(n));
    if as_words(nodes).is_some() {
        return None;
    }
    if let Some(money) = money(nodes, fuel) {
        return Some(money);
    }
    match nodes {
        [core @ .., Node::Char('^'), circ] if is_circ(circ) && is_angle(core) && is_value(core) => {
            return Some((core.to_vec(), Some(Unit::named("degree"))));
        }
        [core @ .., Node::Char('^'), circ, scale] if is_circ(circ) && is_value(core) => {
            let letter = match scale {
                Node::Char(c @ ('C' | 'F')) => Some(c.to_string()),
                _ => None,
            };
            let scale = letter.and_then(|letter| temperature(&letter))?;
            return Some((core.to_vec(), Some(Unit::named(&scale))));
        }
        [
            core @ ..,
            Node::Char('^'),
            circ,
            Node::Space,
            Node::Word(scale),
        ]
        | [core @ .., Node::Char('^'), circ, Node::Word(scale)]
            if is_circ(circ) && is_value(core) =>
        {
            return Some((core.to_vec(), Some(Unit::named(&temperature(scale)?))));
        }
        [core @ .., Node::Char('%')] if is_value(core) => {
            return Some((core.to_vec(), Some(Unit::named(PERCENT))));
        }
        [number @ Node::Number(digits), suffix @ ..] if is_ordinal(digits, suffix) => {
            return Some((vec![number.clone()], None));
        }
        _ => {}
    }
    in_words(nodes, fuel)
}

/// An amount of money: `\$5`, `5€`, `-\$5`, `\$5 million`, `\$5 per hour`.
fn money(nodes: &[Node], fuel: &Fuel) -> Option<(Vec<Node>, Option<Unit>)> {
    let currency = |node: &Node| match node {
        Node::Command(name) if name == "$" => Some("dollar"),
        Node::Char('€') => Some("euro"),
        Node::Char('£') => Some("pound sterling"),
        Node::Char('¥' | '￥') => Some("yuan"),
        Node::Char('₹') => Some("rupee"),
        _ => None,
    };
    let (name, amount) = match nodes {
        [Node::Char('-'), sign, rest @ ..] if !rest.is_empty() && currency(sign).is_some() => {
            let negative = std::iter::once(Node::Char('-')).chain(rest.iter().cloned());
            (currency(sign)?, negative.collect())
        }
        [sign, rest @ ..] | [rest @ .., sign] if !rest.is_empty() && currency(sign).is_some() => {
            (currency(sign)?, rest.to_vec())
        }
        _ => return None,
    };
    let amount: Vec<Node> = match amount.as_slice() {
        [Node::Space, rest @ ..] | [rest @ .., Node::Space] => rest.to_vec(),
        _ => amount,
    };
    let unit = Unit::named(name);
    match in_words(&amount, fuel) {
        None | Some((_, None)) => {
            let amount = in_words(&amount, fuel).map_or(amount, |(core, _)| core);
            Some((amount, Some(unit)))
        }
        // "\$5 dollars" is 5 dollars all the same
        Some((core, Some(more))) if more.key == unit.key => Some((core, Some(unit))),
        Some((core, Some(more))) => Some((core, Some(unit.times(&more)))),
    }
}

/// The th of 4th.
fn is_ordinal(digits: &str, suffix: &[Node]) -> bool {
    let word = match suffix {
        [Node::Char('^'), Node::Group(inner)] => letters(inner),
        [Node::Space, rest @ ..] | rest => letters(rest),
    };
    let right = match digits.as_bytes() {
        [.., b'1', b'0'..=b'9'] => "th",
        [.., b'1'] => "st",
        [.., b'2'] => "nd",
        [.., b'3'] => "rd",
        _ => "th",
    };
    word.as_deref() == Some(right)
}

fn letters(nodes: &[Node]) -> Option<String> {
    let nodes = nodes.iter().filter(|n| **n != Node::Space);
    nodes
        .map(|node| match node {
            Node::Word(word) => Some(word.to_lowercase()),
            Node::Char(c) if c.is_alphabetic() => Some(c.to_string()),
            _ => None,
        })
        .collect()
}

/// A number and a unit written as a word, or in brackets, or a word that multiplies the number.
fn in_words(nodes: &[Node], fuel: &Fuel) -> Option<(Vec<Node>, Option<Unit>)> {
    let begins = |node: &Node| match node {
        Node::Word(_) => true,
        Node::Char(c) => c.is_alphabetic() || *c == '(' || *c == '/',
        Node::Command(name) => matches!(name.as_str(), "sec" | "min" | "deg" | "frac"),
        Node::Group(inner) => inner.iter().any(|n| matches!(n, Node::Word(_))),
        _ => false,
    };
    let mut tries = 0;
    for at in 1..nodes.len() {
        if !begins(&nodes[at]) || tries > 8 {
            continue;
        }
        let spaced = nodes[at - 1] == Node::Space;
        let core = if spaced {
            &nodes[..at - 1]
        } else {
            &nodes[..at]
        };
        if core.is_empty() || matches!(core.last(), Some(Node::Char('_' | '^' | '='))) {
            continue;
        }
        if let Node::Word(word) = &nodes[at]
            && let Some(factor) = multiplier(word)
            && is_number(core)
        {
            return multiplied(core, factor, &nodes[at + 1..], fuel);
        }
        tries += 1;
        let (inner, spaced) = match &nodes[at..] {
            [Node::Char('('), inner @ .., Node::Char(')')] if has_words(inner) => (inner, true),
            rest => (rest, spaced),
        };
        let Some(unit) = unit(inner, spaced, ends_in_number(core)) else {
            continue;
        };
        // what is counted has a number before it, and a letter may stand before a unit
        let measure = unit.as_ref().is_some_and(Unit::is_measure);
        let number = is_number(core);
        if (number && has_words(inner))
            || ((number || measure) && value(core, true, fuel).is_some())
        {
            return Some((core.to_vec(), unit));
        }
    }
    None
}

/// "5 million", and the unit after it.
fn multiplied(
    core: &[Node],
    factor: u64,
    rest: &[Node],
    fuel: &Fuel,
) -> Option<(Vec<Node>, Option<Unit>)> {
    value(core, true, fuel)?;
    let product = vec![
        Node::Group(core.to_vec()),
        Node::Char('*'),
        Node::Number(factor.to_string()),
    ];
    let rest = match rest {
        [Node::Space, rest @ ..] => rest,
        rest => rest,
    };
    match rest {
        [] => Some((product, None)),
        rest => Some((product, unit(rest, true, true)?)),
    }
}

/// Whether a plain number or a fraction stands at the end.
fn ends_in_number(nodes: &[Node]) -> bool {
    matches!(nodes.last(), Some(Node::Number(_) | Node::Group(_)))
}

fn has_words(nodes: &[Node]) -> bool {
    nodes.iter().any(|n| match n {
        Node::Word(_) => true,
        Node::Command(name) => matches!(name.as_str(), "sec" | "min" | "deg"),
        Node::Group(inner) => has_words(inner),
        _ => false,
    })
}

/// Whether a number is in it, and no word.
fn is_number(nodes: &[Node]) -> bool {
    let number = |n: &Node| match n {
        Node::Number(_) => true,
        Node::Command(name) => matches!(name.as_str(), "frac" | "sqrt" | "pi"),
        _ => false,
    };
    let word = |n: &Node| matches!(n, Node::Word(w) if w.chars().any(char::is_lowercase));
    nodes.iter().any(number) && !nodes.iter().any(word)
}

/// Several units of one kind together, the larger ones first: 5 feet 6 inches, as one quantity in
/// the smallest of them.
pub(super) fn together(nodes: &[Node], fuel: &Fuel) -> Option<Answer> {
    let mut parts: Vec<(BigRational, Unit)> = Vec::new();
    let mut rest = nodes;
    while !rest.is_empty() {
        fuel.take(5)?;
        let (number, more) = match rest {
            [
                Node::Number(_),
                Node::Space,
                top @ Node::Number(_),
                Node::Char('/'),
                bottom,
                more @ ..,
            ] => {
                let _ = (top, bottom);
                (&rest[..5], more)
            }
            [Node::Number(_), Node::Space, more @ ..] => (&rest[..1], more),
            [Node::Number(_), more @ ..] => (&rest[..1], more),
            _ => return None,
        };
        let more = match more {
            [Node::Space, more @ ..] => more,
            more => more,
        };
        let length = (more.iter())
            .position(|n| matches!(n, Node::Number(_) | Node::Space))
            .unwrap_or(more.len());
        let value = value(number, true, fuel)?.rational()?;
        let unit = match &more[..length] {
            [Node::Char(letter)] => Unit::named(known(&letter.to_string())?.names[0]),
            words => unit(words, true, true)??,
        };
        parts.push((value, unit));
        rest = match &more[length..] {
            [Node::Space, rest @ ..] => rest,
            rest => rest,
        };
    }
    sum(&parts)
}

/// The sum of quantities whose units are of one kind, each smaller than the one before.
pub(super) fn sum(parts: &[(BigRational, Unit)]) -> Option<Answer> {
    let (_, smallest) = parts.last().filter(|_| parts.len() >= 2)?;
    let falling = parts.windows(2).all(|pair| {
        let (large, small) = (&pair[0].1, &pair[1].1);
        large.base == small.base && large.factor > small.factor
    });
    falling.then_some(())?;
    let base: BigRational = parts.iter().map(|(value, unit)| value * &unit.factor).sum();
    let mut answer = Answer::value(Frac::number(base / &smallest.factor));
    let unit = Unit {
        required: true,
        ..smallest.clone()
    };
    answer.key = format!("{} {}", answer.key, unit.key);
    answer.unit = Some(unit);
    Some(answer)
}

/// A time of day: 7:30 a.m., 5 PM, 12 noon. Half of it is which half of the day.
pub(super) fn time(nodes: &[Node]) -> Option<String> {
    let digits = |node: &Node| match node {
        Node::Number(digits) => digits.parse::<u32>().ok(),
        _ => None,
    };
    let (hour, mut minute, mut second) = (digits(nodes.first()?)?, 0, 0);
    let mut rest = &nodes[1..];
    if let [Node::Char(':'), minutes, more @ ..] = rest {
        (minute, rest) = (digits(minutes)?, more);
        if let [Node::Char(':'), seconds, more @ ..] = rest {
            (second, rest) = (digits(seconds)?, more);
        }
    }
    let half: String = (rest.iter())
        .map(|node| match node {
            Node::Word(word) => Some(word.to_lowercase()),
            Node::Char(c) if c.is_alphabetic() => Some(c.to_lowercase().to_string()),
            Node::Char('.') | Node::Space => Some(String::new()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let half = match half.as_str() {
        "am" | "pm" => half,
        "noon" if hour == 12 => "pm".into(),
        "midnight" if hour == 12 => "am".into(),
        _ => return None,
    };
    (hour <= 24 && minute < 60 && second < 60)
        .then(|| format!("{hour}:{minute:02}:{second:02} {half}"))
}

/// A quotient with its remainder: 3 R 2, "3 remainder 2".
pub(super) fn remainder(nodes: &[Node]) -> Option<String> {
    let (quotient, sign, remainder) = match nodes {
        [quotient, sign, remainder]
        | [quotient, Node::Space, sign, Node::Space, remainder]
        | [quotient, sign, Node::Space, remainder] => (quotient, sign, remainder),
        _ => return None,
    };
    let is_sign = match sign {
        Node::Char(c) => matches!(c, 'R' | 'r'),
        Node::Word(word) => matches!(word.as_str(), "R" | "r" | "remainder" | "rem"),
        _ => false,
    };
    match (quotient, remainder) {
        (Node::Number(quotient), Node::Number(remainder)) if is_sign => {
            Some(format!("{quotient} R {remainder}"))
        }
        _ => None,
    }
}
