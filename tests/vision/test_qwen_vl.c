/* Qwen2.5-VL and Qwen2-VL against transformers: the tower block by block over whole and partial windows and two frames, positions, the
 * decoder layer by layer, greedy text token by token. Measures: tests/reference/qwen2_5_vl.py, qwen2_vl.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/vision/vision_case.h"
#include "vision/vit.h"

/* Tap name → golden name: vision.blocks.2.out is <side>.block2, decoder.layers.1.out is <side>.layer1, else the last word. */
static bool golden_name(const struct vision_case *v, const char *tap, char *out, size_t size)
{
    int i;
    if (sscanf(tap, "vision.blocks.%d.out", &i) == 1)
        snprintf(out, size, "%s.block%d", v->side, i);
    else if (sscanf(tap, "decoder.layers.%d.out", &i) == 1 && strstr(tap, ".out"))
        snprintf(out, size, "%s.layer%d", v->side, i);
    else
        snprintf(out, size, "%s.%s", v->side, strrchr(tap, '.') ? strrchr(tap, '.') + 1 : tap);
    return golden_has(&v->c.golden, out);
}

/* Blocks work in the order of windows; goldens are in that of the patches. */
static void unwindow(const struct vision_case *v, float *x, int64_t n, int64_t d)
{
    static const struct vit_config c = { .merge = 2, .window = 2 };
    struct patch_grid              g = vision_grid(v->side);
    struct vit_order               o;
    struct error                   e = { 0 };
    int64_t                        cells = g.h * g.w / 4;
    float                         *copy = malloc((size_t)(n * d) * sizeof *copy);
    memcpy(copy, x, (size_t)(n * d) * sizeof *copy);
    assert_int_equal(gv_vit_order(&o, &c, g, &e), GV_OK);
    for (int64_t i = 0; i < n / 4; i++)
        memcpy(x + (i / cells * cells + o.cell[i % cells]) * 4 * d, copy + i * 4 * d, (size_t)(4 * d) * sizeof *copy);
    gv_vit_order_free(&o);
    free(copy);
}

static void compare(void *user, struct run *r, const char *tap, struct tensor x)
{
    struct vision_case *v = user;
    char                name[64];
    if (!v->side || !golden_name(v, tap, name, sizeof name))
        return;
    float *ours = case_download(r, x);
    if (strstr(name, ".block") && !strcmp(v->vlm->model->name, "qwen2.5-vl"))
        unwindow(v, ours, x.dim[0], x.dim[1]);
    case_compare(&v->c, name, ours, name, name);
    free(ours);
    v->compared++;
}

/* ---- tower ---- */

static void towers(const char *model, const char *precision, const char *const *sides, int taps)
{
    struct vision_case v;
    vision_open(&v, model, precision);
    struct tap tap = { compare, &v };
    v.c.run.tap = &tap;
    for (const char *const *side = sides; *side; side++) {
        v.side = *side;
        v.compared = 0;
        struct mark      mark = arena_mark(&v.c.run.scratch);
        struct vlm_media m = vision_media(&v, *side);
        struct tensor    out = gv_scratch(&v.c.run, GV_F32, 2, DIMS(m.tokens, v.vlm->width));
        vision_encode(&v, out, &m, *side);
        assert_string_equal(v.c.run.err.text, "");
        assert_int_equal(v.compared, taps);
        arena_release(&v.c.run.scratch, mark);
    }
    vision_close(&v);
}

static void tower_equals_transformers_over_whole_and_partial_windows(void **state)
{
    (void)state;
    towers("qwen2_5_vl", "f32", (const char *const[]){ "a", "b", "c", "d", NULL }, 6);
    towers("qwen2_vl", "f32", (const char *const[]){ "a", "c", NULL }, 5);
}
static void bf16_tower_is_as_good_as_transformers_bf16(void **state)
{
    (void)state;
    towers("qwen2_5_vl", "bf16", (const char *const[]){ "a", "b", "c", "d", NULL }, 6);
    towers("qwen2_vl", "bf16", (const char *const[]){ "a", "c", NULL }, 5);
}

/* ---- positions ---- */

static void positions(struct vision_case *v, const char *name)
{
    struct vision_prompt p;
    struct token_place   place[128];
    int32_t              next;
    char                 key[64];
    vision_prompt_open(v, &p, name, false);
    assert_int_equal(gv_vlm_places(v->vlm, &p.prompt, place, &next, &v->c.error), GV_OK);
    snprintf(key, sizeof key, "%s.positions", name);
    const float *want = golden_get(&v->c.golden, key, NULL);
    for (int64_t i = 0; i < p.prompt.n; i++) {
        assert_int_equal(place[i].t, (int)want[i]);
        assert_int_equal(place[i].h, (int)want[p.prompt.n + i]);
        assert_int_equal(place[i].w, (int)want[2 * p.prompt.n + i]);
    }
    snprintf(key, sizeof key, "%s.delta", name);
    if (golden_has(&v->c.golden, key))
        assert_int_equal(next, p.prompt.n + (int64_t)golden_number(&v->c.golden, key));
}

static void positions_equal_transformers_and_keep_fractions_of_seconds(void **state)
{
    (void)state;
    struct vision_case v;
    vision_open(&v, "qwen2_5_vl", "f32");
    positions(&v, "picture");
    positions(&v, "two");
    positions(&v, "video");
    positions(&v, "slow");
    vision_close(&v);
    vision_open(&v, "qwen2_vl", "f32");
    positions(&v, "two");
    positions(&v, "video");
    vision_close(&v);
}

