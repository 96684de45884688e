//! Rows of `isa/arith.rs`: integer arithmetic, alone, packed and with carry.

use crate::model::*;
use crate::row::{Made, Row, made};

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("add.s32 D, A, B", 32, I2, |a, b, _| w(s(a) + s(b))),
        Row("add.sat.s32 D, A, B", 32, I2, |a, b, _| w((s(a) + s(b)).clamp(i32::MIN.into(), i32::MAX.into()))),
        Row("sub.sat.s32 D, A, B", 32, I2, |a, b, _| w((s(a) - s(b)).clamp(i32::MIN.into(), i32::MAX.into()))),
        Row("add.u64 D, A, B", 64, L2, |a, b, _| (u128::from(a) + u128::from(b)) as u64),
        Row("sub.u64 D, A, B", 64, L2, |a, b, _| (i128::from(a) - i128::from(b)) as u64),
        Row("add.s16 D, A, B", 16, &[(16, Bits), (16, Bits)], |a, b, _| (a + b) & 0xffff),
        Row("mul.lo.s32 D, A, B", 32, I2, |a, b, _| w(s(a) * s(b))),
        Row("mul.hi.s32 D, A, B", 32, I2, |a, b, _| w((s(a) * s(b)) >> 32)),
        Row("mul.hi.u32 D, A, B", 32, I2, |a, b, _| (a * b) >> 32),
        Row("mul.hi.u64 D, A, B", 64, L2, |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        Row("mul.hi.s64 D, A, B", 64, L2, |a, b, _| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64),
        Row("mul.wide.s32 D, A, B", 64, I2, |a, b, _| (s(a) * s(b)) as u64),
        Row("mul.wide.u32 D, A, B", 64, I2, |a, b, _| a * b),
        Row("mul.wide.s16 D, A, B", 32, &[(16, Bits), (16, Bits)], |a, b, _| w(i64::from(a as i16) * i64::from(b as i16))),
        Row("mul24.lo.u32 D, A, B", 32, I2, |a, b, _| ((a & 0xff_ffff) * (b & 0xff_ffff)) & 0xffff_ffff),
        Row("mul24.hi.s32 D, A, B", 32, I2, |a, b, _| w(((s(a) << 40 >> 40) * (s(b) << 40 >> 40)) >> 16)),
        Row("mad.lo.s32 D, A, B, C", 32, I3, |a, b, c| w((s(a) * s(b)).wrapping_add(s(c)))),
        Row("mad.hi.u32 D, A, B, C", 32, I3, |a, b, c| (((a * b) >> 32) + c) & 0xffff_ffff),
        Row("mad.wide.u32 D, A, B, C", 64, &[(32, Bits), (32, Bits), (64, Bits)], |a, b, c| (a * b).wrapping_add(c)),
        Row("mad.wide.s32 D, A, B, C", 64, &[(32, Bits), (32, Bits), (64, Bits)], |a, b, c| ((s(a) * s(b)) as u64).wrapping_add(c)),
        Row("mad.lo.u64 D, A, B, C", 64, L3, |a, b, c| (u128::from(a) * u128::from(b) + u128::from(c)) as u64),
        Row("div.s32 D, A, B", 32, I2, |a, b, _| if b == 0 { 0xffff_ffff } else { w(s(a) / s(b)) }),
        Row("div.u64 D, A, B", 64, L2, |a, b, _| a.checked_div(b).unwrap_or(u64::MAX)),
        Row("rem.s32 D, A, B", 32, I2, |a, b, _| if b == 0 { a } else { w(s(a) % s(b)) }),
        Row("rem.u32 D, A, B", 32, I2, |a, b, _| if b == 0 { a } else { a % b }),
        Row("min.s32 D, A, B", 32, I2, |a, b, _| w(s(a).min(s(b)))),
        Row("max.u32 D, A, B", 32, I2, |a, b, _| a.max(b)),
        Row("max.s64 D, A, B", 64, L2, |a, b, _| (a as i64).max(b as i64) as u64),
        Row("abs.s32 D, A", 32, &[(32, Bits)], |a, _, _| w(s(a).abs())),
        Row("neg.s64 D, A", 64, &[(64, Bits)], |a, _, _| (-i128::from(a as i64)) as u64),
        Row("sad.u32 D, A, B, C", 32, I3, |a, b, c| (a.max(b) - a.min(b) + c) & 0xffff_ffff),
        Row("{ add.cc.u32 D, A, B; addc.u32 D, C, 0; }", 32, I3, |a, b, c| (c + ((a + b) >> 32)) & 0xffff_ffff),
        Row("{ sub.cc.u32 D, A, B; subc.u32 D, C, 0; }", 32, I3, |a, b, c| w(c as i64 - i64::from(a < b))),
        Row("{ sub.cc.u32 D, A, B; addc.u32 D, 0, 0; }", 32, I2, |a, b, _| u64::from(a >= b)),
        Row("{ add.cc.u32 D, A, B; subc.u32 D, C, 0; }", 32, I3, |a, b, c| w(c as i64 - i64::from(a + b < 1 << 32))),
        Row("{ mad.lo.cc.u32 D, A, B, C; madc.hi.u32 D, A, B, 0; }", 32, I3, |a, b, c| (((a * b) >> 32) + ((((a * b) & 0xffff_ffff) + c) >> 32)) & 0xffff_ffff),
        Row("dp4a.s32.u32 D, A, B, C", 32, I3, |a, b, c| (0..4).fold(c, |t, i| w(t as i64 + i64::from((a >> (8 * i)) as i8) * (b >> (8 * i) & 255) as i64))),
        Row("dp2a.lo.s32.s32 D, A, B, C", 32, I3, |a, b, c| (0..2).fold(c, |t, i| w(t as i64 + i64::from((a >> (16 * i)) as i16) * i64::from((b >> (8 * i)) as i8)))),
        Row("mad24.lo.u32 D, A, B, C", 32, I3, |a, b, c| ((a & 0xff_ffff) * (b & 0xff_ffff) + c) & 0xffff_ffff),
        Row("min.s16 D, A, B", 16, &[(16, Bits), (16, Bits)], |a, b, _| (a as i16).min(b as i16) as u64 & 0xffff),
        Row("div.s64 D, A, B", 64, L2, |a, b, _| if b == 0 { u64::MAX } else { (i128::from(a as i64) / i128::from(b as i64)) as u64 }),
        Row("{ sub.cc.u64 D, A, B; subc.u64 D, C, 0; }", 64, L3, |a, b, c| c.wrapping_sub(u64::from(a < b))),
    ]
}

