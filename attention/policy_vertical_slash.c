/* Columns that all read and diagonals at a fixed distance, as the last queries of a causal sequence show them.
 *
 *     q0  x . . x x           tile of queries [q0, q1); a diagonal at distance d needs keys q0 - d ... q1 - 1 - d: a run that
 *         x . . . x x         starts anywhere. Runs that touch are one run; columns that no run holds are entries of their own.
 *     q1  x . . . . x x
 *
 * A run is read whole by the tile, so that each query reads a little more than its diagonals. Runs are cut where the tile's own
 * keys begin: those are masked (causal).
 * Source: MInference (Jiang et al. 2024): 64 last queries, the first 30 columns and the 100 nearest diagonals always. */
#include <math.h>

#include "attention/policy.h"
#include "attention/select.h"

enum { VERTICAL, SLASH, ROWS, FIRST, NEAR };
static const struct policy_option options[] = {
    { "vertical", "columns", 1000, 1, 1 << 22 },
    { "slash", "diagonals", 6096, 1, 1 << 22 },
    { "rows", "last queries that are asked", 64, 1, 4096 },
    { "first", "first columns, always among them", 30, 0, 1 << 22 },
    { "near", "nearest diagonals, always among them", 100, 1, 1 << 22 },
    { 0 },
};

/* The lines of one head. */
struct lines {
    int64_t  N;
    uint8_t *vertical, *slash; /* [N] */
    uint8_t *run;              /* [N] keys of the tile at hand: 1 = read */
};

static void choose(uint8_t *keep, float *score, int64_t n, int64_t many, int64_t forced, int32_t *order)
{
    const struct select_rule rule = { .kind = SELECT_SHARE, .amount = 0, .least = many };

    for (int64_t i = 0; i < n; i++) {
        keep[i] = 0;
        if (i < forced)
            score[i] = INFINITY;
    }
    gv_select(keep, score, n, &rule, order);
}

/* Marks what tile [q0, q1) reads. Diagonals come nearest first, so the runs walk down the keys and meet in order. */
static void mark(const struct lines *l, int64_t q0, int64_t q1)
{
    int64_t low = q1; /* keys from here up to q1 are decided */

    for (int64_t k = 0; k < q1; k++)
        l->run[k] = l->vertical[k];
    for (int64_t d = 0; d < q1; d++) {
        if (!l->slash[d])
            continue;
        const int64_t from = q0 > d ? q0 - d : 0, to = q1 - d < low ? q1 - d : low;
        for (int64_t k = from; k < to; k++)
            l->run[k] = 1;
        low = from;
    }
}

/* Runs of marked keys in [from, to) as entries. */
static gv_kv_entry *write_runs(gv_kv_entry *e, const uint8_t *run, int64_t from, int64_t to, bool masked)
{
    for (int64_t k = from; k < to;) {
        int64_t n = 0;

        while (k + n < to && n < GV_KV_BLOCK && run[k + n])
            n++;
        if (n)
            *e++ = kv_entry((uint32_t)k, (uint32_t)n, 0, masked);
        k += n ? n : 1;
    }
    return e;
}

struct writing {
    struct attn_plan *p;
    uint32_t         *row;
    gv_kv_entry      *entries, *end;
    double            pairs;
};

static void write_head(struct writing *w, const struct lines *l, int64_t head)
{
    for (int64_t tile = 0; tile < w->p->tiles; tile++) {
        const int64_t q0 = tile * GV_TILE_Q, q1 = q0 + GV_TILE_Q < l->N ? q0 + GV_TILE_Q : l->N;
        gv_kv_entry  *from = w->end;

        w->row[head * w->p->tiles + tile] = (uint32_t)(w->end - w->entries);
        mark(l, q0, q1);
        w->end = write_runs(w->end, l->run, 0, q0 + 1, false);
        w->end = write_runs(w->end, l->run, q0 + 1, q1, true);
        for (; from < w->end; from++)
            w->pairs += (double)kv_length(*from) * (double)(q1 - q0);
    }
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void plan(struct run *r, struct attn_plan *out, struct tensor q, struct tensor k, const double *value)
{
    const int64_t N = q.dim[1], heads = q.dim[0] * q.dim[2], tiles = (N + GV_TILE_Q - 1) / GV_TILE_Q,
                  shape[] = { q.dim[0], q.dim[2], N };
    struct tensor  column = gv_scratch(r, GV_F32, 3, shape), distance = gv_scratch(r, GV_F32, 3, shape);
    int32_t       *order = gv_scratch_bytes(r, (size_t)N * sizeof *order);
    struct lines   l = { .N = N };
    struct writing w = { .p = out };

    /* a column adds an entry at most; a diagonal's run of 128 keys two, and what cuts at its ends and the tile's own add */
    const int64_t most = smaller(N, (int64_t)value[VERTICAL] + 5 * (int64_t)value[SLASH]);
    l.vertical = gv_scratch_bytes(r, (size_t)N);
    l.slash = gv_scratch_bytes(r, (size_t)N);
    l.run = gv_scratch_bytes(r, (size_t)N);
    w.row = gv_scratch_bytes(r, (size_t)(heads * tiles + 1) * sizeof *w.row);
    w.entries = w.end = gv_scratch_bytes(r, (size_t)(heads * tiles * most + 1) * sizeof *w.entries);
    gv_score_lines(r, q, k, smaller((int64_t)value[ROWS], N), column, distance);
    *out = (struct attn_plan){ .tile_q = GV_TILE_Q,
                               .batch = (int)q.dim[0],
                               .list_heads = (int)q.dim[2],
                               .tiles = (int)tiles,
                               .row = w.row,
                               .entries = w.entries,
                               .mask = { .kind = MASK_CAUSAL },
                               .density = 0.5 };
    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return;
    for (int64_t head = 0; head < heads; head++) {
        choose(l.vertical, (float *)column.data + head * N, N, (int64_t)value[VERTICAL], (int64_t)value[FIRST], order);
        choose(l.slash, (float *)distance.data + head * N, N, (int64_t)value[SLASH], (int64_t)value[NEAR], order);
        write_head(&w, &l, head);
    }
    w.row[heads * tiles] = (uint32_t)(w.end - w.entries);
    out->density = w.pairs / ((double)N * (double)N * (double)heads);
}

const struct attn_policy gv_policy_vertical_slash = {
    .name = "vertical_slash",
    .help = "causal: columns and diagonals that the last queries read most (MInference)",
    .text = true,
    .options = options,
    .plan = plan,
};
