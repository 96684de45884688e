//! Single instructions against an independent model: integers bit for bit, floats through f64.
//!
//! A row is the PTX, the widths of its result and sources, the kind of values fed in, and the model. 512 threads run
//! it on awkward values and random bits.
#![allow(clippy::unwrap_used, clippy::type_complexity)]

mod common;

use common::{Random, download, gpu, upload};
use cuda::{LaunchError, Shape};

#[derive(Clone, Copy, PartialEq)]
enum Feed {
    /// Integers of any width.
    Bits,
    F16,
    Bf16,
    F32,
    F64,
    /// Small shift counts and field positions.
    Count,
}
use Feed::{Bf16, Bits, Count, F16, F32, F64};

type Model = fn(u64, u64, u64) -> u64;

struct Row(&'static str, u32, &'static [(u32, Feed)], Model);

fn s(v: u64) -> i64 {
    v as u32 as i32 as i64
}
fn w(v: i64) -> u64 {
    v as u32 as u64
}
fn f(v: u64) -> f64 {
    f64::from(f32::from_bits(v as u32))
}
fn d(v: u64) -> f64 {
    f64::from_bits(v)
}
/// f64 to f32 bits, PTX's NaN.
fn r(x: f64) -> u64 {
    if x.is_nan() {
        0x7fff_ffff
    } else {
        u64::from((x as f32).to_bits())
    }
}
fn flush(v: u64) -> u64 {
    if v & 0x7f80_0000 == 0 {
        v & 0x8000_0000
    } else {
        v
    }
}
fn h(v: u64) -> f64 {
    let (e, m, sign) = (
        v >> 10 & 31,
        (v & 1023) as f64,
        if v >> 15 & 1 == 1 { -1.0 } else { 1.0 },
    );
    sign * match e {
        0 => m * 2f64.powi(-24),
        31 => {
            if m == 0.0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        _ => (1024.0 + m) * 2f64.powi(e as i32 - 25),
    }
}
fn b(v: u64) -> f64 {
    f64::from(f32::from_bits((v as u32 & 0xffff) << 16))
}
/// f64 to the nearest value of a 16-bit format by search over its magnitudes.
fn narrow(x: f64, wide: fn(u64) -> f64, inf: u64) -> u64 {
    if x.is_nan() {
        return 0x7fff;
    }
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let a = x.abs();
    let (mut lo, mut hi) = (0u64, inf - 1);
    while lo < hi {
        let mid = (lo + hi).div_ceil(2);
        if wide(mid) <= a {
            lo = mid
        } else {
            hi = mid - 1
        }
    }
    // The neighbour above the largest finite value is where infinity would be were it finite.
    let step = wide(lo) - if lo == 0 { -wide(1) } else { wide(lo - 1) };
    let next = if lo == inf - 1 {
        wide(lo) + step
    } else {
        wide(lo + 1)
    };
    let (down, up) = (a - wide(lo), next - a);
    sign | if down < up || (down == up && lo & 1 == 0) {
        lo
    } else {
        lo + 1
    }
}
fn nh(x: f64) -> u64 {
    narrow(x, h, 0x7c00)
}
fn nb(x: f64) -> u64 {
    narrow(x, b, 0x7f80)
}
fn pick(a: f64, b: f64, less: bool) -> f64 {
    let a_first = a < b || (a == b && a.is_sign_negative());
    if a.is_nan() {
        b
    } else if b.is_nan() || a_first == less {
        a
    } else {
        b
    }
}
fn two(a: u64, b: u64, op: fn(u64, u64) -> u64) -> u64 {
    op(a & 0xffff, b & 0xffff) | op(a >> 16 & 0xffff, b >> 16 & 0xffff) << 16
}

const I2: &[(u32, Feed)] = &[(32, Bits), (32, Bits)];
const I3: &[(u32, Feed)] = &[(32, Bits), (32, Bits), (32, Bits)];
const L2: &[(u32, Feed)] = &[(64, Bits), (64, Bits)];
const L3: &[(u32, Feed)] = &[(64, Bits), (64, Bits), (64, Bits)];
const X2: &[(u32, Feed)] = &[(32, F32), (32, F32)];
const X3: &[(u32, Feed)] = &[(32, F32), (32, F32), (32, F32)];
const D2: &[(u32, Feed)] = &[(64, F64), (64, F64)];
const H2: &[(u32, Feed)] = &[(16, F16), (16, F16)];
const B2: &[(u32, Feed)] = &[(16, Bf16), (16, Bf16)];

#[rustfmt::skip]
fn rows() -> Vec<Row> {
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
        Row("mov.b64 D, {A, B}", 64, I2, |a, b, _| b << 32 | a),
        Row("{ .reg .b32 x; mov.b64 {x, D}, A; }", 32, &[(64, Bits)], |a, _, _| a >> 32),
        Row("{ .reg .b16 x, y; mov.b32 {x, y}, A; mov.b32 D, {y, x}; }", 32, &[(32, Bits)], |a, _, _| a << 16 & 0xffff_ffff | a >> 16),
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
        Row("add.f16 D, A, B", 16, H2, |a, b, _| nh(h(a) + h(b))),
        Row("mul.f16 D, A, B", 16, H2, |a, b, _| nh(h(a) * h(b))),
        Row("fma.rn.f16 D, A, B, C", 16, &[(16, F16), (16, F16), (16, F16)], |a, b, c| nh(h(a).mul_add(h(b), h(c)))),
        Row("fma.rn.relu.f16 D, A, B, C", 16, &[(16, F16), (16, F16), (16, F16)], |a, b, c| { let x = h(a).mul_add(h(b), h(c)); if x.is_nan() { 0x7fff } else if x.is_sign_negative() { 0 } else { nh(x) } }),
        Row("fma.rn.bf16 D, A, B, C", 16, &[(16, Bf16), (16, Bf16), (16, Bf16)], |x, y, z| nb(b(x).mul_add(b(y), b(z)))),
        Row("min.bf16 D, A, B", 16, B2, |x, y, _| nb(pick(b(x), b(y), true))),
        Row("add.f16x2 D, A, B", 32, &[(32, F16), (32, F16)], |a, b, _| two(a, b, |x, y| nh(h(x) + h(y)))),
        Row("sub.ftz.f16x2 D, A, B", 32, &[(32, F16), (32, F16)], |a, b, _| two(a, b, |x, y| { let z = |v: u64| if v & 0x7c00 == 0 { v & 0x8000 } else { v }; z(nh(h(z(x)) - h(z(y)))) })),
        Row("max.bf16x2 D, A, B", 32, &[(32, Bf16), (32, Bf16)], |x, y, _| two(x, y, |x, y| nb(pick(b(x), b(y), false)))),
        Row("mad24.lo.u32 D, A, B, C", 32, I3, |a, b, c| ((a & 0xff_ffff) * (b & 0xff_ffff) + c) & 0xffff_ffff),
        Row("min.s16 D, A, B", 16, &[(16, Bits), (16, Bits)], |a, b, _| (a as i16).min(b as i16) as u64 & 0xffff),
        Row("or.b32 D, A, B", 32, I2, |a, b, _| a | b),
        Row("div.s64 D, A, B", 64, L2, |a, b, _| if b == 0 { u64::MAX } else { (i128::from(a as i64) / i128::from(b as i64)) as u64 }),
        Row("{ .reg .pred p, q, r; setp.ne.u32 p, A, 0; setp.ne.u32 q, B, 0; xor.pred r, p, q; not.pred r, r; and.pred r, r, p; selp.b32 D, 1, 2, r; }", 32, I2, |a, b, _| if a != 0 && b != 0 { 1 } else { 2 }),
        Row("{ sub.cc.u64 D, A, B; subc.u64 D, C, 0; }", 64, L3, |a, b, c| c.wrapping_sub(u64::from(a < b))),
        Row("fns.b32 D, A, B, 2", 32, &[(32, Bits), (32, Count)], |m, p, _| (p..32).filter(|i| m >> i & 1 == 1).nth(1).unwrap_or(0xffff_ffff)),
        Row("bfe.u64 D, A, B, C", 64, &[(64, Bits), (32, Count), (32, Count)], |a, p, l| (0..64).filter(|i| *i < l && p + i < 64).fold(0, |v, i| v | (a >> (p + i) & 1) << i)),
        Row("bfi.b64 D, A, B, C, 30", 64, &[(64, Bits), (64, Bits), (32, Count)], |a, b, p| (0..64).fold(0, |v, i| v | (if i >= p && i < p + 30 { a >> (i - p) } else { b >> i } & 1) << i)),
        Row("clz.b32 D, A", 32, &[(32, Bits)], |a, _, _| (0..32).rev().take_while(|i| a >> i & 1 == 0).count() as u64),
        Row("popc.b64 D, A", 32, &[(64, Bits)], |a, _, _| (0..64).map(|i| a >> i & 1).sum()),
        Row("bfind.shiftamt.u64 D, A", 32, &[(64, Bits)], |a, _, _| (0..64).rev().find(|i| a >> i & 1 == 1).map_or(0xffff_ffff, |i| 63 - i)),
        Row("sub.f64 D, A, B", 64, D2, |a, b, _| (d(a) - d(b)).to_bits()),
        Row("mul.f64 D, A, B", 64, D2, |a, b, _| (d(a) * d(b)).to_bits()),
        Row("div.rn.f64 D, A, B", 64, D2, |a, b, _| (d(a) / d(b)).to_bits()),
        Row("sqrt.rn.f64 D, A", 64, &[(64, F64)], |a, _, _| d(a).sqrt().to_bits()),
        Row("fma.rn.f64 D, A, B, C", 64, &[(64, F64), (64, F64), (64, F64)], |a, b, c| d(a).mul_add(d(b), d(c)).to_bits()),
        Row("min.f64 D, A, B", 64, D2, |a, b, _| pick(d(a), d(b), true).to_bits()),
        Row("abs.f64 D, A", 64, &[(64, F64)], |a, _, _| a & !(1 << 63)),
        Row("fma.rn.ftz.f32 D, A, B, C", 32, X3, |a, b, c| { let x = f32::from_bits(flush(a) as u32).mul_add(f32::from_bits(flush(b) as u32), f32::from_bits(flush(c) as u32)); flush(r(f64::from(x))) }),
        Row("cvt.rn.f64.s64 D, A", 64, &[(64, Bits)], |a, _, _| (a as i64 as f64).to_bits()),
        Row("cvt.rzi.s64.f64 D, A", 64, &[(64, F64)], |a, _, _| if d(a).is_nan() { 0 } else { d(a) as i64 as u64 }),
        Row("cvt.rn.f16.s32 D, A", 16, &[(32, Bits)], |a, _, _| nh(s(a) as f64)),
        Row("cvt.rni.s32.f16 D, A", 32, &[(16, F16)], |a, _, _| if h(a).is_nan() { 0 } else { w(h(a).round_ties_even().clamp(-2147483648.0, 2147483647.0) as i64) }),
        Row("cvt.f32.bf16 D, A", 32, &[(16, Bf16)], |a, _, _| if b(a).is_nan() { 0x7fff_ffff } else { a << 16 }),
        Row("sub.bf16 D, A, B", 16, B2, |x, y, _| nb(b(x) - b(y))),
        Row("mul.bf16x2 D, A, B", 32, &[(32, Bf16), (32, Bf16)], |x, y, _| two(x, y, |x, y| nb(b(x) * b(y)))),
        Row("fma.rn.bf16x2 D, A, B, C", 32, &[(32, Bf16), (32, Bf16), (32, Bf16)], |x, y, z| nb(b(x).mul_add(b(y), b(z))) | nb(b(x >> 16).mul_add(b(y >> 16), b(z >> 16))) << 16),
        Row("max.NaN.f16 D, A, B", 16, H2, |x, y, _| if h(x).is_nan() || h(y).is_nan() { 0x7fff } else { nh(pick(h(x), h(y), false)) }),
        Row("ex2.approx.f16 D, A", 16, &[(16, F16)], |a, _, _| nh(h(a).exp2())),
        Row("tanh.approx.bf16 D, A", 16, &[(16, Bf16)], |a, _, _| nb(b(a).tanh())),
        Row("{ .reg .pred p, q; setp.le.f16x2 p|q, A, B; selp.b32 D, 1, 0, p; @q or.b32 D, D, 2; }", 32, &[(32, F16), (32, F16)], |a, b, _| u64::from(h(a) <= h(b)) | u64::from(h(a >> 16) <= h(b >> 16)) << 1),
        Row("set.gt.f16x2.f16x2 D, A, B", 32, &[(32, F16), (32, F16)], |a, b, _| two(a, b, |x, y| if h(x) > h(y) { 0x3c00 } else { 0 })),
        Row("{ .reg .pred p; isspacep.shared p, A; selp.b32 D, 1, 2, p; }", 32, &[(64, Bits)], |a, _, _| if a >> 48 == 1 { 1 } else { 2 }),
        Row("{ .reg .u64 g; .shared .align 8 .b64 sh[512]; .reg .u32 t; .reg .u64 o; mov.u32 t, %tid.x; mul.wide.u32 o, t, 8; mov.u64 g, sh; add.u64 g, g, o; cvta.shared.u64 g, g; st.u64 [g], A; ld.u64 D, [g]; }", 64, &[(64, Bits)], |a, _, _| a),
        Row("{ .local .align 4 .b8 l[8]; st.local.v2.b32 [l], {A, B}; ld.local.s8 D, [l+5]; }", 32, I2, |_, b, _| w(i64::from((b >> 8) as i8))),
        Row("neg.f16x2 D, A", 32, &[(32, F16)], |a, _, _| a ^ 0x8000_8000),
    ]
}

