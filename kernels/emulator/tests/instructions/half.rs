//! Rows of `isa/half.rs`: f16 and bf16, alone and in pairs.

use crate::model::*;
use crate::row::{Made, Row, made};

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("add.f16 D, A, B", 16, H2, |a, b, _| nh(h(a) + h(b))),
        Row("mul.f16 D, A, B", 16, H2, |a, b, _| nh(h(a) * h(b))),
        Row("fma.rn.f16 D, A, B, C", 16, &[(16, F16), (16, F16), (16, F16)], |a, b, c| nh(h(a).mul_add(h(b), h(c)))),
        Row("fma.rn.relu.f16 D, A, B, C", 16, &[(16, F16), (16, F16), (16, F16)], |a, b, c| { let x = h(a).mul_add(h(b), h(c)); if x.is_nan() { 0x7fff } else if x.is_sign_negative() { 0 } else { nh(x) } }),
        Row("fma.rn.bf16 D, A, B, C", 16, &[(16, Bf16), (16, Bf16), (16, Bf16)], |x, y, z| nb(b(x).mul_add(b(y), b(z)))),
        Row("min.bf16 D, A, B", 16, B2, |x, y, _| nb(pick(b(x), b(y), true))),
        Row("add.f16x2 D, A, B", 32, &[(32, F16), (32, F16)], |a, b, _| two(a, b, |x, y| nh(h(x) + h(y)))),
        Row("sub.ftz.f16x2 D, A, B", 32, &[(32, F16), (32, F16)], |a, b, _| two(a, b, |x, y| { let z = |v: u64| if v & 0x7c00 == 0 { v & 0x8000 } else { v }; z(nh(h(z(x)) - h(z(y)))) })),
        Row("max.bf16x2 D, A, B", 32, &[(32, Bf16), (32, Bf16)], |x, y, _| two(x, y, |x, y| nb(pick(b(x), b(y), false)))),
        Row("sub.bf16 D, A, B", 16, B2, |x, y, _| nb(b(x) - b(y))),
        Row("mul.bf16x2 D, A, B", 32, &[(32, Bf16), (32, Bf16)], |x, y, _| two(x, y, |x, y| nb(b(x) * b(y)))),
        Row("fma.rn.bf16x2 D, A, B, C", 32, &[(32, Bf16), (32, Bf16), (32, Bf16)], |x, y, z| nb(b(x).mul_add(b(y), b(z))) | nb(b(x >> 16).mul_add(b(y >> 16), b(z >> 16))) << 16),
        Row("max.NaN.f16 D, A, B", 16, H2, |x, y, _| if h(x).is_nan() || h(y).is_nan() { 0x7fff } else { nh(pick(h(x), h(y), false)) }),
        Row("ex2.approx.f16 D, A", 16, &[(16, F16)], |a, _, _| nh(h(a).exp2())),
        Row("tanh.approx.bf16 D, A", 16, &[(16, Bf16)], |a, _, _| nb(b(a).tanh())),
        Row("neg.f16x2 D, A", 32, &[(32, F16)], |a, _, _| a ^ 0x8000_8000),
    ]
}

/// The rows that exist for both formats.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    let halves: [(&str, Feed, fn(u64) -> f64, fn(f64) -> u64, u64); 2] =
        [("f16", F16, h, nh, 0x7c00), ("bf16", Bf16, b, nb, 0x7f80)];
    for (t, feed, wide, near, _) in halves {
        type Op = fn(f64, f64) -> f64;
        let ops: [(&str, Op); 5] = [
            ("add", |a, b| a + b),
            ("sub", |a, b| a - b),
            ("mul", |a, b| a * b),
            ("min", |a, b| pick(a, b, true)),
            ("max", |a, b| pick(a, b, false)),
        ];
        for (o, op) in ops {
            let one = move |a: u64, b: u64| near(op(wide(a & 0xffff), wide(b & 0xffff)));
            out.push(made(
                format!("{o}.{t} D, A, B"),
                16,
                &[(16, feed); 2],
                move |a, b, _| one(a, b),
            ));
            out.push(made(
                format!("{o}.{t}x2 D, A, B"),
                32,
                &[(32, feed); 2],
                move |a, b, _| one(a, b) | one(a >> 16, b >> 16) << 16,
            ));
        }
        for (relu, word) in [(false, ""), (true, ".relu")] {
            let one = move |a: u64, b: u64, c: u64| {
                let x = wide(a & 0xffff).mul_add(wide(b & 0xffff), wide(c & 0xffff));
                if relu && !x.is_nan() && x.is_sign_negative() {
                    0
                } else {
                    near(x)
                }
            };
            out.push(made(
                format!("fma.rn{word}.{t} D, A, B, C"),
                16,
                &[(16, feed); 3],
                one,
            ));
            out.push(made(
                format!("fma.rn{word}.{t}x2 D, A, B, C"),
                32,
                &[(32, feed); 3],
                move |a, b, c| one(a, b, c) | one(a >> 16, b >> 16, c >> 16) << 16,
            ));
        }
        out.push(made(
            format!("neg.{t}x2 D, A"),
            32,
            &[(32, feed)],
            |a, _, _| a ^ 0x8000_8000,
        ));
        out.push(made(
            format!("abs.{t}x2 D, A"),
            32,
            &[(32, feed)],
            |a, _, _| a & 0x7fff_7fff,
        ));
        out.push(made(
            format!(
                "ex2.approx{}.{t}x2 D, A",
                if t == "bf16" { ".ftz" } else { "" }
            ),
            32,
            &[(32, feed)],
            move |a, _, _| {
                let one = |v: u64| {
                    let x = wide(v & 0xffff);
                    let x = if t == "bf16" && v & 0x7f80 == 0 {
                        0.0
                    } else {
                        x
                    };
                    let y = near(x.exp2());
                    if t == "bf16" && y & 0x7f80 == 0 {
                        y & 0x8000
                    } else {
                        y
                    }
                };
                one(a) | one(a >> 16) << 16
            },
        ));
        out.push(made(
            format!("tanh.approx.{t}x2 D, A"),
            32,
            &[(32, feed)],
            move |a, _, _| {
                let one = |v: u64| near(wide(v & 0xffff).tanh());
                one(a) | one(a >> 16) << 16
            },
        ));
    }
    out
}
