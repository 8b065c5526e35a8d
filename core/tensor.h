/* struct tensor: a view of device memory. It never owns: whoever made the memory (an arena, a cache, weights) frees it.
 * Passed by value, 104 bytes. The last dimension is the fastest and is contiguous wherever an operation does not say
 * otherwise; the others have strides in elements. Names of dimensions, everywhere: T H W frames, rows, columns; C channels;
 * N tokens; D width; A heads; K reduction. Latents and pixels are channels-last: [T, H, W, C]. */
#ifndef GV_CORE_TENSOR_H
#define GV_CORE_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

enum dtype { GV_F32, GV_BF16, GV_F16, GV_F64, GV_F8E4M3, GV_I32, GV_I64, GV_U8, GV_DTYPES };

/* How a type is stored. Block-quantised types (GGUF's) become rows with block > 1: sizes are always asked for through
 * gv_dtype_bytes, never computed from an element size. */
struct dtype_info {
    const char *name;  /* as safetensors spells it: "BF16" */
    int         block; /* elements in a block */
    int         bytes; /* bytes of a block */
};
const struct dtype_info *gv_dtype_info(enum dtype type);
/* Bytes of n elements; n must be a multiple of the type's block. */
size_t gv_dtype_bytes(enum dtype type, int64_t n);

enum { GV_MAX_RANK = 5 };

struct tensor {
    void      *data; /* device address of element 0; NULL on the null device and in an absent optional tensor's place */
    int64_t    dim[GV_MAX_RANK];
    int64_t    stride[GV_MAX_RANK]; /* elements */
    enum dtype type;
    int8_t     rank;   /* 0 = absent */
    bool       packed; /* a weight in the device's own order: only gv_linear or gv_conv may read it; dim is still the shape */
};

struct tensor gv_tensor(void *data, enum dtype type, int rank, const int64_t *dim); /* contiguous */
int64_t       gv_tensor_count(struct tensor t);                                     /* elements; 0 if absent */
bool          gv_tensor_contiguous(struct tensor t);
size_t        gv_tensor_bytes(struct tensor t); /* of a contiguous tensor */
/* "[2, 16, 3]" into text, for messages. Returns text. */
const char *gv_tensor_shape_text(struct tensor t, char *text, size_t bytes);
bool        gv_tensor_same_shape(struct tensor a, struct tensor b);

static inline bool present(struct tensor t)
{
    return t.rank > 0;
}

#define DIMS(...) ((const int64_t[]){ __VA_ARGS__ })

/* View arithmetic. None of these copies. */
struct tensor slice(struct tensor t, int axis, int64_t from, int64_t count); /* t[..., from:from+count, ...] */
struct tensor row(struct tensor t, int64_t i);                               /* t[i]: rank falls by one */
struct tensor reshape(struct tensor t, int rank, const int64_t *dim);        /* t contiguous, same count */
struct tensor permute(struct tensor t, const int *axes);                     /* dim i of the result is dim axes[i] of t */
struct tensor heads(struct tensor t, int64_t n_heads);                       /* [..., A*D] → [..., A, D] */

#endif
