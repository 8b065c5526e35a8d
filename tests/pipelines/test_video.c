/* What a render promises besides its pixels: the dry run knows its memory, it can be written down between steps and taken up
 * again, frames do not depend on threads or on a neighbour, it stops when told to, streamed weights change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "io/image.h"
#include "pipelines/video.h"
#include "tests/fixture.h"

static char folder[256]; /* the tiny model, for all tests */

static int make_model(void **state)
{
    (void)state;
    fixture_temp(folder);
    fixture_model(folder, GV_TEST_DATA "/pipeline_i2v_known", NULL, GV_BF16, 0);
    fixture_sidecar(folder,
                    "{\"text_length\": 64, \"steps\": 4, \"width\": 48, \"height\": 32, \"frames\": 17, \"guidance\": 3}");
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    fixture_remove(folder);
    return 0;
}

struct studio {
    gv_engine  *engine;
    gv_model   *model;
    gv_session *session;
};

static struct studio studio_open(int threads, const char *precision, uint64_t budget)
{
    struct studio    s;
    char             why[512] = "";
    gv_engine_params p;
    gv_engine_params_init(&p);
    p.threads = threads, p.precision = precision, p.device_budget = budget;
    gv_engine_open(&p, &s.engine, why, sizeof why);
    assert_string_equal(why, "");
    gv_model_load(s.engine, folder, &s.model, why, sizeof why);
    assert_string_equal(why, "");
    assert_int_equal(gv_session_open(s.engine, &s.session), GV_OK);
    return s;
}

static void studio_close(struct studio *s)
{
    gv_session_close(&s->session);
    gv_engine_close(&s->engine);
}

struct reel { /* all frames of a clip */
    uint8_t *rgb;
    size_t   bytes;
    int      frames, stop_at;
};

static int take_frame(void *user, const gv_frame *f)
{
    struct reel *r = user;
    size_t       n = (size_t)f->width * (size_t)f->height * 3;
    r->rgb = realloc(r->rgb, r->bytes + n);
    for (int y = 0; y < f->height; y++)
        memcpy(r->rgb + r->bytes + (size_t)y * (size_t)f->width * 3, (const uint8_t *)f->pixels + y * f->stride,
               (size_t)f->width * 3);
    assert_int_equal(f->index, r->frames);
    r->bytes += n;
    r->frames++;
    return r->stop_at && r->frames == r->stop_at;
}

static gv_video_request request(const struct studio *s, struct reel *r)
{
    gv_video_request q;
    gv_video_request_init(&q);
    q.model = s->model, q.prompt = "a red fox", q.seed = 7, q.on_frame = take_frame, q.user = r;
    return q;
}

static struct reel rendered(const struct studio *s)
{
    struct reel      r = { 0 };
    gv_video_request q = request(s, &r);
    gv_video_generate(s->session, &q);
    assert_string_equal(gv_session_message(s->session), "");
    assert_int_equal(r.frames, 17);
    return r;
}

static void assert_same(const struct reel *a, const struct reel *b)
{
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->rgb, b->rgb, a->bytes);
}

/* ---- previews, and prompts that come again ---- */

struct looks {
    struct reel reel;
    int         previews, width, height;
    int64_t     index;
};

static int look(void *user, const gv_frame *f)
{
    struct looks *l = user;
    if (!f->preview)
        return take_frame(&l->reel, f);
    l->previews++;
    l->width = f->width, l->height = f->height, l->index = f->index;
    return 0;
}

static double number_of(const gv_session *s, const char *field)
{
    char  *report = gv_session_report(s), *at = strstr(report, field);
    double x = at ? atof(at + strlen(field) + 3) : -1;
    gv_free(report);
    return x;
}

