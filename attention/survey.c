#include "attention/survey.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/select.h"

static const size_t MOST_BYTES = (size_t)4 << 30;

gv_status gv_survey_open(struct attn_survey *s, const struct survey_shape *shape, struct error *e)
{
    const size_t sites = (size_t)shape->steps * (size_t)shape->layers;
    size_t       votes = 0;

    *s = (struct attn_survey){ .shape = *shape };
    if (!gv_mul_size(sites * (size_t)shape->heads, (size_t)shape->tiles * (size_t)shape->blocks, &votes) ||
        votes > MOST_BYTES / sizeof *s->votes)
        return gv_fail(e, GV_ERR_MEMORY,
                       "calibration: %d steps, %d layers and %d heads of %d x %d blocks are too many to count", shape->steps,
                       shape->layers, shape->heads, shape->tiles, shape->blocks);
    s->votes = calloc(votes + 1, sizeof *s->votes);
    s->ballots = calloc(sites, sizeof *s->ballots);
    s->moved = calloc((sites + (size_t)shape->layers) * (size_t)shape->heads * 3, sizeof *s->moved);
    s->held = calloc((size_t)shape->layers * (GV_SURVEY_SHARES + 1), sizeof *s->held);
    s->like = calloc((size_t)shape->layers * 3, sizeof *s->like);
    if (s->votes && s->ballots && s->moved && s->held && s->like)
        return GV_OK;
    gv_survey_close(s);
    return gv_fail(e, GV_ERR_MEMORY, "no memory for a calibration of %zu layers and steps", sites);
}

void gv_survey_close(struct attn_survey *s)
{
    gv_survey_end(s);
    free(s->votes);
    free(s->ballots);
    free(s->moved);
    free(s->held);
    free(s->like);
    *s = (struct attn_survey){ 0 };
}

gv_status gv_survey_begin(struct attn_survey *s, struct device *d, struct error *e)
{
    return gv_cache_open(&s->kept, d, SIZE_MAX, e);
}

void gv_survey_begin_block(struct attn_survey *s)
{
    if (s->kept)
        gv_cache_clear(s->kept);
}

void gv_survey_end(struct attn_survey *s)
{
    gv_cache_close(&s->kept);
}

static bool dry(struct run *r)
{
    return gv_device_is_null(r->device) || !gv_run_ready(r);
}

/* ---- a whole clip: votes ---- */

