//! Logic, shifts, bit fields and byte permutation.

use super::Decode;
use super::operands::{mixed, uniform};
use super::shapes::{bin, field, tri, tri_imm, un};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Ins, choice, immediate};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("and", and),
    ("or", or),
    ("xor", xor),
    ("not", not),
    ("cnot", cnot),
    ("lop3", lop3),
    ("shl", shl),
    ("shr", shr),
    ("shf", shf),
    ("bfe", bfe),
    ("bfi", bfi),
    ("bfind", bfind),
    ("brev", brev),
    ("clz", clz),
    ("popc", popc),
    ("prmt", prmt),
    ("fns", fns),
    ("bmsk", bmsk),
    ("szext", szext),
];

choice! {
    enum Logic {
        And = "and",
        Or = "or",
        Xor = "xor",
        Not = "not",
    }
}

immediate! {
    /// Logic on the predicates in `src`.
    struct PredLogic {
        operation: Logic [2],
        negate_a: bool [1],
        negate_b: bool [1],
    }
}

fn pred_logic(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let logic = PredLogic::unpack(i.imm);
    let source =
        |pred: u32, negate: bool| cx.warp.preds[pred as usize] ^ if negate { !0 } else { 0 };
    let (a, b) = (
        source(i.src[0], logic.negate_a),
        source(i.src[1], logic.negate_b),
    );
    let r = match logic.operation {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
        Logic::Not => !a,
    };
    let d = &mut cx.warp.preds[i.dst as usize];
    *d = *d & !m | r & m;
}

fn predicates(b: &mut Builder, f: &Form, operation: Logic) -> Res {
    let unary = operation == Logic::Not;
    let ops = f.operands(if unary { 2 } else { 3 })?;
    let (first, flip_a) = b.pred(f, &ops[1])?;
    let (second, flip_b) = if unary {
        (first, 0)
    } else {
        b.pred(f, &ops[2])?
    };
    let d = b.pred_dst(f, &ops[0])?;
    let logic = PredLogic {
        operation,
        negate_a: flip_a != 0,
        negate_b: flip_b != 0,
    };
    b.emit(pred_logic, Class::Integer, |i| {
        i.dst = d;
        i.src = [first, second, 0];
        i.imm = logic.pack();
    });
    Ok(())
}

macro_rules! logic {
    ($name:ident, $code:expr, $op:tt) => {
        fn $name(b: &mut Builder, f: &Form) -> Res {
            match f.ty()? {
                Ty::Pred => predicates(b, f, $code),
                t @ Ty::B16 => uniform(b, f, 2, t, Class::Integer, bin(|a: u16, b: u16| a $op b)),
                t @ Ty::B32 => uniform(b, f, 2, t, Class::Integer, bin(|a: u32, b: u32| a $op b)),
                t @ Ty::B64 => uniform(b, f, 2, t, Class::Integer, bin(|a: u64, b: u64| a $op b)),
                _ => f.refuse(".pred, .b16, .b32 or .b64 is expected"),
            }
        }
    };
}

logic!(and, Logic::And, &);
logic!(or, Logic::Or, |);
logic!(xor, Logic::Xor, ^);

fn not(b: &mut Builder, f: &Form) -> Res {
    match f.ty()? {
        Ty::Pred => predicates(b, f, Logic::Not),
        t @ Ty::B16 => uniform(b, f, 1, t, Class::Integer, un(|a: u16| !a)),
        t @ Ty::B32 => uniform(b, f, 1, t, Class::Integer, un(|a: u32| !a)),
        t @ Ty::B64 => uniform(b, f, 1, t, Class::Integer, un(|a: u64| !a)),
        _ => f.refuse(".pred, .b16, .b32 or .b64 is expected"),
    }
}

fn cnot(b: &mut Builder, f: &Form) -> Res {
    match f.ty()? {
        t @ Ty::B16 => uniform(b, f, 1, t, Class::Integer, un(|a: u16| u16::from(a == 0))),
        t @ Ty::B32 => uniform(b, f, 1, t, Class::Integer, un(|a: u32| u32::from(a == 0))),
        t @ Ty::B64 => uniform(b, f, 1, t, Class::Integer, un(|a: u64| u64::from(a == 0))),
        _ => f.refuse(".b16, .b32 or .b64 is expected"),
    }
}

