//! Barriers and fences.

use super::Decode;
use super::warpwide::members;
use crate::lower::{Builder, Form, Res};
use crate::machine::{BarrierOptions, Class, Cx, Ins, Reduction, Stop};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("bar", bar),
    ("barrier", barrier),
    ("membar", fence),
    ("fence", fence),
    ("griddepcontrol", hint),
];

fn warp_sync(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    if m == 0 {
        return;
    }
    let named = cx.warp.regs.all::<u32>(i.src[0]);
    let union = crate::machine::lanes_of(m).fold(0, |u, l| u | named[l]);
    if union & cx.warp.live & !m != 0 {
        cx.converged(m, union, true);
        return;
    }
    if members(cx, i.src[0], m).is_some() {
        cx.warp.clock.advance();
    }
}

fn block_barrier(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    if m == 0 {
        return;
    }
    let options = BarrierOptions::unpack(i.imm);
    let first = m.trailing_zeros() as usize;
    let id = cx.warp.regs.get::<u32>(i.src[0], first);
    if m != cx.warp.live {
        return cx.wait_at_barrier(m, id, options.aligned);
    }
    let count = options
        .counted
        .then(|| cx.warp.regs.get::<u32>(i.src[1], first));
    let p = cx.warp.preds[i.src[2] as usize] ^ if options.negated { !0 } else { 0 };
    cx.arrive_with(id, count, options.reduction, p, !options.arrive_only);
    debug_assert!(cx.stop != Stop::Done);
}

fn bar(b: &mut Builder, f: &Form) -> Res {
    if f.has("warp") {
        f.has("sync");
        let ops = f.operands(1)?;
        let a = b.src(f, &ops[0], Ty::B32)?;
        b.emit(warp_sync, Class::Sync, |i| i.src[0] = a);
        return Ok(());
    }
    common(b, f, true)
}

fn barrier(b: &mut Builder, f: &Form) -> Res {
    if f.has("cluster") {
        return f.refuse("clusters are not supported");
    }
    let aligned = f.has("aligned");
    common(b, f, aligned)
}

fn common(b: &mut Builder, f: &Form, aligned: bool) -> Res {
    f.has("cta");
    f.has("aligned");
    let types = f.types();
    let ops = &f.inst.operands;
    let Some(which) = f.pick(&["sync", "arrive", "red"]) else {
        return f.refuse(".sync, .arrive or .red is expected");
    };
    let mut reduction = Reduction::None;
    let mut d = 0;
    let mut predicate = (0, 0);
    let mut rest: &[Operand] = ops;
    if which == 2 {
        let n = ops.len();
        let Some(op) = f.pick(&["popc", "and", "or"]) else {
            return f.refuse("a reduction is expected");
        };
        if !(3..=4).contains(&n) {
            return f.refuse("3 or 4 operands are expected");
        }
        (reduction, d) = match (op, types.first()) {
            (0, Some(Ty::U32)) => (Reduction::Popc, b.dst(f, &ops[0], Ty::U32)?),
            (1, Some(Ty::Pred)) => (Reduction::And, b.pred_dst(f, &ops[0])?),
            (2, Some(Ty::Pred)) => (Reduction::Or, b.pred_dst(f, &ops[0])?),
            _ => return f.refuse("the type does not fit the reduction"),
        };
        predicate = b.pred(f, &ops[n - 1])?;
        rest = &ops[1..n - 1];
    }
    let Some(id) = rest.first() else {
        return f.refuse("a barrier number is expected");
    };
    let id = b.src(f, id, Ty::U32)?;
    let count = match rest.get(1) {
        Some(n) => Some(b.src(f, n, Ty::U32)?),
        None => None,
    };
    if rest.len() > 2 || which == 1 && count.is_none() {
        return f.refuse("a barrier number and a thread count are expected");
    }
    let options = BarrierOptions {
        reduction,
        arrive_only: which == 1,
        aligned,
        counted: count.is_some(),
        negated: predicate.1 != 0,
    };
    b.emit(block_barrier, Class::Sync, |i| {
        i.dst = d;
        i.src = [id, count.unwrap_or(0), predicate.0];
        i.imm = options.pack();
    });
    Ok(())
}

/// `imm` 1: the fence covers the device. A narrower one orders nothing between blocks.
fn fence_exec(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    if i.imm == 1 && m != 0 {
        cx.fence();
    }
}

fn fence(b: &mut Builder, f: &Form) -> Res {
    for m in [
        "sc",
        "acq_rel",
        "acquire",
        "mbarrier_init",
        "sync_restrict::shared::cta",
        "sync_restrict::shared::cluster",
        "global",
        "shared::cta",
        "proxy",
        "async",
        "alias",
        "async::global",
        "async::shared::cta",
        "release",
        "cluster",
    ] {
        f.has(m);
    }
    let wide = f.pick(&["gl", "sys", "gpu"]).is_some();
    f.has("cta");
    b.emit(fence_exec, Class::Sync, |i| i.imm = u64::from(wide));
    Ok(())
}

fn no_op(_: &mut Cx<'_>, _: &Ins, _: u32) {}

/// Launch and register hints without effect here.
fn hint(b: &mut Builder, f: &Form) -> Res {
    f.has("launch_dependents");
    f.has("wait");
    b.emit(no_op, Class::Other, |_| {});
    Ok(())
}
