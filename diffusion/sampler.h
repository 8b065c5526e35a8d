/* Solvers: (x, v, step) → x, on flow velocities. A sampler sees neither a model nor a callback nor a file; the pipeline owns the
 * loop. Its whole state is a struct with a few tensors, so that a render can be written down between steps.
 *
 *   unipc   UniPC, "bh2", data prediction, order 1 or 2, with its corrector   scheduling_unipc_multistep.py
 *   dpm++   DPM-Solver++ 2M, midpoint                                         scheduling_dpmsolver_multistep.py
 *   euler   x += (σ' - σ) v                                                   scheduling_flow_match_euler_discrete.py
 *   renoise x0 = x - σ v, then (1 - σ') x0 + σ' · fresh noise: few-step models  Self-Forcing pipeline/causal_inference.py
 *
 * Coefficients are computed in double and rounded once; the references compute them in f32, which differs by about 1e-7. */
#ifndef GV_DIFFUSION_SAMPLER_H
#define GV_DIFFUSION_SAMPLER_H

#include "core/ops.h"
#include "diffusion/schedule.h"

enum { GV_SAMPLER_HISTORY = 3 };

struct sampler_config {
    const char *solver;                     /* "unipc", "dpm++", "euler", "renoise" */
    int         order;                      /* 1 or 2; of unipc and dpm++ */
    bool        no_corrector[GV_MAX_STEPS]; /* steps at which unipc does not correct */
};

struct sampler {
    struct sampler_config config;
    struct schedule       schedule;
    int                   step;                     /* of the next gv_sampler_step */
    int                   last_order;               /* of the last predictor */
    struct tensor         data[GV_SAMPLER_HISTORY]; /* f32 predictions of x0: data[step % 3] is the newest */
    struct tensor         last;                     /* f32: the sample the last predictor started from */
    struct noise_key      noise;                    /* renoise: seed, block and first frame; purpose and step are set here */
};

/* Tensors in scratch, shaped like x. Errors: ARGUMENT (unknown solver, order). */
gv_status gv_sampler_open(struct sampler *s, struct run *r, const struct sampler_config *config,
                          const struct schedule *schedule, struct tensor x);
/* x: f32, in place; v: f32, the velocity at x and schedule.time[s->step]. */
void gv_sampler_step(struct run *r, struct sampler *s, struct tensor x, struct tensor v);

#endif
