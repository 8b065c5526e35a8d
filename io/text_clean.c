/* Prompt cleaning, step for step what Wan and diffusers do: ftfy.fix_text, html.unescape twice, white space to single spaces.
 *
 *     per line:  HTML references ending in ';' (never again once a line held '<') ── C1 controls as cp1252 ── ligatures
 *     ▲          ── full and half width ── straight quotes ── line breaks ── terminal escapes, control characters out ── NFC ─┐
 *     └──────────────────────────── until nothing changes (at most ROUNDS times) ─────────────────────────────────────────────┘
 *
 * It matters because the steps change ids: Chinese full-width punctuation becomes ASCII. Left out, and said in text_clean.h:
 * ftfy's repair of mojibake. ROUNDS is ours: ftfy has no limit, and "&amp;amp;amp;..." takes one round for each "amp;".
 * Source: rspeer/python-ftfy 6.3 ftfy/{__init__,fixes,chardata}.py, Python's html module, diffusers
 * pipelines/wan/pipeline_wan.py. */
#include "io/text_clean.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "io/html_entities.h"
#include "io/text.h"
#include "io/tokenizer.h" /* GV_TEXT_BYTES */

enum { ROUNDS = 64, SEGMENT_RUNES = 1000000, NAME_MAX_BYTES = 32 };

/* ---- HTML references ------------------------------------------------------------------------------------------------- */

struct name {
    const char *s;
    size_t      n;
};

static int compare_name(const void *key, const void *entry)
{
    const struct name        *k = key;
    const struct html_entity *x = entry;
    int                       order = strncmp(k->s, x->name, k->n);
    return order ? order : -(x->name[k->n] != 0);
}

/* Text of a name as the table has it, with or without its ';'; NULL if there is none. */
static const char *entity(const char *s, size_t n)
{
    struct name               key = { s, n };
    const struct html_entity *x =
        bsearch(&key, html_entities, sizeof html_entities / sizeof *html_entities, sizeof *html_entities, compare_name);
    return x ? x->text : NULL;
}

static const uint16_t cp1252[32] = { 0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
                                     0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
                                     0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178 };

/* A numeric reference "#65" or "#x41" at s: digits read, value (saturated). 0 digits: none. */
static size_t number(const char *s, size_t n, uint32_t *value)
{
    bool   hex = n > 1 && (s[1] == 'x' || s[1] == 'X');
    size_t i = hex ? 2 : 1, from = i;
    *value = 0;
    for (; i < n; i++) {
        char c = s[i];
        int  d = c >= '0' && c <= '9'          ? c - '0'
                 : hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
                 : hex && c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
        if (d < 0)
            break;
        *value = *value > 0x110000 ? *value : *value * (hex ? 16 : 10) + (uint32_t)d;
    }
    return i == from ? 0 : i;
}

/* The character of a numeric reference: what the standard replaces, drops or keeps. */
static bool put_number(struct bytes *out, uint32_t v)
{
    if (v == 0 || (v >= 0xd800 && v <= 0xdfff) || v > 0x10ffff)
        return gv_bytes_rune(out, 0xfffd);
    if (v >= 0x80 && v <= 0x9f)
        return gv_bytes_rune(out, cp1252[v - 0x80]);
    if (v <= 8 || v == 0xb || (v >= 0xe && v <= 0x1f) || v == 0x7f || (v >= 0xfdd0 && v <= 0xfdef) || (v & 0xfffe) == 0xfffe)
        return true;
    return gv_bytes_rune(out, v);
}

/* Bytes of the name at s: up to 32 characters, none of them special, and a ';' if one follows. */
static size_t name_bytes(const char *s, size_t n)
{
    size_t i = 0;
    int    step;
    for (int k = 0; k < NAME_MAX_BYTES && i < n && !strchr("\t\n\f <&#;", s[i]); k++) {
        gv_rune(s + i, &step);
        i += (size_t)step;
    }
    return i && i < n && s[i] == ';' ? i + 1 : i;
}

