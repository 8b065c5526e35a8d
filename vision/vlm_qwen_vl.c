/* Qwen2-VL (2B, 7B, 72B) and Qwen2.5-VL (3B, 7B, 72B; transformers models/qwen2_vl and models/qwen2_5_vl, 5.23): their tower
 * (vit.c), their decoder (lm.c), and where tokens stand.
 *
 * Positions. Text counts on, the same for t, h and w. A picture's tokens all have t = base, h = base + row, w = base + column,
 * where base is one more than any position before; a clip's step k has t = base + floor(k · seconds · tokens_per_second), with
 * Qwen2-VL t = base + k.
 * Text goes on one above the largest position so far. A caption's tokens go on counting from there.
 *
 * What would surprise you: published checkpoints call the parts visual.* and model.*, newer saves model.visual.* and
 * model.language_model.*; both are read. transformers 5 lets text go on above the largest row or column of a clip and not
 * above its largest t; the models were trained, and releases near 4.54 run, the other way, which is done here. Both agree
 * where a clip's t stays below its rows or columns. */
#include <math.h>
#include <stdlib.h>

#include "vision/vit.h"
#include "vision/vlm.h"

struct qwen {
    struct vlm  base;
    struct vit *vit;
    double      tokens_per_second; /* 0: a step is one position, however long it lasts */
};

/* ---- open ---- */

static void qwen_close(struct vlm *base)
{
    struct qwen *m = (struct qwen *)base;
    gv_vit_close(&m->vit);
    gv_lm_close(&m->base.lm);
    free(m);
}

static gv_status read_ids(struct vlm *v, const struct json_view *config)
{
    v->image_id = (int32_t)gv_json_int(config, "image_token_id", 0, 1 << 24, GV_JSON_REQUIRED);
    v->video_id = (int32_t)gv_json_int(config, "video_token_id", 0, 1 << 24, GV_JSON_REQUIRED);
    v->start_id = (int32_t)gv_json_int(config, "vision_start_token_id", 0, 1 << 24, GV_JSON_REQUIRED);
    v->end_id = (int32_t)gv_json_int(config, "vision_end_token_id", 0, 1 << 24, GV_JSON_REQUIRED);
    return gv_json_done(config);
}

static gv_status open_parts(struct qwen *m, enum vit_kind kind, const struct json_view *config, struct checkpoint *c,
                            struct device *d, enum dtype compute, struct error *e)
{
    const bool      saved_new = gv_checkpoint_find(c, "model.visual.patch_embed.proj.weight") != NULL;
    const bool      apart = gv_checkpoint_find(c, "model.language_model.norm.weight") != NULL;
    struct lm_names names = { apart ? "model.language_model." : "model.", "lm_head.weight" };

    struct json_view vision = gv_json_object(config, "vision_config", true);
    struct json_view nested = gv_json_object(config, "text_config", false), text = nested.value ? nested : *config;
    bool tied = gv_json_bool(config, "tie_word_embeddings", false) || gv_json_bool(&nested, "tie_word_embeddings", false);
    if (kind == VIT_QWEN2_5)
        m->tokens_per_second = gv_json_number(&vision, "tokens_per_second", 0, 1e6, 4);
    TRY(gv_json_done(config));
    TRY(gv_vit_open(&m->vit, kind, &vision, c, saved_new ? "model.visual." : "visual.", d, compute, e));
    return gv_lm_open(&m->base.lm, &text, tied, c, names, d, compute, e);
}

static gv_status check_fit(struct qwen *m, const struct json_view *config)
{
    const struct vit_config *v = gv_vit_config(m->vit);
    const struct lm_config  *l = gv_lm_config(m->base.lm);
    if (v->out != l->width)
        return gv_json_fail(config, "vision_config", GV_ERR_MODEL, "gives tokens of %d values, the decoder's hidden_size is %d",
                            v->out, l->width);
    if (!l->section[1])
        return gv_json_fail(config, "mrope_section", GV_ERR_MODEL, "is missing: tokens stand on three axes");
    m->base.vision = gv_vit_weights(m->vit);
    m->base.decoder = gv_lm_weights(m->base.lm);
    m->base.width = l->width;
    m->base.vocabulary = l->vocabulary;
    m->base.longest = l->longest;
    m->base.patch = (struct patch_config){ .patch = v->patch, .merge = v->merge, .temporal = v->temporal };
    return GV_OK;
}

