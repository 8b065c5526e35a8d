/* Operations that move elements: copy, fill, gather, patches, doubling; and noise, which fills. */
#include "core/cuda/common.cuh"

enum { THREADS = 256 };

/* ---- copy and fill: neighbouring threads write neighbouring elements, four at a time where both sides are contiguous inside ---- */

template <int each> static __global__ void copy_any(const __grid_constant__ struct cu_copy c, int64_t count)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        int64_t rest = i, to = 0, from = 0;

        for (int d = c.rank - 1; d > 0; d--) {
            const int64_t next = rest < UINT32_MAX && c.dim[d] < UINT32_MAX ? (uint32_t)rest / (uint32_t)c.dim[d]
                                                                            : rest / c.dim[d],
                          at = rest - next * c.dim[d];
            rest = next;
            to += at * c.dst_stride[d];
            from += at * c.src_stride[d];
        }
        if (c.rank) {
            to += rest * c.dst_stride[0];
            from += rest * c.src_stride[0];
        }
        if (each == 4)
            store4(c.dst, c.dst_type, to,
                   c.src ? load4(c.src, c.src_type, from) : make_float4(c.value, c.value, c.value, c.value));
        else
            store(c.dst, c.dst_type, to, c.src ? load(c.src, c.src_type, from) : c.value);
    }
}

static bool starts_at_four(const void *p, enum dtype type)
{
    return (uintptr_t)p % (type == GV_F32 ? 16 : 8) == 0;
}

/* The inner dimension counted in fours, if it can be. */
static bool by_fours(struct cu_copy *c)
{
    const int in = c->rank - 1;

    if (in < 0 || c->dim[in] % 4 || c->dst_stride[in] != 1 || c->src_stride[in] != 1 || !starts_at_four(c->dst, c->dst_type) ||
        !starts_at_four(c->src, c->src_type))
        return false;
    for (int i = 0; i < in; i++)
        if (c->dst_stride[i] % 4 || c->src_stride[i] % 4)
            return false;
    c->dim[in] /= 4;
    c->dst_stride[in] = c->src_stride[in] = 4;
    return true;
}

/* Dimensions of 1 are dropped, the destination's strides fall, and those that follow each other on both sides are merged. */
static struct cu_copy ordered(const struct cu_copy *a)
{
    struct cu_copy c = *a;
    int            n = 0;

    c.rank = 0;
    for (int i = 0; i < a->rank; i++) {
        if (a->dim[i] == 1)
            continue;
        int at = c.rank++;
        for (; at && c.dst_stride[at - 1] < a->dst_stride[i]; at--)
            c.dim[at] = c.dim[at - 1], c.dst_stride[at] = c.dst_stride[at - 1], c.src_stride[at] = c.src_stride[at - 1];
        c.dim[at] = a->dim[i], c.dst_stride[at] = a->dst_stride[i], c.src_stride[at] = a->src_stride[i];
    }
    for (int i = 0; i < c.rank; i++) {
        if (n && c.dst_stride[n - 1] == c.dst_stride[i] * c.dim[i] && c.src_stride[n - 1] == c.src_stride[i] * c.dim[i]) {
            c.dim[n - 1] *= c.dim[i];
            c.dst_stride[n - 1] = c.dst_stride[i], c.src_stride[n - 1] = c.src_stride[i];
        } else {
            c.dim[n] = c.dim[i], c.dst_stride[n] = c.dst_stride[i], c.src_stride[n] = c.src_stride[i];
            n++;
        }
    }
    c.rank = n;
    return c;
}

cudaError_t gv_cu_copy(const struct cu_copy *a, cudaStream_t stream)
{
    struct cu_copy c = ordered(a);
    const bool     fours = by_fours(&c);
    int64_t        count = 1;

    for (int i = 0; i < c.rank; i++)
        count *= c.dim[i];
    if (fours)
        copy_any<4><<<blocks_for(count, THREADS * 2), THREADS, 0, stream>>>(c, count);
    else
        copy_any<1><<<blocks_for(count, THREADS * 2), THREADS, 0, stream>>>(c, count);
    return cudaGetLastError();
}

/* ---- gather ---- */

static __global__ void gather_rows(const __grid_constant__ struct cu_rows y, const __grid_constant__ struct cu_rows table,
                                   const int32_t *index)
{
    const int64_t count = y.n * y.d;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const int64_t n = i / y.d, d = i - n * y.d;
        store(y.data, y.type, n * y.stride + d, load(table.data, table.type, index[n] * table.stride + d));
    }
}

cudaError_t gv_cu_gather(struct cu_rows y, struct cu_rows table, const int32_t *index, cudaStream_t stream)
{
    gather_rows<<<blocks_for(y.n * y.d, THREADS * 4), THREADS, 0, stream>>>(y, table, index);
    return cudaGetLastError();
}

/* ---- patches ---- */

