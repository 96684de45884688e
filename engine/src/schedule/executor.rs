//! The seam between scheduling and devices: models that take a plan and give numbers.

use kernels::{BatchPlan, BlockId, Draw, Sample, Substitution};

use super::usage::FlopRates;
use crate::Error;

/// The facts of a model that scheduling needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelShape {
    /// Vocabulary entries the model can read.
    pub vocab: usize,
    /// Tokens a sequence may have.
    pub context_length: usize,
    /// Numbers the head gives for one row.
    pub head_width: usize,
    /// Numbers of a hidden state.
    pub hidden: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Bytes of one KV block.
    pub block_bytes: usize,
    /// What its rows cost.
    pub flops: FlopRates,
    /// Rows of one batch.
    pub max_rows: usize,
    /// Rows whose head output one batch can give.
    pub max_outputs: usize,
    /// Sequences that decode in one batch, at most: the oldest, so that what is under way ends
    /// before more of what waits begins.
    pub max_num_seqs: usize,
}

/// One model's batch: a forward pass over rows of many sequences.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    /// Which model.
    pub model: usize,
    /// Its rows and runs.
    pub plan: &'a BatchPlan,
    /// Rows whose token is an in-flight sample of this model's batch before, by its draws.
    pub substitutions: &'a [Substitution],
    /// Blocks to copy before anything is written.
    pub copies: &'a [(BlockId, BlockId)],
    /// Tokens to sample; `row` indexes the plan's outputs.
    pub draws: &'a [Draw<'a>],
    /// Whether the head's numbers are wanted on the host.
    pub read: bool,
    /// The layer whose hidden states at the outputs are wanted on the host, as
    /// [`Branch::hidden_states`](crate::Branch::hidden_states) counts layers.
    pub hidden_layer: Option<usize>,
}

impl Batch<'_> {
    /// Whether the head is computed: not if the outputs are for hidden states alone.
    pub fn needs_head(&self) -> bool {
        self.read || !self.draws.is_empty() || self.hidden_layer.is_none()
    }
}

/// The results of a batch.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct BatchResult {
    /// The sampled tokens, in the order of the draws.
    pub samples: Vec<Sample>,
    /// If they were to be read: `[outputs, head_width]`, row-major.
    pub head: Vec<f32>,
    /// If they were wanted: `[outputs, hidden]`, row-major.
    pub hidden_states: Vec<f32>,
}

/// Models on a device.
pub(crate) trait Executor {
    /// The device in words.
    fn device(&self) -> String;
    /// Whether enqueuing a batch before the one before it is done makes the device faster.
    fn prefers_async(&self) -> bool;
    /// Enqueues one batch of one model. It may still be in flight when the call returns.
    fn enqueue(&mut self, batch: &Batch<'_>) -> Result<(), Error>;
    /// Waits for the oldest enqueued batch that has not been waited for.
    fn finish(&mut self) -> Result<BatchResult, Error>;
}
