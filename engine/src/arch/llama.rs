//! Llama 2 and 3, and the many models that are Llamas in all but name.
//!
//! Biases only where the config asks: `attention_bias` (all four projections) and `mlp_bias`.

use super::{Architecture, Biases, LLAMA_NAMES};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    causal: "LlamaForCausalLM",
    token_classification: "LlamaForTokenClassification",
    names: &LLAMA_NAMES,
    biases: |config| {
        let attention = config.boolean("attention_bias")?.unwrap_or(false);
        let mlp = config.boolean("mlp_bias")?.unwrap_or(false);
        Ok(Biases {
            qkv: attention,
            output: attention,
            mlp,
        })
    },
    // transformers' Llama knows no sliding window, whatever the config says.
    check: |_| Ok(()),
};
