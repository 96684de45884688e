//! Attention over the tree plan.
//!
//! What: `out[r, h, :] = sum_t p_t v[t, g, :] / sum_t p_t`, `p_t = e^((s_t - max_t s) / sqrt(S))`,
//! `s_t = q[r, h, :] . k[t, g, :]`, over the tokens `t <= rows[r].position` of the row's runs, with a
//! sliding window `w` those of `t > rows[r].position - w`; `D` head dimension, `S` the layout's
//! `query_scalar` (`D` for most models), `g = h / (heads / kv_heads)`.
//!
//! Tiling: a task is a kv head x [`GROUP_ROWS`] consecutive rows. It goes through the group's runs
//! twice, [`STRETCH`] tokens at a time. First it computes all scores: each run's K is read once for all query heads of all the
//! group's rows below it. Then, with the exact maximum, all `p`, and once more through the runs
//! for V. Between the two lie `rows * heads / kv_heads * longest` scores in scratch memory. Both
//! passes are products with panels of K and V, for [`tile`](super::tile).
//!
//! Layout: q within `qkv` rows `[q heads | k heads | v heads]`; K and V as [`kv`](super::kv) says;
//! out `[rows, heads * D]`.
//!
//! Numerics: f32. A score is summed in the order of the dimensions; the maximum is exact; `p` is
//! the crate's `2^x` polynomial; the `p` are summed in 16 lanes, then the
//! lanes in order; an output is summed in the order of positions, then divided. Where K and V are bf16 and 32
//! divides the dimensions, AMX does both products, in its own order: of split queries, and of `p` cut to 16 bits
//! in groups of 32 positions ([`sections`]). Nothing depends on
//! how the positions are cut into runs and blocks or which other rows there are, and there is no
//! rescaling of partial results. A row reads V at no position after its own: rubbish there, NaN
//! included, does not reach it. What lies before its window is weighed with 0 or skipped. NaN in a
//! visible score gives NaN.
//!
//! Budget, per layer: K and V of each run once per [`GROUP_ROWS`] rows below it,
//! `runs' tokens * token_bytes / layers`, less what lies before the windows of all of them;
//! `4 * heads * D * sum_r (visible tokens of r)` FLOPs.
#![allow(unsafe_code)] // The micro-kernel takes pointers; tasks write disjoint parts of rows.

mod sections;

use self::sections::Sections;
use super::amx::{self, Line, Shapes, Tiles};
use super::buffers::{Activations, Arena};
use super::kv::{self, Part, head_range};
use super::linear::Shared;
use super::tile::{COLS, Isa, MAX_ROWS, pair_place, row_tiles, tile};
use super::workers::Workers;
use crate::exp2::exp2;
use crate::plan::Run;
use crate::widest::{maximum, widest};
use crate::{Dtype, KvDtype, KvLayout, StepPlan};
use half::bf16;
use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Rows of one task.
const GROUP_ROWS: usize = 16;
/// Tokens at a time that both passes go through.
const STRETCH: usize = 128;
const STRETCH_PANELS: usize = STRETCH / COLS;
/// Scores a task may keep at once; it takes its rows in turns if there would be more.
const MAX_SCORES: usize = 4 << 20;

/// Consecutive rows and the runs they have part in.
#[derive(Clone, Debug)]
pub(crate) struct RowGroup {
    rows: Range<usize>,
    /// Indices into the plan's runs, ascending.
    runs: Vec<u32>,
    /// For AMX.
    sections: Sections,
}

/// Divides the rows of a plan into groups.
pub(crate) fn row_groups(plan: &StepPlan, isa: Isa) -> Vec<RowGroup> {
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
    /// The batch's queries in two parts, for AMX.
    split: Vec<Line>,
    /// `[query][stride]` scores, then `p`, f32.
    scores: Vec<Line>,
    /// `[query][head_dim, padded to 16]` sums of `p v`, f32.
    sums: Vec<Line>,
    /// `[query]` sums of `p`.
    weights: Vec<f32>,
    /// Panels of K or V that do not lie in memory as a product takes them.
    staged: Vec<Line>,
    /// Rows that see something of the panels at hand, and where they stop seeing.
    active: Vec<Active>,
}

