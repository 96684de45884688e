//! Weights and linear layers: `linear.cu`.
#![allow(unsafe_code)] // Launches: each passes its kernel's parameters, sizes checked before.

use super::catalog::{self, Kernel, LinearTile, SKINNY, TILED};
use super::cublaslt::CublasLt;
use super::device::{Card, Grid, launch};
use super::memory::Lasting;
use super::{Activations, Vector, Weight};
use crate::{Activation, Dtype, Error, MatrixView};
use half::{bf16, f16};

/// Threads per block of the skinny kernels.
pub(super) const SKINNY_THREADS: usize = 128;
/// Columns of a stage of the skinny kernels.
pub(super) const SKINNY_STAGE_COLS: usize = 128;
/// Threads per block of the tiled kernels.
pub(super) const TILED_THREADS: usize = 256;
/// Columns of a stage of the tiled kernels.
pub(super) const TILED_STAGE_COLS: usize = 32;
/// Stages of the tiled kernels.
pub(super) const TILED_STAGES: usize = 4;

/// Rows are padded to a multiple of this many elements, so that every 16-byte chunk the kernel
/// copies is aligned and whole.
const PITCH: usize = 64;
/// Bytes converted and copied at once.
const STAGING: usize = 32 << 20;

/// Bytes of a matrix on the device.
pub(super) fn weight_bytes(rows: usize, cols: usize) -> usize {
    rows * cols.next_multiple_of(PITCH) * size_of::<bf16>()
}

/// Puts a matrix onto the device, rounded to bf16.
pub(super) fn load(memory: &Lasting, parts: &[MatrixView<'_>]) -> Result<Weight, Error> {
    let cols = parts[0].cols;
    assert!(parts.iter().all(|p| p.cols == cols), "columns of the parts");
    let rows = parts.iter().map(|p| p.rows).sum();
    let pitch = cols.next_multiple_of(PITCH);
    let buffer = memory.buffer(weight_bytes(rows, cols), "a weight matrix")?;
    let mut offset = 0;
    for part in parts {
        let row_bytes = cols * part.dtype.bytes();
        let at_once = (STAGING / (pitch * 2)).max(1);
        for rows in part.bytes.chunks(at_once * row_bytes) {
            let mut staged = vec![bf16::ZERO; rows.len() / row_bytes * pitch];
            for (row, to) in rows
                .chunks_exact(row_bytes)
                .zip(staged.chunks_exact_mut(pitch))
            {
                match part.dtype {
                    Dtype::Bf16 => {
                        bytemuck::cast_slice_mut(&mut to[..cols]).copy_from_slice(row);
                    }
                    Dtype::F16 => {
                        for (value, to) in row.chunks_exact(2).zip(to) {
                            *to = bf16::from_f32(f16::from_le_bytes([value[0], value[1]]).to_f32());
                        }
                    }
                    Dtype::F32 => {
                        for (value, to) in row.chunks_exact(4).zip(to) {
                            let value = [value[0], value[1], value[2], value[3]];
                            *to = bf16::from_f32(f32::from_le_bytes(value));
                        }
                    }
                }
            }
            buffer.write(offset, &staged)?;
            offset += staged.len() * 2;
        }
    }
    Ok(Weight {
        buffer,
        rows,
        cols,
        pitch,
    })
}

/// How the sums reach the output.
#[derive(Clone, Copy, PartialEq)]
enum Into {
    /// They are the output.
    Output,
    /// They are added to it.
    Added,
    /// Gates and then ups: the output is `activation(gate) * up`.
    Gated(Activation),
}

/// Rows of the skinny kernels at most.
const SKINNY_MAX_ROWS: usize = 64;

/// How the kernels of `linear.cu` compute a linear layer: the launch, and what follows from it. A
/// pure function of the shape and the card's multiprocessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearLaunch {
    /// The kernel with bf16 output; those with f32 and with gated output differ in their names only.
    pub kernel: Kernel,
    /// Rows of x in a tile.
    pub tile_rows: usize,
    /// Rows of W in a tile.
    pub tile_cols: usize,
    /// Columns of a stage.
    pub stage_cols: usize,
    /// Stages in shared memory; all but one are in flight.
    pub stages: usize,
    /// Tiles along the rows of x. Each reads all of W.
    pub row_tiles: usize,
    /// Tiles along the rows of W. Each reads all of x.
    pub col_tiles: usize,
}

