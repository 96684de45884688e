// Drawing tokens from logits: the exact arithmetic of `src/sampling.rs`, so that equal logits give
// the CPU's tokens; and feeding what was drawn to the next step.
//
// Tiling: a block of 512 threads per draw; thread t takes the ids t, t + 512, ... of a pass, except in
// the last one, where every warp owns a stretch of consecutive ids. Filters are thresholds in the
// order of likelihood (larger logit, then lower id), found by radix selection over the 64-bit rank,
// eight bits a pass, counting tokens (top-k) or adding weights (top-p).
// Layout: logits [rows][pitch] f32; one Draw and one Drawn per draw; penalised logits go to a scratch
// row of their own.
// Numerics: weights are integers, floor(2^30 2^x) with the polynomial of `src/exp2.rs`, every operation
// rounded on its own; their sums are exact in 64 bits, so the order of adding is free. The sum
// for the log-probability is f64, within one f64 rounding or so of the CPU's.
// Budget: 4 vocabulary bytes per pass; 4 passes without filters, 8 more for each of top-k and top-p (the
// row is read from L2 after the first). About 20 operations per token and pass.
#include "common.cuh"

constexpr int THREADS = 512, WARPS = THREADS / 32;
constexpr float ONE = 1073741824.0f;
constexpr float LOG2_E = 1.44269504088896340736f;

// Keep both in step with `cuda/sample.rs`.
struct Draw {
    u64 key;
    u64 position;
    double top_p;
    u32 row;
    u32 top_k;
    u32 history;      // the first of its ids
    u32 history_len;  // 0: no penalty
    float scale;      // log2(e) / temperature; negative: greedy
    float penalty;
    u32 least;        // smallest weight that min-p keeps
    u32 scratch;      // scratch row
};
struct Drawn {
    double sum;    // of e^(l - max) over the row
    float below;   // l[token] - max
    u32 token;
    u32 bad;       // 1: the logits are unusable, `token` is the first that is
    float value;   // its logit
};

struct Shared {
    u64 parts[WARPS];
    double sums[WARPS];
    u64 buckets[256];
    u64 chosen, rest;
};

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

DEVICE u32 weigh(float logit, float max, float scale) {
    return (u32)__float2int_rz(__fmul_rn(exp2_exact(__fmul_rn(__fsub_rn(logit, max), scale)), ONE));
}

// Larger the more likely; never equal for two ids.
DEVICE u64 rank(float logit, u32 id) {
    u32 bits = __float_as_uint(__fadd_rn(logit, 0.0f));
    u32 ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)ordered << 32 | (u32)~id;
}

template <class F> DEVICE u64 all(u64 v, Shared& s, F both) {
    for (int d = 16; d; d >>= 1) v = both(v, __shfl_xor_sync(FULL_MASK, v, d));
    __syncthreads();
    if (threadIdx.x % 32 == 0) s.parts[threadIdx.x / 32] = v;
    __syncthreads();
    v = s.parts[0];
    for (int w = 1; w < WARPS; w++) v = both(v, s.parts[w]);
    return v;
}
DEVICE u64 sum_all(u64 v, Shared& s) {
    return all(v, s, [](u64 a, u64 b) { return a + b; });
}
DEVICE u64 max_all(u64 v, Shared& s) {
    return all(v, s, [](u64 a, u64 b) { return a > b ? a : b; });
}
DEVICE double sum_all(double v, Shared& s) {
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(FULL_MASK, v, d);
    __syncthreads();
    if (threadIdx.x % 32 == 0) s.sums[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int w = 0; w < WARPS; w++) v += s.sums[w];
    return v;
}

// The rank of the most likely token; `first_bad` becomes the first NaN or +infinity, or the size.
DEVICE u64 most_likely(const float* logits, u32 size, u32& first_bad, Shared& s) {
    u64 most = 0, good = ~0ull;
    for (u32 id = threadIdx.x; id < size; id += THREADS) {
        float l = logits[id];
        if (l != l || l == INFINITY_F) {
            if (good == ~0ull) good = id;
        } else {
            u64 r = rank(l, id);
            most = r > most ? r : most;
        }
    }
    good = all(good, s, [](u64 a, u64 b) { return a < b ? a : b; });
    first_bad = good == ~0ull ? size : (u32)good;
    return max_all(most, s);
}

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

// The row a draw is made from.
struct Row {
    const float* logits;
    u32 size;
    float max, scale;
    u64 threshold;  // ranks below are out
    u32 least;      // weights below are out
    DEVICE u32 weight(u32 id) const {
        float l = logits[id];
        u32 w = weigh(l, max, scale);
        return w >= least && rank(l, id) >= threshold ? w : 0;
    }
};

