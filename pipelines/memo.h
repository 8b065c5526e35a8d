/* What a session keeps from one render to the next, so that a prompt that comes again is not encoded again and a preview's
 * colours are fitted once. Features are kept as they were computed: the same bits, with or without. One thread's. */
#ifndef GV_PIPELINES_MEMO_H
#define GV_PIPELINES_MEMO_H

#include "pipelines/preview.h"

enum { GV_MEMO_PROMPTS = 16 };

struct memo_prompt {
    uint64_t model; /* serial; 0 = an empty place */
    int32_t *ids;   /* [n] */
    int      n;
    float   *features; /* [n, width] */
    uint64_t used;     /* when, in calls */
};

struct memo {
    struct memo_prompt prompt[GV_MEMO_PROMPTS];
    uint64_t           calls;
    struct preview_map preview;
    uint64_t           preview_model; /* serial of the model whose it is */
};

/* Features [n, width] of these ids; NULL if they are not kept. Valid until the next gv_memo_put. */
const float *gv_memo_find(struct memo *k, uint64_t model, const int32_t *ids, int n);
/* Takes features over, also on failure; the prompt that was not used for the longest time makes room. Errors: MEMORY. */
gv_status gv_memo_put(struct memo *k, uint64_t model, const int32_t *ids, int n, float *features, struct error *e);
void      gv_memo_free(struct memo *k);

#endif
