//! Powers and roots.

use super::function::sine_of_turn;
use super::sum::{
    Atom, Kind, Product, Sum, add_exponents, integer_power, is_small, normal_term, pay, rational,
};
use super::{Frac, Fuel};
use num_bigint::{BigInt, BigUint};
use num_rational::{BigRational, Rational64};
use num_traits::{CheckedMul, One, Signed, ToPrimitive, Zero};

impl Frac {
    /// A power with a rational or any other exponent. A real root is preferred where there is one.
    pub(in crate::grading) fn pow(&self, exponent: &Frac, fuel: &Fuel) -> Option<Frac> {
        match exponent.rational() {
            Some(exponent) if exponent.is_integer() => {
                self.integer_pow(exponent.to_integer().to_i64()?, fuel)
            }
            Some(exponent) => {
                let part = |n: &BigInt| n.to_i64().filter(|n| n.unsigned_abs() <= 10_000);
                let (p, q) = (part(exponent.numer())?, part(exponent.denom())?);
                self.root(Rational64::new(p, q), fuel)
            }
            None => self.symbolic_pow(exponent, fuel),
        }
    }

    pub(super) fn integer_pow(&self, exponent: i64, fuel: &Fuel) -> Option<Frac> {
        if self.top.is_zero() {
            return (exponent > 0).then(|| self.clone());
        }
        let size = exponent.unsigned_abs();
        if let (Some((product, c)), true) = (self.top.single(), self.bottom.is_one()) {
            let whole = Rational64::from_integer(exponent);
            let mut product = product.clone();
            let coefficient = match integer_power(c, exponent, fuel) {
                Some(power) => power,
                // too long to be written out: its primes take the power
                None => {
                    for (n, sign) in [(c.numer(), 1), (c.denom(), -1)] {
                        for (prime, power) in factors(n.magnitude(), fuel)? {
                            let e = Rational64::from_integer(power * sign);
                            product.push((Atom::new(prime.to_string(), Kind::Prime(prime)), e));
                        }
                    }
                    rational(if c.is_negative() && exponent % 2 != 0 {
                        -1
                    } else {
                        1
                    })
                }
            };
            product.sort();
            merge(&mut product)?;
            let product = (product.iter())
                .map(|(a, e)| Some((a.clone(), e.checked_mul(&whole).filter(is_small)?)))
                .collect::<Option<Product>>()?;
            return Some(Frac::from_sum(normal_term(product, coefficient, fuel)?));
        }
        if size > 200 {
            return None;
        }
        let (top, bottom) = (self.top.pow(size, fuel)?, self.bottom.pow(size, fuel)?);
        if exponent < 0 {
            Frac::new(bottom, top, fuel)
        } else {
            Frac::new(top, bottom, fuel)
        }
    }

    /// self^exponent for an exponent that is not an integer.
    pub(super) fn root(&self, exponent: Rational64, fuel: &Fuel) -> Option<Frac> {
        if self.top.is_zero() {
            return (exponent > Rational64::zero()).then(|| self.clone());
        }
        // Positive factors leave the root: the content and powers of positive constants.
        let content = match self.top.single() {
            Some((_, c)) => c.abs(),
            None => self.top.content(fuel)?,
        };
        let mut outside: Product = Vec::new();
        let mut inside = self.top.scaled(&content.recip(), fuel)?;
        if let Some((product, sign)) = inside.single() {
            let (positive, rest): (Product, Product) =
                (product.iter().cloned()).partition(|(atom, _)| atom.is_positive_constant());
            for (atom, e) in positive {
                outside.push((atom, e.checked_mul(&exponent).filter(is_small)?));
            }
            inside = Sum::term(rest, sign.clone());
        }
        let mut result = Frac::from_sum(normal_term(outside, rational(1), fuel)?);
        for (n, sign) in [(content.numer(), 1), (content.denom(), -1)] {
            for (prime, power) in factors(n.magnitude(), fuel)? {
                let e = exponent.checked_mul(&Rational64::from_integer(power * sign));
                let key = prime.to_string();
                let product = vec![(Atom::new(key, Kind::Prime(prime)), e.filter(is_small)?)];
                let factor = Frac::from_sum(normal_term(product, rational(1), fuel)?);
                result = result.mul(&factor, fuel)?;
            }
        }
        let inside = Frac::new(inside, self.bottom.clone(), fuel)?;
        result.mul(&inside.bare_root(exponent, fuel)?, fuel)
    }

