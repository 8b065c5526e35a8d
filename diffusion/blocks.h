/* What families of diffusion transformers share: the embedding of a time. */
#ifndef GV_DIFFUSION_BLOCKS_H
#define GV_DIFFUSION_BLOCKS_H

#include "core/ops.h"

/* out [n, 2 * half] on the host: cos then sin of time · 10000^(-i/half), in f32 as diffusers computes it
 * (embeddings.py get_timestep_embedding with flip_sin_to_cos and no frequency shift). */
void gv_time_embedding(float *out, const float *time, int n, int half);

#endif
