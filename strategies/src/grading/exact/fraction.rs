//! Fractions of sums and their reduction.

use super::Fuel;
use super::sum::{Atom, Kind, Product, Sum, normal_term, pay, rational};
use num_rational::{BigRational, Rational64};
use num_traits::{One, Zero};
use std::collections::BTreeMap;

/// A fraction of sums. The denominator is 1 or has several terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::grading) struct Frac {
    pub(in crate::grading) top: Sum,
    pub(in crate::grading) bottom: Sum,
}

impl Frac {
    pub(super) fn from_sum(top: Sum) -> Frac {
        Frac {
            top,
            bottom: Sum::one(),
        }
    }

    pub(in crate::grading) fn number(value: BigRational) -> Frac {
        Frac::from_sum(Sum::number(value))
    }

    pub(in crate::grading) fn integer(value: i64) -> Frac {
        Frac::number(rational(value))
    }

    pub(super) fn atom(key: String, kind: Kind) -> Frac {
        let power = vec![(Atom::new(key, kind), Rational64::one())];
        Frac::from_sum(Sum::term(power, rational(1)))
    }

    pub(in crate::grading) fn i() -> Frac {
        Frac::atom("i".into(), Kind::I)
    }

    pub(in crate::grading) fn pi() -> Frac {
        Frac::atom("pi".into(), Kind::Pi)
    }

    pub(in crate::grading) fn e() -> Frac {
        Frac::atom("e".into(), Kind::E)
    }

    pub(in crate::grading) fn symbol(name: &str) -> Frac {
        Frac::atom(name.into(), Kind::Symbol)
    }

    /// Its value, if it is a rational number.
    pub(in crate::grading) fn rational(&self) -> Option<BigRational> {
        self.bottom.is_one().then(|| self.top.rational()).flatten()
    }

    /// Whether it contains a variable.
    pub(in crate::grading) fn has_symbols(&self) -> bool {
        self.top.has_symbols() || self.bottom.has_symbols()
    }

    pub(in crate::grading) fn add(&self, other: &Frac, fuel: &Fuel) -> Option<Frac> {
        if self.bottom == other.bottom {
            let top = self.top.add(&other.top, fuel)?;
            return Frac::new(top, self.bottom.clone(), fuel);
        }
        let left = self.top.mul(&other.bottom, fuel)?;
        let right = other.top.mul(&self.bottom, fuel)?;
        Frac::new(
            left.add(&right, fuel)?,
            self.bottom.mul(&other.bottom, fuel)?,
            fuel,
        )
    }

    pub(in crate::grading) fn negated(&self) -> Frac {
        Frac {
            top: self.top.negated(),
            bottom: self.bottom.clone(),
        }
    }

    pub(in crate::grading) fn mul(&self, other: &Frac, fuel: &Fuel) -> Option<Frac> {
        let top = self.top.mul(&other.top, fuel)?;
        if self.bottom.is_one() && other.bottom.is_one() {
            return Some(Frac::from_sum(top));
        }
        Frac::new(top, self.bottom.mul(&other.bottom, fuel)?, fuel)
    }

    /// 1/x; `None` for 1/0.
    pub(in crate::grading) fn inverse(&self, fuel: &Fuel) -> Option<Frac> {
        Frac::new(self.bottom.clone(), self.top.clone(), fuel)
    }

    /// Reduces the fraction.
    pub(super) fn new(top: Sum, bottom: Sum, fuel: &Fuel) -> Option<Frac> {
        if bottom.is_zero() {
            return None;
        }
        if top.is_zero() || bottom.is_one() {
            return Some(Frac::from_sum(top));
        }
        if let Some(ratio) = ratio(&top, &bottom, fuel) {
            return Some(Frac::number(ratio));
        }
        let (top, bottom) = rationalised(top, bottom, fuel)?;
        let (top, bottom) = cancelled(top, bottom, fuel)?;
        if let Some((product, coefficient)) = bottom.single() {
            let product = product.iter().map(|(a, e)| (a.clone(), -e)).collect();
            let inverse = normal_term(product, coefficient.recip(), fuel)?;
            return Some(Frac::from_sum(top.mul(&inverse, fuel)?));
        }
        let scale = bottom.leading()?.recip();
        Some(Frac {
            top: top.scaled(&scale, fuel)?,
            bottom: bottom.scaled(&scale, fuel)?,
        })
    }

    /// The fraction as text: equal texts, equal values.
    pub(in crate::grading) fn key(&self) -> String {
        if self.bottom.is_one() {
            return self.top.key();
        }
        format!("({})/({})", self.top.key(), self.bottom.key())
    }

    /// The difference of two fractions over a common denominator.
    pub(in crate::grading) fn difference(&self, other: &Frac, fuel: &Fuel) -> Option<Sum> {
        if self.bottom == other.bottom {
            return self.top.add(&other.top.negated(), fuel);
        }
        let left = self.top.mul(&other.bottom, fuel)?;
        let right = other.top.mul(&self.bottom, fuel)?;
        left.add(&right.negated(), fuel)
    }
}

/// The quotient of top and bottom, if it is a number.
pub(super) fn ratio(top: &Sum, bottom: &Sum, fuel: &Fuel) -> Option<BigRational> {
    let (a, b) = (top.leading()?, bottom.leading()?);
    pay(a, b, fuel)?;
    let ratio = a / b;
    (top.0.len() == bottom.0.len() && bottom.scaled(&ratio, fuel)? == *top).then_some(ratio)
}

