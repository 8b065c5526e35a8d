/* Text or image to video, in stages (those before the loops are in video_condition.c and video_preview.c):
 *
 *   text      ids → features of each row (the prompt; the negative prompt where guidance is on)
 *   preview   where it is asked for: the map from latents to colours
 *   image     the picture → known latent frame, or condition channels and CLIP tokens
 *   for each block of latent frames (one block is the whole clip, but for causal generation):
 *     denoise   noise → latents, one solver step at a time; a causal block is then committed to the history
 *     decode    latents → frames, one latent frame at a time, each handed on as it comes
 *
 * Only this file loops over blocks, steps and frames. Stages are no-ops after a failure: there is one close and no goto. The same
 * code runs on the null device, where it yields the peak of memory. */
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "pipelines/video_stage.h"

/* ---- denoise ---- */

static int64_t tokens_per_frame(const struct video_job *job)
{
    const int *patch = job->model->dit->config.patch;
    return job->latent_height / patch[1] * (job->latent_width / patch[2]);
}

static bool causal(const struct video_state *v)
{
    return v->job->causal.block > 0;
}

/* The next block of a clip; false after the last. */
static bool next_block(const struct video_state *v, struct block *b)
{
    int64_t end = v->job->latent_frames, size = causal(v) ? v->job->causal.block : end;
    b->index++;
    b->t0 += b->T;
    b->T = end - b->t0 < size ? end - b->t0 : size;
    b->last = b->t0 + b->T == end;
    return b->T > 0 && gv_run_ready(v->run);
}

/* One draw of the whole clip in torch's order, [z, T, h, w]. */
static void torch_noise(struct video_state *v, struct tensor x)
{
    const struct video_job *job = v->job;
    const int64_t           places = x.dim[0] * x.dim[1] * x.dim[2], z = x.dim[3];
    if (dry(v->run) || !gv_run_ready(v->run))
        return;
    float *drawn = malloc((size_t)(2 * places * z) * sizeof *drawn), *host = drawn + places * z;
    if (!drawn) {
        gv_run_fail(v->run, GV_ERR_MEMORY, "no memory for the noise");
        return;
    }
    if (job->noise == NOISE_TORCH_CPU)
        gv_torch_cpu_normal(drawn, places * z, job->seed);
    else
        gv_torch_cuda_normal(drawn, places * z, job->seed, job->noise_grid);
    for (int64_t c = 0; c < z; c++)
        for (int64_t i = 0; i < places; i++)
            host[i * z + c] = drawn[c * places + i];
    gv_upload(v->run, x, host);
    gv_sync(v->run);
    free(drawn);
}

/* Latents and solver of a block at its first step, or where a written-down render left off. */
static void begin_loop(struct video_state *v, const struct block *b)
{
    struct run             *r = v->run;
    const struct video_job *job = v->job;
    struct loop_state      *s = &v->loop;
    const int64_t           z = job->model->vae->z, frame = job->latent_height * job->latent_width * z;
    s->x = gv_scratch(r, GV_F32, 4, DIMS(b->T, job->latent_height, job->latent_width, z));
    if (gv_run_ready(r))
        gv_sampler_open(&s->sampler, r, &job->sampler, &job->schedule, s->x);
    s->sampler.noise = (struct noise_key){ .seed = job->seed, .block = (uint32_t)b->index, .t0 = b->t0 };
    if (job->state_in && !dry(r))
        gv_loop_state_read(r, s, job, job->state_in);
    else if (job->initial_latents)
        gv_upload(r, s->x, job->initial_latents + b->t0 * frame);
    else if (job->noise != NOISE_GENVID)
        torch_noise(v, s->x);
    else
        gv_noise(r, s->x, &(struct noise_key){ .seed = job->seed, .t0 = b->t0 });
}

/* What the forwards of a block read and write. */
struct forward {
    struct dit_prepared *prepared;
    struct tensor        input, output; /* f32 [rows, T, h, w, C_in], [rows, T, h, w, z] */
    struct tensor        exact;         /* shaped like output, where shortcuts are sampled; else absent */
    int32_t             *group; /* host [rows * tokens]: 0 = the step's time, 1 = known (t = 0); NULL without known tokens */
};

static bool knows_first(const struct video_state *v, const struct block *b)
{
    return present(v->known) && b->index == 0;
}

