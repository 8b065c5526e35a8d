/* What genvid calibrate found for a model, as a file beside it: genvid.calibration.safetensors. Two parts that are measured apart
 * and kept beside each other: of whole clips (choices of blocks, MagCache's ratios) and of causal generation (heads that read
 * their history anew). Every number is checked when it is read. */
#ifndef GV_PIPELINES_CALIBRATION_H
#define GV_PIPELINES_CALIBRATION_H

#include "attention/approx.h"
#include "genvid.h"

struct calibration {
    struct attn_calibration attention; /* bitmap NULL, fresh NULL: not measured */
    double                 *ratio;     /* [n_ratio] of MagCache; NULL: not measured */
    int                     n_ratio;
    uint32_t               *bitmap; /* what attention points to; owned */
    uint8_t                *fresh;
};

/* model: the model's directory, or a file in it. *out NULL where there is no such file. Errors: IO, MODEL, MEMORY. */
gv_status gv_calibration_read(struct calibration **out, const char *model, int layers, int heads, struct error *e);
/* Parts that c lacks are kept from the file that is there. path: room for what was written. Errors: IO, MODEL, MEMORY. */
gv_status gv_calibration_write(const struct calibration *c, const char *model, char *path, size_t room, struct error *e);
void      gv_calibration_free(struct calibration *c);

/* Renders the prompts exactly, looks, writes the file. *json: {path, prompts, density, fresh_heads, ratios}, for gv_free. */
gv_status gv_calibrate_job(gv_session *s, const gv_calibrate_request *q, char **json);

#endif
