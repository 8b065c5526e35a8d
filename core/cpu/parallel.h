/* The only threads in the library: one pool in each CPU device, made when it opens. Several runs in several threads may call
 * at once: their jobs queue, and each caller works on its own job, so none waits for a free thread. A call from inside a body
 * runs in place. Who runs which i is left to chance: a body must give the same result whoever runs it, and the number of
 * slices must come from shapes, never from the number of threads, so that frames do not depend on it. */
#ifndef GV_CORE_CPU_PARALLEL_H
#define GV_CORE_CPU_PARALLEL_H

#include "core/device.h"

/* Runs body(arg, i) for every i in [0, n), on the pool's threads and the caller's; returns when all are done. */
void gv_parallel_for(struct device *d, int64_t n, void (*body)(void *arg, int64_t i), void *arg);
/* Threads that work on a call, the caller's included; at least 1. For sizing per-thread memory and for reports. */
int gv_cpu_threads(const struct device *d);

/* Where slice i of n ends (and i + 1 begins) when count things are shared out evenly in multiples of grain. */
static inline int64_t gv_slice_end(int64_t count, int64_t grain, int64_t n, int64_t i)
{
    const int64_t grains = (count + grain - 1) / grain, end = grains * (i + 1) / n * grain;

    return end < count ? end : count;
}

/* The pool itself, for device_cpu.c. threads: the caller's included. NULL when out of memory or threads. */
struct cpu_pool;
struct cpu_pool *gv_pool_open(int threads);
void             gv_pool_close(struct cpu_pool *p);
void             gv_pool_for(struct cpu_pool *p, int64_t n, void (*body)(void *arg, int64_t i), void *arg);
int              gv_pool_threads(const struct cpu_pool *p);

#endif
