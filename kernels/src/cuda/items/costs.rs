//! What an item of work costs.
//!
//! The unit is the warp instruction, as the emulator counts them. An item costs its beginning and end,
//! more for each packed row, and its tiles of 64 tokens, more for every 16 packed rows: `COSTS`, fitted
//! by least squares to the instructions per multiprocessor of the study's trees, N = 16, 64 and 256
//! (within 4.5 % of each, 1.4 % of a tree's sum). A merge costs what is counted. While it is decided what
//! to share, a partial result costs as much as two tokens, whose bytes it has. All want a card to fit them.

/// Tokens of a tile of K or V.
pub const TILE: usize = 64;
/// Packed rows of the largest tile of Q. 128 rows of 128 elements need more than 255 registers on sm_120.
pub const fn most_rows(head_dim: usize) -> usize {
    if head_dim < 128 { 128 } else { MANY_ROWS }
}
/// Packed rows of the middle tile of Q.
pub const MANY_ROWS: usize = 64;
/// Packed rows of the smaller tile of Q.
pub const FEW_ROWS: usize = 16;

/// Warp instructions of an item.
struct Costs {
    /// Beginning and ending it.
    item: u64,
    /// More for each packed row.
    row: u64,
    /// A tile of tokens.
    tile: u64,
    /// More for every 16 packed rows.
    share: u64,
}

/// Of items of up to 16 packed rows and of more, by head dimension: up to 64, and larger.
const COSTS: [[Costs; 2]; 2] = [
    [
        Costs {
            item: 1344,
            row: 65,
            tile: 1000,
            share: 0,
        },
        Costs {
            item: 1657,
            row: 12,
            tile: 422,
            share: 377,
        },
    ],
    [
        Costs {
            item: 1226,
            row: 121,
            tile: 1436,
            share: 0,
        },
        Costs {
            item: 1647,
            row: 20,
            tile: 714,
            share: 523,
        },
    ],
];

/// Warp instructions of merging a packed row, and more for each of its partial results: as counted.
pub(super) const MERGED_ROW: u64 = 120;
pub(super) const MERGED_PARTIAL: u64 = 20;

/// What L2 gives a multiprocessor while it issues an instruction: twice the 4.3 TB/s that copies reach on an
/// H200, by 132 multiprocessors of four issues a cycle at 1.98 GHz. An estimate.
const BYTES_PER_INSTRUCTION: usize = 8;

/// What the items depend on besides the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Elements of a head: decides how many packed rows a tile has.
    pub head_dim: usize,
    /// Query heads per KV head.
    pub group: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Tokens a block holds.
    pub block_tokens: usize,
    /// Positions a row sees, itself included.
    pub window: Option<u32>,
    /// Multiprocessors.
    pub sms: usize,
    /// Thread blocks that share one.
    pub resident: usize,
}

impl Shape {
    /// Thread blocks that run at once.
    pub fn workers(&self) -> usize {
        (self.sms * self.resident).max(1)
    }

    /// Packed rows of the largest tile of Q.
    pub fn most_rows(&self) -> usize {
        most_rows(self.head_dim)
    }

    fn costs(&self, rows: usize) -> &'static Costs {
        &COSTS[usize::from(self.head_dim > 64)][usize::from(rows > FEW_ROWS)]
    }

    /// Sums over the tiles that `rows` packed rows make.
    fn by_tile(&self, rows: usize, cost: impl Fn(&Costs, u64) -> u64) -> u64 {
        let cost = |rows: usize| match rows {
            0 => 0,
            _ => cost(self.costs(rows), rows as u64),
        };
        let most = self.most_rows();
        (rows / most) as u64 * cost(most) + cost(rows % most)
    }

    /// Cost of beginning and ending items of `rows` packed rows.
    pub(super) fn begin(&self, rows: usize) -> u64 {
        self.by_tile(rows, |costs, rows| costs.item + costs.row * rows)
    }

    /// Cost of streaming `slots` tokens past `rows` packed rows, of which a tile costs `least` or more.
    pub(super) fn stream(&self, rows: usize, slots: usize, least: u64) -> u64 {
        let tiles = slots.div_ceil(TILE) as u64;
        tiles
            * self.by_tile(rows, |costs, rows| {
                least.max(costs.tile + costs.share * rows.div_ceil(FEW_ROWS as u64))
            })
    }

    /// Cost of items of `rows` packed rows over `slots` tokens, of which a tile costs `least` or more.
    pub(super) fn cost(&self, rows: usize, slots: usize, least: u64) -> u64 {
        self.begin(rows) + self.stream(rows, slots, least)
    }

    /// Cost of writing and reading `count` partial results: 8 D bytes, those of two tokens.
    pub(super) fn partials(&self, count: u64, least: u64) -> u64 {
        count * self.stream(1, TILE, least) * 2 / TILE as u64
    }

    /// Instructions that a multiprocessor could issue while L2 gives it a tile of K and V.
    pub(super) fn tile_of_bytes(&self) -> u64 {
        (TILE * self.head_dim * 4 / BYTES_PER_INSTRUCTION) as u64
    }

    /// When the work is done: a worker alone on its multiprocessor is no faster than its longest list;
    /// two share it.
    pub(super) fn time(&self, heaviest: u64, heaviest_sm: u64) -> u64 {
        (heaviest + heaviest_sm / self.resident.max(1) as u64) / 2
    }
}
