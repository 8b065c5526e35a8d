/* Every CPU level's attention against float64, and what must hold to the bit. See attn_cases.h. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attn_cases.h"

static uint64_t seed;

enum { F32_TOLERANCE_INVERSE = 100000 }; /* decision 6 of the project: 1e-5 for O in f32 and for every LSE */

static struct case_shape random_shape(enum dtype type, unsigned with, uint64_t *state)
{
    static const int  head[] = { 64, 128, 16, 80, 7, 33, 8, 72 };
    static const int  group[] = { 1, 2, 3 };
    struct case_shape s = { .B = 1 + (int)rnd_to(state, 2), .Nq = 1 + (int)rnd_to(state, 300), .type = type, .with = with };

    s.A_kv = 1 + (int)rnd_to(state, 2);
    s.A = s.A_kv * group[rnd_to(state, 3)];
    s.D = head[rnd_to(state, 8)];
    s.Dv = rnd_to(state, 2) ? s.D : head[rnd_to(state, 8)];
    s.n_sources = 1 + (int)rnd_to(state, 3);
    if (with & WITH_ALWAYS)
        s.n_sources++;
    for (int i = 0; i < s.n_sources; i++)
        s.N[i] = 1 + (int)rnd_to(state, i ? 80 : 400);
    s.out = rnd_to(state, 2) ? GV_F32 : type;
    return s;
}

static void describe(const struct case_shape *s, const char *level, uint64_t at)
{
    printf("  %s: B %d Nq %d A %d/%d D %d/%d sources %d (%d...) %s → %s with %u, state %llu\n", level, s->B, s->Nq, s->A,
           s->A_kv, s->D, s->Dv, s->n_sources, s->N[0], gv_dtype_info(s->type)->name, gv_dtype_info(s->out)->name, s->with,
           (unsigned long long)at);
}

static double scale_of(const struct truth *t, int64_t n)
{
    double scale = 0;

    for (int64_t i = 0; i < n; i++)
        scale = fmax(scale, fabs(t->o[i]));
    return scale > 0 ? scale : 1;
}

/* O in f32 to 1e-5; in bf16 to 1.5 times what rounding the weights and the output alone does, and never finer than half a
 * unit in the last place twice over (2^-8). LSE to 1e-5. */
static void expect_close(const struct attn_case *k, const struct case_shape *s, const struct truth *t, const char *level,
                         uint64_t at)
{
    const int64_t           n = gv_tensor_count(k->c.out.o);
    const double            fine = 1.0 / F32_TOLERANCE_INVERSE;
    const bool              coarse = s->type == GV_BF16;
    const double            limit = coarse ? fmax(1.5 * t->bf16_error / scale_of(t, n), 0x1p-8) : fine;
    const struct difference d = compare(k, &k->c.out, t->o, t->lse, t);
    struct difference       f = { .untouched = true };

    if (k->c.first)
        f = compare(k, k->c.first, t->first_o, t->first_lse, t);
    if (d.o > limit || f.o > limit || d.lse > fine || f.lse > fine || !d.untouched || !f.untouched) {
        describe(s, level, at);
        fail_msg("O %.3g, first %.3g (limit %.3g); LSE %.3g, first %.3g (limit %.3g); other rows %s", d.o, f.o, limit, d.lse,
                 f.lse, fine, d.untouched && f.untouched ? "untouched" : "written");
    }
}

/* One case, one truth, every level that the processor has. */
static void check_case(const struct case_shape *s, uint64_t *state)
{
    const uint64_t   at = *state;
    struct attn_case k;
    struct truth     t;

    case_make(&k, s, state);
    truth_make(&t, &k);
    for (int l = 0; l < 4; l++) {
        struct device *d;
        if (!level_open(&d, levels[l], 2))
            continue;
        case_poison(&k);
        run_call(d, s->type, &k.c);
        expect_close(&k, s, &t, levels[l], at);
        gv_device_close(&d);
    }
    truth_free(&t);
    case_free(&k);
}

static void every_level_agrees(enum dtype type, unsigned with, int rounds)
{
    uint64_t state = seed + with;

    for (int i = 0; i < rounds; i++) {
        const struct case_shape s = random_shape(type, with, &state);
        check_case(&s, &state);
    }
}

static void dense_agrees_with_float64(void **state)
{
    (void)state;
    every_level_agrees(GV_F32, 0, 6);
    every_level_agrees(GV_BF16, 0, 6);
}

