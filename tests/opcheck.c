/* Every operation, at every CPU level that this machine has, against plain loops in f64; how a kernel is accepted.
 *
 *   opcheck [--bench [--threads N]] [--level L | --device D] [--seed N] [--cases N]
 *
 * Sizes are random, odd ones and single rows included; rows are strided at random, gaps and destinations are filled with NaN
 * beforehand, and gaps must still be NaN afterwards. Each level runs twice, on one thread and on three, and both runs must
 * give the same bytes. Another device (--device cuda) runs instead of the levels, twice as well; scratch is then memory that both
 * sides reach. The last line counts; the exit code is 1 if anything failed. Needs libc and core/ alone.
 * --bench is tests/opcheck_bench.c. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cpu/features.h"
#include "core/cpu/kernels.h"
#include "core/cpu/parallel.h"
#include "core/rng.h"
#include "tests/device.h"
#include "tests/opcheck.h"

/* ---- tolerances: |a - b| ≤ rel·|b| + abs·max|b| --------------------------------------------------------------------------- */

static const double EXACT = 0;            /* moved, not computed */
static const double ROUND_F32 = 1e-6;     /* some f32 roundings: vector exp and tanh are good to 2-3 ulp of 6e-8 */
static const double ROUND_BF16 = 0.00391; /* one rounding to 8 bits: 2^-8, and double rounding through f32 */
static const double SUM_F32 = 3e-6;       /* of max|b|: a few hundred to thousands of f32 additions */

static double tolerance(enum dtype stored)
{
    return stored == GV_F32 ? ROUND_F32 : ROUND_BF16;
}

/* ---- what a case works with ------------------------------------------------------------------------------------------------ */

static uint64_t next(struct ctx *c)
{
    uint64_t z = c->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int64_t pick(struct ctx *c, int64_t from, int64_t to) /* both included */
{
    return from + (int64_t)(next(c) % (uint64_t)(to - from + 1));
}

static bool coin(struct ctx *c)
{
    return next(c) >> 63;
}

static float uniform(struct ctx *c)
{
    return (float)(int64_t)(next(c) >> 40) * 0x1p-23f - 1;
}

static enum dtype act_type(struct ctx *c)
{
    return coin(c) ? c->run.compute : GV_F32;
}

static double at(struct tensor t, int64_t i)
{
    return (double)gv_load(t.data, t.type, i);
}

/* Rows [n, d], perhaps with gaps; filled with random numbers, or all NaN. */
static struct tensor rows_of(struct ctx *c, enum dtype type, int64_t n, int64_t d, bool random)
{
    const int64_t gap = coin(c) ? 0 : pick(c, 1, 9);
    struct tensor all = gv_scratch(&c->run, type, 2, DIMS(n, d + gap));

    memset(all.data, 0xff, gv_tensor_bytes(all));
    for (int64_t i = 0; random && i < n; i++)
        for (int64_t j = 0; j < d; j++)
            gv_store(all.data, type, i * (d + gap) + j, uniform(c));
    return slice(all, 1, 0, d);
}

struct tensor opcheck_filled(struct ctx *c, enum dtype type, int rank, const int64_t *dim, bool random)
{
    struct tensor t = gv_scratch(&c->run, type, rank, dim);
    const int64_t n = gv_tensor_count(t);

    memset(t.data, 0xff, gv_tensor_bytes(t));
    for (int64_t i = 0; random && i < n; i++)
        gv_store(t.data, type, i, uniform(c));
    return t;
}

struct tensor opcheck_vector(struct ctx *c, int64_t d)
{
    return opcheck_filled(c, GV_F32, 1, DIMS(d), true);
}

/* In bf16 a device may take biases as a bf16 checkpoint holds them. */
static struct tensor bias_of(struct ctx *c, int64_t n)
{
    struct tensor t = opcheck_vector(c, n);

    for (int64_t i = 0; c->run.compute == GV_BF16 && i < n; i++)
        ((float *)t.data)[i] = gv_f32_of_bf16(gv_bf16_of_f32(((float *)t.data)[i]));
    return t;
}

static struct tensor groups(struct ctx *c, int64_t n, int64_t n_groups)
{
    struct tensor t = gv_scratch(&c->run, GV_I32, 1, DIMS(n));

    for (int64_t i = 0; i < n; i++)
        ((int32_t *)t.data)[i] = (int32_t)pick(c, 0, n_groups - 1);
    return t;
}

struct tensor opcheck_prepared(struct ctx *c, struct tensor src, enum dtype type, enum weight_use use)
{
    struct device *d = c->run.device;
    struct tensor  want = src, out = { 0 };
    struct error   e = { 0 };

    want.type = type;
    if (d->ops->prepare(d, gv_scratch_bytes(&c->run, d->ops->prepared_bytes(d, &want, use)), src, type, use, &out, &e) !=
        GV_OK) {
        printf("prepare: %s\n", e.text);
        c->failed = true;
    }
    return out;
}

/* The value a weight of this type has after preparation. */
static double as_type(struct tensor t, int64_t i, enum dtype type)
{
    const float v = gv_load(t.data, t.type, i);

    return (double)(type == GV_BF16 ? gv_f32_of_bf16(gv_bf16_of_f32(v)) : v);
}

static void hash_bytes(struct ctx *c, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        c->hash = (c->hash ^ ((const unsigned char *)p)[i]) * 0x100000001b3u;
}

/* y, rows of d elements, against want [n · d]. */
static void compare(struct ctx *c, struct tensor y, const double *want, double rel, double abs)
{
    gv_sync(&c->run);
    const int64_t d = y.dim[y.rank - 1], n = gv_tensor_count(y) / d, stride = y.rank > 1 ? y.stride[y.rank - 2] : d;
    double        most = 0;

    for (int64_t i = 0; i < n * d; i++)
        most = fmax(most, fabs(want[i]));
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < d; j++) {
            const double b = want[i * d + j], a = at(y, i * stride + j), allowed = rel * fabs(b) + abs * most + 1e-30;
            const double share = fabs(a - b) / allowed;

            if (!(share <= 1) && !c->failed) {
                printf("  %s: row %" PRId64 " column %" PRId64 " is %.9g, wanted %.9g (allowed %.3g)\n", c->what, i, j, a, b,
                       allowed);
                c->failed = true;
            }
            c->worst = fmax(c->worst, share);
        }
        for (int64_t j = d; j < stride && i + 1 < n; j++)
            if (!isnan(at(y, i * stride + j)) && !c->failed) {
                printf("  %s: the gap behind row %" PRId64 " was written\n", c->what, i);
                c->failed = true;
            }
        hash_bytes(c, (const char *)y.data + (size_t)(i * stride) * gv_dtype_bytes(y.type, 1), gv_dtype_bytes(y.type, d));
    }
}

