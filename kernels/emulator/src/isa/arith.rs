//! add, sub, mul, mad, div, rem, min, max, abs, neg, sad, and integer arithmetic with carry.
//! Floating-point types of the same opcodes are handed to `float.rs` and `half.rs`.

use super::shapes::{bin, tri, un};
use super::{Decode, float, half};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, Lane};
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("add", add),
    ("addc", add_carry),
    ("sub", sub),
    ("subc", sub_carry),
    ("mul", mul),
    ("mul24", mul24),
    ("mad", mad),
    ("mad24", mad24),
    ("madc", mad_carry),
    ("div", div),
    ("rem", rem),
    ("min", min),
    ("max", max),
    ("abs", abs),
    ("neg", neg),
    ("sad", sad),
    ("dp4a", dp4a),
    ("dp2a", dp2a),
];

/// Emits `d = exec(sources)` where all operands have one type. `n` is how many sources the operation has.
pub fn uniform(b: &mut Builder, f: &Form, n: usize, t: Ty, class: Class, exec: Exec) -> Res {
    mixed(b, f, class, exec, t, &[t, t, t][..n])
}

/// Emits `d = exec(sources)` with a type for each operand.
pub fn mixed(b: &mut Builder, f: &Form, class: Class, exec: Exec, d: Ty, sources: &[Ty]) -> Res {
    let ops = f.operands(sources.len() + 1)?;
    let mut regs = [0; 3];
    for (i, t) in sources.iter().enumerate() {
        regs[i] = b.src(f, &ops[i + 1], *t)?;
    }
    let d = b.dst(f, &ops[0], d)?;
    b.emit(exec, class, |i| {
        i.dst = d;
        i.src = regs;
    });
    Ok(())
}

/// The variant for the width of an integer type.
fn by_width(f: &Form, t: Ty, e16: Exec, e32: Exec, e64: Exec) -> Res<Exec> {
    match t.bytes() {
        _ if !t.integer() && !matches!(t, Ty::B16 | Ty::B32 | Ty::B64) => {
            f.refuse("an integer type is expected")
        }
        2 => Ok(e16),
        4 => Ok(e32),
        8 => Ok(e64),
        _ => f.refuse("8-bit arithmetic does not exist"),
    }
}

/// By width and sign.
fn by_type(f: &Form, t: Ty, unsigned: [Exec; 3], signed: [Exec; 3]) -> Res<Exec> {
    let [a, b, c] = if t.signed() { signed } else { unsigned };
    by_width(f, t, a, b, c)
}

fn add(b: &mut Builder, f: &Form) -> Res {
    let types = f.types();
    if f.has("cc") {
        return carry(
            b,
            f,
            types[0],
            CarryOp {
                take: false,
                set: true,
                sub: false,
            },
        );
    }
    match types[..] {
        [Ty::F32] => return float::add32(b, f, false),
        [Ty::F64] => return float::add64(b, f, false),
        [t @ (Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2)] => return half::add(b, f, t),
        [t @ (Ty::U16x2 | Ty::S16x2)] => {
            return uniform(
                b,
                f,
                2,
                t,
                Class::Integer,
                bin(|a: u32, b: u32| pairs(a, b, u16::wrapping_add)),
            );
        }
        [_] => {}
        _ => return float::mixed_add(b, f, &types),
    }
    let t = types[0];
    if f.has("sat") {
        if t != Ty::S32 {
            return f.refuse(".sat needs .s32");
        }
        return uniform(
            b,
            f,
            2,
            t,
            Class::Integer,
            bin(|a: i32, b: i32| a.saturating_add(b)),
        );
    }
    let e = by_width(
        f,
        t,
        bin(|a: u16, b: u16| a.wrapping_add(b)),
        bin(|a: u32, b: u32| a.wrapping_add(b)),
        bin(|a: u64, b: u64| a.wrapping_add(b)),
    )?;
    uniform(b, f, 2, t, Class::Integer, e)
}

