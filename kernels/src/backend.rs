//! The [`Backend`] trait: a transformer's operations, on one device, in order.

use crate::plan::{BlockId, Feed, StepPlan};
use crate::quant::Quantized;
use crate::sampling::{Draw, Sample};
use crate::{Activation, Dtype, Error, KvDtype};

/// A row-major matrix of a checkpoint, borrowed from its file.
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

/// Cosines and sines of the rotary embedding, `[positions][head_dim / 2]` each.
///
/// Pairs are `(i, i + head_dim / 2)` as in Hugging Face's Llama (`rotate_half`).
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// Half the head dimension: columns of both tables.
    pub half_dim: usize,
    /// Cosines, row-major.
    pub cos: Vec<f32>,
    /// Sines, row-major.
    pub sin: Vec<f32>,
}

/// How one model's K and V lie in a block, and how its heads use them.
///
/// The order of elements inside a block is the backend's own affair. Every block takes
/// `block_bytes()` bytes at `BlockId * unit_bytes` of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Layers of the model.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Attention scores are `q . k / sqrt(query_scalar)`: `head_dim`, unless the model's config
    /// says otherwise (`query_pre_attn_scalar` in Hugging Face's configs).
    pub query_scalar: usize,
    /// Tokens a block holds.
    pub block_tokens: usize,
    /// Storage type of K and V.
    pub dtype: KvDtype,
    /// Bytes that one step of a [`BlockId`] stands for; a multiple of 64.
    pub unit_bytes: usize,
}

impl KvLayout {
    /// Bytes of K and V of one token over all layers.
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

/// Bytes of KV arena, unless more is known or asked for.
pub const DEFAULT_KV_BYTES: usize = 1 << 30;

/// One device: memory and the operations of a transformer.
///
/// Operations are *enqueued*: they run in the order of the calls, and a call may return before
/// its work is done. Only [`Backend::finish_samples`] and [`Backend::finish_read`] wait. The CPU
/// backend simply runs at once.
///
/// Activations are row-major `[rows, cols]` f32 on the CPU (a GPU may keep them in bf16). A buffer
/// may have more rows than a step uses; `rows` arguments say how many count.
///
/// # Row independence
///
/// On the CPU every output row is the same bits whatever other rows are in the step, however
/// their runs are shared, and whatever the number of threads.
pub trait Backend {
    /// A weight matrix as the device keeps it.
    type Weight;
    /// A small f32 vector: a norm's weights, a bias.
    type Vector;
    /// A rotary table.
    type Rope;
    /// A buffer of activations.
    type Activations;
    /// The memory all KV blocks lie in, whichever model they belong to.
    type Arena;
    /// A plan as the device keeps it.
    type Plan;
    /// Passes over plans that need not be enqueued operation by operation again.
    type Recordings: Default;
    /// Samples under way to the host.
    type PendingSamples;
    /// Numbers under way to the host.
    type PendingRead;

    /// The device in words, for messages and reports.
    fn name(&self) -> String;

    /// Whether it pays to enqueue a step before the one before it is done. A device that computes at
    /// once would only compute rows for branches that turn out to have ended.
    fn runs_ahead(&self) -> bool {
        false
    }

    /// The type of the KV cache of a model whose weights are stored as `weights`, unless another
    /// is asked for.
    fn kv_dtype(&self, weights: Dtype) -> KvDtype {
        weights.into()
    }

    /// Refuses a layout there is no kernel for.
    fn check_layout(&self, _layout: &KvLayout) -> Result<(), Error> {
        Ok(())
    }

    /// Begins to count memory: until [`Backend::reserve`] what is loaded or allocated takes none, and
    /// no operation may use it. `false`, and nothing begins, on a device that gives memory as it is
    /// asked for.
    fn count_memory(&mut self) -> bool {
        false
    }
    /// Ends the counting and takes the memory of all that was counted at once; it is then to be
    /// loaded again. Says how many bytes of KV arena are to be allocated beside it: `kv`, or what the
    /// device has left.
    ///
    /// # Errors
    ///
    /// What was counted does not fit together with `kv` bytes, or `least` if none are named.
    fn reserve(&mut self, kv: Option<usize>, _least: usize) -> Result<usize, Error> {
        Ok(kv.unwrap_or(DEFAULT_KV_BYTES))
    }

