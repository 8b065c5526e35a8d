#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

gv_status gv_fail(struct error *e, gv_status code, const char *fmt, ...)
{
    if (!e || e->code != GV_OK)
        return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, args);
    va_end(args);
    e->code = code;
    return code;
}

_Bool gv_mul_size(size_t a, size_t b, size_t *out)
{
    if (b && a > SIZE_MAX / b)
        return 0;
    *out = a * b;
    return 1;
}

_Bool gv_add_size(size_t a, size_t b, size_t *out)
{
    if (a > SIZE_MAX - b)
        return 0;
    *out = a + b;
    return 1;
}

const char *gv_status_name(gv_status status)
{
    switch (status) {
    case GV_OK: return "GV_OK";
    case GV_ERR_ARGUMENT: return "GV_ERR_ARGUMENT";
    case GV_ERR_IO: return "GV_ERR_IO";
    case GV_ERR_FORMAT: return "GV_ERR_FORMAT";
    case GV_ERR_UNSUPPORTED: return "GV_ERR_UNSUPPORTED";
    case GV_ERR_MEMORY: return "GV_ERR_MEMORY";
    case GV_ERR_DEVICE: return "GV_ERR_DEVICE";
    case GV_ERR_CANCELLED: return "GV_ERR_CANCELLED";
    case GV_ERR_INTERNAL: return "GV_ERR_INTERNAL";
    case GV_ERR_MODEL: return "GV_ERR_MODEL";
    }
    return "unknown status";
}
