// Sampling: draws tokens from logits with the exact arithmetic of `src/sampling.rs`, so that equal
// logits give the CPU's tokens; and writes drawn tokens into the rows of the next batch.
//
// Tiling: a block of THREADS = 512 threads per draw; thread t takes the ids t, t + 512, ... of a
// pass, except in the last one, where every warp owns a range of consecutive ids. Filters are
// thresholds in the order of likelihood (larger logit, then lower id), found by radix selection
// over the 64-bit rank, eight bits a pass, counting tokens (top-k) or adding weights (top-p).
//
// Layout: logits [rows][pitch] f32; one Draw and one Drawn per draw; penalised logits in scratch
// rows [size] f32.
//
// Numerics: weights are integers, floor(2^30 2^x) with the polynomial of `src/exp2.rs`, every
// operation rounded on its own; their sums are exact in 64 bits, so the order of adding does not
// matter. The sum for the log-probability is f64, within about one f64 rounding of the CPU's.
//
// Confidence, of draws that ask for it: the sums of l - max over the row and over its TOP_TOKENS most
// likely tokens. Each thread keeps the most likely of its ids that is not taken yet; in each of
// TOP_TOKENS rounds the block takes the most likely of those, and the warp of the thread that held it
// looks for that thread's next one. f64 sums; that of the top tokens from the most likely one on, as on
// the CPU, the other within one f64 rounding per addition.
//
// Budget: 4 vocabulary bytes per pass; 4 passes without filters, 8 more for each of top-k and top-p
// (the row is read from L2 after the first). About 20 operations per token and pass. A confidence: 1
// pass of 6 operations per token, and TOP_TOKENS rounds that read vocabulary / THREADS logits each, a
// sector of 32 bytes per logit.
//
// Constants from the host (`cuda/catalog.rs`): THREADS, SUBSTITUTE_THREADS, MAX_WEIGHT, TOP_TOKENS,
// MAX_BELOW, DRAW_BYTES, DRAWN_BYTES.
#include "common.cuh"

constexpr int WARPS = THREADS / 32;
constexpr float LOG2_E = 1.44269504088896340736f;

// `DeviceDraw` of `cuda/sample.rs`.
struct Draw {
    u64 key;          // of Philox
    u64 position;     // its counter
    double top_p;     // 1 or more: off
    u32 row;          // of the logits
    u32 top_k;        // 0: off
    u32 history;      // the first of its ids
    u32 history_len;  // distinct ids; 0: no penalty
    float scale;      // log2(e) / temperature; negative: greedy
    float penalty;
    u32 min_weight;   // the smallest weight that min-p keeps
    u32 scratch;      // its scratch row
    u32 confidence;   // 1: the sums of its confidence are wanted
    u32 unused;
};
static_assert(sizeof(Draw) == DRAW_BYTES, "DeviceDraw of cuda/sample.rs");

// `Drawn` of `cuda/sample.rs`. Logarithms are natural.
struct Drawn {
    double sum;   // of e^(l - max) over the row
    double below_sum;      // of l - max over the row, if wanted
    double top_below_sum;  // of l - max over the TOP_TOKENS most likely tokens, if wanted
    u64 total;    // the kept weights' sum; 1 where the most likely token was taken
    u32 weight;   // the token's; 1 then
    float below;  // l[token] - max
    u32 token;
    u32 bad;      // 1: the logits are unusable because of `token`
    float value;  // its logit then
    u32 unused;
};
static_assert(sizeof(Drawn) == DRAWN_BYTES, "Drawn of cuda/sample.rs");

struct Shared {
    u64 parts[WARPS];    // of reduce_all and draw_token
    double sums[WARPS];  // of sum_all
    u64 buckets[256];    // of select_threshold
    u64 chosen;          // its bucket; draw_token's id
    u64 rest;            // what is left of its target
};

// 2^x by the polynomial of `src/exp2.rs`, operation by operation.
DEVICE float exp2_exact(float x) {
    x = x < -126.0f ? -126.0f : x;
    x = x > 127.0f ? 127.0f : x;
    float rounded = __fadd_rn(x, 12582912.0f);
    float f = __fsub_rn(x, __fsub_rn(rounded, 12582912.0f));
    float p = __uint_as_float(0x392209c5u);
    p = __fadd_rn(__fmul_rn(p, f), __uint_as_float(0x3aaf8448u));
    p = __fadd_rn(__fmul_rn(p, f), __uint_as_float(0x3c1d952au));
    p = __fadd_rn(__fmul_rn(p, f), __uint_as_float(0x3d6357b6u));
    p = __fadd_rn(__fmul_rn(p, f), __uint_as_float(0x3e75fdf0u));
    p = __fadd_rn(__fmul_rn(p, f), __uint_as_float(0x3f317218u));
    p = __fadd_rn(__fmul_rn(p, f), 1.0f);
    return __fmul_rn(p, __uint_as_float((__float_as_uint(rounded) << 23) + 0x3f800000u));
}

