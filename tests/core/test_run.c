/* Runs: the first failure stays and stops everything, a cancel is such a failure, words name the place; scratch; taps. */
#include "core/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/ops.h"

enum { SCRATCH = 4096 };

static struct device *cpu;

static int open_cpu(void **state)
{
    (void)state;
    const struct device_params p = { .name = "cpu", .threads = 2, .precision = "f32" };
    return gv_device_open(&cpu, &p, NULL);
}

static int close_cpu(void **state)
{
    (void)state;
    gv_device_close(&cpu);
    return 0;
}

static struct run fresh(void)
{
    struct run   r;
    struct error e = { 0 };
    assert_int_equal(gv_run_open(&r, cpu, GV_F32, SCRATCH, &e), GV_OK);
    return r;
}

/* ---- errors ---- */

static void the_first_message_wins(void **state)
{
    (void)state;
    struct run r = fresh();
    gv_run_fail(&r, GV_ERR_MODEL, "weight %d is missing", 7);
    gv_run_fail(&r, GV_ERR_MEMORY, "something else");
    assert_int_equal(r.err.code, GV_ERR_MODEL);
    assert_string_equal(r.err.text, "weight 7 is missing");
    gv_run_close(&r);
}

static void a_message_names_stage_and_place(void **state)
{
    (void)state;
    struct run r = fresh();
    snprintf(r.stage, sizeof r.stage, "step 3");
    gv_run_enter(&r, "blocks.%d", 7);
    gv_run_fail(&r, GV_ERR_MODEL, "overflow");
    assert_string_equal(r.err.text, "step 3: blocks.7: overflow");
    gv_run_close(&r);
    r = fresh();
    gv_run_enter(&r, "%0100d", 1); /* longer than its room */
    gv_run_fail(&r, GV_ERR_MODEL, "overflow");
    assert_int_equal(strlen(r.err.text), sizeof r.where - 1 + strlen(": overflow"));
    gv_run_close(&r);
}

static void after_a_failure_nothing_is_done(void **state)
{
    (void)state;
    struct run    r = fresh();
    struct tensor x = gv_scratch(&r, GV_F32, 1, DIMS(4));
    float         host[4] = { 9, 9, 9, 9 };
    gv_fill(&r, x, 1);
    gv_run_fail(&r, GV_ERR_DEVICE, "lost");
    assert_false(gv_run_ready(&r));
    gv_fill(&r, x, 2);
    gv_download(&r, host, x);
    assert_float_equal(host[0], 9, 0); /* nothing was fetched */
    assert_float_equal(((float *)x.data)[0], 1, 0);
    assert_null(gv_scratch(&r, GV_F32, 1, DIMS(4)).data);
    assert_null(gv_scratch_bytes(&r, 4));
    assert_string_equal(r.err.text, "lost");
    gv_sync(&r);
    gv_run_close(&r);
}

static void an_error_outside_a_run_keeps_its_first_sentence(void **state)
{
    (void)state;
    struct error e = { 0 };
    assert_int_equal(gv_fail(&e, GV_ERR_IO, "first %s", "words"), GV_ERR_IO);
    assert_int_equal(gv_fail(&e, GV_ERR_MODEL, "second"), GV_ERR_MODEL);
    assert_int_equal(e.code, GV_ERR_IO);
    assert_string_equal(e.text, "first words");
    assert_int_equal(gv_fail(NULL, GV_ERR_MODEL, "nobody listens"), GV_ERR_MODEL);
}

