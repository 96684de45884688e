//! Whether a difference is zero, where the normal form cannot decide it: by its value at fixed
//! points.

use super::exact::{Atom, Frac, Fuel, Kind, Sum};
use num_complex::Complex64;
use num_rational::Rational64;
use num_traits::{ToPrimitive, Zero};

/// The values that variables take: positive, negative and complex numbers, the same for every run.
const POINTS: usize = 6;

/// A value below this, relative to the sum of the absolute values of all terms, is zero.
const ZERO: f64 = 1e-11;

/// Whether `difference` is zero. Only sums with small coefficients are decided this way: large
/// ones could hide a decimal expansion. A difference without a finite value at most points is not
/// zero.
pub(super) fn vanishes(difference: &Sum, fuel: &Fuel) -> bool {
    let Some(sum) = difference.primitive(fuel) else {
        return false;
    };
    if sum.0.values().any(|c| c.numer().bits() > 40) {
        return false;
    }
    let (mut finite, mut points) = (0, 0);
    for point in 0..POINTS {
        points += 1;
        let Some((value, size)) = terms(&sum, point, fuel) else {
            continue;
        };
        if value.norm() > ZERO * size {
            return false;
        }
        finite += 1;
    }
    2 * finite > points
}

/// The value at a point and the sum of the absolute values of the terms, if finite.
fn terms(sum: &Sum, point: usize, fuel: &Fuel) -> Option<(Complex64, f64)> {
    let (mut total, mut size) = (Complex64::zero(), 0.0);
    for (product, c) in &sum.0 {
        let mut term = Complex64::new(c.numer().to_f64()? / c.denom().to_f64()?, 0.0);
        for (atom, exponent) in product {
            term *= power(value_of(atom, point, fuel)?, *exponent);
        }
        total += term;
        size += term.norm();
    }
    (total.is_finite() && size.is_finite()).then_some((total, size))
}

fn fraction(x: &Frac, point: usize, fuel: &Fuel) -> Option<Complex64> {
    let (top, bottom) = (terms(&x.top, point, fuel)?, terms(&x.bottom, point, fuel)?);
    let value = top.0 / bottom.0;
    value.is_finite().then_some(value)
}

/// A real root where there is one, the principal one otherwise.
fn power(x: Complex64, exponent: Rational64) -> Complex64 {
    let (p, q) = (*exponent.numer(), *exponent.denom());
    if q == 1 {
        return match i32::try_from(p) {
            Ok(p) => x.powi(p),
            Err(_) => Complex64::new(f64::NAN, 0.0),
        };
    }
    let r = p as f64 / q as f64;
    if x.im.abs() <= 1e-14 * x.re.abs() && x.re < 0.0 && q % 2 == 1 {
        let sign = if p % 2 == 0 { 1.0 } else { -1.0 };
        return Complex64::new(sign * (-x.re).powf(r), 0.0);
    }
    x.powf(r)
}

fn value_of(atom: &Atom, point: usize, fuel: &Fuel) -> Option<Complex64> {
    fuel.take(20)?;
    let real = |x: f64| Complex64::new(x, 0.0);
    Some(match &*atom.kind {
        Kind::Prime(prime) => real(prime.to_f64()?),
        Kind::I => Complex64::i(),
        Kind::Pi => real(std::f64::consts::PI),
        Kind::E => real(std::f64::consts::E),
        Kind::Symbol => symbol(atom.key(), point),
        Kind::Root(base) => fraction(base, point, fuel)?,
        Kind::Power(base, exponent) => {
            let base = fraction(base, point, fuel)?;
            base.powc(fraction(exponent, point, fuel)?)
        }
        Kind::Call(name, arguments) => {
            let arguments = (arguments.iter())
                .map(|x| fraction(x, point, fuel))
                .collect::<Option<Vec<_>>>()?;
            call(name, &arguments)?
        }
    })
}

