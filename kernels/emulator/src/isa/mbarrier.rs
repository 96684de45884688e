//! mbarrier: phases counted in shared memory.
//!
//! The 64 bits: pending arrivals 0-19, expected arrivals 20-39, transaction bytes 40-61 (signed),
//! phase 63.

use super::Decode;
use super::memory::{addresses, space_of};
use super::operands::address;
use crate::checks::{Clock, FaultKind};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Ins, Stop, choice, immediate, lanes_of};
use crate::memory::WINDOW_SHIFT;
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("mbarrier", mbarrier)];

const COUNT: u64 = (1 << 20) - 1;
const PHASE: u64 = 1 << 63;

#[derive(Clone, Copy)]
struct State {
    pending: u64,
    expected: u64,
    tx: i64,
    phase: u64,
}

impl State {
    fn unpack(v: u64) -> State {
        State {
            pending: v & COUNT,
            expected: v >> 20 & COUNT,
            tx: ((v << 2) as i64) >> 42,
            phase: v & PHASE,
        }
    }

    fn pack(self) -> u64 {
        self.pending & COUNT
            | (self.expected & COUNT) << 20
            | (self.tx as u64 & 0x3f_ffff) << 40
            | self.phase
    }

    fn settle(mut self) -> State {
        if self.pending == 0 && self.tx == 0 {
            self.phase ^= PHASE;
            self.pending = self.expected;
        }
        self
    }
}

choice! {
    /// The operations on an mbarrier. The first five are one modifier each.
    enum Operation {
        Init = "init",
        Invalidate = "inval",
        Arrive = "arrive",
        ArriveDrop = "arrive_drop",
        CompleteTx = "complete_tx",
        ExpectTx = "expect_tx",
        ArriveExpectTx = "arrive.expect_tx",
        CopyArrive = "cp.async.mbarrier.arrive",
        CopyArriveNoInc = "cp.async.mbarrier.arrive.noinc",
    }
}
use Operation::{
    Arrive, ArriveDrop, ArriveExpectTx, CompleteTx, CopyArrive, CopyArriveNoInc, ExpectTx, Init,
    Invalidate,
};

immediate! {
    /// An operation on the mbarrier at `src[0]`.
    struct Change {
        offset: i32 [32],
        operation: Operation [4],
        /// `src[1]` holds the count, which is 1 otherwise.
        counted: bool [1],
        /// `dst` takes the state before.
        returns: bool [1],
    }
}

immediate! {
    /// A test of the mbarrier at `src[0]` against the state or parity in `src[1]`.
    struct Test {
        offset: i32 [32],
        /// By parity, else by state.
        parity: bool [1],
    }
}

/// The shared address of a lane's mbarrier, after checks. `None` after a fault.
fn place(cx: &mut Cx<'_>, lane: usize, addr: u64, create: bool) -> Option<u32> {
    let addr = addr & ((1 << WINDOW_SHIFT) - 1);
    if !addr.is_multiple_of(8) {
        cx.fail(
            FaultKind::Misaligned,
            lane as u32,
            format!("mbarrier at shared address {addr:#x} is not a multiple of 8"),
        );
        return None;
    }
    if addr + 8 > u64::from(cx.block.shared_bytes) {
        cx.fail(
            FaultKind::OutOfBounds,
            lane as u32,
            format!("mbarrier at shared address {addr:#x} is outside of the block's memory"),
        );
        return None;
    }
    let addr = addr as u32;
    if !create && !cx.block.mbarriers.contains_key(&addr) {
        cx.fail(
            FaultKind::Uninitialised,
            lane as u32,
            format!("mbarrier at shared address {addr:#x} was not initialised"),
        );
        return None;
    }
    Some(addr)
}

