/* The optimiser of VFlowOpt (Yang et al. 2025, arXiv 2508.05211, its last step): what is to be as large as can be is the mean over
 * pictures of the cosine between the last layer's states of the prompt's last token, pruned and whole: the state that the first
 * word is made of. Nothing has to be labelled. Searched are the first two ratios, the sinks' threshold, the cells' side and,
 * where asked for, the weight of detail; the third ratio follows from the budget.
 *
 * What would surprise you: the box of the ratios is the authors' for 25 % and scaled from there for other budgets, which is our
 * own. The weight of detail is 0 in every setting that they released, and so it is here unless asked for: on our own captioner it
 * raises the cosine and lowers the text (tests/BENCH.md). The first point asked is their setting, so what is written is never worse than it on these pictures. Clips are not recycled, so
 * that cells change nothing there. Their text says 50 trials, their code 300. */
#include "pipelines/pruning.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "io/json.h"
#include "pipelines/caption.h"
#include "pipelines/search.h"

enum { PATH = 4096, NAME = 32, TRIALS = 50, MEDIA = 1000 };
enum { R1, R2, SINK, CELL, ENTROPY, AXES };

static gv_status path_of(char path[PATH], const char *model, struct error *e)
{
    const int n = snprintf(path, PATH - 8, "%s/genvid.pruning.json", model);
    return n > 0 && n < PATH - 8 ? GV_OK : gv_fail(e, GV_ERR_ARGUMENT, "%.200s: the path is too long", model);
}

/* ---- the file ---- */

/* {"25": {keep: [3], cell, sink, entropy, ...}, ...} */
static gv_status read_settings(struct prune_opts *o, const struct json_view *v)
{
    gv_json_numbers(v, "keep", 1e-6, 1, o->keep, 1 + GV_PRUNE_DROPS, 1 + GV_PRUNE_DROPS, true);
    o->cell = gv_json_number(v, "cell", 1, 1e6, GV_JSON_NUMBER_REQUIRED);
    o->importance.sink = gv_json_number(v, "sink", 0, 1e6, GV_JSON_NUMBER_REQUIRED);
    o->importance.entropy = gv_json_number(v, "entropy", -1e3, 1e3, GV_JSON_NUMBER_REQUIRED);
    return gv_json_done(v);
}

static bool is_there(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f || errno != ENOENT;
}

gv_status gv_pruning_find(struct prune_opts *o, bool *own, const char *model, const char *text, struct error *e)
{
    char    path[PATH];
    json_t *root;
    *own = false;
    TRY(path_of(path, model, e));
    if (strchr(text, '=') || !is_there(path))
        return gv_prune_parse(o, text, e);
    TRY(gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, e));
    struct json_view v = gv_json_view(root, path, e), settings = gv_json_object(&v, text, false);
    gv_status        status = gv_json_done(&v);
    *own = settings.value != NULL;
    if (!status)
        status = *own ? read_settings(o, &settings) : gv_prune_parse(o, text, e);
    json_decref(root);
    return status;
}

/* Settings of other budgets stay; a file that cannot be read is made anew. Written beside its name first. */
static gv_status write_settings(const char *path, const char *name, json_t *settings, struct error *e)
{
    char         part[PATH + 8];
    json_t      *root = NULL;
    struct error none = { 0 };
    if (gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, &none) || !json_is_object(root)) {
        json_decref(root);
        root = json_object();
    }
    snprintf(part, sizeof part, "%s.part", path);
    gv_status status = GV_OK;
    if (json_object_set(root, name, settings))
        status = gv_fail(e, GV_ERR_MEMORY, "no memory for %s", path);
    else if (json_dump_file(root, part, JSON_INDENT(1) | JSON_REAL_PRECISION(9) | JSON_SORT_KEYS) || rename(part, path) != 0)
        status = gv_fail(e, GV_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    if (status)
        remove(part);
    json_decref(root);
    return status;
}

/* ---- the search ---- */

struct choosing {
    gv_session               *session;
    const gv_pruning_request *q;
    int                       media, trials, layers, width;
    double                    budget, began;
    float                    *whole, *pruned; /* [media, width], [width] states */
    double                    first;          /* what the first trial's settings reached */
    int                       done;           /* passes */
};

static void settings_of(const struct choosing *c, const double *x, struct prune_opts *o)
{
    const int at = gv_prune_layer(0, c->layers), then = gv_prune_layer(1, c->layers);
    *o = (struct prune_opts){ .importance = { x[SINK], x[ENTROPY] }, .keep = { x[R1], x[R2], 1 }, .cell = x[CELL] };
    const double left = c->budget * c->layers - x[R1] * at - x[R1] * x[R2] * (then - at),
                 third = x[R1] * x[R2] * (c->layers - then);
    o->keep[2] = third > 0 ? fmin(left / third, 1) : 1;
}

static bool possible(void *user, const double *x)
{
    struct prune_opts o;
    settings_of(user, x, &o);
    return o.keep[2] >= 0.01;
}

/* The state behind a prompt about one picture or clip. prune NULL: the whole of it. */
static gv_status look(struct choosing *c, int i, const struct prune_opts *prune, float *state)
{
    gv_session           *s = c->session;
    struct caption_job    job;
    struct caption_report report;
    gv_caption_request    q;
    char                 *text = NULL;
    gv_caption_request_init(&q);
    q.model = c->q->model;
    q.media = &c->q->media[i];
    q.media_count = 1;
    q.max_tokens = 1;
    TRY(gv_caption_job_open(&job, &q, &s->error));
    job.state = state;
    if ((job.prunes = prune != NULL))
        job.prune = *prune;
    gv_status status = gv_caption_plan(&job, &report, &s->error);
    if (!status)
        status = gv_pipeline_caption(&job, &s->cancel, &report, &text, &s->error);
    free(text);
    gv_caption_job_close(&job);
    gv_progress p = { sizeof p, "calibrate", ++c->done, (int64_t)c->media * (1 + c->trials), gv_now() - c->began };
    if (!status && c->q->progress && c->q->progress(c->q->user, &p))
        status = gv_fail(&s->error, GV_ERR_CANCELLED, "cancelled by the progress callback");
    return status;
}

