//! Sums of products.

use super::{Frac, Fuel};
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::{BigRational, Rational64};
use num_traits::{CheckedAdd, One, Signed, Zero};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Numbers longer than this have no value here.
pub(super) const MAX_BITS: u64 = 8192;

/// Terms of a sum.
pub(super) const MAX_TERMS: usize = 400;

/// A factor of a product.
#[derive(Debug, Clone)]
pub(in crate::grading) struct Atom {
    /// Equal atoms, equal keys.
    key: Rc<str>,
    pub(in crate::grading) kind: Rc<Kind>,
}

/// The kinds of atoms.
#[derive(Debug)]
pub(in crate::grading) enum Kind {
    /// A prime, or a large number that was not factored, under a fractional power.
    Prime(BigInt),
    I,
    Pi,
    E,
    /// A variable.
    Symbol,
    /// A base under a fractional power.
    Root(Frac),
    /// A base under a power that is not a rational number.
    Power(Frac, Frac),
    /// A function.
    Call(&'static str, Vec<Frac>),
}

impl Atom {
    pub(super) fn new(key: String, kind: Kind) -> Atom {
        let (key, kind) = (key.into(), Rc::new(kind));
        Atom { key, kind }
    }

    /// The name of a variable; the key of any other atom.
    pub(in crate::grading) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn rank(&self) -> u8 {
        match *self.kind {
            Kind::Prime(_) => 0,
            Kind::I => 1,
            Kind::Pi => 2,
            Kind::E => 3,
            Kind::Symbol => 4,
            Kind::Root(_) => 5,
            Kind::Power(..) => 6,
            Kind::Call(..) => 7,
        }
    }

    /// Whether it may have relations to other atoms that the normal form does not use.
    pub(super) fn is_opaque(&self) -> bool {
        self.rank() >= 5
    }

    pub(super) fn is_positive_constant(&self) -> bool {
        matches!(*self.kind, Kind::Prime(_) | Kind::Pi | Kind::E)
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Atom) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Atom {}
impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Atom) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Atom {
    fn cmp(&self, other: &Atom) -> Ordering {
        (self.rank().cmp(&other.rank()))
            .then_with(|| self.key.len().cmp(&other.key.len()))
            .then_with(|| self.key.cmp(&other.key))
    }
}

/// Powers of atoms, by atom.
pub(super) type Product = Vec<(Atom, Rational64)>;

/// Products and their coefficients, none of them zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::grading) struct Sum(pub(in crate::grading) BTreeMap<Product, BigRational>);

pub(super) fn bits(x: &BigRational) -> u64 {
    x.numer().bits() + x.denom().bits()
}

/// The cost of an operation on two numbers, and the limit on their length.
pub(super) fn pay(a: &BigRational, b: &BigRational, fuel: &Fuel) -> Option<()> {
    let limbs = (bits(a) + bits(b)) / 64;
    if bits(a) > MAX_BITS || bits(b) > MAX_BITS {
        return None;
    }
    // fractions are reduced, which costs many times the product
    let reduced = if a.is_integer() && b.is_integer() {
        2
    } else {
        20
    };
    fuel.take(reduced + limbs * (limbs + 4) / 2)
}

pub(super) fn rational(n: i64) -> BigRational {
    BigRational::from_integer(n.into())
}

/// The product; of whole numbers without looking for common factors.
fn times(a: &BigRational, b: &BigRational) -> BigRational {
    match (a.is_integer(), b.is_integer()) {
        _ if b.is_one() => a.clone(),
        _ if a.is_one() => b.clone(),
        (true, true) => BigRational::from_integer(a.numer() * b.numer()),
        _ => a * b,
    }
}

pub(super) fn add_exponents(a: Rational64, b: Rational64) -> Option<Rational64> {
    a.checked_add(&b).filter(is_small)
}

pub(super) fn is_small(e: &Rational64) -> bool {
    e.numer().unsigned_abs() <= 1_000_000_000_000 && *e.denom() <= 1_000_000
}

/// Whether a power of a prime is too long to be written out: it stays a power in the product.
fn is_large(prime: &BigInt, exponent: i64) -> bool {
    let bits = prime.bits().saturating_mul(exponent.unsigned_abs());
    bits > MAX_BITS / 2
}

/// A term whose powers of primes hold all of their primes: 2^10000 · 2 is 2^10001.
pub(super) fn settled(
    mut product: Product,
    coefficient: BigRational,
    fuel: &Fuel,
) -> Option<(Product, BigRational)> {
    let large = |product: &Product| {
        let is = |(atom, e): &(Atom, Rational64)| match &*atom.kind {
            Kind::Prime(prime) => is_large(prime, e.floor().to_integer()),
            _ => false,
        };
        product.iter().any(is)
    };
    if !large(&product) {
        return Some((product, coefficient));
    }
    let (mut top, mut bottom) = (coefficient.numer().clone(), coefficient.denom().clone());
    let mut factor = rational(1);
    for (atom, e) in &mut product {
        let Kind::Prime(prime) = &*atom.kind else {
            continue;
        };
        let whole = e.floor().to_integer();
        if whole == 0 {
            continue;
        }
        let mut moved = 0;
        for (number, step) in [(&mut top, 1), (&mut bottom, -1)] {
            fuel.take(4 + number.bits() / 64)?;
            while !number.is_zero() && (&*number % prime).is_zero() {
                fuel.take(4 + number.bits() / 64)?;
                *number /= prime;
                moved += step;
            }
        }
        *e = add_exponents(*e, Rational64::from_integer(moved))?;
        let whole = e.floor().to_integer();
        if !is_large(prime, whole) {
            factor *= integer_power(&BigRational::from_integer(prime.clone()), whole, fuel)?;
            *e -= Rational64::from_integer(whole);
        }
    }
    product.retain(|(_, e)| !e.is_zero());
    Some((product, BigRational::new(top, bottom) * factor))
}

impl Sum {
    pub(super) fn zero() -> Sum {
        Sum(BTreeMap::new())
    }

