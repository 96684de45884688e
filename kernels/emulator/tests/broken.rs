//! Deliberately broken kernels. Each row names the fault, and the whole suite must be caught: kind, source line, and
//! words of the message. The mended twin of a row, where it has one, must run clean.
#![allow(clippy::unwrap_used)]

mod common;

use cuda::{FaultKind, LaunchError, Shape};

struct Case {
    name: &'static str,
    /// The kernel is `k(int* p, int n)` with 64 KiB of zeros (or nothing written, see `fresh`) behind `p`.
    source: &'static str,
    shape: (u32, u32, u32),
    kind: FaultKind,
    /// Words of the message. The report must also name a source line with `// here`.
    words: &'static str,
    fresh: bool,
    /// Replacements that mend it.
    mend: Option<(&'static str, &'static str)>,
}

const WORDS: u64 = 16384;

fn case(
    name: &'static str,
    kind: FaultKind,
    shape: (u32, u32, u32),
    words: &'static str,
    source: &'static str,
) -> Case {
    Case {
        name,
        source,
        shape,
        kind,
        words,
        fresh: false,
        mend: None,
    }
}

impl Case {
    fn mend(mut self, from: &'static str, to: &'static str) -> Case {
        self.mend = Some((from, to));
        self
    }

    fn fresh(mut self) -> Case {
        self.fresh = true;
        self
    }
}

