/* A clip's length takes no memory: three minutes are captioned in what fifteen seconds take, to within LIMIT, by the same number of frames
 * looked at. Each caption runs in a process of its own, whose peak the system knows (ru_maxrss): libav's own memory counts too, which
 * no allocator of ours sees.
 *
 * All frames of the long clip are 420 MB as they are decoded and 27 times LIMIT; those looked at alone, as RGB, 6 MB in either clip.
 * Measured: 35 MB, and 0 to 0.4 MB more. A reader that forgot to let go of its frames took 400 MB more. */
#define _DEFAULT_SOURCE /* wait4 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/sink.h"
#include "pipelines/engine.h"
#include "tests/fixture.h"

enum { W = 480, H = 270, FPS = 12, SHORT = 15, LONG = 180, LOOKS = 16, LIMIT_KB = 15 << 10 };

/* A square that goes round before colours that change: no two frames are alike. */
static void draw(uint8_t *rgb, int t)
{
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            uint8_t  *p = rgb + (y * W + x) * 3;
            const int in = y > 100 && y < 160 && (x + W - t * 5 % W) % W < 60;
            p[0] = (uint8_t)(in ? 220 : x / 3), p[1] = (uint8_t)(in ? 30 : y / 2 + t / 24), p[2] = (uint8_t)(in ? 30 : 120);
        }
}

static int record(const char *path, int seconds)
{
    struct error             e = { 0 };
    struct sink             *s = NULL;
    uint8_t                 *rgb = malloc((size_t)W * H * 3);
    const struct sink_params p = {
        .path = path, .width = W, .height = H, .fps = FPS, .frames = seconds * FPS, .crf = -1, .preset = "ultrafast"
    };
    gv_status st = gv_sink_open(&s, &p, &e);
    for (int t = 0; t < seconds * FPS && !st; t++) {
        draw(rgb, t);
        st = gv_sink_write(s, rgb, &e);
    }
    if (!st)
        st = gv_sink_commit(s, NULL, &e);
    gv_sink_close(&s);
    free(rgb);
    if (st)
        fprintf(stderr, "%s\n", e.text);
    return st != GV_OK;
}

/* The planned peak must be the same too, and all of the clip looked at, LOOKS times. */
static int tell(const char *path, int seconds)
{
    gv_engine         *engine;
    gv_model          *model;
    gv_session        *session;
    gv_engine_params   p;
    gv_caption_request q;
    gv_caption_cost    cost;
    char              *text = NULL;
    gv_engine_params_init(&p);
    p.device = "cpu", p.threads = 2;
    if (gv_engine_open(&p, &engine, NULL, 0) ||
        gv_model_load(engine, GV_SOURCE_DIR "/assets/models/captioner", &model, NULL, 0) || gv_session_open(engine, &session))
        return 2;
    gv_caption_request_init(&q);
    gv_caption_cost_init(&cost);
    q.model = model, q.media = &path, q.media_count = 1, q.max_frames = LOOKS, q.max_tokens = 8;
    const gv_status st = gv_caption_estimate(session, &q, &cost);
    const int       wrong = cost.frames != LOOKS || cost.seconds < seconds - 0.2 || cost.seconds > seconds + 0.2;
    if (st || wrong || gv_caption(session, &q, &text))
        fprintf(stderr, "%d frames of %.2f s: %s\n", cost.frames, cost.seconds, gv_session_message(session));
    const int failed = !text || wrong;
    gv_free(text);
    gv_session_close(&session);
    gv_engine_close(&engine);
    return failed;
}

/* Peak KB of a process that does nothing else. */
static long peak_of(int (*work)(const char *, int), const char *path, int seconds)
{
    struct rusage used;
    int           status = -1;
    const pid_t   child = fork();
    if (!child)
        _exit(work(path, seconds));
    assert_true(child > 0);
    assert_int_equal(wait4(child, &status, 0, &used), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return used.ru_maxrss;
}

static void three_minutes_take_the_memory_of_fifteen_seconds(void **state)
{
    char folder[256], path[300];
    long peak[2];
    (void)state;
    fixture_temp(folder);
    for (int i = 0; i < 2; i++) {
        const int seconds = i ? LONG : SHORT;
        snprintf(path, sizeof path, "%s/%d.mp4", folder, seconds);
        peak_of(record, path, seconds);
        peak[i] = peak_of(tell, path, seconds);
        print_message("  %3d s: peak %.1f MB\n", seconds, (double)peak[i] / 1024);
    }
    fixture_remove(folder);
    assert_true(peak[1] - peak[0] < LIMIT_KB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_minutes_take_the_memory_of_fifteen_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
