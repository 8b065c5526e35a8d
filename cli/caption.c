/* genvid caption: each picture or clip on its own → a text. On stdout it comes as it is made; with several files every text stands
 * behind its file's name; with --json it is one object a line; --srt and --vtt cut a clip into sections and give each its times;
 * --sidecar writes all that beside the file instead. A file that fails is said and the rest go on; the exit status is the
 * first failure's.
 *
 * What would surprise you: a text is the model's and may hold anything, so control characters other than newline and tab are
 * printed as "?": a terminal would obey them. JSON carries them escaped. A sidecar that is there is left alone and its file
 * passed over, so that a folder that was interrupted goes on where it stopped; --overwrite makes all anew. Sections are equally
 * long, about as long as asked for. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "interrupt.h"
#include "open.h"
#include "subtitle.h"

static const double SECTION = 10; /* seconds, where subtitles do not say */

struct caption {
    struct cli_open        open;
    const struct cli_args *args;
    struct cli_files       files;
    gv_caption_request     request;
    const char            *file; /* the one at hand; with --together the first */
    size_t                 at;   /* its number */
    char                   explain[CLI_PATH]; /* folder of the text at hand */
    double                 began;
    FILE                  *out;    /* stdout, or the sidecar under its temporary name */
    bool                   broken; /* out could not be written */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool subtitles(const struct caption *c)
{
    return c->args->srt || c->args->vtt;
}

/* Text goes out as it comes, not when it is whole. */
static bool streams(const struct caption *c)
{
    return !c->args->json && !subtitles(c) && !c->args->sidecar;
}

static bool many(const struct caption *c)
{
    return c->files.n > 1 && !c->args->together;
}

/* ---- while it works ------------------------------------------------------------------------------------------------- */

static int on_progress(void *user, const gv_progress *progress)
{
    struct caption *c = user;
    if (many(c) && !streams(c)) /* the bar is that of the files */
        return cli_interrupted();
    if (strcmp(progress->stage, "text") || !streams(c)) /* the text itself shows how far it is */
        cli_progress(&c->open.printer, progress);
    else if (!progress->done)
        cli_progress_end(&c->open.printer);
    return cli_interrupted();
}

static void tell_files(struct caption *c)
{
    const gv_progress p = { sizeof p, "files", (int64_t)c->at, (int64_t)c->files.n, now() - c->began };
    if (many(c) && !streams(c))
        cli_progress(&c->open.printer, &p);
}

static void put_plain(struct caption *c, const char *utf8, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char b = (unsigned char)utf8[i];
        putc((b < 32 && b != '\n' && b != '\t') || b == 127 ? '?' : b, c->out);
    }
}

static int on_text(void *user, const char *utf8, size_t bytes)
{
    struct caption *c = user;
    if (streams(c))
        put_plain(c, utf8, bytes);
    c->broken = c->broken || ferror(c->out) || (streams(c) && fflush(c->out) != 0);
    return c->broken || cli_interrupted();
}

static void fill_request(struct caption *c)
{
    const struct cli_args *a = c->args;
    gv_caption_request    *r = &c->request;
    gv_caption_request_init(r);
    r->model = c->open.model;
    r->media = a->together ? (const char *const *)c->files.path : &c->file;
    r->media_count = a->together ? c->files.n : 1;
    r->question = a->question;
    r->max_tokens = (int)a->tokens;
    r->temperature = a->temperature;
    r->top_k = (int)a->top_k;
    r->top_p = a->top_p;
    r->repetition_penalty = a->repetition;
    r->seed = a->seed < 0 ? 0 : (uint64_t)a->seed;
    r->fps = a->fps;
    r->max_frames = (int)a->frames;
    r->picture_tokens = (int)a->picture_tokens;
    r->start = a->start;
    r->end = a->end;
    r->prune = a->prune;
    r->prune_receipt = a->prune_receipt;
    r->recycle = (int)a->recycle;
    r->recycle_every = (int)a->recycle_every;
    r->pages = (int)a->pages;
    r->pages_every = (int)a->pages_every;
    r->paint = a->paint;
    r->paint_summary = a->paint_summary;
    r->picture_factor = a->picture_factor;
    r->picture_factor_layers = (int)a->picture_factor_layers;
    r->on_text = on_text;
    r->progress = on_progress;
    r->user = c;
}

