/* Convolutions. In bf16 by cuDNN's graph API: channels last, padding before and behind told apart (so a causal convolution needs
 * no padded copy), bias fused. Everything else (f32, where cuDNN would take tf32; results in f32; addresses that are not of 16
 * bytes; more than 2^31 elements) runs the plain kernel. A residual is added by one pass of our own behind it, of a sum that
 * was rounded to bf16 once.
 *
 * A plan is the first of the library's heuristic (mode A) that it can build within the workspace, kept by shape: the same
 * request makes the same bits. Source of the recipe: NVIDIA's "cuDNN Backend API" reference, version 9. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cudnn.h>

#include "core/cuda/cuda.h"

struct conv_key {
    int64_t x[4], y[4], k[3]; /* T, H, W, C */
    int64_t stride[3], lo[3], hi[3];
    int64_t bias;
};

struct conv_plan {
    struct conv_key          key;
    struct conv_plan        *next;
    cudnnBackendDescriptor_t plan; /* NULL: the library has none */
    int64_t                  workspace;
};

enum { ID_X = 1, ID_W, ID_Y, ID_BIAS, ID_SUM, MOST_DESCRIPTORS = 16, MOST_CONFIGS = 64 };

/* ---- what is done how: a pure function of the call ---------------------------------------------------------------------- */

struct route {
    bool   library;
    size_t bias_bytes, sum_bytes; /* of scratch */
};

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static struct route route_of(struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o)
{
    struct route r = { .library = x.type == GV_BF16 && w.type == GV_BF16 && y.type == GV_BF16 &&
                                  gv_tensor_count(x) < INT32_MAX && gv_tensor_count(y) < INT32_MAX };

    if (r.library && present(o->bias))
        r.bias_bytes = rounded(gv_dtype_bytes(GV_BF16, w.dim[0]));
    if (r.library && o->add)
        r.sum_bytes = rounded(gv_tensor_bytes(y));
    return r;
}

size_t gv_cuda_conv_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o)
{
    const struct route r = route_of(y, x, w, o);

    (void)d;
    return r.bias_bytes + r.sum_bytes + 256;
}

/* ---- a plan ---------------------------------------------------------------------------------------------------------------- */

/* Descriptors of one graph; the first failure stays. */
struct builder {
    cudnnStatus_t            status;
    cudnnBackendDescriptor_t made[MOST_DESCRIPTORS];
    int                      n;
};

static cudnnBackendDescriptor_t make(struct builder *b, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;

    if (b->status == CUDNN_STATUS_SUCCESS && b->n < MOST_DESCRIPTORS)
        b->status = cudnnBackendCreateDescriptor(type, &d);
    if (d)
        b->made[b->n++] = d;
    return d;
}

static void set(struct builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *value)
{
    if (b->status == CUDNN_STATUS_SUCCESS)
        b->status = cudnnBackendSetAttribute(d, name, type, n, value);
}

static void finish(struct builder *b, cudnnBackendDescriptor_t d)
{
    if (b->status == CUDNN_STATUS_SUCCESS)
        b->status = cudnnBackendFinalize(d);
}

/* n, C, T, H, W in the library's order, channels last in memory. */
static cudnnBackendDescriptor_t tensor(struct builder *b, int64_t id, cudnnDataType_t type, int64_t n, const int64_t *thwc)
{
    const int64_t            T = thwc[0], H = thwc[1], W = thwc[2], C = thwc[3], align = 16;
    const int64_t            dim[5] = { n, C, T, H, W }, stride[5] = { T * H * W * C, 1, H * W * C, W * C, C };
    const bool               is_virtual = id == ID_SUM;
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);

    set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 5, dim);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 5, stride);
    set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    finish(b, d);
    return d;
}

