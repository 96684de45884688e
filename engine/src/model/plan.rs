//! The memory plan of a model: the list of everything it keeps on a device, known before anything
//! is loaded.

use kernels::{Allocation, KvLayout, Quantization};

use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{HeadKind, ModelConfig};
use crate::checkpoint::layout::{HeadLayout, LinearSpec, TensorSpec, head_of_embedding};
use crate::checkpoint::rope::Rope;
use crate::schedule::executor::ModelShape;
use crate::schedule::usage::FlopRates;

/// How a model is loaded.
#[derive(Clone, Debug)]
pub(crate) struct LoadOptions {
    /// Rows of one batch.
    pub max_rows: usize,
    /// Bytes of head output that one batch may give.
    pub max_head_bytes: usize,
    /// Tokens a sequence may have.
    pub context_length: usize,
    /// Tokens of one sequence that fit the KV memory: no position from there on is computed.
    pub kv_tokens: usize,
    /// Rows of the LM head that are needed; `None`: all.
    pub head_rows: Option<Vec<u32>>,
    /// How to keep the matrices of linear layers that are stored in floating point.
    pub quantize: Option<Quantization>,
}

/// The facts of a model that scheduling needs.
pub(crate) fn shape(config: &ModelConfig, layout: &KvLayout, options: &LoadOptions) -> ModelShape {
    let c = config;
    let projections = c.hidden * layout.qkv_cols() + c.heads * c.head_dim * c.hidden;
    let per_layer = projections + 3 * c.hidden * c.intermediate;
    let head_width = head_width(c, options);
    let head_inner = match c.head {
        HeadKind::Process => c.hidden,
        _ => 0,
    };
    ModelShape {
        vocab: c.vocab,
        context_length: options.context_length,
        head_width,
        hidden: c.hidden,
        layers: c.layers,
        block_bytes: layout.block_bytes(),
        flops: FlopRates {
            per_token: 2 * (c.layers * per_layer) as u64,
            per_output: 2 * (c.hidden * (head_width + head_inner)) as u64,
            per_visible: 4 * (c.layers * c.heads * c.head_dim) as u64,
        },
        max_rows: options.max_rows,
        max_outputs: max_outputs(options.max_head_bytes, head_width, options.max_rows),
        max_num_seqs: usize::MAX,
    }
}

/// Rows of one batch whose head output, of `head_width` numbers each, fits `max_head_bytes`.
pub fn max_outputs(max_head_bytes: usize, head_width: usize, max_rows: usize) -> usize {
    (max_head_bytes / (size_of::<f32>() * head_width)).clamp(1, max_rows)
}

/// Numbers the head gives for one row.
fn head_width(config: &ModelConfig, options: &LoadOptions) -> usize {
    match (&config.head, &options.head_rows) {
        (HeadKind::Causal, Some(rows)) => rows.len(),
        (HeadKind::Causal, None) => config.vocab,
        (HeadKind::TokenClassification { labels }, _) => labels.len(),
        (HeadKind::Value, _) => 1,
        (HeadKind::Process, _) => 2,
    }
}

/// The activation buffers of a model: their sizes ([`Allocation`]) or themselves.
pub(super) struct Buffers<T> {
    /// The residual stream, `[rows, hidden]`.
    pub stream: T,
    /// A normed copy, `[rows, hidden]`.
    pub normed: T,
    /// `[rows, (heads + 2 kv_heads) * head_dim]`.
    pub qkv: T,
    /// `[rows, heads * head_dim]`.
    pub attended: T,
    /// `[rows, 2 * intermediate]`.
    pub gate_up: T,
    /// `[rows, intermediate]`.
    pub inner: T,
    /// A block's output before the norm behind it, `[rows, hidden]`.
    pub branch: Option<T>,
    /// `[outputs, hidden]`, gathered and then normed.
    pub outputs: T,
    pub outputs_normed: T,
    /// `[outputs, hidden]` between the layers of a head of two.
    pub head_inner: Option<T>,
    /// `[outputs, head width]`.
    pub head: T,
}

