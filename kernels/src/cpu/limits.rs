//! This machine's roofline: the limits that measurements are compared with.
//!
//! [`read_bandwidth`]: every thread sums a buffer of its own that does not fit in a cache.
//! [`fma_peak`]: every thread executes independent f32 multiply-adds of the widest vectors, on
//! registers only. [`amx_peak`]: the same with AMX's `tdpbf16ps`. Measure the limits in the same
//! run and with the same number of threads as the figures compared with them: a shared machine's
//! limits change from minute to minute.
#![allow(unsafe_code)] // The peak is measured with intrinsics.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::amx;
use super::buffers::Bytes;

/// Bytes per second that `threads` threads read together from memory, the best of all passes. Each
/// thread reads `bytes_each` bytes of its own, `passes` times as one stream of addresses and
/// `passes` times as several, which suits some prefetchers better.
///
/// # Panics
///
/// If `threads` or `passes` is 0, or the buffers cannot be allocated.
pub fn read_bandwidth(threads: usize, bytes_each: usize, passes: usize) -> f64 {
    assert!(passes > 0, "a measurement without a pass");
    let words = bytes_each.next_multiple_of(64 * MAX_STREAMS) / 8;
    let turns = AtomicUsize::new(0);
    let seconds = best_time(
        threads,
        // Memory of the kind that holds weights, first touched by the thread that reads it.
        |thread| {
            let mut buffer = Bytes::zeroed(8 * words, "measuring memory")
                .unwrap_or_else(|error| panic!("{error}"));
            buffer.as_mut_slice().fill(thread as u8 + 1);
            buffer
        },
        |buffer| {
            let turn = turns.fetch_add(1, Ordering::Relaxed) / threads;
            let words = bytemuck::cast_slice(buffer.as_slice());
            black_box(sum(words, STREAMS[turn % STREAMS.len()]));
        },
        passes * STREAMS.len(),
    );
    (threads * words * 8) as f64 / seconds
}

/// Numbers of streams of addresses that a thread reads at once.
const STREAMS: [usize; 3] = [1, 4, MAX_STREAMS];
const MAX_STREAMS: usize = 8;

/// f32 operations per second (two per multiply-add) that `threads` threads reach together on
/// registers, the best of `passes` passes of about `rounds * 12` vector instructions.
///
/// # Panics
///
/// If `threads` or `passes` is 0.
pub fn fma_peak(threads: usize, rounds: usize, passes: usize) -> f64 {
    assert!(passes > 0, "a measurement without a pass");
    let peak_loop = PeakLoop::best();
    let seconds = best_time(
        threads,
        |_| (),
        |()| {
            black_box(peak_loop.run(rounds));
        },
        passes,
    );
    (threads * rounds * peak_loop.operations()) as f64 / seconds
}

/// bf16 operations per second (two per multiply-add) that `threads` threads reach together on AMX's
/// tile registers, the best of `passes` passes of `rounds * 8` `tdpbf16ps`. `None` without AMX.
///
/// # Panics
///
/// If `threads` or `passes` is 0.
pub fn amx_peak(threads: usize, rounds: usize, passes: usize) -> Option<f64> {
    assert!(passes > 0, "a measurement without a pass");
    if !amx::available() {
        return None;
    }
    let seconds = best_time(threads, |_| (), |()| amx::peak_loop(rounds), passes);
    Some((threads * rounds * amx::PEAK_ROUND_OPS) as f64 / seconds)
}

/// The shortest of `passes` times, in seconds, from the common start of `work` on `threads` threads
/// to the end of the last one.
fn best_time<T>(
    threads: usize,
    prepare: impl Fn(usize) -> T + Sync,
    work: impl Fn(&T) + Sync,
    passes: usize,
) -> f64 {
    assert!(threads > 0, "a measurement without a thread");
    let barrier = Barrier::new(threads);
    let (barrier, prepare, work) = (&barrier, &prepare, &work);
    let one = move |thread: usize| {
        let state = prepare(thread);
        work(&state);
        let mut best = f64::INFINITY;
        for _ in 0..passes {
            barrier.wait();
            let start = Instant::now();
            work(&state);
            barrier.wait();
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        let mine = one(0);
        for other in others {
            // Passes on a panic of another thread.
            if let Err(panic) = other.join() {
                std::panic::resume_unwind(panic);
            }
        }
        mine
    })
}

