/* A line from a terminal, with editing, completion and a history that outlives the program where libedit is there, plainly where
 * it is not. One terminal, one thread: the library behind it keeps its state to itself. */
#ifndef CLI_LINE_H
#define CLI_LINE_H

#include <stddef.h>

/* words: what lines may begin with, ended by NULL; borrowed for as long as lines are read. */
void cli_line_open(const char *const *words);
/* Without the newline; freed with free(). NULL at the end of input, or when a signal came (errno is EINTR). */
char *cli_line_read(const char *prompt);
void  cli_line_close(void);

#endif
