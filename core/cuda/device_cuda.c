/* The CUDA device: memory, weights, and the table of operations. It computes in bf16; device_params.precision overrides.
 *
 * Everything is queued on one stream and checked when it is queued; what fails later (a bad address, a lost device) is told by
 * the next call that waits. The budget is what is free when the device is opened, or what the caller gave, less what the device
 * takes for itself. Weights go through two pinned stages; a type is changed on the device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cuda/cuda.h"

_Static_assert((int)CU_NONE == ACT_NONE && (int)CU_GELU_TANH == ACT_GELU_TANH && (int)CU_GELU_ERF == ACT_GELU_ERF &&
                   (int)CU_SILU == ACT_SILU && (int)CU_QUICK_GELU == ACT_QUICK_GELU,
               "enum cu_act is enum act");
_Static_assert((int)CU_LAYER == NORM_LAYER && (int)CU_RMS == NORM_RMS && (int)CU_L2 == NORM_L2,
               "enum cu_norm_kind is enum norm_kind");
_Static_assert((int)CU_TERMS == GV_LINCOMB_TERMS, "terms of a combination");

struct cuda_device *gv_cuda_of(struct device *d)
{
    return gv_device_is_null(d) ? d->stands_for->impl : d->impl;
}

bool gv_cuda_ok(struct run *r, cudaError_t s, const char *what)
{
    if (s == cudaSuccess)
        return true;
    gv_run_fail(r, s == cudaErrorMemoryAllocation ? GV_ERR_MEMORY : GV_ERR_DEVICE, "%s: CUDA says: %s", what,
                cudaGetErrorString(s));
    return false;
}

struct cu_rows gv_cuda_rows(struct tensor t)
{
    if (!present(t))
        return (struct cu_rows){ 0 };
    const int64_t d = t.dim[t.rank - 1];

    return (struct cu_rows){ .data = t.data,
                             .type = t.type,
                             .d = d,
                             .n = d ? gv_tensor_count(t) / d : 0,
                             .stride = t.rank > 1 ? t.stride[t.rank - 2] : d };
}

static cudaStream_t stream_of(struct run *r)
{
    return gv_cuda_of(r->device)->stream;
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static void *cuda_alloc(struct device *d, size_t bytes)
{
    void *p = NULL;

    (void)d;
    if (cudaMalloc(&p, bytes) == cudaSuccess)
        return p;
    cudaGetLastError(); /* the caller says it in words */
    return NULL;
}

/* cudaFree waits for what is queued. */
static void cuda_free(struct device *d, void *p, size_t bytes)
{
    (void)d, (void)bytes;
    cudaFree(p);
}

static void cuda_upload(struct run *r, struct tensor dst, const void *src)
{
    gv_cuda_ok(r, cudaMemcpyAsync(dst.data, src, gv_tensor_bytes(dst), cudaMemcpyHostToDevice, stream_of(r)), "upload");
}

static void cuda_download(struct run *r, void *dst, struct tensor src)
{
    if (gv_cuda_ok(r, cudaMemcpyAsync(dst, src.data, gv_tensor_bytes(src), cudaMemcpyDeviceToHost, stream_of(r)), "download"))
        gv_cuda_ok(r, cudaStreamSynchronize(stream_of(r)), "download");
}

static void cuda_sync(struct run *r)
{
    gv_cuda_ok(r, cudaStreamSynchronize(stream_of(r)), "work on the device");
}

/* ---- weights ------------------------------------------------------------------------------------------------------------- */

/* Row-major as they come, which is what cuBLASLt and cuDNN (KTRSC) want. */
static size_t cuda_prepared_bytes(struct device *d, const struct tensor *w, enum weight_use use)
{
    (void)d, (void)use;
    return gv_dtype_bytes(w->type, gv_tensor_count(*w));
}

static bool is_float(enum dtype t)
{
    return t == GV_F32 || t == GV_BF16 || t == GV_F16;
}

