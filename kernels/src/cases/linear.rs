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
    // Long sums, in f32: of few rows, and of many.
    cases.extend([(3, 40), (70, 48)].map(|(rows, n)| LinearCase {
        rows,
        n,
        k: LONG,
        dtype: Dtype::Bf16,
        quantized: None,
        bias: false,
        accumulate: true,
    }));
    cases
}

/// Columns of a long sum: those of an 8B model's down projection are 14,336, of a 1B model's 8192.
const LONG: usize = 8192;

/// Products that A100 and Ada add to a sum in one step; they keep one bit below its last. No other card
/// cuts more: Hopper and Blackwell take 16 products and keep two bits (arXiv 2512.07004, 2511.10909).
const PRODUCTS_OF_A_STEP: usize = 8;

/// What cards may lose of a sum of `k` products by cutting it, relative to it: u = 2^-24 times 0.42 n,
/// n = k / 8 the steps in which A100 adds it.
///
/// A step aligns its terms to the largest, cuts them b bits below the last bit of the sum, adds them, and
/// cuts the new sum s_j to f32, towards zero. The last bit is worth 2 u 2^e, e the exponent of s_j. Of the
/// 2^b parts of it that are left, the last cut takes 0 to 2^b - 1, on average (1 - 2^-b) u 2^e.
/// Significands between 1 and 2 are spread like logarithms, so the mean of 2^e is |s_j| / (2 ln 2) =
/// 0.72 |s_j|. The losses have the signs of the partial sums and do not average out: after n steps the
/// error is -0.72 (1 - 2^-b) u (s_1 + ... + s_n). The products of a case have random signs, so with a
/// variance v of what a step adds, E[s_i s_j] = v min(i, j):
///
/// - mean square of the error: (0.72 (1 - 2^-b) u)^2 v n^3 / 3; of the sum: v n;
/// - relative error: 0.72 (1 - 2^-b) u n / sqrt(3) = 0.416 (1 - 2^-b) u n, which is 0.026 u k on A100
///   (b = 1) and 0.020 u k on Hopper (b = 2, n = k / 16).
///
/// A check allows twice that of A100. The terms are cut at u 2^e or finer, 8 in a step, with the random
/// signs of the products: about u sqrt(n), within four times the error of adding one by one.
///
/// For k = 8192 on A100 that is 213 u, and 430 u allowed; 152 u is the rest of the bound. The case itself,
/// on the emulated card, has 169 u, on an emulated H100 144 u: products of bf16 have 16 bits, so the cuts
/// find fewer bits to take. A kernel that leaves out one product of 8192 has 1 / sqrt(8192) = 185,000 u.
pub fn card_cutting(k: usize) -> f64 {
    0.42 * U * k.div_ceil(PRODUCTS_OF_A_STEP) as f64
}

