//! The test cases of every operation, and one check per operation, for any backend.
//!
//! A check derives its inputs from the case alone, runs the operation, and compares with
//! [`reference`](mod@crate::reference) in f64. Memory that must not be read is filled with NaN.
//!
//! Bounds are multiples of `u = 2^-24`. A sum of `n` terms of random sign, added one by one, has a
//! relative error of about `u sqrt(n / 6)` (each partial sum, of size `sqrt(j)`, is rounded once).
//! A check fails at four times that, plus a few roundings. Tensor cores cut partial sums instead of
//! rounding them, which adds up; `linear` derives what a check allows for that.
//!
//! `inputs` has reproducible numbers and their storage types; `linear`, `rows` and `attention` have
//! the tables and checks of their operations; `trees` has the forests that attention runs over. The
//! gated operations are in this file.

mod attention;
mod inputs;
mod linear;
mod rows;
mod trees;

pub use attention::{AttentionCase, HEADS, KV_DTYPES, NodeRows, attention_cases, check_attention};
pub use inputs::{matrix_bytes, number, numbers};
pub use linear::{LinearCase, card_cutting, check_linear, linear_cases, quantized_cases};
pub use rows::{ROW_SHAPES, check_add_rms_norm, check_qk_norm, check_relu, check_rms_norm};
pub use trees::{Tree, TreeNode, trees};

use crate::reference;
use crate::{Activation, Backend, Dtype, Error, MatrixView};
use inputs::{as_stored, stored, widen};

/// Unit roundoff of f32.
const U: f64 = 1.0 / 16_777_216.0;

/// Relative rounding error of a buffer's type; 0 for f32, which is part of every bound.
fn rounding(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 0.0,
        Dtype::Bf16 => 1.0 / 256.0,
        Dtype::F16 => 1.0 / 2048.0,
    }
}

/// The functions that a check needs of a backend besides its operations.
pub trait Device: Backend {
    /// Overwrites the first rows of a buffer.
    fn write(&mut self, x: &mut Self::Activations, values: &[f32]);
    /// Fills the whole arena with the byte 0xff: NaN in bf16 and f32.
    fn poison(&mut self, arena: &mut Self::Arena);
    /// The storage type of [`Backend::half_activations`].
    fn half_dtype(&self) -> Dtype {
        Dtype::F32
    }
    /// The relative error to which a linear layer with weights of this type rounds its inputs.
    fn input_rounding(&self, _weights: Dtype) -> f64 {
        0.0
    }
    /// The relative error of a sum of `k` products that comes from cutting its partial sums where
    /// others round them to nearest.
    fn sum_cutting(&self, _k: usize) -> f64 {
        0.0
    }
    /// The storage type of weights loaded as `dtype`.
    fn weight_dtype(&self, dtype: Dtype) -> Dtype {
        dtype
    }
}

/// Runs a check over a table.
///
/// # Panics
///
/// If a case fails; the message lists every case that does.
pub fn check_all<C: std::fmt::Debug>(cases: &[C], mut check: impl FnMut(&C) -> Result<(), String>) {
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| check(case).err().map(|why| format!("{case:?}: {why}")))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

/// Fails if the relative error exceeds the bound.
fn within(out: &[f32], expected: &[f64], bound: f64) -> Result<(), String> {
    let error = reference::relative_error(out, expected);
    if error <= bound {
        Ok(())
    } else {
        Err(format!("relative error {error:.2e}, bound {bound:.2e}"))
    }
}

fn fail(error: Error) -> String {
    error.to_string()
}

/// `(rows, cols, k, bias)` of gated linear layers: `cols` outputs of twice as many rows of weights.
pub const GATED_SHAPES: [(usize, usize, usize, bool); 13] = [
    (1, 1, 1, true),
    (1, 8, 64, false),
    (2, 17, 31, true),
    (5, 96, 129, false),
    (16, 33, 256, true),
    (31, 40, 96, true),
    (64, 72, 64, false),
    (65, 33, 40, true),
    (150, 1000, 192, false),
    (1, 2_117, 24, true),
    (20, 2_115, 17, false),
    (33, 2_116, 40, true),
    (257, 2_881, 15, true),
];

/// A gated linear layer: one of [`GATED_SHAPES`] and its activation.
pub type GatedLinearCase = ((usize, usize, usize, bool), Activation);

/// All gated linear layers to test: every shape with SiLU, every third with GELU.
pub fn gated_linear_cases() -> Vec<GatedLinearCase> {
    let all = GATED_SHAPES.map(|shape| (shape, Activation::Silu));
    let third = GATED_SHAPES.iter().skip(2).step_by(3);
    let third = third.map(|&shape| (shape, Activation::GeluTanh));
    all.into_iter().chain(third).collect()
}

