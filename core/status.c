#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST = 8192, HEAD = 300 };

/* A sentence that does not fit loses its middle, which is a long path's most often, so that its file and its reason stay.
 * UTF-8 is cut between letters. */
static void keep(struct error *e, const char *text)
{
    static const char gap[] = "...";
    size_t            n = strlen(text), head = HEAD;
    if (n < sizeof e->text) {
        memcpy(e->text, text, n + 1);
        return;
    }
    while (((unsigned char)text[head] & 0xC0) == 0x80)
        head--;
    const char *tail = text + n - (sizeof e->text - HEAD - sizeof gap);
    while (((unsigned char)*tail & 0xC0) == 0x80)
        tail++;
    memcpy(e->text, text, head);
    memcpy(e->text + head, gap, sizeof gap - 1);
    memcpy(e->text + head + sizeof gap - 1, tail, strlen(tail) + 1);
}

gv_status gv_fail(struct error *e, gv_status code, const char *fmt, ...)
{
    if (!e || e->code != GV_OK)
        return code;
    char    text[LONGEST];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    keep(e, text);
    e->code = code;
    return code;
}

gv_status gv_fail_read(struct error *e, const char *path, int err)
{
    char why[128] = "unknown error";
    strerror_r(err, why, sizeof why);
    return gv_fail(e, GV_ERR_IO, "cannot read %s: %s", path, why);
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
