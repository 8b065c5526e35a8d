/* Plans: what the checker refuses, what the builder makes, what the mask rule says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/plan.h"
#include "tests/attention/attn_cases.h"

static void an_entry_keeps_its_fields(void **state)
{
    (void)state;
    for (uint32_t start = 0; start < 1 << 22; start = start * 3 + 1)
        for (uint32_t length = 1; length <= 64; length += 9)
            for (uint32_t source = 0; source < 8; source++) {
                const gv_kv_entry e = kv_entry(start, length, source, start & 1);
                assert_int_equal(kv_start(e), start);
                assert_int_equal(kv_length(e), length);
                assert_int_equal(kv_source(e), source);
                assert_int_equal(kv_masked(e), start & 1);
            }
}

/* One row over 200 queries in 2 tiles; each case is a list for tile 0 and what the message must say. */
struct refusal {
    const char      *says; /* NULL: accepted */
    struct attn_mask mask;
    uint32_t         n, split; /* split: UINT32_MAX = none */
    gv_kv_entry      e[4];
};

#define E(start, length, source, masked) ((gv_kv_entry)((start) << 10 | ((length)-1) << 4 | (source) << 1 | (masked)))

static void check_refuses_what_would_be_wrong(void **state)
{
    static const struct refusal cases[] = {
        { NULL, { .kind = MASK_NONE }, 3, UINT32_MAX, { E(0u, 64u, 0u, 0u), E(64u, 10u, 0u, 0u), E(0u, 30u, 1u, 0u) } },
        { NULL, { .kind = MASK_NONE }, 3, 2, { E(64u, 64u, 0u, 0u), E(0u, 64u, 0u, 1u), E(0u, 30u, 1u, 1u) } },
        { NULL, { .kind = MASK_NONE }, 2, UINT32_MAX, { E(0u, 64u, 0u, 0u), GV_KV_PADDING } },
        { NULL, { .kind = MASK_NONE }, 0, UINT32_MAX, { 0 } },
        { "counts a key", { .kind = MASK_NONE }, 2, UINT32_MAX, { E(0u, 64u, 0u, 0u), E(63u, 10u, 0u, 0u) } },
        { "counts a key", { .kind = MASK_NONE }, 2, UINT32_MAX, { E(64u, 64u, 0u, 0u), E(64u, 1u, 0u, 1u) } },
        { "counts a key", { .kind = MASK_NONE }, 2, 1, { E(64u, 64u, 0u, 0u), E(10u, 64u, 0u, 0u) } },
        { "past the end", { .kind = MASK_NONE }, 1, UINT32_MAX, { E(250u, 64u, 0u, 0u) } },
        { "source that is not there", { .kind = MASK_NONE }, 1, UINT32_MAX, { E(0u, 1u, 2u, 0u) } },
        { "out of order", { .kind = MASK_NONE }, 2, UINT32_MAX, { E(64u, 64u, 0u, 0u), E(0u, 64u, 0u, 0u) } },
        { "out of order", { .kind = MASK_NONE }, 2, UINT32_MAX, { E(0u, 64u, 0u, 1u), E(64u, 64u, 0u, 0u) } },
        { "out of order", { .kind = MASK_NONE }, 2, UINT32_MAX, { E(0u, 8u, 1u, 0u), E(64u, 64u, 0u, 0u) } },
        { "forbids", { .kind = MASK_CAUSAL }, 1, UINT32_MAX, { E(64u, 64u, 0u, 0u) } },
        { NULL, { .kind = MASK_CAUSAL }, 1, UINT32_MAX, { E(64u, 64u, 0u, 1u) } },
        { NULL, { .kind = MASK_CAUSAL }, 1, UINT32_MAX, { E(0u, 1u, 0u, 0u) } },
        { "forbids", { .kind = MASK_CAUSAL }, 1, UINT32_MAX, { E(0u, 2u, 0u, 0u) } },
        { NULL, { .kind = MASK_CAUSAL, .query_start = 64 }, 1, UINT32_MAX, { E(0u, 64u, 0u, 0u) } },
        { "forbids", { .kind = MASK_WINDOW, .a = 100, .b = 1000 }, 1, UINT32_MAX, { E(0u, 64u, 0u, 0u) } },
        { NULL, { .kind = MASK_WINDOW, .a = 100, .b = 1000, .sink = 64 }, 1, UINT32_MAX, { E(0u, 64u, 0u, 0u) } },
        { "forbids", { .kind = MASK_BLOCK_CAUSAL, .a = 60 }, 1, UINT32_MAX, { E(0u, 64u, 0u, 0u) } },
        { NULL, { .kind = MASK_BLOCK_CAUSAL, .a = 64 }, 1, UINT32_MAX, { E(0u, 64u, 0u, 0u) } },
    };
    const int64_t keys[] = { 300, 30 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct refusal  *c = &cases[i];
        const uint32_t         row[] = { 0, c->n, c->n }, split[] = { c->split, c->n };
        struct error           e = { 0 };
        const struct attn_plan p = { .tile_q = GV_TILE_Q,
                                     .batch = 1,
                                     .list_heads = 1,
                                     .tiles = 2,
                                     .row = row,
                                     .entries = c->e,
                                     .split = c->split == UINT32_MAX ? NULL : split,
                                     .mask = c->mask };
        const gv_status        s = gv_plan_check(&p, 200, 2, keys, &e);
        if ((s == GV_OK) != !c->says || (c->says && !strstr(e.text, c->says)))
            fail_msg("case %zu: \"%s\", wanted \"%s\"", i, e.text, c->says ? c->says : "");
    }
}

