//! add, sub, mul, mad, div, rem, min, max, abs, neg, sad, and integer arithmetic with carry.
//! Floating-point types of the same opcodes are handed to `float.rs` and `half.rs`.

use super::operands::{mixed, uniform};
use super::shapes::{bin, tri, un};
use super::{Decode, float, half};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, Lane, immediate};
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

/// A lane function in the three widths of unsigned integers.
macro_rules! unsigned {
    ($shape:ident, |$($x:ident),+| $value:expr) => {
        [
            $shape(|$($x: u16),+| $value),
            $shape(|$($x: u32),+| $value),
            $shape(|$($x: u64),+| $value),
        ]
    };
}

/// A lane function in the three widths of signed integers.
macro_rules! signed {
    ($shape:ident, |$($x:ident),+| $value:expr) => {
        [
            $shape(|$($x: i16),+| $value),
            $shape(|$($x: i32),+| $value),
            $shape(|$($x: i64),+| $value),
        ]
    };
}

/// The variant for the width of an integer type.
fn by_width(f: &Form, t: Ty, [e16, e32, e64]: [Exec; 3]) -> Res<Exec> {
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

/// The variant for the width and sign of an integer type.
fn by_type(f: &Form, t: Ty, unsigned: [Exec; 3], signed: [Exec; 3]) -> Res<Exec> {
    by_width(f, t, if t.signed() { signed } else { unsigned })
}

/// Emits an integer operation on sources and destination of one type.
fn integer(b: &mut Builder, f: &Form, n: usize, t: Ty, exec: Exec) -> Res {
    uniform(b, f, n, t, Class::Integer, exec)
}

fn add(b: &mut Builder, f: &Form) -> Res {
    add_or_sub(b, f, false)
}

fn sub(b: &mut Builder, f: &Form) -> Res {
    add_or_sub(b, f, true)
}

fn add_or_sub(b: &mut Builder, f: &Form, subtract: bool) -> Res {
    let t = match f.types()[..] {
        [t] => t,
        [_, _, ..] if !subtract => return f.refuse("mixed-precision add is not supported"),
        _ => return f.refuse("exactly one type is expected"),
    };
    if f.has("cc") {
        return carry(b, f, t, subtract, false, true);
    }
    match t {
        Ty::F32 => return float::add32(b, f, subtract),
        Ty::F64 => return float::add64(b, f, subtract),
        Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 if subtract => return half::sub(b, f, t),
        Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => return half::add(b, f, t),
        Ty::U16x2 | Ty::S16x2 if !subtract => {
            let exec = bin(|a: u32, b: u32| pairs(a, b, u16::wrapping_add));
            return integer(b, f, 2, t, exec);
        }
        _ => {}
    }
    if f.has("sat") {
        if t != Ty::S32 {
            return f.refuse(".sat needs .s32");
        }
        let exec = if subtract {
            bin(|a: i32, b: i32| a.saturating_sub(b))
        } else {
            bin(|a: i32, b: i32| a.saturating_add(b))
        };
        return integer(b, f, 2, t, exec);
    }
    let execs = if subtract {
        unsigned!(bin, |a, b| a.wrapping_sub(b))
    } else {
        unsigned!(bin, |a, b| a.wrapping_add(b))
    };
    let exec = by_width(f, t, execs)?;
    integer(b, f, 2, t, exec)
}

/// The type of twice the width.
fn wide_of(f: &Form, t: Ty) -> Res<Ty> {
    Ok(match t {
        Ty::U16 => Ty::U32,
        Ty::S16 => Ty::S32,
        Ty::U32 => Ty::U64,
        Ty::S32 => Ty::S64,
        _ => return f.refuse(".wide needs a 16-bit or 32-bit integer type"),
    })
}

/// The high half of the double-width result of a multiplication.
trait MulHigh {
    fn mul_high(self, other: Self) -> Self;
}

macro_rules! mul_high {
    ($($t:ty as $wide:ty),+) => {$(
        impl MulHigh for $t {
            #[inline(always)]
            fn mul_high(self, other: $t) -> $t {
                ((<$wide>::from(self) * <$wide>::from(other)) >> <$t>::BITS) as $t
            }
        }
    )+};
}

mul_high!(
    u16 as u32,
    i16 as i32,
    u32 as u64,
    i32 as i64,
    u64 as u128,
    i64 as i128
);

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
        let exec = match t {
            Ty::U16 => bin(|a: u16, b: u16| u32::from(a) * u32::from(b)),
            Ty::S16 => bin(|a: i16, b: i16| i32::from(a) * i32::from(b)),
            Ty::U32 => bin(|a: u32, b: u32| u64::from(a) * u64::from(b)),
            _ => bin(|a: i32, b: i32| i64::from(a) * i64::from(b)),
        };
        return mixed(b, f, Class::Integer, exec, d, &[t, t]);
    }
    let exec = if f.has("hi") {
        by_type(
            f,
            t,
            unsigned!(bin, |a, b| a.mul_high(b)),
            signed!(bin, |a, b| a.mul_high(b)),
        )?
    } else if f.has("lo") {
        by_width(f, t, unsigned!(bin, |a, b| a.wrapping_mul(b)))?
    } else {
        return f.refuse(".lo, .hi or .wide is expected");
    };
    integer(b, f, 2, t, exec)
}

