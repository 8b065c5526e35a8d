/* Renders that leave something out: memory is predicted to the byte, frames depend on neither threads nor receipts, what leaves
 * nothing out changes nothing, receipts say what happened, refusals name the option. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "pipelines/verify.h"
#include "tests/fixture.h"

static char folder[256]; /* a tiny model; 5 latent frames of 6 x 8 tokens when nothing is asked for */

static int make_model(void **state)
{
    (void)state;
    fixture_temp(folder);
    fixture_model(folder, GV_TEST_DATA "/pipeline_i2v_known", NULL, GV_BF16, 0);
    fixture_sidecar(folder,
                    "{\"text_length\": 64, \"steps\": 6, \"width\": 128, \"height\": 96, \"frames\": 17, \"guidance\": 3}");
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    fixture_remove(folder);
    return 0;
}

/* One render: what was asked for, and what came of it. */
struct take {
    gv_engine  *engine;
    gv_model   *model;
    gv_session *session;
    uint8_t    *rgb;
    size_t      bytes, peak;
    uint64_t    predicted;
    gv_status   status;
    json_t     *report, *receipt;
};

static int take_frame(void *user, const gv_frame *f)
{
    struct take *t = user;
    const size_t n = (size_t)f->width * (size_t)f->height * 3;
    t->rgb = realloc(t->rgb, t->bytes + n);
    memcpy(t->rgb + t->bytes, f->pixels, n);
    t->bytes += n;
    return 0;
}

/* options: "name=value name=value". */
static void render(struct take *t, const char *options, int threads, const char *precision)
{
    char             text[512], why[512] = "", *save = NULL;
    gv_option        option[8];
    gv_engine_params p;
    gv_video_request q;
    gv_estimate      e;

    memset(t, 0, sizeof *t);
    gv_engine_params_init(&p);
    p.threads = threads, p.precision = precision;
    gv_engine_open(&p, &t->engine, why, sizeof why);
    gv_model_load(t->engine, folder, &t->model, why, sizeof why);
    assert_string_equal(why, "");
    gv_session_open(t->engine, &t->session);
    gv_video_request_init(&q);
    q.model = t->model, q.prompt = "a red fox", q.seed = 7, q.on_frame = take_frame, q.user = t, q.options = option;
    snprintf(text, sizeof text, "%s", options);
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *value = strchr(word, '=');
        *value = 0;
        option[q.option_count++] = (gv_option){ word, value + 1 };
    }
    gv_estimate_init(&e);
    t->status = gv_video_estimate(t->session, &q, &e);
    t->predicted = e.device_bytes;
    if (t->status)
        return;
    t->status = gv_video_generate(t->session, &q);
    t->peak = atomic_load(&t->engine->device->peak);
    if (t->status)
        return;
    char *json = gv_session_report(t->session);
    t->report = json_loads(json, 0, NULL);
    t->receipt = json_object_get(t->report, "receipt");
    gv_free(json);
}

static void take_free(struct take *t)
{
    json_decref(t->report);
    free(t->rgb);
    gv_session_close(&t->session);
    gv_engine_close(&t->engine);
}

static void must(struct take *t, const char *options, int threads, const char *precision)
{
    render(t, options, threads, precision);
    if (t->status)
        fail_msg("%s: %s", options, gv_session_message(t->session));
}

static double number(const struct take *t, const char *object, const char *name)
{
    const json_t *from = object ? json_object_get(t->receipt, object) : t->receipt;
    const json_t *value = json_object_get(from, name);
    if (!value)
        fail_msg("the receipt has no %s %s", object ? object : "", name);
    return json_number_value(value);
}

static const char *const ways[] = {
    "attention=radial",
    "attention=bands:temporal=1,keep=0.5",
    "attention=pooled:share=0.5",
    "attention=pooled:share=0.5,every=3,dense_steps=1",
    "attention=antidiagonal:mass=0.5,every=0,drift=0.2",
    "attention=pooled:share=0.5,across=2",
    "attention=pooled:share=0.5,every=3 cache=complement",
    "attention=window:back=64,ahead=64,every=2 cache=complement",
    "cache=easycache:warm=2,thr=10",
    "attention=pooled:share=0.5,every=3 cache=complement+easycache:warm=2,thr=10",
    "cache=firstblock:warm=2,thr=10",
    "attention=strided cache=easycache:warm=2,thr=10",
    "causal=self-forcing attention=pooled:share=0.5",
    "causal=self-forcing cache=flashblock",
    "causal=longlive cache=flashblock:commit=1",
    "causal=self-forcing attention=pooled:share=0.5 cache=flashblock",
    "causal=self-forcing cache=firstblock:warm=1,thr=10",
    "attention=bands:keep=0.5,axes=2,every=2",
    "cache=schedule:110101",
    "causal=self-forcing cache=flashblock:dirty=20",
    "attention=radial receipt=0",
    "attention=radial verify=on",
};
enum { N_WAYS = sizeof ways / sizeof *ways };

