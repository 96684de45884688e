//! Architectures: how a `config.json` becomes shapes and tensor names. One small file each.
//!
//! To add one, write its file with a [`Architecture`] and name it in [`ARCHITECTURES`].

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use crate::checkpoint::config::{HeadKind, ModelConfig};
use crate::checkpoint::json::Fields;
use crate::error::{Error, Result};

/// All architectures served.
pub static ARCHITECTURES: &[Architecture] = &[
    llama::ARCHITECTURE,
    mistral::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen3::ARCHITECTURE,
];

/// The longest sliding window accepted: any context there is.
pub(crate) const WINDOW_LIMIT: usize = 1 << 24;

/// What distinguishes one model family from another.
#[derive(Debug)]
pub struct Architecture {
    /// Its class names, with what the last layer of each gives.
    pub(crate) classes: &'static [(&'static str, Task)],
    /// Where its tensors are in a checkpoint.
    pub names: &'static TensorNames,
    /// Reads which projections have biases.
    pub(crate) biases: fn(&Fields) -> Result<Biases>,
    /// Whether query and key heads are normalised before rotation.
    pub qk_norm: bool,
    /// Elements of a head where the config doesn't say; `None`: hidden size by heads.
    pub head_dim: Option<usize>,
    /// Reads the sliding window of each of so many layers.
    pub(crate) windows: fn(&Fields, usize) -> Result<Vec<Option<u32>>>,
}

/// What a checkpoint's last layer gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Logits of the next token.
    Causal,
    /// Logits of a label for every token.
    TokenClassification,
    /// One number for every token (`v_head`).
    Value,
    /// Logits of two classes for every token, through a two-layer head.
    Process,
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

/// Finds the architecture that serves a config, by the first of its `architectures` that is known,
/// with that name and what it gives.
pub(crate) fn find(fields: &Fields) -> Result<(&'static Architecture, &'static str, Task)> {
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
            if let Some(&(class, task)) = architecture.classes.iter().find(|(c, _)| *c == name) {
                return Ok((architecture, class, task));
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
        .flat_map(|a| a.classes.iter().map(|(class, _)| *class))
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
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub o: &'static str,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub final_norm: &'static str,
    pub lm_head: &'static str,
    pub score: &'static str,
    /// A value head, one row.
    pub value: &'static str,
    /// First layer of a two-layer head, as wide as the residual stream.
    pub process_inner: &'static str,
    /// Second layer of a two-layer head.
    pub process_outer: &'static str,
}

/// The names Llama brought, which most families kept.
pub(crate) static LLAMA_NAMES: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    attention_norm: "model.layers.{i}.input_layernorm.weight",
    q: "model.layers.{i}.self_attn.q_proj.weight",
    k: "model.layers.{i}.self_attn.k_proj.weight",
    v: "model.layers.{i}.self_attn.v_proj.weight",
    q_norm: "model.layers.{i}.self_attn.q_norm.weight",
    k_norm: "model.layers.{i}.self_attn.k_norm.weight",
    o: "model.layers.{i}.self_attn.o_proj.weight",
    mlp_norm: "model.layers.{i}.post_attention_layernorm.weight",
    gate: "model.layers.{i}.mlp.gate_proj.weight",
    up: "model.layers.{i}.mlp.up_proj.weight",
    down: "model.layers.{i}.mlp.down_proj.weight",
    final_norm: "model.norm.weight",
    lm_head: "lm_head.weight",
    score: "score.weight",
    value: "v_head.summary.weight",
    process_inner: "score.0.weight",
    process_outer: "score.2.weight",
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
    /// Whether it is a matrix that may be stored quantised: the layers' and a policy's LM head.
    pub quantizable: bool,
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
            quantizable: shape.len() == 2 && (name == names.lm_head || name.contains(".layers.")),
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
        if config.qk_norm {
            for template in [names.q_norm, names.k_norm] {
                add(&of_layer(template, layer), &[config.head_dim], false);
            }
        }
    }
    add(names.final_norm, &[hidden], false);
    match &config.head {
        HeadKind::Causal if config.tied_embeddings => {}
        HeadKind::Causal => add(names.lm_head, &[config.vocab, hidden], false),
        HeadKind::Value => {
            add(names.value, &[1, hidden], false);
            add(&bias_of(names.value), &[1], true);
        }
        HeadKind::Process => {
            for (name, rows) in [(names.process_inner, hidden), (names.process_outer, 2)] {
                add(name, &[rows, hidden], false);
                add(&bias_of(name), &[rows], false);
            }
        }
        HeadKind::TokenClassification { labels } => {
            add(names.score, &[labels.len(), hidden], false);
            add(&bias_of(names.score), &[labels.len()], true);
        }
    }
    specs
}
