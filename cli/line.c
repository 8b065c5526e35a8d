/* The history is $GENVID_HISTORY, or genvid_history in $XDG_STATE_HOME or ~/.local/state where that folder is there; an empty
 * variable keeps none. Of locales only the kind of characters is taken over: numbers stay as "C" writes them. */
#define _XOPEN_SOURCE 700 /* wide characters in libedit's header */
#include "line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GV_HAVE_LIBEDIT

#include <editline/readline.h>
#include <locale.h>
#include <stdint.h>

enum { HISTORY_LINES = 1000 };

static const char *const *candidates; /* libedit's callbacks carry no argument */

static const char *history_path(char *out, size_t size)
{
    const char *own = getenv("GENVID_HISTORY"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (own)
        return *own ? own : NULL;
    if (state && *state)
        snprintf(out, size, "%s/genvid_history", state);
    else if (home && *home)
        snprintf(out, size, "%s/.local/state/genvid_history", home);
    else
        return NULL;
    return out;
}

static char *next_candidate(const char *text, int state)
{
    static int at;
    at = state ? at : 0;
    while (candidates && candidates[at])
        if (!strncmp(candidates[at++], text, strlen(text)))
            return strdup(candidates[at - 1]);
    return NULL;
}

static char **complete(const char *text, int start, int end)
{
    (void)end;
    rl_attempted_completion_over = 1; /* file names are no completions of a prompt */
    return start == 0 && *text == ':' ? rl_completion_matches(text, next_candidate) : NULL;
}

void cli_line_open(const char *const *words)
{
    static char none[] = "";
    char        path[4096];
    const char *history = history_path(path, sizeof path);
    candidates = words;
    setlocale(LC_CTYPE, "");
    rl_readline_name = (char *)(uintptr_t) "genvid";
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = none; /* a line is one word */
    rl_completion_append_character = 0;
    using_history();
    stifle_history(HISTORY_LINES);
    if (history)
        read_history(history);
}

char *cli_line_read(const char *prompt)
{
    errno = 0;
    char *line = readline(prompt);
    if (line && *line)
        add_history(line);
    return line;
}

void cli_line_close(void)
{
    char        path[4096];
    const char *history = history_path(path, sizeof path);
    if (history)
        write_history(history); /* where there is no such folder, there is no history */
}

#else

void cli_line_open(const char *const *words)
{
    (void)words;
}

char *cli_line_read(const char *prompt)
{
    char  *line = NULL;
    size_t room = 0;
    fputs(prompt, stdout);
    fflush(stdout);
    errno = 0;
    const ssize_t n = getline(&line, &room, stdin);
    if (n < 0) {
        const int reason = errno;
        free(line);
        clearerr(stdin);
        errno = reason;
        return NULL;
    }
    line[strcspn(line, "\n")] = 0;
    return line;
}

void cli_line_close(void)
{
}

#endif
