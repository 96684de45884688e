//! Attention over the tree plan.
//!
//! What: `out[r, h, :] = sum_t p_t v[t, g, :] / sum_t p_t`, `p_t = e^((s_t - max_t s) / sqrt(S))`,
//! `s_t = q[r, h, :] . k[t, g, :]`, over the tokens `t <= rows[r].position` of the row's runs; with
//! a sliding window `w`, only over those with `t > rows[r].position - w`. `D` is the head
//! dimension, `S` the layout's `query_scalar`, `g = h / (heads / kv_heads)`.
//!
//! Tiling: a task is one KV head x [`GROUP_ROWS`] consecutive rows. It reads the group's runs
//! twice, [`KV_CHUNK`] tokens at a time. Pass 1 ([`scores`]) computes all scores; each run's K is
//! read once for all query heads of all rows below it. The exact maximum then turns scores into
//! `p`. Pass 2 ([`values`], or [`sections`] on AMX) reads V. Between the passes
//! `rows * heads / kv_heads * longest` scores lie in scratch memory. Both passes are GEMMs with
//! panels of K and V ([`tile`](super::tile)).
//!
//! Layout: Q within `qkv` rows `[q heads | k heads | v heads]`; K and V as [`kv`](super::kv)
//! describes; out `[rows, heads * D]`.
//!
//! Numerics: f32. A score is summed in the order of the dimensions. The maximum is exact. `p` comes
//! from the crate's `2^x` polynomial. The `p` are summed in 16 lanes, then the lanes in order. An
//! output is summed in the order of positions, then divided. If K and V are bf16 and 32 divides the
//! head dimension, AMX does both GEMMs in its own order, with split queries and with `p` cut to 16
//! bits in groups of 32 positions ([`sections`]). A row's bits do not depend on how the positions
//! are cut into runs and blocks, nor on the other rows; partial results are never rescaled. A row
//! reads V at no position after its own, so garbage there, NaN included, does not reach it.
//! Positions before its window are weighed with 0 or skipped. NaN in a visible score gives NaN.
//!
//! Budget, per layer: K and V of each run once per [`GROUP_ROWS`] rows below it,
//! `runs' tokens * token_bytes / layers`, less the tokens before the windows of all these rows;
//! `4 * heads * D * sum_r (visible tokens of r)` FLOPs.
#![allow(unsafe_code)] // The micro-kernel takes pointers; tasks write disjoint parts of rows.

mod scores;
mod sections;
mod values;

use self::sections::Sections;
use super::amx::{self, Line, TileConfig, Tiles};
use super::buffers::{Activations, Arena};
use super::kv::{KvKind, head_range};
use super::linear::SharedOutput;
use super::tile::{COLS, Isa};
use super::workers::Workers;
use crate::exp2::exp2;
use crate::plan::Run;
use crate::widest::{maximum, widest};
use crate::{BatchPlan, Dtype, KvDtype, KvLayout};
use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Rows of one task.
const GROUP_ROWS: usize = 16;
/// KV tokens that both passes read at a time.
const KV_CHUNK: usize = 128;
/// Panels of 16 tokens in a KV chunk.
const CHUNK_PANELS: usize = KV_CHUNK / COLS;
/// Scores a task may keep at once. If its rows have more, it computes them in several chunks.
const MAX_SCORES: usize = 4 << 20;

/// Consecutive rows and the runs that at least one of them attends to.
#[derive(Clone, Debug)]
pub(crate) struct RowGroup {
    rows: Range<usize>,
    /// Indices into the plan's runs, ascending.
    runs: Vec<u32>,
    /// Used by AMX only; empty elsewhere.
    sections: Sections,
}

/// Divides the rows of a plan into groups.
pub(crate) fn row_groups(plan: &BatchPlan, isa: Isa) -> Vec<RowGroup> {
    let rows = plan.rows.len();
    let mut groups: Vec<RowGroup> = (0..rows.div_ceil(GROUP_ROWS))
        .map(|i| RowGroup {
            rows: i * GROUP_ROWS..rows.min((i + 1) * GROUP_ROWS),
            runs: Vec::new(),
            sections: Sections::default(),
        })
        .collect();
    for (index, run) in plan.runs.iter().enumerate() {
        if !run.rows.is_empty() {
            for group in &mut groups[run.rows.start / GROUP_ROWS..=(run.rows.end - 1) / GROUP_ROWS]
            {
                group.runs.push(index as u32);
            }
        }
    }
    if isa == Isa::Amx {
        for group in &mut groups {
            group.sections = Sections::new(plan, &group.rows, &group.runs);
        }
    }
    groups
}

/// A thread's scratch memory.
#[derive(Default)]
struct Scratch {
    /// The chunk's queries, each split into two bf16 parts, for AMX.
    split: Vec<Line>,
    /// `[query][stride]` scores, then `p`, f32.
    scores: Vec<Line>,
    /// `[query][head_dim, padded to 16]` sums of `p v`, f32.
    sums: Vec<Line>,
    /// `[query]` sums of `p`, the softmax denominators.
    denominators: Vec<f32>,
    /// Panels of K or V that the cache does not hold in the GEMM's layout.
    staged: Vec<Line>,
    /// Rows that see at least one token of the current KV chunk.
    active: Vec<Active>,
}

