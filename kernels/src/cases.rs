//! The table of cases of every operation, and one check per operation, for any backend.
//!
//! A check makes its inputs from the case alone, runs the operation, and compares with
//! [`reference`](mod@crate::reference) in f64. What must not be read is filled with NaN. A bound is
//! `u = 2^-24` times what rounding can do: a sum of `n` terms of random sign, added one by one,
//! is off by about `u sqrt(n / 6)` of its size (each partial sum, of size `sqrt(j)`, is rounded
//! once); four of these, and a few roundings besides, is where we call it wrong.

use crate::plan::{BlockId, SequenceRows, StepPlan};
use crate::quant::{self, GROUP, Quantization, Quantized};
use crate::reference;
use crate::{Activation, Backend, Dtype, Error, KvDtype, KvLayout, MatrixView, RopeTable};
use half::{bf16, f16};

/// Unit roundoff of f32.
const U: f64 = 1.0 / 16_777_216.0;

/// Unit roundoff of a buffer's type, where it is less than f32.
fn rounding(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 0.0,
        Dtype::Bf16 => 1.0 / 256.0,
        Dtype::F16 => 1.0 / 2048.0,
    }
}

/// What a check needs of a backend besides its operations.
pub trait Device: Backend {
    /// Overwrites the first rows of a buffer.
    fn write(&mut self, x: &mut Self::Activations, values: &[f32]);
    /// Fills the whole arena with the byte 0xff: NaN in bf16 and f32.
    fn poison(&mut self, arena: &mut Self::Arena);
    /// What [`Backend::product_activations`] are stored as.
    fn product_dtype(&self) -> Dtype {
        Dtype::F32
    }
    /// How much of an input a product with weights of that type leaves out, of its size.
    fn input_rounding(&self, _weights: Dtype) -> f64 {
        0.0
    }
    /// What weights given as `dtype` are stored as.
    fn weight_dtype(&self, dtype: Dtype) -> Dtype {
        dtype
    }
}

/// Reproducible numbers: `hash(seed, index)` in [-1, 1).
pub fn number(seed: u64, index: u64) -> f32 {
    let bits = crate::philox::uniform_u64(seed, index) >> 40;
    bits as f32 / (1 << 23) as f32 - 1.0
}

/// `len` numbers in [-1, 1).
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64).map(|i| number(seed, i)).collect()
}

/// Numbers as a buffer of products holds them.
fn as_stored(values: &[f32], dtype: Dtype) -> Vec<f32> {
    values.iter().map(|&v| stored(v, dtype)).collect()
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The value an element has once stored as `dtype`.
fn stored(value: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => value,
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        Dtype::F16 => f16::from_f32(value).to_f32(),
    }
}

/// The bytes of a checkpoint's matrix.
pub fn matrix_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::Bf16 => values
            .iter()
            .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
            .collect(),
        Dtype::F16 => values
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect(),
    }
}

/// Runs a check over a table and names every case that fails.
///
/// # Panics
///
/// If any does.
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

/// Passes if the error is within the bound.
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

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearCase {
    /// Rows of x.
    pub rows: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Of the weights.
    pub dtype: Dtype,
    /// Whether the weights are quantised.
    pub quantized: Option<Quantization>,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the output is added to.
    pub accumulate: bool,
}

/// All linear layers to test.
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
        // Wide enough for the wide tiles of every card.
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

/// Linear layers with quantised weights.
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

/// What quantised activations stand for.
fn as_quantized(x: &[f32]) -> Vec<f32> {
    let (mut q, groups) = (vec![0; x.len()], x.len() / GROUP);
    let (mut scales, mut sums) = (vec![0.0; groups], vec![0; groups]);
    quant::quantize_row(x, &mut q, &mut scales, &mut sums);
    let number = |(at, &q): (usize, &i8)| f32::from(q) * scales[at / GROUP];
    q.iter().enumerate().map(number).collect()
}

