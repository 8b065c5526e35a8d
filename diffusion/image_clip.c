/* CLIP's vision tower, without its last layer and its output norm: the image tokens of Wan 2.1.
 * Follows transformers models/clip/modeling_clip.py (4.57), hidden_states[-2].
 *
 * What would surprise you: the last layer's weights are in the file and are not read; pre_layrnorm is spelt so; ViT-H uses
 * exact GELU where small CLIPs use x · sigmoid(1.702 x). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/image.h"

enum { S_NONE, S_D, S_FFN, S_PATCH, S_TOKENS, S_COUNT };

struct clip_layer {
    struct tensor norm1, norm1_bias, q, q_bias, k, k_bias, v, v_bias, o, o_bias, norm2, norm2_bias, up, up_bias, down,
        down_bias;
};

struct clip_top {
    struct tensor patch, cls, position, norm, norm_bias;
};

struct clip {
    struct image_encoder base;
    int                  layers, heads, ffn, patch;
    double               eps;
    enum act             act;
    struct clip_top      top;
    struct clip_layer   *layer;
};

#define TOP(name, field, form, ...)                                                                                            \
    {                                                                                                                          \
        name, offsetof(struct clip_top, field), form, __VA_ARGS__                                                              \
    }
static const struct weight_row top_rows[] = {
    TOP("embeddings.patch_embedding.weight", patch, FORM_LINEAR, 4, { S_D, -3, S_PATCH, S_PATCH }, false),
    TOP("embeddings.class_embedding", cls, FORM_VECTOR, 1, { S_D }, false),
    TOP("embeddings.position_embedding.weight", position, FORM_VECTOR, 2, { S_TOKENS, S_D }, false),
    TOP("pre_layrnorm.weight", norm, FORM_VECTOR, 1, { S_D }, false),
    TOP("pre_layrnorm.bias", norm_bias, FORM_VECTOR, 1, { S_D }, false),
};

#define LAYER(name, field, form, ...)                                                                                          \
    {                                                                                                                          \
        name, offsetof(struct clip_layer, field), form, __VA_ARGS__                                                            \
    }
static const struct weight_row layer_rows[] = {
    LAYER("layer_norm1.weight", norm1, FORM_VECTOR, 1, { S_D }, false),
    LAYER("layer_norm1.bias", norm1_bias, FORM_VECTOR, 1, { S_D }, false),
    LAYER("self_attn.q_proj.weight", q, FORM_LINEAR, 2, { S_D, S_D }, false),
    LAYER("self_attn.q_proj.bias", q_bias, FORM_VECTOR, 1, { S_D }, false),
    LAYER("self_attn.k_proj.weight", k, FORM_LINEAR, 2, { S_D, S_D }, false),
    LAYER("self_attn.k_proj.bias", k_bias, FORM_VECTOR, 1, { S_D }, false),
    LAYER("self_attn.v_proj.weight", v, FORM_LINEAR, 2, { S_D, S_D }, false),
    LAYER("self_attn.v_proj.bias", v_bias, FORM_VECTOR, 1, { S_D }, false),
    LAYER("self_attn.out_proj.weight", o, FORM_LINEAR, 2, { S_D, S_D }, false),
    LAYER("self_attn.out_proj.bias", o_bias, FORM_VECTOR, 1, { S_D }, false),
    LAYER("layer_norm2.weight", norm2, FORM_VECTOR, 1, { S_D }, false),
    LAYER("layer_norm2.bias", norm2_bias, FORM_VECTOR, 1, { S_D }, false),
    LAYER("mlp.fc1.weight", up, FORM_LINEAR, 2, { S_FFN, S_D }, false),
    LAYER("mlp.fc1.bias", up_bias, FORM_VECTOR, 1, { S_FFN }, false),
    LAYER("mlp.fc2.weight", down, FORM_LINEAR, 2, { S_D, S_FFN }, false),
    LAYER("mlp.fc2.bias", down_bias, FORM_VECTOR, 1, { S_D }, false),
};

/* ---- open ---- */

