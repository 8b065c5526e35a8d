/* A render takes minutes to hours, so the rule is ffmpeg's and not curl's: what exists is not replaced unless -y says so. */
#include "output.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 48 }; /* of the prompt's part of a chosen name */

/* ---- formats ------------------------------------------------------------------------------------------------------- */

/* Extensions as gv_output_formats lists them, with or without their dot. */
static const char *extension_at(const json_t *formats, size_t i)
{
    const char *e = json_string_value(json_object_get(json_array_get(formats, i), "extension"));
    return !e ? "" : *e == '.' ? e + 1 : e;
}

static bool can_write(const json_t *formats, const char *extension)
{
    for (size_t i = 0; i < json_array_size(formats); i++)
        if (!strcasecmp(extension_at(formats, i), extension))
            return true;
    return false;
}

/* Whether the format holds the codec; *known: those that it holds. */
static bool holds_codec(const json_t *formats, const char *extension, const char *codec, char *known, size_t size)
{
    size_t used = 0;
    bool   found = false;
    known[0] = 0;
    for (size_t i = 0; i < json_array_size(formats); i++) {
        json_t *codecs = json_object_get(json_array_get(formats, i), "codecs"), *one;
        size_t  k;
        if (strcasecmp(extension_at(formats, i), extension))
            continue;
        json_array_foreach (codecs, k, one) {
            found = found || !strcmp(json_string_value(one), codec);
            if (used < size)
                used += (size_t)snprintf(known + used, size - used, "%s%s", k ? ", " : "", json_string_value(one));
        }
    }
    return found;
}

static void list_formats(const json_t *formats, char *out, size_t size)
{
    size_t used = 0;
    out[0]      = 0;
    for (size_t i = 0; i < json_array_size(formats) && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", extension_at(formats, i));
}

static const char *extension_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return dot && dot != name ? dot + 1 : "";
}

static int check_format(struct cli_printer *p, const struct cli_args *a, const json_t *formats, const char *path)
{
    char        known[256];
    const bool  to_stdout = !strcmp(path, "-");
    const char *format    = a->format ? a->format : to_stdout ? "" : extension_of(path);
    if (to_stdout && strncmp(format, "y4m", 3) && strcmp(format, "rgb"))
        return cli_fail(p, EXIT_USAGE, "stdout takes --format y4m or --format rgb");
    if (to_stdout && isatty(STDOUT_FILENO))
        return cli_fail(p, EXIT_USAGE, "stdout is a terminal; send the frames into a pipe or a file");
    list_formats(formats, known, sizeof known);
    if (!*format)
        return cli_fail(p, EXIT_USAGE, "the output \"%s\" has no extension; expected one of: %s", path, known);
    if (!can_write(formats, format))
        return cli_fail(p, EXIT_USAGE, "the output format \"%s\" is not one that this build writes: %s", format, known);
    if (a->codec && !holds_codec(formats, format, a->codec, known, sizeof known))
        return cli_fail(p, EXIT_USAGE, "--codec %s: %s takes %s", a->codec, format, known[0] ? known : "no codec");
    return EXIT_OK;
}

/* ---- places -------------------------------------------------------------------------------------------------------- */

int cli_output_writable(struct cli_printer *p, const char *option, const char *path)
{
    char        dir[CLI_PATH];
    const char *slash = strrchr(path, '/');
    const int   n     = slash ? (int)(slash - path) : 0;
    struct stat st;
    if (strlen(path) >= sizeof dir)
        return cli_fail(p, EXIT_USAGE, "%s is longer than %d bytes", option, CLI_PATH - 1);
    snprintf(dir, sizeof dir, "%.*s", slash && !n ? 1 : slash ? n : 1, slash ? path : ".");
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return cli_fail(p, EXIT_USAGE, "%s is \"%s\", which is a folder; expected a file name", option, path);
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return cli_fail(p, EXIT_IO, "%s: \"%s\" is no folder", option, dir);
    if (access(dir, W_OK | X_OK) != 0)
        return cli_fail(p, EXIT_IO, "%s: cannot write into the folder \"%s\": %s", option, dir, strerror(errno));
    return EXIT_OK;
}

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Picture number n of a pattern such as f%04d.png. The pattern comes from a user, so printf never sees it. */
static bool numbered(const char *path, int n, char *out, size_t size)
{
    const char *percent = strchr(path, '%');
    int         digits = 0, used = 1;
    if (!percent)
        return false;
    while (percent[used] >= '0' && percent[used] <= '9' && used < 3)
        digits = digits * 10 + percent[used++] - '0';
    if (percent[used] != 'd')
        return false;
    const int length = snprintf(out, size, "%.*s%0*d%s", (int)(percent - path), path, digits, n, percent + used + 1);
    return length > 0 && (size_t)length < size;
}

