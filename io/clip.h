/* The pictures of a clip in the order of their times, one at a time: memory does not grow with the clip. At a wanted rate, a
 * picture is repeated or passed over as FFmpeg's filter `fps` does it (round near), whatever the clip's own rate and however it
 * varies. Rotation is applied and pixels are square. Present where GV_HAVE_FFMPEG is defined. */
#ifndef GV_IO_CLIP_H
#define GV_IO_CLIP_H

#include <stdbool.h>

#include "io/frame.h"

struct clip;
/* fps: 0 = the clip's own pictures, each once; else 0.1 to 1000. path: a regular file that is a clip by its first bytes (MP4,
 * MOV, Matroska, WebM, AVI, Y4M, GIF). Errors: ARGUMENT, IO, FORMAT, UNSUPPORTED, MEMORY; the message names path. */
gv_status gv_clip_open(struct clip **out, const char *path, double fps, struct error *e);

struct clip_picture {
    const struct image *image;    /* valid until the next call; the same pixels if the picture is repeated */
    int64_t             index;    /* at a rate: the time is index / fps, and the first need not be 0; else counted from 0 */
    double              seconds;  /* from the clip's start, which is where its first stream begins */
    bool                repeated; /* the same picture as the call before */
    bool                damaged;  /* what was missing in the file has been concealed */
};
/* *got false: the end. Pictures whose size changes on the way are as they are. Errors: FORMAT, UNSUPPORTED, MEMORY. */
gv_status gv_clip_next(struct clip *c, struct clip_picture *out, bool *got, struct error *e);
void      gv_clip_close(struct clip **c); /* NULL is fine */

#endif
