/* The vision towers of Qwen2-VL and Qwen2.5-VL: patches in, tokens of the decoder out. One picture, or some steps of one clip, a
 * call: attention never leaves a step, so a clip may be cut between steps at will. */
#ifndef GV_VISION_VIT_H
#define GV_VISION_VIT_H

#include "io/json.h"
#include "io/weights.h"
#include "vision/importance.h"
#include "vision/preprocess.h"

enum { GV_VIT_BLOCKS = 256 };

/* Qwen2-VL: layer norms with biases, plain MLPs, whole frames. Qwen2.5-VL: RMS norms, gated MLPs, windows. */
enum vit_kind { VIT_QWEN2, VIT_QWEN2_5 };

struct vit_config {
    enum vit_kind kind;
    int    depth, width, heads, head, ffn, out;
    int    patch, temporal, merge, window; /* window in merged cells a side */
    bool   full[GV_VIT_BLOCKS];            /* blocks that see their whole frame */
    double eps;
};

/* Cells of a frame (merge × merge patches each) in the order in which the tower works: windows of equal size stand together,
 * so that one call of attention with a batch serves all of them. At most four sizes: inside, right and lower edge, corner. */
struct vit_order {
    int n_groups;
    struct {
        int first, windows, cells; /* first cell; how many windows; cells in each */
    } group[4];
    int32_t *cell; /* [h · w / merge²]: place → cell in raster order */
};

struct vit;
/* Binds the tower's tensors behind prefix ("visual."). Errors: MODEL, UNSUPPORTED, MEMORY. */
gv_status gv_vit_open(struct vit **out, enum vit_kind kind, const struct json_view *config, struct checkpoint *c,
                      const char *prefix, struct device *d, enum dtype compute, struct error *e);
void      gv_vit_close(struct vit **v);

const struct vit_config *gv_vit_config(const struct vit *v);
struct weights          *gv_vit_weights(const struct vit *v);

gv_status gv_vit_order(struct vit_order *o, const struct vit_config *c, struct patch_grid g, struct error *e);
void      gv_vit_order_free(struct vit_order *o);

/* out f32 [t · h · w / merge², out] in raster order of the cells, frame by frame; patches act type or f32 [t · h · w, patch values] in
 * the order of gv_picture_patches. importance: of the last block that sees whole frames, by patch in the order of patches; or NULL. */
void gv_vit_encode(struct run *r, const struct vit *v, struct tensor out, struct tensor patches, struct patch_grid g,
                   const struct importance_call *importance);

#endif
