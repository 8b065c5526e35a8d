/* Block scores on the CPU: portable C, a task per query tile of one head. Sums run in eight lanes so that a compiler can use
 * its vectors; the order is fixed, and so are the bits. The two that take as many products as attention itself, antidiagonal and
 * exact, are the reference here and run in scores_flash.c where there are vectors. Contracts: attention/scores.h. */
#include <math.h>
#include <stdatomic.h>

#include "attention/cpu/attn_flash.h"
#include "core/cpu/parallel.h"

struct scoring {
    const struct score_call *c;
    struct tensor            q_same, k_same, lse;
    const struct chunking   *chunks;
    float                    scale;
    int                      stride;
    float                   *mean; /* pooled: [B, A_kv, blocks, D] */
    float                   *slots;
    int64_t                  slot; /* floats of a worker */
    void (*tile)(const struct scoring *s, float *mine, int64_t b, int64_t h, int64_t tile);
    atomic_llong next;
};

static float dot(const float *a, const float *b, int64_t n)
{
    enum { LANES = 8 };
    float   lane[LANES] = { 0 }, rest = 0;
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        rest += a[i] * b[i];
    for (int j = 0; j < LANES; j++)
        rest += lane[j];
    return rest;
}

static int64_t kv_head(const struct score_call *c, int64_t h)
{
    return h / (c->q.dim[2] / c->k.dim[2]);
}

