//! Architectures: how a `config.json` becomes shapes and tensor names. One small file each.
//!
//! To add one, write its file with a [`Architecture`] and name it in [`ARCHITECTURES`].

mod llama;
mod qwen2;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::json::Fields;

/// All architectures served.
pub static ARCHITECTURES: &[Architecture] = &[llama::ARCHITECTURE, qwen2::ARCHITECTURE];

/// What distinguishes one model family from another.
#[derive(Debug)]
pub struct Architecture {
    /// Class name of its language model.
    pub causal: &'static str,
    /// Class name of its token classifier.
    pub token_classification: &'static str,
    /// Where its tensors are in a checkpoint.
    pub names: &'static TensorNames,
    /// Reads which projections have biases.
    pub(crate) biases: fn(&Fields) -> Result<Biases>,
    /// Refuses what the family's config can ask for and the engine doesn't do.
    pub(crate) check: fn(&Fields) -> Result<()>,
}

/// What a checkpoint's last layer gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Logits of the next token.
    Causal,
    /// Logits of a label for every token.
    TokenClassification,
}

/// Which projections of a layer have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Biases {
    /// Query, key and value.
    pub qkv: bool,
    /// The attention's output.
    pub output: bool,
    /// Gate, up and down.
    pub mlp: bool,
}

/// Finds the architecture that serves a config, by the first of its `architectures` that is known.
pub(crate) fn find(fields: &Fields) -> Result<(&'static Architecture, Task)> {
    const EXPECTED: &str = "a list of class names such as [\"LlamaForCausalLM\"]";
    let list = fields
        .get("architectures")
        .and_then(|value| value.as_array())
        .ok_or_else(|| fields.wrong("architectures", EXPECTED))?;
    let mut names = Vec::new();
    for value in list {
        let name = value
            .as_str()
            .ok_or_else(|| fields.wrong("architectures", EXPECTED))?;
        for architecture in ARCHITECTURES {
            if architecture.causal == name {
                return Ok((architecture, Task::Causal));
            }
            if architecture.token_classification == name {
                return Ok((architecture, Task::TokenClassification));
            }
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(fields.wrong("architectures", EXPECTED));
    }
    Err(Error::UnknownArchitecture {
        file: fields.file().to_string(),
        found: names.join(", "),
        known: known().join(", "),
    })
}

/// The class names that can be loaded.
pub fn known() -> Vec<&'static str> {
    ARCHITECTURES
        .iter()
        .flat_map(|a| [a.causal, a.token_classification])
        .collect()
}

/// Names of a model's tensors in its checkpoint. `{i}` stands for a layer's number; a bias has
/// its matrix's name with `.bias` for `.weight` (see [`bias_of`]).
#[derive(Debug)]
#[allow(missing_docs)] // each is the tensor its name says
pub struct TensorNames {
    pub embedding: &'static str,
    pub attention_norm: &'static str,
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    pub o: &'static str,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub final_norm: &'static str,
    pub lm_head: &'static str,
    pub score: &'static str,
}

/// The names Llama brought, which most families kept.
pub(crate) static LLAMA_NAMES: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    attention_norm: "model.layers.{i}.input_layernorm.weight",
    q: "model.layers.{i}.self_attn.q_proj.weight",
    k: "model.layers.{i}.self_attn.k_proj.weight",
    v: "model.layers.{i}.self_attn.v_proj.weight",
    o: "model.layers.{i}.self_attn.o_proj.weight",
    mlp_norm: "model.layers.{i}.post_attention_layernorm.weight",
    gate: "model.layers.{i}.mlp.gate_proj.weight",
    up: "model.layers.{i}.mlp.up_proj.weight",
    down: "model.layers.{i}.mlp.down_proj.weight",
    final_norm: "model.norm.weight",
    lm_head: "lm_head.weight",
    score: "score.weight",
};

/// A layer's tensor: `template` with the layer's number for `{i}`.
pub fn of_layer(template: &str, layer: usize) -> String {
    template.replace("{i}", &layer.to_string())
}

/// The bias that belongs to a weight matrix.
pub fn bias_of(weight: &str) -> String {
    format!("{}.bias", weight.strip_suffix(".weight").unwrap_or(weight))
}

/// A tensor a model is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape: `[rows, cols]` or `[len]`.
    pub shape: Vec<usize>,
    /// Whether the model works without it (the bias of a token-classification head).
    pub optional: bool,
}

/// Every tensor that a model of this config is made of, in the order a forward pass uses them.
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let names = config.names();
    let (hidden, inner) = (config.hidden, config.intermediate);
    let (q, kv) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    let mut specs = Vec::new();
    let mut add = |name: &str, shape: &[usize], optional: bool| {
        specs.push(TensorSpec {
            name: name.to_string(),
            shape: shape.to_vec(),
            optional,
        });
    };
    add(names.embedding, &[config.vocab, hidden], false);
    for layer in 0..config.layers {
        let (qkv_bias, o_bias) = (config.attention_bias, config.output_bias);
        for (template, rows, cols, bias) in [
            (names.attention_norm, hidden, None, false),
            (names.q, q, Some(hidden), qkv_bias),
            (names.k, kv, Some(hidden), qkv_bias),
            (names.v, kv, Some(hidden), qkv_bias),
            (names.o, hidden, Some(q), o_bias),
            (names.mlp_norm, hidden, None, false),
            (names.gate, inner, Some(hidden), config.mlp_bias),
            (names.up, inner, Some(hidden), config.mlp_bias),
            (names.down, hidden, Some(inner), config.mlp_bias),
        ] {
            let name = of_layer(template, layer);
            match cols {
                Some(cols) => add(&name, &[rows, cols], false),
                None => add(&name, &[rows], false),
            }
            if bias {
                add(&bias_of(&name), &[rows], false);
            }
        }
    }
    add(names.final_norm, &[hidden], false);
    match &config.head {
        crate::config::HeadKind::Causal if config.tied_embeddings => {}
        crate::config::HeadKind::Causal => add(names.lm_head, &[config.vocab, hidden], false),
        crate::config::HeadKind::TokenClassification { labels } => {
            add(names.score, &[labels.len(), hidden], false);
            add(&bias_of(names.score), &[labels.len()], true);
        }
    }
    specs
}
