/* The map from latents to colours, fitted to the VAE that ships: what it shows of a real picture's latents has to look like that
 * picture made small. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion/models.h"
#include "io/image.h"
#include "pipelines/preview.h"
#include "tests/fixture.h"

enum { SIDE = 256, SCRATCH = 256 << 20 };

static struct {
    struct device *device;
    struct vae    *vae;
    struct run     run;
} world;

static int open_world(void **state)
{
    (void)state;
    struct error e = { 0 };
    gv_device_open(&world.device, &(struct device_params){ .name = "cpu", .threads = 2, .precision = "f32" }, &e);
    assert_string_equal(e.text, "");
    gv_vae_open(&world.vae, GV_SOURCE_DIR "/assets/models/vae", world.device, GV_F32, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(gv_run_open(&world.run, world.device, GV_F32, SCRATCH, &e), GV_OK);
    assert_int_equal(gv_weights_pin(world.vae->decoder, world.device, false, &e), GV_OK);
    return gv_weights_pin(world.vae->encoder, world.device, false, &e);
}

static int close_world(void **state)
{
    (void)state;
    gv_weights_unpin(world.vae->decoder, world.device, false, true);
    gv_weights_unpin(world.vae->encoder, world.device, false, true);
    gv_run_close(&world.run);
    world.vae->model->close(world.vae);
    gv_device_close(&world.device);
    return 0;
}

/* f32 [side, side, channels] on the host of a picture in [-1, 1] */
static float *latents_of(const float *picture, int64_t side)
{
    struct run       *r = &world.run;
    const struct vae *vae = world.vae;
    struct mark       mark = arena_mark(&r->scratch);
    struct tensor     x = gv_scratch(r, GV_F32, 4, DIMS(1, SIDE, SIDE, 3)),
                  z = gv_scratch(r, GV_F32, 4, DIMS(1, side, side, vae->z));
    float             *out = malloc(gv_tensor_bytes(z));
    struct vae_stream *s = vae->model->stream_open(r, vae, VAE_ENCODE);
    gv_upload(r, x, picture);
    vae->model->encode(r, s, z, x);
    vae->model->stream_close(r, s);
    gv_download(r, out, z);
    gv_sync(r);
    assert_string_equal(r->err.text, "");
    arena_release(&r->scratch, mark);
    return out;
}

static void a_preview_looks_like_the_picture_made_small(void **state)
{
    (void)state;
    struct image       im;
    struct error       e = { 0 };
    struct preview_map map;
    const int          side = SIDE / world.vae->space_scale;
    float   *large = malloc(sizeof(float) * SIDE * SIDE * 3), *small = malloc(sizeof(float) * (size_t)(side * side * 3));
    uint8_t *rgb = malloc((size_t)(side * side * 3));
    assert_int_equal(gv_image_read(&im, GV_SOURCE_DIR "/assets/samples/coffee.png", &e), GV_OK);
    assert_int_equal(gv_image_resize(large, SIDE, SIDE, &im, RESIZE_LANCZOS, &e), GV_OK);
    assert_int_equal(gv_image_resize(small, side, side, &im, RESIZE_LANCZOS, &e), GV_OK);
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        large[i] = large[i] / 255 * 2 - 1;
    gv_preview_fit(&world.run, world.vae, &map);
    assert_string_equal(world.run.err.text, "");
    assert_int_equal(map.channels, world.vae->z);
    float *z = latents_of(large, side);
    gv_preview_draw(rgb, &map, z, side * side);
    double error = 0, flat = 0, mean = 0;
    for (int i = 0; i < side * side * 3; i++)
        mean += (double)small[i] / (side * side * 3);
    for (int i = 0; i < side * side * 3; i++) {
        error += pow((double)small[i] - rgb[i], 2) / (side * side * 3);
        flat += pow((double)small[i] - mean, 2) / (side * side * 3);
    }
    print_message("  preview %.1f dB, one grey %.1f dB\n", 10 * log10(255 * 255 / error), 10 * log10(255 * 255 / flat));
    assert_true(error < flat / 4); /* measured: see the line above; a map of noise does worse than one grey */
    gv_image_free(&im);
    free(z);
    free(rgb);
    free(large);
    free(small);
}

/* A map is read as it is written: rows of channels, then what is added. */
static void a_map_is_a_sum_of_rows(void **state)
{
    (void)state;
    const struct preview_map map = { .channels = 2, .row = { { 1, 0, 0 }, { 0, -1, 0.5f }, { 0, 0, -1 } } };
    const float              z[4] = { 1, 0, -1, 1 };
    const uint8_t            wanted[6] = { 255, 128, 0, 0, 0, 64 };
    uint8_t                  rgb[6];
    gv_preview_draw(rgb, &map, z, 2);
    assert_memory_equal(rgb, wanted, sizeof rgb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_map_is_a_sum_of_rows),
        cmocka_unit_test(a_preview_looks_like_the_picture_made_small),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
