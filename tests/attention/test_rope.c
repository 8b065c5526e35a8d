/* Positions and rotary tables. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/rope.h"

static struct device *device;

static void grid_counts_in_raster_order_from_its_first_frame(void **state)
{
    struct attn_layout l;
    struct error       e = { 0 };

    (void)state;
    assert_int_equal(gv_layout_grid(&l, 5, 2, 3, 4, &e), GV_OK);
    assert_int_equal(l.tokens, 24);
    for (int n = 0; n < 24; n++) {
        assert_int_equal(l.position[n].t, 5 + n / 12);
        assert_int_equal(l.position[n].h, n / 4 % 3);
        assert_int_equal(l.position[n].w, n % 4);
    }
    gv_layout_free(&l);
    assert_null(l.position);
    assert_int_equal(gv_layout_grid(&l, 0, 2, 0, 4, &e), GV_ERR_INTERNAL);
}

/* Angle of pair p of a token, from the definition: each axis is an embedding of its own width. */
static double angle(const struct attn_position *at, int head, int p, double theta)
{
    const int side = head / 6, first = head / 2 - 2 * side;

    if (p < first)
        return at->t * pow(theta, -2.0 * p / (2 * first));
    if (p < first + side)
        return at->h * pow(theta, -2.0 * (p - first) / (2 * side));
    return at->w * pow(theta, -2.0 * (p - first - side) / (2 * side));
}

static void tables_follow_the_definition(void **state)
{
    static const int heads[] = { 128, 64, 12, 40 };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct attn_layout l;
        struct run         r;
        struct error       e = { 0 };
        const int          half = heads[i] / 2;

        assert_int_equal(gv_layout_grid(&l, 3, 4, 5, 6, &e), GV_OK);
        l.position[7].t = GV_NO_POSITION;
        assert_int_equal(gv_run_open(&r, device, GV_F32, 1 << 20, &e), GV_OK);
        const struct rope rope = gv_rope_3d(&r, &l, heads[i], 10000);
        assert_int_equal(r.err.code, GV_OK);
        assert_int_equal(rope.head, heads[i]);
        assert_false(rope.halves);
        assert_int_equal(rope.cos.dim[0], l.tokens);
        assert_int_equal(rope.cos.dim[1], half);
        for (int64_t n = 0; n < l.tokens; n++)
            for (int p = 0; p < half; p++) {
                const double a = n == 7 ? 0 : angle(&l.position[n], heads[i], p, 10000);
                assert_true(fabs((double)((float *)rope.cos.data)[n * half + p] - cos(a)) < 1e-7);
                assert_true(fabs((double)((float *)rope.sin.data)[n * half + p] - sin(a)) < 1e-7);
            }
        gv_run_close(&r);
        gv_layout_free(&l);
    }
}

static void dry_run_takes_what_the_tables_take(void **state)
{
    struct attn_layout l;
    struct device     *null;
    struct run         dry, real;
    struct error       e = { 0 };

    (void)state;
    assert_int_equal(gv_layout_grid(&l, 0, 3, 5, 7, &e), GV_OK);
    assert_int_equal(gv_device_null(&null, device, &e), GV_OK);
    assert_int_equal(gv_run_open(&dry, null, GV_F32, 0, &e), GV_OK);
    gv_rope_3d(&dry, &l, 64, 10000);
    assert_int_equal(gv_run_open(&real, device, GV_F32, dry.scratch.peak, &e), GV_OK);
    gv_rope_3d(&real, &l, 64, 10000);
    assert_int_equal(real.err.code, GV_OK);
    assert_int_equal(real.scratch.peak, dry.scratch.peak);
    gv_run_close(&real);
    gv_run_close(&dry);
    gv_device_close(&null);
    gv_layout_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grid_counts_in_raster_order_from_its_first_frame),
        cmocka_unit_test(tables_follow_the_definition),
        cmocka_unit_test(dry_run_takes_what_the_tables_take),
    };
    struct error e = { 0 };
    if (gv_device_open(&device, &(struct device_params){ .name = "cpu", .threads = 1 }, &e) != GV_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gv_device_close(&device);
    return failed;
}
