#include "io/tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The last one is what a file is taken for that no reader knows: its reader says what is wrong. */
static const struct tensor_file_kind *const kinds[] = { &gv_file_pth, &gv_file_safetensors };
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static gv_status map_file(struct tensor_file *f, struct error *e)
{
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return gv_fail(e, GV_ERR_IO, "%s cannot be opened: %s", f->path, strerror(errno));
    struct stat info;
    gv_status   status = GV_OK;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode))
        status = gv_fail(e, GV_ERR_IO, "%s is not a regular file", f->path);
    else if (info.st_size < 8)
        status = gv_fail(e, GV_ERR_MODEL, "%s has %lld bytes: too few for a file of tensors", f->path, (long long)info.st_size);
    else {
        f->map_bytes = (size_t)info.st_size;
        f->map = mmap(NULL, f->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (f->map == MAP_FAILED) {
            f->map = NULL;
            status = gv_fail(e, GV_ERR_IO, "%s cannot be mapped: %s", f->path, strerror(errno));
        }
    }
    close(fd);
    return status;
}

bool gv_st_entry_size(struct st_entry *t)
{
    size_t product = 1; /* of the sizes that are not 0: strides of an empty tensor may not overflow either */
    bool   empty = false;
    for (int i = 0; i < t->rank; i++) {
        int64_t v = t->dim[i];
        if (v < 0 || !gv_mul_size(product, v ? (size_t)v : 1, &product) || product > SIZE_MAX / 16)
            return false;
        empty = empty || v == 0;
    }
    t->bytes = empty ? 0 : product * (size_t)gv_dtype_info(t->type)->bytes;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_entry *)a)->name, ((const struct st_entry *)b)->name);
}

gv_status gv_tensor_file_sort(struct tensor_file *f, struct error *e)
{
    if (f->n)
        qsort(f->entry, (size_t)f->n, sizeof *f->entry, by_name);
    for (int i = 1; i < f->n; i++)
        if (!strcmp(f->entry[i - 1].name, f->entry[i].name))
            return gv_fail(e, GV_ERR_MODEL, "%s holds tensor %s twice", f->path, f->entry[i].name);
    return GV_OK;
}

gv_status gv_tensor_file_open(struct tensor_file *f, const char *path, const struct tensor_file_kind *kind, struct error *e)
{
    *f = (struct tensor_file){ 0 };
    if (!(f->path = strdup(path)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory to open %s", path);
    gv_status status = map_file(f, e);
    for (int i = 0; !status && !kind; i++)
        if (i == N_KINDS - 1 || kinds[i]->is(f->map, f->map_bytes))
            kind = kinds[i];
    if (!status)
        status = kind->read(f, e);
    if (status)
        gv_tensor_file_close(f);
    return status;
}

void gv_tensor_file_close(struct tensor_file *f)
{
    for (int i = 0; i < f->n; i++)
        free(f->entry[i].name);
    free(f->entry);
    if (f->map)
        munmap(f->map, f->map_bytes);
    free(f->path);
    memset(f, 0, sizeof *f);
}

const struct st_entry *gv_tensor_file_find(const struct tensor_file *f, const char *name)
{
    int lo = 0, hi = f->n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, order = strcmp(f->entry[mid].name, name);
        if (!order)
            return &f->entry[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}