static void memory_is_predicted_to_the_byte_and_threads_change_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++) {
        struct take one, three;
        must(&one, ways[i], 1, i % 2 ? "bf16" : "f32");
        must(&three, ways[i], 3, i % 2 ? "bf16" : "f32");
        if (one.predicted != one.peak || three.predicted != three.peak)
            fail_msg("%s: predicted %llu and %llu, taken %zu and %zu", ways[i], (unsigned long long)one.predicted,
                     (unsigned long long)three.predicted, one.peak, three.peak);
        assert_memory_equal(one.rgb, three.rgb, one.bytes);
        take_free(&one);
        take_free(&three);
    }
}

static void what_leaves_nothing_out_changes_nothing(void **state)
{
    static const char *const all[] = { "attention=dense",
                                       "attention=pooled:share=1,every=3",
                                       "attention=window",
                                       "attention=pooled:share=0.1,dense_steps=6",
                                       "attention=pooled:share=0.1,dense_layers=2",
                                       "cache=firstblock:thr=0",
                                       "cache=easycache:thr=0",
                                       "cache=schedule:111111",
                                       "attention=off cache=off" };
    struct take              exact;

    (void)state;
    must(&exact, "", 2, NULL);
    assert_null(exact.receipt);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct take t;
        must(&t, all[i], 2, NULL);
        assert_int_equal(t.bytes, exact.bytes);
        assert_memory_equal(t.rgb, exact.rgb, t.bytes);
        take_free(&t);
    }
    take_free(&exact);
}

/* The order of the tokens changes the order of sums and nothing else. */
static void another_order_of_tokens_is_the_same_clip(void **state)
{
    struct take t;

    (void)state;
    static const char *const orders[] = { "attention=bands:temporal=1,keep=1 verify=on",
                                          "attention=pooled:share=1,order=1 verify=on" };
    for (int i = 0; i < 2; i++) {
        must(&t, orders[i], 2, "f32");
        assert_true(number(&t, "attention", "density") == 1);
        assert_true(number(&t, "verify", "psnr") > 60); /* rounding moves a sample by one here and there at most */
        take_free(&t);
    }
}

static void receipts_do_not_touch_the_frames(void **state)
{
    struct take with, without;

    (void)state;
    must(&with, "attention=radial cache=easycache:warm=2,thr=10 receipt=6", 2, NULL);
    must(&without, "attention=radial cache=easycache:warm=2,thr=10 receipt=0", 2, NULL);
    assert_memory_equal(with.rgb, without.rgb, with.bytes);
    assert_null(json_object_get(without.receipt, "velocity_error"));
    assert_true(number(&with, NULL, "samples") > 0);
    take_free(&with);
    take_free(&without);
}

static void receipts_say_what_happened(void **state)
{
    struct take t;

    (void)state;
    must(&t, "attention=window:back=64,ahead=64,dense_steps=2 receipt=3", 2, NULL);
    assert_true(number(&t, "attention", "calls") == 12); /* 6 steps, 2 layers */
    assert_true(number(&t, "attention", "thinned") == 8);
    const double density = number(&t, "attention", "density");
    assert_true(density > 0.33 && density < 1);
    assert_true(number(&t, "attention", "relative_error") > 0 && number(&t, NULL, "velocity_error") > 0);
    assert_true(number(&t, NULL, "latent_drift") > 0 && number(&t, NULL, "samples") == 3);
    take_free(&t);
    must(&t, "cache=firstblock:warm=2,thr=10,run=2 verify=on", 2, NULL);
    assert_true(number(&t, "steps", "skipped") == 3);
    assert_string_equal(json_string_value(json_object_get(json_object_get(t.receipt, "steps"), "schedule")), "110010");
    assert_true(number(&t, "verify", "psnr") > 5 && number(&t, "verify", "psnr") < 90);
    assert_true(number(&t, "verify", "ssim") < 1 && number(&t, "verify", "worst_ssim") <= number(&t, "verify", "ssim"));
    take_free(&t);
    /* 2 blocks: of 3 and 2 latent frames; 4 steps each, the first block committed; 2 layers, 2 paths */
    must(&t, "causal=self-forcing cache=flashblock", 2, NULL);
    assert_true(number(&t, "attention", "calls") == (4 + 1 + 4) * 2 * 2);
    assert_true(number(&t, "attention", "reused") == 3 * 2 * 2);
    take_free(&t);
}