/* n elements of the source, which may lie at any address of a mapped file, through a stage to dst. */
static cudaError_t send(struct cuda_device *c, char *dst, enum dtype type, const char *src, enum dtype src_type, int64_t n)
{
    const int    i = c->next_stage;
    const size_t bytes = gv_dtype_bytes(src_type, n);
    cudaError_t  s = cudaEventSynchronize(c->stage_free[i]);

    c->next_stage = (i + 1) % CU_STAGES;
    if (s != cudaSuccess)
        return s;
    memcpy(c->stage_host[i], src, bytes);
    s = cudaMemcpyAsync(type == src_type ? dst : c->stage[i], c->stage_host[i], bytes, cudaMemcpyHostToDevice, c->stream);
    if (s == cudaSuccess && type != src_type)
        s = gv_cu_copy(&(struct cu_copy){ .dst = dst,
                                          .src = c->stage[i],
                                          .dst_type = type,
                                          .src_type = src_type,
                                          .rank = 1,
                                          .dim = { n },
                                          .dst_stride = { 1 },
                                          .src_stride = { 1 } },
                       c->stream);
    return s == cudaSuccess ? cudaEventRecord(c->stage_free[i], c->stream) : s;
}

static gv_status cuda_prepare(struct device *d, void *dst, struct tensor src, enum dtype type, enum weight_use use,
                              struct tensor *out, struct error *e)
{
    struct cuda_device *c = gv_cuda_of(d);
    const bool          packed = use != WEIGHT_PLAIN;
    const int64_t       n = gv_tensor_count(src), most = (int64_t)(CU_STAGE_BYTES / sizeof(float));
    cudaError_t         s = cudaSuccess;

    if (!is_float(src.type) || !is_float(type) || (packed && type == GV_F16))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "the CUDA device cannot make a weight of type %s from one of type %s",
                       gv_dtype_info(type)->name, gv_dtype_info(src.type)->name);
    pthread_mutex_lock(&c->lock);
    for (int64_t at = 0; at < n && s == cudaSuccess; at += most) {
        const int64_t part = n - at < most ? n - at : most;

        s = send(c, (char *)dst + gv_dtype_bytes(type, at), type, (const char *)src.data + gv_dtype_bytes(src.type, at),
                 src.type, part);
    }
    pthread_mutex_unlock(&c->lock);
    if (s != cudaSuccess)
        return gv_fail(e, GV_ERR_DEVICE, "sending a weight to the device: CUDA says: %s", cudaGetErrorString(s));
    *out = gv_tensor(dst, type, src.rank, src.dim);
    out->packed = packed;
    return GV_OK;
}

/* ---- operations that are one launch -------------------------------------------------------------------------------------- */

static struct cu_table table_of(struct tensor t)
{
    return (struct cu_table){ t.data, present(t) ? gv_cuda_rows(t).stride : 0 };
}

static void cuda_norm(struct run *r, struct tensor y, struct tensor x, const struct norm_opts *o)
{
    struct cu_norm a = { .y = gv_cuda_rows(y),
                         .x = gv_cuda_rows(x),
                         .kind = o->kind,
                         .act = o->act,
                         .eps = o->eps,
                         .weight = o->weight.data,
                         .bias = o->bias.data,
                         .scale = table_of(o->scale),
                         .shift = table_of(o->shift),
                         .group = o->group.data };

    if (o->rope) {
        a.cos = o->rope->cos.data;
        a.sin = o->rope->sin.data;
        a.cos_stride = table_of(o->rope->cos).stride;
        a.sin_stride = table_of(o->rope->sin).stride;
        a.rope_rows = gv_cuda_rows(o->rope->cos).n;
        a.head = o->rope->head;
        a.halves = o->rope->halves;
    }
    gv_cuda_ok(r, gv_cu_norm(&a, stream_of(r)), "norm");
}

