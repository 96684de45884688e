//! What this machine could do at most: the roofs that measurements stand under.
//!
//! [`read_bandwidth`]: every thread adds up a buffer of its own that no cache holds.
//! [`fma_peak`]: every thread does nothing but independent f32 multiply-adds of the widest vectors
//! it has, on registers. [`amx_peak`]: the same of AMX's products of bf16. All are meant to be measured in the run whose figures they judge, with
//! the same number of threads: a shared machine's limits change from minute to minute.
#![allow(unsafe_code)] // The peak is measured with intrinsics.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::amx;
use super::buffers::Bytes;

/// Bytes per second that `threads` threads read together from memory: each `bytes_each` bytes of its
/// own, `passes` times, as one stream of addresses and as several at once (which prefetchers may
/// like better); the best pass counts.
///
/// # Panics
///
/// If `threads` or `passes` is 0, or there is no memory for the buffers.
pub fn read_bandwidth(threads: usize, bytes_each: usize, passes: usize) -> f64 {
    assert!(passes > 0, "a measurement without a pass");
    let words = bytes_each.next_multiple_of(64 * MOST_STREAMS) / 8;
    let turns = AtomicUsize::new(0);
    let seconds = together(
        threads,
        // The memory that weights lie in, touched here, by the thread that reads it.
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

/// Streams of addresses that a thread reads at once.
const STREAMS: [usize; 3] = [1, 4, MOST_STREAMS];
const MOST_STREAMS: usize = 8;

/// f32 operations per second (two per multiply-add) that `threads` threads reach together in
/// registers; the best of `passes` passes of about `rounds * 12` vector instructions counts.
///
/// # Panics
///
/// If `threads` or `passes` is 0.
pub fn fma_peak(threads: usize, rounds: usize, passes: usize) -> f64 {
    assert!(passes > 0, "a measurement without a pass");
    let burn = Burn::best();
    let seconds = together(
        threads,
        |_| (),
        |()| {
            black_box(burn.run(rounds));
        },
        passes,
    );
    (threads * rounds * burn.operations()) as f64 / seconds
}

/// bf16 operations per second (two per product and sum) that `threads` threads reach together in AMX's
/// registers; the best of `passes` passes of `rounds * 8` products of tiles counts. `None` without AMX.
///
/// # Panics
///
/// If `threads` or `passes` is 0.
pub fn amx_peak(threads: usize, rounds: usize, passes: usize) -> Option<f64> {
    assert!(passes > 0, "a measurement without a pass");
    if !amx::available() {
        return None;
    }
    let seconds = together(threads, |_| (), |()| amx::burn(rounds), passes);
    Some((threads * rounds * amx::BURNT) as f64 / seconds)
}

/// The shortest of `passes` times that `work` takes on `threads` threads which begin together:
/// from the start to the end of the last.
fn together<T>(
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
            // A panic of another thread is this one's.
            if let Err(panic) = other.join() {
                std::panic::resume_unwind(panic);
            }
        }
        mine
    })
}

/// The wrapping sum of a buffer read as `streams` streams, a cache line of each in turn. What is left
/// behind the last whole line of every stream is not read.
fn sum(words: &[u64], streams: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was found.
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
        _ => sum_streams::<MOST_STREAMS>(words),
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

/// Independent accumulators: more than latency times throughput of a multiply-add on any machine
/// we know (4 cycles, 2 a cycle).
const CHAINS: usize = 12;

/// How multiply-adds are issued.
#[derive(Clone, Copy)]
enum Burn {
    /// What the compiler makes of plain Rust: `lanes` is a guess of the vector's width.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Burn {
    fn best() -> Burn {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Burn::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Burn::Avx2;
            }
        }
        Burn::Portable
    }

    /// f32 operations of one round.
    fn operations(self) -> usize {
        let lanes = match self {
            Burn::Portable => 4,
            #[cfg(target_arch = "x86_64")]
            Burn::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Burn::Avx512 => 16,
        };
        2 * CHAINS * lanes
    }

    fn run(self, rounds: usize) -> f32 {
        match self {
            Burn::Portable => portable(rounds),
            // SAFETY: `best` found the features.
            #[cfg(target_arch = "x86_64")]
            Burn::Avx2 => unsafe { avx2(rounds) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Burn::Avx512 => unsafe { avx512(rounds) },
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
                // Fused where the target always has it; a call of the mathematics library elsewhere.
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
        let burn = Burn::best();
        let lanes_summed = match burn {
            Burn::Portable => CHAINS * 4,
            #[cfg(target_arch = "x86_64")]
            _ => CHAINS,
        };
        assert_eq!(burn.run(100), lanes_summed as f32);
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
