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

use std::collections::HashMap;
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

impl StepPlan {
    /// Plans a step over `sequences`, whose blocks hold `block_tokens` tokens.
    ///
    /// Returns the plan, and for each sequence (in the order given) the index of its first row.
    /// A sequence's rows are consecutive and in order; sequences are put in the preorder of the
    /// trie of their tables, siblings by first appearance. Two tables share an entry where block
    /// *and* valid tokens are equal after equal prefixes. A run ends where the sequences below it
    /// change, or after a block that is not full.
    ///
    /// A sequence without tokens takes part in nothing; the index returned for it is 0.
    ///
    /// Cost: the sum of the tables' lengths.
    ///
    /// # Panics
    ///
    /// If a table entry has no valid token or more than `block_tokens`, if a sequence has more
    /// tokens than its table, or if an output offset is no token's.
    pub fn build(sequences: &[SequenceRows<'_>], block_tokens: usize) -> (StepPlan, Vec<usize>) {
        let mut plan = StepPlan::default();
        let mut first_rows = vec![0; sequences.len()];
        // Subtrees still to be visited, the next one last: their sequences, the depth (table
        // index) they agree up to, and the position that is.
        let mut stack = vec![Subtree {
            sequences: (0..sequences.len())
                .filter(|&s| !sequences[s].tokens.is_empty())
                .collect(),
            depth: 0,
            position: 0,
        }];
        while let Some(subtree) = stack.pop() {
            let Some((&leader, others)) = subtree.sequences.split_first() else {
                continue;
            };
            let rows_before = plan.rows.len();
            let rows: usize = subtree
                .sequences
                .iter()
                .map(|&s| sequences[s].tokens.len())
                .sum();
            let rows = rows_before..rows_before + rows;
            let mut depth = subtree.depth;
            let mut position = subtree.position;
            let mut run: Option<Run> = None;
            while let Some(&(block, tokens)) = sequences[leader].table.get(depth)
                && others
                    .iter()
                    .all(|&s| sequences[s].table.get(depth) == Some(&(block, tokens)))
            {
                assert!(
                    (1..=block_tokens).contains(&(tokens as usize)),
                    "block {} of a table has {tokens} valid tokens, expected 1 to {block_tokens}",
                    block.0
                );
                let open = run.get_or_insert_with(|| Run {
                    blocks: plan.blocks.len()..plan.blocks.len(),
                    start: position,
                    tokens: 0,
                    rows: rows.clone(),
                });
                plan.blocks.push(block);
                open.blocks.end += 1;
                open.tokens += tokens;
                depth += 1;
                position += tokens;
                if (tokens as usize) < block_tokens {
                    plan.runs.extend(run.take());
                }
            }
            plan.runs.extend(run);

            // Sequences that end here come first, then one subtree per distinct next entry.
            let mut children: Vec<Subtree> = Vec::new();
            let mut child_of: HashMap<(BlockId, u32), usize> = HashMap::new();
            for &s in &subtree.sequences {
                let Some(entry) = sequences[s].table.get(depth) else {
                    first_rows[s] = plan.rows.len();
                    plan.push_rows(&sequences[s], position);
                    continue;
                };
                let child = *child_of.entry(*entry).or_insert_with(|| {
                    children.push(Subtree {
                        sequences: Vec::new(),
                        depth,
                        position,
                    });
                    children.len() - 1
                });
                children[child].sequences.push(s);
            }
            stack.extend(children.into_iter().rev());
        }
        (plan, first_rows)
    }

    /// Appends the rows of one sequence whose table holds `end` tokens.
    fn push_rows(&mut self, sequence: &SequenceRows<'_>, end: u32) {
        let count = sequence.tokens.len();
        assert!(
            count <= end as usize,
            "a sequence has {count} tokens to process but its table holds {end}"
        );
        let first_row = self.rows.len();
        // From the last token back: the table's entry that holds it, and where that entry begins.
        let mut entry = sequence.table.len();
        let mut entry_start = end;
        let mut position = end;
        for &token in sequence.tokens.iter().rev() {
            position -= 1;
            while position < entry_start {
                entry -= 1;
                entry_start -= sequence.table[entry].1;
            }
            self.rows.push(Row {
                token,
                position,
                slot: sequence.write.then(|| Slot {
                    block: sequence.table[entry].0,
                    offset: position - entry_start,
                }),
            });
        }
        self.rows[first_row..].reverse();
        for &offset in sequence.outputs {
            assert!(
                (offset as usize) < count,
                "output offset {offset} of a sequence with {count} tokens"
            );
            self.outputs.push(first_row as u32 + offset);
        }
    }

    /// KV tokens a backend reads, each run once.
    pub fn kv_tokens(&self) -> usize {
        self.runs.iter().map(|run| run.tokens as usize).sum()
    }
}

/// Sequences that agree up to a depth, still to be visited.
struct Subtree {
    sequences: Vec<usize>,
    depth: usize,
    position: u32,
}
