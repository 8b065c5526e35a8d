#include "diffusion/step_cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/compare.h"

/* ---- methods: a number a step in, a verdict out ---- */

static bool warm(const struct step_cache *s, double first)
{
    return s->step < (int)first;
}

/* Index of step i of n in a list of m: the nearest. */
static int resampled(int i, int n, int m)
{
    return n > 1 ? (int)floor((double)i * (m - 1) / (n - 1) + 0.5) : 0;
}

enum { MAG_THR, MAG_RUN, MAG_KEEP };
static const struct policy_option mag_options[] = {
    { "thr", "error to add up before a step is computed; 0 = compute all", 0.12, 0, 10 },
    { "k", "steps skipped in a row at most", 4, 1, 1000 },
    { "keep", "first share of the steps, always computed", 0.2, 0, 1 },
    { 0 },
};

static gv_status mag_open(struct step_cache *s, struct error *e)
{
    if (!s->ratio && s->data)
        s->ratio = s->data->ratio, s->n_ratio = s->data->n;
    return s->ratio
               ? GV_OK
               : gv_fail(e, GV_ERR_ARGUMENT,
                         "cache magcache: this model's ratios are not known; genvid calibrate measures them, and easycache and "
                         "firstblock need none");
}

/* k: product of the ratios since the last computed step; sum: of its distances from 1. Ma et al. 2025, algorithm 1. */
static bool mag_skips(struct step_cache *s, double change)
{
    (void)change;
    if (warm(s, s->asked.value[MAG_KEEP] * s->steps))
        return false;
    s->product *= s->ratio[resampled(s->step, s->steps, s->n_ratio)];
    s->sum += fabs(1 - s->product);
    if (s->run < (int)s->asked.value[MAG_RUN] && s->sum < s->asked.value[MAG_THR])
        return true;
    s->product = 1;
    s->sum = 0;
    return false;
}

enum { TEA_THR, TEA_PROJECTED };
static const struct policy_option tea_options[] = {
    { "thr", "change to add up before a step is computed; 0 = compute all, -1 = the model's own", -1, -1, 10 },
    { "ret", "1: look at the projected embedding and compute the first 5 steps; 0: the first and the last", 1, 0, 1 },
    { 0 },
};

static gv_status tea_open(struct step_cache *s, struct error *e)
{
    if (!s->data)
        return gv_fail(
            e, GV_ERR_ARGUMENT,
            "cache teacache: its polynomials are known for Wan 2.1 1.3B and 14B; easycache and firstblock need none");
    if (s->asked.value[TEA_THR] < 0)
        s->asked.value[TEA_THR] = s->data->tea_threshold;
    return GV_OK;
}

static bool tea_skips(struct step_cache *s, double change)
{
    const bool    ret = s->asked.value[TEA_PROJECTED] != 0;
    const double *poly = s->data->poly[ret];
    double        moved = 0;

    if (warm(s, ret ? 5 : 1) || (!ret && s->step == s->steps - 1) || change < 0) {
        s->sum = 0;
        return false;
    }
    for (int i = 0; i < 5; i++)
        moved = moved * change + poly[i];
    s->sum += moved;
    if (s->sum < s->asked.value[TEA_THR])
        return true;
    s->sum = 0;
    return false;
}

enum { FIRST_THR, FIRST_WARM, FIRST_RUN };
static const struct policy_option first_options[] = {
    { "thr", "relative change of what the first block adds, under which the others are skipped", 0.12, 0, 10 },
    { "warm", "first steps, always computed", 8, 1, 1000 },
    { "run", "steps skipped in a row at most; 0 = any number", 0, 0, 1000 },
    { 0 },
};

static bool first_skips(struct step_cache *s, double change)
{
    const int most = (int)s->asked.value[FIRST_RUN];

    return !warm(s, s->asked.value[FIRST_WARM]) && change >= 0 && change < s->asked.value[FIRST_THR] &&
           (!most || s->run < most);
}

enum { EASY_THR, EASY_WARM };
static const struct policy_option easy_options[] = {
    { "thr", "predicted change to add up before a step is computed; 0 = compute all", 0.05, 0, 10 },
    { "warm", "first steps, always computed, as is the last", 10, 2, 1000 },
    { 0 },
};

