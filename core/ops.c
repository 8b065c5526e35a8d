/* The checks of every operation, in one place; the work is the device's. See ops.h for what each one does. */
#include "core/ops.h"

#include <stdio.h>
#include <string.h>

enum { TEXT = 64 };

/* ---- what fits ---- */

static bool is_act_type(const struct run *r, struct tensor t)
{
    return t.type == GV_F32 || t.type == r->compute;
}

/* Rows of a tensor are evenly strided and their elements contiguous: it can be seen as [N, D]. */
static bool has_even_rows(struct tensor t)
{
    if (t.rank < 1 || t.packed || (t.dim[t.rank - 1] != 1 && t.stride[t.rank - 1] != 1))
        return false;
    for (int i = 0; i + 2 < t.rank; i++)
        if (t.dim[i] != 1 && t.stride[i] != t.stride[i + 1] * t.dim[i + 1])
            return false;
    return true;
}

static int64_t n_rows(struct tensor t)
{
    return t.dim[t.rank - 1] ? gv_tensor_count(t) / t.dim[t.rank - 1] : 0;
}

static int64_t width(struct tensor t)
{
    return t.dim[t.rank - 1];
}

static void misfit(struct run *r, const char *op, const char *what, struct tensor t)
{
    char text[TEXT];
    gv_run_fail(r, GV_ERR_INTERNAL, "%s: %s does not fit: %s %s", op, what, gv_dtype_info(t.type)->name,
                gv_tensor_shape_text(t, text, sizeof text));
}

#define NEED(cond, what, t)                                                                                                    \
    do {                                                                                                                       \
        if (!(cond)) {                                                                                                         \
            misfit(r, op, what, t);                                                                                            \
            return;                                                                                                            \
        }                                                                                                                      \
    } while (0)

/* An optional table of the wanted width in f32, of one row at least. */
static bool fits_f32(struct tensor t, int64_t d)
{
    return !present(t) || (t.type == GV_F32 && has_even_rows(t) && width(t) == d && (n_rows(t) > 0 || d == 0));
}

static bool fits_vector(struct tensor t, int64_t d)
{
    return fits_f32(t, d) && (!present(t) || gv_tensor_count(t) == d);
}

/* Whether a kernel that writes a would write into b. Of strided views only the same start is told: the columns of one buffer
 * lie between each other without meeting. */
static bool overlap(struct tensor a, struct tensor b)
{
    const char *p = a.data, *q = b.data;
    if (!p || !q || !gv_tensor_count(a) || !gv_tensor_count(b))
        return false;
    if (!gv_tensor_contiguous(a) || !gv_tensor_contiguous(b))
        return p == q;
    return p < q + gv_tensor_bytes(b) && q < p + gv_tensor_bytes(a);
}

static bool fits_group(struct tensor group, int64_t n)
{
    return !present(group) || (group.type == GV_I32 && gv_tensor_contiguous(group) && gv_tensor_count(group) == n);
}

/* ---- operations ---- */

void gv_linear(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o)
{
    static const struct linear_opts none = { 0 };
    const char                     *op = "linear";
    if (!gv_run_ready(r))
        return;
    o = o ? o : &none;
    NEED(x.rank >= 1 && is_act_type(r, x) && has_even_rows(x), "x", x);
    NEED(w.rank == 2 && w.dim[1] == width(x), "w", w);
    NEED(y.rank >= 1 && is_act_type(r, y) && has_even_rows(y) && width(y) == w.dim[0] && n_rows(y) == n_rows(x), "y", y);
    NEED(!o->add || y.type == GV_F32, "y (must be f32 when added to)", y);
    NEED(!overlap(y, x), "y (overlaps x)", y);
    NEED(fits_vector(o->bias, w.dim[0]), "bias", o->bias);
    NEED(fits_f32(o->gate, w.dim[0]), "gate", o->gate);
    NEED(fits_group(o->group, n_rows(x)), "group", o->group);
    r->flops += 2.0 * (double)n_rows(x) * (double)w.dim[0] * (double)w.dim[1];
    struct mark m = arena_mark(&r->scratch);
    void       *ws = gv_scratch_bytes(r, r->device->ops->linear_workspace(r->device, y, x, w, o));
    if (gv_run_ready(r) && n_rows(x))
        r->device->ops->linear(r, y, x, w, o, ws);
    arena_release(&r->scratch, m);
}