static void what_cannot_be_is_refused_before_it_starts(void **state)
{
    static const struct {
        const char *options, *words;
    } bad[] = {
        { "attention=tiles", "do not divide the grid" },
        { "attention=tiles:tt=5,th=2,tw=2", "no multiple of 128" },
        { "attention=streaming", "is for text" },
        { "attention=nothing", "there are: dense" },
        { "attention=radial:decay=x", "decay=x" },
        { "cache=nothing", "there are: magcache" },
        { "cache=easycache+firstblock", "another of its kind" },
        { "cache=easycache+", "unknown cache method" },
        { "cache=magcache", "genvid calibrate" },
        { "attention=calibrated", "genvid calibrate" },
        { "cache=teacache", "Wan 2.1" },
        { "cache=schedule:1101", "4 steps for a clip of 6" },
        { "cache=schedule:0111", "the first of them 1" },
        { "cache=complement", "every=4" },
        { "cache=flashblock", "causal" },
        { "causal=self-forcing attention=radial", "whole clip" },
        { "attention=radial receipt=x", "receipt is \"x\"" },
        { "attention=radial verify=maybe", "on and off" },
        { "verify=on", "leaves nothing out" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct take t;
        render(&t, bad[i].options, 1, NULL);
        assert_int_equal(t.status, GV_ERR_ARGUMENT);
        if (!strstr(gv_session_message(t.session), bad[i].words))
            fail_msg("%s: \"%s\" does not say \"%s\"", bad[i].options, gv_session_message(t.session), bad[i].words);
        assert_int_equal(t.bytes, 0);
        take_free(&t);
    }
}

static void the_list_of_shortcuts_is_whole(void **state)
{
    char   *text = gv_shortcuts_describe();
    json_t *list = json_loads(text, 0, NULL);
    int     n = 0;

    (void)state;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *m = json_array_get(list, i), *options = json_object_get(m, "options");
        n += !strcmp(json_string_value(json_object_get(m, "kind")), "cache");
        for (size_t k = 0; k < json_array_size(options); k++) {
            const json_t *o = json_array_get(options, k);
            assert_true(json_number_value(json_object_get(o, "min")) <= json_number_value(json_object_get(o, "max")));
            assert_non_null(json_string_value(json_object_get(o, "help")));
        }
    }
    assert_int_equal(n, 7);
    json_decref(list);
    gv_free(text);
}

/* ---- calibration ---- */

static json_t *calibrated(const char *causal, double mass, gv_status want)
{
    struct take          t;
    gv_video_request     q;
    gv_calibrate_request c;
    gv_option            option = { "causal", causal };
    const char *const    prompts[] = { "a red fox", "a dog" };
    char                *json = NULL;

    render(&t, "attention=nothing", 2, "f32"); /* opens a session */
    gv_video_request_init(&q);
    gv_calibrate_request_init(&c);
    q.model = t.model, q.options = &option, q.option_count = causal != NULL;
    c.video = &q, c.prompts = prompts, c.prompt_count = 2, c.mass = mass;
    const gv_status status = gv_calibrate(t.session, &c, &json);
    if (status != want)
        fail_msg("%s", gv_session_message(t.session));
    json_t *found = json ? json_loads(json, 0, NULL) : NULL;
    gv_free(json);
    take_free(&t);
    return found;
}

static void a_calibration_is_used_and_its_parts_are_kept(void **state)
{
    struct take t;

    (void)state;
    json_t      *clip = calibrated(NULL, 0.5, GV_OK), *causal = calibrated("self-forcing", 0, GV_OK);
    const double density = json_number_value(json_object_get(clip, "density"));
    assert_true(density > 0.25 && density < 1);
    assert_int_equal(json_array_size(json_object_get(clip, "ratios")), 6);
    assert_true(json_object_get(causal, "fresh_heads") && !json_object_get(causal, "density"));
    must(&t, "attention=calibrated", 1, "f32"); /* the causal part came later and did not take it away */
    assert_true(t.predicted == t.peak && number(&t, "attention", "density") < 1);
    take_free(&t);
    must(&t, "cache=magcache:thr=10", 1, "f32");
    assert_true(number(&t, "steps", "skipped") > 0);
    take_free(&t);
    must(&t, "causal=self-forcing cache=flashblock:commit=1", 1, "f32");
    assert_true(t.predicted == t.peak);
    /* 3 of the 4 passes behind the first have something to reuse here: the last block is not committed, the first has no history */
    const double share = json_number_value(json_object_get(causal, "fresh_heads"));
    assert_true(fabs(number(&t, "attention", "fresh_heads") / number(&t, "attention", "heads") - share * 4 / 3) < 1e-9);
    take_free(&t);
    json_decref(clip);
    json_decref(causal);
}

