//! Functions: exact values where they are known.

use super::power::factors;
use super::sum::{Atom, Kind, MAX_BITS, Product, Sum, add_exponents, rational};
use super::{Frac, Fuel};
use crate::grading::numeric;
use num_bigint::BigInt;
use num_rational::{BigRational, Rational64};
use num_traits::{One, Signed, ToPrimitive};

impl Frac {
    /// A function's value: exact where it is known, an opaque atom otherwise.
    pub(in crate::grading) fn call(
        name: &'static str,
        arguments: Vec<Frac>,
        fuel: &Fuel,
    ) -> Option<Frac> {
        fuel.take(20)?;
        if let [x] = arguments.as_slice()
            && let Some(decided) = Frac::of_one(name, x, fuel)
        {
            return decided;
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

    /// The value of a function of one argument, where it is decided: `Some(None)` when the fuel ran
    /// out or there is no such value, `None` where the function stays an opaque atom.
    fn of_one(name: &'static str, x: &Frac, fuel: &Fuel) -> Option<Option<Frac>> {
        let call = |name: &'static str, x: Frac| Frac::call(name, vec![x], fuel);
        let inverse = |name: &'static str| call(name, x.clone())?.inverse(fuel);
        let ratio = |a: &'static str, b: &'static str| {
            let a = call(a, x.clone())?;
            a.mul(&call(b, x.clone())?.inverse(fuel)?, fuel)
        };
        match name {
            "tan" => Some(ratio("sin", "cos")),
            "cot" => Some(ratio("cos", "sin")),
            "sec" => Some(inverse("cos")),
            "csc" => Some(inverse("sin")),
            "exp" => Some(Frac::e().pow(x, fuel)),
            "cis" => Some((|| {
                let sine = call("sin", x.clone())?.mul(&Frac::i(), fuel)?;
                call("cos", x.clone())?.add(&sine, fuel)
            })()),
            "log" | "lg" => Some((|| {
                let ten = call("ln", Frac::integer(10))?;
                call("ln", x.clone())?.mul(&ten.inverse(fuel)?, fuel)
            })()),
            "sin" | "cos" => match x.sine_or_cosine(name == "cos", fuel) {
                Some(value) => Some(Some(value)),
                None if x.leads_with_minus() => Some(call(name, x.negated()).map(|value| {
                    if name == "sin" {
                        value.negated()
                    } else {
                        value
                    }
                })),
                None => None,
            },
            "ln" => x.logarithm(fuel).map(Some),
            "abs" => x.magnitude(fuel),
            "floor" | "ceil" => x.rational().map(|x| {
                let value = if name == "floor" { x.floor() } else { x.ceil() };
                Some(Frac::number(value))
            }),
            "factorial" => x.factorial(fuel),
            _ => None,
        }
    }

    fn leads_with_minus(&self) -> bool {
        self.top.leading().is_some_and(Signed::is_negative)
    }

    /// |x|, as [`Frac::of_one`] gives it.
    fn magnitude(&self, fuel: &Fuel) -> Option<Option<Frac>> {
        if let Some(value) = self.rational() {
            return Some(Some(Frac::number(value.abs())));
        }
        if let Some(value) = self.complex_size(fuel) {
            return Some(Some(value));
        }
        if let Some(value) = numeric::real(self, fuel).filter(|x| x.abs() > 1e-9) {
            return Some(Some(if value < 0.0 {
                self.negated()
            } else {
                self.clone()
            }));
        }
        (self.leads_with_minus()).then(|| Frac::call("abs", vec![self.negated()], fuel))
    }

    /// n! of a known n, as [`Frac::of_one`] gives it; beyond 300! it stays as it is.
    fn factorial(&self, fuel: &Fuel) -> Option<Option<Frac>> {
        let x = self.rational()?;
        let Some(n) = x.is_integer().then(|| x.to_integer().to_u64()).flatten() else {
            return Some(None);
        };
        if n > 300 {
            return None;
        }
        Some(fuel.take(20 * n).map(|()| {
            let product: BigInt = (1..=n).map(BigInt::from).product();
            Frac::number(BigRational::from_integer(product))
        }))
    }

    /// The same values with factorials of large numbers written over the smallest of them, if they
    /// are near each other: 2018! as 2018 · 2017!. `None` if there is nothing to write otherwise.
    pub(in crate::grading) fn common_factorials(
        a: &Frac,
        b: &Frac,
        fuel: &Fuel,
    ) -> Option<(Frac, Frac)> {
        const NEAR: u64 = 500;
        let sums = [&a.top, &a.bottom, &b.top, &b.bottom];
        let numbers = || {
            sums.iter()
                .flat_map(|sum| sum.atoms().filter_map(factorial_of))
        };
        let (least, most) = (numbers().min()?, numbers().max()?);
        (least < most && most - least <= NEAR).then_some(())?;
        let over = |x: &Frac| {
            let (top, bottom) = (x.top.over(least, fuel)?, x.bottom.over(least, fuel)?);
            top.mul(&bottom.inverse(fuel)?, fuel)
        };
        Some((over(a)?, over(b)?))
    }

    /// |a + b i| = sqrt(a² + b²) of a constant that is not real.
    pub(super) fn complex_size(&self, fuel: &Fuel) -> Option<Frac> {
        if self.has_symbols() || !self.bottom.is_one() {
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

    pub(super) fn binomial(n: &Frac, k: &Frac, fuel: &Fuel) -> Option<Frac> {
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

    pub(super) fn sine_or_cosine(&self, cosine: bool, fuel: &Fuel) -> Option<Frac> {
        let turns = self.mul(&Frac::pi().inverse(fuel)?, fuel)?.rational()?;
        let part = |n: &BigInt| n.to_i64().filter(|n| n.unsigned_abs() <= 100_000);
        let c = Rational64::new(part(turns.numer())?, part(turns.denom())?);
        let quarter = Rational64::new(i64::from(cosine), 2);
        sine_of_turn(add_exponents(c, quarter)?, fuel)
    }

    /// ln of a positive rational, over its primes; of powers of e.
    pub(super) fn logarithm(&self, fuel: &Fuel) -> Option<Frac> {
        if !self.bottom.is_one() {
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
}

/// The n of an atom n! that was left as it is.
fn factorial_of(atom: &Atom) -> Option<u64> {
    match &*atom.kind {
        Kind::Call("factorial", arguments) => {
            let n = arguments.first()?.rational()?;
            n.is_integer().then(|| n.to_integer().to_u64()).flatten()
        }
        _ => None,
    }
}

impl Sum {
    /// The sum with n! = n (n - 1) ... (m + 1) m! for every n! that was left as it is.
    fn over(&self, m: u64, fuel: &Fuel) -> Option<Frac> {
        let mut total = Frac::integer(0);
        for (product, c) in &self.0 {
            let mut term = Frac::number(c.clone());
            for (atom, e) in product {
                let mut factor = Frac::from_sum(Sum::term(vec![(atom.clone(), *e)], rational(1)));
                if let Some(n) = factorial_of(atom).filter(|n| *n > m && e.is_integer()) {
                    fuel.take(50 * (n - m))?;
                    let ratio: BigInt = (m + 1..=n).map(BigInt::from).product();
                    let ratio = Frac::number(BigRational::from_integer(ratio));
                    let base = Frac::call("factorial", vec![Frac::integer(m as i64)], fuel)?;
                    factor = ratio.mul(&base, fuel)?.integer_pow(e.to_integer(), fuel)?;
                }
                term = term.mul(&factor, fuel)?;
            }
            total = total.add(&term, fuel)?;
        }
        Some(total)
    }
}

/// sin(π c): a radical for multiples of 1/12, otherwise the sine of an angle below a quarter turn.
pub(super) fn sine_of_turn(c: Rational64, fuel: &Fuel) -> Option<Frac> {
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
