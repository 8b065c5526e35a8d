/* The vision towers of Qwen2.5-VL and Qwen2-VL. Follows transformers models/qwen2_5_vl/modeling_qwen2_5_vl.py (5.23), there
 * Qwen2_5_VisionTransformerPretrainedModel, and models/qwen2_vl/modeling_qwen2_vl.py, Qwen2VisionTransformerPretrainedModel.
 *
 *   patches → linear → blocks: x += proj(attention(norm x)); x += mlp(norm x) → merger: 4 patches → 1 token
 *
 * Qwen2.5-VL: norm is RMS, mlp is down(silu(gate) ⊙ up), most blocks attend within windows. Qwen2-VL: norm is a layer norm with
 * a bias, mlp is down(quick_gelu(up)), every block attends over the whole frame; nothing else differs.
 *
 * Most blocks of Qwen2.5-VL attend within windows, some over the whole frame. The reference sorts cells into windows row by row and gives
 * attention the cumulative lengths; here windows are sorted by size (vit.h), so that attention sees batches of equal
 * windows. No result depends on the order of windows.
 *
 * What would surprise you: rotary pairs are halves, the row's frequencies before the column's; every linear of a block has a
 * bias; a step of a clip never sees another one. The residual stream is f32. */
#include "vision/vit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"
#include "vision/rotate.h"

enum { S_NONE, S_D, S_3D, S_FFN, S_PATCH, S_TIME, S_CELL, S_OUT, S_COUNT };

struct vit_block {
    struct tensor norm1, norm1_bias, qkv, qkv_bias, proj, proj_bias;
    struct tensor norm2, norm2_bias, gate, gate_bias, up, up_bias, down, down_bias;
};

struct vit_top {
    struct tensor embed, norm, norm_bias, merge1, merge1_bias, merge2, merge2_bias;
};

struct vit {
    struct vit_config config;
    struct weights   *weights;
    struct vit_top    top;
    struct vit_block *block;
};

#define TOP(name, field, form, ...)                                                                                            \
    {                                                                                                                          \
        name, offsetof(struct vit_top, field), form, __VA_ARGS__, false                                                        \
    }
static const struct weight_row top_rows[] = {
    TOP("patch_embed.proj.weight", embed, FORM_LINEAR, 5, { S_D, -3, S_TIME, S_PATCH, S_PATCH }),
    TOP("merger.ln_q.weight", norm, FORM_VECTOR, 1, { S_D }),
    TOP("merger.mlp.0.weight", merge1, FORM_LINEAR, 2, { S_CELL, S_CELL }),
    TOP("merger.mlp.0.bias", merge1_bias, FORM_VECTOR, 1, { S_CELL }),
    TOP("merger.mlp.2.weight", merge2, FORM_LINEAR, 2, { S_OUT, S_CELL }),
    TOP("merger.mlp.2.bias", merge2_bias, FORM_VECTOR, 1, { S_OUT }),
};

#define BLOCK(name, field, form, ...)                                                                                          \
    {                                                                                                                          \
        name, offsetof(struct vit_block, field), form, __VA_ARGS__, false                                                      \
    }
