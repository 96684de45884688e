//! Exchange and votes inside a warp: shfl, vote, match, redux, activemask, elect.

use super::Decode;
use crate::checks::FaultKind;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, choice, immediate, lanes_of};
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

/// The members each lane names, after all of them are here. `None` when they are not, or on a
/// fault.
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

choice! {
    enum ShuffleMode {
        Up = "up",
        Down = "down",
        Butterfly = "bfly",
        Index = "idx",
    }
}

impl ShuffleMode {
    /// The source lane of `lane`, and whether it is in range. `n` and `c` are the last two
    /// operands.
    fn source(self, lane: u32, n: u32, c: u32) -> (u32, bool) {
        let n = n & 31;
        let (clamp, segment) = (c & 31, c >> 8 & 31);
        let max = (lane & segment) | (clamp & !segment & 31);
        let min = lane & segment;
        match self {
            ShuffleMode::Up => {
                let from = lane as i32 - n as i32;
                (from as u32, from >= max as i32)
            }
            ShuffleMode::Down => (lane + n, lane + n <= max),
            ShuffleMode::Butterfly => (lane ^ n, lane ^ n <= max),
            ShuffleMode::Index => {
                let from = min | (n & !segment & 31);
                (from, from <= max)
            }
        }
    }
}

immediate! {
    /// `shfl`. `src`: the value and the two other operands; `list`: the register of the members.
    struct Shuffle {
        mode: ShuffleMode [2],
        /// Predicate that takes whether the source lane was in range; 0 is none.
        valid: u32 [32],
    }
}

/// Writes `bits` into the lanes of `mask` of a predicate; number 0 stands for none.
fn set_pred(cx: &mut Cx<'_>, pred: u32, mask: u32, bits: u32) {
    if pred != 0 {
        let p = &mut cx.warp.preds[pred as usize];
        *p = *p & !mask | bits & mask;
    }
}

fn shuffle(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.list, m) else {
        return;
    };
    let Shuffle { mode, valid } = Shuffle::unpack(i.imm);
    let [a, b, c] = i.src.map(|reg| cx.warp.regs.all::<u32>(reg));
    let mut d = [0u32; 32];
    let mut in_range = 0;
    for lane in lanes_of(m) {
        let me = lane as u32;
        let (source, ok) = mode.source(me, b[lane], c[lane]);
        let from = if ok { source & 31 } else { me };
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
        in_range |= u32::from(ok) << lane;
    }
    cx.warp.regs.put::<u32>(i.dst, m, &d);
    set_pred(cx, valid, m, in_range);
}

/// The destinations `d` or `d|p`; predicate 0 is none.
fn value_and_pred(b: &mut Builder, f: &Form, op: &Operand) -> Res<(u32, u32)> {
    match op {
        Operand::Pair(d, p) => Ok((b.dst(f, d, Ty::B32)?, b.pred_dst(f, p)?)),
        d => Ok((b.dst(f, d, Ty::B32)?, 0)),
    }
}

fn shfl(b: &mut Builder, f: &Form) -> Res {
    f.only_type(Ty::B32, "b32")?;
    let sync = f.has("sync");
    let Some(mode) = f.choose::<ShuffleMode>() else {
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
    let (d, valid) = value_and_pred(b, f, &ops[0])?;
    b.emit(shuffle, Class::WarpExchange, |i| {
        i.dst = d;
        i.src = regs;
        i.list = named;
        i.imm = Shuffle { mode, valid }.pack();
    });
    Ok(())
}

choice! {
    enum VoteMode {
        All = "all",
        Any = "any",
        Uniform = "uni",
        Ballot = "ballot",
    }
}

immediate! {
    /// `vote`. `src`: the predicate and the register of the members.
    struct Vote {
        mode: VoteMode [2],
        /// The predicate is negated.
        negated: bool [1],
    }
}

fn ballot(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.src[1], m) else {
        return;
    };
    let vote = Vote::unpack(i.imm);
    let p = cx.warp.preds[i.src[0] as usize] ^ if vote.negated { !0 } else { 0 };
    let mut out = 0;
    let mut d = [0u32; 32];
    for lane in lanes_of(m) {
        let group = named[lane] & m;
        let yes = p & group;
        d[lane] = yes;
        let r = match vote.mode {
            VoteMode::All => yes == group,
            VoteMode::Any => yes != 0,
            VoteMode::Uniform | VoteMode::Ballot => yes == 0 || yes == group,
        };
        out |= u32::from(r) << lane;
    }
    if vote.mode == VoteMode::Ballot {
        cx.warp.regs.put::<u32>(i.dst, m, &d);
    } else {
        let p = &mut cx.warp.preds[i.dst as usize];
        *p = *p & !m | out;
    }
}

fn vote(b: &mut Builder, f: &Form) -> Res {
    if !f.has("sync") {
        return f.refuse("only the .sync form is supported");
    }
    let Some(mode) = f.choose::<VoteMode>() else {
        return f.refuse("a mode is expected");
    };
    if mode == VoteMode::Ballot {
        f.only_type(Ty::B32, "b32")?;
    } else {
        f.only_type(Ty::Pred, "pred")?;
    }
    let ops = f.operands(3)?;
    let (p, flip) = b.pred(f, &ops[1])?;
    let named = b.src(f, &ops[2], Ty::B32)?;
    let d = if mode == VoteMode::Ballot {
        b.dst(f, &ops[0], Ty::B32)?
    } else {
        b.pred_dst(f, &ops[0])?
    };
    b.emit(ballot, Class::WarpExchange, |i| {
        i.dst = d;
        i.src = [p, named, 0];
        i.imm = Vote {
            mode,
            negated: flip != 0,
        }
        .pack();
    });
    Ok(())
}

