/* What the tokens of a sequence are: for each its (t, h, w) position, or none. A clip, a cube face with padding, a reference
 * beside a target and a row of text are all described the same way; policies and rotary tables read nothing else. */
#ifndef GV_ATTENTION_LAYOUT_H
#define GV_ATTENTION_LAYOUT_H

#include "core/tensor.h"

struct attn_position {
    int32_t t, h, w;
};
#define GV_NO_POSITION INT32_MIN /* in t: a token that has no place in the grid */

/* The order of tokens belongs here. Everything in a transformer but attention and its positions works token by token, so a
 * sequence that is put into another order once, after patchify, and back once, before unpatchify, gives the same numbers; the
 * rotary tables follow position[] by themselves. */
struct attn_layout {
    int64_t               tokens;
    int                   T, H, W;  /* the grid, in tokens; 0 where there is none */
    struct attn_position *position; /* [tokens], owned */
    int32_t              *order;    /* [tokens], owned: raster index of each token; NULL = raster order */
    int                   tile[3];  /* t, h, w of the boxes whose tokens lie together; 0 where they do not */
};

/* Raster order of a grid that starts at frame t0. Errors: MEMORY. */
gv_status gv_layout_grid(struct attn_layout *l, int t0, int T, int H, int W, struct error *e);
/* A grid in raster order put into another: boxes of t x h x w tokens one after the other, raster within and between; or the
 * frames of one place one after the other, place after place. Errors: ARGUMENT when the box does not divide the grid. */
gv_status gv_layout_tiles(struct attn_layout *l, int t, int h, int w, struct error *e);
gv_status gv_layout_places(struct attn_layout *l, struct error *e);
/* Along a Hilbert curve through the cube of 2^n that holds the grid, what lies outside left out: any run of tokens is a compact
 * piece of the clip, on grids that nothing divides. Skilling 2004, "Programming the Hilbert curve". */
gv_status gv_layout_hilbert(struct attn_layout *l, struct error *e);
void      gv_layout_free(struct attn_layout *l);

/* The six orders of the axes, slowest first: raster is THW, and HWT is gv_layout_places. */
enum { GV_AXES = 6 };
extern const char *const gv_axes_name[GV_AXES]; /* "thw", "hwt", "twh", "wth", "htw", "wht" */
/* Raster index of each of the T·H·W tokens in order `axes`. */
void gv_axes_order(int32_t *order, int axes, int T, int H, int W);

#endif
