// Products: out[r, n] = sum_k x[r, k] w[n, k] (+ bias[n]) (+ out[r, n]), x and w bf16, sums f32.
//
// Tiling.
//   skinny (1 to 64 rows, decode): a thread block of four warps owns 8 NT output features and all
//   rows (16 MT of them). W is streamed once, 128 columns a stage, by multi-stage cp.async; of each
//   stage every warp multiplies its own 32 columns (split K inside the block), and the four sums are
//   added at the end through shared memory. Bound by W's bytes.
//   tiled (more rows): BM x BN outputs per block of eight warps (2 x 4), 32 columns a stage, four
//   stages. Blocks run down the rows first, so that a tile of W is read from DRAM once and from L2
//   by the others.
// Layout: x and out row-major with a pitch; w row-major [n][w_pitch], the pitch a multiple of 64 and
// its surplus zeros. Shared tiles are [row][columns] with 16-byte chunks exchanged (`place`), so that
// neither ldmatrix nor the copies meet a bank twice. What lies beyond k in x is never read: a
// copy is told how many bytes count, and fills up with zeros; likewise rows beyond the last.
// Numerics: mma.sync m16n8k16, bf16 products exact, f32 accumulation. An output is a fixed order of
// sums within one variant (skinny or tiled), whatever the other rows hold; skinny and tiled differ in
// their order. Bias and the old output are added in f32, then one rounding if the output is bf16.
// Budget: bytes 2 n k (W) + rows (2 k ceil(n / tile) from L2 + e n (2 e n if it adds)), 2 rows n k
// FLOPs. Skinny issues 16 ceil(rows / 16) / rows of the useful products; tensor cores idle there.
#include "common.cuh"

template <class To>
DEVICE void finish(To* out, u32 pitch, const float* bias, bool accumulate, u32 row, u32 col, u32 n, float a, float b) {
    if (col >= n) return;
    if (bias) {
        float2 v = load2(bias + col);
        a += v.x;
        b += v.y;
    }
    To* at = out + (u64)row * pitch + col;
    if (accumulate) {
        float2 v = load2(at);
        a += v.x;
        b += v.y;
    }
    store2(at, a, b);
}

