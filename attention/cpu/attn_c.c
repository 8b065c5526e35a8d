/* The plain C kernel: one query row at a time, one segment of keys at a time, with a running maximum and sum (Milakov and
 * Gimelshein 2018, "Online normalizer calculation for softmax"). It holds every rule of the contract in the order of the
 * contract's text and is what the fast kernels are compared with; it is fast at nothing.
 *
 * Scores, exponentials and sums are f32. The state of a row is (maximum m, sum l, unnormalised output acc); a seed enters as
 * m = its LSE, l = 1, acc = its output, which is exact because exp(LSE - m) = 1. */
#include <math.h>
#include <stdatomic.h>

#include "attention/cpu/attn_cpu.h"
#include "core/cpu/parallel.h"

void gv_attn_read(float *dst, const void *src, enum dtype type, int64_t n)
{
    if (type == GV_F32)
        memcpy(dst, src, (size_t)n * sizeof *dst);
    else
        for (int64_t i = 0; i < n; i++)
            dst[i] = bf16_to_f32(((const uint16_t *)src)[i]);
}

void gv_attn_write(void *dst, enum dtype type, const float *src, int64_t n)
{
    if (type == GV_F32)
        memcpy(dst, src, (size_t)n * sizeof *src);
    else
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)dst)[i] = f32_to_bf16(src[i]);
}

/* One query row of one head. */
struct row_state {
    const struct attn_call *c;
    int64_t                 b, h, q, place; /* q: row of c->q; place: the mask's number for it */
    float                   scale;
    float                   m, l;
    float                  *query, *key, *acc; /* [D], [max(D, Dv)], [Dv]: the worker's memory */
};

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static float score(struct row_state *s, const struct attn_segment *g, int64_t k)
{
    const struct attn_call   *c = s->c;
    const struct attn_source *src = &c->source[g->source];
    const int64_t             D = c->q.dim[3], kv_head = s->h / (c->q.dim[2] / src->k.dim[2]);

    if (g->masked && !gv_mask_allows(&c->plan->mask, s->place, g->source, k))
        return -INFINITY;
    gv_attn_read(s->key, attn_at(src->k, s->b, attn_key_row(c, s->h, g->source, k), kv_head), src->k.type, D);
    float x = dot(s->query, s->key, D) * s->scale + src->log_weight;
    if (present(src->key_bias))
        x += ((const float *)src->key_bias.data)[k];
    if (present(c->bias) && g->source == 0)
        x += ((const float *)c->bias.data)[s->h * c->bias.stride[0] + s->q * c->bias.stride[1] + k];
    return x;
}

static void read_segment(struct row_state *s, const struct attn_segment *g)
{
    const struct attn_source *src = &s->c->source[g->source];
    const int64_t             Dv = src->v.dim[3], kv_head = s->h / (s->c->q.dim[2] / src->v.dim[2]);
    float                     x[GV_KV_BLOCK], m = s->m;

    for (int i = 0; i < g->length; i++) {
        x[i] = score(s, g, g->start + i);
        m = x[i] > m || isnan(x[i]) ? x[i] : m;
    }
    if (m == -INFINITY)
        return; /* nothing read yet, and nothing here */
    const float keep = expf(s->m - m);
    s->m = m;
    s->l *= keep;
    for (int64_t d = 0; d < Dv; d++)
        s->acc[d] *= keep;
    for (int i = 0; i < g->length; i++) {
        if (x[i] == -INFINITY)
            continue;
        const float p = expf(x[i] - m);
        s->l += p;
        gv_attn_read(s->key, attn_at(src->v, s->b, attn_key_row(s->c, s->h, g->source, g->start + i), kv_head), src->v.type,
                     Dv);
        for (int64_t d = 0; d < Dv; d++)
            s->acc[d] += p * s->key[d];
    }
}

/* Normalised output and LSE of what was read so far; s->key is used for it. */
static void store(struct row_state *s, const struct attn_partial *to)
{
    const int64_t Dv = to->o.dim[3];
    const float   inv = s->m == -INFINITY ? 0 : 1 / s->l;

    for (int64_t d = 0; d < Dv; d++)
        s->key[d] = s->acc[d] * inv;
    gv_attn_write(attn_at(to->o, s->b, s->q, s->h), to->o.type, s->key, Dv);
    if (present(to->lse))
        *attn_lse_at(to->lse, s->b, s->h, s->q) = s->m == -INFINITY ? -INFINITY : s->m + logf(s->l);
}

static void begin(struct row_state *s)
{
    const struct attn_call *c = s->c;
    const int64_t           Dv = c->out.o.dim[3];

    gv_attn_read(s->query, attn_at(c->q, s->b, s->q, s->h), c->q.type, c->q.dim[3]);
    s->m = c->seed ? *attn_lse_at(c->seed->lse, s->b, s->h, s->q) : -INFINITY;
    s->l = s->m == -INFINITY ? 0 : 1;
    if (s->l == 0)
        memset(s->acc, 0, (size_t)Dv * sizeof *s->acc);
    else
        gv_attn_read(s->acc, attn_at(c->seed->o, s->b, s->q, s->h), c->seed->o.type, Dv);
}

static void run_row(struct row_state *s, int64_t tile)
{
    const struct attn_call *c = s->c;
    struct attn_walk        w;
    struct attn_segment     g;
    bool                    stored = !c->first;

    begin(s);
    gv_attn_walk(&w, c, s->b, s->h, tile);
    while (gv_attn_walk_next(&w, &g)) {
        if (g.part && !stored) {
            store(s, c->first);
            stored = true;
        }
        read_segment(s, &g);
    }
    if (!stored)
        store(s, c->first);
    store(s, &c->out);
}

