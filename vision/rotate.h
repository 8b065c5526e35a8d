/* Rotary embedding alone: what vision towers and decoders without query and key norms need. */
#ifndef GV_VISION_ROTATE_H
#define GV_VISION_ROTATE_H

#include "core/ops.h"

/* Rotate every head of the rows of x in place. */
void gv_rotate(struct run *r, struct tensor x, const struct rope *rope);

/* rate[i] = theta^(-2i / width), i = 0..n-1. Tables of thousands of positions share them: a power costs more than the turn. */
void gv_rotation_rates(float *rate, int n, int width, double theta);
/* Table entries of one position: cos and sin of position · rate[i]; frequencies and angles in f32 as the reference has them, which far
 * positions feel. */
void gv_rotation_fill(float *cosine, float *sine, const float *rate, int n, float position);

#endif
