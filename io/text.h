/* Text that grows, its runes, its UTF-8 and its normal forms: what tokenizers and prompt cleaning are written in.
 *
 * A struct bytes starts as { 0 }, owns its data, keeps a NUL behind them and is one thread's. Functions that return bool append
 * to it and return false when that failed: gv_bytes_failed then has the sentence. gv_bytes_put, gv_utf8_step, _valid and
 * _repair take any bytes; the rest expects valid UTF-8. */
#ifndef GV_IO_TEXT_H
#define GV_IO_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* A text may not grow beyond this on its way: a hostile file could map one letter to a megabyte. */
enum { TEXT_GROWTH_MAX = 64 << 20 };

struct bytes {
    char  *data;
    size_t n, room;
    bool   grown; /* an append failed because of TEXT_GROWTH_MAX, not of memory */
};
bool      gv_bytes_put(struct bytes *b, const void *data, size_t n); /* false: failed, b is still valid */
bool      gv_bytes_rune(struct bytes *b, uint32_t rune);
gv_status gv_bytes_failed(const struct bytes *b, struct error *e); /* the sentence for a failed append */
void      gv_bytes_free(struct bytes *b);

/* Rune at p in valid UTF-8, its length into *n. */
uint32_t gv_rune(const char *p, int *n);
/* White space as Unicode's White_Space property has it (Rust's char::is_whitespace). */
bool gv_rune_space(uint32_t rune);
/* Bytes of the character at s, or minus the bytes of the longest prefix of one that it could have been (at least 1). */
int  gv_utf8_step(const uint8_t *s, size_t n);
bool gv_utf8_valid(const char *s, size_t n);
/* s with every maximal piece of a broken sequence as one U+FFFD (Unicode 3.9, what Python's errors="replace" does). */
bool gv_utf8_repair(struct bytes *out, const char *s, size_t n);
/* Unicode normal form. Linear: utf8proc's own reordering of combining marks is quadratic in their number. */
enum normal_form { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD };
bool gv_utf8_form(struct bytes *out, const char *s, size_t n, enum normal_form form);

#endif
