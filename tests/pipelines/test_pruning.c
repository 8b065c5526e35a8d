/* The search for settings of pruning: that it finds the top of a hill sooner than chance, what genvid calibrate --pruning writes, that
 * captions read it, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "pipelines/caption.h"
#include "pipelines/pruning.h"
#include "pipelines/search.h"
#include "tests/fixture.h"

/* ---- the search ---- */

struct hill {
    int    asked;
    double x[200][3];
    bool   fails;
};

/* Two hills and a slope in 3 axes; the top, 1, is at (3, -1, 40). */
static double height(const double *x)
{
    const double a = (x[0] - 3) * (x[0] - 3) + (x[1] + 1) * (x[1] + 1) + (x[2] - 40) * (x[2] - 40) / 400,
                 b = (x[0] + 3) * (x[0] + 3) + (x[1] - 2) * (x[1] - 2) + (x[2] - 10) * (x[2] - 10) / 400;
    return fmax(exp(-a / 6), 0.7 * exp(-b / 6));
}

static gv_status climb(void *user, const double *x, double *out, struct error *e)
{
    struct hill *h = user;
    memcpy(h->x[h->asked++], x, sizeof h->x[0]);
    *out = height(x);
    return h->fails && h->asked == 20 ? gv_fail(e, GV_ERR_IO, "the hill is gone") : GV_OK;
}

static bool below(void *user, const double *x)
{
    (void)user;
    return x[0] + x[1] < 4;
}

static struct search hill_search(struct hill *h, uint64_t seed)
{
    return (struct search){ .axes = 3,
                            .least = { -5, -5, 0 },
                            .most = { 5, 5, 50 },
                            .trials = 60,
                            .seed = seed,
                            .possible = below,
                            .value = climb,
                            .user = h };
}

static void a_search_is_higher_up_than_chance_and_asks_what_is_possible(void **state)
{
    (void)state;
    double by_search = 1, by_chance = 0;
    for (uint64_t seed = 0; seed < 5; seed++) {
        struct hill         h = { 0 };
        struct error        e = { 0 };
        const struct search s = hill_search(&h, seed);
        double              best[3], value, chance = 0;
        assert_int_equal(gv_search(&s, best, &value, &e), GV_OK);
        assert_int_equal(h.asked, 60);
        for (int i = 0; i < 60; i++) {
            assert_true(below(NULL, h.x[i]) && height(h.x[i]) <= value);
            for (int k = 0; k < 3; k++)
                assert_true(h.x[i][k] >= s.least[k] && h.x[i][k] <= s.most[k]);
        }
        assert_true(height(best) == value);
        float u[180];
        char  name[32];
        snprintf(name, sizeof name, "chance.%d", (int)seed);
        fixture_fill(u, name, 180, 0.5F, 0.5F);
        for (int i = 0; i < 60; i++)
            chance = fmax(chance, height((double[]){ -5 + 10 * (double)u[3 * i], -5 + 10 * (double)u[3 * i + 1],
                                                     50 * (double)u[3 * i + 2] }));
        by_search = fmin(by_search, value);
        by_chance += chance / 5;
    }
    print_message("  the worst of 5 searches reaches %.4f, the mean of chance %.4f\n", by_search, by_chance);
    assert_true(by_search > 0.97 && by_chance < 0.95);
}

static void a_search_repeats_and_begins_where_it_is_told(void **state)
{
    (void)state;
    static struct hill a, b, c;
    const double       start[3] = { 1, 9, 20 }; /* outside: 9 becomes 5, and 1 + 5 is not possible */
    const double       fine[3] = { -2, -7, 20 };
    double             best[3], value;
    struct error       e = { 0 };
    struct search      s = hill_search(&a, 7);
    s.start = start;
    assert_int_equal(gv_search(&s, best, &value, &e), GV_OK);
    s.user = &b;
    assert_int_equal(gv_search(&s, best, &value, &e), GV_OK);
    assert_memory_equal(a.x, b.x, sizeof a.x);
    assert_true(below(NULL, a.x[0]));
    s.user = &c;
    s.start = fine;
    c.fails = true;
    assert_int_equal(gv_search(&s, best, &value, &e), GV_ERR_IO);
    assert_int_equal(c.asked, 20);
    assert_true(c.x[0][0] == -2 && c.x[0][1] == -5 && c.x[0][2] == 20);
}

static bool never(void *user, const double *x)
{
    (void)user, (void)x;
    return false;
}

static void a_box_without_a_possible_point_is_refused(void **state)
{
    (void)state;
    struct hill   h = { 0 };
    struct error  e = { 0 };
    struct search s = hill_search(&h, 1);
    double        best[3], value;
    s.possible = never;
    assert_int_equal(gv_search(&s, best, &value, &e), GV_ERR_ARGUMENT);
    assert_int_equal(h.asked, 0);
}

/* ---- a model's own settings ---- */

