//! Random plans, for tests.

use super::{BatchPlan, BlockId, SequenceRows};
use crate::philox::uniform_u64;

/// A generator of random numbers below a bound.
pub(crate) struct Random {
    pub(crate) seed: u64,
    pub(crate) count: u64,
}

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.count += 1;
        (uniform_u64(self.seed, self.count) % n as u64) as usize
    }
}

/// A batch over a random forest: forks at blocks and at sealed tails, decode and prefill rows, and
/// rows that end inside their parents' runs.
pub(crate) fn random_plan(random: &mut Random, block_tokens: usize) -> BatchPlan {
    let (mut next_block, mut tables) = (0, Vec::<Vec<(BlockId, u32)>>::new());
    for index in 0..1 + random.below(20) {
        let mut table = Vec::new();
        if index > 0 && random.below(6) > 0 {
            let parent = &tables[random.below(index)];
            table.extend_from_slice(&parent[..random.below(parent.len() + 1)]);
        }
        let own = random.below(12) + usize::from(table.is_empty());
        for i in 0..own {
            let full = i + 1 < own || random.below(3) == 0;
            let tokens = if full {
                block_tokens
            } else {
                1 + random.below(block_tokens)
            };
            table.push((BlockId(next_block), tokens as u32));
            next_block += 1;
        }
        tables.push(table);
    }
    let rows: Vec<Vec<u32>> = tables
        .iter()
        .map(|table| {
            let len: u32 = table.iter().map(|e| e.1).sum();
            let count = match random.below(4) {
                0 => random.below(len as usize + 1),
                1 => 0,
                _ => 1,
            };
            vec![0; count]
        })
        .collect();
    let sequences: Vec<SequenceRows<'_>> = tables
        .iter()
        .zip(&rows)
        .map(|(table, tokens)| SequenceRows {
            table,
            token_ids: tokens,
            write: true,
            outputs: &[],
        })
        .collect();
    BatchPlan::build(&sequences, block_tokens).0
}
