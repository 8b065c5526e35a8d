/* What the files that know libav share: quiet contexts, a file by its descriptor, a source that is opened behind locks, frames
 * to RGB. For io/libav*.c alone; everyone else includes io/media.h or io/clip.h, where nothing of libav shows. */
#ifndef GV_IO_LIBAV_H
#define GV_IO_LIBAV_H

#include <stdbool.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

#include "io/media.h"

enum { GV_AV_QUIET = 64 };

/* PATH: what: libav's reason. Out of memory is MEMORY whatever code says. */
gv_status gv_av_fail(struct error *e, gv_status code, const char *path, const char *what, int err);
gv_status gv_av_no_memory(struct error *e, const char *path);

/* A format context stops to print. quiet must outlive f. */
void gv_av_quieten(AVFormatContext *f, AVClass *quiet);

/* A regular file by descriptor. Each AVIOContext on it has its own place. */
struct av_file {
    int     fd;
    int     err; /* errno of the first failure to write */
    bool    writes;
    int64_t at;
};
AVIOContext *gv_av_file_open(struct av_file *f); /* NULL when memory ran out */
void         gv_av_file_close(AVIOContext **io);

/* A demuxer of a short list over a descriptor, with every other stream than those wanted discarded. Zeroed is closed. */
struct av_source {
    struct av_file   file;
    AVClass          quiet;
    AVFormatContext *format;
    AVIOContext     *io;
    AVStream        *stream; /* the first video */
    AVCodecContext  *decoder;
    AVPacket        *packet;
    AVFrame         *frame;
};
/* The container alone: no stream chosen, all discarded. Errors: FORMAT, UNSUPPORTED, MEMORY. */
gv_status gv_av_source_open(struct av_source *s, enum media_clip kind, int fd, const char *path, struct error *e);
/* Then its first video, with a decoder of a short list. Errors: FORMAT, UNSUPPORTED, MEMORY. */
gv_status gv_av_source_video(struct av_source *s, const char *path, struct error *e);
/* par NULL: a still. One thread, since concealment depends on threads. Errors: FORMAT, UNSUPPORTED, MEMORY. */
gv_status gv_av_decoder_open(struct av_source *s, enum AVCodecID id, const AVCodecParameters *par, const char *path,
                             struct error *e);
/* The next frame of the video into s->frame; false at the end. Bad packets are passed over, up to a limit. Errors: FORMAT
 * (nothing can be decoded, or too much cannot). */
gv_status gv_av_next_frame(struct av_source *s, bool *got, const char *path, struct error *e);
void      gv_av_source_close(struct av_source *s);

/* EXIF's number, 1..8, for the axis-aligned part of the stream's display matrix. */
int gv_av_orientation(const AVStream *st);
/* Whether chroma that does not say where it sits is taken as centred. */
bool gv_av_centred(enum AVCodecID id);

/* still: matrix and range as pictures have them where the frame does not say. alpha goes over white.
 * Errors: FORMAT (too large), UNSUPPORTED (a pixel format, matrix or curve that is not read), MEMORY. */
gv_status gv_av_image(struct image *im, const AVFrame *f, bool still, bool centred, const char *path, struct error *e);
/* Pixels that are not square become so: stretched, never shrunk, along the longer axis. */
gv_status gv_av_square_pixels(struct image *im, AVRational sar, const char *path, struct error *e);

#endif
