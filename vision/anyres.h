/* LLaVA-OneVision's tiling ("anyres"): a picture of any proportions becomes square tiles of the size that its tower knows, and what
 * the tower says of them becomes one grid of the picture's own proportions again. Follows transformers
 * models/llava_onevision (5.23): image_processing_pil, processing and modeling. All on the host. */
#ifndef GV_VISION_ANYRES_H
#define GV_VISION_ANYRES_H

#include "io/frame.h"

enum { GV_ANYRES_SIZES = 256 };

struct anyres_config {
    int   tile, side; /* pixels of a tile; patches a side */
    int   n_sizes;
    int   size[GV_ANYRES_SIZES][2]; /* height, width: what a picture may be brought to */
    int   most;                     /* tiles' worth of tokens before the grid is shrunk: "anyres_max_9" */
    float mean[3], std[3];
};

/* What becomes of a picture of some size. */
struct anyres {
    int height, width;  /* that it is brought to, pixels */
    int rows, columns;  /* tiles */
    int top, left;      /* rows and columns of the tiles' grid that are padding, on either side */
    int grid_h, grid_w; /* of tokens, after padding went and, where there are too many, it was shrunk */
};
void gv_anyres_plan(struct anyres *a, const struct anyres_config *c, int height, int width);

/* Tokens: those of the whole picture in one tile, then the grid's, a newline behind each row. */
static inline int64_t anyres_tokens(const struct anyres_config *c, const struct anyres *a)
{
    return (int64_t)c->side * c->side + (int64_t)a->grid_h * (a->grid_w + 1);
}

/* Patches [1 + rows · columns tiles, side², 3 · patch²] of a picture: itself in one tile, then its tiles, each in raster order.
 * Errors: MEMORY. */
gv_status gv_anyres_patches(const struct anyres_config *c, const struct anyres *a, const struct image *im, int patch,
                            float *rows, struct error *e);
/* [side², 3 · patch²] of a picture in one tile: made square with the mean colour (one of several in a prompt), or stretched as
 * torch does it (a frame of a clip). */
enum anyres_fit { ANYRES_SQUARE, ANYRES_STRETCH };
gv_status gv_anyres_tile(const struct anyres_config *c, const struct image *im, enum anyres_fit fit, int patch, float *rows,
                         struct error *e);

/* What the tower says, [1 + tiles, side², D], to the tokens [anyres_tokens, D]; newline [D]. */
void gv_anyres_pack(float *out, const struct anyres_config *c, const struct anyres *a, const float *x, const float *newline,
                    int64_t D);
/* One tile's [side², D] to the tokens of a frame, [half², D] with half = ceil(side / 2). */
void gv_anyres_pool(float *out, const struct anyres_config *c, const float *x, int64_t D);

#endif
