//! Rows of `isa/bits.rs`.

use crate::model::*;
use crate::row::{Made, Row, made};

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("and.b32 D, A, B", 32, I2, |a, b, _| a & b),
        Row("xor.b64 D, A, B", 64, L2, |a, b, _| a ^ b),
        Row("not.b32 D, A", 32, &[(32, Bits)], |a, _, _| a ^ 0xffff_ffff),
        Row("cnot.b32 D, A", 32, &[(32, Bits)], |a, _, _| u64::from(a == 0)),
        Row("lop3.b32 D, A, B, C, 0x96", 32, I3, |a, b, c| a ^ b ^ c),
        Row("lop3.b32 D, A, B, C, 0xe8", 32, I3, |a, b, c| a & b | a & c | b & c),
        Row("lop3.b32 D, A, B, C, 0x2a", 32, I3, |a, b, c| !(a & b) & c),
        Row("shl.b32 D, A, B", 32, &[(32, Bits), (32, Count)], |a, n, _| if n > 31 { 0 } else { a << n & 0xffff_ffff }),
        Row("shr.u32 D, A, B", 32, &[(32, Bits), (32, Count)], |a, n, _| if n > 31 { 0 } else { a >> n }),
        Row("shr.s32 D, A, B", 32, &[(32, Bits), (32, Count)], |a, n, _| w(s(a) >> n.min(31))),
        Row("shl.b64 D, A, B", 64, &[(64, Bits), (32, Count)], |a, n, _| if n > 63 { 0 } else { a << n }),
        Row("shr.s64 D, A, B", 64, &[(64, Bits), (32, Count)], |a, n, _| ((a as i64) >> n.min(63)) as u64),
        Row("shf.l.wrap.b32 D, A, B, C", 32, &[(32, Bits), (32, Bits), (32, Count)], |a, b, n| ((b << 32 | a) << (n & 31) >> 32) & 0xffff_ffff),
        Row("shf.r.clamp.b32 D, A, B, C", 32, &[(32, Bits), (32, Bits), (32, Count)], |a, b, n| ((b << 32 | a) >> n.min(32)) & 0xffff_ffff),
        Row("bfe.u32 D, A, B, C", 32, &[(32, Bits), (32, Count), (32, Count)], |a, p, l| (0..32).filter(|i| *i < l && p + i < 32).fold(0, |v, i| v | (a >> (p + i) & 1) << i)),
        Row("bfe.s32 D, A, B, C", 32, &[(32, Bits), (32, Count), (32, Count)], |a, p, l| if l == 0 { 0 } else { (0..32).fold(0, |v, i| v | (a >> (if i < l { (p + i).min(31) } else { (p + l - 1).min(31) }) & 1) << i) }),
        Row("bfi.b32 D, A, B, C, 9", 32, &[(32, Bits), (32, Bits), (32, Count)], |a, b, p| (0..32).fold(0, |v, i| v | (if i >= p && i < p + 9 { a >> (i - p) } else { b >> i } & 1) << i)),
        Row("popc.b32 D, A", 32, &[(32, Bits)], |a, _, _| (0..32).map(|i| a >> i & 1).sum()),
        Row("clz.b64 D, A", 32, &[(64, Bits)], |a, _, _| (0..64).rev().take_while(|i| a >> i & 1 == 0).count() as u64),
        Row("brev.b32 D, A", 32, &[(32, Bits)], |a, _, _| (0..32).fold(0, |v, i| v | (a >> i & 1) << (31 - i))),
        Row("bfind.s32 D, A", 32, &[(32, Bits)], |a, _, _| { let x = if s(a) < 0 { !a & 0xffff_ffff } else { a }; (0..32).rev().find(|i| x >> i & 1 == 1).unwrap_or(0xffff_ffff) }),
        Row("prmt.b32 D, A, B, C", 32, I3, |a, b, c| (0..4).fold(0, |v, i| { let k = c >> (4 * i) & 15; let y = (b << 32 | a) >> (8 * (k & 7)) & 255; v | (if k & 8 == 0 { y } else if y & 128 != 0 { 255 } else { 0 }) << (8 * i) })),
        Row("prmt.b32.b4e D, A, B, C", 32, I3, |a, b, c| { let n = c & 3; (0..4u64).fold(0, |v, i| v | ((b << 32 | a) >> (8 * ((n + 8 - i) & 7)) & 255) << (8 * i)) }),
        Row("szext.clamp.s32 D, A, B", 32, &[(32, Bits), (32, Count)], |a, n, _| if n == 0 { 0 } else if n > 31 { a } else { w(s(a << (32 - n) & 0xffff_ffff) >> (32 - n)) }),
        Row("bmsk.clamp.b32 D, A, B", 32, &[(32, Count), (32, Count)], |p, l, _| (0..32).filter(|i| *i >= p && *i < p + l).fold(0, |v, i| v | 1 << i)),
        Row("or.b32 D, A, B", 32, I2, |a, b, _| a | b),
        Row("{ .reg .pred p, q, r; setp.ne.u32 p, A, 0; setp.ne.u32 q, B, 0; xor.pred r, p, q; not.pred r, r; and.pred r, r, p; selp.b32 D, 1, 2, r; }", 32, I2, |a, b, _| if a != 0 && b != 0 { 1 } else { 2 }),
        Row("fns.b32 D, A, B, 2", 32, &[(32, Bits), (32, Count)], |m, p, _| (p..32).filter(|i| m >> i & 1 == 1).nth(1).unwrap_or(0xffff_ffff)),
        Row("bfe.u64 D, A, B, C", 64, &[(64, Bits), (32, Count), (32, Count)], |a, p, l| (0..64).filter(|i| *i < l && p + i < 64).fold(0, |v, i| v | (a >> (p + i) & 1) << i)),
        Row("bfi.b64 D, A, B, C, 30", 64, &[(64, Bits), (64, Bits), (32, Count)], |a, b, p| (0..64).fold(0, |v, i| v | (if i >= p && i < p + 30 { a >> (i - p) } else { b >> i } & 1) << i)),
        Row("clz.b32 D, A", 32, &[(32, Bits)], |a, _, _| (0..32).rev().take_while(|i| a >> i & 1 == 0).count() as u64),
        Row("popc.b64 D, A", 32, &[(64, Bits)], |a, _, _| (0..64).map(|i| a >> i & 1).sum()),
        Row("bfind.shiftamt.u64 D, A", 32, &[(64, Bits)], |a, _, _| (0..64).rev().find(|i| a >> i & 1 == 1).map_or(0xffff_ffff, |i| 63 - i)),
    ]
}

