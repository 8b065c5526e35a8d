/* Seconds of a clock that only goes forward: for stages, progress and rates. */
#ifndef GV_CORE_CLOCK_H
#define GV_CORE_CLOCK_H

#include <time.h>

static inline double gv_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
