//! Exact normal forms: fractions of sums of products over the rationals.
//!
//! A product is a coefficient times powers of *atoms*. Primes (for radicals), i, π, e and
//! variables are atoms whose relations are all known (radicals of distinct primes are linearly
//! independent over the rationals; π, e and variables are treated as independent), so equal
//! values have equal cross products and different ones do not. Everything else, such as sin x or
//! a nested radical, is an *opaque* atom: equal when written alike, otherwise for `numeric` to
//! decide.
//!
//! All work is paid for with fuel. Out of fuel means "no value", never a wrong one.

use super::numeric;
use num_bigint::{BigInt, BigUint};
use num_integer::Integer;
use num_rational::{BigRational, Rational64};
use num_traits::{CheckedAdd, CheckedMul, One, Signed, ToPrimitive, Zero};
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Numbers longer than this have no value here.
const MAX_BITS: u64 = 8192;
/// Terms of a sum.
const MAX_TERMS: usize = 400;

/// The work that one comparison may still do: the deadline that makes results repeatable.
pub(super) struct Fuel(Cell<u64>);

impl Fuel {
    /// Enough for any answer a person would write, a few milliseconds at most.
    pub(super) fn full() -> Fuel {
        Fuel(Cell::new(400_000))
    }

    /// Pays for `work` elementary operations; `None` when they are not left.
    pub(super) fn take(&self, work: u64) -> Option<()> {
        let left = self.0.get().checked_sub(work);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
    }
}

/// What a product is made of.
#[derive(Debug, Clone)]
pub(super) struct Atom {
    /// Equal atoms, equal keys.
    key: Rc<str>,
    pub(super) kind: Rc<Kind>,
}

/// The kinds of atoms.
#[derive(Debug)]
pub(super) enum Kind {
    /// A prime, or a large number nobody factored, under a fractional power.
    Prime(BigInt),
    I,
    Pi,
    E,
    /// A variable.
    Symbol,
    /// A base under a fractional power.
    Root(Frac),
    /// A base under a power that is no rational number.
    Power(Frac, Frac),
    /// A function.
    Call(&'static str, Vec<Frac>),
}

impl Atom {
    fn new(key: String, kind: Kind) -> Atom {
        let (key, kind) = (key.into(), Rc::new(kind));
        Atom { key, kind }
    }

    /// The name of a variable; the key of any other atom.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    fn rank(&self) -> u8 {
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

    /// Whether relations to other atoms may exist that the normal form does not know.
    fn is_opaque(&self) -> bool {
        self.rank() >= 5
    }

    fn is_positive_constant(&self) -> bool {
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
type Product = Vec<(Atom, Rational64)>;

/// Products and their coefficients, none of them zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum(pub(super) BTreeMap<Product, BigRational>);

/// A fraction of sums. The denominator is 1 or has several terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frac {
    pub(super) top: Sum,
    pub(super) bottom: Sum,
}

fn bits(x: &BigRational) -> u64 {
    x.numer().bits() + x.denom().bits()
}

/// The cost of an operation on two numbers, and the limit on their length.
fn pay(a: &BigRational, b: &BigRational, fuel: &Fuel) -> Option<()> {
    let limbs = (bits(a) + bits(b)) / 64;
    if bits(a) > MAX_BITS || bits(b) > MAX_BITS {
        return None;
    }
    fuel.take(2 + limbs * (limbs + 4) / 2)
}

fn rational(n: i64) -> BigRational {
    BigRational::from_integer(n.into())
}

fn add_exponents(a: Rational64, b: Rational64) -> Option<Rational64> {
    a.checked_add(&b).filter(is_small)
}

fn is_small(e: &Rational64) -> bool {
    e.numer().unsigned_abs() <= 1_000_000 && *e.denom() <= 1_000_000
}

impl Sum {
    fn zero() -> Sum {
        Sum(BTreeMap::new())
    }

    fn number(value: BigRational) -> Sum {
        Sum::term(Vec::new(), value)
    }

    fn one() -> Sum {
        Sum::number(rational(1))
    }

