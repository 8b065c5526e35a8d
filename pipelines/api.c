/* include/genvid.h and nothing else: copies by struct_size, fills defaults, opens and closes, passes errors on as sentences. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "pipelines/bench.h"
#include "pipelines/calibration.h"
#include "pipelines/caption.h"
#include "pipelines/memo.h"
#include "pipelines/options.h"
#include "pipelines/recipe.h"
#include "pipelines/report.h"
#include "pipelines/verify.h"

unsigned gv_api_version(void)
{
    return GV_API_VERSION;
}

const char *gv_version(void)
{
    return GV_VERSION;
}

void gv_free(void *p)
{
    free(p);
}

/* ---- structs that cross: the caller's size decides how much is read or written ---- */

static void fill(void *dst, size_t dst_size, const void *defaults, size_t full)
{
    memcpy(dst, defaults, dst_size < full ? dst_size : full);
    memcpy(dst, &dst_size, sizeof dst_size);
}

/* Over the defaults lie as many bytes as the caller's struct has. */
static void take(void *out, size_t full, const void *from)
{
    size_t size;
    memcpy(&size, from, sizeof size);
    memcpy(out, from, size < full ? size : full);
    memcpy(out, &full, sizeof full);
}

void gv_engine_params_init_(gv_engine_params *p, size_t struct_size)
{
    const gv_engine_params d = { .log_level = GV_LOG_WARN };
    fill(p, struct_size, &d, sizeof d);
}

void gv_video_request_init_(gv_video_request *r, size_t struct_size)
{
    const gv_video_request d = { .guidance = -1 };
    fill(r, struct_size, &d, sizeof d);
}

void gv_estimate_init_(gv_estimate *e, size_t struct_size)
{
    const gv_estimate d = { 0 };
    fill(e, struct_size, &d, sizeof d);
}

static gv_status tell(const struct error *e, char *message, size_t size)
{
    if (message && size)
        snprintf(message, size, "%s", e->text);
    return e->code;
}

/* ---- engine ---- */

static gv_status engine_open(gv_engine *g, const gv_engine_params *p, struct error *e)
{
    if (p->threads < 0 || p->threads > 256)
        return gv_fail(e, GV_ERR_ARGUMENT, "threads is %d; 0 to 256 are possible", p->threads);
    g->log = (struct log){ p->log, p->log_user, p->log_level };
    const struct device_params d = { .name = p->device,
                                     .threads = p->threads,
                                     .budget = (size_t)p->device_budget,
                                     .cpu_level = p->cpu_level,
                                     .precision = p->precision,
                                     .log = &g->log };
    return gv_device_open(&g->device, &d, e);
}

gv_status gv_engine_open(const gv_engine_params *params, gv_engine **out, char *message, size_t message_size)
{
    struct error     e = { 0 };
    gv_engine_params p;
    gv_engine_params_init(&p);
    if (params)
        take(&p, sizeof p, params);
    gv_engine *g = *out = calloc(1, sizeof *g);
    if (!g) {
        gv_fail(&e, GV_ERR_MEMORY, "no memory for an engine");
        return tell(&e, message, message_size);
    }
    pthread_mutex_init(&g->lock, NULL);
    if (engine_open(g, &p, &e))
        gv_engine_close(out);
    return tell(&e, message, message_size);
}

gv_status gv_model_load(gv_engine *g, const char *path, gv_model **out, char *message, size_t message_size)
{
    struct error e = { 0 };
    *out = NULL;
    if (!path)
        gv_fail(&e, GV_ERR_ARGUMENT, "path of the model is missing");
    else if (!gv_model_open(out, g, path, &e)) {
        pthread_mutex_lock(&g->lock);
        (*out)->next = g->models;
        g->models = *out;
        pthread_mutex_unlock(&g->lock);
    }
    return tell(&e, message, message_size);
}

void gv_model_unload(gv_model **model)
{
    gv_model *m = *model;
    if (!m)
        return;
    pthread_mutex_lock(&m->engine->lock);
    gv_model **at = &m->engine->models;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    pthread_mutex_unlock(&m->engine->lock);
    gv_model_close(model);
}

void gv_engine_close(gv_engine **engine)
{
    gv_engine *g = *engine;
    if (!g)
        return;
    while (g->models) {
        gv_model *m = g->models;
        gv_model_unload(&m);
    }
    gv_device_close(&g->device);
    pthread_mutex_destroy(&g->lock);
    free(g);
    *engine = NULL;
}

/* ---- session ---- */

gv_status gv_session_open(gv_engine *g, gv_session **out)
{
    gv_session *s = *out = calloc(1, sizeof **out);
    if (!s || !(s->memo = calloc(1, sizeof *s->memo))) {
        free(s);
        *out = NULL;
        return GV_ERR_MEMORY;
    }
    s->engine = g;
    atomic_init(&s->cancel, false);
    return GV_OK;
}

