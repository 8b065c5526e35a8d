/* The blocked kernel, apart from its inner loops (attn_flash.h): what is packed, who computes what, in which order.
 *
 *   1. K and V of a chunk of heads are packed once, block by block, in parallel.
 *   2. Tasks, taken from a counter: a query tile (or a half or quarter of one, where tiles are few) of one head. A task walks its
 *      list in groups of up to FLASH_GROUP keys; for each group, every 32 queries: scores, masks, softmax weights, output.
 *
 * A query lives in one lane from beginning to end and meets its keys in the order and groups that its list alone decides, so
 * neither the cut into tasks, nor the thread, nor the queries beside it change a bit. A dense call walks the same segments as
 * a full list, and so is the same to the bit.
 *
 * What may surprise:
 *   - Entries that neither start at a multiple of 8 nor end at one (or at the source's end) are packed anew for each task, in
 *     the shape they would have at an aligned start: same bits, and no key beside them is read, which may be anything (the
 *     free part of a cache).
 *   - Scores are kept in powers of two: the scale holds log2(e). Padding rows get -inf by way of the added row term.
 *   - Chunks exist so that packed keys stay within CHUNK_BYTES beyond one head's, whatever the length.
 *
 * Source: FlashAttention-2 (Dao 2023), algorithm 1, with lists; lanes and layouts are our own. */
#include "attention/cpu/attn_flash.h"

#include <math.h>
#include <stdatomic.h>

#include "core/cpu/features.h"
#include "core/cpu/parallel.h"

#define LOG2E 1.44269504088896340736
#define LN2   0.693147180559945309417

enum {
    SUBTILES = GV_TILE_Q / FLASH_LANES,
    GROUP_BLOCKS = FLASH_GROUP / GV_KV_BLOCK,
    GROUP_PIECES = FLASH_GROUP / FLASH_PANEL,
    MIN_TASKS = 64, /* below this many tiles, they are cut */
};
static const int64_t CHUNK_BYTES = 64 << 20;

/* What is the same for the whole call. */
struct flash {
    const struct attn_call  *c;
    const struct attn_inner *in;
    int64_t                  steps, channels, panel_words, block_words; /* of Q and K; Dv up to a panel; of V */
    int64_t                  tiles, parts;                              /* of list rows; tasks that a tile is cut into */
    int64_t                  block[GV_ATTN_SOURCES + 1];                /* first packed block of each source, in one head's */
    int64_t                  k_words, v_words;                          /* of one head's packed blocks */
    int64_t                  kv_heads, head0;                           /* of this chunk: (batch, A_kv) pairs */
    uint32_t                *packed;                                    /* [kv_heads]: K blocks, then V blocks */
    char                    *workers;
    size_t                   worker_bytes;
    atomic_llong             next;
};

/* ---- packing, in C ---- */

/* Word t of a row of D elements: one f32, or two bf16, the first in the low half; 0 past the end. */
static uint32_t word_of(const void *row, enum dtype type, int per_word, int64_t t, int64_t D)
{
    uint32_t word = 0;

    if (type == GV_F32) {
        memcpy(&word, (const float *)row + t, sizeof word);
        return word;
    }
    const uint16_t *x = row;
    if (per_word == 1)
        return (uint32_t)x[t] << 16;
    return x[2 * t] | (2 * t + 1 < D ? (uint32_t)x[2 * t + 1] << 16 : 0);
}

static const void *row_of(const void *src, enum dtype type, int64_t stride, int64_t i)
{
    return (const char *)src + i * stride * (type == GV_BF16 ? 2 : 4);
}

void gv_flash_pack_rows(const struct attn_inner *in, uint32_t *dst, const struct flash_rows *src, int lanes)
{
    const int64_t steps = (src->D + in->per_word - 1) / in->per_word;

    if (in->pack_rows && in->pack_rows(dst, src->data, src->type, src->stride, lanes, src->n, src->D))
        return;
    for (int i = 0; i < (src->n + lanes - 1) / lanes * lanes; i++) {
        uint32_t *to = dst + i / lanes * lanes * steps + i % lanes;

        for (int64_t t = 0; t < steps; t++)
            to[t * lanes] =
                i < src->n ? word_of(row_of(src->data, src->type, src->stride, i), src->type, in->per_word, t, src->D) : 0;
    }
}

