//! Linear layers.
//!
//! What: `out[r, n] = sum_k x[r, k] * w[n, k] (+ bias[n]) (+ out[r, n])`, x `[rows, K]`,
//! w `[N, K]`, out `[rows, N]`.
//!
//! Tiling: a task is up to [`TASK_ROWS`] rows x a stretch of panels. Within it one panel at a time
//! (several, when the rows are few) meets all row tiles, so the panel comes from memory once and
//! then from the cache: [`tile`](super::tile) has the registers.
//!
//! Layout: x and out row-major f32; w packed in panels of 16 output features
//! ([`Weight`](super::Weight)).
//!
//! Numerics: f32 sums in the order of k, then the bias is added, then the old output. With quantised
//! weights x is quantised first, once for all tasks, and a tile is that of
//! [`quantized`](super::quantized). Bits do not depend on rows, tasks or threads.
//!
//! Budget: the bytes of the weights per [`TASK_ROWS`] rows, `4 * rows * (K + N)` of activations;
//! `2 * rows * N * K` FLOPs.
#![allow(unsafe_code)] // Tasks write disjoint parts of the rows of one buffer.

use super::buffers::{Activations, Stored, Weight};
use super::quantized::{self, Rows};
use super::tile::{self, Ahead, COLS, Isa, MAX_PANELS, MAX_ROWS, panels_at_once, row_tiles, tile};
use super::workers::Workers;

/// Rows of one task. More rows read the weights less often, but their x (which is read in order)
/// comes from the third-level cache. (96 against 48: 4 % more of the peak, measured with `offshoot
/// bench linear --rows 64,256 --threads 1` on a Zen 3 core.)
const TASK_ROWS: usize = 96;
/// Tasks per thread to aim at, so that a thread that was held up is helped out by the others.
const TASKS_PER_THREAD: usize = 4;

/// An output buffer whose rows are written by several tasks.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);
// SAFETY: users write disjoint elements and join before the buffer is used again.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer (a method, so that closures capture the whole struct).
    pub(crate) fn pointer(self) -> *mut f32 {
        self.0
    }
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn linear(
    workers: &Workers,
    isa: Isa,
    x: &Activations,
    w: &Weight,
    bias: Option<&[f32]>,
    rows: usize,
    accumulate: bool,
    quantized: &mut Rows,
    out: &mut Activations,
) {
    let (k, n) = (w.cols(), w.rows());
    assert_eq!(x.cols(), k, "input features of a linear layer");
    assert_eq!(out.cols(), n, "output features of a linear layer");
    assert!(
        rows <= x.rows() && rows <= out.rows(),
        "{rows} rows of a linear layer; {} in, {} out",
        x.rows(),
        out.rows()
    );
    if let Some(bias) = bias {
        assert_eq!(bias.len(), n, "bias of a linear layer");
    }
    if rows == 0 || n == 0 {
        return;
    }
    let panels = w.panels();
    let requests = match w.stored() {
        Stored::Float(_) => tile::requests(k),
        Stored::Quantized(kind) => quantized::requests(kind, k),
    };
    let row_tasks = rows.div_ceil(TASK_ROWS);
    let wanted = (workers.threads() * TASKS_PER_THREAD).div_ceil(row_tasks);
    let panels_each = panels
        .div_ceil(wanted)
        .next_multiple_of(panels_at_once(isa, rows));
    let panel_tasks = panels.div_ceil(panels_each);

    let x = x.data();
    if let Stored::Quantized(kind) = w.stored() {
        quantized.fill(workers, (isa, kind), x, k, rows);
    }
    let quantized = &*quantized;
    let out = Shared(out.data_mut().as_mut_ptr());
    workers.run(row_tasks * panel_tasks, 2 * rows * n * k, |task| {
        let first_row = task / panel_tasks * rows / row_tasks;
        let end_row = (task / panel_tasks + 1) * rows / row_tasks;
        let first_panel = task % panel_tasks * panels_each;
        let end_panel = panels.min(first_panel + panels_each);
        let task_rows = end_row - first_row;
        // Every tile writes what is read of them.
        let mut sums = [[0.0f32; COLS * MAX_PANELS]; MAX_ROWS];
        // All tiles of a task that has few rows have the same height.
        let step = panels_at_once(isa, task_rows.min(MAX_ROWS));
        for panel in (first_panel..end_panel).step_by(step) {
            let count = step.min(end_panel - panel);
            let mut w_at = [std::ptr::null(); MAX_PANELS];
            for (j, at) in w_at[..count].iter_mut().enumerate() {
                *at = w.panel(panel + j).as_ptr();
            }
            let tiles = row_tiles(task_rows);
            let next = (panel + count < end_panel).then(|| w.panel(panel + count));
            for (index, (tile_row, tile_rows)) in tiles.clone().enumerate() {
                let ahead = next.map(|next| Ahead::share(next, requests, index, tiles.len()));
                let row = first_row + tile_row;
                let mut sums_at = [std::ptr::null_mut(); MAX_ROWS];
                for (at, sums) in sums_at.iter_mut().zip(&mut sums) {
                    *at = sums.as_mut_ptr();
                }
                let (w_at, sums_at) = (&w_at[..count], &sums_at[..tile_rows]);
                match w.stored() {
                    Stored::Float(dtype) => {
                        let mut x_at = [std::ptr::null(); MAX_ROWS];
                        for (i, at) in x_at[..tile_rows].iter_mut().enumerate() {
                            *at = x[(row + i) * k..][..k].as_ptr();
                        }
                        // SAFETY: the backend's constructor checked `isa`. The pointers come from
                        // slices of k numbers, of whole panels, and of MAX_PANELS * COLS numbers.
                        unsafe {
                            tile(
                                isa,
                                dtype,
                                &x_at[..tile_rows],
                                w_at,
                                k,
                                false,
                                sums_at,
                                ahead,
                            )
                        };
                    }
                    Stored::Quantized(kind) => {
                        let mut x_at = [std::ptr::null(); MAX_ROWS];
                        for (i, at) in x_at[..tile_rows].iter_mut().enumerate() {
                            *at = quantized.row((isa, kind), k, row + i).as_ptr();
                        }
                        // SAFETY: as above, the rows being those filled for this kind and k.
                        unsafe {
                            quantized::tile(isa, kind, &x_at[..tile_rows], w_at, k, sums_at, ahead);
                        }
                    }
                }
                let column = panel * COLS;
                let columns = (count * COLS).min(n - column);
                for (i, sums) in sums[..tile_rows].iter_mut().enumerate() {
                    let sums = &mut sums[..columns];
                    // SAFETY: row + i < rows <= out.rows() and column + columns <= n, so this is
                    // within the buffer, which outlives the call. No other task has both this row
                    // and this panel.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(
                            out.pointer().add((row + i) * n + column),
                            columns,
                        )
                    };
                    if let Some(bias) = bias {
                        for (sum, &b) in sums.iter_mut().zip(&bias[column..]) {
                            *sum += b;
                        }
                    }
                    if accumulate {
                        for (out, &sum) in out.iter_mut().zip(&*sums) {
                            *out += sum;
                        }
                    } else {
                        out.copy_from_slice(sums);
                    }
                }
            }
        }
    });
}