/// The truth table of three bits applied to words.
#[inline(always)]
fn lut(a: u32, b: u32, c: u32, table: u64) -> u32 {
    let mut r = 0;
    for k in 0..8u32 {
        let on = (table >> k & 1) as u32;
        let x = if k & 4 != 0 { a } else { !a };
        let y = if k & 2 != 0 { b } else { !b };
        let z = if k & 1 != 0 { c } else { !c };
        r |= on.wrapping_neg() & x & y & z;
    }
    r
}

fn lop3(b: &mut Builder, f: &Form) -> Res {
    if f.ty()? != Ty::B32 {
        return f.refuse(".b32 is expected");
    }
    let ops = f.operands(5)?;
    let Operand::Int(table) = ops[4] else {
        return f.refuse("the truth table must be a number");
    };
    let mut regs = [0; 3];
    for (reg, op) in regs.iter_mut().zip(&ops[1..4]) {
        *reg = b.src(f, op, Ty::B32)?;
    }
    let d = b.dst(f, &ops[0], Ty::B32)?;
    b.emit(tri_imm(lut), Class::Integer, |i| {
        i.dst = d;
        i.src = regs;
        i.imm = table;
    });
    Ok(())
}

fn shl(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match t {
        Ty::B16 => bin(|a: u16, n: u32| if n < 16 { a << n } else { 0 }),
        Ty::B32 => bin(|a: u32, n: u32| if n < 32 { a << (n & 31) } else { 0 }),
        Ty::B64 => bin(|a: u64, n: u32| if n < 64 { a << (n & 63) } else { 0 }),
        _ => return f.refuse(".b16, .b32 or .b64 is expected"),
    };
    mixed(b, f, Class::Integer, e, t, &[t, Ty::U32])
}

fn shr(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match t {
        Ty::B16 | Ty::U16 => bin(|a: u16, n: u32| if n < 16 { a >> n } else { 0 }),
        Ty::B32 | Ty::U32 => bin(|a: u32, n: u32| if n < 32 { a >> (n & 31) } else { 0 }),
        Ty::B64 | Ty::U64 => bin(|a: u64, n: u32| if n < 64 { a >> (n & 63) } else { 0 }),
        Ty::S16 => bin(|a: i16, n: u32| a >> n.min(15)),
        Ty::S32 => bin(|a: i32, n: u32| a >> n.min(31)),
        Ty::S64 => bin(|a: i64, n: u32| a >> n.min(63)),
        _ => return f.refuse("an integer or bit type is expected"),
    };
    mixed(b, f, Class::Integer, e, t, &[t, Ty::U32])
}

#[inline(always)]
fn join(lo: u32, hi: u32) -> u64 {
    u64::from(hi) << 32 | u64::from(lo)
}

fn shf(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    if t != Ty::B32 {
        return f.refuse(".b32 is expected");
    }
    let e = match (f.pick(&["l", "r"]), f.pick(&["clamp", "wrap"])) {
        (Some(0), Some(0)) => tri(|a: u32, b: u32, n: u32| (join(a, b) << n.min(32) >> 32) as u32),
        (Some(0), Some(_)) => tri(|a: u32, b: u32, n: u32| (join(a, b) << (n & 31) >> 32) as u32),
        (Some(_), Some(0)) => tri(|a: u32, b: u32, n: u32| (join(a, b) >> n.min(32)) as u32),
        (Some(_), Some(_)) => tri(|a: u32, b: u32, n: u32| (join(a, b) >> (n & 31)) as u32),
        _ => return f.refuse(".l or .r and .clamp or .wrap are expected"),
    };
    uniform(b, f, 3, t, Class::Integer, e)
}

/// `len` bits of `a` from `pos`, sign-extended from the last bit that exists.
#[inline(always)]
fn extract(a: u64, width: u32, signed: bool, pos: u32, len: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    let all = if width == 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    };
    if len == 0 {
        return 0;
    }
    let sign = signed && a >> (pos + len - 1).min(width - 1) & 1 == 1;
    let field = if pos < width { (a & all) >> pos } else { 0 };
    let kept = len.min(width.saturating_sub(pos));
    let low = if kept >= 64 {
        u64::MAX
    } else {
        (1u64 << kept) - 1
    };
    (if sign {
        field & low | !low
    } else {
        field & low
    }) & all
}

