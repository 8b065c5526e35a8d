/* A vision-language model: pictures, clips and a prompt in, logits of the next token out. A pipeline owns the loop:
 *
 *   plan       a picture's or a clip's size → its tokens, and what its tower will read: known before a pixel is
 *   prepare    frames → the values that the tower reads, a few steps at a time
 *   encode     these → features, one for each token        kept: several questions may be asked about one picture
 *   prefill    a prompt with features in their places → logits of the first token of the answer
 *   step       a token → logits of the next
 *
 * A clip is a row of steps (one or more frames each) that towers read one by one, so that it need never be in memory whole; a
 * picture is one step. Prompts are ids in which a picture is a run of placeholder ids, one for each of its tokens. */
#ifndef GV_VISION_VLM_H
#define GV_VISION_VLM_H

#include "vision/clip.h"
#include "vision/lm.h"
#include "vision/preprocess.h"
#include "vision/prune.h"
#include "vision/sample.h"

struct vlm;

/* A picture, or a clip of which `frames` frames are looked at. */
struct vlm_media {
    /* what it is */
    bool    video, alone;  /* alone: no other picture or clip in its prompt */
    int     width, height; /* pixels */
    int     frames;        /* from gv_clip_frames; 1 for a picture */
    double  seconds;       /* of a clip: from step to step */
    int64_t limit;         /* tokens at most, 0: the model's own limits */
    /* what the model makes of it: plan */
    struct patch_grid grid;        /* of the decoder's rows and columns, in patches; grid.t steps */
    int               step_frames; /* frames of a step */
    int64_t           step_values; /* values that the tower reads of a step */
    int64_t           tokens;      /* of the decoder */
    int64_t           step_tokens; /* of these, those of a step; a last token may stand behind all */
    struct prune_lattice lattice;
};

/* Some steps of a picture or a clip. */
struct vlm_piece {
    int                           first, steps;
    const float                  *values;     /* host [steps, step_values]; NULL in a dry run */
    const struct importance_opts *importance; /* NULL: not wanted */
    float                        *score;      /* host [tokens of the piece]: their importance; NULL in a dry run */
};

struct vlm_prompt {
    const int32_t          *ids;
    int64_t                 n;
    const struct vlm_media *media;    /* in the order of their placeholders */
    const struct tensor    *features; /* of each: what encode gave */
    int                     n_media;
    /* of a prompt that lost tokens (gv_vlm_prune); NULL: it is whole */
    const struct token_place *place; /* [n] */
    const uint8_t            *depth; /* [n] drops that a token outlives */
    int32_t                   next;
};

/* A conversation: what the decoder keeps, and the position of the next token. */
struct vlm_state {
    struct lm_state lm;
    int32_t         next;
};

struct vlm_model {
    const char *name;       /* "qwen2.5-vl" */
    const char *model_type; /* what config.json says */
    struct clip_config clip;       /* where the checkpoint says nothing */
    /* Shares the checkpoint. Errors: MODEL, UNSUPPORTED, MEMORY. */
    gv_status (*open)(struct vlm **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                      enum dtype compute, struct error *e);
    /* preprocessor_config.json. Errors: MODEL, UNSUPPORTED with file and field. */
    gv_status (*processor)(struct vlm *v, const struct json_view *view);
    void (*close)(struct vlm *v);
    /* Errors: ARGUMENT, with the size. */
    gv_status (*plan)(const struct vlm *v, struct vlm_media *m, struct error *e);
    /* values [step_values] of one step from its step_frames frames, which have the media's size. Errors: MEMORY. */
    gv_status (*prepare)(const struct vlm *v, const struct vlm_media *m, const struct image *frames, float *values,
                         struct error *e);
    /* Places of the tokens of one picture or clip behind position base - 1; the largest position of them. */
    int32_t (*place)(const struct vlm *v, const struct vlm_media *m, int32_t base, struct token_place *place);
    /* out f32 [tokens of the piece, width]: step_tokens for each step; with the last step, all that are left. Weights: v->vision
     * pinned. */
    void (*encode)(struct run *r, const struct vlm *v, struct tensor out, const struct vlm_media *m, struct vlm_piece piece);
};

/* The common head of every family's struct. */
struct vlm {
    const struct vlm_model *model;
    struct weights         *vision, *decoder;
    struct lm              *lm;
    struct patch_config     patch;                                /* preprocessor_config.json */
    struct clip_config      clip;                                 /* video_preprocessor_config.json */
    struct sample_config    sample;                               /* generation_config.json */
    int                     width, vocabulary, longest;           /* longest: tokens that positions were made for */
    int32_t                 image_id, video_id, start_id, end_id; /* placeholders, and what stands around them, or -1 */
};

/* Place of each token of a prompt; *next: position of the token behind it. Errors: INTERNAL where placeholders and media disagree. */
gv_status gv_vlm_places(const struct vlm *v, const struct vlm_prompt *p, struct token_place *place, int32_t *next,
                        struct error *e);
/* logits f32 [1, vocabulary]; weights: v->decoder pinned. The state is empty before prefill. The prompt runs GV_PREFILL tokens
 * at a time, which bounds the memory; no bit depends on it. */
enum { GV_PREFILL = 4096 };
void gv_vlm_prefill(struct run *r, const struct vlm *v, struct vlm_state *s, const struct vlm_prompt *p, struct tensor logits);
void gv_vlm_step(struct run *r, const struct vlm *v, struct vlm_state *s, int32_t id, struct tensor logits);

/* A prompt with fewer picture tokens: at the places of the whole prompt, with the drops that are to come. */
struct vlm_pruned {
    struct vlm_prompt prompt;
    int64_t           tokens[2 + GV_PRUNE_DROPS]; /* of pictures: all, then what each stage leaves */
    /* storage */
    int32_t            *ids;
    struct token_place *place;
    uint8_t            *depth;
    struct tensor      *features;
    struct vlm_media   *media;
};
/* score: host importance of each picture's tokens, NULL in a dry run, which takes room for the most that may be left. Features lie in
 * scratch of the run until the caller's mark. Fails the run. */
void gv_vlm_prune(struct run *r, const struct vlm *v, struct vlm_pruned *out, const struct vlm_prompt *p,
                  const struct prune_opts *o, const float *const *score);
void gv_vlm_pruned_free(struct vlm_pruned *p);

extern const struct vlm_model gv_vlm_qwen2_vl, gv_vlm_qwen2_5_vl, gv_vlm_llava_onevision;

#endif
