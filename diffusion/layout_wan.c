/* The original's sizes as the configs that the models read. Rules: Wan-Video/Wan2.1 wan/modules@9737cba for what its files
 * leave out (patch (1, 2, 2), the VAE's widths and statistics); ComfyUI comfy/model_detection.py@a125cd8 for telling variants
 * from tensors. What tensors cannot say is the number of heads: config.json's, or the released width of 128 (CLIP: 80) each. */
#include "diffusion/layout_wan.h"

#include <stdio.h>

#include "diffusion/names.h"
#include "io/tensor_file.h"

/* Dimension i of the tensor that we call `name`; 0 where there is none. */
static json_int_t dim(const struct checkpoint *c, const char *name, int i)
{
    const struct st_entry *t = gv_checkpoint_find(c, name);
    return t && i < t->rank ? t->dim[i] : 0;
}

static int count_layers(const struct checkpoint *c, const char *stem, const char *rest)
{
    char name[128];
    int  n = 0;
    for (; n < 1024; n++) {
        snprintf(name, sizeof name, "%s%d.%s", stem, n, rest);
        if (!gv_checkpoint_find(c, name))
            break;
    }
    return n;
}

/* Entries of a decoder stage in the original's flat list: the first upsampler ends the first stage. */
static int vae_stage(const struct checkpoint *c)
{
    char name[64];
    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof name, "decoder.upsamples.%d.resample.1.weight", i);
        if (gv_checkpoint_find(c, name))
            return i + 1;
    }
    return 4;
}

static gv_status refuse_relatives(const struct checkpoint *c, struct error *e)
{
    static const struct {
        const char *name, *what;
    } relatives[] = {
        { "vace_patch_embedding.weight", "VACE" },
        { "control_adapter.conv.weight", "camera control" },
        { "casual_audio_encoder.encoder.final_linear.weight", "speech to video" },
        { "audio_proj.audio_proj_glob_1.layer.bias", "HuMo" },
        { "face_adapter.fuser_blocks.0.k_norm.weight", "Animate" },
        { "ref_conv.weight", "Fun control" },
    };
    for (size_t i = 0; i < sizeof relatives / sizeof *relatives; i++)
        if (gv_checkpoint_find(c, relatives[i].name))
            return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is Wan for %s (it holds %s), which is not supported",
                           gv_checkpoint_path(c), relatives[i].what, relatives[i].name);
    return GV_OK;
}

gv_status gv_wan_part(struct checkpoint *c, enum wan_part *part, struct error *e)
{
    static const struct {
        const char   *probe;
        enum wan_part part;
        gv_name_map   map;
    } parts[] = {
        { "head.modulation", WAN_DIT, gv_names_wan_dit },
        { "decoder.middle.0.residual.0.gamma", WAN_VAE, gv_names_wan_vae },
        { "token_embedding.weight", WAN_TEXT, gv_names_wan_umt5 },
        { "shared.weight", WAN_TEXT, gv_names_wan_umt5 },
        { "visual.pre_norm.weight", WAN_IMAGE, gv_names_wan_clip },
    };
    *part = WAN_NONE;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (gv_checkpoint_strip(c, parts[i].probe)) {
            *part = parts[i].part;
            gv_checkpoint_rename(c, parts[i].map, *part == WAN_VAE ? vae_stage(c) : 0);
            return *part == WAN_DIT ? refuse_relatives(c, e) : GV_OK;
        }
    return GV_OK;
}

/* A config made here, and the view that an open reads it through. */
static gv_status made(json_t *root, struct checkpoint *c, struct json_view *v, struct error *e)
{
    if (!root)
        return gv_fail(e, GV_ERR_MODEL, "%s: its sizes cannot be told from its tensors", gv_checkpoint_path(c));
    *v = gv_json_view(root, gv_checkpoint_path(c), e);
    return GV_OK;
}

gv_status gv_wan_dit_open(struct dit **out, struct checkpoint *c, const json_t *config, struct device *d, enum dtype compute,
                          struct error *e)
{
    struct json_view v;
    const json_int_t width = dim(c, "scale_shift_table", 2), pt = dim(c, "patch_embedding.weight", 2),
                     ph = dim(c, "patch_embedding.weight", 3), pw = dim(c, "patch_embedding.weight", 4);
    json_int_t       heads = json_integer_value(json_object_get(config, "num_heads")), volume = pt * ph * pw;
    const json_t    *eps = json_object_get(config, "eps");
    const json_int_t image = dim(c, "condition_embedder.image_embedder.ff.net.0.proj.weight", 1);
    if (heads < 1)
        heads = width / 128;
    json_t *root =
        heads && width % heads == 0 && volume > 0
            ? json_pack("{s:[I,I,I], s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:f}", "patch_size", pt, ph, pw, "in_channels",
                        dim(c, "patch_embedding.weight", 1), "out_channels", dim(c, "proj_out.weight", 0) / volume, "text_dim",
                        dim(c, "condition_embedder.text_embedder.linear_1.weight", 1), "num_layers",
                        count_layers(c, "blocks.", "scale_shift_table"), "num_attention_heads", heads, "attention_head_dim",
                        width / heads, "ffn_dim", dim(c, "blocks.0.ffn.net.0.proj.weight", 0), "freq_dim",
                        dim(c, "condition_embedder.time_embedder.linear_1.weight", 1), "eps",
                        eps ? json_number_value(eps) : 1e-6)
            : NULL;
    if (root && image) {
        json_object_set_new(root, "image_dim", json_integer(image));
        json_object_set_new(root, "added_kv_proj_dim", json_integer(width));
        if (dim(c, "condition_embedder.image_embedder.pos_embed", 1))
            json_object_set_new(root, "pos_embed_seq_len",
                                json_integer(dim(c, "condition_embedder.image_embedder.pos_embed", 1)));
    }
    TRY(made(root, c, &v, e));
    gv_status status = gv_dit_wan.open(out, &v, c, d, compute, e);
    json_decref(root);
    return status;
}

