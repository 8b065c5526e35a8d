/* The Wan VAE against diffusers, chunk by chunk, in the tiny widths and the shipped family's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion/models.h"
#include "tests/diffusion/model_case.h"

static struct vae *open_vae(struct model_case *c, const char *name, const char *precision)
{
    struct vae *v;
    case_open(c, name, precision, GV_F32);
    gv_vae_open(&v, c->folder, c->device, c->run.compute, &c->error);
    assert_string_equal(c->error.text, "");
    assert_int_equal(gv_weights_pin(v->encoder, c->device, false, &c->error), GV_OK);
    assert_int_equal(gv_weights_pin(v->decoder, c->device, false, &c->error), GV_OK);
    return v;
}

static void close_vae(struct model_case *c, struct vae *v)
{
    gv_weights_unpin(v->encoder, c->device, false, true);
    gv_weights_unpin(v->decoder, c->device, false, true);
    v->model->close(v);
    case_close(c);
}

/* All of a clip of T latent frames of h × w: pixels [1 + 4 (T - 1), 8 h, 8 w, 3]. */
static float *decode(struct model_case *c, struct vae *v, const float *latent, int64_t T, int64_t h, int64_t w)
{
    int64_t frames = 1 + 4 * (T - 1), size = 64 * h * w * 3;
    float  *out = malloc((size_t)(frames * size) * sizeof *out), *last = malloc((size_t)(T * h * w * v->z) * sizeof *last),
          *at = out;
    struct vae_stream *s = v->model->stream_open(&c->run, v, VAE_DECODE);
    channels_last(last, latent, v->z, T, h, w);
    for (int64_t t = 0; t < T; t++) {
        struct mark   mark = arena_mark(&c->run.scratch);
        int64_t       n = t ? 4 : 1;
        struct tensor z = case_upload(c, 4, DIMS(1, h, w, v->z), last + t * h * w * v->z),
                      y = gv_scratch(&c->run, GV_F32, 4, DIMS(n, 8 * h, 8 * w, 3));
        v->model->decode(&c->run, s, y, z);
        gv_download(&c->run, at, y);
        at += n * size;
        arena_release(&c->run.scratch, mark);
    }
    assert_string_equal(c->run.err.text, "");
    v->model->stream_close(&c->run, s);
    free(last);
    return out;
}

/* Frames [F, 8h, 8w, 3] → latents [T, h, w, z]. */
static float *encode(struct model_case *c, struct vae *v, const float *frames, int64_t T, int64_t h, int64_t w)
{
    float             *out = malloc((size_t)(T * h * w * v->z) * sizeof *out);
    struct vae_stream *s = v->model->stream_open(&c->run, v, VAE_ENCODE);
    const float       *at = frames;
    for (int64_t t = 0; t < T; t++) {
        struct mark   mark = arena_mark(&c->run.scratch);
        int64_t       n = t ? 4 : 1;
        struct tensor x = case_upload(c, 4, DIMS(n, 8 * h, 8 * w, 3), at),
                      z = gv_scratch(&c->run, GV_F32, 4, DIMS(1, h, w, v->z));
        v->model->encode(&c->run, s, z, x);
        gv_download(&c->run, out + t * h * w * v->z, z);
        at += n * 64 * h * w * 3;
        arena_release(&c->run.scratch, mark);
    }
    assert_string_equal(c->run.err.text, "");
    v->model->stream_close(&c->run, s);
    return out;
}

static void check_decode(const char *name, const char *precision, int64_t T)
{
    struct model_case c;
    struct vae       *v = open_vae(&c, name, precision);
    int64_t           h = 4, w = 6, F = 1 + 4 * (T - 1), n = F * 64 * h * w * 3;
    float *last = decode(&c, v, golden_get(&c.golden, "dec.latent", NULL), T, h, w), *first = malloc((size_t)n * sizeof *first);
    channels_first(first, last, 3, F, 8 * h, 8 * w);
    double db = psnr(first, golden_get(&c.golden, "dec.frames", NULL), n);
    case_compare(&c, "frames", first, "dec.frames", "dec.frames");
    double wanted = case_is_f32(&c) ? 60 : (double)golden_number(&c.golden, "bf16_psnr.dec.frames") - 1;
    print_message("  %-28s %.1f dB, wanted %.1f\n", name, db, wanted);
    assert_true(db >= wanted);
    free(first);
    free(last);
    close_vae(&c, v);
}

