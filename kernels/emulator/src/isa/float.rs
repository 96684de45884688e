//! f32 and f64 arithmetic, and the approximate functions.
//!
//! `.approx` functions yield the f64 result rounded to f32: inside the error PTX allows, but not the bits of a card.

use super::Decode;
use super::arith::uniform;
use super::half;
use super::shapes::{bin, tri, tri_imm, un};
use crate::float::{self, Round, canon, flush, saturate};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Exec};
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("fma", fma),
    ("sqrt", sqrt),
    ("rsqrt", rsqrt),
    ("rcp", rcp),
    ("sin", sin),
    ("cos", cos),
    ("ex2", ex2),
    ("lg2", lg2),
    ("tanh", tanh),
    ("copysign", copysign),
    ("testp", testp),
];

/// Rounding modes as const parameters.
const RN: u8 = 0;
const RZ: u8 = 1;
const RM: u8 = 2;
const RP: u8 = 3;

#[inline(always)]
const fn round(mode: u8) -> Round {
    match mode {
        RZ => Round::Zero,
        RM => Round::Down,
        RP => Round::Up,
        _ => Round::Nearest,
    }
}

fn mode_of(f: &Form) -> u8 {
    match f.pick(&["rn", "rz", "rm", "rp"]) {
        Some(m) => m as u8,
        None => RN,
    }
}

#[inline(always)]
fn input<const FTZ: bool>(x: f32) -> f32 {
    if FTZ { flush(x) } else { x }
}

#[inline(always)]
fn output<const FTZ: bool, const SAT: bool>(x: f32) -> f32 {
    let x = if SAT { saturate(x) } else { canon(x) };
    if FTZ { flush(x) } else { x }
}

/// Picks the instance of a lane function by flush and saturation, for rounding to nearest.
macro_rules! pick {
    ($shape:ident, $func:ident, $ftz:expr, $sat:expr) => {
        match ($ftz, $sat) {
            (false, false) => $shape($func::<false, false>),
            (false, true) => $shape($func::<false, true>),
            (true, false) => $shape($func::<true, false>),
            (true, true) => $shape($func::<true, true>),
        }
    };
}

#[inline(always)]
fn add_lane<const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> f32 {
    output::<FTZ, SAT>(input::<FTZ>(a) + input::<FTZ>(b))
}

#[inline(always)]
fn sub_lane<const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> f32 {
    output::<FTZ, SAT>(input::<FTZ>(a) - input::<FTZ>(b))
}

#[inline(always)]
fn mul_lane<const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> f32 {
    output::<FTZ, SAT>(input::<FTZ>(a) * input::<FTZ>(b))
}

#[inline(always)]
fn fma_lane<const FTZ: bool, const SAT: bool>(a: f32, b: f32, c: f32) -> f32 {
    output::<FTZ, SAT>(input::<FTZ>(a).mul_add(input::<FTZ>(b), input::<FTZ>(c)))
}

#[inline(always)]
fn div_lane<const FTZ: bool, const SAT: bool>(a: f32, b: f32) -> f32 {
    output::<FTZ, SAT>(input::<FTZ>(a) / input::<FTZ>(b))
}

#[inline(always)]
fn rcp_lane<const FTZ: bool, const SAT: bool>(a: f32) -> f32 {
    div_lane::<FTZ, SAT>(1.0, a)
}

#[inline(always)]
fn sqrt_lane<const FTZ: bool, const SAT: bool>(a: f32) -> f32 {
    output::<FTZ, SAT>(input::<FTZ>(a).sqrt())
}

const ADD: u64 = 0;
const SUB: u64 = 1;
const MUL: u64 = 2;
const FMA: u64 = 3;
const DIV: u64 = 4;
const RCP: u64 = 5;
const SQRT: u64 = 6;

/// The directed modes: `imm` is the operation, bits 8-9 the mode, 10 flush, 11 saturate.
fn directed(a: f32, b: f32, c: f32, imm: u64) -> f32 {
    let (mode, ftz, sat) = (
        round((imm >> 8 & 3) as u8),
        imm >> 10 & 1 == 1,
        imm >> 11 & 1 == 1,
    );
    let into = |x: f32| if ftz { flush(x) } else { x };
    let (a, b, c) = (into(a), into(b), into(c));
    let r = match imm & 0xff {
        ADD => float::add32(a, b, mode),
        SUB => float::add32(a, -b, mode),
        MUL => float::mul32(a, b, mode),
        FMA => float::fma32(a, b, c, mode),
        DIV => float::div32(a, b, mode),
        RCP => float::div32(1.0, a, mode),
        _ => float::sqrt32(a, mode),
    };
    into(if sat { saturate(r) } else { canon(r) })
}

