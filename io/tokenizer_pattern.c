/* Patterns of a tokenizer.json, literal or regular expression, and a text cut at their matches.
 *
 * Regular expressions were written for Oniguruma in its Ruby dialect and run in PCRE2 here: UTF, UCP, multi-line. What the two
 * read differently is refused (\h, (?m), class intersections), or evened out: U+180E is white space for PCRE2's \s and for
 * nobody else. They come from a stranger's file, so each match counts its steps, by automatic callouts, against a budget that
 * grows linearly with the text; the match limits alone would allow their full amount again at every start.
 *
 * Source: huggingface/tokenizers 3ba8ad0061a8 tokenizer/pattern.rs, utils/onig.rs. Unicode tables are PCRE2's (14.0 on Debian
 * 12): code points newer than that may be cut otherwise than by a newer reference. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/tokenizer_pipeline.h"

/* ---- regular expressions --------------------------------------------------------------------------------------------- */

/* What a match may still cost. Each callout pays one and the distance the match has moved since the last. */
struct budget {
    uint64_t left;
    size_t   at;
};

static int pay(pcre2_callout_block *block, void *user)
{
    struct budget *b = user;
    size_t         at = block->current_position;
    uint64_t       cost = 1 + (at > b->at ? at - b->at : b->at - at);
    b->at = at;
    if (cost > b->left)
        return PCRE2_ERROR_MATCHLIMIT;
    b->left -= cost;
    return 0;
}

static const char *foreign_syntax(const char *s)
{
    static const char *const words[] = { "\\h", "\\H", "\\R", "\\X", "\\K", "(?m", "(?s", "(?x", "&&", "(*", "(?C" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(s, words[i]))
            return words[i];
    return NULL;
}

void gv_pattern_compile(struct pattern *p, const char *regex, const struct json_view *at, const char *field)
{
    int                    code = 0;
    PCRE2_SIZE             offset = 0;
    PCRE2_UCHAR            why[160];
    const char            *foreign = foreign_syntax(regex);
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    uint32_t               options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_AUTO_CALLOUT;
    if (!ctx) {
        gv_json_fail(at, field, GV_ERR_MEMORY, "no memory for the regular expression");
        return;
    }
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(ctx, 100);
    p->mongolian = strstr(regex, "180") || strstr(regex, "\xe1\xa0\x8e");
    if (foreign)
        gv_json_fail(at, field, GV_ERR_MODEL, "uses %s, which is not handled", foreign);
    else
        p->code = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED, options, &code, &offset, ctx);
    if (!foreign && !p->code) {
        pcre2_get_error_message(code, why, sizeof why);
        gv_json_fail(at, field, GV_ERR_MODEL, "is no regular expression at byte %zu: %s", (size_t)offset, (char *)why);
    }
    if (p->code)
        pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* without JIT it is slower, that is all */
    pcre2_compile_context_free(ctx);
}

void gv_pattern_free(struct pattern *p)
{
    pcre2_code_free(p->code);
    free(p->literal);
    *p = (struct pattern){ 0 };
}

/* ---- cuts ------------------------------------------------------------------------------------------------------------ */

static bool cuts_put(struct cuts *c, size_t from, size_t to, bool match)
{
    if (c->n == c->room) {
        size_t      room = c->room * 2 + 64;
        struct cut *more = realloc(c->cut, room * sizeof *more);
        if (!more)
            return false;
        c->cut = more;
        c->room = room;
    }
    c->cut[c->n++] = (struct cut){ from, to, match };
    return true;
}

bool gv_cuts_match(struct cuts *c, size_t *covered, size_t from, size_t to)
{
    if (*covered != from && !cuts_put(c, *covered, from, false))
        return false;
    *covered = to;
    return cuts_put(c, from, to, true);
}

bool gv_cuts_rest(struct cuts *c, size_t covered, size_t n)
{
    return covered == n || cuts_put(c, covered, n, false);
}

/* ---- find ------------------------------------------------------------------------------------------------------------ */

