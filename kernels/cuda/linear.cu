// Linear layers: p[r, n] = sum_k x[r, k] w[n, k] (+ bias[n]), x and w bf16, sums f32; out = p or
// out += p; or gated, with w and bias of 2 n rows: out[r, c] = a(p[r, c]) p[r, n + c] with the
// activation a. One compilation has the kernels without a gate; one for each activation (constant
// ACTIVATION) has the gated kernels.
//
// Tiling.
//   skinny (1 to 64 rows, decode): a thread block of four warps owns 8 NT rows of W and all rows of
//   x (16 MT of them). W is streamed once, 128 columns a stage, by multi-stage cp.async; of each
//   stage every warp multiplies its own 32 columns (split K inside the block), and the four sums
//   are added at the end through shared memory. Memory-bound by W.
//   tiled (more rows): BM x BN sums per block of eight warps (2 x 4), 32 columns a stage, four
//   stages. Blocks run down the rows first, so that a tile of W is read from DRAM once and from L2
//   by the others.
//   gated: a tile's rows of W are by turns eight gates and the eight ups that belong to them, so
//   both sums of an output lie in one block, and in one thread where sums stay in registers.
//
// Layout: x and out row-major with a pitch; w row-major [n][w_pitch], the pitch a multiple of 64
// and its surplus zeros. Shared tiles are [row][columns], W's rows above x's, swizzled in 16-byte
// chunks, so that neither ldmatrix nor cp.async has bank conflicts. Columns of x beyond k and rows
// beyond the last are never read: cp.async fills them with zeros.
//
// Numerics: mma.m16n8k16, bf16 inputs, f32 accumulation. The order of sums of an output is fixed
// within one variant (skinny or tiled), whatever the other rows hold; skinny and tiled differ in
// their order. Bias, the old output and the gate are applied in f32, then one rounding if the
// output is bf16: gate and up are never rounded.
//
// Budget: bytes 2 n k (W) + rows (2 k ceil(n / tile) from L2 + e n (2 e n if it adds)), 2 rows n k
// FLOPs; gated, 4 n k + rows (2 k ceil(2 n / tile) + 2 n) against 8 rows n more where the sums are
// written, read and written again. Skinny issues 16 ceil(rows / 16) / rows times the useful mma;
// tensor cores idle there.
//
// Constants from the host (`cuda/catalog.rs`): SKINNY_THREADS, SKINNY_STAGE_COLS, TILED_THREADS,
// TILED_STAGE_COLS, TILED_STAGES; SKINNY_TILES and TILED_TILES, the instances.
#include "common.cuh"

#ifdef ACTIVATION
constexpr Activation GATE = ACTIVATION;
#else
constexpr Activation GATE = NO_ACTIVATION;
#endif

struct Operands {
    const bf16* x;
    const bf16* w;
    u32 x_pitch, w_pitch;
    u32 rows, n, k;  // n: columns of the output
};

// The row of W that is row `row` of a tile whose first output column is `first`; none at or beyond
// `end`.
template <bool GATED> DEVICE u32 weight_row(u32 first, u32 row, u32 n, u32& end) {
    u32 col = GATED ? first + row / 16 * 8 + row % 8 : first + row;
    bool up = GATED && row / 8 % 2;
    end = up ? 2 * n : n;
    return up ? n + col : col;
}

