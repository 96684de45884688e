//! f32 and f64 arithmetic, and the approximate functions.
//!
//! `.approx` functions return the f64 result rounded to f32: within PTX's error bounds, but not a
//! card's bits.

use super::Decode;
use super::half;
use super::operands::uniform;
use super::shapes::{bin, tri, tri_imm, un};
use crate::float::{self, Round, canon, flush, saturate};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Exec, choice, immediate, listed};
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

/// An f32 operation rounded to nearest, its sources flushed if `FTZ`.
macro_rules! lane32 {
    ($name:ident, |$($x:ident),+| $value:expr) => {
        #[inline(always)]
        fn $name<const FTZ: bool, const SAT: bool>($($x: f32),+) -> f32 {
            $(let $x = input::<FTZ>($x);)+
            output::<FTZ, SAT>($value)
        }
    };
}

lane32!(add_lane, |a, b| a + b);
lane32!(sub_lane, |a, b| a - b);
lane32!(mul_lane, |a, b| a * b);
lane32!(fma_lane, |a, b, c| a.mul_add(b, c));
lane32!(div_lane, |a, b| a / b);
lane32!(rcp_lane, |a| 1.0 / a);
lane32!(sqrt_lane, |a| a.sqrt());

choice! {
    /// The f32 operations that round.
    enum Operation {
        Add = "add",
        Sub = "sub",
        Mul = "mul",
        Fma = "fma",
        Div = "div",
        Rcp = "rcp",
        Sqrt = "sqrt",
    }
}

impl Operation {
    fn sources(self) -> usize {
        match self {
            Operation::Rcp | Operation::Sqrt => 1,
            Operation::Fma => 3,
            _ => 2,
        }
    }
}

listed!(Round, [Round::Nearest, Round::Zero, Round::Down, Round::Up]);

immediate! {
    /// An f32 operation in a directed rounding mode.
    struct Directed {
        operation: Operation [3],
        mode: Round [2],
        ftz: bool [1],
        sat: bool [1],
    }
}

/// The directed modes. `imm` is a [`Directed`].
fn directed(a: f32, b: f32, c: f32, imm: u64) -> f32 {
    let op = Directed::unpack(imm);
    let mode = op.mode;
    let into = |x: f32| if op.ftz { flush(x) } else { x };
    let (a, b, c) = (into(a), into(b), into(c));
    let r = match op.operation {
        Operation::Add => float::add32(a, b, mode),
        Operation::Sub => float::add32(a, -b, mode),
        Operation::Mul => float::mul32(a, b, mode),
        Operation::Fma => float::fma32(a, b, c, mode),
        Operation::Div => float::div32(a, b, mode),
        Operation::Rcp => float::div32(1.0, a, mode),
        Operation::Sqrt => float::sqrt32(a, mode),
    };
    into(if op.sat { saturate(r) } else { canon(r) })
}

/// Rounding mode, `.ftz`, `.sat`.
struct Modifiers {
    mode: u8,
    ftz: bool,
    sat: bool,
}

impl Modifiers {
    fn of(f: &Form) -> Modifiers {
        Modifiers {
            mode: mode_of(f),
            ftz: f.has("ftz"),
            sat: f.has("sat"),
        }
    }
}

/// Emits the vectorised instance for rounding to nearest, the general one else.
fn emit32(b: &mut Builder, f: &Form, class: Class, operation: Operation, m: Modifiers) -> Res {
    let Modifiers { mode, ftz, sat } = m;
    let sources = operation.sources();
    if mode == RN {
        let exec = match operation {
            Operation::Add => pick!(bin, add_lane, ftz, sat),
            Operation::Sub => pick!(bin, sub_lane, ftz, sat),
            Operation::Mul => pick!(bin, mul_lane, ftz, sat),
            Operation::Fma => pick!(tri, fma_lane, ftz, sat),
            Operation::Div => pick!(bin, div_lane, ftz, sat),
            Operation::Rcp => pick!(un, rcp_lane, ftz, sat),
            Operation::Sqrt => pick!(un, sqrt_lane, ftz, sat),
        };
        return uniform(b, f, sources, Ty::F32, class, exec);
    }
    uniform(b, f, sources, Ty::F32, class, tri_imm(directed))?;
    b.patch(|i| {
        // Sources that do not exist read the first one; the operation ignores them.
        for k in sources..3 {
            i.src[k] = i.src[0];
        }
        i.imm = Directed {
            operation,
            mode: round(mode),
            ftz,
            sat,
        }
        .pack();
    });
    Ok(())
}

/// The class of an instruction that may be approximate.
fn class_of(approximate: bool) -> Class {
    if approximate {
        Class::Special
    } else {
        Class::Float32
    }
}

pub fn add32(b: &mut Builder, f: &Form, subtract: bool) -> Res {
    let operation = if subtract {
        Operation::Sub
    } else {
        Operation::Add
    };
    emit32(b, f, Class::Float32, operation, Modifiers::of(f))
}

pub fn mul32(b: &mut Builder, f: &Form) -> Res {
    emit32(b, f, Class::Float32, Operation::Mul, Modifiers::of(f))
}

pub fn fma32(b: &mut Builder, f: &Form) -> Res {
    emit32(b, f, Class::Float32, Operation::Fma, Modifiers::of(f))
}

pub fn div32(b: &mut Builder, f: &Form) -> Res {
    let class = class_of(f.has("approx") | f.has("full"));
    unsaturated32(b, f, class, Operation::Div)
}

