/* A tokenizer.json as data: tokenizer_json.c fills it, tokenizer_pipeline.c runs it, tokenizer_pattern.c finds what it looks
 * for. Everything is immutable once the tokenizer is open; strings and tables belong to the pipeline. */
#ifndef GV_IO_TOKENIZER_PIPELINE_H
#define GV_IO_TOKENIZER_PIPELINE_H

#include "io/tokenizer_impl.h"

enum { STEPS_MAX = 64 }; /* normalizers, and pre-tokenizers, after Sequences are laid flat */

struct json_view;

/* ---- patterns (tokenizer_pattern.c) ---- */

struct pattern {
    void  *code; /* pcre2_code; NULL: literal */
    char  *literal;
    size_t n;         /* bytes of literal */
    bool   mongolian; /* names U+180E itself */
};
/* Failures go to the view's error: MODEL (no regular expression, or one that is not handled), MEMORY. */
void gv_pattern_compile(struct pattern *p, const char *regex, const struct json_view *at, const char *field);
void gv_pattern_free(struct pattern *p);

/* A text cut at its matches, covering all of it in order. */
struct cut {
    size_t from, to;
    bool   match;
};
struct cuts {
    struct cut *cut;
    size_t      n, room;
};
/* A match at from .. to, and before it the text since *covered, which moves to its end. False: no memory. */
bool gv_cuts_match(struct cuts *c, size_t *covered, size_t from, size_t to);
/* The text behind the last match. False: no memory. */
bool gv_cuts_rest(struct cuts *c, size_t covered, size_t n);
/* c becomes s cut at all matches; its .cut is the caller's to free. Errors: MODEL (too costly a match), MEMORY. */
gv_status gv_pattern_cut(const struct pattern *p, const char *s, size_t n, struct cuts *c, struct error *e);

/* ---- stages ---- */

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

/* All normalizers in order; *out is overwritten. */
gv_status gv_pipeline_normalize(const struct pipeline *p, struct bytes *out, const char *s, size_t n, struct error *e);

/* ---- reading ---- */

/* Model node into t's tables, with room for n_ids, the largest id of the added tokens + 1 (tokenizer_json_model.c).
 * Errors: MODEL, MEMORY. */
gv_status gv_unigram_read(struct tokenizer *t, const struct json_view *model, int32_t n_ids);
gv_status gv_bpe_read(struct tokenizer *t, const struct json_view *model, int32_t n_ids);
/* *out becomes a copy of s; without memory it is NULL and the view's error says so. */
void gv_tokenizer_keep(char **out, const char *s, const struct json_view *at);

#endif