static void weights_and_key_bias_are_added_to_the_scores(void **state)
{
    (void)state;
    every_level_agrees(GV_F32, WITH_WEIGHTS, 4);
    every_level_agrees(GV_BF16, WITH_WEIGHTS, 4);
}

static void position_bias_is_added_to_the_scores(void **state)
{
    (void)state;
    every_level_agrees(GV_F32, WITH_BIAS, 4);
    every_level_agrees(GV_BF16, WITH_BIAS | WITH_WEIGHTS, 4);
}

static void lists_read_the_keys_they_name(void **state)
{
    (void)state;
    every_level_agrees(GV_F32, WITH_LISTS | WITH_EMPTY_ROWS, 8);
    every_level_agrees(GV_BF16, WITH_LISTS | WITH_EMPTY_ROWS, 8);
}

static void masked_entries_obey_the_rule(void **state)
{
    (void)state;
    every_level_agrees(GV_F32, WITH_LISTS | WITH_MASK, 8);
    every_level_agrees(GV_BF16, WITH_LISTS | WITH_MASK, 8);
}

static void seeded_and_split_lists_unite(void **state)
{
    (void)state;
    every_level_agrees(GV_F32, WITH_LISTS | WITH_MASK | WITH_SPLIT, 4);
    every_level_agrees(GV_F32, WITH_LISTS | WITH_SPLIT | WITH_SEED, 4);
    every_level_agrees(GV_BF16, WITH_LISTS | WITH_MASK | WITH_SEED | WITH_EMPTY_ROWS, 4);
}

static void everything_at_once(void **state)
{
    const unsigned all =
        WITH_LISTS | WITH_MASK | WITH_SPLIT | WITH_SEED | WITH_SKIP | WITH_ORDER | WITH_WEIGHTS | WITH_ALWAYS | WITH_EMPTY_ROWS;

    (void)state;
    every_level_agrees(GV_F32, all, 10);
    every_level_agrees(GV_BF16, all, 10);
}

static void long_and_wide_heads(void **state)
{
    struct case_shape shapes[] = {
        { .B = 1, .Nq = 70, .A = 1, .A_kv = 1, .D = 384, .Dv = 384, .n_sources = 1, .N = { 576 } },
        { .B = 1, .Nq = 40, .A = 2, .A_kv = 2, .D = 64, .Dv = 64, .n_sources = 1, .N = { 3001 } },
        { .B = 1, .Nq = 257, .A = 3, .A_kv = 3, .D = 80, .Dv = 80, .n_sources = 1, .N = { 257 } },
    };
    uint64_t at = seed;

    (void)state;
    for (int i = 0; i < 6; i++) {
        shapes[i / 2].type = shapes[i / 2].out = i % 2 ? GV_BF16 : GV_F32;
        check_case(&shapes[i / 2], &at);
    }
}

/* ---- what holds to the bit ---- */

static bool same_bits(struct tensor a, struct tensor b)
{
    return !memcmp(a.data, b.data, gv_tensor_bytes(a));
}

/* A case, run, and a second call made from the first by `change`, run on outputs of its own. */
struct pair {
    struct attn_case    k;
    struct attn_call    other;
    struct attn_partial out;
};

static void pair_make(struct pair *p, const struct case_shape *s, uint64_t *state)
{
    case_make(&p->k, s, state);
    p->other = p->k.c;
    p->out.o = case_tensor(&p->k, s->out, 4, p->k.c.out.o.dim, NULL);
    p->out.lse = case_tensor(&p->k, GV_F32, 3, p->k.c.out.lse.dim, NULL);
    p->other.out = p->out;
}

static void pair_same(struct pair *p, struct device *d, enum dtype type, const char *claim)
{
    run_call(d, type, &p->k.c);
    run_call(d, type, &p->other);
    if (!same_bits(p->k.c.out.o, p->out.o) || !same_bits(p->k.c.out.lse, p->out.lse))
        fail_msg("%s: %s differs", gv_dtype_info(type)->name, claim);
    case_free(&p->k);
}

/* A list of every key, in blocks. */
static void full_plan(struct attn_case *k, const struct case_shape *s)
{
    const int    tiles = (s->Nq + GV_TILE_Q - 1) / GV_TILE_Q;
    uint32_t    *row = case_alloc(k, ((size_t)tiles + 1) * sizeof *row), n = 0;
    gv_kv_entry *e = case_alloc(k, (size_t)tiles * 1000 * sizeof *e);

    for (int t = 0; t < tiles; t++) {
        row[t] = n;
        for (int src = 0; src < s->n_sources; src++)
            for (int at = 0; at < s->N[src]; at += GV_KV_BLOCK)
                e[n++] = kv_entry((uint32_t)at, (uint32_t)(s->N[src] - at < GV_KV_BLOCK ? s->N[src] - at : GV_KV_BLOCK),
                                  (uint32_t)src, 0);
    }
    row[tiles] = n;
    k->plan = (struct attn_plan){
        .tile_q = GV_TILE_Q, .batch = 1, .list_heads = 1, .tiles = tiles, .row = row, .entries = e, .density = 1
    };
}

