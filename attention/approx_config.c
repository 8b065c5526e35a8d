/* What a user may ask of a render's attention, read and checked: see approx.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/approx.h"

enum { DENSE_STEPS, DENSE_LAST, DENSE_LAYERS, EVERY, DRIFT, ACROSS, AXES, AT, N_COMMON };
static const struct policy_option common[] = {
    { "dense_steps", "first steps that are computed exactly", 0, 0, 1000 },
    { "dense_last", "last steps that are computed exactly", 0, 0, 1000 },
    { "dense_layers", "first layers that are computed exactly", 0, 0, 1000 },
    { "every", "scored policies, and axes, choose anew every n-th step; 0 = not by number", 1, 0, 1000 },
    { "drift", "and when the mean query or key has moved by more than this share; -1 = off", -1, -1, 1e6 },
    { "across", "one of n layers chooses, those behind it take its choice", 1, 1, 1000 },
    { "axes",
      "fixed policies: each head in the order of time, height and width, of n, that 64 queries find best (2: frames or places "
      "first)",
      1, 1, GV_AXES },
    { "at", "and in these steps, counted from 1: at=10+30", 0, 1, 1000 },
    { 0 },
};

static const struct policy_option complement_options[] = {
    { "mib", "memory for what is kept; layers beyond it are thinned out plainly", 4096, 1, 1 << 24 },
    { 0 },
};
static const struct policy_option flashblock_options[] = {
    { "commit", "1: the pass that writes a block's keys reuses too, as the released code does", 0, 0, 1 },
    { "dirty", "a layer reads it anew when so many of the block's tokens have changed since; 0 = always, -1 = not by that", -1,
      -1, 1 << 22 },
    { "changed", "a token has changed when its query moved by more than this share", 0.5, 0, 1e6 },
    { 0 },
};
static const struct partial_method partials[] = {
    { "complement", "the unchosen keys' part of attention is kept between refreshes and merged; needs --attention with every=n",
      KEEP_COMPLEMENT, complement_options },
    { "flashblock", "causal: what a block reads of the frames before it is kept over its steps (FlashBlock)", KEEP_HISTORY,
      flashblock_options },
    { 0 },
};

const struct policy_option *gv_approx_options(void)
{
    return common;
}

const struct partial_method *gv_partial_methods(void)
{
    return partials;
}

/* "10+30" into at[], counted from 0. */
static gv_status read_steps(struct refresh *f, const char *text, size_t n, struct error *e)
{
    const char *end = text + n;

    for (f->n_at = 0; text < end && f->n_at < GV_REFRESH_STEPS; text++) {
        char      *stop;
        const long step = strtol(text, &stop, 10);
        if (stop == text || step < 1 || step > 1000 || (stop != end && *stop != '+'))
            break;
        f->at[f->n_at++] = (int)step - 1;
        text = stop;
        if (text == end)
            return GV_OK;
    }
    return gv_fail(e, GV_ERR_ARGUMENT, "attention: at=%.*s; expected up to %d steps from 1 to 1000, as in at=10+30",
                   (int)(end - text), text, GV_REFRESH_STEPS);
}

static void take_common(struct approx_config *c, const double value[N_COMMON])
{
    c->dense_steps = (int)value[DENSE_STEPS];
    c->dense_last = (int)value[DENSE_LAST];
    c->dense_layers = (int)value[DENSE_LAYERS];
    c->refresh.every = (int)value[EVERY];
    c->refresh.drift = value[DRIFT];
    c->refresh.across = (int)value[ACROSS];
    c->axes = (int)value[AXES];
}

/* One "name=value": common options are taken here, the others gathered behind the policy's name. */
static gv_status sort_option(struct approx_config *c, double value[N_COMMON], const char *text, size_t n, char *rest,
                             size_t room, struct error *e)
{
    const size_t name = strcspn(text, "=,");

    for (int i = 0; common[i].name; i++) {
        if (strlen(common[i].name) != name || memcmp(common[i].name, text, name) != 0 || name == n)
            continue;
        if (i == AT)
            return read_steps(&c->refresh, text + name + 1, n - name - 1, e);
        return gv_policy_option(&common[i], "attention", text + name + 1, n - name - 1, &value[i], e);
    }
    const size_t used = strlen(rest);
    if (used + n + 2 > room)
        return gv_fail(e, GV_ERR_ARGUMENT, "attention: \"%.*s\" is too long", (int)(n < 64 ? n : 64), text);
    snprintf(rest + used, room - used, "%c%.*s", strchr(rest, ':') ? ',' : ':', (int)n, text);
    return GV_OK;
}

