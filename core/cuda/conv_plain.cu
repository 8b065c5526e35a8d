/* The product that every shape and type can fall back on: an implicit matrix product with plain f32 multiply-adds, a block of
 * 64 pixels by 64 output channels, 16 of the sum at a time. What the libraries refuse runs here, and f32 convolutions do. */
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

cudaError_t gv_cu_conv(const struct cu_conv *a, cudaStream_t stream)
{
    const int64_t pixels = a->To * a->Ho * a->Wo;

    conv_tiles<<<dim3((unsigned)ceil_div(pixels, TILE), (unsigned)ceil_div(a->O, TILE)), THREADS, 0, stream>>>(*a);
    return cudaGetLastError();
}