static void pack_rows(const struct flash *f, uint32_t *dst, const void *src, enum dtype type, int64_t stride, int lanes,
                      int rows)
{
    gv_flash_pack_rows(f->in, dst, &(struct flash_rows){ src, type, stride, rows, f->c->q.dim[3] }, lanes);
}

/* V of up to 64 keys, from key word `at` of the block dst on; up to a whole FLASH_PANEL of keys are zeroed. */
static void pack_values(const struct flash *f, uint32_t *dst, const void *src, enum dtype type, int64_t stride, int rows)
{
    const int64_t Dv = f->c->out.o.dim[3];
    const int     per = f->in->per_word, padded = (rows + FLASH_PANEL - 1) / FLASH_PANEL * FLASH_PANEL;

    const bool done = f->in->pack_values && f->in->pack_values(dst, src, type, stride, rows, Dv, f->panel_words);
    for (int64_t d = 0; d < f->channels; d++) {
        uint32_t  *to = dst + d / FLASH_PANEL * f->panel_words + d % FLASH_PANEL;
        const bool there = d < Dv;
        if (done && there && rows == padded)
            continue;
        for (int k = done && there ? (rows + per - 1) / per * per : 0; k < padded; k += per) {
            uint32_t lo = there && k < rows ? word_of(row_of(src, type, stride, k), type, 1, d, Dv) : 0;
            if (per == 2) {
                const uint32_t hi = there && k + 1 < rows ? word_of(row_of(src, type, stride, k + 1), type, 1, d, Dv) : 0;
                lo = lo >> 16 | (hi & 0xffff0000);
            }
            to[k / per * FLASH_PANEL] = lo;
        }
    }
}

/* Keys [start, start + n) of one source and (batch, A_kv). */
struct keys {
    int     source;
    int64_t b, a, start;
    int     n;
};

/* A few of them, one after the other in `to`, where an order scatters them. */
static void gather(const struct flash *f, void *to, struct tensor t, const struct keys *k, int at, int n)
{
    const size_t bytes = (size_t)t.dim[3] * (t.type == GV_BF16 ? 2 : 4);

    for (int i = 0; i < n; i++)
        memcpy((char *)to + (size_t)i * bytes, attn_at(t, k->b, attn_key_row(f->c, k->a, k->source, k->start + at + i), k->a),
               bytes);
}

static bool is_scattered(const struct flash *f, const struct keys *k)
{
    return f->c->head_order && k->source == 0;
}

static void pack_keys(const struct flash *f, uint32_t *dst, const struct keys *k)
{
    const struct tensor t = f->c->source[k->source].k;
    uint32_t            rows[FLASH_PANEL * GV_ORDERED_MAX_HEAD];

    if (!is_scattered(f, k)) {
        pack_rows(f, dst, attn_at(t, k->b, k->start, k->a), t.type, t.stride[1], FLASH_PANEL, k->n);
        return;
    }
    for (int i = 0; i < k->n; i += FLASH_PANEL) {
        const int n = k->n - i < FLASH_PANEL ? k->n - i : FLASH_PANEL;
        gather(f, rows, t, k, i, n);
        pack_rows(f, dst + i * f->steps, rows, t.type, t.dim[3], FLASH_PANEL, n);
    }
}

/* Values of the keys, to the places of keys [at, at + n) of the block dst: panel by panel, unless they are a block of their own. */
static void pack_values_of(const struct flash *f, uint32_t *dst, int at, const struct keys *k)
{
    const struct tensor t = f->c->source[k->source].v;
    const bool          scattered = is_scattered(f, k);
    uint32_t            rows[FLASH_PANEL * GV_ORDERED_MAX_HEAD];

    if (at == 0 && !scattered) {
        pack_values(f, dst, attn_at(t, k->b, k->start, k->a), t.type, t.stride[1], k->n);
        return;
    }
    for (int i = 0; i < k->n; i += FLASH_PANEL) {
        const int n = k->n - i < FLASH_PANEL ? k->n - i : FLASH_PANEL, to = at + i;
        uint32_t *panel = dst + to / GV_KV_BLOCK * f->block_words + to % GV_KV_BLOCK / f->in->per_word * FLASH_PANEL;
        if (scattered)
            gather(f, rows, t, k, i, n);
        pack_values(f, panel, scattered ? (void *)rows : attn_at(t, k->b, k->start + i, k->a), t.type,
                    scattered ? t.dim[3] : t.stride[1], n);
    }
}

