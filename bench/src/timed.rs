//! A backend that clocks another one's operations.
//!
//! It is meant for the CPU backend, whose operations are done when the call returns. On a device
//! that only enqueues, the times would be those of enqueuing.
//!
//! A batch's model is the one that the engine selected ([`Backend::select_model`]). A reading of
//! the clock costs some 30 ns, twice an operation.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kernels::{
    Activation, Backend, BatchPlan, BlockId, Draw, Dtype, Error, KvDtype, KvLayout, MatrixView,
    QuantizedMatrix, RopeTable, Sample, Substitution,
};
use serde::{Deserialize, Serialize};

/// What a step of a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Some rows only fill the KV cache: prompts, steps read by a PRM, and rows that decode beside
    /// them.
    Prefill,
    /// The head's numbers of every row are wanted.
    Decode,
}

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// The layers' linear layers.
    #[serde(alias = "products")]
    Linear,
    /// The linear layers behind the last layer.
    Head,
    /// Attention over the tree.
    Attention,
    /// Rotation, and writing K and V.
    Append,
    /// Norms.
    Norms,
    /// Gated activations and other functions of single numbers.
    Activations,
    /// Drawing tokens.
    Sampling,
    /// Everything else: plans, embeddings, gathering rows, copying blocks, reading results.
    Other,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 8] = [
        Operation::Linear,
        Operation::Head,
        Operation::Attention,
        Operation::Append,
        Operation::Norms,
        Operation::Activations,
        Operation::Sampling,
        Operation::Other,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Linear => "linear",
            Operation::Head => "head",
            Operation::Attention => "attention",
            Operation::Append => "append",
            Operation::Norms => "norms",
            Operation::Activations => "activations",
            Operation::Sampling => "sampling",
            Operation::Other => "other",
        }
    }
}

/// What some operations came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Calls.
    pub calls: u64,
    /// Seconds in them.
    pub seconds: f64,
    /// Floating-point operations of linear layers and attention.
    pub flops: f64,
    /// Bytes: weights of linear layers, once a call; the distinct keys and values that attention must
    /// read, once a call.
    pub bytes: f64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.calls += other.calls;
        self.seconds += other.seconds;
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// What one model did in steps of one phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Steps.
    pub steps: u64,
    /// Rows computed.
    pub rows: u64,
    /// Rows whose head was computed.
    pub outputs: u64,
    /// Costs by operation.
    pub costs: BTreeMap<Operation, Cost>,
}

impl Work {
    /// The cost of an operation.
    pub fn cost(&self, operation: Operation) -> Cost {
        self.costs.get(&operation).copied().unwrap_or_default()
    }

    /// Seconds of all operations.
    pub fn seconds(&self) -> f64 {
        self.costs.values().map(|cost| cost.seconds).sum()
    }
}

/// Work by model (in the order they were loaded) and phase.
pub type Counts = BTreeMap<(usize, Phase), Work>;

#[derive(Debug, Default)]
struct Recorder {
    counts: Counts,
    /// Whose step is under way.
    step: Option<(usize, Phase)>,
    /// Whether its layers are done.
    in_head: bool,
}

/// What was clocked; cheap to clone, all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Profile(Arc<Mutex<Recorder>>);

impl Profile {
    /// Everything since the last call, or since the beginning.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut self.lock().counts)
    }

    fn lock(&self) -> MutexGuard<'_, Recorder> {
        // Counts are whole between two calls, whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, model: usize, plan: &PlanFacts) {
        let recorder = &mut *self.lock();
        recorder.step = Some((model, plan.phase));
        recorder.in_head = false;
        let work = recorder.counts.entry((model, plan.phase)).or_default();
        work.steps += 1;
        work.rows += plan.rows;
        work.outputs += plan.outputs;
    }

    fn add(&self, operation: Operation, cost: Cost) {
        let recorder = &mut *self.lock();
        // Before the first step nothing is anybody's.
        if let Some(key) = recorder.step {
            let work = recorder.counts.entry(key).or_default();
            *work.costs.entry(operation).or_default() += cost;
        }
    }

    fn linear(&self) -> Operation {
        if self.lock().in_head {
            Operation::Head
        } else {
            Operation::Linear
        }
    }
}

/// A weight with its shape.
#[derive(Debug)]
pub struct TimedWeight<W> {
    inner: W,
    rows: usize,
    cols: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct PlanFacts {
    phase: Phase,
    rows: u64,
    outputs: u64,
    /// Tokens seen, summed over the rows.
    visible: f64,
    /// Distinct tokens seen.
    unique: f64,
    /// What making it known to the device took.
    upload: Cost,
}

/// A plan with what it asks for.
#[derive(Debug)]
pub struct TimedPlan<P> {
    inner: P,
    facts: PlanFacts,
}

/// A backend that does what `inner` does and writes down how long each call takes.
pub struct Timed<B: Backend> {
    inner: B,
    profile: Profile,
    /// The selected model.
    model: usize,
}

impl<B: Backend> Timed<B> {
    /// Clocks `inner`; the profile fills as it is used.
    pub fn new(inner: B) -> (Timed<B>, Profile) {
        let profile = Profile::default();
        let timed = Timed {
            inner,
            profile: profile.clone(),
            model: 0,
        };
        (timed, profile)
    }