void gv_norm(struct run *r, struct tensor y, struct tensor x, const struct norm_opts *o)
{
    const char *op = "norm";
    if (!gv_run_ready(r))
        return;
    NEED(x.rank >= 1 && is_act_type(r, x) && has_even_rows(x), "x", x);
    int64_t d = width(x), n = n_rows(x);
    NEED(y.rank >= 1 && is_act_type(r, y) && has_even_rows(y) && width(y) == d && n_rows(y) == n, "y", y);
    NEED(fits_vector(o->weight, d), "weight", o->weight);
    NEED(fits_vector(o->bias, d), "bias", o->bias);
    NEED(fits_f32(o->scale, d), "scale", o->scale);
    NEED(fits_f32(o->shift, d), "shift", o->shift);
    NEED(!present(o->scale) || !present(o->shift) || n_rows(o->scale) == n_rows(o->shift), "shift", o->shift);
    NEED(fits_group(o->group, n), "group", o->group);
    if (o->rope) {
        NEED(o->rope->head > 0 && o->rope->head % 2 == 0 && d % o->rope->head == 0, "rope head", x);
        NEED(present(o->rope->cos) && fits_f32(o->rope->cos, o->rope->head / 2), "rope cos", o->rope->cos);
        NEED(gv_tensor_same_shape(o->rope->cos, o->rope->sin) && fits_f32(o->rope->sin, o->rope->head / 2), "rope sin",
             o->rope->sin);
        NEED(n_rows(o->rope->cos) > 0 && n % n_rows(o->rope->cos) == 0, "rope rows", o->rope->cos);
    }
    if (n)
        r->device->ops->norm(r, y, x, o);
}

/* Length of the output along one axis; 0 when the kernel does not fit. */
static int64_t conv_length(int64_t in, int64_t kernel, int stride, int lo, int hi)
{
    int64_t room = in + lo + hi - kernel;
    return room < 0 ? 0 : room / (stride ? stride : 1) + 1;
}

void gv_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o)
{
    const char *op = "conv";
    if (!gv_run_ready(r))
        return;
    NEED(x.rank == 4 && x.type == r->compute && gv_tensor_contiguous(x), "x", x);
    NEED(w.rank == 5 && w.dim[4] == x.dim[3], "w", w);
    NEED(y.rank == 4 && is_act_type(r, y) && gv_tensor_contiguous(y) && y.dim[3] == w.dim[0], "y", y);
    for (int i = 0; i < 3; i++)
        NEED(y.dim[i] == conv_length(x.dim[i], w.dim[i + 1], o->stride[i], o->pad_lo[i], o->pad_hi[i]), "y", y);
    NEED(!overlap(y, x), "y (overlaps x)", y);
    NEED(fits_vector(o->bias, w.dim[0]), "bias", o->bias);
    r->flops += 2.0 * (double)gv_tensor_count(y) * (double)(w.dim[1] * w.dim[2] * w.dim[3] * w.dim[4]);
    struct mark m = arena_mark(&r->scratch);
    void       *ws = gv_scratch_bytes(r, r->device->ops->conv_workspace(r->device, y, x, w, o));
    if (gv_run_ready(r) && gv_tensor_count(y))
        r->device->ops->conv(r, y, x, w, o, ws);
    arena_release(&r->scratch, m);
}

static bool same_rows(const struct run *r, struct tensor a, struct tensor b)
{
    return b.rank >= 1 && is_act_type(r, b) && has_even_rows(b) && width(a) == width(b) && n_rows(a) == n_rows(b);
}

