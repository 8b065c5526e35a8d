#include "pipelines/shortcuts.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/compare.h"
#include "pipelines/options.h"
#include "pipelines/video.h"

/* ---- what was asked for ---- */

enum { SAMPLES = 2 };

bool gv_shortcuts_on(const struct shortcuts *s)
{
    return approx_config_active(&s->attention) || s->steps.method || s->survey;
}

static bool is_off(const char *text)
{
    return !text || !*text || !strcmp(text, "off");
}

static gv_status copy_text(char **out, const char *text, struct error *e)
{
    *out = strdup(text);
    return *out ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "no memory for an option");
}

static gv_status unknown_cache(const char *cache, struct error *e)
{
    char   names[256] = "";
    size_t used = 0;

    for (int i = 0; gv_step_methods()[i]; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s, ", gv_step_methods()[i]->name);
    for (const struct partial_method *m = gv_partial_methods(); m->name; m++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", m->name, m[1].name ? ", " : "");
    return gv_fail(e, GV_ERR_ARGUMENT, "unknown cache method \"%.*s\"; there are: %s", (int)strcspn(cache, ":"), cache, names);
}

static gv_status settle_method(struct shortcuts *s, const char *cache, struct error *e)
{
    const enum keep_partial   keep = s->attention.keep;
    struct step_choice        found = { 0 };
    bool                      known;

    TRY(gv_approx_parse_keep(&s->attention, cache, &known, e));
    if (!known)
        TRY(gv_step_parse(&found, cache, e));
    if (!known && !found.method)
        return unknown_cache(cache, e);
    if (known ? keep != KEEP_NOTHING : s->steps.method != NULL)
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "cache: \"%s\" and another of its kind; one that keeps partials and one that skips steps go together",
                       cache);
    if (found.method)
        s->steps = found;
    return GV_OK;
}

/* "complement:mib=512+easycache": a method, or one of either kind. */
static gv_status settle_cache(struct shortcuts *s, const char *cache, struct error *e)
{
    char *part, *rest;

    TRY(copy_text(&s->cache_text, cache, e));
    part = strdup(cache);
    if (!part)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for an option");
    rest = strchr(part, '+');
    if (rest)
        *rest++ = 0;
    gv_status status = settle_method(s, part, e);
    if (!status && rest)
        status = settle_method(s, rest, e);
    free(part);
    return status;
}

static gv_status settle_samples(struct shortcuts *s, const char *text, struct error *e)
{
    char *end;

    s->samples = SAMPLES;
    if (!text)
        return GV_OK;
    const long n = strtol(text, &end, 10);
    if (end == text || *end || n < 0 || n > 1000)
        return gv_fail(e, GV_ERR_ARGUMENT, "receipt is \"%s\"; a whole number from 0 to 1000 is possible", text);
    s->samples = (int)n;
    return GV_OK;
}

static gv_status settle_verify(struct shortcuts *s, const char *text, struct error *e)
{
    if (text && strcmp(text, "on") && strcmp(text, "off"))
        return gv_fail(e, GV_ERR_ARGUMENT, "verify is \"%s\"; on and off are possible", text);
    s->verify = text && !strcmp(text, "on");
    if (s->verify && !gv_shortcuts_on(s))
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "verify compares with the exact clip; this one leaves nothing out: --attention or --cache");
    return GV_OK;
}

/* Looked for where something asks for it. */
static gv_status read_calibration(struct video_job *job, struct error *e)
{
    struct shortcuts        *s = &job->shortcuts;
    const struct dit_config *c = &job->model->dit->config;
    const bool               magcache = s->steps.method && !strcmp(s->steps.method->name, "magcache");

    if (!magcache && s->attention.keep != KEEP_HISTORY && !(s->attention.policy && s->attention.policy->calibrated))
        return GV_OK;
    return gv_calibration_read(&s->calibration, job->model->path, c->layers, c->heads, e);
}

