//! Qwen2 and Qwen2.5: Llama with biases on query, key and value, and sliding windows that no
//! published config of theirs turns on. The math PRMs made of it have heads of their own.

use super::{Architecture, Biases, Task, WINDOW_LIMIT, llama};
use crate::checkpoint::json::Fields;
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen2",
    classes: &[
        ("Qwen2ForCausalLM", Task::Causal),
        ("Qwen2ForTokenClassification", Task::TokenClassification),
        ("Qwen2ForPrmModel", Task::Value),
        ("Qwen2ForProcessRewardModel", Task::Process),
    ],
    biases: |_| {
        Ok(Biases {
            qkv: true,
            output: false,
            mlp: false,
        })
    },
    windows,
    ..llama::ARCHITECTURE
};

/// If `use_sliding_window`, the layers that `layer_types` lists as `sliding_attention` have the
/// window; without a list those from `max_window_layers` on.
pub(super) fn windows(config: &Fields, layers: usize) -> Result<Vec<Option<u32>>> {
    let full = vec![None; layers];
    if !config.boolean("use_sliding_window")?.unwrap_or(false) {
        return Ok(full);
    }
    let Some(window) = config.count("sliding_window", WINDOW_LIMIT)? else {
        return Ok(full);
    };
    let window = window as u32;
    if let Some(windows) = super::windows_by_type(config, layers, window)? {
        return Ok(windows);
    }
    let first = config.whole("max_window_layers")?.unwrap_or(28);
    let windowed = |layer| (layer >= first).then_some(window);
    Ok((0..layers).map(windowed).collect())
}