/// The rows that exist for several types.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    for (t, n, signed) in INTS {
        plain(&mut out, t, n, signed);
    }
    packed(&mut out);
    dot_products(&mut out);
    of_24_bits(&mut out);
    out
}

fn plain(out: &mut Vec<Made>, t: &str, n: u32, signed: bool) {
    let v = move |x: u64| int(x, n, signed);
    let two = [(n, Bits); 2];
    let three = [(n, Bits); 3];
    out.push(made(format!("add.{t} D, A, B"), n, &two, move |a, b, _| {
        (v(a) + v(b)) as u64
    }));
    out.push(made(format!("sub.{t} D, A, B"), n, &two, move |a, b, _| {
        (v(a) - v(b)) as u64
    }));
    out.push(made(
        format!("mul.lo.{t} D, A, B"),
        n,
        &two,
        move |a, b, _| v(a).wrapping_mul(v(b)) as u64,
    ));
    let high = move |a: u64, b: u64| {
        if n == 64 && !signed {
            ((u128::from(a) * u128::from(b)) >> 64) as u64
        } else {
            ((v(a) * v(b)) >> n) as u64
        }
    };
    out.push(made(
        format!("mul.hi.{t} D, A, B"),
        n,
        &two,
        move |a, b, _| high(a, b),
    ));
    out.push(made(
        format!("mad.lo.{t} D, A, B, C"),
        n,
        &three,
        move |a, b, c| v(a).wrapping_mul(v(b)).wrapping_add(v(c)) as u64,
    ));
    out.push(made(
        format!("mad.hi.{t} D, A, B, C"),
        n,
        &three,
        move |a, b, c| high(a, b).wrapping_add(c),
    ));
    if n < 64 {
        out.push(made(
            format!("mul.wide.{t} D, A, B"),
            n * 2,
            &two,
            move |a, b, _| (v(a) * v(b)) as u64,
        ));
        out.push(made(
            format!("mad.wide.{t} D, A, B, C"),
            n * 2,
            &[(n, Bits), (n, Bits), (n * 2, Bits)],
            move |a, b, c| ((v(a) * v(b)) as u64).wrapping_add(c),
        ));
    }
    let all = if n == 64 { u64::MAX } else { (1 << n) - 1 };
    let by_zero = move |a: u64, b: u64, f: fn(i128, i128) -> i128, none: u64| {
        if b & all == 0 {
            none
        } else {
            f(v(a), v(b)) as u64
        }
    };
    out.push(Made {
        model: Box::new(move |a, b, _| (b & all != 0).then(|| by_zero(a, b, |x, y| x / y, 0))),
        ..made(format!("div.{t} D, A, B"), n, &two, |_, _, _| 0)
    });
    out.push(Made {
        model: Box::new(move |a, b, _| (b & all != 0).then(|| by_zero(a, b, |x, y| x % y, 0))),
        ..made(format!("rem.{t} D, A, B"), n, &two, |_, _, _| 0)
    });
    out.push(made(format!("min.{t} D, A, B"), n, &two, move |a, b, _| {
        v(a).min(v(b)) as u64
    }));
    out.push(made(format!("max.{t} D, A, B"), n, &two, move |a, b, _| {
        v(a).max(v(b)) as u64
    }));
    out.push(made(
        format!("sad.{t} D, A, B, C"),
        n,
        &three,
        move |a, b, c| ((v(a) - v(b)).abs() + v(c)) as u64,
    ));
    if signed {
        out.push(made(
            format!("abs.{t} D, A"),
            n,
            &two[..1],
            move |a, _, _| v(a).unsigned_abs() as u64,
        ));
        out.push(made(
            format!("neg.{t} D, A"),
            n,
            &two[..1],
            move |a, _, _| (-v(a)) as u64,
        ));
    }
}

