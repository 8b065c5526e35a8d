/* A value goes through the option's own reader as the text that a shell would have given, so that ranges and messages are the
 * same. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"

struct config {
    struct cli_args *a;
    const char      *path;
    char            *message;
    size_t           size;
};

static bool fail(const struct config *c, const char *key, const char *why)
{
    snprintf(c->message, c->size, "%s: %s%s%s%s", c->path, *key ? "\"" : "", key, *key ? "\" " : "", why);
    return false;
}

/* text, kept for as long as the arguments; NULL when memory ran out. */
static const char *keep(const struct config *c, const char *text)
{
    json_t *copy = json_string(text);
    return json_array_append_new(c->a->texts, copy) ? NULL : json_string_value(copy);
}

/* A number or a string as text; NULL where it is neither. */
static const char *text_of(const struct config *c, const json_t *value)
{
    char number[64];
    if (json_is_string(value))
        return keep(c, json_string_value(value));
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(number, sizeof number, "%.17g", json_real_value(value));
    else
        return NULL;
    return keep(c, number);
}

static bool take(const struct config *c, const char *key, const char *text)
{
    char why[512];
    if (cli_args_take(c->a, key, text, why, sizeof why))
        return true;
    snprintf(c->message, c->size, "%s: %s", c->path, why);
    return false;
}

static bool take_pairs(const struct config *c, const char *key, json_t *pairs)
{
    const char *name;
    json_t     *value;
    if (!json_is_object(pairs))
        return fail(c, key, "is no object of names and values");
    json_object_foreach (pairs, name, value) {
        char        pair[1024];
        const char *text = text_of(c, value), *kept;
        if (!text || (size_t)snprintf(pair, sizeof pair, "%s=%s", name, text) >= sizeof pair || !(kept = keep(c, pair)))
            return fail(c, name, "is neither a number nor a short text");
        if (!take(c, key, kept))
            return false;
    }
    return true;
}

static bool take_words(const struct config *c, const char *key, json_t *value)
{
    struct cli_args *a = c->a;
    const size_t     n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_is_array(value) ? json_array_get(value, i) : value);
        if (!text || a->n_words == a->command->words)
            return fail(c, key, text ? "has too many entries" : "is no text");
        if (!(a->words[a->n_words++] = keep(c, text)))
            return fail(c, key, "found no memory");
    }
    return true;
}

static bool take_value(const struct config *c, const char *key, json_t *value)
{
    const struct cli_option *o = cli_option_find(key, c->a->command->bit);
    const char              *near = o ? NULL : cli_nearest(key, c->a->command->bit), *text;
    char                     why[128];
    if (!strcmp(key, c->a->command->bit == CLI_VIDEO ? "prompt" : "files") && c->a->command->words)
        return take_words(c, key, value);
    if (!o || !strcmp(key, "config") || !strcmp(key, "print-config")) {
        snprintf(why, sizeof why, "is no option of genvid %s%s%s%s", c->a->command->name, near ? "; did you mean \"" : "",
                 near ? near : "", near ? "\"?" : "");
        return fail(c, key, why);
    }
    if (o->type == ARG_FLAG)
        return !json_is_boolean(value) ? fail(c, key, "is neither true nor false") : json_is_false(value) || take(c, key, NULL);
    if (o->type == ARG_PAIR)
        return take_pairs(c, key, value);
    if (!(text = text_of(c, value)))
        return fail(c, key, "is neither a number nor a text");
    return take(c, key, text);
}

bool cli_config_read(struct cli_args *a, const char *path, char *message, size_t size)
{
    struct config c = { a, path, message, size };
    json_error_t  why;
    const char   *key;
    json_t       *value;
    bool          ok = true;
    json_t       *root = strcmp(path, "-") ? json_load_file(path, JSON_REJECT_DUPLICATES, &why)
                                           : json_loadf(stdin, JSON_REJECT_DUPLICATES, &why);
    if (!root) {
        if (why.line < 0) /* it was not opened */
            snprintf(message, size, "--config \"%s\" cannot be read: %s", path, strerror(errno));
        else
            snprintf(message, size, "%s: line %d, column %d: %s", path, why.line, why.column, why.text);
        return false;
    }
    a->texts = json_array();
    if (!json_is_object(root))
        ok = fail(&c, "", "is no JSON object");
    json_object_foreach (root, key, value) {
        ok = ok && take_value(&c, key, value);
    }
    json_decref(root);
    return ok;
}

/* ---- printing ---- */

/* The value where it differs from `none`, what nobody asked for; NULL else. */
static json_t *value_of(const struct cli_args *a, const struct cli_args *none, const struct cli_option *o)
{
    const void *at = (const char *)a + o->offset, *was = (const char *)none + o->offset;
    switch (o->type) {
    case ARG_FLAG: return *(const bool *)at ? json_true() : NULL;
    case ARG_COUNT:
    case ARG_BYTES: return *(const int64_t *)at != *(const int64_t *)was ? json_integer(*(const int64_t *)at) : NULL;
    case ARG_REAL: return memcmp(at, was, sizeof(double)) ? json_real(*(const double *)at) : NULL;
    case ARG_TEXT: return *(const char *const *)at ? cli_json_text(*(const char *const *)at) : NULL;
    case ARG_SIZE: /* as width and height */
    case ARG_PAIR: break;
    }
    return NULL;
}

static void put_words(json_t *out, const struct cli_args *a)
{
    json_t *files = json_array();
    for (int i = 0; i < a->n_words; i++)
        json_array_append_new(files, cli_json_text(a->words[i]));
    if (a->command->bit == CLI_VIDEO && a->n_words)
        json_object_set(out, "prompt", json_array_get(files, 0));
    else if (a->n_words)
        json_object_set(out, "files", files);
    json_decref(files);
}

int cli_config_print(const struct cli_args *a)
{
    struct cli_args *none = calloc(1, sizeof *none);
    json_t          *out = json_object(), *pairs = json_object();
    if (none)
        cli_args_init(none, a->command);
    put_words(out, a);
    for (size_t i = 0; none && i < cli_n_options; i++) {
        const struct cli_option *o = &cli_options[i];
        json_t                  *value = o->commands & a->command->bit ? value_of(a, none, o) : NULL;
        if (value && strcmp(o->name, "config") && strcmp(o->name, "print-config"))
            json_object_set(out, o->name, value);
        json_decref(value);
    }
    for (size_t i = 0; i < a->n_options; i++)
        json_object_set_new(pairs, a->options[i].name, cli_json_text(a->options[i].value));
    if (a->n_options)
        json_object_set(out, "option", pairs);
    char *text = json_dumps(out, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_decref(pairs);
    json_decref(out);
    free(none);
    if (!text) {
        fprintf(stderr, "genvid: no memory\n");
        return EXIT_RESOURCE;
    }
    puts(text);
    free(text);
    return EXIT_OK;
}
