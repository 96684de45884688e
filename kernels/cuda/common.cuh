// Shared by all kernels: bf16 conversions (no CUDA header is needed to compile), inline PTX, and
// the swizzle of shared-memory tiles. A function that wraps an instruction is named after it.
//
// Everything here is in sm_80, so one source serves every card from A100 on.
#pragma once

typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__

// The mask of the _sync intrinsics: all 32 lanes take part.
constexpr u32 FULL_MASK = 0xffffffffu;
#define INFINITY_F __int_as_float(0x7f800000)

// bf16 to f32, exact. A bf16x2 is two bf16 in 32 bits, the lower address in the low half.
DEVICE float bf16_to_f32(bf16 v) { return __uint_as_float((u32)v << 16); }
DEVICE float bf16x2_low(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float bf16x2_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// cvt.rn.bf16x2.f32: two f32 to a bf16x2, to nearest even; `low` goes to the lower address.
DEVICE u32 cvt_bf16x2(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
DEVICE bf16 cvt_bf16(float v) { return (bf16)(cvt_bf16x2(v, 0.0f) & 0xffffu); }

// One element.
DEVICE float load(const float* p) { return *p; }
DEVICE float load(const bf16* p) { return bf16_to_f32(*p); }
DEVICE void store(float* p, float v) { *p = v; }
DEVICE void store(bf16* p, float v) { *p = cvt_bf16(v); }

// Eight consecutive elements, 16-byte aligned.
DEVICE void load8(const float* p, float (&v)[8]) {
    float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
    v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}
DEVICE void load8(const bf16* p, float (&v)[8]) {
    uint4 a = *(const uint4*)p;
    v[0] = bf16x2_low(a.x); v[1] = bf16x2_high(a.x); v[2] = bf16x2_low(a.y); v[3] = bf16x2_high(a.y);
    v[4] = bf16x2_low(a.z); v[5] = bf16x2_high(a.z); v[6] = bf16x2_low(a.w); v[7] = bf16x2_high(a.w);
}
DEVICE void store8(float* p, const float (&v)[8]) {
    ((float4*)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    ((float4*)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
DEVICE void store8(bf16* p, const float (&v)[8]) {
    u32 a = cvt_bf16x2(v[0], v[1]), b = cvt_bf16x2(v[2], v[3]);
    *(uint4*)p = make_uint4(a, b, cvt_bf16x2(v[4], v[5]), cvt_bf16x2(v[6], v[7]));
}

// Two consecutive elements, aligned to both.
DEVICE void store2(float* p, float a, float b) { *(float2*)p = make_float2(a, b); }
DEVICE void store2(bf16* p, float a, float b) { *(u32*)p = cvt_bf16x2(a, b); }
DEVICE float2 load2(const float* p) { return *(const float2*)p; }
DEVICE float2 load2(const bf16* p) {
    u32 v = *(const u32*)p;
    return make_float2(bf16x2_low(v), bf16x2_high(v));
}

// The functions that gated layers apply to their gates; NO_ACTIVATION: the layer is not gated.
enum Activation { NO_ACTIVATION, SILU, GELU_TANH };
DEVICE float silu(float x) { return x / (1.0f + __expf(-x)); }
// x / 2 (1 + tanh(y / 2)) with y = 2 sqrt(2 / pi) (x + 0.044715 x^3), in one exponential.
DEVICE float gelu_tanh(float x) { return x / (1.0f + __expf(-x * (1.59576917f + 0.0713548139f * x * x))); }
template <Activation A> DEVICE float activation(float x) {
    static_assert(A != NO_ACTIVATION, "a gate has an activation");
    return A == SILU ? silu(x) : gelu_tanh(x);
}

// ex2.approx.ftz: 2^x, within 2 ulp; ex2(-infinity) = 0.
DEVICE float ex2_approx(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// mad.wide.u32: a * B + c in 64 bits, one instruction.
template <u32 B> DEVICE const u8* mad_wide_u32(u32 a, const u8* c) {
    const u8* r;
    asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(r) : "r"(a), "n"(B), "l"(c));
    return r;
}

// Butterflies of shfl.sync.bfly: every lane of the warp gets the result, the order of adding is
// fixed.
DEVICE float warp_sum(float v) {
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(FULL_MASK, v, d);
    return v;
}
DEVICE float warp_max(float v) {
    for (int d = 16; d; d >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL_MASK, v, d));
    return v;
}

// Pins a loop-invariant value to a register: without it the compiler computes the value again in
// every round.
DEVICE u32 keep_in_register(u32 v) {
    asm volatile("" : "+r"(v));
    return v;
}

// The address of `p` in the .shared state space, for the instructions below.
DEVICE u32 cvta_to_shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// st.shared.v2.f32 and ld.shared.v2.f32. A float2 access may be compiled to two instructions, which
// then meet in banks where one would not.
DEVICE void st_shared_v2(u32 addr, float a, float b) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(addr), "f"(a), "f"(b) : "memory");
}
DEVICE void st_shared_v2(float* p, float a, float b) { st_shared_v2(cvta_to_shared(p), a, b); }
DEVICE float2 ld_shared_v2(const float* p) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(cvta_to_shared(p)) : "memory");
    return v;
}

