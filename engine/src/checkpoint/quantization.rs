//! `quantization_config`: how a config says that matrices are quantised.
//!
//! The form is that of the `compressed-tensors` package in its format `pack-quantized`
//! (<https://github.com/neuralmagic/compressed-tensors>), which vLLM and transformers read too:
//! weights of 8 or 4 bits, symmetric, in groups of 32 along the input features. The tensors are
//! described in [`super::packed`].

use kernels::Quantization;
use kernels::quant::GROUP;
use serde_json::{Value, json};

use super::json::Fields;
use crate::error::Result;

/// The field's name.
pub(super) const FIELD: &str = "quantization_config";
const METHOD: &str = "compressed-tensors";
const FORMAT: &str = "pack-quantized";

/// Reads the field.
///
/// # Errors
/// A form other than the one described above.
pub(super) fn of_config(fields: &Fields) -> Result<Option<Quantization>> {
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

/// The field's value for matrices in `kind`; `ignored` are modules that are left unchanged.
pub(super) fn to_config<'a>(kind: Quantization, ignored: impl Iterator<Item = &'a str>) -> Value {
    json!({
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": kind.bits(),
                "type": "int",
                "symmetric": true,
                "strategy": "group",
                "group_size": GROUP,
                "dynamic": false,
            },
            "input_activations": null,
            "output_activations": null,
        }},
        "ignore": ignored.collect::<Vec<_>>(),
    })
}
