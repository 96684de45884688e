//! What a profiler would count. Never seconds: every figure is a count of the program's own doing, so two runs
//! print the same.

mod l2;
mod report;

pub use l2::L2;
pub use report::{json, table};

use crate::checks::Touch;
use crate::machine::{Class, Program, contiguous, lanes_of};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Totals of one kind of memory traffic.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Warp instructions.
    pub requests: u64,
    /// 32-byte sectors they touch, once per instruction.
    pub sectors: u64,
    /// Different bytes they touch, once per instruction.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, o: &Traffic) {
        self.requests += o.requests;
        self.sectors += o.sectors;
        self.bytes += o.bytes;
    }
}

/// Figures that simply add up.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Warp instructions by class.
    pub instructions: BTreeMap<&'static str, u64>,
    /// Lanes that executed them.
    pub lanes: u64,
    pub divergent_branches: u64,
    pub barriers: u64,
    pub global_load: Traffic,
    pub global_store: Traffic,
    pub global_atomic: Traffic,
    pub shared_requests: u64,
    /// Passes through shared memory that the requests took.
    pub shared_passes: u64,
    /// Passes that conflicts between banks added.
    pub bank_conflicts: u64,
    /// Multiply-adds of tensor-core instructions.
    pub tensor_products: u64,
    /// Those whose row and column both hold something but zeros.
    pub tensor_useful: u64,
    pub dram_read_bytes: u64,
    pub dram_write_bytes: u64,
    pub l2_hit_sectors: u64,
    pub l2_miss_sectors: u64,
}

impl Totals {
    pub fn warp_instructions(&self) -> u64 {
        self.instructions.values().sum()
    }

    pub fn add(&mut self, o: &Totals) {
        for (k, v) in &o.instructions {
            *self.instructions.entry(k).or_default() += v;
        }
        self.lanes += o.lanes;
        self.divergent_branches += o.divergent_branches;
        self.barriers += o.barriers;
        self.global_load.add(&o.global_load);
        self.global_store.add(&o.global_store);
        self.global_atomic.add(&o.global_atomic);
        self.shared_requests += o.shared_requests;
        self.shared_passes += o.shared_passes;
        self.bank_conflicts += o.bank_conflicts;
        self.tensor_products += o.tensor_products;
        self.tensor_useful += o.tensor_useful;
        self.dram_read_bytes += o.dram_read_bytes;
        self.dram_write_bytes += o.dram_write_bytes;
        self.l2_hit_sectors += o.l2_hit_sectors;
        self.l2_miss_sectors += o.l2_miss_sectors;
    }
}

/// Counts of one block while it runs.
pub struct Counts {
    executed: Vec<u64>,
    lanes: Vec<u64>,
    classes: Vec<Class>,
    pub divergent_branches: u64,
    pub barriers: u64,
    pub tensor_products: u64,
    pub tensor_useful: u64,
    loads: Traffic,
    stores: Traffic,
    atomics: Traffic,
    shared_requests: u64,
    shared_passes: u64,
    bank_conflicts: u64,
    /// Sectors in the order of their use: sector number times two, plus one for a write.
    log: Vec<u64>,
}

impl Counts {
    pub fn new(program: &Program) -> Counts {
        let n = program.code.len();
        Counts {
            executed: vec![0; n],
            lanes: vec![0; n],
            classes: program.code.iter().map(|i| i.class).collect(),
            divergent_branches: 0,
            barriers: 0,
            tensor_products: 0,
            tensor_useful: 0,
            loads: Traffic::default(),
            stores: Traffic::default(),
            atomics: Traffic::default(),
            shared_requests: 0,
            shared_passes: 0,
            bank_conflicts: 0,
            log: Vec::new(),
        }
    }