/* k: how much the output changed for a change of the input, over the last two computed steps. Zhou et al. 2025, eq. 4 and 5. */
static bool easy_skips(struct step_cache *s, double change)
{
    if (warm(s, s->asked.value[EASY_WARM]) || s->step == s->steps - 1 || change < 0 || s->k <= 0) {
        s->sum = 0;
        return false;
    }
    s->sum += s->k * change;
    if (s->sum < s->asked.value[EASY_THR])
        return true;
    s->sum = 0;
    return false;
}

static gv_status schedule_open(struct step_cache *s, struct error *e)
{
    const size_t n = strlen(s->asked.list);

    return n == (size_t)s->steps
               ? GV_OK
               : gv_fail(e, GV_ERR_ARGUMENT, "cache schedule: a list of %zu steps for a clip of %d", n, s->steps);
}

static bool schedule_skips(struct step_cache *s, double change)
{
    (void)change;
    return s->asked.list[s->step] == '0';
}

static bool never_skips(struct step_cache *s, double change)
{
    (void)s, (void)change;
    return false;
}

static const struct policy_option no_options[] = { { 0 } };

static const struct step_method magcache = {
    .name = "magcache",
    .help = "skip by a table of how much the blocks' part shrinks from step to step",
    .options = mag_options,
    .signal = SIGNAL_STEP,
    .open = mag_open,
    .skips = mag_skips,
};
static const struct step_method teacache = {
    .name = "teacache",
    .help = "skip by the change of the time's embedding (Wan 2.1 1.3B and 14B)",
    .options = tea_options,
    .signal = SIGNAL_TIME,
    .open = tea_open,
    .skips = tea_skips,
};
static const struct step_method firstblock = {
    .name = "firstblock",
    .help = "skip the other blocks where the first one does what it did",
    .options = first_options,
    .signal = SIGNAL_FIRST_BLOCK,
    .skips = first_skips,
};
static const struct step_method easycache = {
    .name = "easycache",
    .help = "skip by the change of the latents",
    .options = easy_options,
    .signal = SIGNAL_LATENTS,
    .skips = easy_skips,
};
static const struct step_method schedule = {
    .name = "schedule",
    .help = "compute the steps marked 1, as schedule:11110101 does; the receipt of another method shows such a list",
    .options = no_options,
    .signal = SIGNAL_STEP,
    .open = schedule_open,
    .skips = schedule_skips,
    .listed = true,
};
const struct step_method gv_step_measure = {
    .name = "measure",
    .help = "",
    .options = no_options,
    .signal = SIGNAL_STEP,
    .skips = never_skips,
};

static const struct step_method *const methods[] = { &magcache, &easycache, &teacache, &firstblock, &schedule, NULL };

const struct step_method *const *gv_step_methods(void)
{
    return methods;
}

/* ":1101" into list; the first step has nothing to repeat. */
static gv_status read_list(char list[GV_STEP_STEPS + 1], const char *text, struct error *e)
{
    const size_t n = *text == ':' ? strspn(text + 1, "01") : 0;

    if (n == 0 || n > GV_STEP_STEPS || text[1 + n] || text[1] != '1')
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "cache schedule%.64s: expected a 1 (computed) or 0 for each step, up to %d, the first of them 1: "
                       "schedule:11110101",
                       text, GV_STEP_STEPS);
    memcpy(list, text + 1, n + 1);
    return GV_OK;
}

gv_status gv_step_parse(struct step_choice *c, const char *text, struct error *e)
{
    const size_t n = strcspn(text, ":");

    c->method = NULL;
    for (int i = 0; methods[i]; i++)
        if (strlen(methods[i]->name) == n && !memcmp(methods[i]->name, text, n)) {
            c->method = methods[i];
            return c->method->listed ? read_list(c->list, text + n, e)
                                     : gv_policy_values(c->method->options, c->method->name, text + n, c->value, e);
        }
    return GV_OK;
}

/* ---- state ---- */

gv_status gv_step_open(struct step_cache *s, struct device *d, struct error *e)
{
    TRY(gv_cache_open(&s->kept, d, SIZE_MAX, e));
    if (s->asked.method->open)
        TRY(s->asked.method->open(s, e));
    gv_step_begin_block(s);
    return GV_OK;
}

void gv_step_begin_block(struct step_cache *s)
{
    gv_cache_clear(s->kept);
    s->sum = s->k = 0;
    s->product = 1;
    s->run = 0;
    memset(s->schedule, 0, sizeof s->schedule);
}

void gv_step_close(struct step_cache *s)
{
    gv_cache_close(&s->kept);
}

