/* genvid rerun: a clip's recipe → the same render → whether its frames are the same, by their hash.
 *
 * What a recipe says is a stranger's: each value goes through the library's checks as a request's does. What would surprise you:
 * without -o nothing is written; the device and the precision are the recipe's unless options say otherwise, and another device
 * need not give the same bits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"
#include "output.h"

struct rerun {
    struct cli_open        open;
    const struct cli_args *args;
    json_t                *said, *recipe; /* of the file: all of it, and the part that is borrowed from it */
    char                   output[CLI_PATH];
    gv_option              options[CLI_MAX_PAIRS];
    gv_video_request       request;
};

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key)); /* NULL where it is none */
}

static int read_recipe(struct rerun *r)
{
    struct cli_printer *p = &r->open.printer;
    char               *json = NULL, why[1024] = "";
    const gv_status     st = gv_media_probe(r->args->words[0], &json, why, sizeof why);
    if (st != GV_OK)
        return cli_fail(p, st == GV_ERR_IO ? EXIT_NO_INPUT : EXIT_DATA, "%s", why);
    r->said = cli_json_take(json);
    r->recipe = json_object_get(r->said, "recipe");
    if (!json_is_object(r->recipe) || !text_of(r->recipe, "prompt"))
        return cli_fail(p, EXIT_DATA, "%s holds no recipe of genvid's; mp4, mov, mkv, webm, png and jpg made by genvid do",
                        r->args->words[0]);
    if (json_integer_value(json_object_get(r->recipe, "recipe")) > 1)
        return cli_fail(p, EXIT_DATA, "%s holds a recipe of version %lld, which this genvid (%s) does not know",
                        r->args->words[0], (long long)json_integer_value(json_object_get(r->recipe, "recipe")), gv_version());
    return EXIT_OK;
}

/* ---- the model -------------------------------------------------------------------------------------------------------- */

static const json_t *part_of(const json_t *parts, const char *name)
{
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const char *found = text_of(json_array_get(parts, i), "part");
        if (found && !strcmp(found, name))
            return json_array_get(parts, i);
    }
    return NULL;
}

static bool same(const json_t *a, const json_t *b, const char *key)
{
    const char *x = text_of(a, key), *y = text_of(b, key);
    return !x || !y || !strcmp(x, y);
}

/* Says which parts are not those that made the clip; how many. */
static int compare_model(struct rerun *r)
{
    json_t       *now = cli_json_take(gv_model_describe(r->open.model));
    const json_t *then = json_object_get(json_object_get(r->recipe, "model"), "parts");
    int           changed = 0;
    for (size_t i = 0; i < json_array_size(then); i++) {
        const json_t *was = json_array_get(then, i);
        const char   *name = text_of(was, "part");
        const json_t *is = name ? part_of(json_object_get(now, "parts"), name) : NULL;
        if (!name || (is && same(was, is, "quick_sha256")))
            continue;
        changed++;
        cli_fail(&r->open.printer, 0, "the model changed: its %s is %s the one that made the clip", name,
                 is ? "not" : "missing, unlike");
    }
    json_decref(now);
    return changed;
}

/* ---- the request ------------------------------------------------------------------------------------------------------ */

static int64_t whole(const json_t *o, const char *key, int64_t most)
{
    const int64_t n = json_integer_value(json_object_get(o, key));
    return n < 0 ? -1 : n > most ? most : n; /* the library names what is out of its range */
}

static void add_option(struct rerun *r, const char *name, const char *value)
{
    if (value && r->request.option_count < CLI_MAX_PAIRS)
        r->options[r->request.option_count++] = (gv_option){ name, value };
}

static int on_progress(void *user, const gv_progress *progress)
{
    struct rerun *r = user;
    cli_progress(&r->open.printer, progress);
    return cli_interrupted();
}

static void fill_request(struct rerun *r)
{
    const struct cli_args *a = r->args;
    json_t                *o = r->recipe, *value;
    gv_video_request      *q = &r->request;
    const char            *name;
    gv_video_request_init(q);
    q->model = r->open.model;
    q->prompt = text_of(o, "prompt");
    q->negative_prompt = text_of(o, "negative_prompt");
    q->first_image = a->image ? a->image : text_of(json_object_get(o, "first_image"), "path");
    q->last_image = a->last_image ? a->last_image : text_of(json_object_get(o, "last_image"), "path");
    q->width = (int)whole(o, "width", 1 << 20);
    q->height = (int)whole(o, "height", 1 << 20);
    q->frames = (int)whole(o, "frames", 1 << 30);
    q->steps = (int)whole(o, "steps", 1 << 20);
    q->fps = json_number_value(json_object_get(o, "fps"));
    q->guidance = json_number_value(json_object_get(o, "guidance"));
    q->shift = json_number_value(json_object_get(o, "shift"));
    q->seed = (uint64_t)json_integer_value(json_object_get(o, "seed"));
    q->solver = text_of(o, "solver");
    q->noise = text_of(o, "noise");
    q->options = r->options;
    json_object_foreach (json_object_get(o, "options"), name, value)
        add_option(r, name, json_string_value(value));
    add_option(r, "schedule", text_of(o, "schedule"));
    add_option(r, "format", a->format);
    add_option(r, "codec", a->codec);
    add_option(r, "bits", a->bits);
    add_option(r, "crf", a->crf);
    add_option(r, "audio", a->audio);
    q->output_path = a->output ? r->output : NULL;
    q->progress = on_progress;
    q->user = r;
}

