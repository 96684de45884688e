//! Counts of the work done for a model.

use kernels::BatchPlan;

use super::executor::ModelShape;

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
        let (rows, heads) = (plan.rows.len() as u64, heads as u64);
        let visible: u64 = (plan.rows.iter()).map(|r| u64::from(r.position) + 1).sum();
        self.batches += 1;
        self.tokens_processed += rows;
        self.flops += shape.flops_per_row * rows
            + shape.flops_per_output * heads
            + shape.flops_per_visible * visible;
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
