//! Rows of `isa/convert.rs`.

use crate::model::*;
use crate::row::{Made, Row, made};

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("cvt.rn.f32.s32 D, A", 32, &[(32, Bits)], |a, _, _| r(s(a) as f64)),
        Row("cvt.rz.f32.u64 D, A", 32, &[(64, Bits)], |a, _, _| { let keep = 64 - a.leading_zeros().min(63); let cut = keep.saturating_sub(24); r(((a >> cut) << cut) as f64) }),
        Row("cvt.rzi.s32.f32 D, A", 32, &[(32, F32)], |a, _, _| { let x = f(a); if x.is_nan() { 0 } else { w((x.trunc().clamp(-2147483648.0, 2147483647.0)) as i64) } }),
        Row("cvt.rni.s32.f32 D, A", 32, &[(32, F32)], |a, _, _| { let x = f(a); if x.is_nan() { 0 } else { w((x.round_ties_even().clamp(-2147483648.0, 2147483647.0)) as i64) } }),
        Row("cvt.rmi.u32.f64 D, A", 32, &[(64, F64)], |a, _, _| { let x = d(a); if x.is_nan() { 0 } else { x.floor().clamp(0.0, 4294967295.0) as u64 } }),
        Row("cvt.rpi.f32.f32 D, A", 32, &[(32, F32)], |a, _, _| r(f(a).ceil())),
        Row("cvt.sat.f32.f32 D, A", 32, &[(32, F32)], |a, _, _| { let x = f(a); if x > 0.0 { r(x.min(1.0)) } else { 0 } }),
        Row("cvt.u64.u32 D, A", 64, &[(32, Bits)], |a, _, _| a),
        Row("cvt.s64.s32 D, A", 64, &[(32, Bits)], |a, _, _| s(a) as u64),
        Row("cvt.u16.u32 D, A", 16, &[(32, Bits)], |a, _, _| a & 0xffff),
        Row("cvt.s32.s8 D, A", 32, &[(32, Bits)], |a, _, _| w(i64::from(a as i8))),
        Row("cvt.sat.u8.s32 D, A", 32, &[(32, Bits)], |a, _, _| s(a).clamp(0, 255) as u64),
        Row("cvt.sat.s16.s32 D, A", 16, &[(32, Bits)], |a, _, _| s(a).clamp(-32768, 32767) as u64 & 0xffff),
        Row("cvt.f64.f32 D, A", 64, &[(32, F32)], |a, _, _| f(a).to_bits()),
        Row("cvt.rn.f32.f64 D, A", 32, &[(64, F64)], |a, _, _| r(d(a))),
        Row("cvt.rn.f16.f32 D, A", 16, &[(32, F32)], |a, _, _| nh(f(a))),
        Row("cvt.rn.bf16.f32 D, A", 16, &[(32, F32)], |a, _, _| nb(f(a))),
        Row("cvt.f32.f16 D, A", 32, &[(16, F16)], |a, _, _| if h(a).is_nan() { 0x7fff_ffff } else { r(h(a)) }),
        Row("cvt.rn.f16x2.f32 D, A, B", 32, X2, |a, b, _| nh(f(a)) << 16 | nh(f(b))),
        Row("cvt.rn.bf16x2.f32 D, A, B", 32, X2, |a, b, _| nb(f(a)) << 16 | nb(f(b))),
        Row("cvt.rn.relu.bf16x2.f32 D, A, B", 32, X2, |a, b, _| { let p = |v: u64| if f(v) <= 0.0 { 0 } else { nb(f(v)) }; p(a) << 16 | p(b) }),
        Row("cvt.rna.tf32.f32 D, A", 32, &[(32, F32)], |a, _, _| if f(a).is_nan() { 0x7fff_ffff } else if f(a).is_infinite() { a } else { (a + 0x1000) & 0xffff_e000 }),
        Row("cvt.rn.f64.s64 D, A", 64, &[(64, Bits)], |a, _, _| (a as i64 as f64).to_bits()),
        Row("cvt.rzi.s64.f64 D, A", 64, &[(64, F64)], |a, _, _| if d(a).is_nan() { 0 } else { d(a) as i64 as u64 }),
        Row("cvt.rn.f16.s32 D, A", 16, &[(32, Bits)], |a, _, _| nh(s(a) as f64)),
        Row("cvt.rni.s32.f16 D, A", 32, &[(16, F16)], |a, _, _| if h(a).is_nan() { 0 } else { w(h(a).round_ties_even().clamp(-2147483648.0, 2147483647.0) as i64) }),
        Row("cvt.f32.bf16 D, A", 32, &[(16, Bf16)], |a, _, _| if b(a).is_nan() { 0x7fff_ffff } else { a << 16 }),
    ]
}

