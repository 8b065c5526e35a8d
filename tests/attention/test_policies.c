/* Every static policy against its rule, pair by pair, on small layouts; and the published counts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/policy.h"

/* A policy's plan over a grid, made from the text that a user would write. */
struct made {
    struct attn_layout l;
    struct attn_plan   p;
    double             value[GV_POLICY_OPTIONS];
};

static gv_status make(struct made *m, const char *text, int heads, int T, int H, int W, struct error *e)
{
    const struct attn_policy *policy;

    memset(m, 0, sizeof *m);
    TRY(gv_policy_parse(text, &policy, m->value, e));
    TRY(gv_layout_grid(&m->l, 0, T, H, W, e));
    if (policy->order)
        TRY(policy->order(&m->l, m->value, e));
    if (!policy->build)
        return gv_fail(e, GV_ERR_ARGUMENT, "not static");
    return policy->build(&m->p, &m->l, heads, m->value, e);
}

static void made_free(struct made *m)
{
    gv_plan_free(&m->p);
    gv_layout_free(&m->l);
}

static void must(struct made *m, const char *text, int heads, int T, int H, int W)
{
    struct error e = { 0 };

    if (make(m, text, heads, T, H, W, &e) != GV_OK)
        fail_msg("%s: %s", text, e.text);
    if (gv_plan_check(&m->p, m->l.tokens, 1, &m->l.tokens, &e) != GV_OK)
        fail_msg("%s: %s", text, e.text);
}

/* Does the plan let query q of a head read key k? */
static bool reads(const struct attn_plan *p, int head, int64_t q, int64_t k)
{
    const int64_t row = (int64_t)(head % p->list_heads) * p->tiles + q / GV_TILE_Q;

    if (!p->entries)
        return true;
    for (uint32_t i = p->row[row]; i < p->row[row + 1]; i++) {
        const gv_kv_entry e = p->entries[i];
        if (k >= kv_start(e) && k < kv_start(e) + kv_length(e))
            return !kv_masked(e) || gv_mask_allows(&p->mask, q, 0, k);
    }
    return false;
}

static void expect_rule(const char *text, int T, int H, int W, bool (*rule)(const struct made *m, int64_t q, int64_t k))
{
    struct made m;

    must(&m, text, 2, T, H, W);
    for (int64_t q = 0; q < m.l.tokens; q++)
        for (int64_t k = 0; k < m.l.tokens; k++)
            if (reads(&m.p, 1, q, k) != rule(&m, q, k))
                fail_msg("%s on %dx%dx%d: query %lld, key %lld: %d", text, T, H, W, (long long)q, (long long)k, rule(&m, q, k));
    made_free(&m);
}

static bool all_rule(const struct made *m, int64_t q, int64_t k)
{
    (void)m, (void)q, (void)k;
    return true;
}

static bool causal_rule(const struct made *m, int64_t q, int64_t k)
{
    (void)m;
    return k <= q;
}

static bool frames_of_three(const struct made *m, int64_t q, int64_t k)
{
    return m->l.position[k].t / 3 <= m->l.position[q].t / 3;
}

static bool sink_10_local_70(const struct made *m, int64_t q, int64_t k)
{
    (void)m;
    return k <= q && (k < 10 || q - k < 70);
}

static bool back_30_ahead_200_sink_5(const struct made *m, int64_t q, int64_t k)
{
    (void)m;
    return (k >= q - 30 && k <= q + 200) || k < 5;
}

static void element_policies_are_exact_to_the_pair(void **state)
{
    (void)state;
    expect_rule("dense", 3, 7, 11, all_rule);
    expect_rule("causal", 1, 1, 1, causal_rule);
    expect_rule("causal", 5, 9, 13, causal_rule);
    expect_rule("block_causal:frames=3", 7, 9, 11, frames_of_three);
    expect_rule("block_causal:frames=1000", 7, 9, 11, all_rule);
    expect_rule("block_causal:frames=1", 300, 1, 1, causal_rule);
    expect_rule("streaming:sink=10,local=70", 4, 9, 13, sink_10_local_70);
    expect_rule("streaming:sink=0,local=4000000", 4, 9, 13, causal_rule);
    expect_rule("window:back=30,ahead=200,sink=5", 5, 11, 13, back_30_ahead_200_sink_5);
    expect_rule("window:back=4000000,ahead=4000000", 5, 11, 13, all_rule);
}