/* A file's own failure is bad data; its name begins the message. */
static int fail_call(struct caption *c, gv_status status)
{
    const char *why = gv_session_message(c->open.session);
    const bool  picture = !strncmp(why, c->file, strlen(c->file));
    if (c->broken)
        return cli_fail(&c->open.printer, EXIT_IO, "%s: %s", c->args->sidecar ? c->file : "stdout", strerror(errno));
    if (status == GV_ERR_CANCELLED || cli_interrupted())
        return cli_fail(&c->open.printer, EXIT_CANCELLED, "cancelled");
    return cli_fail(&c->open.printer, status == GV_ERR_UNSUPPORTED && picture ? EXIT_DATA : cli_status_exit(status), "%s%s%s",
                    picture ? "" : c->file, picture ? "" : ": ", why);
}

/* ---- one file ------------------------------------------------------------------------------------------------------- */

/* The texts of one file: of all of it, or of its sections. */
struct told {
    struct cli_cue *cue;
    int             n;
    double          seconds; /* that it took */
    json_t         *report;  /* of the last */
};

static void told_free(struct told *t)
{
    for (int i = 0; i < t->n; i++)
        gv_free(t->cue[i].text);
    free(t->cue);
    json_decref(t->report);
}

/* How the file is cut: t->cue with its times; one without times where it is not. */
static int cut(struct caption *c, struct told *t)
{
    const struct cli_args *a = c->args;
    gv_caption_cost        cost;
    const double           wanted = a->section > 0 ? a->section : subtitles(c) ? SECTION : 0;
    double                 end = 0;
    if (wanted > 0) {
        gv_caption_cost_init(&cost);
        const gv_status st = gv_caption_estimate(c->open.session, &c->request, &cost);
        if (st != GV_OK)
            return fail_call(c, st);
        end = a->end > 0 && a->end < cost.seconds ? a->end : cost.seconds;
        if (end <= 0 && subtitles(c))
            return cli_fail(&c->open.printer, EXIT_DATA, "%s is a picture: it has no times for subtitles", c->file);
    }
    const double n = end > 0 ? fmax(1, floor((end - a->start) / wanted + 0.5)) : 1;
    t->cue = n < 1e6 ? calloc((size_t)n, sizeof *t->cue) : NULL;
    if (!t->cue)
        return cli_fail(&c->open.printer, EXIT_RESOURCE, "%s: no memory for %.0f sections", c->file, n);
    for (t->n = 0; t->n < (int)n; t->n++) {
        t->cue[t->n].start = a->start + t->n * (end - a->start) / n;
        t->cue[t->n].end = end > 0 ? a->start + (t->n + 1) * (end - a->start) / n : a->end;
    }
    return EXIT_OK;
}

static bool sections(const struct caption *c, const struct told *t)
{
    return subtitles(c) || t->n > 1;
}

/* What is put out with each text; the rest waits until all are there. */
static void put_cue(struct caption *c, const struct told *t, int i)
{
    const struct cli_cue *cue = &t->cue[i];
    if (subtitles(c))
        cli_subtitle_put(c->out, c->args->srt ? SUBTITLE_SRT : SUBTITLE_VTT, i, cue);
    else if (!c->args->json && !streams(c))
        put_plain(c, cue->text, strlen(cue->text));
    if (!subtitles(c) && !c->args->json)
        putc('\n', c->out);
    c->broken = c->broken || fflush(c->out) != 0;
}