fn bfe(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match t {
        Ty::U32 => tri(|a: u32, p: u32, l: u32| extract(a.into(), 32, false, p, l) as u32),
        Ty::S32 => tri(|a: u32, p: u32, l: u32| extract(a.into(), 32, true, p, l) as u32),
        Ty::U64 => tri(|a: u64, p: u32, l: u32| extract(a, 64, false, p, l)),
        Ty::S64 => tri(|a: u64, p: u32, l: u32| extract(a, 64, true, p, l)),
        _ => return f.refuse("a 32-bit or 64-bit integer type is expected"),
    };
    mixed(b, f, Class::Integer, e, t, &[t, Ty::U32, Ty::U32])
}

#[inline(always)]
fn insert(a: u64, b: u64, width: u32, pos: u32, len: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= width || len == 0 {
        return b;
    }
    let n = len.min(width - pos);
    let low = if n >= 64 { u64::MAX } else { (1u64 << n) - 1 };
    b & !(low << pos) | (a & low) << pos
}

/// Emits an instruction of four sources; the last register goes into `list`.
fn four(b: &mut Builder, f: &Form, exec: crate::machine::Exec, t: Ty) -> Res {
    let ops = f.operands(5)?;
    let (x, y) = (b.src(f, &ops[1], t)?, b.src(f, &ops[2], t)?);
    let (p, l) = (b.src(f, &ops[3], Ty::U32)?, b.src(f, &ops[4], Ty::U32)?);
    let d = b.dst(f, &ops[0], t)?;
    b.emit(exec, Class::Integer, |i| {
        i.dst = d;
        i.src = [x, y, p];
        i.list = l;
    });
    Ok(())
}

fn bfi(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    match t {
        Ty::B32 => four(
            b,
            f,
            field(|a: u32, b: u32, p, l| insert(a.into(), b.into(), 32, p, l) as u32),
            t,
        ),
        Ty::B64 => four(
            b,
            f,
            field(|a: u64, b: u64, p, l| insert(a, b, 64, p, l)),
            t,
        ),
        _ => f.refuse(".b32 or .b64 is expected"),
    }
}

fn bfind(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match (t, f.has("shiftamt")) {
        (Ty::U32, false) => un(|a: u32| 31u32.wrapping_sub(a.leading_zeros())),
        (Ty::S32, false) => un(|a: i32| 31u32.wrapping_sub((a ^ a >> 31).leading_zeros())),
        (Ty::U64, false) => un(|a: u64| 63u32.wrapping_sub(a.leading_zeros())),
        (Ty::S64, false) => un(|a: i64| 63u32.wrapping_sub((a ^ a >> 63).leading_zeros())),
        (Ty::U32, true) => un(|a: u32| if a == 0 { !0 } else { a.leading_zeros() }),
        (Ty::S32, true) => un(|a: i32| {
            if a ^ a >> 31 == 0 {
                !0
            } else {
                (a ^ a >> 31).leading_zeros()
            }
        }),
        (Ty::U64, true) => un(|a: u64| if a == 0 { !0 } else { a.leading_zeros() }),
        (Ty::S64, true) => un(|a: i64| {
            if a ^ a >> 63 == 0 {
                !0
            } else {
                (a ^ a >> 63).leading_zeros()
            }
        }),
        _ => return f.refuse("a 32-bit or 64-bit integer type is expected"),
    };
    mixed(b, f, Class::Integer, e, Ty::U32, &[t])
}

fn brev(b: &mut Builder, f: &Form) -> Res {
    match f.ty()? {
        t @ Ty::B32 => uniform(b, f, 1, t, Class::Integer, un(u32::reverse_bits)),
        t @ Ty::B64 => uniform(b, f, 1, t, Class::Integer, un(u64::reverse_bits)),
        _ => f.refuse(".b32 or .b64 is expected"),
    }
}

fn clz(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match t {
        Ty::B32 => un(u32::leading_zeros),
        Ty::B64 => un(u64::leading_zeros),
        _ => return f.refuse(".b32 or .b64 is expected"),
    };
    mixed(b, f, Class::Integer, e, Ty::U32, &[t])
}

fn popc(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match t {
        Ty::B32 => un(u32::count_ones),
        Ty::B64 => un(u64::count_ones),
        _ => return f.refuse(".b32 or .b64 is expected"),
    };
    mixed(b, f, Class::Integer, e, Ty::U32, &[t])
}

