//! An owned block of KV memory.

use std::cell::RefCell;
use std::rc::Rc;

use kernels::BlockId;

use super::memory::KvMemory;

/// The block accounting, shared by the engine and every live block.
pub type SharedMemory = Rc<RefCell<KvMemory>>;

/// A live block. Its reference count is that of the `Rc` it lives in; dropping the last handle
/// makes it cached (if it is in the prefix trie) or free.
pub struct Block {
    id: BlockId,
    pool: usize,
    memory: SharedMemory,
}

impl Block {
    /// Takes a block for `pool`; `None` when every block is live.
    pub fn take(memory: &SharedMemory, pool: usize) -> Option<Rc<Block>> {
        let id = memory.borrow_mut().take(pool)?;
        Some(Block::live(memory, pool, id))
    }

    /// A handle on a block that is accounted live already.
    pub(super) fn live(memory: &SharedMemory, pool: usize, id: BlockId) -> Rc<Block> {
        Rc::new(Block {
            id,
            pool,
            memory: Rc::clone(memory),
        })
    }

    /// The block's place in the arena.
    pub fn id(&self) -> BlockId {
        self.id
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.memory.borrow_mut().dropped(self.pool, self.id);
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({})", self.id.0)
    }
}