static void for_each_level(void (*claim)(struct device *d, enum dtype type, uint64_t *state))
{
    for (int l = 0; l < 4; l++) {
        struct device *d;
        uint64_t       state = seed;

        if (!level_open(&d, levels[l], 2))
            continue;
        for (int i = 0; i < 3; i++) {
            claim(d, GV_F32, &state);
            claim(d, GV_BF16, &state);
        }
        gv_device_close(&d);
    }
}

static void full_list(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, WITH_WEIGHTS, state);
    struct pair       p;

    pair_make(&p, &s, state);
    full_plan(&p.k, &s);
    p.other.plan = &p.k.plan;
    pair_same(&p, d, type, "a full list against dense");
}

static void full_list_is_dense_to_the_bit(void **state)
{
    (void)state;
    for_each_level(full_list);
}

static void split_store(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, WITH_LISTS | WITH_MASK | WITH_SPLIT | WITH_ALWAYS, state);
    struct pair       p;

    pair_make(&p, &s, state);
    p.other.first = NULL;
    pair_same(&p, d, type, "a split run that keeps no first part");
}

static void keeping_the_first_part_changes_no_bit(void **state)
{
    (void)state;
    for_each_level(split_store);
}

/* Restarting from the stored f32 first part agrees with the run that went on: within rounding, since a partial is normalised. */
static void restart(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, WITH_LISTS | WITH_SPLIT, state);
    struct pair       p;

    s.out = GV_F32;
    pair_make(&p, &s, state);
    run_call(d, type, &p.k.c);
    struct attn_plan second = p.k.plan;
    const int64_t    rows = (int64_t)second.batch * second.list_heads * second.tiles;
    gv_kv_entry     *e = case_alloc(&p.k, second.row[rows] * sizeof *e + 4);
    memcpy(e, second.entries, second.row[rows] * sizeof *e);
    for (int64_t i = 0; i < rows; i++)
        for (uint32_t n = second.row[i]; n < second.split[i]; n++)
            e[n] = GV_KV_PADDING;
    second.entries = e;
    second.split = NULL;
    p.other.plan = &second;
    p.other.first = NULL;
    p.other.seed = &p.k.first;
    run_call(d, type, &p.other);
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < gv_tensor_count(p.out.o); i++) {
        const double a = (double)((float *)p.out.o.data)[i], b = (double)((float *)p.k.c.out.o.data)[i];
        worst = fmax(worst, isnan(a) ? INFINITY : fabs(a - b));
        scale = fmax(scale, fabs(b));
    }
    /* bf16 products round the weights, and the two runs round them against different maxima */
    assert_true(worst <= scale * (type == GV_BF16 ? 0x1p-8 : 2e-6));
    case_free(&p.k);
}

static void a_stored_first_part_can_be_taken_up_again(void **state)
{
    (void)state;
    for_each_level(restart);
}

/* Entries start anywhere: keys moved by any number of places, and the list with them, give the same bits. */
static void shifted(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, 0, state);
    struct pair       p;

    s.n_sources = 1;
    pair_make(&p, &s, state);
    full_plan(&p.k, &s);
    const int64_t       by = 1 + rnd_to(state, 63), n = s.N[0];
    struct attn_source *src = &p.other.source[0];
    struct tensor       k = p.k.c.source[0].k, v = p.k.c.source[0].v;
    src->k = case_tensor(&p.k, type, 4, DIMS(k.dim[0], n + 100, k.dim[2], k.dim[3]), NULL); /* NaN around what is listed */
    src->v = case_tensor(&p.k, type, 4, DIMS(v.dim[0], n + 100, v.dim[2], v.dim[3]), NULL);
    for (int64_t b = 0; b < k.dim[0]; b++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t a = 0; a < k.dim[2]; a++)
                for (int64_t x = 0; x < k.dim[3]; x++)
                    set(src->k, b, i + by, a, x, get(k, b, i, a, x));
    for (int64_t b = 0; b < v.dim[0]; b++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t a = 0; a < v.dim[2]; a++)
                for (int64_t x = 0; x < v.dim[3]; x++)
                    set(src->v, b, i + by, a, x, get(v, b, i, a, x));
    struct attn_plan moved = p.k.plan;
    gv_kv_entry     *e = case_alloc(&p.k, moved.row[moved.tiles] * sizeof *e);
    for (uint32_t i = 0; i < moved.row[moved.tiles]; i++)
        e[i] = moved.entries[i] + ((uint32_t)by << 10);
    moved.entries = e;
    p.other.plan = &moved;
    pair_same(&p, d, type, "a list at an odd start");
}

