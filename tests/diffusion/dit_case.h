/* A Wan transformer against a golden of tests/reference/dit_*.py: a whole forward with every stored activation compared. */
#ifndef GV_TESTS_DIT_CASE_H
#define GV_TESTS_DIT_CASE_H

#include "diffusion/models.h"
#include "tests/diffusion/model_case.h"

struct dit_side {
    const char *name, *inputs; /* x and text of another side where the goldens share them */
    int64_t     T, h, w;
    int         text_len;
};

/* precision and weights as case_open; stream: layers are prepared as they are needed. */
void dit_case_run(const char *name, const char *precision, enum dtype weights, bool stream, const struct dit_side *sides,
                  int n);

#endif
