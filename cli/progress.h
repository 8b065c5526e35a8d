/* What the command says while it works, in one of three manners chosen once: a line that is rewritten (stderr is a terminal),
 * plain lines (it is not), or JSON lines (--json). All of it goes to stderr; stdout is for results.
 *
 * Threads: the library may log from any thread; every function here holds stderr's own lock while it writes. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <jansson.h>

#include "args.h"
#include "picture.h"

struct cli_printer {
    bool         terminal, json, quiet;
    bool         line_open;   /* a progress line stands on the terminal without its newline */
    gv_log_level level;       /* what the library is asked for */
    enum cli_graphics graphics;    /* of the terminal; NONE where it is none */
    int               picture_rows; /* a picture stands right above the line that the cursor is in */
    char         stage[32];   /* of the last progress */
    double       stage_start; /* seconds since the request began */
    double       seen, shown; /* the same, of the last progress and of the last one printed */
};

void cli_printer_open(struct cli_printer *p, const struct cli_args *a);

/* gv_log_fn with the printer as its user. */
void cli_log(void *printer, gv_log_level level, const char *message);
void cli_progress(struct cli_printer *p, const gv_progress *progress);
void cli_progress_end(struct cli_printer *p);

/* A picture in the terminal, over the last one where nothing was said since. */
void cli_show(struct cli_printer *p, const struct cli_pixels *pixels);

/* A line for a reader: not with --quiet, not with --json. */
void cli_say(struct cli_printer *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The reason of a failure, always; returns status. */
int cli_fail(struct cli_printer *p, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* One JSON object as one line of stderr. Takes over the reference; NULL is fine. */
void cli_event(struct cli_printer *p, json_t *event);

/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. text may be NULL: null. */
json_t *cli_json_text(const char *text);
/* Bytes of the UTF-8 character that text begins with; 0 if it begins with none. */
size_t cli_utf8_length(const char *text);

#endif