const char *gv_session_message(const gv_session *s)
{
    return s->error.text;
}

void gv_session_cancel(gv_session *s)
{
    atomic_store(&s->cancel, true);
}

void gv_session_close(gv_session **session)
{
    if (!*session)
        return;
    free((*session)->report);
    gv_memo_free((*session)->memo);
    free((*session)->memo);
    free(*session);
    *session = NULL;
}

char *gv_session_report(const gv_session *s)
{
    return s->report_lost ? NULL : strdup(s->report ? s->report : "{}");
}

/* ---- video ---- */

/* Request → job. A model of another engine is refused: its weights lie on another device. */
static gv_status job_open(gv_session *s, const gv_video_request *request, gv_video_request *q, struct video_job *job)
{
    s->error = (struct error){ 0 };
    gv_video_request_init(q);
    take(q, sizeof *q, request);
    if (q->model && q->model->vlm)
        return gv_fail(&s->error, GV_ERR_ARGUMENT, "model is %s, which makes captions; videos need a diffusion model",
                       q->model->path);
    TRY(gv_video_job_open(job, q, &s->error));
    job->memo = s->memo;
    if (job->model->engine == s->engine)
        return GV_OK;
    gv_video_job_close(job);
    return gv_fail(&s->error, GV_ERR_ARGUMENT, "model belongs to another engine");
}

gv_status gv_video_estimate(gv_session *s, const gv_video_request *request, gv_estimate *out)
{
    gv_video_request    q;
    struct video_job    job;
    struct video_report p = { 0 };
    TRY(job_open(s, request, &q, &job));
    job.progress = NULL;
    job.on_frame = NULL;
    gv_status status = gv_video_plan(&job, &p, &s->error);
    if (!status) {
        const gv_estimate d = { .device_bytes = p.peak_bytes,
                                .weight_bytes = p.weight_bytes,
                                .tokens = p.tokens,
                                .flops = p.flops,
                                .width = job.width,
                                .height = job.height,
                                .frames = job.frames,
                                .steps = job.steps,
                                .fps = job.fps };
        fill(out, out->struct_size, &d, sizeof d);
    }
    gv_video_job_close(&job);
    return status;
}

static gv_status sink_open(struct video_job *job, const gv_video_request *q, struct error *e)
{
    if (!q->output_path)
        return GV_OK;
    char *recipe = gv_recipe_json(job, q, NULL);
    if (!recipe)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the recipe");
    struct sink_params p = { .path = q->output_path,
                             .format = gv_option_value(q, "format"),
                             .width = job->width,
                             .height = job->height,
                             .fps = job->fps,
                             .frames = job->frames,
                             .codec = gv_option_value(q, "codec"),
                             .preset = gv_option_value(q, "preset"),
                             .crf = -1,
                             .comment = recipe,
                             .audio = gv_option_value(q, "audio"),
                             .log = &job->model->engine->log };
    gv_status          status = gv_option_int(&p.bits, q, "bits", 8, 10, e);
    if (!status)
        status = gv_option_int(&p.crf, q, "crf", 0, 63, e);
    if (!status)
        status = gv_sink_open(&job->sink, &p, e);
    free(recipe);
    return status;
}

/* The clip beside the exact one. */
static gv_status verified(gv_session *s, struct video_job *job, struct video_report *p)
{
    struct verify v;
    gv_status     status = gv_verify_begin(&v, job, p, &s->cancel, &s->error);
    if (!status)
        status = gv_pipeline_video(job, &s->cancel, p, &s->error);
    if (!status || v.status)
        status = gv_verify_end(&v, &p->receipt, &s->error);
    gv_verify_close(&v);
    return status;
}

/* What is known last, the frames' hash and what shortcuts cost, goes into the file where its format writes metadata at the end. */
static gv_status commit(const struct video_job *job, const gv_video_request *q, const struct video_report *p, struct error *e)
{
    char *recipe = gv_recipe_json(job, q, p);
    if (!recipe)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the recipe");
    const gv_status status = gv_sink_commit(job->sink, recipe, e);
    free(recipe);
    return status;
}

/* The caller's look at the clip before it has its name. */
static gv_status made(const struct video_job *job, const gv_video_request *q, struct video_report *p, struct error *e)
{
    const char *path = NULL;
    if (!q->on_made)
        return GV_OK;
    if (job->sink)
        TRY(gv_sink_finish(job->sink, &path, e));
    return q->on_made(q->user, path, &p->note) ? gv_fail(e, GV_ERR_CANCELLED, "cancelled by a callback") : GV_OK;
}