/// Runs one linear layer and returns its output, `[rows, n]`, having checked it.
pub fn check_linear<D: Device>(device: &mut D, case: &LinearCase) -> Result<Vec<f32>, String> {
    let LinearCase { rows, n, k, .. } = *case;
    let product = device.product_dtype();
    let x = as_stored(&numbers(1, rows * k), product);
    let w = numbers(2, n * k);
    let bias = numbers(3, n);
    let old = numbers(4, rows * n);
    // Two parts, stacked, as of a fused projection; their bytes are not aligned.
    let mut bytes = vec![0xff];
    bytes.extend(matrix_bytes(&w, case.dtype));
    let (upper, lower) = bytes[1..].split_at(n / 2 * k * case.dtype.bytes());
    let part = |rows, bytes| MatrixView {
        rows,
        cols: k,
        dtype: case.dtype,
        bytes,
    };
    let parts = [part(n / 2, upper), part(n - n / 2, lower)];
    let quantized: Vec<_> = (case.quantized.iter())
        .flat_map(|&kind| parts.iter().map(move |part| Quantized::new(part, kind)))
        .collect();
    let weight = match case.quantized {
        None => device.load_matrix(&parts).map_err(fail)?,
        Some(_) => device.load_quantized(&quantized).map_err(fail)?,
    };
    let vector = device.load_vector(&bias).map_err(fail)?;
    let mut x_buffer = device.product_activations(rows + 1, k).map_err(fail)?;
    // A residual stream and logits are f32 everywhere; what feeds another product may be rounded.
    let (out, rounded) = match case.bias || case.accumulate {
        true => (device.activations(rows + 1, n), Dtype::F32),
        false => (device.product_activations(rows + 1, n), product),
    };
    let mut out = out.map_err(fail)?;

    device.write(&mut x_buffer, &[&x[..], &vec![f32::NAN; k]].concat());
    let before = if case.accumulate {
        old.clone()
    } else {
        vec![f32::NAN; rows * n]
    };
    device.write(&mut out, &[&before[..], &vec![7.0; n]].concat());
    device.linear(
        &x_buffer,
        &weight,
        case.bias.then_some(&vector),
        rows,
        case.accumulate,
        &mut out,
    );
    let pending = device.read(&out, 0..rows + 1);
    let mut out = device.finish_read(pending).map_err(fail)?;
    let beyond = out.split_off(rows * n);
    if beyond.iter().any(|&v| v != 7.0) {
        return Err("wrote beyond its rows".into());
    }
    let w: Vec<f32> = match case.quantized {
        None => w
            .iter()
            .map(|&w| stored(stored(w, case.dtype), device.weight_dtype(case.dtype)))
            .collect(),
        Some(_) => quantized.iter().flat_map(Quantized::dequantized).collect(),
    };
    let x = match case.quantized {
        None => x,
        // The sum of the products of these is what is to be computed.
        Some(_) => as_quantized(&x),
    };
    let mut expected = reference::linear(&widen(&x), &widen(&w), k);
    for (i, e) in expected.iter_mut().enumerate() {
        if case.bias {
            *e += f64::from(bias[i % n]);
        }
        if case.accumulate {
            *e += f64::from(old[i]);
        }
    }
    let inputs = match case.quantized {
        None => device.input_rounding(case.dtype),
        Some(_) => 0.0,
    };
    let bound = U * (4.0 * (k as f64 / 6.0).sqrt() + 4.0) + inputs + rounding(rounded);
    within(&out, &expected, bound)?;
    Ok(out)
}

/// `(rows, cols, k, bias)` of gated products: `cols` outputs of twice as many rows of weights.
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

/// A gated product: one of [`GATED_SHAPES`] and the activation.
pub type GatedLinearCase = ((usize, usize, usize, bool), Activation);

/// All gated products to test: every shape with SiLU, every third with GELU.
pub fn gated_linear_cases() -> Vec<GatedLinearCase> {
    let all = GATED_SHAPES.map(|shape| (shape, Activation::Silu));
    let third = GATED_SHAPES.iter().skip(2).step_by(3);
    let third = third.map(|&shape| (shape, Activation::GeluTanh));
    all.into_iter().chain(third).collect()
}