static void previews_come_in_time_and_change_no_frame(void **state)
{
    (void)state;
    struct studio    s = studio_open(2, "f32", 0);
    struct reel      plain = rendered(&s);
    struct looks     l = { 0 };
    gv_video_request q = request(&s, &l.reel);
    q.on_frame = look, q.user = &l, q.preview_every = 2;
    gv_video_generate(s.session, &q);
    assert_string_equal(gv_session_message(s.session), "");
    assert_int_equal(l.previews, 2); /* of four steps */
    assert_int_equal(l.width, 48 / 8);
    assert_int_equal(l.height, 32 / 8);
    assert_int_equal(l.index, 5); /* the middle of five latent frames begins there */
    assert_same(&plain, &l.reel);
    free(l.reel.rgb);
    q.preview_every = -1;
    assert_int_equal(gv_video_generate(s.session, &q), GV_ERR_ARGUMENT);
    assert_non_null(strstr(gv_session_message(s.session), "preview_every"));
    free(plain.rgb);
    studio_close(&s);
}

static void a_prompt_that_comes_again_is_not_encoded_again(void **state)
{
    (void)state;
    struct studio s = studio_open(2, "bf16", 0);
    struct reel   first = rendered(&s);
    const double  whole = number_of(s.session, "flops");
    struct reel   again = rendered(&s);
    const double  less = number_of(s.session, "flops");
    assert_same(&first, &again);
    assert_true(less > 0 && less < whole);
    for (int i = 0; i < 20; i++) { /* more prompts than are kept */
        char             prompt[128];
        struct reel      r = { .stop_at = 1 };
        gv_video_request q = request(&s, &r);
        snprintf(prompt, sizeof prompt, "%.*s", 4 * i + 3,
                 "fox fox fox fox fox fox fox fox fox fox fox fox fox fox fox fox fox fox fox fox fox");
        q.prompt = prompt, q.steps = 1, q.frames = 1;
        assert_int_equal(gv_video_generate(s.session, &q), GV_ERR_CANCELLED);
        free(r.rgb);
    }
    struct reel last = rendered(&s);
    assert_same(&first, &last);
    assert_true(number_of(s.session, "flops") > less); /* the prompt made room; the negative one was used all the time */
    free(first.rgb);
    free(again.rgb);
    free(last.rgb);
    studio_close(&s);
}

/* ---- memory ---- */

static void check_prediction(const char *precision, uint64_t budget)
{
    struct studio    s = studio_open(2, precision, budget);
    struct reel      r = { 0 };
    gv_video_request q = request(&s, &r);
    gv_estimate      e;
    gv_estimate_init(&e);
    assert_int_equal(gv_video_estimate(s.session, &q, &e), GV_OK);
    assert_true(atomic_load(&s.engine->device->peak) == 0); /* nothing was taken to know it */
    r = rendered(&s);
    double peak = (double)atomic_load(&s.engine->device->peak), predicted = (double)e.device_bytes;
    print_message("  %s budget %llu: predicted %.0f, peak %.0f bytes\n", precision, (unsigned long long)budget, predicted,
                  peak);
    assert_true(predicted >= 0.99 * peak && predicted <= 1.01 * peak);
    if (budget)
        assert_true(peak <= (double)budget);
    free(r.rgb);
    studio_close(&s);
}

static void dry_run_predicts_peak_memory(void **state)
{
    (void)state;
    check_prediction("f32", 0);
    check_prediction("bf16", 0);
}

static uint64_t full_size(void)
{
    struct studio    s = studio_open(1, "f32", 0);
    struct reel      r = { 0 };
    gv_video_request q = request(&s, &r);
    gv_estimate      e;
    gv_estimate_init(&e);
    assert_int_equal(gv_video_estimate(s.session, &q, &e), GV_OK);
    studio_close(&s);
    return e.device_bytes;
}

static void a_small_budget_streams_weights_and_changes_no_frame(void **state)
{
    (void)state;
    struct studio s = studio_open(1, "f32", 0);
    struct reel   whole = rendered(&s);
    uint64_t      all = full_size();
    studio_close(&s);
    for (uint64_t budget = all - 1, tries = 0; tries < 2; tries++, budget = budget * 9 / 10) {
        s = studio_open(1, "f32", budget);
        struct reel small = rendered(&s);
        assert_same(&whole, &small);
        free(small.rgb);
        studio_close(&s);
    }
    check_prediction("f32", all - 1);
    free(whole.rgb);
}

