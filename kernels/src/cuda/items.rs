//! From the tree of a step to the work of the attention kernel: a pure function.
//!
//! An *item* is a list of KV blocks and up to [`most_rows`] packed query rows that attend to them; a *unit* is an
//! item through one KV head; every worker (a thread block that stays) gets a list of units. *Packed
//! row* `p` of a KV head is the query head `p % group` of row `p / group` of the plan.
//!
//! # What is shared
//!
//! A run of the plan can be an item of its own, read once per tile of packed rows below it, at the price
//! of one more partial result for each of them; or its blocks can be read again by every subtree
//! below it. Walking down from the root, each run takes what costs less. The whole is compared with
//! sharing everything and with sharing nothing, and the cheapest is taken: by the cost model, sharing
//! never loses. This is done twice, with a tile of tokens costing at least what its bytes keep L2 busy,
//! and by instructions alone, which shares less; what is cheaper once it is dealt stays.
//!
//! # Splitting
//!
//! Items are split into parts of about equal cost (`costs`), so those of many rows are the shorter ones. How
//! long they may be is what makes the whole cheapest once it is dealt (`dealing`), merge included, out of a dozen
//! limits from 0.2 to 1.5 of a worker's even share.

mod costs;
mod dealing;

pub use self::costs::{FEW_ROWS, MANY_ROWS, Shape, TILE, most_rows};

use self::costs::{MERGED_PARTIAL, MERGED_ROW};
use self::dealing::Dealt;
use crate::plan::{Run, StepPlan};
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

/// What the kernel reads; 32 bytes, `Item` of `tree_attention.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Item {
    /// Its first entry.
    pub entry: u32,
    /// Token slots of its blocks, those without a token between blocks included.
    pub slots: u32,
    /// Its first packed row.
    pub packed: u32,
    /// Packed rows, 1 to [`most_rows`].
    pub count: u32,
    /// Its first destination.
    pub dest: u32,
    /// Smallest position of its rows.
    pub least: u32,
    /// Largest position of its rows.
    pub most: u32,
    unused: u32,
}

/// The work of one attention call, as the kernel reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    /// The items.
    pub items: Vec<Item>,
    /// KV blocks: `[block, position of its first token, valid tokens, 0]`.
    pub entries: Vec<[u32; 4]>,
    /// Per item and packed row: the partial slot, or -1 where the result is final.
    pub dests: Vec<i32>,
    /// `[item, kv head]`, by worker.
    pub units: Vec<[u32; 2]>,
    /// Where each worker's units begin; one more than there are workers.
    pub lists: Vec<u32>,
    /// Packed rows with several partials: `[packed row, first slot, slots, 0]`.
    pub merges: Vec<[u32; 4]>,
    /// The merges' slots.
    pub merge_slots: Vec<u32>,
    /// Partial slots in use.
    pub partials: usize,
    /// Cost of the heaviest worker.
    pub heaviest: u64,
    /// Cost of the heaviest multiprocessor.
    pub heaviest_sm: u64,
    /// The sum over the workers.
    pub total: u64,
}

/// Consecutive rows and the blocks they attend to together.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    rows: Range<usize>,
    entries: Vec<[u32; 4]>,
}

/// A run in its tree.
struct Node<'a> {
    run: &'a Run,
    children: Vec<usize>,
}

/// Which runs are items of their own.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Cheaper,
    Always,
    Never,
    Root,
}

