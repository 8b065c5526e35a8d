/* LLaVA-OneVision (0.5B, 7B, 72B; transformers models/llava_onevision, 5.23): a SigLIP tower (siglip.c) over tiles (anyres.c), a
 * projector of two layers, Qwen2's decoder (lm.c) with positions that count on.
 *
 * A picture alone in its prompt is tiled; one of several is one tile and a newline; a frame of a clip is one tile, pooled to a
 * quarter of its tokens, and one newline stands behind the clip.
 *
 * What would surprise you: tokens are put together on the host, because cutting off padding, shrinking the grid and setting
 * newlines are no operation that another model needs, and they take a moment beside the tower. Frames of a clip are stretched
 * to a square. Published files call the parts vision_tower.vision_model.* and language_model.model.*, newer saves
 * (model.)vision_tower.* and model.language_model.*; all are read. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ops.h"
#include "vision/anyres.h"
#include "vision/siglip.h"
#include "vision/vlm.h"

struct projector {
    struct tensor in, in_bias, out, out_bias, newline;
};

struct llava {
    struct vlm           base;
    struct siglip       *tower;
    struct projector     projector;
    struct anyres_config tiles;
};

enum { S_NONE, S_TOWER, S_D, S_COUNT };
static const struct weight_row projector_rows[] = {
    { "multi_modal_projector.linear_1.weight", offsetof(struct projector, in), FORM_LINEAR, 2, { S_D, S_TOWER }, false },
    { "multi_modal_projector.linear_1.bias", offsetof(struct projector, in_bias), FORM_VECTOR, 1, { S_D }, false },
    { "multi_modal_projector.linear_2.weight", offsetof(struct projector, out), FORM_LINEAR, 2, { S_D, S_D }, false },
    { "multi_modal_projector.linear_2.bias", offsetof(struct projector, out_bias), FORM_VECTOR, 1, { S_D }, false },
    { "image_newline", offsetof(struct projector, newline), FORM_VECTOR, 1, { S_D }, false },
};

/* ---- open ---- */

static void llava_close(struct vlm *base)
{
    struct llava *m = (struct llava *)base;
    gv_siglip_close(&m->tower);
    gv_lm_close(&m->base.lm);
    free(m);
}

/* [[height, width], ...], multiples of the tile. */
static gv_status read_sizes(struct anyres_config *c, const struct json_view *config)
{
    const json_t *list = json_object_get(config->value, "image_grid_pinpoints");
    if (!list) { /* the family's: one to six tiles a side */
        for (int i = 0; i < 36; i++) {
            c->size[i][0] = c->tile * (i / 6 + 1);
            c->size[i][1] = c->tile * (i % 6 + 1);
        }
        c->n_sizes = 36;
        return GV_OK;
    }
    for (size_t i = 0; i < json_array_size(list) && i < GV_ANYRES_SIZES; i++)
        for (size_t k = 0; k < 2; k++) {
            const json_int_t v = json_integer_value(json_array_get(json_array_get(list, i), k));
            if (v < c->tile || v > 16384 || v % c->tile)
                return gv_json_fail(config, "image_grid_pinpoints", GV_ERR_MODEL,
                                    "[%zu][%zu] must be a multiple of the tile, %d, of up to 16384", i, k, c->tile);
            c->size[i][k] = (int)v;
            c->n_sizes = (int)i + 1;
        }
    if (!c->n_sizes || json_array_size(list) > GV_ANYRES_SIZES)
        return gv_json_fail(config, "image_grid_pinpoints", GV_ERR_MODEL, "must be a list of 1 to %d sizes", GV_ANYRES_SIZES);
    return GV_OK;
}

static gv_status read_config(struct llava *m, const struct json_view *config, int *layer)
{
    static const char *const full[] = { "full" }, *const gelu[] = { "gelu" };
    const char *aspect = gv_json_string(config, "vision_aspect_ratio", "anyres_max_9");
    const char *image = gv_json_has(config, "image_token_id") ? "image_token_id" : "image_token_index",
               *video = gv_json_has(config, "video_token_id") ? "video_token_id" : "video_token_index";
    m->base.image_id = (int32_t)gv_json_int(config, image, 0, 1 << 24, GV_JSON_REQUIRED);
    m->base.video_id = (int32_t)gv_json_int(config, video, 0, 1 << 24, GV_JSON_REQUIRED);
    m->base.start_id = m->base.end_id = -1;
    *layer = (int)gv_json_int(config, "vision_feature_layer", -1024, 1024, -1);
    gv_json_choice(config, "vision_feature_select_strategy", full, 1, 0);
    gv_json_choice(config, "projector_hidden_act", gelu, 1, 0);
    TRY(gv_json_done(config));
    if (sscanf(aspect, "anyres_max_%d", &m->tiles.most) != 1 || m->tiles.most < 1)
        return gv_json_fail(config, "vision_aspect_ratio", GV_ERR_UNSUPPORTED, "is \"%s\"; anyres_max_N is read", aspect);
    return GV_OK;
}

