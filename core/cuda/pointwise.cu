/* Pointwise operations on rows, what follows a product, linear combinations, and the search for what is not finite. */
#include "core/cuda/common.cuh"

enum { THREADS = 256 };

enum point_op { POINT_ACT, POINT_GLU, POINT_ADD };

struct point {
    struct cu_rows y, a, b;
    int            op, act;
};

static __global__ void point_rows(const __grid_constant__ struct point p)
{
    const int64_t count = p.y.n * p.y.d;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const int64_t n = i / p.y.d, d = i - n * p.y.d;
        float         v = load(p.a.data, p.a.type, n * p.a.stride + d);

        if (p.op != POINT_ADD)
            v = activate(v, p.act);
        if (p.op == POINT_GLU)
            v *= load(p.b.data, p.b.type, n * p.b.stride + d);
        if (p.op == POINT_ADD)
            v += load(p.b.data, p.b.type, n % p.b.n * p.b.stride + d);
        store(p.y.data, p.y.type, n * p.y.stride + d, v);
    }
}

static cudaError_t point(struct point p, cudaStream_t stream)
{
    point_rows<<<blocks_for(p.y.n * p.y.d, THREADS * 4), THREADS, 0, stream>>>(p);
    return cudaGetLastError();
}

cudaError_t gv_cu_act(struct cu_rows y, struct cu_rows a, int act, cudaStream_t stream)
{
    return point({ y, a, a, POINT_ACT, act }, stream);
}

cudaError_t gv_cu_glu(struct cu_rows y, struct cu_rows a, struct cu_rows b, int act, cudaStream_t stream)
{
    return point({ y, a, b, POINT_GLU, act }, stream);
}

cudaError_t gv_cu_add(struct cu_rows y, struct cu_rows a, struct cu_rows b, cudaStream_t stream)
{
    return point({ y, a, b, POINT_ADD, CU_NONE }, stream);
}

static __global__ void finish_rows(const __grid_constant__ struct cu_finish f)
{
    const int64_t count = f.y.n * f.y.d;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const int64_t n = i / f.y.d;
        finish(f, n, i - n * f.y.d, f.x[i]);
    }
}

cudaError_t gv_cu_finish(const struct cu_finish *a, cudaStream_t stream)
{
    finish_rows<<<blocks_for(a->y.n * a->y.d, THREADS * 4), THREADS, 0, stream>>>(*a);
    return cudaGetLastError();
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

static __global__ void find_bad(const __grid_constant__ struct cu_rows x, unsigned *bad)
{
    const int64_t count = x.n * x.d;
    bool          found = false;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS)
        found |= !isfinite(((const float *)x.data)[i / x.d * x.stride + i % x.d]);
    if (found)
        *bad = 1;
}

cudaError_t gv_cu_finite(struct cu_rows x, unsigned *bad, cudaStream_t stream)
{
    find_bad<<<blocks_for(x.n * x.d, THREADS * 4), THREADS, 0, stream>>>(x, bad);
    return cudaGetLastError();
}