    pub(super) fn number(value: BigRational) -> Sum {
        Sum::term(Vec::new(), value)
    }

    pub(super) fn one() -> Sum {
        Sum::number(rational(1))
    }

    pub(super) fn term(product: Product, coefficient: BigRational) -> Sum {
        let mut sum = Sum::zero();
        if !coefficient.is_zero() {
            sum.0.insert(product, coefficient);
        }
        sum
    }

    pub(in crate::grading) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is the number 1.
    pub(super) fn is_one(&self) -> bool {
        self.single()
            .is_some_and(|(product, c)| product.is_empty() && c.is_one())
    }

    /// The value of a sum without atoms.
    pub(in crate::grading) fn rational(&self) -> Option<BigRational> {
        match self.0.len() {
            0 => Some(BigRational::zero()),
            1 => self.0.get(&Vec::new()).cloned(),
            _ => None,
        }
    }

    /// The only term.
    pub(super) fn single(&self) -> Option<(&Product, &BigRational)> {
        (self.0.len() == 1).then(|| self.0.iter().next()).flatten()
    }

    pub(in crate::grading) fn atoms(&self) -> impl Iterator<Item = &Atom> {
        self.0.keys().flatten().map(|(atom, _)| atom)
    }

    pub(super) fn insert(
        &mut self,
        product: Product,
        coefficient: BigRational,
        fuel: &Fuel,
    ) -> Option<()> {
        use std::collections::btree_map::Entry;
        let (mut product, mut coefficient) = (product, coefficient);
        loop {
            match self.0.entry(product) {
                Entry::Vacant(entry) => {
                    entry.insert(coefficient);
                    break;
                }
                Entry::Occupied(mut entry) => {
                    pay(entry.get(), &coefficient, fuel)?;
                    let total = entry.get() + &coefficient;
                    if total.is_zero() {
                        entry.remove();
                        break;
                    }
                    let settled = settled(entry.key().clone(), total.clone(), fuel)?;
                    if settled.0 == *entry.key() {
                        entry.insert(settled.1);
                        break;
                    }
                    entry.remove();
                    (product, coefficient) = settled;
                }
            }
        }
        (self.0.len() <= MAX_TERMS).then_some(())
    }

