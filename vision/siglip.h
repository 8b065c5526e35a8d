/* SigLIP's vision tower, as LLaVA-OneVision uses it: square tiles in, one vector a patch out, of the layer that the decoder was
 * taught with, before the last norm. Tiles do not see each other. */
#ifndef GV_VISION_SIGLIP_H
#define GV_VISION_SIGLIP_H

#include "io/json.h"
#include "io/weights.h"
#include "vision/importance.h"

struct siglip_config {
    int    width, heads, head, ffn, layers; /* layers: those that are run */
    int    image, patch, side;              /* pixels of a tile, of a patch; patches a side */
    double eps;
};

struct siglip;
/* Binds the tower's tensors behind prefix ("vision_tower.vision_model."). feature_layer: of config.json, -1 = the last.
 * Errors: MODEL, UNSUPPORTED, MEMORY. */
gv_status gv_siglip_open(struct siglip **out, const struct json_view *config, int feature_layer, struct checkpoint *c,
                         const char *prefix, struct device *d, enum dtype compute, struct error *e);
void      gv_siglip_close(struct siglip **s);

const struct siglip_config *gv_siglip_config(const struct siglip *s);
struct weights             *gv_siglip_weights(const struct siglip *s);

/* x f32 [tiles · side², width]; patches f32 or act type [tiles · side², 3 · patch²]: tiles' patches in raster order, in a row channel,
 * line, column. importance: of the last layer that is run, by patch; or NULL. */
void gv_siglip_encode(struct run *r, const struct siglip *s, struct tensor x, struct tensor patches,
                      const struct importance_call *importance);

#endif
