/* Memory that turns out to be less than the plan knew: another process takes some (here: the device's allocator refuses the first
 * few times), or another model of the engine holds some that nobody uses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipelines/engine.h"
#include "tests/fixture.h"

static char folder[256];

static int make_model(void **state)
{
    (void)state;
    fixture_temp(folder);
    fixture_model(folder, GV_TEST_DATA "/pipeline_i2v_known", NULL, GV_BF16, 0);
    fixture_sidecar(folder,
                    "{\"text_length\": 64, \"steps\": 2, \"width\": 32, \"height\": 32, \"frames\": 5, \"guidance\": 3}");
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    fixture_remove(folder);
    return 0;
}

/* ---- an engine whose warnings are kept, and a device that may refuse ---- */

struct studio {
    gv_engine  *engine;
    gv_model   *model[2];
    gv_session *session;
    char        warning[2048];
};

static void keep_warning(void *user, gv_log_level level, const char *message)
{
    struct studio *s = user;
    if (level == GV_LOG_WARN)
        snprintf(s->warning, sizeof s->warning, "%s", message);
}

static void studio_open(struct studio *s, uint64_t budget)
{
    char             why[512] = "";
    gv_engine_params p;
    *s = (struct studio){ 0 };
    gv_engine_params_init(&p);
    p.threads = 1, p.precision = "f32", p.device_budget = budget;
    p.log = keep_warning, p.log_user = s, p.log_level = GV_LOG_WARN;
    gv_engine_open(&p, &s->engine, why, sizeof why);
    for (int i = 0; i < 2; i++)
        gv_model_load(s->engine, folder, &s->model[i], why, sizeof why);
    assert_string_equal(why, "");
    assert_int_equal(gv_session_open(s->engine, &s->session), GV_OK);
}

static void studio_close(struct studio *s)
{
    gv_session_close(&s->session);
    gv_engine_close(&s->engine);
}

static struct {
    const struct device_ops *real;
    struct device_ops        ops;
    int                      times; /* still to refuse */
} refusing;

static void *refuse_first(struct device *d, size_t bytes)
{
    if (refusing.times == 0)
        return refusing.real->alloc(d, bytes);
    refusing.times--;
    return NULL;
}

static void refuse(struct device *d, int times)
{
    refusing.real = d->ops;
    refusing.ops = *d->ops;
    refusing.ops.alloc = refuse_first;
    refusing.times = times;
    d->ops = &refusing.ops;
}

struct reel {
    uint8_t rgb[5][32 * 32 * 3];
    int     frames;
};

static int take_frame(void *user, const gv_frame *f)
{
    struct reel *r = user;
    assert_true(f->index == r->frames && f->index < 5);
    for (int y = 0; y < f->height; y++)
        memcpy(r->rgb[r->frames] + (ptrdiff_t)y * f->width * 3, (const uint8_t *)f->pixels + y * f->stride,
               (size_t)f->width * 3);
    r->frames++;
    return 0;
}

static gv_video_request request(const struct studio *s, int model, struct reel *r)
{
    gv_video_request q;
    gv_video_request_init(&q);
    *r = (struct reel){ 0 };
    q.model = s->model[model], q.prompt = "a red fox", q.seed = 7, q.on_frame = take_frame, q.user = r;
    return q;
}

static gv_status render(struct studio *s, int model, struct reel *r)
{
    gv_video_request q = request(s, model, r);
    return gv_video_generate(s->session, &q);
}

static size_t peak_of(uint64_t budget)
{
    struct studio    s;
    struct reel      r;
    gv_estimate      e;
    gv_video_request q;
    studio_open(&s, budget);
    q = request(&s, 0, &r);
    gv_estimate_init(&e);
    const gv_status status = gv_video_estimate(s.session, &q, &e);
    studio_close(&s);
    return status ? 0 : e.device_bytes;
}

/* ---- claims ---- */

static void a_smaller_plan_is_taken_and_told_if_an_allocation_fails(void **state)
{
    (void)state;
    struct studio s;
    struct reel   expected, r;
    studio_open(&s, 0);
    assert_int_equal(render(&s, 0, &expected), GV_OK);
    assert_string_equal(s.warning, "");
    studio_close(&s);
    for (int i = 0; i < 2; i++) {
        studio_open(&s, 0);
        refuse(s.engine->device, i + 1);
        assert_int_equal(render(&s, 0, &r), GV_OK);
        assert_string_equal(gv_session_message(s.session), "");
        assert_int_equal(r.frames, 5);
        assert_memory_equal(r.rgb, expected.rgb, sizeof r.rgb);
        assert_non_null(strstr(s.warning, "starting again"));
        assert_non_null(strstr(s.warning, i ? "layers are streamed" : "each part leaves"));
        char *report = gv_session_report(s.session);
        assert_non_null(strstr(report, i ? "\"weights_streamed\": true" : "\"weights_streamed\": false"));
        gv_free(report);
        studio_close(&s);
    }
}

static void when_no_plan_is_small_enough_it_fails_in_words_and_nothing_stays(void **state)
{
    (void)state;
    struct studio s;
    struct reel   r;
    studio_open(&s, 0);
    refuse(s.engine->device, 1000);
    assert_int_equal(render(&s, 0, &r), GV_ERR_MEMORY);
    assert_non_null(strstr(gv_session_message(s.session), "memory left for"));
    assert_int_equal(r.frames, 0);
    assert_int_equal(atomic_load(&s.engine->device->in_use), 0);
    studio_close(&s);
}

static void parts_that_nobody_pins_make_room_for_another_model(void **state)
{
    (void)state;
    const size_t  whole = peak_of(0);
    struct studio s;
    struct reel   one, other, again;
    studio_open(&s, whole);
    assert_int_equal(render(&s, 0, &one), GV_OK);
    const size_t kept = atomic_load(&s.engine->device->in_use);
    assert_true(kept > 0); /* for a next render of the same model */
    assert_int_equal(render(&s, 1, &other), GV_OK);
    assert_int_equal(atomic_load(&s.engine->device->in_use), kept); /* the first model's are gone */
    assert_int_equal(render(&s, 0, &again), GV_OK);
    assert_memory_equal(one.rgb, other.rgb, sizeof one.rgb);
    assert_memory_equal(one.rgb, again.rgb, sizeof one.rgb);
    assert_string_equal(s.warning, ""); /* the plan knew */
    assert_true(atomic_load(&s.engine->device->peak) <= whole);
    studio_close(&s);
}

static void what_another_render_pins_is_not_counted_as_free(void **state)
{
    (void)state;
    const size_t  whole = peak_of(0);
    struct studio s;
    struct reel   r;
    struct error  e = { 0 };
    studio_open(&s, whole);
    assert_int_equal(gv_weights_pin(s.model[1]->dit->weights, s.engine->device, false, &e), GV_OK);
    assert_int_equal(render(&s, 0, &r), GV_OK); /* smaller, as planned */
    assert_string_equal(s.warning, "");
    assert_true(atomic_load(&s.engine->device->peak) <= whole);
    assert_true(gv_weights_resident(s.model[1]->dit->weights, false) > 0);
    gv_weights_unpin(s.model[1]->dit->weights, s.engine->device, false, true);
    studio_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_smaller_plan_is_taken_and_told_if_an_allocation_fails),
        cmocka_unit_test(when_no_plan_is_small_enough_it_fails_in_words_and_nothing_stays),
        cmocka_unit_test(parts_that_nobody_pins_make_room_for_another_model),
        cmocka_unit_test(what_another_render_pins_is_not_counted_as_free),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
