/* A rough look at latents: each pixel of latents becomes a colour by a linear map. It is the model's own (genvid.json), or fitted to
 * the VAE that is loaded. */
#ifndef GV_PIPELINES_PREVIEW_H
#define GV_PIPELINES_PREVIEW_H

#include "diffusion/vae.h"

struct preview_map {
    int   channels;                    /* 0: no map */
    float row[GV_VAE_CHANNELS + 1][3]; /* of each channel, then what is added: frames' RGB, -1 to 1 */
};

/* By least squares from what the VAE makes of constant latents, 3 of them for each channel; its decoder is pinned. On the null device
 * counts. Failures are the run's. */
void gv_preview_fit(struct run *r, const struct vae *vae, struct preview_map *out);
/* rgb [n, 3] of latents [n, channels] as the DiT has them. */
void gv_preview_draw(uint8_t *rgb, const struct preview_map *m, const float *latents, int64_t n);

#endif
