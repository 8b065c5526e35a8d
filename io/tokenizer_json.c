/* tokenizer.json: the pipeline that Hugging Face `tokenizers` stores, node by node, nothing assumed about the family.
 *
 *     text ── added tokens found as they stand ── normalizers ── added tokens found after those ── pre-tokenizers ── model
 *
 * Every stage rewrites a list of spans; a span that is already an id passes through, an empty one is dropped (so an empty text has no
 * tokens even where Metaspace would add a mark). A node type, behaviour or option that is not handled is refused by name: a
 * guess would give wrong ids, silently.
 *
 * Regular expressions were written for Oniguruma in its Ruby dialect and run in PCRE2 here: UTF, UCP, multi-line. What the two read
 * differently is refused (\h, (?m), class intersections), or evened out: U+180E is white space for PCRE2's \s and for nobody else.
 * They come from a stranger's file, so each match counts its steps, by automatic callouts, against a budget that grows linearly with
 * the text; the match limits alone would allow their full amount again at every start.
 *
 * Source: huggingface/tokenizers 3ba8ad0061a8 normalizers/, pre_tokenizers/, tokenizer/{normalizer,added_vocabulary,pattern}.rs,
 * processors/template.rs, utils/onig.rs. Unicode tables are those of utf8proc and PCRE2 (15.0 and 14.0 on Debian 12): code
 * points newer than that may be cut otherwise than by a newer reference. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "io/json.h"
#include "io/tokenizer_impl.h"

enum {
    STEPS_MAX   = 64,      /* normalizers, and pre-tokenizers, after Sequences are laid flat */
    NESTING_MAX = 16,      /* Sequences within Sequences */
    ADDED_MAX   = 1 << 17, /* added tokens */
    SPECIAL_MAX = 64,      /* ids put around a text */
    PATTERN_MAX = 4096     /* bytes of a regular expression or literal */
};

struct pattern {
    pcre2_code *code;    /* NULL: literal */
    char       *literal;
    size_t      n;
    bool        mongolian; /* names U+180E itself */
};

enum norm_kind { NORM_CHARSMAP, NORM_STRIP, NORM_REPLACE, NORM_LOWER, NORM_FORM, NORM_NMT, NORM_PREPEND };
struct norm {
    enum norm_kind   kind;
    bool             left, right;
    enum normal_form form;
    struct pattern   pattern;
    char            *text; /* Replace's content, Prepend's text */
    struct charsmap  map;
};

enum cut_kind { CUT_METASPACE, CUT_BYTELEVEL, CUT_PATTERN, CUT_SPACE, CUT_DIGITS, CUT_PUNCTUATION };
enum behaviour { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };
struct cutter {
    enum cut_kind  kind;
    enum behaviour behaviour;
    enum scheme    scheme;
    bool           split, invert, prefix_space, use_regex;
    struct pattern pattern;
    char           mark[5]; /* Metaspace's replacement */
};

struct added {
    char   *content;
    int32_t id;
    bool    single_word, lstrip, rstrip, normalized, special;
};

struct pipeline {
    struct norm   norm[STEPS_MAX];
    int           n_norm;
    struct cutter cutter[STEPS_MAX];
    int           n_cutter;
    struct added *added;
    size_t        n_added;
    struct trie   as_is, normalized; /* content → index in added */
};

/* ---- patterns -------------------------------------------------------------------------------------------------------- */

/* What a match may still cost. Each callout pays one and the distance the match has moved since the last. */
struct budget {
    uint64_t left;
    size_t   at;
};

static int pay(pcre2_callout_block *block, void *user)
{
    struct budget *b    = user;
    size_t         at   = block->current_position;
    uint64_t       cost = 1 + (at > b->at ? at - b->at : b->at - at);
    b->at               = at;
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

static void compile(struct pattern *p, const char *regex, const struct json_view *at, const char *field)
{
    int                    code   = 0;
    PCRE2_SIZE             offset = 0;
    PCRE2_UCHAR            why[160];
    const char            *foreign = foreign_syntax(regex);
    pcre2_compile_context *ctx     = pcre2_compile_context_create(NULL);
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

static void pattern_free(struct pattern *p)
{
    pcre2_code_free(p->code);
    free(p->literal);
    *p = (struct pattern){ 0 };
}

/* A text cut at its matches, covering all of it in order. */
struct cut {
    size_t from, to;
    bool   match;
};
struct cuts {
    struct cut *cut;
    size_t      n, room;
};

static bool cuts_put(struct cuts *c, size_t from, size_t to, bool match)
{
    if (c->n == c->room) {
        size_t      room = c->room * 2 + 64;
        struct cut *more = realloc(c->cut, room * sizeof *more);
        if (!more)
            return false;
        c->cut  = more;
        c->room = room;
    }
    c->cut[c->n++] = (struct cut){ from, to, match };
    return true;
}

static gv_status no_memory(struct error *e)
{
    return gv_fail(e, GV_ERR_MEMORY, "no memory to tokenize the text");
}

/* A match and the text between it and the one before. */
static bool cuts_match(struct cuts *c, size_t *covered, size_t from, size_t to)
{
    if (*covered != from && !cuts_put(c, *covered, from, false))
        return false;
    *covered = to;
    return cuts_put(c, from, to, true);
}

static gv_status find_literal(const struct pattern *p, const char *s, size_t n, struct cuts *c, size_t *covered, struct error *e)
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
        if (!cuts_match(c, covered, i, i + p->n))
            return no_memory(e);
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
    *m = (struct matcher){ .data    = pcre2_match_data_create(1, NULL),
                           .context = pcre2_match_context_create(NULL),
                           .budget  = { .left = 1000000 + 1000 * (uint64_t)n } };
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
    int rc       = pcre2_match(p->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->context);
    return rc;
}

static gv_status find_regex(const struct pattern *p, const char *s, size_t n, struct cuts *c, size_t *covered, struct error *e)
{
    struct matcher m;
    size_t         at = 0, last = SIZE_MAX;
    bool           ok = matcher_open(&m, p, s, n);
    gv_status      st = ok ? GV_OK : no_memory(e);
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
        if (from > to || from < *covered || !cuts_match(c, covered, from, to))
            st = no_memory(e);
    }
    matcher_close(&m);
    return st;
}

static gv_status find_cuts(const struct pattern *p, const char *s, size_t n, struct cuts *c, struct error *e)
{
    size_t covered = 0;
    c->n           = 0;
    TRY(p->code ? find_regex(p, s, n, c, &covered, e) : find_literal(p, s, n, c, &covered, e));
    return covered == n || cuts_put(c, covered, n, false) ? GV_OK : no_memory(e);
}

/* ---- normalizers ----------------------------------------------------------------------------------------------------- */

static bool put_rewritten(const struct charsmap *m, struct bytes *out, const char *s, size_t n)
{
    size_t rule, length;
    for (size_t i = 0; i < n;) {
        int step;
        gv_rune(s + i, &step);
        const char *text = gv_charsmap_find(m, s + i, (size_t)step, false, &rule, &length);
        if (!gv_bytes_put(out, text ? text : s + i, text ? length : (size_t)step))
            return false;
        i += (size_t)step;
    }
    return true;
}

