/* Pixels: RGB to YUV against arithmetic in double from BT.709's own constants, resizing against Pillow and torch. */
#include "io/frame.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MEDIA GV_TEST_DATA "/media/"

static uint32_t next(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

/* ---- the reference: nothing of the library's ratios ------------------------------------------------------------------- */

struct yuv {
    double y, u, v;
};

static struct yuv exact_yuv(double r, double g, double b)
{
    const double y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    return (struct yuv){16 + 219 * y / 255, 128 + 224 * (b - y) / (2 * (1 - 0.0722)) / 255,
                        128 + 224 * (r - y) / (2 * (1 - 0.2126)) / 255};
}

static uint8_t code(double v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : floor(v + 0.5));
}

static void rgb_from_yuv(uint8_t *rgb, double y, double u, double v)
{
    y = (y - 16) / 219 * 255;
    u = (u - 128) / 224 * 255;
    v = (v - 128) / 224 * 255;
    const double r = y + 2 * (1 - 0.2126) * v, b = y + 2 * (1 - 0.0722) * u;
    rgb[0] = code(r);
    rgb[1] = code((y - 0.2126 * r - 0.0722 * b) / 0.7152);
    rgb[2] = code(b);
}

/* Half a code, and what double itself is off by. */
static const double half = 0.5 + 1e-9;

struct planes {
    int      width, height, chroma_width, chroma_height;
    uint8_t *y, *u, *v;
};

static struct planes convert(const uint8_t *rgb, int width, int height, enum yuv_kind kind)
{
    struct planes p = {.width = width, .height = height};
    p.chroma_width  = kind == YUV_444 ? width : (width + 1) / 2;
    p.chroma_height = kind == YUV_444 ? height : (height + 1) / 2;
    const size_t c  = (size_t)p.chroma_width * (size_t)p.chroma_height;
    p.y             = malloc((size_t)width * (size_t)height);
    p.u             = malloc(c);
    p.v             = malloc(c);
    gv_yuv_from_rgb(p.y, width, p.u, p.v, p.chroma_width, rgb, width, height, kind);
    return p;
}

static void drop(struct planes *p)
{
    free(p->y);
    free(p->u);
    free(p->v);
}

static int clip(int v, int n)
{
    return v < 0 ? 0 : v >= n ? n - 1 : v;
}

/* Left-sited 4:2:0 widened linearly, as a player does: sample i on column 2i, between rows 2j and 2j + 1. */
static double chroma_at(const uint8_t *c, int width, int height, int x, int y)
{
    const double ay = (y - 0.5) / 2, ty = ay - floor(ay), tx = (x & 1) * 0.5;
    const int    y0 = clip((int)floor(ay), height), y1 = clip((int)floor(ay) + 1, height);
    const int    x0 = clip(x / 2, width), x1 = clip(x / 2 + 1, width);
    return (1 - ty) * ((1 - tx) * c[y0 * width + x0] + tx * c[y0 * width + x1]) +
           ty * ((1 - tx) * c[y1 * width + x0] + tx * c[y1 * width + x1]);
}

static void play(uint8_t *rgb, const struct planes *p, enum yuv_kind kind)
{
    for (int y = 0; y < p->height; y++)
        for (int x = 0; x < p->width; x++) {
            const int i = y * p->width + x;
            if (kind == YUV_444)
                rgb_from_yuv(rgb + 3 * i, p->y[i], p->u[i], p->v[i]);
            else
                rgb_from_yuv(rgb + 3 * i, p->y[i], chroma_at(p->u, p->chroma_width, p->chroma_height, x, y),
                             chroma_at(p->v, p->chroma_width, p->chroma_height, x, y));
        }
}

static double psnr(double sum_of_squares, double n)
{
    return 10 * log10(255.0 * 255.0 * n / (sum_of_squares + 1e-30));
}

/* A smooth picture without symmetry, in colours that a codec meets. */
static void scene(uint8_t *rgb, int width, int height)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const double u = (x + 0.5) / width, v = (y + 0.5) / height;
            uint8_t     *p = rgb + 3 * (y * width + x);
            p[0]           = code(255 * (0.15 + 0.7 * u));
            p[1]           = code(255 * (0.5 + 0.35 * sin(2.2 * u + 3 * v * v)));
            p[2]           = code(255 * (0.85 - 0.65 * v * (0.5 + 0.5 * u)));
        }
}

/* ---- RGB to YUV ------------------------------------------------------------------------------------------------------- */