static void cuda_glu(struct run *r, struct tensor y, struct tensor a, struct tensor b, int act)
{
    gv_cuda_ok(r, gv_cu_glu(gv_cuda_rows(y), gv_cuda_rows(a), gv_cuda_rows(b), act, stream_of(r)), "glu");
}

static void cuda_act(struct run *r, struct tensor y, struct tensor x, int act)
{
    gv_cuda_ok(r, gv_cu_act(gv_cuda_rows(y), gv_cuda_rows(x), act, stream_of(r)), "act");
}

static void cuda_add(struct run *r, struct tensor y, struct tensor a, struct tensor b)
{
    gv_cuda_ok(r, gv_cu_add(gv_cuda_rows(y), gv_cuda_rows(a), gv_cuda_rows(b), stream_of(r)), "add");
}

static void cuda_copy(struct run *r, struct tensor dst, struct tensor src)
{
    struct cu_copy c = { .dst = dst.data, .src = src.data, .dst_type = dst.type, .src_type = src.type, .rank = dst.rank };

    for (int i = 0; i < dst.rank; i++) {
        c.dim[i] = dst.dim[i];
        c.dst_stride[i] = dst.stride[i];
        c.src_stride[i] = src.stride[i];
    }
    gv_cuda_ok(r, gv_cu_copy(&c, stream_of(r)), "copy");
}

static void cuda_fill(struct run *r, struct tensor dst, float value)
{
    struct cu_copy c = { .dst = dst.data, .dst_type = dst.type, .src_type = dst.type, .value = value, .rank = dst.rank };

    for (int i = 0; i < dst.rank; i++) {
        c.dim[i] = dst.dim[i];
        c.dst_stride[i] = c.src_stride[i] = dst.stride[i];
    }
    gv_cuda_ok(r, gv_cu_copy(&c, stream_of(r)), "fill");
}

static void cuda_gather(struct run *r, struct tensor y, struct tensor table, struct tensor index)
{
    gv_cuda_ok(r, gv_cu_gather(gv_cuda_rows(y), gv_cuda_rows(table), index.data, stream_of(r)), "gather");
}

static void cuda_lincomb(struct run *r, struct tensor y, int n, const struct lincomb_term *terms)
{
    struct cu_lincomb a = { .y = y.data, .n_terms = n, .n = gv_tensor_count(y) };

    for (int i = 0; i < n; i++) {
        a.x[i] = terms[i].x.data;
        a.factor[i] = terms[i].factor;
    }
    gv_cuda_ok(r, gv_cu_lincomb(&a, stream_of(r)), "lincomb");
}

static struct cu_patches patches_of(struct tensor x, struct tensor rows, const int *patch)
{
    return (struct cu_patches){ .x = x.data,
                                .T = x.dim[0],
                                .H = x.dim[1],
                                .W = x.dim[2],
                                .C = x.dim[3],
                                .p = { patch[0], patch[1], patch[2] },
                                .rows = gv_cuda_rows(rows) };
}

static void cuda_patchify(struct run *r, struct tensor rows, struct tensor x, const int *patch)
{
    const struct cu_patches p = patches_of(x, rows, patch);

    gv_cuda_ok(r, gv_cu_patchify(&p, stream_of(r)), "patchify");
}

static void cuda_unpatchify(struct run *r, struct tensor x, struct tensor rows, const int *patch)
{
    const struct cu_patches p = patches_of(x, rows, patch);

    gv_cuda_ok(r, gv_cu_unpatchify(&p, stream_of(r)), "unpatchify");
}

static void cuda_upsample(struct run *r, struct tensor y, struct tensor x)
{
    gv_cuda_ok(
        r,
        gv_cu_upsample(y.data, x.data, x.dim[0], x.dim[1], x.dim[2], (int64_t)gv_dtype_bytes(x.type, x.dim[3]), stream_of(r)),
        "upsample");
}

