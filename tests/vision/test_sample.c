/* Choosing tokens, and rotation through the norm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixture.h"
#include "vision/rotate.h"
#include "vision/sample.h"

enum { N = 6 };
static const float logits[N] = { 1, 3, -2, 2.5F, 0, 2 };

static void shares(const struct sample_opts *o, double *share, int draws)
{
    struct text_sampler s;
    struct error        e = { 0 };
    assert_int_equal(gv_text_sampler_open(&s, N, o, &e), GV_OK);
    for (int i = 0; i < draws; i++)
        share[gv_text_sampler_next(&s, logits)] += 1.0 / draws;
    gv_text_sampler_close(&s);
}

static void greedy_takes_the_largest_and_the_first_of_equals(void **state)
{
    (void)state;
    struct text_sampler s;
    struct error        e = { 0 };
    const float         equal[3] = { 1, 4, 4 };
    assert_int_equal(gv_text_sampler_open(&s, 3, &(struct sample_opts){ 0 }, &e), GV_OK);
    assert_int_equal(gv_text_sampler_next(&s, equal), 1);
    gv_text_sampler_close(&s);
}

static void draws_follow_the_softmax(void **state)
{
    (void)state;
    double share[N] = { 0 }, sum = 0;
    shares(&(struct sample_opts){ .temperature = 1.5, .seed = 3 }, share, 40000);
    for (int i = 0; i < N; i++)
        sum += exp((double)logits[i] / 1.5);
    for (int i = 0; i < N; i++) { /* five standard deviations */
        double p = exp((double)logits[i] / 1.5) / sum;
        assert_true(fabs(share[i] - p) < 5 * sqrt(p * (1 - p) / 40000));
    }
}

static void top_k_and_top_p_leave_the_likeliest(void **state)
{
    (void)state;
    double k[N] = { 0 }, p[N] = { 0 };
    shares(&(struct sample_opts){ .temperature = 1, .top_k = 2 }, k, 2000);
    assert_true(k[1] > 0 && k[3] > 0);
    assert_true(fabs(k[1] + k[3] - 1) < 1e-9);
    shares(&(struct sample_opts){ .temperature = 1, .top_p = 0.5 }, p, 2000); /* 0.46 alone is too little, 0.74 is enough */
    assert_true(p[1] > 0 && p[3] > 0);
    assert_true(fabs(p[1] + p[3] - 1) < 1e-9);
}

static void the_same_seed_gives_the_same_text(void **state)
{
    (void)state;
    struct text_sampler a, b, c;
    struct error        e = { 0 };
    int                 differ = 0;
    gv_text_sampler_open(&a, N, &(struct sample_opts){ .temperature = 2, .seed = 9 }, &e);
    gv_text_sampler_open(&b, N, &(struct sample_opts){ .temperature = 2, .seed = 9 }, &e);
    gv_text_sampler_open(&c, N, &(struct sample_opts){ .temperature = 2, .seed = 10 }, &e);
    for (int i = 0; i < 64; i++) {
        int32_t x = gv_text_sampler_next(&a, logits);
        assert_int_equal(x, gv_text_sampler_next(&b, logits));
        differ += x != gv_text_sampler_next(&c, logits);
    }
    assert_true(differ > 0);
    gv_text_sampler_close(&a);
    gv_text_sampler_close(&b);
    gv_text_sampler_close(&c);
}

static void repetition_counts_the_prompt_and_the_text(void **state)
{
    (void)state;
    struct text_sampler s;
    struct error        e = { 0 };
    assert_int_equal(gv_text_sampler_open(&s, N, &(struct sample_opts){ .repetition = 2 }, &e), GV_OK);
    gv_text_sampler_see(&s, (const int32_t[]){ 1 }, 1);    /* 3 → 1.5 */
    assert_int_equal(gv_text_sampler_next(&s, logits), 3); /* 2.5, then 1.25 */
    assert_int_equal(gv_text_sampler_next(&s, logits), 5); /* 2, then 1 */
    assert_int_equal(gv_text_sampler_next(&s, logits), 1);
    gv_text_sampler_close(&s);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct sample_opts bad[] = {
        { .temperature = -1 }, { .temperature = NAN }, { .top_p = 1.5 }, { .top_k = -1 }, { .repetition = -2 }
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct text_sampler s;
        struct error        e = { 0 };
        assert_int_equal(gv_text_sampler_open(&s, N, &bad[i], &e), GV_ERR_ARGUMENT);
    }
}

static void rotation_alone_loses_no_bit(void **state)
{
    (void)state;
    enum { HEAD = 8, ROWS = 5, D = 24 };
    static const char *const levels[] = { "c", "avx2", NULL }; /* NULL: all that the processor has */
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        const struct device_params p = { .name = "cpu", .threads = 1, .precision = "f32", .cpu_level = levels[i] };
        struct device             *d;
        struct error               e = { 0 };
        struct run                 r;
        if (gv_device_open(&d, &p, &e))
            continue; /* a processor without this level */
        assert_int_equal(gv_run_open(&r, d, d->compute, 1 << 20, &e), GV_OK);
        float x[ROWS * D], y[ROWS * D], cosine[HEAD / 2] = { 1, 1, 1, 1 }, sine[HEAD / 2] = { 0 };
        fixture_fill(x, "rotate", ROWS * D, 1000, 0);
        x[3] = 1e-20F, x[7] = 6e6F, x[9] = 0;
        struct rope   rope = { gv_scratch_from(&r, GV_F32, 2, DIMS(1, HEAD / 2), cosine),
                               gv_scratch_from(&r, GV_F32, 2, DIMS(1, HEAD / 2), sine), HEAD, true };
        struct tensor t = gv_scratch_from(&r, GV_F32, 2, DIMS(ROWS, D), x);
        gv_rotate(&r, t, &rope);
        gv_download(&r, y, t);
        assert_string_equal(r.err.text, "");
        assert_memory_equal(x, y, sizeof x);
        gv_run_close(&r);
        gv_device_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_first_of_equals),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(top_k_and_top_p_leave_the_likeliest),
        cmocka_unit_test(the_same_seed_gives_the_same_text),
        cmocka_unit_test(repetition_counts_the_prompt_and_the_text),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(rotation_alone_loses_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