fn sub(b: &mut Builder, f: &Form) -> Res {
    let types = f.types();
    if f.has("cc") {
        return carry(
            b,
            f,
            types[0],
            CarryOp {
                take: false,
                set: true,
                sub: true,
            },
        );
    }
    let t = match types[..] {
        [Ty::F32] => return float::add32(b, f, true),
        [Ty::F64] => return float::add64(b, f, true),
        [t @ (Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2)] => return half::sub(b, f, t),
        [t] => t,
        _ => return f.refuse("exactly one type is expected"),
    };
    if f.has("sat") {
        if t != Ty::S32 {
            return f.refuse(".sat needs .s32");
        }
        return uniform(
            b,
            f,
            2,
            t,
            Class::Integer,
            bin(|a: i32, b: i32| a.saturating_sub(b)),
        );
    }
    let e = by_width(
        f,
        t,
        bin(|a: u16, b: u16| a.wrapping_sub(b)),
        bin(|a: u32, b: u32| a.wrapping_sub(b)),
        bin(|a: u64, b: u64| a.wrapping_sub(b)),
    )?;
    uniform(b, f, 2, t, Class::Integer, e)
}

fn wide_of(f: &Form, t: Ty) -> Res<Ty> {
    Ok(match t {
        Ty::U16 => Ty::U32,
        Ty::S16 => Ty::S32,
        Ty::U32 => Ty::U64,
        Ty::S32 => Ty::S64,
        _ => return f.refuse(".wide needs a 16-bit or 32-bit integer type"),
    })
}

#[inline(always)]
fn high_u64(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

#[inline(always)]
fn high_s64(a: i64, b: i64) -> i64 {
    ((i128::from(a) * i128::from(b)) >> 64) as i64
}

#[inline(always)]
fn high_u32(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

#[inline(always)]
fn high_s32(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b)) >> 32) as i32
}

fn mul(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::F32 => return float::mul32(b, f),
        Ty::F64 => return float::mul64(b, f),
        Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => return half::mul(b, f, t),
        _ => {}
    }
    if f.has("wide") {
        let d = wide_of(f, t)?;
        let e = match t {
            Ty::U16 => bin(|a: u16, b: u16| u32::from(a) * u32::from(b)),
            Ty::S16 => bin(|a: i16, b: i16| i32::from(a) * i32::from(b)),
            Ty::U32 => bin(|a: u32, b: u32| u64::from(a) * u64::from(b)),
            _ => bin(|a: i32, b: i32| i64::from(a) * i64::from(b)),
        };
        return mixed(b, f, Class::Integer, e, d, &[t, t]);
    }
    if f.has("hi") {
        let e = by_type(
            f,
            t,
            [
                bin(|a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16),
                bin(high_u32),
                bin(high_u64),
            ],
            [
                bin(|a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16),
                bin(high_s32),
                bin(high_s64),
            ],
        )?;
        return uniform(b, f, 2, t, Class::Integer, e);
    }
    if !f.has("lo") {
        return f.refuse(".lo, .hi or .wide is expected");
    }
    let e = by_width(
        f,
        t,
        bin(|a: u16, b: u16| a.wrapping_mul(b)),
        bin(|a: u32, b: u32| a.wrapping_mul(b)),
        bin(|a: u64, b: u64| a.wrapping_mul(b)),
    )?;
    uniform(b, f, 2, t, Class::Integer, e)
}

