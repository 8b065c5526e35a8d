/* Checkpoints and the weights bound to them: what is missing or does not fit is named; every float type means the same numbers;
 * shards are as one file; pins are counted; a streamed layer is the resident one bit for bit. */
#include "io/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/ops.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "tests/fixture.h"

enum { M = 6, K = 8, V = 5, LAYERS = 3, ENTRIES = 4 };

static char           folder[256];
static struct device *cpu;

static int open_all(void **state)
{
    (void)state;
    const struct device_params p = { .name = "cpu", .threads = 2, .precision = "f32", .budget = 4 << 20 };
    fixture_temp(folder);
    return gv_device_open(&cpu, &p, NULL);
}

static int close_all(void **state)
{
    (void)state;
    gv_device_close(&cpu);
    fixture_remove(folder);
    return 0;
}

static const char *in_folder(const char *name)
{
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- a tiny model: LAYERS layers of a bias, a product, a convolution and a table ---- */

struct layer {
    struct tensor bias, product, conv, table, extra;
};
#define ROW(n, f, form, rank, ...)                                                                                             \
    {                                                                                                                          \
        n, offsetof(struct layer, f), form, rank, __VA_ARGS__, false                                                           \
    }
static const struct weight_row rows[] = {
    ROW("bias", bias, FORM_VECTOR, 1, { 1 }),
    ROW("product", product, FORM_LINEAR, 2, { 1, 2 }),
    ROW("conv", conv, FORM_CONV, 4, { -2, -3, -2, -2 }),
    ROW("table", table, FORM_TABLE, 2, { -V, 2 }),
    { "extra", offsetof(struct layer, extra), FORM_VECTOR, 1, { 1 }, true },
};
static const int64_t sizes[] = { 0, M, K };

/* Numbers that every type holds: quarters from -8 to 8. */
static float value(int layer, int entry, int64_t i)
{
    return (float)((layer * 31 + entry * 17 + i * 7) % 64 - 32) / 4;
}

static uint16_t half_of(float x, enum dtype type)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if (type == GV_BF16)
        return (uint16_t)(u >> 16);
    return (uint16_t)(x == 0 ? 0 : (u >> 16 & 0x8000) | ((u & 0x7FFFFFFF) - 0x38000000) >> 13);
}

static struct st_entry make_entry(int layer, int entry, enum dtype type)
{
    static const struct {
        const char *name;
        int         rank;
        int64_t     dim[4];
    } shape[ENTRIES] = {
        { "bias", 1, { M } }, { "product", 2, { M, K } }, { "conv", 4, { 2, 3, 2, 2 } }, { "table", 2, { V, K } }
    };
    struct st_entry t = { .name = malloc(32), .type = type, .rank = shape[entry].rank };
    int64_t         n = 1;
    snprintf(t.name, 32, "layer.%d.%s", layer, shape[entry].name);
    for (int i = 0; i < t.rank; i++)
        n *= t.dim[i] = shape[entry].dim[i];
    t.bytes = gv_dtype_bytes(type, n);
    char *data = malloc(t.bytes);
    for (int64_t i = 0; i < n; i++) {
        float    f = value(layer, entry, i);
        uint16_t h = half_of(f, type);
        memcpy(data + i * (type == GV_F32 ? 4 : 2), type == GV_F32 ? (void *)&f : (void *)&h, type == GV_F32 ? 4 : 2);
    }
    t.data = data;
    return t;
}

