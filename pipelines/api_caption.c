/* The captioning part of include/genvid.h: copies by struct_size, passes errors on as sentences, and the JSON beside it. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "pipelines/caption.h"

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

gv_status gv_caption(gv_session *s, const gv_caption_request *request, char **text)
{
    gv_caption_request    q = take(request);
    struct caption_job    job;
    struct caption_report p = { 0 };
    *text = NULL;
    atomic_store(&s->cancel, false);
    free(s->report);
    s->report = NULL;
    s->error = (struct error){ 0 };
    if (q.model && q.model->engine != s->engine)
        return gv_fail(&s->error, GV_ERR_ARGUMENT, "model belongs to another engine");
    TRY(gv_caption_job_open(&job, &q, &s->error));
    if (!job.model->trained)
        gv_log(&s->engine->log, GV_LOG_WARN, "the weights of %s are random: the text will mean nothing", job.model->path);
    gv_status status = gv_caption_plan(&job, &p, &s->error);
    if (!status)
        status = gv_pipeline_caption(&job, &s->cancel, &p, text, &s->error);
    if (!status)
        s->report = gv_caption_report_json(&job, &p);
    gv_caption_job_close(&job);
    return status;
}

/* ---- JSON ---- */

static char *text_of(json_t *o)
{
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    return text;
}

char *gv_caption_report_json(const struct caption_job *job, const struct caption_report *p)
{
    const struct device *d = job->model->engine->device;
    json_t              *stages = json_object();
    for (int i = 0; i < p->n_stages; i++)
        json_object_set_new(stages, p->stage[i].name, json_real(p->stage[i].seconds));
    return text_of(json_pack("{s:s, s:s, s:o, s:f, s:i, s:I, s:I, s:i, s:b, s:I, s:I, s:I, s:s, s:s, s:b}", "genvid",
                             gv_version(), "model", job->model->path, "stages", stages, "seconds", p->seconds, "pictures",
                             job->n_media, "picture_tokens", (json_int_t)job->picture_tokens, "prompt_tokens",
                             (json_int_t)job->n, "tokens", p->tokens, "stopped", p->stopped, "peak_bytes",
                             (json_int_t)p->peak_bytes, "scratch_bytes", (json_int_t)p->scratch_bytes, "kept_bytes",
                             (json_int_t)p->kept_bytes, "device", d->name, "precision", d->compute == GV_BF16 ? "bf16" : "f32",
                             "weights_streamed", job->stream));
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
