/* The self-attention that a user asked for: what is exact is exact, what is kept is what it should be, counts and memory are as
 * predicted. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/approx.h"
#include "attention/select.h"
#include "tests/attention/attn_cases.h"

/* ---- a self-attention with everything that it reads ---- */

struct scene {
    struct device       *device;
    struct run           run;
    struct attn_case     memory;
    struct attn_call     call; /* source 1 is a history, where there is one */
    struct approx_config config;
    struct attn_approx   approx;
    uint64_t             seed;
};

enum { B = 2, N = 300, A = 3, D = 16 };

static void refill(struct scene *s, struct tensor t)
{
    for (int64_t i = 0; i < t.dim[0]; i++)
        for (int64_t j = 0; j < t.dim[1]; j++)
            for (int64_t k = 0; k < t.dim[2]; k++)
                for (int64_t l = 0; l < t.dim[3]; l++)
                    set(t, i, j, k, l, rnd_normal(&s->seed));
}

static void new_tokens(struct scene *s)
{
    refill(s, s->call.q);
    refill(s, s->call.source[0].k);
    refill(s, s->call.source[0].v);
}

static void parse(struct approx_config *c, const char *attention, const char *cache)
{
    struct error e = { 0 };
    bool         known = true;

    *c = (struct approx_config){ .refresh = { .every = 1, .drift = -1, .across = 1 } };
    if (attention)
        gv_approx_parse(c, attention, &e);
    if (cache)
        gv_approx_parse_keep(c, cache, &known, &e);
    assert_string_equal(e.text, "");
    assert_true(known);
}

/* history > 0: causal, one path */
static void scene_open(struct scene *s, const char *attention, const char *cache, int layers, int history, int threads)
{
    struct error       e = { 0 };
    struct attn_layout l;
    const int64_t      batch = history ? 1 : B;

    memset(s, 0, sizeof *s);
    s->seed = 7;
    assert_true(level_open(&s->device, "c", threads) || level_open(&s->device, NULL, threads));
    assert_int_equal(gv_run_open(&s->run, s->device, GV_F32, 4 << 20, &e), GV_OK);
    parse(&s->config, attention, cache);
    assert_int_equal(gv_approx_check(&s->config, history > 0, &e), GV_OK);
    assert_int_equal(
        gv_approx_open(&s->approx, &s->config, NULL, s->device, &(struct approx_shape){ layers, 1, history > 0 }, &e), GV_OK);
    assert_int_equal(gv_layout_grid(&l, 0, 5, 6, 10, &e), GV_OK);
    assert_int_equal(gv_approx_layout(&s->approx, &l, A, &e), GV_OK);
    gv_layout_free(&l);
    s->call = (struct attn_call){ .n_sources = history ? 2 : 1 };
    s->call.q = case_tensor(&s->memory, GV_F32, 4, DIMS(batch, N, A, D), &s->seed);
    s->call.out.o = case_tensor(&s->memory, GV_F32, 4, DIMS(batch, N, A, D), &s->seed);
    for (int i = 0; i < s->call.n_sources; i++) {
        const int64_t n = i ? history : N;
        s->call.source[i].k = case_tensor(&s->memory, GV_F32, 4, DIMS(batch, n, A, D), &s->seed);
        s->call.source[i].v = case_tensor(&s->memory, GV_F32, 4, DIMS(batch, n, A, D), &s->seed);
    }
    s->approx.at = (struct approx_at){ .steps = 100 };
}

static void scene_close(struct scene *s)
{
    assert_string_equal(s->run.err.text, "");
    gv_approx_close(&s->approx);
    gv_run_close(&s->run);
    case_free(&s->memory);
    gv_device_close(&s->device);
}

static float *outputs(const struct attn_call *c)
{
    float *out = malloc(gv_tensor_bytes(c->out.o));

    memcpy(out, c->out.o.data, gv_tensor_bytes(c->out.o));
    return out;
}

/* The outputs of one call at a step; freed by the caller. */
static float *attend(struct scene *s, int layer, int step)
{
    s->approx.at.step = step;
    s->approx.at.commit = step >= s->approx.at.steps;
    memset(s->call.out.o.data, 0xff, gv_tensor_bytes(s->call.out.o));
    gv_attend(&s->run, &s->approx, layer, 0, &s->call);
    assert_string_equal(s->run.err.text, "");
    return outputs(&s->call);
}

static float *attend_exactly(struct scene *s)
{
    gv_attention(&s->run, &s->call);
    return outputs(&s->call);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double most = 0, top = 0;

    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        most = d > most || isnan(d) ? d : most;
        top = fabs((double)b[i]) > top ? fabs((double)b[i]) : top;
    }
    return most / top;
}

static int64_t count(const struct scene *s)
{
    return gv_tensor_count(s->call.out.o);
}

/* Takes both and frees them. */
static void same(const struct scene *s, float *a, float *b)
{
    assert_memory_equal(a, b, (size_t)count(s) * sizeof *a);
    free(a);
    free(b);
}
static void near(const struct scene *s, float *a, float *b, double limit)
{
    const double d = distance(a, b, count(s));

    if (!(d <= limit))
        fail_msg("%g is more than %g", d, limit);
    free(a);
    free(b);
}
static void far(const struct scene *s, float *a, float *b)
{
    assert_true(distance(a, b, count(s)) > 1e-3);
    free(a);
    free(b);
}

/* ---- each head's own order ---- */

/* Order a of the axes, from its name: the first letter's coordinate moves slowest. */
static void an_order_of_axes_is_what_its_name_says(void **state)
{
    enum { T = 5, H = 6, W = 10 };
    const int size[128] = { ['t'] = T, ['h'] = H, ['w'] = W };

    (void)state;
    for (int a = 0; a < GV_AXES; a++) {
        int32_t     order[T * H * W], at = 0;
        const char *name = gv_axes_name[a];
        gv_axes_order(order, a, T, H, W);
        for (int x = 0; x < size[(int)name[0]]; x++)
            for (int y = 0; y < size[(int)name[1]]; y++)
                for (int z = 0; z < size[(int)name[2]]; z++) {
                    int place[128];
                    place[(int)name[0]] = x;
                    place[(int)name[1]] = y;
                    place[(int)name[2]] = z;
                    assert_int_equal(order[at++], (place['t'] * H + place['h']) * W + place['w']);
                }
    }
}

