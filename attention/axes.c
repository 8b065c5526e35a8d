#include "attention/axes.h"

#include <stdlib.h>
#include <string.h>

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
    memset(x->of, 0, heads);
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

/* ---- the lists of sampled queries ---- */

int64_t gv_axes_sample(int i, int n, int64_t tokens, int site)
{
    const int64_t from = i * tokens / n, to = (i + 1) * tokens / n;
    uint64_t      x = ((uint64_t)site << 32 | (uint64_t)i) + 0x9e3779b97f4a7c15u; /* splitmix64: no stride of the grid in it */

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return from + (int64_t)((x ^ x >> 31) % (uint64_t)(to - from));
}

/* Keys [from, to) of an entry, clipped to it, where any are left. */
static gv_kv_entry *write_part(gv_kv_entry *e, gv_kv_entry of, int64_t from, int64_t to)
{
    const int64_t first = kv_start(of), end = first + kv_length(of);

    from = from > first ? from : first;
    to = to < end ? to : end;
    if (from < to)
        *e++ = kv_entry((uint32_t)from, (uint32_t)(to - from), 0, false);
    return e;
}

static int ascending(const void *a, const void *b)
{
    const gv_kv_entry x = *(const gv_kv_entry *)a, y = *(const gv_kv_entry *)b;

    return x < y ? -1 : x > y;
}

/* What query q of a head's list row reads, mask and all, as entries that need none. */
static gv_kv_entry *write_query(gv_kv_entry *e, const struct attn_plan *p, int64_t head, int64_t q)
{
    const int64_t           row = head * p->tiles + q / p->tile_q;
    const struct mask_range m = gv_mask_range(&p->mask, q);
    const int64_t           lo = m.lo > m.sink ? m.lo : m.sink, hi = m.hi < INT64_MAX ? m.hi + 1 : m.hi;
    gv_kv_entry *const      first = e;

    for (uint32_t i = p->row[row]; i < p->row[row + 1]; i++) {
        const gv_kv_entry of = p->entries[i];
        if (of == GV_KV_PADDING)
            continue;
        if (!kv_masked(of)) {
            *e++ = of;
            continue;
        }
        e = write_part(e, of, INT64_MIN, m.sink);
        e = write_part(e, of, lo, hi);
    }
    qsort(first, (size_t)(e - first), sizeof *e, ascending);
    return e;
}

/* ---- the choice ---- */

/* Sampled queries of one batch row, each a batch row of its own with a list of its own. */
struct probe {
    int              n;
    int64_t          token[GV_AXES_ROWS]; /* in raster order */
    struct attn_call call;                /* q, out [n, 1, A, D] */
    const float     *exact;               /* [n][A][Dv] */
};

