/* Causal: each head shows by its last queries whether means can be trusted to find its blocks.
 *
 *   a   the softmax of the last 128 queries, summed by block of keys      what they read
 *   b   softmax of their mean · each block's mean key                     what means would guess
 *
 *   distance = sqrt(Jensen-Shannon divergence of a and b), natural logarithm
 *   under tau     by means: the smallest set of blocks of the head's whole map, rows normalised, that holds `mass` of it
 *   else          by lines: the fewest columns, and the fewest diagonals, that each hold `mass` of what the last queries read, every
 *                 line rounded out to the blocks that it touches
 *
 * Every row keeps `least` tokens by either way, the first block and its own. Source: FlexPrefill (Lai et al. 2025), algorithms 1-4:
 * blocks of 128, tau 0.1, mass 0.9 (there: gamma), 512 tokens. */
#include <math.h>
#include <string.h>

#include "attention/policy.h"
#include "attention/select.h"

enum { TAU, MASS, LEAST };
static const struct policy_option options[] = {
    { "tau", "distance under which a head is chosen for by means; 0 = always by lines, 1 = always by means", 0.1, 0, 1 },
    { "mass", "share of the softmax to keep", 0.9, 0.01, 1 },
    { "least", "tokens that every row keeps at least, and lines", 512, 0, 1 << 22 },
    { 0 },
};

enum { BLOCK = GV_TILE_Q };

struct flex {
    int64_t  N, blocks, rows; /* tokens; tiles, which are blocks too; last queries that are asked */
    double   tau, mass;
    int64_t  least;
    float   *map;               /* [blocks, blocks] of the head: pooled scores */
    float   *guess;             /* [blocks] of the last queries' mean */
    float   *column, *distance; /* [N] of the last queries */
    uint8_t *kept;              /* [blocks, blocks] */
    uint8_t *line;              /* [N] */
    int32_t *order;             /* [blocks²] or [N] */
};

/* sqrt(JSD) of what the last queries read and what their mean guesses. */
static double distance(const struct flex *f)
{
    double sum = 0;

    for (int64_t b = 0; b < f->blocks; b++) {
        double p = 0, q = (double)f->guess[b];
        for (int64_t k = b * BLOCK; k < f->N && k < (b + 1) * BLOCK; k++)
            p += (double)f->column[k] / (double)f->rows;
        const double m = (p + q) / 2;
        sum += (p > 0 ? p * log(p / m) : 0) / 2 + (q > 0 ? q * log(q / m) : 0) / 2;
    }
    return sqrt(sum > 0 ? sum : 0);
}

static void by_means(const struct flex *f)
{
    const struct select_rule mass = { .kind = SELECT_MASS, .amount = f->mass, .crossing = true },
                             least = { .kind = SELECT_SHARE, .least = (f->least + BLOCK - 1) / BLOCK };

    for (int64_t i = 0; i < f->blocks; i++) {
        float *row = f->map + i * f->blocks, sum = 0;
        for (int64_t b = 0; b <= i; b++)
            sum += row[b];
        for (int64_t b = 0; b < f->blocks; b++)
            row[b] = b > i ? -INFINITY : sum > 0 ? row[b] / sum : 0; /* causal: a softmax over what comes before */
        gv_select(f->kept + i * f->blocks, row, f->blocks, &least, f->order);
    }
    gv_select(f->kept, f->map, f->blocks * f->blocks, &mass, f->order);
}

/* Lines that hold the mass, in line[]. */
static void choose_lines(const struct flex *f, const float *score)
{
    const struct select_rule mass = { .kind = SELECT_MASS, .amount = f->mass, .crossing = true, .least = f->least };

    for (int64_t i = 0; i < f->N; i++)
        f->line[i] = 0;
    gv_select(f->line, score, f->N, &mass, f->order);
}

static void by_lines(const struct flex *f)
{
    choose_lines(f, f->column);
    for (int64_t k = 0; k < f->N; k++)
        for (int64_t i = k / BLOCK; f->line[k] && i < f->blocks; i++)
            f->kept[i * f->blocks + k / BLOCK] = 1;
    choose_lines(f, f->distance);
    for (int64_t d = 0; d < f->N; d++)
        for (int64_t i = d / BLOCK; f->line[d] && i < f->blocks; i++) { /* query q reads key q - d: blocks of the tile's ends */
            const int64_t from = i * BLOCK - d, to = from + BLOCK - 1;
            if (from >= 0)
                f->kept[i * f->blocks + from / BLOCK] = 1;
            f->kept[i * f->blocks + to / BLOCK] = 1;
        }
}

