#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "args.h"

static volatile sig_atomic_t interrupted, for_good, asks;
static _Atomic(gv_session *) running;

/* A signal that comes just before the read of a line begins does not end it: it is followed by alarms until one does. */
static void follow(int number)
{
    (void)number;
    if (interrupted && asks)
        alarm(1);
}

static void on_signal(int number)
{
    if (interrupted && !asks)
        _exit(EXIT_CANCELLED);
    interrupted = 1;
    if (number != SIGINT)
        for_good = 1;
    follow(number);
    gv_session *session = atomic_load(&running);
    if (session)
        gv_session_cancel(session);
}

void cli_interrupt_catch(void)
{
    struct sigaction stop = { .sa_handler = on_signal }, again = { .sa_handler = follow }, before;
    sigemptyset(&stop.sa_mask);
    sigemptyset(&again.sa_mask);
    sigaction(SIGALRM, &again, NULL);
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
    if (!asking)
        alarm(0);
}

void cli_interrupt_forget(void)
{
    interrupted = for_good;
}

bool cli_interrupted_for_good(void)
{
    return for_good != 0;
}

bool cli_interrupted(void)
{
    return interrupted != 0;
}
