/* Wan 2.1 / 2.2 video diffusion transformer: text to video, and image to video by 36 channels with CLIP tokens or by known
 * tokens at t = 0.
 *
 *   patch embed → + per-token time → N × [self-attention (rotary, 3-D) · cross-attention to text (+ image) · MLP] → head
 *
 * Follows diffusers models/transformers/transformer_wan.py (0.42) and Wan-Video/Wan2.1 wan/modules/model.py.
 *
 * What would surprise you:
 * - The residual stream is f32 whatever the compute type; norms, modulation, gates and the time embedding are f32 too.
 * - q and k are RMS-normalised over the whole width, all heads together, before the rotary embedding.
 * - Text is padded with zero rows to text_len and the padding is attended: its rows pass through the text MLP's biases. They
 *   are all equal, so they are computed once and attended as one key of weight ln(count): exact, and up to 500 keys fewer.
 * - Image tokens have a softmax of their own; its result is added to the text's.
 * - Patches go in with the channel slowest and come out with it fastest.
 * - A layout in another order than raster's is put into it once, behind the patches, and undone once, before they go out: all
 *   between is token by token, but for attention, which sees the order, and positions, which follow it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/blocks.h"
#include "diffusion/step_cache.h"

/* ---- weights ---- */

enum { S_NONE, S_D, S_FFN, S_TEXT, S_IMAGE, S_FREQ, S_IN, S_OUT, S_6D, S_PT, S_PH, S_PW, S_IMAGE_TOKENS, S_COUNT };

struct wan_attn {
    struct tensor q, q_bias, k, k_bias, v, v_bias, o, o_bias, norm_q, norm_k;
};

struct wan_block {
    struct tensor   modulation; /* [6 D]: shift, scale, gate of self-attention, then of the MLP */
    struct wan_attn self, cross;
    struct tensor   norm2, norm2_bias; /* before cross-attention */
    struct tensor   image_k, image_k_bias, image_v, image_v_bias, image_norm_k;
    struct tensor   ffn_in, ffn_in_bias, ffn_out, ffn_out_bias;
};

struct wan_top {
    struct tensor patch, patch_bias;
    struct tensor time_in, time_in_bias, time_out, time_out_bias, time_proj, time_proj_bias;
    struct tensor text_in, text_in_bias, text_out, text_out_bias;
    struct tensor image_norm_in, image_norm_in_bias, image_in, image_in_bias, image_out, image_out_bias, image_norm_out,
        image_norm_out_bias, image_position;
    struct tensor modulation; /* [2 D]: shift, scale of the head */
    struct tensor head, head_bias;
};

#define TOP(name, field, form, ...)                                                                                            \
    {                                                                                                                          \
        name, offsetof(struct wan_top, field), form, __VA_ARGS__                                                               \
    }
static const struct weight_row top_rows[] = {
    TOP("patch_embedding.weight", patch, FORM_LINEAR, 5, { S_D, S_IN, S_PT, S_PH, S_PW }, false),
    TOP("patch_embedding.bias", patch_bias, FORM_VECTOR, 1, { S_D }, false),
    TOP("condition_embedder.time_embedder.linear_1.weight", time_in, FORM_LINEAR_F32, 2, { S_D, S_FREQ }, false),
    TOP("condition_embedder.time_embedder.linear_1.bias", time_in_bias, FORM_VECTOR, 1, { S_D }, false),
    TOP("condition_embedder.time_embedder.linear_2.weight", time_out, FORM_LINEAR_F32, 2, { S_D, S_D }, false),
    TOP("condition_embedder.time_embedder.linear_2.bias", time_out_bias, FORM_VECTOR, 1, { S_D }, false),
    TOP("condition_embedder.time_proj.weight", time_proj, FORM_LINEAR_F32, 2, { S_6D, S_D }, false),
    TOP("condition_embedder.time_proj.bias", time_proj_bias, FORM_VECTOR, 1, { S_6D }, false),
    TOP("condition_embedder.text_embedder.linear_1.weight", text_in, FORM_LINEAR, 2, { S_D, S_TEXT }, false),
    TOP("condition_embedder.text_embedder.linear_1.bias", text_in_bias, FORM_VECTOR, 1, { S_D }, false),
    TOP("condition_embedder.text_embedder.linear_2.weight", text_out, FORM_LINEAR, 2, { S_D, S_D }, false),
    TOP("condition_embedder.text_embedder.linear_2.bias", text_out_bias, FORM_VECTOR, 1, { S_D }, false),
    TOP("scale_shift_table", modulation, FORM_VECTOR, 3, { -1, -2, S_D }, false),
    TOP("proj_out.weight", head, FORM_LINEAR, 2, { S_OUT, S_D }, false),
    TOP("proj_out.bias", head_bias, FORM_VECTOR, 1, { S_OUT }, false),
};
static const struct weight_row image_rows[] = {
    TOP("condition_embedder.image_embedder.norm1.weight", image_norm_in, FORM_VECTOR, 1, { S_IMAGE }, false),
    TOP("condition_embedder.image_embedder.norm1.bias", image_norm_in_bias, FORM_VECTOR, 1, { S_IMAGE }, false),
    TOP("condition_embedder.image_embedder.ff.net.0.proj.weight", image_in, FORM_LINEAR, 2, { S_IMAGE, S_IMAGE }, false),
    TOP("condition_embedder.image_embedder.ff.net.0.proj.bias", image_in_bias, FORM_VECTOR, 1, { S_IMAGE }, false),
    TOP("condition_embedder.image_embedder.ff.net.2.weight", image_out, FORM_LINEAR, 2, { S_D, S_IMAGE }, false),
    TOP("condition_embedder.image_embedder.ff.net.2.bias", image_out_bias, FORM_VECTOR, 1, { S_D }, false),
    TOP("condition_embedder.image_embedder.norm2.weight", image_norm_out, FORM_VECTOR, 1, { S_D }, false),
    TOP("condition_embedder.image_embedder.norm2.bias", image_norm_out_bias, FORM_VECTOR, 1, { S_D }, false),
};
static const struct weight_row image_position_rows[] = {
    TOP("condition_embedder.image_embedder.pos_embed", image_position, FORM_VECTOR, 3, { -1, S_IMAGE_TOKENS, S_IMAGE }, false),
};