static void text_behind_a_long_clip_stands_above_its_last_second(void **state)
{
    (void)state;
    struct vision_case v;
    struct token_place place[14];
    struct error       e = { 0 };
    int32_t            next, ids[14];
    vision_open(&v, "qwen2_5_vl", "f32");
    struct vlm_media  m = { .grid = { 12, 2, 2 }, .video = true, .seconds = 1.5, .tokens = 12 };
    struct vlm_prompt p = { .ids = ids, .n = 14, .media = &m, .n_media = 1 };
    ids[0] = ids[13] = 7;
    for (int i = 1; i < 13; i++)
        ids[i] = v.vlm->video_id;
    assert_int_equal(gv_vlm_places(v.vlm, &p, place, &next, &e), GV_OK);
    for (int k = 0; k < 12; k++)
        assert_int_equal(place[1 + k].t, 1 + 3 * k); /* 1.5 s · 2 tokens a second */
    assert_int_equal(place[13].t, 1 + 33 + 1);
    assert_int_equal(next, 36);
    vision_close(&v);
}

static void placeholders_that_do_not_match_the_pictures_are_refused(void **state)
{
    (void)state;
    struct vision_case   v;
    struct vision_prompt p;
    struct token_place   place[128];
    int32_t              next;
    vision_open(&v, "qwen2_5_vl", "f32");
    vision_prompt_open(&v, &p, "picture", false);
    p.media[0].tokens -= 3;
    assert_int_equal(gv_vlm_places(v.vlm, &p.prompt, place, &next, &v.c.error), GV_ERR_INTERNAL);
    v.c.error = (struct error){ 0 };
    p.prompt.n_media = 0;
    assert_int_equal(gv_vlm_places(v.vlm, &p.prompt, place, &next, &v.c.error), GV_ERR_INTERNAL);
    p.prompt.n_media = 1;
    vision_close(&v);
}

/* ---- decoder ---- */

static const float *host_logits(struct vision_case *v, struct tensor logits, float *host)
{
    gv_download(&v->c.run, host, logits);
    assert_string_equal(v->c.run.err.text, "");
    return host;
}

/* Prefill and greedy text of one prompt; every state is compared on the way, tokens where exact. */
static void caption(struct vision_case *v, const char *name, bool exact)
{
    struct vision_prompt p;
    struct vlm_state     s = { 0 };
    struct text_sampler  choose;
    char                 key[64];
    float                host[1024];
    int64_t              n;
    vision_prompt_open(v, &p, name, true);
    snprintf(key, sizeof key, "%s.tokens", name);
    const float *want = golden_get(&v->c.golden, key, &n);
    assert_int_equal(gv_lm_state_open(&s.lm, v->c.device, p.prompt.n + n, &v->c.error), GV_OK);
    assert_int_equal(gv_text_sampler_open(&choose, v->vlm->vocabulary, &(struct sample_opts){ 0 }, &v->c.error), GV_OK);
    struct tap    tap = { compare, v };
    struct tensor logits = gv_scratch(&v->c.run, GV_F32, 2, DIMS(1, v->vlm->vocabulary));
    v->c.run.tap = &tap;
    v->side = name;
    v->compared = 0;
    gv_vlm_prefill(&v->c.run, v->vlm, &s, &p.prompt, logits);
    assert_string_equal(v->c.run.err.text, "");
    assert_int_equal(v->compared, 5);
    v->c.run.tap = NULL;
    for (int64_t i = 0; exact && i < n; i++) {
        int32_t id = gv_text_sampler_next(&choose, host_logits(v, logits, host));
        if (id != (int32_t)want[i])
            fail_msg("%s: token %d is %d, expected %d", name, (int)i, id, (int)want[i]);
        gv_vlm_step(&v->c.run, v->vlm, &s, id, logits);
    }
    gv_text_sampler_close(&choose);
    gv_lm_state_close(&s.lm);
}

static void captions(const char *model, const char *precision, const char *const *names)
{
    struct vision_case v;
    vision_open(&v, model, precision);
    for (; *names; names++)
        caption(&v, *names, case_is_f32(&v.c));
    vision_close(&v);
}

static void decoder_and_greedy_text_equal_transformers(void **state)
{
    (void)state;
    captions("qwen2_5_vl", "f32", (const char *const[]){ "text", "picture", "two", "video", NULL });
    captions("qwen2_vl", "f32", (const char *const[]){ "picture", "two", "video", NULL });
}
static void tied_embeddings_equal_transformers(void **state)
{
    (void)state;
    captions("qwen2_5_vl_tied", "f32", (const char *const[]){ "picture", NULL });
}
static void heads_of_80_and_128_equal_transformers(void **state)
{
    (void)state;
    captions("qwen2_5_vl_hd128", "f32", (const char *const[]){ "picture", "two", NULL });
    captions("qwen2_5_vl_hd128", "bf16", (const char *const[]){ "picture", "two", NULL });
}
static void bf16_decoder_is_as_good_as_transformers_bf16(void **state)
{
    (void)state;
    captions("qwen2_5_vl", "bf16", (const char *const[]){ "text", "picture", "two", "video", NULL });
    captions("qwen2_vl", "bf16", (const char *const[]){ "picture", "two", "video", NULL });
    captions("qwen2_5_vl_tied", "bf16", (const char *const[]){ "picture", NULL });
}

/* Newer saves call the parts model.visual.* and model.language_model.*; the numbers are the same, so are the logits. */
static void rename_parts(const char *folder)
{
    struct tensor_file st;
    struct error       e = { 0 };
    char               path[512];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(gv_tensor_file_open(&st, path, &gv_file_safetensors, &e), GV_OK);
    struct st_entry *t = calloc((size_t)st.n, sizeof *t);
    for (int i = 0; i < st.n; i++) {
        const char *name = st.entry[i].name;
        bool        body = !strncmp(name, "model.", 6), tower = !strncmp(name, "visual.", 7);
        t[i] = st.entry[i];
        t[i].name = malloc(strlen(name) + 32);
        sprintf(t[i].name, "%s%s",
                body    ? "model.language_model."
                : tower ? "model.visual."
                        : "",
                name + (body    ? 6
                        : tower ? 7
                                : 0));
    }
    snprintf(path, sizeof path, "%s/renamed", folder);
    assert_int_equal(gv_safetensors_write(path, t, st.n, &e), GV_OK);
    for (int i = 0; i < st.n; i++)
        free(t[i].name);
    free(t);
    gv_tensor_file_close(&st);
    char to[512];
    snprintf(to, sizeof to, "%s/model.safetensors", folder);
    assert_int_equal(rename(path, to), 0);
}

