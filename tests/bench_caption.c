/* bench_caption model DIR [rounds [tokens...]]  prefill of so many embedded tokens (1024 if none is given), decoding behind the first
 *                                               number of them, and the tower: 1,024 patches, 12,288 on a GPU
 * bench_caption prune DIR [rounds [side]]       prefill of side² picture tokens (78² = 6,084 if it is not given) and 32 words, whole and with
 *                                               VFlowOpt's 10%: to the first token, bytes of keys and values, and 64 tokens of text
 * bench_caption clip DIR FILE [rounds]          the whole caption of a clip through the public API: the first, which loads the
 *                                               weights, and the median of the later ones
 *
 * On the device that GV_TEST_DEVICE names. DIR: a model's folder; tests/reference/bench_caption.py makes them with random weights and
 * times the same work in transformers. Prints medians, least and most, and rates. Not a test: machines differ. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "genvid.h"
#include "tests/device.h"
#include "vision/models.h"

enum { MAX_ROUNDS = 50, STEPS = 16, WORDS = 32, TEXT = 64 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_value);
    return t[n / 2];
}

static void check(gv_status status, const struct error *e)
{
    if (status || e->code) {
        fprintf(stderr, "bench_caption: %s\n", e->text);
        exit(1);
    }
}

struct bench {
    struct run  run;
    struct vlm *vlm;
    int         rounds;
};

/* Small normal numbers, as embeddings are. */
static struct tensor noise(struct run *r, int64_t n, int64_t d, float scale)
{
    struct tensor t = gv_scratch(r, GV_F32, 2, DIMS(n, d));
    gv_noise(r, reshape(t, 4, DIMS(1, 1, n, d)), &(struct noise_key){ .seed = 3 });
    gv_lincomb(r, t, 1, &(struct lincomb_term){ scale, t });
    return t;
}

static int32_t best(struct bench *b, struct tensor logits, float *host)
{
    int32_t at = 0;
    gv_download(&b->run, host, logits);
    check(b->run.err.code, &b->run.err);
    for (int32_t i = 1; i < b->vlm->vocabulary; i++)
        at = host[i] > host[at] ? i : at;
    return at;
}

static double decode(struct bench *b, struct vlm_state *s, struct tensor logits, float *host, int n)
{
    const double began = now();
    int32_t      id = 7;
    for (int i = 0; i < n; i++) {
        gv_vlm_step(&b->run, b->vlm, s, id, logits);
        id = best(b, logits, host);
    }
    return (now() - began) / n;
}

/* ---- model ---- */

static double prefill(struct bench *b, struct vlm_state *s, struct tensor kept, int64_t n, struct tensor logits)
{
    struct mark         mark = arena_mark(&b->run.scratch);
    struct token_place *place = malloc((size_t)n * sizeof *place);
    struct tensor       x = gv_scratch(&b->run, GV_F32, 2, DIMS(n, b->vlm->width));
    for (int64_t i = 0; i < n; i++)
        place[i] = (struct token_place){ (int32_t)i, (int32_t)i, (int32_t)i };
    gv_copy(&b->run, x, kept); /* the decoder works in place */
    gv_sync(&b->run);
    s->lm.length = 0;
    s->next = (int32_t)n;
    const double began = now();
    for (int64_t at = 0, m; at < n; at += m) {
        m = n - at < GV_PREFILL ? n - at : GV_PREFILL;
        gv_lm_forward(&b->run, b->vlm->lm, &s->lm, (struct lm_tokens){ slice(x, 0, at, m), place + at, NULL, NULL },
                      at + m == n ? logits : (struct tensor){ 0 });
    }
    gv_sync(&b->run);
    free(place);
    arena_release(&b->run.scratch, mark);
    return now() - began;
}

