/* Qwen2's decoder with Qwen2.5-VL's positions. Follows transformers models/qwen2_5_vl/modeling_qwen2_5_vl.py (5.23), there
 * Qwen2_5_VLTextModel:
 *
 *   x += o(attention(rms x)); x += down(silu(gate) ⊙ up) of rms x; logits = head(rms x)
 *
 * What would surprise you: q, k and v have biases, o has none; the output matrix may be the embedding ("tied"), which then lies
 * on the device twice, once as rows and once packed for products; a head's pairs are halves, and each is turned by one of three
 * positions (t, h, w), the first section by t; models without axes turn all by t. Keys are kept rotated. A factor on the scores of
 * picture tokens is one on their keys, so tables of their own turn and scale them at once. The residual stream is f32. */
#include "vision/lm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"
#include "vision/rotate.h"

enum { S_NONE, S_VOCAB, S_D, S_Q, S_KV, S_FFN, S_COUNT };

struct lm_layer {
    struct tensor norm1, q, q_bias, k, k_bias, v, v_bias, o;
    struct tensor norm2, gate, up, down;
};

struct lm_top {
    struct tensor embedding, norm, head;
};

struct lm {
    struct lm_config config;
    struct weights  *weights;
    struct lm_top    top;
    struct lm_layer *layer;
};

static const struct weight_row top_rows[] = {
    { "embed_tokens.weight", offsetof(struct lm_top, embedding), FORM_TABLE, 2, { S_VOCAB, S_D }, false },
    { "norm.weight", offsetof(struct lm_top, norm), FORM_VECTOR, 1, { S_D }, false },
};

#define LAYER(name, field, form, ...)                                                                                          \
    {                                                                                                                          \
        name, offsetof(struct lm_layer, field), form, __VA_ARGS__, false                                                       \
    }
static const struct weight_row layer_rows[] = {
    LAYER("input_layernorm.weight", norm1, FORM_VECTOR, 1, { S_D }),
    LAYER("self_attn.q_proj.weight", q, FORM_LINEAR, 2, { S_Q, S_D }),
    LAYER("self_attn.q_proj.bias", q_bias, FORM_VECTOR, 1, { S_Q }),
    LAYER("self_attn.k_proj.weight", k, FORM_LINEAR, 2, { S_KV, S_D }),
    LAYER("self_attn.k_proj.bias", k_bias, FORM_VECTOR, 1, { S_KV }),
    LAYER("self_attn.v_proj.weight", v, FORM_LINEAR, 2, { S_KV, S_D }),
    LAYER("self_attn.v_proj.bias", v_bias, FORM_VECTOR, 1, { S_KV }),
    LAYER("self_attn.o_proj.weight", o, FORM_LINEAR, 2, { S_D, S_Q }),
    LAYER("post_attention_layernorm.weight", norm2, FORM_VECTOR, 1, { S_D }),
    LAYER("mlp.gate_proj.weight", gate, FORM_LINEAR, 2, { S_FFN, S_D }),
    LAYER("mlp.up_proj.weight", up, FORM_LINEAR, 2, { S_FFN, S_D }),
    LAYER("mlp.down_proj.weight", down, FORM_LINEAR, 2, { S_D, S_FFN }),
};

/* ---- open ---- */

/* Published files: rope_theta, and where there are three axes rope_scaling {type: "mrope", mrope_section}; newer ones: all in
 * rope_parameters. */
static gv_status read_rope(struct lm_config *c, const struct json_view *v)
{
    struct json_view rope = gv_json_object(v, gv_json_has(v, "rope_parameters") ? "rope_parameters" : "rope_scaling", false);
    const char      *kind = gv_json_string(&rope, "rope_type", gv_json_string(&rope, "type", "default"));
    c->theta = gv_json_number(&rope, "rope_theta", 1, 1e12, gv_json_number(v, "rope_theta", 1, 1e12, 1e6));
    c->section[0] = c->head / 2;
    if (gv_json_has(&rope, "mrope_section"))
        gv_json_ints(&rope, "mrope_section", 0, 4096, c->section, 3, 3, true);
    if (strcmp(kind, "default") && strcmp(kind, "mrope"))
        return gv_json_fail(&rope, "rope_type", GV_ERR_UNSUPPORTED, "is \"%s\"; default and mrope are read", kind);
    TRY(gv_json_done(v));
    if (c->section[0] + c->section[1] + c->section[2] != c->head / 2)
        return gv_json_fail(&rope, "mrope_section", GV_ERR_MODEL, "must add up to half a head, %d", c->head / 2);
    return GV_OK;
}