static const struct weight_row block_rows[] = {
    BLOCK("norm1.weight", norm1, FORM_VECTOR, 1, { S_D }),         BLOCK("norm2.weight", norm2, FORM_VECTOR, 1, { S_D }),
    BLOCK("attn.qkv.weight", qkv, FORM_LINEAR, 2, { S_3D, S_D }),  BLOCK("attn.qkv.bias", qkv_bias, FORM_VECTOR, 1, { S_3D }),
    BLOCK("attn.proj.weight", proj, FORM_LINEAR, 2, { S_D, S_D }), BLOCK("attn.proj.bias", proj_bias, FORM_VECTOR, 1, { S_D }),
};
static const struct weight_row gated_rows[] = {
    BLOCK("mlp.gate_proj.weight", gate, FORM_LINEAR, 2, { S_FFN, S_D }),
    BLOCK("mlp.gate_proj.bias", gate_bias, FORM_VECTOR, 1, { S_FFN }),
    BLOCK("mlp.up_proj.weight", up, FORM_LINEAR, 2, { S_FFN, S_D }),
    BLOCK("mlp.up_proj.bias", up_bias, FORM_VECTOR, 1, { S_FFN }),
    BLOCK("mlp.down_proj.weight", down, FORM_LINEAR, 2, { S_D, S_FFN }),
    BLOCK("mlp.down_proj.bias", down_bias, FORM_VECTOR, 1, { S_D }),
};
static const struct weight_row plain_rows[] = {
    BLOCK("norm1.bias", norm1_bias, FORM_VECTOR, 1, { S_D }),      BLOCK("norm2.bias", norm2_bias, FORM_VECTOR, 1, { S_D }),
    BLOCK("mlp.fc1.weight", up, FORM_LINEAR, 2, { S_FFN, S_D }),   BLOCK("mlp.fc1.bias", up_bias, FORM_VECTOR, 1, { S_FFN }),
    BLOCK("mlp.fc2.weight", down, FORM_LINEAR, 2, { S_D, S_FFN }), BLOCK("mlp.fc2.bias", down_bias, FORM_VECTOR, 1, { S_D }),
};
static const struct weight_row plain_top_rows[] = { TOP("merger.ln_q.bias", norm_bias, FORM_VECTOR, 1, { S_D }) };

/* ---- open ---- */

/* What only one of the two has: sizes under other names, an activation, windows. */
static void read_qwen2(struct vit_config *c, const struct json_view *v)
{
    static const char *const quick[] = { "quick_gelu" };
    c->width = (int)gv_json_int(v, "embed_dim", 4, 16384, GV_JSON_REQUIRED);
    c->out = (int)gv_json_int(v, "hidden_size", 1, 65536, GV_JSON_REQUIRED);
    c->ffn = c->width * (int)gv_json_int(v, "mlp_ratio", 1, 64, 4);
    c->window = 1 << 20;
    gv_json_choice(v, "hidden_act", quick, 1, 0);
    for (int i = 0; i < GV_VIT_BLOCKS; i++)
        c->full[i] = true;
}

static gv_status read_qwen2_5(struct vit_config *c, const struct json_view *v)
{
    static const char *const silu[] = { "silu" };
    int                      full[GV_VIT_BLOCKS];
    c->width = (int)gv_json_int(v, "hidden_size", 4, 65536, GV_JSON_REQUIRED);
    c->out = (int)gv_json_int(v, "out_hidden_size", 1, 65536, GV_JSON_REQUIRED);
    c->ffn = (int)gv_json_int(v, "intermediate_size", 1, 1 << 20, GV_JSON_REQUIRED);
    gv_json_choice(v, "hidden_act", silu, 1, 0);
    int window = (int)gv_json_int(v, "window_size", 1, 1 << 20, 112), cell = c->patch * c->merge;
    int n = gv_json_ints(v, "fullatt_block_indexes", 0, GV_VIT_BLOCKS - 1, full, 0, GV_VIT_BLOCKS, true);
    TRY(gv_json_done(v));
    if (window < cell)
        return gv_json_fail(v, "window_size", GV_ERR_MODEL, "is %d, less than a merged patch, %d", window, cell);
    c->window = window / cell;
    for (int i = 0; i < n; i++)
        c->full[full[i]] = true;
    return GV_OK;
}

static gv_status read_config(struct vit_config *c, const struct json_view *v)
{
    c->eps = 1e-6;
    c->depth = (int)gv_json_int(v, "depth", 1, GV_VIT_BLOCKS, GV_JSON_REQUIRED);
    c->heads = (int)gv_json_int(v, "num_heads", 1, 1024, GV_JSON_REQUIRED);
    c->patch = (int)gv_json_int(v, "patch_size", 1, 256, 14);
    c->temporal = (int)gv_json_int(v, "temporal_patch_size", 1, 16, 2);
    c->merge = (int)gv_json_int(v, "spatial_merge_size", 1, 16, 2);
    if (c->kind == VIT_QWEN2)
        read_qwen2(c, v);
    else
        TRY(read_qwen2_5(c, v));
    if (gv_json_int(v, "in_channels", 1, 64, 3) != 3 || gv_json_int(v, "in_chans", 1, 64, 3) != 3)
        return gv_json_fail(v, "in_channels", GV_ERR_UNSUPPORTED, "must be 3");
    TRY(gv_json_done(v));
    if (c->width % c->heads || c->width / c->heads % 4)
        return gv_json_fail(v, "num_heads", GV_ERR_UNSUPPORTED, "is %d: the width, %d, must be a multiple of four times it",
                            c->heads, c->width);
    c->head = c->width / c->heads;
    return GV_OK;
}