fn mad(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::F32 => return float::fma32(b, f),
        Ty::F64 => return float::fma64(b, f),
        _ => {}
    }
    if f.has("cc") {
        let hi = f.has("hi");
        if !hi && !f.has("lo") {
            return f.refuse(".lo or .hi is expected");
        }
        return mad_with_carry(b, f, t, hi, false, true);
    }
    if f.has("wide") {
        let d = wide_of(f, t)?;
        let e = match t {
            Ty::U16 => tri(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
            Ty::S16 => tri(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
            Ty::U32 => tri(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
            _ => tri(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
        };
        return mixed(b, f, Class::Integer, e, d, &[t, t, d]);
    }
    if f.has("hi") {
        if f.has("sat") {
            if t != Ty::S32 {
                return f.refuse(".sat needs .s32");
            }
            return uniform(
                b,
                f,
                3,
                t,
                Class::Integer,
                tri(|a: i32, b: i32, c: i32| high_s32(a, b).saturating_add(c)),
            );
        }
        let e = by_type(
            f,
            t,
            [
                tri(|a: u16, b: u16, c: u16| {
                    (((u32::from(a) * u32::from(b)) >> 16) as u16).wrapping_add(c)
                }),
                tri(|a: u32, b: u32, c: u32| high_u32(a, b).wrapping_add(c)),
                tri(|a: u64, b: u64, c: u64| high_u64(a, b).wrapping_add(c)),
            ],
            [
                tri(|a: i16, b: i16, c: i16| {
                    (((i32::from(a) * i32::from(b)) >> 16) as i16).wrapping_add(c)
                }),
                tri(|a: i32, b: i32, c: i32| high_s32(a, b).wrapping_add(c)),
                tri(|a: i64, b: i64, c: i64| high_s64(a, b).wrapping_add(c)),
            ],
        )?;
        return uniform(b, f, 3, t, Class::Integer, e);
    }
    if !f.has("lo") {
        return f.refuse(".lo, .hi or .wide is expected");
    }
    let e = by_width(
        f,
        t,
        tri(|a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c)),
        tri(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c)),
        tri(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c)),
    )?;
    uniform(b, f, 3, t, Class::Integer, e)
}

#[inline(always)]
fn product24(a: u32, b: u32) -> u64 {
    u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
}

#[inline(always)]
fn product24s(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

fn mul24(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match (t, f.has("hi"), f.has("lo")) {
        (Ty::U32, true, _) => bin(|a: u32, b: u32| (product24(a, b) >> 16) as u32),
        (Ty::S32, true, _) => bin(|a: i32, b: i32| (product24s(a, b) >> 16) as i32),
        (Ty::U32, _, true) => bin(|a: u32, b: u32| product24(a, b) as u32),
        (Ty::S32, _, true) => bin(|a: i32, b: i32| product24s(a, b) as i32),
        _ => return f.refuse(".lo or .hi and a 32-bit integer type are expected"),
    };
    uniform(b, f, 2, t, Class::Integer, e)
}

fn mad24(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match (t, f.has("hi"), f.has("lo")) {
        (Ty::U32, true, _) => {
            tri(|a: u32, b: u32, c: u32| ((product24(a, b) >> 16) as u32).wrapping_add(c))
        }
        (Ty::S32, true, _) => {
            tri(|a: i32, b: i32, c: i32| ((product24s(a, b) >> 16) as i32).wrapping_add(c))
        }
        (Ty::U32, _, true) => {
            tri(|a: u32, b: u32, c: u32| (product24(a, b) as u32).wrapping_add(c))
        }
        (Ty::S32, _, true) => {
            tri(|a: i32, b: i32, c: i32| (product24s(a, b) as i32).wrapping_add(c))
        }
        _ => return f.refuse(".lo or .hi and a 32-bit integer type are expected"),
    };
    uniform(b, f, 3, t, Class::Integer, e)
}

fn div(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::F32 => return float::div32(b, f),
        Ty::F64 => return float::div64(b, f),
        _ => {}
    }
    // Division by zero is unspecified in PTX; all ones is what the hardware yields.
    let e = by_type(
        f,
        t,
        [
            bin(|a: u16, b: u16| a.checked_div(b).unwrap_or(!0)),
            bin(|a: u32, b: u32| a.checked_div(b).unwrap_or(!0)),
            bin(|a: u64, b: u64| a.checked_div(b).unwrap_or(!0)),
        ],
        [
            bin(|a: i16, b: i16| if b == 0 { -1 } else { a.wrapping_div(b) }),
            bin(|a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) }),
            bin(|a: i64, b: i64| if b == 0 { -1 } else { a.wrapping_div(b) }),
        ],
    )?;
    uniform(b, f, 2, t, Class::Integer, e)
}

