/* A text encoder that only diffusion uses: token ids in, features out. */
#ifndef GV_DIFFUSION_TEXT_H
#define GV_DIFFUSION_TEXT_H

#include "attention/attention.h"
#include "io/json.h"
#include "io/weights.h"

struct text_encoder;

struct text_model {
    const char *name;       /* "umt5" */
    const char *model_type; /* what model_type says in its config.json */
    /* Shares the checkpoint. */
    gv_status (*open)(struct text_encoder **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                      enum dtype compute, struct error *e);
    void (*close)(struct text_encoder *t);
    /* out f32 [n, width]; ids on the host, each checked against the vocabulary (ARGUMENT). */
    void (*encode)(struct run *r, const struct text_encoder *t, struct tensor out, const int32_t *ids, int n);
};

/* The common head of every family's struct. */
struct text_encoder {
    const struct text_model *model;
    int                      width, vocabulary;
    struct weights          *weights;
};

extern const struct text_model gv_text_umt5;

#endif
