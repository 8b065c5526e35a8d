/* Chunks of different lengths: neighbouring blocks whose mean keys point nearly the same way are one chunk, and every block of a
 * chunk has its score, which is fair to long and short ones: mean(q) · Σk / sqrt(tokens). A mean would drown a long chunk, a sum
 * would let it swamp the others.
 *
 * Source: DHSA (Xiong et al. 2025, arXiv 2510.24606), length-normalised chunks, scores taken back to tokens, then the best of them.
 * Where its chunks end is learned; here they end where keys turn, so no weights are needed. Boundaries lie on blocks of 64,
 * which lists read fastest; with longest=1 this is `pooled`. */
#include "attention/policy.h"
#include "attention/select.h"

enum { SHARE, LIKE, LONGEST, FIRST, LAST, NEAR };
static const struct policy_option options[] = {
    { "share", "share of the blocks to keep", 0.25, 0.001, 1 },
    { "like", "cosine of a block's mean with the chunk's so far, above which it joins", 0.7, -1, 1 },
    { "longest", "blocks of a chunk at most", 8, 1, 1e6 },
    { "first", "first blocks, always kept", 0, 0, 1e6 },
    { "last", "last blocks, always kept", 0, 0, 1e6 },
    { "near", "blocks on either side of the tile's own, always kept with it; -1 = none", -1, -1, 1e6 },
    { 0 },
};

static void plan(struct run *r, struct attn_plan *out, struct tensor q, struct tensor k, const double *value)
{
    const int64_t *d = q.dim, tiles = (d[1] + GV_TILE_Q - 1) / GV_TILE_Q, blocks = (k.dim[1] + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    const struct score_call c = {
        .score = gv_scratch(r, GV_F32, 4, DIMS(d[0], d[2], tiles, blocks)), .q = q, .k = k, .block = GV_KV_BLOCK
    };
    const struct keep keep = { .n_rules = 1,
                               .rule[0] = { .kind = SELECT_SHARE, .amount = value[SHARE], .least = 1 },
                               .forced = { (int64_t)value[FIRST], (int64_t)value[LAST], (int64_t)value[NEAR] } };

    gv_score_chunks(r, &c, &(struct chunking){ value[LIKE], (int64_t)value[LONGEST] });
    gv_plan_from_scores(r, out, &c, &keep, value[SHARE]);
}

const struct attn_policy gv_policy_chunks = {
    .name = "chunks",
    .help = "chunks that end where keys turn, the best of them by length-normalised scores (DHSA)",
    .options = options,
    .plan = plan,
};
