/* genvid video --check, and :set check: the clip is read back by a captioner before it has its name, and what was asked is compared with what was read.
 * A look, not a gate: captioners err, so what they say changes no exit status. */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include "open.h"

struct cli_check {
    struct cli_open  captioner; /* its model and session, on the video's engine */
    struct cli_open *video;
    const char      *prompt;
    char            *note;   /* for the recipe: {"check": {captioner, text, slots, asked, agree}}; NULL: was not made */
    json_t          *found;  /* what is under "check" */
    int              status; /* EXIT_OK, or why it was not made; that has been printed */
};

/* Whether the clip can be read back from this output; before anything is loaded. Returns an exit status and has printed the reason. */
int cli_check_output(struct cli_printer *p, const struct cli_args *a, const char *output);
/* Loads the captioner, as `genvid caption` finds it. video: its engine is open; prompt is borrowed. The same. */
int cli_check_open(struct cli_check *k, struct cli_open *video, const struct cli_args *a, const char *prompt);
/* As gv_made_fn, with the check as its user; what it found of the last clip is gone. Returns 0 always: a check that failed is no
 * reason to lose a clip. */
int  cli_check_made(void *check, const char *path, const char **note);
void cli_check_say(const struct cli_check *k);
void cli_check_close(struct cli_check *k);

#endif
