/* The checks in front of every operation, broadcasting, and the noise. Whether devices compute rightly is opcheck's to say. */
#include "core/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"

static struct device *cpu;

static int open_cpu(void **state)
{
    (void)state;
    const struct device_params p = { .name = "cpu", .threads = 2, .precision = "bf16" };
    return gv_device_open(&cpu, &p, NULL);
}

static int close_cpu(void **state)
{
    (void)state;
    gv_device_close(&cpu);
    return 0;
}

static struct run fresh(void)
{
    struct run   r;
    struct error e = { 0 };
    gv_run_open(&r, cpu, GV_BF16, 1 << 20, &e);
    assert_string_equal(e.text, "");
    return r;
}

static struct tensor f32(struct run *r, int64_t n, int64_t d)
{
    struct tensor t = gv_scratch(r, GV_F32, 2, DIMS(n, d));
    gv_fill(r, t, 0);
    return t;
}

static struct tensor vec(struct run *r, int64_t d)
{
    return gv_scratch(r, GV_F32, 1, DIMS(d));
}

static struct tensor cube(struct run *r, enum dtype type, int64_t t, int64_t h, int64_t w, int64_t c)
{
    return gv_scratch(r, type, 4, DIMS(t, h, w, c));
}

/* ---- misfits: each case is one call that must fail the run, and say so ---- */

static struct tensor i32(struct run *r, int64_t n)
{
    return gv_scratch(r, GV_I32, 1, DIMS(n));
}

