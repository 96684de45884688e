//! From the tree of a batch to the work of the attention kernel: a pure function.
//!
//! An *item* is a list of KV blocks and up to [`max_rows`] packed query rows that attend to them; a
//! *unit* is an item through one KV head; every worker (a persistent thread block) gets a list of
//! units. *Packed row* `p` of a KV head is the query head `p % group` of row `p / group` of the
//! plan.
//!
//! # What is shared
//!
//! A run of the plan can be an item of its own, read once per tile of packed rows below it, at the
//! price of one more partial result for each of them; or its blocks can be read again by every
//! subtree below it. Walking down from the root, each run takes the cheaper option (`cut`). The
//! whole is compared with sharing everything and with sharing nothing, and the cheapest is taken:
//! by the cost model, sharing never loses. This is done twice, once with the time in which L2
//! delivers a tile as the least cost of a tile, and once by instructions alone, which shares less;
//! the cheaper one after assignment is taken.
//!
//! # Splitting
//!
//! Items are split into parts of about equal cost (`costs`), so those of many rows are the shorter
//! ones. A dozen limits from 0.2 to 1.5 of a worker's even share are tried; the limit that makes
//! the whole cheapest once it is assigned (`assignment`), merge included, is taken.

mod assignment;
mod costs;
mod cut;

pub use self::costs::{AttentionShape, FEW_ROWS, MANY_ROWS, TILE, address_unit, max_rows};

use self::assignment::Assignment;
use self::costs::{MERGED_PARTIAL, MERGED_ROW};
use self::cut::{Piece, SharingRule};
use crate::plan::BatchPlan;
use std::cmp::Reverse;
use std::ops::Range;

/// How much of the tree is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Every level, where it pays.
    Tree,
    /// None: every branch reads its whole path, as per-branch kernels do.
    Flat,
    /// What all rows share is read once, the rest per branch: a two-level cascade.
    Cascade,
}

/// `WorkItem` of `tree_attention.cu`, 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct WorkItem {
    /// Index of its first entry.
    pub first_entry: u32,
    /// Token slots of its blocks, including slots without a token between blocks.
    pub slots: u32,
    /// Its first packed row.
    pub first_row: u32,
    /// Packed rows, 1 to [`max_rows`].
    pub rows: u32,
    /// Index of its first destination.
    pub first_dest: u32,
    /// Smallest position of its rows.
    pub min_position: u32,
    /// Largest position of its rows.
    pub max_position: u32,
    reserved: u32,
}

/// The work of one attention call, as the kernel reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionWork {
    /// The items.
    pub items: Vec<WorkItem>,
    /// KV blocks: `[block, position of its first token, valid tokens, 0]`.
    pub entries: Vec<[u32; 4]>,
    /// Per item and packed row: the slot of its partial result, or -1 where the result is final.
    pub dests: Vec<i32>,
    /// `[item, kv head]`, by worker.
    pub units: Vec<[u32; 2]>,
    /// The first unit of each worker; one more than there are workers.
    pub lists: Vec<u32>,
    /// Packed rows with several partials: `[packed row, first slot, slots, 0]`.
    pub merges: Vec<[u32; 4]>,
    /// The slots of the merges.
    pub merge_slots: Vec<u32>,
    /// Slots of partial results in use.
    pub partials: usize,
    /// Cost of the heaviest worker.
    pub heaviest: u64,
    /// Cost of the heaviest multiprocessor.
    pub heaviest_sm: u64,
    /// Cost of all workers.
    pub total: u64,
}

/// Builds the work of one attention call.
pub fn build(plan: &BatchPlan, shape: &AttentionShape, sharing: Sharing) -> AttentionWork {
    let with = |min_tile| Builder {
        plan,
        shape,
        min_tile,
    };
    let builder = with(0);
    let (nodes, roots) = builder.forest();
    let cut = |min_tile, rule| {
        let mut pieces = Vec::new();
        for &root in &roots {
            with(min_tile).cut(&nodes, root, Vec::new(), rule, &mut pieces);
        }
        pieces
    };
    let cuts = match sharing {
        Sharing::Flat => vec![cut(0, SharingRule::Never)],
        Sharing::Cascade => vec![cut(0, SharingRule::Root)],
        Sharing::Tree => {
            let fixed = [cut(0, SharingRule::Always), cut(0, SharingRule::Never)];
            // Bound by bytes, more sharing pays than bound by instructions.
            let mut cuts = Vec::from([shape.tile_transfer(), 0].map(|min_tile| {
                let cost = |pieces: &Vec<Piece>| with(min_tile).cost(pieces);
                let cheaper = cut(min_tile, SharingRule::Cheaper);
                let (all, none) = (cost(&fixed[0]), cost(&fixed[1]));
                if cost(&cheaper) <= all.min(none) {
                    cheaper
                } else {
                    fixed[usize::from(none < all)].clone()
                }
            }));
            cuts.dedup();
            cuts
        }
    };
    builder.emit(builder.best_split(&cuts))
}

