//! The tensors of a model, as data: a pure function of its config.
//!
//! The list is written once, here, by what each tensor is for. Checking a checkpoint
//! ([`super::Checkpoint::open`]), loading it, the memory plan (`model.rs`) and `quantize`
//! ([`super::quantize`]) read it.

use super::arch::{TensorNames, bias_of, of_layer};
use super::config::{HeadKind, ModelConfig};

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape: `[rows, cols]` of a matrix or `[len]` of a vector.
    pub shape: Vec<usize>,
    /// Whether the model works without it: the bias of a classification or value head.
    pub optional: bool,
    /// Whether it is a matrix that may be stored quantised: the layers' and the LM head.
    pub quantizable: bool,
}

impl TensorSpec {
    fn vector(name: String, len: usize) -> TensorSpec {
        TensorSpec {
            name,
            shape: vec![len],
            optional: false,
            quantizable: false,
        }
    }

    fn matrix(name: String, rows: usize, cols: usize) -> TensorSpec {
        TensorSpec {
            shape: vec![rows, cols],
            ..TensorSpec::vector(name, rows)
        }
    }

    fn quantizable(self) -> TensorSpec {
        TensorSpec {
            quantizable: true,
            ..self
        }
    }

    /// Rows of a matrix, or elements of a vector.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Columns of a matrix; 1 for a vector.
    pub fn cols(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    /// How many numbers it holds.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A linear layer: one or several matrices `[rows, cols]`. Several are fused: the device keeps
/// them stacked along their rows (the output features), and their biases one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// The matrices, all of `cols` columns.
    pub matrices: Vec<TensorSpec>,
    /// A bias for each of them, or none.
    pub biases: Vec<TensorSpec>,
    /// Input features.
    pub cols: usize,
}

impl LinearSpec {
    /// The layer's matrices with these names and rows, quantisable, with biases if `biased`.
    fn fused(parts: &[(String, usize)], cols: usize, biased: bool) -> LinearSpec {
        let matrix = |(name, rows): &(String, usize)| {
            TensorSpec::matrix(name.clone(), *rows, cols).quantizable()
        };
        let bias = |(name, rows): &(String, usize)| TensorSpec::vector(bias_of(name), *rows);
        LinearSpec {
            matrices: parts.iter().map(matrix).collect(),
            biases: parts.iter().filter(|_| biased).map(bias).collect(),
            cols,
        }
    }

    /// One matrix of a head that is never quantised, with a bias that may be `optional`.
    fn head(name: &str, rows: usize, cols: usize, optional: bool) -> LinearSpec {
        let bias = TensorSpec {
            optional,
            ..TensorSpec::vector(bias_of(name), rows)
        };
        LinearSpec {
            matrices: vec![TensorSpec::matrix(name.to_string(), rows, cols)],
            biases: vec![bias],
            cols,
        }
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.matrices.iter().map(TensorSpec::rows).sum()
    }

    /// Every matrix, each followed by its bias.
    fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        let bias = |i: usize| self.biases.get(i);
        (self.matrices.iter().enumerate())
            .flat_map(move |(i, matrix)| std::iter::once(matrix).chain(bias(i)))
    }
}

/// The tensors of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerLayout {
    /// Norm before attention, `[hidden]`.
    pub attention_norm: TensorSpec,
    /// Query, key and value projections, fused.
    pub qkv: LinearSpec,
    /// Norms of query heads and of key heads, `[head_dim]` each.
    pub qk_norm: Option<[TensorSpec; 2]>,
    /// The attention's output projection.
    pub output: LinearSpec,
    /// Norm of the attention's output before it is added to the residual stream, `[hidden]`.
    pub attention_post_norm: Option<TensorSpec>,
    /// Norm before the feed-forward network, `[hidden]`.
    pub mlp_norm: TensorSpec,
    /// Gate and up projections, fused.
    pub gate_up: LinearSpec,
    /// Down projection.
    pub down: LinearSpec,
    /// Norm of the feed-forward network's output before it is added, `[hidden]`.
    pub mlp_post_norm: Option<TensorSpec>,
}

/// The tensors from a normed final state to the head's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadLayout {
    /// The embedding is the LM head too.
    Tied,
    /// One linear layer.
    Linear(LinearSpec),
    /// Two linear layers, a rectifier between them.
    TwoLayer {
        /// The first, as wide as the residual stream.
        inner: LinearSpec,
        /// The second.
        outer: LinearSpec,
    },
}

/// Every tensor that a model is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLayout {
    /// `[vocab, hidden]`.
    pub embedding: TensorSpec,
    /// In the order of the forward pass.
    pub layers: Vec<LayerLayout>,
    /// Norm behind the last layer, `[hidden]`.
    pub final_norm: TensorSpec,
    /// The head behind it.
    pub head: HeadLayout,
}

impl ModelLayout {
    /// The layout that `config` implies.
    pub fn new(config: &ModelConfig) -> ModelLayout {
        let names = config.names();
        let embedding = names.embedding.to_string();
        ModelLayout {
            embedding: TensorSpec::matrix(embedding, config.vocab, config.hidden),
            layers: (0..config.layers)
                .map(|index| LayerLayout::new(config, names, index))
                .collect(),
            final_norm: TensorSpec::vector(names.final_norm.to_string(), config.hidden),
            head: HeadLayout::new(config, names),
        }
    }

