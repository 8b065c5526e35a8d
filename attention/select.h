/* Scores → kept blocks → plan: what scored policies share. Pure functions on host arrays, but for the last. */
#ifndef GV_ATTENTION_SELECT_H
#define GV_ATTENTION_SELECT_H

#include "attention/scores.h"

/* A rule over n scores. Over one row it is what most methods do; over a head's whole map at once, TOP_SHARE is DraftAttention's
 * quantile and TOP_MASS FlexPrefill's common budget. Of equal scores the lower index comes first. A score of -inf is never
 * kept. */
enum select_kind {
    SELECT_SHARE, /* the best ceil(amount · n) */
    SELECT_MASS   /* the best, until they hold amount · (sum of all) */
};
struct select_rule {
    enum select_kind kind;
    double           amount;   /* 0..1 */
    bool             crossing; /* MASS: the one with which the mass is reached is kept too (XAttention, SVG2; not Sparge) */
    int64_t          least;    /* keep so many at least */
};
/* keep[i] = 1 for what the rule keeps; the others are left as they are. order: room for n. */
void gv_select(uint8_t *keep, const float *score, int64_t n, const struct select_rule *rule, int32_t *order);

/* Blocks that are kept whatever their score. */
struct forced_blocks {
    int64_t first, last; /* so many blocks at the beginning and the end of every row */
    int64_t near;        /* blocks up to so many before and behind the tile's own; -1 = none */
};
void gv_select_forced(uint8_t *keep, int64_t tile, int64_t n, int block, const struct forced_blocks *f);

/* What becomes of scores [B, A, tiles, blocks]. Several rules keep what any of them keeps. */
enum { GV_SELECT_RULES = 2 };
struct keep {
    int                  n_rules;
    struct select_rule   rule[GV_SELECT_RULES];
    struct forced_blocks forced;
    struct tensor q_same, k_same; /* of gv_score_pooled, or absent: tiles at or under `same` keep everything, and blocks ... */
    double        same;           /* ... at or under it are kept by every tile and have no score */
};
/* The plan of one call in scratch of the run, to be used before the caller releases its mark. The dry run takes room for all
 * entries and calls the plan `expect` dense. Scores are changed. */
void gv_plan_from_scores(struct run *r, struct attn_plan *p, const struct score_call *c, const struct keep *keep,
                         double expect);

#endif
