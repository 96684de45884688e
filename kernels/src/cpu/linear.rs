//! Linear layers.
//!
//! What: `out[r, n] = sum_k x[r, k] * w[n, k] (+ bias[n]) (+ out[r, n])`, x `[rows, K]`,
//! w `[N, K]`, out `[rows, N]`.
//!
//! Tiling: a task is up to [`TASK_ROWS`] rows x a stretch of panels. Within it one panel at a time
//! (several, when the rows are few) meets all row tiles, so the panel comes from memory once and
//! then from the cache: [`tile`](super::tile) has the registers. Where there is AMX, [`blocks`] says how.
//!
//! Layout: x and out row-major f32; w packed in panels of 16 output features
//! ([`Weight`](super::Weight)).
//!
//! Numerics: f32 sums in the order of k, then the bias is added, then the old output. With quantised
//! weights x is quantised first, once for all tasks, and a tile is that of
//! [`quantized`](super::quantized); AMX splits x for bf16 weights, and sums in an order of its own. Bits do
//! not depend on rows, tasks or threads.
//!
//! Budget: the bytes of the weights per [`TASK_ROWS`] rows, `4 * rows * (K + N)` of activations;
//! `2 * rows * N * K` FLOPs.
#![allow(unsafe_code)] // Tasks write disjoint parts of the rows of one buffer.

mod blocks;

use super::amx::{self, Split};
use super::buffers::{Activations, Stored, Weight};
use super::quantized::{self, Rows};
use super::tile::{
    self, Ahead, COLS, Isa, MAX_PANELS, MAX_ROWS, panels_at_once, row_parts, row_tiles, tile,
};
use super::workers::Workers;
use crate::{Dtype, Quantization};
use std::ops::Range;

/// Rows of one task of vector units. More rows read the weights less often, but their x (which is read in order)
/// comes from the third-level cache. (96 against 48: 4 % more of the peak, measured with `offshoot
/// bench linear --rows 64,256 --threads 1` on a Zen 3 core.)
const TASK_ROWS: usize = 96;
/// Tasks per thread to aim at, so that a thread that was held up is helped out by the others. (16 against 4:
/// two threads take a third less time for products of one row below 2 MB, `offshoot bench linear --rows 1
/// --threads 2` on an Intel Xeon with AMX; a few large tasks do not divide evenly.)
const TASKS_PER_THREAD: usize = 16;

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

/// The inputs of a product as its kernel wants them, in memory that is kept for the next product.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    quantized: Rows,
    split: Split,
}

/// Rows from which on AMX multiplies quantised weights faster than the vector units do.
const QUANTIZED_TILES_FROM: usize = 6;

/// What computes a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// [`tile`](super::tile).
    Float(Dtype),
    /// [`amx::tile`].
    Split,
    /// [`quantized`](super::quantized).
    Quantized(Quantization),
    /// [`amx::int8`].
    QuantizedTiles(Quantization),
}

impl Kernel {
    fn of(isa: Isa, stored: Stored, rows: usize) -> Kernel {
        match (isa, stored) {
            (Isa::Amx, Stored::Float(Dtype::Bf16)) => Kernel::Split,
            (Isa::Amx, Stored::Quantized(kind)) if rows >= QUANTIZED_TILES_FROM => {
                Kernel::QuantizedTiles(kind)
            }
            (_, Stored::Float(dtype)) => Kernel::Float(dtype),
            (_, Stored::Quantized(kind)) => Kernel::Quantized(kind),
        }
    }

    /// Panels at once of a task of that many rows.
    fn panels_at_once(self, isa: Isa, rows: usize) -> usize {
        match self {
            Kernel::Split if rows <= amx::ROWS => MAX_PANELS,
            Kernel::Split => 2,
            Kernel::QuantizedTiles(_) => 1,
            // All tiles of a task that has few rows have the same height.
            Kernel::Float(_) | Kernel::Quantized(_) => panels_at_once(isa, rows.min(MAX_ROWS)),
        }
    }

    /// Tasks per thread to aim at.
    fn tasks_per_thread(self, rows: usize) -> usize {
        match self {
            // Every task reads its rows anew, which are as large as the weights.
            Kernel::Split if rows > amx::ROWS => TASKS_PER_THREAD / 4,
            _ => TASKS_PER_THREAD,
        }
    }

    /// Rows of a task at most, and what its first row is a multiple of.
    fn task_rows(self) -> (usize, usize) {
        match self {
            Kernel::Split | Kernel::QuantizedTiles(_) => (blocks::TASK_ROWS, amx::MANY),
            Kernel::Float(_) | Kernel::Quantized(_) => (TASK_ROWS, 1),
        }
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
    inputs: &mut Inputs,
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
    let kernel = Kernel::of(isa, w.stored(), rows);
    let panels = w.panels();
    let (most, unit) = kernel.task_rows();
    let row_tasks = row_parts(rows, most, unit);
    let wanted = (workers.threads() * kernel.tasks_per_thread(rows)).div_ceil(row_tasks.len());
    let step = kernel.panels_at_once(isa, rows);
    let panels_each = (panels / wanted / step).max(1) * step;
    let panel_tasks = panels.div_ceil(panels_each);

    let x = x.data();
    match kernel {
        Kernel::Float(_) => {}
        Kernel::Split => inputs.split.fill(workers, x, k, rows),
        Kernel::Quantized(kind) | Kernel::QuantizedTiles(kind) => {
            inputs.quantized.fill(workers, (isa, kind), x, k, rows);
        }
    }
    let task = Task {
        isa,
        kernel,
        x,
        inputs,
        w,
        bias,
        accumulate,
        out: Shared(out.data_mut().as_mut_ptr()),
    };
    workers.run(row_tasks.len() * panel_tasks, 2 * rows * n * k, |index| {
        let mut row_tasks = row_tasks.clone();
        let (part, index) = match kernel {
            // All rows of some panels one after the other: the panels are in a cache.
            Kernel::Split | Kernel::QuantizedTiles(_) => {
                (index / row_tasks.len(), index % row_tasks.len())
            }
            Kernel::Float(_) | Kernel::Quantized(_) => (index % panel_tasks, index / panel_tasks),
        };
        let (first, count) = row_tasks.nth(index).expect("a task's rows");
        let rows = first..first + count;
        let panels = part * panels_each..panels.min((part + 1) * panels_each);
        match kernel {
            Kernel::Split => task.run_blocks(None, rows, panels),
            Kernel::QuantizedTiles(kind) => task.run_blocks(Some(kind), rows, panels),
            Kernel::Float(_) | Kernel::Quantized(_) => task.run(rows, panels),
        }
    });
}

/// What the tasks of a product share.
struct Task<'a> {
    isa: Isa,
    kernel: Kernel,
    x: &'a [f32],
    inputs: &'a Inputs,
    w: &'a Weight,
    bias: Option<&'a [f32]>,
    accumulate: bool,
    out: Shared,
}

