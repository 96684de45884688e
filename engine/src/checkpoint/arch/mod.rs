//! Architectures: the facts that distinguish model families, as data. One small file each.
//!
//! # To add one
//!
//! Write its file with an [`Architecture`], most of it `..llama::ARCHITECTURE`, and name it in
//! [`ARCHITECTURES`]. The forward pass (`model.rs`) follows these facts of a row:
//!
//! - tensor names, biases, QK norms, the head's size, windows and rotary embeddings by layer
//!   (`ropes`), the activation, [`Architecture::norm_offset`];
//! - norms behind attention and behind the feed-forward network: names them in [`TensorNames`]
//!   (`attention_post_norm`, `mlp_post_norm`); the layout has their tensors then, and checking,
//!   loading, memory plan and `quantize` follow;
//! - [`Scales`], except soft caps: `config.rs` refuses a config that has one.
//!
//! An activation that is not in [`kernels::Activation`] needs its function in both backends.

mod gemma3;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use kernels::Activation;

use super::json::Fields;
use super::rope::Rope;
use crate::error::{Error, Result};

/// The field with the class names.
pub(crate) const NAMED_BY: &str = "architectures";

/// All architectures served.
pub static ARCHITECTURES: &[Architecture] = &[
    llama::ARCHITECTURE,
    mistral::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen3::ARCHITECTURE,
    gemma3::ARCHITECTURE,
];

/// The longest sliding window accepted: any context there is.
pub(crate) const WINDOW_LIMIT: usize = 1 << 24;

/// Reads the rotary embedding of each layer, given the layers' windows.
pub(crate) type ReadRopes = fn(&Fields, &[Option<u32>]) -> Result<Vec<Rope>>;

/// The facts that distinguish a model family.
#[derive(Debug)]
pub struct Architecture {
    /// `model_type` of its configs.
    pub(crate) model_type: &'static str,
    /// Its class names, with the output of each one's last layer.
    pub(crate) classes: &'static [(&'static str, Task)],
    /// Where its tensors are in a checkpoint.
    pub names: &'static TensorNames,
    /// Reads which projections have biases.
    pub(crate) biases: fn(&Fields) -> Result<Biases>,
    /// Whether query and key heads are normalised before rotation.
    pub qk_norm: bool,
    /// Elements of a head where the config doesn't say; `None`: hidden size by heads.
    pub head_dim: Option<usize>,
    /// The function applied to the gates of the feed-forward network where the config doesn't say.
    pub activation: Activation,
    /// Whether the embedding is the LM head too where the config doesn't say.
    pub tied_embeddings: bool,
    /// Reads the sliding window of each of so many layers.
    pub(crate) windows: fn(&Fields, usize) -> Result<Vec<Option<u32>>>,
    /// Reads the rotary embedding of each layer, given the layers' windows.
    pub(crate) ropes: ReadRopes,
    /// Added to the weights of all norms: 1 where a checkpoint stores `w` of a factor `1 + w`.
    pub norm_offset: f32,
    /// Reads the scales, given the hidden size and the head's size.
    pub(crate) scales: fn(&Fields, usize, usize) -> Result<Scales>,
}

/// Numbers that scale or bound intermediate values of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Factor of the embedded tokens (not of a tied LM head).
    pub embedding: f32,
    /// Attention scores are `q . k / sqrt(query_scalar)`: the head's size in most families.
    pub query_scalar: usize,
    /// `c` of `c * tanh(score / c)` before attention's softmax; `None`: scores are not bounded.
    pub attention_soft_cap: Option<f32>,
    /// `c` of `c * tanh(logit / c)` of the head; `None`: logits are not bounded.
    pub logit_soft_cap: Option<f32>,
}

impl Scales {
    /// Those of Llama: nothing is scaled but scores, by the head's size.
    pub fn plain(head_dim: usize) -> Scales {
        Scales {
            embedding: 1.0,
            query_scalar: head_dim,
            attention_soft_cap: None,
            logit_soft_cap: None,
        }
    }
}

/// The output of a checkpoint's last layer, by class name.
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

/// What serves a config.
pub(crate) struct Found {
    /// Its architecture.
    pub architecture: &'static Architecture,
    /// The class among those of the architecture.
    pub class: &'static str,
    /// What that class's last layer gives.
    pub task: Task,
    /// Whether the config names the class itself; else it is the causal language model of its
    /// `model_type`.
    pub named: bool,
}

