//! Rows of `isa/video.rs`: SIMD video instructions.

use crate::model::*;
use crate::row::{Made, made};

/// The rows that exist for several types.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    for parts in [2u32, 4] {
        let bits = 32 / parts;
        for (t, signed) in [("u32", false), ("s32", true)] {
            type Op = fn(i128, i128) -> i128;
            let ops: [(&str, Op); 6] = [
                ("vadd", |a, b| a + b),
                ("vsub", |a, b| a - b),
                ("vabsdiff", |a, b| (a - b).abs()),
                ("vmin", i128::min),
                ("vmax", i128::max),
                ("vavrg", |a, b| (a + b + i128::from(a + b >= 0)) >> 1),
            ];
            let each = move |a: u64, b: u64, f: &dyn Fn(i128, i128) -> i128| -> Vec<i128> {
                (0..parts)
                    .map(|i| {
                        f(
                            int(a >> (bits * i), bits, signed),
                            int(b >> (bits * i), bits, signed),
                        )
                    })
                    .collect()
            };
            let join = move |v: Vec<i128>| {
                v.iter().enumerate().fold(0u64, |x, (i, p)| {
                    x | (*p as u64 & ((1 << bits) - 1)) << (bits * i as u32)
                })
            };
            let (lo, hi) = if signed {
                (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
            } else {
                (0, (1i128 << bits) - 1)
            };
            for (o, op) in ops {
                out.push(made(
                    format!("{o}{parts}.{t}.{t}.{t} D, A, B, C"),
                    32,
                    I3,
                    move |a, b, _| join(each(a, b, &op)),
                ));
                out.push(made(
                    format!("{o}{parts}.{t}.{t}.{t}.sat D, A, B, C"),
                    32,
                    I3,
                    move |a, b, _| join(each(a, b, &|x, y| op(x, y).clamp(lo, hi))),
                ));
                out.push(made(
                    format!("{o}{parts}.{t}.{t}.{t}.sat.add D, A, B, C"),
                    32,
                    I3,
                    move |a, b, c| {
                        (i128::from(c)
                            + each(a, b, &|x, y| op(x, y).clamp(lo, hi))
                                .iter()
                                .sum::<i128>()) as u64
                    },
                ));
            }
            let compare: [(&str, fn(&i128, &i128) -> bool); 6] = [
                ("eq", i128::eq),
                ("ne", i128::ne),
                ("lt", i128::lt),
                ("le", i128::le),
                ("gt", i128::gt),
                ("ge", i128::ge),
            ];
            for (c, test) in compare {
                out.push(made(
                    format!("vset{parts}.{t}.{t}.{c} D, A, B, C"),
                    32,
                    I3,
                    move |a, b, _| join(each(a, b, &|x, y| i128::from(test(&x, &y)))),
                ));
            }
        }
    }
    out
}
