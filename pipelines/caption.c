/* Pictures, clips and a question to text, in stages:
 *
 *   image    some steps of a picture or clip → their tokens; until all are there
 *   prompt   all ids at once → logits of the first token; keys and values stay
 *   text     choose a token, hand on what it adds to the text, run it; until a stop id or max_tokens
 *
 * Only this file loops over pictures and tokens, and only it calls the user. The same code runs on the null device, where it
 * yields the peak of memory; one token stands for all there, because keys and values are taken for the whole text at once.
 *
 * What would surprise you: a token may end within a character. Text is handed on up to the last whole one; what never became one is
 * handed on as U+FFFD at the end. */
#include "pipelines/caption.h"
#include "core/clock.h"
#include "pipelines/explain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct caption_state {
    struct caption_job    *job;
    struct run            *run;
    struct caption_report *report;
    double                 began;
    struct tensor          features[GV_CAPTION_MEDIA]; /* of each picture: f32 [tokens, width] */
    float                 *score[GV_CAPTION_MEDIA];    /* importance of its tokens, where they are pruned */
    struct tensor          logits;                     /* f32 [1, vocabulary] */
    struct vlm_state       state;
    struct text_sampler    sampler;
    float                 *host; /* [vocabulary] */
    int32_t               *ids;  /* of the text */
    int                    n;
    char                  *text; /* of ids */
    size_t                 told; /* bytes of it that were handed on */
    size_t                *end;  /* told after each of ids */
    struct trace           trace;
    struct paint           paint;
};

static bool dry(const struct caption_state *s)
{
    return gv_device_is_null(s->run->device);
}

static void tell(struct caption_state *s, const char *stage, int64_t done, int64_t total)
{
    const struct caption_job *job = s->job;
    if (!job->progress || dry(s) || !gv_run_ready(s->run))
        return;
    gv_progress p = { sizeof p, stage, done, total, gv_now() - s->began };
    if (job->progress(job->user, &p))
        gv_fail(&s->run->err, GV_ERR_CANCELLED, "cancelled by the progress callback");
}

static void stage_end(struct caption_state *s, const char *name, double began)
{
    if (s->run->err.code == GV_OK)
        s->report->stage[s->report->n_stages++] = (struct caption_stage){ name, gv_now() - began };
}

static bool pin(struct caption_state *s, struct weights *w)
{
    const bool stream = s->job->residency.stream;
    return gv_run_ready(s->run) && !gv_weights_pin_unless(s->run->cancel, w, s->run->device, stream, &s->run->err);
}

static void unpin(struct caption_state *s, struct weights *w, bool pinned)
{
    if (pinned)
        gv_weights_unpin(w, s->run->device, s->job->residency.stream, s->job->residency.drop);
}

/* ---- stages ---- */

/* Steps that go through the tower together: enough to keep it busy, few enough to be small beside its weights. */
enum { CHUNK_VALUES = 1 << 24 };

static int chunk_of(const struct vlm_media *m)
{
    const int64_t n = CHUNK_VALUES / m->step_values;
    return n < 1 ? 1 : n < m->grid.t ? (int)n : m->grid.t;
}

/* The values of the next steps; NULL in a dry run, or when the run has failed. */
static float *read_steps(struct caption_state *s, struct caption_media *m, int steps)
{
    const struct vlm *v = s->job->model->vlm;
    if (dry(s) || !gv_run_ready(s->run))
        return NULL;
    float *values = malloc((size_t)(steps * m->media.step_values) * sizeof *values);
    if (!values)
        gv_run_fail(s->run, GV_ERR_MEMORY, "no memory for %d steps of %s", steps, m->path);
    for (int i = 0; i < steps && gv_run_ready(s->run); i++)
        gv_caption_media_read(m, v, values + i * m->media.step_values, &s->run->err);
    return values;
}

static void encode_media(struct caption_state *s, int i, int64_t *done)
{
    struct caption_media   *m = &s->job->media[i];
    const struct vlm_media *media = &m->media;
    const struct vlm       *v = s->job->model->vlm;
    const int               chunk = chunk_of(media);
    const struct importance_opts received = { 0 }, *importance = s->job->prunes   ? &s->job->prune.importance
                                                                 : s->job->paints ? &received
                                                                                  : NULL;
    s->features[i] = gv_scratch(s->run, GV_F32, 2, DIMS(media->tokens, v->width));
    if (importance && !dry(s) && !(s->score[i] = malloc((size_t)media->tokens * sizeof *s->score[i])))
        gv_run_fail(s->run, GV_ERR_MEMORY, "no memory for the importance of %lld tokens", (long long)media->tokens);
    for (int at = 0, n; at < media->grid.t && gv_run_ready(s->run); at += n) {
        n = media->grid.t - at < chunk ? media->grid.t - at : chunk;
        const int64_t first = at * media->step_tokens,
                      end = at + n == media->grid.t ? media->tokens : first + n * media->step_tokens;
        float *values = read_steps(s, m, n);
        if (gv_run_ready(s->run))
            v->model->encode(s->run, v, slice(s->features[i], 0, first, end - first), media,
                             (struct vlm_piece){ .first = at,
                                                 .steps = n,
                                                 .values = values,
                                                 .importance = importance,
                                                 .score = s->score[i] ? s->score[i] + first : NULL });
        free(values);
        *done += n;
        tell(s, "image", *done, s->job->steps);
    }
}

