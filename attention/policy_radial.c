/* Radial attention: the further apart two frames, the narrower the band of places that see each other, halved with every
 * doubling of the distance; where the band would fall under a block, only some of the frames are kept instead.
 *
 *     frames      0     1     2     3     4 ...        frame 0 is read by all (sink)
 *       0       full  full  band  band  band/2         |row - column| within a frame pair
 *       1       full  full  full  band  band/2
 *
 * For frames i, j: g = bit length of |i - j|, len = 2^bitlength(tokens per frame) / 2^g; the band is max(len · decay, 128);
 * where len < 128, only pairs whose distance divides by floor(128 / len) are kept. A block of 128 x 128 is kept when more
 * than 60% of its columns that hold anything are kept by more than a third of their rows.
 *
 * Source: Li et al. 2025, radial_attn/attn_mask.py. It evaluates the rule for one frame pair at a time, in blocks that may be
 * cut by the frame's edge, and keeps a block when any pair does; so do we. Where a frame is no multiple of 128 tokens it leaves
 * out a frame pair's last, partly filled block; we do not. */
#include "attention/policy.h"

enum { DECAY, SINK };
static const struct policy_option options[] = {
    { "decay", "width of the bands", 0.2, 0, 8 },
    { "sink", "1: every token reads the first frame", 1, 0, 1 },
    { 0 },
};

enum { BLOCK = 128 };

struct radial {
    int64_t frame; /* tokens */
    double  decay;
    bool    sink;
};

static int bit_length(int64_t x)
{
    int n = 0;

    for (; x; x >>= 1)
        n++;
    return n;
}

/* Half width of the band between two frames, in tokens; -1 where the pair is left out. */
static int64_t half_width(const struct radial *r, int64_t i, int64_t j)
{
    const int64_t apart = i > j ? i - j : j - i;
    const double  length = (double)((int64_t)1 << bit_length(r->frame)) / (double)((int64_t)1 << bit_length(apart));

    if (apart <= 1 || (r->sink && j == 0))
        return r->frame;
    if (length < BLOCK && apart % (int64_t)(BLOCK / length))
        return -1;
    return length * r->decay >= BLOCK ? (int64_t)(length * r->decay) : BLOCK;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The block [q0, q0 + 128) x [k0, k0 + 128), seen by frames i and j alone. */
static bool pair_keeps(const struct radial *r, int64_t i, int64_t j, int64_t q0, int64_t k0)
{
    const int64_t w = half_width(r, i, j);
    int64_t       filled = 0, dense = 0;

    if (w < 0)
        return false;
    const int64_t row0 = larger(q0 - i * r->frame, 0), row1 = smaller(q0 + BLOCK - i * r->frame, r->frame);
    const int64_t col0 = larger(k0 - j * r->frame, 0), col1 = smaller(k0 + BLOCK - j * r->frame, r->frame);
    for (int64_t c = col0; c < col1; c++) {
        const int64_t rows = smaller(row1, c + w + 1) - larger(row0, c - w);
        filled += rows > 0;
        dense += 3 * rows > BLOCK;
    }
    return 5 * dense > 3 * filled;
}

static enum block_verdict verdict(const void *arg, const struct plan_block *b)
{
    const struct radial *r = arg;
    const int64_t        k0 = b->k0 / BLOCK * BLOCK;

    for (int64_t i = b->q0 / r->frame; i <= (b->q1 - 1) / r->frame; i++)
        for (int64_t j = k0 / r->frame; j * r->frame < smaller(k0 + BLOCK, b->k1 + BLOCK - b->k1 % BLOCK); j++)
            if (pair_keeps(r, i, j, b->q0, k0))
                return BLOCK_ALL;
    return BLOCK_NONE;
}

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    (void)heads;
    if (l->order || l->tokens != (int64_t)l->T * l->H * l->W)
        return gv_fail(e, GV_ERR_ARGUMENT, "attention policy radial: needs frames of a grid in raster order");
    const struct radial r = { (int64_t)l->H * l->W, value[DECAY], value[SINK] != 0 };
    return gv_plan_from_blocks(out, &(struct plan_shape){ 1, l->tokens, l->tokens, { 0 } }, verdict, &r, e);
}

const struct attn_policy gv_policy_radial = {
    .name = "radial",
    .help = "bands that narrow with the distance of frames",
    .options = options,
    .build = build,
};
