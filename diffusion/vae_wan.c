/* Wan 2.1's causal 3-D VAE: 8 × 8 in space, 4 in time, streamed.
 * Follows diffusers models/autoencoders/autoencoder_kl_wan.py (0.42); widths and blocks come from its config.
 *
 *   decode   post_quant → conv_in → mid (res, attention, res) → stages of res blocks, each but the last doubling H and W
 *            (some also T) → norm, SiLU, conv_out
 *   encode   the mirror image
 *
 * Every 3×3×3 convolution sees its last two input frames, kept in the stream; at the start they are zeros, which is the causal
 * padding. What would surprise you:
 * - "RMS_norm" is x · sqrt(C) / max(‖x‖, 1e-12) over the channels of one pixel (NORM_L2).
 * - The first latent frame is one pixel frame and passes every temporal resampling by. Doubling in time never sees it (its
 *   history starts at zero with the second frame); halving in time keeps it as history.
 * - Halving in space pads one row below and one column to the right, nothing above or to the left. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/vae.h"

enum { MAX_STAGES = 8, MAX_RES = 8, HISTORY = 2 };

/* ---- weights ---- */

enum { S_NONE, S_IN, S_OUT, S_COUNT };

struct plain { /* a 1×1×1 convolution: a linear map of channels */
    struct tensor w, bias;
};

struct causal { /* a convolution with frames kept between chunks */
    struct tensor w, bias;
    int           slot; /* of its frames in the stream */
};

struct res {
    struct tensor norm1, norm2;
    struct causal conv1, conv2;
    struct plain  shortcut; /* absent where the width stays */
};

struct resample {
    struct tensor conv, conv_bias; /* 3×3 in space */
    struct causal time;            /* absent where time stays */
};

struct attention {
    struct tensor norm;
    struct plain  qkv, proj;
};

struct stage {
    int             in, out;
    struct res      res[MAX_RES];
    int             n_res;
    struct resample sample;
    bool            samples, in_time;
};

struct half { /* encoder or decoder */
    struct causal    conv_in, conv_out;
    struct res       mid[2];
    struct attention mid_attention;
    struct stage     stage[MAX_STAGES];
    struct tensor    norm_out;
    struct plain     quant;
    int              width_in, width_mid, width_out;
    int              n_slots;
};

struct wan_vae {
    struct vae  base;
    int         n_stages;
    struct half encoder, decoder;
};

/* One struct for all rows of a block: what a block is made of. */
struct bind {
    struct weights *w;
    int             slots;
    struct error   *e;
};

static gv_status bind_conv(struct bind *b, const char *prefix, struct tensor *w, struct tensor *bias, int in, int out, int kt,
                           int k, int rank)
{
    const int64_t     sizes[S_COUNT] = { [S_IN] = in, [S_OUT] = out };
    struct weight_row rows[2] = {
        { "weight", 0, FORM_CONV, (int8_t)rank, { S_OUT, S_IN, (int8_t)-kt, (int8_t)-k, (int8_t)-k }, false },
        { "bias", 0, FORM_VECTOR, 1, { S_OUT }, false },
    };
    if (rank == 4)
        rows[0].dim[2] = (int8_t)-k;
    if (kt == 1 && k == 1)
        rows[0].form = FORM_LINEAR;
    TRY(gv_weights_bind(b->w, prefix, &rows[0], 1, sizes, w, b->e));
    return gv_weights_bind(b->w, prefix, &rows[1], 1, sizes, bias, b->e);
}

static gv_status bind_causal(struct bind *b, const char *prefix, struct causal *c, int in, int out, int kt, int k)
{
    c->slot = b->slots++;
    return bind_conv(b, prefix, &c->w, &c->bias, in, out, kt, k, 5);
}

static gv_status bind_gamma(struct bind *b, const char *name, struct tensor *t, int n)
{
    const int64_t           sizes[S_COUNT] = { [S_IN] = n };
    const struct weight_row gamma = { "gamma", 0, FORM_VECTOR, 1, { S_IN }, false };
    return gv_weights_bind(b->w, name, &gamma, 1, sizes, t, b->e);
}

