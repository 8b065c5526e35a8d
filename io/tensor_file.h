/* A file of named tensors, mapped: one struct for every format, filled by the reader that knows the file's first bytes.
 *
 *   safetensors   io/safetensors.c   a JSON header and one block of data
 *   pth           io/pth.c           PyTorch's zip of a pickle and raw storages; nothing in it is executed
 *
 * A reader checks everything before anyone sees it: names unique, types known, byte ranges inside of the file and of the size
 * that type and shape say. Immutable once open; safe from any thread. Another format is a file under io/ and one line in
 * tensor_file.c. */
#ifndef GV_IO_TENSOR_FILE_H
#define GV_IO_TENSOR_FILE_H

#include "core/tensor.h"

enum { GV_ST_RANK = 8, GV_ST_TENSORS = 1 << 20 };

struct st_entry { /* a stored tensor */
    char       *name;
    enum dtype  type;
    int         rank;
    int64_t     dim[GV_ST_RANK];
    const void *data; /* into the map; may be unaligned for its type */
    size_t      bytes;
};

struct tensor_file {
    char            *path;
    void            *map;
    size_t           map_bytes;
    int              n;
    struct st_entry *entry; /* sorted by name */
};

struct tensor_file_kind {
    const char *name; /* "safetensors" */
    bool (*is)(const unsigned char *bytes, size_t n);
    /* Fills entry and n from the map. What it leaves on failure is freed by the caller. */
    gv_status (*read)(struct tensor_file *f, struct error *e);
};
extern const struct tensor_file_kind gv_file_safetensors, gv_file_pth;

/* kind NULL: told from the content. Errors: IO; MODEL, naming file and tensor; UNSUPPORTED; MEMORY. */
gv_status gv_tensor_file_open(struct tensor_file *f, const char *path, const struct tensor_file_kind *kind, struct error *e);
void      gv_tensor_file_close(struct tensor_file *f);
const struct st_entry *gv_tensor_file_find(const struct tensor_file *f, const char *name); /* NULL if absent */

/* For readers: sorts the entries by name; MODEL where two share one. */
gv_status gv_tensor_file_sort(struct tensor_file *f, struct error *e);
/* For readers: t->bytes from its type and shape. False where a size is negative or the product does not fit. */
bool gv_st_entry_size(struct st_entry *t);

#endif
