//! Quantisation of weights and activations, independent of the device.
//!
//! A matrix is quantised row by row in groups of [`GROUP`] input features. A group has a scale `s`
//! and integers `q`, and represents `s * q`. Scales are bf16, as checkpoints store them, and are
//! rounded before the integers are computed. So a matrix quantised at loading and one stored
//! quantised hold the same numbers.
//!
//! - *int8*: `q` in -127..=127, `s` = largest magnitude / 127 (GGML's `Q8_0`).
//! - *int4*: `q` in -8..=7, `s` near the element of largest magnitude / -8, with its sign (GGML's
//!   `Q4_0`): the one of five such scales with the smallest squared error.
//!
//! The linear layer that reads activations quantises them ([`quantize_row`]): int8 in the same
//! groups, with f32 scales. A group's dot product is then a sum of integers, exact in any order.

use std::borrow::Cow;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::exp2::ROUND;
use crate::{Dtype, MatrixView};

/// Input features that share a scale.
pub const GROUP: usize = 32;

/// The integer type of quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// 8 bits, and a scale per [`GROUP`].
    Int8,
    /// 4 bits, and a scale per [`GROUP`].
    Int4,
}

impl Quantization {
    /// Both types.
    pub const ALL: [Quantization; 2] = [Quantization::Int8, Quantization::Int4];

    /// Its name in settings and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Quantization::Int8 => "int8",
            Quantization::Int4 => "int4",
        }
    }

    /// Bits of one weight, without its share of the scale.
    pub const fn bits(self) -> usize {
        match self {
            Quantization::Int8 => 8,
            Quantization::Int4 => 4,
        }
    }

    /// Whether a matrix of `cols` input features can be quantised: `cols` must be whole groups.
    pub const fn fits(self, cols: usize) -> bool {
        cols > 0 && cols.is_multiple_of(GROUP)
    }
}

/// A quantised matrix, row-major, as checkpoints store it.
#[derive(Clone, Debug)]
pub struct QuantizedMatrix<'a> {
    /// Rows: output features.
    pub rows: usize,
    /// Columns: input features, a multiple of [`GROUP`].
    pub cols: usize,
    /// Type of the integers.
    pub kind: Quantization,
    /// `[rows, cols]` biased integers: int8 plus 128, a byte each; int4 plus 8, two to a byte, the
    /// even column in the low half. (`pack-quantized` of `compressed-tensors`.)
    pub values: Cow<'a, [u8]>,
    /// `[rows, cols / GROUP]` little-endian bf16.
    pub scales: Cow<'a, [u8]>,
}

impl QuantizedMatrix<'_> {
    /// Quantises a matrix.
    ///
    /// # Panics
    ///
    /// If its columns are not whole groups ([`Quantization::fits`]), or its bytes are too few.
    pub fn new(matrix: &MatrixView<'_>, kind: Quantization) -> QuantizedMatrix<'static> {
        let (rows, cols) = (matrix.rows, matrix.cols);
        assert!(kind.fits(cols), "{cols} columns in groups of {GROUP}");
        let width = cols * matrix.dtype.bytes();
        let mut values = vec![0; rows * cols * kind.bits() / 8];
        let mut scales = vec![0; rows * cols / GROUP * 2];
        (values.par_chunks_exact_mut(cols * kind.bits() / 8))
            .zip(scales.par_chunks_exact_mut(cols / GROUP * 2))
            .zip(matrix.bytes[..rows * width].par_chunks_exact(width))
            .for_each(|((values, scales), bytes)| {
                let mut group = [0.0; GROUP];
                for (g, bytes) in bytes.chunks_exact(GROUP * matrix.dtype.bytes()).enumerate() {
                    widen(matrix.dtype, bytes, &mut group);
                    let values = &mut values[g * GROUP * kind.bits() / 8..];
                    let scale = match kind {
                        Quantization::Int8 => int8(&group, values),
                        Quantization::Int4 => int4(&group, values),
                    };
                    scales[2 * g..][..2].copy_from_slice(&scale.to_le_bytes());
                }
            });
        QuantizedMatrix {
            rows,
            cols,
            kind,
            values: values.into(),
            scales: scales.into(),
        }
    }

    /// The integer at `row`, `col`.
    pub fn value(&self, row: usize, col: usize) -> i8 {
        let index = row * self.cols + col;
        match self.kind {
            Quantization::Int8 => (self.values[index] ^ 128) as i8,
            Quantization::Int4 => (self.values[index / 2] >> (index % 2 * 4) & 15) as i8 - 8,
        }
    }

    /// The scale of `row`'s group `group`.
    pub fn scale(&self, row: usize, group: usize) -> bf16 {
        let offset = 2 * (row * (self.cols / GROUP) + group);
        bf16::from_le_bytes([self.scales[offset], self.scales[offset + 1]])
    }

    /// Row `row`, dequantised, `[cols]`.
    pub fn row(&self, row: usize) -> impl Iterator<Item = f32> {
        (0..self.cols)
            .map(move |col| self.scale(row, col / GROUP).to_f32() * f32::from(self.value(row, col)))
    }

    /// The whole matrix, dequantised, `[rows, cols]`.
    pub fn dequantized(&self) -> Vec<f32> {
        (0..self.rows).flat_map(|row| self.row(row)).collect()
    }
}

