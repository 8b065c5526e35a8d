/* The self-attention of a render as its user asked for it: which pairs are left out, in which steps and layers, what is kept
 * from step to step, and what all that costs. A model hands every self-attention call to gv_attend instead of gv_attention;
 * without an attn_approx that is the same thing.
 *
 *   exact      dense_steps, dense_last, dense_layers, and every writing pass of causal generation
 *   static     the policy's plan, built once for the clip's layout; with axes, in the order that suits each head (axes.h)
 *   scored     a plan made from this call's queries and keys; or, where a choice lasts (every, at, drift, across), a bitmap kept
 *              from the step and layer that made it
 *   partial    what the unchosen keys gave is kept from the refresh and is the seed of the steps that follow:
 *                complement   of the unchosen keys of a clip that is denoised at once: at a refresh the result is exact
 *                flashblock   of the history of causal generation, all of it or, with a scored policy, what that left out
 *
 *     refresh   [ unchosen | chosen ] [own block]   one split list; the partial before the split is kept, the result is exact
 *     reuse      seed ···· [ chosen ] [own block]
 *
 * Only source 0 of a call is ever thinned out; every other source (text, and a causal block's own keys) is always read whole.
 *
 * Receipts: in a sampled forward, four of the layers are computed a second time, exactly; the error and both times are noted.
 *
 * What may surprise:
 *   - On the null device every way that a step might take is taken, one after another, so that its peak is the render's.
 *   - A refresh reads the unchosen keys first, so it equals dense attention in all but the order of its sums.
 *   - Heads that do the same make one call, so a FlashBlock mask cuts a call into runs of heads; a head's bits do not depend on
 *     its neighbours. */
#ifndef GV_ATTENTION_APPROX_H
#define GV_ATTENTION_APPROX_H

#include "attention/attention.h"
#include "attention/axes.h"
#include "attention/bitmap.h"
#include "attention/cache.h"
#include "attention/policy.h"
#include "attention/reuse.h"
#include "attention/survey.h"

/* ---- what was asked for ---- */

enum keep_partial { KEEP_NOTHING, KEEP_COMPLEMENT, KEEP_HISTORY };
enum { COMPLEMENT_MIB };                                    /* values of the complement's options, */
enum { FLASHBLOCK_COMMIT, FLASHBLOCK_DIRTY, FLASHBLOCK_CHANGED }; /* and of FlashBlock's */

struct approx_config {
    const struct attn_policy *policy; /* NULL or dense: nothing is left out */
    double                    value[GV_POLICY_OPTIONS];
    int                       dense_steps, dense_last, dense_layers;
    struct refresh            refresh;
    int                       axes; /* orders that a head may take; 0 or 1: the layout's */
    enum keep_partial         keep;
    double                    keep_value[GV_POLICY_OPTIONS];
};

/* Options that every policy takes beside its own; ends with a NULL name. `at` is a list: at=10+30. */
const struct policy_option *gv_approx_options(void);
/* What --cache knows at the level of attention: name, help and options, as a policy's; ends with NULL. */
struct partial_method {
    const char                 *name, *help;
    enum keep_partial           keep;
    const struct policy_option *options;
};
const struct partial_method *gv_partial_methods(void);

/* "radial:decay=0.2,dense_steps=10" into c, which the caller has zeroed. Errors: ARGUMENT, with what exists. */
gv_status gv_approx_parse(struct approx_config *c, const char *attention, struct error *e);
/* "complement:mib=4096" into c; *known false where no method has that name. Errors: ARGUMENT. */
gv_status gv_approx_parse_keep(struct approx_config *c, const char *cache, bool *known, struct error *e);
/* What does not go together, in words. causal: blocks of frames with a history. */
gv_status          gv_approx_check(const struct approx_config *c, bool causal, struct error *e);
static inline bool approx_config_active(const struct approx_config *c)
{
    return (c->policy && c->policy != &gv_policy_dense) || c->keep != KEEP_NOTHING;
}

/* ---- what a calibration found ---- */

struct attn_calibration {
    int             steps, layers, heads;   /* steps: of the solver, for the bitmaps */
    int             grid[3], tiles, blocks; /* the clip, in tokens; of one head's bitmap */
    const uint32_t *bitmap;                 /* [steps][layers][heads][tiles][words of a row]: blocks to read; NULL = none */
    const uint8_t  *fresh;                  /* [passes][layers][heads]: 1 = reads its history anew; NULL = none does */
    int             passes;                 /* steps + 1, of another solver perhaps */
};

/* ---- what it cost ---- */

struct approx_receipt {
    double  calls, pairs;       /* self-attention calls, and the sum of their densities */
    int64_t thinned;            /* of the calls: those that left something out */
    int64_t refreshed, reused;  /* partials that were made, and calls that were seeded with one */
    int64_t heads, fresh_heads; /* of the seeded calls: heads, and those among them that read everything anew */
    int     samples;            /* calls that were also computed exactly */
    double  error, worst;       /* their relative errors ‖a - b‖ / ‖b‖: sum, largest */
    double  seconds, exact_seconds;
    int     layers_kept, layers; /* whose partials fit the budget */
};
double gv_approx_saved_seconds(const struct approx_receipt *p); /* of attention, from the samples; may be negative */

/* ---- doing it ---- */

struct approx_at {
    int  step, steps; /* from 0; of how many */
    bool commit;      /* the writing pass of a causal block: step = steps */
    bool sample;
};

struct attn_approx {
    const struct approx_config    *config;
    const struct attn_calibration *calibration; /* NULL = none */
    int                            layers, streams;
    bool                           causal;   /* source 1 is a history, and only it is thinned out */
    struct attn_plan               plan;     /* of a static policy */
    struct attn_axes               axes;     /* and each head's order, where that is asked for */
    struct cache                  *kept;     /* choices; of these and histories every layer's */
    struct cache                  *partials; /* within the budget */
    int                           *last;     /* [2][layers * streams] step of the last refresh of a choice, of a partial; -1 */
    struct attn_survey            *survey;   /* a calibration looks on: every call is exact; else NULL */
    struct approx_at               at;       /* set by the pipeline before each forward */
    struct approx_receipt          receipt;
};

/* config and calibration outlive a. Errors: MEMORY. */
struct approx_shape {
    int  layers, streams;
    bool causal;
};
gv_status gv_approx_open(struct attn_approx *a, const struct approx_config *config, const struct attn_calibration *calibration,
                         struct device *d, const struct approx_shape *shape, struct error *e);
/* Before a layout reaches the model: its tokens into the policy's order, and the plan of a static policy.
 * Errors: ARGUMENT, when the policy does not fit the layout. */
gv_status gv_approx_layout(struct attn_approx *a, struct attn_layout *l, int heads, struct error *e);
/* A new causal block: nothing kept so far stands for it. */
void gv_approx_begin_block(struct attn_approx *a);
void gv_approx_close(struct attn_approx *a);

/* One layer's self-attention. call: source 0 the tokens' own keys; source 1, where it is there, the history. a NULL: exact.
 * stream: the first path of the call's batch. */
void gv_attend(struct run *r, struct attn_approx *a, int layer, int stream, const struct attn_call *call);

#endif
