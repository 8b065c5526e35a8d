/* What a tokenizer.json does to a text before its model: stages that each rewrite a list of spans.
 *
 *     text ── added tokens found as they stand ── normalizers ── added tokens found after those ── pre-tokenizers ── model
 *
 * A span that is already an id passes through, an empty one is dropped (so an empty text has no tokens even where Metaspace
 * would add a mark). The stages are data, read by tokenizer_json.c; nothing here knows a family.
 *
 * Surprises: a charsmap is applied by grapheme, and a short grapheme is replaced whole as soon as any beginning of it has a
 * rule. A normalized added token is looked for by what the normalizers make of its content. Lower case is one rune for one
 * rune, but for U+0130.
 *
 * Source: huggingface/tokenizers 3ba8ad0061a8 normalizers/, pre_tokenizers/, tokenizer/{normalizer,added_vocabulary}.rs.
 * Unicode tables are utf8proc's (15.0 on Debian 12): code points newer than that may be cut otherwise than by a newer
 * reference. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "io/tokenizer_pipeline.h"

/* ---- normalizers ----------------------------------------------------------------------------------------------------- */

static size_t rune_before(const char *s, size_t at)
{
    do
        at--;
    while (at && ((uint8_t)s[at] & 0xc0) == 0x80);
    return at;
}

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
        int              step;
        utf8proc_int32_t state = 0;
        utf8proc_int32_t c = (utf8proc_int32_t)gv_rune(s + i, &step);
        size_t           end = i + (size_t)step, rule, length;
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
        size_t last = rune_before(s, to);
        if (!gv_rune_space(gv_rune(s + last, &step)))
            break;
        to = last;
    }
    return gv_bytes_put(out, s + from, to - from);
}

