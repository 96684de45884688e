//! The seam between scheduling and devices: models that take a plan and give numbers.

use kernels::{BlockId, Draw, Feed, Sample, StepPlan};

use crate::Error;

/// What the scheduler must know of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// Vocabulary entries the model can read.
    pub vocab: usize,
    /// Tokens a sequence may have.
    pub context_length: usize,
    /// Numbers the head gives for one row.
    pub head_width: usize,
    /// Bytes of one KV block.
    pub block_bytes: usize,
    /// Floating-point operations of the layers' products for one row.
    pub flops_per_row: u64,
    /// Floating-point operations of the head for one output row.
    pub flops_per_output: u64,
    /// Floating-point operations of attention for one row and one visible token.
    pub flops_per_visible: u64,
    /// Rows whose head output one step can give.
    pub max_outputs: usize,
}

/// One model's part of a step.
pub struct Batch<'a> {
    /// Which model.
    pub model: usize,
    /// Its rows and runs.
    pub plan: &'a StepPlan,
    /// Rows that go on with what this model's step before drew, in the order of its draws.
    pub feeds: &'a [Feed],
    /// Blocks to copy before anything is written.
    pub copies: &'a [(BlockId, BlockId)],
    /// Tokens to draw; `row` indexes the plan's outputs.
    pub draws: &'a [Draw<'a>],
    /// Whether the head's numbers are wanted on the host.
    pub read: bool,
}

/// What a step gave.
#[derive(Debug, Default, PartialEq)]
pub struct BatchResult {
    /// The drawn tokens, in the order of the draws.
    pub samples: Vec<Sample>,
    /// If asked for: `[outputs, head_width]`, row-major.
    pub head: Vec<f32>,
}

/// Models on a device.
pub trait Executor {
    /// The device in words.
    fn device(&self) -> String;
    /// Whether it pays to enqueue a step before the one before it is done.
    fn prefers_async(&self) -> bool;
    /// Enqueues one step of one model. Work may still be under way when it returns.
    fn enqueue(&mut self, step: &Batch<'_>) -> Result<(), Error>;
    /// Waits for the oldest enqueued step that has not been waited for.
    fn finish(&mut self) -> Result<BatchResult, Error>;
}
