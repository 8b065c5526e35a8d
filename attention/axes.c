#include "attention/axes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROBED = 8 }; /* one of so many query tiles */

gv_status gv_axes_open(struct attn_axes *x, const struct attn_layout *l, const struct axes_shape *shape, struct error *e)
{
    *x = (struct attn_axes){ .n = shape->n, .sites = shape->sites, .heads = shape->heads, .tokens = l->tokens };
    if (shape->heads > GV_ATTN_HEADS)
        return gv_fail(e, GV_ERR_ARGUMENT, "attention: axes takes up to %d heads, not %d", GV_ATTN_HEADS, shape->heads);
    if (l->order || l->tokens != (int64_t)l->T * l->H * l->W)
        return gv_fail(e, GV_ERR_ARGUMENT, "attention: axes=%d needs a grid in raster order, and the policy has its own",
                       shape->n);
    const size_t tokens = (size_t)x->n * (size_t)l->tokens, heads = (size_t)x->sites * (size_t)x->heads;
    x->order = malloc(2 * tokens * sizeof *x->order);
    x->of = malloc(heads);
    if (!x->order || !x->of) {
        gv_axes_close(x);
        return gv_fail(e, GV_ERR_MEMORY, "no memory for %d orders of %lld tokens", shape->n, (long long)l->tokens);
    }
    memset(x->of, GV_AXES_NONE, heads);
    x->inverse = x->order + tokens;
    for (int a = 0; a < x->n; a++) {
        int32_t *order = x->order + a * l->tokens, *inverse = x->inverse + a * l->tokens;
        gv_axes_order(order, a, l->T, l->H, l->W);
        for (int64_t i = 0; i < l->tokens; i++)
            inverse[order[i]] = (int32_t)i;
    }
    return GV_OK;
}

void gv_axes_close(struct attn_axes *x)
{
    free(x->order);
    free(x->of);
    *x = (struct attn_axes){ 0 };
}

/* Rows [N, D] of one head. */
static struct tensor of_head(struct tensor t, int64_t b, int64_t a)
{
    return row(permute(row(t, b), (const int[]){ 1, 0, 2 }), a);
}

/* A copy of t [B, N, A, D], token i of head a being token table[of[a]][i]; to: where it goes, or absent for scratch. */
static struct tensor reordered(struct run *r, const struct attn_axes *x, const int32_t *table, const uint8_t *of,
                               struct tensor t, struct tensor to)
{
    struct tensor index[GV_AXES] = { 0 };

    if (!present(to))
        to = gv_scratch(r, t.type, 4, t.dim);
    const struct mark mark = arena_mark(&r->scratch);
    for (int i = 0; i < x->n; i++)
        index[i] = gv_scratch_from(r, GV_I32, 1, DIMS(x->tokens), table + i * x->tokens);
    for (int64_t b = 0; b < t.dim[0]; b++)
        for (int64_t a = 0; a < t.dim[2]; a++)
            gv_gather(r, of_head(to, b, a), of_head(t, b, a), index[of[a * x->heads / t.dim[2]]]);
    arena_release(&r->scratch, mark);
    return to;
}

/* ---- the choice ---- */

/* All tiles but every PROBED-th: struct attn_call.skip. */
static const uint32_t *all_but_some(struct run *r, const struct attn_plan *plan)
{
    const int64_t rows = (int64_t)plan->batch * plan->list_heads * plan->tiles;
    uint32_t     *skip = gv_scratch_bytes(r, (size_t)(rows + 31) / 32 * sizeof *skip);

    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return skip;
    memset(skip, 0, (size_t)(rows + 31) / 32 * sizeof *skip);
    for (int64_t i = 0; i < rows; i++)
        if (i % plan->tiles % PROBED)
            skip[i / 32] |= (uint32_t)1 << i % 32;
    return skip;
}

static float *host_lse(struct run *r, struct tensor lse)
{
    float *host = gv_scratch_bytes(r, gv_tensor_bytes(lse));

    if (!gv_device_is_null(r->device) && gv_run_ready(r))
        gv_download(r, host, lse);
    return host;
}

