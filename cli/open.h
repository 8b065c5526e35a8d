/* What every command opens: an engine with the printer as its log, a model found where help says, a session. */
#ifndef CLI_OPEN_H
#define CLI_OPEN_H

#include "progress.h"

enum { CLI_PATH = 4096 };

struct cli_open {
    struct cli_printer printer;
    gv_engine         *engine;
    gv_model          *model;
    gv_session        *session;
    char               dir[CLI_PATH]; /* of the model */
};

/* Each returns an exit status and has printed the reason. */
int cli_open_engine(struct cli_open *c, const struct cli_args *a);
/* path NULL = the default model. */
int  cli_find_model(struct cli_open *c, const char *path);
int  cli_open_model(struct cli_open *c, const char *path);
/* The same for captions: of a video model, the default one too, what lies in its folder captioner. option names one, for messages. */
int  cli_open_captioner(struct cli_open *c, const char *path, const char *option);
int  cli_open_session(struct cli_open *c);
void cli_close(struct cli_open *c);

/* The exit status of a failed call on a session. */
int cli_status_exit(gv_status status);

/* JSON text that the library handed out, freed here; NULL if there is none or it is not JSON. */
json_t *cli_json_take(char *text);

#endif
