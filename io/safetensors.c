#include "io/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool dtype_by_name(const char *name, enum dtype *out)
{
    for (int i = 0; i < GV_DTYPES; i++)
        if (!strcmp(gv_dtype_info((enum dtype)i)->name, name)) {
            *out = (enum dtype)i;
            return true;
        }
    return false;
}

/* ---- one entry of the header ---- */

static gv_status read_shape(struct tensor_file *st, struct st_entry *t, json_t *shape, struct error *e)
{
    if (!json_is_array(shape) || json_array_size(shape) > GV_ST_RANK)
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s: shape is not a list of at most %d sizes", st->path, t->name, GV_ST_RANK);
    t->rank = (int)json_array_size(shape);
    struct st_entry size = { .type = t->type };
    for (int i = 0; i < t->rank; i++) {
        json_t *d = json_array_get(shape, (size_t)i);
        size.dim[i] = json_integer_value(d);
        size.rank = i + 1;
        if (!json_is_integer(d) || !gv_st_entry_size(&size))
            return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s: size %d of its shape is not usable", st->path, t->name, i);
    }
    gv_st_entry_size(&size);
    memcpy(t->dim, size.dim, sizeof t->dim);
    t->bytes = size.bytes;
    return GV_OK;
}

static gv_status read_entry(struct tensor_file *st, struct st_entry *t, const char *name, json_t *v, size_t data_at,
                            struct error *e)
{
    if (!(t->name = strdup(name)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the header of %s", st->path);
    const char *type = json_string_value(json_object_get(v, "dtype"));
    if (!type || !dtype_by_name(type, &t->type))
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s: type %s is not known", st->path, name, type ? type : "(none)");
    TRY(read_shape(st, t, json_object_get(v, "shape"), e));
    json_t    *at = json_object_get(v, "data_offsets"), *from = json_array_get(at, 0), *to = json_array_get(at, 1);
    json_int_t lo = json_integer_value(from), hi = json_integer_value(to);
    if (json_array_size(at) != 2 || !json_is_integer(from) || !json_is_integer(to) || lo < 0 || hi < lo)
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s: data_offsets is not [begin, end]", st->path, name);
    if ((uint64_t)hi > st->map_bytes - data_at)
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s ends at byte %lld of %zu: the file is truncated", st->path, name, (long long)hi,
                       st->map_bytes - data_at);
    if ((uint64_t)(hi - lo) != t->bytes)
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s: its shape needs %zu bytes, data_offsets give %lld", st->path, name, t->bytes,
                       (long long)(hi - lo));
    t->data = (const unsigned char *)st->map + data_at + lo;
    return GV_OK;
}

/* ---- checks over all entries ---- */

static int by_data(const void *a, const void *b)
{
    const struct st_entry *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* an empty tensor may share its place with the next one */
}

static gv_status check_overlap(struct tensor_file *st, struct error *e)
{
    qsort(st->entry, (size_t)st->n, sizeof *st->entry, by_data);
    for (int i = 1; i < st->n; i++) {
        const struct st_entry *a = &st->entry[i - 1], *b = &st->entry[i];
        if ((const unsigned char *)a->data + a->bytes > (const unsigned char *)b->data)
            return gv_fail(e, GV_ERR_MODEL, "%s: tensors %s and %s overlap", st->path, a->name, b->name);
    }
    return gv_tensor_file_sort(st, e);
}

static gv_status read_header(struct tensor_file *st, json_t *root, size_t data_at, struct error *e)
{
    size_t n = json_object_size(root);
    if (!json_is_object(root) || n > GV_ST_TENSORS)
        return gv_fail(e, GV_ERR_MODEL, "%s: its header is not an object of at most %d tensors", st->path, GV_ST_TENSORS);
    st->entry = calloc(n + 1, sizeof *st->entry);
    if (!st->entry)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the header of %s", st->path);
    const char *name;
    json_t     *v;
    json_object_foreach (root, name, v) {
        if (!strcmp(name, "__metadata__"))
            continue;
        TRY(read_entry(st, &st->entry[st->n++], name, v, data_at, e));
    }
    return check_overlap(st, e);
}

/* A header that is a JSON object: nothing else begins so. */
static bool is_safetensors(const unsigned char *bytes, size_t n)
{
    return n > 8 && bytes[8] == '{';
}

static gv_status read_file(struct tensor_file *st, struct error *e)
{
    const unsigned char *p = st->map;
    uint64_t             header = 0;
    for (int i = 7; i >= 0; i--)
        header = header << 8 | p[i];
    if (header > GV_ST_HEADER_BYTES || header > st->map_bytes - 8)
        return gv_fail(e, GV_ERR_MODEL, "%s: its header claims %llu bytes; the file has %zu (limit %d MiB)", st->path,
                       (unsigned long long)header, st->map_bytes - 8, GV_ST_HEADER_BYTES >> 20);
    json_error_t why;
    json_t      *root = json_loadb((const char *)p + 8, (size_t)header, JSON_REJECT_DUPLICATES, &why);
    if (!root && json_error_code(&why) == json_error_out_of_memory)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the header of %s", st->path);
    gv_status status = root ? read_header(st, root, 8 + (size_t)header, e)
                            : gv_fail(e, GV_ERR_MODEL, "%s: its header is not valid JSON: %s", st->path, why.text);
    json_decref(root);
    return status;
}

const struct tensor_file_kind gv_file_safetensors = { "safetensors", is_safetensors, read_file };

/* ---- writing ---- */

/* NULL when memory ran out. */
static char *header_text(const struct st_entry *entry, int n)
{
    json_t *root = json_object();
    size_t  at = 0;
    int     failed = 0;
    for (int i = 0; i < n; i++) {
        json_t *shape = json_array();
        for (int k = 0; k < entry[i].rank; k++)
            failed |= json_array_append_new(shape, json_integer(entry[i].dim[k]));
        failed |= json_object_set_new(root, entry[i].name,
                                      json_pack("{s:s, s:o, s:[I, I]}", "dtype", gv_dtype_info(entry[i].type)->name, "shape",
                                                shape, "data_offsets", (json_int_t)at, (json_int_t)(at + entry[i].bytes)));
        at += entry[i].bytes;
    }
    char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

gv_status gv_safetensors_write(const char *path, const struct st_entry *entry, int n, struct error *e)
{
    char *text = header_text(entry, n);
    if (!text)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the header of %s", path);
    FILE         *f = fopen(path, "wb");
    size_t        used = strlen(text), padded = (used + 7) / 8 * 8;
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    bool good = f && fwrite(size, 1, 8, f) == 8 && fwrite(text, 1, used, f) == used;
    for (size_t i = used; good && i < padded; i++)
        good = fputc(' ', f) != EOF;
    for (int i = 0; good && i < n; i++)
        good = fwrite(entry[i].data, 1, entry[i].bytes, f) == entry[i].bytes;
    free(text);
    if (f && fclose(f))
        good = false;
    return good ? GV_OK : gv_fail(e, GV_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
}
