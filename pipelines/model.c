/* A checkpoint → the parts of a video model and its defaults. A diffusers directory's
 * model_index.json says which parts there are; any other directory is searched for files that hold Wan's own names, whatever
 * the files are called, and follows Wan's own rules. What the ecosystem's files cannot say (text length, default size, steps)
 * stands in genvid.json beside it, where there is one. One with the config of a captioning model is that
 * (caption_job.c). */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "diffusion/layout_wan.h"
#include "pipelines/caption.h"
#include "pipelines/engine.h"
#include "vision/models.h"

enum { PATH = 4096 };

static gv_status join(char *out, const char *dir, const char *name, struct error *e)
{
    if ((size_t)snprintf(out, PATH, "%s/%s", dir, name) >= PATH)
        return gv_fail(e, GV_ERR_IO, "%.200s: the path is too long: %zu bytes", dir, strlen(dir));
    return GV_OK;
}

/* model_index.json names a part as [library, class], and an absent one as [null, null]. */
static bool has_part(const struct json_view *index, const char *part)
{
    return json_is_string(json_array_get(json_object_get(index->value, part), 1));
}

/* ---- scheduler/scheduler_config.json ---- */

static gv_status read_corrector(struct sampler_config *c, const struct json_view *v)
{
    struct json_view list = gv_json_array(v, "disable_corrector", 0, GV_MAX_STEPS, false);
    for (size_t i = 0; i < gv_json_count(&list); i++) {
        struct json_view at = gv_json_at(&list, i);
        json_int_t       step = json_integer_value(at.value);
        if (!json_is_integer(at.value) || step < 0 || step >= GV_MAX_STEPS)
            return gv_json_fail(&at, NULL, GV_ERR_MODEL, "is not a step from 0 to %d", GV_MAX_STEPS - 1);
        c->no_corrector[step] = true;
    }
    return gv_json_done(v);
}

static gv_status read_multistep(gv_model *m, const struct json_view *v, const char *solver, const char *schedule)
{
    m->sampler.solver = solver;
    snprintf(m->schedule, sizeof m->schedule, "%s", schedule);
    m->sampler.order = (int)gv_json_int(v, "solver_order", 1, 3, 2);
    m->defaults.shift = gv_json_number(v, "flow_shift", 0.01, 100, 1);
    if (m->sampler.order > 2)
        return gv_json_fail(v, "solver_order", GV_ERR_UNSUPPORTED, "3 is not supported; 1 and 2 are");
    if (!gv_json_bool(v, "use_flow_sigmas", false) || strcmp(gv_json_string(v, "prediction_type", ""), "flow_prediction"))
        return gv_json_fail(v, "use_flow_sigmas", GV_ERR_UNSUPPORTED, "and prediction_type must be true and flow_prediction");
    return gv_json_done(v);
}

static gv_status read_scheduler(gv_model *m, struct error *e)
{
    char    path[PATH];
    json_t *root;
    TRY(join(path, m->path, "scheduler/scheduler_config.json", e));
    TRY(gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, e));
    struct json_view v = gv_json_view(root, path, e);
    const char      *kind = gv_json_string(&v, "_class_name", NULL);
    gv_status        status;
    if (!strcmp(kind, "UniPCMultistepScheduler")) {
        status = read_multistep(m, &v, "unipc", "diffusers-unipc");
        if (!status && strcmp(gv_json_string(&v, "solver_type", "bh2"), "bh2"))
            status = gv_json_fail(&v, "solver_type", GV_ERR_UNSUPPORTED, "must be bh2");
        if (!status)
            status = read_corrector(&m->sampler, &v);
    } else if (!strcmp(kind, "DPMSolverMultistepScheduler")) {
        status = read_multistep(m, &v, "dpm++", "diffusers-dpm");
    } else if (!strcmp(kind, "FlowMatchEulerDiscreteScheduler")) {
        m->sampler.solver = "euler";
        m->sampler.order = 1;
        snprintf(m->schedule, sizeof m->schedule, "flow-match-euler");
        m->defaults.shift = gv_json_number(&v, "shift", 0.01, 100, 1);
        status = gv_json_done(&v);
    } else {
        status = gv_json_fail(
            &v, "_class_name", GV_ERR_UNSUPPORTED,
            "is \"%s\"; UniPCMultistepScheduler, DPMSolverMultistepScheduler and FlowMatchEulerDiscreteScheduler are read",
            kind);
    }
    json_decref(root);
    return status;
}

/* ---- genvid.json ---- */