/* By grapheme: a short one is replaced whole as soon as any beginning of it has a rule. */
static bool norm_charsmap(const struct norm *x, struct bytes *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int               step;
        utf8proc_int32_t  state = 0;
        utf8proc_int32_t  c     = (utf8proc_int32_t)gv_rune(s + i, &step);
        size_t            end   = i + (size_t)step, rule, length;
        while (end < n) {
            utf8proc_int32_t next = (utf8proc_int32_t)gv_rune(s + end, &step);
            if (utf8proc_grapheme_break_stateful(c, next, &state))
                break;
            c = next;
            end += (size_t)step;
        }
        const char *text = end - i < 6 ? gv_charsmap_find(&x->map, s + i, end - i, false, &rule, &length) : NULL;
        if (text ? !gv_bytes_put(out, text, length) : !put_rewritten(&x->map, out, s + i, end - i))
            return false;
        i = end;
    }
    return true;
}

static bool norm_strip(const struct norm *x, struct bytes *out, const char *s, size_t n)
{
    size_t from = 0, to = n;
    int    step;
    while (x->left && from < n && gv_rune_space(gv_rune(s + from, &step)))
        from += (size_t)step;
    while (x->right && to > from) {
        size_t last = to - 1;
        while (((uint8_t)s[last] & 0xc0) == 0x80)
            last--;
        if (!gv_rune_space(gv_rune(s + last, &step)))
            break;
        to = last;
    }
    return gv_bytes_put(out, s + from, to - from);
}

static gv_status norm_replace(const struct norm *x, struct bytes *out, const char *s, size_t n, struct error *e)
{
    struct cuts cuts = { 0 };
    gv_status   st   = find_cuts(&x->pattern, s, n, &cuts, e);
    size_t      with = strlen(x->text);
    for (size_t i = 0; st == GV_OK && i < cuts.n; i++) {
        struct cut c = cuts.cut[i];
        if (c.match ? !gv_bytes_put(out, x->text, with) : !gv_bytes_put(out, s + c.from, c.to - c.from))
            st = gv_bytes_failed(out, e);
    }
    free(cuts.cut);
    return st;
}

static uint32_t nmt(uint32_t c)
{
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f)
        return 0; /* dropped */
    if (c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 ||
        c == 0x2581 || c == 0xfeff || c == 0xfffd)
        return ' ';
    return c;
}

static bool norm_runes(const struct norm *x, struct bytes *out, const char *s, size_t n)
{
    int step;
    for (size_t i = 0; i < n; i += (size_t)step) {
        uint32_t c = gv_rune(s + i, &step);
        if (x->kind == NORM_NMT && !(c = nmt(c)))
            continue;
        if (x->kind == NORM_LOWER && c == 0x130) { /* the one letter whose lower case is two */
            if (!gv_bytes_put(out, "i\xcc\x87", 3))
                return false;
            continue;
        }
        c = x->kind == NORM_LOWER ? (uint32_t)utf8proc_tolower((utf8proc_int32_t)c) : c;
        if (!gv_bytes_rune(out, c))
            return false;
    }
    return true;
}

static gv_status norm_one(const struct norm *x, struct bytes *out, const char *s, size_t n, struct error *e)
{
    bool ok = true;
    switch (x->kind) {
    case NORM_CHARSMAP: ok = norm_charsmap(x, out, s, n); break;
    case NORM_STRIP: ok = norm_strip(x, out, s, n); break;
    case NORM_REPLACE: return norm_replace(x, out, s, n, e);
    case NORM_LOWER:
    case NORM_NMT: ok = norm_runes(x, out, s, n); break;
    case NORM_FORM: ok = gv_utf8_form(out, s, n, x->form); break;
    case NORM_PREPEND: ok = (!n || gv_bytes_put(out, x->text, strlen(x->text))) && gv_bytes_put(out, s, n); break;
    }
    return ok ? GV_OK : gv_bytes_failed(out, e);
}

/* All normalizers in order; *out is overwritten. */
static gv_status normalize(const struct pipeline *p, struct bytes *out, const char *s, size_t n, struct error *e)
{
    struct bytes now = { 0 }, next = { 0 };
    gv_status    st = gv_bytes_put(&now, s, n) ? GV_OK : gv_bytes_failed(&now, e);
    for (int i = 0; st == GV_OK && i < p->n_norm; i++) {
        next.n           = 0;
        st               = norm_one(&p->norm[i], &next, now.data, now.n, e);
        struct bytes was = now;
        if (st == GV_OK && !next.data && !gv_bytes_put(&next, "", 0))
            st = gv_bytes_failed(&next, e);
        now  = next;
        next = was;
    }
    out->n = 0;
    if (st == GV_OK && !gv_bytes_put(out, now.data, now.n))
        st = gv_bytes_failed(out, e);
    gv_bytes_free(&now);
    gv_bytes_free(&next);
    return st;
}

/* ---- pre-tokenizers -------------------------------------------------------------------------------------------------- */

/* Joins cuts as the behaviour says, in place; .match then means: leave out. */
static void merge_cuts(struct cuts *c, enum behaviour behaviour)
{
    size_t n      = 0;
    bool   before = false;
    for (size_t i = 0; i < c->n && behaviour != REMOVED && behaviour != MERGED_WITH_NEXT; i++) {
        struct cut x    = c->cut[i];
        bool       join = (behaviour == CONTIGUOUS && x.match == before) ||
                    (behaviour == MERGED_WITH_PREVIOUS && x.match && !before);
        before = x.match;
        if (join && n)
            c->cut[n - 1].to = x.to;
        else
            c->cut[n++] = (struct cut){ x.from, x.to, false };
    }
    if (behaviour != REMOVED && behaviour != MERGED_WITH_NEXT)
        c->n = n;
    if (behaviour != MERGED_WITH_NEXT)
        return;
    n = c->n;
    for (size_t i = c->n; i-- > 0;) {
        struct cut x    = c->cut[i];
        bool       join = x.match && !before && n < c->n;
        before          = x.match;
        if (join)
            c->cut[n].from = x.from;
        else
            c->cut[--n] = (struct cut){ x.from, x.to, false };
    }
    memmove(c->cut, c->cut + n, (c->n - n) * sizeof *c->cut);
    c->n -= n;
}

static bool cuts_out(const struct cuts *c, const char *s, bool first, struct spans *out)
{
    for (size_t i = 0; i < c->n; i++)
        if (!c->cut[i].match && !gv_spans_text(out, s + c->cut[i].from, c->cut[i].to - c->cut[i].from, first && c->cut[i].from == 0))
            return false;
    return true;
}