/// Builds the work of one attention call.
pub fn build(plan: &StepPlan, shape: &Shape, sharing: Sharing) -> Items {
    let at = |least_tile| Builder {
        plan,
        shape,
        least_tile,
    };
    let builder = at(0);
    let (nodes, roots) = builder.forest();
    let cut = |least_tile, rule| {
        let mut pieces = Vec::new();
        for &root in &roots {
            at(least_tile).visit(&nodes, root, Vec::new(), rule, &mut pieces);
        }
        pieces
    };
    let ways = match sharing {
        Sharing::Flat => vec![cut(0, Rule::Never)],
        Sharing::Cascade => vec![cut(0, Rule::Root)],
        Sharing::Tree => {
            let fixed = [cut(0, Rule::Always), cut(0, Rule::Never)];
            // Where bytes are waited for it pays to share more than where instructions are.
            let mut ways = Vec::from([shape.tile_of_bytes(), 0].map(|least_tile| {
                let cost = |way: &Vec<Piece>| at(least_tile).cost(way);
                let cheaper = cut(least_tile, Rule::Cheaper);
                let (most, none) = (cost(&fixed[0]), cost(&fixed[1]));
                match cost(&cheaper) <= most.min(none) {
                    true => cheaper,
                    false => fixed[usize::from(none < most)].clone(),
                }
            }));
            ways.dedup();
            ways
        }
    };
    builder.deal(&ways)
}

struct Builder<'a> {
    plan: &'a StepPlan,
    shape: &'a Shape,
    /// What a tile of tokens costs at least.
    least_tile: u64,
}