/* Everything kept: any order for any head is dense, but for the order of sums. Something left out and raster for all: the plain policy. */
static void heads_come_back_from_their_order(void **state)
{
    struct scene s, plain;

    (void)state;
    scene_open(&s, "window:axes=6,every=0", NULL, 2, 0, 2);
    near(&s, attend(&s, 1, 0), attend_exactly(&s), 2e-6);
    for (int a = 0; a < GV_AXES; a++) {
        for (int h = 0; h < A; h++)
            s.approx.axes.of[A + h] = (uint8_t)((a + h) % GV_AXES);
        near(&s, attend(&s, 1, 1 + a), attend_exactly(&s), 2e-6);
        new_tokens(&s);
    }
    assert_int_equal(s.approx.receipt.thinned, GV_AXES + 1);
    scene_close(&s);
    scene_open(&s, "window:back=40,ahead=10,axes=3,every=0", NULL, 1, 0, 2);
    scene_open(&plain, "window:back=40,ahead=10", NULL, 1, 0, 2);
    s.approx.last[0] = 0; /* as if chosen: raster for all */
    same(&s, attend(&s, 0, 0), attend(&plain, 0, 0));
    scene_close(&s);
    scene_close(&plain);
}

/* Tokens of head h with the same (t, h, w) along its letters have the same direction, and so read each other. */
static void heads_that_read(struct scene *s, const char *const letters[A])
{
    enum { H = 6, W = 10 };

    for (int a = 0; a < A; a++)
        for (int n = 0; n < N; n++) {
            const int place[128] = { ['t'] = n / W / H, ['h'] = n / W % H, ['w'] = n % W };
            uint64_t  code = 1 + (uint64_t)a;
            double    x[D], sum = 0;
            for (const char *l = letters[a]; *l; l++)
                code = code * 64 + (uint64_t)place[(int)*l];
            for (int d = 0; d < D; d++) {
                x[d] = (double)rnd_normal(&code);
                sum += x[d] * x[d];
            }
            for (int b = 0; b < B; b++)
                for (int d = 0; d < D; d++) {
                    const float unit = (float)(x[d] * sqrt(120 / sum)); /* q·k / sqrt(D) is 30 for the same, else 7.5 rms */
                    set(s->call.q, b, n, a, d, unit);
                    set(s->call.source[0].k, b, n, a, d, unit);
                }
        }
}

static void a_head_takes_the_order_that_suits_it(void **state)
{
    static const char *const letters[A] = { "th", "hw", "tw" }; /* neighbours along w, t, h */
    struct scene             s, plain;

    (void)state;
    scene_open(&s, "window:back=12,ahead=12,axes=6", NULL, 1, 0, 2);
    scene_open(&plain, "window:back=12,ahead=12", NULL, 1, 0, 2);
    heads_that_read(&s, letters);
    heads_that_read(&plain, letters);
    free(attend(&s, 0, 0));
    for (int a = 0; a < A; a++)
        assert_int_equal(gv_axes_name[s.approx.axes.of[a]][2], "wth"[a]);
    near(&s, attend(&s, 0, 1), attend_exactly(&s), 0.02); /* window's ends leave out a little; what is unlike weighs little */
    float *without = attend(&plain, 0, 1), *exact = attend_exactly(&plain);
    assert_true(distance(without, exact, count(&plain)) > 0.3);
    free(without);
    free(exact);
    scene_close(&s);
    scene_close(&plain);
}

/* Squared error of the sampled outputs of head h where a token reads what the policy's plan says in an order, in float64. */
static double error_in_order(const struct scene *s, int axes, int h, int rows)
{
    const int32_t *order = s->approx.axes.order + axes * N;
    double         error = 0;

    for (int b = 0; b < B; b++)
        for (int i = 0; i < rows; i++) {
            const int64_t token = gv_axes_sample(i, rows, N, 0);
            double        sum[2] = { 0 }, out[2][D] = { 0 };
            int64_t       at = 0;
            while (order[at] != token)
                at++;
            for (int64_t j = 0; j < N; j++) {
                const int64_t k = order[j];
                double        x = 0;
                for (int d = 0; d < D; d++)
                    x += (double)get(s->call.q, b, token, h, d) * (double)get(s->call.source[0].k, b, k, h, d);
                x = exp(x / sqrt(D));
                for (int read = 0; read < (gv_mask_allows(&s->approx.plan.mask, at, 0, j) ? 2 : 1); read++) {
                    sum[read] += x;
                    for (int d = 0; d < D; d++)
                        out[read][d] += x * (double)get(s->call.source[0].v, b, k, h, d);
                }
            }
            for (int d = 0; d < D; d++)
                error += pow(out[0][d] / sum[0] - out[1][d] / sum[1], 2);
        }
    return error;
}

/* SVG's criterion: not which order holds most, but whose output is nearest; bands have a sink, windows masked ends. */
static void the_order_is_the_one_of_least_error_over_the_sampled_rows(void **state)
{
    static const char *const policies[] = { "bands:keep=0.2,axes=2", "window:back=20,ahead=50,sink=7,axes=6" };
    uint64_t                 seed = test_seed();
    int                      differ = 0;

    (void)state;
    for (int i = 0; i < 8; i++) {
        struct scene s;
        scene_open(&s, policies[i % 2], NULL, 1, 0, 1);
        s.seed = rnd(&seed);
        new_tokens(&s);
        free(attend(&s, 0, 0));
        for (int h = 0; h < A; h++) {
            double chosen = error_in_order(&s, s.approx.axes.of[h], h, GV_AXES_ROWS);
            for (int a = 0; a < s.approx.axes.n; a++)
                if (!(chosen <= error_in_order(&s, a, h, GV_AXES_ROWS) * (1 + 1e-5)))
                    fail_msg("%s: head %d took order %d; %d is nearer", policies[i % 2], h, s.approx.axes.of[h], a);
            differ += s.approx.axes.of[h] != 0;
        }
        scene_close(&s);
    }
    assert_true(differ > 0);
}

