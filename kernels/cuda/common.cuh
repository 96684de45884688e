// What the kernels share: bf16 by hand (no CUDA header is needed to compile), asynchronous copies,
// matrix fragments, the swizzle of shared-memory tiles.
//
// Everything here is of the sm_80 class, so one source serves every card from A100 on.
#pragma once

typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__

constexpr u32 ALL = 0xffffffffu;
#define INFINITY_F __int_as_float(0x7f800000)

DEVICE float widen(bf16 v) { return __uint_as_float((u32)v << 16); }
DEVICE float widen_low(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float widen_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rounds to nearest, ties to even; `low` goes to the lower address.
DEVICE u32 pack(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
DEVICE bf16 narrow(float v) { return (bf16)(pack(v, 0.0f) & 0xffffu); }

DEVICE float load(const float* p) { return *p; }
DEVICE float load(const bf16* p) { return widen(*p); }
DEVICE void store(float* p, float v) { *p = v; }
DEVICE void store(bf16* p, float v) { *p = narrow(v); }

// Eight consecutive elements, 16-byte aligned.
DEVICE void load8(const float* p, float (&v)[8]) {
    float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
    v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}
DEVICE void load8(const bf16* p, float (&v)[8]) {
    uint4 a = *(const uint4*)p;
    v[0] = widen_low(a.x); v[1] = widen_high(a.x); v[2] = widen_low(a.y); v[3] = widen_high(a.y);
    v[4] = widen_low(a.z); v[5] = widen_high(a.z); v[6] = widen_low(a.w); v[7] = widen_high(a.w);
}
DEVICE void store8(float* p, const float (&v)[8]) {
    ((float4*)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    ((float4*)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
DEVICE void store8(bf16* p, const float (&v)[8]) {
    *(uint4*)p = make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
}

// Two consecutive elements.
DEVICE void store2(float* p, float a, float b) { *(float2*)p = make_float2(a, b); }
DEVICE void store2(bf16* p, float a, float b) { *(u32*)p = pack(a, b); }
DEVICE float2 load2(const float* p) { return *(const float2*)p; }
DEVICE float2 load2(const bf16* p) {
    u32 v = *(const u32*)p;
    return make_float2(widen_low(v), widen_high(v));
}

// To and from shared memory in one instruction: the compiler may make two of a float2, which then meet in
// banks where one would not.
DEVICE void store2_shared(u32 at, float a, float b) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(a), "f"(b) : "memory");
}
DEVICE void store2_shared(float* p, float a, float b) { store2_shared((u32)__cvta_generic_to_shared(p), a, b); }

DEVICE float2 load2_shared(const float* p) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"((u32)__cvta_generic_to_shared(p)) : "memory");
    return v;
}

// The functions that gated layers apply to their gates; NO_ACTIVATION is that of other products.
enum Activation { NO_ACTIVATION, SILU, GELU_TANH };
DEVICE float silu(float x) { return x / (1.0f + __expf(-x)); }
// x / 2 (1 + tanh(y / 2)) with y = 2 sqrt(2 / pi) (x + 0.044715 x^3), in one exponential.
DEVICE float gelu_tanh(float x) { return x / (1.0f + __expf(-x * (1.59576917f + 0.0713548139f * x * x))); }
template <Activation A> DEVICE float activation(float x) {
    static_assert(A != NO_ACTIVATION, "a gate has an activation");
    return A == SILU ? silu(x) : gelu_tanh(x);
}

DEVICE float warp_sum(float v) {
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(ALL, v, d);
    return v;
}

// The same value, worth a register: the compiler would rather work it out again in every round of a loop.
DEVICE u32 kept(u32 v) {
    asm volatile("" : "+r"(v));
    return v;
}

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
// Asynchronous copies of 16 bytes; of which `bytes` are read and the rest become zeros.
DEVICE void copy16(u32 to, const void* from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}
DEVICE void copy16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> DEVICE void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane i gives row i % 8 of matrix i / 8.
DEVICE void matrices(u32 (&r)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
DEVICE void matrices_transposed(u32 (&r)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// c[16, 8] += a[16, 16] b[16, 8]. Lane l holds c at rows l / 4 and l / 4 + 8, columns 2 (l % 4) on.
DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The place of 16-byte chunk `chunk` of row `row` in a tile whose rows have `CHUNKS` chunks (an even
// number), in bytes. Chunks change places within their row so that the eight rows of an 8x8 matrix
// fall into different banks: rows repeat their banks every 8 / G rows, G the largest power of two
// (up to 8) that divides CHUNKS, so as many chunks are exchanged.
template <int CHUNKS> constexpr u32 EXCHANGED = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;
template <int CHUNKS> DEVICE u32 place(u32 row, u32 chunk) {
    constexpr u32 G = EXCHANGED<CHUNKS>;
    return (row * CHUNKS + (chunk ^ (row / (8 / G) % G))) * 16;
}

// The place `more` chunks (an even number) and `rows` rows (a multiple of 8) on, from that of a chunk whose index
// has none of the bits of `more`. What is no constant, an exclusive or, has few values, so that a loop over chunks
// adds one constant for each.
template <int CHUNKS> DEVICE u32 place_on(u32 at, u32 rows, u32 more) {
    constexpr u32 G = EXCHANGED<CHUNKS>;
    return (at ^ more % G * 16) + (rows * CHUNKS + more / G * G) * 16;
}

// Where a lane's row and chunk of a 16 x 16 operand of `multiply` lie, for `matrices`: of the left one, and (for
// `matrices_transposed`) of a right one whose rows are the sum's; and of a right one whose rows are output columns.
template <int CHUNKS> DEVICE u32 place_left(u32 lane, u32 row, u32 chunk) {
    return place<CHUNKS>(row + lane % 16, chunk + lane / 16);
}
template <int CHUNKS> DEVICE u32 place_right(u32 lane, u32 row, u32 chunk) {
    return place<CHUNKS>(row + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2);
}