static void cuda_noise(struct run *r, struct tensor y, const struct noise_key *key)
{
    const struct cu_noise z = { .y = y.data,
                                .T = y.dim[0],
                                .H = y.dim[1],
                                .W = y.dim[2],
                                .C = y.dim[3],
                                .t0 = key->t0,
                                .seed = key->seed,
                                .purpose = key->purpose,
                                .block = key->block,
                                .step = key->step };

    gv_cuda_ok(r, gv_cu_noise(&z, stream_of(r)), "noise");
}

/* Waits for the answer. The flag belongs to one caller at a time. */
static void cuda_check_finite(struct run *r, struct tensor x, const char *what)
{
    struct cuda_device *c = gv_cuda_of(r->device);

    pthread_mutex_lock(&c->lock);
    bool done =
        gv_cuda_ok(r, cudaMemsetAsync(c->flag, 0, sizeof *c->flag, c->stream), "finite") &&
        gv_cuda_ok(r, gv_cu_finite(gv_cuda_rows(x), c->flag, c->stream), "finite") &&
        gv_cuda_ok(r, cudaMemcpyAsync(c->flag_host, c->flag, sizeof *c->flag, cudaMemcpyDeviceToHost, c->stream), "finite") &&
        gv_cuda_ok(r, cudaStreamSynchronize(c->stream), "finite");
    if (done && *c->flag_host)
        gv_fail_not_finite(r, what);
    pthread_mutex_unlock(&c->lock);
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static void cuda_close(struct device *d)
{
    struct cuda_device *c = d->impl;

    if (c->stream)
        cudaStreamSynchronize(c->stream);
    gv_cuda_linear_close(c);
    gv_cuda_conv_close(c);
    for (int i = 0; i < CU_STAGES; i++) {
        if (c->stage_free[i])
            cudaEventDestroy(c->stage_free[i]);
        cudaFreeHost(c->stage_host[i]);
        cudaFree(c->stage[i]);
    }
    cudaFreeHost(c->flag_host);
    cudaFree(c->flag);
    cudaFree(c->workspace);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    if (c->lock_made)
        pthread_mutex_destroy(&c->lock);
    free(c);
}

static const struct device_ops cuda_ops = {
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .close = cuda_close,
    .prepared_bytes = cuda_prepared_bytes,
    .prepare = cuda_prepare,
    .linear_workspace = gv_cuda_linear_workspace,
    .linear = gv_cuda_linear,
    .conv_workspace = gv_cuda_conv_workspace,
    .conv = gv_cuda_conv,
    .norm = cuda_norm,
    .glu = cuda_glu,
    .act = cuda_act,
    .add = cuda_add,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .gather = cuda_gather,
    .lincomb = cuda_lincomb,
    .patchify = cuda_patchify,
    .unpatchify = cuda_unpatchify,
    .upsample = cuda_upsample,
    .noise = cuda_noise,
    .check_finite = cuda_check_finite,
};

static gv_status cuda_try(struct error *e, cudaError_t s, const char *what)
{
    if (s == cudaSuccess)
        return GV_OK;
    return gv_fail(e, s == cudaErrorMemoryAllocation ? GV_ERR_MEMORY : GV_ERR_DEVICE, "CUDA device: %s: %s", what,
                   cudaGetErrorString(s));
}

static gv_status find_chip(struct cuda_device *c, struct error *e)
{
    struct cudaDeviceProp prop;
    int                   n = 0;
    const cudaError_t     s = cudaGetDeviceCount(&n);

    if (s == cudaErrorInsufficientDriver)
        return gv_fail(e, GV_ERR_DEVICE, "the NVIDIA driver is missing or older than CUDA %d.%d, which this build needs",
                       CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (s == cudaErrorNoDevice || (s == cudaSuccess && n == 0))
        return gv_fail(e, GV_ERR_DEVICE, "there is no NVIDIA GPU that CUDA may use");
    TRY(cuda_try(e, s, "counting GPUs"));
    TRY(cuda_try(e, cudaGetDeviceProperties(&prop, 0), "reading the GPU's properties"));
    if (prop.major < 8)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s has compute capability %d.%d; the CUDA device needs 8.0", prop.name,
                       prop.major, prop.minor);
    snprintf(c->base.what, sizeof c->base.what, "%.64s, compute capability %d.%d, %zu GiB", prop.name, prop.major, prop.minor,
             prop.totalGlobalMem >> 30);
    c->major = prop.major;
    c->minor = prop.minor;
    c->multiprocessors = prop.multiProcessorCount;
    c->shared_bytes = (int)prop.sharedMemPerBlockOptin;
    enum cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &c->encode_tensor_map, 12000, cudaEnableDefault, &found) !=
            cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
        c->encode_tensor_map = NULL;
    return GV_OK;
}