    /// Takes a weight matrix made of `parts` stacked along the rows (all of one `cols`; the parts
    /// of a fused projection).
    fn load_matrix(&mut self, parts: &[MatrixView<'_>]) -> Result<Self::Weight, Error>;
    /// Takes a quantised weight matrix made of `parts` stacked along the rows (all of one width and
    /// kind), for products.
    fn load_quantized(&mut self, parts: &[Quantized<'_>]) -> Result<Self::Weight, Error> {
        Err(Error::Unsupported {
            device: self.name(),
            what: format!("a matrix in {}", parts[0].kind.name()),
        })
    }
    /// Bytes that a product with `weight` reads of it.
    fn weight_bytes(&self, weight: &Self::Weight) -> usize;
    /// Takes a vector.
    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector, Error>;
    /// Takes a rotary table.
    fn load_rope(&mut self, table: RopeTable) -> Result<Self::Rope, Error>;
    /// Allocates a zeroed buffer of `rows * cols`.
    fn activations(&mut self, rows: usize, cols: usize) -> Result<Self::Activations, Error>;
    /// Allocates a zeroed buffer of `rows * cols` for what products take in and what is made of
    /// that row by row: a device may round it to bf16. [`Backend::linear`]'s input,
    /// [`Backend::tree_attention`]'s input and output must be such buffers.
    fn product_activations(
        &mut self,
        rows: usize,
        cols: usize,
    ) -> Result<Self::Activations, Error> {
        self.activations(rows, cols)
    }
    /// Allocates the KV arena; memory may be committed as it is touched.
    fn arena(&mut self, bytes: usize) -> Result<Self::Arena, Error>;

    /// Makes a step's plan known to the device. Used by every layer of the step.
    fn upload(&mut self, plan: &StepPlan) -> Result<Self::Plan, Error>;

    /// The rows that a plan is best padded to ([`StepPlan::padded`]) so that its pass is one that was
    /// recorded before.
    fn padded_rows(&self, plan: &StepPlan) -> usize {
        plan.rows.len()
    }

    /// Runs `pass`, which enqueues operations over an uploaded plan, or what a device has recorded of
    /// an earlier one over a plan of as many rows and outputs. Every pass given with the same
    /// `recordings` must be the same operations with the same weights, buffers and arena.
    fn record(
        &mut self,
        _recordings: &mut Self::Recordings,
        _plan: &Self::Plan,
        pass: &mut dyn FnMut(&mut Self),
    ) {
        pass(self);
    }

    /// `plan.rows[feed.row].token = samples[feed.draw].token` for every feed: rows that go on with
    /// tokens nobody has waited for. Before the plan is used otherwise.
    fn feed(&mut self, plan: &mut Self::Plan, feeds: &[Feed], samples: &Self::PendingSamples);

    /// `out[r, :] = scale * table[plan.rows[r].token, :]`.
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

    /// [`Backend::linear`], then [`Backend::gated`] of its output: with `p = x w^T + bias` and `a` the
    /// activation, `out[r, c] = a(p[r, c]) * p[r, cols + c]` for the first `rows` rows, where `out` has
    /// `cols` columns and `w` twice as many rows. `out` must be one of
    /// [`Backend::product_activations`].
    ///
    /// `gate_up` (`[rows, 2 * cols]`) holds `p` on a device that runs the two one after the other; its
    /// content afterwards is unspecified.
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

    /// `head[:] = head[:] / sqrt(mean(head[:]^2) + eps) * weight` for every Q head (with `q_weight`)
    /// and K head (with `k_weight`, both `[head_dim]`) of the first `rows` rows of `qkv`, in place:
    /// the QK norm of Qwen3, before rotation.
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
    /// position, Q in place; writes K and V of the rows that have a slot into layer `layer`.
    fn rope_and_append(
        &mut self,
        qkv: &mut Self::Activations,
        rope: &Self::Rope,
        plan: &Self::Plan,
        layout: &KvLayout,
        layer: usize,
        arena: &mut Self::Arena,
    );

    /// `out[r, h, :] = softmax_t(q[r, h, :] . k[t, h / group, :] / sqrt(query_scalar)) v[t, h / group, :]`
    /// over the tokens `t` of the row's runs at positions `<= row.position`, and, with a sliding
    /// `window` (1 or more), `> row.position - window`. `qkv` as after
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

    /// `out[r, c] = a(gate_up[r, c]) * gate_up[r, cols + c]`, `a` the activation, for the first `rows`
    /// rows, where `out` has `cols` columns and `gate_up` twice as many: SwiGLU and GeGLU (Shazeer
    /// 2020, arXiv 2002.05202).
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

    /// Copies whole blocks: `(from, to)` pairs, all layers, any order.
    fn copy_blocks(
        &mut self,
        layout: &KvLayout,
        pairs: &[(BlockId, BlockId)],
        arena: &mut Self::Arena,
    );

    /// Draws tokens from rows of `logits` (`[rows, vocabulary]`).
    fn sample(&mut self, logits: &Self::Activations, draws: &[Draw<'_>]) -> Self::PendingSamples;
    /// Waits for the tokens of [`Backend::sample`], in the order of the draws.
    fn finish_samples(&mut self, pending: Self::PendingSamples) -> Result<Vec<Sample>, Error>;

    /// Begins to read rows `rows` of `x`.
    fn read(&mut self, x: &Self::Activations, rows: std::ops::Range<usize>) -> Self::PendingRead;
    /// Waits for the numbers of [`Backend::read`], row-major f32.
    fn finish_read(&mut self, pending: Self::PendingRead) -> Result<Vec<f32>, Error>;
}