static cudnnBackendDescriptor_t convolution(struct builder *b, const struct conv_key *k, cudnnBackendDescriptor_t x,
                                            cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y)
{
    const cudnnDataType_t        f32 = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t                dims = 3, dilation[3] = { 1, 1, 1 };
    const float                  alpha = 1, beta = 0;
    cudnnBackendDescriptor_t     c = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);

    set(b, c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    set(b, c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(b, c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    set(b, c, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 3, dilation);
    set(b, c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 3, k->stride);
    set(b, c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 3, k->lo);
    set(b, c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 3, k->hi);
    finish(b, c);
    cudnnBackendDescriptor_t op = make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    finish(b, op);
    return op;
}

static cudnnBackendDescriptor_t addition(struct builder *b, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t bias,
                                         cudnnBackendDescriptor_t y)
{
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    const cudnnDataType_t      f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t   p = make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);

    set(b, p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(b, p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    finish(b, p);
    cudnnBackendDescriptor_t op = make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set(b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &p);
    set(b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    set(b, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &bias);
    set(b, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    finish(b, op);
    return op;
}

static cudnnBackendDescriptor_t graph(struct builder *b, cudnnHandle_t handle, const struct conv_key *k)
{
    const int64_t            wide[4] = { k->k[0], k->k[1], k->k[2], k->x[3] }, thin[4] = { 1, 1, 1, k->y[3] };
    cudnnBackendDescriptor_t op[2], x = tensor(b, ID_X, CUDNN_DATA_BFLOAT16, 1, k->x);
    cudnnBackendDescriptor_t w = tensor(b, ID_W, CUDNN_DATA_BFLOAT16, k->y[3], wide);
    cudnnBackendDescriptor_t y = tensor(b, ID_Y, CUDNN_DATA_BFLOAT16, 1, k->y);

    if (k->bias) {
        cudnnBackendDescriptor_t sum = tensor(b, ID_SUM, CUDNN_DATA_FLOAT, 1, k->y);

        op[0] = convolution(b, k, x, w, sum);
        op[1] = addition(b, sum, tensor(b, ID_BIAS, CUDNN_DATA_BFLOAT16, 1, thin), y);
    } else {
        op[0] = convolution(b, k, x, w, y);
    }
    cudnnBackendDescriptor_t g = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(b, g, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, k->bias ? 2 : 1, op);
    set(b, g, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    finish(b, g);
    return g;
}

/* An engine's configuration → a plan; NULL if the library cannot build it within the workspace. */
static cudnnBackendDescriptor_t plan_of(cudnnHandle_t handle, cudnnBackendDescriptor_t config, int64_t *bytes)
{
    cudnnBackendDescriptor_t plan = NULL;
    int64_t                  one = 0;

    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) != CUDNN_STATUS_SUCCESS)
        return NULL;
    if (cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &one, bytes) ==
            CUDNN_STATUS_SUCCESS &&
        *bytes <= (int64_t)CU_WORKSPACE_BYTES)
        return plan;
    cudnnBackendDestroyDescriptor(plan);
    return NULL;
}

static cudnnBackendDescriptor_t first_plan(struct builder *b, cudnnHandle_t handle, cudnnBackendDescriptor_t g, int64_t *bytes)
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t     config[MOST_CONFIGS], plan = NULL, h = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    int64_t                      n = 0, made = 0, given = 0;

    set(b, h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g);
    set(b, h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finish(b, h);
    if (b->status != CUDNN_STATUS_SUCCESS ||
        cudnnBackendGetAttribute(h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &n, NULL) !=
            CUDNN_STATUS_SUCCESS)
        return NULL;
    while (made < n && made < MOST_CONFIGS &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[made]) == CUDNN_STATUS_SUCCESS)
        made++;
    if (cudnnBackendGetAttribute(h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &given, config) ==
        CUDNN_STATUS_SUCCESS)
        for (int64_t i = 0; i < given && i < made && !plan; i++) /* fewer may be given than were told of */
            plan = plan_of(handle, config[i], bytes);
    for (int64_t i = 0; i < made; i++)
        cudnnBackendDestroyDescriptor(config[i]);
    return plan;
}

/* The lock is held. NULL: no memory. */
static struct conv_plan *plan_for(struct cuda_device *c, const struct conv_key *key)
{
    struct conv_plan *p = c->convolutions;
    struct builder    b = { 0 };

    while (p && memcmp(&p->key, key, sizeof *key))
        p = p->next;
    if (p)
        return p;
    p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->key = *key;
    p->plan = first_plan(&b, c->cudnn, graph(&b, c->cudnn, key), &p->workspace);
    for (int i = b.n - 1; i >= 0; i--)
        cudnnBackendDestroyDescriptor(b.made[i]);
    p->next = c->convolutions;
    c->convolutions = p;
    return p;
}

gv_status gv_cuda_conv_open(struct cuda_device *c, struct error *e)
{
    const size_t        oldest = 90000;
    const cudnnStatus_t s = cudnnCreate(&c->cudnn);

    if (cudnnGetVersion() < oldest)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "cuDNN %zu is too old; the CUDA device needs 9.0 (%zu)", cudnnGetVersion(),
                       oldest);
    if (s == CUDNN_STATUS_SUCCESS && cudnnSetStream(c->cudnn, c->stream) == CUDNN_STATUS_SUCCESS)
        return GV_OK;
    return gv_fail(e, GV_ERR_DEVICE, "cuDNN does not start: %s", cudnnGetErrorString(s));
}

void gv_cuda_conv_close(struct cuda_device *c)
{
    for (struct conv_plan *p = c->convolutions, *next; p; p = next) {
        next = p->next;
        if (p->plan)
            cudnnBackendDestroyDescriptor(p->plan);
        free(p);
    }
    if (c->cudnn)
        cudnnDestroy(c->cudnn);
}

/* ---- the convolution --------------------------------------------------------------------------------------------------------- */

static cudnnStatus_t execute(struct cuda_device *c, const struct conv_plan *p, void *y, void *x, void *w, void *bias)
{
    const int64_t            id[4] = { ID_X, ID_W, ID_Y, ID_BIAS }, n = bias ? 4 : 3;
    void                    *at[4] = { x, w, y, bias };
    struct builder           b = { 0 };
    cudnnBackendDescriptor_t pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);

    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, id);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, at);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &c->workspace);
    finish(&b, pack);
    if (b.status == CUDNN_STATUS_SUCCESS)
        b.status = cudnnBackendExecute(c->cudnn, p->plan, pack);
    if (pack)
        cudnnBackendDestroyDescriptor(pack);
    return b.status;
}