static gv_status cut_pattern(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    struct cuts cuts = { 0 };
    gv_status   st   = find_cuts(&x->pattern, s, n, &cuts, e);
    for (size_t i = 0; x->invert && i < cuts.n; i++)
        cuts.cut[i].match = !cuts.cut[i].match;
    if (st == GV_OK) {
        merge_cuts(&cuts, x->behaviour);
        if (!cuts_out(&cuts, s, first, out))
            st = gv_bytes_failed(&out->text, e);
    }
    free(cuts.cut);
    return st;
}

static bool rune_is(enum cut_kind kind, uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    if (kind == CUT_SPACE)
        return gv_rune_space(c);
    if (kind == CUT_DIGITS)
        return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
    return (c < 0x80 && strchr("$+<=>^`|~", (int)c) && c) || (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO);
}

static gv_status cut_runes(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    struct cuts cuts    = { 0 };
    size_t      covered = 0;
    int         step;
    bool        ok = true;
    for (size_t i = 0; ok && i < n; i += (size_t)step)
        if (rune_is(x->kind, gv_rune(s + i, &step)))
            ok = cuts_match(&cuts, &covered, i, i + (size_t)step);
    ok = ok && (covered == n || cuts_put(&cuts, covered, n, false));
    if (ok) {
        merge_cuts(&cuts, x->behaviour);
        ok = cuts_out(&cuts, s, first, out);
    }
    free(cuts.cut);
    return ok ? GV_OK : out->text.grown ? gv_bytes_failed(&out->text, e) : no_memory(e);
}

static gv_status cut_metaspace(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    struct bytes  text  = { 0 };
    size_t        mark  = strlen(x->mark);
    bool          has   = n && (s[0] == ' ' || (n >= mark && memcmp(s, x->mark, mark) == 0));
    bool          add   = x->scheme == PREPEND_ALWAYS || (x->scheme == PREPEND_FIRST && first);
    bool          ok    = has || !add || gv_bytes_put(&text, x->mark, mark);
    struct cutter split = { .kind      = CUT_PATTERN,
                            .behaviour = MERGED_WITH_NEXT,
                            .pattern   = { .literal = (char[5]){ 0 }, .n = mark } };
    memcpy(split.pattern.literal, x->mark, sizeof x->mark);
    for (size_t i = 0; ok && i < n; i++)
        ok = s[i] == ' ' ? gv_bytes_put(&text, x->mark, mark) : gv_bytes_put(&text, s + i, 1);
    gv_status st = ok ? GV_OK : gv_bytes_failed(&text, e);
    if (ok && x->split)
        st = cut_pattern(&split, text.data, text.n, first, out, e);
    else if (ok && !gv_spans_text(out, text.data, text.n, first))
        st = gv_bytes_failed(&out->text, e);
    gv_bytes_free(&text);
    return st;
}

