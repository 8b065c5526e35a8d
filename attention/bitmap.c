#include "attention/bitmap.h"

#include <string.h>

int64_t gv_bitmap_row_words(const struct attn_bitmap *b)
{
    return (b->blocks + 31) / 32;
}

static int64_t rows(const struct attn_bitmap *b)
{
    return (int64_t)b->batch * b->heads * b->tiles;
}

int64_t gv_bitmap_words(const struct attn_bitmap *b)
{
    return rows(b) * gv_bitmap_row_words(b);
}

/* Keys of a block: GV_KV_BLOCK, or what is left at the end. */
static uint32_t block_keys(int64_t n_keys, int64_t block)
{
    const int64_t left = n_keys - block * GV_KV_BLOCK;

    return (uint32_t)(left < GV_KV_BLOCK ? left : GV_KV_BLOCK);
}

void gv_bitmap_from_plan(struct run *r, struct attn_bitmap *b, const struct attn_plan *p, int64_t n_keys)
{
    const int64_t words = gv_bitmap_row_words(b);

    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return;
    if (p->batch != b->batch || p->list_heads != b->heads || p->tiles != b->tiles || !p->entries) {
        gv_run_fail(r, GV_ERR_INTERNAL, "attention: a plan of %d x %d x %d rows does not fit a bitmap of %d x %d x %d",
                    p->batch, p->list_heads, p->tiles, b->batch, b->heads, b->tiles);
        return;
    }
    memset(b->word, 0, (size_t)gv_bitmap_words(b) * sizeof *b->word);
    for (int64_t row = 0; row < rows(b); row++)
        for (uint32_t i = p->row[row]; i < p->row[row + 1]; i++) {
            const gv_kv_entry e = p->entries[i];
            const int64_t     block = kv_start(e) / GV_KV_BLOCK;

            if (e == GV_KV_PADDING)
                continue;
            if (kv_source(e) || kv_start(e) % GV_KV_BLOCK || kv_length(e) != block_keys(n_keys, block)) {
                gv_run_fail(r, GV_ERR_UNSUPPORTED,
                            "attention: this policy's lists are no whole blocks, so they cannot be kept from step to step");
                return;
            }
            b->word[row * words + block / 32] |= (uint32_t)1 << block % 32;
        }
}

struct writing {
    const struct attn_bitmap *b;
    gv_kv_entry              *entries, *end;
    int64_t                   n_keys;
    double                    keys; /* written for the row at hand */
};

static void write_row(struct writing *w, int64_t row, bool kept)
{
    for (int i = 0; i < w->b->blocks; i++)
        if (bitmap_keeps(w->b, row, i) == kept) {
            *w->end++ = kv_entry((uint32_t)i * GV_KV_BLOCK, block_keys(w->n_keys, i), 0, false);
            w->keys += block_keys(w->n_keys, i);
        }
}

void gv_bitmap_plan(struct run *r, struct attn_plan *out, const struct attn_bitmap *b, int64_t n_queries, int64_t n_keys,
                    enum bitmap_use use)
{
    const int64_t  n = rows(b);
    uint32_t      *row = gv_scratch_bytes(r, (size_t)(n + 1) * sizeof *row);
    uint32_t      *split = use == BITMAP_SPLIT ? gv_scratch_bytes(r, (size_t)n * sizeof *split) : NULL;
    gv_kv_entry   *entries = gv_scratch_bytes(r, (size_t)(n * b->blocks + 1) * sizeof *entries);
    struct writing w = { b, entries, entries, n_keys, 0 };
    double         pairs = 0;

    *out = (struct attn_plan){ .tile_q = GV_TILE_Q,
                               .batch = b->batch,
                               .list_heads = b->heads,
                               .tiles = b->tiles,
                               .row = row,
                               .entries = entries,
                               .split = split,
                               .density = 1 };
    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return;
    for (int64_t i = 0; i < n; i++) {
        const int64_t left = n_queries - i % b->tiles * GV_TILE_Q;

        row[i] = (uint32_t)(w.end - entries);
        w.keys = 0;
        if (split) {
            write_row(&w, i, false);
            split[i] = (uint32_t)(w.end - entries);
        }
        write_row(&w, i, true);
        pairs += w.keys * (double)(left < GV_TILE_Q ? left : GV_TILE_Q);
    }
    row[n] = (uint32_t)(w.end - entries);
    out->density = pairs / ((double)n_queries * (double)n_keys * (double)b->batch * (double)b->heads);
}