static void lin(struct run *r, struct tensor y, struct tensor x, const struct linear_opts *o)
{
    gv_linear(r, y, x, f32(r, 6, 8), o);
}
static void linear_wide_x(struct run *r)
{
    lin(r, f32(r, 4, 6), f32(r, 4, 9), NULL);
}
static void linear_rows(struct run *r)
{
    lin(r, f32(r, 5, 6), f32(r, 4, 8), NULL);
}
static void linear_strided_x(struct run *r)
{
    lin(r, f32(r, 4, 6), permute(f32(r, 8, 4), (const int[]){ 1, 0 }), NULL);
}
static void linear_add_bf16(struct run *r)
{
    lin(r, gv_scratch(r, GV_BF16, 2, DIMS(4, 6)), f32(r, 4, 8), &(struct linear_opts){ .add = true });
}
static void linear_f16(struct run *r)
{
    lin(r, f32(r, 4, 6), gv_scratch(r, GV_F16, 2, DIMS(4, 8)), NULL);
}
static void linear_bias(struct run *r)
{
    lin(r, f32(r, 4, 6), f32(r, 4, 8), &(struct linear_opts){ .bias = vec(r, 5) });
}
static void linear_bias_rows(struct run *r)
{
    lin(r, f32(r, 4, 6), f32(r, 4, 8), &(struct linear_opts){ .bias = f32(r, 2, 6) });
}
static void linear_gate(struct run *r)
{
    lin(r, f32(r, 4, 6), f32(r, 4, 8), &(struct linear_opts){ .gate = f32(r, 2, 7) });
}
static void linear_gate_empty(struct run *r)
{
    lin(r, f32(r, 4, 6), f32(r, 4, 8), &(struct linear_opts){ .gate = f32(r, 0, 6) });
}
static void linear_group(struct run *r)
{
    lin(r, f32(r, 4, 6), f32(r, 4, 8), &(struct linear_opts){ .gate = f32(r, 2, 6), .group = i32(r, 3) });
}
static void linear_overlap(struct run *r)
{
    struct tensor all = vec(r, 100);
    lin(r, reshape(slice(all, 0, 8, 24), 2, DIMS(4, 6)), reshape(slice(all, 0, 0, 32), 2, DIMS(4, 8)), NULL);
}
static void norm_y(struct run *r)
{
    gv_norm(r, f32(r, 4, 8), f32(r, 4, 6), &(struct norm_opts){ .eps = 1 });
}
static void norm_weight(struct run *r)
{
    gv_norm(r, f32(r, 4, 8), f32(r, 4, 8), &(struct norm_opts){ .weight = vec(r, 7) });
}
static void norm_weight_type(struct run *r)
{
    gv_norm(r, f32(r, 4, 8), f32(r, 4, 8), &(struct norm_opts){ .weight = gv_scratch(r, GV_BF16, 1, DIMS(8)) });
}
static void norm_shift(struct run *r)
{
    gv_norm(r, f32(r, 4, 8), f32(r, 4, 8), &(struct norm_opts){ .scale = f32(r, 2, 8), .shift = f32(r, 1, 8) });
}
static void norm_group(struct run *r)
{
    gv_norm(r, f32(r, 4, 8), f32(r, 4, 8), &(struct norm_opts){ .scale = f32(r, 2, 8), .group = f32(r, 1, 4) });
}
static void norm_rope_head(struct run *r)
{
    const struct rope rope = { .cos = f32(r, 4, 1), .sin = f32(r, 4, 1), .head = 3 };
    gv_norm(r, f32(r, 4, 9), f32(r, 4, 9), &(struct norm_opts){ .rope = &rope });
}
static void norm_rope_none(struct run *r)
{
    const struct rope rope = { .cos = f32(r, 0, 2), .sin = f32(r, 0, 2), .head = 4 };
    gv_norm(r, f32(r, 4, 8), f32(r, 4, 8), &(struct norm_opts){ .rope = &rope });
}
static void norm_rope_rows(struct run *r)
{
    const struct rope rope = { .cos = f32(r, 3, 2), .sin = f32(r, 3, 2), .head = 4 };
    gv_norm(r, f32(r, 4, 8), f32(r, 4, 8), &(struct norm_opts){ .rope = &rope });
}
static void conv_x_type(struct run *r)
{
    gv_conv(r, cube(r, GV_F32, 1, 4, 4, 2), cube(r, GV_F32, 1, 4, 4, 3), gv_scratch(r, GV_BF16, 5, DIMS(2, 1, 1, 1, 3)),
            &(struct conv_opts){ 0 });
}
static void conv_channels(struct run *r)
{
    gv_conv(r, cube(r, GV_F32, 1, 4, 4, 2), cube(r, GV_BF16, 1, 4, 4, 4), gv_scratch(r, GV_BF16, 5, DIMS(2, 1, 1, 1, 3)),
            &(struct conv_opts){ 0 });
}
static void conv_size(struct run *r)
{
    gv_conv(r, cube(r, GV_F32, 1, 4, 4, 2), cube(r, GV_BF16, 1, 4, 4, 3), gv_scratch(r, GV_BF16, 5, DIMS(2, 1, 3, 3, 3)),
            &(struct conv_opts){ 0 });
}
static void act_shape(struct run *r)
{
    gv_act(r, f32(r, 3, 4), f32(r, 4, 3), ACT_SILU);
}
static void glu_b(struct run *r)
{
    gv_glu(r, f32(r, 3, 4), f32(r, 3, 4), f32(r, 3, 5), ACT_SILU);
}
static void add_rows(struct run *r)
{
    gv_add(r, f32(r, 4, 5), f32(r, 4, 5), f32(r, 3, 5));
}
static void add_nothing(struct run *r)
{
    gv_add(r, f32(r, 4, 5), f32(r, 4, 5), f32(r, 0, 5));
}
static void copy_shape(struct run *r)
{
    gv_copy(r, f32(r, 4, 5), f32(r, 5, 4));
}
static void copy_integers(struct run *r)
{
    gv_copy(r, i32(r, 4), i32(r, 4));
}
static void copy_overlap(struct run *r)
{
    struct tensor all = vec(r, 10);
    gv_copy(r, slice(all, 0, 1, 8), slice(all, 0, 0, 8));
}
static void fill_integers(struct run *r)
{
    gv_fill(r, i32(r, 4), 1);
}
static void gather_index_type(struct run *r)
{
    gv_gather(r, f32(r, 4, 5), f32(r, 9, 5), vec(r, 4));
}
static void gather_rows(struct run *r)
{
    gv_gather(r, f32(r, 3, 5), f32(r, 9, 5), i32(r, 4));
}
static void lincomb_none(struct run *r)
{
    gv_lincomb(r, f32(r, 3, 5), 0, NULL);
}
static void lincomb_many(struct run *r)
{
    gv_lincomb(r, f32(r, 3, 5), GV_LINCOMB_TERMS + 1, NULL);
}
static void lincomb_shape(struct run *r)
{
    gv_lincomb(r, f32(r, 3, 5), 1, &(struct lincomb_term){ 1, f32(r, 5, 3) });
}
static void patch_zero(struct run *r)
{
    gv_patchify(r, f32(r, 4, 4), cube(r, GV_F32, 1, 4, 4, 1), (const int[]){ 1, 0, 2 });
}
static void patch_odd(struct run *r)
{
    gv_patchify(r, f32(r, 4, 4), cube(r, GV_F32, 1, 5, 4, 1), (const int[]){ 1, 2, 2 });
}
static void unpatch_rows(struct run *r)
{
    gv_unpatchify(r, cube(r, GV_F32, 1, 4, 4, 1), f32(r, 4, 5), (const int[]){ 1, 2, 2 });
}
static void upsample_size(struct run *r)
{
    gv_upsample(r, cube(r, GV_F32, 1, 8, 7, 2), cube(r, GV_F32, 1, 4, 4, 2));
}
static void noise_rank(struct run *r)
{
    gv_noise(r, f32(r, 4, 4), &(struct noise_key){ 0 });
}
static void noise_step(struct run *r)
{
    gv_noise(r, cube(r, GV_F32, 1, 2, 2, 4), &(struct noise_key){ .step = 4096 });
}
static void noise_time(struct run *r)
{
    gv_noise(r, cube(r, GV_F32, 1, 2, 2, 4), &(struct noise_key){ .t0 = -1 });
}
static void finite_type(struct run *r)
{
    gv_check_finite(r, i32(r, 4), "it");
}
static void upload_strided(struct run *r)
{
    const float host[16] = { 0 };
    gv_upload(r, slice(f32(r, 4, 4), 1, 0, 2), host);
}
static void download_strided(struct run *r)
{
    float host[16];
    gv_download(r, host, slice(f32(r, 4, 4), 1, 0, 2));
}

