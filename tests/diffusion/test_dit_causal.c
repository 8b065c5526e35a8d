/* Block-causal generation with a cache of keys and values against diffusers' bidirectional model over the whole sequence, with
 * a time per token and a mask (tests/reference/dit_causal.py): every earlier frame visible, and a window with a sink. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion/models.h"
#include "tests/diffusion/model_case.h"

enum { BLOCK = 2, H = 8, W = 12, CHANNELS = 16, FRAME = H * W * CHANNELS };

struct side {
    const char *name;
    int         frames, window, sink; /* latent frames; window 0 = all */
};

/* One block's forward, committed or with its velocity in v. */
static void forward(struct model_case *c, const struct dit *m, const struct side *s, struct dit_history *past, const float *x,
                    int block, float time, struct tensor v)
{
    struct run          *r = &c->run;
    struct mark          mark = arena_mark(&r->scratch);
    char                 name[16];
    int64_t              n;
    struct attn_layout   grid;
    struct dit_condition cond = { .text_len = 64 };
    snprintf(name, sizeof name, "%s.text", s->name);
    const float *text = golden_get(&c->golden, name, &n);
    cond.text = case_upload(c, 2, DIMS(n / 64, 64), text);
    assert_int_equal(gv_layout_grid(&grid, block * BLOCK, BLOCK, H / 2, W / 2, &c->error), GV_OK);
    struct dit_prepared *p = m->model->prepare(r, m, 1, &cond, &grid);
    assert_non_null(p);
    m->model->forward(r, m, p,
                      &(struct dit_call){ .x = case_upload(c, 5, DIMS(1, BLOCK, H, W, CHANNELS), x + block * BLOCK * FRAME),
                                          .v = v,
                                          .time = &time,
                                          .n_times = 1,
                                          .history = past,
                                          .commit = !present(v) });
    assert_string_equal(r->err.text, "");
    m->model->release(p);
    gv_layout_free(&grid);
    arena_release(&r->scratch, mark);
}

static void roll_out(struct model_case *c, const struct dit *m, const struct side *s)
{
    char               name[16], error[32];
    float             *x = malloc(sizeof *x * FRAME * (size_t)s->frames), *first = malloc(sizeof *first * FRAME * BLOCK);
    int64_t            tokens = H / 2 * (W / 2);
    struct dit_history past = { .capacity = (s->window ? s->window - BLOCK : s->frames - BLOCK) * tokens,
                                .sink = s->sink * tokens };
    assert_int_equal(gv_cache_open(&past.cache, c->device, SIZE_MAX, &c->error), GV_OK);
    snprintf(name, sizeof name, "%s.x", s->name);
    channels_last(x, golden_get(&c->golden, name, NULL), CHANNELS, s->frames, H, W);
    int last = s->frames / BLOCK - 1;
    for (int b = 0; b < last; b++)
        forward(c, m, s, &past, x, b, 0, (struct tensor){ 0 });
    snprintf(name, sizeof name, "%s.t", s->name);
    struct tensor v = gv_scratch(&c->run, GV_F32, 5, DIMS(1, BLOCK, H, W, CHANNELS));
    forward(c, m, s, &past, x, last, golden_number(&c->golden, name), v);
    float *ours = case_download(&c->run, v);
    channels_first(first, ours, CHANNELS, BLOCK, H, W);
    snprintf(name, sizeof name, "%s.out", s->name);
    snprintf(error, sizeof error, "whole.%s", name);
    case_compare(c, name, first, name, error);
    gv_cache_close(&past.cache);
    free(ours);
    free(first);
    free(x);
}

static void run_case(const char *precision)
{
    static const struct side sides[] = { { "a", 6, 0, 0 }, { "b", 8, 4, 1 } };
    struct model_case        c;
    struct dit              *m;
    case_open(&c, "dit_causal", precision, GV_F32);
    gv_dit_open(&m, c.folder, c.device, c.run.compute, &c.error);
    assert_string_equal(c.error.text, "");
    assert_int_equal(gv_weights_pin(m->weights, c.device, false, &c.error), GV_OK);
    for (int i = 0; i < 2; i++)
        roll_out(&c, m, &sides[i]);
    gv_weights_unpin(m->weights, c.device, false, true);
    m->model->close(m);
    case_close(&c);
}

static void cached_blocks_equal_the_masked_whole(void **state)
{
    (void)state;
    run_case("f32");
}
static void bf16_is_as_good_as_diffusers_bf16(void **state)
{
    (void)state;
    run_case("bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(cached_blocks_equal_the_masked_whole),
                                        cmocka_unit_test(bf16_is_as_good_as_diffusers_bf16) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