/// Runs a product whose columns are gates and then ups, and its gated activation.
pub fn check_linear_gated<D: Device>(
    device: &mut D,
    &((rows, cols, k, biased), activation): &GatedLinearCase,
) -> Result<Vec<f32>, String> {
    let product = device.product_dtype();
    let x = as_stored(&numbers(15, rows * k), product);
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
    let mut x_buffer = device.product_activations(rows + 1, k).map_err(fail)?;
    device.write(&mut x_buffer, &[&x[..], &vec![f32::NAN; k]].concat());
    let mut gate_up = device
        .product_activations(rows + 1, 2 * cols)
        .map_err(fail)?;
    device.write(&mut gate_up, &vec![f32::NAN; rows * 2 * cols]);
    let mut out = device.product_activations(rows + 1, cols).map_err(fail)?;
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
    // The product's error, in the gate (where an activation is at most 1.13 times as steep as a line)
    // and in the up; then the activation's own, as in its check. A device may round sums and output.
    let linear = U * (4.0 * (k as f64 / 6.0).sqrt() + 4.0) + device.input_rounding(Dtype::Bf16);
    let bound = 3.0 * linear + 18.0 * U + 2.0 * rounding(product);
    within(&out, &reference::gated(&sums, activation, cols), bound)?;
    Ok(out)
}

/// `(rows, cols)` of the row-wise operations.
pub const ROW_SHAPES: [(usize, usize); 8] = [
    (1, 1),
    (1, 8),
    (2, 15),
    (3, 16),
    (5, 17),
    (4, 64),
    (33, 96),
    (70, 2048),
];

/// Runs RMS normalisation.
pub fn check_rms_norm<D: Device>(
    device: &mut D,
    &(rows, cols): &(usize, usize),
) -> Result<Vec<f32>, String> {
    let eps = 1e-2;
    let x = numbers(5, rows * cols);
    let weight = numbers(6, cols);
    let vector = device.load_vector(&weight).map_err(fail)?;
    let mut x_buffer = device.activations(rows + 1, cols).map_err(fail)?;
    device.write(&mut x_buffer, &[&x[..], &vec![f32::NAN; cols]].concat());
    let mut out = device.product_activations(rows, cols).map_err(fail)?;
    device.write(&mut out, &vec![f32::NAN; rows * cols]);
    device.rms_norm(&x_buffer, &vector, eps, rows, &mut out);
    let pending = device.read(&out, 0..rows);
    let out = device.finish_read(pending).map_err(fail)?;
    let expected = reference::rms_norm(&widen(&x), &widen(&weight), f64::from(eps));
    // A sum of squares does not cancel: cols / 16 + 16 additions in the worst case.
    let bound = U * (6.0 + 0.5 * (cols as f64 / 16.0 + 16.0)) + rounding(device.product_dtype());
    within(&out, &expected, bound)?;
    Ok(out)
}

/// Runs RMS normalisation that is added to what is there, of an f32 buffer and of one of products.
pub fn check_add_rms_norm<D: Device>(
    device: &mut D,
    &(rows, cols): &(usize, usize),
) -> Result<Vec<f32>, String> {
    let eps = 1e-2;
    let weight = numbers(19, cols);
    let old = numbers(20, rows * cols);
    let vector = device.load_vector(&weight).map_err(fail)?;
    let mut outputs = Vec::new();
    for dtype in [Dtype::F32, device.product_dtype()] {
        let x = as_stored(&numbers(18, rows * cols), dtype);
        let mut x_buffer = match dtype {
            Dtype::F32 => device.activations(rows + 1, cols),
            _ => device.product_activations(rows + 1, cols),
        }
        .map_err(fail)?;
        device.write(&mut x_buffer, &[&x[..], &vec![f32::NAN; cols]].concat());
        let mut out = device.activations(rows + 1, cols).map_err(fail)?;
        device.write(&mut out, &[&old[..], &vec![7.0; cols]].concat());
        device.add_rms_norm(&x_buffer, &vector, eps, rows, &mut out);
        let pending = device.read(&out, 0..rows + 1);
        let mut out = device.finish_read(pending).map_err(fail)?;
        if out.split_off(rows * cols).iter().any(|&v| v != 7.0) {
            return Err("wrote beyond its rows".into());
        }
        let mut expected = reference::rms_norm(&widen(&x), &widen(&weight), f64::from(eps));
        for (e, &old) in expected.iter_mut().zip(&old) {
            *e += f64::from(old);
        }
        // As of the norm alone, whose numbers are about as large as the old ones, and one addition.
        let bound = U * (6.0 + 0.5 * (cols as f64 / 16.0 + 16.0) + 1.0);
        within(&out, &expected, bound)?;
        outputs.extend(out);
    }
    Ok(outputs)
}