static gv_status norm_replace(const struct norm *x, struct bytes *out, const char *s, size_t n, struct error *e)
{
    struct cuts cuts = { 0 };
    gv_status   st = gv_pattern_cut(&x->pattern, s, n, &cuts, e);
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
    if (c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
        c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd)
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

gv_status gv_pipeline_normalize(const struct pipeline *p, struct bytes *out, const char *s, size_t n, struct error *e)
{
    struct bytes now = { 0 }, next = { 0 };
    gv_status    st = gv_bytes_put(&now, s, n) ? GV_OK : gv_bytes_failed(&now, e);
    for (int i = 0; st == GV_OK && i < p->n_norm; i++) {
        next.n = 0;
        st = norm_one(&p->norm[i], &next, now.data, now.n, e);
        struct bytes was = now;
        if (st == GV_OK && !next.data && !gv_bytes_put(&next, "", 0))
            st = gv_bytes_failed(&next, e);
        now = next;
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
    size_t n = 0;
    bool   before = false;
    for (size_t i = 0; i < c->n && behaviour != REMOVED && behaviour != MERGED_WITH_NEXT; i++) {
        struct cut x = c->cut[i];
        bool join = (behaviour == CONTIGUOUS && x.match == before) || (behaviour == MERGED_WITH_PREVIOUS && x.match && !before);
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
        struct cut x = c->cut[i];
        bool       join = x.match && !before && n < c->n;
        before = x.match;
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
        if (!c->cut[i].match &&
            !gv_spans_text(out, s + c->cut[i].from, c->cut[i].to - c->cut[i].from, first && c->cut[i].from == 0))
            return false;
    return true;
}

static gv_status cut_pattern(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    struct cuts cuts = { 0 };
    gv_status   st = gv_pattern_cut(&x->pattern, s, n, &cuts, e);
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
    struct cuts cuts = { 0 };
    size_t      covered = 0;
    int         step;
    bool        ok = true;
    for (size_t i = 0; ok && i < n; i += (size_t)step)
        if (rune_is(x->kind, gv_rune(s + i, &step)))
            ok = gv_cuts_match(&cuts, &covered, i, i + (size_t)step);
    ok = ok && gv_cuts_rest(&cuts, covered, n);
    if (ok) {
        merge_cuts(&cuts, x->behaviour);
        ok = cuts_out(&cuts, s, first, out);
    }
    free(cuts.cut);
    return ok ? GV_OK : out->text.grown ? gv_bytes_failed(&out->text, e) : gv_tokenizer_no_memory(e);
}

static gv_status cut_metaspace(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    struct bytes  text = { 0 };
    size_t        mark = strlen(x->mark);
    bool          has = n && (s[0] == ' ' || (n >= mark && memcmp(s, x->mark, mark) == 0));
    bool          add = x->scheme == PREPEND_ALWAYS || (x->scheme == PREPEND_FIRST && first);
    bool          ok = has || !add || gv_bytes_put(&text, x->mark, mark);
    struct cutter split = { .kind = CUT_PATTERN,
                            .behaviour = MERGED_WITH_NEXT,
                            .pattern = { .literal = (char[5]){ 0 }, .n = mark } };
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

static gv_status cut_bytelevel(const struct cutter *x, const char *s, size_t n, bool first, struct spans *out, struct error *e)
{
    struct bytes text = { 0 }, letters = { 0 };
    struct spans cut = { 0 };
    bool         ok = !(x->prefix_space && n && s[0] != ' ') || gv_bytes_put(&text, " ", 1);
    ok = ok && gv_bytes_put(&text, s, n);
    gv_status st = ok ? GV_OK : gv_bytes_failed(&text, e);
    if (ok && x->use_regex)
        st = cut_pattern(x, text.data, text.n, first, &cut, e);
    else if (ok && !gv_spans_text(&cut, text.data, text.n, first))
        st = gv_bytes_failed(&cut.text, e);
    for (size_t i = 0; st == GV_OK && i < cut.n; i++) {
        letters.n = 0;
        for (size_t k = 0; ok && k < cut.span[i].n; k++)
            ok = gv_bytes_rune(&letters, gv_byte_letter((uint8_t)cut.text.data[cut.span[i].at + k]));
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
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC || c == 0x200c ||
           c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f189 && k == UTF8PROC_CATEGORY_SO);
}

static bool stands_alone(const char *s, size_t n, size_t from, size_t to)
{
    int step;
    return !(from && word_rune(gv_rune(s + rune_before(s, from), &step))) && !(to < n && word_rune(gv_rune(s + to, &step)));
}

/* Cuts s at the added tokens of one trie. */
static bool split_added(const struct pipeline *p, const struct trie *trie, const char *s, size_t n, bool first,
                        struct spans *out)
{
    size_t covered = 0, length = 0;
    for (size_t i = 0; i < n;) {
        int32_t k = gv_trie_longest(trie, s + i, n - i, &length);
        if (k < 0) {
            i++;
            continue;
        }
        const struct added *a = &p->added[k];
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
    gv_status    st = GV_OK;
    for (size_t i = 0; st == GV_OK && i < in->n; i++) {
        const struct span *s = &in->span[i];
        if (s->id >= 0) {
            st = gv_spans_id(out, s->id) ? GV_OK : gv_tokenizer_no_memory(e);
            continue;
        }
        st = gv_pipeline_normalize(p, &text, in->text.data + s->at, s->n, e);
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
            return gv_tokenizer_no_memory(e);
    }
    return GV_OK;
}

gv_status gv_pipeline_prepare(const struct tokenizer *t, const char *text, size_t n, struct spans *out, struct error *e)
{
    const struct pipeline *p = t->pipeline;
    struct spans           next = { 0 };
    gv_status              st = split_added(p, &p->as_is, text, n, true, &next) ? GV_OK : gv_bytes_failed(&next.text, e);
    if (st == GV_OK)
        st = normalize_all(p, &next, out, e);
    for (int i = 0; st == GV_OK && i < p->n_cutter; i++) {
        struct spans was = *out;
        *out = next;
        next = was;
        gv_spans_clear(out);
        st = cut_all(&p->cutter[i], &next, out, e);
    }
    gv_spans_free(&next);
    return st;
}

void gv_pipeline_free(struct pipeline **pipeline)
{
    struct pipeline *p = *pipeline;
    if (!p)
        return;
    for (int i = 0; i < p->n_norm; i++) {
        gv_pattern_free(&p->norm[i].pattern);
        free(p->norm[i].text);
        free(p->norm[i].map.owned);
    }
    for (int i = 0; i < p->n_cutter; i++)
        gv_pattern_free(&p->cutter[i].pattern);
    for (size_t i = 0; i < p->n_added; i++)
        free(p->added[i].content);
    free(p->added);
    free(p->as_is.node);
    free(p->normalized.node);
    free(p);
    *pipeline = NULL;
}
