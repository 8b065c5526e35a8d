/* The one owner of tensors that outlive a forward: keys and values of a prompt that is the same at every step, partials of
 * attention, residuals of the block stack. Keyed by (layer, stream, kind); a stream is a row of the batch that keeps its own
 * state (with and without prompt, the paths of an edit).
 *
 * What is kept is a tensor whose dimension `axis` grows: capacity rows are taken once, length of them hold something, and a
 * reader gets a view of those. Memory comes from the device through gv_device_alloc, so that the null device predicts it,
 * and stays under a byte budget of its own: a pipeline decides what is worth keeping, this file only says no.
 *
 * Whether a thing kept may stand in for one computed anew is not decided here (reuse.h: it takes numbers and touches no
 * tensor).
 *
 * Where later work goes:
 *   compact(index)    pruned tokens: gathers a slot's rows in place and shortens it
 *   position ids      an I32 tensor of its own kind beside KEPT_K, grown with it: rotation after selection reads it
 *   save and load     slots in key order as one safetensors file, for a render taken up again
 *
 * Threads: one session's, as the session. */
#ifndef GV_ATTENTION_CACHE_H
#define GV_ATTENTION_CACHE_H

#include "core/ops.h"

enum kept {
    KEPT_K,
    KEPT_V,
    KEPT_OUT,
    KEPT_LSE,
    KEPT_RESIDUAL,
    KEPT_INDICATOR,
    KEPT_CHOICE,
    KEPT_MEAN_Q,
    KEPT_MEAN_K,
    KEPT_QUERY
};

struct cache_key {
    int       layer, stream;
    enum kept kind;
};

struct cache;

/* budget: bytes of device memory to stay under; SIZE_MAX = the device's own budget is enough. */
gv_status gv_cache_open(struct cache **out, struct device *d, size_t budget, struct error *e);
void      gv_cache_close(struct cache **c);

/* The whole slot, to be written into: made if it is not there, made anew (and empty) if it has another type or shape.
 * The caller then says how much of it holds something. Fails the run with MEMORY over the budget; the tensor is then absent. */
struct tensor gv_cache_slot(struct run *r, struct cache *c, struct cache_key key, enum dtype type, int rank,
                            const int64_t *dim);
/* The first `length` rows of dimension `axis` hold something. The slot must be there. */
void gv_cache_set_length(struct cache *c, struct cache_key key, int axis, int64_t length);
/* Write x's rows of dimension `axis` behind the newest; once the slot is full, over the oldest that follow the first `sink`
 * rows, which stay: a window with a sink. The order of rows in the slot is then that of a ring: it says nothing to a reader
 * that reads all of them, as attention without a mask does (keys carry their rotation). The slot must be there. */
void gv_cache_append(struct run *r, struct cache *c, struct cache_key key, struct tensor x, int axis, int64_t sink);
/* What the slot holds: a view; absent where nothing is kept. */
struct tensor gv_cache_get(const struct cache *c, struct cache_key key);
/* Keep a copy of x, whole. */
void gv_cache_put(struct run *r, struct cache *c, struct cache_key key, struct tensor x);

void   gv_cache_drop(struct cache *c, struct cache_key key); /* nothing happens where nothing is kept */
void   gv_cache_clear(struct cache *c);
size_t gv_cache_bytes(const struct cache *c);

#endif