/* A row of RGB for each latent channel, and perhaps one more that is added. */
static void read_preview(gv_model *m, const struct json_view *v)
{
    struct json_view list = gv_json_array(v, "preview", 1, GV_VAE_CHANNELS + 1, false);
    m->preview.channels = (int)gv_json_count(&list);
    for (size_t i = 0; i < gv_json_count(&list); i++) {
        struct json_view at = gv_json_at(&list, i);
        for (size_t c = 0; c < 3; c++)
            m->preview.row[i][c] = (float)json_number_value(json_array_get(at.value, c));
        if (json_array_size(at.value) != 3)
            gv_json_fail(&at, NULL, GV_ERR_MODEL, "is not a row of three numbers");
    }
}

static gv_status read_sidecar_fields(gv_model *m, const struct json_view *v)
{
    struct video_defaults *d = &m->defaults;
    d->text_length = (int)gv_json_int(v, "text_length", 1, 4096, d->text_length);
    d->width = (int)gv_json_int(v, "width", 16, 16384, d->width);
    d->height = (int)gv_json_int(v, "height", 16, 16384, d->height);
    d->frames = (int)gv_json_int(v, "frames", 1, 100000, d->frames);
    d->steps = (int)gv_json_int(v, "steps", 1, GV_MAX_STEPS, d->steps);
    d->fps = gv_json_number(v, "fps", 0.1, 240, d->fps);
    d->guidance = gv_json_number(v, "guidance", 0, 100, d->guidance);
    d->shift = gv_json_number(v, "shift", 0.01, 100, d->shift);
    m->known_first = gv_json_bool(v, "known_first_frame", m->known_first);
    m->trained = strcmp(gv_json_string(v, "weights", "trained"), "random") != 0;
    struct json_view causal = gv_json_object(v, "causal", false);
    d->causal_block = (int)gv_json_int(&causal, "block", 1, 1000, 0);
    d->causal_window = (int)gv_json_int(&causal, "window", 0, 100000, 0);
    d->causal_sink = (int)gv_json_int(&causal, "sink", 0, 1000, 0);
    d->causal_steps = (int)gv_json_int(&causal, "steps", 1, GV_MAX_STEPS, 4);
    read_preview(m, v);
    gv_vocabulary_close(&m->vocabulary);
    gv_slots_close(&m->slots);
    TRY(gv_vocabulary_open(&m->vocabulary, v));
    TRY(gv_slots_open(&m->slots, v));
    return gv_json_done(v);
}

static gv_status read_sidecar(gv_model *m, const char *dir, struct error *e)
{
    char        path[PATH];
    struct stat info;
    json_t     *root;
    TRY(join(path, dir, "genvid.json", e));
    if (stat(path, &info))
        return GV_OK;
    TRY(gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, e));
    struct json_view v = gv_json_view(root, path, e);
    gv_status        status = read_sidecar_fields(m, &v);
    json_decref(root);
    return status;
}

/* ---- the parts ---- */

static gv_status read_index(gv_model *m, const struct json_view *v, bool *image)
{
    const char *pipeline = gv_json_string(v, "_class_name", NULL);
    snprintf(m->pipeline, sizeof m->pipeline, "%s", pipeline);
    m->known_first = gv_json_bool(v, "expand_timesteps", false);
    TRY(gv_json_done(v));
    if (strcmp(pipeline, "WanPipeline") && strcmp(pipeline, "WanImageToVideoPipeline"))
        return gv_json_fail(v, "_class_name", GV_ERR_UNSUPPORTED, "is \"%s\"; WanPipeline and WanImageToVideoPipeline are read",
                            pipeline);
    if (has_part(v, "transformer_2"))
        return gv_json_fail(v, "transformer_2", GV_ERR_UNSUPPORTED, "(a model of two experts) is not supported");
    *image = has_part(v, "image_encoder");
    return GV_OK;
}

static gv_status open_parts(gv_model *m, bool image, struct error *e)
{
    struct device *d = m->engine->device;
    char           path[PATH];
    TRY(join(path, m->path, "transformer", e));
    TRY(gv_dit_open(&m->dit, path, d, d->compute, e));
    TRY(join(path, m->path, "vae", e));
    TRY(gv_vae_open(&m->vae, path, d, d->compute, e));
    TRY(join(path, m->path, "text_encoder", e));
    TRY(gv_text_encoder_open(&m->text, path, d, d->compute, e));
    TRY(join(path, m->path, "tokenizer", e));
    TRY(gv_tokenizer_open(&m->tokenizer, path, e));
    if (!image)
        return GV_OK;
    TRY(join(path, m->path, "image_encoder", e));
    return gv_image_encoder_open(&m->image, path, d, d->compute, e);
}

