/* The process: a Matérn kernel of 5/2 over the box scaled to a unit cube, values scaled to mean 0 and deviation 1; its length and the
 * noise are those of a small grid under which the values are likeliest. Expected improvement: Jones, Schonlau and Welch 1998; the
 * settings around it (first points at random, a tenth of the trials and two an axis at least; improvement by 0.01; many
 * random candidates instead of a gradient) are those of scikit-optimize, which VFlowOpt's authors run.
 *
 * What would surprise you: the function may jump (counts of tokens are whole), so noise is never nothing. */
#include "pipelines/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

enum { CANDIDATES = 2000, NEAR = 500, ATTEMPTS = 20000 };
static const double LEAST_GAIN = 0.01, NEARBY = 0.05;
static const double lengths[] = { 0.1, 0.2, 0.4, 0.8, 1.6 }, noises[] = { 1e-4, 1e-2, 1e-1 };

struct asking {
    const struct search *s;
    uint32_t             drawn; /* numbers so far */
    int                  n;
    double              *x, *y;         /* [trials, axes] in the unit cube, [trials] */
    double              *scaled;        /* y, of mean 0 and deviation 1 */
    double              *root, *weight; /* [n, n] Cholesky's factor of the kernel, [n] kernel⁻¹ · scaled */
    double              *column;        /* [n] */
    double               length, noise;
};

static double uniform(struct asking *a)
{
    uint32_t word[4];
    gv_philox(word, (const uint32_t[4]){ a->drawn++, 0, 0, 0 },
              (const uint32_t[2]){ (uint32_t)a->s->seed, (uint32_t)(a->s->seed >> 32) });
    return (word[0] + 0.5) / 4294967296.0;
}

static double normal(struct asking *a)
{
    const double u = uniform(a), v = uniform(a);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* From the unit cube to the box. */
static void place(const struct search *s, const double *x, double *out)
{
    for (int i = 0; i < s->axes; i++)
        out[i] = s->least[i] + x[i] * (s->most[i] - s->least[i]);
}

static bool possible(const struct search *s, const double *x)
{
    double at[GV_SEARCH_AXES];
    place(s, x, at);
    return !s->possible || s->possible(s->user, at);
}

static bool draw(struct asking *a, double *x)
{
    for (int k = 0; k < ATTEMPTS; k++) {
        for (int i = 0; i < a->s->axes; i++)
            x[i] = uniform(a);
        if (possible(a->s, x))
            return true;
    }
    return false;
}

/* ---- the process ---- */

static double kernel(const struct asking *a, const double *x, const double *y)
{
    double sum = 0;
    for (int i = 0; i < a->s->axes; i++)
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    const double d = sqrt(5 * sum) / a->length;
    return (1 + d + d * d / 3) * exp(-d);
}

/* out = root⁻¹ · in; may be the same. */
static void forward(const struct asking *a, double *out, const double *in)
{
    for (int i = 0; i < a->n; i++) {
        double sum = in[i];
        for (int k = 0; k < i; k++)
            sum -= a->root[i * a->n + k] * out[k];
        out[i] = sum / a->root[i * a->n + i];
    }
}

/* Fits root and weight under a->length and a->noise; the log of the values' likelihood, but for a constant. */
static double fit(struct asking *a)
{
    const int n = a->n;
    double    likelihood = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = kernel(a, a->x + i * a->s->axes, a->x + j * a->s->axes) + (i == j ? a->noise : 0);
            for (int k = 0; k < j; k++)
                sum -= a->root[i * n + k] * a->root[j * n + k];
            a->root[i * n + j] = i == j ? sqrt(fmax(sum, 1e-12)) : sum / a->root[j * n + j];
        }
    forward(a, a->weight, a->scaled);
    for (int i = 0; i < n; i++)
        likelihood -= a->weight[i] * a->weight[i] / 2 + log(a->root[i * n + i]);
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++)
            a->weight[i] -= a->root[k * n + i] * a->weight[k];
        a->weight[i] /= a->root[i * n + i];
    }
    return likelihood;
}