static void what_cannot_fit_is_refused_before_it_starts(void **state)
{
    (void)state;
    struct studio    s = studio_open(1, "f32", 1 << 20);
    struct reel      r = { 0 };
    gv_video_request q = request(&s, &r);
    assert_int_equal(gv_video_generate(s.session, &q), GV_ERR_MEMORY);
    assert_non_null(strstr(gv_session_message(s.session), "MiB"));
    assert_int_equal(r.frames, 0);
    studio_close(&s);
}

/* ---- the same frames ---- */

static void frames_do_not_depend_on_threads(void **state)
{
    (void)state;
    static const char *const precisions[] = { "f32", "bf16" };
    for (int i = 0; i < 2; i++) {
        struct studio one = studio_open(1, precisions[i], 0), three = studio_open(3, precisions[i], 0);
        struct reel   a = rendered(&one), b = rendered(&three);
        assert_same(&a, &b);
        free(a.rgb);
        free(b.rgb);
        studio_close(&one);
        studio_close(&three);
    }
}

struct job_thread {
    struct studio studio;
    struct reel   reel;
};

static void *render_in_thread(void *arg)
{
    struct job_thread *t = arg;
    gv_video_request   q = request(&t->studio, &t->reel);
    return gv_video_generate(t->studio.session, &q) ? arg : NULL;
}

static void two_sessions_in_two_threads_give_the_frames_of_one(void **state)
{
    (void)state;
    struct studio     s = studio_open(2, NULL, 0);
    struct reel       alone = rendered(&s);
    struct job_thread t[2] = { { s, { 0 } }, { s, { 0 } } };
    pthread_t         id[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gv_session_open(s.engine, &t[i].studio.session), GV_OK);
        pthread_create(&id[i], NULL, render_in_thread, &t[i]);
    }
    for (int i = 0; i < 2; i++) {
        void *failed;
        pthread_join(id[i], &failed);
        assert_null(failed);
        assert_same(&alone, &t[i].reel);
        free(t[i].reel.rgb);
        gv_session_close(&t[i].studio.session);
    }
    free(alone.rgb);
    studio_close(&s);
}

static void a_written_down_render_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/state.safetensors", folder);
    struct studio s = studio_open(2, NULL, 0);
    struct reel   whole = rendered(&s), resumed = { 0 };
    for (int part = 0; part < 2; part++) {
        struct video_job    job;
        struct video_report report;
        struct error        e = { 0 };
        gv_video_request    q = request(&s, &resumed);
        assert_int_equal(gv_video_job_open(&job, &q, &e), GV_OK);
        assert_int_equal(gv_video_plan(&job, &report, &e), GV_OK);
        if (part == 0)
            job.state_out = path, job.stop_after = 2;
        else
            job.state_in = path;
        gv_pipeline_video(&job, NULL, &report, &e);
        assert_string_equal(e.text, "");
        assert_int_equal(resumed.frames, part ? 17 : 0);
        gv_video_job_close(&job);
        studio_close(&s); /* what goes on is another engine */
        s = studio_open(1, NULL, 0);
    }
    assert_same(&whole, &resumed);
    free(whole.rgb);
    free(resumed.rgb);
    studio_close(&s);
}

static void a_state_of_other_settings_is_refused(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/state.safetensors", folder); /* left by the test before */
    struct studio       s = studio_open(1, NULL, 0);
    struct reel         r = { 0 };
    struct video_job    job;
    struct video_report report;
    struct error        e = { 0 };
    gv_video_request    q = request(&s, &r);
    q.seed = 8;
    assert_int_equal(gv_video_job_open(&job, &q, &e), GV_OK);
    assert_int_equal(gv_video_plan(&job, &report, &e), GV_OK);
    job.state_in = path;
    assert_int_equal(gv_pipeline_video(&job, NULL, &report, &e), GV_ERR_FORMAT);
    gv_video_job_close(&job);
    studio_close(&s);
}

/* ---- stopping ---- */

static int stop_at_step_two(void *user, const gv_progress *p)
{
    (void)user;
    return !strcmp(p->stage, "denoise") && p->done == 2;
}