static double act_f64(double x, enum act act)
{
    switch (act) {
    case ACT_GELU_TANH: return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case ACT_GELU_ERF: return 0.5 * x * erfc(-x * 0.70710678118654752);
    case ACT_SILU: return x / (1 + exp(-x));
    case ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case ACT_NONE: break;
    }
    return x;
}

static enum act any_act(struct ctx *c)
{
    return (enum act)pick(c, ACT_NONE, ACT_QUICK_GELU);
}

/* ---- the operations -------------------------------------------------------------------------------------------------------- */

static void check_linear(struct ctx *c)
{
    static const int64_t few[] = { 1, 2, 5, 6, 7, 13, 24, 25, 96, 97, 130 };
    const int64_t        n = few[pick(c, 0, 10)], k = coin(c) ? pick(c, 1, 300) : 32 * pick(c, 1, 12),
                  big_k = pick(c, 0, 19) ? k : 4100 + k;
    const int64_t    m = coin(c) ? pick(c, 1, 150) : 16 * pick(c, 1, 12), g = pick(c, 1, 4), K = n > 30 ? k : big_k;
    const enum dtype wt = pick(c, 0, 3) ? c->run.compute : GV_F32;
    struct tensor    x = rows_of(c, act_type(c), n, K, true),
                  src = opcheck_filled(c, (enum dtype)pick(c, GV_F32, GV_F16), 2, DIMS(m, K), true);
    struct tensor      w = opcheck_prepared(c, src, wt, WEIGHT_LINEAR);
    struct linear_opts o = { .act = any_act(c), .add = coin(c) };
    struct tensor      y = rows_of(c, o.add ? GV_F32 : act_type(c), n, m, o.add);
    double            *want = calloc((size_t)(n * m), sizeof *want);

    if (coin(c))
        o.bias = bias_of(c, m);
    if (coin(c)) {
        o.gate = rows_of(c, GV_F32, g, m, true);
        if (coin(c))
            o.group = groups(c, n, g);
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            double sum = present(o.bias) ? at(o.bias, j) : 0;

            for (int64_t l = 0; l < K; l++)
                sum += as_type(x, i * x.stride[0] + l, wt) * as_type(src, j * K + l, wt);
            sum = act_f64(sum, o.act);
            if (present(o.gate))
                sum *= at(o.gate, (present(o.group) ? ((int32_t *)o.group.data)[i] : 0) * o.gate.stride[0] + j);
            want[i * m + j] = sum + (o.add ? at(y, i * y.stride[0] + j) : 0);
        }
    snprintf(c->what, sizeof c->what, "x [%" PRId64 ", %" PRId64 "] %s, w %s [%" PRId64 "], y %s, act %d, add %d", n, K,
             gv_dtype_info(x.type)->name, gv_dtype_info(wt)->name, m, gv_dtype_info(y.type)->name, (int)o.act, o.add);
    gv_linear(&c->run, y, x, w, &o);
    compare(c, y, want, tolerance(y.type), SUM_F32 * (wt == GV_BF16 ? 4 : 1));
    free(want);
}

