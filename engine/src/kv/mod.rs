//! The paged KV cache: one memory for all models, blocks that free themselves, reuse of prefixes.
//!
//! - [`memory`]: which bytes of the arena belong to which model's blocks.
//! - [`block`]: an owned block. Dropping the last handle returns it; there is no `free(ids)`.
//! - [`trie`]: full blocks keyed by their tokens, so that later requests reuse them.
//! - [`table`]: a branch's list of blocks; forking shares it, appending copies or seals the tail.
//!
//! A block is *live* while a branch holds it, *cached* when only the prefix trie refers to it
//! (evictable, least recently used first), *free* otherwise.

pub mod block;
pub mod memory;
pub mod table;
pub mod trie;

pub use block::SharedMemory;
pub use memory::KvMemory;
pub use table::{CopyOnWrite, Table};