/* The step's verdict, once. */
static bool decide(struct run *r, struct step_cache *s, double change)
{
    const bool skip = s->asked.method->skips(s, change);

    s->skip = skip && !gv_device_is_null(r->device) && gv_run_ready(r);
    s->run = s->skip ? s->run + 1 : 0;
    s->skipped += s->skip;
    s->full += !s->skip;
    if (s->step < GV_STEP_STEPS)
        s->schedule[s->step] = s->skip ? '0' : '1';
    return s->skip;
}

/* Slots: what a signal was, and what stands for the blocks. */
enum { SLOT_SIGNAL, SLOT_INPUT, SLOT_FULL_INPUT, SLOT_FULL_OUTPUT, SLOT_RESIDUAL };
static struct cache_key key_of(int slot)
{
    return (struct cache_key){ slot, 0, slot == SLOT_RESIDUAL ? KEPT_RESIDUAL : KEPT_INDICATOR };
}

/* Σ|x - kept| / Σ|kept|; -1 where nothing is kept. */
static double change_since(struct run *r, struct step_cache *s, int slot, struct tensor x)
{
    const struct tensor kept = gv_cache_get(s->kept, key_of(slot));
    struct difference   d = { 0 };

    if (!present(kept))
        return -1;
    gv_compare(r, &d, x, kept);
    return gv_relative_l1(&d);
}

/* ---- in the residual stream ---- */

static double norm(struct run *r, float *host, struct tensor row_f32, struct tensor x, int64_t i)
{
    double sum = 0;

    gv_copy(r, row_f32, slice(x, 0, i, 1));
    gv_download(r, host, row_f32);
    for (int64_t k = 0; k < row_f32.dim[1]; k++)
        sum += (double)host[k] * (double)host[k];
    return sqrt(sum);
}

/* Mean over tokens of ‖now‖ / ‖was‖. */
static double mean_ratio(struct run *r, struct tensor now, struct tensor was)
{
    const struct mark mark = arena_mark(&r->scratch);
    const int64_t     n = now.dim[0], width = now.dim[1];
    struct tensor     one = gv_scratch(r, GV_F32, 2, DIMS(1, width));
    float            *host = malloc((size_t)width * sizeof *host);
    double            sum = 0;

    if (!host)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for %lld numbers", (long long)width);
    for (int64_t i = 0; i < n && !gv_device_is_null(r->device) && gv_run_ready(r); i++) {
        const double before = norm(r, host, one, was, i);
        sum += before > 0 ? norm(r, host, one, now, i) / before : 1;
    }
    free(host);
    arena_release(&r->scratch, mark);
    return sum / (double)n;
}

/* x - begin is kept in the compute type. */
static void keep_residual(struct run *r, struct step_cache *s, struct tensor x)
{
    struct tensor kept = gv_cache_slot(r, s->kept, key_of(SLOT_RESIDUAL), r->compute, 2, x.dim);

    gv_lincomb(r, s->begin, 2, (struct lincomb_term[]){ { 1, x }, { -1, s->begin } });
    if (s->measured && present(gv_cache_get(s->kept, key_of(SLOT_RESIDUAL))))
        s->measured[s->step] += mean_ratio(r, s->begin, kept);
    gv_copy(r, kept, s->begin);
    if (gv_run_ready(r))
        gv_cache_set_length(s->kept, key_of(SLOT_RESIDUAL), 0, x.dim[0]);
}

static bool add_residual(struct run *r, struct step_cache *s, struct tensor x)
{
    const struct tensor kept = gv_cache_get(s->kept, key_of(SLOT_RESIDUAL));

    if (!s->skip || !present(kept))
        return false;
    gv_add(r, x, x, kept);
    return true;
}

bool gv_step_blocks(struct run *r, struct step_cache *s, struct tensor x, struct tensor time, struct tensor projected)
{
    if (!s || s->asked.method->signal == SIGNAL_LATENTS)
        return false;
    s->begin = gv_scratch(r, GV_F32, 2, x.dim);
    gv_copy(r, s->begin, x);
    if (s->asked.method->signal == SIGNAL_FIRST_BLOCK)
        return false;
    if (s->asked.method->signal == SIGNAL_STEP)
        return decide(r, s, -1) && add_residual(r, s, x);
    const struct tensor signal = slice(s->asked.value[TEA_PROJECTED] != 0 ? projected : time, 0, 0, 1);
    decide(r, s, change_since(r, s, SLOT_SIGNAL, signal));
    gv_cache_put(r, s->kept, key_of(SLOT_SIGNAL), signal);
    return add_residual(r, s, x);
}

