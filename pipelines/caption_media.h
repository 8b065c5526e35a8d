/* One picture or clip of a caption request: opened, its size and length known, so that the model can say what it will cost; then
 * read step by step. Of a clip a step's frames are in memory, whatever its length. */
#ifndef GV_PIPELINES_CAPTION_MEDIA_H
#define GV_PIPELINES_CAPTION_MEDIA_H

#include "io/glimpse.h"
#include "vision/vlm.h"

/* How a clip is looked at. */
struct caption_view {
    struct clip_wish wish;
    double           start, end; /* seconds; end 0: the clip's own */
    int64_t          limit;      /* tokens of each picture or clip at most; 0: the model's own limits */
    bool             alone;      /* nothing else is in the prompt */
};

struct caption_media {
    struct vlm_media media;
    const char      *path;    /* the request's */
    struct image     picture; /* where clip is NULL */
    struct glimpse  *clip;
    double           length;         /* of the whole clip, seconds */
    double           start, seconds; /* the section of it that is looked at */
    int              taken;          /* frames of it that were read */
};

/* Opens and plans. Errors: ARGUMENT (a section that the clip does not have, limits that cannot be met), IO, FORMAT, UNSUPPORTED,
 * MEMORY; the message names the file. */
gv_status gv_caption_media_open(struct caption_media *m, const struct vlm *v, const char *path, const struct caption_view *view,
                                struct error *e);
void      gv_caption_media_close(struct caption_media *m);
/* values [media.step_values] of the next step. Errors: as open. */
gv_status gv_caption_media_read(struct caption_media *m, const struct vlm *v, float *values, struct error *e);
/* Back to the first frame. Errors: as open. */
gv_status gv_caption_media_rewind(struct caption_media *m, struct error *e);
/* A copy of the picture, or of the next frame that is looked at; the last one again behind it. Errors: as open. */
gv_status gv_caption_media_frame(struct caption_media *m, struct image *out, struct error *e);

#endif
