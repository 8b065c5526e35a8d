/* A clip is opened behind locks. Its kind is known from its first bytes, so nothing is probed: one demuxer of a short list, over
 * our AVIOContext, with format_whitelist, protocol_whitelist, an io_open that refuses, and max_streams; parsers are off and
 * stream info is not searched: less code meets hostile bytes, and nothing prints. Then one decoder of a short list, one thread.
 *
 * Surprise: a damaged clip decodes. libav conceals what is missing, and says so in the frame's decode_error_flags alone.
 *
 * Sources: FFmpeg 5.1 to 9 headers and doc/APIchanges; ISO 14496-12 for the matrix of a track. */
#include "io/libav.h"

#include <string.h>

#include "io/image.h"

static const char *const demuxers[] = { [MEDIA_MOV] = "mov",
                                        [MEDIA_MATROSKA] = "matroska",
                                        [MEDIA_AVI] = "avi",
                                        [MEDIA_Y4M] = "yuv4mpegpipe",
                                        [MEDIA_GIF_CLIP] = "gif" };

static const enum AVCodecID codecs[] = {
    AV_CODEC_ID_H264,    AV_CODEC_ID_HEVC,       AV_CODEC_ID_AV1,        AV_CODEC_ID_VP8,      AV_CODEC_ID_VP9,
    AV_CODEC_ID_MPEG4,   AV_CODEC_ID_MPEG1VIDEO, AV_CODEC_ID_MPEG2VIDEO, AV_CODEC_ID_PRORES,   AV_CODEC_ID_MJPEG,
    AV_CODEC_ID_PNG,     AV_CODEC_ID_FFV1,       AV_CODEC_ID_DNXHD,      AV_CODEC_ID_QTRLE,    AV_CODEC_ID_GIF,
    AV_CODEC_ID_HUFFYUV, AV_CODEC_ID_FFVHUFF,    AV_CODEC_ID_UTVIDEO,    AV_CODEC_ID_RAWVIDEO,
};

void gv_av_source_close(struct av_source *s)
{
    avcodec_free_context(&s->decoder);
    avformat_close_input(&s->format);
    gv_av_file_close(&s->io);
    av_packet_free(&s->packet);
    av_frame_free(&s->frame);
}

static int refuse_open(AVFormatContext *f, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
    (void)f, (void)io, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

gv_status gv_av_source_open(struct av_source *s, enum media_clip kind, int fd, const char *path, struct error *e)
{
    const AVInputFormat *demuxer = av_find_input_format(demuxers[kind]);
    if (!demuxer)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s needs the demuxer %s, which this libav lacks", path, demuxers[kind]);
    s->file = (struct av_file){ .fd = fd };
    s->io = gv_av_file_open(&s->file);
    s->format = avformat_alloc_context();
    if (!s->io || !s->format)
        return gv_av_no_memory(e, path);
    gv_av_quieten(s->format, &s->quiet);
    s->format->pb = s->io;
    s->format->io_open = refuse_open;
    s->format->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_NOPARSE;
    AVDictionary *o = NULL;
    av_dict_set(&o, "format_whitelist", demuxers[kind], 0);
    av_dict_set(&o, "protocol_whitelist", "none", 0);
    av_dict_set_int(&o, "max_streams", 64, 0);
    const int r = avformat_open_input(&s->format, "", demuxer, &o); /* frees format when it fails */
    av_dict_free(&o);
    if (r < 0)
        return gv_av_fail(e, GV_ERR_FORMAT, path, "it begins like a clip and cannot be opened as one", r);
    for (unsigned i = 0; i < s->format->nb_streams; i++)
        s->format->streams[i]->discard = AVDISCARD_ALL;
    return GV_OK;
}

gv_status gv_av_decoder_open(struct av_source *s, enum AVCodecID id, const AVCodecParameters *par, const char *path,
                             struct error *e)
{
    const AVCodec *codec = avcodec_find_decoder(id);
    if (!codec)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s needs a decoder for %s, which this libav lacks", path, avcodec_get_name(id));
    s->decoder = avcodec_alloc_context3(codec);
    s->packet = av_packet_alloc();
    s->frame = av_frame_alloc();
    if (!s->decoder || !s->packet || !s->frame || (par && avcodec_parameters_to_context(s->decoder, par) < 0))
        return gv_av_no_memory(e, path);
    s->decoder->log_level_offset = GV_AV_QUIET;
    s->decoder->thread_count = 1;
    s->decoder->max_pixels = GV_IMAGE_PIXELS;
    if (s->stream)
        s->decoder->pkt_timebase = s->stream->time_base;
    if (!par && id != AV_CODEC_ID_TIFF) /* whose decoder then refuses tags it does not know, and finds short strips anyway */
        s->decoder->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER;
    const int r = avcodec_open2(s->decoder, codec, NULL);
    return r < 0 ? gv_av_fail(e, GV_ERR_FORMAT, path, "the decoder cannot be opened", r) : GV_OK;
}

static bool known(enum AVCodecID id)
{
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        if (codecs[i] == id)
            return true;
    return false;
}

gv_status gv_av_source_video(struct av_source *s, const char *path, struct error *e)
{
    for (unsigned i = 0; i < s->format->nb_streams && !s->stream; i++) {
        AVStream *st = s->format->streams[i];
        if (st->codecpar->codec_type == AVMEDIA_TYPE_VIDEO && !(st->disposition & AV_DISPOSITION_ATTACHED_PIC))
            s->stream = st;
    }
    if (!s->stream)
        return gv_fail(e, GV_ERR_FORMAT, "%s has no video in it", path);
    const enum AVCodecID id = s->stream->codecpar->codec_id;
    if (!known(id))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a clip in %s, which is not among the codecs that are read", path,
                       avcodec_get_name(id));
    s->stream->discard = AVDISCARD_DEFAULT;
    return gv_av_decoder_open(s, id, s->stream->codecpar, path, e);
}

