//! Mistral: Llama whose layers see a sliding window of positions, unless the config says `null`.

use super::{Architecture, Biases, LLAMA_NAMES, Task, WINDOW_LIMIT};

/// transformers' default where the config doesn't have the field at all.
const WINDOW: u32 = 4096;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    classes: &[
        ("MistralForCausalLM", Task::Causal),
        ("MistralForTokenClassification", Task::TokenClassification),
    ],
    names: &LLAMA_NAMES,
    qk_norm: false,
    head_dim: None,
    biases: |_| Ok(Biases::default()),
    windows: |config, layers| {
        let window = match config.has("sliding_window") {
            true => config.count("sliding_window", WINDOW_LIMIT)?,
            false => Some(WINDOW as usize),
        };
        Ok(vec![window.map(|window| window as u32); layers])
    },
};
