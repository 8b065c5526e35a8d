/* Our names of weights (those of diffusers and transformers) → those of Wan's own files, one pure function a family. Weight
 * tables stay single; a checkpoint in the original layout asks the function when a name is not in it.
 * Source: Wan-Video/Wan2.1 wan/modules/{model,t5,clip,vae}.py@9737cba; diffusers scripts/convert_wan_to_diffusers.py. */
#ifndef GV_DIFFUSION_NAMES_H
#define GV_DIFFUSION_NAMES_H

#include "io/weights.h"

/* All are gv_name_map. The block's norm2 is the original's norm3: the original's norm2 has no weights. */
bool gv_names_wan_dit(struct stored_name *out, const char *name, int unused);
bool gv_names_wan_umt5(struct stored_name *out, const char *name, int unused);
/* q, k and v are the three thirds of to_qkv. */
bool gv_names_wan_clip(struct stored_name *out, const char *name, int unused);
/* The decoder's stages are one flat list in the original; stage: its entries for one stage, residual blocks and upsampler. */
bool gv_names_wan_vae(struct stored_name *out, const char *name, int stage);

#endif
