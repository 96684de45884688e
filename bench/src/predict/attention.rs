//! Time of tree attention: the planner's own work lists ([`items::build`]), simulated.
//!
//! A worker takes its units one after the other. A unit first waits: dependent reads of L2, one of DRAM,
//! barriers and its end, which nothing overlaps. Then it streams its tokens; the workers of a multiprocessor
//! share its issue slots, its shared memory and its part of L2's bandwidth. The kernel ends with its last
//! worker, and not before DRAM has given every key and value of the tree once. `merge` then takes a warp for
//! each packed row and KV head, bound by the row with the most partial results.
//!
//! Workers `w` and `w + multiprocessors` are taken to share one, as the planner does; hardware does not
//! promise it.

use kernels::BatchPlan;
use kernels::cuda::items::{self, AttentionShape, AttentionWork, Sharing, TILE};
use kernels::cuda::tiling::Tiling;
use kernels::cuda::{catalog, decodes};

use super::cards::Card;
use super::constants::{CardEnd, Constant};
use super::kernel;

/// Query heads, KV heads, elements of a head.
pub type Heads = (usize, usize, usize);

/// Threads of a block are four warps.
const WARPS: usize = 4;
/// Bytes of a read by all warps of a block of one address: a sector each.
const UNIFORM_READ: usize = 32 * WARPS;
/// Bytes of the work lists that a worker reads: both ends of its list.
const WORKER_BYTES: usize = 2 * UNIFORM_READ;
/// That a unit reads: the list's end again, itself, seven fields of its item.
const UNIT_BYTES: usize = 9 * UNIFORM_READ;
/// That a tile reads: the entries of its blocks, two sectors for each half.
const TILE_BYTES: usize = 4 * 32;
/// That a packed row reads: its position and its destination.
const ROW_BYTES: usize = 16;

/// An item through one KV head.
#[derive(Clone, Copy, Debug)]
struct Unit {
    /// Warp instructions, as the planner counts them.
    instructions: f64,
    /// Bytes that it requests from L2: K, V, Q, and its part of the work lists.
    bytes: f64,
    /// Bytes that go through shared memory.
    shared: f64,
}

/// What one attention call does, whatever the time.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The units of each worker.
    workers: Vec<Vec<Unit>>,
    /// Bytes of keys and values of one layer, each token once.
    pub unique_bytes: f64,
    /// Bytes that all workers request from L2: keys, values, Q and the work lists.
    pub requested_bytes: f64,
    /// Bytes of keys and values that the rows would read each for itself.
    pub flat_bytes: f64,
    /// Tokens seen, summed over rows.
    pub visible: f64,
    merge: Merge,
}

/// What `merge` does.
#[derive(Clone, Copy, Debug)]
struct Merge {
    launched: bool,
    /// Packed rows and KV heads, a warp each.
    warps: f64,
    /// Partial results of the row that has most.
    longest: f64,
    /// Bytes of partial results, read once.
    bytes: f64,
    /// Warps that a multiprocessor holds.
    resident: f64,
}

/// The shape of attention on a card and its kernels' tiling, as the backend makes them.
fn shape(
    card: &Card,
    (heads, kv_heads, head_dim): Heads,
    window: Option<u32>,
    block_tokens: usize,
) -> (AttentionShape, Tiling) {
    let architecture = card.architecture();
    let tiling = Tiling::new(
        head_dim,
        architecture.shared_per_sm,
        architecture.shared_per_block,
    );
    let shape = AttentionShape {
        head_dim,
        group: heads / kv_heads,
        kv_heads,
        block_tokens,
        window,
        sms: card.sms,
        resident: tiling.resident,
    };
    (shape, tiling)
}

/// Counts one attention call over a plan, whose blocks hold `block_tokens` tokens.
pub fn count(
    card: &Card,
    plan: &BatchPlan,
    heads: Heads,
    window: Option<u32>,
    sharing: Sharing,
    block_tokens: usize,
) -> Counted {
    let (shape, tiling) = shape(card, heads, window, block_tokens);
    let work = items::build(plan, &shape, sharing);
    let unit = |item: usize| unit(&shape, &work, item);
    let lists = work.lists.windows(2);
    let workers: Vec<Vec<Unit>> = lists
        .map(|ends| {
            let units = &work.units[ends[0] as usize..ends[1] as usize];
            units.iter().map(|&[item, _]| unit(item as usize)).collect()
        })
        .collect();
    let seen = |position: u32| {
        let all = f64::from(position) + 1.0;
        window.map_or(all, |window| all.min(f64::from(window)))
    };
    let visible: f64 = plan.rows.iter().map(|row| seen(row.position)).sum();
    let token_bytes = (4 * heads.1 * heads.2) as f64;
    let requested: f64 = workers.iter().flatten().map(|unit| unit.bytes).sum();
    let requested_bytes = requested + (workers.len() * WORKER_BYTES) as f64;
    Counted {
        unique_bytes: requested_bytes.min(plan.kv_tokens() as f64 * token_bytes),
        requested_bytes,
        flat_bytes: visible * token_bytes,
        visible,
        workers,
        merge: merge(plan, &tiling, &shape, &work),
    }
}