static void an_order_lasts_as_long_as_it_should(void **state)
{
    static const char *const once[A] = { "th", "hw", "tw" }, *const then[A] = { "tw", "th", "hw" };

    (void)state;
    for (int every = 0; every < 4; every++) {
        struct scene s;
        char         text[64];
        snprintf(text, sizeof text, "window:back=12,ahead=12,axes=6,every=%d", every);
        scene_open(&s, text, NULL, 1, 0, 2);
        heads_that_read(&s, once);
        for (int step = 0; step < 5; step++) {
            const bool old = step == 0 || every == 0 || step < every;
            free(attend(&s, 0, step));
            for (int a = 0; a < A; a++)
                assert_int_equal(gv_axes_name[s.approx.axes.of[a]][2], old ? "wth"[a] : "hwt"[a]);
            heads_that_read(&s, then);
        }
        scene_close(&s);
    }
}

/* ---- bitmaps ---- */

static enum block_verdict by_chance(const void *arg, const struct plan_block *b)
{
    uint64_t at = *(const uint64_t *)arg + (uint64_t)(b->head * 1009 + b->q0 * 31 + b->k0 * 7);

    return rnd(&at) % 3 ? BLOCK_NONE : BLOCK_ALL;
}

static void a_bitmap_is_its_plan_and_a_split_is_all_keys(void **state)
{
    uint64_t seed = test_seed();

    (void)state;
    for (int64_t n = 1; n < 1000; n += 1 + rnd_to(&seed, 150)) {
        struct scene     s;
        struct error     e = { 0 };
        struct attn_plan p, back, split;
        const int64_t    sources[1] = { n };

        scene_open(&s, NULL, NULL, 1, 0, 1);
        assert_int_equal(gv_plan_from_blocks(&p, &(struct plan_shape){ 3, 290, n, { 0 } }, by_chance, &seed, &e), GV_OK);
        struct attn_bitmap b = { 1, 3, p.tiles, (int)((n + 63) / 64), NULL };
        b.word = calloc((size_t)gv_bitmap_words(&b), sizeof *b.word);
        gv_bitmap_from_plan(&s.run, &b, &p, n);
        gv_bitmap_plan(&s.run, &back, &b, 290, n, BITMAP_KEPT);
        gv_bitmap_plan(&s.run, &split, &b, 290, n, BITMAP_SPLIT);
        assert_int_equal(gv_plan_check(&split, 290, 1, sources, &e), GV_OK);
        assert_memory_equal(back.row, p.row, (size_t)(3 * p.tiles + 1) * sizeof *p.row);
        assert_memory_equal(back.entries, p.entries, p.row[3 * p.tiles] * sizeof *p.entries);
        assert_true(fabs(back.density - p.density) < 1e-12 && split.density == 1);
        for (int row = 0; row < 3 * p.tiles; row++) {
            assert_int_equal(split.row[row + 1] - split.row[row], b.blocks);
            assert_int_equal(split.row[row + 1] - split.split[row], p.row[row + 1] - p.row[row]);
        }
        free(b.word);
        gv_plan_free(&p);
        scene_close(&s);
    }
}

static void lists_of_no_blocks_are_refused(void **state)
{
    struct scene       s;
    const uint32_t     row[4] = { 0, 1, 1, 1 };
    gv_kv_entry        entry = kv_entry(3, 64, 0, false);
    struct attn_plan   p = { .tile_q = 128, .batch = 1, .list_heads = 1, .tiles = 3, .row = row, .entries = &entry };
    uint32_t           word[3];
    struct attn_bitmap b = { 1, 1, 3, 5, word };

    (void)state;
    scene_open(&s, NULL, NULL, 1, 0, 1);
    gv_bitmap_from_plan(&s.run, &b, &p, 300);
    assert_int_equal(s.run.err.code, GV_ERR_UNSUPPORTED);
    s.run.err = (struct error){ 0 };
    scene_close(&s);
}

/* ---- decisions ---- */

static void refreshes_come_when_they_should(void **state)
{
    const struct refresh every4 = { .every = 4, .drift = -1 }, at = { .n_at = 2, .at = { 10, 30 }, .drift = -1 };
    const struct refresh once = { .drift = -1 }, drifting = { .drift = 0.5 };

    (void)state;
    for (int step = 0, last = -1, last_at = -1; step < 50; step++) {
        const bool due = gv_refresh_due(&every4, step, last, 9), due_at = gv_refresh_due(&at, step, last_at, 9);
        assert_int_equal(due, step % 4 == 0);
        assert_int_equal(due_at, step == 0 || step == 10 || step == 30);
        last = due ? step : last;
        last_at = due_at ? step : last_at;
        assert_int_equal(gv_refresh_due(&once, step, step ? 0 : -1, 9), step == 0);
        assert_true(gv_refresh_due(&drifting, step, 0, 0.51) && !gv_refresh_due(&drifting, step, 0, 0.5));
    }
    const struct refresh third = { .every = 1, .across = 3, .drift = -1 };
    for (int layer = 0; layer < 10; layer++)
        assert_true(gv_refresh_source(&third, layer) == layer - layer % 3 && gv_refresh_source(&once, layer) == layer);
    assert_true(gv_refresh_lasts(&third) && gv_refresh_lasts(&once));
    assert_false(gv_refresh_lasts(&(struct refresh){ .every = 1, .across = 1 }));
}

/* Source: Flash_Block, dllm scheduler, as core-systems describes its rules. */
static void text_blocks_refresh_by_their_dirty_tokens(void **state)
{
    (void)state;
    for (int64_t changed = 0; changed < 9; changed++)
        for (int64_t tau = 0; tau < 9; tau++)
            assert_int_equal(gv_dirty_is_read(changed, tau), changed >= tau); /* tau 0 is dense */
}

/* ---- thinning out ---- */

