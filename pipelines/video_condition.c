/* What a clip is told: the features of its prompts, and a picture as a known latent frame or as condition channels and CLIP
 * tokens. Prompts that the session has met are recalled. */
#include <stdlib.h>

#include "io/image.h"
#include "pipelines/memo.h"
#include "pipelines/video_stage.h"

/* ---- text ---- */

static struct tensor encode_text(struct video_state *v, const struct prompt *p)
{
    struct run          *r = v->run;
    struct text_encoder *t = v->job->model->text;
    struct tensor        out = gv_scratch(r, GV_F32, 2, DIMS(p->n, t->width));
    if (gv_run_ready(r))
        t->model->encode(r, t, out, p->ids, p->n);
    return out;
}

/* Features that the session has from an earlier render; false if it has none. A plan is made as if there were none. */
static bool recall_text(struct video_state *v, const struct prompt *p, struct tensor *out)
{
    struct run     *r = v->run;
    const gv_model *m = v->job->model;
    const float    *kept = v->job->memo && !dry(r) ? gv_memo_find(v->job->memo, m->serial, p->ids, p->n) : NULL;
    if (!kept)
        return false;
    *out = gv_scratch(r, GV_F32, 2, DIMS(p->n, m->text->width));
    gv_upload(r, *out, kept);
    gv_sync(r);
    return true;
}

static void keep_text(struct video_state *v, const struct prompt *p, struct tensor features)
{
    struct run *r = v->run;
    if (!v->job->memo || dry(r) || !gv_run_ready(r))
        return;
    float *copy = malloc(gv_tensor_bytes(features));
    if (!copy) {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory to keep a prompt");
        return;
    }
    gv_download(r, copy, features);
    gv_sync(r);
    gv_memo_put(v->job->memo, v->job->model->serial, p->ids, p->n, copy, &r->err);
}

void gv_stage_text(struct video_state *v)
{
    const struct video_job *job = v->job;
    struct weights         *w = job->model->text->weights;
    double                  began = gv_stage_begin(v);
    bool                    pinned = false;
    gv_stage_tell(v, "text", 0, 1);
    v->rows = job->guidance == 1 ? 1 : 2;
    for (int i = 0; i < v->rows; i++) {
        const struct prompt *p = i ? &job->negative : &job->prompt;
        v->condition[i].text_len = job->model->defaults.text_length;
        if (recall_text(v, p, &v->condition[i].text))
            continue;
        if (!pinned)
            gv_stage_pin(v, w, job->residency.stream, &pinned);
        v->condition[i].text = encode_text(v, p);
        keep_text(v, p, v->condition[i].text);
    }
    gv_stage_unpin(v, w, job->residency.stream, &pinned);
    gv_stage_tell(v, "text", 1, 1);
    gv_stage_end(v, "text", began);
}

/* ---- image ---- */

/* The picture at the clip's size, as Pillow's LANCZOS or, in Wan's own code, torch's bicubic gives it, in [-1, 1]: f32 [1, H, W, 3]. */
static struct tensor picture_pixels(struct video_state *v, const struct image *im)
{
    struct run             *r = v->run;
    const struct video_job *job = v->job;
    int64_t                 n = (int64_t)job->width * job->height * 3;
    struct tensor           t = gv_scratch(r, GV_F32, 4, DIMS(1, job->height, job->width, 3));
    if (dry(r) || !gv_run_ready(r))
        return t;
    float *host = malloc((size_t)n * sizeof *host);
    if (!host) {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the picture");
        return t;
    }
    const enum resize_kind kind = job->wan_rules ? RESIZE_TORCH_BICUBIC : RESIZE_LANCZOS;
    if (!gv_image_resize(host, job->width, job->height, im, kind, &r->err))
        for (int64_t i = 0; i < n; i++)
            host[i] = host[i] / 255 * 2 - 1;
    gv_upload(r, t, host);
    gv_sync(r);
    free(host);
    return t;
}

/* The first latent frame of a clip that begins with the picture. */
static void encode_known(struct video_state *v)
{
    const struct video_job *job = v->job;
    const struct vae       *vae = job->model->vae;
    v->known = gv_scratch(v->run, GV_F32, 4, DIMS(1, job->latent_height, job->latent_width, vae->z));
    struct mark        mark = arena_mark(&v->run->scratch);
    struct tensor      pixels = picture_pixels(v, &job->first);
    struct vae_stream *s = gv_run_ready(v->run) ? vae->model->stream_open(v->run, vae, VAE_ENCODE) : NULL;
    if (s)
        vae->model->encode(v->run, s, v->known, pixels);
    vae->model->stream_close(v->run, s);
    arena_release(&v->run->scratch, mark);
}

/* Wan 2.1's condition: a mask of time_scale channels, one for each frame of a latent frame, that is 1 where the frame is given
 * (all of them in the first latent frame); then the latents of a clip of the pictures with grey between. pipeline_wan_i2v.py,
 * prepare_latents. */