static char folder[256], file[600];

struct opened {
    gv_engine  *engine;
    gv_model   *model;
    gv_session *session;
    char        picture[1024];
    const char *media[2];
};

static void open_all(struct opened *o)
{
    char             why[512] = "", source[512];
    gv_engine_params p;
    fixture_temp(folder);
    snprintf(source, sizeof source, "%s/llava_onevision", GV_TEST_DATA);
    snprintf(o->picture, sizeof o->picture, "%s/picture.png", source);
    snprintf(file, sizeof file, "%s/genvid.pruning.json", folder);
    fixture_model(folder, source, NULL, GV_F32, 0);
    gv_engine_params_init(&p);
    p.precision = "f32";
    assert_int_equal(gv_engine_open(&p, &o->engine, why, sizeof why), GV_OK);
    if (gv_model_load(o->engine, folder, &o->model, why, sizeof why))
        fail_msg("%s", why);
    assert_int_equal(gv_session_open(o->engine, &o->session), GV_OK);
    o->media[0] = o->media[1] = o->picture;
}

static void close_all(struct opened *o)
{
    gv_session_close(&o->session);
    gv_engine_close(&o->engine);
    fixture_remove(folder);
}

static gv_pruning_request request(const struct opened *o)
{
    gv_pruning_request q;
    gv_pruning_request_init(&q);
    q.model = o->model;
    q.media = o->media;
    q.media_count = 2;
    q.trials = 12;
    return q;
}

/* What the decoder makes of the prompt's last token, by the settings or whole. */
static void state_of(const struct opened *o, const struct prune_opts *prune, float *x)
{
    struct caption_job    job;
    struct caption_report p;
    struct error          e = { 0 };
    atomic_bool           cancel = false;
    char                 *text = NULL;
    gv_caption_request    r;
    gv_caption_request_init(&r);
    r.model = o->model;
    r.media = o->media;
    r.media_count = 1;
    assert_int_equal(gv_caption_job_open(&job, &r, &e), GV_OK);
    job.state = x;
    job.prunes = prune != NULL;
    if (prune)
        job.prune = *prune;
    assert_int_equal(gv_caption_plan(&job, &p, &e), GV_OK);
    assert_int_equal(gv_pipeline_caption(&job, &cancel, &p, &text, &e), GV_OK);
    assert_null(text);
    gv_caption_job_close(&job);
}

