/* Norms with all that a model hangs on them: weight, bias, modulation, activation, rotary embedding. A row is read once, four
 * elements at a time, and stays in registers: of a warp where it is short, of a block where it is long. What does not come in
 * fours (odd widths and addresses, heads rotated by halves) is read three times by norm_any, the second and third time from the
 * cache. In place is safe because every element is written by the thread that read it, and the pairs of a rotation too. */
#include "core/cuda/common.cuh"

/* Mean and factor of a row from the sums of a pass over its elements: each pass is a call of `sum`. */
static __device__ __forceinline__ float scale_of(const struct cu_norm &a, float squares)
{
    if (a.kind == CU_L2)
        return sqrtf((float)a.x.d) / fmaxf(sqrtf(squares), a.eps);
    return 1.0f / sqrtf(squares / (float)a.x.d + a.eps);
}

/* ---- in fours ---- */

enum { FEW = 3, MANY = 12, BLOCK_MANY = 8, BLOCK_THREADS = 256 };

/* A row is `threads` threads' (a part of a warp, a warp, or a whole block) with `items` fours each. */
template <int items, int threads> static __global__ void norm_fours(const __grid_constant__ struct cu_norm a)
{
    __shared__ float part[32];
    const int64_t    row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, group = a.group && row < a.x.n ? a.group[row] : 0;
    float4           v[items];
    float            mean = 0, sum = 0;

    if (threads > 32 && row >= a.x.n) /* a block has one row; where it has more, all stay for the sums */
        return;
#pragma unroll
    for (int i = 0; i < items; i++) {
        const int64_t d = 4 * (int64_t)(i * threads + threadIdx.x);

        v[i] = row < a.x.n && d < a.x.d ? load4(a.x.data, a.x.type, row * a.x.stride + d) : make_float4(0, 0, 0, 0);
        sum += v[i].x + v[i].y + v[i].z + v[i].w;
    }
    if (a.kind == CU_LAYER)
        mean = row_sum<threads>(sum, part) / (float)a.x.d;
    sum = 0;
#pragma unroll
    for (int i = 0; i < items; i++) {
        v[i].x -= mean, v[i].y -= mean, v[i].z -= mean, v[i].w -= mean;
        if (4 * (int64_t)(i * threads + threadIdx.x) < a.x.d)
            sum += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
    }
    const float  scale = scale_of(a, row_sum<threads>(sum, part));
    const float *cosine = a.cos + row % (a.cos ? a.rope_rows : 1) * a.cos_stride;
    const float *sine = a.sin + row % (a.cos ? a.rope_rows : 1) * a.sin_stride;
#pragma unroll
    for (int i = 0; i < items; i++) {
        const int64_t d = 4 * (int64_t)(i * threads + threadIdx.x);

        if (row >= a.x.n || d >= a.x.d)
            break;
        float u[4] = { v[i].x * scale, v[i].y * scale, v[i].z * scale, v[i].w * scale };
        if (a.weight) {
            const float4 w = *(const float4 *)(a.weight + d);
            u[0] *= w.x, u[1] *= w.y, u[2] *= w.z, u[3] *= w.w;
        }
        if (a.bias) {
            const float4 w = *(const float4 *)(a.bias + d);
            u[0] += w.x, u[1] += w.y, u[2] += w.z, u[3] += w.w;
        }
        if (a.scale.data) {
            const float4 w = *(const float4 *)(a.scale.data + group * a.scale.stride + d);
            u[0] *= 1.0f + w.x, u[1] *= 1.0f + w.y, u[2] *= 1.0f + w.z, u[3] *= 1.0f + w.w;
        }
        if (a.shift.data) {
            const float4 w = *(const float4 *)(a.shift.data + group * a.shift.stride + d);
            u[0] += w.x, u[1] += w.y, u[2] += w.z, u[3] += w.w;
        }
        if (a.act)
            u[0] = activate(u[0], a.act), u[1] = activate(u[1], a.act), u[2] = activate(u[2], a.act),
            u[3] = activate(u[3], a.act);
        if (a.cos) {
            const int    at = (int)(d % a.head) / 2;
            const float2 c = *(const float2 *)(cosine + at), s = *(const float2 *)(sine + at);
            const float  w[4] = { u[0] * c.x - u[1] * s.x, u[0] * s.x + u[1] * c.x, u[2] * c.y - u[3] * s.y,
                                  u[2] * s.y + u[3] * c.y };
            u[0] = w[0], u[1] = w[1], u[2] = w[2], u[3] = w[3];
        }
        store4(a.y.data, a.y.type, row * a.y.stride + d, make_float4(u[0], u[1], u[2], u[3]));
    }
}

