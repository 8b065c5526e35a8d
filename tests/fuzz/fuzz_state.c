/* The file of a render that was written down between two steps. It is read into the job that it claims to belong to. */
#include "pipelines/video.h"
#include "tests/fixture.h"
#include "tests/fuzz/fuzz.h"

static struct {
    gv_engine       *engine;
    gv_model        *model;
    struct video_job job;
    struct run       run;
} world;

static gv_status open_world(struct error *e)
{
    gv_video_request    q;
    struct video_report unused;
    gv_video_request_init(&q);
    q.model = world.model, q.prompt = "a red fox", q.width = q.height = 16, q.frames = 1, q.steps = 2, q.seed = 7;
    TRY(gv_video_job_open(&world.job, &q, e));
    TRY(gv_video_plan(&world.job, &unused, e));
    return gv_run_open(&world.run, world.engine->device, GV_F32, 1 << 20, e);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    char             path[FUZZ_PATH], why[512] = "";
    gv_engine_params p;
    struct error     e = { 0 };
    gv_engine_params_init(&p);
    p.threads = 1, p.precision = "f32", p.cpu_level = "c";
    snprintf(path, sizeof path, "%s/model", fuzz_folder());
    fixture_model(path, GV_TEST_DATA "/pipeline_t2v_expand", NULL, GV_BF16, 0);
    if (gv_engine_open(&p, &world.engine, why, sizeof why) ||
        gv_model_load(world.engine, path, &world.model, why, sizeof why) || open_world(&e))
        fuzz_found(why[0] ? why : e.text);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run             *r = &world.run;
    const struct video_job *job = &world.job;
    struct mark             mark = arena_mark(&r->scratch);
    struct loop_state       s = { 0 };
    char                    path[FUZZ_PATH];
    r->err = (struct error){ 0 };
    fuzz_file(path, "state", data, size);
    s.x = gv_scratch(r, GV_F32, 4, DIMS(job->latent_frames, job->latent_height, job->latent_width, job->model->vae->z));
    gv_sampler_open(&s.sampler, r, &job->sampler, &job->schedule, s.x);
    if (!gv_run_ready(r))
        fuzz_found(r->err.text);
    fuzz_check(gv_loop_state_read(r, &s, job, path), &r->err);
    if (gv_run_ready(r) && (s.sampler.step < 0 || s.sampler.step > job->steps))
        fuzz_found("a step that the job does not have");
    arena_release(&r->scratch, mark);
    return 0;
}