/// Everything that [`super::Model::load`] keeps on the device: weights, tables, buffers. Their
/// sizes on a device are the backend's to say; no weight is read.
pub(crate) fn allocations(
    checkpoint: &Checkpoint,
    layout: &KvLayout,
    options: &LoadOptions,
) -> Vec<Allocation> {
    let plan = Plan {
        checkpoint,
        quantize: options.quantize,
    };
    let tensors = checkpoint.layout();
    let mut all = Vec::new();
    for layer in &tensors.layers {
        for norm in layer.norms() {
            all.push(Allocation::Vector { len: norm.rows() });
        }
        for linear in layer.linear_layers() {
            all.extend(plan.linear(linear));
        }
    }
    match plan.head(options) {
        HeadPlan::Embedding => {}
        HeadPlan::Rows(tensor, rows) => all.push(Allocation::Matrix {
            rows: rows.len(),
            cols: tensor.cols(),
        }),
        HeadPlan::Linear(linear) => all.extend(plan.linear(&linear)),
        HeadPlan::TwoLayer(inner, outer) => {
            all.extend(plan.linear(inner));
            all.extend(plan.linear(outer));
        }
    }
    all.push(Allocation::Matrix {
        rows: tensors.embedding.rows(),
        cols: tensors.embedding.cols(),
    });
    all.push(Allocation::Vector {
        len: tensors.final_norm.rows(),
    });
    let table = Allocation::Rope {
        positions: options.context_length.min(options.kv_tokens),
        half_dim: checkpoint.config.head_dim / 2,
    };
    all.extend(distinct(&checkpoint.config.ropes).iter().map(|_| table));
    all.extend(Buffers::sizes(&checkpoint.config, layout, options).into_iter());
    all
}

/// The distinct rotary embeddings of the layers, in the order of their first use.
pub(super) fn distinct(ropes: &[Rope]) -> Vec<Rope> {
    let mut all: Vec<Rope> = Vec::new();
    for rope in ropes {
        if !all.contains(rope) {
            all.push(*rope);
        }
    }
    all
}

/// How the tensors of a checkpoint are kept on the device.
pub(super) struct Plan<'a> {
    pub checkpoint: &'a Checkpoint,
    pub quantize: Option<Quantization>,
}

/// The matrices that the head needs.
pub(super) enum HeadPlan<'a> {
    /// None beside the embedding.
    Embedding,
    /// Some rows of a matrix, in the order given.
    Rows(&'a TensorSpec, &'a [u32]),
    /// A linear layer.
    Linear(LinearSpec),
    /// Two linear layers.
    TwoLayer(&'a LinearSpec, &'a LinearSpec),
}

impl<'a> Plan<'a> {
    /// How a linear layer's matrix is kept, quantised because one of its parts is stored so or
    /// because that is an option; `None`: in floating point.
    pub fn quantization(&self, linear: &LinearSpec) -> Option<Quantization> {
        let quantizable = linear.matrices.iter().all(|matrix| matrix.quantizable);
        (self.checkpoint.stored_quantization(linear))
            .or(self.quantize)
            .filter(|kind| quantizable && kind.fits(linear.cols))
    }

    /// The allocations of a linear layer: its matrix, and its bias if it has one.
    fn linear(&self, linear: &LinearSpec) -> impl Iterator<Item = Allocation> {
        let (rows, cols) = (linear.rows(), linear.cols);
        let matrix = match self.quantization(linear) {
            Some(kind) => Allocation::Quantized { rows, cols, kind },
            None => Allocation::Matrix { rows, cols },
        };
        let bias = (!linear.biases.is_empty()).then_some(Allocation::Vector { len: rows });
        std::iter::once(matrix).chain(bias)
    }

    pub fn head(&self, options: &'a LoadOptions) -> HeadPlan<'a> {
        let layout = self.checkpoint.layout();
        let causal = self.checkpoint.config.head == HeadKind::Causal;
        let wanted = options.head_rows.as_deref().filter(|_| causal);
        match (&layout.head, wanted) {
            (HeadLayout::Tied, Some(rows)) => HeadPlan::Rows(&layout.embedding, rows),
            (HeadLayout::Linear(linear), Some(rows)) => HeadPlan::Rows(&linear.matrices[0], rows),
            (HeadLayout::Tied, None) => {
                // The embedding stays in floating point: a quantised LM head is another matrix.
                let head = head_of_embedding(&layout.embedding);
                match self.quantization(&head) {
                    Some(_) => HeadPlan::Linear(head),
                    None => HeadPlan::Embedding,
                }
            }
            (HeadLayout::Linear(linear), None) => HeadPlan::Linear(linear.clone()),
            (HeadLayout::TwoLayer { inner, outer }, _) => HeadPlan::TwoLayer(inner, outer),
        }
    }
}

impl Buffers<Allocation> {
    /// The buffers' sizes. Sums and the head's numbers keep f32; inputs of linear layers may be
    /// rounded.
    pub fn sizes(config: &ModelConfig, layout: &KvLayout, options: &LoadOptions) -> Self {
        let (rows, hidden) = (options.max_rows, config.hidden);
        let outputs = shape(config, layout, options).max_outputs;
        let names = config.names();
        let post_norms = names.attention_post_norm.is_some() || names.mlp_post_norm.is_some();
        let full = |rows, cols| Allocation::Activations { rows, cols };
        let half = |rows, cols| Allocation::HalfActivations { rows, cols };
        Buffers {
            stream: full(rows, hidden),
            normed: half(rows, hidden),
            qkv: half(rows, layout.qkv_cols()),
            attended: half(rows, config.heads * config.head_dim),
            gate_up: half(rows, 2 * config.intermediate),
            inner: half(rows, config.intermediate),
            branch: post_norms.then(|| full(rows, hidden)),
            outputs: full(outputs, hidden),
            outputs_normed: half(outputs, hidden),
            head_inner: (config.head == HeadKind::Process).then(|| half(outputs, hidden)),
            head: full(outputs, head_width(config, options)),
        }
    }

