//! Pass 2 of attention: the sums of `p v`, by the vector units.
//!
//! A run's V is read [`KV_CHUNK`] tokens at a time (a block at a time, if blocks are larger), as
//! panels of 16 dimensions, once for all rows below the run. A block that is a whole chunk and
//! holds floating-point panels is read in place. Otherwise the chunk is staged: several small
//! blocks become one stretch of panels, so that the sums stay in registers for as many tokens; int8
//! is widened; plain heads are re-laid.

use super::super::kv::{self, KvKind};
use super::super::tile::{COLS, MAX_ROWS, row_tiles, tile};
use super::{Active, CHUNK_PANELS, HeadTask, KV_CHUNK, RowChunk, Scratch, floats};
use crate::plan::Run;
use crate::{Dtype, KvLayout};
use std::ops::Range;

/// The layout of V's panels in a KV chunk, `[dimension / 16][token][16]` (of pairs in bf16).
struct ValueLayout {
    /// Type of the panels; f32 if they are staged from something else.
    dtype: Dtype,
    /// Whether the cache holds panels, of any type.
    in_panels: bool,
    /// Whether the cache holds panels of `dtype`.
    in_place: bool,
    /// Tokens of a KV chunk: whole blocks.
    tokens: usize,
    /// Bytes of one token in a panel.
    row_bytes: usize,
    /// Bytes of one panel.
    panel_bytes: usize,
}

/// V of one KV chunk.
struct Values<'a> {
    layout: &'a ValueLayout,
    panels: &'a [u8],
    /// Position of the first token.
    position: usize,
}