/// The state after an operation with count `n`, and its arrivals.
fn next(mut s: State, operation: Operation, n: u64) -> (State, u64) {
    let arrivals = match operation {
        Init => {
            s = State {
                pending: n,
                expected: n,
                tx: 0,
                phase: 0,
            };
            0
        }
        Arrive | CopyArriveNoInc => n,
        ArriveDrop => {
            s.expected = s.expected.saturating_sub(n);
            n
        }
        ExpectTx => {
            s.tx += n as i64;
            0
        }
        CompleteTx => {
            s.tx -= n as i64;
            0
        }
        ArriveExpectTx => {
            s.tx += n as i64;
            1
        }
        // The copy's arrival was added to the pending count at its issue: no net change.
        CopyArrive | Invalidate => 0,
    };
    (s, arrivals)
}

fn change(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let change = Change::unpack(i.imm);
    let addrs = addresses(cx, i.src[0], change.offset);
    let op = change.operation;
    if matches!(op, CopyArrive | CopyArriveNoInc) {
        super::asynccopy::land(cx, |_, c| m >> c.lane & 1 == 1);
    }
    for lane in lanes_of(m) {
        let Some(addr) = place(cx, lane, addrs[lane], op == Init) else {
            return;
        };
        let n = if change.counted {
            u64::from(cx.warp.regs.get::<u32>(i.src[1], lane))
        } else {
            1
        };
        let before = State::unpack(cx.block.shared_load(addr, 8));
        if op == Init {
            cx.block.mbarriers.insert(addr, Clock::nothing());
            if let Some(shadow) = &mut cx.block.shadow {
                shadow.mark_written(addr, 8);
            }
        } else if op == Invalidate {
            cx.block.mbarriers.remove(&addr);
        }
        let (mut s, arrivals) = next(before, op, n);
        if arrivals > s.pending {
            let message = format!(
                "{arrivals} arrivals at the mbarrier at {addr:#x}, which expects {} more",
                s.pending
            );
            return cx.fail(FaultKind::BarrierMismatch, lane as u32, message);
        }
        s.pending -= arrivals;
        if !matches!(op, Init | Invalidate | ExpectTx) {
            if let Some(clock) = cx.block.mbarriers.get_mut(&addr) {
                clock.join(cx.warp.clock.shared());
            }
            if arrivals != 0 || op == CompleteTx {
                s = s.settle();
            }
        }
        cx.block.shared_store(addr, 8, s.pack());
        if change.returns {
            cx.warp.regs.set::<u64>(i.dst, lane, before.pack());
        }
    }
    if m != 0 {
        cx.warp.clock.advance();
    }
}

/// Sets predicate `dst` where the phase is complete.
fn test(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let test = Test::unpack(i.imm);
    let addrs = addresses(cx, i.src[0], test.offset);
    let mut done = 0;
    for lane in lanes_of(m) {
        let Some(addr) = place(cx, lane, addrs[lane], false) else {
            return;
        };
        let s = State::unpack(cx.block.shared_load(addr, 8));
        let waited = if test.parity {
            u64::from(cx.warp.regs.get::<u32>(i.src[1], lane) & 1) << 63
        } else {
            cx.warp.regs.get::<u64>(i.src[1], lane) & PHASE
        };
        if s.phase != waited {
            done |= 1 << lane;
            if let Some(clock) = cx.block.mbarriers.get(&addr) {
                cx.warp.clock.learn(clock);
            }
        }
    }
    let p = &mut cx.warp.preds[i.dst as usize];
    *p = *p & !m | done;
    if done != m && m != 0 && cx.stop == Stop::Run {
        // This warp cannot go on until another one arrives.
        cx.stop = Stop::Yield;
    }
}

fn pending_count(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    for lane in lanes_of(m) {
        let v = State::unpack(cx.warp.regs.get::<u64>(i.src[0], lane)).pending;
        cx.warp.regs.set::<u32>(i.dst, lane, v as u32);
    }
}

