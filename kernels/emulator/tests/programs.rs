//! Ordinary CUDA programs, compiled by NVRTC, against results computed on the host.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, compile, download, gpu, upload};
use cuda::{Gpu, Kernel, Module, Shape};

fn load(gpu: &Gpu, source: &str) -> Module {
    gpu.load(&compile(source)).unwrap_or_else(|e| panic!("{e}"))
}

fn launch(gpu: &Gpu, kernel: &Kernel, shape: Shape, args: &[&[u8]]) {
    if let Err(e) = gpu.launch(kernel, shape, kernel.pack(args).unwrap()) {
        panic!("{e}");
    }
}

fn shape(grid: [u32; 3], block: [u32; 3], shared: u32) -> Shape {
    Shape {
        grid,
        block,
        shared,
        cooperative: false,
    }
}

#[test]
fn scan_by_blocks_and_their_totals() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        extern "C" __global__ void scan(const int* x, int* y, int* totals, int n) {
            extern __shared__ int s[];
            int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
            s[t] = i < n ? x[i] : 0;
            __syncthreads();
            for (int d = 1; d < blockDim.x; d *= 2) {
                int v = t >= d ? s[t - d] : 0;
                __syncthreads();
                s[t] += v;
                __syncthreads();
            }
            if (i < n) y[i] = s[t];
            if (t == blockDim.x - 1) totals[blockIdx.x] = s[t];
        }
        extern "C" __global__ void shift(int* y, const int* totals, int n) {
            int i = blockIdx.x * blockDim.x + threadIdx.x, before = 0;
            for (int b = 0; b < blockIdx.x; b++) before += totals[b];
            if (i < n) y[i] += before;
        }"#,
    );
    let n = 1000usize;
    let mut r = Random(7);
    let x: Vec<i32> = (0..n).map(|_| (r.bits() % 2001) as i32 - 1000).collect();
    let (dx, dy, dt) = (
        upload(&gpu, &x),
        gpu.alloc(4 * n as u64).unwrap(),
        gpu.alloc(64).unwrap(),
    );
    let n4 = (n as i32).to_le_bytes();
    launch(
        &gpu,
        &m.kernel("scan").unwrap(),
        shape([8, 1, 1], [128, 1, 1], 512),
        &[&dx.to_le_bytes(), &dy.to_le_bytes(), &dt.to_le_bytes(), &n4],
    );
    launch(
        &gpu,
        &m.kernel("shift").unwrap(),
        Shape::line(8, 128),
        &[&dy.to_le_bytes(), &dt.to_le_bytes(), &n4],
    );
    let want: Vec<i32> = x
        .iter()
        .scan(0, |s, v| {
            *s += v;
            Some(*s)
        })
        .collect();
    assert_eq!(download::<i32>(&gpu, dy, n), want);
}

#[test]
fn transpose_with_padding_of_odd_sizes() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        extern "C" __global__ void transpose(const float* x, float* y, int rows, int cols) {
            __shared__ float t[32][33];
            int c = blockIdx.x * 32 + threadIdx.x, r0 = blockIdx.y * 32;
            for (int j = threadIdx.y; j < 32; j += 8) if (r0 + j < rows && c < cols) t[j][threadIdx.x] = x[(r0 + j) * cols + c];
            __syncthreads();
            int r = r0 + threadIdx.x, c0 = blockIdx.x * 32;
            for (int j = threadIdx.y; j < 32; j += 8) if (r < rows && c0 + j < cols) y[(c0 + j) * rows + r] = t[threadIdx.x][j];
        }"#,
    );
    let (rows, cols) = (45usize, 70usize);
    let x: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
    let (dx, dy) = (upload(&gpu, &x), gpu.alloc(4 * x.len() as u64).unwrap());
    let k = m.kernel("transpose").unwrap();
    launch(
        &gpu,
        &k,
        shape([3, 2, 1], [32, 8, 1], 0),
        &[
            &dx.to_le_bytes(),
            &dy.to_le_bytes(),
            &(rows as i32).to_le_bytes(),
            &(cols as i32).to_le_bytes(),
        ],
    );
    let y = download::<f32>(&gpu, dy, x.len());
    assert!((0..rows * cols).all(|i| y[i % cols * rows + i / cols] == x[i]));
}