/* Layers [from, to) under that name. */
static void write_file(const char *name, enum dtype type, int from, int to)
{
    struct st_entry t[LAYERS * ENTRIES];
    struct error    e = { 0 };
    int             n = 0;
    for (int layer = from; layer < to; layer++)
        for (int i = 0; i < ENTRIES; i++)
            t[n++] = make_entry(layer, i, type);
    gv_safetensors_write(in_folder(name), t, n, &e);
    assert_string_equal(e.text, "");
    while (n-- > 0) {
        free(t[n].name);
        free((void *)(uintptr_t)t[n].data);
    }
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct weights *open_model(const char *stem, enum dtype compute, struct layer layer[LAYERS])
{
    struct checkpoint *c;
    struct weights    *w;
    struct error       e = { 0 };
    gv_checkpoint_open(&c, folder, stem, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(gv_weights_open(&w, c, cpu, compute, &e), GV_OK);
    gv_checkpoint_close(&c);
    for (int i = 0; i < LAYERS; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "layer.%d.", i);
        gv_weights_bind(w, prefix, rows, N_ROWS(rows), sizes, &layer[i], &e);
        assert_string_equal(e.text, "");
    }
    return w;
}

static struct run open_run(enum dtype compute)
{
    struct run   r;
    struct error e = { 0 };
    assert_int_equal(gv_run_open(&r, cpu, compute, 1 << 18, &e), GV_OK);
    return r;
}

/* ---- what a layer computes: its tensors may be packed, so they are judged by results ---- */

enum { OUT_LINEAR = M, OUT_CONV = 2, OUT_TABLE = K, OUT = OUT_LINEAR + OUT_CONV + OUT_TABLE };

static void compute(struct run *r, const struct layer *l, float *out)
{
    float         x[K], image[12];
    const int32_t index = 3;
    struct mark   m = arena_mark(&r->scratch);
    for (int i = 0; i < K; i++)
        x[i] = (float)(i - 3);
    for (int i = 0; i < 12; i++)
        image[i] = (float)(i % 5 - 2);
    struct tensor vx = gv_scratch_from(r, GV_F32, 2, DIMS(1, K), x), y = gv_scratch(r, GV_F32, 2, DIMS(1, M));
    struct tensor pixels = gv_scratch_from(r, GV_F32, 4, DIMS(1, 2, 2, 3), image),
                  seen = gv_scratch(r, r->compute, 4, DIMS(1, 2, 2, 3));
    struct tensor z = gv_scratch(r, GV_F32, 4, DIMS(1, 1, 1, 2)), g = gv_scratch(r, GV_F32, 2, DIMS(1, K));
    gv_linear(r, y, vx, l->product, &(struct linear_opts){ .bias = l->bias });
    gv_copy(r, seen, pixels);
    gv_conv(r, z, seen, l->conv, &(struct conv_opts){ 0 });
    gv_gather(r, g, l->table, gv_scratch_from(r, GV_I32, 1, DIMS(1), &index));
    gv_download(r, out, y);
    gv_download(r, out + OUT_LINEAR, z);
    gv_download(r, out + OUT_LINEAR + OUT_CONV, g);
    arena_release(&r->scratch, m);
    assert_string_equal(r->err.text, "");
}

static void expect(int layer, float *out)
{
    for (int m = 0; m < M; m++) {
        out[m] = value(layer, 0, m);
        for (int k = 0; k < K; k++)
            out[m] += value(layer, 1, m * K + k) * (float)(k - 3);
    }
    for (int o = 0; o < 2; o++) {
        out[M + o] = 0;
        for (int c = 0; c < 3; c++)
            for (int tap = 0; tap < 4; tap++)
                out[M + o] += value(layer, 2, (o * 3 + c) * 4 + tap) * (float)((tap * 3 + c) % 5 - 2);
    }
    for (int k = 0; k < K; k++)
        out[M + 2 + k] = value(layer, 3, 3 * K + k);
}

/* All numbers here are exact in every type, so results are equal and not near. */
static void check_model(const char *stem, enum dtype computes, bool stream)
{
    struct layer    layer[LAYERS], copy;
    struct weights *w = open_model(stem, computes, layer);
    struct run      r = open_run(computes);
    struct error    e = { 0 };
    float           out[OUT], want[OUT];
    r.stream_weights = stream;
    gv_weights_pin(w, cpu, stream, &e);
    assert_string_equal(e.text, "");
    for (int i = 0; i < LAYERS; i++) {
        struct mark         m = arena_mark(&r.scratch);
        const struct layer *l = gv_weights_fetch(&r, w, &layer[i], &copy, sizeof copy);
        assert_ptr_equal(l, stream && i ? &copy : &layer[i]);
        assert_false(present(l->extra));
        compute(&r, l, out);
        expect(i, want);
        assert_memory_equal(out, want, sizeof out);
        arena_release(&r.scratch, m);
    }
    gv_weights_unpin(w, cpu, stream, true);
    gv_run_close(&r);
    gv_weights_close(&w);
    assert_null(w);
    assert_int_equal(atomic_load(&cpu->in_use), 0);
}

static const enum dtype types[] = { GV_F32, GV_BF16, GV_F16 };

static void every_float_type_gives_the_same_numbers(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        write_file("typed.safetensors", types[i], 0, LAYERS);
        check_model("typed", GV_F32, false);
        check_model("typed", GV_BF16, false);
    }
}