static void stage_image(struct caption_state *s)
{
    const struct caption_job *job = s->job;
    const struct vlm         *v = job->model->vlm;
    double                    began = gv_now();
    int64_t                   done = 0;
    tell(s, "image", 0, job->steps);
    bool pinned = pin(s, v->vision);
    for (int i = 0; i < job->n_media && gv_run_ready(s->run); i++)
        encode_media(s, i, &done);
    unpin(s, v->vision, pinned);
    stage_end(s, "image", began);
}

/* Where job->explain or job->paints want it: which tokens are pictures', memory for every row of the text, what is raised. */
static void watch(struct caption_state *s)
{
    const struct caption_job *job = s->job;
    const struct vlm         *v = job->model->vlm;
    bool                     *picture = malloc((size_t)job->n * sizeof *picture);
    if (!picture) {
        gv_run_fail(s->run, GV_ERR_MEMORY, "no memory to trace %lld tokens", (long long)job->n);
        return;
    }
    for (int64_t i = 0; i < job->n; i++)
        picture[i] = job->ids[i] == v->image_id || job->ids[i] == v->video_id;
    if (job->explain && !gv_trace_open(&s->trace, &GV_TRACE_OPTS, picture, job->n, job->max_tokens + 1, &s->run->err))
        s->state.lm.trace = &s->trace;
    if (job->paints && !gv_paint_open(&s->paint, picture, job->n, &s->run->err))
        s->state.lm.paint = &s->paint;
    for (int64_t i = 0, at = 0; job->paints && !dry(s) && i < job->n_media && gv_run_ready(s->run); at += job->plan[i++].tokens)
        gv_paint_raise(s->paint.raise + at, &job->paint, s->score[i], job->plan[i].tokens, &s->run->err);
    free(picture);
}

/* A tap: keeps the state that the first token's logits are made of. */
static void keep_state(void *user, struct run *r, const char *name, struct tensor x)
{
    if (!strcmp(name, "decoder.state")) {
        struct tensor f32 = gv_scratch(r, GV_F32, 2, x.dim);
        gv_copy(r, f32, x);
        gv_download(r, user, f32);
    }
}

/* The prompt as it is, or with fewer picture tokens. */
static void prefill(struct caption_state *s, const struct vlm_prompt *p)
{
    const struct caption_job *job = s->job;
    const struct vlm         *v = job->model->vlm;
    struct vlm_pruned         fewer = { .prompt = *p };
    if (job->prunes)
        gv_vlm_prune(s->run, v, &fewer, p, &job->prune, dry(s) ? NULL : (const float *const *)s->score);
    if (gv_run_ready(s->run) &&
        !gv_lm_state_open(&s->state.lm, s->run->device, fewer.prompt.n + job->max_tokens, &s->run->err)) {
        if (job->explain || job->paints)
            watch(s);
        s->state.lm.factor = job->factor;
        s->state.lm.factor_layers = job->factor_layers;
        gv_vlm_prefill(s->run, v, &s->state, &fewer.prompt, s->logits);
    }
    if (gv_run_ready(s->run) && job->recycle)
        gv_recycle_open(&s->state.lm.recycle, job->recycle, job->recycle_every, gv_lm_config(v->lm)->layers, &s->run->err);
    if (gv_run_ready(s->run) && job->pages)
        gv_pages_open(&s->state.lm.pages, job->pages, job->pages_every, gv_lm_config(v->lm)->layers, &s->run->err);
    memcpy(s->report->pruned, fewer.tokens, sizeof s->report->pruned);
    gv_sync(s->run);
    if (job->prunes)
        gv_vlm_pruned_free(&fewer);
}