#[test]
fn histogram_with_shared_atomics() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        extern "C" __global__ void histogram(const unsigned char* x, int* h, int n) {
            __shared__ int s[256];
            for (int i = threadIdx.x; i < 256; i += blockDim.x) s[i] = 0;
            __syncthreads();
            for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&s[x[i]], 1);
            __syncthreads();
            for (int i = threadIdx.x; i < 256; i += blockDim.x) if (s[i]) atomicAdd(&h[i], s[i]);
        }"#,
    );
    let mut r = Random(3);
    let x: Vec<u8> = (0..5001).map(|_| (r.bits() >> 60) as u8 * 3).collect();
    let (dx, dh) = (upload(&gpu, &x), upload(&gpu, &[0i32; 256]));
    launch(
        &gpu,
        &m.kernel("histogram").unwrap(),
        Shape::line(4, 96),
        &[
            &dx.to_le_bytes(),
            &dh.to_le_bytes(),
            &(x.len() as i32).to_le_bytes(),
        ],
    );
    let mut want = [0i32; 256];
    x.iter().for_each(|v| want[*v as usize] += 1);
    assert_eq!(download::<i32>(&gpu, dh, 256), want);
}

#[test]
fn bitonic_sort_in_shared_memory() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        extern "C" __global__ void sort(unsigned* x) {
            __shared__ unsigned s[512];
            int t = threadIdx.x;
            s[t] = x[t]; s[t + 256] = x[t + 256];
            __syncthreads();
            for (int k = 2; k <= 512; k *= 2)
                for (int j = k / 2; j > 0; j /= 2) {
                    int a = (t / j) * 2 * j + t % j, b = a + j;
                    if ((s[a] > s[b]) == ((a & k) == 0)) { unsigned v = s[a]; s[a] = s[b]; s[b] = v; }
                    __syncthreads();
                }
            x[t] = s[t]; x[t + 256] = s[t + 256];
        }"#,
    );
    let mut r = Random(11);
    let mut x: Vec<u32> = (0..512).map(|_| r.bits() as u32).collect();
    let dx = upload(&gpu, &x);
    launch(
        &gpu,
        &m.kernel("sort").unwrap(),
        Shape::line(1, 256),
        &[&dx.to_le_bytes()],
    );
    x.sort_unstable();
    assert_eq!(download::<u32>(&gpu, dx, 512), x);
}

#[test]
fn math_functions_stay_close_to_f64() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        extern "C" __global__ void f(const float* x, float* y, double* z, int n) {
            int i = threadIdx.x;
            float v = x[i];
            float* o = y + i * 12;
            o[0] = expf(v); o[1] = logf(fabsf(v) + 0.5f); o[2] = sinf(v * 1000.f); o[3] = cosf(v); o[4] = tanhf(v); o[5] = erff(v);
            o[6] = powf(fabsf(v) + 0.1f, 1.7f); o[7] = sqrtf(fabsf(v)); o[8] = rsqrtf(fabsf(v) + 1e-3f); o[9] = atan2f(v, 0.3f); o[10] = cbrtf(v);
            o[11] = fmodf(v * 100.f, 7.f);
            z[i * 3] = exp((double)v); z[i * 3 + 1] = sin((double)v * 50.0); z[i * 3 + 2] = log1p(fabs((double)v));
        }"#,
    );
    let mut r = Random(5);
    let x: Vec<f32> = (0..64).map(|_| r.unit() * 3.0).collect();
    let (dx, dy, dz) = (
        upload(&gpu, &x),
        gpu.alloc(64 * 12 * 4).unwrap(),
        gpu.alloc(64 * 24).unwrap(),
    );
    launch(
        &gpu,
        &m.kernel("f").unwrap(),
        Shape::line(1, 64),
        &[
            &dx.to_le_bytes(),
            &dy.to_le_bytes(),
            &dz.to_le_bytes(),
            &64i32.to_le_bytes(),
        ],
    );
    let (y, z) = (
        download::<f32>(&gpu, dy, 64 * 12),
        download::<f64>(&gpu, dz, 64 * 3),
    );
    // erf by its series; |v| <= 3.
    let erf = |v: f64| {
        (0..80)
            .fold((v, v), |(s, t), k| {
                let t = -t * v * v / f64::from(k + 1);
                (s + t / f64::from(2 * k + 3), t)
            })
            .0
            * 2.0
            / std::f64::consts::PI.sqrt()
    };
    for (i, &v32) in x.iter().enumerate() {
        let v = f64::from(v32);
        let a = f64::from(v32.abs());
        let want = [
            v.exp(),
            f64::from(v32.abs() + 0.5).ln(),
            f64::from(v32 * 1000.0).sin(),
            v.cos(),
            v.tanh(),
            erf(v),
            f64::from(v32.abs() + 0.1f32).powf(f64::from(1.7f32)),
            a.sqrt(),
            1.0 / f64::from(v32.abs() + 1e-3f32).sqrt(),
            v.atan2(f64::from(0.3f32)),
            v.cbrt(),
            f64::from(v32 * 100.0) % 7.0,
        ];
        for (k, w) in want.iter().enumerate() {
            let got = f64::from(y[i * 12 + k]);
            assert!(
                (got - w).abs() <= 1e-6 * w.abs().max(0.1),
                "function {k} of {v}: {got} against {w}"
            );
        }
        for (k, w) in [v.exp(), (v * 50.0).sin(), a.ln_1p()].iter().enumerate() {
            let got = z[i * 3 + k];
            assert!(
                (got - w).abs() <= 1e-14 * w.abs().max(1.0),
                "double function {k} of {v}: {got} against {w}"
            );
        }
    }
}

