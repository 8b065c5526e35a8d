/* What the kernels of core/ and attention/ share: loads and stores of any float type, activations, sums over warps and blocks. */
#ifndef GV_CORE_CUDA_COMMON_CUH
#define GV_CORE_CUDA_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/cuda/kernels.h"

/* The type is the same for a whole launch, so the branch is too. */
static __device__ __forceinline__ float load(const void *p, enum dtype type, int64_t i)
{
    if (type == GV_F32)
        return ((const float *)p)[i];
    if (type == GV_BF16)
        return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
    return __half2float(((const __half *)p)[i]);
}

static __device__ __forceinline__ void store(void *p, enum dtype type, int64_t i, float v)
{
    if (type == GV_F32)
        ((float *)p)[i] = v;
    else if (type == GV_BF16)
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(v);
    else
        ((__half *)p)[i] = __float2half_rn(v);
}

/* Four at once; i is a multiple of 4 and the address of 16 bytes (of 8 for two-byte types). */
static __device__ __forceinline__ float4 load4(const void *p, enum dtype type, int64_t i)
{
    if (type == GV_F32)
        return *(const float4 *)((const float *)p + i);
    const uint2 u = *(const uint2 *)((const uint16_t *)p + i);
    float2      lo, hi;
    if (type == GV_BF16) {
        lo = __bfloat1622float2(*(const __nv_bfloat162 *)&u.x);
        hi = __bfloat1622float2(*(const __nv_bfloat162 *)&u.y);
    } else {
        lo = __half22float2(*(const __half2 *)&u.x);
        hi = __half22float2(*(const __half2 *)&u.y);
    }
    return make_float4(lo.x, lo.y, hi.x, hi.y);
}

static __device__ __forceinline__ void store4(void *p, enum dtype type, int64_t i, float4 v)
{
    uint2 u;

    if (type == GV_F32) {
        *(float4 *)((float *)p + i) = v;
        return;
    }
    if (type == GV_BF16) {
        *(__nv_bfloat162 *)&u.x = __floats2bfloat162_rn(v.x, v.y);
        *(__nv_bfloat162 *)&u.y = __floats2bfloat162_rn(v.z, v.w);
    } else {
        *(__half2 *)&u.x = __floats2half2_rn(v.x, v.y);
        *(__half2 *)&u.y = __floats2half2_rn(v.z, v.w);
    }
    *(uint2 *)((uint16_t *)p + i) = u;
}

static inline bool aligned16(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Whether load4 and store4 may walk these rows. */
static inline bool in_fours(struct cu_rows r)
{
    return r.d % 4 == 0 && (r.n == 1 || r.stride % 4 == 0) && (uintptr_t)r.data % (r.type == GV_F32 ? 16 : 8) == 0;
}

static __device__ __forceinline__ float activate(float x, int act)
{
    switch (act) {
    case CU_GELU_TANH: /* 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), without cancellation for u < 0 */
        return x / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    case CU_GELU_ERF: return 0.5f * x * erfcf(-0.7071067811865476f * x);
    case CU_SILU: return x / (1.0f + expf(-x));
    case CU_QUICK_GELU: return x / (1.0f + expf(-1.702f * x));
    default: return x;
    }
}

/* Element d of row n of a product's sum, on its way to y. */
static __device__ __forceinline__ void finish(const struct cu_finish &f, int64_t n, int64_t d, float v)
{
    const int64_t to = n * f.y.stride + d;

    if (f.bias)
        v += f.bias[d];
    v = activate(v, f.act);
    if (f.gate.data)
        v *= f.gate.data[(f.group ? f.group[n] : 0) * f.gate.stride + d];
    if (f.add)
        v += load(f.y.data, f.y.type, to);
    store(f.y.data, f.y.type, to, v);
}

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
    for (int o = 16; o; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

/* Sum over the `threads` threads of a row (threadIdx.x): a part of a warp, a warp, or a whole block of at most 1024, which must
 * all come here; `part` holds 32 floats. All get the same bits. */
template <int threads> static __device__ __forceinline__ float row_sum(float v, float *part)
{
    for (int o = (threads < 32 ? threads : 32) / 2; o; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threads <= 32)
        return v;
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    return warp_sum((int)threadIdx.x % 32 < threads / 32 ? part[threadIdx.x % 32] : 0);
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Blocks for n items of work that a grid-stride loop shares out. */
static inline unsigned blocks_for(int64_t n, int64_t each)
{
    const int64_t most = 132 * 64, blocks = ceil_div(n, each);

    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

#endif
