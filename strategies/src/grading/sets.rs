//! Sets of real numbers in one normal form: intervals from left to right that do not touch.
//!
//! Inequalities, ≠, unions, intersections and differences of intervals, and set-builder notation
//! all come to this form, where their ends are numbers. Sets with other ends stay as they are
//! written.

use super::answer::{Answer, Body, chain, split, trimmed};
use super::exact::{Frac, Fuel};
use super::labels::{is_symbol, label};
use super::latex::Node;
use super::lists::{list, unordered};
use super::numeric;
use std::cmp::Ordering;

/// An end of an interval: a number, or infinity.
#[derive(Debug, Clone)]
enum End {
    Low,
    At(Frac, f64),
    High,
}

#[derive(Debug, Clone)]
struct Interval {
    low: End,
    low_closed: bool,
    high: End,
    high_closed: bool,
}

/// A set of real numbers.
#[derive(Debug, Clone)]
pub(super) struct RealSet(Vec<Interval>);

/// More intervals than this stay as they are written.
const MAX_INTERVALS: usize = 64;

fn compare(a: &End, b: &End, fuel: &Fuel) -> Ordering {
    match (a, b) {
        (End::Low, End::Low) | (End::High, End::High) => Ordering::Equal,
        (End::Low, _) | (_, End::High) => Ordering::Less,
        (End::High, _) | (_, End::Low) => Ordering::Greater,
        (End::At(x, a), End::At(y, b)) => {
            let near = (a - b).abs() <= 1e-9 * (1.0 + a.abs());
            if near && x.difference(y, fuel).is_some_and(|d| d.is_zero()) {
                Ordering::Equal
            } else {
                a.total_cmp(b)
            }
        }
    }
}

impl Interval {
    fn is_empty(&self, fuel: &Fuel) -> bool {
        match compare(&self.low, &self.high, fuel) {
            Ordering::Less => false,
            Ordering::Equal => !(self.low_closed && self.high_closed),
            Ordering::Greater => true,
        }
    }

    fn meet(&self, other: &Interval, fuel: &Fuel) -> Interval {
        let (low, low_closed) = match compare(&self.low, &other.low, fuel) {
            Ordering::Less => (&other.low, other.low_closed),
            Ordering::Equal => (&self.low, self.low_closed && other.low_closed),
            Ordering::Greater => (&self.low, self.low_closed),
        };
        let (high, high_closed) = match compare(&self.high, &other.high, fuel) {
            Ordering::Less => (&self.high, self.high_closed),
            Ordering::Equal => (&self.high, self.high_closed && other.high_closed),
            Ordering::Greater => (&other.high, other.high_closed),
        };
        Interval {
            low: low.clone(),
            low_closed,
            high: high.clone(),
            high_closed,
        }
    }
}

impl RealSet {
    /// The set that an answer is, if it is one: an interval, a union, a list of numbers, a number.
    pub(super) fn of(answer: &Answer, fuel: &Fuel) -> Option<RealSet> {
        let mut intervals = Vec::new();
        if answer.unit.is_some() || answer.choice.is_some() {
            return None;
        }
        match &answer.body {
            Body::Value(x) => {
                let at = end(x, fuel)?;
                matches!(at, End::At(..)).then_some(())?;
                intervals.push(Interval {
                    low: at.clone(),
                    low_closed: true,
                    high: at,
                    high_closed: true,
                });
            }
            Body::Sequence { open, close, items } => {
                let [low, high] = items.as_slice() else {
                    return None;
                };
                let (Body::Value(low), Body::Value(high)) = (&low.body, &high.body) else {
                    return None;
                };
                let bracket = |open: &str, closed: &str, text: &str| match text {
                    text if text == open => Some(false),
                    text if text == closed => Some(true),
                    _ => None,
                };
                let interval = Interval {
                    low: end(low, fuel)?,
                    low_closed: bracket("(", "[", open)?,
                    high: end(high, fuel)?,
                    high_closed: bracket(")", "]", close)?,
                };
                // (3, -1) is a point
                (!interval.is_empty(fuel)).then_some(())?;
                intervals.push(interval);
            }
            Body::Union(items) | Body::Collection(items) => {
                for item in items {
                    item.label.is_none().then_some(())?;
                    intervals.extend(RealSet::of(item, fuel)?.0);
                }
            }
            _ => return None,
        }
        RealSet(intervals).normal(fuel)
    }

    fn everything() -> RealSet {
        RealSet(vec![Interval {
            low: End::Low,
            low_closed: false,
            high: End::High,
            high_closed: false,
        }])
    }