#[test]
fn calls_recursion_free_pointers_local_arrays_and_switches() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        __device__ __noinline__ int triple(int x) { return 3 * x; }
        __device__ __noinline__ int square(int x) { return x * x; }
        __device__ int (*table[2])(int) = {triple, square};
        struct P { int a; short b; char c; long long d; };
        __device__ __noinline__ P make(int i) { P p; p.a = i; p.b = -i; p.c = i & 7; p.d = (long long)i << 33; return p; }
        extern "C" __global__ void f(long long* out, int n) {
            int i = threadIdx.x, l[16];
            for (int k = 0; k < 16; k++) l[(k * 5) & 15] = k + i;
            long long v = l[i & 15];
            switch (i % 7) {
                case 0: v += 10; break;
                case 1: v *= 3; break;
                case 2: v = -v; break;
                case 3: v ^= 0x55; break;
                case 4: v += triple(i); break;
                case 5: v -= 4; break;
                default: v = 77;
            }
            P p = make(i);
            v += p.a + p.b + p.c + (p.d >> 30);
            v += table[i & 1](i + n);
            out[i] = v;
        }"#,
    );
    let d = gpu.alloc(64 * 8).unwrap();
    launch(
        &gpu,
        &m.kernel("f").unwrap(),
        Shape::line(1, 64),
        &[&d.to_le_bytes(), &2i32.to_le_bytes()],
    );
    let got = download::<i64>(&gpu, d, 64);
    for i in 0..64i64 {
        let l = (0..16).find(|k| (k * 5) & 15 == i & 15).unwrap() + i;
        let mut v = match i % 7 {
            0 => l + 10,
            1 => l * 3,
            2 => -l,
            3 => l ^ 0x55,
            4 => l + 3 * i,
            5 => l - 4,
            _ => 77,
        };
        v += (i & 7) + (i << 3);
        v += if i & 1 == 0 {
            3 * (i + 2)
        } else {
            (i + 2) * (i + 2)
        };
        assert_eq!(got[i as usize], v, "thread {i}");
    }
}

#[test]
fn a_lock_inside_a_warp_makes_progress() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        extern "C" __global__ void f(int* lock, volatile int* sum) {
            bool done = false;
            while (!done) {
                if (atomicCAS(lock, 0, 1) == 0) { *sum = *sum + threadIdx.x; __threadfence(); atomicExch(lock, 0); done = true; }
            }
        }
        extern "C" __global__ void spin(int* lock, volatile int* sum) {
            while (atomicCAS(lock, 0, 1) != 0) ;
            *sum = *sum + 1;
            __threadfence();
            atomicExch(lock, 0);
        }"#,
    );
    for (name, want) in [("f", 31 * 16), ("spin", 32)] {
        let (lock, sum) = (upload(&gpu, &[0i32]), upload(&gpu, &[0i32]));
        launch(
            &gpu,
            &m.kernel(name).unwrap(),
            Shape::line(1, 32),
            &[&lock.to_le_bytes(), &sum.to_le_bytes()],
        );
        assert_eq!(download::<i32>(&gpu, sum, 1), [want], "{name}");
    }
}

#[test]
fn blocks_wait_for_one_another_in_a_cooperative_grid() {
    let gpu = gpu();
    let m = load(
        &gpu,
        r#"
        __device__ unsigned arrived;
        __device__ void grid_sync(unsigned round) {
            __syncthreads();
            if (threadIdx.x == 0) {
                __threadfence();
                atomicAdd(&arrived, 1);
                while (*(volatile unsigned*)&arrived < round * gridDim.x) ;
                __threadfence();
            }
            __syncthreads();
        }
        extern "C" __global__ void f(int* x, int* y, int n) {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            x[i] = i;
            grid_sync(1);
            y[i] = x[n - 1 - i];
            grid_sync(2);
            x[i] = y[n - 1 - i] + 1;
        }"#,
    );
    let (x, y) = (gpu.alloc(512 * 4).unwrap(), gpu.alloc(512 * 4).unwrap());
    let s = Shape {
        cooperative: true,
        ..Shape::line(8, 64)
    };
    launch(
        &gpu,
        &m.kernel("f").unwrap(),
        s,
        &[&x.to_le_bytes(), &y.to_le_bytes(), &512i32.to_le_bytes()],
    );
    assert_eq!(
        download::<i32>(&gpu, x, 512),
        (1..=512).collect::<Vec<i32>>()
    );
}