#define BLOCK(name, field, form, ...)                                                                                          \
    {                                                                                                                          \
        name, offsetof(struct wan_block, field), form, __VA_ARGS__                                                             \
    }
#define ATTN(name, field)                                                                                                      \
    BLOCK(name ".to_q.weight", field.q, FORM_LINEAR, 2, { S_D, S_D }, false),                                                  \
        BLOCK(name ".to_q.bias", field.q_bias, FORM_VECTOR, 1, { S_D }, false),                                                \
        BLOCK(name ".to_k.weight", field.k, FORM_LINEAR, 2, { S_D, S_D }, false),                                              \
        BLOCK(name ".to_k.bias", field.k_bias, FORM_VECTOR, 1, { S_D }, false),                                                \
        BLOCK(name ".to_v.weight", field.v, FORM_LINEAR, 2, { S_D, S_D }, false),                                              \
        BLOCK(name ".to_v.bias", field.v_bias, FORM_VECTOR, 1, { S_D }, false),                                                \
        BLOCK(name ".to_out.0.weight", field.o, FORM_LINEAR, 2, { S_D, S_D }, false),                                          \
        BLOCK(name ".to_out.0.bias", field.o_bias, FORM_VECTOR, 1, { S_D }, false),                                            \
        BLOCK(name ".norm_q.weight", field.norm_q, FORM_VECTOR, 1, { S_D }, false),                                            \
        BLOCK(name ".norm_k.weight", field.norm_k, FORM_VECTOR, 1, { S_D }, false)
static const struct weight_row block_rows[] = {
    BLOCK("scale_shift_table", modulation, FORM_VECTOR, 3, { -1, -6, S_D }, false),
    ATTN("attn1", self),
    BLOCK("norm2.weight", norm2, FORM_VECTOR, 1, { S_D }, false),
    BLOCK("norm2.bias", norm2_bias, FORM_VECTOR, 1, { S_D }, false),
    ATTN("attn2", cross),
    BLOCK("ffn.net.0.proj.weight", ffn_in, FORM_LINEAR, 2, { S_FFN, S_D }, false),
    BLOCK("ffn.net.0.proj.bias", ffn_in_bias, FORM_VECTOR, 1, { S_FFN }, false),
    BLOCK("ffn.net.2.weight", ffn_out, FORM_LINEAR, 2, { S_D, S_FFN }, false),
    BLOCK("ffn.net.2.bias", ffn_out_bias, FORM_VECTOR, 1, { S_D }, false),
    /* only in models that take image features: the last five */
    BLOCK("attn2.add_k_proj.weight", image_k, FORM_LINEAR, 2, { S_D, S_D }, false),
    BLOCK("attn2.add_k_proj.bias", image_k_bias, FORM_VECTOR, 1, { S_D }, false),
    BLOCK("attn2.add_v_proj.weight", image_v, FORM_LINEAR, 2, { S_D, S_D }, false),
    BLOCK("attn2.add_v_proj.bias", image_v_bias, FORM_VECTOR, 1, { S_D }, false),
    BLOCK("attn2.norm_added_k.weight", image_norm_k, FORM_VECTOR, 1, { S_D }, false),
};
enum { N_BLOCK_IMAGE_ROWS = 5 };

struct wan {
    struct dit        base;
    struct wan_top    top;
    struct wan_block *block; /* [layers] */
};

/* ---- open ---- */

