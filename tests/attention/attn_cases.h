/* Random attention calls and the truth about them. The truth is written from the contract's text in float64, one pair at a
 * time; it shares no code with the kernels. For the tests of attention/ only. */
#ifndef GV_TESTS_ATTN_CASES_H
#define GV_TESTS_ATTN_CASES_H

#include "attention/attention.h"

/* ---- a small generator: the same numbers from the same seed everywhere ---- */
uint64_t rnd(uint64_t *state);
int64_t  rnd_to(uint64_t *state, int64_t n); /* [0, n) */
float    rnd_normal(uint64_t *state);        /* mean 0, variance 1; sum of twelve */
uint64_t test_seed(void);                    /* GV_TEST_SEED or the clock; printed */

/* ---- a call with everything that it points at ---- */
struct attn_case {
    struct attn_call    c;
    struct attn_plan    plan;
    struct attn_partial seed, first;
    int64_t             rows; /* of the lists */
    void               *owned[128];
    int                 n_owned;
};

enum {
    WITH_LISTS = 1,
    WITH_MASK = 2,
    WITH_SPLIT = 4,
    WITH_SEED = 8,
    WITH_SKIP = 16,
    WITH_ORDER = 32,
    WITH_BIAS = 64,
    WITH_WEIGHTS = 128,
    WITH_ALWAYS = 256,
    WITH_EMPTY_ROWS = 512
};
struct case_shape {
    int        B, Nq, A, A_kv, D, Dv, n_sources, N[GV_ATTN_SOURCES];
    enum dtype type, out;
    unsigned   with;
};
void          case_make(struct attn_case *k, const struct case_shape *s, uint64_t *state);
void          case_free(struct attn_case *k);
void          case_poison(struct attn_case *k); /* NaN into out and first */
void         *case_alloc(struct attn_case *k, size_t bytes);
struct tensor case_tensor(struct attn_case *k, enum dtype type, int rank, const int64_t *dim, uint64_t *state); /* normal */

float get(struct tensor t, int64_t i, int64_t j, int64_t k, int64_t l); /* element as f32 */
void  set(struct tensor t, int64_t i, int64_t j, int64_t k, int64_t l, float x);

/* ---- truth ---- */
struct truth {
    double        *o, *lse; /* [B, Nq, A, Dv], [B, A, Nq] */
    double        *first_o, *first_lse;
    double         bf16_error; /* largest |error| that rounding the weights and the output to bf16 alone would make */
    unsigned char *touched;    /* [B, A, Nq] rows that the call computes */
};
void truth_make(struct truth *t, const struct attn_case *k);
void truth_free(struct truth *t);

/* ---- comparison: max|a - b| / max|b| over computed rows; rows not computed must still hold their poison ---- */
struct difference {
    double o, lse;
    bool   untouched; /* all rows that should not be computed are as they were */
};
struct difference compare(const struct attn_case *k, const struct attn_partial *p, const double *o, const double *lse,
                          const struct truth *t);

/* ---- devices ---- */
extern const char *const levels[4];
/* A CPU device of exactly that level; false where the processor lacks it. */
bool level_open(struct device **d, const char *level, int threads);
/* Runs the call with scratch of its own; fails the test on an error. */
void run_call(struct device *d, enum dtype compute, const struct attn_call *c);

#endif
