//! f16 and bf16 arithmetic, alone and packed in pairs. Every result is rounded once: from f32 where
//! its 24 bits make that exact (multiplication and addition of 11-bit significands), from f64 for
//! `fma`.

use super::operands::uniform;
use super::shapes::{bin, tri, tri_imm, un};
use crate::float::{self, NAN16, max32, min32, saturate};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Exec, immediate};
use crate::types::Ty;

/// A 16-bit floating-point format.
pub trait Format: Copy + 'static {
    fn wide(h: u16) -> f32;
    fn narrow(x: f32) -> u16;
    fn narrow64(x: f64) -> u16;
    /// Exponent bits: all zero marks a subnormal.
    const EXPONENT: u16;
    /// The least exponent of a normal number.
    const LEAST_EXPONENT: i32;
}

#[derive(Clone, Copy)]
pub struct F16;
#[derive(Clone, Copy)]
pub struct Bf16;

impl Format for F16 {
    #[inline(always)]
    fn wide(h: u16) -> f32 {
        float::half_to_f32(h)
    }
    #[inline(always)]
    fn narrow(x: f32) -> u16 {
        float::f32_to_half(x)
    }
    #[inline(always)]
    fn narrow64(x: f64) -> u16 {
        float::f64_to_half(x)
    }
    const EXPONENT: u16 = 0x7c00;
    const LEAST_EXPONENT: i32 = -14;
}

impl Format for Bf16 {
    #[inline(always)]
    fn wide(h: u16) -> f32 {
        float::bf_to_f32(h)
    }
    #[inline(always)]
    fn narrow(x: f32) -> u16 {
        float::f32_to_bf(x)
    }
    #[inline(always)]
    fn narrow64(x: f64) -> u16 {
        float::f64_to_bf(x)
    }
    const EXPONENT: u16 = 0x7f80;
    const LEAST_EXPONENT: i32 = -126;
}

/// `.ftz`: a subnormal becomes zero.
#[inline(always)]
fn tidy_if<T: Format>(h: u16, ftz: bool) -> u16 {
    if ftz && h & T::EXPONENT == 0 {
        h & 0x8000
    } else {
        h
    }
}

#[inline(always)]
fn pair(a: u32, f: impl Fn(u16) -> u16) -> u32 {
    u32::from(f(a as u16)) | u32::from(f((a >> 16) as u16)) << 16
}

#[inline(always)]
fn pair2(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

#[inline(always)]
fn pair3(a: u32, b: u32, c: u32, f: impl Fn(u16, u16, u16) -> u16) -> u32 {
    u32::from(f(a as u16, b as u16, c as u16))
        | u32::from(f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16)) << 16
}

/// The operations of two sources, as const parameters.
const ADD: u8 = 0;
const SUB: u8 = 1;
const MUL: u8 = 2;
const MIN: u8 = 3;
const MAX: u8 = 4;
const MIN_NAN: u8 = 5;
const MAX_NAN: u8 = 6;

immediate! {
    /// A 16-bit operation with modifiers, in one general instance for all formats.
    struct Modified {
        /// One of `ADD` to `MAX_NAN`; unused by `fma`.
        operation: u8 [3],
        packed: bool [1],
        bf16: bool [1],
        ftz: bool [1],
        sat: bool [1],
        relu: bool [1],
    }
}

impl Modified {
    fn of(f: &Form, t: Ty, operation: u8) -> Modified {
        f.has("rn");
        Modified {
            operation,
            packed: matches!(t, Ty::F16x2 | Ty::Bf16x2),
            bf16: matches!(t, Ty::Bf16 | Ty::Bf16x2),
            ftz: f.has("ftz"),
            sat: f.has("sat"),
            relu: false,
        }
    }

    /// `.sat` and `.relu` of a result.
    fn limit<T: Format>(self, h: u16) -> u16 {
        let h = if self.sat {
            T::narrow(saturate(T::wide(h)))
        } else {
            h
        };
        let negative = h & 0x8000 != 0 && h & 0x7fff <= T::EXPONENT;
        tidy_if::<T>(if self.relu && negative { 0 } else { h }, self.ftz)
    }
}

#[inline(always)]
fn two<T: Format, const OP: u8>(a: u16, b: u16) -> u16 {
    let (x, y) = (T::wide(a), T::wide(b));
    if (OP == MIN_NAN || OP == MAX_NAN) && (x.is_nan() || y.is_nan()) {
        return NAN16;
    }
    T::narrow(match OP {
        ADD => x + y,
        SUB => x - y,
        MUL => x * y,
        MIN | MIN_NAN => min32(x, y),
        _ => max32(x, y),
    })
}

#[inline(always)]
fn two_packed<T: Format, const OP: u8>(a: u32, b: u32) -> u32 {
    pair2(a, b, two::<T, OP>)
}

/// Any operation of two sources with `.ftz` or `.sat`. `imm` is a [`Modified`].
fn two_modified(a: u32, b: u32, _: u32, imm: u64) -> u32 {
    fn one<T: Format>(a: u16, b: u16, m: Modified) -> u16 {
        let (a, b) = (tidy_if::<T>(a, m.ftz), tidy_if::<T>(b, m.ftz));
        m.limit::<T>(match m.operation {
            ADD => two::<T, ADD>(a, b),
            SUB => two::<T, SUB>(a, b),
            MUL => two::<T, MUL>(a, b),
            MIN => two::<T, MIN>(a, b),
            MAX => two::<T, MAX>(a, b),
            MIN_NAN => two::<T, MIN_NAN>(a, b),
            _ => two::<T, MAX_NAN>(a, b),
        })
    }
    let m = Modified::unpack(imm);
    let f = |a: u16, b: u16| {
        if m.bf16 {
            one::<Bf16>(a, b, m)
        } else {
            one::<F16>(a, b, m)
        }
    };
    if m.packed {
        pair2(a, b, f)
    } else {
        u32::from(f(a as u16, b as u16))
    }
}

