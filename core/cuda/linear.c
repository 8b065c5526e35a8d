/* Matrix products by cuBLASLt, with what its epilogues cannot say done by one pass of our own (gv_cu_finish).
 *
 * Our y [N, M] = x [N, K] · wᵀ [K, M], row-major, is to the library a column-major D [M, N] = Wᵀ · X. Products are made in the
 * weight's type with f32 sums (f32: without tf32); an x of another type is converted first. What follows the sum is
 *   the library's, where there is no gate and no activation: a bias and an addition for an f32 y; a bias for a bf16 y of bf16
 *     weights, which it wants in bf16: exact for a bf16 checkpoint;
 *   else the sum goes into f32 scratch, and the rest is ours.
 * A plan is what the library's own heuristic says first, kept by shape, so that the same request makes the same bits; what it
 * has no answer to goes to gv_cu_conv. */
#include <stdint.h>
#include <stdlib.h>

#include "core/cuda/cuda.h"

struct plan_key {
    int64_t    M, N, K, ldx, ldy;
    enum dtype in, out;
    int        align_x, align_w, align_y;
    bool       bias, add;
};

struct linear_plan {
    struct plan_key        key;
    struct linear_plan    *next;
    bool                   usable;
    cublasLtMatmulDesc_t   product;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t   algo;
};

/* ---- what is done how: a pure function of the call ---------------------------------------------------------------------- */

struct route {
    bool   convert, direct;
    size_t x_bytes, bias_bytes, y_bytes; /* of scratch: x in w's type; the bias in bf16; the sum in f32 */
};

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static struct route route_of(struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o)
{
    const int64_t N = gv_cuda_rows(x).n, M = w.dim[0], K = w.dim[1];
    struct route  r = { .convert = x.type != w.type };

    r.direct = !present(o->gate) && o->act == ACT_NONE && (y.type == GV_F32 || w.type == GV_BF16);
    r.x_bytes = r.convert ? rounded(gv_dtype_bytes(w.type, N * K)) : 0;
    r.bias_bytes = r.direct && y.type == GV_BF16 && present(o->bias) ? rounded(gv_dtype_bytes(GV_BF16, M)) : 0;
    r.y_bytes = r.direct ? 0 : rounded(gv_dtype_bytes(GV_F32, N * M));
    return r;
}

size_t gv_cuda_linear_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w,
                                const struct linear_opts *o)
{
    const struct route r = route_of(y, x, w, o);

    (void)d;
    return r.x_bytes + r.bias_bytes + r.y_bytes + 256; /* scratch begins at a multiple of GV_ALIGN */
}

/* ---- plans --------------------------------------------------------------------------------------------------------------- */

static cudaDataType_t lt_type(enum dtype t)
{
    return t == GV_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static int alignment(const void *p, int64_t ld, enum dtype type)
{
    const uint64_t bits = (uint64_t)(uintptr_t)p | gv_dtype_bytes(type, ld) | 256;

    return (int)(bits & -bits);
}

static void layout(cublasLtMatrixLayout_t *to, enum dtype type, int64_t rows, int64_t columns, int64_t ld)
{
    cublasLtMatrixLayoutCreate(to, lt_type(type), (uint64_t)rows, (uint64_t)columns, ld);
}

/* Asks the heuristic; the plan is usable if it answers. */
static void describe(struct cuda_device *c, struct linear_plan *p)
{
    const struct plan_key          *k = &p->key;
    const cublasOperation_t         turn = CUBLAS_OP_T;
    const cublasLtEpilogue_t        epilogue = k->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const size_t                    most = CU_WORKSPACE_BYTES;
    const uint32_t                  align[3] = { (uint32_t)k->align_w, (uint32_t)k->align_x, (uint32_t)k->align_y };
    cublasLtMatmulPreference_t      wish = NULL;
    cublasLtMatmulHeuristicResult_t best = { 0 };
    int                             found = 0;

    if (cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulPreferenceCreate(&wish) != CUBLAS_STATUS_SUCCESS)
        return;
    cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &turn, sizeof turn);
    cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    layout(&p->w, k->in, k->K, k->M, k->K);
    layout(&p->x, k->in, k->K, k->N, k->ldx);
    layout(&p->y, k->out, k->M, k->N, k->ldy);
    cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
    cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[0], sizeof align[0]);
    cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[1], sizeof align[1]);
    cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof align[2]);
    cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2], sizeof align[2]);
    p->usable = p->w && p->x && p->y &&
                cublasLtMatmulAlgoGetHeuristic(c->lt, p->product, p->w, p->x, p->y, p->y, wish, 1, &best, &found) ==
                    CUBLAS_STATUS_SUCCESS &&
                found > 0;
    p->algo = best.algo;
    cublasLtMatmulPreferenceDestroy(wish);
}

static bool same_key(const struct plan_key *a, const struct plan_key *b)
{
    return a->M == b->M && a->N == b->N && a->K == b->K && a->ldx == b->ldx && a->ldy == b->ldy && a->in == b->in &&
           a->out == b->out && a->align_x == b->align_x && a->align_w == b->align_w && a->align_y == b->align_y &&
           a->bias == b->bias && a->add == b->add;
}

/* The lock is held. NULL: no memory. */
static struct linear_plan *plan_for(struct cuda_device *c, const struct plan_key *key)
{
    struct linear_plan *p = c->plans;

