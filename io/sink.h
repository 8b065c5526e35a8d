/* Where frames go. A sink is opened before anything is computed, so that an unknown extension or an unwritable place is told
 * at once; it takes frames in presentation order; commit makes the result appear under its name, close without commit
 * leaves nothing behind. Files are written under a temporary name in the same directory, synced and renamed.
 *
 * Kinds, by extension: .mp4 (H.264; libav), .y4m, .rgb (raw), .png and .jpg (a numbered sequence: the name holds %d or %04d,
 * or the clip has one frame), "-" (stdout; format given). Add one: a struct sink_kind in its file, a line in sink.c. */
#ifndef GV_IO_SINK_H
#define GV_IO_SINK_H

#include <stdbool.h>

#include "core/log.h"
#include "io/frame.h"

struct sink_params {
    const char       *path;   /* "-" = stdout */
    const char       *format; /* extension without dot, overrides path's; required for stdout */
    int               width, height;
    double            fps;
    int64_t           frames; /* how many will come */
    int               crf;    /* H.264 quality, 0..51; -1 = 18 */
    const char       *preset; /* of the encoder; NULL = its own medium */
    const char       *comment; /* metadata: the recipe as JSON; may be NULL */
    const struct log *log;
};

struct sink;
/* Errors: ARGUMENT (unknown extension, odd size where the encoder has none), IO, UNSUPPORTED (a build without libav). */
gv_status gv_sink_open(struct sink **out, const struct sink_params *p, struct error *e);
/* rgb [height, width, 3] contiguous. Errors: IO (disk full, pipe closed), DEVICE (encoder). */
gv_status gv_sink_write(struct sink *s, const uint8_t *rgb, struct error *e);
gv_status gv_sink_commit(struct sink *s, struct error *e); /* flush, finish, sync, rename */
void      gv_sink_close(struct sink **s);                  /* without commit: removes what was begun */
/* Whether path's extension is one this build can write; for a check before a model is loaded. */
gv_status gv_sink_check(const char *path, const char *format, struct error *e);
/* JSON array [{"extension","description"}] for gv_output_formats; freed with free(). */
char *gv_sink_formats(void);

#endif