static void newer_names_of_tensors_are_read(void **state)
{
    (void)state;
    struct vision_case v;
    vision_open(&v, "qwen2_5_vl", "f32");
    v.vlm->model->close(v.vlm);
    rename_parts(v.c.folder);
    assert_int_equal(gv_vlm_open(&v.vlm, v.c.folder, v.c.device, v.c.run.compute, &v.c.error), GV_OK);
    assert_int_equal(gv_weights_pin(v.vlm->vision, v.c.device, false, &v.c.error), GV_OK);
    assert_int_equal(gv_weights_pin(v.vlm->decoder, v.c.device, false, &v.c.error), GV_OK);
    caption(&v, "picture", true);
    vision_close(&v);
}

/* A prompt in pieces, and its last tokens one by one, give what one prefill gives. */
static void prompt_may_come_in_pieces(void **state)
{
    (void)state;
    struct vision_case   v;
    struct vision_prompt p;
    struct vlm_state     whole = { 0 }, pieces = { 0 };
    float                a[1024], b[1024];
    vision_open(&v, "qwen2_5_vl", "f32");
    vision_prompt_open(&v, &p, "picture", true);
    struct tensor logits = gv_scratch(&v.c.run, GV_F32, 2, DIMS(1, v.vlm->vocabulary));
    assert_int_equal(gv_lm_state_open(&whole.lm, v.c.device, p.prompt.n, &v.c.error), GV_OK);
    assert_int_equal(gv_lm_state_open(&pieces.lm, v.c.device, p.prompt.n + 9, &v.c.error), GV_OK);
    gv_vlm_prefill(&v.c.run, v.vlm, &whole, &p.prompt, logits);
    host_logits(&v, logits, a);
    struct vlm_prompt first = p.prompt;
    first.n -= 2;
    gv_vlm_prefill(&v.c.run, v.vlm, &pieces, &first, logits);
    gv_vlm_step(&v.c.run, v.vlm, &pieces, p.ids[first.n], logits);
    gv_vlm_step(&v.c.run, v.vlm, &pieces, p.ids[first.n + 1], logits);
    assert_true(relative_error(host_logits(&v, logits, b), a, 1024) < 1e-5);
    assert_int_equal(pieces.next, whole.next);
    gv_vlm_step(&v.c.run, v.vlm, &whole, 5, logits); /* no room */
    assert_int_equal(v.c.run.err.code, GV_ERR_INTERNAL);
    gv_lm_state_close(&whole.lm);
    gv_lm_state_close(&pieces.lm);
    vision_close(&v);
}

/* ---- recycled keys ---- */

/* Greedy text with recycled keys: the tokens, and the share that these held; the last logits in host. */
static double recycled(struct vision_case *v, int64_t keep, int64_t every, int32_t tokens[64], float host[1024])
{
    struct vision_prompt p;
    struct vlm_state     s = { 0 };
    struct mark          mark = arena_mark(&v->c.run.scratch);
    vision_prompt_open(v, &p, "two", true);
    struct tensor logits = gv_scratch(&v->c.run, GV_F32, 2, DIMS(1, v->vlm->vocabulary));
    assert_int_equal(gv_lm_state_open(&s.lm, v->c.device, p.prompt.n + 64, &v->c.error), GV_OK);
    assert_int_equal(gv_recycle_open(&s.lm.recycle, keep, every, 3, &v->c.error), GV_OK);
    gv_vlm_prefill(&v->c.run, v->vlm, &s, &p.prompt, logits);
    for (int i = 0; i < 64; i++) {
        host_logits(v, logits, host);
        tokens[i] = 0;
        for (int k = 1; k < 1024; k++)
            tokens[i] = host[k] > host[tokens[i]] ? k : tokens[i];
        gv_vlm_step(&v->c.run, v->vlm, &s, tokens[i], logits);
    }
    host_logits(v, logits, host);
    const double share = s.lm.recycle.checks > 0 ? s.lm.recycle.mass / s.lm.recycle.checks : 0;
    gv_lm_state_close(&s.lm);
    arena_release(&v->c.run.scratch, mark);
    return share;
}

static void recycling_all_keys_or_at_no_step_is_dense(void **state)
{
    (void)state;
    struct vision_case v;
    int32_t            dense[64], tokens[64];
    float              want[1024], host[1024];
    vision_open(&v, "qwen2_5_vl", "f32");
    recycled(&v, 0, 1, dense, want);
    recycled(&v, 8, 1, tokens, host); /* every step reads all */
    assert_memory_equal(dense, tokens, sizeof dense);
    assert_memory_equal(want, host, sizeof want);
    assert_true(fabs(recycled(&v, 500, 9, tokens, host) - 1) < 1e-9); /* nothing is left out */
    assert_memory_equal(dense, tokens, sizeof dense);
    assert_true(relative_error(host, want, 1024) < 1e-5);
    const double few = recycled(&v, 4, 9, tokens, host), more = recycled(&v, 24, 9, tokens, host);
    assert_true(few > 0 && few < more && more < 1);
    vision_close(&v);
}