/// Removes i and square roots from the terms of a denominator that is a constant.
pub(super) fn rationalised(mut top: Sum, mut bottom: Sum, fuel: &Fuel) -> Option<(Sum, Sum)> {
    let half = Rational64::new(1, 2);
    for _ in 0..8 {
        if bottom.has_symbols() || bottom.0.len() > 8 || bottom.0.len() < 2 {
            break;
        }
        let found = bottom
            .0
            .keys()
            .flatten()
            .find(|(atom, e)| match *atom.kind {
                Kind::I => e.is_one(),
                Kind::Prime(_) => *e == half,
                _ => false,
            });
        let Some((atom, _)) = found.cloned() else {
            break;
        };
        // a + b√p times a - b√p
        let conjugate = Sum((bottom.0.iter())
            .map(|(p, c)| {
                let negative = p.iter().any(|(a, _)| *a == atom);
                (p.clone(), if negative { -c } else { c.clone() })
            })
            .collect());
        top = top.mul(&conjugate, fuel)?;
        bottom = bottom.mul(&conjugate, fuel)?;
        if bottom.is_zero() {
            return None;
        }
    }
    Some((top, bottom))
}

/// Cancels common powers of atoms, and common factors in one variable.
pub(super) fn cancelled(top: Sum, bottom: Sum, fuel: &Fuel) -> Option<(Sum, Sum)> {
    let mut common: Option<BTreeMap<Atom, Rational64>> = None;
    for product in top.0.keys().chain(bottom.0.keys()) {
        fuel.take(1 + product.len() as u64)?;
        let here: BTreeMap<Atom, Rational64> = product.iter().cloned().collect();
        let zero = Rational64::zero();
        common = Some(match common {
            None => here,
            Some(common) => {
                let atoms = common.keys().chain(here.keys());
                let least = atoms.map(|atom| {
                    let (a, b) = (common.get(atom), here.get(atom));
                    (atom.clone(), *a.unwrap_or(&zero).min(b.unwrap_or(&zero)))
                });
                least.filter(|(_, e)| !e.is_zero()).collect()
            }
        });
    }
    let inverse: Product = (common.into_iter().flatten())
        .filter(|(atom, _)| !matches!(*atom.kind, Kind::Prime(_) | Kind::I | Kind::Root(_)))
        .map(|(atom, e)| (atom, -e))
        .collect();
    let inverse = Sum::term(inverse, rational(1));
    let (top, bottom) = (top.mul(&inverse, fuel)?, bottom.mul(&inverse, fuel)?);
    let variable = (bottom.0.len() > 1)
        .then(|| only_variable(&top, &bottom))
        .flatten();
    let Some(variable) = variable else {
        return Some((top, bottom));
    };
    let (mut a, mut b) = (dense(&top)?, dense(&bottom)?);
    let (whole_a, whole_b) = (a.clone(), b.clone());
    while !b.is_empty() {
        let rest = divide(&a, &b, fuel)?.1;
        (a, b) = (b, rest);
    }
    if a.len() <= 1 {
        return Some((top, bottom));
    }
    let quotient = |whole: &[BigRational]| {
        let coefficients = divide(whole, &a, fuel)?.0;
        let mut sum = Sum::zero();
        for (power, c) in coefficients.into_iter().enumerate() {
            if c.is_zero() {
                continue;
            }
            let product = match i64::try_from(power).ok()? {
                0 => Vec::new(),
                power => vec![(variable.clone(), Rational64::from_integer(power))],
            };
            sum.insert(product, c, fuel)?;
        }
        Some(sum)
    };
    Some((quotient(&whole_a)?, quotient(&whole_b)?))
}

/// The one variable of two polynomials with rational coefficients and powers up to 60.
pub(super) fn only_variable(top: &Sum, bottom: &Sum) -> Option<Atom> {
    let mut variable: Option<&Atom> = None;
    for product in top.0.keys().chain(bottom.0.keys()) {
        match product.as_slice() {
            [] => {}
            [(atom, e)] => {
                let plain = e.is_integer() && (1..=60).contains(&e.to_integer());
                if !plain || *variable.get_or_insert(atom) != atom {
                    return None;
                }
            }
            _ => return None,
        }
    }
    variable.filter(|a| !matches!(*a.kind, Kind::I)).cloned()
}

/// Coefficients by power.
pub(super) fn dense(sum: &Sum) -> Option<Vec<BigRational>> {
    let mut coefficients = Vec::new();
    for (product, c) in &sum.0 {
        let power = product.first().map_or(0, |(_, e)| e.to_integer());
        let power = usize::try_from(power).ok()?;
        if coefficients.len() <= power {
            coefficients.resize(power + 1, BigRational::zero());
        }
        coefficients[power] = c.clone();
    }
    Some(coefficients)
}

/// Quotient and remainder of polynomials.
pub(super) fn divide(
    a: &[BigRational],
    b: &[BigRational],
    fuel: &Fuel,
) -> Option<(Vec<BigRational>, Vec<BigRational>)> {
    let lead = b.last()?;
    let mut rest = a.to_vec();
    let mut quotient = vec![BigRational::zero(); (a.len() + 1).saturating_sub(b.len())];
    while rest.len() >= b.len() {
        let shift = rest.len() - b.len();
        let last = rest.last()?;
        pay(last, lead, fuel)?;
        let factor = last / lead;
        for (i, c) in b.iter().enumerate() {
            pay(c, &factor, fuel)?;
            let product = c * &factor;
            pay(&product, &rest[shift + i], fuel)?;
            rest[shift + i] -= product;
        }
        quotient[shift] = factor;
        while rest.last().is_some_and(BigRational::is_zero) {
            rest.pop();
        }
    }
    Some((quotient, rest))
}