enum { NAME = 96 };

static const char *name(char *text, const char *prefix, const char *rest)
{
    snprintf(text, NAME, "%.63s%.31s", prefix, rest);
    return text;
}

static gv_status bind_res(struct bind *b, const char *prefix, struct res *r, int in, int out)
{
    char text[NAME];
    TRY(bind_gamma(b, name(text, prefix, "norm1."), &r->norm1, in));
    TRY(bind_causal(b, name(text, prefix, "conv1."), &r->conv1, in, out, 3, 3));
    TRY(bind_gamma(b, name(text, prefix, "norm2."), &r->norm2, out));
    TRY(bind_causal(b, name(text, prefix, "conv2."), &r->conv2, out, out, 3, 3));
    if (in == out)
        return GV_OK;
    return bind_conv(b, name(text, prefix, "conv_shortcut."), &r->shortcut.w, &r->shortcut.bias, in, out, 1, 1, 5);
}

static gv_status bind_mid(struct bind *b, const char *prefix, struct half *h)
{
    char text[NAME];
    int  c = h->width_mid;
    TRY(bind_res(b, name(text, prefix, "mid_block.resnets.0."), &h->mid[0], c, c));
    TRY(bind_gamma(b, name(text, prefix, "mid_block.attentions.0.norm."), &h->mid_attention.norm, c));
    TRY(bind_conv(b, name(text, prefix, "mid_block.attentions.0.to_qkv."), &h->mid_attention.qkv.w, &h->mid_attention.qkv.bias,
                  c, 3 * c, 1, 1, 4));
    TRY(bind_conv(b, name(text, prefix, "mid_block.attentions.0.proj."), &h->mid_attention.proj.w, &h->mid_attention.proj.bias,
                  c, c, 1, 1, 4));
    return bind_res(b, name(text, prefix, "mid_block.resnets.1."), &h->mid[1], c, c);
}

static gv_status bind_decoder(struct wan_vae *v, struct bind *b)
{
    struct half *h = &v->decoder;
    char         text[NAME], prefix[64];
    TRY(bind_conv(b, "post_quant_conv.", &h->quant.w, &h->quant.bias, v->base.z, v->base.z, 1, 1, 5));
    TRY(bind_causal(b, "decoder.conv_in.", &h->conv_in, v->base.z, h->width_mid, 3, 3));
    TRY(bind_mid(b, "decoder.", h));
    for (int i = 0; i < v->n_stages; i++) {
        struct stage *s = &h->stage[i];
        for (int k = 0; k < s->n_res; k++) {
            snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.resnets.%d.", i, k);
            TRY(bind_res(b, prefix, &s->res[k], k ? s->out : s->in, s->out));
        }
        if (!s->samples)
            continue;
        snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.upsamplers.0.", i);
        if (s->in_time)
            TRY(bind_causal(b, name(text, prefix, "time_conv."), &s->sample.time, s->out, 2 * s->out, 3, 1));
        TRY(bind_conv(b, name(text, prefix, "resample.1."), &s->sample.conv, &s->sample.conv_bias, s->out, s->out / 2, 1, 3,
                      4));
    }
    TRY(bind_gamma(b, "decoder.norm_out.", &h->norm_out, h->width_out));
    return bind_causal(b, "decoder.conv_out.", &h->conv_out, h->width_out, 3, 3, 3);
}

