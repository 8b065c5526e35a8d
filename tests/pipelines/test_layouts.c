/* One set of golden weights in every layout gives the same frames to the bit: a diffusers directory; Wan's own, with .pth; one
 * file as ComfyUI saves it. And the names that Wan's files have, against the list made by the reference's own conversion code
 * (golden/layouts/names.tsv: family, ours, theirs). Layouts also choose rules (schedule, resizing); here those are made equal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "diffusion/names.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "pipelines/video.h"
#include "tests/fixture.h"

static void names_are_those_of_wan(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        gv_name_map map;
        int         param;
    } maps[] = { { "dit", gv_names_wan_dit, 0 },
                 { "umt5", gv_names_wan_umt5, 0 },
                 { "clip", gv_names_wan_clip, 0 },
                 { "vae", gv_names_wan_vae, 4 } };
    char path[512], line[1024];
    int  n = 0;
    snprintf(path, sizeof path, "%s/layouts/names.tsv", GV_TEST_DATA);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char              *save, *family = strtok_r(line, "\t", &save), *ours = strtok_r(NULL, "\t", &save);
        char              *theirs = strtok_r(NULL, "\t\n", &save);
        struct stored_name out;
        for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
            if (!strcmp(maps[i].family, family)) {
                if (!strcmp(ours, theirs)) /* patch_embedding: found without a map */
                    continue;
                assert_true(maps[i].map(&out, ours, maps[i].param));
                assert_string_equal(out.text, theirs);
                assert_int_equal(out.parts, strstr(theirs, "to_qkv") && !strcmp(family, "clip") ? 3 : 1);
                n++;
            }
    }
    fclose(f);
    print_message("  %d names\n", n);
    assert_true(n > 300);
}

/* ---- the same weights under other names ---- */

struct part {
    struct tensor_file f;
    struct st_entry    t[2048];
    int                n;
};

static int find_name(const struct part *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->t[i].name, name))
            return i;
    return -1;
}

/* Everything in ours/FOLDER/STEM.safetensors as prefix + map(name); parts of rows are joined. map NULL: names stay. */
static struct part *part_open(const char *ours, const char *file, const char *prefix, gv_name_map map, int param)
{
    char         path[600], full[512];
    struct error e = { 0 };
    struct part *p = calloc(1, sizeof *p);
    snprintf(path, sizeof path, "%s/%s", ours, file);
    gv_tensor_file_open(&p->f, path, &gv_file_safetensors, &e);
    assert_string_equal(e.text, "");
    for (int i = 0; i < p->f.n; i++) {
        const struct st_entry *s = &p->f.entry[i];
        const char            *name = strncmp(s->name, "vision_model.", 13) ? s->name : s->name + 13;
        struct stored_name     as = { .parts = 1 };
        bool                   mapped = map && map(&as, name, param);
        snprintf(full, sizeof full, "%s%s", prefix, mapped ? as.text : name);
        int k = find_name(p, full);
        if (k < 0) {
            k = p->n++;
            p->t[k] = *s;
            p->t[k].name = strdup(full);
            p->t[k].bytes *= (size_t)as.parts;
            p->t[k].dim[0] *= as.parts;
            p->t[k].data = malloc(p->t[k].bytes + 1);
        }
        memcpy((char *)(uintptr_t)p->t[k].data + (size_t)as.part * s->bytes, s->data, s->bytes);
    }
    return p;
}

static void part_close(struct part *p)
{
    for (int i = 0; i < p->n; i++) {
        free(p->t[i].name);
        free((void *)(uintptr_t)p->t[i].data);
    }
    gv_tensor_file_close(&p->f);
    free(p);
}

static void save_safetensors(struct part *p, const char *dir, const char *name)
{
    char         path[600];
    struct error e = { 0 };
    snprintf(path, sizeof path, "%s/%s", dir, name);
    gv_safetensors_write(path, p->t, p->n, &e);
    assert_string_equal(e.text, "");
    part_close(p);
}

