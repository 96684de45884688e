//! The limits of the machine, measured in the run whose figures they judge.

use kernels::cpu::limits;
use serde::{Deserialize, Serialize};

use crate::stats::Stat;

/// Bytes each thread reads: more than caches hold.
const READ_BYTES: usize = 128 << 20;
/// Rounds of multiply-adds: a few milliseconds.
const ROUNDS: usize = 200_000;
/// Rounds of AMX tile multiplications: a few milliseconds.
const AMX_ROUNDS: usize = 50_000;
/// Repetitions; each is the best of two passes.
const RUNS: usize = 5;

/// The limits of this machine for a number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Threads.
    pub threads: usize,
    /// Bytes per second read from memory, 128 MiB a thread.
    pub read_bandwidth: Stat,
    /// f32 operations per second of a loop of multiply-adds alone.
    pub fma_peak: Stat,
    /// bf16 operations per second of a loop of AMX's `tdpbf16ps` alone; `None` without AMX. A
    /// linear layer with bf16 weights issues two for each multiplication, as activations are split
    /// in two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amx_peak: Option<Stat>,
}

impl Limits {
    /// Measures them, which takes about a second. 0 threads: all cores.
    pub fn measure(threads: usize) -> Limits {
        let threads = threads_of(threads);
        let many = |one: &dyn Fn() -> f64| {
            let values: Vec<f64> = (0..RUNS).map(|_| one()).collect();
            Stat::of(&values).expect("several runs")
        };
        let amx = || limits::amx_peak(threads, AMX_ROUNDS, 2);
        let amx_peaks: Option<Vec<f64>> = (0..RUNS).map(|_| amx()).collect();
        Limits {
            threads,
            read_bandwidth: many(&|| limits::read_bandwidth(threads, READ_BYTES, 2)),
            fma_peak: many(&|| limits::fma_peak(threads, ROUNDS, 2)),
            amx_peak: amx_peaks.and_then(|peaks| Stat::of(&peaks)),
        }
    }

    /// In a sentence.
    pub fn words(&self) -> String {
        let amx = self.amx_peak.map_or(String::new(), |peak| {
            format!(", {} GFLOP/s AMX bf16", peak.words(1e-9, 1))
        });
        format!(
            "Limits with {}: {} GB/s read, {} GFLOP/s f32 multiply-add{amx}",
            self.threads_in_words(),
            self.read_bandwidth.words(1e-9, 1),
            self.fma_peak.words(1e-9, 1)
        )
    }

    /// `1 thread`, `2 threads`.
    pub fn threads_in_words(&self) -> String {
        let plural = if self.threads == 1 { "" } else { "s" };
        format!("{} thread{plural}", self.threads)
    }
}

/// The rates of some work, and their shares of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Achieved {
    /// Operations per second.
    pub flops_per_second: f64,
    /// Bytes per second: weights of linear layers, keys and values of attention.
    pub bytes_per_second: f64,
    /// Share of [`Limits::fma_peak`].
    pub share_of_fma_peak: f64,
    /// Share of [`Limits::read_bandwidth`].
    pub share_of_read_bandwidth: f64,
}

impl Achieved {
    /// The rates of `flops` operations on `bytes` bytes in `seconds`.
    pub fn of(flops: f64, bytes: f64, seconds: f64, limits: &Limits) -> Achieved {
        let (flops_per_second, bytes_per_second) = (flops / seconds, bytes / seconds);
        Achieved {
            flops_per_second,
            bytes_per_second,
            share_of_fma_peak: flops_per_second / limits.fma_peak.median,
            share_of_read_bandwidth: bytes_per_second / limits.read_bandwidth.median,
        }
    }

    /// Cells of a table: GFLOP/s, share of the peak, GB/s, share of the read bandwidth; dashes for
    /// work that is not counted.
    pub fn cells(achieved: Option<&Achieved>) -> [String; 4] {
        let Some(achieved) = achieved else {
            return ["-"; 4].map(String::from);
        };
        let rate = |per_second: f64| format!("{:.1}", 1e-9 * per_second);
        let share = |share: f64| format!("{:.0}%", 100.0 * share);
        [
            rate(achieved.flops_per_second),
            share(achieved.share_of_fma_peak),
            rate(achieved.bytes_per_second),
            share(achieved.share_of_read_bandwidth),
        ]
    }
}

/// The number of threads; 0 stands for all cores.
pub fn threads_of(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_limits() {
        let stat = |x| Stat::of(&[x]).expect("a value");
        let limits = Limits {
            threads: 2,
            read_bandwidth: stat(100.0),
            fma_peak: stat(1000.0),
            amx_peak: None,
        };
        let achieved = Achieved::of(500.0, 20.0, 2.0, &limits);
        assert_eq!(achieved.flops_per_second, 250.0);
        assert_eq!(achieved.share_of_fma_peak, 0.25);
        assert_eq!(achieved.share_of_read_bandwidth, 0.1);
    }
}
