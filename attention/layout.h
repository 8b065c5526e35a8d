/* What the tokens of a sequence are: for each its (t, h, w) position, or none. A clip, a cube face with padding, a reference
 * beside a target and a row of text are all described the same way; policies and rotary tables read nothing else. */
#ifndef GV_ATTENTION_LAYOUT_H
#define GV_ATTENTION_LAYOUT_H

#include "core/tensor.h"

struct attn_position {
    int32_t t, h, w;
};
#define GV_NO_POSITION INT32_MIN /* in t: a token that has no place in the grid */

struct attn_layout {
    int64_t               tokens;
    int                   T, H, W;  /* the grid, in tokens; 0 where there is none */
    struct attn_position *position; /* [tokens], owned */
};

/* Raster order of a grid that starts at frame t0. Errors: MEMORY. */
gv_status gv_layout_grid(struct attn_layout *l, int t0, int T, int H, int W, struct error *e);
void      gv_layout_free(struct attn_layout *l);

#endif
