/* Step caches: published schedules to the step, thresholds of 0 compute everything, and a residual is what it should be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion/step_cache.h"

static struct device *device;

static void cache_open(struct step_cache *s, const char *text, int steps, const struct step_data *data)
{
    struct error e = { 0 };

    memset(s, 0, sizeof *s);
    assert_int_equal(gv_step_parse(&s->asked, text, &e), GV_OK);
    assert_non_null(s->asked.method);
    s->steps = steps;
    s->data = data;
    gv_step_open(s, device, &e);
    assert_string_equal(e.text, "");
}

/* What a method answers to one change after another, as '1' and '0'. */
static const char *schedule(struct step_cache *s, const double *change)
{
    static char text[GV_STEP_STEPS + 1];

    for (s->step = 0; s->step < s->steps; s->step++) {
        const bool skip = s->asked.method->skips(s, change ? change[s->step] : -1);
        text[s->step] = skip ? '0' : '1';
        s->run = skip ? s->run + 1 : 0;
    }
    text[s->steps] = 0;
    return text;
}

static void magcache_gives_the_published_schedules(void **state)
{
    static const struct {
        int         layers;
        const char *options, *want;
    } published[] = {
        { 40, "magcache:thr=0.12,k=2", "11111111110010010010010010010010010010010010101011" },
        { 40, "magcache:thr=0.12,k=4", "11111111110000100001000010000100001000100100101011" },
        { 40, "magcache:thr=0.24,k=6", "11111111110000001000000100000010000010000100100101" },
        { 30, "magcache:thr=0.12,k=2", "11111111110010010010010010010010010010010010101011" },
        { 30, "magcache:thr=0.12,k=4", "11111111110000100001000010000100001000100100101011" },
        { 30, "magcache:thr=0.24,k=6", "11111111110000001000000100000010000010000100010101" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        struct step_cache s;
        cache_open(&s, published[i].options, 50, gv_step_data(published[i].layers, 16, 832 * 480));
        assert_string_equal(schedule(&s, NULL), published[i].want);
        gv_step_close(&s);
    }
}

static void a_threshold_of_0_computes_every_step(void **state)
{
    static const char *const methods[] = { "magcache:thr=0", "teacache:thr=0", "teacache:thr=0,ret=0", "firstblock:thr=0",
                                           "easycache:thr=0" };

    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        struct step_cache s;
        double            change[40] = { -1 };
        for (int k = 1; k < 40; k++)
            change[k] = 0.001 * k;
        cache_open(&s, methods[i], 40, gv_step_data(30, 16, 832 * 480));
        s.k = 1;
        assert_null(strchr(schedule(&s, change), '0'));
        gv_step_close(&s);
    }
}

static void first_and_last_steps_are_computed(void **state)
{
    static const struct {
        const char *text;
        int         first;
        bool        last;
    } cases[] = { { "teacache:thr=10", 5, false },
                  { "teacache:thr=10,ret=0", 1, true },
                  { "firstblock:thr=10,warm=7", 7, false },
                  { "easycache:thr=10,warm=6", 6, true },
                  { "magcache:thr=10,k=1000", 4, false } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct step_cache s;
        double            change[20] = { -1 };
        for (int k = 1; k < 20; k++)
            change[k] = 0.001;
        cache_open(&s, cases[i].text, 20, gv_step_data(30, 16, 832 * 480));
        s.k = 1;
        const char *got = schedule(&s, change);
        for (int k = 0; k < 20; k++)
            assert_int_equal(got[k] == '1', k < cases[i].first || (k == 19 && cases[i].last));
        gv_step_close(&s);
    }
}

static void firstblock_compares_and_counts_its_run(void **state)
{
    const double      change[10] = { -1, 0.05, 0.05, 0.05, 0.2, 0.05, 0.05, 0.05, 0.05, 0.12 };
    struct step_cache s;

    (void)state;
    cache_open(&s, "firstblock:thr=0.12,warm=2,run=2", 10, NULL);
    assert_string_equal(schedule(&s, change), "1100100101");
    gv_step_close(&s);
}

/* Error adds up: 0.02 a step and a threshold of 0.05 are two skipped of three. */
static void easycache_adds_up_what_it_predicts(void **state)
{
    double            change[12] = { -1 };
    struct step_cache s;

    (void)state;
    for (int i = 1; i < 12; i++)
        change[i] = 0.01;
    cache_open(&s, "easycache:thr=0.05,warm=2", 12, NULL);
    s.k = 2;
    assert_string_equal(schedule(&s, change), "110010010011");
    gv_step_close(&s);
}