/* What pruning changed: the first token's logits against those of the whole prompt, which is run once more for it. */
static void measure_drift(struct caption_state *s, const struct vlm_prompt *p)
{
    const struct vlm *v = s->job->model->vlm;
    struct vlm_state  whole = { 0 };
    struct mark       mark = arena_mark(&s->run->scratch);
    struct tensor     exact = gv_scratch(s->run, GV_F32, 2, DIMS(1, v->vocabulary));
    float            *host = malloc(2 * (size_t)v->vocabulary * sizeof *host), *pruned = host + v->vocabulary;
    if (!host)
        gv_run_fail(s->run, GV_ERR_MEMORY, "no memory for the logits of %d tokens", v->vocabulary);
    if (gv_run_ready(s->run) && !gv_lm_state_open(&whole.lm, s->run->device, p->n + s->job->max_tokens, &s->run->err))
        gv_vlm_prefill(s->run, v, &whole, p, exact);
    if (gv_run_ready(s->run)) {
        double ab = 0, aa = 0, bb = 0;
        gv_download(s->run, host, exact);
        gv_download(s->run, pruned, s->logits);
        for (int i = 0; i < v->vocabulary; i++) {
            ab += (double)host[i] * (double)pruned[i];
            aa += (double)host[i] * (double)host[i];
            bb += (double)pruned[i] * (double)pruned[i];
        }
        s->report->likeness = aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
        s->report->whole_bytes = gv_cache_bytes(whole.lm.cache);
    }
    if (whole.lm.cache)
        gv_lm_state_close(&whole.lm);
    free(host);
    arena_release(&s->run->scratch, mark);
}

static void stage_prompt(struct caption_state *s)
{
    const struct caption_job *job = s->job;
    const struct vlm         *v = job->model->vlm;
    const struct vlm_prompt   p = {
          .ids = job->ids, .n = job->n, .media = job->plan, .features = s->features, .n_media = job->n_media
    };
    double began = gv_now();
    tell(s, "prompt", 0, job->n);
    s->logits = gv_scratch(s->run, GV_F32, 2, DIMS(1, v->vocabulary));
    prefill(s, &p);
    if (s->state.lm.cache)
        s->report->kept_bytes = gv_cache_bytes(s->state.lm.cache);
    tell(s, "prompt", job->n, job->n);
    stage_end(s, "prompt", began);
    if (job->prunes && job->receipt)
        measure_drift(s, &p);
}

static bool is_replacement(const char *at)
{
    return !memcmp(at, "\xEF\xBF\xBD", 3);
}

/* Hand on what is new; with !last, not the replacement characters at its end, which further tokens may turn into a letter. */
static void hand_on(struct caption_state *s, bool last)
{
    const struct caption_job *job = s->job;
    char                     *text = gv_tokenizer_decode(job->model->tokenizer, s->ids, s->n);
    if (!text) {
        gv_run_fail(s->run, GV_ERR_MEMORY, "no memory for the text");
        return;
    }
    free(s->text);
    s->text = text;
    size_t end = strlen(text);
    while (!last && end >= s->told + 3 && is_replacement(text + end - 3))
        end -= 3;
    if (end > s->told && job->on_text && job->on_text(job->user, text + s->told, end - s->told))
        gv_fail(&s->run->err, GV_ERR_CANCELLED, "cancelled by the text callback");
    s->told = end > s->told ? end : s->told;
}

static bool next_token(struct caption_state *s)
{
    const struct vlm *v = s->job->model->vlm;
    gv_download(s->run, s->host, s->logits);
    if (!gv_run_ready(s->run))
        return false;
    int32_t id = gv_text_sampler_next(&s->sampler, s->host);
    if (gv_sample_stops(&v->sample, id)) {
        s->report->stopped = true;
        return false;
    }
    s->ids[s->n++] = id;
    hand_on(s, false);
    s->end[s->n - 1] = s->told;
    tell(s, "text", s->n, s->job->max_tokens);
    return s->n < s->job->max_tokens;
}

static void write_text(struct caption_state *s)
{
    const struct caption_job *job = s->job;
    const struct vlm         *v = job->model->vlm;
    s->host = malloc((size_t)v->vocabulary * sizeof *s->host);
    s->ids = malloc((size_t)job->max_tokens * sizeof *s->ids);
    s->end = malloc((size_t)job->max_tokens * sizeof *s->end);
    if (!s->host || !s->ids || !s->end) {
        gv_run_fail(s->run, GV_ERR_MEMORY, "no memory for a text of %d tokens", job->max_tokens);
        return;
    }
    if (!gv_run_ready(s->run) || gv_text_sampler_open(&s->sampler, v->vocabulary, &job->sample, &s->run->err))
        return;
    gv_text_sampler_see(&s->sampler, job->ids, job->n);
    while (next_token(s))
        gv_vlm_step(s->run, v, &s->state, s->ids[s->n - 1], s->logits);
    if (gv_run_ready(s->run))
        hand_on(s, true);
    if (s->n)
        s->end[s->n - 1] = s->told;
    s->report->tokens = s->n;
}

