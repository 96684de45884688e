//! mbarrier: phases counted in shared memory.
//!
//! The 64 bits: pending arrivals 0-19, expected arrivals 20-39, transaction bytes 40-61 (signed), phase 63.

use super::Decode;
use super::memory::{addresses, space_of};
use crate::checks::{Clock, FaultKind};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Ins, Stop, lanes_of};
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

const INIT: u64 = 0;
const INVAL: u64 = 1;
const ARRIVE: u64 = 2;
const DROP: u64 = 3;
const EXPECT: u64 = 4;
const COMPLETE: u64 = 5;
const ARRIVE_EXPECT: u64 = 6;
const COPY_ARRIVE: u64 = 7;
const COPY_ARRIVE_NOINC: u64 = 8;

/// Where lane's barrier is, after checks. `None` after a fault.
fn place(cx: &mut Cx<'_>, lane: usize, addr: u64, create: bool) -> Option<u32> {
    let at = addr & ((1 << WINDOW_SHIFT) - 1);
    if !at.is_multiple_of(8) {
        cx.fail(
            FaultKind::Misaligned,
            lane as u32,
            format!("mbarrier at shared address {at:#x} is not a multiple of 8"),
        );
        return None;
    }
    if at + 8 > u64::from(cx.block.shared_bytes) {
        cx.fail(
            FaultKind::OutOfBounds,
            lane as u32,
            format!("mbarrier at shared address {at:#x} is outside of the block's memory"),
        );
        return None;
    }
    let at = at as u32;
    if !create && !cx.block.mbarriers.contains_key(&at) {
        cx.fail(
            FaultKind::Uninitialised,
            lane as u32,
            format!("mbarrier at shared address {at:#x} was not initialised"),
        );
        return None;
    }
    Some(at)
}

/// `imm`: operation, bit 8: there is a destination, bit 9: the count is a register in `b`; offset in `c`.
fn change(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let addrs = addresses(cx, i.src[0], i.src[2] as i32);
    let op = i.imm & 0xff;
    if matches!(op, COPY_ARRIVE | COPY_ARRIVE_NOINC) {
        super::asynccopy::land(cx, |_, c| m >> c.lane & 1 == 1);
    }
    for lane in lanes_of(m) {
        let Some(at) = place(cx, lane, addrs[lane], op == INIT) else {
            return;
        };
        let n = if i.imm >> 9 & 1 == 1 {
            u64::from(cx.warp.regs.get::<u32>(i.src[1], lane))
        } else {
            1
        };
        let before = State::unpack(cx.block.shared_load(at, 8));
        let mut s = before;
        let arrivals = match op {
            INIT => {
                s = State {
                    pending: n,
                    expected: n,
                    tx: 0,
                    phase: 0,
                };
                cx.block.mbarriers.insert(at, Clock::nothing());
                if let Some(shadow) = &mut cx.block.shadow {
                    shadow.mark_written(at, 8);
                }
                0
            }
            INVAL => {
                cx.block.mbarriers.remove(&at);
                0
            }
            ARRIVE | COPY_ARRIVE_NOINC => n,
            DROP => {
                s.expected = s.expected.saturating_sub(n);
                n
            }
            EXPECT => {
                s.tx += n as i64;
                0
            }
            COMPLETE => {
                s.tx -= n as i64;
                0
            }
            // The arrival that the copy makes was added to the pending count at its issue: no net change.
            COPY_ARRIVE => 0,
            _ => {
                s.tx += n as i64;
                1
            }
        };
        if arrivals > s.pending {
            let message = format!(
                "{arrivals} arrivals at the mbarrier at {at:#x}, which expects {} more",
                s.pending
            );
            return cx.fail(FaultKind::BarrierMismatch, lane as u32, message);
        }
        s.pending -= arrivals;
        if op != INIT && op != INVAL && op != EXPECT {
            if let Some(clock) = cx.block.mbarriers.get_mut(&at) {
                clock.join(cx.warp.clock.shared());
            }
            s = if arrivals != 0 || op == COMPLETE {
                s.settle()
            } else {
                s
            };
        }
        cx.block.shared_store(at, 8, s.pack());
        if i.imm >> 8 & 1 == 1 {
            cx.warp.regs.set::<u64>(i.dst, lane, before.pack());
        }
    }
    if m != 0 {
        cx.warp.clock.advance();
    }
}

