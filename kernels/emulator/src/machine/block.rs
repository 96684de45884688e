//! One block: its warps, shared memory and barriers.

use super::imm::{immediate, listed};
use super::launch::Launch;
use super::program::Ins;
use super::warp::{Cx, Stop, Wait, Warp};
use crate::checks::{Clock, Fault, FaultKind, SharedShadow};
use std::collections::HashMap;

/// Rounds without progress after which an mbarrier counts as never completing. A loop around
/// `try_wait` may do some bounded work of its own between two tests.
const MBARRIER_PATIENCE: u32 = 10_000;

/// What a `barrier.red` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    None,
    Popc,
    And,
    Or,
}

listed!(
    Reduction,
    [
        Reduction::None,
        Reduction::Popc,
        Reduction::And,
        Reduction::Or,
    ]
);

immediate! {
    /// A block barrier. `src`: the registers of its number and of the thread count, the predicate
    /// that is reduced. `dst` takes the reduction.
    pub struct BarrierOptions {
        pub reduction: Reduction [2],
        /// Arrives without waiting.
        pub arrive_only: bool [1],
        /// All threads of the warp must execute the same barrier instruction.
        pub aligned: bool [1],
        /// `src[1]` holds the thread count, which is the whole block otherwise.
        pub counted: bool [1],
        /// The predicate is negated.
        pub negated: bool [1],
    }
}

/// A `cp.async` that has not landed.
#[derive(Clone, Copy, Debug)]
pub struct CopyInFlight {
    pub lane: u32,
    /// The group it belongs to: the lane's committed groups when it was issued.
    pub group: u32,
    pub to: u32,
    pub from: u64,
    pub bytes: u32,
    /// Bytes read; the rest is zero.
    pub read: u32,
}

/// One of the sixteen barriers of a block.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// Threads that have arrived.
    pub arrived: u32,
    /// The count the first arrival named; `None` is the whole block.
    pub expected: Option<u32>,
    /// Warps that wait: index, and the barrier instruction.
    pub waiting: Vec<(u32, usize)>,
    pub clock: Option<Clock>,
    pub reduction: Reduction,
    pub count: u32,
    pub all: bool,
    pub any: bool,
}

impl Barrier {
    fn empty() -> Barrier {
        Barrier {
            arrived: 0,
            expected: None,
            waiting: Vec::new(),
            clock: None,
            reduction: Reduction::None,
            count: 0,
            all: true,
            any: false,
        }
    }
}

/// The state of a block.
pub struct Block {
    pub id: [u32; 3],
    pub linear: u64,
    /// Words of four bytes.
    pub shared: Vec<u32>,
    pub shared_bytes: u32,
    pub shadow: Option<SharedShadow>,
    pub warps: Vec<Option<Warp>>,
    pub barriers: Vec<Barrier>,
    /// Clocks that mbarriers hand from arrivals to waits.
    pub mbarriers: HashMap<u32, Clock>,
    pub fences: u64,
    pub acquired: bool,
    /// Counts the turns of the round over the warps.
    pub turn: usize,
    pub sm: u32,
}

impl Block {
    pub fn new(env: &Launch<'_>) -> Block {
        let bytes = env.program.shared_bytes + env.dynamic_shared;
        let warps = env.warps() as usize;
        Block {
            shared: vec![0; (bytes as usize).div_ceil(4) + 4],
            shared_bytes: bytes,
            shadow: env.checks.then(|| SharedShadow::new(bytes as usize, warps)),
            warps: (0..warps)
                .map(|_| Some(Warp::new(env.program, env.checks)))
                .collect(),
            barriers: (0..16).map(|_| Barrier::empty()).collect(),
            ..Block::nowhere()
        }
    }

    /// An empty placeholder while the block itself runs elsewhere.
    pub fn nowhere() -> Block {
        Block {
            id: [0; 3],
            linear: 0,
            shared: Vec::new(),
            shared_bytes: 0,
            shadow: None,
            warps: Vec::new(),
            barriers: Vec::new(),
            mbarriers: HashMap::new(),
            fences: 0,
            acquired: false,
            turn: 0,
            sm: 0,
        }
    }

