/* Attention on Hopper: bf16, head size 64 or 128, driven by the plan's lists.
 *
 * A block stays on its multiprocessor and takes one query tile after the other. Its warps have roles:
 *
 *   1 warp               hands out tiles (a counter that all blocks share) and copies their queries
 *   2 warps              read the tile's list (dense: they count) and copy keys, and values, into stages of KEYS keys by TMA
 *   2 warpgroups         64 query rows each: scores, softmax and output, all in registers
 *
 * A stage is put together from entries of up to 64 keys, so that any list feeds the same wide products. Three overlaps keep the
 * tensor cores busy:
 *
 *   within a warpgroup   scores of stage i + 1 are issued before output += P(i) V(i); the softmax of i + 1 runs beside the latter
 *   between warpgroups   they hand each other the tensor cores (named barriers): one multiplies while the other is in softmax
 *   between tiles        the next tile's first scores are computed while this one's output is written
 *
 * A dense call runs the same code over a counted list, so a full list gives the same bits. Entries shorter than 64, masked
 * entries and the filling of a last stage are marked per stage (struct part); the hot loop tests one word.
 *
 * What may surprise: a barrier belongs to a stage and never to a tile, so the copying warps run ahead into the next tile.
 * Values of keys behind a source's end arrive as zeros; those behind a short entry in the middle of a source are cleared in
 * shared memory, for they may be anything, and 0 · NaN is NaN. Registers are as tight as they look: tests/ptxas.sh fails when
 * one is spilled or when the assembler no longer overlaps the products.
 *
 * The schedule of the inner loop is FlashAttention-3's (arXiv 2407.08608, section 3). What was tried and dropped is in
 * tests/BENCH.md. */
#include <cuda.h>
#include <math_constants.h>

#include "attention/cuda/attn_cuda.h"
#include "attention/cuda/hopper.cuh"