static gv_status read_config(struct lm_config *c, const struct json_view *v)
{
    static const char *const silu[] = { "silu" };
    c->vocabulary = (int)gv_json_int(v, "vocab_size", 1, 1 << 24, GV_JSON_REQUIRED);
    c->width = (int)gv_json_int(v, "hidden_size", 2, 65536, GV_JSON_REQUIRED);
    c->layers = (int)gv_json_int(v, "num_hidden_layers", 1, 1024, GV_JSON_REQUIRED);
    c->heads = (int)gv_json_int(v, "num_attention_heads", 1, 1024, GV_JSON_REQUIRED);
    c->kv_heads = (int)gv_json_int(v, "num_key_value_heads", 1, 1024, c->heads);
    c->ffn = (int)gv_json_int(v, "intermediate_size", 1, 1 << 20, GV_JSON_REQUIRED);
    c->longest = (int)gv_json_int(v, "max_position_embeddings", 1, 1 << 24, 32768);
    c->eps = gv_json_number(v, "rms_norm_eps", 0, 1, 1e-6);
    gv_json_choice(v, "hidden_act", silu, 1, 0);
    bool window = gv_json_bool(v, "use_sliding_window", false);
    TRY(gv_json_done(v));
    if (window)
        return gv_json_fail(v, "use_sliding_window", GV_ERR_UNSUPPORTED, "is true; only full attention is here");
    if (c->width % c->heads || c->width / c->heads % 2)
        return gv_json_fail(v, "num_attention_heads", GV_ERR_MODEL, "is %d: hidden_size, %d, must be an even multiple of it",
                            c->heads, c->width);
    if (c->heads % c->kv_heads)
        return gv_json_fail(v, "num_key_value_heads", GV_ERR_MODEL, "is %d, which does not divide num_attention_heads, %d",
                            c->kv_heads, c->heads);
    c->head = c->width / c->heads;
    return read_rope(c, v);
}

static gv_status bind(struct lm *m, struct lm_names names, struct error *e)
{
    const struct lm_config *c = &m->config;
    const int64_t           sizes[S_COUNT] = {
                  [S_VOCAB] = c->vocabulary, [S_D] = c->width, [S_Q] = c->width, [S_KV] = (int64_t)c->kv_heads * c->head, [S_FFN] = c->ffn
    };
    char name[64];
    snprintf(name, sizeof name, "%s%s", c->tied ? names.body : "", c->tied ? "embed_tokens.weight" : names.head);
    const struct weight_row head[] = { { name, offsetof(struct lm_top, head), FORM_LINEAR, 2, { S_VOCAB, S_D }, false } };
    TRY(gv_weights_bind(m->weights, names.body, top_rows, N_ROWS(top_rows), sizes, &m->top, e));
    TRY(gv_weights_bind(m->weights, "", head, 1, sizes, &m->top, e));
    for (int i = 0; i < c->layers; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%slayers.%d.", names.body, i);
        TRY(gv_weights_bind(m->weights, prefix, layer_rows, N_ROWS(layer_rows), sizes, &m->layer[i], e));
    }
    return GV_OK;
}

void gv_lm_close(struct lm **m)
{
    if (!*m)
        return;
    gv_weights_close(&(*m)->weights);
    free((*m)->layer);
    free(*m);
    *m = NULL;
}

gv_status gv_lm_open(struct lm **out, const struct json_view *config, bool tied, struct checkpoint *c, struct lm_names names,
                     struct device *d, enum dtype compute, struct error *e)
{
    struct lm *m = *out = calloc(1, sizeof *m);
    gv_status  status =
        m ? read_config(&m->config, config) : gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status && !(m->layer = calloc((size_t)m->config.layers, sizeof *m->layer)))
        status = gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status) {
        m->config.tied = tied;
        status = gv_weights_open(&m->weights, c, d, compute, e);
    }
    if (!status)
        status = bind(m, names, e);
    if (status)
        gv_lm_close(out);
    return status;
}

