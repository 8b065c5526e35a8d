#include "core/arena.h"

#include <assert.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

void arena_release(struct arena *a, struct mark m)
{
    assert(m.used <= a->used);
    if (a->base)
        POISON(a->base + m.used, a->used - m.used);
    a->used = m.used;
}

bool gv_arena_take(struct arena *a, size_t bytes, void **out)
{
    *out = NULL;
    size_t rounded = (bytes + GV_ALIGN - 1) / GV_ALIGN * GV_ALIGN;
    if (rounded < bytes || rounded > a->size - a->used)
        return false;
    if (a->base) {
        *out = a->base + a->used;
        UNPOISON(*out, bytes);
    }
    a->used += rounded;
    if (a->used > a->peak)
        a->peak = a->used;
    return true;
}
