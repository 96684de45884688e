//! A model's weights on a device, and its forward pass, written once against [`Backend`].
//!
//! The pass is that of Llama (Touvron et al. 2023, arXiv 2302.13971): pre-norm blocks of
//! attention with rotary embedding and a SwiGLU feed-forward. What distinguishes architectures is
//! data in [`ModelConfig`]: which products have biases, the shape of the head.

use kernels::{Backend, BlockId, KvLayout, RopeTable, StepPlan};

use crate::Error;
use crate::arch::{TensorNames, bias_of, of_layer};
use crate::checkpoint::Checkpoint;
use crate::config::{HeadKind, ModelConfig};
use crate::executor::ModelShape;

struct Layer<B: Backend> {
    attention_norm: B::Vector,
    qkv: B::Weight,
    qkv_bias: Option<B::Vector>,
    output: B::Weight,
    output_bias: Option<B::Vector>,
    mlp_norm: B::Vector,
    gate_up: B::Weight,
    gate_up_bias: Option<B::Vector>,
    down: B::Weight,
    down_bias: Option<B::Vector>,
}

/// A model on a device, with the buffers of its largest step.
pub(crate) struct Model<B: Backend> {
    config: ModelConfig,
    layout: KvLayout,
    embedding: B::Weight,
    layers: Vec<Layer<B>>,
    norm: B::Vector,
    /// `None` when the head is the embedding itself.
    head: Option<B::Weight>,
    head_bias: Option<B::Vector>,
    rope: B::Rope,
    buffers: Buffers<B>,
}

struct Buffers<B: Backend> {
    /// The residual stream, `[rows, hidden]`.
    stream: B::Activations,
    /// A normed copy, `[rows, hidden]`.
    normed: B::Activations,
    /// `[rows, (heads + 2 kv_heads) * head_dim]`.
    qkv: B::Activations,
    /// `[rows, heads * head_dim]`.
    attended: B::Activations,
    /// `[rows, 2 * intermediate]`.
    gate_up: B::Activations,
    /// `[rows, intermediate]`.
    inner: B::Activations,
    /// `[outputs, hidden]`, gathered and then normed.
    outputs: B::Activations,
    outputs_normed: B::Activations,
    /// `[outputs, head width]`.
    head: B::Activations,
}

/// The bytes of head output one step may give: bounds the buffer for large vocabularies.
const HEAD_BYTES: usize = 64 << 20;

/// What scheduling must know of a model with this configuration.
pub(crate) fn shape(config: &ModelConfig, layout: &KvLayout, max_rows: usize) -> ModelShape {
    let c = config;
    let projections = c.hidden * layout.qkv_cols() + c.heads * c.head_dim * c.hidden;
    let per_layer = projections + 3 * c.hidden * c.intermediate;
    let head_width = head_width(c);
    ModelShape {
        vocab: c.vocab,
        max_positions: c.max_positions,
        head_width,
        block_bytes: layout.block_bytes(),
        flops_per_row: 2 * (c.layers * per_layer) as u64,
        flops_per_output: 2 * (c.hidden * head_width) as u64,
        flops_per_visible: 4 * (c.layers * c.heads * c.head_dim) as u64,
        max_outputs: (HEAD_BYTES / (4 * head_width)).clamp(1, max_rows),
    }
}