    /// In order, what touches joined.
    fn normal(mut self, fuel: &Fuel) -> Option<RealSet> {
        if self.0.len() > MAX_INTERVALS {
            return None;
        }
        fuel.take(10 * self.0.len() as u64 + 1)?;
        self.0.retain(|interval| !interval.is_empty(fuel));
        self.0.sort_by(|a, b| {
            compare(&a.low, &b.low, fuel).then_with(|| b.low_closed.cmp(&a.low_closed))
        });
        let mut out: Vec<Interval> = Vec::new();
        for next in self.0 {
            let Some(last) = out.last_mut() else {
                out.push(next);
                continue;
            };
            let touch = match compare(&next.low, &last.high, fuel) {
                Ordering::Less => true,
                Ordering::Equal => next.low_closed || last.high_closed,
                Ordering::Greater => false,
            };
            if !touch {
                out.push(next);
                continue;
            }
            match compare(&next.high, &last.high, fuel) {
                Ordering::Greater => {
                    last.high = next.high;
                    last.high_closed = next.high_closed;
                }
                Ordering::Equal => last.high_closed |= next.high_closed,
                Ordering::Less => {}
            }
        }
        Some(RealSet(out))
    }

    pub(super) fn union(mut self, other: RealSet, fuel: &Fuel) -> Option<RealSet> {
        self.0.extend(other.0);
        self.normal(fuel)
    }

    pub(super) fn intersection(&self, other: &RealSet, fuel: &Fuel) -> Option<RealSet> {
        fuel.take(10 * (self.0.len() * other.0.len()) as u64)?;
        let pairs = self
            .0
            .iter()
            .flat_map(|a| other.0.iter().map(|b| a.meet(b, fuel)));
        RealSet(pairs.collect()).normal(fuel)
    }

    pub(super) fn complement(&self, fuel: &Fuel) -> Option<RealSet> {
        let mut rest = RealSet::everything();
        for interval in &self.0 {
            let sides = RealSet(vec![
                Interval {
                    low: End::Low,
                    low_closed: false,
                    high: interval.low.clone(),
                    high_closed: !interval.low_closed,
                },
                Interval {
                    low: interval.high.clone(),
                    low_closed: !interval.high_closed,
                    high: End::High,
                    high_closed: false,
                },
            ]);
            rest = rest.intersection(&sides.normal(fuel)?, fuel)?;
        }
        Some(rest)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is more than single numbers.
    pub(super) fn has_length(&self, fuel: &Fuel) -> bool {
        self.0
            .iter()
            .any(|i| compare(&i.low, &i.high, fuel) == Ordering::Less)
    }

    pub(super) fn answer(self, fuel: &Fuel) -> Answer {
        let infinity = || Frac::symbol("\\infty");
        let points = !self.is_empty() && !self.has_length(fuel);
        let mut items: Vec<Answer> = (self.0.into_iter())
            .map(|interval| {
                let point = compare(&interval.low, &interval.high, fuel) == Ordering::Equal;
                let value = |end: End| match end {
                    End::Low => Answer::value(infinity().negated()),
                    End::High => Answer::value(infinity()),
                    End::At(x, _) => Answer::value(x),
                };
                if points {
                    return value(interval.low);
                }
                if point {
                    return unordered(vec![value(interval.low)], false);
                }
                let open = if interval.low_closed { "[" } else { "(" };
                let close = if interval.high_closed { "]" } else { ")" };
                Answer::sequence(open, close, vec![value(interval.low), value(interval.high)])
            })
            .collect();
        match items.len() {
            0 => empty(),
            _ if points => unordered(items, false),
            1 => items.remove(0),
            _ => unordered(items, true),
        }
    }
}

fn end(x: &Frac, fuel: &Fuel) -> Option<End> {
    match x.key().as_str() {
        "\\infty" => Some(End::High),
        "-\\infty" => Some(End::Low),
        _ => Some(End::At(x.clone(), numeric::real(x, fuel)?)),
    }
}

/// The empty set.
pub(super) fn empty() -> Answer {
    Answer::new(Body::Collection(Vec::new()), "{}".into())
}

/// All real numbers.
pub(super) fn reals() -> Answer {
    let infinity = Frac::symbol("\\infty");
    let ends = [infinity.negated(), infinity].map(Answer::value);
    Answer::sequence("(", ")", ends.into())
}

/// How conditions are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    And,
    Or,
    Comma,
}

/// Conditions on one variable as one set: `and` is the intersection, `or` the union. A comma is
/// `and` where the conditions overlap, and `or` where they cannot hold together.
pub(super) fn conditions(items: &[Answer], joined: Joined, fuel: &Fuel) -> Option<Answer> {
    let sets = items
        .iter()
        .map(|item| RealSet::of(item, fuel))
        .collect::<Option<Vec<RealSet>>>()?;
    sets.iter().any(|set| set.has_length(fuel)).then_some(())?;
    let (first, rest) = sets.split_first()?;
    let all = |rest: &[RealSet]| {
        rest.iter()
            .try_fold(first.clone(), |all, set| all.intersection(set, fuel))
    };
    let any = || (rest.iter().cloned()).try_fold(first.clone(), |any, set| any.union(set, fuel));
    let set = match joined {
        Joined::And => all(rest)?,
        Joined::Or => any()?,
        Joined::Comma => Some(all(rest)?)
            .filter(|set| !set.is_empty())
            .or_else(any)?,
    };
    Some(set.answer(fuel))
}