static gv_status read_config(struct clip *m, const struct json_view *v)
{
    static const char *const acts[] = { "gelu", "quick_gelu" };
    static const float mean[3] = { 0.48145466f, 0.4578275f, 0.40821073f }, std[3] = { 0.26862954f, 0.26130258f, 0.27577711f };
    m->base.width = (int)gv_json_int(v, "hidden_size", 1, 65536, GV_JSON_REQUIRED);
    m->base.size = (int)gv_json_int(v, "image_size", 1, 4096, GV_JSON_REQUIRED);
    m->layers = (int)gv_json_int(v, "num_hidden_layers", 2, 1024, GV_JSON_REQUIRED) - 1;
    m->heads = (int)gv_json_int(v, "num_attention_heads", 1, 1024, GV_JSON_REQUIRED);
    m->ffn = (int)gv_json_int(v, "intermediate_size", 1, 1 << 20, GV_JSON_REQUIRED);
    m->patch = (int)gv_json_int(v, "patch_size", 1, 1024, GV_JSON_REQUIRED);
    m->eps = gv_json_number(v, "layer_norm_eps", 0, 1, 1e-5);
    m->act = gv_json_choice(v, "hidden_act", acts, 2, 1) == 0 ? ACT_GELU_ERF : ACT_QUICK_GELU;
    TRY(gv_json_done(v));
    if (m->base.size % m->patch)
        return gv_json_fail(v, "image_size", GV_ERR_MODEL, "is %d, not a multiple of patch_size %d", m->base.size, m->patch);
    if (m->base.width % m->heads)
        return gv_json_fail(v, "hidden_size", GV_ERR_MODEL, "is %d, not a multiple of num_attention_heads %d", m->base.width,
                            m->heads);
    int side = m->base.size / m->patch;
    m->base.tokens = side * side + 1;
    memcpy(m->base.mean, mean, sizeof mean);
    memcpy(m->base.std, std, sizeof std);
    return GV_OK;
}

static gv_status bind(struct clip *m, const char *stem, struct error *e)
{
    const int64_t sizes[S_COUNT] = {
        [S_D] = m->base.width, [S_FFN] = m->ffn, [S_PATCH] = m->patch, [S_TOKENS] = m->base.tokens
    };
    TRY(gv_weights_bind(m->base.weights, stem, top_rows, N_ROWS(top_rows), sizes, &m->top, e));
    for (int i = 0; i < m->layers; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%sencoder.layers.%d.", stem, i);
        TRY(gv_weights_bind(m->base.weights, prefix, layer_rows, N_ROWS(layer_rows), sizes, &m->layer[i], e));
    }
    return GV_OK;
}

static void clip_close(struct image_encoder *base)
{
    struct clip *m = (struct clip *)base;
    gv_weights_close(&m->base.weights);
    free(m->layer);
    free(m);
}

