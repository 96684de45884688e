// Tree attention, decode and prefill alike, and the merge of its partial results.
//
// out[r, h, :] = sum_t p_t v[t] / sum_t p_t, p_t = 2^(c q . k[t]), c = log2(e) / sqrt(S), S the
// layout's query_scalar, over the tokens of the row's path in the tree at positions in
// (position - window, position].
//
// Tiling. A work item is a list of KV blocks and up to MAX_ROWS packed query rows that attend to
// them (128, or 64 where D >= 128, because of the registers): the query heads of one KV head, of
// consecutive rows of the batch (packed row p is row p / group, head p % group of the KV head). The
// host builds the items from the tree, splits them and assigns them to thread blocks
// (`cuda/items.rs`); each thread block runs its list of (item, KV head) units, so one launch serves
// all levels of the tree. K and V go through shared memory in tiles of TILE = 64 tokens, K and V in
// turn, by cp.async, in a ring of STAGES tiles.
//   more than 64 packed rows: each of the four warps owns two groups of 16 rows, and all tokens;
//   more than 16: each warp owns one group of 16 rows, and all tokens;
//   up to 16: all warps own the same rows, each 16 of a tile's 64 tokens, and the four partial
//   results are merged through shared memory at the item's end.
// S = Q K^T and O += P V are mma.m16n8k16; P goes from accumulators to operands in registers.
//
// Layout: qkv rows [q heads | k heads | v heads], bf16, Q rotated. A KV block is [layer][K, V]
// [kv head][token][D] bf16, so one head's tokens of a block are contiguous. Shared tiles are [row][D],
// swizzled in 16-byte chunks. Slots of a tile that hold no token are filled with zeros by cp.async,
// not read. A packed row that only one unit covers is written to `out` directly; others are written
// as f32 partials (normalised output, log2 of the sum of weights) for `merge`.
//
// Numerics: scores f32; online softmax in base 2 with ex2.approx; P rounded to bf16 for the second
// GEMM, its sum taken before rounding; f32 accumulators; partials f32. A row without any visible
// token in an item gives (0, -infinity), which the merge ignores. The order of sums depends on how
// the host cut the tree, so bits may differ between plans, within the case tables' bound. Tokens
// that a row does not see weigh zero; if one of them is infinite or NaN, the row becomes NaN.
//
// Budget, per layer: K and V once per item and MAX_ROWS packed rows: 4 D bytes per token and KV
// head; 4 D FLOPs per packed row and token, tile padding aside; 8 D bytes (write and read) per
// partial.
//
// Constants from the host (`cuda/catalog.rs`): HEAD_DIM; STAGES, tiles in the ring; RESIDENT,
// thread blocks per multiprocessor; SHARED_BYTES; THREADS, TILE, MAX_ROWS, MANY_ROWS, FEW_ROWS,
// ADDRESS_UNIT; WORK_ITEM_BYTES and PARAMS_BYTES, the sizes of the Rust structs.
#include "common.cuh"

constexpr int D = HEAD_DIM, CHUNKS = D / 8, WARPS = THREADS / 32;
constexpr int TILE_BYTES = TILE * D * 2;
// Tiles whose slots are located: the one in use, those being copied, the next.
constexpr int LOCATED = (STAGES + 1) / 2 + 1;
// The position of a slot without a token: beyond every row.
constexpr int NOWHERE = 0x7fffffff;
constexpr u32 NO_TOKEN = 0xffffffff;

// `WorkItem` of `cuda/items.rs`.
struct WorkItem {
    u32 first_entry;   // the first KV block, an index into entries
    u32 slots;         // token slots of its blocks, the unused ones included
    u32 first_row;     // the first packed row
    u32 rows;          // packed rows, 1 to MAX_ROWS
    u32 first_dest;    // the first destination, an index into dests
    u32 min_position;  // of its rows
    u32 max_position;
    u32 reserved;
};
static_assert(sizeof(WorkItem) == WORK_ITEM_BYTES, "WorkItem of cuda/items.rs");

