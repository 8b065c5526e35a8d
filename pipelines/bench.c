#include "pipelines/bench.h"
#include "core/clock.h"

#include <jansson.h>
#include <stdlib.h>

#include "attention/attention.h"

/* Random numbers about as large as activations are; zeros would run faster than real data. */
static struct tensor noise(struct run *r, enum dtype type, int64_t rows, int64_t width)
{
    struct tensor out = gv_scratch(r, type, 2, DIMS(rows, width)), f = gv_scratch(r, GV_F32, 4, DIMS(1, 1, rows, width));
    gv_noise(r, f, &(struct noise_key){ .seed = 1 });
    gv_copy(r, out, reshape(f, 2, DIMS(rows, width)));
    return out;
}

struct subject {
    const char *name;
    void (*setup)(struct run *r, struct subject *s);
    void (*call)(struct run *r, struct subject *s);
    struct tensor a, b, c, y;
    struct tensor weight;
    void         *weight_memory;
    size_t        weight_bytes;
};

enum { ROWS = 2048, WIDTH = 1536, FFN = 8960, TOKENS = 4096, HEADS = 12, HEAD = 128, SIDE = 64, CHANNELS = 96 };

/* A weight of random numbers in the device's own order. */
static void prepare(struct run *r, struct subject *s, int rank, const int64_t *dim, enum weight_use use)
{
    struct tensor want = gv_tensor(NULL, r->compute, rank, dim), src = gv_tensor(NULL, GV_F32, rank, dim);
    float        *host = malloc(gv_tensor_bytes(src));
    s->weight_bytes = r->device->ops->prepared_bytes(r->device, &want, use);
    if (!host || gv_device_alloc(r->device, s->weight_bytes, "a benchmark's weight", &s->weight_memory, &r->err)) {
        free(host);
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for a benchmark's weight");
        return;
    }
    uint32_t x = 1;
    for (int64_t i = 0; i < gv_tensor_count(src); i++) {
        x = x * 1664525u + 1013904223u;
        host[i] = ((float)(x >> 8) * 0x1p-24f - 0.5f) * 0.1f;
    }
    src.data = host;
    r->device->ops->prepare(r->device, s->weight_memory, src, r->compute, use, &s->weight, &r->err);
    free(host);
}

static void linear_setup(struct run *r, struct subject *s)
{
    s->a = noise(r, r->compute, ROWS, WIDTH);
    s->y = gv_scratch(r, r->compute, 2, DIMS(ROWS, FFN));
    prepare(r, s, 2, DIMS(FFN, WIDTH), WEIGHT_LINEAR);
}
static void linear_call(struct run *r, struct subject *s)
{
    gv_linear(r, s->y, s->a, s->weight, NULL);
}

static void conv_setup(struct run *r, struct subject *s)
{
    s->a = reshape(noise(r, r->compute, 6 * SIDE * SIDE, CHANNELS), 4, DIMS(6, SIDE, SIDE, CHANNELS));
    s->y = gv_scratch(r, r->compute, 4, DIMS(4, SIDE, SIDE, CHANNELS));
    prepare(r, s, 5, DIMS(CHANNELS, 3, 3, 3, CHANNELS), WEIGHT_CONV);
}
static void conv_call(struct run *r, struct subject *s)
{
    gv_conv(r, s->y, s->a, s->weight, &(struct conv_opts){ .pad_lo = { 0, 1, 1 }, .pad_hi = { 0, 1, 1 } });
}

static void attention_setup(struct run *r, struct subject *s)
{
    const int64_t shape[4] = { 1, TOKENS, HEADS, HEAD };
    s->a = reshape(noise(r, r->compute, TOKENS, HEADS * HEAD), 4, shape);
    s->b = reshape(noise(r, r->compute, TOKENS, HEADS * HEAD), 4, shape);
    s->c = reshape(noise(r, r->compute, TOKENS, HEADS * HEAD), 4, shape);
    s->y = gv_scratch(r, r->compute, 4, shape);
}
static void attention_call(struct run *r, struct subject *s)
{
    gv_attention_dense(r, s->y, s->a, s->b, s->c);
}

/* GFLOP/s, the best of the calls that fit the time. */
static double measure(struct device *d, struct subject *s, double seconds)
{
    struct run   r;
    struct error e = { 0 };
    double       best = 0, began = gv_now();
    if (gv_run_open(&r, d, d->compute, (size_t)256 << 20, &e))
        return 0;
    s->setup(&r, s);
    do {
        double flops = r.flops, t = gv_now();
        s->call(&r, s);
        gv_sync(&r);
        double rate = (r.flops - flops) / (gv_now() - t) * 1e-9;
        best = rate > best ? rate : best;
    } while (gv_now() - began < seconds && r.err.code == GV_OK);
    best = r.err.code ? 0 : best;
    gv_device_free(d, s->weight_memory, s->weight_bytes);
    gv_run_close(&r);
    return best;
}

char *gv_bench_json(struct device *d, double seconds)
{
    struct subject subjects[] = { { .name = "linear_gflops", .setup = linear_setup, .call = linear_call },
                                  { .name = "conv_gflops", .setup = conv_setup, .call = conv_call },
                                  { .name = "attention_gflops", .setup = attention_setup, .call = attention_call } };
    json_t        *o = json_pack("{s:s, s:s}", "device", d->name, "precision", d->compute == GV_BF16 ? "bf16" : "f32");
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
        json_object_set_new(o, subjects[i].name, json_real(measure(d, &subjects[i], seconds / 3)));
    char *text = json_dumps(o, JSON_INDENT(2));
    json_decref(o);
    return text;
}