/* The first of the names that the checkpoint has, without its last part. */
static const char *prefix_of(const struct checkpoint *c, const char *const *prefixes, const char *probe)
{
    for (; prefixes[1]; prefixes++) {
        char name[160];
        snprintf(name, sizeof name, "%s%s", prefixes[0], probe);
        if (gv_checkpoint_find(c, name))
            break;
    }
    return prefixes[0];
}

static gv_status open_parts(struct llava *m, const struct json_view *config, int layer, struct checkpoint *c, struct device *d,
                            enum dtype compute, struct error *e)
{
    static const char *const towers[] = { "vision_tower.vision_model.", "model.vision_tower.vision_model.",
                                          "model.vision_tower.", "vision_tower.", NULL };
    static const char *const tops[] = { "", "model.", NULL };
    const bool               apart = gv_checkpoint_find(c, "model.language_model.norm.weight") != NULL;
    const struct lm_names    names = { apart ? "model.language_model." : "language_model.model.",
                                    apart ? "lm_head.weight" : "language_model.lm_head.weight" };

    struct json_view vision = gv_json_object(config, "vision_config", true), text = gv_json_object(config, "text_config", true);
    const bool tied = gv_json_bool(config, "tie_word_embeddings", false) || gv_json_bool(&text, "tie_word_embeddings", false);
    TRY(gv_json_done(config));
    TRY(gv_siglip_open(&m->tower, &vision, layer, c, prefix_of(c, towers, "embeddings.patch_embedding.bias"), d, compute, e));
    TRY(gv_lm_open(&m->base.lm, &text, tied, c, names, d, compute, e));
    const struct siglip_config *s = gv_siglip_config(m->tower);
    const struct lm_config     *l = gv_lm_config(m->base.lm);
    const int64_t               sizes[S_COUNT] = { [S_TOWER] = s->width, [S_D] = l->width };
    m->base.vision = gv_siglip_weights(m->tower);
    m->base.decoder = gv_lm_weights(m->base.lm);
    m->base.width = l->width;
    m->base.vocabulary = l->vocabulary;
    m->base.longest = l->longest;
    m->base.patch = (struct patch_config){ .patch = s->patch, .merge = 1, .temporal = 1 };
    m->tiles.tile = s->image;
    m->tiles.side = s->side;
    TRY(gv_weights_bind(m->base.vision, prefix_of(c, tops, "image_newline"), projector_rows, N_ROWS(projector_rows), sizes,
                        &m->projector, e));
    return read_sizes(&m->tiles, config);
}

static gv_status llava_open(struct vlm **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                            enum dtype compute, struct error *e)
{
    struct llava *m = calloc(1, sizeof *m);
    int           layer = -1;
    gv_status     status =
        m ? read_config(m, config, &layer) : gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status)
        status = open_parts(m, config, layer, c, d, compute, e);
    if (status) {
        if (m)
            llava_close(&m->base);
        return status;
    }
    *out = &m->base;
    return GV_OK;
}

