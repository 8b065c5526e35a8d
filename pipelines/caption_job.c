/* A caption request becomes a job: ranges, pictures to patches, the question to ids. Everything that can be refused is refused
 * here, before a weight is touched. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/caption.h"
#include "pipelines/chat.h"
#include "pipelines/pruning.h"
#include "vision/models.h"

enum { MAX_TOKENS = 1 << 20, PATH = 4096 };

/* ---- a model ---- */

gv_status gv_caption_model_open(gv_model *m, struct error *e)
{
    struct device *d = m->engine->device;
    snprintf(m->pipeline, sizeof m->pipeline, "caption");
    TRY(gv_vlm_open(&m->vlm, m->path, d, d->compute, e));
    TRY(gv_tokenizer_open(&m->tokenizer, m->path, e));
    if (gv_tokenizer_size(m->tokenizer) > m->vlm->vocabulary)
        return gv_fail(e, GV_ERR_MODEL, "%s: the tokenizer has %d pieces, the decoder %d: they do not belong together", m->path,
                       gv_tokenizer_size(m->tokenizer), m->vlm->vocabulary);
    return gv_chat_find(&m->chat, m->vlm, m->path, e);
}

/* ---- a job ---- */

static gv_status check_view(const gv_caption_request *q, struct error *e)
{
    if (!(q->fps == 0 || (q->fps >= 0.01 && q->fps <= 240)))
        return gv_fail(e, GV_ERR_ARGUMENT, "fps is %g; 0.01 to 240 are possible", q->fps);
    if (q->max_frames < 0)
        return gv_fail(e, GV_ERR_ARGUMENT, "max_frames is %d; 0 and more are possible", q->max_frames);
    if (q->picture_tokens < 0)
        return gv_fail(e, GV_ERR_ARGUMENT, "picture_tokens is %d; 0 and more are possible", q->picture_tokens);
    if (!(q->start >= 0) || !(q->end == 0 || q->end > q->start))
        return gv_fail(e, GV_ERR_ARGUMENT, "start %g and end %g are no section of a clip", q->start, q->end);
    return GV_OK;
}

static gv_status open_media(struct caption_job *job, const gv_caption_request *q, struct error *e)
{
    const struct caption_view view = { .wish = { q->fps, q->max_frames },
                                       .start = q->start,
                                       .end = q->end,
                                       .limit = q->picture_tokens,
                                       .alone = q->media_count == 1 };
    if (!q->media || q->media_count < 1 || q->media_count > GV_CAPTION_MEDIA)
        return gv_fail(e, GV_ERR_ARGUMENT, "media_count is %zu; 1 to %d pictures are possible", q->media ? q->media_count : 0,
                       GV_CAPTION_MEDIA);
    job->media = calloc(q->media_count, sizeof *job->media);
    job->plan = calloc(q->media_count, sizeof *job->plan);
    if (!job->media || !job->plan)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for %zu pictures", q->media_count);
    TRY(check_view(q, e));
    for (; job->n_media < (int)q->media_count; job->n_media++) {
        const struct caption_media *m = &job->media[job->n_media];
        if (!q->media[job->n_media])
            return gv_fail(e, GV_ERR_ARGUMENT, "media %d of the request is NULL", job->n_media + 1);
        TRY(gv_caption_media_open(&job->media[job->n_media], job->model->vlm, q->media[job->n_media], &view, e));
        job->plan[job->n_media] = m->media;
        job->picture_tokens += m->media.tokens;
        job->steps += m->media.grid.t;
        job->frames += m->media.frames;
    }
    return GV_OK;
}

static const char *default_question(const struct caption_job *job)
{
    if (job->n_media > 1)
        return "Describe these images.";
    return job->plan[0].video ? "Describe this video." : "Describe this image.";
}

static gv_status check_context(const struct caption_job *job, struct error *e)
{
    const int64_t longest = job->model->vlm->longest, all = job->n + job->max_tokens;
    if (all <= longest)
        return GV_OK;
    return gv_fail(
        e, GV_ERR_ARGUMENT,
        "%lld tokens of pictures, %lld of words around them and max_tokens %d are %lld tokens; the model was made for %lld",
        (long long)job->picture_tokens, (long long)(job->n - job->picture_tokens), job->max_tokens, (long long)all,
        (long long)longest);
}

static gv_status check_sampling(const gv_caption_request *q, struct error *e)
{
    struct text_sampler s;
    TRY(gv_text_sampler_open(
        &s, 1,
        &(struct sample_opts){
            .temperature = q->temperature, .top_k = q->top_k, .top_p = q->top_p, .repetition = q->repetition_penalty },
        e));
    gv_text_sampler_close(&s);
    return GV_OK;
}

