/* --config and --print-config: a job as a JSON object whose keys are the options' long names. `prompt` is the prompt of a video,
 * `files` are a caption's; `option` is an object. Flags on the command line win over the file. */
#ifndef CLI_CONFIG_H
#define CLI_CONFIG_H

#include "args.h"

/* path "-" is stdin. False: message says file, key, what was found and the range. Texts belong to a->texts. */
bool cli_config_read(struct cli_args *a, const char *path, char *message, size_t size);
/* What was asked for, on stdout, as --config reads it. Returns an exit status. */
int cli_config_print(const struct cli_args *a);

#endif
