/* Page bound (LServe: Yang et al. 2025, arXiv 2502.14866): a step of a text reads only those pages of 64 keys that can matter to its
 * query, by a bound made of the least and most values of each of a page's keys. Which ones is decided anew every few steps. Saves
 * time, not memory; approximate, and so off unless asked for. */
#ifndef GV_VISION_PAGES_H
#define GV_VISION_PAGES_H

#include "attention/attention.h"

enum { GV_PAGE = GV_KV_BLOCK, GV_PAGE_CHUNK = 16 }; /* keys of a page, and of a part of it that has a bound of its own */

struct pages {
    int64_t keep;  /* keys that a step reads, of each layer and group of heads: whole pages, two at least; 0: off */
    int64_t every; /* steps from one choice to the next */
    /* state */
    int64_t            steps;
    int                layers;
    struct page_layer *layer;
    double mass, checks; /* what the pages held of the attention where all was read too: sum of shares, and how many */
    double read, all;    /* keys: that steps read, and that there were */
};
gv_status gv_pages_open(struct pages *p, int64_t keep, int64_t every, int layers, struct error *e);
void      gv_pages_close(struct pages *p);

/* Brings a layer's bounds up to date with its keys k [1, N, A_kv, D], chooses where it is time to for the query q [1, 1, A, D], and
 * makes the plan of what the step reads, freed with gv_plan_free; v: for the receipt, which reads all at every 16th choice. */
struct page_read {
    int           layer;
    struct tensor q, k, v;
};
void gv_pages_plan(struct run *r, struct pages *p, const struct page_read *a, struct attn_plan *out);

/* Σ max(q · low, q · high) over D channels: no key within the bounds has a larger product with q. */
double gv_page_bound(const float *q, const float *low, const float *high, int64_t D);

#endif