    /// All tensors, in the order that a forward pass uses them.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        std::iter::once(&self.embedding)
            .chain(self.layers.iter().flat_map(LayerLayout::tensors))
            .chain(std::iter::once(&self.final_norm))
            .chain(self.head.linear_layers().flat_map(LinearSpec::tensors))
    }

    /// Follows the tensors that are there: drops the optional ones that are not, and takes a tied
    /// embedding that was saved under the LM head's name alone from there, as transformers does.
    pub(super) fn follow(&mut self, lm_head: &str, contains: impl Fn(&str) -> bool) {
        match &mut self.head {
            HeadLayout::Linear(linear) => {
                (linear.biases).retain(|bias| !bias.optional || contains(&bias.name));
            }
            HeadLayout::Tied if !contains(&self.embedding.name) && contains(lm_head) => {
                self.embedding.name = lm_head.to_string();
            }
            HeadLayout::Tied | HeadLayout::TwoLayer { .. } => {}
        }
    }

    /// Numbers the head gives for one row.
    pub fn head_width(&self) -> usize {
        match &self.head {
            HeadLayout::Tied => self.embedding.rows(),
            HeadLayout::Linear(linear) => linear.rows(),
            HeadLayout::TwoLayer { outer, .. } => outer.rows(),
        }
    }
}

impl LayerLayout {
    fn new(config: &ModelConfig, names: &TensorNames, index: usize) -> LayerLayout {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let q_rows = config.heads * config.head_dim;
        let kv_rows = config.kv_heads * config.head_dim;
        let name = |template: &str| of_layer(template, index);
        let norm = |template: &str, len: usize| TensorSpec::vector(name(template), len);
        LayerLayout {
            attention_norm: norm(names.attention_norm, hidden),
            qkv: LinearSpec::fused(
                &[
                    (name(names.q), q_rows),
                    (name(names.k), kv_rows),
                    (name(names.v), kv_rows),
                ],
                hidden,
                config.attention_bias,
            ),
            qk_norm: (config.qk_norm)
                .then(|| [names.q_norm, names.k_norm].map(|name| norm(name, config.head_dim))),
            output: LinearSpec::fused(&[(name(names.o), hidden)], q_rows, config.output_bias),
            attention_post_norm: (names.attention_post_norm).map(|name| norm(name, hidden)),
            mlp_norm: norm(names.mlp_norm, hidden),
            gate_up: LinearSpec::fused(
                &[(name(names.gate), inner), (name(names.up), inner)],
                hidden,
                config.mlp_bias,
            ),
            down: LinearSpec::fused(&[(name(names.down), hidden)], inner, config.mlp_bias),
            mlp_post_norm: (names.mlp_post_norm).map(|name| norm(name, hidden)),
        }
    }

    /// The norms.
    pub fn norms(&self) -> impl Iterator<Item = &TensorSpec> {
        [&self.attention_norm, &self.mlp_norm]
            .into_iter()
            .chain(self.qk_norm.iter().flatten())
            .chain(&self.attention_post_norm)
            .chain(&self.mlp_post_norm)
    }

    /// The linear layers.
    pub fn linear_layers(&self) -> impl Iterator<Item = &LinearSpec> {
        [&self.qkv, &self.output, &self.gate_up, &self.down].into_iter()
    }

    /// All tensors, in the order that a forward pass uses them.
    fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        std::iter::once(&self.attention_norm)
            .chain(self.qkv.tensors())
            .chain(self.qk_norm.iter().flatten())
            .chain(self.output.tensors())
            .chain(&self.attention_post_norm)
            .chain(std::iter::once(&self.mlp_norm))
            .chain(self.gate_up.tensors())
            .chain(self.down.tensors())
            .chain(&self.mlp_post_norm)
    }
}

impl HeadLayout {
    fn new(config: &ModelConfig, names: &TensorNames) -> HeadLayout {
        let hidden = config.hidden;
        match &config.head {
            HeadKind::Causal if config.tied_embeddings => HeadLayout::Tied,
            HeadKind::Causal => HeadLayout::Linear(lm_head(config)),
            HeadKind::Value => HeadLayout::Linear(LinearSpec::head(names.value, 1, hidden, true)),
            HeadKind::Process => HeadLayout::TwoLayer {
                inner: LinearSpec::head(names.process_inner, hidden, hidden, false),
                outer: LinearSpec::head(names.process_outer, 2, hidden, false),
            },
            HeadKind::TokenClassification { labels } => {
                HeadLayout::Linear(LinearSpec::head(names.score, labels.len(), hidden, true))
            }
        }
    }

    fn linear_layers(&self) -> impl Iterator<Item = &LinearSpec> {
        let layers = match self {
            HeadLayout::Tied => [None, None],
            HeadLayout::Linear(linear) => [Some(linear), None],
            HeadLayout::TwoLayer { inner, outer } => [Some(inner), Some(outer)],
        };
        layers.into_iter().flatten()
    }
}

/// An LM head of its own, which a tied model gets when it is quantised.
pub fn lm_head(config: &ModelConfig) -> LinearSpec {
    let name = config.names().lm_head.to_string();
    LinearSpec::fused(&[(name, config.vocab)], config.hidden, false)
}

/// An embedding used as an LM head, as if it were a quantisable matrix of its own.
pub fn head_of_embedding(embedding: &TensorSpec) -> LinearSpec {
    LinearSpec {
        matrices: vec![embedding.clone().quantizable()],
        biases: Vec::new(),
        cols: embedding.cols(),
    }
}