/// Finds what serves a config: the first of its `architectures` that is known; without any (scripts
/// that write a config by hand leave them out) its `model_type`, by which transformers chooses a
/// causal language model too.
pub(crate) fn find(fields: &Fields) -> Result<Found> {
    const EXPECTED: &str = "a list of class names such as [\"LlamaForCausalLM\"]";
    let wrong = || fields.wrong(NAMED_BY, EXPECTED);
    let list = match fields.get(NAMED_BY) {
        Some(value) => value.as_array().ok_or_else(wrong)?.as_slice(),
        None => &[],
    };
    let mut names = Vec::new();
    for value in list {
        let name = value.as_str().ok_or_else(wrong)?;
        for architecture in ARCHITECTURES {
            if let Some(&(class, task)) = architecture.classes.iter().find(|(c, _)| *c == name) {
                return Ok(Found {
                    architecture,
                    class,
                    task,
                    named: true,
                });
            }
        }
        names.push(name);
    }
    if names.is_empty() {
        return by_model_type(fields)?.ok_or_else(wrong);
    }
    Err(Error::UnknownArchitecture {
        file: fields.file().to_string(),
        found: names.join(", "),
        known: known().join(", "),
    })
}

/// The causal language model of a config's `model_type`, if it has one.
fn by_model_type(fields: &Fields) -> Result<Option<Found>> {
    const FIELD: &str = "model_type";
    let Some(model_type) = fields.string(FIELD)? else {
        return Ok(None);
    };
    let of_type = |a: &&Architecture| a.model_type == model_type;
    let causal = |(_, task): &&(&str, Task)| *task == Task::Causal;
    let found = (ARCHITECTURES.iter().find(of_type))
        .and_then(|a| Some((a, a.classes.iter().find(causal)?)));
    let Some((architecture, &(class, task))) = found else {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.model_type).collect();
        let expected = format!("one of {}, or a class in {NAMED_BY}", known.join(", "));
        return Err(fields.wrong(FIELD, expected));
    };
    Ok(Some(Found {
        architecture,
        class,
        task,
        named: false,
    }))
}

/// The class names that can be loaded.
pub fn known() -> Vec<&'static str> {
    ARCHITECTURES
        .iter()
        .flat_map(|a| a.classes.iter().map(|(class, _)| *class))
        .collect()
}

/// `window` in the layers that `layer_types` lists as `sliding_attention`; `None` without a list.
fn windows_by_type(
    config: &Fields,
    layers: usize,
    window: u32,
) -> Result<Option<Vec<Option<u32>>>> {
    const TYPES: &str = "\"full_attention\" or \"sliding_attention\" for every layer";
    let Some(types) = config.get("layer_types") else {
        return Ok(None);
    };
    let wrong = || config.wrong("layer_types", TYPES);
    let types = types.as_array().ok_or_else(wrong)?;
    if types.len() != layers {
        return Err(wrong());
    }
    (types.iter())
        .map(|layer_type| match layer_type.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => Ok(Some(window)),
            _ => Err(wrong()),
        })
        .collect::<Result<_>>()
        .map(Some)
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
    /// Norm of the attention's output, in families that have one.
    pub attention_post_norm: Option<&'static str>,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    /// Norm of the feed-forward network's output, in families that have one.
    pub mlp_post_norm: Option<&'static str>,
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

/// Llama's names, which most families kept.
pub(crate) static LLAMA_NAMES: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    attention_norm: "model.layers.{i}.input_layernorm.weight",
    q: "model.layers.{i}.self_attn.q_proj.weight",
    k: "model.layers.{i}.self_attn.k_proj.weight",
    v: "model.layers.{i}.self_attn.v_proj.weight",
    q_norm: "model.layers.{i}.self_attn.q_norm.weight",
    k_norm: "model.layers.{i}.self_attn.k_norm.weight",
    o: "model.layers.{i}.self_attn.o_proj.weight",
    attention_post_norm: None,
    mlp_norm: "model.layers.{i}.post_attention_layernorm.weight",
    gate: "model.layers.{i}.mlp.gate_proj.weight",
    up: "model.layers.{i}.mlp.up_proj.weight",
    down: "model.layers.{i}.mlp.down_proj.weight",
    mlp_post_norm: None,
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