static void check_refuses_rows_and_orders_that_are_not(void **state)
{
    const gv_kv_entry e[] = { E(0u, 64u, 0u, 0u) };
    const uint32_t backwards[] = { 1, 0, 1 }, row[] = { 0, 1, 1 }, outside[] = { 2, 1 }, twice[] = { 0, 0 }, good[] = { 1, 0 };
    const int64_t  keys = 64;
    struct attn_plan p = { .tile_q = GV_TILE_Q, .batch = 1, .list_heads = 1, .tiles = 2, .row = backwards, .entries = e };
    struct error     x = { 0 };

    (void)state;
    assert_int_equal(gv_plan_check(&p, 200, 1, &keys, &x), GV_ERR_INTERNAL);
    p.row = row;
    p.split = outside;
    assert_int_equal(gv_plan_check(&p, 200, 1, &keys, &x), GV_ERR_INTERNAL);
    p.split = NULL;
    p.order = twice;
    assert_int_equal(gv_plan_check(&p, 200, 1, &keys, &x), GV_ERR_INTERNAL);
    p.order = good;
    assert_int_equal(gv_plan_check(&p, 200, 1, &keys, &x), GV_OK);
    assert_int_equal(gv_plan_check(&p, 300, 1, &keys, &x), GV_ERR_INTERNAL);
}

/* ---- random lists, broken at random, beside a count of every key ---- */

enum { RANDOM_QUERIES = 200, RANDOM_KEYS = 400, RANDOM_ENTRIES = 64 };

/* Lists in order of two rows over two sources; the second part, if the row has one, goes on where the first ended or not. */
struct random_plan {
    gv_kv_entry      e[2 * RANDOM_ENTRIES];
    uint32_t         row[3], split[2];
    struct attn_plan p;
};

static uint32_t random_run(gv_kv_entry *e, uint64_t *seed, const struct attn_mask *m, int64_t q0, bool masked, uint8_t *taken)
{
    uint32_t n = 0;

    for (uint32_t source = 0; source < 2; source++)
        for (uint32_t k = (uint32_t)rnd_to(seed, 90); k < RANDOM_KEYS && n < RANDOM_ENTRIES / 5;
             k += (uint32_t)rnd_to(seed, 90)) {
            uint32_t length = 1 + (uint32_t)rnd_to(seed, 64);
            for (uint32_t i = 0; i < length; i++)
                if (k + i >= RANDOM_KEYS || taken[source * RANDOM_KEYS + k + i] ||
                    (!masked && (!gv_mask_allows(m, q0, (int)source, k + i))))
                    length = i;
            if (length)
                e[n++] = kv_entry(k, length, source, masked);
            memset(taken + source * RANDOM_KEYS + k, 1, length);
            k += length;
        }
    return n;
}