immediate! {
    /// `match`. `src`: the value and the register of the members.
    struct Match {
        /// `.all`, else `.any`.
        all: bool [1],
        /// 64-bit values.
        wide: bool [1],
        /// Predicate that takes whether all values are the same; 0 is none.
        same: u32 [32],
    }
}

fn match_lanes(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.src[1], m) else {
        return;
    };
    let options = Match::unpack(i.imm);
    let value = |cx: &Cx<'_>, lane: usize| cx.warp.regs.get_bits(i.src[0], lane, options.wide);
    let mut d = [0u32; 32];
    let mut all = 0;
    for lane in lanes_of(m) {
        let mine = value(cx, lane);
        let group = named[lane] & m;
        let same = lanes_of(group)
            .filter(|&l| value(cx, l) == mine)
            .fold(0u32, |s, l| s | 1 << l);
        if options.all {
            d[lane] = if same == group { group } else { 0 };
            all |= u32::from(same == group) << lane;
        } else {
            d[lane] = same;
        }
    }
    cx.warp.regs.put::<u32>(i.dst, m, &d);
    set_pred(cx, options.same, m, all);
}

fn matches(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    if !matches!(t, Ty::B32 | Ty::B64) {
        return f.refuse("the type .b32 or .b64 is expected");
    }
    f.has("sync");
    let Some(mode) = f.pick(&["any", "all"]) else {
        return f.refuse(".any or .all is expected");
    };
    let ops = f.operands(3)?;
    let a = b.src(f, &ops[1], t)?;
    let named = b.src(f, &ops[2], Ty::B32)?;
    let (d, same) = value_and_pred(b, f, &ops[0])?;
    let options = Match {
        all: mode == 1,
        wide: t.bytes() == 8,
        same,
    };
    b.emit(match_lanes, Class::WarpExchange, |i| {
        i.dst = d;
        i.src = [a, named, 0];
        i.imm = options.pack();
    });
    Ok(())
}

choice! {
    enum Reduction {
        Add = "add",
        Min = "min",
        Max = "max",
        And = "and",
        Or = "or",
        Xor = "xor",
    }
}

immediate! {
    /// `redux`. `src`: the value and the register of the members.
    struct Redux {
        operation: Reduction [3],
        signed: bool [1],
    }
}

fn reduce(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let Some(named) = members(cx, i.src[1], m) else {
        return;
    };
    let redux = Redux::unpack(i.imm);
    let a = cx.warp.regs.all::<u32>(i.src[0]);
    let mut d = [0u32; 32];
    for lane in lanes_of(m) {
        let values = lanes_of(named[lane] & m).map(|l| a[l]);
        let r = values.reduce(|x, y| match (redux.operation, redux.signed) {
            (Reduction::Add, _) => x.wrapping_add(y),
            (Reduction::Min, false) => x.min(y),
            (Reduction::Min, true) => (x as i32).min(y as i32) as u32,
            (Reduction::Max, false) => x.max(y),
            (Reduction::Max, true) => (x as i32).max(y as i32) as u32,
            (Reduction::And, _) => x & y,
            (Reduction::Or, _) => x | y,
            (Reduction::Xor, _) => x ^ y,
        });
        d[lane] = r.unwrap_or(0);
    }
    cx.warp.regs.put::<u32>(i.dst, m, &d);
}

fn redux(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    f.has("sync");
    let Some(operation) = f.choose::<Reduction>() else {
        return f.refuse("an operation is expected");
    };
    let logic = matches!(operation, Reduction::And | Reduction::Or | Reduction::Xor);
    match t {
        Ty::B32 if logic => {}
        Ty::U32 | Ty::S32 if !logic => {}
        _ => return f.refuse("the type .u32 or .s32 is expected, for .and, .or and .xor .b32"),
    }
    let ops = f.operands(3)?;
    let a = b.src(f, &ops[1], t)?;
    let named = b.src(f, &ops[2], Ty::B32)?;
    let d = b.dst(f, &ops[0], t)?;
    b.emit(reduce, Class::WarpExchange, |i| {
        i.dst = d;
        i.src = [a, named, 0];
        i.imm = Redux {
            operation,
            signed: t.signed(),
        }
        .pack();
    });
    Ok(())
}

fn active(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    cx.warp.regs.put::<u32>(i.dst, m, &[m; 32]);
}

fn activemask(b: &mut Builder, f: &Form) -> Res {
    f.only_type(Ty::B32, "b32")?;
    let ops = f.operands(1)?;
    let d = b.dst(f, &ops[0], Ty::B32)?;
    b.emit(active as Exec, Class::WarpExchange, |i| i.dst = d);
    Ok(())
}

/// The lowest member is elected. `dst` takes its lane, predicate `src[1]` whether it is this one.
fn elected(cx: &mut Cx<'_>, i: &Ins, m: u32) {
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
    b.emit(elected, Class::WarpExchange, |i| {
        i.dst = d;
        i.src[0] = named;
        i.src[1] = p;
    });
    Ok(())
}
