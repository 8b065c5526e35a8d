/* The CUDA kernel that holds every rule of the contract, in the order of the contract's text: any head size, every source,
 * lists, masks, seeds, split points, skipped rows, permuted rows, biases, grouped queries, LSE. f32 arithmetic on plain
 * multiply-adds, so that it is the yardstick of the fast kernels and the one that what they refuse falls back on.
 *
 * A block is 32 query rows of one head. Scores of 32 rows by up to 64 keys are made in registers, their exponentials lie in
 * shared memory, and so does the unnormalised output. The head is walked in pieces of 64. The state of a row is (maximum m, sum
 * l, output o); a seed enters as m = its LSE, l = 1, o = its output, which is exact because exp(LSE - m) = 1. */
#include "attention/cuda/attn_cuda.h"
#include "core/cuda/common.cuh"

enum { ROWS = 32, KEYS = GV_KV_BLOCK, PIECE = 64, THREADS = 128, SPLIT = GV_TILE_Q / ROWS, PAD = 4 };

struct shared {
    float   q[PIECE][ROWS + PAD], kv[PIECE][KEYS + PAD], p[ROWS][KEYS + PAD];
    float   m[ROWS], l[ROWS], keep[ROWS];
    int64_t row[ROWS]; /* of q; -1 behind the end */
    float   o[];       /* [ROWS][Dv] */
};

struct segment {
    int64_t start;
    int     source, length;
    bool    masked, second;
};

struct walk {
    uint32_t at, split, end; /* entries; at = end when dense */
    bool     always;
    int      source;
    int64_t  start;
};

static __device__ __forceinline__ int64_t at_row(const struct attn_array &t, int64_t b, int64_t n, int64_t h)
{
    return b * t.b + n * t.n + h * t.a;
}

static __device__ bool next_whole(const struct attn_args &a, struct walk &w, struct segment &s)
{
    for (; w.source < a.n_sources; w.source++, w.start = 0) {
        const int64_t left = a.source[w.source].n - w.start;

        if (a.source[w.source].always != w.always || left <= 0)
            continue;
        s.start = w.start;
        s.source = w.source;
        s.length = (int)(left < KEYS ? left : KEYS);
        s.masked = false;
        s.second = false;
        w.start += KEYS;
        return true;
    }
    return false;
}

static __device__ bool next_segment(const struct attn_args &a, struct walk &w, struct segment &s)
{
    while (w.at != w.end) {
        const uint32_t    i = w.at++;
        const gv_kv_entry e = a.entries[i];

        if (e == GV_KV_PADDING)
            continue;
        s.start = e >> 10;
        s.length = (int)(e >> 4 & 63) + 1;
        s.source = (int)(e >> 1 & 7);
        s.masked = e & 1;
        s.second = a.split && i >= w.split;
        return true;
    }
    if (!w.always) {
        if (!a.row && next_whole(a, w, s))
            return true;
        w.always = true;
        w.source = 0;
        w.start = 0;
    }
    if (!next_whole(a, w, s))
        return false;
    s.second = a.split != NULL;
    return true;
}

static __device__ bool allows(const struct attn_mask &m, int64_t q, int source, int64_t k)
{
    const int64_t i = m.query_start + q, j = m.key_start[source] + k;

    switch (m.kind) {
    case MASK_CAUSAL: return j <= i + m.a && (m.b == 0 || j > i + m.a - m.b || j < m.sink);
    case MASK_WINDOW: return (j >= i - m.a && j <= i + m.b) || j < m.sink;
    case MASK_BLOCK_CAUSAL: {
        const int64_t block = i >= 0 ? i / m.a : -((-i + m.a - 1) / m.a);
        return j < (block + 1) * m.a;
    }
    case MASK_SEGMENTS: return m.allow[m.qseg[q]] >> m.kseg[k] & 1;
    default: return true;
    }
}

