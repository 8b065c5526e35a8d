/* Scores without a new kernel: attention of the keys, as queries, to the one query, as a key, has that score as its LSE.
 *
 * What would surprise you: the share is chosen for all heads of a layer together, the mean over heads deciding; the paper has it by
 * group of heads. Chosen keys stay in the order of the text. */
#include "vision/recycle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"

gv_status gv_recycle_open(struct recycle *c, int64_t keep, int64_t every, int layers, struct error *e)
{
    *c = (struct recycle){ .keep = keep, .every = every > 0 ? every : 1 };
    if (keep && !(c->chosen = malloc((size_t)(keep * layers) * sizeof *c->chosen)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for %lld keys of %d layers", (long long)keep, layers);
    return GV_OK;
}

void gv_recycle_close(struct recycle *c)
{
    free(c->chosen);
    *c = (struct recycle){ 0 };
}

/* score [A, N] → share [N]: mean over heads of the softmax. */
static void shares(double *share, const float *score, int64_t heads, int64_t n)
{
    memset(share, 0, (size_t)n * sizeof *share);
    for (int64_t a = 0; a < heads; a++, score += n) {
        double most = -INFINITY, sum = 0;
        for (int64_t i = 0; i < n; i++)
            most = fmax(most, (double)score[i]);
        for (int64_t i = 0; i < n; i++)
            sum += exp((double)score[i] - most);
        for (int64_t i = 0; i < n; i++)
            share[i] += exp((double)score[i] - most) / (sum * (double)heads);
    }
}

struct ranked {
    double  share;
    int32_t at;
};

static int by_share(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->share != y->share)
        return x->share > y->share ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int by_place(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

/* What the last choice and the tokens since hold of these shares. */
static void measure(struct recycle *c, const int32_t *chosen, const double *share, int64_t n, int64_t since)
{
    const int64_t old = n - since, before = old < c->keep ? old : c->keep;
    if (!c->seen)
        return;
    c->checks++;
    for (int64_t i = 0; i < before; i++)
        c->mass += share[chosen[i]];
    for (int64_t i = old; i < n; i++)
        c->mass += share[i];
}

static bool choose(struct recycle *c, int32_t *chosen, const float *score, const struct recycle_read *a)
{
    const int64_t  heads = a->q.dim[2], n = a->k.dim[1];
    double        *share = malloc((size_t)n * sizeof *share);
    struct ranked *order = malloc((size_t)n * sizeof *order);
    const int64_t  kept = n < c->keep ? n : c->keep;
    if (share && order) {
        shares(share, score, heads, n);
        measure(c, chosen, share, n, a->since);
        for (int64_t i = 0; i < n; i++)
            order[i] = (struct ranked){ share[i], (int32_t)i };
        qsort(order, (size_t)n, sizeof *order, by_share);
        for (int64_t i = 0; i < kept; i++)
            chosen[i] = order[i].at;
        qsort(chosen, (size_t)kept, sizeof *chosen, by_place);
    }
    const bool ok = share && order;
    free(share);
    free(order);
    return ok;
}

/* The chosen rows of a layer's keys or values into a slot of their own. */
static void copy_chosen(struct run *r, const struct recycle_read *a, enum kept kind, struct tensor from, struct tensor index,
                        int64_t keep)
{
    const int64_t          n = index.dim[0], width = from.dim[2] * from.dim[3];
    const struct cache_key key = { a->layer, 1, kind };
    struct tensor          slot = gv_cache_slot(r, a->cache, key, from.type, 4, DIMS(1, keep, from.dim[2], from.dim[3]));
    if (!gv_run_ready(r))
        return;
    gv_gather(r, slice(reshape(slot, 2, DIMS(keep, width)), 0, 0, n), reshape(from, 2, DIMS(from.dim[1], width)), index);
    gv_cache_set_length(a->cache, key, 1, n);
}

void gv_recycle_choose(struct run *r, struct recycle *c, const struct recycle_read *a)
{
    const int64_t n = a->k.dim[1], heads = a->q.dim[2], group = heads / a->k.dim[2], kept = n < c->keep ? n : c->keep;
    int32_t      *chosen = c->chosen + a->layer * c->keep;
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor score = gv_scratch(r, GV_F32, 2, DIMS(heads, n)),
                  o = gv_scratch(r, r->compute, 4, DIMS(1, n, 1, a->k.dim[3]));
    for (int64_t h = 0; h < heads && gv_run_ready(r); h++)
        gv_attention(r, &(struct attn_call){ .q = slice(a->k, 2, h / group, 1),
                                             .n_sources = 1,
                                             .source[0] = { .k = slice(a->q, 2, h, 1), .v = slice(a->q, 2, h, 1) },
                                             .out = { .o = o, .lse = reshape(row(score, h), 3, DIMS(1, 1, n)) } });
    float *host = malloc((size_t)(heads * n) * sizeof *host);
    if (!host)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the scores of %lld keys", (long long)n);
    else
        gv_download(r, host, score);
    if (gv_run_ready(r) && !choose(c, chosen, host, a))
        gv_run_fail(r, GV_ERR_MEMORY, "no memory to choose among %lld keys", (long long)n);
    free(host);
    if (gv_run_ready(r)) {
        struct tensor index = gv_scratch_from(r, GV_I32, 1, DIMS(kept), chosen);
        copy_chosen(r, a, KEPT_K, a->k, index, c->keep);
        copy_chosen(r, a, KEPT_V, a->v, index, c->keep);
        gv_sync(r);
    }
    arena_release(&r->scratch, mark);
}