/* Parts that each load may still not belong together. */
static gv_status check_fit(gv_model *m, struct error *e)
{
    const struct dit_config *c = &m->dit->config;
    int                      z = m->vae->z;
    if (c->text_dim != m->text->width)
        return gv_fail(e, GV_ERR_MODEL,
                       "%s: the transformer's text_dim is %d, the text encoder's d_model %d: they do not belong together",
                       m->path, c->text_dim, m->text->width);
    if (c->out_channels != z)
        return gv_fail(e, GV_ERR_MODEL,
                       "%s: the transformer's out_channels is %d, the VAE's z_dim %d: they do not belong together", m->path,
                       c->out_channels, z);
    if (c->in_channels != z && c->in_channels != 2 * z + m->vae->time_scale)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s: the transformer's in_channels is %d; with this VAE %d or %d are supported",
                       m->path, c->in_channels, z, 2 * z + m->vae->time_scale);
    if (gv_tokenizer_size(m->tokenizer) > m->text->vocabulary)
        return gv_fail(e, GV_ERR_MODEL, "%s: the tokenizer has %d pieces, the text encoder %d: they do not belong together",
                       m->path, gv_tokenizer_size(m->tokenizer), m->text->vocabulary);
    if (m->preview.channels && m->preview.channels != z && m->preview.channels != z + 1)
        return gv_fail(e, GV_ERR_MODEL,
                       "%s/genvid.json: preview has %d rows; the VAE has %d channels, and one row may be added", m->path,
                       m->preview.channels, z);
    m->preview.channels = m->preview.channels ? z : 0;
    if (m->image && c->image_dim != m->image->width)
        return gv_fail(e, GV_ERR_MODEL,
                       "%s: the transformer's image_dim is %d, the image encoder's hidden_size %d: they do not belong together",
                       m->path, c->image_dim, m->image->width);
    if (m->image && c->image_tokens && c->image_tokens != 2 * m->image->tokens)
        return gv_fail(e, GV_ERR_MODEL, "%s: the transformer's pos_embed_seq_len is %d; two pictures have %lld tokens", m->path,
                       c->image_tokens, 2 * (long long)m->image->tokens);
    if (c->image_dim && !m->image)
        return gv_fail(e, GV_ERR_MODEL, "%s: the transformer wants image features, and model_index.json names no image_encoder",
                       m->path);
    return GV_OK;
}

/* ---- Wan's own layout ---- */

struct original {
    gv_model          *m;
    char               dir[PATH];
    json_t            *config; /* config.json of the transformer, or NULL */
    struct checkpoint *file;   /* the one that is being looked at */
    struct error       passed; /* why the first file that was passed over was */
};

static bool is_folder(const char *path)
{
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

/* The open takes the checkpoint over; a second file of a part that is there already is passed over. */
static gv_status take_part(struct original *o, enum wan_part part, struct error *e)
{
    gv_model      *m = o->m;
    struct device *d = m->engine->device;
    gv_status      status = GV_OK;
    if (part == WAN_DIT && !m->dit)
        status = gv_wan_dit_open(&m->dit, o->file, o->config, d, d->compute, e);
    else if (part == WAN_VAE && !m->vae)
        status = gv_wan_vae_open(&m->vae, o->file, d, d->compute, e);
    else if (part == WAN_TEXT && !m->text)
        status = gv_wan_text_open(&m->text, o->file, d, d->compute, e);
    else if (part == WAN_IMAGE && !m->image)
        status = gv_wan_image_open(&m->image, o->file, o->config, d, d->compute, e);
    gv_checkpoint_close(&o->file);
    return status;
}

static gv_status look_at(struct original *o, const char *path, enum wan_part *part, struct error *e)
{
    TRY(gv_checkpoint_open_file(&o->file, path, e));
    return gv_wan_part(o->file, part, e);
}

static gv_status take_file(struct original *o, const char *path, struct error *e)
{
    enum wan_part part;
    TRY(look_at(o, path, &part, e));
    if (part != WAN_DIT)
        return gv_fail(e, GV_ERR_MODEL, "%s does not hold Wan's transformer", path);
    return take_part(o, part, e);
}

/* A file that happens to lie in the folder. Nobody named it, so one that is broken or of another model is passed over; should
 * a part be missing in the end, it is told. */
static gv_status take_neighbour(struct original *o, const char *path, struct error *e)
{
    struct error  why = { 0 };
    enum wan_part part;
    if (!look_at(o, path, &part, &why))
        return take_part(o, part, e);
    if (why.code == GV_ERR_MEMORY)
        return gv_fail(e, why.code, "%s", why.text);
    gv_log(&o->m->engine->log, GV_LOG_WARN, "passed over: %s", why.text);
    if (!o->passed.code)
        o->passed = why;
    return GV_OK;
}

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n > k && !strcmp(name + n - k, end);
}

