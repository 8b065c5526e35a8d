/* Block scores, the rules that choose by them, and the policies made of both. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/policy.h"
#include "attention/select.h"
#include "attn_cases.h"

static uint64_t       seed;
static struct device *device;

/* ---- rules ---- */

/* By the text: sort by higher score, then lower index; take while the rule says so. */
static void slow_select(uint8_t *keep, const float *score, int n, const struct select_rule *rule)
{
    double all = 0, sum = 0;
    int    left = 0, taken = 0;

    for (int i = 0; i < n; i++)
        if (score[i] > -INFINITY) {
            all += (double)score[i];
            left++;
        }
    for (; left; left--, taken++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!keep[i] && score[i] > -INFINITY && (best < 0 || score[i] > score[best]))
                best = i;
        const double with = sum + (double)score[best];
        const bool   share = rule->kind == SELECT_SHARE && taken < (int)ceil(rule->amount * n);
        const bool mass = rule->kind == SELECT_MASS && (rule->crossing ? sum < rule->amount * all : with <= rule->amount * all);
        if (!share && !mass && taken >= rule->least)
            return;
        keep[best] = 1;
        sum = with;
    }
}

static void rules_choose_what_their_text_says(void **state)
{
    uint64_t at = seed;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        const int                n = 1 + (int)rnd_to(&at, 90);
        const struct select_rule rule = { .kind = (enum select_kind)rnd_to(&at, 2),
                                          .amount = (double)rnd_to(&at, 11) / 10,
                                          .crossing = rnd_to(&at, 2),
                                          .least = rnd_to(&at, 3) };
        float                    score[90];
        uint8_t                  fast[90] = { 0 }, slow[90] = { 0 };
        int32_t                  order[90];
        for (int i = 0; i < n; i++)
            score[i] = rnd_to(&at, 12) ? (float)rnd_to(&at, 8) : -INFINITY; /* whole numbers: many ties, exact sums */
        gv_select(fast, score, n, &rule, order);
        slow_select(slow, score, n, &rule);
        assert_memory_equal(fast, slow, sizeof fast);
    }
}

static void the_crossing_block_is_in_or_out(void **state)
{
    static const float p[] = { 3, 10, 2, 5 }; /* of 20: 0.15, 0.5, 0.1, 0.25, but exact */
    static const struct {
        double amount;
        bool   crossing;
        int    kept;
    } cases[] = { { 0.8, true, 3 }, { 0.8, false, 2 }, { 0.75, true, 2 }, { 0.75, false, 2 },
                  { 0.1, true, 1 }, { 0.1, false, 0 }, { 1, true, 4 } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t keep[4] = { 0 };
        int32_t order[4];
        gv_select(keep, p, 4,
                  &(struct select_rule){ .kind = SELECT_MASS, .amount = cases[i].amount, .crossing = cases[i].crossing },
                  order);
        assert_int_equal(keep[0] + keep[1] + keep[2] + keep[3], cases[i].kept);
    }
}

static void asking_for_more_never_drops_a_block(void **state)
{
    uint64_t at = seed;

    (void)state;
    for (int kind = 0; kind < 4; kind++)
        for (int round = 0; round < 50; round++) {
            float   score[64];
            uint8_t before[64] = { 0 };
            int32_t order[64];
            for (int i = 0; i < 64; i++)
                score[i] = fabsf(rnd_normal(&at));
            for (double amount = 0; amount <= 1; amount += 0.05) {
                uint8_t keep[64] = { 0 };
                gv_select(keep, score, 64,
                          &(struct select_rule){ .kind = (enum select_kind)(kind / 2), .amount = amount, .crossing = kind % 2 },
                          order);
                for (int i = 0; i < 64; i++)
                    assert_true(keep[i] >= before[i]);
                memcpy(before, keep, sizeof keep);
            }
        }
}

static void forced_blocks_are_kept(void **state)
{
    (void)state;
    for (int64_t tile = 0; tile < 10; tile++)
        for (int block = 64; block <= 128; block *= 2)
            for (int64_t near = -1; near < 3; near++) {
                uint8_t   keep[20] = { 0 };
                const int n = 1280 / block;
                gv_select_forced(keep, tile, n, block, &(struct forced_blocks){ 2, 1, near });
                for (int i = 0; i < n; i++) {
                    const int64_t k0 = (int64_t)i * block, k1 = k0 + block, q0 = tile * 128, q1 = q0 + 128;
                    const bool    close = near >= 0 && k1 + near * block > q0 && k0 - near * block < q1;
                    assert_int_equal(keep[i], i < 2 || i == n - 1 || close);
                }
            }
}

/* ---- scores ---- */

/* A case of random tensors with its scores; whole numbers where the test wants exact sums. */
struct scored {
    struct attn_case  k;
    struct run        r;
    struct score_call c;
};

static void scored_make_on(struct device *d, enum dtype type, struct scored *s, int Nq, int Nk, int A, int A_kv, int D,
                           int block, uint64_t *at)
{
    struct error e = { 0 };

    memset(s, 0, sizeof *s);
    assert_int_equal(gv_run_open(&s->r, d, type, 64 << 20, &e), GV_OK);
    s->c.q = case_tensor(&s->k, type, 4, DIMS(2, Nq, A, D), at);
    s->c.k = case_tensor(&s->k, type, 4, DIMS(2, Nk, A_kv, D), at);
    s->c.score = case_tensor(&s->k, GV_F32, 4, DIMS(2, A, (Nq + 127) / 128, (Nk + block - 1) / block), NULL);
    s->c.block = block;
}

