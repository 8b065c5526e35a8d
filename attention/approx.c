#include "attention/approx.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/compare.h"

enum { SAMPLED_LAYERS = 4, STRIP = 64 };

/* ---- open and close ---- */

static bool is_thinned(const struct attn_approx *a)
{
    return a->config->policy && a->config->policy != &gv_policy_dense;
}

gv_status gv_approx_open(struct attn_approx *a, const struct approx_config *config, const struct attn_calibration *calibration,
                         struct device *d, const struct approx_shape *shape, struct error *e)
{
    const size_t sites = (size_t)shape->layers * (size_t)shape->streams;
    const size_t budget = config->keep == KEEP_COMPLEMENT ? (size_t)config->keep_value[COMPLEMENT_MIB] << 20 : SIZE_MAX;

    *a = (struct attn_approx){ .config = config,
                               .calibration = calibration,
                               .layers = shape->layers,
                               .streams = shape->streams,
                               .causal = shape->causal };
    a->last = malloc(2 * sites * sizeof *a->last);
    if (!a->last)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for what %zu layers keep", sites);
    gv_status status = gv_cache_open(&a->kept, d, SIZE_MAX, e);
    if (!status)
        status = gv_cache_open(&a->partials, d, budget, e);
    a->receipt.layers = shape->layers;
    gv_approx_begin_block(a);
    if (status)
        gv_approx_close(a);
    return status;
}

void gv_approx_begin_block(struct attn_approx *a)
{
    for (int i = 0; i < 2 * a->layers * a->streams; i++)
        a->last[i] = -1;
}

void gv_approx_close(struct attn_approx *a)
{
    gv_plan_free(&a->plan);
    gv_axes_close(&a->axes);
    gv_cache_close(&a->kept);
    gv_cache_close(&a->partials);
    free(a->last);
    a->last = NULL;
}

gv_status gv_approx_layout(struct attn_approx *a, struct attn_layout *l, int heads, struct error *e)
{
    const struct attn_policy      *p = a->config->policy;
    const struct attn_calibration *c = a->calibration;

    if (!is_thinned(a))
        return GV_OK;
    if (p->order)
        TRY(p->order(l, a->config->value, e));
    if (a->causal)
        return GV_OK;
    if (p->calibrated) {
        if (!c || !c->bitmap)
            return gv_fail(e, GV_ERR_ARGUMENT,
                           "attention policy %s: the model has no calibrated choice; genvid calibrate makes one", p->name);
        if (c->grid[0] != l->T || c->grid[1] != l->H || c->grid[2] != l->W || c->heads != heads || c->layers != a->layers)
            return gv_fail(e, GV_ERR_ARGUMENT,
                           "attention policy %s: the model's choice was made for clips of %d x %d x %d tokens; this one has "
                           "%d x %d x %d",
                           p->name, c->grid[0], c->grid[1], c->grid[2], l->T, l->H, l->W);
        return GV_OK;
    }
    gv_plan_free(&a->plan);
    gv_axes_close(&a->axes);
    if (a->config->axes > 1)
        TRY(gv_axes_open(&a->axes, l, &(struct axes_shape){ a->config->axes, a->layers * a->streams, heads }, e));
    return p->build ? p->build(&a->plan, l, heads, a->config->value, e) : GV_OK;
}

/* ---- one call ---- */

struct attending {
    struct run         *r;
    struct attn_approx *a;
    int                 layer, stream;
    struct attn_call    call;            /* the listed keys are source 0, and all others `always` */
    int64_t             keys;            /* of source 0 */
    bool                choose, refresh; /* make the choice anew; the partial */
    double              density;         /* of what was computed, of all pairs */
    bool                thinned;
};

static int *last_choice(const struct attending *w, int layer)
{
    return &w->a->last[layer * w->a->streams + w->stream];
}

static int *last_partial(const struct attending *w)
{
    return &w->a->last[(w->a->layers + w->layer) * w->a->streams + w->stream];
}

static struct attn_bitmap bitmap_of(const struct attending *w, int batch, int heads)
{
    return (struct attn_bitmap){ .batch = batch,
                                 .heads = heads,
                                 .tiles = (int)((w->call.q.dim[1] + GV_TILE_Q - 1) / GV_TILE_Q),
                                 .blocks = (int)((w->keys + GV_KV_BLOCK - 1) / GV_KV_BLOCK) };
}

