/* VFlowOpt (arXiv 2508.05211): fewer picture tokens in three stages. Before the decoder the least important ones go, those of a
 * cell of the picture united into one ("recycled"); at two of its layers more go. Text stays, and so does the order; the positions
 * of what stays are those of the whole prompt. Host only; approximate, and so off unless asked for. */
#ifndef GV_VISION_PRUNE_H
#define GV_VISION_PRUNE_H

#include "vision/importance.h"

enum { GV_PRUNE_DROPS = 2 };

struct prune_opts {
    struct importance_opts importance;
    double                 keep[1 + GV_PRUNE_DROPS]; /* of the tokens that are left: before, at the first drop, at the second */
    double                 cell;                     /* side of a cell, in tokens */
};

/* "50", "25", "10": the published settings for LLaVA-OneVision-7B; or "keep=R1/R2/R3,cell=A,sink=T,entropy=W", each with a default of
 * "25"'s. Errors: ARGUMENT, in words. */
gv_status gv_prune_parse(struct prune_opts *o, const char *text, struct error *e);
/* Whether these are the published settings of "50", "25" or "10", however they were written. */
bool gv_prune_published(const struct prune_opts *o);
/* The layer before which a drop takes place: 9 and 18 of 28, and in proportion for other depths. */
int gv_prune_layer(int drop, int layers);
/* Mean share of picture tokens over the layers. */
double gv_prune_budget(const struct prune_opts *o, int layers);

/* What a picture's tokens are arranged in: `base` of them in rows of base_row, the others in rows of `row`. */
struct prune_lattice {
    int64_t base;
    int     base_row, row;
    bool    recycle; /* false: tokens only go (clips, pictures among others) */
};

/* What is left of n tokens: token i of the new ones is the sum of `weight` over members first[i] .. first[i + 1] - 1, and stands where
 * its most important member stood. */
struct pruned {
    int64_t  n;
    int32_t *place;  /* [n], ascending: of the old tokens */
    float   *score;  /* [n] importance, of the most important member */
    int32_t *first;  /* [n + 1] */
    int32_t *member; /* old tokens */
    float   *weight; /* of each member; a token alone has 1 */
};
/* score [n]; NULL: any, the largest result that these options may have. Errors: MEMORY. */
gv_status gv_prune(struct pruned *p, const struct prune_opts *o, const struct prune_lattice *l, const float *score, int64_t n,
                   struct error *e);
void      gv_pruned_free(struct pruned *p);

/* depth[i] of n picture tokens: how many drops token i outlives. Errors: MEMORY. */
gv_status gv_prune_depth(uint8_t *depth, const struct prune_opts *o, const float *score, int64_t n, struct error *e);

#endif
