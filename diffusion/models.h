/* Every model of this room, by what its config says it is. Adding one: its file, and a line in models.c. */
#ifndef GV_DIFFUSION_MODELS_H
#define GV_DIFFUSION_MODELS_H

#include "diffusion/dit.h"
#include "diffusion/image.h"
#include "diffusion/text.h"
#include "diffusion/vae.h"

/* Open the component in dir: its config.json says which family; its weights are `stem`.safetensors, or the shards that
 * `stem`.safetensors.index.json lists. Errors: IO, MODEL, UNSUPPORTED (a family that is not here, by name), MEMORY. */
gv_status gv_dit_open(struct dit **out, const char *dir, struct device *d, enum dtype compute, struct error *e);
gv_status gv_vae_open(struct vae **out, const char *dir, struct device *d, enum dtype compute, struct error *e);
gv_status gv_text_encoder_open(struct text_encoder **out, const char *dir, struct device *d, enum dtype compute,
                               struct error *e);
gv_status gv_image_encoder_open(struct image_encoder **out, const char *dir, struct device *d, enum dtype compute,
                                struct error *e);

#endif