static void bench_decoder(struct bench *b, int64_t n, bool steps)
{
    struct run      *r = &b->run;
    struct mark      mark = arena_mark(&r->scratch);
    struct vlm_state s = { 0 };
    struct error     e = { 0 };
    double           t[MAX_ROUNDS];
    const int        layers = gv_lm_config(b->vlm->lm)->layers;
    struct tensor    x = noise(r, n, b->vlm->width, 0.02F), logits = gv_scratch(r, GV_F32, 2, DIMS(1, b->vlm->vocabulary));
    float           *host = malloc((size_t)b->vlm->vocabulary * sizeof *host);
    check(gv_lm_state_open(&s.lm, r->device, n + (b->rounds + 1) * STEPS, &e), &e);
    const double flops = r->flops;
    prefill(b, &s, x, n, logits);
    const double work = r->flops - flops;
    for (int i = 0; i < b->rounds; i++)
        t[i] = prefill(b, &s, x, n, logits);
    check(r->err.code, &r->err);
    const double middle = median(t, b->rounds);
    printf("genvid, %d layers, prefill of %lld tokens: %.4f s (%.4f to %.4f), %.0f GFLOP/s\n", layers, (long long)n, middle,
           t[0], t[b->rounds - 1], work / middle * 1e-9);
    if (steps) {
        decode(b, &s, logits, host, STEPS);
        for (int i = 0; i < b->rounds; i++)
            t[i] = decode(b, &s, logits, host, STEPS);
        const double one = median(t, b->rounds);
        printf("genvid, %d layers, decode behind %lld tokens: %.2f ms a token (%.2f to %.2f), %.2f tokens/s, %.1f GB/s of "
               "weights\n",
               layers, (long long)n, 1e3 * one, 1e3 * t[0], 1e3 * t[b->rounds - 1], 1 / one,
               ((double)gv_weights_bytes(b->vlm->decoder) - 2.0 * b->vlm->vocabulary * b->vlm->width) / one * 1e-9);
    }
    free(host);
    gv_lm_state_close(&s.lm);
    arena_release(&r->scratch, mark);
    fflush(stdout);
}

/* A picture of h · w patches. */
static struct vlm_media picture(const struct vlm *v, int h, int w)
{
    const int m = v->patch.merge;
    return (struct vlm_media){ .alone = true,
                               .grid = { 1, h, w },
                               .frames = 1,
                               .step_frames = 1,
                               .step_values = (int64_t)h * w * patch_values(&v->patch),
                               .tokens = (int64_t)h * w / (m * m),
                               .step_tokens = (int64_t)h * w / (m * m),
                               .lattice = { .row = w / m, .recycle = true } };
}

static void bench_tower(struct bench *b)
{
    struct run            *r = &b->run;
    const struct vlm_media m = test_on_cpu() ? picture(b->vlm, 32, 32) : picture(b->vlm, 128, 96);
    struct mark            mark = arena_mark(&r->scratch);
    double                 t[MAX_ROUNDS];
    float                 *values = malloc((size_t)m.step_values * sizeof *values);
    struct tensor          out = gv_scratch(r, GV_F32, 2, DIMS(m.tokens, b->vlm->width));
    gv_download(r, values, noise(r, (int64_t)m.grid.h * m.grid.w, patch_values(&b->vlm->patch), 1));
    for (int i = -1; i < b->rounds; i++) {
        const double began = now();
        b->vlm->model->encode(r, b->vlm, out, &m, (struct vlm_piece){ .steps = 1, .values = values });
        gv_sync(r);
        t[i < 0 ? 0 : i] = now() - began;
    }
    check(r->err.code, &r->err);
    const double middle = median(t, b->rounds);
    printf("genvid, the tower, %d patches: %.4f s (%.4f to %.4f)\n", m.grid.h * m.grid.w, middle, t[0], t[b->rounds - 1]);
    free(values);
    arena_release(&r->scratch, mark);
}

/* ---- prune ---- */

struct pruned_run {
    double first, text; /* seconds: to the logits of the first token; of TEXT tokens behind it */
    size_t kept;        /* bytes */
};

