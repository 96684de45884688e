// Attention over the tree plan, decode and prefill alike, and the merge of its partial results.
//
// out[r, h, :] = sum_t p_t v[t] / sum_t p_t, p_t = 2^(c q . k[t]), c = log2(e) / sqrt(S), S the
// layout's query_scalar, over the tokens of the row's path in the tree at positions in
// (position - window, position].
//
// Tiling. A work item is a list of KV blocks and up to 128 packed query rows (64 where D >= 128, for want
// of registers) that attend to them: the
// query heads of one KV head, of consecutive rows of the step (packed row p is row p / group, head
// p % group of the KV head). The host builds the items from the tree, splits and deals them
// (`cuda/items.rs`); each thread block runs its list of (item, KV head) units, so one launch serves
// all levels of the tree. K and V go through shared memory in tiles of 64 tokens, K and V in turn,
// SLOTS tiles under way, by cp.async.
//   more than 64 packed rows: each of the four warps owns twice 16 of them, and all tokens;
//   more than 16: each warp owns 16 of them, and all tokens;
//   up to 16: all warps own the same rows, each 16 of a tile's 64 tokens, and the four partial results
//   are merged through shared memory at the item's end.
// S = Q K^T and O += P V are mma.sync m16n8k16; P goes from accumulators to operands in registers.
//
// Layout: qkv rows [q heads | k heads | v heads], bf16, Q rotated. A KV block is [layer][K, V][kv head]
// [token][D] bf16, so one head's tokens of a block are contiguous. Shared tiles are [row][D] with
// 16-byte chunks exchanged (`place`). Slots of a tile that hold no token are filled with zeros by the
// copy, not read. A packed row that only one unit covers is written to `out` directly; others are
// written as f32 partials (normalised output, log2 of the sum of weights) for `merge`.
//
// Numerics: scores f32; softmax online in base 2 with ex2.approx; P rounded to bf16 for the second
// product, its sum taken before rounding; f32 accumulators; partials f32. A row without any visible
// token in an item gives (0, -infinity), which the merge ignores. The order of sums depends on how
// the host cut the tree, so bits may differ between plans, within the case tables' bound. Tokens that
// a row does not see weigh zero; were one of them infinite or NaN, the row would become NaN.
//
// Budget, per layer: K and V once per item and 128 packed rows: 4 D bytes per token and KV head;
// 4 D FLOPs per packed row and token, tile padding aside; 8 D bytes (write and read) per partial.
#include "common.cuh"

#ifndef HEAD_DIM
#error "HEAD_DIM: elements of a head, a multiple of 16"
#endif
#ifndef SLOTS
#error "SLOTS: K or V tiles in shared memory, 2 to 8"
#endif
#ifndef RESIDENT
#error "RESIDENT: thread blocks that share a multiprocessor"
#endif
#ifndef SHARED_BYTES
#error "SHARED_BYTES: what the host computed for Shared"
#endif

constexpr int D = HEAD_DIM, CHUNKS = D / 8, THREADS = 128, TILE = 64;
constexpr int MOST_ROWS = D < 128 ? 128 : 64;
constexpr int SLOT_BYTES = TILE * D * 2;
// Tiles whose places are known: the one in use, those under way, the next.
constexpr int RING = (SLOTS + 1) / 2 + 1;
constexpr int NOWHERE = 0x7fffffff;
constexpr u32 EMPTY = 0xffffffff;

// 32 bytes; keep in step with `items.rs`.
struct Item {
    u32 entry;       // the first KV block, an index into entries
    u32 slots;       // token slots of its blocks, the unused ones included
    u32 packed;      // the first packed row
    u32 count;       // packed rows, 1 to MOST_ROWS
    u32 dest;        // the first destination, an index into dests
    u32 least;       // smallest position of its rows
    u32 most;        // largest
    u32 unused;
};

struct Problem {
    const bf16* qkv;
    bf16* out;
    const u8* arena;
    const uint4* rows;     // {token, position, block, offset}
    const Item* items;
    const int4* entries;   // {block, position of its first token, valid tokens, 0}
    const int* dests;      // per item and packed row: partial slot, or -1 for `out`
    const uint2* units;    // {item, kv head}
    const u32* lists;      // per thread block: the first of its units; one more
    float* partial;        // [slot][kv head][D]
    float* lse;            // [slot][kv head]
    u64 unit_bytes;
    u64 k_at;              // bytes from a block to this layer's K
    u64 v_at;
    u32 qkv_pitch;
    u32 out_pitch;
    u32 heads;
    u32 kv_heads;
    u32 block_tokens;
    u32 window;            // positions a row sees, itself included; 2^30 for all
    float scale;           // log2(e) / sqrt(S)
};