static gv_status bind(struct vit *v, const char *prefix, struct error *e)
{
    const struct vit_config *c = &v->config;
    const int64_t            sizes[S_COUNT] = {
                   [S_D] = c->width,     [S_3D] = 3 * (int64_t)c->width, [S_FFN] = c->ffn,
                   [S_PATCH] = c->patch, [S_TIME] = c->temporal,         [S_CELL] = (int64_t)c->width * c->merge * c->merge,
                   [S_OUT] = c->out
    };
    const struct weight_row *rows = c->kind == VIT_QWEN2 ? plain_rows : gated_rows;
    const int                n = c->kind == VIT_QWEN2 ? N_ROWS(plain_rows) : N_ROWS(gated_rows);
    TRY(gv_weights_bind(v->weights, prefix, top_rows, N_ROWS(top_rows), sizes, &v->top, e));
    if (c->kind == VIT_QWEN2)
        TRY(gv_weights_bind(v->weights, prefix, plain_top_rows, N_ROWS(plain_top_rows), sizes, &v->top, e));
    for (int i = 0; i < c->depth; i++) {
        char block[64];
        snprintf(block, sizeof block, "%sblocks.%d.", prefix, i);
        TRY(gv_weights_bind(v->weights, block, block_rows, N_ROWS(block_rows), sizes, &v->block[i], e));
        TRY(gv_weights_bind(v->weights, block, rows, n, sizes, &v->block[i], e));
    }
    return GV_OK;
}

void gv_vit_close(struct vit **v)
{
    if (!*v)
        return;
    gv_weights_close(&(*v)->weights);
    free((*v)->block);
    free(*v);
    *v = NULL;
}

gv_status gv_vit_open(struct vit **out, enum vit_kind kind, const struct json_view *config, struct checkpoint *c,
                      const char *prefix, struct device *d, enum dtype compute, struct error *e)
{
    struct vit *v = *out = calloc(1, sizeof *v);
    if (v)
        v->config.kind = kind;
    gv_status status =
        v ? read_config(&v->config, config) : gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status && !(v->block = calloc((size_t)v->config.depth, sizeof *v->block)))
        status = gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    if (!status)
        status = gv_weights_open(&v->weights, c, d, compute, e);
    if (!status)
        status = bind(v, prefix, e);
    if (status)
        gv_vit_close(out);
    return status;
}

const struct vit_config *gv_vit_config(const struct vit *v)
{
    return &v->config;
}

struct weights *gv_vit_weights(const struct vit *v)
{
    return v->weights;
}

/* ---- the order of cells ---- */

/* The windows of one size: those rows and columns of windows that are whole, or the last, partial one. */
struct window_range {
    int from, to, side; /* in windows; cells a side */
};

static void add_group(struct vit_order *o, int *at, struct window_range rows, struct window_range columns, int window,
                      int width)
{
    const int windows = (rows.to - rows.from) * (columns.to - columns.from);
    if (!windows || !rows.side || !columns.side)
        return;
    const int cells = rows.side * columns.side;
    o->group[o->n_groups].first = *at;
    o->group[o->n_groups].windows = windows;
    o->group[o->n_groups++].cells = cells;
    for (int y = rows.from; y < rows.to; y++)
        for (int x = columns.from; x < columns.to; x++)
            for (int i = 0; i < cells; i++)
                o->cell[(*at)++] = (y * window + i / columns.side) * width + x * window + i % columns.side;
}