fn cases() -> Vec<Case> {
    use FaultKind::*;
    vec![
        case("missing barrier, first use", Uninitialised, (1, 64, 0), "a barrier may be missing", r#"
            __shared__ int s[64];
            s[threadIdx.x] = threadIdx.x;
            /* sync */
            p[threadIdx.x] = s[63 - threadIdx.x]; // here
        "#).mend("/* sync */", "__syncthreads();"),
        case("missing barrier", SharedRace, (1, 64, 0), "no barrier between", r#"
            __shared__ int s[64];
            s[threadIdx.x] = -1;
            __syncthreads();
            s[threadIdx.x] = threadIdx.x; // here
            /* sync */
            p[threadIdx.x] = s[63 - threadIdx.x]; // here
        "#).mend("/* sync */", "__syncthreads();"),
        case("missing barrier before reuse", SharedRace, (1, 64, 0), "no barrier between", r#"
            __shared__ int s[64];
            for (int i = 0; i < 2; i++) {
                s[threadIdx.x] = i; // here
                __syncthreads();
                p[threadIdx.x] += s[63 - threadIdx.x]; // here
                /* sync */
            }
        "#).mend("/* sync */", "__syncthreads();"),
        case("missing warp sync", SharedRace, (1, 32, 0), "no __syncwarp", r#"
            __shared__ int s[32];
            s[threadIdx.x] = threadIdx.x;
            /* sync */
            p[threadIdx.x] = s[threadIdx.x ^ 1]; // here
        "#).mend("/* sync */", "__syncwarp();"),
        case("lanes write one word", SharedRace, (1, 32, 0), "different values", r#"
            __shared__ int s;
            s = threadIdx.x; // here
            __syncthreads();
            p[threadIdx.x] = s;
        "#).mend("s = threadIdx.x", "s = 5"),
        case("off-by-one tail", OutOfBounds, (65, 256, 0), "0 bytes past the end", r#"
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i <= n) p[i] = 1; // here
        "#).mend("i <= n", "i < n"),
        case("out-of-bounds block id", OutOfBounds, (65, 256, 0), "past the end", r#"
            p[blockIdx.x * blockDim.x + threadIdx.x] = 1; // here
        "#),
        case("index before the start", OutOfBounds, (1, 32, 0), "before an allocation", r#"
            int i = threadIdx.x;
            p[i - 1] = 1; // here
        "#),
        case("wild pointer", OutOfBounds, (1, 1, 0), "no allocation is near", r#"
            *(int*)(0x10000ull + n * 4) = 1; // here
        "#),
        case("shared index past the array", OutOfBounds, (1, 64, 0), "bytes of shared memory", r#"
            __shared__ int s[32];
            s[threadIdx.x] = 1; // here
            __syncthreads();
            p[threadIdx.x] = s[threadIdx.x / 2];
        "#).mend("s[32]", "s[64]"),
        case("too little dynamic shared memory", OutOfBounds, (1, 64, 128), "the block has 128 bytes", r#"
            extern __shared__ int dyn[];
            dyn[threadIdx.x] = 1; // here
            p[threadIdx.x] = dyn[threadIdx.x];
        "#),
        case("misaligned vector load", Misaligned, (1, 32, 0), "not a multiple of 16", r#"
            int4 v = *(int4*)(p + threadIdx.x * 4 + 1); // here
            p[threadIdx.x] = v.x + v.y + v.z + v.w;
        "#),
        case("uninitialised shared memory", Uninitialised, (1, 32, 0), "no thread of this block wrote it", r#"
            __shared__ int s[33];
            s[threadIdx.x] = 1;
            __syncwarp();
            p[threadIdx.x] = s[threadIdx.x + 1]; // here
        "#).mend("s[threadIdx.x] = 1;", "s[threadIdx.x] = 1; if (threadIdx.x == 0) s[32] = 2;"),
        case("uninitialised global memory", Uninitialised, (1, 32, 0), "was never written", r#"
            p[threadIdx.x] += 1; // here
        "#).fresh(),
        case("uninitialised local array", Uninitialised, (1, 32, 0), "which this thread never wrote", r#"
            int l[64];
            for (int i = 0; i < 63; i++) l[(i * 7 + n) & 63] = i;
            p[threadIdx.x] = l[(63 * 7 + n + (threadIdx.x >> 5)) & 63]; // here
        "#).mend("i < 63", "i < 64"),
        case("blocks write one word", GlobalRace, (4, 1, 0), "written by block", r#"
            p[0] = blockIdx.x; // here
        "#).mend("p[0] = blockIdx.x", "atomicAdd(p, 1)"),
        case("reading another block's result", GlobalRace, (2, 1, 0), "written by block (0,0,0)", r#"
            if (blockIdx.x == 0) p[0] = 1;
            else p[1] = p[0]; // here
        "#),
        case("last block without fence", GlobalRace, (4, 1, 0), "nothing to order them", r#"
            p[16 + blockIdx.x] = blockIdx.x;
            /* fence */
            if (atomicAdd(p, 1) == 3) { int s = 0; for (int i = 0; i < 4; i++) s += p[16 + i]; p[1] = s; } // here
        "#).mend("/* fence */", "__threadfence();"),
        case("barrier in a diverged warp", DivergentSync, (1, 32, 0), "not all threads", r#"
            if (threadIdx.x < 16) { p[threadIdx.x] = 1; asm volatile("bar.sync 0;" ::: "memory"); p[threadIdx.x] = 2; } // here
            else { p[threadIdx.x] = 3; asm volatile("bar.sync 0;" ::: "memory"); p[threadIdx.x] = 4; }
        "#),
        case("shuffle names lanes that are elsewhere", DivergentSync, (1, 32, 0), "not all threads", r#"
            if (threadIdx.x < 16) p[threadIdx.x] = __shfl_sync(~0u, p[threadIdx.x], 3); // here
            else __syncwarp();
        "#),
        case("wrong lane", DivergentSync, (1, 32, 0), "reads lane 16", r#"
            if (threadIdx.x < 16) p[threadIdx.x] = __shfl_down_sync(0xffffu, threadIdx.x, 1); // here
        "#).mend("0xffffu, threadIdx.x, 1", "0xffffu, threadIdx.x, 1, 16"),
        case("member mask without the caller", DivergentSync, (1, 32, 0), "does not name the executing lane", r#"
            p[threadIdx.x] = __shfl_sync(0xffffu, threadIdx.x, 0); // here
        "#),
        case("shuffle names lanes that leave", DivergentSync, (1, 32, 0), "have left the kernel without reaching it", r#"
            if (threadIdx.x < 16) p[threadIdx.x] = __shfl_sync(~0u, p[threadIdx.x], 3); // here
        "#).mend("~0u", "0xffffu"),
        case("vote names lanes that work and leave", DivergentSync, (1, 32, 0), "lanes 0xffff0000, which it waits for", r#"
            if (threadIdx.x < 16) p[threadIdx.x] = __ballot_sync(~0u, p[threadIdx.x] == 0); // here
            else p[threadIdx.x] = 7;
        "#).mend("~0u", "0xffffu"),
        case("vote after an early return", DivergentSync, (1, 32, 0), "have left the kernel without reaching it", r#"
            unsigned mask = ~0u;
            if (threadIdx.x >= n >> 10) return;
            p[threadIdx.x] = __all_sync(mask, p[threadIdx.x] == 0); // here
        "#).mend("mask = ~0u", "mask = __ballot_sync(~0u, threadIdx.x < n >> 10)"),
        case("match names lanes that leave", DivergentSync, (1, 32, 0), "have left the kernel without reaching it", r#"
            if (threadIdx.x % 2 == 0) p[threadIdx.x] = __match_any_sync(~0u, threadIdx.x / 4); // here
            else p[threadIdx.x] = 7;
        "#).mend("~0u", "0x55555555u"),
        case("reduction names lanes that leave", DivergentSync, (1, 32, 0), "have left the kernel without reaching it", r#"
            if (threadIdx.x < 31) p[threadIdx.x] = __reduce_add_sync(~0u, threadIdx.x); // here
        "#).mend("~0u", "0x7fffffffu"),
        case("block barrier in one arm of a branch", DivergentSync, (1, 64, 0), "have left the kernel without reaching it", r#"
            if (threadIdx.x % 32 < 16) {
                p[threadIdx.x] = 1;
                __syncthreads(); // here
                p[threadIdx.x] = 2;
            } else p[threadIdx.x] = 3;
        "#).mend("threadIdx.x % 32 < 16", "threadIdx.x < 64"),
        case("counting barrier in one arm of a branch", DivergentSync, (1, 32, 0), "have left the kernel without reaching it", r#"
            int count = 0;
            if (threadIdx.x < 16) count = __syncthreads_count(n); // here
            p[threadIdx.x] = count;
        "#).mend("threadIdx.x < 16", "threadIdx.x < 32"),
        case("aligned barrier with a predicate", DivergentSync, (1, 32, 0), "lanes 0xffff0000 of the warp pass this aligned barrier", r#"
            asm volatile("{ .reg .pred q; setp.lt.u32 q, %0, 16; @q bar.sync 0; }" :: "r"(threadIdx.x) : "memory"); // here
            p[threadIdx.x] = 1;
        "#).mend("q, %0, 16", "q, %0, 32"),
        case("aligned barrier in a loop of different lengths", DivergentSync, (1, 32, 0), "have left the kernel without reaching it", r#"
            for (int i = 0; i <= (threadIdx.x & 1); i++)
                asm volatile("barrier.sync.aligned 0;" ::: "memory"); // here
            p[threadIdx.x] = 1;
        "#).mend("barrier.sync.aligned", "barrier.sync"),
        case("barrier count mismatch", BarrierMismatch, (1, 64, 0), "earlier arrivals wait for", r#"
            if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory");
            else asm volatile("bar.sync 1, 32;" ::: "memory"); // here
        "#),
        case("barrier that is never completed", Deadlock, (1, 64, 0), "waits at barrier 1", r#"
            if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory"); // here
        "#),
        case("async copy without wait", AsyncCopy, (1, 32, 0), "not been waited for", r#"
            __shared__ int s[32];
            unsigned at = (unsigned)__cvta_generic_to_shared(s + threadIdx.x);
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at), "l"(p + threadIdx.x) : "memory");
            asm volatile("cp.async.commit_group;" ::: "memory");
            /* wait */
            p[threadIdx.x + 32] = s[threadIdx.x]; // here
        "#).mend("/* wait */", "asm volatile(\"cp.async.wait_group 0;\" ::: \"memory\");"),
        case("async copy waits for one group too few", AsyncCopy, (1, 32, 0), "not been waited for", r#"
            __shared__ int s[64];
            for (int g = 0; g < 2; g++) {
                unsigned at = (unsigned)__cvta_generic_to_shared(s + g * 32 + threadIdx.x);
                asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at), "l"(p + threadIdx.x) : "memory");
                asm volatile("cp.async.commit_group;" ::: "memory");
            }
            asm volatile("cp.async.wait_group 1;" ::: "memory");
            p[threadIdx.x + 32] = s[threadIdx.x] + s[32 + threadIdx.x]; // here
        "#).mend("wait_group 1", "wait_group 0"),
        case("async copy waited for but not synchronised", SharedRace, (1, 64, 0), "no barrier between", r#"
            __shared__ int s[64];
            s[threadIdx.x] = 0;
            __syncthreads();
            unsigned at = (unsigned)__cvta_generic_to_shared(s + threadIdx.x);
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at), "l"(p + threadIdx.x) : "memory"); // here
            asm volatile("cp.async.wait_all;" ::: "memory");
            /* sync */
            p[threadIdx.x + 64] = s[63 - threadIdx.x]; // here
        "#).mend("/* sync */", "__syncthreads();"),
        case("next stage overwrites what is still read", SharedRace, (1, 64, 0), "no barrier between", r#"
            __shared__ int s[64];
            s[threadIdx.x] = 1;
            __syncthreads();
            int v = s[63 - threadIdx.x]; // here
            /* sync */
            unsigned at = (unsigned)__cvta_generic_to_shared(s + threadIdx.x);
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at), "l"(p + threadIdx.x) : "memory"); // here
            asm volatile("cp.async.wait_all;" ::: "memory");
            p[threadIdx.x + 64] = v;
        "#).mend("/* sync */", "__syncthreads();"),
        case("matrix load before the store is visible", SharedRace, (1, 32, 0), "no __syncwarp", r#"
            __shared__ __align__(16) int s[32];
            s[threadIdx.x] = threadIdx.x;
            /* sync */
            int r;
            unsigned at = (unsigned)__cvta_generic_to_shared(s + (threadIdx.x & 7) * 4);
            asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(at) : "memory"); // here
            p[threadIdx.x] = r;
        "#).mend("/* sync */", "__syncwarp();"),
        case("misaligned matrix row", Misaligned, (1, 32, 0), "not a multiple of 16", r#"
            __shared__ __align__(16) int s[64];
            s[threadIdx.x] = s[threadIdx.x + 32] = 0;
            __syncwarp();
            int r;
            unsigned at = (unsigned)__cvta_generic_to_shared(s + (threadIdx.x & 7) * 5);
            asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(at) : "memory"); // here
            p[threadIdx.x] = r;
        "#),
        case("tensor product by half a warp", DivergentSync, (1, 32, 0), "have left the kernel", r#"
            float c[4] = {0, 0, 0, 0};
            if (threadIdx.x < 16)
                asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%4}, {%4}, {%0,%1,%2,%3};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(0)); // here
            p[threadIdx.x] = c[0] + c[1] + c[2] + c[3];
        "#),
        case("mbarrier used before its init", Uninitialised, (1, 32, 0), "was not initialised", r#"
            __shared__ __align__(8) unsigned long long m;
            unsigned at = (unsigned)__cvta_generic_to_shared(&m);
            asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }" :: "r"(at) : "memory"); // here
        "#),
        case("mbarrier that never completes", Deadlock, (1, 32, 0), "mbarrier", r#"
            __shared__ __align__(8) unsigned long long m;
            unsigned at = (unsigned)__cvta_generic_to_shared(&m);
            if (threadIdx.x == 0) asm volatile("mbarrier.init.shared.b64 [%0], 33;" :: "r"(at) : "memory");
            __syncwarp();
            asm volatile("{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }" :: "r"(at) : "memory");
            int done = 0;
            while (!done) asm volatile("{ .reg .pred q; mbarrier.test_wait.parity.shared.b64 q, [%1], 0; selp.b32 %0, 1, 0, q; }" : "=r"(done) : "r"(at) : "memory"); // here
        "#).mend("[%0], 33", "[%0], 32"),
        case("write to constant memory", ReadOnly, (1, 1, 0), "variable \"table\"", r#"
            int* q;
            asm volatile("mov.u64 %0, %1;" : "=l"(q) : "l"(table));
            *q = n; // here
        "#),
        case("trap", Trap, (1, 32, 0), "trap", r#"
            if (threadIdx.x == 7) __trap(); // here
        "#),
        case("failed assertion", Assert, (1, 32, 0), "n == 5", r#"
            if (n != 5) __assertfail("n == 5", "kernel.cu", 1, "k", 1); // here
        "#),
    ]
}

const HEAD: &str = r#"
extern "C" __device__ void __assertfail(const char*, const char*, unsigned, const char*, size_t);
__constant__ int table[4];
extern "C" __global__ void k(int* p, int n) {
"#;

fn run(body: &str, c: &Case) -> Result<(), Box<cuda::Report>> {
    // One after the other, so that which of two blocks is caught does not depend on the host. Blocks
    // at once: `one_of_two_parallel_blocks_is_reported` in `checks/global.rs`.
    let gpu = cuda::Gpu::new(cuda::Options {
        threads: 1,
        ..Default::default()
    })
    .expect("address space for a device");
    let module = gpu
        .load(&common::compile(&format!("{HEAD}{body}\n}}\n")))
        .unwrap_or_else(|e| panic!("{}: {e}", c.name));
    let kernel = module
        .kernel("k")
        .unwrap_or_else(|e| panic!("{}: {e}", c.name));
    let p = if c.fresh {
        gpu.alloc(WORDS * 4).unwrap()
    } else {
        common::upload(&gpu, &vec![0i32; WORDS as usize])
    };
    let params = kernel
        .pack(&[&p.to_le_bytes(), &(WORDS as i32).to_le_bytes()])
        .unwrap();
    let (blocks, threads, shared) = c.shape;
    match gpu.launch(
        &kernel,
        Shape {
            shared,
            ..Shape::line(blocks, threads)
        },
        params,
    ) {
        Ok(()) => Ok(()),
        Err(LaunchError::Check(r)) => Err(r),
        Err(e) => panic!("{}: {e}", c.name),
    }
}

fn check(c: &Case) -> Result<(), String> {
    let report = match run(c.source, c) {
        Ok(()) => return Err("ran clean".to_owned()),
        Err(r) => r,
    };
    // Where two threads race, either may be the one that is caught.
    let first = HEAD.lines().count() as u32 + 1;
    let here: Vec<u32> = c
        .source
        .lines()
        .zip(first..)
        .filter(|(l, _)| l.contains("// here"))
        .map(|(_, n)| n)
        .collect();
    if report.kind != c.kind || !report.message.contains(c.words) {
        return Err(format!("another report: {report}"));
    }
    match &report.source {
        Some((file, line)) if file.ends_with("kernel.cu") && here.contains(line) => {}
        other => {
            return Err(format!(
                "line {here:?} expected, {other:?} reported: {report}"
            ));
        }
    }
    if let Some((from, to)) = c.mend {
        assert!(c.source.contains(from), "{}: nothing to mend", c.name);
        if let Err(r) = run(&c.source.replace(from, to), c) {
            return Err(format!("the mended kernel is reported: {r}"));
        }
    }
    Ok(())
}

#[test]
fn every_broken_kernel_is_caught() {
    let cases = cases();
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c.name)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

/// What looks like the kernels above, and is allowed: lanes that have exited are missed by nobody.
#[test]
fn lanes_that_have_left_may_be_missing_where_ptx_allows_it() {
    for (name, shape, source) in [
        (
            "early return before a block barrier",
            (1, 64, 0),
            r#"
            if (threadIdx.x >= n >> 10) return;
            p[threadIdx.x] = 1;
            __syncthreads();
            p[threadIdx.x + 1] = 2;
            "#,
        ),
        (
            "two early returns before a counting barrier",
            (2, 96, 0),
            r#"
            if (threadIdx.x >= 90) return;
            if (threadIdx.x % 32 == 5) return;
            p[blockIdx.x * 96 + threadIdx.x] = __syncthreads_count(1);
            "#,
        ),
        (
            "lanes that work and leave before a barrier that is not aligned",
            (1, 64, 0),
            r#"
            if (threadIdx.x % 32 < 16) {
                asm volatile("barrier.sync 0;" ::: "memory");
                p[threadIdx.x] = 2;
            } else p[threadIdx.x] = 3;
            "#,
        ),
        (
            "arms that come to one aligned barrier one after the other",
            (1, 64, 0),
            r#"
            for (int i = 0; i < threadIdx.x % 5; i++) p[threadIdx.x] += i;
            if (threadIdx.x % 2) p[threadIdx.x] = 5;
            __syncthreads();
            p[threadIdx.x] += 1;
            "#,
        ),
        (
            "a vote that names lanes which exited before it",
            (1, 32, 0),
            r#"
            asm volatile("{ .reg .pred q; setp.ge.u32 q, %0, 16; @q exit; }" :: "r"(threadIdx.x) : "memory");
            p[threadIdx.x] = __ballot_sync(~0u, 1);
            "#,
        ),
        (
            "a warp barrier after an early return",
            (1, 32, 0),
            r#"
            if (threadIdx.x >= n >> 10) return;
            p[threadIdx.x] = 1;
            __syncwarp();
            p[threadIdx.x] += 1;
            "#,
        ),
    ] {
        let c = Case {
            name,
            source,
            shape,
            kind: FaultKind::DivergentSync,
            words: "",
            fresh: false,
            mend: None,
        };
        if let Err(r) = run(source, &c) {
            panic!("{name}: {r}");
        }
    }
}

#[test]
fn a_launch_that_never_ends_is_ended() {
    let source = r#"
        extern "C" __global__ void waits(volatile int* p) {
            if (threadIdx.x == 0) while (p[0] == 0);
            __syncthreads();
            p[1] = 1;
        }
        extern "C" __global__ void locked(int* p) {
            while (atomicCAS(p, 1, 2) != 1);
            p[1] = 1;
        }
        extern "C" __global__ void loops(int* p) {
            while (true) asm volatile("");
        }"#;
    let ptx = common::compile(source);
    let run = |name: &str, limit: u64, blocks: u32, threads: u32| {
        let gpu = cuda::Gpu::new(cuda::Options {
            limit,
            ..cuda::Options::default()
        })
        .unwrap();
        let kernel = gpu.load(&ptx).unwrap().kernel(name).unwrap();
        let p = common::upload(&gpu, &[0i32; 4]);
        let shape = Shape::line(blocks, threads);
        match gpu.launch(&kernel, shape, kernel.pack(&[&p.to_le_bytes()]).unwrap()) {
            Err(LaunchError::Check(r)) => r,
            other => panic!("{name}: {other:?}"),
        }
    };
    // The value they wait for is never written: found without a limit, in one block and in several.
    for (name, blocks, threads) in [("waits", 1, 64), ("waits", 3, 64), ("locked", 2, 32)] {
        let r = run(name, u64::MAX, blocks, threads);
        assert_eq!(r.kind, FaultKind::Deadlock, "{r}");
        assert!(r.message.contains("none writes any more"), "{r}");
    }
    // A loop that reads no memory might end one day; the option ends it.
    let r = run("loops", 1_000_000, 1, 32);
    assert_eq!(r.kind, FaultKind::Limit, "{r}");
}

#[test]
fn use_after_free_names_the_allocation() {
    let gpu = common::gpu();
    let module = gpu
        .load(&common::compile(
            "extern \"C\" __global__ void k(int* p) { p[threadIdx.x] = 1; }",
        ))
        .unwrap();
    let kernel = module.kernel("k").unwrap();
    let p = gpu.alloc(128).unwrap();
    assert!(gpu.free(p));
    match gpu.launch(
        &kernel,
        Shape::line(1, 32),
        kernel.pack(&[&p.to_le_bytes()]).unwrap(),
    ) {
        Err(LaunchError::Check(r)) => {
            assert_eq!(r.kind, FaultKind::UseAfterFree);
            assert!(
                r.message
                    .contains("byte 0 of an allocation of 128 bytes, which was freed"),
                "{r}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_register_nothing_wrote_is_reported() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {\n.reg .b64 %rd<2>;\n.reg .b32 %r<4>;\n.reg .pred %q;\n\
        ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nsetp.lt.u32 %q, %r1, 20;\n@%q mov.u32 %r2, 5;\nadd.u32 %r3, %r2, 1;\nst.global.u32 [%rd1], %r3;\nret;\n}\n";
    let gpu = common::gpu();
    let kernel = gpu.load(text).unwrap().kernel("k").unwrap();
    let p = gpu.alloc(128).unwrap();
    let launch = |threads| {
        gpu.launch(
            &kernel,
            Shape::line(1, threads),
            kernel.pack(&[&p.to_le_bytes()]).unwrap(),
        )
    };
    assert!(launch(20).is_ok());
    match launch(32) {
        Err(LaunchError::Check(r)) => {
            assert_eq!(
                (r.kind, r.line, r.thread),
                (FaultKind::Uninitialised, 12, [20, 0, 0])
            );
            assert_eq!(r.instruction, "add.u32 %r3, %r2, 1;");
        }
        other => panic!("{other:?}"),
    }
}