/* As planned, or once more with a smaller plan where memory turned out to be less. */
static gv_status run_planned(gv_session *s, struct video_job *job, struct video_report *p)
{
    for (;;) {
        const unsigned   refused = atomic_load(&s->engine->device->refused);
        struct video_job once = *job; /* verified() puts itself between */
        const gv_status  status =
            job->shortcuts.verify ? verified(s, &once, p) : gv_pipeline_video(&once, &s->cancel, p, &s->error);
        if (p->delivered || !gv_residency_retry(&job->residency, job->model, refused, &s->error))
            return status;
        TRY(gv_video_plan(job, p, &s->error));
    }
}

static gv_status run_job(gv_session *s, struct video_job *job, const gv_video_request *q, struct video_report *p)
{
    const struct log *log = &s->engine->log;
    if (!job->model->trained)
        gv_log(log, GV_LOG_WARN, "the weights of %s are random: the frames will mean nothing", job->model->path);
    TRY(gv_video_plan(job, p, &s->error));
    TRY(sink_open(job, q, &s->error));
    TRY(run_planned(s, job, p));
    TRY(made(job, q, p, &s->error));
    return job->sink ? commit(job, q, p, &s->error) : GV_OK;
}

gv_status gv_video_generate(gv_session *s, const gv_video_request *request)
{
    gv_video_request    q;
    struct video_job    job;
    struct video_report p = { 0 };
    atomic_store(&s->cancel, false);
    free(s->report);
    s->report = NULL;
    s->report_lost = false;
    TRY(job_open(s, request, &q, &job));
    gv_status status = run_job(s, &job, &q, &p);
    gv_sink_close(&job.sink);
    if (!status)
        s->report_lost = !(s->report = gv_report_json(&job, &p));
    gv_video_job_close(&job);
    return status;
}

/* ---- calibration ---- */

void gv_calibrate_request_init_(gv_calibrate_request *r, size_t struct_size)
{
    const gv_calibrate_request d = { 0 };
    fill(r, struct_size, &d, sizeof d);
}

gv_status gv_calibrate(gv_session *s, const gv_calibrate_request *request, char **json)
{
    gv_calibrate_request c;
    gv_video_request     q;
    atomic_store(&s->cancel, false);
    s->error = (struct error){ 0 };
    gv_calibrate_request_init(&c);
    take(&c, sizeof c, request);
    gv_video_request_init(&q);
    if (c.video)
        take(&q, sizeof q, c.video);
    if (c.video && q.model && q.model->vlm)
        return gv_fail(&s->error, GV_ERR_ARGUMENT, "model is %s, which makes captions", q.model->path);
    c.video = c.video ? &q : NULL;
    return gv_calibrate_job(s, &c, json);
}

/* ---- what is here ---- */

char *gv_model_describe(const gv_model *m)
{
    return m->vlm ? gv_caption_model_json(m) : gv_model_json(m);
}

gv_status gv_model_compare(const gv_model *m, const char *asked, const char *read, char **json)
{
    json_t      *o = NULL;
    struct error e = { 0 };
    *json = NULL;
    if (!asked || !read)
        return GV_ERR_ARGUMENT;
    TRY(gv_slots_compare(&o, m->slots, m->vocabulary, asked, read, &e));
    *json = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return *json ? GV_OK : GV_ERR_MEMORY;
}

char *gv_model_options_json(const gv_model *m)
{
    (void)m; /* every video model has the same */
    return gv_options_json();
}

char *gv_shortcuts_describe(void)
{
    return gv_shortcuts_json();
}

/* A device in a module is opened to learn whether it is there, and what it is. */
char *gv_devices_json(void)
{
    json_t        *all = json_pack("[{s:s, s:s}]", "name", "cpu", "description", "this machine's processor");
    struct device *d = NULL;

    if (gv_device_open(&d, &(struct device_params){ .name = "cuda" }, NULL) == GV_OK) {
        json_array_append_new(all, json_pack("{s:s, s:s}", "name", d->name, "description", d->what));
        gv_device_close(&d);
    }
    char *text = json_dumps(all, 0);
    json_decref(all);
    return text;
}

gv_status gv_media_probe(const char *path, char **json, char *message, size_t message_size)
{
    struct error e = { 0 };
    *json = NULL;
    if (!path)
        gv_fail(&e, GV_ERR_ARGUMENT, "path of the file is missing");
    else
        gv_probe_json(json, path, &e);
    return tell(&e, message, message_size);
}

char *gv_output_formats(void)
{
    return gv_sink_formats();
}

char *gv_engine_bench(gv_engine *g, double seconds)
{
    return gv_bench_json(g->device, seconds);
}

char *gv_engine_bench_attention(gv_engine *g, double seconds)
{
    return gv_bench_attention_json(g->device, seconds);
}
