/* The blocks that hold most of the softmax, guessed from sums along antidiagonals. Source: XAttention (Xu et al. 2025): stride 8
 * and 90% of the mass for video, 16 for text; blocks of 128. Its own code keeps block 0 of every row by accident; we do not,
 * but `first` can say so. */
#include "attention/policy.h"
#include "attention/select.h"

enum { STRIDE, MASS, FIRST };
static const struct policy_option options[] = {
    { "stride", "tokens summed along an antidiagonal: 1, 2, 4 ... 64", 8, 1, 64 },
    { "mass", "share of the softmax to keep", 0.9, 0.01, 1 },
    { "first", "first blocks, always kept", 0, 0, 1e6 },
    { 0 },
};

enum { BLOCK = 128 };

static gv_status check(const double *value, struct error *e)
{
    if (GV_KV_BLOCK % (int)value[STRIDE] == 0 && value[STRIDE] == (int)value[STRIDE])
        return GV_OK;
    return gv_fail(e, GV_ERR_ARGUMENT, "attention policy antidiagonal: stride=%g does not divide %d", value[STRIDE],
                   GV_KV_BLOCK);
}

static void plan(struct run *r, struct attn_plan *out, struct tensor q, struct tensor k, const double *value)
{
    const int64_t           *d = q.dim;
    const int64_t            shape[] = { d[0], d[2], (d[1] + GV_TILE_Q - 1) / GV_TILE_Q, (k.dim[1] + BLOCK - 1) / BLOCK };
    const struct score_call  c = { .score = gv_scratch(r, GV_F32, 4, shape), .q = q, .k = k, .block = BLOCK };
    const struct select_rule mass = { .kind = SELECT_MASS, .amount = value[MASS], .crossing = true, .least = 1 };

    gv_score_antidiagonal(r, &c, (int)value[STRIDE]);
    gv_plan_from_scores(
        r, out, &c, &(struct keep){ .n_rules = 1, .rule[0] = mass, .forced = { .first = (int64_t)value[FIRST], .near = -1 } },
        1);
}

const struct attn_policy gv_policy_antidiagonal = {
    .name = "antidiagonal",
    .help = "the blocks with most of the softmax, by sums along antidiagonals (XAttention)",
    .options = options,
    .check = check,
    .plan = plan,
};
