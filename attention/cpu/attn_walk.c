#include <math.h>

#include "attention/cpu/attn_cpu.h"

float gv_attn_scale(const struct attn_call *c)
{
    return c->scale != 0 ? c->scale : (float)(1 / sqrt((double)c->q.dim[3]));
}

int64_t gv_attn_row(const struct attn_call *c, int64_t b, int64_t h, int64_t tile)
{
    const struct attn_plan *p = c->plan;

    return ((p->batch == 1 ? 0 : b) * p->list_heads + h / (c->q.dim[2] / p->list_heads)) * p->tiles + tile;
}

bool gv_attn_skipped(const struct attn_call *c, int64_t b, int64_t h, int64_t tile)
{
    if (!c->skip)
        return false;
    const int64_t row = gv_attn_row(c, b, h, tile);
    return c->skip[row / 32] >> row % 32 & 1;
}

void gv_attn_walk(struct attn_walk *w, const struct attn_call *c, int64_t b, int64_t h, int64_t tile)
{
    const struct attn_plan *p = c->plan;

    *w = (struct attn_walk){ .c = c };
    if (!p || !p->entries)
        return;
    const int64_t row = gv_attn_row(c, b, h, tile);
    w->entry = p->entries + p->row[row];
    w->end = p->entries + p->row[row + 1];
    w->split = p->split ? p->entries + p->split[row] : NULL;
}

/* Next whole-source segment among the sources whose `always` is what the walk is at. */
static bool next_dense(struct attn_walk *w, struct attn_segment *s)
{
    const struct attn_call *c = w->c;

    for (; w->source < c->n_sources; w->source++, w->start = 0) {
        const int64_t left = c->source[w->source].k.dim[1] - w->start;

        if (c->source[w->source].always != w->always || left <= 0)
            continue;
        *s = (struct attn_segment){ .start = w->start,
                                    .source = w->source,
                                    .length = (int)(left < GV_KV_BLOCK ? left : GV_KV_BLOCK) };
        w->start += GV_KV_BLOCK;
        return true;
    }
    return false;
}

bool gv_attn_walk_next(struct attn_walk *w, struct attn_segment *s)
{
    while (w->entry != w->end) {
        const gv_kv_entry *e = w->entry++;

        if (*e == GV_KV_PADDING)
            continue;
        *s = (struct attn_segment){ .start = kv_start(*e),
                                    .source = (int)kv_source(*e),
                                    .length = (int)kv_length(*e),
                                    .masked = kv_masked(*e),
                                    .part = w->split && e >= w->split };
        return true;
    }
    if (!w->always) {
        if (!w->end && next_dense(w, s))
            return true;
        w->always = true;
        w->source = 0;
        w->start = 0;
    }
    if (!next_dense(w, s))
        return false;
    s->part = w->split != NULL;
    return true;
}
