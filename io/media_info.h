/* What a media file says of itself: size, length, and the words that a program left in it. Nothing is decoded. */
#ifndef GV_IO_MEDIA_INFO_H
#define GV_IO_MEDIA_INFO_H

#include "core/status.h"
#include "io/media_kind.h"

enum { GV_COMMENT_BYTES = 16 << 20 };

struct media_info {
    const char *kind;                 /* "MP4", "PNG", as io/media_kind.h has it */
    int         width, height;        /* as stored; 0 = not told */
    double      fps, seconds;         /* 0 = not told, or a picture */
    char        codec[32], sound[32]; /* "" = none */
    char       *comment; /* PNG's "Comment", JPEG's COM, a container's comment; NULL = none. Owned; UTF-8 is not sure */
};
/* Errors: IO, FORMAT (not a media file, or broken), UNSUPPORTED (a kind that is not read, a build without libav), MEMORY. */
gv_status gv_media_info_read(struct media_info *out, const char *path, struct error *e);
void      gv_media_info_close(struct media_info *m);

/* For media_info.c: of a clip, in libav_info.c. Present where GV_HAVE_FFMPEG is defined. */
gv_status gv_media_clip_info(struct media_info *out, enum media_clip kind, int fd, const char *path, struct error *e);

#endif
