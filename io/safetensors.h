/* One safetensors file: its header read and checked whole, its data mapped. Every name, type, shape and byte range is
 * verified against the file before anyone sees it: ranges in bounds, of the size that type and shape say, not overlapping,
 * names unique. Format: huggingface/safetensors README. Immutable once open; safe from any thread. */
#ifndef GV_IO_SAFETENSORS_H
#define GV_IO_SAFETENSORS_H

#include "core/tensor.h"

enum { GV_ST_RANK = 8, GV_ST_HEADER_BYTES = 100 << 20, GV_ST_TENSORS = 1 << 20 };

struct st_entry {
    char       *name;
    enum dtype  type;
    int         rank;
    int64_t     dim[GV_ST_RANK];
    const void *data; /* into the map; may be unaligned for its type */
    size_t      bytes;
};

struct safetensors {
    char            *path;
    void            *map;
    size_t           map_bytes;
    int              n;
    struct st_entry *entry; /* sorted by name */
};

/* Errors: IO; MODEL, naming file and tensor; MEMORY. */
gv_status gv_safetensors_open(struct safetensors *st, const char *path, struct error *e);
void      gv_safetensors_close(struct safetensors *st);
const struct st_entry *gv_safetensors_find(const struct safetensors *st, const char *name); /* NULL if absent */

/* Writing, for tests and tools: entries in the order given. Errors: IO, MEMORY. */
gv_status gv_safetensors_write(const char *path, const struct st_entry *entry, int n, struct error *e);

#endif