fn mad(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::F32 => return float::fma32(b, f),
        Ty::F64 => return float::fma64(b, f),
        _ => {}
    }
    if f.has("cc") {
        return mad_with_carry(b, f, t, false, true);
    }
    if f.has("wide") {
        let d = wide_of(f, t)?;
        let exec = match t {
            Ty::U16 => tri(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
            Ty::S16 => tri(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
            Ty::U32 => tri(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
            _ => tri(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
        };
        return mixed(b, f, Class::Integer, exec, d, &[t, t, d]);
    }
    let exec = if f.has("hi") {
        if f.has("sat") {
            if t != Ty::S32 {
                return f.refuse(".sat needs .s32");
            }
            tri(|a: i32, b: i32, c: i32| a.mul_high(b).saturating_add(c))
        } else {
            by_type(
                f,
                t,
                unsigned!(tri, |a, b, c| a.mul_high(b).wrapping_add(c)),
                signed!(tri, |a, b, c| a.mul_high(b).wrapping_add(c)),
            )?
        }
    } else if f.has("lo") {
        let execs = unsigned!(tri, |a, b, c| a.wrapping_mul(b).wrapping_add(c));
        by_width(f, t, execs)?
    } else {
        return f.refuse(".lo, .hi or .wide is expected");
    };
    integer(b, f, 3, t, exec)
}

/// 48 bits: the low 24 bits of both sources multiplied.
#[inline(always)]
fn mul24_unsigned(a: u32, b: u32) -> u64 {
    u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
}

#[inline(always)]
fn mul24_signed(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

fn mul24(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let exec = match (t, f.has("hi"), f.has("lo")) {
        (Ty::U32, true, _) => bin(|a: u32, b: u32| (mul24_unsigned(a, b) >> 16) as u32),
        (Ty::S32, true, _) => bin(|a: i32, b: i32| (mul24_signed(a, b) >> 16) as i32),
        (Ty::U32, _, true) => bin(|a: u32, b: u32| mul24_unsigned(a, b) as u32),
        (Ty::S32, _, true) => bin(|a: i32, b: i32| mul24_signed(a, b) as i32),
        _ => return f.refuse(".lo or .hi and a 32-bit integer type are expected"),
    };
    integer(b, f, 2, t, exec)
}

fn mad24(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let exec = match (t, f.has("hi"), f.has("lo")) {
        (Ty::U32, true, _) => {
            tri(|a: u32, b: u32, c: u32| ((mul24_unsigned(a, b) >> 16) as u32).wrapping_add(c))
        }
        (Ty::S32, true, _) => {
            tri(|a: i32, b: i32, c: i32| ((mul24_signed(a, b) >> 16) as i32).wrapping_add(c))
        }
        (Ty::U32, _, true) => {
            tri(|a: u32, b: u32, c: u32| (mul24_unsigned(a, b) as u32).wrapping_add(c))
        }
        (Ty::S32, _, true) => {
            tri(|a: i32, b: i32, c: i32| (mul24_signed(a, b) as i32).wrapping_add(c))
        }
        _ => return f.refuse(".lo or .hi and a 32-bit integer type are expected"),
    };
    integer(b, f, 3, t, exec)
}

fn div(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::F32 => return float::div32(b, f),
        Ty::F64 => return float::div64(b, f),
        _ => {}
    }
    // Division by zero is unspecified in PTX; all ones is what the hardware yields.
    let exec = by_type(
        f,
        t,
        unsigned!(bin, |a, b| a.checked_div(b).unwrap_or(!0)),
        signed!(bin, |a, b| if b == 0 { -1 } else { a.wrapping_div(b) }),
    )?;
    integer(b, f, 2, t, exec)
}

fn rem(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let exec = by_type(
        f,
        t,
        unsigned!(bin, |a, b| a.checked_rem(b).unwrap_or(a)),
        signed!(bin, |a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
    )?;
    integer(b, f, 2, t, exec)
}

fn min(b: &mut Builder, f: &Form) -> Res {
    min_or_max(b, f, false)
}

fn max(b: &mut Builder, f: &Form) -> Res {
    min_or_max(b, f, true)
}

fn min_or_max(b: &mut Builder, f: &Form, max: bool) -> Res {
    let t = f.ty()?;
    let relu_first = f.inst.modifiers.first().is_some_and(|m| m == "relu");
    match t {
        Ty::U16x2 | Ty::S16x2 => return packed_min_or_max(b, f, t, max),
        Ty::S32 if relu_first => return packed_min_or_max(b, f, t, max),
        Ty::F32 => return float::min_or_max32(b, f, max),
        Ty::F64 if max => {
            return uniform(b, f, 2, t, Class::Float64, bin(crate::float::max64));
        }
        Ty::F64 => return uniform(b, f, 2, t, Class::Float64, bin(crate::float::min64)),
        Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => return half::min_or_max(b, f, t, max),
        _ => {}
    }
    let (unsigned, signed) = if max {
        (
            unsigned!(bin, |a, b| a.max(b)),
            signed!(bin, |a, b| a.max(b)),
        )
    } else {
        (
            unsigned!(bin, |a, b| a.min(b)),
            signed!(bin, |a, b| a.min(b)),
        )
    };
    let exec = by_type(f, t, unsigned, signed)?;
    integer(b, f, 2, t, exec)
}

/// Both halves of two words.
#[inline(always)]
fn pairs(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

/// Both halves of two words as signed integers.
#[inline(always)]
fn signed_pairs(a: u32, b: u32, f: impl Fn(i16, i16) -> i16) -> u32 {
    pairs(a, b, |x, y| f(x as i16, y as i16) as u16)
}

/// min and max of packed 16-bit integers, and with `.relu`, which replaces negative results by 0.
fn packed_min_or_max(b: &mut Builder, f: &Form, t: Ty, max: bool) -> Res {
    let exec: Exec = match (t, f.has("relu"), max) {
        (Ty::U16x2, false, false) => bin(|a: u32, b: u32| pairs(a, b, u16::min)),
        (Ty::U16x2, false, true) => bin(|a: u32, b: u32| pairs(a, b, u16::max)),
        (Ty::S16x2, false, false) => bin(|a: u32, b: u32| signed_pairs(a, b, i16::min)),
        (Ty::S16x2, false, true) => bin(|a: u32, b: u32| signed_pairs(a, b, i16::max)),
        (Ty::S16x2, true, false) => {
            bin(|a: u32, b: u32| signed_pairs(a, b, |x, y| x.min(y).max(0)))
        }
        (Ty::S16x2, true, true) => bin(|a: u32, b: u32| signed_pairs(a, b, |x, y| x.max(y).max(0))),
        (Ty::S32, true, false) => bin(|a: i32, b: i32| a.min(b).max(0)),
        (Ty::S32, true, true) => bin(|a: i32, b: i32| a.max(b).max(0)),
        _ => return f.refuse(".relu is for signed types"),
    };
    integer(b, f, 2, t, exec)
}

fn abs(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let exec = match t {
        Ty::F32 => return float::abs32(b, f),
        Ty::F64 => return uniform(b, f, 1, t, Class::Float64, un(|a: u64| a & !(1 << 63))),
        Ty::F16 | Ty::Bf16 => un(|a: u16| a & 0x7fff),
        Ty::F16x2 | Ty::Bf16x2 => un(|a: u32| a & 0x7fff_7fff),
        _ => {
            let exec = by_width(f, t, signed!(un, |a| a.wrapping_abs()))?;
            return integer(b, f, 1, t, exec);
        }
    };
    half::sign(b, f, t, exec)
}

fn neg(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let exec = match t {
        Ty::F32 => return float::neg32(b, f),
        Ty::F64 => return uniform(b, f, 1, t, Class::Float64, un(|a: u64| a ^ 1 << 63)),
        Ty::F16 | Ty::Bf16 => un(|a: u16| a ^ 0x8000),
        Ty::F16x2 | Ty::Bf16x2 => un(|a: u32| a ^ 0x8000_8000),
        _ => {
            let exec = by_width(f, t, unsigned!(un, |a| a.wrapping_neg()))?;
            return integer(b, f, 1, t, exec);
        }
    };
    half::sign(b, f, t, exec)
}

fn sad(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let exec = by_type(
        f,
        t,
        unsigned!(tri, |a, b, c| a.abs_diff(b).wrapping_add(c)),
        [
            tri(|a: i16, b: i16, c: u16| a.abs_diff(b).wrapping_add(c)),
            tri(|a: i32, b: i32, c: u32| a.abs_diff(b).wrapping_add(c)),
            tri(|a: i64, b: i64, c: u64| a.abs_diff(b).wrapping_add(c)),
        ],
    )?;
    integer(b, f, 3, t, exec)
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
    let exec = match f.types()[..] {
        [Ty::U32, Ty::U32] => tri(dot4::<false, false>),
        [Ty::U32, Ty::S32] => tri(dot4::<false, true>),
        [Ty::S32, Ty::U32] => tri(dot4::<true, false>),
        [Ty::S32, Ty::S32] => tri(dot4::<true, true>),
        _ => return f.refuse("two 32-bit integer types are expected"),
    };
    integer(b, f, 3, Ty::U32, exec)
}

fn dp2a(b: &mut Builder, f: &Form) -> Res {
    let hi = high_half(f)?;
    let exec = match (&f.types()[..], hi) {
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
    integer(b, f, 3, Ty::U32, exec)
}

/// Whether `.hi` and not `.lo` is written.
fn high_half(f: &Form) -> Res<bool> {
    let hi = f.has("hi");
    if !hi && !f.has("lo") {
        return f.refuse(".lo or .hi is expected");
    }
    Ok(hi)
}

// ---- carry ----

/// The predicate that holds the carry flag.
const CARRY: usize = 1;

immediate! {
    /// An addition with carry. Its first term is `src[0]`, or for `mad` half of `src[0] * src[1]`.
    struct CarryOp {
        /// Adds the flag.
        take: bool [1],
        /// Writes the flag.
        set: bool [1],
        /// Subtracts the second term.
        subtract: bool [1],
        /// mad: the high half of the multiplication.
        high: bool [1],
        /// mad: the multiplication is signed.
        signed: bool [1],
    }
}

/// A register that an addition with carry works on.
trait Word: Lane + Into<u128> {
    fn truncate(v: u128) -> Self;
    /// Half of `a * b`.
    fn half_of_mul(a: Self, b: Self, op: CarryOp) -> Self;
}

macro_rules! word {
    ($($t:ty as $signed:ty),+) => {$(
        impl Word for $t {
            fn truncate(v: u128) -> $t {
                v as $t
            }
            fn half_of_mul(a: $t, b: $t, op: CarryOp) -> $t {
                match (op.high, op.signed) {
                    (false, _) => a.wrapping_mul(b),
                    (true, false) => a.mul_high(b),
                    (true, true) => (a as $signed).mul_high(b as $signed) as $t,
                }
            }
        }
    )+};
}

word!(u32 as i32, u64 as i64);

/// `terms`: the two terms of a lane's sum.
#[inline(always)]
fn add_with_carry<T: Word>(
    cx: &mut Cx<'_>,
    i: &Ins,
    mask: u32,
    op: CarryOp,
    terms: impl Fn(&Cx<'_>, usize) -> (T, T),
) {
    let bits = size_of::<T::Cell>() * 8;
    let flags = cx.warp.preds[CARRY];
    let mut out = flags;
    let mut d = [T::truncate(0); 32];
    for lane in crate::machine::lanes_of(mask) {
        let (a, b) = terms(cx, lane);
        let (a, b): (u128, u128) = (a.into(), b.into());
        // A subtraction adds the complement, and its flag says that nothing was borrowed. The
        // manual speaks of the borrow, but the compiler's own division of 128-bit integers reads
        // the flag of `subc.cc` with `addc`.
        let b = if op.subtract {
            !b & ((1 << bits) - 1)
        } else {
            b
        };
        let c = if op.take {
            u128::from(flags >> lane & 1)
        } else {
            u128::from(op.subtract)
        };
        let r = a + b + c;
        let carry = r >> bits & 1 == 1;
        out = out & !(1 << lane) | u32::from(carry) << lane;
        d[lane] = T::truncate(r & ((1 << bits) - 1));
    }
    cx.warp.regs.put::<T>(i.dst, mask, &d);
    if op.set {
        cx.warp.preds[CARRY] = out;
    }
}

fn carry_exec<T: Word>(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let [a, b, _] = i.src;
    add_with_carry::<T>(cx, i, mask, CarryOp::unpack(i.imm), |cx, lane| {
        (cx.warp.regs.get(a, lane), cx.warp.regs.get(b, lane))
    });
}

fn mad_carry_exec<T: Word>(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let ([a, b, c], op) = (i.src, CarryOp::unpack(i.imm));
    add_with_carry::<T>(cx, i, mask, op, |cx, lane| {
        let regs = &cx.warp.regs;
        let half = T::half_of_mul(regs.get(a, lane), regs.get(b, lane), op);
        (half, regs.get(c, lane))
    });
}

/// Emits an addition with carry of `n` sources.
fn emit_carry(
    b: &mut Builder,
    f: &Form,
    n: usize,
    t: Ty,
    [e32, e64]: [Exec; 2],
    op: CarryOp,
) -> Res {
    let exec = match t {
        Ty::U32 | Ty::S32 => e32,
        Ty::U64 | Ty::S64 => e64,
        _ => return f.refuse("carry needs a 32-bit or 64-bit integer type"),
    };
    integer(b, f, n, t, exec)?;
    b.patch(|i| i.imm = op.pack());
    Ok(())
}

fn carry(b: &mut Builder, f: &Form, t: Ty, subtract: bool, take: bool, set: bool) -> Res {
    let op = CarryOp {
        take,
        set,
        subtract,
        high: false,
        signed: false,
    };
    emit_carry(b, f, 2, t, [carry_exec::<u32>, carry_exec::<u64>], op)
}

fn add_carry(b: &mut Builder, f: &Form) -> Res {
    carry(b, f, f.ty()?, false, true, f.has("cc"))
}

fn sub_carry(b: &mut Builder, f: &Form) -> Res {
    carry(b, f, f.ty()?, true, true, f.has("cc"))
}

fn mad_with_carry(b: &mut Builder, f: &Form, t: Ty, take: bool, set: bool) -> Res {
    let op = CarryOp {
        take,
        set,
        subtract: false,
        high: high_half(f)?,
        signed: t.signed(),
    };
    let execs: [Exec; 2] = [mad_carry_exec::<u32>, mad_carry_exec::<u64>];
    emit_carry(b, f, 3, t, execs, op)
}

fn mad_carry(b: &mut Builder, f: &Form) -> Res {
    mad_with_carry(b, f, f.ty()?, true, f.has("cc"))
}