static void check_conv(struct ctx *c)
{
    static const int64_t channels[] = { 1, 2, 3, 12, 16, 17, 32, 48, 64, 70 };
    static const int     kernels[][3] = {
            { 3, 3, 3 }, { 1, 3, 3 }, { 3, 1, 1 }, { 1, 1, 1 }, { 1, 3, 3 }, { 2, 1, 5 }, { 1, 7, 7 }
    };
    const int    *k = kernels[pick(c, 0, 6)];
    const int64_t C = channels[pick(c, 0, 9)], O = channels[pick(c, 0, 9)];
    const int64_t T = pick(c, 1, 3) + k[0] - 1, H = pick(c, 1, 6) + k[1],
                  W = (coin(c) ? pick(c, 1, 9) : pick(c, 20, 120)) + k[2];
    const enum dtype wt = c->run.compute;
    struct conv_opts o = { .add = coin(c) };
    struct tensor    x = opcheck_filled(c, c->run.compute, 4, DIMS(T, H, W, C), true);
    struct tensor    src = opcheck_filled(c, (enum dtype)pick(c, GV_F32, GV_F16), 5, DIMS(O, k[0], k[1], k[2], C), true);
    struct tensor    w = opcheck_prepared(c, src, wt, WEIGHT_CONV), y;
    int64_t          size[3];

    for (int i = 0; i < 3; i++) {
        o.stride[i] = (int)pick(c, 0, 2);
        o.pad_lo[i] = (int)pick(c, 0, k[i] - 1);
        o.pad_hi[i] = (int)pick(c, 0, k[i] - 1);
        size[i] = (x.dim[i] + o.pad_lo[i] + o.pad_hi[i] - k[i]) / (o.stride[i] ? o.stride[i] : 1) + 1;
    }
    if (coin(c))
        o.bias = bias_of(c, O);
    y = opcheck_filled(c, act_type(c), 4, DIMS(size[0], size[1], size[2], O), o.add);
    double *want = calloc((size_t)gv_tensor_count(y), sizeof *want);
    int64_t n = 0;

    for (int64_t t = 0; t < size[0]; t++)
        for (int64_t h = 0; h < size[1]; h++)
            for (int64_t v = 0; v < size[2]; v++)
                for (int64_t q = 0; q < O; q++, n++) {
                    double sum = present(o.bias) ? at(o.bias, q) : 0;

                    for (int a = 0; a < k[0]; a++)
                        for (int b = 0; b < k[1]; b++)
                            for (int e = 0; e < k[2]; e++) {
                                const int64_t xt = t * (o.stride[0] ? o.stride[0] : 1) - o.pad_lo[0] + a;
                                const int64_t xh = h * (o.stride[1] ? o.stride[1] : 1) - o.pad_lo[1] + b;
                                const int64_t xw = v * (o.stride[2] ? o.stride[2] : 1) - o.pad_lo[2] + e;

                                if (xt < 0 || xt >= T || xh < 0 || xh >= H || xw < 0 || xw >= W)
                                    continue;
                                for (int64_t i = 0; i < C; i++)
                                    sum += at(x, ((xt * H + xh) * W + xw) * C + i) *
                                           as_type(src, (((q * k[0] + a) * k[1] + b) * k[2] + e) * C + i, wt);
                            }
                    want[n] = sum + (o.add ? at(y, n) : 0);
                }
    snprintf(c->what, sizeof c->what,
             "x [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "], kernel %dx%dx%d, O %" PRId64
             ", strides %d %d %d, pads %d%d %d%d %d%d",
             T, H, W, C, k[0], k[1], k[2], O, o.stride[0], o.stride[1], o.stride[2], o.pad_lo[0], o.pad_hi[0], o.pad_lo[1],
             o.pad_hi[1], o.pad_lo[2], o.pad_hi[2]);
    gv_conv(&c->run, y, x, w, &o);
    /* A residual in bf16 may be added to a sum that was rounded before; the sum is larger than the result by the residual. */
    compare(c, y, want, tolerance(y.type),
            SUM_F32 * (wt == GV_BF16 ? 4 : 1) + (o.add && y.type == GV_BF16 ? 1.25 * ROUND_BF16 : 0));
    free(want);
}

static void norm_row_f64(double *v, const struct norm_opts *o, int64_t row, int64_t d)
{
    double mean = 0, squares = 0, scale;

    for (int64_t i = 0; i < d && o->kind == NORM_LAYER; i++)
        mean += v[i] / (double)d;
    for (int64_t i = 0; i < d; i++)
        squares += (v[i] - mean) * (v[i] - mean);
    scale = o->kind == NORM_L2 ? sqrt((double)d) / fmax(sqrt(squares), (double)o->eps)
                               : 1 / sqrt(squares / (double)d + (double)o->eps);
    for (int64_t i = 0; i < d; i++) {
        const int64_t g = present(o->group) ? ((int32_t *)o->group.data)[row] : 0;

        v[i] = (v[i] - mean) * scale;
        v[i] = v[i] * (present(o->weight) ? at(o->weight, i) : 1) + (present(o->bias) ? at(o->bias, i) : 0);
        v[i] = v[i] * (1 + (present(o->scale) ? at(o->scale, g * o->scale.stride[0] + i) : 0));
        v[i] += present(o->shift) ? at(o->shift, g * o->shift.stride[0] + i) : 0;
        v[i] = act_f64(v[i], o->act);
    }
    for (int64_t h = 0; o->rope && h < d; h += o->rope->head)
        for (int64_t i = 0; i < o->rope->head / 2; i++) {
            const int64_t a = h + (o->rope->halves ? i : 2 * i), b = o->rope->halves ? a + o->rope->head / 2 : a + 1;
            const int64_t n = row % o->rope->cos.dim[0];
            const double  cosine = at(o->rope->cos, n * o->rope->cos.stride[0] + i),
                         sine = at(o->rope->sin, n * o->rope->sin.stride[0] + i);
            const double va = v[a], vb = v[b];

            v[a] = va * cosine - vb * sine;
            v[b] = va * sine + vb * cosine;
        }
}

