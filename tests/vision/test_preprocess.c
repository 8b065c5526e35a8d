/* Sizes and patches against transformers' processor. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixture.h"
#include "vision/preprocess.h"

static struct patch_config config(int64_t least, int64_t most)
{
    return (struct patch_config){ .patch = 14,
                                  .merge = 2,
                                  .temporal = 2,
                                  .least = least,
                                  .most = most,
                                  .mean = { 0.48145466F, 0.4578275F, 0.40821073F },
                                  .std = { 0.26862954F, 0.26130258F, 0.27577711F } };
}

static void sizes_equal_transformers(void **state)
{
    (void)state;
    struct golden g;
    int64_t       n;
    golden_open(&g, "qwen2_5_vl");
    const float *row = golden_get(&g, "sizes", &n);
    for (const float *end = row + n; row < end; row += 6) {
        struct patch_config c = config((int64_t)row[2], (int64_t)row[3]);
        int64_t             h = 0, w = 0;
        bool                fits = gv_smart_resize(&c, (int)row[0], (int)row[1], &h, &w);
        assert_int_equal(fits, row[4] > 0);
        if (h != (int64_t)row[4] || w != (int64_t)row[5])
            fail_msg("%gx%g gives %lldx%lld, expected %gx%g", (double)row[0], (double)row[1], (long long)h, (long long)w,
                     (double)row[4], (double)row[5]);
    }
    golden_close(&g);
}

static void patches_equal_transformers(void **state)
{
    enum { PIXELS = 14 * 14 };
    (void)state;
    struct golden       g;
    struct error        e = { 0 };
    struct image        im;
    struct patch_grid   grid;
    struct patch_config c = config(3136, 12845056);
    int64_t             n;
    golden_open(&g, "qwen2_5_vl");
    const float *size = golden_get(&g, "picture.size", NULL), *want = golden_get(&g, "picture.patches", &n);
    assert_int_equal(gv_image_new(&im, (int)size[1], (int)size[0], &e), GV_OK);
    int64_t count = (int64_t)im.width * im.height * 3;
    float  *bytes = malloc((size_t)count * sizeof *bytes), *rows = malloc(2 * (size_t)n * sizeof *rows);
    fixture_fill(bytes, "picture", count, 0.5F, 0.5F);
    for (int64_t i = 0; i < count; i++)
        im.rgb[i] = (uint8_t)floorf(bytes[i] * 256);
    assert_int_equal(gv_picture_grid(&c, im.height, im.width, &grid, &e), GV_OK);
    assert_int_equal(grid_patches(grid) * patch_values(&c), 2 * n);
    assert_int_equal(gv_picture_patches(&c, &im, grid, rows, &e), GV_OK);
    for (int64_t i = 0; i < n / PIXELS; i++) { /* a picture's two frames are one, and one is stored */
        assert_memory_equal(rows + 2 * i * PIXELS, rows + (2 * i + 1) * PIXELS, PIXELS * sizeof *rows);
        memmove(rows + i * PIXELS, rows + 2 * i * PIXELS, PIXELS * sizeof *rows);
    }
    double error = relative_error(rows, want, n);
    print_message("  patches: error %.2e\n", error);
    assert_true(error <= 1e-6);
    free(bytes);
    free(rows);
    gv_image_free(&im);
    golden_close(&g);
}

static void pictures_that_make_no_grid_are_refused_in_words(void **state)
{
    (void)state;
    struct patch_config c = config(3136, 12845056), wide = config(3136, INT64_C(1) << 32);
    struct patch_grid   g;
    struct error        e = { 0 };
    assert_int_equal(gv_picture_grid(&c, 3, 700, &g, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "700x3"));
    e = (struct error){ 0 };
    assert_int_equal(gv_picture_grid(&wide, 16384, 65000, &g, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "patches"));
}

/* The text, or what is wrong with it. */
static gv_status read_config(const char *json, struct patch_config *c, struct error *e)
{
    char    text[512];
    json_t *root;
    strcpy(text, json);
    *e = (struct error){ 0 };
    assert_int_equal(gv_json_parse(text, strlen(text), "preprocessor_config.json", &root, e), GV_OK);
    struct json_view v = gv_json_view(root, "preprocessor_config.json", e);
    gv_status        status = gv_patch_config_read(c, &v);
    json_decref(root);
    return status;
}

static void both_spellings_of_the_limits_are_read(void **state)
{
    (void)state;
    struct patch_config c;
    struct error        e;
    assert_int_equal(read_config("{\"min_pixels\": 3136, \"max_pixels\": 12845056}", &c, &e), GV_OK);
    assert_int_equal(c.most, 12845056);
    assert_int_equal(read_config("{\"size\": {\"shortest_edge\": 784, \"longest_edge\": 50176}}", &c, &e), GV_OK);
    assert_int_equal(c.least, 784);
    assert_int_equal(c.most, 50176);
    assert_int_equal(read_config("{\"min_pixels\": 10, \"max_pixels\": 9}", &c, &e), GV_ERR_MODEL);
    assert_int_equal(read_config("{\"image_std\": [0, 1, 1]}", &c, &e), GV_ERR_MODEL);
    assert_int_equal(read_config("{\"resample\": 2}", &c, &e), GV_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_equal_transformers),
        cmocka_unit_test(patches_equal_transformers),
        cmocka_unit_test(pictures_that_make_no_grid_are_refused_in_words),
        cmocka_unit_test(both_spellings_of_the_limits_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
