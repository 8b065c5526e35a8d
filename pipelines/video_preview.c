/* Rough looks at a clip while it is denoised: the middle frame's latents through the linear map of preview.h, which is the
 * model's own, or the one that the session has fitted, or fitted here. */
#include <stdlib.h>

#include "pipelines/memo.h"
#include "pipelines/video_stage.h"

void gv_stage_preview(struct video_state *v)
{
    const struct video_job *job = v->job;
    const gv_model         *m = job->model;
    struct weights         *w = m->vae->decoder;
    bool                    pinned;
    if (!job->preview_every || !gv_run_ready(v->run))
        return;
    v->preview = m->preview;
    if (!v->preview.channels && job->memo && job->memo->preview_model == m->serial)
        v->preview = job->memo->preview;
    if (v->preview.channels)
        return;
    double began = gv_stage_begin(v);
    gv_stage_tell(v, "preview", 0, 1);
    gv_stage_pin(v, w, false, &pinned);
    gv_preview_fit(v->run, m->vae, &v->preview);
    gv_stage_unpin(v, w, false, &pinned);
    if (job->memo && v->preview.channels) {
        job->memo->preview = v->preview;
        job->memo->preview_model = m->serial;
    }
    gv_stage_tell(v, "preview", 1, 1);
    gv_stage_end(v, "preview", began);
}

static void hand_preview(struct video_state *v, const uint8_t *rgb, int64_t latent)
{
    const struct video_job *job = v->job;
    const int               w = (int)job->latent_width, scale = job->model->vae->time_scale;
    const int64_t           index = latent ? (latent - 1) * scale + 1 : 0;
    gv_frame                frame = { .struct_size = sizeof frame,
                                      .format = GV_PIXEL_RGB8,
                                      .pixels = rgb,
                                      .stride = (ptrdiff_t)3 * w,
                                      .width = w,
                                      .height = (int)job->latent_height,
                                      .index = index,
                                      .seconds = (double)index / job->fps,
                                      .preview = 1 };
    if (job->on_frame(job->user, &frame))
        gv_fail(&v->run->err, GV_ERR_CANCELLED, "cancelled by the frame callback");
}

void gv_stage_look(struct video_state *v, const struct block *b, struct tensor velocity)
{
    struct run           *r = v->run;
    const struct sampler *s = &v->loop.sampler;
    const int64_t         n = v->job->latent_height * v->job->latent_width, z = v->job->model->vae->z;
    if (!v->preview.channels || (s->step + 1) % v->job->preview_every || !gv_run_ready(r))
        return;
    float   *x = malloc((size_t)(n * z) * 2 * sizeof *x), *u = x ? x + n * z : NULL;
    uint8_t *rgb = malloc((size_t)n * 3);
    if (x && rgb) {
        gv_download(r, x, slice(v->loop.x, 0, b->T / 2, 1));
        gv_download(r, u, slice(velocity, 0, b->T / 2, 1));
        gv_sync(r);
        for (int64_t i = 0; gv_run_ready(r) && i < n * z; i++)
            x[i] -= s->schedule.sigma[s->step] * u[i];
        gv_preview_draw(rgb, &v->preview, x, gv_run_ready(r) ? n : 0);
        if (gv_run_ready(r))
            hand_preview(v, rgb, b->t0 + b->T / 2);
    } else {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for a preview");
    }
    free(x);
    free(rgb);
}
