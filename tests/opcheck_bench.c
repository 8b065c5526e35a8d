/* opcheck --bench: rates of the shapes that matter, as a share of what the arithmetic units of this processor did in the same
 * run; beside oneDNN's where it is there, call by call in turn. How a kernel shows that it is worth having. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cpu/features.h"
#include "core/cpu/kernels.h"
#include "core/cpu/parallel.h"
#include "tests/opcheck.h"
#ifdef GV_HAVE_ONEDNN
#include "tests/onednn_rate.h"
#endif

/* On one thread its own time, which neighbours on the machine disturb less; on several the wall's. */
static double seconds(const struct device *d)
{
    struct timespec t;

    clock_gettime(gv_cpu_threads(d) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What the arithmetic units can do: chains of multiplies on registers, on every thread. GFLOP/s. */
struct peak {
    int64_t rounds;
};

enum { CHAINS = 12 }; /* independent sums: a multiply is done after 4 to 6 cycles, and two may start in each */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

__attribute__((target("avx512f,avx512bf16"))) static void peak_bf16(void *arg, int64_t slice)
{
    const struct peak *p = arg;
    __m512             acc[CHAINS], x = _mm512_set1_ps(1e-3f * (float)slice);

#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_setzero_ps();
    for (int64_t n = 0; n < p->rounds; n++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(acc[i]) : "v"(x));
}

__attribute__((target("avx512f"))) static void peak_avx512(void *arg, int64_t slice)
{
    const struct peak *p = arg;
    __m512             acc[CHAINS], x = _mm512_set1_ps(1e-3f * (float)slice);

#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_setzero_ps();
    for (int64_t n = 0; n < p->rounds; n++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(acc[i]) : "v"(x));
}

__attribute__((target("avx2,fma"))) static void peak_avx2(void *arg, int64_t slice)
{
    const struct peak *p = arg;
    __m256             acc[CHAINS], x = _mm256_set1_ps(1e-3f * (float)slice);

#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_setzero_ps();
    for (int64_t n = 0; n < p->rounds; n++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            __asm__ volatile("vfmadd231ps %1, %1, %0" : "+x"(acc[i]) : "x"(x));
}

static double peak_rate(struct device *d, bool bf16)
{
    const unsigned flags = gv_cpu_flags(d);
    const bool     wide = flags & CPU_AVX512, native = bf16 && (flags & CPU_AVX512BF16);
    struct peak    p = { 200000 };
    double         best = 0;

    if (!(flags & CPU_AVX2))
        return 0;
    for (int i = 0; i < 2; i++) {
        const double start = seconds(d);

        gv_parallel_for(d, gv_cpu_threads(d), native ? peak_bf16 : wide ? peak_avx512 : peak_avx2, &p);
        best = fmax(best, 1e-9 * gv_cpu_threads(d) * (double)p.rounds * CHAINS * (wide ? 32 : 16) * (native ? 2 : 1) /
                              (seconds(d) - start));
    }
    return best;
}
#else
static double peak_rate(struct device *d, bool bf16)
{
    (void)d, (void)bf16;
    return 0;
}
#endif

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n ? v[n / 2] : 0;
}

/* Medians of ours, and of what ran beside it in turn, so that a busy machine disturbs both alike. */
struct timing {
    double ours, yardstick, peak; /* seconds, theirs / ours, our share of the peak */
};

struct rival;
static void rival_run(struct rival *rival);

/* Repeats until about half a second has gone by. */
static struct timing repeat(void (*fn)(struct ctx *c, void *arg), struct ctx *c, void *arg, struct rival *rival, double flop)
{
    enum { MOST = 200 };
    struct device *d = c->run.device;
    double         t[MOST], ratio[MOST], share[MOST], total = 0;
    int            n = 0;

    fn(c, arg);
    if (rival)
        rival_run(rival);
    for (; n < MOST && (total < 0.5 || n < 7); n++) {
        const double start = seconds(d);

        fn(c, arg);
        t[n] = seconds(d) - start;
        const double peak = flop > 0 ? peak_rate(d, c->run.compute == GV_BF16) : 0, again = seconds(d);

        if (rival)
            rival_run(rival);
        ratio[n] = (seconds(d) - again) / t[n];
        share[n] = peak > 0 ? 1e-9 * flop / t[n] / peak : 0;
        total += seconds(d) - start;
    }
    struct timing r = { .yardstick = rival ? median(ratio, n) : 0, .peak = median(share, n) };

    r.ours = median(t, n);
    return r;
}

#ifdef GV_HAVE_ONEDNN
struct rival {
    struct onednn_rate *rate;
};

static void rival_run(struct rival *rival)
{
    onednn_run(rival->rate);
}
#else
static void rival_run(struct rival *rival)
{
    (void)rival;
}
#endif

struct call {
    struct tensor      y, x, w, b;
    struct linear_opts linear;
    struct conv_opts   conv;
    struct norm_opts   norm;
};

static void call_linear(struct ctx *c, void *arg)
{
    const struct call *a = arg;

    gv_linear(&c->run, a->y, a->x, a->w, &a->linear);
}

static void call_conv(struct ctx *c, void *arg)
{
    const struct call *a = arg;

    gv_conv(&c->run, a->y, a->x, a->w, &a->conv);
}

static void call_norm(struct ctx *c, void *arg)
{
    const struct call *a = arg;

    gv_norm(&c->run, a->y, a->x, &a->norm);
}

static void call_act(struct ctx *c, void *arg)
{
    const struct call *a = arg;

    gv_act(&c->run, a->y, a->x, ACT_GELU_TANH);
}

static void call_add(struct ctx *c, void *arg)
{
    const struct call *a = arg;

    gv_add(&c->run, a->y, a->x, a->b);
}

static void call_copy(struct ctx *c, void *arg)
{
    const struct call *a = arg;

    gv_copy(&c->run, a->y, a->x);
}

static void print_flops(const char *what, double flop, struct timing t)
{
    printf("%-52s %8.3f ms %7.1f GFLOP/s", what, 1e3 * t.ours, 1e-9 * flop / t.ours);
    if (t.peak > 0)
        printf("  %5.1f%% of peak", 100 * t.peak);
    if (t.yardstick > 0)
        printf("  %5.1f%% of oneDNN", 100 * t.yardstick);
    printf("\n");
    fflush(stdout);
}

static void print_bytes(const char *what, double bytes, struct timing t)
{
    printf("%-52s %8.3f ms %7.1f GB/s\n", what, 1e3 * t.ours, 1e-9 * bytes / t.ours);
}

static void time_linear(struct ctx *c, struct call *a, const int64_t s[3])
{
    const double flop = 2.0 * (double)(s[0] * s[1] * s[2]);
#ifdef GV_HAVE_ONEDNN
    struct rival rival = { onednn_linear(gv_cpu_threads(c->run.device), c->run.compute == GV_BF16, s[0], s[1], s[2]) };

    print_flops(c->what, flop, repeat(call_linear, c, a, rival.rate ? &rival : NULL, flop));
    onednn_close(rival.rate);
#else
    print_flops(c->what, flop, repeat(call_linear, c, a, NULL, flop));
#endif
}

static void time_conv(struct ctx *c, struct call *a, const int64_t s[7])
{
    const double flop = 2.0 * (double)(s[0] * s[1] * s[2] * s[3] * s[4] * s[5] * s[6] * s[6]);
#ifdef GV_HAVE_ONEDNN
    struct rival rival = { onednn_conv(gv_cpu_threads(c->run.device), c->run.compute == GV_BF16, s) };

    print_flops(c->what, flop, repeat(call_conv, c, a, rival.rate ? &rival : NULL, flop));
    onednn_close(rival.rate);
#else
    print_flops(c->what, flop, repeat(call_conv, c, a, NULL, flop));
#endif
}

static struct ctx bench_ctx(struct device *d, enum dtype compute)
{
    struct ctx   c = { .state = 7 };
    struct error e = { 0 };

    if (gv_run_open(&c.run, d, compute, (size_t)1 << 30, &e) != GV_OK) {
        printf("%s\n", e.text);
        exit(2);
    }
    return c;
}

static void bench_linear(struct device *d, enum dtype type)
{
    static const int64_t shapes[][3] = { { 1560, 1536, 1536 }, { 1560, 8960, 1536 }, { 1560, 1536, 8960 },
                                         { 4680, 1536, 1536 }, { 1440, 384, 384 },   { 1440, 1536, 384 },
                                         { 512, 1536, 4096 },  { 8, 1536, 1536 },    { 1, 8960, 1536 } };

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t *s = shapes[i];
        struct ctx     c = bench_ctx(d, type);
        struct call    a = { .x = opcheck_filled(&c, type, 2, DIMS(s[0], s[2]), true),
                             .y = opcheck_filled(&c, type, 2, DIMS(s[0], s[1]), true) };

        a.w = opcheck_prepared(&c, opcheck_filled(&c, GV_F32, 2, DIMS(s[1], s[2]), true), type, WEIGHT_LINEAR);
        a.linear.bias = opcheck_vector(&c, s[1]);
        snprintf(c.what, sizeof c.what, "linear %s [%" PRId64 ", %" PRId64 "] to %" PRId64, gv_dtype_info(type)->name, s[0],
                 s[2], s[1]);
        time_linear(&c, &a, s);
        gv_run_close(&c.run);
    }
}

/* The decoders' convolutions: full width, then the shipped VAE. Frames T, H, W, in, out, kernel t, kernel h and w. */
static void bench_conv(struct device *d, enum dtype type)
{
    static const int64_t shapes[][7] = {
        { 1, 32, 32, 384, 384, 3, 3 }, { 4, 128, 128, 96, 96, 3, 3 }, { 4, 64, 64, 192, 192, 3, 3 },
        { 1, 18, 32, 128, 128, 3, 3 }, { 2, 36, 64, 128, 128, 3, 3 }, { 4, 72, 128, 64, 64, 3, 3 },
        { 4, 144, 256, 32, 32, 3, 3 }, { 4, 144, 256, 64, 32, 1, 3 }, { 4, 144, 256, 32, 3, 3, 3 },
        { 4, 144, 256, 12, 16, 3, 3 }, { 4, 144, 256, 64, 32, 1, 1 }, { 2, 36, 64, 128, 256, 3, 1 },
    };

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t *s = shapes[i];
        struct ctx     c = bench_ctx(d, type);
        const int      p = (int)s[6] / 2;
        struct call    a = { .x = opcheck_filled(&c, type, 4, DIMS(s[0] + s[5] - 1, s[1], s[2], s[3]), true),
                             .y = opcheck_filled(&c, type, 4, DIMS(s[0], s[1], s[2], s[4]), true),
                             .conv = { .pad_lo = { 0, p, p }, .pad_hi = { 0, p, p }, .bias = opcheck_vector(&c, s[4]) } };

        a.w = opcheck_prepared(&c, opcheck_filled(&c, GV_F32, 5, DIMS(s[4], s[5], s[6], s[6], s[3]), true), type, WEIGHT_CONV);
        snprintf(c.what, sizeof c.what,
                 "conv %s %" PRId64 "x%" PRId64 "x%" PRId64 ", %" PRId64 " to %" PRId64 ", %" PRId64 "x%" PRId64 "x%" PRId64,
                 gv_dtype_info(type)->name, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[6]);
        time_conv(&c, &a, s);
        gv_run_close(&c.run);
    }
}

