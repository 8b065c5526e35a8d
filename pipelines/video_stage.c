/* The clock, the news and the pins of a render's stages. */
#include <string.h>

#include "core/clock.h"
#include "pipelines/video_stage.h"

void gv_stage_tell(struct video_state *v, const char *stage, int64_t done, int64_t total)
{
    const struct video_job *job = v->job;
    if (!job->progress || dry(v->run) || !gv_run_ready(v->run))
        return;
    gv_progress p = { sizeof p, stage, done, total, gv_now() - v->began };
    if (job->progress(job->user, &p))
        gv_fail(&v->run->err, GV_ERR_CANCELLED, "cancelled by the progress callback");
}

double gv_stage_begin(struct video_state *v)
{
    gv_run_enter(v->run, "%s", "");
    v->run->stage[0] = 0;
    return gv_now();
}

void gv_stage_end(struct video_state *v, const char *name, double began)
{
    struct video_report *p = v->report;
    int                  i = 0;
    while (i < p->n_stages && strcmp(p->stage[i].name, name))
        i++;
    if (i == p->n_stages)
        p->stage[p->n_stages++] = (struct stage_time){ .name = name };
    p->stage[i].seconds += gv_now() - began;
}

void gv_stage_pin(struct video_state *v, struct weights *w, bool stream, bool *pinned)
{
    *pinned = gv_run_ready(v->run) && !gv_weights_pin_unless(v->run->cancel, w, v->run->device, stream, &v->run->err);
}

void gv_stage_unpin(struct video_state *v, struct weights *w, bool stream, bool *pinned)
{
    if (*pinned)
        gv_weights_unpin(w, v->run->device, stream, v->job->residency.drop);
    *pinned = false;
}
