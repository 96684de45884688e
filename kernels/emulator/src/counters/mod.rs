//! The counts of a profiler, never seconds. Every figure depends on the program alone, so two runs
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
    /// 32-byte sectors they access, once per instruction.
    pub sectors: u64,
    /// Distinct bytes they access, once per instruction.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, o: &Traffic) {
        self.requests += o.requests;
        self.sectors += o.sectors;
        self.bytes += o.bytes;
    }
}

/// Device memory whose traffic is also counted separately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub name: String,
    pub from: u64,
    pub to: u64,
}

/// Traffic of one [`Range`].
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct RangeTraffic {
    pub load: Traffic,
    pub store: Traffic,
    pub atomic: Traffic,
    pub dram_read_bytes: u64,
    pub l2_hit_sectors: u64,
    pub l2_miss_sectors: u64,
}

impl RangeTraffic {
    fn add(&mut self, o: &RangeTraffic) {
        self.load.add(&o.load);
        self.store.add(&o.store);
        self.atomic.add(&o.atomic);
        self.dram_read_bytes += o.dram_read_bytes;
        self.l2_hit_sectors += o.l2_hit_sectors;
        self.l2_miss_sectors += o.l2_miss_sectors;
    }
}

/// Figures that add up over blocks and launches.
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
    /// Those whose row and column both contain a value other than zero.
    pub tensor_useful: u64,
    pub dram_read_bytes: u64,
    pub dram_write_bytes: u64,
    pub l2_hit_sectors: u64,
    pub l2_miss_sectors: u64,
    /// By name of the range.
    pub ranges: BTreeMap<String, RangeTraffic>,
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
        for (name, t) in &o.ranges {
            self.ranges.entry(name.clone()).or_default().add(t);
        }
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
    ranges: Arc<[Range]>,
    by_range: Vec<RangeTraffic>,
    /// Sectors in the order of their use: sector number times two, plus one for a write.
    log: Vec<u64>,
}

impl Counts {
    pub fn new(program: &Program, ranges: Arc<[Range]>) -> Counts {
        let n = program.code.len();
        let classes = program.code.iter().map(|i| i.class).collect();
        Counts::zero(vec![0; n], vec![0; n], classes, ranges)
    }

    /// All zero, for the next block.
    pub fn restart(&mut self) {
        self.executed.fill(0);
        self.lanes.fill(0);
        *self = Counts::zero(
            std::mem::take(&mut self.executed),
            std::mem::take(&mut self.lanes),
            std::mem::take(&mut self.classes),
            self.ranges.clone(),
        );
    }

    /// `executed` and `lanes` by instruction, all zero.
    fn zero(
        executed: Vec<u64>,
        lanes: Vec<u64>,
        classes: Vec<Class>,
        ranges: Arc<[Range]>,
    ) -> Counts {
        Counts {
            executed,
            lanes,
            classes,
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
            by_range: vec![RangeTraffic::default(); ranges.len()],
            ranges,
            log: Vec::new(),
        }
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
        let mut sectors = [0u64; 64];
        let (n, useful) = footprint(addrs, mask, bytes, &mut sectors);
        let add = |t: &mut Traffic, sectors: usize, bytes: u64| {
            t.requests += 1;
            t.sectors += sectors as u64;
            t.bytes += bytes;
        };
        let kind = |loads, stores, atomics| match touch {
            Touch::Atomic => atomics,
            _ if touch.writes() => stores,
            _ => loads,
        };
        add(
            kind(&mut self.loads, &mut self.stores, &mut self.atomics),
            n,
            useful,
        );
        for (r, t) in self.ranges.iter().zip(&mut self.by_range) {
            let inside = lanes_of(mask)
                .filter(|&l| addrs[l] >= r.from && addrs[l] < r.to)
                .fold(0u32, |m, l| m | 1 << l);
            let t = kind(&mut t.load, &mut t.store, &mut t.atomic);
            if inside == mask {
                add(t, n, useful);
            } else if inside != 0 {
                let (n, useful) = footprint(addrs, inside, bytes, &mut [0; 64]);
                add(t, n, useful);
            }
        }
        let write = u64::from(touch.writes());
        self.log.extend(sectors[..n].iter().map(|s| s * 2 + write));
    }

    /// Lanes of an asynchronous copy that read `read` bytes each, less than they write; `alone`
    /// when they are all the lanes of their request.
    pub fn partial_copy(&mut self, addrs: &[u64; 32], read: &[u32; 32], mask: u32, alone: bool) {
        let before = (self.loads.requests, self.by_range.clone());
        let mut any = false;
        for lane in lanes_of(mask).filter(|&l| read[l] != 0) {
            self.global(addrs, 1 << lane, read[lane], Touch::Read);
            any = true;
        }
        self.loads.requests = before.0 + u64::from(any && alone);
        for (t, b) in self.by_range.iter_mut().zip(before.1) {
            let new = t.load.requests != b.load.requests;
            t.load.requests = b.load.requests + u64::from(new && alone);
        }
    }