static float *score_row(const struct score_call *c, int64_t b, int64_t h, int64_t tile)
{
    return (float *)c->score.data + ((b * c->score.dim[1] + h) * c->score.dim[2] + tile) * c->score.dim[3];
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Mean of rows [from, to), and their self-similarity: the squared length of the mean of the rows' directions. */
static float pool(float *mean, float *work, struct tensor t, int64_t b, int64_t a, int64_t from, int64_t to)
{
    const int64_t D = t.dim[3];
    float        *row = work, *direction = work + D;

    memset(mean, 0, (size_t)D * sizeof *mean);
    memset(direction, 0, (size_t)D * sizeof *direction);
    for (int64_t n = from; n < to; n++) {
        gv_attn_read(row, attn_at(t, b, n, a), t.type, D);
        const float length = sqrtf(dot(row, row, D)), unit = length > 0 ? 1 / length : 0;
        for (int64_t d = 0; d < D; d++) {
            mean[d] += row[d];
            direction[d] += row[d] * unit;
        }
    }
    const float n = (float)(to - from);
    for (int64_t d = 0; d < D; d++)
        mean[d] /= n;
    return dot(direction, direction, D) / (n * n);
}

/* x[n] becomes its softmax. */
static void soften(float *x, int64_t n)
{
    float max = -INFINITY, sum = 0;

    for (int64_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - max);
    for (int64_t i = 0; i < n; i++)
        x[i] /= sum;
}

/* ---- pooled ---- */

static void pool_keys(void *arg, int64_t i)
{
    const struct scoring    *s = arg;
    const struct score_call *c = s->c;
    const int64_t blocks = c->score.dim[3], at = i % blocks, a = i / blocks % c->k.dim[2], b = i / blocks / c->k.dim[2];
    float         work[2 * GV_SCORE_MAX_HEAD];
    const float   same =
        pool(s->mean + i * c->k.dim[3], work, c->k, b, a, at * c->block, smaller((at + 1) * c->block, c->k.dim[1]));

    if (present(s->k_same))
        ((float *)s->k_same.data)[i] = same;
}

/* Blocks [from, to) of a head are one chunk: its Σk / sqrt(tokens) in place of each of their means. sum: Σk. */
static void close_chunk(const struct scoring *s, float *means, const float *sum, int64_t from, int64_t to)
{
    const int64_t D = s->c->k.dim[3], tokens = smaller(to * s->c->block, s->c->k.dim[1]) - from * s->c->block;

    for (int64_t i = from; i < to; i++)
        for (int64_t d = 0; d < D; d++)
            means[i * D + d] = sum[d] / sqrtf((float)tokens);
}

static void chunk_keys(void *arg, int64_t head)
{
    const struct scoring *s = arg;
    const int64_t         D = s->c->k.dim[3], blocks = s->c->score.dim[3];
    float                *means = s->mean + head * blocks * D, sum[GV_SCORE_MAX_HEAD] = { 0 };
    int64_t               from = 0;

    for (int64_t i = 0; i < blocks; i++) {
        const float *mean = means + i * D, n = (float)(smaller((i + 1) * s->c->block, s->c->k.dim[1]) - i * s->c->block);
        const double apart = sqrt((double)dot(sum, sum, D) * (double)dot(mean, mean, D));
        if (i == from || (i - from < s->chunks->longest && (double)dot(sum, mean, D) > s->chunks->like * apart)) {
            for (int64_t d = 0; d < D; d++)
                sum[d] = (i == from ? 0 : sum[d]) + mean[d] * n;
            continue;
        }
        close_chunk(s, means, sum, from, i);
        from = i--; /* the block begins a chunk of its own */
    }
    close_chunk(s, means, sum, from, blocks);
}

static void pooled_tile(const struct scoring *s, float *mine, int64_t b, int64_t h, int64_t tile)
{
    const struct score_call *c = s->c;
    const int64_t            D = c->q.dim[3], blocks = c->score.dim[3];
    const float             *means = s->mean + (b * c->k.dim[2] + kv_head(c, h)) * blocks * D;
    float                   *to = score_row(c, b, h, tile);
    const float same = pool(mine, mine + D, c->q, b, h, tile * GV_TILE_Q, smaller((tile + 1) * GV_TILE_Q, c->q.dim[1]));

    if (present(s->q_same))
        ((float *)s->q_same.data)[(b * c->q.dim[2] + h) * c->score.dim[2] + tile] = same;
    for (int64_t i = 0; i < blocks; i++)
        to[i] = dot(mine, means + i * D, D) * s->scale;
    soften(to, blocks);
}

/* ---- antidiagonal ---- */

/* Folded rows of a tile: [GV_TILE_Q / stride][keys / stride]. Tokens that a fold lacks at the end count as zero. */
static void antidiagonal_tile(const struct scoring *s, float *mine, int64_t b, int64_t h, int64_t tile)
{
    const struct score_call *c = s->c;
    const int64_t            D = c->q.dim[3], folds = (c->k.dim[1] + s->stride - 1) / s->stride, q0 = tile * GV_TILE_Q;
    const int64_t            rows = smaller(GV_TILE_Q, c->q.dim[1] - q0), n = (rows + s->stride - 1) / s->stride;
    float                   *q = mine, *key = q + GV_TILE_Q * D, *p = key + D, *to = score_row(c, b, h, tile);

    for (int64_t i = 0; i < rows; i++)
        gv_attn_read(q + i * D, attn_at(c->q, b, q0 + i, h), c->q.type, D);
    memset(p, 0, (size_t)(n * folds) * sizeof *p);
    for (int64_t k = 0; k < c->k.dim[1]; k++) {
        gv_attn_read(key, attn_at(c->k, b, k, kv_head(c, h)), c->k.type, D);
        for (int64_t u = 0; u < n; u++) {
            const int64_t row = u * s->stride + s->stride - 1 - k % s->stride;
            if (row < rows)
                p[u * folds + k / s->stride] += dot(q + row * D, key, D) * s->scale / (float)s->stride;
        }
    }
    memset(to, 0, (size_t)c->score.dim[3] * sizeof *to);
    for (int64_t u = 0; u < n; u++) {
        soften(p + u * folds, folds);
        for (int64_t w = 0; w < folds; w++)
            to[w * s->stride / c->block] += p[u * folds + w] / (float)n;
    }
}

/* ---- exact ---- */

static void exact_tile(const struct scoring *s, float *mine, int64_t b, int64_t h, int64_t tile)
{
    const struct score_call *c = s->c;
    const int64_t            D = c->q.dim[3], q0 = tile * GV_TILE_Q, rows = smaller(GV_TILE_Q, c->q.dim[1] - q0);
    const float             *lse = (const float *)s->lse.data + (b * c->q.dim[2] + h) * c->q.dim[1] + q0;
    float                   *q = mine, *key = q + GV_TILE_Q * D, *to = score_row(c, b, h, tile);

    for (int64_t i = 0; i < rows; i++)
        gv_attn_read(q + i * D, attn_at(c->q, b, q0 + i, h), c->q.type, D);
    memset(to, 0, (size_t)c->score.dim[3] * sizeof *to);
    for (int64_t k = 0; k < c->k.dim[1]; k++) {
        float sum = 0;
        gv_attn_read(key, attn_at(c->k, b, k, kv_head(c, h)), c->k.type, D);
        for (int64_t i = 0; i < rows; i++)
            sum += expf(dot(q + i * D, key, D) * s->scale - lse[i]);
        to[k / c->block] += sum / (float)rows;
    }
}

/* ---- tasks ---- */

static void work(void *arg, int64_t worker)
{
    struct scoring *s = arg;
    const int64_t   tiles = s->c->score.dim[2], A = s->c->score.dim[1], n = s->c->score.dim[0] * A * tiles;

    for (int64_t i; (i = (int64_t)atomic_fetch_add(&s->next, 1)) < n;)
        s->tile(s, s->slots + worker * s->slot, i / tiles / A, i / tiles % A, i % tiles);
}

/* slot: floats that a tile needs. */
static void run_tiles(struct run *r, struct scoring *s, int64_t slot)
{
    const int threads = gv_cpu_threads(r->device);

    s->scale = s->c->scale != 0 ? s->c->scale : (float)(1 / sqrt((double)s->c->q.dim[3]));
    s->slot = (slot + 15) / 16 * 16;
    s->slots = gv_scratch_bytes(r, (size_t)(threads * s->slot) * sizeof *s->slots);
    if (!gv_device_is_null(r->device) && r->err.code == GV_OK)
        gv_parallel_for(r->device, threads, work, s);
}

void gv_score_pooled_cpu(struct run *r, const struct score_call *c, struct tensor q_same, struct tensor k_same,
                         const struct chunking *chunks)
{
    struct scoring s = { .c = c, .q_same = q_same, .k_same = k_same, .chunks = chunks, .tile = pooled_tile };
    const int64_t  means = c->k.dim[0] * c->k.dim[2] * c->score.dim[3];

    if (c->q.dim[3] > GV_SCORE_MAX_HEAD) {
        gv_run_fail(r, GV_ERR_UNSUPPORTED, "block scores: heads of %lld, at most %d", (long long)c->q.dim[3],
                    GV_SCORE_MAX_HEAD);
        return;
    }
    s.mean = gv_scratch_bytes(r, (size_t)(means * c->k.dim[3]) * sizeof *s.mean);
    if (!gv_device_is_null(r->device) && r->err.code == GV_OK)
        gv_parallel_for(r->device, means, pool_keys, &s);
    if (chunks && !gv_device_is_null(r->device) && r->err.code == GV_OK)
        gv_parallel_for(r->device, c->k.dim[0] * c->k.dim[2], chunk_keys, &s);
    run_tiles(r, &s, 3 * c->q.dim[3]);
}

static const struct attn_inner *inner_of(const struct run *r, const struct score_call *c)
{
    return gv_attn_inner(r->device, c->q.type == GV_BF16 && c->k.type == GV_BF16);
}

void gv_score_antidiagonal_cpu(struct run *r, const struct score_call *c, int stride)
{
    struct scoring           s = { .c = c, .stride = stride, .tile = antidiagonal_tile };
    const struct attn_inner *inner = inner_of(r, c);
    const int64_t            folds = (c->k.dim[1] + stride - 1) / stride;

    if (inner)
        gv_score_flash(r, c, stride, (struct tensor){ 0 }, inner);
    else
        run_tiles(r, &s, (GV_TILE_Q + 1) * c->q.dim[3] + (GV_TILE_Q / stride) * folds);
}

void gv_score_exact_cpu(struct run *r, const struct score_call *c, struct tensor lse)
{
    struct scoring           s = { .c = c, .lse = lse, .tile = exact_tile };
    const struct attn_inner *inner = inner_of(r, c);

    if (inner)
        gv_score_flash(r, c, 1, lse, inner);
    else
        run_tiles(r, &s, (GV_TILE_Q + 1) * c->q.dim[3]);
}

/* ---- lines ---- */

struct lines {
    struct tensor q, k, column, distance;
    int64_t       rows, slot;
    float        *slots; /* [B · A][slot]: a head's own, since it sums over its queries in order */
};

static void lines_head(void *arg, int64_t i)
{
    const struct lines *s = arg;
    const int64_t       N = s->q.dim[1], A = s->q.dim[2], D = s->q.dim[3], b = i / A, h = i % A, kv = h / (A / s->k.dim[2]);
    float              *q = s->slots + i * s->slot, *key = q + D, *p = key + D;
    float              *column = (float *)s->column.data + i * N, *distance = (float *)s->distance.data + i * N;
    const float         scale = (float)(1 / sqrt((double)D));

    memset(column, 0, (size_t)N * sizeof *column);
    memset(distance, 0, (size_t)N * sizeof *distance);
    for (int64_t n = N - s->rows; n < N; n++) {
        gv_attn_read(q, attn_at(s->q, b, n, h), s->q.type, D);
        for (int64_t k = 0; k <= n; k++) {
            gv_attn_read(key, attn_at(s->k, b, k, kv), s->k.type, D);
            p[k] = dot(q, key, D) * scale;
        }
        soften(p, n + 1);
        for (int64_t k = 0; k <= n; k++) {
            column[k] += p[k];
            distance[n - k] += p[k];
        }
    }
}

void gv_score_lines_cpu(struct run *r, struct tensor q, struct tensor k, int64_t rows, struct tensor column,
                        struct tensor distance)
{
    struct lines s = { q, k, column, distance, rows, (2 * q.dim[3] + q.dim[1] + 15) / 16 * 16, NULL };

    s.slots = gv_scratch_bytes(r, (size_t)(q.dim[0] * q.dim[2] * s.slot) * sizeof *s.slots);
    if (!gv_device_is_null(r->device) && r->err.code == GV_OK)
        gv_parallel_for(r->device, q.dim[0] * q.dim[2], lines_head, &s);
}