static void check_norm(struct ctx *c)
{
    const int        head = 2 * (int)pick(c, 1, 70);
    const bool       roped = pick(c, 0, 2) == 0;
    const int64_t    base = pick(c, 1, 40), g = pick(c, 1, 3), n = base * (roped ? pick(c, 1, 3) : 1);
    const bool       plain = pick(c, 0, 3) == 0; /* the VAEs' norm, which has a path of its own */
    const int64_t    d = roped     ? head * pick(c, 1, 14)
                         : plain   ? 32 << pick(c, 0, 2)
                         : coin(c) ? pick(c, 1, 200)
                                   : 16 * pick(c, 1, 100);
    struct norm_opts o = { .kind = (enum norm_kind)pick(c, 0, 2), .eps = 1e-6f, .act = any_act(c) };
    struct rope      rope = { .head = head, .halves = coin(c) };
    const bool       in_place = pick(c, 0, 3) == 0;
    struct tensor    x = rows_of(c, act_type(c), n, d, true), y = in_place ? x : rows_of(c, act_type(c), n, d, false);
    double          *want = calloc((size_t)(n * d), sizeof *want);

    if (plain || coin(c))
        o.weight = opcheck_vector(c, d);
    if (!plain && coin(c))
        o.bias = opcheck_vector(c, d);
    if (!plain && coin(c)) {
        o.scale = rows_of(c, GV_F32, g, d, true);
        o.shift = rows_of(c, GV_F32, g, d, true);
        if (coin(c))
            o.group = groups(c, n, g);
    }
    if (roped) {
        rope.cos = rows_of(c, GV_F32, base, head / 2, true);
        rope.sin = rows_of(c, GV_F32, base, head / 2, true);
        o.rope = &rope;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < d; j++)
            want[i * d + j] = at(x, i * x.stride[0] + j);
        norm_row_f64(want + i * d, &o, i, d);
    }
    snprintf(c->what, sizeof c->what, "kind %d, [%" PRId64 ", %" PRId64 "] %s to %s, act %d, head %d, halves %d", (int)o.kind,
             n, d, gv_dtype_info(x.type)->name, gv_dtype_info(y.type)->name, (int)o.act, roped ? head : 0, rope.halves);
    gv_norm(&c->run, y, x, &o);
    compare(c, y, want, tolerance(y.type), SUM_F32);
    free(want);
}

static void check_act(struct ctx *c)
{
    const int64_t  n = pick(c, 1, 60), d = coin(c) ? pick(c, 1, 100) : pick(c, 1, 3000);
    struct tensor  x = rows_of(c, act_type(c), n, d, true), y = pick(c, 0, 3) ? rows_of(c, act_type(c), n, d, false) : x;
    const enum act act = any_act(c);
    const float    reach = coin(c) ? 1 : 30; /* far out, activations saturate */
    double        *want = calloc((size_t)(n * d), sizeof *want);

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) {
            gv_store(x.data, x.type, i * x.stride[0] + j, reach * uniform(c));
            want[i * d + j] = act_f64(at(x, i * x.stride[0] + j), act);
        }
    snprintf(c->what, sizeof c->what, "act %d of [%" PRId64 ", %" PRId64 "] %s to %s", (int)act, n, d,
             gv_dtype_info(x.type)->name, gv_dtype_info(y.type)->name);
    gv_act(&c->run, y, x, act);
    compare(c, y, want, tolerance(y.type), 1e-8);
    free(want);
}

static void check_glu(struct ctx *c)
{
    const int64_t  n = pick(c, 1, 60), d = coin(c) ? pick(c, 1, 100) : pick(c, 1, 3000);
    struct tensor  a = rows_of(c, act_type(c), n, d, true), b = rows_of(c, act_type(c), n, d, true);
    struct tensor  y = pick(c, 0, 3) ? rows_of(c, act_type(c), n, d, false) : coin(c) ? a : b;
    const enum act act = any_act(c);
    double        *want = calloc((size_t)(n * d), sizeof *want);

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++)
            want[i * d + j] = act_f64(at(a, i * a.stride[0] + j), act) * at(b, i * b.stride[0] + j);
    snprintf(c->what, sizeof c->what, "act %d of [%" PRId64 ", %" PRId64 "]", (int)act, n, d);
    gv_glu(&c->run, y, a, b, act);
    compare(c, y, want, tolerance(y.type), 1e-8);
    free(want);
}