static void a_streamed_layer_is_the_resident_one(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        write_file("streamed.safetensors", types[i], 0, LAYERS);
        check_model("streamed", GV_F32, true);
        check_model("streamed", GV_BF16, true);
    }
}

static void write_index(const char *stem)
{
    char text[4096], name[64];
    int  n = snprintf(text, sizeof text, "{\"metadata\": {}, \"weight_map\": {");
    for (int i = 0; i < LAYERS; i++)
        n +=
            snprintf(text + n, sizeof text - (size_t)n, "%s\"layer.%d.bias\": \"%s-%d.safetensors\"", i ? "," : "", i, stem, i);
    snprintf(text + n, sizeof text - (size_t)n, "}}");
    snprintf(name, sizeof name, "%s.safetensors.index.json", stem);
    write_text(name, text);
}

static void shards_are_as_one_file(void **state)
{
    (void)state;
    struct layer a[LAYERS], b[LAYERS];
    char         name[64];
    for (int i = 0; i < LAYERS; i++) {
        snprintf(name, sizeof name, "split-%d.safetensors", i);
        write_file(name, GV_BF16, i, i + 1);
    }
    write_index("split");
    check_model("split", GV_F32, false);
    check_model("split", GV_F32, true);
    write_file("whole.safetensors", GV_BF16, 0, LAYERS);
    struct weights *one = open_model("whole", GV_F32, a), *many = open_model("split", GV_F32, b);
    assert_int_equal(gv_weights_bytes(one), gv_weights_bytes(many));
    gv_weights_close(&one);
    gv_weights_close(&many);
}

/* Nothing in a safetensors file promises that data is aligned: headers may have any length. */
static void unaligned_data_is_read(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        write_file("even.safetensors", types[i], 0, LAYERS);
        size_t       n;
        char        *bytes;
        uint64_t     header;
        struct error e = { 0 };
        assert_int_equal(gv_read_file(in_folder("even.safetensors"), 1 << 20, &bytes, &n, &e), GV_OK);
        memcpy(&header, bytes, 8);
        FILE    *f = fopen(in_folder("odd.safetensors"), "wb");
        uint64_t longer = header + 1;
        fwrite(&longer, 1, 8, f);
        fwrite(bytes + 8, 1, (size_t)header, f);
        fputc(' ', f);
        fwrite(bytes + 8 + header, 1, n - 8 - (size_t)header, f);
        fclose(f);
        free(bytes);
        check_model("odd", GV_F32, false);
        check_model("odd", GV_BF16, true);
    }
}

/* ---- what is missing or does not fit ---- */

static void refuse_checkpoint(const char *stem, gv_status status, const char *file, const char *words)
{
    struct checkpoint *c = (struct checkpoint *)(void *)folder;
    struct error       e = { 0 };
    assert_int_equal(gv_checkpoint_open(&c, folder, stem, &e), status);
    assert_null(c);
    if (!strstr(e.text, file) || !strstr(e.text, words))
        fail_msg("\"%s\" and \"%s\" are not both in: %s", file, words, e.text);
}

