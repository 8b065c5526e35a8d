/* Copied, never encoded again: no loss, and the source's own timing. A second look at the source's file, with every stream but
 * the sound discarded, so that pictures and sound need not be read in step.
 *
 * Surprise: the cut is at packets: sound begins up to one packet (21 ms of AAC at 48 kHz) before audio_start, and its time says
 * so; the muxer then writes an edit list or moves everything by as much. */
#include "io/libav_audio.h"

#include <math.h>
#include <unistd.h>

static gv_status open_source(struct av_audio *a, const char *path, struct error *e)
{
    const struct media_kind *k;
    TRY(gv_media_open(&a->fd, &k, path, e));
    if (!k || k->class != KIND_CLIP)
        return gv_fail(e, GV_ERR_FORMAT, "%s is not a clip whose sound can be read", path);
    TRY(gv_av_source_open(&a->source, (enum media_clip)k->detail, a->fd, path, e));
    if (!(a->source.packet = av_packet_alloc()))
        return gv_av_no_memory(e, path);
    for (unsigned i = 0; i < a->source.format->nb_streams && !a->in; i++)
        if (a->source.format->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_AUDIO)
            a->in = a->source.format->streams[i];
    return GV_OK;
}

gv_status gv_av_audio_open(struct av_audio *a, AVFormatContext *muxer, const struct sink_params *p, struct error *e)
{
    *a = (struct av_audio){ .fd = -1 };
    if (!p->audio)
        return GV_OK;
    TRY(open_source(a, p->audio, e));
    if (!a->in) {
        gv_log(p->log, GV_LOG_INFO, "%s has no sound", p->audio);
        return GV_OK;
    }
    const AVCodecParameters *par = a->in->codecpar;
    if (avformat_query_codec(muxer->oformat, par->codec_id, FF_COMPLIANCE_NORMAL) != 1) {
        gv_log(p->log, GV_LOG_WARN, "%s: this container does not hold sound in %s, so that of %s is not kept; mkv holds all",
               p->path, avcodec_get_name(par->codec_id), p->audio);
        return GV_OK;
    }
    AVStream *out = avformat_new_stream(muxer, NULL);
    if (!out || avcodec_parameters_copy(out->codecpar, par) < 0)
        return gv_av_no_memory(e, p->audio);
    out->codecpar->codec_tag = 0; /* the source's container's, not this one's */
    out->time_base = a->in->time_base;
    a->in->discard = AVDISCARD_DEFAULT;
    a->start = llround(p->audio_start / av_q2d(a->in->time_base));
    a->out = out;
    return GV_OK;
}

/* The next packet that is heard after the start. */
static bool fetch(struct av_audio *a)
{
    AVPacket *k = a->source.packet;
    while (!a->ready && av_read_frame(a->source.format, k) >= 0) {
        const int64_t at = k->pts != AV_NOPTS_VALUE ? k->pts : k->dts;
        a->ready = k->stream_index == a->in->index && at != AV_NOPTS_VALUE && (a->start <= 0 || at + k->duration > a->start);
        if (!a->ready)
            av_packet_unref(k);
    }
    return a->ready;
}

int gv_av_audio_pump(struct av_audio *a, AVFormatContext *muxer, double until)
{
    AVPacket *k = a->source.packet;
    while (a->out && fetch(a)) {
        const int64_t at = k->pts != AV_NOPTS_VALUE ? k->pts : k->dts;
        if ((double)(at - a->start) * av_q2d(a->in->time_base) >= until)
            return 0;
        if (k->pts != AV_NOPTS_VALUE)
            k->pts -= a->start;
        if (k->dts != AV_NOPTS_VALUE)
            k->dts -= a->start;
        k->stream_index = a->out->index;
        k->pos = -1;
        av_packet_rescale_ts(k, a->in->time_base, a->out->time_base);
        a->ready = false;
        const int r = av_interleaved_write_frame(muxer, k);
        av_packet_unref(k);
        if (r < 0)
            return r;
    }
    return 0;
}

void gv_av_audio_close(struct av_audio *a)
{
    gv_av_source_close(&a->source);
    if (a->fd >= 0)
        close(a->fd);
    a->fd = -1;
}
