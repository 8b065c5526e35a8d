/* JSON with limits: see json.h for how a reader looks.
 *
 * The file is read whole rather than streamed, because Python's Infinity has to be rewritten before jansson sees it (diffusers'
 * scheduler configs do contain "lambda_min_clipped": -Infinity) and a parse from memory is what jansson does fastest.
 * jansson brings the rest of the protection: depth at most 2048, UTF-8 checked, integers that do not fit refused. */
#include "io/json.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static gv_status read_stream(FILE *f, const char *path, size_t max_bytes, char **data, size_t *bytes, struct error *e)
{
    size_t room = 1 << 16, n = 0;
    long   end = -1;
    if (fseek(f, 0, SEEK_END) == 0 && (end = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        if ((unsigned long)end > max_bytes)
            return gv_fail(e, GV_ERR_MODEL, "%s: %ld bytes, at most %zu are read", path, end, max_bytes);
        room = (size_t)end + 1;
    }
    char *buf = NULL;
    for (;;) {
        char *more = realloc(buf, room + 1);
        if (!more) {
            free(buf);
            return gv_fail(e, GV_ERR_MEMORY, "%s: no memory for %zu bytes of it", path, room);
        }
        buf = more;
        n += fread(buf + n, 1, room - n, f);
        if (n < room)
            break;
        if (n > max_bytes) {
            free(buf);
            return gv_fail(e, GV_ERR_MODEL, "%s: more than %zu bytes, which is the most that is read", path, max_bytes);
        }
        room = n + n / 2 + 4096;
    }
    if (ferror(f) || n > max_bytes) {
        free(buf);
        return n > max_bytes ? gv_fail(e, GV_ERR_MODEL, "%s: more than %zu bytes, which is the most that is read", path, max_bytes)
                             : gv_fail(e, GV_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    }
    buf[n] = 0;
    *data  = buf;
    *bytes = n;
    return GV_OK;
}

gv_status gv_read_file(const char *path, size_t max_bytes, char **data, size_t *bytes, struct error *e)
{
    errno   = 0;
    FILE *f = fopen(path, "rb");
    if (!f)
        return gv_fail(e, errno == ENOMEM ? GV_ERR_MEMORY : GV_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat st;
    gv_status   s;
    if (fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode))
        s = gv_fail(e, GV_ERR_IO, "%s: is a directory, expected a file", path);
    else
        s = read_stream(f, path, max_bytes, data, bytes, e);
    fclose(f);
    return s;
}

/* ---- parsing --------------------------------------------------------------------------------------------------------- */

/* Outside strings, Infinity becomes 1e308 and three blanks: same length, so that line and column stay true. */
static void rewrite_infinity(char *text, size_t bytes)
{
    bool string = false;
    for (size_t i = 0; i < bytes; i++) {
        if (string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            string = !string;
        else if (!string && text[i] == 'I' && bytes - i >= 8 && memcmp(text + i, "Infinity", 8) == 0)
            memcpy(text + i, "1e308   ", 8);
    }
}

gv_status gv_json_parse(char *text, size_t bytes, const char *name, json_t **root, struct error *e)
{
    json_error_t why;
    rewrite_infinity(text, bytes);
    *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (*root)
        return GV_OK;
    if (json_error_code(&why) == json_error_out_of_memory)
        return gv_fail(e, GV_ERR_MEMORY, "%s: no memory to parse it", name);
    return gv_fail(e, GV_ERR_MODEL, "%s: not valid JSON at line %d, column %d: %s", name, why.line, why.column, why.text);
}

gv_status gv_json_load(const char *path, size_t max_bytes, json_t **root, struct error *e)
{
    char  *text  = NULL;
    size_t bytes = 0;
    *root        = NULL;
    TRY(gv_read_file(path, max_bytes, &text, &bytes, e));
    gv_status s = gv_json_parse(text, bytes, path, root, e);
    free(text);
    return s;
}

/* ---- views ----------------------------------------------------------------------------------------------------------- */

static const char *type_name(const json_t *v)
{
    if (!v)
        return "nothing";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "unknown";
}

/* where of a child; the head is cut when it does not fit, since the end says more. */
static void child_path(char *out, const char *where, const char *field, size_t index)
{
    char tail[GV_JSON_WHERE];
    if (field)
        snprintf(tail, sizeof tail, "%s%.80s", where[0] ? "." : "", field);
    else
        snprintf(tail, sizeof tail, "[%zu]", index);
    size_t n = strlen(tail), keep = strlen(where), room = GV_JSON_WHERE - 1 - n, dots = keep > room ? 3 : 0;
    if (dots) {
        where += keep - (room - dots);
        keep = room - dots;
    }
    memcpy(out, "...", dots);
    memcpy(out + dots, where, keep);
    memcpy(out + dots + keep, tail, n + 1);
}

gv_status gv_json_fail(const struct json_view *v, const char *field, gv_status code, const char *fmt, ...)
{
    char    text[512], where[GV_JSON_WHERE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (field)
        child_path(where, v->where, field, 0);
    const char *at = field ? where : v->where;
    return gv_fail(v->e, code, "%s: %s%s%s", v->file, at, *at ? " " : "", text);
}

struct json_view gv_json_view(const json_t *root, const char *file, struct error *e)
{
    return (struct json_view){ .value = root, .file = file, .e = e };
}

gv_status gv_json_done(const struct json_view *v)
{
    return v->e->code;
}

/* The field, or NULL when it is missing or null (a failure when required) or v is no object (always a failure, unless v itself
 * is an optional thing that is absent). */
static const json_t *find(const struct json_view *v, const char *field, bool required)
{
    if (v->value && !json_is_object(v->value)) {
        gv_json_fail(v, NULL, GV_ERR_MODEL, "is %s, expected an object with \"%s\"", type_name(v->value), field);
        return NULL;
    }
    const json_t *x = json_object_get(v->value, field);
    if (x && !json_is_null(x))
        return x;
    if (required)
        gv_json_fail(v, field, GV_ERR_MODEL, x ? "is null" : "is missing");
    return NULL;
}

bool gv_json_has(const struct json_view *v, const char *field)
{
    return v->value && json_is_object(v->value) && find(v, field, false);
}

/* x as an integer within lo..hi; lo and a failure otherwise. */
static int64_t ranged_int(const struct json_view *v, const char *field, const json_t *x, int64_t lo, int64_t hi)
{
    int64_t i    = json_is_integer(x) ? json_integer_value(x) : 0;
    double  d    = json_real_value(x);
    bool    good = json_is_integer(x);
    if (json_is_real(x) && floor(d) == d && fabs(d) < 9e15) {
        i    = (int64_t)d;
        good = true;
    }
    if (!good)
        gv_json_fail(v, field, GV_ERR_MODEL, "is %s, expected an integer", type_name(x));
    else if (i < lo || i > hi)
        gv_json_fail(v, field, GV_ERR_MODEL, "is %lld, expected %lld to %lld", (long long)i, (long long)lo, (long long)hi);
    else
        return i;
    return lo;
}

static double ranged_number(const struct json_view *v, const char *field, const json_t *x, double lo, double hi)
{
    double d = json_number_value(x);
    if (!json_is_number(x))
        gv_json_fail(v, field, GV_ERR_MODEL, "is %s, expected a number", type_name(x));
    else if (!(d >= lo && d <= hi))
        gv_json_fail(v, field, GV_ERR_MODEL, "is %g, expected %g to %g", d, lo, hi);
    else
        return d;
    return lo;
}

int64_t gv_json_int(const struct json_view *v, const char *field, int64_t lo, int64_t hi, int64_t fallback)
{
    bool          must = fallback == GV_JSON_REQUIRED;
    const json_t *x    = find(v, field, must);
    if (!x)
        return must ? lo : fallback;
    return ranged_int(v, field, x, lo, hi);
}

double gv_json_number(const struct json_view *v, const char *field, double lo, double hi, double fallback)
{
    bool          must = isnan(fallback);
    const json_t *x    = find(v, field, must);
    if (!x)
        return must ? lo : fallback;
    return ranged_number(v, field, x, lo, hi);
}

bool gv_json_bool(const struct json_view *v, const char *field, int fallback)
{
    const json_t *x = find(v, field, fallback == GV_JSON_MUST);
    if (!x)
        return fallback > 0;
    if (!json_is_boolean(x))
        gv_json_fail(v, field, GV_ERR_MODEL, "is %s, expected true or false", type_name(x));
    return json_is_true(x);
}

const char *gv_json_string(const struct json_view *v, const char *field, const char *fallback)
{
    const json_t *x = find(v, field, !fallback);
    if (!x)
        return fallback ? fallback : "";
    if (!json_is_string(x))
        gv_json_fail(v, field, GV_ERR_MODEL, "is %s, expected a string", type_name(x));
    else if (strlen(json_string_value(x)) != json_string_length(x))
        gv_json_fail(v, field, GV_ERR_MODEL, "holds a NUL");
    else
        return json_string_value(x);
    return fallback ? fallback : "";
}

int gv_json_choice(const struct json_view *v, const char *field, const char *const *names, int n_names, int fallback)
{
    char        list[320];
    size_t      n   = 0;
    bool        has = find(v, field, fallback == GV_JSON_MUST) != NULL;
    const char *s   = has ? gv_json_string(v, field, "") : "";
    if (!has)
        return fallback == GV_JSON_MUST ? 0 : fallback;
    list[0] = 0;
    for (int i = 0; i < n_names; i++) {
        if (strcmp(s, names[i]) == 0)
            return i;
        int wrote = snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", names[i]);
        n         = wrote > 0 && (size_t)wrote < sizeof list - n ? n + (size_t)wrote : n;
    }
    gv_json_fail(v, field, GV_ERR_MODEL, "is \"%.80s\", expected one of: %s", s, list);
    return 0;
}

struct json_view gv_json_object(const struct json_view *v, const char *field, bool required)
{
    struct json_view out = { .value = find(v, field, required), .file = v->file, .e = v->e };
    child_path(out.where, v->where, field, 0);
    if (out.value && !json_is_object(out.value)) {
        gv_json_fail(&out, NULL, GV_ERR_MODEL, "is %s, expected an object", type_name(out.value));
        out.value = NULL;
    }
    return out;
}

struct json_view gv_json_array(const struct json_view *v, const char *field, size_t n_min, size_t n_max, bool required)
{
    struct json_view out = { .value = find(v, field, required), .file = v->file, .e = v->e };
    child_path(out.where, v->where, field, 0);
    if (!out.value)
        return out;
    size_t n = json_array_size(out.value);
    if (!json_is_array(out.value))
        gv_json_fail(&out, NULL, GV_ERR_MODEL, "is %s, expected an array", type_name(out.value));
    else if (n < n_min || n > n_max)
        gv_json_fail(&out, NULL, GV_ERR_MODEL, "has %zu entries, expected %zu to %zu", n, n_min, n_max);
    else
        return out;
    out.value = NULL;
    return out;
}

size_t gv_json_count(const struct json_view *array)
{
    return json_array_size(array->value);
}

struct json_view gv_json_at(const struct json_view *array, size_t i)
{
    struct json_view out = { .value = json_array_get(array->value, i), .file = array->file, .e = array->e };
    child_path(out.where, array->where, NULL, i);
    return out;
}

int gv_json_ints(const struct json_view *v, const char *field, int64_t lo, int64_t hi, int *out, int n_min, int n_max, bool required)
{
    struct json_view a = gv_json_array(v, field, (size_t)n_min, (size_t)n_max, required);
    int              n = (int)gv_json_count(&a);
    lo                 = lo < INT32_MIN ? INT32_MIN : lo;
    hi                 = hi > INT32_MAX ? INT32_MAX : hi;
    for (int i = 0; i < n; i++) {
        struct json_view x = gv_json_at(&a, (size_t)i);
        out[i]             = (int)ranged_int(&x, NULL, x.value, lo, hi);
    }
    return n;
}

int gv_json_numbers(const struct json_view *v, const char *field, double lo, double hi, double *out, int n_min, int n_max,
                    bool required)
{
    struct json_view a = gv_json_array(v, field, (size_t)n_min, (size_t)n_max, required);
    int              n = (int)gv_json_count(&a);
    for (int i = 0; i < n; i++) {
        struct json_view x = gv_json_at(&a, (size_t)i);
        out[i]             = ranged_number(&x, NULL, x.value, lo, hi);
    }
    return n;
}