static void scored_make(struct scored *s, int Nq, int Nk, int A, int A_kv, int D, int block, uint64_t *at)
{
    scored_make_on(device, GV_F32, s, Nq, Nk, A, A_kv, D, block, at);
}

static void scored_free(struct scored *s)
{
    assert_int_equal(s->r.err.code, GV_OK);
    gv_run_close(&s->r);
    case_free(&s->k);
}

static double product(const struct scored *s, int64_t b, int64_t h, int64_t q, int64_t k)
{
    double        sum = 0;
    const int64_t kv = h / (s->c.q.dim[2] / s->c.k.dim[2]);

    for (int64_t d = 0; d < s->c.q.dim[3]; d++)
        sum += (double)get(s->c.q, b, q, h, d) * (double)get(s->c.k, b, k, kv, d);
    return sum / sqrt((double)s->c.q.dim[3]);
}

static int64_t end_of(int64_t i, int64_t size, int64_t n)
{
    return (i + 1) * size < n ? (i + 1) * size : n;
}

/* Compares one row of scores with raw values before their softmax. */
static void expect_softmax(const struct scored *s, int64_t b, int64_t h, int64_t tile, double *x, int64_t n)
{
    double max = -INFINITY, sum = 0;

    for (int64_t i = 0; i < n; i++)
        max = fmax(max, x[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    for (int64_t i = 0; i < n; i++)
        assert_true(fabs((double)get(s->c.score, b, h, tile, i) - exp(x[i] - max) / sum) < 1e-5);
}

static void pooled_scores_are_those_of_means(void **state)
{
    struct scored s;
    uint64_t      at = seed;

    (void)state;
    scored_make(&s, 300, 333, 4, 2, 20, 64, &at);
    struct tensor q_same = case_tensor(&s.k, GV_F32, 3, DIMS(2, 4, 3), NULL),
                  k_same = case_tensor(&s.k, GV_F32, 3, DIMS(2, 2, 6), NULL);
    gv_score_pooled(&s.r, &s.c, q_same, k_same);
    for (int64_t b = 0; b < 2; b++)
        for (int64_t h = 0; h < 4; h++)
            for (int64_t t = 0; t < 3; t++) {
                double x[6];
                for (int64_t i = 0; i < 6; i++) { /* the mean of all products is the product of the means */
                    double sum = 0;
                    for (int64_t q = t * 128; q < end_of(t, 128, 300); q++)
                        for (int64_t k = i * 64; k < end_of(i, 64, 333); k++)
                            sum += product(&s, b, h, q, k);
                    x[i] = sum / (double)((end_of(t, 128, 300) - t * 128) * (end_of(i, 64, 333) - i * 64));
                }
                expect_softmax(&s, b, h, t, x, 6);
            }
    for (int64_t b = 0; b < 2; b++)
        for (int64_t i = 0; i < 6; i++) {
            const int64_t from = i * 64, to = end_of(i, 64, 333);
            double        sum = 0;
            for (int64_t m = from; m < to; m++)
                for (int64_t n = from; n < to; n++) {
                    double mn = 0, mm = 0, nn = 0;
                    for (int64_t d = 0; d < 20; d++) {
                        const double x = (double)get(s.c.k, b, m, 1, d), y = (double)get(s.c.k, b, n, 1, d);
                        mn += x * y;
                        mm += x * x;
                        nn += y * y;
                    }
                    sum += mn / sqrt(mm * nn);
                }
            assert_true(fabs((double)get(k_same, b, 1, i, 0) - sum / (double)((to - from) * (to - from))) < 1e-5);
        }
    scored_free(&s);
}

/* Every score against want, and the sum of each row. f64 from the values that the kernel was given, so that bf16 is held to the
 * same limit: its products are exact in f32. */
static void expect_scores(const struct scored *s, int64_t b, int64_t h, int64_t tile, const double *want)
{
    double all = 0;

    for (int64_t i = 0; i < s->c.score.dim[3]; i++) {
        assert_true(fabs((double)get(s->c.score, b, h, tile, i) - want[i]) < 1e-5);
        all += (double)get(s->c.score, b, h, tile, i);
    }
    assert_true(fabs(all - 1) < 1e-5);
}

static void antidiagonal_of_a_tile(const struct scored *s, int stride, int64_t b, int64_t h, int64_t tile)
{
    const int64_t Nk = s->c.k.dim[1], rows = end_of(tile, 128, s->c.q.dim[1]) - tile * 128;
    const int64_t folds = (Nk + stride - 1) / stride, n = (rows + stride - 1) / stride;
    double       *p = malloc((size_t)folds * sizeof *p), want[16] = { 0 };

    for (int64_t u = 0; u < n; u++) {
        double max = -INFINITY, all = 0;
        for (int64_t w = 0; w < folds; w++) {
            p[w] = 0;
            for (int64_t i = 0; i < stride; i++)
                if (u * stride + stride - 1 - i < rows && w * stride + i < Nk)
                    p[w] += product(s, b, h, tile * 128 + u * stride + stride - 1 - i, w * stride + i) / stride;
            max = fmax(max, p[w]);
        }
        for (int64_t w = 0; w < folds; w++)
            all += exp(p[w] - max);
        for (int64_t w = 0; w < folds; w++)
            want[w * stride / s->c.block] += exp(p[w] - max) / all / (double)n;
    }
    expect_scores(s, b, h, tile, want);
    free(p);
}

static void exact_of_a_tile(const struct scored *s, int64_t b, int64_t h, int64_t tile)
{
    const int64_t Nk = s->c.k.dim[1], end = end_of(tile, 128, s->c.q.dim[1]);
    double        want[16] = { 0 };

    for (int64_t q = tile * 128; q < end; q++) {
        double sum = 0, part[16] = { 0 };
        for (int64_t k = 0; k < Nk; k++) {
            const double e = exp(product(s, b, h, q, k));
            sum += e;
            part[k / s->c.block] += e;
        }
        for (int i = 0; i < 16; i++)
            want[i] += part[i] / sum / (double)(end - tile * 128);
    }
    expect_scores(s, b, h, tile, want);
}

/* Sizes that meet every kind of end: of a block, a panel of keys, a strip of queries, a fold. The last is an odd head size. */
static const struct {
    int Nq, Nk, A, A_kv, D, block;
} ends[] = { { 200, 301, 2, 1, 12, 128 }, { 400, 200, 4, 2, 20, 64 }, { 130, 77, 2, 2, 7, 64 }, { 1, 1, 1, 1, 4, 64 } };

/* stride 0: exact. The whole of every score is the same on one thread and on three. */
static void dear_scores(const char *level, enum dtype type, int stride)
{
    for (int i = 0; i < 4; i++) {
        struct tensor before = { 0 };
        for (int threads = 1; threads <= 3; threads += 2) {
            struct device *d;
            struct scored  s;
            uint64_t       at = seed;
            if (!level_open(&d, level, threads))
                return;
            scored_make_on(d, type, &s, ends[i].Nq, ends[i].Nk, ends[i].A, ends[i].A_kv, ends[i].D, ends[i].block, &at);
            const int64_t *dim = s.c.q.dim, tiles = s.c.score.dim[2];
            memset(s.c.score.data, 0xff, gv_tensor_bytes(s.c.score)); /* nothing may be left as it was */
            struct tensor lse = case_tensor(&s.k, GV_F32, 3, DIMS(2, dim[2], dim[1]), NULL),
                          o = case_tensor(&s.k, type, 4, dim, NULL);
            if (stride) {
                gv_score_antidiagonal(&s.r, &s.c, stride);
            } else {
                gv_attention(&s.r,
                             &(struct attn_call){
                                 .q = s.c.q, .n_sources = 1, .source[0] = { .k = s.c.k, .v = s.c.k }, .out = { o, lse } });
                gv_score_exact(&s.r, &s.c, lse);
            }
            for (int64_t j = 0; threads == 1 && j < 2 * dim[2] * tiles; j++)
                if (stride)
                    antidiagonal_of_a_tile(&s, stride, j / tiles / dim[2], j / tiles % dim[2], j % tiles);
                else
                    exact_of_a_tile(&s, j / tiles / dim[2], j / tiles % dim[2], j % tiles);
            if (threads == 1) {
                before = s.c.score;
                before.data = malloc(gv_tensor_bytes(before));
                memcpy(before.data, s.c.score.data, gv_tensor_bytes(before));
            } else {
                assert_memory_equal(before.data, s.c.score.data, gv_tensor_bytes(before));
                free(before.data);
            }
            scored_free(&s);
            gv_device_close(&d);
        }
    }
}

static void antidiagonal_scores_are_those_of_folded_rows(void **state)
{
    (void)state;
    for (int l = 0; l < 4; l++)
        for (int stride = 1; stride <= 64; stride *= stride < 4 ? 4 : 2) {
            dear_scores(levels[l], GV_F32, stride);
            dear_scores(levels[l], GV_BF16, stride);
        }
}

static void exact_scores_are_the_softmax_summed_over_blocks(void **state)
{
    (void)state;
    for (int l = 0; l < 4; l++) {
        dear_scores(levels[l], GV_F32, 0);
        dear_scores(levels[l], GV_BF16, 0);
    }
}

static void line_scores_are_the_softmax_by_column_and_distance(void **state)
{
    struct scored s;
    uint64_t      at = seed;

    (void)state;
    scored_make(&s, 90, 90, 4, 2, 12, 64, &at);
    struct tensor column = case_tensor(&s.k, GV_F32, 3, DIMS(2, 4, 90), NULL),
                  distance = case_tensor(&s.k, GV_F32, 3, DIMS(2, 4, 90), NULL);
    gv_score_lines(&s.r, s.c.q, s.c.k, 20, column, distance);
    double by_key[90] = { 0 }, by_distance[90] = { 0 }, all = 0;
    for (int64_t q = 70; q < 90; q++) {
        double sum = 0;
        for (int64_t k = 0; k <= q; k++)
            sum += exp(product(&s, 1, 3, q, k));
        for (int64_t k = 0; k <= q; k++) {
            by_key[k] += exp(product(&s, 1, 3, q, k)) / sum;
            by_distance[q - k] += exp(product(&s, 1, 3, q, k)) / sum;
        }
    }
    for (int64_t i = 0; i < 90; i++) {
        assert_true(fabs((double)get(column, 1, 3, i, 0) - by_key[i]) < 1e-5);
        assert_true(fabs((double)get(distance, 1, 3, i, 0) - by_distance[i]) < 1e-5);
        all += (double)get(column, 1, 3, i, 0);
    }
    assert_true(fabs(all - 20) < 1e-4);
    scored_free(&s);
}

/* ---- policies ---- */

static void scored_plan(struct scored *s, struct attn_plan *p, const char *text)
{
    const struct attn_policy *policy;
    double                    value[GV_POLICY_OPTIONS];
    struct error              e = { 0 };

    assert_int_equal(gv_policy_parse(text, &policy, value, &e), GV_OK);
    policy->plan(&s->r, p, s->c.q, s->c.k, value);
    assert_int_equal(s->r.err.code, GV_OK);
    if (gv_plan_check(p, s->c.q.dim[1], 1, &s->c.k.dim[1], &e) != GV_OK)
        fail_msg("%s: %s", text, e.text);
}

static void keeping_everything_is_dense(void **state)
{
    static const char *const all[] = { "pooled:share=1",      "pooled:share=0,mass=1",          "pooled:share=0.01,same=1",
                                       "antidiagonal:mass=1", "antidiagonal:mass=0.01,first=3", "chunks:share=1",
                                       "exact:share=1" };

    (void)state;
    for (int i = 0; i < 7; i++) {
        struct scored    s;
        struct attn_plan p;
        uint64_t         at = seed;
        scored_make(&s, 300, 333, 4, 2, 20, 64, &at);
        scored_plan(&s, &p, all[i]);
        if (!(p.density > 0.999999))
            fail_msg("%s: density %g", all[i], p.density);
        scored_free(&s);
    }
}

/* A causal map in full, by either way. */
static void flexprefill_of_all_the_mass_is_causal(void **state)
{
    static const char *const all[] = { "flexprefill:tau=1,mass=1,least=0", "flexprefill:tau=0,mass=1,least=0",
                                       "flexprefill:mass=0.01,least=333" };

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct scored    s;
        struct attn_plan p;
        uint64_t         at = seed;
        scored_make(&s, 333, 333, 4, 2, 20, 64, &at);
        scored_plan(&s, &p, all[i]);
        for (uint32_t row = 0; row < 2 * 4 * 3; row++)
            for (int64_t q = row % 3 * 128; q < end_of(row % 3, 128, 333); q++)
                for (int64_t k = 0; k < 333; k++) {
                    bool reads = false;
                    for (uint32_t n = p.row[row]; n < p.row[row + 1]; n++)
                        reads |= k >= kv_start(p.entries[n]) && k < kv_start(p.entries[n]) + kv_length(p.entries[n]) &&
                                 (!kv_masked(p.entries[n]) || gv_mask_allows(&p.mask, q, 0, k));
                    if (reads != (k <= q))
                        fail_msg("%s: row %u, query %d, key %d", all[i], row, (int)q, (int)k);
                }
        scored_free(&s);
    }
}

/* A tile and one far block that agree: whatever else is dropped, that block is found. */
static void the_block_that_matters_is_found(void **state)
{
    static const char *const some[] = { "pooled:share=0.2", "pooled:share=0,mass=0.5", "antidiagonal:mass=0.5,stride=4" };

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct scored    s;
        struct attn_plan p;
        uint64_t         at = seed;
        scored_make(&s, 640, 640, 2, 2, 16, 64, &at);
        for (int64_t n = 128; n < 256; n++)
            for (int64_t d = 0; d < 16; d++) {
                set(s.c.q, 0, n, 1, d, 2);
                set(s.c.k, 0, n + 256, 1, d, 2);
            }
        scored_plan(&s, &p, some[i]);
        const uint32_t row = 1 * 5 + 1; /* batch 0, head 1, tile 1 */
        uint32_t       found = 0;
        for (uint32_t n = p.row[row]; n < p.row[row + 1]; n++)
            found += kv_start(p.entries[n]) >= 384 && kv_start(p.entries[n]) < 512;
        assert_int_equal(found, 2);
        assert_true(p.row[row + 1] - p.row[row] <= 4);
        scored_free(&s);
    }
}

