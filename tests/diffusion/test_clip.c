/* CLIP's vision tower against transformers, layer by layer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "diffusion/models.h"
#include "tests/diffusion/model_case.h"

static void compare(void *user, struct run *r, const char *tap, struct tensor x)
{
    struct model_case *c = user;
    int                layer;
    char               name[32] = "pre";
    if (sscanf(tap, "image encoder layer %d.out", &layer) == 1)
        snprintf(name, sizeof name, "layer%d", layer);
    if (!case_is_f32(c))
        return;
    float *ours = case_download(r, x);
    case_compare(c, name, ours, name, name);
    free(ours);
}

static void encode(const char *precision)
{
    struct model_case     c;
    struct image_encoder *m;
    case_open(&c, "clip", precision, GV_F32);
    gv_image_encoder_open(&m, c.folder, c.device, c.run.compute, &c.error);
    assert_string_equal(c.error.text, "");
    assert_int_equal(gv_weights_pin(m->weights, c.device, false, &c.error), GV_OK);
    struct tap tap = { compare, &c };
    c.run.tap = &tap;
    int64_t n = (int64_t)m->size * m->size * 3;
    float  *last = malloc((size_t)n * sizeof *last);
    channels_last(last, golden_get(&c.golden, "a.pil", NULL), 3, 1, m->size, m->size);
    struct tensor pixels = case_upload(&c, 4, DIMS(1, m->size, m->size, 3), last),
                  out = gv_scratch(&c.run, GV_F32, 2, DIMS(m->tokens, m->width));
    m->model->encode(&c.run, m, out, pixels);
    float *ours = case_download(&c.run, out);
    case_compare(&c, "hidden_states[-2]", ours, "layer2", "whole.layer2");
    free(ours);
    free(last);
    gv_weights_unpin(m->weights, c.device, false, true);
    m->model->close(m);
    case_close(&c);
}

static void tower_equals_transformers(void **state)
{
    (void)state;
    encode("f32");
}
static void bf16_is_as_good_as_transformers_bf16(void **state)
{
    (void)state;
    encode("bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(tower_equals_transformers),
                                        cmocka_unit_test(bf16_is_as_good_as_transformers_bf16) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
