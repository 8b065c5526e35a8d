/* Where a caption's words were read: a heat map over the picture tokens of each word, drawn over the picture (PNG) or over the frames of
 * a clip that were looked at (MP4), explain.json with the numbers and index.html with all of them in a browser. What is written appears
 * when all of it is there. */
#ifndef GV_PIPELINES_EXPLAIN_H
#define GV_PIPELINES_EXPLAIN_H

#include <jansson.h>

#include "pipelines/caption_media.h"
#include "vision/trace.h"

/* A word of a text: letters, digits and what lies between them (don't, t-rex), merged from the tokens that spell it. */
struct explain_word {
    size_t first, bytes; /* of the text */
    int    token, tokens;
};
/* end [n]: bytes of text that were whole after each token. *words: freed with free(). Errors: MEMORY. */
gv_status gv_explain_words(struct explain_word **words, int *n_words, const char *text, const size_t *end, int n,
                           struct error *e);

/* The cells of a picture or clip that have a token each: of a tiled picture those of its tiles, not of its overview. */
struct explain_grid {
    int64_t first, step, pitch; /* token of step t, row y, column x: first + t · step + y · pitch + x */
    int     steps, rows, columns;
};
struct explain_grid gv_explain_grid(const struct vlm_media *m);

struct explain {
    const char           *folder; /* made if absent, with those above it */
    const char           *text;
    const size_t         *end;
    int                   tokens;
    struct caption_media *media; /* read again */
    int                   n_media;
    const struct trace   *trace;
    bool (*step)(void *user, int done, int total); /* after each word; false: stop, CANCELLED */
    void *user;
};
/* Errors: IO, MEMORY, CANCELLED, and what reading media and writing clips has. */
gv_status gv_explain_write(const struct explain *x, struct error *e);

/* For explain.c: index.html of what explain.json says. Errors: IO. */
gv_status gv_explain_page(const json_t *explained, const char *path, struct error *e);

#endif
