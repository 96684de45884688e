//! Blocks dealt to host threads, and the turns that the blocks of one thread take.

use super::block::Block;
use super::launch::Launch;
use super::warp::{Cx, Stop, Warp};
use crate::checks::{Fault, Report};
use crate::counters::{Counts, LaunchCounts, Range};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What the workers of a launch share.
pub struct Work {
    /// The number of the next block to start.
    pub next: AtomicU64,
    pub blocks: u64,
    /// Order of the blocks; 0 is launch order.
    pub seed: u64,
    /// Blocks that take turns in one worker.
    pub resident: usize,
    pub merge: Option<Mutex<LaunchCounts>>,
    /// One worker runs all blocks, so it sees every event.
    pub alone: bool,
    pub ranges: Arc<[Range]>,
}

impl Work {
    /// The block that starts as number `n`: a permutation chosen by the seed; seed 0 is launch
    /// order.
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
    /// Returns the first failed check with the block's place in launch order.
    pub fn run(&self, env: &Launch<'_>) -> Option<(u64, Box<Report>)> {
        // Blocks that communicate take short turns, the one that has run the fewest instructions
        // first: work dealt by tickets spreads as on a card whose multiprocessors are equally fast.
        let slice = if env.program.communicates {
            1
        } else {
            2_000_000
        };
        let mut worker = Worker::new(self, env);
        loop {
            // Blocks before a failed one finish their turn, so that two runs report the same block.
            if env.failed.load(Relaxed) != u64::MAX {
                return None;
            }
            let (order, before) = worker.next_block()?;
            let cx = &mut worker.cx;
            let clock = cx.clock;
            for w in cx.block.warps.iter_mut().flatten() {
                w.polls = false;
            }
            let done = cx.run_block(slice);
            let spent = before + (cx.clock - clock);
            worker.check_progress(order, done);
            if let Some(fault) = worker.cx.fault.take() {
                env.failed.fetch_min(order, Relaxed);
                return Some((order, Box::new(report(env, worker.cx.block.id, fault))));
            }
            worker.put_away(order, spent, done);
        }
    }
}

/// A block that waits for its next turn, with its counts.
type Waiting = (Block, Option<Box<Counts>>);

/// One host thread with the blocks that take turns in it.
struct Worker<'w, 'e> {
    work: &'w Work,
    cx: Cx<'e>,
    /// By instructions spent, then by place in the order.
    waiting: BTreeMap<(u64, u64), Waiting>,
    /// Blocks that only polled in their last turn.
    polling: BTreeSet<u64>,
    /// Number of events and clock when the first of them began to.
    quiet: (u64, u64),
    /// Instructions spent by the block that ended last, with which a new block begins.
    freed_at: u64,
    spare: Vec<Block>,
    #[expect(
        clippy::vec_box,
        reason = "a block's counts are boxed: they move between both"
    )]
    spare_counts: Vec<Box<Counts>>,
}

impl<'w, 'e> Worker<'w, 'e> {
    fn new(work: &'w Work, env: &'e Launch<'e>) -> Worker<'w, 'e> {
        Worker {
            work,
            cx: Cx {
                warp: Warp::empty(),
                block: Block::nowhere(),
                env,
                stop: Stop::Run,
                fault: None,
                counts: None,
                clock: 0,
                events: 0,
            },
            waiting: BTreeMap::new(),
            polling: BTreeSet::new(),
            quiet: (0, 0),
            freed_at: 0,
            spare: Vec::new(),
            spare_counts: Vec::new(),
        }
    }

    /// Puts the block whose turn it is into the context: a new one if there is room, else the one
    /// that has spent least. Returns its place in the order and the instructions it has spent.
    fn next_block(&mut self) -> Option<(u64, u64)> {
        let (work, env) = (self.work, self.cx.env);
        if self.waiting.len() < work.resident {
            let n = work.next.fetch_add(1, Relaxed);
            if n < work.blocks {
                let mut block = self.spare.pop().unwrap_or_else(|| Block::new(env));
                block.restart(env, work.block(n));
                self.cx.block = block;
                self.cx.counts = work.merge.is_some().then(|| {
                    self.spare_counts
                        .pop()
                        .unwrap_or_else(|| Box::new(Counts::new(env.program, work.ranges.clone())))
                });
                return Some((n, self.freed_at));
            }
        }
        let ((spent, n), (block, counts)) = self.waiting.pop_first()?;
        self.cx.block = block;
        self.cx.counts = counts;
        Some((n, spent))
    }

    /// Ends a launch that cannot go on, or has gone on for too long.
    fn check_progress(&mut self, order: u64, done: bool) {
        let (work, cx) = (self.work, &mut self.cx);
        if cx.events != self.quiet.0 || done {
            self.quiet = (cx.events, cx.clock);
            self.polling.clear();
        } else if cx.block_polls() {
            self.polling.insert(order);
        }
        if cx.fault.is_some() {
            return;
        }
        let all_poll = self.polling.contains(&order)
            && self.waiting.keys().all(|w| self.polling.contains(&w.1))
            && (self.waiting.len() + 1 >= work.resident || work.next.load(Relaxed) >= work.blocks);
        if work.alone && all_poll && cx.clock - self.quiet.1 > cx.env.patience {
            cx.stuck();
        }
        if cx.fault.is_none() && cx.clock > cx.env.limit {
            cx.over_limit();
        }
    }

    /// Takes the block out of the context: to wait for its next turn, or to be used again.
    fn put_away(&mut self, order: u64, spent: u64, done: bool) {
        let block = std::mem::replace(&mut self.cx.block, Block::nowhere());
        let mut counts = self.cx.counts.take();
        if !done {
            self.waiting.insert((spent, order), (block, counts));
            return;
        }
        self.freed_at = spent;
        if let (Some(merge), Some(counts)) = (&self.work.merge, &mut counts) {
            merge.lock().unwrap_or_else(PoisonError::into_inner).add(
                block.linear,
                block.sm,
                counts,
            );
            counts.restart();
        }
        self.spare_counts.extend(counts);
        self.spare.push(block);
    }
}

/// Adds the names and lines to a fault.
fn report(env: &Launch<'_>, block: [u32; 3], fault: Fault) -> Report {
    let debug = env.program.debug[fault.pc];
    let [nx, ny, _] = env.block;
    let file = env
        .program
        .files
        .iter()
        .find(|f| f.0 == debug.file)
        .map(|f| f.1.clone());
    Report {
        kind: fault.kind,
        kernel: env.program.name.clone(),
        line: debug.line,
        instruction: env.program.text(debug.line),
        source: file.filter(|_| debug.row != 0).map(|f| (f, debug.row)),
        block,
        thread: [
            fault.thread % nx,
            fault.thread / nx % ny,
            fault.thread / nx / ny,
        ],
        message: fault.message,
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
