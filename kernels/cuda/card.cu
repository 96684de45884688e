// What a card reaches, for studies: no operation of a model uses these kernels.
//
// read: blocks read `count` 16-byte chunks in turn, `rounds` times over; a thread keeps UNROLL chunks
// in flight. Budget: 16 bytes a chunk and round, nothing written. A buffer larger than L2 gives the
// DRAM's bandwidth, one that fits in it, read in many rounds, that of L2.
// empty: nothing. The time from one to the next in a graph is what a launch costs there.
// place: every block writes the number of its multiprocessor. It stays for SPIN dependent
// multiply-adds, so that blocks of one wave are there at the same time.
//
// Constants from the host (`cuda/catalog.rs`): THREADS.
#include "common.cuh"

constexpr u32 UNROLL = 8, SPIN = 20000;

// ld.global.cg: 16 bytes from L2, past L1, which would serve every round but the first.
DEVICE uint4 ld_global_cg(const uint4* p) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) read(const uint4* from, u64 count, u32 rounds, u32* out) {
    u64 stride = (u64)gridDim.x * THREADS;
    u32 sum = 0;
    for (u32 round = 0; round < rounds; round++)
        for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count; i += stride * UNROLL) {
            uint4 chunk[UNROLL];
#pragma unroll
            for (u32 j = 0; j < UNROLL; j++) {
                u64 at = i + j * stride;
                chunk[j] = at < count ? ld_global_cg(from + at) : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (u32 j = 0; j < UNROLL; j++) sum ^= chunk[j].x ^ chunk[j].y ^ chunk[j].z ^ chunk[j].w;
        }
    // Never true of the buffers that the host fills; the compiler cannot know, and keeps the loads.
    if (sum == 0xdeadbeef) *out = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 8) empty() {}

extern "C" __global__ void __launch_bounds__(THREADS, 8) place(u32* multiprocessors, float factor) {
    u32 smid;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(smid));
    float x = 1.0f;
    for (u32 i = 0; i < SPIN; i++) x = __fmaf_rn(x, factor, 0.5f);
    if (threadIdx.x == 0) multiprocessors[blockIdx.x] = x == 0.0f ? ~0u : smid;
}
