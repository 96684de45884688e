//! How the attention kernel uses shared memory, by head dimension and card.

use super::items::{TILE, most_rows};

/// The system keeps this much of every block's share; from sm_100 on the compiler counts it as the
/// block's own.
const RESERVED: usize = 1024;
/// More tiles under way than this gain nothing.
const MOST_SLOTS: usize = 8;

/// Constants of one specialisation of the attention kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// Elements of a head, a multiple of 16 up to 256.
    pub head_dim: usize,
    /// Tiles of K or V in shared memory.
    pub slots: usize,
    /// Blocks on one multiprocessor.
    pub resident: usize,
}

impl Tiling {
    /// For a card with that many bytes of shared memory per multiprocessor, and at most that many
    /// for one block. Two blocks share a multiprocessor where each gets two tiles; else one has it
    /// to itself.
    pub fn new(head_dim: usize, per_sm: usize, per_block: usize) -> Tiling {
        let fitting = |resident: usize| {
            let room = (per_block - RESERVED).min(per_sm / resident - RESERVED);
            (2..=MOST_SLOTS).rev().find(|&slots| {
                Tiling {
                    head_dim,
                    slots,
                    resident,
                }
                .shared_bytes()
                    <= room
            })
        };
        // Two blocks hide each other's gaps: worth more than more tiles for one.
        let (slots, resident) = match fitting(2) {
            Some(slots) => (slots, 2),
            None => (fitting(1).unwrap_or(2), 1),
        };
        Tiling {
            head_dim,
            slots,
            resident,
        }
    }

    /// `sizeof(Shared)` in `tree_attention.cu`, which asserts it.
    pub fn shared_bytes(&self) -> usize {
        let ring = self.slots.div_ceil(2) + 1;
        let tiles = self.slots * TILE * self.head_dim * 2;
        let rows = most_rows(self.head_dim);
        let q = rows * self.head_dim * 2;
        let places = ring * (TILE * 8 + TILE / 32 * 8);
        (tiles + q + places + rows * 4).next_multiple_of(128)
    }
}
