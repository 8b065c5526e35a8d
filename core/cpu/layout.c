/* Operations that move elements: copy, fill, gather, patches, doubling, and noise, which fills. Bound by memory, so what counts
 * is that inner runs are contiguous and that every core has some.
 *
 * copy and fill walk any strides: dimensions of 1 are dropped, those that follow each other in both tensors are merged, and
 * the one that is contiguous in the destination becomes the inner loop. */
#include "core/cpu/cpu.h"
#include "core/cpu/parallel.h"
#include "core/rng.h"

enum { SLICE = 16384 }; /* elements */

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- copy and fill ------------------------------------------------------------------------------------------------------- */

struct walk {
    const struct cpu_kernels *k;
    char      *dst;
    const char *src; /* NULL: fill */
    enum dtype dst_type, src_type;
    size_t     dst_size, src_size;
    float      value;
    int        rank;
    int64_t    dim[GV_MAX_RANK], ds[GV_MAX_RANK], ss[GV_MAX_RANK]; /* strides in bytes */
    int64_t    outer, each; /* rows of the inner dimension; rows in a slice */
};

static void walk_order(struct walk *w)
{
    for (int i = 1; i < w->rank; i++) /* the destination's strides fall */
        for (int j = i; j > 0 && w->ds[j] > w->ds[j - 1]; j--) {
            const int64_t d = w->dim[j], ds = w->ds[j], ss = w->ss[j];

            w->dim[j] = w->dim[j - 1], w->ds[j] = w->ds[j - 1], w->ss[j] = w->ss[j - 1];
            w->dim[j - 1] = d, w->ds[j - 1] = ds, w->ss[j - 1] = ss;
        }
    int n = 0;

    for (int i = 0; i < w->rank; i++) {
        if (n && w->ds[n - 1] == w->ds[i] * w->dim[i] && w->ss[n - 1] == w->ss[i] * w->dim[i]) {
            w->dim[n - 1] *= w->dim[i];
            w->ds[n - 1] = w->ds[i], w->ss[n - 1] = w->ss[i];
        } else {
            w->dim[n] = w->dim[i], w->ds[n] = w->ds[i], w->ss[n] = w->ss[i];
            n++;
        }
    }
    w->rank = n;
}

/* One long run is cut so that every core has some. */
static void walk_cut(struct walk *w)
{
    if (w->rank == 1 && w->dim[0] > SLICE && w->dim[0] % SLICE == 0) {
        w->dim[1] = SLICE, w->ds[1] = w->ds[0], w->ss[1] = w->ss[0];
        w->dim[0] /= SLICE, w->ds[0] *= SLICE, w->ss[0] *= SLICE;
        w->rank = 2;
    }
    w->outer = 1;
    for (int i = 0; i < w->rank - 1; i++)
        w->outer *= w->dim[i];
    w->each = w->dim[w->rank - 1] >= SLICE ? 1 : SLICE / w->dim[w->rank - 1];
}

static void copy_strided(const struct walk *w, char *dst, const char *src, int64_t n)
{
    const int64_t ds = w->ds[w->rank - 1], ss = w->ss[w->rank - 1];

    if (w->dst_type == w->src_type && w->dst_size == sizeof(uint32_t)) {
        for (int64_t i = 0; i < n; i++)
            memcpy(dst + i * ds, src + i * ss, sizeof(uint32_t));
    } else if (w->dst_type == w->src_type) {
        for (int64_t i = 0; i < n; i++)
            memcpy(dst + i * ds, src + i * ss, w->dst_size);
    } else {
        for (int64_t i = 0; i < n; i++)
            gv_store(dst + i * ds, w->dst_type, 0, gv_load(src + i * ss, w->src_type, 0));
    }
}

void gv_cpu_convert(const struct cpu_kernels *k, void *dst, enum dtype dst_type, const void *src, enum dtype src_type, int64_t n)
{
    const size_t dst_size = gv_dtype_bytes(dst_type, 1), src_size = gv_dtype_bytes(src_type, 1);
    float        block[1024];

    if (dst_type == src_type)
        memcpy(dst, src, (size_t)n * dst_size);
    else if (dst_type == GV_F32)
        k->to_f32(dst, src, src_type, n);
    else if (src_type == GV_F32)
        k->from_f32(dst, src, dst_type, n);
    else
        for (int64_t at = 0; at < n; at += 1024) {
            const int64_t m = smaller(1024, n - at);

            k->to_f32(block, (const char *)src + (size_t)at * src_size, src_type, m);
            k->from_f32((char *)dst + (size_t)at * dst_size, block, dst_type, m);
        }
}

