/* The list of policies, and their options as a user writes them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/policy.h"

/* clang-format off: one line each */
static const struct attn_policy *const policies[] = {
    &gv_policy_dense,
    &gv_policy_causal,
    &gv_policy_block_causal,
    &gv_policy_streaming,
    &gv_policy_window,
    &gv_policy_strided,
    &gv_policy_radial,
    &gv_policy_tiles,
    &gv_policy_bands,
    &gv_policy_pooled,
    &gv_policy_chunks,
    &gv_policy_antidiagonal,
    &gv_policy_exact,
    &gv_policy_vertical_slash,
    &gv_policy_flexprefill,
    &gv_policy_calibrated,
    NULL,
};
/* clang-format on */

const struct attn_policy *const *gv_policies(void)
{
    return policies;
}

static const struct attn_policy *find(const char *name, size_t n)
{
    for (int i = 0; policies[i]; i++)
        if (strlen(policies[i]->name) == n && !memcmp(policies[i]->name, name, n))
            return policies[i];
    return NULL;
}

gv_status gv_policy_option(const struct policy_option *o, const char *owner, const char *text, size_t n, double *value,
                           struct error *e)
{
    char        *end;
    const double x = n ? strtod(text, &end) : 0;

    if (!n || end != text + n || !(x >= o->min && x <= o->max))
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %s=%.*s is not a number from %.10g to %.10g", owner, o->name, (int)n, text,
                       o->min, o->max);
    *value = x;
    return GV_OK;
}

static gv_status set_option(const struct policy_option *options, const char *owner, const char *text, size_t n, double *value,
                            struct error *e)
{
    const char *eq = memchr(text, '=', n);

    for (int i = 0; eq && options[i].name; i++)
        if (strlen(options[i].name) == (size_t)(eq - text) && !memcmp(options[i].name, text, (size_t)(eq - text)))
            return gv_policy_option(&options[i], owner, eq + 1, (size_t)(text + n - eq - 1), &value[i], e);
    char names[256] = "";
    for (int i = 0; options[i].name; i++) {
        strncat(names, i ? ", " : "; there are: ", sizeof names - strlen(names) - 1);
        strncat(names, options[i].name, sizeof names - strlen(names) - 1);
    }
    return gv_fail(e, GV_ERR_ARGUMENT, "%s has no option \"%.*s\"%s", owner, (int)n, text, names);
}

gv_status gv_policy_values(const struct policy_option *options, const char *owner, const char *text, double *value,
                           struct error *e)
{
    for (int i = 0; options[i].name; i++)
        value[i] = options[i].value;
    while (*text) {
        text++; /* the colon or a comma */
        const size_t n = strcspn(text, ",");
        TRY(set_option(options, owner, text, n, value, e));
        text += n;
    }
    return GV_OK;
}

gv_status gv_policy_parse(const char *text, const struct attn_policy **policy, double value[GV_POLICY_OPTIONS], struct error *e)
{
    const size_t              n = strcspn(text, ":");
    const struct attn_policy *p = find(text, n);
    char                      owner[64];

    if (!p) {
        char names[256] = "";
        for (int i = 0; policies[i]; i++) {
            strncat(names, i ? ", " : "", sizeof names - strlen(names) - 1);
            strncat(names, policies[i]->name, sizeof names - strlen(names) - 1);
        }
        return gv_fail(e, GV_ERR_ARGUMENT, "unknown attention policy \"%.*s\"; there are: %s", (int)n, text, names);
    }
    snprintf(owner, sizeof owner, "attention policy %s", p->name);
    TRY(gv_policy_values(p->options, owner, text + n, value, e));
    if (p->check)
        TRY(p->check(value, e));
    *policy = p;
    return GV_OK;
}
