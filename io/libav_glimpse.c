/* Two pictures are held as libav decodes them: the one that is shown and the one behind it, whose time says when that ends.
 *
 * Surprises: times are rounded by their containers (Matroska: to a millisecond), so a picture counts as shown SLACK early, or a
 * clip cut at even times would come out one picture off. A jump of more than JUMP seconds asks the container for a key frame
 * before the goal; where it has no index, decoding just goes on. */
#include "io/glimpse.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/libav.h"

static const double SLACK = 0.00075, JUMP = 5;

struct glimpse {
    char               *path;
    int                 fd;
    enum media_clip     kind;
    struct av_source    source;
    struct glimpse_info info;
    int64_t             first;        /* time of the first picture, in the stream's base */
    AVFrame            *shown, *next; /* data NULL: none */
    double              shown_at, next_at, step;
    bool                ended;
    struct image        image; /* of shown, once asked for */
};

static bool is_clip(const struct media_kind *k)
{
    return k && (k->class == KIND_CLIP || (k->class == KIND_STILL && k->detail == MEDIA_GIF));
}

bool gv_glimpse_detect(const char *path)
{
    const struct media_kind *kind;
    struct error             e = { 0 };
    int                      fd = -1;
    const bool               clip = gv_media_open(&fd, &kind, path, &e) == GV_OK && is_clip(kind);
    if (fd >= 0)
        close(fd);
    return clip;
}

static gv_status source_open(struct glimpse *g, struct error *e)
{
    TRY(gv_av_source_open(&g->source, g->kind, g->fd, g->path, e));
    return gv_av_source_video(&g->source, g->path, e);
}

/* ---- length ----------------------------------------------------------------------------------------------------------- */

static gv_status measure(struct glimpse *g, struct error *e)
{
    const AVRational base = g->source.stream->time_base;
    AVPacket        *p = g->source.packet;
    int64_t          n = 0, low = INT64_MAX, high = INT64_MIN, last = 0;
    while (av_read_frame(g->source.format, p) >= 0) {
        const int64_t at = p->pts != AV_NOPTS_VALUE ? p->pts : p->dts;
        if (p->stream_index == g->source.stream->index && at != AV_NOPTS_VALUE && at > INT64_MIN / 4 && at < INT64_MAX / 4) {
            low = at < low ? at : low;
            last = at > high ? p->duration : last;
            high = at > high ? at : high;
        }
        n += p->stream_index == g->source.stream->index;
        av_packet_unref(p);
    }
    if (!n)
        return gv_fail(e, GV_ERR_FORMAT, "%s is damaged or truncated: it has no frame", g->path);
    const double span = high > low ? (double)(high - low) * av_q2d(base) : 0;
    g->first = low == INT64_MAX ? 0 : low;
    g->step = last > 0 ? (double)last * av_q2d(base) : n > 1 ? span / (double)(n - 1) : 0;
    g->info.frames = n;
    g->info.seconds = span + g->step;
    return GV_OK;
}

/* ---- pictures --------------------------------------------------------------------------------------------------------- */

static double time_of(const struct glimpse *g, const AVFrame *f)
{
    const int64_t at = f->best_effort_timestamp;
    if (at == AV_NOPTS_VALUE || at <= INT64_MIN / 4 || at >= INT64_MAX / 4)
        return g->shown->data[0] || g->next->data[0] ? g->next_at + g->step : 0;
    return (double)(at - g->first) * av_q2d(g->source.stream->time_base);
}

/* shown = next, next = what the decoder has. */
static gv_status advance(struct glimpse *g, struct error *e)
{
    bool got = false;
    if (!g->ended)
        TRY(gv_av_next_frame(&g->source, &got, g->path, e));
    const double at = got ? time_of(g, g->source.frame) : 0;
    if (g->next->data[0]) {
        av_frame_unref(g->shown);
        av_frame_move_ref(g->shown, g->next);
        g->shown_at = g->next_at;
        gv_image_free(&g->image);
    }
    g->ended = !got;
    if (got) {
        av_frame_move_ref(g->next, g->source.frame);
        g->next_at = at;
    }
    return GV_OK;
}