static void yuv_444_is_within_half_a_code_of_exact(void **state)
{
    enum { STEP = 3, N = 256 / STEP + 1 };
    uint8_t *row = malloc(N * 3), y[N], u[N], v[N];
    (void)state;
    for (int r = 0; r < 256; r += STEP)
        for (int g = 0; g < 256; g += STEP) {
            for (int i = 0; i < N; i++)
                memcpy(row + 3 * i, (uint8_t[3]){(uint8_t)r, (uint8_t)g, (uint8_t)(i * STEP)}, 3);
            gv_yuv_from_rgb(y, N, u, v, N, row, N, 1, YUV_444);
            for (int i = 0; i < N; i++) {
                const struct yuv t = exact_yuv(r, g, i * STEP);
                if (fabs(y[i] - t.y) > half || fabs(u[i] - t.u) > half || fabs(v[i] - t.v) > half)
                    fail_msg("(%d %d %d) became (%d %d %d), exactly (%.4f %.4f %.4f)", r, g, i * STEP, y[i], u[i], v[i], t.y,
                             t.u, t.v);
            }
        }
    free(row);
}

static void known_colours_have_the_codes_of_the_standard(void **state)
{
    static const uint8_t rgb[] = {0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255};
    static const uint8_t want[] = {16, 235, 63, 173, 32, 128, 128, 102, 42, 240, 128, 128, 240, 26, 118};
    uint8_t              got[15];
    (void)state;
    gv_yuv_from_rgb(got, 5, got + 5, got + 10, 5, rgb, 5, 1, YUV_444);
    assert_memory_equal(got, want, 15);
}

static void yuv_420_of_any_size_is_within_half_a_code_of_exact(void **state)
{
    uint32_t seed = 709;
    (void)state;
    printf("seed %u\n", (unsigned)seed);
    for (int round = 0; round < 60; round++) {
        const int w = 1 + (int)(next(&seed) % 40), h = 1 + (int)(next(&seed) % 40);
        uint8_t  *rgb = malloc((size_t)(w * h * 3));
        for (int i = 0; i < w * h * 3; i++)
            rgb[i] = round & 1 ? (uint8_t)next(&seed) : (uint8_t)(next(&seed) & 1 ? 255 : 0);
        struct planes p = convert(rgb, w, h, YUV_420);
        for (int j = 0; j < p.chroma_height; j++)
            for (int i = 0; i < p.chroma_width; i++) {
                static const double weight[3] = {0.25, 0.5, 0.25};
                double              c[3]      = {0};
                for (int dy = 0; dy < 2; dy++)
                    for (int dx = -1; dx < 2; dx++)
                        for (int k = 0; k < 3; k++)
                            c[k] += 0.5 * weight[dx + 1] * rgb[3 * (clip(2 * j + dy, h) * w + clip(2 * i + dx, w)) + k];
                const struct yuv t = exact_yuv(c[0], c[1], c[2]);
                const int        at = j * p.chroma_width + i;
                if (fabs(p.u[at] - t.u) > half || fabs(p.v[at] - t.v) > half)
                    fail_msg("%d×%d, chroma (%d, %d) is (%d %d), exactly (%.4f %.4f)", w, h, i, j, p.u[at], p.v[at], t.u, t.v);
            }
        drop(&p);
        free(rgb);
    }
}

/* On a ramp the place of a sample is its value. Centred siting would be off by half a step of the ramp. */
static void chroma_sits_on_the_left_column_and_between_the_rows(void **state)
{
    enum { W = 24, H = 24 };
    uint8_t rgb[W * H * 3];
    (void)state;
    for (int along = 0; along < 2; along++) {
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                memcpy(rgb + 3 * (y * W + x), (uint8_t[3]){100, 80, (uint8_t)(10 * (along ? y : x))}, 3);
        struct planes p = convert(rgb, W, H, YUV_420);
        for (int j = 1; j < H / 2 - 1; j++)
            for (int i = 1; i < W / 2 - 1; i++) {
                const double blue = 10 * (along ? 2 * j + 0.5 : 2 * i);
                assert_true(fabs(p.u[j * W / 2 + i] - exact_yuv(100, 80, blue).u) <= half);
            }
        drop(&p);
    }
}