static gv_status bind_encoder(struct wan_vae *v, struct bind *b)
{
    struct half *h = &v->encoder;
    char         text[NAME], prefix[64];
    int          block = 0;
    TRY(bind_causal(b, "encoder.conv_in.", &h->conv_in, 3, h->width_in, 3, 3));
    for (int i = 0; i < v->n_stages; i++) {
        struct stage *s = &h->stage[i];
        for (int k = 0; k < s->n_res; k++) {
            snprintf(prefix, sizeof prefix, "encoder.down_blocks.%d.", block++);
            TRY(bind_res(b, prefix, &s->res[k], k ? s->out : s->in, s->out));
        }
        if (!s->samples)
            continue;
        snprintf(prefix, sizeof prefix, "encoder.down_blocks.%d.", block++);
        TRY(bind_conv(b, name(text, prefix, "resample.1."), &s->sample.conv, &s->sample.conv_bias, s->out, s->out, 1, 3, 4));
        if (s->in_time)
            TRY(bind_causal(b, name(text, prefix, "time_conv."), &s->sample.time, s->out, s->out, 3, 1));
    }
    TRY(bind_mid(b, "encoder.", h));
    TRY(bind_gamma(b, "encoder.norm_out.", &h->norm_out, h->width_mid));
    TRY(bind_causal(b, "encoder.conv_out.", &h->conv_out, h->width_mid, 2 * v->base.z, 3, 3));
    return bind_conv(b, "quant_conv.", &h->quant.w, &h->quant.bias, 2 * v->base.z, 2 * v->base.z, 1, 1, 5);
}

/* ---- config ---- */

struct config {
    int base, decoder_base, n, mult[MAX_STAGES], n_res, in_time[MAX_STAGES];
};

static gv_status read_stats(struct wan_vae *v, const struct json_view *j)
{
    double mean[GV_VAE_CHANNELS], std[GV_VAE_CHANNELS];
    gv_json_numbers(j, "latents_mean", -1e6, 1e6, mean, v->base.z, v->base.z, true);
    gv_json_numbers(j, "latents_std", 1e-6, 1e6, std, v->base.z, v->base.z, true);
    TRY(gv_json_done(j));
    for (int i = 0; i < v->base.z; i++) {
        v->base.mean[i] = (float)mean[i];
        v->base.std[i] = (float)std[i];
    }
    return GV_OK;
}

static gv_status read_config(struct wan_vae *v, struct config *c, const struct json_view *j)
{
    v->base.z = (int)gv_json_int(j, "z_dim", 1, GV_VAE_CHANNELS, GV_JSON_REQUIRED);
    c->base = (int)gv_json_int(j, "base_dim", 1, 4096, GV_JSON_REQUIRED);
    c->decoder_base = (int)gv_json_int(j, "decoder_base_dim", 1, 4096, c->base);
    c->n = gv_json_ints(j, "dim_mult", 1, 64, c->mult, 2, MAX_STAGES, true);
    c->n_res = (int)gv_json_int(j, "num_res_blocks", 1, MAX_RES - 1, GV_JSON_REQUIRED);
    TRY(gv_json_done(j));
    if (gv_json_bool(j, "is_residual", false))
        return gv_json_fail(j, "is_residual", GV_ERR_UNSUPPORTED, "true (the VAE of Wan 2.2 TI2V-5B) is not supported");
    if (gv_json_has(j, "patch_size"))
        return gv_json_fail(j, "patch_size", GV_ERR_UNSUPPORTED, "(the VAE of Wan 2.2 TI2V-5B) is not supported");
    if (gv_json_int(j, "in_channels", 1, 1024, 3) != 3 || gv_json_int(j, "out_channels", 1, 1024, 3) != 3)
        return gv_json_fail(j, "in_channels", GV_ERR_UNSUPPORTED, "and out_channels must be 3");
    struct json_view scales = gv_json_array(j, "attn_scales", 0, 64, false),
                     times = gv_json_array(j, "temperal_downsample", (size_t)c->n - 1, (size_t)c->n - 1, true);
    TRY(gv_json_done(j));
    if (gv_json_count(&scales))
        return gv_json_fail(j, "attn_scales", GV_ERR_UNSUPPORTED, "must be empty: attention stands in the middle block alone");
    for (int i = 0; i < c->n - 1; i++) {
        struct json_view t = gv_json_at(&times, (size_t)i);
        if (!json_is_boolean(t.value))
            return gv_json_fail(&t, NULL, GV_ERR_MODEL, "is not true or false");
        c->in_time[i] = json_is_true(t.value);
    }
    return read_stats(v, j);
}

