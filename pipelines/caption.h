/* Pictures, clips and a question to text: the stages in their order. A job is a request with every default filled in, every range
 * checked, pictures read, clips opened and the prompt as ids; the same stages run on the null device to learn what the job will take. */
#ifndef GV_PIPELINES_CAPTION_H
#define GV_PIPELINES_CAPTION_H

#include "pipelines/caption_media.h"
#include "pipelines/residency.h"

enum {
    GV_CAPTION_MEDIA = 64,
    GV_CAPTION_TOKENS = 256
}; /* pictures and clips of a request at most; tokens of a text when it names none */

struct caption_job {
    gv_model             *model;
    struct caption_media *media; /* owned */
    struct vlm_media     *plan;  /* of each, side by side; owned */
    int                   n_media;
    int32_t              *ids; /* of the prompt, a placeholder for each picture token; owned */
    int64_t               n, picture_tokens;
    int64_t               steps, frames; /* of all media */
    int                   max_tokens;
    struct sample_opts    sample;
    bool                  prunes, receipt; /* receipt: measure what pruning changed */
    bool                  calibrated;      /* prune is the model's own */
    struct prune_opts     prune;
    int64_t               recycle,
        recycle_every; /* keys that most steps of the text read, 0: all; steps from one that reads all to the next */
    int64_t          pages, pages_every; /* keys that a step reads, 0: all; steps from one choice to the next */
    struct residency residency;
    const char      *explain; /* folder, or NULL */
    bool              paints;
    struct paint_opts paint;
    double            factor; /* of picture tokens' scores in the first factor_layers, 0: none */
    int               factor_layers;
    float *state; /* host [width]: takes the decoder's last state before the first word, and no text is made; or NULL */

    gv_text_fn     on_text; /* either may be absent */
    gv_progress_fn progress;
    void          *user;
};

/* Errors: ARGUMENT (fields; a context that overflows, with the arithmetic), IO, FORMAT, UNSUPPORTED, MEMORY. */
gv_status gv_caption_job_open(struct caption_job *job, const gv_caption_request *q, struct error *e);
void      gv_caption_job_close(struct caption_job *job);

struct caption_stage {
    const char *name;
    double      seconds;
};
struct caption_report {
    struct caption_stage stage[4]; /* "image", "prompt", "text", "explain" */
    int                  n_stages;
    double               seconds;
    size_t               peak_bytes, scratch_bytes, kept_bytes; /* kept: keys and values */
    int                  tokens;                                /* of the text */
    bool                 stopped;                               /* by a stop id, not by max_tokens */
    int64_t              pruned[2 + GV_PRUNE_DROPS];            /* picture tokens: all, and what each stage left */
    double               likeness;                              /* cosine of the first logits with those of the whole prompt */
    double               recycled;          /* mean share of attention that the recycled keys held; 0: not known */
    double               paged, page_share; /* keys read of all that there were; the attention that they held; 0: not known */
    size_t               whole_bytes;       /* keys and values of the whole prompt */
};

/* Dry runs on the null device, from job->residency to smaller ones, until one fits. Errors: MEMORY, with the arithmetic. */
gv_status gv_caption_plan(struct caption_job *job, struct caption_report *out, struct error *e);
/* The stages. *text: the whole text, freed with free(); report->scratch_bytes: from gv_caption_plan. */
gv_status gv_pipeline_caption(struct caption_job *job, const atomic_bool *cancel, struct caption_report *report, char **text,
                              struct error *e);

/* A checkpoint of vision/ becomes a model: its parts, its tokenizer, and a look at its chat template, which has to be of the
 * one format that is built in. Errors: IO, MODEL, UNSUPPORTED, MEMORY. */
gv_status gv_caption_model_open(gv_model *m, struct error *e);
/* What gv_model_describe says of it; freed with free(). */
char *gv_caption_model_json(const gv_model *m);
char *gv_caption_report_json(const struct caption_job *job, const struct caption_report *p);

#endif