gv_status gv_approx_parse(struct approx_config *c, const char *attention, struct error *e)
{
    char         rest[512];
    double       value[N_COMMON];
    const size_t name = strcspn(attention, ":");

    if (name >= sizeof rest / 2)
        return gv_fail(e, GV_ERR_ARGUMENT, "attention: the name of a policy has at most %zu bytes", sizeof rest / 2 - 1);
    snprintf(rest, sizeof rest, "%.*s", (int)name, attention);
    for (int i = 0; i < N_COMMON; i++)
        value[i] = common[i].value;
    for (const char *at = attention + name; *at;) {
        at++; /* the colon or a comma */
        const size_t n = strcspn(at, ",");
        TRY(sort_option(c, value, at, n, rest, sizeof rest, e));
        at += n;
    }
    take_common(c, value);
    return gv_policy_parse(rest, &c->policy, c->value, e);
}

gv_status gv_approx_parse_keep(struct approx_config *c, const char *cache, bool *known, struct error *e)
{
    const size_t name = strcspn(cache, ":");

    *known = false;
    for (const struct partial_method *m = partials; m->name; m++)
        if (strlen(m->name) == name && !memcmp(m->name, cache, name)) {
            *known = true;
            c->keep = m->keep;
            return gv_policy_values(m->options, m->name, cache + name, c->keep_value, e);
        }
    return GV_OK;
}

static bool is_thinned(const struct approx_config *c)
{
    return c->policy && c->policy != &gv_policy_dense;
}

gv_status gv_approx_check(const struct approx_config *c, bool causal, struct error *e)
{
    if (is_thinned(c) && c->policy->text)
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "attention policy %s is for text: in a clip, every frame is seen by those before it too",
                       c->policy->name);
    if (is_thinned(c) && causal && !c->policy->plan)
        return gv_fail(
            e, GV_ERR_ARGUMENT,
            "attention policy %s describes a whole clip; causal generation takes pooled, chunks, antidiagonal and exact",
            c->policy->name);
    if (causal && is_thinned(c) && (c->refresh.drift >= 0 || c->refresh.n_at))
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "attention: drift and at count the steps of a whole clip; causal generation takes every");
    if (is_thinned(c) && !c->policy->plan && (c->refresh.across > 1 || c->refresh.drift >= 0))
        return gv_fail(e, GV_ERR_ARGUMENT, "attention policy %s always chooses the same: across and drift are for scored ones",
                       c->policy->name);
    if (c->axes > 1 && (!is_thinned(c) || !c->policy->build || c->keep != KEEP_NOTHING))
        return gv_fail(e, GV_ERR_ARGUMENT,
                       "attention: axes=%d is for policies of fixed lists, with nothing kept of what they leave out", c->axes);
    if (c->keep == KEEP_COMPLEMENT && causal)
        return gv_fail(e, GV_ERR_ARGUMENT, "cache complement is for clips that are denoised at once; causal: flashblock");
    if (c->keep == KEEP_COMPLEMENT && c->policy && c->policy->calibrated)
        return gv_fail(e, GV_ERR_ARGUMENT, "cache complement: what policy calibrated chooses changes from step to step");
    if (c->keep == KEEP_COMPLEMENT && (!is_thinned(c) || !gv_refresh_lasts(&c->refresh) || c->refresh.across > 1))
        return gv_fail(
            e, GV_ERR_ARGUMENT,
            "cache complement needs an attention policy whose choice lasts: --attention POLICY:every=4 (or at, drift)");
    if (c->keep == KEEP_HISTORY && !causal)
        return gv_fail(e, GV_ERR_ARGUMENT, "cache flashblock is for causal generation; a whole clip: complement");
    return GV_OK;
}