/* preprocessor_config.json */
static gv_status llava_processor(struct vlm *v, const struct json_view *view)
{
    struct llava    *m = (struct llava *)v;
    double           mean[3] = { 0.48145466, 0.4578275, 0.40821073 }, std[3] = { 0.26862954, 0.26130258, 0.27577711 };
    struct json_view size = gv_json_object(view, "size", false);
    const int h = (int)gv_json_int(&size, "height", 1, 8192, m->tiles.tile), w = (int)gv_json_int(&size, "width", 1, 8192, h);
    gv_json_numbers(view, "image_mean", -1e6, 1e6, mean, 3, 3, false);
    gv_json_numbers(view, "image_std", 1e-6, 1e6, std, 3, 3, false);
    for (int k = 0; k < 3; k++) {
        m->tiles.mean[k] = (float)mean[k];
        m->tiles.std[k] = (float)std[k];
    }
    if (gv_json_int(view, "resample", 0, 5, 3) != 3)
        return gv_json_fail(view, "resample", GV_ERR_UNSUPPORTED, "must be 3 (bicubic)");
    TRY(gv_json_done(view));
    if (h != m->tiles.tile || w != m->tiles.tile)
        return gv_json_fail(view, "size", GV_ERR_MODEL, "is %dx%d, the tower of config.json reads %dx%d", w, h, m->tiles.tile,
                            m->tiles.tile);
    return GV_OK;
}

/* ---- what a picture becomes ---- */

static bool tiled(const struct vlm_media *m)
{
    return !m->video && m->alone;
}

static gv_status llava_plan(const struct vlm *v, struct vlm_media *media, struct error *e)
{
    const struct llava *m = (const struct llava *)v;
    const int64_t       side = m->tiles.side, half = (side + 1) / 2;
    struct anyres       a;
    int64_t             pieces = 1;
    if (media->width < 1 || media->height < 1 || fmax(media->width, media->height) / fmin(media->width, media->height) > 200)
        return gv_fail(e, GV_ERR_ARGUMENT, "a picture of %dx%d: one side may be at most 200 times the other", media->width,
                       media->height);
    media->step_frames = 1;
    media->grid = (struct patch_grid){ media->video ? media->frames : 1, (int)side, (int)side };
    media->tokens = media->video ? media->frames * half * half + 1 : side * side + 1;
    if (tiled(media)) {
        gv_anyres_plan(&a, &m->tiles, media->height, media->width);
        media->tokens = anyres_tokens(&m->tiles, &a);
        pieces += (int64_t)a.rows * a.columns;
    }
    media->step_tokens = media->video ? half * half : media->tokens;
    media->lattice = (struct prune_lattice){ media->video ? 0 : side * side, (int)side, tiled(media) ? a.grid_w + 1 : (int)half,
                                             tiled(media) };
    media->step_values = pieces * side * side * patch_values(&v->patch);
    if (media->limit && media->tokens > media->limit)
        return gv_fail(e, GV_ERR_ARGUMENT, "%lld tokens are too few: this model makes %lld of %s of %dx%d",
                       (long long)media->limit, (long long)media->tokens, media->video ? "these frames" : "a picture",
                       media->width, media->height);
    return GV_OK;
}

static gv_status llava_prepare(const struct vlm *v, const struct vlm_media *media, const struct image *frames, float *values,
                               struct error *e)
{
    const struct llava *m = (const struct llava *)v;
    struct anyres       a;
    if (!tiled(media))
        return gv_anyres_tile(&m->tiles, frames, media->video ? ANYRES_STRETCH : ANYRES_SQUARE, v->patch.patch, values, e);
    gv_anyres_plan(&a, &m->tiles, media->height, media->width);
    return gv_anyres_patches(&m->tiles, &a, frames, v->patch.patch, values, e);
}

static int32_t llava_place(const struct vlm *v, const struct vlm_media *media, int32_t base, struct token_place *place)
{
    (void)v;
    for (int32_t i = 0; i < media->tokens; i++)
        place[i] = (struct token_place){ base + i, base + i, base + i };
    return base + (int32_t)media->tokens - 1;
}

/* ---- encode ---- */

/* x [tiles · side², D], on the host, to tokens: features, or with D = 1 their importance. */
static void put_together(const struct llava *m, const struct vlm_media *media, struct vlm_piece piece, const float *x,
                         const float *newline, float *out, int64_t D)
{
    const int64_t tile = (int64_t)m->tiles.side * m->tiles.side;
    struct anyres a;
    if (tiled(media)) {
        gv_anyres_plan(&a, &m->tiles, media->height, media->width);
        gv_anyres_pack(out, &m->tiles, &a, x, newline, D);
        return;
    }
    for (int i = 0; i < piece.steps && media->video; i++, out += media->step_tokens * D)
        gv_anyres_pool(out, &m->tiles, x + i * tile * D, D);
    if (!media->video) {
        memcpy(out, x, (size_t)(tile * D) * sizeof *out);
        out += tile * D;
    }
    if (piece.first + piece.steps == media->grid.t)
        memcpy(out, newline, (size_t)D * sizeof *out);
}

