//! Quantised matrices in a container: the format `pack-quantized` of `compressed-tensors`
//! (<https://github.com/neuralmagic/compressed-tensors>).
//!
//! In place of `X.weight` a checkpoint has `X.weight_packed` (`[rows, cols * bits / 32]` int32, the
//! first integer in the lowest bits, each plus 128 or 8), `X.weight_scale` (`[rows, cols / 32]`
//! bf16) and `X.weight_shape`. [`crate::Options::quantize`] makes the same integers of a float
//! checkpoint on loading; [`super::quantize`] writes them.

use kernels::quant::GROUP;
use kernels::{Dtype, Quantization, QuantizedMatrix};

use super::container::{StoredDtype, Tensors};
use super::layout::TensorSpec;
use crate::error::Result;

/// A tensor of a quantised matrix.
pub(super) struct Part {
    pub name: String,
    pub dtype: StoredDtype,
    pub shape: Vec<usize>,
}

/// The tensors that stand for a matrix: integers, scales, shape.
pub(super) fn parts(matrix: &TensorSpec, kind: Quantization) -> [Part; 3] {
    let &[rows, cols] = &matrix.shape[..] else {
        unreachable!("{} is a matrix", matrix.name)
    };
    let part = |suffix: &str, dtype, shape: &[usize]| Part {
        name: format!("{}_{suffix}", matrix.name),
        dtype,
        shape: shape.to_vec(),
    };
    [
        part("packed", StoredDtype::I32, &[rows, cols * kind.bits() / 32]),
        part(
            "scale",
            StoredDtype::Float(Dtype::Bf16),
            &[rows, cols / GROUP],
        ),
        part("shape", StoredDtype::I64, &[2]),
    ]
}

/// Whether a tensor is stored as a quantised matrix.
pub(super) fn is_stored(tensors: &Tensors, spec: &TensorSpec, kind: Quantization) -> bool {
    spec.quantizable && kind.fits(spec.cols()) && tensors.contains(&parts(spec, kind)[0].name)
}

/// The matrix that `spec` describes, if it is stored quantised as the config says.
///
/// # Errors
/// Parts that are missing or have another shape or type.
pub(super) fn find<'a>(
    tensors: &'a Tensors,
    spec: &TensorSpec,
    kind: Option<Quantization>,
) -> Result<Option<QuantizedMatrix<'a>>> {
    let Some(kind) = kind.filter(|&kind| is_stored(tensors, spec, kind)) else {
        return Ok(None);
    };
    let bytes = |part: &Part| {
        let (entry, bytes) = tensors.find(&part.name, &part.shape, "a quantised matrix")?;
        if entry.dtype == part.dtype {
            Ok(bytes)
        } else {
            Err(tensors.wrong_dtype(&part.name, part.dtype.name()))
        }
    };
    let [values, scales, _] = parts(spec, kind);
    Ok(Some(QuantizedMatrix {
        rows: spec.rows(),
        cols: spec.cols(),
        kind,
        values: bytes(&values)?.into(),
        scales: bytes(&scales)?.into(),
    }))
}
