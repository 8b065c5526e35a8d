/* The row kernels of AVX2 and AVX-512, written once. Included by those two files alone, after each has defined its vector:
 *
 *   vec, LANES            the type and its number of f32
 *   set(f)                all lanes f
 *   get(p, type, i, m)    elements i .. i+m of p, the rest 0; m <= LANES
 *   put(p, type, i, m, v)
 *   plus, minus, times, over, madd(a, b, c) = a·b + c, most, least
 *   sum(v)                of all lanes, in one fixed order
 *   power2(v, n)          v · 2^n, n integral
 *   nearest(v), negative(v, a, b): a where v < 0, else b
 *   only(v, m)            the first m lanes of v, the rest 0
 *   turn_pairs(p, c, s)   rotates the pairs (2i, 2i+1) of p[0 .. 2·LANES) by LANES angles
 *   all_finite(v)
 *
 * Errors: 2^t 1 ulp. SiLU and both GELUs: 3 ulp (2e-7) around 0 and for x > 0; for x << 0, where they vanish, the rounding of the
 * exponent grows with it (1e-6 of the result at x = -5, of which nothing is left beside other values). */
#ifndef GV_CORE_CPU_KERNELS_VEC_H
#define GV_CORE_CPU_KERNELS_VEC_H

static inline int lanes_left(int64_t left)
{
    return left < LANES ? (int)left : LANES;
}

/* ---- exp and what follows from it ------------------------------------------------------------------------------------------ */

/* 2^t = 2^n · 2^f, |f| <= 1/2, (2^f - 1)/f by interpolation at the Chebyshev nodes: error of the fit 5e-9. The bounds keep
 * infinities, which would become NaN in t - n, out of it. */
static inline vec exponential2(vec t)
{
    const vec bounded = least(most(t, set(-126)), set(127)), n = nearest(bounded), f = minus(bounded, n);
    vec       p = set(0.000154531629f);

    p = madd(p, f, set(0.00133908634f));
    p = madd(p, f, set(0.00961808256f));
    p = madd(p, f, set(0.0555035711f));
    p = madd(p, f, set(0.240226508f));
    p = madd(p, f, set(0.693147188f));
    p = madd(p, f, set(1));
    return power2(p, n);
}

#define LOG2E 1.44269504f

/* x / (1 + 2^t) */
static inline vec gated(vec x, vec t)
{
    return over(x, plus(set(1), exponential2(t)));
}

/* x · Φ(x) = x · erfc(-x/√2) / 2, by erfc(z) = t · e^(-z²) · P(t), t = 1/(1 + z/2), z >= 0. P interpolates at the Chebyshev
 * nodes of 0 <= z <= 9.4; the fit's own error is 5e-9. */
static inline vec gelu_erf(vec x)
{
    static const float P[] = { 0.0309257401f, -0.162719941f, 0.308920942f, -0.182796531f, -0.121948905f, 0.097428139f,
                               0.0291269021f, 0.192645385f,  0.243963297f, 0.282371478f,  0.282083495f };
    const vec z = times(most(x, minus(set(0), x)), set(0.707106781f));
    const vec t = over(set(1), madd(z, set(0.5f), set(1)));
    vec       p = set(P[0]);

    for (size_t i = 1; i < sizeof P / sizeof *P; i++)
        p = madd(p, t, set(P[i]));
    const vec tail = times(times(times(p, t), set(0.5f)), exponential2(times(times(z, z), set(-LOG2E))));

    return times(x, negative(x, tail, minus(set(1), tail)));
}

static inline vec activate(vec x, enum act act)
{
    switch (act) {
    case ACT_GELU_TANH: /* (1 + tanh u) / 2 = 1 / (1 + e^-2u) */
        return gated(x, times(x, madd(times(x, x), set(-2 * LOG2E * 0.0356774081f), set(-2 * LOG2E * 0.797884561f))));
    case ACT_GELU_ERF:
        return gelu_erf(x);
    case ACT_SILU:
        return gated(x, times(x, set(-LOG2E)));
    case ACT_QUICK_GELU:
        return gated(x, times(x, set(-LOG2E * 1.702f)));
    case ACT_NONE:
        break;
    }
    return x;
}

/* ---- conversions ------------------------------------------------------------------------------------------------------------ */

static void to_f32_vec(float *dst, const void *src, enum dtype type, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        put(dst, GV_F32, i, lanes_left(n - i), get(src, type, i, lanes_left(n - i)));
}

