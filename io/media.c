/* The one file that knows libav: H.264 in MP4 out; stills and the first frame of clips in.
 *
 * Out: planes come from our own RGB→YUV, libx264 (crf 18, medium, high, 4:2:0) compresses them, the mp4 muxer writes through
 * our AVIOContext into a part (io/sink_kind.h) that appears under its name only when it is whole. BT.709 limited range and
 * left-sited chroma are tagged three times: codec context, each frame, and by the muxer in colr. +faststart moves the index to
 * the front: the muxer re-reads its own file for that, by name; our io_open gives it the same descriptor instead, so that
 * no name ever reaches libav.
 *
 * In: the kind is known (io/image.c told it from the first bytes), so nothing is probed. A still goes to one decoder as one
 * packet, without any demuxer. A clip goes to one demuxer of a short list, over our AVIOContext, with format_whitelist,
 * protocol_whitelist, an io_open that refuses, max_streams and max_pixels; parsers are off and stream info is not searched:
 * less code meets hostile bytes. Then one decoder of a short list, one thread. Frames become RGB in our own arithmetic
 * (any planar, packed or paletted format to 16 bits, either siting of chroma), not in swscale, whose defaults are wrong
 * in five ways (see frame.c).
 *
 * Surprises:
 * - libav prints to stderr by default, through process-wide state that a library may not set. A codec context has its own
 *   log_level_offset. A format context has none, but its AVClass may name one: we give it a copy of its class that points
 *   at the unused upper bits of `debug`. QUIET is above every level. What libav logs without a context (broken code tables,
 *   impossible sizes) still appears when a file is damaged; a program that minds calls av_log_set_level itself.
 * - The same frames may give files of other bytes: x264 (0.164 at least) reads memory it has not written in its macroblock
 *   tree, which moves bits about. mbtree=0 would be stable and 40% larger.
 * - x264's crf 0 is lossless and needs the profile High 4:4:4 Predictive, which browsers do not play: logged.
 * - 4:2:0 has no odd sizes here: the last column or row is repeated, and logged.
 * - HLG is read as if it were SDR, which it is made for; PQ is refused.
 *
 * Sources: FFmpeg 5.1 to 9 headers and doc/APIchanges; ITU-T H.273 for the matrices; ISO 14496-12 for the matrix of a track. */
#include "io/media.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

#include "io/image.h"

enum { QUIET = 64, IO_BUFFER = 1 << 16 };

/* ---- what changed between libav 5.1 and 9 ----------------------------------------------------------------------------- */

#if LIBAVFORMAT_VERSION_MAJOR >= 61
typedef const uint8_t avio_byte;
#else
typedef uint8_t avio_byte;
#endif

static const int32_t *display_matrix(const AVStream *st)
{
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData *d = av_packet_side_data_get(st->codecpar->coded_side_data, st->codecpar->nb_coded_side_data,
                                                        AV_PKT_DATA_DISPLAYMATRIX);
    return d && d->size >= 9 * sizeof(int32_t) ? (const int32_t *)(const void *)d->data : NULL;
#else
    size_t         size = 0;
    const uint8_t *data = av_stream_get_side_data(st, AV_PKT_DATA_DISPLAYMATRIX, &size);
    return data && size >= 9 * sizeof(int32_t) ? (const int32_t *)(const void *)data : NULL;
#endif
}

/* ---- both ways -------------------------------------------------------------------------------------------------------- */

static gv_status fail(struct error *e, gv_status code, const char *path, const char *what, int err)
{
    char why[AV_ERROR_MAX_STRING_SIZE] = "unknown error";
    av_strerror(err, why, sizeof why);
    return gv_fail(e, err == AVERROR(ENOMEM) ? GV_ERR_MEMORY : code, "%s: %s: %s", path, what, why);
}

static gv_status no_memory(struct error *e, const char *path)
{
    return gv_fail(e, GV_ERR_MEMORY, "no memory for libav to handle %s", path);
}

/* quiet must outlive f. Its version is that of the headers we were built with: no field beyond them is copied. */
static void format_quieten(AVFormatContext *f, AVClass *quiet)
{
    *quiet                         = *f->av_class;
    quiet->version                 = LIBAVUTIL_VERSION_INT;
    quiet->log_level_offset_offset = (int)offsetof(AVFormatContext, debug);
    f->debug                       = QUIET;
    f->av_class                    = quiet;
}

