/* UMT5 encoder: T5 with a relative position bias of its own in every layer and gated GELU.
 * Follows transformers models/umt5/modeling_umt5.py (4.57).
 *
 * What would surprise you: attention scores are not scaled; there are no biases and no position embedding; the residual stream
 * grows large, so it is f32. Only real tokens are run: padding is masked in the reference and changes nothing for them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "diffusion/text.h"

enum { S_NONE, S_VOCAB, S_D, S_INNER, S_FFN, S_BUCKETS, S_HEADS, S_COUNT };

struct umt5_layer {
    struct tensor norm1, q, k, v, o, position; /* position [buckets, heads] */
    struct tensor norm2, gate, up, down;
};

struct umt5_top {
    struct tensor embedding, norm;
};

struct umt5 {
    struct text_encoder base;
    int                 layers, heads, head, ffn, buckets, max_distance;
    double              eps;
    struct umt5_top     top;
    struct umt5_layer  *layer;
};

static const struct weight_row top_rows[] = {
    { "shared.weight", offsetof(struct umt5_top, embedding), FORM_TABLE, 2, { S_VOCAB, S_D }, false },
    { "encoder.final_layer_norm.weight", offsetof(struct umt5_top, norm), FORM_VECTOR, 1, { S_D }, false },
};

#define LAYER(name, field, form, ...)                                                                                          \
    {                                                                                                                          \
        name, offsetof(struct umt5_layer, field), form, __VA_ARGS__                                                            \
    }
static const struct weight_row layer_rows[] = {
    LAYER("layer.0.layer_norm.weight", norm1, FORM_VECTOR, 1, { S_D }, false),
    LAYER("layer.0.SelfAttention.q.weight", q, FORM_LINEAR, 2, { S_INNER, S_D }, false),
    LAYER("layer.0.SelfAttention.k.weight", k, FORM_LINEAR, 2, { S_INNER, S_D }, false),
    LAYER("layer.0.SelfAttention.v.weight", v, FORM_LINEAR, 2, { S_INNER, S_D }, false),
    LAYER("layer.0.SelfAttention.o.weight", o, FORM_LINEAR, 2, { S_D, S_INNER }, false),
    LAYER("layer.0.SelfAttention.relative_attention_bias.weight", position, FORM_TABLE, 2, { S_BUCKETS, S_HEADS }, false),
    LAYER("layer.1.layer_norm.weight", norm2, FORM_VECTOR, 1, { S_D }, false),
    LAYER("layer.1.DenseReluDense.wi_0.weight", gate, FORM_LINEAR, 2, { S_FFN, S_D }, false),
    LAYER("layer.1.DenseReluDense.wi_1.weight", up, FORM_LINEAR, 2, { S_FFN, S_D }, false),
    LAYER("layer.1.DenseReluDense.wo.weight", down, FORM_LINEAR, 2, { S_D, S_FFN }, false),
};

/* ---- open ---- */

static gv_status read_config(struct umt5 *m, const struct json_view *v)
{
    static const char *const gated[] = { "gated-gelu" };
    m->base.vocabulary = (int)gv_json_int(v, "vocab_size", 1, 1 << 24, GV_JSON_REQUIRED);
    m->base.width = (int)gv_json_int(v, "d_model", 1, 65536, GV_JSON_REQUIRED);
    m->layers = (int)gv_json_int(v, "num_layers", 1, 1024, GV_JSON_REQUIRED);
    m->heads = (int)gv_json_int(v, "num_heads", 1, 1024, GV_JSON_REQUIRED);
    m->head = (int)gv_json_int(v, "d_kv", 1, 512, GV_JSON_REQUIRED);
    m->ffn = (int)gv_json_int(v, "d_ff", 1, 1 << 20, GV_JSON_REQUIRED);
    m->buckets = (int)gv_json_int(v, "relative_attention_num_buckets", 4, 1024, 32);
    m->max_distance = (int)gv_json_int(v, "relative_attention_max_distance", 8, 1 << 20, 128);
    m->eps = gv_json_number(v, "layer_norm_epsilon", 0, 1, 1e-6);
    gv_json_choice(v, "feed_forward_proj", gated, 1, 0);
    return gv_json_done(v);
}

