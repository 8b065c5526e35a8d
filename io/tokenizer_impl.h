/* What the tokenizer's files share: spans and ids, the tables of an open tokenizer, the two models.
 *
 * A text becomes ids in two moves. The format's own file prepares it: tokenizer_pipeline.c (for tokenizer.json) or
 * tokenizer_spiece.c cuts and rewrites the text into spans, each a run of UTF-8 or already an id. Then the model,
 * tokenizer_unigram.c or tokenizer_bpe.c, turns each run into ids.
 * Inside, text is always valid UTF-8: gv_utf8_repair at the door sees to that, files are checked when they are read. */
#ifndef GV_IO_TOKENIZER_IMPL_H
#define GV_IO_TOKENIZER_IMPL_H

#include "io/text.h"
#include "io/tokenizer.h"

enum {
    TOK_IDS_MAX = 1 << 22,   /* largest id + 1 that a file may name */
    TOK_PIECE_MAX = 4096,    /* bytes of one piece; bounds the steps per position of text */
    TOK_BYTES_MAX = 64 << 20 /* bytes of all pieces together */
};

/* ---- spans and ids (tokenizer.c) ---- */

struct span {
    size_t  at, n; /* bytes of text; none for an id */
    int32_t id;    /* -1: text */
    bool    first; /* holds the first byte of the original text */
};
struct spans {
    struct bytes text;
    struct span *span;
    size_t       n, room;
};
/* Append a run of text (empty ones are dropped) or an id. False: failed. */
bool gv_spans_text(struct spans *s, const char *text, size_t n, bool first);
bool gv_spans_id(struct spans *s, int32_t id);
void gv_spans_clear(struct spans *s);
void gv_spans_free(struct spans *s);

struct ids {
    int32_t *id;
    size_t   n, room;
};
bool gv_ids_put(struct ids *l, int32_t id); /* false: no memory */
/* The sentence for an allocation that failed on the way. Returns MEMORY. */
gv_status gv_tokenizer_no_memory(struct error *e);

/* ---- trie: bytes of pieces to ids (tokenizer_tables.c) ---- */

struct trie_node {
    uint32_t child; /* first child; children lie side by side, ordered by byte */
    int32_t  id;    /* -1: no piece ends here */
    uint16_t n;     /* children */
    uint8_t  byte;
};
struct trie {
    struct trie_node *node; /* NULL: holds nothing. [0] is the root */
    uint32_t          n;
};
struct trie_key {
    uint64_t    head; /* first eight bytes, big endian: most comparisons end here */
    const char *s;
    uint32_t    n;
    int32_t     id;
};
struct trie_key gv_trie_key(const char *s, size_t n, int32_t id);
/* Sorts keys. Of equal strings the one with the largest id stays. false: no memory. */
bool     gv_trie_build(struct trie *t, struct trie_key *keys, size_t n_keys);
uint32_t gv_trie_step(const struct trie *t, uint32_t node, uint8_t byte); /* 0: no such child */
int32_t  gv_trie_find(const struct trie *t, const char *s, size_t n);     /* -1 */
/* Longest key that begins s: its id and length, or -1. */
int32_t gv_trie_longest(const struct trie *t, const char *s, size_t n, size_t *length);

/* ---- charsmap: SentencePiece's compiled rewriting rules (tokenizer_tables.c) ---- */

struct charsmap {
    uint8_t       *owned;
    const uint8_t *unit; /* n_units little-endian words of a double array */
    uint32_t       n_units;
    const char    *text; /* replacements, each up to a NUL */
    size_t         text_bytes;
};
/* Takes over data. why: what is wrong with it, for the caller's sentence; NULL when it is fine. */
const char *gv_charsmap_open(struct charsmap *m, uint8_t *data, size_t bytes);
/* Replacement of the shortest (tokenizers) or longest (SentencePiece) rule that begins s; NULL if there is none. */
const char *gv_charsmap_find(const struct charsmap *m, const char *s, size_t n, bool longest, size_t *rule_bytes,
                             size_t *text_bytes);

/* ---- the tokenizer ---- */

