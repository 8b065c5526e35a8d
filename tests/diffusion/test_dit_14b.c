/* The 14B transformers, which no test machine holds. Their real shapes, read from a checkpoint that has every header and no data (a
 * sparse file), run on the null device: what is bound adds up to the published number of parameters, and a plan comes out. One
 * layer at their width (5120, 40 heads, ffn 13824) is compared with diffusers; that takes 2.2 GB of disk and 5 of memory. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/device.h"
#include "tests/diffusion/dit_case.h"

enum { D = 5120, FFN = 13824, TEXT = 4096, CLIP = 1280, LAYERS = 40 };

/* The header of a safetensors file, growing. */
struct header {
    char   *text;
    size_t  n;
    int64_t data, tensors;
};

static void put(struct header *h, const char *name, int rank, const int64_t *dim)
{
    int64_t count = 1;
    h->n += (size_t)sprintf(h->text + h->n, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", h->tensors++ ? "," : "{", name);
    for (int i = 0; i < rank; i++) {
        h->n += (size_t)sprintf(h->text + h->n, "%s%lld", i ? "," : "", (long long)dim[i]);
        count *= dim[i];
    }
    h->n += (size_t)sprintf(h->text + h->n, "],\"data_offsets\":[%lld,%lld]}", (long long)h->data,
                            (long long)(h->data + 2 * count));
    h->data += 2 * count;
}

static void put_linear(struct header *h, const char *name, int64_t out, int64_t in)
{
    char full[128];
    snprintf(full, sizeof full, "%s.weight", name);
    put(h, full, 2, DIMS(out, in));
    snprintf(full, sizeof full, "%s.bias", name);
    put(h, full, 1, DIMS(out));
}

static void put_vector(struct header *h, const char *name, int64_t n)
{
    put(h, name, 1, DIMS(n));
}

static void put_block(struct header *h, int i, bool image)
{
    static const char *const square[] = { "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0",
                                          "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0" };
    static const char *const vectors[] = { "attn1.norm_q.weight", "attn1.norm_k.weight", "attn2.norm_q.weight",
                                           "attn2.norm_k.weight", "norm2.weight",        "norm2.bias" };
    char                     name[96];
#define NAMED(text) (snprintf(name, sizeof name, "blocks.%d.%s", i, text), name)
    for (size_t k = 0; k < sizeof square / sizeof *square; k++)
        put_linear(h, NAMED(square[k]), D, D);
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++)
        put_vector(h, NAMED(vectors[k]), D);
    put_linear(h, NAMED("ffn.net.0.proj"), FFN, D);
    put_linear(h, NAMED("ffn.net.2"), D, FFN);
    put(h, NAMED("scale_shift_table"), 3, DIMS(1, 6, D));
    if (!image)
        return;
    put_linear(h, NAMED("attn2.add_k_proj"), D, D);
    put_linear(h, NAMED("attn2.add_v_proj"), D, D);
    put_vector(h, NAMED("attn2.norm_added_k.weight"), D);
#undef NAMED
}

static void put_model(struct header *h, int in_channels, bool image, int positions)
{
    put(h, "patch_embedding.weight", 5, DIMS(D, in_channels, 1, 2, 2));
    put_vector(h, "patch_embedding.bias", D);
    put_linear(h, "condition_embedder.time_embedder.linear_1", D, 256);
    put_linear(h, "condition_embedder.time_embedder.linear_2", D, D);
    put_linear(h, "condition_embedder.time_proj", 6 * D, D);
    put_linear(h, "condition_embedder.text_embedder.linear_1", D, TEXT);
    put_linear(h, "condition_embedder.text_embedder.linear_2", D, D);
    put(h, "scale_shift_table", 3, DIMS(1, 2, D));
    put_linear(h, "proj_out", 64, D);
    for (int i = 0; i < LAYERS; i++)
        put_block(h, i, image);
    if (!image)
        return;
#define EMBEDDER "condition_embedder.image_embedder."
    put_vector(h, EMBEDDER "norm1.weight", CLIP);
    put_vector(h, EMBEDDER "norm1.bias", CLIP);
    put_linear(h, EMBEDDER "ff.net.0.proj", CLIP, CLIP);
    put_linear(h, EMBEDDER "ff.net.2", D, CLIP);
    put_vector(h, EMBEDDER "norm2.weight", D);
    put_vector(h, EMBEDDER "norm2.bias", D);
    if (positions)
        put(h, EMBEDDER "pos_embed", 3, DIMS(1, positions, CLIP));
#undef EMBEDDER
}

static void write_folder(const char *folder, struct header *h, const char *config)
{
    char    path[512];
    uint8_t length[8];
    h->n += (size_t)sprintf(h->text + h->n, "}");
    while (h->n % 8)
        h->text[h->n++] = ' ';
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)h->n >> 8 * i);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, length, 8), 8);
    assert_int_equal(write(fd, h->text, h->n), h->n);
    assert_int_equal(ftruncate(fd, (off_t)(8 + h->n) + h->data), 0);
    close(fd);
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    fputs(config, f);
    fclose(f);
}

