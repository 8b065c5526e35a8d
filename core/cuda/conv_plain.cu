/* The product that every shape and type can fall back on: an implicit matrix product with plain f32 multiply-adds, a block of
 * 64 pixels by 64 output channels, 16 of the sum at a time. What the libraries refuse runs here, and f32 convolutions do.
 *
 * A convolution to at most four channels (a decoder's last: to RGB in f32) would leave most of such a block idle: there a thread
 * has a pixel with all its channels, and the weights lie in shared memory, where one read serves a whole warp. */
#include "core/cuda/common.cuh"

enum { TILE = 64, DEPTH = 16, THREADS = 256, PART = 4 };

/* Where the input pixel of output pixel n under tap `tap` begins, or -1 in the padding. */
static __device__ __forceinline__ int64_t pixel_under(const struct cu_conv &a, int64_t n, int64_t tap)
{
    const int64_t w = n % a.Wo * a.stride[2] - a.pad[2] + tap % a.k[2];
    const int64_t h = n / a.Wo % a.Ho * a.stride[1] - a.pad[1] + tap / a.k[2] % a.k[1];
    const int64_t t = n / a.Wo / a.Ho * a.stride[0] - a.pad[0] + tap / a.k[2] / a.k[1];

    return t < 0 || t >= a.T || h < 0 || h >= a.H || w < 0 || w >= a.W ? -1 : ((t * a.H + h) * a.W + w) * a.x_pixel;
}

static __global__ void conv_tiles(const __grid_constant__ struct cu_conv a)
{
    __shared__ float xs[DEPTH][TILE + 4], ws[DEPTH][TILE + 4];
    const int64_t    taps = (int64_t)a.k[0] * a.k[1] * a.k[2], pixels = a.To * a.Ho * a.Wo;
    const int64_t    n0 = (int64_t)blockIdx.x * TILE, o0 = (int64_t)blockIdx.y * TILE;
    const int        tn = threadIdx.x / (TILE / PART) * PART, to = threadIdx.x % (TILE / PART) * PART;
    const int        ln = threadIdx.x / 4, lc = threadIdx.x % 4 * 4; /* what this thread fetches */
    float            sum[PART][PART] = {};

    for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t from = n0 + ln < pixels ? pixel_under(a, n0 + ln, tap) : -1;
        const int64_t weight = o0 + ln < a.O ? ((o0 + ln) * taps + tap) * a.C : -1;

        for (int64_t c0 = 0; c0 < a.C; c0 += DEPTH) {
            for (int i = 0; i < 4; i++) {
                const int64_t c = c0 + lc + i;
                xs[lc + i][ln] = from >= 0 && c < a.C ? load(a.x, a.x_type, from + c) : 0;
                ws[lc + i][ln] = weight >= 0 && c < a.C ? load(a.w, a.w_type, weight + c) : 0;
            }
            __syncthreads();
#pragma unroll
            for (int k = 0; k < DEPTH; k++)
#pragma unroll
                for (int i = 0; i < PART; i++)
#pragma unroll
                    for (int j = 0; j < PART; j++)
                        sum[i][j] += xs[k][tn + i] * ws[k][to + j];
            __syncthreads();
        }
    }
    for (int i = 0; i < PART; i++)
        for (int j = 0; j < PART; j++)
            if (n0 + tn + i < pixels && o0 + to + j < a.O)
                finish(a.out, n0 + tn + i, o0 + to + j, sum[i][j]);
}

enum { THIN = 4, THIN_BYTES = 48 << 10 };

static __global__ void conv_thin(const __grid_constant__ struct cu_conv a)
{
    extern __shared__ float4 weights[]; /* [taps][C]: one of every output channel */
    const int                taps = a.k[0] * a.k[1] * a.k[2], count = taps * (int)a.C;
    const int64_t            pixels = a.To * a.Ho * a.Wo, n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float                    sum[THIN] = {};

    for (int i = threadIdx.x; i < count; i += THREADS) {
        float w[THIN];
        for (int o = 0; o < THIN; o++)
            w[o] = o < a.O ? load(a.w, a.w_type, (int64_t)o * count + i) : 0;
        weights[i] = make_float4(w[0], w[1], w[2], w[3]);
    }
    __syncthreads();
    if (n >= pixels)
        return;
    for (int tap = 0; tap < taps; tap++) {
        const int64_t from = pixel_under(a, n, tap);

        if (from < 0)
            continue;
        for (int c = 0; c < a.C; c += 4) {
            const float4 x4 = load4(a.x, a.x_type, from + c);
            const float  x[4] = { x4.x, x4.y, x4.z, x4.w };
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float4 w = weights[tap * (int)a.C + c + i];
                sum[0] += x[i] * w.x, sum[1] += x[i] * w.y, sum[2] += x[i] * w.z, sum[3] += x[i] * w.w;
            }
        }
    }
#pragma unroll
    for (int o = 0; o < THIN; o++)
        if (o < a.O)
            finish(a.out, n, o, sum[o]);
}

cudaError_t gv_cu_conv(const struct cu_conv *a, cudaStream_t stream)
{
    const int64_t        pixels = a->To * a->Ho * a->Wo, bytes = (int64_t)a->k[0] * a->k[1] * a->k[2] * a->C * sizeof(float4);
    const struct cu_rows x = { (void *)a->x, a->x_type, a->T * a->H * a->W, a->C, a->x_pixel };

    if (a->O <= THIN && bytes <= THIN_BYTES && in_fours(x))
        conv_thin<<<(unsigned)ceil_div(pixels, THREADS), THREADS, (size_t)bytes, stream>>>(*a);
    else
        conv_tiles<<<dim3((unsigned)ceil_div(pixels, TILE), (unsigned)ceil_div(a->O, TILE)), THREADS, 0, stream>>>(*a);
    return cudaGetLastError();
}
