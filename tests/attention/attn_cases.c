#include "attn_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/cpu/features.h"
#include "tests/device.h"

/* ---- numbers ---- */

uint64_t rnd(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

int64_t rnd_to(uint64_t *state, int64_t n)
{
    return (int64_t)(rnd(state) % (uint64_t)n);
}

float rnd_normal(uint64_t *state)
{
    float sum = 0;

    for (int i = 0; i < 12; i++)
        sum += (float)(rnd(state) >> 40) * 0x1p-24f;
    return sum - 6;
}

uint64_t test_seed(void)
{
    const char    *text = getenv("GV_TEST_SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);

    printf("seed %llu (GV_TEST_SEED)\n", (unsigned long long)seed);
    return seed;
}

static float round_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&x, &bits, 4);
    return x;
}

/* ---- tensors ---- */

static void *at(struct tensor t, int64_t i, int64_t j, int64_t k, int64_t l)
{
    const int64_t n[4] = { i, j, k, l };
    int64_t       offset = 0;

    for (int d = 0; d < t.rank; d++)
        offset += n[d] * t.stride[d];
    return (char *)t.data + offset * (t.type == GV_BF16 ? 2 : 4);
}

float get(struct tensor t, int64_t i, int64_t j, int64_t k, int64_t l)
{
    float    x;
    uint16_t half;

    if (t.type != GV_BF16) {
        memcpy(&x, at(t, i, j, k, l), 4);
        return x;
    }
    memcpy(&half, at(t, i, j, k, l), 2);
    const uint32_t bits = (uint32_t)half << 16;
    memcpy(&x, &bits, 4);
    return x;
}

void set(struct tensor t, int64_t i, int64_t j, int64_t k, int64_t l, float x)
{
    uint32_t bits;

    if (t.type != GV_BF16) {
        memcpy(at(t, i, j, k, l), &x, 4);
        return;
    }
    x = round_bf16(x);
    memcpy(&bits, &x, 4);
    const uint16_t half = (uint16_t)(bits >> 16);
    memcpy(at(t, i, j, k, l), &half, 2);
}

/* The device that shares memory with the cases: opened once and left open. */
static struct device *sharing(void)
{
    static struct device *d;
    struct error          e = { 0 };

    if (!d && gv_device_open(&d, &(struct device_params){ .name = test_device(), .threads = 1 }, &e) != GV_OK)
        fail_msg("%s", e.text);
    return d;
}

void *case_alloc(struct attn_case *k, size_t bytes)
{
    void *p = test_on_cpu() ? aligned_alloc(64, (bytes + 127) / 64 * 64) : test_shared_alloc(sharing(), bytes + 128);

    assert_non_null(p);
    assert_true(k->n_owned < 128);
    memset(p, 0xff, (bytes + 127) / 64 * 64); /* NaN in f32 and bf16 */
    return k->owned[k->n_owned++] = p;
}

struct tensor case_tensor(struct attn_case *k, enum dtype type, int rank, const int64_t *dim, uint64_t *state)
{
    struct tensor t = gv_tensor(NULL, type, rank, dim);
    const int64_t n = gv_tensor_count(t);

    t.data = case_alloc(k, gv_tensor_bytes(t));
    struct tensor flat = gv_tensor(t.data, type, 1, &n);
    for (int64_t i = 0; state && i < n; i++)
        set(flat, i, 0, 0, 0, rnd_normal(state));
    return t;
}

/* A tensor [B, N, A, D] whose rows lie apart, as slices of a fused projection do. */
static struct tensor strided(struct attn_case *k, enum dtype type, const int64_t dim[4], uint64_t *state)
{
    const int64_t wide[4] = { dim[0], dim[1], dim[2] + rnd_to(state, 2), dim[3] };

    return slice(case_tensor(k, type, 4, wide, state), 2, wide[2] - dim[2], dim[2]);
}

static struct attn_partial partial(struct attn_case *k, const struct case_shape *s, enum dtype type)
{
    return (struct attn_partial){ case_tensor(k, type, 4, DIMS(s->B, s->Nq, s->A, s->Dv), NULL),
                                  case_tensor(k, GV_F32, 3, DIMS(s->B, s->A, s->Nq), NULL) };
}

/* ---- plans ---- */

