//! Time of a linear layer: `out[rows, n] = x[rows, k] w[n, k]^T`.
//!
//! By `linear.cu`, the longest of
//!
//! - DRAM: weights, and outputs, at the bandwidth reached;
//! - L2: what all blocks copy to shared memory ([`LinearLaunch::requested_bytes`]), on the busiest
//!   multiprocessor;
//! - latency: a block has `stages - 1` stages in flight, so a stage takes a loaded latency shared by
//!   them, and a step; blocks that are not resident come after;
//! - shared memory: what `cp.async` writes and `ldmatrix` reads;
//! - the tensor cores;
//!
//! then one latency to fill the pipeline and the block's end. The launch gap is counted apart. Weights are
//! taken to come from DRAM: a model small enough for L2 is faster than predicted. By cuBLASLt,
//! the longer of DRAM and the tensor cores, at the shares that it reaches.

use kernels::cuda::LinearLaunch;
use kernels::cuda::cubin::Compiled;

use super::cards::Card;
use super::constants::{CardEnd, Constant};

/// A linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of x.
    pub rows: usize,
    /// Rows of W: of a gated layer, gates and ups.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
}

/// What an output costs beside its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// Outputs for each row of W: one half where a gate is applied.
    pub halved: bool,
    /// Bytes that move for each output: written, and read where it is added to.
    pub bytes: usize,
}

impl Output {
    /// bf16, written.
    pub const HALF: Output = Output {
        halved: false,
        bytes: 2,
    };
}

/// What bounds a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limiter {
    /// DRAM.
    Dram,
    /// L2 to the multiprocessors.
    L2,
    /// Bytes in flight.
    InFlight,
    /// Shared memory.
    Shared,
    /// The tensor cores.
    Compute,
}

impl Limiter {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Limiter::Dram => "DRAM",
            Limiter::L2 => "L2 to SM",
            Limiter::InFlight => "bytes in flight",
            Limiter::Shared => "shared memory",
            Limiter::Compute => "tensor cores",
        }
    }
}

/// A time in microseconds, the launch gap aside, and what bounds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// The time.
    pub time: f64,
    /// Its longest part.
    pub limiter: Limiter,
}

fn longest(parts: &[(Limiter, f64)], more: f64) -> Bounded {
    let (limiter, time) = parts.iter().fold((Limiter::Dram, 0.0), |longest, &part| {
        if part.1 > longest.1 { part } else { longest }
    });
    Bounded {
        time: time + more,
        limiter,
    }
}

/// Bytes of weights and outputs.
fn dram_bytes(shape: Shape, output: Output) -> f64 {
    let outputs = shape.rows * shape.n / if output.halved { 2 } else { 1 };
    (2 * shape.n * shape.k + outputs * output.bytes) as f64
}

/// Blocks of a launch that share a multiprocessor: by shared memory, threads and the kernel's cap on
/// registers.
fn resident(card: &Card, launch: &LinearLaunch) -> usize {
    let compiled = Compiled {
        registers: launch.kernel.registers,
        ..Compiled::default()
    };
    let resident = card.architecture().resident(&launch.kernel, &compiled);
    resident.max(1)
}

/// By the kernels of `linear.cu`.
pub fn kernel(m: &CardEnd, shape: Shape, output: Output) -> Bounded {
    let Shape { rows, n, k } = shape;
    let launch = LinearLaunch::of(rows, n, m.card.sms);
    let in_flight = (launch.stages - 1) as f64;
    let loaded = m.value(Constant::LoadedLatency);
    let stage = loaded / in_flight + m.step(Constant::StageStep);
    // Blocks that run at once; the rest follow as others end.
    let slots = (m.card.sms * resident(m.card, &launch)) as f64;
    let waves = (launch.blocks() as f64 / slots).max(1.0);
    let waves = if m.is_fast() { waves } else { waves.ceil() };
    let latency = waves * k.div_ceil(launch.stage_cols) as f64 * stage;
    // Blocks of the busiest multiprocessor, which has its part of L2's bandwidth alone; at the fast end the
    // blocks spread evenly.
    let even = launch.blocks() as f64 / m.sms();
    let busiest = if m.is_fast() { even } else { even.ceil() };
    let requested = launch.requested_bytes(rows, n, k) as f64 * busiest / even;
    longest(
        &[
            (Limiter::Dram, m.dram(dram_bytes(shape, output))),
            (Limiter::L2, m.l2(requested)),
            (Limiter::InFlight, latency),
            (
                Limiter::Shared,
                m.shared(busiest * launch.shared_bytes(k) as f64),
            ),
            (Limiter::Compute, m.peak(launch.issued_flops(k) as f64)),
        ],
        loaded + m.step(Constant::LinearEpilogue),
    )
}