    fn term(product: Product, coefficient: BigRational) -> Sum {
        let mut sum = Sum::zero();
        if !coefficient.is_zero() {
            sum.0.insert(product, coefficient);
        }
        sum
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a sum without atoms.
    pub(super) fn rational(&self) -> Option<BigRational> {
        match self.0.len() {
            0 => Some(BigRational::zero()),
            1 => self.0.get(&Vec::new()).cloned(),
            _ => None,
        }
    }

    /// The only term.
    fn single(&self) -> Option<(&Product, &BigRational)> {
        (self.0.len() == 1).then(|| self.0.iter().next()).flatten()
    }

    pub(super) fn atoms(&self) -> impl Iterator<Item = &Atom> {
        self.0.keys().flatten().map(|(atom, _)| atom)
    }

    fn insert(&mut self, product: Product, coefficient: BigRational, fuel: &Fuel) -> Option<()> {
        use std::collections::btree_map::Entry;
        match self.0.entry(product) {
            Entry::Vacant(entry) => drop(entry.insert(coefficient)),
            Entry::Occupied(mut entry) => {
                pay(entry.get(), &coefficient, fuel)?;
                let total = entry.get() + coefficient;
                if total.is_zero() {
                    entry.remove();
                } else {
                    entry.insert(total);
                }
            }
        }
        (self.0.len() <= MAX_TERMS).then_some(())
    }

    fn add(&self, other: &Sum, fuel: &Fuel) -> Option<Sum> {
        fuel.take((self.0.len() + other.0.len()) as u64)?;
        let mut sum = self.clone();
        for (product, coefficient) in &other.0 {
            sum.insert(product.clone(), coefficient.clone(), fuel)?;
        }
        Some(sum)
    }

    pub(super) fn negated(&self) -> Sum {
        Sum(self.0.iter().map(|(p, c)| (p.clone(), -c)).collect())
    }

    fn scaled(&self, factor: &BigRational, fuel: &Fuel) -> Option<Sum> {
        let mut sum = Sum::zero();
        for (product, coefficient) in &self.0 {
            pay(coefficient, factor, fuel)?;
            sum.insert(product.clone(), coefficient * factor, fuel)?;
        }
        Some(sum)
    }

    pub(super) fn mul(&self, other: &Sum, fuel: &Fuel) -> Option<Sum> {
        self.mul_at(other, fuel, 0)
    }

    fn mul_at(&self, other: &Sum, fuel: &Fuel, depth: usize) -> Option<Sum> {
        if depth > 4 {
            return None;
        }
        let mut sum = Sum::zero();
        for (p, a) in &self.0 {
            for (q, b) in &other.0 {
                fuel.take(4 + 2 * (p.len() + q.len()) as u64)?;
                pay(a, b, fuel)?;
                let (product, factor, roots) = multiply(p, q, fuel)?;
                let coefficient = a * b;
                pay(&coefficient, &factor, fuel)?;
                let coefficient = coefficient * factor;
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

    fn pow(&self, exponent: u64, fuel: &Fuel) -> Option<Sum> {
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
    fn content(&self, fuel: &Fuel) -> Option<BigRational> {
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

    fn leading(&self) -> Option<&BigRational> {
        self.0.values().next_back()
    }

    fn has_symbols(&self) -> bool {
        self.atoms().any(|a| a.rank() >= 4)
    }
}

/// The product of two products: the powers, a rational factor, and sums to multiply with.
fn multiply(p: &Product, q: &Product, fuel: &Fuel) -> Option<(Product, BigRational, Vec<Sum>)> {
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
                if whole == 0 {
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
            Kind::Root(base) if base.bottom == Sum::one() => {
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

fn integer_power(base: &BigRational, exponent: i64, fuel: &Fuel) -> Option<BigRational> {
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

/// Prime factors with their powers, small ones by trial, what is left as one "prime" or the root
/// that it is a perfect power of.
fn factors(n: &BigUint, fuel: &Fuel) -> Option<Vec<(BigInt, i64)>> {
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

impl Frac {
    fn from_sum(top: Sum) -> Frac {
        Frac {
            top,
            bottom: Sum::one(),
        }
    }

    pub(super) fn number(value: BigRational) -> Frac {
        Frac::from_sum(Sum::number(value))
    }

    pub(super) fn integer(value: i64) -> Frac {
        Frac::number(rational(value))
    }

    fn atom(key: String, kind: Kind) -> Frac {
        let power = vec![(Atom::new(key, kind), Rational64::one())];
        Frac::from_sum(Sum::term(power, rational(1)))
    }

    pub(super) fn i() -> Frac {
        Frac::atom("i".into(), Kind::I)
    }

    pub(super) fn pi() -> Frac {
        Frac::atom("pi".into(), Kind::Pi)
    }

    pub(super) fn e() -> Frac {
        Frac::atom("e".into(), Kind::E)
    }

    pub(super) fn symbol(name: &str) -> Frac {
        Frac::atom(name.into(), Kind::Symbol)
    }

    /// Its value, if it is a rational number.
    pub(super) fn rational(&self) -> Option<BigRational> {
        (self.bottom == Sum::one())
            .then(|| self.top.rational())
            .flatten()
    }

    /// Whether a variable is in it.
    pub(super) fn has_symbols(&self) -> bool {
        self.top.has_symbols() || self.bottom.has_symbols()
    }

    pub(super) fn add(&self, other: &Frac, fuel: &Fuel) -> Option<Frac> {
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

    pub(super) fn negated(&self) -> Frac {
        Frac {
            top: self.top.negated(),
            bottom: self.bottom.clone(),
        }
    }

    pub(super) fn mul(&self, other: &Frac, fuel: &Fuel) -> Option<Frac> {
        let top = self.top.mul(&other.top, fuel)?;
        Frac::new(top, self.bottom.mul(&other.bottom, fuel)?, fuel)
    }

    /// 1/x; `None` for 1/0.
    pub(super) fn inverse(&self, fuel: &Fuel) -> Option<Frac> {
        Frac::new(self.bottom.clone(), self.top.clone(), fuel)
    }

    /// Cancels what can be cancelled.
    fn new(top: Sum, bottom: Sum, fuel: &Fuel) -> Option<Frac> {
        if bottom.is_zero() {
            return None;
        }
        if top.is_zero() || bottom == Sum::one() {
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

    /// A power, by a rational or any other exponent. Roots are the real ones where there are.
    pub(super) fn pow(&self, exponent: &Frac, fuel: &Fuel) -> Option<Frac> {
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

    fn integer_pow(&self, exponent: i64, fuel: &Fuel) -> Option<Frac> {
        if self.top.is_zero() {
            return (exponent > 0).then(|| self.clone());
        }
        let size = exponent.unsigned_abs();
        if let (Some((product, c)), true) = (self.top.single(), self.bottom == Sum::one()) {
            let whole = Rational64::from_integer(exponent);
            let coefficient = integer_power(c, exponent, fuel)?;
            let product = (product.iter())
                .map(|(a, e)| Some((a.clone(), e.checked_mul(&whole).filter(is_small)?)))
                .collect::<Option<Product>>()?;
            return Some(Frac::from_sum(normal_term(product, coefficient, fuel)?));
        }
        if size > 200 {
            return None;
        }
        let (top, bottom) = (self.top.pow(size, fuel)?, self.bottom.pow(size, fuel)?);
        match exponent < 0 {
            true => Frac::new(bottom, top, fuel),
            false => Frac::new(top, bottom, fuel),
        }
    }

    /// self^exponent for an exponent that is no integer.
    fn root(&self, exponent: Rational64, fuel: &Fuel) -> Option<Frac> {
        if self.top.is_zero() {
            return (exponent > Rational64::zero()).then(|| self.clone());
        }
        // Out of the root goes what is positive: the content and powers of positive constants.
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

    /// The root of what no positive constant can be taken out of.
    fn bare_root(&self, exponent: Rational64, fuel: &Fuel) -> Option<Frac> {
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
        if let (Some((product, c)), true) = (self.top.single(), self.bottom == Sum::one())
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
    fn denested(&self, fuel: &Fuel) -> Option<Frac> {
        if self.bottom != Sum::one() || self.top.0.len() != 2 {
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

    /// base^(c m + ...) with m no number: the base to every term, m in the atom, c as its power.
    fn symbolic_pow(&self, exponent: &Frac, fuel: &Fuel) -> Option<Frac> {
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
        if exponent.bottom == Sum::one() {
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
                    let key = format!("({})^({})", base.key(), rest.key());
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
    fn turn(&self, rest: &Frac, c: Rational64, fuel: &Fuel) -> Option<Frac> {
        let is_turn = *self == Frac::e() && *rest == Frac::pi().mul(&Frac::i(), fuel)?;
        if !is_turn {
            return None;
        }
        let sine = sine_of_turn(c, fuel)?;
        let cosine = sine_of_turn(add_exponents(c, Rational64::new(1, 2))?, fuel)?;
        cosine.add(&sine.mul(&Frac::i(), fuel)?, fuel)
    }

    /// A function's value: exact where it is known, an opaque atom otherwise.
    pub(super) fn call(name: &'static str, arguments: Vec<Frac>, fuel: &Fuel) -> Option<Frac> {
        fuel.take(20)?;
        let ratio = |a: &'static str, b: &'static str, x: &Frac| {
            let a = Frac::call(a, vec![x.clone()], fuel)?;
            a.mul(&Frac::call(b, vec![x.clone()], fuel)?.inverse(fuel)?, fuel)
        };
        if let [x] = arguments.as_slice() {
            match name {
                "tan" => return ratio("sin", "cos", x),
                "cot" => return ratio("cos", "sin", x),
                "sec" => return Frac::call("cos", arguments, fuel)?.inverse(fuel),
                "csc" => return Frac::call("sin", arguments, fuel)?.inverse(fuel),
                "exp" => return Frac::e().pow(x, fuel),
                "log" => {
                    let ten = Frac::call("ln", vec![Frac::integer(10)], fuel)?;
                    return Frac::call("ln", arguments, fuel)?.mul(&ten.inverse(fuel)?, fuel);
                }
                "sin" | "cos" => {
                    if let Some(value) = x.sine_or_cosine(name == "cos", fuel) {
                        return Some(value);
                    }
                    if x.top.leading().is_some_and(Signed::is_negative) {
                        let value = Frac::call(name, vec![x.negated()], fuel)?;
                        return Some(if name == "sin" {
                            value.negated()
                        } else {
                            value
                        });
                    }
                }
                "ln" => {
                    if let Some(value) = x.logarithm(fuel) {
                        return Some(value);
                    }
                }
                "abs" => {
                    if let Some(value) = x.rational() {
                        return Some(Frac::number(value.abs()));
                    }
                    if let Some(value) = x.complex_size(fuel) {
                        return Some(value);
                    }
                    if let Some(value) = numeric::real(x, fuel).filter(|x| x.abs() > 1e-9) {
                        return Some(if value < 0.0 { x.negated() } else { x.clone() });
                    }
                    if x.top.leading().is_some_and(Signed::is_negative) {
                        return Frac::call(name, vec![x.negated()], fuel);
                    }
                }
                "floor" | "ceil" => {
                    if let Some(x) = x.rational() {
                        let value = if name == "floor" { x.floor() } else { x.ceil() };
                        return Some(Frac::number(value));
                    }
                }
                "factorial" => {
                    if let Some(x) = x.rational() {
                        let n = x.is_integer().then(|| x.to_integer().to_u64()).flatten()?;
                        if n <= 300 {
                            fuel.take(20 * n)?;
                            let product: BigInt = (1..=n).map(BigInt::from).product();
                            return Some(Frac::number(BigRational::from_integer(product)));
                        }
                    }
                }
                _ => {}
            }
        }
        if name == "binom"
            && let [n, k] = arguments.as_slice()
        {
            return Frac::binomial(n, k, fuel);
        }
        let keys: Vec<String> = arguments.iter().map(Frac::key).collect();
        fuel.take(keys.iter().map(|key| key.len() as u64).sum())?;
        Some(Frac::atom(
            format!("{name}({})", keys.join(",")),
            Kind::Call(name, arguments),
        ))
    }

    /// |a + b i| = sqrt(a² + b²) of a constant that is not real.
    fn complex_size(&self, fuel: &Fuel) -> Option<Frac> {
        if self.has_symbols() || self.bottom != Sum::one() {
            return None;
        }
        let imaginary = |product: &Product| product.iter().any(|(a, _)| matches!(*a.kind, Kind::I));
        if !self.top.0.keys().any(imaginary) {
            return None;
        }
        let conjugate = Sum((self.top.0.iter())
            .map(|(p, c)| (p.clone(), if imaginary(p) { -c } else { c.clone() }))
            .collect());
        let square = Frac::from_sum(self.top.mul(&conjugate, fuel)?);
        square.root(Rational64::new(1, 2), fuel)
    }

    fn binomial(n: &Frac, k: &Frac, fuel: &Fuel) -> Option<Frac> {
        let whole = |x: &Frac| {
            x.rational()
                .filter(BigRational::is_integer)?
                .to_integer()
                .to_u64()
        };
        if let (Some(n), Some(k)) = (whole(n), whole(k)) {
            if k > n {
                return Some(Frac::integer(0));
            }
            let k = k.min(n - k);
            fuel.take(k.checked_mul(20)?)?;
            let mut value = BigInt::one();
            for j in 0..k {
                value = value * (n - j) / (j + 1);
                if value.bits() > MAX_BITS {
                    return None;
                }
            }
            return Some(Frac::number(BigRational::from_integer(value)));
        }
        let factorial = |x: &Frac| Frac::call("factorial", vec![x.clone()], fuel);
        let rest = n.add(&k.negated(), fuel)?;
        let below = factorial(k)?.mul(&factorial(&rest)?, fuel)?;
        factorial(n)?.mul(&below.inverse(fuel)?, fuel)
    }

    fn sine_or_cosine(&self, cosine: bool, fuel: &Fuel) -> Option<Frac> {
        let turns = self.mul(&Frac::pi().inverse(fuel)?, fuel)?.rational()?;
        let part = |n: &BigInt| n.to_i64().filter(|n| n.unsigned_abs() <= 100_000);
        let c = Rational64::new(part(turns.numer())?, part(turns.denom())?);
        let quarter = Rational64::new(i64::from(cosine), 2);
        sine_of_turn(add_exponents(c, quarter)?, fuel)
    }

    /// ln of a positive rational, over its primes; of powers of e.
    fn logarithm(&self, fuel: &Fuel) -> Option<Frac> {
        if self.bottom != Sum::one() {
            return None;
        }
        let (product, c) = self.top.single()?;
        if !c.is_positive() || product.iter().any(|(a, _)| !a.is_positive_constant()) {
            return None;
        }
        let part = |value: BigInt| {
            let argument = Frac::number(BigRational::from_integer(value));
            Frac::atom(
                format!("ln({})", argument.key()),
                Kind::Call("ln", vec![argument]),
            )
        };
        let number = |e: &Rational64| {
            Frac::number(BigRational::new((*e.numer()).into(), (*e.denom()).into()))
        };
        let mut total = Frac::integer(0);
        for (n, sign) in [(c.numer(), 1), (c.denom(), -1)] {
            for (prime, power) in factors(n.magnitude(), fuel)? {
                total = total.add(&part(prime).mul(&Frac::integer(power * sign), fuel)?, fuel)?;
            }
        }
        for (atom, e) in product {
            let one = match &*atom.kind {
                Kind::Prime(prime) => part(prime.clone()),
                Kind::E => Frac::integer(1),
                _ => Frac::atom("ln(pi)".into(), Kind::Call("ln", vec![Frac::pi()])),
            };
            total = total.add(&one.mul(&number(e), fuel)?, fuel)?;
        }
        Some(total)
    }

    /// The fraction as text: equal texts, equal values.
    pub(super) fn key(&self) -> String {
        if self.bottom == Sum::one() {
            return self.top.key();
        }
        format!("({})/({})", self.top.key(), self.bottom.key())
    }

    /// The difference of two fractions over a common denominator.
    pub(super) fn difference(&self, other: &Frac, fuel: &Fuel) -> Option<Sum> {
        let left = self.top.mul(&other.bottom, fuel)?;
        let right = other.top.mul(&self.bottom, fuel)?;
        left.add(&right.negated(), fuel)
    }
}

/// sin(π c): a radical for multiples of 1/12, otherwise the sine of an angle below a quarter turn.
fn sine_of_turn(c: Rational64, fuel: &Fuel) -> Option<Frac> {
    let (one, two) = (Rational64::one(), Rational64::from_integer(2));
    let mut c = c - (c / two).floor() * two;
    let negative = c >= one;
    if negative {
        c -= one;
    }
    if c > one / two {
        c = one - c;
    }
    let twelfths = c * Rational64::from_integer(12);
    let half = Frac::number(BigRational::new(1.into(), 2.into()));
    let sqrt = |n: i64| Frac::integer(n).root(Rational64::new(1, 2), fuel);
    let value = if twelfths.is_integer() {
        let halves = |x: Frac| x.mul(&half, fuel);
        let fifteen = |sign: i64| {
            let sum = sqrt(6)?.add(&sqrt(2)?.mul(&Frac::integer(sign), fuel)?, fuel)?;
            halves(halves(sum)?)
        };
        match twelfths.to_integer() {
            0 => Frac::integer(0),
            1 => fifteen(-1)?,
            2 => half.clone(),
            3 => halves(sqrt(2)?)?,
            4 => halves(sqrt(3)?)?,
            5 => fifteen(1)?,
            _ => Frac::integer(1),
        }
    } else {
        let c = BigRational::new((*c.numer()).into(), (*c.denom()).into());
        let argument = Frac::pi().mul(&Frac::number(c), fuel)?;
        Frac::atom(
            format!("sin({})", argument.key()),
            Kind::Call("sin", vec![argument]),
        )
    };
    Some(if negative { value.negated() } else { value })
}

/// A term whose powers may be out of their ranges.
fn normal_term(product: Product, coefficient: BigRational, fuel: &Fuel) -> Option<Sum> {
    let mut product = product;
    product.sort();
    Sum::term(product, coefficient).mul(&Sum::one(), fuel)
}

/// What the top is of the bottom, if that is a number.
fn ratio(top: &Sum, bottom: &Sum, fuel: &Fuel) -> Option<BigRational> {
    let (a, b) = (top.leading()?, bottom.leading()?);
    pay(a, b, fuel)?;
    let ratio = a / b;
    (top.0.len() == bottom.0.len() && bottom.scaled(&ratio, fuel)? == *top).then_some(ratio)
}

/// Removes i and square roots from the terms of a denominator that is a constant.
fn rationalised(mut top: Sum, mut bottom: Sum, fuel: &Fuel) -> Option<(Sum, Sum)> {
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
            .map(|(p, c)| match p.iter().any(|(a, _)| *a == atom) {
                true => (p.clone(), -c),
                false => (p.clone(), c.clone()),
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
fn cancelled(top: Sum, bottom: Sum, fuel: &Fuel) -> Option<(Sum, Sum)> {
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
fn only_variable(top: &Sum, bottom: &Sum) -> Option<Atom> {
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
fn dense(sum: &Sum) -> Option<Vec<BigRational>> {
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

/// Quotient and rest of polynomials.
fn divide(
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

impl Sum {
    /// Whether the sum is zero for a reason that its atoms do not show, or may be.
    pub(super) fn is_opaque(&self) -> bool {
        self.atoms().any(Atom::is_opaque)
    }

    /// Divided by its content, so that the largest product has a positive coefficient.
    pub(super) fn primitive(&self, fuel: &Fuel) -> Option<Sum> {
        let mut scale = self.content(fuel)?.recip();
        if self.leading().is_some_and(Signed::is_negative) {
            scale = -scale;
        }
        self.scaled(&scale, fuel)
    }

    pub(super) fn key(&self) -> String {
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

fn product_key(product: &Product) -> String {
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