gv_status gv_shortcuts_settle(struct video_job *job, const gv_video_request *q, struct error *e)
{
    struct shortcuts *s = &job->shortcuts;
    const char       *attention = gv_option_value(q, "attention"), *cache = gv_option_value(q, "cache");

    s->attention.refresh = (struct refresh){ .every = 1, .drift = -1, .across = 1 };
    if (!is_off(attention)) {
        TRY(gv_approx_parse(&s->attention, attention, e));
        TRY(copy_text(&s->attention_text, attention, e));
    }
    if (!is_off(cache))
        TRY(settle_cache(s, cache, e));
    TRY(settle_samples(s, gv_option_value(q, "receipt"), e));
    TRY(settle_verify(s, gv_option_value(q, "verify"), e));
    if (gv_shortcuts_on(s) && (job->state_in || job->state_out))
        return gv_fail(e, GV_ERR_UNSUPPORTED,
                       "a render with shortcuts cannot be written down: what it keeps is not in the file");
    if (approx_config_active(&s->attention) && job->model->engine->device->kind != GV_DEVICE_CPU)
        return gv_fail(e, GV_ERR_UNSUPPORTED,
                       "attention, cache: lists of key blocks are made on the cpu device alone so far; step "
                       "caches (easycache, firstblock, ...) go on every device");
    TRY(gv_approx_check(&s->attention, job->causal.block > 0, e));
    return read_calibration(job, e);
}

void gv_shortcuts_free(struct shortcuts *s)
{
    free(s->attention_text);
    free(s->cache_text);
    s->attention_text = s->cache_text = NULL;
    gv_calibration_free(s->calibration);
    s->calibration = NULL;
}

/* ---- while it runs ---- */

static gv_status open_steps(struct shortcut_run *s, const struct video_job *job, struct device *d, struct error *e)
{
    const struct dit_config *c = &job->model->dit->config;

    s->steps = (struct step_cache){ .asked = s->asked->steps,
                                    .steps = job->steps,
                                    .measured = s->asked->measured,
                                    .data = gv_step_data(c->layers, c->in_channels, (int64_t)job->width * job->height) };
    if (s->asked->calibration && s->asked->calibration->ratio)
        s->steps.ratio = s->asked->calibration->ratio, s->steps.n_ratio = s->asked->calibration->n_ratio;
    if (s->asked->measured)
        s->steps.asked.method = &gv_step_measure;
    return gv_step_open(&s->steps, d, e);
}

gv_status gv_shortcut_run_open(struct shortcut_run *s, const struct video_job *job, struct device *d, int rows, int blocks,
                               struct receipt *receipt, struct error *e)
{
    const struct approx_shape shape = { job->model->dit->config.layers, rows, job->causal.block > 0 };

    *s = (struct shortcut_run){
        .asked = &job->shortcuts, .on = gv_shortcuts_on(&job->shortcuts), .of = blocks * job->steps, .receipt = receipt
    };
    *receipt = (struct receipt){ 0 };
    if (!s->on)
        return GV_OK;
    s->open = true;
    s->skips = s->asked->steps.method || s->asked->measured;
    TRY(gv_approx_open(&s->approx, &s->asked->attention, s->asked->calibration ? &s->asked->calibration->attention : NULL, d,
                       &shape, e));
    s->approx.survey = s->asked->survey;
    if (s->asked->survey)
        TRY(gv_survey_begin(s->asked->survey, d, e));
    return s->skips ? open_steps(s, job, d, e) : GV_OK;
}

void gv_shortcut_run_begin_block(struct shortcut_run *s)
{
    if (!s->on)
        return;
    gv_approx_begin_block(&s->approx);
    if (s->asked->survey)
        gv_survey_begin_block(s->asked->survey);
    if (s->skips)
        gv_step_begin_block(&s->steps);
}

