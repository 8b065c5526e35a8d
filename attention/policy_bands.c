/* A band around the diagonal and the first frame. In raster order that is a head that looks at frames near its own
 * ("spatial"); with the frames of a place lying together, the same band is a head that looks at places near its own
 * ("temporal"). With axes=2 each head takes what suits it, in each step, by the error of 64 sampled outputs (axes.h): that is SVG.
 * Half width from the share of pairs to keep: w = N (1 - sqrt(1 - keep)), up to a multiple of 128.
 * Source: Xi et al. 2025, "Sparse VideoGen"; its first fifth of the steps are dense (dense_steps). */
#include <math.h>

#include "attention/policy.h"

enum { KEEP, TEMPORAL };
static const struct policy_option options[] = {
    { "keep", "share of pairs inside the band", 0.3, 0.001, 1 },
    { "temporal", "1: tokens of one place lie together", 0, 0, 1 },
    { 0 },
};

static gv_status order(struct attn_layout *l, const double *value, struct error *e)
{
    return value[TEMPORAL] != 0 ? gv_layout_places(l, e) : GV_OK;
}

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    const double  width = (double)l->tokens * (1 - sqrt(1 - value[KEEP]));
    const int64_t half = (int64_t)ceil(width / GV_TILE_Q) * GV_TILE_Q;

    (void)heads;
    if (l->tokens != (int64_t)l->T * l->H * l->W || !l->order != (value[TEMPORAL] == 0))
        return gv_fail(e, GV_ERR_ARGUMENT, "attention policy bands: needs a grid in %s order",
                       value[TEMPORAL] != 0 ? "place" : "raster");
    const struct attn_mask m = { .kind = MASK_WINDOW, .a = half, .b = half, .sink = (int64_t)l->H * l->W };
    return gv_plan_from_mask(out, &(struct plan_shape){ 1, l->tokens, l->tokens, m }, e);
}

const struct attn_policy gv_policy_bands = {
    .name = "bands",
    .help = "near frames, or near places, and the first frame; with axes=2 as each head likes it (SVG)",
    .options = options,
    .order = order,
    .build = build,
};
