/* safetensors: a header read and checked whole, its data mapped. Every name, type, shape and byte range is verified against the
 * file before anyone sees it: ranges in bounds, of the size that type and shape say, not overlapping, names unique.
 * Format: huggingface/safetensors README. */
#ifndef GV_IO_SAFETENSORS_H
#define GV_IO_SAFETENSORS_H

#include "io/tensor_file.h"

enum { GV_ST_HEADER_BYTES = 100 << 20 };

/* Writing, for loop states, tests and tools: entries in the order given. Errors: IO, MEMORY. */
gv_status gv_safetensors_write(const char *path, const struct st_entry *entry, int n, struct error *e);

#endif
