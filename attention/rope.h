/* Positions → rotary tables. The 3-D table of Wan splits a head's pairs into t, h and w parts: h and w get head/6 pairs each
 * and t the rest (head 128: 22, 21, 21). Angles in float64, stored as f32. Source: diffusers transformer_wan.py,
 * WanRotaryPosEmbed. */
#ifndef GV_ATTENTION_ROPE_H
#define GV_ATTENTION_ROPE_H

#include "attention/layout.h"
#include "core/ops.h"

/* Scratch tables for the tokens of a layout: cos, sin [N, head/2]. A token without a position is not rotated. */
struct rope gv_rope_3d(struct run *r, const struct attn_layout *layout, int head, double theta);

#endif
