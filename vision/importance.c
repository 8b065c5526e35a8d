/* No attention matrix is made. With L_i the log of row i's sum (attention's LSE) and A_ij = exp(s_ij - L_i):
 *
 *   received by j   Σ_i A_ij = exp(log Σ_i exp(s_ij - L_i))   the LSE of attention with q and k changed places and -L as bias of keys
 *   read by sinks   Σ_{k in K} A_kj                           the same with the bias of all but the sinks at minus infinity
 *
 * so it runs on every device that has attention, in the memory of one head.
 *
 * What would surprise you: the published code takes the mean over the sinks, its paper a sum; only ranks matter. Where no patch is a
 * sink the strongest one is. */
#include "vision/importance.h"

#include <math.h>
#include <stdlib.h>

#include "attention/attention.h"

/* lse [A, N] of head by head: queries k, keys q with a bias each. */
static void backwards(struct run *r, struct tensor q, struct tensor k, struct tensor bias, struct tensor lse)
{
    const int64_t n = q.dim[1], d = q.dim[3];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor o = gv_scratch(r, r->compute, 4, DIMS(1, n, 1, d));
    for (int64_t a = 0; a < q.dim[2] && gv_run_ready(r); a++)
        gv_attention(
            r, &(struct attn_call){ .q = slice(k, 2, a, 1),
                                    .n_sources = 1,
                                    .source[0] = { .k = slice(q, 2, a, 1), .v = slice(q, 2, a, 1), .key_bias = row(bias, a) },
                                    .out = { .o = o, .lse = reshape(row(lse, a), 3, DIMS(1, 1, n)) } });
    arena_release(&r->scratch, mark);
}

/* received → which patches are sinks; how many. */
static int64_t find_sinks(const double *received, int64_t n, double sink, uint8_t *is_sink)
{
    double  mean = 0;
    int64_t count = 0, best = 0;
    for (int64_t i = 0; i < n; i++) {
        mean += received[i] / (double)n;
        best = received[i] > received[best] ? i : best;
    }
    for (int64_t i = 0; i < n; i++)
        count += is_sink[i] = received[i] > sink * mean;
    if (!count)
        count = is_sink[best] = 1;
    return count;
}

/* out[i] = mean over heads of exp(lse[a, i]) / by */
static void mean_of_heads(double *out, const float *lse, int64_t heads, int64_t n, double by)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = 0;
        for (int64_t a = 0; a < heads; a++)
            out[i] += exp((double)lse[a * n + i]) / (by * (double)heads);
    }
}

/* Host memory of one tile. */
struct tile {
    float   *full, *lse; /* [A, N] */
    double  *value;      /* [N] */
    uint8_t *is_sink;    /* [N] */
};

static void one_tile(struct run *r, struct tensor q, struct tensor k, double sink, struct tile *t, float *map)
{
    const int64_t n = q.dim[1], heads = q.dim[2];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor o = gv_scratch(r, r->compute, 4, q.dim), full = gv_scratch(r, GV_F32, 2, DIMS(heads, n)),
                  bias = gv_scratch(r, GV_F32, 2, DIMS(heads, n)), lse = gv_scratch(r, GV_F32, 2, DIMS(heads, n));
    if (gv_run_ready(r))
        gv_attention(r, &(struct attn_call){ .q = q,
                                             .n_sources = 1,
                                             .source[0] = { .k = k, .v = k },
                                             .out = { .o = o, .lse = reshape(full, 3, DIMS(1, heads, n)) } });
    gv_lincomb(r, bias, 1, &(struct lincomb_term){ -1, full });
    backwards(r, q, k, bias, lse);
    int64_t sinks = 1;
    if (map && gv_run_ready(r)) {
        gv_download(r, t->full, full);
        gv_download(r, t->lse, lse);
        mean_of_heads(t->value, t->lse, heads, n, 1);
        sinks = find_sinks(t->value, n, sink, t->is_sink);
        for (int64_t i = 0; i < heads * n; i++)
            t->full[i] = t->is_sink[i % n] ? -t->full[i] : -1e30F;
        gv_upload(r, bias, t->full);
        gv_sync(r);
    }
    backwards(r, q, k, bias, lse);
    if (map && gv_run_ready(r)) {
        gv_download(r, t->lse, lse);
        mean_of_heads(t->value, t->lse, heads, n, (double)sinks);
        for (int64_t i = 0; i < n; i++)
            map[i] = (float)t->value[i];
    }
    arena_release(&r->scratch, mark);
}

void gv_importance_attention(struct run *r, struct tensor q, struct tensor k, double sink, float *map)
{
    if (!gv_run_ready(r))
        return;
    const size_t n = (size_t)q.dim[1], all = (size_t)q.dim[2] * n;
    struct tile  t = { malloc(all * sizeof *t.full), malloc(all * sizeof *t.lse), malloc(n * sizeof *t.value), malloc(n) };
    if (!t.full || !t.lse || !t.value || !t.is_sink)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the importance of %zu patches", n);
    for (int64_t b = 0; b < q.dim[0] && gv_run_ready(r); b++)
        one_tile(r, slice(q, 0, b, 1), slice(k, 0, b, 1), sink, &t, map ? map + b * (int64_t)n : NULL);
    free(t.full);
    free(t.lse);
    free(t.value);
    free(t.is_sink);
}

/* ---- detail ---- */

double gv_patch_entropy(const struct patch_rows *rows, int64_t i)
{
    const float *at = rows->values + i * rows->stride;
    int          count[256] = { 0 };
    double       bits = 0;
    for (int p = 0; p < rows->pixels; p++) {
        double grey = 0;
        for (int c = 0; c < 3; c++)
            grey += ((double)at[c * rows->plane + p] * (double)rows->std[c] + (double)rows->mean[c]) * 85;
        count[grey <= 0 ? 0 : grey >= 255 ? 255 : (int)(grey + 0.5)]++;
    }
    for (int g = 0; g < 256; g++)
        bits -= count[g] ? (double)count[g] / rows->pixels * log2((double)count[g] / rows->pixels) : 0;
    return bits;
}

void gv_importance_entropy(float *map, int64_t n, const struct patch_rows *rows, double entropy)
{
    double sum = 0;
    for (int64_t i = 0; i < n && entropy != 0; i++)
        sum += exp(gv_patch_entropy(rows, i)); /* at most 256 greys: no overflow */
    for (int64_t i = 0; i < n && entropy != 0; i++)
        map[i] += (float)(entropy * exp(gv_patch_entropy(rows, i)) / sum);
}
