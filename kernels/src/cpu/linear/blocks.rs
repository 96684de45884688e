//! Linear layers on AMX, blocked for the second-level cache.
//!
//! Tiling: a task processes its panels [`PANELS`] at a time, and bf16 inputs [`INPUTS`] at a time,
//! so that the rows, the panels and the sums of such a block fit in the second-level cache
//! together. Two panels (four, if the rows are few) are multiplied with all rows while the next
//! ones are prefetched. The sums stay in the block until all inputs are added, and are then written
//! as rows of 1 KiB. Writing them tile by tile, one cache line per far-apart row, would stall on
//! every line. (128 rows, 16 panels and 1,024 inputs against 64 to 256, 4 to 32 and 512 to 2,048:
//! measured with `offshoot bench linear --rows 32,64,128,512` on an Intel Xeon with AMX.)
//!
//! Budget: the bytes of the weights per [`TASK_ROWS`] rows, the bytes of the rows per block.

use super::super::amx::{self, Line, PanelPrefetch, TileConfig, Tiles};
use super::super::quantized;
use super::super::tile::{COLS, MAX_PANELS, padded_inputs, row_parts};
use super::Layer;
use crate::Quantization;
use std::cell::RefCell;
use std::ops::Range;

/// Maximum rows of one task.
pub(super) const TASK_ROWS: usize = 128;
/// Panels of a block.
const PANELS: usize = 16;
/// Inputs of a block.
const INPUTS: usize = 1024;

thread_local! {
    /// The sums of a block, f32.
    static SUMS: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    /// An int4 panel, widened to int8.
    static WIDENED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Layer<'_> {
    /// Computes some rows of some panels, with quantised weights of `kind`, or bf16 (`None`).
    pub(super) fn run_blocks(
        &self,
        kind: Option<Quantization>,
        rows: Range<usize>,
        panels: Range<usize>,
    ) {
        let config = kind.map_or(TileConfig::Bf16, |_| TileConfig::Int8);
        let tiles = Tiles::configure(config, rows.len());
        // AMX writes whole tiles of rows and pairs of panels.
        let stride = PANELS * COLS;
        let len = rows.len().next_multiple_of(amx::MANY) * stride;
        SUMS.with_borrow_mut(|sums| {
            amx::grow(sums, len);
            let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
            for (first, count) in row_parts(panels.len(), PANELS, 2) {
                let first = panels.start + first;
                let block = first..first + count;
                match kind {
                    Some(kind) => self.quantized_block(&tiles, kind, &rows, &block, sums),
                    None => self.bf16_block(&tiles, &rows, &block, sums),
                }
                for (row, sums) in rows.clone().zip(sums.chunks_exact_mut(stride)) {
                    self.write(row, first, &mut sums[..block.len() * COLS]);
                }
            }
        });
    }

    fn bf16_block(
        &self,
        tiles: &Tiles,
        rows: &Range<usize>,
        block: &Range<usize>,
        sums: &mut [f32],
    ) {
        let stride = PANELS * COLS;
        let all = padded_inputs(self.w.cols());
        let at_once = self.kernel.panels_at_once(self.isa, rows.len());
        // Few rows fit in the cache with all their inputs.
        let inputs_at_once = if rows.len() <= amx::ROWS { all } else { INPUTS };
        let parts = row_parts(rows.len(), amx::MANY, amx::MANY);
        for inputs in (0..all).step_by(inputs_at_once) {
            let inputs = inputs..all.min(inputs + inputs_at_once);
            for panel in block.clone().step_by(at_once) {
                let count = at_once.min(block.end - panel);
                let mut w_ptrs = [std::ptr::null(); MAX_PANELS];
                // An odd last panel is repeated; its second copy of the sums is never read.
                for (j, w) in w_ptrs.iter_mut().enumerate() {
                    *w = self.w.panel(panel + j.min(count - 1)).as_ptr();
                }
                let w = &w_ptrs[..count.next_multiple_of(2)];
                // Prefetched: the next panels, or these panels' next inputs; nothing past the last.
                let (next, next_input) = if panel + count < block.end || inputs.end == all {
                    (panel + count, inputs.start)
                } else {
                    (block.start, inputs.end)
                };
                let next: [_; MAX_PANELS] = std::array::from_fn(|j| {
                    let panel = self.w.panel((next + j).min(self.w.panels() - 1)).as_ptr();
                    panel.wrapping_add(next_input * COLS * size_of::<u16>())
                });
                for (index, (first, height)) in parts.clone().enumerate() {
                    let prefetch = PanelPrefetch::share(next, inputs.len(), index, parts.len());
                    let sums = &mut sums[first * stride + (panel - block.start) * COLS..];
                    let first = rows.start + first;
                    let (rows, inputs) = (first..first + height, inputs.clone());
                    let split = &self.inputs.split;
                    // SAFETY: the backend's constructor checked the instruction set; whole panels.
                    unsafe { amx::tile(tiles, split, rows, inputs, w, prefetch, sums, stride) };
                }
            }
        }
    }

    fn quantized_block(
        &self,
        tiles: &Tiles,
        kind: Quantization,
        rows: &Range<usize>,
        block: &Range<usize>,
        sums: &mut [f32],
    ) {
        let (x, k, stride) = (&self.inputs.quantized, self.w.cols(), PANELS * COLS);
        WIDENED.with_borrow_mut(|widened| {
            for panel in block.clone() {
                let mut w = self.w.panel(panel);
                if kind == Quantization::Int4 {
                    quantized::widen_panel(w, widened);
                    w = widened;
                }
                for (first, height) in row_parts(rows.len(), amx::ROWS, amx::ROWS) {
                    let row = x.row(rows.start + first).as_ptr();
                    let sums = &mut sums[first * stride + (panel - block.start) * COLS..];
                    // SAFETY: the instruction set as above; `x` has whole tiles of rows, and int4
                    // was widened.
                    unsafe {
                        amx::int8(
                            tiles,
                            height,
                            row,
                            x.row_words(),
                            w.as_ptr(),
                            k,
                            sums,
                            stride,
                        );
                    }
                }
            }
        });
    }
}
