#include "tests/vision/vision_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void vision_open(struct vision_case *v, const char *name, const char *precision)
{
    *v = (struct vision_case){ 0 };
    case_open(&v->c, name, precision, GV_F32);
    if (gv_vlm_open(&v->vlm, v->c.folder, v->c.device, v->c.run.compute, &v->c.error))
        fail_msg("%s", v->c.error.text);
    assert_int_equal(gv_weights_pin(v->vlm->vision, v->c.device, false, &v->c.error), GV_OK);
    assert_int_equal(gv_weights_pin(v->vlm->decoder, v->c.device, false, &v->c.error), GV_OK);
}

void vision_close(struct vision_case *v)
{
    gv_weights_unpin(v->vlm->vision, v->c.device, false, true);
    gv_weights_unpin(v->vlm->decoder, v->c.device, false, true);
    v->vlm->model->close(v->vlm);
    case_close(&v->c);
}

/* tests/reference/qwen2_5_vl.py, GRIDS */
struct patch_grid vision_grid(const char *name)
{
    static const struct patch_grid grids[] = { { 1, 6, 8 }, { 1, 4, 8 }, { 2, 4, 6 }, { 1, 6, 6 } };
    return grids[name[0] - 'a'];
}

/* The picture's own patches, stored with the untied model: one of the two equal frames of each. */
static void picture_patches(float *rows)
{
    enum { PIXELS = 14 * 14 };
    struct golden g;
    int64_t       n;
    golden_open(&g, "qwen2_5_vl");
    const float *frame = golden_get(&g, "picture.patches", &n);
    for (int64_t i = 0; i < n / PIXELS; i++, frame += PIXELS, rows += 2 * PIXELS) {
        memcpy(rows, frame, PIXELS * sizeof *rows);
        memcpy(rows + PIXELS, frame, PIXELS * sizeof *rows);
    }
    golden_close(&g);
}

float *vision_patches(const struct vision_case *v, const char *grid)
{
    char    name[32];
    int64_t n = grid_patches(vision_grid(grid)) * patch_values(&v->vlm->patch);
    float  *rows = malloc((size_t)n * sizeof *rows);
    snprintf(name, sizeof name, "patches.%s", grid);
    fixture_fill(rows, name, n, 1, 0);
    if (grid[0] != 'a')
        return rows;
    picture_patches(rows);
    return rows;
}

struct vlm_media vision_media(const struct vision_case *v, const char *grid)
{
    struct vlm_media m = { .video = grid[0] == 'c', .grid = vision_grid(grid) };
    m.tokens = grid_patches(m.grid) / (v->vlm->patch.merge * v->vlm->patch.merge);
    return m;
}

void vision_encode(struct vision_case *v, struct tensor out, const struct vlm_media *m, const char *grid)
{
    float *rows = vision_patches(v, grid);
    v->vlm->model->encode(&v->c.run, v->vlm, out, m, (struct vlm_piece){ .steps = m->grid.t, .values = rows });
    free(rows);
}

static const char *pictures_of(const char *name)
{
    return !strcmp(name, "picture") ? "a" : !strcmp(name, "two") ? "ab" : !strcmp(name, "text") ? "" : "c";
}

void vision_prompt_open(struct vision_case *v, struct vision_prompt *p, const char *name, bool encode)
{
    char        key[64];
    int64_t     n;
    const char *grid = pictures_of(name);
    *p = (struct vision_prompt){ 0 };
    snprintf(key, sizeof key, "%s.ids", name);
    const float *ids = golden_get(&v->c.golden, key, &n);
    for (int64_t i = 0; i < n; i++)
        p->ids[i] = (int32_t)ids[i];
    for (int i = 0; grid[i]; i++) {
        p->media[i] = vision_media(v, &grid[i]);
        p->media[i].seconds = strcmp(name, "slow") ? 1 : 1.25;
        p->features[i] = gv_scratch(&v->c.run, GV_F32, 2, DIMS(p->media[i].tokens, v->vlm->width));
        if (encode)
            vision_encode(v, p->features[i], &p->media[i], &grid[i]);
        p->prompt.n_media++;
    }
    assert_string_equal(v->c.run.err.text, "");
    p->prompt.ids = p->ids;
    p->prompt.n = n;
    p->prompt.media = p->media;
    p->prompt.features = p->features;
}