// cp.async.cg: an asynchronous copy of 16 bytes from global to shared memory, both 16-byte aligned,
// past L1.
DEVICE void cp_async_16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// The same, but only `bytes` bytes (0 to 16) are read; the others become zeros.
DEVICE void cp_async_16_zfill(u32 to, const void* from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}
// cp.async.commit_group: this thread's copies since the last commit form a group.
DEVICE void cp_async_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// cp.async.wait_group N: waits until at most the N newest of this thread's groups are pending. A
// barrier must follow before other threads read what was copied.
template <int N> DEVICE void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ldmatrix.x4: four 8x8 matrices of 16-bit elements from shared memory. Lane l gives the address of
// row l % 8 of matrix l / 8, and receives elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of
// each.
DEVICE void ldmatrix_x4(u32 (&r)[4], u32 addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr) : "memory");
}
// ldmatrix.x4.trans: the same, each matrix transposed.
DEVICE void ldmatrix_x4_trans(u32 (&r)[4], u32 addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr) : "memory");
}

// mma.m16n8k16: c[16, 8] += a[16, 16] b[16, 8], bf16 inputs, f32 sums. Lane l holds c at rows l / 4
// (c[0], c[1]) and l / 4 + 8 (c[2], c[3]), columns 2 (l % 4) and 2 (l % 4) + 1.
DEVICE void mma_m16n8k16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The swizzle: the byte offset of 16-byte chunk `chunk` of row `row` in a tile [rows][CHUNKS
// chunks], CHUNKS even. Chunks are permuted within their row so that the eight rows of an 8x8
// matrix fall into different banks: rows repeat their banks every 8 / G rows, G the largest power
// of two (up to 8) that divides CHUNKS, so groups of G chunks are permuted.
template <int CHUNKS> constexpr u32 SWIZZLE_GROUP = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;
template <int CHUNKS> DEVICE u32 swizzle(u32 row, u32 chunk) {
    constexpr u32 G = SWIZZLE_GROUP<CHUNKS>;
    return (row * CHUNKS + (chunk ^ (row / (8 / G) % G))) * 16;
}

// From the address of a chunk to that `rows` rows (a multiple of 8) and `chunks` chunks (an even
// number) further on; the first chunk's index must have none of the bits of `chunks`. The part that
// is not a constant, an exclusive or, has few values, so a loop over chunks adds one constant for
// each.
template <int CHUNKS> DEVICE u32 swizzle_advance(u32 addr, u32 rows, u32 chunks) {
    constexpr u32 G = SWIZZLE_GROUP<CHUNKS>;
    return (addr ^ chunks % G * 16) + (rows * CHUNKS + chunks / G * G) * 16;
}

// The byte offset that a lane gives to ldmatrix for a 16 x 16 operand of mma_m16n8k16 whose first
// row and chunk are `row` and `chunk`.
//   swizzle_a: operand a, ldmatrix_x4; or operand b stored [k][n], ldmatrix_x4_trans.
//   swizzle_b: two operands b side by side, stored [n][k], ldmatrix_x4: r[0], r[1] are the first
//   eight columns', r[2], r[3] the next eight's.
template <int CHUNKS> DEVICE u32 swizzle_a(u32 lane, u32 row, u32 chunk) {
    return swizzle<CHUNKS>(row + lane % 16, chunk + lane / 16);
}
template <int CHUNKS> DEVICE u32 swizzle_b(u32 lane, u32 row, u32 chunk) {
    return swizzle<CHUNKS>(row + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2);
}