/* Widths of both halves, as the reference's constructors compute them. */
static void lay_out(struct wan_vae *v, const struct config *c)
{
    int n = v->n_stages = c->n;
    v->base.time_scale = v->base.space_scale = 1;
    for (int i = 0; i < n; i++) {
        struct stage *e = &v->encoder.stage[i], *d = &v->decoder.stage[i];
        int           k = n - 1 - i; /* the encoder stage that decoder stage i mirrors */
        *e = (struct stage){
            .in = c->base * (i ? c->mult[i - 1] : 1), .out = c->base * c->mult[i], .n_res = c->n_res, .samples = i < n - 1
        };
        *d = (struct stage){ .in = c->decoder_base * c->mult[i ? k + 1 : k] / (i ? 2 : 1),
                             .out = c->decoder_base * c->mult[k],
                             .n_res = c->n_res + 1,
                             .samples = i < n - 1 };
        if (i == n - 1)
            continue;
        e->in_time = c->in_time[i];
        d->in_time = c->in_time[n - 2 - i];
        v->base.space_scale *= 2;
        v->base.time_scale *= e->in_time ? 2 : 1;
    }
    v->encoder.width_in = c->base;
    v->encoder.width_mid = c->base * c->mult[n - 1];
    v->decoder.width_mid = c->decoder_base * c->mult[n - 1];
    v->decoder.width_out = v->decoder.stage[n - 1].out;
}

static void wan_close(struct vae *base)
{
    struct wan_vae *v = (struct wan_vae *)base;
    gv_weights_close(&v->base.encoder);
    gv_weights_close(&v->base.decoder);
    free(v);
}

/* Both halves come from one checkpoint, but are uploaded apart. */
static gv_status bind_halves(struct wan_vae *v, struct checkpoint *ck, struct device *d, enum dtype compute, struct error *e)
{
    TRY(gv_weights_open(&v->base.decoder, ck, d, compute, e));
    TRY(gv_weights_open(&v->base.encoder, ck, d, compute, e));
    struct bind b = { .w = v->base.decoder, .e = e };
    TRY(bind_decoder(v, &b));
    v->decoder.n_slots = b.slots;
    b = (struct bind){ .w = v->base.encoder, .e = e };
    TRY(bind_encoder(v, &b));
    v->encoder.n_slots = b.slots;
    return GV_OK;
}

static gv_status wan_open(struct vae **out, const struct json_view *config, struct checkpoint *ck, struct device *d,
                          enum dtype compute, struct error *e)
{
    struct config   c = { 0 };
    struct wan_vae *v = calloc(1, sizeof *v);
    if (!v)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the model of %s", config->file);
    v->base.model = &gv_vae_wan;
    gv_status status = read_config(v, &c, config);
    if (!status) {
        lay_out(v, &c);
        status = bind_halves(v, ck, d, compute, e);
    }
    if (status)
        wan_close(&v->base);
    else
        *out = &v->base;
    return status;
}

/* ---- the stream ---- */

struct vae_stream {
    const struct wan_vae *vae;
    const struct half    *half;
    int64_t               chunk; /* 0 = the first, of one frame */
    struct tensor        *kept;  /* [n_slots] act [HISTORY or 1, H, W, C]; absent until first used */
};

static struct vae_stream *stream_open(struct run *r, const struct vae *base, enum vae_direction direction)
{
    const struct wan_vae *v = (const struct wan_vae *)base;
    struct vae_stream    *s = calloc(1, sizeof *s);
    if (s) {
        s->vae = v;
        s->half = direction == VAE_ENCODE ? &v->encoder : &v->decoder;
        s->kept = calloc((size_t)s->half->n_slots, sizeof *s->kept);
    }
    if (s && s->kept)
        return s;
    free(s);
    gv_run_fail(r, GV_ERR_MEMORY, "no memory for the frames kept by the VAE");
    return NULL;
}

static void stream_close(struct run *r, struct vae_stream *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->half->n_slots; i++)
        if (present(s->kept[i]))
            gv_device_free(r->device, s->kept[i].data, gv_tensor_bytes(s->kept[i]));
    free(s->kept);
    free(s);
}