static void bench_rows(struct device *d)
{
    static const int64_t shapes[][2] = { { 1560, 1536 }, { 32760, 1536 }, { 147456, 32 } };

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t n = shapes[i][0], w = shapes[i][1];
        const double  count = (double)(n * w);
        struct ctx    c = bench_ctx(d, GV_BF16);
        struct call   a = { .x = opcheck_filled(&c, GV_F32, 2, DIMS(n, w), true),
                            .y = opcheck_filled(&c, GV_BF16, 2, DIMS(n, w), true) };

        a.norm = (struct norm_opts){ .eps = 1e-6f,
                                     .scale = opcheck_filled(&c, GV_F32, 2, DIMS(1, w), true),
                                     .shift = opcheck_filled(&c, GV_F32, 2, DIMS(1, w), true) };
        snprintf(c.what, sizeof c.what, "norm, modulated, f32 to bf16 [%" PRId64 ", %" PRId64 "]", n, w);
        print_bytes(c.what, 6 * count, repeat(call_norm, &c, &a, NULL, 0));
        a.x = opcheck_filled(&c, GV_BF16, 2, DIMS(n, w), true);
        a.norm = (struct norm_opts){ .kind = NORM_L2, .eps = 1e-12f, .weight = opcheck_vector(&c, w), .act = ACT_SILU };
        snprintf(c.what, sizeof c.what, "norm, SiLU, bf16 [%" PRId64 ", %" PRId64 "]", n, w);
        print_bytes(c.what, 4 * count, repeat(call_norm, &c, &a, NULL, 0));
        snprintf(c.what, sizeof c.what, "GELU, bf16 [%" PRId64 ", %" PRId64 "]", n, w);
        print_bytes(c.what, 4 * count, repeat(call_act, &c, &a, NULL, 0));
        a.b = opcheck_filled(&c, GV_BF16, 2, DIMS(n, w), true);
        snprintf(c.what, sizeof c.what, "add, bf16 [%" PRId64 ", %" PRId64 "]", n, w);
        print_bytes(c.what, 6 * count, repeat(call_add, &c, &a, NULL, 0));
        a.y = opcheck_filled(&c, GV_F32, 2, DIMS(n, w), true);
        snprintf(c.what, sizeof c.what, "copy, bf16 to f32 [%" PRId64 ", %" PRId64 "]", n, w);
        print_bytes(c.what, 6 * count, repeat(call_copy, &c, &a, NULL, 0));
        gv_run_close(&c.run);
    }
}

void opcheck_bench(const char *level, int threads)
{
    struct device *d = opcheck_device("cpu", level, threads);
    const double   bf16 = peak_rate(d, true), f32 = peak_rate(d, false);

    printf("%d thread(s); peak %.0f GFLOP/s in bf16, %.0f in f32; medians\n", gv_cpu_threads(d), bf16, f32);
    bench_linear(d, GV_BF16);
    bench_conv(d, GV_BF16);
    bench_linear(d, GV_F32);
    bench_conv(d, GV_F32);
    bench_rows(d);
    gv_device_close(&d);
}