static const struct {
    void (*call)(struct run *r);
    const char *words;
} misfits[] = {
    { linear_wide_x, "linear: w does not fit: F32 [6, 8]" },
    { linear_rows, "linear: y does not fit: F32 [5, 6]" },
    { linear_strided_x, "linear: x" },
    { linear_add_bf16, "linear: y (must be f32" },
    { linear_f16, "linear: x does not fit: F16 [4, 8]" },
    { linear_bias, "linear: bias does not fit: F32 [5]" },
    { linear_bias_rows, "linear: bias" },
    { linear_gate, "linear: gate" },
    { linear_gate_empty, "linear: gate" },
    { linear_group, "linear: group does not fit: I32 [3]" },
    { linear_overlap, "linear: y (overlaps x)" },
    { norm_y, "norm: y" },
    { norm_weight, "norm: weight" },
    { norm_weight_type, "norm: weight does not fit: BF16 [8]" },
    { norm_shift, "norm: shift" },
    { norm_group, "norm: group" },
    { norm_rope_head, "norm: rope head" },
    { norm_rope_none, "norm: rope" },
    { norm_rope_rows, "norm: rope rows" },
    { conv_x_type, "conv: x" },
    { conv_channels, "conv: w" },
    { conv_size, "conv: y" },
    { act_shape, "act: y" },
    { glu_b, "glu: b" },
    { add_rows, "add: b" },
    { add_nothing, "add: b" },
    { copy_shape, "copy: dst" },
    { copy_integers, "copy: src" },
    { copy_overlap, "copy: dst (overlaps src)" },
    { fill_integers, "fill: dst" },
    { gather_index_type, "gather: index" },
    { gather_rows, "gather: y" },
    { lincomb_none, "lincomb: y" },
    { lincomb_many, "lincomb: y" },
    { lincomb_shape, "lincomb: term" },
    { patch_zero, "patchify: rows" },
    { patch_odd, "patchify: rows" },
    { unpatch_rows, "unpatchify: rows" },
    { upsample_size, "upsample: y" },
    { noise_rank, "noise: y" },
    { noise_step, "noise: key" },
    { noise_time, "noise: t0" },
    { finite_type, "check_finite: x" },
    { upload_strided, "upload: dst" },
    { download_strided, "download: src" },
};