bool gv_step_first_block(struct run *r, struct step_cache *s, struct tensor x)
{
    if (!s || s->asked.method->signal != SIGNAL_FIRST_BLOCK)
        return false;
    gv_lincomb(r, s->begin, 2, (struct lincomb_term[]){ { 1, x }, { -1, s->begin } });
    decide(r, s, change_since(r, s, SLOT_SIGNAL, s->begin));
    if (!s->skip) /* it is compared with the last computed step's */
        gv_cache_put(r, s->kept, key_of(SLOT_SIGNAL), s->begin);
    gv_copy(r, s->begin, x);
    return add_residual(r, s, x);
}

void gv_step_blocks_end(struct run *r, struct step_cache *s, struct tensor x)
{
    if (s && s->asked.method->signal != SIGNAL_LATENTS)
        keep_residual(r, s, x);
}

/* ---- on the latents ---- */

/* The latents that the first path reads, f32 contiguous. */
static struct tensor latents_of(struct run *r, const struct dit_call *call)
{
    const struct tensor x = row(call->x, 0), v = row(call->v, 0);
    struct tensor       out = gv_scratch(r, GV_F32, 4, v.dim);

    gv_copy(r, out, slice(x, 3, 0, v.dim[3]));
    return out;
}

/* |out - kept out| / |in - kept in| in means, of the last two computed steps. */
static void learn_rate(struct run *r, struct step_cache *s, struct tensor in, struct tensor out)
{
    const struct tensor was_in = gv_cache_get(s->kept, key_of(SLOT_FULL_INPUT));
    const struct tensor was_out = gv_cache_get(s->kept, key_of(SLOT_FULL_OUTPUT));
    struct difference   i = { 0 }, o = { 0 };

    if (present(was_in) && present(was_out)) {
        gv_compare(r, &i, in, was_in);
        gv_compare(r, &o, out, was_out);
        s->k = i.difference1 > 0 ? o.difference1 / i.difference1 : 0;
    }
    gv_cache_put(r, s->kept, key_of(SLOT_FULL_INPUT), in);
    gv_cache_put(r, s->kept, key_of(SLOT_FULL_OUTPUT), out);
}

/* Σ|in - the step before's| / Σ|the last computed output|. */
static double input_change(struct run *r, struct step_cache *s, struct tensor in)
{
    const struct tensor before = gv_cache_get(s->kept, key_of(SLOT_INPUT));
    const struct tensor out = gv_cache_get(s->kept, key_of(SLOT_FULL_OUTPUT));
    struct difference   i = { 0 }, o = { 0 };

    if (!present(before) || !present(out))
        return -1;
    gv_compare(r, &i, in, before);
    gv_compare(r, &o, in, out);
    return o.reference1 > 0 ? i.difference1 / o.reference1 : -1;
}

static void forward_on_latents(struct run *r, const struct dit *m, const struct dit_prepared *p, const struct dit_call *call)
{
    struct step_cache *s = call->steps;
    const struct mark  mark = arena_mark(&r->scratch);
    struct tensor in = latents_of(r, call), delta = gv_cache_slot(r, s->kept, key_of(SLOT_RESIDUAL), GV_F32, 5, call->v.dim);

    const bool skip = decide(r, s, input_change(r, s, in));
    if (!skip)
        m->model->forward(r, m, p, call);
    for (int64_t i = 0; i < call->v.dim[0] && gv_run_ready(r); i++) {
        const struct tensor v = row(call->v, i), d = row(delta, i);
        if (skip)
            gv_lincomb(r, v, 2, (struct lincomb_term[]){ { 1, in }, { 1, d } });
        else
            gv_lincomb(r, d, 2, (struct lincomb_term[]){ { 1, v }, { -1, in } });
    }
    if (!skip)
        learn_rate(r, s, in, row(call->v, 0));
    gv_cache_put(r, s->kept, key_of(SLOT_INPUT), in);
    arena_release(&r->scratch, mark);
}

void gv_step_forward(struct run *r, const struct dit *m, const struct dit_prepared *p, const struct dit_call *call)
{
    if (call->steps && call->steps->asked.method->signal == SIGNAL_LATENTS)
        forward_on_latents(r, m, p, call);
    else
        m->model->forward(r, m, p, call);
}
