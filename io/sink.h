/* Where frames go. A sink is opened before anything is computed, so that an unknown extension or an unwritable place is told
 * at once; it takes frames in presentation order; commit makes the result appear under its name, close without commit
 * leaves nothing behind. Files are written under a temporary name in the same directory, synced and renamed.
 *
 * Kinds, by extension: .mp4, .mov, .mkv, .webm and .gif (libav), .y4m, .rgb (raw), .png and .jpg (a numbered sequence: the
 * name holds %d or %04d, or the clip has one frame), "-" (stdout; format given). Add one: a struct sink_kind in its file, a
 * line in sink.c. */
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
    const char       *codec;  /* "h264", "hevc", "av1", "vp9", "ffv1", "prores"; NULL = the container's usual */
    int               bits;   /* 8, 10; 0 = the codec's usual, which is 8 but for ProRes */
    int               crf;    /* quality where the codec has it, 0..51 or 0..63, less is better; -1 = the codec's own */
    const char       *preset; /* of H.264 and HEVC; NULL = medium */
    const char       *comment; /* metadata: the recipe as JSON; may be NULL */
    const char       *audio;   /* a clip whose first sound goes along as it is, from audio_start on; NULL = none */
    double            audio_start; /* seconds */
    const struct log *log;
};

struct sink;
/* Errors: ARGUMENT (unknown extension, odd size where the encoder has none), IO, UNSUPPORTED (a build without libav). */
gv_status gv_sink_open(struct sink **out, const struct sink_params *p, struct error *e);
/* rgb [height, width, 3] contiguous. Errors: IO (disk full, pipe closed), DEVICE (encoder). */
gv_status gv_sink_write(struct sink *s, const uint8_t *rgb, struct error *e);
/* The same in 16 bits, worth its while where gv_sink_deep says so: an output of more than 8 bits. */
gv_status gv_sink_write16(struct sink *s, const uint16_t *rgb, struct error *e);
bool      gv_sink_deep(const struct sink *s);
/* When the last frame has come: *path is a file that holds them all and can be read as a clip, under its temporary name, until commit or
 * close; NULL where there is none (standard output, bare RGB, a sequence of pictures). Once, before commit; may be left out. */
gv_status gv_sink_finish(struct sink *s, const char **path, struct error *e);
/* Flush, finish, sync, rename. comment, if not NULL, stands in place of the one that the sink was opened with, where the kind
 * writes it last (mp4, mov, mkv, webm); pictures have theirs already. */
gv_status gv_sink_commit(struct sink *s, const char *comment, struct error *e);
void      gv_sink_close(struct sink **s);                  /* without commit: removes what was begun */
/* Whether path's extension is one this build can write; for a check before a model is loaded. */
gv_status gv_sink_check(const char *path, const char *format, const char *codec, struct error *e);
/* JSON array [{"extension","description","codecs"}] for gv_output_formats; freed with free(). */
char *gv_sink_formats(void);

#endif
