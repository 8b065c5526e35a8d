/* Attention on the CPU against the peak of vdpbf16ps measured in the same run. Not a test: prints a table.
 *
 *   bench_attention [threads [cpu level [words of the lines to run]]]
 *
 * Each line: median of 5 calls, after one. GFLOP/s counts 2 (D + Dv) per pair that is computed. Two shares of the peak: by the
 * clock, and by processor time, which says what the kernel does on a machine that others use at the same time. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attention/attention.h"
#include "core/cpu/parallel.h"

static double now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { PEAK_STEPS = 4000000, CHAINS = 24 };

__attribute__((target("avx512f,avx512bf16"))) static void peak_body(void *arg, int64_t n)
{
    const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    __m512         sum[CHAINS];

    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_setzero_ps();
    for (int t = 0; t < PEAK_STEPS; t++)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], x, x);
    for (int i = 1; i < CHAINS; i++)
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    ((float *)arg)[n * 16] = _mm512_reduce_add_ps(sum[0]);
}

/* GFLOP/s by the clock and by processor time. */
struct rate {
    double wall, cpu;
};

static struct rate rate_of(double flops, double wall, double cpu)
{
    return (struct rate){ flops / wall * 1e-9, flops / cpu * 1e-9 };
}

static struct rate peak(struct device *d)
{
    float       sink[16 * 256];
    const int   threads = gv_cpu_threads(d);
    struct rate best = { 0 };