/* GPT-2's letter for a byte. */
static uint32_t byte_letter(uint8_t b)
{
    if ((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
        return b;
    return 0x100u + (b < 33 ? b : b == 173 ? 67u : b - 127u + 33u);
}

static gv_status cut_bytelevel(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    struct bytes text = { 0 }, letters = { 0 };
    struct spans cut = { 0 };
    bool         ok  = !(x->prefix_space && n && s[0] != ' ') || gv_bytes_put(&text, " ", 1);
    ok               = ok && gv_bytes_put(&text, s, n);
    gv_status st     = ok ? GV_OK : gv_bytes_failed(&text, e);
    if (ok && x->use_regex)
        st = cut_pattern(x, text.data, text.n, first, &cut, e);
    else if (ok && !gv_spans_text(&cut, text.data, text.n, first))
        st = gv_bytes_failed(&cut.text, e);
    for (size_t i = 0; st == GV_OK && i < cut.n; i++) {
        letters.n = 0;
        for (size_t k = 0; ok && k < cut.span[i].n; k++)
            ok = gv_bytes_rune(&letters, byte_letter((uint8_t)cut.text.data[cut.span[i].at + k]));
        if (!ok)
            st = gv_bytes_failed(&letters, e);
        else if (!gv_spans_text(out, letters.data, letters.n, cut.span[i].first))
            st = gv_bytes_failed(&out->text, e);
    }
    gv_bytes_free(&text);
    gv_bytes_free(&letters);
    gv_spans_free(&cut);
    return st;
}

static gv_status cut_one(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    switch (x->kind) {
    case CUT_METASPACE: return cut_metaspace(x, s, n, first, out, e);
    case CUT_BYTELEVEL: return cut_bytelevel(x, s, n, first, out, e);
    case CUT_PATTERN: return cut_pattern(x, s, n, first, out, e);
    case CUT_SPACE:
    case CUT_DIGITS:
    case CUT_PUNCTUATION: break;
    }
    return cut_runes(x, s, n, first, out, e);
}

/* ---- added tokens ---------------------------------------------------------------------------------------------------- */

/* The regex crate's \w, as near as general categories come to it. */
static bool word_rune(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d ||
           (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f189 && k == UTF8PROC_CATEGORY_SO);
}

static size_t rune_before(const char *s, size_t at)
{
    do
        at--;
    while (at && ((uint8_t)s[at] & 0xc0) == 0x80);
    return at;
}

static bool stands_alone(const char *s, size_t n, size_t from, size_t to)
{
    int step;
    return !(from && word_rune(gv_rune(s + rune_before(s, from), &step))) && !(to < n && word_rune(gv_rune(s + to, &step)));
}

/* Cuts s at the added tokens of one trie. */
static bool split_added(const struct pipeline *p, const struct trie *trie, const char *s, size_t n, bool first, struct spans *out)
{
    size_t covered = 0, length = 0;
    for (size_t i = 0; i < n;) {
        int32_t k = gv_trie_longest(trie, s + i, n - i, &length);
        if (k < 0) {
            i++;
            continue;
        }
        const struct added *a    = &p->added[k];
        size_t              from = i, to = i + length;
        int                 step;
        i = to;
        if (a->single_word && !stands_alone(s, n, from, to))
            continue;
        while (a->lstrip && from > covered && gv_rune_space(gv_rune(s + rune_before(s, from), &step)))
            from = rune_before(s, from);
        while (a->rstrip && to < n && gv_rune_space(gv_rune(s + to, &step)))
            to += (size_t)step;
        if (covered < from && !gv_spans_text(out, s + covered, from - covered, first && covered == 0))
            return false;
        if (!gv_spans_id(out, a->id))
            return false;
        covered = to;
    }
    return covered >= n || gv_spans_text(out, s + covered, n - covered, first && covered == 0);
}

int32_t gv_pipeline_added(const struct pipeline *p, const char *content)
{
    for (size_t i = 0; i < p->n_added; i++)
        if (strcmp(p->added[i].content, content) == 0)
            return p->added[i].id;
    return -1;
}

/* ---- text to spans --------------------------------------------------------------------------------------------------- */

static gv_status normalize_all(const struct pipeline *p, const struct spans *in, struct spans *out, struct error *e)
{
    struct bytes text = { 0 };
    gv_status    st   = GV_OK;
    for (size_t i = 0; st == GV_OK && i < in->n; i++) {
        const struct span *s = &in->span[i];
        if (s->id >= 0) {
            st = gv_spans_id(out, s->id) ? GV_OK : no_memory(e);
            continue;
        }
        st = normalize(p, &text, in->text.data + s->at, s->n, e);
        if (st == GV_OK && !split_added(p, &p->normalized, text.data, text.n, s->first, out))
            st = gv_bytes_failed(&out->text, e);
    }
    gv_bytes_free(&text);
    return st;
}

static gv_status cut_all(const struct cutter *x, const struct spans *in, struct spans *out, struct error *e)
{
    for (size_t i = 0; i < in->n; i++) {
        const struct span *s = &in->span[i];
        if (s->id < 0)
            TRY(cut_one(x, in->text.data + s->at, s->n, s->first, out, e));
        else if (!gv_spans_id(out, s->id))
            return no_memory(e);
    }
    return GV_OK;
}

gv_status gv_pipeline_prepare(const struct tokenizer *t, const char *text, size_t n, struct spans *out, struct error *e)
{
    const struct pipeline *p    = t->pipeline;
    struct spans           next = { 0 };
    gv_status              st   = split_added(p, &p->as_is, text, n, true, &next) ? GV_OK : gv_bytes_failed(&next.text, e);
    if (st == GV_OK)
        st = normalize_all(p, &next, out, e);
    for (int i = 0; st == GV_OK && i < p->n_cutter; i++) {
        struct spans was = *out;
        *out             = next;
        next             = was;
        gv_spans_clear(out);
        st = cut_all(&p->cutter[i], &next, out, e);
    }
    gv_spans_free(&next);
    return st;
}

/* ---- reading: patterns and normalizers ------------------------------------------------------------------------------- */

static char *copy_string(const char *s)
{
    size_t n = strlen(s) + 1;
    char  *c = malloc(n);
    if (c)
        memcpy(c, s, n);
    return c;
}

static void keep_string(char **out, const char *s, const struct json_view *at)
{
    *out = copy_string(s);
    if (!*out)
        gv_json_fail(at, NULL, GV_ERR_MEMORY, "no memory");
}

static void read_pattern(struct pattern *p, const struct json_view *node)
{
    struct json_view v     = gv_json_object(node, "pattern", true);
    bool             regex = gv_json_has(&v, "Regex");
    const char      *s     = gv_json_string(&v, regex ? "Regex" : "String", NULL);
    p->n                   = strlen(s);
    if (p->n > PATTERN_MAX)
        gv_json_fail(&v, NULL, GV_ERR_MODEL, "has %zu bytes, at most %d are taken", p->n, PATTERN_MAX);
    else if (gv_json_done(&v) == GV_OK && regex)
        compile(p, s, &v, "Regex");
    else if (gv_json_done(&v) == GV_OK)
        keep_string(&p->literal, s, &v);
}

static int base64_value(char c)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char       *at         = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

/* NULL when s is not base64 with its padding, or memory ran out. */
static uint8_t *base64(const char *s, size_t n, size_t *bytes)
{
    int8_t   value[256];
    uint8_t *out = malloc(n / 4 * 3 + 3);
    size_t   pad = n >= 1 && s[n - 1] == '=' ? (n >= 2 && s[n - 2] == '=' ? 2 : 1) : 0;
    bool     ok  = out && n % 4 == 0;
    *bytes       = 0;
    for (int i = 0; i < 256; i++)
        value[i] = (int8_t)base64_value((char)i);
    for (size_t i = 0; ok && i < n; i += 4) {
        uint32_t word = 0;
        for (size_t k = 0; ok && k < 4; k++) {
            bool is_pad = i + k >= n - pad;
            int  v      = is_pad ? 0 : value[(uint8_t)s[i + k]];
            ok          = v >= 0;
            word        = word << 6 | (uint32_t)(ok ? v : 0);
        }
        for (int k = 16; ok && k >= 0; k -= 8)
            out[(*bytes)++] = (uint8_t)(word >> k);
    }
    if (!ok) {
        free(out);
        return NULL;
    }
    *bytes -= n ? pad : 0;
    return out;
}

static void read_charsmap(struct charsmap *m, const struct json_view *node)
{
    const char *s     = gv_json_string(node, "precompiled_charsmap", NULL);
    size_t      bytes = 0;
    uint8_t    *data  = base64(s, strlen(s), &bytes);
    if (!data) {
        gv_json_fail(node, "precompiled_charsmap", GV_ERR_MODEL, "is not base64");
        return;
    }
    const char *why = gv_charsmap_open(m, data, bytes);
    if (why)
        gv_json_fail(node, "precompiled_charsmap", GV_ERR_MODEL, "%s", why);
}

enum { N_SEQUENCE, N_PRECOMPILED, N_STRIP, N_REPLACE, N_LOWERCASE, N_NFC, N_NFD, N_NFKC, N_NFKD, N_NMT, N_PREPEND, N_TYPES };
static const char *const norm_types[N_TYPES] = { "Sequence", "Precompiled", "Strip", "Replace", "Lowercase", "NFC",
                                                 "NFD",      "NFKC",        "NFKD",  "Nmt",     "Prepend" };

static void read_norm(struct norm *x, const struct json_view *node, int type)
{
    static const enum normal_form forms[] = { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD };
    static const enum norm_kind   kinds[] = { NORM_FORM, NORM_CHARSMAP, NORM_STRIP, NORM_REPLACE, NORM_LOWER, NORM_FORM,
                                            NORM_FORM, NORM_FORM,     NORM_FORM,  NORM_NMT,     NORM_PREPEND };
    x->kind = kinds[type];
    if (x->kind == NORM_FORM)
        x->form = forms[type - N_NFC];
    if (x->kind == NORM_CHARSMAP)
        read_charsmap(&x->map, node);
    if (x->kind == NORM_STRIP) {
        x->left  = gv_json_bool(node, "strip_left", GV_JSON_MUST);
        x->right = gv_json_bool(node, "strip_right", GV_JSON_MUST);
    }
    if (x->kind == NORM_REPLACE) {
        read_pattern(&x->pattern, node);
        keep_string(&x->text, gv_json_string(node, "content", NULL), node);
    }
    if (x->kind == NORM_PREPEND)
        keep_string(&x->text, gv_json_string(node, "prepend", NULL), node);
}

/* Whether one more step fits; says so when not. */
static bool room_for(const struct json_view *node, int n, int depth)
{
    if (n < STEPS_MAX && depth < NESTING_MAX)
        return true;
    gv_json_fail(node, NULL, GV_ERR_MODEL, "is one step too many: at most %d, nested at most %d deep", STEPS_MAX, NESTING_MAX);
    return false;
}

static void read_norms(struct pipeline *p, const struct json_view *node, int depth)
{
    if (!node->value || json_is_null(node->value) || !room_for(node, p->n_norm, depth))
        return;
    int type = gv_json_choice(node, "type", norm_types, N_TYPES, GV_JSON_MUST);
    if (gv_json_done(node) != GV_OK)
        return;
    if (type != N_SEQUENCE) {
        read_norm(&p->norm[p->n_norm++], node, type);
        return;
    }
    struct json_view list = gv_json_array(node, "normalizers", 0, STEPS_MAX, true);
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&list); i++) {
        struct json_view child = gv_json_at(&list, i);
        read_norms(p, &child, depth + 1);
    }
}

