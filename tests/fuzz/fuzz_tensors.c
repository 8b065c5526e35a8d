/* safetensors and PyTorch's .pth, told apart by their content as checkpoints are. Every byte that an entry claims is read. */
#include "io/tensor_file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char               path[FUZZ_PATH];
    struct tensor_file f;
    struct error       e = { 0 };
    fuzz_file(path, "model", data, size);
    const gv_status status = gv_tensor_file_open(&f, path, NULL, &e);
    fuzz_check(status, &e);
    if (status)
        return 0;
    for (int i = 0; i < f.n; i++) {
        const struct st_entry *t = &f.entry[i];
        if (gv_tensor_file_find(&f, t->name) != t)
            fuzz_found("a tensor is not found by its name");
        fuzz_touch(t->data, t->bytes);
    }
    gv_tensor_file_close(&f);
    return 0;
}
