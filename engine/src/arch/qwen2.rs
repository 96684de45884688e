//! Qwen2 and Qwen2.5: Llama with biases on query, key and value, and a sliding window that no
//! published config of theirs turns on.

use super::{Architecture, Biases, LLAMA_NAMES};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    causal: "Qwen2ForCausalLM",
    token_classification: "Qwen2ForTokenClassification",
    names: &LLAMA_NAMES,
    biases: |_| {
        Ok(Biases {
            qkv: true,
            output: false,
            mlp: false,
        })
    },
    check: |config| {
        let window = config
            .get("sliding_window")
            .and_then(|value| value.as_u64());
        let context = config
            .get("max_position_embeddings")
            .and_then(|value| value.as_u64());
        // A window as long as the context hides nothing.
        let narrow = window.is_some() && window < context;
        let listed = config
            .get("layer_types")
            .and_then(|value| value.as_array())
            .map(|types| types.iter().any(|kind| kind != "full_attention"));
        // Without a list, layers from max_window_layers on have the window, if it is used.
        let layers = config
            .get("num_hidden_layers")
            .and_then(|value| value.as_u64());
        let first = config
            .get("max_window_layers")
            .and_then(|value| value.as_u64())
            .unwrap_or(28);
        let unlisted = || layers.is_some_and(|layers| first < layers);
        if config.boolean("use_sliding_window")?.unwrap_or(false)
            && narrow
            && listed.unwrap_or_else(unlisted)
        {
            return Err(config.wrong(
                "use_sliding_window",
                "false: sliding windows are not supported",
            ));
        }
        Ok(())
    },
};