/// Emits the vectorised instance for rounding to nearest, the general one else.
fn emit32(b: &mut Builder, f: &Form, class: Class, op: u64, mode: u8, ftz: bool, sat: bool) -> Res {
    let sources = match op {
        RCP | SQRT => 1,
        FMA => 3,
        _ => 2,
    };
    if mode == RN {
        let e = match op {
            ADD => pick!(bin, add_lane, ftz, sat),
            SUB => pick!(bin, sub_lane, ftz, sat),
            MUL => pick!(bin, mul_lane, ftz, sat),
            FMA => pick!(tri, fma_lane, ftz, sat),
            DIV => pick!(bin, div_lane, ftz, sat),
            RCP => pick!(un, rcp_lane, ftz, sat),
            _ => pick!(un, sqrt_lane, ftz, sat),
        };
        return uniform(b, f, sources, Ty::F32, class, e);
    }
    uniform(b, f, sources, Ty::F32, class, tri_imm(directed))?;
    b.patch(|i| {
        // Sources that do not exist read the first one; the operation ignores them.
        if sources < 2 {
            i.src[1] = i.src[0];
        }
        if sources < 3 {
            i.src[2] = i.src[0];
        }
        i.imm = op | u64::from(mode) << 8 | u64::from(ftz) << 10 | u64::from(sat) << 11;
    });
    Ok(())
}

fn flags(f: &Form) -> (u8, bool, bool) {
    (mode_of(f), f.has("ftz"), f.has("sat"))
}

pub fn add32(b: &mut Builder, f: &Form, subtract: bool) -> Res {
    let (m, ftz, sat) = flags(f);
    let op = if subtract { SUB } else { ADD };
    emit32(b, f, Class::Float32, op, m, ftz, sat)
}

pub fn mul32(b: &mut Builder, f: &Form) -> Res {
    let (m, ftz, sat) = flags(f);
    emit32(b, f, Class::Float32, MUL, m, ftz, sat)
}

pub fn fma32(b: &mut Builder, f: &Form) -> Res {
    let (m, ftz, sat) = flags(f);
    emit32(b, f, Class::Float32, FMA, m, ftz, sat)
}

pub fn div32(b: &mut Builder, f: &Form) -> Res {
    let special = f.has("approx") | f.has("full");
    let (m, ftz, _) = flags(f);
    let class = if special {
        Class::Special
    } else {
        Class::Float32
    };
    emit32(b, f, class, DIV, m, ftz, false)
}

#[inline(always)]
fn add64_lane<const M: u8>(a: f64, b: f64) -> f64 {
    if M == RN {
        a + b
    } else {
        float::add64(a, b, round(M))
    }
}

#[inline(always)]
fn sub64_lane<const M: u8>(a: f64, b: f64) -> f64 {
    if M == RN {
        a - b
    } else {
        float::add64(a, -b, round(M))
    }
}

#[inline(always)]
fn mul64_lane<const M: u8>(a: f64, b: f64) -> f64 {
    if M == RN {
        a * b
    } else {
        float::mul64(a, b, round(M))
    }
}

#[inline(always)]
fn div64_lane<const M: u8>(a: f64, b: f64) -> f64 {
    if M == RN {
        a / b
    } else {
        float::div64(a, b, round(M))
    }
}

#[inline(always)]
fn rcp64_lane<const M: u8>(a: f64) -> f64 {
    div64_lane::<M>(1.0, a)
}

#[inline(always)]
fn sqrt64_lane<const M: u8>(a: f64) -> f64 {
    if M == RN {
        a.sqrt()
    } else {
        float::sqrt64(a, round(M))
    }
}

#[inline(always)]
fn fma64_lane<const M: u8>(a: f64, b: f64, c: f64) -> f64 {
    if M == RN {
        a.mul_add(b, c)
    } else {
        float::fma64(a, b, c, round(M))
    }
}

macro_rules! pick64 {
    ($shape:ident, $func:ident, $mode:expr) => {
        match $mode {
            RN => $shape($func::<RN>),
            RZ => $shape($func::<RZ>),
            RM => $shape($func::<RM>),
            _ => $shape($func::<RP>),
        }
    };
}

pub fn add64(b: &mut Builder, f: &Form, subtract: bool) -> Res {
    let m = mode_of(f);
    let e = if subtract {
        pick64!(bin, sub64_lane, m)
    } else {
        pick64!(bin, add64_lane, m)
    };
    uniform(b, f, 2, Ty::F64, Class::Float64, e)
}

pub fn mul64(b: &mut Builder, f: &Form) -> Res {
    let m = mode_of(f);
    uniform(
        b,
        f,
        2,
        Ty::F64,
        Class::Float64,
        pick64!(bin, mul64_lane, m),
    )
}