// Where the slots of a tile lie.
struct Places {
    u32 base[TILE];        // byte / 32 of a slot's K from the arena's start, head aside; EMPTY without a token
    int position[TILE];    // NOWHERE without a token
    u32 clean[TILE / 32];  // whether every row sees every slot
    u32 full[TILE / 32];   // whether every slot has a token
};

struct Shared {
    alignas(128) u8 ring[SLOTS][SLOT_BYTES];
    alignas(128) u8 q[MOST_ROWS * D * 2];
    Places places[RING];
    int row_position[MOST_ROWS];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "the host asks for as much");

DEVICE float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// The element of a packed row's head in `out`.
DEVICE u64 place_out(const Problem& p, u32 packed, u32 kv_head) {
    u32 group = p.heads / p.kv_heads;
    return (u64)(packed / group) * p.out_pitch + (kv_head * group + packed % group) * D;
}

// The part of a warp: H times 16 rows of the item, N 8-token columns of each tile from TOKEN0.
template <bool MANY, int H> DEVICE void attend(const Problem& p, const Item& item, u32 kv_head, Shared& s) {
    constexpr int N = MANY ? TILE / 8 : TILE / 8 / 4;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // Q fragments live in registers where there is room, else they are loaded again for every tile.
    constexpr bool Q_IN_REGISTERS = H * D <= 128;
    u32 token0 = MANY ? 0 : warp * 16;
    auto row0 = [&](u32 g) { return MANY ? (g * 4 + warp) * 16 : 0; };
    auto idle = [&](u32 g) { return row0(g) >= item.count; };
    // The ends of most branches are items of a few rows: nothing is made of rows 8 to 15 then.
    bool lower_half = !MANY && item.count <= 8;
    u32 tiles = (item.slots + TILE - 1) / TILE;
    u64 head_at = (u64)kv_head * p.block_tokens * D * 2;

    // Where the 64 slots of a tile lie, by the first two warps.
    auto locate = [&](u32 tile) {
        if (tile >= tiles || threadIdx.x >= TILE) return;
        u32 slot = tile * TILE + threadIdx.x;
        Places& places = s.places[tile % RING];
        u32 base = EMPTY;
        int position = NOWHERE;
        if (slot < item.slots) {
            int4 entry = p.entries[item.entry + slot / p.block_tokens];
            u32 offset = slot % p.block_tokens;
            if ((int)offset < entry.z) {
                position = entry.y + offset;
                base = ((u32)entry.x * p.unit_bytes + (u64)offset * D * 2) / 32;
            }
        }
        places.base[threadIdx.x] = base;
        places.position[threadIdx.x] = position;
        bool clean = position <= (int)item.least && position > (int)item.most - (int)p.window;
        clean = __all_sync(ALL, clean);
        bool full = __all_sync(ALL, base != EMPTY);
        if (lane == 0) {
            places.clean[warp] = clean;
            places.full[warp] = full;
        }
    };
    // Even units are K tiles, odd ones V tiles.
    auto fetch = [&](u32 unit) {
        u32 tile = unit / 2;
        if (tile < tiles) {
            u32 to = shared_address(s.ring[unit % SLOTS]);
            const u8* from = p.arena + head_at + (unit % 2 ? p.v_at : p.k_at);
            const Places& places = s.places[tile % RING];
            auto copy = [&](bool whole, u32 slot, u32 chunk, u32 place) {
                u32 base = places.base[slot];
                bool there = whole || base != EMPTY;
                const u8* at;
                // The compiler would add the base before the rest: one instruction more for every copy.
                asm("mad.wide.u32 %0, %1, 32, %2;" : "=l"(at) : "r"(there ? base : 0), "l"(from + chunk * 16));
                if (whole)
                    copy16(to + place, at);
                else
                    copy16(to + place, at, there ? 16 : 0);
            };
            // Where it can be, a thread keeps its chunk, and its place but for a constant.
            constexpr u32 ROUND = THREADS % CHUNKS == 0 ? THREADS / CHUNKS : 0;
            auto copies = [&](bool whole) {
                if constexpr (ROUND > 0 && ROUND % 8 == 0) {
                    u32 slot = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, at = place<CHUNKS>(slot, chunk);
#pragma unroll
                    for (u32 first = 0; first < TILE; first += ROUND)
                        copy(whole, slot + first, chunk, at + first * CHUNKS * 16);
                } else {
#pragma unroll D > 128 ? 1 : 4
                    for (u32 i = threadIdx.x; i < TILE * CHUNKS; i += THREADS)
                        copy(whole, i / CHUNKS, i % CHUNKS, place<CHUNKS>(i / CHUNKS, i % CHUNKS));
                }
            };
            if (places.full[0] & places.full[1])
                copies(true);
            else
                copies(false);
        }
        commit();
    };

    for (u32 tile = 0; tile <= (SLOTS - 1) / 2; tile++) locate(tile);
    __syncthreads();
    for (u32 unit = 0; unit < SLOTS - 1; unit++) fetch(unit);

    // Where a lane's rows of the operands lie, chunks aside.
    u32 q_at = shared_address(s.q) + place_left<CHUNKS>(lane, row0(0), 0);
    u32 k_row = place_right<CHUNKS>(lane, token0, 0);
    u32 v_row = place_left<CHUNKS>(lane, token0, 0);
    u32 q[H][Q_IN_REGISTERS ? D / 16 : 1][4];
    if constexpr (Q_IN_REGISTERS)
        for (int g = 0; g < H; g++)
            for (int d = 0; d < D / 16; d++) matrices(q[g][d], place_on<CHUNKS>(q_at, g * 64, d * 2));

    float o[H][D / 8][4] = {};
    float max[H][2], sum[H][2] = {};
    for (int g = 0; g < H; g++) max[g][0] = max[g][1] = -INFINITY_F;

    // Waits for a unit, and starts the one SLOTS - 1 further on in the place of the one just used.
    auto advance = [&](u32 unit) {
        wait<SLOTS - 2>();
        __syncthreads();
        u32 next = unit + SLOTS - 1;
        fetch(next);
        if (next % 2 == 1) locate(next / 2 + 1);
    };

#pragma unroll 1
    for (u32 tile = 0; tile < tiles; tile++) {
        u32 weights[H][N / 2][4];
        advance(2 * tile);
        const Places& places = s.places[tile % RING];
        u32 k_at = shared_address(s.ring[2 * tile % SLOTS]) + k_row;
#pragma unroll
        for (int g = 0; g < H; g++) {
            if (idle(g)) break;
            float score[N][4] = {};
#pragma unroll Q_IN_REGISTERS ? D / 16 : 1
            for (int d = 0; d < D / 16; d++) {
                u32 a[4];
                if constexpr (Q_IN_REGISTERS)
                    for (int i = 0; i < 4; i++) a[i] = q[g][d][i];
                else
                    matrices(a, place_on<CHUNKS>(q_at, g * 64, d * 2));
#pragma unroll
                for (int j = 0; j < N / 2; j++) {
                    u32 b[4];
                    matrices(b, place_on<CHUNKS>(k_at, j * 16, d * 2));
                    multiply(score[2 * j], a, b[0], b[1]);
                    multiply(score[2 * j + 1], a, b[2], b[3]);
                }
            }
            if (!(places.clean[0] & places.clean[1]))
                for (int j = 0; j < N; j++)
                    for (int i = 0; i < 4; i++) {
                        int position = places.position[token0 + j * 8 + lane % 4 * 2 + i % 2];
                        int row = s.row_position[row0(g) + lane / 4 + i / 2 * 8];
                        if (position > row || position <= row - (int)p.window) score[j][i] = -INFINITY_F;
                    }
            for (int h = 0; h < 2; h++) {
                if (h && lower_half) break;
                float most = -INFINITY_F;
                for (int j = 0; j < N; j++) most = fmaxf(most, fmaxf(score[j][2 * h], score[j][2 * h + 1]));
                most = fmaxf(most, __shfl_xor_sync(ALL, most, 1));
                most = fmaxf(most, __shfl_xor_sync(ALL, most, 2));
                most = fmaxf(most, max[g][h]);
                // Nothing visible yet: 0 instead of -infinity, so that no difference is NaN.
                float shift = most == -INFINITY_F ? 0.0f : most * p.scale;
                // Nothing to shrink before the first visible token.
                float shrink = max[g][h] == -INFINITY_F ? 1.0f : exp2_fast(max[g][h] * p.scale - shift);
                max[g][h] = most;
                sum[g][h] *= shrink;
                for (int j = 0; j < N; j++)
                    for (int i = 2 * h; i < 2 * h + 2; i++) {
                        score[j][i] = exp2_fast(__fmaf_rn(score[j][i], p.scale, -shift));
                        sum[g][h] += score[j][i];
                    }
                if (shrink != 1.0f)
                    for (int d = 0; d < D / 8; d++) {
                        o[g][d][2 * h] *= shrink;
                        o[g][d][2 * h + 1] *= shrink;
                    }
            }
            for (int j = 0; j < N / 2; j++) {
                weights[g][j][0] = pack(score[2 * j][0], score[2 * j][1]);
                weights[g][j][1] = pack(score[2 * j][2], score[2 * j][3]);
                weights[g][j][2] = pack(score[2 * j + 1][0], score[2 * j + 1][1]);
                weights[g][j][3] = pack(score[2 * j + 1][2], score[2 * j + 1][3]);
            }
        }
        advance(2 * tile + 1);
        if (!idle(0)) {
            u32 v_at = shared_address(s.ring[(2 * tile + 1) % SLOTS]) + v_row;
            // Both halves of the rows share what is loaded of V.
            bool both = H == 2 && !idle(H - 1);
#pragma unroll
            for (int j = 0; j < N / 2; j++)
#pragma unroll
                for (int d = 0; d < D / 16; d++) {
                    u32 b[4];
                    matrices_transposed(b, place_on<CHUNKS>(v_at, j * 16, d * 2));
                    multiply(o[0][2 * d], weights[0][j], b[0], b[1]);
                    multiply(o[0][2 * d + 1], weights[0][j], b[2], b[3]);
                    if (both) {
                        multiply(o[H - 1][2 * d], weights[H - 1][j], b[0], b[1]);
                        multiply(o[H - 1][2 * d + 1], weights[H - 1][j], b[2], b[3]);
                    }
                }
        }
    }
    wait<0>();
    for (int g = 0; g < H; g++)
        for (int h = 0; h < 2; h++) {
            sum[g][h] += __shfl_xor_sync(ALL, sum[g][h], 1);
            sum[g][h] += __shfl_xor_sync(ALL, sum[g][h], 2);
        }

    if constexpr (MANY) {
#pragma unroll
        for (int i = 0; i < 2 * H; i++) {
            int g = i / 2, h = i % 2;
            u32 row = row0(g) + lane / 4 + h * 8;
            if (row >= item.count) continue;
            float inverse = sum[g][h] > 0 ? 1.0f / sum[g][h] : sum[g][h];
            int dest = p.dests[item.dest + row];
            if (dest < 0) {
                bf16* to = p.out + place_out(p, item.packed + row, kv_head) + lane % 4 * 2;
                for (int d = 0; d < D / 8; d++) store2(to + d * 8, o[g][d][2 * h] * inverse, o[g][d][2 * h + 1] * inverse);
            } else {
                u32 slot = dest * p.kv_heads + kv_head;
                float* to = p.partial + (u64)slot * D + lane % 4 * 2;
                for (int d = 0; d < D / 8; d++) store2(to + d * 8, o[g][d][2 * h] * inverse, o[g][d][2 * h + 1] * inverse);
                if (lane % 4 == 0) p.lse[slot] = max[g][h] * p.scale + __log2f(sum[g][h]);
            }
        }
    } else {
        // Eight-column groups change places by row, so that the rows of a store differ in their banks.
        constexpr u32 EXCHANGE = D % 32 == 0 ? 3 : 1;
        float* parts = (float*)s.ring;
        // Q is not needed any more: [warp][row] maxima and sums lie where it was, and what each part weighs.
        float* maxima = (float*)s.q;
        float* sums = maxima + 4 * 16;
        float* shares = sums + 4 * 16;
        static_assert(4 * 16 * D * 4 <= SLOTS * SLOT_BYTES, "the parts lie where the tiles were");
        static_assert(3 * 4 * 16 * 4 <= sizeof(s.q), "and what they weigh where Q was");
        __syncthreads();
        for (int h = 0; h < 2; h++) {
            if (h && lower_half) break;
            u32 row = lane / 4 + h * 8;
            if (lane % 4 == 0) {
                maxima[warp * 16 + row] = max[0][h];
                sums[warp * 16 + row] = sum[0][h];
            }
            u32 at = shared_address(parts) + ((warp * 16 + row) * D + (row & EXCHANGE) * 8 + lane % 4 * 2) * 4;
            for (u32 d = 0; d < D / 8; d++)
                store2_shared((at ^ (d & EXCHANGE) * 32) + (d & ~EXCHANGE) * 32, o[0][d][2 * h], o[0][d][2 * h + 1]);
        }
        __syncthreads();
        if (threadIdx.x < item.count) {
            u32 row = threadIdx.x;
            float most = -INFINITY_F;
            for (int w = 0; w < 4; w++) most = fmaxf(most, maxima[w * 16 + row]);
            float shift = most == -INFINITY_F ? 0.0f : most;
            float total = 0, weight[4];
            for (int w = 0; w < 4; w++) {
                weight[w] = exp2_fast((maxima[w * 16 + row] - shift) * p.scale);
                total += weight[w] * sums[w * 16 + row];
            }
            float inverse = total > 0 ? 1.0f / total : total;
            for (int w = 0; w < 4; w++) shares[w * 16 + row] = weight[w] * inverse;
            int dest = p.dests[item.dest + row];
            if (dest >= 0) p.lse[dest * p.kv_heads + kv_head] = most * p.scale + __log2f(total);
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < item.count * (D / 4); i += THREADS) {
            u32 row = i / (D / 4), col = i % (D / 4) * 4;
            u32 at = row * D + (col / 8 ^ (row & EXCHANGE)) * 8 + col % 8;
            float4 v = make_float4(0, 0, 0, 0);
            for (int w = 0; w < 4; w++) {
                float share = shares[w * 16 + row];
                float4 part = *(const float4*)(parts + w * 16 * D + at);
                v.x += share * part.x;
                v.y += share * part.y;
                v.z += share * part.z;
                v.w += share * part.w;
            }
            int dest = p.dests[item.dest + row];
            if (dest < 0)
                *(uint2*)(p.out + place_out(p, item.packed + row, kv_head) + col) = make_uint2(pack(v.x, v.y), pack(v.z, v.w));
            else
                *(float4*)(p.partial + ((u64)dest * p.kv_heads + kv_head) * D + col) = v;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) tree_attention(const Problem p) {
    extern __shared__ __align__(128) u8 bytes[];
    Shared& s = *(Shared*)bytes;
    u32 group = p.heads / p.kv_heads;
    // x / group for small x, without dividing: exact while x group < 2^20.
    u32 inverse = ((1 << 20) + group - 1) / group;
    for (u32 u = p.lists[blockIdx.x]; u < p.lists[blockIdx.x + 1]; u++) {
        uint2 unit = p.units[u];
        Item item = p.items[unit.x];
        u32 tile_rows = item.count > 64 ? 128 : item.count > 16 ? 64 : 16;
        u32 first_row = item.packed / group, first_head = item.packed % group;
        __syncthreads();
        for (u32 i = threadIdx.x; i < tile_rows; i += THREADS) {
            u32 row = first_row + ((first_head + i) * inverse >> 20);
            s.row_position[i] = i < item.count ? (int)p.rows[row].y : 0;
        }
        const bf16* q = p.qkv + (u64)first_row * p.qkv_pitch + unit.y * group * D;
        for (u32 i = threadIdx.x; i < tile_rows * CHUNKS; i += THREADS) {
            u32 r = i / CHUNKS, chunk = i % CHUNKS;
            u32 row = (first_head + r) * inverse >> 20, head = first_head + r - row * group;
            uint4 v = make_uint4(0, 0, 0, 0);
            if (r < item.count) v = *(const uint4*)(q + (u64)row * p.qkv_pitch + head * D + chunk * 8);
            *(uint4*)(s.q + place<CHUNKS>(r, chunk)) = v;
        }
        if (MOST_ROWS > 64 && item.count > 64)
            attend<true, MOST_ROWS / 64>(p, item, unit.y, s);
        else if (item.count > 16)
            attend<true, 1>(p, item, unit.y, s);
        else
            attend<false, 1>(p, item, unit.y, s);
    }
}

// Adds up the partials of every packed row that has several; one warp per row and KV head.
extern "C" __global__ void __launch_bounds__(THREADS)
    merge(const float* partial, const float* lse, const int4* merges, const u32* slots, u32 count, bf16* out, u32 out_pitch, u32 heads, u32 kv_heads) {
    u32 warp = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp >= count * kv_heads) return;
    // {packed row, first of its slots, how many, 0}
    int4 m = merges[warp / kv_heads];
    // There are as many as there can be: a recorded launch does not know how many it needs.
    if (m.z == 0) return;
    u32 kv_head = warp % kv_heads, group = heads / kv_heads;
    float most = -INFINITY_F;
    for (u32 i = lane; i < (u32)m.z; i += 32) most = fmaxf(most, lse[slots[m.y + i] * kv_heads + kv_head]);
    for (int d = 16; d; d >>= 1) most = fmaxf(most, __shfl_xor_sync(ALL, most, d));
    float shift = most == -INFINITY_F ? 0.0f : most;
    constexpr int PER_LANE = (D + 63) / 64;
    float v[PER_LANE][2] = {};
    float total = 0;
    for (u32 i = 0; i < (u32)m.z; i++) {
        u32 slot = slots[m.y + i] * kv_heads + kv_head;
        float weight = exp2_fast(lse[slot] - shift);
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
