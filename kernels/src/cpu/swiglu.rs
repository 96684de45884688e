//! The activations: the gated one of Llama and Qwen2, and the rectifier of a PRM's two-layer head.
//!
//! What: `out[r, c] = g / (1 + e^-g) * gate_up[r, cols + c]` with `g = gate_up[r, c]`.
//! Tiling: a row at a time; rows are divided among threads.
//! Layout: `gate_up` `[rows, 2 * cols]` (gates, then ups), `out` `[rows, cols]`, row-major.
//! Numerics: `e^-g = 2^(-g * log2 e)` by the crate's polynomial, clamped to `2^127`: a gate below
//! -88 gives `g / 2^127` where f32 arithmetic would give -0. NaN stays NaN.
//! Budget: `12 * rows * cols` bytes, about `20 * rows * cols` FLOPs.

use super::buffers::Activations;
use super::workers::Workers;
use crate::exp2::exp2;
use crate::widest::widest;
use std::f32::consts::LOG2_E;

pub(crate) fn swiglu(workers: &Workers, gate_up: &Activations, rows: usize, out: &mut Activations) {
    let cols = out.cols();
    assert_eq!(gate_up.cols(), 2 * cols, "columns of gate and up");
    let gate_up = gate_up.data();
    workers.rows(
        out.first_rows_mut(rows),
        cols,
        20 * rows * cols,
        |r, out| {
            let (gate, up) = gate_up[2 * r * cols..][..2 * cols].split_at(cols);
            row(gate, up, out);
        },
    );
}

widest! {
    fn row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *o = g / (1.0 + exp2(g * -LOG2_E)) * u;
        }
    }
}

/// `x = max(x, 0)` in place over the first rows, on the calling thread: a head has few rows. NaN
/// stays NaN. 8 bytes an element.
pub(crate) fn relu(x: &mut Activations, rows: usize) {
    for x in x.first_rows_mut(rows) {
        *x = if *x < 0.0 { 0.0 } else { *x };
    }
}
