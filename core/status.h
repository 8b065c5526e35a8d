/* Status codes with words. Outside a run, functions return gv_status and fill a struct error; the first message wins, so
 * the innermost failure, which knows the file and the field, is the one a user reads. */
#ifndef GV_CORE_STATUS_H
#define GV_CORE_STATUS_H

#include "genvid.h"

#if defined(__GNUC__)
#define GV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define GV_PRINTF(fmt, args)
#endif

struct error {
    gv_status code;      /* GV_OK: nothing failed yet */
    char      text[768]; /* one sentence: what was wanted, what was found, in which file or field */
};

/* Write code and sentence unless an earlier failure is already there. e may be NULL. Returns code. */
gv_status gv_fail(struct error *e, gv_status code, const char *fmt, ...) GV_PRINTF(3, 4);

/* IO: "cannot read PATH: reason of err". */
gv_status gv_fail_read(struct error *e, const char *path, int err);

/* Forward a failure: for functions that return gv_status and own nothing yet. */
#define TRY(call)                        \
    do {                                 \
        gv_status status_ = (call);      \
        if (status_ != GV_OK)            \
            return status_;              \
    } while (0)

/* Products and sums of sizes that come from files. False on overflow; out is then untouched. */
_Bool gv_mul_size(size_t a, size_t b, size_t *out);
_Bool gv_add_size(size_t a, size_t b, size_t *out);

#endif