pub fn fma64(b: &mut Builder, f: &Form) -> Res {
    let m = mode_of(f);
    uniform(
        b,
        f,
        3,
        Ty::F64,
        Class::Float64,
        pick64!(tri, fma64_lane, m),
    )
}

pub fn div64(b: &mut Builder, f: &Form) -> Res {
    let m = mode_of(f);
    uniform(
        b,
        f,
        2,
        Ty::F64,
        Class::Float64,
        pick64!(bin, div64_lane, m),
    )
}

/// `add.f32.bf16` and the like of newer cards.
pub fn mixed_add(_: &mut Builder, f: &Form, _: &[Ty]) -> Res {
    f.refuse("mixed-precision add is not supported")
}

fn fma(b: &mut Builder, f: &Form) -> Res {
    match f.types()[..] {
        [Ty::F32] => fma32(b, f),
        [Ty::F64] => fma64(b, f),
        [t @ (Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2)] => half::fma(b, f, t),
        _ => f.refuse("this type is not supported"),
    }
}

#[inline(always)]
fn min_lane<const FTZ: bool, const NAN: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (input::<FTZ>(a), input::<FTZ>(b));
    if NAN && (a.is_nan() || b.is_nan()) {
        f32::from_bits(float::NAN32)
    } else {
        float::min32(a, b)
    }
}

#[inline(always)]
fn max_lane<const FTZ: bool, const NAN: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (input::<FTZ>(a), input::<FTZ>(b));
    if NAN && (a.is_nan() || b.is_nan()) {
        f32::from_bits(float::NAN32)
    } else {
        float::max32(a, b)
    }
}

pub fn min32(b: &mut Builder, f: &Form) -> Res {
    let e = match (f.has("ftz"), f.has("NaN")) {
        (false, false) => bin(min_lane::<false, false>),
        (false, true) => bin(min_lane::<false, true>),
        (true, false) => bin(min_lane::<true, false>),
        (true, true) => bin(min_lane::<true, true>),
    };
    uniform(b, f, 2, Ty::F32, Class::Float32, e)
}

pub fn max32(b: &mut Builder, f: &Form) -> Res {
    let e = match (f.has("ftz"), f.has("NaN")) {
        (false, false) => bin(max_lane::<false, false>),
        (false, true) => bin(max_lane::<false, true>),
        (true, false) => bin(max_lane::<true, false>),
        (true, true) => bin(max_lane::<true, true>),
    };
    uniform(b, f, 2, Ty::F32, Class::Float32, e)
}

/// abs and neg.
pub fn sign32(b: &mut Builder, f: &Form, clear: bool) -> Res {
    let e = match (f.has("ftz"), clear) {
        (false, true) => un(|a: u32| a & 0x7fff_ffff),
        (false, false) => un(|a: u32| a ^ 0x8000_0000),
        (true, true) => un(|a: f32| f32::from_bits(flush(a).to_bits() & 0x7fff_ffff)),
        (true, false) => un(|a: f32| f32::from_bits(flush(a).to_bits() ^ 0x8000_0000)),
    };
    uniform(b, f, 1, Ty::F32, Class::Float32, e)
}

fn sqrt(b: &mut Builder, f: &Form) -> Res {
    let special = f.has("approx");
    let t = f.ty()?;
    let (m, ftz, _) = flags(f);
    match t {
        Ty::F32 => {
            let class = if special {
                Class::Special
            } else {
                Class::Float32
            };
            emit32(b, f, class, SQRT, m, ftz, false)
        }
        Ty::F64 => uniform(b, f, 1, t, Class::Float64, pick64!(un, sqrt64_lane, m)),
        _ => f.refuse("f32 or f64 is expected"),
    }
}

fn rcp(b: &mut Builder, f: &Form) -> Res {
    let special = f.has("approx");
    let t = f.ty()?;
    let (m, ftz, _) = flags(f);
    match t {
        Ty::F32 => {
            let class = if special {
                Class::Special
            } else {
                Class::Float32
            };
            emit32(b, f, class, RCP, m, ftz, false)
        }
        // The approximation keeps only the upper half of the bits.
        Ty::F64 if special => uniform(b, f, 1, t, Class::Special, un(|a: f64| upper(1.0 / a))),
        Ty::F64 => uniform(b, f, 1, t, Class::Float64, pick64!(un, rcp64_lane, m)),
        _ => f.refuse("f32 or f64 is expected"),
    }
}

#[inline(always)]
fn upper(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000)
}

