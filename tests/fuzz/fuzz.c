#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fixture.h"

static char folder[256];

static void remove_folder(void)
{
    fixture_remove(folder);
}

const char *fuzz_folder(void)
{
    if (!folder[0]) {
        fixture_temp(folder);
        atexit(remove_folder);
    }
    return folder;
}

void fuzz_found(const char *what)
{
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

void fuzz_file(char *path, const char *name, const void *data, size_t size)
{
    char own[FUZZ_PATH];
    path = path ? path : own;
    snprintf(path, FUZZ_PATH, "%s/%s", fuzz_folder(), name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f))
        fuzz_found("the temporary folder cannot be written");
}

void fuzz_check(gv_status status, const struct error *e)
{
    if (status != e->code)
        fuzz_found("the status returned is not the one in the error");
    if (status == GV_ERR_INTERNAL)
        fuzz_found(e->text);
    if (status && !e->text[0])
        fuzz_found("a failure without words");
}

void fuzz_touch(const void *data, size_t bytes)
{
    static volatile uint8_t seen;
    const uint8_t          *p = data;
    uint8_t                 sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + p[i]);
    seen = sum;
    (void)seen;
}

uint64_t fuzz_uint(struct fuzz_bytes *b, int bytes)
{
    uint64_t n = 0;
    for (int i = 0; i < bytes && b->left; i++, b->left--)
        n = n << 8 | *b->at++;
    return n;
}

char *fuzz_text(struct fuzz_bytes *b, size_t most)
{
    size_t n = 0;
    while (n < most && n < b->left && b->at[n])
        n++;
    char *text = malloc(n + 1);
    if (!text)
        fuzz_found("no memory for a text");
    memcpy(text, b->at, n);
    text[n] = 0;
    b->at += n;
    b->left -= n;
    if (b->left && !*b->at)
        b->at++, b->left--;
    return text;
}
