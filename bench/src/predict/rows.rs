//! Time of the row-wise kernels (`rows.cu`) and of sampling (`sample.cu`), the launch gap aside.
//!
//! At the few rows of a decode batch a row-wise kernel is a chain of dependent reads: a block of 128 threads
//! takes a row, eight elements a thread, so a loop has a round for every 1,024 columns. Loops that store
//! through a pointer the compiler cannot tell from the one they load by wait for every round; pure sums have
//! several loads in flight. At many rows the bytes decide.
//!
//! Sampling gives each draw a block of 512 threads, which goes over the vocabulary several times with one or
//! four reads in flight a thread.

use kernels::cuda::catalog;

use super::constants::{CardEnd, Constant};
use super::kernel;

/// Threads of a block of the row-wise kernels.
fn threads() -> usize {
    kernel(&catalog::rows(), "rms_norm_f32_bf16").threads
}

/// Rounds of a loop over the columns of a row: eight elements a thread.
fn rounds(cols: usize) -> f64 {
    cols.div_ceil(8 * threads()) as f64
}

/// Rounds of a loop over heads: a warp each.
fn head_rounds(heads: usize) -> f64 {
    heads.div_ceil(threads() / 32) as f64
}

/// Some dependent reads, and a time to move bytes.
fn chain(m: &CardEnd, l2_reads: f64, dram_reads: f64, bytes: f64) -> f64 {
    l2_reads * m.value(Constant::L2Latency)
        + dram_reads * m.value(Constant::DramLatency)
        + m.stream(bytes)
}

/// The embedding of rows: their token, their row of the table, to f32.
pub fn embed(m: &CardEnd, rows: usize, cols: usize) -> f64 {
    chain(m, 1.0, rounds(cols), (rows * cols * 6) as f64)
}

/// An RMS norm of f32 rows; its weights were last read a batch ago.
pub fn norm(m: &CardEnd, rows: usize, cols: usize) -> f64 {
    let loads = if m.is_fast() { 4.0 } else { 1.0 };
    let first = (rounds(cols) / loads).max(1.0);
    chain(m, first, rounds(cols), (rows * cols * 6) as f64) + m.step(Constant::RowStep)
}

/// The norm of query and key heads: a warp takes a head.
pub fn qk_norm(m: &CardEnd, rows: usize, heads: usize, head_dim: usize) -> f64 {
    let rounds = head_rounds(heads);
    let step = m.step(Constant::RowStep) / 2.0;
    chain(m, 2.0 * rounds, 1.0, (rows * heads * head_dim * 4) as f64) + rounds * step
}

/// The rotation of query and key heads, and the append of keys and values: a warp takes a head.
pub fn rope(m: &CardEnd, rows: usize, heads: usize, head_dim: usize) -> f64 {
    let rounds = head_rounds(heads);
    chain(m, 1.0 + rounds, 1.0, (rows * heads * head_dim * 4) as f64)
}

/// A gated activation apart from its linear layer: bf16 gates and ups to bf16.
pub fn gated(m: &CardEnd, rows: usize, cols: usize) -> f64 {
    chain(m, rounds(cols), 0.0, (rows * cols * 6) as f64)
}

/// The rows whose output is wanted, copied in f32.
pub fn gather(m: &CardEnd, rows: usize, cols: usize) -> f64 {
    chain(m, 1.0 + rounds(cols), 0.0, (rows * cols * 8) as f64)
}

/// Drawn tokens put into the rows of the next batch.
pub fn substitute(m: &CardEnd) -> f64 {
    chain(m, 2.0, 0.0, 0.0)
}

/// The filters of a draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filters {
    /// Keep so many tokens; 0: all.
    pub top_k: usize,
    /// Keep this share of the weight; 1 or more: all.
    pub top_p: f64,
}

impl Filters {
    /// Temperature alone.
    pub const NONE: Filters = Filters {
        top_k: 0,
        top_p: 1.0,
    };
}