impl Builder<'_> {
    /// The runs as trees: nodes in preorder, and the roots.
    fn forest(&self) -> (Vec<Node<'_>>, Vec<usize>) {
        let mut nodes: Vec<Node<'_>> = Vec::new();
        let (mut roots, mut path) = (Vec::new(), Vec::<usize>::new());
        for run in self.plan.runs.iter().filter(|run| !run.rows.is_empty()) {
            while let Some(&last) = path.last() {
                let above = nodes[last].run;
                let inside = above.rows.start <= run.rows.start && run.rows.end <= above.rows.end;
                if inside && above.start + above.tokens == run.start {
                    break;
                }
                path.pop();
            }
            let index = nodes.len();
            match path.last() {
                Some(&parent) => nodes[parent].children.push(index),
                None => roots.push(index),
            }
            path.push(index);
            nodes.push(Node {
                run,
                children: Vec::new(),
            });
        }
        (nodes, roots)
    }

    /// Cuts the subtree of `node` into pieces; `carried` are blocks above it that nothing has read.
    fn visit(
        &self,
        nodes: &[Node<'_>],
        node: usize,
        carried: Vec<[u32; 4]>,
        rule: Rule,
        pieces: &mut Vec<Piece>,
    ) {
        // Not recursive along a chain: a branch may have thousands of sealed tails.
        let (mut node, mut entries) = (node, carried);
        loop {
            let Node { run, children } = &nodes[node];
            let block_tokens = self.shape.block_tokens;
            for (i, block) in self.plan.blocks[run.blocks.clone()].iter().enumerate() {
                let before = i * block_tokens;
                let valid = block_tokens.min(run.tokens as usize - before);
                entries.push([block.0, run.start + before as u32, valid as u32, 0]);
            }
            match children[..] {
                [only] if nodes[only].run.rows == run.rows => node = only,
                _ => break,
            }
        }
        let Node { run, children } = &nodes[node];
        // Rows whose path ends here, and the children, side by side.
        let mut parts: Vec<(Range<usize>, Option<usize>)> = Vec::new();
        let mut at = run.rows.start;
        for &child in children {
            let below = nodes[child].run.rows.clone();
            if at < below.start {
                parts.push((at..below.start, None));
            }
            at = below.end;
            parts.push((below, Some(child)));
        }
        if at < run.rows.end {
            parts.push((at..run.rows.end, None));
        }
        let own = match rule {
            _ if children.is_empty() => true,
            Rule::Always => true,
            Rule::Never => false,
            Rule::Root => run.rows == (0..self.plan.rows.len()),
            Rule::Cheaper => {
                let slots = entries.len() * self.shape.block_tokens;
                let rows = run.rows.len() * self.shape.group;
                let least = self.least_tile;
                let shared =
                    self.shape.cost(rows, slots, least) + self.shape.partials(rows as u64, least);
                let again: u64 = parts
                    .iter()
                    .map(|(rows, child)| {
                        let rows = rows.len() * self.shape.group;
                        match child {
                            Some(_) => self.shape.stream(rows, slots, least),
                            None => self.shape.cost(rows, slots, least),
                        }
                    })
                    .sum();
                shared <= again
            }
        };
        if own {
            pieces.push(Piece {
                rows: run.rows.clone(),
                entries: std::mem::take(&mut entries),
            });
        }
        for (rows, child) in parts {
            match child {
                Some(child) => self.visit(nodes, child, entries.clone(), rule, pieces),
                None if own => {}
                None => pieces.push(Piece {
                    rows,
                    entries: entries.clone(),
                }),
            }
        }
    }

    /// Cost of the pieces without any splits, per KV head.
    fn cost(&self, pieces: &[Piece]) -> u64 {
        let mut cover = vec![0u64; self.plan.rows.len()];
        let mut cost = 0;
        for piece in pieces {
            piece.rows.clone().for_each(|r| cover[r] += 1);
            self.tiles(piece).for_each(|(_, count, entries)| {
                let slots = entries.len() * self.shape.block_tokens;
                cost += self.shape.cost(count, slots, self.least_tile);
            });
        }
        let partials: u64 = cover.iter().filter(|&&n| n > 1).sum();
        let partials = partials * self.shape.group as u64;
        cost + self.shape.partials(partials, self.least_tile)
    }

    /// The tiles of packed rows of a piece: first packed row, packed rows, entries that any of the
    /// rows sees. A tile that sees nothing is left out.
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
                let count = self.shape.most_rows().min(end - first);
                next += count;
                let (least, most) = self.positions(first, count);
                let from = least.saturating_sub(self.shape.window.map_or(least, |w| w - 1));
                let entries = &piece.entries;
                let start = entries.partition_point(|e| e[1] + e[2] <= from);
                let stop = entries.partition_point(|e| e[1] <= most);
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
        positions.fold((u32::MAX, 0), |(least, most), p| {
            (least.min(p), most.max(p))
        })
    }

    /// Items of one of the ways to cut the tree, split as balance wants it, dealt to the workers.
    fn deal(&self, ways: &[Vec<Piece>]) -> Items {
        let workers = self.shape.workers() as u64;
        let kv_heads = self.shape.kv_heads as u64;
        let mut best: Option<Best<'_>> = None;
        for pieces in ways {
            let (_, whole) = self.units(&self.split(pieces, u64::MAX));
            let even = whole.iter().sum::<u64>() / workers;
            let tenths = [15, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2].map(|n| even * n / 10);
            let mut count = usize::MAX;
            for limit in [u64::MAX].into_iter().chain(tenths) {
                let parts = self.split(pieces, limit);
                // Smaller limits give more parts or the same ones.
                if std::mem::replace(&mut count, parts.len()) == parts.len() {
                    continue;
                }
                let (units, costs) = self.units(&parts);
                let total: u64 = costs.iter().sum();
                let merge = self.merge(&parts) * kv_heads / workers;
                let cost = |heaviest, heaviest_sm| self.shape.time(heaviest, heaviest_sm) + merge;
                let least = best.as_ref().map_or(u64::MAX, |best| best.cost);
                // No dealing puts less on any of them; a hundredth is not worth the host's time.
                let heaviest = costs.first().copied().unwrap_or(0).max(total / workers);
                let heaviest_sm = heaviest.max(total / self.shape.sms.max(1) as u64);
                let bound = cost(heaviest, heaviest_sm);
                if bound + bound / 100 >= least {
                    continue;
                }
                let dealt = Dealt::new(self.shape, &costs);
                let cost = cost(dealt.heaviest, dealt.heaviest_sm);
                if cost < least {
                    best = Some(Best {
                        cost,
                        pieces,
                        parts,
                        units,
                        dealt,
                    });
                }
            }
        }
        let best = best.expect("the whole pieces are one way");
        self.items(best)
    }

    /// The parts of the pieces; streaming one costs at most about `limit`.
    fn split(&self, pieces: &[Piece], limit: u64) -> Vec<Part> {
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
                    out.push(Part {
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

    /// Of each packed row, the parts it is in.
    fn cover(&self, parts: &[Part]) -> Vec<u64> {
        let mut cover = vec![0; self.plan.rows.len() * self.shape.group];
        for part in parts {
            cover[part.packed.clone()].iter_mut().for_each(|c| *c += 1);
        }
        cover
    }

    /// Warp instructions of merging the partial results of one KV head.
    fn merge(&self, parts: &[Part]) -> u64 {
        let covers = self.cover(parts).into_iter().filter(|&n| n > 1);
        covers.map(|n| MERGED_ROW + n * MERGED_PARTIAL).sum()
    }

    /// `[part, kv head]`, those that cost most first, and what each costs.
    fn units(&self, parts: &[Part]) -> (Vec<[u32; 2]>, Vec<u64>) {
        let cost = |part: &Part| self.shape.cost(part.packed.len(), part.slots, 0);
        let mut order: Vec<_> = (0..).zip(parts.iter().map(cost)).collect();
        order.sort_by_key(|&(_, cost)| Reverse(cost));
        let heads = 0..self.shape.kv_heads as u32;
        let unit = |(part, cost)| heads.clone().map(move |head| ([part, head], cost));
        order.into_iter().flat_map(unit).unzip()
    }

    /// What the kernel reads.
    fn items(&self, best: Best<'_>) -> Items {
        let Best {
            pieces,
            parts,
            units,
            dealt,
            ..
        } = best;
        let mut out = Items {
            heaviest: dealt.heaviest,
            heaviest_sm: dealt.heaviest_sm,
            total: dealt.total,
            ..Items::default()
        };
        let mut bases = Vec::new();
        for piece in pieces {
            bases.push(out.entries.len());
            out.entries.extend_from_slice(&piece.entries);
        }
        let cover = self.cover(&parts);
        // Slots of partial results, in the order of the items: by row, they are in path order.
        let mut slots_of: Vec<Vec<u32>> = vec![Vec::new(); cover.len()];
        for part in &parts {
            let (least, most) = self.positions(part.packed.start, part.packed.len());
            out.items.push(Item {
                entry: (bases[part.piece] + part.entry) as u32,
                slots: part.slots as u32,
                packed: part.packed.start as u32,
                count: part.packed.len() as u32,
                dest: out.dests.len() as u32,
                least,
                most,
                unused: 0,
            });
            for packed in part.packed.clone() {
                out.dests.push(if cover[packed] > 1 {
                    slots_of[packed].push(out.partials as u32);
                    out.partials += 1;
                    out.partials as i32 - 1
                } else {
                    -1
                });
            }
        }
        for (packed, slots) in slots_of.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
            let first = out.merge_slots.len() as u32;
            out.merges
                .push([packed as u32, first, slots.len() as u32, 0]);
            out.merge_slots.extend_from_slice(slots);
        }
        let mut lists = vec![Vec::new(); self.shape.workers()];
        for (unit, worker) in units.into_iter().zip(&dealt.workers) {
            lists[*worker].push(unit);
        }
        out.lists.push(0);
        for list in lists {
            out.units.extend(list);
            out.lists.push(out.units.len() as u32);
        }
        out
    }
}

/// An item to be: blocks of a piece and packed rows that attend to them.
struct Part {
    piece: usize,
    packed: Range<usize>,
    /// The first of the piece's entries.
    entry: usize,
    slots: usize,
}

/// The cheapest way so far to cut, split and deal the work.
struct Best<'p> {
    cost: u64,
    pieces: &'p [Piece],
    parts: Vec<Part>,
    units: Vec<[u32; 2]>,
    dealt: Dealt,
}

#[cfg(test)]
mod tests;
