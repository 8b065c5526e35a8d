/* Plain C: what runs on any processor, and what every other table is compared with. Written to be read. */
#include "core/cpu/kernels.h"

#include <math.h>

enum { BLOCK = GV_HEAD_MAX }; /* elements of a row handled at once, in f32 on the stack */

float gv_f32_of_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    uint32_t       u;
    float          f;

    if (exponent == 0) { /* zero and subnormal: fraction · 2^-24 */
        f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t gv_f16_of_f32(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    const uint32_t sign = u >> 16 & 0x8000;

    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x3ff));
    if (u >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000u) { /* subnormal: let the f32 unit round at 2^-24 */
        float magnitude;

        memcpy(&magnitude, &u, sizeof u);
        magnitude += 0.5f;
        memcpy(&u, &magnitude, sizeof u);
        return (uint16_t)(sign | (u - 0x3f000000u));
    }
    return (uint16_t)(sign | (u - 0x38000000u + 0xfff + (u >> 13 & 1)) >> 13);
}

static void to_f32_c(float *dst, const void *src, enum dtype type, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = gv_load(src, type, i);
}

static void from_f32_c(void *dst, const float *src, enum dtype type, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        gv_store(dst, type, i, src[i]);
}

static float act_c(float x, enum act act)
{
    switch (act) {
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5f * x * erfcf(-0.7071067811865476f * x); /* 1 + erf(z) without cancellation for z < 0 */
    case ACT_SILU:
        return x / (1.0f + expf(-x));
    case ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    case ACT_NONE:
        break;
    }
    return x;
}

/* One 16-column strip of a panel at a time, so that the sums stay in registers. */
enum { STRIP = 16 };

static void strip_f32_c(const struct gemm_tile *t, int i, int j)
{
    float        sum[STRIP] = { 0 };
    float       *c = t->c + i * t->ldc + j;
    const float *b = (const float *)t->b + j;

    if (t->accumulate)
        memcpy(sum, c, sizeof sum);
    for (int64_t p = 0; p < t->n_a; p++) {
        const float *a = (const float *)t->a[p] + i * t->lda;

        for (int64_t k = 0; k < t->k; k++, b += t->width)
            for (int s = 0; s < STRIP; s++)
                sum[s] += a[k] * b[s];
    }
    memcpy(c, sum, sizeof sum);
}

static void strip_bf16_c(const struct gemm_tile *t, int i, int j)
{
    float           sum[STRIP] = { 0 };
    float          *c = t->c + i * t->ldc + j;
    const uint16_t *b = (const uint16_t *)t->b + 2 * j;

    if (t->accumulate)
        memcpy(sum, c, sizeof sum);
    for (int64_t p = 0; p < t->n_a; p++) {
        const uint16_t *a = (const uint16_t *)t->a[p] + i * t->lda;

        for (int64_t k = 0; k < t->k; k += 2, b += 2 * t->width) {
            const float a0 = gv_f32_of_bf16(a[k]), a1 = gv_f32_of_bf16(a[k + 1]);

            for (int s = 0; s < STRIP; s++)
                sum[s] += a0 * gv_f32_of_bf16(b[2 * s]) + a1 * gv_f32_of_bf16(b[2 * s + 1]);
        }
    }
    memcpy(c, sum, sizeof sum);
}

static void gemm_f32_c(const struct gemm_tile *t)
{
    for (int j = 0; j < t->width; j += STRIP)
        for (int i = 0; i < t->rows; i++)
            strip_f32_c(t, i, j);
}

static void gemm_bf16_c(const struct gemm_tile *t)
{
    for (int j = 0; j < t->width; j += STRIP)
        for (int i = 0; i < t->rows; i++)
            strip_bf16_c(t, i, j);
}

static void finish_row_c(const struct gemm_finish *f, void *y, const float *c)
{
    for (int64_t i = 0; i < f->n; i++) {
        float v = c[i];

        if (f->bias)
            v += f->bias[i];
        v = act_c(v, f->act);
        if (f->gate)
            v *= f->gate[i];
        if (f->add)
            v += gv_load(y, f->type, i);
        gv_store(y, f->type, i, v);
    }
}

static void gemm_finish_c(const struct gemm_finish *f)
{
    for (int64_t row = 0; row < f->rows; row++)
        finish_row_c(f, (char *)f->y + row * f->y_stride, f->c + row * f->ldc);
}