const struct lm_config *gv_lm_config(const struct lm *m)
{
    return &m->config;
}

struct weights *gv_lm_weights(const struct lm *m)
{
    return m->weights;
}

/* ---- state ---- */

gv_status gv_lm_state_open(struct lm_state *s, struct device *d, int64_t capacity, struct error *e)
{
    *s = (struct lm_state){ .capacity = capacity };
    return gv_cache_open(&s->cache, d, SIZE_MAX, e);
}

void gv_lm_state_close(struct lm_state *s)
{
    gv_cache_close(&s->cache);
    gv_recycle_close(&s->recycle);
    gv_pages_close(&s->pages);
    *s = (struct lm_state){ 0 };
}

size_t gv_lm_state_bytes(const struct lm_config *c, int64_t tokens, enum dtype type)
{
    return 2 * (size_t)c->layers * gv_dtype_bytes(type, tokens * c->kv_heads * c->head);
}

/* ---- forward ---- */

/* What stays the same for every layer of a call, up to the next drop. */
struct lm_call {
    const struct lm_config *config;
    struct lm_state        *state;
    int64_t                 n;
    int64_t                 held, room; /* tokens that these layers have, and may have */
    struct lm_tokens        t;          /* those that are left; place and depth are the caller's, or own */
    struct token_place     *place;      /* own, after a drop */
    uint8_t                *depth;
    bool                   *picture;
    int64_t                 gone[GV_LM_DROPS]; /* of this call */
    bool                    last;              /* the last row gives logits */
    struct rope             rope, scaled;      /* scaled: of keys where pictures have a factor; else absent */
    struct attn_plan        plan;   /* causal; none for one token, which sees all that is kept */
    struct attn_plan        placed; /* the same where the device reads it */
};

void gv_lm_embed(struct run *r, const struct lm *m, struct tensor x, const int32_t *ids, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->config.vocabulary) {
            gv_run_fail(r, GV_ERR_MODEL,
                        "token id %d is outside the decoder's vocabulary of %d: tokenizer and model do not belong together",
                        ids[i], m->config.vocabulary);
            return;
        }
    struct mark mark = arena_mark(&r->scratch);
    gv_gather(r, x, m->top.embedding, gv_scratch_from(r, GV_I32, 1, DIMS(n), ids));
    gv_sync(r);
    arena_release(&r->scratch, mark);
}

/* Row i of the tables: each section turned by its axis. Neighbours of a picture share two of three positions, and copy these. */
static void fill_rope(const struct lm_config *c, const struct token_place *place, int64_t i, const float *rate, float *cosine,
                      float *sine)
{
    const int half = c->head / 2;
    for (int axis = 0, first = 0; axis < 3; first += c->section[axis++]) {
        const int32_t at[3] = { place[i].t, place[i].h, place[i].w };
        const int32_t before[3] = { place[i ? i - 1 : 0].t, place[i ? i - 1 : 0].h, place[i ? i - 1 : 0].w };
        float        *to_cos = cosine + i * half + first, *to_sin = sine + i * half + first;
        const size_t  bytes = (size_t)c->section[axis] * sizeof *rate;
        if (i && at[axis] == before[axis]) {
            memcpy(to_cos, to_cos - half, bytes);
            memcpy(to_sin, to_sin - half, bytes);
        } else {
            gv_rotation_fill(to_cos, to_sin, rate + first, c->section[axis], (float)at[axis]);
        }
    }
}

/* The rows of pictures times the state's factor; false: nothing is to be scaled. table: cos, then sin [n, half]. */
static bool scale_pictures(const struct lm_call *c, float *table, int64_t half)
{
    bool any = false;
    if (!c->t.picture || c->state->factor <= 0 || c->state->factor == 1)
        return false;
    for (int64_t i = 0; i < c->n; i++)
        for (int64_t k = 0; k < half && c->t.picture[i]; k++) {
            table[i * half + k] *= (float)c->state->factor;
            table[(c->n + i) * half + k] *= (float)c->state->factor;
            any = true;
        }
    return any;
}

