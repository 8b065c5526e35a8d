/* genvid info, genvid probe and genvid bench: JSON from the library, shown as it is (--json) or as indented text. Lists come one a line,
 * fields separated by tabs, for cut and grep. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "open.h"

enum { WORDS_SHOWN = 8 }; /* of a long list, in text */

/* ---- JSON as text -------------------------------------------------------------------------------------------------- */

/* A file's words may hold what a terminal obeys. */
static void print_words(const char *text)
{
    for (; *text; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text);
}

static void print_scalar(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING: print_words(json_string_value(value)); break;
    case JSON_INTEGER: printf("%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: printf("%.6g", json_real_value(value)); break;
    case JSON_TRUE: fputs("yes", stdout); break;
    case JSON_FALSE: fputs("no", stdout); break;
    default: fputs("none", stdout); break;
    }
}

static void print_list(const json_t *list)
{
    const size_t n = json_array_size(list);
    for (size_t i = 0; i < n && (n <= WORDS_SHOWN || i < WORDS_SHOWN); i++) {
        const json_t *item = json_array_get(list, i);
        fputs(i ? ", " : "", stdout);
        if (json_is_object(item) || json_is_array(item))
            json_dumpf(item, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        else
            print_scalar(item);
    }
    if (n > WORDS_SHOWN)
        printf(", ... (%zu)", n);
}

static void print_tree(json_t *object, int indent)
{
    const char *key;
    json_t     *value;
    json_object_foreach (object, key, value) {
        printf("%*s%-*s ", indent, "", 20 - indent > 0 ? 20 - indent : 1, key);
        if (json_is_object(value)) {
            putchar('\n');
            print_tree(value, indent + 2);
            continue;
        }
        if (json_is_array(value))
            print_list(value);
        else
            print_scalar(value);
        putchar('\n');
    }
}

/* Each object of a list on one line: its fields in the order of keys (NULL ends), by tabs. */
static void print_rows(const json_t *list, const char *const *keys)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        for (int k = 0; keys[k]; k++) {
            const json_t *value = json_object_get(json_array_get(list, i), keys[k]);
            fputs(k ? "\t" : "", stdout);
            if (value && !json_is_object(value) && !json_is_array(value))
                print_scalar(value);
            else if (value)
                print_list(value);
        }
        putchar('\n');
    }
}

static void print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    putchar('\n');
}

/* ---- info ---------------------------------------------------------------------------------------------------------- */

static const char *const device_keys[] = { "name", "description", NULL };
static const char *const format_keys[] = { "extension", "description", "codecs", NULL };
static const char *const option_keys[] = { "name", "type", "range", "default", "help", NULL };

static int show_list(struct cli_open *c, const struct cli_args *a, json_t *list, const char *const *keys)
{
    if (!json_is_array(list)) {
        json_decref(list);
        return cli_fail(&c->printer, EXIT_RESOURCE, "no memory for the list");
    }
    if (a->json)
        print_json(list);
    else
        print_rows(list, keys);
    json_decref(list);
    return EXIT_OK;
}

/* Each method on a line, its options on lines of their own behind it: kind:name, option, range, default, help. Masks of text are no
 * option of a render. */
static void print_methods(const json_t *list, bool options)
{
    size_t  i, k;
    json_t *method, *option;
    json_array_foreach (list, i, method) {
        const char *kind = json_string_value(json_object_get(method, "kind")),
                   *name = json_string_value(json_object_get(method, "name"));
        const char *dashes = strcmp(kind, "text") ? "--" : "";
        printf("%s%s %s\t%s\n", dashes, kind, name, json_string_value(json_object_get(method, "help")));
        json_array_foreach (options ? json_object_get(method, "options") : NULL, k, option)
            printf("%s%s %s\t%s\t%.10g to %.10g\t%.10g\t%s\n", dashes, kind, name,
                   json_string_value(json_object_get(option, "name")), json_number_value(json_object_get(option, "min")),
                   json_number_value(json_object_get(option, "max")), json_number_value(json_object_get(option, "default")),
                   json_string_value(json_object_get(option, "help")));
    }
}

static int show_shortcuts(struct cli_open *c, const struct cli_args *a)
{
    json_t *list = cli_json_take(gv_shortcuts_describe());
    if (!json_is_array(list))
        return cli_fail(&c->printer, EXIT_RESOURCE, "no memory for the list");
    if (a->json)
        print_json(list);
    else
        print_methods(list, true);
    json_decref(list);
    return EXIT_OK;
}

static int show_words(struct cli_open *c, const struct cli_args *a)
{
    json_t *model = cli_json_take(gv_model_describe(c->model));
    json_t *words = json_object_get(model, "words");
    if (!json_is_array(words)) {
        json_decref(model);
        return cli_fail(&c->printer, EXIT_USAGE, "the model \"%s\" says nothing of the words that it was taught", c->dir);
    }
    if (a->json)
        print_json(words);
    for (size_t i = 0; !a->json && i < json_array_size(words); i++)
        puts(json_string_value(json_array_get(words, i)));
    json_decref(model);
    return EXIT_OK;
}

static int open_model(struct cli_open *c, const struct cli_args *a)
{
    const int status = cli_open_engine(c, a);
    return status == EXIT_OK ? cli_open_model(c, a->n_words ? a->words[0] : NULL) : status;
}

