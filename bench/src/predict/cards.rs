//! The cards, and the constants of the model as data.
//!
//! Every number is an assumption with a range; none was measured by this project. Sources: *datasheet*,
//! NVIDIA's; *review*, arithmetic over this code at 7daabc2 before it ran anywhere, which is not in the
//! repository; *SASS*, cycles estimated there from the instructions that NVRTC 12.9 makes; *counted*, read
//! from the source; a publication by its name; *estimate*, nobody's figure.

use kernels::cuda::catalog::{ARCHITECTURES, Architecture};

use super::constants::{Assumption, Constant};

/// A card.
#[derive(Debug)]
pub struct Card {
    /// The word of `--card`.
    pub word: &'static str,
    /// Its name.
    pub title: &'static str,
    /// Multiprocessors.
    pub sms: usize,
    /// Bytes of its memory.
    pub memory: usize,
    capability: (i32, i32),
    /// Constants of this card.
    pub(super) constants: &'static [Assumption],
}

impl Card {
    /// The card that a word names.
    ///
    /// # Errors
    /// No such word: the known ones.
    pub fn parse(word: &str) -> Result<&'static Card, String> {
        CARDS.iter().find(|card| card.word == word).ok_or_else(|| {
            let words: Vec<_> = CARDS.iter().map(|card| card.word).collect();
            format!("expected one of {}", words.join(", "))
        })
    }

    /// The limits of its multiprocessors.
    pub fn architecture(&self) -> &'static Architecture {
        let mut all = ARCHITECTURES.iter();
        let found = all.find(|a| a.capability == self.capability);
        found.expect("every card's architecture is in the catalogue")
    }
}

const fn range(constant: Constant, lo: f64, hi: f64, source: &'static str) -> Assumption {
    Assumption {
        constant,
        lo,
        hi,
        source,
    }
}

const fn exact(constant: Constant, value: f64, source: &'static str) -> Assumption {
    range(constant, value, value, source)
}

use Constant::{
    Clock, CublasDram, CublasPeak, Dram, DramLatency, HottestBucket, IssueRate, L2Latency, L2Rate,
    L2Size, LaunchGap, LinearEpilogue, LoadedLatency, MergePartial, MostLikelyStep, OwnStep, Peak,
    RowStep, SearchStep, SharedRate, SharedShare, SmallCopy, Sms, SpinStep, StageStep,
    StockAttentionDram, StockAttentionPeak, StockBatchKernels, StockCopies, StockHost,
    StockLayerKernels, StockSamplingPasses, StockSmallKernel, SumStep, UnitReads, UnitStep,
};

const DATASHEET: &str = "datasheet";
const BOOST: &str = "datasheet, boost; a lower clock under load is part of the shares";
const L2_SCALED: &str = "estimate: the H200's 23 to 33 bytes a clock and multiprocessor";
const GAP: &str = "Spector et al. 2025 (Hazy Research, \"Look Ma, No Bubbles\"): 1.3 us on an H100";
const HOPPER_L2_LATENCY: &str = "estimate: 230 to 270 cycles; the review has 270";
const HOPPER_L2_RATE: &str = "review: 6.0, and 8.6 (the planner's estimate, items/costs.rs)";

/// All cards.
pub static CARDS: [Card; 5] = [
    Card {
        word: "a100",
        title: "A100 80 GB SXM",
        sms: 108,
        memory: 80 << 30,
        capability: (8, 0),
        constants: &[
            exact(Sms, 108.0, DATASHEET),
            exact(Clock, 1.41, BOOST),
            range(
                Dram,
                1.7,
                1.85,
                "estimate: 0.83 to 0.91 of the datasheet's 2.04",
            ),
            range(L2Rate, 3.5, 5.0, L2_SCALED),
            exact(L2Size, 40.0, DATASHEET),
            range(LoadedLatency, 0.5, 0.65, "estimate: as Hopper"),
            range(DramLatency, 0.35, 0.45, "estimate: 500 to 630 cycles"),
            range(L2Latency, 0.142, 0.191, "estimate: 200 to 270 cycles"),
            range(LaunchGap, 1.0, 1.6, GAP),
            exact(Peak, 312.0, DATASHEET),
        ],
    },
    Card {
        word: "rtx4090",
        title: "RTX 4090",
        sms: 128,
        memory: 24 << 30,
        capability: (8, 9),
        constants: &[
            exact(Sms, 128.0, DATASHEET),
            exact(Clock, 2.52, BOOST),
            range(
                Dram,
                0.88,
                0.94,
                "estimate: 0.87 to 0.93 of the datasheet's 1.01",
            ),
            range(L2Rate, 3.8, 5.0, "estimate"),
            exact(L2Size, 72.0, DATASHEET),
            range(LoadedLatency, 0.5, 0.75, "estimate"),
            range(DramLatency, 0.25, 0.35, "estimate"),
            range(L2Latency, 0.1, 0.13, "estimate: 250 to 330 cycles"),
            range(LaunchGap, 1.0, 1.6, GAP),
            exact(Peak, 165.2, "datasheet, f32 sums"),
        ],
    },
    Card {
        word: "h100",
        title: "H100 80 GB SXM",
        sms: 132,
        memory: 80 << 30,
        capability: (9, 0),
        constants: &[
            exact(Sms, 132.0, DATASHEET),
            exact(Clock, 1.98, BOOST),
            range(
                Dram,
                2.9,
                3.1,
                "estimate: 0.87 to 0.93 of the datasheet's 3.35",
            ),
            range(L2Rate, 6.0, 8.6, HOPPER_L2_RATE),
            exact(L2Size, 50.0, DATASHEET),
            range(LoadedLatency, 0.5, 0.65, "review"),
            range(
                DramLatency,
                0.3,
                0.4,
                "estimate: the review has 700 cycles, 0.35",
            ),
            range(L2Latency, 0.116, 0.137, HOPPER_L2_LATENCY),
            range(LaunchGap, 1.0, 1.5, GAP),
            exact(Peak, 989.0, DATASHEET),
        ],
    },
    Card {
        word: "h200",
        title: "H200",
        sms: 132,
        memory: 141 << 30,
        capability: (9, 0),
        constants: &[
            exact(Sms, 132.0, DATASHEET),
            exact(Clock, 1.98, BOOST),
            range(
                Dram,
                4.2,
                4.4,
                "copies on such machines reach 4.3 of the datasheet's 4.8 (review)",
            ),
            range(L2Rate, 6.0, 8.6, HOPPER_L2_RATE),
            exact(L2Size, 50.0, DATASHEET),
            range(LoadedLatency, 0.5, 0.65, "review"),
            range(
                DramLatency,
                0.3,
                0.4,
                "estimate: the review has 700 cycles, 0.35",
            ),
            range(L2Latency, 0.116, 0.137, HOPPER_L2_LATENCY),
            range(LaunchGap, 1.0, 1.5, GAP),
            exact(Peak, 989.0, DATASHEET),
        ],
    },
    Card {
        word: "b200",
        title: "B200",
        sms: 148,
        memory: 180 << 30,
        capability: (10, 0),
        constants: &[
            exact(Sms, 148.0, DATASHEET),
            exact(Clock, 1.965, BOOST),
            range(
                Dram,
                6.6,
                7.2,
                "estimate: 0.83 to 0.9 of the datasheet's 8.0",
            ),
            range(L2Rate, 6.7, 9.6, L2_SCALED),
            exact(L2Size, 126.0, DATASHEET),
            range(
                LoadedLatency,
                0.55,
                0.8,
                "estimate: two dies; the review's 38 KB in flight an SM",
            ),
            range(DramLatency, 0.35, 0.5, "estimate: two dies"),
            range(
                L2Latency,
                0.13,
                0.19,
                "estimate: about 0.15 within a die (Chips and Cheese 2025)",
            ),
            range(LaunchGap, 1.0, 1.5, GAP),
            exact(Peak, 2250.0, DATASHEET),
        ],
    },
];

