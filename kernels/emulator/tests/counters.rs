//! The counters against figures worked out by hand.
#![allow(clippy::unwrap_used)]

mod common;

use common::{compile, upload};
use cuda::{Gpu, Options, Shape};

fn counted(source: &str, shape: Shape, words: usize) -> String {
    let gpu = Gpu::new(Options {
        counters: true,
        ..Options::default()
    })
    .unwrap();
    let kernel = gpu.load(&compile(source)).unwrap().kernel("k").unwrap();
    let p = upload(&gpu, &vec![1f32; words]);
    let q = upload(&gpu, &vec![0f32; words]);
    gpu.launch(
        &kernel,
        shape,
        kernel.pack(&[&p.to_le_bytes(), &q.to_le_bytes()]).unwrap(),
    )
    .unwrap_or_else(|e| panic!("{e}"));
    gpu.counters_json()
}

fn check(json: &str, wanted: &[&str]) {
    for w in wanted {
        assert!(json.contains(w), "{w} is not in\n{json}");
    }
}

#[test]
fn coalescing_and_dram_traffic() {
    // 4 blocks of 64 threads: 8 warps, each reads 128 contiguous bytes (4 sectors) and writes them.
    let json = counted(
        "extern \"C\" __global__ void k(const float* p, float* q) { int i = blockIdx.x * 64 + threadIdx.x; q[i] = p[i]; }",
        Shape::line(4, 64),
        4096,
    );
    check(
        &json,
        &[
            "\"global_load\": {\"requests\": 8, \"sectors\": 32, \"bytes_used\": 1024}",
            "\"global_store\": {\"requests\": 8, \"sectors\": 32, \"bytes_used\": 1024}",
            "\"dram_read_bytes\": 1024",
            "\"blocks\": 4",
            "\"occupancy_without_registers\": 1.0000",
        ],
    );
    // A stride of 32 bytes: every lane its own sector, an eighth of the bytes used.
    let json = counted(
        "extern \"C\" __global__ void k(const float* p, float* q) { int i = threadIdx.x; q[i] = p[i * 8]; }",
        Shape::line(1, 32),
        4096,
    );
    check(
        &json,
        &["\"global_load\": {\"requests\": 1, \"sectors\": 32, \"bytes_used\": 128}"],
    );
    // All lanes one word: one sector, four bytes.
    let json = counted(
        "extern \"C\" __global__ void k(const float* p, float* q) { q[threadIdx.x] = p[blockIdx.x]; }",
        Shape::line(1, 32),
        4096,
    );
    check(
        &json,
        &["\"global_load\": {\"requests\": 1, \"sectors\": 1, \"bytes_used\": 4}"],
    );
    // Read twice: the second time from the L2.
    let json = counted(
        "extern \"C\" __global__ void k(const float* p, float* q) { volatile const float* v = p; q[threadIdx.x] = v[threadIdx.x] + v[threadIdx.x]; }",
        Shape::line(1, 32),
        4096,
    );
    check(
        &json,
        &["\"dram_read_bytes\": 128", "\"l2_hit_sectors\": 4"],
    );
}

#[test]
fn bank_conflicts() {
    let kernel = |stride: u32| {
        format!(
            "extern \"C\" __global__ void k(const float* p, float* q) {{ __shared__ float s[1056]; int i = threadIdx.x; s[i * {stride}] = i; __syncwarp(); q[i] = s[i * {stride}]; }}"
        )
    };
    for (stride, conflicts) in [(1, 0), (2, 2), (32, 62), (33, 0)] {
        let json = counted(&kernel(stride), Shape::line(1, 32), 64);
        check(&json, &[&format!("\"bank_conflicts\": {conflicts},")]);
    }
}

#[test]
fn divergence_and_classes() {
    let json = counted(
        "extern \"C\" __global__ void k(const float* p, float* q) { float v = p[threadIdx.x]; if (threadIdx.x < 8) { for (int i = 0; i < 10; i++) v = sqrtf(v + q[i + 64]); q[threadIdx.x] = v; } }",
        Shape::line(1, 32),
        128,
    );
    check(&json, &["\"divergent_branches\": 1,", "\"barriers\": 0"]);
    let per_lane: f64 = {
        let field = |name: &str| {
            json.split(&format!("\"{name}\": "))
                .nth(1)
                .unwrap()
                .split([',', '}'])
                .next()
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        field("lanes") / field("warp_instructions")
    };
    assert!(per_lane > 8.0 && per_lane < 16.0, "{per_lane}");
}
