/* A clip at a rate. Times are rounded to ticks of the wanted rate as they are decoded, nearest, halves away from zero; a picture
 * is shown from its own tick until the next one's, so of several on one tick the last wins. The first picture is shown from its
 * own tick: a clip that begins late, beside its sound, begins late here. The last is shown until its end, rounded likewise,
 * which for a clip shorter than half a tick means not at all.
 *
 * Surprises: times are counted from the earliest stream's start that the container tells, or from the first picture. Where a
 * frame has no duration the one before it lends its distance. The end passes through microseconds, as in the ffmpeg command,
 * or halves would fall otherwise.
 *
 * Source: FFmpeg 5.1 libavfilter/vf_fps.c, fftools/ffmpeg.c (end of a stream); compared in tests/io/test_clip.c. */
#include "io/clip.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/libav.h"

struct shown {
    struct image image;
    int64_t      tick, pts; /* in ticks of the rate; in the stream's base, from the clip's start */
    bool         damaged;
};

struct clip {
    char            *path;
    int              fd;
    struct av_source source;
    AVRational       tick;       /* 1 / fps; num 0: no rate */
    int64_t          start;      /* in the stream's base */
    int64_t          last, step; /* of the last frame decoded: its time, its duration */
    struct shown     now, next;  /* next: decoded, its tick is not reached yet */
    bool             begun, have_next, ended;
    int64_t          index, end; /* the tick to be shown, and the one where the clip ends; or pictures so far */
};

static gv_status open_kind(int *fd, enum media_clip *kind, const char *path, struct error *e)
{
    const struct media_kind *k;
    TRY(gv_media_open(fd, &k, path, e));
    if (k && k->class == KIND_REFUSED)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a %s, not a clip that can be read", path, k->name);
    const bool gif = k && k->class == KIND_STILL && k->detail == MEDIA_GIF;
    if (!k || (k->class != KIND_CLIP && !gif))
        return gv_fail(e, GV_ERR_FORMAT, "%s is not a clip", path);
    *kind = gif ? MEDIA_GIF_CLIP : (enum media_clip)k->detail;
    return GV_OK;
}

static gv_status clip_open(struct clip *c, const char *path, double fps, struct error *e)
{
    enum media_clip kind = MEDIA_MOV;
    int             num, den;
    if (fps != 0) {
        gv_fps_ratio(fps, &num, &den);
        c->tick = (AVRational){ den, num };
    }
    if (!(c->path = strdup(path)))
        return gv_av_no_memory(e, path);
    TRY(open_kind(&c->fd, &kind, path, e));
    TRY(gv_av_source_open(&c->source, kind, c->fd, path, e));
    return gv_av_source_video(&c->source, path, e);
}

gv_status gv_clip_open(struct clip **out, const char *path, double fps, struct error *e)
{
    *out = NULL;
    if (fps != 0 && !(fps >= 0.1 && fps <= 1000))
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %g pictures a second is outside 0.1 to 1000", path, fps);
    struct clip *c = calloc(1, sizeof *c);
    if (!c)
        return gv_av_no_memory(e, path);
    c->fd = -1;
    const gv_status st = clip_open(c, path, fps, e);
    *out = c;
    if (st != GV_OK)
        gv_clip_close(out);
    return st;
}

/* ---- decoding --------------------------------------------------------------------------------------------------------- */

enum { FAR = 1 << 30 }; /* a sum of a few times, each clamped to 2^60, fits */

/* Files may claim any time: beyond 2^60 ticks it is cut off. */
static int64_t sane(int64_t at)
{
    const int64_t far = (int64_t)FAR * FAR;
    return at > far ? far : at < -far ? -far : at;
}

static int64_t duration_of(const AVFrame *f)
{
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 30, 100)
    return f->duration > 0 ? sane(f->duration) : 0;
#else
    return f->pkt_duration > 0 ? sane(f->pkt_duration) : 0;
#endif
}

/* Where the clip begins, in the base of its pictures; first: the first picture's time. */
static int64_t start_of(const struct clip *c, int64_t first)
{
    const AVRational base = c->source.stream->time_base;
    int64_t          start = first;
    for (unsigned i = 0; i < c->source.format->nb_streams; i++) {
        const AVStream *st = c->source.format->streams[i];
        const bool heard = st->codecpar->codec_type == AVMEDIA_TYPE_AUDIO || st->codecpar->codec_type == AVMEDIA_TYPE_VIDEO;
        if (heard && st->start_time != AV_NOPTS_VALUE) {
            const int64_t at = sane(av_rescale_q(st->start_time, st->time_base, base));
            start = at < start ? at : start;
        }
    }
    return start;
}