static gv_status load(struct clip *m, const struct json_view *config, struct checkpoint *ck, struct device *d,
                      enum dtype compute, struct error *e)
{
    TRY(read_config(m, config));
    if (!(m->layer = calloc((size_t)m->layers, sizeof *m->layer)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    TRY(gv_weights_open(&m->base.weights, ck, d, compute, e));
    /* transformers 5 saves the tower without the prefix that every released checkpoint has */
    return bind(m, gv_checkpoint_find(ck, "pre_layrnorm.weight") ? "" : "vision_model.", e);
}

static gv_status clip_open(struct image_encoder **out, const struct json_view *config, struct checkpoint *ck, struct device *d,
                           enum dtype compute, struct error *e)
{
    struct clip *m = calloc(1, sizeof *m);
    if (!m)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    m->base.model = &gv_image_clip;
    gv_status status = load(m, config, ck, d, compute, e);
    if (status)
        clip_close(&m->base);
    else
        *out = &m->base;
    return status;
}

/* ---- encode ---- */

static void embed(struct run *r, const struct clip *m, struct tensor x, struct tensor pixels)
{
    const struct clip_top *t = &m->top;
    int64_t                d = m->base.width, n = m->base.tokens - 1;
    struct mark            mark = arena_mark(&r->scratch);
    struct tensor          patches = gv_scratch(r, r->compute, 2, DIMS(n, 3 * m->patch * m->patch));
    gv_patchify(r, patches, pixels, (const int[]){ 1, m->patch, m->patch });
    gv_copy(r, row(x, 0), t->cls);
    gv_linear(r, slice(x, 0, 1, n), patches, t->patch, NULL);
    gv_add(r, x, x, reshape(t->position, 2, DIMS(n + 1, d)));
    gv_norm(r, x, x, &(struct norm_opts){ .kind = NORM_LAYER, .eps = (float)m->eps, .weight = t->norm, .bias = t->norm_bias });
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "pre", x);
}

static void attention(struct run *r, const struct clip *m, const struct clip_layer *l, struct tensor x)
{
    int64_t       n = x.dim[0], d = x.dim[1], shape[4] = { 1, n, m->heads, d / m->heads };
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), q = gv_scratch(r, r->compute, 2, x.dim);
    struct tensor k = gv_scratch(r, r->compute, 2, x.dim), v = gv_scratch(r, r->compute, 2, x.dim);
    gv_norm(r, h, x,
            &(struct norm_opts){ .kind = NORM_LAYER, .eps = (float)m->eps, .weight = l->norm1, .bias = l->norm1_bias });
    gv_linear(r, q, h, l->q, &(struct linear_opts){ .bias = l->q_bias });
    gv_linear(r, k, h, l->k, &(struct linear_opts){ .bias = l->k_bias });
    gv_linear(r, v, h, l->v, &(struct linear_opts){ .bias = l->v_bias });
    gv_attention_dense(r, reshape(h, 4, shape), reshape(q, 4, shape), reshape(k, 4, shape), reshape(v, 4, shape));
    gv_linear(r, x, h, l->o, &(struct linear_opts){ .bias = l->o_bias, .add = true });
    arena_release(&r->scratch, mark);
}

static void mlp(struct run *r, const struct clip *m, const struct clip_layer *l, struct tensor x)
{
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), u = gv_scratch(r, r->compute, 2, DIMS(x.dim[0], m->ffn));
    gv_norm(r, h, x,
            &(struct norm_opts){ .kind = NORM_LAYER, .eps = (float)m->eps, .weight = l->norm2, .bias = l->norm2_bias });
    gv_linear(r, u, h, l->up, &(struct linear_opts){ .bias = l->up_bias, .act = m->act });
    gv_linear(r, x, u, l->down, &(struct linear_opts){ .bias = l->down_bias, .add = true });
    arena_release(&r->scratch, mark);
}

static void clip_encode(struct run *r, const struct image_encoder *base, struct tensor out, struct tensor pixels)
{
    const struct clip *m = (const struct clip *)base;
    gv_run_enter(r, "image encoder");
    embed(r, m, out, pixels);
    for (int i = 0; i < m->layers && gv_run_ready(r); i++) {
        gv_run_enter(r, "image encoder layer %d", i);
        struct mark              mark = arena_mark(&r->scratch);
        struct clip_layer        copy;
        const struct clip_layer *l = gv_weights_fetch(r, base->weights, &m->layer[i], &copy, sizeof copy);
        attention(r, m, l, out);
        mlp(r, m, l, out);
        arena_release(&r->scratch, mark);
        gv_run_tap(r, "out", out);
    }
    gv_check_finite(r, out, "the image features");
}

const struct image_model gv_image_clip = {
    .name = "clip",
    .model_type = "clip_vision_model",
    .open = clip_open,
    .close = clip_close,
    .encode = clip_encode,
};
