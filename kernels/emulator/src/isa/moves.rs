//! mov, packing and unpacking, cvta, isspacep.

use super::Decode;
use super::shapes::un;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Ins, immediate, lanes_of};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_SHIFT};
use crate::ptx::tree::Operand;
use crate::types::{Space, Ty};

pub const DEFS: &[(&str, Decode)] = &[
    ("mov", mov),
    ("cvta", cvta),
    ("isspacep", isspacep),
    ("nanosleep", nothing),
];

#[inline(always)]
fn same<T>(x: T) -> T {
    x
}

/// Predicate `src[0]` into `dst`; all ones in `imm` negate it.
fn move_pred(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let v = cx.warp.preds[i.src[0] as usize] ^ i.imm as u32;
    let d = &mut cx.warp.preds[i.dst as usize];
    *d = *d & !m | v & m;
}

immediate! {
    /// A move between one register and its parts, which are in `list`, low to high.
    struct Parts {
        /// Of a part.
        bits: u32 [6],
        /// The one register has 64 bits.
        wide: bool [1],
    }
}

/// `mov.b64 d, {a, b}`
fn join(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let prog = cx.env.program;
    let parts = &prog.lists[i.list as usize];
    let Parts { bits, wide } = Parts::unpack(i.imm);
    for lane in lanes_of(m) {
        let mut v = 0u64;
        for (k, &reg) in parts.iter().enumerate() {
            let part = u64::from(cx.warp.regs.get::<u32>(reg, lane)) & ((1 << bits) - 1);
            v |= part << (k as u32 * bits);
        }
        cx.warp.regs.set_bits(i.dst, lane, wide, v);
    }
}

/// `mov.b64 {d, e}, a`
fn split(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let prog = cx.env.program;
    let parts = &prog.lists[i.list as usize];
    let Parts { bits, wide } = Parts::unpack(i.imm);
    for lane in lanes_of(m) {
        let v = cx.warp.regs.get_bits(i.src[0], lane, wide);
        for (k, &reg) in parts.iter().enumerate() {
            let part = v >> (k as u32 * bits) & ((1 << bits) - 1);
            cx.warp.regs.set::<u32>(reg, lane, part as u32);
        }
    }
}

/// Both halves of a 128-bit register, from or to another one or two of 64 bits.
fn mov_128(b: &mut Builder, f: &Form, to: &Operand, from: &Operand) -> Res {
    let side = |b: &Builder, op: &Operand| match op {
        Operand::Vector(parts) if parts.len() == 2 => Ok([parts[0].clone(), parts[1].clone()]),
        _ => match b.halves(op) {
            Some(parts) => Ok(parts),
            None => f.refuse("a 128-bit register or two of 64 bits are expected"),
        },
    };
    let (to, from) = (side(b, to)?, side(b, from)?);
    let sources = [b.src(f, &from[0], Ty::B64)?, b.src(f, &from[1], Ty::B64)?];
    let d = [b.dst(f, &to[0], Ty::B64)?, b.dst(f, &to[1], Ty::B64)?];
    let rest = b.list(vec![d[1]]);
    b.emit(move_pair, Class::Move, |i| {
        i.dst = d[0];
        i.src = [sources[0], sources[1], 0];
        i.list = rest;
    });
    Ok(())
}

/// Two 64-bit registers into `dst` and the one in `list`.
fn move_pair(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let high_to = cx.env.program.lists[i.list as usize][0];
    let (low, high) = (
        cx.warp.regs.all::<u64>(i.src[0]),
        cx.warp.regs.all::<u64>(i.src[1]),
    );
    cx.warp.regs.put::<u64>(i.dst, m, &low);
    cx.warp.regs.put::<u64>(high_to, m, &high);
}