gv_status gv_vit_order(struct vit_order *o, const struct vit_config *c, struct patch_grid g, struct error *e)
{
    const int h = g.h / c->merge, w = g.w / c->merge, s = c->window, rows = h / s, columns = w / s;
    int       at = 0;
    *o = (struct vit_order){ 0 };
    if (!(o->cell = malloc((size_t)h * (size_t)w * sizeof *o->cell)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the order of %dx%d cells", w, h);
    const struct window_range whole_y = { 0, rows, s }, last_y = { rows, rows + 1, h % s };
    const struct window_range whole_x = { 0, columns, s }, last_x = { columns, columns + 1, w % s };
    add_group(o, &at, whole_y, whole_x, s, w);
    add_group(o, &at, whole_y, last_x, s, w);
    add_group(o, &at, last_y, whole_x, s, w);
    add_group(o, &at, last_y, last_x, s, w);
    return GV_OK;
}

void gv_vit_order_free(struct vit_order *o)
{
    free(o->cell);
    *o = (struct vit_order){ 0 };
}

/* ---- encode ---- */

/* What stays the same for every block of a call. */
struct vit_call {
    const struct vit_config *config;
    struct patch_grid        grid;
    struct vit_order         order;
    struct rope              rope;   /* of one frame */
    struct tensor            place;  /* i32 [t · cells]: place → raster, over all frames */
    struct tensor            raster; /* and back */
};

static int cells_of(const struct vit_call *v)
{
    return v->grid.h * v->grid.w / (v->config->merge * v->config->merge);
}

static int longest_side(const struct vit_call *v)
{
    return v->grid.h > v->grid.w ? v->grid.h : v->grid.w;
}

/* Angles of one frame's patches in the tower's order: the row's frequencies, then the column's. work [2 · longest side + 1, quarter]:
 * the rates, and the cos and sin of every row or column. */
static void fill_rope(const struct vit_call *v, float *cosine, float *sine, float *work)
{
    const int    m = v->config->merge, quarter = v->config->head / 4, columns = v->grid.w / m, side = longest_side(v);
    float       *rate = work, *cos_of = work + quarter, *sin_of = cos_of + side * quarter;
    const size_t bytes = (size_t)quarter * sizeof *work;
    gv_rotation_rates(rate, quarter, 2 * quarter, 10000);
    for (int at = 0; at < side; at++)
        gv_rotation_fill(cos_of + at * quarter, sin_of + at * quarter, rate, quarter, (float)at);
    for (int i = 0; i < cells_of(v); i++)
        for (int p = 0; p < m * m; p++, cosine += 2 * quarter, sine += 2 * quarter) {
            int y = v->order.cell[i] / columns * m + p / m, x = v->order.cell[i] % columns * m + p % m;
            memcpy(cosine, cos_of + y * quarter, bytes);
            memcpy(cosine + quarter, cos_of + x * quarter, bytes);
            memcpy(sine, sin_of + y * quarter, bytes);
            memcpy(sine + quarter, sin_of + x * quarter, bytes);
        }
}

static void fill_places(const struct vit_call *v, int32_t *place, int32_t *raster)
{
    const int n = cells_of(v);
    for (int t = 0; t < v->grid.t; t++)
        for (int i = 0; i < n; i++) {
            place[t * n + i] = t * n + v->order.cell[i];
            raster[t * n + v->order.cell[i]] = t * n + i;
        }
}

static void call_open(struct run *r, struct vit_call *v)
{
    const int64_t patches = (int64_t)v->grid.h * v->grid.w, half = v->config->head / 2,
                  cells = (int64_t)v->grid.t * cells_of(v), work = (2 * (int64_t)longest_side(v) + 1) * half / 2;
    float   *table = NULL;
    int32_t *index = NULL;
    if (!gv_run_ready(r) || gv_vit_order(&v->order, v->config, v->grid, &r->err))
        return;
    table = malloc((size_t)(patches * half * 2 + work) * sizeof *table);
    index = malloc((size_t)cells * 2 * sizeof *index);
    if (table && index) {
        fill_rope(v, table, table + patches * half, table + 2 * patches * half);
        fill_places(v, index, index + cells);
        v->rope = (struct rope){ .cos = gv_scratch_from(r, GV_F32, 2, DIMS(patches, half), table),
                                 .sin = gv_scratch_from(r, GV_F32, 2, DIMS(patches, half), table + patches * half),
                                 .head = v->config->head,
                                 .halves = true };
        v->place = gv_scratch_from(r, GV_I32, 1, DIMS(cells), index);
        v->raster = gv_scratch_from(r, GV_I32, 1, DIMS(cells), index + cells);
        gv_sync(r);
    } else {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the positions of %lld patches", (long long)patches);
    }
    free(table);
    free(index);
}

static void norm(struct run *r, const struct vit_call *v, struct tensor y, struct tensor x, struct tensor weight,
                 struct tensor bias)
{
    const enum norm_kind kind = v->config->kind == VIT_QWEN2 ? NORM_LAYER : NORM_RMS;
    gv_norm(r, y, x, &(struct norm_opts){ .kind = kind, .eps = (float)v->config->eps, .weight = weight, .bias = bias });
}

/* q, k or v of packed rows [B · n, 3 · D]: [B, n, A, head]. */
static struct tensor part(const struct vit_call *v, struct tensor qkv, int64_t batch, int i)
{
    const struct vit_config *c = v->config;
    struct tensor            t = reshape(qkv, 5, DIMS(batch, qkv.dim[0] / batch, 3, c->heads, c->head));
    return row(permute(t, (const int[]){ 2, 0, 1, 3, 4 }), i);
}

/* Attention over rows cut into equal pieces that do not see each other. */
static void attend(struct run *r, const struct vit_call *v, struct tensor o, struct tensor qkv, int64_t pieces)
{
    if (gv_run_ready(r))
        gv_attention_dense(r, reshape(o, 4, DIMS(pieces, o.dim[0] / pieces, v->config->heads, v->config->head)),
                           part(v, qkv, pieces, 0), part(v, qkv, pieces, 1), part(v, qkv, pieces, 2));
}

static void attend_windows(struct run *r, const struct vit_call *v, struct tensor o, struct tensor qkv)
{
    const int64_t per_cell = (int64_t)v->config->merge * v->config->merge, frame = (int64_t)v->grid.h * v->grid.w;
    for (int64_t t = 0; t < v->grid.t; t++)
        for (int i = 0; i < v->order.n_groups; i++) {
            int64_t first = t * frame + v->order.group[i].first * per_cell, windows = v->order.group[i].windows,
                    count = windows * v->order.group[i].cells * per_cell;
            attend(r, v, slice(o, 0, first, count), slice(qkv, 0, first, count), windows);
        }
}

/* Importance in the tower's order to the order of patches. */
static void in_raster(struct run *r, const struct vit_call *v, float *map)
{
    const int per = v->config->merge * v->config->merge, n = cells_of(v) * per;
    float    *frame = malloc((size_t)n * sizeof *frame);
    if (!frame)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the importance of %d patches", n);
    for (int t = 0; frame && t < v->grid.t; t++, map += n) {
        memcpy(frame, map, (size_t)n * sizeof *frame);
        for (int i = 0; i < n; i++)
            map[v->order.cell[i / per] * per + i % per] = frame[i];
    }
    free(frame);
}

static void attention(struct run *r, const struct vit_call *v, const struct vit_block *b, struct tensor x, bool full,
                      const struct importance_call *importance)
{
    const struct vit_config *c = v->config;
    const int64_t            n = x.dim[0], d = c->width;
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            h = gv_scratch(r, r->compute, 2, x.dim), qkv = gv_scratch(r, r->compute, 2, DIMS(n, 3 * d));
    norm(r, v, h, x, b->norm1, b->norm1_bias);
    gv_linear(r, qkv, h, b->qkv, &(struct linear_opts){ .bias = b->qkv_bias });
    if (gv_run_ready(r)) {
        gv_rotate(r, slice(qkv, 1, 0, d), &v->rope);
        gv_rotate(r, slice(qkv, 1, d, d), &v->rope);
        if (full)
            attend(r, v, h, qkv, v->grid.t);
        else
            attend_windows(r, v, h, qkv);
        if (importance)
            gv_importance_attention(r, part(v, qkv, v->grid.t, 0), part(v, qkv, v->grid.t, 1), importance->opts.sink,
                                    importance->map);
        if (importance && importance->map && gv_run_ready(r))
            in_raster(r, v, importance->map);
    }
    gv_linear(r, x, h, b->proj, &(struct linear_opts){ .bias = b->proj_bias, .add = true });
    arena_release(&r->scratch, mark);
}

static void mlp(struct run *r, const struct vit_call *v, const struct vit_block *b, struct tensor x)
{
    const bool    gated = v->config->kind == VIT_QWEN2_5;
    const int64_t shape[2] = { x.dim[0], v->config->ffn };
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), up = gv_scratch(r, r->compute, 2, shape);
    norm(r, v, h, x, b->norm2, b->norm2_bias);
    gv_linear(r, up, h, b->up, &(struct linear_opts){ .bias = b->up_bias, .act = gated ? ACT_NONE : ACT_QUICK_GELU });
    if (gated) {
        struct tensor gate = gv_scratch(r, r->compute, 2, shape);
        gv_linear(r, gate, h, b->gate, &(struct linear_opts){ .bias = b->gate_bias });
        gv_glu(r, up, gate, up, ACT_SILU);
    }
    gv_linear(r, x, up, b->down, &(struct linear_opts){ .bias = b->down_bias, .add = true });
    arena_release(&r->scratch, mark);
}

/* Cells become tokens, in raster order again. */
static void merge(struct run *r, const struct vit_call *v, const struct vit_top *top, struct tensor out, struct tensor x)
{
    const int64_t cell = (int64_t)v->config->width * v->config->merge * v->config->merge, n = out.dim[0];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 2, x.dim), wide = gv_scratch(r, r->compute, 2, DIMS(n, cell)),
                  tokens = gv_scratch(r, GV_F32, 2, out.dim);
    norm(r, v, h, x, top->norm, top->norm_bias);
    gv_linear(r, wide, reshape(h, 2, DIMS(n, cell)), top->merge1,
              &(struct linear_opts){ .bias = top->merge1_bias, .act = ACT_GELU_ERF });
    gv_linear(r, tokens, wide, top->merge2, &(struct linear_opts){ .bias = top->merge2_bias });
    gv_gather(r, out, tokens, v->raster);
    arena_release(&r->scratch, mark);
}

