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

/* ---- which sampled queries read a key ---- */

int64_t gv_axes_sample(int i, int n, int64_t tokens, int site)
{
    const int64_t from = i * tokens / n, to = (i + 1) * tokens / n;
    uint64_t      x = ((uint64_t)site << 32 | (uint64_t)i) + 0x9e3779b97f4a7c15u; /* splitmix64: no stride of the grid in it */

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return from + (int64_t)((x ^ x >> 31) % (uint64_t)(to - from));
}

/* Sampled queries: tokens in raster order. */
struct probe {
    int              n;
    int64_t          token[GV_AXES_ROWS];
    struct attn_call call;  /* q [B, n, A, D], the keys and values of the call that is probed */
    const float     *exact; /* [B, n, A, Dv] */
    int64_t          tokens;
    uint64_t    *readers, *kinds; /* [tokens]: bit i: query i reads the token's key; all that occur, ascending, without none */
    gv_kv_entry *entries;         /* every block, masked */
};

/* p->readers of a list head's row of the plan, in an order; place[token] is where the order has it. */
static void find_readers(const struct probe *p, const struct attn_plan *plan, int64_t head, const int32_t *order,
                         const int32_t *place)
{
    memset(p->readers, 0, (size_t)p->tokens * sizeof *p->readers);
    for (int i = 0; i < p->n; i++) {
        const int64_t q = place[p->token[i]], row = head * plan->tiles + q / plan->tile_q;
        for (uint32_t at = plan->row[row]; at < plan->row[row + 1]; at++) {
            const gv_kv_entry e = plan->entries[at];
            for (uint32_t k = kv_start(e); e != GV_KV_PADDING && k < kv_start(e) + kv_length(e); k++)
                if (!kv_masked(e) || gv_mask_allows(&plan->mask, q, 0, k))
                    p->readers[order[k]] |= (uint64_t)1 << i;
        }
    }
}