static void from_f32_vec(void *dst, const float *src, enum dtype type, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        put(dst, type, i, lanes_left(n - i), get(src, GV_F32, i, lanes_left(n - i)));
}

/* ---- pointwise ------------------------------------------------------------------------------------------------------------- */

/* Bodies take the types as arguments that the compiler sees as constants, so that each pair gets its own loop. */
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS void act_body(void *y, enum dtype yt, const void *x, enum dtype xt, int64_t n, enum act act)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const int m = lanes_left(n - i);

        put(y, yt, i, m, activate(get(x, xt, i, m), act));
    }
}

static void act_vec(void *y, enum dtype yt, const void *x, enum dtype xt, int64_t n, enum act act)
{
    if (yt == GV_BF16 && xt == GV_BF16)
        act_body(y, GV_BF16, x, GV_BF16, n, act);
    else if (yt == GV_F32 && xt == GV_F32)
        act_body(y, GV_F32, x, GV_F32, n, act);
    else
        act_body(y, yt, x, xt, n, act);
}

ALWAYS void glu_body(void *y, enum dtype yt, const void *a, enum dtype at, const void *b, enum dtype bt, int64_t n, enum act act)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const int m = lanes_left(n - i);

        put(y, yt, i, m, times(activate(get(a, at, i, m), act), get(b, bt, i, m)));
    }
}

static void glu_vec(void *y, enum dtype yt, const void *a, enum dtype at, const void *b, enum dtype bt, int64_t n, enum act act)
{
    if (yt == GV_BF16 && at == GV_BF16 && bt == GV_BF16)
        glu_body(y, GV_BF16, a, GV_BF16, b, GV_BF16, n, act);
    else
        glu_body(y, yt, a, at, b, bt, n, act);
}

ALWAYS void add_body(void *y, enum dtype yt, const void *a, enum dtype at, const void *b, enum dtype bt, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const int m = lanes_left(n - i);

        put(y, yt, i, m, plus(get(a, at, i, m), get(b, bt, i, m)));
    }
}

static void add_vec(void *y, enum dtype yt, const void *a, enum dtype at, const void *b, enum dtype bt, int64_t n)
{
    if (yt == GV_BF16 && at == GV_BF16 && bt == GV_BF16)
        add_body(y, GV_BF16, a, GV_BF16, b, GV_BF16, n);
    else if (yt == GV_F32 && at == GV_F32 && bt == GV_F32)
        add_body(y, GV_F32, a, GV_F32, b, GV_F32, n);
    else
        add_body(y, yt, a, at, b, bt, n);
}

static void lincomb_vec(float *y, int n_terms, const float *const *x, const float *factor, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const int m = lanes_left(n - i);
        vec       sum = times(set(factor[0]), get(x[0], GV_F32, i, m));

        for (int t = 1; t < n_terms; t++)
            sum = madd(set(factor[t]), get(x[t], GV_F32, i, m), sum);
        put(y, GV_F32, i, m, sum);
    }
}

static bool finite_vec(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        if (!all_finite(get(x, GV_F32, i, lanes_left(n - i))))
            return false;
    return true;
}

/* The body takes what varies between layers as constants, so that the usual ends (bias alone; bias and a residual) are loops
 * without a branch. */
ALWAYS void finish_rows(const struct gemm_finish *f, enum dtype type, enum act act, const float *bias, const float *gate, bool add)
{
    for (int64_t row = 0; row < f->rows; row++) {
        char        *y = (char *)f->y + row * f->y_stride;
        const float *c = f->c + row * f->ldc;

        for (int64_t i = 0; i < f->n; i += LANES) {
            const int m = lanes_left(f->n - i);
            vec       v = get(c, GV_F32, i, m);

            if (bias)
                v = plus(v, get(bias, GV_F32, i, m));
            v = activate(v, act);
            if (gate)
                v = times(v, get(gate, GV_F32, i, m));
            if (add)
                v = plus(v, get(y, type, i, m));
            put(y, type, i, m, v);
        }
    }
}

static void finish_vec(const struct gemm_finish *f)
{
    if (f->act == ACT_NONE && !f->gate && f->bias && f->type == GV_BF16 && !f->add)
        finish_rows(f, GV_BF16, ACT_NONE, f->bias, NULL, false);
    else if (f->act == ACT_NONE && !f->gate && f->bias && f->type == GV_BF16)
        finish_rows(f, GV_BF16, ACT_NONE, f->bias, NULL, true);
    else if (f->act == ACT_NONE && !f->gate && f->bias && f->type == GV_F32)
        finish_rows(f, GV_F32, ACT_NONE, f->bias, NULL, f->add);
    else if (f->type == GV_BF16)
        finish_rows(f, GV_BF16, f->act, f->bias, f->gate, f->add);
    else
        finish_rows(f, f->type, f->act, f->bias, f->gate, f->add);
}

