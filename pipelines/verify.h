/* The exact clip beside the one with shortcuts: rendered first, spooled to a temporary file without a name, and compared
 * frame by frame while the other is delivered. */
#ifndef GV_PIPELINES_VERIFY_H
#define GV_PIPELINES_VERIFY_H

#include <stdio.h>

#include "pipelines/video.h"

/* Peak signal to noise over all samples of two frames is summed up by the caller: Σ(a - b)². rgb: [height, width, 3]. */
double gv_squared_error(const uint8_t *a, const uint8_t *b, int64_t n);
/* Structural similarity of the BT.709 luma (of sRGB values), windows of 8 x 8 every 4 pixels, K 0.01 and 0.03: Wang et al. 2004.
 * Frames smaller than a window are one window. 1 where they are equal. */
double gv_ssim(const uint8_t *a, const uint8_t *b, int width, int height);

struct verify {
    FILE          *spool;
    gv_frame_fn    on_frame; /* the request's, called behind the comparison, */
    gv_progress_fn progress; /* and throughout; */
    void          *user;     /* theirs */
    int64_t        bytes, frames;
    double         squared, similarity, worst;
    uint8_t       *exact, *packed; /* a frame each */
    gv_status      status;         /* of the file */
};

/* Renders job without its shortcuts into the spool, in the memory that was planned for it with them, then hooks itself between
 * job and its callbacks. Errors: of a render; IO. */
gv_status gv_verify_begin(struct verify *v, struct video_job *job, const struct video_report *plan, const atomic_bool *cancel,
                          struct error *e);
/* What was found, into the receipt. Errors: IO. */
gv_status gv_verify_end(struct verify *v, struct receipt *out, struct error *e);
void      gv_verify_close(struct verify *v);

#endif
