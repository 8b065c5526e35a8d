/* Where a clip goes: the name that is chosen when none is given, and everything about a given one that can be refused before
 * a model is loaded. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include "open.h"

/* Fills path (CLI_PATH bytes): -o as given, or a new name made of the prompt and the seed. Checks extension, folder, and
 * that nothing would be replaced unasked. Returns an exit status and has printed the reason. */
int cli_output_choose(struct cli_printer *p, const struct cli_args *a, const char *prompt, char *path);

/* Whether a folder takes new files; for what is written beside the clip. */
int cli_output_writable(struct cli_printer *p, const char *option, const char *path);

#endif
