//! setp, set, selp, slct.

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::operands::mixed;
use super::shapes::{cmp, select, tri};
use crate::float::flush;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("setp", setp), ("set", set), ("selp", selp), ("slct", slct)];

const OPS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu",
    "geu", "num", "nan",
];

/// How a comparison is made of a base one: which, operands swapped, result turned round. The bases are ==, <, <=,
/// "ordered and different" and "neither is NaN".
fn parts(op: usize) -> (u8, bool, bool) {
    const EQ: u8 = 0;
    const LT: u8 = 1;
    const LE: u8 = 2;
    const DIFFERENT: u8 = 3;
    const NUM: u8 = 4;
    match OPS[op] {
        "eq" => (EQ, false, false),
        "ne" => (DIFFERENT, false, false),
        "lt" | "lo" => (LT, false, false),
        "le" | "ls" => (LE, false, false),
        "gt" | "hi" => (LT, true, false),
        "ge" | "hs" => (LE, true, false),
        "equ" => (DIFFERENT, false, true),
        "neu" => (EQ, false, true),
        "ltu" => (LE, true, true),
        "leu" => (LT, true, true),
        "gtu" => (LE, false, true),
        "geu" => (LT, false, true),
        "num" => (NUM, false, false),
        _ => (NUM, false, true),
    }
}

macro_rules! integers {
    ($base:expr, $t:ty) => {
        match $base {
            0 => cmp(|a: $t, b: $t| a == b),
            1 => cmp(|a: $t, b: $t| a < b),
            2 => cmp(|a: $t, b: $t| a <= b),
            _ => cmp(|a: $t, b: $t| a != b),
        }
    };
}

/// Comparisons through a view of the operands as floats.
macro_rules! floats {
    ($base:expr, $t:ty, $v:expr) => {
        match $base {
            0 => cmp(|a: $t, b: $t| $v(a) == $v(b)),
            1 => cmp(|a: $t, b: $t| $v(a) < $v(b)),
            2 => cmp(|a: $t, b: $t| $v(a) <= $v(b)),
            3 => cmp(|a: $t, b: $t| $v(a) < $v(b) || $v(a) > $v(b)),
            _ => cmp(|a: $t, b: $t| !$v(a).is_nan() && !$v(b).is_nan()),
        }
    };
}

#[inline(always)]
fn same<T>(x: T) -> T {
    x
}

fn low<T: Format>(h: u32) -> f32 {
    T::wide(h as u16)
}

fn high<T: Format>(h: u32) -> f32 {
    T::wide((h >> 16) as u16)
}

fn compare_exec(f: &Form, op: usize, t: Ty, ftz: bool) -> Res<Exec> {
    let float = matches!(
        t,
        Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64 | Ty::F16x2 | Ty::Bf16x2
    );
    if float && (6..10).contains(&op) || !float && op >= 10 {
        return f.refuse(format!("comparison .{} does not fit the type", OPS[op]));
    }
    let (op, ..) = parts(op);
    Ok(match t {
        Ty::B16 | Ty::U16 => integers!(op, u16),
        Ty::B32 | Ty::U32 => integers!(op, u32),
        Ty::B64 | Ty::U64 => integers!(op, u64),
        Ty::S16 => integers!(op, i16),
        Ty::S32 => integers!(op, i32),
        Ty::S64 => integers!(op, i64),
        Ty::F32 if ftz => floats!(op, f32, flush),
        Ty::F32 => floats!(op, f32, same),
        Ty::F64 => floats!(op, f64, same),
        Ty::F16 => floats!(op, u16, F16::wide),
        Ty::Bf16 => floats!(op, u16, Bf16::wide),
        _ => return f.refuse("this type is not supported"),
    })
}

