/* What a text was read from: for each token how strongly the heads looked at each picture token when it was chosen. Attention
 * traceback with top-K averages over random subsets (AttnTrace, Wang et al. 2025, arXiv 2508.03793), its passages here being picture
 * tokens. Watches only: no bit of the text changes. */
#ifndef GV_VISION_TRACE_H
#define GV_VISION_TRACE_H

#include "core/ops.h"

struct trace_opts {
    int    best;    /* looks (a head of a layer each) that a picture token's mean is of: the strongest */
    double share;   /* of the picture tokens in a subset, above 0 to 1 */
    int    subsets; /* 1 with share 1: none are left out */
};
/* As AttnTrace's authors run it. */
#define GV_TRACE_OPTS                                                                                                          \
    (struct trace_opts)                                                                                                        \
    {                                                                                                                          \
        .best = 5, .share = 0.4, .subsets = 30                                                                                 \
    }

struct trace {
    struct trace_opts opts;
    int64_t           n;    /* picture tokens */
    int32_t          *at;   /* [n] places in the prompt */
    uint8_t          *in;   /* [subsets, n] */
    float            *heat; /* [capacity, n] of each row: mean of the strongest looks, over the subsets that the token is in */
    double           *mass; /* [capacity] of each row: what all picture tokens together had of the attention, mean over looks */
    int64_t           rows, capacity;
    /* of the row at hand */
    float  *best; /* [subsets, n, opts.best] descending */
    int64_t looks;
};

/* picture [prompt]: whether a token of the prompt is a picture's. Subsets are the same for the same numbers. Errors: MEMORY. */
gv_status gv_trace_open(struct trace *t, const struct trace_opts *o, const bool *picture, int64_t prompt, int64_t capacity,
                        struct error *e);
void      gv_trace_close(struct trace *t);

/* One layer of the row at hand: q [1, 1, A, D] reads k [1, N, A_kv, D]. */
void gv_trace_look(struct run *r, struct trace *t, struct tensor q, struct tensor k);
/* All layers are through. */
void gv_trace_next(struct trace *t);

#endif
