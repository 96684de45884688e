//! Llama 2 and 3, and the many models that are Llamas in all but name.
//!
//! Biases only where the config asks: `attention_bias` (all four projections) and `mlp_bias`.

use super::{Architecture, Biases, LLAMA_NAMES, Task};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    classes: &[
        ("LlamaForCausalLM", Task::Causal),
        ("LlamaForTokenClassification", Task::TokenClassification),
    ],
    names: &LLAMA_NAMES,
    qk_norm: false,
    head_dim: None,
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
    windows: |_, layers| Ok(vec![None; layers]),
};