void gv_shortcut_run_close(struct shortcut_run *s)
{
    struct receipt *p = s->receipt;

    if (!s->open)
        return;
    p->attention = s->approx.receipt;
    p->attention_seconds = gv_approx_saved_seconds(&s->approx.receipt);
    p->skipped = s->steps.skipped;
    p->steps = s->forwards;
    if (p->skipped && p->skipped < p->steps)
        p->step_seconds = s->full_seconds / (p->steps - p->skipped) * p->skipped - s->skip_seconds;
    memcpy(p->schedule, s->steps.schedule, sizeof p->schedule);
    if (p->samples) {
        p->error /= p->samples;
        p->drift /= p->samples;
    }
    gv_approx_close(&s->approx);
    if (s->asked->survey)
        gv_survey_end(s->asked->survey);
    if (s->skips)
        gv_step_close(&s->steps);
    s->open = false;
}

/* The sampled forwards lie in the middle of equal parts of the loop; one that leaves nothing out is made up for by the next. */
static bool sample_is_due(const struct shortcut_run *s)
{
    const int n = s->asked->samples;

    return s->taken < n && s->forwards >= (int)(((int64_t)2 * s->taken + 1) * s->of / (2 * (int64_t)n));
}

void gv_shortcut_run_enter(struct shortcut_run *s, struct dit_call *call, int step, int steps, bool commit)
{
    if (!s->on)
        return;
    s->approx.at = (struct approx_at){ .step = step, .steps = steps, .commit = commit, .sample = !commit && sample_is_due(s) };
    s->steps.step = step;
    s->steps.skip = false;
    call->approx = approx_config_active(&s->asked->attention) || s->asked->survey ? &s->approx : NULL;
    call->steps = s->skips && !commit ? &s->steps : NULL;
    s->receipt->attention.thinned = s->approx.receipt.thinned; /* to see whether this forward leaves something out */
}

bool gv_shortcut_run_leave(struct shortcut_run *s, bool dry, double seconds)
{
    if (!s->on)
        return false;
    const bool due = sample_is_due(s), short_of = s->steps.skip || s->approx.receipt.thinned > s->receipt->attention.thinned;
    *(s->steps.skip ? &s->skip_seconds : &s->full_seconds) += seconds;
    s->forwards++;
    if (dry)
        return s->asked->samples > 0;
    s->taken += due && short_of;
    return due && short_of;
}

void gv_shortcut_run_compare(struct run *r, struct shortcut_run *s, struct tensor v, struct tensor exact, struct tensor x,
                             double sigma)
{
    struct difference velocity = { 0 }, latents = { 0 };
    struct receipt   *p = s->receipt;

    gv_compare(r, &velocity, v, exact);
    gv_compare(r, &latents, x, x);
    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return;
    const double error = gv_relative_l2(&velocity);
    const double drift = latents.reference > 0 ? sigma * sqrt(velocity.difference / latents.reference) : 0;
    p->samples++;
    p->error += error;
    p->drift += drift;
    p->worst = error > p->worst ? error : p->worst;
    p->worst_drift = drift > p->worst_drift ? drift : p->worst_drift;
}

/* ---- what is possible ---- */

static json_t *options_json(const struct policy_option *o)
{
    json_t *list = json_array();

    for (; o && o->name; o++)
        json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f, s:s}", "name", o->name, "min", o->min, "max", o->max,
                                              "default", o->value, "help", o->help));
    return list;
}

static void append(json_t *list, const char *kind, const char *name, const char *help, const struct policy_option *options)
{
    json_array_append_new(
        list, json_pack("{s:s, s:s, s:s, s:o}", "kind", kind, "name", name, "help", help, "options", options_json(options)));
}

char *gv_shortcuts_json(void)
{
    json_t *list = json_array();

    for (int i = 0; gv_policies()[i]; i++)
        append(list, gv_policies()[i]->text ? "text" : "attention", gv_policies()[i]->name, gv_policies()[i]->help,
               gv_policies()[i]->options);
    append(list, "attention", "(every policy)", "options that go with each of them", gv_approx_options());
    for (int i = 0; gv_step_methods()[i]; i++)
        append(list, "cache", gv_step_methods()[i]->name, gv_step_methods()[i]->help, gv_step_methods()[i]->options);
    for (const struct partial_method *m = gv_partial_methods(); m->name; m++)
        append(list, "cache", m->name, m->help, m->options);
    char *text = json_dumps(list, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(list);
    return text;
}
