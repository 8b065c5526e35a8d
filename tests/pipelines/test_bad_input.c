/* What a stranger may hand to the public API: broken models, broken pictures, values out of range, places that cannot be
 * written. One table: what is spoiled → the status, the words that the sentence must hold (file and field), and nothing left
 * in the output folder nor on the device. Every case gets a folder of links to one good tiny model, in which it replaces what
 * it spoils. Cases of GV_OK are what looks wrong and is served, with a line in the log. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "io/image.h"
#include "pipelines/engine.h"
#include "tests/fixture.h"

enum { PATH = 1024, BIG_PROMPT = 2 << 20, SIDE = 16 };

#define DIT "transformer/diffusion_pytorch_model.safetensors"
#define VAE "vae/diffusion_pytorch_model.safetensors"

struct bad;

struct scene {
    const struct bad *bad;
    char              folder[256], model[PATH], out[PATH];
    gv_video_request  q;
    char             *text; /* of a long prompt; owned */
};

struct bad {
    const char *name;
    void (*spoil)(struct scene *s); /* NULL: the request alone is bad */
    const char *file;               /* what it spoils, in the model's folder */
    const char *field, *value;      /* how */
    gv_status   status;
    const char *words[3];
    bool        image;   /* the model that takes a picture */
    bool        renders; /* the fault shows in a render, after the model has loaded */
    /* over the good request, where not zero */
    const char *output, *picture, *prompt, *solver, *noise;
    int         width, height, frames, steps;
    double      fps, guidance, shift;
    long        limit; /* bytes that a file may have */
};

/* ---- the world that all cases share ---- */

static struct {
    gv_engine  *engine, *other;
    gv_session *session;
    gv_model   *foreign;
    char        folder[256], text_model[PATH], image_model[PATH];
    char        log[1 << 16];
    int         n_wrong;
} world;