fn mov(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let ops = f.operands(2)?;
    if t == Ty::B128 {
        return mov_128(b, f, &ops[0], &ops[1]);
    }
    match (&ops[0], &ops[1]) {
        (_, _) if t == Ty::Pred => {
            let (p, flip) = b.pred(f, &ops[1])?;
            let d = b.pred_dst(f, &ops[0])?;
            b.emit(move_pred, Class::Move, |i| {
                i.dst = d;
                i.src[0] = p;
                i.imm = u64::from(flip);
            });
        }
        (_, Operand::Vector(parts)) => {
            let each = part(f, t, parts)?;
            let mut regs = Vec::new();
            for p in parts {
                regs.push(b.src(f, p, each)?);
            }
            let d = b.dst(f, &ops[0], t)?;
            let list = b.list(regs);
            b.emit(join, Class::Move, |i| {
                i.dst = d;
                i.list = list;
                i.imm = parts_of(t, each).pack();
            });
        }
        (Operand::Vector(parts), _) => {
            let each = part(f, t, parts)?;
            let a = b.src(f, &ops[1], t)?;
            let mut regs = Vec::new();
            for p in parts {
                regs.push(b.dst(f, p, each)?);
            }
            let list = b.list(regs);
            b.emit(split, Class::Move, |i| {
                i.src[0] = a;
                i.list = list;
                i.imm = parts_of(t, each).pack();
            });
        }
        _ => {
            if t.bytes() == 16 {
                return f.refuse("128-bit moves are not supported");
            }
            let a = b.src(f, &ops[1], t)?;
            let d = b.dst(f, &ops[0], t)?;
            let exec = if t.bytes() == 8 {
                un(same::<u64>)
            } else {
                un(same::<u32>)
            };
            b.emit(exec, Class::Move, |i| {
                i.dst = d;
                i.src[0] = a;
            })
            .copies = true;
        }
    }
    Ok(())
}

fn parts_of(t: Ty, each: Ty) -> Parts {
    Parts {
        bits: each.bytes() * 8,
        wide: t.bytes() == 8,
    }
}

/// The type of the parts of a packed move.
fn part(f: &Form, t: Ty, parts: &[Operand]) -> Res<Ty> {
    match (t.bytes(), parts.len()) {
        (4, 2) | (8, 4) => Ok(Ty::B16),
        (8, 2) => Ok(Ty::B32),
        _ => f.refuse(format!(
            "packing {} parts into {} bytes is not supported",
            parts.len(),
            t.bytes()
        )),
    }
}

fn window(space: Space) -> Option<u64> {
    match space {
        Space::Global | Space::Const => Some(0),
        Space::Shared => Some(SHARED_WINDOW),
        Space::Local => Some(LOCAL_WINDOW),
        Space::Param => Some(PARAM_WINDOW),
    }
}

fn space_of(f: &Form) -> Option<Space> {
    ["global", "shared", "shared::cta", "local", "const", "param"]
        .into_iter()
        .find(|s| f.has(s))
        .and_then(Space::parse)
}

fn cvta(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    if t.bytes() != 8 {
        return f.refuse("only 64-bit addresses are supported");
    }
    let back = f.has("to");
    let Some(base) = space_of(f).and_then(window) else {
        return f.refuse("a state space is expected");
    };
    let ops = f.operands(2)?;
    let a = b.src(f, &ops[1], t)?;
    let d = b.dst(f, &ops[0], t)?;
    let exec = match (base, back) {
        (0, _) => un(same::<u64>),
        (_, true) => un(|a: u64| a & ((1 << WINDOW_SHIFT) - 1)),
        (SHARED_WINDOW, false) => un(|a: u64| a | SHARED_WINDOW),
        (LOCAL_WINDOW, false) => un(|a: u64| a | LOCAL_WINDOW),
        _ => un(|a: u64| a | PARAM_WINDOW),
    };
    b.emit(exec, Class::Integer, |i| {
        i.dst = d;
        i.src[0] = a;
    });
    Ok(())
}

fn isspacep(b: &mut Builder, f: &Form) -> Res {
    use super::shapes::cmp;
    let Some(space) = space_of(f) else {
        return f.refuse("a state space is expected");
    };
    let ops = f.operands(2)?;
    let a = b.src(f, &ops[1], Ty::U64)?;
    let exec = match space {
        Space::Shared => cmp(|a: u64, _: u64| a >> WINDOW_SHIFT == 1),
        Space::Local => cmp(|a: u64, _: u64| a >> WINDOW_SHIFT == 2),
        Space::Param => cmp(|a: u64, _: u64| a >> WINDOW_SHIFT == 3),
        Space::Global => cmp(|a: u64, _: u64| a >> WINDOW_SHIFT == 0),
        _ => return f.refuse("constant and global addresses have one address range here"),
    };
    let d = b.pred_dst(f, &ops[0])?;
    b.emit(exec, Class::Compare, |i| {
        i.dst = d;
        i.src[0] = a;
        i.src[1] = a;
    });
    Ok(())
}

fn no_op(_: &mut Cx<'_>, _: &Ins, _: u32) {}

fn nothing(b: &mut Builder, f: &Form) -> Res {
    f.only_type(Ty::U32, "u32")?;
    f.operands(1)?;
    b.emit(no_op, Class::Other, |_| {});
    Ok(())
}
