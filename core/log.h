/* The only way the library speaks: levels and one callback, given by the caller of the engine. Safe from any thread as long
 * as the callback is. */
#ifndef GV_CORE_LOG_H
#define GV_CORE_LOG_H

#include "core/status.h"

struct log {
    gv_log_fn    fn; /* NULL = silent */
    void        *user;
    gv_log_level level;
};

/* One line without newline. log may be NULL. */
void gv_log(const struct log *log, gv_log_level level, const char *fmt, ...) GV_PRINTF(3, 4);

#endif
