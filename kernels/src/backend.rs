//! The [`Backend`] trait: the operations of a transformer on one device, enqueued in order.

use crate::plan::{BatchPlan, BlockId, Substitution};
use crate::quant::{Quantization, QuantizedMatrix};
use crate::sampling::{Draw, Sample};
use crate::{Activation, Dtype, Error, KvDtype};

/// A row-major matrix of a checkpoint, borrowed from the mapped file.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    /// Rows: output features (or vocabulary entries).
    pub rows: usize,
    /// Columns: input features.
    pub cols: usize,
    /// Storage type.
    pub dtype: Dtype,
    /// `rows * cols * dtype.bytes()` little-endian bytes, of any alignment.
    pub bytes: &'a [u8],
}

/// Cosines and sines of the rotary embedding, `[context length][head_dim / 2]` each.
///
/// Elements `i` and `i + head_dim / 2` are rotated as a pair, as in Hugging Face's Llama
/// (`rotate_half`).
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// Half the head dimension: columns of both tables.
    pub half_dim: usize,
    /// Cosines, row-major.
    pub cos: Vec<f32>,
    /// Sines, row-major.
    pub sin: Vec<f32>,
}

/// The shape of one model's KV blocks, and of the heads that use them.
///
/// Each backend chooses the order of elements inside a block. A block takes `block_bytes()` bytes
/// at offset `BlockId * unit_bytes` of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Number of layers of the model.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of one head's vector.
    pub head_dim: usize,
    /// Attention scores are `q . k / sqrt(query_scalar)`: `head_dim` in most models
    /// (`query_pre_attn_scalar` of Hugging Face's configs).
    pub query_scalar: usize,
    /// Tokens per block.
    pub block_tokens: usize,
    /// Storage type of K and V.
    pub dtype: KvDtype,
    /// The unit of a [`BlockId`] in bytes; a multiple of 64.
    pub unit_bytes: usize,
}