/* The keys that one query reads most, mean over heads, with grouped keys. */
static void recycled_keys_are_those_of_brute_force(void **state)
{
    (void)state;
    enum { N = 90, A = 4, KV = 2, D = 16, KEEP = 11 };
    struct vision_case v;
    struct cache      *cache;
    struct recycle     c;
    float              q[A * D], k[N * KV * D], got[KEEP * KV * D];
    double             share[N] = { 0 };
    vision_open(&v, "qwen2_5_vl", "f32");
    fixture_fill(q, "recycle.q", A * D, 2, 0);
    fixture_fill(k, "recycle.k", N * KV * D, 2, 0);
    for (int a = 0; a < A; a++) {
        double p[N], sum = 0;
        for (int i = 0; i < N; i++) {
            double s = 0;
            for (int d = 0; d < D; d++)
                s += (double)q[a * D + d] * (double)k[(i * KV + a / 2) * D + d];
            sum += p[i] = exp(s / sqrt(D));
        }
        for (int i = 0; i < N; i++)
            share[i] += p[i] / sum;
    }
    assert_int_equal(gv_cache_open(&cache, v.c.device, SIZE_MAX, &v.c.error), GV_OK);
    assert_int_equal(gv_recycle_open(&c, KEEP, 5, 1, &v.c.error), GV_OK);
    struct tensor tk = gv_scratch_from(&v.c.run, GV_F32, 4, DIMS(1, N, KV, D), k);
    gv_recycle_choose(&v.c.run, &c,
                      &(struct recycle_read){
                          .cache = cache, .q = gv_scratch_from(&v.c.run, GV_F32, 4, DIMS(1, 1, A, D), q), .k = tk, .v = tk });
    assert_string_equal(v.c.run.err.text, "");
    gv_download(&v.c.run, got, gv_cache_get(cache, (struct cache_key){ 0, 1, KEPT_K }));
    for (int i = 0; i < KEEP; i++) {
        int above = 0;
        for (int j = 0; j < N; j++)
            above += share[j] > share[c.chosen[i]];
        assert_true(above < KEEP);
        assert_true(i == 0 || c.chosen[i] > c.chosen[i - 1]);
        assert_memory_equal(got + i * KV * D, k + c.chosen[i] * KV * D, KV * D * sizeof *k);
    }
    gv_recycle_close(&c);
    gv_cache_close(&cache);
    vision_close(&v);
}

/* ---- pages ---- */

enum { PN = 64 * 7 + 21, PA = 4, PKV = 2, PD = 16 };

/* Chosen by hand: which pages of a group of heads hold the largest bounds, the first and the newest always among them. */
static void pages_of_brute_force(const float *q, const float *k, int keep, bool chosen[PKV][8])
{
    for (int h = 0; h < PKV; h++) {
        double bound[8] = { 0 };
        for (int page = 1; page < 7; page++) {
            bound[page] = -INFINITY;
            for (int a = 2 * h; a < 2 * h + 2; a++)
                for (int part = 0; part < 4; part++) {
                    double sum = 0;
                    for (int d = 0; d < PD; d++) {
                        double least = INFINITY, most = -INFINITY;
                        for (int i = 0; i < 16; i++) {
                            const double key = (double)k[((page * 64 + part * 16 + i) * PKV + h) * PD + d];
                            least = fmin(least, key);
                            most = fmax(most, key);
                        }
                        sum += fmax((double)q[a * PD + d] * least, (double)q[a * PD + d] * most);
                    }
                    bound[page] = fmax(bound[page], sum);
                }
        }
        for (int page = 0; page < 8; page++) {
            int above = 0;
            for (int other = 1; other < 7; other++)
                above += bound[other] > bound[page];
            chosen[h][page] = page == 0 || page == 7 || above < keep - 2;
        }
    }
}

static void pages_are_those_of_the_largest_bounds(void **state)
{
    (void)state;
    static float       q[PA * PD], k[PN * PKV * PD];
    struct vision_case v;
    vision_open(&v, "qwen2_5_vl", "f32");
    fixture_fill(q, "pages.q", PA * PD, 2, 0);
    fixture_fill(k, "pages.k", PN * PKV * PD, 2, 0);
    struct tensor          tk = gv_scratch_from(&v.c.run, GV_F32, 4, DIMS(1, PN, PKV, PD), k);
    const struct page_read a = { 0, gv_scratch_from(&v.c.run, GV_F32, 4, DIMS(1, 1, PA, PD), q), tk, tk };
    for (int keep = 2; keep < 9; keep++) {
        bool             want[PKV][8];
        struct pages     p;
        struct attn_plan plan;
        const int64_t    n = PN;
        assert_int_equal(gv_pages_open(&p, 64 * keep + 63, 4, 1, &v.c.error), GV_OK);
        gv_pages_plan(&v.c.run, &p, &a, &plan);
        assert_string_equal(v.c.run.err.text, "");
        assert_int_equal(gv_plan_check(&plan, 1, 1, &n, &v.c.error), GV_OK);
        pages_of_brute_force(q, k, keep, want);
        for (uint32_t h = 0; h < PKV; h++) {
            bool got[8] = { 0 };
            for (uint32_t i = plan.row[h]; i < plan.row[h + 1]; i++)
                if (plan.entries[i] != GV_KV_PADDING)
                    got[kv_start(plan.entries[i]) / 64] = true;
            assert_memory_equal(got, want[h], sizeof got);
        }
        assert_true(keep < 8 ? p.mass > 0 && p.mass < 1 : fabs(p.mass - 1) < 1e-6);
        gv_plan_free(&plan);
        gv_pages_close(&p);
    }
    vision_close(&v);
}

/* No key of a part has a larger product than its bound; of one key they are equal. */
static void a_bound_is_never_passed(void **state)
{
    (void)state;
    enum { D = 24 };
    for (int trial = 0; trial < 200; trial++) {
        char  name[32];
        float q[D], key[16][D], low[D], high[D];
        snprintf(name, sizeof name, "bound.%d", trial);
        fixture_fill(q, name, D, 3, 0);
        fixture_fill(key[0], name + 1, 16 * D, 3, 0);
        for (int n = 1; n <= 16; n += 5) {
            double most = -INFINITY;
            for (int d = 0; d < D; d++) {
                q[d] = rintf(q[d] * 4);
                low[d] = INFINITY, high[d] = -INFINITY;
                for (int i = 0; i < n; i++) {
                    key[i][d] = rintf(key[i][d] * 4); /* whole numbers: sums are exact */
                    low[d] = fminf(low[d], key[i][d]);
                    high[d] = fmaxf(high[d], key[i][d]);
                }
            }
            for (int i = 0; i < n; i++) {
                double product = 0;
                for (int d = 0; d < D; d++)
                    product += (double)q[d] * (double)key[i][d];
                most = fmax(most, product);
            }
            const double bound = gv_page_bound(q, low, high, D);
            assert_true(n == 1 ? bound == most : bound >= most);
        }
    }
}