fn rem(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = by_type(
        f,
        t,
        [
            bin(|a: u16, b: u16| a.checked_rem(b).unwrap_or(a)),
            bin(|a: u32, b: u32| a.checked_rem(b).unwrap_or(a)),
            bin(|a: u64, b: u64| a.checked_rem(b).unwrap_or(a)),
        ],
        [
            bin(|a: i16, b: i16| if b == 0 { a } else { a.wrapping_rem(b) }),
            bin(|a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) }),
            bin(|a: i64, b: i64| if b == 0 { a } else { a.wrapping_rem(b) }),
        ],
    )?;
    uniform(b, f, 2, t, Class::Integer, e)
}

fn min(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::U16x2 | Ty::S16x2 | Ty::S32 if t != Ty::S32 || f.inst.modifiers[0] == "relu" => {
            return extreme(b, f, t, true);
        }
        Ty::F32 => return float::min32(b, f),
        Ty::F64 => return uniform(b, f, 2, t, Class::Float64, bin(crate::float::min64)),
        Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => return half::min(b, f, t),
        _ => {}
    }
    let e = by_type(
        f,
        t,
        [
            bin(|a: u16, b: u16| a.min(b)),
            bin(|a: u32, b: u32| a.min(b)),
            bin(|a: u64, b: u64| a.min(b)),
        ],
        [
            bin(|a: i16, b: i16| a.min(b)),
            bin(|a: i32, b: i32| a.min(b)),
            bin(|a: i64, b: i64| a.min(b)),
        ],
    )?;
    uniform(b, f, 2, t, Class::Integer, e)
}

/// Both halves of two words.
#[inline(always)]
fn pairs(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

/// min and max of packed 16-bit integers, and with `.relu`, which turns what is below 0 into 0.
fn extreme(b: &mut Builder, f: &Form, t: Ty, least: bool) -> Res {
    let relu = f.has("relu");
    let e: Exec = match (t, relu, least) {
        (Ty::U16x2, false, true) => bin(|a: u32, b: u32| pairs(a, b, u16::min)),
        (Ty::U16x2, false, false) => bin(|a: u32, b: u32| pairs(a, b, u16::max)),
        (Ty::S16x2, false, true) => {
            bin(|a: u32, b: u32| pairs(a, b, |x, y| (x as i16).min(y as i16) as u16))
        }
        (Ty::S16x2, false, false) => {
            bin(|a: u32, b: u32| pairs(a, b, |x, y| (x as i16).max(y as i16) as u16))
        }
        (Ty::S16x2, true, true) => {
            bin(|a: u32, b: u32| pairs(a, b, |x, y| (x as i16).min(y as i16).max(0) as u16))
        }
        (Ty::S16x2, true, false) => {
            bin(|a: u32, b: u32| pairs(a, b, |x, y| (x as i16).max(y as i16).max(0) as u16))
        }
        (Ty::S32, true, true) => bin(|a: i32, b: i32| a.min(b).max(0)),
        (Ty::S32, true, false) => bin(|a: i32, b: i32| a.max(b).max(0)),
        _ => return f.refuse(".relu is for signed types"),
    };
    uniform(b, f, 2, t, Class::Integer, e)
}

fn max(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::U16x2 | Ty::S16x2 | Ty::S32 if t != Ty::S32 || f.inst.modifiers[0] == "relu" => {
            return extreme(b, f, t, false);
        }
        Ty::F32 => return float::max32(b, f),
        Ty::F64 => return uniform(b, f, 2, t, Class::Float64, bin(crate::float::max64)),
        Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => return half::max(b, f, t),
        _ => {}
    }
    let e = by_type(
        f,
        t,
        [
            bin(|a: u16, b: u16| a.max(b)),
            bin(|a: u32, b: u32| a.max(b)),
            bin(|a: u64, b: u64| a.max(b)),
        ],
        [
            bin(|a: i16, b: i16| a.max(b)),
            bin(|a: i32, b: i32| a.max(b)),
            bin(|a: i64, b: i64| a.max(b)),
        ],
    )?;
    uniform(b, f, 2, t, Class::Integer, e)
}