/* The frames that slot keeps, zeros at first: n frames like those of x. */
static struct tensor kept(struct run *r, struct vae_stream *s, int slot, int64_t n, struct tensor x)
{
    struct tensor *t = &s->kept[slot];
    if (present(*t) || !gv_run_ready(r))
        return *t;
    struct tensor fresh = gv_tensor(NULL, r->compute, 4, DIMS(n, x.dim[1], x.dim[2], x.dim[3]));
    if (gv_device_alloc(r->device, gv_tensor_bytes(fresh), "frames kept by the VAE", &fresh.data, &r->err))
        return *t;
    *t = fresh;
    gv_fill(r, fresh, 0);
    return fresh;
}

/* [kept | room for x], whose tail the caller has yet to fill. */
static struct tensor with_history(struct run *r, struct vae_stream *s, int slot, int64_t n, struct tensor x)
{
    struct tensor buffer = gv_scratch(r, r->compute, 4, DIMS(n + x.dim[0], x.dim[1], x.dim[2], x.dim[3]));
    struct tensor old = kept(r, s, slot, n, x);
    if (gv_run_ready(r))
        gv_copy(r, slice(buffer, 0, 0, n), old);
    return buffer;
}

static void keep_last(struct run *r, struct vae_stream *s, int slot, struct tensor buffer)
{
    if (!gv_run_ready(r))
        return;
    int64_t n = s->kept[slot].dim[0];
    gv_copy(r, s->kept[slot], slice(buffer, 0, buffer.dim[0] - n, n));
}

/* y (+)= causal 3×3×3 convolution of x, which is first normalised and passed through SiLU if there is a norm. */
static void causal_conv(struct run *r, struct vae_stream *s, const struct causal *c, struct tensor y, struct tensor x,
                        struct tensor norm, bool add)
{
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor buffer = with_history(r, s, c->slot, HISTORY, x), now = slice(buffer, 0, HISTORY, x.dim[0]);
    if (present(norm))
        gv_norm(r, now, x, &(struct norm_opts){ .kind = NORM_L2, .eps = 1e-12f, .weight = norm, .act = ACT_SILU });
    else
        gv_copy(r, now, x);
    keep_last(r, s, c->slot, buffer);
    gv_conv(r, y, buffer, c->w,
            &(struct conv_opts){ .bias = c->bias, .pad_lo = { 0, 1, 1 }, .pad_hi = { 0, 1, 1 }, .add = add });
    arena_release(&r->scratch, mark);
}

/* ---- blocks ----
 * The picture flows between two buffers: a block that changes its shape writes to the other one. */

struct flow {
    struct tensor x;
    void         *buffer[2];
    int           at;
};

static struct tensor other(const struct run *r, const struct flow *f, int64_t T, int64_t H, int64_t W, int64_t C)
{
    return gv_tensor(f->buffer[1 - f->at], r->compute, 4, DIMS(T, H, W, C));
}

static void move(struct flow *f, struct tensor y)
{
    f->x = y;
    f->at = 1 - f->at;
}

static void res_block(struct run *r, struct vae_stream *s, const struct res *b, struct flow *f, int out)
{
    struct tensor x = f->x;
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 4, DIMS(x.dim[0], x.dim[1], x.dim[2], out));
    causal_conv(r, s, &b->conv1, h, x, b->norm1, false);
    if (present(b->shortcut.w)) {
        struct tensor y = other(r, f, x.dim[0], x.dim[1], x.dim[2], out);
        gv_linear(r, y, x, b->shortcut.w, &(struct linear_opts){ .bias = b->shortcut.bias });
        move(f, y);
    }
    causal_conv(r, s, &b->conv2, f->x, h, b->norm2, true);
    arena_release(&r->scratch, mark);
}