namespace
{

enum {
    BLOCK = GV_KV_BLOCK,
    PANEL = 64, /* columns that a row of swizzled shared memory holds */
    INFO = 8    /* stages described at a time: more than there can be between copying and masking one, STAGES + 1 */
};

/* The same value, but the compiler does not know: what follows from it is computed again instead of being kept. */
__device__ __forceinline__ int opaque(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

struct range {
    int lo, hi, sink; /* keys lo <= j <= hi and j < sink */
};

/* What the kernel reads of a call. */
struct params {
    CUtensorMap q, k[ATTN_MAX_SOURCES], v[ATTN_MAX_SOURCES];
    int         A, group, tiles, n_q, n_tiles;
    int         n[ATTN_MAX_SOURCES], key_start[ATTN_MAX_SOURCES];
    unsigned    shared; /* bit s: source s has one batch row for all */
    /* sources that are read whole, in order, behind the list: blocks of BLOCK keys */
    int             whole[ATTN_MAX_SOURCES], n_whole, whole_blocks;
    const uint32_t *row, *entries, *skip, *order;
    int             plan_batch, heads_per_list, list_heads;
    int             mask_kind, mask_a, mask_b, mask_sink, query_start;
    float           scale, scale_log2;
    attn_result     out, seed;
    unsigned       *counter; /* tiles handed out */
};

/* What fills BLOCK keys of a stage. Positions are those of the whole sequence. */
struct __align__(16) part
{
    int length; /* 256 more where the mask holds inside */
    int left;   /* keys of the source from here on */
    int key;    /* position of the first key */
    int query;  /* position of the tile's first query */
};

template <int D_, int KEYS_, int STAGES_> struct shape {
    static constexpr int D = D_, KEYS = KEYS_, STAGES = STAGES_;
    static constexpr int PARTS = KEYS / BLOCK, PANELS = D / PANEL;
    static constexpr int Q_BYTES = GV_TILE_Q * D * 2, STAGE_BYTES = KEYS * D * 2, PANEL_BYTES = KEYS * 128;
};

/* A tile to be done. */
struct work {
    int      tile; /* -1: there is none */
    uint32_t first;
    int      listed; /* entries, from the first on */
};

template <class S> struct __align__(1024) shared_memory
{
    unsigned char q[S::Q_BYTES], k[S::STAGES][S::STAGE_BYTES], v[S::STAGES][S::STAGE_BYTES];
    uint64_t      q_full[2], q_empty[2], k_full[S::STAGES], k_empty[S::STAGES], v_full[S::STAGES], v_empty[S::STAGES];
    uint64_t      tile_full[2], tile_empty[2];
    struct work   tile[2];
    int           stages[2];
    int           special[INFO];
    struct part   part[INFO][S::PARTS];
};

/* Block i of a row's reading, as an entry of the plan: the list first, then the sources that are read whole (attn_walk.c).
 * Behind the end: padding. */
__device__ __forceinline__ uint32_t block_at(const params &p, const uint32_t *list, int listed, int i)
{
    if (i < listed)
        return __ldg(list + i);
    i -= listed;
    for (int j = 0; j < p.n_whole; j++) {
        const int s = p.whole[j], left = p.n[s] - i * BLOCK;
        if (left > 0)
            return (uint32_t)(i * BLOCK) << 10 | (uint32_t)(min(left, BLOCK) - 1) << 4 | (uint32_t)s << 1;
        i -= (p.n[s] + BLOCK - 1) / BLOCK;
    }
    return UINT32_MAX;
}

struct place {
    int b, h, tile, row; /* row of the lists */
};
__device__ __forceinline__ place tile_place(const params &p, int t)
{
    place     x;
    const int bh = t / p.tiles;

    x.tile = t - bh * p.tiles;
    x.b = bh / p.A;
    x.h = bh - x.b * p.A;
    x.row = ((p.plan_batch == 1 ? 0 : x.b) * p.list_heads + x.h / p.heads_per_list) * p.tiles + x.tile;
    return x;
}

/* From a number of the counter on: the next tile that is not to be skipped, in the plan's order. All lanes. */
__device__ __forceinline__ work find_work(const params &p, int number, int lane)
{
    for (;;) {
        const int i = __shfl_sync(0xffffffff, number, 0);
        if (i >= p.n_tiles)
            return { -1, 0, 0 };
        const int tile = p.order ? (int)__ldg(p.order + i) : i;
        const int row = tile_place(p, tile).row;
        if (!p.skip || !(p.skip[row / 32] >> row % 32 & 1)) {
            const uint32_t first = p.row ? __ldg(p.row + row) : 0;
            return { tile, first, p.row ? (int)(__ldg(p.row + row + 1) - first) : 0 };
        }
        if (lane == 0)
            number = (int)atomicAdd(p.counter, 1u);
    }
}

/* What a lane copies of a stage: panel lane % PANELS of part lane / PANELS. */
template <class S> __device__ __forceinline__ bool copies(int lane)
{
    return lane < S::PARTS * S::PANELS;
}

/* Its copy of entry e, behind `stage` on its way to `full`. Padding arrives as zeros, from behind the end of source 0. */
template <class S>
__device__ __forceinline__ void copy_part(const params &p, const CUtensorMap *maps, uint32_t e, uint32_t stage, uint32_t full,
                                          int lane, int kv_head, int b)
{
    const bool none = e == UINT32_MAX;
    const int  source = none ? 0 : e >> 1 & 7, start = none ? p.n[0] : (int)(e >> 10);

    if (lane == 0)
        mbar_expect(full, S::STAGE_BYTES);
    __syncwarp();
    if (copies<S>(lane))
        tma_load(stage + lane % S::PANELS * S::PANEL_BYTES + lane / S::PANELS * BLOCK * 128, maps + source, full,
                 lane % S::PANELS * PANEL, start, kv_head, p.shared >> source & 1 ? 0 : b);
}

/* One warp: hands out tiles and copies their queries. What takes long is asked for a tile ahead. */
template <class S> __device__ __forceinline__ void produce_tiles(const params &p, shared_memory<S> &m, int lane)
{
    int number = 0;

    if (lane == 0)
        number = (int)atomicAdd(p.counter, 1u);
    for (int fetched = 0;; fetched++) {
        const int  slot = fetched & 1;
        const work w = find_work(p, number, lane);
        mbar_wait(smem_address(&m.tile_empty[slot]), (fetched >> 1 & 1) ^ 1);
        if (lane == 0) {
            m.tile[slot] = w;
            m.stages[slot] = max(1, (w.listed + p.whole_blocks + S::PARTS - 1) / S::PARTS); /* an empty row: all padding */
            mbar_arrive(smem_address(&m.tile_full[slot]));
        }
        if (w.tile < 0)
            break;
        if (lane == 0)
            number = (int)atomicAdd(p.counter, 1u);
        const place at = tile_place(p, w.tile);
#pragma unroll
        for (int g = 0; g < 2; g++) {
            const uint32_t full = smem_address(&m.q_full[g]);
            mbar_wait(smem_address(&m.q_empty[g]), (fetched & 1) ^ 1);
            if (lane == 0)
                mbar_expect(full, S::Q_BYTES / 2);
            __syncwarp();
            if (lane < S::PANELS)
                tma_load(smem_address(m.q) + (lane * GV_TILE_Q + g * 64) * 128, &p.q, full, lane * PANEL,
                         at.tile * GV_TILE_Q + g * 64, at.h, at.b);
        }
    }
}

/* For the consumers: which keys of the stage count. */
template <class S>
__device__ __forceinline__ void describe(const params &p, shared_memory<S> &m, uint32_t e, int info, int tile, int lane)
{
    const bool     none = e == UINT32_MAX;
    const int      length = none ? 0 : (int)(e >> 4 & 63) + 1, masked = !none && e & 1;
    const unsigned any_masked = __ballot_sync(0xffffffff, copies<S>(lane) && (masked || length < BLOCK));
    const int      source = none ? 0 : e >> 1 & 7, start = none ? p.n[0] : (int)(e >> 10);
    const unsigned any_dirty = __ballot_sync(0xffffffff, copies<S>(lane) && length < BLOCK && p.n[source] - start > length);

    if (copies<S>(lane) && lane % S::PANELS == 0)
        m.part[info][lane / S::PANELS] = { length + (masked << 8), p.n[source] - start, p.key_start[source] + start,
                                           p.query_start + tile * GV_TILE_Q };
    if (lane == 0)
        m.special[info] = (any_masked != 0) | (any_dirty != 0) << 1;
    __syncwarp();
}

/* One warp each: copies keys, or values, stage by stage. */
template <class S, bool VALUES> __device__ __forceinline__ void produce(const params &p, shared_memory<S> &m, int lane)
{
    int n = 0; /* stages filled so far: stage n % STAGES, its phase n / STAGES % 2 */

    for (int fetched = 0;; fetched++) {
        const int slot = fetched & 1;
        mbar_wait(smem_address(&m.tile_full[slot]), fetched >> 1 & 1);
        const work w = m.tile[slot];
        const int  stages = m.stages[slot];
        __syncwarp();
        if (lane == 0)
            mbar_arrive(smem_address(&m.tile_empty[slot]));
        if (w.tile < 0)
            break;
        const place at = tile_place(p, w.tile);
        for (int i = 0; i < stages; i++, n++) {
            const int      stage = n % S::STAGES;
            const uint32_t empty = smem_address(VALUES ? &m.v_empty[stage] : &m.k_empty[stage]);
            const uint32_t full = smem_address(VALUES ? &m.v_full[stage] : &m.k_full[stage]);
            uint32_t       e = UINT32_MAX;
            if (copies<S>(lane))
                e = block_at(p, p.entries + w.first, w.listed, i * S::PARTS + lane / S::PANELS);
            mbar_wait(empty, (n / S::STAGES & 1) ^ 1);
            if (!VALUES)
                describe<S>(p, m, e, n % INFO, at.tile, lane);
            copy_part<S>(p, VALUES ? p.v : p.k, e, smem_address(VALUES ? m.v[stage] : m.k[stage]), full, lane, at.h / p.group,
                         at.b);
        }
    }
}

/* Positions that a query may read: gv_mask_range (attention/plan.c). */
__device__ __forceinline__ range mask_range(const params &p, int i)
{
    switch (p.mask_kind) {
    case MASK_CAUSAL: return { p.mask_b ? i + p.mask_a - p.mask_b + 1 : INT32_MIN, i + p.mask_a, p.mask_b ? p.mask_sink : 0 };
    case MASK_WINDOW: return { i - p.mask_a, i + p.mask_b, p.mask_sink };
    case MASK_BLOCK_CAUSAL: return { INT32_MIN, (i / p.mask_a + 1) * p.mask_a - 1, 0 };
    default: return { INT32_MIN, INT32_MAX, 0 };
    }
}

/* Bits b with lo <= base + b <= hi. */
__device__ __forceinline__ unsigned span(int lo, int hi, int base)
{
    lo = max(lo - base, 0);
    hi = min(hi - base, 31);
    return hi < lo ? 0 : 0xffffffffu << lo & 0xffffffffu >> (31 - hi);
}

/* Keys base .. base + 31 of a part that query `row` of the tile reads. */
__device__ __forceinline__ unsigned readable(const part &x, const params &p, int row, int base)
{
    const int      length = x.length & 255;
    const unsigned there = span(0, length - 1, base);

    if (!(x.length & 256))
        return there;
    const range a = mask_range(p, x.query + row);
    const int   most = INT32_MAX / 4; /* differences stay within an int */
    return there & (span(max(a.lo, -most) - x.key, min(a.hi, most) - x.key, base) | span(0, a.sink - x.key - 1, base));
}

/* Scores of pairs that are not read become -inf. */
template <class S> __device__ __forceinline__ void mask_scores(float (&s)[S::KEYS / 2], const part *parts, const params &p)
{
    const int t = opaque((int)threadIdx.x) - 128;

#pragma unroll
    for (int i = 0; i < S::KEYS / 16; i++) {
        /* 32 keys of one of the thread's two rows */
        const int      first = i / 2 * 16 + i % 2 * 2;
        const unsigned read = readable(parts[i / 4], p, t / 32 * 16 + t % 32 / 4 + i % 2 * 8, i / 2 % 2 * 32) >> 2 * (t & 3);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (!(read >> 8 * j & 1))
                s[first + 4 * j] = -CUDART_INF_F;
            if (!(read >> (8 * j + 1) & 1))
                s[first + 4 * j + 1] = -CUDART_INF_F;
        }
    }
}

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/* Two f32 to a word of bf16, the first in the low half. */
__device__ __forceinline__ uint32_t pack(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

/* Running maximum and sum of a thread's two rows; the sum is of the thread's own columns until the end. */
struct softmax {
    float m[2], l[2];
};

/* s becomes exp(scale (s - m)); keep: what everything before has to be multiplied with. */
template <int N> __device__ __forceinline__ void soften(float (&s)[N], softmax &x, float (&keep)[2], float scale_log2)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float m = x.m[r];
#pragma unroll
        for (int j = 0; j < N; j += 4)
            m = fmaxf(m, fmaxf(s[j + 2 * r], s[j + 2 * r + 1]));
        m = fmaxf(m, __shfl_xor_sync(0xffffffff, m, 1));
        m = fmaxf(m, __shfl_xor_sync(0xffffffff, m, 2));
        const bool  none = m == -CUDART_INF_F;
        const float base = none ? 0 : m * scale_log2;
        keep[r] = none ? 1 : exp2_fast((x.m[r] - m) * scale_log2);
        x.m[r] = m;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            s[j + 2 * r] = exp2_fast(fmaf(s[j + 2 * r], scale_log2, -base));
            s[j + 2 * r + 1] = exp2_fast(fmaf(s[j + 2 * r + 1], scale_log2, -base));
            sum += s[j + 2 * r] + s[j + 2 * r + 1];
        }
        x.l[r] = fmaf(x.l[r], keep[r], sum);
    }
}