/* ---- reading: pre-tokenizers ----------------------------------------------------------------------------------------- */

static const char *const behaviours[] = { "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous" };

static void read_metaspace(struct cutter *x, const struct json_view *node)
{
    static const char *const schemes[] = { "always", "first", "never" };
    const char              *mark      = gv_json_string(node, "replacement", NULL);
    int                      step      = 0;
    x->scheme = (enum scheme)gv_json_choice(node, "prepend_scheme", schemes, 3, PREPEND_ALWAYS);
    x->split  = gv_json_bool(node, "split", true);
    if (gv_json_done(node) != GV_OK)
        return;
    if (*mark)
        gv_rune(mark, &step);
    if (!*mark || mark[step])
        gv_json_fail(node, "replacement", GV_ERR_MODEL, "is \"%.20s\", expected one character", mark);
    else
        strcpy(x->mark, mark);
    if (!gv_json_bool(node, "add_prefix_space", true)) {
        if (gv_json_has(node, "prepend_scheme") && x->scheme != PREPEND_NEVER)
            gv_json_fail(node, "add_prefix_space", GV_ERR_MODEL, "is false, but prepend_scheme is \"%s\"", schemes[x->scheme]);
        x->scheme = PREPEND_NEVER;
    }
}

static void read_bytelevel(struct cutter *x, const struct json_view *node)
{
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    x->prefix_space          = gv_json_bool(node, "add_prefix_space", true);
    x->use_regex             = gv_json_bool(node, "use_regex", true);
    x->behaviour             = ISOLATED;
    if (x->use_regex)
        compile(&x->pattern, gpt2, node, NULL);
}

enum { C_SEQUENCE, C_METASPACE, C_BYTELEVEL, C_SPLIT, C_WHITESPACE_SPLIT, C_DIGITS, C_PUNCTUATION, C_TYPES };
static const char *const cut_types[C_TYPES] = { "Sequence", "Metaspace", "ByteLevel", "Split", "WhitespaceSplit", "Digits", "Punctuation" };

static void read_cutter(struct cutter *x, const struct json_view *node, int type)
{
    static const enum cut_kind kinds[] = { CUT_SPACE, CUT_METASPACE, CUT_BYTELEVEL, CUT_PATTERN, CUT_SPACE, CUT_DIGITS, CUT_PUNCTUATION };
    x->kind = kinds[type];
    if (type == C_METASPACE)
        read_metaspace(x, node);
    if (type == C_BYTELEVEL)
        read_bytelevel(x, node);
    if (type == C_SPLIT) {
        read_pattern(&x->pattern, node);
        x->behaviour = (enum behaviour)gv_json_choice(node, "behavior", behaviours, 5, GV_JSON_MUST);
        x->invert    = gv_json_bool(node, "invert", GV_JSON_MUST);
    }
    if (type == C_WHITESPACE_SPLIT)
        x->behaviour = REMOVED;
    if (type == C_DIGITS)
        x->behaviour = gv_json_bool(node, "individual_digits", GV_JSON_MUST) ? ISOLATED : CONTIGUOUS;
    if (type == C_PUNCTUATION)
        x->behaviour = (enum behaviour)gv_json_choice(node, "behavior", behaviours, 5, ISOLATED);
}

static void read_cutters(struct pipeline *p, const struct json_view *node, int depth)
{
    if (!node->value || json_is_null(node->value) || !room_for(node, p->n_cutter, depth))
        return;
    int type = gv_json_choice(node, "type", cut_types, C_TYPES, GV_JSON_MUST);
    if (gv_json_done(node) != GV_OK)
        return;
    if (type != C_SEQUENCE) {
        read_cutter(&p->cutter[p->n_cutter++], node, type);
        return;
    }
    struct json_view list = gv_json_array(node, "pretokenizers", 0, STEPS_MAX, true);
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&list); i++) {
        struct json_view child = gv_json_at(&list, i);
        read_cutters(p, &child, depth + 1);
    }
}

/* ---- reading: models ------------------------------------------------------------------------------------------------- */

/* Piece for an id: copied into t->text at *used. */
static void set_piece(struct tokenizer *t, int32_t id, const char *s, size_t n, size_t *used)
{
    struct piece *p = &t->piece[id];
    memcpy(t->text + *used, s, n);
    *p = (struct piece){ .s = t->text + *used, .n = (uint32_t)n };
    *used += n;
    static const char hex[] = "0123456789ABCDEF";
    if (n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' && s[3] && s[4] && strchr(hex, s[3]) && strchr(hex, s[4])) {
        p->flags |= PIECE_BYTE;
        p->byte             = (uint8_t)((strchr(hex, s[3]) - hex) << 4 | (strchr(hex, s[4]) - hex));
        t->byte_id[p->byte] = id;
    }
}

static gv_status index_pieces(struct tokenizer *t, const struct json_view *at)
{
    size_t           n    = 0;
    struct trie_key *keys = malloc(((size_t)t->n_vocab + 1) * sizeof *keys);
    for (int32_t i = 0; keys && i < t->n_vocab; i++)
        if (t->piece[i].s)
            keys[n++] = gv_trie_key(t->piece[i].s, t->piece[i].n, i);
    bool ok = keys && gv_trie_build(&t->trie, keys, n);
    free(keys);
    return ok ? GV_OK : gv_json_fail(at, NULL, GV_ERR_MEMORY, "no memory for %d pieces", t->n_vocab);
}

/* Entry i of Unigram's vocab as [piece, score]. */
static const char *unigram_entry(const struct json_view *vocab, size_t i, size_t *n, double *score)
{
    const json_t *entry = json_array_get(vocab->value, i), *s = json_array_get(entry, 0), *x = json_array_get(entry, 1);
    if (json_array_size(entry) == 2 && json_is_string(s) && json_is_number(x) && json_string_length(s) <= TOK_PIECE_MAX) {
        *n     = json_string_length(s);
        *score = json_number_value(x);
        return json_string_value(s);
    }
    struct json_view at = gv_json_at(vocab, i);
    gv_json_fail(&at, NULL, GV_ERR_MODEL, "is no [piece, score] with a piece of at most %d bytes", TOK_PIECE_MAX);
    return NULL;
}