impl LinearLaunch {
    /// The launch for `rows` rows of x and `n` rows of W (of a gated layer: gates and ups).
    pub fn of(rows: usize, n: usize, sms: usize) -> LinearLaunch {
        let (tile, (x_blocks, y_blocks)) = choose(rows, n, sms);
        let (stage_cols, row_tiles, col_tiles) = match rows <= SKINNY_MAX_ROWS {
            true => (SKINNY_STAGE_COLS, y_blocks, x_blocks),
            false => (TILED_STAGE_COLS, x_blocks, y_blocks),
        };
        let stage = (tile.rows + tile.cols) * stage_cols * size_of::<bf16>();
        LinearLaunch {
            kernel: tile.bf16,
            tile_rows: tile.rows,
            tile_cols: tile.cols,
            stage_cols,
            stages: tile.bf16.shared.unwrap_or(0) / stage,
            row_tiles,
            col_tiles,
        }
    }

    /// Thread blocks.
    pub fn blocks(&self) -> usize {
        self.row_tiles * self.col_tiles
    }

    /// Bytes of W and x that all blocks copy to shared memory. Rows that do not exist are not read,
    /// W's padding is up to the end of a stage.
    pub fn requested_bytes(&self, rows: usize, n: usize, k: usize) -> usize {
        let staged = k.next_multiple_of(self.stage_cols);
        let weights = n * staged.min(k.next_multiple_of(PITCH));
        (self.row_tiles * weights + self.col_tiles * rows * k) * size_of::<bf16>()
    }

    /// Bytes that go through shared memory for one block: `cp.async` writes, `ldmatrix` reads. A
    /// skinny kernel's warps share K, a tiled kernel's 2 x 4 warps share the tile.
    pub fn shared_bytes(&self, k: usize) -> usize {
        /// Bytes of `ldmatrix.x4`, and rows of a tile that it reads at 16 columns.
        const FRAGMENT: usize = 512;
        const FRAGMENT_ROWS: usize = 16;
        let (rows, cols) = (self.tile_rows, self.tile_cols);
        let fragments = match self.kernel.threads == SKINNY_THREADS {
            true => (rows + cols) / FRAGMENT_ROWS,
            false => 8 * (rows / 2 + cols / 4) / FRAGMENT_ROWS,
        };
        let copied = (rows + cols) * 16 * size_of::<bf16>();
        k.div_ceil(16) * (copied + fragments * FRAGMENT)
    }

    /// FLOPs of all blocks, those of rows and columns that do not exist included.
    pub fn issued_flops(&self, k: usize) -> usize {
        2 * self.blocks() * self.tile_rows * self.tile_cols * k.next_multiple_of(16)
    }
}

/// Whether cuBLASLt, where it is installed, computes a linear layer of `rows` rows by default, with or
/// without a bias of a bf16 checkpoint.
pub fn taken_by_cublaslt(rows: usize) -> bool {
    rows >= super::cublaslt::MIN_ROWS
}

/// The library, if it computes a linear layer: of so many rows that it may win, with a bias only in
/// the output's type.
pub(super) fn by_library<'a>(
    library: Option<&'a mut CublasLt>,
    bias: Option<&Vector>,
    rows: usize,
    out: Dtype,
) -> Option<&'a mut CublasLt> {
    let takes_bias = bias.is_none_or(|bias| bias.at(out).is_some());
    library.filter(|library| takes_bias && rows >= library.min_rows())
}

#[allow(clippy::too_many_arguments)] // The operation's own.
pub(super) fn linear(
    card: &Card,
    library: Option<&mut CublasLt>,
    x: &Activations,
    w: &Weight,
    bias: Option<&Vector>,
    rows: usize,
    accumulate: bool,
    out: &mut Activations,
) -> Result<(), Error> {
    if let Some(library) = by_library(library, bias, rows, out.dtype) {
        check(card, x, w, bias, rows, 1, out)?;
        let bias = bias.and_then(|bias| bias.at(out.dtype));
        if library.linear(card, x, w, bias, rows, accumulate, out)? {
            return Ok(());
        }
    }
    let into = if accumulate {
        Into::Added
    } else {
        Into::Output
    };
    gemm(card, x, w, bias, rows, into, out)
}