static int larger_first(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* What the best of a row's blocks hold. The row is sorted. */
static void note_held(struct attn_survey *s, int layer, float *row, int64_t blocks)
{
    static const double share[GV_SURVEY_SHARES] = { 0.1, 0.25, 0.5 };
    double             *held = s->held + layer * (GV_SURVEY_SHARES + 1);

    qsort(row, (size_t)blocks, sizeof *row, larger_first);
    for (int i = 0; i < GV_SURVEY_SHARES; i++)
        for (int64_t k = 0; k < (int64_t)ceil(share[i] * (double)blocks); k++)
            held[i] += (double)row[k];
    held[GV_SURVEY_SHARES]++;
}

static void vote(struct run *r, struct attn_survey *s, int64_t site, struct tensor score)
{
    const struct select_rule rule = { .kind = SELECT_MASS, .amount = s->shape.mass, .crossing = true, .least = 1 };
    const int64_t            blocks = score.dim[3], rows = score.dim[1] * score.dim[2];
    uint8_t                 *keep = gv_scratch_bytes(r, (size_t)blocks);
    int32_t                 *order = gv_scratch_bytes(r, (size_t)blocks * sizeof *order);

    if (dry(r))
        return;
    for (int64_t i = 0; i < score.dim[0] * rows; i++) {
        uint16_t *to = s->votes + (site * rows + i % rows) * blocks;
        memset(keep, 0, (size_t)blocks);
        gv_select(keep, (const float *)score.data + i * blocks, blocks, &rule, order);
        for (int64_t k = 0; k < blocks; k++)
            to[k] = (uint16_t)(to[k] + (keep[k] && to[k] < UINT16_MAX));
        note_held(s, (int)(site % s->shape.layers), (float *)score.data + i * blocks, blocks);
    }
    s->ballots[site] = (uint16_t)(s->ballots[site] + score.dim[0]);
}

static void survey_clip(struct run *r, struct attn_survey *s, int64_t site, const struct attn_call *call)
{
    const struct mark mark = arena_mark(&r->scratch);
    const int64_t    *d = call->q.dim;
    struct attn_call  c = *call;

    if (d[2] != s->shape.heads || (d[1] + GV_TILE_Q - 1) / GV_TILE_Q != s->shape.tiles) {
        gv_run_fail(r, GV_ERR_INTERNAL, "calibration: a call of %lld queries is not of this clip", (long long)d[1]);
        return;
    }
    c.out.lse = gv_scratch(r, GV_F32, 3, DIMS(d[0], d[2], d[1]));
    gv_attention(r, &c);
    const struct score_call scores = { .score = gv_scratch(r, GV_F32, 4, DIMS(d[0], d[2], s->shape.tiles, s->shape.blocks)),
                                       .q = call->q,
                                       .k = call->source[0].k,
                                       .block = GV_KV_BLOCK };
    gv_score_exact(r, &scores, c.out.lse);
    vote(r, s, site, scores.score);
    arena_release(&r->scratch, mark);
}

/* ---- causal blocks: how far a history's partial moves ---- */

static double cosine(const float *a, const float *b, int64_t n)
{
    double ab = 0, aa = 0, bb = 0;

    for (int64_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa == 0 && bb == 0 ? 1 : ab / sqrt(aa * bb);
}

/* Mean over queries of one head, of now beside kept; true beyond a limit. Both f32 on the host. */
static bool head_moved(struct attn_survey *s, double *sum, const struct attn_partial *now, const struct attn_partial *kept,
                       int64_t head)
{
    const int64_t N = now->o.dim[1], A = now->o.dim[2], D = now->o.dim[3];
    double        like = 0, apart = 0;

    for (int64_t n = 0; n < N; n++) {
        like += cosine((const float *)now->o.data + (n * A + head) * D, (const float *)kept->o.data + (n * A + head) * D, D);
        apart +=
            fabs((double)((const float *)now->lse.data)[head * N + n] - (double)((const float *)kept->lse.data)[head * N + n]);
    }
    sum[0] += like / (double)N;
    sum[1] += apart / (double)N;
    sum[2]++;
    return like / (double)N < s->shape.cosine || apart / (double)N > s->shape.lse;
}

/* Mean over heads and queries. Both f32 on the host. */
static double mean_cosine(struct tensor a, struct tensor b)
{
    const int64_t rows = a.dim[0] * a.dim[1] * a.dim[2], D = a.dim[3];
    double        sum = 0;

    for (int64_t i = 0; i < rows; i++)
        sum += cosine((const float *)a.data + i * D, (const float *)b.data + i * D, D);
    return sum / (double)rows;
}

/* The block's own keys alone; then both beside the pass before, and in its place. */
static void note_like(struct run *r, struct attn_survey *s, int layer, int stream, const struct attn_call *call,
                      struct tensor history)
{
    const struct mark      mark = arena_mark(&r->scratch);
    const struct cache_key then[2] = { { layer, stream, KEPT_INDICATOR }, { layer, stream, KEPT_RESIDUAL } };
    const struct tensor    now[2] = { history, gv_scratch(r, GV_F32, 4, history.dim) };
    struct attn_call       c = *call;

    c.n_sources = 1;
    c.out = (struct attn_partial){ .o = now[1] };
    gv_attention(r, &c);
    if (present(gv_cache_get(s->kept, then[0])) && !dry(r)) {
        for (int i = 0; i < 2; i++)
            s->like[3 * layer + i] += mean_cosine(now[i], gv_cache_get(s->kept, then[i]));
        s->like[3 * layer + 2]++;
    }
    for (int i = 0; i < 2; i++)
        gv_cache_put(r, s->kept, then[i], now[i]);
    arena_release(&r->scratch, mark);
}

static void survey_history(struct run *r, struct attn_survey *s, int step, int layer, int stream, const struct attn_call *call)
{
    const struct mark      mark = arena_mark(&r->scratch);
    const int64_t         *d = call->q.dim, shape[4] = { d[0], d[1], d[2], call->out.o.dim[3] };
    const struct cache_key key_o = { layer, stream, KEPT_OUT }, key_lse = { layer, stream, KEPT_LSE };
    struct attn_call       c = *call;
    struct attn_partial now = { .o = gv_scratch(r, GV_F32, 4, shape), .lse = gv_scratch(r, GV_F32, 3, DIMS(d[0], d[2], d[1])) };

    c.n_sources = 1;
    c.source[0] = call->source[1];
    c.out = now;
    gv_attention(r, &c);
    const struct attn_partial kept = { gv_cache_get(s->kept, key_o), gv_cache_get(s->kept, key_lse) };
    if (!present(kept.o)) {
        gv_cache_put(r, s->kept, key_o, now.o);
        gv_cache_put(r, s->kept, key_lse, now.lse);
    } else if (!dry(r)) {
        for (int64_t head = 0; head < d[2]; head++)
            if (head_moved(s, s->moved + (((int64_t)step * s->shape.layers + layer) * s->shape.heads + head) * 3, &now, &kept,
                           head)) {
                gv_copy(r, slice(kept.o, 2, head, 1), slice(now.o, 2, head, 1));
                gv_copy(r, slice(kept.lse, 1, head, 1), slice(now.lse, 1, head, 1));
            }
    }
    if (step < s->shape.steps) /* the writing pass sees the block clean */
        note_like(r, s, layer, stream, call, now.o);
    c = *call;
    c.n_sources = 1;
    c.seed = &now;
    gv_attention(r, &c);
    arena_release(&r->scratch, mark);
}

void gv_survey_attend(struct run *r, struct attn_survey *s, int step, int layer, int stream, const struct attn_call *call)
{
    if (s->shape.tiles)
        survey_clip(r, s, (int64_t)step * s->shape.layers + layer, call);
    else if (call->n_sources > 1)
        survey_history(r, s, step, layer, stream, call);
    else
        gv_attention(r, call);
}

/* ---- what came of it ---- */

void gv_survey_bitmap(const struct attn_survey *s, uint32_t *out)
{
    const int64_t rows = (int64_t)s->shape.heads * s->shape.tiles, words = (s->shape.blocks + 31) / 32;
    const int64_t sites = (int64_t)s->shape.steps * s->shape.layers;

    memset(out, 0, (size_t)(sites * rows * words) * sizeof *out);
    for (int64_t row = 0; row < sites * rows; row++)
        for (int64_t k = 0; k < s->shape.blocks; k++)
            if (2 * s->votes[row * s->shape.blocks + k] >= s->ballots[row / rows] && s->ballots[row / rows])
                out[row * words + k / 32] |= (uint32_t)1 << k % 32;
}

void gv_survey_fresh(const struct attn_survey *s, uint8_t *out)
{
    const int64_t n = (int64_t)(s->shape.steps + 1) * s->shape.layers * s->shape.heads;

    for (int64_t i = 0; i < n; i++) {
        const double *sum = s->moved + 3 * i;
        out[i] = sum[2] > 0 && (sum[0] / sum[2] < s->shape.cosine || sum[1] / sum[2] > s->shape.lse);
    }
}

void gv_survey_held(const struct attn_survey *s, int layer, double share[GV_SURVEY_SHARES])
{
    const double *held = s->held + layer * (GV_SURVEY_SHARES + 1), n = held[GV_SURVEY_SHARES];

    for (int i = 0; i < GV_SURVEY_SHARES; i++)
        share[i] = n > 0 ? held[i] / n : 0;
}

void gv_survey_like(const struct attn_survey *s, int layer, double *history, double *own)
{
    const double *like = s->like + 3 * layer;

    *history = like[2] > 0 ? like[0] / like[2] : 0;
    *own = like[2] > 0 ? like[1] / like[2] : 0;
}