static struct pruned_run caption(struct bench *b, const struct vlm_prompt *p, struct tensor logits, float *host)
{
    struct vlm_state  s = { 0 };
    struct pruned_run out;
    struct error      e = { 0 };
    check(gv_lm_state_open(&s.lm, b->run.device, p->n + TEXT, &e), &e);
    const double began = now();
    gv_vlm_prefill(&b->run, b->vlm, &s, p, logits);
    best(b, logits, host);
    out.first = now() - began;
    out.text = TEXT * decode(b, &s, logits, host, TEXT);
    out.kept = gv_cache_bytes(s.lm.cache);
    gv_lm_state_close(&s.lm);
    return out;
}

static void bench_prune(struct bench *b, int side)
{
    struct run            *r = &b->run;
    const struct vlm_media m = picture(b->vlm, side * b->vlm->patch.merge, side * b->vlm->patch.merge);
    const int64_t          n = m.tokens + WORDS;
    struct tensor          features = noise(r, m.tokens, b->vlm->width, 0.02F);
    struct tensor          logits = gv_scratch(r, GV_F32, 2, DIMS(1, b->vlm->vocabulary));
    float   *score = malloc((size_t)m.tokens * sizeof *score), *host = malloc((size_t)b->vlm->vocabulary * sizeof *host);
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    const struct vlm_prompt whole = { .ids = ids, .n = n, .media = &m, .features = &features, .n_media = 1 };
    double                  first[2][MAX_ROUNDS], text[2][MAX_ROUNDS], work[MAX_ROUNDS];
    struct pruned_run       last[2];
    struct prune_opts       o;
    struct error            e = { 0 };
    check(gv_prune_parse(&o, "10", &e), &e);
    gv_download(r, score, slice(reshape(features, 1, DIMS(m.tokens * b->vlm->width)), 0, 0, m.tokens));
    for (int64_t i = 0; i < n; i++)
        ids[i] = i < 14 || i >= 14 + m.tokens ? 100 + (int32_t)(i % 900) : b->vlm->image_id;
    for (int i = 0; i < b->rounds; i++)
        for (int k = 0; k < 2; k++) {
            struct mark       mark = arena_mark(&r->scratch);
            struct vlm_pruned fewer = { .prompt = whole };
            const double      began = now();
            if (k)
                gv_vlm_prune(r, b->vlm, &fewer, &whole, &o, (const float *const *)&score);
            gv_sync(r);
            work[i] = now() - began;
            last[k] = caption(b, &fewer.prompt, logits, host);
            first[k][i] = last[k].first + (k ? work[i] : 0);
            text[k][i] = last[k].text;
            if (k)
                gv_vlm_pruned_free(&fewer);
            arena_release(&r->scratch, mark);
        }
    const double a = median(first[0], b->rounds), c = median(first[1], b->rounds), ta = median(text[0], b->rounds),
                 tc = median(text[1], b->rounds);
    printf("genvid, %d layers, %lld picture tokens: first token whole %.3f s, 10%% %.3f s (of it choosing %.3f): %.2fx\n",
           gv_lm_config(b->vlm->lm)->layers, (long long)m.tokens, a, c, median(work, b->rounds), a / c);
    printf("    keys and values %.1f MiB, %.1f MiB: -%.1f%%; with %d tokens of text %.3f s, %.3f s: %.2fx\n",
           (double)last[0].kept / (1 << 20), (double)last[1].kept / (1 << 20),
           100 * (1 - (double)last[1].kept / (double)last[0].kept), TEXT, a + ta, c + tc, (a + ta) / (c + tc));
    free(score);
    free(host);
    free(ids);
}

/* ---- clip ---- */

static int of_library(gv_status status, const char *message)
{
    if (status != GV_OK)
        fprintf(stderr, "bench_caption: %s\n", message);
    return status != GV_OK;
}

