/* Pointwise operations on rows, what follows a product, linear combinations, and the search for what is not finite. A thread
 * keeps its columns, four at a time where addresses allow it, and walks down the rows, so that no index is divided. */
#include "core/cuda/common.cuh"

enum { THREADS = 256, WIDE = 64, HIGH = THREADS / WIDE, DEEP = 8 }; /* a block is WIDE columns (or fours) by HIGH · DEEP rows */

enum point_op { POINT_ACT, POINT_GLU, POINT_ADD, POINT_FINISH };

struct point {
    struct cu_rows   y, a, b;
    int              op, act;
    struct cu_finish f; /* of POINT_FINISH, which reads a as the sum */
};

static __device__ __forceinline__ float one(const struct point &p, int64_t n, int64_t d)
{
    float v = load(p.a.data, p.a.type, n * p.a.stride + d);

    if (p.op == POINT_ADD)
        return v + load(p.b.data, p.b.type, n % p.b.n * p.b.stride + d);
    v = activate(v, p.act);
    return p.op == POINT_GLU ? v * load(p.b.data, p.b.type, n * p.b.stride + d) : v;
}

static __global__ void point_any(const __grid_constant__ struct point p)
{
    for (int64_t d = (int64_t)blockIdx.x * WIDE + threadIdx.x; d < p.y.d; d += (int64_t)gridDim.x * WIDE)
        for (int64_t n = (int64_t)blockIdx.y * HIGH + threadIdx.y; n < p.y.n; n += (int64_t)gridDim.y * HIGH) {
            if (p.op == POINT_FINISH)
                finish(p.f, n, d, load(p.a.data, p.a.type, n * p.a.stride + d));
            else
                store(p.y.data, p.y.type, n * p.y.stride + d, one(p, n, d));
        }
}

static __device__ __forceinline__ float4 plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

static __device__ __forceinline__ float4 activate4(float4 v, int act)
{
    if (act == CU_NONE)
        return v;
    return make_float4(activate(v.x, act), activate(v.y, act), activate(v.z, act), activate(v.w, act));
}

static __global__ void point_fours(const __grid_constant__ struct point p)
{
    const int64_t d = 4 * ((int64_t)blockIdx.x * WIDE + threadIdx.x);
    float4        bias = make_float4(0, 0, 0, 0), gate = make_float4(1, 1, 1, 1);

    if (d >= p.y.d)
        return;
    if (p.f.bias)
        bias = *(const float4 *)(p.f.bias + d);
    if (p.f.gate.data)
        gate = *(const float4 *)(p.f.gate.data + d); /* of group 0 */
    for (int64_t n = (int64_t)blockIdx.y * HIGH + threadIdx.y; n < p.y.n; n += (int64_t)gridDim.y * HIGH) {
        const int64_t to = n * p.y.stride + d;
        float4        v = load4(p.a.data, p.a.type, n * p.a.stride + d);

        if (p.op == POINT_FINISH) {
            v = activate4(plus(v, bias), p.f.act);
            v = times(v, p.f.group ? *(const float4 *)(p.f.gate.data + p.f.group[n] * p.f.gate.stride + d) : gate);
            if (p.f.add)
                v = plus(v, load4(p.y.data, p.y.type, to));
        } else if (p.op == POINT_ADD) {
            v = plus(v, load4(p.b.data, p.b.type, n % p.b.n * p.b.stride + d));
        } else {
            v = activate4(v, p.act);
            if (p.op == POINT_GLU)
                v = times(v, load4(p.b.data, p.b.type, n * p.b.stride + d));
        }
        store4(p.y.data, p.y.type, to, v);
    }
}

