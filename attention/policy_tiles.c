/* Sliding tile: the grid is cut into boxes whose tokens lie together (gv_layout_tiles); each box reads a window of boxes around
 * it. The window's centre is moved inside where it would reach over the edge, so that every box reads equally many: wt·wh·ww.
 * Source: Zhang et al. 2025, "Fast Video Generation with Sliding Tile Attention"; its box is 6 x 8 x 8 = 384 tokens. */
#include "attention/policy.h"

enum { TT, TH, TW, WT, WH, WW };
static const struct policy_option options[] = {
    { "tt", "frames in a tile", 6, 1, 4096 },
    { "th", "rows in a tile", 8, 1, 4096 },
    { "tw", "columns in a tile", 8, 1, 4096 },
    { "wt", "tiles read, in time", 3, 1, 4096 },
    { "wh", "tiles read, down", 3, 1, 4096 },
    { "ww", "tiles read, across", 3, 1, 4096 },
    { 0 },
};

struct tiles {
    int size;               /* tokens in a tile */
    int grid[3], window[3]; /* in tiles */
};

static gv_status order(struct attn_layout *l, const double *value, struct error *e)
{
    return gv_layout_tiles(l, (int)value[TT], (int)value[TH], (int)value[TW], e);
}

/* Is coordinate k inside the window of q? */
static bool inside(int q, int k, int grid, int window)
{
    int from = q - window / 2;

    if (from > grid - window)
        from = grid - window;
    if (from < 0)
        from = 0;
    return k >= from && k < from + window;
}

static enum block_verdict verdict(const void *arg, const struct plan_block *b)
{
    const struct tiles *t = arg;
    int                 q = (int)(b->q0 / t->size), k = (int)(b->k0 / t->size);

    for (int axis = 2; axis >= 0; axis--) {
        if (!inside(q % t->grid[axis], k % t->grid[axis], t->grid[axis], t->window[axis]))
            return BLOCK_NONE;
        q /= t->grid[axis];
        k /= t->grid[axis];
    }
    return BLOCK_ALL;
}

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    const int    dim[3] = { l->T, l->H, l->W };
    struct tiles t = { .size = 1 };

    (void)heads;
    for (int i = 0; i < 3; i++) {
        if (l->tile[i] != (int)value[TT + i])
            return gv_fail(e, GV_ERR_ARGUMENT, "attention policy tiles: the layout's tokens are not in tiles of %g x %g x %g",
                           value[TT], value[TH], value[TW]);
        t.grid[i] = dim[i] / l->tile[i];
        t.window[i] = (int)value[WT + i];
        t.size *= l->tile[i];
    }
    if (t.size % GV_TILE_Q)
        return gv_fail(e, GV_ERR_ARGUMENT, "attention policy tiles: a tile of %d tokens is no multiple of %d", t.size,
                       GV_TILE_Q);
    return gv_plan_from_blocks(out, &(struct plan_shape){ 1, l->tokens, l->tokens, { 0 } }, verdict, &t, e);
}

const struct attn_policy gv_policy_tiles = {
    .name = "tiles",
    .help = "a window of boxes around each box (sliding tile)",
    .options = options,
    .order = order,
    .build = build,
};