    pub fn restart(&mut self, env: &Launch<'_>, linear: u64) {
        let [gx, gy, _] = env.grid.map(u64::from);
        self.linear = linear;
        self.id = [
            (linear % gx) as u32,
            (linear / gx % gy) as u32,
            (linear / gx / gy) as u32,
        ];
        self.sm = (linear % u64::from(env.sms)) as u32;
        let mut base = 0;
        if let Some(s) = &mut self.shadow {
            base = s.reset();
        } else {
            self.shared.fill(0);
        }
        self.mbarriers.clear();
        self.fences = 0;
        self.acquired = false;
        self.turn = 0;
        for b in &mut self.barriers {
            *b = Barrier::empty();
        }
        let threads = env.threads();
        for (i, w) in self.warps.iter_mut().flatten().enumerate() {
            let lanes = (threads - i as u32 * 32).min(32);
            let mask = if lanes == 32 { !0 } else { (1 << lanes) - 1 };
            w.restart(i as u32, env.warps(), mask, base);
            env.fill_specials(w, self.id, self.sm);
        }
    }

    fn live_threads(&self, running: &Warp) -> u32 {
        let parked: u32 = self.warps.iter().flatten().filter(|w| !w.done).count() as u32;
        (parked + u32::from(running.live != 0)) * 32
    }

    /// Loads 1, 2, 4 or 8 bytes of shared memory; the offset is aligned and in range.
    #[inline(always)]
    pub fn shared_load(&self, offset: u32, bytes: u32) -> u64 {
        let word = offset as usize / 4;
        match bytes {
            8 => u64::from(self.shared[word]) | u64::from(self.shared[word + 1]) << 32,
            4 => u64::from(self.shared[word]),
            _ => u64::from(self.shared[word] >> (offset % 4 * 8) & ((1 << (bytes * 8)) - 1)),
        }
    }

    #[inline(always)]
    pub fn shared_store(&mut self, offset: u32, bytes: u32, value: u64) {
        let word = offset as usize / 4;
        match bytes {
            8 => {
                self.shared[word] = value as u32;
                self.shared[word + 1] = (value >> 32) as u32;
            }
            4 => self.shared[word] = value as u32,
            _ => {
                let shift = offset % 4 * 8;
                let mask = ((1u32 << (bytes * 8)) - 1) << shift;
                let cell = &mut self.shared[word];
                *cell = *cell & !mask | (value as u32) << shift & mask;
            }
        }
    }
}