struct Builder<'a> {
    plan: &'a BatchPlan,
    shape: &'a AttentionShape,
    /// The least cost of a tile of tokens.
    min_tile: u64,
}

impl Builder<'_> {
    /// The tiles of packed rows of a piece: first packed row, packed rows, entries that any of the
    /// rows sees. Tiles that see nothing are left out.
    fn tiles<'p>(
        &'p self,
        piece: &'p Piece,
    ) -> impl Iterator<Item = (usize, usize, Range<usize>)> + 'p {
        let group = self.shape.group;
        let end = piece.rows.end * group;
        let mut next = piece.rows.start * group;
        std::iter::from_fn(move || {
            while next < end {
                let first = next;
                let count = self.shape.max_rows().min(end - first);
                next += count;
                let (min, max) = self.positions(first, count);
                let from = min.saturating_sub(self.shape.window.map_or(min, |w| w - 1));
                let entries = &piece.entries;
                let start = entries.partition_point(|e| e[1] + e[2] <= from);
                let stop = entries.partition_point(|e| e[1] <= max);
                if start < stop {
                    return Some((first, count, start..stop));
                }
            }
            None
        })
    }

    /// Smallest and largest position of some packed rows.
    fn positions(&self, first: usize, count: usize) -> (u32, u32) {
        let rows = first / self.shape.group..=(first + count - 1) / self.shape.group;
        let positions = self.plan.rows[rows].iter().map(|row| row.position);
        positions.fold((u32::MAX, 0), |(min, max), p| (min.min(p), max.max(p)))
    }

    /// The cheapest way to split one of the cuts and assign it to the workers.
    fn best_split<'c>(&self, cuts: &'c [Vec<Piece>]) -> Split<'c> {
        let workers = self.shape.workers() as u64;
        let kv_heads = self.shape.kv_heads as u64;
        let mut best: Option<Split<'_>> = None;
        for pieces in cuts {
            let (_, whole) = self.units(&self.split(pieces, u64::MAX));
            let even = whole.iter().sum::<u64>() / workers;
            let tenths = [15, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2].map(|n| even * n / 10);
            let mut count = usize::MAX;
            for limit in [u64::MAX].into_iter().chain(tenths) {
                let parts = self.split(pieces, limit);
                // A smaller limit gives more parts or the same ones.
                if std::mem::replace(&mut count, parts.len()) == parts.len() {
                    continue;
                }
                let (units, costs) = self.units(&parts);
                let total: u64 = costs.iter().sum();
                let merge = self.merge_cost(&parts) * kv_heads / workers;
                let cost = |heaviest, heaviest_sm| self.shape.time(heaviest, heaviest_sm) + merge;
                let lowest = best.as_ref().map_or(u64::MAX, |best| best.cost);
                // The least that any assignment costs; a hundredth is not worth the host's time.
                let heaviest = costs.first().copied().unwrap_or(0).max(total / workers);
                let heaviest_sm = heaviest.max(total / self.shape.sms.max(1) as u64);
                let bound = cost(heaviest, heaviest_sm);
                if bound + bound / 100 >= lowest {
                    continue;
                }
                let assignment = Assignment::new(self.shape, &costs);
                let cost = cost(assignment.heaviest, assignment.heaviest_sm);
                if cost < lowest {
                    best = Some(Split {
                        cost,
                        pieces,
                        parts,
                        units,
                        assignment,
                    });
                }
            }
        }
        best.expect("the whole pieces are one way")
    }

    /// The parts of the pieces, each of about `limit` at most for streaming.
    fn split(&self, pieces: &[Piece], limit: u64) -> Vec<ItemPart> {
        let block_tokens = self.shape.block_tokens;
        let whole_tile = TILE.div_ceil(block_tokens);
        let mut out = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            for (first, count, entries) in self.tiles(piece) {
                let tile = self.shape.stream(count, whole_tile * block_tokens, 0);
                let tiles = usize::try_from(limit.div_ceil(tile)).unwrap_or(usize::MAX);
                let parts = entries.len().div_ceil(whole_tile).div_ceil(tiles.max(1));
                let step = entries.len().div_ceil(parts).next_multiple_of(whole_tile);
                for start in entries.clone().step_by(step) {
                    let stop = entries.end.min(start + step);
                    let last = piece.entries[stop - 1][2] as usize;
                    out.push(ItemPart {
                        piece: index,
                        packed: first..first + count,
                        entry: start,
                        slots: (stop - 1 - start) * block_tokens + last,
                    });
                }
            }
        }
        out
    }

    /// In how many parts each packed row is.
    fn cover(&self, parts: &[ItemPart]) -> Vec<u64> {
        let mut cover = vec![0; self.plan.rows.len() * self.shape.group];
        for part in parts {
            cover[part.packed.clone()].iter_mut().for_each(|c| *c += 1);
        }
        cover
    }

    /// Warp instructions of merging the partial results of one KV head.
    fn merge_cost(&self, parts: &[ItemPart]) -> u64 {
        let covers = self.cover(parts).into_iter().filter(|&n| n > 1);
        covers.map(|n| MERGED_ROW + n * MERGED_PARTIAL).sum()
    }

    /// `[part, kv head]` and its cost, the most expensive first.
    fn units(&self, parts: &[ItemPart]) -> (Vec<[u32; 2]>, Vec<u64>) {
        let cost = |part: &ItemPart| self.shape.cost(part.packed.len(), part.slots, 0);
        let mut order: Vec<_> = (0..).zip(parts.iter().map(cost)).collect();
        order.sort_by_key(|&(_, cost)| Reverse(cost));
        let heads = 0..self.shape.kv_heads as u32;
        let unit = |(part, cost)| heads.clone().map(move |head| ([part, head], cost));
        order.into_iter().flat_map(unit).unzip()
    }

    /// The work as the kernel reads it.
    fn emit(&self, split: Split<'_>) -> AttentionWork {
        let assignment = &split.assignment;
        let mut out = AttentionWork {
            heaviest: assignment.heaviest,
            heaviest_sm: assignment.heaviest_sm,
            total: assignment.total,
            ..AttentionWork::default()
        };
        let mut bases = Vec::new();
        for piece in split.pieces {
            bases.push(out.entries.len());
            out.entries.extend_from_slice(&piece.entries);
        }
        self.emit_items(&split.parts, &bases, &mut out);
        let mut lists = vec![Vec::new(); self.shape.workers()];
        for (unit, worker) in split.units.into_iter().zip(&assignment.workers) {
            lists[*worker].push(unit);
        }
        out.lists.push(0);
        for list in lists {
            out.units.extend(list);
            out.lists.push(out.units.len() as u32);
        }
        out
    }

    /// Items, destinations and merges of the parts; `bases` are the first entries of the pieces.
    fn emit_items(&self, parts: &[ItemPart], bases: &[usize], out: &mut AttentionWork) {
        let cover = self.cover(parts);
        // The slots of each packed row, in the order of the items, which is path order.
        let mut row_slots: Vec<Vec<u32>> = vec![Vec::new(); cover.len()];
        for part in parts {
            let (min_position, max_position) = self.positions(part.packed.start, part.packed.len());
            out.items.push(WorkItem {
                first_entry: (bases[part.piece] + part.entry) as u32,
                slots: part.slots as u32,
                first_row: part.packed.start as u32,
                rows: part.packed.len() as u32,
                first_dest: out.dests.len() as u32,
                min_position,
                max_position,
                reserved: 0,
            });
            for packed in part.packed.clone() {
                out.dests.push(if cover[packed] > 1 {
                    row_slots[packed].push(out.partials as u32);
                    out.partials += 1;
                    out.partials as i32 - 1
                } else {
                    -1
                });
            }
        }
        for (packed, slots) in row_slots.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
            let first = out.merge_slots.len() as u32;
            out.merges
                .push([packed as u32, first, slots.len() as u32, 0]);
            out.merge_slots.extend_from_slice(slots);
        }
    }
}

/// An item before it is emitted: blocks of a piece and the packed rows that attend to them.
struct ItemPart {
    /// Index of the piece.
    piece: usize,
    packed: Range<usize>,
    /// Its first entry, an index into the piece's.
    entry: usize,
    slots: usize,
}

/// A way to cut, split and assign the work.
struct Split<'p> {
    cost: u64,
    pieces: &'p [Piece],
    parts: Vec<ItemPart>,
    units: Vec<[u32; 2]>,
    assignment: Assignment,
}

#[cfg(test)]
mod tests;
