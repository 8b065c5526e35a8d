/* What the fuzz harnesses share. A harness is fuzz_<noun>.c with libFuzzer's two functions, which hand bytes of no known origin to
 * one reader. Built by clang in the preset `fuzz` it searches; in every other build it is linked to replay.c and runs once
 * over its corpus, so that what was found once stays found. Readers take paths, so the bytes lie in a file of a temporary
 * folder ($TMPDIR; a folder in memory makes the search faster), removed at exit. */
#ifndef GV_TESTS_FUZZ_H
#define GV_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_PATH = 1024 };

/* The folder of this process, made at the first call and removed at exit. */
const char *fuzz_folder(void);
/* name in that folder, holding these bytes; path [FUZZ_PATH] may be NULL. */
void fuzz_file(char *path, const char *name, const void *data, size_t size);
/* A failure has a code and words; success has neither. Anything else is a finding. */
void fuzz_check(gv_status status, const struct error *e);
/* A finding of a harness's own. */
_Noreturn void fuzz_found(const char *what);
/* Reads every byte, so that a sanitizer sees those that are not there. */
void fuzz_touch(const void *data, size_t bytes);

/* Numbers and words out of the bytes; zeros and "" when they are used up. */
struct fuzz_bytes {
    const uint8_t *at;
    size_t         left;
};
uint64_t fuzz_uint(struct fuzz_bytes *b, int bytes);
/* Up to the next zero byte, copied; at most `most` bytes. Freed with free(). */
char *fuzz_text(struct fuzz_bytes *b, size_t most);

#endif
