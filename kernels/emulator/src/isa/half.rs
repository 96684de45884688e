//! f16 and bf16 arithmetic, alone and packed in pairs. Every result is rounded once, from f32 where that is exact
//! enough (24 bits hold the exact product or a sum's rounding of 11-bit numbers) and from f64 for `fma`.

use super::arith::uniform;
use super::shapes::{bin, tri, un};
use crate::build::{Builder, Form, Res};
use crate::float::{self, NAN16, max32, min32, saturate};
use crate::machine::{Class, Exec};
use crate::types::Ty;

/// A 16-bit floating-point format.
pub trait Format: Copy + 'static {
    fn wide(h: u16) -> f32;
    fn narrow(x: f32) -> u16;
    fn narrow64(x: f64) -> u16;
    /// Exponent bits: all zero marks a subnormal.
    const EXPONENT: u16;
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
}

#[inline(always)]
fn tidy<T: Format, const FTZ: bool>(h: u16) -> u16 {
    if FTZ && h & T::EXPONENT == 0 {
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

const ADD: u8 = 0;
const SUB: u8 = 1;
const MUL: u8 = 2;
const MIN: u8 = 3;
const MAX: u8 = 4;
const MIN_NAN: u8 = 5;
const MAX_NAN: u8 = 6;

#[inline(always)]
fn two<T: Format, const OP: u8, const FTZ: bool, const SAT: bool>(a: u16, b: u16) -> u16 {
    let (x, y) = (T::wide(tidy::<T, FTZ>(a)), T::wide(tidy::<T, FTZ>(b)));
    if (OP == MIN_NAN || OP == MAX_NAN) && (x.is_nan() || y.is_nan()) {
        return NAN16;
    }
    let r = match OP {
        ADD => x + y,
        SUB => x - y,
        MUL => x * y,
        MIN | MIN_NAN => min32(x, y),
        _ => max32(x, y),
    };
    tidy::<T, FTZ>(T::narrow(if SAT { saturate(r) } else { r }))
}

#[inline(always)]
fn two_packed<T: Format, const OP: u8, const FTZ: bool, const SAT: bool>(a: u32, b: u32) -> u32 {
    pair2(a, b, two::<T, OP, FTZ, SAT>)
}

fn two_exec<T: Format, const OP: u8>(packed: bool, ftz: bool, sat: bool) -> Exec {
    match (packed, ftz, sat) {
        (false, false, false) => bin(two::<T, OP, false, false>),
        (false, false, true) => bin(two::<T, OP, false, true>),
        (false, true, false) => bin(two::<T, OP, true, false>),
        (false, true, true) => bin(two::<T, OP, true, true>),
        (true, false, false) => bin(two_packed::<T, OP, false, false>),
        (true, false, true) => bin(two_packed::<T, OP, false, true>),
        (true, true, false) => bin(two_packed::<T, OP, true, false>),
        (true, true, true) => bin(two_packed::<T, OP, true, true>),
    }
}

fn emit_two<const OP: u8>(b: &mut Builder, f: &Form, t: Ty) -> Res {
    f.has("rn");
    let (ftz, sat) = (f.has("ftz"), f.has("sat"));
    let packed = matches!(t, Ty::F16x2 | Ty::Bf16x2);
    let e = if matches!(t, Ty::F16 | Ty::F16x2) {
        two_exec::<F16, OP>(packed, ftz, sat)
    } else {
        two_exec::<Bf16, OP>(packed, ftz, sat)
    };
    uniform(b, f, t, Class::Half, e)
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

pub fn min(b: &mut Builder, f: &Form, t: Ty) -> Res {
    if f.has("NaN") {
        emit_two::<MIN_NAN>(b, f, t)
    } else {
        emit_two::<MIN>(b, f, t)
    }
}

pub fn max(b: &mut Builder, f: &Form, t: Ty) -> Res {
    if f.has("NaN") {
        emit_two::<MAX_NAN>(b, f, t)
    } else {
        emit_two::<MAX>(b, f, t)
    }
}

const PLAIN: u8 = 0;
const SAT: u8 = 1;
const RELU: u8 = 2;

#[inline(always)]
fn fused<T: Format, const FTZ: bool, const END: u8>(a: u16, b: u16, c: u16) -> u16 {
    let wide = |h: u16| f64::from(T::wide(tidy::<T, FTZ>(h)));
    let r = wide(a).mul_add(wide(b), wide(c));
    let h = T::narrow64(r);
    let h = match END {
        SAT => T::narrow(saturate(T::wide(h))),
        RELU if h & 0x8000 != 0 && h & 0x7fff <= T::EXPONENT => 0,
        _ => h,
    };
    tidy::<T, FTZ>(h)
}

#[inline(always)]
fn fused_packed<T: Format, const FTZ: bool, const END: u8>(a: u32, b: u32, c: u32) -> u32 {
    pair3(a, b, c, fused::<T, FTZ, END>)
}

fn fused_exec<T: Format>(packed: bool, ftz: bool, end: u8) -> Exec {
    match (packed, ftz, end) {
        (false, false, PLAIN) => tri(fused::<T, false, PLAIN>),
        (false, false, SAT) => tri(fused::<T, false, SAT>),
        (false, false, _) => tri(fused::<T, false, RELU>),
        (false, true, PLAIN) => tri(fused::<T, true, PLAIN>),
        (false, true, SAT) => tri(fused::<T, true, SAT>),
        (false, true, _) => tri(fused::<T, true, RELU>),
        (true, false, PLAIN) => tri(fused_packed::<T, false, PLAIN>),
        (true, false, SAT) => tri(fused_packed::<T, false, SAT>),
        (true, false, _) => tri(fused_packed::<T, false, RELU>),
        (true, true, PLAIN) => tri(fused_packed::<T, true, PLAIN>),
        (true, true, SAT) => tri(fused_packed::<T, true, SAT>),
        (true, true, _) => tri(fused_packed::<T, true, RELU>),
    }
}

pub fn fma(b: &mut Builder, f: &Form, t: Ty) -> Res {
    f.has("rn");
    let ftz = f.has("ftz");
    let end = if f.has("sat") {
        SAT
    } else if f.has("relu") {
        RELU
    } else {
        PLAIN
    };
    let packed = matches!(t, Ty::F16x2 | Ty::Bf16x2);
    let e = if matches!(t, Ty::F16 | Ty::F16x2) {
        fused_exec::<F16>(packed, ftz, end)
    } else {
        fused_exec::<Bf16>(packed, ftz, end)
    };
    uniform(b, f, t, Class::Half, e)
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
    uniform(b, f, t, Class::Special, e)
}