/* A path may be longer than the room: file's beginning and reason both stay, and letters stay whole. */
static void a_long_sentence_loses_its_middle(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 3; shift++) {
        struct error e = { 0 };
        char         path[1500] = "";
        for (size_t i = shift; i + 2 < sizeof path - 1; i += 2)
            memcpy(path + i, "\xc3\xa9", 2);
        memset(path, 'a', shift);
        gv_fail(&e, GV_ERR_IO, "/%s.png is missing", path);
        assert_true(strlen(e.text) < sizeof e.text);
        assert_true(strlen(e.text) > sizeof e.text - 4);
        assert_non_null(strstr(e.text, "..."));
        assert_non_null(strstr(e.text, ".png is missing"));
        for (const unsigned char *c = (const unsigned char *)e.text; *c; c++) {
            assert_true(*c < 0x80 || (c[0] == 0xC3 && c[1] == 0xA9));
            c += *c >= 0x80;
        }
    }
    struct error e = { 0 };
    gv_fail(&e, GV_ERR_IO, "%0*d", (int)sizeof e.text - 1, 0); /* just fits */
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_null(strstr(e.text, "..."));
}

static void every_status_has_a_name(void **state)
{
    (void)state;
    for (int s = GV_OK; s >= GV_ERR_MODEL; s--)
        assert_memory_equal(gv_status_name((gv_status)s), s ? "GV_ERR_" : "GV_OK", s ? 7 : 6);
    assert_non_null(gv_status_name((gv_status)-99));
    assert_non_null(gv_status_name((gv_status)1));
}

static void sizes_are_multiplied_and_added_with_care(void **state)
{
    (void)state;
    size_t n = 5;
    assert_true(gv_mul_size(SIZE_MAX, 1, &n) && n == SIZE_MAX);
    assert_true(gv_mul_size(SIZE_MAX, 0, &n) && n == 0);
    assert_true(gv_mul_size(0, SIZE_MAX, &n) && n == 0);
    n = 5;
    assert_false(gv_mul_size(SIZE_MAX / 2 + 1, 2, &n));
    assert_false(gv_mul_size((size_t)1 << 32, (size_t)1 << 32, &n));
    assert_false(gv_add_size(SIZE_MAX, 1, &n));
    assert_int_equal(n, 5);
    assert_true(gv_add_size(SIZE_MAX - 1, 1, &n) && n == SIZE_MAX);
}

/* ---- cancel ---- */

static void a_cancel_is_noticed_by_the_next_operation_and_stays(void **state)
{
    (void)state;
    struct run    r = fresh();
    atomic_bool   cancel = false;
    struct tensor x = gv_scratch(&r, GV_F32, 1, DIMS(4));
    r.cancel = &cancel;
    gv_fill(&r, x, 1);
    atomic_store(&cancel, true);
    gv_fill(&r, x, 2);
    assert_int_equal(r.err.code, GV_ERR_CANCELLED);
    assert_float_equal(((float *)x.data)[3], 1, 0);
    atomic_store(&cancel, false);
    assert_false(gv_run_ready(&r));
    gv_run_close(&r);
}

static void a_cancel_does_not_hide_a_failure(void **state)
{
    (void)state;
    struct run  r = fresh();
    atomic_bool cancel = true;
    r.cancel = &cancel;
    gv_run_fail(&r, GV_ERR_IO, "disk");
    assert_false(gv_run_ready(&r));
    assert_int_equal(r.err.code, GV_ERR_IO);
    gv_run_close(&r);
}

/* ---- scratch ---- */

static void too_little_scratch_is_a_failure_that_says_how_much(void **state)
{
    (void)state;
    struct run r = fresh();
    gv_scratch(&r, GV_F32, 2, DIMS(2, 64));
    struct tensor x = gv_scratch(&r, GV_F32, 2, DIMS(16, 64));
    assert_null(x.data);
    assert_int_equal(x.rank, 2);
    assert_int_equal(r.err.code, GV_ERR_INTERNAL);
    assert_non_null(strstr(r.err.text, "scratch memory of 4096 bytes is 512 short"));
    gv_run_close(&r);
}

