/* Sink and recent tokens, causal: StreamingLLM's heads, MInference's A-shape, LServe's streaming heads. Row i reads
 * min(sink + local, i + 1) tokens, itself among them. */
#include "attention/policy.h"

enum { SINK, LOCAL };
static const struct policy_option options[] = {
    { "sink", "first tokens that everyone behind them reads", 128, 0, 1 << 22 },
    { "local", "last tokens before and with the reader", 8192, 1, 1 << 22 },
    { 0 },
};

static gv_status build(struct attn_plan *out, const struct attn_layout *l, int heads, const double *value, struct error *e)
{
    const struct attn_mask m = { .kind = MASK_CAUSAL, .b = (int64_t)value[LOCAL], .sink = (int64_t)value[SINK] };

    (void)heads;
    return gv_plan_from_mask(out, &(struct plan_shape){ 1, l->tokens, l->tokens, m }, e);
}

const struct attn_policy gv_policy_streaming = {
    .name = "streaming",
    .help = "causal: the first tokens and the latest",
    .text = true,
    .options = options,
    .build = build,
};
