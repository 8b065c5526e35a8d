/* The captioning part of include/genvid.h: copies by struct_size, passes errors on as sentences, and the JSON beside it. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "pipelines/caption.h"
#include "pipelines/pruning.h"

void gv_caption_request_init_(gv_caption_request *r, size_t struct_size)
{
    const gv_caption_request d = { 0 };
    memcpy(r, &d, struct_size < sizeof d ? struct_size : sizeof d);
    memcpy(r, &struct_size, sizeof struct_size);
}

/* The caller's struct over the defaults, as many bytes as it has. */
static gv_caption_request take(const gv_caption_request *from)
{
    gv_caption_request q = { 0 };
    size_t             size;
    memcpy(&size, from, sizeof size);
    memcpy(&q, from, size < sizeof q ? size : sizeof q);
    q.struct_size = sizeof q;
    return q;
}

void gv_caption_cost_init_(gv_caption_cost *c, size_t struct_size)
{
    const gv_caption_cost d = { 0 };
    memcpy(c, &d, struct_size < sizeof d ? struct_size : sizeof d);
    memcpy(c, &struct_size, sizeof struct_size);
}

/* A new call on the session: its message and its report are gone. */
static gv_status begin(gv_session *s, struct caption_job *job, const gv_caption_request *q)
{
    atomic_store(&s->cancel, false);
    free(s->report);
    s->report = NULL;
    s->report_lost = false;
    s->error = (struct error){ 0 };
    if (q->model && q->model->engine != s->engine)
        return gv_fail(&s->error, GV_ERR_ARGUMENT, "model belongs to another engine");
    return gv_caption_job_open(job, q, &s->error);
}

/* What will be looked at, before it is. */
static void say_budget(const gv_session *s, const struct caption_job *job)
{
    const struct log *log = &s->engine->log;
    for (int i = 0; i < job->n_media; i++) {
        const struct caption_media *m = &job->media[i];
        if (m->clip)
            gv_log(log, GV_LOG_INFO, "%s: %.2f to %.2f s of %.2f s, %d frames of %dx%d, %lld tokens", m->path, m->start,
                   m->start + m->seconds, m->length, m->media.frames, m->media.width, m->media.height,
                   (long long)m->media.tokens);
        else
            gv_log(log, GV_LOG_INFO, "%s: %dx%d, %lld tokens", m->path, m->media.width, m->media.height,
                   (long long)m->media.tokens);
    }
    gv_log(log, GV_LOG_INFO, "prompt: %lld tokens of pictures and %lld of words; text: up to %d; context: %d",
           (long long)job->picture_tokens, (long long)(job->n - job->picture_tokens), job->max_tokens,
           job->model->vlm->longest);
}

gv_status gv_caption_estimate(gv_session *s, const gv_caption_request *request, gv_caption_cost *out)
{
    const gv_caption_request q = take(request);
    struct caption_job       job;
    struct caption_report    p = { 0 };
    size_t                   size;
    TRY(begin(s, &job, &q));
    say_budget(s, &job);
    gv_status status = gv_caption_plan(&job, &p, &s->error);
    memcpy(&size, out, sizeof size);
    gv_caption_cost c = { .struct_size = size,
                          .device_bytes = p.peak_bytes,
                          .kept_bytes = p.kept_bytes,
                          .picture_tokens = job.picture_tokens,
                          .prompt_tokens = job.n,
                          .context = job.model->vlm->longest,
                          .max_tokens = job.max_tokens,
                          .frames = (int)job.frames };
    for (int i = job.n_media - 1; i >= 0; i--)
        c.seconds = job.media[i].clip ? job.media[i].length : c.seconds;
    if (!status)
        memcpy(out, &c, size < sizeof c ? size : sizeof c);
    gv_caption_job_close(&job);
    return status;
}

/* As planned, or once more with a smaller plan where memory turned out to be less. */
static gv_status run_planned(gv_session *s, struct caption_job *job, struct caption_report *p, char **text)
{
    for (;;) {
        const unsigned refused = atomic_load(&s->engine->device->refused);
        TRY(gv_caption_plan(job, p, &s->error));
        const gv_status status = gv_pipeline_caption(job, &s->cancel, p, text, &s->error);
        if (p->tokens || !gv_residency_retry(&job->residency, job->model, refused, &s->error))
            return status;
    }
}

gv_status gv_caption(gv_session *s, const gv_caption_request *request, char **text)
{
    const gv_caption_request q = take(request);
    struct caption_job       job;
    struct caption_report    p = { 0 };
    *text = NULL;
    TRY(begin(s, &job, &q));
    if (!job.model->trained)
        gv_log(&s->engine->log, GV_LOG_WARN, "the weights of %s are random: the text will mean nothing", job.model->path);
    say_budget(s, &job);
    const gv_status status = run_planned(s, &job, &p, text);
    if (!status)
        s->report_lost = !(s->report = gv_caption_report_json(&job, &p));
    gv_caption_job_close(&job);
    return status;
}

/* ---- settings of pruning ---- */

void gv_pruning_request_init_(gv_pruning_request *r, size_t struct_size)
{
    const gv_pruning_request d = { 0 };
    memcpy(r, &d, struct_size < sizeof d ? struct_size : sizeof d);
    memcpy(r, &struct_size, sizeof struct_size);
}

