/* The block scores that take as many products as attention: exact mass and antidiagonal sums, with the inner loops of the blocked
 * kernel (attn_flash.h). Both are the same work: `stride` neighbouring tokens are folded into one row of stride·D (queries in reverse),
 * folded queries lie across 32 lanes, folded keys down the rows; each score's share of its lane's softmax is added up by block.
 *
 *   exact          stride 1; the softmax's sum is known: the given LSE
 *   antidiagonal   the sum is that of the folded rows: a strip's scores are kept, and read a second time
 *
 * A task is the fewest strips of 32 folded queries that make whole query tiles. It alone writes their scores, in an order that no
 * thread changes. What may surprise: lanes of one strip may lie in several tiles (stride 8: two). Plain C: scores_cpu.c. */
#include <math.h>
#include <stdatomic.h>

#include "attention/cpu/attn_flash.h"
#include "core/cpu/parallel.h"

#define LOG2E 1.44269504088896340736f

static const int64_t CHUNK_BYTES = 64 << 20; /* of packed keys, unless one head's are more */

struct blocked {
    const struct score_call *c;
    const struct attn_inner *in;
    struct tensor            lse;
    int                      stride;
    float                    scale;         /* in powers of two, of a folded product */
    int64_t                  words, steps;  /* of a token; of a folded row */
    int64_t                  rows, panels;  /* folded keys; panels of them */
    int64_t                  strips, tasks; /* of a task; of a head */
    int64_t                  head0, heads;  /* (batch, A_kv) pairs of this chunk */
    uint32_t                *packed;        /* [heads][panels][steps][8] */
    float                   *workers;
    int64_t                  worker_floats, kept_rows; /* rows of scores that a worker holds */
    atomic_llong             next;
};

