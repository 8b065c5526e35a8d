/* What a model of a small, closed world was taught to draw. A prompt's other words are read as the nearest known ones, and the log
 * says so; a word without a near one stays as it is. Open models have no vocabulary and take every prompt as it stands. */
#ifndef GV_PIPELINES_VOCABULARY_H
#define GV_PIPELINES_VOCABULARY_H

#include "core/log.h"
#include "io/json.h"

struct vocabulary;

/* From the fields words, small_words and synonyms of genvid.json; *out is NULL where there are no words. Errors: MODEL, MEMORY. */
gv_status gv_vocabulary_open(struct vocabulary **out, const struct json_view *sidecar);
void      gv_vocabulary_close(struct vocabulary **v);

/* *out: text with its unknown words replaced, freed with free(). Every replaced or unknown word is a warning on log that calls the
 * text by its field. Errors: MEMORY. v may be NULL: a plain copy. */
gv_status gv_vocabulary_read(const struct vocabulary *v, const char *field, const char *text, char **out, const struct log *log,
                             struct error *e);

/* Whether a byte is part of a word: a letter, a digit, - or ', or any of UTF-8 beyond ASCII. */
bool gv_vocabulary_letter(unsigned char c);

/* The words as a JSON array, a new reference; empty when v is NULL. NULL when memory ran out. */
json_t *gv_vocabulary_json(const struct vocabulary *v);

#endif
