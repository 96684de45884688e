//! Rows of `isa/compare.rs`.

use crate::model::*;
use crate::row::{Made, Row, made};

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("{ .reg .pred p; setp.lt.s32 p, A, B; selp.b32 D, 1, 2, p; }", 32, I2, |a, b, _| if s(a) < s(b) { 1 } else { 2 }),
        Row("{ .reg .pred p, q; setp.hi.u32 p|q, A, B; selp.b32 D, 1, 2, q; }", 32, I2, |a, b, _| if a > b { 2 } else { 1 }),
        Row("{ .reg .pred p, q; setp.eq.b32 q, C, 0; setp.ge.and.u64 p, A, B, !q; selp.b64 D, A, B, p; }", 64, &[(64, Bits), (64, Bits), (32, Bits)], |a, b, c| if a >= b && c != 0 { a } else { b }),
        Row("{ .reg .pred p; setp.ltu.f32 p, A, B; selp.b32 D, 1, 2, p; }", 32, X2, |a, b, _| if f(a) >= f(b) { 2 } else { 1 }),
        Row("{ .reg .pred p; setp.ne.f32 p, A, B; selp.b32 D, 1, 2, p; }", 32, X2, |a, b, _| if f(a) < f(b) || f(a) > f(b) { 1 } else { 2 }),
        Row("{ .reg .pred p; setp.neu.f32 p, A, B; selp.b32 D, 1, 2, p; }", 32, X2, |a, b, _| if f(a) == f(b) { 2 } else { 1 }),
        Row("{ .reg .pred p; setp.geu.ftz.f32 p, A, B; selp.b32 D, 1, 2, p; }", 32, X2, |a, b, _| if f(flush(a)) < f(flush(b)) { 2 } else { 1 }),
        Row("{ .reg .pred p; setp.nan.f64 p, A, B; selp.b32 D, 1, 2, p; }", 32, D2, |a, b, _| if d(a).is_nan() || d(b).is_nan() { 1 } else { 2 }),
        Row("{ .reg .pred p; setp.gt.f16 p, A, B; selp.b32 D, 1, 2, p; }", 32, H2, |a, b, _| if h(a) > h(b) { 1 } else { 2 }),
        Row("set.lt.u32.s32 D, A, B", 32, I2, |a, b, _| if s(a) < s(b) { 0xffff_ffff } else { 0 }),
        Row("slct.b32.s32 D, A, B, C", 32, I3, |a, b, c| if s(c) >= 0 { a } else { b }),
        Row("{ .reg .pred p, q; setp.le.f16x2 p|q, A, B; selp.b32 D, 1, 0, p; @q or.b32 D, D, 2; }", 32, &[(32, F16), (32, F16)], |a, b, _| u64::from(h(a) <= h(b)) | u64::from(h(a >> 16) <= h(b >> 16)) << 1),
        Row("set.gt.f16x2.f16x2 D, A, B", 32, &[(32, F16), (32, F16)], |a, b, _| two(a, b, |x, y| if h(x) > h(y) { 0x3c00 } else { 0 })),
    ]
}

/// The rows that exist for several types.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    integers(&mut out);
    selections(&mut out);
    floats(&mut out);
    out
}

fn integers(out: &mut Vec<Made>) {
    for (t, n, signed) in INTS {
        let v = move |x: u64| int(x, n, signed);
        let two = [(n, Bits); 2];
        let compare: [(&str, fn(&i128, &i128) -> bool); 6] = [
            ("eq", i128::eq),
            ("ne", i128::ne),
            ("lt", i128::lt),
            ("le", i128::le),
            ("gt", i128::gt),
            ("ge", i128::ge),
        ];
        for (c, f) in compare {
            out.push(made(
                format!("{{ .reg .pred p; setp.{c}.{t} p, A, B; selp.b32 D, 1, 2, p; }}"),
                32,
                &two,
                move |a, b, _| if f(&v(a), &v(b)) { 1 } else { 2 },
            ));
            if n >= 32 {
                out.push(made(
                    format!("set.{c}.u32.{t} D, A, B"),
                    32,
                    &two,
                    move |a, b, _| if f(&v(a), &v(b)) { 0xffff_ffff } else { 0 },
                ));
            }
        }
        if !signed {
            for (c, f) in [
                ("lo", i128::lt as fn(&i128, &i128) -> bool),
                ("ls", i128::le),
                ("hi", i128::gt),
                ("hs", i128::ge),
            ] {
                out.push(made(
                    format!("{{ .reg .pred p; setp.{c}.{t} p, A, B; selp.b32 D, 1, 2, p; }}"),
                    32,
                    &two,
                    move |a, b, _| if f(&v(a), &v(b)) { 1 } else { 2 },
                ));
            }
        }
    }
}

fn selections(out: &mut Vec<Made>) {
    for n in [16, 32, 64] {
        let b = format!("b{n}");
        out.push(made(
            format!("{{ .reg .pred p; setp.lt.s32 p, C, 0; selp.{b} D, A, B, p; }}"),
            n,
            &[(n, Bits), (n, Bits), (32, Bits)],
            |a, b, c| if s(c) < 0 { a } else { b },
        ));
        out.push(made(
            format!("slct.{b}.f32 D, A, B, C"),
            n,
            &[(n, Bits), (n, Bits), (32, F32)],
            |a, b, c| if f(c) >= 0.0 { a } else { b },
        ));
    }
}

fn floats(out: &mut Vec<Made>) {
    let orders: [(&str, fn(f64, f64) -> bool); 8] = [
        ("eq", |a, b| a == b),
        // False for NaNs, unlike `!=`.
        ("ne", |a, b| a.partial_cmp(&b).is_some_and(|o| o.is_ne())),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ];
    let floats: [(&str, u32, Feed, fn(u64) -> f64); 4] = [
        ("f32", 32, F32, f),
        ("f64", 64, F64, d),
        ("f16", 16, F16, h),
        ("bf16", 16, Bf16, b),
    ];
    for (t, n, feed, wide) in floats {
        for (c, test) in orders {
            out.push(made(
                format!("{{ .reg .pred p; setp.{c}.{t} p, A, B; selp.b32 D, 1, 2, p; }}"),
                32,
                &[(n, feed), (n, feed)],
                move |a, b, _| if test(wide(a), wide(b)) { 1 } else { 2 },
            ));
            if c.len() == 2 {
                out.push(made(
                    format!("{{ .reg .pred p; setp.{c}u.{t} p, A, B; selp.b32 D, 1, 2, p; }}"),
                    32,
                    &[(n, feed), (n, feed)],
                    move |a, b, _| {
                        if test(wide(a), wide(b)) || wide(a).is_nan() || wide(b).is_nan() {
                            1
                        } else {
                            2
                        }
                    },
                ));
            }
        }
    }
}