/// Runs QK norm over rows of `heads` of Q, K and V.
pub fn check_qk_norm<D: Device>(
    device: &mut D,
    &(rows, (heads, kv_heads, head_dim)): &(usize, (usize, usize, usize)),
) -> Result<Vec<f32>, String> {
    let eps = 1e-2;
    let layout = KvLayout {
        layers: 1,
        heads,
        kv_heads,
        head_dim,
        query_scalar: head_dim,
        block_tokens: 16,
        dtype: Dtype::F32.into(),
        unit_bytes: 64,
    };
    let cols = layout.qkv_cols();
    let x = as_stored(&numbers(11, rows * cols), device.product_dtype());
    let weights = [numbers(12, head_dim), numbers(13, head_dim)];
    let [q_weight, k_weight] = [&weights[0], &weights[1]].map(|w| device.load_vector(w));
    let (q_weight, k_weight) = (q_weight.map_err(fail)?, k_weight.map_err(fail)?);
    let mut qkv = device.product_activations(rows + 1, cols).map_err(fail)?;
    device.write(&mut qkv, &[&x[..], &vec![7.0; cols]].concat());
    device.qk_norm(&mut qkv, &q_weight, &k_weight, eps, rows, &layout);
    let pending = device.read(&qkv, 0..rows + 1);
    let mut out = device.finish_read(pending).map_err(fail)?;
    if out.split_off(rows * cols).iter().any(|&v| v != 7.0) {
        return Err("wrote beyond its rows".into());
    }
    let expected: Vec<f64> = widen(&x)
        .chunks_exact(head_dim)
        .enumerate()
        .flat_map(|(i, head)| match i % (heads + 2 * kv_heads) {
            i if i < heads => reference::rms_norm(head, &widen(&weights[0]), f64::from(eps)),
            i if i < heads + kv_heads => {
                reference::rms_norm(head, &widen(&weights[1]), f64::from(eps))
            }
            _ => head.to_vec(),
        })
        .collect();
    let bound =
        U * (6.0 + 0.5 * (head_dim as f64 / 16.0 + 16.0)) + rounding(device.product_dtype());
    within(&out, &expected, bound)?;
    Ok(out)
}

/// Runs the rectifier, NaN and both zeros among its inputs.
pub fn check_relu<D: Device>(
    device: &mut D,
    &(rows, cols): &(usize, usize),
) -> Result<Vec<f32>, String> {
    let mut x = as_stored(&numbers(14, rows * cols), device.product_dtype());
    x[0] = -0.0;
    let mut buffer = device.product_activations(rows + 1, cols).map_err(fail)?;
    device.write(&mut buffer, &[&x[..], &vec![-7.0; cols]].concat());
    device.relu(&mut buffer, rows);
    let pending = device.read(&buffer, 0..rows + 1);
    let mut out = device.finish_read(pending).map_err(fail)?;
    if out.split_off(rows * cols).iter().any(|&v| v != -7.0) {
        return Err("wrote beyond its rows".into());
    }
    let expected: Vec<f64> = widen(&x).iter().map(|x| x.max(0.0)).collect();
    within(&out, &expected, 0.0)?;
    device.write(&mut buffer, &[f32::NAN]);
    device.relu(&mut buffer, 1);
    let pending = device.read(&buffer, 0..1);
    match device.finish_read(pending).map_err(fail)?[0].is_nan() {
        true => Ok(out),
        false => Err("NaN is lost".into()),
    }
}

