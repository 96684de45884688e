//! Memory access by a warp: the state space of an address, the checks, the counts.

use super::warp::Cx;
use crate::checks::{Conflict, FaultKind, Order, Touch, race_read, race_write, read_before};
use crate::memory::{Extent, WINDOW_SHIFT};
use crate::types::Space;
use std::sync::atomic::Ordering::Relaxed;

/// The state spaces of an access, after generic addresses are resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Global,
    Shared,
    Local,
    Param,
}

impl Place {
    pub fn of(space: Space) -> Option<Place> {
        match space {
            Space::Global | Space::Const => Some(Place::Global),
            Space::Shared => Some(Place::Shared),
            Space::Local => Some(Place::Local),
            Space::Param => Some(Place::Param),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Place::Global => "global",
            Place::Shared => "shared",
            Place::Local => "local",
            Place::Param => "parameter",
        }
    }
}

/// Lanes of a mask, lowest first.
pub fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}

/// Whether a full warp accesses one contiguous range, lane after lane.
#[inline(always)]
pub fn contiguous(addrs: &[u64; 32], mask: u32, bytes: u32) -> bool {
    if mask != !0 {
        return false;
    }
    let mut same = true;
    for (i, a) in addrs.iter().enumerate() {
        same &= *a == addrs[0].wrapping_add(i as u64 * u64::from(bytes));
    }
    same
}

/// The union of the addresses' bits.
#[inline(always)]
fn any_bits(addrs: &[u64; 32], mask: u32) -> u64 {
    let mut bits = 0;
    if mask == !0 {
        for a in addrs {
            bits |= a;
        }
    } else {
        for lane in lanes(mask) {
            bits |= addrs[lane];
        }
    }
    bits
}

