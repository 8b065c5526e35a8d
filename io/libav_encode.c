/* The encoders, and how each is asked for what it does well: one row of a table a codec, in 8 or 10 bits. Planes come from our
 * own RGB to YUV (frame.c). BT.709 limited range and left-sited chroma are tagged on the codec context and on each frame;
 * FFV1 and GIF keep RGB itself, FFV1 to the last bit.
 *
 * Surprises:
 * - The same frames may give files of other bytes: x264 (0.164 at least) reads memory it has not written in its macroblock tree,
 *   which moves bits about. mbtree=0 would be stable and 40% larger.
 * - x264's crf 0 in 8 bits is lossless and needs the profile High 4:4:4 Predictive, which browsers do not play: logged.
 * - Where chroma is halved there are no odd sizes: the last column or row is repeated, and logged.
 * - HEVC carries the mark hvc1 in MP4 and MOV: players of Apple's refuse the muxer's own, hev1.
 * - SVT-AV1 writes to stderr and cannot be told not to by a library, so it is asked after libaom and rav1e.
 * - GIF counts in 1/100 s, and each frame brings the 256 colours that suit it best (palette.c).
 *
 * Sources: FFmpeg 5.1 to 9 headers, doc/codecs.texi and doc/encoders.texi; Apple's ProRes white paper for its depth. */
#include "io/libav_encode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

#include "io/palette.h"
#include "io/sink_kind.h"

struct av_codec {
    const char        *name, *title;
    const char        *encoders[3];        /* in the order of preference */
    enum AVPixelFormat format[2];          /* in 8 bits, in 10 bits; NONE = not so */
    int                best, worst, usual; /* of crf; worst 0: it has none */
    bool               intra, presets;
    unsigned           tag;
    void (*tune)(AVCodecContext *c, AVDictionary **o, bool deep);
};

static void tune_h264(AVCodecContext *c, AVDictionary **o, bool deep)
{
    const AVDictionaryEntry *crf = av_dict_get(*o, "crf", NULL, 0);
    (void)c;
    if (deep || strcmp(crf->value, "0"))
        av_dict_set(o, "profile", deep ? "high10" : "high", 0);
}

static void tune_hevc(AVCodecContext *c, AVDictionary **o, bool deep)
{
    (void)c, (void)deep;
    av_dict_set(o, "x265-params", "log-level=none", 0);
}

static void tune_av1(AVCodecContext *c, AVDictionary **o, bool deep)
{
    (void)deep;
    c->bit_rate = 0; /* or crf is a ceiling for it */
    if (!strcmp(c->codec->name, "libaom-av1")) {
        av_dict_set(o, "cpu-used", "6", 0);
        av_dict_set(o, "row-mt", "1", 0);
    } else if (!strcmp(c->codec->name, "librav1e")) {
        const AVDictionaryEntry *crf = av_dict_get(*o, "crf", NULL, 0);
        av_dict_set_int(o, "qp", 4 * atoi(crf->value), 0);
        av_dict_set(o, "crf", NULL, 0);
        av_dict_set(o, "speed", "8", 0);
    } else {
        av_dict_set(o, "preset", "8", 0);
    }
}

static void tune_vp9(AVCodecContext *c, AVDictionary **o, bool deep)
{
    c->bit_rate = 0;
    c->profile = deep ? 2 : 0;
    av_dict_set(o, "deadline", "good", 0);
    av_dict_set(o, "cpu-used", "2", 0);
    av_dict_set(o, "row-mt", "1", 0);
}

static void tune_ffv1(AVCodecContext *c, AVDictionary **o, bool deep)
{
    (void)deep;
    c->level = 3;
    c->slices = c->width >= 16 && c->height >= 16 ? 4 : 1; /* fewer rows than slices are lost */
    av_dict_set(o, "slicecrc", "1", 0);
}

static void tune_prores(AVCodecContext *c, AVDictionary **o, bool deep)
{
    (void)c, (void)deep;
    av_dict_set(o, "profile", "hq", 0);
    av_dict_set(o, "vendor", "apl0", 0);
}