static gv_status qwen_open(struct vlm **out, enum vit_kind kind, const struct json_view *config, struct checkpoint *c,
                           struct device *d, enum dtype compute, struct error *e)
{
    struct qwen *m = calloc(1, sizeof *m);
    gv_status    status =
        m ? read_ids(&m->base, config) : gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status)
        status = open_parts(m, kind, config, c, d, compute, e);
    if (!status)
        status = check_fit(m, config);
    if (status) {
        if (m)
            qwen_close(&m->base);
        return status;
    }
    *out = &m->base;
    return GV_OK;
}

static gv_status open_qwen2(struct vlm **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                            enum dtype compute, struct error *e)
{
    return qwen_open(out, VIT_QWEN2, config, c, d, compute, e);
}

static gv_status open_qwen2_5(struct vlm **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                              enum dtype compute, struct error *e)
{
    return qwen_open(out, VIT_QWEN2_5, config, c, d, compute, e);
}

static gv_status qwen_processor(struct vlm *v, const struct json_view *view)
{
    const struct patch_config asked = v->patch;
    TRY(gv_patch_config_read(&v->patch, view));
    if (v->patch.patch != asked.patch || v->patch.merge != asked.merge || v->patch.temporal != asked.temporal)
        return gv_json_fail(view, NULL, GV_ERR_MODEL,
                            "patch_size %d, merge_size %d, temporal_patch_size %d do not belong to config.json's %d, %d, %d",
                            v->patch.patch, v->patch.merge, v->patch.temporal, asked.patch, asked.merge, asked.temporal);
    return GV_OK;
}

/* ---- what a picture becomes ---- */

/* The limits of one step's pixels. A clip's are those of a frame, and an even share of the tokens that the whole clip may have
 * (the reference's cap_pixels_per_frame, which Qwen's own utilities always had). */
static struct patch_config limits(const struct vlm *v, const struct vlm_media *m, int steps)
{
    const int64_t       token = (int64_t)v->patch.patch * v->patch.patch * v->patch.merge * v->patch.merge;
    struct patch_config c = v->patch;
    if (m->video) {
        const int64_t share = (int64_t)((double)(v->clip.tokens * token) * 0.9) / steps;
        const int64_t floor = (int64_t)((double)v->clip.pixels_least * 1.05);
        c.least = v->clip.pixels_least;
        c.most = share < v->clip.pixels_most ? share : v->clip.pixels_most;
        c.most = c.most < floor ? floor : c.most;
    }
    if (m->limit && m->limit / steps * token < c.most) {
        c.most = m->limit / steps * token;
        c.least = c.least < c.most / 4 ? c.least : 1; /* enlarging rounds up, and could pass the limit */
    }
    return c;
}

static gv_status qwen_plan(const struct vlm *v, struct vlm_media *m, struct error *e)
{
    const int                 steps = m->video ? (m->frames + v->patch.temporal - 1) / v->patch.temporal : 1;
    const struct patch_config c = limits(v, m, steps);
    if (c.most < 1)
        return gv_fail(e, GV_ERR_ARGUMENT, "%lld tokens are too few for a clip of %d steps", (long long)m->limit, steps);
    TRY(gv_picture_grid(&c, m->height, m->width, &m->grid, e));
    m->grid.t = steps;
    m->step_frames = m->video ? v->patch.temporal : 1;
    m->step_values = (int64_t)m->grid.h * m->grid.w * patch_values(&v->patch);
    m->step_tokens = (int64_t)m->grid.h * m->grid.w / (v->patch.merge * v->patch.merge);
    m->tokens = m->step_tokens * steps;
    m->lattice = (struct prune_lattice){ .row = m->grid.w / v->patch.merge, .recycle = !m->video && m->alone };
    if (m->limit && m->tokens > m->limit)
        return gv_fail(e, GV_ERR_ARGUMENT, "%lld tokens are too few: %d steps of %dx%d need at least %lld", (long long)m->limit,
                       steps, m->width, m->height, (long long)m->tokens);
    return GV_OK;
}

static gv_status qwen_prepare(const struct vlm *v, const struct vlm_media *m, const struct image *frames, float *values,
                              struct error *e)
{
    return m->video ? gv_step_patches(&v->patch, frames, m->grid, values, e)
                    : gv_picture_patches(&v->patch, frames, m->grid, values, e);
}