static void every_misfit_is_refused_in_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof misfits / sizeof *misfits; i++) {
        struct run r = fresh();
        gv_run_enter(&r, "blocks.3");
        misfits[i].call(&r);
        if (r.err.code != GV_ERR_INTERNAL || !strstr(r.err.text, misfits[i].words) || strncmp(r.err.text, "blocks.3: ", 10))
            fail_msg("\"%s\" is not in: %s", misfits[i].words, r.err.text);
        gv_run_close(&r);
    }
}

static void nothing_at_all_is_no_misfit(void **state)
{
    (void)state;
    struct run r = fresh();
    lin(&r, f32(&r, 0, 6), f32(&r, 0, 8), NULL);
    gv_norm(&r, f32(&r, 0, 8), f32(&r, 0, 8), &(struct norm_opts){ .eps = 1 });
    gv_act(&r, f32(&r, 0, 8), f32(&r, 0, 8), ACT_SILU);
    gv_copy(&r, f32(&r, 3, 0), f32(&r, 3, 0));
    gv_add(&r, f32(&r, 0, 8), f32(&r, 0, 8), f32(&r, 1, 8));
    gv_noise(&r, cube(&r, GV_F32, 0, 2, 2, 4), &(struct noise_key){ 0 });
    gv_check_finite(&r, f32(&r, 0, 8), "it");
    assert_string_equal(r.err.text, "");
    gv_run_close(&r);
}

/* The columns of one buffer may be read and written side by side. */
static void columns_of_one_buffer_do_not_overlap(void **state)
{
    (void)state;
    struct run    r = fresh();
    struct tensor all = f32(&r, 4, 10);
    gv_fill(&r, slice(all, 1, 0, 5), 3);
    gv_copy(&r, slice(all, 1, 5, 5), slice(all, 1, 0, 5));
    assert_string_equal(r.err.text, "");
    assert_float_equal(((float *)all.data)[39], 3, 0);
    gv_run_close(&r);
}

/* ---- broadcasting ---- */

static struct tensor counted(struct run *r, int64_t n, int64_t d, float from)
{
    struct tensor t = f32(r, n, d);
    for (int64_t i = 0; i < n * d; i++)
        ((float *)t.data)[i] = from + (float)i;
    return t;
}

static void fewer_rows_are_added_again_and_again(void **state)
{
    (void)state;
    for (int64_t rows = 1; rows <= 6; rows++) {
        struct run r = fresh();
        if (6 % rows == 0) {
            struct tensor a = counted(&r, 6, 5, 100), b = counted(&r, rows, 5, 1), y = f32(&r, 6, 5);
            gv_add(&r, y, a, b);
            assert_string_equal(r.err.text, "");
            for (int64_t i = 0; i < 30; i++)
                assert_float_equal(((float *)y.data)[i], 100 + (float)i + 1 + (float)(i % (rows * 5)), 0);
            gv_add(&r, a, a, b); /* y may be a */
            assert_memory_equal(a.data, y.data, 30 * sizeof(float));
        }
        gv_run_close(&r);
    }
}