// `AttentionParams` of `cuda/attention.rs`. R: rows of the batch; P = R heads / kv_heads: packed
// rows of a KV head. Logarithms are in base 2.
struct AttentionParams {
    const bf16* qkv;      // [R][qkv_pitch]: q heads, k heads, v heads, D each
    bf16* out;            // [R][out_pitch]: q heads, D each
    const u8* arena;      // KV blocks, a unit_bytes apart
    const uint4* rows;    // [R]: {token, position, block, offset}
    const WorkItem* items;
    const int4* entries;  // {block, position of its first token, valid tokens, 0}
    const int* dests;     // per item and packed row: slot of its partial result, or -1 for `out`
    const uint2* units;   // {item, kv head}
    const u32* lists;     // [gridDim.x + 1]: the first unit of each thread block
    float* partial;       // [slot][kv_heads][D]: normalised outputs
    float* lse;           // [slot][kv_heads]: log2 of the sum of 2^(scale q . k); -infinity: empty
    u64 unit_bytes;
    u64 k_offset;         // bytes from a block to this layer's K, [kv_heads][block_tokens][D]
    u64 v_offset;         // the same of V
    u32 qkv_pitch;        // elements
    u32 out_pitch;        // elements
    u32 heads;
    u32 kv_heads;
    u32 block_tokens;
    u32 window;           // positions a row sees, its own included; 2^30 for all
    float scale;          // log2(e) / sqrt(S)
};
static_assert(sizeof(AttentionParams) == PARAMS_BYTES, "AttentionParams of cuda/attention.rs");

// Where the token slots of a tile lie.
struct TileSlots {
    // The slot's K in the arena, head aside, in units of ADDRESS_UNIT bytes; or NO_TOKEN.
    u32 base[TILE];
    int position[TILE];      // or NOWHERE
    u32 visible[TILE / 32];  // per warp's slots: whether every row sees all of them
    u32 full[TILE / 32];     // per warp's slots: whether all of them hold a token
};

struct Shared {
    alignas(128) u8 ring[STAGES][TILE_BYTES];  // [TILE][D] bf16, swizzled
    alignas(128) u8 q[MAX_ROWS * D * 2];       // [MAX_ROWS][D] bf16, swizzled
    TileSlots slots[LOCATED];
    int row_position[MAX_ROWS];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "shared_bytes of cuda/tiling.rs");

// What a thread block works on: one item through one KV head.
struct Unit {
    const AttentionParams& p;
    const WorkItem& item;
    Shared& s;
    u32 kv_head;
    u32 tiles;     // of K, and of V
    const u8* kv;  // the arena, offset to the head within a layer's K or V
};

// What a warp owns of a unit: H groups of 16 rows, N columns of 8 tokens of each tile from
// `first_token`.
template <bool MANY, int H> struct WarpShare {
    static constexpr int N = MANY ? TILE / 8 : TILE / 8 / WARPS;
    // Q fragments stay in registers where there is room; else they are loaded again for every tile.
    static constexpr bool Q_IN_REGISTERS = H * D <= 128;
    static constexpr int Q_FRAGMENTS = Q_IN_REGISTERS ? D / 16 : 1;
    const WorkItem& item;
    u32 warp, lane, first_token;

    DEVICE WarpShare(const WorkItem& item)
        : item(item), warp(threadIdx.x / 32), lane(threadIdx.x % 32), first_token(MANY ? 0 : warp * 16) {}
    // The first row of a group.
    DEVICE u32 first_row(u32 g) const { return MANY ? (g * WARPS + warp) * 16 : 0; }
    DEVICE bool idle(u32 g) const { return first_row(g) >= item.rows; }
    // Whether rows 8 to 15 are computed: the ends of most branches are items of a few rows.
    DEVICE bool has_half(int h) const { return MANY || h == 0 || item.rows > 8; }
};

// The online softmax of a warp's rows. A lane holds, of a group, row lane / 4 (half h = 0) and row
// lane / 4 + 8 (h = 1).
template <int H> struct Accumulators {
    float o[H][D / 8][4] = {};  // sums of weight v, not normalised: [group][8 columns], as mma's c
    float row_max[H][2];        // largest q . k so far, not scaled
    float row_sum[H][2] = {};   // sum of this lane's weights 2^(scale (q . k - row_max))

    DEVICE Accumulators() {
        for (int g = 0; g < H; g++) row_max[g][0] = row_max[g][1] = -INFINITY_F;
    }
};