static void stage_text(struct caption_state *s)
{
    const struct vlm *v = s->job->model->vlm;
    double            began = gv_now();
    if (s->job->state && !dry(s))
        return;
    tell(s, "text", 0, s->job->max_tokens);
    if (dry(s) && gv_run_ready(s->run))
        gv_vlm_step(s->run, v, &s->state, 0, s->logits);
    else if (gv_run_ready(s->run))
        write_text(s);
    stage_end(s, "text", began);
}

static bool explained(void *user, int done, int total)
{
    struct caption_state *s = user;
    tell(s, "explain", done, total);
    return gv_run_ready(s->run);
}

static void stage_explain(struct caption_state *s)
{
    const struct caption_job *job = s->job;
    const double              began = gv_now();
    if (!job->explain || dry(s) || !gv_run_ready(s->run))
        return;
    gv_explain_write(&(struct explain){ .folder = job->explain,
                                        .text = s->text ? s->text : "",
                                        .end = s->end,
                                        .tokens = s->n,
                                        .media = job->media,
                                        .n_media = job->n_media,
                                        .trace = &s->trace,
                                        .step = explained,
                                        .user = s },
                     &s->run->err);
    stage_end(s, "explain", began);
}

static void run_stages(struct caption_state *s)
{
    struct weights  *decoder = s->job->model->vlm->decoder;
    const struct tap tap = { keep_state, s->job->state };
    s->run->tap = tap.user ? &tap : NULL;
    s->began = gv_now();
    stage_image(s);
    bool pinned = pin(s, decoder);
    stage_prompt(s);
    stage_text(s);
    unpin(s, decoder, pinned);
    stage_explain(s);
    if (s->state.lm.recycle.checks > 0)
        s->report->recycled = s->state.lm.recycle.mass / s->state.lm.recycle.checks;
    if (s->state.lm.pages.checks > 0) {
        s->report->paged = s->state.lm.pages.read / s->state.lm.pages.all;
        s->report->page_share = s->state.lm.pages.mass / s->state.lm.pages.checks;
    }
    s->report->seconds = gv_now() - s->began;
    s->run->tap = NULL;
    gv_lm_state_close(&s->state.lm);
    gv_text_sampler_close(&s->sampler);
    for (int i = 0; i < s->job->n_media; i++)
        free(s->score[i]);
    free(s->host);
    free(s->ids);
    free(s->end);
    gv_trace_close(&s->trace);
    gv_paint_close(&s->paint);
}

gv_status gv_pipeline_caption(struct caption_job *job, const atomic_bool *cancel, struct caption_report *report, char **text,
                              struct error *e)
{
    struct device       *d = job->model->engine->device;
    struct run           r;
    struct caption_state s = { .job = job, .run = &r, .report = report };
    gv_residency_make_room(job->model, report->peak_bytes);
    TRY(gv_run_open(&r, d, d->compute, report->scratch_bytes, e));
    r.cancel = cancel;
    r.stream_weights = job->residency.stream;
    run_stages(&s);
    gv_run_close(&r);
    if (r.err.code) {
        free(s.text);
        return gv_fail(e, r.err.code, "%s", r.err.text);
    }
    *text = s.text;
    return GV_OK;
}

/* ---- what a job will take ---- */

static gv_status dry_run(struct caption_job *job, struct caption_report *out, struct error *e)
{
    struct device       *real = job->model->engine->device, *null;
    struct run           r;
    struct caption_state s = { .job = job, .run = &r, .report = out };
    *out = (struct caption_report){ 0 };
    TRY(gv_device_null(&null, real, e));
    gv_run_open(&r, null, real->compute, 0, e);
    r.stream_weights = job->residency.stream;
    run_stages(&s);
    out->n_stages = 0;
    out->scratch_bytes = r.scratch.peak;
    out->peak_bytes = r.scratch.peak + atomic_load(&null->peak);
    gv_run_close(&r);
    gv_device_close(&null);
    return r.err.code ? gv_fail(e, r.err.code, "%s", r.err.text) : GV_OK;
}

gv_status gv_caption_plan(struct caption_job *job, struct caption_report *out, struct error *e)
{
    const struct device *d = job->model->engine->device;
    do {
        TRY(dry_run(job, out, e));
        if (gv_residency_fits(job->model, out->peak_bytes))
            return GV_OK;
    } while (gv_residency_smaller(&job->residency));
    return gv_fail(e, GV_ERR_MEMORY,
                   "%lld tokens of prompt and %d of text need %zu MiB even with streamed weights (%zu MiB scratch, %zu MiB "
                   "keys and values); "
                   "the budget of device %s is %zu MiB, %zu MiB are in use",
                   (long long)job->n, job->max_tokens, out->peak_bytes >> 20, out->scratch_bytes >> 20, out->kept_bytes >> 20,
                   d->name, d->budget >> 20, atomic_load(&d->in_use) >> 20);
}