static void groups_choose_the_row_of_the_modulation(void **state)
{
    (void)state;
    struct run    r = fresh();
    const int32_t which[] = { 1, 0, 1, 1 };
    const float   x_host[] = { 3, -3, 3, -3, 3, -3, 3, -3 }, scale_host[] = { 0, 0, 9, 9 }, shift_host[] = { 0, 0, 1, 2 };
    struct tensor x = gv_scratch_from(&r, GV_F32, 2, DIMS(4, 2), x_host), y = f32(&r, 4, 2);
    struct tensor scale = gv_scratch_from(&r, GV_F32, 2, DIMS(2, 2), scale_host),
                  shift = gv_scratch_from(&r, GV_F32, 2, DIMS(2, 2), shift_host);
    struct tensor group = gv_scratch_from(&r, GV_I32, 1, DIMS(4), which);
    gv_norm(&r, y, x, &(struct norm_opts){ .kind = NORM_LAYER, .scale = scale, .shift = shift, .group = group });
    assert_string_equal(r.err.text, "");
    for (int n = 0; n < 4; n++) {
        assert_float_equal(((float *)y.data)[2 * n], which[n] ? 11 : 1, 1e-5);
        assert_float_equal(((float *)y.data)[2 * n + 1], which[n] ? -8 : -1, 1e-5);
    }
    gv_run_close(&r);
}

static void a_solver_step_may_write_over_its_term(void **state)
{
    (void)state;
    struct run    r = fresh();
    struct tensor x = counted(&r, 2, 3, 1), v = counted(&r, 2, 3, 10);
    gv_lincomb(&r, x, 2, (struct lincomb_term[]){ { 2, x }, { -1, v } });
    assert_string_equal(r.err.text, "");
    for (int i = 0; i < 6; i++)
        assert_float_equal(((float *)x.data)[i], (float)(i - 8), 0);
    gv_run_close(&r);
}

static void a_value_that_is_not_finite_is_named(void **state)
{
    (void)state;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    for (int k = 0; k < 3; k++)
        for (int64_t at = 0; at < 35; at += 17) {
            struct run    r = fresh();
            struct tensor x = f32(&r, 5, 7);
            gv_check_finite(&r, x, "the stream");
            assert_string_equal(r.err.text, "");
            ((float *)x.data)[at] = bad[k];
            gv_run_enter(&r, "blocks.1");
            gv_check_finite(&r, x, "the stream");
            assert_int_equal(r.err.code, GV_ERR_MODEL);
            assert_non_null(strstr(r.err.text, "blocks.1: a value of the stream is not finite"));
            gv_run_close(&r);
        }
}

static void products_are_counted(void **state)
{
    (void)state;
    struct device *null;
    struct run     r;
    struct error   e = { 0 };
    assert_int_equal(gv_device_null(&null, cpu, &e), GV_OK);
    gv_run_open(&r, null, GV_BF16, 0, &e);
    lin(&r, gv_scratch(&r, GV_F32, 2, DIMS(4, 6)), gv_scratch(&r, GV_F32, 2, DIMS(4, 8)), NULL);
    assert_float_equal(r.flops, 2.0 * 4 * 6 * 8, 0);
    gv_conv(&r, cube(&r, GV_F32, 1, 4, 4, 2), cube(&r, GV_BF16, 1, 4, 4, 3), gv_scratch(&r, GV_BF16, 5, DIMS(2, 1, 3, 3, 3)),
            &(struct conv_opts){ .pad_lo = { 0, 1, 1 }, .pad_hi = { 0, 1, 1 } });
    assert_float_equal(r.flops, 2.0 * 4 * 6 * 8 + 2.0 * 32 * 27, 0);
    assert_string_equal(r.err.text, "");
    gv_run_close(&r);
    gv_device_close(&null);
}

/* ---- noise ---- */

/* Random123's kat_vectors, philox4x32 10. */
static void philox_gives_the_published_words(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], word[4];
    } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t word[4];
        gv_philox(word, known[i].counter, known[i].key);
        assert_memory_equal(word, known[i].word, sizeof word);
    }
}