const LAYER_KERNELS: &str = "estimate: vLLM's model code has two norms, rotation, cache write, attention, \
     merge, SwiGLU; a compiler fuses some. About 100 kernels for 16 layers (Hazy Research 2025)";

/// Constants of every card.
pub(super) static COMMON: &[Assumption] = &[
    range(SmallCopy, 1.5, 3.0, "review: 2 to 4 us each"),
    exact(
        SharedRate,
        128.0,
        "CUDA programming guide: 32 banks of 4 bytes",
    ),
    range(
        SharedShare,
        0.6,
        0.85,
        "review: 300 to 400 TFLOP/s where shared memory allows 535",
    ),
    range(IssueRate, 2.4, 3.0, "review: 2.4 of 4"),
    range(
        StageStep,
        40.0,
        85.0,
        "derived: the review's products imply 0.26 us a stage on an H200",
    ),
    range(
        LinearEpilogue,
        200.0,
        500.0,
        "estimate: two barriers, four reads of shared memory, one store",
    ),
    range(CublasDram, 0.7, 0.85, "review: 0.75"),
    range(
        CublasPeak,
        0.6,
        0.8,
        "review: 0.75 of 790 at 512 rows; 650 to 790 of 989",
    ),
    exact(UnitReads, 5.0, "counted: list, unit, item, rows, entries"),
    range(UnitStep, 650.0, 950.0, "review: 0.4 to 0.5 us on an H200"),
    range(MergePartial, 150.0, 225.0, "SASS: 225, unrolled by four"),
    range(
        RowStep,
        150.0,
        300.0,
        "estimate: five shuffles, a barrier, four reads of shared memory",
    ),
    range(
        MostLikelyStep,
        50.0,
        70.0,
        "SASS: 340 cycles with a read of 270",
    ),
    range(SumStep, 140.0, 190.0, "SASS: 460 with a read of 270"),
    range(OwnStep, 80.0, 110.0, "SASS: 380 with a read of 270"),
    range(SearchStep, 280.0, 380.0, "SASS: 650 with a read of 270"),
    exact(SpinStep, 70.0, "SASS"),
    range(
        HottestBucket,
        0.0,
        0.47,
        "review: none where the model is sure, 60,000 of 128,256 where it is not",
    ),
    range(StockLayerKernels, 3.0, 7.0, LAYER_KERNELS),
    range(
        StockBatchKernels,
        5.0,
        10.0,
        "estimate: embedding, last norm, gather, sampling's",
    ),
    range(
        StockSmallKernel,
        0.5,
        1.2,
        "estimate: one or two dependent reads of DRAM",
    ),
    range(
        StockAttentionDram,
        0.7,
        0.9,
        "estimate; 0.93 on an H200 at 4K if TileOPs PR 2136 had 32 sequences",
    ),
    range(
        StockAttentionPeak,
        0.35,
        0.65,
        "FlashAttention-2 and -3 on an H100: 350 to 650 TFLOP/s (review)",
    ),
    range(
        StockSamplingPasses,
        3.0,
        6.0,
        "estimate: softmax and a draw over f32 logits",
    ),
    range(
        StockCopies,
        2.0,
        6.0,
        "estimate: inputs, block table and lengths there, tokens back",
    ),
    exact(
        StockHost,
        0.0,
        "left out: the stock engine's host is taken to keep up",
    ),
];