// The offset of a packed row's head in `out`, in elements.
DEVICE u64 out_offset(const AttentionParams& p, u32 packed, u32 kv_head) {
    u32 group = p.heads / p.kv_heads;
    return (u64)(packed / group) * p.out_pitch + (kv_head * group + packed % group) * D;
}

// Finds the blocks and positions of a tile's slots; a thread for each slot.
DEVICE void locate_tile(const Unit& u, u32 tile) {
    if (tile >= u.tiles || threadIdx.x >= TILE) return;
    u32 slot = tile * TILE + threadIdx.x;
    TileSlots& slots = u.s.slots[tile % LOCATED];
    u32 base = NO_TOKEN;
    int position = NOWHERE;
    if (slot < u.item.slots) {
        int4 entry = u.p.entries[u.item.first_entry + slot / u.p.block_tokens];
        u32 offset = slot % u.p.block_tokens;
        if ((int)offset < entry.z) {
            position = entry.y + offset;
            base = ((u32)entry.x * u.p.unit_bytes + (u64)offset * D * 2) / ADDRESS_UNIT;
        }
    }
    slots.base[threadIdx.x] = base;
    slots.position[threadIdx.x] = position;
    bool visible = position <= (int)u.item.min_position && position > (int)u.item.max_position - (int)u.p.window;
    visible = __all_sync(FULL_MASK, visible);
    bool full = __all_sync(FULL_MASK, base != NO_TOKEN);
    if (threadIdx.x % 32 == 0) {
        slots.visible[threadIdx.x / 32] = visible;
        slots.full[threadIdx.x / 32] = full;
    }
}

// Starts the copy of one chunk; of a slot without a token, unless FULL, it makes zeros.
template <bool FULL> DEVICE void copy_chunk(const TileSlots& slots, const u8* from, u32 slot, u32 chunk, u32 to) {
    u32 base = slots.base[slot];
    bool token = FULL || base != NO_TOKEN;
    // By hand: the compiler adds the chunk last, one instruction more for every copy.
    const u8* chunk_from = mad_wide_u32<ADDRESS_UNIT>(token ? base : 0, from + chunk * 16);
    if (FULL)
        cp_async_16(to, chunk_from);
    else
        cp_async_16_zfill(to, chunk_from, token ? 16 : 0);
}

// Starts the copies of a tile, chunk by chunk, by all threads. `from`: the head's K or V in block 0.
template <bool FULL> DEVICE void copy_tile(const TileSlots& slots, const u8* from, u32 to) {
    // Slots that all threads copy in one round. Where they are whole, a thread keeps its chunk and
    // its swizzled offset but for a constant.
    constexpr u32 ROUND = THREADS % CHUNKS == 0 ? THREADS / CHUNKS : 0;
    if constexpr (ROUND > 0 && ROUND % 8 == 0) {
        u32 slot = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, offset = swizzle<CHUNKS>(slot, chunk);
#pragma unroll
        for (u32 first = 0; first < TILE; first += ROUND)
            copy_chunk<FULL>(slots, from, slot + first, chunk, to + (offset + first * CHUNKS * 16));
    } else {
#pragma unroll D > 128 ? 1 : 4
        for (u32 i = threadIdx.x; i < TILE * CHUNKS; i += THREADS)
            copy_chunk<FULL>(slots, from, i / CHUNKS, i % CHUNKS, to + swizzle<CHUNKS>(i / CHUNKS, i % CHUNKS));
    }
}

// Starts load number `load`, of the K tile load / 2 if even, of the V tile if odd: one cp.async
// group, empty past the last tile.
DEVICE void produce_kv(const Unit& u, u32 load) {
    u32 tile = load / 2;
    if (tile < u.tiles) {
        u32 to = cvta_to_shared(u.s.ring[load % STAGES]);
        const u8* from = u.kv + (load % 2 ? u.p.v_offset : u.p.k_offset);
        const TileSlots& slots = u.s.slots[tile % LOCATED];
        if (slots.full[0] & slots.full[1])
            copy_tile<true>(slots, from, to);
        else
            copy_tile<false>(slots, from, to);
    }
    cp_async_commit_group();
}