/* Element i of x: its patch, its place in the patch, its channel. */
struct patch_place {
    int64_t row, in, channel;
};
static __device__ __forceinline__ struct patch_place place_of(const struct cu_patches &p, int64_t i)
{
    const int64_t c = i % p.C, w = i / p.C % p.W, h = i / p.C / p.W % p.H, t = i / p.C / p.W / p.H;

    return { (t / p.p[0] * (p.H / p.p[1]) + h / p.p[1]) * (p.W / p.p[2]) + w / p.p[2],
             (t % p.p[0] * p.p[1] + h % p.p[1]) * p.p[2] + w % p.p[2], c };
}

static __global__ void patchify(const __grid_constant__ struct cu_patches p, int64_t count)
{
    const int64_t size = (int64_t)p.p[0] * p.p[1] * p.p[2];

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const struct patch_place at = place_of(p, i);
        store(p.rows.data, p.rows.type, at.row * p.rows.stride + at.channel * size + at.in, p.x[i]);
    }
}

static __global__ void unpatchify(const __grid_constant__ struct cu_patches p, int64_t count)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const struct patch_place at = place_of(p, i);
        p.x[i] = load(p.rows.data, p.rows.type, at.row * p.rows.stride + at.in * p.C + at.channel);
    }
}

cudaError_t gv_cu_patchify(const struct cu_patches *a, cudaStream_t stream)
{
    const int64_t count = a->T * a->H * a->W * a->C;

    patchify<<<blocks_for(count, THREADS), THREADS, 0, stream>>>(*a, count);
    return cudaGetLastError();
}

cudaError_t gv_cu_unpatchify(const struct cu_patches *a, cudaStream_t stream)
{
    const int64_t count = a->T * a->H * a->W * a->C;

    unpatchify<<<blocks_for(count, THREADS), THREADS, 0, stream>>>(*a, count);
    return cudaGetLastError();
}

/* ---- upsample: pixels as runs of the widest word that divides them ---- */

template <typename word>
static __global__ void double_pixels(word *y, const word *x, int64_t H, int64_t W, int64_t words, int64_t count)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const int64_t k = i % words, w = i / words % (2 * W), h = i / words / (2 * W) % (2 * H), t = i / words / (4 * W * H);
        y[i] = x[((t * H + h / 2) * W + w / 2) * words + k];
    }
}

cudaError_t gv_cu_upsample(void *y, const void *x, int64_t T, int64_t H, int64_t W, int64_t bytes, cudaStream_t stream)
{
    const int64_t pixels = 4 * T * H * W;

    if (bytes % 16 == 0)
        double_pixels<<<blocks_for(pixels * (bytes / 16), THREADS), THREADS, 0, stream>>>((uint4 *)y, (const uint4 *)x, H, W,
                                                                                          bytes / 16, pixels * (bytes / 16));
    else
        double_pixels<<<blocks_for(pixels * (bytes / 2), THREADS), THREADS, 0, stream>>>((uint16_t *)y, (const uint16_t *)x, H,
                                                                                         W, bytes / 2, pixels * (bytes / 2));
    return cudaGetLastError();
}

/* ---- noise: core/rng.c, number for number; its doubles are what makes the bits agree ---- */

static __device__ void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        const uint32_t a_hi = __umulhi(0xD2511F53u, c[0]), a_lo = 0xD2511F53u * c[0];
        const uint32_t b_hi = __umulhi(0xCD9E8D57u, c[2]), b_lo = 0xCD9E8D57u * c[2];

        c[0] = b_hi ^ c[1] ^ k0;
        c[1] = b_lo;
        c[2] = a_hi ^ c[3] ^ k1;
        c[3] = a_lo;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static __device__ void box_muller(float out[2], uint32_t a, uint32_t b)
{
    const double u = ((double)a + 0.5) * 0x1p-32, angle = 6.283185307179586476925 * (((double)b + 0.5) * 0x1p-32);
    const double radius = sqrt(-2.0 * log(u));

    out[0] = (float)(radius * cos(angle));
    out[1] = (float)(radius * sin(angle));
}

static __global__ void noise(const __grid_constant__ struct cu_noise z)
{
    const int64_t quads = (z.C + 3) / 4, count = z.T * z.H * z.W * quads;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const int64_t q = i % quads, x = i / quads % z.W, y = i / quads / z.W % z.H, t = i / quads / z.W / z.H;
        uint32_t      word[4] = { (uint32_t)x | (uint32_t)y << 16, (uint32_t)(t + z.t0), (uint32_t)q | z.purpose << 16,
                                  z.step | z.block << 12 };
        float         normal[4];

        philox(word, (uint32_t)z.seed, (uint32_t)(z.seed >> 32));
        box_muller(normal, word[0], word[1]);
        box_muller(normal + 2, word[2], word[3]);
        for (int64_t c = 0; c < 4 && 4 * q + c < z.C; c++)
            z.y[((t * z.H + y) * z.W + x) * z.C + 4 * q + c] = normal[c];
    }
}

cudaError_t gv_cu_noise(const struct cu_noise *a, cudaStream_t stream)
{
    noise<<<blocks_for(a->T * a->H * a->W * ((a->C + 3) / 4), THREADS), THREADS, 0, stream>>>(*a);
    return cudaGetLastError();
}