static void a_broken_index_is_told(void **state)
{
    (void)state;
#define INDEX "bad.safetensors.index.json"
    write_file("good-0.safetensors", GV_F32, 0, 1);
    refuse_checkpoint("none", GV_ERR_MODEL, folder, "neither none.safetensors nor none.safetensors.index.json");
    write_text(INDEX, "{");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "expected");
    write_text(INDEX, "");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "expected");
    write_text(INDEX, "[]");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "weight_map");
    write_text(INDEX, "{\"weight_map\": []}");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "weight_map is not an object");
    write_text(INDEX, "{\"weight_map\": {}}");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "names 0 shards");
    write_text(INDEX, "{\"weight_map\": {\"a\": \"good-0.safetensors\", \"b\": 7}}");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "value of b is not the name of a shard");
    write_text(INDEX, "{\"weight_map\": {\"a\": \"good-0.safetensors\", \"b\": \"good-1.safetensors\"}}");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "lists the shard good-1.safetensors, which is not there");
    write_text(INDEX, "{\"weight_map\": {\"a\": \"../good-0.safetensors\"}}");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "\"../good-0.safetensors\" is not a file of the same folder");
    write_text(INDEX, "{\"weight_map\": {\"a\": \"..\"}}");
    refuse_checkpoint("bad", GV_ERR_IO, "..", "regular file");
    write_text(INDEX, "{\"weight_map\": {\"a\": \"good-0.safetensors\", \"b\": \"" INDEX "\"}}");
    refuse_checkpoint("bad", GV_ERR_MODEL, INDEX, "header");
}

static void refuse_row(const struct weight_row *row, const char *words)
{
    struct checkpoint *c;
    struct weights    *w;
    struct layer       layer;
    struct error       e = { 0 };
    assert_int_equal(gv_checkpoint_open(&c, folder, "fit", &e), GV_OK);
    assert_int_equal(gv_weights_open(&w, c, cpu, GV_F32, &e), GV_OK);
    gv_checkpoint_close(&c);
    assert_int_equal(gv_weights_bind(w, "layer.1.", row, 1, sizes, &layer, &e), GV_ERR_MODEL);
    if (!strstr(e.text, "fit.safetensors: tensor layer.1.") || !strstr(e.text, words))
        fail_msg("\"%s\" is not in: %s", words, e.text);
    gv_weights_close(&w);
}

static void a_tensor_that_is_missing_or_misshapen_is_told(void **state)
{
    (void)state;
    write_file("fit.safetensors", GV_F32, 0, LAYERS);
    refuse_row(&(struct weight_row)ROW("nobody", bias, FORM_VECTOR, 1, { 1 }), "layer.1.nobody is missing, wanted [6]");
    refuse_row(&(struct weight_row)ROW("bias", bias, FORM_VECTOR, 1, { 2 }), "layer.1.bias is [6], wanted [8]");
    refuse_row(&(struct weight_row)ROW("product", product, FORM_LINEAR, 2, { 2, 1 }),
               "layer.1.product is [6, 8], wanted [8, 6]");
    refuse_row(&(struct weight_row)ROW("product", product, FORM_LINEAR, 3, { 1, 2, -1 }),
               "layer.1.product is [6, 8], wanted [6, 8, 1]");
    refuse_row(&(struct weight_row)ROW("product", bias, FORM_VECTOR, 1, { -48 }), "layer.1.product is [6, 8], wanted [48]");
    refuse_row(&(struct weight_row)ROW("conv", conv, FORM_CONV, 5, { -2, -3, -1, -2, -2 }),
               "layer.1.conv is [2, 3, 2, 2], wanted [2, 3, 1, 2, 2]");
    refuse_row(&(struct weight_row){ "bias", offsetof(struct layer, bias), FORM_VECTOR, 1, { 2 }, true },
               "is [6], wanted [8]"); /* optional: fits or is absent */
}

static void weights_of_whole_numbers_are_refused(void **state)
{
    (void)state;
    const int32_t         data[M] = { 0 };
    const struct st_entry t = {
        .name = (char[]){ "layer.1.bias" }, .type = GV_I32, .rank = 1, .dim = { M }, .data = data, .bytes = sizeof data
    };
    assert_int_equal(gv_safetensors_write(in_folder("fit.safetensors"), &t, 1, NULL), GV_OK);
    refuse_row(&rows[0], "has type I32; F32, BF16, F16 and F8_E4M3 are read");
}