static void unaligned_entries_give_the_same_bits_and_read_nothing_else(void **state)
{
    (void)state;
    for_each_level(shifted);
}

/* An extra source behind whole blocks is the concatenation of keys. */
static void concatenated(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, 0, state);
    struct pair       p;

    s.n_sources = 1;
    s.N[0] = 128 + 50;
    pair_make(&p, &s, state);
    p.other.n_sources = 2;
    p.other.source[1] = p.other.source[0];
    p.other.source[0].k = slice(p.k.c.source[0].k, 1, 0, 128);
    p.other.source[0].v = slice(p.k.c.source[0].v, 1, 0, 128);
    p.other.source[1].k = slice(p.k.c.source[0].k, 1, 128, 50);
    p.other.source[1].v = slice(p.k.c.source[0].v, 1, 128, 50);
    p.other.source[1].always = true;
    pair_same(&p, d, type, "a second source against one of both");
}

static void an_extra_source_is_concatenation(void **state)
{
    (void)state;
    for_each_level(concatenated);
}

/* Queries in another order, outputs put back: the same bits wherever they land. */
static void permuted(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, 0, state);
    struct pair       p;

    pair_make(&p, &s, state);
    p.other.q_order = case_tensor(&p.k, GV_I32, 1, DIMS(s.Nq), NULL);
    int32_t *order = p.other.q_order.data;
    for (int i = 0; i < s.Nq; i++)
        order[i] = s.Nq - 1 - i;
    pair_same(&p, d, type, "queries in reverse");
}

static void query_order_changes_no_bit(void **state)
{
    (void)state;
    for_each_level(permuted);
}

/* t [B, N, A, D] with token n of head a from row (back: to row) table[of[a]][n]; t itself where it is absent. */
static struct tensor in_head_order(struct attn_case *k, struct tensor t, const struct attn_head_order *o, bool back)
{
    struct tensor to = case_tensor(k, t.type, 4, t.dim, NULL);

    for (int64_t b = 0; b < t.dim[0]; b++)
        for (int64_t n = 0; n < t.dim[1]; n++)
            for (int64_t a = 0; a < t.dim[2]; a++)
                for (int64_t d = 0; d < t.dim[3]; d++) {
                    const int64_t at = o->table[o->of[a] * t.dim[1] + n];
                    set(to, b, back ? at : n, a, d, get(t, b, back ? n : at, a, d));
                }
    return to;
}

static struct tensor lse_in_head_order(struct attn_case *k, struct tensor t, const struct attn_head_order *o, bool back)
{
    const int64_t N = t.dim[2];
    struct tensor to = case_tensor(k, GV_F32, 3, t.dim, NULL);

    for (int64_t i = 0; i < gv_tensor_count(t); i++) {
        const int64_t at = i / N * N + o->table[o->of[i / N % t.dim[1]] * N + i % N];
        ((float *)to.data)[back ? at : i] = ((const float *)t.data)[back ? i : at];
    }
    return to;
}

