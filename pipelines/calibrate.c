/* genvid calibrate: every prompt is rendered exactly up to its last latents, and what its attention does is counted
 * (attention/survey.h). Nothing is decoded. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/survey.h"
#include "pipelines/calibration.h"
#include "pipelines/video.h"

static const char *const some_prompts[] = {
    "a person walks down a street in the rain",
    "a close view of a bird on a branch",
    "waves roll onto a beach at sunset",
    "a red car drives through the mountains",
    "a dog runs over grass",
};

struct calibrating {
    gv_session                 *session;
    const gv_calibrate_request *q;
    int                         prompts;
    struct attn_survey          survey;
    double                     *ratio; /* [steps] sums; NULL: not measured */
    struct calibration          found;
    int                         steps;
    bool                        causal;
    const char                 *model;
};

static const char *prompt_of(const struct calibrating *c, int i)
{
    return c->q->prompt_count ? c->q->prompts[i] : some_prompts[i];
}

static gv_status open_job(struct calibrating *c, struct video_job *job, int i)
{
    gv_video_request q = *c->q->video;

    q.prompt = prompt_of(c, i);
    q.seed = c->q->video->seed + (uint64_t)i;
    q.output_path = NULL;
    TRY(gv_video_job_open(job, &q, &c->session->error));
    if (job->model->engine == c->session->engine && !gv_shortcuts_on(&job->shortcuts)) {
        job->on_frame = NULL;
        return GV_OK;
    }
    const bool ours = job->model->engine == c->session->engine;
    gv_video_job_close(job);
    return gv_fail(&c->session->error, GV_ERR_ARGUMENT,
                   ours ? "calibration renders exactly: attention and cache must be off" : "model belongs to another engine");
}

static gv_status begin(struct calibrating *c, const struct video_job *job, struct error *e)
{
    const struct dit_config *d = &job->model->dit->config;
    struct calibration      *found = &c->found;
    struct survey_shape      shape = { .steps = job->steps,
                                       .layers = d->layers,
                                       .heads = d->heads,
                                       .mass = c->q->mass > 0 ? c->q->mass : 0.9,
                                       .cosine = c->q->cosine != 0 ? c->q->cosine : 0.85,
                                       .lse = c->q->lse > 0 ? c->q->lse : 0.05 };

    c->causal = job->causal.block > 0;
    c->steps = job->steps;
    c->model = job->model->path;
    found->attention =
        (struct attn_calibration){ .steps = job->steps,
                                   .layers = d->layers,
                                   .heads = d->heads,
                                   .grid = { (int)job->latent_frames / d->patch[0], (int)job->latent_height / d->patch[1],
                                             (int)job->latent_width / d->patch[2] },
                                   .passes = c->causal ? job->steps + 1 : 0 };
    const int    *g = found->attention.grid;
    const int64_t tokens = (int64_t)g[0] * g[1] * g[2];
    if (!c->causal) {
        found->attention.tiles = shape.tiles = (int)((tokens + GV_TILE_Q - 1) / GV_TILE_Q);
        found->attention.blocks = shape.blocks = (int)((tokens + GV_KV_BLOCK - 1) / GV_KV_BLOCK);
        c->ratio = calloc((size_t)job->steps, sizeof *c->ratio);
        if (!c->ratio)
            return gv_fail(e, GV_ERR_MEMORY, "no memory for a calibration");
    }
    return gv_survey_open(&c->survey, &shape, e);
}

/* A prompt's render, up to its last latents. */
static gv_status look(struct calibrating *c, int i)
{
    struct video_job    job;
    struct video_report report;
    struct error       *e = &c->session->error;

    TRY(open_job(c, &job, i));
    gv_status status = i ? GV_OK : begin(c, &job, e);
    job.shortcuts.survey = &c->survey;
    job.shortcuts.measured = c->ratio;
    job.shortcuts.samples = 0;
    job.stop_after = job.steps;
    if (!status)
        status = gv_video_plan(&job, &report, e);
    if (!status)
        status = gv_pipeline_video(&job, &c->session->cancel, &report, e);
    gv_video_job_close(&job);
    return status;
}

/* ---- what came of it ---- */