/* ---- how far the means have moved ---- */

/* Tokens of x [B, N, A, D] as f32 rows on the host, some at a time, in scratch. */
struct strip {
    struct tensor x, device; /* [B · N, A · D]; f32 [STRIP, A · D] */
    float        *host;
};

static struct strip strip_of(struct run *r, struct tensor x)
{
    const int64_t width = x.dim[2] * x.dim[3];

    return (struct strip){ reshape(x, 2, DIMS(x.dim[0] * x.dim[1], width)), gv_scratch(r, GV_F32, 2, DIMS(STRIP, width)),
                           gv_scratch_bytes(r, (size_t)(STRIP * width) * sizeof(float)) };
}

static void read_strip(struct run *r, const struct strip *s, int64_t at, int64_t n)
{
    gv_copy(r, slice(s->device, 0, 0, n), slice(s->x, 0, at, n));
    gv_download(r, s->host, slice(s->device, 0, 0, n));
}

/* Mean over tokens of x [B, N, A, D]: f32 [B · A · D] in scratch. */
static float *token_mean(struct run *r, struct tensor x)
{
    const int64_t      B = x.dim[0], N = x.dim[1], width = x.dim[2] * x.dim[3];
    float             *mean = gv_scratch_bytes(r, (size_t)(B * width) * sizeof *mean);
    const struct strip s = strip_of(r, x);

    if (gv_device_is_null(r->device) || !gv_run_ready(r))
        return mean;
    memset(mean, 0, (size_t)(B * width) * sizeof *mean);
    for (int64_t at = 0; at < B * N; at++) {
        const int64_t n = N - at % N < STRIP ? N - at % N : STRIP;
        read_strip(r, &s, at, n);
        for (int64_t i = 0; i < n * width; i++)
            mean[at / N * width + i % width] += s.host[i] / (float)N;
        at += n - 1;
    }
    return mean;
}

/* Σ|mean - kept| / Σ|kept|; the kept one is replaced where the choice is made anew. */
static double moved(struct attending *w, struct tensor x, enum kept kind, bool replace)
{
    struct run            *r = w->r;
    const struct cache_key key = { gv_refresh_source(&w->a->config->refresh, w->layer), w->stream, kind };
    const int64_t          n = x.dim[0] * x.dim[2] * x.dim[3];
    const struct mark      mark = arena_mark(&r->scratch);
    float                 *mean = token_mean(r, x);
    struct tensor          now = gv_tensor(mean, GV_F32, 1, DIMS(n)), kept = gv_cache_get(w->a->kept, key);
    struct difference      d = { 0 };

    if (present(kept))
        gv_compare(r, &d, now, kept);
    if (replace)
        gv_cache_put(r, w->a->kept, key, now);
    arena_release(&r->scratch, mark);
    return gv_relative_l1(&d);
}

static double drift(struct attending *w, bool replace)
{
    if (w->a->config->refresh.drift < 0)
        return 0;
    const double q = moved(w, w->call.q, KEPT_MEAN_Q, replace), k = moved(w, w->call.source[0].k, KEPT_MEAN_K, replace);
    return q > k ? q : k;
}

/* ---- how many tokens have changed ---- */

static struct cache_key queries_key(const struct attending *w)
{
    return (struct cache_key){ w->layer, w->stream, KEPT_QUERY };
}

static bool counts_dirty(const struct attn_approx *a)
{
    return a->config->keep == KEEP_HISTORY && a->config->keep_value[FLASHBLOCK_DIRTY] >= 0;
}