/* Adds to mass[A] what the plan's lists hold of each head's softmax in one order, over the probed tiles. all: each token's LSE. */
static void probe(struct run *r, const struct attn_axes *x, int axes, const struct attn_call *call,
                  const struct attn_plan *plan, const float *all, double *mass)
{
    const struct mark mark = arena_mark(&r->scratch);
    const int64_t    *d = call->q.dim, N = d[1], A = d[2];
    uint8_t           of[GV_ATTN_HEADS];
    struct attn_call  c = *call;

    memset(of, axes, sizeof of);
    c.q = reordered(r, x, x->order, of, call->q, (struct tensor){ 0 });
    c.source[0].k = reordered(r, x, x->order, of, call->source[0].k, (struct tensor){ 0 });
    c.source[0].v = c.source[0].k; /* the LSE alone is wanted */
    c.out = (struct attn_partial){ gv_scratch(r, r->compute, 4, c.q.dim), gv_scratch(r, GV_F32, 3, DIMS(d[0], A, N)) };
    c.plan = plan;
    c.skip = all_but_some(r, plan);
    gv_attention(r, &c);
    const float *lse = host_lse(r, c.out.lse);
    for (int64_t i = 0; !gv_device_is_null(r->device) && gv_run_ready(r) && i < d[0] * A * N; i++)
        if (i % N / GV_TILE_Q % PROBED == 0)
            mass[i / N % A] += exp((double)lse[i] - (double)all[i / N * N + x->order[axes * N + i % N]]);
    arena_release(&r->scratch, mark);
}

void gv_axes_choose(struct run *r, struct attn_axes *x, int site, const struct attn_call *call, const struct attn_plan *plan)
{
    const struct mark mark = arena_mark(&r->scratch);
    const int64_t    *d = call->q.dim;
    struct attn_call  exact = *call;
    double            mass[GV_AXES][GV_ATTN_HEADS] = { 0 };
    uint8_t          *of = x->of + (int64_t)site * x->heads;

    if (d[2] != x->heads || d[1] != x->tokens) {
        gv_run_fail(r, GV_ERR_INTERNAL, "attention axes: %lld tokens of %lld heads", (long long)d[1], (long long)d[2]);
        return;
    }
    if (r->device->kind != GV_DEVICE_CPU) {
        gv_run_fail(r, GV_ERR_UNSUPPORTED, "attention: axes has no kernel for device %s", r->device->name);
        return;
    }
    exact.plan = NULL;
    exact.out.lse = gv_scratch(r, GV_F32, 3, DIMS(d[0], d[2], d[1]));
    gv_attention(r, &exact);
    const float *all = host_lse(r, exact.out.lse);
    for (int i = 0; i < x->n; i++)
        probe(r, x, i, call, plan, all, mass[i]);
    for (int a = 0; !gv_device_is_null(r->device) && a < x->heads; a++) {
        of[a] = 0;
        for (int i = 1; i < x->n; i++)
            if (mass[i][a] > mass[of[a]][a])
                of[a] = (uint8_t)i;
    }
    arena_release(&r->scratch, mark);
}

/* ---- the call ---- */

void gv_axes_attend(struct run *r, const struct attn_axes *x, int site, const struct attn_call *call)
{
    static const uint8_t raster[GV_ATTN_HEADS] = { 0 };
    const struct mark    mark = arena_mark(&r->scratch);
    const uint8_t       *of = gv_device_is_null(r->device) ? raster : x->of + (int64_t)site * x->heads;
    const struct tensor  none = { 0 };
    struct attn_call     c = *call;

    c.q = reordered(r, x, x->order, of, call->q, none);
    c.source[0].k = reordered(r, x, x->order, of, call->source[0].k, none);
    c.source[0].v = reordered(r, x, x->order, of, call->source[0].v, none);
    c.out.o = gv_scratch(r, call->out.o.type, 4, call->out.o.dim);
    gv_attention(r, &c);
    reordered(r, x, x->inverse, of, c.out.o, call->out.o);
    arena_release(&r->scratch, mark);
}