/// A row of the batch, and where in the tokens at hand it stops seeing (1 or more).
#[derive(Clone, Copy)]
struct Active {
    row: usize,
    visible: usize,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn tree_attention(
    workers: &Workers,
    isa: Isa,
    qkv: &Activations,
    plan: &StepPlan,
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
    let shared = Shared(out.data_mut().as_mut_ptr());
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

/// The attention of some rows through one kv head.
struct HeadTask<'a> {
    isa: Isa,
    qkv: &'a Activations,
    plan: &'a StepPlan,
    runs: &'a [u32],
    sections: &'a Sections,
    layout: &'a KvLayout,
    layer: usize,
    window: Option<u32>,
    kv_head: usize,
    arena: &'a [u8],
    out: Shared,
}

impl HeadTask<'_> {
    fn run(&self, rows: Range<usize>, scratch: &mut Scratch) {
        let queries = self.queries_per_row();
        let longest = rows.clone().map(|r| self.visible(r)).max().unwrap_or(0);
        // Tiles may write a stretch of scores from the last visible token on. An odd number of lines, so that
        // those of different queries do not fight for the same places of a cache.
        let lines = (longest + STRETCH).div_ceil(COLS);
        let stride = (lines | 1) * COLS;
        let at_once = (MAX_SCORES / (stride * queries)).max(1);
        let whole =
            self.layout.dtype == Dtype::Bf16.into() && self.layout.head_dim.is_multiple_of(32);
        let mut tiles =
            (self.isa == Isa::Amx && whole).then(|| Tiles::configure(Shapes::Bf16, amx::MANY));
        for start in rows.clone().step_by(at_once) {
            let batch = start..rows.end.min(start + at_once);
            let padded = self.layout.head_dim.next_multiple_of(COLS);
            let count = batch.len() * queries;
            amx::grow(&mut scratch.scores, count * stride);
            amx::grow(&mut scratch.sums, count * padded);
            amx::grow(
                &mut scratch.staged,
                STRETCH.max(self.layout.block_tokens) * padded,
            );
            scratch.weights.clear();
            numbers(&mut scratch.sums)[..count * padded].fill(0.0);

            self.scores(&batch, stride, tiles.as_mut(), scratch);
            let scale = LOG2_E / (self.layout.query_scalar as f32).sqrt();
            for query in 0..count {
                let row = batch.start + query / queries;
                let scores = &mut numbers(&mut scratch.scores)[query * stride..][..stride];
                let (first, visible) = (self.first(row), self.visible(row));
                scratch.weights.push(if tiles.is_some() {
                    amx::halved_exponentials(scores, first, visible, scale)
                } else {
                    scores[..first].fill(0.0);
                    exponentials(&mut scores[first..visible], scale)
                });
            }
            match &mut tiles {
                Some(tiles) => self.values_by_amx(tiles, &batch, stride, scratch),
                None => self.values(&batch, stride, padded, scratch),
            }
            self.write(&batch, padded, scratch);
        }
    }