/* ---- torch.save, as far as a dictionary of f32 tensors goes ---- */

struct text {
    unsigned char *at;
    size_t         n, room;
};

static void put(struct text *o, const void *bytes, size_t n)
{
    if (o->n + n > o->room)
        o->at = realloc(o->at, o->room = 2 * (o->n + n));
    memcpy(o->at + o->n, bytes, n);
    o->n += n;
}

static void put_number(struct text *o, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        put(o, &(unsigned char){ (unsigned char)(i < 8 ? v >> 8 * i : 0) }, 1);
}

static void put_text(struct text *o, const char *s)
{
    put(o, "X", 1);
    put_number(o, strlen(s), 4);
    put(o, s, strlen(s));
}

static void put_int(struct text *o, uint64_t v)
{
    put(o, "J", 1);
    put_number(o, v, 4);
}

static void put_line(struct text *o, const char *s)
{
    put(o, s, strlen(s));
}

static void put_tensor(struct text *o, const struct st_entry *t, int key)
{
    char number[16];
    snprintf(number, sizeof number, "%d", key);
    put_text(o, t->name);
    put_line(o, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(o, "storage");
    put_line(o, "ctorch\nFloatStorage\n");
    put_text(o, number);
    put_text(o, "cpu");
    put_int(o, t->bytes / 4);
    put_line(o, "tQ");
    put_int(o, 0);
    put_line(o, "(");
    for (int i = 0; i < t->rank; i++)
        put_int(o, (uint64_t)t->dim[i]);
    put_line(o, "t(");
    for (int i = 0; i < t->rank; i++) {
        int64_t stride = 1;
        for (int k = i + 1; k < t->rank; k++)
            stride *= t->dim[k];
        put_int(o, (uint64_t)stride);
    }
    put_line(o, "t\x89"
                "ccollections\nOrderedDict\n)RtR");
}

static void put_record(struct text *file, struct text *directory, const char *name, const void *bytes, size_t n)
{
    size_t at = file->n;
    put_number(file, 0x04034b50, 4);
    put_number(file, 0, 14);
    put_number(file, n, 4);
    put_number(file, n, 4);
    put_number(file, strlen(name), 4);
    put_line(file, name);
    put(file, bytes, n);
    put_number(directory, 0x02014b50, 4);
    put_number(directory, 0, 16);
    put_number(directory, n, 4);
    put_number(directory, n, 4);
    put_number(directory, strlen(name), 4);
    put_number(directory, 0, 10);
    put_number(directory, at, 4);
    put_line(directory, name);
}

static void save_pth(struct part *p, const char *dir, const char *name)
{
    struct text pickle = { 0 }, file = { 0 }, directory = { 0 };
    char        path[600];
    put_line(&pickle, "\x80\x02}(");
    for (int i = 0; i < p->n; i++)
        put_tensor(&pickle, &p->t[i], i);
    put_line(&pickle, "u.");
    put_record(&file, &directory, "archive/data.pkl", pickle.at, pickle.n);
    for (int i = 0; i < p->n; i++) {
        snprintf(path, sizeof path, "archive/data/%d", i);
        put_record(&file, &directory, path, p->t[i].data, p->t[i].bytes);
    }
    size_t at = file.n;
    put(&file, directory.at, directory.n);
    put_number(&file, 0x06054b50, 4);
    put_number(&file, 0, 6);
    put_number(&file, (uint64_t)p->n + 1, 2);
    put_number(&file, directory.n, 4);
    put_number(&file, at, 4);
    put_number(&file, 0, 2);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(file.at, 1, file.n, f), file.n);
    fclose(f);
    free(pickle.at);
    free(file.at);
    free(directory.at);
    part_close(p);
}

