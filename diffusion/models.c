#include "diffusion/models.h"

#include <stdio.h>
#include <string.h>

static const struct dit_model *const   dits[] = { &gv_dit_wan };
static const struct vae_model *const   vaes[] = { &gv_vae_wan };
static const struct text_model *const  texts[] = { &gv_text_umt5 };
static const struct image_model *const images[] = { &gv_image_clip };

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* A component's folder while it is opened. */
struct folder {
    char               config_path[4096];
    json_t            *root;
    struct json_view   config;
    struct checkpoint *weights;
};

static void folder_close(struct folder *f)
{
    gv_checkpoint_close(&f->weights);
    json_decref(f->root);
}

static gv_status folder_open(struct folder *f, const char *dir, const char *stem, struct error *e)
{
    *f = (struct folder){ 0 };
    if ((size_t)snprintf(f->config_path, sizeof f->config_path, "%s/config.json", dir) >= sizeof f->config_path)
        return gv_fail(e, GV_ERR_IO, "%s: the path is too long", dir);
    TRY(gv_json_load(f->config_path, GV_JSON_CONFIG_BYTES, &f->root, e));
    f->config = gv_json_view(f->root, f->config_path, e);
    gv_status status = gv_checkpoint_open(&f->weights, dir, stem, e);
    if (status)
        folder_close(f);
    return status;
}

/* The checkpoint, for an open that takes it over. */
static struct checkpoint *folder_take(struct folder *f)
{
    struct checkpoint *c = f->weights;
    f->weights = NULL;
    return c;
}

static gv_status unknown(const struct folder *f, const char *field, const char *found, const char *known)
{
    return gv_json_fail(&f->config, field, found[0] ? GV_ERR_UNSUPPORTED : GV_ERR_MODEL, "is \"%s\"; this build reads %s",
                        found, known);
}

gv_status gv_dit_open(struct dit **out, const char *dir, struct device *d, enum dtype compute, struct error *e)
{
    struct folder f;
    *out = NULL;
    TRY(folder_open(&f, dir, "diffusion_pytorch_model", e));
    const char *kind = gv_json_string(&f.config, "_class_name", "");
    gv_status   status = GV_OK;
    size_t      i = 0;
    while (i < COUNT(dits) && strcmp(dits[i]->class_name, kind))
        i++;
    if (i == COUNT(dits))
        status = unknown(&f, "_class_name", kind, "WanTransformer3DModel");
    else
        status = dits[i]->open(out, &f.config, folder_take(&f), d, compute, e);
    folder_close(&f);
    return status;
}

gv_status gv_vae_open(struct vae **out, const char *dir, struct device *d, enum dtype compute, struct error *e)
{
    struct folder f;
    *out = NULL;
    TRY(folder_open(&f, dir, "diffusion_pytorch_model", e));
    const char *kind = gv_json_string(&f.config, "_class_name", "");
    gv_status   status = GV_OK;
    size_t      i = 0;
    while (i < COUNT(vaes) && strcmp(vaes[i]->class_name, kind))
        i++;
    if (i == COUNT(vaes))
        status = unknown(&f, "_class_name", kind, "AutoencoderKLWan");
    else
        status = vaes[i]->open(out, &f.config, folder_take(&f), d, compute, e);
    folder_close(&f);
    return status;
}

gv_status gv_text_encoder_open(struct text_encoder **out, const char *dir, struct device *d, enum dtype compute,
                               struct error *e)
{
    struct folder f;
    *out = NULL;
    TRY(folder_open(&f, dir, "model", e));
    const char *kind = gv_json_string(&f.config, "model_type", "");
    gv_status   status = GV_OK;
    size_t      i = 0;
    while (i < COUNT(texts) && strcmp(texts[i]->model_type, kind))
        i++;
    if (i == COUNT(texts))
        status = unknown(&f, "model_type", kind, "umt5");
    else
        status = texts[i]->open(out, &f.config, folder_take(&f), d, compute, e);
    folder_close(&f);
    return status;
}

gv_status gv_image_encoder_open(struct image_encoder **out, const char *dir, struct device *d, enum dtype compute,
                                struct error *e)
{
    struct folder f;
    *out = NULL;
    TRY(folder_open(&f, dir, "model", e));
    const char *kind = gv_json_string(&f.config, "model_type", "");
    gv_status   status = GV_OK;
    size_t      i = 0;
    while (i < COUNT(images) && strcmp(images[i]->model_type, kind))
        i++;
    if (i == COUNT(images))
        status = unknown(&f, "model_type", kind, "clip_vision_model");
    else
        status = images[i]->open(out, &f.config, folder_take(&f), d, compute, e);
    folder_close(&f);
    return status;
}