static int ascending(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static int64_t find_kinds(const struct probe *p)
{
    int64_t n = 0;

    memcpy(p->kinds, p->readers, (size_t)p->tokens * sizeof *p->kinds);
    qsort(p->kinds, (size_t)p->tokens, sizeof *p->kinds, ascending);
    for (int64_t i = 0; i < p->tokens; i++)
        if (p->kinds[i] && (n == 0 || p->kinds[i] != p->kinds[n - 1]))
            p->kinds[n++] = p->kinds[i];
    return n;
}

/* ---- the sampled outputs ---- */

/* A mask's 64 segments of keys: 63 kinds and what is none of them. */
enum { KINDS = 63 };
struct segments {
    uint8_t          query[GV_AXES_ROWS], *key; /* key [tokens] */
    uint64_t         allow[64];
    uint32_t         row[2];
    struct attn_plan plan;
};

static void set_segments(struct segments *s, const struct probe *p, const uint64_t *kinds, int64_t n)
{
    memset(s->allow, 0, sizeof s->allow);
    for (int i = 0; i < p->n; i++) {
        s->query[i] = (uint8_t)i;
        for (int64_t k = 0; k < n; k++)
            s->allow[i] |= (kinds[k] >> i & 1) << k;
    }
    for (int64_t t = 0; t < p->tokens; t++) {
        const uint64_t *kind = bsearch(&p->readers[t], kinds, (size_t)n, sizeof *kinds, ascending);
        s->key[t] = (uint8_t)(kind ? kind - kinds : KINDS);
    }
}

/* Heads [from, from + n) of the sampled outputs over what p->readers says, in f32 at out: one call for every 63 kinds of keys. */
static void attend_readers(struct run *r, const struct probe *p, int64_t from, int64_t n, struct attn_partial out)
{
    const struct mark   mark = arena_mark(&r->scratch);
    const int64_t       blocks = (p->tokens + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    const bool          dry = gv_device_is_null(r->device) || !gv_run_ready(r);
    const int64_t       kinds = dry ? KINDS + 1 : find_kinds(p);
    struct attn_partial part[2] = { out, { gv_scratch(r, GV_F32, 4, out.o.dim), gv_scratch(r, GV_F32, 3, out.lse.dim) } };
    struct segments     s = { .key = gv_scratch_bytes(r, (size_t)p->tokens), .row = { 0, (uint32_t)blocks } };
    struct attn_call    c = p->call;

    s.plan = (struct attn_plan){ .tile_q = GV_TILE_Q,
                                 .batch = 1,
                                 .list_heads = 1,
                                 .tiles = 1,
                                 .row = s.row,
                                 .entries = p->entries,
                                 .mask = { .kind = MASK_SEGMENTS, .qseg = s.query, .kseg = s.key, .allow = s.allow },
                                 .density = 1 };
    c.plan = &s.plan;
    c.q = slice(c.q, 2, from, n);
    c.source[0].k = slice(c.source[0].k, 2, from, n);
    c.source[0].v = slice(c.source[0].v, 2, from, n);
    for (int64_t at = 0; at == 0 || at < kinds; at += KINDS) {
        if (!dry)
            set_segments(&s, p, p->kinds + at, kinds - at < KINDS ? kinds - at : KINDS);
        c.out = part[at > 0];
        gv_attention(r, &c);
        if (at)
            gv_attn_merge(r, &out, part, 2);
    }
    arena_release(&r->scratch, mark);
}

static const float *host_output(struct run *r, struct tensor o)
{
    float *host = gv_scratch_bytes(r, gv_tensor_bytes(o));

    if (!gv_device_is_null(r->device) && gv_run_ready(r))
        gv_download(r, host, o);
    return host;
}

/* Adds to error[A] the squared error of the sampled outputs over the lists in one order. */
static void probe_order(struct run *r, const struct attn_axes *x, int axes, const struct probe *p, const struct attn_plan *plan,
                        double *error)
{
    const struct mark   mark = arena_mark(&r->scratch);
    const bool          dry = gv_device_is_null(r->device) || !gv_run_ready(r);
    const int32_t      *order = x->order + axes * x->tokens;
    const int64_t       B = p->call.q.dim[0], Dv = p->call.source[0].v.dim[3], heads = x->heads / plan->list_heads;
    int32_t            *place = gv_scratch_bytes(r, (size_t)x->tokens * sizeof *place);
    struct attn_partial out = { gv_scratch(r, GV_F32, 4, DIMS(B, p->n, heads, Dv)),
                                gv_scratch(r, GV_F32, 3, DIMS(B, heads, p->n)) };

    for (int64_t n = 0; !dry && n < x->tokens; n++)
        place[order[n]] = (int32_t)n;
    for (int64_t list = 0; list < plan->list_heads; list++) {
        const struct mark here = arena_mark(&r->scratch);
        if (!dry)
            find_readers(p, plan, list, order, place);
        attend_readers(r, p, list * heads, heads, out);
        const float *got = host_output(r, out.o);
        for (int64_t i = 0; !dry && gv_run_ready(r) && i < B * p->n * heads * Dv; i++) {
            const int64_t head = list * heads + i / Dv % heads;
            const double  apart = (double)got[i] - (double)p->exact[(i / Dv / heads * x->heads + head) * Dv + i % Dv];
            error[head] += apart * apart;
        }
        arena_release(&r->scratch, here);
    }
    arena_release(&r->scratch, mark);
}

/* The sampled queries, and their outputs over all keys. */
static struct probe probe_open(struct run *r, const struct attn_axes *x, int site, const struct attn_call *call)
{
    const int64_t *d = call->q.dim, Dv = call->source[0].v.dim[3], width = d[2] * d[3];
    const int64_t  blocks = (x->tokens + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    struct probe   p = { .n = x->tokens < GV_AXES_ROWS ? (int)x->tokens : GV_AXES_ROWS, .tokens = x->tokens, .call = *call };
    int32_t        index[GV_AXES_ROWS];

    for (int i = 0; i < p.n; i++)
        index[i] = (int32_t)(p.token[i] = gv_axes_sample(i, p.n, x->tokens, site));
    const struct tensor rows = gv_scratch_from(r, GV_I32, 1, DIMS(p.n), index);
    p.call.q = gv_scratch(r, call->q.type, 4, DIMS(d[0], p.n, d[2], d[3]));
    for (int64_t b = 0; b < d[0]; b++)
        gv_gather(r, reshape(slice(p.call.q, 0, b, 1), 2, DIMS(p.n, width)),
                  reshape(slice(call->q, 0, b, 1), 2, DIMS(x->tokens, width)), rows);
    p.call.out = (struct attn_partial){ .o = gv_scratch(r, GV_F32, 4, DIMS(d[0], p.n, d[2], Dv)) };
    gv_attention(r, &p.call);
    p.exact = host_output(r, p.call.out.o);
    p.readers = gv_scratch_bytes(r, (size_t)x->tokens * sizeof *p.readers);
    p.kinds = gv_scratch_bytes(r, (size_t)x->tokens * sizeof *p.kinds);
    p.entries = gv_scratch_bytes(r, (size_t)blocks * sizeof *p.entries);
    for (int64_t i = 0; !gv_device_is_null(r->device) && gv_run_ready(r) && i < blocks; i++) {
        const int64_t left = x->tokens - i * GV_KV_BLOCK;
        p.entries[i] = kv_entry((uint32_t)(i * GV_KV_BLOCK), (uint32_t)(left < GV_KV_BLOCK ? left : GV_KV_BLOCK), 0, true);
    }
    return p;
}

void gv_axes_choose(struct run *r, struct attn_axes *x, int site, const struct attn_call *call, const struct attn_plan *plan)
{
    const struct mark mark = arena_mark(&r->scratch);
    const int64_t    *d = call->q.dim;
    double            error[GV_AXES][GV_ATTN_HEADS] = { 0 };
    uint8_t          *of = x->of + (int64_t)site * x->heads;

    if (d[2] != x->heads || d[1] != x->tokens) {
        gv_run_fail(r, GV_ERR_INTERNAL, "attention axes: %lld tokens of %lld heads", (long long)d[1], (long long)d[2]);
        return;
    }
    const struct probe p = probe_open(r, x, site, call);
    for (int i = 0; i < x->n; i++)
        probe_order(r, x, i, &p, plan, error[i]);
    for (int a = 0; !gv_device_is_null(r->device) && gv_run_ready(r) && a < x->heads; a++) {
        of[a] = 0;
        for (int i = 1; i < x->n; i++)
            if (error[i][a] < error[of[a]][a])
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