/* Tokens whose query, of all heads, is further from the one that last read the history than a share of its length. */
static int64_t tokens_changed(struct attending *w)
{
    struct run         *r = w->r;
    const struct tensor q = w->call.q, kept = gv_cache_get(w->a->kept, queries_key(w));
    const int64_t       rows = q.dim[0] * q.dim[1], width = q.dim[2] * q.dim[3];
    const double        share = w->a->config->keep_value[FLASHBLOCK_CHANGED];
    const struct mark   mark = arena_mark(&r->scratch);
    const struct strip  now = strip_of(r, q), then = strip_of(r, present(kept) ? kept : q);
    int64_t             changed = 0;

    for (int64_t at = 0, n; at < rows && !gv_device_is_null(r->device) && gv_run_ready(r); at += n) {
        n = rows - at < STRIP ? rows - at : STRIP;
        read_strip(r, &now, at, n);
        read_strip(r, &then, at, n);
        for (int64_t i = 0; i < n; i++) {
            double apart = 0, length = 0;
            for (int64_t k = i * width; k < (i + 1) * width; k++) {
                apart += ((double)now.host[k] - (double)then.host[k]) * ((double)now.host[k] - (double)then.host[k]);
                length += (double)then.host[k] * (double)then.host[k];
            }
            changed += apart > share * share * length;
        }
    }
    arena_release(&r->scratch, mark);
    return changed;
}

/* ---- the choice ---- */

/* A scored policy's choice that lasts: from the layer and step that made it. */
static struct attn_bitmap kept_choice(struct attending *w)
{
    struct run         *r = w->r;
    struct attn_approx *a = w->a;
    const int           source = gv_refresh_source(&a->config->refresh, w->layer);
    struct attn_bitmap  b = bitmap_of(w, (int)w->call.q.dim[0], (int)w->call.q.dim[2]);
    struct tensor       slot =
        gv_cache_slot(r, a->kept, (struct cache_key){ source, w->stream, KEPT_CHOICE }, GV_I32, 1, DIMS(gv_bitmap_words(&b)));

    b.word = slot.data;
    if (w->choose) {
        const struct mark mark = arena_mark(&r->scratch);
        struct attn_plan  fresh;
        a->config->policy->plan(r, &fresh, w->call.q, w->call.source[0].k, a->config->value);
        gv_bitmap_from_plan(r, &b, &fresh, w->keys);
        arena_release(&r->scratch, mark);
        drift(w, true);
        *last_choice(w, source) = a->at.step;
    }
    return b;
}

/* Step i of n in a table of m: the nearest. */
static int nearest(int i, int n, int m)
{
    return n > 1 ? (2 * i * (m - 1) + n - 1) / (2 * (n - 1)) : 0;
}

static struct attn_bitmap calibrated_choice(const struct attending *w)
{
    const struct attn_calibration *c = w->a->calibration;
    struct attn_bitmap             b = bitmap_of(w, 1, c->heads);
    const int                      step = nearest(w->a->at.step, w->a->at.steps, c->steps);

    b.word = (uint32_t *)(uintptr_t)(c->bitmap + (size_t)(step * c->layers + w->layer) * (size_t)gv_bitmap_words(&b));
    return b;
}

static struct attn_bitmap scratch_bitmap(struct attending *w, int batch, int heads)
{
    struct attn_bitmap b = bitmap_of(w, batch, heads);

    b.word = gv_scratch_bytes(w->r, (size_t)gv_bitmap_words(&b) * sizeof *b.word);
    if (!gv_device_is_null(w->r->device) && gv_run_ready(w->r))
        memset(b.word, 0, (size_t)gv_bitmap_words(&b) * sizeof *b.word);
    return b;
}

static bool choice_lasts(const struct attn_approx *a)
{
    return a->config->policy->plan && gv_refresh_lasts(&a->config->refresh);
}

/* As a bitmap, where a partial is kept beside it or where it lasts. */
static struct attn_bitmap choice_bits(struct attending *w)
{
    const struct attn_approx *a = w->a;

    if (!is_thinned(a))
        return scratch_bitmap(w, 1, 1); /* nothing chosen: all of source 0 is kept as a partial */
    if (a->config->policy->calibrated)
        return calibrated_choice(w);
    if (a->config->policy->plan)
        return kept_choice(w);
    struct attn_bitmap b = scratch_bitmap(w, a->plan.batch, a->plan.list_heads);
    gv_bitmap_from_plan(w->r, &b, &a->plan, w->keys);
    return b;
}