/* Tokens of the first latent frame belong to the known group. */
static int32_t *known_groups(struct video_state *v, const struct attn_layout *l)
{
    int32_t *group = calloc((size_t)(v->rows * l->tokens), sizeof *group);
    if (!group)
        gv_run_fail(v->run, GV_ERR_MEMORY, "no memory for the times of %lld tokens", (long long)l->tokens);
    for (int64_t i = 0; group && i < v->rows * l->tokens; i++)
        group[i] = l->position[i % l->tokens].t == 0;
    return group;
}

static struct forward forward_open(struct video_state *v, const struct block *b)
{
    struct run        *r = v->run;
    const struct dit  *dit = v->job->model->dit;
    const int64_t     *d = v->loop.x.dim;
    const int         *patch = dit->config.patch;
    struct attn_layout grid = { 0 };
    struct forward     f = { .input = gv_scratch(r, GV_F32, 5, DIMS(v->rows, d[0], d[1], d[2], dit->config.in_channels)),
                             .output = gv_scratch(r, GV_F32, 5, DIMS(v->rows, d[0], d[1], d[2], dit->config.out_channels)) };
    if (!gv_run_ready(r) ||
        gv_layout_grid(&grid, (int)b->t0 / patch[0], (int)d[0] / patch[0], (int)d[1] / patch[1], (int)d[2] / patch[2], &r->err))
        return f;
    if (b->index == 0)
        v->report->tokens = grid.tokens;
    if (v->shortcuts.on)
        gv_approx_layout(&v->shortcuts.approx, &grid, dit->config.heads, &r->err);
    if (v->shortcuts.on && v->job->shortcuts.samples)
        f.exact = gv_scratch(r, GV_F32, 5, f.output.dim);
    if (gv_run_ready(r))
        f.prepared = dit->model->prepare(r, dit, v->rows, v->condition, &grid);
    if (knows_first(v, b))
        f.group = known_groups(v, &grid);
    gv_layout_free(&grid);
    return f;
}

static void forward_close(struct video_state *v, struct forward *f)
{
    v->job->model->dit->model->release(f->prepared);
    free(f->group);
}

static void fill_input(struct video_state *v, const struct block *b, struct forward *f)
{
    struct run *r = v->run;
    int64_t     z = v->job->model->vae->z;
    for (int i = 0; i < v->rows; i++) {
        struct tensor in = row(f->input, i);
        gv_copy(r, slice(in, 3, 0, z), v->loop.x);
        if (knows_first(v, b))
            gv_copy(r, slice(slice(in, 3, 0, z), 0, 0, 1), v->known);
        if (present(v->channels))
            gv_copy(r, slice(in, 3, z, in.dim[3] - z), v->channels);
    }
}

/* Classifier-free guidance: row 0 becomes v_u + g (v_c - v_u). */
static struct tensor guided(struct video_state *v, struct tensor output)
{
    struct tensor c = row(output, 0);
    if (v->rows == 2) {
        float g = (float)v->job->guidance;
        gv_lincomb(v->run, c, 2, (struct lincomb_term[]){ { g, c }, { 1 - g, row(output, 1) } });
    }
    return c;
}

/* The same forward without shortcuts, and what they changed. Its work is not the render's. */
static void forward_exactly(struct video_state *v, struct forward *f, struct dit_call call, struct tensor velocity)
{
    struct run           *r = v->run;
    const struct dit     *dit = v->job->model->dit;
    const struct sampler *s = &v->loop.sampler;
    const float          *sigma = &s->schedule.sigma[s->step];
    const double          flops = r->flops;
    call.v = f->exact;
    call.approx = NULL;
    call.steps = NULL;
    dit->model->forward(r, dit, f->prepared, &call);
    gv_shortcut_run_compare(r, &v->shortcuts, velocity, guided(v, f->exact), v->loop.x, (double)(sigma[0] - sigma[1]));
    r->flops = flops;
}

static void denoise_step(struct video_state *v, const struct block *b, struct forward *f)
{
    struct run       *r = v->run;
    const struct dit *dit = v->job->model->dit;
    struct sampler   *s = &v->loop.sampler;
    float             time[2] = { s->schedule.time[s->step], 0 };
    snprintf(r->stage, sizeof r->stage, "step %d", s->step + 1);
    fill_input(v, b, f);
    struct dit_call call = { .x = f->input,
                             .v = f->output,
                             .time = time,
                             .n_times = f->group ? 2 : 1,
                             .group = f->group,
                             .history = causal(v) ? &v->history : NULL };
    gv_shortcut_run_enter(&v->shortcuts, &call, s->step, v->job->steps, false);
    const double began = gv_now();
    gv_step_forward(r, dit, f->prepared, &call);
    const bool    again = gv_shortcut_run_leave(&v->shortcuts, dry(r), gv_now() - began);
    struct tensor velocity = guided(v, f->output);
    gv_run_tap(r, "velocity", velocity);
    if (again)
        forward_exactly(v, f, call, velocity);
    gv_run_enter(r, "%s", "");
    gv_stage_look(v, b, velocity);
    gv_sampler_step(r, s, v->loop.x, velocity);
    gv_run_tap(r, "latents", v->loop.x);
    gv_check_finite(r, v->loop.x, "the latents");
}