static void check_add(struct ctx *c)
{
    const int64_t nb = pick(c, 1, 30), n = nb * pick(c, 1, 3), d = coin(c) ? pick(c, 1, 100) : pick(c, 1, 3000);
    struct tensor a = rows_of(c, act_type(c), n, d, true), b = rows_of(c, act_type(c), nb, d, true);
    struct tensor y = pick(c, 0, 3) ? rows_of(c, act_type(c), n, d, false) : a;
    double       *want = calloc((size_t)(n * d), sizeof *want);

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++)
            want[i * d + j] = at(a, i * a.stride[0] + j) + at(b, i % nb * b.stride[0] + j);
    snprintf(c->what, sizeof c->what, "[%" PRId64 ", %" PRId64 "] + [%" PRId64 "]", n, d, nb);
    gv_add(&c->run, y, a, b);
    compare(c, y, want, tolerance(y.type), 0);
    free(want);
}

/* Any rank, any order of dimensions, any cut on either side. */
static struct tensor twisted(struct ctx *c, enum dtype type, int rank, const int64_t *dim, bool random)
{
    int     axes[GV_MAX_RANK], back[GV_MAX_RANK];
    int64_t stored[GV_MAX_RANK];

    for (int i = 0; i < rank; i++)
        axes[i] = i;
    for (int i = rank - 1; i > 0; i--) {
        const int j = (int)pick(c, 0, i), old = axes[i];

        axes[i] = axes[j], axes[j] = old;
    }
    for (int i = 0; i < rank; i++) {
        back[axes[i]] = i;
        stored[i] = dim[axes[i]] + pick(c, 0, 2);
    }
    struct tensor t = opcheck_filled(c, type, rank, stored, random);

    for (int i = 0; i < rank; i++)
        t = slice(t, i, 0, dim[axes[i]]);
    return permute(t, back);
}

static int64_t offset_of(struct tensor t, int64_t i)
{
    int64_t offset = 0;

    for (int d = t.rank - 1; d >= 0; d--) {
        offset += i % t.dim[d] * t.stride[d];
        i /= t.dim[d];
    }
    return offset;
}

static void check_copy(struct ctx *c)
{
    const int        rank = (int)pick(c, 1, 5);
    const enum dtype from = (enum dtype)pick(c, GV_F32, GV_F16), to = (enum dtype)pick(c, GV_F32, GV_F16);
    int64_t          dim[GV_MAX_RANK];

    for (int i = 0; i < rank; i++)
        dim[i] = pick(c, 1, rank > 3 ? 12 : 40);
    struct tensor src = twisted(c, from, rank, dim, true),
                  dst = coin(c) ? twisted(c, to, rank, dim, false) : opcheck_filled(c, to, rank, dim, false);
    const int64_t n = gv_tensor_count(src);
    double       *want = calloc((size_t)n, sizeof *want);

    snprintf(c->what, sizeof c->what, "rank %d, %s to %s", rank, gv_dtype_info(from)->name, gv_dtype_info(to)->name);
    gv_copy(&c->run, dst, src);
    gv_sync(&c->run);
    struct tensor seen = opcheck_filled(c, GV_F32, 1, DIMS(n), false);

    for (int64_t i = 0; i < n; i++) {
        float one;

        gv_store(&one, to, 0, gv_load(src.data, from, offset_of(src, i)));
        want[i] = (double)gv_load(&one, to, 0);
        ((float *)seen.data)[i] = gv_load(dst.data, to, offset_of(dst, i));
    }
    compare(c, seen, want, EXACT, 0);
    free(want);
}

static void check_fill(struct ctx *c)
{
    const int64_t dim[3] = { pick(c, 1, 9), pick(c, 1, 40), pick(c, 1, 900) };
    struct tensor t = twisted(c, act_type(c), 3, dim, false);
    const int64_t n = gv_tensor_count(t);
    struct tensor seen = opcheck_filled(c, GV_F32, 1, DIMS(n), false);
    double       *want = calloc((size_t)n, sizeof *want);

    snprintf(c->what, sizeof c->what, "[%" PRId64 ", %" PRId64 ", %" PRId64 "]", dim[0], dim[1], dim[2]);
    gv_fill(&c->run, t, 0.375f);
    gv_sync(&c->run);
    for (int64_t i = 0; i < n; i++) {
        want[i] = 0.375;
        ((float *)seen.data)[i] = gv_load(t.data, t.type, offset_of(t, i));
    }
    compare(c, seen, want, EXACT, 0);
    free(want);
}

static void check_gather(struct ctx *c)
{
    const int64_t n = pick(c, 1, 40), v = pick(c, 1, 50), d = pick(c, 1, 400);
    struct tensor table = rows_of(c, (enum dtype)pick(c, GV_F32, GV_F16), v, d, true), index = groups(c, n, v);
    struct tensor y = rows_of(c, act_type(c), n, d, false);
    double       *want = calloc((size_t)(n * d), sizeof *want);

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++)
            want[i * d + j] = as_type(table, ((int32_t *)index.data)[i] * table.stride[0] + j, y.type);
    snprintf(c->what, sizeof c->what, "[%" PRId64 ", %" PRId64 "] of %" PRId64, n, d, v);
    gv_gather(&c->run, y, table, index);
    compare(c, y, want, EXACT, 0);
    free(want);
}

