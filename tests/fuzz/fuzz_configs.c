/* Every JSON file of a checkpoint. An input is a file's name, a newline, and what stands in it: the file is replaced in a tiny
 * model that is otherwise good, and the model is loaded; where that succeeds a small clip is planned, because some fields are
 * only read then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "tests/fixture.h"
#include "tests/fuzz/fuzz.h"

/* model: makes clips from a picture and has every part, its transformer in shards; chat: answers */
static const char *const files[] = {
    "model/model_index.json",
    "model/genvid.json",
    "model/scheduler/scheduler_config.json",
    "model/transformer/config.json",
    "model/transformer/diffusion_pytorch_model.safetensors.index.json",
    "model/vae/config.json",
    "model/text_encoder/config.json",
    "model/image_encoder/config.json",
    "chat/config.json",
    "chat/preprocessor_config.json",
    "chat/generation_config.json",
    "chat/chat_template.json",
    "chat/tokenizer_config.json",
};
enum { N_FILES = sizeof files / sizeof *files };

static struct {
    gv_engine  *engine;
    gv_session *session;
    char       *good[N_FILES]; /* NULL: the file is not there */
    size_t      bytes[N_FILES];
    int         spoiled; /* which file differs from its good text; -1 = none */
} world = { .spoiled = -1 };

static void make(const char *name, const char *golden)
{
    char to[FUZZ_PATH], from[FUZZ_PATH];
    snprintf(to, sizeof to, "%s/%s", fuzz_folder(), name);
    snprintf(from, sizeof from, "%s/%s", GV_TEST_DATA, golden);
    fixture_model(to, from, NULL, GV_BF16, strcmp(name, "model") ? 0 : 1 << 20);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    gv_engine_params p;
    gv_engine_params_init(&p);
    p.threads = 1;
    p.precision = "f32";
    p.cpu_level = "c";
    p.device_budget = 64 << 20;
    if (gv_engine_open(&p, &world.engine, NULL, 0) || gv_session_open(world.engine, &world.session))
        return 1;
    make("model", "pipeline_i2v");
    make("chat", "qwen2_5_vl_caption");
    for (int i = 0; i < N_FILES; i++) {
        char         path[FUZZ_PATH];
        struct error e = { 0 };
        snprintf(path, sizeof path, "%s/%s", fuzz_folder(), files[i]);
        gv_read_file(path, 1 << 20, &world.good[i], &world.bytes[i], &e);
    }
    return 0;
}

static void restore(void)
{
    char path[FUZZ_PATH];
    if (world.spoiled < 0)
        return;
    if (world.good[world.spoiled]) {
        fuzz_file(NULL, files[world.spoiled], world.good[world.spoiled], world.bytes[world.spoiled]);
    } else {
        snprintf(path, sizeof path, "%s/%s", fuzz_folder(), files[world.spoiled]);
        remove(path);
    }
    world.spoiled = -1;
}

static void plan(gv_model *m, const char *picture)
{
    gv_video_request q;
    gv_estimate      out;
    gv_video_request_init(&q);
    gv_estimate_init(&out);
    q.model = m, q.prompt = "a red fox", q.negative_prompt = "grey", q.width = q.height = 32, q.frames = 5;
    q.first_image = picture;
    gv_status status = gv_video_estimate(world.session, &q, &out);
    if (status && !gv_session_message(world.session)[0])
        fuzz_found("a failure without words");
    gv_free(gv_model_describe(m));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = memchr(data, '\n', size < 80 ? size : 80);
    char           folder[FUZZ_PATH], why[512] = "";
    int            file = 0;
    gv_model      *m;
    if (!line)
        return -1; /* not worth keeping */
    const size_t n = (size_t)(line - data);
    while (file < N_FILES && (strlen(files[file]) != n || memcmp(files[file], data, n)))
        file++;
    if (file == N_FILES)
        return -1;
    if (world.spoiled != file)
        restore();
    world.spoiled = file;
    fuzz_file(NULL, files[file], line + 1, size - n - 1);
    snprintf(folder, sizeof folder, "%s/%.*s", fuzz_folder(), (int)strcspn(files[file], "/"), files[file]);
    const gv_status status = gv_model_load(world.engine, folder, &m, why, sizeof why);
    if (status == GV_ERR_INTERNAL || (status && !why[0]))
        fuzz_found("a model is refused without words");
    if (status)
        return 0;
    plan(m, GV_TEST_DATA "/media/rgb.png");
    gv_model_unload(&m);
    return 0;
}
