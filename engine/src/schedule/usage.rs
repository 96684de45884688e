//! Counts of the work done for a model.

use std::ops::{AddAssign, Range, SubAssign};

use kernels::BatchPlan;
use serde::{Deserialize, Serialize};

use super::executor::ModelShape;

/// Rows of forward passes: what their floating-point operations follow from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Rows: tokens computed.
    pub tokens: u64,
    /// Tokens that the rows see, themselves included, summed over the rows.
    pub visible: u64,
    /// Rows that the head is computed for.
    pub outputs: u64,
}

impl Work {
    /// The tokens at `positions` of a sequence, `outputs` of them with the head.
    pub fn rows(positions: Range<usize>, outputs: usize) -> Work {
        let (first, end) = (positions.start as u64, positions.end as u64);
        let tokens = end.saturating_sub(first);
        Work {
            tokens,
            visible: tokens * (first + 1 + end) / 2,
            outputs: outputs as u64,
        }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.tokens += other.tokens;
        self.visible += other.visible;
        self.outputs += other.outputs;
    }
}

impl SubAssign for Work {
    fn sub_assign(&mut self, other: Work) {
        self.tokens -= other.tokens;
        self.visible -= other.visible;
        self.outputs -= other.outputs;
    }
}

/// The floating-point operations of a model: two per weight and row in linear layers, and those of
/// attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlopRates {
    /// Of the layers' linear layers for one row.
    pub per_token: u64,
    /// Of the head for one row.
    pub per_output: u64,
    /// Of attention for one row and one visible token.
    pub per_visible: u64,
}

impl FlopRates {
    /// The operations of some work.
    pub fn of(&self, work: &Work) -> u64 {
        self.per_token * work.tokens
            + self.per_output * work.outputs
            + self.per_visible * work.visible
    }
}

/// Work done for one model since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens the device computed.
    pub tokens_processed: u64,
    /// Tokens that an engine without a cache, which gets the whole text with every request, would
    /// have computed beyond these.
    pub tokens_reused: u64,
    /// Tokens sampled.
    pub tokens_generated: u64,
    /// Floating-point operations: two per weight and row in linear layers, and those of attention.
    pub flops: u64,
    /// Batches: forward passes.
    pub batches: u64,
    /// Times a sequence was preempted: its blocks were taken away, to be computed again.
    pub preemptions: u64,
}

impl Usage {
    /// Counts a batch; `heads` is the number of rows that the head is computed for.
    pub(super) fn add_batch(&mut self, shape: &ModelShape, plan: &BatchPlan, heads: usize) {
        let work = Work {
            tokens: plan.rows.len() as u64,
            visible: (plan.rows.iter()).map(|r| u64::from(r.position) + 1).sum(),
            outputs: heads as u64,
        };
        self.batches += 1;
        self.tokens_processed += work.tokens;
        self.flops += shape.flops.of(&work);
    }
}

/// The KV cache of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUsage {
    /// Tokens a block holds.
    pub block_tokens: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks that branches hold now.
    pub live_blocks: usize,
    /// The largest number of blocks that branches held at once.
    pub peak_blocks: usize,
    /// The largest number of blocks that branches would have held at once without sharing.
    pub unshared_blocks: usize,
    /// Evictable blocks, which are kept only for reuse.
    pub cached_blocks: usize,
}