// Waits for load number `load`, and starts the one STAGES - 1 later in the stage of the load
// before.
DEVICE void advance(const Unit& u, u32 load) {
    cp_async_wait_group<STAGES - 2>();
    // Hazards: reading what other threads copied of this load (each has waited for its own copies),
    // and what warps 0 and 1 located in the last call; overwriting the stage that slower warps were
    // reading.
    __syncthreads();
    u32 next = load + STAGES - 1;
    produce_kv(u, next);
    if (next % 2 == 1) locate_tile(u, next / 2 + 1);
}

// score[16 rows][N tokens] = q k^T of group g. `q_addr` and `k_addr` are the lane's ldmatrix
// addresses.
template <bool MANY, int H, int N = WarpShare<MANY, H>::N>
DEVICE void compute_qk(const u32 (&q)[WarpShare<MANY, H>::Q_FRAGMENTS][4], u32 g, u32 q_addr, u32 k_addr, float (&score)[N][4]) {
    constexpr bool Q_IN_REGISTERS = WarpShare<MANY, H>::Q_IN_REGISTERS;
#pragma unroll Q_IN_REGISTERS ? D / 16 : 1
    for (int d = 0; d < D / 16; d++) {
        u32 a[4];
        if constexpr (Q_IN_REGISTERS)
            for (int i = 0; i < 4; i++) a[i] = q[d][i];
        else
            ldmatrix_x4(a, swizzle_advance<CHUNKS>(q_addr, g * 64, d * 2));
#pragma unroll
        for (int j = 0; j < N / 2; j++) {
            u32 b[4];
            ldmatrix_x4(b, swizzle_advance<CHUNKS>(k_addr, j * 16, d * 2));
            mma_m16n8k16(score[2 * j], a, b[0], b[1]);
            mma_m16n8k16(score[2 * j + 1], a, b[2], b[3]);
        }
    }
}

// Sets the scores of tokens that a row does not see to -infinity.
template <bool MANY, int H, int N>
DEVICE void mask_scores(const Unit& u, const WarpShare<MANY, H>& w, u32 g, const TileSlots& slots, float (&score)[N][4]) {
    for (int j = 0; j < N; j++)
        for (int i = 0; i < 4; i++) {
            int position = slots.position[w.first_token + j * 8 + w.lane % 4 * 2 + i % 2];
            int row = u.s.row_position[w.first_row(g) + w.lane / 4 + i / 2 * 8];
            if (position > row || position <= row - (int)u.p.window) score[j][i] = -INFINITY_F;
        }
}

// One step of the online softmax for half h of group g: scores become weights 2^(scale (score -
// max)), and what was summed up so far shrinks to the new maximum.
template <int H, int N>
DEVICE void update_softmax(Accumulators<H>& acc, int g, int h, float scale, float (&score)[N][4]) {
    float new_max = -INFINITY_F;
    for (int j = 0; j < N; j++) new_max = fmaxf(new_max, fmaxf(score[j][2 * h], score[j][2 * h + 1]));
    new_max = fmaxf(new_max, __shfl_xor_sync(FULL_MASK, new_max, 1));
    new_max = fmaxf(new_max, __shfl_xor_sync(FULL_MASK, new_max, 2));
    new_max = fmaxf(new_max, acc.row_max[g][h]);
    // No token visible yet: 0 instead of -infinity, so that no difference is NaN.
    float shift = new_max == -INFINITY_F ? 0.0f : new_max * scale;
    // Before the first visible token there is nothing to shrink.
    float shrink = acc.row_max[g][h] == -INFINITY_F ? 1.0f : ex2_approx(acc.row_max[g][h] * scale - shift);
    acc.row_max[g][h] = new_max;
    acc.row_sum[g][h] *= shrink;
    for (int j = 0; j < N; j++)
        for (int i = 2 * h; i < 2 * h + 2; i++) {
            score[j][i] = ex2_approx(__fmaf_rn(score[j][i], scale, -shift));
            acc.row_sum[g][h] += score[j][i];
        }
    if (shrink != 1.0f)
        for (int d = 0; d < D / 8; d++) {
            acc.o[g][d][2 * h] *= shrink;
            acc.o[g][d][2 * h + 1] *= shrink;
        }
}

