//! Exchange and votes inside a warp: shfl, vote, match, redux, activemask, elect.

use super::Decode;
use crate::checks::FaultKind;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, lanes_of};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("shfl", shfl),
    ("vote", vote),
    ("match", matches),
    ("redux", redux),
    ("activemask", activemask),
    ("elect", elect),
];

/// The members each lane names, after all of them are here. `None` when they are not, or on a fault.
pub fn members(cx: &mut Cx<'_>, reg: u32, m: u32) -> Option<[u32; 32]> {
    if m == 0 {
        return None;
    }
    let named = cx.warp.regs.all::<u32>(reg);
    let mut union = 0;
    for lane in lanes_of(m) {
        if named[lane] >> lane & 1 == 0 {
            cx.fail(
                FaultKind::DivergentSync,
                lane as u32,
                format!(
                    "the member mask {:#010x} does not name the executing lane {lane}",
                    named[lane]
                ),
            );
            return None;
        }
        union |= named[lane];
    }
    cx.converged(m, union, false).then_some(named)
}

/// `imm`: 0 up, 1 down, 2 bfly, 3 idx; bit 8: there is a predicate in `list` low half; the members are in its high half.
fn shuffle(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.list, m) else {
        return;
    };
    let (a, b, c) = (
        cx.warp.regs.all::<u32>(i.src[0]),
        cx.warp.regs.all::<u32>(i.src[1]),
        cx.warp.regs.all::<u32>(i.src[2]),
    );
    let mode = i.imm & 3;
    let mut d = [0u32; 32];
    let mut valid = 0;
    for lane in lanes_of(m) {
        let n = b[lane] & 31;
        let (clamp, seg) = (c[lane] & 31, c[lane] >> 8 & 31);
        let me = lane as u32;
        let max = (me & seg) | (clamp & !seg & 31);
        let min = me & seg;
        let (j, ok) = match mode {
            0 => {
                let j = me as i32 - n as i32;
                (j, j >= max as i32)
            }
            1 => ((me + n) as i32, me + n <= max),
            2 => ((me ^ n) as i32, me ^ n <= max),
            _ => {
                let j = min | (n & !seg & 31);
                (j as i32, j <= max)
            }
        };
        let from = if ok { j as u32 & 31 } else { me };
        if m >> from & 1 == 0 || named[lane] >> from & 1 == 0 {
            if cx.env.checks {
                let why = format!(
                    "lane {lane} reads lane {from}, which does not take part (members {:#010x}, executing {m:#010x})",
                    named[lane]
                );
                return cx.fail(FaultKind::DivergentSync, me, why);
            }
            d[lane] = a[lane];
        } else {
            d[lane] = a[from as usize];
        }
        valid |= u32::from(ok) << lane;
    }
    cx.warp.regs.put::<u32>(i.dst, m, &d);
    if i.imm >> 8 & 1 == 1 {
        let p = &mut cx.warp.preds[(i.imm >> 16) as usize];
        *p = *p & !m | valid & m;
    }
}

fn shfl(b: &mut Builder, f: &Form) -> Res {
    f.types();
    let sync = f.has("sync");
    let Some(mode) = f.pick(&["up", "down", "bfly", "idx"]) else {
        return f.refuse("a mode is expected");
    };
    if !sync {
        return f.refuse("only the .sync form is supported");
    }
    let ops = f.operands(5)?;
    let mut regs = [0; 3];
    for (reg, op) in regs.iter_mut().zip(&ops[1..4]) {
        *reg = b.src(f, op, Ty::B32)?;
    }
    let named = b.src(f, &ops[4], Ty::B32)?;
    let (d, p) = match &ops[0] {
        Operand::Pair(d, p) => (b.dst(f, d, Ty::B32)?, Some(b.pred_dst(f, p)?)),
        d => (b.dst(f, d, Ty::B32)?, None),
    };
    b.emit(shuffle, Class::WarpExchange, |i| {
        i.dst = d;
        i.src = regs;
        i.list = named;
        i.imm = mode as u64 | u64::from(p.is_some()) << 8 | u64::from(p.unwrap_or(0)) << 16;
    });
    Ok(())
}

/// `imm`: 0 all, 1 any, 2 uni, 3 ballot; bit 8 negates predicate `a`.
fn ballot(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.src[1], m) else {
        return;
    };
    let p = cx.warp.preds[i.src[0] as usize] ^ if i.imm >> 8 & 1 == 1 { !0 } else { 0 };
    let mut out = 0;
    let mut d = [0u32; 32];
    for lane in lanes_of(m) {
        let group = named[lane] & m;
        let yes = p & group;
        d[lane] = yes;
        let r = match i.imm & 3 {
            0 => yes == group,
            1 => yes != 0,
            _ => yes == 0 || yes == group,
        };
        out |= u32::from(r) << lane;
    }
    if i.imm & 3 == 3 {
        cx.warp.regs.put::<u32>(i.dst, m, &d);
    } else {
        let p = &mut cx.warp.preds[i.dst as usize];
        *p = *p & !m | out;
    }
}

fn vote(b: &mut Builder, f: &Form) -> Res {
    f.types();
    if !f.has("sync") {
        return f.refuse("only the .sync form is supported");
    }
    let Some(mode) = f.pick(&["all", "any", "uni", "ballot"]) else {
        return f.refuse("a mode is expected");
    };
    let ops = f.operands(3)?;
    let (p, flip) = b.pred(f, &ops[1])?;
    let named = b.src(f, &ops[2], Ty::B32)?;
    let d = if mode == 3 {
        b.dst(f, &ops[0], Ty::B32)?
    } else {
        b.pred_dst(f, &ops[0])?
    };
    b.emit(ballot, Class::WarpExchange, |i| {
        i.dst = d;
        i.src[0] = p;
        i.src[1] = named;
        i.imm = mode as u64 | u64::from(flip & 1) << 8;
    });
    Ok(())
}

