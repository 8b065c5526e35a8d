/* PAINT (arXiv 2501.12206, its release of the same name; after PAI): when a word is chosen, scores of picture tokens that matter grow by
 * a share of their own size, so that long texts keep to the picture. Of the last row alone: keys and values of what is kept differ
 * only by what that row then writes. Changes the text, and so off unless asked for. */
#ifndef GV_VISION_PAINT_H
#define GV_VISION_PAINT_H

#include "core/ops.h"

struct paint_opts {
    double local;   /* score += local · |score| of the most important tokens */
    double summary; /* and summary · |score| of those that stand out among all */
    double share;   /* of a picture's tokens that are the most important */
};
/* The published ones. */
#define GV_PAINT_OPTS                                                                                                          \
    (struct paint_opts)                                                                                                        \
    {                                                                                                                          \
        .local = 0.7, .summary = 0.4, .share = 0.25                                                                            \
    }

struct paint {
    int64_t  n;     /* picture tokens */
    int32_t *at;    /* [n] places in the prompt */
    float   *raise; /* [n] share of its size that each one's score grows by */
};

/* picture [prompt]: whether a token of the prompt is a picture's. raise is 0 for all: see gv_paint_raise. Errors: MEMORY. */
gv_status gv_paint_open(struct paint *p, const bool *picture, int64_t prompt, struct error *e);
void      gv_paint_close(struct paint *p);
/* raise [n] of one picture's tokens by their importance, score [n]; 1 and more is no patch (a newline). Errors: MEMORY. */
gv_status gv_paint_raise(float *raise, const struct paint_opts *o, const float *score, int64_t n, struct error *e);

/* The first layer that it works on: 2 of 32, and in proportion for other depths. */
int gv_paint_first_layer(int layers);

/* One layer: o [1, 1, A, D] of q [1, 1, A, D] over k, v [1, N, A_kv, D] once more, with the scores raised. */
struct paint_row {
    struct tensor q, k, v, o;
};
void gv_paint_row(struct run *r, const struct paint *p, const struct paint_row *a);

#endif
