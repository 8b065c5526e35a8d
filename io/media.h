/* What libav does for us: clips out; stills and the first frame of clips in (io/clip.h: all of them). Nothing of libav shows
 * here; io/libav*.c alone include its headers. Present where GV_HAVE_FFMPEG is defined. */
#ifndef GV_IO_MEDIA_H
#define GV_IO_MEDIA_H

#include "io/image.h"
#include "io/media_kind.h"
#include "io/sink_kind.h"

extern const struct sink_kind gv_sink_mp4, gv_sink_mov, gv_sink_mkv, gv_sink_webm, gv_sink_gif;

/* One still from the bytes of a file whose kind is known, alpha over white, EXIF orientation not applied.
 * Errors: FORMAT (damaged or too large), UNSUPPORTED, MEMORY; the message names path. */
gv_status gv_media_read_still(struct image *im, enum media_still kind, const uint8_t *bytes, size_t size, const char *path,
                              struct error *e);

/* The first frame of a clip whose container is known, pixels made square, alpha over white. orientation as in EXIF, 1..8,
 * not yet applied. fd: a regular file, read with pread. Errors as above. */
gv_status gv_media_read_clip(struct image *im, int *orientation, enum media_clip kind, int fd, const char *path,
                             struct error *e);

#endif
