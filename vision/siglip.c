/* Follows transformers models/siglip/modeling_siglip.py (5.23), there SiglipVisionModel:
 *
 *   patches → linear + place of each patch → layers: x += out(attention(norm x)); x += fc2(gelu_tanh(fc1(norm x)))
 *
 * What would surprise you: published towers have 26 or 27 layers and their decoders were taught with what the 26th gives, before
 * post_layernorm, which with the head is neither run nor bound. The residual stream is f32. */
#include "vision/siglip.h"

#include <stdio.h>
#include <stdlib.h>

#include "attention/attention.h"

enum { S_NONE, S_D, S_FFN, S_PATCH, S_PLACES, S_COUNT };

struct siglip_layer {
    struct tensor norm1, norm1_bias, q, q_bias, k, k_bias, v, v_bias, o, o_bias;
    struct tensor norm2, norm2_bias, fc1, fc1_bias, fc2, fc2_bias;
};

struct siglip_top {
    struct tensor embed, embed_bias, place;
};

struct siglip {
    struct siglip_config config;
    struct weights      *weights;
    struct siglip_top    top;
    struct siglip_layer *layer;
};

static const struct weight_row top_rows[] = {
    { "embeddings.patch_embedding.weight",
      offsetof(struct siglip_top, embed),
      FORM_LINEAR,
      4,
      { S_D, -3, S_PATCH, S_PATCH },
      false },
    { "embeddings.patch_embedding.bias", offsetof(struct siglip_top, embed_bias), FORM_VECTOR, 1, { S_D }, false },
    { "embeddings.position_embedding.weight", offsetof(struct siglip_top, place), FORM_VECTOR, 2, { S_PLACES, S_D }, false },
};

#define LAYER(name, field, form, ...)                                                                                          \
    {                                                                                                                          \
        name, offsetof(struct siglip_layer, field), form, __VA_ARGS__, false                                                   \
    }
static const struct weight_row layer_rows[] = {
    LAYER("layer_norm1.weight", norm1, FORM_VECTOR, 1, { S_D }),
    LAYER("layer_norm1.bias", norm1_bias, FORM_VECTOR, 1, { S_D }),
    LAYER("self_attn.q_proj.weight", q, FORM_LINEAR, 2, { S_D, S_D }),
    LAYER("self_attn.q_proj.bias", q_bias, FORM_VECTOR, 1, { S_D }),
    LAYER("self_attn.k_proj.weight", k, FORM_LINEAR, 2, { S_D, S_D }),
    LAYER("self_attn.k_proj.bias", k_bias, FORM_VECTOR, 1, { S_D }),
    LAYER("self_attn.v_proj.weight", v, FORM_LINEAR, 2, { S_D, S_D }),
    LAYER("self_attn.v_proj.bias", v_bias, FORM_VECTOR, 1, { S_D }),
    LAYER("self_attn.out_proj.weight", o, FORM_LINEAR, 2, { S_D, S_D }),
    LAYER("self_attn.out_proj.bias", o_bias, FORM_VECTOR, 1, { S_D }),
    LAYER("layer_norm2.weight", norm2, FORM_VECTOR, 1, { S_D }),
    LAYER("layer_norm2.bias", norm2_bias, FORM_VECTOR, 1, { S_D }),
    LAYER("mlp.fc1.weight", fc1, FORM_LINEAR, 2, { S_FFN, S_D }),
    LAYER("mlp.fc1.bias", fc1_bias, FORM_VECTOR, 1, { S_FFN }),
    LAYER("mlp.fc2.weight", fc2, FORM_LINEAR, 2, { S_D, S_FFN }),
    LAYER("mlp.fc2.bias", fc2_bias, FORM_VECTOR, 1, { S_D }),
};

/* ---- open ---- */

static gv_status read_config(struct siglip_config *c, const struct json_view *v, int feature_layer)
{
    static const char *const gelu[] = { "gelu_pytorch_tanh" };
    c->width = (int)gv_json_int(v, "hidden_size", 1, 65536, GV_JSON_REQUIRED);
    c->heads = (int)gv_json_int(v, "num_attention_heads", 1, 1024, GV_JSON_REQUIRED);
    c->ffn = (int)gv_json_int(v, "intermediate_size", 1, 1 << 20, GV_JSON_REQUIRED);
    c->layers = (int)gv_json_int(v, "num_hidden_layers", 1, 1024, GV_JSON_REQUIRED);
    c->image = (int)gv_json_int(v, "image_size", 1, 8192, GV_JSON_REQUIRED);
    c->patch = (int)gv_json_int(v, "patch_size", 1, 256, GV_JSON_REQUIRED);
    c->eps = gv_json_number(v, "layer_norm_eps", 0, 1, 1e-6);
    gv_json_choice(v, "hidden_act", gelu, 1, 0);
    if (gv_json_int(v, "num_channels", 1, 64, 3) != 3)
        return gv_json_fail(v, "num_channels", GV_ERR_UNSUPPORTED, "must be 3");
    TRY(gv_json_done(v));
    if (c->width % c->heads)
        return gv_json_fail(v, "num_attention_heads", GV_ERR_MODEL, "is %d, which does not divide hidden_size, %d", c->heads,
                            c->width);
    if (c->image < c->patch)
        return gv_json_fail(v, "image_size", GV_ERR_MODEL, "is %d, less than patch_size, %d", c->image, c->patch);
    if (feature_layer >= 0 || -feature_layer > c->layers)
        return gv_json_fail(v, "num_hidden_layers", GV_ERR_UNSUPPORTED, "is %d and vision_feature_layer %d; -1 to -%d are read",
                            c->layers, feature_layer, c->layers);
    c->layers += feature_layer + 1;
    c->head = c->width / c->heads;
    c->side = c->image / c->patch;
    return GV_OK;
}

