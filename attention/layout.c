#include "attention/layout.h"

#include <stdlib.h>

gv_status gv_layout_grid(struct attn_layout *l, int t0, int T, int H, int W, struct error *e)
{
    size_t tokens, bytes;

    *l = (struct attn_layout){ 0 };
    if (T < 1 || H < 1 || W < 1)
        return gv_fail(e, GV_ERR_INTERNAL, "layout: a grid of %d x %d x %d tokens", T, H, W);
    if (!gv_mul_size((size_t)T * (size_t)H, (size_t)W, &tokens) || !gv_mul_size(tokens, sizeof *l->position, &bytes) ||
        !(l->position = malloc(bytes)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the positions of %d x %d x %d tokens", T, H, W);
    l->tokens = (int64_t)tokens;
    l->T = T;
    l->H = H;
    l->W = W;
    for (int64_t n = 0; n < l->tokens; n++)
        l->position[n] = (struct attn_position){ (int32_t)(n / W / H + t0), (int32_t)(n / W % H), (int32_t)(n % W) };
    return GV_OK;
}

void gv_layout_free(struct attn_layout *l)
{
    free(l->position);
    *l = (struct attn_layout){ 0 };
}