static void choice_plan(struct attending *w, struct attn_plan *out)
{
    const struct attn_approx *a = w->a;

    if (a->config->policy->calibrated || choice_lasts(a)) {
        const struct attn_bitmap b = choice_bits(w);
        gv_bitmap_plan(w->r, out, &b, w->call.q.dim[1], w->keys, BITMAP_KEPT);
    } else if (a->config->policy->plan) {
        a->config->policy->plan(w->r, out, w->call.q, w->call.source[0].k, a->config->value);
    } else {
        *out = a->plan;
    }
}

/* ---- attention ---- */

/* Of all pairs, those that a plan of this density over source 0 computes. */
static double share(const struct attending *w, double density)
{
    int64_t rest = 0;

    for (int i = 1; i < w->call.n_sources; i++)
        rest += w->call.source[i].k.dim[1];
    return ((double)w->keys * density + (double)rest) / (double)(w->keys + rest);
}

/* A static plan, each head in its own order. */
static void attend_in_axes(struct attending *w)
{
    struct attn_approx *a = w->a;
    const int           site = w->layer * a->streams + w->stream;

    if (w->choose) {
        gv_axes_choose(w->r, &a->axes, site, &w->call, &a->plan);
        *last_choice(w, w->layer) = a->at.step;
    }
    w->call.plan = &a->plan;
    gv_axes_attend(w->r, &a->axes, site, &w->call);
    w->density = share(w, a->plan.density);
    w->thinned = true;
}

static void attend_thinned(struct attending *w)
{
    struct attn_plan plan;

    if (w->a->axes.n > 1) {
        attend_in_axes(w);
        return;
    }
    choice_plan(w, &plan);
    w->call.plan = &plan;
    gv_attention(w->r, &w->call);
    w->density = share(w, plan.density);
    w->thinned = true;
}

/* Heads [from, from + n) of a call; all of them come back as they are. */
static struct attn_call some_heads(const struct attn_call *c, int64_t from, int64_t n)
{
    struct attn_call some = *c;

    if (n == c->q.dim[2])
        return some;
    some.q = slice(c->q, 2, from, n);
    some.out.o = slice(c->out.o, 2, from, n);
    for (int i = 0; i < c->n_sources; i++) {
        some.source[i].k = slice(c->source[i].k, 2, from, n);
        some.source[i].v = slice(c->source[i].v, 2, from, n);
    }
    return some;
}

static struct attn_plan plan_of_heads(const struct attn_plan *p, int64_t from, int64_t n)
{
    struct attn_plan some = *p;

    if (p->list_heads == 1 || n == p->list_heads)
        return some;
    some.row += from * p->tiles;
    some.split = p->split ? p->split + from * p->tiles : NULL;
    some.list_heads = (int)n;
    return some;
}

static bool is_fresh(const struct attending *w, int64_t head)
{
    const struct attn_calibration *c = w->a->calibration;

    if (w->refresh || !w->a->causal || !c || !c->fresh || c->layers != w->a->layers || c->heads != w->call.q.dim[2])
        return w->refresh;
    const int pass = nearest(w->a->at.step, w->a->at.steps + 1, c->passes);
    return c->fresh[((int64_t)pass * c->layers + w->layer) * c->heads + head];
}

/* A run of heads that do the same: all keys, keeping the unchosen ones' partial; or the chosen ones, seeded with it. */
static void attend_run(struct attending *w, const struct attn_bitmap *b, const struct attn_partial *kept, int64_t from,
                       int64_t n)
{
    const bool          fresh = is_fresh(w, from);
    const struct mark   mark = arena_mark(&w->r->scratch);
    struct attn_call    c = some_heads(&w->call, from, n);
    struct attn_partial part = *kept;
    struct attn_plan    all;

    if (n < w->call.q.dim[2])
        part = (struct attn_partial){ slice(kept->o, 2, from, n), slice(kept->lse, 1, from, n) };
    gv_bitmap_plan(w->r, &all, b, w->call.q.dim[1], w->keys, fresh ? BITMAP_SPLIT : BITMAP_KEPT);
    const struct attn_plan plan = plan_of_heads(&all, from, n);
    c.plan = &plan;
    c.first = fresh ? &part : NULL;
    c.seed = fresh ? NULL : &part;
    gv_attention(w->r, &c);
    w->density += share(w, all.density) * (double)n / (double)w->call.q.dim[2];
    w->thinned |= !fresh;
    w->a->receipt.fresh_heads += !w->refresh && fresh ? n : 0;
    arena_release(&w->r->scratch, mark);
}

