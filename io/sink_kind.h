/* What a kind of sink is made of, and the file that is either whole or absent. For sink.c and the files that hold a kind;
 * everyone else includes io/sink.h. */
#ifndef GV_IO_SINK_KIND_H
#define GV_IO_SINK_KIND_H

#include <stdbool.h>

#include "io/sink.h"

/* open has params that sink.c has checked (format is the kind's extension, fps and sizes in range) and may keep no pointer
 * of them but log. State is the kind's own; close is called once for each open that set it, also after failures. */
struct sink_kind {
    const char *extension, *description;
    const char *needs;                  /* NULL, or the library that this build lacks: the rest is then unset */
    const char *codecs;                 /* that the container holds, the usual one first, between spaces; NULL: one way only */
    gv_status (*check)(const struct sink_kind *k, const char *codec, struct error *e); /* whether it would work on this machine,
                                                                                        * codec NULL = the usual; may be NULL */
    void (*list)(char *text, size_t room, const char *codecs); /* those of codecs that can be written; with codecs */
    gv_status (*open)(void **state, const struct sink_params *p, struct error *e);
    gv_status (*write)(void *state, const uint8_t *rgb, struct error *e);
    gv_status (*write16)(void *state, const uint16_t *rgb, struct error *e); /* NULL: no more than 8 bits, ever */
    bool (*deep)(const void *state);                                         /* whether write16 is worth it; with write16 */
    gv_status (*finish)(void *state, const char **path, struct error *e); /* as gv_sink_finish; NULL: cannot be read yet */
    gv_status (*commit)(void *state, const char *comment, struct error *e);  /* comment: instead of the one of open, or NULL */
    void (*close)(void *state);
};
extern const struct sink_kind gv_sink_y4m, gv_sink_y4m444, gv_sink_rgb; /* y4m.c */

/* A file under a temporary name, ".NAME.PID-N.part" beside its place, until it is published. Standard output, pipes and
 * devices have no temporary name: what is written is gone. */
struct part {
    int   fd;   /* -1 = closed */
    char *path; /* where it shall appear; for messages too */
    char *temp; /* NULL: written in place, or published */
};
/* path may be "-" and a pipe or device if streams is set. An existing regular file will be replaced, a link's target rather
 * than the link. Errors: IO, ARGUMENT (a stream where none can be), MEMORY. */
gv_status gv_part_open(struct part *p, const char *path, bool streams, struct error *e);
/* All bytes or a failure: IO, with the system's reason. A closed pipe raises SIGPIPE first, which a library must not touch:
 * a program that writes to pipes ignores that signal, as the command does. */
gv_status gv_part_write(struct part *p, const void *bytes, size_t size, struct error *e);
/* Sync and close, not yet rename: keeps descriptors few where there are many parts. */
gv_status gv_part_seal(struct part *p, struct error *e);
/* Seal and rename all n, then sync the folder. If one fails, those that had appeared are removed again. */
gv_status gv_part_publish(struct part *parts, size_t n, struct error *e);
/* Removes what was not published. Safe on a zeroed part (whose fd 0 is not touched) and twice. */
void gv_part_close(struct part *p);
/* IO: "cannot write PATH: reason of err". */
gv_status gv_part_fail(const struct part *p, int err, struct error *e);

/* 23.976 → 24000/1001, 16 → 16/1, 12.5 → 25/2. fps in 0.1..1000. */
void gv_fps_ratio(double fps, int *num, int *den);

#endif
