/* Norms with all that a model hangs on them: weight, bias, modulation, activation, rotary embedding. A row is one block's, or
 * one warp's where it is short; it is read three times (mean, variance, result), the second and third time from the cache.
 * In place is safe because a pair of elements is read and written by one thread. */
#include "core/cuda/common.cuh"

static __device__ __forceinline__ float value(const struct cu_norm &a, const void *x, int64_t row, int64_t d, float mean,
                                              float scale)
{
    const int64_t group = a.group ? a.group[row] : 0;
    float         v = (load(x, a.x.type, d) - mean) * scale;

    if (a.weight)
        v *= a.weight[d];
    if (a.bias)
        v += a.bias[d];
    if (a.scale.data)
        v *= 1.0f + a.scale.data[group * a.scale.stride + d];
    if (a.shift.data)
        v += a.shift.data[group * a.shift.stride + d];
    return activate(v, a.act);
}

static __device__ __forceinline__ size_t bytes_of(enum dtype type)
{
    return type == GV_F32 ? 4 : 2;
}

static __global__ void norm_rows(const __grid_constant__ struct cu_norm a)
{
    __shared__ float part[32];
    const int64_t    row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;

    if (row >= a.x.n) /* whole warps leave, and only where no block-wide barrier follows: blockDim.y > 1 means a warp a row */
        return;
    const void *x = (const char *)a.x.data + (size_t)(row * a.x.stride) * bytes_of(a.x.type);
    void       *y = (char *)a.y.data + (size_t)(row * a.y.stride) * bytes_of(a.y.type);
    float       mean = 0, sum = 0, scale;

    if (a.kind == CU_LAYER) {
        for (int64_t d = threadIdx.x; d < a.x.d; d += blockDim.x)
            sum += load(x, a.x.type, d);
        mean = row_sum(sum, part) / (float)a.x.d;
    }
    sum = 0;
    for (int64_t d = threadIdx.x; d < a.x.d; d += blockDim.x) {
        const float v = load(x, a.x.type, d) - mean;
        sum += v * v;
    }
    sum = row_sum(sum, part);
    if (a.kind == CU_L2)
        scale = sqrtf((float)a.x.d) / fmaxf(sqrtf(sum), a.eps);
    else
        scale = 1.0f / sqrtf(sum / (float)a.x.d + a.eps);
    if (!a.cos) {
        for (int64_t d = threadIdx.x; d < a.x.d; d += blockDim.x)
            store(y, a.y.type, d, value(a, x, row, d, mean, scale));
        return;
    }
    const int    half = a.head / 2, apart = a.halves ? half : 1;
    const float *cosine = a.cos + row % a.rope_rows * a.cos_stride, *sine = a.sin + row % a.rope_rows * a.sin_stride;

    for (int64_t i = threadIdx.x; i < a.x.d / 2; i += blockDim.x) {
        const int     at = (int)(i % half);
        const int64_t d = i / half * a.head + (a.halves ? at : 2 * at);
        const float   u = value(a, x, row, d, mean, scale), v = value(a, x, row, d + apart, mean, scale);

        store(y, a.y.type, d, u * cosine[at] - v * sine[at]);
        store(y, a.y.type, d + apart, u * sine[at] + v * cosine[at]);
    }
}

cudaError_t gv_cu_norm(const struct cu_norm *a, cudaStream_t stream)
{
    const dim3 block = a->x.d <= 512 ? dim3(32, 8) : dim3(256, 1);

    norm_rows<<<(unsigned)ceil_div(a->x.n, block.y), block, 0, stream>>>(*a);
    return cudaGetLastError();
}
