/* Clips out: an encoder's packets (libav_encode.c) into MP4, MOV, Matroska, WebM or GIF, written in two stages.
 *
 * While frames come, a part file takes them in a form that can be played at any moment: fragmented MP4 or MOV, Matroska
 * clusters. Should the process be killed or the machine fail, ".NAME.PID-N.part" plays to its last second. When all is there,
 * the packets are copied into a second part, with a whole index at the front and the final metadata (the hash of the frames is
 * known only now), which is renamed; the first part then goes. GIF has one stage: it can be read as far as it goes, and holds
 * no metadata. The price is the file's size on the disk twice for a moment.
 *
 * libav writes through our AVIOContext and never sees a name. +faststart re-reads its own file for the index, by name; our
 * io_open gives it the same descriptor instead. Colour is tagged three times: codec context, each frame, and by the muxer in colr.
 *
 * Source: FFmpeg 5.1 to 9 headers, doc/muxers.texi (mov, matroska, gif). */
#include <stdlib.h>
#include <string.h>

#include "io/libav_audio.h"
#include "io/libav_encode.h"

/* A file that is being muxed. */
struct muxing {
    struct part      part;
    struct av_file   file, again; /* again: what faststart reads while file is written */
    AVClass          quiet;
    AVFormatContext *format;
    AVIOContext     *io;
    bool             begun; /* the header is written, so a trailer belongs to it */
};

#define IN_MP4    "h264 hevc av1 vp9"
#define IN_MOV    "h264 hevc prores"
#define IN_MKV    "h264 hevc av1 vp9 ffv1 prores"
#define IN_WEBM   "vp9 av1"
#define FRAGMENTS "+frag_keyframe+empty_moov+delay_moov+default_base_moof"
static const struct box {
    const char *extension, *muxer, *codecs;
    const char *stage1, *stage2; /* movflags; stage2 NULL: one stage */
    bool        mov;             /* of the family of MP4 */
} boxes[] = {
    { "mp4", "mp4", IN_MP4, FRAGMENTS, "+faststart", true },
    { "mov", "mov", IN_MOV, FRAGMENTS, "+faststart", true },
    { "mkv", "matroska", IN_MKV, "", "", false },
    { "webm", "webm", IN_WEBM, "", "", false },
    { "gif", "gif", "gif", "", NULL, false },
};

struct movie {
    const struct log *log;
    char             *comment;
    const struct box *box;
    struct muxing     first, last;
    struct av_encoder encoder;
    struct av_audio   audio;
    AVPacket         *packet;
    int64_t           dts; /* of the encoder's first packet */
    bool              has_dts;
    bool              finished; /* the first part is whole */
};

/* ---- a file that is being muxed --------------------------------------------------------------------------------------- */

/* The muxer opens its own output a second time, to read: give it the same file. Nothing else is opened. */
static int reopen(AVFormatContext *f, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
    struct muxing *m = f->opaque;
    (void)url, (void)options;
    if (flags & AVIO_FLAG_WRITE)
        return AVERROR(EPERM);
    m->again = (struct av_file){ .fd = m->part.fd };
    *io = gv_av_file_open(&m->again);
    return *io ? 0 : AVERROR(ENOMEM);
}

static int reclose(AVFormatContext *f, AVIOContext *io)
{
    (void)f;
    gv_av_file_close(&io);
    return 0;
}

static gv_status muxing_open(struct muxing *m, const char *path, const char *muxer, struct error *e)
{
    TRY(gv_part_open(&m->part, path, false, e));
    m->file = (struct av_file){ .fd = m->part.fd, .writes = true };
    m->io = gv_av_file_open(&m->file);
    avformat_alloc_output_context2(&m->format, NULL, muxer, NULL);
    if (!m->io || !m->format)
        return gv_av_no_memory(e, path);
    gv_av_quieten(m->format, &m->quiet);
    m->format->pb = m->io;
    m->format->opaque = m;
    m->format->io_open = reopen;
    m->format->io_close2 = reclose;
    m->format->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_BITEXACT;
    return GV_OK;
}

