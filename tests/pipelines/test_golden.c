/* Whole pipelines against diffusers: prompt → ids → features → 4 steps → frames, through the real loaders. Text to video with
 * guidance; per-token times; image to video by 36 channels and CLIP tokens, and by a known first frame; a picture of the right
 * size and one that needs LANCZOS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "io/image.h"
#include "pipelines/video.h"
#include "tests/fixture.h"

struct scene {
    const char *folder;
    const char *side; /* "a." of a picture, or "" */
    /* from request.json */
    json_t     *request;
    const char *prompt, *negative;
    int         width, height, frames, text_length;
    double      guidance;
};

static void read_request(struct scene *s)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/request.json", GV_TEST_DATA, s->folder);
    s->request = json_load_file(path, 0, NULL);
    assert_non_null(s->request);
    assert_int_equal(json_unpack(s->request, "{s:s, s?s, s:i, s:i, s:i, s:i, s:f}", "prompt", &s->prompt, "negative_prompt",
                                 &s->negative, "width", &s->width, "height", &s->height, "num_frames", &s->frames,
                                 "max_sequence_length", &s->text_length, "guidance_scale", &s->guidance),
                     0);
}

struct look {
    const struct scene *s;
    struct golden       g;
    bool                f32, known;
    int                 step;
    float              *pixels; /* [F, H, W, 3] */
    int64_t             n_pixels;
    double              last_error;
};

static float *host_of(struct run *r, struct tensor x)
{
    float *host = malloc((size_t)gv_tensor_count(x) * sizeof *host);
    gv_download(r, host, x);
    return host;
}

/* ours [T, h, w, C] against a stored [C, T, h, w]; frames from `skip` on. */
static double latent_error(struct look *l, const char *name, const float *ours, struct tensor x, int64_t skip)
{
    char    full[64];
    int64_t n, frame = x.dim[1] * x.dim[2], T = x.dim[0], C = x.dim[3];
    float  *stored;
    snprintf(full, sizeof full, "%s%s", l->s->side, name);
    const float *theirs = golden_get(&l->g, full, &n);
    stored = malloc((size_t)n * sizeof *stored);
    channels_last(stored, theirs, C, T, x.dim[1], x.dim[2]);
    double error = relative_error(ours + skip * frame * C, stored + skip * frame * C, (T - skip) * frame * C);
    free(stored);
    return error;
}

static void look(void *user, struct run *r, const char *name, struct tensor x)
{
    struct look *l = user;
    char         stored[32];
    if (!strcmp(name, "latents") || (!strcmp(name, "velocity") && l->step == 0)) {
        float *ours = host_of(r, x);
        snprintf(stored, sizeof stored, *name == 'l' ? "latents.step%d" : "velocity0", l->step);
        double error = latent_error(l, stored, ours, x, l->known);
        print_message("  %-16s %-2s%-14s error %.2e\n", l->s->folder, l->s->side, stored, error);
        if (l->f32)
            assert_true(error <= 1e-4);
        if (*name == 'l') {
            l->step++;
            l->last_error = error;
        }
        free(ours);
    } else if (strstr(name, ".frames")) {
        gv_download(r, l->pixels + l->n_pixels, x);
        l->n_pixels += gv_tensor_count(x);
    }
}

/* The model's folder, with the text length that the pipeline was called with. */
static void make_model(char *path, const struct scene *s)
{
    char source[512], sidecar[64];
    fixture_temp(path);
    snprintf(source, sizeof source, "%s/%s", GV_TEST_DATA, s->folder);
    fixture_model(path, source, NULL, GV_F32, 0);
    snprintf(sidecar, sizeof sidecar, "{\"text_length\": %d, \"steps\": 4}", s->text_length);
    fixture_sidecar(path, sidecar);
}

static void write_picture(char *path, size_t size, const char *folder, struct look *l, const char *what)
{
    char    name[32];
    int64_t n;
    snprintf(name, sizeof name, "%s%s", l->s->side, what);
    const struct st_entry *t = gv_tensor_file_find(&l->g.st, name);
    const float           *codes = golden_get(&l->g, name, &n);
    uint8_t               *rgb = malloc((size_t)n);
    struct error           e = { 0 };
    for (int64_t i = 0; i < n; i++)
        rgb[i] = (uint8_t)codes[i];
    snprintf(path, size, "%s/%s.png", folder, what);
    assert_int_equal(gv_image_write(path, rgb, (int)t->dim[1], (int)t->dim[0], &e), GV_OK);
    free(rgb);
}

