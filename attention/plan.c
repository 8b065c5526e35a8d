#include "attention/plan.h"

#include <stdlib.h>

/* ---- the rule ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

struct mask_range gv_mask_range(const struct attn_mask *m, int64_t q)
{
    const int64_t     i = m->query_start + q;
    struct mask_range r = { INT64_MIN, INT64_MAX, INT64_MIN };

    if (m->kind == MASK_CAUSAL) {
        r.hi = i + m->a;
        if (m->b) {
            r.lo = r.hi - m->b + 1;
            r.sink = m->sink <= r.hi ? m->sink : r.hi + 1;
        }
    } else if (m->kind == MASK_WINDOW) {
        r = (struct mask_range){ i - m->a, i + m->b, m->sink };
    } else if (m->kind == MASK_BLOCK_CAUSAL) {
        r.hi = (floor_div(i, m->a) + 1) * m->a - 1;
    }
    return r;
}

bool gv_mask_allows(const struct attn_mask *m, int64_t q, int source, int64_t k)
{
    if (m->kind == MASK_SEGMENTS)
        return m->allow[m->qseg[q]] >> m->kseg[k] & 1;
    const struct mask_range r = gv_mask_range(m, q);
    const int64_t           j = m->key_start[source] + k;
    return (j >= r.lo && j <= r.hi) || j < r.sink;
}

/* ---- check ---- */

struct checked {
    const struct attn_plan *p;
    int64_t                 n_queries;
    int                     n_sources;
    const int64_t          *n_keys;
    int64_t                 row;
};

static const char *entry_fault(const struct checked *c, gv_kv_entry e)
{
    const int source = (int)kv_source(e);

    if (source >= c->n_sources)
        return "names a source that is not there";
    if ((int64_t)kv_start(e) + kv_length(e) > c->n_keys[source])
        return "reads past the end of its source";
    if (kv_masked(e) && source && c->p->mask.kind == MASK_SEGMENTS)
        return "is masked by segments, which only source 0 has";
    return NULL;
}

/* Does an unmasked entry hold a pair that the rule forbids? By the ends of the ranges where those decide, else pair by pair. */
static bool hides(const struct checked *c, gv_kv_entry e)
{
    const struct attn_mask *m = &c->p->mask;
    const int64_t           q0 = c->row % c->p->tiles * c->p->tile_q;
    const int64_t           q1 = q0 + c->p->tile_q < c->n_queries ? q0 + c->p->tile_q : c->n_queries;

    if (m->kind == MASK_NONE || kv_masked(e) || (m->kind == MASK_SEGMENTS && kv_source(e)))
        return false;
    if (m->kind != MASK_SEGMENTS) {
        const struct mask_range first = gv_mask_range(m, q0), last = gv_mask_range(m, q1 - 1);
        const int64_t           j0 = m->key_start[kv_source(e)] + kv_start(e), j1 = j0 + kv_length(e) - 1;

        if ((j0 >= last.lo && j1 <= first.hi) || j1 < first.sink)
            return false;
    }
    for (int64_t q = q0; q < q1; q++)
        for (uint32_t k = 0; k < kv_length(e); k++)
            if (!gv_mask_allows(m, q, (int)kv_source(e), kv_start(e) + k))
                return true;
    return false;
}

static gv_status entry_fail(const struct checked *c, gv_kv_entry e, const char *why, struct error *err)
{
    return gv_fail(err, GV_ERR_INTERNAL, "attention plan: row %lld, entry (source %u, keys %u to %u%s) %s", (long long)c->row,
                   kv_source(e), kv_start(e), kv_start(e) + kv_length(e) - 1, kv_masked(e) ? ", masked" : "", why);
}

/* Where an entry stands in its row: part, masked or not, source, start. Ascending in a plan that is in order. */
static uint64_t rank_of(const struct checked *c, uint32_t at)
{
    const gv_kv_entry e = c->p->entries[at];
    const uint64_t    part = c->p->split && at >= c->p->split[c->row];

    return part << 40 | (uint64_t)kv_masked(e) << 39 | (uint64_t)kv_source(e) << 32 | kv_start(e);
}

static int by_keys(const void *a, const void *b)
{
    const gv_kv_entry x = *(const gv_kv_entry *)a, y = *(const gv_kv_entry *)b;
    const uint64_t    kx = (uint64_t)kv_source(x) << 32 | kv_start(x), ky = (uint64_t)kv_source(y) << 32 | kv_start(y);

    return kx < ky ? -1 : kx > ky;
}

static gv_status check_disjoint(const struct checked *c, gv_kv_entry *list, uint32_t n, struct error *err)
{
    qsort(list, n, sizeof *list, by_keys);
    for (uint32_t i = 1; i < n; i++)
        if (kv_source(list[i]) == kv_source(list[i - 1]) && kv_start(list[i]) < kv_start(list[i - 1]) + kv_length(list[i - 1]))
            return entry_fail(c, list[i], "counts a key that another entry of the row counts", err);
    return GV_OK;
}

