//! CUDA C++ that uses NVIDIA's headers (mma.h, cooperative_groups, cuda/barrier, cuda/pipeline, cuda/atomic, the
//! packed integer and half intrinsics), compiled by NVRTC, against results computed on the host.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, compile, download, gpu, upload};
use cuda::{Gpu, Shape};

fn run(gpu: &Gpu, source: &str, kernel: &str, shape: Shape, args: &[&[u8]]) {
    let module = gpu.load(&compile(source)).unwrap_or_else(|e| panic!("{e}"));
    let kernel = module.kernel(kernel).unwrap_or_else(|e| panic!("{e}"));
    if let Err(e) = gpu.launch(&kernel, shape, kernel.pack(args).unwrap()) {
        panic!("{e}");
    }
}

#[test]
fn wmma_from_cpp() {
    let source = r#"
        #include <cuda_fp16.h>
        #include <mma.h>
        using namespace nvcuda::wmma;
        extern "C" __global__ void k(const half* a, const half* b, float* c, int n) {
            __shared__ half sa[16 * 24];
            int row = blockIdx.y * 16, col = blockIdx.x * 16;
            fragment<matrix_a, 16, 16, 16, half, row_major> fa;
            fragment<matrix_b, 16, 16, 16, half, col_major> fb;
            fragment<accumulator, 16, 16, 16, float> fc;
            fill_fragment(fc, 0.0f);
            for (int k = 0; k < n; k += 16) {
                for (int i = threadIdx.x; i < 256; i += 32) sa[i / 16 * 24 + i % 16] = a[(row + i / 16) * n + k + i % 16];
                __syncwarp();
                load_matrix_sync(fa, sa, 24);
                load_matrix_sync(fb, b + col * n + k, n);
                for (int i = 0; i < fa.num_elements; i++) fa.x[i] = fa.x[i] * __float2half(2.0f);
                mma_sync(fc, fa, fb, fc);
                __syncwarp();
            }
            for (int i = 0; i < fc.num_elements; i++) fc.x[i] += 1.0f;
            store_matrix_sync(c + row * n + col, fc, n, mem_row_major);
        }"#;
    let gpu = gpu();
    let n = 48usize;
    let mut rng = Random(11);
    // Eighths below 2: products and sums are exact in f32.
    let mut make = || {
        let v: Vec<i32> = (0..n * n).map(|_| (rng.bits() % 31) as i32 - 15).collect();
        // The bits of v / 8 as f16, by hand: v is at most 15.
        let half = |v: i32| {
            if v == 0 {
                return 0u16;
            }
            let e = 31 - v.unsigned_abs().leading_zeros();
            let sign = if v < 0 { 0x8000 } else { 0 };
            sign | ((e + 12) << 10) as u16 | ((v.unsigned_abs() << (10 - e)) & 0x3ff) as u16
        };
        (v.iter().map(|x| half(*x)).collect::<Vec<u16>>(), v)
    };
    let ((ha, a), (hb, b)) = (make(), make());
    let (da, db) = (upload(&gpu, &ha), upload(&gpu, &hb));
    let dc = gpu.alloc((n * n * 4) as u64).unwrap();
    let shape = Shape {
        grid: [3, 3, 1],
        ..Shape::line(1, 32)
    };
    run(
        &gpu,
        source,
        "k",
        shape,
        &[
            &da.to_le_bytes(),
            &db.to_le_bytes(),
            &dc.to_le_bytes(),
            &(n as i32).to_le_bytes(),
        ],
    );
    let got = download::<f32>(&gpu, dc, n * n);
    for i in 0..n {
        for j in 0..n {
            let sum: i32 = (0..n).map(|k| 2 * a[i * n + k] * b[j * n + k]).sum();
            assert_eq!(got[i * n + j], sum as f32 / 64.0 + 1.0, "{i},{j}");
        }
    }
}