/* DIR/FILE, of sections DIR/FILE.1, DIR/FILE.2 and so on. */
static bool name_explanation(struct caption *c, const struct told *t, int i)
{
    const char *name = strrchr(c->file, '/');
    char        which[16] = "";
    if (!c->args->explain)
        return true;
    if (t->n > 1)
        snprintf(which, sizeof which, ".%d", i + 1);
    c->request.explain = c->explain;
    return (size_t)snprintf(c->explain, sizeof c->explain, "%s/%s%s", c->args->explain, name ? name + 1 : c->file, which) <
           sizeof c->explain;
}

static int tell_all(struct caption *c, struct told *t)
{
    const double begin = now();
    for (int i = 0; i < t->n; i++) {
        struct cli_cue *cue = &t->cue[i];
        c->request.start = cue->start;
        c->request.end = cue->end;
        if (!name_explanation(c, t, i))
            return cli_fail(&c->open.printer, EXIT_IO, "%s: the name is too long", c->args->explain);
        if (streams(c) && sections(c, t))
            fprintf(c->out, "[%.1f-%.1f s] ", cue->start, cue->end);
        const gv_status st = gv_caption(c->open.session, &c->request, &cue->text);
        cli_progress_end(&c->open.printer);
        if (st != GV_OK) {
            if (streams(c))
                putc('\n', c->out);
            return fail_call(c, st);
        }
        put_cue(c, t, i);
        if (c->request.explain)
            cli_say(&c->open.printer, "%s: where each word was read, in %s/index.html", c->file, c->explain);
        if (c->broken)
            return fail_call(c, GV_ERR_IO);
    }
    t->seconds = now() - begin;
    t->report = cli_json_take(gv_session_report(c->open.session));
    return EXIT_OK;
}

static json_t *sections_json(const struct told *t)
{
    json_t *list = json_array();
    for (int i = 0; i < t->n; i++)
        json_array_append_new(list, json_pack("{sf, sf, so}", "start", t->cue[i].start, "end", t->cue[i].end, "text",
                                              cli_json_text(t->cue[i].text)));
    return list;
}