static void encode_channels(struct video_state *v)
{
    struct run             *r = v->run;
    const struct video_job *job = v->job;
    const struct vae       *vae = job->model->vae;
    int64_t                 T = job->latent_frames, h = job->latent_height, w = job->latent_width, mask = vae->time_scale;
    bool                    two = job->last.rgb != NULL;
    v->channels = gv_scratch(r, GV_F32, 4, DIMS(T, h, w, mask + vae->z));
    gv_fill(r, slice(v->channels, 3, 0, mask), 0);
    gv_fill(r, slice(slice(v->channels, 3, 0, mask), 0, 0, 1), 1);
    if (two)
        gv_fill(r, slice(slice(v->channels, 3, mask - 1, 1), 0, T - 1, 1), 1);
    struct mark   mark0 = arena_mark(&r->scratch);
    struct tensor pixels = picture_pixels(v, &job->first),
                  grey = gv_scratch(r, GV_F32, 4, DIMS(mask, job->height, job->width, 3));
    struct tensor      last = two ? picture_pixels(v, &job->last) : pixels;
    struct tensor      z = gv_scratch(r, GV_F32, 4, DIMS(1, h, w, vae->z));
    struct vae_stream *s = gv_run_ready(r) ? vae->model->stream_open(r, vae, VAE_ENCODE) : NULL;
    gv_fill(r, grey, 0);
    for (int64_t t = 0; s && t < T && gv_run_ready(r); t++) {
        if (two && t == T - 1)
            gv_copy(r, slice(grey, 0, mask - 1, 1), last);
        vae->model->encode(r, s, z, t ? grey : pixels);
        gv_copy(r, slice(slice(v->channels, 3, mask, vae->z), 0, t, 1), z);
        gv_stage_tell(v, "image", t + 1, T);
    }
    vae->model->stream_close(r, s);
    arena_release(&r->scratch, mark0);
}

/* Shortest edge to the tower's size, centre crop, normalise: CLIPImageProcessor. Wan's own code takes the whole picture
 * straight to the tower's square. f32 host [size, size, 3]. */
static gv_status clip_pixels(float *out, const struct image_encoder *m, const struct image *im, bool wan, struct error *e)
{
    int size = m->size, wide = im->width > im->height;
    int w = wan    ? size
            : wide ? (int)((int64_t)size * im->width / im->height)
                   : size,
        h = wan || wide ? size : (int)((int64_t)size * im->height / im->width);
    float *all = malloc((size_t)w * (size_t)h * 3 * sizeof *all);
    if (!all)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the picture");
    gv_status status = gv_image_resize(all, w, h, im, wan ? RESIZE_TORCH_BICUBIC : RESIZE_PIL_BICUBIC, e);
    int       left = (w - size) / 2, top = (h - size) / 2;
    for (int y = 0; !status && y < size; y++)
        for (int x = 0; x < size; x++)
            for (int c = 0; c < 3; c++)
                out[(y * size + x) * 3 + c] = (all[((top + y) * w + left + x) * 3 + c] / 255 - m->mean[c]) / m->std[c];
    free(all);
    return status;
}

/* The tokens of the pictures, one after the other. */
static void encode_clip(struct video_state *v)
{
    struct run                 *r = v->run;
    const struct video_job     *job = v->job;
    const struct image_encoder *m = job->model->image;
    const struct image         *pictures[] = { &job->first, &job->last };
    int                         n = job->last.rgb ? 2 : 1;
    struct tensor               out = gv_scratch(r, GV_F32, 2, DIMS(n * m->tokens, m->width));
    struct mark                 mark = arena_mark(&r->scratch);
    struct tensor               pixels = gv_scratch(r, GV_F32, 4, DIMS(1, m->size, m->size, 3));
    float                      *host = calloc((size_t)m->size * (size_t)m->size * 3, sizeof *host);
    bool                        pinned;
    gv_stage_pin(v, m->weights, job->residency.stream, &pinned);
    if (!host)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the picture");
    for (int i = 0; i < n && gv_run_ready(r); i++) {
        if (!dry(r))
            clip_pixels(host, m, pictures[i], job->wan_rules, &r->err);
        gv_upload(r, pixels, host);
        gv_sync(r);
        if (gv_run_ready(r))
            m->model->encode(r, m, slice(out, 0, i * m->tokens, m->tokens), pixels);
    }
    gv_stage_unpin(v, m->weights, job->residency.stream, &pinned);
    free(host);
    arena_release(&r->scratch, mark);
    for (int i = 0; i < v->rows; i++)
        v->condition[i].image = out;
}

void gv_stage_image(struct video_state *v)
{
    const struct video_job *job = v->job;
    struct weights         *w = job->model->vae->encoder;
    if (!job->first.rgb || !gv_run_ready(v->run))
        return;
    double began = gv_stage_begin(v);
    bool   pinned;
    gv_stage_tell(v, "image", 0, 1);
    gv_stage_pin(v, w, false, &pinned);
    if (job->model->dit->config.in_channels == job->model->vae->z)
        encode_known(v);
    else
        encode_channels(v);
    gv_stage_unpin(v, w, false, &pinned);
    if (job->model->image)
        encode_clip(v);
    gv_stage_tell(v, "image", 1, 1);
    gv_stage_end(v, "image", began);
}
