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

/// How K and V are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// In floating point.
    Float(Dtype),
    /// In 8 bits: the vector of one token and head is `scale * q`, `q` in -127..=127, the scale (f32)
    /// its largest magnitude / 127.
    Int8,
}

impl KvDtype {
    /// Bytes of the vector of one token and head.
    pub const fn vector_bytes(self, head_dim: usize) -> usize {
        match self {
            KvDtype::Float(dtype) => head_dim * dtype.bytes(),
            // The scales behind the elements are aligned.
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
