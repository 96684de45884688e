//! A model's weights on a device, and its forward pass, written once against [`Backend`].
//!
//! The pass is that of Llama (Touvron et al. 2023, arXiv 2302.13971): pre-norm blocks of
//! attention with rotary embedding and a SwiGLU feed-forward. What distinguishes architectures is
//! data in [`ModelConfig`]: which products have biases, whether queries and keys are normalised,
//! which layers see a window, the shape of the head.

use kernels::{
    Activation, Backend, BlockId, Dtype, Feed, KvLayout, MatrixView, Quantization, Quantized,
    RopeTable, StepPlan,
};

use crate::Error;
use crate::arch::{TensorNames, bias_of, of_layer};
use crate::checkpoint::Checkpoint;
use crate::config::{HeadKind, ModelConfig, RopeScaling};
use crate::executor::ModelShape;

struct Layer<B: Backend> {
    attention_norm: B::Vector,
    qkv: B::Weight,
    qkv_bias: Option<B::Vector>,
    /// Of queries and of keys.
    qk_norm: Option<(B::Vector, B::Vector)>,
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
    head: Head<B>,
    rope: B::Rope,
    buffers: Buffers<B>,
    recordings: B::Recordings,
    most_rows: usize,
    most_outputs: usize,
}

/// What makes numbers of a normed state.
enum Head<B: Backend> {
    /// The embedding itself.
    Embedding,
    /// One product.
    Linear(B::Weight, Option<B::Vector>),
    /// A product, a rectifier and a product. The buffer is `[outputs, hidden]`.
    Process {
        inner: (B::Weight, Option<B::Vector>),
        outer: (B::Weight, Option<B::Vector>),
        hidden: B::Activations,
    },
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

/// How a model is used.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    /// Rows of one step.
    pub max_rows: usize,
    /// Tokens a sequence may have.
    pub max_positions: usize,
    /// Tokens the KV memory can hold of one sequence: no position from there on is computed.
    pub capacity: usize,
    /// Rows of the LM head that are wanted; `None`: all.
    pub head_rows: Option<Vec<u32>>,
    /// How matrices of products are kept that are stored in floating point.
    pub quantize: Option<Quantization>,
}

/// What scheduling must know of a model with this configuration.
pub(crate) fn shape(config: &ModelConfig, layout: &KvLayout, how: &Use) -> ModelShape {
    let c = config;
    let projections = c.hidden * layout.qkv_cols() + c.heads * c.head_dim * c.hidden;
    let per_layer = projections + 3 * c.hidden * c.intermediate;
    let head_width = head_width(c, how);
    let head_inner = match c.head {
        HeadKind::Process => c.hidden,
        _ => 0,
    };
    ModelShape {
        vocab: c.vocab,
        max_positions: how.max_positions,
        head_width,
        block_bytes: layout.block_bytes(),
        flops_per_row: 2 * (c.layers * per_layer) as u64,
        flops_per_output: 2 * (c.hidden * (head_width + head_inner)) as u64,
        flops_per_visible: 4 * (c.layers * c.heads * c.head_dim) as u64,
        max_outputs: (HEAD_BYTES / (4 * head_width)).clamp(1, how.max_rows),
    }
}