/* Bytes of the file's tensors are changed one after another; a reader refuses or renders, and never reads past an end. */
static void a_broken_calibration_is_refused(void **state)
{
    char           path[512];
    unsigned char *bytes;
    long           size;

    (void)state;
    snprintf(path, sizeof path, "%s/genvid.calibration.safetensors", folder);
    FILE *f = fopen(path, "rb");
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    bytes = malloc((size_t)size);
    assert_int_equal(fread(bytes, 1, (size_t)size, f), size);
    fclose(f);
    const long data = 8 + bytes[0] + 256 * bytes[1];
    for (int i = 0; i < 8; i++) { /* each of the numbers */
        struct calibration *c;
        struct error        e = { 0 };
        unsigned char       was[8];
        memcpy(was, bytes + data + 8 * i, 8);
        for (int way = 0; way < 3; way++) {
            memset(bytes + data + 8 * i, way == 0 ? 0xff : 0, 8);
            bytes[data + 8 * i + (way == 2)] = (unsigned char)(way == 0 ? 0xff : was[0] + 1);
            f = fopen(path, "wb");
            fwrite(bytes, 1, (size_t)size, f);
            fclose(f);
            e = (struct error){ 0 };
            assert_int_equal(gv_calibration_read(&c, folder, 2, 2, &e), GV_ERR_MODEL);
            assert_non_null(strstr(e.text, "genvid calibrate makes a new one"));
            assert_null(c);
        }
        memcpy(bytes + data + 8 * i, was, 8);
    }
    f = fopen(path, "wb");
    fwrite(bytes, 1, (size_t)size, f);
    fclose(f);
    struct calibration *c;
    struct error        e = { 0 };
    assert_int_equal(gv_calibration_read(&c, folder, 2, 2, &e), GV_OK);
    gv_calibration_free(c);
    assert_int_equal(gv_calibration_read(&c, folder, 3, 2, &e), GV_ERR_MODEL); /* another model's */
    remove(path);
    e = (struct error){ 0 };
    assert_int_equal(gv_calibration_read(&c, folder, 2, 2, &e), GV_OK);
    assert_null(c);
    free(bytes);
}

/* ---- measures ---- */

static void ssim_is_1_for_equals_and_known_for_constants(void **state)
{
    uint8_t a[20 * 12 * 3], b[20 * 12 * 3];

    (void)state;
    for (size_t i = 0; i < sizeof a; i++)
        a[i] = (uint8_t)(i * 37);
    assert_true(fabs(gv_ssim(a, a, 20, 12) - 1) < 1e-12);
    assert_true(gv_squared_error(a, a, sizeof a) == 0);
    memset(a, 100, sizeof a);
    memset(b, 110, sizeof b);
    const double c1 = 6.5025; /* without variance only the means count */
    assert_true(fabs(gv_ssim(a, b, 20, 12) - (2.0 * 100 * 110 + c1) / (100 * 100 + 110 * 110 + c1)) < 1e-9);
    assert_true(gv_squared_error(a, b, sizeof a) == 100.0 * sizeof a);
    assert_true(gv_ssim(a, b, 3, 2) < 1); /* smaller than a window */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_predicted_to_the_byte_and_threads_change_nothing),
        cmocka_unit_test(what_leaves_nothing_out_changes_nothing),
        cmocka_unit_test(another_order_of_tokens_is_the_same_clip),
        cmocka_unit_test(receipts_do_not_touch_the_frames),
        cmocka_unit_test(receipts_say_what_happened),
        cmocka_unit_test(what_cannot_be_is_refused_before_it_starts),
        cmocka_unit_test(the_list_of_shortcuts_is_whole),
        cmocka_unit_test(a_calibration_is_used_and_its_parts_are_kept),
        cmocka_unit_test(a_broken_calibration_is_refused),
        cmocka_unit_test(ssim_is_1_for_equals_and_known_for_constants),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