/// The relative error that a sum of `k` products may have on a device.
pub(super) fn sum_bound<D: Device>(device: &D, k: usize) -> f64 {
    U * (4.0 * (k as f64 / 6.0).sqrt() + 4.0) + device.sum_cutting(k)
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
    let bound = sum_bound(device, k) + input_error + rounding(out_dtype);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::inputs::stored;
    use crate::reference::relative_error;

    /// A number cut to f32.
    fn cut(x: f64) -> f32 {
        let nearest = x as f32;
        let away = f64::from(nearest).abs() > x.abs();
        f32::from_bits(nearest.to_bits() - u32::from(away))
    }

    /// Sums of products of numbers stored as `dtype`, each by `add` from those of a row and a column.
    fn sums(dtype: Dtype, k: usize, add: impl Fn(&[f64]) -> f32) -> (Vec<f32>, Vec<f64>) {
        let (rows, n) = (6, 20);
        let x = widen(&as_stored(&numbers(1, rows * k), dtype));
        let w = widen(&as_stored(&numbers(2, n * k), dtype));
        let out = (x.chunks_exact(k))
            .flat_map(|x| w.chunks_exact(k).map(move |w| (x, w)))
            .map(|(x, w)| add(&x.iter().zip(w).map(|(x, w)| x * w).collect::<Vec<f64>>()))
            .collect();
        (out, reference::linear(&x, &w, k))
    }

    /// In steps of so many products, each rounded by `round`.
    fn in_steps(products: &[f64], step: usize, round: impl Fn(f64) -> f32) -> f32 {
        (products.chunks(step)).fold(0.0, |sum, p| round(f64::from(sum) + p.iter().sum::<f64>()))
    }

    /// As a card: in steps, their terms cut `bits` bits below f32's last bit of the largest.
    fn as_card(products: &[f64], step: usize, bits: i32) -> f32 {
        products.chunks(step).fold(0.0, |sum, p| {
            let terms = || p.iter().copied().chain([f64::from(sum)]);
            let largest = terms().fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs()));
            let unit = 2f64.powi(largest.log2().floor() as i32 - 23 - bits);
            cut(terms().map(|x| (x / unit).trunc()).sum::<f64>() * unit)
        })
    }

    /// The derived error is that of products with random last bits. The products of a case have 16 bits,
    /// and lose less as long as the sum is small.
    #[test]
    fn cut_sums_have_the_error_that_is_derived_for_them() {
        for k in [2048, LONG] {
            for (step, bits) in [(8, 1), (16, 2)] {
                let error = |dtype| {
                    let (out, expected) = sums(dtype, k, |p| as_card(p, step, bits));
                    relative_error(&out, &expected) / U
                };
                let derived = 0.416 * (1.0 - 2f64.powi(-bits)) * (k / step) as f64;
                let found = error(Dtype::F32) / derived;
                assert!((0.9..1.15).contains(&found), "{k}: {found} of {derived}");
                let found = error(Dtype::Bf16) / derived;
                assert!((0.5..1.0).contains(&found), "{k}: {found} of {derived}");
                assert!(1.15 * derived < card_cutting(k) / U, "{k}: {derived}");
            }
        }
    }

    /// What a wrong kernel does to a long sum is far above the bound of a card.
    #[test]
    fn wrong_long_sums_are_above_the_bound() {
        let bound = U * (4.0 * (LONG as f64 / 6.0).sqrt() + 4.0) + card_cutting(LONG);
        let exact = |p: &[f64]| p.iter().sum::<f64>() as f32;
        let as_bf16 = |x: f64| stored(x as f32, Dtype::Bf16);
        let as_f16 = |x: f64| stored(x as f32, Dtype::F16);
        // tf32's ten bits of fraction.
        let as_tf32 = |x: f64| f32::from_bits((x as f32).to_bits() & !0x1fff);
        type Add<'a> = &'a dyn Fn(&[f64]) -> f32;
        let wrong: [(&str, Add); 7] = [
            ("without the last product", &|p| exact(&p[..LONG - 1])),
            ("without 16 columns", &|p| exact(&p[16..])),
            ("16 columns twice", &|p| exact(p) + exact(&p[..16])),
            ("summed in bf16", &|p| in_steps(p, 16, as_bf16)),
            ("summed in f16", &|p| in_steps(p, 16, as_f16)),
            ("rounded to bf16 at the end", &|p| {
                as_bf16(f64::from(exact(p)))
            }),
            ("cut to tf32 in four parts", &|p| {
                in_steps(p, LONG / 4, as_tf32)
            }),
        ];
        for (name, add) in wrong {
            let (out, expected) = sums(Dtype::Bf16, LONG, add);
            let error = relative_error(&out, &expected);
            assert!(error > 4.0 * bound, "{name}: {error:e}, bound {bound:e}");
        }
        let (out, expected) = sums(Dtype::Bf16, LONG, exact);
        assert!(relative_error(&out, &expected) < bound);
    }
}
