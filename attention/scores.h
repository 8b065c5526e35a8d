/* How much each block of keys matters to each query tile: the guesses that scored policies choose by, and the truth that they
 * are measured with. All give score [B, A, tiles, blocks] f32, rows summing to 1; tiles of GV_TILE_Q queries, blocks of any
 * multiple of GV_KV_BLOCK keys, the last of each may be short.
 *   q [B, N, A, D], k [B, M, A_kv, D]: act type or f32, last dimension contiguous
 * Shapes that do not fit fail the run with INTERNAL. */
#ifndef GV_ATTENTION_SCORES_H
#define GV_ATTENTION_SCORES_H

#include "attention/plan.h"
#include "core/ops.h"

struct score_call {
    struct tensor score, q, k;
    int           block; /* keys in a block */
    float         scale; /* of q·k; 0 = 1/sqrt(D) */
};

/* Softmax over blocks of mean(q) · mean(k). Where present, q_same [B, A, tiles] and k_same [B, A_kv, blocks] (f32) get each
 * block's self-similarity: the mean cosine of all pairs of its tokens, 1 where all point one way. A mean stands for its tokens
 * only where that is high. Source: SpargeAttn (Zhang et al. 2025), section 3.2. */
void gv_score_pooled(struct run *r, const struct score_call *c, struct tensor q_same, struct tensor k_same);

/* The same for chunks of blocks: neighbours whose means point nearly the same way. mean(q) · Σk / sqrt(tokens of the chunk), the
 * same for every block of a chunk; softmax over blocks. Source: DHSA (Xiong et al. 2025), its length normalisation. */
struct chunking {
    double  like;    /* cosine of a block's mean with the chunk's so far, above which it joins */
    int64_t longest; /* blocks of a chunk at most */
};
void gv_score_chunks(struct run *r, const struct score_call *c, const struct chunking *chunks);

/* Sums of exp over antidiagonals: q is folded `stride` tokens at a time in reverse, k in order, so that one product of folded
 * rows sums the scores along an antidiagonal; softmax over folded keys, summed over the block. stride divides GV_KV_BLOCK.
 * Source: XAttention (Xu et al. 2025), section 2.1; 8 for video, 16 for text. */
void gv_score_antidiagonal(struct run *r, const struct score_call *c, int stride);

/* The share of the softmax that each block holds, given the LSE [B, A, N] of the full attention: what the guesses guess. As
 * dear as half of dense attention. Source: AdaSpa's second pass. */
void gv_score_exact(struct run *r, const struct score_call *c, struct tensor lse);

/* What the last `rows` queries read, each up to its own place (the sequence is causal and q and k are equally many): the sum
 * of their softmax by key, column [B, A, N], and by distance to the key, distance [B, A, N], f32; each sums to `rows`.
 * Source: MInference (Jiang et al. 2024), algorithm 2. */
void gv_score_lines(struct run *r, struct tensor q, struct tensor k, int64_t rows, struct tensor column,
                    struct tensor distance);

#endif
