#include "pipelines/calibration.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/safetensors.h"

enum { VERSION = 1, PATH_BYTES = 4096 };
enum { AT_VERSION, AT_LAYERS, AT_HEADS, AT_STEPS, AT_T, AT_H, AT_W, AT_PASSES, N_NUMBERS };
enum { NUMBERS, BITMAP, FRESH, RATIO, N_ENTRIES };
static const char *const names[N_ENTRIES] = { "numbers", "bitmap", "fresh", "ratio" };

void gv_calibration_free(struct calibration *c)
{
    if (!c)
        return;
    free(c->ratio);
    free(c->bitmap);
    free(c->fresh);
    free(c);
}

/* MODEL/genvid.calibration.safetensors, or beside MODEL where that is a file. */
static gv_status path_of(const char *model, char *path, size_t room, struct error *e)
{
    static const char name[] = "genvid.calibration.safetensors";
    struct stat       st;
    const char       *slash = strrchr(model, '/');
    const bool        folder = stat(model, &st) == 0 && S_ISDIR(st.st_mode);
    const int         n = folder ? snprintf(path, room, "%s/%s", model, name)
                                 : snprintf(path, room, "%.*s%s", slash ? (int)(slash + 1 - model) : 0, model, name);

    return n > 0 && (size_t)n < room ? GV_OK : gv_fail(e, GV_ERR_ARGUMENT, "%s: the path is too long", model);
}

/* ---- reading ---- */

static gv_status wrong(const char *path, const char *what, struct error *e)
{
    return gv_fail(e, GV_ERR_MODEL, "%s: %s; genvid calibrate makes a new one", path, what);
}

/* An entry of exactly n elements of a type, copied; *out stays NULL where it is not there. */
static gv_status take(void **out, const struct tensor_file *f, const char *name, enum dtype type, int64_t n, struct error *e)
{
    const struct st_entry *t = gv_tensor_file_find(f, name);

    if (!t)
        return GV_OK;
    if (n <= 0 || t->type != type || t->bytes != gv_dtype_bytes(type, n))
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s does not fit its numbers; genvid calibrate makes a new one", f->path,
                       name);
    *out = malloc(t->bytes);
    if (!*out)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for %s of %s", name, f->path);
    memcpy(*out, t->data, t->bytes);
    return GV_OK;
}

static gv_status take_numbers(struct calibration *c, const struct tensor_file *f, int layers, int heads, struct error *e)
{
    static const int64_t   most[N_NUMBERS] = { VERSION, 1024, 1024, 1000, 1 << 16, 1 << 16, 1 << 16, 1001 };
    const struct st_entry *t = gv_tensor_file_find(f, names[NUMBERS]);
    int64_t                n[N_NUMBERS];

    if (!t || t->type != GV_I64 || t->bytes != sizeof n)
        return wrong(f->path, "it holds no calibration", e);
    memcpy(n, t->data, sizeof n);
    for (int i = 0; i < N_NUMBERS; i++)
        if (n[i] < 0 || n[i] > most[i])
            return wrong(f->path, "its numbers are out of range", e);
    if (n[AT_VERSION] != VERSION || n[AT_LAYERS] != layers || n[AT_HEADS] != heads)
        return wrong(f->path, "it belongs to another model", e);
    const int64_t tokens = n[AT_T] * n[AT_H] * n[AT_W];
    if (tokens > 1 << 22)
        return wrong(f->path, "its clip has too many tokens", e);
    c->attention = (struct attn_calibration){ .steps = (int)n[AT_STEPS],
                                              .layers = layers,
                                              .heads = heads,
                                              .grid = { (int)n[AT_T], (int)n[AT_H], (int)n[AT_W] },
                                              .tiles = (int)((tokens + GV_TILE_Q - 1) / GV_TILE_Q),
                                              .blocks = (int)((tokens + GV_KV_BLOCK - 1) / GV_KV_BLOCK),
                                              .passes = (int)n[AT_PASSES] };
    return GV_OK;
}

static int64_t bitmap_words(const struct attn_calibration *a)
{
    return (int64_t)a->steps * a->layers * a->heads * a->tiles * ((a->blocks + 31) / 32);
}

static int64_t fresh_bytes(const struct attn_calibration *a)
{
    return (int64_t)a->passes * a->layers * a->heads;
}