static void make_rope(struct run *r, struct lm_call *c, const struct token_place *place)
{
    const int64_t half = c->config->head / 2, size = c->n * half;
    float        *table = malloc((size_t)(size * 2 + half) * sizeof *table);
    if (!table) {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for rotary tables of %lld tokens", (long long)c->n);
        return;
    }
    float *rate = table + 2 * size;
    gv_rotation_rates(rate, (int)half, c->config->head, c->config->theta);
    for (int64_t i = 0; i < c->n; i++)
        fill_rope(c->config, place, i, rate, table, table + size);
    c->rope = (struct rope){ .cos = gv_scratch_from(r, GV_F32, 2, DIMS(c->n, half), table),
                             .sin = gv_scratch_from(r, GV_F32, 2, DIMS(c->n, half), table + size),
                             .head = c->config->head,
                             .halves = true };
    gv_sync(r);
    c->scaled = (struct rope){ 0 };
    if (scale_pictures(c, table, half)) {
        c->scaled = c->rope;
        c->scaled.cos = gv_scratch_from(r, GV_F32, 2, DIMS(c->n, half), table);
        c->scaled.sin = gv_scratch_from(r, GV_F32, 2, DIMS(c->n, half), table + size);
        gv_sync(r);
    }
    free(table);
}

/* The tables and the plan for the tokens that are left. */
static void call_open(struct run *r, struct lm_call *c)
{
    const int64_t total = c->held + c->n;
    gv_plan_free(&c->plan);
    if (!gv_run_ready(r))
        return;
    if (total > c->room) {
        gv_run_fail(r, GV_ERR_INTERNAL, "%lld tokens in a state for %lld", (long long)total, (long long)c->room);
        return;
    }
    make_rope(r, c, c->t.place);
    if (c->n > 1)
        gv_plan_from_mask(&c->plan, &(struct plan_shape){ 1, c->n, total, { .kind = MASK_CAUSAL, .query_start = c->held } },
                          &r->err);
    c->placed = c->plan.entries ? gv_plan_on(r, &c->plan, c->n, total) : (struct attn_plan){ 0 };
}

/* Which tokens outlive the drop, as rows of x; c->n becomes their number. */
static int32_t *survivors(struct lm_call *c, int drop)
{
    int32_t            *index = malloc((size_t)c->n * sizeof *index);
    struct token_place *place = malloc((size_t)c->n * sizeof *place);
    uint8_t            *depth = malloc((size_t)c->n);
    bool               *picture = malloc((size_t)c->n * sizeof *picture);
    int64_t             n = 0;
    for (int64_t i = 0; index && place && depth && picture && i < c->n; i++)
        if (c->t.depth[i] > drop) {
            index[n] = (int32_t)i;
            place[n] = c->t.place[i];
            picture[n] = c->t.picture && c->t.picture[i];
            depth[n++] = c->t.depth[i];
        }
    free(c->place);
    free(c->depth);
    free(c->picture);
    c->place = place;
    c->depth = depth;
    c->picture = picture;
    if (!index || !place || !depth || !picture) {
        free(index);
        return NULL;
    }
    c->t.place = place;
    c->t.depth = depth;
    c->t.picture = picture;
    c->gone[drop] = c->n - n;
    c->n = n;
    return index;
}

/* The layers from here on have other tokens. */
static void pass_drop(struct run *r, struct lm_call *c, int drop)
{
    c->held -= c->state->drop[drop].gone;
    c->room -= c->state->drop[drop].total;
    if (c->t.depth) {
        int32_t *index = survivors(c, drop);
        if (!index) {
            gv_run_fail(r, GV_ERR_MEMORY, "no memory to drop tokens");
            return;
        }
        struct tensor left = gv_scratch(r, GV_F32, 2, DIMS(c->n, c->config->width));
        gv_gather(r, left, c->t.x, gv_scratch_from(r, GV_I32, 1, DIMS(c->n), index));
        gv_sync(r);
        free(index);
        c->t.x = left;
    }
    call_open(r, c);
}