/// The wrapping sum of a buffer read as `streams` streams, one cache line of each in turn. The
/// words after the last whole line of a stream are not read.
fn sum(words: &[u64], streams: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected.
        return unsafe { sum_avx2(words, streams) };
    }
    sum_lines(words, streams)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(words: &[u64], streams: usize) -> u64 {
    sum_lines(words, streams)
}

#[inline(always)]
fn sum_lines(words: &[u64], streams: usize) -> u64 {
    match streams {
        1 => sum_streams::<1>(words),
        4 => sum_streams::<4>(words),
        _ => sum_streams::<MAX_STREAMS>(words),
    }
}

#[inline(always)]
fn sum_streams<const N: usize>(words: &[u64]) -> u64 {
    let each = words.len() / N;
    let mut streams = [const { [].as_slice() }; N];
    for (i, stream) in streams.iter_mut().enumerate() {
        *stream = &words[i * each..][..each];
    }
    let mut sums = [[0u64; 8]; N];
    for line in 0..each / 8 {
        for (sums, stream) in sums.iter_mut().zip(&streams) {
            for (sum, word) in sums.iter_mut().zip(&stream[8 * line..][..8]) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.into_iter().flatten().fold(0, u64::wrapping_add)
}

/// Independent accumulators: more than latency times throughput of a multiply-add on any known
/// machine (4 cycles, 2 a cycle).
const CHAINS: usize = 12;

/// The instructions of a peak measurement.
#[derive(Clone, Copy)]
enum PeakLoop {
    /// Plain Rust; `lanes` guesses the vector width the compiler uses.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl PeakLoop {
    fn best() -> PeakLoop {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return PeakLoop::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return PeakLoop::Avx2;
            }
        }
        PeakLoop::Portable
    }

    /// f32 operations of one round.
    fn operations(self) -> usize {
        let lanes = match self {
            PeakLoop::Portable => 4,
            #[cfg(target_arch = "x86_64")]
            PeakLoop::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            PeakLoop::Avx512 => 16,
        };
        2 * CHAINS * lanes
    }

    fn run(self, rounds: usize) -> f32 {
        match self {
            PeakLoop::Portable => portable(rounds),
            // SAFETY: `best` detected the features.
            #[cfg(target_arch = "x86_64")]
            PeakLoop::Avx2 => unsafe { avx2(rounds) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            PeakLoop::Avx512 => unsafe { avx512(rounds) },
        }
    }
}

/// Rounds of multiply-adds in vectors of four.
fn portable(rounds: usize) -> f32 {
    let mut sums = [[1.0f32; 4]; CHAINS];
    let factor = black_box([0.5f32; 4]);
    for _ in 0..rounds {
        for sum in &mut sums {
            for (sum, factor) in sum.iter_mut().zip(factor) {
                // Fused only if every machine of the target has it; else it would be a library
                // call.
                #[cfg(target_arch = "aarch64")]
                let next = sum.mul_add(factor, factor);
                #[cfg(not(target_arch = "aarch64"))]
                let next = *sum * factor + factor;
                *sum = next;
            }
        }
    }
    sums.into_iter().flatten().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rounds: usize) -> f32 {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_set1_ps(1.0); CHAINS];
    let factor = black_box(_mm256_set1_ps(0.5));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, factor);
        }
    }
    sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rounds: usize) -> f32 {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_set1_ps(1.0); CHAINS];
    let factor = black_box(_mm512_set1_ps(0.5));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, factor);
        }
    }
    sums.into_iter().map(|sum| _mm512_cvtss_f32(sum)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every accumulator comes from 1 to the fixed point of `x / 2 + 1/2`, which is 1.
    #[test]
    fn the_work_is_done() {
        assert_eq!(portable(100), (CHAINS * 4) as f32);
        let peak_loop = PeakLoop::best();
        let lanes_summed = match peak_loop {
            PeakLoop::Portable => CHAINS * 4,
            #[cfg(target_arch = "x86_64")]
            _ => CHAINS,
        };
        assert_eq!(peak_loop.run(100), lanes_summed as f32);
        for streams in STREAMS {
            assert_eq!(sum(&vec![3; 64 * 100], streams), 19_200);
        }
    }

    #[test]
    fn limits_are_numbers_above_zero() {
        for threads in [1, 3] {
            assert!(fma_peak(threads, 1000, 2) > 0.0);
            assert!(read_bandwidth(threads, 1 << 16, 2) > 0.0);
            assert!(amx_peak(threads, 1000, 2).is_none_or(|peak| peak > 0.0));
        }
    }
}
