/* VFlowOpt's pruning: settings, counts, recycling, the importance map by brute force, and a pruned LLaVA-OneVision token by token
 * against tests/reference/vflowopt.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/vision/vision_case.h"

static struct prune_opts parsed(const char *text)
{
    struct prune_opts o;
    struct error      e = { 0 };
    if (gv_prune_parse(&o, text, &e))
        fail_msg("%s", e.text);
    return o;
}

static void published_settings_have_their_published_budgets(void **state)
{
    (void)state;
    const struct prune_opts a = parsed("50"), b = parsed("25"), c = parsed("10"), all = parsed("keep=1/1/1");
    assert_int_equal(gv_prune_layer(0, 28), 9);
    assert_int_equal(gv_prune_layer(1, 28), 18);
    assert_true(fabs(gv_prune_budget(&a, 28) - 0.5008) < 5e-5);
    assert_true(fabs(gv_prune_budget(&b, 28) - 0.2507) < 5e-5);
    assert_true(fabs(gv_prune_budget(&c, 28) - 0.1000) < 5e-5);
    assert_true(gv_prune_budget(&all, 28) == 1);
    const struct prune_opts same = parsed("sink=34.759552803070484"), other = parsed("keep=.3/.9/.8"); /* of "25" */
    assert_true(gv_prune_published(&a) && gv_prune_published(&b) && gv_prune_published(&c) && gv_prune_published(&same));
    assert_false(gv_prune_published(&all) || gv_prune_published(&other));
}

static void settings_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "",       "20",       "keep=1",  "keep=1/1/1/1", "keep=0/1/1",          "keep=1/1/2",
                                       "cell=0", "cell=nan", "sink=-1", "depth=3",      "keep=.5/.5/.5;cell=3" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct prune_opts o;
        struct error      e = { 0 };
        assert_int_equal(gv_prune_parse(&o, bad[i], &e), GV_ERR_ARGUMENT);
        assert_non_null(strstr(e.text, "prune"));
    }
}

/* Random scores, with ties; whatever the options, the counts are the formulas' and every token is in one place. */
static void counts_order_and_weights_hold_for_any_setting(void **state)
{
    (void)state;
    for (int trial = 0; trial < 200; trial++) {
        char  name[32];
        float u[5], score[600];
        snprintf(name, sizeof name, "prune.%d", trial);
        fixture_fill(u, name, 5, 0.5F, 0.5F);
        const int64_t              n = 50 + (int64_t)(u[0] * 500);
        const struct prune_opts    o = { .keep = { 0.05 + 0.95 * (double)u[1], 1, 1 }, .cell = 1.5 + 20 * (double)u[2] };
        const struct prune_lattice l = { .base = (int64_t)(u[3] * 40), .base_row = 5, .row = 13, .recycle = u[4] > 0.3F };
        struct pruned              p;
        struct error               e = { 0 };
        fixture_fill(score, name, n, 0.5F, 0.5F);
        for (int64_t i = 0; i < n; i += 3)
            score[i] = floorf(score[i] * 4) / 4;
        assert_int_equal(gv_prune(&p, &o, &l, score, n, &e), GV_OK);
        const int64_t reduce = (int64_t)nearbyint((double)n * (1 - o.keep[0])),
                      budget = l.recycle && reduce ? (int64_t)((double)n / (o.cell * o.cell)) : 0,
                      low = reduce + budget < n ? reduce + budget : n;
        assert_true(p.n >= n - low && p.n <= n - low + (budget ? low : 0));
        if (!budget)
            assert_int_equal(p.n, n - reduce);
        int64_t members = 0;
        for (int64_t i = 0; i < p.n; i++) {
            double sum = 0;
            bool   own = false;
            assert_true(i == 0 || p.place[i] > p.place[i - 1]);
            for (int32_t m = p.first[i]; m < p.first[i + 1]; m++, members++) {
                sum += (double)p.weight[m];
                own = own || p.member[m] == p.place[i];
                assert_true(score[p.member[m]] <= p.score[i]);
            }
            assert_true(own && fabs(sum - 1) < 1e-5);
            assert_true(p.score[i] == score[p.place[i]]);
            if (p.first[i + 1] == p.first[i] + 1)
                assert_true(p.weight[p.first[i]] == 1);
        }
        assert_int_equal(members, budget ? n : n - reduce);
        struct pruned most;
        assert_int_equal(gv_prune(&most, &o, &l, NULL, n, &e), GV_OK);
        gv_pruned_free(&most);
        gv_pruned_free(&p);
    }
}