static uint32_t *packed_k(const struct flash *f, int64_t head)
{
    return f->packed + head * (f->k_words + f->v_words);
}

/* Block i of the chunk's (head, block) pairs. */
static void pack_block(void *arg, int64_t i)
{
    const struct flash *f = arg;
    const int64_t       blocks = f->block[f->c->n_sources], head = i / blocks, at = i % blocks;
    const int64_t       A_kv = f->c->source[0].k.dim[2], b = (f->head0 + head) / A_kv, a = (f->head0 + head) % A_kv;
    int                 s = 0;

    while (at >= f->block[s + 1])
        s++;
    const int64_t     start = (at - f->block[s]) * GV_KV_BLOCK, left = f->c->source[s].k.dim[1] - start;
    const struct keys k = { s, b, a, start, (int)(left < GV_KV_BLOCK ? left : GV_KV_BLOCK) };
    pack_keys(f, packed_k(f, head) + at * GV_KV_BLOCK * f->steps, &k);
    pack_values_of(f, packed_k(f, head) + f->k_words + at * f->block_words, 0, &k);
}

/* ---- one task ---- */

/* Consecutive keys in a group. */
struct piece {
    struct attn_segment g;
    const uint32_t     *k;
    int                 row, rows; /* of S; whole panels */
};

struct task {
    const struct flash     *f;
    const struct attn_call *c;
    int64_t                 b, h, tile, head; /* head: of the chunk */
    int64_t                 row0, n_rows;     /* of the lists */
    int                     subtiles;
    float                   scale; /* in powers of two */
    /* the worker's memory */
    uint32_t *q;             /* [subtiles][steps][32] */
    float    *acc;           /* [subtiles][channels][32] */
    float    *m, *l, *keep;  /* [subtiles][32], keep [32] */
    float    *s, *add;       /* [FLASH_GROUP][32], [FLASH_GROUP] */
    uint32_t *p;             /* [FLASH_GROUP words][32] */
    uint32_t *own_k, *own_v; /* a group that is packed for this task */
    /* the group being gathered */
    int                 n_pieces, n_values, rows;
    struct piece        piece[GROUP_PIECES];
    struct flash_values values[GROUP_PIECES + GROUP_BLOCKS];
    bool                special; /* some piece needs masks or bias */
};

static int64_t q_row(const struct task *t, int subtile, int lane)
{
    const int64_t i = t->row0 + subtile * FLASH_LANES + lane;

    return i < t->row0 + t->n_rows ? attn_q_row(t->c, t->h, i) : -1;
}

/* The queries of 32 lanes. Rows that an order scatters are put together first, where a group of keys of our own will lie. */
static void pack_queries(struct task *t, int sub, uint32_t *dst)
{
    const struct tensor q = t->c->q;
    const int64_t       left = t->n_rows - sub * FLASH_LANES;
    const int           n = (int)(left < FLASH_LANES ? left : FLASH_LANES);

    if (!attn_order_of(t->c, t->h)) {
        pack_rows(t->f, dst, attn_at(q, t->b, q_row(t, sub, 0), t->h), q.type, q.stride[1], FLASH_LANES, n);
        return;
    }
    const size_t bytes = (size_t)q.dim[3] * (q.type == GV_BF16 ? 2 : 4);
    for (int i = 0; i < n; i++)
        memcpy((char *)t->own_k + (size_t)i * bytes, attn_at(q, t->b, q_row(t, sub, i), t->h), bytes);
    pack_rows(t->f, dst, t->own_k, q.type, q.dim[3], FLASH_LANES, n);
}