/// All gated activations to test: `(rows, cols)` and the activation.
pub fn gated_cases() -> Vec<((usize, usize), Activation)> {
    let both = |shape| Activation::ALL.map(|activation| (shape, activation));
    ROW_SHAPES.into_iter().flat_map(both).collect()
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
    let x = as_stored(&x, device.product_dtype());
    let mut x_buffer = device
        .product_activations(rows + 1, 2 * cols)
        .map_err(fail)?;
    device.write(&mut x_buffer, &[&x[..], &vec![f32::NAN; 2 * cols]].concat());
    let mut out = device.product_activations(rows, cols).map_err(fail)?;
    device.write(&mut out, &vec![f32::NAN; rows * cols]);
    device.gated(&x_buffer, activation, rows, &mut out);
    let pending = device.read(&out, 0..rows);
    let out = device.finish_read(pending).map_err(fail)?;
    // The exponent's product with log2 e is off by u of up to 18, which is 18 ln 2 u of e^x; the
    // polynomial by 2.5 u; three more operations. GELU's exponent has four roundings in place of one,
    // but its e^x is far below 1 wherever the exponent is large.
    let bound = U * (12.5 + 2.5 + 3.0) + rounding(device.product_dtype());
    within(&out, &reference::gated(&widen(&x), activation, cols), bound)?;
    Ok(out)
}

/// One sequence of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The sequence whose whole table it begins with.
    pub parent: Option<usize>,
    /// Its own tokens, in blocks of its own. A parent's last block stays as full as it was.
    pub tokens: usize,
    /// How many of them, the last ones, are rows of the step.
    pub rows: usize,
}

/// A step over a forest of sequences.
#[derive(Clone, Debug)]
pub struct Tree {
    /// For messages.
    pub name: &'static str,
    /// Parents before children.
    pub nodes: Vec<Node>,
}

/// All trees to test.
pub fn trees() -> Vec<Tree> {
    let node = |parent, tokens, rows| Node {
        parent,
        tokens,
        rows,
    };
    let mut trees = vec![
        Tree {
            name: "one token",
            nodes: vec![node(None, 1, 1)],
        },
        Tree {
            name: "a prefill of one",
            nodes: vec![node(None, 37, 37)],
        },
        Tree {
            name: "a chunk after a prefix, at block boundaries",
            nodes: vec![node(None, 64, 32)],
        },
        Tree {
            name: "a decode row just past a block",
            nodes: vec![node(None, 33, 1)],
        },
        Tree {
            name: "siblings below a full stem",
            nodes: std::iter::once(node(None, 32, 0))
                .chain((0..7).map(|i| node(Some(0), 1 + 5 * i, 1)))
                .collect(),
        },
        Tree {
            name: "siblings below a sealed tail, one still at the stem",
            nodes: vec![
                node(None, 21, 1),
                node(Some(0), 1, 1),
                node(Some(0), 16, 2),
                node(Some(0), 40, 1),
            ],
        },
        Tree {
            name: "strangers",
            nodes: vec![node(None, 3, 1), node(None, 50, 1), node(None, 17, 9)],
        },
        Tree {
            name: "decode beside prefill of a forest",
            nodes: vec![
                node(None, 18, 0),
                node(Some(0), 30, 30),
                node(Some(0), 2, 1),
                node(Some(1), 5, 2),
                node(Some(1), 1, 1),
                node(None, 19, 19),
            ],
        },
    ];
    // Deep: every node one child; wide: 40 rows below one stem.
    trees.push(Tree {
        name: "deep",
        nodes: (0..12)
            .map(|i: usize| node(i.checked_sub(1), 1 + i * 7 % 19, 1))
            .collect(),
    });
    trees.push(Tree {
        name: "wide",
        nodes: std::iter::once(node(None, 70, 0))
            .chain((0..40).map(|i| node(Some(0), 1 + i % 3, 1)))
            .collect(),
    });
    trees
}

/// Heads, KV heads and head dimension: groups of 1 to 16, dimensions in and out of panels.
pub const HEADS: [(usize, usize, usize); 10] = [
    (1, 1, 8),
    (4, 2, 32),
    (3, 1, 16),
    (5, 5, 6),
    (8, 1, 64),
    (6, 3, 24),
    (7, 1, 128),
    (16, 1, 96),
    (4, 2, 256),
    (10, 2, 80),
];

