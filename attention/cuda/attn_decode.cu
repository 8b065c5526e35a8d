/* Attention of few queries over many keys: a caption's next token. The keys and values are read once and little is computed
 * with them, so memory is the floor: the keys are split over all multiprocessors, and the partials merged by a second kernel.
 *
 * All query heads of a group, and all queries, are rows of one tile of 16, so that they share what is read. A warp goes through
 * its keys 16 at a time, from device memory straight into the operands of mma.m16n8k16 (bf16, compute_80), with no shared
 * memory in between:
 *
 *   scores   a lane reads 8 neighbouring channels of a key, 16 bytes. The order of the summed channels is free as long as
 *            queries and keys agree, so these are what it owes to two products
 *   output   a lane reads 8 neighbouring channels of four keys. They go to eight products, channel by channel; the order of
 *            the result's columns is free as well
 *
 * The next 16 keys are asked for as soon as the registers are free. The number of splits follows from shapes and the chip, so
 * that a call gives the same bits again.
 *
 * Not chosen yet (attn_cuda.c): it compiles, and has not run on a GPU. tests/bench_attention_cuda.py has its checks. */
#include <math_constants.h>

#include "attention/cuda/attn_cuda.h"

namespace
{

enum { ROWS = 16, STEP = 16, WARPS = 4, MAX_TILES = 2 };

struct params {
    attn_array  q;
    attn_keys   source[ATTN_MAX_SOURCES];
    attn_result out;
    int         n_sources, n_q, A, A_kv, group, rows; /* rows: n_q · group */
    int         steps, splits;                        /* steps of STEP keys, over all sources */
    float       scale_log2;
    float      *part_o, *part_lse; /* [splits][B · A · n_q] of D, of 1; unused where splits is 1 */
};

constexpr float LOG2E = 1.44269504f, LN2 = 0.693147181f;

__device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ uint32_t pack(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Query and head of a row. */
__device__ __forceinline__ void row_place(const params &p, int row, int kv, int &i, int &h)
{
    i = row / p.group;
    h = kv * p.group + row - i * p.group;
}

__device__ __forceinline__ void put(const attn_result &to, int b, int i, int h, int d, float x)
{
    const int64_t at = b * to.o.b + i * to.o.n + h * to.o.a + d;

    if (to.o.type == GV_F32)
        ((float *)to.o.data)[at] = x;
    else
        ((uint16_t *)to.o.data)[at] = (uint16_t)pack(x, 0);
}

/* A warp's way through the keys. */
struct cursor {
    int source, start; /* of the next step */
};
__device__ __forceinline__ void skip_empty(const params &p, cursor &c)
{
    while (c.source < p.n_sources && c.start >= p.source[c.source].n) {
        c.source++;
        c.start = 0;
    }
}
__device__ __forceinline__ cursor cursor_at(const params &p, int step)
{
    cursor c = { 0, 0 };

    for (; c.source < p.n_sources; c.source++) {
        const int steps = (int)((p.source[c.source].n + STEP - 1) / STEP);
        if (step < steps)
            break;
        step -= steps;
    }
    c.start = step * STEP;
    return c;
}

/* 16 bytes of key `key`, or of the last one. */
__device__ __forceinline__ uint4 load(const attn_array &x, int64_t n, int key, int b, int kv, int d)
{
    const int64_t at = b * x.b + min((int64_t)key, n - 1) * x.n + kv * x.a + d;

    return __ldg((const uint4 *)((const uint16_t *)x.data + at));
}

template <int D> struct operands {
    uint4 k[2][D / 32]; /* keys g, 8 + g; channels 32c + 8t .. + 7 */
    uint4 v[D / 64][4]; /* keys 2t, 2t + 1, 2t + 8, 2t + 9; channels 64h + 8g .. + 7 */
};
template <int D> __device__ __forceinline__ void load_keys(operands<D> &x, const params &p, cursor c, int b, int kv, int lane)
{
    const attn_keys &s = p.source[c.source];
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < D / 32; i++)
            x.k[j][i] = load(s.k, s.n, c.start + 8 * j + lane / 4, b, kv, 32 * i + 8 * (lane & 3));
}
template <int D> __device__ __forceinline__ void load_values(operands<D> &x, const params &p, cursor c, int b, int kv, int lane)
{
    const attn_keys &s = p.source[c.source];
#pragma unroll
    for (int h = 0; h < D / 64; h++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            x.v[h][j] = load(s.v, s.n, c.start + 2 * (lane & 3) + j % 2 + j / 2 * 8, b, kv, 64 * h + 8 * (lane / 4));
}

/* Scores of 16 keys, in powers of two; keys behind the end are -inf. */
template <int D>
__device__ __forceinline__ void scores(float (&s)[2][4], const uint4 (&q)[2][D / 32], const operands<D> &x, const params &p,
                                       cursor c, int lane)
{
    const attn_keys &source = p.source[c.source];
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[j][e] = 0;
#pragma unroll
        for (int i = 0; i < D / 32; i++) {
            mma(s[j], q[0][i].x, q[1][i].x, q[0][i].y, q[1][i].y, x.k[j][i].x, x.k[j][i].y);
            mma(s[j], q[0][i].z, q[1][i].z, q[0][i].w, q[1][i].w, x.k[j][i].z, x.k[j][i].w);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = c.start + 8 * j + 2 * (lane & 3) + e % 2;
            if (key >= source.n) {
                s[j][e] = -CUDART_INF_F;
                continue;
            }
            float add = source.log_weight;
            if (source.key_bias)
                add += source.key_bias[key];
            s[j][e] = fmaf(s[j][e], p.scale_log2, add * LOG2E);
        }
    }
}

/* Words of two keys' channels 2w, 2w + 1 → channel by channel. */
__device__ __forceinline__ uint32_t low(uint32_t a, uint32_t b)
{
    return __byte_perm(a, b, 0x5410);
}
__device__ __forceinline__ uint32_t high(uint32_t a, uint32_t b)
{
    return __byte_perm(a, b, 0x7632);
}

template <int D> struct state {
    float o[D / 64][8][4]; /* [h][i]: channels 64h + 8 · 2t + i and 64h + 8 (2t + 1) + i of rows g and g + 8 */
    float m[2], l[2];
};

template <int D> __device__ __forceinline__ void accumulate(state<D> &x, float (&s)[2][4], const operands<D> &in)
{
    float keep[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float m = fmaxf(fmaxf(s[0][2 * r], s[0][2 * r + 1]), fmaxf(s[1][2 * r], s[1][2 * r + 1]));
        m = fmaxf(m, __shfl_xor_sync(0xffffffff, m, 1));
        m = fmaxf(x.m[r], fmaxf(m, __shfl_xor_sync(0xffffffff, m, 2)));
        const float base = m == -CUDART_INF_F ? 0 : m;
        keep[r] = exp2_fast(x.m[r] - base);
        x.m[r] = m;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                s[j][2 * r + e] = exp2_fast(s[j][2 * r + e] - base);
                sum += s[j][2 * r + e];
            }
        x.l[r] = fmaf(x.l[r], keep[r], sum);
    }
    if (__any_sync(0xffffffff, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
        for (int h = 0; h < D / 64; h++)
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    x.o[h][i][e] *= keep[e / 2];
    }
    const uint32_t a0 = pack(s[0][0], s[0][1]), a1 = pack(s[0][2], s[0][3]);
    const uint32_t a2 = pack(s[1][0], s[1][1]), a3 = pack(s[1][2], s[1][3]);
#pragma unroll
    for (int h = 0; h < D / 64; h++) {
        const uint4 *v = in.v[h];
        mma(x.o[h][0], a0, a1, a2, a3, low(v[0].x, v[1].x), low(v[2].x, v[3].x));
        mma(x.o[h][1], a0, a1, a2, a3, high(v[0].x, v[1].x), high(v[2].x, v[3].x));
        mma(x.o[h][2], a0, a1, a2, a3, low(v[0].y, v[1].y), low(v[2].y, v[3].y));
        mma(x.o[h][3], a0, a1, a2, a3, high(v[0].y, v[1].y), high(v[2].y, v[3].y));
        mma(x.o[h][4], a0, a1, a2, a3, low(v[0].z, v[1].z), low(v[2].z, v[3].z));
        mma(x.o[h][5], a0, a1, a2, a3, high(v[0].z, v[1].z), high(v[2].z, v[3].z));
        mma(x.o[h][6], a0, a1, a2, a3, low(v[0].w, v[1].w), low(v[2].w, v[3].w));
        mma(x.o[h][7], a0, a1, a2, a3, high(v[0].w, v[1].w), high(v[2].w, v[3].w));
    }
}

/* What the warps of a block leave for each other. */
template <int D> struct block_memory {
    float o[WARPS][ROWS][D];
    float m[WARPS][ROWS], l[WARPS][ROWS];
};

template <int D> __device__ __forceinline__ void leave(block_memory<D> &to, const state<D> &x, int warp, int lane)
{
    const int g = lane / 4, t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float l = x.l[r];
        l += __shfl_xor_sync(0xffffffff, l, 1);
        l += __shfl_xor_sync(0xffffffff, l, 2);
        if (t == 0) {
            to.m[warp][g + 8 * r] = x.m[r];
            to.l[warp][g + 8 * r] = l;
        }
#pragma unroll
        for (int h = 0; h < D / 64; h++)
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    to.o[warp][g + 8 * r][64 * h + 8 * (2 * t + e) + i] = x.o[h][i][2 * r + e];
    }
}