gv_status gv_calibrate_pruning(gv_session *s, const gv_pruning_request *request, char **json)
{
    gv_pruning_request q = { 0 };
    size_t             size;
    memcpy(&size, request, sizeof size);
    memcpy(&q, request, size < sizeof q ? size : sizeof q);
    q.struct_size = sizeof q;
    atomic_store(&s->cancel, false);
    s->error = (struct error){ 0 };
    return gv_pruning_calibrate(s, &q, json);
}

/* ---- JSON ---- */

static char *text_of(json_t *o)
{
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    return text;
}

/* What pruning left, and what it cost. NULL: nothing was pruned. */
static json_t *prune_json(const struct caption_job *job, const struct caption_report *p)
{
    const struct lm_config *c = gv_lm_config(job->model->vlm->lm);
    if (!job->prunes)
        return json_null();
    json_t *o = json_pack("{s:[I,I,I,I], s:[i,i], s:f, s:b, s:b}", "tokens", (json_int_t)p->pruned[0], (json_int_t)p->pruned[1],
                          (json_int_t)p->pruned[2], (json_int_t)p->pruned[3], "layers", gv_prune_layer(0, c->layers),
                          gv_prune_layer(1, c->layers), "budget", gv_prune_budget(&job->prune, c->layers), "published",
                          !strcmp(job->model->vlm->model->name, "llava-onevision") && c->layers == 28 &&
                              gv_prune_published(&job->prune),
                          "calibrated", job->calibrated);
    if (o && job->receipt) {
        json_object_set_new(o, "likeness", json_real(p->likeness));
        json_object_set_new(o, "whole_prompt_kept_bytes", json_integer((json_int_t)p->whole_bytes));
    }
    return o;
}

static json_t *recycle_json(const struct caption_job *job, const struct caption_report *p)
{
    if (!job->recycle)
        return json_null();
    return json_pack("{s:I, s:I, s:o}", "keys", (json_int_t)job->recycle, "every", (json_int_t)job->recycle_every, "share",
                     p->recycled > 0 ? json_real(p->recycled) : json_null());
}

static json_t *paint_json(const struct caption_job *job)
{
    return job->paints ? json_pack("{s:f, s:f, s:f}", "local", job->paint.local, "summary", job->paint.summary, "share",
                                   job->paint.share)
                       : json_null();
}

static json_t *pages_json(const struct caption_job *job, const struct caption_report *p)
{
    if (!job->pages)
        return json_null();
    return json_pack("{s:I, s:I, s:f, s:o}", "keys", (json_int_t)job->pages, "every", (json_int_t)job->pages_every, "read",
                     p->paged, "share", p->page_share > 0 ? json_real(p->page_share) : json_null());
}

char *gv_caption_report_json(const struct caption_job *job, const struct caption_report *p)
{
    const struct device *d = job->model->engine->device;
    json_t              *stages = json_object();
    int                  failed = 0;
    for (int i = 0; i < p->n_stages; i++)
        failed |= json_object_set_new(stages, p->stage[i].name, json_real(p->stage[i].seconds));
    if (failed) {
        json_decref(stages);
        return NULL;
    }
    return text_of(json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:f, s:i, s:f, s:i, s:I, s:I, s:I, s:i, s:b, s:I, s:I, s:I, s:s, s:s, s:b}",
        "genvid", gv_version(), "model", job->model->path, "stages", stages, "prune", prune_json(job, p), "recycle",
        recycle_json(job, p), "pages", pages_json(job, p), "paint", paint_json(job), "picture_factor",
        job->factor > 0 ? job->factor : 1, "picture_factor_layers", job->factor_layers, "seconds", p->seconds, "pictures",
        job->n_media, "frames", (json_int_t)job->frames, "picture_tokens", (json_int_t)job->picture_tokens, "prompt_tokens",
        (json_int_t)job->n, "tokens", p->tokens, "stopped", p->stopped, "peak_bytes", (json_int_t)p->peak_bytes,
        "scratch_bytes", (json_int_t)p->scratch_bytes, "kept_bytes", (json_int_t)p->kept_bytes, "device", d->name, "precision",
        d->compute == GV_BF16 ? "bf16" : "f32", "weights_streamed", job->residency.stream));
}

char *gv_caption_model_json(const gv_model *m)
{
    const struct vlm *v = m->vlm;
    return text_of(json_pack("{s:s, s:s, s:b, s:{s:s, s:i, s:i, s:i, s:I}, s:{s:i, s:i, s:I, s:I, s:I}}", "path", m->path,
                             "pipeline", m->pipeline, "trained", m->trained, "decoder", "family", v->model->name, "width",
                             v->width, "vocabulary", v->vocabulary, "longest", v->longest, "device_bytes",
                             (json_int_t)gv_weights_bytes(v->decoder), "vision", "patch", v->patch.patch, "merge",
                             v->patch.merge, "least_pixels", (json_int_t)v->patch.least, "most_pixels",
                             (json_int_t)v->patch.most, "device_bytes", (json_int_t)gv_weights_bytes(v->vision)));
}
