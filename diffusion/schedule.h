/* Sigma grids: how much noise is left after each step, and the time the model is told. Flow matching: x = (1 - σ) x0 + σ ε.
 * Every published variant has its name; none is mixed with another. Numbers as the references store them: σ in f32, the UniPC
 * and DPM++ families' times truncated to integers, the solver using the untruncated σ.
 *
 *   diffusers-unipc       UniPCMultistepScheduler with use_flow_sigmas, 0.37 and later
 *   diffusers-unipc-0.36  the same up to 0.36
 *   diffusers-dpm         DPMSolverMultistepScheduler with use_flow_sigmas
 *   wan-unipc, wan-dpm    Wan-Video/Wan2.1 wan/utils/fm_solvers_unipc.py, fm_solvers.py
 *   flow-match-euler      FlowMatchEulerDiscreteScheduler (a shift in its config applies twice, as it does there)
 *   self-forcing          guandeh17/Self-Forcing utils/scheduler.py
 *   causvid               tianweiy/CausVid: 3 steps at fixed times */
#ifndef GV_DIFFUSION_SCHEDULE_H
#define GV_DIFFUSION_SCHEDULE_H

#include "core/status.h"

enum { GV_MAX_STEPS = 1000 };

struct schedule {
    int   steps;
    float sigma[GV_MAX_STEPS + 1]; /* falling; the last is 0 */
    float time[GV_MAX_STEPS];      /* 0..1000 */
};

/* name as above; steps 1..GV_MAX_STEPS; shift > 0. Errors: ARGUMENT. */
gv_status gv_schedule_build(struct schedule *s, const char *name, int steps, double shift, struct error *e);

#endif
