/* The blocks that truly hold most of the softmax: what the other scored policies guess. Choosing takes more than dense attention, so it
 * pays only where a choice lasts (at=10+30 of 50 steps), or as the measure of the others. Source: AdaSpa (Xia et al. 2025),
 * which keeps a share of 0.2. */
#include "attention/attention.h"
#include "attention/policy.h"
#include "attention/select.h"

enum { SHARE, MASS };
static const struct policy_option options[] = {
    { "share", "share of the blocks to keep; 0 = not by share", 0.2, 0, 1 },
    { "mass", "share of the softmax to keep; 0 = not by mass", 0, 0, 1 },
    { 0 },
};

static gv_status check(const double *value, struct error *e)
{
    if (value[SHARE] > 0 || value[MASS] > 0)
        return GV_OK;
    return gv_fail(e, GV_ERR_ARGUMENT, "attention policy exact: share and mass are both 0: nothing would be read");
}

static void plan(struct run *r, struct attn_plan *out, struct tensor q, struct tensor k, const double *value)
{
    const int64_t *d = q.dim, tiles = (d[1] + GV_TILE_Q - 1) / GV_TILE_Q, blocks = (k.dim[1] + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    const struct score_call c = {
        .score = gv_scratch(r, GV_F32, 4, DIMS(d[0], d[2], tiles, blocks)), .q = q, .k = k, .block = GV_KV_BLOCK
    };
    const struct attn_partial whole = { gv_scratch(r, r->compute, 4, d), gv_scratch(r, GV_F32, 3, DIMS(d[0], d[2], d[1])) };
    struct keep               keep = { .forced.near = -1 };

    if (value[SHARE] > 0)
        keep.rule[keep.n_rules++] = (struct select_rule){ .kind = SELECT_SHARE, .amount = value[SHARE], .least = 1 };
    if (value[MASS] > 0)
        keep.rule[keep.n_rules++] = (struct select_rule){ .kind = SELECT_MASS, .amount = value[MASS], .crossing = true };
    /* the LSE alone is wanted: any values will do */
    gv_attention(r, &(struct attn_call){ .q = q, .n_sources = 1, .source[0] = { .k = k, .v = k }, .out = whole });
    gv_score_exact(r, &c, whole.lse);
    gv_plan_from_scores(r, out, &c, &keep, value[MASS] > 0 ? 1 : value[SHARE]);
}

const struct attn_policy gv_policy_exact = {
    .name = "exact",
    .help = "the blocks that hold most of the softmax, found by computing it: with every=, at= (AdaSpa), or as a measure",
    .options = options,
    .check = check,
    .plan = plan,
};