/* A partial's memory; false where the budget has no room for it. */
static bool take_partial(struct attending *w, struct attn_partial *out)
{
    struct run            *r = w->r;
    struct attn_approx    *a = w->a;
    const int64_t         *d = w->call.out.o.dim;
    const struct cache_key o = { w->layer, w->stream, KEPT_OUT }, lse = { w->layer, w->stream, KEPT_LSE };
    const int64_t          shape[3] = { d[0], d[2], d[1] };
    const size_t need = gv_tensor_bytes(gv_tensor(NULL, r->compute, 4, d)) + gv_tensor_bytes(gv_tensor(NULL, GV_F32, 3, shape));
    const bool   had = present(gv_cache_get(a->partials, lse));

    if (!had && a->config->keep == KEEP_COMPLEMENT) {
        const size_t budget = (size_t)a->config->keep_value[COMPLEMENT_MIB] << 20;
        if (need > budget || gv_cache_bytes(a->partials) > budget - need)
            return false;
    }
    out->o = gv_cache_slot(r, a->partials, o, r->compute, 4, d);
    out->lse = gv_cache_slot(r, a->partials, lse, GV_F32, 3, shape);
    if (!gv_run_ready(r))
        return false;
    gv_cache_set_length(a->partials, o, 0, d[0]);
    gv_cache_set_length(a->partials, lse, 0, d[0]);
    a->receipt.layers_kept += !had && w->stream == 0;
    return true;
}

static void attend_with_partial(struct attending *w)
{
    struct attn_partial kept;
    const int64_t       heads = w->call.q.dim[2];

    if (!take_partial(w, &kept)) {
        if (gv_run_ready(w->r))
            attend_thinned(w);
        return;
    }
    const struct attn_bitmap b = choice_bits(w);
    for (int64_t from = 0, n; from < heads; from += n) {
        for (n = 1; from + n < heads && is_fresh(w, from + n) == is_fresh(w, from);)
            n++;
        attend_run(w, &b, &kept, from, n);
    }
    if (w->refresh) {
        if (counts_dirty(w->a))
            gv_cache_put(w->r, w->a->kept, queries_key(w), w->call.q);
        *last_partial(w) = w->a->at.step;
        w->a->receipt.refreshed++;
    } else {
        w->a->receipt.reused++;
        w->a->receipt.heads += heads;
    }
}

/* ---- which of them ---- */

static bool is_exact(const struct attn_approx *a, int layer, const struct attn_call *c)
{
    const struct approx_config *o = a->config;

    if (layer < o->dense_layers || (a->causal && c->n_sources < 2))
        return true;
    if (a->at.commit)
        return o->keep != KEEP_HISTORY;
    return a->at.step < o->dense_steps || a->at.step >= a->at.steps - o->dense_last;
}

/* Source 0 becomes what is thinned out: the clip's own keys or, in causal generation, its history. */
static struct attending attending(struct run *r, struct attn_approx *a, int layer, int stream, const struct attn_call *call)
{
    struct attending w = { .r = r, .a = a, .layer = layer, .stream = stream, .call = *call };

    if (a->causal && call->n_sources > 1) {
        w.call.source[0] = call->source[1];
        w.call.source[1] = call->source[0];
    }
    for (int i = 1; i < call->n_sources; i++)
        w.call.source[i].always = true;
    w.keys = w.call.source[0].k.dim[1];
    return w;
}

/* Is the choice made anew, and the partial? A partial goes with its choice. */
static void decide(struct attending *w)
{
    const struct attn_approx   *a = w->a;
    const struct approx_config *o = a->config;
    const bool                  scored = is_thinned(a) && o->policy->plan, chooses = scored || a->axes.n > 1;
    const int step = a->at.step, choice = chooses ? *last_choice(w, gv_refresh_source(&o->refresh, w->layer)) : -1;

    w->choose = chooses && gv_refresh_due(&o->refresh, step, choice, choice < 0 ? 0 : drift(w, false));
    if (o->keep == KEEP_HISTORY) {
        w->refresh = gv_history_is_read(*last_partial(w) >= 0, step, a->at.steps, o->keep_value[FLASHBLOCK_COMMIT] != 0) ||
                     (counts_dirty(a) && gv_dirty_is_read(tokens_changed(w), (int64_t)o->keep_value[FLASHBLOCK_DIRTY]));
        w->choose = w->refresh; /* what is kept is what this choice left out */
    } else if (o->keep == KEEP_COMPLEMENT) {
        w->refresh = scored ? w->choose : gv_refresh_due(&o->refresh, step, *last_partial(w), 0);
    }
}

