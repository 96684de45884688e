//! From the tree of a step to the work of the attention kernel: a pure function.
//!
//! An *item* is a list of KV blocks and up to 64 packed query rows that attend to them; a *unit* is an
//! item through one KV head; every worker (a thread block that stays) gets a list of units. *Packed
//! row* `p` of a KV head is the query head `p % group` of row `p / group` of the plan.
//!
//! # What is shared
//!
//! A run of the plan can be an item of its own, read once per 64 packed rows below it, at the price
//! of one more partial result for each of them; or its blocks can be read again by every subtree
//! below it. Walking down from the root, each run takes what costs less. The whole is compared with
//! sharing everything and with sharing nothing, and the cheapest is taken: by the cost model, sharing
//! never loses.
//!
//! # The cost model
//!
//! The unit is the time to stream K and V of one token past up to 16 packed rows through one thread
//! block. An item costs `ITEM` plus its tokens, in tiles of 64; a token costs what its copy takes and
//! a share for every 16 packed rows; a partial result costs `PARTIAL` per packed row (8 D bytes against
//! 4 D of a token); a merge costs `MERGE`. `ITEM`, `COPY` and `SHARE` are fitted to the warp instructions
//! that the emulator counted over the study's trees (a tile of 64 tokens takes 1,414 and 373 more for
//! every 16 rows at D = 64, 2,179 and 657 at D = 128; one begun and ended item 1,845 and 2,460; within 2 %
//! and 6 % of each count); the others are estimates. All want a card to fit them.

use crate::plan::{Run, StepPlan};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Tokens of a tile of K or V.
pub const TILE: usize = 64;
/// Packed rows of the largest tile of Q. 128 rows of 128 elements need more than 255 registers on sm_120.
pub const fn most_rows(head_dim: usize) -> usize {
    if head_dim < 128 { 128 } else { MANY_ROWS }
}
/// Packed rows of the middle tile of Q.
pub const MANY_ROWS: usize = 64;
/// Packed rows of the smaller tile of Q.
pub const FEW_ROWS: usize = 16;

/// Beginning and ending an item.
const ITEM: u64 = 64;
/// Of a token's cost, the part of its copy and that of 16 packed rows, in 32nds.
const COPY: u64 = 25;
const SHARE: u64 = 7;
/// Writing and reading one partial result.
const PARTIAL: u64 = 3;
/// The merge kernel's launch.
const MERGE: u64 = 64;

/// What the items depend on besides the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Elements of a head: decides how many packed rows a tile has.
    pub head_dim: usize,
    /// Query heads per KV head.
    pub group: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Tokens a block holds.
    pub block_tokens: usize,
    /// Positions a row sees, itself included.
    pub window: Option<u32>,
    /// Multiprocessors.
    pub sms: usize,
    /// Thread blocks that share one.
    pub resident: usize,
}

impl Shape {
    /// Thread blocks that run at once.
    pub fn workers(&self) -> usize {
        (self.sms * self.resident).max(1)
    }

    /// Packed rows of the largest tile of Q.
    pub fn most_rows(&self) -> usize {
        most_rows(self.head_dim)
    }

    /// Cost of streaming `slots` tokens past `rows` packed rows.
    fn stream(&self, rows: usize, slots: usize) -> u64 {
        let tokens = (slots.div_ceil(TILE) * TILE) as u64;
        let tile = |rows: usize| match rows {
            0 => 0,
            _ => COPY + SHARE * rows.div_ceil(FEW_ROWS) as u64,
        };
        let most = self.most_rows();
        tokens * ((rows / most) as u64 * tile(most) + tile(rows % most)) / (COPY + SHARE)
    }
}

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
    /// Packed rows, 1 to 64.
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
#[derive(Clone, Debug)]
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
    let rules: &[Rule] = match sharing {
        Sharing::Tree => &[Rule::Cheaper, Rule::Always, Rule::Never],
        Sharing::Flat => &[Rule::Never],
        Sharing::Cascade => &[Rule::Root],
    };
    let builder = Builder { plan, shape };
    let (nodes, roots) = builder.forest();
    let (_, pieces) = rules
        .iter()
        .map(|&rule| {
            let mut pieces = Vec::new();
            for &root in &roots {
                builder.visit(&nodes, root, Vec::new(), rule, &mut pieces);
            }
            (builder.cost(&pieces), pieces)
        })
        .min_by_key(|(cost, _)| *cost)
        .expect("there is a rule");
    builder.deal(&pieces)
}