/* ---- three layouts of one golden ---- */

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void make_dirs(char ours[256], char dir[256], const char *golden)
{
    char source[600], target[600];
    fixture_temp(ours);
    fixture_temp(dir);
    snprintf(source, sizeof source, "%s/%s", GV_TEST_DATA, golden);
    fixture_model(ours, source, NULL, GV_F32, 0);
    snprintf(source, sizeof source, "%s/%s/tokenizer", GV_TEST_DATA, golden);
    snprintf(target, sizeof target, "%s/google", dir);
    mkdir(target, 0777);
    snprintf(target, sizeof target, "%s/google/umt5-xxl", dir);
    fixture_model(target, source, NULL, GV_F32, 0);
    for (int i = 0; i < 2; i++)
        write_text(i ? dir : ours, "genvid.json", "{\"text_length\": 32, \"steps\": 2}");
}

struct clip {
    float  *pixels;
    int64_t n;
};

static void look(void *user, struct run *r, const char *name, struct tensor x)
{
    struct clip *c = user;
    if (!strstr(name, ".frames"))
        return;
    c->pixels = realloc(c->pixels, (size_t)(c->n + gv_tensor_count(x)) * sizeof *c->pixels);
    gv_download(r, c->pixels + c->n, x);
    c->n += gv_tensor_count(x);
}

/* Frames of the model at path, by the rules of the diffusers layout whatever the layout is. */
static struct clip render(const char *path, const gv_model *rules, gv_model **model, gv_engine **engine, const char *picture)
{
    char                message[512] = "";
    struct error        e = { 0 };
    struct clip         c = { 0 };
    struct tap          tap = { look, &c };
    struct video_job    job;
    struct video_report report = { 0 };
    gv_engine_params    params;
    gv_video_request    q;
    gv_engine_params_init(&params);
    params.precision = "f32";
    assert_int_equal(gv_engine_open(&params, engine, message, sizeof message), GV_OK);
    gv_model_load(*engine, path, model, message, sizeof message);
    assert_string_equal(message, "");
    gv_model *m = *model;
    if (rules) {
        assert_true(m->wan_rules);
        assert_string_equal(m->schedule, "wan-unipc");
        assert_true(m->defaults.shift == 5);
        m->wan_rules = false;
        m->sampler = rules->sampler;
        memcpy(m->schedule, rules->schedule, sizeof m->schedule);
        m->defaults = rules->defaults;
    }
    gv_video_request_init(&q);
    q.model = m, q.prompt = "a red fox", q.width = 32, q.height = 32, q.frames = 5, q.guidance = 2, q.first_image = picture;
    gv_video_job_open(&job, &q, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(gv_video_plan(&job, &report, &e), GV_OK);
    job.tap = &tap;
    gv_pipeline_video(&job, NULL, &report, &e);
    assert_string_equal(e.text, "");
    gv_video_job_close(&job);
    return c;
}

static void same_frames(const char *ours, const char *other, const char *picture)
{
    gv_engine  *a_engine, *b_engine;
    gv_model   *a_model, *b_model;
    struct clip a = render(ours, NULL, &a_model, &a_engine, picture), b = render(other, a_model, &b_model, &b_engine, picture);
    assert_true(a.n > 0);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.pixels, b.pixels, (size_t)a.n * sizeof *a.pixels);
    free(a.pixels);
    free(b.pixels);
    gv_engine_close(&a_engine);
    gv_engine_close(&b_engine);
}

#define DIT    "transformer/diffusion_pytorch_model.safetensors"
#define VAE    "vae/diffusion_pytorch_model.safetensors"
#define TEXT   "text_encoder/model.safetensors"
#define CONFIG "{\"model_type\": \"t2v\", \"num_heads\": 2, \"eps\": 1e-6}"
#define STAGE  3 /* two residual blocks and an upsampler: the goldens' VAE has one block less than Wan's */

static void the_original_directory_gives_the_same_frames(void **state)
{
    (void)state;
    char ours[256], dir[256];
    make_dirs(ours, dir, "pipeline_t2v");
    write_text(dir, "config.json", CONFIG);
    save_safetensors(part_open(ours, DIT, "", gv_names_wan_dit, 0), dir, "diffusion_pytorch_model.safetensors");
    save_pth(part_open(ours, VAE, "", gv_names_wan_vae, STAGE), dir, "Wan2.1_VAE.pth");
    save_pth(part_open(ours, TEXT, "", gv_names_wan_umt5, 0), dir, "models_t5_umt5-xxl-enc-bf16.pth");
    write_text(dir, "download.pth", "<html>not found</html>"); /* a neighbour that nobody needs is passed over */
    same_frames(ours, dir, NULL);
    fixture_remove(ours);
    fixture_remove(dir);
}

