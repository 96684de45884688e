//! Instructions that the decoder inserts. They have no PTX text of their own and are never counted.

use super::program::{Exec, Ins};
use super::warp::Cx;
use crate::checks::FaultKind;

/// The low half of a 64-bit register.
pub const NARROW: Exec = narrow;
/// A 32-bit register, zero-extended.
pub const WIDEN: Exec = widen;
/// Warp instructions run so far.
pub const CLOCK: Exec = clock;
/// An unconditional jump where the layout needs one.
pub const JUMP: Exec = jump;
/// Faults if watched register number `imm` was never written.
pub const CHECK_REG: Exec = check_written;

/// Notes that watched register number `imm` is written.
pub const MARK: Exec = mark;
/// Watched register number `imm` is written where number `src[0]` is, of which it is a copy.
pub const COPY_WRITTEN: Exec = copy_written;

/// Stands for an instruction whose work is done elsewhere.
pub const NOTHING: Exec = nothing;

fn nothing(_: &mut Cx<'_>, _: &Ins, _: u32) {}

fn narrow(cx: &mut Cx<'_>, i: &Ins, _: u32) {
    let v = cx.warp.regs.view();
    for chunk in 0..4 {
        v.set_chunk::<u32>(
            i.dst,
            chunk,
            v.chunk::<u64>(i.src[0], chunk).map(|x| x as u32),
        );
    }
}

fn widen(cx: &mut Cx<'_>, i: &Ins, _: u32) {
    let v = cx.warp.regs.view();
    for chunk in 0..4 {
        v.set_chunk::<u64>(i.dst, chunk, v.chunk::<u32>(i.src[0], chunk).map(u64::from));
    }
}

fn clock(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    // The loop adds a slice at its end; a counter that moves within one is enough to order events.
    cx.clock += 1;
    let now = cx.clock;
    if i.imm == 1 {
        cx.warp.regs.put::<u64>(i.dst, mask, &[now; 32]);
    } else {
        cx.warp.regs.put::<u32>(i.dst, mask, &[now as u32; 32]);
    }
}

fn jump(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    cx.branch(mask, i.imm as usize);
}

fn check_written(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let missing = mask & !cx.warp.written[i.imm as usize];
    if missing != 0 && cx.env.checks {
        let name = cx.env.program.watched[i.imm as usize].clone();
        cx.fail(
            FaultKind::Uninitialised,
            missing.trailing_zeros(),
            format!("register {name} is read but was never written"),
        );
    }
}

fn mark(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    cx.warp.written[i.imm as usize] |= mask;
}

fn copy_written(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let from = cx.warp.written[i.src[0] as usize];
    let to = &mut cx.warp.written[i.imm as usize];
    *to = *to & !mask | from & mask;
}
