/* Steps whose blocks are not computed: what they added to the residual stream (or to the latents) the last time stands for what
 * they would add now. One interface; a method only decides, from one number a step, and is one row of a table:
 *
 *   method       looks at                                    keeps                            source
 *   magcache     nothing: a table of ratios                  the blocks' residual             Ma et al. 2025 (MagCache)
 *   teacache     the time's embedding                        the blocks' residual             Liu et al. 2024 (TeaCache)
 *   firstblock   what the first block adds                   the other blocks' residual       ParaAttention's First Block Cache
 *   easycache    the latents, outside of the model           velocity minus latents           Zhou et al. 2025 (EasyCache)
 *   schedule     a list of steps, given                      the blocks' residual             what another method did, or a search found
 *
 * A forward of a family that knows step caches calls, with call->steps: gv_step_blocks before its blocks (true: they are done),
 * gv_step_first_block behind the first (true: so are the others), gv_step_blocks_end behind the last. A pipeline calls
 * gv_step_forward in place of the model's forward.
 *
 * What may surprise:
 *   - All paths of a batch skip together. On Wan that is what the methods do anyway: magcache's lists for the two paths differ in
 *     the fifth digit, teacache sees the time alone, easycache lets the path with the prompt decide for both.
 *   - What is kept is of the compute type: y - x in bf16 is the definition, so reuse of an unchanged input gives x + bf16(y - x).
 *   - On the null device every step is computed and everything is kept, so that its peak is the render's. */
#ifndef GV_DIFFUSION_STEP_CACHE_H
#define GV_DIFFUSION_STEP_CACHE_H

#include "attention/policy.h"
#include "diffusion/dit.h"

enum step_signal { SIGNAL_STEP, SIGNAL_TIME, SIGNAL_FIRST_BLOCK, SIGNAL_LATENTS };

struct step_cache;
struct step_method {
    const char                 *name, *help;
    const struct policy_option *options;
    enum step_signal            signal;
    /* Once for a clip: what it needs to know of the model. Errors: ARGUMENT, UNSUPPORTED. NULL: nothing. */
    gv_status (*open)(struct step_cache *s, struct error *e);
    /* What the step's signal says: true = skip. Called for every step in order. change: relative change of the signal (of the
     * input, for SIGNAL_LATENTS); < 0 where there is nothing to compare with yet. */
    bool (*skips)(struct step_cache *s, double change);
    bool listed; /* its text is a list of steps, 1 = computed, in place of options */
};
const struct step_method *const *gv_step_methods(void); /* ends with NULL */
enum { GV_STEP_STEPS = 1000 };
struct step_choice {
    const struct step_method *method;
    double                    value[GV_POLICY_OPTIONS];
    char                      list[GV_STEP_STEPS + 1]; /* of a listed method */
};
/* "magcache:thr=0.12,k=4", "schedule:11110101"; c->method NULL where no method has that name. Errors: ARGUMENT. */
gv_status gv_step_parse(struct step_choice *c, const char *text, struct error *e);

/* Constants of published checkpoints, told apart by layers, channels and, for I2V, the clip's size. */
struct step_data {
    const char   *name; /* "wan2.1-t2v-1.3b" */
    int           layers, in_channels;
    bool          large;      /* of clips above 480p */
    int           n;          /* ratios: for so many steps */
    const double *ratio;      /* [n]: mean ‖residual‖ over the step before's, of the path with the prompt */
    double        poly[2][5]; /* teacache: of the embedding; of the projected embedding (ret=1); highest power first */
    double        tea_threshold;
};
const struct step_data *gv_step_data(int layers, int in_channels, int64_t pixels); /* NULL: not a published one */

struct step_cache {
    struct step_choice        asked;
    const struct step_data   *data;
    const double             *ratio; /* of the model at hand: calibrated, or data's; NULL = unknown */
    int                       n_ratio;
    struct cache             *kept;
    int                       step, steps;     /* set by the pipeline */
    bool                      skip;            /* this step's verdict */
    double                    sum, product, k; /* the method's own state */
    int                       run;             /* skipped in a row */
    double *measured; /* [steps], of gv_step_measure: the ratio of each step's residual to the last is added */
    struct tensor             begin;           /* f32, scratch: the stream where what is kept begins */
    int                       full, skipped;
    char                      schedule[GV_STEP_STEPS + 1]; /* '1' computed, '0' skipped, of the last block */
};

/* Computes every step and measures magcache's ratios; not among the methods. */
extern const struct step_method gv_step_measure;

/* asked, data, ratio, n_ratio and steps are the caller's to fill. Errors: of the method; MEMORY. */
gv_status gv_step_open(struct step_cache *s, struct device *d, struct error *e);
void      gv_step_begin_block(struct step_cache *s); /* a new causal block starts from nothing */
void      gv_step_close(struct step_cache *s);

/* The model's forward, or what stands for it. call->steps NULL: the forward. */
void gv_step_forward(struct run *r, const struct dit *m, const struct dit_prepared *p, const struct dit_call *call);

bool gv_step_blocks(struct run *r, struct step_cache *s, struct tensor x, struct tensor time, struct tensor projected);
bool gv_step_first_block(struct run *r, struct step_cache *s, struct tensor x);
void gv_step_blocks_end(struct run *r, struct step_cache *s, struct tensor x);

#endif