/// `imm`: bit 0 all (else any), bit 1 64-bit values, bit 8 a predicate, its index above bit 16.
fn match_lanes(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.src[1], m) else {
        return;
    };
    let value = |cx: &Cx<'_>, lane: usize| {
        if i.imm >> 1 & 1 == 1 {
            cx.warp.regs.get::<u64>(i.src[0], lane)
        } else {
            u64::from(cx.warp.regs.get::<u32>(i.src[0], lane))
        }
    };
    let mut d = [0u32; 32];
    let mut all = 0;
    for lane in lanes_of(m) {
        let mine = value(cx, lane);
        let group = named[lane] & m;
        let same = lanes_of(group)
            .filter(|&l| value(cx, l) == mine)
            .fold(0u32, |s, l| s | 1 << l);
        if i.imm & 1 == 1 {
            d[lane] = if same == group { group } else { 0 };
            all |= u32::from(same == group) << lane;
        } else {
            d[lane] = same;
        }
    }
    cx.warp.regs.put::<u32>(i.dst, m, &d);
    if i.imm >> 8 & 1 == 1 {
        let p = &mut cx.warp.preds[(i.imm >> 16) as usize];
        *p = *p & !m | all;
    }
}

fn matches(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    f.has("sync");
    let Some(mode) = f.pick(&["any", "all"]) else {
        return f.refuse(".any or .all is expected");
    };
    let ops = f.operands(3)?;
    let a = b.src(f, &ops[1], t)?;
    let named = b.src(f, &ops[2], Ty::B32)?;
    let (d, p) = match &ops[0] {
        Operand::Pair(d, p) => (b.dst(f, d, Ty::B32)?, Some(b.pred_dst(f, p)?)),
        d => (b.dst(f, d, Ty::B32)?, None),
    };
    b.emit(match_lanes, Class::WarpExchange, |i| {
        i.dst = d;
        i.src[0] = a;
        i.src[1] = named;
        i.imm = mode as u64
            | u64::from(t.bytes() == 8) << 1
            | u64::from(p.is_some()) << 8
            | u64::from(p.unwrap_or(0)) << 16;
    });
    Ok(())
}

/// `imm`: operation, bit 8 signed.
fn reduce(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.src[1], m) else {
        return;
    };
    let a = cx.warp.regs.all::<u32>(i.src[0]);
    let mut d = [0u32; 32];
    for lane in lanes_of(m) {
        let values = lanes_of(named[lane] & m).map(|l| a[l]);
        let signed = i.imm >> 8 & 1 == 1;
        let r = values.reduce(|x, y| match (i.imm & 0xff, signed) {
            (0, _) => x.wrapping_add(y),
            (1, false) => x.min(y),
            (1, true) => (x as i32).min(y as i32) as u32,
            (2, false) => x.max(y),
            (2, true) => (x as i32).max(y as i32) as u32,
            (3, _) => x & y,
            (4, _) => x | y,
            _ => x ^ y,
        });
        d[lane] = r.unwrap_or(0);
    }
    cx.warp.regs.put::<u32>(i.dst, m, &d);
}

fn redux(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    f.has("sync");
    let Some(op) = f.pick(&["add", "min", "max", "and", "or", "xor"]) else {
        return f.refuse("an operation is expected");
    };
    if !matches!(t, Ty::U32 | Ty::S32 | Ty::B32) {
        return f.refuse("a 32-bit integer type is expected");
    }
    let ops = f.operands(3)?;
    let a = b.src(f, &ops[1], t)?;
    let named = b.src(f, &ops[2], Ty::B32)?;
    let d = b.dst(f, &ops[0], t)?;
    b.emit(reduce, Class::WarpExchange, |i| {
        i.dst = d;
        i.src[0] = a;
        i.src[1] = named;
        i.imm = op as u64 | u64::from(t.signed()) << 8;
    });
    Ok(())
}

fn active(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    cx.warp.regs.put::<u32>(i.dst, m, &[m; 32]);
}

fn activemask(b: &mut Builder, f: &Form) -> Res {
    f.types();
    let ops = f.operands(1)?;
    let d = b.dst(f, &ops[0], Ty::B32)?;
    b.emit(active as Exec, Class::WarpExchange, |i| i.dst = d);
    Ok(())
}

/// The lowest member leads.
fn lead(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.src[0], m) else {
        return;
    };
    let mut d = [0u32; 32];
    let mut leads = 0;
    for lane in lanes_of(m) {
        let leader = (named[lane] & m).trailing_zeros();
        d[lane] = leader;
        leads |= u32::from(leader == lane as u32) << lane;
    }
    cx.warp.regs.put::<u32>(i.dst, m, &d);
    let p = &mut cx.warp.preds[i.src[1] as usize];
    *p = *p & !m | leads;
}

fn elect(b: &mut Builder, f: &Form) -> Res {
    f.has("sync");
    let ops = f.operands(2)?;
    let named = b.src(f, &ops[1], Ty::B32)?;
    let Operand::Pair(d, p) = &ops[0] else {
        return f.refuse("d|p is expected");
    };
    let (d, p) = (b.dst(f, d, Ty::B32)?, b.pred_dst(f, p)?);
    b.emit(lead, Class::WarpExchange, |i| {
        i.dst = d;
        i.src[0] = named;
        i.src[1] = p;
    });
    Ok(())
}
