/* genvid caption: each picture on its own → a text on stdout as it comes. With several pictures every text stands behind its
 * file's name; with --json it is one object a line. A picture that fails is said and the rest go on; the exit status is the
 * first failure's.
 *
 * What would surprise you: a text is the model's and may hold anything, so control characters other than newline and tab are
 * printed as "?": a terminal would obey them. JSON carries them escaped. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"
#include "open.h"

struct caption {
    struct cli_open        open;
    const struct cli_args *args;
    gv_caption_request     request;
    const char            *file;
    bool                   broken; /* stdout could not be written */
};

static int on_progress(void *user, const gv_progress *progress)
{
    struct caption *c = user;
    if (strcmp(progress->stage, "text") || c->args->json) /* the text itself shows how far it is */
        cli_progress(&c->open.printer, progress);
    else if (!progress->done)
        cli_progress_end(&c->open.printer);
    return cli_interrupted();
}

static int on_text(void *user, const char *utf8, size_t bytes)
{
    struct caption *c = user;
    for (size_t i = 0; i < bytes && !c->args->json; i++) {
        const unsigned char b = (unsigned char)utf8[i];
        putchar((b < 32 && b != '\n' && b != '\t') || b == 127 ? '?' : b);
    }
    c->broken = c->broken || ferror(stdout) || (!c->args->json && fflush(stdout) != 0);
    return c->broken || cli_interrupted();
}

static void fill_request(struct caption *c)
{
    const struct cli_args *a = c->args;
    gv_caption_request    *r = &c->request;
    gv_caption_request_init(r);
    r->model = c->open.model;
    r->media = &c->file;
    r->media_count = 1;
    r->question = a->question;
    r->max_tokens = (int)a->tokens;
    r->temperature = a->temperature;
    r->top_k = (int)a->top_k;
    r->top_p = a->top_p;
    r->repetition_penalty = a->repetition;
    r->seed = a->seed < 0 ? 0 : (uint64_t)a->seed;
    r->on_text = on_text;
    r->progress = on_progress;
    r->user = c;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void put_result(struct caption *c, const char *text, double seconds)
{
    json_t *report = cli_json_take(gv_session_report(c->open.session));
    if (c->args->json) {
        json_t *result = json_pack("{ss, so, so, so, sf, so}", "event", "result", "file", cli_json_text(c->file), "question",
                                   cli_json_text(c->args->question), "text", cli_json_text(text), "seconds", seconds, "report",
                                   report ? json_incref(report) : json_null());
        char   *line = result ? json_dumps(result, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
        json_decref(result);
        if (line)
            puts(line);
        free(line);
    } else {
        putchar('\n');
        cli_say(&c->open.printer, "%s: %lld tokens of picture, %lld of text, %.2f s", c->file,
                (long long)json_integer_value(json_object_get(report, "picture_tokens")),
                (long long)json_integer_value(json_object_get(report, "tokens")), seconds);
    }
    json_decref(report);
    c->broken = c->broken || fflush(stdout) != 0;
}

/* A picture's own failure is bad data; its name begins the message. */
static int fail_call(struct caption *c, gv_status status)
{
    const char *why = gv_session_message(c->open.session);
    const bool  picture = !strncmp(why, c->file, strlen(c->file));
    if (c->broken)
        return cli_fail(&c->open.printer, EXIT_IO, "stdout: %s", strerror(errno));
    if (status == GV_ERR_CANCELLED || cli_interrupted())
        return cli_fail(&c->open.printer, EXIT_CANCELLED, "cancelled");
    return cli_fail(&c->open.printer, status == GV_ERR_UNSUPPORTED && picture ? EXIT_DATA : cli_status_exit(status), "%s%s%s",
                    picture ? "" : c->file, picture ? "" : ": ", why);
}

static int caption_file(struct caption *c)
{
    char        *text;
    const double begin = now();
    if (c->args->n_words > 1 && !c->args->json)
        printf("%s: ", c->file);
    const gv_status st = gv_caption(c->open.session, &c->request, &text);
    cli_progress_end(&c->open.printer);
    if (st != GV_OK) {
        if (!c->args->json && c->args->n_words > 1)
            putchar('\n');
        return fail_call(c, st);
    }
    put_result(c, text, now() - begin);
    gv_free(text);
    return c->broken ? fail_call(c, GV_ERR_IO) : EXIT_OK;
}

/* Before anything loads: all files are there. */
static int check_files(struct caption *c)
{
    const struct cli_args *a = c->args;
    if (!a->n_words)
        return cli_fail(&c->open.printer, EXIT_USAGE, "no picture: genvid caption FILE...");
    for (int i = 0; i < a->n_words; i++) {
        struct stat st;
        if (stat(a->words[i], &st) != 0 || access(a->words[i], R_OK) != 0)
            return cli_fail(&c->open.printer, EXIT_NO_INPUT, "\"%s\" cannot be read: %s", a->words[i], strerror(errno));
        if (S_ISDIR(st.st_mode))
            return cli_fail(&c->open.printer, EXIT_NO_INPUT, "\"%s\" is a folder; expected a picture", a->words[i]);
    }
    return EXIT_OK;
}

static int run(struct caption *c)
{
    int status = check_files(c);
    if (status == EXIT_OK)
        status = cli_open_engine(&c->open, c->args);
    if (status == EXIT_OK)
        status = cli_open_model(&c->open, c->args->model);
    if (status == EXIT_OK)
        status = cli_open_session(&c->open);
    if (status != EXIT_OK)
        return status;
    fill_request(c);
    cli_interrupt_session(c->open.session);
    for (int i = 0; i < c->args->n_words && !c->broken && !cli_interrupted(); i++) {
        c->file = c->args->words[i];
        const int one = caption_file(c);
        status = status == EXIT_OK ? one : status;
    }
    cli_interrupt_session(NULL);
    return status;
}

int cli_caption(const struct cli_args *a)
{
    struct caption c = { .args = a };
    cli_printer_open(&c.open.printer, a);
    cli_interrupt_catch();
    const int status = run(&c);
    cli_close(&c.open);
    return status;
}
