/* A request becomes a job: defaults from the model, ranges, the picture, the tokens. Everything that can be refused is refused
 * here, before a weight is touched. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/image.h"
#include "io/text_clean.h"
#include "pipelines/options.h"
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
    double                       area = (double)d->width * d->height, ratio = (double)d->width / d->height;
    int                          grid = pixels_per_token(job->model);
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
        gv_log(&job->model->engine->log, GV_LOG_WARN, "%d frames are not %d·n + 1: %d frames are made", wanted, scale,
               job->frames);
    job->latent_frames = (job->frames - 1) / scale + 1;
    job->latent_height = job->height / job->model->vae->space_scale;
    job->latent_width = job->width / job->model->vae->space_scale;
    const int     window = job->causal.window; /* a clip that is made through a window may be of any length */
    const int64_t seen = window && window < job->latent_frames ? window : job->latent_frames;
    const int64_t tokens = seen * (job->height / pixels_per_token(job->model)) * (job->width / pixels_per_token(job->model));
    if (job->last.rgb && job->latent_frames < 2)
        return gv_fail(e, GV_ERR_ARGUMENT, "%d frames have no room for a last picture; %d and more have", job->frames,
                       scale + 1);
    if (tokens > MAX_TOKENS)
        return gv_fail(e, GV_ERR_ARGUMENT, "%d frames of %dx%d are %lld tokens that see each other; %d are possible",
                       job->frames, job->width, job->height, (long long)tokens, MAX_TOKENS);
    if (job->latent_frames % job->model->dit->config.patch[0])
        return gv_fail(e, GV_ERR_ARGUMENT, "%d frames are %lld latent frames, not a multiple of the model's patch of %d",
                       job->frames, (long long)job->latent_frames, job->model->dit->config.patch[0]);
    return GV_OK;
}

/* ---- solver ---- */

struct solver_choice {
    const char *solver, *schedule;
    int         order;
};
static const struct solver_choice choices[] = {
    { "unipc", "diffusers-unipc", 2 },
    { "dpm++", "diffusers-dpm", 2 },
    { "euler", "flow-match-euler", 1 },
};

/* Published causal models whose checkpoints do not say what they are. window counts latent frames, sink lies inside it. */
struct causal_preset {
    const char   *name;
    struct causal causal;
    int           steps;
    double        shift;
    const char   *schedule;
};
static const struct causal_preset presets[] = {
    { "self-forcing", { .block = 3 }, 4, 5, "self-forcing" },                      /* configs/self_forcing_dmd.yaml */
    { "causvid", { .block = 3 }, 3, 8, "causvid" },                                /* configs/wan_causal_dmd.yaml */
    { "longlive", { .block = 3, .window = 12, .sink = 3 }, 4, 5, "self-forcing" }, /* configs/longlive_inference.yaml */
};

/* What "causal" asks for; *out stays as it is where it is off. */
static gv_status causal_of(const gv_model *m, const char *value, struct causal_preset *out, struct error *e)
{
    const struct video_defaults *d = &m->defaults;
    if (!value || !strcmp(value, "off"))
        return GV_OK;
    if (!strcmp(value, "on")) {
        if (!d->causal_block)
            return gv_fail(e, GV_ERR_ARGUMENT,
                           "causal: %s/genvid.json says nothing of it; name a preset: self-forcing, causvid, longlive",
                           m->path);
        *out = (struct causal_preset){
            "on", { d->causal_block, d->causal_window, d->causal_sink }, d->causal_steps, d->shift, "self-forcing"
        };
        return GV_OK;
    }
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, value)) {
            *out = presets[i];
            return GV_OK;
        }
    return gv_fail(e, GV_ERR_ARGUMENT, "causal is \"%s\"; off, on, self-forcing, causvid and longlive are possible", value);
}

static gv_status settle_causal(struct video_job *job, const struct causal_preset *p, struct error *e)
{
    const struct causal *c = &p->causal;
    if (c->window && c->window < c->block + c->sink)
        return gv_fail(e, GV_ERR_MODEL, "causal: a window of %d latent frames does not hold a block of %d and a sink of %d",
                       c->window, c->block, c->sink);
    if (job->model->dit->config.in_channels != job->model->vae->z)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "causal: a model that takes its picture as channels does not generate causally");
    if (job->model->dit->config.patch[0] != 1)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "causal: the model's patches span %d latent frames",
                       job->model->dit->config.patch[0]);
    job->causal = *c;
    return GV_OK;
}

