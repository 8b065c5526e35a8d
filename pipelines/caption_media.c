/* What would surprise you: a clip of one frame is a picture, and so is a GIF that does not move. Where a step wants more frames than
 * are left, the last one is repeated. */
#include "pipelines/caption_media.h"

#include <stdlib.h>
#include <string.h>

#include "io/image.h"

/* ---- open ---- */

static gv_status open_picture(struct caption_media *m, struct error *e)
{
    TRY(gv_image_read(&m->picture, m->path, e));
    m->media.width = m->picture.width;
    m->media.height = m->picture.height;
    m->media.frames = 1;
    return GV_OK;
}

/* The section: all of the clip, or what lies between start and end. */
static gv_status cut(struct caption_media *m, const struct caption_view *view, struct error *e)
{
    const double end = view->end > 0 && view->end < m->length ? view->end : m->length;
    if (view->start >= m->length)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: start is %.2f s, and the clip lasts %.2f s", m->path, view->start, m->length);
    m->start = view->start;
    m->seconds = end - view->start;
    return GV_OK;
}

static gv_status open_clip(struct caption_media *m, const struct vlm *v, const struct caption_view *view, struct error *e)
{
    struct glimpse_info info;
    TRY(gv_glimpse_open(&m->clip, &info, m->path, e));
    if (info.frames < 2 || !(info.seconds > 0)) {
        gv_glimpse_close(&m->clip);
        return open_picture(m, e);
    }
    m->length = info.seconds;
    TRY(cut(m, view, e));
    const double whole = (double)info.frames * (m->seconds / m->length);
    m->media.video = true;
    m->media.width = info.width;
    m->media.height = info.height;
    m->media.frames = gv_clip_frames(&v->clip, &view->wish, whole < 1 ? 1 : (int64_t)(whole + 0.5), m->seconds, v->clip.step);
    m->media.seconds = m->seconds / m->media.frames * v->clip.step;
    return GV_OK;
}

gv_status gv_caption_media_open(struct caption_media *m, const struct vlm *v, const char *path, const struct caption_view *view,
                                struct error *e)
{
    *m = (struct caption_media){ .path = path, .media = { .alone = view->alone, .limit = view->limit } };
    gv_status    status = gv_glimpse_detect(path) ? open_clip(m, v, view, e) : open_picture(m, e);
    struct error why = { 0 };
    if (!status && (status = v->model->plan(v, &m->media, &why)))
        gv_fail(e, status, "%s: %s", path, why.text);
    if (status)
        gv_caption_media_close(m);
    return status;
}

void gv_caption_media_close(struct caption_media *m)
{
    gv_image_free(&m->picture);
    gv_glimpse_close(&m->clip);
}

/* ---- read ---- */

static gv_status copy(struct image *out, const struct image *im, struct error *e)
{
    TRY(gv_image_new(out, im->width, im->height, e));
    memcpy(out->rgb, im->rgb, (size_t)im->width * (size_t)im->height * 3);
    return GV_OK;
}

gv_status gv_caption_media_rewind(struct caption_media *m, struct error *e)
{
    struct glimpse_info info;
    m->taken = 0;
    if (!m->clip)
        return GV_OK;
    gv_glimpse_close(&m->clip);
    TRY(gv_glimpse_open(&m->clip, &info, m->path, e));
    if (info.width != m->media.width || info.height != m->media.height)
        return gv_fail(e, GV_ERR_FORMAT, "%s: the file has changed since it was opened", m->path);
    return GV_OK;
}

gv_status gv_caption_media_frame(struct caption_media *m, struct image *out, struct error *e)
{
    const int           i = m->taken < m->media.frames ? m->taken : m->media.frames - 1;
    const struct image *im = &m->picture;
    if (m->clip)
        TRY(gv_glimpse_at(m->clip, m->start + i * (m->seconds / m->media.frames), &im, e));
    m->taken++;
    return copy(out, im, e);
}

gv_status gv_caption_media_read(struct caption_media *m, const struct vlm *v, float *values, struct error *e)
{
    if (!m->clip)
        return v->model->prepare(v, &m->media, &m->picture, values, e);
    const int     n = m->media.step_frames;
    struct image *step = calloc((size_t)n, sizeof *step);
    gv_status     status = step ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "%s: no memory for %d frames", m->path, n);
    for (int i = 0; i < n && !status; i++)
        status = gv_caption_media_frame(m, &step[i], e);
    if (!status)
        status = v->model->prepare(v, &m->media, step, values, e);
    for (int i = 0; step && i < n; i++)
        gv_image_free(&step[i]);
    free(step);
    return status;
}
