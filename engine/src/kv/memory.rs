//! The accounting of the arena: which bytes belong to which model's blocks.
//!
//! Models differ in the size of their blocks. The arena is divided into *superblocks*; each belongs
//! to one model while any block of it is in use, and returns to the shared pool when its last block
//! is freed. So all models share one budget.

use std::collections::{BTreeSet, HashMap};

use kernels::BlockId;

use super::trie::PrefixTrie;

/// The block accounting of all models over one arena.
#[derive(Debug)]
pub struct KvMemory {
    superblock_units: u32,
    free_superblocks: BTreeSet<u32>,
    superblocks: u32,
    pools: Vec<Pool>,
    clock: u64,
}

/// One model's share of [`KvMemory`].
#[derive(Debug)]
struct Pool {
    /// Units from one block to the next.
    stride: u32,
    /// Blocks in one superblock.
    per_superblock: u32,
    /// Superblocks of this model with a free block, and the free indices in each.
    open: BTreeSet<u32>,
    owned: HashMap<u32, BTreeSet<u32>>,
    live: usize,
    peak_live: usize,
    trie: PrefixTrie,
}

/// How the arena is divided for a set of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaLayout {
    /// Bytes between consecutive [`BlockId`]s.
    pub unit_bytes: usize,
    /// Bytes from one block to the next, for each model.
    pub strides: Vec<usize>,
    /// Bytes of a superblock.
    pub superblock_bytes: usize,
    /// Superblocks in the arena.
    pub superblocks: usize,
}

impl ArenaLayout {
    /// Divides `bytes` for models whose blocks take `block_bytes` each.
    ///
    /// A superblock has the least common multiple of the block sizes, which wastes nothing, unless
    /// that is more than a sixteenth of the arena; then it has the size of the largest block.
    pub fn new(bytes: usize, block_bytes: &[usize]) -> ArenaLayout {
        let strides: Vec<usize> = block_bytes.iter().map(|b| b.next_multiple_of(64)).collect();
        let unit = strides.iter().copied().reduce(gcd).unwrap_or(64);
        let largest = strides.iter().copied().max().unwrap_or(64);
        let common = strides
            .iter()
            .try_fold(unit, |a, &b| (a / gcd(a, b)).checked_mul(b));
        let superblock_bytes = match common {
            Some(common) if common <= bytes / 16 => common,
            _ => largest,
        };
        ArenaLayout {
            unit_bytes: unit,
            strides,
            superblock_bytes,
            superblocks: bytes / superblock_bytes,
        }
    }

