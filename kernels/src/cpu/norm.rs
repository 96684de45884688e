//! Root-mean-square normalisation, of whole rows or of the Q and K heads in them.
//!
//! What: `out[r, c] = x[r, c] * (1 / sqrt(sum_c x[r, c]^2 / cols + eps)) * weight[c]`, or `+=`;
//! for heads the same in place, with `cols` the head dimension.
//! Tiling: a row at a time; rows are divided among threads.
//! Layout: `x` and `out` row-major `[rows, cols]`, `weight` `[cols]`.
//! Numerics: the squares are summed in 16 lanes by column modulo 16, then the lanes in order, so
//! the bits depend on the row alone. Squares are rounded before they are added.
//! Budget: `8 * rows * cols + 4 * cols` bytes (`12 * rows * cols` where it adds),
//! `4 * rows * cols` FLOPs.

use super::buffers::Activations;
use super::workers::Workers;
use crate::KvLayout;
use crate::widest::widest;

/// [`Backend::rms_norm`](crate::Backend::rms_norm).
pub(crate) fn rms_norm(
    workers: &Workers,
    x: &Activations,
    weight: &[f32],
    eps: f32,
    rows: usize,
    out: &mut Activations,
) {
    each_row(workers, x, weight, rows, out, |x, out| {
        row(x, weight, eps, out);
    });
}

/// [`Backend::add_rms_norm`](crate::Backend::add_rms_norm).
pub(crate) fn add_rms_norm(
    workers: &Workers,
    x: &Activations,
    weight: &[f32],
    eps: f32,
    rows: usize,
    out: &mut Activations,
) {
    each_row(workers, x, weight, rows, out, |x, out| {
        add_row(x, weight, eps, out);
    });
}

/// Calls `norm` with every row of `x` and of `out`, rows divided among the threads.
fn each_row(
    workers: &Workers,
    x: &Activations,
    weight: &[f32],
    rows: usize,
    out: &mut Activations,
    norm: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let cols = x.cols();
    assert_eq!(weight.len(), cols, "weights of the norm");
    assert_eq!(out.cols(), cols, "columns of the norm's output");
    let x = &x.data()[..rows * cols];
    let operations = 4 * rows * cols;
    workers.rows(out.first_rows_mut(rows), cols, operations, |r, out| {
        norm(&x[r * cols..][..cols], out);
    });
}

/// Normalises every Q head with the first of `weights` and every K head with the second.
pub(crate) fn qk_norm(
    workers: &Workers,
    qkv: &mut Activations,
    weights: [&[f32]; 2],
    eps: f32,
    rows: usize,
    layout: &KvLayout,
) {
    let head_dim = layout.head_dim;
    for weight in weights {
        assert_eq!(weight.len(), head_dim, "weights of the QK norm");
    }
    let cols = qkv.cols();
    assert_eq!(cols, layout.qkv_cols(), "columns of Q, K and V");
    let heads = layout.heads + layout.kv_heads;
    let operations = 4 * rows * heads * head_dim;
    workers.rows(qkv.first_rows_mut(rows), cols, operations, |_, row| {
        heads_of_row(row, weights, eps, layout);
    });
}

widest! {
    fn heads_of_row(row: &mut [f32], weights: [&[f32]; 2], eps: f32, layout: &KvLayout) {
        let heads = row.chunks_exact_mut(layout.head_dim);
        for (i, head) in heads.take(layout.heads + layout.kv_heads).enumerate() {
            let weight = weights[usize::from(i >= layout.heads)];
            let scale = scale(head, eps);
            for (x, &w) in head.iter_mut().zip(weight) {
                *x = *x * scale * w;
            }
        }
    }
}

widest! {
    fn row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = scale(x, eps);
        for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
            *o = x * scale * w;
        }
    }
}

widest! {
    fn add_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = scale(x, eps);
        for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
            *o += x * scale * w;
        }
    }
}

#[inline(always)]
fn scale(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt()
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
