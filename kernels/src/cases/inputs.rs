//! Reproducible inputs, and how storage types round them.

use crate::Dtype;
use half::{bf16, f16};

/// Reproducible numbers: `hash(seed, index)` in [-1, 1).
pub fn number(seed: u64, index: u64) -> f32 {
    let bits = crate::philox::uniform_u64(seed, index) >> 40;
    bits as f32 / (1 << 23) as f32 - 1.0
}

/// `len` numbers in [-1, 1).
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64).map(|i| number(seed, i)).collect()
}

/// Numbers after rounding to a storage type.
pub(super) fn as_stored(values: &[f32], dtype: Dtype) -> Vec<f32> {
    values.iter().map(|&v| stored(v, dtype)).collect()
}

/// Numbers as f64.
pub(super) fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// A number after rounding to a storage type.
pub(super) fn stored(value: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => value,
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        Dtype::F16 => f16::from_f32(value).to_f32(),
    }
}

/// A matrix as a checkpoint stores it, little-endian.
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
