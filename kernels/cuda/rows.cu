// Row-wise operations: embedding, RMS norm, QK norm, rotary embedding with the append to the KV
// cache, gated activations, ReLU, gathering of outputs, copies of blocks.
//
// Tiling: one block of 128 threads per row (rope and QK norm: a warp per head; copies: a block per
// 16 KiB). A thread takes eight consecutive elements at a time.
//
// Layout: activations are row-major with a pitch (elements) that is a multiple of 8, f32 or bf16;
// vectors are f32, padded with zeros to a multiple of 8. A KV block is
// [layer][K, V][kv head][token][head_dim] bf16. `rows` metadata is {token, position, block, offset},
// block = 0xffffffff for a row that writes nothing.
//
// Numerics: f32; a sum of squares is added per thread in column order, then by a butterfly over the
// warp, then over the warps in order, the same whatever the other rows are. Rounded to nearest even
// where the output is bf16; K is rotated in f32 and rounded once.
//
// Budget, bytes per row (e = bytes per element): embed 2 cols + e cols; norm (e_in + e_out) cols
// (the second reading hits L1); rope 4 (heads + kv_heads) D + 8 kv_heads D; gated 6 cols; gather
// 2 e cols. A few FLOPs per element: all are memory-bound. The residual connection is not here: the
// linear layer before it accumulates into the stream (linear.cu).
//
// Constants from the host (`cuda/catalog.rs`): THREADS, COPY_BLOCK_BYTES.
#include "common.cuh"

template <class To>
DEVICE void embed(const bf16* table, u32 table_pitch, const uint4* rows, float scale, To* out, u32 pitch, u32 cols) {
    const bf16* from = table + (u64)rows[blockIdx.x].x * table_pitch;
    To* to = out + (u64)blockIdx.x * pitch;
    for (u32 c = threadIdx.x * 8; c < cols; c += THREADS * 8) {
        float v[8];
        load8(from + c, v);
        for (int i = 0; i < 8; i++) v[i] *= scale;
        store8(to + c, v);
    }
}