/* Every head in its own order: the bits of a call on tokens that were put into it, put back. */
static void ordered_by_head(struct device *d, enum dtype type, uint64_t *state)
{
    enum { ORDERS = 3 };
    struct case_shape s = random_shape(type, WITH_LISTS | WITH_MASK | WITH_SPLIT | WITH_SEED | WITH_ALWAYS, state);
    struct pair       p;

    s.A_kv = s.A;
    s.N[0] = s.Nq;
    for (pair_make(&p, &s, state); p.k.plan.mask.kind == MASK_SEGMENTS; pair_make(&p, &s, state))
        case_free(&p.k);
    int32_t *table = case_alloc(&p.k, sizeof *table * ORDERS * (size_t)s.Nq);
    uint8_t *of = case_alloc(&p.k, (size_t)s.A);
    for (int i = 0; i < ORDERS * s.Nq; i++) { /* inside out: each table a permutation */
        int32_t      *own = table + i / s.Nq * s.Nq;
        const int64_t n = i % s.Nq, j = rnd_to(state, n + 1);
        own[n] = own[j];
        own[j] = (int32_t)n;
    }
    for (int a = 0; a < s.A; a++)
        of[a] = (uint8_t)rnd_to(state, ORDERS);
    const struct attn_head_order order = { table, of };
    struct attn_call            *c = &p.other;
    struct attn_partial          seed_moved = *c->seed, first = { case_tensor(&p.k, c->first->o.type, 4, c->first->o.dim, NULL),
                                                                  case_tensor(&p.k, GV_F32, 3, c->first->lse.dim, NULL) };
    c->q = in_head_order(&p.k, c->q, &order, false);
    c->source[0].k = in_head_order(&p.k, c->source[0].k, &order, false);
    c->source[0].v = in_head_order(&p.k, c->source[0].v, &order, false);
    seed_moved.o = in_head_order(&p.k, seed_moved.o, &order, false);
    seed_moved.lse = lse_in_head_order(&p.k, seed_moved.lse, &order, false);
    c->seed = &seed_moved;
    c->first = &first;
    p.k.c.head_order = &order;
    run_call(d, type, &p.k.c);
    run_call(d, type, c);
    if (!same_bits(p.k.c.out.o, in_head_order(&p.k, p.out.o, &order, true)) ||
        !same_bits(p.k.c.out.lse, lse_in_head_order(&p.k, p.out.lse, &order, true)) ||
        !same_bits(p.k.c.first->o, in_head_order(&p.k, first.o, &order, true)))
        fail_msg("%s: orders by head differ from tokens put in order", gv_dtype_info(type)->name);
    case_free(&p.k);
}

static void an_order_for_each_head_is_tokens_put_in_order(void **state)
{
    (void)state;
    if (!getenv("GV_TEST_DEVICE")) /* the CPU's alone: others say so (shapes_that_do_not_fit_are_named) */
        for_each_level(ordered_by_head);
}

/* A mask that allows every pair of an entry changes nothing. */
static void flagged(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, 0, state);
    struct pair       p;

    pair_make(&p, &s, state);
    full_plan(&p.k, &s);
    struct attn_plan masked = p.k.plan;
    const uint32_t   n = masked.row[masked.tiles];
    gv_kv_entry     *e = case_alloc(&p.k, n * sizeof *e + 4);
    for (uint32_t i = 0; i < n; i++)
        e[i] = masked.entries[i] | 1;
    masked.entries = e;
    masked.mask = (struct attn_mask){ .kind = MASK_CAUSAL, .a = 100000 };
    p.k.c.plan = &p.k.plan;
    p.other.plan = &masked;
    pair_same(&p, d, type, "entries masked without need");
}

static void masking_what_is_allowed_changes_no_bit(void **state)
{
    (void)state;
    for_each_level(flagged);
}

/* Rows that are computed do not feel those that are skipped, and nobody writes those. */
static void skipped(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, WITH_LISTS | WITH_SKIP, state);
    struct pair       p;

    pair_make(&p, &s, state);
    p.k.c.skip = NULL;
    run_call(d, type, &p.k.c);
    run_call(d, type, &p.other);
    const struct attn_plan *plan = &p.k.plan;
    const int64_t          *dim = p.out.o.dim;
    for (int64_t b = 0; b < dim[0]; b++)
        for (int64_t n = 0; n < dim[1]; n++)
            for (int64_t a = 0; a < dim[2]; a++) {
                const int64_t row =
                    ((plan->batch == 1 ? 0 : b) * plan->list_heads + a * plan->list_heads / dim[2]) * plan->tiles +
                    n / GV_TILE_Q;
                if (p.other.skip[row / 32] >> row % 32 & 1)
                    assert_true(isnan(get(p.out.lse, b, a, n, 0)) && isnan(get(p.out.o, b, n, a, 0)));
                else
                    for (int64_t i = 0; i < dim[3]; i++)
                        assert_true(get(p.out.o, b, n, a, i) == get(p.k.c.out.o, b, n, a, i));
            }
    case_free(&p.k);
}

static void skipping_rows_leaves_the_others_bits(void **state)
{
    (void)state;
    for_each_level(skipped);
}