static void forced_and_unlike_blocks_are_read_by_every_tile(void **state)
{
    struct scored    s;
    struct attn_plan p;
    uint64_t         at = seed;

    (void)state;
    scored_make(&s, 640, 640, 2, 2, 16, 64, &at);
    for (int64_t n = 0; n < 640; n++) /* all alike, but for block 7 */
        for (int64_t d = 0; d < 16; d++)
            for (int64_t b = 0; b < 2; b++)
                for (int64_t h = 0; h < 2; h++) {
                    set(s.c.q, b, n, h, d, 1);
                    if (n / 64 != 7)
                        set(s.c.k, b, n, h, d, 1);
                }
    scored_plan(&s, &p, "pooled:share=0.01,same=0.5,first=1,last=1,near=0");
    for (uint32_t row = 0; row < 20; row++) {
        bool first = false, last = false, unlike = false, own = false;
        for (uint32_t n = p.row[row]; n < p.row[row + 1]; n++) {
            first |= kv_start(p.entries[n]) == 0;
            last |= kv_start(p.entries[n]) == 576;
            unlike |= kv_start(p.entries[n]) == 7 * 64;
            own |= kv_start(p.entries[n]) == row % 5 * 128;
        }
        assert_true(first && last && unlike && own);
        assert_true(p.row[row + 1] - p.row[row] <= 6);
    }
    scored_free(&s);
}