static void fill_run(const struct walk *w, char *dst, int64_t n)
{
    const int64_t ds = w->ds[w->rank - 1];

    for (int64_t i = 0; i < n; i++)
        gv_store(dst + i * ds, w->dst_type, 0, w->value);
}

static void walk_slice(void *arg, int64_t slice)
{
    const struct walk *w = arg;
    const int          in = w->rank - 1;
    const bool         dense = w->ds[in] == (int64_t)w->dst_size && w->ss[in] == (int64_t)w->src_size;

    for (int64_t i = slice * w->each; i < smaller((slice + 1) * w->each, w->outer); i++) {
        char       *dst = w->dst;
        const char *src = w->src;
        int64_t     rest = i;

        for (int d = in - 1; d >= 0; d--) {
            const int64_t at = rest % w->dim[d];

            rest /= w->dim[d];
            dst += at * w->ds[d];
            src = src ? src + at * w->ss[d] : NULL;
        }
        if (!src)
            fill_run(w, dst, w->dim[in]);
        else if (dense)
            gv_cpu_convert(w->k, dst, w->dst_type, src, w->src_type, w->dim[in]);
        else
            copy_strided(w, dst, src, w->dim[in]);
    }
}

static void walk_all(struct run *r, struct walk *w)
{
    if (!w->rank)
        w->dim[0] = 1, w->ds[0] = (int64_t)w->dst_size, w->ss[0] = (int64_t)w->src_size, w->rank = 1;
    walk_order(w);
    walk_cut(w);
    w->k = &gv_cpu_of(r->device)->k;
    gv_parallel_for(r->device, (w->outer + w->each - 1) / w->each, walk_slice, w);
}

void gv_cpu_copy(struct run *r, struct tensor dst, struct tensor src)
{
    struct walk w = { .dst = dst.data, .src = src.data, .dst_type = dst.type, .src_type = src.type,
                      .dst_size = gv_dtype_bytes(dst.type, 1), .src_size = gv_dtype_bytes(src.type, 1) };

    if (!gv_tensor_count(dst))
        return;
    for (int i = 0; i < dst.rank; i++)
        if (dst.dim[i] > 1) {
            w.dim[w.rank] = dst.dim[i];
            w.ds[w.rank] = dst.stride[i] * (int64_t)w.dst_size;
            w.ss[w.rank++] = src.stride[i] * (int64_t)w.src_size;
        }
    walk_all(r, &w);
}

void gv_cpu_fill(struct run *r, struct tensor dst, float value)
{
    struct walk w = { .dst = dst.data, .dst_type = dst.type, .dst_size = gv_dtype_bytes(dst.type, 1), .value = value };

    if (!gv_tensor_count(dst))
        return;
    for (int i = 0; i < dst.rank; i++)
        if (dst.dim[i] > 1) {
            w.dim[w.rank] = dst.dim[i];
            w.ss[w.rank] = w.ds[w.rank] = dst.stride[i] * (int64_t)w.dst_size;
            w.rank++;
        }
    walk_all(r, &w);
}

/* ---- gather -------------------------------------------------------------------------------------------------------------- */

struct gather {
    const struct cpu_kernels *k;
    struct cpu_rows y, table;
    const int32_t  *index;
};

static void gather_row(void *arg, int64_t i)
{
    const struct gather *g = arg;

    gv_cpu_convert(g->k, g->y.data + i * g->y.stride, g->y.type, g->table.data + g->index[i] * g->table.stride, g->table.type,
                   g->y.d);
}

void gv_cpu_gather(struct run *r, struct tensor y, struct tensor table, struct tensor index)
{
    struct gather g = { &gv_cpu_of(r->device)->k, gv_cpu_rows(y), gv_cpu_rows(table), index.data };

    gv_parallel_for(r->device, g.y.n, gather_row, &g);
}

/* ---- patches ------------------------------------------------------------------------------------------------------------- */

struct patches {
    float     *x; /* [T, H, W, C] */
    char      *rows;
    enum dtype type;
    int64_t    row_stride; /* elements */
    int64_t    H, W, C;
    int64_t    p[3];
};

