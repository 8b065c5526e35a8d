/* What the cases of opcheck and its bench share: a run on one device, its own random numbers, tensors filled from them. */
#ifndef GV_TESTS_OPCHECK_H
#define GV_TESTS_OPCHECK_H

#include "core/ops.h"

struct ctx {
    struct run run;
    uint64_t   state; /* of the random numbers */
    uint64_t   hash;  /* of all outputs */
    double     worst; /* error as a share of what is allowed */
    bool       failed;
    char       what[256]; /* the case, for a failure's line */
};

/* Exits with a sentence when the device cannot be opened. level NULL: all that is present. */
struct device *opcheck_device(const char *name, const char *level, int threads);
/* In the run's scratch. random: uniform in [-1, 1), else all NaN. */
struct tensor opcheck_filled(struct ctx *c, enum dtype type, int rank, const int64_t *dim, bool random);
struct tensor opcheck_vector(struct ctx *c, int64_t d); /* f32 [d], random */
struct tensor opcheck_prepared(struct ctx *c, struct tensor src, enum dtype type, enum weight_use use);

/* Prints rates of the shapes that matter, as a share of what the arithmetic units of this processor did in the same run. */
void opcheck_bench(const char *level, int threads);

#endif
