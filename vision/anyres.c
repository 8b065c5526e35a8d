/* What would surprise you: the best size is the one that keeps most of the picture's own pixels, then the one that wastes least;
 * rounding is the reference's (7 digits, then down; Python's //), and a row more or less is a prompt of another length. Bilinear shrinking
 * is torch's with align_corners false and no antialias. */
#include "vision/anyres.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes ---- */

static void best_size(struct anyres *a, const struct anyres_config *c, int height, int width)
{
    int64_t most = 0, waste = INT64_MAX;
    for (int i = 0; i < c->n_sizes; i++) {
        const int     h = c->size[i][0], w = c->size[i][1];
        const double  scale = fmin((double)w / width, (double)h / height);
        const int64_t kept = (int64_t)(width * scale) * (int64_t)(height * scale), own = (int64_t)width * height,
                      used = kept < own ? kept : own, lost = (int64_t)h * w - used;
        if (used > most || (used == most && lost < waste)) {
            most = used;
            waste = lost;
            a->height = h;
            a->width = w;
        }
    }
}

/* int(round(x, 7)) */
static int whole(double x)
{
    return (int)(nearbyint(x * 1e7) / 1e7);
}

/* a // b of Python: exact where a / b rounds up to a whole number. */
static int floor_division(double a, double b)
{
    return (int)nearbyint((a - fmod(a, b)) / b);
}

void gv_anyres_plan(struct anyres *a, const struct anyres_config *c, int height, int width)
{
    *a = (struct anyres){ .height = c->tile, .width = c->tile };
    best_size(a, c, height, width);
    a->rows = a->height / c->tile;
    a->columns = a->width / c->tile;
    a->grid_h = a->rows * c->side;
    a->grid_w = a->columns * c->side;
    if ((double)width / height > (double)a->grid_w / a->grid_h)
        a->top = (a->grid_h - whole(height * ((double)a->grid_w / width))) / 2;
    else
        a->left = (a->grid_w - whole(width * ((double)a->grid_h / height))) / 2;
    a->grid_h -= 2 * a->top;
    a->grid_w -= 2 * a->left;
    const double ratio = sqrt((double)a->grid_h * a->grid_w / ((double)c->most * c->side * c->side));
    if (ratio > 1.1) {
        a->grid_h = floor_division(a->grid_h, ratio);
        a->grid_w = floor_division(a->grid_w, ratio);
    }
}

/* ---- pixels ---- */

/* The tile at (y, x) of pixels [., stride / 3, 3] in [0, 255] as patches. */
static void cut_tile(const struct anyres_config *c, const float *pixels, int64_t stride, int patch, float *rows)
{
    for (int i = 0; i < c->side * c->side; i++) {
        const float *from = pixels + (int64_t)(i / c->side) * patch * stride + (int64_t)(i % c->side) * patch * 3;
        for (int k = 0; k < 3; k++)
            for (int j = 0; j < patch * patch; j++)
                *rows++ = (from[j / patch * stride + j % patch * 3 + k] / 255 - c->mean[k]) / c->std[k];
    }
}

static gv_status no_memory(struct error *e, int height, int width)
{
    return gv_fail(e, GV_ERR_MEMORY, "no memory for a picture of %dx%d", width, height);
}

/* The picture as large as fits, in the middle of black. */
static gv_status fit(float *canvas, const struct anyres *a, const struct image *im, struct error *e)
{
    const double sx = (double)a->width / im->width, sy = (double)a->height / im->height;
    const int    w = sx < sy ? a->width : (int)fmin(ceil(im->width * sy), a->width),
              h = sx < sy ? (int)fmin(ceil(im->height * sx), a->height) : a->height, left = (a->width - w) / 2,
              top = (a->height - h) / 2;
    float    *small = malloc((size_t)h * (size_t)w * 3 * sizeof *small);
    gv_status status = small ? gv_image_resize(small, w, h, im, RESIZE_PIL_BICUBIC, e) : no_memory(e, h, w);
    for (int64_t y = 0; y < h && !status; y++)
        memcpy(canvas + ((y + top) * a->width + left) * 3, small + y * w * 3, (size_t)w * 3 * sizeof *small);
    free(small);
    return status;
}

gv_status gv_anyres_patches(const struct anyres_config *c, const struct anyres *a, const struct image *im, int patch,
                            float *rows, struct error *e)
{
    const int64_t tile = (int64_t)c->side * c->side * 3 * patch * patch, stride = (int64_t)a->width * 3;
    float        *canvas = calloc((size_t)a->height * (size_t)stride, sizeof *canvas);
    gv_status     status =
        canvas ? gv_image_resize(canvas, c->tile, c->tile, im, RESIZE_PIL_BICUBIC, e) : no_memory(e, a->height, a->width);
    if (!status) {
        cut_tile(c, canvas, (int64_t)c->tile * 3, patch, rows);
        memset(canvas, 0, (size_t)a->height * (size_t)stride * sizeof *canvas);
        status = fit(canvas, a, im, e);
    }
    for (int i = 0; i < a->rows * a->columns && !status; i++)
        cut_tile(c, canvas + i / a->columns * c->tile * stride + (int64_t)(i % a->columns) * c->tile * 3, stride, patch,
                 rows + (i + 1) * tile);
    free(canvas);
    return status;
}

