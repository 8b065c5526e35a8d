#include "diffusion/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What begins with `ours` begins with `theirs` there; the rest stays. */
struct name_row {
    const char *ours, *theirs;
    int         part, parts; /* of the rows of theirs; 0 parts: all */
};

static bool starts(const char *name, const char *with, const char **rest)
{
    size_t n = strlen(with);
    *rest = name + n;
    return !strncmp(name, with, n);
}

static bool replace(struct stored_name *out, const char *prefix, const char *name, const struct name_row *row, int n)
{
    const char *rest;
    for (int i = 0; i < n; i++)
        if (starts(name, row[i].ours, &rest)) {
            out->part = row[i].part;
            out->parts = row[i].parts ? row[i].parts : 1;
            return (size_t)snprintf(out->text, sizeof out->text, "%s%s%s", prefix, row[i].theirs, rest) < sizeof out->text;
        }
    return false;
}
#define REPLACE(out, prefix, name, rows) replace(out, prefix, name, rows, N_ROWS(rows))

/* "12.rest" behind `stem` → 12 and rest. */
static bool numbered(const char *name, const char *stem, int *number, const char **rest)
{
    if (!starts(name, stem, rest) || **rest < '0' || **rest > '9')
        return false;
    char *end;
    long  n = strtol(*rest, &end, 10);
    *number = (int)n;
    *rest = end + 1;
    return *end == '.' && n < 10000;
}

/* ---- transformer ---- */

bool gv_names_wan_dit(struct stored_name *out, const char *name, int unused)
{
#define ATTENTION(ours, theirs)                                                                                                \
    { ours ".to_q.", theirs ".q.", 0, 0 }, { ours ".to_k.", theirs ".k.", 0, 0 }, { ours ".to_v.", theirs ".v.", 0, 0 },       \
        { ours ".to_out.0.", theirs ".o.", 0, 0 }, { ours ".norm_q.", theirs ".norm_q.", 0, 0 },                               \
    {                                                                                                                          \
        ours ".norm_k.", theirs ".norm_k.", 0, 0                                                                               \
    }
    static const struct name_row block[] = {
        { "scale_shift_table", "modulation", 0, 0 },
        ATTENTION("attn1", "self_attn"),
        ATTENTION("attn2", "cross_attn"),
        { "attn2.add_k_proj.", "cross_attn.k_img.", 0, 0 },
        { "attn2.add_v_proj.", "cross_attn.v_img.", 0, 0 },
        { "attn2.norm_added_k.", "cross_attn.norm_k_img.", 0, 0 },
        { "norm2.", "norm3.", 0, 0 },
        { "ffn.net.0.proj.", "ffn.0.", 0, 0 },
        { "ffn.net.2.", "ffn.2.", 0, 0 },
    };
    static const struct name_row top[] = {
        { "condition_embedder.text_embedder.linear_1.", "text_embedding.0.", 0, 0 },
        { "condition_embedder.text_embedder.linear_2.", "text_embedding.2.", 0, 0 },
        { "condition_embedder.time_embedder.linear_1.", "time_embedding.0.", 0, 0 },
        { "condition_embedder.time_embedder.linear_2.", "time_embedding.2.", 0, 0 },
        { "condition_embedder.time_proj.", "time_projection.1.", 0, 0 },
        { "condition_embedder.image_embedder.norm1.", "img_emb.proj.0.", 0, 0 },
        { "condition_embedder.image_embedder.ff.net.0.proj.", "img_emb.proj.1.", 0, 0 },
        { "condition_embedder.image_embedder.ff.net.2.", "img_emb.proj.3.", 0, 0 },
        { "condition_embedder.image_embedder.norm2.", "img_emb.proj.4.", 0, 0 },
        { "condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos", 0, 0 },
        { "scale_shift_table", "head.modulation", 0, 0 },
        { "proj_out.", "head.head.", 0, 0 },
    };
    const char *rest;
    char        prefix[32];
    int         n;
    (void)unused;
    if (!numbered(name, "blocks.", &n, &rest))
        return REPLACE(out, "", name, top);
    snprintf(prefix, sizeof prefix, "blocks.%d.", n);
    return REPLACE(out, prefix, rest, block);
}

/* ---- text encoder ---- */