/* Scores of this thread's 4 rows by 4 keys into s->p, -inf where there is no pair. */
static __device__ void score(const struct attn_args &a, struct shared *s, const struct segment &g, int64_t b, int64_t h)
{
    const struct attn_keys &from = a.source[g.source];
    const int64_t           kv_head = h / (a.A / a.A_kv);
    const int               tr = threadIdx.x / 16 * 4, tk = threadIdx.x % 16 * 4;
    float                   sum[4][4] = {};

    for (int64_t d0 = 0; d0 < a.D; d0 += PIECE) {
        const int width = (int)(a.D - d0 < PIECE ? a.D - d0 : PIECE);

        for (int i = threadIdx.x; i < ROWS * PIECE; i += THREADS) {
            const int r = i / PIECE, d = i % PIECE;
            s->q[d][r] = d < width && s->row[r] >= 0 ? load(a.q.data, a.q.type, at_row(a.q, b, s->row[r], h) + d0 + d) : 0;
        }
        for (int i = threadIdx.x; i < KEYS * PIECE; i += THREADS) {
            const int k = i / PIECE, d = i % PIECE;
            s->kv[d][k] = d < width && k < g.length
                              ? load(from.k.data, from.k.type, at_row(from.k, b, g.start + k, kv_head) + d0 + d)
                              : 0;
        }
        __syncthreads();
#pragma unroll 2
        for (int d = 0; d < width; d++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] += s->q[d][tr + i] * s->kv[d][tk + j];
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const int64_t row = s->row[tr + i], key = g.start + tk + j;
            float         x = sum[i][j] * a.scale + from.log_weight;

            if (row < 0 || tk + j >= g.length || (g.masked && !allows(a.mask, row, g.source, key))) {
                s->p[tr + i][tk + j] = -INFINITY;
                continue;
            }
            if (from.key_bias)
                x += from.key_bias[key];
            if (a.bias && g.source == 0)
                x += a.bias[h * a.bias_a + row * a.bias_n + key];
            s->p[tr + i][tk + j] = x;
        }
    __syncthreads();
}

/* s->p becomes exponentials; m, l and keep follow. A warp has eight rows. */
static __device__ void soften(struct shared *s)
{
    const int lane = threadIdx.x % 32;

    for (int r = threadIdx.x / 32 * 8, end = r + 8; r < end; r++) {
        const float x0 = s->p[r][lane], x1 = s->p[r][lane + 32], old = s->m[r];
        const float m = fmaxf(old, warp_max(fmaxf(x0, x1)));
        const float p0 = m == -INFINITY || x0 == -INFINITY ? 0 : expf(x0 - m),
                    p1 = m == -INFINITY || x1 == -INFINITY ? 0 : expf(x1 - m);
        const float sum = warp_sum(p0 + p1), keep = m == -INFINITY ? 1 : expf(old - m);

        s->p[r][lane] = p0;
        s->p[r][lane + 32] = p1;
        if (lane == 0) {
            s->m[r] = m;
            s->l[r] = s->l[r] * keep + sum;
            s->keep[r] = keep;
        }
        __syncwarp();
    }
    __syncthreads();
}

static __device__ void gather(const struct attn_args &a, struct shared *s, const struct segment &g, int64_t b, int64_t h)
{
    const struct attn_keys &from = a.source[g.source];
    const int64_t           kv_head = h / (a.A / a.A_kv);
    const int               tr = threadIdx.x / 16 * 4, td = threadIdx.x % 16 * 4;

    for (int64_t d0 = 0; d0 < a.Dv; d0 += PIECE) {
        const int width = (int)(a.Dv - d0 < PIECE ? a.Dv - d0 : PIECE);
        float     sum[4][4] = {};

        for (int i = threadIdx.x; i < KEYS * PIECE; i += THREADS) {
            const int k = i / PIECE, d = i % PIECE;
            s->kv[k][d] = d < width && k < g.length
                              ? load(from.v.data, from.v.type, at_row(from.v, b, g.start + k, kv_head) + d0 + d)
                              : 0;
        }
        __syncthreads();
#pragma unroll 2
        for (int k = 0; k < g.length; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] += s->p[tr + i][k] * s->kv[k][td + j];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                if (td + j < width) {
                    float *o = &s->o[(tr + i) * a.Dv + d0 + td + j];
                    *o = *o * s->keep[tr + i] + sum[i][j];
                }
        __syncthreads();
    }
}

/* Normalised output and LSE of what was read so far. */
static __device__ void keep_result(const struct attn_args &a, const struct shared *s, const struct attn_result &to, int64_t b,
                                   int64_t h)
{
    for (int64_t i = threadIdx.x; i < ROWS * a.Dv; i += THREADS) {
        const int64_t r = i / a.Dv, d = i % a.Dv;
        if (s->row[r] >= 0)
            store(to.o.data, to.o.type, at_row(to.o, b, s->row[r], h) + d, s->m[r] == -INFINITY ? 0 : s->o[i] * (1 / s->l[r]));
    }
    if (to.lse.data && threadIdx.x < ROWS && s->row[threadIdx.x] >= 0) {
        const int r = threadIdx.x;
        to.lse.data[b * to.lse.b + h * to.lse.a + s->row[r]] = s->m[r] == -INFINITY ? -INFINITY : s->m[r] + logf(s->l[r]);
    }
}

static __device__ void begin(const struct attn_args &a, struct shared *s, int64_t first, int64_t b, int64_t h)
{
    if (threadIdx.x < ROWS) {
        const int     r = threadIdx.x;
        const int64_t i = first + r, row = i >= a.rows ? -1 : a.q_order ? a.q_order[i] : i;

        s->row[r] = row;
        s->m[r] = row >= 0 && a.seed.o.data ? a.seed.lse.data[b * a.seed.lse.b + h * a.seed.lse.a + row] : -INFINITY;
        s->l[r] = s->m[r] == -INFINITY ? 0 : 1;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < ROWS * a.Dv; i += THREADS) {
        const int64_t r = i / a.Dv, d = i % a.Dv;
        s->o[i] = s->m[r] == -INFINITY ? 0 : load(a.seed.o.data, a.seed.o.type, at_row(a.seed.o, b, s->row[r], h) + d);
    }
    __syncthreads();
}

