//! cp.async with its groups. A copy lands when its thread waits for it: the latest moment that PTX
//! allows.

use super::Decode;
use super::memory::addresses;
use super::operands::address;
use crate::checks::{FaultKind, Touch};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, CopyInFlight, Cx, Ins, Place, immediate, lanes_of, listed};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("cp", cp)];

/// How many of its bytes a copy reads.
#[derive(Clone, Copy, PartialEq)]
enum SourceBytes {
    /// All.
    All,
    /// The number in register `src[2]`.
    Register,
    /// None where predicate `src[2]` holds, else all.
    UnlessPredicate,
    /// None where predicate `src[2]` does not hold, else all.
    IfPredicate,
}

listed!(
    SourceBytes,
    [
        SourceBytes::All,
        SourceBytes::Register,
        SourceBytes::UnlessPredicate,
        SourceBytes::IfPredicate,
    ]
);

immediate! {
    /// `cp.async`. `src`: shared address, global address, see [`SourceBytes`]. `list`: the offsets
    /// of both addresses.
    struct Copy {
        /// 4, 8 or 16.
        bytes: u32 [5],
        source: SourceBytes [2],
    }
}

/// Starts a copy: checks it and queues it for [`land`].
fn start(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    if m == 0 {
        return;
    }
    let copy = Copy::unpack(i.imm);
    let bytes = copy.bytes;
    let prog = cx.env.program;
    let offsets = &prog.lists[i.list as usize];
    let to = addresses(cx, i.src[0], offsets[0] as i32);
    let mut from = addresses(cx, i.src[1], offsets[1] as i32);
    // Generic addresses of shared memory are not allowed here, so the window is dropped unchecked.
    for x in &mut from {
        *x &= (1 << 48) - 1;
    }
    let Some(read) = bytes_to_read(cx, copy, i.src[2], m) else {
        return;
    };
    if !in_place(cx, &to, &from, bytes, m) || !readable(cx, &from, &read, bytes, m) {
        return;
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

/// The bytes each lane reads. `None` after a fault.
fn bytes_to_read(cx: &mut Cx<'_>, copy: Copy, source: u32, m: u32) -> Option<[u32; 32]> {
    let bytes = copy.bytes;
    let skipped = match copy.source {
        SourceBytes::All => 0,
        SourceBytes::UnlessPredicate => cx.warp.preds[source as usize],
        SourceBytes::IfPredicate => !cx.warp.preds[source as usize],
        SourceBytes::Register => {
            let read = cx.warp.regs.all::<u32>(source);
            if let Some(lane) = lanes_of(m).find(|&l| read[l] > bytes) {
                let message = format!("{} source bytes for a copy of {bytes}", read[lane]);
                cx.fail(FaultKind::BadOperand, lane as u32, message);
                return None;
            }
            return Some(read);
        }
    };
    Some(std::array::from_fn(|lane| {
        if skipped >> lane & 1 == 1 { 0 } else { bytes }
    }))
}

/// Whether both addresses of every lane are aligned and the shared one exists.
fn in_place(cx: &mut Cx<'_>, to: &[u64; 32], from: &[u64; 32], bytes: u32, m: u32) -> bool {
    let limit = u64::from(cx.block.shared_bytes);
    let size = u64::from(bytes);
    for lane in lanes_of(m) {
        if !to[lane].is_multiple_of(size) || !from[lane].is_multiple_of(size) {
            let message = format!(
                "copy of {bytes} bytes from {:#x} to shared address {:#x}: both must be multiples of {bytes}",
                from[lane], to[lane]
            );
            cx.fail(FaultKind::Misaligned, lane as u32, message);
            return false;
        }
        if to[lane] + size > limit {
            let message = format!(
                "{bytes}-byte copy to shared address {:#x}, but the block has {limit} bytes of shared memory",
                to[lane]
            );
            cx.fail(FaultKind::OutOfBounds, lane as u32, message);
            return false;
        }
    }
    true
}

/// Checks and counts what the lanes read.
fn readable(cx: &mut Cx<'_>, from: &[u64; 32], read: &[u32; 32], bytes: u32, m: u32) -> bool {
    let whole = lanes_of(m)
        .filter(|&l| read[l] == bytes)
        .fold(0, |s, l| s | 1 << l);
    if whole != 0 && !cx.check(Place::Global, from, whole, bytes, Touch::Read) {
        return false;
    }
    // Lanes that read less are checked byte by byte. They belong to the same request, so these
    // checks must not count; `partial_copy` counts their sectors.
    let counts = cx.counts.take();
    let fine = partial(cx, from, read, m & !whole);
    cx.counts = counts;
    if !fine {
        return false;
    }
    if let Some(c) = &mut cx.counts {
        c.partial_copy(from, read, m & !whole, whole == 0);
    }
    true
}

/// The checks for lanes that read only part of what they copy.
fn partial(cx: &mut Cx<'_>, from: &[u64; 32], read: &[u32; 32], lanes: u32) -> bool {
    for lane in lanes_of(lanes) {
        for offset in 0..u64::from(read[lane]) {
            let mut one = *from;
            one[lane] += offset;
            if !cx.check(Place::Global, &one, 1 << lane, 1, Touch::Read) {
                return false;
            }
        }
    }
    true
}

/// Lands the copies for which `due` holds, in the order of issue.
pub fn land(cx: &mut Cx<'_>, due: impl Fn(&Cx<'_>, &CopyInFlight) -> bool) {
    let copies = std::mem::take(&mut cx.warp.copies);
    let mut left = Vec::with_capacity(copies.len());
    for c in copies {
        if !due(cx, &c) {
            left.push(c);
            continue;
        }
        for offset in (0..c.bytes).step_by(4) {
            let mut v = 0u64;
            if offset + 4 <= c.read {
                v = cx.env.heap.load(c.from + u64::from(offset), 4);
            } else {
                for k in 0..4 {
                    if offset + k < c.read {
                        v |= cx.env.heap.load(c.from + u64::from(offset + k), 1) << (k * 8);
                    }
                }
            }
            cx.block.shared_store(c.to + offset, 4, v);
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

/// Waits for all but the latest `imm` groups.
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
    copy_form(b, f)
}

/// `cp.async.ca.shared.global [to], [from], bytes {, source bytes or predicate}`.
fn copy_form(b: &mut Builder, f: &Form) -> Res {
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
    let (to, to_offset) = address(b, f, &ops[0])?;
    let (from, from_offset) = address(b, f, &ops[1])?;
    let list = b.list(vec![to_offset as u32, from_offset as u32]);
    let (register, source) = match ops.get(3) {
        None => (0, SourceBytes::All),
        Some(op) if b.is_pred(op) => match b.pred(f, op)? {
            (p, 0) => (p, SourceBytes::UnlessPredicate),
            (p, _) => (p, SourceBytes::IfPredicate),
        },
        Some(op) => (b.src(f, op, Ty::U32)?, SourceBytes::Register),
    };
    let copy = Copy {
        bytes: bytes as u32,
        source,
    };
    b.emit(start, Class::AsyncCopy, |i| {
        i.src = [to, from, register];
        i.list = list;
        i.imm = copy.pack();
    });
    Ok(())
}