static int bench_clip(const char *dir, const char *file, int rounds)
{
    gv_engine         *engine = NULL;
    gv_model          *model = NULL;
    gv_session        *session = NULL;
    char               why[512] = "";
    double             t[MAX_ROUNDS];
    gv_engine_params   p;
    gv_caption_request q;
    gv_engine_params_init(&p);
    p.device = test_device();
    if (of_library(gv_engine_open(&p, &engine, why, sizeof why), why) ||
        of_library(gv_model_load(engine, dir, &model, why, sizeof why), why) ||
        of_library(gv_session_open(engine, &session), "no session"))
        return 1;
    gv_caption_request_init(&q);
    q.model = model;
    q.media = &file;
    q.media_count = 1;
    for (int i = -1; i < rounds; i++) {
        char        *text;
        const double began = now();
        if (of_library(gv_caption(session, &q, &text), gv_session_message(session)))
            return 1;
        const double took = now() - began;
        char        *json = gv_session_report(session);
        json_t      *report = json_loads(json, 0, NULL);
        if (i < 0)
            printf("%lld frames, %lld tokens of pictures, %lld of text; first %.3f s",
                   (long long)json_integer_value(json_object_get(report, "frames")),
                   (long long)json_integer_value(json_object_get(report, "picture_tokens")),
                   (long long)json_integer_value(json_object_get(report, "tokens")), took);
        else
            t[i] = took;
        json_decref(report);
        gv_free(json);
        gv_free(text);
    }
    const double middle = median(t, rounds);
    printf(", later %.3f s (%.3f to %.3f)\n", middle, t[0], t[rounds - 1]);
    gv_session_close(&session);
    gv_engine_close(&engine);
    return 0;
}

static void bench_model(const char *dir, bool prunes, int rounds, int n, char **numbers)
{
    static char               *usual[] = { "1024" };
    struct bench               b = { .rounds = rounds };
    struct error               e = { 0 };
    struct device             *d;
    const struct device_params p = { .name = test_device() };
    check(gv_device_open(&d, &p, &e), &e);
    check(gv_run_open(&b.run, d, d->compute, (size_t)(test_on_cpu() ? 2 : 16) << 30, &e), &e);
    check(gv_vlm_open(&b.vlm, dir, d, d->compute, &e), &e);
    check(gv_weights_pin(b.vlm->decoder, d, false, &e), &e);
    if (prunes) {
        bench_prune(&b, n ? atoi(numbers[0]) : 78);
    } else {
        for (int i = 0; i < (n ? n : 1); i++)
            bench_decoder(&b, atoi((n ? numbers : usual)[i]), !i);
        check(gv_weights_pin(b.vlm->vision, d, false, &e), &e);
        bench_tower(&b);
        gv_weights_unpin(b.vlm->vision, d, false, true);
    }
    gv_weights_unpin(b.vlm->decoder, d, false, true);
    b.vlm->model->close(b.vlm);
    gv_run_close(&b.run);
    gv_device_close(&d);
}

int main(int argc, char **argv)
{
    const bool clip = argc > 3 && !strcmp(argv[1], "clip"), prunes = argc > 2 && !strcmp(argv[1], "prune");
    const int  at = clip ? 4 : 3, rounds = argc > at ? atoi(argv[at]) : 3;
    if (argc < 3 || rounds < 1 || rounds > MAX_ROUNDS || !(clip || prunes || !strcmp(argv[1], "model"))) {
        fprintf(stderr,
                "usage: bench_caption model DIR [rounds, at most %d [tokens...]] | prune DIR [rounds [side]] | clip DIR FILE "
                "[rounds]\n",
                MAX_ROUNDS);
        return 64;
    }
    if (clip)
        return bench_clip(argv[2], argv[3], rounds);
    bench_model(argv[2], prunes, rounds, argc > 4 ? argc - 4 : 0, argv + 4);
    return 0;
}
