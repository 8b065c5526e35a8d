/* Frames as they are: Y4M, which every tool reads from a pipe, and bare RGB.
 *
 * y4m is C420mpeg2: 8-bit 4:2:0 with chroma on the left, BT.709 limited range, odd sizes rounded up as the format does.
 * y4m444 keeps chroma whole. Y4M has no field for the matrix: readers take 709 at 720 lines and more and 601 below, so tell
 * them (ffmpeg: -colorspace bt709 before -i). rgb is [frames, height, width, 3] without any header.
 *
 * Source: the YUV4MPEG2 format as mjpegtools yuv4mpeg(5) and FFmpeg libavformat/yuv4mpeg*.c have it. */
#include "io/sink_kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char frame_mark[] = "FRAME\n";
enum { MARK = sizeof frame_mark - 1 };

struct stream {
    struct part   part;
    int           width, height;
    enum yuv_kind yuv;
    uint8_t      *frame; /* the mark, then Y, U, V: one write a frame */
    size_t        frame_bytes, luma_bytes, chroma_bytes;
    ptrdiff_t     chroma_stride;
};

static gv_status stream_open(void **state, const struct sink_params *p, struct stream **out, struct error *e)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!(*state = s))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the output");
    s->part.fd = -1;
    s->width   = p->width;
    s->height  = p->height;
    *out       = s;
    return gv_part_open(&s->part, p->path, true, e);
}

static gv_status rgb_open(void **state, const struct sink_params *p, struct error *e)
{
    struct stream *s = NULL;
    return stream_open(state, p, &s, e);
}

static gv_status y4m_open(void **state, const struct sink_params *p, struct error *e)
{
    struct stream *s = NULL;
    int            num, den;
    char           header[160];
    TRY(stream_open(state, p, &s, e));

    const bool half  = strcmp(p->format, "y4m444") != 0;
    s->yuv           = half ? YUV_420 : YUV_444;
    s->luma_bytes    = (size_t)p->width * (size_t)p->height;
    s->chroma_stride = half ? (p->width + 1) / 2 : p->width;
    s->chroma_bytes  = (size_t)s->chroma_stride * (size_t)(half ? (p->height + 1) / 2 : p->height);
    s->frame_bytes   = MARK + s->luma_bytes + 2 * s->chroma_bytes;
    if (!(s->frame = malloc(s->frame_bytes)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a frame of %d×%d", p->width, p->height);
    memcpy(s->frame, frame_mark, MARK);

    gv_fps_ratio(p->fps, &num, &den);
    const int n = snprintf(header, sizeof header, "YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C%s XCOLORRANGE=LIMITED\n", p->width,
                           p->height, num, den, half ? "420mpeg2 XYSCSS=420MPEG2" : "444 XYSCSS=444");
    return gv_part_write(&s->part, header, (size_t)n, e);
}

static gv_status y4m_write(void *state, const uint8_t *rgb, struct error *e)
{
    struct stream *s = state;
    uint8_t       *y = s->frame + MARK, *u = y + s->luma_bytes;
    gv_yuv_from_rgb(y, s->width, u, u + s->chroma_bytes, s->chroma_stride, rgb, s->width, s->height, s->yuv);
    return gv_part_write(&s->part, s->frame, s->frame_bytes, e);
}

static gv_status rgb_write(void *state, const uint8_t *rgb, struct error *e)
{
    struct stream *s = state;
    return gv_part_write(&s->part, rgb, (size_t)s->width * (size_t)s->height * 3, e);
}

/* Nothing is held back: the part has it all. */
static gv_status stream_finish(void *state, const char **path, struct error *e)
{
    const struct stream *s = state;
    (void)e;
    *path = s->part.temp;
    return GV_OK;
}

static gv_status stream_commit(void *state, const char *comment, struct error *e)
{
    struct stream *s = state;
    (void)comment;
    return gv_part_publish(&s->part, 1, e);
}

static void stream_close(void *state)
{
    struct stream *s = state;
    gv_part_close(&s->part);
    free(s->frame);
    free(s);
}

const struct sink_kind gv_sink_y4m = {
    .extension   = "y4m",
    .description = "Y4M 4:2:0, BT.709 limited range; also to standard output",
    .open        = y4m_open,
    .write       = y4m_write,
    .finish      = stream_finish,
    .commit      = stream_commit,
    .close       = stream_close,
};
const struct sink_kind gv_sink_y4m444 = {
    .extension   = "y4m444",
    .description = "Y4M 4:4:4, BT.709 limited range; also to standard output",
    .open        = y4m_open,
    .write       = y4m_write,
    .finish      = stream_finish,
    .commit      = stream_commit,
    .close       = stream_close,
};
const struct sink_kind gv_sink_rgb = {
    .extension   = "rgb",
    .description = "bare 8-bit RGB frames; also to standard output",
    .open        = rgb_open,
    .write       = rgb_write,
    .commit      = stream_commit,
    .close       = stream_close,
};