static void streaming_rows_read_sink_and_local_and_no_more(void **state)
{
    struct made m;

    (void)state;
    must(&m, "streaming:sink=40,local=100", 1, 1, 1, 700);
    for (int64_t q = 0; q < 700; q++) {
        int64_t n = 0;
        for (int64_t k = 0; k < 700; k++)
            n += reads(&m.p, 0, q, k);
        assert_int_equal(n, q + 1 < 140 ? q + 1 : 140);
    }
    made_free(&m);
}

static void strided_heads_cover_everything_together(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        struct made m;
        must(&m, causal ? "strided:stride=5,local=2,causal=1" : "strided:stride=5,local=2,causal=0", 5, 1, 30, 50);
        for (int64_t q = 0; q < 1500; q += 7)
            for (int64_t k = 0; k < 1500; k += 3) {
                const int64_t qb = q / 128, kb = k / 128;
                bool          any = false;
                for (int h = 0; h < 5; h++) {
                    const bool want = (!causal || k <= q) && (llabs(qb - kb) < 2 || (kb + h) % 5 == 0);
                    assert_int_equal(reads(&m.p, h, q, k), want);
                    any |= reads(&m.p, h, q, k);
                }
                assert_int_equal(any, !causal || k <= q);
            }
        made_free(&m);
    }
}

/* ---- Radial ---- */

/* The published rule, written as it is published: a mask for each frame pair, then its blocks. Frames are whole blocks here. */
static bool *radial_blocks(int T, int frame, double decay, bool sink)
{
    const int blocks = T * frame / 128, per = frame / 128;
    bool     *kept = calloc((size_t)blocks * (size_t)blocks, 1);

    for (int i = 0; i < T; i++)
        for (int j = 0; j < T; j++) {
            const int apart = abs(i - j);
            int       g = 0, bits = 0;
            while (apart >> g)
                g++;
            while (frame >> bits)
                bits++;
            const double length = pow(2, bits) / pow(2, g);
            const bool   full = apart <= 1 || (sink && j == 0);
            const double width = length * decay >= 128 ? length * decay : 128;
            if (!full && length < 128 && apart % (int)(128 / length))
                continue;
            for (int r = 0; r < per; r++)
                for (int c = 0; c < per; c++) {
                    int some = 0, dense = 0;
                    for (int col = c * 128; col < c * 128 + 128; col++) {
                        int n = 0;
                        for (int row = r * 128; row < r * 128 + 128; row++)
                            n += full || abs(row - col) <= width;
                        some += n > 0;
                        dense += n / 128. > 1 / 3.;
                    }
                    kept[(i * per + r) * blocks + j * per + c] = dense / (some + 1e-9) > 0.6;
                }
        }
    return kept;
}

static void radial_is_its_published_rule(void **state)
{
    static const struct {
        int    T, H, W;
        double decay;
        int    sink;
    } cases[] = {
        { 8, 16, 16, 0.5, 1 }, { 8, 16, 16, 0.5, 0 }, { 6, 16, 32, 0.25, 1 }, { 12, 8, 16, 1, 0 }, { 5, 32, 40, 0.1, 1 }
    };

    (void)state;
    for (int i = 0; i < 5; i++) {
        struct made m;
        char        text[64];
        const int   frame = cases[i].H * cases[i].W, blocks = cases[i].T * frame / 128;
        snprintf(text, sizeof text, "radial:decay=%g,sink=%d", cases[i].decay, cases[i].sink);
        must(&m, text, 1, cases[i].T, cases[i].H, cases[i].W);
        bool *kept = radial_blocks(cases[i].T, frame, cases[i].decay, cases[i].sink);
        for (int q = 0; q < blocks; q++)
            for (int k = 0; k < blocks; k++) {
                assert_int_equal(reads(&m.p, 0, q * 128, k * 128), kept[q * blocks + k]);
                assert_int_equal(reads(&m.p, 0, q * 128, k * 128 + 64), kept[q * blocks + k]);
            }
        free(kept);
        made_free(&m);
    }
}

