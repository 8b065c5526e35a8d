/* Recycled attention (Xu et al. 2024, arXiv 2411.05787): every so many tokens of a text a step reads all keys; what it read most
 * is what the steps until the next one read, with the tokens that came since. Saves time, not memory; approximate, and so off unless
 * asked for. */
#ifndef GV_VISION_RECYCLE_H
#define GV_VISION_RECYCLE_H

#include "attention/cache.h"

struct recycle {
    int64_t keep;  /* keys of each layer; 0: off */
    int64_t every; /* steps from one that reads all to the next */
    /* state */
    int64_t  steps, seen;  /* steps so far; tokens when all were last read */
    int32_t *chosen;       /* [layers, keep] */
    double   mass, checks; /* what later full steps would have read of the chosen and newer keys: sum of shares, and how many */
};
gv_status          gv_recycle_open(struct recycle *c, int64_t keep, int64_t every, int layers, struct error *e);
void               gv_recycle_close(struct recycle *c);
static inline bool gv_recycle_full(const struct recycle *c)
{
    return !c->keep || c->steps % c->every == 0;
}

/* After a full step: which keys of k [1, N, A_kv, D] the query q [1, 1, A, D] read most, mean over heads; copies of them and of v
 * into the cache's stream 1. */
struct recycle_read {
    struct cache *cache;
    int           layer;
    struct tensor q, k, v;
    int64_t       since; /* the newest keys, which no choice has seen yet */
};
void gv_recycle_choose(struct run *r, struct recycle *c, const struct recycle_read *a);

#endif
