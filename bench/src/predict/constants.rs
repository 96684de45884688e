//! The constants of the model by name, and a card with every constant at one end of its range.

use serde::Serialize;

use super::cards::{COMMON, Card};

/// What a number of the model is, whatever the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// Multiprocessors.
    Sms,
    /// Their clock.
    Clock,
    /// Bytes from DRAM that a kernel reaches.
    Dram,
    /// Bytes from L2 to all multiprocessors that a kernel reaches.
    L2Rate,
    /// Bytes of L2.
    L2Size,
    /// A read of DRAM while its bandwidth is in use.
    LoadedLatency,
    /// A read of DRAM that waits for nothing else.
    DramLatency,
    /// A read that hits L2.
    L2Latency,
    /// From the end of a kernel in a graph to the start of the next.
    LaunchGap,
    /// Dense bf16 products of the tensor cores, datasheet.
    Peak,
    /// A copy of a few KB between host and device on the compute stream.
    SmallCopy,
    /// Shared memory of a multiprocessor.
    SharedRate,
    /// The share of it that kernels by `ldmatrix` and `mma.sync` reach.
    SharedShare,
    /// Warp instructions that a multiprocessor issues in attention.
    IssueRate,
    /// Barrier, `ldmatrix` and `mma` of a stage of a linear layer's pipeline.
    StageStep,
    /// The end of a linear layer's block: sums exchanged and written.
    LinearEpilogue,
    /// The share of DRAM bandwidth that cuBLASLt reaches.
    CublasDram,
    /// The share of the datasheet's bf16 peak that cuBLASLt reaches.
    CublasPeak,
    /// Dependent reads of L2 before a unit's first product.
    UnitReads,
    /// Barriers and the epilogue of a unit.
    UnitStep,
    /// Merging one partial result.
    MergePartial,
    /// A reduction over a block in a row-wise kernel.
    RowStep,
    /// Sampling: a token of the search for the most likely one, beyond its read.
    MostLikelyStep,
    /// Sampling: four tokens of a sum, or one of a filter's pass, beyond the read.
    SumStep,
    /// Sampling: a token of a warp's own range, beyond the read.
    OwnStep,
    /// Sampling: 32 tokens of the last search, beyond the read.
    SearchStep,
    /// Sampling: a 64-bit atomic on shared memory that compiles to a loop of compare-and-swap.
    SpinStep,
    /// Sampling: the share of the vocabulary that falls into the fullest bucket of a filter's first
    /// pass.
    HottestBucket,
    /// Stock engine: kernels of a layer beside its four GEMMs.
    StockLayerKernels,
    /// Stock engine: kernels of a batch outside the layers, beside the head's GEMM.
    StockBatchKernels,
    /// Stock engine: a small kernel's own time.
    StockSmallKernel,
    /// Stock engine: the share of DRAM bandwidth that its decode attention reaches.
    StockAttentionDram,
    /// Stock engine: the share of the datasheet's peak that its prefill attention reaches.
    StockAttentionPeak,
    /// Stock engine: times that sampling reads or writes the logits.
    StockSamplingPasses,
    /// Stock engine: copies between host and device of a batch.
    StockCopies,
    /// Stock engine: time of the host that the device waits for, a batch.
    StockHost,
}

/// Which end of a range makes a prediction shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Faster {
    Larger,
    Smaller,
}

