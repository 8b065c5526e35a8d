/* The door to every attention kernel: all shapes are checked here once, so that kernels only compute. The checks name the
 * argument and what was found; they run on the null device too, where the kernel's scratch is counted and nothing is done.
 *
 * What may surprise: FLOPs are counted from the plan's density, not from its lists, which may lie on another device. */
#include "attention/attention.h"

#include <math.h>

#include "attention/attn_ops.h"
#include "attention/cpu/attn_cpu.h"

enum { TEXT = 64 };

/* A device in a module brings its own; the processor's are here. */
static const struct attn_ops *kernels_of(const struct device *d)
{
    static const struct attn_ops cpu = { .attention = gv_attn_cpu, .merge = gv_attn_merge_cpu };

    return d->attention ? d->attention : &cpu;
}

static void misfit(struct run *r, const char *what, struct tensor t)
{
    char text[TEXT];

    gv_run_fail(r, GV_ERR_INTERNAL, "attention: %s does not fit: %s %s", what,
                present(t) ? gv_dtype_info(t.type)->name : "absent", gv_tensor_shape_text(t, text, sizeof text));
}

#define NEED(cond, what, t)                                                                                                    \
    do {                                                                                                                       \
        if (!(cond)) {                                                                                                         \
            misfit(r, what, t);                                                                                                \
            return false;                                                                                                      \
        }                                                                                                                      \
    } while (0)

static bool is_act(const struct run *r, struct tensor t)
{
    return t.type == GV_F32 || t.type == r->compute;
}

static bool has_tight_rows(struct tensor t)
{
    return t.dim[t.rank - 1] == 1 || t.stride[t.rank - 1] == 1;
}

/* [B, N, A, D] with the last dimension contiguous. */
static bool is_tokens(const struct run *r, struct tensor t, int64_t B, int64_t N, int64_t A, int64_t D)
{
    return t.rank == 4 && !t.packed && is_act(r, t) && t.dim[0] == B && t.dim[1] == N && t.dim[2] == A && t.dim[3] == D &&
           has_tight_rows(t);
}

static bool check_partial(struct run *r, const struct attn_partial *p, const struct attn_call *c, bool need_lse,
                          const char *what)
{
    const int64_t *q = c->q.dim;

    NEED(is_tokens(r, p->o, q[0], q[1], q[2], c->source[0].v.dim[3]), what, p->o);
    NEED(!need_lse || present(p->lse), what, p->lse);
    NEED(!present(p->lse) || (p->lse.type == GV_F32 && p->lse.rank == 3 && p->lse.dim[0] == q[0] && p->lse.dim[1] == q[2] &&
                              p->lse.dim[2] == q[1] && has_tight_rows(p->lse)),
         what, p->lse);
    return true;
}

static bool check_source(struct run *r, const struct attn_call *c, const struct attn_source *s)
{
    const int64_t *q = c->q.dim, *first = c->source[0].k.dim;
    const int64_t  B = s->k.dim[0];

    NEED(s->k.rank == 4 && (B == 1 || B == q[0]) && is_tokens(r, s->k, B, s->k.dim[1], first[2], q[3]), "k", s->k);
    NEED(s->v.rank == 4 && is_tokens(r, s->v, B, s->k.dim[1], first[2], c->source[0].v.dim[3]), "v", s->v);
    NEED(!present(s->key_bias) || (s->key_bias.type == GV_F32 && gv_tensor_contiguous(s->key_bias) && s->key_bias.rank == 1 &&
                                   s->key_bias.dim[0] == s->k.dim[1]),
         "key_bias", s->key_bias);
    if (c->plan && c->plan->entries && s->k.dim[1] > 1 << 22) {
        gv_run_fail(r, GV_ERR_UNSUPPORTED, "attention: %lld keys in one source; list entries reach 2^22",
                    (long long)s->k.dim[1]);
        return false;
    }
    return true;
}

/* Rows of the lists: those of q, or those that q_order names. */
static int64_t list_rows(const struct attn_call *c)
{
    return present(c->q_order) ? c->q_order.dim[0] : c->q.dim[1];
}