/// Attention over a tree.
#[derive(Clone, Debug)]
pub struct AttentionCase {
    /// The step.
    pub tree: Tree,
    /// `(heads, kv_heads, head_dim)`.
    pub heads: (usize, usize, usize),
    /// Of the cache.
    pub block_tokens: usize,
    /// Of the cache.
    pub dtype: KvDtype,
    /// Tokens a row sees at most.
    pub window: Option<u32>,
    /// Scores are divided by its root.
    pub query_scalar: usize,
}

/// How K and V can be stored.
pub const KV_DTYPES: [KvDtype; 4] = [
    KvDtype::Float(Dtype::F32),
    KvDtype::Float(Dtype::Bf16),
    KvDtype::Int8,
    KvDtype::Float(Dtype::F16),
];

/// All attentions to test: every tree with every shape of heads, block sizes and types in turn, every
/// third with a sliding window.
pub fn attention_cases() -> Vec<AttentionCase> {
    let mut cases = Vec::new();
    for tree in trees() {
        for heads in HEADS {
            let turn = cases.len();
            cases.push(AttentionCase {
                tree: tree.clone(),
                heads,
                block_tokens: [16, 1, 32, 4, 2][turn % 5],
                dtype: KV_DTYPES[turn / 5 % 4],
                window: [None, None, Some([1, 7, 16, 33, 64][turn / 3 % 5])][turn % 3],
                // Some as Gemma 3 27B has it, 168 at a head dimension of 128.
                query_scalar: heads.2 + [0, 0, 0, heads.2 * 5 / 16][turn % 4],
            });
        }
    }
    cases
}

impl AttentionCase {
    /// The layout: two layers, so that a wrong stride shows.
    pub fn layout(&self) -> KvLayout {
        let (heads, kv_heads, head_dim) = self.heads;
        let mut layout = KvLayout {
            layers: 2,
            heads,
            kv_heads,
            head_dim,
            query_scalar: self.query_scalar,
            block_tokens: self.block_tokens,
            dtype: self.dtype,
            unit_bytes: 64,
        };
        layout.unit_bytes = layout.block_bytes().next_multiple_of(64);
        layout
    }

    /// The nodes from the root to `node`.
    fn path(&self, node: usize) -> Vec<usize> {
        let mut path = vec![node];
        while let Some(parent) = self.tree.nodes[path[path.len() - 1]].parent {
            path.push(parent);
        }
        path.reverse();
        path
    }

    /// Tokens before `node`'s own.
    fn before(&self, node: usize) -> usize {
        let mut path = self.path(node);
        path.pop();
        path.iter().map(|&n| self.tree.nodes[n].tokens).sum()
    }

    /// The block tables of all nodes, and the number of blocks. Ids are scattered; 0 is unused.
    #[allow(clippy::type_complexity)]
    fn tables(&self) -> (Vec<Vec<(BlockId, u32)>>, usize) {
        let total: usize = self
            .tree
            .nodes
            .iter()
            .map(|n| n.tokens.div_ceil(self.block_tokens))
            .sum();
        // Times 5 modulo a number it does not divide: a permutation.
        let modulus = (total + 1).next_multiple_of(5) + 1;
        let mut next = 0;
        let mut tables: Vec<Vec<(BlockId, u32)>> = Vec::new();
        for node in &self.tree.nodes {
            let mut table = node.parent.map_or(Vec::new(), |p| tables[p].clone());
            for first in (0..node.tokens).step_by(self.block_tokens) {
                next += 1;
                let id = BlockId((next * 5 % modulus) as u32);
                table.push((id, self.block_tokens.min(node.tokens - first) as u32));
            }
            tables.push(table);
        }
        (tables, modulus)
    }
}

/// The fused row of token `index` of `node`: Q three times as large, so that some tokens win.
fn qkv_row(layout: &KvLayout, layer: usize, node: usize, index: usize) -> Vec<f32> {
    let seed = 1000 + (node * 1_000 + index) as u64 * 2 + layer as u64;
    let mut row = numbers(seed, layout.qkv_cols());
    for q in &mut row[..layout.heads * layout.head_dim] {
        *q *= 3.0;
    }
    row
}

