#include "core/device.h"

#include <string.h>

#include "core/module.h"

gv_status gv_device_open(struct device **out, const struct device_params *p, struct error *e)
{
    *out = NULL;
    if (!p->name && gv_module_open(out, "cuda", p, NULL) == GV_OK)
        return GV_OK;
    if (!p->name || !strcmp(p->name, "cpu"))
        return gv_device_cpu_open(out, p, e);
    if (!strcmp(p->name, "cuda"))
        return gv_module_open(out, "cuda", p, e);
    return gv_fail(e, GV_ERR_UNSUPPORTED, "device \"%s\" is not one of this build's: cpu, cuda", p->name);
}

void gv_device_close(struct device **d)
{
    if (!*d)
        return;
    (*d)->ops->close(*d);
    *d = NULL;
}

/* Count first, so that two threads cannot both pass the budget. */
static bool count(struct device *d, size_t bytes)
{
    size_t before = atomic_fetch_add(&d->in_use, bytes), now = before + bytes;
    if (now < before || (d->budget && now > d->budget)) {
        atomic_fetch_sub(&d->in_use, bytes);
        return false;
    }
    size_t peak = atomic_load(&d->peak);
    while (now > peak && !atomic_compare_exchange_weak(&d->peak, &peak, now))
        ;
    return true;
}

gv_status gv_device_alloc(struct device *d, size_t bytes, const char *what, void **out, struct error *e)
{
    *out = NULL;
    size_t wanted = bytes;
    bytes = (bytes + GV_ALIGN - 1) / GV_ALIGN * GV_ALIGN;
    if (bytes < wanted || !count(d, bytes)) {
        atomic_fetch_add(&d->refused, 1);
        return gv_fail(e, GV_ERR_MEMORY, "%s of %zu MiB does not fit: %zu of the %zu MiB budget of device %s are in use", what,
                       wanted >> 20, atomic_load(&d->in_use) >> 20, d->budget >> 20, d->name);
    }
    if (gv_device_is_null(d))
        return GV_OK;
    *out = d->ops->alloc(d, bytes ? bytes : GV_ALIGN);
    if (*out)
        return GV_OK;
    atomic_fetch_sub(&d->in_use, bytes);
    atomic_fetch_add(&d->refused, 1);
    return gv_fail(e, GV_ERR_MEMORY, "device %s has no %zu MiB of memory left for %s", d->name, bytes >> 20, what);
}

void gv_device_free(struct device *d, void *p, size_t bytes)
{
    bytes = (bytes + GV_ALIGN - 1) / GV_ALIGN * GV_ALIGN;
    if (!p && !gv_device_is_null(d))
        return;
    atomic_fetch_sub(&d->in_use, bytes);
    if (p)
        d->ops->free(d, p, bytes ? bytes : GV_ALIGN);
}
