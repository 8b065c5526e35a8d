/* The C API of oneDNN 2.x; version 3 removed the operation descriptors. */
#include "tests/onednn_rate.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2
#error "opcheck compares with oneDNN 2.x, whose C API version 3 changed: build with -DGV_ONEDNN=OFF"
#endif

enum { ARGS = 4 };

struct onednn_rate {
    dnnl_engine_t         engine;
    dnnl_stream_t         stream;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t      primitive;
    dnnl_exec_arg_t       arg[ARGS];
    int                   n_args, threads;
};

/* Numbers near 1, so that nothing overflows or is denormal. */
static bool add_memory(struct onednn_rate *r, int arg, const dnnl_memory_desc_t *md)
{
    dnnl_memory_t m;
    void         *p;
    const size_t  bytes = dnnl_memory_desc_get_size(md);

    if (dnnl_memory_create(&m, md, r->engine, DNNL_MEMORY_ALLOCATE) || dnnl_memory_get_data_handle(m, &p))
        return false;
    for (size_t i = 0; i + 1 < bytes; i += 2) {
        const uint16_t v = (uint16_t)(0x3f00 + i * 37 % 251);

        memcpy((char *)p + i, &v, sizeof v);
    }
    r->arg[r->n_args++] = (dnnl_exec_arg_t){ arg, m };
    return true;
}

static bool finish(struct onednn_rate *r, const dnnl_memory_desc_t *x, const dnnl_memory_desc_t *bias, const dnnl_memory_desc_t *y)
{
    return !dnnl_primitive_create(&r->primitive, r->desc) && add_memory(r, DNNL_ARG_SRC, x) &&
           add_memory(r, DNNL_ARG_WEIGHTS, dnnl_primitive_desc_query_md(r->desc, dnnl_query_weights_md, 0)) &&
           add_memory(r, DNNL_ARG_BIAS, bias) && add_memory(r, DNNL_ARG_DST, y);
}

static struct onednn_rate *open_rate(int threads)
{
    struct onednn_rate *r = calloc(1, sizeof *r);

    if (!r)
        return NULL;
    r->threads = threads;
    omp_set_num_threads(threads);
    if (dnnl_engine_create(&r->engine, dnnl_cpu, 0) || dnnl_stream_create(&r->stream, r->engine, dnnl_stream_default_flags)) {
        onednn_close(r);
        return NULL;
    }
    return r;
}

static struct onednn_rate *done(struct onednn_rate *r, bool good)
{
    if (good)
        return r;
    onednn_close(r);
    return NULL;
}

struct onednn_rate *onednn_linear(int threads, bool bf16, int64_t n, int64_t m, int64_t k)
{
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t      dx = { n, k }, dw = { k, m }, dy = { n, m }, db = { 1, m };
    struct onednn_rate    *r = open_rate(threads);
    dnnl_memory_desc_t     x, w, y, b;
    dnnl_matmul_desc_t     d;

    return done(r, r && !dnnl_memory_desc_init_by_tag(&x, 2, dx, type, dnnl_ab) &&
                       !dnnl_memory_desc_init_by_tag(&w, 2, dw, type, dnnl_format_tag_any) &&
                       !dnnl_memory_desc_init_by_tag(&y, 2, dy, type, dnnl_ab) &&
                       !dnnl_memory_desc_init_by_tag(&b, 2, db, dnnl_f32, dnnl_ab) && !dnnl_matmul_desc_init(&d, &x, &w, &b, &y) &&
                       !dnnl_primitive_desc_create(&r->desc, &d, NULL, r->engine, NULL) && finish(r, &x, &b, &y));
}

struct onednn_rate *onednn_conv(int threads, bool bf16, const int64_t s[7])
{
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    const int64_t          pad = s[6] / 2;
    const dnnl_dims_t      dx = { 1, s[3], s[0] + s[5] - 1, s[1], s[2] }, dw = { s[4], s[3], s[5], s[6], s[6] };
    const dnnl_dims_t      dy = { 1, s[4], s[0], s[1], s[2] }, db = { s[4] }, one = { 1, 1, 1 }, pads = { 0, pad, pad };
    struct onednn_rate     *r = open_rate(threads);
    dnnl_memory_desc_t      x, w, y, b;
    dnnl_convolution_desc_t d;

    return done(r, r && !dnnl_memory_desc_init_by_tag(&x, 5, dx, type, dnnl_ndhwc) &&
                       !dnnl_memory_desc_init_by_tag(&w, 5, dw, type, dnnl_format_tag_any) &&
                       !dnnl_memory_desc_init_by_tag(&y, 5, dy, type, dnnl_ndhwc) &&
                       !dnnl_memory_desc_init_by_tag(&b, 1, db, dnnl_f32, dnnl_a) &&
                       !dnnl_convolution_forward_desc_init(&d, dnnl_forward_inference, dnnl_convolution_direct, &x, &w, &b, &y, one,
                                                           pads, pads) &&
                       !dnnl_primitive_desc_create(&r->desc, &d, NULL, r->engine, NULL) && finish(r, &x, &b, &y));
}

void onednn_run(struct onednn_rate *r)
{
    omp_set_num_threads(r->threads);
    dnnl_primitive_execute(r->primitive, r->stream, r->n_args, r->arg);
    dnnl_stream_wait(r->stream);
}

void onednn_close(struct onednn_rate *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->n_args; i++)
        dnnl_memory_destroy(r->arg[i].memory);
    dnnl_primitive_destroy(r->primitive);
    dnnl_primitive_desc_destroy(r->desc);
    dnnl_stream_destroy(r->stream);
    dnnl_engine_destroy(r->engine);
    free(r);
}