/// Emits the comparison into predicate `p` and perhaps its complement into `q`.
fn compare(b: &mut Builder, f: &Form, t: Ty, ops: &[Operand], p: u32, q: Option<u32>) -> Res {
    let Some(op) = f.pick(&OPS) else {
        return f.refuse("a comparison is expected");
    };
    let combine = f.pick(&["and", "or", "xor"]);
    let ftz = f.has("ftz");
    let exec = compare_exec(f, op, t, ftz)?;
    let (a, c) = (b.src(f, &ops[0], t)?, b.src(f, &ops[1], t)?);
    let (_, swap, turn) = parts(op);
    let (a, c) = if swap { (c, a) } else { (a, c) };
    let (third, flip) = match (combine, ops.get(2)) {
        (Some(_), Some(op)) => b.pred(f, op)?,
        (None, None) => (0, 0),
        _ => return f.refuse("a third source goes with .and, .or or .xor"),
    };
    let combine = combine.map_or(0, |c| c as u64 + 1);
    b.emit(exec, Class::Compare, |i| {
        i.dst = p;
        i.src[0] = a;
        i.src[1] = c;
        i.src[2] = third;
        i.list = q.unwrap_or(0);
        i.imm = combine
            | u64::from(flip & 1) << 8
            | u64::from(q.is_some()) << 9
            | u64::from(turn) << 10;
    });
    Ok(())
}

fn setp(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let n = f.inst.operands.len();
    if !(3..=4).contains(&n) {
        return f.refuse("3 or 4 operands are expected");
    }
    let ops = f.operands(n)?;
    if matches!(t, Ty::F16x2 | Ty::Bf16x2) {
        return setp_packed(b, f, t, ops);
    }
    let (p, q) = match &ops[0] {
        Operand::Pair(p, q) => (b.pred_dst(f, p)?, Some(b.pred_dst(f, q)?)),
        p => (b.pred_dst(f, p)?, None),
    };
    compare(b, f, t, &ops[1..], p, q)
}

/// `setp.f16x2 p|q`: one predicate per half.
fn setp_packed(b: &mut Builder, f: &Form, t: Ty, ops: &[Operand]) -> Res {
    let Some(op) = f.pick(&OPS) else {
        return f.refuse("a comparison is expected");
    };
    f.has("ftz");
    let Operand::Pair(p, q) = &ops[0] else {
        return f.refuse("two destinations are expected");
    };
    if ops.len() != 3 || (6..10).contains(&op) {
        return f.refuse("this form is not supported");
    }
    let (base, swap, turn) = parts(op);
    let halves: [Exec; 2] = match t {
        Ty::F16x2 => [
            floats!(base, u32, low::<F16>),
            floats!(base, u32, high::<F16>),
        ],
        _ => [
            floats!(base, u32, low::<Bf16>),
            floats!(base, u32, high::<Bf16>),
        ],
    };
    for (exec, dst) in halves.into_iter().zip([p, q]) {
        let (a, c) = (b.src(f, &ops[1], t)?, b.src(f, &ops[2], t)?);
        let d = b.pred_dst(f, dst)?;
        // The pair counts as the one instruction it is.
        let class = if std::ptr::eq(dst, p) {
            Class::Compare
        } else {
            Class::Hidden
        };
        b.emit(exec, class, |i| {
            i.dst = d;
            (i.src[0], i.src[1]) = if swap { (c, a) } else { (a, c) };
            i.imm = u64::from(turn) << 10;
        });
    }
    Ok(())
}

/// `set.f16x2.f16x2`: 1.0 per half; with an integer destination all ones per half. `imm` is the comparison.
// `a < b || a > b` is not `a != b` where one is NaN.
#[allow(clippy::double_comparisons)]
fn set_packed(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let (bf, int, op) = (i.imm >> 8 & 1 == 1, i.imm >> 9 & 1 == 1, i.imm & 0xff);
    let holds = |a: f32, b: f32| match op {
        0 => a == b,
        1 => a < b || a > b,
        2 => a < b,
        3 => a <= b,
        4 => a > b,
        5 => a >= b,
        10 => !(a < b || a > b),
        11 => a != b,
        12 => a.is_nan() || b.is_nan() || a < b,
        13 => a.is_nan() || b.is_nan() || a <= b,
        14 => a.is_nan() || b.is_nan() || a > b,
        15 => a.is_nan() || b.is_nan() || a >= b,
        16 => !a.is_nan() && !b.is_nan(),
        _ => a.is_nan() || b.is_nan(),
    };
    let one = match (int, bf) {
        (true, _) => 0xffff,
        (_, true) => 0x3f80,
        _ => 0x3c00,
    };
    let wide = |h: u32| {
        if bf {
            Bf16::wide(h as u16)
        } else {
            F16::wide(h as u16)
        }
    };
    let (a, b) = (
        cx.warp.regs.all::<u32>(i.src[0]),
        cx.warp.regs.all::<u32>(i.src[1]),
    );
    let d: [u32; 32] = std::array::from_fn(|l| {
        let lo = if holds(wide(a[l]), wide(b[l])) {
            one
        } else {
            0
        };
        let hi = if holds(wide(a[l] >> 16), wide(b[l] >> 16)) {
            one
        } else {
            0
        };
        lo | hi << 16
    });
    cx.warp.regs.put::<u32>(i.dst, m, &d);
}

