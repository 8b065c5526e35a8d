#include "io/weights.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/json.h"
#include "io/safetensors.h"
#include "io/sha256.h"

/* ---- checkpoint: one file or shards ---- */

enum { MAX_SHARDS = 1000, MAX_INDEX_BYTES = 64 << 20 };

struct checkpoint {
    char              *path; /* of the single file or the index */
    atomic_int         users;
    const char        *prefix; /* of every name in the files; static */
    gv_name_map        map;    /* NULL: the names are ours */
    int                map_param;
    int                n;
    struct tensor_file shard[];
};

static gv_status open_shards(struct checkpoint *c, const char *dir, json_t *names, struct error *e)
{
    const char *name;
    json_t     *unused;
    json_object_foreach (names, name, unused) {
        char path[4096];
        if (strchr(name, '/') || (size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
            return gv_fail(e, GV_ERR_MODEL, "%s: shard name \"%s\" is not a file of the same folder", c->path, name);
        struct stat info;
        if (stat(path, &info))
            return gv_fail(e, GV_ERR_MODEL, "%s lists the shard %s, which is not there", c->path, name);
        TRY(gv_tensor_file_open(&c->shard[c->n], path, NULL, e));
        c->n++;
    }
    return GV_OK;
}

/* The set of shard names in an index's weight_map. NULL and an error if there is none. */
static json_t *shard_names(const char *path, struct error *e)
{
    json_t *root, *names = json_object(), *v;
    if (gv_json_load(path, MAX_INDEX_BYTES, &root, e)) {
        json_decref(names);
        return NULL;
    }
    json_t     *map = json_object_get(root, "weight_map");
    const char *tensor;
    if (!json_is_object(map))
        gv_fail(e, GV_ERR_MODEL, "%s: weight_map is not an object", path);
    json_object_foreach (map, tensor, v) {
        if (json_is_string(v))
            json_object_set_new(names, json_string_value(v), json_true());
        else
            gv_fail(e, GV_ERR_MODEL, "%s: the value of %s is not the name of a shard", path, tensor);
    }
    json_decref(root);
    size_t n = json_object_size(names);
    if (n == 0 || n > MAX_SHARDS)
        gv_fail(e, GV_ERR_MODEL, "%s names %zu shards; 1 to %d are usable", path, n, MAX_SHARDS);
    if (e->code) {
        json_decref(names);
        return NULL;
    }
    return names;
}

static struct checkpoint *checkpoint_new(const char *path, size_t shards, struct error *e)
{
    struct checkpoint *c = calloc(1, sizeof *c + shards * sizeof c->shard[0]);
    if (!c || !(c->path = strdup(path))) {
        free(c);
        gv_fail(e, GV_ERR_MEMORY, "no memory to open %s", path);
        return NULL;
    }
    atomic_init(&c->users, 1);
    c->prefix = "";
    return c;
}

gv_status gv_checkpoint_open(struct checkpoint **out, const char *dir, const char *stem, struct error *e)
{
    *out = NULL;
    char        path[4096];
    struct stat info;
    gv_status   status;
    if ((size_t)snprintf(path, sizeof path, "%s/%s.safetensors.index.json", dir, stem) >= sizeof path)
        return gv_fail(e, GV_ERR_IO, "%s: the path is too long", dir);
    struct checkpoint *c = NULL;
    if (!stat(path, &info)) {
        json_t *names = shard_names(path, e);
        if (!names)
            return e->code;
        c = checkpoint_new(path, json_object_size(names), e);
        status = c ? open_shards(c, dir, names, e) : GV_ERR_MEMORY;
        json_decref(names);
    } else {
        snprintf(path, sizeof path, "%s/%s.safetensors", dir, stem);
        if (stat(path, &info))
            return gv_fail(e, GV_ERR_MODEL, "%s holds neither %s.safetensors nor %s.safetensors.index.json", dir, stem, stem);
        c = checkpoint_new(path, 1, e);
        status = c ? gv_tensor_file_open(&c->shard[0], path, NULL, e) : GV_ERR_MEMORY;
        if (!status)
            c->n = 1;
    }
    if (status)
        gv_checkpoint_close(&c);
    *out = c;
    return status;
}

gv_status gv_checkpoint_open_file(struct checkpoint **out, const char *path, struct error *e)
{
    struct checkpoint *c = *out = checkpoint_new(path, 1, e);
    gv_status          status = c ? gv_tensor_file_open(&c->shard[0], path, NULL, e) : GV_ERR_MEMORY;
    if (status && c)
        gv_checkpoint_close(out);
    else if (!status)
        c->n = 1;
    return status;
}

struct checkpoint *gv_checkpoint_share(struct checkpoint *c)
{
    atomic_fetch_add(&c->users, 1);
    return c;
}

void gv_checkpoint_close(struct checkpoint **c)
{
    if (!*c)
        return;
    if (atomic_fetch_sub(&(*c)->users, 1) > 1) {
        *c = NULL;
        return;
    }
    for (int i = 0; i < (*c)->n; i++)
        gv_tensor_file_close(&(*c)->shard[i]);
    free((*c)->path);
    free(*c);
    *c = NULL;
}

static const struct st_entry *find_stored(const struct checkpoint *c, const char *prefix, const char *name)
{
    char full[512];
    if ((size_t)snprintf(full, sizeof full, "%s%s", prefix, name) >= sizeof full)
        return NULL;
    for (int i = 0; i < c->n; i++) {
        const struct st_entry *t = gv_tensor_file_find(&c->shard[i], full);
        if (t)
            return t;
    }
    return NULL;
}

/* The tensor that holds ours, and which part of its rows. */
static const struct st_entry *find_named(const struct checkpoint *c, const char *name, struct stored_name *as)
{
    as->part = 0;
    as->parts = 1;
    const struct st_entry *t = find_stored(c, c->prefix, name);
    return t || !c->map || !c->map(as, name, c->map_param) ? t : find_stored(c, c->prefix, as->text);
}

const struct st_entry *gv_checkpoint_find(const struct checkpoint *c, const char *name)
{
    struct stored_name as;
    return find_named(c, name, &as);
}

void gv_checkpoint_rename(struct checkpoint *c, gv_name_map map, int param)
{
    c->map = map;
    c->map_param = param;
}

bool gv_checkpoint_strip(struct checkpoint *c, const char *probe)
{
    /* ComfyUI's, the VAE's and text encoder's of single files, and trainers': of two generators, the averaged one */
    static const char *const prefixes[] = { "",
                                            "model.diffusion_model.",
                                            "diffusion_model.",
                                            "first_stage_model.",
                                            "vae.",
                                            "text_encoders.umt5xxl.transformer.",
                                            "generator_ema.model.",
                                            "generator_ema.",
                                            "generator.model.",
                                            "generator.",
                                            "model." };
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (find_stored(c, prefixes[i], probe)) {
            c->prefix = prefixes[i];
            return true;
        }
    return false;
}

const char *gv_checkpoint_path(const struct checkpoint *c)
{
    return c->path;
}

size_t gv_checkpoint_bytes(const struct checkpoint *c)
{
    size_t n = 0;
    for (int i = 0; i < c->n; i++)
        n += c->shard[i].map_bytes;
    return n;
}

/* ---- weights: layers of bound rows ---- */

struct bound {
    struct st_entry  source; /* or the rows of it that are meant */
    float            scale;  /* of an F8 tensor */
    size_t           offset; /* of the struct tensor in its layer */
    enum weight_form form;
    size_t           bytes; /* on the device; 0: used where it is mapped */
};

struct layer {
    void         *base;
    struct bound *row;
    int           n;
    size_t        bytes;
    void         *memory; /* the device's copy; NULL when not resident */
};

struct weights {
    struct checkpoint *checkpoint;
    struct device     *device;
    enum dtype         compute;
    struct layer      *layer;
    int                n_layers;
    int                pins;
    pthread_mutex_t    lock;
};

gv_status gv_weights_open(struct weights **out, struct checkpoint *c, struct device *d, enum dtype compute, struct error *e)
{
    struct weights *w = *out = calloc(1, sizeof *w);
    if (!w)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a table of weights");
    w->checkpoint = gv_checkpoint_share(c);
    w->device = d;
    w->compute = compute;
    pthread_mutex_init(&w->lock, NULL);
    return GV_OK;
}

static void hash_entry(struct sha256 *h, const struct st_entry *t, bool full)
{
    enum { SAMPLE = 64 };
    char         head[512];
    const size_t n = full || t->bytes < SAMPLE ? t->bytes : SAMPLE, from = full ? 0 : (t->bytes - n) / 2;
    int          used = snprintf(head, sizeof head, "%.255s %d", t->name, (int)t->type);
    for (int i = 0; i < t->rank; i++)
        used += snprintf(head + used, sizeof head - (size_t)used, " %lld", (long long)t->dim[i]);
    gv_sha256_add(h, head, (size_t)used + 1);
    gv_sha256_add(h, (const char *)t->data + from, n);
}

/* Each shard is sorted by name; together they are merged. */
void gv_weights_hash(const struct weights *w, bool full, char out[65])
{
    const struct checkpoint *c = w->checkpoint;
    int                      at[MAX_SHARDS] = { 0 };
    struct sha256            h;
    gv_sha256_open(&h);
    for (;;) {
        int first = -1;
        for (int i = 0; i < c->n; i++)
            if (at[i] < c->shard[i].n &&
                (first < 0 || strcmp(c->shard[i].entry[at[i]].name, c->shard[first].entry[at[first]].name) < 0))
                first = i;
        if (first < 0)
            break;
        hash_entry(&h, &c->shard[first].entry[at[first]++], full);
    }
    gv_sha256_hex(&h, out);
}

size_t gv_weights_file_bytes(const struct weights *w)
{
    return gv_checkpoint_bytes(w->checkpoint);
}

static struct tensor *field(void *base, const struct bound *b)
{
    return (struct tensor *)(void *)((char *)base + b->offset);
}

static void layer_release(struct weights *w, struct layer *l)
{
    if (!l->memory)
        return;
    gv_device_free(w->device, l->memory, l->bytes);
    l->memory = NULL;
    for (int i = 0; i < l->n; i++)
        field(l->base, &l->row[i])->data = NULL;
}

void gv_weights_close(struct weights **out)
{
    struct weights *w = *out;
    if (!w)
        return;
    for (int i = 0; i < w->n_layers; i++) {
        layer_release(w, &w->layer[i]);
        free(w->layer[i].row);
    }
    free(w->layer);
    gv_checkpoint_close(&w->checkpoint);
    pthread_mutex_destroy(&w->lock);
    free(w);
    *out = NULL;
}

/* ---- bind ---- */

static void wanted_shape(const struct weight_row *row, const int64_t *sizes, int64_t *dim)
{
    for (int i = 0; i < row->rank; i++)
        dim[i] = row->dim[i] > 0 ? sizes[row->dim[i]] : -(int64_t)row->dim[i];
}

/* Equal shapes; a vector may carry sizes of one around it ([C] and [C, 1, 1, 1], [1, 6, D] and [6, D]). */
static bool shape_fits(const struct st_entry *t, int rank, const int64_t *dim, enum weight_form form)
{
    if (form != FORM_VECTOR) {
        if (t->rank != rank)
            return false;
        return !memcmp(t->dim, dim, (size_t)rank * sizeof *dim);
    }
    int i = 0, k = 0;
    for (;;) {
        while (i < t->rank && t->dim[i] == 1)
            i++;
        while (k < rank && dim[k] == 1)
            k++;
        if (i == t->rank || k == rank)
            return i == t->rank && k == rank;
        if (t->dim[i++] != dim[k++])
            return false;
    }
}

/* The tensor that the row will be on the device: its final shape and type, no data yet. */
static struct tensor final_tensor(const struct weights *w, const struct st_entry *t, enum weight_form form)
{
    int64_t dim[5] = { 1, 1, 1, 1, 1 }, count = 1;
    for (int i = 0; i < t->rank; i++)
        count *= t->dim[i];
    switch (form) {
    case FORM_VECTOR: dim[0] = count; return gv_tensor(NULL, GV_F32, 1, dim);
    case FORM_TABLE: return gv_tensor(NULL, t->type == GV_F8E4M3 ? GV_F32 : t->type, 2, t->dim);
    case FORM_LINEAR:
    case FORM_LINEAR_F32:
        dim[0] = t->dim[0], dim[1] = t->dim[0] ? count / t->dim[0] : 0;
        return gv_tensor(NULL, form == FORM_LINEAR ? w->compute : GV_F32, 2, dim);
    case FORM_CONV:
        dim[0] = t->dim[0], dim[4] = t->dim[1];
        dim[1] = t->rank == 5 ? t->dim[2] : 1;
        dim[2] = t->dim[t->rank - 2], dim[3] = t->dim[t->rank - 1];
        return gv_tensor(NULL, w->compute, 5, dim);
    }
    return (struct tensor){ 0 };
}

static enum weight_use use_of(enum weight_form form)
{
    return form == FORM_LINEAR || form == FORM_LINEAR_F32 ? WEIGHT_LINEAR : form == FORM_CONV ? WEIGHT_CONV : WEIGHT_PLAIN;
}

static size_t aligned(size_t bytes)
{
    return (bytes + GV_ALIGN - 1) / GV_ALIGN * GV_ALIGN;
}

static gv_status misfit(const struct weights *w, const struct st_entry *t, const char *name, int rank, const int64_t *dim,
                        struct error *e)
{
    char want[64], found[64];
    gv_tensor_shape_text(gv_tensor(NULL, GV_F32, rank, dim), want, sizeof want);
    struct tensor f = { .rank = (int8_t)(t->rank < GV_MAX_RANK ? t->rank : GV_MAX_RANK) };
    memcpy(f.dim, t->dim, sizeof f.dim);
    return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s is %s, wanted %s", gv_checkpoint_path(w->checkpoint), name,
                   gv_tensor_shape_text(f, found, sizeof found), want);
}

/* One of `parts` equal runs of rows. */
static struct st_entry rows_of(const struct st_entry *t, const struct stored_name *as)
{
    struct st_entry v = *t;
    if (as->parts > 1 && t->rank && t->dim[0] % as->parts == 0) {
        v.dim[0] /= as->parts;
        v.bytes /= (size_t)as->parts;
        v.data = (const unsigned char *)t->data + (size_t)as->part * v.bytes;
    }
    return v;
}

/* Scaled F8 files keep a number beside each weight: NAME.scale_weight, for values of NAME.weight. Plain ones have none. */
static gv_status read_scale(const struct weights *w, const struct st_entry *t, float *scale, struct error *e)
{
    static const char suffix[] = ".weight";
    size_t            n = strlen(t->name), stem = n - (sizeof suffix - 1);
    char              name[512];
    *scale = 1;
    if (t->type != GV_F8E4M3 || n < sizeof suffix || strcmp(t->name + stem, suffix) || n + 16 > sizeof name)
        return GV_OK;
    snprintf(name, sizeof name, "%.*s.scale_weight", (int)stem, t->name);
    const struct st_entry *s = find_stored(w->checkpoint, "", name);
    if (!s)
        return GV_OK;
    if (s->type != GV_F32 || s->bytes != sizeof *scale)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s: tensor %s is not one F32 number", gv_checkpoint_path(w->checkpoint), name);
    memcpy(scale, s->data, sizeof *scale);
    return GV_OK;
}

static gv_status bind_row(struct weights *w, struct layer *l, const char *prefix, const struct weight_row *row,
                          const int64_t *sizes, struct error *e)
{
    char    name[512];
    int64_t dim[5];
    snprintf(name, sizeof name, "%s%s", prefix, row->name);
    wanted_shape(row, sizes, dim);
    struct tensor         *out = (struct tensor *)(void *)((char *)l->base + row->offset);
    struct stored_name     as;
    const struct st_entry *t = find_named(w->checkpoint, name, &as);
    *out = (struct tensor){ 0 };
    if (!t && row->optional)
        return GV_OK;
    if (!t) {
        char want[64];
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s is missing, wanted %s", gv_checkpoint_path(w->checkpoint), name,
                       gv_tensor_shape_text(gv_tensor(NULL, GV_F32, row->rank, dim), want, sizeof want));
    }
    const struct st_entry view = rows_of(t, &as);
    t = &view;
    if (!shape_fits(t, row->rank, dim, row->form))
        return misfit(w, t, name, row->rank, dim, e);
    if (t->type != GV_F32 && t->type != GV_BF16 && t->type != GV_F16 && t->type != GV_F8E4M3)
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s has type %s; F32, BF16, F16 and F8_E4M3 are read",
                       gv_checkpoint_path(w->checkpoint), name, gv_dtype_info(t->type)->name);
    *out = final_tensor(w, t, row->form);
    struct bound *b = &l->row[l->n++];
    *b = (struct bound){ .source = view, .offset = row->offset, .form = row->form };
    TRY(read_scale(w, t, &b->scale, e));
    b->bytes = aligned(w->device->ops->prepared_bytes(w->device, out, use_of(row->form)));
    l->bytes += b->bytes;
    return GV_OK;
}