static void check_lincomb(struct ctx *c)
{
    const int64_t       n = pick(c, 1, 40000);
    const int           terms = (int)pick(c, 1, GV_LINCOMB_TERMS);
    struct lincomb_term t[GV_LINCOMB_TERMS];
    struct tensor       y = opcheck_filled(c, GV_F32, 1, DIMS(n), false);
    double             *want = calloc((size_t)n, sizeof *want);

    for (int i = 0; i < terms; i++) {
        t[i] = (struct lincomb_term){ 3 * uniform(c), opcheck_vector(c, n) };
        for (int64_t j = 0; j < n; j++)
            want[j] += (double)t[i].factor * at(t[i].x, j);
    }
    if (coin(c))
        y = t[0].x;
    snprintf(c->what, sizeof c->what, "%d terms of %" PRId64, terms, n);
    gv_lincomb(&c->run, y, terms, t);
    compare(c, y, want, ROUND_F32, ROUND_F32);
    free(want);
}

static void check_patches(struct ctx *c)
{
    const int     p[3] = { (int)pick(c, 1, 2), (int)pick(c, 1, 3), (int)pick(c, 1, 3) };
    const int64_t T = p[0] * pick(c, 1, 3), H = p[1] * pick(c, 1, 6), W = p[2] * pick(c, 1, 6), C = pick(c, 1, 20);
    const int64_t size = p[0] * p[1] * p[2], n = T * H * W / size;
    struct tensor x = opcheck_filled(c, GV_F32, 4, DIMS(T, H, W, C), true), rows = rows_of(c, act_type(c), n, size * C, false);
    struct tensor turned = rows_of(c, act_type(c), n, size * C, false),
                  back = opcheck_filled(c, GV_F32, 4, DIMS(T, H, W, C), false);
    double *want = calloc((size_t)(n * size * C), sizeof *want), *again = calloc((size_t)(n * size * C), sizeof *again);

    for (int64_t i = 0; i < T * H * W * C; i++) {
        const int64_t ch = i % C, w = i / C % W, h = i / C / W % H, t = i / C / W / H;
        const int64_t row = (t / p[0] * (H / p[1]) + h / p[1]) * (W / p[2]) + w / p[2];
        const int64_t in = (t % p[0] * p[1] + h % p[1]) * p[2] + w % p[2];

        want[row * size * C + ch * size + in] = as_type(x, i, rows.type);
        gv_store(turned.data, turned.type, row * turned.stride[0] + in * C + ch, gv_load(x.data, GV_F32, i));
        again[i] = as_type(x, i, turned.type);
    }
    snprintf(c->what, sizeof c->what, "[%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "] by %d %d %d", T, H, W, C, p[0],
             p[1], p[2]);
    gv_patchify(&c->run, rows, x, p);
    compare(c, rows, want, EXACT, 0);
    gv_unpatchify(&c->run, back, turned, p);
    compare(c, back, again, EXACT, 0);
    free(want), free(again);
}

static void check_upsample(struct ctx *c)
{
    const int64_t T = pick(c, 1, 3), H = pick(c, 1, 9), W = pick(c, 1, 20), C = pick(c, 1, 40);
    struct tensor x = opcheck_filled(c, act_type(c), 4, DIMS(T, H, W, C), true),
                  y = opcheck_filled(c, x.type, 4, DIMS(T, 2 * H, 2 * W, C), false);
    double *want = calloc((size_t)gv_tensor_count(y), sizeof *want);

    for (int64_t i = 0; i < gv_tensor_count(y); i++) {
        const int64_t ch = i % C, w = i / C % (2 * W), h = i / C / (2 * W) % (2 * H), t = i / C / (4 * W * H);

        want[i] = at(x, ((t * H + h / 2) * W + w / 2) * C + ch);
    }
    snprintf(c->what, sizeof c->what, "[%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "]", T, H, W, C);
    gv_upsample(&c->run, y, x);
    compare(c, y, want, EXACT, 0);
    free(want);
}

static void check_noise(struct ctx *c)
{
    const int64_t          T = pick(c, 1, 3), H = pick(c, 1, 9), W = pick(c, 1, 20), C = pick(c, 1, 20);
    const struct noise_key key = { .seed = next(c), .block = 1, .step = 2, .t0 = pick(c, 0, 9) };
    struct tensor          y = opcheck_filled(c, GV_F32, 4, DIMS(T, H, W, C), false);
    double                *want = calloc((size_t)gv_tensor_count(y), sizeof *want);
    float                  one[20];

    for (int64_t i = 0; i < T * H * W; i++) {
        gv_rng_normal_row(one, C, &key, i / W / H + key.t0, i / W % H, i % W);
        for (int64_t j = 0; j < C; j++)
            want[i * C + j] = (double)one[j];
    }
    snprintf(c->what, sizeof c->what, "[%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "]", T, H, W, C);
    gv_noise(&c->run, y, &key);
    compare(c, y, want, EXACT, 0);
    free(want);
}

