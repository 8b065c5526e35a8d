/* LLaVA-OneVision against transformers: sizes and tokens, tiles, tower, packing and pooling, decoder, greedy text.
 * Measures: tests/reference/llava_onevision.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/vision/vision_case.h"
#include "vision/anyres.h"

static void compare(void *user, struct run *r, const char *tap, struct tensor x)
{
    struct vision_case *v = user;
    char                name[64];
    int                 i;
    (void)r;
    if (sscanf(tap, "vision.layers.%d.out", &i) == 1)
        snprintf(name, sizeof name, "%s.layer%d", v->side, i);
    else if (sscanf(tap, "decoder.layers.%d.out", &i) == 1 && strstr(tap, ".out"))
        snprintf(name, sizeof name, "%s.layer.%d", v->side, i);
    else if (!strncmp(tap, "decoder.", 8) && strcmp(tap, "decoder.logits"))
        return;
    else
        snprintf(name, sizeof name, "%s.%s", v->side, strrchr(tap, '.') + 1);
    if (!golden_has(&v->c.golden, name))
        return;
    float *ours = case_download(&v->c.run, x);
    case_compare(&v->c, name, ours, name, name);
    free(ours);
    v->compared++;
}

/* ---- sizes ---- */

static void sizes_and_tokens_equal_transformers(void **state)
{
    (void)state;
    struct golden        g;
    struct anyres_config c = { .tile = 384, .side = 27, .most = 9, .n_sizes = 36 };
    struct anyres        a;
    int64_t              n;
    for (int i = 0; i < 36; i++)
        c.size[i][0] = 384 * (i / 6 + 1), c.size[i][1] = 384 * (i % 6 + 1);
    golden_open(&g, "llava_onevision");
    const float *row = golden_get(&g, "sizes", &n);
    for (const float *end = row + n; row < end; row += 5) {
        gv_anyres_plan(&a, &c, (int)row[0], (int)row[1]);
        if (a.height != (int)row[2] || a.width != (int)row[3] || anyres_tokens(&c, &a) != (int)row[4])
            fail_msg("%gx%g: %dx%d and %d tokens, expected %gx%g and %g", (double)row[0], (double)row[1], a.height, a.width,
                     (int)anyres_tokens(&c, &a), (double)row[2], (double)row[3], (double)row[4]);
    }
    golden_close(&g);
}

/* ---- pictures ---- */

struct shown {
    const char *name;
    int         height, width;
    bool        video, alone;
};
static const struct shown wide[] = { { "wide", 60, 130, false, true } }, big[] = { { "big", 300, 260, false, true } },
                          two[] = { { "a", 90, 101, false, false }, { "b", 50, 40, false, false } },
                          clip[] = { { "clip", 64, 90, true, true } };

static struct image picture(const char *name, int height, int width)
{
    struct image  im;
    struct error  e = { 0 };
    const int64_t n = (int64_t)height * width * 3;
    float        *bytes = malloc((size_t)n * sizeof *bytes);
    assert_int_equal(gv_image_new(&im, width, height, &e), GV_OK);
    fixture_fill(bytes, name, n, 0.5F, 0.5F);
    for (int64_t i = 0; i < n; i++)
        im.rgb[i] = (uint8_t)floorf(bytes[i] * 256);
    free(bytes);
    return im;
}

/* Plan and values of a picture, or of a clip of three frames. */
static float *prepared(struct vision_case *v, const struct shown *s, struct vlm_media *m)
{
    *m = (struct vlm_media){
        .video = s->video, .alone = s->alone, .height = s->height, .width = s->width, .frames = s->video ? 3 : 1
    };
    assert_int_equal(v->vlm->model->plan(v->vlm, m, &v->c.error), GV_OK);
    float *values = malloc((size_t)(m->grid.t * m->step_values) * sizeof *values);
    for (int i = 0; i < m->grid.t; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        struct image im = picture(s->video ? name : s->name, s->height, s->width);
        assert_int_equal(v->vlm->model->prepare(v->vlm, m, &im, values + i * m->step_values, &v->c.error), GV_OK);
        gv_image_free(&im);
    }
    return values;
}

static struct tensor encoded(struct vision_case *v, const struct shown *s, struct vlm_media *m, int steps)
{
    float        *values = prepared(v, s, m);
    struct tensor out = gv_scratch(&v->c.run, GV_F32, 2, DIMS(m->tokens, v->vlm->width));
    for (int at = 0; at < m->grid.t; at += steps) {
        const int64_t end = at + steps < m->grid.t ? (at + steps) * m->step_tokens : m->tokens;
        v->vlm->model->encode(&v->c.run, v->vlm, slice(out, 0, at * m->step_tokens, end - at * m->step_tokens), m,
                              (struct vlm_piece){ .first = at,
                                                  .steps = steps < m->grid.t - at ? steps : m->grid.t - at,
                                                  .values = values + at * m->step_values });
    }
    free(values);
    assert_string_equal(v->c.run.err.text, "");
    return out;
}

