/* Text → token ids, as the files say: tokenizer.json (Unigram with byte fallback and charsmap, byte-level BPE with its regex;
 * the interpreter refuses what it does not know, by name) and spiece.model (SentencePiece). Immutable once open; safe from
 * any thread. Sources: huggingface/tokenizers models/{unigram,bpe}, google/sentencepiece unigram_model.cc. */
#ifndef GV_IO_TOKENIZER_H
#define GV_IO_TOKENIZER_H

#include <stdbool.h>

#include "core/status.h"

struct tokenizer;

/* path: a tokenizer.json, a spiece.model, or a directory that holds one of them (tokenizer.json first).
 * Errors: IO; MODEL with the file and the field. */
gv_status gv_tokenizer_open(struct tokenizer **out, const char *path, struct error *e);
void      gv_tokenizer_close(struct tokenizer **t);

/* ids of text, with the post-processor's special tokens when add_special. At most max ids are written: the text is cut, the
 * special tokens kept. *n: how many; *cut: how many ids were dropped (may be NULL). Bytes that are not UTF-8 become U+FFFD.
 * Errors: MEMORY, ARGUMENT (text longer than GV_TEXT_BYTES). */
enum { GV_TEXT_BYTES = 1 << 20 };
gv_status gv_tokenizer_encode(const struct tokenizer *t, const char *text, bool add_special, int32_t *ids, int max, int *n,
                              int *cut, struct error *e);
/* Text of ids, special tokens left out; freed with free(). NULL when memory ran out. */
char *gv_tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n);
int   gv_tokenizer_size(const struct tokenizer *t);
/* id of a piece or added token by its exact content; -1 if there is none. */
int32_t gv_tokenizer_id(const struct tokenizer *t, const char *piece);

#endif