template <int N> __device__ __forceinline__ void to_probabilities(uint32_t (&p)[N / 2], const float (&s)[N])
{
#pragma unroll
    for (int j = 0; j < N / 2; j++)
        p[j] = pack(s[2 * j], s[2 * j + 1]);
}

template <int N> __device__ __forceinline__ void rescale(float (&o)[N], const float (&keep)[2])
{
#pragma unroll
    for (int j = 0; j < N; j += 4) {
        o[j] *= keep[0];
        o[j + 1] *= keep[0];
        o[j + 2] *= keep[1];
        o[j + 3] *= keep[1];
    }
}

/* s = Q Kᵀ, issued. */
template <class S> __device__ __forceinline__ void issue_scores(float (&s)[S::KEYS / 2], uint32_t q, uint32_t k)
{
#pragma unroll
    for (int c = 0; c < S::PANELS; c++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            wgmma_ss(s, matrix_descriptor(q + c * GV_TILE_Q * 128 + i * 32, 16),
                     matrix_descriptor(k + c * S::PANEL_BYTES + i * 32, 16), c + i > 0);
    wgmma_commit();
}

/* o += P V, issued. */
template <class S>
__device__ __forceinline__ void issue_output(float (&o)[S::D / 2], const uint32_t (&p)[S::KEYS / 4], uint32_t v)
{
#pragma unroll
    for (int i = 0; i < S::KEYS / 16; i++)
        wgmma_rs(o, p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3], matrix_descriptor(v + i * 2048, S::PANEL_BYTES));
    wgmma_commit();
}

