/* Every named table against the libraries' own, and every solver's steps against their traces on a fixed velocity. Sigmas: one
 * ulp of f32 (the libraries round in between, we do once); times truncated to integers must be equal. Traces: 1e-5, as the
 * libraries' own f32 runs differ from these float64 ones by up to 1.5e-6. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "diffusion/sampler.h"

static json_t *load(void)
{
    json_t *root = json_load_file(GV_TEST_DATA "/schedulers/schedulers.json", 0, NULL);
    assert_non_null(root);
    return root;
}

static double number(json_t *list, size_t i)
{
    return json_number_value(json_array_get(list, i));
}

static void tables_are_the_libraries(void **state)
{
    (void)state;
    json_t *root = load(), *t;
    size_t  i;
    json_array_foreach (json_object_get(root, "tables"), i, t) {
        const char     *name = json_string_value(json_object_get(t, "name"));
        int             n = (int)json_integer_value(json_object_get(t, "steps"));
        double          shift = json_number_value(json_object_get(t, "shift"));
        struct schedule s;
        struct error    e = { 0 };
        assert_int_equal(gv_schedule_build(&s, name, n, shift, &e), GV_OK);
        for (int k = 0; k <= n; k++) {
            double want = number(json_object_get(t, "sigma"), (size_t)k);
            if (fabs((double)s.sigma[k] - want) > 1.2e-7 * fmax(want, 0.01))
                fail_msg("%s shift %g steps %d: sigma %d is %.9g, wanted %.9g", name, shift, n, k, (double)s.sigma[k], want);
        }
        for (int k = 0; k < n; k++) {
            double want = number(json_object_get(t, "t"), (size_t)k);
            if (fabs((double)s.time[k] - want) >
                (floor(want) == want && strcmp(name, "self-forcing") && strcmp(name, "flow-match-euler")
                     ? 0
                     : 1e-4 * fmax(want, 1)))
                fail_msg("%s shift %g steps %d: time %d is %.9g, wanted %.9g", name, shift, n, k, (double)s.time[k], want);
        }
    }
    json_decref(root);
}

static struct run open_run(struct device **d)
{
    struct run                 r;
    struct error               e = { 0 };
    const struct device_params p = { .name = "cpu", .threads = 1, .precision = "f32" };
    assert_int_equal(gv_device_open(d, &p, &e), GV_OK);
    assert_int_equal(gv_run_open(&r, *d, GV_F32, 1 << 20, &e), GV_OK);
    return r;
}

static void floats(json_t *list, float out[8])
{
    for (size_t i = 0; i < 8; i++)
        out[i] = (float)number(list, i);
}

static void check_trace(struct run *r, json_t *root, json_t *t)
{
    const char *solver = json_string_value(json_object_get(t, "solver")),
               *table = json_string_value(json_object_get(t, "table"));
    int                   n = (int)json_integer_value(json_object_get(t, "steps"));
    struct sampler_config c = { .solver = !strncmp(solver, "unipc", 5) ? "unipc"
                                          : !strcmp(solver, "dpm")     ? "dpm++"
                                                                       : "euler",
                                .order = !strcmp(solver, "unipc-1") ? 1 : 2 };
    struct mark           mark = arena_mark(&r->scratch);
    struct schedule       s;
    struct sampler        sampler;
    float                 a[8], b[8], x[8], v[8];
    for (int i = 0; c.order == 1 && i < GV_MAX_STEPS; i++)
        c.no_corrector[i] = true;
    floats(json_object_get(root, "a"), a);
    floats(json_object_get(root, "b"), b);
    floats(json_object_get(root, "x0"), x);
    assert_int_equal(gv_schedule_build(&s, table, n, json_number_value(json_object_get(t, "shift")), &r->err), GV_OK);
    struct tensor tx = gv_scratch_from(r, GV_F32, 1, DIMS(8), x), tv = gv_scratch(r, GV_F32, 1, DIMS(8));
    assert_int_equal(gv_sampler_open(&sampler, r, &c, &s, tx), GV_OK);
    for (int i = 0; i < n; i++) {
        json_t *want = json_array_get(json_object_get(t, "x"), (size_t)i);
        for (int k = 0; k < 8; k++)
            v[k] = a[k] * x[k] + b[k];
        gv_upload(r, tv, v);
        gv_sampler_step(r, &sampler, tx, tv);
        gv_download(r, x, tx);
        for (size_t k = 0; k < 8; k++)
            if (!(fabs((double)x[k] - number(want, k)) <= 1e-5 * fmax(1, fabs(number(want, k)))))
                fail_msg("%s on %s, %d steps: step %d element %zu is %.9g, wanted %.9g", solver, table, n, i, k, (double)x[k],
                         number(want, k));
    }
    arena_release(&r->scratch, mark);
}

static void solvers_follow_the_libraries(void **state)
{
    (void)state;
    struct device *d;
    struct run     r = open_run(&d);
    json_t        *root = load(), *t;
    size_t         i;
    json_array_foreach (json_object_get(root, "traces"), i, t)
        check_trace(&r, root, t);
    json_decref(root);
    gv_run_close(&r);
    gv_device_close(&d);
}

/* v = ε - x0 with both fixed is a straight line: every data prediction is x0, and every solver must end on it. */
static void a_straight_line_ends_on_its_data(void **state)
{
    (void)state;
    static const char *const solvers[] = { "unipc", "dpm++", "euler" };
    struct device           *d;
    struct run               r = open_run(&d);
    for (int k = 0; k < 3; k++) {
        struct schedule       s;
        struct sampler        sampler;
        struct sampler_config c = { .solver = solvers[k], .order = 2 };
        float                 x0 = 0.75f, noise = -1.5f, x, v = noise - x0;
        assert_int_equal(gv_schedule_build(&s, "wan-unipc", 12, 5, &r.err), GV_OK);
        x = (1 - s.sigma[0]) * x0 + s.sigma[0] * noise;
        struct tensor tx = gv_scratch_from(&r, GV_F32, 1, DIMS(1), &x), tv = gv_scratch_from(&r, GV_F32, 1, DIMS(1), &v);
        gv_sampler_open(&sampler, &r, &c, &s, tx);
        for (int i = 0; i < 12; i++)
            gv_sampler_step(&r, &sampler, tx, tv);
        gv_download(&r, &x, tx);
        assert_true(fabsf(x - x0) < 1e-6f);
    }
    gv_run_close(&r);
    gv_device_close(&d);
}

static void what_is_out_of_range_is_refused(void **state)
{
    (void)state;
    struct schedule s;
    struct error    e = { 0 };
    assert_int_equal(gv_schedule_build(&s, "wan-unipc", 0, 5, &e), GV_ERR_ARGUMENT);
    assert_int_equal(gv_schedule_build(&s, "wan-unipc", GV_MAX_STEPS + 1, 5, &e), GV_ERR_ARGUMENT);
    assert_int_equal(gv_schedule_build(&s, "wan-unipc", 4, NAN, &e), GV_ERR_ARGUMENT);
    assert_int_equal(gv_schedule_build(&s, "nobody", 4, 5, &e), GV_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_the_libraries),
        cmocka_unit_test(solvers_follow_the_libraries),
        cmocka_unit_test(a_straight_line_ends_on_its_data),
        cmocka_unit_test(what_is_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