    fn into_iter(self) -> impl Iterator<Item = Allocation> {
        let fixed = [
            self.stream,
            self.normed,
            self.qkv,
            self.attended,
            self.gate_up,
            self.inner,
            self.outputs,
            self.outputs_normed,
            self.head,
        ];
        fixed.into_iter().chain(self.branch).chain(self.head_inner)
    }
}

impl<T> Buffers<T> {
    /// The same buffers, each made of this one.
    pub fn try_map<U, E>(self, mut of: impl FnMut(T) -> Result<U, E>) -> Result<Buffers<U>, E> {
        Ok(Buffers {
            stream: of(self.stream)?,
            normed: of(self.normed)?,
            qkv: of(self.qkv)?,
            attended: of(self.attended)?,
            gate_up: of(self.gate_up)?,
            inner: of(self.inner)?,
            branch: self.branch.map(&mut of).transpose()?,
            outputs: of(self.outputs)?,
            outputs_normed: of(self.outputs_normed)?,
            head_inner: self.head_inner.map(&mut of).transpose()?,
            head: of(self.head)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    fn layout(config: &ModelConfig) -> KvLayout {
        KvLayout {
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            block_tokens: 16,
            dtype: config.dtype.into(),
            unit_bytes: 64,
            query_scalar: config.scales.query_scalar,
        }
    }

    /// Elements of matrices, quantised matrices and vectors.
    fn elements(allocations: &[Allocation]) -> [usize; 3] {
        let mut sums = [0; 3];
        for allocation in allocations {
            match *allocation {
                Allocation::Matrix { rows, cols } => sums[0] += rows * cols,
                Allocation::Quantized { rows, cols, .. } => sums[1] += rows * cols,
                Allocation::Vector { len } => sums[2] += len,
                _ => {}
            }
        }
        sums
    }

    #[test]
    fn the_plan_has_every_parameter_once() {
        let mut cases = 0;
        for case in golden(".").files().expect("a directory") {
            let source = golden(&case);
            if source.read("golden.json").expect("readable").is_none() {
                continue;
            }
            cases += 1;
            let checkpoint = Checkpoint::open(source).expect("opens");
            let config = &checkpoint.config;
            let options = LoadOptions {
                max_rows: 8,
                max_head_bytes: 1 << 20,
                context_length: 64,
                kv_tokens: 48,
                head_rows: None,
                quantize: None,
            };
            let plan = |options| allocations(&checkpoint, &layout(config), &options);
            let all = plan(options.clone());
            assert_eq!(
                elements(&all).iter().sum::<usize>(),
                checkpoint.params(),
                "{case}"
            );
            let table = Allocation::Rope {
                positions: 48,
                half_dim: config.head_dim / 2,
            };
            let tables = distinct(&config.ropes).len();
            assert_eq!(
                all.iter().filter(|a| **a == table).count(),
                tables,
                "{case}"
            );

            // Some rows of an LM head in place of all; other heads stay.
            let rows = plan(LoadOptions {
                head_rows: Some(vec![3, 5]),
                ..options.clone()
            });
            let (vocab, hidden) = (config.vocab, config.hidden);
            let more = match (config.head == HeadKind::Causal, config.tied_embeddings) {
                (false, _) => 0,
                (true, true) => 2 * hidden as isize,
                (true, false) => (2 - vocab as isize) * hidden as isize,
            };
            let difference = elements(&rows)[0] as isize - elements(&all)[0] as isize;
            assert_eq!(difference, more, "{case}");

            // A quantised LM head is a matrix beside a tied embedding.
            let quantized = plan(LoadOptions {
                quantize: Some(Quantization::Int8),
                ..options
            });
            let [floats, integers, _] = elements(&quantized);
            let tied = config.head == HeadKind::Causal && config.tied_embeddings;
            let head = if tied { vocab * hidden } else { 0 };
            assert_eq!(floats + integers, elements(&all)[0] + head, "{case}");
        }
        assert_eq!(cases, 26);
    }
}