/* Each frame attends within itself: one head as wide as the picture. */
static void attention_block(struct run *r, const struct attention *b, struct tensor x)
{
    int64_t       T = x.dim[0], n = x.dim[1] * x.dim[2], c = x.dim[3];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor h = gv_scratch(r, r->compute, 3, DIMS(T, n, c)), qkv = gv_scratch(r, r->compute, 3, DIMS(T, n, 3 * c));
    struct tensor part[3], flat = reshape(x, 3, h.dim);
    gv_norm(r, h, flat, &(struct norm_opts){ .kind = NORM_L2, .eps = 1e-12f, .weight = b->norm });
    gv_linear(r, qkv, h, b->qkv.w, &(struct linear_opts){ .bias = b->qkv.bias });
    for (int i = 0; i < 3; i++)
        part[i] = heads(slice(qkv, 2, i * c, c), 1);
    gv_attention_dense(r, heads(h, 1), part[0], part[1], part[2]);
    struct tensor out = slice(qkv, 2, 0, c);
    gv_linear(r, out, h, b->proj.w, &(struct linear_opts){ .bias = b->proj.bias });
    gv_add(r, flat, flat, out);
    arena_release(&r->scratch, mark);
}

/* Twice the frames: a temporal convolution to 2 C channels, whose halves are the earlier and the later frame. */
static void double_time(struct run *r, struct vae_stream *s, const struct causal *c, struct flow *f)
{
    struct tensor x = f->x;
    int64_t       T = x.dim[0], H = x.dim[1], W = x.dim[2], C = x.dim[3];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor buffer = with_history(r, s, c->slot, HISTORY, x), both = gv_scratch(r, r->compute, 4, DIMS(T, H, W, 2 * C));
    gv_copy(r, slice(buffer, 0, HISTORY, T), x);
    keep_last(r, s, c->slot, buffer);
    gv_conv(r, both, buffer, c->w, &(struct conv_opts){ .bias = c->bias });
    struct tensor y = other(r, f, 2 * T, H, W, C);
    gv_copy(r, reshape(y, 5, DIMS(T, 2, H, W, C)),
            permute(reshape(both, 5, DIMS(T, H, W, 2, C)), (const int[]){ 0, 3, 1, 2, 4 }));
    arena_release(&r->scratch, mark);
    move(f, y);
}

static void upsample(struct run *r, struct vae_stream *s, const struct stage *st, struct flow *f)
{
    if (st->in_time && s->chunk > 0)
        double_time(r, s, &st->sample.time, f);
    struct tensor x = f->x;
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor big = gv_scratch(r, r->compute, 4, DIMS(x.dim[0], 2 * x.dim[1], 2 * x.dim[2], x.dim[3]));
    struct tensor y = other(r, f, big.dim[0], big.dim[1], big.dim[2], x.dim[3] / 2);
    gv_upsample(r, big, x);
    gv_conv(r, y, big, st->sample.conv,
            &(struct conv_opts){ .bias = st->sample.conv_bias, .pad_lo = { 0, 1, 1 }, .pad_hi = { 0, 1, 1 } });
    arena_release(&r->scratch, mark);
    move(f, y);
}

/* Half the frames, but for the first chunk, whose one frame is only remembered. */
static void halve_time(struct run *r, struct vae_stream *s, const struct causal *c, struct flow *f)
{
    struct tensor x = f->x;
    int64_t       T = x.dim[0];
    struct mark   mark = arena_mark(&r->scratch);
    if (s->chunk == 0) {
        kept(r, s, c->slot, 1, x);
        keep_last(r, s, c->slot, x);
        return;
    }
    struct tensor buffer = with_history(r, s, c->slot, 1, x), y = other(r, f, (T - 2) / 2 + 1, x.dim[1], x.dim[2], x.dim[3]);
    gv_copy(r, slice(buffer, 0, 1, T), x);
    keep_last(r, s, c->slot, buffer);
    gv_conv(r, y, buffer, c->w, &(struct conv_opts){ .bias = c->bias, .stride = { 2, 1, 1 } });
    arena_release(&r->scratch, mark);
    move(f, y);
}

static void downsample(struct run *r, struct vae_stream *s, const struct stage *st, struct flow *f)
{
    struct tensor x = f->x, y = other(r, f, x.dim[0], x.dim[1] / 2, x.dim[2] / 2, x.dim[3]);
    gv_conv(r, y, x, st->sample.conv,
            &(struct conv_opts){ .bias = st->sample.conv_bias, .stride = { 1, 2, 2 }, .pad_hi = { 0, 1, 1 } });
    move(f, y);
    if (st->in_time)
        halve_time(r, s, &st->sample.time, f);
}

