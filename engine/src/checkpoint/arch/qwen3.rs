//! Qwen3, dense: Qwen2 without the biases and with an RMS norm on every query and key head.

use super::{Architecture, Biases, Task, llama, qwen2};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen3",
    classes: &[
        ("Qwen3ForCausalLM", Task::Causal),
        ("Qwen3ForTokenClassification", Task::TokenClassification),
    ],
    qk_norm: true,
    head_dim: Some(128),
    biases: |config| {
        let attention = config.boolean("attention_bias")?.unwrap_or(false);
        Ok(Biases {
            qkv: attention,
            output: attention,
            mlp: false,
        })
    },
    windows: qwen2::windows,
    ..llama::ARCHITECTURE
};
