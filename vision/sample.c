#include "vision/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

struct candidate {
    float   logit;
    int32_t id;
};

/* ---- generation_config.json ---- */

gv_status gv_sample_config_read(struct sample_config *c, const struct json_view *v)
{
    int ids[GV_STOP_IDS];
    c->repetition = gv_json_number(v, "repetition_penalty", 0.01, 100, 1);
    if (json_is_array(json_object_get(v->value, "eos_token_id"))) {
        c->n_stop = gv_json_ints(v, "eos_token_id", 0, INT32_MAX, ids, 0, GV_STOP_IDS, false);
        for (int i = 0; i < c->n_stop; i++)
            c->stop[i] = ids[i];
    } else if (gv_json_has(v, "eos_token_id")) {
        c->stop[0] = (int32_t)gv_json_int(v, "eos_token_id", 0, INT32_MAX, GV_JSON_REQUIRED);
        c->n_stop = 1;
    }
    return gv_json_done(v);
}

bool gv_sample_stops(const struct sample_config *c, int32_t id)
{
    for (int i = 0; i < c->n_stop; i++)
        if (c->stop[i] == id)
            return true;
    return false;
}

/* ---- a text ---- */

gv_status gv_text_sampler_open(struct text_sampler *s, int vocabulary, const struct sample_opts *o, struct error *e)
{
    *s = (struct text_sampler){ .opts = *o, .n = vocabulary };
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return gv_fail(e, GV_ERR_ARGUMENT, "temperature is %g; 0 to 100 are possible", o->temperature);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return gv_fail(e, GV_ERR_ARGUMENT, "top_p is %g; 0 to 1 are possible", o->top_p);
    if (o->top_k < 0)
        return gv_fail(e, GV_ERR_ARGUMENT, "top_k is %d; 0 and more are possible", o->top_k);
    if (!(o->repetition >= 0 && o->repetition <= 100))
        return gv_fail(e, GV_ERR_ARGUMENT, "repetition_penalty is %g; 0 to 100 are possible", o->repetition);
    s->work = malloc((size_t)vocabulary * sizeof *s->work);
    s->seen = calloc((size_t)vocabulary, 1);
    s->candidate = malloc((size_t)vocabulary * sizeof *s->candidate);
    if (s->work && s->seen && s->candidate)
        return GV_OK;
    gv_text_sampler_close(s);
    return gv_fail(e, GV_ERR_MEMORY, "no memory to choose among %d tokens", vocabulary);
}

void gv_text_sampler_close(struct text_sampler *s)
{
    free(s->work);
    free(s->seen);
    free(s->candidate);
    *s = (struct text_sampler){ 0 };
}

void gv_text_sampler_see(struct text_sampler *s, const int32_t *ids, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < s->n)
            s->seen[ids[i]] = 1;
}

static void penalise(struct text_sampler *s)
{
    const float p = (float)s->opts.repetition;
    for (int i = 0; i < s->n && p > 0; i++)
        if (s->seen[i])
            s->work[i] = s->work[i] < 0 ? s->work[i] * p : s->work[i] / p;
}

static int32_t best(const struct text_sampler *s)
{
    int32_t at = 0;
    for (int32_t i = 1; i < s->n; i++)
        if (s->work[i] > s->work[at])
            at = i;
    return at;
}

/* Largest first; equal ones by id, so that the order is one. */
static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Candidates that top-k leaves; as the reference, those equal to the k-th stay too. */
static int within_top_k(const struct text_sampler *s)
{
    int n = s->n, k = s->opts.top_k;
    if (k > 0 && k < n) {
        for (n = k; n < s->n && s->candidate[n].logit >= s->candidate[k - 1].logit;)
            n++;
    }
    return n;
}

/* Uniform in [0, 1) from (seed, step). */
static double uniform(const struct text_sampler *s)
{
    uint32_t       out[4];
    const uint32_t counter[4] = { s->step, 0, 0, 0x74657874 },
                   key[2] = { (uint32_t)s->opts.seed, (uint32_t)(s->opts.seed >> 32) };
    gv_philox(out, counter, key);
    return ((double)(out[0] >> 5) * 67108864 + (double)(out[1] >> 6)) / 9007199254740992.0;
}

static int32_t draw(struct text_sampler *s)
{
    for (int i = 0; i < s->n; i++)
        s->candidate[i] = (struct candidate){ (float)((double)s->work[i] / s->opts.temperature), i };
    qsort(s->candidate, (size_t)s->n, sizeof *s->candidate, by_logit);
    int    n = within_top_k(s), left = n;
    double sum = 0, kept = 0, most = (double)s->candidate[0].logit;
    for (int i = 0; i < n; i++)
        sum += exp((double)s->candidate[i].logit - most);
    double nucleus = s->opts.top_p > 0 && s->opts.top_p < 1 ? s->opts.top_p * sum : sum * 2;
    for (int i = 0; i < n && left == n; i++) { /* the first that reaches top_p is the last that stays */
        kept += exp((double)s->candidate[i].logit - most);
        if (kept >= nucleus)
            left = i + 1;
    }
    double at = uniform(s) * kept, passed = 0;
    for (int i = 0; i < left; i++) {
        passed += exp((double)s->candidate[i].logit - most);
        if (at < passed)
            return s->candidate[i].id;
    }
    return s->candidate[left - 1].id;
}

int32_t gv_text_sampler_next(struct text_sampler *s, const float *logits)
{
    memcpy(s->work, logits, (size_t)s->n * sizeof *logits);
    penalise(s);
    int32_t id = s->opts.temperature > 0 ? draw(s) : best(s);
    s->step++;
    gv_text_sampler_see(s, &id, 1);
    return id;
}
