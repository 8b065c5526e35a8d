/* What a model's attention does over whole renders: the material of a calibration. Every call is computed exactly, and looked at:
 *
 *   a whole clip    the smallest set of key blocks of each query tile that holds `mass` of its softmax gets a vote; blocks that
 *                   half of the votes name are the tile's, for this step, layer and head. CalibAtt (arXiv 2603.05503), whose
 *                   share of the mass falls over the steps; ours is one number
 *   causal blocks   how far each head's partial over the history is from the one that it kept, in cosine of the outputs and in
 *                   LSE. A head beyond either limit takes the new one at once, so that what is kept ages as it will in a render.
 *                   Heads whose means lie beyond are read anew. Flash_Block (arXiv 2602.05305), its calibration
 *
 * Beside that, what there is to gain, by layer: the share of the softmax that the best tenth, quarter and half of the blocks hold, and
 * how like a pass's attention is to the pass before: what it reads of the history, and of its own block.
 *
 * On the CPU alone; the null device counts the scratch. */
#ifndef GV_ATTENTION_SURVEY_H
#define GV_ATTENTION_SURVEY_H

#include "attention/attention.h"
#include "attention/cache.h"

struct survey_shape {
    int    steps, layers, heads, streams;
    int    tiles, blocks; /* of a whole clip; 0 for causal */
    double mass;          /* 0..1 */
    double cosine, lse;   /* limits; causal */
};

enum { GV_SURVEY_SHARES = 3 }; /* 10, 25, 50% of the blocks */

struct attn_survey {
    struct survey_shape shape;
    uint16_t           *votes;   /* [steps][layers][heads][tiles][blocks] */
    uint16_t           *ballots; /* [steps][layers] */
    double             *moved;   /* [steps + 1][layers][heads][3]: sums of cosine and of |ΔLSE|, and how many */
    double             *held;    /* [layers][GV_SURVEY_SHARES + 1]: sums over heads and tiles of the mass held, and how many */
    double *like; /* [layers][3]: sums of cosine to the pass before, of the history's output and the block's own; how many */
    struct cache *kept; /* histories' partials, and the pass before */
};

/* Errors: MEMORY, also where the votes would take more than 4 GiB. */
gv_status gv_survey_open(struct attn_survey *s, const struct survey_shape *shape, struct error *e);
void      gv_survey_close(struct attn_survey *s);

/* Once for each render, and at the beginning of each causal block: nothing kept stands for it. */
gv_status gv_survey_begin(struct attn_survey *s, struct device *d, struct error *e);
void      gv_survey_begin_block(struct attn_survey *s);
void      gv_survey_end(struct attn_survey *s); /* frees what a render keeps */

/* The call, exactly. step: of the solver; the writing pass of a causal block is step `steps`. */
void gv_survey_attend(struct run *r, struct attn_survey *s, int step, int layer, int stream, const struct attn_call *call);

/* What came of it. out: one head's tiles after another's, [steps][layers][heads][tiles][(blocks + 31) / 32]; 0 or 1 for each of
 * [steps + 1][layers][heads]. */
void gv_survey_bitmap(const struct attn_survey *s, uint32_t *out);
void gv_survey_fresh(const struct attn_survey *s, uint8_t *out);
/* Means of one layer; 0 where nothing was seen. */
void gv_survey_held(const struct attn_survey *s, int layer, double share[GV_SURVEY_SHARES]);
void gv_survey_like(const struct attn_survey *s, int layer, double *history, double *own);

#endif