/* r: what libav returned. What our own writing met comes first. */
static gv_status muxing_check(struct muxing *m, int r, const char *what, struct error *e)
{
    if (m->file.err)
        return gv_part_fail(&m->part, m->file.err, e);
    return r < 0 ? gv_av_fail(e, GV_ERR_DEVICE, m->part.path, what, r) : GV_OK;
}

static gv_status muxing_begin(struct muxing *m, const char *flags, const char *comment, struct error *e)
{
    AVDictionary *o = NULL;
    if (comment && av_dict_set(&m->format->metadata, "comment", comment, 0) < 0)
        return gv_av_no_memory(e, m->part.path);
    if (flags[0])
        av_dict_set(&o, "movflags", flags, 0);
    if (strstr(flags, "frag"))
        av_dict_set_int(&o, "frag_duration", 1000000, 0); /* one second is lost at the most, and what the encoder holds */
    const int r = avformat_write_header(m->format, &o);
    av_dict_free(&o);
    TRY(muxing_check(m, r, "the file's header cannot be written", e));
    m->begun = true;
    return GV_OK;
}

static gv_status muxing_end(struct muxing *m, struct error *e)
{
    m->begun = false;
    int r = av_write_trailer(m->format);
    avio_flush(m->io);
    if (r >= 0 && m->io->error < 0)
        r = m->io->error;
    return muxing_check(m, r, "the file's index cannot be written", e);
}

static void muxing_close(struct muxing *m)
{
    avformat_free_context(m->format); /* frees the muxer's own state too, with or without a trailer */
    m->format = NULL;
    gv_av_file_close(&m->io);
    gv_part_close(&m->part);
}

/* ---- frames in -------------------------------------------------------------------------------------------------------- */

static gv_status movie_start(struct movie *m, const struct sink_params *p, const struct av_codec *codec, struct error *e)
{
    TRY(muxing_open(&m->first, p->path, m->box->muxer, e));
    AVFormatContext *f = m->first.format;
    f->flush_packets = 1;
    TRY(gv_av_encoder_open(&m->encoder, codec, p, (f->oformat->flags & AVFMT_GLOBALHEADER) != 0, e));
    AVStream             *st = avformat_new_stream(f, NULL);
    const AVCodecContext *c = m->encoder.c;
    if (!st || !(m->packet = av_packet_alloc()) || avcodec_parameters_from_context(st->codecpar, c) < 0)
        return gv_av_no_memory(e, p->path);
    st->time_base = c->time_base;
    st->avg_frame_rate = c->framerate;
    st->sample_aspect_ratio = c->sample_aspect_ratio;
    if (m->box->mov)
        st->codecpar->codec_tag = gv_av_codec_tag(codec);
    if (m->box->stage2)
        TRY(gv_av_audio_open(&m->audio, f, p, e));
    return muxing_begin(&m->first, m->box->stage1, m->comment, e);
}

static gv_status movie_open(void **state, const struct sink_params *p, struct error *e)
{
    const struct box      *box = boxes;
    const struct av_codec *codec = NULL;
    while (strcmp(box->extension, p->format)) /* sink.c found the kind by it */
        box++;
    TRY(gv_av_codec_find(&codec, p->codec, box->codecs, p->path, e));
    struct movie *m = calloc(1, sizeof *m);
    if (!(*state = m))
        return gv_av_no_memory(e, p->path);
    m->log = p->log;
    m->audio.fd = -1;
    m->box = box;
    if (p->comment && !(m->comment = strdup(p->comment)))
        return gv_av_no_memory(e, p->path);
    return movie_start(m, p, codec, e);
}

/* Everything the encoder has ready goes to the muxer, and the sound up to there. */
static gv_status movie_drain(struct movie *m, struct error *e)
{
    const AVCodecContext *c = m->encoder.c;
    AVFormatContext      *f = m->first.format;
    for (;;) {
        int r = avcodec_receive_packet(m->encoder.c, m->packet);
        if (r == AVERROR(EAGAIN) || r == AVERROR_EOF)
            return GV_OK;
        if (r < 0)
            return gv_av_fail(e, GV_ERR_DEVICE, m->first.part.path, "the encoder failed", r);
        m->packet->duration = m->encoder.ticks_num / m->encoder.ticks_den; /* or the last frame has none */
        m->packet->stream_index = 0;
        if (!m->has_dts)
            m->dts = m->packet->dts;
        m->has_dts = true;
        const double at = (double)m->packet->dts * av_q2d(c->time_base);
        av_packet_rescale_ts(m->packet, c->time_base, f->streams[0]->time_base);
        r = gv_av_audio_pump(&m->audio, f, at);
        if (r >= 0)
            r = av_interleaved_write_frame(f, m->packet);
        av_packet_unref(m->packet);
        TRY(muxing_check(&m->first, r, "the muxer failed", e));
    }
}

