/* A pool of pthreads and a list of jobs. A job lives on its caller's stack: an index that threads count up, and the number of
 * workers that are inside it. The caller lists the job, works on it like everyone else, takes it off the list when the index
 * has run out, and waits until the last worker has left; so it never waits for a thread to become free, and a job can have
 * workers or none.
 *
 * Operations follow each other within microseconds, and waking a thread costs about as much as a small operation: workers spin
 * for a moment before they sleep, and so does a caller that waits for the last slice. */
#include "core/cpu/parallel.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "core/cpu/cpu.h"

enum { SPINS = 2000 }; /* about 20-50 µs */

struct job {
    void (*body)(void *arg, int64_t i);
    void       *arg;
    int64_t     n;
    atomic_llong next;    /* first index that nobody has taken */
    atomic_int   workers; /* threads of the pool inside this job */
    pthread_t   caller;
    struct job *link;
};

struct cpu_pool {
    pthread_mutex_t mutex;
    pthread_cond_t  wake;    /* a job was listed, or stop */
    struct job     *jobs;    /* those that may still have indices to take */
    atomic_uint     listed;  /* counts listings: what a spinning worker watches */
    int             sleeping;
    bool            stop;
    int             n_threads; /* of the pool itself: one fewer than asked for, the caller is the other */
    pthread_t       thread[];
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void work(struct job *j)
{
    for (int64_t i; (i = (int64_t)atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->n;)
        j->body(j->arg, i);
}

static void unlist(struct cpu_pool *p, const struct job *j)
{
    for (struct job **at = &p->jobs; *at; at = &(*at)->link)
        if (*at == j) {
            *at = j->link;
            return;
        }
}

/* With the mutex held: a job to work on, entered; or NULL to stop. */
static struct job *next_job(struct cpu_pool *p)
{
    for (;;) {
        while (p->jobs && atomic_load_explicit(&p->jobs->next, memory_order_relaxed) >= p->jobs->n)
            p->jobs = p->jobs->link;
        if (p->jobs) {
            atomic_fetch_add_explicit(&p->jobs->workers, 1, memory_order_relaxed);
            return p->jobs;
        }
        if (p->stop)
            return NULL;
        const unsigned seen = atomic_load(&p->listed);

        pthread_mutex_unlock(&p->mutex);
        for (int i = 0; i < SPINS && atomic_load_explicit(&p->listed, memory_order_relaxed) == seen; i++)
            pause_cpu();
        pthread_mutex_lock(&p->mutex);
        while (!p->jobs && !p->stop) {
            p->sleeping++;
            pthread_cond_wait(&p->wake, &p->mutex);
            p->sleeping--;
        }
    }
}

static void *worker(void *arg)
{
    struct cpu_pool *p = arg;

    pthread_mutex_lock(&p->mutex);
    for (struct job *j; (j = next_job(p));) {
        pthread_mutex_unlock(&p->mutex);
        work(j);
        pthread_mutex_lock(&p->mutex);
        unlist(p, j);
        atomic_fetch_sub_explicit(&j->workers, 1, memory_order_release); /* the last touch: the caller may return now */
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* With the mutex held: is this thread inside a body already? */
static bool nested(const struct cpu_pool *p, pthread_t self)
{
    for (int i = 0; i < p->n_threads; i++)
        if (pthread_equal(p->thread[i], self))
            return true;
    for (const struct job *j = p->jobs; j; j = j->link)
        if (pthread_equal(j->caller, self))
            return true;
    return false;
}

static bool list_job(struct cpu_pool *p, struct job *j)
{
    pthread_mutex_lock(&p->mutex);
    const bool can = !nested(p, j->caller);

    if (can) {
        struct job **end = &p->jobs;

        while (*end)
            end = &(*end)->link;
        *end = j;
        atomic_fetch_add(&p->listed, 1);
        if (p->sleeping)
            pthread_cond_broadcast(&p->wake);
    }
    pthread_mutex_unlock(&p->mutex);
    return can;
}

void gv_pool_for(struct cpu_pool *p, int64_t n, void (*body)(void *arg, int64_t i), void *arg)
{
    struct job j = { .body = body, .arg = arg, .n = n, .caller = pthread_self() };

    if (n <= 1 || !p->n_threads || !list_job(p, &j)) { /* nothing to share, or a call from inside a body */
        for (int64_t i = 0; i < n; i++)
            body(arg, i);
        return;
    }
    work(&j);
    pthread_mutex_lock(&p->mutex);
    unlist(p, &j);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; atomic_load_explicit(&j.workers, memory_order_acquire); i++) {
        pause_cpu();
        if (i > SPINS) { /* more threads than cores: let the worker have this one */
            struct timespec nap = { .tv_nsec = 20000 };

            nanosleep(&nap, NULL);
        }
    }
}

int gv_pool_threads(const struct cpu_pool *p)
{
    return p->n_threads + 1;
}

struct cpu_pool *gv_pool_open(int threads)
{
    const int        n = threads > 1 ? threads - 1 : 0;
    struct cpu_pool *p = calloc(1, sizeof *p + (size_t)n * sizeof p->thread[0]);

    if (!p)
        return NULL;
    sigset_t all, before;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* a program's signals are for its own threads */
    pthread_mutex_lock(&p->mutex); /* workers look at thread[] only through jobs, which come after this */
    for (; p->n_threads < n; p->n_threads++)
        if (pthread_create(&p->thread[p->n_threads], NULL, worker, p))
            break;
    pthread_mutex_unlock(&p->mutex);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (p->n_threads < n)
        gv_pool_close(p), p = NULL;
    return p;
}

void gv_pool_close(struct cpu_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    atomic_fetch_add(&p->listed, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < p->n_threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

void gv_parallel_for(struct device *d, int64_t n, void (*body)(void *arg, int64_t i), void *arg)
{
    gv_pool_for(gv_cpu_of(d)->pool, n, body, arg);
}

int gv_cpu_threads(const struct device *d)
{
    return gv_pool_threads(gv_cpu_of(d)->pool);
}