/* The best lines by the scores, from the text; then pair by pair what a tile reads. */
static void vertical_slash_reads_its_lines(void **state)
{
    static const int lines[][5] = { { 20, 30, 16, 5, 10 }, { 1, 1, 1, 0, 1 }, { 3, 40, 64, 3, 40 }, { 400, 400, 9, 0, 1 } };

    (void)state;
    for (int i = 0; i < 4; i++) {
        enum { N = 333 };
        struct scored    s;
        struct attn_plan p;
        uint64_t         at = seed + (uint64_t)i;
        char             text[100];
        uint8_t          vertical[N] = { 0 }, slash[N] = { 0 };
        const int       *o = lines[i];
        scored_make(&s, N, N, 4, 2, 12, 64, &at);
        snprintf(text, sizeof text, "vertical_slash:vertical=%d,slash=%d,rows=%d,first=%d,near=%d", o[0], o[1], o[2], o[3],
                 o[4]);
        scored_plan(&s, &p, text);
        struct tensor column = case_tensor(&s.k, GV_F32, 3, DIMS(2, 4, N), NULL),
                      distance = case_tensor(&s.k, GV_F32, 3, DIMS(2, 4, N), NULL);
        gv_score_lines(&s.r, s.c.q, s.c.k, o[2], column, distance);
        float *by_key = (float *)column.data + 7 * N, *by_distance = (float *)distance.data + 7 * N; /* batch 1, head 3 */
        for (int n = 0; n < o[3]; n++)
            by_key[n] = 1e9f;
        for (int n = 0; n < o[4]; n++)
            by_distance[n] = 1e9f;
        slow_select(vertical, by_key, N, &(struct select_rule){ .kind = SELECT_SHARE, .least = o[0] });
        slow_select(slash, by_distance, N, &(struct select_rule){ .kind = SELECT_SHARE, .least = o[1] });
        for (int64_t q = 0; q < N; q++)
            for (int64_t k = 0; k < N; k++) {
                const int64_t  q0 = q / 128 * 128, q1 = end_of(q / 128, 128, N);
                const uint32_t row = 7 * 3 + (uint32_t)(q / 128);
                bool           want = vertical[k], found = false;
                for (int64_t d = 0; d < N; d++)
                    want |= slash[d] && k >= q0 - d && k <= q1 - 1 - d;
                for (uint32_t n = p.row[row]; n < p.row[row + 1]; n++) {
                    const gv_kv_entry e = p.entries[n];
                    if (k >= kv_start(e) && k < kv_start(e) + kv_length(e))
                        found = !kv_masked(e) || k <= q;
                }
                assert_int_equal(found, want && k <= q);
            }
        scored_free(&s);
    }
}