static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* False if it is not the library's to do. */
static bool by_library(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *bias)
{
    struct cuda_device *c = gv_cuda_of(r->device);
    struct conv_key     key = { .bias = bias != NULL };
    bool                done = false;

    if (!aligned(y.data) || !aligned(x.data) || !aligned(w.data))
        return false;
    memcpy(key.x, x.dim, sizeof key.x);
    memcpy(key.y, y.dim, sizeof key.y);
    for (int i = 0; i < 3; i++) {
        key.k[i] = w.dim[i + 1];
        key.stride[i] = o->stride[i] ? o->stride[i] : 1;
        key.lo[i] = o->pad_lo[i];
        key.hi[i] = o->pad_hi[i];
    }
    pthread_mutex_lock(&c->lock);
    const struct conv_plan *p = plan_for(c, &key);
    if (p && p->plan) {
        const cudnnStatus_t s = execute(c, p, y.data, x.data, w.data, bias);

        if (s != CUDNN_STATUS_SUCCESS)
            gv_run_fail(r, GV_ERR_DEVICE, "conv: cuDNN says: %s", cudnnGetErrorString(s));
        done = true;
    }
    pthread_mutex_unlock(&c->lock);
    return done;
}

static void by_plain_kernel(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o)
{
    struct cu_conv a = { .x = x.data,
                         .w = w.data,
                         .x_type = x.type,
                         .w_type = w.type,
                         .x_pixel = x.dim[3],
                         .T = x.dim[0],
                         .H = x.dim[1],
                         .W = x.dim[2],
                         .C = x.dim[3],
                         .O = w.dim[0],
                         .To = y.dim[0],
                         .Ho = y.dim[1],
                         .Wo = y.dim[2],
                         .out = { .y = gv_cuda_rows(y), .bias = o->bias.data, .add = o->add } };

    for (int i = 0; i < 3; i++) {
        a.k[i] = (int)w.dim[i + 1];
        a.stride[i] = o->stride[i] ? o->stride[i] : 1;
        a.pad[i] = o->pad_lo[i];
    }
    gv_cuda_ok(r, gv_cu_conv(&a, gv_cuda_of(r->device)->stream), "conv");
}

void gv_cuda_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *ws)
{
    const struct route route = route_of(y, x, w, o);
    const cudaStream_t stream = gv_cuda_of(r->device)->stream;
    char              *at = (char *)(((uintptr_t)ws + 255) / 256 * 256);
    struct tensor      bias = { 0 }, sum = y;

    if (route.bias_bytes) {
        bias = gv_tensor(at, GV_BF16, 1, &w.dim[0]);
        at += route.bias_bytes;
        if (!gv_cuda_ok(r, gv_cu_act(gv_cuda_rows(bias), gv_cuda_rows(o->bias), CU_NONE, stream), "conv"))
            return;
    }
    if (route.sum_bytes)
        sum.data = at;
    if (!route.library || !by_library(r, sum, x, w, o, bias.data))
        by_plain_kernel(r, y, x, w, o);
    else if (o->add && r->err.code == GV_OK)
        gv_cuda_ok(r, gv_cu_add(gv_cuda_rows(y), gv_cuda_rows(y), gv_cuda_rows(sum), stream), "conv");
}