static void tiles_equal_transformers(void **state)
{
    (void)state;
    struct vision_case v;
    struct vlm_media   m;
    int64_t            n;
    vision_open(&v, "llava_onevision", "f32");
    float *values = prepared(&v, wide, &m);
    assert_int_equal(m.tokens, 80);
    const float *want = golden_get(&v.c.golden, "wide.patches", &n);
    assert_int_equal(m.step_values, 3 * n);
    for (int64_t i = 1; i < n / 588; i++) /* every third patch is stored */
        memcpy(values + i * 588, values + 3 * i * 588, 588 * sizeof *values);
    assert_true(relative_error(values, want, n) <= 1e-6);
    free(values);
    vision_close(&v);
}

static void towers(const char *precision)
{
    struct vision_case v;
    struct vlm_media   m;
    vision_open(&v, "llava_onevision", precision);
    struct tap tap = { compare, &v };
    v.c.run.tap = &tap;
    static const struct shown *const all[] = { wide, big, two, two + 1, clip };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct mark mark = arena_mark(&v.c.run.scratch);
        v.side = all[i]->name;
        v.compared = 0;
        encoded(&v, all[i], &m, 3);
        assert_int_equal(v.compared, i == 0 ? 5 : 1);
        arena_release(&v.c.run.scratch, mark);
    }
    vision_close(&v);
}

static void tower_and_packing_equal_transformers(void **state)
{
    (void)state;
    towers("f32");
}
static void bf16_tower_is_as_good_as_transformers_bf16(void **state)
{
    (void)state;
    towers("bf16");
}

static void a_clip_may_come_in_pieces(void **state)
{
    (void)state;
    struct vision_case v;
    struct vlm_media   m;
    vision_open(&v, "llava_onevision", "f32");
    float *whole = case_download(&v.c.run, encoded(&v, clip, &m, 3)),
          *pieces = case_download(&v.c.run, encoded(&v, clip, &m, 2));
    assert_int_equal(m.tokens, 28);
    assert_memory_equal(whole, pieces, 28 * 64 * sizeof *whole);
    free(whole);
    free(pieces);
    vision_close(&v);
}

/* ---- decoder ---- */

static void caption(struct vision_case *v, const char *name, const struct shown *s, int n_media)
{
    struct vlm_media    media[2];
    struct tensor       features[2], logits;
    struct vlm_state    state = { 0 };
    struct text_sampler choose;
    char                key[64];
    int64_t             n, tokens;
    float               host[1024];
    for (int i = 0; i < n_media; i++)
        features[i] = encoded(v, &s[i], &media[i], 3);
    snprintf(key, sizeof key, "%s.ids", name);
    const float *wanted_ids = golden_get(&v->c.golden, key, &n);
    int32_t     *ids = malloc((size_t)n * sizeof *ids);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)wanted_ids[i];
    snprintf(key, sizeof key, "%s.tokens", name);
    const float            *want = golden_get(&v->c.golden, key, &tokens);
    const struct vlm_prompt p = { .ids = ids, .n = n, .media = media, .features = features, .n_media = n_media };
    struct tap              tap = { compare, v };
    v->side = name;
    v->compared = 0;
    v->c.run.tap = &tap;
    logits = gv_scratch(&v->c.run, GV_F32, 2, DIMS(1, 1024));
    assert_int_equal(gv_lm_state_open(&state.lm, v->c.device, n + tokens, &v->c.error), GV_OK);
    assert_int_equal(gv_text_sampler_open(&choose, 1024, &(struct sample_opts){ 0 }, &v->c.error), GV_OK);
    gv_vlm_prefill(&v->c.run, v->vlm, &state, &p, logits);
    assert_int_equal(v->compared, strcmp(name, "wide") ? 1 : 3);
    v->c.run.tap = NULL;
    for (int64_t i = 0; i < tokens && case_is_f32(&v->c); i++) {
        gv_download(&v->c.run, host, logits);
        assert_string_equal(v->c.run.err.text, "");
        const int32_t id = gv_text_sampler_next(&choose, host);
        if (id != (int32_t)want[i])
            fail_msg("%s: token %d is %d, expected %d", name, (int)i, id, (int)want[i]);
        gv_vlm_step(&v->c.run, v->vlm, &state, id, logits);
    }
    gv_text_sampler_close(&choose);
    gv_lm_state_close(&state.lm);
    free(ids);
}

static void captions(const char *precision)
{
    struct vision_case v;
    vision_open(&v, "llava_onevision", precision);
    caption(&v, "wide", wide, 1);
    caption(&v, "big", big, 1);
    caption(&v, "two", two, 2);
    caption(&v, "clip", clip, 1);
    vision_close(&v);
}

static void decoder_and_greedy_text_equal_transformers(void **state)
{
    (void)state;
    captions("f32");
}
static void bf16_decoder_is_as_good_as_transformers_bf16(void **state)
{
    (void)state;
    captions("bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_tokens_equal_transformers),
        cmocka_unit_test(tiles_equal_transformers),
        cmocka_unit_test(tower_and_packing_equal_transformers),
        cmocka_unit_test(bf16_tower_is_as_good_as_transformers_bf16),
        cmocka_unit_test(a_clip_may_come_in_pieces),
        cmocka_unit_test(decoder_and_greedy_text_equal_transformers),
        cmocka_unit_test(bf16_decoder_is_as_good_as_transformers_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
