/* Qwen2.5-VL (3B, 7B, 72B; transformers models/qwen2_5_vl, 5.23): its tower (vit.c), its decoder (lm.c), and where tokens stand.
 *
 * Positions. Text counts on, the same for t, h and w. A picture's tokens all have t = base, h = base + row, w = base + column,
 * where base is one more than any position before; a clip's grid step k has t = base + floor(k · seconds · tokens_per_second).
 * Text goes on one above the largest position so far. A caption's tokens go on counting from there.
 *
 * What would surprise you: published checkpoints call the parts visual.* and model.*, newer saves model.visual.* and
 * model.language_model.*; both are read. transformers 5 lets text go on above the largest row or column of a clip and not
 * above its largest t; the models were trained, and releases near 4.54 run, the other way, which is done here. Both agree
 * where a clip's t stays below its rows or columns. */
#include <math.h>
#include <stdlib.h>

#include "attention/attention.h"
#include "vision/vit.h"
#include "vision/vlm.h"

struct qwen {
    struct vlm  base;
    struct vit *vit;
    struct lm  *lm;
    double      tokens_per_second;
};

/* ---- open ---- */

static void qwen_close(struct vlm *base)
{
    struct qwen *m = (struct qwen *)base;
    gv_vit_close(&m->vit);
    gv_lm_close(&m->lm);
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

/* Takes neither; each part shares the checkpoint. */
static gv_status open_parts(struct qwen *m, const struct json_view *config, struct checkpoint *c, struct device *d,
                            enum dtype compute, struct error *e)
{
    const bool      saved_new = gv_checkpoint_find(c, "model.visual.patch_embed.proj.weight") != NULL;
    const bool      apart = gv_checkpoint_find(c, "model.language_model.norm.weight") != NULL;
    struct lm_names names = { apart ? "model.language_model." : "model.", "lm_head.weight" };

    struct json_view vision = gv_json_object(config, "vision_config", true);
    struct json_view nested = gv_json_object(config, "text_config", false), text = nested.value ? nested : *config;
    bool tied = gv_json_bool(config, "tie_word_embeddings", false) || gv_json_bool(&nested, "tie_word_embeddings", false);
    m->tokens_per_second = gv_json_number(&vision, "tokens_per_second", 0, 1e6, 4);
    TRY(gv_json_done(config));
    TRY(gv_vit_open(&m->vit, &vision, c, saved_new ? "model.visual." : "visual.", d, compute, e));
    return gv_lm_open(&m->lm, &text, tied, c, names, d, compute, e);
}

static gv_status check_fit(struct qwen *m, const struct json_view *config)
{
    const struct vit_config *v = gv_vit_config(m->vit);
    const struct lm_config  *l = gv_lm_config(m->lm);
    if (v->out != l->width)
        return gv_json_fail(config, "vision_config.out_hidden_size", GV_ERR_MODEL, "is %d, the decoder's hidden_size %d",
                            v->out, l->width);
    m->base.vision = gv_vit_weights(m->vit);
    m->base.decoder = gv_lm_weights(m->lm);
    m->base.width = l->width;
    m->base.vocabulary = l->vocabulary;
    m->base.longest = l->longest;
    m->base.patch = (struct patch_config){ .patch = v->patch, .merge = v->merge, .temporal = v->temporal };
    return GV_OK;
}

static gv_status qwen_open(struct vlm **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                           enum dtype compute, struct error *e)
{
    struct qwen *m = calloc(1, sizeof *m);
    gv_status    status =
        m ? read_ids(&m->base, config) : gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status)
        status = open_parts(m, config, c, d, compute, e);
    if (!status)
        status = check_fit(m, config);
    if (status) {
        if (m)
            qwen_close(&m->base);
        return status;
    }
    m->base.model = &gv_vlm_qwen2_5_vl;
    *out = &m->base;
    return GV_OK;
}

/* ---- places ---- */

enum { FAR = 1 << 24 }; /* no position of a clip lies further behind its first */

static bool is_placeholder(const struct vlm *v, int32_t id)
{
    return id == v->image_id || id == v->video_id;
}

/* Tokens of one picture or clip; returns the largest position. */
static int32_t place_media(const struct qwen *m, const struct vlm_media *media, int32_t base, struct token_place *place)
{
    const int h = media->grid.h / m->base.patch.merge, w = media->grid.w / m->base.patch.merge;
    int32_t   most = base;
    for (int t = 0; t < media->grid.t; t++) {
        double time = media->video ? fmin(floor((double)t * media->seconds * m->tokens_per_second), FAR) : 0;
        for (int i = 0; i < h * w; i++, place++) {
            *place = (struct token_place){ base + (int32_t)time, base + i / w, base + i % w };
            most = place->t > most ? place->t : most;
            most = place->h > most ? place->h : most;
            most = place->w > most ? place->w : most;
        }
    }
    return most;
}

