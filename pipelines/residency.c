#include "pipelines/residency.h"

#include "vision/vlm.h"

bool gv_residency_smaller(struct residency *h)
{
    if (h->drop && h->stream)
        return false;
    h->stream = h->drop;
    h->drop = true;
    return true;
}

/* ---- what is on the device now ---- */

enum { PARTS = 6 };

static int parts_of(const gv_model *m, struct weights *part[PARTS])
{
    int n = 0;
    if (m->vlm) {
        part[n++] = m->vlm->vision;
        part[n++] = m->vlm->decoder;
        return n;
    }
    part[n++] = m->dit->weights;
    part[n++] = m->vae->encoder;
    part[n++] = m->vae->decoder;
    part[n++] = m->text->weights;
    if (m->image)
        part[n++] = m->image->weights;
    return n;
}

/* Bytes that the job may not count on: what is in use but for what nobody pins, and for the model's own weights, which are in
 * its plan. */
static size_t taken(const gv_model *m)
{
    gv_engine *g = m->engine;
    size_t     idle = 0, used = atomic_load(&g->device->in_use);
    pthread_mutex_lock(&g->lock);
    for (const gv_model *o = g->models; o; o = o->next) {
        struct weights *part[PARTS];
        for (int i = parts_of(o, part) - 1; i >= 0; i--)
            idle += gv_weights_resident(part[i], o != m);
    }
    pthread_mutex_unlock(&g->lock);
    return used > idle ? used - idle : 0;
}

static void drop_idle(const gv_model *m, bool own)
{
    gv_engine *g = m->engine;
    pthread_mutex_lock(&g->lock);
    for (const gv_model *o = g->models; o; o = o->next) {
        struct weights *part[PARTS];
        for (int i = parts_of(o, part) - 1; i >= 0 && (own || o != m); i--)
            gv_weights_drop(part[i]);
    }
    pthread_mutex_unlock(&g->lock);
}

/* ---- a job ---- */

bool gv_residency_fits(const gv_model *m, size_t peak_bytes)
{
    const size_t budget = m->engine->device->budget, others = taken(m);
    return !budget || (others <= budget && peak_bytes <= budget - others);
}

void gv_residency_make_room(const gv_model *m, size_t peak_bytes)
{
    const struct device *d = m->engine->device;
    const size_t         used = atomic_load(&d->in_use);
    if (d->budget && (used > d->budget || peak_bytes > d->budget - used))
        drop_idle(m, false);
}

bool gv_residency_retry(struct residency *h, const gv_model *m, unsigned before, struct error *e)
{
    const struct device *d = m->engine->device;
    if (e->code != GV_ERR_MEMORY || atomic_load(&d->refused) == before || !gv_residency_smaller(h))
        return false;
    gv_log(&m->engine->log, GV_LOG_WARN, "%s; starting again: %s", e->text,
           h->stream ? "layers are streamed" : "each part leaves when its stage is over");
    drop_idle(m, true);
    *e = (struct error){ 0 };
    return true;
}
