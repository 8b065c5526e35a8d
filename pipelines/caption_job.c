/* A caption request becomes a job: ranges, pictures to patches, the question to ids. Everything that can be refused is refused
 * here, before a weight is touched. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/image.h"
#include "pipelines/caption.h"
#include "pipelines/chat.h"
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
    return gv_chat_check(m->path, e);
}

/* ---- a job ---- */

static gv_status read_picture(struct caption_job *job, const char *path, struct vlm_media *out, struct error *e)
{
    const struct patch_config *c = &job->model->vlm->patch;
    struct image               im = { 0 };
    if (!path)
        return gv_fail(e, GV_ERR_ARGUMENT, "media %d of the request is NULL", job->n_media + 1);
    TRY(gv_image_read(&im, path, e));
    gv_status status = gv_picture_grid(c, im.height, im.width, &out->grid, e);
    if (!status) {
        float *rows = malloc((size_t)(grid_patches(out->grid) * patch_values(c)) * sizeof *rows);
        out->patches = rows;
        status = rows ? gv_picture_patches(c, &im, out->grid, rows, e)
                      : gv_fail(e, GV_ERR_MEMORY, "%s: no memory for its patches", path);
    }
    gv_image_free(&im);
    return status;
}

static gv_status read_media(struct caption_job *job, const gv_caption_request *q, struct error *e)
{
    if (!q->media || q->media_count < 1 || q->media_count > GV_CAPTION_MEDIA)
        return gv_fail(e, GV_ERR_ARGUMENT, "media_count is %zu; 1 to %d pictures are possible", q->media ? q->media_count : 0,
                       GV_CAPTION_MEDIA);
    if (!(job->media = calloc(q->media_count, sizeof *job->media)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for %zu pictures", q->media_count);
    for (size_t i = 0; i < q->media_count; i++) {
        struct vlm_media *m = &job->media[job->n_media];
        gv_status         status = read_picture(job, q->media[i], m, e);
        job->n_media++; /* its patches are there to be freed */
        if (status)
            return status;
        job->picture_tokens += vlm_tokens(job->model->vlm, m->grid);
    }
    return GV_OK;
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
    TRY(read_media(job, q, e));
    const char *question = q->question && q->question[0] ? q->question
                           : job->n_media > 1            ? "Describe these images."
                                                         : "Describe this image.";
    TRY(gv_chat_prompt(&job->ids, &job->n, v, job->model->tokenizer, question, job->media, job->n_media, e));
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
        free((void *)(uintptr_t)job->media[i].patches);
    free(job->media);
    free(job->ids);
    *job = (struct caption_job){ 0 };
}
