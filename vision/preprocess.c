/* What would surprise you: rounding to the grid is Python's, halves to even; a side under half a grid step rounds to none and
 * the picture is then enlarged as one that has too few pixels (transformers; Qwen's own utilities keep one step instead). */
#include "vision/preprocess.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_PIXELS = 1 << 27 }; /* a file may ask for: a little more than gv_image_read hands out */

gv_status gv_patch_config_read(struct patch_config *c, const struct json_view *v)
{
    double mean[3] = { 0.48145466, 0.4578275, 0.40821073 }, std[3] = { 0.26862954, 0.26130258, 0.27577711 };
    c->patch = (int)gv_json_int(v, "patch_size", 1, 256, 14);
    c->merge = (int)gv_json_int(v, "merge_size", 1, 16, 2);
    c->temporal = (int)gv_json_int(v, "temporal_patch_size", 1, 16, 2);
    /* Published files say min_pixels and max_pixels; newer ones size.shortest_edge and size.longest_edge, pixels as well. */
    struct json_view size = gv_json_object(v, "size", false);
    c->least = gv_json_int(&size, "shortest_edge", 1, MOST_PIXELS, 56 * 56);
    c->most = gv_json_int(&size, "longest_edge", 1, MOST_PIXELS, 28 * 28 * 1280);
    c->least = gv_json_int(v, "min_pixels", 1, MOST_PIXELS, c->least);
    c->most = gv_json_int(v, "max_pixels", 1, MOST_PIXELS, c->most);
    gv_json_numbers(v, "image_mean", -1e6, 1e6, mean, 3, 3, false);
    gv_json_numbers(v, "image_std", 1e-6, 1e6, std, 3, 3, false);
    for (int i = 0; i < 3; i++) {
        c->mean[i] = (float)mean[i];
        c->std[i] = (float)std[i];
    }
    if (c->least > c->most)
        return gv_json_fail(v, "min_pixels", GV_ERR_MODEL, "is %lld, more than max_pixels, %lld", (long long)c->least,
                            (long long)c->most);
    if (gv_json_int(v, "resample", 0, 5, 3) != 3)
        return gv_json_fail(v, "resample", GV_ERR_UNSUPPORTED, "must be 3 (bicubic)");
    return gv_json_done(v);
}

/* ---- size ---- */

static int64_t on_grid(double steps, int factor)
{
    return (int64_t)steps * factor;
}

static int64_t at_least(int64_t least, int64_t v)
{
    return v < least ? least : v;
}

bool gv_smart_resize(const struct patch_config *c, int height, int width, int64_t *new_height, int64_t *new_width)
{
    const int    f = c->patch * c->merge;
    const double h = height, w = width, pixels = h * w;
    if (height < 1 || width < 1 || fmax(h, w) / fmin(h, w) > 200)
        return false;
    int64_t h_bar = on_grid(nearbyint(h / f), f), w_bar = on_grid(nearbyint(w / f), f); /* halves to even */
    if (h_bar * w_bar > c->most) {
        double beta = sqrt(pixels / (double)c->most);
        h_bar = at_least(f, on_grid(floor(h / beta / f), f));
        w_bar = at_least(f, on_grid(floor(w / beta / f), f));
    } else if (h_bar * w_bar < c->least) {
        double beta = sqrt((double)c->least / pixels);
        h_bar = on_grid(ceil(h * beta / f), f);
        w_bar = on_grid(ceil(w * beta / f), f);
    }
    *new_height = h_bar;
    *new_width = w_bar;
    return true;
}

gv_status gv_picture_grid(const struct patch_config *c, int height, int width, struct patch_grid *g, struct error *e)
{
    int64_t h, w;
    if (!gv_smart_resize(c, height, width, &h, &w))
        return gv_fail(e, GV_ERR_ARGUMENT, "a picture of %dx%d: one side may be at most 200 times the other", width, height);
    h /= c->patch;
    w /= c->patch;
    if (h < 1 || w < 1 || h > GV_MAX_PATCHES / w)
        return gv_fail(e, GV_ERR_ARGUMENT, "a picture of %dx%d makes %lldx%lld patches; up to %d can be read", width, height,
                       (long long)w, (long long)h, GV_MAX_PATCHES);
    *g = (struct patch_grid){ 1, (int)h, (int)w };
    return GV_OK;
}

/* ---- patches ---- */

/* Codes to what the tower reads. Pictures: (x / 255 - mean) / std; clips: (x - 255 mean) / (255 std), as either processor of the
 * reference rounds it. */
struct scale {
    float by, mean[3], std[3];
};

static struct scale scale_of(const struct patch_config *c, bool clip)
{
    struct scale s = { .by = clip ? 1 : 255 };
    for (int k = 0; k < 3; k++) {
        s.mean[k] = clip ? c->mean[k] * 255 : c->mean[k];
        s.std[k] = clip ? c->std[k] * 255 : c->std[k];
    }
    return s;
}

/* Frame t of c->temporal, pixels [H, W, 3] in [0, 255], into every patch. */
static void fill_frame(const struct patch_config *c, const struct scale *s, const float *pixels, struct patch_grid g, int t,
                       float *rows)
{
    const int     m = c->merge, p = c->patch;
    const int64_t stride = (int64_t)g.w * p * 3, plane = (int64_t)p * p;
    for (int cell = 0; cell < g.h / m * (g.w / m); cell++)
        for (int i = 0; i < m * m; i++, rows += patch_values(c)) {
            const int    y = cell / (g.w / m) * m + i / m, x = cell % (g.w / m) * m + i % m;
            const float *from = pixels + y * p * stride + (int64_t)x * p * 3;
            for (int k = 0; k < 3; k++)
                for (int j = 0; j < plane; j++)
                    rows[(k * c->temporal + t) * plane + j] =
                        (from[j / p * stride + 3 * (j % p) + k] / s->by - s->mean[k]) / s->std[k];
        }
}

static gv_status fill_patches(const struct patch_config *c, const struct image *frames, bool clip, struct patch_grid g,
                              float *rows, struct error *e)
{
    const int          height = g.h * c->patch, width = g.w * c->patch;
    const struct scale s = scale_of(c, clip);
    float             *pixels = malloc((size_t)height * (size_t)width * 3 * sizeof *pixels);
    gv_status          status = pixels ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "no memory for a picture of %dx%d", width, height);
    for (int t = 0; t < c->temporal && !status; t++) {
        if (clip || !t)
            status = gv_image_resize(pixels, width, height, &frames[t], clip ? RESIZE_TORCH_BYTES : RESIZE_PIL_BICUBIC, e);
        if (!status)
            fill_frame(c, &s, pixels, g, t, rows);
    }
    free(pixels);
    return status;
}

gv_status gv_picture_patches(const struct patch_config *c, const struct image *im, struct patch_grid g, float *rows,
                             struct error *e)
{
    return fill_patches(c, im, false, g, rows, e);
}

gv_status gv_step_patches(const struct patch_config *c, const struct image *frames, struct patch_grid g, float *rows,
                          struct error *e)
{
    return fill_patches(c, frames, true, g, rows, e);
}