static bool check_plan(struct run *r, const struct attn_call *c)
{
    const struct attn_plan *p = c->plan;

    if (!p) {
        NEED(!c->first, "first without a plan that splits", c->first->o);
        NEED(!c->skip, "skip without a plan; q", c->q);
        return true;
    }
    NEED(p->tile_q == GV_TILE_Q && p->tiles == (list_rows(c) + p->tile_q - 1) / p->tile_q, "plan's tiles; q", c->q);
    NEED(p->batch == 1 || p->batch == c->q.dim[0], "plan's batch; q", c->q);
    NEED(p->list_heads > 0 && c->q.dim[2] % p->list_heads == 0, "plan's heads; q", c->q);
    NEED(!p->entries || p->row, "plan without rows; q", c->q);
    NEED(!c->first || gv_device_is_null(r->device) || (p->entries && p->split), "first without a plan that splits",
         c->first->o);
    NEED(!present(c->bias) || !p->entries, "bias beside lists", c->bias);
    return true;
}

/* Debug builds read the lists as well. Rules about pairs hold only where list rows are q's rows. */
static bool check_lists(struct run *r, const struct attn_call *c)
{
#ifndef NDEBUG
    if (c->plan && c->plan->entries && !present(c->q_order) && !gv_device_is_null(r->device) &&
        r->device->kind == GV_DEVICE_CPU) {
        int64_t n[GV_ATTN_SOURCES];

        for (int i = 0; i < c->n_sources; i++)
            n[i] = c->source[i].always ? 0 : c->source[i].k.dim[1];
        struct error e = { 0 };
        if (gv_plan_check(c->plan, c->q.dim[1], c->n_sources, n, &e) != GV_OK) {
            gv_run_fail(r, GV_ERR_INTERNAL, "attention: %s", e.text);
            return false;
        }
    }
#else
    (void)r, (void)c;
#endif
    return true;
}

/* Under an order for each head a list's row i and key j are tokens of that order, and so nothing may be indexed by both. */
static bool check_head_order(struct run *r, const struct attn_call *c)
{
    const struct attn_source *own = &c->source[0];

    if (!c->head_order)
        return true;
    NEED(own->k.dim[1] == c->q.dim[1] && own->k.dim[2] == c->q.dim[2], "head_order; k", own->k);
    NEED(!present(c->q_order) && !present(c->bias) && !present(own->key_bias) &&
             (!c->plan || c->plan->mask.kind != MASK_SEGMENTS),
         "head_order beside q_order, a bias or segments; q", c->q);
    if (r->device->kind == GV_DEVICE_CPU && c->q.dim[3] <= GV_ORDERED_MAX_HEAD && own->v.dim[3] <= GV_ORDERED_MAX_HEAD)
        return true;
    gv_run_fail(r, GV_ERR_UNSUPPORTED, "attention: orders by head, as axes=n asks for, have no kernel for heads of %lld on %s",
                (long long)c->q.dim[3], r->device->name);
    return false;
}

static bool check(struct run *r, const struct attn_call *c)
{
    NEED(c->n_sources >= 1 && c->n_sources <= GV_ATTN_SOURCES, "number of sources; q", c->q);
    NEED(c->q.rank == 4 && c->q.dim[3] > 0 && c->q.dim[2] > 0 &&
             is_tokens(r, c->q, c->q.dim[0], c->q.dim[1], c->q.dim[2], c->q.dim[3]),
         "q", c->q);
    NEED(c->source[0].k.rank == 4 && c->source[0].k.dim[2] > 0 && c->q.dim[2] % c->source[0].k.dim[2] == 0, "k",
         c->source[0].k);
    NEED(c->source[0].v.rank == 4 && c->source[0].v.dim[3] > 0, "v", c->source[0].v);
    for (int i = 0; i < c->n_sources; i++)
        if (!check_source(r, c, &c->source[i]))
            return false;
    NEED(!present(c->bias) ||
             (c->bias.type == GV_F32 && c->bias.rank == 3 && c->bias.dim[0] == c->q.dim[2] && c->bias.dim[1] == c->q.dim[1] &&
              c->bias.dim[2] == c->source[0].k.dim[1] && has_tight_rows(c->bias)),
         "bias", c->bias);
    NEED(!present(c->q_order) || (c->q_order.type == GV_I32 && c->q_order.rank == 1 && gv_tensor_contiguous(c->q_order) &&
                                  c->q_order.dim[0] <= c->q.dim[1]),
         "q_order", c->q_order);
    return check_partial(r, &c->out, c, false, "out") && (!c->seed || check_partial(r, c->seed, c, true, "seed")) &&
           (!c->first || check_partial(r, c->first, c, true, "first")) && check_plan(r, c) && check_head_order(r, c) &&
           check_lists(r, c);
}