static void noise_does_not_depend_on_how_the_clip_is_cut(void **state)
{
    (void)state;
    enum { T = 5, H = 3, W = 7, C = 6, FRAME = H * W * C };
    struct run       r = fresh();
    struct noise_key key = { .seed = 0x123456789abcdef0, .purpose = 1, .block = 2, .step = 3, .t0 = 11 };
    struct tensor    whole = cube(&r, GV_F32, T, H, W, C);
    gv_noise(&r, whole, &key);
    for (int64_t from = 0; from < T; from++)
        for (int64_t n = 1; from + n <= T; n++) {
            struct mark      m = arena_mark(&r.scratch);
            struct tensor    part = cube(&r, GV_F32, n, H, W, C);
            struct noise_key moved = key;
            moved.t0 += from;
            gv_noise(&r, part, &moved);
            assert_memory_equal(part.data, (float *)whole.data + from * FRAME, (size_t)(n * FRAME) * sizeof(float));
            arena_release(&r.scratch, m);
        }
    struct tensor narrow = cube(&r, GV_F32, T, 2, 4, 3); /* places keep their numbers in a smaller picture too */
    gv_noise(&r, narrow, &key);
    for (int t = 0; t < T; t++)
        for (int y = 0; y < 2; y++)
            for (int x = 0; x < 4; x++)
                assert_memory_equal((float *)narrow.data + ((t * 2 + y) * 4 + x) * 3,
                                    (float *)whole.data + ((t * H + y) * W + x) * C, 3 * sizeof(float));
    assert_string_equal(r.err.text, "");
    gv_run_close(&r);
}

static void every_part_of_the_key_counts(void **state)
{
    (void)state;
    struct run             r = fresh();
    const struct noise_key key[] = { { .seed = 1 },
                                     { .seed = 2 },
                                     { .seed = UINT64_C(1) << 32 | 1 },
                                     { .seed = 1, .purpose = 1 },
                                     { .seed = 1, .block = 1 },
                                     { .seed = 1, .step = 1 },
                                     { .seed = 1, .t0 = 1 } };
    enum { KEYS = sizeof key / sizeof *key, N = 64 };
    struct tensor y[KEYS];
    for (int i = 0; i < KEYS; i++) {
        y[i] = cube(&r, GV_F32, 1, 4, 4, 4);
        gv_noise(&r, y[i], &key[i]);
        for (int k = 0; k < i; k++)
            for (int n = 0; n < N; n++)
                assert_true(((float *)y[i].data)[n] != ((float *)y[k].data)[n]);
    }
    gv_run_close(&r);
}

static void noise_is_standard_normal(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    struct run   r;
    struct error e = { 0 };
    double       sum[4] = { 0 }, beside = 0;
    int          beyond = 0;
    assert_int_equal(gv_run_open(&r, cpu, GV_F32, N * sizeof(float) + GV_ALIGN, &e), GV_OK);
    struct tensor y = cube(&r, GV_F32, 4, 64, 64, 16);
    gv_noise(&r, y, &(struct noise_key){ .seed = 42 });
    const float *x = y.data;
    for (int i = 0; i < N; i++) {
        double v = (double)x[i];
        for (int k = 0; k < 4; k++, v *= (double)x[i])
            sum[k] += v / N;
        beside += i ? (double)x[i] * (double)x[i - 1] / N : 0;
        beyond += fabsf(x[i]) > 3;
    }
    /* five standard errors of each moment: 1, √2, √15, √96 over √N */
    const double unit = 5 / sqrt(N);
    assert_true(fabs(sum[0]) < unit);
    assert_true(fabs(sum[1] - 1) < 1.42 * unit);
    assert_true(fabs(sum[2]) < 3.9 * unit);
    assert_true(fabs(sum[3] - 3) < 9.8 * unit);
    assert_true(fabs(beside) < unit);
    assert_true(fabs(beyond / (double)N - 0.0026998) < 5 * sqrt(0.0027 / N));
    gv_run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_misfit_is_refused_in_words),
        cmocka_unit_test(nothing_at_all_is_no_misfit),
        cmocka_unit_test(columns_of_one_buffer_do_not_overlap),
        cmocka_unit_test(fewer_rows_are_added_again_and_again),
        cmocka_unit_test(groups_choose_the_row_of_the_modulation),
        cmocka_unit_test(a_solver_step_may_write_over_its_term),
        cmocka_unit_test(a_value_that_is_not_finite_is_named),
        cmocka_unit_test(products_are_counted),
        cmocka_unit_test(philox_gives_the_published_words),
        cmocka_unit_test(noise_does_not_depend_on_how_the_clip_is_cut),
        cmocka_unit_test(every_part_of_the_key_counts),
        cmocka_unit_test(noise_is_standard_normal),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