/* Chunks and their scores from the text, in float64. */
static void chunk_scores_are_length_normalised(void **state)
{
    enum { N = 333, D = 12, BLOCKS = 6 };
    static const struct chunking cases[] = { { -1, 100 }, { 0.2, 3 }, { 0, 2 }, { 1, 5 } };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct scored s;
        uint64_t      at = seed;
        double        mean[BLOCKS][D] = { 0 }, x[BLOCKS];
        int           chunks = 0;
        scored_make(&s, 200, N, 4, 2, D, 64, &at);
        gv_score_chunks(&s.r, &s.c, &cases[i]);
        for (int64_t k = 0; k < N; k++)
            for (int64_t d = 0; d < D; d++)
                mean[k / 64][d] += (double)get(s.c.k, 1, k, 1, d) / (double)(end_of(k / 64, 64, N) - k / 64 * 64);
        for (int from = 0, to; from < BLOCKS; from = to, chunks++) {
            double sum[D] = { 0 }, tokens = 0, score = 0;
            for (to = from; to < BLOCKS && to - from < cases[i].longest; to++) {
                double mm = 0, ss = 0, ms = 0;
                for (int d = 0; d < D; d++)
                    mm += mean[to][d] * mean[to][d], ss += sum[d] * sum[d], ms += mean[to][d] * sum[d];
                if (to > from && !(ms > cases[i].like * sqrt(mm * ss)))
                    break;
                const double n = (double)(end_of(to, 64, N) - to * 64);
                for (int d = 0; d < D; d++)
                    sum[d] += mean[to][d] * n;
                tokens += n;
            }
            for (int64_t q = 128; q < 200; q++)
                for (int d = 0; d < D; d++)
                    score += (double)get(s.c.q, 1, q, 3, d) / 72 * sum[d] / sqrt(tokens) / sqrt(D);
            for (int b = from; b < to; b++)
                x[b] = score;
        }
        expect_softmax(&s, 1, 3, 1, x, BLOCKS);
        assert_true(i ? chunks > 1 : chunks == 1);
        scored_free(&s);
    }
}

/* ---- methods, by the options that their text names, over the clip's places ---- */

enum { CLIP_T = 8, CLIP_H = 8, CLIP_W = 12, CLIP = CLIP_T * CLIP_H * CLIP_W, CLIP_D = 16 };

/* What a method keeps for a tile, from block means in float64; score [CLIP / 64] are its softmax. */
struct method {
    const char *text;
    void (*keep)(uint8_t *keep, const double *score, const double *q_same, const double *k_same, int tile);
};

static void best(uint8_t *keep, const double *score, int n)
{
    for (; n > 0; n--) {
        int at = -1;
        for (int i = 0; i < CLIP / 64; i++)
            if (!keep[i] && (at < 0 || score[i] > score[at]))
                at = i;
        keep[at] = 1;
    }
}

static void best_mass(uint8_t *keep, const double *score, double mass, bool crossing)
{
    uint8_t mine[CLIP / 64] = { 0 };
    double  all = 0, sum = 0;

    for (int i = 0; i < CLIP / 64; i++)
        all += score[i];
    for (int n = 1; n <= CLIP / 64; n++) {
        uint8_t next[CLIP / 64] = { 0 };
        double  with = 0;
        best(next, score, n);
        for (int i = 0; i < CLIP / 64; i++)
            with += next[i] ? score[i] : 0;
        if (n > 1 && (crossing ? sum >= mass * all : with > mass * all))
            break;
        memcpy(mine, next, sizeof mine);
        sum = with;
    }
    for (int i = 0; i < CLIP / 64; i++)
        keep[i] |= mine[i];
}