/* A clean pass over a finished block, at t = 0, leaves its keys and values for the blocks to come. */
static void commit(struct video_state *v, const struct block *b, struct forward *f)
{
    struct run       *r = v->run;
    const struct dit *dit = v->job->model->dit;
    float             zero = 0;
    snprintf(r->stage, sizeof r->stage, "commit");
    fill_input(v, b, f);
    struct dit_call call = { .x = f->input, .time = &zero, .n_times = 1, .history = &v->history, .commit = true };
    gv_shortcut_run_enter(&v->shortcuts, &call, v->job->steps, v->job->steps, true);
    dit->model->forward(r, dit, f->prepared, &call);
}

/* The history holds the window but for the block itself, or all of the clip. */
static void history_open(struct video_state *v)
{
    const struct causal *c = &v->job->causal;
    int64_t frames = c->window ? c->window - c->block : v->job->latent_frames - c->block, each = tokens_per_frame(v->job);
    v->history = (struct dit_history){ .capacity = (frames > 0 ? frames : 0) * each, .sink = c->sink * each };
    if (gv_run_ready(v->run))
        gv_cache_open(&v->history.cache, v->run->device, SIZE_MAX, &v->run->err);
}

static int64_t n_blocks(const struct video_state *v)
{
    const struct video_job *job = v->job;
    return causal(v) ? (job->latent_frames + job->causal.block - 1) / job->causal.block : 1;
}

static bool stopped_early(const struct video_state *v)
{
    return v->job->stop_after && v->loop.sampler.step >= v->job->stop_after;
}

/* On the null device every step takes the same: one stands for all. */
static void run_steps(struct video_state *v, const struct block *b, struct forward *f)
{
    struct run             *r = v->run;
    const struct video_job *job = v->job;
    int64_t                 blocks = n_blocks(v);
    double                  flops = r->flops;
    while (v->loop.sampler.step < job->steps && gv_run_ready(r) && !stopped_early(v)) {
        denoise_step(v, b, f);
        gv_stage_tell(v, "denoise", b->index * job->steps + v->loop.sampler.step, blocks * job->steps);
        if (dry(r)) {
            r->flops += (r->flops - flops) * (job->steps - 1);
            return;
        }
    }
}

static void stage_denoise(struct video_state *v, const struct block *b)
{
    struct run             *r = v->run;
    const struct video_job *job = v->job;
    double                  began = gv_stage_begin(v);
    if (b->index == 0) {
        gv_stage_pin(v, job->model->dit->weights, job->residency.stream, &v->dit_pinned);
        if (causal(v))
            history_open(v);
        if (gv_run_ready(r))
            gv_shortcut_run_open(&v->shortcuts, job, r->device, v->rows, (int)n_blocks(v), &v->report->receipt, &r->err);
        gv_stage_tell(v, "denoise", 0, job->steps);
    }
    gv_shortcut_run_begin_block(&v->shortcuts);
    begin_loop(v, b);
    struct mark    mark = arena_mark(&r->scratch);
    struct forward f = forward_open(v, b);
    run_steps(v, b, &f);
    if (knows_first(v, b))
        gv_copy(r, slice(v->loop.x, 0, 0, 1), v->known);
    if (causal(v) && !b->last && gv_run_ready(r))
        commit(v, b, &f);
    forward_close(v, &f);
    arena_release(&r->scratch, mark);
    r->stage[0] = 0;
    if (b->last) {
        gv_shortcut_run_close(&v->shortcuts);
        gv_stage_unpin(v, job->model->dit->weights, job->residency.stream, &v->dit_pinned);
    }
    if (job->state_out && !dry(r))
        gv_loop_state_write(r, &v->loop, job, job->state_out);
    gv_stage_end(v, "denoise", began);
}

/* ---- decode ---- */