// The largest threshold at which what is kept, counted or weighed, reaches `target` (which all of it
// does). Weights of zero do not take part.
template <bool WEIGHED> DEVICE u64 select(const Row& row, u64 target, Shared& s) {
    u64 prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        __syncthreads();
        if (threadIdx.x < 256) s.buckets[threadIdx.x] = 0;
        __syncthreads();
        for (u32 id = threadIdx.x; id < row.size; id += THREADS) {
            u64 r = rank(row.logits[id], id);
            if (shift < 56 && r >> (shift + 8) != prefix >> (shift + 8)) continue;
            u32 w = row.weight(id);
            if (w) atomicAdd(&s.buckets[r >> shift & 255], WEIGHED ? (u64)w : 1ull);
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            // Lane l holds the buckets 255 - 8 l down to 248 - 8 l: the most likely first.
            u32 lane = threadIdx.x;
            u64 own = 0;
            for (int i = 0; i < 8; i++) own += s.buckets[255 - (lane * 8 + i)];
            u64 through = own;
            for (int d = 1; d < 32; d <<= 1) {
                u64 other = __shfl_up_sync(FULL_MASK, through, d);
                if (lane >= d) through += other;
            }
            u64 before = through - own;
            if (before < target && through >= target) {
                int i = 0;
                for (;; i++) {
                    u64 here = s.buckets[255 - (lane * 8 + i)];
                    if (before + here >= target) break;
                    before += here;
                }
                s.chosen = 255 - (lane * 8 + i);
                s.rest = target - before;
            }
        }
        __syncthreads();
        prefix |= s.chosen << shift;
        target = s.rest;
    }
    return prefix;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sample(const float* all_logits, u32 pitch, u32 size, const Draw* draws, const u32* history, float* scratch, Drawn* drawn) {
    __shared__ Shared s;
    Draw draw = draws[blockIdx.x];
    const float* raw = all_logits + (u64)draw.row * pitch;
    Drawn result = {};
    u32 first_bad;
    u64 best = most_likely(raw, size, first_bad, s);
    u32 token = ~(u32)best;
    // Nothing but NaN: rank 0 stands for no token at all.
    float raw_max = first_bad < size || best == 0 ? 0.0f : raw[token];
    if (first_bad < size || raw_max == -INFINITY_F) {
        result.bad = 1;
        result.token = first_bad < size ? first_bad : 0;
        result.value = raw[result.token];
        if (threadIdx.x == 0) drawn[blockIdx.x] = result;
        return;
    }
    double part = 0;
    for (u32 id = threadIdx.x; id < size; id += THREADS) part += exp2_exact(__fmul_rn(__fsub_rn(raw[id], raw_max), LOG2_E));
    result.sum = sum_all(part, s);

    Row row = {raw, size, raw_max, draw.scale, 0, 0};
    if (draw.history_len) {
        float* own = scratch + (u64)draw.scratch * size;
        for (u32 id = threadIdx.x; id < size; id += THREADS) own[id] = raw[id];
        __syncthreads();
        for (u32 i = threadIdx.x; i < draw.history_len; i += THREADS) {
            u32 id = history[draw.history + i];
            own[id] = own[id] > 0 ? __fdiv_rn(own[id], draw.penalty) : __fmul_rn(own[id], draw.penalty);
        }
        __syncthreads();
        row.logits = own;
        token = ~(u32)(best = most_likely(own, size, first_bad, s));
        row.max = first_bad < size || best == 0 ? 0.0f : own[token];
        if (first_bad < size || row.max == -INFINITY_F) {
            result.bad = 1;
            result.token = first_bad < size ? first_bad : 0;
            result.value = own[result.token];
            if (threadIdx.x == 0) drawn[blockIdx.x] = result;
            return;
        }
    }

    if (draw.scale >= 0) {
        u64 total = 0, count = 0;
        for (u32 id = threadIdx.x; id < size; id += THREADS) {
            u32 w = row.weight(id);
            total += w;
            count += w > 0;
        }
        total = sum_all(total, s);
        if (draw.top_k > 0 && draw.top_k < size) {
            count = sum_all(count, s);
            if (draw.top_k < count) {
                row.threshold = select<false>(row, draw.top_k, s);
                total = 0;
                for (u32 id = threadIdx.x; id < size; id += THREADS) total += row.weight(id);
                total = sum_all(total, s);
            }
        }
        if (draw.top_p < 1.0) {
            u64 target = (u64)ceil(__dmul_rn(draw.top_p, (double)total));
            row.threshold = select<true>(row, target > 0 ? target : 1, s);
        }
        row.least = draw.least;

        u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        u32 stretch = (size + THREADS - 1) / THREADS * 32, first = warp * stretch, last = min(first + stretch, size);
        u64 own = 0;
        for (u32 id = first + lane; id < last; id += 32) own += row.weight(id);
        for (int d = 16; d; d >>= 1) own += __shfl_xor_sync(FULL_MASK, own, d);
        __syncthreads();
        if (lane == 0) s.parts[warp] = own;
        __syncthreads();
        u64 before = 0, kept = 0;
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) before += s.parts[w];
            kept += s.parts[w];
        }
        u64 r = __umul64hi(philox(draw.key, draw.position), kept);
        if (before <= r && r < before + own) {
            for (u32 at = first; at < last; at += 32) {
                u32 id = at + lane;
                u64 through = id < last ? row.weight(id) : 0;
                for (int d = 1; d < 32; d <<= 1) {
                    u64 other = __shfl_up_sync(FULL_MASK, through, d);
                    if (lane >= d) through += other;
                }
                u32 above = __ballot_sync(FULL_MASK, before + through > r);
                if (above) {
                    if (lane == 0) s.chosen = at + __ffs(above) - 1;
                    break;
                }
                before += __shfl_sync(FULL_MASK, through, 31);
            }
        }
        __syncthreads();
        token = (u32)s.chosen;
    }
    result.token = token;
    result.below = raw[token] - raw_max;
    if (threadIdx.x == 0) drawn[blockIdx.x] = result;
}

// The rows of a plan go on with drawn tokens: feed i puts draw `feeds[i].y` into row `feeds[i].x`. A
// draw that failed gives the id it complains about, which is in the vocabulary too.
extern "C" __global__ void __launch_bounds__(128)
    feed(const uint2* feeds, u32 count, const Drawn* drawn, uint4* rows) {
    u32 i = blockIdx.x * 128 + threadIdx.x;
    if (i < count) rows[feeds[i].x].x = drawn[feeds[i].y].token;
}