static gv_status convert(struct glimpse *g, struct error *e)
{
    const AVStream  *st = g->source.stream;
    const AVRational container = st->sample_aspect_ratio;
    const AVFrame   *f = g->shown;
    TRY(gv_av_image(&g->image, f, false, gv_av_centred(st->codecpar->codec_id), g->path, e));
    TRY(gv_av_square_pixels(&g->image, container.num > 0 ? container : f->sample_aspect_ratio, g->path, e));
    TRY(gv_image_orient(&g->image, gv_av_orientation(st), e));
    if (!g->info.width) {
        g->info.width = g->image.width;
        g->info.height = g->image.height;
    }
    if (g->image.width != g->info.width || g->image.height != g->info.height)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s changes its size from %dx%d to %dx%d at %.2f s", g->path, g->info.width,
                       g->info.height, g->image.width, g->image.height, g->shown_at);
    return GV_OK;
}

/* To a key frame before `seconds`; nothing has changed where that is not possible. */
static void jump(struct glimpse *g, double seconds)
{
    const int64_t goal = g->first + (int64_t)(seconds / av_q2d(g->source.stream->time_base));
    if (av_seek_frame(g->source.format, g->source.stream->index, goal, AVSEEK_FLAG_BACKWARD) < 0)
        return;
    avcodec_flush_buffers(g->source.decoder);
    av_frame_unref(g->shown);
    av_frame_unref(g->next);
    gv_image_free(&g->image);
}

gv_status gv_glimpse_at(struct glimpse *g, double seconds, const struct image **im, struct error *e)
{
    if (seconds - g->next_at > JUMP && seconds < g->info.seconds && !g->ended)
        jump(g, seconds);
    while (!g->shown->data[0] && !(g->ended && !g->next->data[0]))
        TRY(advance(g, e));
    if (!g->shown->data[0])
        return gv_fail(e, GV_ERR_FORMAT, "%s is damaged or truncated: no frame of it can be decoded", g->path);
    while (g->next->data[0] && g->next_at <= seconds + SLACK)
        TRY(advance(g, e));
    if (!g->image.rgb)
        TRY(convert(g, e));
    *im = &g->image;
    return GV_OK;
}

/* ---- open ------------------------------------------------------------------------------------------------------------- */

static gv_status open_all(struct glimpse *g, const char *path, struct error *e)
{
    const struct media_kind *kind;
    const struct image      *im;
    g->path = strdup(path);
    g->shown = av_frame_alloc();
    g->next = av_frame_alloc();
    if (!g->path || !g->shown || !g->next)
        return gv_av_no_memory(e, path);
    TRY(gv_media_open(&g->fd, &kind, path, e));
    if (!is_clip(kind))
        return gv_fail(e, GV_ERR_FORMAT, "%s is not a clip", path);
    g->kind = kind->class == KIND_STILL ? MEDIA_GIF_CLIP : (enum media_clip)kind->detail;
    TRY(source_open(g, e));
    TRY(measure(g, e));
    gv_av_source_close(&g->source); /* from the start again */
    g->source = (struct av_source){ 0 };
    TRY(source_open(g, e));
    return gv_glimpse_at(g, 0, &im, e);
}

gv_status gv_glimpse_open(struct glimpse **out, struct glimpse_info *info, const char *path, struct error *e)
{
    struct glimpse *g = *out = calloc(1, sizeof *g);
    if (!g)
        return gv_av_no_memory(e, path);
    g->fd = -1;
    const gv_status st = open_all(g, path, e);
    *info = g->info;
    if (st != GV_OK)
        gv_glimpse_close(out);
    return st;
}

void gv_glimpse_close(struct glimpse **glimpse)
{
    struct glimpse *g = *glimpse;
    if (!g)
        return;
    gv_av_source_close(&g->source);
    av_frame_free(&g->shown);
    av_frame_free(&g->next);
    gv_image_free(&g->image);
    if (g->fd >= 0)
        close(g->fd);
    free(g->path);
    free(g);
    *glimpse = NULL;
}