    /// The root of a sum without a positive constant factor.
    pub(super) fn bare_root(&self, exponent: Rational64, fuel: &Fuel) -> Option<Frac> {
        if let Some(value) = self.rational() {
            if value.is_one() {
                return Some(Frac::integer(1));
            }
            let odd = exponent.denom() % 2 == 1;
            if (-&value).is_one() && odd {
                let sign = if exponent.numer() % 2 == 0 { 1 } else { -1 };
                return Some(Frac::integer(sign));
            }
            if (-&value).is_one() && *exponent.denom() == 2 {
                return Frac::i().integer_pow(*exponent.numer(), fuel);
            }
        }
        if *exponent.denom() == 2
            && let Some(root) = self.denested(fuel)
        {
            return root.integer_pow(*exponent.numer(), fuel);
        }
        if let (Some((product, c)), true) = (self.top.single(), self.bottom.is_one())
            && c.is_one()
            && let [(atom, power)] = product.as_slice()
            && power.is_one()
        {
            return Some(Frac::from_sum(Sum::term(
                vec![(atom.clone(), exponent)],
                rational(1),
            )));
        }
        let key = format!("({})", self.key());
        fuel.take(key.len() as u64)?;
        let product = vec![(Atom::new(key, Kind::Root(self.clone())), exponent)];
        Some(Frac::from_sum(normal_term(product, rational(1), fuel)?))
    }

    /// sqrt(a + b sqrt(n)) = sqrt((a+s)/2) ± sqrt((a-s)/2) when s = sqrt(a² - b²n) is rational.
    pub(super) fn denested(&self, fuel: &Fuel) -> Option<Frac> {
        if !self.bottom.is_one() || self.top.0.len() != 2 {
            return None;
        }
        let mut terms = self.top.0.iter();
        let ((none, a), (product, b)) = (terms.next()?, terms.next()?);
        let half = Rational64::new(1, 2);
        let radical =
            (product.iter()).all(|(atom, e)| matches!(*atom.kind, Kind::Prime(_)) && *e == half);
        if !none.is_empty() || !radical || !a.is_positive() {
            return None;
        }
        let square = Sum::term(product.clone(), b.clone())
            .pow(2, fuel)?
            .rational()?;
        pay(a, a, fuel)?;
        let s = Frac::number(a * a - square);
        let s = s.root(half, fuel)?.rational()?;
        let part = |x: BigRational| {
            (!x.is_negative())
                .then(|| Frac::number(x / rational(2)).root(half, fuel))
                .flatten()
        };
        let (large, small) = (part(a + &s)?, part(a - &s)?);
        let small = if b.is_negative() {
            small.negated()
        } else {
            small
        };
        large.add(&small, fuel)
    }