/* A model that was named has to open; without one the rest is shown all the same. */
static int show_all(struct cli_open *c, const struct cli_args *a)
{
    const int status = open_model(c, a);
    json_t   *all;
    if (status != EXIT_OK && (a->n_words || status != EXIT_MODEL))
        return status;
    json_t *model = c->model ? cli_json_take(gv_model_describe(c->model)) : NULL;
    all = json_pack("{ss, so*, so*, so*, ss*, so*}", "version", gv_version(), "devices", cli_json_take(gv_devices_json()),
                    "formats", cli_json_take(gv_output_formats()), "shortcuts", cli_json_take(gv_shortcuts_describe()), "path",
                    c->model ? c->dir : NULL, "model", model);
    if (a->json) {
        print_json(all);
    } else {
        printf("genvid %s\n\ndevices\n", gv_version());
        print_rows(json_object_get(all, "devices"), device_keys);
        printf("\nformats\n");
        print_rows(json_object_get(all, "formats"), format_keys);
        printf("\nshortcuts (genvid info --shortcuts: their options and ranges)\n");
        print_methods(json_object_get(all, "shortcuts"), false);
        if (c->model)
            printf("\nmodel %s\n", c->dir);
        print_tree(json_object_get(all, "model"), 0);
    }
    json_decref(all);
    return EXIT_OK;
}

static int info(struct cli_open *c, const struct cli_args *a)
{
    if (a->list_devices)
        return show_list(c, a, cli_json_take(gv_devices_json()), device_keys);
    if (a->list_formats)
        return show_list(c, a, cli_json_take(gv_output_formats()), format_keys);
    if (a->list_shortcuts)
        return show_shortcuts(c, a);
    if (!a->list_options && !a->list_words)
        return show_all(c, a);
    const int status = open_model(c, a);
    if (status != EXIT_OK)
        return status;
    if (a->list_words)
        return show_words(c, a);
    return show_list(c, a, cli_json_take(gv_model_options_json(c->model)), option_keys);
}

/* ---- bench --------------------------------------------------------------------------------------------------------- */

static void print_grid(const json_t *grid)
{
    const json_t *rows = json_object_get(grid, "rows");
    printf("%-30s %8s %8s %10s %10s %9s %7s\n", "mask", "tokens", "density", "choose ms", "attend ms", "GFLOP/s", "x dense");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *r = json_array_get(rows, i);
        printf("%-30s %8lld %7.1f%% %10.2f %10.2f %9.1f %7.2f\n", json_string_value(json_object_get(r, "mask")),
               (long long)json_integer_value(json_object_get(r, "tokens")),
               100 * json_number_value(json_object_get(r, "density")), json_number_value(json_object_get(r, "choose_ms")),
               json_number_value(json_object_get(r, "attend_ms")), json_number_value(json_object_get(r, "gflops")),
               json_number_value(json_object_get(r, "times_dense")));
    }
    const json_int_t left = json_integer_value(json_object_get(grid, "left_out"));
    if (left)
        printf("%lld more, of lengths up to 131072, would have taken longer than asked: --seconds 600\n", (long long)left);
}

static int bench_attention(struct cli_open *c, const struct cli_args *a)
{
    json_t *grid = cli_json_take(gv_engine_bench_attention(c->engine, a->seconds > 0 ? a->seconds : 60));
    if (!grid)
        return cli_fail(&c->printer, EXIT_RESOURCE, "the measurement failed for want of memory");
    if (a->json)
        print_json(grid);
    else
        print_grid(grid);
    json_decref(grid);
    return EXIT_OK;
}

static int bench(struct cli_open *c, const struct cli_args *a)
{
    if (a->n_words && strcmp(a->words[0], "attention"))
        return cli_fail(&c->printer, EXIT_USAGE,
                        "bench measures \"attention\", or everything when nothing is named; found \"%s\"", a->words[0]);
    const int status = cli_open_engine(c, a);
    if (status != EXIT_OK)
        return status;
    if (a->n_words)
        return bench_attention(c, a);
    json_t *rates = cli_json_take(gv_engine_bench(c->engine, a->seconds > 0 ? a->seconds : 5));
    if (!rates)
        return cli_fail(&c->printer, EXIT_RESOURCE, "the measurement failed for want of memory");
    if (a->json)
        print_json(rates);
    else
        print_tree(rates, 0);
    json_decref(rates);
    return EXIT_OK;
}

/* ---- probe ------------------------------------------------------------------------------------------------------------- */

static int probe(struct cli_open *c, const struct cli_args *a)
{
    char *json = NULL, why[1024] = "";
    if (!a->n_words)
        return cli_fail(&c->printer, EXIT_USAGE, "no file: name a picture or clip");
    const gv_status st = gv_media_probe(a->words[0], &json, why, sizeof why);
    if (st != GV_OK)
        return cli_fail(&c->printer,
                        st == GV_ERR_IO            ? EXIT_NO_INPUT
                        : st == GV_ERR_UNSUPPORTED ? EXIT_DATA
                                                   : cli_status_exit(st),
                        "%s", why);
    json_t *said = cli_json_take(json);
    if (a->json)
        print_json(said);
    else
        print_tree(said, 0);
    json_decref(said);
    return EXIT_OK;
}

static int with_printer(const struct cli_args *a, int (*work)(struct cli_open *, const struct cli_args *))
{
    struct cli_open c = { 0 };
    cli_printer_open(&c.printer, a);
    int status = work(&c, a);
    cli_close(&c);
    if (fflush(stdout) != 0 && status == EXIT_OK)
        status = cli_fail(&c.printer, EXIT_IO, "stdout could not be written");
    return status;
}

int cli_info(const struct cli_args *a)
{
    return with_printer(a, info);
}

int cli_bench(const struct cli_args *a)
{
    return with_printer(a, bench);
}

int cli_probe(const struct cli_args *a)
{
    return with_printer(a, probe);
}