static void a_run_gives_its_memory_back(void **state)
{
    (void)state;
    struct run r = fresh();
    assert_int_equal(atomic_load(&cpu->in_use), SCRATCH);
    gv_scratch(&r, GV_F32, 1, DIMS(100));
    gv_run_close(&r);
    assert_int_equal(atomic_load(&cpu->in_use), 0);
    gv_run_close(&r); /* twice is fine */
    struct error  e = { 0 };
    struct device small = *cpu;
    small.budget = 1000;
    assert_int_equal(gv_run_open(&r, &small, GV_F32, SCRATCH, &e), GV_ERR_MEMORY);
    assert_non_null(strstr(e.text, "scratch"));
    gv_run_close(&r);
}

/* The same calls on the null device take nothing and count the peak that the real run then needs. */
static void the_null_run_counts_what_the_real_one_needs(void **state)
{
    (void)state;
    struct device *null;
    struct run     dry, wet;
    struct error   e = { 0 };
    assert_int_equal(gv_device_null(&null, cpu, &e), GV_OK);
    assert_int_equal(gv_run_open(&dry, null, GV_F32, 0, &e), GV_OK);
    struct run *both[] = { &dry, &wet };
    for (int i = 0; i < 2; i++) {
        struct run *r = both[i];
        if (i)
            assert_int_equal(gv_run_open(r, cpu, GV_F32, dry.scratch.peak, &e), GV_OK);
        struct tensor x = gv_scratch(r, GV_F32, 2, DIMS(3, 100));
        struct mark   m = arena_mark(&r->scratch);
        struct tensor y = gv_scratch(r, GV_F32, 2, DIMS(3, 500));
        gv_fill(r, y, 1);
        arena_release(&r->scratch, m);
        struct tensor z = gv_scratch(r, GV_F32, 2, DIMS(3, 100));
        gv_fill(r, x, 1);
        gv_act(r, z, x, ACT_SILU);
        assert_string_equal(r->err.text, "");
        assert_true(!x.data == !i);
    }
    assert_int_equal(dry.scratch.peak, wet.scratch.peak);
    assert_int_equal(wet.scratch.peak, wet.scratch.size);
    gv_run_close(&dry);
    gv_run_close(&wet);
    gv_device_close(&null);
}

/* ---- taps ---- */

static void remember(void *user, struct run *r, const char *name, struct tensor x)
{
    (void)r;
    char *all = user;
    snprintf(all + strlen(all), 200 - strlen(all), "%s:%d ", name, (int)gv_tensor_count(x));
}

static void a_tap_hears_the_place_until_a_failure(void **state)
{
    (void)state;
    char             heard[200] = "";
    struct run       r = fresh();
    const struct tap tap = { remember, heard };
    struct tensor    x = gv_scratch(&r, GV_F32, 1, DIMS(4));
    gv_run_tap(&r, "deaf", x);
    r.tap = &tap;
    gv_run_tap(&r, "latents", x);
    gv_run_enter(&r, "blocks.%d", 2);
    gv_run_tap(&r, "out", slice(x, 0, 1, 2));
    gv_run_fail(&r, GV_ERR_IO, "disk");
    gv_run_tap(&r, "late", x);
    assert_string_equal(heard, "latents:4 blocks.2.out:2 ");
    gv_run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_message_wins),
        cmocka_unit_test(a_message_names_stage_and_place),
        cmocka_unit_test(after_a_failure_nothing_is_done),
        cmocka_unit_test(an_error_outside_a_run_keeps_its_first_sentence),
        cmocka_unit_test(a_long_sentence_loses_its_middle),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(sizes_are_multiplied_and_added_with_care),
        cmocka_unit_test(a_cancel_is_noticed_by_the_next_operation_and_stays),
        cmocka_unit_test(a_cancel_does_not_hide_a_failure),
        cmocka_unit_test(too_little_scratch_is_a_failure_that_says_how_much),
        cmocka_unit_test(a_run_gives_its_memory_back),
        cmocka_unit_test(the_null_run_counts_what_the_real_one_needs),
        cmocka_unit_test(a_tap_hears_the_place_until_a_failure),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