/* Their lists over keys in one order: place[token] is where that order has a token. */
static void probe_plan(struct run *r, struct attn_plan *out, const struct probe *p, const struct attn_plan *plan,
                       const int32_t *place)
{
    const int64_t rows = (int64_t)p->n * plan->list_heads, blocks = (p->call.source[0].k.dim[1] + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    uint32_t     *row = gv_scratch_bytes(r, (size_t)(rows + 1) * sizeof *row);
    gv_kv_entry  *entries = gv_scratch_bytes(r, (size_t)(rows * 2 * blocks + 1) * sizeof *entries), *e = entries;

    *out = (struct attn_plan){ .tile_q = GV_TILE_Q,
                               .batch = p->n,
                               .list_heads = plan->list_heads,
                               .tiles = 1,
                               .row = row,
                               .entries = entries,
                               .density = plan->density };
    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return;
    for (int64_t i = 0; i < rows; i++) {
        row[i] = (uint32_t)(e - entries);
        e = write_query(e, plan, i % plan->list_heads, place[p->token[i / plan->list_heads]]);
    }
    row[rows] = (uint32_t)(e - entries);
}

/* Rows of one batch row of x [B, N, A, D] in an order: [1, N, A, D] in scratch. */
static struct tensor reordered(struct run *r, struct tensor x, int64_t b, struct tensor order)
{
    const struct tensor to = gv_scratch(r, x.type, 4, DIMS(1, x.dim[1], x.dim[2], x.dim[3]));
    const int64_t       width = x.dim[2] * x.dim[3];

    gv_gather(r, reshape(to, 2, DIMS(x.dim[1], width)), reshape(slice(x, 0, b, 1), 2, DIMS(x.dim[1], width)), order);
    return to;
}

static const float *host_output(struct run *r, struct tensor o)
{
    float *host = gv_scratch_bytes(r, gv_tensor_bytes(o));

    if (!gv_device_is_null(r->device) && gv_run_ready(r))
        gv_download(r, host, o);
    return host;
}

/* Adds to error[A] the squared error of the sampled outputs over the lists in one order. */
static void probe_order(struct run *r, const struct attn_axes *x, int axes, int64_t b, struct probe *p,
                        const struct attn_call *call, const struct attn_plan *plan, double *error)
{
    const struct mark   mark = arena_mark(&r->scratch);
    const int32_t      *order = x->order + axes * x->tokens;
    int32_t            *place = gv_scratch_bytes(r, (size_t)x->tokens * sizeof *place);
    const struct tensor index = gv_scratch_from(r, GV_I32, 1, &x->tokens, order);
    struct attn_plan    lists;

    for (int64_t n = 0; !gv_device_is_null(r->device) && gv_run_ready(r) && n < x->tokens; n++)
        place[order[n]] = (int32_t)n;
    probe_plan(r, &lists, p, plan, place);
    p->call.plan = &lists;
    p->call.source[0].k = reordered(r, call->source[0].k, b, index);
    p->call.source[0].v = reordered(r, call->source[0].v, b, index);
    gv_attention(r, &p->call);
    const float  *got = host_output(r, p->call.out.o);
    const int64_t A = p->call.out.o.dim[2], D = p->call.out.o.dim[3];
    for (int64_t i = 0; !gv_device_is_null(r->device) && gv_run_ready(r) && i < p->n * A * D; i++)
        error[i / D % A] += ((double)got[i] - (double)p->exact[i]) * ((double)got[i] - (double)p->exact[i]);
    arena_release(&r->scratch, mark);
}

/* The sampled queries of batch row b, over all keys and over the lists in each order. */
static void probe_row(struct run *r, const struct attn_axes *x, int site, int64_t b, const struct attn_call *call,
                      const struct attn_plan *plan, double error[][GV_ATTN_HEADS])
{
    const struct mark mark = arena_mark(&r->scratch);
    const int64_t    *d = call->q.dim, Dv = call->source[0].v.dim[3];
    struct probe      p = { .n = x->tokens < GV_AXES_ROWS ? (int)x->tokens : GV_AXES_ROWS };
    struct tensor     q = gv_scratch(r, call->q.type, 4, DIMS(1, p.n, d[2], d[3]));
    struct tensor     o = gv_scratch(r, GV_F32, 4, DIMS(1, p.n, d[2], Dv));

    for (int i = 0; i < p.n; i++) {
        p.token[i] = gv_axes_sample(i, p.n, x->tokens, site);
        gv_copy(r, slice(q, 1, i, 1), slice(slice(call->q, 0, b, 1), 1, p.token[i], 1));
    }
    p.call = (struct attn_call){ .q = q, .n_sources = 1, .out.o = o, .scale = call->scale };
    p.call.source[0] = (struct attn_source){ .k = slice(call->source[0].k, 0, b, 1), .v = slice(call->source[0].v, 0, b, 1) };
    gv_attention(r, &p.call);
    p.exact = host_output(r, o);
    p.call.q = reshape(q, 4, DIMS(p.n, 1, d[2], d[3]));
    p.call.out.o = reshape(gv_scratch(r, GV_F32, 4, o.dim), 4, DIMS(p.n, 1, d[2], Dv));
    for (int i = 0; i < x->n; i++)
        probe_order(r, x, i, b, &p, call, plan, error[i]);
    arena_release(&r->scratch, mark);
}

void gv_axes_choose(struct run *r, struct attn_axes *x, int site, const struct attn_call *call, const struct attn_plan *plan)
{
    const int64_t *d = call->q.dim;
    double         error[GV_AXES][GV_ATTN_HEADS] = { 0 };
    uint8_t       *of = x->of + (int64_t)site * x->heads;

    if (d[2] != x->heads || d[1] != x->tokens) {
        gv_run_fail(r, GV_ERR_INTERNAL, "attention axes: %lld tokens of %lld heads", (long long)d[1], (long long)d[2]);
        return;
    }
    for (int64_t b = 0; b < d[0]; b++)
        probe_row(r, x, site, b, call, plan, error);
    for (int a = 0; !gv_device_is_null(r->device) && gv_run_ready(r) && a < x->heads; a++) {
        of[a] = 0;
        for (int i = 1; i < x->n; i++)
            if (error[i][a] < error[of[a]][a])
                of[a] = (uint8_t)i;
    }
}

/* ---- the call ---- */

void gv_axes_attend(struct run *r, const struct attn_axes *x, int site, const struct attn_call *call)
{
    struct attn_call c = *call;

    c.head_order = &(struct attn_head_order){ x->order, x->of + (int64_t)site * x->heads };
    gv_attention(r, &c);
}