bool gv_names_wan_umt5(struct stored_name *out, const char *name, int unused)
{
    static const struct name_row top[] = {
        { "shared.", "token_embedding.", 0, 0 },
        { "encoder.final_layer_norm.", "norm.", 0, 0 },
    };
    static const struct name_row block[] = {
        { "layer.0.layer_norm.", "norm1.", 0, 0 },
        { "layer.0.SelfAttention.relative_attention_bias.", "pos_embedding.embedding.", 0, 0 },
        { "layer.0.SelfAttention.", "attn.", 0, 0 },
        { "layer.1.layer_norm.", "norm2.", 0, 0 },
        { "layer.1.DenseReluDense.wi_0.", "ffn.gate.0.", 0, 0 },
        { "layer.1.DenseReluDense.wi_1.", "ffn.fc1.", 0, 0 },
        { "layer.1.DenseReluDense.wo.", "ffn.fc2.", 0, 0 },
    };
    const char *rest;
    char        prefix[32];
    int         n;
    (void)unused;
    if (!numbered(name, "encoder.block.", &n, &rest))
        return REPLACE(out, "", name, top);
    snprintf(prefix, sizeof prefix, "blocks.%d.", n);
    return REPLACE(out, prefix, rest, block);
}

/* ---- CLIP ---- */

bool gv_names_wan_clip(struct stored_name *out, const char *name, int unused)
{
    static const struct name_row top[] = {
        { "embeddings.class_embedding", "visual.cls_embedding", 0, 0 },
        { "embeddings.position_embedding.weight", "visual.pos_embedding", 0, 0 },
        { "embeddings.patch_embedding.", "visual.patch_embedding.", 0, 0 },
        { "pre_layrnorm.", "visual.pre_norm.", 0, 0 },
    };
    static const struct name_row block[] = {
        { "layer_norm1.", "norm1.", 0, 0 },
        { "self_attn.q_proj.", "attn.to_qkv.", 0, 3 },
        { "self_attn.k_proj.", "attn.to_qkv.", 1, 3 },
        { "self_attn.v_proj.", "attn.to_qkv.", 2, 3 },
        { "self_attn.out_proj.", "attn.proj.", 0, 0 },
        { "layer_norm2.", "norm2.", 0, 0 },
        { "mlp.fc1.", "mlp.0.", 0, 0 },
        { "mlp.fc2.", "mlp.2.", 0, 0 },
    };
    const char *rest;
    char        prefix[48];
    int         n;
    (void)unused;
    if (!numbered(name, "encoder.layers.", &n, &rest))
        return REPLACE(out, "", name, top);
    snprintf(prefix, sizeof prefix, "visual.transformer.%d.", n);
    return REPLACE(out, prefix, rest, block);
}

/* ---- VAE ---- */

static const struct name_row residual[] = {
    { "norm1.", "residual.0.", 0, 0 },    { "conv1.", "residual.2.", 0, 0 },       { "norm2.", "residual.3.", 0, 0 },
    { "conv2.", "residual.6.", 0, 0 },    { "conv_shortcut.", "shortcut.", 0, 0 }, { "resample.", "resample.", 0, 0 },
    { "time_conv.", "time_conv.", 0, 0 },
};

static bool vae_half(struct stored_name *out, const char *half, const char *name)
{
    static const struct name_row top[] = {
        { "conv_in.", "conv1.", 0, 0 },
        { "mid_block.attentions.0.", "middle.1.", 0, 0 },
        { "norm_out.", "head.0.", 0, 0 },
        { "conv_out.", "head.2.", 0, 0 },
    };
    const char *rest;
    char        prefix[32];
    int         n;
    if (!numbered(name, "mid_block.resnets.", &n, &rest))
        return REPLACE(out, half, name, top);
    snprintf(prefix, sizeof prefix, "%smiddle.%d.", half, 2 * n);
    return REPLACE(out, prefix, rest, residual);
}

bool gv_names_wan_vae(struct stored_name *out, const char *name, int stage)
{
    static const struct name_row top[] = {
        { "quant_conv.", "conv1.", 0, 0 },
        { "post_quant_conv.", "conv2.", 0, 0 },
    };
    const char *rest, *inner;
    char        prefix[48];
    int         i, k = 0;
    if (numbered(name, "encoder.down_blocks.", &i, &rest)) {
        snprintf(prefix, sizeof prefix, "encoder.downsamples.%d.", i);
        return REPLACE(out, prefix, rest, residual);
    }
    if (numbered(name, "decoder.up_blocks.", &i, &rest)) {
        if (starts(rest, "upsamplers.0.", &inner))
            k = stage - 1;
        else if (!numbered(rest, "resnets.", &k, &inner))
            return false;
        snprintf(prefix, sizeof prefix, "decoder.upsamples.%d.", i * stage + k);
        return REPLACE(out, prefix, inner, residual);
    }
    if (starts(name, "encoder.", &rest))
        return vae_half(out, "encoder.", rest);
    if (starts(name, "decoder.", &rest))
        return vae_half(out, "decoder.", rest);
    return REPLACE(out, "", name, top);
}
