//! What a model did, in counts.

/// Work done for one model since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens the device computed.
    pub tokens_processed: u64,
    /// Tokens an engine without a cache, sent the whole text with every request, would have
    /// computed beyond these.
    pub tokens_reused: u64,
    /// Tokens drawn.
    pub tokens_generated: u64,
    /// Floating-point operations: two per weight and row in the products, attention included.
    pub flops: u64,
    /// Batches.
    pub batches: u64,
    /// Sequences whose blocks were taken away and computed again.
    pub preemptions: u64,
}

/// The KV cache of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUsage {
    /// Tokens a block holds.
    pub block_tokens: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks branches hold now.
    pub live_blocks: usize,
    /// The most blocks branches held at once.
    pub peak_blocks: usize,
    /// The most blocks the branches would have held at once without sharing.
    pub unshared_blocks: usize,
    /// Blocks kept only for reuse.
    pub cached_blocks: usize,
}
