//! Weights and products: `linear.cu`.
#![allow(unsafe_code)] // Launches: each passes its kernel's parameters, sizes checked before.

use super::catalog::{self, SKINNY, TILED, skinny_shared, tiled_shared};
use super::cublaslt::CublasLt;
use super::device::{Card, Grid, launch};
use super::memory::Lasting;
use super::{Activations, Vector, Weight};
use crate::{Activation, Dtype, Error, MatrixView};
use half::{bf16, f16};

/// Rows are padded to a multiple of this many elements, so that a copy of 16 bytes is aligned and
/// whole wherever the kernel takes it.
const PITCH: usize = 64;
/// Bytes converted and copied at once.
const STAGING: usize = 32 << 20;

/// Puts a matrix onto the device, rounded to bf16.
pub(super) fn load(memory: &Lasting, parts: &[MatrixView<'_>]) -> Result<Weight, Error> {
    let cols = parts[0].cols;
    assert!(parts.iter().all(|p| p.cols == cols), "columns of the parts");
    let rows = parts.iter().map(|p| p.rows).sum();
    let pitch = cols.next_multiple_of(PITCH);
    let buffer = memory.buffer(rows * pitch * 2, "a weight matrix")?;
    let mut offset = 0;
    // What is only counted is not to be read from the disk.
    for part in parts.iter().filter(|_| buffer.has_memory()) {
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

/// What becomes of a product's sums.
#[derive(Clone, Copy, PartialEq)]
enum Into {
    /// They are the output.
    Output,
    /// They are added to it.
    Added,
    /// Gates and then ups: the output is `activation(gate) * up`.
    Gated(Activation),
}

/// The most rows of the skinny kernels.
const FEW_ROWS: usize = 64;

/// Whether cuBLASLt, where there is one, computes a product: of many rows, and without a bias, which it
/// would want in the output's type.
pub(super) fn for_cublaslt(bias: Option<&Vector>, rows: usize) -> bool {
    rows > FEW_ROWS && bias.is_none()
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
    if let Some(library) = library.filter(|_| for_cublaslt(bias, rows)) {
        check(card, x, w, bias, rows, 1, out)?;
        if library.linear(card, x, w, rows, accumulate, out)? {
            return Ok(());
        }
    }
    let into = match accumulate {
        false => Into::Output,
        true => Into::Added,
    };
    product(card, x, w, bias, rows, into, out)
}

#[allow(clippy::too_many_arguments)] // The operation's own.
/// A product of gates and ups, then the gated activation, in one kernel. `out` is bf16.
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
    product(card, x, w, bias, rows, Into::Gated(activation), out)
}

fn product(
    card: &Card,
    x: &Activations,
    w: &Weight,
    bias: Option<&Vector>,
    rows: usize,
    into: Into,
    out: &mut Activations,
) -> Result<(), Error> {
    let (halves, variant, module) = match into {
        Into::Gated(activation) => (2, 2, catalog::linear_gated(activation)),
        _ => (1, out.suffix(), catalog::linear()),
    };
    check(card, x, w, bias, rows, halves, out)?;
    let shape = || format!("{rows} x {} x {}", w.rows, w.cols);
    let (name, grid) = choose(rows, w.rows, card.limits().sms, variant);
    let function = card.function(&module, name, grid.shared)?;
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
    assert_eq!(x.cols, w.cols, "columns of the product's input");
    assert_eq!(halves * out.cols, w.rows, "columns of the product's output");
    assert!(bias.is_none_or(|b| b.len == w.rows), "length of the bias");
    x.require(rows, "the product's input");
    out.require(rows, "the product's output");
    if x.dtype == Dtype::Bf16 {
        return Ok(());
    }
    Err(Error::Unsupported {
        device: card.name().into(),
        what: format!(
            "a product of float32 activations ({rows} x {} x {})",
            w.rows, w.cols
        ),
    })
}

/// The kernel for a product of `rows` rows and `n` rows of weights, of which a block has as many as
/// its tile has columns; gated or not.
fn choose(rows: usize, n: usize, sms: usize, variant: usize) -> (&'static str, Grid) {
    if rows <= FEW_ROWS {
        let tall = match rows {
            0..=16 => 0,
            17..=32 => 1,
            _ => 2,
        };
        // Narrow tiles while there are too few wide ones for the card.
        let wide = n.div_ceil(32) >= sms;
        let (names, mt, nt, stages, _) = SKINNY[2 * tall + usize::from(wide)];
        let grid = Grid {
            blocks: (if rows == 0 { 0 } else { n.div_ceil(8 * nt) }, 1),
            threads: 128,
            shared: skinny_shared(mt, nt, stages),
        };
        return (names[variant], grid);
    }
    let large = rows.div_ceil(128) * n.div_ceil(128) >= sms;
    let (names, bm, bn) = TILED[usize::from(large)];
    let grid = Grid {
        blocks: (rows.div_ceil(bm), n.div_ceil(bn)),
        threads: 256,
        shared: tiled_shared(bm, bn),
    };
    (names[variant], grid)
}
