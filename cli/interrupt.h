/* Ctrl-C, SIGTERM and SIGHUP: the first one cancels the session that runs, a second one ends the program at once. The only state
 * of the command outside of its structs, because a handler has no argument. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

#include "genvid.h"

void cli_interrupt_catch(void);
void cli_interrupt_session(gv_session *session); /* the one that runs; NULL when none does */
bool cli_interrupted(void);
bool cli_interrupted_for_good(void); /* by SIGTERM or SIGHUP: the program is to end, not only what it does; never forgotten */
void cli_interrupt_forget(void);     /* what was interrupted has been seen to */
void cli_interrupt_asking(bool asking); /* while a line is read, a second one ends nothing, and the read does not outlast one */

#endif