/* d->rgb, and d->deep where there is such, hold the frame. */
static void hand_on(struct video_state *v, int64_t index)
{
    const struct video_job *job = v->job;
    const struct decoding  *d = &v->decoding;
    const uint8_t          *rgb = d->rgb;
    v->report->delivered = true;
    gv_sha256_add(&v->decoding.hash, rgb, (size_t)job->width * (size_t)job->height * 3);
    if (job->sink &&
        (d->deep ? gv_sink_write16(job->sink, d->deep, &v->run->err) : gv_sink_write(job->sink, rgb, &v->run->err)))
        return;
    gv_frame frame = { .struct_size = sizeof frame,
                       .format = GV_PIXEL_RGB8,
                       .pixels = rgb,
                       .stride = (ptrdiff_t)3 * job->width,
                       .width = job->width,
                       .height = job->height,
                       .index = index,
                       .seconds = (double)index / job->fps };
    if (job->on_frame && job->on_frame(job->user, &frame))
        gv_fail(&v->run->err, GV_ERR_CANCELLED, "cancelled by the frame callback");
}

static void decoding_open(struct video_state *v)
{
    const struct video_job *job = v->job;
    const struct vae       *vae = job->model->vae;
    struct decoding        *d = &v->decoding;
    size_t                  size = (size_t)job->width * (size_t)job->height * 3;
    gv_stage_pin(v, vae->decoder, false, &v->vae_pinned);
    if (!gv_run_ready(v->run))
        return;
    d->stream = vae->model->stream_open(v->run, vae, VAE_DECODE);
    d->pixels = dry(v->run) ? NULL : malloc(size * (size_t)vae->time_scale * sizeof(float));
    d->rgb = dry(v->run) ? NULL : malloc(size);
    gv_sha256_open(&d->hash);
    const bool deep = !dry(v->run) && job->sink && gv_sink_deep(job->sink);
    d->deep = deep ? malloc(size * sizeof *d->deep) : NULL;
    if (!dry(v->run) && (!d->pixels || !d->rgb || (deep && !d->deep)))
        gv_run_fail(v->run, GV_ERR_MEMORY, "no memory for a decoded frame");
}

static void decoding_close(struct video_state *v)
{
    v->job->model->vae->model->stream_close(v->run, v->decoding.stream);
    free(v->decoding.pixels);
    free(v->decoding.rgb);
    free(v->decoding.deep);
    gv_stage_unpin(v, v->job->model->vae->decoder, false, &v->vae_pinned);
}

/* The next latent frame, z [1, h, w, C]: decoded into frames, downloaded, handed on picture by picture. */
static void decode_frame(struct video_state *v, struct tensor frames, struct tensor z)
{
    struct run       *r = v->run;
    const struct vae *vae = v->job->model->vae;
    struct decoding  *d = &v->decoding;
    int64_t           t = d->next++, n = t ? vae->time_scale : 1, first = t ? (t - 1) * vae->time_scale + 1 : 0;
    int64_t           size = (int64_t)v->job->width * v->job->height * 3;
    struct tensor     out = slice(frames, 0, 0, n);
    vae->model->decode(r, d->stream, out, z);
    gv_run_tap(r, "frames", out);
    if (dry(r))
        return;
    gv_download(r, d->pixels, out);
    for (int64_t i = 0; i < n && gv_run_ready(r); i++) {
        gv_pixels_from_float(d->rgb, d->pixels + i * size, size);
        if (d->deep)
            gv_pixels16_from_float(d->deep, d->pixels + i * size, size);
        hand_on(v, first + i);
    }
}

static void stage_decode(struct video_state *v, const struct block *b)
{
    struct run             *r = v->run;
    const struct video_job *job = v->job;
    double                  began = gv_stage_begin(v);
    struct mark             mark = arena_mark(&r->scratch);
    struct tensor           frames = gv_scratch(r, GV_F32, 4, DIMS(job->model->vae->time_scale, job->height, job->width, 3));
    if (b->index == 0)
        decoding_open(v);
    for (int64_t t = 0; t < b->T && gv_run_ready(r); t++) {
        if (dry(r) && v->decoding.next > 1) { /* from the second latent frame on all take the same */
            r->flops += v->decoding.flops * (double)(b->T - t);
            v->decoding.next += b->T - t;
            break;
        }
        double flops = r->flops;
        decode_frame(v, frames, slice(v->loop.x, 0, t, 1));
        v->decoding.flops = r->flops - flops;
        gv_stage_tell(v, "decode", v->decoding.next, job->latent_frames);
    }
    arena_release(&r->scratch, mark);
    gv_stage_end(v, "decode", began);
}

/* ---- the path ---- */

