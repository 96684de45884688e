//! One warp, its divergent subsets, and the loop that runs it.

use super::block::Block;
use super::lanes::Registers;
use super::launch::Launch;
use super::program::{Ins, Program};
use crate::checks::{Fault, FaultKind, WarpClock};
use crate::counters::Counts;

/// A divergent subset: lanes of a diverged warp whose next instruction is the same.
#[derive(Clone, Copy, Debug)]
pub struct Subset {
    pub pc: usize,
    pub mask: u32,
    pub wait: Wait,
    /// It has run nothing since it split off, and has nothing left but its exit.
    pub idle: bool,
}

/// Why a subset does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It can run.
    Nothing,
    /// It has spun for long: the others run first.
    Turn,
    /// At a `.sync` instruction, until all live `members` are there. `anywhere`: at any
    /// `bar.warp.sync`.
    Sync { members: u32, anywhere: bool },
    /// At a block barrier with part of its warp. `awaited`: the lanes that must not leave the kernel
    /// without reaching it.
    Barrier {
        id: u32,
        aligned: bool,
        awaited: u32,
    },
}

/// Why a warp stops running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Run,
    /// Waits for another warp: the others run first.
    Yield,
    /// At a barrier that is not complete.
    Barrier,
    /// All lanes have exited.
    Done,
    /// A check failed.
    Fault,
}

/// The state of a warp.
pub struct Warp {
    pub regs: Registers,
    /// Predicates as masks; number 0 always holds.
    pub preds: Vec<u32>,
    pub pc: usize,
    pub mask: u32,
    /// The instruction where the next subset ahead waits.
    pub meet: usize,
    pub others: Vec<Subset>,
    /// As [`Subset::idle`], of the running subset.
    pub idle: bool,
    /// Lanes that have not exited.
    pub live: u32,
    pub index: u32,
    pub local: Vec<u8>,
    /// One byte per byte of local memory: whether it was written.
    pub local_written: Vec<u8>,
    pub clock: WarpClock,
    /// `cp.async` groups committed, by lane.
    pub groups: [u32; 32],
    pub copies: Vec<super::block::CopyInFlight>,
    pub at_barrier: bool,
    pub done: bool,
    /// Backward branches since the warp last changed subsets.
    pub spins: u32,
    /// It has read memory that other threads may write since its block's turn began.
    pub polls: bool,
    /// For each watched register, the lanes that have written it.
    pub written: Vec<u32>,
}

const NEVER: usize = usize::MAX;

impl Warp {
    pub fn new(program: &Program, checks: bool) -> Warp {
        let mut regs = Registers::new(program.slots);
        for &(reg, value, wide) in &program.constants {
            if wide {
                regs.splat::<u64>(reg, value);
            } else {
                regs.splat::<u32>(reg, value as u32);
            }
        }
        let local = program.local_bytes as usize * 32;
        let mut preds = vec![0; program.preds.max(1)];
        preds[0] = !0;
        Warp {
            regs,
            preds,
            local: vec![0; local],
            local_written: vec![0; if checks { local } else { 0 }],
            done: false,
            written: vec![0; program.watched.len()],
            ..Warp::empty()
        }
    }

    /// A placeholder for a warp that is elsewhere.
    pub fn empty() -> Warp {
        Warp {
            regs: Registers::new(0),
            preds: Vec::new(),
            pc: 0,
            mask: 0,
            meet: NEVER,
            others: Vec::new(),
            idle: false,
            live: 0,
            index: 0,
            local: Vec::new(),
            local_written: Vec::new(),
            clock: WarpClock::new(0, 0, 0),
            groups: [0; 32],
            copies: Vec::new(),
            at_barrier: false,
            done: true,
            spins: 0,
            polls: false,
            written: Vec::new(),
        }
    }

    /// Ready to start at the first instruction of a block of `warps` warps, with clocks from
    /// `base`.
    pub fn restart(&mut self, index: u32, warps: u32, lanes: u32, base: u32) {
        self.pc = 0;
        self.mask = lanes;
        self.live = lanes;
        self.meet = NEVER;
        self.others.clear();
        self.idle = false;
        self.index = index;
        self.clock = WarpClock::new(index, warps, base);
        self.groups = [0; 32];
        self.copies.clear();
        self.at_barrier = false;
        self.done = false;
        self.spins = 0;
        self.polls = false;
        self.local_written.fill(0);
        self.written.fill(0);
    }
}