static void middle(struct run *r, struct vae_stream *s, struct flow *f)
{
    const struct half *h = s->half;
    res_block(r, s, &h->mid[0], f, h->width_mid);
    gv_run_tap(r, "mid.res0", f->x);
    attention_block(r, &h->mid_attention, f->x);
    gv_run_tap(r, "mid.attn", f->x);
    res_block(r, s, &h->mid[1], f, h->width_mid);
    gv_run_tap(r, "mid", f->x);
}

/* ---- latents on the host: they are small, and the device may be busy for as long as they take ---- */

static void denormalise(float *z, const struct vae *v, int64_t pixels)
{
    for (int64_t i = 0; i < pixels; i++)
        for (int c = 0; c < v->z; c++)
            z[i * v->z + c] = z[i * v->z + c] * v->std[c] + v->mean[c];
}

static void normalise(float *z, const float *moments, const struct vae *v, int64_t pixels)
{
    for (int64_t i = 0; i < pixels; i++)
        for (int c = 0; c < v->z; c++)
            z[i * v->z + c] = (moments[i * 2 * v->z + c] - v->mean[c]) / v->std[c];
}

static float *host_floats(struct run *r, int64_t n)
{
    float *p = malloc((size_t)n * sizeof *p);
    if (!p)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for a latent frame");
    return p;
}

/* ---- decode ---- */

/* Elements of the largest picture that flows through a half, for frames of [T, H, W] at its wide end. */
static int64_t largest(const struct wan_vae *v, const struct half *h, int64_t T, int64_t H, int64_t W)
{
    int64_t most = (int64_t)h->width_mid * T * H * W >> 2 * (v->n_stages - 1);
    for (int i = 0; i < v->n_stages; i++) {
        const struct stage *s = &h->stage[i];
        int     level = h == &v->decoder ? v->n_stages - 1 - i : i; /* halvings of H and W that the stage works at */
        int64_t wide = s->in > s->out ? s->in : s->out, n = wide * T * (H >> level) * (W >> level);
        most = n > most ? n : most;
    }
    return most;
}

static struct flow flow_open(struct run *r, const struct wan_vae *v, const struct half *h, int64_t T, int64_t H, int64_t W)
{
    struct flow f = { .at = 0 };
    size_t      bytes = gv_dtype_bytes(r->compute, largest(v, h, T, H, W));
    f.buffer[0] = gv_scratch_bytes(r, bytes);
    f.buffer[1] = gv_scratch_bytes(r, bytes);
    return f;
}

/* On the host, because a latent frame is small. A dry run has no numbers to work on. */
static void undo_statistics(struct run *r, const struct vae *v, struct tensor raw, struct tensor z)
{
    if (gv_device_is_null(r->device))
        return;
    float *host = host_floats(r, gv_tensor_count(z));
    gv_download(r, host, z);
    if (gv_run_ready(r))
        denormalise(host, v, z.dim[1] * z.dim[2]);
    gv_upload(r, raw, host);
    gv_sync(r);
    free(host);
}

/* conv_in of the latent frame, with its statistics undone. */
static void decode_latent(struct run *r, struct vae_stream *s, struct flow *f, struct tensor z)
{
    const struct half *h = s->half;
    struct mark        mark = arena_mark(&r->scratch);
    struct tensor      raw = gv_scratch(r, GV_F32, 4, z.dim), in = gv_scratch(r, r->compute, 4, z.dim),
                  mixed = gv_scratch(r, r->compute, 4, z.dim);
    undo_statistics(r, &s->vae->base, raw, z);
    gv_copy(r, in, raw);
    gv_linear(r, mixed, in, h->quant.w, &(struct linear_opts){ .bias = h->quant.bias });
    f->x = gv_tensor(f->buffer[f->at], r->compute, 4, DIMS(1, z.dim[1], z.dim[2], h->width_mid));
    causal_conv(r, s, &h->conv_in, f->x, mixed, (struct tensor){ 0 }, false);
    arena_release(&r->scratch, mark);
    gv_run_tap(r, "conv_in", f->x);
}