/// The output rows of a node, `[rows][heads * head_dim]`, by (node, row).
pub type NodeRows = Vec<((usize, usize), Vec<f32>)>;

/// Runs rope, append and attention of one layer over the nodes of `batch` only, all other tokens
/// having been written before; checks every output row.
pub fn check_attention<D: Device>(
    device: &mut D,
    case: &AttentionCase,
    batch: &[usize],
) -> Result<NodeRows, String> {
    let layout = case.layout();
    let layer = 1;
    let (tables, blocks) = case.tables();
    let mut arena = device.arena(blocks * layout.unit_bytes).map_err(fail)?;
    device.poison(&mut arena);

    let longest = 1
        + (0..case.tree.nodes.len())
            .map(|n| case.before(n) + case.tree.nodes[n].tokens)
            .max()
            .unwrap_or(0);
    let half = layout.head_dim / 2;
    let frequencies: Vec<f64> = (0..half)
        .map(|i| f64::powf(10_000.0, -(i as f64) / half as f64))
        .collect();
    let angles = |f: fn(f64) -> f64| -> Vec<f32> {
        (0..longest)
            .flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32))
            .collect()
    };
    let rope = device
        .load_rope(RopeTable {
            half_dim: half,
            cos: angles(f64::cos),
            sin: angles(f64::sin),
        })
        .map_err(fail)?;

    // Writes all of the nodes' tokens, then runs the step itself.
    let all: Vec<usize> = (0..case.tree.nodes.len()).collect();
    let all_tokens = |n: usize| case.tree.nodes[n].tokens;
    let step_tokens = |n: usize| case.tree.nodes[n].rows;
    let mut outputs = Vec::new();
    for (nodes, rows_of, last) in [
        (&all[..], &all_tokens as &dyn Fn(usize) -> usize, false),
        (batch, &step_tokens, true),
    ] {
        let tokens: Vec<Vec<u32>> = nodes.iter().map(|&n| vec![0; rows_of(n)]).collect();
        let sequences: Vec<SequenceRows<'_>> = nodes
            .iter()
            .zip(&tokens)
            .map(|(&n, tokens)| SequenceRows {
                table: &tables[n],
                tokens,
                // A first step writes; in the second, some rows' K and V are there already.
                write: !last || n % 2 == 0,
                outputs: &[],
            })
            .collect();
        let (plan, first_rows) = StepPlan::build(&sequences, layout.block_tokens);
        let rows = plan.rows.len();
        let mut qkv = vec![f32::NAN; (rows + 1) * layout.qkv_cols()];
        for ((&n, tokens), &first_row) in nodes.iter().zip(&tokens).zip(&first_rows) {
            for i in 0..tokens.len() {
                let index = case.tree.nodes[n].tokens - tokens.len() + i;
                qkv[(first_row + i) * layout.qkv_cols()..][..layout.qkv_cols()]
                    .copy_from_slice(&qkv_row(&layout, layer, n, index));
            }
        }
        let mut qkv_buffer = device
            .product_activations(rows + 1, layout.qkv_cols())
            .map_err(fail)?;
        device.write(&mut qkv_buffer, &qkv);
        let width = layout.heads * layout.head_dim;
        let mut out = device.product_activations(rows + 1, width).map_err(fail)?;
        device.write(&mut out, &vec![f32::NAN; rows * width]);
        let uploaded = device.upload(&plan).map_err(fail)?;
        device.rope_and_append(
            &mut qkv_buffer,
            &rope,
            &uploaded,
            &layout,
            layer,
            &mut arena,
        );
        if !last {
            continue;
        }
        device.tree_attention(
            &qkv_buffer,
            &uploaded,
            &layout,
            layer,
            case.window,
            &arena,
            &mut out,
        );
        let pending = device.read(&out, 0..rows);
        let out = device.finish_read(pending).map_err(fail)?;
        for ((&n, tokens), &first_row) in nodes.iter().zip(&tokens).zip(&first_rows) {
            for i in 0..tokens.len() {
                let out = out[(first_row + i) * width..][..width].to_vec();
                outputs.push(((n, i), out));
            }
        }
    }

    for ((n, i), out) in &outputs {
        let product = device.product_dtype();
        let expected = expected_row(case, &layout, layer, &frequencies, product, *n, *i);
        // Scores: D terms, then e^s of |s| up to about 16, which makes an absolute error a
        // relative one; a sum of as many terms as there are tokens; the polynomial and division.
        let d = layout.head_dim as f64;
        let bound =
            U * (16.0 * (2.0 + (d / 6.0).sqrt()) + 4.0 * (longest as f64 / 6.0).sqrt() + 8.0);
        // K is rounded after the rotation in f32: where that falls on the other side of a tie
        // than in f64, one bf16 differs by 2^-8 of itself.
        let bound = match layout.dtype {
            KvDtype::Float(Dtype::F32) => bound,
            KvDtype::Float(Dtype::Bf16 | Dtype::F16) => bound + 2e-3 / d.sqrt(),
            // As much of the largest element.
            KvDtype::Int8 => bound + 1e-2 / d.sqrt(),
        };
        // Where products are rounded, so are the weights of V and the output: each at random, by
        // about 0.4 of the roundoff.
        let bound = bound + rounding(product);
        within(out, &expected, bound).map_err(|why| format!("node {n} row {i}: {why}"))?;
    }
    Ok(outputs)
}