/// A variable's value: an arbitrary number, derived from its name.
fn symbol(name: &str, point: usize) -> Complex64 {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut mixed = (seed ^ point as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut part = || {
        mixed ^= mixed >> 29;
        mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 32;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    };
    let (a, b) = (0.3 + 2.0 * part(), part() - 0.5);
    match point {
        0..=2 => Complex64::new(a, 0.0),
        3 => Complex64::new(-a, 0.0),
        4 => Complex64::new(if b < 0.0 { -a } else { a }, 0.0),
        _ => Complex64::new(a, b),
    }
}

fn call(name: &str, arguments: &[Complex64]) -> Option<Complex64> {
    let real = |x: f64| Complex64::new(x, 0.0);
    let x = *arguments.first()?;
    let is_real = x.im.abs() <= 1e-12 * (1.0 + x.re.abs());
    Some(match name {
        "sin" => x.sin(),
        "cos" => x.cos(),
        "arcsin" => x.asin(),
        "arccos" => x.acos(),
        "arctan" => x.atan(),
        "arccot" => real(std::f64::consts::FRAC_PI_2) - x.atan(),
        "sinh" => x.sinh(),
        "cosh" => x.cosh(),
        "tanh" => x.tanh(),
        "ln" => x.ln(),
        "abs" => real(x.norm()),
        "arg" => real(x.arg()),
        "Re" => real(x.re),
        "Im" => real(x.im),
        "floor" if is_real => real(x.re.floor()),
        "ceil" if is_real => real(x.re.ceil()),
        "factorial" => gamma(x + 1.0),
        "max" | "min" => {
            let pick = if name == "max" { f64::max } else { f64::min };
            real(arguments.iter().map(|x| x.re).fold(x.re, pick))
        }
        _ => return None,
    })
}

/// The gamma function, by Lanczos's approximation (g = 7, 9 coefficients).
fn gamma(x: Complex64) -> Complex64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let pi = std::f64::consts::PI;
    if x.re < 0.5 {
        return Complex64::new(pi, 0.0) / ((x * pi).sin() * gamma(1.0 - x));
    }
    let x = x - 1.0;
    let series = (COEFFICIENTS.iter().enumerate()).fold(
        Complex64::new(0.999_999_999_999_809_9, 0.0),
        |sum, (i, c)| sum + *c / (x + (i + 1) as f64),
    );
    let t = x + 7.5;
    (2.0 * pi).sqrt() * t.powc(x + 0.5) * (-t).exp() * series
}

/// The value of a constant, if it is a finite real number.
pub(super) fn real(x: &Frac, fuel: &Fuel) -> Option<f64> {
    if x.has_symbols() && !is_constant(x) {
        return None;
    }
    let value = fraction(x, 0, fuel)?;
    (value.im.abs() <= 1e-12 * (1.0 + value.re.abs())).then_some(value.re)
}

/// Whether it contains no variable at any depth.
fn is_constant(x: &Frac) -> bool {
    x.top
        .atoms()
        .chain(x.bottom.atoms())
        .all(|atom| match &*atom.kind {
            Kind::Symbol => false,
            Kind::Root(base) => is_constant(base),
            Kind::Power(base, exponent) => is_constant(base) && is_constant(exponent),
            Kind::Call(_, arguments) => arguments.iter().all(is_constant),
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function_is_right() {
        for (x, want) in [
            (1.0, 1.0),
            (5.0, 24.0),
            (0.5, std::f64::consts::PI.sqrt()),
            (-0.5, -3.544_907_701_811_032),
        ] {
            let got = gamma(Complex64::new(x, 0.0));
            assert!(
                (got - want).norm() < 1e-10,
                "gamma({x}) = {got}, not {want}"
            );
        }
    }

    #[test]
    fn points_are_not_special() {
        for point in 0..POINTS {
            for name in ["x", "y", "n", "\\theta"] {
                let value = symbol(name, point);
                assert!(value.norm() >= 0.3 && value.norm() < 2.5 && value.is_finite());
            }
        }
    }
}