/* Grid: splits, tiles of ROWS rows, B · A_kv. */
template <int D> __global__ void __launch_bounds__(32 * WARPS, 2) decode(const __grid_constant__ params p)
{
    __shared__ block_memory<D> shared;
    const int                  warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    const int                  b = blockIdx.z / p.A_kv, kv = blockIdx.z - b * p.A_kv, row0 = blockIdx.y * ROWS;
    const int                  worker = blockIdx.x * WARPS + warp, workers = p.splits * WARPS;
    const int                  first = (int)((int64_t)p.steps * worker / workers);
    int                        left = (int)((int64_t)p.steps * (worker + 1) / workers) - first;

    uint4 q[2][D / 32];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int i, h;
        row_place(p, min(row0 + lane / 4 + 8 * r, p.rows - 1), kv, i, h);
#pragma unroll
        for (int c = 0; c < D / 32; c++)
            q[r][c] = load(p.q, p.n_q, i, b, h, 32 * c + 8 * (lane & 3));
    }

    state<D>    x = { {}, { -CUDART_INF_F, -CUDART_INF_F }, { 0, 0 } };
    operands<D> in;
    cursor      at = cursor_at(p, first);
    skip_empty(p, at);
    if (left > 0) {
        load_keys<D>(in, p, at, b, kv, lane);
        load_values<D>(in, p, at, b, kv, lane);
    }
    while (left > 0) {
        float  s[2][4];
        cursor next = { at.source, at.start + STEP };
        left--;
        if (left > 0)
            skip_empty(p, next);
        scores<D>(s, q, in, p, at, lane);
        if (left > 0)
            load_keys<D>(in, p, next, b, kv, lane);
        accumulate<D>(x, s, in);
        if (left > 0)
            load_values<D>(in, p, next, b, kv, lane);
        at = next;
    }

    leave<D>(shared, x, warp, lane);
    __syncthreads();
    for (int j = threadIdx.x; j < ROWS * D; j += 32 * WARPS) {
        const int r = j / D, d = j % D, row = row0 + r;
        if (row >= p.rows)
            break;
        float m = -CUDART_INF_F, l = 0, o = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            m = fmaxf(m, shared.m[w][r]);
        const float base = m == -CUDART_INF_F ? 0 : m;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float weight = exp2_fast(shared.m[w][r] - base);
            l = fmaf(weight, shared.l[w][r], l);
            o = fmaf(weight, shared.o[w][r][d], o);
        }
        o = l == 0 ? 0 : o / l;
        const float lse = l == 0 ? -CUDART_INF_F : m * LN2 + logf(l);
        int         i, h;
        row_place(p, row, kv, i, h);
        if (p.splits == 1) {
            put(p.out, b, i, h, d, o);
            if (d == 0 && p.out.lse.data)
                p.out.lse.data[b * p.out.lse.b + h * p.out.lse.a + i] = lse;
            continue;
        }
        const int64_t all = ((int64_t)b * p.A + h) * p.n_q + i, B = gridDim.z / p.A_kv;
        const int64_t to = blockIdx.x * (B * p.A * p.n_q) + all;
        p.part_o[to * D + d] = o;
        if (d == 0)
            p.part_lse[to] = lse;
    }
}

