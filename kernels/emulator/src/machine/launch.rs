//! A launch: what all its blocks see, and running it to its end.

use super::program::{Program, Special};
use super::turns::Work;
use super::warp::Warp;
use crate::checks::Report;
use crate::counters::{LaunchCounts, Modelled};
use crate::memory::Heap;
use crate::tensor::TensorCore;
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
    /// Host threads; 0: by the machine and the kernel.
    pub threads: usize,
    pub seed: u64,
    /// Maximum of warp instructions a host thread may run; a launch beyond it is ended.
    pub limit: u64,
    /// Launch number, 1 to 1023, for the race check.
    pub epoch: u64,
    pub modelled: Option<Modelled>,
    /// Adds as these tensor cores do; `None`: in f64, with one rounding.
    pub tensor_core: Option<TensorCore>,
    /// Address of the barrier word of `cooperative_groups::grid_group`.
    pub workspace: u64,
}

impl LaunchSetup<'_> {
    fn blocks(&self) -> u64 {
        self.grid.iter().map(|g| u64::from(*g)).product()
    }

    /// Host threads of the launch.
    fn workers(&self) -> usize {
        let blocks = self.blocks();
        match self.threads {
            _ if self.cooperative || blocks == 1 => 1,
            // Blocks that communicate do so in the same order in every run.
            0 if self.program.communicates => 1,
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        }
        .min(blocks as usize)
        .max(1)
    }

    /// Blocks that take turns at once: as many as the card holds and the host has memory for.
    fn resident(&self, block_bytes: u64) -> u64 {
        if self.cooperative {
            return self.blocks();
        }
        let fit = (HOST_MEMORY / block_bytes.max(1)).max(64);
        self.resident.max(1).min(self.blocks()).min(fit)
    }
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
    /// Backward branches of a divergent subset before the others have their turn.
    pub spin_limit: u32,
    pub epoch: u64,
    /// Fences by block, for the race check.
    pub fences: Vec<AtomicU64>,
    /// Instructions without any event after which a launch whose threads all poll is stuck.
    pub patience: u64,
    /// Maximum of warp instructions a host thread may run for the launch.
    pub limit: u64,
    pub print: Mutex<Vec<u8>>,
    pub several_blocks: bool,
    pub tensor_core: Option<TensorCore>,
    /// Starts of the allocations that kernels must not write.
    read_only: Vec<u64>,
    workspace: u64,
    /// Place in launch order of the first block found at fault.
    pub failed: AtomicU64,
}

impl<'a> Launch<'a> {
    fn new(setup: &mut LaunchSetup<'a>) -> Launch<'a> {
        let blocks = setup.blocks();
        let checks = setup.heap.checks();
        // The race check's block numbers end at 2^20.
        let fences = if checks { blocks.min(1 << 20) } else { 0 };
        Launch {
            program: setup.program,
            heap: setup.heap,
            params: std::mem::take(&mut setup.params),
            grid: setup.grid,
            block: setup.block,
            dynamic_shared: setup.dynamic_shared,
            checks,
            sms: setup.sms.max(1),
            slice: 20_000,
            spin_limit: 1000,
            epoch: setup.epoch,
            fences: (0..fences).map(|_| AtomicU64::new(0)).collect(),
            patience: PATIENCE,
            limit: setup.limit,
            print: Mutex::new(Vec::new()),
            several_blocks: blocks > 1,
            tensor_core: setup.tensor_core,
            read_only: setup.heap.read_only(),
            workspace: setup.workspace,
            failed: AtomicU64::new(u64::MAX),
        }
    }

    /// Host memory of a resident block, about.
    fn block_bytes(&self) -> u64 {
        let (p, warps) = (self.program, u64::from(self.warps()));
        let registers = p.slots as u64 * 128 + u64::from(p.local_bytes) * 64;
        let shared = u64::from(p.shared_bytes + self.dynamic_shared);
        warps * registers + shared * (4 + warps)
    }

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

/// Instructions without an event after which a launch whose threads all poll counts as stuck. A
/// lock's owner may compute for long between two writes, but then it does not poll.
const PATIENCE: u64 = 4_000_000;

/// Host memory for blocks that wait for others.
const HOST_MEMORY: u64 = 1 << 30;

/// Runs a launch to its end. The report is the failed check of the first block, in launch order,
/// that has one.
pub fn run(mut setup: LaunchSetup<'_>) -> Result<Option<LaunchCounts>, Box<Report>> {
    let env = Launch::new(&mut setup);
    let threads = setup.workers();
    let resident = setup.resident(env.block_bytes());
    let ranges = setup
        .modelled
        .as_ref()
        .map_or_else(|| Arc::from([]), |m| m.ranges.clone());
    let work = Work {
        next: AtomicU64::new(0),
        blocks: setup.blocks(),
        seed: setup.seed,
        resident: (resident as usize).div_ceil(threads),
        alone: threads == 1,
        ranges,
        merge: setup
            .modelled
            .map(|m| Mutex::new(LaunchCounts::new(setup.program, m))),
    };
    let mut failed: Vec<(u64, Box<Report>)> = if threads == 1 {
        work.run(&env).into_iter().collect()
    } else {
        std::thread::scope(|s| {
            let handles: Vec<_> = (0..threads).map(|_| s.spawn(|| work.run(&env))).collect();
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