static bool comes_in_fours(const struct cu_norm *a)
{
    return in_fours(a->x) && in_fours(a->y) && aligned16(a->weight) && aligned16(a->bias) && aligned16(a->scale.data) &&
           aligned16(a->shift.data) && a->scale.stride % 4 == 0 && a->shift.stride % 4 == 0 &&
           (!a->cos || (!a->halves && a->head % 4 == 0 && aligned16(a->cos) && aligned16(a->sin) && a->cos_stride % 2 == 0 &&
                        a->sin_stride % 2 == 0));
}

/* ---- any ---- */

static __device__ __forceinline__ float value(const struct cu_norm &a, int64_t row, int64_t d, float mean, float scale)
{
    const int64_t group = a.group ? a.group[row] : 0;
    float         v = (load(a.x.data, a.x.type, row * a.x.stride + d) - mean) * scale;

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

template <int threads> static __global__ void norm_any(const __grid_constant__ struct cu_norm a)
{
    __shared__ float part[32];
    const int64_t    row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    float            mean = 0, sum = 0;

    if (row >= a.x.n) /* whole warps, and only where no block-wide barrier follows */
        return;
    if (a.kind == CU_LAYER) {
        for (int64_t d = threadIdx.x; d < a.x.d; d += threads)
            sum += load(a.x.data, a.x.type, row * a.x.stride + d);
        mean = row_sum<threads>(sum, part) / (float)a.x.d;
    }
    sum = 0;
    for (int64_t d = threadIdx.x; d < a.x.d; d += threads) {
        const float v = load(a.x.data, a.x.type, row * a.x.stride + d) - mean;
        sum += v * v;
    }
    const float scale = scale_of(a, row_sum<threads>(sum, part));

    if (!a.cos) {
        for (int64_t d = threadIdx.x; d < a.x.d; d += threads)
            store(a.y.data, a.y.type, row * a.y.stride + d, value(a, row, d, mean, scale));
        return;
    }
    const int    half = a.head / 2, apart = a.halves ? half : 1;
    const float *cosine = a.cos + row % a.rope_rows * a.cos_stride, *sine = a.sin + row % a.rope_rows * a.sin_stride;

    for (int64_t i = threadIdx.x; i < a.x.d / 2; i += threads) {
        const int     at = (int)(i % half);
        const int64_t d = i / half * a.head + (a.halves ? at : 2 * at), to = row * a.y.stride + d;
        const float   u = value(a, row, d, mean, scale), v = value(a, row, d + apart, mean, scale);

        store(a.y.data, a.y.type, to, u * cosine[at] - v * sine[at]);
        store(a.y.data, a.y.type, to + apart, u * sine[at] + v * cosine[at]);
    }
}

/* ---- choice ---- */

template <int items, int threads> static void launch_fours(const struct cu_norm *a, cudaStream_t stream)
{
    const dim3 block(threads, BLOCK_THREADS / threads);

    norm_fours<items, threads><<<(unsigned)ceil_div(a->x.n, block.y), block, 0, stream>>>(*a);
}

cudaError_t gv_cu_norm(const struct cu_norm *a, cudaStream_t stream)
{
    const int64_t d = comes_in_fours(a) ? a->x.d / 4 : INT64_MAX;

    if (d <= FEW * 8)
        launch_fours<FEW, 8>(a, stream);
    else if (d <= FEW * 16)
        launch_fours<FEW, 16>(a, stream);
    else if (d <= FEW * 32)
        launch_fours<FEW, 32>(a, stream);
    else if (d <= MANY * 32)
        launch_fours<MANY, 32>(a, stream);
    else if (d <= BLOCK_MANY * BLOCK_THREADS)
        launch_fours<BLOCK_MANY, BLOCK_THREADS>(a, stream);
    else if (a->x.d <= 512)
        norm_any<32><<<(unsigned)ceil_div(a->x.n, 8), dim3(32, 8), 0, stream>>>(*a);
    else
        norm_any<BLOCK_THREADS><<<(unsigned)a->x.n, BLOCK_THREADS, 0, stream>>>(*a);
    return cudaGetLastError();
}