static void project(struct run *r, const struct llava *m, struct tensor x, struct tensor seen, struct tensor newline)
{
    struct mark             mark = arena_mark(&r->scratch);
    struct projector        copy;
    const struct projector *p = gv_weights_fetch(r, m->base.vision, &m->projector, &copy, sizeof copy);
    struct tensor           h = gv_scratch(r, r->compute, 2, x.dim);
    gv_linear(r, h, seen, p->in, &(struct linear_opts){ .bias = p->in_bias, .act = ACT_GELU_ERF });
    gv_linear(r, x, h, p->out, &(struct linear_opts){ .bias = p->out_bias });
    gv_copy(r, newline, p->newline);
    arena_release(&r->scratch, mark);
}

/* The tower; where importance is wanted, newlines have 1, which no patch reaches: they stay. */
static void look(struct run *r, const struct llava *m, struct tensor seen, struct tensor patches, const struct vlm_media *media,
                 struct vlm_piece piece)
{
    const float   always = 1;
    const int64_t n = seen.dim[0], tile = (int64_t)m->tiles.side * m->tiles.side,
                  plane = (int64_t)m->base.patch.patch * m->base.patch.patch;
    struct importance_call  call = { 0 };
    const struct patch_rows rows = { piece.values, 3 * plane, plane, (int)plane, m->tiles.mean, m->tiles.std };
    if (!piece.importance) {
        gv_siglip_encode(r, m->tower, seen, patches, NULL);
        return;
    }
    call.opts = *piece.importance;
    if (piece.score && !(call.map = malloc((size_t)n * sizeof *call.map)))
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the importance of %lld patches", (long long)n);
    gv_siglip_encode(r, m->tower, seen, patches, &call);
    if (call.map && gv_run_ready(r)) {
        for (int64_t i = 0; i < n; i += tile) {
            struct patch_rows at = rows;
            at.values += i * rows.stride;
            gv_importance_entropy(call.map + i, tile, &at, call.opts.entropy);
        }
        put_together(m, media, piece, call.map, &always, piece.score, 1);
    }
    free(call.map);
}

static void llava_encode(struct run *r, const struct vlm *v, struct tensor out, const struct vlm_media *media,
                         struct vlm_piece piece)
{
    const struct llava *m = (const struct llava *)v;
    const int64_t       n = piece.steps * media->step_values / patch_values(&v->patch), D = v->width;
    struct mark         mark = arena_mark(&r->scratch);
    struct tensor       patches = gv_scratch_from(r, GV_F32, 2, DIMS(n, patch_values(&v->patch)), piece.values),
                  seen = gv_scratch(r, GV_F32, 2, DIMS(n, gv_siglip_config(m->tower)->width)),
                  x = gv_scratch(r, GV_F32, 2, DIMS(n, D)), newline = gv_scratch(r, GV_F32, 1, DIMS(D));
    gv_sync(r);
    look(r, m, seen, patches, media, piece);
    project(r, m, x, seen, newline);
    gv_run_tap(r, "projected", x);
    if (gv_run_ready(r) && !gv_device_is_null(r->device)) {
        float *host = malloc((size_t)((n + 1 + out.dim[0]) * D) * sizeof *host), *made = host + (n + 1) * D;
        if (host) {
            gv_download(r, host, x);
            gv_download(r, host + n * D, newline);
            put_together(m, media, piece, host, host + n * D, made, D);
            gv_upload(r, out, made);
            gv_sync(r);
        } else {
            gv_run_fail(r, GV_ERR_MEMORY, "no memory for %lld tokens of a picture", (long long)n);
        }
        free(host);
    }
    gv_run_tap(r, "merged", out);
    gv_check_finite(r, out, "the picture's features");
    arena_release(&r->scratch, mark);
}

const struct vlm_model gv_vlm_llava_onevision = {
    .name = "llava-onevision",
    .model_type = "llava_onevision",
    .clip = { .fps = 1, .least = 8, .most = 32 }, /* evenly, up to the 32 frames that its makers used */
    .open = llava_open,
    .processor = llava_processor,
    .close = llava_close,
    .plan = llava_plan,
    .prepare = llava_prepare,
    .place = llava_place,
    .encode = llava_encode,
};
