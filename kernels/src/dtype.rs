//! Storage types of weights and of the KV cache.

use half::{bf16, f16};

/// A floating-point storage type. Accumulation is always in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16, the upper 16 bits of a binary32: 8 exponent bits, 7 fraction bits.
    Bf16,
    /// IEEE 754 binary16.
    F16,
}

impl Dtype {
    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// The value of this type that is nearest to `value`, ties to even.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Dtype::F32 => value,
            Dtype::Bf16 => bf16::from_f32(value).to_f32(),
            Dtype::F16 => f16::from_f32(value).to_f32(),
        }
    }

    /// The name used in checkpoints' configs and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        }
    }
}

/// The storage type of K and V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// Floating point.
    Float(Dtype),
    /// 8 bits: the vector of one token and head is `scale * q`, with `q` in -127..=127 and an f32
    /// scale, the vector's largest magnitude / 127.
    Int8,
}

impl KvDtype {
    /// Bytes of one token's vector of one head.
    pub const fn vector_bytes(self, head_dim: usize) -> usize {
        match self {
            KvDtype::Float(dtype) => head_dim * dtype.bytes(),
            // Padded, so that the scales after the elements are aligned.
            KvDtype::Int8 => head_dim.next_multiple_of(4) + size_of::<f32>(),
        }
    }

    /// The name used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            KvDtype::Float(dtype) => dtype.name(),
            KvDtype::Int8 => "int8",
        }
    }
}

impl From<Dtype> for KvDtype {
    fn from(dtype: Dtype) -> KvDtype {
        KvDtype::Float(dtype)
    }
}
