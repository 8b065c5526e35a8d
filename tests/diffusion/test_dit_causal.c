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

/* ---- context enrichment ---- */

/* A forward of two frames with keys given or taken; its velocity. */
static float *enriched(struct model_case *c, const struct dit *m, float sign, const struct dit_kv *give,
                       const struct dit_kv *take)
{
    struct run          *r = &c->run;
    struct mark          mark = arena_mark(&r->scratch);
    struct attn_layout   grid;
    struct dit_condition cond = { .text_len = 64 };
    int64_t              n;
    float                time = 500, *x = malloc(sizeof *x * FRAME * BLOCK);
    const float         *text = golden_get(&c->golden, "a.text", &n), *from = golden_get(&c->golden, "a.x", NULL);
    for (int i = 0; i < FRAME * BLOCK; i++)
        x[i] = sign * from[i];
    cond.text = case_upload(c, 2, DIMS(n / 64, 64), text);
    assert_int_equal(gv_layout_grid(&grid, 0, BLOCK, H / 2, W / 2, &c->error), GV_OK);
    struct dit_prepared *p = m->model->prepare(r, m, 1, &cond, &grid);
    struct tensor        v = gv_scratch(r, GV_F32, 5, DIMS(1, BLOCK, H, W, CHANNELS));
    m->model->forward(r, m, p,
                      &(struct dit_call){ .x = case_upload(c, 5, DIMS(1, BLOCK, H, W, CHANNELS), x),
                                          .v = v,
                                          .time = &time,
                                          .n_times = 1,
                                          .kv_write = give,
                                          .kv_read = take });
    assert_string_equal(r->err.text, "");
    m->model->release(p);
    gv_layout_free(&grid);
    free(x);
    float *out = case_download(r, v);
    arena_release(&r->scratch, mark);
    return out;
}

/* A key that is read twice weighs like one that is read once, when all are. */
static void keys_of_another_forward_are_read_in_their_layers(void **state)
{
    struct model_case c;
    struct dit       *m;
    uint8_t           none[64] = { 0 }, first[64] = { 1 };
    const int64_t     n = FRAME * BLOCK;
    (void)state;
    case_open(&c, "dit_causal", "f32", GV_F32);
    gv_dit_open(&m, c.folder, c.device, c.run.compute, &c.error);
    assert_string_equal(c.error.text, "");
    assert_int_equal(gv_weights_pin(m->weights, c.device, false, &c.error), GV_OK);
    struct dit_kv all = { 0 }, nowhere = { .layers = none }, one = { .layers = first };
    assert_int_equal(gv_cache_open(&all.cache, c.device, SIZE_MAX, &c.error), GV_OK);
    nowhere.cache = one.cache = all.cache;
    float *plain = enriched(&c, m, 1, &all, NULL), *own = enriched(&c, m, 1, NULL, &all),
          *off = enriched(&c, m, 1, NULL, &nowhere);
    assert_memory_equal(off, plain, (size_t)n * sizeof *off);
    assert_true(relative_error(own, plain, n) < 1e-4); /* the order of sums */
    free(enriched(&c, m, -1, &all, NULL));
    float *other = enriched(&c, m, 1, NULL, &all), *layer0 = enriched(&c, m, 1, NULL, &one);
    assert_true(relative_error(other, plain, n) > 1e-3 && relative_error(layer0, plain, n) > 1e-4);
    assert_true(relative_error(layer0, other, n) > 1e-4);
    float *out[] = { plain, own, off, other, layer0 };
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        free(out[i]);
    gv_cache_close(&all.cache);
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
                                        cmocka_unit_test(bf16_is_as_good_as_diffusers_bf16),
                                        cmocka_unit_test(keys_of_another_forward_are_read_in_their_layers) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
