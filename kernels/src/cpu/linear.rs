//! Linear layers.
//!
//! What: `out[r, n] = sum_k x[r, k] * w[n, k] (+ bias[n]) (+ out[r, n])`, x `[rows, K]`,
//! w `[N, K]`, out `[rows, N]`.
//!
//! Tiling: a task is up to [`TASK_ROWS`] rows x some consecutive panels. It multiplies one panel
//! (several, if the rows are few) with all row tiles before the next, so the panel comes from
//! memory once and then from the cache. [`tile`](super::tile) describes the registers, [`blocks`]
//! the tiling on AMX.
//!
//! Layout: x and out row-major f32; w packed in panels of 16 output features
//! ([`Weight`](super::Weight)).
//!
//! Numerics: f32 sums in the order of k, then the bias is added, then the old output. For quantised
//! weights x is quantised first, once for all tasks, and the micro-kernel is
//! [`quantized`](super::quantized)'s. For bf16 weights AMX splits x and sums in its own order. The
//! bits do not depend on rows, tasks or threads.
//!
//! Budget: the bytes of the weights per [`TASK_ROWS`] rows, `4 * rows * (K + N)` of activations;
//! `2 * rows * N * K` FLOPs.
#![allow(unsafe_code)] // Tasks write disjoint parts of the rows of one buffer.

mod blocks;

use super::amx::{self, Split};
use super::buffers::{Activations, Stored, Weight};
use super::quantized::{self, Rows};
use super::tile::{
    self, COLS, Isa, MAX_PANELS, MAX_ROWS, Prefetch, panels_at_once, row_parts, row_tiles, tile,
};
use super::workers::Workers;
use crate::{Dtype, Quantization};
use std::ops::Range;

/// Maximum rows of one task of the vector units. More rows read the weights less often, but then x,
/// which is read in order, comes from the third-level cache. (96 against 48: 4 % more of the peak,
/// measured with `offshoot bench linear --rows 64,256 --threads 1` on a Zen 3 core.)
const TASK_ROWS: usize = 96;
/// Tasks per thread to aim for. With many small tasks, the other threads take over the share of a
/// thread that is delayed. (16 against 4: two threads take a third less time for one row and
/// weights below 2 MB, `offshoot bench linear --rows 1 --threads 2` on an Intel Xeon with AMX; a
/// few large tasks do not divide evenly.)
const TASKS_PER_THREAD: usize = 16;

/// An output buffer that several tasks write to.
#[derive(Clone, Copy)]
pub(crate) struct SharedOutput(pub(crate) *mut f32);
// SAFETY: users write disjoint elements and join before the buffer is used again.
unsafe impl Send for SharedOutput {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput {}

impl SharedOutput {
    /// The pointer. (A method, so that closures capture the whole struct.)
    pub(crate) fn pointer(self) -> *mut f32 {
        self.0
    }
}

/// The inputs of a linear layer in its kernel's layout; the memory is reused by the next layer.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    quantized: Rows,
    split: Split,
}

impl Inputs {
    /// Converts the first `rows` rows of `x`, `[.., k]`, if the kernel does not read them as they
    /// are.
    fn fill(
        &mut self,
        workers: &Workers,
        isa: Isa,
        kernel: Kernel,
        x: &[f32],
        k: usize,
        rows: usize,
    ) {
        match kernel {
            Kernel::Float(_) => {}
            Kernel::Split => self.split.fill(workers, x, k, rows),
            Kernel::Quantized(kind) | Kernel::QuantizedTiles(kind) => {
                self.quantized.fill(workers, (isa, kind), x, k, rows);
            }
        }
    }
}

/// From this many rows on, AMX multiplies quantised weights faster than the vector units.
const QUANTIZED_AMX_MIN_ROWS: usize = 6;

/// The micro-kernel of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// [`tile`](super::tile), on vector units.
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
            (Isa::Amx, Stored::Quantized(kind)) if rows >= QUANTIZED_AMX_MIN_ROWS => {
                Kernel::QuantizedTiles(kind)
            }
            (_, Stored::Float(dtype)) => Kernel::Float(dtype),
            (_, Stored::Quantized(kind)) => Kernel::Quantized(kind),
        }
    }

    /// Panels that a task of `rows` rows multiplies at once.
    fn panels_at_once(self, isa: Isa, rows: usize) -> usize {
        match self {
            Kernel::Split if rows <= amx::ROWS => MAX_PANELS,
            Kernel::Split => 2,
            Kernel::QuantizedTiles(_) => 1,
            // All tiles of a task with few rows have the same height.
            Kernel::Float(_) | Kernel::Quantized(_) => panels_at_once(isa, rows.min(MAX_ROWS)),
        }
    }

    /// Tasks per thread to aim for.
    fn tasks_per_thread(self, rows: usize) -> usize {
        match self {
            // Every task reads all its rows again, and they are as large as the weights.
            Kernel::Split if rows > amx::ROWS => TASKS_PER_THREAD / 4,
            _ => TASKS_PER_THREAD,
        }
    }

    /// The maximum rows of a task, and a number that divides its first row.
    fn task_rows(self) -> (usize, usize) {
        match self {
            Kernel::Split | Kernel::QuantizedTiles(_) => (blocks::TASK_ROWS, amx::MANY),
            Kernel::Float(_) | Kernel::Quantized(_) => (TASK_ROWS, 1),
        }
    }
}

