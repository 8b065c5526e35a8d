/* Frames of libav to RGB in our own arithmetic: any planar, packed or paletted format to 16 bits, either siting of chroma. Not
 * swscale, whose defaults are wrong in five ways (see frame.c).
 *
 * Surprise: HLG is read as if it were SDR, which it is made for; PQ is refused.
 *
 * Sources: ITU-T H.273 for the matrices; FFmpeg 5.1 to 9 headers. */
#include "io/libav.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>

#include "io/image.h"

/* R = y + rv v;  G = y + gu u + gv v;  B = y + bu u, of Y in [0, 1] and chroma in [-1/2, 1/2]. */
struct matrix {
    float rv, gu, gv, bu;
};

static struct matrix matrix_of(double kr, double kb)
{
    const double kg = 1.0 - kr - kb, cr = 2.0 * (1.0 - kr), cb = 2.0 * (1.0 - kb);
    return (struct matrix){ (float)cr, (float)(-cb * kb / kg), (float)(-cr * kr / kg), (float)cb };
}

static gv_status matrix_find(struct matrix *out, const AVFrame *f, bool still, const char *path, struct error *e)
{
    switch (f->colorspace) {
    case AVCOL_SPC_BT709: *out = matrix_of(0.2126, 0.0722); return GV_OK;
    case AVCOL_SPC_FCC: *out = matrix_of(0.30, 0.11); return GV_OK;
    case AVCOL_SPC_BT470BG:
    case AVCOL_SPC_SMPTE170M: *out = matrix_of(0.299, 0.114); return GV_OK;
    case AVCOL_SPC_SMPTE240M: *out = matrix_of(0.212, 0.087); return GV_OK;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL: *out = matrix_of(0.2627, 0.0593); return GV_OK;
    case AVCOL_SPC_UNSPECIFIED: { /* the common guess */
        const bool hd = !still && (f->height >= 720 || f->width >= 1280);
        *out = hd ? matrix_of(0.2126, 0.0722) : matrix_of(0.299, 0.114);
        return GV_OK;
    }
    default:
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s has the colour matrix %d of H.273, which cannot be read", path,
                       (int)f->colorspace);
    }
}

/* Where chroma sample 0 sits, in pixels from pixel 0; sx, sy: log2 of the subsampling. */
static void siting(const AVFrame *f, bool centred, int sx, int sy, float *x, float *y)
{
    const enum AVChromaLocation at = f->chroma_location;
    const float                 mid_x = (float)((1 << sx) - 1) / 2.0f, mid_y = (float)((1 << sy) - 1) / 2.0f;
    const bool                  top = at == AVCHROMA_LOC_TOPLEFT || at == AVCHROMA_LOC_TOP;
    const bool                  bottom = at == AVCHROMA_LOC_BOTTOMLEFT || at == AVCHROMA_LOC_BOTTOM;
    const bool                  unknown = at == AVCHROMA_LOC_UNSPECIFIED;
    const bool                  left =
        at == AVCHROMA_LOC_LEFT || at == AVCHROMA_LOC_TOPLEFT || at == AVCHROMA_LOC_BOTTOMLEFT || (unknown && !centred);
    *x = left ? 0.0f : mid_x;
    *y = top ? 0.0f : bottom ? 2.0f * mid_y : mid_y;
}

static bool full_range(const AVFrame *f, bool otherwise)
{
    switch (f->format) {
    case AV_PIX_FMT_YUVJ411P:
    case AV_PIX_FMT_YUVJ420P:
    case AV_PIX_FMT_YUVJ422P:
    case AV_PIX_FMT_YUVJ440P:
    case AV_PIX_FMT_YUVJ444P: return true;
    default: return f->color_range == AVCOL_RANGE_JPEG || (f->color_range == AVCOL_RANGE_UNSPECIFIED && otherwise);
    }
}

/* One frame as rows of float. Planes of ch[]: R G B or Y U V, then alpha. */
struct rows {
    const AVFrame            *f;
    const AVPixFmtDescriptor *d;
    bool                      rgb, full;
    int                       colours, alpha; /* components of colour, 1 or 3; index of alpha or -1 */
    struct matrix             m;
    float                     site_x, site_y;
    uint16_t                 *line;         /* [width] */
    float                    *ch[4], *half; /* [width] each; half: chroma rows mixed, before they are widened */
};

static bool format_readable(const AVPixFmtDescriptor *d)
{
    const uint64_t no = AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_FLOAT | AV_PIX_FMT_FLAG_BAYER;
    if (!d || d->flags & no || !d->nb_components || !strncmp(d->name, "xyz", 3))
        return false;
    for (int i = 0; i < d->nb_components; i++)
        if (d->comp[i].depth < 1 || d->comp[i].depth > 16)
            return false;
    return true;
}