// Weights in the layout of mma's c become operands a, rounded to bf16.
template <int N> DEVICE void pack_weights(const float (&score)[N][4], u32 (&weights)[N / 2][4]) {
    for (int j = 0; j < N / 2; j++) {
        weights[j][0] = cvt_bf16x2(score[2 * j][0], score[2 * j][1]);
        weights[j][1] = cvt_bf16x2(score[2 * j][2], score[2 * j][3]);
        weights[j][2] = cvt_bf16x2(score[2 * j + 1][0], score[2 * j + 1][1]);
        weights[j][3] = cvt_bf16x2(score[2 * j + 1][2], score[2 * j + 1][3]);
    }
}

// o[16 rows][D] += weights v, for all groups of the warp: each fragment of V is loaded once.
template <bool MANY, int H, int STEPS>
DEVICE void compute_pv(const WarpShare<MANY, H>& w, const u32 (&weights)[H][STEPS][4], u32 v_addr, float (&o)[H][D / 8][4]) {
    bool both = H == 2 && !w.idle(H - 1);
#pragma unroll
    for (int j = 0; j < STEPS; j++)
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            u32 b[4];
            ldmatrix_x4_trans(b, swizzle_advance<CHUNKS>(v_addr, j * 16, d * 2));
            mma_m16n8k16(o[0][2 * d], weights[0][j], b[0], b[1]);
            mma_m16n8k16(o[0][2 * d + 1], weights[0][j], b[2], b[3]);
            if (both) {
                mma_m16n8k16(o[H - 1][2 * d], weights[H - 1][j], b[0], b[1]);
                mma_m16n8k16(o[H - 1][2 * d + 1], weights[H - 1][j], b[2], b[3]);
            }
        }
}

// Writes half h of a lane's columns, `factor` times.
template <class To> DEVICE void write_row(To* to, const float (&o)[D / 8][4], int h, float factor) {
    for (int d = 0; d < D / 8; d++) store2(to + d * 8, o[d][2 * h] * factor, o[d][2 * h + 1] * factor);
}

// Writes the rows of a warp that saw all tokens: normalised, to `out` or as partial results.
template <int H> DEVICE void write_rows(const Unit& u, const WarpShare<true, H>& w, const Accumulators<H>& acc) {
    const AttentionParams& p = u.p;
#pragma unroll
    for (int i = 0; i < 2 * H; i++) {
        int g = i / 2, h = i % 2;
        u32 row = w.first_row(g) + w.lane / 4 + h * 8;
        if (row >= u.item.rows) continue;
        float inverse = acc.row_sum[g][h] > 0 ? 1.0f / acc.row_sum[g][h] : acc.row_sum[g][h];
        int dest = p.dests[u.item.first_dest + row];
        if (dest < 0) {
            write_row(p.out + out_offset(p, u.item.first_row + row, u.kv_head) + w.lane % 4 * 2, acc.o[g], h, inverse);
        } else {
            u32 slot = dest * p.kv_heads + u.kv_head;
            write_row(p.partial + (u64)slot * D + w.lane % 4 * 2, acc.o[g], h, inverse);
            if (w.lane % 4 == 0) p.lse[slot] = acc.row_max[g][h] * p.scale + __log2f(acc.row_sum[g][h]);
        }
    }
}