    for (int i = 0; i < 3; i++) {
        const double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        gv_parallel_for(d, threads, peak_body, sink);
        const struct rate r = rate_of((double)threads * PEAK_STEPS * CHAINS * 64, now(CLOCK_MONOTONIC) - wall,
                                      now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        best.wall = r.wall > best.wall ? r.wall : best.wall;
        best.cpu = r.cpu > best.cpu ? r.cpu : best.cpu;
    }
    return best;
}

struct shape {
    const char *what;
    int         Nq, Nk, A, D;
    int         percent; /* of 128-key blocks in lists; 0 = dense; -1 = causal */
    enum dtype  type;
};

static uint64_t mix(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static struct tensor fill(enum dtype type, int64_t n, int64_t a, int64_t d, uint64_t *s)
{
    struct tensor t = gv_tensor(NULL, type, 4, DIMS(1, n, a, d));

    t.data = aligned_alloc(64, (gv_tensor_bytes(t) + 63) / 64 * 64);
    for (int64_t i = 0; i < gv_tensor_count(t); i++) {
        const float x = (float)(mix(s) >> 40) * 0x1p-23f - 1;
        uint32_t    bits;
        memcpy(&bits, &x, 4);
        if (type == GV_F32)
            ((float *)t.data)[i] = x;
        else
            ((uint16_t *)t.data)[i] = (uint16_t)(bits >> 16);
    }
    return t;
}

struct choice {
    uint64_t state;
    int      percent;
};

/* Blocks of 128 keys, chosen at random for each tile. */
static enum block_verdict choose(const void *arg, const struct plan_block *b)
{
    const struct choice *c = arg;
    uint64_t at = c->state + (uint64_t)b->head * 7919 + (uint64_t)b->q0 * 104729 + (uint64_t)(b->k0 / 128) * 1299709;

    return mix(&at) % 100 < (uint64_t)c->percent ? BLOCK_ALL : BLOCK_NONE;
}

static int by_value(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? -1 : 1;
}

/* Median by the clock; the processor time is all calls' together. */
static struct rate measure_call(struct device *d, const struct attn_call *c, enum dtype type, double *ms)
{
    enum { RUNS = 5 };
    struct device *null;
    struct run     dry, r;
    struct error   e = { 0 };
    double         t[RUNS], cpu = 0;

    if (gv_device_null(&null, d, &e) != GV_OK || gv_run_open(&dry, null, type, 0, &e) != GV_OK)
        exit(1);
    gv_attention(&dry, c);
    if (gv_run_open(&r, d, type, dry.scratch.peak, &e) != GV_OK)
        exit(1);
    for (int i = -1; i < RUNS; i++) {
        const double wall = now(CLOCK_MONOTONIC), from = now(CLOCK_PROCESS_CPUTIME_ID);
        gv_attention(&r, c);
        if (i < 0)
            continue;
        t[i] = now(CLOCK_MONOTONIC) - wall;
        cpu += (now(CLOCK_PROCESS_CPUTIME_ID) - from) / RUNS;
    }
    if (r.err.code != GV_OK)
        fprintf(stderr, "%s\n", r.err.text);
    gv_run_close(&r);
    gv_run_close(&dry);
    gv_device_close(&null);
    qsort(t, RUNS, sizeof *t, by_value);
    *ms = t[RUNS / 2] * 1e3;
    return rate_of(dry.flops, t[RUNS / 2], cpu);
}

static void measure(struct device *d, const struct shape *s, struct rate top)
{
    uint64_t         state = 1;
    struct tensor    q = fill(s->type, s->Nq, s->A, s->D, &state), k = fill(s->type, s->Nk, s->A, s->D, &state);
    struct tensor    v = fill(s->type, s->Nk, s->A, s->D, &state), o = fill(s->type, s->Nq, s->A, s->D, &state);
    struct attn_plan plan = { 0 };
    struct error     e = { 0 };
    double           ms;

    const struct plan_shape lists = { .list_heads = s->percent < 0 ? 1 : s->A,
                                      .n_queries = s->Nq,
                                      .n_keys = s->Nk,
                                      .mask = { .kind = s->percent < 0 ? MASK_CAUSAL : MASK_NONE } };
    const struct choice     some = { 1, s->percent };
    if ((s->percent < 0 && gv_plan_from_mask(&plan, &lists, &e) != GV_OK) ||
        (s->percent > 0 && gv_plan_from_blocks(&plan, &lists, choose, &some, &e) != GV_OK))
        exit(1);
    const bool       bias = !strncmp(s->what, "UMT5", 4);
    struct tensor    b = bias ? fill(GV_F32, s->A, s->Nq, s->Nk, &state) : (struct tensor){ 0 };
    struct attn_call c = {
        .q = q, .n_sources = 1, .source[0] = { .k = k, .v = v }, .out.o = o, .plan = s->percent ? &plan : NULL
    };
    if (bias)
        c.bias = row(b, 0);
    const struct rate r = measure_call(d, &c, s->type, &ms);
    const double      part = s->type == GV_F32 ? 50 : 100; /* f32 against half the peak of bf16 */
    printf("%-14s %5d x %5d  A %2d  D %3d  %-4s %3d%%  %8.2f ms  %6.1f GFLOP/s  %5.1f%% of peak  %5.1f%% by processor time\n",
           s->what, s->Nq, s->Nk, s->A, s->D, s->type == GV_F32 ? "f32" : "bf16",
           (int)(100 * (s->percent ? plan.density : 1) + 0.5), ms, r.wall, 100 * 100 / part * r.wall / top.wall,
           100 * 100 / part * r.cpu / top.cpu);
    fflush(stdout);
    gv_plan_free(&plan);
    free(q.data);
    free(k.data);
    free(v.data);
    free(o.data);
    free(b.data);
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {
        { "dense", 4096, 4096, 2, 128, 0, GV_BF16 },
        { "dense", 8192, 8192, 1, 128, 0, GV_BF16 },
        { "dense", 16384, 16384, 1, 128, 0, GV_BF16 },
        { "dense", 4096, 4096, 2, 64, 0, GV_BF16 },
        { "dense", 8192, 8192, 1, 64, 0, GV_BF16 },
        { "lists", 8192, 8192, 2, 128, 50, GV_BF16 },
        { "lists", 8192, 8192, 2, 128, 25, GV_BF16 },
        { "lists", 8192, 8192, 2, 128, 10, GV_BF16 },
        { "lists", 8192, 8192, 2, 64, 25, GV_BF16 },
        { "causal", 4096, 4096, 2, 128, -1, GV_BF16 },
        { "1560, 12 heads", 1560, 1560, 12, 128, 0, GV_BF16 },
        { "shipped self", 1296, 1296, 4, 64, 0, GV_BF16 },
        { "shipped text", 1296, 64, 4, 64, 0, GV_BF16 },
        { "UMT5 with bias", 512, 512, 6, 64, 0, GV_BF16 },
        { "CLIP", 257, 257, 16, 80, 0, GV_BF16 },
        { "VAE middle", 576, 576, 1, 384, 0, GV_BF16 },
        { "dense", 4096, 4096, 2, 128, 0, GV_F32 },
        { "dense", 4096, 4096, 2, 64, 0, GV_F32 },
        { "VAE middle", 576, 576, 1, 384, 0, GV_F32 },
    };
    struct device *d;
    struct error   e = { 0 };
    const char    *level = argc > 2 && argv[2][0] ? argv[2] : NULL;

    if (gv_device_open(&d,
                       &(struct device_params){ .name = "cpu", .threads = argc > 1 ? atoi(argv[1]) : 0, .cpu_level = level },
                       &e) != GV_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const struct rate top = peak(d);
    printf("%d threads, vdpbf16ps peak %.1f GFLOP/s (f32 lines: against half of it)\n", gv_cpu_threads(d), top.wall);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (argc <= 3 || strstr(shapes[i].what, argv[3]))
            measure(d, &shapes[i], top);
    printf("vdpbf16ps peak again %.1f GFLOP/s\n", peak(d).wall);
    gv_device_close(&d);
    return 0;
}
