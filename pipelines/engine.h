/* What the public handles hold. An engine is a device and the models on it; it looks unchanging after load and may be shared.
 * A model is a checkpoint's parts, mapped and checked, with the defaults that its files give. A session is one thread's. */
#ifndef GV_PIPELINES_ENGINE_H
#define GV_PIPELINES_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/run.h"
#include "diffusion/models.h"
#include "diffusion/sampler.h"
#include "io/tokenizer.h"
#include "pipelines/preview.h"
#include "pipelines/slots.h"
#include "pipelines/vocabulary.h"

struct vlm;
struct memo;
struct chat_format;

struct gv_engine {
    struct log      log;
    struct device  *device;
    pthread_mutex_t lock;   /* of the list of models */
    gv_model       *models; /* linked by next */
    atomic_ullong   loaded; /* models so far: the last one's serial */
};

/* What a render does when the request does not say; from the checkpoint's files, genvid.json, or the family. */
struct video_defaults {
    int    text_length; /* tokens after padding */
    int    width, height, frames, steps;
    double fps, guidance, shift;
    double shift_480p; /* of a clip from a picture at 832 x 480 or 480 x 832; 0: shift */
    int    causal_block, causal_window, causal_sink, causal_steps; /* block 0: the model does not generate causally */
};

struct gv_model {
    gv_engine            *engine;
    gv_model             *next;
    uint64_t              serial; /* from 1; no other model of this engine has it, ever */
    char                 *path;
    char                  pipeline[64]; /* "WanPipeline" */
    struct dit           *dit;
    struct vae           *vae;
    struct text_encoder  *text;
    struct image_encoder *image; /* NULL: takes no image features */
    struct tokenizer     *tokenizer;
    const struct chat_format *chat; /* of a captioning model */
    struct vlm           *vlm; /* a captioning model has this and the tokenizer, and no other part; else NULL */
    struct sampler_config sampler;
    char                  schedule[32]; /* of the model's own solver */
    bool                  known_first;  /* image to video by known tokens at t = 0 */
    bool                  wan_rules;    /* pictures as Wan's own code takes them: torch's bicubic, no crop for CLIP */
    bool                  trained;      /* false: genvid.json says that the weights are random */
    struct video_defaults defaults;
    struct preview_map    preview;    /* of genvid.json; without it, one is fitted */
    struct vocabulary    *vocabulary; /* of genvid.json; NULL: every word is as good */
    struct slots         *slots;      /* the same; NULL: nothing to compare by */
};

struct gv_session {
    gv_engine   *engine;
    atomic_bool  cancel;
    struct error error;
    char        *report;      /* JSON of the last render, or NULL */
    bool         report_lost; /* memory ran out for it */
    struct memo *memo;        /* prompts and preview; never NULL */
};

/* Opens every part of the model at path: a diffusers directory, a directory of Wan's own, a file of its transformer with the
 * other parts beside it, or a vision-language checkpoint. Errors: IO, MODEL, UNSUPPORTED, MEMORY. */
gv_status gv_model_open(gv_model **out, gv_engine *engine, const char *path, struct error *e);
void      gv_model_close(gv_model **m);

#endif
