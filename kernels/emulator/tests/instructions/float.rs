//! Rows of `isa/float.rs`: f32 and f64.

use crate::model::*;
use crate::row::{Made, Row, made};
use crate::warp::warp;

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("add.f32 D, A, B", 32, X2, |a, b, _| r(f(a) + f(b))),
        Row("add.ftz.f32 D, A, B", 32, X2, |a, b, _| flush(r(f(flush(a)) + f(flush(b))))),
        Row("sub.f32 D, A, B", 32, X2, |a, b, _| r(f(a) - f(b))),
        Row("mul.f32 D, A, B", 32, X2, |a, b, _| r(f(a) * f(b))),
        Row("mul.sat.f32 D, A, B", 32, X2, |a, b, _| { let x = f(r(f(a) * f(b))); if x > 0.0 { r(x.min(1.0)) } else { 0 } }),
        Row("fma.rn.f32 D, A, B, C", 32, X3, |a, b, c| { let x = f32::from_bits(a as u32).mul_add(f32::from_bits(b as u32), f32::from_bits(c as u32)); r(f64::from(x)) }),
        Row("div.rn.f32 D, A, B", 32, X2, |a, b, _| r(f(a) / f(b))),
        Row("sqrt.rn.f32 D, A", 32, &[(32, F32)], |a, _, _| r(f(a).sqrt())),
        Row("rcp.rn.f32 D, A", 32, &[(32, F32)], |a, _, _| r(1.0 / f(a))),
        Row("mul.rz.f32 D, A, B", 32, X2, |a, b, _| { let e = f(a) * f(b); let x = e as f32; if e.is_nan() { 0x7fff_ffff } else if !x.is_finite() && e.is_finite() { u64::from(f32::MAX.copysign(x).to_bits()) } else if f64::from(x).abs() > e.abs() { u64::from(x.to_bits() - 1) } else { u64::from(x.to_bits()) } }),
        Row("mul.rp.f32 D, A, B", 32, X2, |a, b, _| { let e = f(a) * f(b); let x = e as f32; if e.is_nan() { 0x7fff_ffff } else if x == f32::NEG_INFINITY && e.is_finite() { u64::from(f32::MIN.to_bits()) } else if f64::from(x) < e { u64::from(x.next_up().to_bits()) } else { u64::from(x.to_bits()) } }),
        Row("min.f32 D, A, B", 32, X2, |a, b, _| r(pick(f(a), f(b), true))),
        Row("max.f32 D, A, B", 32, X2, |a, b, _| r(pick(f(a), f(b), false))),
        Row("max.NaN.f32 D, A, B", 32, X2, |a, b, _| if f(a).is_nan() || f(b).is_nan() { 0x7fff_ffff } else { r(pick(f(a), f(b), false)) }),
        Row("abs.f32 D, A", 32, &[(32, F32)], |a, _, _| a & 0x7fff_ffff),
        Row("neg.ftz.f32 D, A", 32, &[(32, F32)], |a, _, _| flush(a) ^ 0x8000_0000),
        Row("copysign.f32 D, A, B", 32, X2, |a, b, _| a & 0x8000_0000 | b & 0x7fff_ffff),
        Row("{ .reg .pred p; testp.subnormal.f32 p, A; selp.b32 D, 1, 2, p; }", 32, &[(32, F32)], |a, _, _| if a & 0x7f80_0000 == 0 && a & 0x7f_ffff != 0 { 1 } else { 2 }),
        Row("add.f64 D, A, B", 64, D2, |a, b, _| (d(a) + d(b)).to_bits()),
        Row("max.f64 D, A, B", 64, D2, |a, b, _| pick(d(a), d(b), false).to_bits()),
        Row("sub.f64 D, A, B", 64, D2, |a, b, _| (d(a) - d(b)).to_bits()),
        Row("mul.f64 D, A, B", 64, D2, |a, b, _| (d(a) * d(b)).to_bits()),
        Row("div.rn.f64 D, A, B", 64, D2, |a, b, _| (d(a) / d(b)).to_bits()),
        Row("sqrt.rn.f64 D, A", 64, &[(64, F64)], |a, _, _| d(a).sqrt().to_bits()),
        Row("fma.rn.f64 D, A, B, C", 64, &[(64, F64), (64, F64), (64, F64)], |a, b, c| d(a).mul_add(d(b), d(c)).to_bits()),
        Row("min.f64 D, A, B", 64, D2, |a, b, _| pick(d(a), d(b), true).to_bits()),
        Row("abs.f64 D, A", 64, &[(64, F64)], |a, _, _| a & !(1 << 63)),
        Row("fma.rn.ftz.f32 D, A, B, C", 32, X3, |a, b, c| { let x = f32::from_bits(flush(a) as u32).mul_add(f32::from_bits(flush(b) as u32), f32::from_bits(flush(c) as u32)); flush(r(f64::from(x))) }),
    ]
}

