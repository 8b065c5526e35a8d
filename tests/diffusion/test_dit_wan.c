/* The Wan transformer against diffusers: embeddings, every block, the head; one time and a time per token; image tokens; head
 * sizes 128 and 64. Blocks are compared inside a whole forward: in f32 the drift over three blocks is far below the limit; in
 * bf16 the limit is the reference's own error over the same whole forward. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/diffusion/dit_case.h"

static const struct dit_side t2v[] = { { "a", "a", 3, 8, 12, 512 }, { "b", "b", 5, 6, 10, 512 }, { "c", "a", 3, 8, 12, 512 } };
static const struct dit_side i2v[] = { { "a", "a", 3, 6, 10, 512 } };
static const struct dit_side hd64[] = { { "a", "a", 3, 8, 12, 64 }, { "b", "a", 3, 8, 12, 64 }, { "c", "a", 3, 8, 12, 64 } };

static void text_to_video_equals_diffusers(void **state)
{
    (void)state;
    dit_case_run("dit_t2v", "f32", GV_F32, false, t2v, 3);
}
static void image_channels_and_tokens_equal_diffusers(void **state)
{
    (void)state;
    dit_case_run("dit_i2v", "f32", GV_F32, false, i2v, 1);
}
static void the_shipped_shape_equals_diffusers(void **state)
{
    (void)state;
    dit_case_run("dit_hd64", "f32", GV_F32, false, hd64, 3);
}
static void streamed_layers_equal_diffusers(void **state)
{
    (void)state;
    dit_case_run("dit_i2v", "f32", GV_F32, true, i2v, 1);
}
static void bf16_is_as_good_as_diffusers_bf16(void **state)
{
    (void)state;
    dit_case_run("dit_t2v", "bf16", GV_F32, false, t2v, 3);
    dit_case_run("dit_i2v", "bf16", GV_F32, false, i2v, 1);
    dit_case_run("dit_hd64", "bf16", GV_F32, false, hd64, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_to_video_equals_diffusers),     cmocka_unit_test(image_channels_and_tokens_equal_diffusers),
        cmocka_unit_test(the_shipped_shape_equals_diffusers), cmocka_unit_test(streamed_layers_equal_diffusers),
        cmocka_unit_test(bf16_is_as_good_as_diffusers_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
