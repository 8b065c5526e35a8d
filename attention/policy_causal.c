/* Each token reads itself and what came before it, in the layout's order. */
#include "attention/policy.h"

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    (void)heads, (void)value;
    return gv_plan_from_mask(out, &(struct plan_shape){ 1, l->tokens, l->tokens, { .kind = MASK_CAUSAL } }, e);
}

const struct attn_policy gv_policy_causal = {
    .name = "causal",
    .help = "a token reads itself and those before it",
    .text = true,
    .options = (const struct policy_option[]){ { 0 } },
    .build = build,
};