static gv_status take_ratios(struct calibration *c, const struct tensor_file *f, struct error *e)
{
    const struct st_entry *t = gv_tensor_file_find(f, names[RATIO]);
    void                  *ratio = NULL;
    const int64_t          n = t && t->rank == 1 && t->dim[0] <= 1000 ? t->dim[0] : 0;

    TRY(take(&ratio, f, names[RATIO], GV_F64, n, e));
    c->ratio = ratio;
    c->n_ratio = ratio ? (int)n : 0;
    for (int i = 0; i < c->n_ratio; i++)
        if (!(c->ratio[i] > 0.01 && c->ratio[i] < 100))
            return wrong(f->path, "its ratios are out of range", e);
    return GV_OK;
}

static gv_status take_all(struct calibration *c, const struct tensor_file *f, int layers, int heads, struct error *e)
{
    void *bitmap = NULL, *fresh = NULL;

    TRY(take_numbers(c, f, layers, heads, e));
    TRY(take(&bitmap, f, names[BITMAP], GV_I32, bitmap_words(&c->attention), e));
    c->attention.bitmap = c->bitmap = bitmap;
    TRY(take(&fresh, f, names[FRESH], GV_U8, fresh_bytes(&c->attention), e));
    c->attention.fresh = c->fresh = fresh;
    return take_ratios(c, f, e);
}

gv_status gv_calibration_read(struct calibration **out, const char *model, int layers, int heads, struct error *e)
{
    char               path[PATH_BYTES];
    struct stat        st;
    struct tensor_file f;

    *out = NULL;
    TRY(path_of(model, path, sizeof path, e));
    if (stat(path, &st) != 0 && errno == ENOENT)
        return GV_OK;
    TRY(gv_tensor_file_open(&f, path, &gv_file_safetensors, e));
    gv_status status = GV_OK;
    *out = calloc(1, sizeof **out);
    if (!*out)
        status = gv_fail(e, GV_ERR_MEMORY, "no memory for a calibration");
    else
        status = take_all(*out, &f, layers, heads, e);
    gv_tensor_file_close(&f);
    if (status) {
        gv_calibration_free(*out);
        *out = NULL;
    }
    return status;
}

/* ---- writing ---- */

static struct st_entry entry_of(int which, enum dtype type, int64_t n, const void *data)
{
    return (struct st_entry){ .name = (char *)(uintptr_t)names[which],
                              .type = type,
                              .rank = 1,
                              .dim = { n },
                              .data = data,
                              .bytes = gv_dtype_bytes(type, n) };
}

/* Written beside its name first, so that a reader never sees half of it. */
static gv_status write_beside(const char *path, const struct st_entry *entry, int n, struct error *e)
{
    char part[PATH_BYTES + 8];

    snprintf(part, sizeof part, "%s.part", path);
    gv_status status = gv_safetensors_write(part, entry, n, e);
    if (!status && rename(part, path) != 0)
        status = gv_fail(e, GV_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    if (status)
        remove(part);
    return status;
}

gv_status gv_calibration_write(const struct calibration *c, const char *model, char *path, size_t room, struct error *e)
{
    struct calibration           *old = NULL;
    const struct attn_calibration mine = c->attention;

    TRY(path_of(model, path, room, e));
    struct error none = { 0 }; /* what cannot be read is written anew */
    gv_calibration_read(&old, model, mine.layers, mine.heads, &none);
    const bool                    clip = c->bitmap || !old, causal = c->fresh || !old;
    const struct attn_calibration w = clip ? mine : old->attention, b = causal ? mine : old->attention;
    const uint32_t               *bitmap = clip ? c->bitmap : old->bitmap;
    const uint8_t                *fresh = causal ? c->fresh : old->fresh;
    const double                 *ratio = c->ratio || !old ? c->ratio : old->ratio;
    const int                     n_ratio = c->ratio || !old ? c->n_ratio : old->n_ratio;
    const int64_t numbers[N_NUMBERS] = { VERSION, mine.layers, mine.heads, w.steps, w.grid[0], w.grid[1], w.grid[2], b.passes };
    struct st_entry entry[N_ENTRIES];
    int             n = 0;
    entry[n++] = entry_of(NUMBERS, GV_I64, N_NUMBERS, numbers);
    if (bitmap)
        entry[n++] = entry_of(BITMAP, GV_I32, bitmap_words(&w), bitmap);
    if (fresh)
        entry[n++] = entry_of(FRESH, GV_U8, fresh_bytes(&b), fresh);
    if (ratio)
        entry[n++] = entry_of(RATIO, GV_F64, n_ratio, ratio);
    const gv_status status = write_beside(path, entry, n, e);
    gv_calibration_free(old);
    return status;
}