static double cosine(const float *a, const float *b, int n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

static json_t *report_of(const struct opened *o, const char *prune)
{
    char              *text = NULL;
    gv_caption_request r;
    gv_caption_request_init(&r);
    r.model = o->model;
    r.media = o->media;
    r.media_count = 1;
    r.max_tokens = 3;
    r.prune = prune;
    assert_int_equal(gv_caption(o->session, &r, &text), GV_OK);
    gv_free(text);
    char   *json = gv_session_report(o->session);
    json_t *all = json_loads(json, 0, NULL), *of = json_deep_copy(json_object_get(all, "prune"));
    json_decref(all);
    gv_free(json);
    return of;
}

/* What is written keeps the budget, is what was measured, is no worse than the published settings, and is what captions run with. */
static void found_settings_are_written_and_read(void **state)
{
    (void)state;
    struct opened     o;
    char             *json = NULL;
    struct prune_opts own, published;
    struct error      e = { 0 };
    bool              is_own;
    float             whole[64], pruned[64];
    open_all(&o);
    gv_pruning_request q = request(&o);
    json_t            *before = report_of(&o, "25");
    assert_true(json_is_false(json_object_get(before, "calibrated")));
    json_decref(before);
    if (gv_calibrate_pruning(o.session, &q, &json))
        fail_msg("%s", gv_session_message(o.session));
    json_t *found = json_loads(json, 0, NULL);
    gv_free(json);
    assert_string_equal(json_string_value(json_object_get(found, "path")), file);
    const double likeness = json_real_value(json_object_get(found, "likeness"));
    assert_int_equal(gv_pruning_find(&own, &is_own, folder, "25", &e), GV_OK);
    assert_true(is_own && own.importance.entropy == 0);
    assert_true(fabs(gv_prune_budget(&own, 3) - 0.25) < 1e-6 || (own.keep[2] == 1 && gv_prune_budget(&own, 3) < 0.25));
    state_of(&o, NULL, whole);
    state_of(&o, &own, pruned);
    assert_true(fabs(cosine(whole, pruned, 64) - likeness) < 1e-6); /* both media are one picture */
    assert_int_equal(gv_prune_parse(&published, "25", &e), GV_OK);
    published.keep[2] = (0.75 - published.keep[0] * (1 + published.keep[1])) / (published.keep[0] * published.keep[1]);
    state_of(&o, &published, pruned); /* 3 layers: drops before 1 and 2 */
    assert_true(fabs(cosine(whole, pruned, 64) - json_real_value(json_object_get(found, "published_likeness"))) < 1e-6);
    assert_true(likeness >= json_real_value(json_object_get(found, "published_likeness")));
    json_t *after = report_of(&o, "25"), *other = report_of(&o, "50");
    assert_true(json_is_true(json_object_get(after, "calibrated")) && json_is_false(json_object_get(other, "calibrated")));
    assert_true(fabs(json_real_value(json_object_get(after, "budget")) - gv_prune_budget(&own, 3)) < 1e-9);
    json_decref(after);
    json_decref(other);
    json_decref(found);

    /* another budget, one that has no published settings: the first stays */
    q.percent = 40;
    q.trials = 3;
    q.entropy = 1;
    assert_int_equal(gv_calibrate_pruning(o.session, &q, &json), GV_OK);
    gv_free(json);
    struct prune_opts again;
    assert_int_equal(gv_pruning_find(&again, &is_own, folder, "25", &e), GV_OK);
    assert_memory_equal(&again, &own, sizeof own);
    assert_int_equal(gv_pruning_find(&again, &is_own, folder, "40", &e), GV_OK);
    assert_true(again.importance.entropy != 0);
    assert_int_equal(gv_pruning_find(&again, &is_own, folder, "41", &e), GV_ERR_ARGUMENT);
    close_all(&o);
}

static int stop_soon(void *user, const gv_progress *p)
{
    (void)user;
    assert_string_equal(p->stage, "calibrate");
    return p->done == 5;
}

static void what_cannot_be_chosen_is_refused_and_writes_nothing(void **state)
{
    (void)state;
    struct opened o;
    char         *json;
    open_all(&o);
    gv_pruning_request q = request(&o);
    q.percent = 100;
    assert_int_equal(gv_calibrate_pruning(o.session, &q, &json), GV_ERR_ARGUMENT);
    assert_non_null(strstr(gv_session_message(o.session), "percent is 100"));
    q = request(&o);
    q.trials = 1;
    assert_int_equal(gv_calibrate_pruning(o.session, &q, &json), GV_ERR_ARGUMENT);
    q = request(&o);
    q.media_count = 0;
    assert_int_equal(gv_calibrate_pruning(o.session, &q, &json), GV_ERR_ARGUMENT);
    q = request(&o);
    q.model = NULL;
    assert_int_equal(gv_calibrate_pruning(o.session, &q, &json), GV_ERR_ARGUMENT);
    q = request(&o);
    o.media[1] = "no-such.png";
    assert_int_equal(gv_calibrate_pruning(o.session, &q, &json), GV_ERR_IO);
    o.media[1] = o.picture;
    q.progress = stop_soon;
    assert_int_equal(gv_calibrate_pruning(o.session, &q, &json), GV_ERR_CANCELLED);
    assert_null(json);
    assert_int_not_equal(access(file, F_OK), 0);
    close_all(&o);
}

static void a_file_of_settings_that_is_wrong_is_named(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        { "{\"25\": {\"keep\": [0.3, 0.9], \"cell\": 5, \"sink\": 30, \"entropy\": 0}}", "keep" },
        { "{\"25\": {\"keep\": [0.3, 0.9, 0], \"cell\": 5, \"sink\": 30, \"entropy\": 0}}", "keep" },
        { "{\"25\": {\"keep\": [0.3, 0.9, 1], \"cell\": 0.5, \"sink\": 30, \"entropy\": 0}}", "cell" },
        { "{\"25\": {\"keep\": [0.3, 0.9, 1], \"cell\": 5, \"entropy\": 0}}", "sink" },
        { "{\"25\": 7}", "25" },
        { "{\"25\": ", "genvid.pruning.json" },
        { "[1]", "genvid.pruning.json" },
    };
    fixture_temp(folder);
    snprintf(file, sizeof file, "%s/genvid.pruning.json", folder);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct prune_opts o;
        struct error      e = { 0 };
        bool              own;
        FILE             *f = fopen(file, "w");
        fputs(bad[i][0], f);
        fclose(f);
        assert_int_equal(gv_pruning_find(&o, &own, folder, "25", &e), GV_ERR_MODEL);
        assert_non_null(strstr(e.text, bad[i][1]));
        assert_non_null(strstr(e.text, "genvid.pruning.json"));
        assert_int_equal(gv_pruning_find(&o, &own, folder, "keep=1/1/1", &e), GV_OK); /* asks no file */
        assert_false(own);
    }
    fixture_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_search_is_higher_up_than_chance_and_asks_what_is_possible),
        cmocka_unit_test(a_search_repeats_and_begins_where_it_is_told),
        cmocka_unit_test(a_box_without_a_possible_point_is_refused),
        cmocka_unit_test(found_settings_are_written_and_read),
        cmocka_unit_test(what_cannot_be_chosen_is_refused_and_writes_nothing),
        cmocka_unit_test(a_file_of_settings_that_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