fn feed(kind: Feed, width: u32, rng: &mut Random) -> u64 {
    let roll = rng.bits() % 8;
    let special = |list: &[u64], rng: &mut Random| list[rng.bits() as usize % list.len()];
    let one = |rng: &mut Random| match kind {
        Count => rng.bits() % 40,
        Bits if roll < 4 => special(
            &[
                0,
                1,
                2,
                31,
                32,
                u64::MAX,
                1 << 31,
                (1 << 31) - 1,
                1 << 63,
                (1 << 63) - 1,
                0xffff,
                0x8000,
                0x7fff,
            ],
            rng,
        ),
        F16 if roll < 4 => special(
            &[
                0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x7c00, 0xfc00,
                0x7e00, 0x3c01, 0x3800,
            ],
            rng,
        ),
        Bf16 if roll < 4 => special(
            &[
                0, 0x8000, 1, 0x80, 0x3f80, 0xbf80, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0x3f81,
                0x4000,
            ],
            rng,
        ),
        F32 if roll < 4 => special(
            &[
                0,
                1 << 31,
                1,
                0x7f_ffff,
                0x80_0000,
                0x3f80_0000,
                0xbf80_0000,
                0x7f7f_ffff,
                0x7f80_0000,
                0xff80_0000,
                0x7fc0_0000,
                0x4b00_0001,
                0x3eff_ffff,
                0x477f_f000,
                0x4f00_0000,
                0xcf00_0000,
                0x4020_0000,
            ],
            rng,
        ),
        F32 if roll < 6 => u64::from((rng.unit() * 100.0).to_bits()),
        F64 if roll < 4 => special(
            &[
                0,
                1 << 63,
                1,
                0x3ff0 << 48,
                0xbff0 << 48,
                0x7fef_ffff_ffff_ffff,
                0x7ff0 << 48,
                0xfff0 << 48,
                0x7ff8 << 48,
                0x4330_0000_0000_0001,
                0x41ef_ffff_ffff_ffff,
            ],
            rng,
        ),
        F64 if roll < 6 => (f64::from(rng.unit()) * 1e5).to_bits(),
        _ => rng.bits(),
    };
    let v = if width == 32 && matches!(kind, F16 | Bf16) {
        one(rng) & 0xffff | (one(rng) & 0xffff) << 16
    } else {
        one(rng)
    };
    if width == 64 {
        v
    } else {
        v & ((1 << width) - 1)
    }
}

