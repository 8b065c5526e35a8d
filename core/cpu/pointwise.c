/* Norms and pointwise operations: rows shared out in slices of about equal bytes, each slice handed to a kernel. */
#include "core/cpu/cpu.h"
#include "core/cpu/parallel.h"

enum { SLICE = 16384 }; /* elements: some microseconds of work, and small enough for L2 */

/* Rows in a slice, when a row has d elements. */
static int64_t rows_per_slice(int64_t d)
{
    return d >= SLICE ? 1 : SLICE / d;
}

static int64_t slices(int64_t n, int64_t each)
{
    return (n + each - 1) / each;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- norm --------------------------------------------------------------------------------------------------------------- */

struct norm_slices {
    const struct cpu_kernels *k;
    struct norm_job job;
    int64_t         n, each;
};

static void norm_slice(void *arg, int64_t i)
{
    const struct norm_slices *s = arg;

    s->k->norm(&s->job, i * s->each, smaller((i + 1) * s->each, s->n));
}

void gv_cpu_norm(struct run *r, struct tensor y, struct tensor x, const struct norm_opts *o)
{
    const struct cpu_rows xr = gv_cpu_rows(x), yr = gv_cpu_rows(y);
    struct norm_slices    s = {
           .k = &gv_cpu_of(r->device)->k,
           .job = { .x = xr.data, .y = yr.data, .x_stride = xr.stride, .y_stride = yr.stride, .x_type = xr.type,
                    .y_type = yr.type, .d = xr.d, .kind = o->kind, .eps = o->eps, .weight = o->weight.data,
                    .bias = o->bias.data, .scale = o->scale.data, .shift = o->shift.data,
                    .scale_stride = gv_cpu_row_stride(o->scale), .shift_stride = gv_cpu_row_stride(o->shift), .group = o->group.data,
                    .act = o->act },
           .n = xr.n,
           .each = rows_per_slice(xr.d),
    };

    if (o->rope) {
        if (o->rope->head > GV_HEAD_MAX) {
            gv_run_fail(r, GV_ERR_UNSUPPORTED, "norm: heads of %d are wider than the %d that the CPU rotates", o->rope->head,
                        GV_HEAD_MAX);
            return;
        }
        s.job.cos = o->rope->cos.data;
        s.job.sin = o->rope->sin.data;
        s.job.cos_stride = gv_cpu_row_stride(o->rope->cos);
        s.job.sin_stride = gv_cpu_row_stride(o->rope->sin);
        s.job.rope_rows = gv_cpu_rows(o->rope->cos).n;
        s.job.head = o->rope->head;
        s.job.halves = o->rope->halves;
    }
    gv_parallel_for(r->device, slices(s.n, s.each), norm_slice, &s);
}

/* ---- act, glu, add ------------------------------------------------------------------------------------------------------ */

struct point_slices {
    const struct cpu_kernels *k;
    struct cpu_rows y, a, b; /* equal n and d, but for b of add */
    int64_t         each;
    enum act        act;
    void (*row)(const struct point_slices *s, void *y, const void *a, const void *b, int64_t n);
};

static void act_row(const struct point_slices *s, void *y, const void *a, const void *b, int64_t n)
{
    (void)b;
    s->k->act(y, s->y.type, a, s->a.type, n, s->act);
}

static void glu_row(const struct point_slices *s, void *y, const void *a, const void *b, int64_t n)
{
    s->k->glu(y, s->y.type, a, s->a.type, b, s->b.type, n, s->act);
}

static void add_row(const struct point_slices *s, void *y, const void *a, const void *b, int64_t n)
{
    s->k->add(y, s->y.type, a, s->a.type, b, s->b.type, n);
}

static void point_slice(void *arg, int64_t i)
{
    const struct point_slices *s = arg;
    const int64_t              to = smaller((i + 1) * s->each, s->y.n);

    for (int64_t n = i * s->each; n < to; n++)
        s->row(s, s->y.data + n * s->y.stride, s->a.data + n * s->a.stride, s->b.data + n % s->b.n * s->b.stride, s->y.d);
}

static bool packed(struct cpu_rows r)
{
    return r.n == 1 || r.stride == r.d * (int64_t)gv_cpu_size(r.type);
}

static struct cpu_rows rows_of(struct cpu_rows r, int64_t n, int64_t d)
{
    r.n = n;
    r.d = d;
    r.stride = d * (int64_t)gv_cpu_size(r.type);
    return r;
}

/* Rows that follow each other without a gap are cut anew, into rows of a slice. */
static void recut(struct point_slices *s)
{
    const int64_t count = s->y.n * s->y.d, n = slices(count, SLICE);

    if (!packed(s->y) || !packed(s->a) || !packed(s->b) || s->b.n != s->y.n || count % n)
        return;
    s->y = rows_of(s->y, n, count / n);
    s->a = rows_of(s->a, n, count / n);
    s->b = rows_of(s->b, n, count / n);
}

static void point(struct run *r, struct point_slices *s)
{
    if (!s->y.n)
        return;
    s->k = &gv_cpu_of(r->device)->k;
    recut(s);
    s->each = rows_per_slice(s->y.d);
    gv_parallel_for(r->device, slices(s->y.n, s->each), point_slice, s);
}

void gv_cpu_act(struct run *r, struct tensor y, struct tensor x, int act)
{
    const struct cpu_rows a = gv_cpu_rows(x);

    point(r, &(struct point_slices){ .y = gv_cpu_rows(y), .a = a, .b = a, .act = (enum act)act, .row = act_row });
}

void gv_cpu_glu(struct run *r, struct tensor y, struct tensor a, struct tensor b, int act)
{
    point(r, &(struct point_slices){
                 .y = gv_cpu_rows(y), .a = gv_cpu_rows(a), .b = gv_cpu_rows(b), .act = (enum act)act, .row = glu_row });
}

void gv_cpu_add(struct run *r, struct tensor y, struct tensor a, struct tensor b)
{
    point(r, &(struct point_slices){ .y = gv_cpu_rows(y), .a = gv_cpu_rows(a), .b = gv_cpu_rows(b), .row = add_row });
}

/* ---- contiguous f32 ------------------------------------------------------------------------------------------------------ */

struct lincomb_slices {
    const struct cpu_kernels *k;
    float       *y;
    const float *x[GV_LINCOMB_TERMS];
    float        factor[GV_LINCOMB_TERMS];
    int          n_terms;
    int64_t      n;
};

static void lincomb_slice(void *arg, int64_t i)
{
    const struct lincomb_slices *s = arg;
    const int64_t                at = i * SLICE;
    const float                 *x[GV_LINCOMB_TERMS];

    for (int t = 0; t < s->n_terms; t++)
        x[t] = s->x[t] + at;
    s->k->lincomb(s->y + at, s->n_terms, x, s->factor, smaller(SLICE, s->n - at));
}

void gv_cpu_lincomb(struct run *r, struct tensor y, int n, const struct lincomb_term *terms)
{
    struct lincomb_slices s = { .k = &gv_cpu_of(r->device)->k, .y = y.data, .n_terms = n, .n = gv_tensor_count(y) };

    for (int t = 0; t < n; t++) {
        s.x[t] = terms[t].x.data;
        s.factor[t] = terms[t].factor;
    }
    gv_parallel_for(r->device, slices(s.n, SLICE), lincomb_slice, &s);
}

struct finite_slices {
    const struct cpu_kernels *k;
    struct cpu_rows x;
    int64_t         each;
    atomic_bool     bad;
};

static void finite_slice(void *arg, int64_t i)
{
    struct finite_slices *s = arg;
    const int64_t         to = smaller((i + 1) * s->each, s->x.n);

    for (int64_t n = i * s->each; n < to; n++)
        if (!s->k->finite((const float *)(const void *)(s->x.data + n * s->x.stride), s->x.d))
            atomic_store_explicit(&s->bad, true, memory_order_relaxed);
}

void gv_cpu_check_finite(struct run *r, struct tensor x, const char *what)
{
    struct finite_slices s = { .k = &gv_cpu_of(r->device)->k, .x = gv_cpu_rows(x) };

    s.each = rows_per_slice(s.x.d);
    gv_parallel_for(r->device, slices(s.x.n, s.each), finite_slice, &s);
    if (atomic_load(&s.bad))
        gv_fail_not_finite(r, what);
}
