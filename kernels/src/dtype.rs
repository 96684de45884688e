//! Storage types of weights and of the KV cache.

/// How numbers are stored. Products and sums are always accumulated in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// The upper 16 bits of a binary32: 8 exponent bits, 7 fraction bits.
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

    /// The name used in checkpoints' configs and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        }
    }
}
