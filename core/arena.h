/* Scratch memory with marks: take, take, release back to the mark. Sized by a dry run on the null device and taken once, so
 * that a forward pass allocates nothing and a request's peak is known before it starts. Released memory is poisoned under
 * ASan. An arena of the null device has no memory: it hands out NULL and only counts. */
#ifndef GV_CORE_ARENA_H
#define GV_CORE_ARENA_H

#include "core/tensor.h"

struct arena {
    unsigned char *base; /* NULL: counting only */
    size_t         size; /* SIZE_MAX when counting only */
    size_t         used, peak;
};

struct mark {
    size_t used;
};

enum { GV_ALIGN = 64 }; /* of everything an arena hands out: a cache line and an AVX-512 register */

static inline struct mark arena_mark(const struct arena *a)
{
    return (struct mark){ a->used };
}
void arena_release(struct arena *a, struct mark m);
/* False when it does not fit; *out is then NULL. bytes 0 is fine. */
bool gv_arena_take(struct arena *a, size_t bytes, void **out);

#endif