/// The rows that exist in every rounding mode.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    // f32 in the directed modes. The error of a sum is exact (two-sum), that of a product is 0.
    let sum = |a: f64, b: f64| {
        let s = a + b;
        let t = s - a;
        (s, (a - (s - t)) + (b - t))
    };
    for mode in ["rn", "rz", "rm", "rp"] {
        // An exact zero takes its sign from the mode: the rows of rn have it.
        let zero = move |x: f64| x == 0.0 && mode != "rn";
        out.push(Made {
            model: Box::new(move |a, b, _| {
                let (x, e) = sum(f(a), f(b));
                (!zero(x)).then(|| directed(x, e, mode))
            }),
            ..made(format!("add.{mode}.f32 D, A, B"), 32, X2, |_, _, _| 0)
        });
        out.push(Made {
            model: Box::new(move |a, b, _| {
                let (x, e) = sum(f(a), -f(b));
                (!zero(x)).then(|| directed(x, e, mode))
            }),
            ..made(format!("sub.{mode}.f32 D, A, B"), 32, X2, |_, _, _| 0)
        });
        out.push(made(
            format!("mul.{mode}.f32 D, A, B"),
            32,
            X2,
            move |a, b, _| directed(f(a) * f(b), 0.0, mode),
        ));
        out.push(Made {
            model: Box::new(move |a, b, c| {
                let (x, e) = sum(f(a) * f(b), f(c));
                (!zero(x) && x.is_finite() && (x.abs() > 1e-290))
                    .then(|| directed(x, if e.is_nan() { 0.0 } else { e }, mode))
            }),
            ..made(format!("fma.{mode}.f32 D, A, B, C"), 32, X3, |_, _, _| 0)
        });
        // The remainder of a division or a root says on which side of the quotient the exact value
        // lies.
        out.push(made(
            format!("div.{mode}.f32 D, A, B"),
            32,
            X2,
            move |a, b, _| {
                let q = f(a) / f(b);
                let rest = (-q).mul_add(f(b), f(a)) / f(b);
                directed(q, if rest.is_nan() { 0.0 } else { rest }, mode)
            },
        ));
        out.push(made(
            format!("rcp.{mode}.f32 D, A"),
            32,
            &X2[..1],
            move |a, _, _| {
                let q = 1.0 / f(a);
                let rest = (-q).mul_add(f(a), 1.0) / f(a);
                directed(q, if rest.is_nan() { 0.0 } else { rest }, mode)
            },
        ));
        out.push(made(
            format!("sqrt.{mode}.f32 D, A"),
            32,
            &X2[..1],
            move |a, _, _| {
                let q = f(a).sqrt();
                let rest = (-q).mul_add(q, f(a)) / (2.0 * q);
                directed(q, if rest.is_nan() { 0.0 } else { rest }, mode)
            },
        ));
    }
    out
}

pub fn approximations() -> [(&'static str, fn(f64) -> f64); 8] {
    [
        ("cos.approx.f32", f64::cos),
        ("ex2.approx.f32", f64::exp2),
        ("lg2.approx.f32", f64::log2),
        ("rcp.approx.f32", |x| 1.0 / x),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt()),
        ("sqrt.approx.f32", f64::sqrt),
        ("sin.approx.f32", f64::sin),
        ("tanh.approx.f32", f64::tanh),
    ]
}

#[test]
fn approximate_functions_stay_inside_the_manuals_bounds() {
    for (op, model) in approximations() {
        let got = warp(&format!(
            "cvt.rn.f32.u32 %x1, %t; add.f32 %x1, %x1, 0f3DCCCCCD; {op} %r, %x1;"
        ))
        .unwrap();
        for (l, bits) in got.into_iter().enumerate() {
            let x = f64::from(l as f32 + 0.1f32);
            let (have, want) = (f64::from(f32::from_bits(bits)), model(x));
            assert!(
                (have - want).abs() <= want.abs() * 2f64.powi(-22),
                "{op} {x}: {have} {want}"
            );
        }
    }
}