static void sparge_keeps(uint8_t *keep, const double *score, const double *q_same, const double *k_same, int tile)
{
    double left[CLIP / 64];

    for (int i = 0; i < CLIP / 64; i++) {
        keep[i] = q_same[tile] <= 0.04 || k_same[i] <= 0.04;
        left[i] = k_same[i] <= 0.04 ? 0 : score[i];
    }
    best_mass(keep, left, 0.6, false);
}

static void vsa_keeps(uint8_t *keep, const double *score, const double *q_same, const double *k_same, int tile)
{
    (void)q_same, (void)k_same, (void)tile;
    best(keep, score, 3); /* a quarter of 12 */
}

static void jenga_keeps(uint8_t *keep, const double *score, const double *q_same, const double *k_same, int tile)
{
    (void)q_same, (void)k_same;
    best(keep, score, 2); /* a tenth of 12, and what is begun */
    best_mass(keep, score, 0.5, true);
    for (int i = 0; i < CLIP / 64; i++)
        keep[i] |= i == 0 || (i >= 2 * tile - 1 && i <= 2 * tile + 2);
}

/* The block of the method's order that a token of the clip lies in, from its place alone for the boxes. */
static int block_of(const struct attn_layout *l, int64_t n, bool boxes)
{
    const struct attn_position p = l->position[n];

    return boxes ? (p.t / 4 * (CLIP_H / 4) + p.h / 4) * (CLIP_W / 4) + p.w / 4 : (int)(n / 64);
}

static double cosine_of_mean(const double *sum, double n)
{
    double square = 0;

    for (int d = 0; d < CLIP_D; d++)
        square += sum[d] * sum[d];
    return square / (n * n);
}

static void expect_method(const struct method *m, struct scored *s, const struct attn_layout *l, const struct attn_plan *p,
                          int64_t h)
{
    const bool boxes = strstr(m->text, "order=2") != NULL;
    double     q[CLIP / 128][CLIP_D] = { 0 }, k[CLIP / 64][CLIP_D] = { 0 }, q_way[CLIP / 128][CLIP_D] = { 0 },
                    k_way[CLIP / 64][CLIP_D] = { 0 }, q_same[CLIP / 128], k_same[CLIP / 64];

    for (int64_t n = 0; n < CLIP; n++) {
        const int block = block_of(l, n, boxes);
        double    qq = 0, kk = 0;
        for (int64_t d = 0; d < CLIP_D; d++) {
            qq += pow((double)get(s->c.q, 1, n, h, d), 2);
            kk += pow((double)get(s->c.k, 1, n, h / 2, d), 2);
        }
        for (int64_t d = 0; d < CLIP_D; d++) {
            q[block / 2][d] += (double)get(s->c.q, 1, n, h, d) / 128;
            k[block][d] += (double)get(s->c.k, 1, n, h / 2, d) / 64;
            q_way[block / 2][d] += (double)get(s->c.q, 1, n, h, d) / sqrt(qq);
            k_way[block][d] += (double)get(s->c.k, 1, n, h / 2, d) / sqrt(kk);
        }
    }
    for (int i = 0; i < CLIP / 64; i++) {
        k_same[i] = cosine_of_mean(k_way[i], 64);
        q_same[i / 2] = cosine_of_mean(q_way[i / 2], 128);
    }
    for (int tile = 0; tile < CLIP / 128; tile++) {
        const int64_t row = (4 + h) * (CLIP / 128) + tile;
        double        score[CLIP / 64];
        uint8_t       keep[CLIP / 64] = { 0 };
        for (int i = 0; i < CLIP / 64; i++) {
            score[i] = 0;
            for (int d = 0; d < CLIP_D; d++)
                score[i] += q[tile][d] * k[i][d] / sqrt(CLIP_D);
            score[i] = exp(score[i]);
        }
        m->keep(keep, score, q_same, k_same, tile);
        for (int64_t n = 0; n < CLIP; n++) {
            bool reads = false;
            for (uint32_t at = p->row[row]; at < p->row[row + 1]; at++)
                reads |= n >= kv_start(p->entries[at]) && n < kv_start(p->entries[at]) + kv_length(p->entries[at]);
            if (reads != keep[block_of(l, n, boxes)])
                fail_msg("%s: head %d, tile %d, token %d: %d", m->text, (int)h, tile, (int)n, reads);
        }
    }
}

static void pooled_methods_keep_what_their_papers_say(void **state)
{
    static const struct method methods[] = {
        { "pooled:share=0,mass=0.6,crossing=0,same=0.04", sparge_keeps },
        { "pooled:share=0.25,order=2", vsa_keeps },
        { "pooled:share=0.1,mass=0.5,order=1,near=1,first=1", jenga_keeps },
    };

    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        const struct attn_policy *policy;
        double                    value[GV_POLICY_OPTIONS];
        struct attn_layout        l;
        struct attn_plan          p;
        struct scored             s;
        struct error              e = { 0 };
        uint64_t                  at = seed + i;
        scored_make(&s, CLIP, CLIP, 4, 2, CLIP_D, 64, &at);
        for (int64_t n = 0; n < CLIP; n++) /* blocks differ, in means and in how alike their tokens are */
            for (int64_t h = 0; h < 4; h++)
                for (int64_t d = 0; d < CLIP_D; d++) {
                    set(s.c.q, 1, n, h, d,
                        get(s.c.q, 1, n, h, d) +
                            (n < 128 ? 0 : (float)((n / 100 + d + h) % 3) * 0.5f)); /* the first tile speaks for nobody */
                    if (h < 2)
                        set(s.c.k, 1, n, h, d,
                            get(s.c.k, 1, n, h, d) + (float)((n / 50 * 7 + d) % 5) * 0.2f * (float)(n / 64 % 3));
                }
        assert_int_equal(gv_policy_parse(methods[i].text, &policy, value, &e), GV_OK);
        assert_int_equal(gv_layout_grid(&l, 0, CLIP_T, CLIP_H, CLIP_W, &e), GV_OK);
        assert_int_equal(policy->order(&l, value, &e), GV_OK);
        scored_plan(&s, &p, methods[i].text);
        for (int64_t h = 0; h < 4; h++)
            expect_method(&methods[i], &s, &l, &p, h);
        gv_layout_free(&l);
        scored_free(&s);
    }
}

