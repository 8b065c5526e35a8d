/* Options → a gv_video_request: the part of `genvid video` that the interactive session shares. */
#ifndef CLI_REQUEST_H
#define CLI_REQUEST_H

#include "args.h"

enum { CLI_NAMED = 11 }; /* options of the command that are options of the model */

struct cli_request {
    gv_video_request q;
    gv_option        options[CLI_MAX_PAIRS + CLI_NAMED];
};

/* Everything but prompt, output and callbacks. Borrows from a and m; r must not move afterwards. */
void cli_request_fill(struct cli_request *r, const struct cli_args *a, const gv_model *m);

/* A seed that nobody chose: 32 bits, so that it is easily typed again. */
int64_t cli_chance(void);

#endif