fn abs(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::F32 => return float::sign32(b, f, true),
        Ty::F64 => return uniform(b, f, 1, t, Class::Float64, un(|a: u64| a & !(1 << 63))),
        Ty::F16 | Ty::Bf16 => {
            f.has("ftz");
            return uniform(b, f, 1, t, Class::Half, un(|a: u16| a & 0x7fff));
        }
        Ty::F16x2 | Ty::Bf16x2 => {
            f.has("ftz");
            return uniform(b, f, 1, t, Class::Half, un(|a: u32| a & 0x7fff_7fff));
        }
        _ => {}
    }
    let e = by_width(
        f,
        t,
        un(|a: i16| a.wrapping_abs()),
        un(|a: i32| a.wrapping_abs()),
        un(|a: i64| a.wrapping_abs()),
    )?;
    uniform(b, f, 1, t, Class::Integer, e)
}

fn neg(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::F32 => return float::sign32(b, f, false),
        Ty::F64 => return uniform(b, f, 1, t, Class::Float64, un(|a: u64| a ^ 1 << 63)),
        Ty::F16 | Ty::Bf16 => {
            f.has("ftz");
            return uniform(b, f, 1, t, Class::Half, un(|a: u16| a ^ 0x8000));
        }
        Ty::F16x2 | Ty::Bf16x2 => {
            f.has("ftz");
            return uniform(b, f, 1, t, Class::Half, un(|a: u32| a ^ 0x8000_8000));
        }
        _ => {}
    }
    let e = by_width(
        f,
        t,
        un(|a: u16| a.wrapping_neg()),
        un(|a: u32| a.wrapping_neg()),
        un(|a: u64| a.wrapping_neg()),
    )?;
    uniform(b, f, 1, t, Class::Integer, e)
}

fn sad(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = by_type(
        f,
        t,
        [
            tri(|a: u16, b: u16, c: u16| a.abs_diff(b).wrapping_add(c)),
            tri(|a: u32, b: u32, c: u32| a.abs_diff(b).wrapping_add(c)),
            tri(|a: u64, b: u64, c: u64| a.abs_diff(b).wrapping_add(c)),
        ],
        [
            tri(|a: i16, b: i16, c: u16| a.abs_diff(b).wrapping_add(c)),
            tri(|a: i32, b: i32, c: u32| a.abs_diff(b).wrapping_add(c)),
            tri(|a: i64, b: i64, c: u64| a.abs_diff(b).wrapping_add(c)),
        ],
    )?;
    uniform(b, f, 3, t, Class::Integer, e)
}

#[inline(always)]
fn byte<const SIGNED: bool>(v: u32, i: u32) -> i32 {
    let x = (v >> (i * 8)) as u8;
    if SIGNED {
        i32::from(x as i8)
    } else {
        i32::from(x)
    }
}

#[inline(always)]
fn dot4<const A: bool, const B: bool>(a: u32, b: u32, c: u32) -> u32 {
    (0..4).fold(c, |s, i| {
        s.wrapping_add((byte::<A>(a, i) * byte::<B>(b, i)) as u32)
    })
}

#[inline(always)]
fn dot2<const A: bool, const B: bool, const HI: bool>(a: u32, b: u32, c: u32) -> u32 {
    (0..2).fold(c, |s, i| {
        let half = (a >> (i * 16)) as u16;
        let x = if A {
            i32::from(half as i16)
        } else {
            i32::from(half)
        };
        s.wrapping_add(x.wrapping_mul(byte::<B>(b, i + if HI { 2 } else { 0 })) as u32)
    })
}

