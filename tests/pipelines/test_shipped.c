/* The model that ships makes what it is asked for: twelve fixed prompts, seed 0, 17 frames of 128 x 128. Read twice: in plain C, without
 * a judge that was trained (contrast, the dominant colour of what moves, and which way it moves), and in words, from the file, by the
 * captioner that ships, which never saw a clip of this model's making: who it is and which way, in one caption. By chance 1 in 96 and
 * fewer than 1 in 2; one sentence for all clips would be right once in twelve.
 *
 * What moves: a pixel's distance from its median over time, as its weight. Colour: the hue of the weighted mean chroma (YIQ, where hues are
 * angles) within 45 degrees of the asked one; by chance 1 in 4. Way: the weighted middle of the last five frames against that of the
 * first five, at least a twentieth of the width; by chance fewer than 1 in 2. True renders of the same twelve labels, two each, measured
 * the same way: all 24 of 24; after a round trip through the VAE colour 23. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipelines/engine.h"
#include "tests/fixture.h"

enum { SIDE = 128, FRAMES = 17, ENDS = 5, N = 12 };
enum { GOOD_CONTRAST = 12, GOOD_COLOUR = 10, GOOD_WAY = 10, GOOD_WORDS = 10 };
#define MIN_CONTRAST 0.06 /* true renders: 0.09 to 0.31 */

static const struct {
    const char *text, *actor;
    double      hue; /* degrees, as in HSV */
    int         way; /* -1 left, 1 right */
} prompts[N] = {
    { "a red car drives to the left on a road", "car", 0, -1 },
    { "a blue car drives to the right in the desert", "car", 215, 1 },
    { "a green t-rex walks to the left in the snow", "t-rex", 120, -1 },
    { "a yellow star moves to the right in space", "star", 52, 1 },
    { "a red butterfly flies to the left in green hills", "butterfly", 0, -1 },
    { "a blue butterfly flies to the right in a meadow", "butterfly", 215, 1 },
    { "a purple octopus swims to the left under water", "octopus", 275, -1 },
    { "a green turtle walks to the right on the beach", "turtle", 120, 1 },
    { "a pink heart moves to the left in the snow", "heart", 325, -1 },
    { "a red robot walks to the right in the forest", "robot", 0, 1 },
    { "a blue helicopter flies to the left in the desert", "helicopter", 215, -1 },
    { "a purple dragon walks to the right in the snow", "dragon", 275, 1 },
};

struct clip {
    float *rgb; /* [FRAMES][SIDE][SIDE][3] in 0..1 */
    int    n;
};

static int take(void *user, const gv_frame *frame)
{
    struct clip *c = user;
    if (frame->preview || c->n == FRAMES || frame->width != SIDE || frame->height != SIDE)
        return !frame->preview;
    float *to = c->rgb + (size_t)c->n++ * SIDE * SIDE * 3;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE * 3; x++)
            *to++ = (float)((const unsigned char *)frame->pixels)[y * frame->stride + x] / 255;
    return 0;
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

struct reading {
    double contrast, hue, travel; /* standard deviation of luma; degrees; of the width */
};

static double luma(const float *p)
{
    return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
}

static double hue_of(double i, double q)
{
    const double r = 0.5 + 0.956 * i + 0.621 * q, g = 0.5 - 0.272 * i - 0.647 * q, b = 0.5 - 1.106 * i + 1.703 * q;
    return fmod(atan2(sqrt(3) * (g - b), 2 * r - g - b) * 180 / 3.14159265358979 + 360, 360);
}

static struct reading read_clip(const float *rgb)
{
    const size_t plane = (size_t)SIDE * SIDE;
    double       sum = 0, squares = 0, chroma[3] = { 0 }, at[2] = { 0 }, weight[2] = { 0 };
    for (size_t k = 0; k < FRAMES * plane; k++) {
        const double y = luma(rgb + 3 * k);
        sum += y, squares += y * y;
    }
    for (size_t k = 0; k < plane; k++) {
        float median[3];
        for (size_t c = 0; c < 3; c++) {
            float v[FRAMES];
            for (size_t t = 0; t < FRAMES; t++)
                v[t] = rgb[(t * plane + k) * 3 + c];
            qsort(v, FRAMES, sizeof *v, ascending);
            median[c] = v[FRAMES / 2];
        }
        for (size_t t = 0; t < FRAMES; t++) {
            const float *p = rgb + (t * plane + k) * 3;
            double       w = fabs(p[0] - median[0]) + fabs(p[1] - median[1]) + fabs(p[2] - median[2]) - 0.15;
            if (w <= 0)
                continue;
            chroma[0] += w * (0.596 * p[0] - 0.274 * p[1] - 0.322 * p[2]);
            chroma[1] += w * (0.211 * p[0] - 0.523 * p[1] + 0.312 * p[2]);
            chroma[2] += w;
            if (t < ENDS || t >= FRAMES - ENDS) {
                at[t >= ENDS] += w * (double)(k % SIDE) / SIDE;
                weight[t >= ENDS] += w;
            }
        }
    }
    const double n = (double)(FRAMES * plane), mean = sum / n;
    return (struct reading){ sqrt(fmax(0, squares / n - mean * mean)),
                             chroma[2] > 0 ? hue_of(chroma[0] / chroma[2], chroma[1] / chroma[2]) : -1,
                             weight[0] > 0 && weight[1] > 0 ? at[1] / weight[1] - at[0] / weight[0] : 0 };
}

