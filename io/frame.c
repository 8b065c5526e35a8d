/* Pixels on the host: 8-bit pictures, float frames, resizing, and RGB to YUV.
 *
 * Why our own YUV. swscale's defaults use BT.601, lose a level of brightness at each 4:2:0 round trip and site chroma half a
 * pixel off what H.264 players assume. The exact values here are ratios of integers, so nothing is approximated:
 *
 *     Y  =  16 + 219 (0.2126 R + 0.7152 G + 0.0722 B) / 255  =  16 + (77599 R + 261048 G + 26353 B) / 425000
 *     Cb = 128 + 224 (B - Y') / 1.8556 / 255                 = 128 + (519568 B - 400512 G - 119056 R) / 1182945
 *     Cr = 128 + 224 (R - Y') / 1.5748 / 255                 = 128 + (440944 R - 400512 G -  40432 B) / 1003935
 *
 * in 32 bits, also when the chroma filter has summed eight pixels first, and rounded once, half up.
 *
 * Why three bicubics. Pipelines prepare pictures with Pillow (antialiased, a = -0.5, 8 bits between the two passes), with torch
 * on floats (not antialiased, a = -0.75) or with torch on bytes, as torchvision's resize does (antialiased, a = -0.5, 8 bits
 * between the passes, weights of 16 bits); models see the difference. All are followed to the last bit or nearly.
 *
 * Sources: ITU-R BT.709-6 §3; Pillow 13 src/libImaging/Resample.c; torch 2 aten/src/ATen/native/cpu/UpSampleKernel.cpp. */
#include "io/frame.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* ---- pictures and floats ---------------------------------------------------------------------------------------------- */

gv_status gv_image_new(struct image *im, int width, int height, struct error *e)
{
    size_t bytes;
    *im = (struct image){0};
    if (width < 1 || height < 1)
        return gv_fail(e, GV_ERR_ARGUMENT, "a picture of %d×%d pixels cannot be made", width, height);
    if (!gv_mul_size((size_t)width, (size_t)height, &bytes) || !gv_mul_size(bytes, 3, &bytes) ||
        !(im->rgb = calloc(bytes, 1)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a picture of %d×%d pixels", width, height);
    im->width  = width;
    im->height = height;
    return GV_OK;
}

void gv_image_free(struct image *im)
{
    if (!im)
        return;
    free(im->rgb);
    *im = (struct image){0};
}

void gv_pixels_from_float(uint8_t *rgb, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] * 127.5f + 128.0f;
        v       = v > 0.0f ? v : 0.0f; /* NaN too */
        v       = v < 255.0f ? v : 255.0f;
        rgb[i]  = (uint8_t)(int)v;
    }
}

void gv_pixels_to_float(float *x, const uint8_t *rgb, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = 2.0f * ((float)rgb[i] / 255.0f) - 1.0f; /* in diffusers' order, for the same last bit */
}

void gv_pixels16_from_float(uint16_t *rgb, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] * 32767.5f + 32768.0f;
        v = v > 0.0f ? v : 0.0f; /* NaN too */
        v = v < 65535.0f ? v : 65535.0f;
        rgb[i] = (uint16_t)(int)v;
    }
}

void gv_pixels16_from_8(uint16_t *wide, const uint8_t *rgb, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        wide[i] = (uint16_t)(rgb[i] * 257);
}

/* ---- resizing as Pillow does it --------------------------------------------------------------------------------------- */

enum { COEF_BITS = 22 }; /* 32 - 8 for the code - 2 for overshoot */

/* Output i of one axis is the sum over k < count[i] of weight[i * size + k] × input[first[i] + k], in units of 2^-bits. */
struct taps {
    int  size, bits;
    int *first, *count, *weight; /* one allocation, at first */
};

static double lanczos3(double x)
{
    if (x < -3.0 || x >= 3.0)
        return 0.0;
    if (x == 0.0)
        return 1.0;
    const double a = x * pi, b = x / 3.0 * pi;
    return sin(a) / a * (sin(b) / b);
}

