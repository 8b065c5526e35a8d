#include "pipelines/verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- measures ---- */

double gv_squared_error(const uint8_t *a, const uint8_t *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)((a[i] - b[i]) * (a[i] - b[i]));
    return sum;
}

static double luma(const uint8_t *rgb)
{
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
}

/* One window of w x h pixels; stride in bytes. */
static double window(const uint8_t *a, const uint8_t *b, int64_t stride, int w, int h)
{
    const double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255, n = (double)w * h;
    double       x = 0, y = 0, xx = 0, yy = 0, xy = 0;

    for (int i = 0; i < h; i++)
        for (int j = 0; j < w; j++) {
            const double p = luma(a + i * stride + 3 * j), q = luma(b + i * stride + 3 * j);
            x += p, y += q, xx += p * p, yy += q * q, xy += p * q;
        }
    x /= n, y /= n;
    return (2 * x * y + c1) * (2 * (xy / n - x * y) + c2) / ((x * x + y * y + c1) * (xx / n - x * x + yy / n - y * y + c2));
}

double gv_ssim(const uint8_t *a, const uint8_t *b, int width, int height)
{
    enum { SIDE = 8, STEP = 4 };
    const int     w = width < SIDE ? width : SIDE, h = height < SIDE ? height : SIDE;
    const int64_t stride = (int64_t)3 * width;
    double        sum = 0;
    int64_t       n = 0;

    for (int y = 0; y + h <= height; y += STEP)
        for (int x = 0; x + w <= width; x += STEP, n++)
            sum += window(a + y * stride + 3 * x, b + y * stride + 3 * x, stride, w, h);
    return sum / (double)n;
}

/* ---- two clips ---- */

/* A frame's rows without gaps. */
static const uint8_t *packed(struct verify *v, const gv_frame *f)
{
    const size_t row = (size_t)f->width * 3;

    for (int y = 0; y < f->height; y++)
        memcpy(v->packed + (size_t)y * row, (const uint8_t *)f->pixels + y * f->stride, row);
    return v->packed;
}

static int spool_frame(void *user, const gv_frame *f)
{
    struct verify *v = user;

    if (fwrite(packed(v, f), 1, (size_t)v->bytes, v->spool) != (size_t)v->bytes)
        v->status = GV_ERR_IO;
    return v->status != GV_OK;
}

static int compare_frame(void *user, const gv_frame *f)
{
    struct verify *v = user;
    const uint8_t *mine = packed(v, f);

    if (fread(v->exact, 1, (size_t)v->bytes, v->spool) != (size_t)v->bytes) {
        v->status = GV_ERR_IO;
        return 1;
    }
    const double similar = gv_ssim(mine, v->exact, f->width, f->height);
    v->squared += gv_squared_error(mine, v->exact, v->bytes);
    v->similarity += similar;
    v->worst = v->frames && v->worst < similar ? v->worst : similar;
    v->frames++;
    return v->on_frame ? v->on_frame(v->user, f) : 0;
}

static int pass_progress(void *user, const gv_progress *p)
{
    const struct verify *v = user;

    return v->progress ? v->progress(v->user, p) : 0;
}

static gv_status spool_failed(const struct verify *v, gv_status status, struct error *e)
{
    if (v->status)
        e->code = GV_OK; /* it was no wish of the user's */
    return v->status ? gv_fail(e, v->status, "verify: the exact clip does not fit the folder of temporary files") : status;
}

gv_status gv_verify_begin(struct verify *v, struct video_job *job, const struct video_report *plan, const atomic_bool *cancel,
                          struct error *e)
{
    struct video_job    exact;
    struct video_report report = { .scratch_bytes = plan->scratch_bytes, .peak_bytes = plan->peak_bytes };

    *v = (struct verify){
        .on_frame = job->on_frame, .progress = job->progress, .user = job->user, .bytes = (int64_t)job->width * job->height * 3
    };
    v->spool = tmpfile();
    v->exact = malloc((size_t)v->bytes);
    v->packed = malloc((size_t)v->bytes);
    if (!v->spool)
        return gv_fail(e, GV_ERR_IO, "verify: no temporary file can be made");
    if (!v->exact || !v->packed)
        return gv_fail(e, GV_ERR_MEMORY, "verify: no memory for two frames");
    job->progress = pass_progress;
    job->user = v;
    exact = *job;
    exact.shortcuts = (struct shortcuts){ 0 };
    exact.sink = NULL;
    exact.on_frame = spool_frame;
    const gv_status status = gv_pipeline_video(&exact, cancel, &report, e);
    if (status || v->status)
        return spool_failed(v, status, e);
    rewind(v->spool);
    job->on_frame = compare_frame;
    return GV_OK;
}

gv_status gv_verify_end(struct verify *v, struct receipt *out, struct error *e)
{
    if (v->status)
        return spool_failed(v, GV_OK, e);
    const double mean = v->squared / ((double)v->bytes * (double)v->frames);
    out->verified = true;
    out->psnr = mean > 0 ? 10 * log10(255.0 * 255.0 / mean) : 99;
    out->ssim = v->similarity / (double)v->frames;
    out->worst_ssim = v->worst;
    return GV_OK;
}

void gv_verify_close(struct verify *v)
{
    if (v->spool)
        fclose(v->spool);
    free(v->exact);
    free(v->packed);
    *v = (struct verify){ 0 };
}