static void on_log(void *user, gv_log_level level, const char *message)
{
    (void)user, (void)level;
    size_t n = strlen(world.log);
    snprintf(world.log + n, sizeof world.log - n, "%s\n", message);
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    unlink(path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static char *read_bytes(const char *path, size_t *n)
{
    struct error e = { 0 };
    char        *bytes = NULL;
    gv_read_file(path, 1 << 28, &bytes, n, &e);
    assert_string_equal(e.text, "");
    return bytes;
}

static void make_model(char *path, const char *name)
{
    char source[PATH];
    snprintf(path, PATH, "%s/%s", world.folder, name);
    snprintf(source, sizeof source, "%s/%s", GV_TEST_DATA, name);
    fixture_model(path, source, NULL, GV_F32, 0);
    fixture_sidecar(path, "{\"text_length\": 64, \"steps\": 2}");
}

static gv_engine *open_engine(void)
{
    gv_engine       *engine;
    gv_engine_params p;
    char             why[512];
    gv_engine_params_init(&p);
    p.threads = 2;
    p.precision = "f32";
    p.device_budget = 64 << 20;
    p.log = on_log;
    if (gv_engine_open(&p, &engine, why, sizeof why))
        fail_msg("%s", why);
    return engine;
}

static int open_world(void **state)
{
    (void)state;
    char why[512] = "";
    signal(SIGXFSZ, SIG_IGN);
    fixture_temp(world.folder);
    make_model(world.text_model, "pipeline_t2v_expand");
    make_model(world.image_model, "pipeline_i2v_known");
    world.engine = open_engine();
    world.other = open_engine();
    gv_model_load(world.other, world.text_model, &world.foreign, why, sizeof why);
    assert_string_equal(why, "");
    return gv_session_open(world.engine, &world.session);
}

static int close_world(void **state)
{
    (void)state;
    gv_session_close(&world.session);
    gv_engine_close(&world.engine);
    gv_engine_close(&world.other);
    fixture_remove(world.folder);
    return 0;
}

/* ---- a case's own folder ---- */

static void link_files(const char *dst, const char *src)
{
    struct dirent *d;
    DIR           *folder = opendir(src);
    assert_non_null(folder);
    mkdir(dst, 0777);
    while ((d = readdir(folder))) {
        char        from[2 * PATH], to[2 * PATH];
        struct stat info;
        if (d->d_name[0] == '.')
            continue;
        snprintf(from, sizeof from, "%s/%s", src, d->d_name);
        snprintf(to, sizeof to, "%s/%s", dst, d->d_name);
        assert_int_equal(stat(from, &info), 0);
        if (S_ISDIR(info.st_mode))
            link_files(to, from);
        else
            assert_int_equal(symlink(from, to), 0);
    }
    closedir(folder);
}

static char *path_in(const struct scene *s, const char *file)
{
    static char path[2 * PATH];
    snprintf(path, sizeof path, "%s/%s", s->model, file);
    return path;
}

static char *kept(const struct scene *s, const char *file)
{
    char *path = malloc(PATH);
    assert_true(snprintf(path, PATH, "%s/%s", s->folder, file) < PATH);
    return path;
}

static int n_files(const char *path)
{
    struct dirent *d;
    int            n = 0;
    DIR           *folder = opendir(path);
    assert_non_null(folder);
    while ((d = readdir(folder)))
        n += strcmp(d->d_name, ".") && strcmp(d->d_name, "..");
    closedir(folder);
    return n;
}

/* ---- what is spoiled: configs ---- */

static json_t *read_json(const char *path)
{
    json_t *root = json_load_file(path, JSON_DECODE_ANY, NULL);
    assert_non_null(root);
    return root;
}

static void write_json(const char *path, json_t *root)
{
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_ENCODE_ANY);
    write_bytes(path, text, strlen(text));
    free(text);
    json_decref(root);
}

/* .field of .file becomes .value; without a value it goes. */
static void set_field(struct scene *s)
{
    char   *path = path_in(s, s->bad->file);
    json_t *root = read_json(path);
    if (s->bad->value)
        json_object_set_new(root, s->bad->field, json_loads(s->bad->value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(root, s->bad->field);
    write_json(path, root);
}

/* The whole file is .value. */
static void set_file(struct scene *s)
{
    write_bytes(path_in(s, s->bad->file), s->bad->value, strlen(s->bad->value));
}

static void drop_file(struct scene *s)
{
    assert_int_equal(unlink(path_in(s, s->bad->file)), 0);
}

/* ---- tokenizers ---- */

static void nest_deeply(struct scene *s)
{
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH);
    memset(text, '[', DEPTH);
    write_bytes(path_in(s, s->bad->file), text, DEPTH);
    free(text);
}

static void too_many_pieces(struct scene *s)
{
    char   *path = path_in(s, s->bad->file), piece[16];
    json_t *root = read_json(path), *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (int i = 0; i < 600; i++) {
        snprintf(piece, sizeof piece, "x%d", i);
        json_array_append_new(vocab, json_pack("[s, f]", piece, -9.0));
    }
    write_json(path, root);
}

/* ---- safetensors ---- */

struct raw {
    char   *bytes; /* of the file */
    size_t  size, data_at;
    json_t *header;
};

static struct raw raw_open(const char *path)
{
    struct raw r = { 0 };
    uint64_t   header;
    r.bytes = read_bytes(path, &r.size);
    memcpy(&header, r.bytes, 8);
    r.data_at = 8 + (size_t)header;
    r.header = json_loadb(r.bytes + 8, (size_t)header, 0, NULL);
    assert_non_null(r.header);
    return r;
}

static void raw_save(struct raw *r, const char *path)
{
    char    *text = json_dumps(r->header, JSON_COMPACT), *all = malloc(8 + strlen(text) + r->size);
    uint64_t header = strlen(text);
    memcpy(all, &header, 8);
    memcpy(all + 8, text, (size_t)header);
    memcpy(all + 8 + header, r->bytes + r->data_at, r->size - r->data_at);
    write_bytes(path, all, 8 + (size_t)header + r->size - r->data_at);
    free(text);
    free(all);
    free(r->bytes);
    json_decref(r->header);
}

/* .value, a JSON object, is laid over the header's entry .field. */
static void set_entry(struct scene *s)
{
    struct raw r = raw_open(path_in(s, s->bad->file));
    json_t    *over = json_loads(s->bad->value, 0, NULL), *entry = json_object_get(r.header, s->bad->field);
    assert_non_null(over);
    if (entry)
        json_object_update(entry, over);
    else
        json_object_set(r.header, s->bad->field, over);
    json_decref(over);
    raw_save(&r, path_in(s, s->bad->file));
}

static void drop_entry(struct scene *s)
{
    struct raw r = raw_open(path_in(s, s->bad->file));
    assert_int_equal(json_object_del(r.header, s->bad->field), 0);
    raw_save(&r, path_in(s, s->bad->file));
}

/* The file ends .value bytes early. */
static void truncate_file(struct scene *s)
{
    size_t n;
    char  *path = path_in(s, s->bad->file), *bytes = read_bytes(path, &n);
    write_bytes(path, bytes, n - (size_t)atol(s->bad->value));
    free(bytes);
}

static void long_header(struct scene *s)
{
    size_t n;
    char  *path = path_in(s, s->bad->file), *bytes = read_bytes(path, &n);
    memset(bytes, 0xFF, 8);
    write_bytes(path, bytes, n);
    free(bytes);
}

static void repeat_name(struct scene *s)
{
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\","
                                 "\"shape\":[1],\"data_offsets\":[4,8]}}";
    char              all[256] = { sizeof header - 1 };
    memcpy(all + 8, header, sizeof header - 1);
    write_bytes(path_in(s, s->bad->file), all, 8 + sizeof header - 1 + 8);
}

/* The first number of tensor .field is .value. */
static void set_number(struct scene *s)
{
    char      *path = path_in(s, s->bad->file);
    struct raw r = raw_open(path);
    json_t    *at = json_object_get(json_object_get(r.header, s->bad->field), "data_offsets");
    float      value = strtof(s->bad->value, NULL);
    assert_non_null(at);
    memcpy(r.bytes + r.data_at + json_integer_value(json_array_get(at, 0)), &value, 4);
    raw_save(&r, path);
}

static void missing_shard(struct scene *s)
{
    static const char index[] = "{\"weight_map\": {\"a\": \"part-00001-of-00002.safetensors\"}}";
    write_bytes(path_in(s, "transformer/diffusion_pytorch_model.safetensors.index.json"), index, sizeof index - 1);
}

static void climbing_shard(struct scene *s)
{
    static const char index[] = "{\"weight_map\": {\"a\": \"../../secret.safetensors\"}}";
    write_bytes(path_in(s, "transformer/diffusion_pytorch_model.safetensors.index.json"), index, sizeof index - 1);
}

/* A transformer of 8 latent channels, whole in itself, beside a VAE of 16. */
static void other_family(struct scene *s)
{
    static const char *const name[] = { "patch_embedding.weight", "proj_out.weight", "proj_out.bias" };
    static const int         dims[][5] = { { 128, 8, 1, 2, 2 }, { 32, 128 }, { 32 } };
    static const int         rank[] = { 5, 2, 1 };
    char                    *path = path_in(s, DIT);
    struct raw               r = raw_open(path);
    for (int i = 0; i < 3; i++) {
        json_t *entry = json_object_get(r.header, name[i]), *shape = json_array(), *at = json_object_get(entry, "data_offsets");
        json_int_t bytes = 4;
        for (int k = 0; k < rank[i]; k++) {
            bytes *= dims[i][k];
            json_array_append_new(shape, json_integer(dims[i][k]));
        }
        json_object_set_new(entry, "shape", shape);
        json_array_set_new(at, 1, json_integer(json_integer_value(json_array_get(at, 0)) + bytes));
    }
    raw_save(&r, path);
    path = path_in(s, "transformer/config.json");
    json_t *config = read_json(path);
    json_object_set_new(config, "in_channels", json_integer(8));
    json_object_set_new(config, "out_channels", json_integer(8));
    write_json(path, config);
}

/* ---- pictures: .value becomes "picture" in the case's folder ---- */

static void set_picture(struct scene *s)
{
    char *path = kept(s, s->bad->picture);
    write_bytes(path, s->bad->value, strlen(s->bad->value));
    free(path);
}

static uint32_t crc32_of(const unsigned char *p, size_t n)
{
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* A few bytes of PNG that claim 30,000 × 30,000 pixels. */
static void bomb(struct scene *s)
{
    unsigned char png[8 + 25] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x75\x30\0\0\x75\x30\x08\x02";
    uint32_t      crc = crc32_of(png + 12, 17);
    char         *path = kept(s, s->bad->picture);
    for (int i = 0; i < 4; i++)
        png[29 + i] = (unsigned char)(crc >> (24 - 8 * i));
    write_bytes(path, png, sizeof png);
    free(path);
}

static void folder_as_picture(struct scene *s)
{
    char *path = kept(s, s->bad->picture);
    mkdir(path, 0777);
    free(path);
}

/* ---- requests that a table cannot spell ---- */

static void no_prompt(struct scene *s)
{
    s->q.prompt = NULL;
}

static char *long_text(struct scene *s)
{
    s->text = malloc(BIG_PROMPT + 1);
    memset(s->text, 'a', BIG_PROMPT);
    s->text[BIG_PROMPT] = 0;
    return s->text;
}

static void long_prompt(struct scene *s)
{
    s->q.prompt = long_text(s);
}

static void long_negative(struct scene *s)
{
    s->q.negative_prompt = long_text(s);
    s->q.guidance = 3;
}

static void long_negative_unread(struct scene *s)
{
    s->q.negative_prompt = long_text(s);
    s->q.guidance = 1;
}

static void no_model(struct scene *s)
{
    s->q.model = NULL;
}

static void foreign_model(struct scene *s)
{
    s->q.model = world.foreign;
}

static void last_image(struct scene *s)
{
    s->q.last_image = s->q.output_path;
}

static void options(struct scene *s)
{
    static const gv_option option = { "sharpness", "11" };
    s->q.options = &option;
    s->q.option_count = 1;
}

static void second_option(struct scene *s)
{
    static const gv_option two[] = { { "format", "y4m" }, { "sharpness", "11" } };
    s->q.options = two;
    s->q.option_count = 2;
}

static void nameless_option(struct scene *s)
{
    static const gv_option two[] = { { NULL, "1" }, { "format", "y4m" } };
    s->q.options = two;
    s->q.option_count = 2;
}

static void valueless_option(struct scene *s)
{
    static const gv_option option = { "format", NULL };
    s->q.options = &option;
    s->q.option_count = 1;
}

static void options_without_list(struct scene *s)
{
    s->q.option_count = 3;
}

static void cube(struct scene *s)
{
    s->q.view = GV_VIEW_CUBE_3X2;
}

/* ---- the table ---- */

#define BLOCK "blocks.0.ffn.net.2.bias"

/* clang-format off */
static const struct bad cases[] = {
    /* a model's folder */
    { "no such folder", set_file, "model_index.json", NULL, "", GV_ERR_MODEL, .words = { "model_index.json", "not valid JSON" } },
    { "no index", drop_file, "model_index.json", .status = GV_ERR_IO, .words = { "model_index.json", "cannot be opened" } },
    { "another pipeline", set_field, "model_index.json", "_class_name", "\"FluxPipeline\"", GV_ERR_UNSUPPORTED, .words = { "model_index.json", "_class_name", "FluxPipeline" } },
    { "pipeline missing", set_field, "model_index.json", "_class_name", NULL, GV_ERR_MODEL, .words = { "model_index.json", "_class_name", "missing" } },
    { "two experts", set_field, "model_index.json", "transformer_2", "[\"diffusers\", \"WanTransformer3DModel\"]", GV_ERR_UNSUPPORTED, .words = { "model_index.json", "transformer_2" } },
    { "an index that is a list", set_file, "model_index.json", NULL, "[1, 2]", GV_ERR_MODEL, .words = { "model_index.json", "object" } },
    { "a key twice", set_file, "transformer/config.json", NULL, "{\"num_layers\": 1, \"num_layers\": 2}", GV_ERR_MODEL, .words = { "config.json", "num_layers" } },
    { "unknown scheduler", set_field, "scheduler/scheduler_config.json", "_class_name", "\"LCMScheduler\"", GV_ERR_UNSUPPORTED, .words = { "scheduler_config.json", "LCMScheduler" } },
    { "scheduler order", set_field, "scheduler/scheduler_config.json", "solver_order", "99", GV_ERR_MODEL, .words = { "scheduler_config.json", "solver_order", "99" } },
    { "scheduler shift", set_field, "scheduler/scheduler_config.json", "flow_shift", "-3", GV_ERR_MODEL, .words = { "scheduler_config.json", "flow_shift", "-3" } },
    { "corrector off at a step that is none", set_field, "scheduler/scheduler_config.json", "disable_corrector", "[-1]", GV_ERR_MODEL, .words = { "disable_corrector[0]" } },
    { "sidecar with steps of words", set_field, "genvid.json", "steps", "\"many\"", GV_ERR_MODEL, .words = { "genvid.json", "steps", "string" } },
    { "sidecar with 1e300 frames", set_field, "genvid.json", "frames", "1e300", GV_ERR_MODEL, .words = { "genvid.json", "frames" } },
    /* absurd configs */
    { "no layers", set_field, "transformer/config.json", "num_layers", "0", GV_ERR_MODEL, .words = { "transformer/config.json", "num_layers", "0" } },
    { "a billion heads", set_field, "transformer/config.json", "num_attention_heads", "1000000000", GV_ERR_MODEL, .words = { "config.json", "num_attention_heads", "1000000000" } },
    { "an integer past 64 bits", set_file, "transformer/config.json", NULL, "{\"num_layers\": 99999999999999999999}", GV_ERR_MODEL, .words = { "config.json" } },
    { "negative ffn", set_field, "transformer/config.json", "ffn_dim", "-512", GV_ERR_MODEL, .words = { "config.json", "ffn_dim", "-512" } },
    { "eps is not a number", set_file, "transformer/config.json", NULL, "{\"_class_name\": \"WanTransformer3DModel\", \"eps\": NaN}", GV_ERR_MODEL, .words = { "transformer/config.json", "JSON" } },
    { "eps is infinite", set_field, "transformer/config.json", "eps", "1e308", GV_ERR_MODEL, .words = { "config.json", "eps" } },
    { "odd head", set_field, "transformer/config.json", "attention_head_dim", "63", GV_ERR_MODEL, .words = { "config.json", "attention_head_dim", "even" } },
    { "another transformer", set_field, "transformer/config.json", "_class_name", "\"HunyuanVideoTransformer3DModel\"", GV_ERR_UNSUPPORTED, .words = { "transformer/config.json", "HunyuanVideo" } },
    { "more layers than tensors", set_field, "transformer/config.json", "num_layers", "3", GV_ERR_MODEL, .words = { "diffusion_pytorch_model.safetensors", "blocks.2.", "missing" } },
    { "a VAE of Wan 2.2", set_field, "vae/config.json", "is_residual", "true", GV_ERR_UNSUPPORTED, .words = { "vae/config.json", "is_residual" } },
    { "a VAE with too few means", set_field, "vae/config.json", "latents_mean", "[0]", GV_ERR_MODEL, .words = { "vae/config.json", "latents_mean", "16" } },
    { "a VAE with no deviation", set_field, "vae/config.json", "latents_std", "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]", GV_ERR_MODEL, .words = { "vae/config.json", "latents_std[0]" } },
    { "an image VAE", set_field, "vae/config.json", "_class_name", "\"AutoencoderKL\"", GV_ERR_UNSUPPORTED, .words = { "vae/config.json", "AutoencoderKL" } },
    { "z_dim of another VAE", set_field, "vae/config.json", "z_dim", "1000000", GV_ERR_MODEL, .words = { "vae/config.json", "z_dim" } },
    { "a VAE of another family", other_family, .status = GV_ERR_MODEL, .words = { "out_channels is 8", "z_dim 16", "belong together" } },
    { "text encoder of another kind", set_field, "text_encoder/config.json", "model_type", "\"gpt2\"", GV_ERR_UNSUPPORTED, .words = { "text_encoder/config.json", "gpt2" } },
    { "text encoder of another width", set_field, "text_encoder/config.json", "d_model", "4096", GV_ERR_MODEL, .words = { "model.safetensors", "[512, 4096]", "[512, 64]" } },
    /* safetensors */
    { "empty weights", set_file, DIT, NULL, "", GV_ERR_MODEL, .words = { DIT, "0 bytes" } },
    { "weights that are words", set_file, DIT, NULL, "version https://git-lfs.github.com/spec/v1", GV_ERR_MODEL, .words = { DIT, "header" } },
    { "truncated weights", truncate_file, DIT, NULL, "100", GV_ERR_MODEL, .words = { DIT, "truncated" } },
    { "a header longer than the file", long_header, DIT, .status = GV_ERR_MODEL, .words = { DIT, "header claims 18446744073709551615 bytes" } },
    { "tensors that overlap", set_entry, DIT, "ghost", "{\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}", GV_ERR_MODEL, .words = { DIT, "ghost", "overlap" } },
    { "a shape past 64 bits", set_entry, DIT, "ghost", "{\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296, 4], \"data_offsets\": [0, 0]}", GV_ERR_MODEL, .words = { DIT, "ghost", "shape" } },
    { "a negative size", set_entry, DIT, BLOCK, "{\"shape\": [-128]}", GV_ERR_MODEL, .words = { DIT, BLOCK, "shape" } },
    { "a type that lies", set_entry, DIT, BLOCK, "{\"dtype\": \"BF16\"}", GV_ERR_MODEL, .words = { DIT, BLOCK, "256 bytes" } },
    { "an unknown type", set_entry, DIT, BLOCK, "{\"dtype\": \"F4_WEIRD\"}", GV_ERR_MODEL, .words = { DIT, BLOCK, "F4_WEIRD" } },
    { "whole numbers as weights", set_entry, DIT, BLOCK, "{\"dtype\": \"I32\"}", GV_ERR_MODEL, .words = { DIT, BLOCK, "I32" } },
    { "a name twice", repeat_name, DIT, .status = GV_ERR_MODEL, .words = { DIT, "header", "duplicate" } },
    { "a wrong shape", set_entry, DIT, "blocks.1.ffn.net.0.proj.weight", "{\"shape\": [128, 512]}", GV_ERR_MODEL, .words = { DIT, "blocks.1.ffn.net.0.proj.weight is [128, 512]", "wanted [512, 128]" } },
    { "a missing tensor", drop_entry, VAE, "decoder.conv_in.weight", .status = GV_ERR_MODEL, .words = { VAE, "decoder.conv_in.weight", "missing" } },
    { "missing weights", drop_file, VAE, .status = GV_ERR_MODEL, .words = { "/vae", "diffusion_pytorch_model.safetensors" } },
    { "a missing shard", missing_shard, .status = GV_ERR_MODEL, .words = { "index.json", "part-00001-of-00002.safetensors", "not there" } },
    { "a shard outside", climbing_shard, .status = GV_ERR_MODEL, .words = { "index.json", "../../secret.safetensors" } },
    /* tokenizers */
    { "no tokenizer", drop_file, "tokenizer/tokenizer.json", .status = GV_ERR_IO, .words = { "/tokenizer" } },
    { "a tokenizer without end", nest_deeply, "tokenizer/tokenizer.json", .status = GV_ERR_MODEL, .words = { "tokenizer.json", "JSON" } },
    { "a tokenizer of another kind", set_field, "tokenizer/tokenizer.json", "model", "{\"type\": \"WordPiece\", \"vocab\": {}}", GV_ERR_MODEL, .words = { "tokenizer.json", "WordPiece" } },
    { "a vocabulary of numbers", set_field, "tokenizer/tokenizer.json", "model", "{\"type\": \"Unigram\", \"unk_id\": 2, \"vocab\": [1, 2, 3]}", GV_ERR_MODEL, .words = { "tokenizer.json", "model.vocab[0]" } },
    { "an unknown piece that is none", set_field, "tokenizer/tokenizer.json", "model", "{\"type\": \"Unigram\", \"unk_id\": 9, \"vocab\": [[\"a\", 0]]}", GV_ERR_MODEL, .words = { "tokenizer.json", "unk_id" } },
    { "an added token of a huge id", set_field, "tokenizer/tokenizer.json", "added_tokens", "[{\"id\": 2000000000, \"content\": \"<x>\", \"special\": true}]", GV_ERR_MODEL, .words = { "tokenizer.json", "added_tokens[0].id" } },
    { "more pieces than the encoder has", too_many_pieces, "tokenizer/tokenizer.json", .status = GV_ERR_MODEL, .words = { "tokenizer has 725 pieces", "512" } },
    /* weights that are not finite: the place is named, and what was begun is taken back */
    { "a weight that is no number", set_number, DIT, BLOCK, "nan", GV_ERR_MODEL, .words = { "step 1: blocks.0", "not finite" }, .renders = true },
    { "an infinite weight", set_number, DIT, "proj_out.bias", "inf", GV_ERR_MODEL, .words = { "step 1: ", "not finite" }, .renders = true },
    { "a text encoder of no number", set_number, "text_encoder/model.safetensors", "encoder.final_layer_norm.weight", "nan", GV_ERR_MODEL, .words = { "text encoder", "not finite" }, .renders = true },
    { "a decoder of no number", set_number, VAE, "decoder.conv_out.bias", "nan", GV_ERR_MODEL, .words = { "decode frame 0", "not finite" }, .renders = true },
    { "an encoder of no number", set_number, VAE, "quant_conv.bias", "nan", GV_ERR_MODEL, .words = { "encode frame 0", "not finite" }, .renders = true, .image = true, .picture = "good.png" },
    /* requests */
    { "no model", no_model, .status = GV_ERR_ARGUMENT, .words = { "model" }, .renders = true },
    { "a model of another engine", foreign_model, .status = GV_ERR_ARGUMENT, .words = { "model", "another engine" }, .renders = true },
    { "no prompt", no_prompt, .status = GV_ERR_ARGUMENT, .words = { "prompt" }, .renders = true },
    { "a prompt of 2 MiB", long_prompt, .status = GV_ERR_ARGUMENT, .words = { "prompt", "2097152", "1048576" }, .renders = true },
    { "a negative prompt of 2 MiB", long_negative, .status = GV_ERR_ARGUMENT, .words = { "negative_prompt", "2097152" }, .renders = true },
    { "a negative width", .status = GV_ERR_ARGUMENT, .words = { "width", "-32" }, .renders = true, .width = -32 },
    { "a huge width", .status = GV_ERR_ARGUMENT, .words = { "width", "2000000000", "16384" }, .renders = true, .width = 2000000000 },
    { "a huge height", .status = GV_ERR_ARGUMENT, .words = { "height", "20000", "16384" }, .renders = true, .height = 20000 },
    { "negative frames", .status = GV_ERR_ARGUMENT, .words = { "frames", "-2147483648" }, .renders = true, .frames = -2147483647 - 1 },
    { "too many frames", .status = GV_ERR_ARGUMENT, .words = { "frames", "2147483647" }, .renders = true, .frames = 2147483647 },
    { "too many tokens", .status = GV_ERR_ARGUMENT, .words = { "16384x16384", "tokens" }, .renders = true, .width = 16384, .height = 16384, .frames = 99997 },
    { "more than the memory", .status = GV_ERR_MEMORY, .words = { "1024x1024", "MiB", "budget" }, .renders = true, .width = 1024, .height = 1024 },
    { "negative steps", .status = GV_ERR_ARGUMENT, .words = { "steps", "-1" }, .renders = true, .steps = -1 },
    { "too many steps", .status = GV_ERR_ARGUMENT, .words = { "steps", "100000" }, .renders = true, .steps = 100000 },
    { "a negative rate", .status = GV_ERR_ARGUMENT, .words = { "fps", "-16" }, .renders = true, .fps = -16 },
    { "a rate that is no number", .status = GV_ERR_ARGUMENT, .words = { "fps", "nan" }, .renders = true, .fps = NAN },
    { "an infinite rate", .status = GV_ERR_ARGUMENT, .words = { "fps", "inf" }, .renders = true, .fps = INFINITY },
    { "guidance that is no number", .status = GV_ERR_ARGUMENT, .words = { "guidance", "nan" }, .renders = true, .guidance = NAN },
    { "infinite guidance", .status = GV_ERR_ARGUMENT, .words = { "guidance", "inf" }, .renders = true, .guidance = INFINITY },
    { "a shift that is no number", .status = GV_ERR_ARGUMENT, .words = { "shift", "nan" }, .renders = true, .shift = NAN },
    { "an infinite shift", .status = GV_ERR_ARGUMENT, .words = { "shift", "inf" }, .renders = true, .shift = INFINITY },
    { "a negative shift", .status = GV_ERR_ARGUMENT, .words = { "shift", "-5" }, .renders = true, .shift = -5 },
    { "an unknown solver", .status = GV_ERR_ARGUMENT, .words = { "solver", "rk45", "unipc" }, .renders = true, .solver = "rk45" },
    { "an unknown noise", .status = GV_ERR_ARGUMENT, .words = { "noise", "perlin" }, .renders = true, .noise = "perlin" },
    { "an unknown view", cube, .status = GV_ERR_UNSUPPORTED, .words = { "view" }, .renders = true },
    { "an unknown option", options, .status = GV_ERR_ARGUMENT, .words = { "sharpness" }, .renders = true },
    { "an unknown option behind a known one", second_option, .status = GV_ERR_ARGUMENT, .words = { "sharpness" }, .renders = true },
    { "an option without a name", nameless_option, .status = GV_ERR_ARGUMENT, .words = { "options[0]", "name" }, .renders = true },
    { "an option without a value", valueless_option, .status = GV_ERR_ARGUMENT, .words = { "format", "value" }, .renders = true },
    { "a count of options without options", options_without_list, .status = GV_ERR_ARGUMENT, .words = { "option" }, .renders = true },
    /* pictures */
    { "a picture for a model of words", set_field, "model_index.json", "expand_timesteps", "false", GV_ERR_UNSUPPORTED, .words = { "first_image", "text alone" }, .renders = true, .picture = "good.png" },
    { "a last frame", last_image, .status = GV_ERR_UNSUPPORTED, .words = { "last_image" }, .renders = true },
    { "a picture that is not there", .status = GV_ERR_IO, .words = { "no.png" }, .renders = true, .image = true, .picture = "no.png" },
    { "an empty picture", set_picture, NULL, NULL, "", GV_ERR_FORMAT, .words = { "none.png", "empty" }, .renders = true, .image = true, .picture = "none.png" },
    { "words as a picture", set_picture, NULL, NULL, "this is not a picture, whatever its name says", GV_ERR_FORMAT, .words = { "fox.png", "not a picture" }, .renders = true, .image = true, .picture = "fox.png" },
    { "a page as a picture", set_picture, NULL, NULL, "<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"file:///etc/passwd\"/></svg>", GV_ERR_UNSUPPORTED, .words = { "fox.jpg", "not a picture" }, .renders = true, .image = true, .picture = "fox.jpg" },
    { "a playlist as a picture", set_picture, NULL, NULL, "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", GV_ERR_UNSUPPORTED, .words = { "fox.mp4", "not a picture" }, .renders = true, .image = true, .picture = "fox.mp4" },
    { "a list of files as a picture", set_picture, NULL, NULL, "ffconcat version 1.0\nfile /etc/passwd\n", GV_ERR_UNSUPPORTED, .words = { "fox.mkv", "not a picture" }, .renders = true, .image = true, .picture = "fox.mkv" },
    { "a picture cut short", set_picture, NULL, NULL, "\x89PNG\r\n\x1a\n", GV_ERR_FORMAT, .words = { "cut.png" }, .renders = true, .image = true, .picture = "cut.png" },
    { "a bomb", bomb, .status = GV_ERR_FORMAT, .words = { "bomb.png", "30000" }, .renders = true, .image = true, .picture = "bomb.png" },
    { "a folder as a picture", folder_as_picture, .status = GV_ERR_IO, .words = { "fox.png" }, .renders = true, .image = true, .picture = "fox.png" },
    /* outputs */
    { "an unknown extension", .status = GV_ERR_ARGUMENT, .words = { "clip.xyz", "y4m" }, .renders = true, .output = "out/clip.xyz" },
    { "no extension", .status = GV_ERR_ARGUMENT, .words = { "clip", "extension" }, .renders = true, .output = "out/clip" },
    { "no name", .status = GV_ERR_ARGUMENT, .words = { "output" }, .renders = true, .output = "" },
    { "no such place", .status = GV_ERR_IO, .words = { "nowhere/clip.y4m" }, .renders = true, .output = "nowhere/clip.y4m" },
    { "a file as a place", .status = GV_ERR_IO, .words = { "good.png/clip.y4m" }, .renders = true, .output = "good.png/clip.y4m" },
    { "one picture for a clip", .status = GV_ERR_ARGUMENT, .words = { "clip.png", "%04d" }, .renders = true, .frames = 5, .output = "out/clip.png" },
    { "a full disk", .status = GV_ERR_IO, .words = { "clip.y4m" }, .renders = true, .limit = 256 },
#ifdef GV_HAVE_FFMPEG
    { "a full disk under a film", .status = GV_ERR_IO, .words = { "clip.mp4" }, .renders = true, .output = "out/clip.mp4", .limit = 512 },
#endif
    /* what is served */
    { "frames off the grid", .words = { "7 frames", "5 frames are made" }, .renders = true, .frames = 7 },
    { "a size off the grid", .words = { "23x30", "16x32 is made" }, .renders = true, .width = 23, .height = 30 },
    { "a prompt that is not UTF-8", .renders = true, .prompt = "a \xff\xfe fox \xc3" },
    { "an empty prompt", .renders = true, .prompt = "" },
    { "a prompt that is too long for the model", .words = { "prompt", "tokens too long" }, .renders = true,
      .prompt = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty" },
    { "a negative prompt that nobody reads", long_negative_unread, .renders = true },
    { "a picture by a known frame", .renders = true, .image = true, .picture = "good.png" },
};
/* clang-format on */

/* ---- one case ---- */

static void write_good_picture(const struct scene *s)
{
    uint8_t      rgb[24 * 16 * 3];
    struct error e = { 0 };
    char        *path = kept(s, "good.png");
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 7);
    assert_int_equal(gv_image_write(path, rgb, 24, 16, &e), GV_OK);
    free(path);
}

/* The good request, with what the table lays over it. */
static void fill_request(struct scene *s, gv_model *m)
{
    const struct bad *b = s->bad;
    gv_video_request *q = &s->q;
    gv_video_request_init(q);
    q->model = m;
    q->prompt = b->prompt ? b->prompt : "two horses";
    q->width = b->width ? b->width : SIDE, q->height = b->height ? b->height : SIDE;
    q->frames = b->frames ? b->frames : 1;
    q->steps = b->steps;
    q->fps = b->fps, q->shift = b->shift;
    q->guidance = b->guidance != 0 ? b->guidance : 1;
    q->solver = b->solver, q->noise = b->noise;
    q->output_path = b->output && !*b->output ? strdup("") : kept(s, b->output ? b->output : "out/clip.y4m");
    q->first_image = b->picture ? kept(s, b->picture) : NULL;
}

static void free_request(struct scene *s)
{
    free((void *)(uintptr_t)s->q.output_path);
    free((void *)(uintptr_t)s->q.first_image);
    free(s->text);
}

static gv_status render(struct scene *s, gv_model *m, bool request_too)
{
    const struct bad *b = s->bad;
    struct rlimit     before, after;
    fill_request(s, m);
    if (b->spoil && request_too)
        b->spoil(s);
    getrlimit(RLIMIT_FSIZE, &before);
    after = before;
    if (b->limit) {
        after.rlim_cur = (rlim_t)b->limit;
        setrlimit(RLIMIT_FSIZE, &after);
    }
    gv_status status = gv_video_generate(world.session, &s->q);
    setrlimit(RLIMIT_FSIZE, &before);
    if (status == GV_ERR_ARGUMENT && !b->output) { /* an estimate refuses the same */
        gv_estimate e;
        gv_estimate_init(&e);
        assert_int_equal(gv_video_estimate(world.session, &s->q, &e), status);
    }
    return status;
}

/* A case that goes wrong is told and counted; the others are tried all the same. */
static void GV_PRINTF(2, 3) wrong(const struct bad *b, const char *fmt, ...)
{
    char    text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    print_error("  %s: %s\n", b->name, text);
    world.n_wrong++;
}

static void check_words(const struct bad *b, const char *text)
{
    for (size_t i = 0; i < sizeof b->words / sizeof *b->words && b->words[i]; i++)
        if (!strstr(text, b->words[i]))
            wrong(b, "\"%s\" is not in: %s", b->words[i], text);
}

static void check_case(const struct scene *s, gv_status status, const char *why)
{
    const struct bad *b = s->bad;
    print_message("  %-42s %-18s %.150s\n", b->name, gv_status_name(status), why);
    if (status != b->status)
        wrong(b, "%s instead of %s: %s", gv_status_name(status), gv_status_name(b->status), why);
    if (!status != !*why || strchr(why, '\n'))
        wrong(b, "not a sentence: %s", why);
    check_words(b, status ? why : world.log);
    if (n_files(s->out) != (status || !b->renders ? 0 : 1))
        wrong(b, "%d files in the output folder", n_files(s->out));
    if (atomic_load(&world.engine->device->in_use))
        wrong(b, "%zu bytes stay on the device", atomic_load(&world.engine->device->in_use));
}

static void run_case(const struct bad *b)
{
    struct scene s = { .bad = b };
    gv_model    *m = NULL;
    char         why[768] = "";
    world.log[0] = 0;
    fixture_temp(s.folder);
    snprintf(s.model, sizeof s.model, "%s/model", s.folder);
    snprintf(s.out, sizeof s.out, "%s/out", s.folder);
    mkdir(s.out, 0777);
    link_files(s.model, b->image ? world.image_model : world.text_model);
    write_good_picture(&s);
    bool of_files = b->file || b->spoil == missing_shard || b->spoil == climbing_shard || b->spoil == other_family;
    if (of_files)
        b->spoil(&s);
    gv_status status = gv_model_load(world.engine, s.model, &m, why, sizeof why);
    if (b->renders && status) {
        wrong(b, "does not load");
    } else if (b->renders) {
        status = render(&s, m, !of_files);
        snprintf(why, sizeof why, "%s", gv_session_message(world.session));
        free_request(&s);
    }
    gv_model_unload(&m);
    check_case(&s, status, why);
    fixture_remove(s.folder);
}

static void every_bad_input_is_told_in_a_sentence_and_leaves_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_case(&cases[i]);
    print_message("  %zu cases, %d wrong\n", sizeof cases / sizeof *cases, world.n_wrong);
    assert_int_equal(world.n_wrong, 0);
}

/* ---- beside the table ---- */

static int count_frames(void *user, const gv_frame *frame)
{
    assert_non_null(frame->pixels);
    ++*(int *)user;
    return 0;
}

static void load_good(gv_model **m)
{
    char why[512] = "";
    gv_model_load(world.engine, world.text_model, m, why, sizeof why);
    assert_string_equal(why, "");
}

/* The first bytes of a struct in a block of just that size: reading past it is caught by the sanitizer. Filled through a whole
 * struct, because the compiler warns of a pointer to half of one. */
static void *cut(const void *whole, size_t size)
{
    void *block = malloc(size);
    assert_non_null(block);
    return memcpy(block, whole, size);
}

/* An older caller's struct ends before fields that came later; a newer caller's goes on behind ours. */
static void structs_of_other_sizes_are_served(void **state)
{
    (void)state;
    struct {
        gv_video_request q;
        char             later[64];
    } newer;
    const size_t     old_size = offsetof(gv_video_request, solver), small = offsetof(gv_estimate, flops);
    gv_video_request now;
    gv_model        *m;
    gv_estimate      e, had;
    int              frames = 0;
    load_good(&m);
    gv_video_request_init_(&now, old_size);
    now.model = m, now.prompt = "two horses", now.width = now.height = SIDE, now.frames = 5, now.guidance = 1;
    gv_video_request *older = cut(&now, old_size);
    assert_int_equal(gv_video_generate(world.session, older), GV_OK);
    gv_estimate_init(&e);
    assert_int_equal(gv_video_estimate(world.session, older, &e), GV_OK);
    assert_int_equal(e.frames, 5);
    memset(&had, 0, sizeof had);
    gv_estimate_init_(&had, small);
    gv_estimate *short_estimate = cut(&had, small);
    assert_int_equal(gv_video_estimate(world.session, older, short_estimate), GV_OK);
    memcpy(&had, short_estimate, small);
    assert_int_equal(had.tokens, e.tokens);
    assert_int_equal(had.struct_size, small);
    memset(&newer, 0xA5, sizeof newer);
    gv_video_request_init_(&newer.q, sizeof newer);
    newer.q.model = m, newer.q.prompt = "two horses", newer.q.width = newer.q.height = SIDE, newer.q.frames = 5,
    newer.q.guidance = 1;
    newer.q.on_frame = count_frames, newer.q.user = &frames;
    assert_int_equal(gv_video_generate(world.session, &newer.q), GV_OK);
    assert_int_equal(frames, 5);
    gv_model_unload(&m);
    free(older);
    free(short_estimate);
}

/* After a failure the same session renders again, and its message is empty again. */
static void a_session_recovers(void **state)
{
    (void)state;
    gv_model        *m;
    gv_video_request q;
    load_good(&m);
    gv_video_request_init(&q);
    q.model = m, q.prompt = "two horses", q.width = q.height = SIDE, q.frames = 1, q.guidance = 1, q.solver = "none";
    assert_int_equal(gv_video_generate(world.session, &q), GV_ERR_ARGUMENT);
    assert_true(*gv_session_message(world.session));
    q.solver = NULL;
    assert_int_equal(gv_video_generate(world.session, &q), GV_OK);
    assert_string_equal(gv_session_message(world.session), "");
    gv_model_unload(&m);
}

static void engines_refuse_what_they_do_not_know(void **state)
{
    (void)state;
    static const struct {
        const char *device, *precision, *level;
        int         threads;
        gv_status   status;
        const char *word;
    } wrong[] = {
        { "quantum", NULL, NULL, 0, GV_ERR_UNSUPPORTED, "quantum" }, { NULL, "f13", NULL, 0, GV_ERR_ARGUMENT, "f13" },
        { NULL, NULL, "sse9", 0, GV_ERR_ARGUMENT, "sse9" },          { NULL, NULL, NULL, -1, GV_ERR_ARGUMENT, "threads" },
        { NULL, NULL, NULL, 257, GV_ERR_ARGUMENT, "257" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        gv_engine_params p;
        gv_engine       *engine;
        char             why[512] = "";
        gv_engine_params_init(&p);
        p.device = wrong[i].device, p.precision = wrong[i].precision, p.cpu_level = wrong[i].level,
        p.threads = wrong[i].threads;
        gv_status status = gv_engine_open(&p, &engine, why, sizeof why);
        if (status != wrong[i].status || !strstr(why, wrong[i].word))
            fail_msg("%s: %s", gv_status_name(status), why);
        assert_null(engine);
    }
}

static void a_model_is_refused_without_a_path_or_a_place_for_words(void **state)
{
    (void)state;
    gv_model *m = NULL;
    char      why[512] = "", little[8];
    assert_int_equal(gv_model_load(world.engine, NULL, &m, why, sizeof why), GV_ERR_ARGUMENT);
    assert_non_null(strstr(why, "path"));
    assert_null(m);
    assert_int_equal(gv_model_load(world.engine, "", &m, NULL, 0), GV_ERR_IO);
    assert_int_equal(gv_model_load(world.engine, "/no/such/model", &m, little, sizeof little), GV_ERR_IO);
    assert_true(strlen(little) == sizeof little - 1);
    char *path = malloc(10001);
    memset(path, 'x', 10000);
    path[10000] = 0;
    assert_int_equal(gv_model_load(world.engine, path, &m, why, sizeof why), GV_ERR_IO);
    assert_non_null(strstr(why, "too long"));
    free(path);
}

/* An extension that nobody writes is told before a weight is on the device. */
static void an_unknown_extension_is_refused_before_anything_loads(void **state)
{
    (void)state;
    gv_model        *m;
    gv_video_request q;
    load_good(&m);
    gv_video_request_init(&q);
    q.model = m, q.prompt = "two horses", q.width = q.height = SIDE, q.frames = 5, q.output_path = "clip.doc";
    atomic_store(&world.engine->device->peak, 0);
    assert_int_equal(gv_video_generate(world.session, &q), GV_ERR_ARGUMENT);
    assert_int_equal(atomic_load(&world.engine->device->peak), 0);
    gv_model_unload(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_input_is_told_in_a_sentence_and_leaves_nothing),
        cmocka_unit_test(structs_of_other_sizes_are_served),
        cmocka_unit_test(a_session_recovers),
        cmocka_unit_test(engines_refuse_what_they_do_not_know),
        cmocka_unit_test(a_model_is_refused_without_a_path_or_a_place_for_words),
        cmocka_unit_test(an_unknown_extension_is_refused_before_anything_loads),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