impl<B: Backend> Model<B> {
    /// Puts a checkpoint's weights onto the device.
    ///
    /// # Errors
    /// A missing tensor, a wrong shape or dtype, or no memory.
    pub fn load(
        backend: &mut B,
        checkpoint: &Checkpoint,
        layout: KvLayout,
        max_rows: usize,
    ) -> Result<Model<B>, Error> {
        let config = checkpoint.config.clone();
        let names = config.names();
        let loader = &mut Loader {
            backend,
            checkpoint,
        };
        let hidden = config.hidden;
        let layers = (0..config.layers)
            .map(|i| loader.layer(&config, names, i))
            .collect::<Result<_, _>>()?;
        let width = head_width(&config);
        let (head, head_bias) = match &config.head {
            HeadKind::Causal if config.tied_embeddings => (None, None),
            HeadKind::Causal => (
                Some(loader.matrix(&[(names.lm_head, width)], hidden)?),
                None,
            ),
            HeadKind::TokenClassification { .. } => {
                let bias = bias_of(names.score);
                let bias = match checkpoint.contains(&bias) {
                    true => Some(loader.vector(&[(&bias, width)])?),
                    false => None,
                };
                (Some(loader.matrix(&[(names.score, width)], hidden)?), bias)
            }
        };
        let embedding = loader.matrix(&[(names.embedding, config.vocab)], hidden)?;
        let norm = loader.vector(&[(names.final_norm, hidden)])?;
        let rope = backend.load_rope(rope_table(&config))?;
        let outputs = shape(&config, &layout, max_rows).max_outputs;
        let mut buffer = |rows, cols| backend.activations(rows, cols);
        let buffers = Buffers {
            stream: buffer(max_rows, hidden)?,
            normed: buffer(max_rows, hidden)?,
            qkv: buffer(max_rows, layout.qkv_cols())?,
            attended: buffer(max_rows, config.heads * config.head_dim)?,
            gate_up: buffer(max_rows, 2 * config.intermediate)?,
            inner: buffer(max_rows, config.intermediate)?,
            outputs: buffer(outputs, hidden)?,
            outputs_normed: buffer(outputs, hidden)?,
            head: buffer(outputs, width)?,
        };
        Ok(Model {
            config,
            layout,
            embedding,
            layers,
            norm,
            head,
            head_bias,
            rope,
            buffers,
        })
    }

    /// Enqueues the pass over the plan's rows. The head's numbers for the plan's outputs are in
    /// the returned buffer, `[outputs, head width]`.
    pub fn forward(
        &mut self,
        backend: &mut B,
        arena: &mut B::Arena,
        plan: &StepPlan,
        copies: &[(BlockId, BlockId)],
    ) -> Result<&B::Activations, Error> {
        let Model {
            config,
            layout,
            buffers: b,
            ..
        } = self;
        let (rows, eps) = (plan.rows.len(), config.rms_eps);
        if !copies.is_empty() {
            backend.copy_blocks(layout, copies, arena);
        }
        let device_plan = &backend.upload(plan)?;
        backend.embed(&self.embedding, device_plan, &mut b.stream);
        for (i, layer) in self.layers.iter().enumerate() {
            backend.rms_norm(&b.stream, &layer.attention_norm, eps, rows, &mut b.normed);
            backend.linear(
                &b.normed,
                &layer.qkv,
                layer.qkv_bias.as_ref(),
                rows,
                false,
                &mut b.qkv,
            );
            backend.rope_and_append(&mut b.qkv, &self.rope, device_plan, layout, i, arena);
            backend.tree_attention(&b.qkv, device_plan, layout, i, arena, &mut b.attended);
            backend.linear(
                &b.attended,
                &layer.output,
                layer.output_bias.as_ref(),
                rows,
                true,
                &mut b.stream,
            );
            backend.rms_norm(&b.stream, &layer.mlp_norm, eps, rows, &mut b.normed);
            backend.linear(
                &b.normed,
                &layer.gate_up,
                layer.gate_up_bias.as_ref(),
                rows,
                false,
                &mut b.gate_up,
            );
            backend.swiglu(&b.gate_up, rows, &mut b.inner);
            backend.linear(
                &b.inner,
                &layer.down,
                layer.down_bias.as_ref(),
                rows,
                true,
                &mut b.stream,
            );
        }
        let outputs = plan.outputs.len();
        if outputs > 0 {
            backend.gather_outputs(&b.stream, device_plan, &mut b.outputs);
            backend.rms_norm(&b.outputs, &self.norm, eps, outputs, &mut b.outputs_normed);
            let head = self.head.as_ref().unwrap_or(&self.embedding);
            backend.linear(
                &b.outputs_normed,
                head,
                self.head_bias.as_ref(),
                outputs,
                false,
                &mut b.head,
            );
        }
        Ok(&b.head)
    }
}

