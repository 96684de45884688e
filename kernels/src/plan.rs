//! The plan of one batch: its rows, and the KV runs they share.
//!
//! A *row* is one token that one model processes in the batch. A *run* is a list of consecutive KV
//! blocks together with the rows that attend to them. The plan contains every run once, so a
//! backend reads its K and V once for all branches that share it.
//!
//! Sharing follows from the block tables: two sequences share a run exactly where their tables
//! begin with the same blocks. Reference counts play no part in it.
//!
//! Rows are in the preorder of the forest that the tables form, so the rows of every run are one
//! contiguous range.

use std::collections::HashMap;
use std::ops::Range;

/// The offset of a KV block in the arena, in units of [`KvLayout::unit_bytes`].
///
/// [`KvLayout::unit_bytes`]: crate::KvLayout::unit_bytes
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// The location of one token in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The block.
    pub block: BlockId,
    /// The token's index within the block.
    pub offset: u32,
}

/// One token to process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its index into the embedding table.
    pub token_id: u32,
    /// Position in its sequence, from 0; determines its rotary embedding. The row attends to the KV
    /// tokens of its runs at positions up to and including this one.
    pub position: u32,
    /// Where its K and V are written. `None`: they are in the cache already, and only the row's
    /// output is computed.
    pub slot: Option<Slot>,
}

/// Substitutes a token still on the device for a row's input token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Substitution {
    /// The row, an index into [`BatchPlan::rows`]; the token stored there is ignored.
    pub row: u32,
    /// The draw that gives the token, an index into an earlier batch's samples.
    pub draw: u32,
}

/// Consecutive KV tokens and the rows that attend to them.
///
/// All blocks of a run except possibly the last are full. A row sees token `start + i` of the run
/// (`i < tokens`) if that position is at most the row's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Indices into [`BatchPlan::blocks`].
    pub blocks: Range<usize>,
    /// Position of the run's first token.
    pub start: u32,
    /// KV tokens in the run, including those written by this batch.
    pub num_tokens: u32,
    /// Indices into [`BatchPlan::rows`].
    pub rows: Range<usize>,
}

/// One batch of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchPlan {
    /// The tokens to process, in preorder of the forest.
    pub rows: Vec<Row>,
    /// The block lists of all runs, concatenated.
    pub blocks: Vec<BlockId>,
    /// The shared runs, parents before children. The runs of a row, in order, cover the
    /// positions `0..=row.position` exactly once.
    pub runs: Vec<Run>,
    /// Rows whose final hidden state is needed (for logits or a read-out), ascending.
    pub outputs: Vec<u32>,
}

/// The rows of one sequence, and the block table they attend through.
#[derive(Clone, Debug)]
pub struct SequenceRows<'a> {
    /// The block table: every block with its number of valid tokens, including those this batch
    /// writes. A block that is not full may be followed by others (a tail sealed at a fork).
    pub table: &'a [(BlockId, u32)],
    /// Ids of the tokens to process, consecutive, the last at position `sum of valid tokens - 1`.
    pub token_ids: &'a [u32],
    /// Whether the batch writes K and V of these tokens (`false`: they are in the cache).
    pub write: bool,
    /// Offsets into `token_ids` whose final hidden state is needed, ascending.
    pub outputs: &'a [u32],
}

