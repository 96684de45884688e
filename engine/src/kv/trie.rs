//! Full blocks keyed by their tokens: reuse of prefixes across branches and requests.
//!
//! A node is one full block; the path from the root spells the tokens before it (no path
//! compression). The trie owns nothing: it has weak handles to live blocks, and ids of cached ones
//! until they are evicted.
//!
//! Invariant: the block of a live node's parent is live (a branch that holds a block holds every
//! block before it), so eviction only ever needs to look at leaves.

use std::collections::{BTreeSet, HashMap};
use std::rc::{Rc, Weak};

use kernels::BlockId;

use super::block::{Block, SharedMemory};

/// A node of a [`PrefixTrie`]; valid while its block is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

#[derive(Debug)]
struct Node {
    parent: Option<NodeId>,
    tokens: Box<[u32]>,
    block: BlockId,
    live: Weak<Block>,
    children: HashMap<Box<[u32]>, NodeId>,
    last_used: u64,
}

impl Node {
    fn cached(&self) -> bool {
        self.live.strong_count() == 0
    }
}

/// The prefixes of one model that are in the cache.
#[derive(Debug)]
pub struct PrefixTrie {
    block_tokens: usize,
    nodes: HashMap<NodeId, Node>,
    next: usize,
    roots: HashMap<Box<[u32]>, NodeId>,
    by_block: HashMap<BlockId, NodeId>,
    /// Cached leaves by last use.
    evictable: BTreeSet<(u64, NodeId)>,
    cached: usize,
}

impl PrefixTrie {
    /// An empty trie over blocks of `block_tokens` tokens.
    pub fn new(block_tokens: usize) -> PrefixTrie {
        PrefixTrie {
            block_tokens,
            nodes: HashMap::new(),
            next: 0,
            roots: HashMap::new(),
            by_block: HashMap::new(),
            evictable: BTreeSet::new(),
            cached: 0,
        }
    }

    fn child(&self, parent: Option<NodeId>, tokens: &[u32]) -> Option<NodeId> {
        let children = match parent {
            Some(parent) => &self.nodes.get(&parent)?.children,
            None => &self.roots,
        };
        children.get(tokens).copied()
    }

    fn longest(&self, tokens: &[u32], max_blocks: usize) -> Vec<NodeId> {
        let mut path = Vec::new();
        for piece in tokens.chunks_exact(self.block_tokens).take(max_blocks) {
            match self.child(path.last().copied(), piece) {
                Some(node) => path.push(node),
                None => break,
            }
        }
        path
    }

    /// Inserts `block`, which holds `tokens` after the path to `parent`. `None` if another block
    /// holds the same: the caller's block stays outside.
    fn insert(
        &mut self,
        parent: Option<NodeId>,
        tokens: &[u32],
        block: &Rc<Block>,
    ) -> Option<NodeId> {
        debug_assert_eq!(tokens.len(), self.block_tokens);
        if self.child(parent, tokens).is_some() {
            return None;
        }
        let id = NodeId(self.next);
        self.next += 1;
        let tokens: Box<[u32]> = tokens.into();
        let children = match parent {
            Some(parent) => &mut self.nodes.get_mut(&parent)?.children,
            None => &mut self.roots,
        };
        children.insert(tokens.clone(), id);
        self.by_block.insert(block.id(), id);
        let live = Rc::downgrade(block);
        self.nodes.insert(
            id,
            Node {
                parent,
                tokens,
                block: block.id(),
                live,
                children: HashMap::new(),
                last_used: 0,
            },
        );
        Some(id)
    }