/// A row of the chunk, and how many tokens of the current KV chunk precede its end of sight (1 or
/// more).
#[derive(Clone, Copy)]
struct Active {
    row: usize,
    visible: usize,
}

/// The rows that a task computes at once, and the layout of their scores.
struct RowChunk {
    rows: Range<usize>,
    /// Query heads per row (within the KV head).
    queries: usize,
    /// Scores from one query to the next.
    stride: usize,
    /// Head dimension, padded to whole panels: sums from one query to the next.
    padded_dim: usize,
}

impl RowChunk {
    /// Queries of all rows.
    fn num_queries(&self) -> usize {
        self.rows.len() * self.queries
    }

    /// Index of query head `head` of `row` among the chunk's queries.
    fn query(&self, row: usize, head: usize) -> usize {
        (row - self.rows.start) * self.queries + head
    }

    /// Index of the query `i` places into the queries of the active rows.
    fn active_query(&self, active: &[Active], i: usize) -> usize {
        self.query(active[i / self.queries].row, i % self.queries)
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// [`Backend::tree_attention`](crate::Backend::tree_attention).
#[allow(clippy::too_many_arguments)] // each is one of the formula's names
pub(crate) fn tree_attention(
    workers: &Workers,
    isa: Isa,
    qkv: &Activations,
    plan: &BatchPlan,
    groups: &[RowGroup],
    layout: &KvLayout,
    layer: usize,
    window: Option<u32>,
    arena: &Arena,
    out: &mut Activations,
) {
    let rows = plan.rows.len();
    assert_eq!(qkv.cols(), layout.qkv_cols(), "columns of Q, K and V");
    assert_eq!(
        out.cols(),
        layout.heads * layout.head_dim,
        "columns of attention's output"
    );
    assert!(
        rows <= qkv.rows() && rows <= out.rows(),
        "{rows} rows of attention; {} in, {} out",
        qkv.rows(),
        out.rows()
    );
    assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
    assert_eq!(layout.heads % layout.kv_heads, 0, "heads per kv head");
    let seen = |position: u32| (position as usize + 1).min(window.unwrap_or(u32::MAX) as usize);
    let visible: usize = plan.rows.iter().map(|row| seen(row.position)).sum();
    let operations = 4 * layout.heads * layout.head_dim * visible;
    let shared = SharedOutput(out.data_mut().as_mut_ptr());
    workers.run(groups.len() * layout.kv_heads, operations, |task| {
        let group = &groups[task / layout.kv_heads];
        let head = HeadTask {
            isa,
            qkv,
            plan,
            runs: &group.runs,
            sections: &group.sections,
            layout,
            layer,
            window,
            kv_head: task % layout.kv_heads,
            arena: arena.bytes(),
            out: shared,
        };
        SCRATCH.with_borrow_mut(|scratch| head.run(group.rows.clone(), scratch));
    });
}

/// The attention of some rows through one KV head.
struct HeadTask<'a> {
    isa: Isa,
    qkv: &'a Activations,
    plan: &'a BatchPlan,
    runs: &'a [u32],
    sections: &'a Sections,
    layout: &'a KvLayout,
    layer: usize,
    window: Option<u32>,
    kv_head: usize,
    arena: &'a [u8],
    out: SharedOutput,
}

impl HeadTask<'_> {
    fn run(&self, rows: Range<usize>, scratch: &mut Scratch) {
        let layout = self.layout;
        let queries = layout.heads / layout.kv_heads;
        let longest = rows.clone().map(|r| self.visible(r)).max().unwrap_or(0);
        // Tiles may write a whole KV chunk of scores from the last visible token on. An odd number
        // of cache lines spreads the queries over the cache's sets.
        let lines = (longest + KV_CHUNK).div_ceil(COLS);
        let stride = (lines | 1) * COLS;
        let max_rows = (MAX_SCORES / (stride * queries)).max(1);
        let by_amx = self.isa == Isa::Amx
            && layout.dtype == Dtype::Bf16.into()
            && layout.head_dim.is_multiple_of(amx::INPUTS);
        let mut tiles = by_amx.then(|| Tiles::configure(TileConfig::Bf16, amx::MANY));
        for start in rows.clone().step_by(max_rows) {
            let chunk = RowChunk {
                rows: start..rows.end.min(start + max_rows),
                queries,
                stride,
                padded_dim: layout.head_dim.next_multiple_of(COLS),
            };
            self.run_chunk(&chunk, tiles.as_mut(), scratch);
        }
    }