/// Set operations between sets of real numbers, from left to right.
pub(super) fn operations(signs: &[String], items: &[Answer], fuel: &Fuel) -> Option<Answer> {
    let sets = items
        .iter()
        .map(|item| RealSet::of(item, fuel))
        .collect::<Option<Vec<RealSet>>>()?;
    let mut sets = sets.into_iter();
    let mut total = sets.next()?;
    for (sign, set) in signs.iter().zip(sets) {
        total = match sign.as_str() {
            "\\cup" => total.union(set, fuel)?,
            "\\cap" => total.intersection(&set, fuel)?,
            _ => total.intersection(&set.complement(fuel)?, fuel)?,
        };
    }
    Some(total.answer(fuel))
}

/// `\{x | ...\}`, its braces already gone: the set of what the condition says.
pub(super) fn builder(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let at = nodes
        .iter()
        .position(|n| matches!(n, Node::Char('|' | ':')))?;
    let (before, condition) = (trimmed(&nodes[..at]), trimmed(&nodes[at + 1..]));
    let (variable, of) = match before {
        [variable] if is_symbol(variable) => (variable, None),
        [variable, sign, set @ ..] if is_symbol(variable) && sign.is("in") => (variable, Some(set)),
        _ => return None,
    };
    let variable = label(std::slice::from_ref(variable))?;
    let condition = list(condition, depth + 1, fuel);
    let of = of.map(|of| list(of, depth + 1, fuel));
    let set = || {
        let of_variable = condition.label.as_ref() == Some(&variable);
        (of_variable && condition.condition.is_none()).then_some(())?;
        let bare = Answer {
            label: None,
            ..condition.clone()
        };
        let set = RealSet::of(&bare, fuel).filter(|set| set.has_length(fuel))?;
        match &of {
            Some(of) => set.intersection(&RealSet::of(of, fuel)?, fuel),
            None => Some(set),
        }
    };
    if let Some(set) = set() {
        return Some(set.answer(fuel));
    }
    let named = Answer::new(Body::Text, variable);
    let parts = [Some(named), of, Some(condition)].into_iter().flatten();
    let parts: Vec<Answer> = parts.collect();
    Some(chain(vec![" : ".into(); parts.len() - 1], parts))
}

/// `x \neq a`.
pub(super) fn all_but(excluded: &Answer, fuel: &Fuel) -> Option<Answer> {
    Some(RealSet::of(excluded, fuel)?.complement(fuel)?.answer(fuel))
}

/// |x - c| < a and the like, as the set it is: the variable and the set. `sign` is the relation
/// between the absolute value and the bound.
pub(super) fn absolute(
    inner: &[Node],
    sign: &str,
    bound: &[Node],
    fuel: &Fuel,
) -> Option<(String, Answer)> {
    use super::expression::value;
    let variable = inner.iter().find(|n| is_symbol(n))?;
    let name = label(std::slice::from_ref(variable))?;
    let x = value(std::slice::from_ref(variable), true, fuel)?;
    let shift = value(inner, true, fuel)?.add(&x.negated(), fuel)?;
    let (center, radius) = (shift.negated(), value(bound, true, fuel)?);
    let size = numeric::real(&radius, fuel)?;
    numeric::real(&center, fuel)?;
    let closed = matches!(sign, "\\leq" | "\\geq");
    (size > 0.0 || (size == 0.0 && closed)).then_some(())?;
    let ends = [
        center.add(&radius.negated(), fuel)?,
        center.add(&radius, fuel)?,
    ];
    let [low, high] = ends;
    let interval = |closed: bool| {
        let (open, close) = if closed { ("[", "]") } else { ("(", ")") };
        Answer::sequence(
            open,
            close,
            [low.clone(), high.clone()].map(Answer::value).into(),
        )
    };
    let within = match (sign, size == 0.0) {
        ("<" | "\\leq", true) => unordered(vec![Answer::value(low)], false),
        ("<" | "\\leq", false) => interval(closed),
        (_, true) => reals(),
        // outside of the open interval between the bounds, or of the closed one
        (_, false) => RealSet::of(&interval(!closed), fuel)?
            .complement(fuel)?
            .answer(fuel),
    };
    Some((name, within))
}

/// Whether the nodes are an absolute value, and of what.
pub(super) fn inside_bars(nodes: &[Node]) -> Option<&[Node]> {
    match trimmed(nodes) {
        [Node::Char('|'), inner @ .., Node::Char('|')]
            if !inner.is_empty() && split(inner, |n| *n == Node::Char('|')).len() == 1 =>
        {
            Some(inner)
        }
        _ => None,
    }
}
