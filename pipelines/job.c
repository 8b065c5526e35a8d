/* A request becomes a job: defaults from the model, ranges, the picture, the tokens. Everything that can be refused is refused
 * here, before a weight is touched. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/image.h"
#include "io/text_clean.h"
#include "pipelines/video.h"

enum { MAX_SIDE = 16384, MAX_FRAMES = 100000, MAX_TOKENS = 1 << 22 };

static gv_status in_range(const char *field, double v, double lo, double hi, struct error *e)
{
    if (v >= lo && v <= hi)
        return GV_OK;
    return gv_fail(e, GV_ERR_ARGUMENT, "%s is %.10g; %.10g to %.10g are possible", field, v, lo, hi);
}

/* ---- size and length ---- */

static int pixels_per_token(const gv_model *m)
{
    return m->vae->space_scale * m->dit->config.patch[1];
}

static int rounded(double side, int grid)
{
    int n = (int)(side / grid + 0.5) * grid;
    return n < grid ? grid : n;
}

/* Neither given: the model's own, or its area in the picture's proportions. One given: the other follows them. */
static void fill_size(struct video_job *job, int w, int h)
{
    const struct video_defaults *d = &job->model->defaults;
    double area = (double)d->width * d->height, ratio = (double)d->width / d->height;
    int    grid = pixels_per_token(job->model);
    if (job->first.rgb)
        ratio = (double)job->first.width / job->first.height;
    if (w && h) {
        job->width = w, job->height = h;
        return;
    }
    double wide = w ? w : h ? h * ratio : sqrt(area * ratio);
    job->width = w ? w : rounded(wide, grid);
    job->height = h ? h : rounded(wide / ratio, grid);
}

static gv_status settle_size(struct video_job *job, const gv_video_request *q, struct error *e)
{
    const struct log *log = &job->model->engine->log;
    int               grid = pixels_per_token(job->model);
    TRY(in_range("width", q->width, 0, MAX_SIDE, e));
    TRY(in_range("height", q->height, 0, MAX_SIDE, e));
    fill_size(job, q->width, q->height);
    int w = rounded(job->width, grid), h = rounded(job->height, grid);
    if (w != job->width || h != job->height)
        gv_log(log, GV_LOG_WARN, "size %dx%d is not a multiple of %d: %dx%d is made", job->width, job->height, grid, w, h);
    job->width = w, job->height = h;
    TRY(in_range("width", w, grid, MAX_SIDE, e));
    return in_range("height", h, grid, MAX_SIDE, e);
}

/* The grid of frames is time_scale · n + 1. */
static gv_status settle_length(struct video_job *job, const gv_video_request *q, struct error *e)
{
    int scale = job->model->vae->time_scale, wanted = q->frames ? q->frames : job->model->defaults.frames;
    TRY(in_range("frames", q->frames, 0, MAX_FRAMES, e));
    job->frames = (wanted - 1) / scale * scale + 1;
    if (wanted - job->frames > scale / 2)
        job->frames += scale;
    if (job->frames != wanted)
        gv_log(&job->model->engine->log, GV_LOG_WARN, "%d frames are not %d·n + 1: %d frames are made", wanted, scale, job->frames);
    job->latent_frames = (job->frames - 1) / scale + 1;
    job->latent_height = job->height / job->model->vae->space_scale;
    job->latent_width = job->width / job->model->vae->space_scale;
    int64_t tokens = job->latent_frames * (job->height / pixels_per_token(job->model)) * (job->width / pixels_per_token(job->model));
    if (tokens > MAX_TOKENS)
        return gv_fail(e, GV_ERR_ARGUMENT, "%d frames of %dx%d are %lld tokens; %d are possible", job->frames, job->width, job->height,
                       (long long)tokens, MAX_TOKENS);
    if (job->latent_frames % job->model->dit->config.patch[0])
        return gv_fail(e, GV_ERR_ARGUMENT, "%d frames are %lld latent frames, not a multiple of the model's patch of %d", job->frames,
                       (long long)job->latent_frames, job->model->dit->config.patch[0]);
    return GV_OK;
}

/* ---- solver ---- */

struct solver_choice {
    const char *solver, *schedule;
    int         order;
};
static const struct solver_choice choices[] = { { "unipc", "diffusers-unipc", 2 }, { "dpm++", "diffusers-dpm", 2 }, { "euler", "flow-match-euler", 1 } };

static gv_status settle_solver(struct video_job *job, const gv_video_request *q, struct error *e)
{
    const gv_model *m = job->model;
    job->steps = q->steps ? q->steps : m->defaults.steps;
    job->shift = q->shift != 0 ? q->shift : m->defaults.shift;
    TRY(in_range("steps", job->steps, 1, GV_MAX_STEPS, e));
    TRY(in_range("shift", job->shift, 0.01, 100, e));
    job->sampler = m->sampler;
    strcpy(job->schedule_name, m->schedule);
    if (q->solver && strcmp(q->solver, m->sampler.solver)) {
        size_t i = 0;
        while (i < sizeof choices / sizeof *choices && strcmp(choices[i].solver, q->solver))
            i++;
        if (i == sizeof choices / sizeof *choices)
            return gv_fail(e, GV_ERR_ARGUMENT, "solver is \"%s\"; unipc, dpm++ and euler are possible", q->solver);
        job->sampler = (struct sampler_config){ .solver = choices[i].solver, .order = choices[i].order };
        strcpy(job->schedule_name, choices[i].schedule);
    }
    return gv_schedule_build(&job->schedule, job->schedule_name, job->steps, job->shift, e);
}

