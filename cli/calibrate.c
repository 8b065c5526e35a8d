/* genvid calibrate: what may be left out of a model, measured and written beside it. Of a video model by prompts; with --pruning of a
 * captioning one, by pictures and clips. */
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "interrupt.h"
#include "open.h"

static int on_progress(void *user, const gv_progress *progress)
{
    struct cli_open *c = user;
    cli_progress(&c->printer, progress);
    return cli_interrupted();
}

static void fill_request(struct cli_open *c, const struct cli_args *a, gv_option *options, gv_video_request *r)
{
    gv_video_request_init(r);
    memcpy(options, a->options, a->n_options * sizeof *options);
    r->options = options;
    r->option_count = a->n_options;
    if (a->causal)
        options[r->option_count++] = (gv_option){ "causal", a->causal };
    r->model = c->model;
    r->width = (int)a->width;
    r->height = (int)a->height;
    r->frames = (int)a->frames;
    r->steps = (int)a->steps;
    r->guidance = a->guidance;
    r->shift = a->shift;
    r->seed = a->seed < 0 ? 0 : (uint64_t)a->seed;
    r->solver = a->solver;
    r->progress = on_progress;
    r->user = c;
}

static void say_result(struct cli_open *c, const struct cli_args *a, const json_t *found)
{
    const char *path = json_string_value(json_object_get(found, "path"));
    if (a->json) {
        json_dumpf(found, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        putchar('\n');
        return;
    }
    if (json_object_get(found, "density"))
        cli_say(&c->printer, "%.1f%% of the blocks are read with --attention calibrated; --cache magcache knows this model now",
                100 * json_number_value(json_object_get(found, "density")));
    if (json_object_get(found, "fresh_heads"))
        cli_say(&c->printer, "%.1f%% of the heads read their history anew with --cache flashblock",
                100 * json_number_value(json_object_get(found, "fresh_heads")));
    puts(path ? path : "");
}

static int fail_call(struct cli_open *c, gv_status st)
{
    if (st == GV_ERR_CANCELLED || cli_interrupted())
        return cli_fail(&c->printer, EXIT_CANCELLED, "cancelled; nothing was written");
    return cli_fail(&c->printer, cli_status_exit(st), "%s", gv_session_message(c->session));
}

static int done(struct cli_open *c)
{
    return fflush(stdout) == 0 ? EXIT_OK : cli_fail(&c->printer, EXIT_IO, "stdout could not be written");
}

static int calibrate(struct cli_open *c, const struct cli_args *a)
{
    gv_option            options[CLI_MAX_PAIRS + 1];
    gv_video_request     video;
    gv_calibrate_request r;
    char                *json = NULL;
    fill_request(c, a, options, &video);
    gv_calibrate_request_init(&r);
    r.video = &video;
    r.prompts = a->words + 1;
    r.prompt_count = a->n_words > 1 ? (size_t)a->n_words - 1 : 0;
    r.mass = a->mass;
    r.cosine = a->cosine;
    r.lse = a->lse;
    const gv_status st = gv_calibrate(c->session, &r, &json);
    cli_progress_end(&c->printer);
    if (st != GV_OK)
        return fail_call(c, st);
    json_t *found = cli_json_take(json);
    say_result(c, a, found);
    json_decref(found);
    return done(c);
}

static int calibrate_pruning(struct cli_open *c, const struct cli_args *a, const struct cli_files *files)
{
    gv_pruning_request r;
    char              *json = NULL;
    gv_pruning_request_init(&r);
    r.model = c->model;
    r.media = (const char *const *)files->path;
    r.media_count = files->n;
    r.percent = a->pruning;
    r.trials = (int)a->trials;
    r.entropy = a->entropy;
    r.seed = a->seed < 0 ? 0 : (uint64_t)a->seed;
    r.progress = on_progress;
    r.user = c;
    const gv_status st = gv_calibrate_pruning(c->session, &r, &json);
    cli_progress_end(&c->printer);
    if (st != GV_OK)
        return fail_call(c, st);
    json_t *found = cli_json_take(json);
    if (!a->json)
        cli_say(
            &c->printer,
            "the state before the first word is alike by %.4f (cosine), %.4f with the published settings; --prune %g of this "
            "model means the former now",
            json_number_value(json_object_get(found, "likeness")),
            json_number_value(json_object_get(found, "published_likeness")), a->pruning);
    say_result(c, a, found);
    json_decref(found);
    return done(c);
}

int cli_calibrate(const struct cli_args *a)
{
    struct cli_open  c = { 0 };
    struct cli_files files = { 0 };
    const bool       prunes = a->pruning > 0;
    const char      *model = a->n_words ? a->words[0] : NULL;
    cli_printer_open(&c.printer, a);
    cli_interrupt_catch();
    int status = EXIT_OK;
    if (prunes && a->n_words < 2)
        status = cli_fail(&c.printer, EXIT_USAGE, "no picture or clip: genvid calibrate MODEL FILE|FOLDER... --pruning %g",
                          a->pruning);
    if (status == EXIT_OK && prunes)
        status = cli_files_find(&files, &c.printer, a, 1);
    if (status == EXIT_OK)
        status = cli_open_engine(&c, a);
    if (status == EXIT_OK)
        status = prunes ? cli_open_captioner(&c, model, "MODEL") : cli_open_model(&c, model);
    if (status == EXIT_OK)
        status = cli_open_session(&c);
    if (status == EXIT_OK) {
        cli_interrupt_session(c.session);
        status = prunes ? calibrate_pruning(&c, a, &files) : calibrate(&c, a);
        cli_interrupt_session(NULL);
    }
    cli_close(&c);
    cli_files_free(&files);
    return status;
}
