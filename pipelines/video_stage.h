/* What the stages of a render share: the state that one hands to the next, their clock, the parts that they pin, and news to the
 * user. For the files of this pipeline alone. Every stage does nothing after a failure, which is the run's. */
#ifndef GV_PIPELINES_VIDEO_STAGE_H
#define GV_PIPELINES_VIDEO_STAGE_H

#include "io/sha256.h"
#include "pipelines/video.h"

/* Some latent frames that are denoised together. */
struct block {
    int     index;
    int64_t t0, T; /* first latent frame, how many */
    bool    last;
};

/* Decoding goes on from block to block. */
struct decoding {
    struct vae_stream *stream;
    int64_t            next;   /* latent frame */
    double             flops;  /* of the last one */
    float             *pixels; /* host [time_scale, H, W, 3] */
    uint8_t           *rgb;    /* of one frame */
    struct sha256      hash;   /* of the frames so far */
    uint16_t          *deep;   /* the same in 16 bits, where the sink keeps more than 8; else NULL */
};

/* What the stages hand to each other. */
struct video_state {
    struct video_job    *job;
    struct run          *run;
    struct video_report *report;
    double               began;
    int                  rows; /* 1, or 2 with guidance: conditional, unconditional */
    struct dit_condition condition[2];
    struct tensor        known;    /* f32 [1, h, w, z]: the first latent frame, or absent */
    struct tensor        channels; /* f32 [T, h, w, C_in - z]: what is told beside the latents, or absent */
    struct loop_state    loop;     /* of the block */
    struct dit_history   history;  /* causal: keys and values of the blocks before */
    struct shortcut_run  shortcuts;
    struct decoding      decoding;
    bool                 dit_pinned, vae_pinned;
    struct preview_map   preview; /* channels 0: no previews */
};

static inline bool dry(const struct run *r)
{
    return gv_device_is_null(r->device);
}

/* Progress of a stage. The user's callback may cancel the render. */
void gv_stage_tell(struct video_state *v, const char *stage, int64_t done, int64_t total);
/* When the stage began, for gv_stage_end, which adds its time to the report's row of that name. */
double gv_stage_begin(struct video_state *v);
void   gv_stage_end(struct video_state *v, const char *name, double began);

/* A part of the model on the device while its stage lasts. stream: its layers come as they are needed. */
void gv_stage_pin(struct video_state *v, struct weights *w, bool stream, bool *pinned);
void gv_stage_unpin(struct video_state *v, struct weights *w, bool stream, bool *pinned);

/* Fill v->rows and the features of v->condition. */
void gv_stage_text(struct video_state *v);
/* Fills v->known or v->channels, and the picture's tokens in v->condition, where the job has a picture. */
void gv_stage_image(struct video_state *v);

/* Finds v->preview where the job asks for looks. */
void gv_stage_preview(struct video_state *v);
/* Every preview_every-th step, hands on what the block's middle frame would be if the velocity were right: x - sigma v. Called before
 * the step moves x. */
void gv_stage_look(struct video_state *v, const struct block *b, struct tensor velocity);

#endif
