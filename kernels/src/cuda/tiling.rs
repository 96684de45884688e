//! How the attention kernel uses shared memory, by head dimension and card.

use super::items::{TILE, max_rows};

/// Bytes of every block's shared memory that the system takes.
pub(super) const SYSTEM_SHARED: usize = 1024;
/// More tiles than this in the ring gain nothing.
const MAX_STAGES: usize = 8;

/// Constants of one specialisation of the attention kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// Elements of a head, a multiple of 16 up to 256.
    pub head_dim: usize,
    /// Tiles of K or V in shared memory, at least 2.
    pub stages: usize,
    /// Blocks on one multiprocessor.
    pub resident: usize,
}

impl Tiling {
    /// For a card with `per_sm` bytes of shared memory per multiprocessor and at most `per_block`
    /// bytes for one block. Two blocks share a multiprocessor where each gets two tiles; else one
    /// has it to itself.
    pub fn new(head_dim: usize, per_sm: usize, per_block: usize) -> Tiling {
        let fitting = |resident: usize| {
            let room = (per_block - SYSTEM_SHARED).min(per_sm / resident - SYSTEM_SHARED);
            let tilings = (2..=MAX_STAGES).rev().map(|stages| Tiling {
                head_dim,
                stages,
                resident,
            });
            tilings.into_iter().find(|t| t.shared_bytes() <= room)
        };
        let smallest = Tiling {
            head_dim,
            stages: 2,
            resident: 1,
        };
        // Two blocks hide each other's gaps: worth more than more tiles for one.
        fitting(2).or_else(|| fitting(1)).unwrap_or(smallest)
    }

    /// `sizeof(Shared)` in `tree_attention.cu`, which asserts it.
    pub fn shared_bytes(&self) -> usize {
        let located = self.stages.div_ceil(2) + 1;
        let tiles = self.stages * TILE * self.head_dim * 2;
        let rows = max_rows(self.head_dim);
        let q = rows * self.head_dim * 2;
        let slots = located * (TILE * 8 + TILE / 32 * 8);
        (tiles + q + slots + rows * 4).next_multiple_of(128)
    }
}