/* Greedy text of 200 tokens behind a prompt, so that there are pages to choose among: ids and the last logits. */
static double paged(struct vision_case *v, int64_t keep, int64_t every, int32_t tokens[200], float host[1024])
{
    struct vision_prompt p;
    struct vlm_state     s = { 0 };
    struct mark          mark = arena_mark(&v->c.run.scratch);
    vision_prompt_open(v, &p, "two", true);
    struct tensor logits = gv_scratch(&v->c.run, GV_F32, 2, DIMS(1, v->vlm->vocabulary));
    assert_int_equal(gv_lm_state_open(&s.lm, v->c.device, p.prompt.n + 200, &v->c.error), GV_OK);
    gv_vlm_prefill(&v->c.run, v->vlm, &s, &p.prompt, logits);
    assert_int_equal(gv_pages_open(&s.lm.pages, keep, every, 3, &v->c.error), GV_OK);
    for (int i = 0; i < 200; i++) {
        host_logits(v, logits, host);
        tokens[i] = 0;
        for (int k = 1; k < 1024; k++)
            tokens[i] = host[k] > host[tokens[i]] ? k : tokens[i];
        gv_vlm_step(&v->c.run, v->vlm, &s, tokens[i], logits);
    }
    host_logits(v, logits, host);
    const double read = s.lm.pages.all > 0 ? s.lm.pages.read / s.lm.pages.all : 1;
    gv_lm_state_close(&s.lm);
    arena_release(&v->c.run.scratch, mark);
    return read;
}

static void pages_for_all_keys_change_no_bit(void **state)
{
    (void)state;
    static const char *const precision[] = { "f32", "bf16" };
    for (int i = 0; i < 2; i++) {
        struct vision_case v;
        int32_t            dense[200], tokens[200];
        float              want[1024], host[1024];
        vision_open(&v, "qwen2_5_vl", precision[i]);
        paged(&v, 0, 1, dense, want);
        assert_true(paged(&v, 4096, 4, tokens, host) == 1);
        assert_memory_equal(dense, tokens, sizeof dense);
        assert_memory_equal(want, host, sizeof want);
        const double few = paged(&v, 128, 4, tokens, host), more = paged(&v, 192, 1, tokens, host);
        assert_true(few < more && more < 1);
        vision_close(&v);
    }
}

/* ---- the state that a calibration compares ---- */

static void keep_state(void *user, struct run *r, const char *name, struct tensor x)
{
    if (!strcmp(name, "decoder.state"))
        gv_download(r, user, x);
}

/* With tied embeddings logits are the state's products with their rows. */
static void the_tapped_state_is_what_logits_are_made_of(void **state)
{
    (void)state;
    struct vision_case   v;
    struct vision_prompt p;
    struct vlm_state     s = { 0 };
    float                x[64], logits[1024], row[64];
    vision_open(&v, "qwen2_5_vl_tied", "f32");
    vision_prompt_open(&v, &p, "picture", true);
    assert_int_equal(v.vlm->width, 64);
    const struct tap tap = { keep_state, x };
    struct tensor    out = gv_scratch(&v.c.run, GV_F32, 2, DIMS(1, v.vlm->vocabulary));
    struct tensor    e = gv_scratch(&v.c.run, GV_F32, 2, DIMS(1, 64));
    assert_int_equal(gv_lm_state_open(&s.lm, v.c.device, p.prompt.n, &v.c.error), GV_OK);
    v.c.run.tap = &tap;
    gv_vlm_prefill(&v.c.run, v.vlm, &s, &p.prompt, out);
    v.c.run.tap = NULL;
    host_logits(&v, out, logits);
    double most = 0, off = 0;
    for (int32_t id = 0; id < v.vlm->vocabulary; id++) {
        double sum = 0;
        gv_lm_embed(&v.c.run, v.vlm->lm, e, &id, 1);
        host_logits(&v, e, row);
        for (int k = 0; k < 64; k++)
            sum += (double)x[k] * (double)row[k];
        most = fmax(most, fabs(sum));
        off = fmax(off, fabs(sum - (double)logits[id]));
    }
    assert_true(most > 0 && off < 1e-5 * most);
    gv_lm_state_close(&s.lm);
    vision_close(&v);
}

/* ---- traceback ---- */

/* What the taps saw of the last row: its queries, and all keys, of every layer. */
struct captured {
    int     layers, keys;
    float  *q[8], *k[8];
    int64_t heads, kv_heads, head;
};

static void capture(void *user, struct run *r, const char *name, struct tensor x)
{
    struct captured *c = user;
    const char      *last = strrchr(name, '.');
    (void)r;
    if (strncmp(name, "decoder.layers.", 15) || !last || (strcmp(last, ".q") && strcmp(last, ".k")))
        return;
    float *all = case_download(r, x);
    if (last[1] == 'q') {
        c->q[c->layers] = malloc((size_t)x.dim[1] * sizeof **c->q);
        memcpy(c->q[c->layers], all + (x.dim[0] - 1) * x.dim[1], (size_t)x.dim[1] * sizeof **c->q);
        c->heads = x.dim[1];
        free(all);
        return;
    }
    c->keys = (int)x.dim[1];
    c->kv_heads = x.dim[2];
    c->head = x.dim[3];
    c->k[c->layers++] = all;
}