// The cp.async copies of a thread: a stage is BN rows of W, then BM rows of x from `first_row` on,
// of CHUNKS 16-byte chunks each. A thread keeps its chunk, and its rows are a constant distance
// apart, so a copy of a whole stage takes one addition and the copy itself.
template <int BM, int BN, int CHUNKS, int THREADS, bool GATED> struct Copies {
    static constexpr u32 ROUND = THREADS / CHUNKS, COUNT = (BM + BN) / ROUND;
    static_assert(BN % ROUND == 0 && BM % ROUND == 0 && ROUND % 8 == 0, "every copy is of W or of x for all threads");
    const bf16* from[COUNT];  // of the next stage
    u32 bytes[COUNT];         // 16, or 0 for a row that does not exist
    u32 stage_offset;         // of the first copy

    DEVICE Copies(const Operands& p, u32 first_row, u32 first) {
        u32 row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        stage_offset = keep_in_register(swizzle<CHUNKS>(row, chunk));
#pragma unroll
        for (u32 c = 0; c < COUNT; c++) {
            bool is_w = c * ROUND < BN;
            u32 end = p.rows, from_row = first_row + row + c * ROUND - BN;
            if (is_w) from_row = weight_row<GATED>(first, row + c * ROUND, p.n, end);
            bool exists = from_row < end;
            const bf16* matrix = is_w ? p.w : p.x;
            from[c] = exists ? matrix + (u64)from_row * (is_w ? p.w_pitch : p.x_pitch) + chunk * 8 : p.w;
            bytes[c] = keep_in_register(exists ? 16 : 0);
        }
    }

    // Starts the copies of the next stage, whose first column is `first_col`, to shared address
    // `to`.
    DEVICE void start(const Operands& p, u32 to, u32 first_col) {
        to += stage_offset;
        if (first_col + CHUNKS * 8 <= p.k) {
#pragma unroll
            for (u32 c = 0; c < COUNT; c++) {
                cp_async_16_zfill(to + c * ROUND * CHUNKS * 16, from[c], bytes[c]);
                from[c] += CHUNKS * 8;
            }
        } else {
            // The last stage: columns beyond W's pitch or x's columns become zeros.
            u32 col = first_col + threadIdx.x % CHUNKS * 8;
            u32 x_bytes = col < p.k ? min(p.k - col, 8u) * 2 : 0, w_bytes = col < p.w_pitch ? 16 : 0;
#pragma unroll
            for (u32 c = 0; c < COUNT; c++) {
                u32 count = min(bytes[c], c * ROUND < BN ? w_bytes : x_bytes);
                cp_async_16_zfill(to + c * ROUND * CHUNKS * 16, count ? from[c] : p.w, count);
            }
        }
    }
};