#[test]
fn cooperative_groups() {
    let source = r#"
        #include <cooperative_groups.h>
        #include <cooperative_groups/reduce.h>
        #include <cooperative_groups/scan.h>
        #include <cooperative_groups/memcpy_async.h>
        namespace cg = cooperative_groups;
        extern "C" __global__ void k(const int* x, int* out) {
            __shared__ int s[256];
            auto block = cg::this_thread_block();
            cg::memcpy_async(block, s, x, sizeof(int) * 256);
            cg::wait(block);
            int t = block.thread_rank(), v = s[255 - t];
            auto warp = cg::tiled_partition<32>(block);
            auto eight = cg::tiled_partition<8>(warp);
            out[t] = cg::reduce(warp, v, cg::plus<int>());
            out[256 + t] = cg::exclusive_scan(eight, v);
            out[512 + t] = eight.shfl_xor(v, 3) + warp.any(v == 7);
            int odd = 0;
            if (v & 1) {
                auto group = cg::coalesced_threads();
                odd = cg::reduce(group, v, cg::plus<int>()) * 100 + group.size();
            }
            out[768 + t] = odd;
            auto parts = cg::labeled_partition(warp, v % 3);
            out[1024 + t] = parts.size();
        }"#;
    let gpu = gpu();
    let mut rng = Random(5);
    let x: Vec<i32> = (0..256).map(|_| (rng.bits() % 50) as i32).collect();
    let (dx, out) = (upload(&gpu, &x), gpu.alloc(4 * 1280).unwrap());
    run(
        &gpu,
        source,
        "k",
        Shape::line(1, 256),
        &[&dx.to_le_bytes(), &out.to_le_bytes()],
    );
    let got = download::<i32>(&gpu, out, 1280);
    let v: Vec<i32> = x.iter().rev().copied().collect();
    for t in 0..256 {
        let warp = &v[t / 32 * 32..][..32];
        assert_eq!(got[t], warp.iter().sum::<i32>());
        assert_eq!(got[256 + t], v[t / 8 * 8..t].iter().sum::<i32>());
        assert_eq!(got[512 + t], v[t ^ 3] + i32::from(warp.contains(&7)));
        let odd: Vec<i32> = warp.iter().copied().filter(|x| x & 1 == 1).collect();
        let want = if v[t] & 1 == 1 {
            odd.iter().sum::<i32>() * 100 + odd.len() as i32
        } else {
            0
        };
        assert_eq!(got[768 + t], want);
        let same = warp.iter().filter(|x| *x % 3 == v[t] % 3).count();
        assert_eq!(got[1024 + t], same as i32);
    }
}

#[test]
fn libcu_barrier_pipeline_and_atomics() {
    let source = r#"
        #include <cuda/barrier>
        #include <cuda/pipeline>
        #include <cuda/atomic>
        #include <cooperative_groups.h>
        namespace cg = cooperative_groups;
        extern "C" __global__ void turned(const float4* x, float4* y, int tiles) {
            __shared__ float4 s[2][128];
            __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
            auto block = cg::this_thread_block();
            auto pipe = cuda::make_pipeline(block, &state);
            auto fetch = [&](int i) {
                pipe.producer_acquire();
                cuda::memcpy_async(block, s[i & 1], x + i * 128, cuda::aligned_size_t<16>(sizeof(float4) * 128), pipe);
                pipe.producer_commit();
            };
            fetch(0);
            for (int i = 0; i < tiles; i++) {
                if (i + 1 < tiles) fetch(i + 1);
                pipe.consumer_wait();
                y[i * 128 + threadIdx.x] = s[i & 1][127 - threadIdx.x];
                pipe.consumer_release();
            }
        }
        extern "C" __global__ void tickets(int* counter, int* owner, int n) {
            __shared__ int mine;
            __shared__ cuda::barrier<cuda::thread_scope_block> bar;
            if (threadIdx.x == 0) init(&bar, blockDim.x);
            __syncthreads();
            cuda::atomic_ref<int, cuda::thread_scope_device> next(*counter);
            while (true) {
                if (threadIdx.x == 0) mine = next.fetch_add(1, cuda::memory_order_relaxed);
                bar.arrive_and_wait();
                int i = mine;
                bar.arrive_and_wait();
                if (i >= n) break;
                for (int k = 0; k < 50; k++) asm volatile("");
                if (threadIdx.x == 0) owner[i] = blockIdx.x;
            }
        }"#;
    let gpu = gpu();
    let x: Vec<f32> = (0..5 * 512).map(|i| i as f32).collect();
    let (dx, dy) = (upload(&gpu, &x), gpu.alloc(4 * 5 * 512).unwrap());
    run(
        &gpu,
        source,
        "turned",
        Shape::line(1, 128),
        &[&dx.to_le_bytes(), &dy.to_le_bytes(), &5i32.to_le_bytes()],
    );
    let got = download::<f32>(&gpu, dy, 5 * 512);
    for (i, v) in got.iter().enumerate() {
        let (tile, at, part) = (i / 512, i / 4 % 128, i % 4);
        assert_eq!(*v, (tile * 512 + (127 - at) * 4 + part) as f32);
    }
    // A persistent kernel that deals its work by tickets: every block gets its share, within one item.
    let counter = upload(&gpu, &[0i32]);
    let owner = upload(&gpu, &[-1i32; 120]);
    run(
        &gpu,
        source,
        "tickets",
        Shape::line(12, 64),
        &[
            &counter.to_le_bytes(),
            &owner.to_le_bytes(),
            &120i32.to_le_bytes(),
        ],
    );
    let owner = download::<i32>(&gpu, owner, 120);
    for block in 0..12 {
        let share = owner.iter().filter(|o| **o == block).count();
        assert!((9..=11).contains(&share), "block {block}: {share} of 120");
    }
}

