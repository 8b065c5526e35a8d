/* genvid: a client of the library. Finds the command, reads its options, runs it; without one, on a terminal, it converses. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

static int version(void)
{
    printf("genvid %s\n", gv_version());
    return EXIT_OK;
}

static int no_command(const char *word)
{
    const char *near = word ? cli_nearest(word, 0) : NULL;
    if (!word)
        fprintf(stderr, "genvid: no command. Try: genvid video \"a red fox in snow\", or genvid help\n");
    else if (near)
        fprintf(stderr, "genvid: unknown command \"%s\"; did you mean %s?\n", word, near);
    else
        fprintf(stderr, "genvid: unknown command \"%s\"; genvid help lists them\n", word);
    return EXIT_USAGE;
}

static int run(const struct cli_args *a)
{
    if (a->help)
        return cli_help_command(a->command);
    if (a->version)
        return version();
    if (a->print_config)
        return cli_config_print(a);
    switch (a->command->bit) {
    case CLI_VIDEO: return cli_video(a);
    case CLI_CAPTION: return cli_caption(a);
    case CLI_CALIBRATE: return cli_calibrate(a);
    case CLI_INFO: return cli_info(a);
    case CLI_BENCH: return cli_bench(a);
    case CLI_COMPLETIONS: return cli_completions(a);
    case CLI_PROBE: return cli_probe(a);
    case CLI_RERUN: return cli_rerun(a);
    default: return cli_help(a);
    }
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;
    if (word && (!strcmp(word, "--help") || !strcmp(word, "-h")))
        return cli_help_all();
    if (word && !strcmp(word, "--version"))
        return version();
    if (!word && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        return cli_session();
    const struct cli_command *command = word ? cli_command_find(word) : NULL;
    if (!command)
        return no_command(word);

    struct cli_args a;
    char            why[512];
    int             status = EXIT_USAGE;
    cli_args_init(&a, command);
    if (cli_args_parse(&a, argc - 2, argv + 2, why, sizeof why))
        status = run(&a);
    else
        fprintf(stderr, "genvid: %s (genvid help %s lists the options)\n", why, command->name);
    cli_args_free(&a);
    return status;
}