// floor(2^30 2^((logit - max_logit) scale)): the most likely token weighs MAX_WEIGHT.
DEVICE u32 weigh(float logit, float max_logit, float scale) {
    float power = exp2_exact(__fmul_rn(__fsub_rn(logit, max_logit), scale));
    return (u32)__float2int_rz(__fmul_rn(power, (float)MAX_WEIGHT));
}

// The order of likelihood: larger for more likely tokens, different for any two ids, never 0.
DEVICE u64 rank(float logit, u32 id) {
    u32 bits = __float_as_uint(__fadd_rn(logit, 0.0f));
    u32 ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)ordered << 32 | (u32)~id;
}

// Inclusive prefix sum over the lanes of a warp, by shfl.sync.up.
DEVICE u64 warp_scan(u64 v) {
    for (int d = 1; d < 32; d <<= 1) {
        u64 other = __shfl_up_sync(FULL_MASK, v, d);
        if (threadIdx.x % 32 >= d) v += other;
    }
    return v;
}

// Reduces over the block with `combine`, the same order on every thread.
template <class F> DEVICE u64 reduce_all(u64 v, Shared& s, F combine) {
    for (int d = 16; d; d >>= 1) v = combine(v, __shfl_xor_sync(FULL_MASK, v, d));
    // Hazard: overwriting the parts that slower warps still read in the last call.
    __syncthreads();
    if (threadIdx.x % 32 == 0) s.parts[threadIdx.x / 32] = v;
    // Hazard: reading the parts of other warps.
    __syncthreads();
    v = s.parts[0];
    for (int w = 1; w < WARPS; w++) v = combine(v, s.parts[w]);
    return v;
}
DEVICE u64 sum_all(u64 v, Shared& s) {
    return reduce_all(v, s, [](u64 a, u64 b) { return a + b; });
}
DEVICE u64 max_all(u64 v, Shared& s) {
    return reduce_all(v, s, [](u64 a, u64 b) { return a > b ? a : b; });
}
DEVICE u64 min_all(u64 v, Shared& s) {
    return reduce_all(v, s, [](u64 a, u64 b) { return a < b ? a : b; });
}
DEVICE double sum_all(double v, Shared& s) {
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(FULL_MASK, v, d);
    // Hazard: overwriting the sums that slower warps still read in the last call.
    __syncthreads();
    if (threadIdx.x % 32 == 0) s.sums[threadIdx.x / 32] = v;
    // Hazard: reading the sums of other warps.
    __syncthreads();
    v = 0;
    for (int w = 0; w < WARPS; w++) v += s.sums[w];
    return v;
}

// The most likely token of a row. The row is not usable if a logit is NaN or +infinity (the first
// such token is reported) or all are -infinity (token 0 is).
struct MostLikely {
    bool usable;
    u32 token;
    float logit;
};

DEVICE MostLikely find_most_likely(const float* logits, u32 size, Shared& s) {
    u64 best = 0, first_bad = ~0ull;
    for (u32 id = threadIdx.x; id < size; id += THREADS) {
        float l = logits[id];
        if (l != l || l == INFINITY_F) {
            if (first_bad == ~0ull) first_bad = id;
        } else {
            u64 r = rank(l, id);
            best = r > best ? r : best;
        }
    }
    first_bad = min_all(first_bad, s);
    best = max_all(best, s);
    if (first_bad != ~0ull) return {false, (u32)first_bad, logits[first_bad]};
    u32 token = ~(u32)best;
    float logit = logits[token];
    if (logit == -INFINITY_F) return {false, 0, logits[0]};
    return {true, token, logit};
}

// Philox4x32-10 (Salmon et al. 2011): the first 64 bits of block `counter`.
DEVICE u64 philox(u64 key, u64 counter) {
    u32 c[4] = {(u32)counter, (u32)(counter >> 32), 0, 0}, k0 = (u32)key, k1 = (u32)(key >> 32);
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)c[0] * 0xd2511f53u, b = (u64)c[2] * 0xcd9e8d57u;
        u32 c1 = c[1], c3 = c[3];
        c[0] = (u32)(b >> 32) ^ c1 ^ k0;
        c[1] = (u32)b;
        c[2] = (u32)(a >> 32) ^ c3 ^ k1;
        c[3] = (u32)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (u64)c[1] << 32 | c[0];
}