static void row_scale_c(const struct norm_job *j, const char *x, float *mean, float *scale)
{
    double sum = 0, squares = 0;

    *mean = 0;
    if (j->kind == NORM_LAYER) {
        for (int64_t i = 0; i < j->d; i++)
            sum += (double)gv_load(x, j->x_type, i);
        *mean = (float)(sum / (double)j->d);
    }
    for (int64_t i = 0; i < j->d; i++) {
        const double v = (double)gv_load(x, j->x_type, i) - (double)*mean;

        squares += v * v;
    }
    if (j->kind == NORM_L2)
        *scale = (float)(sqrt((double)j->d) / fmax(sqrt(squares), (double)j->eps));
    else
        *scale = (float)(1 / sqrt(squares / (double)j->d + (double)j->eps));
}

/* v: a whole number of heads, starting at a head. */
static void rotate_c(const struct norm_job *j, float *v, int64_t n, int64_t row)
{
    const float *cosine = j->cos + row % j->rope_rows * j->cos_stride, *sine = j->sin + row % j->rope_rows * j->sin_stride;
    const int    half = j->head / 2, step = j->halves ? 1 : 2, apart = j->halves ? half : 1;

    for (int64_t h = 0; h < n; h += j->head)
        for (int i = 0; i < half; i++) {
            float      *at = v + h + i * step;
            const float a = at[0], b = at[apart];

            at[0] = a * cosine[i] - b * sine[i];
            at[apart] = a * sine[i] + b * cosine[i];
        }
}

static void norm_row_c(const struct norm_job *j, int64_t row)
{
    const int64_t block = j->cos ? BLOCK / j->head * j->head : BLOCK, group = j->group ? j->group[row] : 0;
    const char   *x = j->x + row * j->x_stride;
    char         *y = j->y + row * j->y_stride;
    float         v[BLOCK], mean, scale;

    row_scale_c(j, x, &mean, &scale);
    for (int64_t at = 0; at < j->d; at += block) {
        const int64_t n = j->d - at < block ? j->d - at : block;

        for (int64_t i = 0; i < n; i++) {
            const int64_t d = at + i;

            v[i] = (gv_load(x, j->x_type, d) - mean) * scale;
            if (j->weight)
                v[i] *= j->weight[d];
            if (j->bias)
                v[i] += j->bias[d];
            if (j->scale)
                v[i] *= 1 + j->scale[group * j->scale_stride + d];
            if (j->shift)
                v[i] += j->shift[group * j->shift_stride + d];
            v[i] = act_c(v[i], j->act);
        }
        if (j->cos)
            rotate_c(j, v, n, row);
        for (int64_t i = 0; i < n; i++)
            gv_store(y, j->y_type, at + i, v[i]);
    }
}

static void norm_c(const struct norm_job *j, int64_t from, int64_t to)
{
    for (int64_t row = from; row < to; row++)
        norm_row_c(j, row);
}

static void act_row_c(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t n, enum act act)
{
    for (int64_t i = 0; i < n; i++)
        gv_store(y, y_type, i, act_c(gv_load(x, x_type, i), act));
}

static void glu_c(void *y, enum dtype y_type, const void *a, enum dtype a_type, const void *b, enum dtype b_type, int64_t n,
                  enum act act)
{
    for (int64_t i = 0; i < n; i++)
        gv_store(y, y_type, i, act_c(gv_load(a, a_type, i), act) * gv_load(b, b_type, i));
}

static void add_c(void *y, enum dtype y_type, const void *a, enum dtype a_type, const void *b, enum dtype b_type, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        gv_store(y, y_type, i, gv_load(a, a_type, i) + gv_load(b, b_type, i));
}

static void lincomb_c(float *y, int n_terms, const float *const *x, const float *factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float sum = 0;

        for (int t = 0; t < n_terms; t++)
            sum += factor[t] * x[t][i];
        y[i] = sum;
    }
}

static bool finite_c(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

void gv_kernels_c(struct cpu_kernels *k)
{
    *k = (struct cpu_kernels){
        .name = "c",
        .panel = STRIP,
        .to_f32 = to_f32_c,
        .from_f32 = from_f32_c,
        .gemm_f32 = gemm_f32_c,
        .gemm_bf16 = gemm_bf16_c,
        .gemm_finish = gemm_finish_c,
        .norm = norm_c,
        .act = act_row_c,
        .glu = glu_c,
        .add = add_c,
        .lincomb = lincomb_c,
        .finite = finite_c,
    };
}