static gv_status read_config(struct dit_config *c, const struct json_view *v)
{
    gv_json_ints(v, "patch_size", 1, 16, c->patch, 3, 3, true);
    c->in_channels = (int)gv_json_int(v, "in_channels", 1, 1024, GV_JSON_REQUIRED);
    c->out_channels = (int)gv_json_int(v, "out_channels", 1, 1024, GV_JSON_REQUIRED);
    c->text_dim = (int)gv_json_int(v, "text_dim", 1, 65536, GV_JSON_REQUIRED);
    c->image_dim = (int)gv_json_int(v, "image_dim", 1, 65536, 0);
    c->image_tokens = (int)gv_json_int(v, "pos_embed_seq_len", 1, 65536, 0);
    c->layers = (int)gv_json_int(v, "num_layers", 1, 1024, GV_JSON_REQUIRED);
    c->heads = (int)gv_json_int(v, "num_attention_heads", 1, 1024, GV_JSON_REQUIRED);
    c->head = (int)gv_json_int(v, "attention_head_dim", 2, 512, GV_JSON_REQUIRED);
    c->ffn = (int)gv_json_int(v, "ffn_dim", 1, 1 << 20, GV_JSON_REQUIRED);
    c->freq = (int)gv_json_int(v, "freq_dim", 2, 65536, 256);
    c->eps = gv_json_number(v, "eps", 0, 1, 1e-6);
    c->width = c->heads * c->head;
    TRY(gv_json_done(v));
    if (c->head % 2)
        return gv_json_fail(v, "attention_head_dim", GV_ERR_MODEL, "is %d; rotary embedding needs an even size", c->head);
    if (c->freq % 2)
        return gv_json_fail(v, "freq_dim", GV_ERR_MODEL, "is %d; it must be even", c->freq);
    if (!gv_json_bool(v, "cross_attn_norm", true))
        return gv_json_fail(v, "cross_attn_norm", GV_ERR_UNSUPPORTED, "false is not supported");
    if (strcmp(gv_json_string(v, "qk_norm", "rms_norm_across_heads"), "rms_norm_across_heads"))
        return gv_json_fail(v, "qk_norm", GV_ERR_UNSUPPORTED, "only rms_norm_across_heads is supported");
    if (c->image_dim && !gv_json_has(v, "added_kv_proj_dim"))
        return gv_json_fail(v, "added_kv_proj_dim", GV_ERR_UNSUPPORTED,
                            "is missing: image tokens inside the text are not supported");
    return gv_json_done(v);
}

static gv_status bind(struct wan *m, struct error *e)
{
    const struct dit_config *c = &m->base.config;
    const int64_t            sizes[S_COUNT] = {
                   [S_D] = c->width,
                   [S_FFN] = c->ffn,
                   [S_TEXT] = c->text_dim,
                   [S_IMAGE] = c->image_dim,
                   [S_FREQ] = c->freq,
                   [S_IN] = c->in_channels,
                   [S_OUT] = (int64_t)c->out_channels * c->patch[0] * c->patch[1] * c->patch[2],
                   [S_6D] = 6 * (int64_t)c->width,
                   [S_PT] = c->patch[0],
                   [S_PH] = c->patch[1],
                   [S_PW] = c->patch[2],
                   [S_IMAGE_TOKENS] = c->image_tokens,
    };
    struct weights *w = m->base.weights;
    TRY(gv_weights_bind(w, "", top_rows, N_ROWS(top_rows), sizes, &m->top, e));
    if (c->image_dim)
        TRY(gv_weights_bind(w, "", image_rows, N_ROWS(image_rows), sizes, &m->top, e));
    if (c->image_tokens)
        TRY(gv_weights_bind(w, "", image_position_rows, N_ROWS(image_position_rows), sizes, &m->top, e));
    for (int i = 0; i < c->layers; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "blocks.%d.", i);
        int n = N_ROWS(block_rows) - (c->image_dim ? 0 : N_BLOCK_IMAGE_ROWS);
        TRY(gv_weights_bind(w, prefix, block_rows, n, sizes, &m->block[i], e));
    }
    return GV_OK;
}

static void wan_close(struct dit *base)
{
    struct wan *m = (struct wan *)base;
    gv_weights_close(&m->base.weights);
    free(m->block);
    free(m);
}