/* ---- the verdict ------------------------------------------------------------------------------------------------------ */

static const char *explain(const struct rerun *r, const json_t *report, int changed)
{
    static const char *const why[] = { "the model changed", "the device or the precision is another",
                                       "the version of genvid is another", "the processor's instructions may be others" };
    const json_t            *o = r->recipe;
    if (changed)
        return why[0];
    if (!same(o, report, "device") || !same(o, report, "precision"))
        return why[1];
    return same(o, report, "genvid") ? why[3] : why[2];
}

static int judge(struct rerun *r, int changed)
{
    struct cli_printer *p = &r->open.printer;
    json_t             *report = cli_json_take(gv_session_report(r->open.session));
    const char         *then = text_of(r->recipe, "frames_sha256"), *now = text_of(report, "frames_sha256");
    const bool          agrees = then && now && !strcmp(then, now);
    if (p->json) {
        json_t *o = json_pack("{ss, sb, sO?, sO?, si}", "event", "rerun", "agrees", agrees, "expected",
                              json_object_get(r->recipe, "frames_sha256"), "found", json_object_get(report, "frames_sha256"),
                              "changed_parts", changed);
        json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
    } else if (!then) {
        printf("unknown: the file holds no hash of its frames; they are %s now\n", now ? now : "not known");
    } else {
        printf("%s: %s\n", agrees ? "the same frames" : "other frames", now ? now : "");
        if (!agrees)
            cli_say(p, "the file says %s; %s", then, explain(r, report, changed));
    }
    json_decref(report);
    return agrees ? EXIT_OK : EXIT_DIFFERS;
}

static int render(struct rerun *r)
{
    const int changed = compare_model(r);
    fill_request(r);
    const gv_status st = gv_video_generate(r->open.session, &r->request);
    cli_progress_end(&r->open.printer);
    if (st == GV_OK)
        return judge(r, changed);
    if (st == GV_ERR_CANCELLED || cli_interrupted())
        return cli_fail(&r->open.printer, EXIT_CANCELLED, "cancelled; nothing was written");
    return cli_fail(&r->open.printer, st == GV_ERR_ARGUMENT ? EXIT_DATA : cli_status_exit(st), "%s",
                    gv_session_message(r->open.session));
}

static int run(struct rerun *r)
{
    struct cli_args args = *r->args;
    if (!args.n_words)
        return cli_fail(&r->open.printer, EXIT_USAGE, "no file: name a clip that genvid made");
    int status = read_recipe(r);
    if (status != EXIT_OK)
        return status;
    if (args.output)
        status = cli_output_choose(&r->open.printer, &args, "", r->output);
    args.precision = args.precision ? args.precision : text_of(r->recipe, "precision");
    args.device = args.device ? args.device : text_of(r->recipe, "device");
    if (status == EXIT_OK)
        status = cli_open_engine(&r->open, &args);
    if (status == EXIT_OK)
        status = cli_open_model(&r->open, args.model ? args.model : text_of(json_object_get(r->recipe, "model"), "path"));
    if (status == EXIT_OK)
        status = cli_open_session(&r->open);
    if (status != EXIT_OK)
        return status;
    cli_interrupt_session(r->open.session);
    status = render(r);
    cli_interrupt_session(NULL);
    return status;
}

int cli_rerun(const struct cli_args *a)
{
    struct rerun *r = calloc(1, sizeof *r);
    if (!r) {
        fprintf(stderr, "genvid: no memory\n");
        return EXIT_RESOURCE;
    }
    r->args = a;
    cli_printer_open(&r->open.printer, a);
    cli_interrupt_catch();
    int status = run(r);
    cli_close(&r->open);
    if (fflush(stdout) != 0 && status == EXIT_OK)
        status = cli_fail(&r->open.printer, EXIT_IO, "stdout could not be written");
    json_decref(r->said);
    free(r);
    return status;
}