/// A checkpoint's numbers as f32.
fn widen(dtype: Dtype, bytes: &[u8], out: &mut [f32; GROUP]) {
    match dtype {
        Dtype::F32 => (out.iter_mut().zip(bytes.chunks_exact(4)))
            .for_each(|(o, b)| *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        Dtype::Bf16 => (out.iter_mut().zip(bytes.chunks_exact(2)))
            .for_each(|(o, b)| *o = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
        Dtype::F16 => (out.iter_mut().zip(bytes.chunks_exact(2)))
            .for_each(|(o, b)| *o = f16::from_le_bytes([b[0], b[1]]).to_f32()),
    }
}

/// The largest magnitude; NaN if a value is NaN. (Magnitudes are ordered like their bits, and NaN
/// is the largest.)
pub(crate) fn largest(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().fold(0, |a, v| a.max(v.abs().to_bits())))
}

/// `1 / scale`, or 0 if that is not finite, so that the integers of a zero or NaN scale are 0.
pub(crate) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The nearest integer, ties to even, of a number of magnitude below 2^22. (Unlike a cast it has no
/// special cases, so that the compiler vectorises loops of it.)
pub(crate) fn round(x: f32) -> i32 {
    (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

fn int8(group: &[f32; GROUP], out: &mut [u8]) -> bf16 {
    let scale = bf16::from_f32(largest(group) / 127.0);
    let inverse = inverse(scale.to_f32());
    for (out, w) in out.iter_mut().zip(group) {
        *out = (round(w * inverse).clamp(-127, 127) + 128) as u8;
    }
    scale
}

fn int4(group: &[f32; GROUP], out: &mut [u8]) -> bf16 {
    // The order of [`largest`], but the sign is kept.
    let above = |w: f32, a: f32| w.abs().to_bits() > a.abs().to_bits();
    let largest = (group.iter()).fold(0.0f32, |a, &w| if above(w, a) { w } else { a });
    let code = |w: f32, inverse: f32| round(w * inverse).clamp(-8, 7);
    // The scale that represents the largest element exactly, and slightly smaller and larger ones.
    let scales = [-8.0, -8.6, -8.3, -7.7, -7.4].map(|n| bf16::from_f32(largest / n));
    let squared_error = |scale: bf16| {
        let (scale, inverse) = (scale.to_f32(), inverse(scale.to_f32()));
        let error = |w: f32| w - scale * code(w, inverse) as f32;
        // Eight independent sums, so that the compiler vectorises the loop.
        let mut sums = [0.0f32; 8];
        for eight in group.chunks_exact(8) {
            for (sum, &w) in sums.iter_mut().zip(eight) {
                *sum += error(w) * error(w);
            }
        }
        sums.iter().sum::<f32>()
    };
    let best = scales
        .iter()
        .map(|&scale| (squared_error(scale), scale))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let scale = best.map_or(bf16::ZERO, |(_, scale)| scale);
    let inverse = inverse(scale.to_f32());
    let code = |w: f32| (code(w, inverse) + 8) as u8;
    for (out, w) in out.iter_mut().zip(group.chunks_exact(2)) {
        *out = code(w[0]) | code(w[1]) << 4;
    }
    scale
}

/// Quantises activations `[k]` to `q` and, for every group, the scale and the sum of `q`. The scale
/// of a group that contains an infinity or NaN is NaN.
///
/// # Panics
///
/// If the lengths are not `k`, `k` and two times `k / GROUP`.
pub fn quantize_row(x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    assert!(x.len() == q.len() && x.len() == scales.len() * GROUP && scales.len() == sums.len());
    for (((x, q), scale), sum) in (x.chunks_exact(GROUP).zip(q.chunks_exact_mut(GROUP)))
        .zip(scales)
        .zip(sums)
    {
        let largest = largest(x);
        if !largest.is_finite() {
            (*scale, *sum) = (f32::NAN, 0);
            q.fill(0);
            continue;
        }
        *scale = largest / 127.0;
        let inverse = inverse(*scale);
        *sum = 0;
        for (q, x) in q.iter_mut().zip(x) {
            let value = round(x * inverse);
            *q = value as i8;
            *sum += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{matrix_bytes, numbers};

    /// Every number is within half a quantisation step of its quantised value (a whole one for
    /// int4).
    #[test]
    fn numbers_are_within_half_a_step() {
        let (rows, cols) = (5, 96);
        let mut w = numbers(3, rows * cols);
        w[..GROUP].fill(0.0); // nothing to scale by
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let bytes = matrix_bytes(&w, dtype);
            let matrix = MatrixView {
                rows,
                cols,
                dtype,
                bytes: &bytes,
            };
            for (kind, steps) in [(Quantization::Int8, 0.5), (Quantization::Int4, 1.0)] {
                let q = QuantizedMatrix::new(&matrix, kind);
                let back = q.dequantized();
                assert!(back[..GROUP].iter().all(|&v| v == 0.0));
                for (i, (&back, &w)) in back.iter().zip(&w).enumerate() {
                    let step = q.scale(i / cols, i % cols / GROUP).to_f32().abs();
                    // 1/64: bf16 of the numbers and of the scale.
                    let bound = step * steps + w.abs() / 64.0 + 1e-9;
                    assert!((back - w).abs() <= bound, "{kind:?} {i}: {w} {back}");
                }
            }
        }
    }

    #[test]
    fn a_nan_weight_makes_its_group_nan() {
        let mut w = vec![0.5; 2 * GROUP];
        w[GROUP + 7] = f32::NAN;
        let bytes = matrix_bytes(&w, Dtype::F32);
        let matrix = MatrixView {
            rows: 1,
            cols: 2 * GROUP,
            dtype: Dtype::F32,
            bytes: &bytes,
        };
        for kind in Quantization::ALL {
            let back = QuantizedMatrix::new(&matrix, kind).dequantized();
            assert!(back[..GROUP].iter().all(|v| v.is_finite()), "{kind:?}");
            assert!(back[GROUP..].iter().all(|v| v.is_nan()), "{kind:?}");
        }
    }

    #[test]
    fn nan_and_infinite_activations_give_nan_scales() {
        let mut x = vec![f32::MIN_POSITIVE / 4.0; GROUP];
        x.extend([1.0; GROUP]);
        x.extend([1.0; GROUP]);
        (x[GROUP + 3], x[2 * GROUP + 9]) = (f32::NAN, f32::NEG_INFINITY);
        let (mut q, mut scales, mut sums) = ([9; 3 * GROUP], [0.0f32; 3], [9; 3]);
        quantize_row(&x, &mut q, &mut scales, &mut sums);
        assert_eq!(q, [0; 3 * GROUP]);
        assert_eq!(sums, [0; 3]);
        assert_eq!(scales.map(f32::is_nan), [false, true, true]);
    }
}
