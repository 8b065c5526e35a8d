/* tokenizer.json and spiece.model: what begins with a brace is the one, all else the other. A tokenizer that opens has to
 * encode and decode whatever it is given, within the lengths it is given. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

static void encode(const struct tokenizer *t, const char *text, int max)
{
    int32_t      ids[64];
    int          n = -1, cut = -1;
    struct error e = { 0 };
    gv_status    status = gv_tokenizer_encode(t, text, max & 1, ids, max, &n, &cut, &e);
    fuzz_check(status, &e);
    if (status)
        return;
    if (n < 0 || n > max || cut < 0)
        fuzz_found("more ids than there was room for");
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= gv_tokenizer_size(t))
            fuzz_found("an id that the tokenizer does not have");
    free(gv_tokenizer_decode(t, ids, n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = { "", "a red fox, in snow ", "\xe2\x96\x81  \xc3\xa9\xcc\x81\xf0\x9f\xa6\x8a<0x41></s>",
                                         "\xff\xfe 123456 don't\n\n\t" };
    char                     path[FUZZ_PATH];
    struct tokenizer        *t;
    struct error             e = { 0 };
    const int                json = size && data[0] == '{';
    fuzz_file(path, json ? "tokenizer.json" : "spiece.model", data, size);
    const gv_status status = gv_tokenizer_open(&t, path, &e);
    fuzz_check(status, &e);
    if (status)
        return 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        encode(t, texts[i], i & 1 ? 5 : 64);
    char *own = strndup((const char *)data, size < 200 ? size : 200); /* its own words are the likeliest to match */
    encode(t, own, 64);
    free(own);
    gv_tokenizer_close(&t);
    return 0;
}