static int downwards(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Plain loops over captured queries and keys: for each subset the softmax over it and the text, for each token the mean of its
 * strongest looks, and of these the mean over its subsets. */
static void brute_force(double *heat, const struct captured *c, const struct trace *t)
{
    const int64_t heads = c->heads / c->head, group = heads / c->kv_heads, looks = heads * c->layers;
    const int     best = t->opts.best < looks ? t->opts.best : (int)looks;
    double       *seen = malloc((size_t)(t->n * looks) * sizeof *seen);
    int          *times = calloc((size_t)t->n, sizeof *times);
    memset(heat, 0, (size_t)t->n * sizeof *heat);
    for (int s = 0; s < t->opts.subsets; s++) {
        for (int l = 0; l < c->layers; l++)
            for (int64_t h = 0; h < heads; h++) {
                double p[256], sum = 0;
                for (int i = 0; i < c->keys; i++) {
                    bool picture = false, in = false;
                    for (int64_t j = 0; j < t->n; j++)
                        if (t->at[j] == i)
                            picture = true, in = t->in[s * t->n + j];
                    p[i] = 0;
                    for (int64_t d = 0; d < c->head; d++)
                        p[i] += (double)c->q[l][h * c->head + d] * (double)c->k[l][(i * c->kv_heads + h / group) * c->head + d];
                    sum += p[i] = picture && !in ? 0 : exp(p[i] / sqrt((double)c->head));
                }
                for (int64_t j = 0; j < t->n; j++)
                    seen[j * looks + l * heads + h] = p[t->at[j]] / sum;
            }
        for (int64_t j = 0; j < t->n; j++) {
            qsort(seen + j * looks, (size_t)looks, sizeof *seen, downwards);
            times[j] += t->in[s * t->n + j];
            for (int b = 0; b < best && t->in[s * t->n + j]; b++)
                heat[j] += seen[j * looks + b] / best;
        }
    }
    for (int64_t j = 0; j < t->n; j++)
        heat[j] /= times[j];
    free(seen);
    free(times);
}

static void traced(const struct trace_opts *o)
{
    struct vision_case   v;
    struct vision_prompt p;
    struct vlm_state     s = { 0 };
    struct trace         t;
    bool                 picture[128];
    float                plain[1024], watched[1024];
    vision_open(&v, "qwen2_5_vl", "f32");
    vision_prompt_open(&v, &p, "two", true);
    struct tensor logits = gv_scratch(&v.c.run, GV_F32, 2, DIMS(1, v.vlm->vocabulary));
    for (int64_t i = 0; i < p.prompt.n; i++)
        picture[i] = p.ids[i] == v.vlm->image_id;
    assert_int_equal(gv_lm_state_open(&s.lm, v.c.device, p.prompt.n + 2, &v.c.error), GV_OK);
    gv_vlm_prefill(&v.c.run, v.vlm, &s, &p.prompt, logits);
    gv_vlm_step(&v.c.run, v.vlm, &s, 5, logits);
    host_logits(&v, logits, plain);
    gv_lm_state_close(&s.lm);
    assert_int_equal(gv_lm_state_open(&s.lm, v.c.device, p.prompt.n + 2, &v.c.error), GV_OK);
    assert_int_equal(gv_trace_open(&t, o, picture, p.prompt.n, 2, &v.c.error), GV_OK);
    assert_int_equal(t.n, p.media[0].tokens + p.media[1].tokens);
    s.lm.trace = &t;
    for (int row = 0; row < 2; row++) {
        struct captured c = { 0 };
        struct tap      tap = { capture, &c };
        double          want[128];
        v.c.run.tap = &tap;
        if (row)
            gv_vlm_step(&v.c.run, v.vlm, &s, 5, logits);
        else
            gv_vlm_prefill(&v.c.run, v.vlm, &s, &p.prompt, logits);
        assert_string_equal(v.c.run.err.text, "");
        assert_int_equal(t.rows, row + 1);
        assert_int_equal(c.keys, p.prompt.n + row);
        brute_force(want, &c, &t);
        for (int64_t i = 0; i < t.n; i++) /* f32 scores of up to 10, then exp: 1e-5 of the value */
            assert_true(want[i] > 0 && fabs((double)t.heat[row * t.n + i] / want[i] - 1) < 2e-5);
        for (int l = 0; l < c.layers; l++)
            free(c.q[l]), free(c.k[l]);
    }
    v.c.run.tap = NULL;
    assert_memory_equal(plain, host_logits(&v, logits, watched), sizeof plain);
    gv_trace_close(&t);
    gv_lm_state_close(&s.lm);
    vision_close(&v);
}

static void a_trace_is_that_of_brute_force_and_changes_nothing(void **state)
{
    (void)state;
    traced(&(struct trace_opts){ .best = 1000, .share = 1, .subsets = 1 }); /* the mean of all attention */
    traced(&(struct trace_opts){ .best = 3, .share = 0.4, .subsets = 7 });
    traced(&(struct trace_opts){ .best = 2, .share = 0.05, .subsets = 2 }); /* most tokens are in no subset but the first */
}

/* ---- PAINT ---- */

/* Plain loops: a layer's attention of the last row, its picture scores raised. */
static void painted_by_hand(double *o, const struct captured *c, const float *values, int layer, const struct paint *p)
{
    const int64_t heads = c->heads / c->head, group = heads / c->kv_heads;
    for (int64_t h = 0; h < heads; h++) {
        double w[256], sum = 0;
        for (int i = 0; i < c->keys; i++) {
            double s = 0;
            for (int64_t d = 0; d < c->head; d++)
                s += (double)c->q[layer][h * c->head + d] * (double)c->k[layer][(i * c->kv_heads + h / group) * c->head + d];
            s /= sqrt((double)c->head);
            for (int64_t j = 0; j < p->n; j++)
                if (p->at[j] == i)
                    s += (double)p->raise[j] * fabs(s);
            sum += w[i] = exp(s);
        }
        for (int64_t d = 0; d < c->head; d++) {
            o[h * c->head + d] = 0;
            for (int i = 0; i < c->keys; i++)
                o[h * c->head + d] += w[i] / sum * (double)values[(i * c->kv_heads + h / group) * c->head + d];
        }
    }
}

static void raised_scores_are_those_of_brute_force(void **state)
{
    (void)state;
    struct vision_case v;
    enum { N = 37, A = 6, G = 2, W = 32 };
    float  q[A * W], k[N * G * W], x[N * G * W], got[A * W];
    bool   picture[N];
    double want[A * W];
    vision_open(&v, "qwen2_5_vl", "f32");
    fixture_fill(q, "q", A * W, 2, 0);
    fixture_fill(k, "k", N * G * W, 1, 0);
    fixture_fill(x, "v", N * G * W, 1, 0);
    for (int i = 0; i < N; i++)
        picture[i] = i > 3 && i < 30 && i % 7;
    struct paint p;
    struct run  *r = &v.c.run;
    assert_int_equal(gv_paint_open(&p, picture, N, &v.c.error), GV_OK);
    for (int on = 0; on < 2; on++) {
        for (int64_t i = 0; i < p.n; i++)
            p.raise[i] = on ? (float)(i % 3) * 0.35F : 0;
        struct paint_row      a = { gv_scratch_from(r, GV_F32, 4, DIMS(1, 1, A, W), q),
                                    gv_scratch_from(r, GV_F32, 4, DIMS(1, N, G, W), k),
                                    gv_scratch_from(r, GV_F32, 4, DIMS(1, N, G, W), x), gv_scratch(r, GV_F32, 4, DIMS(1, 1, A, W)) };
        const struct captured c = { .layers = 1, .keys = N, .q = { q }, .k = { k }, .heads = A * W, .kv_heads = G, .head = W };
        gv_paint_row(r, &p, &a);
        gv_download(r, got, a.o);
        assert_string_equal(r->err.text, "");
        painted_by_hand(want, &c, x, 0, &p);
        for (int i = 0; i < A * W; i++) /* f32 scores of up to 10, then exp */
            assert_true(fabs((double)got[i] - want[i]) < 2e-5);
    }
    gv_paint_close(&p);
    vision_close(&v);
}

/* Scores by hand: 40 of them, two far above, and a newline between. */
static void local_and_standing_out_tokens_are_told_apart(void **state)
{
    (void)state;
    float                   score[41], raise[41];
    struct error            e = { 0 };
    const struct paint_opts o = { .local = 0.7, .summary = 0.4, .share = 0.25 };
    int                     n[3] = { 0 };
    for (int i = 0; i < 41; i++)
        score[i] = i == 20 ? 1 : 0.01F + 0.0001F * (float)((i * 7) % 41);
    score[5] = 0.3F;
    score[30] = 0.2F;
    assert_int_equal(gv_paint_raise(raise, &o, score, 41, &e), GV_OK);
    float edge = 1; /* least of the ten largest that are no newline */
    for (int i = 0; i < 41; i++) {
        int above = 0;
        for (int j = 0; j < 41; j++)
            above += j != 20 && score[j] > score[i];
        edge = i != 20 && above < 10 && score[i] < edge ? score[i] : edge;
    }
    for (int i = 0; i < 41; i++) {
        const float want = i == 20 ? 0 : i == 5 || i == 30 ? 0.4F : score[i] >= edge ? 0.7F : 0;
        assert_true(raise[i] == want);
        n[want == 0 ? 0 : want == 0.4F ? 1 : 2]++;
    }
    assert_true(n[1] == 2 && n[2] == 8);
    assert_true(gv_paint_first_layer(32) == 2 && gv_paint_first_layer(28) == 2 && gv_paint_first_layer(3) == 0);
}

/* Nothing raised: the row is attended to again and stays what it was (f32, other kernels' order of sums); something: other logits, and
 * in the prompt no key of the first layers but the last row's differs. */
static void painting_changes_the_last_row_alone(void **state)
{
    (void)state;
    struct vision_case   v;
    struct vision_prompt p;
    bool                 picture[128];
    float                logits[3][1024];
    struct captured      seen[3];
    vision_open(&v, "qwen2_5_vl", "f32");
    vision_prompt_open(&v, &p, "two", true);
    struct tensor out = gv_scratch(&v.c.run, GV_F32, 2, DIMS(1, v.vlm->vocabulary));
    for (int64_t i = 0; i < p.prompt.n; i++)
        picture[i] = p.ids[i] == v.vlm->image_id;
    for (int pass = 0; pass < 3; pass++) {
        struct vlm_state s = { 0 };
        struct paint     paint;
        seen[pass] = (struct captured){ 0 };
        struct tap tap = { capture, &seen[pass] };
        assert_int_equal(gv_lm_state_open(&s.lm, v.c.device, p.prompt.n + 1, &v.c.error), GV_OK);
        assert_int_equal(gv_paint_open(&paint, picture, p.prompt.n, &v.c.error), GV_OK);
        for (int64_t i = 0; i < paint.n; i++)
            paint.raise[i] = pass == 2 ? 0.7F : 0;
        s.lm.paint = pass ? &paint : NULL;
        v.c.run.tap = &tap;
        gv_vlm_prefill(&v.c.run, v.vlm, &s, &p.prompt, out);
        v.c.run.tap = NULL;
        host_logits(&v, out, logits[pass]);
        gv_paint_close(&paint);
        gv_lm_state_close(&s.lm);
    }
    assert_true(relative_error(logits[1], logits[0], 1024) < 1e-5);
    assert_true(relative_error(logits[2], logits[0], 1024) > 1e-3);
    for (int l = 0; l < seen[0].layers; l++)
        assert_memory_equal(seen[0].k[l], seen[2].k[l],
                            (size_t)((seen[0].keys - 1) * seen[0].kv_heads * seen[0].head) * sizeof(float));
    for (int pass = 0; pass < 3; pass++)
        for (int l = 0; l < seen[pass].layers; l++)
            free(seen[pass].q[l]), free(seen[pass].k[l]);
    vision_close(&v);
}

/* ---- DARA ---- */

/* A prefill and a step; logits of the step. */
static void with_factor(struct vision_case *v, const struct vlm_prompt *p, double factor, int layers, struct captured *c,
                        float *logits)
{
    struct vlm_state s = { 0 };
    struct tap       tap = { capture, c };
    struct mark      mark = arena_mark(&v->c.run.scratch);
    struct tensor    out = gv_scratch(&v->c.run, GV_F32, 2, DIMS(1, v->vlm->vocabulary));
    *c = (struct captured){ 0 };
    assert_int_equal(gv_lm_state_open(&s.lm, v->c.device, p->n + 1, &v->c.error), GV_OK);
    s.lm.factor = factor;
    s.lm.factor_layers = layers;
    gv_vlm_prefill(&v->c.run, v->vlm, &s, p, out);
    v->c.run.tap = &tap;
    gv_vlm_step(&v->c.run, v->vlm, &s, 5, out);
    v->c.run.tap = NULL;
    host_logits(v, out, logits);
    gv_lm_state_close(&s.lm);
    arena_release(&v->c.run.scratch, mark);
}

/* A layer's keys when one layer more has a factor: 2 is exact, so pictures' are twice as large to the bit and text's the same. */
static void factors_double_the_keys_of_pictures(struct vision_case *v, const struct vlm_prompt *p)
{
    struct captured a, b;
    float           before[1024], after[1024];
    for (int l = 0; l < 3; l++) {
        with_factor(v, p, 2, l, &a, before);
        with_factor(v, p, 2, l + 1, &b, after);
        assert_int_equal(a.keys, b.keys);
        int64_t at = 0, scaled = 0;
        for (int64_t i = 0; i < p->n; i++) {
            if (p->depth && p->depth[i] < l) /* gone before it; drops lie before layers 1 and 2 */
                continue;
            const float scale = p->ids[i] == v->vlm->image_id ? 2 : 1;
            for (int64_t d = 0; d < a.kv_heads * a.head; d++)
                assert_true(b.k[l][at * a.kv_heads * a.head + d] == scale * a.k[l][at * a.kv_heads * a.head + d]);
            at++;
            scaled += scale > 1;
        }
        assert_true(scaled > 0 && relative_error(after, before, 1024) > 1e-4);
        for (int i = 0; i < 3; i++)
            free(a.q[i]), free(a.k[i]), free(b.q[i]), free(b.k[i]);
    }
}

static void a_factor_is_on_the_keys_of_pictures_and_one_is_none(void **state)
{
    (void)state;
    struct vision_case   v;
    struct vision_prompt p;
    struct captured      c;
    struct vlm_pruned    fewer;
    float                plain[1024], one[1024], score[2][64];
    vision_open(&v, "qwen2_5_vl", "f32");
    vision_prompt_open(&v, &p, "two", true);
    for (int i = 0; i < 2; i++) {
        with_factor(&v, &p.prompt, i, 3 * i, &c, i ? one : plain);
        for (int l = 0; l < 3; l++)
            free(c.q[l]), free(c.k[l]);
    }
    assert_memory_equal(plain, one, sizeof plain);
    factors_double_the_keys_of_pictures(&v, &p.prompt);
    const float *const      scores[] = { score[0], score[1] };
    const struct prune_opts o = { .keep = { 0.9, 0.6, 0.5 }, .cell = 1000 };
    fixture_fill(score[0], "first", 64, 0.5F, 0.5F);
    fixture_fill(score[1], "second", 64, 0.5F, 0.5F);
    gv_vlm_prune(&v.c.run, v.vlm, &fewer, &p.prompt, &o, scores);
    assert_string_equal(v.c.run.err.text, "");
    factors_double_the_keys_of_pictures(&v, &fewer.prompt);
    gv_vlm_pruned_free(&fewer);
    vision_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tower_equals_transformers_over_whole_and_partial_windows),
        cmocka_unit_test(bf16_tower_is_as_good_as_transformers_bf16),
        cmocka_unit_test(positions_equal_transformers_and_keep_fractions_of_seconds),
        cmocka_unit_test(text_behind_a_long_clip_stands_above_its_last_second),
        cmocka_unit_test(placeholders_that_do_not_match_the_pictures_are_refused),
        cmocka_unit_test(decoder_and_greedy_text_equal_transformers),
        cmocka_unit_test(tied_embeddings_equal_transformers),
        cmocka_unit_test(heads_of_80_and_128_equal_transformers),
        cmocka_unit_test(newer_names_of_tensors_are_read),
        cmocka_unit_test(bf16_decoder_is_as_good_as_transformers_bf16),
        cmocka_unit_test(prompt_may_come_in_pieces),
        cmocka_unit_test(recycling_all_keys_or_at_no_step_is_dense),
        cmocka_unit_test(recycled_keys_are_those_of_brute_force),
        cmocka_unit_test(pages_are_those_of_the_largest_bounds),
        cmocka_unit_test(a_bound_is_never_passed),
        cmocka_unit_test(pages_for_all_keys_change_no_bit),
        cmocka_unit_test(the_tapped_state_is_what_logits_are_made_of),
        cmocka_unit_test(a_trace_is_that_of_brute_force_and_changes_nothing),
        cmocka_unit_test(raised_scores_are_those_of_brute_force),
        cmocka_unit_test(local_and_standing_out_tokens_are_told_apart),
        cmocka_unit_test(painting_changes_the_last_row_alone),
        cmocka_unit_test(a_factor_is_on_the_keys_of_pictures_and_one_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