static gv_status find_literal(const struct pattern *p, const char *s, size_t n, struct cuts *c, size_t *covered,
                              struct error *e)
{
    for (size_t i = 0; p->n && i + p->n <= n;) {
        const char *hit = memchr(s + i, p->literal[0], n - p->n - i + 1);
        if (!hit)
            break;
        i = (size_t)(hit - s);
        if (memcmp(hit, p->literal, p->n) != 0) {
            i++;
            continue;
        }
        if (!gv_cuts_match(c, covered, i, i + p->n))
            return gv_tokenizer_no_memory(e);
        i += p->n;
    }
    return GV_OK;
}

struct matcher {
    pcre2_match_data    *data;
    pcre2_match_context *context;
    struct budget        budget;
    char                *subject; /* a copy when U+180E had to be hidden */
};

static bool matcher_open(struct matcher *m, const struct pattern *p, const char *s, size_t n)
{
    *m = (struct matcher){ .data = pcre2_match_data_create(1, NULL),
                           .context = pcre2_match_context_create(NULL),
                           .budget = { .left = 1000000 + 1000 * (uint64_t)n } };
    if (!m->data || !m->context)
        return false;
    pcre2_set_callout(m->context, pay, &m->budget);
    pcre2_set_match_limit(m->context, 20000000 + (uint32_t)n);
    pcre2_set_heap_limit(m->context, 256 << 10); /* KiB */
    for (size_t i = 0; !p->mongolian && !m->subject && i + 3 <= n; i++)
        if (memcmp(s + i, "\xe1\xa0\x8e", 3) == 0 && !(m->subject = malloc(n + 1)))
            return false;
    return true;
}

static void matcher_close(struct matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    free(m->subject);
}

/* U+180E as U+200B, which is of its category (Cf) and as long, and is no white space to PCRE2 either. */
static void hide_mongolian(char *out, const char *s, size_t n)
{
    memcpy(out, s, n);
    for (size_t i = 0; i + 3 <= n; i++)
        if (memcmp(out + i, "\xe1\xa0\x8e", 3) == 0)
            memcpy(out + i, "\xe2\x80\x8b", 3);
}

static int match_at(struct matcher *m, const struct pattern *p, const char *s, size_t n, size_t at)
{
    m->budget.at = at;
    int rc = pcre2_match(p->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->context);
    return rc;
}

static gv_status find_regex(const struct pattern *p, const char *s, size_t n, struct cuts *c, size_t *covered, struct error *e)
{
    struct matcher m;
    size_t         at = 0, last = SIZE_MAX;
    bool           ok = matcher_open(&m, p, s, n);
    gv_status      st = ok ? GV_OK : gv_tokenizer_no_memory(e);
    if (ok && m.subject)
        hide_mongolian(m.subject, s, n);
    while (st == GV_OK && at <= n) {
        int rc = match_at(&m, p, m.subject ? m.subject : s, n, at);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0) {
            st = gv_fail(e, rc == PCRE2_ERROR_NOMEMORY ? GV_ERR_MEMORY : GV_ERR_MODEL,
                         "a regular expression of the tokenizer gave up on this text (PCRE2 error %d)", rc);
            break;
        }
        const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(m.data);
        size_t            from = hit[0], to = hit[1];
        int               step = 1;
        if (from == to && to == last) { /* no empty match right behind another */
            if (at < n)
                gv_rune(s + at, &step);
            at += (size_t)step;
            continue;
        }
        at = last = to;
        if (from > to || from < *covered || !gv_cuts_match(c, covered, from, to))
            st = gv_tokenizer_no_memory(e);
    }
    matcher_close(&m);
    return st;
}

gv_status gv_pattern_cut(const struct pattern *p, const char *s, size_t n, struct cuts *c, struct error *e)
{
    size_t covered = 0;
    c->n = 0;
    TRY(p->code ? find_regex(p, s, n, c, &covered, e) : find_literal(p, s, n, c, &covered, e));
    return gv_cuts_rest(c, covered, n) ? GV_OK : gv_tokenizer_no_memory(e);
}