/// A function computed in f64 and rounded once.
#[inline(always)]
fn via64<const FTZ: bool>(a: f32, f: fn(f64) -> f64) -> f32 {
    output::<FTZ, false>(f(f64::from(input::<FTZ>(a))) as f32)
}

#[inline(always)]
fn rsqrt_of(x: f64) -> f64 {
    if x == 0.0 {
        f64::INFINITY.copysign(x)
    } else {
        1.0 / x.sqrt()
    }
}

macro_rules! approx {
    ($b:expr, $f:expr, $func:expr) => {{
        let (b, f) = ($b, $f);
        f.has("approx");
        let t = f.ty()?;
        let e: Exec = match (t, f.has("ftz")) {
            (Ty::F32, false) => un(|a: f32| via64::<false>(a, $func)),
            (Ty::F32, true) => un(|a: f32| via64::<true>(a, $func)),
            _ => return f.refuse("f32 is expected"),
        };
        uniform(b, f, 1, t, Class::Special, e)
    }};
}

fn rsqrt(b: &mut Builder, f: &Form) -> Res {
    if f.inst.modifiers.iter().any(|m| m == "f64") {
        f.has("approx");
        let (t, _) = (f.ty()?, f.has("ftz"));
        return uniform(b, f, 1, t, Class::Special, un(|a: f64| upper(rsqrt_of(a))));
    }
    approx!(b, f, rsqrt_of)
}

fn sin(b: &mut Builder, f: &Form) -> Res {
    approx!(b, f, f64::sin)
}

fn cos(b: &mut Builder, f: &Form) -> Res {
    approx!(b, f, f64::cos)
}

fn lg2(b: &mut Builder, f: &Form) -> Res {
    approx!(b, f, f64::log2)
}

fn ex2(b: &mut Builder, f: &Form) -> Res {
    if f.inst.modifiers.iter().any(|m| m.contains("f16")) {
        return half::unary(b, f, half::Unary::Ex2);
    }
    approx!(b, f, f64::exp2)
}

fn tanh(b: &mut Builder, f: &Form) -> Res {
    if f.inst.modifiers.iter().any(|m| m.contains("f16")) {
        return half::unary(b, f, half::Unary::Tanh);
    }
    approx!(b, f, f64::tanh)
}

/// `copysign d, a, b`: the sign of a, the magnitude of b.
fn copysign(b: &mut Builder, f: &Form) -> Res {
    match f.ty()? {
        Ty::F32 => uniform(
            b,
            f,
            2,
            Ty::F32,
            Class::Float32,
            bin(|a: f32, b: f32| b.copysign(a)),
        ),
        Ty::F64 => uniform(
            b,
            f,
            2,
            Ty::F64,
            Class::Float64,
            bin(|a: f64, b: f64| b.copysign(a)),
        ),
        _ => f.refuse("f32 or f64 is expected"),
    }
}

fn testp(b: &mut Builder, f: &Form) -> Res {
    use super::shapes::cmp;
    let names = [
        "finite",
        "infinite",
        "number",
        "notanumber",
        "normal",
        "subnormal",
    ];
    let Some(which) = f.pick(&names) else {
        return f.refuse("a class of numbers is expected");
    };
    let e = match (f.ty()?, which) {
        (Ty::F32, 0) => cmp(|a: f32, _: f32| a.is_finite()),
        (Ty::F32, 1) => cmp(|a: f32, _: f32| a.is_infinite()),
        (Ty::F32, 2) => cmp(|a: f32, _: f32| !a.is_nan()),
        (Ty::F32, 3) => cmp(|a: f32, _: f32| a.is_nan()),
        (Ty::F32, 4) => cmp(|a: f32, _: f32| a.is_normal()),
        (Ty::F32, _) => cmp(|a: f32, _: f32| a.is_subnormal()),
        (Ty::F64, 0) => cmp(|a: f64, _: f64| a.is_finite()),
        (Ty::F64, 1) => cmp(|a: f64, _: f64| a.is_infinite()),
        (Ty::F64, 2) => cmp(|a: f64, _: f64| !a.is_nan()),
        (Ty::F64, 3) => cmp(|a: f64, _: f64| a.is_nan()),
        (Ty::F64, 4) => cmp(|a: f64, _: f64| a.is_normal()),
        (Ty::F64, _) => cmp(|a: f64, _: f64| a.is_subnormal()),
        _ => return f.refuse("f32 or f64 is expected"),
    };
    let ops = f.operands(2)?;
    let a = b.src(f, &ops[1], f.ty()?)?;
    let d = b.pred_dst(f, &ops[0])?;
    b.emit(e, Class::Compare, |i| {
        i.dst = d;
        i.src[0] = a;
        i.src[1] = a;
    });
    Ok(())
}
