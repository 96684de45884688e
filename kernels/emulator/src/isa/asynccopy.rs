//! cp.async with its groups. A copy lands when its thread waits for it, which is as late as the rules allow.

use super::Decode;
use super::memory::addresses;
use crate::checks::{FaultKind, Touch};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, CopyInFlight, Cx, Ins, Place, lanes_of};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("cp", cp)];

/// `a`: shared address, `b`: global address, `c`: bytes to read if `imm` bit 40, or if `imm` bit 41 a predicate, which
/// bit 42 negates, under which nothing is read. `imm` bits 0-7 are the size. `list`: the offsets of both addresses.
fn start(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    if m == 0 {
        return;
    }
    let bytes = (i.imm & 0xff) as u32;
    let prog = cx.env.program;
    let offsets = &prog.lists[i.list as usize];
    let to = addresses(cx, i.src[0], offsets[0] as i32);
    let mut from = addresses(cx, i.src[1], offsets[1] as i32);
    let mut read = [bytes; 32];
    if i.imm >> 40 & 1 == 1 {
        read = cx.warp.regs.all::<u32>(i.src[2]);
        for lane in lanes_of(m) {
            if read[lane] > bytes {
                return cx.fail(
                    FaultKind::BadOperand,
                    lane as u32,
                    format!("{} source bytes for a copy of {bytes}", read[lane]),
                );
            }
        }
    }
    if i.imm >> 41 & 1 == 1 {
        let ignored = cx.warp.preds[i.src[2] as usize] ^ if i.imm >> 42 & 1 == 1 { !0 } else { 0 };
        for (lane, n) in read.iter_mut().enumerate() {
            *n = if ignored >> lane & 1 == 1 { 0 } else { bytes };
        }
    }
    // Generic addresses of shared memory are not allowed here, so the window is dropped without a look.
    for x in &mut from {
        *x &= (1 << 48) - 1;
    }
    let limit = u64::from(cx.block.shared_bytes);
    for lane in lanes_of(m) {
        if !to[lane].is_multiple_of(u64::from(bytes))
            || !from[lane].is_multiple_of(u64::from(bytes))
        {
            let message = format!(
                "copy of {bytes} bytes from {:#x} to shared address {:#x}: both must be multiples of {bytes}",
                from[lane], to[lane]
            );
            return cx.fail(FaultKind::Misaligned, lane as u32, message);
        }
        if to[lane] + u64::from(bytes) > limit {
            let message = format!(
                "{bytes}-byte copy to shared address {:#x}, but the block has {limit} bytes of shared memory",
                to[lane]
            );
            return cx.fail(FaultKind::OutOfBounds, lane as u32, message);
        }
    }
    let whole = lanes_of(m)
        .filter(|&l| read[l] == bytes)
        .fold(0, |s, l| s | 1 << l);
    if whole != 0 && !cx.check(Place::Global, &from, whole, bytes, Touch::Read) {
        return;
    }
    // Lanes that read less are checked by the byte; they belong to the same request, so nothing is counted for it
    // but what the others have.
    let counts = cx.counts.take();
    let fine = partial(cx, &from, &read, m & !whole);
    cx.counts = counts;
    if !fine {
        return;
    }
    if let Some(c) = &mut cx.counts {
        c.partial_copy(&from, &read, m & !whole, whole == 0);
    }
    if let Some(c) = &mut cx.counts {
        c.shared(&to, m, bytes, Touch::Write);
    }
    if let Some(shadow) = &mut cx.block.shadow
        && let Err((lane, conflict)) =
            shadow.start_copies(&to, m, bytes, cx.warp.index, &mut cx.warp.clock)
    {
        return cx.shared_conflict(lane, to[lane], bytes, Touch::Write, conflict);
    }
    for lane in lanes_of(m) {
        let group = cx.warp.groups[lane];
        cx.warp.copies.push(CopyInFlight {
            lane: lane as u32,
            group,
            to: to[lane] as u32,
            from: from[lane],
            bytes,
            read: read[lane],
        });
    }
}

/// The checks for lanes that read only part of what they copy.
fn partial(cx: &mut Cx<'_>, from: &[u64; 32], read: &[u32; 32], lanes: u32) -> bool {
    for lane in lanes_of(lanes) {
        for at in 0..u64::from(read[lane]) {
            let mut one = *from;
            one[lane] += at;
            if !cx.check(Place::Global, &one, 1 << lane, 1, Touch::Read) {
                return false;
            }
        }
    }
    true
}