const THREADS: usize = 512;

fn check(row: &Row) -> Result<(), String> {
    let Row(ptx, result, sources, model) = row;
    check_one(ptx, *result, sources, &|a, b, c| Some(model(a, b, c)))
}

/// `model` yields nothing where an instruction's result is not worth a model.
fn check_one(
    ptx: &str,
    result: u32,
    sources: &[(u32, Feed)],
    model: &dyn Fn(u64, u64, u64) -> Option<u64>,
) -> Result<(), String> {
    let mut code = String::from(
        ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p) {\n.reg .b64 %rd<8>, %in<3>; .reg .b32 %t; .reg .b64 %out;\n",
    );
    let name = |i: usize| ["A", "B", "C"][i];
    code += &format!(".reg .b{result} D;\n");
    for (i, (width, _)) in sources.iter().enumerate() {
        code += &format!(".reg .b{width} {};\n", name(i));
    }
    code += "ld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x; mul.wide.u32 %rd2, %t, 32; add.u64 %rd3, %rd1, %rd2;\n";
    for (i, (width, _)) in sources.iter().enumerate() {
        code += &format!("ld.global.b{width} {}, [%rd3+{}];\n", name(i), i * 8);
    }
    let end = if ptx.starts_with('{') { "" } else { ";" };
    code += &format!("{ptx}{end}\nst.global.b{result} [%rd3+24], D;\nret;\n}}\n");
    let gpu = gpu();
    let kernel = gpu
        .load(&code)
        .and_then(|m| m.kernel("k"))
        .map_err(|e| e.to_string())?;
    let mut rng = Random(ptx.len() as u64);
    let mut data = vec![[0u64; 4]; THREADS];
    for line in &mut data {
        for (i, (width, kind)) in sources.iter().enumerate() {
            line[i] = feed(*kind, *width, &mut rng);
        }
    }
    let at = upload(&gpu, &data);
    gpu.launch(
        &kernel,
        Shape::line(1, THREADS as u32),
        kernel.pack(&[&at.to_le_bytes()]).unwrap(),
    )
    .map_err(|e| e.to_string())?;
    let got = download::<u64>(&gpu, at, THREADS * 4);
    for (i, line) in data.iter().enumerate() {
        let mask = if result == 64 {
            u64::MAX
        } else {
            (1 << result) - 1
        };
        let Some(want) = model(line[0], line[1], line[2]) else {
            continue;
        };
        let (have, want) = (got[i * 4 + 3] & mask, want & mask);
        let both_nan = result == 64 && d(have).is_nan() && d(want).is_nan();
        if have != want && !both_nan {
            return Err(format!(
                "on {:#x} {:#x} {:#x}: {have:#x}, expected {want:#x}",
                line[0], line[1], line[2]
            ));
        }
    }
    Ok(())
}

