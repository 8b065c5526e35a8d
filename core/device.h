/* A device: a place to allocate and a table of operations. Models call core/ops.h, which checks shapes once and then calls
 * the table; nothing above core/ knows which device it runs on.
 *
 * Slots marked "optional" may be NULL: ops.c composes them from the others, or the caller is told UNSUPPORTED; there is no
 * silent fallback to another device. An operation that needs memory of its own says so through its _workspace slot, a pure
 * function of shapes, so that the null device can predict it.
 *
 * The null device stands for another: it takes that device's answers about sizes and types, allocates nothing, computes
 * nothing. A model run on it yields the peak of memory and the FLOPs, and has had every shape checked.
 *
 * Threads: a device may be used by several runs in several threads at once; the CPU device serves them with one pool. */
#ifndef GV_CORE_DEVICE_H
#define GV_CORE_DEVICE_H

#include <stdatomic.h>

#include "core/arena.h"
#include "core/log.h"

struct device;
struct run;
struct linear_opts;
struct norm_opts;
struct conv_opts;
struct noise_key;
struct lincomb_term;
struct attn_ops;

enum device_kind { GV_DEVICE_CPU, GV_DEVICE_CUDA };

/* What a weight will be used for; decides how prepare() orders it. */
enum weight_use { WEIGHT_PLAIN, WEIGHT_LINEAR, WEIGHT_CONV };

struct device_ops {
    /* memory */
    void *(*alloc)(struct device *d, size_t bytes); /* aligned to GV_ALIGN; NULL when there is none */
    void (*free)(struct device *d, void *p, size_t bytes);
    void (*upload)(struct run *r, struct tensor dst, const void *src); /* contiguous, same type; host → device */
    void (*download)(struct run *r, void *dst, struct tensor src);     /* finished on return */
    void (*sync)(struct run *r);
    void (*close)(struct device *d);
    /* weights: bytes that prepare() will write for this weight, given its final type. Pure. */
    size_t (*prepared_bytes)(struct device *d, const struct tensor *w, enum weight_use use);
    /* dst: prepared_bytes of device memory. src: contiguous host tensor of any float type. out describes dst. */
    gv_status (*prepare)(struct device *d, void *dst, struct tensor src, enum dtype type, enum weight_use use,
                         struct tensor *out, struct error *e);

    /* operations: arguments as in ops.h, already checked; ws: workspace() bytes of scratch */
    size_t (*linear_workspace)(struct device *d, struct tensor y, struct tensor x, struct tensor w,
                               const struct linear_opts *o);
    void (*linear)(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o, void *ws);
    size_t (*conv_workspace)(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o);
    void (*conv)(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *ws);
    void (*norm)(struct run *r, struct tensor y, struct tensor x, const struct norm_opts *o);
    void (*glu)(struct run *r, struct tensor y, struct tensor a, struct tensor b, int act);
    void (*act)(struct run *r, struct tensor y, struct tensor x, int act);
    void (*add)(struct run *r, struct tensor y, struct tensor a, struct tensor b);
    void (*copy)(struct run *r, struct tensor dst, struct tensor src);
    void (*fill)(struct run *r, struct tensor dst, float value);
    void (*gather)(struct run *r, struct tensor y, struct tensor table, struct tensor index);
    void (*lincomb)(struct run *r, struct tensor y, int n, const struct lincomb_term *terms);
    void (*patchify)(struct run *r, struct tensor rows, struct tensor x, const int *patch);
    void (*unpatchify)(struct run *r, struct tensor x, struct tensor rows, const int *patch);
    void (*upsample)(struct run *r, struct tensor y, struct tensor x);
    void (*noise)(struct run *r, struct tensor y, const struct noise_key *key);
    void (*check_finite)(struct run *r, struct tensor x, const char *what);
};

struct device {
    const struct device_ops *ops;
    enum device_kind         kind;
    const char              *name;       /* "cpu" */
    char                     what[128];  /* in words: "NVIDIA H200, compute capability 9.0, 140 GiB" */
    struct device           *stands_for; /* the null device: the one it wraps; else NULL */
    enum dtype               compute;    /* what it does fast: GV_BF16 or GV_F32 */
    const struct log        *log;
    size_t                   budget;       /* bytes of our allocations to stay under */
    atomic_size_t            in_use, peak; /* bytes of our allocations */
    atomic_uint              refused;      /* allocations that failed */
    void                    *impl;         /* the device's own */
    const struct attn_ops   *attention;    /* of a device in a module: attention/attn_ops.h. Core does not look inside */
};

struct device_params {
    const char       *name;      /* "cpu", "cuda"; NULL = best present */
    int               threads;   /* 0 = one per core */
    size_t            budget;    /* 0 = what is free */
    const char       *cpu_level; /* highest instruction set to use; NULL = all present */
    const char       *precision; /* "f32", "bf16"; NULL = the device's own */
    const struct log *log;
};

gv_status gv_device_open(struct device **out, const struct device_params *p, struct error *e);
void      gv_device_close(struct device **d);
/* The null device that stands for d. Closed before d. */
gv_status          gv_device_null(struct device **out, struct device *d, struct error *e);
static inline bool gv_device_is_null(const struct device *d)
{
    return d->stands_for;
}

/* Counted allocation: fails with MEMORY when the budget or the machine has no more; the message says how much was wanted
 * and what for. On the null device: counts and returns NULL with GV_OK. */
gv_status gv_device_alloc(struct device *d, size_t bytes, const char *what, void **out, struct error *e);
void      gv_device_free(struct device *d, void *p, size_t bytes);

/* cpu: used by device.c alone. */
gv_status gv_device_cpu_open(struct device **out, const struct device_params *p, struct error *e);
void      gv_device_null_close(struct device *d);

#endif