static void rgb_survives_444_within_two_codes_and_51_5_db(void **state)
{
    enum { N = 1 << 18 };
    uint8_t *rgb = malloc(N * 3), *back = malloc(N * 3);
    uint32_t seed = 444;
    double   sum  = 0;
    int      worst = 0;
    (void)state;
    for (int i = 0; i < N * 3; i++)
        rgb[i] = (uint8_t)next(&seed);
    struct planes p = convert(rgb, N, 1, YUV_444);
    play(back, &p, YUV_444);
    for (int i = 0; i < N * 3; i++) {
        const int d = abs(rgb[i] - back[i]);
        worst       = d > worst ? d : worst;
        sum += d * d;
    }
    printf("4:4:4 round trip: worst %d codes, %.2f dB\n", worst, psnr(sum, N * 3));
    assert_true(worst <= 2);
    assert_true(psnr(sum, N * 3) >= 51.5);
    drop(&p);
    free(rgb);
    free(back);
}

static void patches_keep_50_db_inside_at_420(void **state)
{
    enum { PATCH = 16, SIDE = 16 * PATCH };
    uint8_t *rgb = malloc(SIDE * SIDE * 3), *back = malloc(SIDE * SIDE * 3);
    uint32_t seed = 420;
    double   sum = 0, n = 0;
    (void)state;
    for (int py = 0; py < SIDE; py += PATCH)
        for (int px = 0; px < SIDE; px += PATCH) {
            const uint8_t c[3] = {(uint8_t)next(&seed), (uint8_t)next(&seed), (uint8_t)next(&seed)};
            for (int i = 0; i < PATCH * PATCH; i++)
                memcpy(rgb + 3 * ((py + i / PATCH) * SIDE + px + i % PATCH), c, 3);
        }
    struct planes p = convert(rgb, SIDE, SIDE, YUV_420);
    play(back, &p, YUV_420);
    for (int i = 0; i < SIDE * SIDE; i++) {
        const int x = i % SIDE % PATCH, y = i / SIDE % PATCH; /* 2 pixels from the border chroma is of both */
        for (int k = 0; x >= 2 && x < PATCH - 2 && y >= 2 && y < PATCH - 2 && k < 3; k++, n++)
            sum += (rgb[3 * i + k] - back[3 * i + k]) * (rgb[3 * i + k] - back[3 * i + k]);
    }
    printf("4:2:0 inside patches: %.2f dB\n", psnr(sum, n));
    assert_true(psnr(sum, n) >= 50);
    drop(&p);
    free(rgb);
    free(back);
}

static void ten_generations_do_not_drift(void **state)
{
    enum { W = 160, H = 90, GENERATIONS = 10 };
    uint8_t *rgb = malloc(W * H * 3), *now = malloc(W * H * 3);
    (void)state;
    scene(rgb, W, H);
    for (int kind = YUV_444; kind <= YUV_420; kind++) {
        double sum = 0, bias[3] = {0};
        memcpy(now, rgb, W * H * 3);
        for (int g = 0; g < GENERATIONS; g++) {
            struct planes p = convert(now, W, H, (enum yuv_kind)kind);
            play(now, &p, (enum yuv_kind)kind);
            drop(&p);
        }
        for (int i = 0; i < W * H * 3; i++) {
            const double d = now[i] - rgb[i];
            sum += d * d;
            bias[i % 3] += d / (W * H);
        }
        printf("ten generations at %s: %.2f dB, bias %+.3f %+.3f %+.3f\n", kind == YUV_444 ? "4:4:4" : "4:2:0",
               psnr(sum, W * H * 3), bias[0], bias[1], bias[2]);
        assert_true(psnr(sum, W * H * 3) >= 50);
        for (int k = 0; k < 3; k++)
            assert_true(fabs(bias[k]) < 0.1);
    }
    free(rgb);
    free(now);
}

static void strides_beyond_the_width_are_left_alone(void **state)
{
    enum { W = 5, H = 3, STRIDE = 9 };
    uint8_t rgb[W * H * 3], y[STRIDE * H], u[STRIDE * 2], v[STRIDE * 2], tight_y[W * H], tight_u[6], tight_v[6];
    (void)state;
    scene(rgb, W, H);
    memset(y, 7, sizeof y);
    memset(u, 7, sizeof u);
    memset(v, 7, sizeof v);
    gv_yuv_from_rgb(y, STRIDE, u, v, STRIDE, rgb, W, H, YUV_420);
    gv_yuv_from_rgb(tight_y, W, tight_u, tight_v, 3, rgb, W, H, YUV_420);
    for (int j = 0; j < H; j++)
        for (int i = 0; i < STRIDE; i++)
            assert_int_equal(y[j * STRIDE + i], i < W ? tight_y[j * W + i] : 7);
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < STRIDE; i++)
            assert_int_equal(u[j * STRIDE + i], i < 3 ? tight_u[j * 3 + i] : 7);
}

/* ---- floats ----------------------------------------------------------------------------------------------------------- */