static void exact_steps_and_layers_are_exact_to_the_bit(void **state)
{
    struct scene s;

    (void)state;
    scene_open(&s, "pooled:share=0.3,dense_steps=3,dense_last=2,dense_layers=1", NULL, 3, 0, 2);
    for (int step = 0; step < 100; step += step == 5 ? 90 : 1)
        for (int layer = 0; layer < 3; layer++) {
            if (layer == 0 || step < 3 || step >= 98)
                same(&s, attend(&s, layer, step), attend_exactly(&s));
            else
                far(&s, attend(&s, layer, step), attend_exactly(&s));
        }
    scene_close(&s);
}

static void everything_kept_is_dense_to_the_bit(void **state)
{
    static const char *const all[] = { "pooled:share=1",       "pooled:share=1,every=5",
                                       "antidiagonal:mass=1",  "chunks:share=1",
                                       "exact:share=1",        "strided:stride=1",
                                       "bands:keep=1",         "window",
                                       "block_causal:frames=5" };

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct scene s;
        scene_open(&s, all[i], NULL, 1, 0, 2);
        same(&s, attend(&s, 0, 0), attend_exactly(&s));
        same(&s, attend(&s, 0, 1), attend_exactly(&s));
        assert_true(s.approx.receipt.pairs == 2);
        scene_close(&s);
    }
}

/* The choice of step 0 serves until the refresh: with other queries, what is read is what the old ones chose. */
static void a_choice_lasts_as_long_as_it_should(void **state)
{
    struct scene s, fresh;

    (void)state;
    scene_open(&s, "pooled:share=0.3,every=3,across=2", NULL, 4, 0, 2);
    scene_open(&fresh, "pooled:share=0.3", NULL, 4, 0, 2);
    same(&s, attend(&s, 0, 0), attend(&fresh, 0, 0));
    new_tokens(&s);
    for (int layer = 0; layer < 2; layer++) { /* layer 1 takes what layer 0 chose, also in step 0 */
        struct attn_plan  p;
        const struct mark mark = arena_mark(&s.run.scratch);
        fresh.config.policy->plan(&s.run, &p, fresh.call.q, fresh.call.source[0].k, fresh.config.value);
        struct attn_call c = s.call;
        c.plan = &p;
        gv_attention(&s.run, &c);
        arena_release(&s.run.scratch, mark);
        float *old = outputs(&s.call);
        same(&s, attend(&s, layer, layer ? 0 : 1), old);
    }
    memcpy(fresh.call.q.data, s.call.q.data, gv_tensor_bytes(s.call.q));
    for (int i = 0; i < 2; i++)
        memcpy(i ? fresh.call.source[0].v.data : fresh.call.source[0].k.data,
               i ? s.call.source[0].v.data : s.call.source[0].k.data, gv_tensor_bytes(s.call.q));
    far(&s, attend(&s, 0, 2), attend(&fresh, 0, 2));
    same(&s, attend(&s, 0, 3), attend(&fresh, 0, 3));
    scene_close(&s);
    scene_close(&fresh);
}

static void a_choice_is_made_anew_when_the_means_have_moved(void **state)
{
    struct scene s;

    (void)state;
    scene_open(&s, "pooled:share=0.3,every=0,drift=0.5", NULL, 1, 0, 1);
    free(attend(&s, 0, 0));
    assert_int_equal(s.approx.last[0], 0);
    free(attend(&s, 0, 1));
    assert_int_equal(s.approx.last[0], 0);
    for (int64_t i = 0; i < count(&s); i++)
        ((float *)s.call.q.data)[i] += 1;
    free(attend(&s, 0, 2));
    assert_int_equal(s.approx.last[0], 2);
    free(attend(&s, 0, 3));
    assert_int_equal(s.approx.last[0], 2);
    scene_close(&s);
}

/* ---- partials ---- */

/* Attention of q to keys [0, n) of a source that `reads` lets through, united with a partial, in float64. */
struct truth_row {
    double m, l, o[D];
};
static void read_key(struct truth_row *t, const struct attn_call *c, const struct attn_source *src, int64_t b, int64_t q,
                     int64_t h, int64_t k)
{
    double x = 0;

    for (int64_t d = 0; d < D; d++)
        x += (double)get(c->q, b, q, h, d) * (double)get(src->k, b, k, h, d);
    x /= sqrt(D);
    const double m = x > t->m ? x : t->m, keep = exp(t->m - m), p = exp(x - m);
    t->m = m;
    t->l = t->l * keep + p;
    for (int64_t d = 0; d < D; d++)
        t->o[d] = t->o[d] * keep + p * (double)get(src->v, b, k, h, d);
}

static void unchanged_tokens_reuse_to_dense(void **state)
{
    static const char *const policies[] = { "pooled:share=0.3,every=4", "radial:every=4", "strided:every=0", "bands:every=0" };

    (void)state;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        struct scene s;
        scene_open(&s, policies[i], "complement", 2, 0, 2);
        for (int step = 0; step < 4; step++) /* of both: the order of sums over some hundred keys in f32 */
            near(&s, attend(&s, 1, step), attend_exactly(&s), 5e-6);
        assert_int_equal(s.approx.receipt.refreshed, 1);
        assert_int_equal(s.approx.receipt.reused, 3);
        assert_int_equal(s.approx.receipt.layers_kept, 1);
        scene_close(&s);
    }
}