impl Constant {
    /// Its name, its unit, and which end of its range is the fast one.
    fn facts(self) -> (&'static str, &'static str, Faster) {
        use Constant::*;
        use Faster::{Larger, Smaller};
        match self {
            Sms => ("multiprocessors", "", Larger),
            Clock => ("SM clock", "GHz", Larger),
            Dram => ("DRAM bandwidth reached", "TB/s", Larger),
            L2Rate => ("L2 to SM bandwidth reached", "TB/s", Larger),
            L2Size => ("L2 size", "MB", Larger),
            LoadedLatency => ("DRAM latency under load", "us", Smaller),
            DramLatency => ("DRAM latency, idle", "us", Smaller),
            L2Latency => ("L2 hit latency", "us", Smaller),
            LaunchGap => ("launch gap in a graph", "us/kernel", Smaller),
            Peak => ("dense bf16 peak, datasheet", "TFLOP/s", Larger),
            SmallCopy => ("small copy on the compute stream", "us/copy", Smaller),
            SharedRate => ("shared-memory bandwidth", "B/clk/SM", Larger),
            SharedShare => ("share of it that mma.sync kernels reach", "", Larger),
            IssueRate => ("attention: issue rate", "warp instr/clk/SM", Larger),
            StageStep => ("linear: barrier and mma of a stage", "clk", Smaller),
            LinearEpilogue => ("linear: end of a block", "clk", Smaller),
            CublasDram => ("cuBLASLt: share of DRAM bandwidth", "", Larger),
            CublasPeak => ("cuBLASLt: share of the bf16 peak", "", Larger),
            UnitReads => ("attention: dependent L2 reads of a unit", "", Smaller),
            UnitStep => ("attention: barriers and end of a unit", "clk", Smaller),
            MergePartial => ("merge: a partial result", "clk", Smaller),
            RowStep => ("row-wise kernels: a block's reduction", "clk", Smaller),
            MostLikelyStep => ("sampling: most likely token, a round", "clk", Smaller),
            SumStep => ("sampling: sums and filters, a round", "clk", Smaller),
            OwnStep => ("sampling: own range, a round", "clk", Smaller),
            SearchStep => ("sampling: last search, a round", "clk", Smaller),
            SpinStep => ("sampling: compare-and-swap of a weight", "clk", Smaller),
            HottestBucket => ("sampling: tokens in the fullest bucket", "", Smaller),
            StockLayerKernels => ("stock: small kernels of a layer", "", Smaller),
            StockBatchKernels => ("stock: small kernels of a batch", "", Smaller),
            StockSmallKernel => ("stock: a small kernel, gap aside", "us", Smaller),
            StockAttentionDram => ("stock: attention's share of DRAM", "", Larger),
            StockAttentionPeak => ("stock: prefill attention's share of peak", "", Larger),
            StockSamplingPasses => ("stock: passes of sampling over logits", "", Smaller),
            StockCopies => ("stock: small copies of a batch", "", Smaller),
            StockHost => ("stock: host time exposed", "us/batch", Smaller),
        }
    }
}

/// A constant's range, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assumption {
    /// What it is.
    pub constant: Constant,
    /// The smaller end.
    pub lo: f64,
    /// The larger end.
    pub hi: f64,
    /// A datasheet, a publication, or what it was derived from.
    pub source: &'static str,
}

/// An assumption as it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Printed {
    /// What it is.
    pub name: &'static str,
    /// Its unit; empty for counts and shares.
    pub unit: &'static str,
    /// The smaller end.
    pub lo: f64,
    /// The larger end.
    pub hi: f64,
    /// Where it comes from.
    pub source: &'static str,
}

impl Card {
    /// Every assumption behind a prediction for this card.
    pub fn assumptions(&self) -> impl Iterator<Item = &'static Assumption> {
        self.constants.iter().chain(COMMON)
    }

    /// The same, as they are printed.
    pub fn printed(&self) -> Vec<Printed> {
        let printed = |a: &Assumption| {
            let (name, unit, _) = a.constant.facts();
            Printed {
                name,
                unit,
                lo: a.lo,
                hi: a.hi,
                source: a.source,
            }
        };
        self.assumptions().map(printed).collect()
    }

    /// The range of a constant.
    ///
    /// # Panics
    /// If the tables lack it, which a test rules out.
    pub fn range(&self, constant: Constant) -> Span {
        let mut all = self.assumptions();
        let found = all.find(|a| a.constant == constant);
        let found = found.unwrap_or_else(|| panic!("{constant:?} of {}", self.word));
        Span {
            lo: found.lo,
            hi: found.hi,
        }
    }
}

/// A range of a predicted number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Span {
    /// Every constant at its fast end.
    pub lo: f64,
    /// Every constant at its slow end.
    pub hi: f64,
}

impl Span {
    /// A duration with every constant of `card` at its fast and at its slow end.
    pub fn of(card: &'static Card, mut time: impl FnMut(&CardEnd) -> f64) -> Span {
        let [lo, hi] = CardEnd::ends(card).map(|machine| time(&machine));
        Span { lo, hi }
    }