impl Cx<'_> {
    /// Sorts generic addresses by state space and makes them relative to it.
    pub fn places(&mut self, addrs: &mut [u64; 32], mask: u32) -> [(Place, u32); 4] {
        let mut out = [
            (Place::Global, 0),
            (Place::Shared, 0),
            (Place::Local, 0),
            (Place::Param, 0),
        ];
        for lane in lanes(mask) {
            let window = (addrs[lane] >> WINDOW_SHIFT) as usize;
            if window < 4 {
                out[window].1 |= 1 << lane;
                if window != 0 {
                    addrs[lane] &= (1 << WINDOW_SHIFT) - 1;
                }
            } else {
                out[0].1 |= 1 << lane;
            }
        }
        out
    }

    /// All checks on an access of `bytes` per lane, and its counters. False after a fault.
    #[inline]
    pub fn check(
        &mut self,
        place: Place,
        addrs: &[u64; 32],
        mask: u32,
        bytes: u32,
        touch: Touch,
    ) -> bool {
        let low = u64::from(bytes) - 1;
        if any_bits(addrs, mask) & low != 0 {
            let lane = lanes(mask).find(|&l| addrs[l] & low != 0).unwrap_or(0);
            let message = format!(
                "{} address {:#x} is not a multiple of {bytes}",
                place.name(),
                addrs[lane]
            );
            self.fail(FaultKind::Misaligned, lane as u32, message);
            return false;
        }
        // An atomic counts as a write where it changes something.
        self.events += u64::from(touch.writes() && touch != Touch::Atomic && place != Place::Local);
        self.warp.polls |= touch.strong();
        match place {
            Place::Global => self.check_global(addrs, mask, bytes, touch),
            Place::Shared => self.check_shared(addrs, mask, bytes, touch),
            Place::Local => self.check_local(addrs, mask, bytes, touch),
            Place::Param => self.check_param(addrs, mask, bytes, touch),
        }
    }

    fn check_global(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, touch: Touch) -> bool {
        let heap = self.env.heap;
        if let Some(c) = &mut self.counts {
            c.global(addrs, mask, bytes, touch);
        }
        if touch.strong() {
            self.block.acquired |= touch.reads();
        }
        if !self.env.checks {
            for lane in lanes(mask) {
                if !heap.reserved(addrs[lane]) {
                    self.outside(lane, addrs[lane], bytes, touch);
                    return false;
                }
            }
            return true;
        }
        let run = contiguous(addrs, mask, bytes);
        let Some(known) = self.find_allocations(addrs, mask, bytes, touch, run) else {
            return false;
        };
        if touch.reads() && !self.check_written(addrs, mask, bytes, run) {
            return false;
        }
        if touch.writes() {
            if run {
                heap.mark_written(addrs[0], u64::from(bytes) * 32);
            } else {
                for lane in lanes(mask) {
                    heap.mark_written(addrs[lane], u64::from(bytes));
                }
            }
            if self.env.read_only(known.base) {
                let lane = mask.trailing_zeros();
                let message = format!("write to {}", heap.describe(addrs[lane as usize]));
                self.fail(FaultKind::ReadOnly, lane, message);
                return false;
            }
        }
        if self.env.several_blocks && !touch.strong() {
            return self.check_blocks(addrs, mask, bytes, touch);
        }
        true
    }

    /// Whether every lane is inside an allocation; returns the last lane's. `run`: the addresses
    /// are contiguous. `None` after a fault.
    #[inline(always)]
    fn find_allocations(
        &mut self,
        addrs: &[u64; 32],
        mask: u32,
        bytes: u32,
        touch: Touch,
        run: bool,
    ) -> Option<Extent> {
        let heap = self.env.heap;
        if run
            && let Some(e) = heap.find(addrs[0])
            && addrs[31] + u64::from(bytes) <= e.end
        {
            return Some(e);
        }
        // No address lies in it.
        let mut known = Extent { base: 1, end: 0 };
        for lane in lanes(mask) {
            let (from, to) = (addrs[lane], addrs[lane].wrapping_add(u64::from(bytes)));
            if from < known.base || to > known.end || to < from {
                match heap.find(from) {
                    Some(e) if to <= e.end && to > from => known = e,
                    _ => {
                        self.outside(lane, from, bytes, touch);
                        return None;
                    }
                }
            }
        }
        Some(known)
    }

    /// Whether all bytes that the lanes read were written. False after a fault.
    #[inline(always)]
    fn check_written(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, run: bool) -> bool {
        let heap = self.env.heap;
        let size = u64::from(bytes);
        let unwritten = if run {
            heap.first_unwritten(addrs[0], size * 32)
                .map(|a| (((a - addrs[0]) / size) as usize, a))
        } else {
            lanes(mask).find_map(|l| heap.first_unwritten(addrs[l], size).map(|a| (l, a)))
        };
        let Some((lane, addr)) = unwritten else {
            return true;
        };
        let message = format!(
            "{bytes}-byte read of global address {:#x}: {} was never written",
            addrs[lane],
            heap.describe(addr)
        );
        self.fail(FaultKind::Uninitialised, lane as u32, message);
        false
    }

    /// Checks for races between blocks.
    fn check_blocks(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, touch: Touch) -> bool {
        let (env, heap) = (self.env, self.env.heap);
        let me = Order {
            epoch: env.epoch,
            block: self.block.linear,
            fences: self.block.fences,
            acquired: self.block.acquired,
        };
        let settled = read_before(me);
        for lane in lanes(mask) {
            let (mut addr, end) = (addrs[lane], addrs[lane] + u64::from(bytes));
            if !touch.writes() && bytes.is_multiple_of(4) {
                let known = (addr..end)
                    .step_by(4)
                    .all(|a| settled.contains(&heap.race(a).load(Relaxed)));
                if known {
                    continue;
                }
            }
            while addr < end {
                let n = (4 - addr % 4).min(end - addr);
                let part = ((1 << n) - 1) << (addr % 4);
                let cell = heap.race(addr);
                let raced = if touch.writes() {
                    race_write(cell, part, me, |b| env.fences_of(b))
                } else {
                    race_read(cell, part, me, |b| env.fences_of(b)).map(|b| (Some(b), true))
                };
                if let Some((other, wrote)) = raced {
                    let did = if wrote { "written" } else { "read" };
                    let who = other.map_or("other blocks".to_owned(), |b| {
                        format!("block {}", env.block_name(b))
                    });
                    let does = if touch.writes() {
                        "write to"
                    } else {
                        "read of"
                    };
                    let message = format!(
                        "{does} global address {addr:#x} ({}), {did} by {who} in this launch with nothing to order them",
                        heap.describe(addr)
                    );
                    self.fail(FaultKind::GlobalRace, lane as u32, message);
                    return false;
                }
                addr += n;
            }
        }
        true
    }

    #[cold]
    fn outside(&mut self, lane: usize, addr: u64, bytes: u32, touch: Touch) {
        let heap = self.env.heap;
        // The address may be inside while the access runs over the end.
        let base = match heap.find(addr) {
            Some(e) => e.end,
            None => addr,
        };
        let what = heap.describe(base);
        let kind = if what.ends_with("which was freed") {
            FaultKind::UseAfterFree
        } else {
            FaultKind::OutOfBounds
        };
        let does = if touch.writes() {
            "write to"
        } else {
            "read of"
        };
        self.fail(
            kind,
            lane as u32,
            format!("{bytes}-byte {does} global address {addr:#x}: {what}"),
        );
    }

    fn check_shared(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, touch: Touch) -> bool {
        if let Some(c) = &mut self.counts {
            c.shared(addrs, mask, bytes, touch);
        }
        let limit = u64::from(self.block.shared_bytes);
        let beyond = |a: u64| a.saturating_add(u64::from(bytes)) > limit;
        // No address is above the union of their bits.
        if beyond(any_bits(addrs, mask))
            && let Some(lane) = lanes(mask).find(|&l| beyond(addrs[l]))
        {
            let does = if touch.writes() {
                "write to"
            } else {
                "read of"
            };
            let message = format!(
                "{bytes}-byte {does} shared address {:#x}, but the block has {limit} bytes of shared memory",
                addrs[lane]
            );
            self.fail(FaultKind::OutOfBounds, lane as u32, message);
            return false;
        }
        let Some(shadow) = &mut self.block.shadow else {
            return true;
        };
        let touched = shadow.touch_lanes(
            addrs,
            mask,
            bytes,
            touch,
            self.warp.index,
            &mut self.warp.clock,
        );
        if let Err((lane, conflict)) = touched {
            self.shared_conflict(lane, addrs[lane], bytes, touch, conflict);
            return false;
        }
        true
    }

    #[cold]
    pub fn shared_conflict(
        &mut self,
        lane: usize,
        addr: u64,
        bytes: u32,
        touch: Touch,
        conflict: Conflict,
    ) {
        let does = if touch.writes() {
            "write to"
        } else {
            "read of"
        };
        let access = format!("{bytes}-byte {does} shared address {addr:#x}");
        let (kind, why) = match conflict {
            Conflict::Unwritten => (
                FaultKind::Uninitialised,
                "no thread of this block wrote it, or not yet: a barrier may be missing".to_owned(),
            ),
            Conflict::Pending => (
                FaultKind::AsyncCopy,
                "an asynchronous copy to it has not been waited for".to_owned(),
            ),
            Conflict::AfterWrite(t) => {
                let between = if t / 32 == self.warp.index {
                    "no __syncwarp"
                } else {
                    "no barrier"
                };
                (
                    FaultKind::SharedRace,
                    format!(
                        "written by thread {} with {between} between",
                        self.env.thread_name(t)
                    ),
                )
            }
            Conflict::AfterRead { warp, lane } => {
                let between = if warp == self.warp.index {
                    "no __syncwarp"
                } else {
                    "no barrier"
                };
                let who = lane.map_or(format!("threads of warp {warp}"), |l| {
                    format!("thread {}", self.env.thread_name(warp * 32 + l))
                });
                (
                    FaultKind::SharedRace,
                    format!("read by {who} with {between} between"),
                )
            }
        };
        self.fail(kind, lane as u32, format!("{access}: {why}"));
    }

    fn check_local(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, touch: Touch) -> bool {
        let size = self.env.program.local_bytes as usize;
        for lane in lanes(mask) {
            let offset = addrs[lane] as usize;
            if addrs[lane].saturating_add(u64::from(bytes)) > size as u64 {
                let message = format!(
                    "{bytes}-byte access to local address {offset:#x}, but a thread has {size} bytes of local memory"
                );
                self.fail(FaultKind::OutOfBounds, lane as u32, message);
                return false;
            }
            if self.env.checks {
                let span = lane * size + offset..lane * size + offset + bytes as usize;
                if touch.writes() {
                    self.warp.local_written[span].fill(1);
                } else if self.warp.local_written[span].contains(&0) {
                    let message = format!(
                        "{bytes}-byte read of local address {offset:#x}, which this thread never wrote"
                    );
                    self.fail(FaultKind::Uninitialised, lane as u32, message);
                    return false;
                }
            }
        }
        true
    }

    fn check_param(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, touch: Touch) -> bool {
        let size = self.env.params.len() as u64;
        for lane in lanes(mask) {
            if touch.writes() || addrs[lane].saturating_add(u64::from(bytes)) > size {
                let message = format!(
                    "{bytes}-byte access to parameter byte {}, the kernel has {size}",
                    addrs[lane]
                );
                self.fail(
                    if touch.writes() {
                        FaultKind::ReadOnly
                    } else {
                        FaultKind::OutOfBounds
                    },
                    lane as u32,
                    message,
                );
                return false;
            }
        }
        true
    }

    /// Loads an element. [`check`](Self::check) must have succeeded.
    #[inline(always)]
    pub fn load(&self, place: Place, lane: usize, addr: u64, bytes: u32) -> u64 {
        match place {
            Place::Global => self.env.heap.load(addr, bytes),
            Place::Shared => self.block.shared_load(addr as u32, bytes),
            Place::Local => bytes_at(
                &self.warp.local,
                lane * self.env.program.local_bytes as usize + addr as usize,
                bytes,
            ),
            Place::Param => bytes_at(&self.env.params, addr as usize, bytes),
        }
    }

    /// Stores an element. [`check`](Self::check) must have succeeded.
    #[inline(always)]
    pub fn store(&mut self, place: Place, lane: usize, addr: u64, bytes: u32, value: u64) {
        match place {
            Place::Global => self.env.heap.store(addr, bytes, value),
            Place::Shared => self.block.shared_store(addr as u32, bytes, value),
            Place::Local => {
                let first = lane * self.env.program.local_bytes as usize + addr as usize;
                self.warp.local[first..first + bytes as usize]
                    .copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
            }
            // `check_param` refuses writes.
            Place::Param => {}
        }
    }

    /// A fence: other blocks can see the earlier writes of this one.
    pub fn fence(&mut self) {
        self.block.fences += 1;
        if let Some(f) = self.env.fences.get(self.block.linear as usize) {
            f.store(self.block.fences, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

fn bytes_at(from: &[u8], first: usize, bytes: u32) -> u64 {
    let mut v = [0; 8];
    v[..bytes as usize].copy_from_slice(&from[first..first + bytes as usize]);
    u64::from_le_bytes(v)
}