/* A regular file by descriptor. Each AVIOContext on it has its own place. The size is not told when reading: knowing it,
 * libav only cuts packets off, and says so on stderr, where it would otherwise find the end. */
struct file_io {
    int     fd;
    int     err; /* errno of the first failure */
    bool    writes;
    int64_t at;
};

static int file_read(void *opaque, uint8_t *buf, int size)
{
    struct file_io *f = opaque;
    ssize_t         n;
    do
        n = pread(f->fd, buf, (size_t)size, (off_t)f->at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return AVERROR(f->err = errno);
    f->at += n;
    return n ? (int)n : AVERROR_EOF;
}

static int file_write(void *opaque, avio_byte *buf, int size)
{
    struct file_io *f = opaque;
    for (int done = 0; done < size;) {
        const ssize_t n = pwrite(f->fd, buf + done, (size_t)(size - done), (off_t)f->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            f->err = f->err ? f->err : errno;
            return AVERROR(errno);
        }
        done += (int)n;
        f->at += n;
    }
    return size;
}

static int64_t file_seek(void *opaque, int64_t offset, int whence)
{
    struct file_io *f = opaque;
    struct stat     s;
    if (whence == SEEK_SET || whence == SEEK_CUR) {
        offset += whence == SEEK_CUR ? f->at : 0;
        return offset < 0 ? AVERROR(EINVAL) : (f->at = offset);
    }
    if (whence & AVSEEK_SIZE && f->writes)
        return fstat(f->fd, &s) == 0 ? (int64_t)s.st_size : AVERROR(errno);
    return AVERROR(ENOSYS);
}

static AVIOContext *file_open(struct file_io *f)
{
    unsigned char *buffer = av_malloc(IO_BUFFER);
    AVIOContext   *io     = buffer ? avio_alloc_context(buffer, IO_BUFFER, f->writes, f, file_read,
                                                        f->writes ? file_write : NULL, file_seek)
                                   : NULL;
    if (!io)
        av_free(buffer);
    return io;
}

static void file_close(AVIOContext **io)
{
    if (*io)
        av_freep(&(*io)->buffer);
    avio_context_free(io);
}

/* ---- out -------------------------------------------------------------------------------------------------------------- */

struct mp4 {
    struct part      part;
    struct file_io   file, again; /* again: what faststart reads while file is written */
    AVClass          quiet;
    AVFormatContext *format;
    AVIOContext     *io;
    AVCodecContext  *encoder;
    AVStream        *stream;
    AVFrame         *frame;
    AVPacket        *packet;
    int              width, height; /* of what comes; the encoder's are even */
    int64_t          count;
    bool             begun; /* the header is written, so a trailer belongs to it */
};

static const char *const presets[] = {"ultrafast", "superfast", "veryfast", "faster", "fast",
                                      "medium",    "slow",      "slower",   "veryslow", "placebo"};

static const AVCodec *encoder_find(struct error *e)
{
    const AVCodec *c = avcodec_find_encoder_by_name("libx264");
    if (!c)
        gv_fail(e, GV_ERR_UNSUPPORTED, "this libav has no libx264, so mp4 cannot be written; y4m, rgb and png can");
    return c;
}

static gv_status mp4_check(struct error *e)
{
    return encoder_find(e) ? GV_OK : GV_ERR_UNSUPPORTED;
}

static gv_status mp4_params(const struct sink_params *p, struct error *e)
{
    if (p->crf < -1 || p->crf > 51)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: crf %d is outside 0 to 51", p->path, p->crf);
    if (!p->preset)
        return GV_OK;
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i], p->preset))
            return GV_OK;
    return gv_fail(e, GV_ERR_ARGUMENT, "%s: the encoder has no preset \"%.32s\"; it has %s to %s, with medium between", p->path,
                   p->preset, presets[0], presets[9]);
}