/* One warp a row of [B, A, n_q]: the union of its splits. */
template <int D> __global__ void __launch_bounds__(32 * WARPS) unite(const __grid_constant__ params p, int64_t n)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const int     lane = threadIdx.x & 31;

    if (row >= n)
        return;
    float m = -CUDART_INF_F;
    for (int s = lane; s < p.splits; s += 32)
        m = fmaxf(m, p.part_lse[s * n + row]);
#pragma unroll
    for (int i = 16; i; i /= 2)
        m = fmaxf(m, __shfl_xor_sync(0xffffffff, m, i));
    const float base = m == -CUDART_INF_F ? 0 : m;
    float       l = 0, o[D / 32] = {};
    for (int s = 0; s < p.splits; s++) {
        const float weight = expf(p.part_lse[s * n + row] - base);
        l += weight;
#pragma unroll
        for (int j = 0; j < D / 32; j++)
            o[j] = fmaf(weight, p.part_o[(s * n + row) * D + lane + 32 * j], o[j]);
    }
    const int64_t b = row / ((int64_t)p.A * p.n_q), h = row / p.n_q % p.A, i = row % p.n_q;
#pragma unroll
    for (int j = 0; j < D / 32; j++)
        put(p.out, (int)b, (int)i, (int)h, lane + 32 * j, l == 0 ? 0 : o[j] / l);
    if (lane == 0 && p.out.lse.data)
        p.out.lse.data[b * p.out.lse.b + h * p.out.lse.a + i] = l == 0 ? -CUDART_INF_F : m + logf(l);
}