gv_status gv_av_next_frame(struct av_source *s, bool *got, const char *path, struct error *e)
{
    enum { PACKETS = 4096, BAD = 100 }; /* without a frame between */
    for (int n = 0, bad = 0; n < PACKETS && bad < BAD; n++) {
        int r = avcodec_receive_frame(s->decoder, s->frame);
        *got = r >= 0;
        if (r >= 0 || r == AVERROR_EOF)
            return GV_OK;
        bad += r != AVERROR(EAGAIN);
        r = av_read_frame(s->format, s->packet);
        if (r >= 0 && s->packet->stream_index != s->stream->index) {
            av_packet_unref(s->packet);
            continue;
        }
        const int sent = avcodec_send_packet(s->decoder, r < 0 ? NULL : s->packet); /* NULL again at the end does no harm */
        bad += sent < 0 && sent != AVERROR_EOF;
        av_packet_unref(s->packet);
    }
    return gv_fail(e, GV_ERR_FORMAT, "%s is damaged: too much of it cannot be decoded", path);
}

/* x' = a x + c y, y' = b x + d y. */
static int orientation_of(const int32_t *m)
{
    static const int upright[2][2] = { { 1, 4 }, { 2, 3 } }, turned[2][2] = { { 5, 8 }, { 6, 7 } }; /* [x flipped][y flipped] */
    const int64_t    a = m[0], b = m[1], c = m[3], d = m[4];
    if ((a < 0 ? -a : a) + (d < 0 ? -d : d) >= (b < 0 ? -b : b) + (c < 0 ? -c : c))
        return upright[a < 0][d < 0];
    return turned[c < 0][b < 0];
}

int gv_av_orientation(const AVStream *st)
{
    const uint8_t *data = NULL;
    size_t         size = 0;
    int32_t        m[9];
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData *d =
        av_packet_side_data_get(st->codecpar->coded_side_data, st->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    if (d)
        data = d->data, size = d->size;
#else
    data = av_stream_get_side_data(st, AV_PKT_DATA_DISPLAYMATRIX, &size);
#endif
    if (!data || size < sizeof m)
        return 1;
    memcpy(m, data, sizeof m);
    return orientation_of(m);
}

bool gv_av_centred(enum AVCodecID id)
{
    return id == AV_CODEC_ID_MJPEG || id == AV_CODEC_ID_MPEG1VIDEO;
}