static void tune_gif(AVCodecContext *c, AVDictionary **o, bool deep)
{
    (void)deep, (void)o;
    c->time_base = (AVRational){ 1, 100 };
}

#define NO_FORMAT AV_PIX_FMT_NONE
/* clang-format off */
static const struct av_codec codecs[] = {
    { "h264", "H.264", { "libx264" }, { AV_PIX_FMT_YUV420P, AV_PIX_FMT_YUV420P10 }, 0, 51, 18, false, true, 0, tune_h264 },
    { "hevc", "HEVC", { "libx265" }, { AV_PIX_FMT_YUV420P, AV_PIX_FMT_YUV420P10 }, 0, 51, 20, false, true,
      MKTAG('h', 'v', 'c', '1'), tune_hevc },
    { "av1", "AV1", { "libaom-av1", "librav1e", "libsvtav1" }, { AV_PIX_FMT_YUV420P, AV_PIX_FMT_YUV420P10 }, 0, 63, 24, false,
      false, 0, tune_av1 },
    { "vp9", "VP9", { "libvpx-vp9" }, { AV_PIX_FMT_YUV420P, AV_PIX_FMT_YUV420P10 }, 0, 63, 24, false, false, 0, tune_vp9 },
    { "ffv1", "FFV1", { "ffv1" }, { AV_PIX_FMT_0RGB32, AV_PIX_FMT_GBRP10 }, 0, 0, 0, true, false, 0, tune_ffv1 },
    { "prores", "ProRes", { "prores_ks" }, { NO_FORMAT, AV_PIX_FMT_YUV422P10 }, 0, 0, 0, true, false, 0, tune_prores },
    { "gif", "GIF", { "gif" }, { AV_PIX_FMT_PAL8, NO_FORMAT }, 0, 0, 0, false, false, 0, tune_gif },
};
/* clang-format on */
enum { CODECS = sizeof codecs / sizeof *codecs };

static const char *const presets[] = { "ultrafast", "superfast", "veryfast", "faster",   "fast",
                                       "medium",    "slow",      "slower",   "veryslow", "placebo" };

/* ---- which ------------------------------------------------------------------------------------------------------------ */

static bool has(const char *names, const char *name)
{
    const size_t n = strlen(name);
    for (const char *p = strstr(names, name); p; p = strstr(p + 1, name))
        if ((p == names || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
            return true;
    return false;
}

static const AVCodec *encoder_of(const struct av_codec *c, int which)
{
    return which < 3 && c->encoders[which] ? avcodec_find_encoder_by_name(c->encoders[which]) : NULL;
}

static bool can_encode(const struct av_codec *c)
{
    return encoder_of(c, 0) || encoder_of(c, 1) || encoder_of(c, 2);
}

static const struct av_codec *by_name(const char *name, size_t length)
{
    for (int i = 0; i < CODECS; i++)
        if (strlen(codecs[i].name) == length && !strncmp(codecs[i].name, name, length))
            return &codecs[i];
    return NULL;
}

/* The next of names from *at on that can be encoded; NULL at the end. */
static const struct av_codec *next_of(const char **at)
{
    while (**at) {
        const size_t           n = strcspn(*at, " ");
        const struct av_codec *c = by_name(*at, n);
        *at += n + ((*at)[n] == ' ');
        if (c && can_encode(c))
            return c;
    }
    return NULL;
}

void gv_av_codec_list(char *text, size_t room, const char *names)
{
    size_t used = 0;
    text[0] = '\0';
    for (const struct av_codec *c = next_of(&names); c && used < room; c = next_of(&names))
        used += (size_t)snprintf(text + used, room - used, "%s%s", used ? ", " : "", c->name);
}

unsigned gv_av_codec_tag(const struct av_codec *c)
{
    return c->tag;
}

gv_status gv_av_codec_find(const struct av_codec **out, const char *name, const char *names, const char *path, struct error *e)
{
    char list[128];
    gv_av_codec_list(list, sizeof list, names);
    if (!name || !name[0]) {
        if ((*out = next_of(&names)))
            return GV_OK;
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s: this libav has no encoder for any of %s; y4m, rgb and png need none", path,
                       names);
    }
    const struct av_codec *c = by_name(name, strlen(name));
    if (!c)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: there is no codec called \"%.32s\"; this container takes %s", path, name, list);
    if (!has(names, c->name))
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: this container does not take %s; it takes %s", path, c->title, list);
    if (!can_encode(c))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s: this libav has no encoder for %s (%s%s%s); it has %s", path, c->title,
                       c->encoders[0], c->encoders[1] ? ", " : "", c->encoders[1] ? c->encoders[1] : "", list);
    *out = c;
    return GV_OK;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static gv_status check_params(const struct av_codec *k, const struct sink_params *p, struct error *e)
{
    if (p->bits && p->bits != 8 && p->bits != 10)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %d bits are not possible; 8 and 10 are", p->path, p->bits);
    if (p->bits && k->format[p->bits == 10] == AV_PIX_FMT_NONE)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %s is written in %d bits alone", p->path, k->title, p->bits == 10 ? 8 : 10);
    if (p->crf >= 0 && !k->worst)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %s has no crf", p->path, k->title);
    if (k->worst && (p->crf < -1 || p->crf > k->worst))
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: crf %d is outside %d to %d", p->path, p->crf, k->best, k->worst);
    if (!p->preset)
        return GV_OK;
    if (!k->presets)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %s has no presets", p->path, k->title);
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i], p->preset))
            return GV_OK;
    return gv_fail(e, GV_ERR_ARGUMENT, "%s: the encoder has no preset \"%.32s\"; it has %s to %s, with medium between", p->path,
                   p->preset, presets[0], presets[9]);
}