/* Two blocks a multiprocessor, so that the compiler takes the registers it needs and spills none. */
static __global__ void __launch_bounds__(THREADS, 2) attn_simple(const __grid_constant__ struct attn_args a)
{
    extern __shared__ __align__(16) unsigned char memory[];
    struct shared                                *s = (struct shared *)memory;
    const int64_t  tile = blockIdx.x / SPLIT, first = (int64_t)blockIdx.x * ROWS, h = blockIdx.y, b = blockIdx.z;
    const int64_t  list = ((a.list_batch == 1 ? 0 : b) * a.list_heads + h / (a.A / a.list_heads)) * a.tiles + tile;
    struct walk    w = {};
    struct segment g;
    bool           kept = !a.first.o.data;

    if (first >= a.rows || (a.skip && a.skip[list / 32] >> list % 32 & 1))
        return;
    begin(a, s, first, b, h);
    if (a.row) {
        w.at = a.row[list];
        w.end = a.row[list + 1];
        w.split = a.split ? a.split[list] : w.end;
    }
    while (next_segment(a, w, g)) {
        if (g.second && !kept) {
            keep_result(a, s, a.first, b, h);
            kept = true;
        }
        score(a, s, g, b, h);
        soften(s);
        gather(a, s, g, b, h);
    }
    if (!kept)
        keep_result(a, s, a.first, b, h);
    keep_result(a, s, a.out, b, h);
}

static size_t shared_bytes(const struct attn_args *a)
{
    return sizeof(struct shared) + (size_t)ROWS * (size_t)a->Dv * sizeof(float);
}

bool gv_attn_simple_takes(const struct attn_chip *chip, const struct attn_args *a)
{
    return shared_bytes(a) <= (size_t)chip->shared_bytes && a->A <= 65535 && a->B <= 65535;
}

cudaError_t gv_attn_simple(const struct attn_chip *chip, const struct attn_args *a, cudaStream_t stream)
{
    const size_t      bytes = shared_bytes(a);
    const cudaError_t s = cudaFuncSetAttribute(attn_simple, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);

    (void)chip;
    if (s != cudaSuccess)
        return s;
    attn_simple<<<dim3((unsigned)(a->tiles * SPLIT), (unsigned)a->A, (unsigned)a->B), THREADS, bytes, stream>>>(*a);
    return cudaGetLastError();
}

/* ---- union of partials: a warp a row ---- */

static __global__ void merge_rows(const __grid_constant__ struct attn_merge_args m)
{
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32, a = i % m.A, n = i / m.A % m.N, b = i / m.A / m.N;
    const int     lane = threadIdx.x % 32;
    float         weight[ATTN_MAX_PARTS], lse = -INFINITY, sum = 0;
    int           filled = 0, only = -1;

    if (b >= m.B)
        return;
    for (int p = 0; p < m.n; p++) {
        weight[p] = m.part[p].lse.data[b * m.part[p].lse.b + a * m.part[p].lse.a + n];
        if (weight[p] == -INFINITY)
            continue;
        lse = weight[p] > lse || isnan(weight[p]) ? weight[p] : lse;
        only = p;
        filled++;
    }
    if (filled > 1) {
        for (int p = 0; p < m.n; p++)
            sum += weight[p] = expf(weight[p] - lse);
        for (int p = 0; p < m.n; p++)
            weight[p] /= sum;
        lse += logf(sum);
    }
    for (int64_t d = lane; d < m.Dv; d += 32) {
        float v = 0;

        for (int p = 0; p < m.n; p++)
            if (filled > 1 ? weight[p] != 0 : p == only) {
                const float x = load(m.part[p].o.data, m.part[p].o.type, at_row(m.part[p].o, b, n, a) + d);
                v = filled > 1 ? v + weight[p] * x : x;
            }
        store(m.dst.o.data, m.dst.o.type, at_row(m.dst.o, b, n, a) + d, v);
    }
    __syncwarp(); /* dst may be part 0: every lane has read its LSE */
    if (lane == 0)
        m.dst.lse.data[b * m.dst.lse.b + a * m.dst.lse.a + n] = lse;
}

cudaError_t gv_attn_merge_launch(const struct attn_merge_args *m, cudaStream_t stream)
{
    const int64_t rows = m->B * m->N * m->A;

    if (rows)
        merge_rows<<<(unsigned)ceil_div(rows, 8), 256, 0, stream>>>(*m);
    return cudaGetLastError();
}