/* Every file that may hold tensors, in the order of names. */
static gv_status take_folder(struct original *o, struct error *e)
{
    struct dirent **list;
    int             n = scandir(o->dir, &list, NULL, alphasort);
    gv_status       status = n < 0 ? gv_fail(e, GV_ERR_IO, "%s cannot be read", o->dir) : GV_OK;
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        char        path[PATH];
        if (!status && strncmp(name, "diffusion_pytorch_model", 23) &&
            (ends_in(name, ".safetensors") || ends_in(name, ".pth") || ends_in(name, ".pt"))) {
            status = join(path, o->dir, name, e);
            if (!status)
                status = take_neighbour(o, path, e);
            gv_checkpoint_close(&o->file);
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    return status;
}

static gv_status take_transformer(struct original *o, struct error *e)
{
    char          path[PATH];
    struct stat   info;
    enum wan_part part;
    TRY(join(path, o->dir, "config.json", e));
    if (!stat(path, &info))
        TRY(gv_json_load(path, GV_JSON_CONFIG_BYTES, &o->config, e));
    if (!is_folder(o->m->path))
        return take_file(o, o->m->path, e);
    TRY(join(path, o->dir, "high_noise_model", e));
    if (is_folder(path))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s (a model of two experts) is not supported", path);
    TRY(join(path, o->dir, "diffusion_pytorch_model.safetensors", e));
    if (stat(path, &info)) {
        TRY(join(path, o->dir, "diffusion_pytorch_model.safetensors.index.json", e));
        if (stat(path, &info))
            return GV_OK; /* under some other name, perhaps */
    }
    TRY(gv_checkpoint_open(&o->file, o->dir, "diffusion_pytorch_model", e));
    TRY(gv_wan_part(o->file, &part, e));
    if (part != WAN_DIT)
        return gv_fail(e, GV_ERR_MODEL, "%s does not hold Wan's transformer", path);
    return take_part(o, part, e);
}

static gv_status check_parts(const struct original *o, struct error *e)
{
    const gv_model *m = o->m;
    const char     *missing = !m->dit ? "transformer" : !m->vae ? "VAE" : !m->text ? "text encoder" : NULL;
    if (missing)
        return gv_fail(e, o->passed.code ? o->passed.code : GV_ERR_MODEL,
                       "%s: it has no model_index.json, and no file in Wan's own layout holds a %s%s%s", m->path, missing,
                       o->passed.code ? "; passed over: " : "", o->passed.text);
    return GV_OK;
}

static gv_status open_tokenizer(const struct original *o, struct error *e)
{
    static const char *const places[] = { "google/umt5-xxl", "tokenizer" };
    char                     path[PATH];
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        TRY(join(path, o->dir, places[i], e));
        if (is_folder(path))
            return gv_tokenizer_open(&o->m->tokenizer, path, e);
    }
    return gv_fail(e, GV_ERR_MODEL, "%s holds neither google/umt5-xxl nor tokenizer", o->dir);
}

static gv_status open_original_parts(struct original *o, struct error *e)
{
    gv_model *m = o->m;
    TRY(take_transformer(o, e));
    TRY(take_folder(o, e));
    TRY(check_parts(o, e));
    TRY(open_tokenizer(o, e));
    bool from_picture = m->dit->config.in_channels != m->dit->config.out_channels;
    snprintf(m->pipeline, sizeof m->pipeline, "%s", from_picture ? "WanImageToVideoPipeline" : "WanPipeline");
    m->wan_rules = true;
    m->sampler = (struct sampler_config){ .solver = "unipc", .order = 2 };
    snprintf(m->schedule, sizeof m->schedule, "wan-unipc");
    m->defaults.shift = 5; /* generate.py's defaults */
    m->defaults.shift_480p = from_picture ? 3 : 0;
    if (m->dit->config.image_tokens) { /* FLF2V-14B-720P */
        m->defaults.shift = 16;
        m->defaults.width = 1280, m->defaults.height = 720;
    }
    return GV_OK;
}

