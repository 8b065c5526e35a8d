#include "attention/rope.h"

#include <math.h>
#include <stdlib.h>

/* Pairs of one axis: angle of pair p is position / theta^(2p / dim), dim = 2 * pairs: each axis is a rotary embedding of
 * its own width (WanRotaryPosEmbed calls get_1d_rotary_pos_embed once per axis, in float64). */
struct axis {
    int     pairs;
    int32_t position;
};

static void fill_axis(float *cosine, float *sine, struct axis a, const double *rate)
{
    for (int p = 0; p < a.pairs; p++) {
        const double angle = (double)a.position * rate[p];

        cosine[p] = (float)cos(angle);
        sine[p] = (float)sin(angle);
    }
}

static void fill_row(float *cosine, float *sine, struct attn_position at, int half, int side, const double *rate)
{
    const int first = half - 2 * side;

    if (at.t == GV_NO_POSITION) {
        for (int p = 0; p < half; p++) {
            cosine[p] = 1;
            sine[p] = 0;
        }
        return;
    }
    fill_axis(cosine, sine, (struct axis){ first, at.t }, rate);
    fill_axis(cosine + first, sine + first, (struct axis){ side, at.h }, rate + first);
    fill_axis(cosine + first + side, sine + first + side, (struct axis){ side, at.w }, rate + first);
}

/* Host tables, one after the other: cos, sin. NULL when out of memory. */
static float *make_tables(const struct attn_layout *l, int half, int side, double theta)
{
    const int64_t n = l->tokens * half;
    float        *table = malloc((size_t)n * 2 * sizeof *table);
    double       *rate = malloc((size_t)half * sizeof *rate); /* the t axis, then the one that h and w share */

    if (table && rate) {
        const int first = half - 2 * side;

        for (int p = 0; p < half - side; p++)
            rate[p] = p < first ? pow(theta, -(double)p / first) : pow(theta, -(double)(p - first) / side);
        for (int64_t i = 0; i < l->tokens; i++)
            fill_row(table + i * half, table + n + i * half, l->position[i], half, side, rate);
    } else {
        free(table);
        table = NULL;
    }
    free(rate);
    return table;
}

struct rope gv_rope_3d(struct run *r, const struct attn_layout *l, int head, double theta)
{
    const int      half = head / 2, side = head / 6;
    const int64_t *dim = (const int64_t[]){ l->tokens, half };
    struct rope    rope = { .head = head };

    if (!gv_run_ready(r))
        return rope;
    if (head < 6 || head % 2 || l->tokens < 1) {
        gv_run_fail(r, GV_ERR_INTERNAL, "rope: head of %d, %lld tokens", head, (long long)l->tokens);
        return rope;
    }
    /* Host memory: the tables are made once for a request, before its first forward, and not at all in a dry run. */
    float *table = gv_device_is_null(r->device) ? NULL : make_tables(l, half, side, theta);
    if (!table && !gv_device_is_null(r->device)) {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for rotary tables of %lld tokens", (long long)l->tokens);
        return rope;
    }
    rope.cos = gv_scratch_from(r, GV_F32, 2, dim, table);
    rope.sin = gv_scratch_from(r, GV_F32, 2, dim, table ? table + l->tokens * half : NULL);
    free(table);
    return rope;
}
