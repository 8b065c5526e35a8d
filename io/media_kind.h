/* What a media file is, told from its first bytes and never from its name. */
#ifndef GV_IO_MEDIA_KIND_H
#define GV_IO_MEDIA_KIND_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum media_still { MEDIA_WEBP, MEDIA_BMP, MEDIA_TIFF, MEDIA_GIF, MEDIA_JPEG };
enum media_clip { MEDIA_MOV, MEDIA_MATROSKA, MEDIA_AVI, MEDIA_Y4M, MEDIA_GIF_CLIP };
enum media_class { KIND_PNG, KIND_JPEG, KIND_STILL, KIND_CLIP, KIND_REFUSED };

struct media_kind {
    const char *name; /* "Matroska" */
    int         at, length;
    const char *bytes;
    int         at2, length2; /* a second place to look, where length2 is not 0 */
    const char *bytes2;
    enum media_class class;
    int detail; /* enum media_still or media_clip */
};

enum { GV_MEDIA_HEAD = 64 }; /* bytes that are enough */
/* NULL: nothing that is known. */
const struct media_kind *gv_media_kind(const uint8_t *head, size_t size);
/* Opens a file and tells what it is; *kind NULL: nothing that is known. *fd is the caller's, also after failures: -1 where nothing
 * was opened. Never waits: pipes are refused. Errors: IO, UNSUPPORTED (not a regular file). */
gv_status gv_media_open(int *fd, const struct media_kind **kind, const char *path, struct error *e);

#endif