fn unit(shape: &AttentionShape, work: &AttentionWork, item: usize) -> Unit {
    let item = &work.items[item];
    let (rows, slots) = (item.rows as usize, item.slots as usize);
    let first = item.first_entry as usize;
    let entries = &work.entries[first..first + slots.div_ceil(shape.block_tokens)];
    let tokens: usize = entries.iter().map(|entry| entry[2] as usize).sum();
    let row_bytes = 2 * shape.head_dim;
    let tiles = slots.div_ceil(TILE);
    let lists = UNIT_BYTES + tiles * TILE_BYTES + rows * ROW_BYTES;
    Unit {
        instructions: shape.item_instructions(rows, slots) as f64,
        bytes: ((2 * tokens + rows) * row_bytes + lists) as f64,
        shared: (tiles * 2 * tile_bytes(rows, row_bytes)) as f64,
    }
}

/// Bytes that a tile of K or of V moves through shared memory: written once; read by every warp, or, by
/// items of few rows, a quarter by each.
fn tile_bytes(rows: usize, row_bytes: usize) -> usize {
    let readers = if rows > items::FEW_ROWS { WARPS } else { 1 };
    (1 + readers) * TILE * row_bytes
}

fn merge(plan: &BatchPlan, tiling: &Tiling, shape: &AttentionShape, work: &AttentionWork) -> Merge {
    let kernel = kernel(&catalog::tree_attention(tiling), "merge");
    // A recorded launch has room for the largest number of merges; the surplus is empty.
    let rows = match decodes(plan) {
        true => plan.rows.len() * shape.group,
        false => work.merges.len(),
    };
    let longest = work.merges.iter().map(|merge| merge[2]).max();
    let partials = (work.partials * shape.kv_heads * shape.head_dim) as f64;
    Merge {
        launched: rows > 0,
        warps: (rows * shape.kv_heads) as f64,
        longest: f64::from(longest.unwrap_or(0)),
        bytes: 4.0 * partials,
        resident: (kernel.resident * kernel.threads / 32) as f64,
    }
}

impl Counted {
    /// Kernels launched.
    pub fn launches(&self) -> usize {
        1 + usize::from(self.merge.launched)
    }

    /// Microseconds of both kernels, launch gaps aside.
    pub fn time(&self, m: &CardEnd) -> f64 {
        let attend = self.attend(m).max(m.dram(self.unique_bytes));
        attend + self.merge.time(m)
    }

    fn attend(&self, m: &CardEnd) -> f64 {
        let latency = m.value(Constant::UnitReads) * m.value(Constant::L2Latency)
            + m.value(Constant::DramLatency)
            + m.step(Constant::UnitStep);
        let issue = m.value(Constant::IssueRate);
        let l2 = m.l2(m.sms());
        let shared = m.shared(1.0);
        // Microseconds of a unit alone on its multiprocessor.
        let stream = |unit: &Unit| {
            let issued = m.clocks(unit.instructions / issue);
            issued.max(unit.bytes * l2).max(unit.shared * shared)
        };
        let sms = m.card.sms.min(self.workers.len());
        let time = |sm: usize| {
            let workers = self.workers[sm..].iter().step_by(sms);
            let workers = workers.map(|units| units.iter().map(stream).collect());
            multiprocessor(workers.collect(), latency)
        };
        (0..sms).map(time).fold(0.0, f64::max)
    }
}

/// A worker in the simulation.
struct Worker {
    /// What its next units stream, the last one first.
    units: Vec<f64>,
    /// What is left of the present unit's wait, then of its stream.
    wait: f64,
    stream: f64,
}

impl Worker {
    /// Takes the next unit; false at the end of its list.
    fn next(&mut self, latency: f64) -> bool {
        self.wait = latency;
        self.units.pop().is_some_and(|stream| {
            self.stream = stream;
            true
        })
    }
}

