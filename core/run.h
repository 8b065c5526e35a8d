/* struct run: one request in progress on one device. It is what every operation and every model function is handed.
 *
 * Errors stick: the first failure is written here with its words and every later operation returns at once. Models check
 * nothing; the pipeline reads r->err at the end of a stage. A cancel is such a failure, noticed by the next operation, so
 * that work stops within one block.
 *
 * r->stage and r->where name the place ("step 3: blocks.7") for messages, taps and the non-finite check. */
#ifndef GV_CORE_RUN_H
#define GV_CORE_RUN_H

#include "core/device.h"

/* How a test or a calibration looks inside: called with every tensor a model names. NULL in every render and caption. */
struct tap {
    void (*fn)(void *user, struct run *r, const char *name, struct tensor x);
    void *user;
};

/* One request on several devices: rank of size, and a sum and an exchange between them. No device implements more than one
 * rank yet; models already go through run->comm where a result has to be united, so that it is the only thing to add. */
struct comm {
    int rank, size;
    void (*all_gather)(struct run *r, const struct comm *c, struct tensor dst, struct tensor src);
    void *impl;
};

struct run {
    struct device     *device;
    struct arena       scratch;
    enum dtype         compute; /* of activations between operations: GV_BF16 or GV_F32. Residual streams are always f32 */
    struct error       err;
    const atomic_bool *cancel; /* set from any thread; NULL = never */
    const struct tap  *tap;
    const struct comm *comm;           /* NULL = one device */
    double             flops;          /* counted by ops.c: 2 per multiply-add of products, convolutions and attention */
    bool               stream_weights; /* layers are fetched from the map as they are needed: see io/weights.h */
    char               stage[32];      /* set by the pipeline: "step 3" */
    char               where[64];      /* set by the model: "blocks.7" */
};

/* True while nothing has failed and nobody has cancelled. Every operation begins with it. */
bool gv_run_ready(struct run *r);
/* Write a failure into the run, prefixed by where. The first wins. */
void gv_run_fail(struct run *r, gv_status code, const char *fmt, ...) GV_PRINTF(3, 4);
void gv_run_enter(struct run *r, const char *fmt, ...) GV_PRINTF(2, 3); /* set r->where */
void gv_run_tap(struct run *r, const char *name, struct tensor x);      /* "where.name" to the tap, if there is one */

/* Scratch of the run, until the mark is released. On failure the run has failed and the tensor's data is NULL. */
struct tensor gv_scratch(struct run *r, enum dtype type, int rank, const int64_t *dim);
void         *gv_scratch_bytes(struct run *r, size_t bytes);

/* Scratch of the wanted size, for the whole run. counting = true for the null device. */
gv_status gv_run_open(struct run *r, struct device *d, enum dtype compute, size_t scratch_bytes, struct error *e);
void      gv_run_close(struct run *r);

#endif