/* One key that weighs ln n more is n copies of it. */
static void copies(struct device *d, enum dtype type, uint64_t *state)
{
    enum { COPIES = 5 };
    struct case_shape s = random_shape(type, 0, state);
    struct pair       p;

    s.n_sources = 1;
    s.out = GV_F32;
    pair_make(&p, &s, state);
    struct attn_source *one = &p.k.c.source[0], *many = &p.other.source[0];
    one->key_bias = case_tensor(&p.k, GV_F32, 1, DIMS(s.N[0]), NULL);
    for (int i = 0; i < s.N[0]; i++)
        set(one->key_bias, i, 0, 0, 0, i == 0 ? logf(COPIES) : 0);
    many->k = case_tensor(&p.k, type, 4, DIMS(one->k.dim[0], s.N[0] + COPIES - 1, s.A_kv, s.D), NULL);
    many->v = case_tensor(&p.k, type, 4, DIMS(one->v.dim[0], s.N[0] + COPIES - 1, s.A_kv, s.Dv), NULL);
    for (int64_t n = 0; n < s.N[0] + COPIES - 1; n++)
        for (int64_t a = 0; a < s.A_kv; a++) {
            const int64_t from = n < COPIES ? 0 : n - COPIES + 1;
            for (int64_t b = 0; b < one->k.dim[0]; b++)
                for (int64_t i = 0; i < s.D; i++)
                    set(many->k, b, n, a, i, get(one->k, b, from, a, i));
            for (int64_t b = 0; b < one->v.dim[0]; b++)
                for (int64_t i = 0; i < s.Dv; i++)
                    set(many->v, b, n, a, i, get(one->v, b, from, a, i));
        }
    run_call(d, type, &p.k.c);
    run_call(d, type, &p.other);
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < gv_tensor_count(p.out.o); i++) {
        const double a = (double)((float *)p.out.o.data)[i], b = (double)((float *)p.k.c.out.o.data)[i];
        worst = fmax(worst, fabs(a - b));
        scale = fmax(scale, fabs(b));
    }
    assert_true(worst <= scale * (type == GV_BF16 ? 0x1p-8 : 1e-5));
    for (int64_t i = 0; i < gv_tensor_count(p.out.lse); i++)
        assert_true(fabsf(((float *)p.out.lse.data)[i] - ((float *)p.k.c.out.lse.data)[i]) <
                    1e-5f * fmaxf(1, fabsf(((float *)p.out.lse.data)[i])));
    case_free(&p.k);
}

static void a_bias_of_ln_n_is_n_copies_of_the_key(void **state)
{
    (void)state;
    for_each_level(copies);
}

/* Rows whose keys are all masked are empty, alone and as parts of a union. */
static void all_masked(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, 0, state);
    struct attn_case  k;

    case_make(&k, &s, state);
    full_plan(&k, &s);
    gv_kv_entry *e = case_alloc(&k, k.plan.row[k.plan.tiles] * sizeof *e + 4);
    for (uint32_t i = 0; i < k.plan.row[k.plan.tiles]; i++)
        e[i] = k.plan.entries[i] | 1;
    k.plan.entries = e;
    k.plan.mask = (struct attn_mask){ .kind = MASK_CAUSAL, .a = -100000 };
    k.c.plan = &k.plan;
    run_call(d, type, &k.c);
    for (int64_t b = 0; b < s.B; b++)
        for (int64_t n = 0; n < s.Nq; n++)
            for (int64_t a = 0; a < s.A; a++) {
                assert_true(get(k.c.out.lse, b, a, n, 0) == -INFINITY);
                for (int64_t i = 0; i < s.Dv; i++)
                    assert_true(get(k.c.out.o, b, n, a, i) == 0);
            }
    case_free(&k);
}

static void rows_whose_keys_are_all_masked_are_empty(void **state)
{
    (void)state;
    for_each_level(all_masked);
}

/* What is not a number stays visible: a NaN in a key makes its readers' output NaN, and only theirs. */
static void with_nan(struct device *d, enum dtype type, uint64_t *state)
{
    struct case_shape s = random_shape(type, 0, state);
    struct attn_case  k;

    s.A_kv = 2;
    s.A = 4;
    case_make(&k, &s, state);
    set(k.c.source[0].k, 0, rnd_to(state, s.N[0]), 1, 0, NAN);
    run_call(d, type, &k.c);
    for (int64_t n = 0; n < s.Nq; n++)
        for (int64_t a = 0; a < 4; a++)
            assert_int_equal(isnan(get(k.c.out.o, 0, n, a, s.Dv - 1)) != 0, a >= 2);
    case_free(&k);
}

