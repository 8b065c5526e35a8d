/* Every pair. A plan without lists: the kernels then walk the sources themselves. */
#include "attention/policy.h"

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    (void)heads, (void)value, (void)e;
    *out = (struct attn_plan){
        .tile_q = GV_TILE_Q, .batch = 1, .list_heads = 1, .density = 1, .tiles = (int)((l->tokens + GV_TILE_Q - 1) / GV_TILE_Q)
    };
    return GV_OK;
}

const struct attn_policy gv_policy_dense = {
    .name = "dense",
    .help = "every query reads every key",
    .options = (const struct policy_option[]){ { 0 } },
    .build = build,
};
