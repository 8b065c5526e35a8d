/* What a render was allowed to leave out (options "attention" and "cache"), and what that cost: the receipt. All of it is off
 * unless asked for.
 *
 *   settle    the request's words → struct shortcuts, checked against the job; refusals name the option
 *   run       what lasts from step to step while the clip is denoised
 *   receipt   counts, errors and seconds, from forwards that are sampled: such a forward is followed by an exact one from the
 *             same latents, and four of its layers are computed both ways. The frames do not depend on it
 *
 * A render with shortcuts is not written down between steps: what it keeps is not in the file. */
#ifndef GV_PIPELINES_SHORTCUTS_H
#define GV_PIPELINES_SHORTCUTS_H

#include "diffusion/step_cache.h"
#include "genvid.h"
#include "pipelines/calibration.h"

struct gv_model;
struct video_job;

struct shortcuts {
    struct approx_config      attention;
    struct step_choice        steps;                       /* no method: every step is computed */
    char                     *attention_text, *cache_text; /* as given, owned; NULL: none */
    int                       samples;                     /* forwards to sample */
    bool                      verify;                      /* render the exact clip too and compare */
    struct calibration       *calibration;                 /* what genvid calibrate found for the model, owned; NULL */
    struct attn_survey       *survey;                      /* a calibration looks on and nothing is left out; else NULL */
    double                   *measured; /* of a calibration: [steps] ratios of residuals are added; or NULL */
};

/* The request's options into job->shortcuts; the job's causal settings, size and steps are settled. Errors: ARGUMENT, IO, MODEL. */
gv_status gv_shortcuts_settle(struct video_job *job, const gv_video_request *q, struct error *e);
void      gv_shortcuts_free(struct shortcuts *s);
bool      gv_shortcuts_on(const struct shortcuts *s);

struct receipt {
    struct approx_receipt attention;
    double                attention_seconds;           /* saved; an estimate from the samples */
    int                   steps, skipped;              /* forwards of the solver; of these answered by a step cache */
    double                step_seconds;                /* saved by skipping; likewise */
    char                  schedule[GV_STEP_STEPS + 1]; /* of the last block: 1 computed, 0 skipped; "" without a step cache */
    int                   samples;
    double                error, worst; /* ‖v - exact v‖ / ‖exact v‖ over the samples: mean, largest */
    double drift, worst_drift;          /* ‖Δσ (v - exact v)‖ / ‖latents‖: how far one step's error moves them */
    bool   verified;
    double psnr, ssim, worst_ssim; /* of the clip beside the exact one; the worst frame's */
};

struct shortcut_run {
    const struct shortcuts *asked;
    bool                    on, open, skips;
    struct attn_approx      approx;
    struct step_cache       steps;
    int                     forwards, of, taken; /* so far, in all, sampled */
    double                  full_seconds, skip_seconds;
    struct receipt         *receipt;
};

gv_status gv_shortcut_run_open(struct shortcut_run *s, const struct video_job *job, struct device *d, int rows, int blocks,
                               struct receipt *receipt, struct error *e);
void      gv_shortcut_run_begin_block(struct shortcut_run *s);
void      gv_shortcut_run_close(struct shortcut_run *s); /* also writes the receipt's sums */

/* Before a forward: where the loop stands. commit: the pass that writes a causal block's keys. */
void gv_shortcut_run_enter(struct shortcut_run *s, struct dit_call *call, int step, int steps, bool commit);
/* Behind it, with its seconds. True where the forward is to be followed by an exact one, for gv_shortcut_run_compare. */
bool gv_shortcut_run_leave(struct shortcut_run *s, bool dry, double seconds);
/* v, exact: guided velocities; x: latents before the step, sigma its length. */
void gv_shortcut_run_compare(struct run *r, struct shortcut_run *s, struct tensor v, struct tensor exact, struct tensor x,
                             double sigma);

/* What is possible, as JSON: [{kind, name, help, options: [{name, min, max, default, help}]}]; freed with free(). */
char *gv_shortcuts_json(void);

#endif