static struct patches patches_of(struct tensor x, struct tensor rows, const int *patch)
{
    return (struct patches){ .x = x.data, .rows = rows.data, .type = rows.type, .row_stride = rows.stride[0],
                             .H = x.dim[1], .W = x.dim[2], .C = x.dim[3], .p = { patch[0], patch[1], patch[2] } };
}

/* The pixel (a, b, c) of patch n. */
static float *patch_pixel(const struct patches *p, int64_t n, int64_t a, int64_t b, int64_t c)
{
    const int64_t w = p->W / p->p[2], h = p->H / p->p[1];
    const int64_t x = n % w * p->p[2] + c, y = n / w % h * p->p[1] + b, t = n / w / h * p->p[0] + a;

    return p->x + ((t * p->H + y) * p->W + x) * p->C;
}

static void patchify_row(void *arg, int64_t n)
{
    const struct patches *p = arg;
    const int64_t         size = p->p[0] * p->p[1] * p->p[2];

    for (int64_t i = 0; i < size; i++) {
        const float *x = patch_pixel(p, n, i / p->p[2] / p->p[1], i / p->p[2] % p->p[1], i % p->p[2]);

        for (int64_t c = 0; c < p->C; c++)
            gv_store(p->rows, p->type, n * p->row_stride + c * size + i, x[c]);
    }
}

static void unpatchify_row(void *arg, int64_t n)
{
    const struct patches *p = arg;
    const int64_t         size = p->p[0] * p->p[1] * p->p[2];

    for (int64_t i = 0; i < size; i++) {
        float *x = patch_pixel(p, n, i / p->p[2] / p->p[1], i / p->p[2] % p->p[1], i % p->p[2]);

        for (int64_t c = 0; c < p->C; c++)
            x[c] = gv_load(p->rows, p->type, n * p->row_stride + i * p->C + c);
    }
}

void gv_cpu_patchify(struct run *r, struct tensor rows, struct tensor x, const int *patch)
{
    struct patches p = patches_of(x, rows, patch);

    gv_parallel_for(r->device, rows.dim[0], patchify_row, &p);
}

void gv_cpu_unpatchify(struct run *r, struct tensor x, struct tensor rows, const int *patch)
{
    struct patches p = patches_of(x, rows, patch);

    gv_parallel_for(r->device, rows.dim[0], unpatchify_row, &p);
}

/* ---- upsample ------------------------------------------------------------------------------------------------------------ */

struct doubling {
    char       *y;
    const char *x;
    int64_t     W;
    size_t      pixel; /* bytes */
};

/* One row of x becomes two of y. */
static void double_row(void *arg, int64_t row)
{
    const struct doubling *u = arg;
    const size_t           wide = 2 * (size_t)u->W * u->pixel;
    const char            *x = u->x + (size_t)row * wide / 2;
    char                  *y = u->y + (size_t)row * wide * 2;

    for (int64_t w = 0; w < u->W; w++, x += u->pixel) {
        memcpy(y + 2 * (size_t)w * u->pixel, x, u->pixel);
        memcpy(y + (2 * (size_t)w + 1) * u->pixel, x, u->pixel);
    }
    memcpy(y + wide, y, wide);
}

void gv_cpu_upsample(struct run *r, struct tensor y, struct tensor x)
{
    struct doubling u = { y.data, x.data, x.dim[2], gv_dtype_bytes(x.type, x.dim[3]) };

    gv_parallel_for(r->device, x.dim[0] * x.dim[1], double_row, &u);
}

/* ---- noise --------------------------------------------------------------------------------------------------------------- */

struct noise {
    float                  *y;
    const struct noise_key *key;
    int64_t                 H, W, C;
};

static void noise_row(void *arg, int64_t i)
{
    const struct noise *z = arg;
    float              *y = z->y + i * z->W * z->C;

    for (int64_t x = 0; x < z->W; x++, y += z->C)
        gv_rng_normal_row(y, z->C, z->key, i / z->H + z->key->t0, i % z->H, x);
}

void gv_cpu_noise(struct run *r, struct tensor y, const struct noise_key *key)
{
    struct noise z = { y.data, key, y.dim[1], y.dim[2], y.dim[3] };

    gv_parallel_for(r->device, y.dim[0] * y.dim[1], noise_row, &z);
}