/* What changes how pictures are attended to. */
static gv_status check_attention(struct caption_job *job, const gv_caption_request *q, struct error *e)
{
    if (!(q->paint >= 0 && q->paint <= 10) || !(q->paint_summary >= 0 && q->paint_summary <= 10))
        return gv_fail(e, GV_ERR_ARGUMENT, "paint is %g and paint_summary %g; 0 to 10 are possible", q->paint,
                       q->paint_summary);
    job->paints = q->paint > 0;
    job->paint = GV_PAINT_OPTS;
    job->paint.local = q->paint;
    if (q->paint_summary > 0)
        job->paint.summary = q->paint_summary;
    if (job->paints && (job->prunes || job->recycle || job->pages || job->explain))
        return gv_fail(
            e, GV_ERR_ARGUMENT,
            "paint needs every key of every layer and its own scores: it does not go with prune, recycle, pages or explain");
    if (!(q->picture_factor == 0 || (q->picture_factor >= 0.01 && q->picture_factor <= 100)) || q->picture_factor_layers < 0)
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "picture_factor is %g and picture_factor_layers %d; 0.01 to 100, and 0 and more are possible",
                       q->picture_factor, q->picture_factor_layers);
    job->factor = q->picture_factor;
    job->factor_layers = q->picture_factor_layers ? q->picture_factor_layers : 1;
    return GV_OK;
}

static gv_status fill(struct caption_job *job, const gv_caption_request *q, struct error *e)
{
    const struct vlm *v = job->model->vlm;
    if (q->max_tokens < 0 || q->max_tokens > MAX_TOKENS)
        return gv_fail(e, GV_ERR_ARGUMENT, "max_tokens is %d; 0 to %d are possible", q->max_tokens, MAX_TOKENS);
    TRY(check_sampling(q, e));
    job->max_tokens = q->max_tokens ? q->max_tokens : GV_CAPTION_TOKENS;
    job->sample = (struct sample_opts){ .temperature = q->temperature,
                                        .top_k = q->top_k,
                                        .top_p = q->top_p,
                                        .repetition = q->repetition_penalty > 0 ? q->repetition_penalty : v->sample.repetition,
                                        .seed = q->seed };
    job->prunes = q->prune && q->prune[0];
    job->receipt = q->prune_receipt;
    if (q->recycle < 0 || q->recycle_every < 0)
        return gv_fail(e, GV_ERR_ARGUMENT, "recycle is %d and recycle_every %d; 0 and more are possible", q->recycle,
                       q->recycle_every);
    job->recycle = q->recycle;
    job->recycle_every = q->recycle_every ? q->recycle_every : 50;
    if (q->pages < 0 || q->pages_every < 0 || (q->pages && q->recycle))
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "pages is %d, pages_every %d and recycle %d; 0 and more are possible, and one of pages and recycle",
                       q->pages, q->pages_every, q->recycle);
    job->pages = q->pages;
    job->pages_every = q->pages_every ? q->pages_every : 4;
    job->explain = q->explain;
    if (job->explain && (!job->explain[0] || job->prunes || job->recycle || job->pages))
        return gv_fail(e, GV_ERR_ARGUMENT, "explain %s",
                       job->explain[0] ? "needs every key of every layer: it does not go with prune, recycle or pages"
                                       : "is empty");
    TRY(check_attention(job, q, e));
    if (job->prunes)
        TRY(gv_pruning_find(&job->prune, &job->calibrated, job->model->path, q->prune, e));
    TRY(open_media(job, q, e));
    const char *question = q->question && q->question[0] ? q->question : default_question(job);
    TRY(gv_chat_prompt(&job->ids, &job->n, job->model->chat, v, job->model->tokenizer,
                       &(struct chat_question){ question, job->plan, job->n_media }, e));
    return check_context(job, e);
}

gv_status gv_caption_job_open(struct caption_job *job, const gv_caption_request *q, struct error *e)
{
    *job = (struct caption_job){ .on_text = q->on_text, .progress = q->progress, .user = q->user };
    if (!q->model)
        return gv_fail(e, GV_ERR_ARGUMENT, "model is missing");
    if (!q->model->vlm)
        return gv_fail(e, GV_ERR_ARGUMENT, "model is %s, which makes videos; captions need a vision-language model",
                       q->model->path);
    job->model = (gv_model *)(uintptr_t)q->model;
    gv_status status = fill(job, q, e);
    if (status)
        gv_caption_job_close(job);
    return status;
}

void gv_caption_job_close(struct caption_job *job)
{
    for (int i = 0; i < job->n_media; i++)
        gv_caption_media_close(&job->media[i]);
    free(job->media);
    free(job->plan);
    free(job->ids);
    *job = (struct caption_job){ 0 };
}