/* Blocks of 128 x 128 kept, of a published mask. */
static void radial_keeps_the_published_number_of_blocks(void **state)
{
    static const struct {
        int         T, H, W;
        const char *text;
        uint32_t    blocks, shortest, longest;
    } cases[] = {
        { 18, 48, 80, "radial:decay=0.2", 83728, 92, 162 },           { 18, 48, 80, "radial:decay=1", 125656, 0, 540 },
        { 21, 48, 80, "radial:decay=0.2", 103768, 0, 630 },           { 21, 48, 80, "radial:decay=0.8", 135688, 0, 630 },
        { 30, 48, 80, "radial:decay=0.95,sink=0", 222452, 144, 281 }, { 8, 16, 16, "radial:decay=0.5", 232, 0, 16 },
        { 8, 16, 16, "radial:decay=0.5,sink=0", 224, 0, 16 },         { 6, 16, 32, "radial:decay=0.25", 480, 0, 24 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made m;
        must(&m, cases[i].text, 1, cases[i].T, cases[i].H, cases[i].W);
        uint32_t shortest = UINT32_MAX, longest = 0;
        for (int r = 0; r < m.p.tiles; r++) {
            const uint32_t n = (m.p.row[r + 1] - m.p.row[r]) / 2;
            shortest = n < shortest ? n : shortest;
            longest = n > longest ? n : longest;
        }
        if (m.p.row[m.p.tiles] != 2 * cases[i].blocks)
            fail_msg("%s, %d frames: %u blocks, %u are published", cases[i].text, cases[i].T, m.p.row[m.p.tiles] / 2,
                     cases[i].blocks);
        assert_true(cases[i].shortest == 0 || (shortest == cases[i].shortest && longest == cases[i].longest));
        made_free(&m);
    }
}

static void radial_grows_with_decay_and_takes_frames_of_any_size(void **state)
{
    struct made narrow, wide;

    (void)state;
    must(&narrow, "radial:decay=0.2", 1, 9, 13, 17);
    must(&wide, "radial:decay=0.7", 1, 9, 13, 17);
    for (int64_t q = 0; q < narrow.l.tokens; q += 5)
        for (int64_t k = 0; k < narrow.l.tokens; k += 3) {
            const int apart = abs(narrow.l.position[q].t - narrow.l.position[k].t);
            if (reads(&narrow.p, 0, q, k))
                assert_true(reads(&wide.p, 0, q, k));
            if (apart == 0) /* its own frame, wherever frames are cut */
                assert_true(reads(&narrow.p, 0, q, k));
        }
    made_free(&narrow);
    made_free(&wide);
}

/* ---- tiles ---- */

static int from_of(int q, int n, int window)
{
    const int from = q - window / 2, high = n - window;

    return from > high ? (high < 0 ? 0 : high) : from < 0 ? 0 : from;
}

static void every_tile_reads_equally_many_tiles_and_the_right_ones(void **state)
{
    struct made m;

    (void)state;
    must(&m, "tiles:tt=2,th=8,tw=8,wt=3,wh=3,ww=1", 1, 8, 32, 24); /* 4 x 4 x 3 tiles of 128 */
    for (int r = 0; r < m.p.tiles; r++)
        assert_int_equal(m.p.row[r + 1] - m.p.row[r], 2 * 9 * 1);
    for (int64_t q = 0; q < m.l.tokens; q += 31)
        for (int64_t k = 0; k < m.l.tokens; k += 17) {
            const struct attn_position a = m.l.position[q], b = m.l.position[k];
            const int                  t = from_of(a.t / 2, 4, 3), h = from_of(a.h / 8, 4, 3), w = from_of(a.w / 8, 3, 1);
            const bool                 want =
                b.t / 2 >= t && b.t / 2 < t + 3 && b.h / 8 >= h && b.h / 8 < h + 3 && b.w / 8 >= w && b.w / 8 < w + 1;
            assert_int_equal(reads(&m.p, 0, q, k), want);
        }
    made_free(&m);
    must(&m, "tiles:tt=2,th=8,tw=8,wt=4,wh=9,ww=3", 1, 8, 32, 24);
    assert_true(m.p.density > 0.999999);
    made_free(&m);
    must(&m, "tiles", 1, 30, 48, 80); /* the published shape: 27 of 300 tiles of 384 */
    for (int r = 0; r < m.p.tiles; r++)
        assert_int_equal(m.p.row[r + 1] - m.p.row[r], 27 * 6);
    made_free(&m);
}

static void tiles_that_do_not_divide_are_refused(void **state)
{
    struct made  m;
    struct error e = { 0 };

    (void)state;
    assert_int_equal(make(&m, "tiles:tt=3,th=8,tw=8", 1, 8, 32, 24, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "do not divide"));
    made_free(&m);
    e = (struct error){ 0 };
    assert_int_equal(make(&m, "tiles:tt=2,th=4,tw=4", 1, 8, 32, 24, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "multiple of 128"));
    made_free(&m);
}

/* ---- bands and orders ---- */

static bool band_rule(const struct made *m, int64_t q, int64_t k)
{
    const double  n = (double)m->l.tokens;
    const int64_t half = (int64_t)ceil(n * (1 - sqrt(1 - 0.2)) / 128) * 128;

    return llabs(q - k) <= half || k < m->l.H * m->l.W;
}

static void the_temporal_band_is_the_spatial_one_transposed(void **state)
{
    struct made m;

    (void)state;
    expect_rule("bands:keep=0.2", 9, 8, 13, band_rule);
    expect_rule("bands:keep=0.2,temporal=1", 9, 8, 13, band_rule); /* over the new order */
    must(&m, "bands:keep=0.2,temporal=1", 1, 9, 8, 13);
    for (int64_t n = 1; n < m.l.tokens; n++)
        assert_true(n % 9 == 0 ? m.l.position[n].t == 0
                               : m.l.position[n].t == m.l.position[n - 1].t + 1 && m.l.position[n].w == m.l.position[n - 1].w);
    made_free(&m);
    must(&m, "bands:keep=1", 1, 9, 8, 13);
    assert_true(m.p.density > 0.999999);
    made_free(&m);
}

static void an_order_is_a_permutation_that_positions_follow(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct attn_layout l;
        struct error       e = { 0 };
        unsigned char      seen[4 * 6 * 10] = { 0 };
        assert_int_equal(gv_layout_grid(&l, 7, 4, 6, 10, &e), GV_OK);
        assert_int_equal(kind ? gv_layout_places(&l, &e) : gv_layout_tiles(&l, 2, 3, 5, &e), GV_OK);
        for (int64_t n = 0; n < l.tokens; n++) {
            assert_false(seen[l.order[n]]++);
            assert_int_equal(l.position[n].t, 7 + l.order[n] / 60);
            assert_int_equal(l.position[n].h, l.order[n] / 10 % 6);
            assert_int_equal(l.position[n].w, l.order[n] % 10);
            if (!kind && n % 30)
                assert_true((l.position[n].t - 7) / 2 == (l.position[n - 1].t - 7) / 2 &&
                            l.position[n].h / 3 == l.position[n - 1].h / 3 && l.position[n].w / 5 == l.position[n - 1].w / 5);
        }
        assert_int_equal(gv_layout_places(&l, &e), GV_ERR_INTERNAL); /* once */
        gv_layout_free(&l);
    }
}