static void check_encode(const char *name, const char *precision, int64_t T)
{
    struct model_case c;
    struct vae       *v = open_vae(&c, name, precision);
    int64_t           h = 4, w = 6, F = 1 + 4 * (T - 1), n = F * 64 * h * w * 3;
    float            *made = malloc((size_t)n * sizeof *made), *last = malloc((size_t)n * sizeof *last);
    fixture_fill(made, "input.frames", n, 1, 0);
    channels_last(last, made, 3, F, 8 * h, 8 * w);
    float *z = encode(&c, v, last, T, h, w), *first = malloc((size_t)(T * h * w * v->z) * sizeof *first);
    channels_first(first, z, v->z, T, h, w);
    case_compare(&c, "latents", first, "enc.latent", "enc.moments");
    free(first);
    free(z);
    free(last);
    free(made);
    close_vae(&c, v);
}

static void decoding_equals_diffusers(void **state)
{
    (void)state;
    check_decode("vae", "f32", 5);
    check_decode("vae_shipped", "f32", 3);
}
static void encoding_equals_diffusers(void **state)
{
    (void)state;
    check_encode("vae", "f32", 5);
    check_encode("vae_shipped", "f32", 3);
}
static void bf16_is_as_good_as_diffusers_bf16(void **state)
{
    (void)state;
    check_decode("vae", "bf16", 5);
    check_decode("vae_shipped", "bf16", 3);
    check_encode("vae", "bf16", 5);
    check_encode("vae_shipped", "bf16", 3);
}

/* ---- inside the first chunks, so that a wrong stage is found by name ---- */

struct look {
    struct model_case *c;
    int                ups, downs, chunk;
};

static void compare_stage(void *user, struct run *r, const char *tap, struct tensor x)
{
    struct look *l = user;
    int          chunk;
    char         kind[8], part[32], name[64];
    if (sscanf(tap, "%2s%*[a-z ]%d.%31s", kind, &chunk, part) != 3)
        return;
    if (chunk != l->chunk)
        l->chunk = chunk, l->ups = l->downs = 0;
    bool decoding = !strcmp(kind, "de");
    if (!strcmp(part, "up"))
        snprintf(part, sizeof part, "up%d", l->ups++);
    if (!strcmp(part, "down"))
        snprintf(part, sizeof part, "down%d", l->downs++);
    snprintf(name, sizeof name, "trace.%s.c%d.%s", decoding ? "dec" : "enc", chunk, part);
    if (!golden_has(&l->c->golden, name))
        return;
    float *ours = case_download(r, x), *first = malloc((size_t)gv_tensor_count(x) * sizeof *first);
    channels_first(first, ours, x.dim[3], x.dim[0], x.dim[1], x.dim[2]);
    case_compare(l->c, name, first, name, name);
    free(first);
    free(ours);
}

static void every_stage_of_the_first_chunks_equals_diffusers(void **state)
{
    (void)state;
    struct model_case c;
    struct vae       *v = open_vae(&c, "vae", "f32");
    struct look       look = { .c = &c };
    struct tap        tap = { compare_stage, &look };
    int64_t           n = 5 * 16 * 24 * 3;
    float            *made = malloc((size_t)n * sizeof *made), *last = malloc((size_t)n * sizeof *last);
    fixture_fill(made, "trace.frames", n, 1, 0);
    channels_last(last, made, 3, 5, 16, 24);
    c.run.tap = &tap;
    free(encode(&c, v, last, 2, 2, 3));
    free(last);
    free(made);
    close_vae(&c, v);
}

/* ---- the stream ---- */

static void kept_memory_does_not_grow_with_the_clip(void **state)
{
    (void)state;
    struct model_case  c;
    struct vae        *v = open_vae(&c, "vae", "f32");
    struct vae_stream *s = v->model->stream_open(&c.run, v, VAE_DECODE);
    size_t             after_two = 0;
    for (int t = 0; t < 6; t++) {
        struct mark   mark = arena_mark(&c.run.scratch);
        struct tensor z = gv_scratch(&c.run, GV_F32, 4, DIMS(1, 2, 2, v->z)),
                      y = gv_scratch(&c.run, GV_F32, 4, DIMS(t ? 4 : 1, 16, 16, 3));
        gv_noise(&c.run, z, &(struct noise_key){ .seed = 1, .t0 = t });
        v->model->decode(&c.run, s, y, z);
        arena_release(&c.run.scratch, mark);
        if (t == 1)
            after_two = atomic_load(&c.device->in_use);
    }
    assert_string_equal(c.run.err.text, "");
    assert_true(atomic_load(&c.device->in_use) == after_two);
    v->model->stream_close(&c.run, s);
    close_vae(&c, v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stage_of_the_first_chunks_equals_diffusers),
        cmocka_unit_test(decoding_equals_diffusers),
        cmocka_unit_test(encoding_equals_diffusers),
        cmocka_unit_test(bf16_is_as_good_as_diffusers_bf16),
        cmocka_unit_test(kept_memory_does_not_grow_with_the_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
