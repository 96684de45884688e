//! A whole grid: blocks dealt to threads.

use super::block::Block;
use super::program::{Program, Special};
use super::warp::{Cx, Stop, Warp};
use crate::checks::Report;
use crate::counters::{Counts, LaunchCounts, Modelled, Range};
use crate::memory::Heap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// How a kernel is launched.
pub struct LaunchSetup<'a> {
    pub program: &'a Program,
    pub heap: &'a Heap,
    pub params: Vec<u8>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    /// All blocks must be resident at once: they may wait for one another.
    pub cooperative: bool,
    /// Blocks that may be resident at once over the whole device.
    pub resident: u64,
    pub sms: u32,
    /// Workers; 0 picks by the machine and the kernel.
    pub threads: usize,
    pub seed: u64,
    /// The most warp instructions a host thread may run; a launch beyond is ended.
    pub limit: u64,
    /// Launch number, 1 to 1023, for the race check.
    pub epoch: u64,
    pub modelled: Option<Modelled>,
    /// Address of the word on which `cooperative_groups::grid_group` meets.
    pub workspace: u64,
}

/// What all blocks of a launch see.
pub struct Launch<'a> {
    pub program: &'a Program,
    pub heap: &'a Heap,
    pub params: Vec<u8>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub checks: bool,
    pub sms: u32,
    /// Instructions a warp runs before the next has its turn.
    pub slice: u64,
    /// Backward branches of a fragment before the others have their turn.
    pub spin_limit: u32,
    pub epoch: u64,
    /// Fences by block, for the race check.
    pub fences: Vec<AtomicU64>,
    /// Instructions without any event after which a launch whose threads all poll is stuck.
    pub patience: u64,
    /// The most warp instructions a host thread may run for the launch.
    pub limit: u64,
    pub print: Mutex<Vec<u8>>,
    pub several_blocks: bool,
    /// Starts of the allocations that kernels must not write.
    read_only: Vec<u64>,
    workspace: u64,
    /// Place in launch order of the first block found at fault.
    failed: AtomicU64,
}

impl Launch<'_> {
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    pub fn warps(&self) -> u32 {
        self.threads().div_ceil(32)
    }

    /// Fences the block has executed so far.
    pub fn fences_of(&self, block: u64) -> u64 {
        self.fences
            .get(block as usize)
            .map_or(0, |f| f.load(Relaxed))
    }

    pub fn read_only(&self, base: u64) -> bool {
        self.read_only.contains(&base)
    }

    /// `(x,y,z)` of a linear block index.
    pub fn block_name(&self, linear: u64) -> String {
        let [gx, gy, _] = self.grid.map(u64::from);
        format!(
            "({},{},{})",
            linear % gx,
            linear / gx % gy,
            linear / gx / gy
        )
    }

    /// `(x,y,z)` of a linear thread index.
    pub fn thread_name(&self, linear: u32) -> String {
        let [nx, ny, _] = self.block;
        format!(
            "({},{},{})",
            linear % nx,
            linear / nx % ny,
            linear / nx / ny
        )
    }

    /// Stands in a context while its real warp is parked in the block.
    pub fn spare_warp(&self) -> Warp {
        Warp::empty()
    }

    pub fn fill_specials(&self, w: &mut Warp, block: [u32; 3], sm: u32) {
        let [nx, ny, _] = self.block;
        let warp = w.index;
        let tid = |lane: u32, axis: usize| {
            let t = warp * 32 + lane;
            match axis {
                0 => t % nx,
                1 => t / nx % ny,
                _ => t / nx / ny,
            }
        };
        for &(reg, special) in &self.program.specials {
            for lane in 0..32u32 {
                let v = match special {
                    Special::Tid(axis) => tid(lane, axis),
                    Special::Ntid(axis) => self.block[axis],
                    Special::Ctaid(axis) => block[axis],
                    Special::Nctaid(axis) => self.grid[axis],
                    Special::LaneId => lane,
                    Special::WarpId => warp,
                    Special::WarpCount => self.warps(),
                    Special::SmId => sm,
                    Special::SmCount => self.sms,
                    Special::GridId => self.epoch as u32,
                    Special::LaneMaskEq => 1 << lane,
                    Special::LaneMaskLe => u32::MAX >> (31 - lane),
                    Special::LaneMaskLt => !(u32::MAX << lane),
                    Special::LaneMaskGe => u32::MAX << lane,
                    Special::LaneMaskGt => (u32::MAX << lane) << 1,
                    Special::DynamicShared => self.dynamic_shared,
                    Special::TotalShared => self.dynamic_shared + self.program.shared_bytes,
                    Special::GridWorkspaceHigh => (self.workspace >> 32) as u32,
                    Special::GridWorkspaceLow => self.workspace as u32,
                };
                w.regs.set::<u32>(reg, lane as usize, v);
            }
        }
    }
}

