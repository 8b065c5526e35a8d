/* UMT5 against transformers: layer by layer, and whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion/models.h"
#include "tests/diffusion/model_case.h"

struct look {
    struct model_case *c;
    const char        *side;
    int                n; /* rows that are real */
};

static void compare_layer(void *user, struct run *r, const char *name, struct tensor x)
{
    struct look *l = user;
    int          layer;
    char         golden[64];
    if (sscanf(name, "text encoder layer %d.out", &layer) != 1)
        return;
    snprintf(golden, sizeof golden, "%s.layer%d", l->side, layer);
    if (!golden_has(&l->c->golden, golden) || !case_is_f32(l->c))
        return;
    float *ours = case_download(r, x);
    double error = relative_error(ours, golden_get(&l->c->golden, golden, NULL), (int64_t)l->n * x.dim[1]);
    print_message("  %-28s error %.2e\n", golden, error);
    assert_true(error <= 1e-4);
    free(ours);
}

static void encode(const char *precision, enum dtype weights, const char *side, int n)
{
    struct model_case    c;
    struct text_encoder *t;
    char                 name[64], error_name[64];
    case_open(&c, "umt5", precision, weights);
    assert_int_equal(gv_text_encoder_open(&t, c.folder, c.device, c.run.compute, &c.error), GV_OK);
    assert_int_equal(gv_weights_pin(t->weights, c.device, false, &c.error), GV_OK);
    struct look look = { &c, side, n };
    struct tap  tap = { compare_layer, &look };
    c.run.tap = &tap;
    snprintf(name, sizeof name, "%s.ids", side);
    const float *stored = golden_get(&c.golden, name, NULL);
    int32_t      ids[256];
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)stored[i];
    struct tensor out = gv_scratch(&c.run, GV_F32, 2, DIMS(n, t->width));
    t->model->encode(&c.run, t, out, ids, n);
    float *ours = case_download(&c.run, out);
    snprintf(name, sizeof name, "%s.out", side);
    snprintf(error_name, sizeof error_name, "whole.%s.out", side);
    /* rows behind the real ones are padding in the reference and are not run here */
    int64_t      full;
    const float *theirs = golden_get(&c.golden, name, &full);
    double       error = relative_error(ours, theirs, (int64_t)n * t->width), limit = 1e-4;
    char         number[96];
    snprintf(number, sizeof number, "bf16_error.%s", error_name);
    if (!case_is_f32(&c))
        limit = 1.5 * (double)golden_number(&c.golden, number);
    print_message("  %-28s error %.2e  limit %.2e\n", name, error, limit);
    assert_true(error <= limit);
    free(ours);
    gv_weights_unpin(t->weights, c.device, false, true);
    t->model->close(t);
    case_close(&c);
}

static void equals_transformers_with_padding(void **state)
{
    (void)state;
    encode("f32", GV_F32, "a", 37);
}
static void equals_transformers_over_far_buckets(void **state)
{
    (void)state;
    encode("f32", GV_F32, "b", 150);
}
static void bf16_is_as_good_as_transformers_bf16(void **state)
{
    (void)state;
    encode("bf16", GV_F32, "a", 37);
    encode("bf16", GV_F32, "b", 150);
}

static void ids_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    struct model_case    c;
    struct text_encoder *t;
    case_open(&c, "umt5", "f32", GV_F32);
    assert_int_equal(gv_text_encoder_open(&t, c.folder, c.device, c.run.compute, &c.error), GV_OK);
    struct tensor out = gv_scratch(&c.run, GV_F32, 2, DIMS(1, t->width));
    t->model->encode(&c.run, t, out, (const int32_t[]){ 512 }, 1);
    assert_int_equal(c.run.err.code, GV_ERR_MODEL);
    assert_non_null(strstr(c.run.err.text, "512"));
    t->model->close(t);
    case_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_transformers_with_padding),
        cmocka_unit_test(equals_transformers_over_far_buckets),
        cmocka_unit_test(bf16_is_as_good_as_transformers_bf16),
        cmocka_unit_test(ids_outside_the_vocabulary_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