/* ---- words and picture ---- */

static gv_status settle_prompt(struct video_job *job, const char *text, char **clean, struct prompt *out, const char *field, struct error *e)
{
    const gv_model *m = job->model;
    int             cut = 0, room = m->defaults.text_length < GV_MAX_TEXT ? m->defaults.text_length : GV_MAX_TEXT;
    text = text ? text : "";
    if (strlen(text) > GV_TEXT_BYTES)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s has %zu bytes; %d are possible", field, strlen(text), GV_TEXT_BYTES);
    TRY(gv_text_clean(text, clean, e));
    TRY(gv_tokenizer_encode(m->tokenizer, *clean, true, out->ids, room, &out->n, &cut, e));
    if (cut)
        gv_log(&m->engine->log, GV_LOG_WARN, "%s is %d tokens too long for this model's %d: its end is not read", field, cut, room);
    return GV_OK;
}

static gv_status settle_picture(struct video_job *job, const gv_video_request *q, struct error *e)
{
    const gv_model *m = job->model;
    if (q->last_image)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "last_image: this model does not take a last frame");
    bool by_channels = m->dit->config.in_channels != m->vae->z;
    if (!q->first_image)
        return by_channels ? gv_fail(e, GV_ERR_ARGUMENT, "first_image is missing: %s makes video from a picture", m->path) : GV_OK;
    if (!by_channels && !m->known_first)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "first_image: %s makes video from text alone", m->path);
    return gv_image_read(&job->first, q->first_image, e);
}

static gv_status settle_options(const gv_video_request *q, struct error *e)
{
    if (q->option_count && !q->options)
        return gv_fail(e, GV_ERR_ARGUMENT, "option_count is %zu and options is missing", q->option_count);
    for (size_t i = 0; i < q->option_count; i++) { /* the sink reads "format"; the shipped models have none */
        if (!q->options[i].name)
            return gv_fail(e, GV_ERR_ARGUMENT, "options[%zu] has no name", i);
        if (strcmp(q->options[i].name, "format"))
            return gv_fail(e, GV_ERR_ARGUMENT, "this model has no option called \"%s\"", q->options[i].name);
        if (!q->options[i].value)
            return gv_fail(e, GV_ERR_ARGUMENT, "option \"%s\" has no value", q->options[i].name);
    }
    if (q->noise && strcmp(q->noise, "genvid"))
        return gv_fail(e, GV_ERR_ARGUMENT, "noise is \"%s\"; genvid is possible", q->noise);
    if (q->view != GV_VIEW_FLAT)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "view: this model makes flat video alone");
    return GV_OK;
}

gv_status gv_video_job_open(struct video_job *job, const gv_video_request *q, struct error *e)
{
    memset(job, 0, sizeof *job);
    if (!q->model)
        return gv_fail(e, GV_ERR_ARGUMENT, "model is missing from the request");
    if (!q->prompt)
        return gv_fail(e, GV_ERR_ARGUMENT, "prompt is missing from the request; \"\" is possible");
    gv_model *m = job->model = (gv_model *)(uintptr_t)q->model; /* weights are pinned, which changes nothing a caller sees */
    job->fps = q->fps != 0 ? q->fps : m->defaults.fps;
    job->guidance = q->guidance < 0 ? m->defaults.guidance : q->guidance;
    job->seed = q->seed;
    job->on_frame = q->on_frame;
    job->progress = q->progress;
    job->user = q->user;
    gv_status status = settle_options(q, e);
    if (!status)
        status = in_range("fps", job->fps, 0.1, 240, e);
    if (!status)
        status = in_range("guidance", job->guidance, 0, 100, e);
    if (!status)
        status = settle_solver(job, q, e);
    if (!status)
        status = settle_picture(job, q, e);
    if (!status)
        status = settle_size(job, q, e);
    if (!status)
        status = settle_length(job, q, e);
    if (!status)
        status = settle_prompt(job, q->prompt, &job->prompt_text, &job->prompt, "prompt", e);
    if (!status)
        status = settle_prompt(job, job->guidance == 1 ? NULL : q->negative_prompt, &job->negative_text, &job->negative, "negative_prompt", e);
    if (status)
        gv_video_job_close(job);
    return status;
}

void gv_video_job_close(struct video_job *job)
{
    free(job->prompt_text);
    free(job->negative_text);
    job->prompt_text = job->negative_text = NULL;
    gv_image_free(&job->first);
}
