/* Parts of a model from files in Wan's own names, whatever holds them: what a file is, and the sizes that its config does not
 * say, are read from its tensors. */
#ifndef GV_DIFFUSION_LAYOUT_WAN_H
#define GV_DIFFUSION_LAYOUT_WAN_H

#include "diffusion/models.h"

enum wan_part { WAN_NONE, WAN_DIT, WAN_VAE, WAN_TEXT, WAN_IMAGE };

/* What c holds. Sets the prefix and the map of its names. Errors: UNSUPPORTED: a family that shares Wan's names, by name. */
gv_status gv_wan_part(struct checkpoint *c, enum wan_part *part, struct error *e);

/* Open a part of that kind; c is taken over, also on failure. config: the original's config.json, or NULL.
 * Errors: MODEL, UNSUPPORTED, MEMORY. */
gv_status gv_wan_dit_open(struct dit **out, struct checkpoint *c, const json_t *config, struct device *d, enum dtype compute,
                          struct error *e);
gv_status gv_wan_vae_open(struct vae **out, struct checkpoint *c, struct device *d, enum dtype compute, struct error *e);
gv_status gv_wan_text_open(struct text_encoder **out, struct checkpoint *c, struct device *d, enum dtype compute,
                           struct error *e);
gv_status gv_wan_image_open(struct image_encoder **out, struct checkpoint *c, const json_t *config, struct device *d,
                            enum dtype compute, struct error *e);

#endif