static void embed(struct run *r, const struct vit_call *v, const struct vit_top *top, struct tensor x, struct tensor patches)
{
    const int64_t n = x.dim[0], cells = (int64_t)v->grid.t * cells_of(v), cell = n / cells * v->config->width;
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor embedded = gv_scratch(r, GV_F32, 2, x.dim);
    gv_linear(r, embedded, patches, top->embed, NULL);
    gv_run_tap(r, "embed", embedded);
    gv_gather(r, reshape(x, 2, DIMS(cells, cell)), reshape(embedded, 2, DIMS(cells, cell)), v->place);
    arena_release(&r->scratch, mark);
}

void gv_vit_encode(struct run *r, const struct vit *v, struct tensor out, struct tensor patches, struct patch_grid g,
                   const struct importance_call *importance)
{
    struct vit_call call = { .config = &v->config, .grid = g };
    int             whole = v->config.depth - 1; /* the last block that sees whole frames */
    while (whole > 0 && !v->config.full[whole])
        whole--;
    struct mark mark = arena_mark(&r->scratch);
    gv_run_enter(r, "vision");
    struct tensor x = gv_scratch(r, GV_F32, 2, DIMS(grid_patches(g), v->config.width));
    call_open(r, &call);
    if (gv_run_ready(r))
        embed(r, &call, &v->top, x, patches);
    for (int i = 0; i < v->config.depth && gv_run_ready(r); i++) {
        gv_run_enter(r, "vision.blocks.%d", i);
        struct mark             inner = arena_mark(&r->scratch);
        struct vit_block        copy;
        const struct vit_block *b = gv_weights_fetch(r, v->weights, &v->block[i], &copy, sizeof copy);
        attention(r, &call, b, x, v->config.full[i], i == whole ? importance : NULL);
        mlp(r, &call, b, x);
        arena_release(&r->scratch, inner);
        gv_run_tap(r, "out", x);
    }
    gv_run_enter(r, "vision");
    if (gv_run_ready(r))
        merge(r, &call, &v->top, out, x);
    gv_run_tap(r, "merged", out);
    gv_check_finite(r, out, "the picture's features");
    gv_vit_order_free(&call.order);
    arena_release(&r->scratch, mark);
}