impl KvLayout {
    /// Bytes of one token's K and V over all layers.
    pub fn token_bytes(&self) -> usize {
        2 * self.layers * self.kv_heads * self.dtype.vector_bytes(self.head_dim)
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> usize {
        self.block_tokens * self.token_bytes()
    }

    /// Columns of a fused query-key-value row: `(heads + 2 * kv_heads) * head_dim`.
    pub fn qkv_cols(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// One allocation of device memory that lives as long as a model, named by the method that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// [`Backend::load_matrix`].
    Matrix {
        /// Rows of all parts.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// [`Backend::load_quantized`].
    Quantized {
        /// Rows of all parts.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Type of the integers.
        kind: Quantization,
    },
    /// [`Backend::load_vector`].
    Vector {
        /// Elements.
        len: usize,
    },
    /// [`Backend::load_rope`].
    Rope {
        /// Rows of both tables: the context length.
        positions: usize,
        /// Columns of both tables.
        half_dim: usize,
    },
    /// [`Backend::activations`].
    Activations {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// [`Backend::half_activations`].
    HalfActivations {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
}

/// Default size of the KV arena in bytes.
pub const DEFAULT_KV_BYTES: usize = 1 << 30;

/// One device: its memory, and the operations of a transformer.
///
/// Operations are *enqueued*: they run in the order of the calls, and a call may return before its
/// work is done. Only [`Backend::finish_samples`] and [`Backend::finish_read`] wait. The CPU
/// backend runs each operation before it returns.
///
/// Activations are row-major `[rows, cols]` f32; a GPU may store
/// [`Backend::half_activations`] in bf16. A buffer may have more rows than a batch; the `rows`
/// argument of an operation says how many it computes.
///
/// # Row independence
///
/// On the CPU the bits of an output row do not depend on the other rows of the batch, on how runs
/// are shared, or on the number of threads.
pub trait Backend {
    /// A weight matrix in the device's layout.
    type Weight;
    /// An f32 vector: a norm's weights or a bias.
    type Vector;
    /// A rotary embedding table.
    type Rope;
    /// A buffer of activations.
    type Activations;
    /// The memory that holds the KV blocks of all models.
    type Arena;
    /// A plan on the device.
    type Plan;
    /// Recorded forward passes that can be launched again as a whole (CUDA graphs).
    type Recordings: Default;
    /// Samples not yet on the host.
    type PendingSamples;
    /// Activations not yet on the host.
    type PendingRead;

    /// The device's name, for messages and reports.
    fn name(&self) -> String;

    /// Whether async scheduling pays: enqueuing a batch before the previous one is done. A device
    /// that computes within the call would only waste rows on branches that have ended.
    fn async_scheduling(&self) -> bool {
        false
    }

    /// The number of decoding sequences from which more of them in one batch do not raise the
    /// throughput of a model with `flops_per_row`: with more, each takes longer and none ends
    /// sooner.
    fn max_num_seqs(&self, _flops_per_row: u64) -> usize {
        usize::MAX
    }

    /// Rows of one model in one batch unless an option says otherwise.
    fn max_batch_rows(&self) -> usize {
        512
    }

    /// Bytes of one model's head output in one batch: bounds the rows that a batch can draw tokens
    /// for with a large vocabulary.
    fn max_head_bytes(&self) -> usize {
        64 << 20
    }

    /// The default KV cache type of a model whose weights are stored as `weights`.
    fn kv_dtype(&self, weights: Dtype) -> KvDtype {
        weights.into()
    }

    /// Checks that there is a kernel for the layout.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if there is none.
    fn check_layout(&self, _layout: &KvLayout) -> Result<(), Error> {
        Ok(())
    }

    /// Reserves the memory of all `models` at once, before any of them is loaded. Returns the size of
    /// the KV arena to allocate beside them, in bytes: `kv_bytes`, or the device's remaining memory
    /// as far as blocks of these `layouts` can lie in it. A device that allocates on demand reserves
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotFit`] if `models` do not fit together with `kv_bytes`, or with one block of
    /// each layout if that is `None`; [`Error::Unsupported`] if blocks of these layouts cannot lie in
    /// `kv_bytes`.
    fn reserve(
        &mut self,
        _models: &[Allocation],
        _layouts: &[KvLayout],
        kv_bytes: Option<usize>,
    ) -> Result<usize, Error> {
        Ok(kv_bytes.unwrap_or(DEFAULT_KV_BYTES))
    }

    /// Announces that the next loads, or the next forward pass, belong to the engine's model `index`.
    fn select_model(&mut self, _index: usize) {}

    /// Loads a weight matrix: `parts` stacked along the rows, all with the same `cols` (the parts
    /// of a fused projection).
    fn load_matrix(&mut self, parts: &[MatrixView<'_>]) -> Result<Self::Weight, Error>;
    /// Loads a quantised weight matrix for linear layers: `parts` stacked along the rows, all with
    /// the same `cols` and kind.
    fn load_quantized(&mut self, parts: &[QuantizedMatrix<'_>]) -> Result<Self::Weight, Error> {
        Err(Error::Unsupported {
            device: self.name(),
            what: format!("a matrix in {}", parts[0].kind.name()),
        })
    }
    /// Bytes of `weight` that a linear layer reads.
    fn weight_bytes(&self, weight: &Self::Weight) -> usize;
    /// Loads a vector.
    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector, Error>;
    /// Loads a rotary embedding table.
    fn load_rope(&mut self, table: RopeTable) -> Result<Self::Rope, Error>;
    /// Allocates a zeroed f32 buffer `[rows, cols]`.
    fn activations(&mut self, rows: usize, cols: usize) -> Result<Self::Activations, Error>;
    /// Allocates a zeroed buffer `[rows, cols]` for activations that a device may round to bf16:
    /// the inputs of linear layers, and row-wise results computed from them. [`Backend::linear`]'s
    /// input and [`Backend::tree_attention`]'s input and output must be such buffers.
    fn half_activations(&mut self, rows: usize, cols: usize) -> Result<Self::Activations, Error> {
        self.activations(rows, cols)
    }
    /// Allocates the KV arena; memory may be committed on first touch.
    fn arena(&mut self, bytes: usize) -> Result<Self::Arena, Error>;

    /// Copies a batch's plan to the device, for all layers of the batch.
    fn upload(&mut self, plan: &BatchPlan) -> Result<Self::Plan, Error>;

    /// The number of rows to pad a plan to ([`BatchPlan::padded`]), so that an earlier recording of
    /// the pass, or what a library chose for a number of rows, can be reused.
    fn padded_rows(&self, plan: &BatchPlan) -> usize {
        plan.rows.len()
    }

    /// Runs `pass`, which enqueues operations over an uploaded plan. A device may record it, and
    /// launch the recording for a later plan of as many rows and outputs instead. All passes with
    /// the same `recordings` must enqueue the same operations with the same weights, buffers and
    /// arena.
    fn record(
        &mut self,
        _recordings: &mut Self::Recordings,
        _plan: &Self::Plan,
        pass: &mut dyn FnMut(&mut Self),
    ) {
        pass(self);
    }

    /// `plan.rows[s.row].token_id = samples[s.draw].token_id` for every `s` of `substitutions`: sets
    /// the input tokens of rows whose token is still on the device. Call it before anything else
    /// uses the plan.
    fn substitute_tokens(
        &mut self,
        plan: &mut Self::Plan,
        substitutions: &[Substitution],
        samples: &Self::PendingSamples,
    );

    /// `out[r, :] = scale * table[plan.rows[r].token_id, :]`.
    fn embed(
        &mut self,
        table: &Self::Weight,
        plan: &Self::Plan,
        scale: f32,
        out: &mut Self::Activations,
    );

    /// `out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight` for the first `rows` rows.
    fn rms_norm(
        &mut self,
        x: &Self::Activations,
        weight: &Self::Vector,
        eps: f32,
        rows: usize,
        out: &mut Self::Activations,
    );

    /// `out[r, :] += x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight` for the first `rows` rows: the
    /// residual connection behind a normalised layer output.
    fn add_rms_norm(
        &mut self,
        x: &Self::Activations,
        weight: &Self::Vector,
        eps: f32,
        rows: usize,
        out: &mut Self::Activations,
    );

    /// `out[r, n] = sum_k x[r, k] * w[n, k] + bias[n]`, plus `out[r, n]` itself if `accumulate`
    /// (a residual connection), for the first `rows` rows.
    fn linear(
        &mut self,
        x: &Self::Activations,
        w: &Self::Weight,
        bias: Option<&Self::Vector>,
        rows: usize,
        accumulate: bool,
        out: &mut Self::Activations,
    );

    /// [`Backend::linear`], then [`Backend::gated`] of its output: with `p = x w^T + bias` and `a`
    /// the activation, `out[r, c] = a(p[r, c]) * p[r, cols + c]` for the first `rows` rows, where
    /// `out` has `cols` columns and `w` twice as many rows. `out` must be one of
    /// [`Backend::half_activations`].
    ///
    /// `gate_up` (`[rows, 2 * cols]`) is scratch memory for a device that runs both operations in
    /// turn; its contents afterwards are unspecified.
    #[allow(clippy::too_many_arguments)] // each is one of the formula's names
    fn linear_gated(
        &mut self,
        x: &Self::Activations,
        w: &Self::Weight,
        bias: Option<&Self::Vector>,
        activation: Activation,
        rows: usize,
        gate_up: &mut Self::Activations,
        out: &mut Self::Activations,
    ) {
        self.linear(x, w, bias, rows, false, gate_up);
        self.gated(gate_up, activation, rows, out);
    }

    /// `head[:] = head[:] / sqrt(mean(head[:]^2) + eps) * weight` for every Q head (with
    /// `q_weight`) and K head (with `k_weight`, both `[head_dim]`) of the first `rows` rows of
    /// `qkv`, in place: the QK norm of Qwen3, before rotation.
    #[allow(clippy::too_many_arguments)] // each is one of the formula's names
    fn qk_norm(
        &mut self,
        qkv: &mut Self::Activations,
        q_weight: &Self::Vector,
        k_weight: &Self::Vector,
        eps: f32,
        rows: usize,
        layout: &KvLayout,
    );

    /// Rotates Q and K of every row of `qkv` (`[rows, q heads | k heads | v heads]`) by the row's
    /// position, Q in place, and writes K and V of the rows that have a slot into layer `layer` of
    /// the arena.
    fn rope_and_append(
        &mut self,
        qkv: &mut Self::Activations,
        rope: &Self::Rope,
        plan: &Self::Plan,
        layout: &KvLayout,
        layer: usize,
        arena: &mut Self::Arena,
    );

    /// `out[r, h, :] = softmax_t(q[r, h, :] . k[t, g, :] / sqrt(query_scalar)) v[t, g, :]`, `g` the
    /// head's KV head, over the tokens `t` of the row's runs at positions `<= row.position`, and,
    /// with a sliding `window` (1 or more), `> row.position - window`. `qkv` as after
    /// [`Backend::rope_and_append`]; `out` is `[rows, heads * head_dim]`.
    #[allow(clippy::too_many_arguments)] // each is one of the formula's names
    fn tree_attention(
        &mut self,
        qkv: &Self::Activations,
        plan: &Self::Plan,
        layout: &KvLayout,
        layer: usize,
        window: Option<u32>,
        arena: &Self::Arena,
        out: &mut Self::Activations,
    );

    /// `out[r, c] = a(gate_up[r, c]) * gate_up[r, cols + c]`, `a` the activation, for the first
    /// `rows` rows, where `out` has `cols` columns and `gate_up` twice as many: SwiGLU and GeGLU
    /// (Shazeer 2020, arXiv 2002.05202).
    fn gated(
        &mut self,
        gate_up: &Self::Activations,
        activation: Activation,
        rows: usize,
        out: &mut Self::Activations,
    );

    /// `x[r, c] = max(x[r, c], 0)` for the first `rows` rows; NaN stays NaN.
    fn relu(&mut self, x: &mut Self::Activations, rows: usize);

    /// `out[i, :] = x[plan.outputs[i], :]`.
    fn gather_outputs(
        &mut self,
        x: &Self::Activations,
        plan: &Self::Plan,
        out: &mut Self::Activations,
    );

    /// Copies whole blocks, all layers: `(from, to)` pairs, in any order.
    fn copy_blocks(
        &mut self,
        layout: &KvLayout,
        pairs: &[(BlockId, BlockId)],
        arena: &mut Self::Arena,
    );

    /// Draws tokens from rows of `logits`, `[rows, vocabulary]`.
    fn sample(&mut self, logits: &Self::Activations, draws: &[Draw<'_>]) -> Self::PendingSamples;
    /// Waits for the tokens of [`Backend::sample`]; returns them in the order of the draws.
    ///
    /// # Errors
    ///
    /// [`Error::BadLogits`] of the first draw that has no token, or a failed operation.
    fn finish_samples(&mut self, pending: Self::PendingSamples) -> Result<Vec<Sample>, Error>;

    /// Starts to copy rows `rows` of `x` to the host.
    fn read(&mut self, x: &Self::Activations, rows: std::ops::Range<usize>) -> Self::PendingRead;
    /// Waits for the activations of [`Backend::read`], row-major f32.
    ///
    /// # Errors
    ///
    /// A failed operation.
    fn finish_read(&mut self, pending: Self::PendingRead) -> Result<Vec<f32>, Error>;
}
