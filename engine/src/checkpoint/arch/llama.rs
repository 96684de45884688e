//! Llama 2 and 3, and the many models that are Llamas in all but name.
//!
//! Biases only where the config has them: `attention_bias` (all four projections) and `mlp_bias`.

use kernels::Activation;

use super::{Architecture, Biases, LLAMA_NAMES, Scales, Task};
use crate::checkpoint::rope;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "llama",
    classes: &[
        ("LlamaForCausalLM", Task::Causal),
        ("LlamaForTokenClassification", Task::TokenClassification),
    ],
    names: &LLAMA_NAMES,
    qk_norm: false,
    head_dim: None,
    activation: Activation::Silu,
    tied_embeddings: false,
    biases: |config| {
        let attention = config.boolean("attention_bias")?.unwrap_or(false);
        let mlp = config.boolean("mlp_bias")?.unwrap_or(false);
        Ok(Biases {
            qkv: attention,
            output: attention,
            mlp,
        })
    },
    // transformers' Llama ignores a `sliding_window` in the config.
    windows: |_, layers| Ok(vec![None; layers]),
    ropes: |config, windows| Ok(vec![rope::read(config, 10_000.0)?; windows.len()]),
    norm_offset: 0.0,
    scales: |_, _, head_dim| Ok(Scales::plain(head_dim)),
};
