/* How a job holds its model's weights on the device, from the largest to the smallest: all of them; each part while its stage
 * lasts; layer by layer. A plan (a dry run on the null device) takes the first that fits. Should an allocation fail all the
 * same, because another process took memory between plan and render, the job starts again with the next one, and says so.
 *
 * A part that nobody pins is only kept in case somebody comes back to it: a plan counts its bytes as free, and whoever needs
 * them takes them. */
#ifndef GV_PIPELINES_RESIDENCY_H
#define GV_PIPELINES_RESIDENCY_H

#include "pipelines/engine.h"

struct residency {
    bool drop;   /* each part leaves the device when its stage is over */
    bool stream; /* layers of the encoders and the transformer are prepared as they are needed */
};

bool gv_residency_smaller(struct residency *h); /* the next one; false after the last */

/* Whether a job of this peak fits beside what is pinned for others now. */
bool gv_residency_fits(const gv_model *m, size_t peak_bytes);
/* Before the run: takes what nobody pins from the engine's other models, if the job would not fit beside it. */
void gv_residency_make_room(const gv_model *m, size_t peak_bytes);

/* After a run that failed: whether to plan and run again. Needs: nothing was handed to the user yet; the device had refused
 * memory, which gv_device.refused tells (before: its value when the run began); a smaller plan. Then *h is that, everything
 * that nobody pins is gone, *e is empty and the log says why. */
bool gv_residency_retry(struct residency *h, const gv_model *m, unsigned before, struct error *e);

#endif