/// Reads tensors of a checkpoint and hands them to a device.
struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    checkpoint: &'a Checkpoint,
}

impl<B: Backend> Loader<'_, B> {
    /// Matrices of `cols` columns stacked along their rows.
    fn matrix(&mut self, parts: &[(&str, usize)], cols: usize) -> Result<B::Weight, Error> {
        let views = (parts.iter())
            .map(|(name, rows)| self.checkpoint.matrix(name, *rows, cols))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.backend.load_matrix(&views)?)
    }

    /// Vectors one after the other.
    fn vector(&mut self, parts: &[(&str, usize)]) -> Result<B::Vector, Error> {
        let mut all = Vec::new();
        for (name, len) in parts {
            all.extend(self.checkpoint.vector(name, *len)?);
        }
        Ok(self.backend.load_vector(&all)?)
    }

    /// A projection made of stacked `parts`, and its bias if it has one.
    fn projection(
        &mut self,
        layer: usize,
        parts: &[(&str, usize)],
        cols: usize,
        biased: bool,
    ) -> Result<(B::Weight, Option<B::Vector>), Error> {
        let names: Vec<(String, usize)> = parts
            .iter()
            .map(|&(n, len)| (of_layer(n, layer), len))
            .collect();
        let matrices: Vec<(&str, usize)> =
            names.iter().map(|(n, len)| (n.as_str(), *len)).collect();
        let weight = self.matrix(&matrices, cols)?;
        let biases: Vec<(String, usize)> =
            names.iter().map(|(n, len)| (bias_of(n), *len)).collect();
        let vectors: Vec<(&str, usize)> =
            biases.iter().map(|(n, len)| (n.as_str(), *len)).collect();
        let bias = biased.then(|| self.vector(&vectors)).transpose()?;
        Ok((weight, bias))
    }

    fn layer(&mut self, c: &ModelConfig, n: &TensorNames, i: usize) -> Result<Layer<B>, Error> {
        let (q, kv, inner) = (
            c.heads * c.head_dim,
            c.kv_heads * c.head_dim,
            c.intermediate,
        );
        let (qkv, qkv_bias) = self.projection(
            i,
            &[(n.q, q), (n.k, kv), (n.v, kv)],
            c.hidden,
            c.attention_bias,
        )?;
        let (output, output_bias) = self.projection(i, &[(n.o, c.hidden)], q, c.output_bias)?;
        let (gate_up, gate_up_bias) =
            self.projection(i, &[(n.gate, inner), (n.up, inner)], c.hidden, c.mlp_bias)?;
        let (down, down_bias) = self.projection(i, &[(n.down, c.hidden)], inner, c.mlp_bias)?;
        Ok(Layer {
            attention_norm: self.vector(&[(&of_layer(n.attention_norm, i), c.hidden)])?,
            qkv,
            qkv_bias,
            output,
            output_bias,
            mlp_norm: self.vector(&[(&of_layer(n.mlp_norm, i), c.hidden)])?,
            gate_up,
            gate_up_bias,
            down,
            down_bias,
        })
    }
}

/// Numbers the head gives for one row.
pub(crate) fn head_width(config: &ModelConfig) -> usize {
    match &config.head {
        HeadKind::Causal => config.vocab,
        HeadKind::TokenClassification { labels } => labels.len(),
    }
}

/// Angles of the rotary embedding (Su et al. 2021, arXiv 2104.09864), in f32 as transformers
/// computes them: `position * theta^(-2 i / head_dim)`.
fn rope_table(config: &ModelConfig) -> RopeTable {
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            (1.0 / config
                .rope_theta
                .powf(2.0 * i as f64 / config.head_dim as f64)) as f32
        })
        .collect();
    let angles =
        || (0..config.max_positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
    RopeTable {
        half_dim: half,
        cos: angles().map(f32::cos).collect(),
        sin: angles().map(f32::sin).collect(),
    }
}