static gv_status rows_open(struct rows *r, const AVFrame *f, bool still, bool centred, const char *path, struct error *e)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get((enum AVPixelFormat)f->format);
    if (!format_readable(d))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s holds pixels of the format %s, which cannot be read", path,
                       d ? d->name : "none");
    if (f->color_trc == AVCOL_TRC_SMPTE2084)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is HDR with the PQ curve; convert it to SDR (BT.709) first", path);
    const bool has_alpha = (d->flags & AV_PIX_FMT_FLAG_ALPHA) != 0;
    r->f = f;
    r->d = d;
    r->rgb = (d->flags & AV_PIX_FMT_FLAG_RGB) != 0;
    r->colours = d->nb_components - has_alpha == 1 ? 1 : 3;
    r->alpha = has_alpha ? d->nb_components - 1 : -1;
    r->full = full_range(f, r->rgb || (still && r->colours == 1));
    if (!r->rgb && r->colours == 3)
        TRY(matrix_find(&r->m, f, still, path, e));
    siting(f, centred, d->log2_chroma_w, d->log2_chroma_h, &r->site_x, &r->site_y);

    const size_t w = (size_t)f->width;
    r->line = malloc(w * sizeof *r->line);
    r->ch[0] = malloc(5 * w * sizeof *r->ch[0]);
    if (!r->line || !r->ch[0])
        return gv_av_no_memory(e, path);
    for (int i = 1; i < 4; i++)
        r->ch[i] = r->ch[i - 1] + w;
    r->half = r->ch[3] + w;
    return GV_OK;
}

static void rows_close(struct rows *r)
{
    free(r->line);
    free(r->ch[0]);
}

/* Component c of row y into r->line. */
static void row_codes(struct rows *r, int c, int y, int width)
{
    const uint8_t *planes[4] = { r->f->data[0], r->f->data[1], r->f->data[2], r->f->data[3] };
    av_read_image_line2(r->line, planes, r->f->linesize, r->d, 0, y, c, width, 0, 2);
}

/* v = code × gain + bias gives [0, 1], or [-1/2, 1/2] for chroma. */
static void scale_of(const struct rows *r, int c, bool chroma, float *gain, float *bias)
{
    const int   depth = r->d->comp[c].depth;
    const float top = (float)((1 << depth) - 1), unit = depth >= 8 ? (float)(1 << (depth - 8)) : 1.0f;
    if (r->full || c == r->alpha || depth < 8) {
        *gain = 1.0f / top;
        *bias = chroma ? -(float)(1 << (depth - 1)) / top : 0.0f;
    } else {
        *gain = 1.0f / ((chroma ? 224.0f : 219.0f) * unit);
        *bias = chroma ? -128.0f / 224.0f : -16.0f / 219.0f;
    }
}

static void row_plain(struct rows *r, float *dst, int c, int y)
{
    float gain, bias;
    scale_of(r, c, false, &gain, &bias);
    row_codes(r, c, y, r->f->width);
    for (int x = 0; x < r->f->width; x++)
        dst[x] = (float)r->line[x] * gain + bias;
}

/* Chroma at each pixel of row y: linear between the samples around it, in both directions. */
static void row_chroma(struct rows *r, float *dst, int c, int y)
{
    const int   sx = r->d->log2_chroma_w, sy = r->d->log2_chroma_h;
    const int   w = AV_CEIL_RSHIFT(r->f->width, sx), h = AV_CEIL_RSHIFT(r->f->height, sy);
    const float at = ((float)y - r->site_y) / (float)(1 << sy), base = floorf(at), t = at - base;
    const int   y0 = (int)base, rows[2] = { av_clip(y0, 0, h - 1), av_clip(y0 + 1, 0, h - 1) };
    float       gain, bias;
    scale_of(r, c, true, &gain, &bias);
    for (int i = 0; i < 2; i++) {
        const float part = i ? t : 1.0f - t;
        row_codes(r, c, rows[i], w);
        for (int x = 0; x < w; x++)
            r->half[x] = (i ? r->half[x] : 0.0f) + part * ((float)r->line[x] * gain + bias);
    }
    for (int x = 0; x < r->f->width; x++) {
        const float ax = ((float)x - r->site_x) / (float)(1 << sx), bx = floorf(ax), tx = ax - bx;
        const int   x0 = (int)bx;
        dst[x] = (1.0f - tx) * r->half[av_clip(x0, 0, w - 1)] + tx * r->half[av_clip(x0 + 1, 0, w - 1)];
    }
}

static uint8_t code_of(float v)
{
    v = v * 255.0f + 0.5f;
    return (uint8_t)(v <= 0.0f ? 0.0f : v >= 255.0f ? 255.0f : v);
}