static gv_status load(struct wan *m, const struct json_view *config, struct checkpoint *ck, struct device *d,
                      enum dtype compute, struct error *e)
{
    TRY(read_config(&m->base.config, config));
    if (!(m->block = calloc((size_t)m->base.config.layers, sizeof *m->block)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    TRY(gv_weights_open(&m->base.weights, ck, d, compute, e));
    return bind(m, e);
}

static gv_status wan_open(struct dit **out, const struct json_view *config, struct checkpoint *ck, struct device *d,
                          enum dtype compute, struct error *e)
{
    struct wan *m = calloc(1, sizeof *m);
    if (!m)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    m->base.model = &gv_dit_wan;
    gv_status status = load(m, config, ck, d, compute, e);
    if (status)
        wan_close(&m->base);
    else
        *out = &m->base;
    return status;
}

/* ---- what stays the same over all steps ---- */

struct kv {
    struct tensor k, v; /* act [1, n, heads, head] */
};

struct dit_prepared {
    int           rows;
    int64_t       tokens;
    struct rope   rope;
    struct tensor order, inverse;        /* i32 [tokens]: raster index of each token, and back; absent in raster order */
    struct tensor key_bias[GV_DIT_ROWS]; /* f32 [n + 1]: the last key stands for all padding rows */
    struct kv    *text, *image;          /* [layers * rows] */
};

/* [n + 1, text_dim] → [n + 1, D]: the real rows and one zero row, or just the real ones where nothing is padded. */
static struct tensor embed_text(struct run *r, const struct wan *m, const struct dit_condition *c)
{
    const struct wan_top *t = &m->top;
    int64_t               n = c->text.dim[0], padded = n + (n < c->text_len), d = m->base.config.width;
    struct tensor         out = gv_scratch(r, r->compute, 2, DIMS(padded, d));
    struct mark           mark = arena_mark(&r->scratch);
    struct tensor         in = gv_scratch(r, r->compute, 2, DIMS(padded, c->text.dim[1])),
                  h = gv_scratch(r, r->compute, 2, DIMS(padded, d));
    gv_fill(r, in, 0);
    gv_copy(r, slice(in, 0, 0, n), c->text);
    gv_linear(r, h, in, t->text_in, &(struct linear_opts){ .bias = t->text_in_bias, .act = ACT_GELU_TANH });
    gv_linear(r, out, h, t->text_out, &(struct linear_opts){ .bias = t->text_out_bias });
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "text_embed", out);
    return out;
}

static struct tensor embed_image(struct run *r, const struct wan *m, struct tensor image)
{
    const struct wan_top *t = &m->top;
    int64_t               n = image.dim[0], k = image.dim[1], d = m->base.config.width;
    struct tensor         out = gv_scratch(r, r->compute, 2, DIMS(n, d));
    struct mark           mark = arena_mark(&r->scratch);
    struct tensor         in = gv_scratch(r, GV_F32, 2, DIMS(n, k)), h = gv_scratch(r, r->compute, 2, DIMS(n, k));
    struct tensor         u = gv_scratch(r, r->compute, 2, DIMS(n, k)), wide = gv_scratch(r, GV_F32, 2, DIMS(n, d));
    gv_copy(r, in, image);
    if (present(t->image_position))
        gv_add(r, in, in, reshape(t->image_position, 2, DIMS(n, k)));
    gv_norm(r, h, in,
            &(struct norm_opts){ .kind = NORM_LAYER, .eps = 1e-5f, .weight = t->image_norm_in, .bias = t->image_norm_in_bias });
    gv_linear(r, u, h, t->image_in, &(struct linear_opts){ .bias = t->image_in_bias, .act = ACT_GELU_ERF });
    gv_linear(r, wide, u, t->image_out, &(struct linear_opts){ .bias = t->image_out_bias });
    gv_norm(
        r, out, wide,
        &(struct norm_opts){ .kind = NORM_LAYER, .eps = 1e-5f, .weight = t->image_norm_out, .bias = t->image_norm_out_bias });
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "image_embed", out);
    return out;
}

/* k = RMS(x · kᵀ), v = x · vᵀ. */
static void project_kv(struct run *r, const struct dit_config *c, struct kv out, struct tensor x, struct tensor k,
                       struct tensor k_bias, struct tensor v, struct tensor v_bias, struct tensor norm_k)
{
    struct tensor flat_k = reshape(out.k, 2, DIMS(out.k.dim[1], c->width)),
                  flat_v = reshape(out.v, 2, DIMS(out.v.dim[1], c->width));
    gv_linear(r, flat_k, x, k, &(struct linear_opts){ .bias = k_bias });
    gv_norm(r, flat_k, flat_k, &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)c->eps, .weight = norm_k });
    gv_linear(r, flat_v, x, v, &(struct linear_opts){ .bias = v_bias });
}

static struct kv kv_new(struct run *r, const struct dit_config *c, struct tensor x)
{
    if (!present(x))
        return (struct kv){ 0 };
    return (struct kv){ gv_scratch(r, r->compute, 4, DIMS(1, x.dim[0], c->heads, c->head)),
                        gv_scratch(r, r->compute, 4, DIMS(1, x.dim[0], c->heads, c->head)) };
}

/* ln(padding rows) for the key that stands for them, 0 for the others. */
static struct tensor padding_bias(struct run *r, const struct dit_condition *c)
{
    enum { MAX = 8192 };
    int64_t n = c->text.dim[0], padding = c->text_len - n, keys = n + (padding > 0);
    float   bias[MAX] = { 0 };
    if (padding < 0 || keys > MAX) {
        gv_run_fail(r, GV_ERR_UNSUPPORTED, "text of %lld tokens is longer than %d", (long long)n,
                    c->text_len < MAX ? c->text_len : MAX - 1);
        return (struct tensor){ 0 };
    }
    if (padding > 0)
        bias[n] = logf((float)padding);
    return gv_scratch_from(r, GV_F32, 1, DIMS(keys), bias);
}

