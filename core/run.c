#include "core/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool gv_run_ready(struct run *r)
{
    if (r->err.code != GV_OK)
        return false;
    if (r->cancel && atomic_load_explicit(r->cancel, memory_order_relaxed)) {
        gv_fail(&r->err, GV_ERR_CANCELLED, "cancelled");
        return false;
    }
    return true;
}

void gv_run_fail(struct run *r, gv_status code, const char *fmt, ...)
{
    char    text[sizeof r->err.text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    gv_fail(&r->err, code, "%s%s%s%s%s", r->stage, r->stage[0] ? ": " : "", r->where, r->where[0] ? ": " : "", text);
}

void gv_run_enter(struct run *r, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->where, sizeof r->where, fmt, args);
    va_end(args);
}

void gv_run_tap(struct run *r, const char *name, struct tensor x)
{
    if (!r->tap || r->err.code != GV_OK)
        return;
    char full[128];
    snprintf(full, sizeof full, "%s%s%s", r->where, r->where[0] ? "." : "", name);
    r->tap->fn(r->tap->user, r, full, x);
}

void *gv_scratch_bytes(struct run *r, size_t bytes)
{
    void *p = NULL;
    if (r->err.code == GV_OK && !gv_arena_take(&r->scratch, bytes, &p))
        gv_run_fail(r, GV_ERR_INTERNAL, "scratch memory of %zu bytes is %zu short: the dry run predicted too little",
                    r->scratch.size, bytes - (r->scratch.size - r->scratch.used));
    return p;
}

struct tensor gv_scratch(struct run *r, enum dtype type, int rank, const int64_t *dim)
{
    struct tensor t = gv_tensor(NULL, type, rank, dim);
    t.data = gv_scratch_bytes(r, gv_tensor_bytes(t));
    return t;
}

gv_status gv_run_open(struct run *r, struct device *d, enum dtype compute, size_t scratch_bytes, struct error *e)
{
    memset(r, 0, sizeof *r);
    r->device = d;
    r->compute = compute;
    if (gv_device_is_null(d)) {
        r->scratch.size = SIZE_MAX;
        return GV_OK;
    }
    void *base = NULL;
    TRY(gv_device_alloc(d, scratch_bytes, "scratch", &base, e));
    r->scratch.base = base;
    r->scratch.size = scratch_bytes;
    return GV_OK;
}

void gv_run_close(struct run *r)
{
    if (!r->scratch.base)
        return;
    arena_release(&r->scratch, (struct mark){ 0 });
#if defined(__SANITIZE_ADDRESS__)
    void *all;
    gv_arena_take(&r->scratch, r->scratch.size, &all); /* unpoison before the memory goes back */
#endif
    gv_device_free(r->device, r->scratch.base, r->scratch.size);
    r->scratch = (struct arena){ 0 };
}
