/* The public calls: every field of a request from the bytes, in structs of every size that a caller may have compiled, and
 * callbacks that cancel. Requests that pass and are small are run, on tiny models; the rest are estimated. */
#include <stdlib.h>
#include <string.h>

#include "pipelines/engine.h"
#include "tests/fixture.h"
#include "tests/fuzz/fuzz.h"

static struct {
    gv_engine  *engine;
    gv_model   *video, *chat;
    gv_session *session;
} world;

static gv_model *load(const char *golden)
{
    char      path[FUZZ_PATH], from[FUZZ_PATH], why[512] = "";
    gv_model *m = NULL;
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), golden);
    snprintf(from, sizeof from, "%s/%s", GV_TEST_DATA, golden);
    fixture_model(path, from, NULL, GV_BF16, 0);
    if (gv_model_load(world.engine, path, &m, why, sizeof why))
        fuzz_found(why);
    return m;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    gv_engine_params p;
    gv_engine_params_init(&p);
    p.threads = 1, p.precision = "f32", p.device_budget = 32 << 20;
    if (gv_engine_open(&p, &world.engine, NULL, 0) || gv_session_open(world.engine, &world.session))
        return 1;
    world.video = load("pipeline_t2v_expand");
    world.chat = load("qwen2_5_vl_caption");
    return 0;
}

/* ---- callbacks: the user is a count of calls after which to cancel ---- */

static int countdown(void *user)
{
    int *left = user;
    return left && (*left)-- <= 0; /* a short request has no user */
}

static int on_progress(void *user, const gv_progress *p)
{
    if (!p->stage || p->done < 0 || p->done > p->total)
        fuzz_found("progress that cannot be");
    return countdown(user);
}

static int on_frame(void *user, const gv_frame *f)
{
    for (int y = 0; y < f->height; y++)
        fuzz_touch((const char *)f->pixels + y * f->stride, (size_t)f->width * 3);
    return countdown(user);
}

static int on_text(void *user, const char *utf8, size_t bytes)
{
    fuzz_touch(utf8, bytes);
    return countdown(user);
}

/* ---- fields ---- */

/* Small numbers mostly, and any at all. */
static int any_int(struct fuzz_bytes *b)
{
    const int kind = (int)fuzz_uint(b, 1);
    return kind < 240 ? kind : (int32_t)fuzz_uint(b, 4);
}

static double any_double(struct fuzz_bytes *b)
{
    const int kind = (int)fuzz_uint(b, 1);
    uint64_t  bits = kind < 240 ? 0 : fuzz_uint(b, 8);
    double    x = kind / 8.0 - 1;
    if (kind >= 240)
        memcpy(&x, &bits, sizeof x);
    return x;
}

enum { TEXTS = 16 };
struct words {
    char *text[TEXTS];
    int   n;
};

/* NULL where the bytes say so. */
static const char *any_text(struct fuzz_bytes *b, struct words *w)
{
    if (fuzz_uint(b, 1) & 1)
        return NULL;
    return w->text[w->n++] = fuzz_text(b, 600);
}