/* New queries, keys and values: chosen keys count as they are now, the others as they were for the query that was. */
static void a_reused_complement_is_the_union_of_old_and_new(void **state)
{
    struct scene s;

    (void)state;
    scene_open(&s, "strided:stride=3,local=1,every=9", "complement", 1, 0, 2);
    struct truth_row *old = calloc((size_t)B * N * A, sizeof *old);
    for (int64_t i = 0; i < B * N * A; i++) {
        const int64_t b = i / A / N, q = i / A % N, h = i % A;
        old[i].m = -INFINITY;
        for (int64_t k = 0; k < N; k++)
            if (!(llabs(q / 128 - k / 128) < 1 || (k / 128 + h) % 3 == 0))
                read_key(&old[i], &s.call, &s.call.source[0], b, q, h, k);
    }
    free(attend(&s, 0, 0));
    new_tokens(&s);
    float *got = attend(&s, 0, 1);
    double most = 0;
    for (int64_t i = 0; i < B * N * A; i++) {
        const int64_t b = i / A / N, q = i / A % N, h = i % A;
        for (int64_t k = 0; k < N; k++)
            if (llabs(q / 128 - k / 128) < 1 || (k / 128 + h) % 3 == 0)
                read_key(&old[i], &s.call, &s.call.source[0], b, q, h, k);
        for (int64_t d = 0; d < D; d++)
            most = fmax(most, fabs((double)got[i * D + d] - old[i].o[d] / old[i].l));
    }
    assert_true(most < 1e-5);
    free(got);
    free(old);
    scene_close(&s);
}

static void a_small_budget_keeps_some_layers_and_thins_out_the_others(void **state)
{
    struct scene s, plain;
    const size_t each = (size_t)B * N * A * (D + 1) * 4;

    (void)state;
    scene_open(&s, "pooled:share=0.3,every=4", "complement", 30, 0, 2);
    scene_open(&plain, "pooled:share=0.3,every=4", NULL, 30, 0, 2);
    s.config.keep_value[COMPLEMENT_MIB] = 1; /* eight layers of 122,400 bytes */
    const int fit = (int)((1 << 20) / each);
    for (int layer = 0; layer < 30; layer++)
        for (int step = 0; step < 2; step++) {
            if (layer < fit)
                near(&s, attend(&s, layer, step), attend_exactly(&s), 5e-6);
            else
                same(&s, attend(&s, layer, step), attend(&plain, layer, step));
        }
    assert_int_equal(s.approx.receipt.layers_kept, fit);
    assert_true(gv_cache_bytes(s.approx.partials) <= 1 << 20);
    scene_close(&s);
    scene_close(&plain);
}

/* ---- FlashBlock ---- */

/* The published loop: 40 blocks of 3 latent frames, 4 steps and a writing pass each, 30 layers, a history from block 1 on. */
static void count_calls(const char *cache, int64_t full, int64_t reused)
{
    struct scene s;

    scene_open(&s, NULL, cache, 30, 70, 1);
    s.call.q = slice(s.call.q, 1, 0, 4);
    s.call.out.o = slice(s.call.out.o, 1, 0, 4);
    s.approx.at.steps = 4;
    for (int block = 0; block < 40; block++) {
        gv_approx_begin_block(&s.approx);
        s.call.n_sources = block ? 2 : 1;
        for (int pass = 0; pass < 5; pass++)
            for (int layer = 0; layer < 30; layer++) {
                s.approx.at.step = pass;
                s.approx.at.commit = pass == 4;
                gv_attend(&s.run, &s.approx, layer, 0, &s.call);
            }
    }
    const struct approx_receipt *p = &s.approx.receipt;
    assert_true(p->calls == 6000);
    assert_int_equal(p->reused, reused);
    assert_int_equal((int64_t)p->calls - p->reused, full);
    scene_close(&s);
}

static void a_clip_of_120_latent_frames_takes_the_published_calls(void **state)
{
    (void)state;
    count_calls("flashblock:commit=1", 1320, 4680);            /* as the release: its writing pass reuses too */
    count_calls("flashblock", 1320 + 39 * 30, 4680 - 39 * 30); /* the writing pass is always full */
}

static void unchanged_queries_read_the_history_they_kept(void **state)
{
    struct scene s;

    (void)state;
    scene_open(&s, NULL, "flashblock", 2, 501, 2);
    for (int pass = 0; pass < 4; pass++)
        near(&s, attend(&s, 1, pass), attend_exactly(&s), 5e-6);
    new_tokens(&s); /* the history stays: other queries read it as the old ones did */
    far(&s, attend(&s, 1, 4), attend_exactly(&s));
    s.approx.at.steps = 5;
    near(&s, attend(&s, 1, 5), attend_exactly(&s), 5e-6); /* the writing pass reads it anew */
    scene_close(&s);
}

static void turn(struct scene *s, int64_t token)
{
    for (int64_t a = 0; a < A; a++)
        for (int64_t d = 0; d < D; d++)
            set(s->call.q, 0, token, a, d, -get(s->call.q, 0, token, a, d));
}

/* Three changed tokens are one too many; they are counted from the pass that read the history, each layer for itself. */
static void a_history_is_read_anew_when_tokens_have_changed(void **state)
{
    struct scene                 s;
    const struct approx_receipt *p = &s.approx.receipt;

    (void)state;
    scene_open(&s, NULL, "flashblock:dirty=3,changed=0.5", 2, 501, 2);
    for (int pass = 0; pass < 3; pass++) { /* two change, and change back, and one of them again */
        free(attend(&s, 0, pass));
        free(attend(&s, 1, pass));
        assert_true(p->refreshed == 2 && p->reused == 2 * pass);
        turn(&s, 299);
        if (pass != 1)
            turn(&s, 7);
        else
            turn(&s, 299);
    }
    turn(&s, 7);
    turn(&s, 99);
    turn(&s, 100); /* 299, 99, 100 */
    near(&s, attend(&s, 1, 3), attend_exactly(&s), 5e-6);
    assert_true(p->refreshed == 3 && p->reused == 4);
    near(&s, attend(&s, 1, 4), attend_exactly(&s), 5e-6); /* nothing has since */
    assert_true(p->refreshed == 3 && p->reused == 5);
    refill(&s, slice(s.call.q, 1, 0, 2));
    far(&s, attend(&s, 1, 5), attend_exactly(&s));
    gv_approx_begin_block(&s.approx);
    near(&s, attend(&s, 1, 0), attend_exactly(&s), 5e-6);
    scene_close(&s);
    scene_open(&s, NULL, "flashblock:dirty=0,commit=1", 1, 501, 2);
    for (int pass = 0; pass <= 100; pass += 25) {
        near(&s, attend(&s, 0, pass), attend_exactly(&s), 5e-6);
        new_tokens(&s);
    }
    assert_true(p->refreshed == 5 && p->reused == 0);
    scene_close(&s);
}