static void check_finite(struct ctx *c)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    const int64_t      n = pick(c, 1, 50), d = pick(c, 1, 1000);
    struct tensor      x = rows_of(c, GV_F32, n, d, true);

    gv_check_finite(&c->run, x, "x");
    gv_sync(&c->run);
    const bool good = c->run.err.code == GV_OK;

    ((float *)x.data)[pick(c, 0, n - 1) * x.stride[0] + pick(c, 0, d - 1)] = bad[pick(c, 0, 2)];
    gv_run_enter(&c->run, "here");
    gv_check_finite(&c->run, x, "x");
    gv_run_enter(&c->run, "there");
    gv_sync(&c->run);
    if (!good || c->run.err.code != GV_ERR_MODEL || !strstr(c->run.err.text, "here: a value of x")) {
        printf("  finite: wrong answer for [%" PRId64 ", %" PRId64 "]: %s\n", n, d, c->run.err.text);
        c->failed = true;
    }
    c->run.err = (struct error){ 0 };
}

static void check_plain(struct ctx *c)
{
    const int64_t    n = pick(c, 1, 5000);
    const enum dtype to = (enum dtype)pick(c, GV_F32, GV_F16);
    struct tensor    src = opcheck_filled(c, (enum dtype)pick(c, GV_F32, GV_F16), 1, DIMS(n), true), moved = src;
    char            *odd = malloc(gv_tensor_bytes(src) + 2);
    double          *want = calloc((size_t)n, sizeof *want);

    memcpy(odd + 2, src.data, gv_tensor_bytes(src)); /* as in a mapped file */
    moved.data = odd + 2;
    struct tensor w = opcheck_prepared(c, moved, to, WEIGHT_PLAIN);

    for (int64_t i = 0; i < n; i++) {
        float one;

        gv_store(&one, to, 0, gv_load(src.data, src.type, i));
        want[i] = (double)gv_load(&one, to, 0);
    }
    snprintf(c->what, sizeof c->what, "%" PRId64 " from %s to %s", n, gv_dtype_info(src.type)->name, gv_dtype_info(to)->name);
    compare(c, w, want, EXACT, 0);
    free(odd), free(want);
}

static const struct {
    const char *name;
    void (*fn)(struct ctx *c);
} checks[] = {
    { "linear", check_linear }, { "conv", check_conv },       { "norm", check_norm },       { "act", check_act },
    { "glu", check_glu },       { "add", check_add },         { "copy", check_copy },       { "fill", check_fill },
    { "gather", check_gather }, { "lincomb", check_lincomb }, { "patches", check_patches }, { "upsample", check_upsample },
    { "noise", check_noise },   { "finite", check_finite },   { "prepare", check_plain },
};
enum { N_CHECKS = sizeof checks / sizeof *checks, SCRATCH = 64 << 20 };

/* ---- levels ---------------------------------------------------------------------------------------------------------------- */

struct result {
    uint64_t hash;
    double   worst;
    int      failed;
};

/* memory: SCRATCH bytes that the device reaches. */
static struct result run_check(struct device *d, void *memory, int check, uint64_t seed, int cases)
{
    struct result res = { .hash = 0xcbf29ce484222325u };

    for (int i = 0; i < cases; i++) {
        struct ctx c = { .state = seed * 1000003 + (uint64_t)(check * 7919 + i), .hash = res.hash };

        c.run =
            (struct run){ .device = d, .compute = coin(&c) ? GV_BF16 : GV_F32, .scratch = { .base = memory, .size = SCRATCH } };
        checks[check].fn(&c);
        if (c.run.err.code != GV_OK) {
            printf("  %s %s: %s\n", checks[check].name, c.what, c.run.err.text);
            c.failed = true;
        }
        res.failed += c.failed;
        res.worst = fmax(res.worst, c.worst);
        res.hash = c.hash;
    }
    return res;
}

struct device *opcheck_device(const char *name, const char *level, int threads)
{
    struct device *d = NULL;
    struct error   e = { 0 };

    if (gv_device_open(&d, &(struct device_params){ .name = name, .cpu_level = level, .threads = threads }, &e) != GV_OK) {
        printf("%s\n", e.text);
        exit(2);
    }
    return d;
}

static void *memory_of(struct device *d, size_t bytes)
{
    void *memory = test_shared_alloc(d, bytes);

    if (!memory) {
        printf("no %zu bytes of memory that %s reaches\n", bytes, d->name);
        exit(2);
    }
    return memory;
}

