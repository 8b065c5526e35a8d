/* Text as the tokenizers and the prompt cleaner handle it: a string that grows, runes, UTF-8 that is checked or mended once at
 * the door and trusted from there on, and Unicode's four normal forms.
 *
 * The forms are put together from utf8proc's tables rather than asked of utf8proc_map, whose reordering of combining marks is
 * quadratic in their number; a prompt may be a million of them. Here a run of marks is counting-sorted by class.
 *
 * Surprises: a string never grows beyond TEXT_GROWTH_MAX, and says so by .grown; white space is Unicode's White_Space, not
 * isspace; a broken sequence becomes one U+FFFD for each longest beginning of a character, not one a byte.
 * Source: Unicode 15 chapters 3.9 (D93b, UTF-8) and 3.11 (normal forms); utf8proc 2.8. */
#include "io/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bool bytes_room(struct bytes *b, size_t more)
{
    if (more > TEXT_GROWTH_MAX || b->n + more > TEXT_GROWTH_MAX) {
        b->grown = true;
        return false;
    }
    if (b->n + more <= b->room)
        return true;
    size_t room = b->n + more + b->room + 64;
    char  *data = realloc(b->data, room);
    if (!data)
        return false;
    b->data = data;
    b->room = room;
    return true;
}

bool gv_bytes_put(struct bytes *b, const void *data, size_t n)
{
    if (!bytes_room(b, n + 1))
        return false;
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = 0;
    return true;
}

bool gv_bytes_rune(struct bytes *b, uint32_t rune)
{
    utf8proc_uint8_t text[4];
    return gv_bytes_put(b, text, (size_t)utf8proc_encode_char((utf8proc_int32_t)rune, text));
}

gv_status gv_bytes_failed(const struct bytes *b, struct error *e)
{
    if (b->grown)
        return gv_fail(e, GV_ERR_ARGUMENT, "the tokenizer's rules make this text longer than %d bytes", TEXT_GROWTH_MAX);
    return gv_fail(e, GV_ERR_MEMORY, "no memory for %zu bytes of text", b->n);
}

void gv_bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){ 0 };
}

uint32_t gv_rune(const char *p, int *n)
{
    const uint8_t *s = (const uint8_t *)p;
    if (s[0] < 0x80) {
        *n = 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *n = 2;
        return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    }
    if (s[0] < 0xf0) {
        *n = 3;
        return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    }
    *n = 4;
    return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

bool gv_rune_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

int gv_utf8_step(const uint8_t *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return -1;
    int     want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint8_t lo = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t hi = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < want; i++) {
        if ((size_t)i >= n || s[i] < lo || s[i] > hi)
            return -i;
        lo = 0x80;
        hi = 0xbf;
    }
    return want;
}

bool gv_utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int step = gv_utf8_step((const uint8_t *)s + i, n - i);
        if (step < 0)
            return false;
        i += (size_t)step;
    }
    return true;
}

bool gv_utf8_repair(struct bytes *out, const char *s, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        int step = gv_utf8_step((const uint8_t *)s + i, n - i);
        if (step > 0) {
            i += (size_t)step;
            continue;
        }
        if (!gv_bytes_put(out, s + from, i - from) || !gv_bytes_put(out, "\xef\xbf\xbd", 3))
            return false;
        i += (size_t)-step;
        from = i;
    }
    return gv_bytes_put(out, s + from, n - from);
}

/* Stable counting sort of a run of marks by combining class. */
static void sort_marks(utf8proc_int32_t *run, size_t n, utf8proc_int32_t *spare)
{
    size_t at[257] = { 0 };
    for (size_t i = 0; i < n; i++)
        at[(utf8proc_get_property(run[i])->combining_class & 0xff) + 1]++;
    for (int c = 0; c < 256; c++)
        at[c + 1] += at[c];
    for (size_t i = 0; i < n; i++)
        spare[at[utf8proc_get_property(run[i])->combining_class & 0xff]++] = run[i];
    memcpy(run, spare, n * sizeof *run);
}

static void order_marks(utf8proc_int32_t *rune, size_t n, utf8proc_int32_t *spare)
{
    for (size_t i = 0; i < n; i++) {
        size_t end = i;
        while (end < n && utf8proc_get_property(rune[end])->combining_class)
            end++;
        if (end - i > 1)
            sort_marks(rune + i, end - i, spare);
        i = end > i ? end - 1 : i;
    }
}

bool gv_utf8_form(struct bytes *out, const char *s, size_t n, enum normal_form form)
{
    utf8proc_option_t options = UTF8PROC_STABLE | (form == FORM_NFKC || form == FORM_NFKD ? UTF8PROC_COMPAT : 0);
    size_t            ascii = 0;
    while (ascii < n && (uint8_t)s[ascii] < 0x80)
        ascii++;
    if (ascii == n)
        return gv_bytes_put(out, s, n);
    /* The longest expansion is U+FDFA: 18 runes of 3 bytes. */
    size_t            room = 18 * (n / 3 + 1) + n;
    utf8proc_int32_t *rune = malloc(room * 2 * sizeof *rune);
    size_t            m = 0;
    bool              ok = rune != NULL;
    for (size_t i = 0; ok && i < n;) {
        int              step, boundary = 0;
        uint32_t         c = gv_rune(s + i, &step);
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)c, rune + m, (utf8proc_ssize_t)(room - m),
                                                     options | UTF8PROC_DECOMPOSE, &boundary);
        ok = k >= 0 && (size_t)k <= room - m;
        m += ok ? (size_t)k : 0;
        i += (size_t)step;
    }
    if (ok) {
        order_marks(rune, m, rune + room);
        if (form == FORM_NFC || form == FORM_NFKC)
            m = (size_t)utf8proc_normalize_utf32(rune, (utf8proc_ssize_t)m, options | UTF8PROC_COMPOSE);
    }
    for (size_t i = 0; ok && i < m; i++)
        ok = gv_bytes_rune(out, (uint32_t)rune[i]);
    free(rune);
    return ok;
}