impl Cx<'_> {
    /// All lanes of the running warp arrive at a barrier; the warp waits unless that completes the
    /// barrier.
    pub fn arrive(&mut self, ins: &Ins, id: u32) {
        let count = BarrierOptions::unpack(ins.imm).counted.then(|| {
            self.warp
                .regs
                .get::<u32>(ins.src[1], self.warp.mask.trailing_zeros() as usize)
        });
        self.arrive_with(id, count, Reduction::None, 0, true);
    }

    /// As [`arrive`](Self::arrive), with a thread count, a reduction, and whether the warp waits.
    pub fn arrive_with(
        &mut self,
        id: u32,
        count: Option<u32>,
        reduction: Reduction,
        predicate: u32,
        wait: bool,
    ) {
        if id > 15 {
            return self.fail(
                FaultKind::BadOperand,
                0,
                format!("barrier {id} does not exist, there are 0 to 15"),
            );
        }
        if let Some(n) = count
            && (n == 0 || n % 32 != 0 || n > self.env.warps() * 32)
        {
            let threads = self.env.threads();
            return self.fail(
                    FaultKind::BarrierMismatch,
                    0,
                    format!("barrier {id} waits for {n} threads, which is not a multiple of 32 within the block of {threads}"),
                );
        }
        let index = self.warp.index;
        let live = self.warp.live;
        if let Some(c) = &mut self.counts {
            c.barriers += 1;
        }
        let b = &mut self.block.barriers[id as usize];
        if b.arrived == 0 {
            b.expected = count;
            b.reduction = reduction;
        } else if b.expected != count || b.reduction != reduction {
            let name =
                |n: Option<u32>| n.map_or("the whole block".to_owned(), |n| format!("{n} threads"));
            let (theirs, mine) = (name(b.expected), name(count));
            return self.fail(
                FaultKind::BarrierMismatch,
                live.trailing_zeros(),
                format!("warp {index} arrives at barrier {id} for {mine}, but earlier arrivals wait for {theirs}"),
            );
        }
        b.arrived += 32;
        b.count += (predicate & live).count_ones();
        b.all &= predicate & live == live;
        b.any |= predicate & live != 0;
        match &mut b.clock {
            Some(c) => c.join(self.warp.clock.shared()),
            None => b.clock = Some(self.warp.clock.shared().clone()),
        }
        if wait {
            b.waiting.push((index, self.warp.pc - 1));
            self.warp.at_barrier = true;
            self.stop = Stop::Barrier;
        } else {
            self.warp.clock.advance();
        }
        self.release_if_complete(id);
    }

    /// Lets the warps at a barrier go when enough threads are there.
    pub fn release_if_complete(&mut self, id: u32) {
        let live = self.block.live_threads(&self.warp);
        let b = &mut self.block.barriers[id as usize];
        if b.arrived == 0 || b.arrived < b.expected.unwrap_or(live) {
            return;
        }
        self.events += 1;
        let done = std::mem::replace(b, Barrier::empty());
        for &(index, pc) in &done.waiting {
            let ins = self.env.program.code[pc];
            let w = if index == self.warp.index && self.warp.at_barrier {
                self.stop = Stop::Run;
                &mut self.warp
            } else {
                match &mut self.block.warps[index as usize] {
                    Some(w) => w,
                    None => continue,
                }
            };
            w.at_barrier = false;
            if let Some(c) = &done.clock {
                w.clock.leave_barrier(c, done.waiting.iter().map(|w| w.0));
            }
            match done.reduction {
                Reduction::None => {}
                Reduction::Popc => w.regs.splat::<u32>(ins.dst, done.count),
                Reduction::And => w.preds[ins.dst as usize] = if done.all { !0 } else { 0 },
                Reduction::Or => w.preds[ins.dst as usize] = if done.any { !0 } else { 0 },
            }
        }
    }

    /// Part of the running warp is at a barrier.
    ///
    /// All threads of the block execute an aligned barrier (`bar`, `barrier.aligned`), or none does:
    /// "otherwise behavior is undefined" (PTX ISA 9.7.13.1). Lanes may still come one after the other,
    /// as from the arms of a branch. Threads that have exited do not count: a barrier waits for "all
    /// non-exited threads from its warp", and `exit` releases the barriers it holds up. Neither do
    /// lanes that go straight from a branch to their exit, as by `if (i >= n) return;`. To the letter
    /// their condition splits the block. But from sm_70 on barriers are "enforced per thread", for "all
    /// non-exited threads in the block" (CUDA programming guide, compute capability 7.x), and programs
    /// rely on it.
    ///
    /// So there are two faults: a predicate by which a part of the lanes passes the barrier, and lanes
    /// that do other work and leave the kernel while the first ones wait.
    pub fn wait_at_barrier(&mut self, lanes: u32, id: u32, aligned: bool) {
        let pc = self.warp.pc - 1;
        let passing = self.warp.mask & !lanes;
        if aligned && passing != 0 && self.env.checks {
            return self.fail(
                FaultKind::DivergentSync,
                lanes.trailing_zeros(),
                format!("lanes {passing:#010x} of the warp pass this aligned barrier, whose predicate must be the same in all threads"),
            );
        }
        let excused = (self.warp.others.iter())
            .filter(|f| f.pc == pc || f.idle)
            .fold(lanes, |m, f| m | f.mask);
        let awaited = if aligned {
            self.warp.live & !excused
        } else {
            0
        };
        let wait = Wait::Barrier {
            id,
            aligned,
            awaited,
        };
        self.set_aside(lanes, pc, wait);
    }

    /// Whether all live warps of the block have only polled memory, or waited at a barrier, since
    /// its turn began.
    pub fn block_polls(&self) -> bool {
        self.block
            .warps
            .iter()
            .flatten()
            .filter(|w| !w.done)
            .all(|w| w.at_barrier || w.polls)
    }

    /// Fails: all resident blocks wait for a value that no thread writes.
    pub fn stuck(&mut self) {
        let waits = self
            .block
            .warps
            .iter()
            .flatten()
            .find(|w| !w.done && w.polls);
        let (pc, thread) = waits.map_or((0, 0), |w| (w.pc, w.index * 32));
        self.fault = Some(Fault {
            kind: FaultKind::Deadlock,
            pc,
            thread,
            message: "every thread reads memory again and again, and none writes any more"
                .to_owned(),
        });
        self.stop = Stop::Fault;
    }

    /// Fails: the launch has run more instructions than `OFFSHOOT_EMULATOR_LIMIT` allows.
    pub fn over_limit(&mut self) {
        let runs = self.block.warps.iter().flatten().find(|w| !w.done);
        let (pc, thread) = runs.map_or((0, 0), |w| (w.pc, w.index * 32));
        self.fault = Some(Fault {
            kind: FaultKind::Limit,
            pc,
            thread,
            message: format!("more than {} warp instructions were run", self.env.limit),
        });
        self.stop = Stop::Fault;
    }

    /// Runs the block in `block` for about `fuel` instructions. True when all its warps are done.
    pub fn run_block(&mut self, fuel: u64) -> bool {
        let n = self.block.warps.len();
        let slice = self.env.slice;
        let mut spent = 0;
        // Rounds in which every warp only tested an mbarrier that is not complete.
        let mut idle = 0;
        loop {
            let mut ran = false;
            let mut worked = false;
            for _ in 0..n {
                let i = self.block.turn % n;
                self.block.turn += 1;
                match &self.block.warps[i] {
                    Some(w) if !w.done && !w.at_barrier => {}
                    _ => continue,
                }
                ran = true;
                let Some(w) = self.block.warps[i].take() else {
                    continue;
                };
                self.warp = w;
                self.stop = Stop::Run;
                let before = self.clock;
                self.run_warp(slice);
                spent += self.clock - before;
                if self.stop == Stop::Done {
                    self.warp.done = true;
                    for id in 0..16 {
                        if self.block.barriers[id as usize].arrived != 0 {
                            self.release_if_complete(id);
                        }
                    }
                }
                let stop = self.stop;
                worked |= stop != Stop::Yield;
                let waits_at = self.warp.pc.saturating_sub(1);
                let w = std::mem::replace(&mut self.warp, Warp::empty());
                self.block.warps[i] = Some(w);
                if stop == Stop::Fault {
                    return true;
                }
                if stop == Stop::Yield && idle > MBARRIER_PATIENCE {
                    self.fault = Some(Fault {
                        kind: FaultKind::Deadlock,
                        pc: waits_at,
                        thread: i as u32 * 32,
                        message: format!(
                            "warp {i} waits at an mbarrier, and no warp of the block can arrive any more"
                        ),
                    });
                    self.stop = Stop::Fault;
                    return true;
                }
            }
            idle = if worked { 0 } else { idle + 1 };
            if !ran {
                if self.block.warps.iter().flatten().all(|w| w.done) {
                    return true;
                }
                self.deadlock();
                return true;
            }
            if spent >= fuel && self.block.warps.iter().flatten().any(|w| !w.done) {
                return false;
            }
        }
    }

    fn deadlock(&mut self) {
        let mut places = Vec::new();
        for (id, b) in self.block.barriers.iter().enumerate() {
            for (warp, pc) in &b.waiting {
                let line = self.env.program.debug[*pc].line;
                let wanted = b
                    .expected
                    .map_or("all threads".to_owned(), |n| format!("{n} threads"));
                places.push((*warp, *pc, format!("warp {warp} waits at barrier {id} for {wanted}, {} arrived (PTX line {line})", b.arrived)));
            }
        }
        places.sort();
        let (warp, pc) = places.first().map_or((0, 0), |p| (p.0, p.1));
        let text: Vec<String> = places.into_iter().map(|p| p.2).collect();
        self.fault = Some(Fault {
            kind: FaultKind::Deadlock,
            pc,
            thread: warp * 32,
            message: text.join("; "),
        });
        self.stop = Stop::Fault;
    }
}
