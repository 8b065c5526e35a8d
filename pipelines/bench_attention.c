/* Masks x lengths: what a policy takes to choose and to attend, on random tokens of one head of 128 over frames of 1024 tokens.
 * Random keys are the worst case for scored policies and say nothing about quality.
 *
 * Lengths double; a cell that would not fit the time that is left, going by the rate of the cells before, is left out. */
#include <jansson.h>

#include "attention/attention.h"
#include "attention/policy.h"
#include "core/clock.h"
#include "pipelines/bench.h"

enum { HEAD = 128, FRAME = 32, SHORTEST = 4096, LONGEST = 131072 };

static const char *const masks[] = {
    "dense",
    "causal",
    "block_causal:frames=3",
    "window:back=2048,ahead=2048",
    "strided:stride=4",
    "radial",
    "tiles:tt=2,th=8,tw=8",
    "bands:keep=0.3",
    "pooled:share=0.5",
    "pooled:share=0.25",
    "pooled:share=0.1",
    "antidiagonal",
    "exact:share=0.25",
    "chunks:share=0.25",
    "streaming",
    "vertical_slash",
    "flexprefill",
};
enum { N_MASKS = sizeof masks / sizeof *masks };

struct cell {
    const struct attn_policy *policy;
    double                    value[GV_POLICY_OPTIONS];
    int64_t                   tokens;
    double                    choose, attend, density, flops; /* seconds */
};

static struct tensor noise(struct run *r, int64_t tokens, uint64_t seed)
{
    struct tensor out = gv_scratch(r, r->compute, 4, DIMS(1, tokens, 1, HEAD));
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor f = gv_scratch(r, GV_F32, 4, DIMS(1, 1, tokens, HEAD));

    gv_noise(r, f, &(struct noise_key){ .seed = seed });
    gv_copy(r, reshape(out, 2, DIMS(tokens, HEAD)), reshape(f, 2, DIMS(tokens, HEAD)));
    arena_release(&r->scratch, mark);
    return out;
}

/* The static plan, or NULL for what is scored. */
static gv_status build(struct attn_plan *plan, const struct cell *c, struct error *e)
{
    struct attn_layout l;

    if (!c->policy->build)
        return GV_OK;
    TRY(gv_layout_grid(&l, 0, (int)(c->tokens / (FRAME * FRAME)), FRAME, FRAME, e));
    gv_status status = c->policy->order ? c->policy->order(&l, c->value, e) : GV_OK;
    if (!status)
        status = c->policy->build(plan, &l, 1, c->value, e);
    gv_layout_free(&l);
    return status;
}

static void attend(struct run *r, struct cell *c, const struct attn_plan *built)
{
    struct tensor    q = noise(r, c->tokens, 1), k = noise(r, c->tokens, 2), v = noise(r, c->tokens, 3);
    struct tensor    o = gv_scratch(r, r->compute, 4, q.dim);
    struct attn_plan plan = *built;
    double           began = gv_now();

    if (c->policy->plan)
        c->policy->plan(r, &plan, q, k, c->value);
    gv_sync(r);
    c->choose += gv_now() - began;
    const double flops = r->flops;
    began = gv_now();
    gv_attention(r, &(struct attn_call){ .q = q, .n_sources = 1, .source[0] = { .k = k, .v = v }, .out.o = o, .plan = &plan });
    gv_sync(r);
    c->attend = gv_now() - began;
    c->flops = r->flops - flops;
    c->density = plan.density;
}

/* Once on the null device for the memory, once in earnest. */
static gv_status measure(struct device *d, struct cell *c, struct error *e)
{
    struct attn_plan plan = { 0 };
    struct device   *null;
    struct run       r;
    double           began = gv_now();

    TRY(build(&plan, c, e));
    const double built = gv_now() - began;
    gv_status    status = gv_device_null(&null, d, e);
    if (!status) {
        gv_run_open(&r, null, d->compute, 0, e);
        attend(&r, c, &plan);
        const size_t peak = r.scratch.peak;
        gv_run_close(&r);
        gv_device_close(&null);
        status = gv_run_open(&r, d, d->compute, peak, e);
    }
    if (!status) {
        c->choose = built;
        attend(&r, c, &plan);
        status = r.err.code ? gv_fail(e, r.err.code, "%s", r.err.text) : GV_OK;
        gv_run_close(&r);
    }
    gv_plan_free(&plan);
    return status;
}

static json_t *cell_json(const struct cell *c, const char *mask, double dense)
{
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f}", "mask", mask, "tokens", (json_int_t)c->tokens, "density",
                     c->density, "choose_ms", c->choose * 1e3, "attend_ms", c->attend * 1e3, "gflops",
                     c->flops / c->attend * 1e-9, "times_dense", dense / (c->choose + c->attend));
}

struct grid {
    double  until, rate; /* rate: FLOP/s of the last dense cell, 0 at first */
    json_t *rows;
    int     tried; /* cells */
};

/* A length's masks; false when the time is over. */
static bool measure_length(struct grid *g, struct device *d, int64_t tokens)
{
    double dense = 0;

    for (int i = 0; i < N_MASKS; i++) {
        struct cell  c = { .tokens = tokens };
        struct error e = { 0 };
        if (gv_policy_parse(masks[i], &c.policy, c.value, &e))
            return false;
        /* dense is the dearest, and without it the others say little */
        if (!i && g->rate > 0 && gv_now() + 2 * 4.0 * (double)tokens * (double)tokens * HEAD / g->rate > g->until)
            return false;
        if (i && gv_now() > g->until)
            return false;
        g->tried++;
        if (measure(d, &c, &e))
            continue;
        dense = i ? dense : c.attend;
        g->rate = i ? g->rate : c.flops / c.attend;
        json_array_append_new(g->rows, cell_json(&c, masks[i], dense));
    }
    return true;
}

char *gv_bench_attention_json(struct device *d, double seconds)
{
    struct grid g = { .until = gv_now() + seconds, .rows = json_array() };
    int         cells = 0;
    bool        time = true;

    for (int64_t tokens = SHORTEST; tokens <= LONGEST; tokens *= 2, cells += N_MASKS)
        time = time && measure_length(&g, d, tokens);
    json_t *o =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:o}", "device", d->name, "precision", d->compute == GV_BF16 ? "bf16" : "f32",
                  "heads", 1, "head_size", HEAD, "left_out", cells - g.tried, "rows", g.rows);
    char   *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    return text;
}