static void encoder_colour(AVCodecContext *c)
{
    c->color_primaries        = AVCOL_PRI_BT709;
    c->color_trc              = AVCOL_TRC_BT709;
    c->colorspace             = AVCOL_SPC_BT709;
    c->color_range            = AVCOL_RANGE_MPEG;
    c->chroma_sample_location = AVCHROMA_LOC_LEFT;
}

static gv_status encoder_open(struct mp4 *m, const struct sink_params *p, struct error *e)
{
    const AVCodec *codec = encoder_find(e);
    const int      crf   = p->crf < 0 ? 18 : p->crf;
    AVDictionary  *o     = NULL;
    int            num, den;
    if (!codec)
        return GV_ERR_UNSUPPORTED;
    AVCodecContext *c = m->encoder = avcodec_alloc_context3(codec);
    if (!c)
        return no_memory(e, p->path);
    gv_fps_ratio(p->fps, &num, &den);
    c->log_level_offset    = QUIET;
    c->width               = (p->width + 1) & ~1;
    c->height              = (p->height + 1) & ~1;
    c->pix_fmt             = AV_PIX_FMT_YUV420P;
    c->time_base           = (AVRational){den, num};
    c->framerate           = (AVRational){num, den};
    c->sample_aspect_ratio = (AVRational){1, 1};
    c->gop_size            = (int)lround(2.0 * p->fps) > 1 ? (int)lround(2.0 * p->fps) : 1;
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    encoder_colour(c);
    av_dict_set(&o, "preset", p->preset ? p->preset : "medium", 0);
    av_dict_set_int(&o, "crf", crf, 0);
    if (crf > 0)
        av_dict_set(&o, "profile", "high", 0);
    else
        gv_log(p->log, GV_LOG_WARN, "%s: crf 0 is lossless and makes H.264 of the profile High 4:4:4 Predictive, which browsers "
               "and QuickTime do not play", p->path);
    const int r = avcodec_open2(c, codec, &o);
    av_dict_free(&o);
    if (r < 0)
        return fail(e, GV_ERR_DEVICE, p->path, "the H.264 encoder cannot be opened for this size, rate or preset", r);
    if (c->width != p->width || c->height != p->height)
        gv_log(p->log, GV_LOG_INFO, "%s: H.264 in 4:2:0 needs even sizes, so %d×%d is padded to %d×%d by repeating the edge",
               p->path, p->width, p->height, c->width, c->height);
    return GV_OK;
}

/* The muxer opens its own output a second time, to read: give it the same file. Nothing else is opened. */
static int mp4_reopen(AVFormatContext *f, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
    struct mp4 *m = f->opaque;
    (void)url, (void)options;
    if (flags & AVIO_FLAG_WRITE)
        return AVERROR(EPERM);
    m->again = (struct file_io){.fd = m->part.fd};
    *io      = file_open(&m->again);
    return *io ? 0 : AVERROR(ENOMEM);
}

static int mp4_reclose(AVFormatContext *f, AVIOContext *io)
{
    (void)f;
    file_close(&io);
    return 0;
}

static gv_status muxer_open(struct mp4 *m, const struct sink_params *p, struct error *e)
{
    m->file   = (struct file_io){.fd = m->part.fd, .writes = true};
    m->frame  = av_frame_alloc();
    m->packet = av_packet_alloc();
    m->io     = file_open(&m->file);
    avformat_alloc_output_context2(&m->format, NULL, "mp4", NULL);
    AVFormatContext *f = m->format;
    if (!m->frame || !m->packet || !m->io || !f || !(m->stream = avformat_new_stream(f, NULL)))
        return no_memory(e, p->path);
    format_quieten(f, &m->quiet);
    f->pb        = m->io;
    f->opaque    = m;
    f->io_open   = mp4_reopen;
    f->io_close2 = mp4_reclose;
    f->flags |= AVFMT_FLAG_CUSTOM_IO;
    m->stream->time_base           = m->encoder->time_base;
    m->stream->avg_frame_rate      = m->encoder->framerate;
    m->stream->sample_aspect_ratio = m->encoder->sample_aspect_ratio;
    if (avcodec_parameters_from_context(m->stream->codecpar, m->encoder) < 0 ||
        (p->comment && av_dict_set(&f->metadata, "comment", p->comment, 0) < 0))
        return no_memory(e, p->path);

    AVDictionary *o = NULL;
    av_dict_set(&o, "movflags", "+faststart", 0);
    const int r = avformat_write_header(f, &o);
    av_dict_free(&o);
    if (m->file.err)
        return gv_part_fail(&m->part, m->file.err, e);
    if (r < 0)
        return fail(e, GV_ERR_DEVICE, p->path, "the MP4 header cannot be written", r);
    m->begun = true;
    return GV_OK;
}