/* New rows of a layer's keys or values in the cache, [n, kv heads · head], to be written into; and all of them, as a source. */
static struct tensor kept_rows(struct run *r, const struct lm_call *c, int layer, enum kept kind, struct tensor *source)
{
    const struct lm_config *m = c->config;
    const struct cache_key  key = { layer, 0, kind };
    struct tensor slot = gv_cache_slot(r, c->state->cache, key, r->compute, 4, DIMS(1, c->room, m->kv_heads, m->head));
    if (!gv_run_ready(r))
        return (struct tensor){ 0 };
    gv_cache_set_length(c->state->cache, key, 1, c->held + c->n);
    *source = gv_cache_get(c->state->cache, key);
    return slice(reshape(slot, 2, DIMS(c->room, (int64_t)m->kv_heads * m->head)), 0, c->held, c->n);
}

/* What a step reads that does not read all: the keys chosen before, and those that came since. */
static int recycled(const struct lm_call *c, int layer, struct attn_source source[2])
{
    const struct attn_source all = source[0];
    const int64_t            since = c->state->length + c->n - c->state->recycle.seen;
    for (int i = 0; i < 2; i++)
        source[i] = all;
    source[0].k = gv_cache_get(c->state->cache, (struct cache_key){ layer, 1, KEPT_K });
    source[0].v = gv_cache_get(c->state->cache, (struct cache_key){ layer, 1, KEPT_V });
    source[1].k = slice(all.k, 1, all.k.dim[1] - since, since);
    source[1].v = slice(all.v, 1, all.v.dim[1] - since, since);
    return 2;
}

static void attention(struct run *r, const struct lm_call *c, const struct lm_layer *l, int layer, struct tensor x)
{
    const struct lm_config *m = c->config;
    const int64_t           shape[4] = { 1, c->n, m->heads, m->head };
    struct mark             mark = arena_mark(&r->scratch);
    struct attn_source      source[2] = { 0 };
    struct attn_plan        pages = { 0 };
    const bool              paged = c->n == 1 && c->state->pages.keep;
    const bool              recycles = c->n == 1 && c->state->recycle.keep, full = gv_recycle_full(&c->state->recycle);
    struct tensor           h = gv_scratch(r, r->compute, 2, x.dim), q = gv_scratch(r, r->compute, 2, x.dim);
    struct tensor           k = kept_rows(r, c, layer, KEPT_K, &source[0].k), v = kept_rows(r, c, layer, KEPT_V, &source[0].v);
    gv_norm(r, h, x, &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)m->eps, .weight = l->norm1 });
    gv_linear(r, q, h, l->q, &(struct linear_opts){ .bias = l->q_bias });
    gv_linear(r, k, h, l->k, &(struct linear_opts){ .bias = l->k_bias });
    gv_linear(r, v, h, l->v, &(struct linear_opts){ .bias = l->v_bias });
    if (gv_run_ready(r)) {
        gv_rotate(r, q, &c->rope);
        gv_rotate(r, k, layer < c->state->factor_layers && present(c->scaled.cos) ? &c->scaled : &c->rope);
        if (recycles && full)
            gv_recycle_choose(r, &c->state->recycle,
                              &(struct recycle_read){ .cache = c->state->cache,
                                                      .layer = layer,
                                                      .q = reshape(q, 4, shape),
                                                      .k = source[0].k,
                                                      .v = source[0].v,
                                                      .since = c->state->length + 1 - c->state->recycle.seen });
        if (paged)
            gv_pages_plan(r, &c->state->pages,
                          &(struct page_read){ .layer = layer, .q = reshape(q, 4, shape), .k = source[0].k, .v = source[0].v },
                          &pages);
        const int n = recycles && !full ? recycled(c, layer, source) : 1;
        gv_attention(r, &(struct attn_call){ .q = reshape(q, 4, shape),
                                             .n_sources = n,
                                             .source = { source[0], source[1] },
                                             .out.o = reshape(h, 4, shape),
                                             .plan = pages.entries     ? &pages
                                                     : c->plan.entries ? &c->placed
                                                                       : NULL });
        gv_plan_free(&pages);
        gv_run_tap(r, "q", q);
        gv_run_tap(r, "k", source[0].k);
        if (c->last && c->state->paint && layer >= gv_paint_first_layer(m->layers))
            gv_paint_row(r, c->state->paint,
                         &(struct paint_row){ .q = slice(reshape(q, 4, shape), 1, c->n - 1, 1),
                                              .k = source[0].k,
                                              .v = source[0].v,
                                              .o = slice(reshape(h, 4, shape), 1, c->n - 1, 1) });
        if (c->last && c->state->trace)
            gv_trace_look(r, c->state->trace, slice(reshape(q, 4, shape), 1, c->n - 1, 1), source[0].k);
    }
    gv_linear(r, x, h, l->o, &(struct linear_opts){ .add = true });
    arena_release(&r->scratch, mark);
}