/* Workers take tiles from a shared counter; each has its own slot of scratch. */
struct job {
    const struct attn_call *c;
    float                  *scratch;
    int64_t                 slot, tasks; /* floats in a slot */
    atomic_llong            next;
};

static void work(void *arg, int64_t worker)
{
    struct job             *j = arg;
    const struct attn_call *c = j->c;
    const int64_t           tiles = attn_tiles(c), rows = attn_rows(c), D = c->q.dim[3], Dv = c->out.o.dim[3];
    float                  *mine = j->scratch + worker * j->slot;
    struct row_state        s = { .c = c, .scale = gv_attn_scale(c), .query = mine, .acc = mine + D, .key = mine + D + Dv };

    for (int64_t i; (i = (int64_t)atomic_fetch_add(&j->next, 1)) < j->tasks;) {
        const int64_t tile = i % tiles;

        s.h = i / tiles % c->q.dim[2];
        s.b = i / tiles / c->q.dim[2];
        if (gv_attn_skipped(c, s.b, s.h, tile))
            continue;
        for (int64_t n = tile * GV_TILE_Q; n < rows && n < (tile + 1) * GV_TILE_Q; n++) {
            s.q = attn_q_row(c, s.h, n);
            s.place = attn_q_place(c, n, s.q);
            run_row(&s, tile);
        }
    }
}

void gv_attn_c(struct run *r, const struct attn_call *c)
{
    const int64_t D = c->q.dim[3], Dv = c->out.o.dim[3], threads = gv_cpu_threads(r->device);
    struct job    j = { .c = c,
                        .slot = (D + Dv + (D > Dv ? D : Dv) + 15) / 16 * 16,
                        .tasks = c->q.dim[0] * c->q.dim[2] * attn_tiles(c) };

    j.scratch = gv_scratch_bytes(r, (size_t)(threads * j.slot) * sizeof *j.scratch);
    if (gv_device_is_null(r->device) || r->err.code != GV_OK)
        return;
    gv_parallel_for(r->device, threads, work, &j);
}

/* ---- union of partials ---- */

struct merge_job {
    const struct attn_partial *dst, *parts;
    int                        n;
    int64_t                    slices;
};

/* Weights of the parts, summing to 1, and the union's LSE. False when at most one part holds anything: *only is its index. */
static bool weigh(const struct merge_job *j, int64_t b, int64_t a, int64_t n, float *weight, float *lse, int *only)
{
    float m = -INFINITY, sum = 0;
    int   filled = 0;

    *only = -1; /* nothing anywhere: the union is 0 */
    for (int i = 0; i < j->n; i++) {
        weight[i] = *attn_lse_at(j->parts[i].lse, b, a, n);
        if (weight[i] == -INFINITY)
            continue;
        m = weight[i] > m || isnan(weight[i]) ? weight[i] : m;
        *only = i;
        filled++;
    }
    *lse = m;
    if (filled < 2)
        return false;
    for (int i = 0; i < j->n; i++)
        sum += weight[i] = expf(weight[i] - m);
    *lse = m + logf(sum);
    for (int i = 0; i < j->n; i++)
        weight[i] /= sum;
    return true;
}

static void merge_row(const struct merge_job *j, int64_t b, int64_t a, int64_t n)
{
    enum { STRIP = 64 };
    const int64_t Dv = j->dst->o.dim[3];
    float         weight[GV_ATTN_PARTS], lse;
    int           only;
    const bool    mix = weigh(j, b, a, n, weight, &lse, &only);

    for (int64_t d = 0; d < Dv; d += STRIP) {
        const int64_t count = Dv - d < STRIP ? Dv - d : STRIP;
        float         sum[STRIP] = { 0 }, x[STRIP];

        for (int i = 0; i < j->n; i++) {
            if (mix ? weight[i] == 0 : i != only)
                continue;
            const struct tensor o = j->parts[i].o;
            gv_attn_read(x, (const char *)attn_at(o, b, n, a) + d * (o.type == GV_BF16 ? 2 : 4), o.type, count);
            for (int64_t k = 0; k < count; k++)
                sum[k] = mix ? sum[k] + weight[i] * x[k] : x[k];
        }
        gv_attn_write((char *)attn_at(j->dst->o, b, n, a) + d * (j->dst->o.type == GV_BF16 ? 2 : 4), j->dst->o.type, sum,
                      count);
    }
    *attn_lse_at(j->dst->lse, b, a, n) = lse;
}

static void merge_slice(void *arg, int64_t i)
{
    const struct merge_job *j = arg;
    const int64_t          *d = j->dst->o.dim, rows = d[0] * d[1];

    for (int64_t n = i ? gv_slice_end(rows, 1, j->slices, i - 1) : 0; n < gv_slice_end(rows, 1, j->slices, i); n++)
        for (int64_t a = 0; a < d[2]; a++)
            merge_row(j, n / d[1], a, n % d[1]);
}

void gv_attn_merge_cpu(struct run *r, const struct attn_partial *dst, const struct attn_partial *parts, int n)
{
    struct merge_job j = { dst, parts, n, (dst->o.dim[0] * dst->o.dim[1] + 255) / 256 };

    gv_parallel_for(r->device, j.slices, merge_slice, &j);
}