gv_status gv_wan_vae_open(struct vae **out, struct checkpoint *c, struct device *d, enum dtype compute, struct error *e)
{
    /* wan/modules/vae.py WanVAE */
    static const double mean[] = { -0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
                                   0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921 };
    static const double std[] = { 2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                                  3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160 };
    struct json_view    v;
    json_t             *root =
        json_pack("{s:I, s:I, s:[i,i,i,i], s:i, s:[b,b,b], s:[], s:[]}", "z_dim", dim(c, "decoder.conv_in.weight", 1),
                  "base_dim", dim(c, "encoder.conv_in.weight", 0), "dim_mult", 1, 2, 4, 4, "num_res_blocks", vae_stage(c) - 2,
                  "temperal_downsample", 0, 1, 1, "latents_mean", "latents_std");
    for (int i = 0; root && i < 16; i++) {
        json_array_append_new(json_object_get(root, "latents_mean"), json_real(mean[i]));
        json_array_append_new(json_object_get(root, "latents_std"), json_real(std[i]));
    }
    TRY(made(root, c, &v, e));
    gv_status status = gv_vae_wan.open(out, &v, c, d, compute, e);
    json_decref(root);
    return status;
}

gv_status gv_wan_text_open(struct text_encoder **out, struct checkpoint *c, struct device *d, enum dtype compute,
                           struct error *e)
{
    static const char bias[] = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    struct json_view  v;
    const json_int_t  heads = dim(c, bias, 1);
    json_t *root = heads ? json_pack("{s:I, s:I, s:i, s:I, s:I, s:I, s:I}", "vocab_size", dim(c, "shared.weight", 0), "d_model",
                                     dim(c, "shared.weight", 1), "num_layers",
                                     count_layers(c, "encoder.block.", "layer.0.layer_norm.weight"), "num_heads", heads, "d_kv",
                                     dim(c, "encoder.block.0.layer.0.SelfAttention.q.weight", 0) / heads, "d_ff",
                                     dim(c, "encoder.block.0.layer.1.DenseReluDense.wi_1.weight", 0),
                                     "relative_attention_num_buckets", dim(c, bias, 0))
                         : NULL;
    TRY(made(root, c, &v, e));
    gv_status status = gv_text_umt5.open(out, &v, c, d, compute, e);
    json_decref(root);
    return status;
}

gv_status gv_wan_image_open(struct image_encoder **out, struct checkpoint *c, const json_t *config, struct device *d,
                            enum dtype compute, struct error *e)
{
    struct json_view       v;
    const json_int_t       width = dim(c, "pre_layrnorm.weight", 0), patch = dim(c, "embeddings.patch_embedding.weight", 2);
    json_int_t             heads = json_integer_value(json_object_get(config, "clip_num_heads")), side = 0, tokens = 0;
    const struct st_entry *position = gv_checkpoint_find(c, "embeddings.position_embedding.weight");
    for (int i = 0; position && i < position->rank; i++)
        tokens = i < position->rank - 1 ? position->dim[i] : tokens;
    while (side < 4096 && (side + 1) * (side + 1) < tokens)
        side++;
    if (heads < 1)
        heads = width / 80;
    json_t *root = heads && patch ? json_pack("{s:I, s:I, s:i, s:I, s:I, s:I, s:f, s:s}", "hidden_size", width, "image_size",
                                              side * patch, "num_hidden_layers",
                                              count_layers(c, "encoder.layers.", "layer_norm1.weight"), "num_attention_heads",
                                              heads, "intermediate_size", dim(c, "encoder.layers.0.mlp.fc1.weight", 0),
                                              "patch_size", patch, "layer_norm_eps", 1e-5, "hidden_act", "gelu")
                                  : NULL;
    TRY(made(root, c, &v, e));
    gv_status status = gv_image_clip.open(out, &v, c, d, compute, e);
    json_decref(root);
    return status;
}
