//! Mistral: Llama whose layers see a sliding window of positions, unless the config says `null`.

use super::{Architecture, Biases, Task, WINDOW_LIMIT, llama};

/// transformers' default where the config doesn't have the field at all.
const WINDOW: u32 = 4096;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "mistral",
    classes: &[
        ("MistralForCausalLM", Task::Causal),
        ("MistralForTokenClassification", Task::TokenClassification),
    ],
    biases: |_| Ok(Biases::default()),
    windows: |config, layers| {
        let window = if config.has("sliding_window") {
            config.count("sliding_window", WINDOW_LIMIT)?
        } else {
            Some(WINDOW as usize)
        };
        Ok(vec![window.map(|window| window as u32); layers])
    },
    ..llama::ARCHITECTURE
};