/* The published cell, 15.58, would unite tokens of every picture of 243 and more. */
static void a_budget_of_all_tokens_unites_none(void **state)
{
    (void)state;
    const struct prune_opts    o = parsed("keep=1/1/1");
    const struct prune_lattice l = { .base = 243, .base_row = 27, .row = 28, .recycle = true };
    float                      score[700];
    struct pruned              p;
    struct error               e = { 0 };
    fixture_fill(score, "all", 700, 0.5F, 0.5F);
    for (int64_t n = 243; n <= 700; n += 457) {
        assert_int_equal(gv_prune(&p, &o, &l, score, n, &e), GV_OK);
        assert_int_equal(p.n, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(p.place[i] == i && p.first[i + 1] == i + 1 && p.weight[i] == 1);
        gv_pruned_free(&p);
    }
}

/* ---- the map ---- */

enum { B = 2, N = 37, A = 3, D = 8 };

static void brute_force(const float *q, const float *k, double sink, double *map)
{
    static double prob[A][N][N];
    double        received[N] = { 0 };
    int           sinks = 0;
    for (int a = 0; a < A; a++)
        for (int i = 0; i < N; i++) {
            double sum = 0;
            for (int j = 0; j < N; j++) {
                double s = 0;
                for (int d = 0; d < D; d++)
                    s += (double)q[(i * A + a) * D + d] * (double)k[(j * A + a) * D + d];
                sum += prob[a][i][j] = exp(s / sqrt(D));
            }
            for (int j = 0; j < N; j++)
                received[j] += (prob[a][i][j] /= sum) / (A * N);
        }
    for (int j = 0; j < N; j++)
        map[j] = 0;
    for (int i = 0; i < N; i++)
        if (received[i] > sink / N && ++sinks)
            for (int j = 0; j < N; j++)
                for (int a = 0; a < A; a++)
                    map[j] += prob[a][i][j] / A;
    for (int j = 0; j < N; j++)
        map[j] /= sinks;
}

static void importance_equals_brute_force_and_adds_up_to_one(void **state)
{
    (void)state;
    struct vision_case v;
    float              q[B * N * A * D], k[B * N * A * D], map[B * N];
    double             want[N];
    vision_open(&v, "llava_onevision", "f32");
    fixture_fill(q, "importance.q", B * N * A * D, 2, 0);
    fixture_fill(k, "importance.k", B * N * A * D, 2, 0);
    for (double sink = 0; sink < 1.5; sink += 0.3) {
        struct mark   mark = arena_mark(&v.c.run.scratch);
        struct tensor tq = gv_scratch_from(&v.c.run, GV_F32, 4, DIMS(B, N, A, D), q),
                      tk = gv_scratch_from(&v.c.run, GV_F32, 4, DIMS(B, N, A, D), k);
        gv_importance_attention(&v.c.run, tq, tk, sink, map);
        assert_string_equal(v.c.run.err.text, "");
        for (int b = 0; b < B; b++) {
            double sum = 0;
            brute_force(q + b * N * A * D, k + b * N * A * D, sink, want);
            for (int i = 0; i < N; i++) {
                assert_true(fabs((double)map[b * N + i] - want[i]) < 1e-6);
                sum += (double)map[b * N + i];
            }
            assert_true(fabs(sum - 1) < 1e-5); /* with sink = 0 every patch is one, and the map what each receives */
        }
        arena_release(&v.c.run.scratch, mark);
    }
    vision_close(&v);
}

static void entropy_of_flat_patches_is_none_and_of_all_greys_the_most(void **state)
{
    (void)state;
    enum { P = 196 };
    static const float mean[3] = { 0.5F, 0.5F, 0.5F }, std[3] = { 0.5F, 0.5F, 0.5F };
    float              rows[2 * 3 * P], map[2] = { 0 };
    for (int i = 0; i < 3 * P; i++) {
        rows[i] = 0.3F;
        rows[3 * P + i] = ((float)(i % P) / 255 - 0.5F) / 0.5F;
    }
    const struct patch_rows r = { rows, 3 * P, P, P, mean, std };
    assert_true(gv_patch_entropy(&r, 0) == 0);
    assert_true(fabs(gv_patch_entropy(&r, 1) - log2(196)) < 1e-9);
    gv_importance_entropy(map, 2, &r, 0.5);
    assert_true(fabsf(map[0] + map[1] - 0.5F) < 1e-6F && map[1] > map[0]);
}

/* ---- a model ---- */

static float *host_of(struct vision_case *v, struct tensor x)
{
    return case_download(&v->c.run, x);
}

/* Picture "wide" of the golden, as values and features with their importance. */
static struct tensor look(struct vision_case *v, struct vlm_media *m, const struct importance_opts *o, float *score)
{
    struct image  im;
    const int64_t n = 60 * 130 * 3;
    float        *bytes = malloc((size_t)n * sizeof *bytes);
    *m = (struct vlm_media){ .alone = true, .height = 60, .width = 130, .frames = 1 };
    assert_int_equal(v->vlm->model->plan(v->vlm, m, &v->c.error), GV_OK);
    assert_int_equal(gv_image_new(&im, 130, 60, &v->c.error), GV_OK);
    fixture_fill(bytes, "wide", n, 0.5F, 0.5F);
    for (int64_t i = 0; i < n; i++)
        im.rgb[i] = (uint8_t)floorf(bytes[i] * 256);
    float *values = malloc((size_t)m->step_values * sizeof *values);
    assert_int_equal(v->vlm->model->prepare(v->vlm, m, &im, values, &v->c.error), GV_OK);
    struct tensor out = gv_scratch(&v->c.run, GV_F32, 2, DIMS(m->tokens, v->vlm->width));
    v->vlm->model->encode(&v->c.run, v->vlm, out, m,
                          (struct vlm_piece){ .steps = 1, .values = values, .importance = o, .score = score });
    assert_string_equal(v->c.run.err.text, "");
    gv_image_free(&im);
    free(values);
    free(bytes);
    return out;
}

static int64_t ids_of(struct golden *g, const char *name, int32_t *ids)
{
    int64_t      n;
    const float *x = golden_get(g, name, &n);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)x[i];
    return n;
}

