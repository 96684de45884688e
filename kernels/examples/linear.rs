//! How much of the machine's multiply-add peak linear layers reach.
//!
//!     cargo run --release -p offshoot-kernels --example linear -- [threads]
//!
//! Prints GFLOP/s, the share of the FMA peak measured in the same run, and the GB/s of weights.
//! Every figure is the median of seven repetitions of at least 20 ms.
#![allow(unsafe_code)] // The peak is measured with intrinsics.

use offshoot_kernels::{Backend, CpuBackend, Dtype, Error, MatrixView, Quantization, Quantized};
use timing::median_seconds;

mod timing;

/// `(n, k)`: the nano family's layers, then a 0.5B model's.
const SHAPES: [(usize, usize); 7] = [
    (128, 64),
    (384, 64),
    (384, 128),
    (768, 128),
    (1152, 896),
    (4864, 896),
    (2048, 2048),
];
const ROWS: [usize; 8] = [1, 2, 4, 8, 16, 64, 128, 256];

fn main() -> Result<(), Error> {
    let threads = std::env::args()
        .nth(1)
        .map_or(Ok(1), |t| t.parse())
        .expect("threads: a number");
    let mut backend = CpuBackend::new(threads);
    let peak = fma_peak() * threads.max(1) as f64;
    println!(
        "{}; FMA peak {peak:.1} GFLOP/s (one thread's times {threads})",
        backend.name()
    );
    let kinds = [
        (Dtype::Bf16, None),
        (Dtype::F32, None),
        (Dtype::Bf16, Some(Quantization::Int8)),
        (Dtype::Bf16, Some(Quantization::Int4)),
    ];
    for (dtype, quantization) in kinds {
        for (n, k) in SHAPES {
            let bytes = vec![0x3c; n * k * dtype.bytes()];
            let matrix = MatrixView {
                rows: n,
                cols: k,
                dtype,
                bytes: &bytes,
            };
            let w = match quantization {
                None => backend.load_matrix(&[matrix])?,
                Some(kind) => backend.load_quantized(&[Quantized::new(&matrix, kind)])?,
            };
            for rows in ROWS {
                let mut x = backend.activations(rows, k)?;
                x.data_mut().fill(0.5);
                let mut out = backend.activations(rows, n)?;
                let seconds =
                    median_seconds(|| backend.linear(&x, &w, None, rows, false, &mut out));
                let gflops = 2e-9 * (rows * n * k) as f64 / seconds;
                println!(
                    "{:8} [{rows:3} x {k:4}] x [{k:4} x {n:4}]  {gflops:6.1} GFLOP/s  {:3.0}%  \
                     {:5.1} GB/s  {:9.1} us",
                    quantization.map_or(dtype.name(), Quantization::name),
                    100.0 * gflops / peak,
                    1e-9 * w.bytes() as f64 / seconds,
                    1e6 * seconds,
                );
            }
        }
    }
    Ok(())
}

/// GFLOP/s of one thread doing nothing but independent multiply-adds.
#[cfg(target_arch = "x86_64")]
fn fma_peak() -> f64 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    fn burn(rounds: usize) -> f32 {
        let mut sums = [_mm256_set1_ps(1.0); 12];
        let factor = std::hint::black_box(_mm256_set1_ps(0.5));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }

    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return f64::NAN;
    }
    let rounds = 100_000;
    // SAFETY: the machine has both features.
    let seconds = median_seconds(|| {
        std::hint::black_box(unsafe { burn(rounds) });
    });
    2e-9 * (rounds * 12 * 8) as f64 / seconds
}

/// GFLOP/s of one thread doing nothing but independent multiply-adds: not measured here.
#[cfg(not(target_arch = "x86_64"))]
fn fma_peak() -> f64 {
    f64::NAN
}