/// The rows that exist for several types.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    scalar(&mut out);
    packed(&mut out);
    out
}

/// Between all integer types, plain and saturated; to and from floating-point types.
fn scalar(out: &mut Vec<Made>) {
    let kinds = [
        ("u8", 8u32, false),
        ("s8", 8, true),
        ("u16", 16, false),
        ("s16", 16, true),
        ("u32", 32, false),
        ("s32", 32, true),
        ("u64", 64, false),
        ("s64", 64, true),
    ];
    for (to, n, to_signed) in kinds {
        let (lo, hi) = if to_signed {
            (-(1i128 << (n - 1)), (1i128 << (n - 1)) - 1)
        } else {
            (0, (1i128 << n) - 1)
        };
        let keep = n.max(16).max(if n == 8 { 32 } else { 16 });
        for (from, m, from_signed) in kinds {
            let source = [(m.max(if m == 8 { 32 } else { 16 }), Bits)];
            let v = move |x: u64| int(x, m, from_signed);
            if to != from {
                out.push(made(
                    format!("cvt.{to}.{from} D, A"),
                    keep,
                    &source,
                    move |a, _, _| int(v(a) as u64, n, to_signed) as u64,
                ));
                out.push(made(
                    format!("cvt.sat.{to}.{from} D, A"),
                    keep,
                    &source,
                    move |a, _, _| v(a).clamp(lo, hi) as u64,
                ));
            }
        }
        let fsource: [(&str, u32, Feed, fn(u64) -> f64); 3] = [
            ("f32", 32, F32, f),
            ("f64", 64, F64, d),
            ("f16", 16, F16, h),
        ];
        for (from, m, feed, wide) in fsource {
            for (mode, round) in [
                ("rni", f64::round_ties_even as fn(f64) -> f64),
                ("rzi", f64::trunc),
                ("rmi", f64::floor),
                ("rpi", f64::ceil),
            ] {
                out.push(made(
                    format!("cvt.{mode}.{to}.{from} D, A"),
                    keep,
                    &[(m, feed)],
                    move |a, _, _| {
                        let x = wide(a);
                        if x.is_nan() {
                            0
                        } else {
                            (round(x) as i128).clamp(lo, hi) as u64
                        }
                    },
                ));
            }
        }
        if n > 8 {
            let v = move |x: u64| int(x, n, to_signed);
            for mode in ["rn", "rz", "rm", "rp"] {
                out.push(made(
                    format!("cvt.{mode}.f32.{to} D, A"),
                    32,
                    &[(n, Bits)],
                    move |a, _, _| {
                        let hi = v(a) as f64;
                        directed(hi, (v(a) - hi as i128) as f64, mode)
                    },
                ));
            }
            out.push(made(
                format!("cvt.rn.f64.{to} D, A"),
                64,
                &[(n, Bits)],
                move |a, _, _| (v(a) as f64).to_bits(),
            ));
            out.push(made(
                format!("cvt.rn.f16.{to} D, A"),
                16,
                &[(n, Bits)],
                move |a, _, _| nh(v(a) as f64),
            ));
        }
    }
}

fn packed(out: &mut Vec<Made>) {
    for (t, bits, signed) in [
        ("u16", 16u32, false),
        ("s16", 16, true),
        ("u8", 8, false),
        ("s8", 8, true),
        ("u4", 4, false),
        ("s4", 4, true),
        ("u2", 2, false),
        ("s2", 2, true),
    ] {
        let (lo, hi) = if signed {
            (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1)
        } else {
            (0, (1i64 << bits) - 1)
        };
        let part = move |v: u64| s(v).clamp(lo, hi) as u64 & ((1 << bits) - 1);
        if bits == 16 {
            out.push(made(
                format!("cvt.pack.sat.{t}.s32 D, A, B"),
                32,
                I2,
                move |a, b, _| part(a) << 16 | part(b),
            ));
        } else {
            out.push(made(
                format!("cvt.pack.sat.{t}.s32.b32 D, A, B, C"),
                32,
                I3,
                move |a, b, c| c << (2 * bits) | part(a) << bits | part(b),
            ));
        }
    }
}