static void set_masks(struct attn_calibration *c, uint8_t *fresh, int passes, int layers, unsigned heads)
{
    *c = (struct attn_calibration){ .layers = layers, .heads = A, .fresh = fresh, .passes = passes };
    for (int i = 0; i < passes * layers * A; i++)
        fresh[i] = heads >> i % A & 1;
}

/* Bit for bit: all heads recomputed are the split list without reuse; a head of a mixed mask is what it is under a uniform one. */
static void heads_are_recomputed_by_their_mask_alone(void **state)
{
    (void)state;
    for (int history = 1; history < 400; history += 97) {
        float *out[8];
        for (unsigned mask = 0; mask < 8; mask++) {
            struct scene            s;
            struct attn_calibration c;
            uint8_t                 fresh[5 * A];
            scene_open(&s, NULL, "flashblock", 1, history, 2);
            set_masks(&c, fresh, 5, 1, mask);
            s.approx.calibration = &c;
            free(attend(&s, 0, 0));
            new_tokens(&s);
            out[mask] = attend(&s, 0, 1);
            assert_int_equal(s.approx.receipt.fresh_heads, __builtin_popcount(mask));
            if (mask == 7) { /* the refresh of these tokens is that list */
                gv_approx_begin_block(&s.approx);
                float *again = attend(&s, 0, 0);
                assert_memory_equal(again, out[7], (size_t)count(&s) * sizeof *again);
                float *dense = attend_exactly(&s);
                assert_true(distance(again, dense, count(&s)) < 5e-6);
                free(again);
                free(dense);
            }
            scene_close(&s);
        }
        for (unsigned mask = 0; mask < 8; mask++)
            for (int64_t i = 0; i < N * A; i++)
                assert_memory_equal(out[mask] + i * D, out[mask >> i % A & 1 ? 7 : 0] + i * D, D * sizeof(float));
        assert_true(distance(out[0], out[7], N * A * D) > 1e-3);
        for (int i = 0; i < 8; i++)
            free(out[i]);
    }
}

/* With a scored policy, what that leaves out of the history is kept, and what it chose is read anew. */
static void what_a_policy_leaves_out_of_the_history_is_kept(void **state)
{
    struct scene s, alone;

    (void)state;
    scene_open(&s, "pooled:share=0.4", "flashblock", 1, 640, 2);
    scene_open(&alone, NULL, "flashblock", 1, 640, 2);
    for (int pass = 0; pass < 3; pass++)
        near(&s, attend(&s, 0, pass), attend_exactly(&s), 5e-6);
    free(attend(&alone, 0, 0));
    const double pairs = s.approx.receipt.pairs;
    refill(&s, s.call.q);
    memcpy(alone.call.q.data, s.call.q.data, gv_tensor_bytes(s.call.q));
    float *exact = attend_exactly(&s), *mixed = attend(&s, 0, 3), *kept = attend(&alone, 0, 3);
    assert_true(s.approx.receipt.pairs - pairs > (0.4 * 640 + N) / (640 + N) - 1e-9);
    assert_true(distance(mixed, exact, count(&s)) < distance(kept, exact, count(&s)));
    free(exact);
    free(mixed);
    free(kept);
    scene_close(&s);
    scene_close(&alone);
}

/* ---- surveys ---- */

/* Largest share of a tile's softmax that one block of 64 keys holds. */
static double best_block(const struct scene *s, int h, int tile)
{
    double mass[(N + 63) / 64] = { 0 }, best = 0;
    int    rows = 0;

    for (int64_t q = tile * 128; q < N && q < tile * 128 + 128; q++, rows++) {
        double p[N], sum = 0;
        for (int64_t k = 0; k < N; k++) {
            double x = 0;
            for (int64_t d = 0; d < D; d++)
                x += (double)get(s->call.q, 0, q, h, d) * (double)get(s->call.source[0].k, 0, k, h, d);
            sum += p[k] = exp(x / sqrt(D));
        }
        for (int64_t k = 0; k < N; k++)
            mass[k / 64] += p[k] / sum;
    }
    for (int b = 0; b < (N + 63) / 64; b++)
        best = mass[b] / rows > best ? mass[b] / rows : best;
    return best;
}

/* The blocks that a survey names hold the mass that was asked for, and are as few as that takes; its outputs are dense. */
static void a_survey_names_the_blocks_that_hold_the_mass(void **state)
{
    enum { TILES = (N + 127) / 128, BLOCKS = (N + 63) / 64 };
    const struct survey_shape shape = { .steps = 2, .layers = 2, .heads = A, .tiles = TILES, .blocks = BLOCKS, .mass = 0.7 };
    struct scene              s;
    struct attn_survey        survey;
    struct error              e = { 0 };
    uint32_t                  bits[2 * 2 * A * TILES];

    (void)state;
    scene_open(&s, NULL, NULL, 2, 0, 2);
    assert_int_equal(gv_survey_open(&survey, &shape, &e), GV_OK);
    assert_int_equal(gv_survey_begin(&survey, s.device, &e), GV_OK);
    s.approx.survey = &survey;
    s.call.q = slice(s.call.q, 0, 0, 1); /* one path: its vote is the choice */
    s.call.out.o = slice(s.call.out.o, 0, 0, 1);
    s.call.source[0].k = slice(s.call.source[0].k, 0, 0, 1);
    s.call.source[0].v = slice(s.call.source[0].v, 0, 0, 1);
    same(&s, attend(&s, 1, 1), attend_exactly(&s));
    gv_survey_bitmap(&survey, bits);
    for (int i = 0; i < 3 * A * TILES; i++)
        assert_int_equal(bits[i], 0); /* steps and layers that nobody saw */
    for (int h = 0; h < A; h++)
        for (int tile = 0; tile < TILES; tile++) {
            double mass[BLOCKS] = { 0 }, kept = 0, least = 1, all = 0;
            for (int64_t q = tile * 128; q < N && q < tile * 128 + 128; q++) {
                double p[N], sum = 0;
                for (int64_t k = 0; k < N; k++) {
                    double x = 0;
                    for (int64_t d = 0; d < D; d++)
                        x += (double)get(s.call.q, 0, q, h, d) * (double)get(s.call.source[0].k, 0, k, h, d);
                    sum += p[k] = exp(x / sqrt(D));
                }
                for (int64_t k = 0; k < N; k++)
                    mass[k / 64] += p[k] / sum;
            }
            for (int b = 0; b < BLOCKS; b++)
                all += mass[b];
            for (int b = 0; b < BLOCKS; b++)
                if (bits[(3 * A + h) * TILES + tile] >> b & 1) {
                    kept += mass[b] / all;
                    least = mass[b] / all < least ? mass[b] / all : least;
                }
            assert_true(kept >= 0.7 - 1e-5 && kept - least < 0.7 + 1e-5);
        }
    double held[GV_SURVEY_SHARES], none[GV_SURVEY_SHARES], total = 0;
    gv_survey_held(&survey, 1, held);
    gv_survey_held(&survey, 0, none);
    for (int h = 0; h < A; h++) /* the best one of the five blocks of each row, in float64; then two, then three */
        for (int tile = 0; tile < TILES; tile++)
            total += best_block(&s, h, tile) / (A * TILES);
    assert_true(fabs(held[0] - total) < 1e-5 && none[2] == 0);
    assert_true(held[0] < held[1] && held[1] < held[2] && held[2] < 1);
    gv_survey_close(&survey);
    scene_close(&s);
}

