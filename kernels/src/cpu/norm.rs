//! Root-mean-square normalisation.
//!
//! What: `out[r, c] = x[r, c] * (1 / sqrt(sum_c x[r, c]^2 / cols + eps)) * weight[c]`.
//! Tiling: a row at a time; rows are divided among threads.
//! Layout: `x` and `out` row-major `[rows, cols]`, `weight` `[cols]`.
//! Numerics: the squares are summed in 16 lanes by column modulo 16, then the lanes in order, so
//! the bits depend on the row alone. Products are rounded before they are added.
//! Budget: `8 * rows * cols + 4 * cols` bytes, `4 * rows * cols` FLOPs.

use super::buffers::Activations;
use super::workers::Workers;
use crate::widest::widest;

pub(crate) fn rms_norm(
    workers: &Workers,
    x: &Activations,
    weight: &[f32],
    eps: f32,
    rows: usize,
    out: &mut Activations,
) {
    let cols = x.cols();
    assert_eq!(weight.len(), cols, "weights of the norm");
    assert_eq!(out.cols(), cols, "columns of the norm's output");
    let x = &x.data()[..rows * cols];
    let operations = 4 * rows * cols;
    workers.rows(out.first_rows_mut(rows), cols, operations, |r, out| {
        widest(|| row(&x[r * cols..][..cols], weight, eps, out));
    });
}

#[inline(always)]
fn row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += x * x;
    }
    lanes.iter().sum()
}