/* The reference at s, which follows '&', as html.unescape decodes it: its bytes, 0 if it stays as it is. */
static size_t reference(const char *s, size_t n, struct bytes *out, bool *ok)
{
    uint32_t value;
    if (n && s[0] == '#') {
        size_t digits = number(s, n, &value);
        if (!digits)
            return 0;
        *ok = put_number(out, value);
        return digits + (digits < n && s[digits] == ';');
    }
    size_t      length = name_bytes(s, n);
    const char *text = length ? entity(s, length) : NULL;
    if (!text) /* the longest beginning that is a name */
        for (length = length > NAME_MAX_BYTES + 1 ? NAME_MAX_BYTES + 1 : length; length-- > 2;)
            if ((text = entity(s, length)))
                break;
    if (!text)
        return 0;
    *ok = gv_bytes_put(out, text, strlen(text));
    return length;
}

/* Upper case of an entity's text as Python gives it. */
static bool put_upper(struct bytes *out, const char *s)
{
    static const struct {
        const char *from, *to;
    } longer[] = { { "\xc3\x9f", "SS" },      { "\xef\xac\x80", "FF" },  { "\xef\xac\x81", "FI" },   { "\xef\xac\x82", "FL" },
                   { "\xef\xac\x83", "FFI" }, { "\xef\xac\x84", "FFL" }, { "\xc5\x89", "\xca\xbcN" } };
    for (size_t i = 0; i < sizeof longer / sizeof *longer; i++)
        if (strcmp(s, longer[i].from) == 0)
            return gv_bytes_put(out, longer[i].to, strlen(longer[i].to));
    for (int step; *s; s += step)
        if (!gv_bytes_rune(out, (uint32_t)utf8proc_toupper((utf8proc_int32_t)gv_rune(s, &step))))
            return false;
    return true;
}

/* A name in capitals whose small form is known ("&EACUTE;"), as long as HTML itself makes nothing of it. */
static bool put_capitals(const char *s, size_t n, struct bytes *out, bool *ok)
{
    char         small[NAME_MAX_BYTES];
    struct bytes probe = { 0 };
    bool         fits = n <= sizeof small;
    for (size_t i = 0; fits && i < n; i++) {
        fits = !(s[i] >= 'a' && s[i] <= 'z');
        small[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] - 'A' + 'a') : s[i];
    }
    const char *text = fits ? entity(small, n) : NULL;
    bool        free_name = text && reference(s, n, &probe, ok) == 0;
    gv_bytes_free(&probe);
    if (!free_name)
        return false;
    *ok = *ok && put_upper(out, text);
    return true;
}