struct piece {
    const char *s; /* NULL: no piece has this id */
    uint32_t    n;
    uint8_t     flags;
    uint8_t     byte; /* of a PIECE_BYTE */
};
enum { PIECE_SPECIAL = 1, PIECE_BYTE = 2, PIECE_USER = 4, PIECE_UNUSED = 8, PIECE_ADDED = 16 };

struct merge {
    int32_t right, rank, id;
};

enum tokenizer_model { MODEL_UNIGRAM, MODEL_BPE };

struct pipeline; /* tokenizer_pipeline.h: normalizers, pre-tokenizers, added tokens */
struct spm;      /* tokenizer_spiece.c: the normalizer */

struct tokenizer {
    enum tokenizer_model model;
    struct pipeline     *pipeline; /* one of the two */
    struct spm          *spm;

    char         *text;  /* bytes of all pieces */
    struct piece *piece; /* [n_pieces] by id */
    int32_t       n_pieces;
    int32_t       n_vocab;      /* ids below this belong to the model, without added tokens */
    struct trie   trie;         /* model's pieces; not those a SentencePiece model keeps from matching */
    int32_t       unk;          /* -1: none */
    int32_t       byte_id[256]; /* -1: no such piece */
    bool          byte_fallback;

    double *score; /* Unigram: [n_vocab] */
    double  unk_score, max_score;

    uint32_t     *merge_at; /* BPE: merges of left id i are merge[merge_at[i] .. merge_at[i + 1]), ordered by right */
    struct merge *merge;
    bool          fuse_unk, ignore_merges;
    char         *word_prefix, *word_suffix; /* continuing_subword_prefix, end_of_word_suffix; NULL: none */

    int32_t *before, *after; /* special tokens around a text */
    int      n_before, n_after;
    bool     byte_level, metaspace_decode, keep_first_space; /* how ids become text */
    char     replacement[5];
};

/* ---- pieces (tokenizer_pieces.c) ---- */

/* Table of pieces for ids 0 .. n-1 and room for their bytes. Errors: MODEL (too many bytes), MEMORY. */
gv_status gv_tokenizer_reserve(struct tokenizer *t, int32_t n, size_t bytes, const char *file, struct error *e);
/* The byte that a piece written <0xE2> stands for; -1: it is not written so. */
int gv_byte_piece(const char *s, size_t n);
/* Whether byte fallback can take a string: only if every byte of it has a piece. */
bool gv_bytes_known(const struct tokenizer *t, const char *s, size_t n);
/* GPT-2's letter for a byte, and the byte behind a letter, or -1. */
uint32_t gv_byte_letter(uint8_t b);
int      gv_letter_byte(uint32_t c);

/* ---- models ---- */

/* One span of text to ids, appended to out; n > 0. Errors: MEMORY; MODEL where Unigram needs an unk_id and has none. */
gv_status gv_unigram_run(const struct tokenizer *t, const char *s, size_t n, struct ids *out, struct error *e);
gv_status gv_bpe_run(const struct tokenizer *t, const char *s, size_t n, struct ids *out, struct error *e);

/* ---- formats ---- */

/* open fills a zeroed tokenizer with .unk = -1, which the caller closes on failure. prepare appends spans to out.
 * Errors: open IO, MODEL, MEMORY; prepare MODEL (a regular expression too costly), ARGUMENT (grown too long), MEMORY. */
gv_status gv_tokenizer_open_json(struct tokenizer *t, const char *path, struct error *e);
gv_status gv_pipeline_prepare(const struct tokenizer *t, const char *text, size_t n, struct spans *out, struct error *e);
/* id of an added token by its exact content, or -1. */
int32_t gv_pipeline_added(const struct pipeline *p, const char *content);
void    gv_pipeline_free(struct pipeline **p);

gv_status gv_tokenizer_open_spiece(struct tokenizer *t, const char *path, struct error *e);
gv_status gv_spm_prepare(const struct tokenizer *t, const char *text, size_t n, struct spans *out, struct error *e);
void      gv_spm_free(struct spm **p);

#endif