static void a_survey_of_a_history_finds_the_heads_that_move(void **state)
{
    const struct survey_shape shape = { .steps = 3, .layers = 1, .heads = A, .cosine = 0.85, .lse = 0.05 };
    struct scene              s;
    struct attn_survey        survey;
    struct error              e = { 0 };
    uint8_t                   fresh[4 * A];

    (void)state;
    scene_open(&s, NULL, "flashblock", 1, 200, 2);
    assert_int_equal(gv_survey_open(&survey, &shape, &e), GV_OK);
    assert_int_equal(gv_survey_begin(&survey, s.device, &e), GV_OK);
    s.approx.survey = &survey;
    near(&s, attend(&s, 0, 0), attend_exactly(&s), 5e-6);
    free(attend(&s, 0, 1)); /* nothing moved */
    double history, own;
    gv_survey_like(&survey, 0, &history, &own);
    assert_true(fabs(history - 1) < 1e-6 && fabs(own - 1) < 1e-6);
    for (int64_t n = 0; n < N; n++)
        for (int64_t d = 0; d < D; d++)
            set(s.call.q, 0, n, 1, d, -get(s.call.q, 0, n, 1, d)); /* head 1 looks the other way */
    free(attend(&s, 0, 2));
    gv_survey_like(&survey, 0, &history, &own);
    assert_true(history < 0.999 && own < 0.999);
    free(attend(&s, 0, 3)); /* its kept partial was replaced at once */
    gv_survey_fresh(&survey, fresh);
    for (int pass = 0; pass < 4; pass++)
        for (int h = 0; h < A; h++)
            assert_int_equal(fresh[pass * A + h], pass == 2 && h == 1);
    gv_survey_close(&survey);
    scene_close(&s);
}

/* ---- promises of the whole ---- */

static const char *const asked[][2] = { { "pooled:share=0.3", NULL },
                                        { "pooled:share=0.3,every=2", NULL },
                                        { "pooled:share=0.3,every=2", "complement" },
                                        { "antidiagonal:mass=0.5,every=0,drift=0.1", NULL },
                                        { "radial:every=2", "complement:mib=1" },
                                        { "window:back=40,ahead=40", NULL },
                                        { "window:back=40,ahead=40,axes=3", NULL } };

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        struct scene one, four;
        scene_open(&one, asked[i][0], asked[i][1], 2, 0, 1);
        scene_open(&four, asked[i][0], asked[i][1], 2, 0, 4);
        for (int step = 0; step < 3; step++) {
            same(&one, attend(&one, 1, step), attend(&four, 1, step));
            new_tokens(&one);
            new_tokens(&four);
        }
        scene_close(&one);
        scene_close(&four);
    }
}

static void a_dry_run_knows_the_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i <= sizeof asked / sizeof *asked; i++) {
        const bool         causal = i == sizeof asked / sizeof *asked;
        struct scene       s;
        struct device     *null;
        struct run         dry;
        struct attn_approx a;
        struct error       e = { 0 };
        struct attn_layout l;
        scene_open(&s, causal ? "pooled:share=0.3" : asked[i][0], causal ? "flashblock:dirty=301" : asked[i][1], 2,
                   causal ? 400 : 0, 2);
        assert_int_equal(gv_device_null(&null, s.device, &e), GV_OK);
        assert_int_equal(gv_run_open(&dry, null, GV_F32, 0, &e), GV_OK);
        assert_int_equal(gv_approx_open(&a, &s.config, NULL, null, &(struct approx_shape){ 2, 1, causal }, &e), GV_OK);
        assert_int_equal(gv_layout_grid(&l, 0, 5, 6, 10, &e), GV_OK);
        assert_int_equal(gv_approx_layout(&a, &l, A, &e), GV_OK);
        gv_layout_free(&l);
        a.at = (struct approx_at){ .steps = 100 };
        for (int layer = 0; layer < 2; layer++)
            gv_attend(&dry, &a, layer, 0, &s.call);
        assert_string_equal(dry.err.text, "");
        gv_run_close(&s.run);
        assert_int_equal(gv_run_open(&s.run, s.device, GV_F32, dry.scratch.peak, &e), GV_OK); /* not a byte more */
        for (int step = 0; step < 4; step++)
            for (int layer = 0; layer < 2; layer++) {
                s.approx.at.sample = step == 1;
                free(attend(&s, layer, step));
                new_tokens(&s);
            }
        assert_int_equal(gv_cache_bytes(s.approx.kept), gv_cache_bytes(a.kept));
        assert_int_equal(gv_cache_bytes(s.approx.partials), gv_cache_bytes(a.partials));
        if (s.run.scratch.peak != dry.scratch.peak)
            fail_msg("case %zu: %zu bytes, %zu were predicted", i, s.run.scratch.peak, dry.scratch.peak);
        gv_approx_close(&a);
        gv_device_close(&null);
        scene_close(&s);
    }
}

