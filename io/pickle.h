/* The pickle inside of a PyTorch file, read as data. Python's pickle is a program for a small stack machine that may import and
 * call anything; this machine knows tuples, lists, dictionaries, numbers, text, and the names in one table (a dictionary class,
 * torch's rebuild functions and storage types). Nothing is imported or called: a name outside of the table is refused by name.
 *
 * Every byte is hostile: stack, memo, containers and their contents are bounded, containers may form cycles (a walker bounds its
 * visits), texts are spans of the input. Protocols 2 to 5. Source: CPython Lib/pickletools.py, torch/serialization.py. */
#ifndef GV_IO_PICKLE_H
#define GV_IO_PICKLE_H

#include "io/tensor_file.h"

enum {
    GV_PICKLE_BYTES = 16 << 20, /* a 14-billion model's is some 300 KB */
    GV_PICKLE_STACK = 1 << 18,
    GV_PICKLE_MEMO = 1 << 20,
    GV_PICKLE_NODES = 1 << 20,
    GV_PICKLE_ITEMS = 1 << 22 /* in all containers together */
};

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_INT, /* booleans too */
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT, /* items: key, value, key, value … */
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR,
    PICKLE_MARK /* of the machine; never inside of a container */
};

struct pickle_value {
    enum pickle_kind kind;
    int              size; /* of text, bytes */
    union {
        int64_t     i;
        const char *text;  /* into the input; not terminated */
        int         index; /* of node, storage, tensor, or global */
    };
};

struct pickle_node {
    struct pickle_value *item;
    int                  n, room;
};

struct pickle_storage {
    const char *key; /* the record data/KEY; into the input */
    int         key_bytes;
    enum dtype  type;
    int64_t     count;
};

struct pickle_tensor {
    int     storage, rank;
    int64_t offset, dim[GV_ST_RANK]; /* of elements; inside of the storage if contiguous */
    bool    contiguous;
};

struct pickle {
    struct pickle_value    root;
    struct pickle_node    *node;
    struct pickle_storage *storage;
    struct pickle_tensor  *tensor;
    int                    n_nodes, n_storages, n_tensors;
};

/* Runs n bytes to their STOP. name stands for the input in messages. Free with gv_pickle_free, also after a failure.
 * Errors: MODEL, with the byte; MEMORY. */
gv_status gv_pickle_read(struct pickle *p, const unsigned char *bytes, size_t n, const char *name, struct error *e);
void      gv_pickle_free(struct pickle *p);

#endif