/* The layer's keys and values of every row's text and image. Results first, so that a streamed layer's weights can go. */
static void prepare_layer(struct run *r, const struct wan *m, struct dit_prepared *p, int layer, const struct tensor *text,
                          const struct tensor *image)
{
    const struct dit_config *c = &m->base.config;
    struct kv               *t = &p->text[layer * p->rows], *im = &p->image[layer * p->rows];
    for (int i = 0; i < p->rows; i++) {
        t[i] = kv_new(r, c, text[i]);
        im[i] = kv_new(r, c, image[i]);
    }
    struct mark             mark = arena_mark(&r->scratch);
    struct wan_block        copy;
    const struct wan_block *b = gv_weights_fetch(r, m->base.weights, &m->block[layer], &copy, sizeof copy);
    for (int i = 0; i < p->rows; i++) {
        project_kv(r, c, t[i], text[i], b->cross.k, b->cross.k_bias, b->cross.v, b->cross.v_bias, b->cross.norm_k);
        if (present(image[i]))
            project_kv(r, c, im[i], image[i], b->image_k, b->image_k_bias, b->image_v, b->image_v_bias, b->image_norm_k);
    }
    arena_release(&r->scratch, mark);
}

static void wan_release(struct dit_prepared *p)
{
    if (!p)
        return;
    free(p->text);
    free(p->image);
    free(p);
}

static struct dit_prepared *prepared_new(struct run *r, const struct dit_config *c, int rows)
{
    struct dit_prepared *p = calloc(1, sizeof *p);
    size_t               n = (size_t)c->layers * (size_t)rows;
    if (p) {
        p->text = calloc(n, sizeof *p->text);
        p->image = calloc(n, sizeof *p->image);
        if (p->text && p->image)
            return p;
    }
    wan_release(p);
    gv_run_fail(r, GV_ERR_MEMORY, "no memory for the conditions of %d rows", rows);
    return NULL;
}

static void prepare_order(struct run *r, struct dit_prepared *p, const struct attn_layout *layout)
{
    int32_t *inverse = malloc((size_t)layout->tokens * sizeof *inverse);
    if (!inverse) {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the order of %lld tokens", (long long)layout->tokens);
        return;
    }
    for (int64_t i = 0; i < layout->tokens; i++)
        inverse[layout->order[i]] = (int32_t)i;
    p->order = gv_scratch_from(r, GV_I32, 1, DIMS(layout->tokens), layout->order);
    p->inverse = gv_scratch_from(r, GV_I32, 1, DIMS(layout->tokens), inverse);
    gv_sync(r);
    free(inverse);
}

static struct dit_prepared *wan_prepare(struct run *r, const struct dit *base, int rows, const struct dit_condition *cond,
                                        const struct attn_layout *layout)
{
    const struct wan        *m = (const struct wan *)base;
    const struct dit_config *c = &base->config;
    struct dit_prepared     *p = prepared_new(r, c, rows);
    if (!p)
        return NULL;
    gv_run_enter(r, "condition");
    p->rows = rows;
    p->tokens = layout->tokens;
    p->rope = gv_rope_3d(r, layout, c->head, 10000);
    if (layout->order)
        prepare_order(r, p, layout);
    struct tensor text[GV_DIT_ROWS], image[GV_DIT_ROWS] = { 0 };
    for (int i = 0; i < rows; i++) {
        p->key_bias[i] = padding_bias(r, &cond[i]);
        if (!gv_run_ready(r))
            break;
        text[i] = embed_text(r, m, &cond[i]);
        if (c->image_dim && present(cond[i].image))
            image[i] = embed_image(r, m, cond[i].image);
    }
    for (int i = 0; i < c->layers && gv_run_ready(r); i++)
        prepare_layer(r, m, p, i, text, image);
    if (gv_run_ready(r))
        return p;
    wan_release(p);
    return NULL;
}

/* ---- forward ---- */

/* One block's share of a forward. */
struct step {
    const struct dit_call     *call;
    const struct dit_prepared *prepared;
    int                        layer;
    struct tensor              mod;   /* f32 [times, 6 D] of the block */
    struct tensor              group; /* i32 [rows * tokens] or absent */
};

static struct tensor part(struct tensor mod, int64_t i, int64_t d)
{
    return slice(mod, 1, i * d, d);
}

/* Rows of [rows * n, D] as [1, n, heads, head]: one path's attention. */
static struct tensor path(struct tensor x, int64_t i, int64_t n, int64_t n_heads)
{
    struct tensor t = heads(slice(x, 0, i * n, n), n_heads);
    return reshape(t, 4, DIMS(1, n, n_heads, t.dim[2]));
}

/* Every row attends to its own keys and to the row's history. A key carries its rotation, so the order in which the history
 * keeps them does not matter; all of it is visible. */