impl<B: Backend> Model<B> {
    /// Puts a checkpoint's weights onto the device.
    ///
    /// # Errors
    /// A missing tensor, a wrong shape or dtype, a head row outside of the vocabulary, or no memory.
    pub fn load(
        backend: &mut B,
        checkpoint: &Checkpoint,
        layout: KvLayout,
        how: &Use,
    ) -> Result<Model<B>, Error> {
        let config = checkpoint.config.clone();
        let names = config.names();
        let loader = &mut Loader {
            backend,
            checkpoint,
            quantize: how.quantize,
        };
        let hidden = config.hidden;
        let layers = (0..config.layers)
            .map(|i| loader.layer(&config, names, i))
            .collect::<Result<_, _>>()?;
        let outputs = shape(&config, &layout, how).max_outputs;
        let head = loader.head(&config, how, outputs)?;
        let embedding = loader.matrix(&[(names.embedding, config.vocab)], hidden)?;
        let norm = loader.vector(&[(names.final_norm, hidden)])?;
        let positions = how.max_positions.min(how.capacity);
        let rope = backend.load_rope(rope_table(&config, positions))?;
        let max_rows = how.max_rows;
        // Sums and the head's numbers keep f32; what feeds products may be rounded.
        let stream = backend.activations(max_rows, hidden)?;
        let gathered = backend.activations(outputs, hidden)?;
        let head_out = backend.activations(outputs, head_width(&config, how))?;
        let mut buffer = |rows, cols| backend.product_activations(rows, cols);
        let buffers = Buffers {
            stream,
            normed: buffer(max_rows, hidden)?,
            qkv: buffer(max_rows, layout.qkv_cols())?,
            attended: buffer(max_rows, config.heads * config.head_dim)?,
            gate_up: buffer(max_rows, 2 * config.intermediate)?,
            inner: buffer(max_rows, config.intermediate)?,
            outputs: gathered,
            outputs_normed: buffer(outputs, hidden)?,
            head: head_out,
        };
        Ok(Model {
            config,
            layout,
            embedding,
            layers,
            norm,
            head,
            rope,
            buffers,
            recordings: B::Recordings::default(),
            most_rows: max_rows,
            most_outputs: outputs,
        })
    }

    /// Enqueues the pass over the plan's rows, of which some take their tokens from draws that are
    /// under way. The head's numbers for the plan's outputs are in
    /// the returned buffer, `[outputs, head width]`.
    pub fn forward(
        &mut self,
        backend: &mut B,
        arena: &mut B::Arena,
        plan: &StepPlan,
        feeds: Option<(&[Feed], &B::PendingSamples)>,
        copies: &[(BlockId, BlockId)],
    ) -> Result<&B::Activations, Error> {
        let most = plan.rows.len().max(self.most_rows.min(self.most_outputs));
        let rows = backend.padded_rows(plan).min(most);
        let plan = match rows > plan.rows.len() {
            true => &plan.padded(rows),
            false => plan,
        };
        if !copies.is_empty() {
            backend.copy_blocks(&self.layout, copies, arena);
        }
        let mut device_plan = backend.upload(plan)?;
        if let Some((feeds, samples)) = feeds {
            backend.feed(&mut device_plan, feeds, samples);
        }
        let mut recordings = std::mem::take(&mut self.recordings);
        backend.record(&mut recordings, &device_plan, &mut |backend| {
            self.pass(backend, arena, plan, &device_plan);
        });
        self.recordings = recordings;
        Ok(&self.buffers.head)
    }

    /// Enqueues the operations of [`Model::forward`].
    fn pass(
        &mut self,
        backend: &mut B,
        arena: &mut B::Arena,
        plan: &StepPlan,
        device_plan: &B::Plan,
    ) {
        let Model {
            config,
            layout,
            buffers: b,
            ..
        } = self;
        let (rows, eps) = (plan.rows.len(), config.rms_eps);
        backend.embed(&self.embedding, device_plan, 1.0, &mut b.stream);
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
            if let Some((q, k)) = &layer.qk_norm {
                backend.qk_norm(&mut b.qkv, q, k, eps, rows, layout);
            }
            backend.rope_and_append(&mut b.qkv, &self.rope, device_plan, layout, i, arena);
            backend.tree_attention(
                &b.qkv,
                device_plan,
                layout,
                i,
                config.windows[i],
                arena,
                &mut b.attended,
            );
            backend.linear(
                &b.attended,
                &layer.output,
                layer.output_bias.as_ref(),
                rows,
                true,
                &mut b.stream,
            );
            backend.rms_norm(&b.stream, &layer.mlp_norm, eps, rows, &mut b.normed);
            backend.linear_gated(
                &b.normed,
                &layer.gate_up,
                layer.gate_up_bias.as_ref(),
                Activation::Silu,
                rows,
                &mut b.gate_up,
                &mut b.inner,
            );
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
            match &mut self.head {
                Head::Embedding => {
                    let x = &b.outputs_normed;
                    backend.linear(x, &self.embedding, None, outputs, false, &mut b.head);
                }
                Head::Linear(weight, bias) => {
                    let (x, bias) = (&b.outputs_normed, bias.as_ref());
                    backend.linear(x, weight, bias, outputs, false, &mut b.head);
                }
                Head::Process {
                    inner: (weight, bias),
                    outer: (outer, outer_bias),
                    hidden,
                } => {
                    let (x, bias) = (&b.outputs_normed, bias.as_ref());
                    backend.linear(x, weight, bias, outputs, false, hidden);
                    backend.relu(hidden, outputs);
                    let bias = outer_bias.as_ref();
                    backend.linear(hidden, outer, bias, outputs, false, &mut b.head);
                }
            }
        }
    }
}

