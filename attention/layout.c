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

const char *const gv_axes_name[GV_AXES] = { "thw", "hwt", "twh", "wth", "htw", "wht" };

void gv_axes_order(int32_t *order, int axes, int T, int H, int W)
{
    const int64_t size[3] = { T, H, W }, step[3] = { (int64_t)H * W, W, 1 };
    int           axis[3];

    for (int i = 0; i < 3; i++)
        axis[i] = gv_axes_name[axes][i] == 't' ? 0 : gv_axes_name[axes][i] == 'h' ? 1 : 2;
    for (int64_t n = 0; n < size[0] * size[1] * size[2]; n++) {
        const int64_t last = n % size[axis[2]], rest = n / size[axis[2]];
        order[n] =
            (int32_t)(last * step[axis[2]] + rest % size[axis[1]] * step[axis[1]] + rest / size[axis[1]] * step[axis[0]]);
    }
}

gv_status gv_layout_places(struct attn_layout *l, struct error *e)
{
    enum { HWT = 1 };
    int32_t *order;

    TRY(new_order(l, &order, e));
    gv_axes_order(order, HWT, l->T, l->H, l->W);
    return reorder(l, order, e);
}

/* Place of (t, h, w), each below 2^bits, along the curve: the axes' bits are turned into the curve's own, then interleaved. */
static uint64_t hilbert_index(const uint32_t at[3], int bits)
{
    uint32_t x[3] = { at[0], at[1], at[2] }, t = 0;
    uint64_t index = 0;

    for (uint32_t q = (uint32_t)1 << (bits - 1); q > 1; q >>= 1)
        for (int i = 0; i < 3; i++) {
            const uint32_t p = q - 1;
            if (x[i] & q) {
                x[0] ^= p; /* invert */
            } else {
                const uint32_t swap = (x[0] ^ x[i]) & p; /* exchange with the first axis */
                x[0] ^= swap;
                x[i] ^= swap;
            }
        }
    for (int i = 1; i < 3; i++) /* Gray code */
        x[i] ^= x[i - 1];
    for (uint32_t q = (uint32_t)1 << (bits - 1); q > 1; q >>= 1)
        if (x[2] & q)
            t ^= q - 1;
    for (int b = bits - 1; b >= 0; b--)
        for (int i = 0; i < 3; i++)
            index = index << 1 | ((x[i] ^ t) >> b & 1);
    return index;
}

struct placed {
    uint64_t along;
    int32_t  raster;
};

static int by_place(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    return x->along < y->along ? -1 : x->along > y->along;
}

gv_status gv_layout_hilbert(struct attn_layout *l, struct error *e)
{
    int32_t *order;
    int      bits = 1;

    TRY(new_order(l, &order, e));
    struct placed *p = malloc((size_t)l->tokens * sizeof *p);
    if (!p) {
        free(order);
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the order of %lld tokens", (long long)l->tokens);
    }
    while (l->T > 1 << bits || l->H > 1 << bits || l->W > 1 << bits)
        bits++;
    if (bits > 21) { /* the index has 3 bits for each */
        free(p);
        free(order);
        return gv_fail(e, GV_ERR_ARGUMENT, "layout: a side of more than 2^21 tokens has no Hilbert order");
    }
    for (int64_t n = 0; n < l->tokens; n++) {
        const uint32_t at[3] = { (uint32_t)(n / l->W / l->H), (uint32_t)(n / l->W % l->H), (uint32_t)(n % l->W) };
        p[n] = (struct placed){ hilbert_index(at, bits), (int32_t)n };
    }
    qsort(p, (size_t)l->tokens, sizeof *p, by_place);
    for (int64_t n = 0; n < l->tokens; n++)
        order[n] = p[n].raster;
    free(p);
    return reorder(l, order, e);
}

void gv_layout_free(struct attn_layout *l)
{
    free(l->position);
    free(l->order);
    *l = (struct attn_layout){ 0 };
}