/// An operation for which `.sat` does not exist.
fn unsaturated32(b: &mut Builder, f: &Form, class: Class, operation: Operation) -> Res {
    let modifiers = Modifiers {
        sat: false,
        ..Modifiers::of(f)
    };
    emit32(b, f, class, operation, modifiers)
}

/// An f64 operation: to nearest by the host processor, else by `crate::float`.
macro_rules! lane64 {
    ($name:ident, |$($x:ident),+| $nearest:expr, $directed:path, [$($arg:expr),+]) => {
        #[inline(always)]
        fn $name<const M: u8>($($x: f64),+) -> f64 {
            if M == RN {
                $nearest
            } else {
                $directed($($arg,)+ round(M))
            }
        }
    };
}

lane64!(add64_lane, |a, b| a + b, float::add64, [a, b]);
lane64!(sub64_lane, |a, b| a - b, float::add64, [a, -b]);
lane64!(mul64_lane, |a, b| a * b, float::mul64, [a, b]);
lane64!(div64_lane, |a, b| a / b, float::div64, [a, b]);
lane64!(rcp64_lane, |a| 1.0 / a, float::div64, [1.0, a]);
lane64!(sqrt64_lane, |a| a.sqrt(), float::sqrt64, [a]);
lane64!(
    fma64_lane,
    |a, b, c| a.mul_add(b, c),
    float::fma64,
    [a, b, c]
);

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

/// Emits an f64 operation of `n` sources.
fn emit64(b: &mut Builder, f: &Form, n: usize, exec: Exec) -> Res {
    uniform(b, f, n, Ty::F64, Class::Float64, exec)
}

pub fn add64(b: &mut Builder, f: &Form, subtract: bool) -> Res {
    let mode = mode_of(f);
    let exec = if subtract {
        pick64!(bin, sub64_lane, mode)
    } else {
        pick64!(bin, add64_lane, mode)
    };
    emit64(b, f, 2, exec)
}

pub fn mul64(b: &mut Builder, f: &Form) -> Res {
    emit64(b, f, 2, pick64!(bin, mul64_lane, mode_of(f)))
}

pub fn fma64(b: &mut Builder, f: &Form) -> Res {
    emit64(b, f, 3, pick64!(tri, fma64_lane, mode_of(f)))
}

pub fn div64(b: &mut Builder, f: &Form) -> Res {
    emit64(b, f, 2, pick64!(bin, div64_lane, mode_of(f)))
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
fn min_max_lane<const MAX: bool, const FTZ: bool, const NAN: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (input::<FTZ>(a), input::<FTZ>(b));
    if NAN && (a.is_nan() || b.is_nan()) {
        f32::from_bits(float::NAN32)
    } else if MAX {
        float::max32(a, b)
    } else {
        float::min32(a, b)
    }
}

pub fn min_or_max32(b: &mut Builder, f: &Form, max: bool) -> Res {
    let exec = match (max, f.has("ftz"), f.has("NaN")) {
        (false, false, false) => bin(min_max_lane::<false, false, false>),
        (false, false, true) => bin(min_max_lane::<false, false, true>),
        (false, true, false) => bin(min_max_lane::<false, true, false>),
        (false, true, true) => bin(min_max_lane::<false, true, true>),
        (true, false, false) => bin(min_max_lane::<true, false, false>),
        (true, false, true) => bin(min_max_lane::<true, false, true>),
        (true, true, false) => bin(min_max_lane::<true, true, false>),
        (true, true, true) => bin(min_max_lane::<true, true, true>),
    };
    uniform(b, f, 2, Ty::F32, Class::Float32, exec)
}

pub fn abs32(b: &mut Builder, f: &Form) -> Res {
    let exec = if f.has("ftz") {
        un(|a: f32| f32::from_bits(flush(a).to_bits() & 0x7fff_ffff))
    } else {
        un(|a: u32| a & 0x7fff_ffff)
    };
    uniform(b, f, 1, Ty::F32, Class::Float32, exec)
}

pub fn neg32(b: &mut Builder, f: &Form) -> Res {
    let exec = if f.has("ftz") {
        un(|a: f32| f32::from_bits(flush(a).to_bits() ^ 0x8000_0000))
    } else {
        un(|a: u32| a ^ 0x8000_0000)
    };
    uniform(b, f, 1, Ty::F32, Class::Float32, exec)
}

fn sqrt(b: &mut Builder, f: &Form) -> Res {
    let approximate = f.has("approx");
    match f.ty()? {
        Ty::F32 => unsaturated32(b, f, class_of(approximate), Operation::Sqrt),
        Ty::F64 => emit64(b, f, 1, pick64!(un, sqrt64_lane, Modifiers::of(f).mode)),
        _ => f.refuse("f32 or f64 is expected"),
    }
}

fn rcp(b: &mut Builder, f: &Form) -> Res {
    let approximate = f.has("approx");
    match f.ty()? {
        Ty::F32 => unsaturated32(b, f, class_of(approximate), Operation::Rcp),
        // The approximation keeps only the upper half of the bits.
        Ty::F64 if approximate => {
            Modifiers::of(f);
            let exec = un(|a: f64| upper(1.0 / a));
            uniform(b, f, 1, Ty::F64, Class::Special, exec)
        }
        Ty::F64 => emit64(b, f, 1, pick64!(un, rcp64_lane, Modifiers::of(f).mode)),
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
    let t = f.ty()?;
    let e = match (t, which) {
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
    let a = b.src(f, &ops[1], t)?;
    let d = b.pred_dst(f, &ops[0])?;
    b.emit(e, Class::Compare, |i| {
        i.dst = d;
        i.src[0] = a;
        i.src[1] = a;
    });
    Ok(())
}