static void begin(struct task *t)
{
    const struct attn_call *c = t->c;
    const int64_t           Dv = c->out.o.dim[3];

    for (int sub = 0; sub < t->subtiles; sub++) {
        float *acc = t->acc + sub * t->f->channels * FLASH_LANES;

        pack_queries(t, sub, t->q + sub * t->f->steps * FLASH_LANES);
        memset(acc, 0, (size_t)(t->f->channels * FLASH_LANES) * sizeof *acc);
        for (int i = 0; i < FLASH_LANES; i++) {
            const int64_t n = q_row(t, sub, i);

            t->m[sub * FLASH_LANES + i] = -INFINITY;
            t->l[sub * FLASH_LANES + i] = 0;
            const float lse = c->seed && n >= 0 ? *attn_lse_at(c->seed->lse, t->b, t->h, n) : -INFINITY;
            if (lse == -INFINITY)
                continue;
            t->m[sub * FLASH_LANES + i] = lse * (float)LOG2E;
            t->l[sub * FLASH_LANES + i] = 1;
            const void *o = attn_at(c->seed->o, t->b, n, t->h);
            for (int64_t d = 0; d < Dv; d++)
                acc[d * FLASH_LANES + i] =
                    c->seed->o.type == GV_F32 ? ((const float *)o)[d] : bf16_to_f32(((const uint16_t *)o)[d]);
        }
    }
}

/* Values of `rows` keys that lie in packed blocks, from key `start` of block 0 on. */
static void add_values(struct task *t, const uint32_t *block0, int64_t start, int rows)
{
    const int per = t->f->in->per_word;

    while (rows > 0) {
        const int64_t in = start % GV_KV_BLOCK, n = rows < GV_KV_BLOCK - in ? rows : GV_KV_BLOCK - in;

        t->values[t->n_values++] =
            (struct flash_values){ block0 + start / GV_KV_BLOCK * t->f->block_words + in / per * FLASH_PANEL, (int)(n / per) };
        start += n;
        rows -= (int)n;
    }
}

static void add_rows(struct task *t, const struct piece *p)
{
    const struct attn_source *src = &t->c->source[p->g.source];
    const float              *bias = present(src->key_bias) ? (const float *)src->key_bias.data + p->g.start : NULL;

    for (int i = 0; i < p->rows; i++)
        t->add[p->row + i] = i < p->g.length ? (src->log_weight + (bias ? bias[i] : 0)) * (float)LOG2E : -INFINITY;
}

/* Takes a segment into the group; false when it is full. */
static bool take(struct task *t, const struct attn_segment *g)
{
    const struct flash *f = t->f;
    const struct tensor k = t->c->source[g->source].k;
    const int           rows = (g->length + FLASH_PANEL - 1) / FLASH_PANEL * FLASH_PANEL;

    if (t->rows + rows > FLASH_GROUP)
        return false;
    struct piece *p = &t->piece[t->n_pieces++];
    *p = (struct piece){ .g = *g, .row = t->rows, .rows = rows };
    if (g->start % FLASH_PANEL == 0 && (g->length % FLASH_PANEL == 0 || g->start + g->length == k.dim[1])) {
        const uint32_t *head = packed_k(f, t->head);
        p->k = head + (f->block[g->source] * GV_KV_BLOCK + g->start) * f->steps;
        add_values(t, head + f->k_words + f->block[g->source] * f->block_words, g->start, rows);
    } else {
        const struct keys own = { g->source, t->b, t->h / (t->c->q.dim[2] / k.dim[2]), g->start, g->length };
        p->k = t->own_k + t->rows * f->steps;
        pack_keys(f, t->own_k + t->rows * f->steps, &own);
        pack_values_of(f, t->own_v, t->rows, &own); /* where the group's rows put them */
        add_values(t, t->own_v, t->rows, rows);
    }
    add_rows(t, p);
    t->rows += rows;
    t->special |= (g->masked && t->c->plan->mask.kind != MASK_NONE) || (present(t->c->bias) && g->source == 0);
    return true;
}

/* What the rule lets each lane read, and the row of q in it. */
struct lane_rule {
    int64_t  lo[FLASH_LANES], hi[FLASH_LANES], sink[FLASH_LANES];
    uint64_t allow[FLASH_LANES];
    int64_t  q[FLASH_LANES];
};