static gv_status take_own(struct cuda_device *c, struct error *e)
{
    if (pthread_mutex_init(&c->lock, NULL))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a lock");
    c->lock_made = true;
    TRY(cuda_try(e, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "making a stream"));
    TRY(cuda_try(e, cudaMalloc(&c->workspace, CU_WORKSPACE_BYTES), "taking the libraries' workspace"));
    TRY(cuda_try(e, cudaMalloc((void **)&c->flag, sizeof *c->flag), "taking a flag"));
    TRY(cuda_try(e, cudaMallocHost((void **)&c->flag_host, sizeof *c->flag_host), "taking a flag"));
    for (int i = 0; i < CU_STAGES; i++) {
        TRY(cuda_try(e, cudaMallocHost((void **)&c->stage_host[i], CU_STAGE_BYTES), "taking pinned memory"));
        TRY(cuda_try(e, cudaMalloc((void **)&c->stage[i], CU_STAGE_BYTES), "taking a stage"));
        TRY(cuda_try(e, cudaEventCreateWithFlags(&c->stage_free[i], cudaEventDisableTiming), "making an event"));
    }
    const cublasStatus_t s = cublasLtCreate(&c->lt);
    if (s != CUBLAS_STATUS_SUCCESS)
        return gv_fail(e, GV_ERR_DEVICE, "cuBLASLt does not start: %s", cublasLtGetStatusString(s));
    return gv_cuda_conv_open(c, e);
}

static gv_status choose_compute(struct cuda_device *c, const char *precision, struct error *e)
{
    c->base.compute = GV_BF16;
    if (precision && !strcmp(precision, "f32"))
        c->base.compute = GV_F32;
    else if (precision && strcmp(precision, "bf16") != 0)
        return gv_fail(e, GV_ERR_ARGUMENT, "precision is \"%s\"; the CUDA device has f32 and bf16", precision);
    return GV_OK;
}

static gv_status cuda_open(struct cuda_device *c, const struct device_params *p, struct error *e)
{
    size_t vacant = 0, total = 0;

    TRY(choose_compute(c, p->precision, e));
    TRY(find_chip(c, e));
    TRY(take_own(c, e));
    TRY(cuda_try(e, cudaMemGetInfo(&vacant, &total), "asking for free memory"));
    c->base.ops = &cuda_ops;
    c->base.kind = GV_DEVICE_CUDA;
    c->base.name = "cuda";
    c->base.log = p->log;
    c->base.impl = c;
    c->base.budget = p->budget ? p->budget : vacant - vacant / 32; /* a little is left for what libraries load later */
    gv_log(p->log, GV_LOG_DEBUG, "cuda: %s, computes in %s, budget %zu MiB of %zu", c->base.what,
           gv_dtype_info(c->base.compute)->name, c->base.budget >> 20, total >> 20);
    return GV_OK;
}

gv_status gv_device_cuda_open(struct device **out, const struct device_params *p, struct error *e)
{
    struct cuda_device *c = calloc(1, sizeof *c);

    *out = NULL;
    if (!c)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the CUDA device");
    const gv_status status = cuda_open(c, p, e);

    if (status == GV_OK) {
        *out = &c->base;
    } else {
        c->base.impl = c;
        cuda_close(&c->base);
    }
    return status;
}