/* The importance, what is left and where, and 64 tokens of text with fewer keys in deeper layers. */
static void a_pruned_model_equals_the_papers_steps_around_transformers(void **state)
{
    (void)state;
    struct vision_case v;
    struct golden      g;
    struct vlm_media   m;
    struct vlm_pruned  fewer;
    struct vlm_state   s = { 0 };
    float              score[80], logits[1024];
    int32_t            ids[128];
    vision_open(&v, "llava_onevision", "f32");
    golden_open(&g, "vflowopt");
    const float            *x = golden_get(&g, "opts", NULL);
    const struct prune_opts o = { .importance = { (double)x[4], (double)x[5] },
                                  .keep = { (double)x[0], (double)x[1], (double)x[2] },
                                  .cell = (double)x[3] };
    struct tensor           features = look(&v, &m, &o.importance, score);
    assert_true(relative_error(score, golden_get(&g, "score", NULL), 80) < 1e-5);
    const float *const      scores[] = { score };
    const int64_t           n = ids_of(&g, "ids", ids);
    const struct vlm_prompt p = { .ids = ids, .n = n, .media = &m, .features = &features, .n_media = 1 };
    gv_vlm_prune(&v.c.run, v.vlm, &fewer, &p, &o, scores);
    assert_string_equal(v.c.run.err.text, "");
    int64_t      left, begin = 0, count;
    const float *place = golden_get(&g, "place", &left), *depth = golden_get(&g, "depth", NULL),
                *merged = golden_get(&g, "merged", &count);
    while (ids[begin] != v.vlm->image_id)
        begin++;
    assert_int_equal(fewer.prompt.n, n - 80 + left);
    assert_int_equal(fewer.tokens[1], left);
    for (int64_t i = 0; i < left; i++) {
        assert_int_equal(fewer.place[begin + i].t, begin + (int64_t)place[i]);
        assert_int_equal(fewer.depth[begin + i], (int)depth[i]);
    }
    assert_int_equal(fewer.place[begin + left].t, begin + 80); /* text keeps its place */
    float *ours = host_of(&v, fewer.features[0]);
    assert_true(relative_error(ours, merged, count) < 1e-5);
    free(ours);

    const float  *want = golden_get(&g, "tokens", &count);
    struct tensor t = gv_scratch(&v.c.run, GV_F32, 2, DIMS(1, 1024));
    assert_int_equal(gv_lm_state_open(&s.lm, v.c.device, fewer.prompt.n + count, &v.c.error), GV_OK);
    gv_vlm_prefill(&v.c.run, v.vlm, &s, &fewer.prompt, t);
    gv_download(&v.c.run, logits, t);
    assert_string_equal(v.c.run.err.text, "");
    assert_true(relative_error(logits, golden_get(&g, "logits", NULL), 1024) < 1e-4);
    for (int64_t i = 0; i < count; i++) {
        int32_t best = 0;
        gv_download(&v.c.run, logits, t);
        for (int32_t k = 1; k < 1024; k++)
            best = logits[k] > logits[best] ? k : best;
        assert_int_equal(best, (int32_t)want[i]);
        gv_vlm_step(&v.c.run, v.vlm, &s, best, t);
    }
    /* keys and values: as many as each layer was given */
    const int64_t all = fewer.prompt.n + count;
    int64_t       rows = 3 * all;
    for (int64_t i = 0; i < fewer.prompt.n; i++)
        rows -= 2 - fewer.depth[i];
    assert_int_equal(gv_cache_bytes(s.lm.cache), 2 * rows * 32 * (int64_t)sizeof(float));
    gv_lm_state_close(&s.lm);
    gv_vlm_pruned_free(&fewer);
    golden_close(&g);
    vision_close(&v);
}