// The weights a token is drawn by: a row of logits behind its filters.
struct Row {
    const float* logits;
    u32 size;
    float max_logit, scale;
    u64 threshold;   // ranks below weigh 0
    u32 min_weight;  // weights below become 0
    DEVICE u32 weight(u32 id) const {
        float l = logits[id];
        u32 w = weigh(l, max_logit, scale);
        return w >= min_weight && rank(l, id) >= threshold ? w : 0;
    }
};

// The bucket in which the count from the most likely one on reaches `target`, by warp 0; sets
// `chosen` and `rest`. Lane l holds the buckets 255 - 8 l down to 248 - 8 l.
DEVICE void choose_bucket(u64 target, Shared& s) {
    u32 first = 255 - threadIdx.x * 8;
    u64 own = 0;
    for (int i = 0; i < 8; i++) own += s.buckets[first - i];
    u64 through = warp_scan(own), before = through - own;
    if (before >= target || through < target) return;
    int i = 0;
    for (;; i++) {
        u64 count = s.buckets[first - i];
        if (before + count >= target) break;
        before += count;
    }
    s.chosen = first - i;
    s.rest = target - before;
}

// The largest threshold that leaves `target` tokens (or, WEIGHED, their weights) or more; all of
// the row does. Tokens of weight 0 do not count. Radix selection from the rank's highest byte on.
template <bool WEIGHED> DEVICE u64 select_threshold(const Row& row, u64 target, Shared& s) {
    u64 prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256) s.buckets[threadIdx.x] = 0;
        // Hazard: counting in buckets that other threads clear.
        __syncthreads();
        for (u32 id = threadIdx.x; id < row.size; id += THREADS) {
            u64 r = rank(row.logits[id], id);
            if (shift < 56 && r >> (shift + 8) != prefix >> (shift + 8)) continue;
            u32 w = row.weight(id);
            if (w) atomicAdd(&s.buckets[r >> shift & 255], WEIGHED ? (u64)w : 1ull);
        }
        // Hazard: reading the counts of other warps.
        __syncthreads();
        if (threadIdx.x < 32) choose_bucket(target, s);
        // Hazards: reading what warp 0 chose; clearing the buckets it was reading in the next pass.
        __syncthreads();
        prefix |= s.chosen << shift;
        target = s.rest;
    }
    return prefix;
}

// Sum of e^(l - max_logit) over a row.
DEVICE double sum_exp(const float* logits, u32 size, float max_logit, Shared& s) {
    double part = 0;
    for (u32 id = threadIdx.x; id < size; id += THREADS)
        part += exp2_exact(__fmul_rn(__fsub_rn(logits[id], max_logit), LOG2_E));
    return sum_all(part, s);
}

// l - max_logit as a confidence counts it.
DEVICE float held_below(float logit, float max_logit) {
    return fmaxf(__fsub_rn(logit, max_logit), -(float)MAX_BELOW);
}

// The sums of l - max_logit over a row and over its TOP_TOKENS most likely tokens (all, if it has fewer).
DEVICE void sum_below(const float* logits, u32 size, float max_logit, Drawn& result, Shared& s) {
    double part = 0;
    u64 best = 0;  // the rank of the thread's most likely id that is not taken
    for (u32 id = threadIdx.x; id < size; id += THREADS) {
        float l = logits[id];
        u64 r = rank(l, id);
        part += held_below(l, max_logit);
        best = r > best ? r : best;
    }
    result.below_sum = sum_all(part, s);
    double top = 0;
    for (u32 taken = 0; taken < TOP_TOKENS && taken < size; taken++) {
        u64 most = max_all(best, s);
        u32 id = ~(u32)most, owner = id % THREADS;
        top += held_below(logits[id], max_logit);
        if (threadIdx.x / 32 != owner / 32) continue;
        u64 next = 0;
        for (u32 other = owner + threadIdx.x % 32 * THREADS; other < size; other += 32 * THREADS) {
            u64 r = rank(logits[other], other);
            if (r < most && r > next) next = r;
        }
        for (int d = 16; d; d >>= 1) {
            u64 o = __shfl_xor_sync(FULL_MASK, next, d);
            next = o > next ? o : next;
        }
        if (threadIdx.x == owner) best = next;
    }
    result.top_below_sum = top;
}

// The repetition penalty: `to` becomes `logits`, those of `history` divided or multiplied by the
// penalty.
DEVICE void penalise(const float* logits, u32 size, const Draw& draw, const u32* history, float* to) {
    for (u32 id = threadIdx.x; id < size; id += THREADS) to[id] = logits[id];
    // Hazard: changing logits that other threads copied.
    __syncthreads();
    for (u32 i = threadIdx.x; i < draw.history_len; i += THREADS) {
        u32 id = history[draw.history + i];
        to[id] = to[id] > 0 ? __fdiv_rn(to[id], draw.penalty) : __fmul_rn(to[id], draw.penalty);
    }
    // Hazard: reading logits that other threads changed.
    __syncthreads();
}