/* A token's importance is the mean over its patches, as its features are made of them. */
static void encode_scored(struct run *r, const struct qwen *m, struct tensor out, struct tensor patches, struct patch_grid g,
                          struct vlm_piece piece)
{
    const struct patch_config *c = &m->base.patch;
    const int64_t              frame = (int64_t)g.h * g.w, plane = (int64_t)c->patch * c->patch;
    const int                  per = c->merge * c->merge;
    struct importance_call     call = { .opts = *piece.importance };
    if (piece.score && !(call.map = malloc((size_t)grid_patches(g) * sizeof *call.map)))
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the importance of %lld patches", (long long)grid_patches(g));
    gv_vit_encode(r, m->vit, out, patches, g, &call);
    for (int t = 0; call.map && t < g.t && gv_run_ready(r); t++) {
        const struct patch_rows rows = {
            piece.values + t * frame * patch_values(c), patch_values(c), c->temporal * plane, (int)plane, c->mean, c->std
        };
        gv_importance_entropy(call.map + t * frame, frame, &rows, call.opts.entropy);
    }
    for (int64_t i = 0; call.map && i < grid_patches(g) && gv_run_ready(r); i++)
        piece.score[i / per] = (i % per ? piece.score[i / per] : 0) + call.map[i] / (float)per;
    free(call.map);
}

static void qwen_encode(struct run *r, const struct vlm *base, struct tensor out, const struct vlm_media *media,
                        struct vlm_piece piece)
{
    const struct qwen      *m = (const struct qwen *)base;
    const struct patch_grid grid = { piece.steps, media->grid.h, media->grid.w };
    struct mark             mark = arena_mark(&r->scratch);
    struct tensor patches = gv_scratch_from(r, GV_F32, 2, DIMS(grid_patches(grid), patch_values(&base->patch)), piece.values);
    gv_sync(r);
    if (!piece.importance)
        gv_vit_encode(r, m->vit, out, patches, grid, NULL);
    else
        encode_scored(r, m, out, patches, grid, piece);
    arena_release(&r->scratch, mark);
}

/* ---- places ---- */

enum { FAR = 1 << 24 }; /* no position of a clip lies further behind its first */

static int32_t qwen_place(const struct vlm *v, const struct vlm_media *media, int32_t base, struct token_place *place)
{
    const struct qwen *m = (const struct qwen *)v;
    const int          h = media->grid.h / v->patch.merge, w = media->grid.w / v->patch.merge;
    const double       pace = m->tokens_per_second > 0 ? media->seconds * m->tokens_per_second : 1;
    int32_t            most = base;
    for (int t = 0; t < media->grid.t; t++) {
        const double time = media->video ? fmin(floor((double)t * pace), FAR) : 0;
        for (int i = 0; i < h * w; i++, place++) {
            *place = (struct token_place){ base + (int32_t)time, base + i / w, base + i % w };
            most = place->t > most ? place->t : most;
            most = place->h > most ? place->h : most;
            most = place->w > most ? place->w : most;
        }
    }
    return most;
}

/* 2 frames a second, as Qwen's own utilities ask for; the rest: video_processing_qwen2_vl.py. */
#define CLIP                                                                                                                   \
    {                                                                                                                          \
        .fps = 2, .least = 4, .most = 768, .pixels_least = 128 * 28 * 28, .pixels_most = 768 * 28 * 28, .tokens = 128000       \
    }

const struct vlm_model gv_vlm_qwen2_vl = {
    .name = "qwen2-vl",
    .model_type = "qwen2_vl",
    .clip = CLIP,
    .open = open_qwen2,
    .processor = qwen_processor,
    .close = qwen_close,
    .plan = qwen_plan,
    .prepare = qwen_prepare,
    .place = qwen_place,
    .encode = qwen_encode,
};

const struct vlm_model gv_vlm_qwen2_5_vl = {
    .name = "qwen2.5-vl",
    .model_type = "qwen2_5_vl",
    .clip = CLIP,
    .open = open_qwen2_5,
    .processor = qwen_processor,
    .close = qwen_close,
    .plan = qwen_plan,
    .prepare = qwen_prepare,
    .place = qwen_place,
    .encode = qwen_encode,
};