static gv_status bind(struct umt5 *m, struct error *e)
{
    const int64_t sizes[S_COUNT] = {
        [S_VOCAB] = m->base.vocabulary, [S_D] = m->base.width, [S_INNER] = (int64_t)m->heads * m->head, [S_FFN] = m->ffn,
        [S_BUCKETS] = m->buckets,       [S_HEADS] = m->heads,
    };
    TRY(gv_weights_bind(m->base.weights, "", top_rows, N_ROWS(top_rows), sizes, &m->top, e));
    for (int i = 0; i < m->layers; i++) {
        char prefix[48];
        snprintf(prefix, sizeof prefix, "encoder.block.%d.", i);
        TRY(gv_weights_bind(m->base.weights, prefix, layer_rows, N_ROWS(layer_rows), sizes, &m->layer[i], e));
    }
    return GV_OK;
}

static void umt5_close(struct text_encoder *base)
{
    struct umt5 *m = (struct umt5 *)base;
    gv_weights_close(&m->base.weights);
    free(m->layer);
    free(m);
}

static gv_status load(struct umt5 *m, const struct json_view *config, struct checkpoint *ck, struct device *d,
                      enum dtype compute, struct error *e)
{
    TRY(read_config(m, config));
    if (!(m->layer = calloc((size_t)m->layers, sizeof *m->layer)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    TRY(gv_weights_open(&m->base.weights, ck, d, compute, e));
    return bind(m, e);
}

static gv_status umt5_open(struct text_encoder **out, const struct json_view *config, struct checkpoint *ck, struct device *d,
                           enum dtype compute, struct error *e)
{
    struct umt5 *m = calloc(1, sizeof *m);
    if (!m)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    m->base.model = &gv_text_umt5;
    gv_status status = load(m, config, ck, d, compute, e);
    if (status)
        umt5_close(&m->base);
    else
        *out = &m->base;
    return status;
}

/* ---- encode ---- */

/* Bucket of key - query, bidirectional: half for each side, exact up to an eighth of the buckets, then logarithmic up to
 * max_distance. The small term keeps exact powers on their own side of the floor. */
static int bucket(const struct umt5 *m, int distance)
{
    int half = m->buckets / 2, exact = half / 2, n = abs(distance), side = distance > 0 ? half : 0;
    if (n < exact)
        return side + n;
    double far = log((double)n / exact) / log((double)m->max_distance / exact) * (half - exact);
    int    b = exact + (int)(far + 1e-9);
    return side + (b < half ? b : half - 1);
}

/* i32 [n * n]: the bucket of every (query, key). */
static struct tensor buckets(struct run *r, const struct umt5 *m, int n)
{
    int32_t *host = malloc((size_t)n * (size_t)n * sizeof *host);
    if (!host) {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the position buckets of %d tokens", n);
        return (struct tensor){ 0 };
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++)
            host[i * n + k] = bucket(m, k - i);
    struct tensor t = gv_scratch_from(r, GV_I32, 1, DIMS((int64_t)n * n), host);
    gv_sync(r);
    free(host);
    return t;
}

/* f32 [heads, n, n] from the layer's table. */
static struct tensor position_bias(struct run *r, const struct umt5 *m, const struct umt5_layer *l, struct tensor index,
                                   int64_t n)
{
    struct tensor bias = gv_scratch(r, GV_F32, 3, DIMS(m->heads, n, n));
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor gathered = gv_scratch(r, GV_F32, 2, DIMS(n * n, m->heads));
    gv_gather(r, gathered, l->position, index);
    gv_copy(r, bias, permute(reshape(gathered, 3, DIMS(n, n, m->heads)), (const int[]){ 2, 0, 1 }));
    arena_release(&r->scratch, mark);
    return bias;
}

static void attention(struct run *r, const struct umt5 *m, const struct umt5_layer *l, struct tensor x, struct tensor index)
{
    int64_t       n = x.dim[0], inner = (int64_t)m->heads * m->head, shape[4] = { 1, n, m->heads, m->head };
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), o = gv_scratch(r, r->compute, 2, DIMS(n, inner));
    struct tensor q = gv_scratch(r, r->compute, 2, o.dim), k = gv_scratch(r, r->compute, 2, o.dim),
                  v = gv_scratch(r, r->compute, 2, o.dim);
    gv_norm(r, h, x, &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)m->eps, .weight = l->norm1 });
    gv_linear(r, q, h, l->q, NULL);
    gv_linear(r, k, h, l->k, NULL);
    gv_linear(r, v, h, l->v, NULL);
    gv_attention(r, &(struct attn_call){ .q = reshape(q, 4, shape),
                                         .n_sources = 1,
                                         .source[0] = { .k = reshape(k, 4, shape), .v = reshape(v, 4, shape) },
                                         .out.o = reshape(o, 4, shape),
                                         .scale = 1,
                                         .bias = position_bias(r, m, l, index, n) });
    gv_linear(r, x, o, l->o, &(struct linear_opts){ .add = true });
    arena_release(&r->scratch, mark);
}

