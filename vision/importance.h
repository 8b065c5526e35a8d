/* How much each patch of a tile matters, whatever the question: VFlowOpt's map (Yang et al. 2025, arXiv 2508.05211). Patches that
 * receive much attention in a late layer of the tower ("sinks") are asked what they read; patches with much detail may count more. */
#ifndef GV_VISION_IMPORTANCE_H
#define GV_VISION_IMPORTANCE_H

#include "core/ops.h"

struct importance_opts {
    double sink;    /* a patch is a sink where it receives more than so many times the mean */
    double entropy; /* weight of the detail: softmax over the tile of the entropy of each patch's grey values */
};

/* What an encode is asked for beside features; map on the host, one value a patch, NULL in a dry run. */
struct importance_call {
    struct importance_opts opts;
    float                 *map;
};

/* map [B · N] on the host: what the sinks of each tile read of each patch, mean over sinks and heads; each tile's adds up to 1.
 * q, k [B, N, A, D] of the layer. map NULL: the same calls, for a dry run. */
void gv_importance_attention(struct run *r, struct tensor q, struct tensor k, double sink, float *map);

/* map += entropy · softmax(E) of one tile of n patches, E the entropy in bits of the histogram of 256 greys. rows [n, stride] as a
 * tower reads them: channel c of a patch at c · plane, `pixels` values; back to codes by mean and std. */
struct patch_rows {
    const float *values;
    int64_t      stride, plane;
    int          pixels;
    const float *mean, *std; /* [3] */
};
void gv_importance_entropy(float *map, int64_t n, const struct patch_rows *rows, double entropy);
/* E of one patch. */
double gv_patch_entropy(const struct patch_rows *rows, int64_t i);

#endif
