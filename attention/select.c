#include "attention/select.h"

#include <math.h>
#include <string.h>

/* ---- rules ---- */

/* Does a come before b? */
static bool before(const float *score, int32_t a, int32_t b)
{
    return score[a] > score[b] || (score[a] == score[b] && a < b);
}

static void sift(int32_t *heap, int64_t at, int64_t n, const float *score)
{
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(score, heap[child], heap[child + 1]))
            child++; /* the later of the two goes up: the heap's top is the last of all */
        if (!before(score, heap[at], heap[child]))
            return;
        const int32_t t = heap[at];
        heap[at] = heap[child];
        heap[child] = t;
    }
}

/* Indices of what is not -inf, best first; their number. Heap sort: in place, no worst case. */
static int64_t rank(int32_t *order, const float *score, int64_t n)
{
    int64_t count = 0;

    for (int64_t i = 0; i < n; i++)
        if (score[i] > -INFINITY)
            order[count++] = (int32_t)i;
    for (int64_t i = count / 2; i-- > 0;)
        sift(order, i, count, score);
    for (int64_t end = count; end-- > 1;) {
        const int32_t t = order[0];
        order[0] = order[end];
        order[end] = t;
        sift(order, 0, end, score);
    }
    return count;
}

static int64_t within_mass(const int32_t *order, const float *score, int64_t count, const struct select_rule *rule)
{
    double  all = 0, sum = 0;
    int64_t n = 0;

    for (int64_t i = 0; i < count; i++)
        all += (double)score[order[i]];
    for (; n < count; n++) {
        const double with = sum + (double)score[order[n]];
        if (rule->crossing ? sum >= rule->amount * all : with > rule->amount * all)
            break;
        sum = with;
    }
    return n;
}

void gv_select(uint8_t *keep, const float *score, int64_t n, const struct select_rule *rule, int32_t *order)
{
    const int64_t count = rank(order, score, n);
    int64_t       kept =
        rule->kind == SELECT_SHARE ? (int64_t)ceil(rule->amount * (double)n) : within_mass(order, score, count, rule);

    if (kept < rule->least)
        kept = rule->least;
    for (int64_t i = 0; i < kept && i < count; i++)
        keep[order[i]] = 1;
}

void gv_select_forced(uint8_t *keep, int64_t tile, int64_t n, int block, const struct forced_blocks *f)
{
    const int64_t from = tile * GV_TILE_Q / block - f->near, to = ((tile + 1) * GV_TILE_Q - 1) / block + f->near;

    for (int64_t i = 0; i < n; i++)
        if (i < f->first || i >= n - f->last || (f->near >= 0 && i >= from && i <= to))
            keep[i] = 1;
}

/* ---- plan ---- */

struct marking {
    const struct score_call *c;
    const struct keep       *keep;
    int64_t                  tiles, blocks;
    uint8_t                 *kept; /* [blocks], of one row */
    int32_t                 *order;
};

/* Blocks whose mean says little, and tiles whose mean does. */
static bool mark_unlike(const struct marking *m, int64_t row, float *score)
{
    const int64_t A = m->c->q.dim[2], A_kv = m->c->k.dim[2], b = row / m->tiles / A, h = row / m->tiles % A;
    const float  *k_same = m->keep->k_same.data, *q_same = m->keep->q_same.data;

    for (int64_t i = 0; present(m->keep->k_same) && i < m->blocks; i++)
        if ((double)k_same[(b * A_kv + h / (A / A_kv)) * m->blocks + i] <= m->keep->same) {
            score[i] = -INFINITY;
            m->kept[i] = 1;
        }
    return present(m->keep->q_same) && (double)q_same[row] <= m->keep->same;
}

static void mark_row(const struct marking *m, int64_t row)
{
    float *score = (float *)m->c->score.data + row * m->blocks;

    memset(m->kept, 0, (size_t)m->blocks);
    if (mark_unlike(m, row, score)) {
        memset(m->kept, 1, (size_t)m->blocks);
        return;
    }
    for (int i = 0; i < m->keep->n_rules; i++)
        gv_select(m->kept, score, m->blocks, &m->keep->rule[i], m->order);
    gv_select_forced(m->kept, row % m->tiles, m->blocks, m->c->block, &m->keep->forced);
}

static gv_kv_entry *write_row(const struct marking *m, gv_kv_entry *e)
{
    const int64_t keys = m->c->k.dim[1];

    for (int64_t k = 0; k < keys; k += GV_KV_BLOCK)
        if (m->kept[k / m->c->block])
            *e++ = kv_entry((uint32_t)k, (uint32_t)(keys - k < GV_KV_BLOCK ? keys - k : GV_KV_BLOCK), 0, false);
    return e;
}

static double count_pairs(const gv_kv_entry *from, const gv_kv_entry *to, int64_t queries)
{
    double keys = 0;

    for (; from < to; from++)
        keys += kv_length(*from);
    return keys * (double)(queries < GV_TILE_Q ? queries : GV_TILE_Q);
}

void gv_plan_from_scores(struct run *r, struct attn_plan *p, const struct score_call *c, const struct keep *keep, double expect)
{
    struct marking m = { .c = c, .keep = keep, .tiles = c->score.dim[2], .blocks = c->score.dim[3] };
    const int64_t  rows = c->score.dim[0] * c->score.dim[1] * m.tiles, most = (c->k.dim[1] + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    uint32_t      *row = gv_scratch_bytes(r, (size_t)(rows + 1) * sizeof *row);
    gv_kv_entry   *entries = gv_scratch_bytes(r, (size_t)(rows * most + 1) * sizeof *entries), *e = entries;
    double         pairs = 0;

    m.kept = gv_scratch_bytes(r, (size_t)m.blocks);
    m.order = gv_scratch_bytes(r, (size_t)m.blocks * sizeof *m.order);
    *p = (struct attn_plan){ .tile_q = GV_TILE_Q,
                             .batch = (int)c->score.dim[0],
                             .list_heads = (int)c->score.dim[1],
                             .tiles = (int)m.tiles,
                             .row = row,
                             .entries = entries,
                             .density = expect };
    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return;
    for (int64_t i = 0; i < rows; i++) {
        mark_row(&m, i);
        row[i] = (uint32_t)(e - entries);
        e = write_row(&m, e);
        pairs += count_pairs(entries + row[i], e, c->q.dim[1] - i % m.tiles * GV_TILE_Q);
    }
    row[rows] = (uint32_t)(e - entries);
    p->density = pairs / ((double)c->q.dim[1] * (double)c->k.dim[1] * (double)(c->score.dim[0] * c->score.dim[1]));
}