static void take_time(struct clip *c, struct shown *s)
{
    const AVFrame *f = c->source.frame;
    int64_t        at = f->best_effort_timestamp;
    if (at == AV_NOPTS_VALUE)
        at = c->begun ? c->last + c->step + c->start : 0;
    at = sane(at);
    if (!c->begun)
        c->start = start_of(c, at);
    s->pts = at - c->start;
    if (duration_of(f) > 0)
        c->step = duration_of(f);
    else if (c->begun && s->pts > c->last)
        c->step = s->pts - c->last;
    c->last = s->pts;
    c->begun = true;
    s->tick = c->tick.num ? av_rescale_q_rnd(s->pts, c->source.stream->time_base, c->tick, AV_ROUND_NEAR_INF) : 0;
}

static gv_status take_pixels(struct clip *c, struct shown *s, struct error *e)
{
    const AVStream  *st = c->source.stream;
    const AVFrame   *f = c->source.frame;
    const AVRational container = st->sample_aspect_ratio;
    gv_image_free(&s->image);
    TRY(gv_av_image(&s->image, f, false, gv_av_centred(st->codecpar->codec_id), c->path, e));
    TRY(gv_av_square_pixels(&s->image, container.num > 0 ? container : f->sample_aspect_ratio, c->path, e));
    s->damaged = f->decode_error_flags || f->flags & AV_FRAME_FLAG_CORRUPT;
    return gv_image_orient(&s->image, gv_av_orientation(st), e);
}

/* The next picture into s; c->ended at the end, and then the tick of that. */
static gv_status decode(struct clip *c, struct shown *s, bool *got, struct error *e)
{
    TRY(gv_av_next_frame(&c->source, got, c->path, e));
    if (*got) {
        take_time(c, s);
        return take_pixels(c, s, e);
    }
    const AVRational base = c->source.stream->time_base;
    const int64_t    us = av_rescale_q(c->last, base, AV_TIME_BASE_Q) + av_rescale_q(c->step, base, AV_TIME_BASE_Q);
    const int64_t    end = av_rescale_q_rnd(us, AV_TIME_BASE_Q, base, AV_ROUND_NEAR_INF);
    c->ended = true;
    c->end = c->tick.num ? av_rescale_q_rnd(end, base, c->tick, AV_ROUND_NEAR_INF) : 0;
    return GV_OK;
}

/* ---- pictures out ----------------------------------------------------------------------------------------------------- */

static void swap(struct clip *c)
{
    const struct shown was = c->now;
    c->now = c->next;
    c->next = was; /* its memory is used again */
    c->have_next = false;
}

/* now becomes what is shown at the tick c->index. */
static gv_status advance(struct clip *c, bool *fresh, struct error *e)
{
    for (;;) {
        if (!c->have_next && !c->ended)
            TRY(decode(c, &c->next, &c->have_next, e));
        if (!c->have_next || c->next.tick > c->index)
            return GV_OK;
        swap(c);
        *fresh = true;
    }
}

static gv_status next_at_rate(struct clip *c, bool *got, bool *fresh, struct error *e)
{
    if (!c->begun) {
        TRY(decode(c, &c->next, &c->have_next, e));
        c->index = c->have_next ? c->next.tick : 0;
    } else {
        c->index++;
    }
    TRY(advance(c, fresh, e));
    *got = c->now.image.rgb && (!c->ended || c->have_next || c->index < c->end);
    return GV_OK;
}

gv_status gv_clip_next(struct clip *c, struct clip_picture *out, bool *got, struct error *e)
{
    const AVRational base = c->source.stream->time_base;
    const bool       first = !c->begun;
    bool             fresh = false;
    *got = false;
    if (c->ended && !c->tick.num)
        return GV_OK;
    if (c->tick.num) {
        TRY(next_at_rate(c, got, &fresh, e));
    } else {
        TRY(decode(c, &c->now, got, e));
        fresh = true;
        c->index = first ? 0 : c->index + 1;
    }
    if (first && !c->begun)
        return gv_fail(e, GV_ERR_FORMAT, "%s is damaged or truncated: no frame of it can be decoded", c->path);
    *out =
        (struct clip_picture){ .image = &c->now.image,
                               .index = c->index,
                               .seconds = c->tick.num ? (double)c->index * av_q2d(c->tick) : (double)c->now.pts * av_q2d(base),
                               .repeated = !fresh,
                               .damaged = c->now.damaged };
    return GV_OK;
}

void gv_clip_close(struct clip **clip)
{
    struct clip *c = *clip;
    if (!c)
        return;
    gv_av_source_close(&c->source);
    gv_image_free(&c->now.image);
    gv_image_free(&c->next.image);
    if (c->fd >= 0)
        close(c->fd);
    free(c->path);
    free(c);
    *clip = NULL;
}