    fn run_chunk(&self, chunk: &RowChunk, mut tiles: Option<&mut Tiles>, scratch: &mut Scratch) {
        let (count, padded_dim) = (chunk.num_queries(), chunk.padded_dim);
        amx::grow(&mut scratch.scores, count * chunk.stride);
        amx::grow(&mut scratch.sums, count * padded_dim);
        amx::grow(
            &mut scratch.staged,
            KV_CHUNK.max(self.layout.block_tokens) * padded_dim,
        );
        scratch.denominators.clear();
        floats(&mut scratch.sums)[..count * padded_dim].fill(0.0);

        self.scores(chunk, tiles.as_deref_mut(), scratch);
        let scale = LOG2_E / (self.layout.query_scalar as f32).sqrt();
        for query in 0..count {
            let row = chunk.rows.start + query / chunk.queries;
            let scores = &mut floats(&mut scratch.scores)[query * chunk.stride..][..chunk.stride];
            let (first, visible) = (self.first(row), self.visible(row));
            scratch.denominators.push(if tiles.is_some() {
                amx::split_exponentials(scores, first, visible, scale)
            } else {
                scores[..first].fill(0.0);
                exponentials(&mut scores[first..visible], scale)
            });
        }
        match tiles {
            Some(tiles) => self.values_by_amx(tiles, chunk, scratch),
            None => self.values(chunk, scratch),
        }
        self.write(chunk, scratch);
    }

    /// Position of the first token a row sees.
    fn first(&self, row: usize) -> usize {
        let window = self.window.unwrap_or(u32::MAX) as usize;
        self.visible(row).saturating_sub(window)
    }

    /// One more than the position of the last token a row sees.
    fn visible(&self, row: usize) -> usize {
        self.plan.rows[row].position as usize + 1
    }

    /// The group's runs that at least one of `rows` attends to, each with these rows.
    fn runs_of(&self, rows: &Range<usize>) -> impl Iterator<Item = (&Run, Range<usize>)> {
        self.runs.iter().filter_map(|&index| {
            let run = &self.plan.runs[index as usize];
            let rows = run.rows.start.max(rows.start)..run.rows.end.min(rows.end);
            (!rows.is_empty()).then_some((run, rows))
        })
    }

    /// Fills `active` with the rows that see any of `tokens` tokens from position `start` on.
    fn activate(&self, rows: &Range<usize>, start: usize, tokens: usize, active: &mut Vec<Active>) {
        active.clear();
        active.extend(rows.clone().filter_map(|row| {
            let visible = self.visible(row).saturating_sub(start).min(tokens);
            let sees = visible > 0 && self.first(row) < start + tokens;
            sees.then_some(Active { row, visible })
        }));
    }

    /// Query `query` of the chunk, `[head_dim]`.
    fn query(&self, chunk: &RowChunk, query: usize) -> &[f32] {
        let row = chunk.rows.start + query / chunk.queries;
        let head = self.kv_head * chunk.queries + query % chunk.queries;
        &self.qkv.row(row)[head * self.layout.head_dim..][..self.layout.head_dim]
    }

    /// This KV head's bytes in a block of a run.
    fn head(&self, run: &Run, block: usize, kind: KvKind) -> &[u8] {
        let block = self.plan.blocks[run.blocks.start + block];
        &self.arena[head_range(self.layout, block, self.layer, kind, self.kv_head)]
    }

    /// The type of panels that the GEMM reads in place; `None`: K or V is staged in f32.
    fn in_place(&self, in_panels: bool) -> Option<Dtype> {
        match self.layout.dtype {
            KvDtype::Float(dtype) if in_panels => Some(dtype),
            _ => None,
        }
    }

    /// Divides and writes the chunk's outputs.
    fn write(&self, chunk: &RowChunk, scratch: &Scratch) {
        let head_dim = self.layout.head_dim;
        let width = chunk.queries * head_dim;
        let sums: &[f32] = bytemuck::cast_slice(&scratch.sums);
        for row in chunk.rows.clone() {
            let start = row * self.layout.heads * head_dim + self.kv_head * width;
            // SAFETY: `tree_attention` checked that `out` has `rows` rows of heads * head_dim
            // columns, and outlives the tasks. No other task has both this row and this KV head.
            let out =
                unsafe { std::slice::from_raw_parts_mut(self.out.pointer().add(start), width) };
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let query = chunk.query(row, head);
                let denominator = scratch.denominators[query];
                for (out, &sum) in out.iter_mut().zip(&sums[query * chunk.padded_dim..]) {
                    *out = sum / denominator;
                }
            }
        }
    }
}

/// Cache lines as f32.
fn floats(lines: &mut [Line]) -> &mut [f32] {
    bytemuck::cast_slice_mut(lines)
}

widest! {
    /// Replaces every score `s` by `2^((s - max) * scale)` and returns the sum.
    fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
        let max = maximum(scores);
        let mut lanes = [0.0f32; COLS];
        let (chunks, rest) = scores.as_chunks_mut::<COLS>();
        for chunk in chunks {
            for (lane, s) in lanes.iter_mut().zip(chunk) {
                *s = exp2((*s - max) * scale);
                *lane += *s;
            }
        }
        for (lane, s) in lanes.iter_mut().zip(rest) {
            *s = exp2((*s - max) * scale);
            *lane += *s;
        }
        lanes.iter().sum()
    }
}