    /// All zero, for the next block.
    pub fn restart(&mut self) {
        self.executed.fill(0);
        self.lanes.fill(0);
        *self = Counts {
            executed: std::mem::take(&mut self.executed),
            lanes: std::mem::take(&mut self.lanes),
            classes: std::mem::take(&mut self.classes),
            log: Vec::new(),
            divergent_branches: 0,
            barriers: 0,
            tensor_products: 0,
            tensor_useful: 0,
            loads: Traffic::default(),
            stores: Traffic::default(),
            atomics: Traffic::default(),
            shared_requests: 0,
            shared_passes: 0,
            bank_conflicts: 0,
        };
    }

    #[inline(always)]
    pub fn step(&mut self, pc: usize, mask: u32) {
        self.executed[pc] += 1;
        self.lanes[pc] += u64::from(mask.count_ones());
    }

    /// A request to global memory.
    pub fn global(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, touch: Touch) {
        if mask == 0 {
            return;
        }
        let write = u64::from(touch.writes());
        let mut sectors = [0u64; 64];
        let mut n = 0;
        let useful;
        if contiguous(addrs, mask, bytes) {
            let (first, last) = (addrs[0] / 32, (addrs[31] + u64::from(bytes) - 1) / 32);
            for s in first..=last {
                sectors[n] = s;
                n += 1;
            }
            useful = u64::from(bytes) * 32;
        } else {
            let mut starts = [u64::MAX; 32];
            let mut count = 0;
            for lane in lanes_of(mask) {
                starts[count] = addrs[lane];
                count += 1;
                // An aligned access of up to 16 bytes never crosses a sector.
                sectors[n] = addrs[lane] / 32;
                n += 1;
            }
            starts[..count].sort_unstable();
            let mut end = 0;
            let mut sum = 0;
            for &s in &starts[..count] {
                let e = s + u64::from(bytes);
                sum += e.saturating_sub(s.max(end));
                end = end.max(e);
            }
            useful = sum;
            sectors[..n].sort_unstable();
            n = dedup(&mut sectors[..n]);
        }
        let t = match touch {
            Touch::Atomic => &mut self.atomics,
            _ if touch.writes() => &mut self.stores,
            _ => &mut self.loads,
        };
        t.requests += 1;
        t.sectors += n as u64;
        t.bytes += useful;
        self.log.extend(sectors[..n].iter().map(|s| s * 2 + write));
    }

    /// A request to shared memory: 32 banks of four bytes; wider accesses go half or quarter warp by half or
    /// quarter warp, and lanes that name the same word share it.
    pub fn shared(&mut self, addrs: &[u64; 32], mask: u32, bytes: u32, touch: Touch) {
        if mask == 0 {
            return;
        }
        let group = match bytes {
            16 => 8,
            8 => 16,
            _ => 32,
        };
        self.shared_requests += 1;
        for first in (0..32).step_by(group) {
            let part = mask & (((1u64 << group) - 1) << first) as u32;
            if part == 0 {
                continue;
            }
            let mut words = [0u64; 32];
            let mut n = 0;
            for lane in lanes_of(part) {
                for w in 0..u64::from(bytes.div_ceil(4)) {
                    words[n] = addrs[lane] / 4 + w;
                    n += 1;
                }
            }
            words[..n].sort_unstable();
            if touch != Touch::Atomic {
                n = dedup(&mut words[..n]);
            }
            let mut banks = [0u64; 32];
            for w in &words[..n] {
                banks[(w % 32) as usize] += 1;
            }
            let passes = banks.iter().copied().max().unwrap_or(1);
            self.shared_passes += passes;
            self.bank_conflicts += passes - 1;
        }
    }
}

fn dedup(sorted: &mut [u64]) -> usize {
    let mut n = 0;
    for i in 0..sorted.len() {
        if i == 0 || sorted[i] != sorted[n - 1] {
            sorted[n] = sorted[i];
            n += 1;
        }
    }
    n
}