struct writing {
    uint32_t    *row;
    gv_kv_entry *entries, *end;
    double       pairs;
};

/* Tile i's blocks, its own behind the others: only that one needs the mask. */
static void write_row(struct writing *w, const struct flex *f, int64_t i)
{
    const int64_t q1 = (i + 1) * BLOCK < f->N ? (i + 1) * BLOCK : f->N;
    gv_kv_entry  *from = w->end;

    for (int64_t k = 0; k < q1; k += GV_KV_BLOCK)
        if (f->kept[i * f->blocks + k / BLOCK])
            *w->end++ = kv_entry((uint32_t)k, (uint32_t)(q1 - k < GV_KV_BLOCK ? q1 - k : GV_KV_BLOCK), 0, k / BLOCK == i);
    for (; from < w->end; from++)
        w->pairs += (double)kv_length(*from) * (double)(q1 - i * BLOCK);
}

static void choose_head(struct writing *w, const struct flex *f, int64_t head)
{
    memset(f->kept, 0, (size_t)(f->blocks * f->blocks));
    if (distance(f) < f->tau)
        by_means(f);
    else
        by_lines(f);
    for (int64_t i = 0; i < f->blocks; i++) {
        f->kept[i * f->blocks] = f->kept[i * f->blocks + i] = 1;
        w->row[head * f->blocks + i] = (uint32_t)(w->end - w->entries);
        write_row(w, f, i);
    }
}

static void plan(struct run *r, struct attn_plan *out, struct tensor q, struct tensor k, const double *value)
{
    const int64_t N = q.dim[1], B = q.dim[0], A = q.dim[2], blocks = (N + BLOCK - 1) / BLOCK, rows = N < BLOCK ? N : BLOCK;
    const int64_t most = (N + GV_KV_BLOCK - 1) / GV_KV_BLOCK, work = blocks * blocks > N ? blocks * blocks : N;
    struct tensor column = gv_scratch(r, GV_F32, 3, DIMS(B, A, N)), distances = gv_scratch(r, GV_F32, 3, DIMS(B, A, N));
    const struct score_call map = {
        .score = gv_scratch(r, GV_F32, 4, DIMS(B, A, blocks, blocks)), .q = q, .k = k, .block = BLOCK
    };
    const struct score_call guess = {
        .score = gv_scratch(r, GV_F32, 4, DIMS(B, A, 1, blocks)), .q = slice(q, 1, N - rows, rows), .k = k, .block = BLOCK
    };
    struct flex f = {
        .N = N, .blocks = blocks, .rows = rows, .tau = value[TAU], .mass = value[MASS], .least = (int64_t)value[LEAST]
    };
    struct writing w = { 0 };

    f.kept = gv_scratch_bytes(r, (size_t)(blocks * blocks));
    f.line = gv_scratch_bytes(r, (size_t)N);
    f.order = gv_scratch_bytes(r, (size_t)work * sizeof *f.order);
    w.row = gv_scratch_bytes(r, (size_t)(B * A * blocks + 1) * sizeof *w.row);
    w.entries = w.end = gv_scratch_bytes(r, (size_t)(B * A * blocks * most + 1) * sizeof *w.entries);
    gv_score_pooled(r, &map, (struct tensor){ 0 }, (struct tensor){ 0 });
    gv_score_pooled(r, &guess, (struct tensor){ 0 }, (struct tensor){ 0 });
    gv_score_lines(r, q, k, rows, column, distances);
    *out = (struct attn_plan){ .tile_q = GV_TILE_Q,
                               .batch = (int)B,
                               .list_heads = (int)A,
                               .tiles = (int)blocks,
                               .row = w.row,
                               .entries = w.entries,
                               .mask = { .kind = MASK_CAUSAL },
                               .density = 0.5 };
    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return;
    for (int64_t head = 0; head < B * A; head++) {
        f.map = (float *)map.score.data + head * blocks * blocks;
        f.guess = (float *)guess.score.data + head * blocks;
        f.column = (float *)column.data + head * N;
        f.distance = (float *)distances.data + head * N;
        choose_head(&w, &f, head);
    }
    w.row[B * A * blocks] = (uint32_t)(w.end - w.entries);
    out->density = w.pairs / ((double)N * (double)N * (double)(B * A));
}

const struct attn_policy gv_policy_flexprefill = {
    .name = "flexprefill",
    .help =
        "causal: blocks by their means where a head's last queries show that means can be trusted, else lines (FlexPrefill)",
    .text = true,
    .options = options,
    .plan = plan,
};