/* A strip being scored. */
struct strip {
    int64_t   b, h, first;                        /* folded query of lane 0 */
    uint32_t *q;                                  /* [steps][32] */
    float    *s, *spare;                          /* [kept_rows][32], [FLASH_GROUP][32] */
    float    *from, *m, *l, *sum;                 /* [32] */
    float    *row[FLASH_LANES];                   /* of score, for each lane */
    float     share[FLASH_LANES];                 /* 1 / folded queries of that tile */
    float     no[FLASH_GROUP], last[FLASH_PANEL]; /* added to the scores: nothing; -inf where the last panel has no key */
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* How many of n folds that begin at token `first`, `stride` apart, have their token. */
static int there(int64_t first, int64_t stride, int64_t n, int64_t tokens)
{
    return first < tokens ? (int)smaller(n, (tokens - first + stride - 1) / stride) : 0;
}

/* Panel i of the chunk's (head, panel) pairs: part j of a folded row is token j of its fold. */
static void pack_keys(void *arg, int64_t i)
{
    const struct blocked *w = arg;
    const struct tensor   k = w->c->k;
    const int64_t         head = w->head0 + i / w->panels, A = k.dim[2], at = i % w->panels * FLASH_PANEL * w->stride;
    uint32_t             *dst = w->packed + i * w->steps * FLASH_PANEL;

    for (int j = 0; j < w->stride; j++, dst += w->words * FLASH_PANEL) {
        const int n = there(at + j, w->stride, FLASH_PANEL, k.dim[1]);
        if (n)
            gv_flash_pack_rows(
                w->in, dst,
                &(struct flash_rows){ attn_at(k, head / A, at + j, head % A), k.type, w->stride * k.stride[1], n, k.dim[3] },
                FLASH_PANEL);
        else
            memset(dst, 0, (size_t)(w->words * FLASH_PANEL) * sizeof *dst);
    }
}

/* Part j of a folded query is the token that stands j from its fold's end. */
static void pack_queries(const struct blocked *w, struct strip *t)
{
    const struct tensor q = w->c->q;

    for (int j = 0; j < w->stride; j++) {
        const int64_t at = t->first * w->stride + w->stride - 1 - j;
        const int     n = there(at, w->stride, FLASH_LANES, q.dim[1]);
        uint32_t     *dst = t->q + j * w->words * FLASH_LANES;
        if (n)
            gv_flash_pack_rows(w->in, dst,
                               &(struct flash_rows){ attn_at(q, t->b, at, t->h), q.type, w->stride * q.stride[1], n, q.dim[3] },
                               FLASH_LANES);
        else
            memset(dst, 0, (size_t)(w->words * FLASH_LANES) * sizeof *dst);
    }
}

/* Scores of folded keys [from, from + n), n up to FLASH_GROUP and whole panels but for the last key's. */
static void score(const struct blocked *w, const struct strip *t, const uint32_t *k, float *s, int64_t from, int64_t n)
{
    const int64_t   whole = smaller(n, w->rows / FLASH_PANEL * FLASH_PANEL - from) / FLASH_PANEL;
    const uint32_t *at = k + from * w->steps;

    if (whole > 0)
        w->in->scores(s, t->q, at, (int)whole, w->steps, w->scale, t->no);
    if (whole * FLASH_PANEL < n)
        w->in->scores(s + whole * FLASH_PANEL * FLASH_LANES, t->q, at + whole * FLASH_PANEL * w->steps, 1, w->steps, w->scale,
                      t->last);
}

/* The strip's own LSE, in powers of two, from all of its scores, which are kept. */
static void sum_up(const struct blocked *w, struct strip *t, const uint32_t *k)
{
    for (int i = 0; i < FLASH_LANES; i++) {
        t->m[i] = -INFINITY;
        t->l[i] = 0;
    }
    for (int64_t at = 0; at < w->rows; at += FLASH_GROUP) {
        const int64_t n = smaller(FLASH_GROUP, w->rows - at), padded = (n + FLASH_PANEL - 1) / FLASH_PANEL * FLASH_PANEL;
        float        *s = t->s + at * FLASH_LANES;
        score(w, t, k, s, at, n);
        w->in->soften((uint32_t *)t->spare, s, (int)padded, t->m, t->l, t->sum); /* its weights are not wanted */
    }
    for (int i = 0; i < FLASH_LANES; i++)
        t->from[i] = t->row[i] ? t->m[i] + log2f(t->l[i]) : INFINITY;
}

static void score_strip(const struct blocked *w, struct strip *t, const uint32_t *k)
{
    const int64_t piece = GV_KV_BLOCK / w->stride; /* folded keys of the smallest block */

    pack_queries(w, t);
    if (present(w->lse))
        for (int i = 0; i < FLASH_LANES; i++)
            t->from[i] = t->row[i] ? *attn_lse_at(w->lse, t->b, t->h, t->first + i) * LOG2E : INFINITY;
    else
        sum_up(w, t, k);
    for (int64_t at = 0; at < w->rows; at += piece) {
        const int64_t n = smaller(piece, w->rows - at), block = at * w->stride / w->c->block;
        float        *s = present(w->lse) ? t->s : t->s + at * FLASH_LANES;
        if (present(w->lse))
            score(w, t, k, s, at, n);
        w->in->mass(t->sum, s, (int)n, t->from);
        for (int i = 0; i < FLASH_LANES; i++)
            if (t->row[i])
                t->row[i][block] += t->sum[i] * t->share[i];
    }
}

/* Which tile each lane's queries lie in. */
static void place(const struct blocked *w, struct strip *t)
{
    const int64_t N = w->c->q.dim[1], tiles = w->c->score.dim[2], blocks = w->c->score.dim[3];
    float        *rows = (float *)w->c->score.data + (t->b * w->c->score.dim[1] + t->h) * tiles * blocks;

    for (int i = 0; i < FLASH_LANES; i++) {
        const int64_t at = (t->first + i) * w->stride, tile = at / GV_TILE_Q;
        t->row[i] = at < N ? rows + tile * blocks : NULL;
        if (at < N)
            t->share[i] = 1 / (float)((smaller(GV_TILE_Q, N - tile * GV_TILE_Q) + w->stride - 1) / w->stride);
    }
}

static void run_task(const struct blocked *w, struct strip *t, int64_t i)
{
    const int64_t A = w->c->k.dim[2], group = w->c->q.dim[2] / A, kv = i / w->tasks / group, head = w->head0 + kv;
    const int64_t tiles = w->c->score.dim[2], blocks = w->c->score.dim[3];
    const int64_t per_task = w->strips * FLASH_LANES * w->stride / GV_TILE_Q, tile = i % w->tasks * per_task;

    t->b = head / A;
    t->h = head % A * group + i / w->tasks % group;
    memset((float *)w->c->score.data + ((t->b * w->c->score.dim[1] + t->h) * tiles + tile) * blocks, 0,
           (size_t)(smaller(per_task, tiles - tile) * blocks) * sizeof(float));
    for (int64_t strip = 0; strip < w->strips; strip++) {
        t->first = (i % w->tasks * w->strips + strip) * FLASH_LANES;
        place(w, t);
        if (t->row[0])
            score_strip(w, t, w->packed + kv * w->panels * w->steps * FLASH_PANEL);
    }
}

static void work(void *arg, int64_t worker)
{
    struct blocked *w = arg;
    float          *at = w->workers + worker * w->worker_floats;
    const int64_t   n = w->heads * (w->c->q.dim[2] / w->c->k.dim[2]) * w->tasks;
    struct strip    t = { .q = (uint32_t *)at };

    t.s = at += w->steps * FLASH_LANES;
    t.spare = at += w->kept_rows * FLASH_LANES;
    t.from = at += FLASH_GROUP * FLASH_LANES;
    t.m = at += FLASH_LANES;
    t.l = at += FLASH_LANES;
    t.sum = at + FLASH_LANES;
    for (int i = 0; i < FLASH_PANEL; i++)
        t.last[i] = i < w->rows % FLASH_PANEL ? 0 : -INFINITY;
    for (int64_t i; (i = (int64_t)atomic_fetch_add(&w->next, 1)) < n;)
        run_task(w, &t, i);
}

void gv_score_flash(struct run *r, const struct score_call *c, int stride, struct tensor lse, const struct attn_inner *inner)
{
    struct blocked w = { .c = c, .in = inner, .lse = lse, .stride = stride };
    const int64_t  heads = c->k.dim[0] * c->k.dim[2], threads = gv_cpu_threads(r->device);

    w.scale = (c->scale != 0 ? c->scale : (float)(1 / sqrt((double)c->q.dim[3]))) * LOG2E / (float)stride;
    w.words = (c->q.dim[3] + inner->per_word - 1) / inner->per_word;
    w.steps = w.words * stride;
    w.rows = (c->k.dim[1] + stride - 1) / stride;
    w.panels = (w.rows + FLASH_PANEL - 1) / FLASH_PANEL;
    w.strips = stride < GV_TILE_Q / FLASH_LANES ? GV_TILE_Q / FLASH_LANES / stride : 1;
    const int64_t tiles = w.strips * FLASH_LANES * stride / GV_TILE_Q;
    w.tasks = (c->score.dim[2] + tiles - 1) / tiles;
    w.kept_rows = present(lse) ? GV_KV_BLOCK : w.panels * FLASH_PANEL;
    w.worker_floats = (w.steps + w.kept_rows + FLASH_GROUP + 4) * FLASH_LANES;

    const int64_t head_bytes = w.panels * w.steps * FLASH_PANEL * (int64_t)sizeof *w.packed, fit = CHUNK_BYTES / head_bytes;
    const int64_t chunk = fit < 1 ? 1 : smaller(fit, heads);
    w.packed = gv_scratch_bytes(r, (size_t)(chunk * head_bytes));
    w.workers = gv_scratch_bytes(r, (size_t)(threads * w.worker_floats) * sizeof *w.workers);
    if (gv_device_is_null(r->device))
        return;
    for (w.head0 = 0; w.head0 < heads && gv_run_ready(r); w.head0 += chunk) {
        w.heads = smaller(chunk, heads - w.head0);
        atomic_store(&w.next, 0);
        gv_parallel_for(r->device, w.heads * w.panels, pack_keys, &w);
        gv_parallel_for(r->device, threads, work, &w);
    }
}