static void random_plan_make(struct random_plan *r, uint64_t *seed)
{
    uint32_t n = 0;

    r->p = (struct attn_plan){ .tile_q = GV_TILE_Q, .batch = 1, .list_heads = 1, .tiles = 2, .row = r->row, .entries = r->e };
    r->p.mask = rnd_to(seed, 2) ? (struct attn_mask){ .kind = MASK_CAUSAL, .a = (int64_t)rnd_to(seed, 300) } : r->p.mask;
    r->p.split = rnd_to(seed, 2) ? r->split : NULL;
    for (int row = 0; row < 2; row++) {
        uint8_t taken[2 * RANDOM_KEYS] = { 0 };
        r->row[row] = n;
        for (int part = 0; part < (r->p.split ? 2 : 1); part++) {
            r->split[row] = n;
            for (int masked = 0; masked < 2; masked++)
                n += random_run(r->e + n, seed, &r->p.mask, row * GV_TILE_Q, masked, taken);
        }
    }
    r->row[2] = n;
}

/* One thing goes wrong, or nothing that matters does. */
static void random_plan_break(struct random_plan *r, uint64_t *seed)
{
    gv_kv_entry      *e = &r->e[rnd_to(seed, r->row[2])], *other = &r->e[rnd_to(seed, r->row[2])];
    const gv_kv_entry was = *e;

    switch (rnd_to(seed, 5)) {
    case 0: /* a bit: of the start, the length, the source or the flag */ *e ^= (uint32_t)1 << rnd_to(seed, 32); break;
    case 1: /* twice */ *e = *other; break;
    case 2:
        *e = *other;
        *other = was;
        break;
    case 3: *e = GV_KV_PADDING; break;
    default: /* a little longer, or shorter */
        *e = kv_entry(kv_start(*e), 1 + (uint32_t)rnd_to(seed, 64), kv_source(*e), kv_masked(*e));
    }
}

/* What the header asks, entry by entry and pair by pair. */
static bool is_as_it_should_be(const struct random_plan *r)
{
    for (int row = 0; row < 2; row++) {
        uint8_t     count[2 * RANDOM_KEYS] = { 0 };
        gv_kv_entry before = GV_KV_PADDING;
        for (uint32_t at = r->row[row]; at < r->row[row + 1]; at++) {
            const gv_kv_entry e = r->e[at];
            if (r->p.split && at == r->split[row])
                before = GV_KV_PADDING;
            if (e == GV_KV_PADDING)
                continue;
            if (kv_source(e) > 1)
                return false;
            for (uint32_t k = kv_start(e); k < kv_start(e) + kv_length(e); k++) {
                if (k >= RANDOM_KEYS || count[kv_source(e) * RANDOM_KEYS + k]++)
                    return false;
                for (int64_t q = row * GV_TILE_Q; q < RANDOM_QUERIES && q < (row + 1) * GV_TILE_Q && !kv_masked(e); q++)
                    if (!gv_mask_allows(&r->p.mask, q, (int)kv_source(e), k))
                        return false;
            }
            if (before != GV_KV_PADDING &&
                (kv_masked(before) > kv_masked(e) ||
                 (kv_masked(before) == kv_masked(e) &&
                  (kv_source(before) > kv_source(e) || (kv_source(before) == kv_source(e) && kv_start(before) > kv_start(e))))))
                return false;
            before = e;
        }
    }
    return true;
}

static void check_refuses_what_a_count_of_every_key_refuses(void **state)
{
    const int64_t keys[] = { RANDOM_KEYS, RANDOM_KEYS };
    uint64_t      seed = test_seed();
    int           refused = 0, taken = 0;

    (void)state;
    for (int i = 0; i < 4000; i++) {
        struct random_plan r = { 0 };
        struct error       e = { 0 };
        const uint64_t     began = seed;
        do
            random_plan_make(&r, &seed);
        while (!r.row[2]);
        if (gv_plan_check(&r.p, RANDOM_QUERIES, 2, keys, &e) != GV_OK)
            fail_msg("list %d of seed %llu: %s", i, (unsigned long long)began, e.text);
        for (int n = (int)rnd_to(&seed, 3); n >= 0; n--)
            random_plan_break(&r, &seed);
        const bool good = is_as_it_should_be(&r);
        refused += !good;
        taken += good;
        if ((gv_plan_check(&r.p, RANDOM_QUERIES, 2, keys, &e) == GV_OK) != good)
            fail_msg("list %d of seed %llu: \"%s\", and it is %s", i, (unsigned long long)began, e.text,
                     good ? "right" : "wrong");
    }
    assert_true(refused > 1000 && taken > 300);
}