static void check_frames(struct look *l)
{
    char    name[32], measure[64];
    int64_t n;
    snprintf(name, sizeof name, "%sframes", l->s->side);
    if (!golden_has(&l->g, name))
        return;
    const float *theirs = golden_get(&l->g, name, &n);
    assert_int_equal(n, l->n_pixels);
    float *ours = malloc((size_t)n * sizeof *ours);
    channels_first(ours, l->pixels, 3, l->s->frames, l->s->height, l->s->width);
    snprintf(measure, sizeof measure, "%sbf16_psnr.frames.vae", l->s->side);
    double db = psnr(ours, theirs, n), wanted = l->f32 ? 60 : (double)golden_number(&l->g, measure) - 1;
    print_message("  %-16s %-2s frames        %.1f dB, wanted %.1f\n", l->s->folder, l->s->side, db, wanted);
    assert_true(db >= wanted);
    free(ours);
}

static void render(const char *of, const char *side, const char *precision)
{
    struct scene        scene = { .folder = of, .side = side }, *s = &scene;
    char                folder[256], picture[512], last_picture[512], message[512] = "";
    gv_engine          *engine;
    gv_model           *model;
    struct error        e = { 0 };
    struct look         l = { .s = s, .f32 = !strcmp(precision, "f32"), .known = strstr(s->folder, "known") };
    struct tap          tap = { look, &l };
    struct video_job    job;
    struct video_report report = { 0 };
    gv_engine_params    params;
    gv_video_request    q;
    read_request(s);
    golden_open(&l.g, s->folder);
    make_model(folder, s);
    gv_engine_params_init(&params);
    params.precision = precision;
    assert_int_equal(gv_engine_open(&params, &engine, message, sizeof message), GV_OK);
    gv_model_load(engine, folder, &model, message, sizeof message);
    assert_string_equal(message, "");
    gv_video_request_init(&q);
    q.model = model, q.prompt = s->prompt, q.negative_prompt = s->negative, q.width = s->width, q.height = s->height,
    q.frames = s->frames;
    q.guidance = s->guidance;
    if (s->side[0]) {
        write_picture(picture, sizeof picture, folder, &l, "picture");
        q.first_image = picture;
    }
    if (strstr(s->folder, "flf2v")) {
        write_picture(last_picture, sizeof last_picture, folder, &l, "last_picture");
        q.last_image = last_picture;
    }
    gv_video_job_open(&job, &q, &e);
    assert_string_equal(e.text, "");
    int64_t      n;
    const float *init = golden_get(&l.g, "latents.init", &n);
    float       *last = malloc((size_t)n * sizeof *last);
    channels_last(last, init, model->vae->z, job.latent_frames, job.latent_height, job.latent_width);
    job.initial_latents = last;
    l.pixels = malloc((size_t)(s->frames + 4) * (size_t)s->width * (size_t)s->height * 3 * sizeof(float));
    assert_int_equal(gv_video_plan(&job, &report, &e), GV_OK);
    job.tap = &tap;
    gv_pipeline_video(&job, NULL, &report, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(l.step, 4);
    if (!l.f32) {
        char name[64];
        snprintf(name, sizeof name, "%sbf16_error.latents", s->side);
        double limit = 1.5 * (double)golden_number(&l.g, name);
        print_message("  %-16s %-2s latents       error %.2e  limit %.2e\n", s->folder, s->side, l.last_error, limit);
        assert_true(l.last_error <= limit);
    }
    check_frames(&l);
    free(l.pixels);
    free(last);
    gv_video_job_close(&job);
    gv_engine_close(&engine);
    fixture_remove(folder);
    golden_close(&l.g);
    json_decref(s->request);
}

static void text_to_video_with_guidance_equals_diffusers(void **state)
{
    (void)state;
    render("pipeline_t2v", "", "f32");
}
static void per_token_times_equal_diffusers(void **state)
{
    (void)state;
    render("pipeline_t2v_expand", "", "f32");
}
static void image_by_channels_equals_diffusers(void **state)
{
    (void)state;
    render("pipeline_i2v", "a.", "f32");
    render("pipeline_i2v", "b.", "f32");
}
static void first_and_last_picture_equal_diffusers(void **state)
{
    (void)state;
    render("pipeline_flf2v", "a.", "f32");
    render("pipeline_flf2v", "b.", "f32");
}
static void image_by_known_frame_equals_diffusers(void **state)
{
    (void)state;
    render("pipeline_i2v_known", "a.", "f32");
    render("pipeline_i2v_known", "b.", "f32");
}
static void bf16_is_as_good_as_diffusers_bf16(void **state)
{
    (void)state;
    render("pipeline_t2v", "", "bf16");
    render("pipeline_t2v_expand", "", "bf16");
    render("pipeline_i2v", "a.", "bf16");
    render("pipeline_i2v_known", "a.", "bf16");
    render("pipeline_flf2v", "a.", "bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_to_video_with_guidance_equals_diffusers),
        cmocka_unit_test(per_token_times_equal_diffusers),
        cmocka_unit_test(image_by_channels_equals_diffusers),
        cmocka_unit_test(first_and_last_picture_equal_diffusers),
        cmocka_unit_test(image_by_known_frame_equals_diffusers),
        cmocka_unit_test(bf16_is_as_good_as_diffusers_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