static void nan_in_a_key_reaches_its_readers_and_no_one_else(void **state)
{
    (void)state;
    for_each_level(with_nan);
}

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (int l = 0; l < 4; l++)
        for (int type = 0; type < 2; type++) {
            struct device    *one, *three;
            uint64_t          at = seed;
            struct case_shape s = random_shape(type ? GV_BF16 : GV_F32, WITH_LISTS | WITH_MASK, &at);
            struct pair       p;
            if (!level_open(&one, levels[l], 1) || !level_open(&three, levels[l], 3))
                continue;
            pair_make(&p, &s, &at);
            run_call(one, s.type, &p.k.c);
            run_call(three, s.type, &p.other);
            assert_true(same_bits(p.k.c.out.o, p.out.o) && same_bits(p.k.c.out.lse, p.out.lse));
            case_free(&p.k);
            gv_device_close(&one);
            gv_device_close(&three);
        }
}

/* ---- merge ---- */

/* Keys cut into parts at random, each attended to alone, then united: the result of one call over all. */
static void merged(struct device *d, enum dtype type, uint64_t *state)
{
    enum { PARTS = 4 };
    struct case_shape   s = random_shape(type, 0, state);
    struct attn_case    k;
    struct attn_partial part[PARTS], all;
    struct truth        t;
    struct run          r;
    struct error        e = { 0 };
    int64_t             from = 0;

    s.n_sources = 1;
    s.out = GV_F32;
    case_make(&k, &s, state);
    truth_make(&t, &k);
    for (int i = 0; i < PARTS; i++) {
        const int64_t    to = i == PARTS - 1 ? s.N[0] : from + rnd_to(state, s.N[0] - from + 1);
        struct attn_call c = k.c;
        part[i].o = case_tensor(&k, GV_F32, 4, k.c.out.o.dim, NULL);
        part[i].lse = case_tensor(&k, GV_F32, 3, k.c.out.lse.dim, NULL);
        c.out = part[i];
        c.source[0].k = slice(c.source[0].k, 1, from, to - from); /* may be empty */
        c.source[0].v = slice(c.source[0].v, 1, from, to - from);
        run_call(d, type, &c);
        from = to;
    }
    all = k.c.out;
    assert_int_equal(gv_run_open(&r, d, type, 0, &e), GV_OK);
    gv_attn_merge(&r, &all, part, PARTS);
    gv_sync(&r);
    assert_int_equal(r.err.code, GV_OK);
    const struct difference x = compare(&k, &all, t.o, t.lse, &t);
    assert_true(x.o <= (type == GV_BF16 ? 0x1p-8 : 2e-5) && x.lse <= 1e-5);
    /* in another order, two by two */
    struct attn_partial two[2];
    for (int i = 0; i < 2; i++) {
        two[i].o = case_tensor(&k, GV_F32, 4, k.c.out.o.dim, NULL);
        two[i].lse = case_tensor(&k, GV_F32, 3, k.c.out.lse.dim, NULL);
        gv_attn_merge(&r, &two[i], (struct attn_partial[]){ part[3 - i], part[i] }, 2);
    }
    gv_attn_merge(&r, &two[0], two, 2);
    gv_sync(&r);
    const struct difference y = compare(&k, &two[0], t.o, t.lse, &t);
    assert_true(y.o <= (type == GV_BF16 ? 0x1p-8 : 2e-5) && y.lse <= 1e-5);
    /* with an empty part in front and behind: the same bits */
    struct attn_partial with[3] = { part[0], all, part[0] }, same = part[1];
    for (int64_t i = 0; i < gv_tensor_count(part[0].lse); i++)
        ((float *)part[0].lse.data)[i] = -INFINITY;
    memset(part[0].o.data, 0, gv_tensor_bytes(part[0].o));
    gv_attn_merge(&r, &same, with, 3);
    gv_sync(&r);
    assert_true(same_bits(same.o, all.o) && same_bits(same.lse, all.lse));
    gv_attn_merge(&r, &all, with + 1, 2); /* onto itself */
    gv_sync(&r);
    assert_true(same_bits(same.o, all.o) && same_bits(same.lse, all.lse));
    gv_attn_merge(&r, &same, (struct attn_partial[]){ part[0], part[0] }, 2);
    gv_sync(&r);
    assert_true(same_bits(same.o, part[0].o) && same_bits(same.lse, part[0].lse));
    gv_run_close(&r);
    truth_free(&t);
    case_free(&k);
}

static void merge_unites_any_parts_and_an_empty_one_changes_no_bit(void **state)
{
    (void)state;
    for_each_level(merged);
}

/* ---- checks and the dry run ---- */