#[test]
fn every_row_agrees_with_its_model() {
    let rows = rows();
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|r| check(r).err().map(|e| format!("{}: {e}", r.0)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
}

/// A row made for one of several types.
struct Made {
    ptx: String,
    result: u32,
    sources: Vec<(u32, Feed)>,
    model: Box<dyn Fn(u64, u64, u64) -> Option<u64>>,
}

fn made(
    ptx: impl Into<String>,
    result: u32,
    sources: &[(u32, Feed)],
    model: impl Fn(u64, u64, u64) -> u64 + 'static,
) -> Made {
    Made {
        ptx: ptx.into(),
        result,
        sources: sources.to_vec(),
        model: Box::new(move |a, b, c| Some(model(a, b, c))),
    }
}

/// An integer of a type as it counts.
fn int(v: u64, bits: u32, signed: bool) -> i128 {
    let v = i128::from(v) & ((1 << bits) - 1);
    if signed && v >> (bits - 1) == 1 {
        v - (1 << bits)
    } else {
        v
    }
}

/// Which of the directed modes, as a step from the nearest value: hi + lo is exact.
fn directed(hi: f64, lo: f64, mode: &str) -> u64 {
    if hi.is_nan() {
        return 0x7fff_ffff;
    }
    let x = hi as f32;
    if hi.is_infinite() {
        return u64::from(x.to_bits());
    }
    // The exact value less the candidate; a candidate beyond the largest finite value is above everything.
    let above = if x.is_infinite() {
        -f64::from(x)
    } else {
        (hi - f64::from(x)) + lo
    };
    let y = match mode {
        "rn" => x,
        "rm" if above < 0.0 => x.next_down(),
        "rp" if above > 0.0 => x.next_up(),
        "rz" if above < 0.0 && x > 0.0 => x.next_down(),
        "rz" if above > 0.0 && x < 0.0 => x.next_up(),
        _ => x,
    };
    u64::from(y.to_bits())
}

fn families() -> Vec<Made> {
    let mut out = Vec::new();
    let ints = [
        ("u16", 16, false),
        ("s16", 16, true),
        ("u32", 32, false),
        ("s32", 32, true),
        ("u64", 64, false),
        ("s64", 64, true),
    ];
    for (t, n, signed) in ints {
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
        out.push(made(
            format!("shr.{t} D, A, B"),
            n,
            &[(n, Bits), (32, Count)],
            move |a, b, _| (v(a) >> b.min(u64::from(n) + 1).min(100)) as u64,
        ));
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
            out.push(made(format!("mov.{b} D, A"), n, &two[..1], |a, _, _| a));
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
    // Between all integer types, plain and saturated; to and from floating-point types.
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
        // The remainder of a division or a root says on which side of the quotient the exact value lies.
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
    let orders: [(&str, fn(f64, f64) -> bool); 8] = [
        ("eq", |a, b| a == b),
        // False for what is no number, unlike `!=`.
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
    // The 16-bit formats, alone and in pairs.
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
    // Packed integers.
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
    // SIMD video instructions.
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
    out
}

#[test]
fn families_agree_with_their_models() {
    let rows = families();
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|r| {
            check_one(&r.ptx, r.result, &r.sources, &r.model)
                .err()
                .map(|e| format!("{}: {e}", r.ptx))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
}

/// Opcodes in a piece of PTX: the first word after a brace, a semicolon or a guard.
fn opcodes_of(ptx: &str, into: &mut std::collections::BTreeSet<String>) {
    for statement in ptx.split([';', '{', '}', '\n']) {
        let words = statement
            .split_whitespace()
            .filter(|w| !w.starts_with('@') && !w.ends_with(':'));
        if let Some(word) = words.into_iter().next() {
            into.insert(word.split('.').next().unwrap_or(word).to_owned());
        }
    }
}

#[test]
fn every_opcode_has_a_row() {
    let mut seen = std::collections::BTreeSet::new();
    for r in rows() {
        opcodes_of(r.0, &mut seen);
    }
    for r in families() {
        opcodes_of(&r.ptx, &mut seen);
    }
    for (_, body, _) in warp_rows() {
        opcodes_of(&body, &mut seen);
    }
    for (op, _) in approximations() {
        opcodes_of(op, &mut seen);
    }
    seen.extend(["mma", "wmma"].map(str::to_owned));
    let missing: Vec<&str> = cuda::opcodes()
        .into_iter()
        .filter(|o| !seen.contains(*o))
        .collect();
    assert!(missing.is_empty(), "no row in this file has {missing:?}");
}

/// wmma: loads, a product and a store in every combination of layouts against plain sums.
#[test]
fn wmma_products_agree_with_plain_sums() {
    // Shape, PTX types of D A B C as written, element bits of A, registers of A, B, C, D, value and maker of an element.
    type Case = (
        &'static str,
        [usize; 3],
        &'static str,
        [&'static str; 4],
        u32,
        [usize; 4],
        fn(u64) -> f64,
        fn(&mut Random) -> u64,
    );
    let half = |g: &mut Random| nh(f64::from((g.unit() * 8.0).round()) / 4.0);
    let brain = |g: &mut Random| nb(f64::from((g.unit() * 8.0).round()) / 4.0);
    let tf = |g: &mut Random| u64::from(((g.unit() * 64.0).round() / 8.0).to_bits());
    let double = |g: &mut Random| f64::from((g.unit() * 64.0).round()).to_bits();
    let byte = |g: &mut Random| g.bits() & 255;
    let signed = |v: u64| f64::from(v as i8);
    let cases: Vec<Case> = vec![
        (
            "m16n16k16",
            [16, 16, 16],
            "f32.f32",
            ["f32", "f16", "f16", "f32"],
            16,
            [8, 8, 8, 8],
            h,
            half,
        ),
        (
            "m32n8k16",
            [32, 8, 16],
            "f32.f32",
            ["f32", "f16", "f16", "f32"],
            16,
            [8, 8, 8, 8],
            h,
            half,
        ),
        (
            "m8n32k16",
            [8, 32, 16],
            "f16.f16",
            ["f16", "f16", "f16", "f16"],
            16,
            [8, 8, 4, 4],
            h,
            half,
        ),
        (
            "m16n16k16",
            [16, 16, 16],
            "f32.bf16.bf16.f32",
            ["f32", "bf16", "bf16", "f32"],
            16,
            [4, 4, 8, 8],
            b,
            brain,
        ),
        (
            "m32n8k16",
            [32, 8, 16],
            "f32.bf16.bf16.f32",
            ["f32", "bf16", "bf16", "f32"],
            16,
            [8, 2, 8, 8],
            b,
            brain,
        ),
        (
            "m16n16k8",
            [16, 16, 8],
            "f32.tf32.tf32.f32",
            ["f32", "tf32", "tf32", "f32"],
            32,
            [4, 4, 8, 8],
            f,
            tf,
        ),
        (
            "m8n8k4",
            [8, 8, 4],
            "f64.f64.f64.f64",
            ["f64", "f64", "f64", "f64"],
            64,
            [1, 1, 2, 2],
            d,
            double,
        ),
        (
            "m16n16k16",
            [16, 16, 16],
            "s32.s8.s8.s32",
            ["s32", "s8", "s8", "s32"],
            8,
            [2, 2, 8, 8],
            signed,
            byte,
        ),
        (
            "m8n32k16",
            [8, 32, 16],
            "s32.u8.u8.s32",
            ["s32", "u8", "u8", "s32"],
            8,
            [1, 4, 8, 8],
            |v| v as f64,
            byte,
        ),
        (
            "m8n8k32",
            [8, 8, 32],
            "s32.s4.s4.s32",
            ["s32", "s4", "s4", "s32"],
            4,
            [1, 1, 2, 2],
            |v| if v > 7 { v as f64 - 16.0 } else { v as f64 },
            |g| g.bits() & 15,
        ),
        (
            "m8n8k128",
            [8, 8, 128],
            "s32.b1.b1.s32",
            ["s32", "b1", "b1", "s32"],
            1,
            [1, 1, 2, 2],
            |v| v as f64,
            |g| g.bits() & 1,
        ),
    ];
    for (shape, [m, n, k], types, [td, ta, tb, tc], bits, regs, wide, make) in cases {
        let layouts: &[(&str, &str, &str)] = if bits < 8 {
            &[("row", "col", "row"), ("row", "col", "col")]
        } else {
            &[
                ("row", "col", "row"),
                ("col", "row", "row"),
                ("row", "row", "col"),
                ("col", "col", "col"),
            ]
        };
        for &(la, lb, lc) in layouts {
            let mut rng = Random(m as u64 * 31 + u64::from(bits));
            let a: Vec<u64> = (0..m * k).map(|_| make(&mut rng)).collect();
            let bm: Vec<u64> = (0..k * n).map(|_| make(&mut rng)).collect();
            let c: Vec<f64> = (0..m * n)
                .map(|_| f64::from((rng.unit() * 50.0).round()))
                .collect();
            // Lines are longer than the matrix, so that a wrong stride shows.
            let stride = |line: usize| line + 64;
            let store = |rows: usize,
                         columns: usize,
                         layout: &str,
                         bits: u32,
                         value: &dyn Fn(usize, usize) -> u64| {
                let row = layout == "row";
                let ld = stride(if row { columns } else { rows });
                let lines = if row { rows } else { columns };
                let mut bytes = vec![0u8; (ld * lines * bits as usize).div_ceil(8)];
                for r in 0..rows {
                    for q in 0..columns {
                        let at = if row { r * ld + q } else { q * ld + r } * bits as usize;
                        let v = value(r, q);
                        if bits < 8 {
                            bytes[at / 8] |= (v << (at % 8)) as u8;
                        } else {
                            bytes[at / 8..][..bits as usize / 8]
                                .copy_from_slice(&v.to_le_bytes()[..bits as usize / 8]);
                        }
                    }
                }
                (bytes, ld)
            };
            let (cbits, to): (u32, fn(f64) -> u64) = match td {
                "f32" => (32, r),
                "f16" => (16, nh),
                "f64" => (64, f64::to_bits),
                _ => (32, |x| w(x as i64)),
            };
            let (ab, lda) = store(m, k, la, bits, &|i, j| a[i * k + j]);
            let (bb, ldb) = store(k, n, lb, bits, &|i, j| bm[i * n + j]);
            let (cb, ldc) = store(m, n, lc, cbits, &|i, j| to(c[i * n + j]));
            let reg = |t: &str| if t == "f64" { "b64" } else { "b32" };
            let list = |x: &str, n: usize| {
                format!(
                    "{{{}}}",
                    (0..n)
                        .map(|i| format!("%{x}{i}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            };
            let popc = if bits == 1 { ".and.popc" } else { "" };
            let code = format!(
                ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u64 q, .param .u64 s) {{\n.reg .b64 %rd<4>; .reg .{} %a<8>, %b<8>; .reg .{} %c<8>, %d<8>;\nld.param.u64 %rd1, [p]; ld.param.u64 %rd2, [q]; ld.param.u64 %rd3, [s];\nwmma.load.a.sync.aligned.{la}.{shape}.global.{ta} {}, [%rd1], {lda};\nwmma.load.b.sync.aligned.{lb}.{shape}.{tb} {}, [%rd2], {ldb};\nwmma.load.c.sync.aligned.{lc}.{shape}.global.{tc} {}, [%rd3], {ldc};\nwmma.mma{popc}.sync.aligned.{la}.{lb}.{shape}.{types} {}, {}, {}, {};\nwmma.store.d.sync.aligned.{lc}.{shape}.global.{td} [%rd3], {}, {ldc};\nret;\n}}\n",
                reg(ta),
                reg(td),
                list("a", regs[0]),
                list("b", regs[1]),
                list("c", regs[2]),
                list("d", regs[3]),
                list("a", regs[0]),
                list("b", regs[1]),
                list("c", regs[2]),
                list("d", regs[3])
            );
            let gpu = gpu();
            let kernel = gpu
                .load(&code)
                .and_then(|m| m.kernel("k"))
                .unwrap_or_else(|e| panic!("{shape} {types}: {e}"));
            let (pa, pb, pc) = (upload(&gpu, &ab), upload(&gpu, &bb), upload(&gpu, &cb));
            gpu.launch(
                &kernel,
                Shape::line(1, 32),
                kernel
                    .pack(&[&pa.to_le_bytes(), &pb.to_le_bytes(), &pc.to_le_bytes()])
                    .unwrap(),
            )
            .unwrap_or_else(|e| panic!("{shape} {types} {la} {lb} {lc}: {e}"));
            let (want, _) = store(m, n, lc, cbits, &|i, j| {
                to(c[i * n + j]
                    + (0..k)
                        .map(|x| wide(a[i * k + x]) * wide(bm[x * n + j]))
                        .sum::<f64>())
            });
            assert_eq!(
                download::<u8>(&gpu, pc, want.len()),
                want,
                "{shape} {types} {la} {lb} {lc}"
            );
        }
    }
}

/// A product on the tensor cores: the fragments are filled and read by the layout of the PTX manual, written down
/// here as (row, column) of each element of a lane, and compared with plain sums.
struct Mma {
    ptx: &'static str,
    shape: [usize; 3],
    /// Bits of an A and B element, registers of A, B, C and D.
    bits: u32,
    regs: [usize; 4],
    value: fn(u64) -> f64,
    /// Random element.
    make: fn(&mut Random) -> u64,
    /// Accumulator: `f32`, `s32`, `f64` or `f16`.
    acc: &'static str,
}

#[rustfmt::skip]
fn products() -> Vec<Mma> {
    let half = |g: &mut Random| nh(f64::from((g.unit() * 8.0).round()) / 4.0);
    let brain = |g: &mut Random| nb(f64::from((g.unit() * 8.0).round()) / 4.0);
    let tf = |g: &mut Random| u64::from(((g.unit() * 64.0).round() / 8.0).to_bits());
    let byte = |g: &mut Random| g.bits() & 255;
    vec![
        Mma { ptx: "m16n8k16.row.col.f32.f16.f16.f32", shape: [16, 8, 16], bits: 16, regs: [4, 2, 4, 4], value: h, make: half, acc: "f32" },
        Mma { ptx: "m16n8k8.row.col.f32.f16.f16.f32", shape: [16, 8, 8], bits: 16, regs: [2, 1, 4, 4], value: h, make: half, acc: "f32" },
        Mma { ptx: "m16n8k16.row.col.f16.f16.f16.f16", shape: [16, 8, 16], bits: 16, regs: [4, 2, 2, 2], value: h, make: half, acc: "f16" },
        Mma { ptx: "m16n8k16.row.col.f32.bf16.bf16.f32", shape: [16, 8, 16], bits: 16, regs: [4, 2, 4, 4], value: b, make: brain, acc: "f32" },
        Mma { ptx: "m16n8k8.row.col.f32.bf16.bf16.f32", shape: [16, 8, 8], bits: 16, regs: [2, 1, 4, 4], value: b, make: brain, acc: "f32" },
        Mma { ptx: "m16n8k8.row.col.f32.tf32.tf32.f32", shape: [16, 8, 8], bits: 32, regs: [4, 2, 4, 4], value: f, make: tf, acc: "f32" },
        Mma { ptx: "m16n8k4.row.col.f32.tf32.tf32.f32", shape: [16, 8, 4], bits: 32, regs: [2, 1, 4, 4], value: f, make: tf, acc: "f32" },
        Mma { ptx: "m8n8k4.row.col.f64.f64.f64.f64", shape: [8, 8, 4], bits: 64, regs: [1, 1, 2, 2], value: d, make: |g| f64::from(g.unit()).to_bits(), acc: "f64" },
        Mma { ptx: "m16n8k32.row.col.s32.s8.s8.s32", shape: [16, 8, 32], bits: 8, regs: [4, 2, 4, 4], value: |v| f64::from(v as i8), make: byte, acc: "s32" },
        Mma { ptx: "m16n8k16.row.col.s32.u8.u8.s32", shape: [16, 8, 16], bits: 8, regs: [2, 1, 4, 4], value: |v| v as f64, make: byte, acc: "s32" },
        Mma { ptx: "m8n8k16.row.col.s32.s8.s8.s32", shape: [8, 8, 16], bits: 8, regs: [1, 1, 2, 2], value: |v| f64::from(v as i8), make: byte, acc: "s32" },
        Mma { ptx: "m16n8k64.row.col.s32.s4.s4.s32", shape: [16, 8, 64], bits: 4, regs: [4, 2, 4, 4], value: |v| if v > 7 { v as f64 - 16.0 } else { v as f64 }, make: |g| g.bits() & 15, acc: "s32" },
        Mma { ptx: "m16n8k8.row.col.f16.f16.f16.f16", shape: [16, 8, 8], bits: 16, regs: [2, 1, 2, 2], value: h, make: half, acc: "f16" },
        Mma { ptx: "m16n8k4.row.col.f64.f64.f64.f64", shape: [16, 8, 4], bits: 64, regs: [2, 1, 4, 4], value: d, make: |g| f64::from(g.unit()).to_bits(), acc: "f64" },
        Mma { ptx: "m16n8k8.row.col.f64.f64.f64.f64", shape: [16, 8, 8], bits: 64, regs: [4, 2, 4, 4], value: d, make: |g| f64::from(g.unit()).to_bits(), acc: "f64" },
        Mma { ptx: "m16n8k16.row.col.s32.s8.u8.s32", shape: [16, 8, 16], bits: 8, regs: [2, 1, 4, 4], value: |v| v as f64, make: |g| g.bits() & 127, acc: "s32" },
        Mma { ptx: "m16n8k32.row.col.s32.u8.u8.s32", shape: [16, 8, 32], bits: 8, regs: [4, 2, 4, 4], value: |v| v as f64, make: byte, acc: "s32" },
        Mma { ptx: "m8n8k32.row.col.s32.u4.u4.s32", shape: [8, 8, 32], bits: 4, regs: [1, 1, 2, 2], value: |v| v as f64, make: |g| g.bits() & 15, acc: "s32" },
        Mma { ptx: "m16n8k32.row.col.s32.s4.s4.s32", shape: [16, 8, 32], bits: 4, regs: [2, 1, 4, 4], value: |v| if v > 7 { v as f64 - 16.0 } else { v as f64 }, make: |g| g.bits() & 15, acc: "s32" },
        Mma { ptx: "m8n8k128.row.col.s32.b1.b1.s32.and.popc", shape: [8, 8, 128], bits: 1, regs: [1, 1, 2, 2], value: |v| v as f64, make: |g| g.bits() & 1, acc: "s32" },
        Mma { ptx: "m16n8k128.row.col.s32.b1.b1.s32.and.popc", shape: [16, 8, 128], bits: 1, regs: [2, 1, 4, 4], value: |v| v as f64, make: |g| g.bits() & 1, acc: "s32" },
        Mma { ptx: "m16n8k256.row.col.s32.b1.b1.s32.and.popc", shape: [16, 8, 256], bits: 1, regs: [4, 2, 4, 4], value: |v| v as f64, make: |g| g.bits() & 1, acc: "s32" },
    ]
}

/// Row and column in A of element `e` of register `i` of a lane.
fn a_place(lane: usize, i: usize, e: usize, per: usize, m: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane & 3);
    if m == 8 {
        return (group, thread * per + e + i * per * 4);
    }
    (
        if i.is_multiple_of(2) {
            group
        } else {
            group + 8
        },
        thread * per + e + if i >= 2 { per * 4 } else { 0 },
    )
}

fn check_product(p: &Mma) -> Result<(), String> {
    let [m, n, k] = p.shape;
    let mut rng = Random(p.ptx.len() as u64 * 77);
    let a: Vec<u64> = (0..m * k).map(|_| (p.make)(&mut rng)).collect();
    let bm: Vec<u64> = (0..k * n).map(|_| (p.make)(&mut rng)).collect();
    let c: Vec<f64> = (0..m * n)
        .map(|_| f64::from((rng.unit() * 100.0).round()))
        .collect();
    let per = (32 / p.bits).max(1) as usize;
    let [na, nb_, nc, nd] = p.regs;
    let (wide, acc_wide) = (p.bits == 64, p.acc == "f64");
    let (from_acc, to_acc): (fn(u64) -> f64, fn(f64) -> u64) = match p.acc {
        "f32" => (f, r),
        "s32" => (|v| s(v) as f64, |x| w(x as i64)),
        "f64" => (d, f64::to_bits),
        _ => (h, nh),
    };
    let c_place = |lane: usize, e: usize| {
        (
            (lane >> 2) + if e >= 2 { 8 } else { 0 },
            (lane & 3) * 2 + e % 2,
        )
    };
    // One lane's data: A, B, C, D registers of 8 bytes each.
    let stride = na + nb_ + nc + nd;
    let mut data = vec![0u64; 32 * stride];
    for lane in 0..32 {
        let at = lane * stride;
        for i in 0..na {
            for e in 0..per {
                let (row, col) = a_place(lane, i, e, per, m);
                data[at + i] |= a[row * k + col] << (e as u32 * p.bits % 64);
            }
        }
        for i in 0..nb_ {
            for e in 0..per {
                let row = (lane & 3) * per + e + i * per * 4;
                data[at + na + i] |= bm[row * n + (lane >> 2)] << (e as u32 * p.bits % 64);
            }
        }
        for e in 0..m * n / 32 {
            let (row, col) = c_place(lane, e);
            let v = to_acc(c[row * n + col]);
            if p.acc == "f16" {
                data[at + na + nb_ + e / 2] |= v << (e % 2 * 16)
            } else {
                data[at + na + nb_ + e] = v
            }
        }
    }
    let list = |x: &str, n: usize| {
        format!(
            "{{{}}}",
            (0..n)
                .map(|i| format!("%{x}{i}"))
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let (ty, acc_ty) = (
        if wide { "b64" } else { "b32" },
        if acc_wide { "b64" } else { "b32" },
    );
    let mut code = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n.reg .b64 %rd<4>; .reg .b32 %t; .reg .{ty} %a<8>, %b<8>; .reg .{acc_ty} %c<8>, %d<8>;\n"
    );
    code += &format!(
        "ld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x; mul.wide.u32 %rd2, %t, {}; add.u64 %rd3, %rd1, %rd2;\n",
        stride * 8
    );
    for (x, t, first, count) in [
        ("a", ty, 0, na),
        ("b", ty, na, nb_),
        ("c", acc_ty, na + nb_, nc),
    ] {
        for i in 0..count {
            code += &format!("ld.global.{t} %{x}{i}, [%rd3+{}];\n", (first + i) * 8);
        }
    }
    code += &format!(
        "mma.sync.aligned.{} {}, {}, {}, {};\n",
        p.ptx,
        list("d", nd),
        list("a", na),
        list("b", nb_),
        list("c", nc)
    );
    for i in 0..nd {
        code += &format!(
            "st.global.{acc_ty} [%rd3+{}], %d{i};\n",
            (na + nb_ + nc + i) * 8
        );
    }
    code += "ret;\n}\n";
    let gpu = cuda::Gpu::new(cuda::Options {
        counters: true,
        ..cuda::Options::default()
    })
    .unwrap();
    let kernel = gpu
        .load(&code)
        .and_then(|m| m.kernel("k"))
        .map_err(|e| e.to_string())?;
    let at = upload(&gpu, &data);
    gpu.launch(
        &kernel,
        Shape::line(1, 32),
        kernel.pack(&[&at.to_le_bytes()]).unwrap(),
    )
    .map_err(|e| e.to_string())?;
    let got = download::<u64>(&gpu, at, 32 * stride);
    for lane in 0..32 {
        for e in 0..m * n / 32 {
            let (row, col) = c_place(lane, e);
            let exact: f64 = c[row * n + col]
                + (0..k)
                    .map(|x| (p.value)(a[row * k + x]) * (p.value)(bm[x * n + col]))
                    .sum::<f64>();
            let base = lane * stride + na + nb_ + nc;
            let have = from_acc(if p.acc == "f16" {
                got[base + e / 2] >> (e % 2 * 16) & 0xffff
            } else {
                got[base + e]
            });
            let want = from_acc(to_acc(exact));
            if (have - want).abs() > want.abs() * 1e-15 {
                return Err(format!("row {row} column {col}: {have}, expected {want}"));
            }
        }
    }
    let counted = format!("\"tensor_products\": {}", m * n * k);
    if !gpu.counters_json().contains(&counted) {
        return Err(format!("{counted} is not counted"));
    }
    Ok(())
}

#[test]
fn tensor_products_follow_the_fragment_layouts() {
    let all = products();
    let failed: Vec<String> = all
        .iter()
        .filter_map(|p| check_product(p).err().map(|e| format!("{}: {e}", p.ptx)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        all.len(),
        failed.join("\n")
    );
}

/// Runs PTX that fills a `u32` per thread; `body` sees `%t` (thread) and leaves its result in `%r`.
fn warp(body: &str) -> Result<Vec<u32>, String> {
    let code = format!(
        ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n.shared .align 128 .b8 sm[1024];\n.reg .b64 %rd<8>; .reg .b32 %t, %r, %x<16>; .reg .pred %q<4>;\nld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x;\n{body}\nmul.wide.u32 %rd2, %t, 4; add.u64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r;\nret;\n}}\n"
    );
    let gpu = gpu();
    let kernel = gpu
        .load(&code)
        .and_then(|m| m.kernel("k"))
        .map_err(|e| e.to_string())?;
    let at = upload(&gpu, &[0u32; 64]);
    match gpu.launch(
        &kernel,
        Shape::line(1, 32),
        kernel.pack(&[&at.to_le_bytes()]).unwrap(),
    ) {
        Ok(()) => Ok(download(&gpu, at, 32)),
        Err(LaunchError::Check(r)) => Err(r.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

type Want = Box<dyn Fn(u32) -> u32>;

#[rustfmt::skip]
fn warp_rows() -> Vec<(&'static str, String, Want)> {
    let fill = "shl.b32 %x1, %t, 2; mov.u32 %x2, sm; add.u32 %x1, %x1, %x2; mul.lo.u32 %x3, %t, 0x20001; add.u32 %x3, %x3, 0x10000; st.shared.u32 [%x1], %x3; bar.warp.sync 0xffffffff; and.b32 %x4, %t, 7; shl.b32 %x4, %x4, 4; add.u32 %x4, %x4, %x2;";
    // Shared memory then holds an 8 x 8 matrix of 16-bit elements: row l / 4, column l % 4 * 2 has the low half.
    let element = |row: u32, col: u32| {
        let l = row * 4 + col / 2;
        let v = l * 0x20001 + 0x10000;
        if col.is_multiple_of(2) {
            v & 0xffff
        } else {
            v >> 16
        }
    };
    let ld = format!("{fill} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r}}, [%x4];");
    let ldt = format!("{fill} ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {{%r}}, [%x4];");
    let st = format!(
        "{fill} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%x5}}, [%x4]; bar.warp.sync -1; stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%x4], {{%x5}}; bar.warp.sync -1; ld.shared.u32 %r, [%x1];"
    );
    let mv = format!(
        "{fill} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%x5}}, [%x4]; movmatrix.sync.aligned.m8n8.trans.b16 %r, %x5;"
    );
    let whole = move |l: u32| element(l / 4, l % 4 * 2) | element(l / 4, l % 4 * 2 + 1) << 16;
    let turned = move |l: u32| element(l % 4 * 2, l / 4) | element(l % 4 * 2 + 1, l / 4) << 16;
    let same = || -> Want { Box::new(|l| l) };
    let mut rows: Vec<(&str, String, Want)> = vec![
        ("shfl up", "shfl.sync.up.b32 %r, %t, 3, 0, -1;".into(), Box::new(|l| if l >= 3 { l - 3 } else { l })),
        ("shfl down", "shfl.sync.down.b32 %r, %t, 5, 31, -1;".into(), Box::new(|l| if l + 5 < 32 { l + 5 } else { l })),
        ("shfl bfly in parts of 8", "shfl.sync.bfly.b32 %r, %t, 4, 0x181f, -1;".into(), Box::new(|l| l ^ 4)),
        ("shfl idx in parts of 8", "shfl.sync.idx.b32 %r, %t, 2, 0x181f, -1;".into(), Box::new(|l| l & !7 | 2)),
        ("shfl predicate", "shfl.sync.down.b32 %x1|%q1, %t, 9, 31, -1; selp.b32 %r, 1, 0, %q1;".into(), Box::new(|l| u32::from(l + 9 < 32))),
        ("ballot", "and.b32 %x1, %t, 3; setp.eq.u32 %q1, %x1, 1; vote.sync.ballot.b32 %r, %q1, -1;".into(), Box::new(|_| 0x2222_2222)),
        ("vote all", "setp.lt.u32 %q1, %t, 32; vote.sync.all.pred %q2, %q1, -1; selp.b32 %r, 1, 0, %q2;".into(), Box::new(|_| 1)),
        ("vote any of none", "setp.gt.u32 %q1, %t, 31; vote.sync.any.pred %q2, %q1, -1; selp.b32 %r, 1, 0, %q2;".into(), Box::new(|_| 0)),
        ("vote uni", "setp.lt.u32 %q1, %t, 9; vote.sync.uni.pred %q2, %q1, -1; selp.b32 %r, 1, 0, %q2;".into(), Box::new(|_| 0)),
        ("match any", "and.b32 %x1, %t, 1; match.any.sync.b32 %r, %x1, -1;".into(), Box::new(|l| 0x5555_5555 << (l & 1))),
        ("match all", "match.all.sync.b32 %r|%q1, %t, -1;".into(), Box::new(|_| 0)),
        ("redux add", "redux.sync.add.u32 %r, %t, -1;".into(), Box::new(|_| 496)),
        ("redux min of signed", "sub.s32 %x1, 7, %t; redux.sync.min.s32 %r, %x1, -1;".into(), Box::new(|_| (7i32 - 31) as u32)),
        ("activemask in a branch", "mov.u32 %r, 0; setp.lt.u32 %q1, %t, 4; @!%q1 bra L; activemask.b32 %r;\nL:".into(), Box::new(|l| if l < 4 { 15 } else { 0 })),
        ("elect", "elect.sync %r|%q1, 0xffffffff; selp.b32 %r, 1, 0, %q1;".into(), Box::new(|l| u32::from(l == 0))),
        ("barrier reduction", "setp.lt.u32 %q1, %t, 5; barrier.sync.aligned 3; bar.red.popc.u32 %r, 0, %q1;".into(), Box::new(|_| 5)),
        ("lane masks", "mov.u32 %x1, %lanemask_lt; mov.u32 %x2, %lanemask_ge; xor.b32 %r, %x1, %x2;".into(), Box::new(|_| !0)),
        ("ldmatrix", ld, Box::new(whole)),
        ("ldmatrix trans", ldt, Box::new(turned)),
        ("stmatrix trans", st, Box::new(turned)),
        ("movmatrix", mv, Box::new(turned)),
        ("shared atomics", "mov.u32 %x2, sm; setp.eq.u32 %q1, %t, 0; @%q1 st.shared.u32 [%x2], 0; bar.warp.sync -1; atom.shared.inc.u32 %r, [%x2], 9;".into(), Box::new(|l| l % 10)),
        ("cas", "mov.u32 %x2, sm; setp.eq.u32 %q1, %t, 0; @%q1 st.shared.u32 [%x2], 0; bar.warp.sync -1; add.u32 %x3, %t, 1; atom.shared.cas.b32 %r, [%x2], %t, %x3;".into(), Box::new(|l| l)),
        ("global atomics of many types", "mov.u32 %x9, 0; atom.global.add.u32 %x1, [%rd1+128], 2; red.global.max.s32 [%rd1+132], %t; red.global.and.b32 [%rd1+136], %t; red.global.add.f32 [%rd1+140], 0f3F800000; red.global.add.noftz.f16x2 [%rd1+144], 0x3c004000; atom.global.exch.b32 %x2, [%rd1+148], %t; red.global.add.u64 [%rd1+152], 3; bar.warp.sync -1; shr.u32 %x3, %t, 0; min.u32 %x3, %x3, 7; mul.wide.u32 %rd4, %x3, 4; add.u64 %rd5, %rd1, %rd4; ld.relaxed.gpu.global.u32 %r, [%rd5+128];".into(), Box::new(|l| match l.min(7) { 0 => 64, 1 => 31, 2 => 0, 3 => 32f32.to_bits(), 4 => 0x5000_5400, 5 => 31, 6 => 96, _ => 0 })),
        ("table of branches", "and.b32 %x1, %t, 3; mov.u32 %r, 9; TS: .branchtargets L0, L1, L2, L3; brx.idx %x1, TS;\nL0: mov.u32 %r, 10; bra L9;\nL1: mov.u32 %r, 11; bra L9;\nL2: bra L9;\nL3: mov.u32 %r, 13;\nL9:".into(), Box::new(|l| [10, 11, 9, 13][l as usize & 3])),
    ];
    // What changes no result: the row says that it is read and harmless.
    for hint in [
        "membar.cta;", "membar.gl;", "membar.sys;", "fence.sc.cta;", "fence.acq_rel.gpu;", "fence.acquire.gpu;", "fence.proxy.alias;",
        "fence.proxy.async;", "fence.proxy.async.shared::cta;", "fence.proxy.async.global;", "fence.mbarrier_init.release.cluster;",
        "nanosleep.u32 20;", "griddepcontrol.wait;", "griddepcontrol.launch_dependents;", "pmevent 1;",
        "prefetch.global.L1 [%rd1];", "prefetch.global.L2 [%rd1];", "prefetch.global.L2::evict_last [%rd1];", "prefetchu.L1 [%rd1];",
        "applypriority.global.L2::evict_normal [%rd1], 128;", "discard.global.L2 [%rd1], 128;",
        "createpolicy.fractional.L2::evict_last.b64 %rd4, 1.0;", "createpolicy.range.global.L2::evict_last.L2::evict_unchanged.b64 %rd4, [%rd1], 64, 128;",
        "createpolicy.fractional.L2::evict_first.b64 %rd4, 0.5; ld.global.L2::cache_hint.u32 %x1, [%rd1], %rd4;",
        "ldu.global.u32 %x1, [%rd1];", "ld.mmio.relaxed.sys.global.u32 %x1, [%rd1];", "ld.global.nc.L1::no_allocate.L2::128B.u32 %x1, [%rd1];",
        "setp.gt.u32 %q1, %t, 99; @%q1 trap; @%q1 brkpt; @%q1 exit;",
        "bar.sync 0; bar.arrive 1, 32; barrier.sync 2, 32; barrier.cta.sync 3;",
    ] {
        rows.push(("harmless", format!("mov.u32 %r, %t; {hint}"), same()));
    }
    rows.push(("exit of some lanes", "setp.ge.u32 %q1, %t, 16; @%q1 exit; mov.u32 %r, 7;".into(), Box::new(|l| if l < 16 { 7 } else { 0 })));
    rows.push(("128-bit registers", ".reg .b128 q, s; cvt.u64.u32 %rd4, %t; mul.lo.u64 %rd5, %rd4, 3; mov.b128 q, {%rd4, %rd5}; mov.b128 s, q; mov.b128 {%rd6, %rd7}, s; shl.b32 %x1, %t, 4; mov.u32 %x2, sm; add.u32 %x1, %x1, %x2; st.shared.b128 [%x1], s; ld.shared.b128 q, [%x1]; mov.b128 {%rd4, %rd5}, q; add.u64 %rd4, %rd5, %rd7; cvt.u32.u64 %r, %rd4;".into(), Box::new(|l| l * 6)));
    // One mbarrier of 32 arrivals: every thread arrives, the phase is over, the parity has changed.
    rows.push(("mbarrier", "mov.u32 %x2, sm; setp.eq.u32 %q1, %t, 0; @%q1 mbarrier.init.shared.b64 [%x2], 32; bar.sync 0; mbarrier.arrive.shared.b64 %rd4, [%x2]; mbarrier.test_wait.shared.b64 %q2, [%x2], %rd4; mbarrier.test_wait.parity.shared.b64 %q3, [%x2], 0; mbarrier.pending_count.b64 %x3, %rd4; selp.u32 %r, 100, 0, %q2; @%q3 add.u32 %r, %r, %x3; bar.sync 0; @%q1 mbarrier.inval.shared.b64 [%x2];".into(), Box::new(|l| 100 + 32 - l)));
    rows.push(("cp.async", "mul.lo.u32 %x1, %t, 16; mov.u32 %x2, sm; add.u32 %x1, %x1, %x2; setp.lt.u32 %q1, %t, 8; cvt.u64.u32 %rd4, %x4; setp.ge.u32 %q2, %t, 8; cp.async.cg.shared.global [%x1], [%rd1], 16, %q2; cp.async.ca.shared.global [%x1+512], [%rd1], 4, 2; cp.async.commit_group; cp.async.wait_group 0; cp.async.wait_all; ld.shared.u32 %x5, [%x1]; ld.shared.u32 %x6, [%x1+512]; add.u32 %r, %x5, %x6; bar.sync 0;".replace("cvt.u64.u32 %rd4, %x4; ", ""), Box::new(|_| 0)));
    for (op, ty, start, model) in atomics() {
        let wide = ty.ends_with("64");
        let (x, reg) = if wide { ("%rd6", "u64") } else { ("%x5", "b32") };
        let value = if wide { "cvt.u64.u32 %rd5, %t; add.u64 %rd5, %rd5, 1;" } else { "add.u32 %x4, %t, 1;" };
        let operand = if wide { "%rd5" } else { "%x4" };
        for space in ["shared", "global"] {
            // Shared memory at its start, global memory behind what the kernel writes at its end.
            let at = if space == "shared" { "[%x2]" } else { "[%rd1+128]" };
            let body = format!("mov.u32 %x2, sm; {value} setp.eq.u32 %q1, %t, 0; @%q1 st.{space}.{reg} {at}, {start}; bar.sync 0; red.{space}.{op}.{ty} {at}, {operand}; bar.sync 0; ld.{space}.{reg} {x}, {at}; {}", if wide { "cvt.u32.u64 %r, %rd6;" } else { "mov.u32 %r, %x5;" });
            let want = (0..32u64).fold(start, |v, l| model(v, l + 1));
            rows.push(("atomic", body, Box::new(move |_| want as u32)));
        }
    }
    rows
}

/// Operation, type, value at the start, and what one thread's operand does to it.
fn atomics() -> Vec<(&'static str, &'static str, u64, fn(u64, u64) -> u64)> {
    vec![
        ("add", "u32", 5, |a, b| a + b),
        ("add", "s32", 5, |a, b| a + b),
        ("add", "u64", 5, |a, b| a + b),
        ("min", "u32", 900, u64::min),
        ("min", "s32", 900, u64::min),
        ("max", "u32", 3, u64::max),
        ("max", "s32", 3, u64::max),
        ("min", "u64", 900, u64::min),
        ("min", "s64", 900, u64::min),
        ("max", "u64", 3, u64::max),
        ("max", "s64", 3, u64::max),
        ("and", "b32", 0xffff_ffff, |a, b| a & b),
        ("or", "b32", 64, |a, b| a | b),
        ("xor", "b32", 64, |a, b| a ^ b),
        ("and", "b64", 0xffff_ffff, |a, b| a & b),
        ("or", "b64", 64, |a, b| a | b),
        ("xor", "b64", 64, |a, b| a ^ b),
        ("inc", "u32", 0, |a, b| if a >= b { 0 } else { a + 1 }),
        (
            "dec",
            "u32",
            9,
            |a, b| if a == 0 || a > b { b } else { a - 1 },
        ),
    ]
}

#[test]
fn warp_wide_instructions() {
    let rows = warp_rows();
    let mut failed = Vec::new();
    for (name, body, want) in &rows {
        match warp(body) {
            Err(e) => failed.push(format!("{name}: {e}")),
            Ok(got) => {
                if let Some(l) = (0..32).find(|l| got[*l as usize] != want(*l)) {
                    failed.push(format!(
                        "{name}: lane {l} has {:#x}, expected {:#x}",
                        got[l as usize],
                        want(l)
                    ));
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
}

fn approximations() -> [(&'static str, fn(f64) -> f64); 8] {
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

#[test]
fn what_is_not_known_is_refused_by_name_and_line() {
    for (body, words) in [
        (
            "tex.2d.v4.f32.f32 {%r, %r, %r, %r}, [%rd1, {%x1, %x2}];",
            "PTX line 8",
        ),
        (
            "wgmma.fence.sync.aligned;",
            "wgmma.fence.sync.aligned: this instruction is not supported",
        ),
        (
            "add.frob.u32 %r, %t, 1;",
            "add.frob.u32: modifier .frob is not supported",
        ),
        ("add.u32 %r, %t;", "3 operands"),
        ("add.u32 %r, %nowhere, 1;", "\"%nowhere\" is not declared"),
        ("bra NOWHERE;", "is not a label"),
        ("mov.u32 %rd1, %t;", "is not 32 bits wide"),
    ] {
        let e = warp(body).unwrap_err();
        assert!(e.starts_with("PTX line 8: "), "{e}");
        if words != "PTX line 8" && words != "3 operands" {
            assert!(e.contains(words), "{e}");
        }
    }
}