static gv_status read_unigram(struct tokenizer *t, const struct json_view *model, int32_t n_ids)
{
    struct json_view vocab = gv_json_array(model, "vocab", 1, TOK_IDS_MAX, true);
    int32_t          n     = (int32_t)gv_json_count(&vocab);
    size_t           bytes = 0, used = 0, length = 0;
    double           score = 0, low = 1e308;
    t->unk                 = (int32_t)gv_json_int(model, "unk_id", 0, n - 1, -1);
    t->byte_fallback       = gv_json_bool(model, "byte_fallback", false);
    for (int32_t i = 0; gv_json_done(model) == GV_OK && i < n; i++, bytes += length)
        unigram_entry(&vocab, (size_t)i, &length, &score);
    TRY(gv_json_done(model));
    TRY(gv_tokenizer_reserve(t, n > n_ids ? n : n_ids, bytes, model->file, model->e));
    t->model   = MODEL_UNIGRAM;
    t->n_vocab = n;
    t->score   = malloc((size_t)n * sizeof *t->score);
    if (!t->score)
        return gv_json_fail(model, NULL, GV_ERR_MEMORY, "no memory for %d scores", n);
    for (int32_t i = 0; i < n; i++) {
        const char *s = unigram_entry(&vocab, (size_t)i, &length, &t->score[i]);
        set_piece(t, i, s, length, &used);
        low = t->score[i] < low ? t->score[i] : low;
    }
    t->unk_score = low - 10.0;
    return index_pieces(t, model);
}

struct raw_merge {
    int32_t left;
    struct merge merge;
};

static int compare_merges(const void *a, const void *b)
{
    const struct raw_merge *x = a, *y = b;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    if (x->merge.right != y->merge.right)
        return x->merge.right < y->merge.right ? -1 : 1;
    return (x->merge.rank > y->merge.rank) - (x->merge.rank < y->merge.rank);
}

/* The two halves of merges[i]: ["a", "b"], or "a b" in older files. */
static bool merge_halves(const json_t *entry, const char *half[2], size_t n[2])
{
    if (json_is_string(entry)) {
        const char *s = json_string_value(entry), *space = memchr(s, ' ', json_string_length(entry));
        half[0] = s;
        n[0]    = space ? (size_t)(space - s) : 0;
        half[1] = space ? space + 1 : s;
        n[1]    = space ? json_string_length(entry) - n[0] - 1 : 0;
        return space && !memchr(half[1], ' ', n[1]);
    }
    for (size_t k = 0; k < 2; k++) {
        const json_t *s = json_array_get(entry, k);
        half[k]         = json_string_value(s);
        n[k]            = json_string_length(s);
    }
    return json_array_size(entry) == 2 && half[0] && half[1];
}

static void read_merge(const struct tokenizer *t, const struct json_view *merges, size_t i, struct raw_merge *out)
{
    const char *half[2];
    size_t      n[2], skip = t->word_prefix ? strlen(t->word_prefix) : 0;
    char        both[2 * TOK_PIECE_MAX];
    bool        ok = merge_halves(json_array_get(merges->value, i), half, n) && n[0] <= TOK_PIECE_MAX && n[1] <= TOK_PIECE_MAX;
    int32_t     left = ok ? gv_trie_find(&t->trie, half[0], n[0]) : -1, right = ok ? gv_trie_find(&t->trie, half[1], n[1]) : -1, id = -1;
    if (ok && n[1] >= skip) {
        memcpy(both, half[0], n[0]);
        memcpy(both + n[0], half[1] + skip, n[1] - skip);
        id = gv_trie_find(&t->trie, both, n[0] + n[1] - skip);
    }
    *out = (struct raw_merge){ left, { right, (int32_t)i, id } };
    if (left >= 0 && right >= 0 && id >= 0)
        return;
    struct json_view at = gv_json_at(merges, i);
    if (!ok)
        gv_json_fail(&at, NULL, GV_ERR_MODEL, "is no pair of pieces");
    else
        gv_json_fail(&at, NULL, GV_ERR_MODEL, "joins \"%.*s\" and \"%.*s\": these and the whole must be in the vocabulary",
                     n[0] > 40 ? 40 : (int)n[0], half[0], n[1] > 40 ? 40 : (int)n[1], half[1]);
}

static gv_status read_merges(struct tokenizer *t, const struct json_view *model)
{
    struct json_view  merges = gv_json_array(model, "merges", 0, TOK_IDS_MAX, true);
    size_t            n = gv_json_count(&merges), kept = 0;
    struct raw_merge *raw = malloc((n + 1) * sizeof *raw);
    t->merge              = malloc((n + 1) * sizeof *t->merge);
    t->merge_at           = calloc((size_t)t->n_pieces + 2, sizeof *t->merge_at);
    if (!raw || !t->merge || !t->merge_at) {
        free(raw);
        return gv_json_fail(&merges, NULL, GV_ERR_MEMORY, "no memory for %zu merges", n);
    }
    for (size_t i = 0; gv_json_done(model) == GV_OK && i < n; i++)
        read_merge(t, &merges, i, &raw[i]);
    if (gv_json_done(model) == GV_OK) {
        qsort(raw, n, sizeof *raw, compare_merges);
        for (size_t i = 0; i < n; i++) { /* of a pair given twice the last counts */
            if (i + 1 < n && raw[i].left == raw[i + 1].left && raw[i].merge.right == raw[i + 1].merge.right)
                continue;
            t->merge[kept++] = raw[i].merge;
            t->merge_at[raw[i].left + 1]++;
        }
        for (int32_t i = 0; i <= t->n_pieces; i++)
            t->merge_at[i + 1] += t->merge_at[i];
    }
    free(raw);
    return gv_json_done(model);
}

/* Largest id of BPE's vocabulary and its bytes; checks every entry. */
static gv_status measure_vocab(const struct json_view *vocab, int32_t *top, size_t *bytes)
{
    json_t     *object = (json_t *)(uintptr_t)vocab->value; /* jansson's iterators take no const */
    const char *key;
    json_t     *x;
    json_object_foreach(object, key, x) {
        json_int_t id = json_is_integer(x) ? json_integer_value(x) : -1;
        size_t     n  = strlen(key);
        if (id < 0 || id >= TOK_IDS_MAX || n > TOK_PIECE_MAX)
            return gv_json_fail(vocab, n > 40 ? "(long piece)" : key, GV_ERR_MODEL, "expected an id from 0 to %d, and a piece of at most %d bytes",
                                TOK_IDS_MAX - 1, TOK_PIECE_MAX);
        *top = id > *top ? (int32_t)id : *top;
        *bytes += n;
    }
    return GV_OK;
}

static gv_status fill_vocab(struct tokenizer *t, const struct json_view *vocab)
{
    json_t     *object = (json_t *)(uintptr_t)vocab->value;
    const char *key;
    json_t     *x;
    size_t      used = 0;
    json_object_foreach(object, key, x) {
        int32_t id = (int32_t)json_integer_value(x);
        if (t->piece[id].s)
            return gv_json_fail(vocab, NULL, GV_ERR_MODEL, "gives id %d to two pieces, \"%.40s\" and \"%.*s\"", id, key,
                                t->piece[id].n > 40 ? 40 : (int)t->piece[id].n, t->piece[id].s);
        set_piece(t, id, key, strlen(key), &used);
    }
    return GV_OK;
}