/// Draws from `draws` rows of `vocab` logits with a temperature.
pub fn sample(m: &CardEnd, draws: usize, vocab: usize, filters: Filters) -> f64 {
    /// Passes of a radix selection over 64 bits, eight at a time.
    const SELECTION: f64 = 8.0;
    let kernel = kernel(&catalog::sample(), "sample");
    let read = m.value(Constant::L2Latency);
    let rounds = vocab.div_ceil(kernel.threads) as f64;
    let round = |step: Constant| read + m.step(step);
    let sum = rounds / 4.0 * round(Constant::SumStep);
    // Most likely token, sum for the log-probability, total of the weights, own range.
    let mut time =
        rounds * (round(Constant::MostLikelyStep) + round(Constant::OwnStep)) + 2.0 * sum;
    // The last search goes through one warp's range up to the token: uniform, the furthest of all draws.
    let furthest = draws as f64 / (draws as f64 + 1.0);
    time += furthest * rounds * round(Constant::SearchStep);
    let selection = SELECTION * rounds * round(Constant::SumStep);
    // In the first pass, all tokens of some weight add to a few buckets; top-k leaves few of them.
    let crowded = m.value(Constant::HottestBucket) * vocab as f64 * m.step(Constant::SpinStep);
    let (by_count, by_weight) = (filters.top_k > 0, filters.top_p < 1.0);
    if by_count {
        time += selection + sum;
    }
    if by_weight {
        time += selection;
    }
    if by_count || by_weight {
        time += crowded;
    }
    // A block for each draw.
    let waves = (draws as f64 / (m.sms() * kernel.resident as f64)).ceil();
    let passes = 5.0 + SELECTION * f64::from(u8::from(by_count) + u8::from(by_weight));
    (waves * time).max(m.l2(passes * (4 * draws * vocab) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::cards::Card;

    #[test]
    fn sampling_is_the_reviews_sum() {
        let [fast, slow] = CardEnd::ends(Card::parse("h200").expect("a card"));
        // The review's microseconds for one draw on an H200.
        for (vocab, reviewed) in [(128_256, 162.0), (152_064, 192.0)] {
            let [fast, slow] = [fast, slow].map(|m| sample(&m, 1, vocab, Filters::NONE));
            assert!(fast < reviewed && slow > 0.98 * reviewed, "{fast} {slow}");
        }
        // Its filters: 0.6 ms with one, 0.65 to 3 with both.
        let both = Filters {
            top_k: 20,
            top_p: 0.8,
        };
        let [fast, slow] = [fast, slow].map(|m| sample(&m, 1, 128_256, both) / 1e3);
        assert!(
            (0.6..1.2).contains(&fast) && (2.5..3.5).contains(&slow),
            "{fast} {slow}"
        );
    }

    #[test]
    fn draws_beyond_the_multiprocessors_come_after() {
        let card = Card::parse("h200").expect("a card");
        for m in CardEnd::ends(card) {
            let time = |draws| sample(&m, draws, 128_256, Filters::NONE);
            assert!(time(132) < 1.3 * time(1));
            assert!(time(133) > 1.9 * time(132));
        }
    }

    #[test]
    fn small_kernels_take_the_reviews_microseconds() {
        // The review's batch-1 figures of Llama-3.2-1B on an H200, launch included: norm 2.2, rope 3.0.
        let [fast, slow] = CardEnd::ends(Card::parse("h200").expect("a card"));
        for (reviewed, time) in [
            (2.2, [fast, slow].map(|m| norm(&m, 1, 2048))),
            (3.0, [fast, slow].map(|m| rope(&m, 1, 48, 64))),
        ] {
            let [lo, hi] = [time[0] + 1.0, time[1] + 1.5];
            assert!(lo <= reviewed && reviewed <= hi, "{reviewed}: {lo} {hi}");
        }
    }
}
