/* Every head reads the blocks near it and every stride-th block of the rest, shifted by its own number, so that `stride` heads
 * together read everything. Source: S2-Attention (Lin et al. 2024, arXiv 2407.17678), section 3; blocks of 128 tokens. */
#include "attention/policy.h"

enum { STRIDE, LOCAL, CAUSAL };
static const struct policy_option options[] = {
    { "stride", "one far block of so many", 4, 1, 4096 },
    { "local", "blocks that count as near: the reader's own is the first", 2, 1, 32768 },
    { "causal", "1: only what comes before", 0, 0, 1 },
    { 0 },
};

static enum block_verdict verdict(const void *arg, const struct plan_block *b)
{
    const double *value = arg;
    const int64_t q = b->q0 / GV_TILE_Q, k = b->k0 / GV_TILE_Q, apart = q > k ? q - k : k - q;
    const int64_t stride = (int64_t)value[STRIDE];

    if ((value[CAUSAL] != 0 && k > q) || (apart >= (int64_t)value[LOCAL] && (k + b->head) % stride))
        return BLOCK_NONE;
    return value[CAUSAL] != 0 && k == q ? BLOCK_SOME : BLOCK_ALL;
}

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    const struct attn_mask m = { .kind = value[CAUSAL] != 0 ? MASK_CAUSAL : MASK_NONE };

    return gv_plan_from_blocks(out, &(struct plan_shape){ heads, l->tokens, l->tokens, m }, verdict, value, e);
}

const struct attn_policy gv_policy_strided = {
    .name = "strided",
    .help = "near blocks and every n-th far one, shifted from head to head (S2)",
    .options = options,
    .build = build,
};