static void attend_with_history(struct run *r, const struct wan *m, const struct step *s, struct tensor h, struct tensor q,
                                struct tensor k, struct tensor v)
{
    const struct dit_config  *c = &m->base.config;
    const struct dit_history *past = s->call->history;
    for (int i = 0; i < s->prepared->rows; i++) {
        const int64_t    n = s->prepared->tokens;
        struct attn_call call = { .q = path(q, i, n, c->heads), .n_sources = 1, .out.o = path(h, i, n, c->heads) };
        call.source[0] = (struct attn_source){ .k = path(k, i, n, c->heads), .v = path(v, i, n, c->heads) };
        call.source[1].k = gv_cache_get(past->cache, (struct cache_key){ s->layer, i, KEPT_K });
        call.source[1].v = gv_cache_get(past->cache, (struct cache_key){ s->layer, i, KEPT_V });
        if (present(call.source[1].k))
            call.n_sources = 2;
        gv_attend(r, s->call->approx, s->layer, i, &call);
    }
}

static void keep_in_history(struct run *r, const struct wan *m, const struct step *s, struct tensor k, struct tensor v)
{
    const struct dit_config  *c = &m->base.config;
    const struct dit_history *past = s->call->history;
    const int64_t             n = s->prepared->tokens, shape[4] = { 1, past->capacity, c->heads, c->head };
    for (int i = 0; i < s->prepared->rows && past->capacity; i++) {
        const struct cache_key key_k = { s->layer, i, KEPT_K }, key_v = { s->layer, i, KEPT_V };
        gv_cache_slot(r, past->cache, key_k, r->compute, 4, shape);
        gv_cache_slot(r, past->cache, key_v, r->compute, 4, shape);
        gv_cache_append(r, past->cache, key_k, path(k, i, n, c->heads), 1, past->sink);
        gv_cache_append(r, past->cache, key_v, path(v, i, n, c->heads), 1, past->sink);
    }
}

static bool kv_listed(const struct dit_kv *kv, int layer)
{
    return kv && (!kv->layers || kv->layers[layer]);
}

/* All rows together; what another forward left behind is read beside their own keys. */
static void attend_together(struct run *r, const struct wan *m, const struct step *s, struct tensor h, struct tensor q,
                            struct tensor k, struct tensor v)
{
    const struct dit_config *c = &m->base.config;
    const struct dit_kv     *give = s->call->kv_write, *take = s->call->kv_read;
    const int64_t            n = s->prepared->tokens, shape[4] = { s->prepared->rows, n, c->heads, c->head };
    const struct cache_key   key_k = { s->layer, 0, KEPT_K }, key_v = { s->layer, 0, KEPT_V };
    struct attn_call         call = { .q = reshape(q, 4, shape),
                                      .n_sources = 1,
                                      .source[0] = { .k = reshape(k, 4, shape), .v = reshape(v, 4, shape) },
                                      .out.o = reshape(h, 4, shape) };
    if (kv_listed(take, s->layer)) {
        call.source[1] = (struct attn_source){ .k = gv_cache_get(take->cache, key_k), .v = gv_cache_get(take->cache, key_v) };
        call.n_sources += present(call.source[1].k);
    }
    gv_attend(r, s->call->approx, s->layer, 0, &call);
    if (kv_listed(give, s->layer)) {
        gv_cache_put(r, give->cache, key_k, path(k, give->row, n, c->heads));
        gv_cache_put(r, give->cache, key_v, path(v, give->row, n, c->heads));
    }
}

static void self_attention(struct run *r, const struct wan *m, const struct wan_block *b, struct tensor x, const struct step *s)
{
    const struct dit_config *c = &m->base.config;
    const int64_t            d = c->width;
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            h = gv_scratch(r, r->compute, 2, x.dim), q = gv_scratch(r, r->compute, 2, x.dim);
    struct tensor            k = gv_scratch(r, r->compute, 2, x.dim), v = gv_scratch(r, r->compute, 2, x.dim);
    struct norm_opts         qk = { .kind = NORM_RMS, .eps = (float)c->eps, .rope = &s->prepared->rope };
    gv_norm(r, h, x,
            &(struct norm_opts){ .kind = NORM_LAYER,
                                 .eps = (float)c->eps,
                                 .shift = part(s->mod, 0, d),
                                 .scale = part(s->mod, 1, d),
                                 .group = s->group });
    gv_linear(r, q, h, b->self.q, &(struct linear_opts){ .bias = b->self.q_bias });
    gv_linear(r, k, h, b->self.k, &(struct linear_opts){ .bias = b->self.k_bias });
    gv_linear(r, v, h, b->self.v, &(struct linear_opts){ .bias = b->self.v_bias });
    qk.weight = b->self.norm_q;
    gv_norm(r, q, q, &qk);
    qk.weight = b->self.norm_k;
    gv_norm(r, k, k, &qk);
    if (s->call->history)
        attend_with_history(r, m, s, h, q, k, v);
    else
        attend_together(r, m, s, h, q, k, v);
    if (s->call->history && s->call->commit)
        keep_in_history(r, m, s, k, v);
    gv_linear(r, x, h, b->self.o,
              &(struct linear_opts){ .bias = b->self.o_bias, .gate = part(s->mod, 2, d), .group = s->group, .add = true });
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "self", x);
}