impl BatchPlan {
    /// Plans a batch over `sequences`, whose blocks hold `block_tokens` tokens.
    ///
    /// Returns the plan, and for each sequence (in the given order) the index of its first row. A
    /// sequence's rows are consecutive and in order. Sequences are in the preorder of the trie of
    /// their tables, siblings by first appearance. Two tables share an entry if block *and* valid
    /// tokens are equal after equal prefixes. A run ends where the sequences below it change, or
    /// after a block that is not full.
    ///
    /// A sequence without tokens is left out of the plan; the index returned for it is 0.
    ///
    /// Cost: linear in the sum of the tables' lengths.
    ///
    /// # Panics
    ///
    /// If a table entry has 0 or more than `block_tokens` valid tokens, if a sequence has more
    /// tokens than its table, or if an output offset is not below the number of tokens.
    pub fn build(sequences: &[SequenceRows<'_>], block_tokens: usize) -> (BatchPlan, Vec<usize>) {
        let mut plan = BatchPlan::default();
        let mut first_rows = vec![0; sequences.len()];
        // Subtrees to visit, the next one last.
        let mut stack = vec![Subtree {
            sequences: (0..sequences.len())
                .filter(|&s| !sequences[s].token_ids.is_empty())
                .collect(),
            depth: 0,
            position: 0,
        }];
        while let Some(mut subtree) = stack.pop() {
            plan.push_runs(sequences, &mut subtree, block_tokens);
            let Subtree {
                depth, position, ..
            } = subtree;
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

    /// Appends the runs that all sequences of a subtree share from its depth on, and advances the
    /// subtree to their end.
    fn push_runs(
        &mut self,
        sequences: &[SequenceRows<'_>],
        subtree: &mut Subtree,
        block_tokens: usize,
    ) {
        let Some((&first, others)) = subtree.sequences.split_first() else {
            return;
        };
        let rows = subtree.sequences.iter();
        let rows: usize = rows.map(|&s| sequences[s].token_ids.len()).sum();
        let rows = self.rows.len()..self.rows.len() + rows;
        let mut run: Option<Run> = None;
        while let Some(&(block, tokens)) = sequences[first].table.get(subtree.depth)
            && others
                .iter()
                .all(|&s| sequences[s].table.get(subtree.depth) == Some(&(block, tokens)))
        {
            assert!(
                (1..=block_tokens).contains(&(tokens as usize)),
                "block {} of a table has {tokens} valid tokens, expected 1 to {block_tokens}",
                block.0
            );
            let open = run.get_or_insert_with(|| Run {
                blocks: self.blocks.len()..self.blocks.len(),
                start: subtree.position,
                num_tokens: 0,
                rows: rows.clone(),
            });
            self.blocks.push(block);
            open.blocks.end += 1;
            open.num_tokens += tokens;
            subtree.depth += 1;
            subtree.position += tokens;
            if (tokens as usize) < block_tokens {
                self.runs.extend(run.take());
            }
        }
        self.runs.extend(run);
    }

    /// Appends the rows of one sequence whose table holds `end` tokens.
    fn push_rows(&mut self, sequence: &SequenceRows<'_>, end: u32) {
        let count = sequence.token_ids.len();
        assert!(
            count <= end as usize,
            "a sequence has {count} tokens to process but its table holds {end}"
        );
        let first_row = self.rows.len();
        // From the last token backwards: the table entry that holds it, and the entry's first
        // position.
        let mut entry = sequence.table.len();
        let mut entry_start = end;
        let mut position = end;
        for &token_id in sequence.token_ids.iter().rev() {
            position -= 1;
            while position < entry_start {
                entry -= 1;
                entry_start -= sequence.table[entry].1;
            }
            self.rows.push(Row {
                token_id,
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

    /// The plan padded to `rows` rows. A padding row has token 0 at position 0, and an output if every
    /// row of the plan has one; it writes no K or V and attends to no run.
    pub fn padded(&self, rows: usize) -> BatchPlan {
        let mut plan = self.clone();
        let all_outputs = self.outputs.len() == self.rows.len();
        for row in self.rows.len()..rows {
            plan.rows.push(Row {
                token_id: 0,
                position: 0,
                slot: None,
            });
            if all_outputs {
                plan.outputs.push(row as u32);
            }
        }
        plan
    }

    /// KV tokens that a backend reads: each run counts once.
    pub fn kv_tokens(&self) -> usize {
        self.runs.iter().map(|run| run.num_tokens as usize).sum()
    }
}

/// Sequences whose tables begin with the same entries.
struct Subtree {
    sequences: Vec<usize>,
    /// Table entries they share.
    depth: usize,
    /// Tokens in these entries.
    position: u32,
}

#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::uniform_u64;
    use std::collections::{BTreeMap, BTreeSet};

    /// A [`SequenceRows`] that owns its data.
    #[derive(Clone, Debug)]
    struct Sequence {
        table: Vec<(BlockId, u32)>,
        tokens: Vec<u32>,
        write: bool,
        outputs: Vec<u32>,
    }

    impl Sequence {
        fn view(&self) -> SequenceRows<'_> {
            SequenceRows {
                table: &self.table,
                token_ids: &self.tokens,
                write: self.write,
                outputs: &self.outputs,
            }
        }

        fn len(&self) -> u32 {
            self.table.iter().map(|(_, tokens)| tokens).sum()
        }
    }

    fn build(sequences: &[Sequence], block_tokens: usize) -> (BatchPlan, Vec<usize>) {
        let views: Vec<SequenceRows<'_>> = sequences.iter().map(Sequence::view).collect();
        BatchPlan::build(&views, block_tokens)
    }

    /// A forest made by random forks: a child shares a prefix of its parent's table, by whole
    /// blocks or with a sealed tail, and continues in blocks of its own.
    fn random_forest(seed: u64, block_tokens: u32) -> Vec<Sequence> {
        let mut counter = 0;
        let mut below = |n: u64| {
            counter += 1;
            uniform_u64(seed, counter) % n
        };
        let mut next_block = 0;
        let mut sequences: Vec<Sequence> = Vec::new();
        for index in 0..1 + below(12) {
            let mut table = Vec::new();
            if index > 0 && below(5) > 0 {
                let parent = &sequences[below(index) as usize].table;
                table.extend_from_slice(&parent[..below(parent.len() as u64 + 1) as usize]);
                if let Some(last) = table.last_mut()
                    && below(6) == 0
                {
                    // The same block with fewer valid tokens: not shared.
                    last.1 = 1 + below(u64::from(last.1)) as u32;
                }
            }
            let own = below(4) + u64::from(table.is_empty());
            for i in 0..own {
                let full = i + 1 < own || below(3) == 0;
                let tokens = if full {
                    block_tokens
                } else {
                    1 + below(u64::from(block_tokens)) as u32
                };
                table.push((BlockId(next_block), tokens));
                next_block += 1;
            }
            let mut sequence = Sequence {
                table,
                tokens: Vec::new(),
                write: below(2) == 0,
                outputs: Vec::new(),
            };
            let rows = match below(4) {
                0 => below(u64::from(sequence.len()) + 1),
                _ => 1,
            };
            sequence.tokens = (0..rows).map(|_| below(100) as u32).collect();
            sequence.outputs = (0..rows as u32).filter(|_| below(3) == 0).collect();
            sequences.push(sequence);
        }
        sequences
    }

    /// All invariants of a plan.
    fn check(sequences: &[Sequence], block_tokens: usize) {
        let (plan, first_rows) = build(sequences, block_tokens);

        // Every sequence's rows are consecutive, in order, and have the right slots.
        let mut owner = vec![None; plan.rows.len()];
        let mut outputs = Vec::new();
        for (s, sequence) in sequences.iter().enumerate() {
            let slots: Vec<Slot> = sequence
                .table
                .iter()
                .flat_map(|&(block, n)| (0..n).map(move |offset| Slot { block, offset }))
                .collect();
            let first = sequence.len() - sequence.tokens.len() as u32;
            for (i, &token) in sequence.tokens.iter().enumerate() {
                let r = first_rows[s] + i;
                assert_eq!(owner[r], None, "row {r} belongs to two sequences");
                owner[r] = Some(s);
                let position = first + i as u32;
                let slot = sequence.write.then(|| slots[position as usize]);
                let expected = Row {
                    token_id: token,
                    position,
                    slot,
                };
                assert_eq!(plan.rows[r], expected, "row {r}");
            }
            outputs.extend(sequence.outputs.iter().map(|&o| first_rows[s] as u32 + o));
        }
        assert!(owner.iter().all(Option::is_some), "a row of no sequence");
        outputs.sort_unstable();
        assert_eq!(plan.outputs, outputs);

        // Every row's runs cover its sequence's table in order, entry by entry.
        for (r, owner) in owner.iter().enumerate() {
            let table = &sequences[owner.expect("checked")].table;
            let mut seen = Vec::new();
            let mut position = 0;
            for run in plan.runs.iter().filter(|run| run.rows.contains(&r)) {
                assert_eq!(run.start, position, "row {r}: a gap or an overlap");
                position += run.num_tokens;
                let blocks = &plan.blocks[run.blocks.clone()];
                assert!(!blocks.is_empty(), "an empty run");
                let before_last = (blocks.len() - 1) * block_tokens;
                for (i, &block) in blocks.iter().enumerate() {
                    let tokens = (run.num_tokens as usize - i * block_tokens).min(block_tokens);
                    seen.push((block, tokens as u32));
                }
                assert!(
                    (run.num_tokens as usize) > before_last,
                    "a last block without tokens"
                );
            }
            assert_eq!(&seen, table, "row {r}");
        }

        // No entry of the trie is read twice.
        let mut trie = BTreeSet::new();
        for sequence in sequences.iter().filter(|s| !s.tokens.is_empty()) {
            for depth in 0..sequence.table.len() {
                trie.insert(&sequence.table[..=depth]);
            }
        }
        let unique: usize = trie
            .iter()
            .map(|path| path[path.len() - 1].1 as usize)
            .sum();
        assert_eq!(plan.kv_tokens(), unique, "KV tokens read");
        let listed: usize = plan.runs.iter().map(|run| run.blocks.len()).sum();
        assert_eq!(listed, plan.blocks.len(), "blocks of no run");

        // Parents before children; no run could be one with its parent.
        for (i, run) in plan.runs.iter().enumerate() {
            for later in &plan.runs[i + 1..] {
                let disjoint = later.rows.end <= run.rows.start || run.rows.end <= later.rows.start;
                let inside = run.rows.start <= later.rows.start && later.rows.end <= run.rows.end;
                assert!(disjoint || inside, "a child before its parent");
                let joins = later.rows == run.rows && later.start == run.start + run.num_tokens;
                let full = (run.num_tokens as usize).is_multiple_of(block_tokens);
                assert!(!(joins && full), "one run cut in two");
            }
        }
    }

    /// A plan as sets: for every run, its KV tokens and the sequences that attend to it.
    fn shape(
        sequences: &[Sequence],
        order: &[usize],
        block_tokens: usize,
    ) -> BTreeMap<Vec<u32>, BTreeSet<usize>> {
        let ordered: Vec<Sequence> = order.iter().map(|&s| sequences[s].clone()).collect();
        let (plan, first_rows) = build(&ordered, block_tokens);
        plan.runs
            .iter()
            .map(|run| {
                let mut key = vec![run.start, run.num_tokens];
                key.extend(plan.blocks[run.blocks.clone()].iter().map(|b| b.0));
                let members = (0..order.len())
                    .filter(|&i| !ordered[i].tokens.is_empty() && run.rows.contains(&first_rows[i]))
                    .map(|i| order[i])
                    .collect();
                (key, members)
            })
            .collect()
    }

    #[test]
    fn random_forests_are_covered_once() {
        for seed in 0..4000 {
            for block_tokens in [1, 2, 16] {
                let forest = random_forest(seed, block_tokens);
                let result = std::panic::catch_unwind(|| {
                    check(&forest, block_tokens as usize);
                    let order: Vec<usize> = (0..forest.len()).collect();
                    let backwards: Vec<usize> = order.iter().rev().copied().collect();
                    assert_eq!(
                        shape(&forest, &order, block_tokens as usize),
                        shape(&forest, &backwards, block_tokens as usize),
                        "the order of the sequences matters"
                    );
                });
                assert!(
                    result.is_ok(),
                    "seed {seed}, blocks of {block_tokens}: {forest:#?}"
                );
            }
        }
    }

    #[test]
    fn siblings_share_their_stem_and_a_sealed_tail_ends_a_run() {
        let stem = [(BlockId(7), 16), (BlockId(3), 16), (BlockId(9), 5)];
        let sequence = |own: &[(u32, u32)]| Sequence {
            table: stem
                .iter()
                .copied()
                .chain(own.iter().map(|&(b, n)| (BlockId(b), n)))
                .collect(),
            tokens: vec![42],
            write: true,
            outputs: vec![0],
        };
        let (plan, first_rows) = build(
            &[
                sequence(&[(1, 2)]),
                sequence(&[(2, 16), (4, 1)]),
                sequence(&[]),
            ],
            16,
        );
        // The one that ends at the stem comes first.
        assert_eq!(first_rows, [1, 2, 0]);
        let run = |blocks, start, tokens, rows| Run {
            blocks,
            start,
            num_tokens: tokens,
            rows,
        };
        assert_eq!(
            plan.runs,
            [
                run(0..3, 0, 37, 0..3),
                run(3..4, 37, 2, 1..2),
                run(4..6, 37, 17, 2..3)
            ]
        );
        assert_eq!(plan.blocks, [7, 3, 9, 1, 2, 4].map(BlockId));
        assert_eq!(
            plan.rows[2].slot,
            Some(Slot {
                block: BlockId(4),
                offset: 0
            })
        );
        assert_eq!(plan.rows[2].position, 53);
    }

    #[test]
    fn nothing_is_an_empty_plan() {
        assert_eq!(build(&[], 16), (BatchPlan::default(), vec![]));
    }
}