static gv_status read_bpe_options(struct tokenizer *t, const struct json_view *model)
{
    const char *prefix = gv_json_string(model, "continuing_subword_prefix", ""), *suffix = gv_json_string(model, "end_of_word_suffix", "");
    const char *unk    = gv_json_string(model, "unk_token", "");
    t->model           = MODEL_BPE;
    t->fuse_unk        = gv_json_bool(model, "fuse_unk", false);
    t->ignore_merges   = gv_json_bool(model, "ignore_merges", false);
    t->byte_fallback   = gv_json_bool(model, "byte_fallback", false);
    gv_json_number(model, "dropout", 0, 0, 0); /* anything else would make ids a matter of chance */
    if (*prefix)
        keep_string(&t->word_prefix, prefix, model);
    if (*suffix)
        keep_string(&t->word_suffix, suffix, model);
    if (t->byte_fallback && (*prefix || *suffix))
        gv_json_fail(model, "byte_fallback", GV_ERR_MODEL, "together with a prefix or suffix is not handled");
    if (*unk && (t->unk = gv_trie_find(&t->trie, unk, strlen(unk))) < 0)
        gv_json_fail(model, "unk_token", GV_ERR_MODEL, "is \"%.40s\", which is not in the vocabulary", unk);
    return gv_json_done(model);
}

static gv_status read_bpe(struct tokenizer *t, const struct json_view *model, int32_t n_ids)
{
    struct json_view vocab = gv_json_object(model, "vocab", true);
    int32_t          top   = -1;
    size_t           bytes = 0;
    TRY(gv_json_done(model));
    TRY(measure_vocab(&vocab, &top, &bytes));
    TRY(gv_tokenizer_reserve(t, top + 1 > n_ids ? top + 1 : n_ids, bytes, model->file, model->e));
    t->n_vocab = top + 1;
    TRY(fill_vocab(t, &vocab));
    TRY(index_pieces(t, model));
    TRY(read_bpe_options(t, model));
    return read_merges(t, model);
}

/* ---- reading: added tokens, post-processor, decoder ------------------------------------------------------------------ */

static gv_status count_ids(const struct json_view *list, int32_t *n_ids)
{
    for (size_t i = 0; gv_json_done(list) == GV_OK && i < gv_json_count(list); i++) {
        struct json_view a  = gv_json_at(list, i);
        int32_t          id = (int32_t)gv_json_int(&a, "id", 0, TOK_IDS_MAX - 1, GV_JSON_REQUIRED);
        *n_ids              = id + 1 > *n_ids ? id + 1 : *n_ids;
    }
    return gv_json_done(list);
}

static gv_status read_added(struct tokenizer *t, struct pipeline *p, const struct json_view *a)
{
    struct added *x       = &p->added[p->n_added++];
    const char   *content = gv_json_string(a, "content", NULL);
    *x                    = (struct added){ .id          = (int32_t)gv_json_int(a, "id", 0, TOK_IDS_MAX - 1, GV_JSON_REQUIRED),
                          .single_word = gv_json_bool(a, "single_word", false),
                          .lstrip      = gv_json_bool(a, "lstrip", false),
                          .rstrip      = gv_json_bool(a, "rstrip", false),
                          .normalized  = gv_json_bool(a, "normalized", true),
                          .special     = gv_json_bool(a, "special", false) };
    keep_string(&x->content, content, a);
    TRY(gv_json_done(a));
    size_t  n   = strlen(content);
    int32_t has = gv_trie_find(&t->trie, content, n);
    if (!n || n > TOK_PIECE_MAX)
        return gv_json_fail(a, "content", GV_ERR_MODEL, "has %zu bytes, expected 1 to %d", n, TOK_PIECE_MAX);
    if (has >= 0 ? has != x->id : x->id < t->n_vocab && t->piece[x->id].s)
        return gv_json_fail(a, "id", GV_ERR_MODEL, "is %d, but the vocabulary has \"%.40s\" elsewhere, or another piece there", x->id, content);
    struct piece *piece = &t->piece[x->id];
    if (!piece->s)
        *piece = (struct piece){ .s = x->content, .n = (uint32_t)n };
    piece->flags |= (uint8_t)(PIECE_ADDED | (x->special ? PIECE_SPECIAL : 0));
    return GV_OK;
}

/* Tries over the tokens; the normalized ones are found by what the normalizers make of them. */
static gv_status index_added(struct pipeline *p, const struct json_view *list)
{
    struct trie_key *as_is = malloc((p->n_added + 1) * sizeof *as_is), *norm = malloc((p->n_added + 1) * sizeof *norm);
    struct bytes    *text  = calloc(p->n_added + 1, sizeof *text);
    size_t           n_as_is = 0, n_norm = 0;
    gv_status        st = as_is && norm && text ? GV_OK : GV_ERR_MEMORY;
    for (size_t i = 0; st == GV_OK && i < p->n_added; i++) {
        const struct added *a = &p->added[i];
        if (!a->normalized)
            as_is[n_as_is++] = gv_trie_key(a->content, strlen(a->content), (int32_t)i);
        else if ((st = normalize(p, &text[i], a->content, strlen(a->content), list->e)) == GV_OK && text[i].n)
            norm[n_norm++] = gv_trie_key(text[i].data, text[i].n, (int32_t)i);
    }
    if (st == GV_OK && (!gv_trie_build(&p->as_is, as_is, n_as_is) || !gv_trie_build(&p->normalized, norm, n_norm)))
        st = GV_ERR_MEMORY;
    for (size_t i = 0; text && i < p->n_added; i++)
        gv_bytes_free(&text[i]);
    free(as_is);
    free(norm);
    free(text);
    return st == GV_OK ? st : gv_json_fail(list, NULL, st, "no memory for %zu added tokens", p->n_added);
}

static gv_status read_all_added(struct tokenizer *t, struct pipeline *p, const struct json_view *list)
{
    size_t n = gv_json_count(list);
    p->added = calloc(n + 1, sizeof *p->added);
    if (!p->added)
        return gv_json_fail(list, NULL, GV_ERR_MEMORY, "no memory for %zu added tokens", n);
    for (size_t i = 0; i < n; i++) {
        struct json_view a = gv_json_at(list, i);
        TRY(read_added(t, p, &a));
    }
    return index_added(p, list);
}

/* One more special id, before or after the text. Wrapping means: in front of those before, behind those after. */
static void put_special(struct tokenizer *t, const struct json_view *at, bool before, const int32_t *ids, int n)
{
    int32_t **list = before ? &t->before : &t->after;
    int      *have = before ? &t->n_before : &t->n_after;
    for (int i = 0; i < n; i++)
        if (ids[i] >= t->n_pieces || !t->piece[ids[i]].s) {
            gv_json_fail(at, NULL, GV_ERR_MODEL, "names id %d, which the vocabulary has not", ids[i]);
            return;
        }
    if (*have + n > SPECIAL_MAX) {
        gv_json_fail(at, NULL, GV_ERR_MODEL, "puts more than %d ids around a text", SPECIAL_MAX);
        return;
    }
    int32_t *more = realloc(*list, (size_t)(*have + n + 1) * sizeof *more);
    if (!more) {
        gv_json_fail(at, NULL, GV_ERR_MEMORY, "no memory");
        return;
    }
    memcpy(more + *have, ids, (size_t)n * sizeof *more);
    *list = more;
    *have += n;
}