static gv_status square(struct image *out, const struct anyres_config *c, const struct image *im, struct error *e)
{
    const int side = im->width > im->height ? im->width : im->height, left = (side - im->width) / 2,
              top = (side - im->height) / 2;
    TRY(gv_image_new(out, side, side, e));
    for (int64_t i = 0; i < (int64_t)side * side * 3; i++)
        out->rgb[i] = (uint8_t)(c->mean[i % 3] * 255);
    for (int64_t y = 0; y < im->height; y++)
        memcpy(out->rgb + ((y + top) * side + left) * 3, im->rgb + y * im->width * 3, (size_t)im->width * 3);
    return GV_OK;
}

gv_status gv_anyres_tile(const struct anyres_config *c, const struct image *im, enum anyres_fit how, int patch, float *rows,
                         struct error *e)
{
    struct image made = { 0 };
    float       *pixels = malloc((size_t)c->tile * (size_t)c->tile * 3 * sizeof *pixels);
    gv_status    status = pixels ? GV_OK : no_memory(e, c->tile, c->tile);
    if (!status && how == ANYRES_SQUARE)
        status = square(&made, c, im, e);
    if (!status)
        status = gv_image_resize(pixels, c->tile, c->tile, made.rgb ? &made : im,
                                 how == ANYRES_SQUARE ? RESIZE_PIL_BICUBIC : RESIZE_TORCH_BYTES, e);
    if (!status)
        cut_tile(c, pixels, (int64_t)c->tile * 3, patch, rows);
    gv_image_free(&made);
    free(pixels);
    return status;
}

/* ---- tokens ---- */

/* Where the tower's grid holds a token: of the tiles' grid without its padding, or of one tile. */
struct source {
    const float *x;
    int          side, columns, top, left;
    int64_t      D;
};

static const float *token_at(const struct source *s, int y, int x)
{
    const int     row = y + s->top, column = x + s->left;
    const int64_t tile = (int64_t)(row / s->side) * s->columns + column / s->side;
    return s->x + ((tile * s->side + row % s->side) * s->side + column % s->side) * s->D;
}

/* Output i of n from `in` values: between at and next, so much of the latter. */
struct between {
    int   at, next;
    float part;
};

static struct between between(int i, int n, int in)
{
    const float    scale = (float)in / (float)n, x = fmaxf(0, ((float)i + 0.5F) * scale - 0.5F);
    struct between b = { .at = (int)x };
    b.next = b.at + 1 < in ? b.at + 1 : b.at;
    b.part = x - (float)b.at;
    return b;
}

/* Row y of the grid out of h rows and w columns of the source; the same sizes copy. */
static void shrink_row(float *out, const struct source *s, int y, int grid_h, int grid_w, int h, int w)
{
    const struct between v = between(y, grid_h, h);
    for (int x = 0; x < grid_w; x++, out += s->D) {
        const struct between u = between(x, grid_w, w);
        const float         *a = token_at(s, v.at, u.at), *b = token_at(s, v.at, u.next), *c = token_at(s, v.next, u.at),
                    *d = token_at(s, v.next, u.next);
        for (int64_t k = 0; k < s->D; k++)
            out[k] = (1 - v.part) * ((1 - u.part) * a[k] + u.part * b[k]) + v.part * ((1 - u.part) * c[k] + u.part * d[k]);
    }
}

void gv_anyres_pack(float *out, const struct anyres_config *c, const struct anyres *a, const float *x, const float *newline,
                    int64_t D)
{
    const int64_t       base = (int64_t)c->side * c->side * D;
    const struct source s = { x + base, c->side, a->columns, a->top, a->left, D };
    memcpy(out, x, (size_t)base * sizeof *out);
    out += base;
    for (int y = 0; y < a->grid_h; y++, out += (a->grid_w + 1) * D) {
        shrink_row(out, &s, y, a->grid_h, a->grid_w, a->rows * c->side - 2 * a->top, a->columns * c->side - 2 * a->left);
        memcpy(out + a->grid_w * D, newline, (size_t)D * sizeof *out);
    }
}

void gv_anyres_pool(float *out, const struct anyres_config *c, const float *x, int64_t D)
{
    const struct source s = { x, c->side, 1, 0, 0, D };
    const int           half = (c->side + 1) / 2;
    for (int y = 0; y < half; y++, out += half * D)
        shrink_row(out, &s, y, half, half, c->side, c->side);
}