static const char *chosen(struct fuzz_bytes *b, struct words *w, const char *const *names, size_t n)
{
    const size_t i = (size_t)fuzz_uint(b, 1);
    return i < n ? names[i] : any_text(b, w);
}
#define CHOSEN(b, w, ...)                                                                                                      \
    chosen(b, w, (const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

/* A copy in a block of exactly the size that the caller says it has: reads behind it are seen. */
static void *as_compiled(const void *q, size_t full, size_t size)
{
    void *own = malloc(size);
    if (!own)
        fuzz_found("no memory for a request");
    memcpy(own, q, size < full ? size : full);
    if (size > full)
        memset((char *)own + full, 0xaa, size - full);
    memcpy(own, &size, sizeof size);
    return own;
}

static void check_call(gv_status status)
{
    const char *why = gv_session_message(world.session);
    if (status == GV_ERR_INTERNAL)
        fuzz_found(why);
    if (!status != !why[0])
        fuzz_found("the code and the sentence disagree");
}

/* ---- the calls ---- */

static void call_video(struct fuzz_bytes *b, struct words *w)
{
    gv_video_request q;
    gv_option        options[4];
    gv_estimate      out;
    const size_t     size = sizeof q - (fuzz_uint(b, 1) & 3) * 8 + (fuzz_uint(b, 1) & 1) * 24;
    int              left = (int)fuzz_uint(b, 1);
    gv_video_request_init(&q);
    gv_estimate_init(&out);
    q.option_count = fuzz_uint(b, 1) & 3;
    q.model = fuzz_uint(b, 1) == 255 ? (fuzz_uint(b, 1) & 1 ? world.chat : NULL) : world.video;
    q.width = any_int(b), q.height = any_int(b), q.frames = any_int(b), q.steps = any_int(b);
    q.fps = any_double(b), q.guidance = any_double(b), q.shift = any_double(b);
    q.seed = fuzz_uint(b, 8);
    q.solver = CHOSEN(b, w, NULL, "unipc", "euler", "dpm++");
    q.noise = CHOSEN(b, w, NULL, "genvid", "torch-cpu", "torch-cuda", "torch-cuda:1x256");
    q.first_image = CHOSEN(b, w, NULL, GV_TEST_DATA "/media/rgb.png", GV_TEST_DATA "/media/left.mp4", GV_TEST_DATA);
    q.last_image = CHOSEN(b, w, NULL, GV_TEST_DATA "/media/rgb.png");
    for (size_t i = 0; i < q.option_count; i++)
        options[i] = (gv_option){ CHOSEN(b, w, "causal", "schedule", "format"),
                                  CHOSEN(b, w, "self-forcing", "longlive", "on", "off", "y4m", "rgb", "wan-unipc") };
    q.options = options;
    q.view = (gv_view)(fuzz_uint(b, 1) == 7);
    q.prompt = any_text(b, w);
    q.negative_prompt = any_text(b, w);
    q.on_frame = on_frame, q.progress = on_progress, q.user = &left;
    gv_video_request *own = as_compiled(&q, sizeof q, size);
    const gv_status   status = gv_video_estimate(world.session, own, &out);
    check_call(status);
    if (!status && (out.width < 1 || out.frames < 1 || out.steps < 1 || !(out.flops > 0)))
        fuzz_found("an estimate that cannot be");
    if (!status && out.flops < 5e7)
        check_call(gv_video_generate(world.session, own));
    gv_free(gv_session_report(world.session));
    free(own);
}

static void call_caption(struct fuzz_bytes *b, struct words *w)
{
    static const char *const media[] = { GV_TEST_DATA "/media/rgb.png", GV_TEST_DATA "/media/grey.jpg", GV_TEST_DATA, NULL };
    gv_caption_request       q;
    const size_t             size = sizeof q - (fuzz_uint(b, 1) & 3) * 8 + (fuzz_uint(b, 1) & 1) * 24;
    int                      left = (int)fuzz_uint(b, 1);
    char                    *text = NULL;
    gv_caption_request_init(&q);
    q.model = fuzz_uint(b, 1) == 255 ? world.video : world.chat;
    q.media = media + (fuzz_uint(b, 1) & 3);
    q.media_count = fuzz_uint(b, 1) % (size_t)(4 - (q.media - media) + 1);
    q.max_tokens = any_int(b);
    q.max_tokens = q.max_tokens > 6 && q.max_tokens < 5000 ? 6 : q.max_tokens; /* what the context holds takes long */
    q.temperature = any_double(b), q.top_p = any_double(b), q.repetition_penalty = any_double(b);
    q.top_k = any_int(b);
    q.seed = fuzz_uint(b, 8);
    q.question = any_text(b, w);
    q.on_text = on_text, q.progress = on_progress, q.user = &left;
    gv_caption_request *own = as_compiled(&q, sizeof q, size);
    const gv_status     status = gv_caption(world.session, own, &text);
    check_call(status);
    if (!status != !!text)
        fuzz_found("text without success, or success without text");
    gv_free(text);
    free(own);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes b = { data, size };
    struct words      w = { 0 };
    if (fuzz_uint(&b, 1) < 192)
        call_video(&b, &w);
    else
        call_caption(&b, &w);
    for (int i = 0; i < w.n; i++)
        free(w.text[i]);
    return 0;
}
