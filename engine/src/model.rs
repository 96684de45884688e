//! A model's weights on a device, and its forward pass, written once against [`Backend`].
//!
//! The pass is Llama's (Touvron et al. 2023, arXiv 2302.13971): pre-norm blocks of attention with
//! rotary embedding and a gated feed-forward network. What distinguishes architectures is data in
//! [`ModelConfig`] and its layout: biases, QK norms, norms behind a block, windows and rotary
//! embeddings by layer, the activation, scales, the head. `plan` lists what a model keeps on a
//! device; `load` puts it there.

mod load;
mod plan;

use kernels::{Backend, BatchPlan, BlockId, KvLayout, Substitution};

use crate::Error;
use crate::checkpoint::config::ModelConfig;
use plan::Buffers;
pub use plan::max_outputs;
pub(crate) use plan::{LoadOptions, allocations, shape};

/// A model on a device, with the buffers of its largest batch.
pub(crate) struct Model<B: Backend> {
    config: ModelConfig,
    layout: KvLayout,
    embedding: B::Weight,
    /// Factor of the embedded tokens, rounded to the weights' type as transformers does.
    embedding_scale: f32,
    layers: Vec<Layer<B>>,
    norm: B::Vector,
    head: Head<B>,
    /// One rotary table for each distinct rotary embedding of the layers.
    ropes: Vec<B::Rope>,
    buffers: Buffers<B::Activations>,
    recordings: B::Recordings,
    max_rows: usize,
    max_outputs: usize,
}

/// A linear layer, and its bias if it has one.
struct Linear<B: Backend> {
    weight: B::Weight,
    bias: Option<B::Vector>,
}

/// The linear layer that ends a block, and the norm behind it if the family has one.
struct BlockOutput<B: Backend> {
    linear: Linear<B>,
    norm: Option<B::Vector>,
}

struct Layer<B: Backend> {
    attention_norm: B::Vector,
    qkv: Linear<B>,
    /// Of queries and of keys.
    qk_norm: Option<[B::Vector; 2]>,
    /// Which of [`Model::ropes`].
    rope: usize,
    output: BlockOutput<B>,
    mlp_norm: B::Vector,
    gate_up: Linear<B>,
    down: BlockOutput<B>,
}

/// The output head: from the normed final hidden state to logits, labels or a reward.
enum Head<B: Backend> {
    /// The embedding itself.
    Embedding,
    /// One linear layer.
    Linear(Linear<B>),
    /// A linear layer, a rectifier and a linear layer.
    TwoLayer { inner: Linear<B>, outer: Linear<B> },
}

/// What a forward pass gives of the plan's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The head's numbers.
    pub head: bool,
    /// The hidden states of this layer: 0 is the scaled embedding, `i` the residual stream behind
    /// the `i`-th layer, and the number of layers the stream behind the final norm
    /// (`hidden_states` of transformers).
    pub hidden_layer: Option<usize>,
}

impl Wanted {
    /// The head's numbers alone: the pass that is recorded.
    const HEAD: Wanted = Wanted {
        head: true,
        hidden_layer: None,
    };
}

impl<B: Backend> Model<B> {
    /// Enqueues the forward pass of a batch: `copies` of blocks, then the plan's rows, of which
    /// those in `substitutions` take their token from an in-flight sample. Returns a buffer that
    /// holds the head's numbers for the plan's outputs, `[outputs, head width]`, until the next
    /// call, and a read of the hidden states, `[outputs, hidden]`, each if `wanted`.
    ///
    /// # Errors
    /// The device failed.
    pub fn forward(
        &mut self,
        backend: &mut B,
        arena: &mut B::Arena,
        plan: &BatchPlan,
        substitutions: Option<(&[Substitution], &B::PendingSamples)>,
        copies: &[(BlockId, BlockId)],
        wanted: Wanted,
    ) -> Result<(&B::Activations, Option<B::PendingRead>), Error> {
        // Padding rows have outputs only where every row has one.
        let all_outputs = plan.outputs.len() == plan.rows.len();
        let room = match all_outputs {
            true => self.max_rows.min(self.max_outputs),
            false => self.max_rows,
        };
        let rows = backend.padded_rows(plan).min(plan.rows.len().max(room));
        let plan = if rows > plan.rows.len() {
            &plan.padded(rows)
        } else {
            plan
        };
        if !copies.is_empty() {
            backend.copy_blocks(&self.layout, copies, arena);
        }
        let mut device_plan = backend.upload(plan)?;
        if let Some((substitutions, samples)) = substitutions {
            backend.substitute_tokens(&mut device_plan, substitutions, samples);
        }
        let hidden_states = if wanted == Wanted::HEAD {
            let mut recordings = std::mem::take(&mut self.recordings);
            backend.record(&mut recordings, &device_plan, &mut |backend| {
                self.pass(backend, arena, plan, &device_plan, wanted);
            });
            self.recordings = recordings;
            None
        } else {
            // Another pass than the recorded one.
            self.pass(backend, arena, plan, &device_plan, wanted)
        };
        Ok((&self.buffers.head, hidden_states))
    }