static void make_rule(struct lane_rule *r, const struct task *t, int sub)
{
    const struct attn_mask *m = t->c->plan ? &t->c->plan->mask : NULL;

    for (int i = 0; i < FLASH_LANES; i++) {
        const int64_t q = q_row(t, sub, i);

        r->q[i] = q < 0 ? 0 : attn_q_place(t->c, t->row0 + sub * FLASH_LANES + i, q);
        r->allow[i] = m && m->kind == MASK_SEGMENTS ? m->allow[m->qseg[r->q[i]]] : 0;
        const struct mask_range range = m ? gv_mask_range(m, r->q[i]) : (struct mask_range){ 0 };
        r->lo[i] = range.lo;
        r->hi[i] = range.hi;
        r->sink[i] = range.sink;
    }
}

static void mask_row(float *s, const struct attn_mask *m, const struct lane_rule *r, int source, int64_t k)
{
    const int64_t j = m->key_start[source] + k;

    if (m->kind == MASK_SEGMENTS)
        for (int i = 0; i < FLASH_LANES; i++)
            s[i] = r->allow[i] >> m->kseg[k] & 1 ? s[i] : -INFINITY;
    else
        for (int i = 0; i < FLASH_LANES; i++)
            s[i] = (j >= r->lo[i] && j <= r->hi[i]) || j < r->sink[i] ? s[i] : -INFINITY;
}

/* The position bias of a piece, where it has one: row[lane] is the lane's query's. */
static void bias_piece(const struct task *t, const struct lane_rule *r, const struct piece *p)
{
    const struct tensor bias = t->c->bias;
    float              *s = t->s + p->row * FLASH_LANES;
    const float        *row[FLASH_LANES];

    for (int i = 0; i < FLASH_LANES; i++)
        row[i] = (const float *)bias.data + t->h * bias.stride[0] + r->q[i] * bias.stride[1] + p->g.start;
    if (t->f->in->add_bias) {
        t->f->in->add_bias(s, row, p->g.length);
        return;
    }
    for (int k = 0; k < p->g.length; k++)
        for (int i = 0; i < FLASH_LANES; i++)
            s[k * FLASH_LANES + i] += row[i][k] * (float)LOG2E;
}

/* Masks and biases: only groups that need them come here. */
static void amend(const struct task *t, int sub)
{
    struct lane_rule r;

    make_rule(&r, t, sub);
    for (int i = 0; i < t->n_pieces; i++) {
        const struct piece *p = &t->piece[i];

        if (present(t->c->bias) && p->g.source == 0)
            bias_piece(t, &r, p);
        for (int k = 0; p->g.masked && t->c->plan->mask.kind != MASK_NONE && k < p->g.length; k++)
            mask_row(t->s + (p->row + k) * FLASH_LANES, &t->c->plan->mask, &r, p->g.source, p->g.start + k);
    }
}

static void compute_group(struct task *t)
{
    const struct flash      *f = t->f;
    const struct attn_inner *in = f->in;

    for (int sub = 0; t->rows && sub < t->subtiles; sub++) {
        float *m = t->m + sub * FLASH_LANES, *l = t->l + sub * FLASH_LANES;

        for (int i = 0; i < t->n_pieces; i++) {
            const struct piece *p = &t->piece[i];
            in->scores(t->s + p->row * FLASH_LANES, t->q + sub * f->steps * FLASH_LANES, p->k, p->rows / FLASH_PANEL, f->steps,
                       t->scale, t->add + p->row);
        }
        if (t->special)
            amend(t, sub);
        in->soften(t->p, t->s, t->rows, m, l, t->keep);
        in->accumulate(t->acc + sub * f->channels * FLASH_LANES, t->p, t->values, t->n_values, f->channels / FLASH_PANEL,
                       f->panel_words, t->keep);
    }
    t->n_pieces = t->n_values = t->rows = 0;
    t->special = false;
}