/* The rule, from the text of plan.h. */
static void mask_rule_is_what_the_header_says(void **state)
{
    (void)state;
    for (int64_t i = 0; i < 40; i++)
        for (int64_t j = 0; j < 60; j++) {
            struct attn_mask m = { .kind = MASK_CAUSAL, .a = 3 };
            assert_int_equal(gv_mask_allows(&m, i, 0, j), j <= i + 3);
            m.query_start = 7;
            m.key_start[1] = 4;
            assert_int_equal(gv_mask_allows(&m, i, 1, j), j + 4 <= i + 7 + 3);
            m = (struct attn_mask){ .kind = MASK_CAUSAL, .a = 1, .b = 4, .sink = 3 };
            assert_int_equal(gv_mask_allows(&m, i, 0, j), j <= i + 1 && (j > i - 3 || j < 3));
            m = (struct attn_mask){ .kind = MASK_WINDOW, .a = 5, .b = 2, .sink = 3 };
            assert_int_equal(gv_mask_allows(&m, i, 0, j), (j <= i + 2 && j >= i - 5) || j < 3);
            m = (struct attn_mask){ .kind = MASK_BLOCK_CAUSAL, .a = 1 };
            assert_int_equal(gv_mask_allows(&m, i, 0, j), j <= i); /* blocks of one: causal */
            m.a = 100;
            assert_true(gv_mask_allows(&m, i, 0, j)); /* one block: bidirectional */
            m.a = 16;
            assert_int_equal(gv_mask_allows(&m, i, 0, j), j / 16 <= i / 16);
        }
}

static enum block_verdict checkered(const void *arg, const struct plan_block *b)
{
    const int64_t n = b->q0 / GV_TILE_Q + b->k0 / GV_KV_BLOCK + b->head;

    (void)arg;
    return n % 3 == 0 ? BLOCK_NONE : n % 3 == 1 ? BLOCK_SOME : BLOCK_ALL;
}

static void builder_writes_each_verdict_once_longest_rows_first(void **state)
{
    const struct plan_shape s = { .list_heads = 3, .n_queries = 1000, .n_keys = 777 };
    const int64_t           keys = 777;
    struct attn_plan        p;
    struct error            e = { 0 };
    double                  pairs = 0;

    (void)state;
    assert_int_equal(gv_plan_from_blocks(&p, &s, checkered, NULL, &e), GV_OK);
    assert_int_equal(gv_plan_check(&p, 1000, 1, &keys, &e), GV_OK);
    for (uint32_t r = 0; r < 3 * 8; r++) {
        uint32_t found = 0;
        for (int64_t k = 0; k < 777; k += GV_KV_BLOCK) {
            const struct plan_block  b = { .head = (int)r / 8, .q0 = r % 8 * GV_TILE_Q, .k0 = k };
            const enum block_verdict v = checkered(NULL, &b);
            for (uint32_t at = p.row[r]; at < p.row[r + 1]; at++)
                if (kv_start(p.entries[at]) == k) {
                    found++;
                    assert_int_equal(kv_masked(p.entries[at]), v == BLOCK_SOME);
                    assert_int_equal(kv_length(p.entries[at]), k + 64 > 777 ? 777 - k : 64);
                    assert_int_not_equal(v, BLOCK_NONE);
                    pairs += (double)kv_length(p.entries[at]) * (r % 8 == 7 ? 1000 - 7 * 128 : 128);
                }
        }
        assert_int_equal(found, p.row[r + 1] - p.row[r]);
        if (r % 8)
            assert_true(p.row[p.order[r] + 1] - p.row[p.order[r]] <= p.row[p.order[r - 1] + 1] - p.row[p.order[r - 1]]);
    }
    assert_true(p.density > 0.999 * pairs / (3 * 1000. * 777) && p.density < 1.001 * pairs / (3 * 1000. * 777));
    gv_plan_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_keeps_its_fields),
        cmocka_unit_test(check_refuses_what_would_be_wrong),
        cmocka_unit_test(check_refuses_rows_and_orders_that_are_not),
        cmocka_unit_test(check_refuses_what_a_count_of_every_key_refuses),
        cmocka_unit_test(mask_rule_is_what_the_header_says),
        cmocka_unit_test(builder_writes_each_verdict_once_longest_rows_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
