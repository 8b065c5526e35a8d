/* JSON from files that nobody vouches for: loading with a limit, and typed, ranged reads whose failures name file and field.
 *
 * Reads go through a view: a value, where it sits ("config.json", "vision.layers[3]") and the error to fill. A getter returns
 * the field, or its fallback where the field is missing or null, or, when something is wrong, a value within the asked range
 * and the sentence in e. The first failure wins, so a reader asks for everything in a row and looks once at the end:
 *
 *     json_t *root;
 *     TRY(gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, e));
 *     struct json_view c = gv_json_view(root, path, e);
 *     cfg->layers = (int)gv_json_int(&c, "num_layers", 1, 1000, GV_JSON_REQUIRED);
 *     cfg->eps    = gv_json_number(&c, "eps", 0, 1, 1e-6);
 *     gv_status s = gv_json_done(&c);
 *     json_decref(root);
 *     return s;
 *
 * Everything a getter returns borrows from root. Views are plain values; one belongs to one thread. */
#ifndef GV_IO_JSON_H
#define GV_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

enum {
    GV_JSON_CONFIG_BYTES    = 8 << 20,   /* config.json, genvid.json, schedulers, shard indices */
    GV_JSON_TOKENIZER_BYTES = 256 << 20, /* UMT5's is 17 MB */
    GV_JSON_WHERE           = 120
};

/* Whole file into *data (malloc'd, one NUL behind the last byte). Errors: IO (missing, a directory, unreadable), MODEL (larger
 * than max_bytes), MEMORY; all name the path. */
gv_status gv_read_file(const char *path, size_t max_bytes, char **data, size_t *bytes, struct error *e);

/* Parses a file whose top is an object or an array; *root is the caller's to json_decref. Errors as gv_read_file, and MODEL with
 * line and column: not JSON, a key twice in one object, nested deeper than 2048, text that is not UTF-8. Python writes numbers JSON
 * does not have: Infinity and -Infinity are read as ±1e308, NaN is refused. */
gv_status gv_json_load(const char *path, size_t max_bytes, json_t **root, struct error *e);
/* The same from memory; name stands for the file in messages. text is changed in place. */
gv_status gv_json_parse(char *text, size_t bytes, const char *name, json_t **root, struct error *e);

struct json_view {
    const json_t *value; /* NULL: an optional object or array that is not there; every optional read of it gives its fallback */
    const char   *file;  /* borrowed, for messages */
    struct error *e;     /* never NULL */
    char          where[GV_JSON_WHERE]; /* "" at the top, else "model.vocab[7]"; its head is cut when too long */
};

struct json_view gv_json_view(const json_t *root, const char *file, struct error *e);
gv_status        gv_json_done(const struct json_view *v); /* GV_OK, or the code of the first failure */

/* Fallbacks that say "must be there". */
#define GV_JSON_REQUIRED INT64_MIN  /* gv_json_int */
#define GV_JSON_NUMBER_REQUIRED NAN /* gv_json_number; math.h */
enum { GV_JSON_MUST = -1 };         /* gv_json_bool, gv_json_choice */

bool        gv_json_has(const struct json_view *v, const char *field); /* there, and not null */
/* lo ≤ field ≤ hi. A real that is whole (5.0) counts as an integer. */
int64_t     gv_json_int(const struct json_view *v, const char *field, int64_t lo, int64_t hi, int64_t fallback);
double      gv_json_number(const struct json_view *v, const char *field, double lo, double hi, double fallback);
bool        gv_json_bool(const struct json_view *v, const char *field, int fallback);
/* NULL as fallback: required. Never returns NULL. */
const char *gv_json_string(const struct json_view *v, const char *field, const char *fallback);
/* Index of the field's string among names; any other string is a failure that lists them. */
int         gv_json_choice(const struct json_view *v, const char *field, const char *const *names, int n_names, int fallback);
/* Views of an object, or of an array with n_min to n_max entries. Missing: a failure when required, else .value is NULL. */
struct json_view gv_json_object(const struct json_view *v, const char *field, bool required);
struct json_view gv_json_array(const struct json_view *v, const char *field, size_t n_min, size_t n_max, bool required);
size_t           gv_json_count(const struct json_view *array); /* entries; 0 if absent */
struct json_view gv_json_at(const struct json_view *array, size_t i);
/* The field's array of n_min to n_max numbers into out; returns how many, 0 if absent and not required. */
int gv_json_ints(const struct json_view *v, const char *field, int64_t lo, int64_t hi, int *out, int n_min, int n_max, bool required);
int gv_json_numbers(const struct json_view *v, const char *field, double lo, double hi, double *out, int n_min, int n_max,
                    bool required);
/* A failure of the caller's own at this view: "FILE: WHERE.FIELD <sentence>"; field may be NULL. Returns code. */
gv_status gv_json_fail(const struct json_view *v, const char *field, gv_status code, const char *fmt, ...) GV_PRINTF(4, 5);

#endif