/// `imm` bit 0: by parity in `b` (else by state). `c`: offset. Sets predicate `d`.
fn test(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let addrs = addresses(cx, i.src[0], i.src[2] as i32);
    let mut done = 0;
    for lane in lanes_of(m) {
        let Some(at) = place(cx, lane, addrs[lane], false) else {
            return;
        };
        let s = State::unpack(cx.block.shared_load(at, 8));
        let waited = if i.imm & 1 == 1 {
            u64::from(cx.warp.regs.get::<u32>(i.src[1], lane) & 1) << 63
        } else {
            cx.warp.regs.get::<u64>(i.src[1], lane) & PHASE
        };
        if s.phase != waited {
            done |= 1 << lane;
            if let Some(clock) = cx.block.mbarriers.get(&at) {
                cx.warp.clock.learn(clock);
            }
        }
    }
    let p = &mut cx.warp.preds[i.dst as usize];
    *p = *p & !m | done;
    if done != m && m != 0 && cx.stop == Stop::Run {
        // Nothing to do for this warp until another one arrives.
        cx.stop = Stop::Yield;
    }
}

fn pending_count(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    for lane in lanes_of(m) {
        let v = State::unpack(cx.warp.regs.get::<u64>(i.src[0], lane)).pending;
        cx.warp.regs.set::<u32>(i.dst, lane, v as u32);
    }
}

fn offset(f: &Form, v: i64) -> Res<u32> {
    match i32::try_from(v) {
        Ok(o) => Ok(o as u32),
        Err(_) => f.refuse("the offset is too large"),
    }
}

fn mbarrier(b: &mut Builder, f: &Form) -> Res {
    f.types();
    space_of(f);
    for m in ["cta", "release", "acquire", "relaxed", "noComplete"] {
        f.has(m);
    }
    if f.has("cluster") || f.has("shared::cluster") {
        return f.refuse("clusters are not supported");
    }
    let ops = &f.inst.operands;
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
        let parity = f.has("parity");
        if !(3..=4).contains(&ops.len()) {
            return f.refuse("3 operands are expected");
        }
        let (a, at, _) = b.address(f, &ops[1])?;
        let at = offset(f, at)?;
        let s = b.src(f, &ops[2], if parity { Ty::U32 } else { Ty::B64 })?;
        let d = b.pred_dst(f, &ops[0])?;
        b.emit(test, Class::Sync, |i| {
            i.dst = d;
            i.src[0] = a;
            i.src[1] = s;
            i.src[2] = at;
            i.imm = u64::from(parity);
        });
        return Ok(());
    }
    let expect = f.has("expect_tx");
    let op = match f.pick(&["init", "inval", "arrive", "arrive_drop", "complete_tx"]) {
        Some(0) => INIT,
        Some(1) => INVAL,
        Some(2) if expect => ARRIVE_EXPECT,
        Some(2) => ARRIVE,
        Some(3) if !expect => DROP,
        Some(4) => COMPLETE,
        None if expect => EXPECT,
        _ => return f.refuse("this operation is not supported"),
    };
    let returns = matches!(op, ARRIVE | DROP | ARRIVE_EXPECT);
    let rest = if returns {
        ops.get(1..)
    } else {
        Some(&ops[..])
    };
    let (Some(rest), n) = (rest, ops.len()) else {
        return f.refuse("operands are missing");
    };
    let Some(address) = rest.first() else {
        return f.refuse(format!("{n} operands are too few"));
    };
    let (a, at, _) = b.address(f, address)?;
    let at = offset(f, at)?;
    let mut imm = op;
    let mut count = 0;
    if let Some(c) = rest.get(1) {
        count = b.src(f, c, Ty::U32)?;
        imm |= 1 << 9;
    }
    let mut d = 0;
    if returns && ops[0] != Operand::Sink {
        d = b.dst(f, &ops[0], Ty::B64)?;
        imm |= 1 << 8;
    }
    b.emit(change, Class::Sync, |i| {
        i.dst = d;
        i.src[0] = a;
        i.src[1] = count;
        i.src[2] = at;
        i.imm = imm;
    });
    Ok(())
}

/// `cp.async.mbarrier.arrive`: the thread's copies land, then it arrives.
pub fn copy_arrive(b: &mut Builder, f: &Form) -> Res {
    f.types();
    space_of(f);
    for m in ["mbarrier", "arrive"] {
        f.has(m);
    }
    let noinc = f.has("noinc");
    let ops = f.operands(1)?;
    let (a, at, _) = b.address(f, &ops[0])?;
    let at = offset(f, at)?;
    b.emit(change, Class::AsyncCopy, |i| {
        i.src[0] = a;
        i.src[2] = at;
        i.imm = if noinc {
            COPY_ARRIVE_NOINC
        } else {
            COPY_ARRIVE
        };
    });
    Ok(())
}