/// A linear layer of gates and ups, then its gated activation, in one kernel. `out` is bf16.
#[allow(clippy::too_many_arguments)] // The operation's own.
pub(super) fn linear_gated(
    card: &Card,
    x: &Activations,
    w: &Weight,
    bias: Option<&Vector>,
    activation: Activation,
    rows: usize,
    out: &mut Activations,
) -> Result<(), Error> {
    assert_eq!(out.dtype, Dtype::Bf16, "type of the gated output");
    gemm(card, x, w, bias, rows, Into::Gated(activation), out)
}

fn gemm(
    card: &Card,
    x: &Activations,
    w: &Weight,
    bias: Option<&Vector>,
    rows: usize,
    into: Into,
    out: &mut Activations,
) -> Result<(), Error> {
    let (halves, module) = match into {
        Into::Gated(activation) => (2, catalog::linear_gated(activation)),
        _ => (1, catalog::linear()),
    };
    check(card, x, w, bias, rows, halves, out)?;
    let shape = || format!("{rows} x {} x {}", w.rows, w.cols);
    let (tile, blocks) = choose(rows, w.rows, card.limits().sms);
    let kernel = match (into, out.dtype) {
        (Into::Gated(_), _) => tile.gated,
        (_, Dtype::F32) => tile.f32,
        _ => tile.bf16,
    };
    let grid = Grid {
        blocks,
        threads: kernel.threads,
        shared: kernel.shared.unwrap_or(0),
    };
    let function = card.function(&module, kernel.name, grid.shared)?;
    launch!(
        card,
        function,
        grid,
        &shape,
        x.buffer.at(),
        x.pitch as u32,
        w.buffer.at(),
        w.pitch as u32,
        bias.map_or(0, |b| b.buffer.at()),
        out.buffer.at(),
        out.pitch as u32,
        rows as u32,
        out.cols as u32,
        w.cols as u32,
        u32::from(into == Into::Added),
    )
}

/// Panics where shapes do not fit; the weights have `halves` rows for a column of the output.
fn check(
    card: &Card,
    x: &Activations,
    w: &Weight,
    bias: Option<&Vector>,
    rows: usize,
    halves: usize,
    out: &Activations,
) -> Result<(), Error> {
    assert_eq!(x.cols, w.cols, "columns of the linear layer's input");
    assert_eq!(
        halves * out.cols,
        w.rows,
        "columns of the linear layer's output"
    );
    assert!(bias.is_none_or(|b| b.len == w.rows), "length of the bias");
    x.require(rows, "the linear layer's input");
    out.require(rows, "the linear layer's output");
    if x.dtype == Dtype::Bf16 {
        return Ok(());
    }
    Err(Error::Unsupported {
        device: card.name().into(),
        what: format!(
            "a linear layer of float32 activations ({rows} x {} x {})",
            w.rows, w.cols
        ),
    })
}

/// The tile for `rows` rows of x and `n` rows of W, and the grid's blocks.
fn choose(rows: usize, n: usize, sms: usize) -> (&'static LinearTile, (usize, usize)) {
    if rows <= SKINNY_MAX_ROWS {
        let tall = match rows {
            0..=16 => 0,
            17..=32 => 1,
            _ => 2,
        };
        // Narrow tiles where wide ones are too few for the card.
        let wide = n.div_ceil(32) >= sms;
        let tile = &SKINNY[2 * tall + usize::from(wide)];
        let blocks = if rows == 0 { 0 } else { n.div_ceil(tile.cols) };
        (tile, (blocks, 1))
    } else {
        let large = rows.div_ceil(128) * n.div_ceil(128) >= sms;
        let tile = &TILED[usize::from(large)];
        (tile, (rows.div_ceil(tile.rows), n.div_ceil(tile.cols)))
    }
}