/* ---- options ---- */

static void options_are_read_and_refused_in_words(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        { "dense", NULL },
        { "radial", NULL },
        { "radial:decay=0.5", NULL },
        { "radial:sink=0,decay=1e-1", NULL },
        { "radially", "there are: dense, causal" },
        { "", "there are" },
        { "radial:", "no option \"\"" },
        { "radial:speed=3", "no option \"speed=3\"" },
        { "radial:decay", "no option \"decay\"" },
        { "radial:decay=", "is not a number" },
        { "radial:decay=x", "is not a number" },
        { "radial:decay=9", "from 0 to 8" },
        { "radial:decay=nan", "is not a number" },
        { "radial:decay=0.5x", "is not a number" },
        { "radial:decay=0.5,", "no option \"\"" },
        { "radial:speed=3", "there are: decay, sink" },
        { "antidiagonal:stride=3", "stride=3 does not divide" },
        { "antidiagonal:stride=16", NULL },
        { "pooled:share=0", "both 0" },
        { "pooled:share=0,mass=0.5", NULL },
        { "exact:share=0", "both 0" },
    };
    const struct attn_policy *p;
    double                    value[GV_POLICY_OPTIONS];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error    e = { 0 };
        const gv_status s = gv_policy_parse(cases[i].text, &p, value, &e);
        if ((s == GV_OK) != !cases[i].says || (cases[i].says && (s != GV_ERR_ARGUMENT || !strstr(e.text, cases[i].says))))
            fail_msg("\"%s\": %s", cases[i].text, e.text);
    }
    assert_int_equal(gv_policy_parse("radial:sink=0", &p, value, NULL), GV_OK);
    assert_true(value[0] == 0.2 && value[1] == 0);
}

