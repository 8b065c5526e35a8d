/* A vision-language model: pictures and a prompt in, logits of the next token out. A pipeline owns the loop:
 *
 *   encode     a picture's patches → its tokens           kept: several questions may be asked about one picture
 *   prefill    a prompt with pictures in their places → logits of the first token of the answer
 *   step       a token → logits of the next
 *
 * Prompts are ids in which a picture is a run of placeholder ids, one for each of its tokens. */
#ifndef GV_VISION_VLM_H
#define GV_VISION_VLM_H

#include "vision/lm.h"
#include "vision/preprocess.h"
#include "vision/sample.h"

struct vlm;

/* A picture, or a clip whose grid steps in time lie `seconds` apart. */
struct vlm_media {
    struct patch_grid grid;
    const float      *patches; /* host [grid_patches, patch_values], as gv_picture_patches makes them; NULL in a dry run */
    bool              video;
    double            seconds;
};

struct vlm_prompt {
    const int32_t          *ids;
    int64_t                 n;
    const struct vlm_media *media;    /* in the order of their placeholders */
    const struct tensor    *features; /* of each: what encode gave */
    int                     n_media;
};

/* A conversation: what the decoder keeps, and the position of the next token. */
struct vlm_state {
    struct lm_state lm;
    int32_t         next;
};

struct vlm_model {
    const char *name;       /* "qwen2.5-vl" */
    const char *model_type; /* what config.json says */
    /* Shares the checkpoint. Errors: MODEL, UNSUPPORTED, MEMORY. */
    gv_status (*open)(struct vlm **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                      enum dtype compute, struct error *e);
    void (*close)(struct vlm *v);
    /* Place of each token of a prompt; *next: position of the token behind it. Errors: INTERNAL where placeholders and media disagree. */
    gv_status (*places)(const struct vlm *v, const struct vlm_prompt *p, struct token_place *place, int32_t *next,
                        struct error *e);
    /* out f32 [vlm_tokens, width]; weights: v->vision pinned */
    void (*encode)(struct run *r, const struct vlm *v, struct tensor out, const struct vlm_media *m);
    /* logits f32 [1, vocabulary]; weights: v->decoder pinned. The state is empty before prefill. */
    void (*prefill)(struct run *r, const struct vlm *v, struct vlm_state *s, const struct vlm_prompt *p, struct tensor logits);
    void (*step)(struct run *r, const struct vlm *v, struct vlm_state *s, int32_t id, struct tensor logits);
};

/* The common head of every family's struct. */
struct vlm {
    const struct vlm_model *model;
    struct weights         *vision, *decoder;
    struct patch_config     patch;                                /* preprocessor_config.json */
    struct sample_config    sample;                               /* generation_config.json */
    int                     width, vocabulary, longest;           /* longest: tokens that positions were made for */
    int32_t                 image_id, video_id, start_id, end_id; /* placeholders, and what stands around them */
};

static inline int64_t vlm_tokens(const struct vlm *v, struct patch_grid g)
{
    return grid_patches(g) / (v->patch.merge * v->patch.merge);
}

extern const struct vlm_model gv_vlm_qwen2_5_vl;

#endif