static gv_status mp4_open(void **state, const struct sink_params *p, struct error *e)
{
    TRY(mp4_params(p, e));
    struct mp4 *m = calloc(1, sizeof *m);
    if (!(*state = m))
        return no_memory(e, p->path);
    m->width  = p->width;
    m->height = p->height;
    TRY(gv_part_open(&m->part, p->path, false, e));
    TRY(encoder_open(m, p, e));
    TRY(muxer_open(m, p, e));

    AVFrame *f                = m->frame;
    f->format                 = m->encoder->pix_fmt;
    f->width                  = m->encoder->width;
    f->height                 = m->encoder->height;
    f->color_primaries        = m->encoder->color_primaries;
    f->color_trc              = m->encoder->color_trc;
    f->colorspace             = m->encoder->colorspace;
    f->color_range            = m->encoder->color_range;
    f->chroma_location        = m->encoder->chroma_sample_location;
    f->sample_aspect_ratio    = m->encoder->sample_aspect_ratio;
    return av_frame_get_buffer(f, 0) < 0 ? no_memory(e, p->path) : GV_OK;
}

/* Everything the encoder has ready goes to the muxer. */
static gv_status mp4_drain(struct mp4 *m, struct error *e)
{
    for (;;) {
        int r = avcodec_receive_packet(m->encoder, m->packet);
        if (r == AVERROR(EAGAIN) || r == AVERROR_EOF)
            return GV_OK;
        if (r < 0)
            return fail(e, GV_ERR_DEVICE, m->part.path, "the H.264 encoder failed", r);
        m->packet->duration     = 1; /* or the last frame has none */
        m->packet->stream_index = m->stream->index;
        av_packet_rescale_ts(m->packet, m->encoder->time_base, m->stream->time_base);
        r = av_interleaved_write_frame(m->format, m->packet);
        av_packet_unref(m->packet);
        if (m->file.err)
            return gv_part_fail(&m->part, m->file.err, e);
        if (r < 0)
            return fail(e, GV_ERR_DEVICE, m->part.path, "the MP4 muxer failed", r);
    }
}

/* The last column and row of Y are repeated to an even size; the planes of chroma are even by their filter already. */
static void pad_luma(AVFrame *f, int width, int height)
{
    uint8_t *y      = f->data[0];
    ptrdiff_t stride = f->linesize[0];
    for (ptrdiff_t j = 0; width < f->width && j < height; j++)
        y[j * stride + width] = y[j * stride + width - 1];
    if (height < f->height)
        memcpy(y + height * stride, y + (height - 1) * stride, (size_t)f->width);
}

static gv_status mp4_write(void *state, const uint8_t *rgb, struct error *e)
{
    struct mp4 *m = state;
    AVFrame    *f = m->frame;
    if (av_frame_make_writable(f) < 0)
        return no_memory(e, m->part.path);
    gv_yuv_from_rgb(f->data[0], f->linesize[0], f->data[1], f->data[2], f->linesize[1], rgb, m->width, m->height, YUV_420);
    pad_luma(f, m->width, m->height);
    f->pts      = m->count++;
    const int r = avcodec_send_frame(m->encoder, f);
    if (r < 0)
        return fail(e, GV_ERR_DEVICE, m->part.path, "the H.264 encoder failed", r);
    return mp4_drain(m, e);
}

static gv_status mp4_commit(void *state, struct error *e)
{
    struct mp4 *m = state;
    int         r = avcodec_send_frame(m->encoder, NULL);
    if (r < 0)
        return fail(e, GV_ERR_DEVICE, m->part.path, "the H.264 encoder failed", r);
    TRY(mp4_drain(m, e));
    m->begun = false;
    r        = av_write_trailer(m->format);
    avio_flush(m->io);
    if (m->file.err)
        return gv_part_fail(&m->part, m->file.err, e);
    if (r < 0 || m->io->error < 0)
        return fail(e, GV_ERR_IO, m->part.path, "the MP4 index cannot be written", r < 0 ? r : m->io->error);
    return gv_part_publish(&m->part, 1, e);
}

