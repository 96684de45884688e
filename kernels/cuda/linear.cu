// Products: out[r, n] = sum_k x[r, k] w[n, k] (+ bias[n]) (+ out[r, n]), x and w bf16, sums f32; or
// gated, with w and bias of 2 n rows: out[r, c] = a(product[r, c]) product[r, n + c], a the activation.
// Compiled once for every `Activation` (as ACTIVATION), NO_ACTIVATION for the products that are not gated.
//
// Tiling.
//   skinny (1 to 64 rows, decode): a thread block of four warps owns 8 NT rows of W and all rows of x
//   (16 MT of them). W is streamed once, 128 columns a stage, by multi-stage cp.async; of each
//   stage every warp multiplies its own 32 columns (split K inside the block), and the four sums are
//   added at the end through shared memory. Bound by W's bytes.
//   tiled (more rows): BM x BN sums per block of eight warps (2 x 4), 32 columns a stage, four
//   stages. Blocks run down the rows first, so that a tile of W is read from DRAM once and from L2
//   by the others.
//   gated: a tile's rows of W are by turns eight gates and the eight ups that belong to them, so both
//   sums of an output lie in one block, and in one thread where sums stay in registers.
// Layout: x and out row-major with a pitch; w row-major [n][w_pitch], the pitch a multiple of 64 and
// its surplus zeros. Shared tiles are [row][columns] with 16-byte chunks exchanged (`place`), so that
// neither ldmatrix nor the copies meet a bank twice. What lies beyond k in x is never read: a
// copy is told how many bytes count, and fills up with zeros; likewise rows beyond the last.
// Numerics: mma.sync m16n8k16, bf16 products exact, f32 accumulation. An output is a fixed order of
// sums within one variant (skinny or tiled), whatever the other rows hold; skinny and tiled differ in
// their order. Bias, the old output and the gate are applied in f32, then one rounding if the output
// is bf16: gate and up are never rounded.
// Budget: bytes 2 n k (W) + rows (2 k ceil(n / tile) from L2 + e n (2 e n if it adds)), 2 rows n k
// FLOPs; gated, 4 n k + rows (2 k ceil(2 n / tile) + 2 n) against 8 rows n more where the product is
// written, read and written again. Skinny issues 16 ceil(rows / 16) / rows of the useful products;
// tensor cores idle there.
#include "common.cuh"

struct Operands {
    const bf16* x;
    const bf16* w;
    u32 x_pitch, w_pitch;
    u32 rows, n, k;  // n: columns of the output
};

// What of W row `row` of a tile is whose first output column is `first`; at or beyond `end`, nothing.
template <bool GATED> DEVICE u32 weight_row(u32 first, u32 row, u32 n, u32& end) {
    u32 col = GATED ? first + row / 16 * 8 + row % 8 : first + row;
    bool up = GATED && row / 8 % 2;
    end = up ? 2 * n : n;
    return up ? n + col : col;
}

// The copies of a thread: BN rows of W, then BM rows of x from `first_row` on, of a stage CHUNKS 16-byte
// chunks each. A thread keeps its chunk, and its rows follow one another at a constant distance, so that a
// copy of a whole stage is an address carried on and the copy itself.
template <int BM, int BN, int CHUNKS, int THREADS, bool GATED> struct Copies {
    static constexpr u32 ROUND = THREADS / CHUNKS, COUNT = (BM + BN) / ROUND;
    static_assert(BN % ROUND == 0 && BM % ROUND == 0 && ROUND % 8 == 0, "every copy is of W or of x for all threads");
    const bf16* at[COUNT];
    u32 bytes[COUNT];  // 16, or 0 for a row that is not there
    u32 place_in_stage;

    DEVICE Copies(const Operands& p, u32 first_row, u32 first) {
        u32 row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        place_in_stage = kept(place<CHUNKS>(row, chunk));
#pragma unroll
        for (u32 c = 0; c < COUNT; c++) {
            bool of_w = c * ROUND < BN;
            u32 end = p.rows, from_row = first_row + row + c * ROUND - BN;
            if (of_w) from_row = weight_row<GATED>(first, row + c * ROUND, p.n, end);
            bool there = from_row < end;
            const bf16* from = of_w ? p.w : p.x;
            at[c] = there ? from + (u64)from_row * (of_w ? p.w_pitch : p.x_pitch) + chunk * 8 : p.w;
            bytes[c] = kept(there ? 16 : 0);
        }
    }

    // Starts those of the next stage, whose columns begin at `from`.
    DEVICE void start(const Operands& p, u32 to, u32 from) {
        to += place_in_stage;
        if (from + CHUNKS * 8 <= p.k) {
#pragma unroll
            for (u32 c = 0; c < COUNT; c++) {
                copy16(to + c * ROUND * CHUNKS * 16, at[c], bytes[c]);
                at[c] += CHUNKS * 8;
            }
        } else {
            // The last one: what is beyond W's pitch or x's columns becomes zeros.
            u32 col = from + threadIdx.x % CHUNKS * 8;
            u32 of_x = col < p.k ? min(p.k - col, 8u) * 2 : 0, of_w = col < p.w_pitch ? 16 : 0;
#pragma unroll
            for (u32 c = 0; c < COUNT; c++) {
                u32 count = min(bytes[c], c * ROUND < BN ? of_w : of_x);
                copy16(to + c * ROUND * CHUNKS * 16, count ? at[c] : p.w, count);
            }
        }
    }
};