static void a_vector_may_carry_sizes_of_one(void **state)
{
    (void)state;
    float                 data[M];
    const struct st_entry t = { .name = (char[]){ "bias" },
                                .type = GV_F32,
                                .rank = 8,
                                .dim = { 1, 1, 2, 1, 3, 1, 1, 1 },
                                .data = data,
                                .bytes = sizeof data };
    struct checkpoint    *c;
    struct weights       *w;
    struct layer          layer;
    struct error          e = { 0 };
    for (int i = 0; i < M; i++)
        data[i] = (float)i;
    assert_int_equal(gv_safetensors_write(in_folder("ones.safetensors"), &t, 1, &e), GV_OK);
    assert_int_equal(gv_checkpoint_open(&c, folder, "ones", &e), GV_OK);
    assert_int_equal(gv_weights_open(&w, c, cpu, GV_F32, &e), GV_OK);
    gv_checkpoint_close(&c);
    const struct weight_row row = ROW("bias", bias, FORM_VECTOR, 3, { -1, -2, -3 });
    gv_weights_bind(w, "", &row, 1, NULL, &layer, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(layer.bias.rank, 1);
    assert_int_equal(gv_weights_pin(w, cpu, false, &e), GV_OK);
    assert_memory_equal(layer.bias.data, data, sizeof data);
    gv_weights_unpin(w, cpu, false, true);
    gv_weights_close(&w);
}

/* ---- pins ---- */

static size_t in_use(void)
{
    return atomic_load(&cpu->in_use);
}

static void a_cancelled_pin_leaves_what_was_there(void **state)
{
    (void)state;
    const atomic_bool cancel = true;
    struct layer      layer[LAYERS];
    struct error      e = { 0 };
    write_file("cancel.safetensors", GV_F32, 0, LAYERS);
    struct weights *w = open_model("cancel", GV_F32, layer);
    size_t          first = gv_weights_bytes(w) / LAYERS;
    assert_int_equal(gv_weights_pin_unless(&cancel, w, cpu, false, &e), GV_ERR_CANCELLED);
    assert_int_equal(in_use(), 0);
    assert_int_equal(gv_weights_pin(w, cpu, true, NULL), GV_OK);
    assert_int_equal(gv_weights_pin_unless(&cancel, w, cpu, true, NULL), GV_OK); /* nothing is left to upload */
    assert_int_equal(gv_weights_pin_unless(&cancel, w, cpu, false, NULL), GV_ERR_CANCELLED);
    assert_int_equal(in_use(), first);
    gv_weights_unpin(w, cpu, true, true);
    gv_weights_unpin(w, cpu, true, true);
    assert_int_equal(in_use(), 0);
    gv_weights_close(&w);
}

static void pins_are_counted(void **state)
{
    (void)state;
    struct layer layer[LAYERS];
    struct error e = { 0 };
    write_file("pins.safetensors", GV_F32, 0, LAYERS);
    struct weights *w = open_model("pins", GV_F32, layer);
    size_t          all = gv_weights_bytes(w), first = all / LAYERS;
    assert_int_equal(in_use(), 0);
    assert_null(layer[0].bias.data);
    assert_int_equal(gv_weights_pin(w, cpu, false, &e), GV_OK);
    assert_int_equal(in_use(), all);
    void *where = layer[2].bias.data;
    assert_non_null(where);
    assert_int_equal(gv_weights_pin(w, cpu, false, &e), GV_OK); /* the second user uploads nothing */
    assert_int_equal(in_use(), all);
    assert_ptr_equal(layer[2].bias.data, where);
    gv_weights_unpin(w, cpu, false, true); /* somebody else still pins */
    assert_int_equal(in_use(), all);
    gv_weights_unpin(w, cpu, false, false); /* kept for the next request */
    assert_int_equal(in_use(), all);
    assert_int_equal(gv_weights_pin(w, cpu, true, &e), GV_OK);
    gv_weights_unpin(w, cpu, true, true);
    assert_int_equal(in_use(), 0);
    assert_null(layer[2].bias.data);
    assert_int_equal(gv_weights_pin(w, cpu, true, &e), GV_OK); /* streamed: the first layer alone */
    assert_int_equal(in_use(), first);
    assert_null(layer[1].bias.data);
    assert_int_equal(gv_weights_pin(w, cpu, false, &e), GV_OK); /* a user who wants all beside one who streams */
    assert_int_equal(in_use(), all);
    gv_weights_unpin(w, cpu, false, true);
    gv_weights_unpin(w, cpu, true, false);
    gv_weights_close(&w); /* gives back what was kept */
    assert_int_equal(in_use(), 0);
}

static void weights_that_do_not_fit_leave_nothing(void **state)
{
    (void)state;
    struct layer layer[LAYERS];
    struct error e = { 0 };
    size_t       budget = cpu->budget;
    write_file("pins.safetensors", GV_F32, 0, LAYERS);
    struct weights *w = open_model("pins", GV_F32, layer);
    cpu->budget = gv_weights_bytes(w) - 1;
    assert_int_equal(gv_weights_pin(w, cpu, false, &e), GV_ERR_MEMORY);
    assert_non_null(strstr(e.text, "weights"));
    assert_int_equal(in_use(), 0);
    e = (struct error){ 0 };
    assert_int_equal(gv_weights_pin(w, cpu, true, &e), GV_OK); /* streamed they do */
    assert_int_equal(gv_weights_pin(w, cpu, false, NULL), GV_ERR_MEMORY);
    assert_non_null(layer[0].bias.data); /* the first user's stay */
    gv_weights_unpin(w, cpu, true, true);
    assert_int_equal(in_use(), 0);
    cpu->budget = budget;
    gv_weights_close(&w);
}

static void the_null_device_counts_what_would_be_pinned(void **state)
{
    (void)state;
    struct layer   layer[LAYERS], copy;
    struct error   e = { 0 };
    struct device *null;
    struct run     r;
    write_file("pins.safetensors", GV_F32, 0, LAYERS);
    struct weights *w = open_model("pins", GV_F32, layer);
    size_t          all = gv_weights_bytes(w);
    assert_int_equal(gv_device_null(&null, cpu, &e), GV_OK);
    for (int stream = 0; stream < 2; stream++) {
        assert_int_equal(gv_weights_pin(w, null, stream, &e), GV_OK);
        assert_int_equal(atomic_load(&null->in_use), stream ? all / LAYERS : all);
        gv_weights_unpin(w, null, stream, true);
        assert_int_equal(atomic_load(&null->in_use), 0);
    }
    gv_run_open(&r, null, GV_F32, 0, &e);
    r.stream_weights = true;
    const struct layer *l = gv_weights_fetch(&r, w, &layer[1], &copy, sizeof copy);
    assert_int_equal(l->product.dim[1], K);
    assert_true(r.scratch.used >= all / LAYERS);
    assert_int_equal(in_use(), 0);
    gv_run_close(&r);
    gv_device_close(&null);
    gv_weights_close(&w);
}

static void a_shared_checkpoint_outlives_its_first_owner(void **state)
{
    (void)state;
    struct checkpoint *c, *again;
    struct error       e = { 0 };
    write_file("shared.safetensors", GV_F32, 0, 1);
    assert_int_equal(gv_checkpoint_open(&c, folder, "shared", &e), GV_OK);
    again = gv_checkpoint_share(c);
    gv_checkpoint_close(&c);
    assert_null(c);
    const struct st_entry *t = gv_checkpoint_find(again, "layer.0.bias");
    assert_non_null(t);
    assert_float_equal(((const float *)t->data)[1], value(0, 0, 1), 0);
    assert_null(gv_checkpoint_find(again, "layer.1.bias"));
    assert_non_null(strstr(gv_checkpoint_path(again), "shared.safetensors"));
    assert_true(gv_checkpoint_bytes(again) > t->bytes);
    gv_checkpoint_close(&again);
    gv_checkpoint_close(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_float_type_gives_the_same_numbers),
        cmocka_unit_test(a_streamed_layer_is_the_resident_one),
        cmocka_unit_test(shards_are_as_one_file),
        cmocka_unit_test(unaligned_data_is_read),
        cmocka_unit_test(a_broken_index_is_told),
        cmocka_unit_test(a_tensor_that_is_missing_or_misshapen_is_told),
        cmocka_unit_test(weights_of_whole_numbers_are_refused),
        cmocka_unit_test(a_vector_may_carry_sizes_of_one),
        cmocka_unit_test(pins_are_counted),
        cmocka_unit_test(a_cancelled_pin_leaves_what_was_there),
        cmocka_unit_test(weights_that_do_not_fit_leave_nothing),
        cmocka_unit_test(the_null_device_counts_what_would_be_pinned),
        cmocka_unit_test(a_shared_checkpoint_outlives_its_first_owner),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