static void chunks_of_one_block_are_pooled(void **state)
{
    struct scored    s;
    struct attn_plan chunks, pooled;
    uint64_t         at = seed;

    (void)state;
    scored_make(&s, 640, 640, 4, 2, 20, 64, &at); /* blocks of one length: their scores differ by a factor */
    scored_plan(&s, &chunks, "chunks:share=0.3,longest=1");
    scored_plan(&s, &pooled, "pooled:share=0.3");
    assert_memory_equal(chunks.row, pooled.row, (2 * 4 * 5 + 1) * sizeof *pooled.row);
    assert_memory_equal(chunks.entries, pooled.entries, pooled.row[2 * 4 * 5] * sizeof *pooled.entries);
    scored_free(&s);
}

/* Nothing of a size holds more of the softmax than what `exact` keeps. */
static void exact_keeps_the_best_blocks(void **state)
{
    struct scored    s;
    struct attn_plan best, guess;
    uint64_t         at = seed;

    (void)state;
    scored_make(&s, 300, 640, 2, 1, 20, 64, &at);
    scored_plan(&s, &best, "exact:share=0.3");
    scored_plan(&s, &guess, "pooled:share=0.3");
    for (uint32_t row = 0; row < 2 * 2 * 3; row++) {
        double        held[2] = { 0 };
        const int64_t tile = row % 3, h = row / 3 % 2, b = row / 6;
        for (int64_t q = tile * 128; q < end_of(tile, 128, 300); q++) {
            double p[10] = { 0 }, all = 0;
            for (int64_t k = 0; k < 640; k++)
                p[k / 64] += exp(product(&s, b, h, q, k));
            for (int i = 0; i < 10; i++)
                all += p[i];
            for (int which = 0; which < 2; which++) {
                const struct attn_plan *plan = which ? &guess : &best;
                for (uint32_t n = plan->row[row]; n < plan->row[row + 1]; n++)
                    held[which] += p[kv_start(plan->entries[n]) / 64] / all;
            }
        }
        assert_int_equal(best.row[row + 1] - best.row[row], 3);
        assert_true(held[0] >= held[1] - 1e-4);
    }
    scored_free(&s);
}

