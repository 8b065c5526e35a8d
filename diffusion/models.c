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

/* Which of the n names the config's field says; -1 after a failure that lists them. */
static int family(const struct folder *f, const char *field, const char *const *names, size_t n)
{
    const char *kind = gv_json_string(&f->config, field, "");
    char        known[512] = "";
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(names[i], kind))
            return (int)i;
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", names[i]);
    }
    gv_json_fail(&f->config, field, kind[0] ? GV_ERR_UNSUPPORTED : GV_ERR_MODEL, "is \"%s\"; this build reads %s", kind, known);
    return -1;
}

gv_status gv_dit_open(struct dit **out, const char *dir, struct device *d, enum dtype compute, struct error *e)
{
    struct folder f;
    const char   *names[COUNT(dits)];
    *out = NULL;
    TRY(folder_open(&f, dir, "diffusion_pytorch_model", e));
    for (size_t i = 0; i < COUNT(dits); i++)
        names[i] = dits[i]->class_name;
    int       k = family(&f, "_class_name", names, COUNT(dits));
    gv_status status = k < 0 ? e->code : dits[k]->open(out, &f.config, f.weights, d, compute, e);
    folder_close(&f);
    return status;
}

gv_status gv_vae_open(struct vae **out, const char *dir, struct device *d, enum dtype compute, struct error *e)
{
    struct folder f;
    const char   *names[COUNT(vaes)];
    *out = NULL;
    TRY(folder_open(&f, dir, "diffusion_pytorch_model", e));
    for (size_t i = 0; i < COUNT(vaes); i++)
        names[i] = vaes[i]->class_name;
    int       k = family(&f, "_class_name", names, COUNT(vaes));
    gv_status status = k < 0 ? e->code : vaes[k]->open(out, &f.config, f.weights, d, compute, e);
    folder_close(&f);
    return status;
}

gv_status gv_text_encoder_open(struct text_encoder **out, const char *dir, struct device *d, enum dtype compute,
                               struct error *e)
{
    struct folder f;
    const char   *names[COUNT(texts)];
    *out = NULL;
    TRY(folder_open(&f, dir, "model", e));
    for (size_t i = 0; i < COUNT(texts); i++)
        names[i] = texts[i]->model_type;
    int       k = family(&f, "model_type", names, COUNT(texts));
    gv_status status = k < 0 ? e->code : texts[k]->open(out, &f.config, f.weights, d, compute, e);
    folder_close(&f);
    return status;
}

gv_status gv_image_encoder_open(struct image_encoder **out, const char *dir, struct device *d, enum dtype compute,
                                struct error *e)
{
    struct folder f;
    const char   *names[COUNT(images)];
    *out = NULL;
    TRY(folder_open(&f, dir, "model", e));
    for (size_t i = 0; i < COUNT(images); i++)
        names[i] = images[i]->model_type;
    int       k = family(&f, "model_type", names, COUNT(images));
    gv_status status = k < 0 ? e->code : images[k]->open(out, &f.config, f.weights, d, compute, e);
    folder_close(&f);
    return status;
}