    pub(super) fn add(&self, other: &Sum, fuel: &Fuel) -> Option<Sum> {
        fuel.take((self.0.len() + other.0.len()) as u64)?;
        let mut sum = self.clone();
        for (product, coefficient) in &other.0 {
            sum.insert(product.clone(), coefficient.clone(), fuel)?;
        }
        Some(sum)
    }

    pub(in crate::grading) fn negated(&self) -> Sum {
        Sum(self.0.iter().map(|(p, c)| (p.clone(), -c)).collect())
    }

    pub(super) fn scaled(&self, factor: &BigRational, fuel: &Fuel) -> Option<Sum> {
        let mut sum = Sum::zero();
        for (product, coefficient) in &self.0 {
            pay(coefficient, factor, fuel)?;
            sum.insert(product.clone(), times(coefficient, factor), fuel)?;
        }
        Some(sum)
    }

    pub(in crate::grading) fn mul(&self, other: &Sum, fuel: &Fuel) -> Option<Sum> {
        self.mul_at(other, fuel, 0)
    }

    pub(super) fn mul_at(&self, other: &Sum, fuel: &Fuel, depth: usize) -> Option<Sum> {
        if depth > 4 {
            return None;
        }
        let mut sum = Sum::zero();
        for (p, a) in &self.0 {
            for (q, b) in &other.0 {
                fuel.take(4 + 2 * (p.len() + q.len()) as u64)?;
                pay(a, b, fuel)?;
                let (product, factor, roots) = multiply(p, q, fuel)?;
                let mut coefficient = times(a, b);
                if !factor.is_one() {
                    pay(&coefficient, &factor, fuel)?;
                    coefficient *= factor;
                }
                let (product, coefficient) = settled(product, coefficient, fuel)?;
                if roots.is_empty() {
                    sum.insert(product, coefficient, fuel)?;
                    continue;
                }
                // (sqrt(x+1))^2 is x+1
                let mut term = Sum::term(product, coefficient);
                for root in roots {
                    term = term.mul_at(&root, fuel, depth + 1)?;
                }
                sum = sum.add(&term, fuel)?;
            }
        }
        Some(sum)
    }

    pub(super) fn pow(&self, exponent: u64, fuel: &Fuel) -> Option<Sum> {
        let mut result = Sum::one();
        let (mut base, mut left) = (self.clone(), exponent);
        while left > 0 {
            if left & 1 == 1 {
                result = result.mul(&base, fuel)?;
            }
            left >>= 1;
            if left > 0 {
                base = base.mul(&base, fuel)?;
            }
        }
        Some(result)
    }

    /// The positive rational that all coefficients are multiples of, none of them fractions after
    /// the division.
    pub(super) fn content(&self, fuel: &Fuel) -> Option<BigRational> {
        let (mut top, mut bottom) = (BigInt::zero(), BigInt::one());
        for c in self.0.values() {
            let limbs = (bits(c) + top.bits() + bottom.bits()) / 64;
            fuel.take(2 + limbs * (limbs + 4) / 2)?;
            top = top.gcd(c.numer());
            bottom = bottom.lcm(c.denom());
            if bottom.bits() > MAX_BITS {
                return None;
            }
        }
        (!top.is_zero()).then(|| BigRational::new(top, bottom))
    }

    pub(super) fn leading(&self) -> Option<&BigRational> {
        self.0.values().next_back()
    }

    pub(super) fn has_symbols(&self) -> bool {
        self.atoms().any(|a| a.rank() >= 4)
    }

    /// Whether the sum is zero for a reason that its atoms do not show, or may be.
    pub(in crate::grading) fn is_opaque(&self) -> bool {
        self.atoms().any(Atom::is_opaque)
    }

    /// Divided by its content, so that the largest product has a positive coefficient.
    pub(in crate::grading) fn primitive(&self, fuel: &Fuel) -> Option<Sum> {
        let mut scale = self.content(fuel)?.recip();
        if self.leading().is_some_and(Signed::is_negative) {
            scale = -scale;
        }
        self.scaled(&scale, fuel)
    }