/* On the null device, once the window is full every block takes what the last one took. */
static bool rest_is_known(struct video_state *v, const struct block *b, double flops)
{
    const struct causal *c = &v->job->causal;
    if (!dry(v->run) || !c->window || b->index * c->block <= c->window || b->last)
        return false;
    v->run->flops += (v->run->flops - flops) * (double)((v->job->latent_frames - b->t0 - b->T) / c->block);
    return true;
}

static void render(struct video_state *v)
{
    struct block b = { .index = -1 };
    v->began = gv_now();
    gv_stage_text(v);
    gv_stage_preview(v);
    gv_stage_image(v);
    while (next_block(v, &b)) {
        double      flops = v->run->flops;
        struct mark mark = arena_mark(&v->run->scratch);
        stage_denoise(v, &b);
        if (!stopped_early(v))
            stage_decode(v, &b);
        arena_release(&v->run->scratch, mark);
        if (rest_is_known(v, &b, flops))
            break;
    }
    if (!dry(v->run) && v->decoding.next == v->job->latent_frames)
        gv_sha256_hex(&v->decoding.hash, v->report->frames_sha256);
    decoding_close(v);
    gv_stage_unpin(v, v->job->model->dit->weights, v->job->residency.stream, &v->dit_pinned);
    gv_shortcut_run_close(&v->shortcuts);
    gv_cache_close(&v->history.cache);
    v->report->seconds = gv_now() - v->began;
}

gv_status gv_pipeline_video(struct video_job *job, const atomic_bool *cancel, struct video_report *report, struct error *e)
{
    struct device     *d = job->model->engine->device;
    struct run         r;
    struct video_state v = { .job = job, .run = &r, .report = report };
    gv_residency_make_room(job->model, report->peak_bytes);
    TRY(gv_run_open(&r, d, d->compute, report->scratch_bytes, e));
    r.cancel = cancel;
    r.tap = job->tap;
    r.stream_weights = job->residency.stream;
    render(&v);
    report->flops = r.flops;
    gv_run_close(&r);
    return r.err.code ? gv_fail(e, r.err.code, "%s", r.err.text) : GV_OK;
}

/* ---- what a job will take ---- */

static gv_status dry_run(struct video_job *job, struct video_report *out, struct error *e)
{
    struct device     *real = job->model->engine->device, *null;
    struct run         r;
    struct video_state v = { .job = job, .run = &r, .report = out };
    *out = (struct video_report){ 0 };
    TRY(gv_device_null(&null, real, e));
    gv_run_open(&r, null, real->compute, 0, e);
    r.stream_weights = job->residency.stream;
    render(&v);
    out->n_stages = 0;
    out->flops = r.flops;
    out->scratch_bytes = r.scratch.peak;
    out->peak_bytes = r.scratch.peak + atomic_load(&null->peak);
    gv_run_close(&r);
    gv_device_close(&null);
    return r.err.code ? gv_fail(e, r.err.code, "%s", r.err.text) : GV_OK;
}

static size_t all_weights(const gv_model *m)
{
    return gv_weights_bytes(m->dit->weights) + gv_weights_bytes(m->vae->decoder) + gv_weights_bytes(m->vae->encoder) +
           gv_weights_bytes(m->text->weights) + (m->image ? gv_weights_bytes(m->image->weights) : 0);
}

gv_status gv_video_plan(struct video_job *job, struct video_report *out, struct error *e)
{
    const gv_model      *m = job->model;
    const struct device *d = m->engine->device;
    do {
        TRY(dry_run(job, out, e));
        out->weight_bytes = all_weights(m);
        if (gv_residency_fits(m, out->peak_bytes)) {
            if (job->residency.drop)
                gv_log(&m->engine->log, GV_LOG_INFO, "weights do not all fit %zu MiB: %s", d->budget >> 20,
                       job->residency.stream ? "layers are streamed" : "each part leaves when its stage is over");
            return GV_OK;
        }
        if (d->budget && out->scratch_bytes > d->budget) /* which no way of holding weights makes smaller */
            break;
    } while (gv_residency_smaller(&job->residency));
    return gv_fail(
        e, GV_ERR_MEMORY,
        "%d frames of %dx%d need %zu MiB (%zu MiB of them scratch, however the weights are held); the budget of device "
        "%s is %zu MiB, %zu MiB are in use",
        job->frames, job->width, job->height, out->peak_bytes >> 20, out->scratch_bytes >> 20, d->name, d->budget >> 20,
        atomic_load(&d->in_use) >> 20);
}