static double bicubic(double x, double a)
{
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0)
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

/* w [size]: the weights, adding up to 1. */
static void taps_of_output(struct taps *t, double *w, int i, int in, double scale, enum resize_kind kind)
{
    const double stretch = scale > 1.0 ? scale : 1.0; /* the filter widens when the picture shrinks */
    const double support = (kind == RESIZE_LANCZOS ? 3.0 : 2.0) * stretch;
    const double centre  = ((double)i + 0.5) * scale;

    const double from  = centre - support + 0.5;
    const int    first = from < 0.0 ? 0 : (int)from;
    const double to    = centre + support + 0.5;
    const int    end   = to > (double)in ? in : (int)to;
    double       sum   = 0.0;
    for (int k = 0; k < end - first; k++) {
        const double x = ((double)(k + first) - centre + 0.5) * (1.0 / stretch);
        w[k]           = kind == RESIZE_LANCZOS ? lanczos3(x) : bicubic(x, -0.5);
        sum += w[k];
    }
    for (int k = 0; k < end - first && sum != 0.0; k++)
        w[k] /= sum;
    t->first[i] = first;
    t->count[i] = end - first;
}

/* torch: as many bits as leave the largest weight below 2^15. */
static int bits_of(const double *w, int64_t n)
{
    double most = 0.0;
    int    bits = 0;
    for (int64_t i = 0; i < n; i++)
        most = w[i] > most ? w[i] : most;
    while (bits < COEF_BITS && 0.5 + most * (double)(2 << bits) < 32768.0)
        bits++;
    return bits;
}

static gv_status taps_build(struct taps *t, int in, int out, enum resize_kind kind, struct error *e)
{
    const double scale   = (double)in / (double)out;
    const double support = (kind == RESIZE_LANCZOS ? 3.0 : 2.0) * (scale > 1.0 ? scale : 1.0);
    double      *w = NULL; /* [out, size] */
    size_t       bytes;
    t->size = (int)ceil(support) * 2 + 1;
    if (!gv_mul_size((size_t)out, (size_t)t->size + 2, &bytes) || !gv_mul_size(bytes, sizeof *w, &bytes) ||
        !(t->first = malloc(bytes)) || !(w = calloc(bytes, 1))) {
        free(t->first);
        t->first = NULL;
        return gv_fail(e, GV_ERR_MEMORY, "no memory to resize from %d to %d pixels", in, out);
    }
    const int64_t n = (int64_t)out * t->size;
    t->count = t->first + out;
    t->weight = t->count + out;
    for (int i = 0; i < out; i++)
        taps_of_output(t, w + (int64_t)i * t->size, i, in, scale, kind);
    t->bits = kind == RESIZE_TORCH_BYTES ? bits_of(w, n) : COEF_BITS;
    for (int64_t i = 0; i < n; i++) {
        const double v = w[i] * (double)(1 << t->bits);
        t->weight[i] = (int)(v < 0.0 ? v - 0.5 : v + 0.5);
    }
    free(w);
    return GV_OK;
}

static uint8_t from_fixed(int sum, int bits)
{
    const int v = sum >> bits;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void resize_rows(uint8_t *dst, int out, const uint8_t *src, int in, int height, const struct taps *t)
{
    const int half = 1 << t->bits >> 1;
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < out; x++) {
            const uint8_t *p    = src + (y * in + t->first[x]) * 3;
            const int     *w    = t->weight + x * t->size;
            int            c[3] = { half, half, half };
            for (int k = 0; k < t->count[x]; k++, p += 3)
                for (int i = 0; i < 3; i++)
                    c[i] += p[i] * w[k];
            for (int i = 0; i < 3; i++)
                dst[(y * out + x) * 3 + i] = from_fixed(c[i], t->bits);
        }
}

