#include "pipelines/report.h"
#include "pipelines/recipe.h"

#include <jansson.h>

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *settings(const struct video_job *job)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:i, s:f, s:f, s:I, s:s, s:s, s:b}", "model", job->model->path,
                          "prompt", job->prompt_text, "negative_prompt", job->negative_text, "width", job->width, "height",
                          job->height, "frames", job->frames, "fps", job->fps, "steps", job->steps, "guidance", job->guidance,
                          "shift", job->shift, "seed", (json_int_t)job->seed, "solver", job->sampler.solver, "schedule",
                          job->schedule_name, "first_image", job->first.rgb != NULL);
    if (o && gv_shortcuts_on(&job->shortcuts)) {
        json_object_set_new(o, "attention", text_or_null(job->shortcuts.attention_text));
        json_object_set_new(o, "cache", text_or_null(job->shortcuts.cache_text));
    }
    return o;
}

/* What was measured and nothing else: without samples, no errors and no seconds. */
json_t *gv_receipt_json(const struct video_job *job, const struct receipt *p)
{
    const struct approx_receipt *a = &p->attention;
    json_t                      *o = json_pack("{s:b, s:i}", "random_weights", !job->model->trained, "samples", p->samples);
    if (approx_config_active(&job->shortcuts.attention))
        json_object_set_new(o, "attention",
                            json_pack("{s:f, s:I, s:I}", "density", a->calls > 0 ? a->pairs / a->calls : 1, "calls",
                                      (json_int_t)a->calls, "thinned", (json_int_t)a->thinned));
    json_t *attention = json_object_get(o, "attention");
    if (attention && a->samples)
        json_object_update_new(attention, json_pack("{s:f, s:f, s:i, s:f}", "relative_error", a->error / a->samples,
                                                    "worst_relative_error", a->worst, "samples", a->samples, "seconds_saved",
                                                    p->attention_seconds));
    if (attention && job->shortcuts.attention.keep != KEEP_NOTHING)
        json_object_update_new(attention, json_pack("{s:I, s:I, s:I, s:I, s:i}", "refreshed", (json_int_t)a->refreshed,
                                                    "reused", (json_int_t)a->reused, "heads", (json_int_t)a->heads,
                                                    "fresh_heads", (json_int_t)a->fresh_heads, "layers_kept", a->layers_kept));
    if (job->shortcuts.steps.method)
        json_object_set_new(o, "steps",
                            json_pack("{s:i, s:i, s:s, s:f}", "steps", p->steps, "skipped", p->skipped, "schedule", p->schedule,
                                      "seconds_saved", p->step_seconds));
    if (p->samples)
        json_object_update_new(o, json_pack("{s:f, s:f, s:f, s:f}", "velocity_error", p->error, "worst_velocity_error",
                                            p->worst, "latent_drift", p->drift, "worst_latent_drift", p->worst_drift));
    if (p->verified)
        json_object_set_new(o, "verify",
                            json_pack("{s:f, s:f, s:f}", "psnr", p->psnr, "ssim", p->ssim, "worst_ssim", p->worst_ssim));
    return o;
}

static char *text_of(json_t *o, size_t flags)
{
    char *text = o ? json_dumps(o, flags) : NULL;
    json_decref(o);
    return text;
}

/* NULL when memory ran out. */
static json_t *stage_seconds(const struct video_report *p)
{
    json_t *stages = json_object();
    int     failed = 0;
    for (int i = 0; i < p->n_stages; i++)
        failed |= json_object_set_new(stages, p->stage[i].name, json_real(p->stage[i].seconds));
    if (!failed)
        return stages;
    json_decref(stages);
    return NULL;
}

char *gv_report_json(const struct video_job *job, const struct video_report *p)
{
    const struct device *d = job->model->engine->device;
    json_t *o = json_pack("{s:s, s:o, s:o, s:f, s:I, s:I, s:I, s:I, s:f, s:s, s:s, s:b, s:b, s:s}", "genvid", gv_version(),
                          "settings", settings(job), "stages", stage_seconds(p), "seconds", p->seconds, "peak_bytes",
                          (json_int_t)p->peak_bytes, "weight_bytes", (json_int_t)p->weight_bytes, "scratch_bytes",
                          (json_int_t)p->scratch_bytes, "tokens", (json_int_t)p->tokens, "flops", p->flops, "device", d->name,
                          "precision", d->compute == GV_BF16 ? "bf16" : "f32", "weights_streamed", job->residency.stream,
                          "random_weights", !job->model->trained, "frames_sha256", p->frames_sha256);
    if (o && gv_shortcuts_on(&job->shortcuts))
        json_object_set_new(o, "receipt", gv_receipt_json(job, &p->receipt));
    if (o && p->note)
        json_object_set_new(o, "note", gv_note_json(p->note));
    return text_of(o, JSON_INDENT(2));
}

char *gv_model_json(const gv_model *m)
{
    const struct dit_config     *c = &m->dit->config;
    const struct video_defaults *d = &m->defaults;
    json_t                      *words = gv_vocabulary_json(m->vocabulary);
    json_t                      *o = json_pack(
                             "{s:s, s:s, s:b, s:{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I}, s:{s:s, s:i, s:i, s:i, s:I}, s:{s:s, s:i, s:i, s:i, "
                                                  "s:I},"
                                                  " s:b, s:{s:i, s:i, s:i, s:f, s:i, s:f, s:f, s:s, s:s}, s:b, s:o, s:o}",
                             "path", m->path, "pipeline", m->pipeline, "trained", m->trained, "transformer", "family", m->dit->model->name, "layers",
                             c->layers, "width", c->width, "heads", c->heads, "head_size", c->head, "ffn", c->ffn, "in_channels", c->in_channels,
                             "out_channels", c->out_channels, "device_bytes", (json_int_t)gv_weights_bytes(m->dit->weights), "vae", "family",
                             m->vae->model->name, "channels", m->vae->z, "space_scale", m->vae->space_scale, "time_scale", m->vae->time_scale,
                             "device_bytes", (json_int_t)(gv_weights_bytes(m->vae->encoder) + gv_weights_bytes(m->vae->decoder)), "text_encoder",
                             "family", m->text->model->name, "width", m->text->width, "vocabulary", m->text->vocabulary, "text_length",
                             d->text_length, "device_bytes", (json_int_t)gv_weights_bytes(m->text->weights), "image_encoder", m->image != NULL,
                             "defaults", "width", d->width, "height", d->height, "frames", d->frames, "fps", d->fps, "steps", d->steps, "guidance",
                             d->guidance, "shift", d->shift, "solver", m->sampler.solver, "schedule", m->schedule, "image_to_video",
                             m->known_first || c->in_channels != m->vae->z, "words", words, "parts", gv_model_parts_json(m, false));
    return text_of(o, JSON_INDENT(2));
}
