/* Which frames of a clip a model looks at, and what they are brought to: known from the clip's length and size alone, so that
 * frames and tokens can be told before anything is decoded. Follows transformers video_processing_qwen2_vl.py (5.23). */
#ifndef GV_VISION_CLIP_H
#define GV_VISION_CLIP_H

#include "io/json.h"

/* What video_preprocessor_config.json says, or the reference's defaults. */
struct clip_config {
    double  fps;                       /* frames looked at a second */
    int     least, most;               /* frames */
    int     step;                      /* frames of a step: the model's, not a file's */
    int64_t pixels_least, pixels_most; /* of a frame */
    int64_t tokens; /* of a whole clip: nine tenths of them, shared evenly, bound the pixels of a frame further */
};
/* c holds the family's defaults. Errors: MODEL, UNSUPPORTED with file and field. */
gv_status gv_clip_config_read(struct clip_config *c, const struct json_view *v);

/* What a caller may ask for instead; 0: the model's own. */
struct clip_wish {
    double fps;
    int    frames; /* at most */
};

/* Frames to look at of `total` that last `duration` seconds, a multiple of `step` (frames of a grid step), or 1 of a clip of less.
 * Frame i is the one that is shown at i / n · duration: where frames are evenly spaced, frame floor(i · total / n). */
int gv_clip_frames(const struct clip_config *c, const struct clip_wish *w, int64_t total, double duration, int step);

#endif
