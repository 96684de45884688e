//! cudarc, unchanged, over the built library: what a program does with the real driver.
#![allow(clippy::unwrap_used)]

mod common;

use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

const SOURCE: &str = r#"
extern "C" __global__ void add(const float* a, const float* b, float* c, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}
extern "C" __global__ void total(const float* x, float* out, int n) {
    __shared__ float part[32];
    float v = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
    for (int d = 16; d; d >>= 1) v += __shfl_down_sync(~0u, v, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
        for (int d = 16; d; d >>= 1) v += __shfl_down_sync(~0u, v, d);
        if (threadIdx.x == 0) atomicAdd(out, v);
    }
}
extern "C" __global__ void product(const float* a, const float* b, float* c, int n) {
    __shared__ float ta[16][16], tb[16][16];
    int x = threadIdx.x, y = threadIdx.y, col = blockIdx.x * 16 + x, row = blockIdx.y * 16 + y;
    float sum = 0;
    for (int k = 0; k < n; k += 16) {
        ta[y][x] = row < n && k + x < n ? a[row * n + k + x] : 0;
        tb[y][x] = k + y < n && col < n ? b[(k + y) * n + col] : 0;
        __syncthreads();
        for (int i = 0; i < 16; i++) sum += ta[y][i] * tb[i][x];
        __syncthreads();
    }
    if (row < n && col < n) c[row * n + col] = sum;
}
extern "C" __global__ void scale(float* x, float by, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= by;
}
"#;

#[test]
fn a_program_for_the_real_driver_runs() {
    common::need_driver();
    let ptx = common::compile(SOURCE);
    let ctx = CudaContext::new(0).unwrap();
    assert!(ctx.name().unwrap().contains("emulated"));
    let stream = ctx.new_stream().unwrap();
    let module = ctx.load_module(Ptx::from_src(ptx)).unwrap();

    let n = 1000usize;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32).collect();
    let (da, db) = (
        stream.clone_htod(&a).unwrap(),
        stream.clone_htod(&b).unwrap(),
    );
    let mut dc = stream.alloc_zeros::<f32>(n).unwrap();
    let add = module.load_function("add").unwrap();
    let n32 = n as i32;
    // SAFETY: the arguments are those of the kernel.
    unsafe {
        stream
            .launch_builder(&add)
            .arg(&da)
            .arg(&db)
            .arg(&mut dc)
            .arg(&n32)
            .launch(LaunchConfig::for_num_elems(n as u32))
    }
    .unwrap();
    let c = stream.clone_dtoh(&dc).unwrap();
    assert!(c.iter().enumerate().all(|(i, v)| *v == 1.5 * i as f32));

    let mut sum = stream.alloc_zeros::<f32>(1).unwrap();
    let total = module.load_function("total").unwrap();
    let cfg = LaunchConfig {
        grid_dim: (3, 1, 1),
        block_dim: (128, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: as above.
    unsafe {
        stream
            .launch_builder(&total)
            .arg(&da)
            .arg(&mut sum)
            .arg(&n32)
            .launch(cfg)
    }
    .unwrap();
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), [499_500.0]);

    let size = 37usize;
    let mut r = common::Random(1);
    let p: Vec<f32> = (0..size * size).map(|_| r.unit()).collect();
    let q: Vec<f32> = (0..size * size).map(|_| r.unit()).collect();
    let (dp, dq) = (
        stream.clone_htod(&p).unwrap(),
        stream.clone_htod(&q).unwrap(),
    );
    let mut dr = stream.alloc_zeros::<f32>(size * size).unwrap();
    let product = module.load_function("product").unwrap();
    let cfg = LaunchConfig {
        grid_dim: (3, 3, 1),
        block_dim: (16, 16, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: as above.
    unsafe {
        stream
            .launch_builder(&product)
            .arg(&dp)
            .arg(&dq)
            .arg(&mut dr)
            .arg(&(size as i32))
            .launch(cfg)
    }
    .unwrap();
    let got = stream.clone_dtoh(&dr).unwrap();
    for i in 0..size {
        for j in 0..size {
            let want: f64 = (0..size)
                .map(|k| f64::from(p[i * size + k]) * f64::from(q[k * size + j]))
                .sum();
            assert!(
                (f64::from(got[i * size + j]) - want).abs() < 1e-5,
                "{i},{j}: {} {want}",
                got[i * size + j]
            );
        }
    }
}

#[test]
fn a_captured_graph_replays_with_its_arguments() {
    common::need_driver();
    let ptx = common::compile(SOURCE);
    let ctx = CudaContext::new(0).unwrap();
    // SAFETY: one stream does all the work of this test.
    unsafe { ctx.disable_event_tracking() };
    let stream = ctx.new_stream().unwrap();
    let module = ctx.load_module(Ptx::from_src(ptx)).unwrap();
    let scale = module.load_function("scale").unwrap();
    let mut x = stream.clone_htod(&vec![1f32; 100]).unwrap();
    stream.synchronize().unwrap();
    stream.begin_capture(CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    for by in [2f32, 3.0] {
        // SAFETY: the arguments are those of the kernel.
        unsafe {
            stream
                .launch_builder(&scale)
                .arg(&mut x)
                .arg(&by)
                .arg(&100i32)
                .launch(LaunchConfig::for_num_elems(100))
        }
        .unwrap();
    }
    let flags = cudarc::driver::sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).unwrap().unwrap();
    assert_eq!(
        stream.clone_dtoh(&x).unwrap(),
        vec![1f32; 100],
        "a capture runs nothing"
    );
    graph.launch().unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&x).unwrap(), vec![36f32; 100]);
}