static void a_single_file_gives_the_same_frames(void **state)
{
    (void)state;
    char ours[256], dir[256], path[300];
    make_dirs(ours, dir, "pipeline_t2v");
    write_text(dir, "config.json", CONFIG);
    save_safetensors(part_open(ours, DIT, "model.diffusion_model.", gv_names_wan_dit, 0), dir, "wan_t2v.safetensors");
    save_safetensors(part_open(ours, VAE, "first_stage_model.", gv_names_wan_vae, STAGE), dir, "vae.safetensors");
    save_safetensors(part_open(ours, TEXT, "text_encoders.umt5xxl.transformer.", NULL, 0), dir, "text.safetensors");
    snprintf(path, sizeof path, "%s/wan_t2v.safetensors", dir);
    same_frames(ours, path, NULL);
    fixture_remove(ours);
    fixture_remove(dir);
}

/* CLIP's q, k and v are thirds of one tensor there. */
static void image_to_video_with_clip_gives_the_same_frames(void **state)
{
    (void)state;
    char         ours[256], dir[256], picture[300];
    uint8_t      rgb[32 * 32 * 3];
    struct error e = { 0 };
    make_dirs(ours, dir, "pipeline_i2v");
    write_text(dir, "config.json", "{\"num_heads\": 2, \"clip_num_heads\": 4}");
    save_safetensors(part_open(ours, DIT, "", gv_names_wan_dit, 0), dir, "diffusion_pytorch_model.safetensors");
    save_pth(part_open(ours, VAE, "", gv_names_wan_vae, STAGE), dir, "Wan2.1_VAE.pth");
    save_pth(part_open(ours, TEXT, "", gv_names_wan_umt5, 0), dir, "models_t5_umt5-xxl-enc-bf16.pth");
    save_pth(part_open(ours, "image_encoder/model.safetensors", "", gv_names_wan_clip, 0), dir, "models_clip.pth");
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * i / 7);
    snprintf(picture, sizeof picture, "%s/picture.png", ours);
    assert_int_equal(gv_image_write(picture, rgb, 32, 32, &e), GV_OK);
    same_frames(ours, dir, picture);
    fixture_remove(ours);
    fixture_remove(dir);
}

/* sign, 4 bits of exponent of bias 7, 3 of fraction */
static float decoded(unsigned char v)
{
    float x = (v & 0x78) ? 1 + (float)(v & 7) / 8 : (float)(v & 7) / 8;
    for (int e = (v & 0x78) ? (v >> 3 & 15) : 1; e < 7; e++)
        x /= 2;
    for (int e = v >> 3 & 15; e > 7; e--)
        x *= 2;
    return v & 128 ? -x : x;
}

/* Every matrix of a block becomes codes and a scale; *values gets what they stand for. */
static void quantise(struct part *codes, struct part *values)
{
    static const float scale = 0.001953f;
    int                n = codes->n;
    for (int i = 0; i < n; i++) {
        struct st_entry *c = &codes->t[i];
        if (c->rank != 2 || !strstr(c->name, "blocks.") || !strstr(c->name, ".weight"))
            continue;
        unsigned char *code = (unsigned char *)(uintptr_t)c->data;
        float         *value = (float *)(uintptr_t)values->t[i].data;
        c->bytes /= 4;
        c->type = GV_F8E4M3;
        for (size_t k = 0; k < c->bytes; k++) {
            code[k] = (unsigned char)(k * 37 + (k >> 8) * 11 + (size_t)i);
            if ((code[k] & 0x78) > 0x50) /* large ones would drown the rest */
                code[k] &= 0xBF;
            value[k] = decoded(code[k]) * scale;
        }
        char name[512];
        snprintf(name, sizeof name, "%.*s.scale_weight", (int)(strlen(c->name) - 7), c->name);
        float *number = malloc(sizeof *number);
        *number = scale;
        codes->t[codes->n++] = (struct st_entry){ .name = strdup(name), .type = GV_F32, .data = number, .bytes = 4 };
    }
    codes->t[codes->n++] = (struct st_entry){
        .name = strdup("model.diffusion_model.scaled_fp8"), .type = GV_F8E4M3, .rank = 1, .data = malloc(1)
    };
}