// The partial results of the four warps of an item of up to FEW_ROWS rows, in the space of Q and
// the ring.
struct WarpParts {
    float* o;        // [warp][FEW_ROWS][D], not normalised; groups of eight columns swizzled by row
    float* row_max;  // [warp][FEW_ROWS]: largest q . k
    float* row_sum;  // [warp][FEW_ROWS]: sum of weights
    float* share;    // [warp][FEW_ROWS]: factor of the warp's o in the merged row
    // By how many groups columns are permuted, so that the rows of a store fall into different
    // banks.
    static constexpr u32 SWIZZLE = D % 32 == 0 ? 3 : 1;
    static_assert(WARPS * FEW_ROWS * D * 4 <= STAGES * TILE_BYTES, "o lies in the ring");
    static_assert(3 * WARPS * FEW_ROWS * 4 <= sizeof(Shared::q), "the others lie in q");

    DEVICE WarpParts(Shared& s)
        : o((float*)s.ring), row_max((float*)s.q), row_sum(row_max + WARPS * FEW_ROWS), share(row_sum + WARPS * FEW_ROWS) {}
};

DEVICE void store_warp_part(const WarpParts& parts, const WarpShare<false, 1>& w, const Accumulators<1>& acc) {
    for (int h = 0; h < 2; h++) {
        if (!w.has_half(h)) break;
        u32 row = w.lane / 4 + h * 8;
        if (w.lane % 4 == 0) {
            parts.row_max[w.warp * FEW_ROWS + row] = acc.row_max[0][h];
            parts.row_sum[w.warp * FEW_ROWS + row] = acc.row_sum[0][h];
        }
        u32 addr = cvta_to_shared(parts.o)
            + ((w.warp * FEW_ROWS + row) * D + (row & WarpParts::SWIZZLE) * 8 + w.lane % 4 * 2) * 4;
        for (u32 d = 0; d < D / 8; d++)
            st_shared_v2((addr ^ (d & WarpParts::SWIZZLE) * 32) + (d & ~WarpParts::SWIZZLE) * 32, acc.o[0][d][2 * h], acc.o[0][d][2 * h + 1]);
    }
}

// The share of each warp's part in a row; a thread per row.
DEVICE void compute_shares(const Unit& u, const WarpParts& parts) {
    if (threadIdx.x >= u.item.rows) return;
    u32 row = threadIdx.x;
    float row_max = -INFINITY_F;
    for (int w = 0; w < WARPS; w++) row_max = fmaxf(row_max, parts.row_max[w * FEW_ROWS + row]);
    float shift = row_max == -INFINITY_F ? 0.0f : row_max;
    float total = 0, weight[WARPS];
    for (int w = 0; w < WARPS; w++) {
        weight[w] = ex2_approx((parts.row_max[w * FEW_ROWS + row] - shift) * u.p.scale);
        total += weight[w] * parts.row_sum[w * FEW_ROWS + row];
    }
    float inverse = total > 0 ? 1.0f / total : total;
    for (int w = 0; w < WARPS; w++) parts.share[w * FEW_ROWS + row] = weight[w] * inverse;
    int dest = u.p.dests[u.item.first_dest + row];
    if (dest >= 0) u.p.lse[dest * u.p.kv_heads + u.kv_head] = row_max * u.p.scale + __log2f(total);
}

// Adds up the parts by their shares and writes the rows; a thread per four columns.
DEVICE void write_merged(const Unit& u, const WarpParts& parts) {
    const AttentionParams& p = u.p;
    for (u32 i = threadIdx.x; i < u.item.rows * (D / 4); i += THREADS) {
        u32 row = i / (D / 4), col = i % (D / 4) * 4;
        u32 offset = row * D + (col / 8 ^ (row & WarpParts::SWIZZLE)) * 8 + col % 8;
        float4 v = make_float4(0, 0, 0, 0);
        for (int w = 0; w < WARPS; w++) {
            float share = parts.share[w * FEW_ROWS + row];
            float4 part = *(const float4*)(parts.o + w * FEW_ROWS * D + offset);
            v.x += share * part.x;
            v.y += share * part.y;
            v.z += share * part.z;
            v.w += share * part.w;
        }
        int dest = p.dests[u.item.first_dest + row];
        if (dest < 0)
            *(uint2*)(p.out + out_offset(p, u.item.first_row + row, u.kv_head) + col) = make_uint2(cvt_bf16x2(v.x, v.y), cvt_bf16x2(v.z, v.w));
        else
            *(float4*)(p.partial + ((u64)dest * p.kv_heads + u.kv_head) * D + col) = v;
    }
}