static void mlp(struct run *r, const struct umt5 *m, const struct umt5_layer *l, struct tensor x)
{
    int64_t       n = x.dim[0];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim);
    struct tensor a = gv_scratch(r, r->compute, 2, DIMS(n, m->ffn)), b = gv_scratch(r, r->compute, 2, DIMS(n, m->ffn));
    gv_norm(r, h, x, &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)m->eps, .weight = l->norm2 });
    gv_linear(r, a, h, l->gate, NULL);
    gv_linear(r, b, h, l->up, NULL);
    gv_glu(r, a, a, b, ACT_GELU_TANH);
    gv_linear(r, x, a, l->down, &(struct linear_opts){ .add = true });
    arena_release(&r->scratch, mark);
}

static bool ids_fit(struct run *r, const struct text_encoder *t, const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->vocabulary) {
            gv_run_fail(
                r, GV_ERR_MODEL,
                "token id %d is outside the text encoder's vocabulary of %d: tokenizer and encoder do not belong together",
                ids[i], t->vocabulary);
            return false;
        }
    return true;
}

static void umt5_encode(struct run *r, const struct text_encoder *base, struct tensor out, const int32_t *ids, int n)
{
    const struct umt5 *m = (const struct umt5 *)base;
    gv_run_enter(r, "text encoder");
    if (!ids_fit(r, base, ids, n))
        return;
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor x = gv_scratch(r, GV_F32, 2, DIMS(n, base->width));
    struct tensor index = buckets(r, m, n);
    gv_gather(r, x, m->top.embedding, gv_scratch_from(r, GV_I32, 1, DIMS(n), ids));
    gv_run_tap(r, "embed", x);
    for (int i = 0; i < m->layers && gv_run_ready(r); i++) {
        gv_run_enter(r, "text encoder layer %d", i);
        struct mark              inner = arena_mark(&r->scratch);
        struct umt5_layer        copy;
        const struct umt5_layer *l = gv_weights_fetch(r, base->weights, &m->layer[i], &copy, sizeof copy);
        attention(r, m, l, x, index);
        mlp(r, m, l, x);
        arena_release(&r->scratch, inner);
        gv_run_tap(r, "out", x);
    }
    gv_norm(r, out, x, &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)m->eps, .weight = m->top.norm });
    gv_check_finite(r, out, "the text features");
    arena_release(&r->scratch, mark);
}

const struct text_model gv_text_umt5 = {
    .name = "umt5",
    .model_type = "umt5",
    .open = umt5_open,
    .close = umt5_close,
    .encode = umt5_encode,
};