fn dp4a(b: &mut Builder, f: &Form) -> Res {
    let e = match f.types()[..] {
        [Ty::U32, Ty::U32] => tri(dot4::<false, false>),
        [Ty::U32, Ty::S32] => tri(dot4::<false, true>),
        [Ty::S32, Ty::U32] => tri(dot4::<true, false>),
        [Ty::S32, Ty::S32] => tri(dot4::<true, true>),
        _ => return f.refuse("two 32-bit integer types are expected"),
    };
    uniform(b, f, 3, Ty::U32, Class::Integer, e)
}

fn dp2a(b: &mut Builder, f: &Form) -> Res {
    let hi = f.has("hi");
    if !hi && !f.has("lo") {
        return f.refuse(".lo or .hi is expected");
    }
    let e = match (&f.types()[..], hi) {
        ([Ty::U32, Ty::U32], false) => tri(dot2::<false, false, false>),
        ([Ty::U32, Ty::S32], false) => tri(dot2::<false, true, false>),
        ([Ty::S32, Ty::U32], false) => tri(dot2::<true, false, false>),
        ([Ty::S32, Ty::S32], false) => tri(dot2::<true, true, false>),
        ([Ty::U32, Ty::U32], true) => tri(dot2::<false, false, true>),
        ([Ty::U32, Ty::S32], true) => tri(dot2::<false, true, true>),
        ([Ty::S32, Ty::U32], true) => tri(dot2::<true, false, true>),
        ([Ty::S32, Ty::S32], true) => tri(dot2::<true, true, true>),
        _ => return f.refuse("two 32-bit integer types are expected"),
    };
    uniform(b, f, 3, Ty::U32, Class::Integer, e)
}

// ---- carry ----

/// The predicate that holds the carry flag.
const CARRY: usize = 1;

#[derive(Clone, Copy)]
struct CarryOp {
    take: bool,
    set: bool,
    sub: bool,
}