static void scaled_f8_is_what_it_stands_for(void **state)
{
    (void)state;
    char ours[256], dir[256], path[300];
    make_dirs(ours, dir, "pipeline_t2v");
    write_text(dir, "config.json", CONFIG);
    struct part *codes = part_open(ours, DIT, "model.diffusion_model.", gv_names_wan_dit, 0);
    struct part *values = part_open(ours, DIT, "", NULL, 0);
    quantise(codes, values);
    save_safetensors(values, ours, DIT);
    save_safetensors(codes, dir, "wan_t2v_fp8_scaled.safetensors");
    save_safetensors(part_open(ours, VAE, "", gv_names_wan_vae, STAGE), dir, "vae.safetensors");
    save_safetensors(part_open(ours, TEXT, "", NULL, 0), dir, "text.safetensors");
    snprintf(path, sizeof path, "%s/wan_t2v_fp8_scaled.safetensors", dir);
    same_frames(ours, path, NULL);
    fixture_remove(ours);
    fixture_remove(dir);
}

static void refuse(const char *path, gv_status status, const char *words)
{
    char             message[512] = "";
    gv_engine       *engine;
    gv_model        *model;
    gv_engine_params params;
    gv_engine_params_init(&params);
    assert_int_equal(gv_engine_open(&params, &engine, message, sizeof message), GV_OK);
    assert_int_equal(gv_model_load(engine, path, &model, message, sizeof message), status);
    if (!strstr(message, words))
        fail_msg("\"%s\" is not in: %s", words, message);
    gv_engine_close(&engine);
}

static void relatives_and_missing_parts_are_told(void **state)
{
    (void)state;
    char ours[256], dir[256];
    make_dirs(ours, dir, "pipeline_t2v");
    save_safetensors(part_open(ours, VAE, "", gv_names_wan_vae, STAGE), dir, "vae.safetensors");
    refuse(dir, GV_ERR_MODEL, "holds a transformer");
    struct part *p = part_open(ours, DIT, "", gv_names_wan_dit, 0);
    p->t[p->n] = p->t[p->n - 1];
    p->t[p->n].name = strdup("vace_patch_embedding.weight");
    p->t[p->n].data = calloc(1, p->t[p->n].bytes + 1);
    p->n++;
    save_safetensors(p, dir, "diffusion_pytorch_model.safetensors");
    refuse(dir, GV_ERR_UNSUPPORTED, "Wan for VACE");
    save_safetensors(part_open(ours, DIT, "", gv_names_wan_dit, 0), dir, "diffusion_pytorch_model.safetensors");
    refuse(dir, GV_ERR_MODEL, "holds a text encoder");
    write_text(dir, "models_t5_umt5-xxl-enc-bf16.pth", "<html>not found</html>");
    refuse(dir, GV_ERR_MODEL, "passed over: ");
    refuse(dir, GV_ERR_MODEL, "models_t5_umt5-xxl-enc-bf16.pth");
    fixture_remove(ours);
    fixture_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_wan),
        cmocka_unit_test(the_original_directory_gives_the_same_frames),
        cmocka_unit_test(a_single_file_gives_the_same_frames),
        cmocka_unit_test(image_to_video_with_clip_gives_the_same_frames),
        cmocka_unit_test(scaled_f8_is_what_it_stands_for),
        cmocka_unit_test(relatives_and_missing_parts_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