/* A new layer, or the last one again when the same struct is bound in several goes. */
static struct layer *layer_for(struct weights *w, void *base)
{
    if (w->n_layers && w->layer[w->n_layers - 1].base == base)
        return &w->layer[w->n_layers - 1];
    struct layer *grown = realloc(w->layer, ((size_t)w->n_layers + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    w->layer = grown;
    w->layer[w->n_layers] = (struct layer){ .base = base };
    return &w->layer[w->n_layers++];
}

gv_status gv_weights_bind(struct weights *w, const char *prefix, const struct weight_row *rows, int n, const int64_t *sizes,
                          void *base, struct error *e)
{
    struct layer *l = layer_for(w, base);
    struct bound *grown = l ? realloc(l->row, (size_t)(l->n + n) * sizeof *grown) : NULL;
    if (!grown)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a table of weights");
    l->row = grown;
    for (int i = 0; i < n; i++)
        TRY(bind_row(w, l, prefix, &rows[i], sizes, e));
    return GV_OK;
}

/* ---- upload ---- */

/* [O, C, kt, kh, kw] → [O, kt, kh, kw, C], elements of `bytes`. */
static void conv_to_channels_last(unsigned char *dst, const unsigned char *src, const struct tensor *w, size_t bytes)
{
    int64_t taps = w->dim[1] * w->dim[2] * w->dim[3], channels = w->dim[4];
    for (int64_t o = 0; o < w->dim[0]; o++)
        for (int64_t k = 0; k < taps; k++)
            for (int64_t c = 0; c < channels; c++, dst += bytes)
                memcpy(dst, src + (size_t)((o * channels + c) * taps + k) * bytes, bytes);
}

/* E4M3: no infinities; all ones is NaN. */
static float from_f8(unsigned char v)
{
    int   exponent = v >> 3 & 15, fraction = v & 7;
    float x = exponent ? ldexpf((float)(8 + fraction), exponent - 10) : ldexpf((float)fraction, -9);
    if ((v & 127) == 127)
        x = NAN;
    return v & 128 ? -x : x;
}

static void expand_f8(float *dst, const unsigned char *src, size_t n, float scale)
{
    float value[256];
    for (int i = 0; i < 256; i++)
        value[i] = from_f8((unsigned char)i) * scale;
    for (size_t i = 0; i < n; i++)
        dst[i] = value[src[i]];
}

static gv_status prepare_row(const struct weights *w, const struct bound *b, struct tensor *out, void *memory, struct error *e)
{
    struct tensor src = *out, want = *out;
    const bool    f8 = b->source.type == GV_F8E4M3;
    const size_t  bytes = b->source.bytes * (f8 ? sizeof(float) : 1);
    void         *expanded = f8 ? malloc(bytes + 1) : NULL, *reordered = b->form == FORM_CONV ? malloc(bytes + 1) : NULL;
    gv_status     status = GV_OK;
    src.type = f8 ? GV_F32 : b->source.type;
    src.data = (void *)(uintptr_t)b->source.data; /* read only */
    src.packed = false;
    if ((f8 && !expanded) || (b->form == FORM_CONV && !reordered))
        status = gv_fail(e, GV_ERR_MEMORY, "no memory to convert tensor %s", b->source.name);
    if (!status && f8) {
        expand_f8(expanded, b->source.data, b->source.bytes, b->scale);
        src.data = expanded;
    }
    if (!status && reordered) {
        conv_to_channels_last(reordered, src.data, &want, (size_t)gv_dtype_info(src.type)->bytes);
        src.data = reordered;
    }
    if (!status)
        status = w->device->ops->prepare(w->device, memory, src, want.type, use_of(b->form), out, e);
    free(expanded);
    free(reordered);
    return status;
}

/* All rows of a layer into memory; the tensors of *base then point there. */
static gv_status prepare_layer(const struct weights *w, const struct layer *l, void *base, void *memory, struct error *e)
{
    unsigned char *at = memory;
    for (int i = 0; i < l->n; i++) {
        TRY(prepare_row(w, &l->row[i], field(base, &l->row[i]), at, e));
        at += l->row[i].bytes;
    }
    return GV_OK;
}

size_t gv_weights_bytes(const struct weights *w)
{
    size_t n = 0;
    for (int i = 0; i < w->n_layers; i++)
        n += w->layer[i].bytes;
    return n;
}

/* The first layer holds what every forward needs; the others may be streamed. */
static int n_resident(const struct weights *w, bool stream)
{
    return stream && w->n_layers ? 1 : w->n_layers;
}

static gv_status upload(const atomic_bool *cancel, struct weights *w, bool stream, struct error *e)
{
    for (int i = 0; i < n_resident(w, stream); i++) {
        struct layer *l = &w->layer[i];
        if (l->memory)
            continue;
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            return gv_fail(e, GV_ERR_CANCELLED, "cancelled");
        TRY(gv_device_alloc(w->device, l->bytes, "weights", &l->memory, e));
        gv_status status = prepare_layer(w, l, l->base, l->memory, e);
        if (status) {
            layer_release(w, l); /* half a layer is no layer to the next user */
            return status;
        }
    }
    return GV_OK;
}

static void release(struct weights *w)
{
    for (int i = 0; i < w->n_layers; i++)
        layer_release(w, &w->layer[i]);
}

static gv_status pin_null(const struct weights *w, struct device *d, bool stream, struct error *e)
{
    void *none;
    for (int i = 0; i < n_resident(w, stream); i++)
        TRY(gv_device_alloc(d, w->layer[i].bytes, "weights", &none, e));
    return GV_OK;
}

gv_status gv_weights_pin(struct weights *w, struct device *d, bool stream, struct error *e)
{
    return gv_weights_pin_unless(NULL, w, d, stream, e);
}

gv_status gv_weights_pin_unless(const atomic_bool *cancel, struct weights *w, struct device *d, bool stream, struct error *e)
{
    if (gv_device_is_null(d))
        return pin_null(w, d, stream, e);
    pthread_mutex_lock(&w->lock);
    gv_status status = upload(cancel, w, stream, e);
    if (!status)
        w->pins++;
    else if (!w->pins)
        release(w);
    pthread_mutex_unlock(&w->lock);
    return status;
}

void gv_weights_unpin(struct weights *w, struct device *d, bool stream, bool drop)
{
    if (gv_device_is_null(d)) {
        for (int i = 0; drop && i < n_resident(w, stream); i++)
            gv_device_free(d, NULL, w->layer[i].bytes);
        return;
    }
    pthread_mutex_lock(&w->lock);
    assert(w->pins > 0);
    if (--w->pins == 0 && drop)
        release(w);
    pthread_mutex_unlock(&w->lock);
}

size_t gv_weights_resident(struct weights *w, bool idle)
{
    size_t n = 0;
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->n_layers && !(idle && w->pins); i++)
        n += w->layer[i].memory ? w->layer[i].bytes : 0;
    pthread_mutex_unlock(&w->lock);
    return n;
}

void gv_weights_drop(struct weights *w)
{
    pthread_mutex_lock(&w->lock);
    if (!w->pins)
        release(w);
    pthread_mutex_unlock(&w->lock);
}

static const struct layer *layer_of(const struct weights *w, const void *base)
{
    for (int i = 0; i < w->n_layers; i++)
        if (w->layer[i].base == base)
            return &w->layer[i];
    return NULL;
}

const void *gv_weights_fetch(struct run *r, struct weights *w, const void *base, void *copy, size_t bytes)
{
    const struct layer *l = layer_of(w, base);
    assert(l);
    if (!r->stream_weights)
        return base;
    pthread_mutex_lock(&w->lock);
    bool resident = l->memory;
    memcpy(copy, base, bytes);
    pthread_mutex_unlock(&w->lock);
    if (resident && !gv_device_is_null(r->device))
        return base;
    void *memory = gv_scratch_bytes(r, l->bytes);
    if (gv_run_ready(r) && !gv_device_is_null(r->device))
        prepare_layer(w, l, copy, memory, &r->err);
    return copy;
}