struct Builder<'a> {
    plan: &'a StepPlan,
    shape: &'a Shape,
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
                let shared = ITEM + self.shape.stream(rows, slots) + PARTIAL * rows as u64;
                let again: u64 = parts
                    .iter()
                    .map(|(rows, child)| {
                        let begin = if child.is_none() { ITEM } else { 0 };
                        begin + self.shape.stream(rows.len() * self.shape.group, slots)
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
                cost += ITEM + self.shape.stream(count, slots);
            });
        }
        let partials: u64 = cover.iter().filter(|&&n| n > 1).sum();
        cost + partials * self.shape.group as u64 * PARTIAL
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

    /// Items of the pieces, split as balance wants it, dealt to the workers.
    fn deal(&self, pieces: &[Piece]) -> Items {
        let workers = self.shape.workers();
        let kv_heads = self.shape.kv_heads as u64;
        let even = (self.cost(pieces) * kv_heads / workers as u64) as usize;
        let longest = |parts: usize| (even / parts).next_multiple_of(TILE).max(TILE);
        let mut limits = vec![usize::MAX];
        limits.extend([1, 2, 3, 4, 6, 8].map(longest));
        limits.dedup();
        limits
            .into_iter()
            .map(|limit| self.dealt(pieces, limit))
            .min_by_key(|items| {
                let partials = items.dests.iter().filter(|&&d| d >= 0).count() as u64;
                let merge = match partials {
                    0 => 0,
                    n => MERGE + n * kv_heads * PARTIAL / workers as u64,
                };
                // A worker alone on its multiprocessor is no faster than its longest list; two share it.
                let shared = items.heaviest_sm / self.shape.resident.max(1) as u64;
                (items.heaviest + shared) / 2 + merge
            })
            .expect("there is a limit")
    }

    /// Items of at most about `limit` tokens, the heaviest first to whoever has least to do.
    fn dealt(&self, pieces: &[Piece], limit: usize) -> Items {
        let block_tokens = self.shape.block_tokens;
        let mut out = Items::default();
        let mut cover = vec![0u32; self.plan.rows.len() * self.shape.group];
        for piece in pieces {
            let base = out.entries.len();
            out.entries.extend_from_slice(&piece.entries);
            for (first, count, entries) in self.tiles(piece) {
                let (least, most) = self.positions(first, count);
                let parts = (entries.len() * block_tokens).div_ceil(limit);
                let whole_tile = TILE.div_ceil(block_tokens);
                let step = entries.len().div_ceil(parts).next_multiple_of(whole_tile);
                for start in entries.clone().step_by(step) {
                    let stop = entries.end.min(start + step);
                    let last = piece.entries[stop - 1][2] as usize;
                    out.items.push(Item {
                        entry: (base + start) as u32,
                        slots: ((stop - 1 - start) * block_tokens + last) as u32,
                        packed: first as u32,
                        count: count as u32,
                        dest: 0,
                        least,
                        most,
                        unused: 0,
                    });
                    cover[first..first + count].iter_mut().for_each(|c| *c += 1);
                }
            }
        }

        // Slots of partial results, in the order of the items: by row, they are in path order.
        let mut slots_of: Vec<Vec<u32>> = vec![Vec::new(); cover.len()];
        for item in &mut out.items {
            item.dest = out.dests.len() as u32;
            for packed in item.packed..item.packed + item.count {
                out.dests.push(if cover[packed as usize] > 1 {
                    slots_of[packed as usize].push(out.partials as u32);
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

        let costs: Vec<u64> = out
            .items
            .iter()
            .map(|item| ITEM + self.shape.stream(item.count as usize, item.slots as usize))
            .collect();
        let mut order: Vec<usize> = (0..out.items.len()).collect();
        order.sort_by_key(|&i| Reverse(costs[i]));
        // To the multiprocessor that has least to do, there to the worker that has. Workers w, w + sms,
        // ... share one.
        let sms = self.shape.sms.max(1);
        let workers = self.shape.workers();
        let mut load: BinaryHeap<Reverse<(u64, usize)>> =
            (0..sms).map(|sm| Reverse((0, sm))).collect();
        let mut lists: Vec<(u64, Vec<[u32; 2]>)> = vec![(0, Vec::new()); workers];
        for item in order {
            for kv_head in 0..self.shape.kv_heads {
                let Reverse((cost, sm)) = load.pop().expect("there are multiprocessors");
                let worker = (sm..workers).step_by(sms).min_by_key(|&w| lists[w].0);
                let list = &mut lists[worker.expect("a multiprocessor has a worker")];
                list.1.push([item as u32, kv_head as u32]);
                list.0 += costs[item];
                out.total += costs[item];
                out.heaviest_sm = out.heaviest_sm.max(cost + costs[item]);
                load.push(Reverse((cost + costs[item], sm)));
            }
        }
        out.heaviest = lists.iter().map(|list| list.0).max().unwrap_or(0);
        out.lists.push(0);
        for (_, list) in lists {
            out.units.extend_from_slice(&list);
            out.lists.push(out.units.len() as u32);
        }
        out
    }
}

#[cfg(test)]
mod tests;
