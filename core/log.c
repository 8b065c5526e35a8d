#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>

void gv_log(const struct log *log, gv_log_level level, const char *fmt, ...)
{
    if (!log || !log->fn || level > log->level)
        return;
    char    line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    log->fn(log->user, level, line);
}