static cudaError_t point(const struct point *p, cudaStream_t stream)
{
    const bool fours = in_fours(p->y) && in_fours(p->a) && in_fours(p->b) && aligned16(p->f.bias) &&
                       aligned16(p->f.gate.data) && p->f.gate.stride % 4 == 0 && !(p->f.group && !p->f.gate.data);
    const int64_t columns = ceil_div(fours ? p->y.d / 4 : p->y.d, WIDE), rows = ceil_div(p->y.n, HIGH * DEEP);
    const dim3    grid((unsigned)columns, (unsigned)(rows < 65535 ? rows : 65535)), block(WIDE, HIGH);

    if (fours)
        point_fours<<<grid, block, 0, stream>>>(*p);
    else
        point_any<<<grid, block, 0, stream>>>(*p);
    return cudaGetLastError();
}

/* Rows that follow each other without a gap are one row, cut anew into rows of the width that a block is best at. */
static struct point recut(struct point p)
{
    const int64_t count = p.y.n * p.y.d, d = 4 * WIDE;

    if (count % d || p.b.n != p.y.n || (p.y.n > 1 && (p.y.stride != p.y.d || p.a.stride != p.y.d || p.b.stride != p.y.d)))
        return p;
    p.y.n = p.a.n = p.b.n = count / d;
    p.y.d = p.a.d = p.b.d = p.y.stride = p.a.stride = p.b.stride = d;
    return p;
}

cudaError_t gv_cu_act(struct cu_rows y, struct cu_rows a, int act, cudaStream_t stream)
{
    const struct point p = recut({ y, a, a, POINT_ACT, act });

    return point(&p, stream);
}

cudaError_t gv_cu_glu(struct cu_rows y, struct cu_rows a, struct cu_rows b, int act, cudaStream_t stream)
{
    const struct point p = recut({ y, a, b, POINT_GLU, act });

    return point(&p, stream);
}

cudaError_t gv_cu_add(struct cu_rows y, struct cu_rows a, struct cu_rows b, cudaStream_t stream)
{
    const struct point p = recut({ y, a, b, POINT_ADD, CU_NONE });

    return point(&p, stream);
}

cudaError_t gv_cu_finish(const struct cu_finish *f, cudaStream_t stream)
{
    const struct cu_rows sum = { (void *)f->x, GV_F32, f->y.n, f->y.d, f->y.d };
    const struct point   p = { f->y, sum, sum, POINT_FINISH, CU_NONE, *f };

    return point(&p, stream);
}

static __global__ void lincomb(const __grid_constant__ struct cu_lincomb a)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < a.n; i += (int64_t)gridDim.x * THREADS) {
        float sum = 0;

        for (int t = 0; t < a.n_terms; t++)
            sum += a.factor[t] * a.x[t][i];
        a.y[i] = sum;
    }
}

cudaError_t gv_cu_lincomb(const struct cu_lincomb *a, cudaStream_t stream)
{
    lincomb<<<blocks_for(a->n, THREADS * 4), THREADS, 0, stream>>>(*a);
    return cudaGetLastError();
}

static __device__ __forceinline__ bool is_bad(float v)
{
    return !isfinite(v);
}

static __global__ void find_bad(const __grid_constant__ struct cu_rows x, bool fours, unsigned *bad)
{
    const int64_t each = fours ? 4 : 1, wide = x.d / each, high = gridDim.x;
    bool          found = false;

    for (int64_t n = blockIdx.x; n < x.n; n += high)
        for (int64_t i = threadIdx.x; i < wide; i += THREADS) {
            const int64_t at = n * x.stride + each * i;

            if (fours) {
                const float4 v = load4(x.data, GV_F32, at);
                found |= is_bad(v.x) || is_bad(v.y) || is_bad(v.z) || is_bad(v.w);
            } else {
                found |= is_bad(((const float *)x.data)[at]);
            }
        }
    if (found)
        *bad = 1;
}

cudaError_t gv_cu_finite(struct cu_rows x, unsigned *bad, cudaStream_t stream)
{
    find_bad<<<blocks_for(x.n, 4), THREADS, 0, stream>>>(x, in_fours(x), bad);
    return cudaGetLastError();
}