/// The rows that exist for several types.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    for (t, n, signed) in INTS {
        let v = move |x: u64| int(x, n, signed);
        let two = [(n, Bits); 2];
        out.push(made(
            format!("shr.{t} D, A, B"),
            n,
            &[(n, Bits), (32, Count)],
            move |a, b, _| (v(a) >> b.min(u64::from(n) + 1).min(100)) as u64,
        ));
        if !signed {
            let b = format!("b{n}");
            out.push(made(format!("and.{b} D, A, B"), n, &two, |a, b, _| a & b));
            out.push(made(format!("or.{b} D, A, B"), n, &two, |a, b, _| a | b));
            out.push(made(format!("xor.{b} D, A, B"), n, &two, |a, b, _| a ^ b));
            out.push(made(format!("not.{b} D, A"), n, &two[..1], |a, _, _| !a));
            out.push(made(format!("cnot.{b} D, A"), n, &two[..1], |a, _, _| {
                u64::from(a == 0)
            }));
            out.push(made(
                format!("shl.{b} D, A, B"),
                n,
                &[(n, Bits), (32, Count)],
                move |a, k, _| if k >= u64::from(n) { 0 } else { a << k },
            ));
        }
        if n >= 32 {
            out.push(made(
                format!("bfind.{t} D, A"),
                32,
                &two[..1],
                move |a, _, _| {
                    let x = if v(a) < 0 { !v(a) } else { v(a) };
                    (0..u64::from(n))
                        .rev()
                        .find(|i| x >> i & 1 == 1)
                        .unwrap_or(0xffff_ffff)
                },
            ));
            out.push(made(
                format!("bfe.{t} D, A, B, C"),
                n,
                &[(n, Bits), (32, Count), (32, Count)],
                move |a, p, l| {
                    let top = u64::from(n) - 1;
                    if l == 0 {
                        return 0;
                    }
                    (0..=top).fold(0, |x, i| {
                        let at = if i < l { p + i } else { p + l - 1 };
                        let bit = if at > top {
                            if signed { a >> top & 1 } else { 0 }
                        } else if i < l || signed {
                            a >> at & 1
                        } else {
                            0
                        };
                        x | bit << i
                    })
                },
            ));
        }
    }
    out
}
