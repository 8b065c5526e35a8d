/* A causal video VAE, streamed: one latent frame at a time, with the last frames of every convolution kept in between.
 *
 * A stream is one clip in one direction. Its memory does not grow with the clip: the kept frames are taken at the first chunk
 * and freed at its close. Streams are one thread's; the VAE itself is shared. */
#ifndef GV_DIFFUSION_VAE_H
#define GV_DIFFUSION_VAE_H

#include "attention/attention.h"
#include "io/json.h"
#include "io/weights.h"

enum { GV_VAE_CHANNELS = 64 };

struct vae;
struct vae_stream;
enum vae_direction { VAE_ENCODE, VAE_DECODE };

struct vae_model {
    const char *name;       /* "wan" */
    const char *class_name; /* what _class_name says in a diffusers config */
    /* Shares the checkpoint. */
    gv_status (*open)(struct vae **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                      enum dtype compute, struct error *e);
    void (*close)(struct vae *v);
    /* NULL when memory ran out: the run has then failed. */
    struct vae_stream *(*stream_open)(struct run *r, const struct vae *v, enum vae_direction direction);
    void (*stream_close)(struct run *r, struct vae_stream *s);
    /* The stream's next latent frame. z f32 [1, h, w, z], normalised as the DiT has it; frames f32 [1 or time_scale, H, W, 3],
     * about [-1, 1], not clamped: the first latent frame is one frame, every other time_scale. */
    void (*decode)(struct run *r, struct vae_stream *s, struct tensor frames, struct tensor z);
    /* The same backwards: the mean of the posterior, normalised. */
    void (*encode)(struct run *r, struct vae_stream *s, struct tensor z, struct tensor frames);
};

/* The common head of every family's struct. */
struct vae {
    const struct vae_model *model;
    int                     z, time_scale, space_scale;
    float                   mean[GV_VAE_CHANNELS], std[GV_VAE_CHANNELS]; /* of latents: DiT's = (VAE's - mean) / std */
    struct weights         *encoder, *decoder; /* apart, so that text to video never uploads the encoder */
};

extern const struct vae_model gv_vae_wan;

#endif