    /// A request to shared memory: 32 banks of four bytes; wider accesses go half or quarter warp
    /// by half or quarter warp, and lanes that name the same word share it.
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
            // Nearly always every bank serves one word.
            let mut first = [u64::MAX; 32];
            let mut clear = touch != Touch::Atomic;
            for lane in lanes_of(part) {
                for w in 0..u64::from(bytes.div_ceil(4)) {
                    let word = addrs[lane] / 4 + w;
                    let bank = &mut first[(word % 32) as usize];
                    clear &= *bank == u64::MAX || *bank == word;
                    *bank = word;
                }
            }
            if clear {
                self.shared_passes += 1;
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

/// The sectors a request accesses, and how many distinct bytes.
fn footprint(addrs: &[u64; 32], mask: u32, bytes: u32, sectors: &mut [u64; 64]) -> (usize, u64) {
    let mut n = 0;
    if contiguous(addrs, mask, bytes) {
        let (first, last) = (addrs[0] / 32, (addrs[31] + u64::from(bytes) - 1) / 32);
        for s in first..=last {
            sectors[n] = s;
            n += 1;
        }
        return (n, u64::from(bytes) * 32);
    }
    let mut starts = [u64::MAX; 32];
    for lane in lanes_of(mask) {
        starts[n] = addrs[lane];
        // An aligned access of up to 16 bytes never crosses a sector.
        sectors[n] = addrs[lane] / 32;
        n += 1;
    }
    let starts = &mut starts[..n];
    starts.sort_unstable();
    let (mut end, mut useful) = (0, 0);
    for &s in &*starts {
        let e = s + u64::from(bytes);
        useful += e.saturating_sub(s.max(end));
        end = end.max(e);
    }
    sectors[..n].sort_unstable();
    (dedup(&mut sectors[..n]), useful)
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

/// Facts of the device and the launch that the counters need.
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
    pub ranges: Arc<[Range]>,
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
    /// Tensor-core multiply-adds and global sectors by multiprocessor.
    pub sm_tensor_products: Vec<u64>,
    pub sm_sectors: Vec<u64>,
    by_range: Vec<RangeTraffic>,
    /// Executions by PTX line.
    pub lines: BTreeMap<u32, u64>,
    debug: Vec<u32>,
    /// Sector logs of blocks that finished before an earlier block did.
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
            sm_tensor_products: vec![0; modelled.sms as usize],
            sm_sectors: vec![0; modelled.sms as usize],
            by_range: vec![RangeTraffic::default(); modelled.ranges.len()],
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
        self.sm_tensor_products[sm as usize] += c.tensor_products;
        self.sm_sectors[sm as usize] += c.log.len() as u64;
        for (all, one) in self.by_range.iter_mut().zip(&c.by_range) {
            all.add(one);
        }
        self.early.insert(block, std::mem::take(&mut c.log));
        while let Some(log) = self.early.remove(&self.next) {
            self.through_l2(&log);
            self.next += 1;
        }
    }

    /// Replays the sector logs into the L2 in launch order, independent of the threads that ran the
    /// blocks.
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
            let read = if seen.hit || write { 0 } else { 32 };
            t.l2_hit_sectors += u64::from(seen.hit);
            t.l2_miss_sectors += u64::from(!seen.hit);
            t.dram_read_bytes += read;
            for (r, t) in self.modelled.ranges.iter().zip(&mut self.by_range) {
                if sector * 32 < r.to && sector * 32 + 32 > r.from {
                    t.l2_hit_sectors += u64::from(seen.hit);
                    t.l2_miss_sectors += u64::from(!seen.hit);
                    t.dram_read_bytes += read;
                }
            }
            t.dram_write_bytes += seen.written_back * 32;
        }
    }

    pub fn finish(mut self) -> LaunchCounts {
        let rest = std::mem::take(&mut self.early);
        for log in rest.values() {
            self.through_l2(log);
        }
        for (r, t) in self.modelled.ranges.iter().zip(&self.by_range) {
            self.totals.ranges.entry(r.name.clone()).or_default().add(t);
        }
        self
    }

    /// Warp instructions of the heaviest multiprocessor over the mean of all.
    pub fn balance(&self) -> f64 {
        let sum: u64 = self.sm_instructions.iter().sum();
        let most = self.sm_instructions.iter().copied().max().unwrap_or(0);
        if sum == 0 {
            return 1.0;
        }
        most as f64 * self.sm_instructions.len() as f64 / sum as f64
    }

    /// Resident warps over the maximum of a multiprocessor, by threads and shared memory. Register
    /// counts are not known: the real compiler assigns registers.
    pub fn occupancy(&self) -> f64 {
        let m = &self.modelled;
        let warps = m.block.iter().product::<u32>().div_ceil(32) * m.blocks_per_sm;
        f64::from(warps.min(m.warps_per_sm)) / f64::from(m.warps_per_sm.max(1))
    }
}