#[test]
fn tensor_core_product_with_async_copies() {
    let gpu = gpu();
    // C = A B for 64 x 64 x K, bf16 in, f32 out; one warp per 16 x 64 strip, two stages of K 16.
    let m = load(
        &gpu,
        r#"
        #include <cuda_bf16.h>
        typedef __nv_bfloat16 T;
        __device__ unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
        __device__ void copy16(void* to, const void* from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at(to)), "l"(from) : "memory"); }
        extern "C" __global__ void product(const T* a, const T* b, float* c, int k) {
            __shared__ __align__(16) T sa[2][64][24], sb[2][16][72];
            int t = threadIdx.x, lane = t % 32, w = t / 32;
            float acc[8][4] = {};
            auto stage = [&](int s, int k0) {
                { int r = t / 2, h = t % 2; copy16(&sa[s][r][h * 8], a + r * k + k0 + h * 8); }
                { int r = t / 8, h = t % 8; copy16(&sb[s][r][h * 8], b + (k0 + r) * 64 + h * 8); }
                asm volatile("cp.async.commit_group;" ::: "memory");
            };
            stage(0, 0);
            for (int i = 0, k0 = 0; k0 < k; i++, k0 += 16) {
                int s = i & 1;
                if (k0 + 16 < k) { stage(s ^ 1, k0 + 16); asm volatile("cp.async.wait_group 1;" ::: "memory"); }
                else asm volatile("cp.async.wait_group 0;" ::: "memory");
                __syncthreads();
                unsigned fa[4];
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3]) : "r"(at(&sa[s][w * 16 + lane % 16][lane / 16 * 8])) : "memory");
                for (int j = 0; j < 8; j++) {
                    unsigned fb[2];
                    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(fb[0]), "=r"(fb[1]) : "r"(at(&sb[s][lane % 16][j * 8])) : "memory");
                    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                        : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3]) : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
                }
                __syncthreads();
            }
            for (int j = 0; j < 8; j++)
                for (int e = 0; e < 4; e++) c[(w * 16 + lane / 4 + e / 2 * 8) * 64 + j * 8 + lane % 4 * 2 + e % 2] = acc[j][e];
        }"#,
    );
    let k = 80usize;
    let mut r = Random(9);
    let mut bf = |n: usize| {
        (0..n)
            .map(|_| (r.unit().to_bits() >> 16) as u16)
            .collect::<Vec<u16>>()
    };
    let (a, b) = (bf(64 * k), bf(k * 64));
    let (da, db, dc) = (
        upload(&gpu, &a),
        upload(&gpu, &b),
        gpu.alloc(64 * 64 * 4).unwrap(),
    );
    launch(
        &gpu,
        &m.kernel("product").unwrap(),
        Shape::line(1, 128),
        &[
            &da.to_le_bytes(),
            &db.to_le_bytes(),
            &dc.to_le_bytes(),
            &(k as i32).to_le_bytes(),
        ],
    );
    let c = download::<f32>(&gpu, dc, 64 * 64);
    let wide = |h: u16| f64::from(f32::from_bits(u32::from(h) << 16));
    for i in 0..64 {
        for j in 0..64 {
            let want: f64 = (0..k)
                .map(|x| wide(a[i * k + x]) * wide(b[x * 64 + j]))
                .sum();
            // One f32 rounding per k16 step.
            assert!(
                (f64::from(c[i * 64 + j]) - want).abs() < 5.0 * 2f64.powi(-24) * 16.0,
                "{i},{j}"
            );
        }
    }
}

#[test]
fn results_do_not_depend_on_threads_or_order() {
    let source = r#"
        extern "C" __global__ void f(float* x, int n) {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < n) { float v = i; for (int k = 0; k < 20; k++) v = v * 1.01f + sinf(v); x[i] = v; }
        }"#;
    let ptx = compile(source);
    let mut seen: Vec<(Vec<u32>, String)> = Vec::new();
    for (threads, seed) in [(1, 0), (2, 0), (2, 5), (3, 9)] {
        let gpu = Gpu::new(cuda::Options {
            threads,
            seed,
            counters: true,
            ..cuda::Options::default()
        })
        .unwrap();
        let k = gpu.load(&ptx).unwrap().kernel("f").unwrap();
        let x = upload(&gpu, &[0f32; 1000]);
        launch(
            &gpu,
            &k,
            Shape::line(9, 128),
            &[&x.to_le_bytes(), &1000i32.to_le_bytes()],
        );
        seen.push((download(&gpu, x, 1000), gpu.counters_json()));
    }
    assert!(seen.iter().all(|s| s.0 == seen[0].0));
    assert!(
        seen.iter().all(|s| s.1 == seen[0].1),
        "the counters depend on the schedule"
    );
}
