//! The plan of one device step: its rows, and the runs of KV they share.
//!
//! A *row* is one token that one model processes in this step. A *run* is a stretch of
//! consecutive KV blocks together with the rows that attend to it. The plan lists every run
//! once, so a backend reads its K and V once however many branches share it.
//!
//! Sharing is read off the block tables: two sequences share a run exactly where their tables
//! begin with the same blocks. It is never guessed from reference counts.
//!
//! Rows are put in the preorder of the forest the tables form, so the rows of every run are one
//! contiguous range.

use std::ops::Range;

/// Where a KV block lies in the arena, in units of [`KvLayout::unit_bytes`].
///
/// [`KvLayout::unit_bytes`]: crate::KvLayout::unit_bytes
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// One token's place in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The block.
    pub block: BlockId,
    /// The token's index within the block.
    pub offset: u32,
}

/// One token processed in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token id, an index into the embedding table.
    pub token: u32,
    /// Position in its sequence, from 0: the angle of its rotary embedding. The row attends to
    /// the KV tokens of its runs whose position is at most this one.
    pub position: u32,
    /// Where its K and V are written; `None` when they are in the cache already and only the
    /// row's output is wanted.
    pub slot: Option<Slot>,
}

/// Consecutive KV tokens and the rows that attend to them.
///
/// All blocks of a run are full but possibly the last. A row sees token `start + i` of the run
/// (`i < tokens`) if that position is at most the row's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Indices into [`StepPlan::blocks`].
    pub blocks: Range<usize>,
    /// Position of the run's first token.
    pub start: u32,
    /// KV tokens in the run, those written in this very step included.
    pub tokens: u32,
    /// Indices into [`StepPlan::rows`].
    pub rows: Range<usize>,
}

/// What one model does in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// The tokens processed, in preorder of the forest.
    pub rows: Vec<Row>,
    /// Block lists of the runs, one after the other.
    pub blocks: Vec<BlockId>,
    /// The shared runs, parents before children. The runs of a row, in order, cover the
    /// positions `0..=row.position` exactly once.
    pub runs: Vec<Run>,
    /// Rows whose final hidden state is wanted (logits or a read-out), ascending.
    pub outputs: Vec<u32>,
}

/// The rows of one sequence, and the block table they attend through.
#[derive(Clone, Debug)]
pub struct SequenceRows<'a> {
    /// The table: every block with its number of valid tokens, those this step writes included.
    /// A block that is not full may be followed by others (a tail that was sealed at a fork).
    pub table: &'a [(BlockId, u32)],
    /// Tokens to process, consecutive, the last at position `sum of valid tokens - 1`.
    pub tokens: &'a [u32],
    /// Whether K and V of these tokens are to be written (`false`: they are in the cache).
    pub write: bool,
    /// Offsets into `tokens` whose final hidden state is wanted, ascending.
    pub outputs: &'a [u32],
}
