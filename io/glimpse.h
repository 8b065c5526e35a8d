/* A clip looked at now and then: its length first, told from all of its packets without decoding one, then the pictures that are
 * shown at some times. Pictures between are decoded, as codecs need it, but never converted; memory does not grow with the
 * clip. (io/clip.h: every picture, or an even rate.) Present where GV_HAVE_FFMPEG is defined. */
#ifndef GV_IO_GLIMPSE_H
#define GV_IO_GLIMPSE_H

#include <stdbool.h>

#include "io/frame.h"

struct glimpse;

struct glimpse_info {
    int     width, height; /* of the first picture, upright, pixels square */
    int64_t frames;        /* packets of the video: more than its pictures where the file is damaged */
    double  seconds;       /* from the first picture's time to the end of the last */
};

/* Whether path begins as a container of clips does, not as a picture. GIFs count as clips; so does what libav will then refuse.
 * False where it cannot be read. */
bool gv_glimpse_detect(const char *path);

/* path: a regular file. Errors: IO, FORMAT (no picture in it, damaged), UNSUPPORTED, MEMORY; the message names path. */
gv_status gv_glimpse_open(struct glimpse **out, struct glimpse_info *info, const char *path, struct error *e);
void      gv_glimpse_close(struct glimpse **g); /* NULL is fine */

/* The picture shown at `seconds` from the first one's time, never before that of the call before; the last one from its time
 * on, the first one before. *im: valid until the next call, of the size of info. Errors: FORMAT (damaged; a picture of another size), UNSUPPORTED,
 * MEMORY. */
gv_status gv_glimpse_at(struct glimpse *g, double seconds, const struct image **im, struct error *e);

#endif