static void a_callback_can_stop_and_nothing_is_left(void **state)
{
    (void)state;
    char          path[512];
    struct studio s = studio_open(2, NULL, 0);
    struct reel   r = { .stop_at = 3 };
    snprintf(path, sizeof path, "%s/clip.y4m", folder);
    gv_video_request q = request(&s, &r);
    q.output_path = path;
    assert_int_equal(gv_video_generate(s.session, &q), GV_ERR_CANCELLED);
    assert_int_equal(r.frames, 3);
    assert_int_equal(access(path, F_OK), -1);
    q.progress = stop_at_step_two;
    assert_int_equal(gv_video_generate(s.session, &q), GV_ERR_CANCELLED);
    assert_int_equal(access(path, F_OK), -1);
    free(r.rgb);
    studio_close(&s);
}

struct made {
    const char *name, *note; /* of the file to be; what is given back */
    char        path[512];
    long        bytes;
    bool        early, cancel; /* the name was not there yet */
};

static int look_at_file(void *user, const char *path, const char **note)
{
    struct made *m = user;
    FILE        *f = path ? fopen(path, "rb") : NULL;
    snprintf(m->path, sizeof m->path, "%s", path ? path : "");
    if (f && !fseek(f, 0, SEEK_END))
        m->bytes = ftell(f);
    if (f)
        fclose(f);
    m->early = access(m->name, F_OK) != 0;
    *note = m->note;
    return m->cancel;
}

static void a_clip_can_be_looked_at_before_it_has_its_name(void **state)
{
    (void)state;
    char             name[512];
    struct studio    s = studio_open(2, NULL, 0);
    gv_video_request q = request(&s, NULL);
    struct made      m = { .name = name, .note = "{\"seen\": [1]}" };
    snprintf(name, sizeof name, "%s/clip.y4m", folder);
    q.on_frame = NULL, q.output_path = name, q.on_made = look_at_file, q.user = &m;

    assert_int_equal(gv_video_generate(s.session, &q), GV_OK);
    assert_true(m.early && strcmp(m.path, name));
    assert_true(m.bytes >= 17 * 48 * 32 * 3 / 2); /* every frame was there */
    assert_int_equal(access(m.path, F_OK), -1);
    assert_int_equal(access(name, F_OK), 0);
    char *report = gv_session_report(s.session);
    assert_non_null(strstr(report, "\"seen\""));
    gv_free(report);

    remove(name);
    m.cancel = true;
    assert_int_equal(gv_video_generate(s.session, &q), GV_ERR_CANCELLED);
    assert_int_equal(access(m.path, F_OK), -1);
    assert_int_equal(access(name, F_OK), -1);

    m = (struct made){ .name = name, .path = "?", .note = "not JSON \xff" };
    q.output_path = NULL;
    assert_int_equal(gv_video_generate(s.session, &q), GV_OK);
    assert_string_equal(m.path, "");
    report = gv_session_report(s.session);
    assert_non_null(strstr(report, "\"note\": \"\"")); /* JSON holds UTF-8 alone */
    gv_free(report);
    studio_close(&s);
}

static void *cancel_soon(void *session)
{
    nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    gv_session_cancel(session);
    return NULL;
}

static void another_thread_can_stop_a_render(void **state)
{
    (void)state;
    struct studio    s = studio_open(2, NULL, 0);
    struct reel      r = { 0 };
    gv_video_request q = request(&s, &r);
    pthread_t        id;
    q.steps = 1000;
    pthread_create(&id, NULL, cancel_soon, s.session);
    assert_int_equal(gv_video_generate(s.session, &q), GV_ERR_CANCELLED);
    pthread_join(id, NULL);
    free(r.rgb);
    struct reel again = rendered(&s); /* the session is as good as new */
    free(again.rgb);
    studio_close(&s);
}

/* ---- causal generation ---- */

static struct reel causal_clip(const struct studio *s, const char *preset, int frames, gv_estimate *e)
{
    struct reel      r = { 0 };
    gv_option        option = { "causal", preset };
    gv_video_request q = request(s, &r);
    q.options = &option, q.option_count = 1, q.frames = frames;
    gv_estimate_init(e);
    gv_video_estimate(s->session, &q, e);
    gv_video_generate(s->session, &q);
    assert_string_equal(gv_session_message(s->session), "");
    assert_int_equal(r.frames, frames);
    return r;
}

