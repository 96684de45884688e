//! Whether two answers are equal.

use super::answer::{Answer, Body};
use super::exact::{Frac, Fuel};
use super::numeric;
use super::unit_table::PERCENT;
use super::units::Unit;
use num_rational::BigRational;

/// The rules of a comparison.
pub(super) struct Rules<'a> {
    pub(super) fuel: &'a Fuel,
    /// The Qwen grader's leniencies.
    pub(super) lenient: bool,
}

impl Rules<'_> {
    /// Whether the answers are equal. Their keys decide which is taken first, not the order of the
    /// arguments, so the verdict is symmetric.
    pub(super) fn same(&self, a: &Answer, b: &Answer) -> bool {
        let rank = |x: &Answer| {
            let unit = x.unit.as_ref().map(|unit| unit.key.clone());
            (x.key.clone(), x.label.clone(), unit, x.choice)
        };
        let (a, b) = if rank(a) <= rank(b) { (a, b) } else { (b, a) };
        if self.fuel.take(5).is_none() {
            return rank(a) == rank(b);
        }
        if let (Some(x), Some(y)) = (&a.condition, &b.condition)
            && x != y
        {
            return false;
        }
        if let Some(same) = self.choices(a, b) {
            return same;
        }
        if let (Some(x), Some(y)) = (&a.label, &b.label)
            && x != y
            && !self.lenient
        {
            return self.equations(a, b);
        }
        self.quantities(a, b)
    }

    /// Numbers with their units: a unit may be left out, two units of one kind are converted,
    /// others differ. The lenient grader ignores them.
    fn quantities(&self, a: &Answer, b: &Answer) -> bool {
        match (&a.unit, &b.unit) {
            (Some(x), Some(y)) if x.key != y.key && !self.lenient => {
                x.base == y.base && self.converted(a, x, b, y)
            }
            (Some(unit), None) | (None, Some(unit)) if unit.required && !self.lenient => false,
            (Some(unit), None) if unit.key == PERCENT => self.percent(a, b),
            (None, Some(unit)) if unit.key == PERCENT => self.percent(b, a),
            _ => self.bodies(a, b),
        }
    }

    /// Whether they are equal in base units.
    fn converted(&self, a: &Answer, unit_a: &Unit, b: &Answer, unit_b: &Unit) -> bool {
        let (Body::Value(x), Body::Value(y)) = (&a.body, &b.body) else {
            return false;
        };
        let in_base = |x: &Frac, unit: &Unit| x.mul(&Frac::number(unit.factor.clone()), self.fuel);
        match (in_base(x, unit_a), in_base(y, unit_b)) {
            (Some(x), Some(y)) => self.values(&x, &y),
            _ => false,
        }
    }

    /// A choice letter before an answer: both letters must agree; one stands for itself or for what
    /// follows it.
    fn choices(&self, a: &Answer, b: &Answer) -> Option<bool> {
        let is = |letter: char, x: &Answer| x.key == letter.to_string();
        match (a.choice, b.choice) {
            (Some(x), Some(y)) => Some(x == y && self.bodies(a, b)),
            (Some(letter), None) if is(letter, b) => Some(true),
            (None, Some(letter)) if is(letter, a) => Some(true),
            _ => None,
        }
    }

    /// 50% and a bare number: 50 or one half.
    fn percent(&self, percent: &Answer, bare: &Answer) -> bool {
        if self.bodies(percent, bare) {
            return true;
        }
        let Body::Value(value) = &percent.body else {
            return false;
        };
        let hundredth = Frac::number(BigRational::new(1.into(), 100.into()));
        let value = value.mul(&hundredth, self.fuel);
        value.is_some_and(|value| self.bodies(&Answer::value(value), bare))
    }

    fn bodies(&self, a: &Answer, b: &Answer) -> bool {
        let leaf = |x: &Answer| matches!(x.body, Body::Value(_) | Body::Text | Body::Unread);
        if a.key == b.key && (self.lenient || leaf(a) || leaf(b)) {
            return std::mem::discriminant(&a.body) == std::mem::discriminant(&b.body)
                || self.lenient
                || is_one_element(a)
                || is_one_element(b);
        }
        match (&a.body, &b.body) {
            (Body::Value(x), Body::Value(y)) => self.values(x, y),
            (Body::Matrix(x), Body::Matrix(y)) => {
                let rows = |x: &[Answer], y: &[Answer]| self.in_order(x, y);
                x.len() == y.len() && x.iter().zip(y).all(|(x, y)| rows(x, y))
            }
            (Body::Relation(s, x), Body::Relation(t, y)) => s == t && self.in_order(x, y),
            (Body::Union(x), Body::Union(y)) => self.in_any_order(x, y),
            (Body::Collection(x), Body::Collection(y)) => {
                // 12 boys and 10 girls are 12 and 10, in this order
                match (named(x) || owned(x), named(y) || owned(y)) {
                    (true, false) | (false, true) => self.in_order(x, y),
                    _ => self.in_any_order(x, y),
                }
            }
            (
                Body::Sequence { open, close, items },
                Body::Sequence {
                    open: open_b,
                    close: close_b,
                    items: items_b,
                },
            ) => {
                let brackets = self.lenient || (open, close) == (open_b, close_b);
                brackets && self.in_order(items, items_b)
            }
            (Body::Sequence { open, items, .. }, Body::Collection(list))
            | (Body::Collection(list), Body::Sequence { open, items, .. }) => {
                let ordered = named(list) && open == "(" || self.lenient;
                ordered && self.in_order(items, list)
                    || one(list).is_some_and(|item| self.is_item(item, a, b))
            }
            (Body::Collection(list), _) if list.len() == 1 => self.same(&list[0], b),
            (_, Body::Collection(list)) if list.len() == 1 => self.same(a, &list[0]),
            (Body::Equation(x), Body::Equation(y)) if x == y => true,
            (Body::Equation(_), _) | (_, Body::Equation(_)) => self.equations(a, b),
            _ => false,
        }
    }

    /// Whether the only item of one of the two is the other.
    fn is_item(&self, item: &Answer, a: &Answer, b: &Answer) -> bool {
        match &a.body {
            Body::Collection(_) => self.same(item, b),
            _ => self.same(item, a),
        }
    }

    fn in_order(&self, a: &[Answer], b: &[Answer]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b))
    }

    fn in_any_order(&self, a: &[Answer], b: &[Answer]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        // Greedy matching from the sorted lists: the same whichever list comes first.
        let sorted = |items: &[Answer]| {
            let mut items: Vec<Answer> = items.to_vec();
            items.sort_by(|a, b| (&a.key, &a.label).cmp(&(&b.key, &b.label)));
            items
        };
        let (a, mut left) = (sorted(a), sorted(b));
        a.iter().all(|item| {
            let found = left.iter().position(|other| {
                let labels = (&item.label, &other.label);
                let other_name = matches!(labels, (Some(a), Some(b)) if a != b);
                // boys are no girls, whatever the rules for units
                let units = (&item.unit, &other.unit);
                let other_owner = matches!(units, (Some(a), Some(b)) if a.base != b.base);
                !other_name && !other_owner && self.same(item, other)
            });
            found.map(|at| left.remove(at)).is_some()
        })
    }

    /// Equal as equations up to a factor; a labelled value is one too.
    fn equations(&self, a: &Answer, b: &Answer) -> bool {
        let sum = |x: &Answer| match (&x.body, &x.label) {
            (Body::Equation(sum), _) => Some(sum.clone()),
            (Body::Value(value), Some(label)) => {
                let letters: Vec<char> = label.chars().collect();
                let [letter] = letters.as_slice() else {
                    return None;
                };
                let symbol = Frac::symbol(&letter.to_string());
                symbol.difference(value, self.fuel)?.primitive(self.fuel)
            }
            _ => None,
        };
        match (sum(a), sum(b)) {
            (Some(x), Some(y)) => x == y,
            _ => false,
        }
    }

    fn values(&self, a: &Frac, b: &Frac) -> bool {
        let Some(difference) = a.difference(b, self.fuel) else {
            return false;
        };
        difference.is_zero()
            || (difference.is_opaque() && self.factorials(a, b))
            || (difference.is_opaque() && numeric::vanishes(&difference, self.fuel))
            || (self.lenient && self.close(a, b))
    }

    /// Whether the values are equal once their factorials have a common base.
    fn factorials(&self, a: &Frac, b: &Frac) -> bool {
        let common = Frac::common_factorials(a, b, self.fuel);
        let difference = common.and_then(|(a, b)| a.difference(&b, self.fuel));
        difference.is_some_and(|difference| difference.is_zero())
    }

    /// Within 1e-4 of each other, of a hundred times or a hundredth.
    fn close(&self, a: &Frac, b: &Frac) -> bool {
        let (Some(a), Some(b)) = (numeric::real(a, self.fuel), numeric::real(b, self.fuel)) else {
            return false;
        };
        [1.0, 100.0, 0.01].iter().any(|factor| {
            let (x, y) = (a * factor, b);
            (x - y).abs() <= 1e-4 * x.abs().max(y.abs())
        })
    }
}

fn one(items: &[Answer]) -> Option<&Answer> {
    match items {
        [item] => Some(item),
        _ => None,
    }
}

fn is_one_element(answer: &Answer) -> bool {
    matches!(&answer.body, Body::Collection(items) if items.len() == 1)
}

/// Whether each item has a unit or a name of what it counts.
fn owned(items: &[Answer]) -> bool {
    items.len() > 1 && items.iter().all(|item| item.unit.is_some())
}

/// Whether the items have labels.
fn named(items: &[Answer]) -> bool {
    !items.is_empty() && items.iter().all(|item| item.label.is_some())
}
