/* An image encoder that only diffusion uses: prepared pixels in, token features out. */
#ifndef GV_DIFFUSION_IMAGE_H
#define GV_DIFFUSION_IMAGE_H

#include "attention/attention.h"
#include "io/json.h"
#include "io/weights.h"

struct image_encoder;

struct image_model {
    const char *name;       /* "clip" */
    const char *model_type; /* what model_type says in its config.json */
    /* Shares the checkpoint. */
    gv_status (*open)(struct image_encoder **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                      enum dtype compute, struct error *e);
    void (*close)(struct image_encoder *m);
    /* out f32 [tokens, width]; pixels f32 [1, size, size, 3], normalised. */
    void (*encode)(struct run *r, const struct image_encoder *m, struct tensor out, struct tensor pixels);
};

/* The common head of every family's struct. */
struct image_encoder {
    const struct image_model *model;
    int                       width, size, tokens;
    float                     mean[3], std[3]; /* of pixels in [0, 1] */
    struct weights           *weights;
};

extern const struct image_model gv_image_clip;

#endif