static void mp4_close(void *state)
{
    struct mp4 *m = state;
    avcodec_free_context(&m->encoder);
    avformat_free_context(m->format); /* frees the muxer's own state too, with or without a trailer */
    file_close(&m->io);
    av_frame_free(&m->frame);
    av_packet_free(&m->packet);
    gv_part_close(&m->part);
    free(m);
}

const struct sink_kind gv_sink_mp4 = {
    .extension   = "mp4",
    .description = "H.264 in MP4, BT.709",
    .check       = mp4_check,
    .open        = mp4_open,
    .write       = mp4_write,
    .commit      = mp4_commit,
    .close       = mp4_close,
};

/* ---- frames of libav to RGB ------------------------------------------------------------------------------------------- */

/* R = y + rv v;  G = y + gu u + gv v;  B = y + bu u, of Y in [0, 1] and chroma in [-1/2, 1/2]. */
struct matrix {
    float rv, gu, gv, bu;
};

static struct matrix matrix_of(double kr, double kb)
{
    const double  kg = 1.0 - kr - kb, cr = 2.0 * (1.0 - kr), cb = 2.0 * (1.0 - kb);
    return (struct matrix){(float)cr, (float)(-cb * kb / kg), (float)(-cr * kr / kg), (float)cb};
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
        *out          = hd ? matrix_of(0.2126, 0.0722) : matrix_of(0.299, 0.114);
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
    const enum AVChromaLocation at      = f->chroma_location;
    const float                 mid_x   = (float)((1 << sx) - 1) / 2.0f, mid_y = (float)((1 << sy) - 1) / 2.0f;
    const bool                  top     = at == AVCHROMA_LOC_TOPLEFT || at == AVCHROMA_LOC_TOP;
    const bool                  bottom  = at == AVCHROMA_LOC_BOTTOMLEFT || at == AVCHROMA_LOC_BOTTOM;
    const bool                  unknown = at == AVCHROMA_LOC_UNSPECIFIED;
    const bool                  left    = at == AVCHROMA_LOC_LEFT || at == AVCHROMA_LOC_TOPLEFT ||
                      at == AVCHROMA_LOC_BOTTOMLEFT || (unknown && !centred);
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
    uint16_t                 *line; /* [width] */
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
    r->f                 = f;
    r->d                 = d;
    r->rgb               = (d->flags & AV_PIX_FMT_FLAG_RGB) != 0;
    r->colours           = d->nb_components - has_alpha == 1 ? 1 : 3;
    r->alpha             = has_alpha ? d->nb_components - 1 : -1;
    r->full              = full_range(f, r->rgb || (still && r->colours == 1));
    if (!r->rgb && r->colours == 3)
        TRY(matrix_find(&r->m, f, still, path, e));
    siting(f, centred, d->log2_chroma_w, d->log2_chroma_h, &r->site_x, &r->site_y);