    /// Both ends times a factor.
    pub fn scaled(self, factor: f64) -> Span {
        Span {
            lo: self.lo * factor,
            hi: self.hi * factor,
        }
    }

    /// The middle of the range.
    pub fn middle(self) -> f64 {
        (self.lo + self.hi) / 2.0
    }
}

/// A card with every constant at one end of its range. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct CardEnd {
    /// The card.
    pub card: &'static Card,
    fast: bool,
}

impl CardEnd {
    /// The card at its fast end and at its slow end.
    pub fn ends(card: &'static Card) -> [CardEnd; 2] {
        [true, false].map(|fast| CardEnd { card, fast })
    }

    /// Whether this is the fast end.
    pub fn is_fast(&self) -> bool {
        self.fast
    }

    /// A constant.
    pub fn value(&self, constant: Constant) -> f64 {
        let Span { lo, hi } = self.card.range(constant);
        let (_, _, faster) = constant.facts();
        if self.fast == (faster == Faster::Larger) {
            hi
        } else {
            lo
        }
    }

    /// Multiprocessors.
    pub fn sms(&self) -> f64 {
        self.card.sms as f64
    }

    /// Microseconds of some clock cycles.
    pub fn clocks(&self, cycles: f64) -> f64 {
        cycles / (self.value(Constant::Clock) * 1e3)
    }

    /// Microseconds of as many clock cycles as a constant says.
    pub fn step(&self, constant: Constant) -> f64 {
        self.clocks(self.value(constant))
    }

    /// Microseconds in which DRAM gives some bytes.
    pub fn dram(&self, bytes: f64) -> f64 {
        bytes / (self.value(Constant::Dram) * 1e6)
    }

    /// Microseconds in which L2 gives some bytes to all multiprocessors.
    pub fn l2(&self, bytes: f64) -> f64 {
        bytes / (self.value(Constant::L2Rate) * 1e6)
    }

    /// Microseconds in which buffers of some bytes, written by the kernel before or read by the one
    /// after, are moved: through L2 where half of it holds them, else through DRAM.
    pub fn stream(&self, bytes: f64) -> f64 {
        if bytes <= self.value(Constant::L2Size) * 1e6 / 2.0 {
            self.l2(bytes)
        } else {
            self.dram(bytes)
        }
    }

    /// Microseconds in which one multiprocessor moves some bytes through its shared memory.
    pub fn shared(&self, bytes: f64) -> f64 {
        let rate = self.value(Constant::SharedRate) * self.value(Constant::SharedShare);
        self.clocks(bytes / rate)
    }

    /// Microseconds of some floating-point operations at the datasheet's peak.
    pub fn peak(&self, flops: f64) -> f64 {
        flops / (self.value(Constant::Peak) * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cards::CARDS;
    use super::*;

    #[test]
    fn every_card_has_every_constant_once_with_a_range_and_a_source() {
        let names: Vec<Vec<&str>> = (CARDS.iter())
            .map(|card| card.printed().iter().map(|p| p.name).collect())
            .collect();
        for (card, of_card) in CARDS.iter().zip(&names) {
            let mut sorted = of_card.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), of_card.len(), "{}", card.word);
            assert_eq!(of_card, &names[0], "{}", card.word);
            for printed in card.printed() {
                assert!(printed.lo <= printed.hi, "{}: {printed:?}", card.word);
                assert!(!printed.source.is_empty(), "{}: {printed:?}", card.word);
            }
        }
        // As many as there are variants: the last one's number is known.
        assert_eq!(names[0].len(), Constant::StockHost as usize + 1);
    }

    #[test]
    fn the_fast_end_is_fast() {
        for card in &CARDS {
            let [fast, slow] = CardEnd::ends(card);
            for assumption in card.assumptions() {
                let [fast, slow] = [fast, slow].map(|m| m.value(assumption.constant));
                assert_eq!(fast.min(slow), assumption.lo);
                assert_eq!(fast.max(slow), assumption.hi);
            }
            assert_eq!(card.range(Constant::Sms).lo, card.sms as f64);
            assert!(fast.dram(1e9) < slow.dram(1e9));
            assert!(fast.value(Constant::L2Latency) < slow.value(Constant::L2Latency));
        }
    }
}
