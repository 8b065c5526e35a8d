/* The inner loops of the CPU device: one pointer each, filled with plain C first and then, by the processor's flags, with AVX2
 * and AVX-512 over it. Each works on rows or tiles that are in cache, on one thread, in f32 whatever the storage type, and
 * gives the same bits for the same row however the rows were shared out. */
#ifndef GV_CORE_CPU_KERNELS_H
#define GV_CORE_CPU_KERNELS_H

#include <string.h>

#include "core/ops.h"

/* A product of a few rows with one panel of a packed weight, summed over a list of places in x ("batch-reduce"):
 *   c[i][j] (+)= Σ_p Σ_k a[p][i·lda + k] · b[p][k][j]
 * A linear layer has one place; a convolution has one for each (dt, dh) of its kernel, where the kw taps and the channels of
 * a pixel are contiguous in x, so that no im2col is needed.
 *   b: f32: [n_a, k, width]; bf16: [n_a, k/2, width, 2], k even: what vdpbf16ps reads. */
struct gemm_tile {
    float             *c;   /* [rows, ldc] */
    int64_t            ldc;
    const void *const *a;
    int64_t            n_a;
    int64_t            lda; /* elements from row to row */
    const void        *b;
    int64_t            k;
    int                rows, width; /* width: a multiple of 16, at most the table's panel */
    bool               accumulate;  /* c += instead of = */
};

/* y = gate ⊙ act(c + bias), or y += that, for some rows of n sums. */
struct gemm_finish {
    void        *y;
    int64_t      y_stride; /* bytes */
    enum dtype   type;
    const float *c;
    int64_t      ldc, rows, n;
    const float *bias, *gate; /* [n] or NULL */
    enum act     act;
    bool         add;
};

/* One normalisation, all rows of it. */
struct norm_job {
    const char  *x;
    char        *y;
    int64_t      x_stride, y_stride; /* bytes */
    enum dtype   x_type, y_type;
    int64_t      d;
    enum norm_kind kind;
    float        eps;
    const float *weight, *bias, *scale, *shift;
    int64_t      scale_stride, shift_stride; /* elements */
    const int32_t *group;
    enum act     act;
    const float *cos, *sin; /* NULL: no rope */
    int64_t      rope_rows, cos_stride, sin_stride;
    int          head;
    bool         halves;
};

enum {
    GV_HEAD_MAX = 1024, /* largest head that norm can rotate */
    GV_PANEL_MAX = 64   /* widest panel of a packed weight */
};

struct cpu_kernels {
    const char *name;  /* "avx512bf16" */
    int         panel; /* columns of a packed panel: 16 .. GV_PANEL_MAX */

    /* conversions of n contiguous elements; f16 and bf16 round to nearest even */
    void (*to_f32)(float *dst, const void *src, enum dtype type, int64_t n);
    void (*from_f32)(void *dst, const float *src, enum dtype type, int64_t n);
    /* products, and what turns their sums into y */
    void (*gemm_f32)(const struct gemm_tile *t);
    void (*gemm_bf16)(const struct gemm_tile *t);
    void (*gemm_finish)(const struct gemm_finish *f);
    /* rows */
    void (*norm)(const struct norm_job *j, int64_t from, int64_t to);
    void (*act)(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t n, enum act act);
    void (*glu)(void *y, enum dtype y_type, const void *a, enum dtype a_type, const void *b, enum dtype b_type, int64_t n,
                enum act act);
    void (*add)(void *y, enum dtype y_type, const void *a, enum dtype a_type, const void *b, enum dtype b_type, int64_t n);
    void (*lincomb)(float *y, int n_terms, const float *const *x, const float *factor, int64_t n);
    bool (*finite)(const float *x, int64_t n);
};

void gv_kernels_c(struct cpu_kernels *k);
void gv_kernels_avx2(struct cpu_kernels *k);
void gv_kernels_avx512(struct cpu_kernels *k);
void gv_kernels_avx512bf16(struct cpu_kernels *k);

static inline float gv_f32_of_bf16(uint16_t h)
{
    const uint32_t u = (uint32_t)h << 16;
    float          f;

    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t gv_bf16_of_f32(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40); /* a NaN stays one */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float    gv_f32_of_f16(uint16_t h);
uint16_t gv_f16_of_f32(float f);

/* Ask for the lines of a row that will be written after the next product, so that its stores find them in cache. */
static inline void gv_prefetch_row(const void *p, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)p + i, 1);
}

static inline float gv_load(const void *p, enum dtype type, int64_t i)
{
    if (type == GV_F32)
        return ((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];

    return type == GV_BF16 ? gv_f32_of_bf16(h) : gv_f32_of_f16(h);
}

static inline void gv_store(void *p, enum dtype type, int64_t i, float f)
{
    if (type == GV_F32)
        ((float *)p)[i] = f;
    else
        ((uint16_t *)p)[i] = type == GV_BF16 ? gv_bf16_of_f32(f) : gv_f16_of_f32(f);
}

#endif