/* One line: the text, or the sections with theirs. */
static void put_json(struct caption *c, const struct told *t)
{
    json_t *result = json_pack("{ss, so, so, sf, so}", "event", "result", "file", cli_json_text(c->file), "question",
                               cli_json_text(c->args->question), "seconds", t->seconds, "report",
                               t->report ? json_incref(t->report) : json_null());
    if (result && t->n > 1)
        json_object_set_new(result, "sections", sections_json(t));
    else if (result)
        json_object_set_new(result, "text", cli_json_text(t->cue[0].text));
    char *line = result ? json_dumps(result, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(result);
    if (line)
        fprintf(c->out, "%s\n", line);
    free(line);
    c->broken = c->broken || fflush(c->out) != 0;
}

static int put_estimate(struct caption *c)
{
    gv_caption_cost cost;
    gv_caption_cost_init(&cost);
    const gv_status st = gv_caption_estimate(c->open.session, &c->request, &cost);
    if (st != GV_OK)
        return fail_call(c, st);
    if (c->args->json) {
        json_t *o = json_pack("{ss, so, sf, si, sI, sI, si, sI, sI, sI}", "event", "estimate", "file", cli_json_text(c->file),
                              "clip_seconds", cost.seconds, "frames", cost.frames, "picture_tokens",
                              (json_int_t)cost.picture_tokens, "prompt_tokens", (json_int_t)cost.prompt_tokens, "max_tokens",
                              cost.max_tokens, "context", (json_int_t)cost.context, "kept_bytes", (json_int_t)cost.kept_bytes,
                              "device_bytes", (json_int_t)cost.device_bytes);
        char   *line = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
        json_decref(o);
        if (line)
            puts(line);
        free(line);
    } else {
        printf("%s: %d frame%s, %lld tokens of pictures, %lld of prompt, up to %d of text, of %lld; %.1f MiB, of these %.1f of "
               "keys and values\n",
               c->file, cost.frames, cost.frames == 1 ? "" : "s", (long long)cost.picture_tokens, (long long)cost.prompt_tokens,
               cost.max_tokens, (long long)cost.context, (double)cost.device_bytes / 1048576,
               (double)cost.kept_bytes / 1048576);
    }
    return EXIT_OK;
}

static void say_pruned(struct caption *c, const json_t *report)
{
    const json_t *p = json_object_get(report, "prune"), *n = json_object_get(p, "tokens");
    long long     left[4];
    for (size_t i = 0; i < 4; i++)
        left[i] = (long long)json_integer_value(json_array_get(n, i));
    if (!json_is_object(p))
        return;
    cli_say(&c->open.printer, "pruned: %lld of %lld tokens, %lld after layer %lld, %lld after layer %lld%s", left[1], left[0],
            left[2], (long long)json_integer_value(json_array_get(json_object_get(p, "layers"), 0)), left[3],
            (long long)json_integer_value(json_array_get(json_object_get(p, "layers"), 1)),
            json_is_true(json_object_get(p, "calibrated"))  ? ", as was chosen for this model"
            : json_is_true(json_object_get(p, "published")) ? ""
                                                            : " (published are 50, 25 and 10 for LLaVA-OneVision of 28 layers; "
                                                              "other settings, models and depths are our own extension)");
    if (json_object_get(p, "likeness"))
        cli_say(
            &c->open.printer, "receipt: the first token's logits are alike by %.6f (cosine); keys and values %.2f of %.2f MiB",
            json_real_value(json_object_get(p, "likeness")), json_number_value(json_object_get(report, "kept_bytes")) / 1048576,
            json_number_value(json_object_get(p, "whole_prompt_kept_bytes")) / 1048576);
}

static void say_recycled(struct caption *c, const json_t *report)
{
    const json_t *share = json_object_get(json_object_get(report, "recycle"), "share");
    if (json_is_real(share))
        cli_say(&c->open.printer, "recycled: the keys that were read held %.2f%% of the attention, by the steps that read all",
                100 * json_real_value(share));
}

static void say_pages(struct caption *c, const json_t *report)
{
    const json_t *p = json_object_get(report, "pages"), *share = json_object_get(p, "share");
    if (json_is_real(share))
        cli_say(&c->open.printer, "pages: %.2f%% of the keys were read; by samples they held %.2f%% of the attention",
                100 * json_real_value(json_object_get(p, "read")), 100 * json_real_value(share));
}

static int caption_into(struct caption *c)
{
    struct told t = { 0 };
    int         status = cut(c, &t);
    if (status == EXIT_OK && many(c) && !c->args->json && !c->args->sidecar)
        fprintf(c->out, subtitles(c) || t.n > 1 ? "%s:\n" : "%s: ", c->file);
    if (status == EXIT_OK)
        status = tell_all(c, &t);
    if (status == EXIT_OK && c->args->json)
        put_json(c, &t);
    if (status == EXIT_OK && streams(c))
        cli_say(&c->open.printer, "%s: %lld tokens of picture, %lld of text, %.2f s", c->file,
                (long long)json_integer_value(json_object_get(t.report, "picture_tokens")),
                (long long)json_integer_value(json_object_get(t.report, "tokens")), t.seconds);
    if (status == EXIT_OK)
        say_pruned(c, t.report), say_recycled(c, t.report), say_pages(c, t.report);
    told_free(&t);
    return status == EXIT_OK && c->broken ? fail_call(c, GV_ERR_IO) : status;
}

/* FILE without its extension, and that of what is written. */
static bool sidecar_name(const struct caption *c, char *path, size_t size)
{
    const char  *name = strrchr(c->file, '/'), *dot = strrchr(c->file, '.');
    const size_t stem = dot && dot > (name ? name + 1 : c->file) ? (size_t)(dot - c->file) : strlen(c->file);
    const char  *kind = c->args->srt ? "srt" : c->args->vtt ? "vtt" : c->args->json ? "json" : "txt";
    return (size_t)snprintf(path, size, "%.*s.%s", (int)stem, c->file, kind) < size;
}

static int caption_beside(struct caption *c)
{
    char path[CLI_PATH], temporary[CLI_PATH + 8];
    if (!sidecar_name(c, path, sizeof path))
        return cli_fail(&c->open.printer, EXIT_IO, "%s: the name is too long", c->file);
    if (!c->args->overwrite && access(path, F_OK) == 0) {
        cli_say(&c->open.printer, "%s is there: %s is passed over", path, c->file);
        return EXIT_OK;
    }
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (!(c->out = fopen(temporary, "w")))
        return cli_fail(&c->open.printer, EXIT_IO, "\"%s\" cannot be written: %s", path, strerror(errno));
    int status = caption_into(c);
    if (fclose(c->out) != 0 && status == EXIT_OK)
        status = cli_fail(&c->open.printer, EXIT_IO, "\"%s\" cannot be written: %s", path, strerror(errno));
    c->out = stdout;
    if (status == EXIT_OK && rename(temporary, path) != 0)
        status = cli_fail(&c->open.printer, EXIT_IO, "\"%s\" cannot be written: %s", path, strerror(errno));
    if (status != EXIT_OK)
        remove(temporary);
    return status;
}

/* ---- all of them ---------------------------------------------------------------------------------------------------- */

/* What no single option can see. */
static int check(struct caption *c)
{
    const struct cli_args *a = c->args;
    struct cli_printer    *p = &c->open.printer;
    if (!a->n_words)
        return cli_fail(p, EXIT_USAGE, "no picture or clip: genvid caption FILE...");
    if (a->srt + a->vtt + a->json > 1)
        return cli_fail(p, EXIT_USAGE, "give one of --srt, --vtt and --json");
    if (a->end > 0 && a->end <= a->start)
        return cli_fail(p, EXIT_USAGE, "--end is %g; expected more than --start, %g", a->end, a->start);
    if (a->together && (subtitles(c) || a->section > 0 || a->sidecar))
        return cli_fail(p, EXIT_USAGE, "--together asks one question about all files; they have no times and no sidecars then");
    if (a->overwrite && !a->sidecar)
        return cli_fail(p, EXIT_USAGE, "--overwrite is for --sidecar");
    const int status = cli_files_find(&c->files, p, a, 0);
    if (status == EXIT_OK && subtitles(c) && c->files.n > 1 && !a->sidecar)
        return cli_fail(p, EXIT_USAGE, "subtitles of several clips need a file each: add --sidecar");
    return status;
}

static int run(struct caption *c)
{
    const struct cli_args *a = c->args;
    int                    status = check(c);
    if (status == EXIT_OK)
        status = cli_open_engine(&c->open, a);
    if (status == EXIT_OK)
        status = cli_open_captioner(&c->open, a->model, "--model DIR");
    if (status == EXIT_OK)
        status = cli_open_session(&c->open);
    if (status != EXIT_OK)
        return status;
    c->began = now();
    cli_interrupt_session(c->open.session);
    for (; c->at < (a->together ? 1 : c->files.n) && !c->broken && !cli_interrupted(); c->at++) {
        c->file = c->files.path[c->at];
        fill_request(c);
        tell_files(c);
        const int one = a->dry_run ? put_estimate(c) : a->sidecar ? caption_beside(c) : caption_into(c);
        status = status == EXIT_OK ? one : status;
    }
    tell_files(c);
    cli_progress_end(&c->open.printer);
    cli_interrupt_session(NULL);
    return status;
}

int cli_caption(const struct cli_args *a)
{
    struct caption c = { .args = a, .out = stdout };
    cli_printer_open(&c.open.printer, a);
    cli_interrupt_catch();
    const int status = run(&c);
    cli_close(&c.open);
    cli_files_free(&c.files);
    return status;
}