static void set_colour(AVCodecContext *c, bool rgb)
{
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->colorspace = rgb ? AVCOL_SPC_RGB : AVCOL_SPC_BT709;
    c->color_range = rgb ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
    c->chroma_sample_location = rgb ? AVCHROMA_LOC_UNSPECIFIED : AVCHROMA_LOC_LEFT;
}

static int padded(int size, int log2)
{
    return (size + (1 << log2) - 1) >> log2 << log2;
}

static AVCodecContext *context_of(const struct av_encoder *n, const AVCodec *lib, const struct sink_params *p, bool header)
{
    const struct av_codec    *k = n->codec;
    const bool                deep = p->bits ? p->bits == 10 : k->format[0] == AV_PIX_FMT_NONE;
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(k->format[deep]);
    AVCodecContext           *c = avcodec_alloc_context3(lib);
    int                       num, den;
    if (!c)
        return NULL;
    gv_fps_ratio(p->fps, &num, &den);
    c->log_level_offset = GV_AV_QUIET;
    c->width = padded(p->width, d->log2_chroma_w);
    c->height = padded(p->height, d->log2_chroma_h);
    c->pix_fmt = k->format[deep];
    c->time_base = (AVRational){ den, num };
    c->framerate = (AVRational){ num, den };
    c->sample_aspect_ratio = (AVRational){ 1, 1 };
    c->gop_size = k->intra ? 1 : lround(2.0 * p->fps) > 1 ? (int)lround(2.0 * p->fps) : 1;
    c->flags |= header ? AV_CODEC_FLAG_GLOBAL_HEADER : 0;
    set_colour(c, d->flags & AV_PIX_FMT_FLAG_RGB || k->format[deep] == AV_PIX_FMT_PAL8);
    return c;
}