static void samples_say_how_far_off_a_call_is(void **state)
{
    struct scene s;

    (void)state;
    scene_open(&s, "window:back=10,ahead=10", NULL, 1, 0, 1);
    s.approx.at.sample = true;
    float *got = attend(&s, 0, 0), *exact = attend_exactly(&s);
    double difference = 0, reference = 0;
    for (int64_t i = 0; i < count(&s); i++) {
        difference += ((double)got[i] - (double)exact[i]) * ((double)got[i] - (double)exact[i]);
        reference += (double)exact[i] * (double)exact[i];
    }
    assert_int_equal(s.approx.receipt.samples, 1);
    assert_true(fabs(s.approx.receipt.error - sqrt(difference / reference)) < 1e-9);
    assert_true(s.approx.receipt.exact_seconds > 0 && s.approx.receipt.seconds > 0);
    free(got);
    free(exact);
    scene_close(&s);
}

static void what_cannot_be_is_refused_in_words(void **state)
{
    static const struct {
        const char *attention, *cache;
        bool        causal;
        const char *words;
    } bad[] = {
        { "radial:decay=9", NULL, false, "decay=9" },
        { "radial:dense_steps=-1", NULL, false, "dense_steps=-1" },
        { "radial:at=", NULL, false, "at=" },
        { "radial:at=1+", NULL, false, "at=" },
        { "radial:at=0", NULL, false, "at=" },
        { "radial:at=1+2+3+4+5+6+7+8+9", NULL, false, "up to 8" },
        { "radial:foo=1", NULL, false, "no option \"foo=1\"" },
        { "radial:,", NULL, false, "no option" },
        { "radia", NULL, false, "there are: dense" },
        { "", NULL, false, "there are: dense" },
        { "causal", NULL, false, "is for text" },
        { "vertical_slash", NULL, false, "is for text" },
        { "radial", NULL, true, "whole clip" },
        { "radial:across=2", NULL, false, "always chooses the same" },
        { "pooled:at=3", NULL, true, "causal generation takes every" },
        { "pooled:axes=2", NULL, false, "fixed lists" },
        { "dense:axes=2", NULL, false, "fixed lists" },
        { "radial:axes=2,every=0,at=3", "complement", false, "fixed lists" },
        { "radial:axes=7", NULL, false, "from 1 to 6" },
        { NULL, "complement", false, "every=4" },
        { "pooled", "complement", false, "every=4" },
        { "pooled:every=4", "complement", true, "flashblock" },
        { NULL, "flashblock", false, "is for causal" },
        { NULL, "flashblock:dirty=-2", true, "dirty=-2" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct approx_config c = { .refresh = { .every = 1, .drift = -1, .across = 1 } };
        struct error         e = { 0 };
        bool                 known;
        if (bad[i].attention)
            gv_approx_parse(&c, bad[i].attention, &e);
        if (bad[i].cache)
            gv_approx_parse_keep(&c, bad[i].cache, &known, &e);
        gv_approx_check(&c, bad[i].causal, &e);
        if (e.code != GV_ERR_ARGUMENT || !strstr(e.text, bad[i].words))
            fail_msg("%s, %s: \"%s\" does not say \"%s\"", bad[i].attention, bad[i].cache, e.text, bad[i].words);
    }
    struct approx_config c;
    parse(&c, "radial:dense_steps=10,decay=0.5,at=10+30,every=0,sink=0", NULL);
    assert_true(c.policy == &gv_policy_radial && c.dense_steps == 10 && c.value[0] == 0.5 && c.value[1] == 0);
    assert_true(c.refresh.n_at == 2 && c.refresh.at[0] == 9 && c.refresh.at[1] == 29 && c.refresh.every == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_of_axes_is_what_its_name_says),
        cmocka_unit_test(heads_come_back_from_their_order),
        cmocka_unit_test(a_head_takes_the_order_that_suits_it),
        cmocka_unit_test(the_order_is_the_one_of_least_error_over_the_sampled_rows),
        cmocka_unit_test(an_order_lasts_as_long_as_it_should),
        cmocka_unit_test(a_bitmap_is_its_plan_and_a_split_is_all_keys),
        cmocka_unit_test(lists_of_no_blocks_are_refused),
        cmocka_unit_test(refreshes_come_when_they_should),
        cmocka_unit_test(text_blocks_refresh_by_their_dirty_tokens),
        cmocka_unit_test(exact_steps_and_layers_are_exact_to_the_bit),
        cmocka_unit_test(everything_kept_is_dense_to_the_bit),
        cmocka_unit_test(a_choice_lasts_as_long_as_it_should),
        cmocka_unit_test(a_choice_is_made_anew_when_the_means_have_moved),
        cmocka_unit_test(unchanged_tokens_reuse_to_dense),
        cmocka_unit_test(a_reused_complement_is_the_union_of_old_and_new),
        cmocka_unit_test(a_small_budget_keeps_some_layers_and_thins_out_the_others),
        cmocka_unit_test(a_clip_of_120_latent_frames_takes_the_published_calls),
        cmocka_unit_test(unchanged_queries_read_the_history_they_kept),
        cmocka_unit_test(a_history_is_read_anew_when_tokens_have_changed),
        cmocka_unit_test(heads_are_recomputed_by_their_mask_alone),
        cmocka_unit_test(what_a_policy_leaves_out_of_the_history_is_kept),
        cmocka_unit_test(a_survey_names_the_blocks_that_hold_the_mass),
        cmocka_unit_test(a_survey_of_a_history_finds_the_heads_that_move),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(a_dry_run_knows_the_memory),
        cmocka_unit_test(samples_say_how_far_off_a_call_is),
        cmocka_unit_test(what_cannot_be_is_refused_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