/* Nothing is left out: not a bit differs, also where importance was measured. */
static void keeping_all_changes_no_bit(void **state)
{
    (void)state;
    struct vision_case      v;
    struct vlm_media        m;
    struct vlm_pruned       fewer;
    float                   score[80], a[1024], b[1024];
    int32_t                 ids[128];
    const struct prune_opts o = parsed("keep=1/1/1,cell=1000,sink=2,entropy=0.5");
    vision_open(&v, "llava_onevision", "f32");
    const int64_t n = ids_of(&v.c.golden, "wide.ids", ids);
    struct tensor plain = look(&v, &m, NULL, NULL), scored = look(&v, &m, &o.importance, score);
    float        *x = host_of(&v, plain), *y = host_of(&v, scored);
    assert_memory_equal(x, y, 80 * 64 * sizeof *x);
    free(x);
    free(y);
    const float *const      scores[] = { score };
    const struct vlm_prompt p = { .ids = ids, .n = n, .media = &m, .features = &plain, .n_media = 1 };
    struct tensor           t = gv_scratch(&v.c.run, GV_F32, 2, DIMS(1, 1024));
    gv_vlm_prune(&v.c.run, v.vlm, &fewer, &p, &o, scores);
    for (int i = 0; i < 2; i++) {
        struct vlm_state s = { 0 };
        assert_int_equal(gv_lm_state_open(&s.lm, v.c.device, n + 1, &v.c.error), GV_OK);
        gv_vlm_prefill(&v.c.run, v.vlm, &s, i ? &fewer.prompt : &p, t);
        gv_vlm_step(&v.c.run, v.vlm, &s, 7, t);
        gv_download(&v.c.run, i ? b : a, t);
        gv_lm_state_close(&s.lm);
    }
    assert_string_equal(v.c.run.err.text, "");
    assert_memory_equal(a, b, sizeof a);
    gv_vlm_pruned_free(&fewer);
    vision_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_settings_have_their_published_budgets),
        cmocka_unit_test(settings_that_cannot_be_are_refused),
        cmocka_unit_test(a_budget_of_all_tokens_unites_none),
        cmocka_unit_test(counts_order_and_weights_hold_for_any_setting),
        cmocka_unit_test(importance_equals_brute_force_and_adds_up_to_one),
        cmocka_unit_test(entropy_of_flat_patches_is_none_and_of_all_greys_the_most),
        cmocka_unit_test(a_pruned_model_equals_the_papers_steps_around_transformers),
        cmocka_unit_test(keeping_all_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
