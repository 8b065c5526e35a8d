/* What the model goldens share: a device, a run on it with room enough, a checkpoint of counter-made weights in a temporary
 * folder, and a tap that compares every named activation with the golden's. */
#ifndef GV_TESTS_MODEL_CASE_H
#define GV_TESTS_MODEL_CASE_H

#include "tests/fixture.h"

struct model_case {
    struct device *device;
    struct run     run;
    struct error   error;
    struct golden  golden;
    char           folder[256];
};

/* precision: "f32" or "bf16"; weights: the type in the file. */
void case_open(struct model_case *c, const char *name, const char *precision, enum dtype weights);
void case_close(struct model_case *c);
bool case_is_f32(const struct model_case *c);

/* A device tensor of floats from the host, and back (converted to f32; freed with free()). */
struct tensor case_upload(struct model_case *c, int rank, const int64_t *dim, const float *host);
float        *case_download(struct run *r, struct tensor t);

/* Asserts relative_error(ours, golden) within the measure of the precision: 1e-4 in f32, 1.5 times the reference library's own
 * bf16 error (bf16_error.<error_name>) in bf16. Prints both. */
void case_compare(struct model_case *c, const char *what, const float *ours, const char *golden_name, const char *error_name);

#endif
