/* The blocks whose mean key answers a tile's mean query best. With its options this is the choice of several methods:
 *   SpargeAttn   share=0.5,same=-0.1 (or mass=0.97,crossing=0,same=0.5): blocks whose tokens differ too much to be spoken for by
 *                their mean are always read, and such tiles read everything
 *   VSA, fine    share=0.125,order=2: a block is a box of 4 x 4 x 4, and two of them are a tile of queries
 *   Jenga        share=0.2,mass=0.3,order=1,near=1: what either keeps, of a curve through the clip
 * Sources: Zhang et al. 2025 (SpargeAttn), Zhang et al. 2025 (VSA), Zhang et al. 2025 (Jenga); their code as described in each
 * paper. Not subtracting K's mean first: it moves all scores of a row alike. */
#include "attention/policy.h"
#include "attention/select.h"

enum { SHARE, MASS, CROSSING, SAME, FIRST, LAST, NEAR, ORDER };
static const struct policy_option options[] = {
    { "share", "share of the blocks to keep; 0 = not by share", 0.5, 0, 1 },
    { "mass", "share of the scores' sum to keep; 0 = not by mass", 0, 0, 1 },
    { "crossing", "1: with the block that reaches the mass", 1, 0, 1 },
    { "same", "self-similarity at or under which a block is always read; -1 = off", -1, -1, 1 },
    { "first", "first blocks, always kept", 0, 0, 1e6 },
    { "last", "last blocks, always kept", 0, 0, 1e6 },
    { "near", "blocks on either side of the tile's own, always kept with it; -1 = none", -1, -1, 1e6 },
    { "order", "so that a block is a compact piece of the clip: 1: along a Hilbert curve, 2: in boxes of 4 x 4 x 4; 0 = raster",
      0, 0, 2 },
    { 0 },
};

static gv_status check(const double *value, struct error *e)
{
    if (value[SHARE] > 0 || value[MASS] > 0)
        return GV_OK;
    return gv_fail(e, GV_ERR_ARGUMENT, "attention policy pooled: share and mass are both 0: nothing would be read");
}

static gv_status order(struct attn_layout *l, const double *value, struct error *e)
{
    enum { HILBERT = 1, BOXES };

    return value[ORDER] >= BOXES ? gv_layout_tiles(l, 4, 4, 4, e) : value[ORDER] >= HILBERT ? gv_layout_hilbert(l, e) : GV_OK;
}

static void plan(struct run *r, struct attn_plan *out, struct tensor q, struct tensor k, const double *value)
{
    const int64_t *d = q.dim, tiles = (d[1] + GV_TILE_Q - 1) / GV_TILE_Q, blocks = (k.dim[1] + GV_KV_BLOCK - 1) / GV_KV_BLOCK;
    struct keep keep = { .same = value[SAME], .forced = { (int64_t)value[FIRST], (int64_t)value[LAST], (int64_t)value[NEAR] } };
    const struct score_call c = {
        .score = gv_scratch(r, GV_F32, 4, DIMS(d[0], d[2], tiles, blocks)), .q = q, .k = k, .block = GV_KV_BLOCK
    };

    if (value[SAME] > -1) {
        keep.q_same = gv_scratch(r, GV_F32, 3, DIMS(d[0], d[2], tiles));
        keep.k_same = gv_scratch(r, GV_F32, 3, DIMS(d[0], k.dim[2], blocks));
    }
    if (value[SHARE] > 0)
        keep.rule[keep.n_rules++] = (struct select_rule){ .kind = SELECT_SHARE, .amount = value[SHARE], .least = 1 };
    if (value[MASS] > 0)
        keep.rule[keep.n_rules++] =
            (struct select_rule){ .kind = SELECT_MASS, .amount = value[MASS], .crossing = value[CROSSING] != 0, .least = 1 };
    gv_score_pooled(r, &c, keep.q_same, keep.k_same);
    gv_plan_from_scores(r, out, &c, &keep, value[MASS] > 0 ? 1 : value[SHARE]);
}

const struct attn_policy gv_policy_pooled = {
    .name = "pooled",
    .help = "the blocks whose mean fits best (SpargeAttn, VSA, Jenga)",
    .options = options,
    .check = check,
    .order = order,
    .plan = plan,
};