/* ---- host ---- */

int steps_of(const attn_args *a)
{
    int64_t steps = 0;

    for (int i = 0; i < a->n_sources; i++)
        steps += (a->source[i].n + STEP - 1) / STEP;
    return (int)steps;
}
int tiles_of(const attn_args *a)
{
    return (int)((a->Nq * (a->A / a->A_kv) + ROWS - 1) / ROWS);
}
/* Enough blocks for two on each multiprocessor; at least two steps for each warp. */
int splits_of(const attn_chip *chip, const attn_args *a)
{
    const int64_t others = a->B * a->A_kv * tiles_of(a), wanted = (2 * chip->multiprocessors + others - 1) / others;
    const int64_t most = steps_of(a) / (2 * WARPS);

    return (int)(most < 1 ? 1 : wanted < most ? wanted : most);
}

bool aligned_rows(const attn_array &x)
{
    return ((uintptr_t)x.data & 15) == 0 && x.b % 8 == 0 && x.n % 8 == 0 && x.a % 8 == 0;
}

template <int D> cudaError_t launch(const params &p, const attn_args *a, cudaStream_t stream)
{
    const int64_t n = a->B * a->A * a->Nq;

    decode<D><<<dim3((unsigned)p.splits, (unsigned)tiles_of(a), (unsigned)(a->B * a->A_kv)), 32 * WARPS, 0, stream>>>(p);
    if (p.splits > 1)
        unite<D><<<(unsigned)((n + WARPS - 1) / WARPS), 32 * WARPS, 0, stream>>>(p, n);
    return cudaGetLastError();
}

} // namespace

bool gv_attn_decode_takes(const attn_chip *chip, const attn_args *a)
{
    bool ok =
        chip->major >= 8 && a->D == a->Dv && (a->D == 64 || a->D == 128) && !a->row && !a->bias && !a->q_order && !a->skip;

    ok = ok && !a->seed.o.data && !a->first.o.data && tiles_of(a) <= MAX_TILES && a->B * a->A_kv <= 65535;
    ok = ok && a->q.type == GV_BF16 && aligned_rows(a->q);
    for (int i = 0; i < a->n_sources; i++) {
        const attn_keys &s = a->source[i];
        ok = ok && s.k.type == GV_BF16 && s.v.type == GV_BF16 && aligned_rows(s.k) && aligned_rows(s.v) && s.n < 1 << 30;
    }
    return ok;
}

size_t gv_attn_decode_scratch(const attn_chip *chip, const attn_args *a)
{
    const int splits = splits_of(chip, a);

    return splits == 1 ? 0 : (size_t)splits * (size_t)(a->B * a->A * a->Nq * (a->D + 1)) * sizeof(float);
}

cudaError_t gv_attn_decode(const attn_chip *chip, const attn_args *a, void *scratch, cudaStream_t stream)
{
    params p = {};

    p.q = a->q, p.out = a->out;
    p.n_sources = a->n_sources;
    for (int i = 0; i < a->n_sources; i++)
        p.source[i] = a->source[i];
    p.n_q = (int)a->Nq, p.A = (int)a->A, p.A_kv = (int)a->A_kv;
    p.group = p.A / p.A_kv;
    p.rows = p.n_q * p.group;
    p.steps = steps_of(a);
    p.splits = splits_of(chip, a);
    p.scale_log2 = a->scale * LOG2E;
    p.part_o = (float *)scratch;
    p.part_lse = p.part_o + (size_t)p.splits * (size_t)(a->B * a->A * a->Nq * a->D);
    if (a->B * a->A * a->Nq == 0)
        return cudaSuccess;
    return a->D == 64 ? launch<64>(p, a, stream) : launch<128>(p, a, stream);
}