/// Runs a launch to its end. The report is the failed check of the first block, in launch order, that has one.
pub fn run(setup: LaunchSetup<'_>) -> Result<Option<LaunchCounts>, Box<Report>> {
    let blocks: u64 = setup.grid.iter().map(|g| u64::from(*g)).product();
    let env = Launch {
        program: setup.program,
        heap: setup.heap,
        params: setup.params,
        grid: setup.grid,
        block: setup.block,
        dynamic_shared: setup.dynamic_shared,
        checks: setup.heap.checks(),
        sms: setup.sms.max(1),
        slice: 20_000,
        spin_limit: 1000,
        epoch: setup.epoch,
        fences: (0..if setup.heap.checks() {
            blocks.min(1 << 20)
        } else {
            0
        })
            .map(|_| AtomicU64::new(0))
            .collect(),
        patience: PATIENCE,
        limit: setup.limit,
        print: Mutex::new(Vec::new()),
        several_blocks: blocks > 1,
        read_only: setup.heap.read_only(),
        workspace: setup.workspace,
        failed: AtomicU64::new(u64::MAX),
    };
    let threads = match setup.threads {
        _ if setup.cooperative || blocks == 1 => 1,
        // Blocks that talk to one another do so in the same order every time.
        0 if setup.program.communicates => 1,
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    }
    .min(blocks as usize)
    .max(1);
    let resident = if setup.cooperative {
        blocks
    } else {
        // As many as the card holds, but no more than a host has room for.
        let room = (ROOM / block_bytes(&env).max(1)).max(64);
        setup.resident.max(1).min(blocks).min(room)
    };
    let work = Work {
        next: AtomicU64::new(0),
        blocks,
        seed: setup.seed,
        resident: (resident as usize).div_ceil(threads),
        alone: threads == 1,
        ranges: setup
            .modelled
            .as_ref()
            .map_or_else(|| Arc::from([]), |m| m.ranges.clone()),
        merge: setup
            .modelled
            .map(|m| Mutex::new(LaunchCounts::new(setup.program, m))),
    };
    let mut failed: Vec<(u64, Box<Report>)> = if threads == 1 {
        work.worker(&env).into_iter().collect()
    } else {
        std::thread::scope(|s| {
            let handles: Vec<_> = (0..threads)
                .map(|_| s.spawn(|| work.worker(&env)))
                .collect();
            handles
                .into_iter()
                .filter_map(|h| h.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .collect()
        })
    };
    let text = env
        .print
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if !text.is_empty() {
        use std::io::Write;
        // The program's own output; a closed stdout is not the kernel's fault.
        let _ = std::io::stdout().write_all(&text);
    }
    failed.sort_by_key(|f| f.0);
    match failed.into_iter().next() {
        Some((_, report)) => Err(report),
        None => Ok(work.merge.map(|m| {
            m.into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .finish()
        })),
    }
}

/// A lock's owner may compute for long between two writes, but then it does not poll.
const PATIENCE: u64 = 4_000_000;

/// A block that waits for its next turn, with its counts.
type Waiting = (Block, Option<Box<Counts>>);

/// Host memory for blocks that wait for others.
const ROOM: u64 = 1 << 30;

/// Host memory of a resident block, about.
fn block_bytes(env: &Launch<'_>) -> u64 {
    let (p, warps) = (env.program, u64::from(env.warps()));
    let registers = p.slots as u64 * 128 + u64::from(p.local_bytes) * 64;
    let shared = u64::from(p.shared_bytes + env.dynamic_shared);
    warps * registers + shared * (4 + warps)
}

struct Work {
    next: AtomicU64,
    blocks: u64,
    seed: u64,
    resident: usize,
    merge: Option<Mutex<LaunchCounts>>,
    /// One thread runs all blocks: what it does not see happen does not happen.
    alone: bool,
    ranges: Arc<[Range]>,
}

impl Work {
    /// The block that has its turn as number `n`: a permutation chosen by the seed; seed 0 is launch order.
    fn block(&self, n: u64) -> u64 {
        if self.seed == 0 || self.blocks < 2 {
            return n;
        }
        // A walk with a step coprime to the number of blocks visits every block once.
        let mut step = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.blocks;
        while gcd(step, self.blocks) != 1 {
            step += 1;
        }
        let start = self.seed % self.blocks;
        ((u128::from(n) * u128::from(step) + u128::from(start)) % u128::from(self.blocks)) as u64
    }

    /// Takes blocks until none are left. A block that waits for others gives way to the next.
    fn worker(&self, env: &Launch<'_>) -> Option<(u64, Box<Report>)> {
        // Blocks that talk to one another take short turns, the one that has done least first: what they deal out
        // among themselves goes to them as on a card whose multiprocessors are equally fast.
        let slice = if env.program.communicates {
            1
        } else {
            2_000_000
        };
        let ranges = self.ranges.clone();
        let mut cx = Cx {
            warp: Warp::empty(),
            block: Block::nowhere(),
            env,
            stop: Stop::Run,
            fault: None,
            counts: None,
            clock: 0,
            events: 0,
        };
        // Blocks whose last turn was nothing but waiting, and what had happened when the first of them began it.
        let mut waiters: BTreeSet<u64> = BTreeSet::new();
        let mut quiet = (0, 0);
        // By instructions spent, then by place in the order.
        let mut waiting: BTreeMap<(u64, u64), Waiting> = BTreeMap::new();
        // A block begins when one has ended, or at the start.
        let mut freed_at = 0;
        let mut spare: Vec<Block> = Vec::new();
        let mut spare_counts: Vec<Box<Counts>> = Vec::new();
        loop {
            // Blocks before a failed one finish their turn, so that two runs report the same block.
            if env.failed.load(Relaxed) != u64::MAX {
                return None;
            }
            let more = waiting.len() < self.resident;
            let n = if more {
                self.next.fetch_add(1, Relaxed)
            } else {
                self.blocks
            };
            let (order, before);
            if n < self.blocks {
                (order, before) = (n, freed_at);
                let mut block = spare.pop().unwrap_or_else(|| Block::new(env));
                block.restart(env, self.block(n));
                cx.block = block;
                cx.counts = self.merge.is_some().then(|| {
                    spare_counts
                        .pop()
                        .unwrap_or_else(|| Box::new(Counts::new(env.program, ranges.clone())))
                });
            } else {
                let ((spent, n), (block, counts)) = waiting.pop_first()?;
                (order, before) = (n, spent);
                cx.block = block;
                cx.counts = counts;
            }
            let clock = cx.clock;
            for w in cx.block.warps.iter_mut().flatten() {
                w.polls = false;
            }
            let done = cx.run_block(slice);
            let spent = before + (cx.clock - clock);
            if cx.events != quiet.0 || done {
                quiet = (cx.events, cx.clock);
                waiters.clear();
            } else if cx.block_polls() {
                waiters.insert(order);
            }
            let nobody_else = waiting.keys().all(|w| waiters.contains(&w.1))
                && (waiting.len() + 1 >= self.resident || self.next.load(Relaxed) >= self.blocks);
            if self.alone
                && cx.fault.is_none()
                && waiters.contains(&order)
                && nobody_else
                && cx.clock - quiet.1 > env.patience
            {
                cx.stuck();
            }
            if cx.fault.is_none() && cx.clock > env.limit {
                cx.over_limit();
            }
            if let Some(fault) = cx.fault.take() {
                env.failed.fetch_min(order, Relaxed);
                let debug = env.program.debug[fault.pc];
                let [nx, ny, _] = env.block;
                let file = env
                    .program
                    .files
                    .iter()
                    .find(|f| f.0 == debug.file)
                    .map(|f| f.1.clone());
                return Some((
                    order,
                    Box::new(Report {
                        kind: fault.kind,
                        kernel: env.program.name.clone(),
                        line: debug.line,
                        instruction: env.program.text(debug.line),
                        source: file.filter(|_| debug.row != 0).map(|f| (f, debug.row)),
                        block: cx.block.id,
                        thread: [
                            fault.thread % nx,
                            fault.thread / nx % ny,
                            fault.thread / nx / ny,
                        ],
                        message: fault.message,
                    }),
                ));
            }
            let block = std::mem::replace(&mut cx.block, Block::nowhere());
            if done {
                freed_at = spent;
                if let (Some(m), Some(c)) = (&self.merge, &mut cx.counts) {
                    m.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(block.linear, block.sm, c);
                    c.restart();
                }
                spare_counts.extend(cx.counts.take());
                spare.push(block);
            } else {
                waiting.insert((spent, order), (block, cx.counts.take()));
            }
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
