//! The cost model of work items.
//!
//! The unit is the warp instruction, as the emulator counts them. An item costs a fixed amount,
//! plus one per packed row, plus one per tile of 64 tokens, which grows with every 16 packed rows:
//! `COSTS`, fitted by least squares to the instructions per multiprocessor of the study's trees, N
//! = 16, 64 and 256 (within 4.5 % of each, 1.4 % of a tree's sum). The cost of a merge is counted,
//! not fitted. The decision what to share counts a partial result as two tokens, which have as many
//! bytes. None of this is fitted on a card yet.

/// Tokens of a tile of K or V.
pub const TILE: usize = 64;
/// Packed rows of the largest tile of Q. 128 rows of 128 elements need more than 255 registers on
/// sm_120.
pub const fn max_rows(head_dim: usize) -> usize {
    if head_dim < 128 { 128 } else { MANY_ROWS }
}
/// Packed rows of the middle tile of Q.
pub const MANY_ROWS: usize = 64;
/// Packed rows of the smallest tile of Q.
pub const FEW_ROWS: usize = 16;
/// The kernel stores the offset of a token in the arena in 32 bits, in units of this many bytes: the
/// largest that divides both a token of one head (`2 head_dim` bytes) and a block's stride, a
/// multiple of 64 ([`crate::KvLayout::unit_bytes`]).
pub const fn address_unit(head_dim: usize) -> usize {
    if head_dim.is_multiple_of(32) { 64 } else { 32 }
}

/// Warp instructions of an item.
struct Costs {
    /// Per item.
    item: u64,
    /// Per packed row.
    row: u64,
    /// Per tile of tokens.
    tile: u64,
    /// Per tile of tokens and 16 packed rows.
    row_group: u64,
}

/// Of items of up to 16 packed rows and of more, by head dimension: up to 64, and larger.
const COSTS: [[Costs; 2]; 2] = [
    [
        Costs {
            item: 1344,
            row: 65,
            tile: 1000,
            row_group: 0,
        },
        Costs {
            item: 1657,
            row: 12,
            tile: 422,
            row_group: 377,
        },
    ],
    [
        Costs {
            item: 1226,
            row: 121,
            tile: 1436,
            row_group: 0,
        },
        Costs {
            item: 1647,
            row: 20,
            tile: 714,
            row_group: 523,
        },
    ],
];

/// Warp instructions of merging a packed row, and of each of its partial results: as counted.
pub(super) const MERGED_ROW: u64 = 120;
pub(super) const MERGED_PARTIAL: u64 = 20;

/// Bytes that L2 delivers to a multiprocessor per instruction it issues: twice the 4.3 TB/s that
/// copies reach on an H200, by 132 multiprocessors of four issues a cycle at 1.98 GHz. An estimate.
const BYTES_PER_INSTRUCTION: usize = 8;

/// What the work depends on besides the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Elements of a head: decides how many packed rows a tile has.
    pub head_dim: usize,
    /// Query heads per KV head.
    pub group: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Tokens a block holds.
    pub block_tokens: usize,
    /// Positions a row sees, its own included.
    pub window: Option<u32>,
    /// Multiprocessors.
    pub sms: usize,
    /// Thread blocks that share one.
    pub resident: usize,
}

impl AttentionShape {
    /// Thread blocks that run at once.
    pub fn workers(&self) -> usize {
        (self.sms * self.resident).max(1)
    }

    /// Packed rows of the largest tile of Q.
    pub fn max_rows(&self) -> usize {
        max_rows(self.head_dim)
    }

    fn costs(&self, rows: usize) -> &'static Costs {
        &COSTS[usize::from(self.head_dim > 64)][usize::from(rows > FEW_ROWS)]
    }

    /// Sum of a cost over the tiles of Q that `rows` packed rows make.
    fn by_tile(&self, rows: usize, cost: impl Fn(&Costs, u64) -> u64) -> u64 {
        let cost = |rows: usize| match rows {
            0 => 0,
            _ => cost(self.costs(rows), rows as u64),
        };
        let max = self.max_rows();
        (rows / max) as u64 * cost(max) + cost(rows % max)
    }

    /// Cost of items of `rows` packed rows before any token.
    pub(super) fn begin(&self, rows: usize) -> u64 {
        self.by_tile(rows, |costs, rows| costs.item + costs.row * rows)
    }

    /// Cost of streaming `slots` tokens past `rows` packed rows, at least `min_tile` per tile.
    pub(super) fn stream(&self, rows: usize, slots: usize, min_tile: u64) -> u64 {
        let tiles = slots.div_ceil(TILE) as u64;
        tiles
            * self.by_tile(rows, |costs, rows| {
                min_tile.max(costs.tile + costs.row_group * rows.div_ceil(FEW_ROWS as u64))
            })
    }

    /// Cost of items of `rows` packed rows over `slots` tokens, at least `min_tile` per tile.
    pub(super) fn cost(&self, rows: usize, slots: usize, min_tile: u64) -> u64 {
        self.begin(rows) + self.stream(rows, slots, min_tile)
    }

    /// Warp instructions of an item of `rows` packed rows over `slots` tokens, as fitted to counts.
    pub fn item_instructions(&self, rows: usize, slots: usize) -> u64 {
        self.cost(rows, slots, 0)
    }

    /// Cost of writing and reading `count` partial results: 8 D bytes each, as two tokens have.
    pub(super) fn partials(&self, count: u64, min_tile: u64) -> u64 {
        count * self.stream(1, TILE, min_tile) * 2 / TILE as u64
    }

    /// Instructions that a multiprocessor could issue while L2 delivers a tile of K and V.
    pub(super) fn tile_transfer(&self) -> u64 {
        (TILE * self.head_dim * 4 / BYTES_PER_INSTRUCTION) as u64
    }

    /// Time of the whole, in instructions: a worker alone on its multiprocessor takes as long as
    /// the heaviest list of units; workers that share one take as long as their sum, shared by
    /// `resident`.
    pub(super) fn time(&self, heaviest: u64, heaviest_sm: u64) -> u64 {
        (heaviest + heaviest_sm / self.resident.max(1) as u64) / 2
    }
}