impl HeadTask<'_> {
    /// Adds up `p v` for all of the chunk's queries.
    pub(super) fn values(&self, chunk: &RowChunk, scratch: &mut Scratch) {
        let Scratch {
            scores,
            sums,
            staged,
            active,
            ..
        } = scratch;
        let (p, sums, staged) = (floats(scores), floats(sums), floats(staged));
        let layout = &self.value_layout();
        let staged = &mut staged[..layout.tokens * chunk.padded_dim];
        if !layout.in_place {
            staged.fill(0.0);
        }
        for (run, rows) in self.runs_of(&chunk.rows) {
            let tokens = run.num_tokens as usize;
            for first in (0..tokens).step_by(layout.tokens) {
                let position = run.start as usize + first;
                let count = (tokens - first).min(layout.tokens);
                self.activate(&rows, position, count, active);
                if active.is_empty() {
                    continue;
                }
                let panels = self.value_panels(run, first..first + count, layout, staged);
                let values = Values {
                    layout,
                    panels,
                    position,
                };
                self.add_active(chunk, &values, active, p, sums);
            }
        }
    }

    fn value_layout(&self) -> ValueLayout {
        let KvLayout { block_tokens, .. } = *self.layout;
        let in_panels = kv::values_in_panels(self.layout);
        let in_place = self.in_place(in_panels);
        let dtype = in_place.unwrap_or(Dtype::F32);
        let tokens = (KV_CHUNK / block_tokens).max(1) * block_tokens;
        let row_bytes = COLS * dtype.bytes();
        ValueLayout {
            dtype,
            in_panels,
            in_place: in_place.is_some(),
            tokens,
            row_bytes,
            panel_bytes: tokens * row_bytes,
        }
    }

    /// The panels that hold `tokens` of a run, which it stages if the cache does not hold them as
    /// one chunk.
    fn value_panels<'a>(
        &'a self,
        run: &Run,
        tokens: Range<usize>,
        layout: &ValueLayout,
        staged: &'a mut [f32],
    ) -> &'a [u8] {
        let block_tokens = self.layout.block_tokens;
        if layout.in_place && layout.tokens == block_tokens {
            return self.head(run, tokens.start / block_tokens, KvKind::Values);
        }
        for offset in (0..tokens.len()).step_by(block_tokens) {
            let block = (tokens.start + offset) / block_tokens;
            let head = self.head(run, block, KvKind::Values);
            let count = (tokens.len() - offset).min(block_tokens);
            if layout.in_place {
                let staged: &mut [u8] = bytemuck::cast_slice_mut(staged);
                let bytes = block_tokens * layout.row_bytes;
                for (panel, head) in head.chunks_exact(bytes).enumerate() {
                    let start = panel * layout.panel_bytes + offset * layout.row_bytes;
                    staged[start..start + bytes].copy_from_slice(head);
                }
            } else if layout.in_panels {
                kv::widen_values(self.layout, head, count, offset, layout.tokens, staged);
            } else {
                for token in 0..count {
                    kv::read_plain(self.layout, head, token, |d, value| {
                        let row = d / COLS * layout.tokens + offset + token;
                        staged[row * COLS + d % COLS] = value;
                    });
                }
            }
        }
        bytemuck::cast_slice(staged)
    }

    /// Adds `p v` of one KV chunk to the sums of the active rows, each up to its last visible
    /// token.
    fn add_active(
        &self,
        chunk: &RowChunk,
        values: &Values<'_>,
        active: &[Active],
        p: &[f32],
        sums: &mut [f32],
    ) {
        for (first, count) in row_tiles(active.len() * chunk.queries) {
            let mut queries = [0; MAX_ROWS];
            let mut visible = [0; MAX_ROWS];
            for i in 0..count {
                queries[i] = chunk.active_query(active, first + i);
                visible[i] = active[(first + i) / chunk.queries].visible;
            }
            let (queries, visible) = (&queries[..count], &visible[..count]);
            // Panels may hold pairs of tokens, and a tile begins at a whole pair.
            let common = visible.iter().min().copied().unwrap_or(0) / 2 * 2;
            self.add_tile(chunk, values, queries, 0..common, p, sums);
            for (&query, &visible) in queries.iter().zip(visible) {
                if visible > common {
                    self.add_tile(chunk, values, &[query], common..visible, p, sums);
                }
            }
        }
    }

    /// Adds `p v` of `tokens` of a KV chunk to the sums of up to [`MAX_ROWS`] queries.
    fn add_tile(
        &self,
        chunk: &RowChunk,
        values: &Values<'_>,
        queries: &[usize],
        tokens: Range<usize>,
        p: &[f32],
        sums: &mut [f32],
    ) {
        let ValueLayout {
            dtype,
            row_bytes,
            panel_bytes,
            ..
        } = *values.layout;
        let panels = chunk.padded_dim / COLS;
        let mut x_ptrs = [std::ptr::null(); MAX_ROWS];
        let mut out_ptrs = [std::ptr::null_mut(); MAX_ROWS];
        for panel in (0..panels).step_by(CHUNK_PANELS) {
            let width = CHUNK_PANELS.min(panels - panel);
            let mut w_ptrs = [std::ptr::null(); CHUNK_PANELS];
            for (j, w) in w_ptrs[..width].iter_mut().enumerate() {
                let panel = &values.panels[(panel + j) * panel_bytes..][..panel_bytes];
                *w = panel[tokens.start * row_bytes..].as_ptr();
            }
            for (i, &query) in queries.iter().enumerate() {
                let p = &p[query * chunk.stride + values.position..];
                x_ptrs[i] = p[tokens.clone()].as_ptr();
                let sums = &mut sums[query * chunk.padded_dim..][..chunk.padded_dim];
                out_ptrs[i] = sums[panel * COLS..][..width * COLS].as_mut_ptr();
            }
            let (x, out) = (&x_ptrs[..queries.len()], &out_ptrs[..queries.len()]);
            let (w, k) = (&w_ptrs[..width], tokens.len());
            // SAFETY: the backend's constructor checked `isa`. The pointers come from slices of `k`
            // numbers, of `k` rows of panels and of `width * COLS` sums, which are this thread's
            // own and disjoint.
            unsafe { tile(self.isa, dtype, x, w, k, true, out, None) };
        }
    }
}