static gv_status movie_send(struct movie *m, const uint8_t *rgb8, const uint16_t *rgb16, struct error *e)
{
    TRY(gv_av_encoder_send(&m->encoder, rgb8, rgb16, m->first.part.path, e));
    return movie_drain(m, e);
}

static gv_status movie_write(void *state, const uint8_t *rgb, struct error *e)
{
    return movie_send(state, rgb, NULL, e);
}

static gv_status movie_write16(void *state, const uint16_t *rgb, struct error *e)
{
    return movie_send(state, NULL, rgb, e);
}

static bool movie_deep(const void *state)
{
    const struct movie *m = state;
    return gv_av_encoder_deep(&m->encoder);
}

/* ---- the second stage ------------------------------------------------------------------------------------------------- */

/* As the first part's muxer knows them, but for the extradata: that has the container's form now, as the packets have. */
static gv_status copy_streams(AVFormatContext *to, const AVFormatContext *first, const AVFormatContext *from, const char *path,
                              struct error *e)
{
    for (unsigned i = 0; i < first->nb_streams; i++) {
        const AVStream *a = first->streams[i];
        AVStream       *b = avformat_new_stream(to, NULL);
        if (!b || avcodec_parameters_copy(b->codecpar, a->codecpar) < 0)
            return gv_av_no_memory(e, path);
        const AVCodecParameters *have = from->streams[i]->codecpar;
        AVCodecParameters       *want = b->codecpar;
        av_freep(&want->extradata);
        want->extradata_size = 0;
        if (have->extradata_size > 0 &&
            !(want->extradata = av_mallocz((size_t)have->extradata_size + AV_INPUT_BUFFER_PADDING_SIZE)))
            return gv_av_no_memory(e, path);
        if (have->extradata_size > 0)
            memcpy(want->extradata, have->extradata, (size_t)have->extradata_size);
        want->extradata_size = have->extradata_size;
        b->time_base = a->time_base;
        b->avg_frame_rate = a->avg_frame_rate;
        b->sample_aspect_ratio = a->sample_aspect_ratio;
    }
    return GV_OK;
}

/* Every packet of the first part. A muxer may have moved all times so that none was negative: they go back by where the first
 * frame, which is the first packet of stream 0, begins. Matroska keeps no decoding times: those of the frames follow one another
 * by one frame from the encoder's first. */
static gv_status copy_packets(struct movie *m, struct av_source *s, struct error *e)
{
    AVFormatContext *from = s->format, *to = m->last.format;
    const AVRational tick = m->encoder.c->time_base;
    int64_t          shift = AV_NOPTS_VALUE, count = 0;
    int              r = 0;
    while (r >= 0 && av_read_frame(from, m->packet) >= 0) {
        AVPacket        *k = m->packet;
        const AVRational base = from->streams[k->stream_index]->time_base, out = to->streams[k->stream_index]->time_base;
        if (shift == AV_NOPTS_VALUE && k->stream_index == 0)
            shift = av_rescale_q(k->pts, base, AV_TIME_BASE_Q);
        const int64_t by = shift == AV_NOPTS_VALUE ? 0 : av_rescale_q(shift, AV_TIME_BASE_Q, base);
        k->pts -= k->pts == AV_NOPTS_VALUE ? 0 : by;
        k->dts -= k->dts == AV_NOPTS_VALUE ? 0 : by;
        k->pos = -1;
        av_packet_rescale_ts(k, base, out);
        if (k->stream_index == 0)
            k->dts = av_rescale_q(m->dts + av_rescale(count++, m->encoder.ticks_num, m->encoder.ticks_den), tick, out);
        r = av_interleaved_write_frame(to, k);
        av_packet_unref(k);
    }
    return muxing_check(&m->last, r, "the muxer failed", e);
}