static void store(const struct task *t, const struct attn_partial *to)
{
    const struct flash *f = t->f;
    const int64_t       Dv = f->c->out.o.dim[3];

    for (int sub = 0; sub < t->subtiles; sub++) {
        const float *acc = t->acc + sub * f->channels * FLASH_LANES, *m = t->m + sub * FLASH_LANES,
                    *l = t->l + sub * FLASH_LANES;
        _Alignas(64) float inv[FLASH_LANES];
        void              *row[FLASH_LANES];

        for (int i = 0; i < FLASH_LANES; i++) {
            const int64_t n = q_row(t, sub, i);
            inv[i] = m[i] == -INFINITY && l[i] == 0 ? 0 : 1 / l[i];
            row[i] = n < 0 ? NULL : attn_at(to->o, t->b, n, t->h);
            if (n >= 0 && present(to->lse))
                *attn_lse_at(to->lse, t->b, t->h, n) = inv[i] == 0 ? -INFINITY : (m[i] + log2f(l[i])) * (float)LN2;
        }
        if (f->in->finish && f->in->finish(row, to->o.type, acc, inv, Dv))
            continue;
        for (int i = 0; i < FLASH_LANES; i++)
            for (int64_t d = 0; row[i] && d < Dv; d++) {
                const float x = acc[d * FLASH_LANES + i] * inv[i];
                if (to->o.type == GV_F32)
                    ((float *)row[i])[d] = x;
                else
                    ((uint16_t *)row[i])[d] = f32_to_bf16(x);
            }
    }
}

static void run_task(struct task *t)
{
    struct attn_walk    w;
    struct attn_segment g;
    bool                split = t->c->plan && t->c->plan->entries && t->c->plan->split;

    begin(t);
    gv_attn_walk(&w, t->c, t->b, t->h, t->tile);
    while (gv_attn_walk_next(&w, &g)) {
        if (split && g.part) { /* groups end at the split, kept or not: the same bits either way */
            split = false;
            compute_group(t);
            if (t->c->first)
                store(t, t->c->first);
        }
        if (!take(t, &g)) {
            compute_group(t);
            take(t, &g);
        }
    }
    compute_group(t);
    if (split && t->c->first)
        store(t, t->c->first);
    store(t, &t->c->out);
}

/* ---- all tasks ---- */

struct layout {
    char  *base; /* NULL: only counts */
    size_t used;
};

static void *cut(struct layout *at, int64_t n, size_t size)
{
    void *p = at->base ? at->base + at->used : NULL;

    at->used += ((size_t)n * size + GV_ALIGN - 1) / GV_ALIGN * GV_ALIGN;
    return p;
}

/* Lays a worker's memory out from base; the bytes that it takes. */
static size_t lay_out(struct task *t, char *base)
{
    const struct flash *f = t->f;
    const int64_t       lanes = GV_TILE_Q / f->parts;
    struct layout       at = { base, 0 };

    t->q = cut(&at, f->steps * lanes, sizeof *t->q);
    t->acc = cut(&at, f->channels * lanes, sizeof *t->acc);
    t->m = cut(&at, lanes, sizeof *t->m);
    t->l = cut(&at, lanes, sizeof *t->l);
    t->keep = cut(&at, FLASH_LANES, sizeof *t->keep);
    t->s = cut(&at, FLASH_GROUP * FLASH_LANES, sizeof *t->s);
    t->add = cut(&at, FLASH_GROUP, sizeof *t->add);
    t->p = f->in->per_word == 1 ? (uint32_t *)t->s : cut(&at, FLASH_GROUP / 2 * FLASH_LANES, sizeof *t->p);
    t->own_k = cut(&at, FLASH_GROUP * f->steps, sizeof *t->own_k);
    t->own_v = cut(&at, GROUP_BLOCKS * f->block_words, sizeof *t->own_v);
    return at.used;
}

static int64_t chunk_tasks(const struct flash *f)
{
    return f->kv_heads * (f->c->q.dim[2] / f->c->source[0].k.dim[2]) * f->tiles * f->parts;
}

/* Task i: heads outermost, so that one head's keys stay in the caches; tiles as the plan orders them, longest first. */
static void place(struct task *t, int64_t i)
{
    const struct flash     *f = t->f;
    const struct attn_plan *plan = t->c->plan;
    const int64_t           group = t->c->q.dim[2] / t->c->source[0].k.dim[2], A_kv = t->c->source[0].k.dim[2];
    const int64_t           part = i % f->parts, lanes = GV_TILE_Q / f->parts;

    t->tile = i / f->parts % f->tiles;
    t->head = i / f->parts / f->tiles / group;
    t->b = (f->head0 + t->head) / A_kv;
    t->h = (f->head0 + t->head) % A_kv * group + i / f->parts / f->tiles % group;
    if (plan && plan->entries && plan->order)
        t->tile = plan->order[gv_attn_row(t->c, t->b, t->h, t->tile)] % f->tiles;
    t->row0 = t->tile * GV_TILE_Q + part * lanes;
    t->n_rows = attn_rows(t->c) - t->row0;
    t->n_rows = t->n_rows < lanes ? t->n_rows : lanes;
    t->subtiles = (int)((t->n_rows + FLASH_LANES - 1) / FLASH_LANES);
}