    const size_t w = (size_t)f->width;
    r->line        = malloc(w * sizeof *r->line);
    r->ch[0]       = malloc(5 * w * sizeof *r->ch[0]);
    if (!r->line || !r->ch[0])
        return no_memory(e, path);
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
    const uint8_t *planes[4] = {r->f->data[0], r->f->data[1], r->f->data[2], r->f->data[3]};
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
    const int   y0 = (int)base, rows[2] = {av_clip(y0, 0, h - 1), av_clip(y0 + 1, 0, h - 1)};
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
    const bool  invert = r->f->format == AV_PIX_FMT_MONOWHITE;
    const int   colours = r->colours;
    for (int c = 0; c < colours; c++)
        if (c == 0 || r->rgb)
            row_plain(r, r->ch[c], c, y);
        else
            row_chroma(r, r->ch[c], c, y);
    if (r->alpha >= 0)
        row_plain(r, r->ch[3], r->alpha, y);
    for (int x = 0; x < r->f->width; x++) {
        const float a = r->ch[0][x], u = r->ch[1][x], v = r->ch[2][x];
        float       p[3] = {a, a, a};
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

static gv_status image_from_frame(struct image *im, const AVFrame *f, bool still, bool centred, const char *path,
                                  struct error *e)
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
    struct rows     r  = {0};
    const gv_status st = rows_open(&r, f, still, centred, path, e);
    for (int y = 0; st == GV_OK && y < f->height; y++)
        row_rgb(&r, im->rgb + y * stride, y);
    rows_close(&r);
    return st;
}

/* ---- in --------------------------------------------------------------------------------------------------------------- */

static const enum AVCodecID still_codecs[] = {
    [MEDIA_WEBP] = AV_CODEC_ID_WEBP, [MEDIA_BMP] = AV_CODEC_ID_BMP,   [MEDIA_TIFF] = AV_CODEC_ID_TIFF,
    [MEDIA_GIF] = AV_CODEC_ID_GIF,   [MEDIA_JPEG] = AV_CODEC_ID_MJPEG,
};
static const char *const still_names[] = {
    [MEDIA_WEBP] = "WebP", [MEDIA_BMP] = "BMP", [MEDIA_TIFF] = "TIFF", [MEDIA_GIF] = "GIF", [MEDIA_JPEG] = "JPEG"};

struct decoding {
    struct file_io   file;
    AVClass          quiet;
    AVFormatContext *format;
    AVIOContext     *io;
    AVCodecContext  *decoder;
    AVPacket        *packet;
    AVFrame         *frame;
};

static void decoding_close(struct decoding *d)
{
    avcodec_free_context(&d->decoder);
    avformat_close_input(&d->format);
    file_close(&d->io);
    av_packet_free(&d->packet);
    av_frame_free(&d->frame);
}

static gv_status decoder_open(struct decoding *d, enum AVCodecID id, const AVCodecParameters *par, bool still,
                              const char *path, struct error *e)
{
    const AVCodec *codec = avcodec_find_decoder(id);
    if (!codec)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s needs a decoder for %s, which this libav lacks", path, avcodec_get_name(id));
    d->decoder = avcodec_alloc_context3(codec);
    d->packet  = av_packet_alloc();
    d->frame   = av_frame_alloc();
    if (!d->decoder || !d->packet || !d->frame || (par && avcodec_parameters_to_context(d->decoder, par) < 0))
        return no_memory(e, path);
    d->decoder->log_level_offset = QUIET;
    d->decoder->thread_count     = 1; /* concealment depends on threads */
    d->decoder->max_pixels       = GV_IMAGE_PIXELS;
    if (still && id != AV_CODEC_ID_TIFF) /* whose decoder then refuses tags it does not know, and finds short strips anyway */
        d->decoder->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER;
    const int r = avcodec_open2(d->decoder, codec, NULL);
    return r < 0 ? fail(e, GV_ERR_FORMAT, path, "the decoder cannot be opened", r) : GV_OK;
}

static gv_status frame_check(const AVFrame *f, const char *path, struct error *e)
{
    if (f->decode_error_flags || f->flags & AV_FRAME_FLAG_CORRUPT)
        return gv_fail(e, GV_ERR_FORMAT, "%s is damaged: its first frame cannot be decoded without errors", path);
    return GV_OK;
}

static gv_status still_decode(struct decoding *d, enum media_still kind, const uint8_t *bytes, size_t size, const char *path,
                              struct error *e)
{
    TRY(decoder_open(d, still_codecs[kind], NULL, true, path, e));
    if (size > INT_MAX / 2 || av_new_packet(d->packet, (int)size) < 0)
        return no_memory(e, path);
    memcpy(d->packet->data, bytes, size);
    d->packet->flags |= AV_PKT_FLAG_KEY;
    int r = avcodec_send_packet(d->decoder, d->packet);
    if (r >= 0)
        r = avcodec_receive_frame(d->decoder, d->frame);
    if (r == AVERROR(EAGAIN)) {
        avcodec_send_packet(d->decoder, NULL);
        r = avcodec_receive_frame(d->decoder, d->frame);
    }
    if (r == AVERROR_PATCHWELCOME)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a %s of a sort that this libav cannot read", path, still_names[kind]);
    if (r < 0)
        return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged or truncated %s, or one larger than the limit of %d pixels", path,
                       still_names[kind], GV_IMAGE_PIXELS);
    return frame_check(d->frame, path, e);
}