fn packed(out: &mut Vec<Made>) {
    for (t, signed) in [("u16x2", false), ("s16x2", true)] {
        let each = move |a: u64, b: u64, f: fn(i128, i128) -> i128| {
            (0..2).fold(0, |v, i| {
                v | (f(
                    int(a >> (16 * i), 16, signed),
                    int(b >> (16 * i), 16, signed),
                ) as u64
                    & 0xffff)
                    << (16 * i)
            })
        };
        out.push(made(format!("add.{t} D, A, B"), 32, I2, move |a, b, _| {
            each(a, b, |x, y| x + y)
        }));
        out.push(made(format!("min.{t} D, A, B"), 32, I2, move |a, b, _| {
            each(a, b, |x, y| x.min(y))
        }));
        out.push(made(format!("max.{t} D, A, B"), 32, I2, move |a, b, _| {
            each(a, b, |x, y| x.max(y))
        }));
        if signed {
            out.push(made(
                format!("min.relu.{t} D, A, B"),
                32,
                I2,
                move |a, b, _| each(a, b, |x, y| x.min(y).max(0)),
            ));
            out.push(made(
                format!("max.relu.{t} D, A, B"),
                32,
                I2,
                move |a, b, _| each(a, b, |x, y| x.max(y).max(0)),
            ));
        }
    }
    out.push(made("min.relu.s32 D, A, B", 32, I2, |a, b, _| {
        w(s(a).min(s(b)).max(0))
    }));
    out.push(made("max.relu.s32 D, A, B", 32, I2, |a, b, _| {
        w(s(a).max(s(b)).max(0))
    }));
}

fn dot_products(out: &mut Vec<Made>) {
    for (lo_hi, shift) in [("lo", 0), ("hi", 16)] {
        for (ta, sa) in [("u32", false), ("s32", true)] {
            for (tb, sb) in [("u32", false), ("s32", true)] {
                out.push(made(
                    format!("dp2a.{lo_hi}.{ta}.{tb} D, A, B, C"),
                    32,
                    I3,
                    move |a, b, c| {
                        (0..2).fold(i128::from(c), |t, i| {
                            t + int(a >> (16 * i), 16, sa) * int(b >> (shift + 8 * i), 8, sb)
                        }) as u64
                    },
                ));
                if shift == 0 {
                    out.push(made(
                        format!("dp4a.{ta}.{tb} D, A, B, C"),
                        32,
                        I3,
                        move |a, b, c| {
                            (0..4).fold(i128::from(c), |t, i| {
                                t + int(a >> (8 * i), 8, sa) * int(b >> (8 * i), 8, sb)
                            }) as u64
                        },
                    ));
                }
            }
        }
    }
}

fn of_24_bits(out: &mut Vec<Made>) {
    for (t, signed) in [("u32", false), ("s32", true)] {
        let product = move |a: u64, b: u64| int(a, 24, signed) * int(b, 24, signed);
        out.push(made(
            format!("mul24.lo.{t} D, A, B"),
            32,
            I2,
            move |a, b, _| product(a, b) as u64,
        ));
        out.push(made(
            format!("mul24.hi.{t} D, A, B"),
            32,
            I2,
            move |a, b, _| (product(a, b) >> 16) as u64,
        ));
        out.push(made(
            format!("mad24.lo.{t} D, A, B, C"),
            32,
            I3,
            move |a, b, c| (product(a, b) + i128::from(c)) as u64,
        ));
        out.push(made(
            format!("mad24.hi.{t} D, A, B, C"),
            32,
            I3,
            move |a, b, c| ((product(a, b) >> 16) + i128::from(c)) as u64,
        ));
        out.push(made(
            format!("{{ mad.lo.cc.{t} D, A, B, C; madc.lo.{t} D, A, B, C; }}"),
            32,
            I3,
            |a, b, c| {
                let low = (a * b) & 0xffff_ffff;
                low + c + ((low + c) >> 32)
            },
        ));
    }
}