#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let all = join(a, b);
    let mut r = 0;
    for i in 0..4 {
        let s = selector >> (i * 4) & 15;
        let byte = (all >> ((s & 7) * 8)) as u8;
        let byte = if s & 8 != 0 {
            ((byte as i8) >> 7) as u8
        } else {
            byte
        };
        r |= u32::from(byte) << (i * 8);
    }
    r
}

/// The named modes as selectors, by the low two bits of the third operand.
#[inline(always)]
fn permute_mode<const MODE: u8>(a: u32, b: u32, c: u32) -> u32 {
    let n = (c & 3) as usize;
    let selector = match MODE {
        0 => [0x3210, 0x4321, 0x5432, 0x6543][n],
        1 => [0x5670, 0x6701, 0x7012, 0x0123][n],
        2 => [0x0000, 0x1111, 0x2222, 0x3333][n],
        3 => [0x3210, 0x3211, 0x3222, 0x3333][n],
        4 => [0x0000, 0x1110, 0x2210, 0x3210][n],
        _ => [0x1010, 0x3232, 0x1010, 0x3232][n],
    };
    permute(a, b, selector)
}

fn prmt(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    if t != Ty::B32 {
        return f.refuse(".b32 is expected");
    }
    let e = match f.pick(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]) {
        None => tri(permute),
        Some(0) => tri(permute_mode::<0>),
        Some(1) => tri(permute_mode::<1>),
        Some(2) => tri(permute_mode::<2>),
        Some(3) => tri(permute_mode::<3>),
        Some(4) => tri(permute_mode::<4>),
        Some(_) => tri(permute_mode::<5>),
    };
    uniform(b, f, 3, t, Class::Integer, e)
}

/// The position of the `offset`-th set bit of `mask` from `base`, up or down.
#[inline(always)]
fn nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    let set = |i: i32| (0..32).contains(&i) && mask >> i & 1 == 1;
    let mut i = base as i32;
    if offset == 0 {
        return if set(i) { base } else { !0 };
    }
    let step = offset.signum();
    let mut left = offset.unsigned_abs();
    while (0..32).contains(&i) {
        if set(i) {
            left -= 1;
            if left == 0 {
                return i as u32;
            }
        }
        i += step;
    }
    !0
}

fn fns(b: &mut Builder, f: &Form) -> Res {
    if f.ty()? != Ty::B32 {
        return f.refuse(".b32 is expected");
    }
    mixed(
        b,
        f,
        Class::Integer,
        tri(|m: u32, base: u32, n: i32| nth_set(m, base, n)),
        Ty::B32,
        &[Ty::B32, Ty::B32, Ty::S32],
    )
}

#[inline(always)]
fn mask_of(a: u32, n: u32) -> u32 {
    let (a, n) = (u64::from(a.min(32)), u64::from(n.min(32)));
    (((1u64 << n) - 1) << a) as u32
}

fn bmsk(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let e = match f.pick(&["clamp", "wrap"]) {
        Some(0) => bin(mask_of),
        Some(_) => bin(|a: u32, n: u32| mask_of(a & 31, n & 31)),
        None => return f.refuse(".clamp or .wrap is expected"),
    };
    if t != Ty::B32 {
        return f.refuse(".b32 is expected");
    }
    uniform(b, f, 2, t, Class::Integer, e)
}

#[inline(always)]
fn extend<const SIGNED: bool>(a: u32, n: u32) -> u32 {
    if n == 0 {
        return 0;
    }
    if n >= 32 {
        return a;
    }
    let up = a << (32 - n);
    if SIGNED {
        (up as i32 >> (32 - n)) as u32
    } else {
        up >> (32 - n)
    }
}

fn szext(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let wrap = match f.pick(&["clamp", "wrap"]) {
        Some(m) => m == 1,
        None => return f.refuse(".clamp or .wrap is expected"),
    };
    let e = match (t, wrap) {
        (Ty::U32, false) => bin(extend::<false>),
        (Ty::U32, true) => bin(|a: u32, n: u32| extend::<false>(a, n & 31)),
        (Ty::S32, false) => bin(extend::<true>),
        (Ty::S32, true) => bin(|a: u32, n: u32| extend::<true>(a, n & 31)),
        _ => return f.refuse(".u32 or .s32 is expected"),
    };
    uniform(b, f, 2, t, Class::Integer, e)
}