static void decode(struct run *r, struct vae_stream *s, struct tensor frames, struct tensor z)
{
    const struct wan_vae *v = s->vae;
    const struct half    *h = s->half;
    struct mark           mark = arena_mark(&r->scratch);
    struct flow           f = flow_open(r, v, h, frames.dim[0], frames.dim[1], frames.dim[2]);
    gv_run_enter(r, "decode frame %lld", (long long)s->chunk);
    decode_latent(r, s, &f, z);
    middle(r, s, &f);
    for (int i = 0; i < v->n_stages && gv_run_ready(r); i++) {
        const struct stage *st = &h->stage[i];
        for (int k = 0; k < st->n_res; k++)
            res_block(r, s, &st->res[k], &f, st->out);
        if (st->samples)
            upsample(r, s, st, &f);
        gv_run_tap(r, "up", f.x);
    }
    if (gv_run_ready(r))
        causal_conv(r, s, &h->conv_out, frames, f.x, h->norm_out, false);
    arena_release(&r->scratch, mark);
    gv_check_finite(r, frames, "the decoded picture");
    s->chunk++;
}

/* ---- encode ---- */

static void apply_statistics(struct run *r, const struct vae *v, struct tensor z, struct tensor moments)
{
    if (gv_device_is_null(r->device))
        return;
    float *host = host_floats(r, gv_tensor_count(moments)), *out = host_floats(r, gv_tensor_count(z));
    gv_download(r, host, moments);
    if (gv_run_ready(r))
        normalise(out, host, v, z.dim[1] * z.dim[2]);
    gv_upload(r, z, out);
    gv_sync(r);
    free(host);
    free(out);
}

static void encode_latent(struct run *r, struct vae_stream *s, struct flow *f, struct tensor z)
{
    const struct half *h = s->half;
    int64_t            dim[4] = { 1, z.dim[1], z.dim[2], 2 * (int64_t)s->vae->base.z };
    struct mark        mark = arena_mark(&r->scratch);
    struct tensor      wide = gv_scratch(r, r->compute, 4, dim), moments = gv_scratch(r, GV_F32, 4, dim);
    causal_conv(r, s, &h->conv_out, wide, f->x, h->norm_out, false);
    gv_linear(r, moments, wide, h->quant.w, &(struct linear_opts){ .bias = h->quant.bias });
    gv_run_tap(r, "moments", moments);
    apply_statistics(r, &s->vae->base, z, moments);
    arena_release(&r->scratch, mark);
}

static void encode(struct run *r, struct vae_stream *s, struct tensor z, struct tensor frames)
{
    const struct wan_vae *v = s->vae;
    const struct half    *h = s->half;
    struct mark           mark = arena_mark(&r->scratch);
    int64_t               T = frames.dim[0], H = frames.dim[1], W = frames.dim[2];
    struct flow           f = flow_open(r, v, h, T, H, W);
    gv_run_enter(r, "encode frame %lld", (long long)s->chunk);
    f.x = gv_tensor(f.buffer[0], r->compute, 4, DIMS(T, H, W, h->width_in));
    causal_conv(r, s, &h->conv_in, f.x, frames, (struct tensor){ 0 }, false);
    gv_run_tap(r, "conv_in", f.x);
    for (int i = 0; i < v->n_stages && gv_run_ready(r); i++) {
        const struct stage *st = &h->stage[i];
        for (int k = 0; k < st->n_res; k++)
            res_block(r, s, &st->res[k], &f, st->out);
        gv_run_tap(r, "down", f.x);
        if (!st->samples)
            continue;
        downsample(r, s, st, &f);
        gv_run_tap(r, "down", f.x);
    }
    middle(r, s, &f);
    encode_latent(r, s, &f, z);
    arena_release(&r->scratch, mark);
    gv_check_finite(r, z, "the latent frame");
    s->chunk++;
}

const struct vae_model gv_vae_wan = {
    .name = "wan",
    .class_name = "AutoencoderKLWan",
    .open = wan_open,
    .close = wan_close,
    .stream_open = stream_open,
    .stream_close = stream_close,
    .decode = decode,
    .encode = encode,
};