static void causal_clips_of_any_length_take_the_same_memory(void **state)
{
    (void)state;
    uint64_t bytes[2];
    for (int i = 0; i < 2; i++) {
        struct studio s = studio_open(2, "f32", 0);
        gv_estimate   e;
        struct reel   r = causal_clip(&s, "longlive", i ? 145 : 73, &e); /* 37 and 19 latent frames: the last block is short */
        size_t        peak = atomic_load(&s.engine->device->peak);
        bytes[i] = e.device_bytes;
        print_message("  longlive: predicted %llu, peak %zu bytes\n", (unsigned long long)e.device_bytes, peak);
        assert_true((double)e.device_bytes >= 0.99 * (double)peak && (double)e.device_bytes <= 1.01 * (double)peak);
        free(r.rgb);
        studio_close(&s);
    }
    assert_true(bytes[0] == bytes[1]);
}

static void causal_frames_do_not_depend_on_threads_and_begin_alike(void **state)
{
    (void)state;
    gv_estimate   e;
    struct studio one = studio_open(1, NULL, 0), three = studio_open(3, NULL, 0);
    struct reel   a = causal_clip(&one, "self-forcing", 49, &e), b = causal_clip(&three, "self-forcing", 49, &e);
    assert_same(&a, &b);
    /* a block knows nothing of those after it: the longer clip begins with the shorter one (3 blocks of 3: 33 frames) */
    struct reel c = causal_clip(&one, "self-forcing", 33, &e);
    assert_memory_equal(a.rgb, c.rgb, c.bytes);
    free(a.rgb);
    free(b.rgb);
    free(c.rgb);
    studio_close(&one);
    studio_close(&three);
}

/* ---- a real picture ---- */

/* ---- whose rules ---- */

static void compat_chooses_whose_rules_hold(void **state)
{
    static const struct {
        const char *compat, *solver, *schedule, *wanted;
        bool        wan;
    } cases[] = { { "diffusers", "unipc", NULL, "diffusers-unipc", false },
                  { "wan", "unipc", NULL, "wan-unipc", true },
                  { "wan", "dpm++", NULL, "wan-dpm", true },
                  { "wan", "euler", NULL, "flow-match-euler", true },
                  { "wan", "unipc", "diffusers-unipc-0.36", "diffusers-unipc-0.36", true },
                  { "comfy", NULL, NULL, NULL, false } };
    struct studio s = studio_open(1, NULL, 0);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct video_job job;
        struct error     e = { 0 };
        struct reel      none = { 0 };
        gv_video_request q = request(&s, &none);
        const gv_option  o[] = { { "compat", cases[i].compat }, { "schedule", cases[i].schedule } };
        q.options = o;
        q.option_count = cases[i].schedule ? 2 : 1;
        q.solver = cases[i].solver;
        const gv_status status = gv_video_job_open(&job, &q, &e);
        if (!cases[i].wanted) {
            assert_int_equal(status, GV_ERR_ARGUMENT);
            assert_non_null(strstr(e.text, "wan and diffusers are possible"));
            continue;
        }
        assert_int_equal(status, GV_OK);
        assert_string_equal(job.schedule_name, cases[i].wanted);
        assert_int_equal(job.wan_rules, cases[i].wan);
        gv_video_job_close(&job);
    }
    studio_close(&s);
}

/* ---- noise of torch ---- */

static struct reel with_noise(const struct studio *s, const char *noise, const float *latents)
{
    struct reel         r = { 0 };
    struct video_job    job;
    struct video_report report;
    struct error        e = { 0 };
    gv_video_request    q = request(s, &r);
    q.noise = noise;
    assert_int_equal(gv_video_job_open(&job, &q, &e), GV_OK);
    assert_int_equal(gv_video_plan(&job, &report, &e), GV_OK);
    job.initial_latents = latents;
    gv_pipeline_video(&job, NULL, &report, &e);
    assert_string_equal(e.text, "");
    gv_video_job_close(&job);
    return r;
}