static gv_status choose_solver(struct video_job *job, const char *name, struct error *e)
{
    if (!name || !strcmp(name, job->sampler.solver))
        return GV_OK;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (!strcmp(choices[i].solver, name)) {
            job->sampler = (struct sampler_config){ .solver = choices[i].solver, .order = choices[i].order };
            job->schedule_name = choices[i].schedule;
            return GV_OK;
        }
    return gv_fail(e, GV_ERR_ARGUMENT, "solver is \"%s\"; unipc, dpm++ and euler are possible", name);
}

/* Whose rules: pictures, and the grid of a solver that both code bases have. */
static gv_status settle_compat(struct video_job *job, const char *value, struct error *e)
{
    static const char *const pairs[][2] = { { "diffusers-unipc", "wan-unipc" }, { "diffusers-dpm", "wan-dpm" } };
    job->wan_rules = job->model->wan_rules;
    if (!value)
        return GV_OK;
    if (strcmp(value, "wan") && strcmp(value, "diffusers"))
        return gv_fail(e, GV_ERR_ARGUMENT, "option \"compat\" is \"%.64s\"; wan and diffusers are possible", value);
    job->wan_rules = !strcmp(value, "wan");
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (!strcmp(job->schedule_name, pairs[i][!job->wan_rules]))
            job->schedule_name = pairs[i][job->wan_rules];
    return GV_OK;
}

static gv_status settle_solver(struct video_job *job, const gv_video_request *q, struct error *e)
{
    const gv_model      *m = job->model;
    const char          *schedule = gv_option_value(q, "schedule");
    struct causal_preset preset = { .steps = m->defaults.steps, .shift = m->defaults.shift };
    job->sampler = m->sampler;
    job->schedule_name = m->schedule;
    TRY(causal_of(m, gv_option_value(q, "causal"), &preset, e));
    if (preset.causal.block) {
        TRY(settle_causal(job, &preset, e));
        job->sampler = (struct sampler_config){ .solver = "renoise", .order = 1 };
        job->schedule_name = preset.schedule;
    }
    TRY(choose_solver(job, q->solver, e));
    TRY(settle_compat(job, gv_option_value(q, "compat"), e));
    if (schedule)
        job->schedule_name = schedule;
    job->steps = q->steps ? q->steps : preset.steps;
    const struct video_defaults *d = &m->defaults;
    if (d->shift_480p > 0 && job->width * job->height == 832 * 480 && preset.shift == d->shift)
        preset.shift = d->shift_480p;
    job->shift = q->shift != 0 ? q->shift : preset.shift;
    TRY(in_range("steps", job->steps, 1, GV_MAX_STEPS, e));
    TRY(in_range("shift", job->shift, 0.01, 100, e));
    return gv_schedule_build(&job->schedule, job->schedule_name, job->steps, job->shift, e);
}

/* ---- words and picture ---- */

static gv_status settle_prompt(struct video_job *job, const char *text, char **clean, struct prompt *out, const char *field,
                               struct error *e)
{
    const gv_model *m = job->model;
    char           *known;
    int             cut = 0, room = m->defaults.text_length < GV_MAX_TEXT ? m->defaults.text_length : GV_MAX_TEXT;
    text = text ? text : "";
    if (strlen(text) > GV_TEXT_BYTES)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s has %zu bytes; %d are possible", field, strlen(text), GV_TEXT_BYTES);
    TRY(gv_text_clean(text, clean, e));
    TRY(gv_vocabulary_read(m->vocabulary, field, *clean, &known, &m->engine->log, e));
    gv_status status = gv_tokenizer_encode(m->tokenizer, known, true, out->ids, room, &out->n, &cut, e);
    free(known);
    if (status)
        return status;
    if (cut)
        gv_log(&m->engine->log, GV_LOG_WARN, "%s is %d tokens too long for this model's %d: its end is not read", field, cut,
               room);
    return GV_OK;
}