    while (p && !same_key(&p->key, key))
        p = p->next;
    if (p)
        return p;
    p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->key = *key;
    describe(c, p);
    p->next = c->plans;
    c->plans = p;
    return p;
}

void gv_cuda_linear_close(struct cuda_device *c)
{
    for (struct linear_plan *p = c->plans, *next; p; p = next) {
        next = p->next;
        if (p->product)
            cublasLtMatmulDescDestroy(p->product);
        if (p->w)
            cublasLtMatrixLayoutDestroy(p->w);
        if (p->x)
            cublasLtMatrixLayoutDestroy(p->x);
        if (p->y)
            cublasLtMatrixLayoutDestroy(p->y);
        free(p);
    }
    if (c->lt)
        cublasLtDestroy(c->lt);
}

/* ---- the product --------------------------------------------------------------------------------------------------------- */

/* y = x · wᵀ (+ bias) (+ y), bias in y's type; false if the library has no plan for it. x and w are of one type. */
static bool multiply(struct run *r, struct tensor y, struct tensor x, struct tensor w, const void *bias, bool add)
{
    struct cuda_device   *c = gv_cuda_of(r->device);
    const struct cu_rows  xr = gv_cuda_rows(x), yr = gv_cuda_rows(y);
    const struct plan_key key = { .M = w.dim[0],
                                  .N = xr.n,
                                  .K = w.dim[1],
                                  .ldx = xr.stride,
                                  .ldy = yr.stride,
                                  .in = w.type,
                                  .out = y.type,
                                  .align_x = alignment(x.data, xr.stride, x.type),
                                  .align_w = alignment(w.data, w.dim[1], w.type),
                                  .align_y = alignment(y.data, yr.stride, y.type),
                                  .bias = bias != NULL,
                                  .add = add };
    const float           one = 1, beta = add ? 1 : 0;
    bool                  done = false;

    pthread_mutex_lock(&c->lock); /* the bias is written into the plan */
    struct linear_plan *p = plan_for(c, &key);
    if (p && p->usable) {
        cublasStatus_t s = CUBLAS_STATUS_SUCCESS;

        if (bias)
            s = cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
        if (s == CUBLAS_STATUS_SUCCESS)
            s = cublasLtMatmul(c->lt, p->product, &one, w.data, p->w, x.data, p->x, &beta, y.data, p->y, y.data, p->y, &p->algo,
                               c->workspace, CU_WORKSPACE_BYTES, c->stream);
        if (s != CUBLAS_STATUS_SUCCESS)
            gv_run_fail(r, GV_ERR_DEVICE, "linear: cuBLASLt says: %s", cublasLtGetStatusString(s));
        done = true;
    }
    pthread_mutex_unlock(&c->lock);
    return done;
}

void gv_cuda_linear(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o, void *ws)
{
    const struct route route = route_of(y, x, w, o);
    const int64_t      N = gv_cuda_rows(x).n;
    const cudaStream_t stream = gv_cuda_of(r->device)->stream;
    char              *at = (char *)(((uintptr_t)ws + 255) / 256 * 256);

    if (route.convert) {
        const struct cu_rows from = gv_cuda_rows(x);

        x = gv_tensor(at, w.type, 2, DIMS(N, w.dim[1]));
        at += route.x_bytes;
        if (!gv_cuda_ok(r, gv_cu_act(gv_cuda_rows(x), from, CU_NONE, stream), "linear"))
            return;
    }
    const void *bias = o->bias.data;

    if (route.bias_bytes) {
        const struct tensor half = gv_tensor(at, GV_BF16, 1, &w.dim[0]);

        at += route.bias_bytes;
        bias = half.data;
        if (!gv_cuda_ok(r, gv_cu_act(gv_cuda_rows(half), gv_cuda_rows(o->bias), CU_NONE, stream), "linear"))
            return;
    }
    if (route.direct && multiply(r, y, x, w, bias, o->add))
        return;
    struct cu_finish f = { .y = gv_cuda_rows(y),
                           .bias = o->bias.data,
                           .act = o->act,
                           .gate = { o->gate.data, present(o->gate) ? gv_cuda_rows(o->gate).stride : 0 },
                           .group = o->group.data,
                           .add = o->add };
    struct tensor    sum = gv_tensor(at, GV_F32, 2, DIMS(N, w.dim[0]));

    if (!route.direct && multiply(r, sum, x, w, NULL, false)) {
        f.x = sum.data;
        if (gv_run_ready(r))
            gv_cuda_ok(r, gv_cu_finish(&f, stream), "linear");
        return;
    }
    const struct cu_conv plain = { .x = x.data,
                                   .w = w.data,
                                   .x_type = x.type,
                                   .w_type = w.type,
                                   .x_pixel = gv_cuda_rows(x).stride,
                                   .T = N,
                                   .H = 1,
                                   .W = 1,
                                   .C = w.dim[1],
                                   .O = w.dim[0],
                                   .To = N,
                                   .Ho = 1,
                                   .Wo = 1,
                                   .k = { 1, 1, 1 },
                                   .stride = { 1, 1, 1 },
                                   .out = f };
    gv_cuda_ok(r, gv_cu_conv(&plain, stream), "linear");
}
