//! Quantised matrices in a checkpoint: how a config and the tensors describe them.
//!
//! The form is that of the `compressed-tensors` package in its format `pack-quantized`
//! (<https://github.com/neuralmagic/compressed-tensors>), which vLLM and transformers read too:
//! weights of 8 or 4 bits, symmetric, in groups of 32 along the input features. Instead of
//! `X.weight` a checkpoint has `X.weight_packed` (`[rows, cols * bits / 32]` int32, the first
//! integer in the lowest bits, each plus 128 or 8), `X.weight_scale` (`[rows, cols / 32]` bf16) and
//! `X.weight_shape`. [`crate::Options::quantize`] makes the same integers of a float checkpoint;
//! [`super::quantize`] writes them.

use kernels::Quantization;
use kernels::quant::GROUP;
use safetensors::Dtype;
use serde_json::Value;

use super::json::Fields;
use crate::error::Result;

pub(super) const FIELD: &str = "quantization_config";
pub(super) const METHOD: &str = "compressed-tensors";
pub(super) const FORMAT: &str = "pack-quantized";

/// What a config says of its matrices.
pub(crate) fn of_config(fields: &Fields) -> Result<Option<Quantization>> {
    let Some(config) = fields.object(FIELD)? else {
        return Ok(None);
    };
    if config.string("quant_method")? != Some(METHOD) {
        return Err(config.wrong("quant_method", format!("\"{METHOD}\"")));
    }
    if config.string("format")? != Some(FORMAT) {
        return Err(config.wrong("format", format!("\"{FORMAT}\"")));
    }
    let groups = (config.object("config_groups")?)
        .ok_or_else(|| config.wrong("config_groups", "an object"))?;
    let names: Vec<_> = groups.entries().map(|(name, _)| name.clone()).collect();
    let [name] = &names[..] else {
        return Err(config.wrong("config_groups", "one group"));
    };
    let group = (groups.object(name)?).ok_or_else(|| groups.wrong(name, "an object"))?;
    let weights = (group.object("weights")?)
        .ok_or_else(|| group.wrong("weights", "how weights are quantised"))?;
    for (field, expected) in [("type", "int"), ("strategy", "group")] {
        if weights.string(field)? != Some(expected) {
            return Err(weights.wrong(field, format!("\"{expected}\"")));
        }
    }
    if weights.boolean("symmetric")? != Some(true) {
        return Err(weights.wrong("symmetric", "true"));
    }
    if weights.count("group_size", 1 << 20)? != Some(GROUP) {
        return Err(weights.wrong("group_size", GROUP.to_string()));
    }
    let order = weights.get("actorder").and_then(Value::as_str);
    if order.is_some_and(|order| order != "static" && order != "weight") {
        return Err(weights.wrong("actorder", "none: columns in their own order"));
    }
    match weights.count("num_bits", 64)? {
        Some(8) => Ok(Some(Quantization::Int8)),
        Some(4) => Ok(Some(Quantization::Int4)),
        _ => Err(weights.wrong("num_bits", "8 or 4")),
    }
}

/// A tensor of a quantised matrix.
pub(crate) struct StoredTensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// The tensors that stand for the matrix `[rows, cols]` that `name` would be: integers, scales, shape.
pub(crate) fn parts(name: &str, kind: Quantization, rows: usize, cols: usize) -> [StoredTensor; 3] {
    let part = |suffix: &str, dtype, shape: &[usize]| StoredTensor {
        name: format!("{name}_{suffix}"),
        dtype,
        shape: shape.to_vec(),
    };
    [
        part("packed", Dtype::I32, &[rows, cols * kind.bits() / 32]),
        part("scale", Dtype::BF16, &[rows, cols / GROUP]),
        part("shape", Dtype::I64, &[2]),
    ]
}