    /// Enqueues the operations of [`Model::forward`].
    fn pass(
        &mut self,
        backend: &mut B,
        arena: &mut B::Arena,
        plan: &BatchPlan,
        device_plan: &B::Plan,
        wanted: Wanted,
    ) -> Option<B::PendingRead> {
        let rows = plan.rows.len();
        let outputs = plan.outputs.len();
        let mut hidden_states = None;
        let scale = self.embedding_scale;
        let stream = &mut self.buffers.stream;
        backend.embed(&self.embedding, device_plan, scale, stream);
        for index in 0..self.layers.len() {
            if wanted.hidden_layer == Some(index) {
                let b = &mut self.buffers;
                backend.gather_outputs(&b.stream, device_plan, &mut b.outputs);
                hidden_states = Some(backend.read(&b.outputs, 0..outputs));
            }
            self.attention(backend, arena, rows, device_plan, index);
            self.feed_forward(backend, rows, index);
        }
        let last = wanted.hidden_layer == Some(self.layers.len());
        if outputs > 0 && (last || wanted.head) {
            self.final_norm(backend, device_plan, outputs);
        }
        if last {
            hidden_states = Some(backend.read(&self.buffers.outputs_normed, 0..outputs));
        }
        if outputs > 0 && wanted.head {
            self.head(backend, outputs);
        }
        hidden_states
    }

    /// `stream += post_norm(output(attention(norm(stream))))` of a layer; appends its K and V to the cache.
    fn attention(
        &mut self,
        backend: &mut B,
        arena: &mut B::Arena,
        rows: usize,
        plan: &B::Plan,
        index: usize,
    ) {
        let (layer, b) = (&self.layers[index], &mut self.buffers);
        let (layout, eps) = (&self.layout, self.config.rms_eps);
        let (rope, window) = (&self.ropes[layer.rope], self.config.windows[index]);
        backend.rms_norm(&b.stream, &layer.attention_norm, eps, rows, &mut b.normed);
        layer
            .qkv
            .enqueue(backend, &b.normed, rows, false, &mut b.qkv);
        if let Some([q, k]) = &layer.qk_norm {
            backend.qk_norm(&mut b.qkv, q, k, eps, rows, layout);
        }
        backend.rope_and_append(&mut b.qkv, rope, plan, layout, index, arena);
        backend.tree_attention(&b.qkv, plan, layout, index, window, arena, &mut b.attended);
        let (x, branch) = (&b.attended, &mut b.branch);
        (layer.output).enqueue(backend, x, (rows, eps), branch, &mut b.stream);
    }

    /// `stream += post_norm(down(gated(gate_up(norm(stream)))))` of a layer.
    fn feed_forward(&mut self, backend: &mut B, rows: usize, index: usize) {
        let (layer, b) = (&self.layers[index], &mut self.buffers);
        let eps = self.config.rms_eps;
        backend.rms_norm(&b.stream, &layer.mlp_norm, eps, rows, &mut b.normed);
        backend.linear_gated(
            &b.normed,
            &layer.gate_up.weight,
            layer.gate_up.bias.as_ref(),
            self.config.activation,
            rows,
            &mut b.gate_up,
            &mut b.inner,
        );
        let (x, branch) = (&b.inner, &mut b.branch);
        (layer.down).enqueue(backend, x, (rows, eps), branch, &mut b.stream);
    }

    /// `outputs_normed = norm(stream)` of the rows whose output is wanted.
    fn final_norm(&mut self, backend: &mut B, plan: &B::Plan, outputs: usize) {
        let (b, eps) = (&mut self.buffers, self.config.rms_eps);
        backend.gather_outputs(&b.stream, plan, &mut b.outputs);
        backend.rms_norm(&b.outputs, &self.norm, eps, outputs, &mut b.outputs_normed);
    }

    /// `head = head_layers(outputs_normed)`.
    fn head(&mut self, backend: &mut B, outputs: usize) {
        let b = &mut self.buffers;
        let x = &b.outputs_normed;
        match (&self.head, &mut b.head_inner) {
            (Head::Embedding, _) => {
                backend.linear(x, &self.embedding, None, outputs, false, &mut b.head);
            }
            (Head::Linear(linear), _) => linear.enqueue(backend, x, outputs, false, &mut b.head),
            (Head::TwoLayer { inner, outer }, Some(hidden)) => {
                inner.enqueue(backend, x, outputs, false, hidden);
                backend.relu(hidden, outputs);
                outer.enqueue(backend, hidden, outputs, false, &mut b.head);
            }
            (Head::TwoLayer { .. }, None) => unreachable!("a head of two layers has its buffer"),
        }
    }
}

impl<B: Backend> Linear<B> {
    /// `out = x weight^T + bias`, plus `out` itself if `accumulate`.
    fn enqueue(
        &self,
        backend: &mut B,
        x: &B::Activations,
        rows: usize,
        accumulate: bool,
        out: &mut B::Activations,
    ) {
        let bias = self.bias.as_ref();
        backend.linear(x, &self.weight, bias, rows, accumulate, out);
    }
}

impl<B: Backend> BlockOutput<B> {
    /// `stream += norm(linear(x))`; `branch` holds what is normalised.
    fn enqueue(
        &self,
        backend: &mut B,
        x: &B::Activations,
        (rows, eps): (usize, f32),
        branch: &mut Option<B::Activations>,
        stream: &mut B::Activations,
    ) {
        match (&self.norm, branch) {
            (None, _) => self.linear.enqueue(backend, x, rows, true, stream),
            (Some(norm), Some(branch)) => {
                self.linear.enqueue(backend, x, rows, false, branch);
                backend.add_rms_norm(branch, norm, eps, rows, stream);
            }
            (Some(_), None) => unreachable!("a norm behind a block has its buffer"),
        }
    }
}
