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

/* Moves position[] behind an order that was just written. */
static gv_status reorder(struct attn_layout *l, int32_t *order, struct error *e)
{
    struct attn_position *moved = malloc((size_t)l->tokens * sizeof *moved);

    if (!moved) {
        free(order);
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the positions of %lld tokens", (long long)l->tokens);
    }
    for (int64_t n = 0; n < l->tokens; n++)
        moved[n] = l->position[order[n]];
    free(l->position);
    l->position = moved;
    l->order = order;
    return GV_OK;
}

static gv_status new_order(const struct attn_layout *l, int32_t **order, struct error *e)
{
    if (l->order || l->tokens != (int64_t)l->T * l->H * l->W || l->tokens > INT32_MAX)
        return gv_fail(e, GV_ERR_INTERNAL, "layout: only a grid in raster order can be put into another");
    *order = malloc((size_t)l->tokens * sizeof **order);
    return *order ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "no memory for the order of %lld tokens", (long long)l->tokens);
}

gv_status gv_layout_tiles(struct attn_layout *l, int t, int h, int w, struct error *e)
{
    int32_t *order;

    if (t < 1 || h < 1 || w < 1 || l->T % t || l->H % h || l->W % w)
        return gv_fail(e, GV_ERR_ARGUMENT, "tiles of %d x %d x %d tokens do not divide the grid of %d x %d x %d", t, h, w, l->T,
                       l->H, l->W);
    TRY(new_order(l, &order, e));
    const int size = t * h * w, down = l->H / h, across = l->W / w;
    for (int64_t n = 0; n < l->tokens; n++) {
        const int64_t box = n / size, in = n % size;
        const int64_t T = box / across / down * t + in / w / h, H = box / across % down * h + in / w % h,
                      W = box % across * w + in % w;
        order[n] = (int32_t)((T * l->H + H) * l->W + W);
    }
    l->tile[0] = t;
    l->tile[1] = h;
    l->tile[2] = w;
    return reorder(l, order, e);
}

gv_status gv_layout_places(struct attn_layout *l, struct error *e)
{
    int32_t *order;

    TRY(new_order(l, &order, e));
    for (int64_t n = 0; n < l->tokens; n++)
        order[n] = (int32_t)(n % l->T * l->H * l->W + n / l->T);
    return reorder(l, order, e);
}

void gv_layout_free(struct attn_layout *l)
{
    free(l->position);
    free(l->order);
    *l = (struct attn_layout){ 0 };
}
