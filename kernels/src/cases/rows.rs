//! Row-wise operations: their shapes and their checks.

use super::inputs::{as_stored, numbers, widen};
use super::{Device, U, fail, rounding, within};
use crate::reference;
use crate::{Dtype, KvLayout};

/// `(rows, cols)` of the row-wise operations to test.
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
    let mut out = device.half_activations(rows, cols).map_err(fail)?;
    device.write(&mut out, &vec![f32::NAN; rows * cols]);
    device.rms_norm(&x_buffer, &vector, eps, rows, &mut out);
    let pending = device.read(&out, 0..rows);
    let out = device.finish_read(pending).map_err(fail)?;
    let expected = reference::rms_norm(&widen(&x), &widen(&weight), f64::from(eps));
    // A sum of squares does not cancel: cols / 16 + 16 additions in the worst case.
    let bound = U * (6.0 + 0.5 * (cols as f64 / 16.0 + 16.0)) + rounding(device.half_dtype());
    within(&out, &expected, bound)?;
    Ok(out)
}

/// Runs RMS normalisation whose output is added to `out`, with an f32 input and a half one.
pub fn check_add_rms_norm<D: Device>(
    device: &mut D,
    &(rows, cols): &(usize, usize),
) -> Result<Vec<f32>, String> {
    let eps = 1e-2;
    let weight = numbers(19, cols);
    let old = numbers(20, rows * cols);
    let vector = device.load_vector(&weight).map_err(fail)?;
    let mut outputs = Vec::new();
    for dtype in [Dtype::F32, device.half_dtype()] {
        let x = as_stored(&numbers(18, rows * cols), dtype);
        let mut x_buffer = match dtype {
            Dtype::F32 => device.activations(rows + 1, cols),
            _ => device.half_activations(rows + 1, cols),
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
        // The norm's bound, and one addition.
        let bound = U * (6.0 + 0.5 * (cols as f64 / 16.0 + 16.0) + 1.0);
        within(&out, &expected, bound)?;
        outputs.extend(out);
    }
    Ok(outputs)
}

/// Runs QK norm over rows of Q, K and V with `(heads, kv_heads, head_dim)`.
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
    let x = as_stored(&numbers(11, rows * cols), device.half_dtype());
    let weights = [numbers(12, head_dim), numbers(13, head_dim)];
    let [q_weight, k_weight] = [&weights[0], &weights[1]].map(|w| device.load_vector(w));
    let (q_weight, k_weight) = (q_weight.map_err(fail)?, k_weight.map_err(fail)?);
    let mut qkv = device.half_activations(rows + 1, cols).map_err(fail)?;
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
    let bound = U * (6.0 + 0.5 * (head_dim as f64 / 16.0 + 16.0)) + rounding(device.half_dtype());
    within(&out, &expected, bound)?;
    Ok(out)
}

/// Runs ReLU, with NaN and both zeros among its inputs.
pub fn check_relu<D: Device>(
    device: &mut D,
    &(rows, cols): &(usize, usize),
) -> Result<Vec<f32>, String> {
    let mut x = as_stored(&numbers(14, rows * cols), device.half_dtype());
    x[0] = -0.0;
    let mut buffer = device.half_activations(rows + 1, cols).map_err(fail)?;
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
    if device.finish_read(pending).map_err(fail)?[0].is_nan() {
        Ok(out)
    } else {
        Err("NaN is lost".into())
    }
}