/// The vector of one token and head, as the cache holds it.
fn as_kv(values: &[f64], dtype: KvDtype) -> Vec<f64> {
    let floats: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    match dtype {
        KvDtype::Float(dtype) => widen(&as_stored(&floats, dtype)),
        KvDtype::Int8 => {
            let scale = floats.iter().fold(0.0f32, |a, v| a.max(v.abs())) / 127.0;
            let number = |&v: &f32| match scale == 0.0 {
                true => 0.0,
                false => f64::from((v / scale).round_ties_even()) * f64::from(scale),
            };
            floats.iter().map(number).collect()
        }
    }
}

/// What attention should give for row `i` of a node.
fn expected_row(
    case: &AttentionCase,
    layout: &KvLayout,
    layer: usize,
    frequencies: &[f64],
    product: Dtype,
    node: usize,
    i: usize,
) -> Vec<f64> {
    let d = layout.head_dim;
    let own = case.tree.nodes[node].tokens - case.tree.nodes[node].rows + i;
    let tokens: Vec<(usize, usize)> = case
        .path(node)
        .into_iter()
        .flat_map(|n| {
            let count = if n == node {
                own + 1
            } else {
                case.tree.nodes[n].tokens
            };
            (0..count).map(move |index| (n, index))
        })
        .collect();
    let first = tokens
        .len()
        .saturating_sub(case.window.unwrap_or(u32::MAX) as usize);
    let rows: Vec<Vec<f32>> = tokens
        .iter()
        .map(|&(n, index)| as_stored(&qkv_row(layout, layer, n, index), product))
        .collect();
    let rotated = |position: usize, head: usize| -> Vec<f64> {
        let mut values = widen(&rows[position][head * d..][..d]);
        reference::rope(&mut values, frequencies, position as f64);
        values
    };
    let store = |values: Vec<f64>| as_kv(&values, layout.dtype);
    let group = layout.heads / layout.kv_heads;
    (0..layout.heads)
        .flat_map(|head| {
            let kv_head = layout.heads + head / group;
            let keys: Vec<Vec<f64>> = (first..rows.len())
                .map(|p| store(rotated(p, kv_head)))
                .collect();
            let values: Vec<Vec<f64>> = rows[first..]
                .iter()
                .map(|row| {
                    let v = &row[(kv_head + layout.kv_heads) * d..][..d];
                    store(widen(v))
                })
                .collect();
            let q: Vec<f64> = rotated(rows.len() - 1, head)
                .into_iter()
                .map(|v| f64::from(stored(v as f32, product)))
                .collect();
            reference::attention(&q, &keys, &values, layout.query_scalar as f64)
        })
        .collect()
}