/// `imm`: bit 0 takes the flag, bit 1 sets it, bit 2 subtracts, bit 3 is the high half of a product.
fn carry_exec<T: Lane + Into<u128>>(
    cx: &mut Cx<'_>,
    i: &Ins,
    mask: u32,
    value: impl Fn(&mut Cx<'_>, usize) -> (u128, u128),
    make: fn(u128) -> T,
) {
    let bits = size_of::<T::Cell>() * 8;
    let flags = cx.warp.preds[CARRY];
    let mut out = flags;
    let mut d = [make(0); 32];
    for lane in crate::machine::lanes_of(mask) {
        let (a, b) = value(cx, lane);
        // A subtraction adds the complement, and its flag says that nothing was borrowed: the manual speaks of the
        // borrow, but the compiler's own division of 128-bit integers reads the flag of `subc.cc` with `addc`.
        let subtracts = i.imm >> 2 & 1 == 1;
        let b = if subtracts { !b & ((1 << bits) - 1) } else { b };
        let c = if i.imm & 1 == 1 {
            u128::from(flags >> lane & 1)
        } else {
            u128::from(subtracts)
        };
        let r = a + b + c;
        let carry = r >> bits & 1 == 1;
        out = out & !(1 << lane) | u32::from(carry) << lane;
        d[lane] = make(r & ((1 << bits) - 1));
    }
    cx.warp.regs.put::<T>(i.dst, mask, &d);
    if i.imm >> 1 & 1 == 1 {
        cx.warp.preds[CARRY] = out;
    }
}

fn carry32(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let (a, b) = (i.src[0], i.src[1]);
    carry_exec::<u32>(
        cx,
        i,
        mask,
        |cx, l| {
            (
                cx.warp.regs.get::<u32>(a, l).into(),
                cx.warp.regs.get::<u32>(b, l).into(),
            )
        },
        |v| v as u32,
    );
}

fn carry64(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let (a, b) = (i.src[0], i.src[1]);
    carry_exec::<u64>(
        cx,
        i,
        mask,
        |cx, l| {
            (
                cx.warp.regs.get::<u64>(a, l).into(),
                cx.warp.regs.get::<u64>(b, l).into(),
            )
        },
        |v| v as u64,
    );
}

fn carry(b: &mut Builder, f: &Form, t: Ty, op: CarryOp) -> Res {
    let exec: Exec = match t {
        Ty::U32 | Ty::S32 => carry32,
        Ty::U64 | Ty::S64 => carry64,
        _ => return f.refuse("carry needs a 32-bit or 64-bit integer type"),
    };
    uniform(b, f, 2, t, Class::Integer, exec)?;
    if let Some(i) = b.code.last_mut() {
        i.imm = u64::from(op.take) | u64::from(op.set) << 1 | u64::from(op.sub) << 2;
    }
    Ok(())
}

fn add_carry(b: &mut Builder, f: &Form) -> Res {
    let set = f.has("cc");
    carry(
        b,
        f,
        f.ty()?,
        CarryOp {
            take: true,
            set,
            sub: false,
        },
    )
}

fn sub_carry(b: &mut Builder, f: &Form) -> Res {
    let set = f.has("cc");
    carry(
        b,
        f,
        f.ty()?,
        CarryOp {
            take: true,
            set,
            sub: true,
        },
    )
}

fn mad_carry32(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let n = *i;
    carry_exec::<u32>(
        cx,
        i,
        mask,
        move |cx, l| {
            let (a, b) = (
                cx.warp.regs.get::<u32>(n.src[0], l),
                cx.warp.regs.get::<u32>(n.src[1], l),
            );
            let p = match (n.imm >> 3 & 1, n.imm >> 4 & 1) {
                (0, _) => a.wrapping_mul(b),
                (_, 0) => high_u32(a, b),
                _ => high_s32(a as i32, b as i32) as u32,
            };
            (p.into(), cx.warp.regs.get::<u32>(n.src[2], l).into())
        },
        |v| v as u32,
    );
}

fn mad_carry64(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let n = *i;
    carry_exec::<u64>(
        cx,
        i,
        mask,
        move |cx, l| {
            let (a, b) = (
                cx.warp.regs.get::<u64>(n.src[0], l),
                cx.warp.regs.get::<u64>(n.src[1], l),
            );
            let p = match (n.imm >> 3 & 1, n.imm >> 4 & 1) {
                (0, _) => a.wrapping_mul(b),
                (_, 0) => high_u64(a, b),
                _ => high_s64(a as i64, b as i64) as u64,
            };
            (p.into(), cx.warp.regs.get::<u64>(n.src[2], l).into())
        },
        |v| v as u64,
    );
}

fn mad_with_carry(b: &mut Builder, f: &Form, t: Ty, hi: bool, take: bool, set: bool) -> Res {
    let exec: Exec = match t {
        Ty::U32 | Ty::S32 => mad_carry32,
        Ty::U64 | Ty::S64 => mad_carry64,
        _ => return f.refuse("carry needs a 32-bit or 64-bit integer type"),
    };
    uniform(b, f, 3, t, Class::Integer, exec)?;
    if let Some(i) = b.code.last_mut() {
        i.imm =
            u64::from(take) | u64::from(set) << 1 | u64::from(hi) << 3 | u64::from(t.signed()) << 4;
    }
    Ok(())
}

fn mad_carry(b: &mut Builder, f: &Form) -> Res {
    let set = f.has("cc");
    let hi = f.has("hi");
    if !hi && !f.has("lo") {
        return f.refuse(".lo or .hi is expected");
    }
    mad_with_carry(b, f, f.ty()?, hi, true, set)
}