/* The same cases on two devices, or twice on one; both runs must give the same bytes. */
static void run_pair(struct device *one, struct device *two, const char *name, uint64_t seed, int cases, int *passed,
                     int *failed)
{
    void *memory = memory_of(one, SCRATCH);

    for (int i = 0; i < N_CHECKS; i++) {
        const struct result a = run_check(one, memory, i, seed, cases), b = run_check(two, memory, i, seed, cases);
        const bool          same = a.hash == b.hash, good = !a.failed && !b.failed && same;

        printf("%-10s %-10s %5d cases, worst %5.1f%% of what is allowed%s%s\n", name, checks[i].name, cases,
               100 * fmax(a.worst, b.worst), same ? "" : ", NOT THE SAME BYTES TWICE", good ? "" : "  FAILED");
        *passed += good;
        *failed += !good;
    }
    test_shared_free(one, memory, SCRATCH);
}

static void run_level(const char *level, uint64_t seed, int cases, int *passed, int *failed)
{
    struct device *one = opcheck_device("cpu", level, 1), *three = opcheck_device("cpu", level, 3);

    run_pair(one, three, level, seed, cases, passed, failed);
    gv_device_close(&one);
    gv_device_close(&three);
}

static void run_device(const char *name, uint64_t seed, int cases, int *passed, int *failed)
{
    struct device *d = opcheck_device(name, NULL, 0);

    run_pair(d, d, name, seed, cases, passed, failed);
    gv_device_close(&d);
}

/* ---- the pool -------------------------------------------------------------------------------------------------------------- */

enum { CALLERS = 4, ROUNDS = 300, OUTER = 17, INNER = 9 };

struct pool_job {
    struct device   *d;
    atomic_int       count[OUTER * INNER];
    int              outer; /* of an inner call */
    struct pool_job *whole;
};

static void pool_inner(void *arg, int64_t i)
{
    const struct pool_job *j = arg;

    atomic_fetch_add(&j->whole->count[j->outer * INNER + i], 1);
}

static void pool_outer(void *arg, int64_t i)
{
    struct pool_job *whole = arg, one = { .outer = (int)i, .whole = whole };

    gv_parallel_for(whole->d, INNER, pool_inner, &one); /* a call from inside a body */
}

static void *pool_caller(void *arg)
{
    struct device *d = arg;
    intptr_t       wrong = 0;

    for (int round = 0; round < ROUNDS; round++) {
        struct pool_job j = { .d = d };

        gv_parallel_for(d, OUTER, pool_outer, &j);
        for (int i = 0; i < OUTER * INNER; i++)
            wrong += atomic_load(&j.count[i]) != 1;
    }
    return (void *)wrong; /* how many */
}

/* Several threads use one device at once: every index is run once, and no call waits forever. */
static void check_pool(int *passed, int *failed)
{
    struct device *d = opcheck_device("cpu", NULL, 3);
    pthread_t      caller[CALLERS];
    intptr_t       wrong = 0;

    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&caller[i], NULL, pool_caller, d))
            exit(2);
    for (int i = 0; i < CALLERS; i++) {
        void *result;

        pthread_join(caller[i], &result);
        wrong += (intptr_t)result;
    }
    gv_device_close(&d);
    printf("%-10s %-10s %5d calls from %d threads at once%s\n", "any", "pool", ROUNDS * CALLERS, CALLERS,
           wrong ? "  FAILED" : "");
    *passed += !wrong;
    *failed += wrong != 0;
}

static bool level_present(const char *level)
{
    unsigned all = 0, some = 0, any = 0;

    if (!gv_cpu_detect(&all, NULL) || !gv_cpu_detect(&some, level))
        return false;
    for (int bit = 1; bit <= CPU_AVX512BF16; bit *= 2) { /* a level is there if it brings a flag of its own */
        static const char *const names[] = { "avx2", "avx512", NULL, "avx512bf16" };

        if (!strcmp(level, names[bit - 1]))
            any = some & (unsigned)bit;
    }
    return any || !strcmp(level, "c");
}

int main(int argc, char **argv)
{
    static const char *const levels[] = { "c", "avx2", "avx512", "avx512bf16" };
    uint64_t                 seed = (uint64_t)time(NULL);
    const char              *only = NULL, *device = NULL;
    int                      passed = 0, failed = 0, cases = 60, threads = 1;
    bool                     timed = false;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--level") && i + 1 < argc)
            only = argv[++i];
        else if (!strcmp(argv[i], "--device") && i + 1 < argc)
            device = argv[++i];
        else if (!strcmp(argv[i], "--bench"))
            timed = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--cases") && i + 1 < argc)
            cases = atoi(argv[++i]);
        else {
            fprintf(stderr, "usage: opcheck [--bench [--threads N]] [--level c|avx2|avx512|avx512bf16 | --device D] [--seed N] "
                            "[--cases N]\n");
            return 2;
        }
    }
    if (timed) {
        opcheck_bench(only, threads);
        return 0;
    }
    printf("seed %" PRIu64 "\n", seed);
    if (device)
        run_device(device, seed, cases, &passed, &failed);
    for (size_t i = 0; !device && i < sizeof levels / sizeof *levels; i++) {
        if (only && strcmp(only, levels[i]))
            continue;
        if (level_present(levels[i]))
            run_level(levels[i], seed, cases, &passed, &failed);
        else
            printf("%-10s not on this machine: skipped\n", levels[i]);
    }
    if (!device)
        check_pool(&passed, &failed);
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