/* The first encoder of the codec that takes the size and rate. */
static gv_status open_first(struct av_encoder *n, const struct sink_params *p, bool header, struct error *e)
{
    const struct av_codec *k = n->codec;
    int                    r = AVERROR(EINVAL);
    for (int i = 0; i < 3 && !n->c; i++) {
        const AVCodec *lib = encoder_of(k, i);
        AVDictionary  *o = NULL;
        if (!lib)
            continue;
        if (!(n->c = context_of(n, lib, p, header)))
            return gv_av_no_memory(e, p->path);
        if (k->worst)
            av_dict_set_int(&o, "crf", p->crf < 0 ? k->usual : p->crf, 0);
        if (k->presets)
            av_dict_set(&o, "preset", p->preset ? p->preset : "medium", 0);
        k->tune(n->c, &o, gv_av_encoder_deep(n));
        r = avcodec_open2(n->c, lib, &o);
        av_dict_free(&o);
        if (r < 0)
            avcodec_free_context(&n->c);
    }
    char what[96];
    snprintf(what, sizeof what, "the %s encoder cannot be opened for this size, rate or preset", k->title);
    return n->c ? GV_OK : gv_av_fail(e, GV_ERR_DEVICE, p->path, what, r);
}

static void say(const struct av_encoder *n, const struct sink_params *p)
{
    const AVCodecContext *c = n->c;
    if (!strcmp(n->codec->name, "h264") && p->crf == 0 && !gv_av_encoder_deep(n))
        gv_log(p->log, GV_LOG_WARN,
               "%s: crf 0 is lossless and makes H.264 of the profile High 4:4:4 Predictive, which browsers "
               "and QuickTime do not play",
               p->path);
    if (c->width != p->width || c->height != p->height)
        gv_log(p->log, GV_LOG_INFO,
               "%s: %s with halved chroma needs even sizes, so %d×%d is padded to %d×%d by repeating the edge", p->path,
               n->codec->title, p->width, p->height, c->width, c->height);
    if (c->pix_fmt == AV_PIX_FMT_PAL8 && p->fps > 50)
        gv_log(p->log, GV_LOG_WARN, "%s: viewers slow down a GIF of more than 50 frames a second", p->path);
    else if (c->pix_fmt == AV_PIX_FMT_PAL8 && fabs(100 / p->fps - round(100 / p->fps)) > 1e-6)
        gv_log(p->log, GV_LOG_INFO, "%s: a GIF counts in 1/100 s, so frames stay for %d or %d of these", p->path,
               (int)(100 / p->fps), (int)(100 / p->fps) + 1);
}

static gv_status frame_open(struct av_encoder *n, const struct sink_params *p, struct error *e)
{
    const AVCodecContext *c = n->c;
    AVFrame              *f = n->frame = av_frame_alloc();
    if (!f)
        return gv_av_no_memory(e, p->path);
    f->format = c->pix_fmt;
    f->width = c->width;
    f->height = c->height;
    f->color_primaries = c->color_primaries;
    f->color_trc = c->color_trc;
    f->colorspace = c->colorspace;
    f->color_range = c->color_range;
    f->chroma_location = c->chroma_sample_location;
    f->sample_aspect_ratio = c->sample_aspect_ratio;
    n->wide = gv_av_encoder_deep(n) ? malloc((size_t)p->width * (size_t)p->height * 3 * sizeof *n->wide) : NULL;
    return av_frame_get_buffer(f, 0) < 0 || (gv_av_encoder_deep(n) && !n->wide) ? gv_av_no_memory(e, p->path) : GV_OK;
}

gv_status gv_av_encoder_open(struct av_encoder *n, const struct av_codec *codec, const struct sink_params *p, bool header,
                             struct error *e)
{
    *n = (struct av_encoder){ .codec = codec, .width = p->width, .height = p->height };
    TRY(check_params(codec, p, e));
    TRY(open_first(n, p, header, e));
    const AVRational tick = av_div_q(av_inv_q(n->c->framerate), n->c->time_base);
    n->ticks_num = tick.num;
    n->ticks_den = tick.den;
    say(n, p);
    return frame_open(n, p, e);
}

bool gv_av_encoder_deep(const struct av_encoder *n)
{
    return av_pix_fmt_desc_get(n->c->pix_fmt)->comp[0].depth > 8;
}

void gv_av_encoder_close(struct av_encoder *n)
{
    avcodec_free_context(&n->c);
    av_frame_free(&n->frame);
    free(n->wide);
}

/* ---- planes ----------------------------------------------------------------------------------------------------------- */