/* A last picture enters as channels; a model that looks at pictures with CLIP has to have a place for the second one. */
static gv_status check_last(const gv_model *m, const gv_video_request *q, struct error *e)
{
    const struct dit_config *c = &m->dit->config;
    if (c->image_tokens && q->first_image && !q->last_image)
        return gv_fail(e, GV_ERR_ARGUMENT, "last_image is missing: %s makes video between two pictures", m->path);
    if (!q->last_image)
        return GV_OK;
    if (c->in_channels == m->vae->z || (c->image_dim && !c->image_tokens))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "last_image: %s does not take a last frame", m->path);
    if (!q->first_image)
        return gv_fail(e, GV_ERR_ARGUMENT, "last_image comes without first_image");
    return GV_OK;
}

static gv_status settle_picture(struct video_job *job, const gv_video_request *q, struct error *e)
{
    const gv_model *m = job->model;
    bool            by_channels = m->dit->config.in_channels != m->vae->z;
    TRY(check_last(m, q, e));
    if (!q->first_image)
        return by_channels ? gv_fail(e, GV_ERR_ARGUMENT, "first_image is missing: %s makes video from a picture", m->path)
                           : GV_OK;
    if (!by_channels && !m->known_first)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "first_image: %s makes video from text alone", m->path);
    TRY(gv_image_read(&job->first, q->first_image, e));
    if (!q->last_image)
        return GV_OK;
    TRY(gv_image_read(&job->last, q->last_image, e));
    const struct image *a = &job->first, *b = &job->last;
    if (fabs((double)a->width * b->height / ((double)a->height * b->width) - 1) > 0.01)
        gv_log(&m->engine->log, GV_LOG_WARN,
               "last_image (%dx%d) has other proportions than first_image (%dx%d): it is stretched", b->width, b->height,
               a->width, a->height);
    return GV_OK;
}

/* torch's numbers come as one draw of the whole clip; a causal render has no such thing. */
static gv_status settle_noise(struct video_job *job, const char *name, struct error *e)
{
    if (!gv_noise_mode(&job->noise, &job->noise_grid, name))
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "noise is \"%.64s\"; genvid, torch-cpu, torch-cuda and torch-cuda:SMSxTHREADS (132x2048) are possible",
                       name);
    if (job->noise != NOISE_GENVID && job->causal.block)
        return gv_fail(e, GV_ERR_UNSUPPORTED,
                       "noise: a causal render draws noise block by block, and torch's is one draw of a clip");
    return GV_OK;
}

static gv_status settle_options(const gv_video_request *q, struct error *e)
{
    TRY(gv_options_check(q, e));
    const char *hash = gv_option_value(q, "hash");
    if (hash && strcmp(hash, "quick") && strcmp(hash, "full"))
        return gv_fail(e, GV_ERR_ARGUMENT, "option \"hash\" is \"%.64s\"; quick and full are possible", hash);
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
    job->preview_every = q->on_frame ? q->preview_every : 0;
    gv_status status = settle_options(q, e);
    if (!status)
        status = in_range("preview_every", q->preview_every, 0, GV_MAX_STEPS, e);
    if (!status)
        status = in_range("fps", job->fps, 0.1, 240, e);
    if (!status)
        status = in_range("guidance", job->guidance, 0, 100, e);
    if (!status)
        status = settle_solver(job, q, e);
    if (!status)
        status = settle_noise(job, q->noise, e);
    if (!status)
        status = settle_picture(job, q, e);
    if (!status)
        status = settle_size(job, q, e);
    if (!status)
        status = settle_length(job, q, e);
    if (!status)
        status = gv_shortcuts_settle(job, q, e);
    if (!status)
        status = settle_prompt(job, q->prompt, &job->prompt_text, &job->prompt, "prompt", e);
    if (!status)
        status = settle_prompt(job, job->guidance == 1 ? NULL : q->negative_prompt, &job->negative_text, &job->negative,
                               "negative_prompt", e);
    if (status)
        gv_video_job_close(job);
    return status;
}

void gv_video_job_close(struct video_job *job)
{
    free(job->prompt_text);
    free(job->negative_text);
    job->prompt_text = job->negative_text = NULL;
    gv_shortcuts_free(&job->shortcuts);
    gv_image_free(&job->first);
    gv_image_free(&job->last);
}
