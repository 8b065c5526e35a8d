/* A recipe holds what the request said, with every default filled in, so that it means the same when a default changes; what the
 * model was, as hashes; and the hash of the RGB frames before any encoder, by which a second render is judged.
 *
 * quick_sha256 takes the tensors' names, types and shapes and 64 bytes from the middle of each: no second to compute, and another
 * training of the same shapes has another. sha256, on request (option hash=full), takes every byte.
 *
 * Surprise: a recipe read from a file is a stranger's: its text is data, and a rerun checks every value as a request's. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "pipelines/recipe.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "io/media_info.h"
#include "io/sha256.h"
#include "io/text.h"
#include "pipelines/options.h"
#include "pipelines/report.h"

enum { VERSION = 1 };

/* Every value goes through here: *o becomes NULL, and stays so, where memory ran out. */
static void set(json_t **o, const char *key, json_t *value)
{
    if (json_object_set_new(*o, key, value) == 0)
        return;
    json_decref(*o);
    *o = NULL;
}

/* JSON holds UTF-8 alone: where text is none, what stands for it. */
static json_t *words(const char *text, const char *otherwise)
{
    return json_string(gv_utf8_valid(text, strlen(text)) ? text : otherwise);
}

static json_t *part_json(const char *name, const struct weights *w, bool full)
{
    char    hash[65];
    json_t *o = json_object();
    set(&o, "part", json_string(name));
    set(&o, "bytes", json_integer((json_int_t)gv_weights_file_bytes(w)));
    gv_weights_hash(w, false, hash);
    set(&o, "quick_sha256", json_string(hash));
    if (full) {
        gv_weights_hash(w, true, hash);
        set(&o, "sha256", json_string(hash));
    }
    return o;
}

json_t *gv_model_parts_json(const gv_model *m, bool full)
{
    const struct {
        const char           *name;
        const struct weights *w;
    } parts[] = { { "transformer", m->dit->weights },
                  { "vae", m->vae->decoder },
                  { "text_encoder", m->text->weights },
                  { "image_encoder", m->image ? m->image->weights : NULL } };
    json_t *list = json_array();
    bool    failed = !list;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        failed = failed || (parts[i].w && json_array_append_new(list, part_json(parts[i].name, parts[i].w, full)));
    if (!failed)
        return list;
    json_decref(list);
    return NULL;
}

/* The place as it is found from any folder; as given where it has none. */
static json_t *place(const char *path)
{
    char whole[PATH_MAX];
    return words(realpath(path, whole) ? whole : path, "");
}

static json_t *picture(const char *path, const struct image *im)
{
    struct sha256 h;
    char          hash[65];
    if (!im->rgb)
        return json_null();
    gv_sha256_open(&h);
    gv_sha256_add(&h, im->rgb, (size_t)im->width * (size_t)im->height * 3);
    gv_sha256_hex(&h, hash);
    return json_pack("{s:o, s:i, s:i, s:s}", "path", place(path), "width", im->width, "height", im->height, "rgb_sha256", hash);
}

/* Those that shape the frames; how the file was encoded says the file. */
static json_t *options(const gv_video_request *q)
{
    static const char *const not_ours[] = { "format", "codec", "bits", "crf", "preset", "audio", "hash", "verify" };
    json_t                  *o = json_object();
    for (size_t i = 0; i < q->option_count; i++) {
        bool ours = true;
        for (size_t k = 0; k < sizeof not_ours / sizeof *not_ours; k++)
            ours = ours && strcmp(q->options[i].name, not_ours[k]);
        if (ours)
            set(&o, q->options[i].name, words(q->options[i].value, ""));
    }
    return o;
}

static json_t *model(const gv_model *m, const gv_video_request *q)
{
    const char *hash = gv_option_value(q, "hash");
    return json_pack("{s:o, s:o}", "path", place(m->path), "parts", gv_model_parts_json(m, hash && !strcmp(hash, "full")));
}

json_t *gv_note_json(const char *note)
{
    json_t *o = json_loads(note, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    return o ? o : words(note, "");
}

char *gv_recipe_json(const struct video_job *job, const gv_video_request *q, const struct video_report *p)
{
    const struct device *d = job->model->engine->device;
    const char          *negative = job->guidance == 1 || !q->negative_prompt ? "" : q->negative_prompt;
    json_t              *o = json_object();
    set(&o, "recipe", json_integer(VERSION));
    set(&o, "genvid", json_string(gv_version()));
    set(&o, "prompt", words(q->prompt, job->prompt_text)); /* or as it was read */
    set(&o, "negative_prompt", words(negative, job->negative_text));
    set(&o, "width", json_integer(job->width));
    set(&o, "height", json_integer(job->height));
    set(&o, "frames", json_integer(job->frames));
    set(&o, "fps", json_real(job->fps));
    set(&o, "steps", json_integer(job->steps));
    set(&o, "guidance", json_real(job->guidance));
    set(&o, "shift", json_real(job->shift));
    set(&o, "seed", json_integer((json_int_t)job->seed));
    set(&o, "solver", json_string(job->sampler.solver));
    set(&o, "schedule", json_string(job->schedule_name));
    set(&o, "noise", json_string(q->noise ? q->noise : "genvid"));
    set(&o, "first_image", picture(q->first_image, &job->first));
    set(&o, "last_image", picture(q->last_image, &job->last));
    set(&o, "options", options(q));
    set(&o, "model", model(job->model, q));
    set(&o, "device", json_string(d->name));
    set(&o, "precision", json_string(d->compute == GV_BF16 ? "bf16" : "f32"));
    if (p)
        set(&o, "frames_sha256", json_string(p->frames_sha256));
    if (p && gv_shortcuts_on(&job->shortcuts))
        set(&o, "receipt", gv_receipt_json(job, &p->receipt));
    if (p && p->note)
        set(&o, "note", gv_note_json(p->note));
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(o);
    return text;
}

/* ---- what a file says ------------------------------------------------------------------------------------------------- */

/* Only an object that says that it is one; any other comment is somebody else's. */
static json_t *recipe_of(const char *comment)
{
    json_t *o = comment ? json_loads(comment, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (json_is_object(o) && (json_is_integer(json_object_get(o, "recipe")) || json_is_string(json_object_get(o, "genvid"))))
        return o;
    json_decref(o);
    return json_null();
}

gv_status gv_probe_json(char **out, const char *path, struct error *e)
{
    struct media_info m;
    *out = NULL;
    TRY(gv_media_info_read(&m, path, e));
    json_t *o = json_pack("{s:s, s:i, s:i, s:f, s:f, s:s, s:s}", "kind", m.kind, "width", m.width, "height", m.height, "fps",
                          m.fps, "seconds", m.seconds, "codec", m.codec, "sound", m.sound);
    set(&o, "recipe", recipe_of(m.comment));
    gv_media_info_close(&m);
    *out = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(o);
    return *out ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "no memory for what %s says", path);
}