static void attend_row(struct run *r, struct tensor o, struct tensor q, const struct kv *kv, struct tensor key_bias)
{
    gv_attention(r, &(struct attn_call){
                        .q = q, .n_sources = 1, .source[0] = { .k = kv->k, .v = kv->v, .key_bias = key_bias }, .out.o = o });
}

static void cross_attention(struct run *r, const struct wan *m, const struct wan_block *b, struct tensor x,
                            const struct dit_prepared *p, int layer)
{
    const struct dit_config *c = &m->base.config;
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            h = gv_scratch(r, r->compute, 2, x.dim), q = gv_scratch(r, r->compute, 2, x.dim);
    struct tensor            image_o = gv_scratch(r, r->compute, 2, DIMS(c->image_dim ? p->tokens : 0, c->width));
    gv_norm(r, h, x,
            &(struct norm_opts){ .kind = NORM_LAYER, .eps = (float)c->eps, .weight = b->norm2, .bias = b->norm2_bias });
    gv_linear(r, q, h, b->cross.q, &(struct linear_opts){ .bias = b->cross.q_bias });
    gv_norm(r, q, q, &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)c->eps, .weight = b->cross.norm_q });
    for (int i = 0; i < p->rows; i++) {
        const struct kv *image = &p->image[layer * p->rows + i];
        struct tensor    qi = path(q, i, p->tokens, c->heads), oi = path(h, i, p->tokens, c->heads);
        attend_row(r, oi, qi, &p->text[layer * p->rows + i], p->key_bias[i]);
        if (present(image->k)) {
            attend_row(r, path(image_o, 0, p->tokens, c->heads), qi, image, (struct tensor){ 0 });
            gv_add(r, slice(h, 0, i * p->tokens, p->tokens), slice(h, 0, i * p->tokens, p->tokens), image_o);
        }
    }
    gv_linear(r, x, h, b->cross.o, &(struct linear_opts){ .bias = b->cross.o_bias, .add = true });
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "cross", x);
}

static void mlp(struct run *r, const struct wan *m, const struct wan_block *b, struct tensor x, const struct step *s)
{
    const struct dit_config *c = &m->base.config;
    int64_t                  d = c->width;
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            h = gv_scratch(r, r->compute, 2, x.dim), u = gv_scratch(r, r->compute, 2, DIMS(x.dim[0], c->ffn));
    gv_norm(r, h, x,
            &(struct norm_opts){ .kind = NORM_LAYER,
                                 .eps = (float)c->eps,
                                 .shift = part(s->mod, 3, d),
                                 .scale = part(s->mod, 4, d),
                                 .group = s->group });
    gv_linear(r, u, h, b->ffn_in, &(struct linear_opts){ .bias = b->ffn_in_bias, .act = ACT_GELU_TANH });
    gv_linear(r, x, u, b->ffn_out,
              &(struct linear_opts){ .bias = b->ffn_out_bias, .gate = part(s->mod, 5, d), .group = s->group, .add = true });
    arena_release(&r->scratch, mark);
}

/* temb [times, D], the head's; proj [times, 6 D], the blocks'. f32 throughout. */
static void embed_time(struct run *r, const struct wan *m, struct tensor temb, struct tensor proj, const struct dit_call *call)
{
    const struct wan_top *t = &m->top;
    int64_t               n = call->n_times, freq = m->base.config.freq;
    struct mark           mark = arena_mark(&r->scratch);
    struct tensor         h = gv_scratch(r, GV_F32, 2, temb.dim), wave = gv_scratch(r, GV_F32, 2, DIMS(n, freq));
    float                *host = malloc((size_t)(n * freq) * sizeof *host);
    if (!host)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the embedding of %lld times", (long long)n);
    else
        gv_time_embedding(host, call->time, call->n_times, (int)freq / 2);
    gv_upload(r, wave, host);
    gv_linear(r, h, wave, t->time_in, &(struct linear_opts){ .bias = t->time_in_bias, .act = ACT_SILU });
    gv_linear(r, temb, h, t->time_out, &(struct linear_opts){ .bias = t->time_out_bias });
    gv_act(r, h, temb, ACT_SILU);
    gv_linear(r, proj, h, t->time_proj, &(struct linear_opts){ .bias = t->time_proj_bias });
    gv_sync(r);
    free(host);
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "temb", temb);
    gv_run_tap(r, "timestep_proj", proj);
}