    fn weight(&self, inner: B::Weight, rows: usize, cols: usize) -> TimedWeight<B::Weight> {
        TimedWeight {
            rows,
            cols,
            bytes: self.inner.weight_bytes(&inner),
            inner,
        }
    }

    /// Does `work` and adds its time, with these operations and bytes, to `operation`.
    fn clock<T>(
        &mut self,
        operation: Operation,
        (flops, bytes): (f64, f64),
        work: impl FnOnce(&mut B) -> T,
    ) -> T {
        let start = Instant::now();
        let done = work(&mut self.inner);
        let cost = Cost {
            calls: 1,
            seconds: start.elapsed().as_secs_f64(),
            flops,
            bytes,
        };
        self.profile.add(operation, cost);
        done
    }

    fn plain<T>(&mut self, operation: Operation, work: impl FnOnce(&mut B) -> T) -> T {
        self.clock(operation, (0.0, 0.0), work)
    }
}

impl<B: Backend> Backend for Timed<B> {
    type Weight = TimedWeight<B::Weight>;
    type Vector = B::Vector;
    type Rope = B::Rope;
    type Activations = B::Activations;
    type Arena = B::Arena;
    type Plan = TimedPlan<B::Plan>;
    type Recordings = ();
    type PendingSamples = B::PendingSamples;
    type PendingRead = B::PendingRead;

    fn name(&self) -> String {
        self.inner.name()
    }

    fn max_batch_rows(&self) -> usize {
        self.inner.max_batch_rows()
    }

    fn max_head_bytes(&self) -> usize {
        self.inner.max_head_bytes()
    }

    fn max_num_seqs(&self, flops_per_row: u64) -> usize {
        self.inner.max_num_seqs(flops_per_row)
    }

    fn kv_dtype(&self, weights: Dtype) -> KvDtype {
        self.inner.kv_dtype(weights)
    }

    fn check_layout(&self, layout: &KvLayout) -> Result<(), Error> {
        self.inner.check_layout(layout)
    }

    fn select_model(&mut self, index: usize) {
        self.model = index;
        self.inner.select_model(index);
    }