static gv_status open_original(gv_model *m, struct error *e)
{
    struct original o = { .m = m };
    char           *slash;
    if ((size_t)snprintf(o.dir, sizeof o.dir, "%s", m->path) >= sizeof o.dir)
        return gv_fail(e, GV_ERR_IO, "%.200s: the path is too long: %zu bytes", m->path, strlen(m->path));
    if (!is_folder(m->path)) {
        slash = strrchr(o.dir, '/');
        snprintf(slash ? slash : o.dir, 2, "%s", slash == o.dir ? "/" : slash ? "" : ".");
    }
    gv_status status = open_original_parts(&o, e);
    gv_checkpoint_close(&o.file);
    json_decref(o.config);
    if (!status)
        status = read_sidecar(m, o.dir, e);
    if (m->defaults.shift < 5 || m->defaults.shift > 5) /* FLF2V's or the sidecar's own, for every size */
        m->defaults.shift_480p = 0;
    return status ? status : check_fit(m, e);
}

/* transformers' configs, which a captioning model has, spell every one of these otherwise. */
static gv_status is_wan_config(const char *path, bool *is, struct error *e)
{
    struct error why = { 0 };
    json_t      *root;
    *is = false;
    if (gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, &why))
        return why.code == GV_ERR_MEMORY ? gv_fail(e, why.code, "%s", why.text) : GV_OK; /* else whoever reads it tells */
    *is = json_object_get(root, "_class_name") || json_object_get(root, "dim") || json_object_get(root, "num_heads");
    json_decref(root);
    return GV_OK;
}

static bool holds_checkpoints(const char *path)
{
    struct dirent *d;
    bool           found = false;
    DIR           *folder = opendir(path);
    while (folder && (d = readdir(folder)))
        found = found || ends_in(d->d_name, ".safetensors") || ends_in(d->d_name, ".pth") || ends_in(d->d_name, ".pt") ||
                !strcmp(d->d_name, "high_noise_model");
    if (folder)
        closedir(folder);
    return found;
}

/* A directory without model_index.json that has something of Wan's own, or a file. Errors: MEMORY. */
static gv_status is_original(const char *path, bool *is, struct error *e)
{
    char        index[PATH];
    struct stat info;
    *is = false;
    if (stat(path, &info))
        return GV_OK;
    if (!S_ISDIR(info.st_mode)) {
        *is = true;
        return GV_OK;
    }
    if ((size_t)snprintf(index, sizeof index, "%s/model_index.json", path) >= sizeof index || !stat(index, &info))
        return GV_OK;
    bool wan = true;
    if ((size_t)snprintf(index, sizeof index, "%s/config.json", path) < sizeof index && !stat(index, &info))
        TRY(is_wan_config(index, &wan, e));
    *is = wan && holds_checkpoints(path);
    return GV_OK;
}

static gv_status open_all(gv_model *m, struct error *e)
{
    char    path[PATH];
    json_t *root;
    bool    image = false, original;
    /* Wan's own: 480p, 81 frames at 16 a second (wan.md's table of defaults, diffusers' pipeline signature) */
    m->defaults = (struct video_defaults){
        .text_length = 512, .width = 832, .height = 480, .frames = 81, .steps = 50, .fps = 16, .guidance = 5
    };
    TRY(is_original(m->path, &original, e));
    if (original)
        return open_original(m, e);
    if (gv_vlm_detect(m->path))
        return gv_caption_model_open(m, e);
    TRY(join(path, m->path, "model_index.json", e));
    TRY(gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, e));
    struct json_view index = gv_json_view(root, path, e);
    gv_status        status = read_index(m, &index, &image);
    json_decref(root);
    if (status)
        return status;
    TRY(read_scheduler(m, e));
    TRY(read_sidecar(m, m->path, e));
    TRY(open_parts(m, image, e));
    return check_fit(m, e);
}

gv_status gv_model_open(gv_model **out, gv_engine *engine, const char *path, struct error *e)
{
    gv_model *m = *out = calloc(1, sizeof *m);
    if (!m || !(m->path = strdup(path))) {
        free(m);
        *out = NULL;
        return gv_fail(e, GV_ERR_MEMORY, "no memory to open %s", path);
    }
    m->engine = engine;
    m->serial = atomic_fetch_add(&engine->loaded, 1) + 1;
    m->trained = true;
    gv_status status = open_all(m, e);
    if (status)
        gv_model_close(out);
    return status;
}

void gv_model_close(gv_model **out)
{
    gv_model *m = *out;
    if (!m)
        return;
    if (m->dit)
        m->dit->model->close(m->dit);
    if (m->vae)
        m->vae->model->close(m->vae);
    if (m->text)
        m->text->model->close(m->text);
    if (m->image)
        m->image->model->close(m->image);
    if (m->vlm)
        m->vlm->model->close(m->vlm);
    gv_tokenizer_close(&m->tokenizer);
    gv_vocabulary_close(&m->vocabulary);
    gv_slots_close(&m->slots);
    free(m->path);
    free(m);
    *out = NULL;
}