static void embed_patches(struct run *r, const struct wan *m, struct tensor x, const struct dit_prepared *p,
                          const struct dit_call *call)
{
    const struct dit_config *c = &m->base.config;
    int64_t                  rows = call->x.dim[0], n = x.dim[0] / rows;
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            patches =
        gv_scratch(r, r->compute, 2, DIMS(x.dim[0], (int64_t)c->in_channels * c->patch[0] * c->patch[1] * c->patch[2]));
    struct tensor raster = gv_scratch(r, r->compute, 2, DIMS(present(p->order) ? n : 0, patches.dim[1]));
    for (int64_t i = 0; i < rows; i++) {
        struct tensor mine = slice(patches, 0, i * n, n);
        gv_patchify(r, present(p->order) ? raster : mine, row(call->x, i), c->patch);
        if (present(p->order))
            gv_gather(r, mine, raster, p->order);
    }
    gv_linear(r, x, patches, m->top.patch, &(struct linear_opts){ .bias = m->top.patch_bias });
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "patch_embed", x);
}

static void head(struct run *r, const struct wan *m, struct tensor x, struct tensor temb, const struct step *s)
{
    const struct dit_call   *call = s->call;
    const struct tensor      inverse = s->prepared->inverse;
    const struct dit_config *c = &m->base.config;
    int64_t                  d = c->width, times = temb.dim[0], rows = call->x.dim[0], n = x.dim[0] / rows;
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            mod = gv_scratch(r, GV_F32, 2, DIMS(times, 2 * d)), h = gv_scratch(r, r->compute, 2, x.dim);
    struct tensor            out =
        gv_scratch(r, GV_F32, 2, DIMS(x.dim[0], (int64_t)c->out_channels * c->patch[0] * c->patch[1] * c->patch[2]));
    for (int64_t i = 0; i < 2; i++)
        gv_add(r, slice(mod, 1, i * d, d), temb, slice(reshape(m->top.modulation, 2, DIMS(1, 2 * d)), 1, i * d, d));
    gv_norm(
        r, h, x,
        &(struct norm_opts){
            .kind = NORM_LAYER, .eps = (float)c->eps, .shift = part(mod, 0, d), .scale = part(mod, 1, d), .group = s->group });
    gv_linear(r, out, h, m->top.head, &(struct linear_opts){ .bias = m->top.head_bias });
    struct tensor raster = gv_scratch(r, GV_F32, 2, DIMS(present(inverse) ? n : 0, out.dim[1]));
    for (int64_t i = 0; i < rows; i++) {
        struct tensor mine = slice(out, 0, i * n, n);
        if (present(inverse))
            gv_gather(r, raster, mine, inverse);
        gv_unpatchify(r, row(call->v, i), present(inverse) ? raster : mine, c->patch);
    }
    arena_release(&r->scratch, mark);
}

static void wan_forward(struct run *r, const struct dit *base, const struct dit_prepared *p, const struct dit_call *call)
{
    const struct wan        *m = (const struct wan *)base;
    const struct dit_config *c = &base->config;
    int64_t                  d = c->width, n = p->rows * p->tokens;
    if (!gv_run_ready(r))
        return;
    gv_run_enter(r, "embed");
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor x = gv_scratch(r, GV_F32, 2, DIMS(n, d)), temb = gv_scratch(r, GV_F32, 2, DIMS(call->n_times, d));
    struct tensor proj = gv_scratch(r, GV_F32, 2, DIMS(call->n_times, 6 * d)), group = { 0 };
    if (call->group)
        group = gv_scratch_from(r, GV_I32, 1, DIMS(n), call->group);
    embed_time(r, m, temb, proj, call);
    embed_patches(r, m, x, p, call);
    bool done = gv_step_blocks(r, call->steps, x, temb, proj);
    for (int i = 0; i < c->layers && !done && gv_run_ready(r); i++) {
        gv_run_enter(r, "blocks.%d", i);
        struct mark             inner = arena_mark(&r->scratch);
        struct wan_block        copy;
        const struct wan_block *b = gv_weights_fetch(r, base->weights, &m->block[i], &copy, sizeof copy);
        struct step             s = { .call = call, .prepared = p, .layer = i, .group = group };
        s.mod = gv_scratch(r, GV_F32, 2, DIMS(call->n_times, 6 * d));
        gv_add(r, s.mod, proj, reshape(b->modulation, 2, DIMS(1, 6 * d)));
        self_attention(r, m, b, x, &s);
        cross_attention(r, m, b, x, p, i);
        mlp(r, m, b, x, &s);
        arena_release(&r->scratch, inner);
        gv_run_tap(r, "out", x);
        gv_check_finite(r, x, "the residual stream");
        done = i == 0 && gv_step_first_block(r, call->steps, x);
    }
    if (!done)
        gv_step_blocks_end(r, call->steps, x);
    gv_run_enter(r, "head");
    if (present(call->v))
        head(r, m, x, temb, &(struct step){ .call = call, .prepared = p, .group = group });
    arena_release(&r->scratch, mark);
}

const struct dit_model gv_dit_wan = {
    .name = "wan",
    .class_name = "WanTransformer3DModel",
    .open = wan_open,
    .close = wan_close,
    .prepare = wan_prepare,
    .release = wan_release,
    .forward = wan_forward,
};
