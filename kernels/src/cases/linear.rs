//! Linear layers: their cases and their check.

use super::inputs::{as_stored, matrix_bytes, numbers, widen};
use super::{Device, U, fail, rounding, within};
use crate::quant::{self, GROUP, Quantization, QuantizedMatrix};
use crate::reference;
use crate::{Dtype, MatrixView};

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearCase {
    /// Rows of x.
    pub rows: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Type of the weights in the checkpoint.
    pub dtype: Dtype,
    /// Type of the quantised weights; `None`: not quantised.
    pub quantized: Option<Quantization>,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the layer accumulates to the output.
    pub accumulate: bool,
}

impl LinearCase {
    /// Whether the output is rounded to bf16 where the device does so: that of a layer whose result
    /// is the input of another (with a bias: Q, K and V of Qwen2). The residual stream, logits and
    /// scores are f32 on every device.
    pub fn half_output(&self) -> bool {
        !self.accumulate && (!self.bias || self.dtype == Dtype::Bf16)
    }
}

/// All linear layers to test, not quantised.
pub fn linear_cases() -> Vec<LinearCase> {
    let mut cases = Vec::new();
    let shapes = [
        (1, 1, 1),
        (1, 17, 3),
        (2, 15, 7),
        (3, 33, 64),
        (4, 16, 128),
        (5, 48, 31),
        (6, 80, 64),
        (7, 100, 96),
        (13, 65, 129),
        (48, 64, 64),
        (49, 200, 64),
        (97, 1, 33),
        (1, 1000, 512),
        (150, 192, 256),
        // Wide enough for the wide tiles of every GPU.
        (2, 4_230, 24),
        (18, 4_227, 40),
        (40, 4_231, 33),
        (129, 8_453, 15),
    ];
    for (i, (rows, n, k)) in shapes.into_iter().enumerate() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            for (bias, accumulate) in [(false, false), (true, i % 2 == 0), (false, true)] {
                cases.push(LinearCase {
                    rows,
                    n,
                    k,
                    dtype,
                    quantized: None,
                    bias,
                    accumulate,
                });
            }
        }
    }
    cases
}

/// All linear layers with quantised weights to test.
pub fn quantized_cases() -> Vec<LinearCase> {
    let floats = linear_cases().into_iter();
    let cases = floats.flat_map(|case| {
        Quantization::ALL.map(|kind| LinearCase {
            k: case.k.next_multiple_of(GROUP),
            quantized: Some(kind),
            ..case
        })
    });
    cases.collect()
}

/// Activations after quantisation.
fn as_quantized(x: &[f32]) -> Vec<f32> {
    let (mut q, groups) = (vec![0; x.len()], x.len() / GROUP);
    let (mut scales, mut sums) = (vec![0.0; groups], vec![0; groups]);
    quant::quantize_row(x, &mut q, &mut scales, &mut sums);
    let number = |(i, &q): (usize, &i8)| f32::from(q) * scales[i / GROUP];
    q.iter().enumerate().map(number).collect()
}

/// The numbers of a layer: `x` `[rows, k]`, `w` `[n, k]`, `bias` `[n]`, and the old output
/// `[rows, n]`.
struct Inputs {
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    old: Vec<f32>,
}

/// Runs one linear layer and returns its output, `[rows, n]`, having checked it.
pub fn check_linear<D: Device>(device: &mut D, case: &LinearCase) -> Result<Vec<f32>, String> {
    let LinearCase { rows, n, k, .. } = *case;
    let half = device.half_dtype();
    let mut inputs = Inputs {
        x: as_stored(&numbers(1, rows * k), half),
        w: numbers(2, n * k),
        bias: as_stored(&numbers(3, n), case.dtype),
        old: numbers(4, rows * n),
    };
    // Two stacked parts, as of a fused projection; their bytes are not aligned.
    let mut bytes = vec![0xff];
    bytes.extend(matrix_bytes(&inputs.w, case.dtype));
    let (upper, lower) = bytes[1..].split_at(n / 2 * k * case.dtype.bytes());
    let part = |rows, bytes| MatrixView {
        rows,
        cols: k,
        dtype: case.dtype,
        bytes,
    };
    let parts = [part(n / 2, upper), part(n - n / 2, lower)];
    let quantized: Vec<_> = (case.quantized.iter())
        .flat_map(|&kind| {
            parts
                .iter()
                .map(move |part| QuantizedMatrix::new(part, kind))
        })
        .collect();
    let weight = match case.quantized {
        None => device.load_matrix(&parts).map_err(fail)?,
        Some(_) => device.load_quantized(&quantized).map_err(fail)?,
    };
    let out_dtype = if case.half_output() { half } else { Dtype::F32 };
    let out = run(device, case, &inputs, &weight)?;

    // The reference multiplies the numbers after rounding and quantisation.
    let input_error = if case.quantized.is_some() {
        inputs.w = quantized
            .iter()
            .flat_map(QuantizedMatrix::dequantized)
            .collect();
        inputs.x = as_quantized(&inputs.x);
        0.0
    } else {
        let stored_as = device.weight_dtype(case.dtype);
        inputs.w = as_stored(&as_stored(&inputs.w, case.dtype), stored_as);
        device.input_rounding(case.dtype)
    };
    let bound = U * (4.0 * (k as f64 / 6.0).sqrt() + 4.0) + input_error + rounding(out_dtype);
    within(&out, &expected(case, &inputs), bound)?;
    Ok(out)
}

/// Runs the layer on a device, and checks that it writes no more than its rows.
fn run<D: Device>(
    device: &mut D,
    case: &LinearCase,
    inputs: &Inputs,
    weight: &D::Weight,
) -> Result<Vec<f32>, String> {
    let LinearCase { rows, n, k, .. } = *case;
    let bias = device.load_vector(&inputs.bias).map_err(fail)?;
    let mut x = device.half_activations(rows + 1, k).map_err(fail)?;
    let out = if case.half_output() {
        device.half_activations(rows + 1, n)
    } else {
        device.activations(rows + 1, n)
    };
    let mut out = out.map_err(fail)?;
    device.write(&mut x, &[&inputs.x[..], &vec![f32::NAN; k]].concat());
    let before = if case.accumulate {
        inputs.old.clone()
    } else {
        vec![f32::NAN; rows * n]
    };
    device.write(&mut out, &[&before[..], &vec![7.0; n]].concat());
    let bias = case.bias.then_some(&bias);
    device.linear(&x, weight, bias, rows, case.accumulate, &mut out);
    let pending = device.read(&out, 0..rows + 1);
    let mut out = device.finish_read(pending).map_err(fail)?;
    let beyond = out.split_off(rows * n);
    if beyond.iter().any(|&v| v != 7.0) {
        return Err("wrote beyond its rows".into());
    }
    Ok(out)
}

fn expected(case: &LinearCase, inputs: &Inputs) -> Vec<f64> {
    let mut expected = reference::linear(&widen(&inputs.x), &widen(&inputs.w), case.k);
    for (i, e) in expected.iter_mut().enumerate() {
        if case.bias {
            *e += f64::from(inputs.bias[i % case.n]);
        }
        if case.accumulate {
            *e += f64::from(inputs.old[i]);
        }
    }
    expected
}