#[test]
fn packed_integers_and_wide_words() {
    let source = r#"
        extern "C" __global__ void k(const unsigned* x, unsigned* out) {
            int t = threadIdx.x;
            unsigned a = x[t], b = x[t + 1];
            out[t] = __vadd2(a, b);
            out[64 + t] = __vabsdiffu4(a, b);
            out[128 + t] = __vmaxs2(a, b);
            out[192 + t] = __vcmpgtu4(a, b);
            out[256 + t] = __dp4a((int)a, (int)b, 7);
            unsigned __int128 w = (unsigned __int128)a << 64 | b;
            w = w * 1000003u + 17;
            out[320 + t] = (unsigned)(w >> 64) ^ (unsigned)(w / 12345u);
            out[384 + t] = __vavgs4(a, b) + __viaddmax_s16x2(a, b, 0);
        }"#;
    let gpu = gpu();
    let mut rng = Random(3);
    let x: Vec<u32> = (0..65).map(|_| rng.bits() as u32).collect();
    let (dx, out) = (upload(&gpu, &x), gpu.alloc(4 * 448).unwrap());
    let module = gpu
        .load(&common::compile_with(source, &["--device-int128"]))
        .unwrap_or_else(|e| panic!("{e}"));
    let kernel = module.kernel("k").unwrap_or_else(|e| panic!("{e}"));
    let args = kernel
        .pack(&[&dx.to_le_bytes(), &out.to_le_bytes()])
        .unwrap();
    gpu.launch(&kernel, Shape::line(1, 64), args)
        .unwrap_or_else(|e| panic!("{e}"));
    let got = download::<u32>(&gpu, out, 448);
    let by = |bits: u32, f: &dyn Fn(i64, i64) -> i64, signed: bool, a: u32, b: u32| {
        (0..32 / bits).fold(0u32, |v, i| {
            let part = |x: u32| {
                let p = i64::from(x >> (bits * i)) & ((1 << bits) - 1);
                if signed && p >> (bits - 1) == 1 {
                    p - (1 << bits)
                } else {
                    p
                }
            };
            v | ((f(part(a), part(b)) as u32) & ((1u64 << bits) - 1) as u32) << (bits * i)
        })
    };
    for t in 0..64 {
        let (a, b) = (x[t], x[t + 1]);
        assert_eq!(got[t], by(16, &|p, q| p + q, false, a, b));
        assert_eq!(got[64 + t], by(8, &|p, q| (p - q).abs(), false, a, b));
        assert_eq!(got[128 + t], by(16, &|p, q| p.max(q), true, a, b));
        assert_eq!(
            got[192 + t],
            by(8, &|p, q| if p > q { 255 } else { 0 }, false, a, b)
        );
        let dot: i32 = (0..4)
            .map(|i| i32::from((a >> (8 * i)) as i8) * i32::from((b >> (8 * i)) as i8))
            .sum();
        assert_eq!(got[256 + t], (dot + 7) as u32);
        let w = (u128::from(a) << 64 | u128::from(b)).wrapping_mul(1_000_003) + 17;
        assert_eq!(got[320 + t], (w >> 64) as u32 ^ (w / 12345) as u32);
        let average = by(8, &|p, q| (p + q + i64::from(p + q >= 0)) >> 1, true, a, b);
        let sum = by(16, &|p, q| i64::from((p + q) as i16).max(0), true, a, b);
        assert_eq!(got[384 + t], average.wrapping_add(sum), "{a:#x} {b:#x}");
    }
}
