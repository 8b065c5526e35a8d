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
    x->order = malloc(tokens * sizeof *x->order);
    x->of = malloc(heads);
    if (!x->order || !x->of) {
        gv_axes_close(x);
        return gv_fail(e, GV_ERR_MEMORY, "no memory for %d orders of %lld tokens", shape->n, (long long)l->tokens);
    }
    memset(x->of, GV_AXES_NONE, heads);
    for (int a = 0; a < x->n; a++)
        gv_axes_order(x->order + a * l->tokens, a, l->T, l->H, l->W);
    return GV_OK;
}

void gv_axes_close(struct attn_axes *x)
{
    free(x->order);
    free(x->of);
    *x = (struct attn_axes){ 0 };
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
    c.head_order = &(struct attn_head_order){ x->order, of };
    c.out = (struct attn_partial){ gv_scratch(r, r->compute, 4, c.q.dim), gv_scratch(r, GV_F32, 3, DIMS(d[0], A, N)) };
    c.plan = plan;
    c.skip = all_but_some(r, plan);
    gv_attention(r, &c);
    const float *lse = host_lse(r, c.out.lse);
    for (int64_t i = 0; !gv_device_is_null(r->device) && gv_run_ready(r) && i < d[0] * A * N; i++) {
        const int64_t at = i / N * N + x->order[axes * N + i % N];
        if (i % N / GV_TILE_Q % PROBED == 0)
            mass[i / N % A] += exp((double)lse[at] - (double)all[at]);
    }
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
    struct attn_call c = *call;

    c.head_order = &(struct attn_head_order){ x->order, x->of + (int64_t)site * x->heads };
    gv_attention(r, &c);
}