fn mbarrier(b: &mut Builder, f: &Form) -> Res {
    f.only_type(Ty::B64, "b64")?;
    space_of(f);
    for m in ["cta", "release", "acquire", "relaxed", "noComplete"] {
        f.has(m);
    }
    if f.has("cluster") || f.has("shared::cluster") {
        return f.refuse("clusters are not supported");
    }
    if f.has("pending_count") {
        let ops = f.operands(2)?;
        let a = b.src(f, &ops[1], Ty::B64)?;
        let d = b.dst(f, &ops[0], Ty::U32)?;
        b.emit(pending_count, Class::Sync, |i| {
            i.dst = d;
            i.src[0] = a;
        });
        return Ok(());
    }
    if f.has("test_wait") || f.has("try_wait") {
        return test_form(b, f);
    }
    change_form(b, f)
}

/// `mbarrier.test_wait.b64 p, [addr], state`, or with `.parity` and `try_wait`.
fn test_form(b: &mut Builder, f: &Form) -> Res {
    let parity = f.has("parity");
    let ops = &f.inst.operands;
    if !(3..=4).contains(&ops.len()) {
        return f.refuse("3 operands are expected");
    }
    let (a, offset) = address(b, f, &ops[1])?;
    let s = b.src(f, &ops[2], if parity { Ty::U32 } else { Ty::B64 })?;
    let d = b.pred_dst(f, &ops[0])?;
    b.emit(test, Class::Sync, |i| {
        i.dst = d;
        i.src = [a, s, 0];
        i.imm = Test { offset, parity }.pack();
    });
    Ok(())
}

/// `mbarrier.arrive.b64 state, [addr] {, count}` and its relatives.
fn change_form(b: &mut Builder, f: &Form) -> Res {
    let ops = &f.inst.operands;
    let expect = f.has("expect_tx");
    let operation = match f.pick(&["init", "inval", "arrive", "arrive_drop", "complete_tx"]) {
        Some(0) => Init,
        Some(1) => Invalidate,
        Some(2) if expect => ArriveExpectTx,
        Some(2) => Arrive,
        Some(3) if !expect => ArriveDrop,
        Some(4) => CompleteTx,
        None if expect => ExpectTx,
        _ => return f.refuse("this operation is not supported"),
    };
    let has_state = matches!(operation, Arrive | ArriveDrop | ArriveExpectTx);
    let (state, rest) = match &ops[..] {
        [] => return f.refuse("operands are missing"),
        [state, rest @ ..] if has_state => (Some(state), rest),
        rest => (None, rest),
    };
    let Some(addr) = rest.first() else {
        return f.refuse(format!("{} operands are too few", ops.len()));
    };
    let (a, offset) = address(b, f, addr)?;
    let count = match rest.get(1) {
        Some(c) => Some(b.src(f, c, Ty::U32)?),
        None => None,
    };
    let d = match state {
        Some(op) if *op != Operand::Sink => Some(b.dst(f, op, Ty::B64)?),
        _ => None,
    };
    b.emit(change, Class::Sync, |i| {
        i.dst = d.unwrap_or(0);
        i.src = [a, count.unwrap_or(0), 0];
        i.imm = Change {
            offset,
            operation,
            counted: count.is_some(),
            returns: d.is_some(),
        }
        .pack();
    });
    Ok(())
}

/// `cp.async.mbarrier.arrive`: the thread's copies land, then it arrives.
pub fn copy_arrive(b: &mut Builder, f: &Form) -> Res {
    f.only_type(Ty::B64, "b64")?;
    space_of(f);
    for m in ["mbarrier", "arrive"] {
        f.has(m);
    }
    let operation = if f.has("noinc") {
        CopyArriveNoInc
    } else {
        CopyArrive
    };
    let ops = f.operands(1)?;
    let (a, offset) = address(b, f, &ops[0])?;
    b.emit(change, Class::AsyncCopy, |i| {
        i.src[0] = a;
        i.imm = Change {
            offset,
            operation,
            counted: false,
            returns: false,
        }
        .pack();
    });
    Ok(())
}