// sum += x w^T over 16 columns of a stage, `more` chunks on, of MT x NT fragments: `w_at` and `x_at` are where the
// lane's rows lie.
template <int MT, int NT, int CHUNKS> DEVICE void multiply_tile(float (&sum)[MT][NT][4], u32 w_at, u32 x_at, u32 more) {
    u32 b[NT / 2][4];
#pragma unroll
    for (int j = 0; j < NT / 2; j++) matrices(b[j], place_on<CHUNKS>(w_at, j * 16, more));
#pragma unroll
    for (int i = 0; i < MT; i++) {
        u32 a[4];
        matrices(a, place_on<CHUNKS>(x_at, i * 16, more));
#pragma unroll
        for (int j = 0; j < NT; j++) multiply(sum[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
}

// Runs `use` over the stages, STAGES - 1 of them under way. At the end nothing is, for this thread.
template <int STAGES, class Fetch, class Use> DEVICE void stream(u32 stages, Fetch fetch, Use use) {
    for (u32 s = 0; s < STAGES - 1; s++) {
        if (s < stages) fetch(s);
        commit();
    }
    for (u32 s = 0; s < stages; s++) {
        wait<STAGES - 2>();
        __syncthreads();
        if (s + STAGES - 1 < stages) fetch(s + STAGES - 1);
        commit();
        use(s);
    }
    wait<0>();
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
    To* at = out + (u64)row * pitch + col;
    if (accumulate) {
        float2 old = load2(at);
        v.x += old.x;
        v.y += old.y;
    }
    store2(at, v.x, v.y);
}

// Writes two neighbouring outputs of a gated product. The ups' bias may begin at an odd place.
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
    constexpr int WARPS = 4, THREADS = 128, BK = 128, CHUNKS = BK / 8;
    constexpr int BM = 16 * MT, BN = 8 * NT, STAGE = (BM + BN) * BK * 2, REDUCE = BN + 8;
    constexpr int COLS = GATED ? BN / 2 : BN, PAIRS = COLS / 2;
    static_assert(WARPS * BM * REDUCE * 4 <= STAGES * STAGE, "the sums lie where the stages were");
    extern __shared__ __align__(128) u8 shared[];
    u32 base = shared_address(shared);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 first = blockIdx.x * COLS;

    float sum[MT][NT][4] = {};
    Copies<BM, BN, CHUNKS, THREADS, GATED> copies(p, 0, first);
    u32 w_at = kept(place_right<CHUNKS>(lane, 0, warp * 4)), x_at = kept(place_left<CHUNKS>(lane, BN, warp * 4));
    stream<STAGES>(
        (p.k + BK - 1) / BK, [&](u32 s) { copies.start(p, base + s % STAGES * STAGE, s * BK); },
        [&](u32 s) {
            u32 stage = base + s % STAGES * STAGE;
#pragma unroll
            for (u32 step = 0; step < 2; step++) {
                if (s * BK + warp * 32 + step * 16 >= p.k) break;
                multiply_tile<MT, NT, CHUNKS>(sum, stage + w_at, stage + x_at, step * 2);
            }
        });
    __syncthreads();
    float* sums = (float*)shared;
    for (int i = 0; i < MT; i++)
        for (int j = 0; j < NT; j++)
            for (int h = 0; h < 2; h++)
                store2_shared(sums + (warp * BM + i * 16 + lane / 4 + h * 8) * REDUCE + j * 8 + lane % 4 * 2, sum[i][j][h * 2], sum[i][j][h * 2 + 1]);
    __syncthreads();
    for (u32 i = threadIdx.x; i < BM * PAIRS; i += THREADS) {
        u32 row = i / PAIRS, col = i % PAIRS * 2;
        // Rows 0, 2, 1, 3, ...: the two rows that a half warp reads together fall into different banks.
        if (PAIRS == 8 && REDUCE == 24) row = (row & ~3u) | (row & 1) << 1 | (row >> 1 & 1);
        if (row >= p.rows) continue;
        auto added = [&](u32 at) {
            float2 v = make_float2(0, 0);
            for (int w = 0; w < WARPS; w++) {
                float2 part = load2_shared(sums + (w * BM + row) * REDUCE + at);
                v.x += part.x;
                v.y += part.y;
            }
            return v;
        };
        if constexpr (GATED) {
            u32 gate = col / 8 * 16 + col % 8;
            finish_gated<(Activation)ACTIVATION>(out, pitch, bias, row, first + col, p.n, added(gate), added(gate + 8));
        } else {
            finish(out, pitch, bias, accumulate, row, first + col, p.n, added(col));
        }
    }
}

template <int BM, int BN, bool GATED, class To>
DEVICE void tiled(const Operands& p, const float* bias, To* out, u32 pitch, u32 accumulate) {
    constexpr int THREADS = 256, STAGES = 4, BK = 32, CHUNKS = BK / 8, STAGE = (BM + BN) * BK * 2;
    constexpr int MT = BM / 2 / 16, NT = BN / 4 / 8;
    extern __shared__ __align__(128) u8 shared[];
    u32 base = shared_address(shared);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 first_row = blockIdx.x * BM, first = blockIdx.y * (GATED ? BN / 2 : BN);
    u32 warp_row = warp / 4 * (BM / 2), warp_col = warp % 4 * (BN / 4);

    float sum[MT][NT][4] = {};
    Copies<BM, BN, CHUNKS, THREADS, GATED> copies(p, first_row, first);
    u32 w_at = kept(place_right<CHUNKS>(lane, warp_col, 0)), x_at = kept(place_left<CHUNKS>(lane, BN + warp_row, 0));
    stream<STAGES>(
        (p.k + BK - 1) / BK, [&](u32 s) { copies.start(p, base + s % STAGES * STAGE, s * BK); },
        [&](u32 s) {
            u32 stage = base + s % STAGES * STAGE;
#pragma unroll
            for (u32 step = 0; step < 2; step++) multiply_tile<MT, NT, CHUNKS>(sum, stage + w_at, stage + x_at, step * 2);
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
                    finish_gated<(Activation)ACTIVATION>(out, pitch, bias, row, col, p.n, pair(j), pair(j + 1));
                else
                    finish(out, pitch, bias, accumulate, row, col, p.n, pair(j));
            }
        }
}

#define PRODUCT(name, threads, resident, To, body)                                                        \
    extern "C" __global__ void __launch_bounds__(threads, resident)                                       \
        name(const bf16* x, u32 x_pitch, const bf16* w, u32 w_pitch, const float* bias, To* out,          \
             u32 pitch, u32 rows, u32 n, u32 k, u32 accumulate) {                                         \
        Operands p{x, w, x_pitch, w_pitch, rows, n, k};                                                   \
        body(p, bias, out, pitch, accumulate);                                                            \
    }

#if ACTIVATION == 0
#define SKINNY(mt, nt, stages)                                                                            \
    PRODUCT(skinny_##mt##_##nt##_f32, 128, 1, float, (skinny<mt, nt, stages, false>))                     \
    PRODUCT(skinny_##mt##_##nt##_bf16, 128, 1, bf16, (skinny<mt, nt, stages, false>))
#define TILED(bm, bn)                                                                                     \
    PRODUCT(tiled_##bm##_##bn##_f32, 256, 2, float, (tiled<bm, bn, false>))                               \
    PRODUCT(tiled_##bm##_##bn##_bf16, 256, 2, bf16, (tiled<bm, bn, false>))
#else
#define SKINNY(mt, nt, stages) PRODUCT(skinny_##mt##_##nt##_gated, 128, 1, bf16, (skinny<mt, nt, stages, true>))
#define TILED(bm, bn) PRODUCT(tiled_##bm##_##bn##_gated, 256, 2, bf16, (tiled<bm, bn, true>))
#endif
SKINNY(1, 2, 4)
SKINNY(1, 4, 4)
SKINNY(2, 2, 4)
SKINNY(2, 4, 4)
SKINNY(4, 2, 3)
SKINNY(4, 4, 3)

TILED(64, 64)
TILED(128, 128)