static gv_status bind(struct siglip *s, const char *prefix, struct error *e)
{
    const struct siglip_config *c = &s->config;
    const int64_t               sizes[S_COUNT] = {
                      [S_D] = c->width, [S_FFN] = c->ffn, [S_PATCH] = c->patch, [S_PLACES] = (int64_t)c->side * c->side
    };
    TRY(gv_weights_bind(s->weights, prefix, top_rows, N_ROWS(top_rows), sizes, &s->top, e));
    for (int i = 0; i < c->layers; i++) {
        char layer[96];
        snprintf(layer, sizeof layer, "%sencoder.layers.%d.", prefix, i);
        TRY(gv_weights_bind(s->weights, layer, layer_rows, N_ROWS(layer_rows), sizes, &s->layer[i], e));
    }
    return GV_OK;
}

void gv_siglip_close(struct siglip **s)
{
    if (!*s)
        return;
    gv_weights_close(&(*s)->weights);
    free((*s)->layer);
    free(*s);
    *s = NULL;
}

gv_status gv_siglip_open(struct siglip **out, const struct json_view *config, int feature_layer, struct checkpoint *c,
                         const char *prefix, struct device *d, enum dtype compute, struct error *e)
{
    struct siglip *s = *out = calloc(1, sizeof *s);
    gv_status      status = s ? read_config(&s->config, config, feature_layer)
                              : gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status && !(s->layer = calloc((size_t)s->config.layers, sizeof *s->layer)))
        status = gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status)
        status = gv_weights_open(&s->weights, c, d, compute, e);
    if (!status)
        status = bind(s, prefix, e);
    if (status)
        gv_siglip_close(out);
    return status;
}

const struct siglip_config *gv_siglip_config(const struct siglip *s)
{
    return &s->config;
}

struct weights *gv_siglip_weights(const struct siglip *s)
{
    return s->weights;
}

/* ---- encode ---- */

static void norm(struct run *r, const struct siglip_config *c, struct tensor y, struct tensor x, struct tensor weight,
                 struct tensor bias)
{
    gv_norm(r, y, x, &(struct norm_opts){ .kind = NORM_LAYER, .eps = (float)c->eps, .weight = weight, .bias = bias });
}

static void attention(struct run *r, const struct siglip_config *c, const struct siglip_layer *l, struct tensor x,
                      const struct importance_call *importance)
{
    const int64_t tile = (int64_t)c->side * c->side, shape[4] = { x.dim[0] / tile, tile, c->heads, c->head };
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), q = gv_scratch(r, r->compute, 2, x.dim),
                  k = gv_scratch(r, r->compute, 2, x.dim), v = gv_scratch(r, r->compute, 2, x.dim);
    norm(r, c, h, x, l->norm1, l->norm1_bias);
    gv_linear(r, q, h, l->q, &(struct linear_opts){ .bias = l->q_bias });
    gv_linear(r, k, h, l->k, &(struct linear_opts){ .bias = l->k_bias });
    gv_linear(r, v, h, l->v, &(struct linear_opts){ .bias = l->v_bias });
    if (gv_run_ready(r))
        gv_attention_dense(r, reshape(h, 4, shape), reshape(q, 4, shape), reshape(k, 4, shape), reshape(v, 4, shape));
    if (importance && gv_run_ready(r))
        gv_importance_attention(r, reshape(q, 4, shape), reshape(k, 4, shape), importance->opts.sink, importance->map);
    gv_linear(r, x, h, l->o, &(struct linear_opts){ .bias = l->o_bias, .add = true });
    arena_release(&r->scratch, mark);
}

static void mlp(struct run *r, const struct siglip_config *c, const struct siglip_layer *l, struct tensor x)
{
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), wide = gv_scratch(r, r->compute, 2, DIMS(x.dim[0], c->ffn));
    norm(r, c, h, x, l->norm2, l->norm2_bias);
    gv_linear(r, wide, h, l->fc1, &(struct linear_opts){ .bias = l->fc1_bias, .act = ACT_GELU_TANH });
    gv_linear(r, x, wide, l->fc2, &(struct linear_opts){ .bias = l->fc2_bias, .add = true });
    arena_release(&r->scratch, mark);
}

void gv_siglip_encode(struct run *r, const struct siglip *s, struct tensor x, struct tensor patches,
                      const struct importance_call *importance)
{
    const struct siglip_config *c = &s->config;
    gv_run_enter(r, "vision");
    gv_linear(r, x, patches, s->top.embed, &(struct linear_opts){ .bias = s->top.embed_bias });
    if (gv_run_ready(r))
        gv_add(r, x, x, reshape(s->top.place, 2, DIMS((int64_t)c->side * c->side, c->width)));
    gv_run_tap(r, "embed", x);
    for (int i = 0; i < c->layers && gv_run_ready(r); i++) {
        gv_run_enter(r, "vision.layers.%d", i);
        struct mark                mark = arena_mark(&r->scratch);
        struct siglip_layer        copy;
        const struct siglip_layer *l = gv_weights_fetch(r, s->weights, &s->layer[i], &copy, sizeof copy);
        attention(r, c, l, x, i + 1 == c->layers ? importance : NULL);
        mlp(r, c, l, x);
        arena_release(&r->scratch, mark);
        gv_run_tap(r, "out", x);
    }
    gv_run_enter(r, "vision");
}