fn set(b: &mut Builder, f: &Form) -> Res {
    let types = f.types();
    let [d, t] = types[..] else {
        return f.refuse("two types are expected");
    };
    let n = f.inst.operands.len();
    if !(3..=4).contains(&n) {
        return f.refuse("3 or 4 operands are expected");
    }
    let ops = f.operands(n)?;
    if matches!(t, Ty::F16x2 | Ty::Bf16x2) {
        let Some(op) = f.pick(&OPS) else {
            return f.refuse("a comparison is expected");
        };
        f.has("ftz");
        if n != 3 || (6..10).contains(&op) {
            return f.refuse("this form is not supported");
        }
        let (x, y) = (b.src(f, &ops[1], t)?, b.src(f, &ops[2], t)?);
        let reg = b.dst(f, &ops[0], d)?;
        b.emit(set_packed, Class::Compare, |i| {
            i.dst = reg;
            i.src[0] = x;
            i.src[1] = y;
            i.imm = op as u64 | u64::from(t == Ty::Bf16x2) << 8 | u64::from(d.integer()) << 9;
        });
        return Ok(());
    }
    let p = b.pred_dst(f, &Operand::Sink)?;
    compare(b, f, t, &ops[1..], p, None)?;
    let one = match d {
        Ty::F32 => u64::from(1f32.to_bits()),
        Ty::U32 | Ty::S32 => 0xffff_ffff,
        Ty::F16 => 0x3c00,
        Ty::Bf16 => 0x3f80,
        Ty::U16 | Ty::S16 => 0xffff,
        _ => return f.refuse("destination type is not supported"),
    };
    let (yes, no) = (b.constant(one, false), b.constant(0, false));
    let reg = b.dst(f, &ops[0], d)?;
    // The pair counts as the one instruction it is.
    b.emit(select(same::<u32>), Class::Hidden, |i| {
        i.dst = reg;
        i.src[0] = yes;
        i.src[1] = no;
        i.src[2] = p;
    });
    Ok(())
}

fn selp(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let ops = f.operands(4)?;
    let exec = if t.bytes() == 8 {
        select(same::<u64>)
    } else {
        select(same::<u32>)
    };
    if t == Ty::Pred || t.bytes() == 1 {
        return f.refuse("this type is not supported");
    }
    let (x, y) = (b.src(f, &ops[1], t)?, b.src(f, &ops[2], t)?);
    let (p, flip) = b.pred(f, &ops[3])?;
    let d = b.dst(f, &ops[0], t)?;
    b.emit(exec, Class::Move, |i| {
        i.dst = d;
        i.src[0] = x;
        i.src[1] = y;
        i.src[2] = p;
        i.imm = u64::from(flip);
    });
    Ok(())
}

fn slct(b: &mut Builder, f: &Form) -> Res {
    let types = f.types();
    let [d, c] = types[..] else {
        return f.refuse("two types are expected");
    };
    f.has("ftz");
    let e = match (d.bytes(), c) {
        (2 | 4, Ty::S32) => tri(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
        (2 | 4, Ty::F32) => tri(|a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b }),
        (8, Ty::S32) => tri(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        (8, Ty::F32) => tri(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b }),
        _ => return f.refuse("these types are not supported"),
    };
    mixed(b, f, Class::Move, e, d, &[d, d, c])
}