static double cosine(const float *a, const float *b, int n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static gv_status likeness(void *user, const double *x, double *out, struct error *e)
{
    struct choosing  *c = user;
    struct prune_opts o;
    const bool        first = c->done == c->media;
    (void)e; /* the session's */
    settings_of(c, x, &o);
    *out = 0;
    for (int i = 0; i < c->media; i++) {
        TRY(look(c, i, &o, c->pruned));
        *out += cosine(c->whole + (int64_t)i * c->width, c->pruned, c->width) / c->media;
    }
    if (first)
        c->first = *out;
    return GV_OK;
}

/* The published settings nearest to the budget. */
static void published(const struct choosing *c, double *x)
{
    struct prune_opts o;
    struct error      none = { 0 };
    gv_prune_parse(&o, c->budget > 0.375 ? "50" : c->budget > 0.175 ? "25" : "10", &none);
    x[R1] = o.keep[0];
    x[R2] = o.keep[1];
    x[SINK] = o.importance.sink;
    x[CELL] = o.cell;
    x[ENTROPY] = o.importance.entropy;
}

static gv_status choose(struct choosing *c, double *best, double *reached)
{
    double start[AXES];
    published(c, start);
    for (int i = 0; i < c->media; i++)
        TRY(look(c, i, NULL, c->whole + (int64_t)i * c->width));
    const struct search s = { .axes = AXES,
                              .least = { c->budget, 0.2 / 0.375, 0, 3, c->q->entropy ? -1 : 0 },
                              .most = { fmin(1, 1.5 * c->budget), 1, 50, 24, c->q->entropy ? 1 : 0 },
                              .trials = c->trials,
                              .start = start,
                              .seed = c->q->seed,
                              .possible = possible,
                              .value = likeness,
                              .user = c };
    return gv_search(&s, best, reached, &c->session->error);
}

static gv_status check(const struct choosing *c)
{
    const gv_pruning_request *q = c->q;
    struct error             *e = &c->session->error;
    if (!q->model || !q->model->vlm)
        return gv_fail(e, GV_ERR_ARGUMENT, "model is %s; pruning is of a captioning model's pictures",
                       q->model ? q->model->path : "missing");
    if (q->model->engine != c->session->engine)
        return gv_fail(e, GV_ERR_ARGUMENT, "model belongs to another engine");
    if (!q->media || q->media_count < 1 || q->media_count > MEDIA)
        return gv_fail(e, GV_ERR_ARGUMENT, "media_count is %zu; 1 to %d are possible", q->media ? q->media_count : 0, MEDIA);
    if (!(c->budget >= 0.01 && c->budget <= 0.99))
        return gv_fail(e, GV_ERR_ARGUMENT, "percent is %g; 1 to 99 are possible: at 100 nothing is left out", q->percent);
    if (c->trials < 2 || c->trials > GV_SEARCH_TRIALS)
        return gv_fail(e, GV_ERR_ARGUMENT, "trials is %d; 2 to %d are possible", c->trials, GV_SEARCH_TRIALS);
    return GV_OK;
}

static gv_status write_found(struct choosing *c, const double *x, double reached, char **json)
{
    struct error     *e = &c->session->error;
    char              path[PATH], name[NAME];
    struct prune_opts o;
    settings_of(c, x, &o);
    snprintf(name, sizeof name, "%g", 100 * c->budget);
    TRY(path_of(path, c->q->model->path, e));
    json_t *found = json_pack("{s:[f,f,f], s:f, s:f, s:f, s:f, s:f, s:i, s:i}", "keep", o.keep[0], o.keep[1], o.keep[2], "cell",
                              o.cell, "sink", o.importance.sink, "entropy", o.importance.entropy, "likeness", reached,
                              "published_likeness", c->first, "media", c->media, "trials", c->trials);
    gv_status status = found ? write_settings(path, name, found, e) : gv_fail(e, GV_ERR_MEMORY, "no memory for %s", path);
    if (!status) {
        json_object_set_new(found, "percent", json_real(100 * c->budget));
        json_object_set_new(found, "path", json_string(path));
        if (!(*json = json_dumps(found, JSON_INDENT(2) | JSON_REAL_PRECISION(9))))
            status = gv_fail(e, GV_ERR_MEMORY, "no memory for the result");
    }
    json_decref(found);
    return status;
}

gv_status gv_pruning_calibrate(gv_session *s, const gv_pruning_request *q, char **json)
{
    struct choosing c = { .session = s,
                          .q = q,
                          .media = (int)q->media_count,
                          .trials = q->trials ? q->trials : TRIALS,
                          .budget = (q->percent ? q->percent : 25) / 100,
                          .began = gv_now() };
    double          best[AXES], reached;
    *json = NULL;
    TRY(check(&c));
    c.layers = gv_lm_config(q->model->vlm->lm)->layers;
    c.width = q->model->vlm->width;
    c.whole = malloc((size_t)c.media * (size_t)c.width * sizeof *c.whole);
    c.pruned = malloc((size_t)c.width * sizeof *c.pruned);
    gv_status status = c.whole && c.pruned ? choose(&c, best, &reached)
                                           : gv_fail(&s->error, GV_ERR_MEMORY, "no memory for %d states", c.media);
    if (!status)
        status = write_found(&c, best, reached, json);
    free(c.whole);
    free(c.pruned);
    return status;
}