static void mlp(struct run *r, const struct lm_config *m, const struct lm_layer *l, struct tensor x)
{
    const int64_t n = x.dim[0];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), gate = gv_scratch(r, r->compute, 2, DIMS(n, m->ffn)),
                  up = gv_scratch(r, r->compute, 2, DIMS(n, m->ffn));
    gv_norm(r, h, x, &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)m->eps, .weight = l->norm2 });
    gv_linear(r, gate, h, l->gate, NULL);
    gv_linear(r, up, h, l->up, NULL);
    gv_glu(r, gate, gate, up, ACT_SILU);
    gv_linear(r, x, gate, l->down, &(struct linear_opts){ .add = true });
    arena_release(&r->scratch, mark);
}

static void last_logits(struct run *r, const struct lm *m, struct tensor logits, struct tensor x)
{
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, DIMS(1, m->config.width));
    if (gv_run_ready(r))
        gv_norm(r, h, slice(x, 0, x.dim[0] - 1, 1),
                &(struct norm_opts){ .kind = NORM_RMS, .eps = (float)m->config.eps, .weight = m->top.norm });
    gv_run_tap(r, "state", h);
    gv_linear(r, logits, h, m->top.head, NULL);
    gv_run_tap(r, "logits", logits);
    gv_check_finite(r, logits, "the logits");
    arena_release(&r->scratch, mark);
}

void gv_lm_forward(struct run *r, const struct lm *m, struct lm_state *s, struct lm_tokens t, struct tensor logits)
{
    struct lm_call call = { .config = &m->config, .state = s, .n = t.x.dim[0], .held = s->length, .room = s->capacity, .t = t };
    call.last = present(logits);
    struct mark    mark = arena_mark(&r->scratch);
    gv_run_enter(r, "decoder");
    gv_run_tap(r, "embed", t.x);
    call_open(r, &call);
    for (int i = 0; i < m->config.layers && gv_run_ready(r); i++) {
        gv_run_enter(r, "decoder.layers.%d", i);
        for (int d = 0; d < s->n_drops; d++)
            if (s->drop[d].layer == i)
                pass_drop(r, &call, d);
        struct mark            inner = arena_mark(&r->scratch);
        struct lm_layer        copy;
        const struct lm_layer *l = gv_weights_fetch(r, m->weights, &m->layer[i], &copy, sizeof copy);
        attention(r, &call, l, i, call.t.x);
        mlp(r, &m->config, l, call.t.x);
        arena_release(&r->scratch, inner);
        gv_run_tap(r, "out", call.t.x);
    }
    gv_run_enter(r, "decoder");
    if (present(logits))
        last_logits(r, m, logits, call.t.x);
    if (gv_run_ready(r)) {
        s->length += t.x.dim[0];
        if (call.last && s->trace)
            gv_trace_next(s->trace);
        if (call.t.x.dim[0] == 1 && gv_recycle_full(&s->recycle))
            s->recycle.seen = s->length;
        s->recycle.steps += call.t.x.dim[0] == 1;
        s->pages.steps += call.t.x.dim[0] == 1;
        for (int d = 0; d < s->n_drops; d++)
            s->drop[d].gone += call.gone[d];
    }
    gv_plan_free(&call.plan);
    free(call.place);
    free(call.depth);
    free(call.picture);
    arena_release(&r->scratch, mark);
}
