/* A policy says which pairs matter and makes a plan of it; it reads a layout, a head count and its own options, and knows
 * no kernel. One file policy_<name>.c and one line in policies.c each.
 *
 * The smallest way to write one is a verdict on blocks, gv_plan_from_blocks (plan.h): a function that is asked about
 * (head, query tile, key block) and answers none, some (the plan's mask decides by pair) or all. A policy that looks at the
 * tensors makes block scores (scores.h) and keeps some (select.h); policy_antidiagonal.c is the smallest of those. */
#ifndef GV_ATTENTION_POLICY_H
#define GV_ATTENTION_POLICY_H

#include "attention/layout.h"
#include "attention/plan.h"
#include "core/run.h"

enum { GV_POLICY_OPTIONS = 8 };

struct policy_option {
    const char *name, *help;
    double      value, min, max; /* the default and its range */
};

struct attn_policy {
    const char                 *name, *help;
    const struct policy_option *options; /* ends with a NULL name; at most GV_POLICY_OPTIONS */
    bool                        text; /* causal token by token: for language models; in a clip, frames see what comes after */
    bool                        calibrated; /* reads what genvid calibrate found for the model: neither build nor plan */
    /* Refuses values, each in its range, that do not do: ARGUMENT, in words that name the option. NULL: all do. */
    gv_status (*check)(const double *value, struct error *e);
    /* Puts the layout's tokens into the order that the policy wants, before a model sees it; NULL = raster order. */
    gv_status (*order)(struct attn_layout *l, const double *value, struct error *e);
    /* Makes a plan of host memory for `heads` heads; value: of each option, in range. gv_plan_free gives it back. Refuses with
     * ARGUMENT a layout or options that do not fit, in words that name the option. NULL for scored policies. */
    gv_status (*build)(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e);
    /* Scored policies: a plan for one call, from its queries [B, N, A, D] and keys [B, M, A_kv, D], in scratch of the run, where
     * the scores that it came from stay too until the caller's mark. NULL for static ones. */
    void (*plan)(struct run *r, struct attn_plan *out, struct tensor q, struct tensor k, const double *value);
};

/* All of them; ends with NULL. */
const struct attn_policy *const *gv_policies(void);

/* "radial:decay=0.2,dense=1" → policy and the value of each of its options. Errors: ARGUMENT, with what exists. */
gv_status gv_policy_parse(const char *text, const struct attn_policy **policy, double value[GV_POLICY_OPTIONS],
                          struct error *e);

/* The parts of it: ":name=value,..." into the values of options, whose defaults it takes first; owner: for messages; and one
 * value of n bytes. */
gv_status gv_policy_values(const struct policy_option *options, const char *owner, const char *text, double *value,
                           struct error *e);
gv_status gv_policy_option(const struct policy_option *o, const char *owner, const char *text, size_t n, double *value,
                           struct error *e);

extern const struct attn_policy gv_policy_dense, gv_policy_causal, gv_policy_block_causal, gv_policy_streaming,
    gv_policy_window, gv_policy_strided, gv_policy_radial, gv_policy_tiles, gv_policy_bands, gv_policy_pooled,
    gv_policy_antidiagonal, gv_policy_vertical_slash, gv_policy_calibrated, gv_policy_chunks, gv_policy_exact,
    gv_policy_flexprefill;

#endif
