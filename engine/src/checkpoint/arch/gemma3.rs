//! Gemma 3, text only (Gemma Team 2025, arXiv 2503.19786): GeGLU, QK norms, norms on both sides of
//! attention and of the feed-forward network with weights of `1 + w`, a scaled embedding, and five
//! layers with a sliding window and a rotary embedding of their own for each layer without.

use kernels::Activation;

use super::{Architecture, Biases, LLAMA_NAMES, Scales, Task, TensorNames, WINDOW_LIMIT};
use crate::checkpoint::json::Fields;
use crate::checkpoint::rope::{self, Rope, RopeScaling};
use crate::error::Result;

static NAMES: TensorNames = TensorNames {
    attention_post_norm: Some("model.layers.{i}.post_attention_layernorm.weight"),
    mlp_norm: "model.layers.{i}.pre_feedforward_layernorm.weight",
    mlp_post_norm: Some("model.layers.{i}.post_feedforward_layernorm.weight"),
    ..LLAMA_NAMES
};

// transformers' defaults where a config has no such field.
const WINDOW: usize = 4096;
const PATTERN: usize = 6;
const QUERY_SCALAR: usize = 256;
const GLOBAL_THETA: f64 = 1_000_000.0;
const LOCAL_THETA: f64 = 10_000.0;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma3_text",
    classes: &[("Gemma3ForCausalLM", Task::Causal)],
    names: &NAMES,
    qk_norm: true,
    head_dim: Some(256),
    activation: Activation::GeluTanh,
    tied_embeddings: true,
    biases: |config| {
        let attention = config.boolean("attention_bias")?.unwrap_or(false);
        Ok(Biases {
            qkv: attention,
            output: attention,
            mlp: false,
        })
    },
    windows,
    ropes,
    norm_offset: 1.0,
    scales: |config, hidden, _| {
        let query_scalar = config.count("query_pre_attn_scalar", WINDOW_LIMIT)?;
        let cap = |field| config.number_above(field, 0.0);
        Ok(Scales {
            embedding: (hidden as f64).sqrt() as f32,
            query_scalar: query_scalar.unwrap_or(QUERY_SCALAR),
            attention_soft_cap: cap("attn_logit_softcapping")?.map(|cap| cap as f32),
            logit_soft_cap: cap("final_logit_softcapping")?.map(|cap| cap as f32),
        })
    },
};

/// `sliding_window` in the layers that `layer_types` lists as `sliding_attention`; without a list
/// in all but every `sliding_window_pattern`-th.
fn windows(config: &Fields, layers: usize) -> Result<Vec<Option<u32>>> {
    const CAUSAL: &str = "use_bidirectional_attention";
    if config.boolean(CAUSAL)? == Some(true) {
        return Err(config.wrong(CAUSAL, "false: a token sees no later ones"));
    }
    let window = config
        .count("sliding_window", WINDOW_LIMIT)?
        .unwrap_or(WINDOW) as u32;
    if let Some(windows) = super::windows_by_type(config, layers, window)? {
        return Ok(windows);
    }
    let pattern = match config.count("sliding_window_pattern", layers.max(PATTERN))? {
        Some(pattern) => pattern,
        None => config
            .count("_sliding_window_pattern", layers.max(PATTERN))?
            .unwrap_or(PATTERN),
    };
    let windowed = |layer: usize| (!(layer + 1).is_multiple_of(pattern)).then_some(window);
    Ok((0..layers).map(windowed).collect())
}

/// Layers with a window turn by `rope_local_base_freq`, without scaling; the others by `rope_theta`
/// and `rope_scaling`. transformers 5 writes both into `rope_parameters`, by the layer's type.
fn ropes(config: &Fields, windows: &[Option<u32>]) -> Result<Vec<Rope>> {
    let by_type = config.object("rope_parameters")?;
    let of_type = |name: &str| match &by_type {
        Some(all) => all.object(name),
        None => Ok(None),
    };
    let local = match of_type("sliding_attention")? {
        Some(fields) => rope::read_parameters(config, &fields, LOCAL_THETA)?,
        None => Rope {
            theta: config
                .number_above("rope_local_base_freq", 0.0)?
                .unwrap_or(LOCAL_THETA),
            scaling: RopeScaling::None,
        },
    };
    let global = match of_type("full_attention")? {
        Some(fields) => rope::read_parameters(config, &fields, GLOBAL_THETA)?,
        None => rope::read(config, GLOBAL_THETA)?,
    };
    let of_layer = |window: &Option<u32>| if window.is_some() { local } else { global };
    Ok(windows.iter().map(of_layer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::config::ModelConfig;
    use serde_json::{Value, json};

    fn fields(config: Value) -> Fields {
        Fields::parse("c".into(), config.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn windows_follow_the_pattern_or_the_list() {
        let of = |config: Value, layers| windows(&fields(config), layers).expect("windows");
        let w = Some(4096);
        assert_eq!(of(json!({}), 7), [w, w, w, w, w, None, w]);
        let pattern = json!({"sliding_window": 9, "sliding_window_pattern": 2});
        assert_eq!(of(pattern, 3), [Some(9), None, Some(9)]);
        let list = json!({
            "sliding_window": 9, "sliding_window_pattern": 2,
            "layer_types": ["full_attention", "sliding_attention"],
        });
        assert_eq!(of(list, 2), [None, Some(9)]);
    }

    #[test]
    fn ropes_follow_the_windows_in_both_forms_of_a_config() {
        let linear = Rope {
            theta: 1e6,
            scaling: RopeScaling::Linear { factor: 8.0 },
        };
        let local = Rope {
            theta: 1e4,
            scaling: RopeScaling::None,
        };
        let scaling = json!({"rope_type": "linear", "factor": 8});
        let four = json!({"rope_scaling": scaling, "rope_theta": 1e6, "rope_local_base_freq": 1e4});
        let five = json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }});
        let neither = json!({"rope_scaling": scaling});
        for config in [four, five, neither] {
            let found = ropes(&fields(config.clone()), &[Some(4), None]).expect("ropes");
            assert_eq!(found, [local, linear], "{config}");
        }
    }

    #[test]
    fn scales_and_soft_caps_are_data() {
        let of = |config: Value| (ARCHITECTURE.scales)(&fields(config), 1152, 256);
        let plain = of(json!({"attn_logit_softcapping": null})).expect("scales");
        assert_eq!((plain.embedding, plain.query_scalar), (33.941_124, 256));
        assert_eq!(
            (plain.attention_soft_cap, plain.logit_soft_cap),
            (None, None)
        );
        let capped = of(json!({
            "query_pre_attn_scalar": 168,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        }))
        .expect("scales");
        assert_eq!(capped.query_scalar, 168);
        assert_eq!(capped.attention_soft_cap, Some(50.0));
        assert_eq!(capped.logit_soft_cap, Some(30.0));
    }

    #[test]
    fn a_published_config_is_read() {
        let config = include_bytes!("../../../../tests/golden/configs/gemma-3-1b-it/config.json");
        let config = ModelConfig::parse("c".into(), config).expect("it is served");
        let global: Vec<usize> = (0..26).filter(|&i| config.windows[i].is_none()).collect();
        assert_eq!(global, [5, 11, 17, 23]);
        assert_eq!(config.windows[0], Some(512));
        let thetas = [4, 5].map(|layer| config.ropes[layer].theta);
        assert_eq!(thetas, [1e4, 1e6]);
        assert_eq!((config.bos, &config.eos[..]), (Some(2), &[1, 106][..]));
        assert!(config.tied_embeddings && config.activation == Activation::GeluTanh);
    }
}