/// What the counters need to know of the device and the launch.
#[derive(Clone)]
pub struct Modelled {
    pub l2: Arc<Mutex<L2>>,
    pub sms: u32,
    /// Blocks that fit on one multiprocessor, and the warps it can hold.
    pub blocks_per_sm: u32,
    pub warps_per_sm: u32,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
}

/// Counts of one launch.
pub struct LaunchCounts {
    pub kernel: String,
    pub totals: Totals,
    pub blocks: u64,
    pub modelled: Modelled,
    /// Blocks and warp instructions by multiprocessor.
    pub sm_blocks: Vec<u64>,
    pub sm_instructions: Vec<u64>,
    /// Executions by PTX line.
    pub lines: BTreeMap<u32, u64>,
    debug: Vec<u32>,
    /// Sector logs of blocks that finished before their turn.
    early: BTreeMap<u64, Vec<u64>>,
    next: u64,
}

impl LaunchCounts {
    pub fn new(program: &Program, modelled: Modelled) -> LaunchCounts {
        LaunchCounts {
            kernel: program.name.clone(),
            totals: Totals::default(),
            blocks: modelled.grid.iter().map(|g| u64::from(*g)).product(),
            sm_blocks: vec![0; modelled.sms as usize],
            sm_instructions: vec![0; modelled.sms as usize],
            modelled,
            lines: BTreeMap::new(),
            debug: program.debug.iter().map(|d| d.line).collect(),
            early: BTreeMap::new(),
            next: 0,
        }
    }

    /// A block has finished.
    pub fn add(&mut self, block: u64, sm: u32, c: &mut Counts) {
        let t = &mut self.totals;
        let mut sum = 0;
        for (pc, &n) in c.executed.iter().enumerate() {
            if n == 0 || c.classes[pc] == Class::Hidden {
                continue;
            }
            *t.instructions.entry(c.classes[pc].name()).or_default() += n;
            t.lanes += c.lanes[pc];
            *self.lines.entry(self.debug[pc]).or_default() += n;
            sum += n;
        }
        t.divergent_branches += c.divergent_branches;
        t.barriers += c.barriers;
        t.tensor_products += c.tensor_products;
        t.tensor_useful += c.tensor_useful;
        t.global_load.add(&c.loads);
        t.global_store.add(&c.stores);
        t.global_atomic.add(&c.atomics);
        t.shared_requests += c.shared_requests;
        t.shared_passes += c.shared_passes;
        t.bank_conflicts += c.bank_conflicts;
        self.sm_blocks[sm as usize] += 1;
        self.sm_instructions[sm as usize] += sum;
        self.early.insert(block, std::mem::take(&mut c.log));
        while let Some(log) = self.early.remove(&self.next) {
            self.through_l2(&log);
            self.next += 1;
        }
    }

    /// Blocks pass the L2 in launch order, whichever thread ran them when.
    fn through_l2(&mut self, log: &[u64]) {
        let mut l2 = self
            .modelled
            .l2
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let t = &mut self.totals;
        for entry in log {
            let (sector, write) = (entry / 2, entry & 1 == 1);
            let seen = l2.access(sector, write);
            if seen.hit {
                t.l2_hit_sectors += 1;
            } else {
                t.l2_miss_sectors += 1;
                t.dram_read_bytes += if write { 0 } else { 32 };
            }
            t.dram_write_bytes += seen.written_back * 32;
        }
    }

    pub fn finish(mut self) -> LaunchCounts {
        let rest = std::mem::take(&mut self.early);
        for log in rest.values() {
            self.through_l2(log);
        }
        self
    }

    /// Resident warps over the most a multiprocessor can hold, by threads and shared memory. Registers are the
    /// real compiler's to tell.
    pub fn occupancy(&self) -> f64 {
        let m = &self.modelled;
        let warps = m.block.iter().product::<u32>().div_ceil(32) * m.blocks_per_sm;
        f64::from(warps.min(m.warps_per_sm)) / f64::from(m.warps_per_sm.max(1))
    }
}