    fn load_matrix(&mut self, parts: &[MatrixView<'_>]) -> Result<Self::Weight, Error> {
        let inner = self.inner.load_matrix(parts)?;
        let cols = parts.first().map_or(0, |part| part.cols);
        Ok(self.weight(inner, parts.iter().map(|part| part.rows).sum(), cols))
    }

    fn load_quantized(&mut self, parts: &[QuantizedMatrix<'_>]) -> Result<Self::Weight, Error> {
        let inner = self.inner.load_quantized(parts)?;
        let cols = parts.first().map_or(0, |part| part.cols);
        Ok(self.weight(inner, parts.iter().map(|part| part.rows).sum(), cols))
    }

    fn weight_bytes(&self, weight: &Self::Weight) -> usize {
        weight.bytes
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Self::Vector, Error> {
        self.inner.load_vector(values)
    }

    fn load_rope(&mut self, table: RopeTable) -> Result<Self::Rope, Error> {
        self.inner.load_rope(table)
    }

    fn activations(&mut self, rows: usize, cols: usize) -> Result<Self::Activations, Error> {
        self.inner.activations(rows, cols)
    }

    fn half_activations(&mut self, rows: usize, cols: usize) -> Result<Self::Activations, Error> {
        self.inner.half_activations(rows, cols)
    }

    fn arena(&mut self, bytes: usize) -> Result<Self::Arena, Error> {
        self.inner.arena(bytes)
    }

    fn upload(&mut self, plan: &BatchPlan) -> Result<Self::Plan, Error> {
        let start = Instant::now();
        let inner = self.inner.upload(plan)?;
        let upload = Cost {
            calls: 1,
            seconds: start.elapsed().as_secs_f64(),
            ..Cost::default()
        };
        let phase = if plan.outputs.len() == plan.rows.len() {
            Phase::Decode
        } else {
            Phase::Prefill
        };
        let visible = plan.rows.iter().map(|row| f64::from(row.position) + 1.0);
        let facts = PlanFacts {
            phase,
            rows: plan.rows.len() as u64,
            outputs: plan.outputs.len() as u64,
            visible: visible.sum(),
            unique: plan.runs.iter().map(|run| f64::from(run.num_tokens)).sum(),
            upload,
        };
        Ok(TimedPlan { inner, facts })
    }

    fn substitute_tokens(
        &mut self,
        plan: &mut Self::Plan,
        substitutions: &[Substitution],
        samples: &Self::PendingSamples,
    ) {
        self.inner
            .substitute_tokens(&mut plan.inner, substitutions, samples);
    }
    fn embed(
        &mut self,
        table: &Self::Weight,
        plan: &Self::Plan,
        scale: f32,
        out: &mut Self::Activations,
    ) {
        self.profile.begin(self.model, &plan.facts);
        self.profile.add(Operation::Other, plan.facts.upload);
        self.plain(Operation::Other, |b| {
            b.embed(&table.inner, &plan.inner, scale, out)
        });
    }

    fn rms_norm(
        &mut self,
        x: &Self::Activations,
        weight: &Self::Vector,
        eps: f32,
        rows: usize,
        out: &mut Self::Activations,
    ) {
        self.plain(Operation::Norms, |b| b.rms_norm(x, weight, eps, rows, out));
    }

    fn add_rms_norm(
        &mut self,
        x: &Self::Activations,
        weight: &Self::Vector,
        eps: f32,
        rows: usize,
        out: &mut Self::Activations,
    ) {
        self.plain(Operation::Norms, |b| {
            b.add_rms_norm(x, weight, eps, rows, out);
        });
    }

    fn linear(
        &mut self,
        x: &Self::Activations,
        w: &Self::Weight,
        bias: Option<&Self::Vector>,
        rows: usize,
        accumulate: bool,
        out: &mut Self::Activations,
    ) {
        let flops = 2.0 * rows as f64 * w.rows as f64 * w.cols as f64;
        self.clock(self.profile.linear(), (flops, w.bytes as f64), |b| {
            b.linear(x, &w.inner, bias, rows, accumulate, out);
        });
    }

    fn qk_norm(
        &mut self,
        qkv: &mut Self::Activations,
        q_weight: &Self::Vector,
        k_weight: &Self::Vector,
        eps: f32,
        rows: usize,
        layout: &KvLayout,
    ) {
        self.plain(Operation::Norms, |b| {
            b.qk_norm(qkv, q_weight, k_weight, eps, rows, layout);
        });
    }

    fn rope_and_append(
        &mut self,
        qkv: &mut Self::Activations,
        rope: &Self::Rope,
        plan: &Self::Plan,
        layout: &KvLayout,
        layer: usize,
        arena: &mut Self::Arena,
    ) {
        self.plain(Operation::Append, |b| {
            b.rope_and_append(qkv, rope, &plan.inner, layout, layer, arena);
        });
    }

    fn tree_attention(
        &mut self,
        qkv: &Self::Activations,
        plan: &Self::Plan,
        layout: &KvLayout,
        layer: usize,
        window: Option<u32>,
        arena: &Self::Arena,
        out: &mut Self::Activations,
    ) {
        // A window is ignored here: with one, less is seen and read.
        let flops = 4.0 * (layout.heads * layout.head_dim) as f64 * plan.facts.visible;
        let bytes = plan.facts.unique * (layout.token_bytes() / layout.layers) as f64;
        self.clock(Operation::Attention, (flops, bytes), |b| {
            b.tree_attention(qkv, &plan.inner, layout, layer, window, arena, out);
        });
    }

    fn gated(
        &mut self,
        gate_up: &Self::Activations,
        activation: Activation,
        rows: usize,
        out: &mut Self::Activations,
    ) {
        self.plain(Operation::Activations, |b| {
            b.gated(gate_up, activation, rows, out);
        });
    }

    fn relu(&mut self, x: &mut Self::Activations, rows: usize) {
        self.plain(Operation::Activations, |b| b.relu(x, rows));
    }

    fn gather_outputs(
        &mut self,
        x: &Self::Activations,
        plan: &Self::Plan,
        out: &mut Self::Activations,
    ) {
        self.profile.lock().in_head = true;
        self.plain(Operation::Other, |b| b.gather_outputs(x, &plan.inner, out));
    }

    fn copy_blocks(
        &mut self,
        layout: &KvLayout,
        pairs: &[(BlockId, BlockId)],
        arena: &mut Self::Arena,
    ) {
        self.plain(Operation::Other, |b| b.copy_blocks(layout, pairs, arena));
    }

    fn sample(&mut self, logits: &Self::Activations, draws: &[Draw<'_>]) -> Self::PendingSamples {
        self.plain(Operation::Sampling, |b| b.sample(logits, draws))
    }

    fn finish_samples(&mut self, pending: Self::PendingSamples) -> Result<Vec<Sample>, Error> {
        self.inner.finish_samples(pending)
    }

    fn read(&mut self, x: &Self::Activations, rows: Range<usize>) -> Self::PendingRead {
        self.plain(Operation::Other, |b| b.read(x, rows))
    }

    fn finish_read(&mut self, pending: Self::PendingRead) -> Result<Vec<f32>, Error> {
        self.inner.finish_read(pending)
    }
}