/// [`Backend::linear`](crate::Backend::linear).
#[allow(clippy::too_many_arguments)] // each is one of the formula's names
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
    inputs.fill(workers, isa, kernel, x.data(), k, rows);
    Layer {
        isa,
        kernel,
        x: x.data(),
        inputs,
        w,
        bias,
        accumulate,
        out: SharedOutput(out.data_mut().as_mut_ptr()),
    }
    .run_all(workers, rows);
}

/// A linear layer, as its tasks share it.
struct Layer<'a> {
    isa: Isa,
    kernel: Kernel,
    x: &'a [f32],
    inputs: &'a Inputs,
    w: &'a Weight,
    bias: Option<&'a [f32]>,
    accumulate: bool,
    out: SharedOutput,
}

impl Layer<'_> {
    /// Divides the first `rows` rows into tasks and runs them.
    fn run_all(&self, workers: &Workers, rows: usize) {
        let (kernel, panels) = (self.kernel, self.w.panels());
        let (max_rows, unit) = kernel.task_rows();
        let row_tasks = row_parts(rows, max_rows, unit);
        let wanted = (workers.threads() * kernel.tasks_per_thread(rows)).div_ceil(row_tasks.len());
        let at_once = kernel.panels_at_once(self.isa, rows);
        let panels_each = (panels / wanted / at_once).max(1) * at_once;
        let panel_tasks = panels.div_ceil(panels_each);
        let operations = 2 * rows * self.w.rows() * self.w.cols();
        workers.run(row_tasks.len() * panel_tasks, operations, |index| {
            let mut row_tasks = row_tasks.clone();
            let (part, index) = match kernel {
                // All rows of the same panels in turn, so that the panels stay in a cache.
                Kernel::Split | Kernel::QuantizedTiles(_) => {
                    (index / row_tasks.len(), index % row_tasks.len())
                }
                Kernel::Float(_) | Kernel::Quantized(_) => {
                    (index % panel_tasks, index / panel_tasks)
                }
            };
            let (first, count) = row_tasks.nth(index).expect("a task's rows");
            let rows = first..first + count;
            let panels = part * panels_each..panels.min((part + 1) * panels_each);
            match kernel {
                Kernel::Split => self.run_blocks(None, rows, panels),
                Kernel::QuantizedTiles(kind) => self.run_blocks(Some(kind), rows, panels),
                Kernel::Float(_) | Kernel::Quantized(_) => self.run(rows, panels),
            }
        });
    }

    /// Computes some rows of some panels by the vector units.
    fn run(&self, rows: Range<usize>, panels: Range<usize>) {
        let at_once = self.kernel.panels_at_once(self.isa, rows.len());
        // A tile writes all sums that are read afterwards.
        let mut sums: Sums = [[0.0; COLS * MAX_PANELS]; MAX_ROWS];
        for panel in panels.clone().step_by(at_once) {
            let count = at_once.min(panels.end - panel);
            let mut w_ptrs = [std::ptr::null(); MAX_PANELS];
            for (j, w) in w_ptrs[..count].iter_mut().enumerate() {
                *w = self.w.panel(panel + j).as_ptr();
            }
            let next = (panel + count < panels.end).then(|| self.w.panel(panel + count));
            let parts = row_tiles(rows.len());
            for (index, (first, height)) in parts.clone().enumerate() {
                let prefetch =
                    |count| next.map(|next| Prefetch::share(next, count, index, parts.len()));
                let first = rows.start + first;
                self.tile(first..first + height, &w_ptrs[..count], &mut sums, prefetch);
                for (i, sums) in sums[..height].iter_mut().enumerate() {
                    self.write(first + i, panel, &mut sums[..count * COLS]);
                }
            }
        }
    }

    /// Computes the tile of some rows and panels. `prefetch` takes the number of prefetches the
    /// kernel makes.
    fn tile(
        &self,
        rows: Range<usize>,
        w: &[*const u8],
        sums: &mut Sums,
        prefetch: impl Fn(usize) -> Option<Prefetch>,
    ) {
        let (k, count) = (self.w.cols(), rows.len());
        match self.kernel {
            Kernel::Float(dtype) => {
                let x = rows.map(|row| self.x[row * k..][..k].as_ptr());
                let (x, out) = pointers(x, sums);
                let prefetch = prefetch(tile::prefetches(k));
                let (x, out) = (&x[..count], &out[..count]);
                // SAFETY: the backend's constructor checked the instruction set. The pointers come
                // from slices of k numbers, of whole panels, and of MAX_PANELS * COLS numbers.
                unsafe { tile(self.isa, dtype, x, w, k, false, out, prefetch) };
            }
            Kernel::Quantized(kind) => {
                let x = rows.map(|row| self.inputs.quantized.row(row).as_ptr());
                let (x, out) = pointers(x, sums);
                let prefetch = prefetch(quantized::prefetches(kind, k));
                let (x, out) = (&x[..count], &out[..count]);
                // SAFETY: as above; the rows were filled for this kind and k.
                unsafe { quantized::tile(self.isa, kind, x, w, k, out, prefetch) };
            }
            Kernel::Split | Kernel::QuantizedTiles(_) => unreachable!("AMX runs in blocks"),
        }
    }

    /// Adds the bias to one row of sums, and writes them to the outputs from `panel` on (or adds
    /// them).
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
    let (mut x_ptrs, mut out_ptrs) = (
        [std::ptr::null(); MAX_ROWS],
        [std::ptr::null_mut(); MAX_ROWS],
    );
    for (((x_ptr, out_ptr), x), sums) in x_ptrs.iter_mut().zip(&mut out_ptrs).zip(x).zip(sums) {
        (*x_ptr, *out_ptr) = (x, sums.as_mut_ptr());
    }
    (x_ptrs, out_ptrs)
}