static void shapes_that_do_not_fit_are_named(void **state)
{
    struct device   *d;
    uint64_t         at = seed;
    struct attn_case k;
    struct run       r;
    struct error     e = { 0 };

    (void)state;
    assert_true(level_open(&d, "c", 1));
    case_make(&k, &(struct case_shape){ .B = 1, .Nq = 5, .A = 4, .A_kv = 2, .D = 8, .Dv = 8, .n_sources = 1, .N = { 9 } }, &at);
    for (int i = 0; i < 7; i++) {
        static const char *const     word[] = { "k", "v", "out", "bias", "q_order", "skip", "head_order" };
        const struct attn_head_order order = { NULL, NULL };
        const uint32_t               skip = 0;
        struct attn_call             c = k.c;
        if (i == 0)
            c.source[0].k.dim[3] = 7;
        if (i == 1)
            c.source[0].v.dim[1] = 8;
        if (i == 2)
            c.out.o.dim[2] = 2;
        if (i == 3)
            c.bias = k.c.out.lse;
        if (i == 4)
            c.q_order = k.c.out.lse;
        if (i == 5)
            c.skip = &skip;
        if (i == 6)
            c.head_order = &order; /* and four heads share two of keys */
        assert_int_equal(gv_run_open(&r, d, GV_F32, 1 << 20, &e), GV_OK);
        gv_attention(&r, &c);
        assert_int_equal(r.err.code, GV_ERR_INTERNAL);
        assert_non_null(strstr(r.err.text, word[i]));
        gv_run_close(&r);
    }
    case_free(&k);
    gv_device_close(&d);
}

static void dry_run_takes_the_same_scratch_and_counts_the_same_flops(void **state)
{
    (void)state;
    for (int l = 0; l < 4; l++)
        for (int i = 0; i < 6; i++) {
            struct device   *d, *null;
            uint64_t         at = seed + (uint64_t)i;
            struct attn_case k;
            struct run       real, dry;
            struct error     e = { 0 };
            const enum dtype type = i % 2 ? GV_BF16 : GV_F32;
            if (!level_open(&d, levels[l], 2))
                continue;
            struct case_shape s = random_shape(type, i < 3 ? 0 : WITH_LISTS | WITH_ORDER | WITH_ALWAYS, &at);
            case_make(&k, &s, &at);
            assert_int_equal(gv_device_null(&null, d, &e), GV_OK);
            assert_int_equal(gv_run_open(&dry, null, type, 0, &e), GV_OK);
            gv_attention(&dry, &k.c);
            assert_int_equal(dry.err.code, GV_OK);
            assert_int_equal(gv_run_open(&real, d, type, dry.scratch.peak, &e), GV_OK);
            gv_attention(&real, &k.c);
            assert_int_equal(real.err.code, GV_OK);
            assert_int_equal(real.scratch.peak, dry.scratch.peak);
            assert_true(real.flops == dry.flops && real.flops > 0);
            gv_run_close(&real);
            gv_run_close(&dry);
            case_free(&k);
            gv_device_close(&null);
            gv_device_close(&d);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_agrees_with_float64),
        cmocka_unit_test(weights_and_key_bias_are_added_to_the_scores),
        cmocka_unit_test(position_bias_is_added_to_the_scores),
        cmocka_unit_test(lists_read_the_keys_they_name),
        cmocka_unit_test(masked_entries_obey_the_rule),
        cmocka_unit_test(seeded_and_split_lists_unite),
        cmocka_unit_test(everything_at_once),
        cmocka_unit_test(long_and_wide_heads),
        cmocka_unit_test(full_list_is_dense_to_the_bit),
        cmocka_unit_test(keeping_the_first_part_changes_no_bit),
        cmocka_unit_test(a_stored_first_part_can_be_taken_up_again),
        cmocka_unit_test(unaligned_entries_give_the_same_bits_and_read_nothing_else),
        cmocka_unit_test(an_extra_source_is_concatenation),
        cmocka_unit_test(query_order_changes_no_bit),
        cmocka_unit_test(an_order_for_each_head_is_tokens_put_in_order),
        cmocka_unit_test(masking_what_is_allowed_changes_no_bit),
        cmocka_unit_test(skipping_rows_leaves_the_others_bits),
        cmocka_unit_test(a_bias_of_ln_n_is_n_copies_of_the_key),
        cmocka_unit_test(rows_whose_keys_are_all_masked_are_empty),
        cmocka_unit_test(nan_in_a_key_reaches_its_readers_and_no_one_else),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(merge_unites_any_parts_and_an_empty_one_changes_no_bit),
        cmocka_unit_test(shapes_that_do_not_fit_are_named),
        cmocka_unit_test(dry_run_takes_the_same_scratch_and_counts_the_same_flops),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