// Applies top-k, then top-p to what it leaves, then min-p.
DEVICE void filter(Row& row, const Draw& draw, Shared& s) {
    u64 total = 0, count = 0;
    for (u32 id = threadIdx.x; id < row.size; id += THREADS) {
        u32 w = row.weight(id);
        total += w;
        count += w > 0;
    }
    total = sum_all(total, s);
    if (draw.top_k > 0 && draw.top_k < row.size) {
        count = sum_all(count, s);
        if (draw.top_k < count) {
            row.threshold = select_threshold<false>(row, draw.top_k, s);
            total = 0;
            for (u32 id = threadIdx.x; id < row.size; id += THREADS) total += row.weight(id);
            total = sum_all(total, s);
        }
    }
    if (draw.top_p < 1.0) {
        u64 target = (u64)ceil(__dmul_rn(draw.top_p, (double)total));
        row.threshold = select_threshold<true>(row, target > 0 ? target : 1, s);
    }
    row.min_weight = draw.min_weight;
}

// Draws a token by its weight: the first id at which the sum of weights exceeds a uniform number
// below `total`, which it sets. A warp owns a range of consecutive ids.
DEVICE u32 draw_token(const Row& row, const Draw& draw, u64& total, Shared& s) {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 range = (row.size + THREADS - 1) / THREADS * 32;
    u32 first = warp * range, last = min(first + range, row.size);
    u64 own = 0;
    for (u32 id = first + lane; id < last; id += 32) own += row.weight(id);
    for (int d = 16; d; d >>= 1) own += __shfl_xor_sync(FULL_MASK, own, d);
    // Hazard: overwriting the parts that slower warps still read in reduce_all.
    __syncthreads();
    if (lane == 0) s.parts[warp] = own;
    // Hazard: reading the parts of other warps.
    __syncthreads();
    u64 before = 0;
    total = 0;
    for (int w = 0; w < WARPS; w++) {
        if (w < warp) before += s.parts[w];
        total += s.parts[w];
    }
    u64 uniform = __umul64hi(philox(draw.key, draw.position), total);
    if (before <= uniform && uniform < before + own) {
        for (u32 start = first; start < last; start += 32) {
            u32 id = start + lane;
            u64 through = warp_scan(id < last ? row.weight(id) : 0);
            u32 above = __ballot_sync(FULL_MASK, before + through > uniform);
            if (above) {
                if (lane == 0) s.chosen = start + __ffs(above) - 1;
                break;
            }
            before += __shfl_sync(FULL_MASK, through, 31);
        }
    }
    // Hazard: reading the id that one warp found.
    __syncthreads();
    return (u32)s.chosen;
}

// One draw per thread block.
//   logits [rows][pitch]; size: the vocabulary; history: ids of all draws; scratch [rows][size].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sample(const float* logits, u32 pitch, u32 size, const Draw* draws, const u32* history, float* scratch, Drawn* drawn) {
    __shared__ Shared s;
    Draw draw = draws[blockIdx.x];
    const float* raw = logits + (u64)draw.row * pitch;
    MostLikely best = find_most_likely(raw, size, s);
    float raw_max = best.logit;
    Row row = {raw, size, raw_max, draw.scale, 0, 0};
    Drawn result = {};
    if (best.usable) {
        result.sum = sum_exp(raw, size, raw_max, s);
        if (draw.confidence) sum_below(raw, size, raw_max, result, s);
        if (draw.history_len) {
            float* penalised = scratch + (u64)draw.scratch * size;
            penalise(raw, size, draw, history, penalised);
            best = find_most_likely(penalised, size, s);
            row.logits = penalised;
            row.max_logit = best.logit;
        }
    }
    result.token = best.token;
    result.total = result.weight = 1;
    if (!best.usable) {
        result.bad = 1;
        result.value = best.logit;
    } else {
        if (draw.scale >= 0) {
            filter(row, draw, s);
            result.token = draw_token(row, draw, result.total, s);
            result.weight = row.weight(result.token);
        }
        result.below = raw[result.token] - raw_max;
    }
    if (threadIdx.x == 0) drawn[blockIdx.x] = result;
}

// Substitutes the tokens of rows that wait for a draw: substitution {row, draw} puts the token of
// drawn[draw] into rows[row]. A failed draw gives the id it reports, which is in the vocabulary
// too.
extern "C" __global__ void __launch_bounds__(SUBSTITUTE_THREADS)
    substitute_tokens(const uint2* substitutions, u32 count, const Drawn* drawn, uint4* rows) {
    u32 i = blockIdx.x * SUBSTITUTE_THREADS + threadIdx.x;
    if (i < count) rows[substitutions[i].x].x = drawn[substitutions[i].y].token;
}