/* Words of the four lanes of a quad, transposed: lane i then holds word i of lanes 0..3. */
__device__ __forceinline__ uint4 quad_transpose(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3, int lane)
{
    const bool     odd = lane & 1, high = lane & 2;
    const uint32_t r0 = __shfl_xor_sync(0xffffffff, odd ? w0 : w1, 1), r1 = __shfl_xor_sync(0xffffffff, odd ? w2 : w3, 1);
    const uint32_t x0 = odd ? r0 : w0, y0 = odd ? w1 : r0, x1 = odd ? r1 : w2, y1 = odd ? w3 : r1;
    const uint32_t x = __shfl_xor_sync(0xffffffff, high ? x0 : x1, 2), y = __shfl_xor_sync(0xffffffff, high ? y0 : y1, 2);

    return high ? make_uint4(x, y, x1, y1) : make_uint4(x0, y0, x, y);
}

/* A thread's first row; the other is 8 further down. */
template <class S> __device__ __forceinline__ int tile_row(const place &at)
{
    const int t = opaque((int)threadIdx.x) - 128;

    return at.tile * GV_TILE_Q + t / 32 * 16 + t % 32 / 4;
}

/* Start from a partial result: as if its keys had been one key of score lse. */
template <class S, int N> __device__ __forceinline__ void take_seed(float (&o)[N], softmax &x, const params &p, int tile)
{
    const place at = tile_place(p, tile);
    const int   lane = threadIdx.x & 31, row0 = tile_row<S>(at);

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = row0 + 8 * r;
        if (row >= p.n_q)
            continue;
        const float   lse = p.seed.lse.data[at.b * p.seed.lse.b + at.h * p.seed.lse.a + row];
        const int64_t from = at.b * p.seed.o.b + row * p.seed.o.n + at.h * p.seed.o.a + 2 * (lane & 3);
        if (lse == -CUDART_INF_F)
            continue;
        x.m[r] = lse / p.scale;
        x.l[r] = (lane & 3) == 0;
#pragma unroll
        for (int j = 0; j < N / 4; j++) {
            if (p.seed.o.type == GV_F32) {
                const float2 y = *(const float2 *)((const float *)p.seed.o.data + from + 8 * j);
                o[4 * j + 2 * r] = y.x;
                o[4 * j + 2 * r + 1] = y.y;
            } else {
                const uint32_t y = *(const uint32_t *)((const uint16_t *)p.seed.o.data + from + 8 * j);
                o[4 * j + 2 * r] = __uint_as_float(y << 16);
                o[4 * j + 2 * r + 1] = __uint_as_float(y & 0xffff0000);
            }
        }
    }
}