static double apart(double a, double b)
{
    const double d = fabs(a - b);
    return d > 180 ? 360 - d : d;
}

/* A picture of a moving square must read as what it is; or the twelve clips below would prove nothing. */
static void a_drawn_square_is_read_right(void **state)
{
    float *rgb = calloc((size_t)FRAMES * SIDE * SIDE * 3, sizeof *rgb);
    (void)state;
    assert_non_null(rgb);
    for (int t = 0; t < FRAMES; t++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                float    *p = rgb + ((size_t)(t * SIDE + y) * SIDE + (size_t)x) * 3;
                const int in = y > 50 && y < 80 && x > 10 + 5 * t && x < 40 + 5 * t;
                p[0] = in ? 0.1f : 0.8f, p[1] = in ? 0.2f : 0.8f, p[2] = in ? 0.9f : 0.7f;
            }
    const struct reading r = read_clip(rgb);
    free(rgb);
    assert_true(apart(r.hue, 215) < 45 && r.travel > 0.3 && r.contrast > 0.05);
}

/* Whether a caption names the actor and the way. */
static bool says(const char *caption, const char *actor, int way)
{
    char        who[64];
    const char *at;
    snprintf(who, sizeof who, " %s ", actor);
    return (at = strstr(caption, who)) && strstr(at, way < 0 ? " to the left " : " to the right ");
}

static bool read_back(gv_session *session, const gv_model *captioner, const char *path, int i)
{
    char              *text;
    gv_caption_request q;
    gv_caption_request_init(&q);
    q.model = captioner, q.media = &path, q.media_count = 1;
    if (gv_caption(session, &q, &text))
        fail_msg("%s", gv_session_message(session));
    const bool right = says(text, prompts[i].actor, prompts[i].way);
    print_message("  %s \"%s\"\n", right ? "     " : "WRONG", text);
    gv_free(text);
    return right;
}

/* What reads the captions must tell right from wrong itself. */
static void a_caption_is_read_right(void **state)
{
    (void)state;
    assert_true(says("A red car drives to the left on a road.", "car", -1));
    assert_false(says("A red car drives to the right on a road.", "car", -1));
    assert_false(says("A red car stands on a road. The camera pans left.", "car", -1));
    assert_false(says("A police cart drives to the left on a road.", "car", -1));
}

static void twelve_prompts_are_answered(void **state)
{
    gv_engine       *engine;
    gv_model        *model, *captioner = NULL;
    gv_session      *session;
    gv_engine_params params;
    char             folder[256], path[300] = "";
    struct clip      clip = { .rgb = malloc((size_t)FRAMES * SIDE * SIDE * 3 * sizeof(float)) };
    int              contrast = 0, colour = 0, way = 0, words = 0;
    char             message[1024] = "";
    (void)state;
    assert_non_null(clip.rgb);
    gv_engine_params_init(&params);
    params.device = "cpu";
    assert_int_equal(gv_engine_open(&params, &engine, NULL, 0), GV_OK);
    if (gv_model_load(engine, GV_SOURCE_DIR "/assets/models", &model, message, sizeof message) || !model->trained) {
        print_message("  the shipped model has no trained weights: nothing to read (%s)\n", message);
        gv_engine_close(&engine);
        free(clip.rgb);
        skip();
    }
    assert_int_equal(gv_session_open(engine, &session), GV_OK);
    fixture_temp(folder);
#ifdef GV_HAVE_FFMPEG
    assert_int_equal(gv_model_load(engine, GV_SOURCE_DIR "/assets/models/captioner", &captioner, NULL, 0), GV_OK);
    snprintf(path, sizeof path, "%s/clip.mp4", folder);
#endif
    for (int i = 0; i < N; i++) {
        gv_video_request q;
        gv_video_request_init(&q);
        q.model = model, q.prompt = prompts[i].text, q.width = q.height = SIDE, q.frames = FRAMES, q.seed = 0;
        q.on_frame = take, q.user = &clip;
        q.output_path = captioner ? path : NULL;
        clip.n = 0;
        assert_int_equal(gv_video_generate(session, &q), GV_OK);
        assert_int_equal(clip.n, FRAMES);
        const struct reading r = read_clip(clip.rgb);
        const int            c = r.hue >= 0 && apart(r.hue, prompts[i].hue) <= 45, w = r.travel * prompts[i].way >= 0.05;
        contrast += r.contrast >= MIN_CONTRAST, colour += c, way += w;
        print_message("  %-52s contrast %.3f  hue %4.0f (asked %3.0f) %-5s travel %+.2f %s\n", prompts[i].text, r.contrast,
                      r.hue, prompts[i].hue, c ? "right" : "WRONG", r.travel, w ? "right" : "WRONG");
        words += captioner && read_back(session, captioner, path, i);
    }
    print_message("  of %d: contrast %d, colour %d, way %d, in words %d\n", N, contrast, colour, way, words);
    fixture_remove(folder);
    gv_session_close(&session);
    gv_engine_close(&engine);
    free(clip.rgb);
    assert_true(contrast >= GOOD_CONTRAST);
    assert_true(colour >= GOOD_COLOUR);
    assert_true(way >= GOOD_WAY);
    assert_true(!captioner || words >= GOOD_WORDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drawn_square_is_read_right),
        cmocka_unit_test(a_caption_is_read_right),
        cmocka_unit_test(twelve_prompts_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