static void make_mask(struct attn_case *k, const struct case_shape *s, uint64_t *state)
{
    struct attn_mask *m = &k->plan.mask;

    m->kind = s->with & WITH_MASK ? (enum attn_mask_kind)(1 + rnd_to(state, 4)) : MASK_NONE;
    m->a = m->kind == MASK_BLOCK_CAUSAL ? 1 + rnd_to(state, 90) : rnd_to(state, 100);
    m->b = rnd_to(state, 50);
    m->sink = rnd_to(state, 20);
    m->query_start = rnd_to(state, 30);
    for (int i = 0; i < s->n_sources; i++)
        m->key_start[i] = rnd_to(state, 30);
    uint8_t  *qseg = case_alloc(k, (size_t)s->Nq), *kseg = case_alloc(k, (size_t)s->N[0]);
    uint64_t *allow = case_alloc(k, 64 * sizeof *allow);
    for (int i = 0; i < s->Nq; i++)
        qseg[i] = (uint8_t)rnd_to(state, 64);
    for (int i = 0; i < s->N[0]; i++)
        kseg[i] = (uint8_t)rnd_to(state, 64);
    for (int i = 0; i < 64; i++)
        allow[i] = rnd(state);
    m->qseg = qseg;
    m->kseg = kseg;
    m->allow = allow;
}

/* May the entry go unmasked in this tile? */
static bool all_allowed(const struct attn_case *k, int64_t tile, gv_kv_entry e)
{
    for (int64_t i = tile * GV_TILE_Q; i < k->rows && i < (tile + 1) * GV_TILE_Q; i++)
        for (uint32_t n = 0; n < kv_length(e); n++) {
            const int64_t q = present(k->c.q_order) ? ((const int32_t *)k->c.q_order.data)[i] : i;
            if (!gv_mask_allows(&k->plan.mask, q, (int)kv_source(e), kv_start(e) + n))
                return false;
        }
    return true;
}

/* Disjoint segments of random lengths, half of them aligned, shared out to (part, masked). */
static uint32_t make_row(struct attn_case *k, const struct case_shape *s, int64_t tile, gv_kv_entry *out, uint32_t *split,
                         uint64_t *state)
{
    gv_kv_entry *list[4];
    uint32_t     n[4] = { 0 }, total = 0;
    const bool   aligned = rnd_to(state, 2);

    for (int i = 0; i < 4; i++)
        list[i] = malloc(4096 * sizeof **list);
    for (int src = 0; src < s->n_sources; src++)
        for (int64_t at_key = 0; at_key < s->N[src] && !k->c.source[src].always;) {
            int64_t length = aligned ? GV_KV_BLOCK : 1 + rnd_to(state, GV_KV_BLOCK);
            if (length > s->N[src] - at_key)
                length = s->N[src] - at_key;
            if (rnd_to(state, 3)) {
                gv_kv_entry e = kv_entry((uint32_t)at_key, (uint32_t)length, (uint32_t)src, false);
                const bool  can_mask = k->plan.mask.kind != MASK_SEGMENTS || src == 0;
                if (s->with & WITH_MASK && can_mask && (rnd_to(state, 3) == 0 || !all_allowed(k, tile, e)))
                    e |= 1;
                const int64_t to = (s->with & WITH_SPLIT ? rnd_to(state, 2) * 2 : 0) + (e & 1);
                list[to][n[to]++] = e;
            }
            at_key += aligned || rnd_to(state, 2) ? length : length + rnd_to(state, 40);
        }
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            *split = total;
        memcpy(out + total, list[i], n[i] * sizeof *out);
        total += n[i];
        free(list[i]);
    }
    return total;
}

static void make_plan(struct attn_case *k, const struct case_shape *s, uint64_t *state)
{
    struct attn_plan *p = &k->plan;

    p->tile_q = GV_TILE_Q;
    p->tiles = (int)((k->rows + GV_TILE_Q - 1) / GV_TILE_Q);
    p->batch = rnd_to(state, 2) ? s->B : 1;
    p->list_heads = rnd_to(state, 2) ? s->A : rnd_to(state, 2) ? s->A_kv : 1;
    p->density = 0.5;
    make_mask(k, s, state);
    const int64_t rows = (int64_t)p->batch * p->list_heads * p->tiles;
    int64_t       keys = 0;
    for (int i = 0; i < s->n_sources; i++)
        keys += s->N[i];
    uint32_t    *row = case_alloc(k, (size_t)(rows + 1) * sizeof *row), *split = case_alloc(k, (size_t)rows * sizeof *split);
    gv_kv_entry *entries = case_alloc(k, (size_t)(rows * keys + 1) * sizeof *entries);
    row[0] = 0;
    for (int64_t i = 0; i < rows; i++) {
        uint32_t cut = 0, n = make_row(k, s, i % p->tiles, entries + row[i], &cut, state);
        if (s->with & WITH_EMPTY_ROWS && rnd_to(state, 3) == 0)
            n = cut = 0;
        split[i] = row[i] + cut;
        row[i + 1] = row[i] + n;
    }
    p->row = row;
    p->entries = entries;
    p->split = s->with & WITH_SPLIT ? split : NULL;
    if (s->with & WITH_SKIP) {
        uint32_t *skip = case_alloc(k, (size_t)(rows / 32 + 1) * sizeof *skip);
        for (int64_t i = 0; i <= rows / 32; i++)
            skip[i] = (uint32_t)rnd(state);
        k->c.skip = skip;
    }
}