static gv_status check_row(const struct checked *c, gv_kv_entry *list, struct error *err)
{
    const struct attn_plan *p = c->p;
    uint32_t                n = 0;
    uint64_t                last = 0;

    for (uint32_t at = p->row[c->row]; at < p->row[c->row + 1]; at++) {
        const gv_kv_entry e = p->entries[at];

        if (e == GV_KV_PADDING)
            continue;
        const char *fault = entry_fault(c, e);
        if (fault)
            return entry_fail(c, e, fault, err);
        if (n && rank_of(c, at) < last)
            return entry_fail(c, e, "is out of order: unmasked before masked, ascending by source and start", err);
        if (hides(c, e))
            return entry_fail(c, e, "is unmasked and holds a pair that the mask forbids", err);
        last = rank_of(c, at);
        list[n++] = e;
    }
    return check_disjoint(c, list, n, err);
}

static gv_status check_rows(const struct attn_plan *p, int64_t rows, uint32_t *longest, struct error *e)
{
    *longest = 0;
    for (int64_t i = 0; i < rows; i++) {
        if (p->row[i] > p->row[i + 1])
            return gv_fail(e, GV_ERR_INTERNAL, "attention plan: row %lld ends before it begins", (long long)i);
        if (p->split && (p->split[i] < p->row[i] || p->split[i] > p->row[i + 1]))
            return gv_fail(e, GV_ERR_INTERNAL, "attention plan: row %lld is split outside itself", (long long)i);
        if (p->row[i + 1] - p->row[i] > *longest)
            *longest = p->row[i + 1] - p->row[i];
    }
    return GV_OK;
}

static gv_status check_order(const struct attn_plan *p, int64_t rows, struct error *e)
{
    if (!p->order)
        return GV_OK;
    unsigned char *seen = calloc((size_t)rows, 1);
    if (!seen)
        return gv_fail(e, GV_ERR_MEMORY, "no memory to check a plan of %lld rows", (long long)rows);
    gv_status status = GV_OK;
    for (int64_t i = 0; i < rows && status == GV_OK; i++) {
        if (p->order[i] >= rows || seen[p->order[i]]++)
            status = gv_fail(e, GV_ERR_INTERNAL, "attention plan: the order is not a permutation of the rows");
        else if (p->order[i] / (uint32_t)p->tiles != i / p->tiles)
            status = gv_fail(e, GV_ERR_INTERNAL, "attention plan: the order is not head-major");
    }
    free(seen);
    return status;
}

gv_status gv_plan_check(const struct attn_plan *p, int64_t n_queries, int n_sources, const int64_t *n_keys, struct error *e)
{
    if (p->tile_q <= 0 || p->batch <= 0 || p->list_heads <= 0 || p->tiles != (n_queries + p->tile_q - 1) / p->tile_q)
        return gv_fail(e, GV_ERR_INTERNAL, "attention plan: %d tiles of %d for %lld queries", p->tiles, p->tile_q,
                       (long long)n_queries);
    if (!p->entries)
        return GV_OK;
    const int64_t rows = (int64_t)p->batch * p->list_heads * p->tiles;
    uint32_t      longest;
    TRY(check_rows(p, rows, &longest, e));
    TRY(check_order(p, rows, e));
    gv_kv_entry *list = malloc(((size_t)longest + 1) * sizeof *list);
    if (!list)
        return gv_fail(e, GV_ERR_MEMORY, "no memory to check a row of %u entries", longest);
    gv_status      status = GV_OK;
    struct checked c = { p, n_queries, n_sources, n_keys, 0 };
    for (; c.row < rows && status == GV_OK; c.row++)
        status = check_row(&c, list, e);
    free(list);
    return status;
}

/* ---- build ---- */

struct building {
    const struct plan_shape *s;
    enum block_verdict (*verdict)(const void *arg, const struct plan_block *b);
    const void  *arg;
    int          tiles, blocks;
    uint32_t    *row;
    gv_kv_entry *entries;
    size_t       capacity, n;
    double       pairs;
};

static bool reserve(struct building *b, size_t more)
{
    if (b->n + more <= b->capacity)
        return true;
    const size_t want = b->capacity * 2 > b->n + more ? b->capacity * 2 : b->n + more;
    gv_kv_entry *grown = want > UINT32_MAX ? NULL : realloc(b->entries, want * sizeof *grown);
    if (!grown)
        return false;
    b->entries = grown;
    b->capacity = want;
    return true;
}

/* The unmasked entries of a row in front, then the masked ones, from one pass over the verdicts: masked ones gather at the
 * end of the reserved space and are moved up. */