static void row_rgb(struct rows *r, uint8_t *rgb, int y)
{
    const bool invert = r->f->format == AV_PIX_FMT_MONOWHITE;
    const int  colours = r->colours;
    for (int c = 0; c < colours; c++)
        if (c == 0 || r->rgb)
            row_plain(r, r->ch[c], c, y);
        else
            row_chroma(r, r->ch[c], c, y);
    if (r->alpha >= 0)
        row_plain(r, r->ch[3], r->alpha, y);
    for (int x = 0; x < r->f->width; x++) {
        const float a = r->ch[0][x], u = r->ch[1][x], v = r->ch[2][x];
        float       p[3] = { a, a, a };
        if (colours == 3 && r->rgb) {
            p[1] = u;
            p[2] = v;
        } else if (colours == 3) {
            p[0] = a + r->m.rv * v;
            p[1] = a + r->m.gu * u + r->m.gv * v;
            p[2] = a + r->m.bu * u;
        }
        for (int i = 0; i < 3; i++) {
            const float q = invert ? 1.0f - p[i] : p[i], o = r->alpha >= 0 ? r->ch[3][x] : 1.0f;
            rgb[3 * x + i] = code_of(q * o + 1.0f - o);
        }
    }
}

/* A palette is native-endian 0xAARRGGBB. */
static void row_palette(const AVFrame *f, uint8_t *rgb, int y)
{
    const uint8_t *index = f->data[0] + (ptrdiff_t)y * f->linesize[0];
    for (int x = 0; x < f->width; x++) {
        uint32_t v;
        memcpy(&v, f->data[1] + 4 * (size_t)index[x], sizeof v);
        const int a = (int)(v >> 24);
        for (int i = 0; i < 3; i++)
            rgb[3 * x + i] = (uint8_t)(((int)(v >> (16 - 8 * i) & 255) * a + 255 * (255 - a) + 127) / 255);
    }
}

gv_status gv_av_image(struct image *im, const AVFrame *f, bool still, bool centred, const char *path, struct error *e)
{
    if (f->width < 1 || f->height < 1 || f->width > GV_IMAGE_SIDE || f->height > GV_IMAGE_SIDE ||
        (int64_t)f->width * f->height > GV_IMAGE_PIXELS)
        return gv_fail(e, GV_ERR_FORMAT, "%s claims %d×%d pixels; the limit is %d a side and %d in all", path, f->width,
                       f->height, GV_IMAGE_SIDE, GV_IMAGE_PIXELS);
    TRY(gv_image_new(im, f->width, f->height, e));
    const ptrdiff_t stride = (ptrdiff_t)f->width * 3;
    if (f->format == AV_PIX_FMT_PAL8) {
        for (int y = 0; y < f->height; y++)
            row_palette(f, im->rgb + y * stride, y);
        return GV_OK;
    }
    struct rows     r = { 0 };
    const gv_status st = rows_open(&r, f, still, centred, path, e);
    for (int y = 0; st == GV_OK && y < f->height; y++)
        row_rgb(&r, im->rgb + y * stride, y);
    rows_close(&r);
    return st;
}

/* Stretched, never shrunk, along the axis whose pixels are longer. */
gv_status gv_av_square_pixels(struct image *im, AVRational sar, const char *path, struct error *e)
{
    if (sar.num <= 0 || sar.den <= 0 || sar.num == sar.den)
        return GV_OK;
    const double ratio = (double)sar.num / (double)sar.den;
    const double width = round(ratio > 1.0 ? im->width * ratio : im->width);
    const double height = round(ratio > 1.0 ? im->height : im->height / ratio);
    if (width > GV_IMAGE_SIDE || height > GV_IMAGE_SIDE || width * height > GV_IMAGE_PIXELS)
        return gv_fail(e, GV_ERR_FORMAT, "%s has pixels of %d:%d, which makes it %.0f×%.0f; the limit is %d a side", path,
                       sar.num, sar.den, width, height, GV_IMAGE_SIDE);
    struct image out = { 0 };
    const size_t n = (size_t)width * (size_t)height * 3;
    float       *wide = malloc(n * sizeof *wide);
    gv_status    st = wide ? gv_image_new(&out, (int)width, (int)height, e) : gv_av_no_memory(e, path);
    if (st == GV_OK)
        st = gv_image_resize(wide, out.width, out.height, im, RESIZE_LANCZOS, e);
    for (size_t i = 0; st == GV_OK && i < n; i++)
        out.rgb[i] = (uint8_t)wide[i];
    free(wide);
    if (st != GV_OK) {
        gv_image_free(&out);
        return st;
    }
    gv_image_free(im);
    *im = out;
    return GV_OK;
}