template <int MT, int NT, int STAGES, class To>
DEVICE void skinny(const bf16* x, u32 x_pitch, const bf16* w, u32 w_pitch, const float* bias, To* out, u32 pitch, u32 rows, u32 n, u32 k, u32 accumulate) {
    constexpr int WARPS = 4, THREADS = 128, BK = 128, CHUNKS = BK / 8;
    constexpr int BM = 16 * MT, BN = 8 * NT, STAGE = (BM + BN) * BK * 2, REDUCE = BN + 8;
    static_assert(WARPS * BM * REDUCE * 4 <= STAGES * STAGE, "the sums lie where the stages were");
    extern __shared__ __align__(128) u8 shared[];
    u32 base = shared_address(shared);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 first = blockIdx.x * BN, stages = (k + BK - 1) / BK;

    auto fetch = [&](u32 stage) {
        if (stage < stages) {
            u32 at = base + stage % STAGES * STAGE;
            for (u32 i = threadIdx.x; i < (BM + BN) * CHUNKS; i += THREADS) {
                u32 row = i / CHUNKS, chunk = i % CHUNKS, col = stage * BK + chunk * 8;
                const bf16* from;
                u32 bytes = 0;
                if (row < BN) {
                    from = w + (u64)(first + row) * w_pitch + col;
                    if (first + row < n && col < w_pitch) bytes = 16;
                } else {
                    from = x + (u64)(row - BN) * x_pitch + col;
                    if (row - BN < rows && col < k) bytes = min(k - col, 8u) * 2;
                }
                copy16(at + place<CHUNKS>(row, chunk), bytes ? from : w, bytes);
            }
        }
        commit();
    };

    float sum[MT][NT][4] = {};
    for (u32 s = 0; s < STAGES - 1; s++) fetch(s);
    for (u32 s = 0; s < stages; s++) {
        wait<STAGES - 2>();
        __syncthreads();
        fetch(s + STAGES - 1);
        u32 at = base + s % STAGES * STAGE, x_at = BN;
#pragma unroll
        for (u32 step = 0; step < 2; step++) {
            u32 chunk = warp * 4 + step * 2;
            if (s * BK + chunk * 8 >= k) break;
            u32 b[NT / 2][4];
            for (int j = 0; j < NT / 2; j++)
                matrices(b[j], at + place<CHUNKS>(j * 16 + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2));
            for (int i = 0; i < MT; i++) {
                u32 a[4];
                matrices(a, at + place<CHUNKS>(x_at + i * 16 + lane % 16, chunk + lane / 16));
                for (int j = 0; j < NT; j++) multiply(sum[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
    wait<0>();
    __syncthreads();
    float* sums = (float*)shared;
    for (int i = 0; i < MT; i++)
        for (int j = 0; j < NT; j++)
            for (int h = 0; h < 2; h++)
                store2_shared(sums + (warp * BM + i * 16 + lane / 4 + h * 8) * REDUCE + j * 8 + lane % 4 * 2, sum[i][j][h * 2], sum[i][j][h * 2 + 1]);
    __syncthreads();
    for (u32 i = threadIdx.x; i < BM * BN / 2; i += THREADS) {
        u32 row = i / (BN / 2), col = i % (BN / 2) * 2;
        // Rows 0, 2, 1, 3, ...: two rows that a half warp reads together fall into different banks.
        row = (row & ~3u) | (row & 1) << 1 | (row >> 1 & 1);
        if (row >= rows) continue;
        float a = 0, b = 0;
        for (int v = 0; v < WARPS; v++) {
            float2 part = load2(sums + (v * BM + row) * REDUCE + col);
            a += part.x;
            b += part.y;
        }
        finish(out, pitch, bias, accumulate, row, first + col, n, a, b);
    }
}

template <int BM, int BN, class To>
DEVICE void tiled(const bf16* x, u32 x_pitch, const bf16* w, u32 w_pitch, const float* bias, To* out, u32 pitch, u32 rows, u32 n, u32 k, u32 accumulate) {
    constexpr int THREADS = 256, STAGES = 4, BK = 32, CHUNKS = BK / 8, STAGE = (BM + BN) * BK * 2;
    constexpr int MT = BM / 2 / 16, NT = BN / 4 / 8;
    extern __shared__ __align__(128) u8 shared[];
    u32 base = shared_address(shared);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 first_row = blockIdx.x * BM, first = blockIdx.y * BN, stages = (k + BK - 1) / BK;
    u32 warp_row = warp / 4 * (BM / 2), warp_col = warp % 4 * (BN / 4);

    auto fetch = [&](u32 stage) {
        if (stage < stages) {
            u32 at = base + stage % STAGES * STAGE;
#pragma unroll
            for (u32 i = threadIdx.x; i < (BM + BN) * CHUNKS; i += THREADS) {
                u32 row = i / CHUNKS, chunk = i % CHUNKS, col = stage * BK + chunk * 8;
                const bf16* from;
                u32 bytes = 0;
                if (row < BN) {
                    from = w + (u64)(first + row) * w_pitch + col;
                    if (first + row < n && col < w_pitch) bytes = 16;
                } else {
                    from = x + (u64)(first_row + row - BN) * x_pitch + col;
                    if (first_row + row - BN < rows && col < k) bytes = min(k - col, 8u) * 2;
                }
                copy16(at + place<CHUNKS>(row, chunk), bytes ? from : w, bytes);
            }
        }
        commit();
    };

    float sum[MT][NT][4] = {};
    for (u32 s = 0; s < STAGES - 1; s++) fetch(s);
    for (u32 s = 0; s < stages; s++) {
        wait<STAGES - 2>();
        __syncthreads();
        fetch(s + STAGES - 1);
        u32 at = base + s % STAGES * STAGE;
#pragma unroll
        for (u32 step = 0; step < 2; step++) {
            u32 b[NT / 2][4];
            for (int j = 0; j < NT / 2; j++)
                matrices(b[j], at + place<CHUNKS>(warp_col + j * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
            for (int i = 0; i < MT; i++) {
                u32 a[4];
                matrices(a, at + place<CHUNKS>(BN + warp_row + i * 16 + lane % 16, step * 2 + lane / 16));
                for (int j = 0; j < NT; j++) multiply(sum[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
    wait<0>();
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            u32 row = first_row + warp_row + i * 16 + lane / 4 + h * 8;
            if (row >= rows) continue;
#pragma unroll
            for (int j = 0; j < NT; j++)
                finish(out, pitch, bias, accumulate, row, first + warp_col + j * 8 + lane % 4 * 2, n, sum[i][j][h * 2], sum[i][j][h * 2 + 1]);
        }
}

#define ARGUMENTS(To)                                                                                     \
    const bf16 *x, u32 x_pitch, const bf16 *w, u32 w_pitch, const float *bias, To *out, u32 pitch,        \
        u32 rows, u32 n, u32 k, u32 accumulate
#define PASS x, x_pitch, w, w_pitch, bias, out, pitch, rows, n, k, accumulate

#define SKINNY(mt, nt, stages)                                                                            \
    extern "C" __global__ void __launch_bounds__(128) skinny_##mt##_##nt##_f32(ARGUMENTS(float)) {        \
        skinny<mt, nt, stages>(PASS);                                                                     \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(128) skinny_##mt##_##nt##_bf16(ARGUMENTS(bf16)) {        \
        skinny<mt, nt, stages>(PASS);                                                                     \
    }
SKINNY(1, 2, 4)
SKINNY(1, 4, 4)
SKINNY(2, 4, 4)
SKINNY(4, 4, 3)

#define TILED(bm, bn, resident)                                                                           \
    extern "C" __global__ void __launch_bounds__(256, resident) tiled_##bm##_##bn##_f32(ARGUMENTS(float)) { \
        tiled<bm, bn>(PASS);                                                                              \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(256, resident) tiled_##bm##_##bn##_bf16(ARGUMENTS(bf16)) { \
        tiled<bm, bn>(PASS);                                                                              \
    }
TILED(64, 64, 2)
TILED(128, 128, 2)
