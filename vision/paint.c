/* Scores without a new kernel, as in trace.c: attention of the keys, as queries, to the one query, as a key, has that score as its
 * LSE. The raised row is attention again, a bias on its keys, head by head.
 *
 * What would surprise you: the paper looks at what CLIP's class token reads, in the first layer (the quarter that it reads most, "local")
 * and in the last but one (outliers, "summary"). Towers here have no such token: both sets are of what a late layer's patches
 * receive (importance.c with every patch a sink), which is our own. As in the paper what is in both counts as summary, outliers
 * lie above the third quartile by 1.5 of the distance between first and third, and all heads have one share. Of equal scores at
 * the quarter's edge all are local. */
#include "vision/paint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"

gv_status gv_paint_open(struct paint *p, const bool *picture, int64_t prompt, struct error *e)
{
    *p = (struct paint){ 0 };
    for (int64_t i = 0; i < prompt; i++)
        p->n += picture[i];
    p->at = malloc((size_t)(p->n + 1) * sizeof *p->at);
    p->raise = calloc((size_t)(p->n + 1), sizeof *p->raise);
    if (!p->at || !p->raise) {
        gv_paint_close(p);
        return gv_fail(e, GV_ERR_MEMORY, "no memory to raise %lld tokens", (long long)prompt);
    }
    for (int64_t i = 0, k = 0; i < prompt; i++)
        if (picture[i])
            p->at[k++] = (int32_t)i;
    return GV_OK;
}

void gv_paint_close(struct paint *p)
{
    free(p->at);
    free(p->raise);
    *p = (struct paint){ 0 };
}

static int upwards(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Between its neighbours in order [n]. */
static double quantile(const float *order, int64_t n, double q)
{
    const double  at = q * (double)(n - 1);
    const int64_t i = (int64_t)at, next = i + 1 < n ? i + 1 : i;
    return (double)order[i] + (at - (double)i) * (double)(order[next] - order[i]);
}

gv_status gv_paint_raise(float *raise, const struct paint_opts *o, const float *score, int64_t n, struct error *e)
{
    float  *order = malloc((size_t)(n + 1) * sizeof *order);
    int64_t patches = 0;
    if (!order)
        return gv_fail(e, GV_ERR_MEMORY, "no memory to raise %lld tokens", (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (score[i] < 1)
            order[patches++] = score[i];
    qsort(order, (size_t)patches, sizeof *order, upwards);
    const int64_t local = (int64_t)((double)patches * o->share);
    const double  low = patches ? quantile(order, patches, 0.25) : 0, high = patches ? quantile(order, patches, 0.75) : 0,
                 outlier = high + 1.5 * (high - low);
    const float least = local ? order[patches - local] : INFINITY;
    for (int64_t i = 0; i < n; i++)
        raise[i] = score[i] >= 1 ? 0 : (double)score[i] > outlier ? (float)o->summary : score[i] >= least ? (float)o->local : 0;
    free(order);
    return GV_OK;
}

int gv_paint_first_layer(int layers)
{
    return (int)nearbyint(2.0 / 32 * layers);
}

/* score [A, N] of all keys becomes what is added to them. */
static void raise_scores(const struct paint *p, float *score, int64_t heads, int64_t n)
{
    for (int64_t h = 0; h < heads; h++, score += n)
        for (int64_t i = 0, k = 0; i < n; i++) {
            const bool picture = k < p->n && p->at[k] == i;
            score[i] = picture ? p->raise[k] * fabsf(score[i]) : 0;
            k += picture;
        }
}

void gv_paint_row(struct run *r, const struct paint *p, const struct paint_row *a)
{
    const int64_t n = a->k.dim[1], heads = a->q.dim[2], group = heads / a->k.dim[2];
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
    if (gv_run_ready(r)) {
        gv_download(r, host, score);
        raise_scores(p, host, heads, n);
        gv_upload(r, score, host);
        gv_sync(r);
    }
    free(host);
    for (int64_t h = 0; h < heads && gv_run_ready(r); h++)
        gv_attention(r, &(struct attn_call){ .q = slice(a->q, 2, h, 1),
                                             .n_sources = 1,
                                             .source[0] = { .k = slice(a->k, 2, h / group, 1),
                                                            .v = slice(a->v, 2, h / group, 1),
                                                            .key_bias = row(score, h) },
                                             .out = { .o = slice(a->o, 2, h, 1) } });
    arena_release(&r->scratch, mark);
}