gv_status gv_media_read_still(struct image *im, enum media_still kind, const uint8_t *bytes, size_t size, const char *path,
                              struct error *e)
{
    struct decoding d  = {0};
    gv_status       st = still_decode(&d, kind, bytes, size, path, e);
    if (st == GV_OK)
        st = image_from_frame(im, d.frame, true, true, path, e);
    decoding_close(&d);
    return st;
}

static const char *const demuxers[] = {
    [MEDIA_MOV] = "mov", [MEDIA_MATROSKA] = "matroska", [MEDIA_AVI] = "avi", [MEDIA_Y4M] = "yuv4mpegpipe"};

static const enum AVCodecID clip_codecs[] = {
    AV_CODEC_ID_H264,       AV_CODEC_ID_HEVC,       AV_CODEC_ID_AV1,    AV_CODEC_ID_VP8,   AV_CODEC_ID_VP9,      AV_CODEC_ID_MPEG4,
    AV_CODEC_ID_MPEG1VIDEO, AV_CODEC_ID_MPEG2VIDEO, AV_CODEC_ID_PRORES, AV_CODEC_ID_MJPEG, AV_CODEC_ID_PNG,      AV_CODEC_ID_FFV1,
    AV_CODEC_ID_DNXHD,      AV_CODEC_ID_QTRLE,      AV_CODEC_ID_GIF,    AV_CODEC_ID_HUFFYUV, AV_CODEC_ID_FFVHUFF, AV_CODEC_ID_UTVIDEO,
    AV_CODEC_ID_RAWVIDEO,
};

static int refuse_open(AVFormatContext *f, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
    (void)f, (void)io, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

static gv_status clip_open(struct decoding *d, enum media_clip kind, int fd, const char *path, struct error *e)
{
    const AVInputFormat *demuxer = av_find_input_format(demuxers[kind]);
    if (!demuxer)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s needs the demuxer %s, which this libav lacks", path, demuxers[kind]);
    d->file   = (struct file_io){.fd = fd};
    d->io     = file_open(&d->file);
    d->format = avformat_alloc_context();
    if (!d->io || !d->format)
        return no_memory(e, path);
    format_quieten(d->format, &d->quiet);
    d->format->pb      = d->io;
    d->format->io_open = refuse_open;
    d->format->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_NOPARSE;
    AVDictionary *o = NULL;
    av_dict_set(&o, "format_whitelist", demuxers[kind], 0);
    av_dict_set(&o, "protocol_whitelist", "none", 0);
    av_dict_set_int(&o, "max_streams", 64, 0);
    const int r = avformat_open_input(&d->format, "", demuxer, &o); /* frees format when it fails */
    av_dict_free(&o);
    if (r < 0)
        return fail(e, GV_ERR_FORMAT, path, "it begins like a clip and cannot be opened as one", r);
    return GV_OK;
}

static gv_status clip_stream(struct decoding *d, const AVStream **out, const char *path, struct error *e)
{
    for (unsigned i = 0; i < d->format->nb_streams; i++) {
        AVStream            *st = d->format->streams[i];
        const enum AVCodecID id = st->codecpar->codec_id;
        st->discard             = AVDISCARD_ALL;
        if (*out || st->codecpar->codec_type != AVMEDIA_TYPE_VIDEO || st->disposition & AV_DISPOSITION_ATTACHED_PIC)
            continue;
        bool known = false;
        for (size_t k = 0; k < sizeof clip_codecs / sizeof *clip_codecs; k++)
            known = known || clip_codecs[k] == id;
        if (!known)
            return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a clip in %s, which is not among the codecs that are read", path,
                           avcodec_get_name(id));
        st->discard = AVDISCARD_DEFAULT;
        *out        = st;
    }
    return *out ? GV_OK : gv_fail(e, GV_ERR_FORMAT, "%s has no video in it", path);
}

