//! A branch's list of blocks.
//!
//! Positions and blocks, for a table with entries of 16, 16, 5 (sealed), 16 and 3 tokens, blocks
//! of 16: entry 0 owns `[0, 16)`, 1 owns `[16, 32)`, 2 owns `[32, 37)`, 3 owns `[37, 53)`, 4 owns
//! `[53, 56)`. `Table::len` is 56; slot of the next token: entry 4, offset 3.
//!
//! # The shared tail
//!
//! Forking shares every block. No block is written while shared, so the first write into a shared,
//! partly filled tail of `t` tokens held by `c` branches either *copies* the tail (the branch gets
//! a block of its own, `t` tokens are stored twice) or *seals* it (the branch continues in a fresh
//! block and the tail stays as it is, `B - t` slots empty, for all branches below it). Copying
//! costs `(c - 1) t` slots when all write, sealing `B - t`: the cheaper one is done. With the
//! shapes of step search (several children, steps of about a block) sealing keeps the tail stored
//! and read once.

use std::rc::Rc;

use kernels::{BlockId, Slot};

use super::block::{Block, SharedMemory};
use super::trie::Cursor;

#[derive(Clone, Debug)]
struct Entry {
    block: Rc<Block>,
    tokens: u32,
}

/// A block to copy before the batch that writes into the copy.
#[derive(Clone, Debug)]
pub struct CopyOnWrite {
    /// The shared tail; held until the copy has been enqueued.
    pub from: Rc<Block>,
    /// The branch's own block.
    pub to: BlockId,
}

/// A branch's blocks, in order of position. Cloning shares them all.
#[derive(Clone, Debug)]
pub struct Table {
    memory: SharedMemory,
    pool: usize,
    block_tokens: u32,
    entries: Vec<Entry>,
    len: usize,
    cursor: Cursor,
}

impl Table {
    /// An empty table over the blocks of `pool`.
    pub fn new(memory: &SharedMemory, pool: usize, block_tokens: usize) -> Table {
        Table {
            memory: Rc::clone(memory),
            pool,
            block_tokens: block_tokens as u32,
            entries: Vec::new(),
            len: 0,
            cursor: Cursor::default(),
        }
    }

    /// Tokens whose K and V are in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in the cache.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Blocks held.
    pub fn blocks(&self) -> usize {
        self.entries.len()
    }

    /// Whether releasing the blocks would free any: one is held by this table alone.
    pub fn frees_something(&self) -> bool {
        self.entries.iter().any(|e| Rc::strong_count(&e.block) == 1)
    }

    /// Every block with its number of valid tokens.
    pub fn entries(&self) -> Vec<(BlockId, u32)> {
        self.entries
            .iter()
            .map(|e| (e.block.id(), e.tokens))
            .collect()
    }

    /// Takes the longest cached prefix of `tokens`, at most `max_tokens` of them. Only for an empty
    /// table.
    pub fn reuse(&mut self, tokens: &[u32], max_tokens: usize) {
        debug_assert!(self.is_empty());
        let max_blocks = max_tokens / self.block_tokens as usize;
        let (blocks, cursor) = Cursor::find(&self.memory, self.pool, tokens, max_blocks);
        let tokens = self.block_tokens;
        self.entries = blocks
            .into_iter()
            .map(|block| Entry { block, tokens })
            .collect();
        self.len = self.entries.len() * tokens as usize;
        self.cursor = cursor;
    }

    /// Makes room for one more token and returns its slot, with the copy to make first, if any.
    /// `None`, and nothing changed, when every block is live.
    pub fn push(&mut self) -> Option<(Slot, Option<CopyOnWrite>)> {
        let full = self.block_tokens;
        let mut copy = None;
        match self.entries.last_mut() {
            Some(tail) if tail.tokens < full => {
                let holders = Rc::strong_count(&tail.block) as u32;
                if holders > 1 {
                    let block = Block::take(&self.memory, self.pool)?;
                    if (holders - 1) * tail.tokens <= full - tail.tokens {
                        let from = std::mem::replace(&mut tail.block, block);
                        copy = Some(CopyOnWrite {
                            from,
                            to: tail.block.id(),
                        });
                    } else {
                        self.entries.push(Entry { block, tokens: 0 });
                        self.cursor.close();
                    }
                }
            }
            _ => {
                let block = Block::take(&self.memory, self.pool)?;
                self.entries.push(Entry { block, tokens: 0 });
            }
        }
        let tail = self
            .entries
            .last_mut()
            .expect("an entry was there or has been pushed");
        let slot = Slot {
            block: tail.block.id(),
            offset: tail.tokens,
        };
        tail.tokens += 1;
        self.len += 1;
        Some((slot, copy))
    }

    /// Drops the blocks that hold positions from `len` on: afterwards `len()` is at most that.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(entry) = self.entries.pop() else {
                break;
            };
            self.len -= entry.tokens as usize;
        }
        // A block in the trie is never written again, so blocks after the cut stay out of the trie.
        self.cursor.close_beyond(self.entries.len());
    }

    /// Takes back the tokens pushed last, down to `len`: they turned out not to be the sequence's.
    /// Only for tokens whose block is not in the trie.
    pub fn take_back(&mut self, len: usize) {
        while self.len > len {
            let Some(tail) = self.entries.last_mut() else {
                break;
            };
            tail.tokens -= 1;
            self.len -= 1;
            if tail.tokens == 0 {
                self.entries.pop();
            }
        }
    }

    /// Releases every block; the sequence must be computed again.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.len = 0;
        self.cursor = Cursor::default();
    }

    /// Inserts full blocks whose computation is enqueued into the trie; `tokens` are the
    /// sequence's, the first `len()` of which are in the table. A token in the table whose id is
    /// not known yet keeps its block out.
    pub fn remember(&mut self, tokens: &[u32]) {
        let size = self.block_tokens as usize;
        while let Some(next) = self.cursor.next() {
            let Some(entry) = self.entries.get(next).filter(|e| e.tokens as usize == size) else {
                break;
            };
            let Some(known) = tokens.get(next * size..(next + 1) * size) else {
                break;
            };
            (self.cursor).insert(&self.memory, self.pool, known, &entry.block);
        }
    }
}