static int refuse_existing(struct cli_printer *p, const char *path)
{
    char picture[CLI_PATH];
    for (int n = 0; n < 2; n++)
        if (numbered(path, n, picture, sizeof picture) && is_file(picture))
            return cli_fail(p, EXIT_IO, "\"%s\" exists; -y replaces it", picture);
    if (is_file(path))
        return cli_fail(p, EXIT_IO, "\"%s\" exists; -y replaces it", path);
    return EXIT_OK;
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

/* U+2000..203F, U+3000..303F and the full-width forms: dashes, quotes and commas of the world. */
static bool is_punctuation(const char *c, size_t length)
{
    return length == 3 && (!memcmp(c, "\xE2\x80", 2) || !memcmp(c, "\xE3\x80", 2) || !memcmp(c, "\xEF\xBC", 2));
}

/* "A red fox, in snow" → "a-red-fox-in-snow". Letters beyond ASCII stay; what is not UTF-8 becomes a dash like any other
 * punctuation; cut at a word if there is one. */
static void name_of(const char *prompt, char *out)
{
    size_t n = 0, word = 0;
    while (*prompt && n < NAME_BYTES) {
        const size_t length = cli_utf8_length(prompt);
        const char   c      = *prompt >= 'A' && *prompt <= 'Z' ? (char)(*prompt | 0x20) : *prompt;
        const bool   plain  = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (length > 1 && n + length <= NAME_BYTES && !is_punctuation(prompt, length)) {
            memcpy(out + n, prompt, length);
            n += length;
        } else if (plain) {
            out[n++] = c;
        } else if (n && out[n - 1] != '-') {
            word     = n;
            out[n++] = '-';
        }
        prompt += length ? length : 1;
    }
    if (*prompt && word)
        n = word;
    while (n && out[n - 1] == '-')
        n--;
    strcpy(out + n, n ? "" : "clip");
}

static void new_name(const char *prompt, int64_t seed, const char *extension, char *path)
{
    char name[NAME_BYTES + 8];
    name_of(prompt, name);
    snprintf(path, CLI_PATH, "%s-%lld.%s", name, (long long)seed, extension);
    for (int n = 2; n < INT_MAX && access(path, F_OK) == 0; n++)
        snprintf(path, CLI_PATH, "%s-%lld-%d.%s", name, (long long)seed, n, extension);
}

static int choose(struct cli_printer *p, const struct cli_args *a, const json_t *formats, const char *prompt, char *path)
{
    if (!a->output)
        new_name(prompt, a->seed, a->format ? a->format : can_write(formats, "mp4") ? "mp4" : "y4m", path);
    else if (strlen(a->output) < CLI_PATH)
        strcpy(path, a->output);
    else
        return cli_fail(p, EXIT_USAGE, "--output is longer than %d bytes", CLI_PATH - 1);

    int status = check_format(p, a, formats, path);
    if (status == EXIT_OK && strcmp(path, "-"))
        status = cli_output_writable(p, "--output", path);
    if (status == EXIT_OK && a->output && !a->overwrite && !a->dry_run)
        status = refuse_existing(p, path);
    return status;
}

int cli_output_choose(struct cli_printer *p, const struct cli_args *a, const char *prompt, char *path)
{
    json_t   *formats = cli_json_take(gv_output_formats());
    const int status  = choose(p, a, formats, prompt, path);
    json_decref(formats);
    return status;
}