static void resize_columns(uint8_t *dst, int out, const uint8_t *src, int width, const struct taps *t)
{
    const int64_t row = (int64_t)width * 3;
    for (int64_t y = 0; y < out; y++)
        for (int64_t x = 0; x < row; x++) {
            const uint8_t *p   = src + t->first[y] * row + x;
            const int     *w   = t->weight + y * t->size;
            int            sum = 1 << t->bits >> 1;
            for (int k = 0; k < t->count[y]; k++)
                sum += p[k * row] * w[k];
            dst[y * row + x] = from_fixed(sum, t->bits);
        }
}

/* One axis to a new size; out is new. */
static gv_status resize_pass(struct image *out, const struct image *in, int size, bool across, enum resize_kind kind,
                             struct error *e)
{
    struct taps t = {0};
    TRY(gv_image_new(out, across ? size : in->width, across ? in->height : size, e));
    TRY(taps_build(&t, across ? in->width : in->height, size, kind, e));
    if (across)
        resize_rows(out->rgb, size, in->rgb, in->width, in->height, &t);
    else
        resize_columns(out->rgb, size, in->rgb, in->width, &t);
    free(t.first);
    return GV_OK;
}

/* One axis after the other, each rounded to 8 bits; an axis that keeps its size is left alone. Which comes first shows in the
 * codes: across, but down where that takes away more than twice as many rows as columns go (Pillow 13; before, and torch:
 * across). */
static gv_status resize_bytes(float *dst, int width, int height, const struct image *src, enum resize_kind kind,
                              struct error *e)
{
    const int64_t       lost = (int64_t)src->height - height;
    const bool          down_first = kind != RESIZE_TORCH_BYTES && lost > 0 && lost > 2 * ((int64_t)src->width - width);
    struct image        pass[2] = {{0}, {0}};
    const struct image *from    = src;
    gv_status           st      = GV_OK;
    for (int i = 0; i < 2 && st == GV_OK; i++) {
        const bool across = (i == 0) != down_first;
        const int  size   = across ? width : height;
        if (size == (across ? from->width : from->height))
            continue;
        st   = resize_pass(&pass[i], from, size, across, kind, e);
        from = &pass[i];
    }
    if (st == GV_OK)
        for (int64_t i = 0; i < (int64_t)width * height * 3; i++)
            dst[i] = (float)from->rgb[i];
    gv_image_free(&pass[0]);
    gv_image_free(&pass[1]);
    return st;
}

/* ---- resizing as torch does it with floats ----------------------------------------------------------------------------- */

struct cubic {
    int   at[4]; /* clamped to the picture; the weights stay as they are */
    float w[4];
};

/* In float throughout: torch finds the source position in float, which shows on wide pictures. */
static struct cubic cubic_at(int i, int in, float scale)
{
    const float  x    = scale * ((float)i + 0.5f) - 0.5f;
    const float  base = floorf(x);
    const double t    = (double)(x - base);
    struct cubic c;
    for (int k = 0; k < 4; k++) {
        const int at = (int)base + k - 1;
        c.at[k]      = at < 0 ? 0 : at >= in ? in - 1 : at;
        c.w[k]       = (float)bicubic(t - (double)(k - 1), -0.75);
    }
    return c;
}