static gv_status qwen_places(const struct vlm *base, const struct vlm_prompt *p, struct token_place *place, int32_t *next,
                             struct error *e)
{
    const struct qwen *m = (const struct qwen *)base;
    int                media = 0;
    *next = 0;
    for (int64_t i = 0; i < p->n;) {
        if (!is_placeholder(base, p->ids[i])) {
            place[i++] = (struct token_place){ *next, *next, *next };
            (*next)++;
            continue;
        }
        int64_t run = i, want = media < p->n_media ? vlm_tokens(base, p->media[media].grid) : 0;
        while (run < p->n && run - i < want && p->ids[run] == (p->media[media].video ? base->video_id : base->image_id))
            run++;
        if (!want || run - i != want)
            return gv_fail(e, GV_ERR_INTERNAL, "the prompt has %lld placeholders for picture %d, which has %lld tokens",
                           (long long)(run - i), media + 1, (long long)want);
        *next = place_media(m, &p->media[media++], *next, place + i) + 1;
        i = run;
    }
    if (media != p->n_media)
        return gv_fail(e, GV_ERR_INTERNAL, "the prompt has places for %d of %d pictures", media, p->n_media);
    return GV_OK;
}

/* ---- run ---- */

static void qwen_encode(struct run *r, const struct vlm *base, struct tensor out, const struct vlm_media *media)
{
    const struct qwen *m = (const struct qwen *)base;
    struct mark        mark = arena_mark(&r->scratch);
    struct tensor      patches =
        gv_scratch_from(r, GV_F32, 2, DIMS(grid_patches(media->grid), patch_values(&base->patch)), media->patches);
    gv_sync(r);
    gv_vit_encode(r, m->vit, out, patches, media->grid);
    arena_release(&r->scratch, mark);
}

/* The rows of the embedding, and the features in place of the placeholders. */
static void fill_embedding(struct run *r, const struct qwen *m, const struct vlm_prompt *p, struct tensor x)
{
    int64_t at = 0;
    gv_lm_embed(r, m->lm, x, p->ids, p->n);
    for (int i = 0; i < p->n_media && gv_run_ready(r); i++) {
        while (!is_placeholder(&m->base, p->ids[at]))
            at++;
        gv_copy(r, slice(x, 0, at, p->features[i].dim[0]), p->features[i]);
        at += p->features[i].dim[0];
    }
}

static void qwen_prefill(struct run *r, const struct vlm *base, struct vlm_state *s, const struct vlm_prompt *p,
                         struct tensor logits)
{
    const struct qwen  *m = (const struct qwen *)base;
    struct token_place *place = malloc((size_t)p->n * sizeof *place);
    struct mark         mark = arena_mark(&r->scratch);
    struct tensor       x = gv_scratch(r, GV_F32, 2, DIMS(p->n, base->width));
    gv_run_enter(r, "prompt");
    if (!place)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the positions of %lld tokens", (long long)p->n);
    else if (gv_run_ready(r) && !qwen_places(base, p, place, &s->next, &r->err)) {
        fill_embedding(r, m, p, x);
        gv_lm_forward(r, m->lm, &s->lm, x, place, logits);
    }
    free(place);
    arena_release(&r->scratch, mark);
}

static void qwen_step(struct run *r, const struct vlm *base, struct vlm_state *s, int32_t id, struct tensor logits)
{
    const struct qwen       *m = (const struct qwen *)base;
    const struct token_place place = { s->next, s->next, s->next };
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            x = gv_scratch(r, GV_F32, 2, DIMS(1, base->width));
    gv_lm_embed(r, m->lm, x, &id, 1);
    gv_lm_forward(r, m->lm, &s->lm, x, &place, logits);
    if (gv_run_ready(r))
        s->next++;
    arena_release(&r->scratch, mark);
}

const struct vlm_model gv_vlm_qwen2_5_vl = {
    .name = "qwen2.5-vl",
    .model_type = "qwen2_5_vl",
    .open = qwen_open,
    .close = qwen_close,
    .places = qwen_places,
    .encode = qwen_encode,
    .prefill = qwen_prefill,
    .step = qwen_step,
};
