/* What a container says of itself, behind the same locks as a clip that is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/libav.h"
#include "io/media_info.h"

static gv_status fill(struct media_info *m, const AVFormatContext *f, const char *path, struct error *e)
{
    const AVDictionaryEntry *comment = av_dict_get(f->metadata, "comment", NULL, 0);
    for (unsigned i = 0; i < f->nb_streams; i++) {
        const AVStream          *st = f->streams[i];
        const AVCodecParameters *p = st->codecpar;
        const bool               video = p->codec_type == AVMEDIA_TYPE_VIDEO && !m->codec[0];
        if (p->codec_type == AVMEDIA_TYPE_AUDIO && !m->sound[0])
            snprintf(m->sound, sizeof m->sound, "%s", avcodec_get_name(p->codec_id));
        if (!video)
            continue;
        snprintf(m->codec, sizeof m->codec, "%s", avcodec_get_name(p->codec_id));
        m->width = p->width;
        m->height = p->height;
        if (st->avg_frame_rate.num > 0 && st->avg_frame_rate.den > 0)
            m->fps = av_q2d(st->avg_frame_rate);
        if (st->duration > 0)
            m->seconds = (double)st->duration * av_q2d(st->time_base);
        if (st->duration > 0 && st->nb_frames > 0 && m->fps <= 0)
            m->fps = (double)st->nb_frames / m->seconds;
    }
    if (f->duration > 0 && m->seconds <= 0)
        m->seconds = (double)f->duration / AV_TIME_BASE;
    if (comment && strlen(comment->value) <= GV_COMMENT_BYTES && !(m->comment = strdup(comment->value)))
        return gv_av_no_memory(e, path);
    return GV_OK;
}

gv_status gv_media_clip_info(struct media_info *out, enum media_clip kind, int fd, const char *path, struct error *e)
{
    struct av_source s = { 0 };
    gv_status        st = gv_av_source_open(&s, kind, fd, path, e);
    if (st == GV_OK)
        st = fill(out, s.format, path, e);
    gv_av_source_close(&s);
    return st;
}