/// When the last of the workers of one multiprocessor ends. Each waits `latency` before every unit; those
/// that stream share the multiprocessor evenly.
fn multiprocessor(workers: Vec<Vec<f64>>, latency: f64) -> f64 {
    let begin = |mut units: Vec<f64>| {
        units.reverse();
        let mut worker = Worker {
            units,
            wait: 0.0,
            stream: 0.0,
        };
        worker.next(latency).then_some(worker)
    };
    let mut workers: Vec<Worker> = workers.into_iter().filter_map(begin).collect();
    let mut now = 0.0;
    while !workers.is_empty() {
        let streaming = workers.iter().filter(|w| w.wait <= 0.0).count() as f64;
        let left = |w: &Worker| {
            if w.wait > 0.0 {
                w.wait
            } else {
                w.stream * streaming
            }
        };
        let step = workers.iter().map(left).fold(f64::INFINITY, f64::min);
        now += step;
        workers.retain_mut(|worker| {
            if worker.wait > 0.0 {
                worker.wait -= step;
                // What rounding leaves.
                worker.wait = if worker.wait < 1e-9 { 0.0 } else { worker.wait };
                return true;
            }
            worker.stream -= step / streaming;
            worker.stream > 1e-9 || worker.next(latency)
        });
    }
    now
}

impl Merge {
    fn time(&self, m: &CardEnd) -> f64 {
        if !self.launched {
            return 0.0;
        }
        // The merge's entry, its slots, their log-sums.
        let reads = 3.0 * m.value(Constant::L2Latency) + m.step(Constant::RowStep);
        let waves = (self.warps / (m.sms() * self.resident)).ceil().max(1.0);
        let longest = self.longest * m.step(Constant::MergePartial);
        // Rows of few partial results leave their place to others: by bytes, or by the longest row.
        (reads * waves + longest).max(m.l2(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use kernels::cuda::study::Beam;

    use super::*;

    fn counted(heads: Heads, beams: usize, sharing: Sharing) -> Counted {
        let beam = Beam {
            beams,
            width: 4,
            prompt: 512,
            steps: 16,
            step_tokens: 64,
            seed: 0,
        };
        let card = Card::parse("h200").expect("a card");
        count(card, &beam.plan().0, heads, None, sharing, 16)
    }

    #[test]
    fn one_worker_waits_and_streams() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}");
        close(multiprocessor(vec![vec![2.0, 3.0]], 1.0), 7.0);
        // Both wait at once, then share: 2 x 2 together, the longer one 1 more.
        close(multiprocessor(vec![vec![2.0], vec![3.0]], 1.0), 6.0);
        // One streams alone while the other waits for its second unit.
        close(multiprocessor(vec![vec![1.0, 1.0], vec![3.0]], 1.0), 6.0);
        close(multiprocessor(vec![vec![], vec![]], 1.0), 0.0);
    }

    #[test]
    fn the_reviews_simulations_are_near() {
        // The review's simulation of the planner's lists, in microseconds ("as dealt", H200), with 1.5 us
        // a unit, 2.4 issues a clock and 45 bytes a nanosecond: this model's slow end, `merge` aside. It
        // was made at 7daabc2.
        let card = Card::parse("h200").expect("a card");
        let [_, slow] = CardEnd::ends(card);
        let mut apart = Vec::new();
        for (heads, beams, reviewed) in [
            ((32, 8, 64), 16, 4.6),
            ((32, 8, 64), 64, 11.7),
            ((32, 8, 64), 256, 41.0),
            ((28, 4, 128), 64, 10.6),
            ((28, 4, 128), 256, 34.0),
            ((32, 8, 128), 64, 17.7),
            ((32, 8, 128), 256, 59.2),
        ] {
            let time = counted(heads, beams, Sharing::Tree).attend(&slow);
            if !(0.7..=1.4).contains(&(time / reviewed)) {
                apart.push(format!(
                    "{heads:?} x {beams}: {time:.1}, reviewed {reviewed}"
                ));
            }
        }
        assert!(apart.is_empty(), "{apart:#?}");
    }

    #[test]
    fn sharing_saves_bytes_and_time() {
        let card = Card::parse("h200").expect("a card");
        for m in CardEnd::ends(card) {
            let [tree, cascade, flat] = [Sharing::Tree, Sharing::Cascade, Sharing::Flat]
                .map(|sharing| counted((32, 8, 64), 64, sharing));
            assert!(tree.requested_bytes < cascade.requested_bytes);
            assert!(cascade.requested_bytes < flat.requested_bytes);
            assert!(tree.time(&m) < flat.time(&m));
            assert_eq!(tree.unique_bytes, flat.unique_bytes);
            // K and V of 64 branches of 1,536 tokens; Q is in the request as well.
            assert_eq!(flat.flat_bytes, (64 * 1536 * 4 * 8 * 64) as f64);
            assert!(flat.requested_bytes >= flat.flat_bytes);
        }
    }
}