/* The last column and row of Y are repeated; the planes of chroma are whole by their filter already. */
static void pad_luma(AVFrame *f, int width, int height, size_t sample)
{
    uint8_t  *y = f->data[0];
    ptrdiff_t stride = f->linesize[0], last = (ptrdiff_t)sample * (width - 1);
    for (ptrdiff_t j = 0; width < f->width && j < height; j++)
        memcpy(y + j * stride + last + (ptrdiff_t)sample, y + j * stride + last, sample);
    if (height < f->height)
        memcpy(y + height * stride, y + (height - 1) * stride, (size_t)f->width * sample);
}

/* Native-endian 0x00RRGGBB. */
static void fill_rgb32(AVFrame *f, const uint8_t *rgb)
{
    for (ptrdiff_t y = 0; y < f->height; y++)
        for (ptrdiff_t x = 0; x < f->width; x++, rgb += 3) {
            const uint32_t v = 0xff000000u | (uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2];
            memcpy(f->data[0] + y * f->linesize[0] + 4 * x, &v, sizeof v);
        }
}

static void fill_gbr10(AVFrame *f, const uint16_t *rgb)
{
    static const int plane[3] = { 2, 0, 1 };
    for (ptrdiff_t y = 0; y < f->height; y++)
        for (ptrdiff_t x = 0; x < f->width; x++, rgb += 3)
            for (int k = 0; k < 3; k++) {
                const uint16_t v = (uint16_t)((2u * rgb[k] * 1023u + 65535u) / (2u * 65535u));
                memcpy(f->data[plane[k]] + y * f->linesize[plane[k]] + 2 * x, &v, sizeof v);
            }
}

static void fill_yuv10(AVFrame *f, const uint16_t *rgb, int width, int height, enum yuv_kind kind)
{
    struct planes10 d;
    for (int i = 0; i < 3; i++) {
        d.plane[i] = (uint16_t *)(void *)f->data[i];
        d.stride[i] = f->linesize[i] / 2;
    }
    gv_yuv10_from_rgb16(&d, rgb, width, height, kind);
    pad_luma(f, width, height, 2);
}

static gv_status fill(struct av_encoder *n, const uint8_t *rgb8, const uint16_t *rgb16, struct error *e)
{
    AVFrame  *f = n->frame;
    const int w = n->width, h = n->height;
    switch (f->format) {
    case AV_PIX_FMT_0RGB32: fill_rgb32(f, rgb8); return GV_OK;
    case AV_PIX_FMT_GBRP10: fill_gbr10(f, rgb16); return GV_OK;
    case AV_PIX_FMT_YUV420P10: fill_yuv10(f, rgb16, w, h, YUV_420); return GV_OK;
    case AV_PIX_FMT_YUV422P10: fill_yuv10(f, rgb16, w, h, YUV_422); return GV_OK;
    case AV_PIX_FMT_PAL8: return gv_palette_make((uint32_t *)(void *)f->data[1], f->data[0], f->linesize[0], rgb8, w, h, e);
    default:
        gv_yuv_from_rgb(f->data[0], f->linesize[0], f->data[1], f->data[2], f->linesize[1], rgb8, w, h, YUV_420);
        pad_luma(f, w, h, 1);
        return GV_OK;
    }
}

gv_status gv_av_encoder_send(struct av_encoder *n, const uint8_t *rgb8, const uint16_t *rgb16, const char *path,
                             struct error *e)
{
    const int64_t values = (int64_t)n->width * n->height * 3;
    if (av_frame_make_writable(n->frame) < 0)
        return gv_av_no_memory(e, path);
    if (gv_av_encoder_deep(n) && !rgb16) {
        gv_pixels16_from_8(n->wide, rgb8, values);
        rgb16 = n->wide;
    }
    TRY(fill(n, rgb8, rgb16, e));
    n->frame->pts = av_rescale(n->count++, n->ticks_num, n->ticks_den);
    const int r = avcodec_send_frame(n->c, n->frame);
    if (r < 0)
        return gv_av_fail(e, GV_ERR_DEVICE, path, "the encoder failed", r);
    return GV_OK;
}