/* One forward of 81 frames of 832x480 with guidance, on a device that computes nothing. */
static void plan(const struct dit *m, struct device *cpu, const char *name, int image_tokens)
{
    struct device     *null;
    struct run         run, *r = &run;
    struct error       e = { 0 };
    struct attn_layout grid = { 0 };
    float              time = 937;
    assert_int_equal(gv_device_null(&null, cpu, &e), GV_OK);
    gv_run_open(r, null, GV_BF16, 0, &e);
    assert_int_equal(gv_weights_pin(m->weights, null, false, &e), GV_OK);
    const struct dit_config *c = &m->config;
    struct dit_condition     cond[2] = { { .text_len = 512 }, { .text_len = 512 } };
    for (int i = 0; i < 2; i++) {
        cond[i].text = gv_scratch(r, GV_F32, 2, DIMS(20, c->text_dim));
        if (image_tokens)
            cond[i].image = gv_scratch(r, GV_F32, 2, DIMS(image_tokens, c->image_dim));
    }
    assert_int_equal(gv_layout_grid(&grid, 0, 21, 30, 52, &e), GV_OK);
    struct dit_call      call = { .x = gv_scratch(r, GV_F32, 5, DIMS(2, 21, 60, 104, c->in_channels)),
                                  .v = gv_scratch(r, GV_F32, 5, DIMS(2, 21, 60, 104, c->out_channels)),
                                  .time = &time,
                                  .n_times = 1 };
    struct dit_prepared *p = m->model->prepare(r, m, 2, cond, &grid);
    assert_string_equal(r->err.text, "");
    m->model->forward(r, m, p, &call);
    assert_string_equal(r->err.text, "");
    print_message("  %-6s %lld tokens, weights %.1f GiB, scratch %.2f GiB, %.0f TFLOP a step with guidance\n", name,
                  (long long)grid.tokens, (double)gv_weights_bytes(m->weights) / (1 << 30), (double)r->scratch.peak / (1 << 30),
                  r->flops / 1e12);
    assert_int_equal(grid.tokens, 32760);
    /* Two rows, each: attention among tokens, and the layers' products that every token goes through. Text and heads add little. */
    const double tokens = 32760, layer = 6.0 * D * D + 2.0 * D * FFN;
    const double least = 2 * LAYERS * (4 * tokens * tokens * D + 2 * tokens * layer);
    assert_true(r->flops > least && r->flops < 1.05 * least);
    m->model->release(p);
    gv_layout_free(&grid);
    gv_weights_unpin(m->weights, null, false, true);
    gv_run_close(r);
    gv_device_close(&null);
}

static void real_shapes_run_on_the_null_device(void **state)
{
    static const struct {
        const char *name;
        int         in, image, positions;
        int64_t     tensors, parameters; /* as published: wan's file sizes */
    } models[] = { { "T2V", 16, 0, 0, 1095, 14288491584 },
                   { "I2V", 36, 257, 0, 1303, 16394878784 },
                   { "FLF2V", 36, 514, 514, 1304, 16395536704 } };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct device_params params = { .name = "cpu", .threads = 1 };
        struct device       *cpu;
        struct error         e = { 0 };
        struct dit          *m;
        struct header        h = { .text = malloc(1 << 20) };
        char                 folder[256], config[1024], extra[128] = "";
        fixture_temp(folder);
        if (models[i].image)
            snprintf(extra, sizeof extra, ",\"image_dim\":%d,\"added_kv_proj_dim\":%d", CLIP, D);
        if (models[i].positions)
            snprintf(extra + strlen(extra), sizeof extra - strlen(extra), ",\"pos_embed_seq_len\":%d", models[i].positions);
        snprintf(config, sizeof config,
                 "{\"_class_name\":\"WanTransformer3DModel\",\"patch_size\":[1,2,2],\"num_attention_heads\":40,"
                 "\"attention_head_dim\":128,\"in_channels\":%d,\"out_channels\":16,\"text_dim\":%d,\"freq_dim\":256,"
                 "\"ffn_dim\":%d,\"num_layers\":%d,\"cross_attn_norm\":true,\"eps\":1e-06%s}",
                 models[i].in, TEXT, FFN, LAYERS, extra);
        put_model(&h, models[i].in, models[i].image > 0, models[i].positions);
        assert_int_equal(h.tensors, models[i].tensors);
        assert_int_equal(h.data / 2, models[i].parameters);
        write_folder(folder, &h, config);
        assert_int_equal(gv_device_open(&cpu, &params, &e), GV_OK);
        gv_dit_open(&m, folder, cpu, GV_BF16, &e);
        assert_string_equal(e.text, "");
        plan(m, cpu, models[i].name, models[i].image);
        m->model->close(m);
        gv_device_close(&cpu);
        fixture_remove(folder);
        free(h.text);
    }
}

static void a_layer_of_that_width_equals_diffusers(void **state)
{
    static const struct dit_side sides[] = { { "a", "a", 2, 4, 6, 512 } };
    (void)state;
    dit_case_run("dit_14b", "f32", GV_F32, false, sides, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_shapes_run_on_the_null_device),
        cmocka_unit_test(a_layer_of_that_width_equals_diffusers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