/// A warp in execution: what every instruction sees.
pub struct Cx<'e> {
    pub warp: Warp,
    pub block: Block,
    pub env: &'e Launch<'e>,
    pub stop: Stop,
    pub fault: Option<Fault>,
    pub counts: Option<Box<Counts>>,
    /// Warp instructions run so far by this host thread: the value of `%clock`.
    pub clock: u64,
    /// Counts the events that another thread could wait for: a write, a barrier completed, an exit.
    pub events: u64,
}

impl Cx<'_> {
    /// Runs the warp in `warp` until it stops or `fuel` instructions are spent.
    pub fn run_warp(&mut self, fuel: u64) {
        let before = self.clock;
        if self.counts.is_some() {
            self.run_loop::<true>(fuel);
        } else {
            self.run_loop::<false>(fuel);
        }
        debug_assert!(self.clock >= before);
    }

    fn run_loop<const COUNT: bool>(&mut self, fuel: u64) {
        let code: &[Ins] = &self.env.program.code;
        let mut left = fuel;
        while self.stop == Stop::Run && left > 0 {
            if self.warp.pc == self.warp.meet {
                self.meet();
            }
            let pc = self.warp.pc;
            let ins = &code[pc];
            let mask = self.warp.mask & (self.warp.preds[ins.guard as usize] ^ ins.flip);
            self.warp.pc = pc + 1;
            if COUNT && let Some(c) = &mut self.counts {
                c.step(pc, mask);
            }
            // SAFETY: see `Ins::exec`: the warp was made for this program.
            unsafe { (ins.exec)(self, ins, mask) };
            left -= 1;
        }
        self.clock += fuel - left;
    }

    /// Ends the launch with a fault at the current instruction.
    #[cold]
    pub fn fail(&mut self, kind: FaultKind, lane: u32, message: impl Into<String>) {
        if self.fault.is_none() {
            let thread = self.warp.index * 32 + lane;
            self.fault = Some(Fault {
                kind,
                pc: self.warp.pc.saturating_sub(1),
                thread,
                message: message.into(),
            });
        }
        self.stop = Stop::Fault;
    }

    /// Another subset waits where this one arrives: they are one from here.
    #[cold]
    fn meet(&mut self) {
        let pc = self.warp.pc;
        let mut mask = self.warp.mask;
        let mut idle = self.warp.idle;
        self.warp.others.retain(|f| {
            let joins = f.pc == pc && !matches!(f.wait, Wait::Barrier { .. });
            if joins {
                mask |= f.mask;
                idle &= f.idle;
            }
            !joins
        });
        self.warp.mask = mask;
        self.warp.idle = idle;
        self.look_ahead();
    }

    /// Recomputes where the next meeting will be.
    fn look_ahead(&mut self) {
        let pc = self.warp.pc;
        self.warp.meet = self
            .warp
            .others
            .iter()
            .filter(|f| f.pc > pc && !matches!(f.wait, Wait::Barrier { .. }))
            .map(|f| f.pc)
            .min()
            .unwrap_or(NEVER);
    }

    /// Lanes `taken` of the running subset go to `target`, the rest go on.
    #[inline]
    pub fn branch(&mut self, taken: u32, target: usize) {
        let leaves = &self.env.program.leaves;
        let w = &mut self.warp;
        if taken == w.mask {
            let back = target < w.pc;
            w.pc = target;
            if !w.others.is_empty() {
                w.idle &= leaves[target];
                self.after_jump(back);
            }
        } else if taken == 0 {
            // A diverged warp whose branch falls through is still the lowest subset.
        } else {
            if let Some(c) = &mut self.counts {
                c.divergent_branches += 1;
            }
            let back = target < w.pc;
            w.others.push(Subset {
                pc: target,
                mask: taken,
                wait: Wait::Nothing,
                idle: leaves[target],
            });
            w.mask &= !taken;
            w.idle = leaves[w.pc];
            self.after_jump(back);
        }
    }

    /// Part of the running subset goes to `target`; the targets of the rest are not known yet.
    pub fn split_off(&mut self, lanes: u32, target: usize) {
        if let Some(c) = &mut self.counts {
            c.divergent_branches += 1;
        }
        self.warp.others.push(Subset {
            pc: target,
            mask: lanes,
            wait: Wait::Nothing,
            idle: self.env.program.leaves[target],
        });
        self.warp.mask &= !lanes;
        // So far; `branch` knows where the rest goes.
        self.warp.idle = true;
    }

    #[cold]
    fn after_jump(&mut self, back: bool) {
        if back {
            self.warp.spins += 1;
            if self.warp.spins > self.env.spin_limit {
                self.warp.spins = 0;
                self.set_aside(self.warp.mask, self.warp.pc, Wait::Turn);
                return;
            }
        }
        let pc = self.warp.pc;
        if self
            .warp
            .others
            .iter()
            .any(|f| f.pc <= pc && f.wait != Wait::Turn)
        {
            let (mask, idle) = (self.warp.mask, self.warp.idle);
            self.warp.others.push(Subset {
                pc,
                mask,
                wait: Wait::Nothing,
                idle,
            });
            self.warp.mask = 0;
            self.choose();
        } else {
            self.meet();
        }
    }

    /// Parks `lanes` of the running subset at `pc`. The rest of it goes on, or if there is none
    /// another subset.
    pub fn set_aside(&mut self, lanes: u32, pc: usize, wait: Wait) {
        self.warp.others.push(Subset {
            pc,
            mask: lanes,
            wait,
            idle: false,
        });
        self.warp.mask &= !lanes;
        if self.warp.mask == 0 {
            self.choose();
        } else {
            self.meet();
        }
    }

    /// Picks the lowest subset that can run. If none can, resolves what they wait for, or fails.
    pub fn choose(&mut self) {
        loop {
            let live = self.warp.live;
            if live == 0 {
                self.stop = Stop::Done;
                return;
            }
            merge_waiting(&mut self.warp.others);
            let runnable = |f: &Subset| match f.wait {
                Wait::Nothing => true,
                Wait::Sync { members, .. } => members & live & !f.mask == 0,
                Wait::Barrier { .. } => f.mask == live,
                Wait::Turn => false,
            };
            if let Some(i) = (0..self.warp.others.len())
                .filter(|&i| runnable(&self.warp.others[i]))
                .min_by_key(|&i| self.warp.others[i].pc)
            {
                let f = self.warp.others.swap_remove(i);
                self.warp.pc = f.pc;
                self.warp.mask = f.mask;
                self.warp.idle = f.idle;
                self.meet();
                return;
            }
            if self.warp.others.iter().any(|f| f.wait == Wait::Turn) {
                for f in &mut self.warp.others {
                    if f.wait == Wait::Turn {
                        f.wait = Wait::Nothing;
                    }
                }
                continue;
            }
            if self.resolve() {
                continue;
            }
            return;
        }
    }

    /// All subsets wait. True when something can run again.
    fn resolve(&mut self) -> bool {
        if self.release_warp_barrier() {
            return true;
        }
        let debug = &self.env.program.debug;
        self.warp.others.sort_by_key(|f| debug[f.pc].line);
        let first = self.warp.others[0];
        if let Wait::Barrier { id, .. } = first.wait
            && self.all_at_barrier(id)
        {
            self.arrive_from_everywhere(id);
            return self.stop == Stop::Run;
        }
        self.fail_divergent(first);
        false
    }

    /// `bar.warp.sync` may be reached at different places. True when all its members are there: all
    /// subsets go on behind their own instruction.
    fn release_warp_barrier(&mut self) -> bool {
        let mut union = 0;
        let mut members = 0;
        for f in &self.warp.others {
            if let Wait::Sync {
                members: m,
                anywhere: true,
            } = f.wait
            {
                union |= f.mask;
                members |= m;
            }
        }
        if union == 0 || members & self.warp.live & !union != 0 {
            return false;
        }
        for f in &mut self.warp.others {
            if let Wait::Sync { anywhere: true, .. } = f.wait {
                f.wait = Wait::Nothing;
                f.pc += 1;
            }
        }
        self.warp.clock.advance();
        true
    }

    /// Whether the whole warp is at instructions of one barrier that need not be the same
    /// instruction.
    fn all_at_barrier(&self, id: u32) -> bool {
        let others = &self.warp.others;
        let all = others.iter().fold(0, |m, f| m | f.mask);
        all == self.warp.live
            && others.iter().all(
                |f| matches!(f.wait, Wait::Barrier { id: other, aligned: false, .. } if other == id),
            )
    }

    /// The warp arrives as one when the first subset's barrier is carried out, and every subset
    /// goes on behind its own instruction.
    fn arrive_from_everywhere(&mut self, id: u32) {
        for f in &mut self.warp.others {
            f.wait = Wait::Nothing;
            f.pc += 1;
        }
        let f = self.warp.others.swap_remove(0);
        self.warp.pc = f.pc;
        self.warp.mask = f.mask;
        self.warp.idle = false;
        self.meet();
        let ins = self.env.program.code[f.pc - 1];
        self.arrive(&ins, id);
    }

    /// No subset can go on: a fault at the first of them.
    fn fail_divergent(&mut self, first: Subset) {
        let mut places: Vec<String> = self
            .warp
            .others
            .iter()
            .map(|f| {
                let line = self.env.program.debug[f.pc].line;
                format!(
                    "lanes {:#010x} wait at PTX line {line} ({})",
                    f.mask,
                    self.env.program.text(line)
                )
            })
            .collect();
        places.sort();
        let missing = self
            .warp
            .others
            .iter()
            .find_map(|f| match f.wait {
                Wait::Sync { members, .. } => Some(members & self.warp.live & !f.mask),
                Wait::Barrier { .. } => Some(self.warp.live & !f.mask),
                _ => None,
            })
            .unwrap_or(0);
        self.warp.pc = first.pc + 1;
        self.fail(
            FaultKind::DivergentSync,
            first.mask.trailing_zeros(),
            format!(
                "not all threads it waits for can reach it (missing lanes {missing:#010x}): {}",
                places.join("; ")
            ),
        );
    }

    /// For a `.sync` instruction whose executing lanes `mask` name `members`: true when all live
    /// members are here. Otherwise the lanes wait, and the caller must do nothing.
    #[inline]
    pub fn converged(&mut self, mask: u32, members: u32, anywhere: bool) -> bool {
        if members & self.warp.live & !mask == 0 {
            return true;
        }
        self.set_aside(mask, self.warp.pc - 1, Wait::Sync { members, anywhere });
        false
    }

    /// Whether lanes that leave the kernel are missed by a subset that waits for them: a fault there.
    ///
    /// Collectives (`shfl`, `vote`, `match`, `redux`, `elect`, matrix instructions) miss every lane
    /// that their masks name and that had not left when they were reached. They wait for "all
    /// non-exited threads" of a mask (PTX ISA, `shfl.sync` and the others), so a card goes on, but
    /// without the values of these lanes: the mask does not say what the program does.
    /// `bar.warp.sync` returns nothing, so nothing is missed. For block barriers see
    /// [`wait_at_barrier`](Self::wait_at_barrier).
    #[cold]
    fn are_missed(&mut self, lanes: u32) -> bool {
        let missing = |f: &Subset| match f.wait {
            Wait::Sync {
                members,
                anywhere: false,
            } => members & lanes,
            Wait::Barrier { awaited, .. } => awaited & lanes,
            _ => 0,
        };
        let waiting = self.warp.others.iter().filter(|f| missing(f) != 0);
        let Some(&f) = waiting.min_by_key(|f| f.pc) else {
            return false;
        };
        self.warp.pc = f.pc + 1;
        self.fail(
            FaultKind::DivergentSync,
            f.mask.trailing_zeros(),
            format!(
                "lanes {:#010x}, which it waits for, took another path and have left the kernel without reaching it (waiting: lanes {:#010x})",
                missing(&f),
                f.mask
            ),
        );
        true
    }

    /// Lanes leave the kernel.
    pub fn exit(&mut self, lanes: u32) {
        if self.env.checks && !self.warp.others.is_empty() && self.are_missed(lanes) {
            return;
        }
        self.events += 1;
        self.warp.live &= !lanes;
        self.warp.mask &= !lanes;
        if self.warp.mask == 0 {
            self.choose();
        }
    }
}

/// Subsets that wait at one `.sync` instruction are one.
fn merge_waiting(others: &mut Vec<Subset>) {
    let mut i = 0;
    while i < others.len() {
        let mut j = i + 1;
        while j < others.len() {
            let (a, b) = (others[i], others[j]);
            let joint = match (a.wait, b.wait) {
                (Wait::Nothing, Wait::Nothing) => Some(Wait::Nothing),
                (
                    Wait::Sync {
                        members: x,
                        anywhere,
                    },
                    Wait::Sync { members: y, .. },
                ) => Some(Wait::Sync {
                    members: x | y,
                    anywhere,
                }),
                (
                    Wait::Barrier {
                        id,
                        aligned,
                        awaited: x,
                    },
                    Wait::Barrier { awaited: y, .. },
                ) => Some(Wait::Barrier {
                    id,
                    aligned,
                    awaited: x | y,
                }),
                _ => None,
            };
            match joint {
                Some(wait) if a.pc == b.pc => {
                    others[i] = Subset {
                        pc: a.pc,
                        mask: a.mask | b.mask,
                        wait,
                        idle: a.idle && b.idle,
                    };
                    others.swap_remove(j);
                }
                _ => j += 1,
            }
        }
        i += 1;
    }
}
