/* Rotary embedding alone: what vision towers and decoders without query and key norms need. */
#ifndef GV_VISION_ROTATE_H
#define GV_VISION_ROTATE_H

#include "core/ops.h"

/* Rotate every head of the rows of x in place. */
void gv_rotate(struct run *r, struct tensor x, const struct rope *rope);

/* Table entries of one position: cos and sin of position · theta^(-2i / width), i = 0..n-1; frequencies and angles in f32 as the reference
 * has them, which far positions feel. */
void gv_rotation_fill(float *cosine, float *sine, float position, int n, int width, double theta);

#endif
