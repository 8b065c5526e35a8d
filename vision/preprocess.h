/* Pictures → the rows of patches that a vision tower reads: a size on the patch grid, bicubic resizing, normalisation.
 * Follows transformers image_processing_pil_qwen2_vl.py (5.23): what Pillow gives, not what torch's resizer gives. */
#ifndef GV_VISION_PREPROCESS_H
#define GV_VISION_PREPROCESS_H

#include "io/frame.h"
#include "io/json.h"

/* What preprocessor_config.json says. */
struct patch_config {
    int     patch, merge, temporal; /* pixels; patches a side that become one token; frames in a patch */
    int64_t least, most;            /* pixels of a picture */
    float   mean[3], std[3];
};

/* Grid of patches: even numbers of rows and columns (merge divides them). Tokens of the decoder: t · h · w / merge². */
struct patch_grid {
    int t, h, w;
};
static inline int64_t grid_patches(struct patch_grid g)
{
    return (int64_t)g.t * g.h * g.w;
}

enum { GV_MAX_PATCHES = 1 << 20 }; /* of one picture or clip: files that ask for more are refused */

/* Errors: MODEL, UNSUPPORTED with file and field. */
gv_status             gv_patch_config_read(struct patch_config *c, const struct json_view *v);
static inline int64_t patch_values(const struct patch_config *c)
{
    return (int64_t)3 * c->temporal * c->patch * c->patch;
}

/* The size, in pixels, that a picture is brought to: multiples of patch · merge within least and most pixels, proportions
 * kept. False where one side is more than 200 times the other. */
bool gv_smart_resize(const struct patch_config *c, int height, int width, int64_t *new_height, int64_t *new_width);

/* The grid of a picture, or of one step of a clip, within c->least and c->most pixels. Errors: ARGUMENT, with the size. */
gv_status gv_picture_grid(const struct patch_config *c, int height, int width, struct patch_grid *g, struct error *e);

/* Rows [grid.h · grid.w, patch_values] of one picture, which stands for every frame of its patches. Cells of merge × merge
 * patches in raster order, inside a cell its patches in raster order; in a row channel, frame, line, column. */
gv_status gv_picture_patches(const struct patch_config *c, const struct image *im, struct patch_grid g, float *rows,
                             struct error *e);
/* The same of one step of a clip: c->temporal frames of equal size, resized as transformers' video processors do it. */
gv_status gv_step_patches(const struct patch_config *c, const struct image *frames, struct patch_grid g, float *rows,
                          struct error *e);

#endif