/* ---- norm ------------------------------------------------------------------------------------------------------------------ */

/* Σ (x - mean)², or Σ x with mean NULL: four sums, so that additions do not wait for each other. */
ALWAYS float row_sum(const void *x, enum dtype type, int64_t d, const float *mean)
{
    vec       s[4] = { set(0), set(0), set(0), set(0) };
    const vec centre = set(mean ? *mean : 0);
    int64_t   i = 0;

    for (; i + 4 * LANES <= d; i += 4 * LANES)
        for (int j = 0; j < 4; j++) {
            const vec v = minus(get(x, type, i + j * LANES, LANES), centre);

            s[j] = mean ? madd(v, v, s[j]) : plus(s[j], v);
        }
    for (int j = 0; i < d; i += LANES, j++) {
        const int m = lanes_left(d - i);
        const vec v = minus(get(x, type, i, m), only(centre, m));

        s[j] = mean ? madd(v, v, s[j]) : plus(s[j], v);
    }
    return sum(plus(plus(s[0], s[1]), plus(s[2], s[3])));
}

ALWAYS void row_scale(const struct norm_job *j, const char *x, enum dtype type, float *mean, float *scale)
{
    const float d = (float)j->d;
    float       squares;

    *mean = j->kind == NORM_LAYER ? row_sum(x, type, j->d, NULL) / d : 0;
    squares = row_sum(x, type, j->d, mean);
    if (j->kind == NORM_L2)
        *scale = sqrtf(d) / fmaxf(sqrtf(squares), j->eps);
    else
        *scale = 1 / sqrtf(squares / d + j->eps);
}

/* What differs from row to row. */
struct norm_row {
    const char  *x;
    char        *y;
    float        mean, scale;
    const float *gscale, *gshift; /* of the row's group */
};

ALWAYS vec norm_lanes(const struct norm_job *j, const struct norm_row *r, enum dtype type, int64_t i, int m)
{
    vec v = times(minus(get(r->x, type, i, m), set(r->mean)), set(r->scale));

    if (j->weight)
        v = times(v, get(j->weight, GV_F32, i, m));
    if (j->bias)
        v = plus(v, get(j->bias, GV_F32, i, m));
    if (r->gscale)
        v = madd(v, get(r->gscale, GV_F32, i, m), v);
    if (r->gshift)
        v = plus(v, get(r->gshift, GV_F32, i, m));
    return activate(v, j->act);
}

/* v: whole heads. Heads that are not whole vectors are turned one pair at a time. */
static void rotate_vec(const struct norm_job *j, float *v, int64_t n, int64_t row)
{
    const float *cosine = j->cos + row % j->rope_rows * j->cos_stride, *sine = j->sin + row % j->rope_rows * j->sin_stride;
    const int    half = j->head / 2, step = j->halves ? 1 : 2, apart = j->halves ? half : 1;
    const int    whole = half % LANES == 0 ? half : 0;

    for (int64_t h = 0; h < n; h += j->head) {
        for (int i = 0; i < whole; i += LANES) {
            const vec c = get(cosine, GV_F32, i, LANES), s = get(sine, GV_F32, i, LANES);

            if (j->halves) {
                const vec a = get(v, GV_F32, h + i, LANES), b = get(v, GV_F32, h + half + i, LANES);

                put(v, GV_F32, h + i, LANES, minus(times(a, c), times(b, s)));
                put(v, GV_F32, h + half + i, LANES, madd(a, s, times(b, c)));
            } else {
                turn_pairs(v + h + 2 * i, c, s);
            }
        }
        for (int i = whole; i < half; i++) {
            float      *at = v + h + i * step;
            const float a = at[0], b = at[apart];

            at[0] = a * cosine[i] - b * sine[i];
            at[apart] = a * sine[i] + b * cosine[i];
        }
    }
}