/// By cuBLASLt.
pub fn cublaslt(m: &CardEnd, shape: Shape, output: Output) -> Bounded {
    let Shape { rows, n, k } = shape;
    let bytes = dram_bytes(shape, output) + (2 * rows * k) as f64;
    let flops = (2 * rows * n * k) as f64;
    longest(
        &[
            (Limiter::Dram, m.dram(bytes) / m.value(Constant::CublasDram)),
            (
                Limiter::Compute,
                m.peak(flops) / (m.value(Constant::CublasPeak) * filled(m, rows, n)),
            ),
        ],
        m.value(Constant::LoadedLatency) + m.step(Constant::LinearEpilogue),
    )
}

/// The share of the multiprocessors that tiles of 128 x 128 keep busy, at the slow end; at the fast end,
/// and with fewer tiles than multiprocessors, the library is taken to split K.
fn filled(m: &CardEnd, rows: usize, n: usize) -> f64 {
    let tiles = (rows.div_ceil(128) * n.div_ceil(128)) as f64;
    if m.is_fast() || tiles < m.sms() {
        return 1.0;
    }
    tiles / ((tiles / m.sms()).ceil() * m.sms())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::cards::Card;

    fn h200() -> [CardEnd; 2] {
        CardEnd::ends(Card::parse("h200").expect("a card"))
    }

    fn times(rows: usize, n: usize, k: usize) -> [Bounded; 2] {
        h200().map(|m| kernel(&m, Shape { rows, n, k }, Output::HALF))
    }

    #[test]
    fn the_reviews_products_are_inside_the_range() {
        // The review's estimates of Llama-3.2-1B's products of one row on an H200, in microseconds,
        // 2 of which are launch and ramp: QKV, o, gate and up, down.
        for (n, k, reviewed) in [
            (3072, 2048, 6.2),
            (2048, 2048, 6.2),
            (16_384, 2048, 17.6),
            (2048, 8192, 18.6),
        ] {
            let [fast, slow] = times(1, n, k);
            let [gap_lo, gap_hi] = [1.0, 1.5];
            assert!(fast.time + gap_lo < reviewed, "{n} x {k}: {fast:?}");
            assert!(slow.time + gap_hi > reviewed, "{n} x {k}: {slow:?}");
            assert!(slow.time < 1.5 * fast.time, "{n} x {k}: {fast:?} {slow:?}");
        }
    }

    #[test]
    fn the_limiter_is_that_of_the_shape() {
        // One row, 128 blocks of 12 KB in flight: latency. A wide layer of one row: DRAM. 64 rows: x is
        // read again by every 32 rows of W.
        assert_eq!(times(1, 2048, 8192)[1].limiter, Limiter::InFlight);
        assert_eq!(times(1, 128_256, 2048)[1].limiter, Limiter::Dram);
        assert_eq!(times(64, 8192, 2048)[1].limiter, Limiter::L2);
        assert_eq!(times(2048, 8192, 2048)[1].limiter, Limiter::Shared);
        let many = Shape {
            rows: 2048,
            n: 8192,
            k: 2048,
        };
        let few = Shape { rows: 64, ..many };
        let [_, slow] = h200();
        let library = |shape| cublaslt(&slow, shape, Output::HALF).limiter;
        assert_eq!(
            [library(few), library(many)],
            [Limiter::Dram, Limiter::Compute]
        );
    }

    #[test]
    fn weights_are_read_at_the_bandwidth_at_most() {
        for card in ["a100", "h100", "h200", "b200", "rtx4090"] {
            for m in CardEnd::ends(Card::parse(card).expect("a card")) {
                for rows in [1, 16, 64, 256, 2048] {
                    let shape = Shape {
                        rows,
                        n: 4096,
                        k: 14_336,
                    };
                    let floor = m.dram((2 * shape.n * shape.k) as f64);
                    assert!(kernel(&m, shape, Output::HALF).time > floor);
                    assert!(cublaslt(&m, shape, Output::HALF).time > floor);
                }
            }
        }
    }
}
