#include "vision/models.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const struct vlm_model *const models[] = { &gv_vlm_qwen2_vl, &gv_vlm_qwen2_5_vl, &gv_vlm_llava_onevision };
enum { MODELS = sizeof models / sizeof *models, PATH = 4096 };

static gv_status join(char *out, const char *dir, const char *name, struct error *e)
{
    if ((size_t)snprintf(out, PATH, "%s/%s", dir, name) >= PATH)
        return gv_fail(e, GV_ERR_IO, "%.200s: the path is too long", dir);
    return GV_OK;
}

static bool there(const char *dir, const char *name)
{
    char        path[PATH];
    struct stat info;
    return join(path, dir, name, NULL) == GV_OK && !stat(path, &info);
}

bool gv_vlm_detect(const char *dir)
{
    return there(dir, "config.json") && !there(dir, "model_index.json");
}

/* One json file of dir; path [PATH] is what messages name. */
static gv_status load(json_t **root, struct json_view *v, char *path, const char *dir, const char *name, struct error *e)
{
    TRY(join(path, dir, name, e));
    TRY(gv_json_load(path, GV_JSON_CONFIG_BYTES, root, e));
    *v = gv_json_view(*root, path, e);
    return GV_OK;
}

static gv_status refuse(const struct json_view *v, const char *kind)
{
    char   known[256];
    size_t n = 0;
    for (int i = 0; i < MODELS; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", models[i]->model_type);
    return gv_json_fail(v, "model_type", kind[0] ? GV_ERR_UNSUPPORTED : GV_ERR_MODEL, "is \"%s\"; this build reads %s", kind,
                        known);
}

static gv_status open_family(struct vlm **out, const char *dir, struct device *d, enum dtype compute, struct error *e)
{
    char               path[PATH];
    json_t            *root;
    struct json_view   v;
    struct checkpoint *c = NULL;
    int                i = 0;
    TRY(load(&root, &v, path, dir, "config.json", e));
    const char *kind = gv_json_string(&v, "model_type", "");
    while (i < MODELS && strcmp(models[i]->model_type, kind))
        i++;
    gv_status status = gv_json_done(&v);
    if (!status && i == MODELS)
        status = refuse(&v, kind);
    if (!status)
        status = gv_checkpoint_open(&c, dir, "model", e);
    if (!status)
        status = models[i]->open(out, &v, c, d, compute, e);
    gv_checkpoint_close(&c);
    if (!status) {
        (*out)->model = models[i];
        (*out)->clip = models[i]->clip;
        (*out)->clip.step = (*out)->patch.temporal;
    }
    json_decref(root);
    return status;
}

typedef gv_status (*read_fn)(struct vlm *v, const struct json_view *view);

static gv_status read_clip(struct vlm *v, const struct json_view *view)
{
    return gv_clip_config_read(&v->clip, view);
}

static gv_status read_sample(struct vlm *v, const struct json_view *view)
{
    return gv_sample_config_read(&v->sample, view);
}

/* One file of dir into v; one that is not required may be missing. */
static gv_status read_file(struct vlm *v, const char *dir, const char *name, bool required, read_fn read, struct error *e)
{
    char             path[PATH];
    json_t          *root;
    struct json_view view;
    if (!required && !there(dir, name))
        return GV_OK;
    TRY(load(&root, &view, path, dir, name, e));
    gv_status status = read(v, &view);
    json_decref(root);
    return status;
}

gv_status gv_vlm_open(struct vlm **out, const char *dir, struct device *d, enum dtype compute, struct error *e)
{
    *out = NULL;
    TRY(open_family(out, dir, d, compute, e));
    gv_status status = read_file(*out, dir, "preprocessor_config.json", true, (*out)->model->processor, e);
    if (!status)
        status = read_file(*out, dir, "video_preprocessor_config.json", false, read_clip, e);
    if (!status)
        status = read_file(*out, dir, "generation_config.json", false, read_sample, e);
    if (status) {
        (*out)->model->close(*out);
        *out = NULL;
    }
    return status;
}