/* What one method did is data for another clip. */
static void a_schedule_is_followed_and_one_that_does_not_fit_refused(void **state)
{
    static const char *const bad[] = { "schedule",      "schedule:",       "schedule:0111",
                                       "schedule:1121", "schedule:11,k=1", "schedule=1" };
    struct step_cache        s;
    char                     list[sizeof "schedule:" + GV_STEP_STEPS];

    (void)state;
    cache_open(&s, "magcache:thr=0.12,k=2", 50, gv_step_data(30, 16, 832 * 480));
    snprintf(list, sizeof list, "schedule:%s", schedule(&s, NULL));
    gv_step_close(&s);
    cache_open(&s, list, 50, NULL); /* of a model that nobody has measured */
    assert_string_equal(schedule(&s, NULL), list + strlen("schedule:"));
    gv_step_close(&s);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error e = { 0 };
        gv_step_parse(&s.asked, bad[i], &e);
        assert_true(i == 5 ? !s.asked.method : e.code == GV_ERR_ARGUMENT && strstr(e.text, "schedule:11110101"));
    }
    struct error e = { 0 };
    s = (struct step_cache){ .steps = 8 };
    assert_int_equal(gv_step_parse(&s.asked, "schedule:1101", &e), GV_OK);
    assert_int_equal(gv_step_open(&s, device, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "4 steps for a clip of 8"));
    gv_step_close(&s);
}

static void models_that_are_not_known_are_told_so(void **state)
{
    static const char *const methods[] = { "magcache", "teacache" };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct step_cache s = { .steps = 8 };
        struct error      e = { 0 };
        assert_int_equal(gv_step_parse(&s.asked, methods[i], &e), GV_OK);
        assert_int_equal(gv_step_open(&s, device, &e), GV_ERR_ARGUMENT);
        assert_non_null(strstr(e.text, "easycache"));
        gv_step_close(&s);
    }
    assert_null(gv_step_data(12, 16, 1));
    assert_string_equal(gv_step_data(40, 36, 832 * 480)->name, "wan2.1-i2v-14b-480p");
    assert_string_equal(gv_step_data(40, 36, 1280 * 720)->name, "wan2.1-i2v-14b-720p");
}

/* A stream of x, "blocks" that add 2, and the same again: bit for bit, since 2 is exact in any type. */
static void an_unchanged_stream_is_reused_to_the_bit(void **state)
{
    struct step_cache s;
    struct run        r;
    struct error      e = { 0 };
    float             x[6 * 8], want[6 * 8];

    (void)state;
    assert_int_equal(gv_run_open(&r, device, GV_BF16, 1 << 20, &e), GV_OK);
    cache_open(&s, "firstblock:thr=0.1,warm=1", 4, NULL);
    for (s.step = 0; s.step < 4; s.step++) {
        const struct mark mark = arena_mark(&r.scratch);
        struct tensor     t = gv_tensor(x, GV_F32, 2, DIMS(6, 8)), none = { 0 };
        for (int i = 0; i < 48; i++)
            x[i] = (float)i * 0.25f;
        assert_false(gv_step_blocks(&r, &s, t, none, none));
        for (int i = 0; i < 48; i++)
            x[i] += s.step == 3 ? 3 : 1; /* the first block: the same until step 3 */
        const bool done = gv_step_first_block(&r, &s, t);
        assert_int_equal(done, s.step == 1 || s.step == 2);
        if (!done) {
            for (int i = 0; i < 48; i++)
                x[i] += 2; /* the others */
            gv_step_blocks_end(&r, &s, t);
        }
        if (s.step == 0)
            memcpy(want, x, sizeof x);
        if (done)
            assert_memory_equal(x, want, sizeof x);
        arena_release(&r.scratch, mark);
    }
    assert_string_equal(r.err.text, "");
    assert_string_equal(s.schedule, "1001");
    assert_int_equal(s.full, 2);
    assert_int_equal(s.skipped, 2);
    gv_step_close(&s);
    gv_run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magcache_gives_the_published_schedules),
        cmocka_unit_test(a_threshold_of_0_computes_every_step),
        cmocka_unit_test(first_and_last_steps_are_computed),
        cmocka_unit_test(firstblock_compares_and_counts_its_run),
        cmocka_unit_test(easycache_adds_up_what_it_predicts),
        cmocka_unit_test(models_that_are_not_known_are_told_so),
        cmocka_unit_test(an_unchanged_stream_is_reused_to_the_bit),
        cmocka_unit_test(a_schedule_is_followed_and_one_that_does_not_fit_refused),
    };
    struct error e = { 0 };
    if (gv_device_open(&device, &(struct device_params){ .name = "cpu", .threads = 2 }, &e))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gv_device_close(&device);
    return failed;
}