static double count_flops(const struct attn_call *c)
{
    double keys = 0;

    for (int i = 0; i < c->n_sources; i++)
        keys += (double)c->source[i].k.dim[1] * (c->plan && !c->source[i].always ? c->plan->density : 1);
    return 2.0 * (double)c->q.dim[0] * (double)c->q.dim[2] * (double)list_rows(c) * keys *
           (double)(c->q.dim[3] + c->source[0].v.dim[3]);
}

/* ---- lists on a device ---- */

/* A copy in scratch; on the null device the host's own, so that checks still see that there is one. */
static const void *placed(struct run *r, enum dtype type, const void *host, int64_t n)
{
    const struct tensor t = host ? gv_scratch_from(r, type, 1, &n, host) : (struct tensor){ 0 };

    return t.data ? t.data : host;
}

struct attn_plan gv_plan_on(struct run *r, const struct attn_plan *p, int64_t n_queries, int64_t n_keys)
{
    const int64_t    rows = (int64_t)p->batch * p->list_heads * p->tiles;
    struct attn_plan to = *p;

    if (r->device->kind == GV_DEVICE_CPU || p->device)
        return to;
    to.device = r->device;
    if (!p->entries)
        return to;
    to.row = placed(r, GV_I32, p->row, rows + 1);
    to.entries = placed(r, GV_I32, p->entries, p->row[rows]);
    to.split = placed(r, GV_I32, p->split, rows);
    to.order = placed(r, GV_I32, p->order, rows);
    to.mask.qseg = placed(r, GV_U8, p->mask.qseg, n_queries);
    to.mask.kseg = placed(r, GV_U8, p->mask.kseg, n_keys);
    to.mask.allow = placed(r, GV_I32, p->mask.allow, 128);
    return to;
}

static void run_kernels(struct run *r, const struct attn_call *c)
{
    struct attn_call call = *c;
    struct attn_plan plan;

    if (c->plan && r->device->kind != GV_DEVICE_CPU) {
        plan = gv_plan_on(r, c->plan, c->q.dim[1], c->source[0].k.dim[1]);
        call.plan = &plan;
        call.skip = placed(r, GV_I32, c->skip, ((int64_t)plan.batch * plan.list_heads * plan.tiles + 31) / 32);
    }
    kernels_of(r->device)->attention(r, &call);
}

void gv_attention(struct run *r, const struct attn_call *c)
{
    if (!gv_run_ready(r) || !check(r, c))
        return;
    r->flops += count_flops(c);
    struct mark m = arena_mark(&r->scratch);
    if (list_rows(c) && c->q.dim[0])
        run_kernels(r, c);
    arena_release(&r->scratch, m);
}

void gv_attention_dense(struct run *r, struct tensor o, struct tensor q, struct tensor k, struct tensor v)
{
    gv_attention(r, &(struct attn_call){ .q = q, .n_sources = 1, .source[0] = { .k = k, .v = v }, .out.o = o });
}

static bool check_merge(struct run *r, const struct attn_partial *dst, const struct attn_partial *parts, int n)
{
    NEED(n >= 1 && n <= GV_ATTN_PARTS, "number of parts; dst", dst->o);
    for (int i = -1; i < n; i++) {
        const struct attn_partial *p = i < 0 ? dst : &parts[i];
        const int64_t             *d = dst->o.dim;

        NEED(p->o.rank == 4 && is_tokens(r, p->o, d[0], d[1], d[2], d[3]), "merge: o", p->o);
        NEED(p->lse.rank == 3 && p->lse.type == GV_F32 && p->lse.dim[0] == d[0] && p->lse.dim[1] == d[2] &&
                 p->lse.dim[2] == d[1] && has_tight_rows(p->lse),
             "merge: lse", p->lse);
    }
    return true;
}

void gv_attn_merge(struct run *r, const struct attn_partial *dst, const struct attn_partial *parts, int n)
{
    if (!gv_run_ready(r) || !check_merge(r, dst, parts, n))
        return;
    if (!gv_device_is_null(r->device))
        kernels_of(r->device)->merge(r, dst, parts, n);
}
