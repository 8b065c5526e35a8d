#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "args.h"

static volatile sig_atomic_t interrupted, asks;
static _Atomic(gv_session *) running;

static void on_signal(int number)
{
    (void)number;
    if (interrupted && !asks)
        _exit(EXIT_CANCELLED);
    interrupted = 1;
    gv_session *session = atomic_load(&running);
    if (session)
        gv_session_cancel(session);
}

void cli_interrupt_catch(void)
{
    struct sigaction stop = { .sa_handler = on_signal }, before;
    sigemptyset(&stop.sa_mask);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup keeps its meaning */
        sigaction(SIGHUP, &stop, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe and a file that may not grow are writes that fail: cleaned up and said */
    signal(SIGXFSZ, SIG_IGN);
}

void cli_interrupt_session(gv_session *session)
{
    atomic_store(&running, session);
}

void cli_interrupt_asking(bool asking)
{
    asks = asking;
}

void cli_interrupt_forget(void)
{
    interrupted = 0;
}

bool cli_interrupted(void)
{
    return interrupted != 0;
}