fn emit_two<const OP: u8>(b: &mut Builder, f: &Form, t: Ty) -> Res {
    let m = Modified::of(f, t, OP);
    if m.ftz || m.sat {
        uniform(b, f, 2, t, Class::Half, tri_imm(two_modified))?;
        b.patch(|i| {
            i.src[2] = i.src[0];
            i.imm = m.pack();
        });
        return Ok(());
    }
    let exec = match (m.packed, m.bf16) {
        (false, false) => bin(two::<F16, OP>),
        (false, true) => bin(two::<Bf16, OP>),
        (true, false) => bin(two_packed::<F16, OP>),
        (true, true) => bin(two_packed::<Bf16, OP>),
    };
    uniform(b, f, 2, t, Class::Half, exec)
}

pub fn add(b: &mut Builder, f: &Form, t: Ty) -> Res {
    emit_two::<ADD>(b, f, t)
}

pub fn sub(b: &mut Builder, f: &Form, t: Ty) -> Res {
    emit_two::<SUB>(b, f, t)
}

pub fn mul(b: &mut Builder, f: &Form, t: Ty) -> Res {
    emit_two::<MUL>(b, f, t)
}

pub fn min_or_max(b: &mut Builder, f: &Form, t: Ty, max: bool) -> Res {
    match (max, f.has("NaN")) {
        (false, false) => emit_two::<MIN>(b, f, t),
        (false, true) => emit_two::<MIN_NAN>(b, f, t),
        (true, false) => emit_two::<MAX>(b, f, t),
        (true, true) => emit_two::<MAX_NAN>(b, f, t),
    }
}

/// abs and neg: `exec` changes sign bits only.
pub fn sign(b: &mut Builder, f: &Form, t: Ty, exec: Exec) -> Res {
    f.has("ftz");
    uniform(b, f, 1, t, Class::Half, exec)
}

#[inline(always)]
fn fused<T: Format>(a: u16, b: u16, c: u16) -> u16 {
    let wide = |h: u16| f64::from(T::wide(h));
    T::narrow64(wide(a).mul_add(wide(b), wide(c)))
}

/// `fma` with `.ftz`, `.sat` or `.relu`. `imm` is a [`Modified`].
fn fused_modified(a: u32, b: u32, c: u32, imm: u64) -> u32 {
    fn one<T: Format>(a: u16, b: u16, c: u16, m: Modified) -> u16 {
        let tidy = |h: u16| tidy_if::<T>(h, m.ftz);
        m.limit::<T>(fused::<T>(tidy(a), tidy(b), tidy(c)))
    }
    let m = Modified::unpack(imm);
    let f = |a: u16, b: u16, c: u16| {
        if m.bf16 {
            one::<Bf16>(a, b, c, m)
        } else {
            one::<F16>(a, b, c, m)
        }
    };
    if m.packed {
        pair3(a, b, c, f)
    } else {
        u32::from(f(a as u16, b as u16, c as u16))
    }
}

pub fn fma(b: &mut Builder, f: &Form, t: Ty) -> Res {
    let m = Modified {
        relu: f.has("relu"),
        ..Modified::of(f, t, 0)
    };
    if m.ftz || m.sat || m.relu {
        uniform(b, f, 3, t, Class::Half, tri_imm(fused_modified))?;
        b.patch(|i| i.imm = m.pack());
        return Ok(());
    }
    let exec = match (m.packed, m.bf16) {
        (false, false) => tri(fused::<F16>),
        (false, true) => tri(fused::<Bf16>),
        (true, false) => tri(|a: u32, b: u32, c: u32| pair3(a, b, c, fused::<F16>)),
        (true, true) => tri(|a: u32, b: u32, c: u32| pair3(a, b, c, fused::<Bf16>)),
    };
    uniform(b, f, 3, t, Class::Half, exec)
}

/// The approximate functions that exist for 16-bit types.
#[derive(Clone, Copy)]
pub enum Unary {
    Ex2,
    Tanh,
}

#[inline(always)]
fn one<T: Format, const EX2: bool>(a: u16) -> u16 {
    let x = f64::from(T::wide(a));
    T::narrow64(if EX2 { x.exp2() } else { x.tanh() })
}

#[inline(always)]
fn one_packed<T: Format, const EX2: bool>(a: u32) -> u32 {
    pair(a, one::<T, EX2>)
}

/// `ex2` and `tanh`.
pub fn unary(b: &mut Builder, f: &Form, which: Unary) -> Res {
    f.has("approx");
    if f.has("ftz") && !f.inst.modifiers.iter().any(|m| m.starts_with("bf16")) {
        return f.refuse(".ftz is for bf16 only");
    }
    let t = f.ty()?;
    let ex2 = matches!(which, Unary::Ex2);
    let e = match (t, ex2) {
        (Ty::F16, true) => un(one::<F16, true>),
        (Ty::F16, false) => un(one::<F16, false>),
        (Ty::Bf16, true) => un(one::<Bf16, true>),
        (Ty::Bf16, false) => un(one::<Bf16, false>),
        (Ty::F16x2, true) => un(one_packed::<F16, true>),
        (Ty::F16x2, false) => un(one_packed::<F16, false>),
        (Ty::Bf16x2, true) => un(one_packed::<Bf16, true>),
        _ => un(one_packed::<Bf16, false>),
    };
    uniform(b, f, 1, t, Class::Special, e)
}