// Merges the four warps' parts of the same rows and writes them.
DEVICE void merge_warps(const Unit& u, const WarpShare<false, 1>& w, const Accumulators<1>& acc) {
    WarpParts parts(u.s);
    // Hazard: the parts overwrite Q and the last V tile, which slower warps still read.
    __syncthreads();
    store_warp_part(parts, w, acc);
    // Hazard: compute_shares reads the maxima and sums of all warps.
    __syncthreads();
    compute_shares(u, parts);
    // Hazard: write_merged reads the shares of all rows.
    __syncthreads();
    write_merged(u, parts);
}

// One unit, whose Q and row positions are in shared memory.
template <bool MANY, int H> DEVICE void attend(const Unit& u) {
    using Share = WarpShare<MANY, H>;
    Share w(u.item);
    for (u32 tile = 0; tile <= (STAGES - 1) / 2; tile++) locate_tile(u, tile);
    // Hazard: all threads read the slots just located, and Q and the row positions that others
    // stored.
    __syncthreads();
    for (u32 load = 0; load < STAGES - 1; load++) produce_kv(u, load);

    // The lane's ldmatrix addresses, chunks aside.
    u32 q_addr = cvta_to_shared(u.s.q) + swizzle_a<CHUNKS>(w.lane, w.first_row(0), 0);
    u32 k_offset = swizzle_b<CHUNKS>(w.lane, w.first_token, 0);
    u32 v_offset = swizzle_a<CHUNKS>(w.lane, w.first_token, 0);
    u32 q[H][Share::Q_FRAGMENTS][4];
    if constexpr (Share::Q_IN_REGISTERS)
        for (int g = 0; g < H; g++)
            for (int d = 0; d < D / 16; d++) ldmatrix_x4(q[g][d], swizzle_advance<CHUNKS>(q_addr, g * 64, d * 2));
    Accumulators<H> acc;

#pragma unroll 1
    for (u32 tile = 0; tile < u.tiles; tile++) {
        u32 weights[H][Share::N / 2][4];
        advance(u, 2 * tile);
        const TileSlots& slots = u.s.slots[tile % LOCATED];
        u32 k_addr = cvta_to_shared(u.s.ring[2 * tile % STAGES]) + k_offset;
#pragma unroll
        for (int g = 0; g < H; g++) {
            if (w.idle(g)) break;
            float score[Share::N][4] = {};
            compute_qk<MANY, H>(q[g], g, q_addr, k_addr, score);
            if (!(slots.visible[0] & slots.visible[1])) mask_scores(u, w, g, slots, score);
            for (int h = 0; h < 2; h++)
                if (w.has_half(h)) update_softmax(acc, g, h, u.p.scale, score);
            pack_weights(score, weights[g]);
        }
        advance(u, 2 * tile + 1);
        if (!w.idle(0)) compute_pv(w, weights, cvta_to_shared(u.s.ring[(2 * tile + 1) % STAGES]) + v_offset, acc.o);
    }
    cp_async_wait_group<0>();
    for (int g = 0; g < H; g++)
        for (int h = 0; h < 2; h++) {
            acc.row_sum[g][h] += __shfl_xor_sync(FULL_MASK, acc.row_sum[g][h], 1);
            acc.row_sum[g][h] += __shfl_xor_sync(FULL_MASK, acc.row_sum[g][h], 2);
        }
    if constexpr (MANY)
        write_rows(u, w, acc);
    else
        merge_warps(u, w, acc);
}

