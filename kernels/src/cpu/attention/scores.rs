//! Pass 1 of attention: the scores of all queries against the keys they see.
//!
//! A run's K is read [`KV_CHUNK`] tokens at a time, as panels of 16 tokens, once for all rows below
//! the run. The GEMM reads floating-point panels where they lie in the cache. Everything else is
//! staged first: int8 panels are widened to f32, plain heads are re-laid as panels. Then either
//! AMX or the vector units multiply.

use super::super::amx::{self, Line, Tiles};
use super::super::kv::{self, KvKind};
use super::super::tile::{COLS, MAX_ROWS, pair_offset, row_tiles, tile};
use super::{Active, CHUNK_PANELS, HeadTask, KV_CHUNK, RowChunk, Scratch, floats};
use crate::Dtype;
use crate::plan::Run;
use half::bf16;
use std::ops::Range;

impl HeadTask<'_> {
    /// Computes all scores of the chunk's queries. `tiles` are AMX's registers, if it is used.
    pub(super) fn scores(
        &self,
        chunk: &RowChunk,
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
        let (scores, staged) = (floats(scores), floats(staged));
        let dtype = if tiles.is_some() {
            self.split_queries(chunk, split);
            // AMX takes bf16 panels; plain heads are staged as such.
            Dtype::Bf16
        } else {
            let in_place = self.in_place(kv::keys_in_panels(self.layout));
            in_place.unwrap_or(Dtype::F32)
        };
        for (run, rows) in self.runs_of(&chunk.rows) {
            let tokens = run.num_tokens as usize;
            for first in (0..tokens).step_by(KV_CHUNK) {
                let position = run.start as usize + first;
                let count = (tokens - first).min(KV_CHUNK);
                self.activate(&rows, position, count, active);
                if active.is_empty() {
                    continue;
                }
                let mut w = [std::ptr::null(); CHUNK_PANELS];
                let w = &mut w[..count.div_ceil(COLS)];
                self.key_panels(run, first..first + count, dtype, staged, w);
                // Query `i`'s scores of this KV chunk begin at `scores[i * stride]`.
                let scores = &mut scores[position..];
                match tiles.as_deref_mut() {
                    Some(tiles) => self.scores_by_amx(tiles, chunk, active, split, w, scores),
                    None => self.scores_by_tiles(dtype, chunk, active, w, scores),
                }
            }
        }
    }

    /// Splits the chunk's queries into two bf16 parts each,
    /// `[query][head_dim / 32][high, low][32]`.
    fn split_queries(&self, chunk: &RowChunk, split: &mut Vec<Line>) {
        let head_dim = self.layout.head_dim;
        amx::grow(split, chunk.num_queries() * head_dim);
        let lines = split.chunks_exact_mut(head_dim / COLS);
        for (query, lines) in (0..chunk.num_queries()).zip(lines) {
            amx::split_row(self.query(chunk, query), lines);
        }
    }

    /// Sets `w` to the panels of `dtype` that hold `tokens` of a run, which it stages if the cache
    /// holds something else. `tokens` begins at a multiple of [`KV_CHUNK`].
    fn key_panels(
        &self,
        run: &Run,
        tokens: Range<usize>,
        dtype: Dtype,
        staged: &mut [f32],
        w: &mut [*const u8],
    ) {
        let block_tokens = self.layout.block_tokens;
        let in_panels = kv::keys_in_panels(self.layout);
        let in_place = self.in_place(in_panels).is_some();
        let panel_len = self.layout.head_dim * COLS;
        for (j, w) in w.iter_mut().enumerate() {
            let token = tokens.start + j * COLS;
            let head = self.head(run, token / block_tokens, KvKind::Keys);
            let panel = token % block_tokens / COLS;
            if in_place {
                let panel_bytes = panel_len * dtype.bytes();
                *w = head[panel * panel_bytes..][..panel_bytes].as_ptr();
                continue;
            }
            let staged = &mut staged[j * panel_len..][..panel_len];
            if in_panels {
                kv::widen_keys(self.layout, head, panel, staged);
            } else {
                let tokens = token..tokens.end.min(token + COLS);
                self.stage_plain_keys(run, tokens, dtype, staged);
            }
            *w = staged.as_ptr().cast();
        }
    }

    /// Writes the keys of up to 16 tokens, each a plain vector in the cache, into a panel of bf16
    /// or f32.
    fn stage_plain_keys(&self, run: &Run, tokens: Range<usize>, dtype: Dtype, staged: &mut [f32]) {
        let block_tokens = self.layout.block_tokens;
        for (column, token) in tokens.enumerate() {
            let head = self.head(run, token / block_tokens, KvKind::Keys);
            let token = token % block_tokens;
            if dtype == Dtype::Bf16 {
                let staged: &mut [bf16] = bytemuck::cast_slice_mut(staged);
                kv::read_plain(self.layout, head, token, |d, value| {
                    staged[pair_offset(d, column)] = bf16::from_f32(value);
                });
            } else {
                kv::read_plain(self.layout, head, token, |d, value| {
                    staged[d * COLS + column] = value;
                });
            }
        }
    }

    /// The scores of the active rows against the panels `w`, by AMX.
    fn scores_by_amx(
        &self,
        tiles: &mut Tiles,
        chunk: &RowChunk,
        active: &[Active],
        split: &[Line],
        w: &[*const u8],
        scores: &mut [f32],
    ) {
        let head_dim = self.layout.head_dim;
        let split: &[f32] = bytemuck::cast_slice(split);
        for consecutive in active.chunk_by(|a, b| a.row + 1 == b.row) {
            let query = chunk.query(consecutive[0].row, 0);
            let x = &split[query * head_dim..];
            let scores = &mut scores[query * chunk.stride..];
            let count = consecutive.len() * chunk.queries;
            let strides = [head_dim, chunk.stride];
            // SAFETY: whole panels, of as many inputs as the queries have.
            unsafe { amx::rows::<false>(tiles, x, count, w, head_dim, scores, strides) };
        }
    }

    /// The scores of the active rows against the panels `w`, by the vector units.
    fn scores_by_tiles(
        &self,
        dtype: Dtype,
        chunk: &RowChunk,
        active: &[Active],
        w: &[*const u8],
        scores: &mut [f32],
    ) {
        for (first, count) in row_tiles(active.len() * chunk.queries) {
            let mut x_ptrs = [std::ptr::null(); MAX_ROWS];
            let mut out_ptrs = [std::ptr::null_mut(); MAX_ROWS];
            for i in 0..count {
                let query = chunk.active_query(active, first + i);
                x_ptrs[i] = self.query(chunk, query).as_ptr();
                let scores = &mut scores[query * chunk.stride..][..w.len() * COLS];
                out_ptrs[i] = scores.as_mut_ptr();
            }
            let (x, out) = (&x_ptrs[..count], &out_ptrs[..count]);
            // SAFETY: the backend's constructor checked `isa`. The pointers come from slices of
            // head_dim numbers, of whole panels and of `w.len() * COLS` scores, which are this
            // thread's own and disjoint.
            unsafe {
                tile(
                    self.isa,
                    dtype,
                    x,
                    w,
                    self.layout.head_dim,
                    false,
                    out,
                    None,
                )
            };
        }
    }
}
