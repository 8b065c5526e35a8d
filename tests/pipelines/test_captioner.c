/* The captioner that ships, through the public API: what it says of five clips of the world, as transformers says it (tests/reference/captioner.py), which is what is
 * to be seen there; and with three quarters of the clip's tokens left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "pipelines/engine.h"

enum { CLIPS = 5 };

static json_t *wanted;

struct opened {
    gv_engine  *engine;
    gv_model   *model;
    gv_session *session;
};

static void open_all(struct opened *o, const char *precision)
{
    char             why[512] = "";
    gv_engine_params p;
    gv_engine_params_init(&p);
    p.precision = precision;
    assert_int_equal(gv_engine_open(&p, &o->engine, why, sizeof why), GV_OK);
    if (gv_model_load(o->engine, GV_SOURCE_DIR "/assets/models/captioner", &o->model, why, sizeof why))
        fail_msg("%s", why);
    assert_int_equal(gv_session_open(o->engine, &o->session), GV_OK);
}

static void close_all(struct opened *o)
{
    gv_session_close(&o->session);
    gv_engine_close(&o->engine);
}

static char *caption(const struct opened *o, const char *path, const char *prune)
{
    char              *text = NULL;
    const char        *media[] = { path };
    gv_caption_request r;
    gv_caption_request_init(&r);
    r.model = o->model;
    r.media = media;
    r.media_count = 1;
    r.prune = prune;
    if (gv_caption(o->session, &r, &text))
        fail_msg("%s: %s", path, gv_session_message(o->session));
    return text;
}

static const char *field(size_t i, const char *name)
{
    return json_string_value(json_object_get(json_array_get(wanted, i), name));
}

/* Captions that are to the word what `name` says. */
static int same(const struct opened *o, const char *name, const char *prune)
{
    int n = 0;
    for (size_t i = 0; i < CLIPS; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/captioner/%s", GV_TEST_DATA, field(i, "clip"));
        char *text = caption(o, path, prune);
        n += !strcmp(text, field(i, name));
        if (strcmp(text, field(i, name)))
            print_message("  %s: \"%s\", not \"%s\"\n", field(i, "clip"), text, field(i, name));
        gv_free(text);
    }
    return n;
}

static void captions_of_clips_equal_transformers(void **state)
{
    (void)state;
    struct opened o;
    open_all(&o, "f32");
    assert_int_equal(same(&o, "text", NULL), CLIPS);
    close_all(&o);
}

/* In the type that it is stored and run in; the truth, as the picture's labels have it. */
static void captions_say_what_is_to_be_seen(void **state)
{
    (void)state;
    struct opened o;
    open_all(&o, NULL);
    assert_int_equal(same(&o, "truth", NULL), CLIPS);
    assert_true(same(&o, "truth", "25") >= CLIPS - 1);
    close_all(&o);
}

/* The sample clip, which the video model that ships made of these words. */
static void a_made_clip_is_read_back(void **state)
{
    (void)state;
    struct opened o;
    open_all(&o, NULL);
    char *text = caption(&o, GV_SOURCE_DIR "/assets/samples/red-car.mp4", NULL);
    assert_string_equal(text, "A red car drives to the left in the city.");
    gv_free(text);
    close_all(&o);
}

static int set_up(void **state)
{
    (void)state;
    wanted = json_load_file(GV_TEST_DATA "/captioner/captions.json", 0, NULL);
    return json_array_size(wanted) != CLIPS;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(wanted);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captions_of_clips_equal_transformers),
        cmocka_unit_test(captions_say_what_is_to_be_seen),
        cmocka_unit_test(a_made_clip_is_read_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
