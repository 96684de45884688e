//! The gated feed-forward's activations, and the rectifier of a PRM's two-layer head.
//!
//! What: `out[r, c] = a(gate_up[r, c]) * gate_up[r, cols + c]`, with `a(g) = g / (1 + e^-y)`:
//! `y = g` for SiLU (Llama, Qwen), `y = g (c1 + c2 g^2)` for GELU in its tanh form (Gemma; the
//! constants of [`Activation::GeluTanh`]).
//! Tiling: a row at a time; rows are divided among threads.
//! Layout: `gate_up` `[rows, 2 * cols]` (gates, then ups), `out` `[rows, cols]`, row-major.
//! Numerics: `e^-y = 2^(-y * log2 e)` by the crate's polynomial, clamped to `2^127`: a gate with
//! `y` below -88 gives `g / 2^127` where f32 arithmetic would give -0. No fused multiply-add, so
//! the bits are the same on every instruction set. The activation's relative error is at most
//! `(4 + 5 |y|) u`, `u = 2^-24`, and below 6 u where g is positive (tested in this file). NaN stays
//! NaN.
//! Budget: `12 * rows * cols` bytes, about `20 * rows * cols` FLOPs (GELU: 23).

use super::buffers::Activations;
use super::workers::Workers;
use crate::Activation;
use crate::activation::{GELU_CUBIC, GELU_LINEAR};
use crate::exp2::exp2;
use crate::widest::widest;
use std::f32::consts::LOG2_E;

pub(crate) fn gated(
    workers: &Workers,
    gate_up: &Activations,
    activation: Activation,
    rows: usize,
    out: &mut Activations,
) {
    let cols = out.cols();
    assert_eq!(gate_up.cols(), 2 * cols, "columns of gate and up");
    let gate_up = gate_up.data();
    let row = match activation {
        Activation::Silu => silu_row,
        Activation::GeluTanh => gelu_tanh_row,
    };
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
    fn silu_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *o = silu(g) * u;
        }
    }
}

widest! {
    fn gelu_tanh_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *o = gelu_tanh(g) * u;
        }
    }
}

#[inline(always)]
fn silu(g: f32) -> f32 {
    g / (1.0 + exp2(g * -LOG2_E))
}

#[inline(always)]
fn gelu_tanh(g: f32) -> f32 {
    g / (1.0 + exp2(g * (GELU_LINEAR + GELU_CUBIC * (g * g)) * -LOG2_E))
}

/// `x = max(x, 0)` in place over the first rows, on the calling thread: a head has few rows. NaN
/// stays NaN. 8 bytes an element.
pub(crate) fn relu(x: &mut Activations, rows: usize) {
    for x in x.first_rows_mut(rows) {
        *x = if *x < 0.0 { 0.0 } else { *x };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_error_is_as_stated() {
        const U: f64 = 1.0 / 16_777_216.0;
        let activations = [
            (silu as fn(f32) -> f32, 1.0, 0.0),
            (gelu_tanh, f64::from(GELU_LINEAR), f64::from(GELU_CUBIC)),
        ];
        for (function, linear, cubic) in activations {
            let mut worst = [0.0f64; 2];
            for i in (-400_000..=400_000).filter(|&i| i != 0) {
                let g = i as f32 * 1e-4;
                let x = f64::from(g);
                let y = linear * x + cubic * x.powi(3);
                // Below, the exponential is clamped.
                if y < -85.0 {
                    continue;
                }
                let exact = x / (1.0 + (-y).exp());
                let error = (f64::from(function(g)) / exact - 1.0).abs() / U;
                worst[0] = worst[0].max(error / (4.0 + 5.0 * y.abs()));
                if i > 0 {
                    worst[1] = worst[1].max(error);
                }
            }
            assert!(worst[0] <= 1.0 && worst[1] <= 6.0, "{worst:?}");
        }
    }

    #[test]
    fn special_values() {
        for function in [silu, gelu_tanh] {
            assert!(function(f32::NAN).is_nan());
            assert_eq!(function(f32::INFINITY), f32::INFINITY);
            assert_eq!(function(f32::MAX), f32::MAX);
            assert_eq!(function(0.0), 0.0);
            assert!(function(-200.0).abs() < 1e-35);
        }
    }
}
