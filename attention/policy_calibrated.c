/* What genvid calibrate found for the model: a choice of blocks for each step, layer, head and query tile, made once from renders of
 * some prompts and read from a file beside the model. Choosing costs a render nothing. It fits clips of the calibrated size and
 * length alone; a render of other steps takes the nearest step's. Source: CalibAtt (arXiv 2603.05503). */
#include "attention/policy.h"

const struct attn_policy gv_policy_calibrated = {
    .name = "calibrated",
    .help = "the blocks that genvid calibrate found for this model, size and length",
    .options = (const struct policy_option[]){ { 0 } },
    .calibrated = true,
};
