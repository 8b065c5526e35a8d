/* Every model of this room, by what its config says it is. Adding one: its file, and a line in models.c. */
#ifndef GV_VISION_MODELS_H
#define GV_VISION_MODELS_H

#include "vision/vlm.h"

/* Whether dir holds a model of this room: its config.json has a model_type, and no model_index.json stands beside it. */
bool gv_vlm_detect(const char *dir);
/* Opens the model directory: config.json, preprocessor_config.json, generation_config.json (may be absent), model.safetensors or
 * its shards. Errors: IO, MODEL, UNSUPPORTED (a family that is not here, by name), MEMORY. */
gv_status gv_vlm_open(struct vlm **out, const char *dir, struct device *d, enum dtype compute, struct error *e);

#endif