// Stores the positions of a unit's rows and its Q, zeros up to `tile_rows`, in shared memory.
DEVICE void load_q(const Unit& u, u32 tile_rows) {
    u32 group = u.p.heads / u.p.kv_heads;
    // x / group for small x, without dividing: exact while x group < 2^20.
    u32 inverse = ((1 << 20) + group - 1) / group;
    u32 first_row = u.item.first_row / group, first_head = u.item.first_row % group;
    for (u32 i = threadIdx.x; i < tile_rows; i += THREADS) {
        u32 row = first_row + ((first_head + i) * inverse >> 20);
        u.s.row_position[i] = i < u.item.rows ? (int)u.p.rows[row].y : 0;
    }
    const bf16* q = u.p.qkv + (u64)first_row * u.p.qkv_pitch + u.kv_head * group * D;
    for (u32 i = threadIdx.x; i < tile_rows * CHUNKS; i += THREADS) {
        u32 r = i / CHUNKS, chunk = i % CHUNKS;
        u32 row = (first_head + r) * inverse >> 20, head = first_head + r - row * group;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (r < u.item.rows) v = *(const uint4*)(q + (u64)row * u.p.qkv_pitch + head * D + chunk * 8);
        *(uint4*)(u.s.q + swizzle<CHUNKS>(r, chunk)) = v;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) tree_attention(const AttentionParams p) {
    extern __shared__ __align__(128) u8 bytes[];
    Shared& s = *(Shared*)bytes;
    for (u32 i = p.lists[blockIdx.x]; i < p.lists[blockIdx.x + 1]; i++) {
        uint2 unit = p.units[i];
        WorkItem item = p.items[unit.x];
        Unit u{p, item, s, unit.y, (item.slots + TILE - 1) / TILE, p.arena + (u64)unit.y * p.block_tokens * D * 2};
        // Hazard: load_q and locate_tile overwrite what slower warps still read of the last unit:
        // Q, row positions, located slots, and the shares that lie in Q's place.
        __syncthreads();
        load_q(u, item.rows > MANY_ROWS ? MAX_ROWS : item.rows > FEW_ROWS ? MANY_ROWS : FEW_ROWS);
        if (MAX_ROWS > MANY_ROWS && item.rows > MANY_ROWS)
            attend<true, MAX_ROWS / MANY_ROWS>(u);
        else if (item.rows > FEW_ROWS)
            attend<true, 1>(u);
        else
            attend<false, 1>(u);
    }
}

// Merges the partial results of every packed row that has several; one warp per row and KV head.
//   merges[count]: {packed row, first of its slots, number of slots, 0}; slots: their indices into
//   partial[slot][kv_heads][D] and lse[slot][kv_heads] (log2, -infinity for an empty part).
extern "C" __global__ void __launch_bounds__(THREADS)
    merge(const float* partial, const float* lse, const int4* merges, const u32* slots, u32 count, bf16* out, u32 out_pitch, u32 heads, u32 kv_heads) {
    u32 warp = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp >= count * kv_heads) return;
    int4 m = merges[warp / kv_heads];
    // A recorded launch has room for the largest number of merges; the surplus is empty.
    if (m.z == 0) return;
    u32 kv_head = warp % kv_heads, group = heads / kv_heads;
    float max_lse = -INFINITY_F;
    for (u32 i = lane; i < (u32)m.z; i += 32) max_lse = fmaxf(max_lse, lse[slots[m.y + i] * kv_heads + kv_head]);
    max_lse = warp_max(max_lse);
    float shift = max_lse == -INFINITY_F ? 0.0f : max_lse;
    constexpr int PER_LANE = (D + 63) / 64;
    float v[PER_LANE][2] = {};
    float total = 0;
    for (u32 i = 0; i < (u32)m.z; i++) {
        u32 slot = slots[m.y + i] * kv_heads + kv_head;
        float weight = ex2_approx(lse[slot] - shift);
        total += weight;
        const float* from = partial + (u64)slot * D;
        for (int j = 0; j < PER_LANE; j++) {
            u32 d = j * 64 + lane * 2;
            if (d < D) {
                float2 part = load2(from + d);
                v[j][0] += weight * part.x;
                v[j][1] += weight * part.y;
            }
        }
    }
    float inverse = total > 0 ? 1.0f / total : total;
    bf16* to = out + (u64)((u32)m.x / group) * out_pitch + (kv_head * group + (u32)m.x % group) * D;
    for (int j = 0; j < PER_LANE; j++) {
        u32 d = j * 64 + lane * 2;
        if (d < D) store2(to + d, v[j][0] * inverse, v[j][1] * inverse);
    }
}