template <class S, int N>
__device__ __forceinline__ void write_tile(const float (&o)[N], const softmax &x, const params &p, int tile)
{
    const place at = tile_place(p, tile);
    const int   lane = opaque((int)threadIdx.x) & 31, row0 = tile_row<S>(at);

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = row0 + 8 * r;
        float     l = x.l[r];
        l += __shfl_xor_sync(0xffffffff, l, 1);
        l += __shfl_xor_sync(0xffffffff, l, 2);
        const float   inverse = l == 0 ? 0 : 1 / l;
        const int64_t to = at.b * p.out.o.b + row * p.out.o.n + at.h * p.out.o.a;

        if (p.out.lse.data && (lane & 3) == 0 && row < p.n_q)
            p.out.lse.data[at.b * p.out.lse.b + at.h * p.out.lse.a + row] = l == 0 ? -CUDART_INF_F : x.m[r] * p.scale + logf(l);
        if (p.out.o.type == GV_F32) {
            float *dst = (float *)p.out.o.data + to + 2 * (lane & 3);
            if (row < p.n_q)
#pragma unroll
                for (int j = 0; j < N / 4; j++)
                    *(float2 *)(dst + 8 * j) = make_float2(o[4 * j + 2 * r] * inverse, o[4 * j + 2 * r + 1] * inverse);
            continue;
        }
        uint16_t *dst = (uint16_t *)p.out.o.data + to + 8 * (lane & 3);
#pragma unroll
        for (int j = 0; j < N / 4; j += 4) {
            uint32_t w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = pack(o[4 * (j + i) + 2 * r] * inverse, o[4 * (j + i) + 2 * r + 1] * inverse);
            const uint4 y = quad_transpose(w[0], w[1], w[2], w[3], lane);
            if (row < p.n_q)
                *(uint4 *)(dst + 8 * j) = y;
        }
    }
}