static void read_template(struct tokenizer *t, const struct json_view *node)
{
    struct json_view single = gv_json_array(node, "single", 0, SPECIAL_MAX, true), all = gv_json_object(node, "special_tokens", false);
    int              seen   = 0;
    if (t->n_before || t->n_after)
        gv_json_fail(node, NULL, GV_ERR_MODEL, "is a second post-processor that adds ids, which is not handled");
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&single); i++) {
        struct json_view piece = gv_json_at(&single, i);
        if (gv_json_has(&piece, "Sequence")) {
            struct json_view sequence = gv_json_object(&piece, "Sequence", true);
            if (strcmp(gv_json_string(&sequence, "id", NULL), "A") != 0 || seen++)
                gv_json_fail(&piece, NULL, GV_ERR_MODEL, "expected the sequence A, once");
            continue;
        }
        struct json_view named = gv_json_object(&piece, "SpecialToken", true);
        struct json_view token = gv_json_object(&all, gv_json_string(&named, "id", NULL), true);
        int              ids[SPECIAL_MAX];
        int              n = gv_json_ints(&token, "ids", 0, TOK_IDS_MAX - 1, ids, 0, SPECIAL_MAX, true);
        if (gv_json_done(node) == GV_OK)
            put_special(t, &token, !seen, ids, n);
    }
    if (gv_json_done(node) == GV_OK && !seen)
        gv_json_fail(&single, NULL, GV_ERR_MODEL, "has no place for the text");
}

/* Bert and Roberta: [token, id] before and after. */
static void read_bert(struct tokenizer *t, const struct json_view *node)
{
    static const char *const names[] = { "cls", "sep" };
    for (int i = 0; i < 2; i++) {
        struct json_view pair = gv_json_array(node, names[i], 2, 2, true);
        const json_t    *x    = json_array_get(pair.value, 1);
        json_int_t       id   = json_is_integer(x) ? json_integer_value(x) : -1;
        if (gv_json_done(node) != GV_OK)
            return;
        if (id < 0 || id >= TOK_IDS_MAX)
            gv_json_fail(&pair, NULL, GV_ERR_MODEL, "is no [token, id]");
        else
            put_special(t, &pair, i == 0, &(int32_t){ (int32_t)id }, 1);
    }
}

static void read_post(struct tokenizer *t, const struct json_view *node, int depth)
{
    static const char *const types[] = { "Sequence", "TemplateProcessing", "ByteLevel", "BertProcessing", "RobertaProcessing" };
    if (!node->value || json_is_null(node->value) || !room_for(node, 0, depth))
        return;
    int type = gv_json_choice(node, "type", types, 5, GV_JSON_MUST);
    if (gv_json_done(node) != GV_OK)
        return;
    if (type == 1)
        read_template(t, node);
    if (type >= 3)
        read_bert(t, node);
    if (type != 0)
        return;
    struct json_view list = gv_json_array(node, "processors", 0, STEPS_MAX, true);
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&list); i++) {
        struct json_view child = gv_json_at(&list, i);
        read_post(t, &child, depth + 1);
    }
}

/* How pieces become text again. A decoder that is not known leaves pieces as they are: no id depends on it. */
static void read_decoder(struct tokenizer *t, const struct json_view *node, int depth)
{
    const char *type = node->value && json_is_object(node->value) ? gv_json_string(node, "type", "") : "";
    if (depth >= NESTING_MAX)
        return;
    if (strcmp(type, "ByteLevel") == 0)
        t->byte_level = true;
    if (strcmp(type, "Metaspace") == 0) {
        struct cutter x = { .kind = CUT_METASPACE };
        read_metaspace(&x, node);
        strcpy(t->replacement, x.mark);
        t->metaspace_decode = true;
        t->keep_first_space = x.scheme == PREPEND_NEVER;
    }
    struct json_view list = { .e = node->e, .file = node->file };
    if (strcmp(type, "Sequence") == 0)
        list = gv_json_array(node, "decoders", 0, STEPS_MAX, true);
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&list); i++) {
        struct json_view child = gv_json_at(&list, i);
        read_decoder(t, &child, depth + 1);
    }
}

/* ---- the file -------------------------------------------------------------------------------------------------------- */

static gv_status read_file(struct tokenizer *t, const struct json_view *root)
{
    static const char *const models[] = { "Unigram", "BPE" };
    struct pipeline         *p        = t->pipeline;
    struct json_view         model = gv_json_object(root, "model", true), added = gv_json_array(root, "added_tokens", 0, ADDED_MAX, false);
    struct json_view         norm = gv_json_object(root, "normalizer", false), cut = gv_json_object(root, "pre_tokenizer", false);
    struct json_view         post = gv_json_object(root, "post_processor", false), decoder = gv_json_object(root, "decoder", false);
    int32_t                  n_ids = 0;
    TRY(gv_json_done(root));
    int type = gv_json_choice(&model, "type", models, 2, GV_JSON_MUST);
    TRY(gv_json_done(root));
    read_norms(p, &norm, 0);
    read_cutters(p, &cut, 0);
    TRY(gv_json_done(root));
    TRY(count_ids(&added, &n_ids));
    TRY(type == 0 ? read_unigram(t, &model, n_ids) : read_bpe(t, &model, n_ids));
    TRY(read_all_added(t, p, &added));
    read_post(t, &post, 0);
    read_decoder(t, &decoder, 0);
    return gv_json_done(root);
}

gv_status gv_tokenizer_open_json(struct tokenizer *t, const char *path, struct error *e)
{
    json_t *root = NULL;
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    t->pipeline = calloc(1, sizeof *t->pipeline);
    if (!t->pipeline)
        return gv_fail(e, GV_ERR_MEMORY, "%s: no memory", path);
    TRY(gv_json_load(path, GV_JSON_TOKENIZER_BYTES, &root, e));
    struct json_view view = gv_json_view(root, path, e);
    gv_status        s    = read_file(t, &view);
    json_decref(root);
    return s;
}

void gv_pipeline_free(struct pipeline **pipeline)
{
    struct pipeline *p = *pipeline;
    if (!p)
        return;
    for (int i = 0; i < p->n_norm; i++) {
        pattern_free(&p->norm[i].pattern);
        free(p->norm[i].text);
        free(p->norm[i].map.owned);
    }
    for (int i = 0; i < p->n_cutter; i++)
        pattern_free(&p->cutter[i].pattern);
    for (size_t i = 0; i < p->n_added; i++)
        free(p->added[i].content);
    free(p->added);
    free(p->as_is.node);
    free(p->normalized.node);
    free(p);
    *pipeline = NULL;
}
