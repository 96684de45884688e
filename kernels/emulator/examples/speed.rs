//! Warp instructions per second, for the table in the README:
//! `cargo run --release -p offshoot-emulator --example speed`, with `OFFSHOOT_EMULATOR_MMA` as it is set.
#![allow(clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use cuda::{Gpu, Options, Shape};
use std::time::Instant;

const SOURCE: &str = r#"
#define MMA(c) asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3};" \
    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(0x3f803f80))
extern "C" __global__ void integer_loop(int* p, int n) {
    int a = threadIdx.x, b = blockIdx.x;
    for (int i = 0; i < n; i++) { a = a * 5 + b; b ^= a >> 3; a += i & b; b = b * 3 + 7; }
    p[blockIdx.x * blockDim.x + threadIdx.x] = a + b;
}
extern "C" __global__ void fma_loop(float* p, int n) {
    float a = threadIdx.x, b = 0.5f, c = 0.25f, d = 1.5f;
    for (int i = 0; i < n; i++) { a = a * 0.5f + b; b = b * 0.25f + c; c = c * 0.125f + d; d = d * 0.5f + a; }
    p[blockIdx.x * blockDim.x + threadIdx.x] = a + b + c + d;
}
extern "C" __global__ void transpose_loop(float* p, int n) {
    __shared__ float t[32][33];
    int x = threadIdx.x % 32, y = threadIdx.x / 32;
    float v = threadIdx.x;
    for (int i = 0; i < n; i++) {
        for (int j = y; j < 32; j += 8) t[j][x] = v + j;
        __syncthreads();
        for (int j = y; j < 32; j += 8) v += t[x][j];
        __syncthreads();
    }
    p[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
extern "C" __global__ void mma_loop(float* p, int n) {
    float c[4][4] = {};
    for (int i = 0; i < n; i++) { MMA(c[0]); MMA(c[1]); MMA(c[2]); MMA(c[3]); }
    p[blockIdx.x * blockDim.x + threadIdx.x] = c[0][0] + c[1][1] + c[2][2] + c[3][3];
}
// As a product or an attention kernel does: tiles by cp.async in two stages, fragments by ldmatrix, products.
extern "C" __global__ void tile_loop(float* p, int n) {
    __shared__ __align__(16) unsigned char t[2][8192];
    const char* from = (const char*)p;
    float c[4][4] = {};
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned base = (unsigned)__cvta_generic_to_shared(t);
    auto fetch = [&](int i) {
        for (int k = 0; k < 2; k++) {
            int at = k * 4096 + threadIdx.x * 16;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(base + i % 2 * 8192 + at), "l"(from + i % 8 * 8192 + at));
        }
        asm volatile("cp.async.commit_group;");
    };
    fetch(0);
    for (int i = 0; i < n; i++) {
        fetch(i + 1);
        asm volatile("cp.async.wait_group 1;");
        __syncthreads();
        for (int k = 0; k < 4; k++) {
            unsigned a[4], b[4];
            // Rows of 128 bytes, their 16-byte pieces turned by the row: no bank conflicts.
            int row = warp % 4 * 16 + lane % 16, piece = (k * 2 + lane / 16) ^ row % 8;
            unsigned at = base + i % 2 * 8192 + row * 128 + piece * 16;
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(at));
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(at));
            for (int j = 0; j < 4; j++)
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                    : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
                    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[j % 2]), "r"(b[j % 2 + 2]));
        }
        __syncthreads();
    }
    asm volatile("cp.async.wait_all;");
    p[131072 + blockIdx.x * blockDim.x + threadIdx.x] = c[0][0] + c[1][1] + c[2][2] + c[3][3];
}
extern "C" __global__ void copy_loop(float* p, int n) {
    float* q = p + (blockIdx.x * blockDim.x + threadIdx.x);
    for (int i = 0; i < n; i++) q[(i & 3) * 65536] += 1;
}
"#;

fn main() {
    let ptx = common::compile(SOURCE);
    println!("million warp instructions per second; 16 blocks of 256 threads; median of 5");
    println!(
        "{:<16}{:>14}{:>14}{:>14}{:>14}{:>16}",
        "kernel", "none, 1", "all, 1", "none, 2", "all, 2", "instructions"
    );
    let only = std::env::args().nth(1);
    let options = Options::from_env().unwrap_or_else(|e| panic!("{e}"));
    for (name, n) in [
        ("integer_loop", 20_000i32),
        ("fma_loop", 20_000),
        ("transpose_loop", 800),
        ("copy_loop", 2_000),
        ("mma_loop", 500),
        ("tile_loop", 100),
    ] {
        if only.as_ref().is_some_and(|o| o != name) {
            continue;
        }
        let mut cells = Vec::new();
        let mut instructions = 0;
        let part = std::env::args().nth(2).is_some();
        for (checks, threads) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
            if part && !(checks && threads == 1) {
                cells.push(0.0);
                continue;
            }
            let run = |counters: bool| {
                let gpu = Gpu::new(Options {
                    checks,
                    threads,
                    counters,
                    accumulation: options.accumulation,
                    ..Options::default()
                })
                .unwrap();
                let kernel = gpu.load(&ptx).unwrap().kernel(name).unwrap();
                let p = common::upload(&gpu, &vec![0f32; 1 << 19]);
                let params = kernel.pack(&[&p.to_le_bytes(), &n.to_le_bytes()]).unwrap();
                let start = Instant::now();
                gpu.launch(&kernel, Shape::line(16, 256), params)
                    .unwrap_or_else(|e| panic!("{e}"));
                let seconds = start.elapsed().as_secs_f64();
                let json = gpu.counters_json();
                let count = json
                    .split("\"warp_instructions\": ")
                    .nth(1)
                    .and_then(|s| s.split(',').next()?.parse::<u64>().ok());
                (seconds, count.unwrap_or(0))
            };
            if instructions == 0 {
                instructions = run(true).1;
            }
            let mut times: Vec<f64> = (0..5).map(|_| run(false).0).collect();
            times.sort_by(f64::total_cmp);
            cells.push(instructions as f64 / times[2] / 1e6);
        }
        println!(
            "{name:<16}{:>14.1}{:>14.1}{:>14.1}{:>14.1}{instructions:>16}",
            cells[0], cells[1], cells[2], cells[3]
        );
    }
}