/// Runs a linear layer whose outputs are gates and then ups, and its gated activation.
pub fn check_linear_gated<D: Device>(
    device: &mut D,
    &((rows, cols, k, biased), activation): &GatedLinearCase,
) -> Result<Vec<f32>, String> {
    let half = device.half_dtype();
    let x = as_stored(&numbers(15, rows * k), half);
    let w = numbers(16, 2 * cols * k);
    let bias = numbers(17, 2 * cols);
    let bytes = matrix_bytes(&w, Dtype::Bf16);
    let part = |bytes| MatrixView {
        rows: cols,
        cols: k,
        dtype: Dtype::Bf16,
        bytes,
    };
    let (gates, ups) = bytes.split_at(bytes.len() / 2);
    let weight = device
        .load_matrix(&[part(gates), part(ups)])
        .map_err(fail)?;
    let vector = device.load_vector(&bias).map_err(fail)?;
    let mut x_buffer = device.half_activations(rows + 1, k).map_err(fail)?;
    device.write(&mut x_buffer, &[&x[..], &vec![f32::NAN; k]].concat());
    let mut gate_up = device.half_activations(rows + 1, 2 * cols).map_err(fail)?;
    device.write(&mut gate_up, &vec![f32::NAN; rows * 2 * cols]);
    let mut out = device.half_activations(rows + 1, cols).map_err(fail)?;
    let before = [vec![f32::NAN; rows * cols], vec![7.0; cols]].concat();
    device.write(&mut out, &before);
    let bias_vector = biased.then_some(&vector);
    device.linear_gated(
        &x_buffer,
        &weight,
        bias_vector,
        activation,
        rows,
        &mut gate_up,
        &mut out,
    );
    let pending = device.read(&out, 0..rows + 1);
    let mut out = device.finish_read(pending).map_err(fail)?;
    if out.split_off(rows * cols).iter().any(|&v| v != 7.0) {
        return Err("wrote beyond its rows".into());
    }
    let w: Vec<f32> = w
        .iter()
        .map(|&w| stored(stored(w, Dtype::Bf16), device.weight_dtype(Dtype::Bf16)))
        .collect();
    let mut sums = reference::linear(&widen(&x), &widen(&w), k);
    for (i, sum) in sums.iter_mut().enumerate().filter(|_| biased) {
        *sum += f64::from(bias[i % (2 * cols)]);
    }
    // The linear layer's error, in the gate (where an activation is at most 1.13 times as steep as
    // a line) and in the up; then the activation's own, as in its check. A device may round sums
    // and output.
    let linear = linear::sum_bound(device, k) + device.input_rounding(Dtype::Bf16);
    let bound = 3.0 * linear + 18.0 * U + 2.0 * rounding(half);
    within(&out, &reference::gated(&sums, activation, cols), bound)?;
    Ok(out)
}

/// All gated activations to test: `(rows, cols)` and the activation.
pub fn gated_cases() -> Vec<((usize, usize), Activation)> {
    let all = |activation| ROW_SHAPES.map(|shape| (shape, activation));
    Activation::ALL.into_iter().flat_map(all).collect()
}

/// Runs the gated activation.
pub fn check_gated<D: Device>(
    device: &mut D,
    &((rows, cols), activation): &((usize, usize), Activation),
) -> Result<Vec<f32>, String> {
    let x: Vec<f32> = numbers(7, rows * 2 * cols)
        .iter()
        .map(|x| x * 12.0)
        .collect();
    let x = as_stored(&x, device.half_dtype());
    let mut x_buffer = device.half_activations(rows + 1, 2 * cols).map_err(fail)?;
    device.write(&mut x_buffer, &[&x[..], &vec![f32::NAN; 2 * cols]].concat());
    let mut out = device.half_activations(rows, cols).map_err(fail)?;
    device.write(&mut out, &vec![f32::NAN; rows * cols]);
    device.gated(&x_buffer, activation, rows, &mut out);
    let pending = device.read(&out, 0..rows);
    let out = device.finish_read(pending).map_err(fail)?;
    // The exponent's product with log2 e is off by u of up to 18, which is 18 ln 2 u of e^x; the
    // polynomial by 2.5 u; three more operations. GELU's exponent has four roundings instead of
    // one, but the gates that they matter for have outputs near 0.
    let bound = U * (12.5 + 2.5 + 3.0) + rounding(device.half_dtype());
    within(&out, &reference::gated(&widen(&x), activation, cols), bound)?;
    Ok(out)
}