// sum += x w^T over 16 columns of a stage, from chunk `chunk` on, for MT x NT tiles of 16 x 8;
// `w_addr` and `x_addr` are the lane's ldmatrix addresses at chunk 0.
template <int MT, int NT, int CHUNKS> DEVICE void mma_tile(float (&sum)[MT][NT][4], u32 w_addr, u32 x_addr, u32 chunk) {
    u32 b[NT / 2][4];
#pragma unroll
    for (int j = 0; j < NT / 2; j++) ldmatrix_x4(b[j], swizzle_advance<CHUNKS>(w_addr, j * 16, chunk));
#pragma unroll
    for (int i = 0; i < MT; i++) {
        u32 a[4];
        ldmatrix_x4(a, swizzle_advance<CHUNKS>(x_addr, i * 16, chunk));
#pragma unroll
        for (int j = 0; j < NT; j++) mma_m16n8k16(sum[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
}

// The pipeline over K: calls `compute` for each stage, with STAGES - 1 stages in flight by
// `produce`. At the end none is, for this thread.
template <int STAGES, class Produce, class Compute> DEVICE void pipeline(u32 stages, Produce produce, Compute compute) {
    for (u32 s = 0; s < STAGES - 1; s++) {
        if (s < stages) produce(s);
        cp_async_commit_group();
    }
    for (u32 s = 0; s < stages; s++) {
        cp_async_wait_group<STAGES - 2>();
        // Hazards: reading what other threads copied of this stage (each has waited for its own
        // copies); overwriting the stage before, which slower warps were reading.
        __syncthreads();
        if (s + STAGES - 1 < stages) produce(s + STAGES - 1);
        cp_async_commit_group();
        compute(s);
    }
    cp_async_wait_group<0>();
}

// Writes two neighbouring sums of an output that is not gated.
template <class To>
DEVICE void finish(To* out, u32 pitch, const float* bias, bool accumulate, u32 row, u32 col, u32 n, float2 v) {
    if (col >= n) return;
    if (bias) {
        float2 b = load2(bias + col);
        v.x += b.x;
        v.y += b.y;
    }
    To* to = out + (u64)row * pitch + col;
    if (accumulate) {
        float2 old = load2(to);
        v.x += old.x;
        v.y += old.y;
    }
    store2(to, v.x, v.y);
}

// Writes two neighbouring outputs of a gated layer. The ups' bias may begin at an odd place.
template <Activation A>
DEVICE void finish_gated(bf16* out, u32 pitch, const float* bias, u32 row, u32 col, u32 n, float2 gate, float2 up) {
    if (col >= n) return;
    if (bias) {
        float2 b = load2(bias + col);
        gate.x += b.x;
        gate.y += b.y;
        up.x += bias[n + col];
        if (col + 1 < n) up.y += bias[n + col + 1];
    }
    store2(out + (u64)row * pitch + col, activation<A>(gate.x) * up.x, activation<A>(gate.y) * up.y);
}

template <int MT, int NT, int STAGES, bool GATED, class To>
DEVICE void skinny(const Operands& p, const float* bias, To* out, u32 pitch, u32 accumulate) {
    constexpr int THREADS = SKINNY_THREADS, WARPS = THREADS / 32, BK = SKINNY_STAGE_COLS, CHUNKS = BK / 8;
    constexpr int BM = 16 * MT, BN = 8 * NT, STAGE = (BM + BN) * BK * 2, REDUCE = BN + 8;
    constexpr int COLS = GATED ? BN / 2 : BN, PAIRS = COLS / 2;
    static_assert(WARPS * BM * REDUCE * 4 <= STAGES * STAGE, "the sums lie where the stages were");
    extern __shared__ __align__(128) u8 shared[];
    u32 base = cvta_to_shared(shared);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 first = blockIdx.x * COLS;

    float sum[MT][NT][4] = {};
    Copies<BM, BN, CHUNKS, THREADS, GATED> copies(p, 0, first);
    u32 w_offset = keep_in_register(swizzle_b<CHUNKS>(lane, 0, warp * 4)), x_offset = keep_in_register(swizzle_a<CHUNKS>(lane, BN, warp * 4));
    pipeline<STAGES>(
        (p.k + BK - 1) / BK, [&](u32 s) { copies.start(p, base + s % STAGES * STAGE, s * BK); },
        [&](u32 s) {
            u32 stage = base + s % STAGES * STAGE;
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                if (s * BK + warp * 32 + half * 16 >= p.k) break;
                mma_tile<MT, NT, CHUNKS>(sum, stage + w_offset, stage + x_offset, half * 2);
            }
        });
    // Hazard: the sums overwrite stages that slower warps still read.
    __syncthreads();
    float* sums = (float*)shared;  // [warp][BM][REDUCE]
    for (int i = 0; i < MT; i++)
        for (int j = 0; j < NT; j++)
            for (int h = 0; h < 2; h++)
                st_shared_v2(sums + (warp * BM + i * 16 + lane / 4 + h * 8) * REDUCE + j * 8 + lane % 4 * 2, sum[i][j][h * 2], sum[i][j][h * 2 + 1]);
    // Hazard: reading the sums of other warps.
    __syncthreads();
    for (u32 i = threadIdx.x; i < BM * PAIRS; i += THREADS) {
        u32 row = i / PAIRS, col = i % PAIRS * 2;
        // Rows 0, 2, 1, 3, ...: the two rows that a half warp reads together fall into different
        // banks.
        if (PAIRS == 8 && REDUCE == 24) row = (row & ~3u) | (row & 1) << 1 | (row >> 1 & 1);
        if (row >= p.rows) continue;
        auto added = [&](u32 tile_col) {
            float2 v = make_float2(0, 0);
            for (int w = 0; w < WARPS; w++) {
                float2 part = ld_shared_v2(sums + (w * BM + row) * REDUCE + tile_col);
                v.x += part.x;
                v.y += part.y;
            }
            return v;
        };
        if constexpr (GATED) {
            u32 gate = col / 8 * 16 + col % 8;
            finish_gated<GATE>(out, pitch, bias, row, first + col, p.n, added(gate), added(gate + 8));
        } else {
            finish(out, pitch, bias, accumulate, row, first + col, p.n, added(col));
        }
    }
}

template <int BM, int BN, bool GATED, class To>
DEVICE void tiled(const Operands& p, const float* bias, To* out, u32 pitch, u32 accumulate) {
    constexpr int THREADS = TILED_THREADS, STAGES = TILED_STAGES, BK = TILED_STAGE_COLS, CHUNKS = BK / 8;
    constexpr int STAGE = (BM + BN) * BK * 2;
    constexpr int MT = BM / 2 / 16, NT = BN / 4 / 8;
    extern __shared__ __align__(128) u8 shared[];
    u32 base = cvta_to_shared(shared);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 first_row = blockIdx.x * BM, first = blockIdx.y * (GATED ? BN / 2 : BN);
    u32 warp_row = warp / 4 * (BM / 2), warp_col = warp % 4 * (BN / 4);

    float sum[MT][NT][4] = {};
    Copies<BM, BN, CHUNKS, THREADS, GATED> copies(p, first_row, first);
    u32 w_offset = keep_in_register(swizzle_b<CHUNKS>(lane, warp_col, 0)), x_offset = keep_in_register(swizzle_a<CHUNKS>(lane, BN + warp_row, 0));
    pipeline<STAGES>(
        (p.k + BK - 1) / BK, [&](u32 s) { copies.start(p, base + s % STAGES * STAGE, s * BK); },
        [&](u32 s) {
            u32 stage = base + s % STAGES * STAGE;
#pragma unroll
            for (u32 half = 0; half < 2; half++) mma_tile<MT, NT, CHUNKS>(sum, stage + w_offset, stage + x_offset, half * 2);
        });
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            u32 row = first_row + warp_row + i * 16 + lane / 4 + h * 8;
            if (row >= p.rows) continue;
            auto pair = [&](int j) { return make_float2(sum[i][j][h * 2], sum[i][j][h * 2 + 1]); };
#pragma unroll
            for (int j = 0; j < NT; j += GATED ? 2 : 1) {
                u32 col = first + (GATED ? warp_col / 2 + j * 4 : warp_col + j * 8) + lane % 4 * 2;
                if constexpr (GATED)
                    finish_gated<GATE>(out, pitch, bias, row, col, p.n, pair(j), pair(j + 1));
                else
                    finish(out, pitch, bias, accumulate, row, col, p.n, pair(j));
            }
        }
}

#define LINEAR(name, threads, resident, To, body)                                                        \
    extern "C" __global__ void __launch_bounds__(threads, resident)                                       \
        name(const bf16* x, u32 x_pitch, const bf16* w, u32 w_pitch, const float* bias, To* out,          \
             u32 pitch, u32 rows, u32 n, u32 k, u32 accumulate) {                                         \
        Operands p{x, w, x_pitch, w_pitch, rows, n, k};                                                   \
        body(p, bias, out, pitch, accumulate);                                                            \
    }

#ifdef ACTIVATION
#define SKINNY(mt, nt, stages)                                                                            \
    LINEAR(skinny_##mt##_##nt##_gated, SKINNY_THREADS, 1, bf16, (skinny<mt, nt, stages, true>))
#define TILED(bm, bn)                                                                                     \
    LINEAR(tiled_##bm##_##bn##_gated, TILED_THREADS, 2, bf16, (tiled<bm, bn, true>))
#else
#define SKINNY(mt, nt, stages)                                                                            \
    LINEAR(skinny_##mt##_##nt##_f32, SKINNY_THREADS, 1, float, (skinny<mt, nt, stages, false>))           \
    LINEAR(skinny_##mt##_##nt##_bf16, SKINNY_THREADS, 1, bf16, (skinny<mt, nt, stages, false>))
#define TILED(bm, bn)                                                                                     \
    LINEAR(tiled_##bm##_##bn##_f32, TILED_THREADS, 2, float, (tiled<bm, bn, false>))                      \
    LINEAR(tiled_##bm##_##bn##_bf16, TILED_THREADS, 2, bf16, (tiled<bm, bn, false>))
#endif
SKINNY_TILES
TILED_TILES