ALWAYS void norm_roped(const struct norm_job *j, const struct norm_row *r, enum dtype yt, enum dtype xt, int64_t row)
{
    const int64_t block = GV_HEAD_MAX / j->head * j->head;
    float         v[GV_HEAD_MAX + LANES];

    for (int64_t at = 0; at < j->d; at += block) {
        const int64_t n = j->d - at < block ? j->d - at : block;

        for (int64_t i = 0; i < n; i += LANES)
            put(v, GV_F32, i, lanes_left(n - i), norm_lanes(j, r, xt, at + i, lanes_left(n - i)));
        rotate_vec(j, v, n, row);
        for (int64_t i = 0; i < n; i += LANES)
            put(r->y, yt, at + i, lanes_left(n - i), get(v, GV_F32, i, lanes_left(n - i)));
    }
}

ALWAYS void norm_body(const struct norm_job *j, enum dtype yt, enum dtype xt, int64_t from, int64_t to)
{
    for (int64_t row = from; row < to; row++) {
        const int64_t   g = j->group ? j->group[row] : 0;
        struct norm_row r = { .x = j->x + row * j->x_stride, .y = j->y + row * j->y_stride,
                              .gscale = j->scale ? j->scale + g * j->scale_stride : NULL,
                              .gshift = j->shift ? j->shift + g * j->shift_stride : NULL };

        row_scale(j, r.x, xt, &r.mean, &r.scale);
        if (j->cos) {
            norm_roped(j, &r, yt, xt, row);
            continue;
        }
        for (int64_t i = 0; i < j->d; i += LANES) {
            const int m = lanes_left(j->d - i);

            put(r.y, yt, i, m, norm_lanes(j, &r, xt, i, m));
        }
    }
}

/* The norms of a VAE: millions of short rows, a weight and an activation at most. NV vectors, a constant: the row stays in
 * registers between the sum and the result. */
ALWAYS void norm_short(const struct norm_job *j, const int NV, const enum act act, int64_t from, int64_t to)
{
    const float d = (float)j->d, root = sqrtf(d);

    for (int64_t row = from; row < to; row++) {
        const char *x = j->x + row * j->x_stride;
        char       *y = j->y + row * j->y_stride;
        vec         v[8], squares = set(0), more = set(0);

#pragma GCC unroll 8
        for (int i = 0; i < NV; i++) {
            v[i] = get(x, GV_BF16, i * LANES, LANES);
            if (i % 2)
                more = madd(v[i], v[i], more);
            else
                squares = madd(v[i], v[i], squares);
        }
        const float total = sum(plus(squares, more));
        const vec   scale = set(j->kind == NORM_L2 ? root / fmaxf(sqrtf(total), j->eps) : 1 / sqrtf(total / d + j->eps));

#pragma GCC unroll 8
        for (int i = 0; i < NV; i++)
            put(y, GV_BF16, i * LANES, LANES, activate(times(times(v[i], scale), get(j->weight, GV_F32, i * LANES, LANES)), act));
    }
}

ALWAYS void norm_short_act(const struct norm_job *j, const int NV, int64_t from, int64_t to)
{
    if (j->act == ACT_SILU)
        norm_short(j, NV, ACT_SILU, from, to);
    else
        norm_short(j, NV, ACT_NONE, from, to);
}

static bool is_short(const struct norm_job *j)
{
    return j->y_type == GV_BF16 && j->x_type == GV_BF16 && j->kind != NORM_LAYER && j->weight && !j->bias && !j->scale && !j->shift &&
           !j->cos && (j->act == ACT_NONE || j->act == ACT_SILU);
}

static void norm_vec(const struct norm_job *j, int64_t from, int64_t to)
{
    if (is_short(j) && j->d == 32)
        norm_short_act(j, 32 / LANES, from, to);
    else if (is_short(j) && j->d == 64)
        norm_short_act(j, 64 / LANES, from, to);
    else if (is_short(j) && j->d == 8 * LANES)
        norm_short_act(j, 8, from, to);
    else if (j->y_type == GV_BF16 && j->x_type == GV_BF16)
        norm_body(j, GV_BF16, GV_BF16, from, to);
    else if (j->y_type == GV_BF16 && j->x_type == GV_F32)
        norm_body(j, GV_BF16, GV_F32, from, to);
    else
        norm_body(j, j->y_type, j->x_type, from, to);
}

static void fill_rows_vec(struct cpu_kernels *k)
{
    k->to_f32 = to_f32_vec;
    k->from_f32 = from_f32_vec;
    k->gemm_finish = finish_vec;
    k->norm = norm_vec;
    k->act = act_vec;
    k->glu = glu_vec;
    k->add = add_vec;
    k->lincomb = lincomb_vec;
    k->finite = finite_vec;
}

#undef ALWAYS

#endif
