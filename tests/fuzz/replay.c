/* Stands in for libFuzzer where the compiler has none: every file named, and every file of every folder named, once. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/json.h"
#include "tests/fuzz/fuzz.h"

static int replayed;

static void replay(const char *path)
{
    char        *data;
    size_t       size;
    struct error e = { 0 };
    if (gv_read_file(path, 64 << 20, &data, &size, &e)) {
        fprintf(stderr, "replay: %s\n", e.text);
        exit(2);
    }
    char *exact =
        malloc(size ? size : 1); /* gv_read_file leaves a byte behind the last, which would hide a read over the end */
    for (size_t i = 0; exact && i < size; i++)
        exact[i] = data[i];
    free(data);
    LLVMFuzzerTestOneInput((const uint8_t *)exact, size);
    free(exact);
    replayed++;
}

static int replay_all(const char *path)
{
    char           child[FUZZ_PATH];
    struct dirent *d;
    struct stat    info;
    DIR           *folder = opendir(path);
    if (!folder)
        return stat(path, &info) || !S_ISREG(info.st_mode) ? 1 : (replay(path), 0);
    while ((d = readdir(folder))) {
        snprintf(child, sizeof child, "%s/%s", path, d->d_name);
        if (d->d_name[0] != '.' && !stat(child, &info) && S_ISREG(info.st_mode))
            replay(child);
    }
    closedir(folder);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        failed |= replay_all(argv[i]);
    printf("%d files replayed\n", replayed);
    return failed || !replayed;
}
