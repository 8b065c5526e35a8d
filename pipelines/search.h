/* The best point of a box for a function that is dear to ask: Bayesian optimisation. A Gaussian process is fitted to what was
 * asked so far, and the point that promises most over the best is asked next (expected improvement). */
#ifndef GV_PIPELINES_SEARCH_H
#define GV_PIPELINES_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

enum { GV_SEARCH_AXES = 8, GV_SEARCH_TRIALS = 1000 };

struct search {
    int           axes; /* 1 .. GV_SEARCH_AXES */
    double        least[GV_SEARCH_AXES], most[GV_SEARCH_AXES];
    int           trials; /* 1 .. GV_SEARCH_TRIALS times that value is asked */
    const double *start;  /* [axes] the first point that is asked, pulled into the box where it is possible there; NULL: any */
    uint64_t      seed;   /* the same seed asks the same points where it gets the same values */
    /* Whether a point of the box may be asked; NULL: every one. A thousandth of the box at least must be possible. */
    bool (*possible)(void *user, const double *x);
    /* What is to be as large as can be. A failure ends the search. */
    gv_status (*value)(void *user, const double *x, double *out, struct error *e);
    void *user;
};

/* best [axes]. Errors: ARGUMENT (nothing possible was found), MEMORY, and those of value. */
gv_status gv_search(const struct search *s, double *best, double *value, struct error *e);

#endif