void gv_act(struct run *r, struct tensor y, struct tensor x, enum act act)
{
    const char *op = "act";
    if (!gv_run_ready(r))
        return;
    NEED(x.rank >= 1 && is_act_type(r, x) && has_even_rows(x), "x", x);
    NEED(same_rows(r, x, y), "y", y);
    if (n_rows(x))
        r->device->ops->act(r, y, x, act);
}

void gv_glu(struct run *r, struct tensor y, struct tensor a, struct tensor b, enum act act)
{
    const char *op = "glu";
    if (!gv_run_ready(r))
        return;
    NEED(a.rank >= 1 && is_act_type(r, a) && has_even_rows(a), "a", a);
    NEED(same_rows(r, a, b), "b", b);
    NEED(same_rows(r, a, y), "y", y);
    if (n_rows(a))
        r->device->ops->glu(r, y, a, b, act);
}

void gv_add(struct run *r, struct tensor y, struct tensor a, struct tensor b)
{
    const char *op = "add";
    if (!gv_run_ready(r))
        return;
    NEED(a.rank >= 1 && is_act_type(r, a) && has_even_rows(a), "a", a);
    NEED(same_rows(r, a, y), "y", y);
    NEED(b.rank >= 1 && is_act_type(r, b) && has_even_rows(b) && width(b) == width(a) && n_rows(b) > 0 &&
             n_rows(a) % n_rows(b) == 0,
         "b", b);
    if (n_rows(a))
        r->device->ops->add(r, y, a, b);
}

static bool is_float(struct tensor t)
{
    return t.type == GV_F32 || t.type == GV_BF16 || t.type == GV_F16;
}

void gv_copy(struct run *r, struct tensor dst, struct tensor src)
{
    const char *op = "copy";
    if (!gv_run_ready(r))
        return;
    NEED(is_float(src) && !src.packed, "src", src);
    NEED(is_float(dst) && !dst.packed && gv_tensor_same_shape(dst, src), "dst", dst);
    NEED(!overlap(dst, src), "dst (overlaps src)", dst);
    if (gv_tensor_count(src))
        r->device->ops->copy(r, dst, src);
}

void gv_fill(struct run *r, struct tensor dst, float value)
{
    const char *op = "fill";
    if (!gv_run_ready(r))
        return;
    NEED(is_act_type(r, dst) && !dst.packed, "dst", dst);
    if (gv_tensor_count(dst))
        r->device->ops->fill(r, dst, value);
}

void gv_gather(struct run *r, struct tensor y, struct tensor table, struct tensor index)
{
    const char *op = "gather";
    if (!gv_run_ready(r))
        return;
    NEED(table.rank == 2 && is_float(table) && has_even_rows(table), "table", table);
    NEED(index.rank == 1 && index.type == GV_I32 && gv_tensor_contiguous(index), "index", index);
    NEED(y.rank == 2 && is_act_type(r, y) && has_even_rows(y) && width(y) == width(table) && n_rows(y) == index.dim[0], "y", y);
    if (n_rows(y))
        r->device->ops->gather(r, y, table, index);
}

void gv_lincomb(struct run *r, struct tensor y, int n, const struct lincomb_term *terms)
{
    const char *op = "lincomb";
    if (!gv_run_ready(r))
        return;
    NEED(n >= 1 && n <= GV_LINCOMB_TERMS && y.type == GV_F32 && gv_tensor_contiguous(y), "y", y);
    for (int i = 0; i < n; i++)
        NEED(terms[i].x.type == GV_F32 && gv_tensor_contiguous(terms[i].x) && gv_tensor_same_shape(terms[i].x, y), "term",
             terms[i].x);
    r->device->ops->lincomb(r, y, n, terms);
}

static bool patches_fit(struct tensor x, struct tensor rows, const int patch[3])
{
    int64_t n = 1, k = 1;
    for (int i = 0; i < 3; i++) {
        if (patch[i] < 1 || x.dim[i] % patch[i])
            return false;
        n *= x.dim[i] / patch[i];
        k *= patch[i];
    }
    return n_rows(rows) == n && width(rows) == k * x.dim[3];
}

