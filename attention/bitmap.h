/* A choice of key blocks, one bit for each (batch row, head, query tile, block of GV_KV_BLOCK keys): small enough to keep from
 * step to step or to store for every (step, layer, head) of a clip (591 tiles x 1182 blocks x 40 heads are 3.5 MB), and turned
 * back into lists for a call. What vertical_slash makes is no choice of blocks. */
#ifndef GV_ATTENTION_BITMAP_H
#define GV_ATTENTION_BITMAP_H

#include "attention/plan.h"
#include "core/run.h"

struct attn_bitmap {
    int       batch, heads, tiles, blocks; /* batch, heads: 1 = shared */
    uint32_t *word;                        /* [batch · heads · tiles][gv_bitmap_row_words]; bit i of word w: block 32 w + i */
};

int64_t gv_bitmap_row_words(const struct attn_bitmap *b);
int64_t gv_bitmap_words(const struct attn_bitmap *b); /* of all rows */

static inline bool bitmap_keeps(const struct attn_bitmap *b, int64_t row, int block)
{
    return b->word[row * gv_bitmap_row_words(b) + block / 32] >> block % 32 & 1;
}

/* Fills b from a plan of the same shape over source 0. Masked entries count as read whole. Fails the run with UNSUPPORTED on
 * entries that are no whole blocks. */
void gv_bitmap_from_plan(struct run *r, struct attn_bitmap *b, const struct attn_plan *p, int64_t n_keys);

/* Lists of a bitmap over n_keys keys of source 0. */
enum bitmap_use {
    BITMAP_KEPT, /* the kept blocks; in a split plan they would be the second part */
    BITMAP_SPLIT /* all blocks: first those that are not kept, then, behind the split point, those that are */
};
/* In scratch of the run, to be used before the caller releases its mark. The dry run takes room for all entries. */
void gv_bitmap_plan(struct run *r, struct attn_plan *out, const struct attn_bitmap *b, int64_t n_queries, int64_t n_keys,
                    enum bitmap_use use);

#endif
