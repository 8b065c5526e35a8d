/* Median cut over a histogram of 32³ cells: the box with the most pixels times its longest side is split at the median until
 * there are 256. A colour is the mean of its box's pixels. Each cell's nearest colour is looked up once.
 *
 * Source: Heckbert, Color Image Quantization for Frame Buffer Display (1982). */
#include "io/palette.h"

#include <stdlib.h>

enum { SIDE = 32, CELLS = SIDE * SIDE * SIDE, COLOURS = 256 };

struct cell {
    uint64_t sum[3];
    uint32_t n;
    int      nearest; /* colour + 1; 0 = not looked up yet */
};

struct box {
    uint8_t  lo[3], hi[3]; /* both within */
    uint64_t n;
};

static int cell_of(int r, int g, int b)
{
    return (r >> 3) << 10 | (g >> 3) << 5 | b >> 3;
}

static int cell_at(const int at[3])
{
    return at[0] << 10 | at[1] << 5 | at[2];
}

/* The box shrinks to the cells that have pixels. */
static void shrink(struct box *box, const struct cell *cells)
{
    struct box out = { { SIDE, SIDE, SIDE }, { 0, 0, 0 }, 0 };
    int        at[3];
    for (at[0] = box->lo[0]; at[0] <= box->hi[0]; at[0]++)
        for (at[1] = box->lo[1]; at[1] <= box->hi[1]; at[1]++)
            for (at[2] = box->lo[2]; at[2] <= box->hi[2]; at[2]++) {
                const uint32_t n = cells[cell_at(at)].n;
                for (int k = 0; n && k < 3; k++) {
                    out.lo[k] = at[k] < out.lo[k] ? (uint8_t)at[k] : out.lo[k];
                    out.hi[k] = at[k] > out.hi[k] ? (uint8_t)at[k] : out.hi[k];
                }
                out.n += n;
            }
    *box = out;
}

static int longest(const struct box *b)
{
    int k = 0;
    for (int i = 1; i < 3; i++)
        if (b->hi[i] - b->lo[i] > b->hi[k] - b->lo[k])
            k = i;
    return k;
}

/* Where along axis k half of the pixels are reached, such that both parts have some. */
static int median(const struct box *b, int k, const struct cell *cells)
{
    uint64_t seen = 0;
    int      at[3];
    for (int cut = b->lo[k]; cut < b->hi[k]; cut++) {
        const int i = (k + 1) % 3, j = (k + 2) % 3;
        at[k] = cut;
        for (at[i] = b->lo[i]; at[i] <= b->hi[i]; at[i]++)
            for (at[j] = b->lo[j]; at[j] <= b->hi[j]; at[j]++)
                seen += cells[cell_at(at)].n;
        if (2 * seen >= b->n)
            return cut;
    }
    return b->hi[k] - 1;
}

static int cut(struct box *boxes, const struct cell *cells)
{
    int n = 1;
    boxes[0] = (struct box){ { 0, 0, 0 }, { SIDE - 1, SIDE - 1, SIDE - 1 }, 0 };
    shrink(&boxes[0], cells);
    while (n < COLOURS) {
        uint64_t most = 0;
        int      which = -1;
        for (int i = 0; i < n; i++) {
            const int      k = longest(&boxes[i]);
            const uint64_t weight = boxes[i].n * (uint64_t)(boxes[i].hi[k] - boxes[i].lo[k]);
            if (weight > most)
                most = weight, which = i;
        }
        if (which < 0)
            break; /* every cell has its own */
        const int k = longest(&boxes[which]), at = median(&boxes[which], k, cells);
        boxes[n] = boxes[which];
        boxes[which].hi[k] = (uint8_t)at;
        boxes[n].lo[k] = (uint8_t)(at + 1);
        shrink(&boxes[which], cells);
        shrink(&boxes[n++], cells);
    }
    return n;
}

static uint32_t mean(const struct box *b, const struct cell *cells)
{
    uint64_t sum[3] = { 0 };
    int      at[3];
    for (at[0] = b->lo[0]; at[0] <= b->hi[0]; at[0]++)
        for (at[1] = b->lo[1]; at[1] <= b->hi[1]; at[1]++)
            for (at[2] = b->lo[2]; at[2] <= b->hi[2]; at[2]++)
                for (int k = 0; k < 3; k++)
                    sum[k] += cells[cell_at(at)].sum[k];
    uint32_t out = 0xff;
    for (int k = 0; k < 3; k++)
        out = out << 8 | (uint32_t)((sum[k] + b->n / 2) / b->n);
    return out;
}

static int nearest(const uint32_t *palette, int n, int cell)
{
    const int c[3] = { (cell >> 10) * 8 + 4, (cell >> 5 & 31) * 8 + 4, (cell & 31) * 8 + 4 };
    int       best = 0, least = 1 << 30;
    for (int i = 0; i < n; i++) {
        int d = 0;
        for (int k = 0; k < 3; k++) {
            const int x = c[k] - (int)(palette[i] >> (16 - 8 * k) & 255);
            d += x * x;
        }
        if (d < least)
            least = d, best = i;
    }
    return best;
}

/* -8..7 in an order that spreads: bits of x ^ y and y, interleaved. */
static int bayer(int x, int y)
{
    int v = 0;
    for (int bit = 0; bit < 3; bit++)
        v = v << 2 | ((x ^ y) >> bit & 1) << 1 | (y >> bit & 1);
    return v / 4 - 8;
}

static int clamp(int v)
{
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

static void count(struct cell *cells, const uint8_t *rgb, int64_t pixels)
{
    for (int64_t i = 0; i < pixels; i++, rgb += 3) {
        struct cell *c = &cells[cell_of(rgb[0], rgb[1], rgb[2])];
        for (int k = 0; k < 3; k++)
            c->sum[k] += rgb[k];
        c->n++;
    }
}

gv_status gv_palette_make(uint32_t palette[256], uint8_t *index, ptrdiff_t index_stride, const uint8_t *rgb, int width,
                          int height, struct error *e)
{
    struct box   boxes[COLOURS];
    struct cell *cells = calloc(CELLS, sizeof *cells);
    int          used = 0;
    if (!cells)
        return gv_fail(e, GV_ERR_MEMORY, "no memory to choose the colours of a picture");
    count(cells, rgb, (int64_t)width * height);
    for (int i = 0; i < CELLS; i++)
        used += cells[i].n > 0;
    const int n = cut(boxes, cells);
    for (int i = 0; i < COLOURS; i++)
        palette[i] = i < n ? mean(&boxes[i], cells) : 0xff000000u;
    for (ptrdiff_t y = 0; y < height; y++)
        for (ptrdiff_t x = 0; x < width; x++) {
            const uint8_t *p = rgb + 3 * (y * width + x);
            const int      d = used > COLOURS ? bayer((int)x, (int)y) : 0;
            const int      at = cell_of(clamp(p[0] + d), clamp(p[1] + d), clamp(p[2] + d));
            if (!cells[at].nearest)
                cells[at].nearest = nearest(palette, n, at) + 1;
            index[y * index_stride + x] = (uint8_t)(cells[at].nearest - 1);
        }
    free(cells);
    return GV_OK;
}