/* Values behind a short entry may be anything; both warpgroups write the same zeros and each reads after its own. */
template <class S> __device__ __forceinline__ void clear_values(unsigned char *v, const part *parts, int group)
{
    const int t = opaque((int)threadIdx.x) & 127;

#pragma unroll
    for (int i = 0; i < S::PARTS; i++) {
        const int length = parts[i].length & 255;
        if (length >= BLOCK || parts[i].left <= length)
            continue;
        for (int c = 0; c < S::PANELS; c++)
            for (int x = length * 8 + t; x < BLOCK * 8; x += 128)
                *(uint4 *)(v + c * S::PANEL_BYTES + i * BLOCK * 128 + x * 16) = make_uint4(0, 0, 0, 0);
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    named_sync(8 + group, 128);
}

template <class S> __device__ __forceinline__ void consume(const params &p, shared_memory<S> &m, int group)
{
    const bool     leader = (threadIdx.x & 31) == 0;
    const uint32_t q = smem_address(m.q) + group * 64 * 128;
    int            n = 0, fetched = 0; /* stages and tiles so far */
    int            tile, stages;
    float          s[S::KEYS / 2], o[S::D / 2], keep[2];
    uint32_t       prob[S::KEYS / 4];
    softmax        x;

    const auto release = [&](uint64_t *bar) {
        __syncwarp();
        if (leader)
            mbar_arrive(smem_address(bar));
    };
    const auto next_tile = [&] {
        const int slot = fetched & 1;
        mbar_wait(smem_address(&m.tile_full[slot]), fetched >> 1 & 1);
        tile = m.tile[slot].tile;
        stages = m.stages[slot];
        release(&m.tile_empty[slot]);
    };
    const auto first_scores = [&] {
        if (tile >= 0) {
            mbar_wait(smem_address(&m.q_full[group]), fetched & 1);
            mbar_wait(smem_address(&m.k_full[n % S::STAGES]), n / S::STAGES & 1);
        }
        fetched++;
        wgmma_fence();
        issue_scores<S>(s, q, smem_address(m.k[n % S::STAGES]));
    };
    const auto probabilities = [&](int i) {
        const int info = i % INFO;
        if (m.special[info])
            mask_scores<S>(s, m.part[info], p);
        soften(s, x, keep, p.scale_log2);
    };
    const auto values = [&](int i) {
        const int stage = i % S::STAGES;
        mbar_wait(smem_address(&m.v_full[stage]), i / S::STAGES & 1);
        if (m.special[i % INFO] & 2)
            clear_values<S>(m.v[stage], m.part[i % INFO], group);
        return smem_address(m.v[stage]);
    };

    const auto first_probabilities = [&] {
        x = { { -CUDART_INF_F, -CUDART_INF_F }, { 0, 0 } };
#pragma unroll
        for (int j = 0; j < S::D / 2; j++)
            o[j] = 0;
        if (p.seed.o.data && tile >= 0)
            take_seed<S>(o, x, p, tile);
        wgmma_wait<0>();
        hold(s);
        if (tile >= 0)
            release(&m.k_empty[n % S::STAGES]);
        probabilities(n);
        to_probabilities(prob, s);
        rescale(o, keep);
    };

    if (group == 1)
        named_arrive(1, 256);
    next_tile();
    if (tile < 0)
        return;
    first_scores();
    first_probabilities();
    for (;;) {
#pragma unroll 1
        for (; stages > 1; stages--, n++) {
            const int next = (n + 1) % S::STAGES;
            mbar_wait(smem_address(&m.k_full[next]), (n + 1) / S::STAGES & 1);
            hold(o);
            hold(prob);
            named_sync(1 + group, 256);
            wgmma_fence();
            issue_scores<S>(s, q, smem_address(m.k[next]));
            const uint32_t v = values(n);
            wgmma_fence();
            issue_output<S>(o, prob, v);
            named_arrive(1 + (group ^ 1), 256);
            wgmma_wait<1>();
            hold(s);
            release(&m.k_empty[next]);
            probabilities(n + 1);
            wgmma_wait<0>();
            hold(o);
            hold(prob);
            release(&m.v_empty[n % S::STAGES]);
            to_probabilities(prob, s);
            rescale(o, keep);
        }
        release(&m.q_empty[group]);
        /* The next tile's first scores are computed while this one's output is written. That is also done where there is no
         * next tile, and thrown away: a way out while products are in flight makes the compiler wait for each of them. */
        const int      done = tile;
        const uint32_t v = values(n);
        hold(o);
        hold(prob);
        wgmma_fence();
        issue_output<S>(o, prob, v);
        next_tile();
        n++;
        first_scores();
        wgmma_wait<1>();
        hold(o);
        hold(prob);
        release(&m.v_empty[(n - 1) % S::STAGES]);
        write_tile<S>(o, x, p, opaque(done));
        first_probabilities();
        if (tile < 0)
            return;
    }
}

enum { THREADS = 384, PRODUCER_REGISTERS = 24, CONSUMER_REGISTERS = 240 };

template <class S> __global__ void __launch_bounds__(THREADS, 1) attend(const __grid_constant__ params p)
{
    extern __shared__ unsigned char raw[];
    auto                           &m = *(shared_memory<S> *)(raw + (-smem_address(raw) & 1023));

    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            mbar_init(smem_address(&m.k_full[i]), 1);
            mbar_init(smem_address(&m.v_full[i]), 1);
            mbar_init(smem_address(&m.k_empty[i]), 8); /* a lane of each consumer warp */
            mbar_init(smem_address(&m.v_empty[i]), 8);
        }
        for (int i = 0; i < 2; i++) {
            mbar_init(smem_address(&m.q_full[i]), 1);
            mbar_init(smem_address(&m.q_empty[i]), 4);
            mbar_init(smem_address(&m.tile_full[i]), 1);
            mbar_init(smem_address(&m.tile_empty[i]), 8 + 2); /* and of the warps that copy keys and values */
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();

    const int group = __shfl_sync(0xffffffff, (int)threadIdx.x / 128, 0);
    if (group == 0) {
        registers_give<PRODUCER_REGISTERS>();
        const int warp = __shfl_sync(0xffffffff, (int)threadIdx.x / 32, 0), lane = threadIdx.x & 31;
        if (warp == 0)
            produce_tiles<S>(p, m, lane);
        else if (warp == 1)
            produce<S, false>(p, m, lane);
        else if (warp == 2)
            produce<S, true>(p, m, lane);
    } else {
        registers_take<CONSUMER_REGISTERS>();
        consume<S>(p, m, group - 1);
    }
}

/* ---- host ---- */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                              const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* x [B, N, A, D] in boxes of BLOCK tokens x PANEL channels of one head. */
bool encode(const attn_chip *chip, CUtensorMap *map, const attn_array &x, int64_t B, int64_t N, int64_t A, int64_t D)
{
    const encode_fn  fn = (encode_fn)chip->encode_tensor_map;
    const cuuint64_t dim[4] = { (cuuint64_t)D, (cuuint64_t)N, (cuuint64_t)A, (cuuint64_t)B };
    const cuuint64_t stride[3] = { (cuuint64_t)x.n * 2, (cuuint64_t)x.a * 2, B > 1 ? (cuuint64_t)x.b * 2 : 16 };
    const cuuint32_t box[4] = { PANEL, BLOCK, 1, 1 }, step[4] = { 1, 1, 1, 1 };

    return fn(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, x.data, dim, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
              CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Rows that 16-byte accesses reach. */
bool aligned_rows(const attn_array &x)
{
    const int64_t unit = x.type == GV_F32 ? 4 : 8;

    return ((uintptr_t)x.data & 15) == 0 && x.b % unit == 0 && x.n % unit == 0 && x.a % unit == 0;
}
/* Sums of a few stay within an int. */
bool small(int64_t x)
{
    return x >= -(INT64_C(1) << 28) && x <= INT64_C(1) << 28;
}

void fill(params &p, const attn_args *c)
{
    p.A = (int)c->A, p.group = (int)(c->A / c->A_kv);
    p.n_q = (int)c->Nq;
    p.tiles = (int)c->tiles;
    p.n_tiles = (int)(p.tiles * c->A * c->B);
    for (int always = 0; always < 2; always++)
        for (int i = 0; i < c->n_sources; i++)
            if (c->source[i].always == (always != 0) && (always || !c->row)) {
                p.whole[p.n_whole++] = i;
                p.whole_blocks += (int)((c->source[i].n + BLOCK - 1) / BLOCK);
            }
    for (int i = 0; i < c->n_sources; i++) {
        p.n[i] = (int)c->source[i].n;
        p.key_start[i] = (int)c->mask.key_start[i];
        if (c->source[i].k.b == 0 || c->B == 1)
            p.shared |= 1u << i;
    }
    p.skip = c->skip;
    /* an order of lists is one of tiles where each tile has its own list */
    p.order = c->list_batch == c->B && c->list_heads == c->A ? c->order : nullptr;
    p.row = c->row, p.entries = c->entries;
    p.plan_batch = c->list_batch, p.list_heads = c->list_heads > 0 ? c->list_heads : 1;
    p.heads_per_list = p.A / p.list_heads;
    p.mask_kind = c->mask.kind, p.mask_a = (int)c->mask.a, p.mask_b = (int)c->mask.b, p.mask_sink = (int)c->mask.sink;
    p.query_start = (int)c->mask.query_start;
    p.scale = c->scale;
    p.scale_log2 = c->scale * 1.44269504f;
    p.out = c->out, p.seed = c->seed;
}

template <class S> cudaError_t launch(const attn_chip *chip, const attn_args *c, void *scratch, cudaStream_t stream)
{
    static_assert(sizeof(shared_memory<S>) + 1024 <= 232448, "shared memory of a block");
    constexpr int bytes = (int)sizeof(shared_memory<S>) + 1024;
    params        p = {};

    fill(p, c);
    if (p.n_tiles == 0)
        return cudaSuccess;
    bool ok = encode(chip, &p.q, c->q, c->B, c->Nq, c->A, S::D);
    for (int i = 0; i < c->n_sources && ok; i++) {
        const attn_keys &s = c->source[i];
        const int64_t    B = p.shared >> i & 1 ? 1 : c->B;
        if (s.n > 0)
            ok = encode(chip, &p.k[i], s.k, B, s.n, c->A_kv, S::D) && encode(chip, &p.v[i], s.v, B, s.n, c->A_kv, S::D);
    }
    if (!ok)
        return cudaErrorInvalidValue;
    p.counter = (unsigned *)scratch;
    cudaError_t e = cudaMemsetAsync(p.counter, 0, sizeof *p.counter, stream);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute(attend<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess)
        return e;
    const auto kernel = attend<S>;
    const int  blocks = p.n_tiles < chip->multiprocessors ? p.n_tiles : chip->multiprocessors;
    kernel<<<blocks, THREADS, bytes, stream>>>(p);
    return cudaGetLastError();
}

} // namespace

bool gv_attn_sm90_takes(const attn_chip *chip, const attn_args *c)
{
    const attn_mask &m = c->mask;
    bool             ok = chip->major == 9 && chip->minor == 0 && chip->encode_tensor_map && chip->shared_bytes >= 232448;

    ok = ok && c->D == c->Dv && (c->D == 64 || c->D == 128) && c->scale > 0 && !c->bias && !c->q_order && !c->first.o.data;
    ok = ok && c->q.type == GV_BF16 && aligned_rows(c->q) && aligned_rows(c->out.o) && small(c->Nq * c->A * c->B);
    ok = ok && (!c->seed.o.data || aligned_rows(c->seed.o));
    ok = ok && m.kind != MASK_SEGMENTS && small(m.a) && small(m.b) && small(m.sink) && small(m.query_start);
    ok = ok && c->source[0].n > 0; /* whose end fills up a stage */
    for (int i = 0; i < c->n_sources; i++) {
        const attn_keys &s = c->source[i];
        ok = ok && s.k.type == GV_BF16 && s.v.type == GV_BF16 && s.log_weight == 0 && !s.key_bias && aligned_rows(s.k) &&
             aligned_rows(s.v) && s.n < 1 << 22 && (s.k.b == 0) == (s.v.b == 0) && small(m.key_start[i]);
    }
    return ok;
}

size_t gv_attn_sm90_scratch(const attn_chip *, const attn_args *)
{
    return sizeof(unsigned);
}

cudaError_t gv_attn_sm90(const attn_chip *chip, const attn_args *c, void *scratch, cudaStream_t stream)
{
    return c->D == 64 ? launch<shape<64, 192, 4>>(chip, c, scratch, stream)
                      : launch<shape<128, 192, 2>>(chip, c, scratch, stream);
}