static void every_code_survives_the_way_through_float(void **state)
{
    uint8_t codes[256], back[256];
    float   x[256];
    (void)state;
    for (int i = 0; i < 256; i++)
        codes[i] = (uint8_t)i;
    gv_pixels_to_float(x, codes, 256);
    gv_pixels_from_float(back, x, 256);
    assert_memory_equal(back, codes, 256);
    assert_true(x[0] == -1.0f && x[255] == 1.0f);
}

static void floats_are_clamped_rounded_half_up_and_nan_is_black(void **state)
{
    static const struct {
        float   x;
        uint8_t code;
    } cases[] = {{-1, 0},        {1, 255},      {-7, 0},       {1e30f, 255},   {-1e30f, 0},        {INFINITY, 255},
                 {-INFINITY, 0}, {NAN, 0},      {0, 128},      {-0.9962f, 0}, {-0.996f, 1}, {0.996f, 254}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t got;
        gv_pixels_from_float(&got, &cases[i].x, 1);
        if (got != cases[i].code)
            fail_msg("%g became %d, expected %d", (double)cases[i].x, got, cases[i].code);
    }
}

/* ---- resizing --------------------------------------------------------------------------------------------------------- */

static void *load(const char *name, size_t bytes)
{
    char path[512];
    snprintf(path, sizeof path, MEDIA "%s", name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    void *p = malloc(bytes);
    assert_int_equal(fread(p, 1, bytes, f), bytes);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    return p;
}

static void resizing_follows_pillow_exactly_and_torch_to_1e_4(void **state)
{
    char kind[16], name[64], source[64];
    int  sw, sh, w, h, n = 0;
    (void)state;
    FILE *f = fopen(MEDIA "resize.tsv", "r");
    assert_non_null(f);
    for (; fscanf(f, "%15s %d %d %d %d %63s", kind, &sw, &sh, &w, &h, name) == 6; n++) {
        const bool         torch = !strcmp(kind, "torch");
        const size_t       count = (size_t)(w * h * 3);
        enum resize_kind   k = torch ? RESIZE_TORCH_BICUBIC : strcmp(kind, "lanczos") ? RESIZE_PIL_BICUBIC : RESIZE_LANCZOS;
        struct error       e = {0};
        float             *got = malloc(count * sizeof *got);
        snprintf(source, sizeof source, "source.%dx%d.rgb", sw, sh);
        struct image src = {sw, sh, load(source, (size_t)(sw * sh * 3))};
        void        *ref = load(name, torch ? count * sizeof(float) : count);
        assert_int_equal(gv_image_resize(got, w, h, &src, k, &e), GV_OK);
        double worst = 0;
        for (size_t i = 0; i < count; i++) {
            const double want = torch ? (double)((float *)ref)[i] : (double)((uint8_t *)ref)[i];
            worst             = fmax(worst, fabs((double)got[i] - want));
        }
        if (worst > (torch ? 255e-4 : 0.0))
            fail_msg("%s is off by %g", name, worst);
        if (torch)
            printf("%s: %.1e of 255\n", name, worst / 255);
        gv_image_free(&src);
        free(ref);
        free(got);
    }
    fclose(f);
    assert_int_equal(n, 21);
}

static void resizing_to_the_same_size_changes_nothing(void **state)
{
    struct image im = {0};
    struct error e  = {0};
    (void)state;
    assert_int_equal(gv_image_new(&im, 19, 7, &e), GV_OK);
    scene(im.rgb, 19, 7);
    float out[19 * 7 * 3];
    for (int k = RESIZE_LANCZOS; k <= RESIZE_TORCH_BICUBIC; k++) {
        assert_int_equal(gv_image_resize(out, 19, 7, &im, (enum resize_kind)k, &e), GV_OK);
        for (int i = 0; i < 19 * 7 * 3; i++)
            assert_true(out[i] == (float)im.rgb[i]);
    }
    gv_image_free(&im);
}

static void impossible_sizes_are_refused(void **state)
{
    struct image im = {0};
    struct error e  = {0};
    float        x;
    (void)state;
    assert_int_equal(gv_image_new(&im, 0, 5, &e), GV_ERR_ARGUMENT);
    assert_null(im.rgb);
    e = (struct error){0};
    assert_int_equal(gv_image_new(&im, 5, -1, &e), GV_ERR_ARGUMENT);
    assert_int_equal(gv_image_resize(&x, 1, 1, &im, RESIZE_LANCZOS, NULL), GV_ERR_ARGUMENT);
    gv_image_free(&im);
    gv_image_free(NULL);
}

/* ---- ten bits ---------------------------------------------------------------------------------------------------------- */

/* The picture's value at a place, edges repeated. */
static double wide_at(const uint16_t *rgb, int width, int height, int x, int y, int c)
{
    return rgb[3 * (clip(y, height) * width + clip(x, width)) + c] / 65535.0;
}

static void ten_bits_of_any_kind_are_within_half_a_code_of_exact(void **state)
{
    static const enum yuv_kind kinds[] = { YUV_444, YUV_422, YUV_420 };
    uint32_t                   seed = 1023;
    (void)state;
    for (int k = 0; k < 30; k++) {
        enum { SIDE = 24 };
        const int             w = 1 + (int)(next(&seed) % SIDE), h = 1 + (int)(next(&seed) % SIDE);
        const enum yuv_kind   kind = kinds[k % 3];
        const int             sx = kind != YUV_444, sy = kind == YUV_420, cw = (w + sx) >> sx, ch = (h + sy) >> sy;
        uint16_t              rgb[SIDE * SIDE * 3], plane[3][SIDE * SIDE];
        const struct planes10 d = { { plane[0], plane[1], plane[2] }, { w, cw, cw } };
        for (int i = 0; i < w * h * 3; i++)
            rgb[i] = (uint16_t)(k < 3 ? (next(&seed) & 1 ? 65535 : 0) : next(&seed));
        gv_yuv10_from_rgb16(&d, rgb, w, h, kind);
        for (int i = 0; i < w * h; i++) {
            const double r = rgb[3 * i] / 65535.0, g = rgb[3 * i + 1] / 65535.0, b = rgb[3 * i + 2] / 65535.0;
            assert_true(fabs(plane[0][i] - (64 + 876 * (0.2126 * r + 0.7152 * g + 0.0722 * b))) <= half);
        }
        for (int i = 0; i < cw * ch; i++) {
            double c[3] = { 0 };
            for (int dy = 0; dy <= sy; dy++)
                for (int dx = -sx; dx <= sx; dx++)
                    for (int j = 0; j < 3; j++)
                        c[j] += wide_at(rgb, w, h, (i % cw << sx) + dx, (i / cw << sy) + dy, j) *
                                (dx   ? 0.25
                                 : sx ? 0.5
                                      : 1) /
                                (1 + sy);
            const double y = 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
            assert_true(fabs(plane[1][i] - (512 + 896 * (c[2] - y) / 1.8556)) <= half);
            assert_true(fabs(plane[2][i] - (512 + 896 * (c[0] - y) / 1.5748)) <= half);
        }
    }
}

static void sixteen_bits_are_rounded_half_up_and_clamped(void **state)
{
    const float   x[] = { -1, 1, 0, -2, 2, NAN, -1.0f + 1.0f / 65535, INFINITY };
    const uint8_t b[] = { 0, 255, 128 };
    uint16_t      v[8];
    (void)state;
    gv_pixels16_from_float(v, x, 8);
    const uint16_t want[] = { 0, 65535, 32768, 0, 65535, 0, 1, 65535 };
    assert_memory_equal(v, want, sizeof want);
    gv_pixels16_from_8(v, b, 3);
    assert_int_equal(v[0], 0);
    assert_int_equal(v[1], 65535);
    assert_int_equal(v[2], 128 * 257);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_bits_of_any_kind_are_within_half_a_code_of_exact),
        cmocka_unit_test(sixteen_bits_are_rounded_half_up_and_clamped),
        cmocka_unit_test(yuv_444_is_within_half_a_code_of_exact),
        cmocka_unit_test(known_colours_have_the_codes_of_the_standard),
        cmocka_unit_test(yuv_420_of_any_size_is_within_half_a_code_of_exact),
        cmocka_unit_test(chroma_sits_on_the_left_column_and_between_the_rows),
        cmocka_unit_test(rgb_survives_444_within_two_codes_and_51_5_db),
        cmocka_unit_test(patches_keep_50_db_inside_at_420),
        cmocka_unit_test(ten_generations_do_not_drift),
        cmocka_unit_test(strides_beyond_the_width_are_left_alone),
        cmocka_unit_test(every_code_survives_the_way_through_float),
        cmocka_unit_test(floats_are_clamped_rounded_half_up_and_nan_is_black),
        cmocka_unit_test(resizing_follows_pillow_exactly_and_torch_to_1e_4),
        cmocka_unit_test(resizing_to_the_same_size_changes_nothing),
        cmocka_unit_test(impossible_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