template <bool ADD, class From, class To>
DEVICE void rms_norm(const From* x, u32 x_pitch, const float* weight, float eps, To* out, u32 pitch, u32 cols) {
    __shared__ float sums[THREADS / 32];
    const From* from = x + (u64)blockIdx.x * x_pitch;
    To* to = out + (u64)blockIdx.x * pitch;
    float sum = 0;
    for (u32 c = threadIdx.x * 8; c < cols; c += THREADS * 8) {
        float v[8];
        load8(from + c, v);
        for (int i = 0; i < 8; i++)
            if (c + i < cols) sum += v[i] * v[i];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    // Hazard: reading the sums of other warps.
    __syncthreads();
    sum = 0;
    for (int w = 0; w < THREADS / 32; w++) sum += sums[w];
    float scale = rsqrtf(sum / cols + eps);
    for (u32 c = threadIdx.x * 8; c < cols; c += THREADS * 8) {
        float v[8], w[8];
        load8(from + c, v);
        load8(weight + c, w);
        for (int i = 0; i < 8; i++) v[i] = v[i] * scale * w[i];
        if constexpr (ADD) {
            float old[8];
            load8(to + c, old);
            for (int i = 0; i < 8; i++) v[i] += old[i];
        }
        store8(to + c, v);
    }
}

template <class From, class To>
DEVICE void gather(const From* x, u32 x_pitch, const u32* outputs, To* out, u32 pitch, u32 cols) {
    const From* from = x + (u64)outputs[blockIdx.x] * x_pitch;
    To* to = out + (u64)blockIdx.x * pitch;
    for (u32 c = threadIdx.x * 8; c < cols; c += THREADS * 8) {
        float v[8];
        load8(from + c, v);
        store8(to + c, v);
    }
}

template <Activation A, class From, class To>
DEVICE void gated(const From* gate_up, u32 gate_up_pitch, To* out, u32 pitch, u32 cols) {
    const From* from = gate_up + (u64)blockIdx.x * gate_up_pitch;
    To* to = out + (u64)blockIdx.x * pitch;
    if (cols % 8 == 0) {
        for (u32 c = threadIdx.x * 8; c < cols; c += THREADS * 8) {
            float gate[8], up[8];
            load8(from + c, gate);
            load8(from + cols + c, up);
            for (int i = 0; i < 8; i++) gate[i] = activation<A>(gate[i]) * up[i];
            store8(to + c, gate);
        }
    } else {
        for (u32 c = threadIdx.x; c < cols; c += THREADS)
            store(to + c, activation<A>(load(from + c)) * load(from + cols + c));
    }
}

template <class T> DEVICE void relu(T* x, u32 pitch, u32 cols) {
    T* row = x + (u64)blockIdx.x * pitch;
    for (u32 c = threadIdx.x; c < cols; c += THREADS) {
        float v = load(row + c);
        if (v < 0) store(row + c, 0.0f);
    }
}

// Normalises every Q and K head of a row of qkv in place.
template <class T>
DEVICE void qk_norm(T* qkv, u32 pitch, const float* q_weight, const float* k_weight, float eps, u32 heads, u32 kv_heads, u32 head_dim) {
    u32 lane = threadIdx.x % 32;
    for (u32 head = threadIdx.x / 32; head < heads + kv_heads; head += THREADS / 32) {
        T* x = qkv + (u64)blockIdx.x * pitch + head * head_dim;
        const float* weight = head < heads ? q_weight : k_weight;
        float sum = 0;
        for (u32 i = lane * 2; i < head_dim; i += 64) {
            float2 v = load2(x + i);
            sum += v.x * v.x + v.y * v.y;
        }
        float scale = rsqrtf(warp_sum(sum) / head_dim + eps);
        for (u32 i = lane * 2; i < head_dim; i += 64) {
            float2 v = load2(x + i);
            store2(x + i, v.x * scale * weight[i], v.y * scale * weight[i + 1]);
        }
    }
}

// Rotates Q in place and K on its way into the cache; copies V there.
template <class T>
DEVICE void rope_and_append(T* qkv, u32 pitch, const float* cos, const float* sin, const uint4* rows, u8* arena, u64 unit_bytes, u64 layer_at, u32 heads, u32 kv_heads, u32 head_dim, u32 block_tokens) {
    uint4 row = rows[blockIdx.x];
    u32 lane = threadIdx.x % 32, half = head_dim / 2;
    T* from = qkv + (u64)blockIdx.x * pitch;
    bf16* block = (bf16*)(arena + row.z * unit_bytes + layer_at);
    cos += (u64)row.y * half;
    sin += (u64)row.y * half;
    for (u32 head = threadIdx.x / 32; head < heads + 2 * kv_heads; head += THREADS / 32) {
        T* x = from + head * head_dim;
        if (head < heads + kv_heads) {
            bf16* k = block + ((u64)(head - heads) * block_tokens + row.w) * head_dim;
            for (u32 i = lane * 2; i < half; i += 64) {
                float2 a = load2(x + i), b = load2(x + half + i);
                float2 c = load2(cos + i), s = load2(sin + i);
                float ax = a.x * c.x - b.x * s.x, ay = a.y * c.y - b.y * s.y;
                float bx = b.x * c.x + a.x * s.x, by = b.y * c.y + a.y * s.y;
                if (head < heads) {
                    store2(x + i, ax, ay);
                    store2(x + half + i, bx, by);
                } else if (row.z != 0xffffffffu) {
                    store2(k + i, ax, ay);
                    store2(k + half + i, bx, by);
                }
            }
        } else if (row.z != 0xffffffffu) {
            // V's heads follow K's.
            bf16* v = block + ((u64)(head - heads) * block_tokens + row.w) * head_dim;
            for (u32 i = lane * 2; i < head_dim; i += 64) {
                float2 a = load2(x + i);
                store2(v + i, a.x, a.y);
            }
        }
    }
}

#define EMBED(name, To)                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 8)                                                 \
        name(const bf16* table, u32 table_pitch, const uint4* rows, float scale, To* out, u32 pitch,      \
             u32 cols) {                                                                                  \
        embed(table, table_pitch, rows, scale, out, pitch, cols);                                         \
    }
EMBED(embed_f32, float)
EMBED(embed_bf16, bf16)

#define NORM(name, ADD, From, To)                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS, 8)                                                 \
        name(const From* x, u32 x_pitch, const float* weight, float eps, To* out, u32 pitch, u32 cols) {  \
        rms_norm<ADD>(x, x_pitch, weight, eps, out, pitch, cols);                                         \
    }
NORM(rms_norm_f32_f32, false, float, float)
NORM(rms_norm_f32_bf16, false, float, bf16)
NORM(rms_norm_bf16_f32, false, bf16, float)
NORM(rms_norm_bf16_bf16, false, bf16, bf16)
NORM(add_rms_norm_f32_f32, true, float, float)
NORM(add_rms_norm_bf16_f32, true, bf16, float)

#define GATHER(name, From, To)                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 8)                                                 \
        name(const From* x, u32 x_pitch, const u32* outputs, To* out, u32 pitch, u32 cols) {              \
        gather(x, x_pitch, outputs, out, pitch, cols);                                                    \
    }
GATHER(gather_f32_f32, float, float)
GATHER(gather_f32_bf16, float, bf16)
GATHER(gather_bf16_f32, bf16, float)
GATHER(gather_bf16_bf16, bf16, bf16)

#define GATED(name, A, From, To)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, 8)                                                 \
        name(const From* gate_up, u32 gate_up_pitch, To* out, u32 pitch, u32 cols) {                      \
        gated<A>(gate_up, gate_up_pitch, out, pitch, cols);                                               \
    }
GATED(silu_f32_f32, SILU, float, float)
GATED(silu_f32_bf16, SILU, float, bf16)
GATED(silu_bf16_f32, SILU, bf16, float)
GATED(silu_bf16_bf16, SILU, bf16, bf16)
GATED(gelu_tanh_f32_f32, GELU_TANH, float, float)
GATED(gelu_tanh_f32_bf16, GELU_TANH, float, bf16)
GATED(gelu_tanh_bf16_f32, GELU_TANH, bf16, float)
GATED(gelu_tanh_bf16_bf16, GELU_TANH, bf16, bf16)

#define IN_PLACE(suffix, T)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 8) relu_##suffix(T* x, u32 pitch, u32 cols) {      \
        relu(x, pitch, cols);                                                                             \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 8)                                                 \
        qk_norm_##suffix(T* qkv, u32 pitch, const float* q_weight, const float* k_weight, float eps,      \
                         u32 heads, u32 kv_heads, u32 head_dim) {                                         \
        qk_norm(qkv, pitch, q_weight, k_weight, eps, heads, kv_heads, head_dim);                          \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 8)                                                 \
        rope_and_append_##suffix(T* qkv, u32 pitch, const float* cos, const float* sin,                   \
                                 const uint4* rows, u8* arena, u64 unit_bytes, u64 layer_at, u32 heads,   \
                                 u32 kv_heads, u32 head_dim, u32 block_tokens) {                          \
        rope_and_append(qkv, pitch, cos, sin, rows, arena, unit_bytes, layer_at, heads, kv_heads,         \
                        head_dim, block_tokens);                                                          \
    }
IN_PLACE(f32, float)
IN_PLACE(bf16, bf16)

// Copies whole blocks, all layers: pairs of {from, to} in units, a row of thread blocks per pair.
extern "C" __global__ void __launch_bounds__(THREADS, 8)
    copy_blocks(u8* arena, const uint2* pairs, u64 unit_bytes, u32 block_bytes) {
    uint2 pair = pairs[blockIdx.y];
    const uint4* from = (const uint4*)(arena + pair.x * unit_bytes);
    uint4* to = (uint4*)(arena + pair.y * unit_bytes);
    constexpr u32 COUNT = COPY_BLOCK_BYTES / 16;
    u32 first = blockIdx.x * COUNT, last = min(first + COUNT, block_bytes / 16);
    for (u32 i = first + threadIdx.x; i < last; i += THREADS) to[i] = from[i];
}