static void every_policy_is_described_and_its_defaults_are_in_range(void **state)
{
    (void)state;
    for (const struct attn_policy *const *p = gv_policies(); *p; p++) {
        assert_true((*p)->name[0] && (*p)->help[0]);
        for (int i = 0; (*p)->options[i].name; i++) {
            const struct policy_option *o = &(*p)->options[i];
            assert_true(i < GV_POLICY_OPTIONS && o->help[0] && o->value >= o->min && o->value <= o->max);
        }
    }
}

/* Neighbours along the curve are neighbours in the clip where the grid is a cube of 2^n; elsewhere a block of 64 is still more
 * compact than in raster order. Every token comes once. */
static void hilbert_order_is_a_walk_through_neighbours(void **state)
{
    static const int grids[][3] = { { 8, 8, 8 },   { 16, 16, 16 }, { 2, 2, 2 }, { 5, 6, 7 },
                                    { 9, 14, 24 }, { 1, 1, 40 },   { 13, 1, 3 } };

    (void)state;
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        const int         *d = grids[g];
        struct attn_layout l;
        struct error       e = { 0 };
        assert_int_equal(gv_layout_grid(&l, 3, d[0], d[1], d[2], &e), GV_OK);
        assert_int_equal(gv_layout_hilbert(&l, &e), GV_OK);
        unsigned char *seen = calloc((size_t)l.tokens, 1);
        double         spread = 0, raster = 0;
        for (int64_t n = 0; n < l.tokens; n++) {
            const struct attn_position p = l.position[n], q = l.position[n ? n - 1 : 0];
            assert_int_equal(seen[l.order[n]]++, 0);
            assert_int_equal(((p.t - 3) * d[1] + p.h) * d[2] + p.w, l.order[n]);
            if (n && d[0] == d[1] && d[1] == d[2])
                assert_int_equal(abs(p.t - q.t) + abs(p.h - q.h) + abs(p.w - q.w), 1);
            const struct attn_position b = l.position[n / 64 * 64];
            const int64_t              m = n / 64 * 64, frame = (int64_t)d[1] * d[2];
            spread += abs(p.t - b.t) + abs(p.h - b.h) + abs(p.w - b.w);
            raster +=
                (double)(llabs(n / frame - m / frame) + llabs(n / d[2] % d[1] - m / d[2] % d[1]) + llabs(n % d[2] - m % d[2]));
        }
        assert_true(l.tokens < 1000 || spread < 0.75 * raster);
        free(seen);
        gv_layout_free(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hilbert_order_is_a_walk_through_neighbours),
        cmocka_unit_test(element_policies_are_exact_to_the_pair),
        cmocka_unit_test(streaming_rows_read_sink_and_local_and_no_more),
        cmocka_unit_test(strided_heads_cover_everything_together),
        cmocka_unit_test(radial_is_its_published_rule),
        cmocka_unit_test(radial_keeps_the_published_number_of_blocks),
        cmocka_unit_test(radial_grows_with_decay_and_takes_frames_of_any_size),
        cmocka_unit_test(every_tile_reads_equally_many_tiles_and_the_right_ones),
        cmocka_unit_test(tiles_that_do_not_divide_are_refused),
        cmocka_unit_test(the_temporal_band_is_the_spatial_one_transposed),
        cmocka_unit_test(an_order_is_a_permutation_that_positions_follow),
        cmocka_unit_test(options_are_read_and_refused_in_words),
        cmocka_unit_test(every_policy_is_described_and_its_defaults_are_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
