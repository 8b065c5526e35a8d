/* Clips: which frames are looked at, sizes and patches, against transformers' video processor (tests/reference/qwen2_5_vl_clip.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixture.h"
#include "vision/vlm.h"

static const struct clip_wish as_it_says = { 0 };

/* The reference's index is floor(i · total / n); a time between two frames' is that of the earlier one. */
static int64_t shown_at(int i, int n, double total)
{
    return (int64_t)floor((double)i * total / n + 1e-9);
}

static void frames_looked_at_equal_transformers(void **state)
{
    (void)state;
    struct golden g;
    int64_t       n;
    golden_open(&g, "qwen2_5_vl_clip");
    const struct clip_config c = gv_vlm_qwen2_5_vl.clip;
    const float             *row = golden_get(&g, "sampled", &n);
    for (const float *end = row + n; row < end; row += 6) {
        const double           total = (double)row[0], seconds = total / (double)row[1];
        const struct clip_wish wish = { .fps = (double)row[2] };
        const int              frames = gv_clip_frames(&c, &wish, (int64_t)total, seconds, 2);
        assert_int_equal(frames, (int)row[3]);
        assert_int_equal(shown_at(frames / 3, frames, total), (int)row[4]);
        assert_int_equal(shown_at(frames - 1, frames, total), (int)row[5]);
    }
    golden_close(&g);
}

static void clips_of_one_frame_and_wishes_are_met(void **state)
{
    (void)state;
    const struct clip_config c = gv_vlm_qwen2_5_vl.clip;
    assert_int_equal(gv_clip_frames(&c, &as_it_says, 1, 0.04, 2), 1);
    assert_int_equal(gv_clip_frames(&c, &as_it_says, 2, 0.08, 2), 2);
    assert_int_equal(gv_clip_frames(&c, &as_it_says, 10800, 180, 2), 360);
    assert_int_equal(gv_clip_frames(&c, &as_it_says, 1 << 20, 1e6, 2), 768);
    assert_int_equal(gv_clip_frames(&c, &(struct clip_wish){ .frames = 33 }, 10800, 180, 2), 32);
    assert_int_equal(gv_clip_frames(&c, &(struct clip_wish){ .fps = 0.5 }, 10800, 180, 2), 90);
    assert_int_equal(gv_clip_frames(&c, &(struct clip_wish){ .frames = 1 }, 10800, 180, 2), 2);
}

static struct vlm qwen(void)
{
    return (struct vlm){ .model = &gv_vlm_qwen2_5_vl,
                         .clip = gv_vlm_qwen2_5_vl.clip,
                         .patch = { .patch = 14,
                                    .merge = 2,
                                    .temporal = 2,
                                    .least = 3136,
                                    .most = 12845056,
                                    .mean = { 0.48145466F, 0.4578275F, 0.40821073F },
                                    .std = { 0.26862954F, 0.26130258F, 0.27577711F } } };
}

static void sizes_of_clips_equal_transformers(void **state)
{
    (void)state;
    const struct vlm v = qwen();
    struct golden    g;
    int64_t          n;
    golden_open(&g, "qwen2_5_vl_clip");
    const float *row = golden_get(&g, "sizes", &n);
    for (const float *end = row + n; row < end; row += 5) {
        struct error     e = { 0 };
        struct vlm_media m = { .video = true, .height = (int)row[0], .width = (int)row[1], .frames = (int)row[2] };
        if (v.model->plan(&v, &m, &e))
            fail_msg("%s", e.text);
        assert_int_equal(m.grid.t, ((int)row[2] + 1) / 2);
        assert_int_equal(m.grid.h * 14, (int)row[3]);
        assert_int_equal(m.grid.w * 14, (int)row[4]);
        assert_int_equal(m.tokens, (int64_t)m.grid.t * m.grid.h * m.grid.w / 4);
    }
    golden_close(&g);
}

static void a_limit_of_tokens_is_kept_or_refused_with_the_numbers(void **state)
{
    (void)state;
    const struct vlm v = qwen();
    for (int limit = 30; limit < 4000; limit = limit * 3 / 2) {
        struct error     e = { 0 };
        struct vlm_media m = { .video = true, .height = 1080, .width = 1920, .frames = 16, .limit = limit };
        if (v.model->plan(&v, &m, &e)) {
            assert_true(limit < 8 * 2);
            continue;
        }
        assert_true(m.tokens <= limit);
        struct vlm_media still = { .height = 1080, .width = 1920, .frames = 1, .limit = limit };
        assert_int_equal(v.model->plan(&v, &still, &e), GV_OK);
        assert_true(still.tokens <= limit);
    }
    struct error     e = { 0 };
    struct vlm_media m = { .video = true, .height = 1080, .width = 1920, .frames = 16, .limit = 7 };
    assert_int_equal(v.model->plan(&v, &m, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "7 tokens"));
}

/* The scene of the golden, t-th frame. */
static void scene(struct image *im, int t)
{
    float u[6];
    fixture_fill(u, "clip", 6, 0.5F, 0.5F);
    for (int y = 0; y < im->height; y++)
        for (int x = 0; x < im->width; x++)
            for (int k = 0; k < 3; k++)
                im->rgb[(y * im->width + x) * 3 + k] =
                    (uint8_t)floor(128 + 100 * sin(x * (0.05 + 0.1 * (double)u[k]) + y * (0.04 + 0.1 * (double)u[3 + k]) +
                                                   t * (0.3 + 0.2 * k)));
}

static void patches_of_clips_equal_transformers(void **state)
{
    (void)state;
    const struct vlm v = qwen();
    struct golden    g;
    struct error     e = { 0 };
    struct vlm_media m = { .video = true, .step_frames = 2 };
    struct image     step[2];
    int64_t          n;
    golden_open(&g, "qwen2_5_vl_clip");
    const float *grid = golden_get(&g, "grid", NULL), *frames = golden_get(&g, "frames", NULL),
                *want = golden_get(&g, "patches", &n);
    m.grid = (struct patch_grid){ (int)grid[0], (int)grid[1], (int)grid[2] };
    const int64_t step_rows = (int64_t)m.grid.h * m.grid.w, width = 1176;
    float        *rows = malloc((size_t)(step_rows * width) * sizeof *rows);
    assert_int_equal(n, m.grid.t * step_rows / 4 * width);
    for (int t = 0; t < m.grid.t; t++, want += n / m.grid.t) {
        for (int i = 0; i < 2; i++) {
            assert_int_equal(gv_image_new(&step[i], 90, 61, &e), GV_OK);
            scene(&step[i], (int)frames[2 * t + i]);
        }
        assert_int_equal(v.model->prepare(&v, &m, step, rows, &e), GV_OK);
        for (int64_t i = 1; i < step_rows / 4; i++) /* stored are a quarter of them */
            memcpy(rows + i * width, rows + 4 * i * width, (size_t)width * sizeof *rows);
        double error = relative_error(rows, want, n / m.grid.t);
        print_message("  step %d: error %.2e\n", t, error);
        assert_true(error <= 1e-6);
        gv_image_free(&step[0]);
        gv_image_free(&step[1]);
    }
    free(rows);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_looked_at_equal_transformers),
        cmocka_unit_test(clips_of_one_frame_and_wishes_are_met),
        cmocka_unit_test(sizes_of_clips_equal_transformers),
        cmocka_unit_test(a_limit_of_tokens_is_kept_or_refused_with_the_numbers),
        cmocka_unit_test(patches_of_clips_equal_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
