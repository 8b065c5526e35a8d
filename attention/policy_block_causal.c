/* Blocks of frames: a token reads its own block, all of it, and the blocks before: causal video (Self-Forcing, CausVid: blocks
 * of 3 latent frames). Blocks of one token are causal attention, one block of everything is dense. */
#include "attention/policy.h"

enum { FRAMES };
static const struct policy_option options[] = { { "frames", "frames in a block", 3, 1, 1e6 }, { 0 } };

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    const int64_t place = l->T ? l->tokens / l->T : 1; /* a text is frames of one token */

    (void)heads;
    if (l->order)
        return gv_fail(e, GV_ERR_ARGUMENT, "attention policy block_causal: frames must follow each other in the token order");
    return gv_plan_from_mask(
        out,
        &(struct plan_shape){ 1, l->tokens, l->tokens, { .kind = MASK_BLOCK_CAUSAL, .a = (int64_t)value[FRAMES] * place } }, e);
}

const struct attn_policy gv_policy_block_causal = {
    .name = "block_causal",
    .help = "a token reads its own block of frames and the blocks before it",
    .options = options,
    .build = build,
};