void gv_patchify(struct run *r, struct tensor rows, struct tensor x, const int patch[3])
{
    const char *op = "patchify";
    if (!gv_run_ready(r))
        return;
    NEED(x.rank == 4 && x.type == GV_F32 && gv_tensor_contiguous(x), "x", x);
    NEED(rows.rank == 2 && is_act_type(r, rows) && has_even_rows(rows) && patches_fit(x, rows, patch), "rows", rows);
    if (n_rows(rows))
        r->device->ops->patchify(r, rows, x, patch);
}

void gv_unpatchify(struct run *r, struct tensor x, struct tensor rows, const int patch[3])
{
    const char *op = "unpatchify";
    if (!gv_run_ready(r))
        return;
    NEED(x.rank == 4 && x.type == GV_F32 && gv_tensor_contiguous(x), "x", x);
    NEED(rows.rank == 2 && is_act_type(r, rows) && has_even_rows(rows) && patches_fit(x, rows, patch), "rows", rows);
    if (n_rows(rows))
        r->device->ops->unpatchify(r, x, rows, patch);
}

void gv_upsample(struct run *r, struct tensor y, struct tensor x)
{
    const char *op = "upsample";
    if (!gv_run_ready(r))
        return;
    NEED(x.rank == 4 && is_act_type(r, x) && gv_tensor_contiguous(x), "x", x);
    NEED(y.rank == 4 && y.type == x.type && gv_tensor_contiguous(y) && y.dim[0] == x.dim[0] && y.dim[1] == 2 * x.dim[1] &&
             y.dim[2] == 2 * x.dim[2] && y.dim[3] == x.dim[3],
         "y", y);
    NEED(!overlap(y, x), "y (overlaps x)", y);
    if (gv_tensor_count(x))
        r->device->ops->upsample(r, y, x);
}

void gv_noise(struct run *r, struct tensor y, const struct noise_key *key)
{
    const char *op = "noise";
    if (!gv_run_ready(r))
        return;
    NEED(y.rank == 4 && y.type == GV_F32 && gv_tensor_contiguous(y), "y", y);
    NEED(y.dim[1] <= 65536 && y.dim[2] <= 65536 && y.dim[3] <= 4 * 65536, "y", y); /* what the counter has room for: rng.c */
    NEED(key->purpose < 65536 && key->step < 4096 && key->block < 1 << 20, "key", y);
    NEED(key->t0 >= 0 && key->t0 <= UINT32_MAX - y.dim[0], "t0", y);
    r->device->ops->noise(r, y, key);
}

void gv_check_finite(struct run *r, struct tensor x, const char *what)
{
    const char *op = "check_finite";
    if (!gv_run_ready(r))
        return;
    NEED(x.type == GV_F32 && has_even_rows(x), "x", x);
    if (gv_tensor_count(x))
        r->device->ops->check_finite(r, x, what);
}

void gv_fail_not_finite(struct run *r, const char *what)
{
    gv_run_fail(r, GV_ERR_MODEL, "a value of %s is not finite: the weights or the settings overflow", what);
}

void gv_upload(struct run *r, struct tensor dst, const void *host)
{
    const char *op = "upload";
    if (!gv_run_ready(r))
        return;
    NEED(gv_tensor_contiguous(dst) && !dst.packed, "dst", dst);
    if (gv_tensor_count(dst))
        r->device->ops->upload(r, dst, host);
}

void gv_download(struct run *r, void *host, struct tensor src)
{
    const char *op = "download";
    if (!gv_run_ready(r))
        return;
    NEED(gv_tensor_contiguous(src) && !src.packed, "src", src);
    if (gv_tensor_count(src))
        r->device->ops->download(r, host, src);
}

void gv_sync(struct run *r)
{
    if (r->err.code == GV_OK)
        r->device->ops->sync(r);
}

struct tensor gv_scratch_from(struct run *r, enum dtype type, int rank, const int64_t *dim, const void *host)
{
    struct tensor t = gv_scratch(r, type, rank, dim);
    gv_upload(r, t, host);
    return t;
}
