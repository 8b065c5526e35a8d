/* A window of tokens around the reader, and the first tokens of the sequence. */
#include "attention/policy.h"

enum { BACK, AHEAD, SINK };
static const struct policy_option options[] = {
    { "back", "tokens before the reader", 4096, 0, 1 << 22 },
    { "ahead", "tokens behind the reader", 4096, 0, 1 << 22 },
    { "sink", "first tokens of the sequence, for all", 0, 0, 1 << 22 },
    { 0 },
};

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    const struct attn_mask m = {
        .kind = MASK_WINDOW, .a = (int64_t)value[BACK], .b = (int64_t)value[AHEAD], .sink = (int64_t)value[SINK]
    };

    (void)heads;
    return gv_plan_from_mask(out, &(struct plan_shape){ 1, l->tokens, l->tokens, m }, e);
}

const struct attn_policy gv_policy_window = {
    .name = "window",
    .help = "tokens near the reader, and the first ones",
    .options = options,
    .build = build,
};
