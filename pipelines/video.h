/* Text or image to video: the stages in their order. A job is a request with every default filled in and every range checked;
 * the same stages run on the null device to learn what the job will take. */
#ifndef GV_PIPELINES_VIDEO_H
#define GV_PIPELINES_VIDEO_H

#include "core/rng_torch.h"
#include "io/sink.h"
#include "pipelines/residency.h"
#include "pipelines/shortcuts.h"

enum { GV_MAX_TEXT = 4096 };

struct prompt {
    int32_t ids[GV_MAX_TEXT];
    int     n;
};

/* Block-causal generation: frames are made a few at a time, each block reading the keys and values of those before. */
struct causal {
    int block;        /* latent frames made together; 0 = all of the clip at once, each seeing all */
    int window, sink; /* latent frames a block reads, its own among them (0 = all); of these the clip's first, always read */
};

struct video_job {
    gv_model             *model;
    char                 *prompt_text, *negative_text; /* cleaned; owned */
    struct prompt         prompt, negative;
    struct image          first, last; /* empty: none; owned */
    int                   width, height, frames, steps;
    double                fps, guidance;
    uint64_t              seed;
    enum noise_mode       noise;
    struct torch_grid     noise_grid; /* of torch-cuda */
    struct sampler_config sampler;
    struct schedule       schedule;
    bool                  wan_rules;     /* the model's, or what "compat" says */
    const char           *schedule_name; /* the model's or the request's */
    double                shift;
    struct causal         causal;
    int64_t               latent_frames, latent_height, latent_width; /* of the clip */
    struct residency      residency;
    struct shortcuts      shortcuts;

    /* where frames and news go; all may be absent */
    struct sink   *sink;
    gv_frame_fn    on_frame;
    gv_progress_fn progress;
    void          *user;
    int            preview_every; /* steps between looks at the middle frame, for on_frame; 0 = none */
    struct memo   *memo;          /* the session's */

    /* a render can stop after a step, be written down, and go on elsewhere; NULL and 0 otherwise */
    const char *state_in, *state_out;
    int         stop_after;

    const struct tap *tap;             /* tests */
    const float      *initial_latents; /* tests: [T, h, w, z] instead of noise */
};

/* Request → job. Reads and decodes the picture. Errors: ARGUMENT, UNSUPPORTED, IO, FORMAT, MEMORY. */
gv_status gv_video_job_open(struct video_job *job, const gv_video_request *q, struct error *e);
void      gv_video_job_close(struct video_job *job);

struct stage_time {
    const char *name;
    double      seconds;
};
struct video_report {
    struct stage_time stage[8];
    int               n_stages;
    double            seconds;
    size_t            peak_bytes, weight_bytes, scratch_bytes;
    bool              delivered; /* a frame went out: there is no starting again */
    int64_t           tokens;
    double            flops;
    struct receipt    receipt; /* of a job with shortcuts */
    const char       *note; /* the caller's, for recipe and report; NULL = none */
    char              frames_sha256[65]; /* of the RGB frames, before any encoder; "" before the last is there */
};

/* Dry runs on the null device, from job->residency to smaller ones, until one fits; fills it and the report's sizes.
 * Errors: MEMORY, with the arithmetic. */
gv_status gv_video_plan(struct video_job *job, struct video_report *out, struct error *e);

/* The stages. Frames go to job->sink and job->on_frame as they come. report->scratch_bytes: from gv_video_plan. */
gv_status gv_pipeline_video(struct video_job *job, const atomic_bool *cancel, struct video_report *report, struct error *e);

/* The loop state of a render between two steps: latents, step, solver history. It fits only the job that wrote it.
 * Errors: IO, FORMAT, MEMORY. */
struct loop_state {
    struct tensor  x; /* f32 [T, h, w, z] */
    struct sampler sampler;
};
gv_status gv_loop_state_write(struct run *r, const struct loop_state *s, const struct video_job *job, const char *path);
gv_status gv_loop_state_read(struct run *r, struct loop_state *s, const struct video_job *job, const char *path);

#endif
