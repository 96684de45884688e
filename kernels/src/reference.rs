//! The f64 reference of every operation, written as plainly as possible; all backends are tested
//! against it.
//!
//! Matrices are row-major slices, with the shapes of [`Backend`](crate::Backend).

use crate::Activation;

/// `out[r, n] = sum_k x[r, k] w[n, k]`.
pub fn linear(x: &[f64], w: &[f64], k: usize) -> Vec<f64> {
    x.chunks_exact(k)
        .flat_map(|x| {
            w.chunks_exact(k)
                .map(move |w| x.iter().zip(w).map(|(x, w)| x * w).sum())
        })
        .collect()
}

/// `out[r, c] = x[r, c] / sqrt(mean(x[r, :]^2) + eps) * weight[c]`.
pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let cols = weight.len();
    x.chunks_exact(cols)
        .flat_map(|x| {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / cols as f64;
            x.iter()
                .zip(weight)
                .map(move |(x, w)| x / (mean + eps).sqrt() * w)
        })
        .collect()
}

/// `out[r, c] = a(gate_up[r, c]) * gate_up[r, cols + c]`, `a` the activation.
pub fn gated(gate_up: &[f64], activation: Activation, cols: usize) -> Vec<f64> {
    gate_up
        .chunks_exact(2 * cols)
        .flat_map(|row| (0..cols).map(|c| activate(activation, row[c]) * row[cols + c]))
        .collect()
}

/// An activation, as its paper writes it.
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

/// Rotates one head by angles `position * frequencies[i]`: pairs `(i, i + head_dim / 2)`.
pub fn rope(head: &mut [f64], frequencies: &[f64], position: f64) {
    let half = frequencies.len();
    for i in 0..half {
        let (sin, cos) = (position * frequencies[i]).sin_cos();
        let (a, b) = (head[i], head[half + i]);
        head[i] = a * cos - b * sin;
        head[half + i] = b * cos + a * sin;
    }
}

/// Attention of one query `[head_dim]` over keys and values `[tokens][head_dim]`; scores are
/// divided by `sqrt(query_scalar)`.
pub fn attention(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], query_scalar: f64) -> Vec<f64> {
    let scale = query_scalar.sqrt();
    let scores: Vec<f64> = keys
        .iter()
        .map(|k| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / scale)
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = p.iter().sum();
    (0..q.len())
        .map(|d| p.iter().zip(values).map(|(p, v)| p * v[d]).sum::<f64>() / total)
        .collect()
}

/// Log-probabilities (natural logarithm) of all tokens.
pub fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
    logits.iter().map(|l| l - max - log_sum).collect()
}

/// `||out - expected|| / ||expected||`; NaN if either contains NaN.
pub fn relative_error(out: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(out.len(), expected.len(), "lengths");
    let difference: f64 = out
        .iter()
        .zip(expected)
        .map(|(&o, e)| (f64::from(o) - e).powi(2))
        .sum();
    let norm: f64 = expected.iter().map(|e| e * e).sum();
    if difference == 0.0 {
        0.0
    } else {
        (difference / norm).sqrt()
    }
}