/* FlexPrefill from its text: which way a head is chosen for, then block by block what its rows read. */
static void flexprefill_switches_as_its_text_says(void **state)
{
    enum { N = 700, D = 8, BLOCKS = 6 };
    static const double taus[] = { 0, 0.1, 0.25, 1 };
    int                 ways[2] = { 0 };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct scored    s;
        struct attn_plan p;
        uint64_t         at = 3; /* fixed: chance can put a head's distance, or a sum, on a threshold */
        char             text[100];
        scored_make(&s, N, N, 2, 1, D, 128, &at);
        for (int64_t n = 0; n < N; n++) /* head 1 looks at one column, head 0 about alike at all */
            for (int64_t d = 0; d < D; d++) {
                set(s.c.q, 1, n, 0, d, get(s.c.q, 1, n, 0, d) / 8);
                set(s.c.q, 1, n, 1, d, 3 * get(s.c.k, 1, 77, 0, d));
            }
        snprintf(text, sizeof text, "flexprefill:tau=%g,mass=0.7,least=200", taus[i]);
        scored_plan(&s, &p, text);
        for (int64_t h = 0; h < 2; h++) {
            double         a[BLOCKS] = { 0 }, b[BLOCKS], apart = 0, sum = 0;
            float          column[N] = { 0 }, line[N] = { 0 };
            static float   map[BLOCKS * BLOCKS];
            static uint8_t kept[BLOCKS * BLOCKS];
            int32_t        order[N];
            for (int64_t q = N - 128; q < N; q++) {
                double all = 0;
                for (int64_t k = 0; k <= q; k++)
                    all += exp(product(&s, 1, h, q, k));
                for (int64_t k = 0; k <= q; k++) {
                    const double e = exp(product(&s, 1, h, q, k)) / all;
                    a[k / 128] += e / 128;
                    column[k] += (float)e;
                    line[q - k] += (float)e;
                }
            }
            for (int64_t t = 0; t <= BLOCKS; t++) { /* tiles' rows, and the last queries' as one more */
                const int64_t q0 = t < BLOCKS ? t * 128 : N - 128, q1 = t < BLOCKS ? end_of(t, 128, N) : N,
                              last = t < BLOCKS ? t : BLOCKS - 1;
                double x[BLOCKS], rows = 0;
                for (int64_t k = 0; k <= last; k++) {
                    x[k] = 0;
                    for (int64_t q = q0; q < q1; q++)
                        for (int64_t j = k * 128; j < end_of(k, 128, N); j++)
                            x[k] += product(&s, 1, h, q, j) / (double)((q1 - q0) * (end_of(k, 128, N) - k * 128));
                    rows += x[k] = exp(x[k]);
                }
                for (int64_t k = 0; k < BLOCKS; k++)
                    if (t < BLOCKS)
                        map[t * BLOCKS + k] = k <= t ? (float)(x[k] / rows) : -INFINITY;
                    else
                        b[k] = x[k] / rows;
            }
            for (int k = 0; k < BLOCKS; k++) {
                const double m = (a[k] + b[k]) / 2;
                sum += (a[k] > 0 ? a[k] * log(a[k] / m) : 0) / 2 + b[k] * log(b[k] / m) / 2;
            }
            apart = sqrt(sum > 0 ? sum : 0);
            assert_true(fabs(apart - taus[i]) > 1e-3);
            memset(kept, 0, sizeof kept);
            if (apart < taus[i]) {
                for (int t = 0; t < BLOCKS; t++)
                    gv_select(kept + t * BLOCKS, map + t * BLOCKS, BLOCKS,
                              &(struct select_rule){ .kind = SELECT_SHARE, .least = 2 }, order);
                gv_select(kept, map, BLOCKS * BLOCKS,
                          &(struct select_rule){ .kind = SELECT_MASS, .amount = 0.7, .crossing = true }, order);
                ways[0]++;
            } else {
                static uint8_t           columns[N], lines[N];
                const struct select_rule rule = { .kind = SELECT_MASS, .amount = 0.7, .crossing = true, .least = 200 };
                memset(columns, 0, sizeof columns);
                memset(lines, 0, sizeof lines);
                gv_select(columns, column, N, &rule, order);
                gv_select(lines, line, N, &rule, order);
                for (int q = 0; q < BLOCKS * 128; q++) /* a tile is rounded out, also behind the last query */
                    for (int k = 0; k <= q && k < N; k++)
                        if (columns[k] || (q - k < N && lines[q - k]))
                            kept[q / 128 * BLOCKS + k / 128] = 1;
                ways[1]++;
            }
            for (int64_t t = 0; t < BLOCKS; t++) {
                uint8_t        read[BLOCKS] = { 0 };
                const uint32_t row = (uint32_t)((2 + h) * BLOCKS + t);
                for (uint32_t n = p.row[row]; n < p.row[row + 1]; n++)
                    read[kv_start(p.entries[n]) / 128] = 1;
                for (int64_t k = 0; k < BLOCKS; k++)
                    assert_int_equal(read[k], k <= t && (kept[t * BLOCKS + k] || k == 0 || k == t));
            }
        }
        scored_free(&s);
    }
    assert_true(ways[0] >= 2 && ways[1] >= 2);
}

static void dry_run_takes_room_for_every_entry(void **state)
{
    static const char *const all[] = { "pooled:same=0.5", "antidiagonal", "vertical_slash", "chunks", "exact", "flexprefill" };

    (void)state;
    for (int i = 0; i < 6; i++) {
        struct scored             s;
        struct device            *null;
        struct run                dry;
        struct error              e = { 0 };
        struct attn_plan          p;
        const struct attn_policy *policy;
        double                    value[GV_POLICY_OPTIONS];
        uint64_t                  at = seed;
        scored_make(&s, 300, 300, 4, 2, 20, 64, &at);
        assert_int_equal(gv_device_null(&null, device, &e), GV_OK);
        assert_int_equal(gv_run_open(&dry, null, GV_F32, 0, &e), GV_OK);
        assert_int_equal(gv_policy_parse(all[i], &policy, value, &e), GV_OK);
        policy->plan(&dry, &p, s.c.q, s.c.k, value);
        policy->plan(&s.r, &p, s.c.q, s.c.k, value);
        assert_int_equal(dry.scratch.peak, s.r.scratch.peak);
        gv_run_close(&dry);
        gv_device_close(&null);
        scored_free(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_choose_what_their_text_says),
        cmocka_unit_test(the_crossing_block_is_in_or_out),
        cmocka_unit_test(asking_for_more_never_drops_a_block),
        cmocka_unit_test(forced_blocks_are_kept),
        cmocka_unit_test(pooled_scores_are_those_of_means),
        cmocka_unit_test(antidiagonal_scores_are_those_of_folded_rows),
        cmocka_unit_test(exact_scores_are_the_softmax_summed_over_blocks),
        cmocka_unit_test(line_scores_are_the_softmax_by_column_and_distance),
        cmocka_unit_test(keeping_everything_is_dense),
        cmocka_unit_test(flexprefill_of_all_the_mass_is_causal),
        cmocka_unit_test(the_block_that_matters_is_found),
        cmocka_unit_test(forced_and_unlike_blocks_are_read_by_every_tile),
        cmocka_unit_test(vertical_slash_reads_its_lines),
        cmocka_unit_test(chunk_scores_are_length_normalised),
        cmocka_unit_test(pooled_methods_keep_what_their_papers_say),
        cmocka_unit_test(chunks_of_one_block_are_pooled),
        cmocka_unit_test(exact_keeps_the_best_blocks),
        cmocka_unit_test(flexprefill_switches_as_its_text_says),
        cmocka_unit_test(dry_run_takes_room_for_every_entry),
    };
    struct error e = { 0 };
    seed = test_seed();
    if (gv_device_open(&device, &(struct device_params){ .name = "cpu", .threads = 2 }, &e) != GV_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gv_device_close(&device);
    return failed;
}