    pub(in crate::grading) fn key(&self) -> String {
        let mut out = String::new();
        for (product, c) in self.0.iter().rev() {
            let factors = product_key(product);
            let size = c.abs();
            out += match (c.is_negative(), out.is_empty()) {
                (true, _) => "-",
                (false, true) => "",
                (false, false) => "+",
            };
            match (factors.is_empty(), size.is_one()) {
                (true, _) => out += &size.to_string(),
                (false, true) => out += &factors,
                (false, false) => out += &format!("{size}*{factors}"),
            }
        }
        if out.is_empty() { "0".into() } else { out }
    }
}

pub(super) fn product_key(product: &Product) -> String {
    let half = Rational64::new(1, 2);
    let mut radicand = BigInt::one();
    let mut pieces = Vec::new();
    for (atom, e) in product {
        match &*atom.kind {
            Kind::Prime(prime) if *e == half => radicand *= prime,
            _ if e.is_one() => pieces.push(atom.key().to_string()),
            _ if e.is_integer() && e.is_positive() => pieces.push(format!("{}^{e}", atom.key())),
            _ => pieces.push(format!("{}^({e})", atom.key())),
        }
    }
    if !radicand.is_one() {
        pieces.insert(0, format!("sqrt({radicand})"));
    }
    pieces.join("*")
}

/// The product of two products: the powers, a rational factor, and sums to multiply with.
pub(super) fn multiply(
    p: &Product,
    q: &Product,
    fuel: &Fuel,
) -> Option<(Product, BigRational, Vec<Sum>)> {
    let mut merged: Product = Vec::with_capacity(p.len() + q.len());
    let (mut a, mut b) = (p.iter().peekable(), q.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some((x, _)), Some((y, _))) => x.cmp(y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        match order {
            Ordering::Less => merged.extend(a.next().cloned()),
            Ordering::Greater => merged.extend(b.next().cloned()),
            Ordering::Equal => {
                if let (Some((atom, x)), Some((_, y))) = (a.next(), b.next()) {
                    merged.push((atom.clone(), add_exponents(*x, *y)?));
                }
            }
        }
    }
    let (mut factor, mut roots) = (rational(1), Vec::new());
    let mut kept = Vec::with_capacity(merged.len());
    for (atom, exponent) in merged {
        let exponent = match &*atom.kind {
            Kind::Prime(prime) => {
                let whole = exponent.floor().to_integer();
                if whole == 0 || is_large(prime, whole) {
                    kept.push((atom, exponent));
                    continue;
                }
                let power = integer_power(&BigRational::from_integer(prime.clone()), whole, fuel)?;
                pay(&factor, &power, fuel)?;
                factor *= power;
                exponent - Rational64::from_integer(whole)
            }
            Kind::I if exponent.is_integer() => {
                let quarter = exponent.to_integer().rem_euclid(4);
                if quarter >= 2 {
                    factor = -factor;
                }
                Rational64::from_integer(quarter % 2)
            }
            Kind::Root(base) if base.bottom.is_one() => {
                let whole = exponent.trunc().to_integer();
                if whole >= 1 {
                    roots.push(base.top.pow(whole.unsigned_abs(), fuel)?);
                    exponent - Rational64::from_integer(whole)
                } else {
                    exponent
                }
            }
            _ => exponent,
        };
        if !exponent.is_zero() {
            kept.push((atom, exponent));
        }
    }
    Some((kept, factor, roots))
}

pub(super) fn integer_power(base: &BigRational, exponent: i64, fuel: &Fuel) -> Option<BigRational> {
    if base.is_zero() && exponent <= 0 {
        return None; // 0^0 and 1/0
    }
    let size = exponent.unsigned_abs();
    if base.numer().magnitude().is_one() && base.denom().is_one() {
        let odd = size % 2 == 1;
        return Some(if odd { base.clone() } else { rational(1) });
    }
    let total = base
        .numer()
        .bits()
        .max(base.denom().bits())
        .checked_mul(size)?;
    if total > MAX_BITS {
        return None;
    }
    fuel.take(1 + (total / 64) * (total / 64))?;
    let power = num_traits::pow(base.clone(), usize::try_from(size).ok()?);
    Some(if exponent < 0 { power.recip() } else { power })
}

/// A term whose powers may be out of their ranges.
pub(super) fn normal_term(product: Product, coefficient: BigRational, fuel: &Fuel) -> Option<Sum> {
    let mut product = product;
    product.sort();
    Sum::term(product, coefficient).mul(&Sum::one(), fuel)
}
