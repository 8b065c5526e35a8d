/* Scores without a new kernel, as in recycle.c: attention of the keys, as queries, to the one query, as a key, has that score as its
 * LSE.
 *
 * What would surprise you: the authors run the model again on every subset; here the softmax is taken again over the subset's
 * and all of the text's scores, at no run at all, so that hidden states still know of the pictures that were left out. A look's "tokens"
 * are the heads of all layers: the mean over all of them, as for passages of many tokens, drowns the few that point. */
#include "vision/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"
#include "core/rng.h"

/* ---- open ---- */

struct drawn {
    uint32_t number;
    int32_t  token;
};

static int by_number(const void *a, const void *b)
{
    const struct drawn *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* The tokens with the least numbers; what no subset drew is in the first. */
static void draw(struct trace *t, struct drawn *order)
{
    const int64_t least = (int64_t)ceil(t->opts.share * (double)t->n);
    for (int s = 0; s < t->opts.subsets; s++) {
        for (int64_t i = 0; i < t->n; i++) {
            uint32_t word[4];
            gv_philox(word, (const uint32_t[4]){ (uint32_t)i, (uint32_t)s, 0, 0 }, (const uint32_t[2]){ 1, 0 });
            order[i] = (struct drawn){ word[0], (int32_t)i };
        }
        qsort(order, (size_t)t->n, sizeof *order, by_number);
        for (int64_t i = 0; i < least; i++)
            t->in[s * t->n + order[i].token] = 1;
    }
    for (int64_t i = 0; i < t->n; i++) {
        bool any = false;
        for (int s = 0; s < t->opts.subsets; s++)
            any = any || t->in[s * t->n + i];
        t->in[i] = t->in[i] || !any;
    }
}

gv_status gv_trace_open(struct trace *t, const struct trace_opts *o, const bool *picture, int64_t prompt, int64_t capacity,
                        struct error *e)
{
    *t = (struct trace){ .opts = *o, .capacity = capacity };
    for (int64_t i = 0; i < prompt; i++)
        t->n += picture[i];
    const size_t  n = (size_t)t->n + 1, all = n * (size_t)o->subsets; /* + 1: malloc(0) is no failure */
    struct drawn *order = malloc(n * sizeof *order);
    t->at = malloc(n * sizeof *t->at);
    t->in = calloc(all, 1);
    t->heat = calloc(n * (size_t)capacity, sizeof *t->heat);
    t->mass = calloc((size_t)capacity, sizeof *t->mass);
    t->best = calloc(all * (size_t)o->best, sizeof *t->best);
    const bool ok = order && t->at && t->in && t->heat && t->mass && t->best;
    if (ok) {
        int64_t k = 0;
        for (int64_t i = 0; i < prompt; i++)
            if (picture[i])
                t->at[k++] = (int32_t)i;
        draw(t, order);
    } else {
        gv_trace_close(t);
    }
    free(order);
    return ok ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "no memory to trace %zu picture tokens", n - 1);
}

void gv_trace_close(struct trace *t)
{
    free(t->at);
    free(t->in);
    free(t->heat);
    free(t->mass);
    free(t->best);
    *t = (struct trace){ 0 };
}

/* ---- looks ---- */

/* best [k] descending, with x among them. */
static void keep_best(float *best, int k, float x)
{
    int i = k;
    for (; i > 0 && best[i - 1] < x; i--)
        if (i < k)
            best[i] = best[i - 1];
    if (i < k)
        best[i] = x;
}

/* One head: score [n] of all keys, which become their exponentials. */
static void look(struct trace *t, float *score, int64_t n)
{
    float  most = -INFINITY;
    double all = 0, pictures = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, score[i]);
    for (int64_t i = 0; i < n; i++)
        all += (double)(score[i] = expf(score[i] - most));
    for (int64_t i = 0; i < t->n; i++)
        pictures += (double)score[t->at[i]];
    t->mass[t->rows] += pictures / all;
    for (int s = 0; s < t->opts.subsets; s++) {
        const uint8_t *in = t->in + s * t->n;
        float         *best = t->best + s * t->n * t->opts.best;
        double         sum = all - pictures;
        for (int64_t i = 0; i < t->n; i++)
            sum += in[i] ? (double)score[t->at[i]] : 0;
        for (int64_t i = 0; i < t->n; i++)
            if (in[i] && sum > 0)
                keep_best(best + i * t->opts.best, t->opts.best, (float)((double)score[t->at[i]] / sum));
    }
    t->looks++;
}

void gv_trace_look(struct run *r, struct trace *t, struct tensor q, struct tensor k)
{
    const int64_t n = k.dim[1], heads = q.dim[2], group = heads / k.dim[2];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor score = gv_scratch(r, GV_F32, 2, DIMS(heads, n)), o = gv_scratch(r, r->compute, 4, DIMS(1, n, 1, k.dim[3]));
    for (int64_t h = 0; h < heads && gv_run_ready(r); h++)
        gv_attention(r, &(struct attn_call){ .q = slice(k, 2, h / group, 1),
                                             .n_sources = 1,
                                             .source[0] = { .k = slice(q, 2, h, 1), .v = slice(q, 2, h, 1) },
                                             .out = { .o = o, .lse = reshape(row(score, h), 3, DIMS(1, 1, n)) } });
    if (gv_run_ready(r) && !gv_device_is_null(r->device) && t->rows < t->capacity) {
        float *host = malloc((size_t)(heads * n) * sizeof *host);
        if (host)
            gv_download(r, host, score);
        else
            gv_run_fail(r, GV_ERR_MEMORY, "no memory for the scores of %lld keys", (long long)n);
        for (int64_t h = 0; h < heads && gv_run_ready(r); h++)
            look(t, host + h * n, n);
        free(host);
    }
    arena_release(&r->scratch, mark);
}

void gv_trace_next(struct trace *t)
{
    const int k = t->looks < t->opts.best ? (int)t->looks : t->opts.best;
    if (t->rows == t->capacity || !t->looks)
        return;
    float *heat = t->heat + t->rows * t->n;
    for (int64_t i = 0; i < t->n; i++) {
        double sum = 0;
        int    in = 0;
        for (int s = 0; s < t->opts.subsets; s++) {
            const float *best = t->best + (s * t->n + i) * t->opts.best;
            for (int b = 0; b < k && t->in[s * t->n + i]; b++)
                sum += (double)best[b];
            in += t->in[s * t->n + i];
        }
        heat[i] = (float)(sum / in / k);
    }
    t->mass[t->rows++] /= (double)t->looks;
    t->looks = 0;
    memset(t->best, 0, (size_t)(t->n * t->opts.subsets * t->opts.best) * sizeof *t->best);
}