static void attend(struct attending *w)
{
    const struct mark mark = arena_mark(&w->r->scratch);

    if (w->a->config->keep == KEEP_NOTHING)
        attend_thinned(w);
    else
        attend_with_partial(w);
    arena_release(&w->r->scratch, mark);
}

/* ---- receipts ---- */

static bool is_sampled_layer(const struct attn_approx *a, int layer)
{
    for (int i = 0; i < SAMPLED_LAYERS; i++)
        if (layer == (2 * i + 1) * a->layers / (2 * SAMPLED_LAYERS))
            return true;
    return false;
}

/* The call once more, exactly, beside its result. */
static void sample(struct attending *w, const struct attn_call *exact, double seconds)
{
    struct run            *r = w->r;
    struct approx_receipt *p = &w->a->receipt;
    const struct mark      mark = arena_mark(&r->scratch);
    struct attn_call       c = *exact;
    struct difference      d = { 0 };

    c.out = (struct attn_partial){ .o = gv_scratch(r, exact->out.o.type, 4, exact->out.o.dim) };
    const double began = gv_now();
    gv_attention(r, &c);
    gv_sync(r);
    p->exact_seconds += gv_now() - began;
    p->seconds += seconds;
    gv_compare(r, &d, exact->out.o, c.out.o);
    const double error = gv_relative_l2(&d);
    p->error += error;
    p->worst = error > p->worst ? error : p->worst;
    p->samples++;
    arena_release(&r->scratch, mark);
}

double gv_approx_saved_seconds(const struct approx_receipt *p)
{
    return p->samples ? (p->exact_seconds - p->seconds) / p->samples * (double)p->thinned : 0;
}

/* On the null device: every way that a step might take, for its memory, and the FLOPs of the mean step. */
static void attend_every_way(struct attending *w, const struct attn_call *exact)
{
    struct run                 *r = w->r;
    const struct approx_config *o = w->a->config;
    const struct approx_receipt before = w->a->receipt;
    const double                flops = r->flops;
    double                      dense = (double)(o->dense_steps + o->dense_last) / w->a->at.steps;

    gv_attention(r, exact);
    const double all = r->flops - flops;
    if (dense >= 1)
        return;
    decide(w); /* which takes scratch too */
    for (int i = 0; i < 2; i++) {
        w->refresh = w->choose = i == 0;
        r->flops = flops;
        attend(w);
    }
    const double thin = r->flops - flops;
    sample(w, exact, 0);
    r->flops = flops + dense * all + (1 - dense) * thin;
    w->a->receipt = before;
}

void gv_attend(struct run *r, struct attn_approx *a, int layer, int stream, const struct attn_call *call)
{
    if (!a) {
        gv_attention(r, call);
        return;
    }
    if (a->survey) {
        gv_survey_attend(r, a->survey, a->at.step, layer, stream, call);
        return;
    }
    struct attending w = attending(r, a, layer, stream, call);
    const double     began = gv_now();
    a->receipt.calls++;
    if (gv_device_is_null(r->device) && layer >= a->config->dense_layers && !a->at.commit &&
        !(a->causal && call->n_sources < 2)) {
        attend_every_way(&w, call);
    } else if (is_exact(a, layer, call)) {
        gv_attention(r, call);
        w.density = 1;
    } else {
        decide(&w);
        attend(&w);
    }
    a->receipt.pairs += w.density;
    a->receipt.thinned += w.thinned;
    if (!w.thinned || !a->at.sample || !is_sampled_layer(a, layer) || !gv_run_ready(r))
        return;
    gv_sync(r);
    sample(&w, call, gv_now() - began);
}