/* torch draws [z, T, h, w] in the order of memory; ours are [T, h, w, z]. */
static void torch_noise_is_one_draw_of_the_clip(void **state)
{
    (void)state;
    struct studio    s = studio_open(2, NULL, 0);
    struct video_job job;
    struct error     e = { 0 };
    struct reel      none = { 0 };
    gv_video_request q = request(&s, &none);
    assert_int_equal(gv_video_job_open(&job, &q, &e), GV_OK);
    const int64_t z = s.model->vae->z, T = job.latent_frames, h = job.latent_height, w = job.latent_width, n = z * T * h * w;
    gv_video_job_close(&job);
    float *drawn = malloc((size_t)n * sizeof *drawn), *ours = malloc((size_t)n * sizeof *ours);
    for (int k = 0; k < 2; k++) {
        if (k)
            gv_torch_cuda_normal(drawn, n, q.seed, (struct torch_grid){ 2, 512 });
        else
            gv_torch_cpu_normal(drawn, n, q.seed);
        channels_last(ours, drawn, z, T, h, w);
        struct reel a = with_noise(&s, k ? "torch-cuda:2x512" : "torch-cpu", NULL), b = with_noise(&s, NULL, ours);
        assert_same(&a, &b);
        free(a.rgb);
        free(b.rgb);
    }
    free(drawn);
    free(ours);
    q.noise = "torch-gpu";
    assert_int_equal(gv_video_job_open(&job, &q, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "torch-cuda:SMSxTHREADS"));
    q.noise = "torch-cpu";
    q.options = &(gv_option){ "causal", "self-forcing" };
    q.option_count = 1;
    e = (struct error){ 0 };
    assert_int_equal(gv_video_job_open(&job, &q, &e), GV_ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "block by block"));
    studio_close(&s);
}

static void a_clip_begins_with_its_picture(void **state)
{
    (void)state;
    char          path[512];
    uint8_t       rgb[48 * 32 * 3];
    struct error  e = { 0 };
    struct studio s = studio_open(2, NULL, 0);
    struct reel   r = { 0 };
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 7 % 256);
    snprintf(path, sizeof path, "%s/first.png", folder);
    assert_int_equal(gv_image_write(path, rgb, 48, 32, &e), GV_OK);
    gv_video_request q = request(&s, &r);
    q.first_image = path;
    assert_int_equal(gv_video_generate(s.session, &q), GV_OK);
    char *report = gv_session_report(s.session);
    assert_non_null(strstr(report, "\"first_image\": true"));
    assert_non_null(strstr(report, "\"image\":"));
    gv_free(report);
    free(r.rgb);
    studio_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(previews_come_in_time_and_change_no_frame),
        cmocka_unit_test(a_prompt_that_comes_again_is_not_encoded_again),
        cmocka_unit_test(compat_chooses_whose_rules_hold),
        cmocka_unit_test(torch_noise_is_one_draw_of_the_clip),
        cmocka_unit_test(dry_run_predicts_peak_memory),
        cmocka_unit_test(a_small_budget_streams_weights_and_changes_no_frame),
        cmocka_unit_test(what_cannot_fit_is_refused_before_it_starts),
        cmocka_unit_test(frames_do_not_depend_on_threads),
        cmocka_unit_test(two_sessions_in_two_threads_give_the_frames_of_one),
        cmocka_unit_test(a_written_down_render_goes_on_to_the_same_bits),
        cmocka_unit_test(a_state_of_other_settings_is_refused),
        cmocka_unit_test(a_callback_can_stop_and_nothing_is_left),
        cmocka_unit_test(a_clip_can_be_looked_at_before_it_has_its_name),
        cmocka_unit_test(another_thread_can_stop_a_render),
        cmocka_unit_test(causal_clips_of_any_length_take_the_same_memory),
        cmocka_unit_test(causal_frames_do_not_depend_on_threads_and_begin_alike),
        cmocka_unit_test(a_clip_begins_with_its_picture),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
