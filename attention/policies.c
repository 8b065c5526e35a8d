/* The list of policies, and their options as a user writes them. */
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
    &gv_policy_antidiagonal,
    &gv_policy_vertical_slash,
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

static gv_status set_option(const struct attn_policy *p, const char *text, size_t n, double *value, struct error *e)
{
    const char *eq = memchr(text, '=', n);

    for (int i = 0; eq && p->options[i].name; i++) {
        const struct policy_option *o = &p->options[i];

        if (strlen(o->name) != (size_t)(eq - text) || memcmp(o->name, text, (size_t)(eq - text)) != 0)
            continue;
        char        *end;
        const double x = strtod(eq + 1, &end);
        if (end == eq + 1 || end != text + n || !(x >= o->min && x <= o->max))
            return gv_fail(e, GV_ERR_ARGUMENT, "attention policy %s: %.*s is not a number from %g to %g", p->name, (int)n, text,
                           o->min, o->max);
        value[i] = x;
        return GV_OK;
    }
    return gv_fail(e, GV_ERR_ARGUMENT, "attention policy %s has no option \"%.*s\"", p->name, (int)n, text);
}

gv_status gv_policy_parse(const char *text, const struct attn_policy **policy, double value[GV_POLICY_OPTIONS], struct error *e)
{
    const size_t              n = strcspn(text, ":");
    const struct attn_policy *p = find(text, n);

    if (!p) {
        char names[256] = "";
        for (int i = 0; policies[i]; i++) {
            strncat(names, i ? ", " : "", sizeof names - strlen(names) - 1);
            strncat(names, policies[i]->name, sizeof names - strlen(names) - 1);
        }
        return gv_fail(e, GV_ERR_ARGUMENT, "unknown attention policy \"%.*s\"; there are: %s", (int)n, text, names);
    }
    for (int i = 0; p->options[i].name; i++)
        value[i] = p->options[i].value;
    for (const char *at = text + n; *at;) {
        at++; /* the colon or a comma */
        const size_t length = strcspn(at, ",");
        TRY(set_option(p, at, length, value, e));
        at += length;
    }
    *policy = p;
    return GV_OK;
}