/* Packets of the stream until the decoder gives a frame. Bad ones are skipped, some; a file may not go on for ever. */
static gv_status clip_frame(struct decoding *d, int index, const char *path, struct error *e)
{
    enum { PACKETS = 4096, BAD = 100 };
    int bad = 0, r = AVERROR(EAGAIN);
    for (int n = 0; n < PACKETS && bad < BAD && r == AVERROR(EAGAIN); n++) {
        const bool end = av_read_frame(d->format, d->packet) < 0;
        if (!end && d->packet->stream_index != index) {
            av_packet_unref(d->packet);
            continue;
        }
        const int sent = avcodec_send_packet(d->decoder, end ? NULL : d->packet);
        av_packet_unref(d->packet);
        bad += sent < 0;
        r = avcodec_receive_frame(d->decoder, d->frame);
        if (r < 0 && r != AVERROR_EOF && !end) {
            bad += r != AVERROR(EAGAIN);
            r = AVERROR(EAGAIN);
        }
    }
    if (r < 0)
        return gv_fail(e, GV_ERR_FORMAT, "%s is damaged or truncated: no frame of it can be decoded", path);
    return frame_check(d->frame, path, e);
}

/* The axis-aligned part of a track's matrix (x' = a x + c y, y' = b x + d y) as EXIF's number. */
static int orientation_of(const int32_t *m)
{
    static const int upright[2][2] = {{1, 4}, {2, 3}}, turned[2][2] = {{5, 8}, {6, 7}}; /* [x flipped][y flipped] */
    if (!m)
        return 1;
    const int64_t a = m[0], b = m[1], c = m[3], d = m[4];
    if ((a < 0 ? -a : a) + (d < 0 ? -d : d) >= (b < 0 ? -b : b) + (c < 0 ? -c : c))
        return upright[a < 0][d < 0];
    return turned[c < 0][b < 0];
}

/* Stretched, never shrunk, along the axis whose pixels are longer. */
static gv_status square_pixels(struct image *im, AVRational sar, const char *path, struct error *e)
{
    if (sar.num <= 0 || sar.den <= 0 || sar.num == sar.den)
        return GV_OK;
    const double ratio  = (double)sar.num / (double)sar.den;
    const double width  = round(ratio > 1.0 ? im->width * ratio : im->width);
    const double height = round(ratio > 1.0 ? im->height : im->height / ratio);
    if (width > GV_IMAGE_SIDE || height > GV_IMAGE_SIDE || width * height > GV_IMAGE_PIXELS)
        return gv_fail(e, GV_ERR_FORMAT, "%s has pixels of %d:%d, which makes it %.0f×%.0f; the limit is %d a side", path, sar.num,
                       sar.den, width, height, GV_IMAGE_SIDE);
    struct image out  = {0};
    const size_t n    = (size_t)width * (size_t)height * 3;
    float       *wide = malloc(n * sizeof *wide);
    gv_status    st   = wide ? gv_image_new(&out, (int)width, (int)height, e) : no_memory(e, path);
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

static gv_status clip_read(struct decoding *d, struct image *im, int *orientation, enum media_clip kind, int fd,
                           const char *path, struct error *e)
{
    const AVStream *st = NULL;
    TRY(clip_open(d, kind, fd, path, e));
    TRY(clip_stream(d, &st, path, e));
    const enum AVCodecID id = st->codecpar->codec_id;
    TRY(decoder_open(d, id, st->codecpar, false, path, e));
    TRY(clip_frame(d, st->index, path, e));
    TRY(image_from_frame(im, d->frame, false, id == AV_CODEC_ID_MJPEG || id == AV_CODEC_ID_MPEG1VIDEO, path, e));
    *orientation = orientation_of(display_matrix(st));
    const AVRational container = st->sample_aspect_ratio, coded = d->frame->sample_aspect_ratio;
    return square_pixels(im, container.num > 0 ? container : coded, path, e);
}

gv_status gv_media_read_clip(struct image *im, int *orientation, enum media_clip kind, int fd, const char *path,
                             struct error *e)
{
    struct decoding d  = {0};
    const gv_status st = clip_read(&d, im, orientation, kind, fd, path, e);
    decoding_close(&d);
    return st;
}