impl Task<'_> {
    /// Computes some rows of some panels by vector units.
    fn run(&self, rows: Range<usize>, panels: Range<usize>) {
        let step = self.kernel.panels_at_once(self.isa, rows.len());
        // Every tile writes what is read of them.
        let mut sums: Sums = [[0.0; COLS * MAX_PANELS]; MAX_ROWS];
        for panel in panels.clone().step_by(step) {
            let count = step.min(panels.end - panel);
            let mut w_at = [std::ptr::null(); MAX_PANELS];
            for (j, at) in w_at[..count].iter_mut().enumerate() {
                *at = self.w.panel(panel + j).as_ptr();
            }
            let next = (panel + count < panels.end).then(|| self.w.panel(panel + count));
            let parts = row_tiles(rows.len());
            for (index, (first, height)) in parts.clone().enumerate() {
                let ahead =
                    |requests| next.map(|next| Ahead::share(next, requests, index, parts.len()));
                let first = rows.start + first;
                self.tile(first..first + height, &w_at[..count], &mut sums, ahead);
                for (i, sums) in sums[..height].iter_mut().enumerate() {
                    self.write(first + i, panel, &mut sums[..count * COLS]);
                }
            }
        }
    }

    /// Computes the tile of some rows and panels; `ahead` makes of a number of requests what it asks for.
    fn tile(
        &self,
        rows: Range<usize>,
        w: &[*const u8],
        sums: &mut Sums,
        ahead: impl Fn(usize) -> Option<Ahead>,
    ) {
        let (k, count) = (self.w.cols(), rows.len());
        match self.kernel {
            Kernel::Float(dtype) => {
                let x = rows.map(|row| self.x[row * k..][..k].as_ptr());
                let (x, out) = pointers(x, sums);
                let (x, out, ahead) = (&x[..count], &out[..count], ahead(tile::requests(k)));
                // SAFETY: the backend's constructor checked the instruction set. The pointers come from slices
                // of k numbers, of whole panels, and of MAX_PANELS * COLS numbers.
                unsafe { tile(self.isa, dtype, x, w, k, false, out, ahead) };
            }
            Kernel::Quantized(kind) => {
                let x = rows.map(|row| self.inputs.quantized.row(row).as_ptr());
                let (x, out) = pointers(x, sums);
                let ahead = ahead(quantized::requests(kind, k));
                // SAFETY: as above, the rows being those filled for this kind and k.
                unsafe { quantized::tile(self.isa, kind, &x[..count], w, k, &out[..count], ahead) };
            }
            Kernel::Split | Kernel::QuantizedTiles(_) => unreachable!("AMX's go by blocks"),
        }
    }

    /// Adds the bias, and writes or adds one row of the outputs from `panel` on.
    fn write(&self, row: usize, panel: usize, sums: &mut [f32]) {
        let (n, column) = (self.w.rows(), panel * COLS);
        let columns = sums.len().min(n - column);
        let sums = &mut sums[..columns];
        // SAFETY: row < rows <= out.rows() and column + columns <= n, so this is within the buffer,
        // which outlives the call. No other task has both this row and this panel.
        let out = unsafe {
            std::slice::from_raw_parts_mut(self.out.pointer().add(row * n + column), columns)
        };
        if let Some(bias) = self.bias {
            for (sum, &b) in sums.iter_mut().zip(&bias[column..]) {
                *sum += b;
            }
        }
        if self.accumulate {
            for (out, &sum) in out.iter_mut().zip(&*sums) {
                *out += sum;
            }
        } else {
            out.copy_from_slice(sums);
        }
    }
}

/// The sums of a tile.
type Sums = [[f32; COLS * MAX_PANELS]; MAX_ROWS];

/// Pointers to rows and to their sums.
fn pointers<T>(
    x: impl Iterator<Item = *const T>,
    sums: &mut Sums,
) -> ([*const T; MAX_ROWS], [*mut f32; MAX_ROWS]) {
    let (mut x_at, mut out_at) = (
        [std::ptr::null(); MAX_ROWS],
        [std::ptr::null_mut(); MAX_ROWS],
    );
    for (((x_at, out_at), x), sums) in x_at.iter_mut().zip(&mut out_at).zip(x).zip(sums) {
        (*x_at, *out_at) = (x, sums.as_mut_ptr());
    }
    (x_at, out_at)
}