static void learn(struct asking *a)
{
    double mean = 0, square = 0, most = -INFINITY, best[2] = { lengths[0], noises[0] };
    for (int i = 0; i < a->n; i++)
        mean += a->y[i] / a->n;
    for (int i = 0; i < a->n; i++)
        square += (a->y[i] - mean) * (a->y[i] - mean) / a->n;
    for (int i = 0; i < a->n; i++)
        a->scaled[i] = square > 0 ? (a->y[i] - mean) / sqrt(square) : 0;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t k = 0; k < sizeof noises / sizeof *noises; k++) {
            a->length = lengths[l];
            a->noise = noises[k];
            const double likelihood = fit(a);
            if (likelihood > most) {
                most = likelihood;
                best[0] = a->length;
                best[1] = a->noise;
            }
        }
    a->length = best[0];
    a->noise = best[1];
    fit(a);
}

/* Expected improvement over `most` at x. */
static double promise(const struct asking *a, const double *x, double most)
{
    double mean = 0, variance = 1;
    for (int i = 0; i < a->n; i++)
        mean += a->weight[i] * (a->column[i] = kernel(a, x, a->x + i * a->s->axes));
    forward(a, a->column, a->column);
    for (int i = 0; i < a->n; i++)
        variance -= a->column[i] * a->column[i];
    if (variance <= 1e-12)
        return 0;
    const double deviation = sqrt(variance), gain = mean - most - LEAST_GAIN, z = gain / deviation;
    return gain * 0.5 * erfc(-z / sqrt(2)) + deviation * exp(-z * z / 2) / sqrt(6.283185307179586);
}

/* ---- the search ---- */

static int best_of(const double *y, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = y[i] > y[best] ? i : best;
    return best;
}

/* The candidate that promises most: anywhere, and around the best so far. */
static bool choose(struct asking *a, double *x)
{
    const int     axes = a->s->axes, best = best_of(a->y, a->n);
    const double *top = a->x + best * axes;
    double        most = -1, candidate[GV_SEARCH_AXES];
    learn(a);
    if (!draw(a, x))
        return false;
    for (int c = 0; c < CANDIDATES + NEAR; c++) {
        for (int i = 0; i < axes; i++)
            candidate[i] = c < CANDIDATES ? uniform(a) : fmin(fmax(top[i] + NEARBY * normal(a), 0), 1);
        const double p = possible(a->s, candidate) ? promise(a, candidate, a->scaled[best]) : -1;
        if (p > most) {
            most = p;
            memcpy(x, candidate, (size_t)axes * sizeof *x);
        }
    }
    return true;
}

static bool next_point(struct asking *a, double *x)
{
    const struct search *s = a->s;
    const int            first = s->trials / 10 > 2 * s->axes ? s->trials / 10 : 2 * s->axes;
    if (!a->n && s->start) {
        for (int i = 0; i < s->axes; i++)
            x[i] = s->most[i] > s->least[i] ? fmin(fmax((s->start[i] - s->least[i]) / (s->most[i] - s->least[i]), 0), 1) : 0;
        if (possible(s, x))
            return true;
    }
    return a->n < first ? draw(a, x) : choose(a, x);
}

static gv_status ask_all(struct asking *a, struct error *e)
{
    const struct search *s = a->s;
    for (; a->n < s->trials; a->n++) {
        double *x = a->x + a->n * s->axes, at[GV_SEARCH_AXES];
        if (!next_point(a, x))
            return gv_fail(e, GV_ERR_ARGUMENT, "no point of the search's box is possible");
        place(s, x, at);
        TRY(s->value(s->user, at, &a->y[a->n], e));
    }
    return GV_OK;
}

gv_status gv_search(const struct search *s, double *best, double *value, struct error *e)
{
    const size_t  n = (size_t)s->trials;
    struct asking a = { .s = s,
                        .x = calloc(n * (size_t)s->axes, sizeof *a.x),
                        .y = calloc(n, sizeof *a.y),
                        .scaled = calloc(n, sizeof *a.scaled),
                        .root = calloc(n * n, sizeof *a.root),
                        .weight = calloc(n, sizeof *a.weight),
                        .column = calloc(n, sizeof *a.column) };
    gv_status     status = a.x && a.y && a.scaled && a.root && a.weight && a.column
                               ? ask_all(&a, e)
                               : gv_fail(e, GV_ERR_MEMORY, "no memory for a search of %d trials", s->trials);
    if (!status) {
        const int at = best_of(a.y, a.n);
        place(s, a.x + at * s->axes, best);
        *value = a.y[at];
    }
    free(a.x);
    free(a.y);
    free(a.scaled);
    free(a.root);
    free(a.weight);
    free(a.column);
    return status;
}