/// Lands what `due` says, in the order of issue.
pub fn land(cx: &mut Cx<'_>, due: impl Fn(&Cx<'_>, &CopyInFlight) -> bool) {
    let copies = std::mem::take(&mut cx.warp.copies);
    let mut left = Vec::with_capacity(copies.len());
    for c in copies {
        if !due(cx, &c) {
            left.push(c);
            continue;
        }
        for at in (0..c.bytes).step_by(4) {
            let mut v = 0u64;
            if at + 4 <= c.read {
                v = cx.env.heap.load(c.from + u64::from(at), 4);
            } else {
                for k in 0..4 {
                    if at + k < c.read {
                        v |= cx.env.heap.load(c.from + u64::from(at + k), 1) << (k * 8);
                    }
                }
            }
            cx.block.shared_store(c.to + at, 4, v);
        }
        if let Some(shadow) = &mut cx.block.shadow {
            shadow.land_copy(c.to, c.bytes, cx.warp.index, c.lane, &cx.warp.clock);
        }
    }
    cx.warp.copies = left;
}

fn commit(cx: &mut Cx<'_>, _: &Ins, m: u32) {
    for lane in lanes_of(m) {
        cx.warp.groups[lane] += 1;
    }
}

/// All but the latest `imm` groups.
fn wait_group(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let keep = i.imm as u32;
    land(cx, |cx, c| {
        m >> c.lane & 1 == 1 && c.group.saturating_add(keep) < cx.warp.groups[c.lane as usize]
    });
}

fn wait_all(cx: &mut Cx<'_>, _: &Ins, m: u32) {
    land(cx, |_, c| m >> c.lane & 1 == 1);
    for lane in lanes_of(m) {
        cx.warp.groups[lane] += 1;
    }
}

fn offset(f: &Form, v: i64) -> Res<u32> {
    match i32::try_from(v) {
        Ok(o) => Ok(o as u32),
        Err(_) => f.refuse("the offset is too large"),
    }
}

fn cp(b: &mut Builder, f: &Form) -> Res {
    if !f.has("async") || f.has("bulk") {
        return f.refuse("only cp.async is supported, not its bulk and tensor forms");
    }
    if f.has("commit_group") {
        b.emit(commit, Class::AsyncCopy, |_| {});
        return Ok(());
    }
    if f.has("wait_all") {
        b.emit(wait_all, Class::AsyncCopy, |_| {});
        return Ok(());
    }
    if f.has("wait_group") {
        let ops = f.operands(1)?;
        let Operand::Int(n) = ops[0] else {
            return f.refuse("the number of groups must be a number");
        };
        b.emit(wait_group, Class::AsyncCopy, |i| i.imm = n);
        return Ok(());
    }
    if f.inst.modifiers.iter().any(|m| m.starts_with("mbarrier")) {
        return super::mbarrier::copy_arrive(b, f);
    }
    for m in [
        "ca",
        "cg",
        "shared",
        "shared::cta",
        "global",
        "L2::64B",
        "L2::128B",
        "L2::256B",
    ] {
        f.has(m);
    }
    let hint = usize::from(f.has("L2::cache_hint"));
    let n = f.inst.operands.len();
    if !(3 + hint..=4 + hint).contains(&n) {
        return f.refuse("3 or 4 operands are expected");
    }
    let ops = &f.inst.operands[..n - hint];
    let Operand::Int(bytes @ (4 | 8 | 16)) = ops[2] else {
        return f.refuse("the size must be 4, 8 or 16");
    };
    let (to, to_offset, _) = b.address(f, &ops[0])?;
    let (from, from_offset, _) = b.address(f, &ops[1])?;
    let list = vec![offset(f, to_offset)?, offset(f, from_offset)?];
    let list = b.list(list);
    let mut imm = bytes;
    let mut size = 0;
    if let Some(op) = ops.get(3) {
        if b.is_pred(op) {
            let (p, flip) = b.pred(f, op)?;
            size = p;
            imm |= 1 << 41 | u64::from(flip & 1) << 42;
        } else {
            size = b.src(f, op, Ty::U32)?;
            imm |= 1 << 40;
        }
    }
    b.emit(start, Class::AsyncCopy, |i| {
        i.src[0] = to;
        i.src[1] = from;
        i.src[2] = size;
        i.list = list;
        i.imm = imm;
    });
    Ok(())
}