static gv_status movie_copy(struct movie *m, struct av_source *s, struct error *e)
{
    const char *path = m->first.part.path;
    TRY(gv_av_source_open(s, m->box->mov ? MEDIA_MOV : MEDIA_MATROSKA, m->first.part.fd, path, e));
    for (unsigned i = 0; i < s->format->nb_streams; i++)
        s->format->streams[i]->discard = AVDISCARD_DEFAULT;
    if (s->format->nb_streams != m->first.format->nb_streams)
        return gv_fail(e, GV_ERR_INTERNAL, "%s: what was written cannot be read again", path);
    TRY(muxing_open(&m->last, path, m->box->muxer, e));
    TRY(copy_streams(m->last.format, m->first.format, s->format, path, e));
    TRY(muxing_begin(&m->last, m->box->stage2, m->comment, e));
    TRY(copy_packets(m, s, e));
    TRY(muxing_end(&m->last, e));
    return gv_part_publish(&m->last.part, 1, e);
}

static gv_status movie_end(struct movie *m, struct error *e)
{
    int r = avcodec_send_frame(m->encoder.c, NULL);
    if (r < 0)
        return gv_av_fail(e, GV_ERR_DEVICE, m->first.part.path, "the encoder failed", r);
    TRY(movie_drain(m, e));
    const struct av_encoder *n = &m->encoder;
    r = gv_av_audio_pump(&m->audio, m->first.format, (double)n->count * n->ticks_num / n->ticks_den * av_q2d(n->c->time_base));
    TRY(muxing_check(&m->first, r, "the muxer failed", e));
    TRY(muxing_end(&m->first, e));
    m->finished = true;
    return GV_OK;
}

static gv_status movie_finish(void *state, const char **path, struct error *e)
{
    struct movie *m = state;
    *path = m->first.part.temp;
    return movie_end(m, e);
}

static gv_status movie_commit(void *state, const char *comment, struct error *e)
{
    struct movie *m = state;
    if (!m->finished)
        TRY(movie_end(m, e));
    if (!m->box->stage2)
        return gv_part_publish(&m->first.part, 1, e);
    if (comment) {
        free(m->comment);
        if (!(m->comment = strdup(comment)))
            return gv_av_no_memory(e, m->first.part.path);
    }
    struct av_source s = { 0 };
    const gv_status  st = movie_copy(m, &s, e);
    gv_av_source_close(&s);
    return st;
}

static void movie_close(void *state)
{
    struct movie *m = state;
    gv_av_encoder_close(&m->encoder);
    gv_av_audio_close(&m->audio);
    muxing_close(&m->first);
    muxing_close(&m->last);
    av_packet_free(&m->packet);
    free(m->comment);
    free(m);
}

/* ---- kinds ------------------------------------------------------------------------------------------------------------ */

static gv_status movie_check(const struct sink_kind *k, const char *codec, struct error *e)
{
    const struct av_codec *found;
    return gv_av_codec_find(&found, codec, k->codecs, k->extension, e);
}

#define MOVIE                                                                                                                  \
    .check = movie_check, .list = gv_av_codec_list, .open = movie_open, .write = movie_write, .write16 = movie_write16,        \
    .deep = movie_deep, .finish = movie_finish, .commit = movie_commit, .close = movie_close

const struct sink_kind gv_sink_mp4 = { .extension = "mp4", .description = "MP4, BT.709", .codecs = IN_MP4, MOVIE };
const struct sink_kind gv_sink_mov = { .extension = "mov", .description = "QuickTime, BT.709", .codecs = IN_MOV, MOVIE };
const struct sink_kind gv_sink_mkv = {
    .extension = "mkv", .description = "Matroska, BT.709; ffv1 keeps every bit", .codecs = IN_MKV, MOVIE
};
const struct sink_kind gv_sink_webm = { .extension = "webm", .description = "WebM, BT.709", .codecs = IN_WEBM, MOVIE };
const struct sink_kind gv_sink_gif = {
    .extension = "gif", .description = "GIF of 256 colours a frame", .codecs = "gif", MOVIE
};