/* ftfy's own, stricter reading: &, an optional #, 1 to 24 letters or digits, ';', and all of it must mean something. */
static size_t strict_reference(const char *s, size_t n, struct bytes *out, bool *ok)
{
    size_t   hash = n && s[0] == '#', i = hash;
    uint32_t value;
    while (i < n && i - hash < 25 &&
           ((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z')))
        i++;
    if (i == hash || i - hash > 24 || i >= n || s[i] != ';')
        return 0;
    if (hash) {
        if (number(s, n, &value) != i || value == ';')
            return 0;
        *ok = put_number(out, value);
        return i + 1;
    }
    const char *text = entity(s, i + 1);
    if (text)
        *ok = gv_bytes_put(out, text, strlen(text));
    return text || put_capitals(s, i + 1, out, ok) ? i + 1 : 0;
}

/* Every reference that decode knows; the rest stays as it is. */
static bool unescape(struct bytes *out, const char *s, size_t n, size_t (*decode)(const char *, size_t, struct bytes *, bool *))
{
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        size_t used = s[i] == '&' ? decode(s + i + 1, n - i - 1, out, &ok) : 0;
        if (!used)
            ok = ok && gv_bytes_put(out, s + i, 1);
        i += used;
    }
    return ok;
}

/* ---- characters ------------------------------------------------------------------------------------------------------ */

static const char *ligature(uint32_t c)
{
    static const char *const latin[] = { "ff", "fi", "fl", "ffi", "ffl", "\xc5\xbft", "st" };
    static const char *const digraph[] = { "D\xc5\xbd", "D\xc5\xbe", "d\xc5\xbe", "LJ", "Lj", "lj", "NJ", "Nj", "nj" };
    if (c >= 0xfb00 && c <= 0xfb06)
        return latin[c - 0xfb00];
    if (c >= 0x1c4 && c <= 0x1cc)
        return digraph[c - 0x1c4];
    switch (c) {
    case 0x132: return "IJ";
    case 0x133: return "ij";
    case 0x149: return "\xca\xbcn";
    case 0x1f1: return "DZ";
    case 0x1f2: return "Dz";
    case 0x1f3: return "dz";
    default: return NULL;
    }
}

/* Quotes and line breaks, the last of the single characters. */
static bool put_plain(struct bytes *out, uint32_t c)
{
    if (c == 0x2bc || (c >= 0x2018 && c <= 0x201b))
        c = '\'';
    else if (c >= 0x201c && c <= 0x201f)
        c = '"';
    else if (c == '\r' || c == 0x2028 || c == 0x2029 || c == 0x85)
        c = '\n';
    return gv_bytes_rune(out, c);
}

static bool put_plain_text(struct bytes *out, const char *s, size_t n)
{
    int step;
    for (size_t i = 0; i < n; i += (size_t)step)
        if (!put_plain(out, gv_rune(s + i, &step)))
            return false;
    return true;
}

static bool put_width(struct bytes *out, const char *s, size_t n)
{
    struct bytes wide = { 0 };
    bool         ok = gv_utf8_form(&wide, s, n, FORM_NFKC) && put_plain_text(out, wide.data, wide.n);
    gv_bytes_free(&wide);
    return ok;
}

static bool fix_characters(struct bytes *out, const char *s, size_t n)
{
    int  step;
    bool ok = true;
    for (size_t i = 0; ok && i < n; i += (size_t)step) {
        uint32_t c = gv_rune(s + i, &step);
        c = c >= 0x80 && c <= 0x9f ? cp1252[c - 0x80] : c;
        const char *parts = ligature(c);
        if (parts)
            ok = put_plain_text(out, parts, strlen(parts));
        else if (c >= 0xff01 && c <= 0xffef)
            ok = put_width(out, s + i, (size_t)step);
        else if (c == '\r' && i + 1 < n && s[i + 1] == '\n')
            continue; /* the line feed stays */
        else
            ok = put_plain(out, c == 0x3000 ? ' ' : c);
    }
    return ok;
}

/* Bytes of "ESC [ digits and ; letter" at s; 0 if it is none. Digits of every script: Python's \d. */
static size_t terminal_escape(const char *s, size_t n)
{
    size_t i = 2;
    int    step;
    if (n < 3 || s[0] != 0x1b || s[1] != '[')
        return 0;
    while (i < n) {
        uint32_t c = gv_rune(s + i, &step);
        if (c != ';' && utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_ND)
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ? i + 1 : 0;
        i += (size_t)step;
    }
    return 0;
}

static bool control(uint32_t c)
{
    return c <= 8 || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || (c >= 0x206a && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff9 && c <= 0xfffc);
}

static bool drop_controls(struct bytes *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int    step;
        size_t escape = s[i] == 0x1b ? terminal_escape(s + i, n - i) : 0;
        if (escape) {
            i += escape;
            continue;
        }
        uint32_t c = gv_rune(s + i, &step);
        if (!control(c) && !gv_bytes_put(out, s + i, (size_t)step))
            return false;
        i += (size_t)step;
    }
    return true;
}

/* ---- ftfy ------------------------------------------------------------------------------------------------------------ */

struct desk {
    struct bytes a, b;
};

static void swap(struct desk *d)
{
    struct bytes was = d->a;
    d->a = d->b;
    d->b = was;
    d->b.n = 0;
}

/* One round over d->a, in place; *same: it changed nothing. */
static bool fix_round(struct desk *d, bool html, bool *same)
{
    struct bytes before = { 0 };
    bool         ok = gv_bytes_put(&before, d->a.data, d->a.n) && gv_bytes_put(&d->b, "", 0);
    if (ok && html && (ok = unescape(&d->b, d->a.data, d->a.n, strict_reference)))
        swap(d);
    if (ok && (ok = gv_bytes_put(&d->b, "", 0) && fix_characters(&d->b, d->a.data, d->a.n)))
        swap(d);
    if (ok && (ok = gv_bytes_put(&d->b, "", 0) && drop_controls(&d->b, d->a.data, d->a.n)))
        swap(d);
    if (ok && (ok = gv_bytes_put(&d->b, "", 0) && gv_utf8_form(&d->b, d->a.data, d->a.n, FORM_NFC)))
        swap(d);
    *same = ok && before.n == d->a.n && memcmp(before.data, d->a.data, before.n) == 0;
    gv_bytes_free(&before);
    return ok;
}

/* End of the segment that begins at s: behind its line feed, or after a million characters. */
static size_t segment_end(const char *s, size_t n)
{
    const char *feed = memchr(s, '\n', n);
    size_t      end = feed ? (size_t)(feed - s) + 1 : n, i = 0;
    int         step;
    for (int k = 0; i < end && k < SEGMENT_RUNES; k++) {
        gv_rune(s + i, &step);
        i += (size_t)step;
    }
    return i;
}

static bool fix_text(struct bytes *out, const char *s, size_t n)
{
    struct desk d = { 0 };
    bool        html = true, ok = true;
    for (size_t i = 0, end; ok && i < n; i += end) {
        bool same = false;
        end = segment_end(s + i, n - i);
        html = html && !memchr(s + i, '<', end);
        d.a.n = 0;
        ok = gv_bytes_put(&d.a, s + i, end);
        for (int k = 0; ok && !same && k < ROUNDS; k++)
            ok = fix_round(&d, html, &same);
        ok = ok && gv_bytes_put(out, d.a.data, d.a.n);
    }
    gv_bytes_free(&d.a);
    gv_bytes_free(&d.b);
    return ok;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------- */

static bool collapse_space(struct bytes *out, const char *s, size_t n)
{
    int  step;
    bool waiting = false;
    for (size_t i = 0; i < n; i += (size_t)step) {
        uint32_t c = gv_rune(s + i, &step);
        if (gv_rune_space(c) || (c >= 0x1c && c <= 0x1f)) { /* Python counts the four separators as white space too */
            waiting = out->n > 0;
            continue;
        }
        if ((waiting && !gv_bytes_put(out, " ", 1)) || !gv_bytes_put(out, s + i, (size_t)step))
            return false;
        waiting = false;
    }
    return gv_bytes_put(out, "", 0);
}

gv_status gv_text_clean(const char *text, char **out, struct error *e)
{
    size_t       n = strlen(text);
    struct bytes valid = { 0 }, fixed = { 0 }, once = { 0 }, twice = { 0 }, clean = { 0 };
    *out = NULL;
    if (n > GV_TEXT_BYTES)
        return gv_fail(e, GV_ERR_ARGUMENT, "the prompt has %zu bytes, at most %d are taken", n, GV_TEXT_BYTES);
    bool ok = gv_utf8_repair(&valid, text, n) && gv_bytes_put(&fixed, "", 0) && gv_bytes_put(&once, "", 0) &&
              gv_bytes_put(&twice, "", 0) && fix_text(&fixed, valid.data, valid.n) &&
              unescape(&once, fixed.data, fixed.n, reference) && unescape(&twice, once.data, once.n, reference) &&
              collapse_space(&clean, twice.data, twice.n);
    gv_bytes_free(&valid);
    gv_bytes_free(&fixed);
    gv_bytes_free(&once);
    gv_bytes_free(&twice);
    if (!ok) {
        gv_bytes_free(&clean);
        return gv_fail(e, GV_ERR_MEMORY, "no memory to clean a prompt of %zu bytes", n);
    }
    *out = clean.data;
    return GV_OK;
}