    /// Bytes of the arena.
    pub fn bytes(&self) -> usize {
        self.superblocks * self.superblock_bytes
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl KvMemory {
    /// Accounting for the models of `layout`, in its order; `block_tokens` tokens a block.
    pub fn new(layout: &ArenaLayout, block_tokens: usize) -> KvMemory {
        let units = |bytes: usize| (bytes / layout.unit_bytes) as u32;
        let pools = layout.strides.iter().map(|&stride| Pool {
            stride: units(stride),
            per_superblock: (layout.superblock_bytes / stride) as u32,
            open: BTreeSet::new(),
            owned: HashMap::new(),
            live: 0,
            peak_live: 0,
            trie: PrefixTrie::new(block_tokens),
        });
        KvMemory {
            superblock_units: units(layout.superblock_bytes),
            free_superblocks: (0..layout.superblocks as u32).collect(),
            superblocks: layout.superblocks as u32,
            pools: pools.collect(),
            clock: 0,
        }
    }

    /// Takes a free block of `pool`, evicting cached blocks of any model if there is none.
    /// `None` when every block is live.
    pub(super) fn take(&mut self, pool: usize) -> Option<BlockId> {
        loop {
            if let Some(id) = self.take_free(pool) {
                let pool = &mut self.pools[pool];
                pool.live += 1;
                pool.peak_live = pool.peak_live.max(pool.live);
                return Some(id);
            }
            self.evict_one()?;
        }
    }

    fn take_free(&mut self, index: usize) -> Option<BlockId> {
        let pool = &mut self.pools[index];
        let superblock = match pool.open.first() {
            Some(&superblock) => superblock,
            None => {
                let superblock = self.free_superblocks.pop_first()?;
                pool.owned
                    .insert(superblock, (0..pool.per_superblock).collect());
                pool.open.insert(superblock);
                superblock
            }
        };
        let free = pool.owned.get_mut(&superblock)?;
        let slot = free.pop_first()?;
        if free.is_empty() {
            pool.open.remove(&superblock);
        }
        Some(BlockId(
            superblock * self.superblock_units + slot * pool.stride,
        ))
    }

    fn put_free(&mut self, index: usize, id: BlockId) {
        let pool = &mut self.pools[index];
        let superblock = id.0 / self.superblock_units;
        let slot = (id.0 % self.superblock_units) / pool.stride;
        let free = pool
            .owned
            .get_mut(&superblock)
            .expect("a freed block lies in a superblock of its pool");
        assert!(free.insert(slot), "block {id:?} freed twice");
        if free.len() == pool.per_superblock as usize {
            pool.owned.remove(&superblock);
            pool.open.remove(&superblock);
            self.free_superblocks.insert(superblock);
        } else {
            pool.open.insert(superblock);
        }
    }

    /// Evicts the least recently used cached block of any model.
    fn evict_one(&mut self) -> Option<()> {
        let (index, _) = (self.pools.iter().enumerate())
            .filter_map(|(i, p)| Some((i, p.trie.oldest()?)))
            .min_by_key(|&(i, used)| (used, i))?;
        let id = self.pools[index].trie.evict()?;
        self.put_free(index, id);
        Some(())
    }

    /// Called when a block's last live handle drops: it becomes cached or free.
    pub(super) fn dropped(&mut self, index: usize, id: BlockId) {
        let pool = &mut self.pools[index];
        pool.live -= 1;
        self.clock += 1;
        if !pool.trie.release(id, self.clock) {
            self.put_free(index, id);
        }
    }

    /// A cached block is live again.
    pub(super) fn revived(&mut self, pool: usize) {
        let pool = &mut self.pools[pool];
        pool.live += 1;
        pool.peak_live = pool.peak_live.max(pool.live);
    }

    pub(super) fn trie(&mut self, pool: usize) -> &mut PrefixTrie {
        &mut self.pools[pool].trie
    }

    /// Blocks of `pool` that branches hold now.
    pub fn live(&self, pool: usize) -> usize {
        self.pools[pool].live
    }

    /// The largest number of blocks of `pool` that branches held at once.
    pub fn peak_live(&self, pool: usize) -> usize {
        self.pools[pool].peak_live
    }

    /// Blocks of `pool` that only the prefix trie keeps.
    pub fn cached(&self, pool: usize) -> usize {
        self.pools[pool].trie.cached()
    }

    /// Blocks that `pool` would have if the whole arena were its own.
    pub fn capacity(&self, pool: usize) -> usize {
        self.superblocks as usize * self.pools[pool].per_superblock as usize
    }

    /// Panics unless free + cached + live blocks are all the blocks of every superblock, and the
    /// superblocks of the pools and the free ones are all there are.
    #[cfg(test)]
    pub fn check(&self) {
        let mut owned = 0;
        for pool in &self.pools {
            let free: usize = pool.owned.values().map(BTreeSet::len).sum();
            let total = pool.owned.len() * pool.per_superblock as usize;
            assert_eq!(
                free + pool.live + pool.trie.cached(),
                total,
                "free + live + cached = total"
            );
            for (place, free) in &pool.owned {
                assert_eq!(
                    pool.open.contains(place),
                    !free.is_empty(),
                    "open superblocks have room"
                );
            }
            owned += pool.owned.len();
            pool.trie.check();
        }
        assert_eq!(
            owned + self.free_superblocks.len(),
            self.superblocks as usize,
            "every superblock has one owner"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_fits_every_model_without_waste_when_that_is_affordable() {
        for (bytes, blocks, unit, superblocks, superblock_bytes) in [
            (1 << 20, vec![4096], 4096, 256, 4096),
            (1 << 20, vec![4096, 6144], 2048, 85, 12288),
            (1 << 16, vec![4096, 6144], 2048, 10, 6144),
            (1000, vec![50], 64, 15, 64),
            (100, vec![4096], 4096, 0, 4096),
        ] {
            let layout = ArenaLayout::new(bytes, &blocks);
            let found = (
                layout.unit_bytes,
                layout.superblocks,
                layout.superblock_bytes,
            );
            assert_eq!(
                found,
                (unit, superblocks, superblock_bytes),
                "{bytes} bytes, blocks of {blocks:?}"
            );
        }
    }
}