    /// Query heads per kv head.
    fn queries_per_row(&self) -> usize {
        self.layout.heads / self.layout.kv_heads
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

    /// The runs of the group that have a row of the batch, with those rows.
    fn runs_of(&self, batch: &Range<usize>) -> impl Iterator<Item = (&Run, Range<usize>)> {
        self.runs.iter().filter_map(|&index| {
            let run = &self.plan.runs[index as usize];
            let rows = run.rows.start.max(batch.start)..run.rows.end.min(batch.end);
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

    /// The bytes of this head of a block.
    fn head(&self, run: &Run, block: usize, part: Part) -> &[u8] {
        let block = self.plan.blocks[run.blocks.start + block];
        &self.arena[head_range(self.layout, block, self.layer, part, self.kv_head)]
    }

    /// The type of panels that lie in memory as a tile takes them; `None`: K or V is staged in f32.
    fn stored(&self, in_panels: bool) -> Option<Dtype> {
        match self.layout.dtype {
            KvDtype::Float(dtype) if in_panels => Some(dtype),
            _ => None,
        }
    }

    /// Pass 1: all scores of the batch's queries.
    fn scores(
        &self,
        batch: &Range<usize>,
        stride: usize,
        mut tiles: Option<&mut Tiles>,
        scratch: &mut Scratch,
    ) {
        let Scratch {
            scores,
            staged,
            active,
            split,
            ..
        } = scratch;
        let queries = self.queries_per_row();
        let head_dim = self.layout.head_dim;
        let block_tokens = self.layout.block_tokens;
        let in_panels = kv::keys_in_panels(self.layout);
        let stored = self.stored(in_panels);
        // AMX takes panels of bf16 however K is stored.
        let dtype = match tiles {
            Some(_) => Dtype::Bf16,
            None => stored.unwrap_or(Dtype::F32),
        };
        let panel_len = head_dim * COLS;
        let (scores, staged) = (numbers(scores), numbers(staged));
        if tiles.is_some() {
            let count = batch.len() * queries;
            amx::grow(split, count * head_dim);
            let lines = split.chunks_exact_mut(head_dim / COLS);
            for (query, lines) in (0..count).zip(lines) {
                amx::split_row(
                    self.query(batch.start + query / queries, query % queries),
                    lines,
                );
            }
        }
        for (run, rows) in self.runs_of(batch) {
            let tokens = run.tokens as usize;
            for first in (0..tokens).step_by(STRETCH) {
                let position = run.start as usize + first;
                let here = (tokens - first).min(STRETCH);
                self.activate(&rows, position, here, active);
                if active.is_empty() {
                    continue;
                }
                let panels = here.div_ceil(COLS);
                let mut w_at = [std::ptr::null(); STRETCH_PANELS];
                for (j, at) in w_at[..panels].iter_mut().enumerate() {
                    let token = first + j * COLS;
                    let head = self.head(run, token / block_tokens, Part::Keys);
                    let panel = token % block_tokens / COLS;
                    *at = if stored.is_some() {
                        let panel_bytes = panel_len * dtype.bytes();
                        head[panel * panel_bytes..][..panel_bytes].as_ptr()
                    } else {
                        let staged = &mut staged[j * panel_len..][..panel_len];
                        if in_panels {
                            kv::widen_keys(self.layout, head, panel, staged);
                        } else {
                            for column in 0..(tokens - token).min(COLS) {
                                let token = token + column;
                                let head = self.head(run, token / block_tokens, Part::Keys);
                                kv::read_plain(self.layout, head, token % block_tokens, |d, v| {
                                    if tiles.is_some() {
                                        let staged: &mut [bf16] = bytemuck::cast_slice_mut(staged);
                                        staged[pair_place(d, column)] = bf16::from_f32(v);
                                    } else {
                                        staged[d * COLS + column] = v;
                                    }
                                });
                            }
                        }
                        staged.as_ptr().cast()
                    };
                }
                if let Some(tiles) = tiles.as_deref_mut() {
                    for active in active.chunk_by(|a, b| a.row + 1 == b.row) {
                        let query = (active[0].row - batch.start) * queries;
                        let x = &numbers(split)[query * head_dim..];
                        let scores = &mut scores[query * stride + position..];
                        let (count, w) = (active.len() * queries, &w_at[..panels]);
                        let strides = [head_dim, stride];
                        // SAFETY: whole panels, of as many inputs as the queries have.
                        unsafe {
                            amx::rows::<false>(tiles, x, count, w, head_dim, scores, strides);
                        }
                    }
                    continue;
                }
                for (query, count) in row_tiles(active.len() * queries) {
                    let mut x_at = [std::ptr::null(); MAX_ROWS];
                    let mut indices = [0; MAX_ROWS];
                    for i in 0..count {
                        let row = active[(query + i) / queries].row;
                        let head = (query + i) % queries;
                        x_at[i] = self.query(row, head).as_ptr();
                        indices[i] = ((row - batch.start) * queries + head) * stride + position;
                    }
                    let mut out_at = [std::ptr::null_mut(); MAX_ROWS];
                    for (out, index) in out_at[..count].iter_mut().zip(indices) {
                        *out = scores[index..][..panels * COLS].as_mut_ptr();
                    }
                    // SAFETY: the backend's constructor checked `isa`. The pointers come from
                    // slices of head_dim numbers, of whole panels and of `panels * COLS` scores,
                    // which are this thread's own.
                    unsafe {
                        tile(
                            self.isa,
                            dtype,
                            &x_at[..count],
                            &w_at[..panels],
                            head_dim,
                            false,
                            &out_at[..count],
                            None,
                        );
                    }
                }
            }
        }
    }

    /// Query vector `head` (within the kv head) of a row.
    fn query(&self, row: usize, head: usize) -> &[f32] {
        let head = self.kv_head * self.queries_per_row() + head;
        &self.qkv.row(row)[head * self.layout.head_dim..][..self.layout.head_dim]
    }

    /// Pass 2: adds up `p v` for all of the batch's queries.
    fn values(&self, batch: &Range<usize>, stride: usize, padded: usize, scratch: &mut Scratch) {
        let Scratch {
            scores,
            sums,
            staged,
            active,
            ..
        } = scratch;
        let queries = self.queries_per_row();
        let block_tokens = self.layout.block_tokens;
        let panels = padded / COLS;
        let in_panels = kv::values_in_panels(self.layout);
        let stored = self.stored(in_panels);
        let dtype = stored.unwrap_or(Dtype::F32);
        // Several blocks make one stretch, staged if they are not one already: the sums stay in
        // registers for as many tokens.
        let blocks = (STRETCH / block_tokens).max(1);
        let stretch = blocks * block_tokens;
        let row_bytes = COLS * dtype.bytes();
        let panel_bytes = stretch * row_bytes;
        let (scores, sums, staged) = (numbers(scores), numbers(sums), numbers(staged));
        if stored.is_none() {
            staged[..stretch * padded].fill(0.0);
        }
        for (run, rows) in self.runs_of(batch) {
            let tokens = run.tokens as usize;
            for first in (0..tokens).step_by(stretch) {
                let position = run.start as usize + first;
                let here = (tokens - first).min(stretch);
                self.activate(&rows, position, here, active);
                if active.is_empty() {
                    continue;
                }
                let v: &[u8] = if blocks == 1 && stored.is_some() {
                    self.head(run, first / block_tokens, Part::Values)
                } else {
                    for token in (0..here).step_by(block_tokens) {
                        let head = self.head(run, (first + token) / block_tokens, Part::Values);
                        let tokens = (here - token).min(block_tokens);
                        if stored.is_some() {
                            let staged: &mut [u8] = bytemuck::cast_slice_mut(staged);
                            let bytes = block_tokens * row_bytes;
                            for (panel, head) in head.chunks_exact(bytes).enumerate() {
                                let at = panel * panel_bytes + token * row_bytes;
                                staged[at..at + bytes].copy_from_slice(head);
                            }
                        } else if in_panels {
                            let staged = &mut staged[..stretch * padded];
                            kv::widen_values(self.layout, head, tokens, token, stretch, staged);
                        } else {
                            for t in 0..tokens {
                                kv::read_plain(self.layout, head, t, |d, value| {
                                    let row = d / COLS * stretch + token + t;
                                    staged[row * COLS + d % COLS] = value;
                                });
                            }
                        }
                    }
                    bytemuck::cast_slice(staged)
                };
                // `count` queries from `query` on, tokens `from..to` of this stretch.
                let mut add =
                    |active: &[Active], (query, count): (usize, usize), from: usize, to: usize| {
                        let mut x_at = [std::ptr::null(); MAX_ROWS];
                        let mut out_at = [std::ptr::null_mut(); MAX_ROWS];
                        for panel in (0..panels).step_by(STRETCH_PANELS) {
                            let width = STRETCH_PANELS.min(panels - panel);
                            let mut w_at = [std::ptr::null(); STRETCH_PANELS];
                            for (j, at) in w_at[..width].iter_mut().enumerate() {
                                let v = &v[(panel + j) * panel_bytes..][..panel_bytes];
                                *at = v[from * row_bytes..].as_ptr();
                            }
                            for i in 0..count {
                                let row = active[(query + i) / queries].row - batch.start;
                                let index = row * queries + (query + i) % queries;
                                x_at[i] = scores[index * stride + position..][from..to].as_ptr();
                                let sums = &mut sums[index * padded..][..padded];
                                out_at[i] = sums[panel * COLS..][..width * COLS].as_mut_ptr();
                            }
                            // SAFETY: the backend's constructor checked `isa`. The pointers come from
                            // slices of `to - from` numbers, of as many rows of panels and of
                            // `width * COLS` sums, which are this thread's own.
                            unsafe {
                                tile(
                                    self.isa,
                                    dtype,
                                    &x_at[..count],
                                    &w_at[..width],
                                    to - from,
                                    true,
                                    &out_at[..count],
                                    None,
                                );
                            }
                        }
                    };
                for (query, count) in row_tiles(active.len() * queries) {
                    let of = |i: usize| active[(query + i) / queries].visible;
                    // Panels may be of pairs of tokens, which nothing begins in the middle of.
                    let common = (0..count).map(of).min().unwrap_or(0) / 2 * 2;
                    add(active, (query, count), 0, common);
                    for i in 0..count {
                        if of(i) > common {
                            add(active, (query + i, 1), common, of(i));
                        }
                    }
                }
            }
        }
    }

    /// Divides and writes the batch's outputs.
    fn write(&self, batch: &Range<usize>, padded: usize, scratch: &Scratch) {
        let queries = self.queries_per_row();
        let head_dim = self.layout.head_dim;
        let width = queries * head_dim;
        let sums: &[f32] = bytemuck::cast_slice(&scratch.sums);
        for row in batch.clone() {
            let start = row * self.layout.heads * head_dim + self.kv_head * width;
            // SAFETY: `tree_attention` checked that `out` has `rows` rows of heads * head_dim
            // columns, and outlives the tasks. No other task has both this row and this kv head.
            let out =
                unsafe { std::slice::from_raw_parts_mut(self.out.pointer().add(start), width) };
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let query = (row - batch.start) * queries + head;
                let weight = scratch.weights[query];
                for (out, &sum) in out.iter_mut().zip(&sums[query * padded..]) {
                    *out = sum / weight;
                }
            }
        }
    }
}

/// Lines as what they hold.
fn numbers(lines: &mut [Line]) -> &mut [f32] {
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