/* ---- calls ---- */

static void make_order(struct attn_case *k, const struct case_shape *s, uint64_t *state)
{
    k->rows = s->Nq - rnd_to(state, s->Nq / 3 + 1);
    k->c.q_order = case_tensor(k, GV_I32, 1, DIMS(s->Nq), NULL);
    int32_t *order = k->c.q_order.data;
    for (int i = 0; i < s->Nq; i++) {
        const int64_t j = rnd_to(state, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    k->c.q_order = slice(k->c.q_order, 0, 0, k->rows);
}

static void make_source(struct attn_case *k, const struct case_shape *s, int i, uint64_t *state)
{
    struct attn_source *src = &k->c.source[i];
    const int64_t       B = rnd_to(state, 2) ? s->B : 1;

    src->k = strided(k, s->type, DIMS(B, s->N[i], s->A_kv, s->D), state);
    src->v = strided(k, s->type, DIMS(B, s->N[i], s->A_kv, s->Dv), state);
    src->always = s->with & WITH_ALWAYS && i == s->n_sources - 1;
    if (!(s->with & WITH_WEIGHTS))
        return;
    src->log_weight = rnd_normal(state);
    if (rnd_to(state, 2))
        src->key_bias = case_tensor(k, GV_F32, 1, DIMS(s->N[i]), state);
}

void case_make(struct attn_case *k, const struct case_shape *s, uint64_t *state)
{
    memset(k, 0, sizeof *k);
    k->rows = s->Nq;
    k->c.n_sources = s->n_sources;
    k->c.q = strided(k, s->type, DIMS(s->B, s->Nq, s->A, s->D), state);
    for (int i = 0; i < s->n_sources; i++)
        make_source(k, s, i, state);
    k->c.out = partial(k, s, s->out);
    k->c.scale = rnd_to(state, 2) ? 0 : 0.3f;
    if (s->with & WITH_ORDER)
        make_order(k, s, state);
    if (s->with & WITH_LISTS) {
        make_plan(k, s, state);
        k->c.plan = &k->plan;
    }
    if (s->with & WITH_BIAS)
        k->c.bias = case_tensor(k, GV_F32, 3, DIMS(s->A, s->Nq, s->N[0]), state);
    if (s->with & WITH_SPLIT) {
        k->first = partial(k, s, s->out);
        k->c.first = &k->first;
    }
    if (s->with & WITH_SEED) {
        k->seed = partial(k, s, s->out);
        k->c.seed = &k->seed;
        for (int64_t i = 0; i < (int64_t)s->B * s->Nq * s->A; i++) {
            const int64_t b = i / s->A / s->Nq, n = i / s->A % s->Nq, a = i % s->A;
            const bool    empty = rnd_to(state, 4) == 0;
            set(k->seed.lse, b, a, n, 0, empty ? -INFINITY : rnd_normal(state) + 3);
            for (int d = 0; d < s->Dv; d++)
                set(k->seed.o, b, n, a, d, empty ? 0 : rnd_normal(state));
        }
    }
}

void case_poison(struct attn_case *k)
{
    memset(k->c.out.o.data, 0xff, gv_tensor_bytes(k->c.out.o));
    memset(k->c.out.lse.data, 0xff, gv_tensor_bytes(k->c.out.lse));
    if (k->c.first) {
        memset(k->first.o.data, 0xff, gv_tensor_bytes(k->first.o));
        memset(k->first.lse.data, 0xff, gv_tensor_bytes(k->first.lse));
    }
}

void case_free(struct attn_case *k)
{
    for (int i = 0; i < k->n_owned; i++) {
        if (test_on_cpu())
            free(k->owned[i]);
        else
            test_shared_free(sharing(), k->owned[i], 0);
    }
    k->n_owned = 0;
}

/* ---- truth ---- */

/* Scores of one query's keys, gathered in any order; then the softmax in float64. */
struct gathered {
    int     n;
    double *score, *weight;
    double (*value)[384];
};

static void gather(struct gathered *g, const struct attn_case *k, int64_t b, int64_t h, int64_t q, int src, int64_t key)
{
    const struct attn_call   *c = &k->c;
    const struct attn_source *s = &c->source[src];
    const int64_t             kv = h / (c->q.dim[2] / s->k.dim[2]), kb = s->k.dim[0] == 1 ? 0 : b;
    double                    x = 0;

    for (int64_t d = 0; d < c->q.dim[3]; d++)
        x += (double)get(c->q, b, q, h, d) * (double)get(s->k, kb, key, kv, d);
    x = x * (c->scale != 0 ? (double)c->scale : 1 / sqrt((double)c->q.dim[3])) + (double)s->log_weight;
    if (present(s->key_bias))
        x += (double)get(s->key_bias, key, 0, 0, 0);
    if (present(c->bias) && src == 0)
        x += (double)get(c->bias, h, q, key, 0);
    g->score[g->n] = x;
    for (int64_t d = 0; d < s->v.dim[3]; d++)
        g->value[g->n][d] = (double)get(s->v, kb, key, kv, d);
    g->n++;
}

static void gather_seed(struct gathered *g, const struct attn_case *k, int64_t b, int64_t h, int64_t q)
{
    if (!k->c.seed || get(k->seed.lse, b, h, q, 0) == -INFINITY)
        return;
    g->score[g->n] = (double)get(k->seed.lse, b, h, q, 0);
    for (int64_t d = 0; d < k->seed.o.dim[3]; d++)
        g->value[g->n][d] = (double)get(k->seed.o, b, q, h, d);
    g->n++;
}

static void soften(struct gathered *g, int64_t Dv, double *o, double *lse, double *bf16_error)
{
    double m = -INFINITY, sum = 0;

    for (int i = 0; i < g->n; i++)
        m = fmax(m, g->score[i]);
    for (int i = 0; i < g->n; i++)
        sum += g->weight[i] = exp(g->score[i] - m);
    *lse = g->n ? m + log(sum) : -INFINITY;
    for (int64_t d = 0; d < Dv; d++) {
        double exact = 0, rounded = 0;
        for (int i = 0; i < g->n; i++) {
            exact += g->weight[i] * g->value[i][d];
            rounded += (double)round_bf16((float)g->weight[i]) * g->value[i][d];
        }
        o[d] = g->n ? exact / sum : 0;
        if (g->n && bf16_error)
            *bf16_error = fmax(*bf16_error, fabs((double)round_bf16((float)(rounded / sum)) - o[d]));
    }
}

static void true_row(struct truth *t, const struct attn_case *k, struct gathered *g, int64_t b, int64_t h, int64_t i)
{
    const struct attn_call *c = &k->c;
    const struct attn_plan *p = c->plan;
    const int64_t           Nq = c->q.dim[1], A = c->q.dim[2], Dv = c->out.o.dim[3];
    const int64_t           q = present(c->q_order) ? ((const int32_t *)c->q_order.data)[i] : i;
    const int64_t           out = (b * Nq + q) * A + h, row = (b * A + h) * Nq + q;

    g->n = 0;
    gather_seed(g, k, b, h, q);
    if (p) {
        const int64_t r = ((p->batch == 1 ? 0 : b) * p->list_heads + h * p->list_heads / A) * p->tiles + i / GV_TILE_Q;
        if (c->skip && c->skip[r / 32] >> r % 32 & 1)
            return;
        for (uint32_t e = p->row[r]; e < p->row[r + 1]; e++) {
            if (p->split && e == p->split[r])
                soften(g, Dv, t->first_o + out * Dv, t->first_lse + row, NULL);
            for (uint32_t n = 0; n < kv_length(p->entries[e]); n++) {
                const int64_t key = kv_start(p->entries[e]) + n;
                if (!kv_masked(p->entries[e]) || gv_mask_allows(&p->mask, q, (int)kv_source(p->entries[e]), key))
                    gather(g, k, b, h, q, (int)kv_source(p->entries[e]), key);
            }
        }
        if (p->split && p->split[r] == p->row[r + 1])
            soften(g, Dv, t->first_o + out * Dv, t->first_lse + row, NULL);
    }
    for (int s = 0; s < c->n_sources; s++)
        for (int64_t key = 0; (!p || c->source[s].always) && key < c->source[s].k.dim[1]; key++)
            gather(g, k, b, h, q, s, key);
    soften(g, Dv, t->o + out * Dv, t->lse + row, &t->bf16_error);
    t->touched[row] = 1;
}

void truth_make(struct truth *t, const struct attn_case *k)
{
    const int64_t  *q = k->c.q.dim, n = q[0] * q[1] * q[2], Dv = k->c.out.o.dim[3];
    int64_t         keys = 1;
    struct gathered g;

    for (int i = 0; i < k->c.n_sources; i++)
        keys += k->c.source[i].k.dim[1];
    g.score = malloc((size_t)keys * sizeof *g.score);
    g.weight = malloc((size_t)keys * sizeof *g.weight);
    g.value = malloc((size_t)keys * sizeof *g.value);
    *t = (struct truth){ .o = calloc((size_t)(n * Dv), sizeof(double)),
                         .lse = calloc((size_t)n, sizeof(double)),
                         .first_o = calloc((size_t)(n * Dv), sizeof(double)),
                         .first_lse = calloc((size_t)n, sizeof(double)),
                         .touched = calloc((size_t)n, 1) };
    for (int64_t b = 0; b < q[0]; b++)
        for (int64_t h = 0; h < q[2]; h++)
            for (int64_t i = 0; i < k->rows; i++)
                true_row(t, k, &g, b, h, i);
    free(g.score);
    free(g.weight);
    free(g.value);
}

void truth_free(struct truth *t)
{
    free(t->o);
    free(t->lse);
    free(t->first_o);
    free(t->first_lse);
    free(t->touched);
}

/* -inf equals -inf; a NaN is infinitely far from anything. */
static double apart(double a, double b)
{
    if (isinf(a) && a == b)
        return 0;
    return isnan(a) ? INFINITY : fabs(a - b);
}

struct difference compare(const struct attn_case *k, const struct attn_partial *p, const double *o, const double *lse,
                          const struct truth *t)
{
    const int64_t    *d = p->o.dim;
    double            scale = 0;
    struct difference x = { .untouched = true };

    for (int64_t b = 0; b < d[0]; b++)
        for (int64_t n = 0; n < d[1]; n++)
            for (int64_t a = 0; a < d[2]; a++) {
                const int64_t row = (b * d[2] + a) * d[1] + n;
                if (!t->touched[row]) {
                    x.untouched &=
                        isnan(get(p->o, b, n, a, 0)) && isnan(get(p->o, b, n, a, d[3] - 1)) && isnan(get(p->lse, b, a, n, 0));
                    continue;
                }
                const double rel = isinf(lse[row]) ? 1 : fmax(1, fabs(lse[row]));
                x.lse = fmax(x.lse, apart((double)get(p->lse, b, a, n, 0), lse[row]) / rel);
                for (int64_t i = 0; i < d[3]; i++) {
                    const double want = o[((b * d[1] + n) * d[2] + a) * d[3] + i];
                    x.o = fmax(x.o, apart((double)get(p->o, b, n, a, i), want));
                    scale = fmax(scale, fabs(want));
                }
            }
    (void)k;
    x.o /= scale > 0 ? scale : 1;
    return x;
}

/* ---- devices ---- */

const char *const levels[4] = { "c", "avx2", "avx512", "avx512bf16" };

bool level_open(struct device **d, const char *level, int threads)
{
    static const unsigned need[4] = { 0, CPU_AVX2, CPU_AVX512, CPU_AVX512BF16 };
    unsigned              flags = 0;
    struct error          e = { 0 };

    if (!test_on_cpu()) { /* one device, in the place of the plainest level */
        if (!strcmp(level, "c") && gv_device_open(d, &(struct device_params){ .name = test_device() }, &e) != GV_OK)
            fail_msg("%s", e.text);
        return !strcmp(level, "c");
    }
    assert_true(gv_cpu_detect(&flags, level));
    for (int i = 0; i < 4; i++)
        if (!strcmp(level, levels[i]) && (flags & need[i]) != need[i]) {
            printf("skipped: this processor has no %s\n", level);
            return false;
        }
    if (gv_device_open(d, &(struct device_params){ .name = "cpu", .threads = threads, .cpu_level = level }, &e) != GV_OK)
        fail_msg("%s", e.text);
    return true;
}

void run_call(struct device *d, enum dtype compute, const struct attn_call *c)
{
    struct run   r;
    struct error e = { 0 };

    if (gv_run_open(&r, d, compute, 64 << 20, &e) != GV_OK)
        fail_msg("%s", e.text);
    gv_attention(&r, c);
    gv_sync(&r);
    if (r.err.code != GV_OK)
        fail_msg("%s", r.err.text);
    gv_run_close(&r);
}