static void work(void *arg, int64_t worker)
{
    struct flash *f = arg;
    struct task   t = { .f = f, .c = f->c, .scale = gv_attn_scale(f->c) * (float)LOG2E };

    lay_out(&t, f->workers + (size_t)worker * f->worker_bytes);
    for (int64_t i; (i = (int64_t)atomic_fetch_add(&f->next, 1)) < chunk_tasks(f);) {
        place(&t, i);
        if (t.n_rows > 0 && !gv_attn_skipped(f->c, t.b, t.h, t.tile))
            run_task(&t);
    }
}

static void measure(struct flash *f)
{
    const struct attn_call *c = f->c;
    const int               per = f->in->per_word;

    f->steps = (c->q.dim[3] + per - 1) / per;
    f->channels = (c->out.o.dim[3] + FLASH_PANEL - 1) / FLASH_PANEL * FLASH_PANEL;
    f->panel_words = GV_KV_BLOCK / per * FLASH_PANEL;
    f->block_words = f->channels / FLASH_PANEL * f->panel_words;
    for (int i = 0; i < c->n_sources; i++)
        f->block[i + 1] = f->block[i] + (c->source[i].k.dim[1] + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    f->k_words = f->block[c->n_sources] * GV_KV_BLOCK * f->steps;
    f->v_words = f->block[c->n_sources] * f->block_words;
    f->tiles = attn_tiles(c);
    f->parts = 1;
    while (f->parts < SUBTILES && c->q.dim[0] * c->q.dim[2] * f->tiles * f->parts < MIN_TASKS)
        f->parts *= 2;
}

void gv_attn_flash(struct run *r, const struct attn_call *c, const struct attn_inner *inner)
{
    struct flash  f = { .c = c, .in = inner };
    struct task   t = { .f = &f };
    const int64_t heads = c->q.dim[0] * c->source[0].k.dim[2], threads = gv_cpu_threads(r->device);

    measure(&f);
    const int64_t head_bytes = (f.k_words + f.v_words) * (int64_t)sizeof *f.packed;
    const int64_t fit = head_bytes ? CHUNK_BYTES / head_bytes : heads, chunk = fit < 1 ? 1 : fit < heads ? fit : heads;
    f.worker_bytes = lay_out(&t, NULL);
    f.packed = gv_scratch_bytes(r, (size_t)(chunk * head_bytes));
    f.workers = gv_scratch_bytes(r, (size_t)threads * f.worker_bytes);
    if (gv_device_is_null(r->device))
        return;
    for (f.head0 = 0; f.head0 < heads && gv_run_ready(r); f.head0 += chunk) {
        f.kv_heads = heads - f.head0 < chunk ? heads - f.head0 : chunk;
        atomic_store(&f.next, 0);
        gv_parallel_for(r->device, f.kv_heads * f.block[c->n_sources], pack_block, &f);
        gv_parallel_for(r->device, threads, work, &f);
    }
}

const struct attn_inner *gv_attn_inner(const struct device *d, bool bf16)
{
    const unsigned flags = gv_cpu_flags(d);

    if (bf16 && flags & CPU_AVX512BF16)
        return &gv_attn_avx512_bf16;
    if (flags & CPU_AVX512)
        return &gv_attn_avx512_f32;
    return flags & CPU_AVX2 ? &gv_attn_avx2_f32 : NULL;
}

void gv_attn_cpu(struct run *r, const struct attn_call *c)
{
    bool bf16 = c->q.type == GV_BF16;

    for (int i = 0; i < c->n_sources; i++)
        bf16 = bf16 && c->source[i].k.type == GV_BF16 && c->source[i].v.type == GV_BF16;
    const struct attn_inner *inner = gv_attn_inner(r->device, bf16);
    if (inner)
        gv_attn_flash(r, c, inner);
    else
        gv_attn_c(r, c);
}