static gv_status sum_up(struct calibrating *c, struct error *e)
{
    struct calibration      *f = &c->found;
    struct attn_calibration *a = &f->attention;
    const size_t             sites = (size_t)a->layers * (size_t)a->heads;

    if (c->causal) {
        f->fresh = malloc((size_t)a->passes * sites);
        if (!f->fresh)
            return gv_fail(e, GV_ERR_MEMORY, "no memory for a calibration");
        gv_survey_fresh(&c->survey, f->fresh);
        return GV_OK;
    }
    f->bitmap = malloc((size_t)a->steps * sites * (size_t)a->tiles * (size_t)((a->blocks + 31) / 32) * sizeof *f->bitmap);
    if (!f->bitmap)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a calibration");
    gv_survey_bitmap(&c->survey, f->bitmap);
    for (int i = 0; i < c->steps; i++)
        c->ratio[i] = i ? c->ratio[i] / c->prompts : 1; /* the first step has none before it */
    f->ratio = c->ratio;
    f->n_ratio = c->steps;
    return GV_OK;
}

static double share_of_bits(const struct calibrating *c)
{
    const struct attn_calibration *a = &c->found.attention;
    const int64_t                  rows = (int64_t)a->steps * a->layers * a->heads * a->tiles, words = (a->blocks + 31) / 32;
    double                         set = 0;

    for (int64_t i = 0; i < rows * words; i++)
        for (uint32_t w = c->found.bitmap[i]; w; w &= w - 1)
            set++;
    return set / ((double)rows * a->blocks);
}

/* Of the passes behind a block's first. */
static double share_of_heads(const struct calibrating *c)
{
    const struct attn_calibration *a = &c->found.attention;
    const int                      sites = a->layers * a->heads;
    double                         set = 0;

    for (int i = sites; i < a->passes * sites; i++)
        set += c->found.fresh[i];
    return set / ((double)(a->passes - 1) * sites);
}

/* What there is to gain, by layer: survey.h. */
static void put_structure(json_t *o, const struct calibrating *c)
{
    json_t *layers = json_array();

    for (int i = 0; i < c->found.attention.layers; i++) {
        double held[GV_SURVEY_SHARES], history, own;
        gv_survey_held(&c->survey, i, held);
        gv_survey_like(&c->survey, i, &history, &own);
        json_array_append_new(layers, c->causal ? json_pack("{s:f, s:f}", "history_cosine", history, "own_cosine", own)
                                                : json_pack("{s:[f, f, f]}", "held", held[0], held[1], held[2]));
    }
    json_object_set_new(o, "layers", layers);
}

static char *result(const struct calibrating *c, const char *path)
{
    json_t *o = json_pack("{s:s, s:i}", "path", path, "prompts", c->prompts);

    if (c->found.bitmap)
        json_object_set_new(o, "density", json_real(share_of_bits(c)));
    if (c->found.fresh)
        json_object_set_new(o, "fresh_heads", json_real(share_of_heads(c)));
    if (c->found.ratio) {
        json_t *ratios = json_array();
        for (int i = 0; i < c->found.n_ratio; i++)
            json_array_append_new(ratios, json_real(c->found.ratio[i]));
        json_object_set_new(o, "ratios", ratios);
    }
    if (o)
        put_structure(o, c);
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(o);
    return text;
}

static gv_status check(const gv_calibrate_request *q, struct error *e)
{
    if (!q->video || (q->prompt_count && !q->prompts) || q->prompt_count > 1000)
        return gv_fail(e, GV_ERR_ARGUMENT, "calibration: video is missing, or prompts are; up to 1000 are possible");
    if (!(q->mass >= 0 && q->mass <= 1))
        return gv_fail(e, GV_ERR_ARGUMENT, "mass is %g; 0 to 1 are possible", q->mass);
    if (!(q->cosine >= -1 && q->cosine <= 1) || !(q->lse >= 0))
        return gv_fail(e, GV_ERR_ARGUMENT, "cosine is %g and lse %g; -1 to 1, and 0 and more are possible", q->cosine, q->lse);
    return GV_OK;
}

gv_status gv_calibrate_job(gv_session *s, const gv_calibrate_request *q, char **json)
{
    struct calibrating c = { .session = s, .q = q };
    char               path[4200];

    *json = NULL;
    TRY(check(q, &s->error));
    c.prompts = q->prompt_count ? (int)q->prompt_count : (int)(sizeof some_prompts / sizeof *some_prompts);
    gv_status status = GV_OK;
    for (int i = 0; i < c.prompts && !status; i++)
        status = look(&c, i);
    if (!status)
        status = sum_up(&c, &s->error);
    if (!status)
        status = gv_calibration_write(&c.found, c.model, path, sizeof path, &s->error);
    if (!status && !(*json = result(&c, path)))
        status = gv_fail(&s->error, GV_ERR_MEMORY, "no memory for the result");
    gv_survey_close(&c.survey);
    free(c.ratio);
    free(c.found.bitmap);
    free(c.found.fresh);
    return status;
}