static gv_status resize_torch(float *dst, int width, int height, const struct image *src, struct error *e)
{
    const float   sx = (float)src->width / (float)width, sy = (float)src->height / (float)height;
    const int64_t row = (int64_t)width * 3;
    size_t        bytes;
    float        *mid = NULL; /* [src.height, width, 3] */
    if (!gv_mul_size((size_t)row * sizeof *mid, (size_t)src->height, &bytes) || !(mid = malloc(bytes)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory to resize a picture to %d×%d", width, height);
    for (int x = 0; x < width; x++) {
        const struct cubic c = cubic_at(x, src->width, sx);
        for (int64_t y = 0; y < src->height; y++)
            for (int i = 0; i < 3; i++) {
                const uint8_t *p           = src->rgb + y * src->width * 3 + i;
                mid[y * row + x * 3 + i] = (float)p[c.at[0] * 3] * c.w[0] + (float)p[c.at[1] * 3] * c.w[1] +
                                           (float)p[c.at[2] * 3] * c.w[2] + (float)p[c.at[3] * 3] * c.w[3];
            }
    }
    for (int y = 0; y < height; y++) {
        const struct cubic c = cubic_at(y, src->height, sy);
        for (int64_t x = 0; x < row; x++)
            dst[y * row + x] = mid[c.at[0] * row + x] * c.w[0] + mid[c.at[1] * row + x] * c.w[1] +
                               mid[c.at[2] * row + x] * c.w[2] + mid[c.at[3] * row + x] * c.w[3];
    }
    free(mid);
    return GV_OK;
}

gv_status gv_image_resize(float *dst, int width, int height, const struct image *src, enum resize_kind kind, struct error *e)
{
    if (width < 1 || height < 1 || src->width < 1 || src->height < 1)
        return gv_fail(e, GV_ERR_ARGUMENT, "cannot resize a picture of %d×%d to %d×%d", src->width, src->height, width,
                       height);
    if (kind == RESIZE_TORCH_BICUBIC)
        return resize_torch(dst, width, height, src, e);
    return resize_bytes(dst, width, height, src, kind, e);
}

/* ---- RGB to YUV ------------------------------------------------------------------------------------------------------- */

enum { Y_DEN = 425000, CB_DEN = 1182945, CR_DEN = 1003935 };

static inline uint8_t luma(uint32_t r, uint32_t g, uint32_t b)
{
    return (uint8_t)(16u + (77599u * r + 261048u * g + 26353u * b + Y_DEN / 2) / Y_DEN);
}

/* r, g, b are sums over pixels with weights that add up to n (1 or 8). Unsigned: the terms below zero wrap and come back,
 * and 128 D n + D n / 2 + 519568 · 255 n < 2^32 for n = 8. */
static inline uint8_t chroma_b(uint32_t r, uint32_t g, uint32_t b, uint32_t n)
{
    return (uint8_t)((128u * CB_DEN * n + CB_DEN * n / 2 + 519568u * b - 400512u * g - 119056u * r) / (CB_DEN * n));
}

static inline uint8_t chroma_r(uint32_t r, uint32_t g, uint32_t b, uint32_t n)
{
    return (uint8_t)((128u * CR_DEN * n + CR_DEN * n / 2 + 440944u * r - 400512u * g - 40432u * b) / (CR_DEN * n));
}

static void luma_row(uint8_t *restrict y, const uint8_t *restrict rgb, int width)
{
    for (int x = 0; x < width; x++)
        y[x] = luma(rgb[3 * x], rgb[3 * x + 1], rgb[3 * x + 2]);
}

static void chroma_row_444(uint8_t *restrict u, uint8_t *restrict v, const uint8_t *restrict rgb, int width)
{
    for (int x = 0; x < width; x++) {
        u[x] = chroma_b(rgb[3 * x], rgb[3 * x + 1], rgb[3 * x + 2], 1);
        v[x] = chroma_r(rgb[3 * x], rgb[3 * x + 1], rgb[3 * x + 2], 1);
    }
}

/* One row of chroma from rows a and b; sample i sits on column 2i. Columns beyond the picture repeat its edge. */
static void chroma_row_420(uint8_t *restrict u, uint8_t *restrict v, const uint8_t *a, const uint8_t *b, int width)
{
    for (int i = 0; 2 * i < width; i++) {
        const int l = i > 0 ? 6 * i - 3 : 0, m = 6 * i, r = 2 * i + 1 < width ? 6 * i + 3 : 6 * i;
        uint32_t  c[3];
        for (int k = 0; k < 3; k++)
            c[k] = (uint32_t)(a[l + k] + b[l + k] + 2 * (a[m + k] + b[m + k]) + a[r + k] + b[r + k]);
        u[i] = chroma_b(c[0], c[1], c[2], 8);
        v[i] = chroma_r(c[0], c[1], c[2], 8);
    }
}

void gv_yuv_from_rgb(uint8_t *y, ptrdiff_t y_stride, uint8_t *u, uint8_t *v, ptrdiff_t uv_stride, const uint8_t *rgb,
                     int width, int height, enum yuv_kind kind)
{
    const ptrdiff_t row = (ptrdiff_t)width * 3;
    for (ptrdiff_t j = 0; j < height; j++)
        luma_row(y + j * y_stride, rgb + j * row, width);
    if (kind == YUV_444) {
        for (ptrdiff_t j = 0; j < height; j++)
            chroma_row_444(u + j * uv_stride, v + j * uv_stride, rgb + j * row, width);
        return;
    }
    for (ptrdiff_t j = 0; 2 * j < height; j++) {
        const uint8_t *a = rgb + 2 * j * row, *b = 2 * j + 1 < height ? a + row : a;
        chroma_row_420(u + j * uv_stride, v + j * uv_stride, a, b, width);
    }
}

/* ---- in 10 bits -------------------------------------------------------------------------------------------------------- */

/* c: sums of R, G, B over pixels whose weights add up to n. The ratios of above with 4 times the range, over 65535:
 * Y = 64 + 876 (1063 R + 3576 G + 361 B) / 5000 / 65535, Cb = 512 + 1792 (4639 B - 1063 R - 3576 G) / 18556 / 65535,
 * Cr = 512 + 1792 (3937 R - 3576 G - 361 B) / 15748 / 65535. Numerators are kept positive for the division. */
static inline uint16_t ratio10(int64_t offset, int64_t num, int64_t den)
{
    return (uint16_t)((2 * (offset * den + num) + den) / (2 * den));
}

static inline uint16_t luma10(const int64_t c[3])
{
    return ratio10(64, 876 * (1063 * c[0] + 3576 * c[1] + 361 * c[2]), (int64_t)5000 * 65535);
}

static inline uint16_t chroma10_b(const int64_t c[3], int64_t n)
{
    return ratio10(512, 1792 * (4639 * c[2] - 1063 * c[0] - 3576 * c[1]), 18556 * 65535 * n);
}

static inline uint16_t chroma10_r(const int64_t c[3], int64_t n)
{
    return ratio10(512, 1792 * (3937 * c[0] - 3576 * c[1] - 361 * c[2]), 15748 * 65535 * n);
}

static void luma_row10(uint16_t *y, const uint16_t *rgb, int width)
{
    for (int x = 0; x < width; x++)
        y[x] = luma10((const int64_t[3]){ rgb[3 * x], rgb[3 * x + 1], rgb[3 * x + 2] });
}

/* One row of chroma from rows a and b (the same row where only columns are halved). */
static void chroma_row10(uint16_t *u, uint16_t *v, const uint16_t *a, const uint16_t *b, int width, bool half)
{
    for (int i = 0; (half ? 2 * i : i) < width; i++) {
        const int m = half ? 6 * i : 3 * i, l = half && i > 0 ? m - 3 : m, r = half && 2 * i + 1 < width ? m + 3 : m;
        int64_t   c[3];
        for (int k = 0; k < 3; k++)
            c[k] = (int64_t)a[l + k] + b[l + k] + 2 * ((int64_t)a[m + k] + b[m + k]) + a[r + k] + b[r + k];
        u[i] = chroma10_b(c, 8);
        v[i] = chroma10_r(c, 8);
    }
}

void gv_yuv10_from_rgb16(const struct planes10 *dst, const uint16_t *rgb, int width, int height, enum yuv_kind kind)
{
    const ptrdiff_t row = (ptrdiff_t)width * 3, step = kind == YUV_420 ? 2 : 1;
    for (ptrdiff_t j = 0; j < height; j++)
        luma_row10(dst->plane[0] + j * dst->stride[0], rgb + j * row, width);
    for (ptrdiff_t j = 0; step * j < height; j++) {
        const uint16_t *a = rgb + step * j * row, *b = kind == YUV_420 && 2 * j + 1 < height ? a + row : a;
        chroma_row10(dst->plane[1] + j * dst->stride[1], dst->plane[2] + j * dst->stride[2], a, b, width, kind != YUV_444);
    }
}
