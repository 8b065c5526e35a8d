/* The command line. One table of options (args.c) drives parsing, `genvid help` and the manual page (help.c), so that they
 * cannot disagree. A command is a name, a function and the options that carry its bit.
 *
 * This room is a client of the library like any other: it sees include/genvid.h and nothing else of it. Its names begin
 * with cli_, because gv_ belongs to the library that it links. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "genvid.h"

/* Exit statuses, after sysexits.h. */
enum cli_exit {
    EXIT_OK = 0,
    EXIT_DIFFERS = 1,    /* rerun: other frames than the file says */
    EXIT_USAGE = 64,     /* an option, a value or a request that cannot be */
    EXIT_DATA = 65,      /* a media file or a prompt file that is broken or not what it claims to be */
    EXIT_NO_INPUT = 66,  /* a file named on the command line that is not there */
    EXIT_MODEL = 69,     /* a checkpoint that cannot be used */
    EXIT_INTERNAL = 70,  /* a bug */
    EXIT_RESOURCE = 71,  /* memory or device */
    EXIT_IO = 74,        /* could not read or write */
    EXIT_CANCELLED = 130 /* Ctrl-C or SIGTERM */
};

/* Bits: an option lists the commands that take it. */
enum {
    CLI_VIDEO = 1,
    CLI_INFO = 2,
    CLI_BENCH = 4,
    CLI_HELP = 8,
    CLI_CAPTION = 16,
    CLI_PROBE = 32,
    CLI_RERUN = 64,
    CLI_CALIBRATE = 128,
    CLI_COMPLETIONS = 256
};

enum cli_type {
    ARG_FLAG,  /* bool */
    ARG_COUNT, /* int64_t, in [min, max] */
    ARG_REAL,  /* double, in [min, max] */
    ARG_BYTES, /* int64_t, with K, M, G or T */
    ARG_SIZE,  /* two int64_t: WxH, each in [min, max] */
    ARG_TEXT,  /* const char *, of argv */
    ARG_PAIR   /* name=value, appended to options */
};

struct json_t;

struct cli_option {
    const char   *name;
    char          letter; /* 0 = none */
    enum cli_type type;
    unsigned      commands;
    size_t        offset; /* of the field in struct cli_args */
    double        min, max;
    const char   *value; /* placeholder in help; NULL for flags */
    const char   *topic; /* heading in help */
    const char   *help;
};

struct cli_command {
    const char *name, *synopsis, *summary;
    unsigned    bit;
    int         words; /* how many words without a dash it takes at most */
};

enum { CLI_MAX_WORDS = 4096, CLI_MAX_PAIRS = 64 };

/* Numbers that were not given keep the value of cli_args_init, which lies outside their range. Texts point into argv. */
struct cli_args {
    const struct cli_command *command;
    const char               *words[CLI_MAX_WORDS];
    int                       n_words;

    const char *prompt_file, *negative, *image, *last_image, *model;
    int64_t     width, height; /* adjacent: ARG_SIZE writes both */
    int64_t     frames, steps, seed, threads, budget;
    double      seconds, fps, guidance, shift;
    const char    *question, *prune, *explain;
    int64_t        tokens, picture_tokens, top_k, recycle, recycle_every, pages, pages_every, picture_factor_layers;
    double      start, end, section; /* of clips, seconds */
    double         temperature, top_p, repetition, paint, paint_summary, picture_factor;
    const char *solver, *compat, *causal, *noise, *device, *precision, *cpu_level;
    const char *attention, *cache, *receipt;
    double         mass, cosine, lse, pruning;
    int64_t        trials;
    int64_t     preview_every;
    const char *preview_file;
    const char *output, *format, *codec, *bits, *crf, *audio, *report, *check_model;
    gv_option   options[CLI_MAX_PAIRS];
    char       *names[CLI_MAX_PAIRS]; /* of options; freed by cli_args_free */
    const char    *config;               /* --config; texts of that file are held by `texts` until cli_args_free */
    struct json_t *texts;
    bool           print_config;
    size_t      n_options;
    bool           srt, vtt, sidecar, together, prune_receipt, entropy, check;
    bool        overwrite, dry_run, json, quiet, verbose, help, version;
    bool        verify, list_devices, list_formats, list_options, list_shortcuts, list_words, man;
};

extern const struct cli_option  cli_options[];
extern const size_t             cli_n_options;
extern const struct cli_command cli_commands[];
extern const size_t             cli_n_commands;

/* NULL when there is none of that name. */
const struct cli_command *cli_command_find(const char *name);
/* The known word closest to a misspelt one, or NULL if none is close: commands (of = 0) or options of commands (of = bits). */
const char *cli_nearest(const char *word, unsigned of);

/* NULL when the commands have no option of that name. */
const struct cli_option *cli_option_find(const char *name, unsigned commands);

/* argv without the program and the command; what it says lies over what the file of --config says. a->command decides which
 * options are taken. False: message says why, in one
 * sentence that names the option, what was found and the range. Numbers are read as the "C" locale writes them, because
 * nothing here calls setlocale. */
void cli_args_init(struct cli_args *a, const struct cli_command *command);
bool cli_args_parse(struct cli_args *a, int argc, char **argv, char *message, size_t size);
/* One option as if argv held --name=text; text NULL: a flag. text is borrowed. */
bool cli_args_take(struct cli_args *a, const char *name, const char *text, char *message, size_t size);
void cli_args_free(struct cli_args *a);

/* help.c: for one command; the list of commands; the manual page (troff), on stdout. */
int cli_help(const struct cli_args *a);
int cli_help_command(const struct cli_command *c);
int cli_help_all(void);

/* The commands. Each returns an exit status. */
int cli_video(const struct cli_args *a);
int cli_caption(const struct cli_args *a);
int cli_info(const struct cli_args *a);
int cli_bench(const struct cli_args *a);
int cli_calibrate(const struct cli_args *a);
int cli_completions(const struct cli_args *a);
int cli_probe(const struct cli_args *a);
int cli_rerun(const struct cli_args *a);
int cli_session(void); /* no command, on a terminal */

#endif