    /// Called when a block's last handle drops. Returns whether the trie keeps it cached.
    pub(super) fn release(&mut self, block: BlockId, clock: u64) -> bool {
        let Some(&id) = self.by_block.get(&block) else {
            return false;
        };
        self.cached += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.last_used = clock;
            if node.children.is_empty() {
                self.evictable.insert((clock, id));
            }
        }
        true
    }

    fn reuse(&mut self, id: NodeId, block: &Rc<Block>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            self.evictable.remove(&(node.last_used, id));
            node.live = Rc::downgrade(block);
            self.cached -= 1;
        }
    }

    /// When the least recently used evictable block was last used.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.evictable.first().map(|&(used, _)| used)
    }

    /// Removes the least recently used cached leaf and returns its block.
    pub(super) fn evict(&mut self) -> Option<BlockId> {
        let (_, id) = self.evictable.pop_first()?;
        let node = self.nodes.remove(&id)?;
        self.by_block.remove(&node.block);
        self.cached -= 1;
        match node.parent {
            None => {
                self.roots.remove(&node.tokens);
            }
            Some(parent) => {
                if let Some(above) = self.nodes.get_mut(&parent) {
                    above.children.remove(&node.tokens);
                    if above.children.is_empty() && above.cached() {
                        self.evictable.insert((above.last_used, parent));
                    }
                }
            }
        }
        Some(node.block)
    }

    /// Blocks that only the trie keeps.
    pub(super) fn cached(&self) -> usize {
        self.cached
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let cached = self.nodes.values().filter(|n| n.cached()).count();
        assert_eq!(cached, self.cached, "cached blocks are counted");
        for (id, node) in &self.nodes {
            let leaf = node.children.is_empty() && node.cached();
            assert_eq!(
                self.evictable.contains(&(node.last_used, *id)),
                leaf,
                "cached leaves are evictable"
            );
            assert_eq!(
                self.by_block.get(&node.block),
                Some(id),
                "every node is found by its block"
            );
            if let (false, Some(parent)) = (node.cached(), node.parent) {
                assert!(
                    !self.nodes[&parent].cached(),
                    "the parent of a live block is live"
                );
            }
        }
        assert_eq!(self.by_block.len(), self.nodes.len());
    }
}

/// How many of a branch's full blocks are in the trie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// The node of the last block that is in the trie.
    node: Option<NodeId>,
    /// Leading blocks of the table that are in the trie.
    blocks: usize,
    /// Another block already holds the same tokens, or a tail was sealed: no further block of this
    /// branch enters the trie.
    closed: bool,
}

impl Cursor {
    /// The longest cached prefix of `tokens`, at most `max_blocks` full blocks, made live.
    pub fn find(
        memory: &SharedMemory,
        pool: usize,
        tokens: &[u32],
        max_blocks: usize,
    ) -> (Vec<Rc<Block>>, Cursor) {
        let path = memory.borrow_mut().trie(pool).longest(tokens, max_blocks);
        let mut blocks = Vec::with_capacity(path.len());
        for &id in &path {
            let mut all = memory.borrow_mut();
            let Some(node) = all.trie(pool).nodes.get(&id) else {
                break;
            };
            let block = match node.live.upgrade() {
                Some(block) => block,
                None => {
                    let block = Block::live(memory, pool, node.block);
                    all.trie(pool).reuse(id, &block);
                    all.revived(pool);
                    block
                }
            };
            blocks.push(block);
        }
        let cursor = Cursor {
            node: path.last().copied(),
            blocks: path.len(),
            closed: false,
        };
        (blocks, cursor)
    }

    /// Leading blocks of the table that are in the trie, or `None` if no more can enter.
    pub fn next(&self) -> Option<usize> {
        (!self.closed).then_some(self.blocks)
    }

    /// Inserts the next full block, which holds `tokens`.
    pub fn insert(
        &mut self,
        memory: &SharedMemory,
        pool: usize,
        tokens: &[u32],
        block: &Rc<Block>,
    ) {
        match memory
            .borrow_mut()
            .trie(pool)
            .insert(self.node, tokens, block)
        {
            Some(node) => {
                self.node = Some(node);
                self.blocks += 1;
            }
            None => self.closed = true,
        }
    }

    /// The table was cut to its first `blocks` blocks.
    pub fn close_beyond(&mut self, blocks: usize) {
        self.closed |= self.blocks > blocks;
    }

    /// No further block of this branch enters the trie.
    pub fn close(&mut self) {
        self.closed = true;
    }
}