    /// base^(c m + ...) where m is not a number: the base to every term, m in the atom, c as its
    /// power.
    pub(super) fn symbolic_pow(&self, exponent: &Frac, fuel: &Fuel) -> Option<Frac> {
        if self.top.is_zero() {
            return None;
        }
        if self.rational().is_some_and(|x| x.is_one()) {
            return Some(Frac::integer(1));
        }
        let mut bases: Vec<(Frac, Rational64)> = Vec::new();
        match self.rational().filter(|x| x.is_positive()) {
            Some(x) => {
                for (n, sign) in [(x.numer(), 1), (x.denom(), -1)] {
                    for (prime, power) in factors(n.magnitude(), fuel)? {
                        let base = Frac::number(BigRational::from_integer(prime));
                        bases.push((base, Rational64::from_integer(power * sign)));
                    }
                }
            }
            None => bases.push((self.clone(), Rational64::one())),
        }
        let mut terms: Vec<(Frac, BigRational)> = Vec::new();
        if exponent.bottom.is_one() {
            for (product, c) in &exponent.top.0 {
                let rest = Sum::term(product.clone(), rational(1));
                terms.push((Frac::from_sum(rest), c.clone()));
            }
        } else {
            terms.push((exponent.clone(), rational(1)));
        }
        let mut result = Frac::integer(1);
        for (base, power) in &bases {
            for (rest, c) in &terms {
                fuel.take(20)?;
                let part = |n: &BigInt| n.to_i64().filter(|n| n.unsigned_abs() <= 1_000_000);
                let c = Rational64::new(part(c.numer())?, part(c.denom())?);
                let c = c.checked_mul(power).filter(is_small)?;
                let factor = if rest.rational().is_some() {
                    let c = BigRational::new((*c.numer()).into(), (*c.denom()).into());
                    base.pow(&Frac::number(c), fuel)?
                } else if let Some(turn) = base.turn(rest, c, fuel) {
                    turn
                } else {
                    let name = base.key();
                    let plain = name.chars().all(char::is_alphanumeric);
                    let key = if plain {
                        format!("{name}^({})", rest.key())
                    } else {
                        format!("({name})^({})", rest.key())
                    };
                    fuel.take(key.len() as u64)?;
                    let kind = Kind::Power(base.clone(), rest.clone());
                    Frac::from_sum(Sum::term(vec![(Atom::new(key, kind), c)], rational(1)))
                };
                result = result.mul(&factor, fuel)?;
            }
        }
        Some(result)
    }

    /// e^(i π c) = cos(π c) + i sin(π c), where these are radicals.
    pub(super) fn turn(&self, rest: &Frac, c: Rational64, fuel: &Fuel) -> Option<Frac> {
        let is_turn = *self == Frac::e() && *rest == Frac::pi().mul(&Frac::i(), fuel)?;
        if !is_turn {
            return None;
        }
        let sine = sine_of_turn(c, fuel)?;
        let cosine = sine_of_turn(add_exponents(c, Rational64::new(1, 2))?, fuel)?;
        cosine.add(&sine.mul(&Frac::i(), fuel)?, fuel)
    }
}

/// Makes one factor of two with the same atom, in a sorted product.
fn merge(product: &mut Product) -> Option<()> {
    let mut merged: Product = Vec::with_capacity(product.len());
    for (atom, e) in product.drain(..) {
        match merged.last_mut() {
            Some((last, sum)) if *last == atom => *sum = add_exponents(*sum, e)?,
            _ => merged.push((atom, e)),
        }
    }
    *product = merged;
    Some(())
}

/// Prime factors with their powers, small ones by trial division; the rest is one "prime", or
/// a power of its root if it is a perfect power.
pub(super) fn factors(n: &BigUint, fuel: &Fuel) -> Option<Vec<(BigInt, i64)>> {
    let mut left = n.clone();
    let mut found = Vec::new();
    let mut trial = 2u64;
    while trial < 2000 && !left.is_one() {
        if left.to_u64().is_some_and(|left| trial * trial > left) {
            break;
        }
        fuel.take(1 + left.bits() / 64)?;
        let mut power = 0;
        while (&left % trial).is_zero() {
            left /= trial;
            power += 1;
        }
        if power > 0 {
            found.push((BigInt::from(trial), power));
        }
        trial += if trial == 2 { 1 } else { 2 };
    }
    if !left.is_one() {
        let mut power = 1u32;
        for exponent in [2u32, 3, 5, 7] {
            loop {
                fuel.take(4 + left.bits() / 8)?;
                let root = left.nth_root(exponent);
                if root.pow(exponent) != left {
                    break;
                }
                left = root;
                power *= exponent;
            }
        }
        found.push((left.into(), power.into()));
    }
    Some(found)
}