static void build_row(struct building *b, int head, int tile)
{
    const int64_t     q0 = (int64_t)tile * GV_TILE_Q, left = b->s->n_queries - q0;
    struct plan_block at = { .head = head, .q0 = q0, .q1 = q0 + (left < GV_TILE_Q ? left : GV_TILE_Q) };
    gv_kv_entry      *all = b->entries + b->n, *some_end = all + b->blocks, *some = some_end;

    for (int i = 0; i < b->blocks; i++) {
        at.k0 = (int64_t)i * GV_KV_BLOCK;
        at.k1 = at.k0 + GV_KV_BLOCK < b->s->n_keys ? at.k0 + GV_KV_BLOCK : b->s->n_keys;
        const enum block_verdict v = b->verdict(b->arg, &at);
        if (v == BLOCK_NONE)
            continue;
        const gv_kv_entry e = kv_entry((uint32_t)at.k0, (uint32_t)(at.k1 - at.k0), 0, v == BLOCK_SOME);
        if (v == BLOCK_ALL)
            *all++ = e;
        else
            *--some = e; /* descending */
        b->pairs += (double)(at.q1 - at.q0) * (double)(at.k1 - at.k0);
    }
    for (gv_kv_entry *lo = some, *hi = some_end - 1; lo < hi; lo++, hi--) { /* ascending again */
        const gv_kv_entry e = *lo;
        *lo = *hi;
        *hi = e;
    }
    for (; some < some_end; some++)
        *all++ = *some;
    b->n = (size_t)(all - b->entries);
}

/* Longest rows of each head first, by counting: a row holds at most `blocks` entries. Rows of one length stay in order. */
static uint32_t *make_order(const struct building *b, int64_t rows)
{
    uint32_t *order = malloc((size_t)rows * sizeof *order), *from = malloc(((size_t)b->blocks + 2) * sizeof *from);

    for (int64_t head = 0; order && from && head < rows; head += b->tiles) {
        for (int i = 0; i < b->blocks + 2; i++)
            from[i] = 0;
        for (int64_t i = head; i < head + b->tiles; i++)
            from[(uint32_t)b->blocks - (b->row[i + 1] - b->row[i]) + 1]++;
        for (int i = 0; i <= b->blocks; i++)
            from[i + 1] += from[i];
        for (int64_t i = head; i < head + b->tiles; i++)
            order[head + from[(uint32_t)b->blocks - (b->row[i + 1] - b->row[i])]++] = (uint32_t)i;
    }
    if (!from) {
        free(order);
        order = NULL;
    }
    free(from);
    return order;
}

gv_status gv_plan_from_blocks(struct attn_plan *p, const struct plan_shape                                           *s,
                              enum block_verdict (*verdict)(const void *arg, const struct plan_block *b), const void *arg,
                              struct error *e)
{
    struct building b = { .s = s,
                          .verdict = verdict,
                          .arg = arg,
                          .tiles = (int)((s->n_queries + GV_TILE_Q - 1) / GV_TILE_Q),
                          .blocks = (int)((s->n_keys + GV_KV_BLOCK - 1) / GV_KV_BLOCK) };
    const int64_t   rows = (int64_t)s->list_heads * b.tiles;
    uint32_t       *order = NULL;
    bool            room = s->n_keys <= 1 << 22 && (b.row = malloc(((size_t)rows + 1) * sizeof *b.row));

    for (int64_t i = 0; room && i < rows; i++) {
        b.row[i] = (uint32_t)b.n;
        room = reserve(&b, (size_t)b.blocks);
        if (room)
            build_row(&b, (int)(i / b.tiles), (int)(i % b.tiles));
    }
    if (room) {
        b.row[rows] = (uint32_t)b.n;
        room = reserve(&b, 1) && (order = make_order(&b, rows)); /* entries == NULL would mean dense */
    }
    if (!room) {
        free(b.row);
        free(b.entries);
        return gv_fail(e, GV_ERR_MEMORY, "no memory for an attention plan of %lld rows over %lld keys", (long long)rows,
                       (long long)s->n_keys);
    }
    *p = (struct attn_plan){ .tile_q = GV_TILE_Q,
                             .batch = 1,
                             .list_heads = s->list_heads,
                             .tiles = b.tiles,
                             .row = b.row,
                             .entries = b.entries,
                             .order = order,
                             .mask = s->mask,
                             .density = b.pairs / ((double)s->n_queries * (double)s->n_keys * s->list_heads) };
    return GV_OK;
}

/* A query's range moves up with the query, one place at a time or, in block-causal, its upper end alone: a block between the
 * first and the last query's ranges meets one of them. A block that lies in range and sink together may be called SOME. */
static enum block_verdict mask_verdict(const void *arg, const struct plan_block *b)
{
    const struct attn_mask *m = arg;
    const struct mask_range first = gv_mask_range(m, b->q0), last = gv_mask_range(m, b->q1 - 1);
    const int64_t           j0 = m->key_start[0] + b->k0, j1 = m->key_start[0] + b->k1 - 1;

    if ((j0 >= last.lo && j1 <= first.hi) || j1 < first.sink)
        return BLOCK_ALL;
    return (j0 > last.hi || j1 < first.lo) && j0 >= last.sink ? BLOCK_NONE : BLOCK_SOME;
}

gv_status gv_plan_from_mask(struct attn_plan *p, const struct plan_shape *s, struct error *e)
{
    return gv_plan_from_blocks(p, s, mask_verdict, &s->mask, e);
}

void gv_plan_free(struct attn_plan *p)
{
    free((void *)p->row);
    free((void *)p->entries);
    free((void *)p->split);
    free((void *)p->order);
    *p = (struct attn_plan){ 0 };
}