/// Reads tensors of a checkpoint and hands them to a device.
struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    checkpoint: &'a Checkpoint,
    quantize: Option<Quantization>,
}

impl<B: Backend> Loader<'_, B> {
    /// Matrices of `cols` columns stacked along their rows.
    fn matrix(&mut self, parts: &[(&str, usize)], cols: usize) -> Result<B::Weight, Error> {
        let views = (parts.iter())
            .map(|(name, rows)| self.checkpoint.matrix(name, *rows, cols))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.backend.load_matrix(&views)?)
    }

    /// The matrix of a product, `parts` stacked: quantised if that is asked for, or if one of them
    /// is stored so.
    fn product(&mut self, parts: &[(&str, usize)], cols: usize) -> Result<B::Weight, Error> {
        let stored = (parts.iter())
            .map(|(name, rows)| self.checkpoint.quantized(name, *rows, cols))
            .collect::<Result<Vec<_>, _>>()?;
        let kind = stored.iter().flatten().next().map(|matrix| matrix.kind);
        let Some(kind) = kind.or(self.quantize).filter(|kind| kind.fits(cols)) else {
            return self.matrix(parts, cols);
        };
        let all = (parts.iter().zip(stored))
            .map(|((name, rows), stored)| match stored {
                Some(matrix) => Ok(matrix),
                None => (self.checkpoint.matrix(name, *rows, cols))
                    .map(|matrix| Quantized::new(&matrix, kind)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.backend.load_quantized(&all)?)
    }

    /// Some rows of a matrix `[rows, cols]`, in the order given.
    fn rows_of(
        &mut self,
        name: &str,
        wanted: &[u32],
        rows: usize,
        cols: usize,
    ) -> Result<B::Weight, Error> {
        if let Some(&token) = wanted.iter().find(|&&row| row as usize >= rows) {
            return Err(Error::TokenOutOfVocabulary { token, vocab: rows });
        }
        if let Some(matrix) = self.checkpoint.quantized(name, rows, cols)? {
            let numbers: Vec<f32> = (wanted.iter())
                .flat_map(|&row| matrix.row(row as usize))
                .collect();
            return Ok(self.backend.load_matrix(&[MatrixView {
                rows: wanted.len(),
                cols,
                dtype: Dtype::F32,
                bytes: bytemuck::cast_slice(&numbers),
            }])?);
        }
        let all = self.checkpoint.matrix(name, rows, cols)?;
        let width = cols * all.dtype.bytes();
        let row = |&row: &u32| MatrixView {
            rows: 1,
            bytes: &all.bytes[row as usize * width..][..width],
            ..all
        };
        let views: Vec<_> = wanted.iter().map(row).collect();
        Ok(self.backend.load_matrix(&views)?)
    }

    /// A product's matrix, and its bias if the checkpoint has one.
    fn affine(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<(B::Weight, Option<B::Vector>), Error> {
        let bias = bias_of(name);
        let bias = match self.checkpoint.contains(&bias) {
            true => Some(self.vector(&[(&bias, rows)])?),
            false => None,
        };
        Ok((self.matrix(&[(name, rows)], cols)?, bias))
    }

    /// The head, with a buffer for `outputs` rows where it needs one.
    fn head(&mut self, c: &ModelConfig, how: &Use, outputs: usize) -> Result<Head<B>, Error> {
        let (names, hidden) = (c.names(), c.hidden);
        let lm_head = match c.tied_embeddings {
            true => names.embedding,
            false => names.lm_head,
        };
        // The embedding stays as it is: a quantised LM head is a matrix of its own.
        let apart = self.quantize.is_some_and(|kind| kind.fits(hidden));
        Ok(match (&c.head, &how.head_rows) {
            (HeadKind::Causal, Some(wanted)) => {
                Head::Linear(self.rows_of(lm_head, wanted, c.vocab, hidden)?, None)
            }
            (HeadKind::Causal, None) if c.tied_embeddings && !apart => Head::Embedding,
            (HeadKind::Causal, None) => {
                Head::Linear(self.product(&[(lm_head, c.vocab)], hidden)?, None)
            }
            (HeadKind::TokenClassification { labels }, _) => {
                let (weight, bias) = self.affine(names.score, labels.len(), hidden)?;
                Head::Linear(weight, bias)
            }
            (HeadKind::Value, _) => {
                let (weight, bias) = self.affine(names.value, 1, hidden)?;
                Head::Linear(weight, bias)
            }
            (HeadKind::Process, _) => Head::Process {
                inner: self.affine(names.process_inner, hidden, hidden)?,
                outer: self.affine(names.process_outer, 2, hidden)?,
                hidden: self.backend.product_activations(outputs, hidden)?,
            },
        })
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
        let weight = self.product(&matrices, cols)?;
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
        let qk_norm = match c.qk_norm {
            false => None,
            true => {
                let mut norm = |name| self.vector(&[(&of_layer(name, i), c.head_dim)]);
                Some((norm(n.q_norm)?, norm(n.k_norm)?))
            }
        };
        let (output, output_bias) = self.projection(i, &[(n.o, c.hidden)], q, c.output_bias)?;
        let (gate_up, gate_up_bias) =
            self.projection(i, &[(n.gate, inner), (n.up, inner)], c.hidden, c.mlp_bias)?;
        let (down, down_bias) = self.projection(i, &[(n.down, c.hidden)], inner, c.mlp_bias)?;
        Ok(Layer {
            attention_norm: self.vector(&[(&of_layer(n.attention_norm, i), c.hidden)])?,
            qkv,
            qkv_bias,
            qk_norm,
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
fn head_width(config: &ModelConfig, how: &Use) -> usize {
    match (&config.head, &how.head_rows) {
        (HeadKind::Causal, Some(rows)) => rows.len(),
        (HeadKind::Causal, None) => config.vocab,
        (HeadKind::TokenClassification { labels }, _) => labels.len(),
        (HeadKind::Value, _) => 1,
        (HeadKind::Process, _) => 2,
    }
}

/// Angles of the rotary embedding (Su et al. 2021, arXiv 2104.09864), in f32 as transformers
/// computes them: `position * frequency`.
fn rope_table(config: &ModelConfig, positions: usize) -> RopeTable {
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| frequency(config, i) as f32).collect();
    let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
    RopeTable {
        half_dim: half,
        cos: angles().map(f32::cos).collect(),
        sin: angles().map(f32::sin).collect(),
    }
}

/// Radians by which pair `i` turns per position: `theta^(-2 i / head_dim)`, stretched as the config
/// says. Llama 3's way is that of transformers' `_compute_llama3_parameters`.
fn frequency(config: &ModelConfig, i: usize) -> f64 {
    let plain = config
        .rope_theta
        .powf(-2.0 * i as f64 / config.head_dim as f64);
    match config.rope_scaling {
        RopeScaling::None => plain,
        RopeScaling::Llama3 {
            factor,
            low,
            high,
            original,
        } => {
            // How often the pair turns within the original context.
            let turns = original * plain / std::f64::consts::TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            plain * (kept + (1.0 - kept) / factor)
        }
    }
}
