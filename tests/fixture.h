/* What golden tests share: weights made by the counter generator (tests/reference/fill.py says how), checkpoint directories
 * built from a golden folder's configs and manifests, and comparison by the measures of the goldens. */
#ifndef GV_TESTS_FIXTURE_H
#define GV_TESTS_FIXTURE_H

#include "core/ops.h"
#include "io/safetensors.h"

/* value(name, i) · scale + offset, in f32 as fill.py rounds it. */
void fixture_fill(float *out, const char *name, int64_t n, float scale, float offset);

/* Files of every folder under src are copied to dst, and every manifest.tsv becomes `stem`.safetensors of the given type
 * beside its config: model.safetensors for transformers' parts, diffusion_pytorch_model.safetensors for diffusers'.
 * Every manifest of manifests (NULL = src) counts. shard_bytes > 0: shards of about that size with an index.
 * Fails the test program with a message on error. */
void fixture_model(const char *dst, const char *src, const char *manifests, enum dtype type, size_t shard_bytes);

/* Writes dir/genvid.json. */
void fixture_sidecar(const char *dir, const char *json);

/* A fresh folder under $TMPDIR, removed by fixture_remove. */
char *fixture_temp(char path[256]);
void  fixture_remove(const char *path);

/* A golden's io.safetensors. Getters fail the program where the name is missing. */
struct golden {
    struct tensor_file st;
};
void         golden_open(struct golden *g, const char *folder);
void         golden_close(struct golden *g);
const float *golden_get(const struct golden *g, const char *name, int64_t *count);
float        golden_number(const struct golden *g, const char *name);
bool         golden_has(const struct golden *g, const char *name);

/* max|a - b| / max|b|; NaN counts as infinite. */
double relative_error(const float *a, const float *b, int64_t n);
double psnr(const float *a, const float *b, int64_t n); /* 20 log10(2 / rmse) */

/* [C, T, H, W] ↔ [T, H, W, C]. */
void channels_last(float *out, const float *in, int64_t C, int64_t T, int64_t H, int64_t W);
void channels_first(float *out, const float *in, int64_t C, int64_t T, int64_t H, int64_t W);

#endif
