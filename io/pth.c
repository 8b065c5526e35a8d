/* PyTorch's .pth, .pt and .ckpt as tensors in a map: what torch.save has written since 1.6.
 *
 *   zip, every entry stored:   NAME/data.pkl     a pickle: names, shapes, and which storage holds what (io/pickle.h)
 *                              NAME/data/0 1 …   storages, raw and little-endian; tensors may share one
 *                              NAME/byteorder    "little"
 *
 * The directory at the end of the zip is what counts; each local header it points to must agree with it. Nothing is unpacked
 * and nothing is executed. Dictionaries inside of dictionaries become prefixes: a training checkpoint's
 * {"generator_ema": {"model.head.bias": …}} is "generator_ema.model.head.bias". Values that are no tensors are passed over.
 * Source: PKWARE APPNOTE 6.3.10 (4.3, 4.5.3), pytorch torch/serialization.py and caffe2/serialize/inline_container.cc. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/pickle.h"

enum { END_BYTES = 22, LOCATOR_BYTES = 20, END64_BYTES = 56, CENTRAL_BYTES = 46, LOCAL_BYTES = 30 };
enum { MAX_RECORDS = 1 << 20, MAX_NAME = 512, MAX_DEPTH = 4, MAX_VISITS = 1 << 22 };

struct record {
    const char          *name; /* into the map; not terminated */
    size_t               name_bytes, bytes;
    const unsigned char *data;
};

struct zip {
    const struct tensor_file *f;
    const unsigned char      *map;
    size_t                    bytes;
    struct error             *e;
    struct record            *record; /* sorted by name */
    size_t                    n;
};

static uint64_t little(const unsigned char *p, int bytes)
{
    uint64_t u = 0;
    for (int i = bytes - 1; i >= 0; i--)
        u = u << 8 | p[i];
    return u;
}

static gv_status broken(const struct zip *z, const char *why)
{
    return gv_fail(z->e, GV_ERR_MODEL, "%s: its zip directory %s", z->f->path, why);
}

/* ---- the directory ---- */

struct directory {
    uint64_t at, bytes, n;
};

/* The end record stands last but for a comment of up to 65535 bytes. */
static gv_status find_end(const struct zip *z, size_t *at)
{
    size_t lowest = z->bytes > END_BYTES + 65535 ? z->bytes - END_BYTES - 65535 : 0;
    for (size_t i = z->bytes < END_BYTES ? 0 : z->bytes - END_BYTES + 1; i > lowest; i--) {
        const unsigned char *p = z->map + i - 1;
        if (little(p, 4) == 0x06054b50 && i - 1 + END_BYTES + little(p + 20, 2) == z->bytes) {
            *at = i - 1;
            return GV_OK;
        }
    }
    return broken(z, "is missing: the file is truncated");
}

static gv_status find_directory(const struct zip *z, struct directory *d)
{
    size_t end = 0;
    TRY(find_end(z, &end));
    const unsigned char *p = z->map + end;
    *d = (struct directory){ .at = little(p + 16, 4), .bytes = little(p + 12, 4), .n = little(p + 10, 2) };
    size_t limit = end;
    if (end >= LOCATOR_BYTES && little(p - LOCATOR_BYTES, 4) == 0x07064b50) { /* ZIP64 */
        uint64_t at = little(p - LOCATOR_BYTES + 8, 8);
        if (end < LOCATOR_BYTES + END64_BYTES || at > end - LOCATOR_BYTES - END64_BYTES || little(z->map + at, 4) != 0x06064b50)
            return broken(z, "has no ZIP64 end where it says so");
        p = z->map + at;
        *d = (struct directory){ .at = little(p + 48, 8), .bytes = little(p + 40, 8), .n = little(p + 32, 8) };
        limit = (size_t)at;
    }
    if (d->at > limit || d->bytes > limit - d->at)
        return broken(z, "lies outside of the file");
    if (d->n > MAX_RECORDS || d->n * CENTRAL_BYTES > d->bytes)
        return broken(z, "counts more entries than it has room for");
    return GV_OK;
}

struct central { /* what both headers of an entry say */
    uint64_t packed, size, local;
};

/* Fields of 0xffffffff stand in the ZIP64 extra field, in this order, and only they. */
static gv_status read_zip64(const struct zip *z, struct central *c, const unsigned char *extra, size_t bytes)
{
    uint64_t *field[] = { &c->size, &c->packed, &c->local };
    while (bytes >= 4) {
        size_t               n = little(extra + 2, 2), at = 0;
        const unsigned char *p = extra + 4;
        if (n > bytes - 4)
            return broken(z, "has an extra field longer than its entry");
        for (int i = 0; little(extra, 2) == 1 && i < 3; i++)
            if (*field[i] == UINT32_MAX) {
                if (n - at < 8)
                    return broken(z, "has a ZIP64 field that is too short");
                *field[i] = little(p + at, 8);
                at += 8;
            }
        extra += 4 + n;
        bytes -= 4 + n;
    }
    return GV_OK;
}

/* The data behind the local header, which must name the same entry. */
static gv_status find_data(const struct zip *z, const struct central *c, const struct directory *d, struct record *r)
{
    if (c->local > d->at || d->at - c->local < LOCAL_BYTES)
        return broken(z, "points to an entry outside of the file");
    const unsigned char *p = z->map + c->local;
    size_t               room = d->at - c->local - LOCAL_BYTES, name = little(p + 26, 2), extra = little(p + 28, 2);
    if (little(p, 4) != 0x04034b50 || name != r->name_bytes || name + extra > room || memcmp(p + LOCAL_BYTES, r->name, name))
        return broken(z, "does not agree with the header of an entry");
    if (c->size > room - name - extra)
        return broken(z, "has an entry that is longer than the file");
    r->data = p + LOCAL_BYTES + name + extra;
    r->bytes = c->size;
    return GV_OK;
}

/* One entry of the directory at *at; moves *at behind it. */
static gv_status read_central(const struct zip *z, const struct directory *d, size_t *at, struct record *r)
{
    const unsigned char *p = z->map + *at;
    size_t               room = d->at + d->bytes - *at;
    if (room < CENTRAL_BYTES || little(p, 4) != 0x02014b50)
        return broken(z, "ends early");
    size_t name = little(p + 28, 2), extra = little(p + 30, 2), comment = little(p + 32, 2);
    if (name + extra + comment > room - CENTRAL_BYTES)
        return broken(z, "has a name that is longer than it");
    struct central c = { .packed = little(p + 20, 4), .size = little(p + 24, 4), .local = little(p + 42, 4) };
    TRY(read_zip64(z, &c, p + CENTRAL_BYTES + name, extra));
    if (!name || name > MAX_NAME || memchr(p + CENTRAL_BYTES, 0, name))
        return broken(z, "has a name that is none");
    r->name = (const char *)p + CENTRAL_BYTES;
    r->name_bytes = name;
    if (little(p + 10, 2) != 0 || c.packed != c.size)
        return broken(z, "has a compressed entry; PyTorch stores them as they are");
    if (little(p + 8, 2) & 1)
        return broken(z, "has an encrypted entry");
    *at += CENTRAL_BYTES + name + extra + comment;
    return find_data(z, &c, d, r);
}

static int compare_names(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int by_name(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    return compare_names(x->name, x->name_bytes, y->name, y->name_bytes);
}

static gv_status read_directory(struct zip *z)
{
    struct directory d;
    TRY(find_directory(z, &d));
    if (!(z->record = calloc((size_t)d.n + 1, sizeof *z->record)))
        return gv_fail(z->e, GV_ERR_MEMORY, "no memory for the directory of %s", z->f->path);
    size_t at = (size_t)d.at;
    for (; z->n < d.n; z->n++)
        TRY(read_central(z, &d, &at, &z->record[z->n]));
    qsort(z->record, z->n, sizeof *z->record, by_name);
    for (size_t i = 1; i < z->n; i++)
        if (!by_name(&z->record[i - 1], &z->record[i]))
            return broken(z, "has one name twice");
    return GV_OK;
}

/* The record PREFIX + rest, or NULL. */
static const struct record *find(const struct zip *z, const char *prefix, size_t prefix_bytes, const char *rest,
                                 size_t rest_bytes)
{
    char   name[2 * MAX_NAME];
    size_t lo = 0, hi = z->n;
    if (prefix_bytes > MAX_NAME || rest_bytes > MAX_NAME)
        return NULL;
    memcpy(name, prefix, prefix_bytes);
    memcpy(name + prefix_bytes, rest, rest_bytes);
    while (lo < hi) {
        size_t               mid = lo + (hi - lo) / 2;
        const struct record *r = &z->record[mid];
        int                  order = compare_names(r->name, r->name_bytes, name, prefix_bytes + rest_bytes);
        if (!order)
            return r;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* The one record NAME/data.pkl. */
static gv_status find_pickle(const struct zip *z, const struct record **out)
{
    static const char tail[] = "/data.pkl";
    size_t            n = sizeof tail - 1;
    *out = NULL;
    for (size_t i = 0; i < z->n; i++) {
        const struct record *r = &z->record[i];
        if (r->name_bytes <= n || memcmp(r->name + r->name_bytes - n, tail, n) || memchr(r->name, '/', r->name_bytes - n))
            continue;
        if (*out)
            return broken(z, "has two entries data.pkl");
        *out = r;
    }
    return *out ? GV_OK : broken(z, "has no entry data.pkl: this is not a file of torch.save");
}

/* ---- from the pickle's dictionaries to entries ---- */

struct collector {
    struct tensor_file  *f;
    struct zip          *z;
    const struct pickle *p;
    const struct record *pickle; /* its name's folder holds the storages */
    int                  room, visits;
    char                 path[MAX_NAME];
};

static gv_status add_tensor(struct collector *c, const struct pickle_tensor *t)
{
    const struct pickle_storage *s = &c->p->storage[t->storage];
    struct error                *e = c->z->e;
    struct st_entry              entry = { .type = s->type, .rank = t->rank };
    size_t folder = c->pickle->name_bytes - strlen("data.pkl"), element = (size_t)gv_dtype_info(s->type)->bytes;
    char   rest[72];
    if (!t->contiguous)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s: tensor %s is not contiguous; save it again after .contiguous()", c->f->path,
                       c->path);
    int                  n = s->key_bytes > 64 ? 0 : snprintf(rest, sizeof rest, "data/%.*s", s->key_bytes, s->key);
    const struct record *data = n ? find(c->z, c->pickle->name, folder, rest, (size_t)n) : NULL;
    if (!data)
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s lies in a storage that is not there", c->f->path, c->path);
    if ((uint64_t)s->count > data->bytes / element || (uint64_t)s->count * element != data->bytes)
        return gv_fail(e, GV_ERR_MODEL, "%s: tensor %s: its storage claims %lld elements of type %s, and has %zu bytes",
                       c->f->path, c->path, (long long)s->count, gv_dtype_info(s->type)->name, data->bytes);
    memcpy(entry.dim, t->dim, sizeof entry.dim);
    gv_st_entry_size(&entry); /* the pickle has seen that it fits its storage */
    entry.data = data->data + (size_t)t->offset * element;
    if (c->f->n == c->room) {
        int              wanted = c->room ? 2 * c->room : 256;
        struct st_entry *grown = c->f->n < GV_ST_TENSORS ? realloc(c->f->entry, (size_t)wanted * sizeof *grown) : NULL;
        if (!grown)
            return gv_fail(e, GV_ERR_MEMORY, "no memory for the tensors of %s", c->f->path);
        c->f->entry = grown;
        c->room = wanted;
    }
    if (!(entry.name = strdup(c->path)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the tensors of %s", c->f->path);
    c->f->entry[c->f->n++] = entry;
    return GV_OK;
}

/* used: bytes of the path so far. */
static gv_status walk(struct collector *c, struct pickle_value dict, size_t used, int depth)
{
    const struct pickle_node *node = &c->p->node[dict.index];
    for (int i = 0; i + 1 < node->n; i += 2) {
        struct pickle_value key = node->item[i], value = node->item[i + 1];
        if (++c->visits > MAX_VISITS) /* dictionaries may hold one another */
            return gv_fail(c->z->e, GV_ERR_MODEL, "%s: its dictionaries have too many entries", c->f->path);
        if (key.kind != PICKLE_TEXT || (value.kind != PICKLE_TENSOR && value.kind != PICKLE_DICT))
            continue;
        if (!key.size || memchr(key.text, 0, (size_t)key.size) || (size_t)key.size > sizeof c->path - used - 2)
            return gv_fail(c->z->e, GV_ERR_MODEL, "%s: a tensor's name has %d bytes or is no text", c->f->path, key.size);
        memcpy(c->path + used, key.text, (size_t)key.size);
        size_t end = used + (size_t)key.size;
        c->path[end] = '\0';
        if (value.kind == PICKLE_TENSOR) {
            TRY(add_tensor(c, &c->p->tensor[value.index]));
        } else if (depth < MAX_DEPTH) {
            c->path[end] = '.';
            TRY(walk(c, value, end + 1, depth + 1));
        }
    }
    return GV_OK;
}

static gv_status read_tensors(struct tensor_file *f, struct zip *z, const struct record *pickle, struct error *e)
{
    char name[4096];
    snprintf(name, sizeof name, "%.3900s: data.pkl", f->path);
    struct pickle    p;
    struct collector c = { .f = f, .z = z, .p = &p, .pickle = pickle };
    gv_status        status = gv_pickle_read(&p, pickle->data, pickle->bytes, name, e);
    if (!status)
        status = p.root.kind == PICKLE_DICT ? walk(&c, p.root, 0, 0) : GV_OK;
    if (!status && !f->n)
        status = gv_fail(e, GV_ERR_MODEL, "%s holds no dictionary of tensors", f->path);
    gv_pickle_free(&p);
    return status ? status : gv_tensor_file_sort(f, e);
}

/* ---- the reader ---- */

static bool is_old(const unsigned char *bytes)
{
    return !memcmp(bytes, "\x80\x02\x8a\x0a", 4); /* protocol 2, then a magic number of ten bytes */
}

static bool is_pth(const unsigned char *bytes, size_t n)
{
    return n > 8 && ((!memcmp(bytes, "PK\3\4", 4) && bytes[8] != '{') || is_old(bytes));
}

static gv_status read_zip(struct tensor_file *f, struct zip *z, struct error *e)
{
    const struct record *pickle, *order;
    TRY(read_directory(z));
    TRY(find_pickle(z, &pickle));
    order = find(z, pickle->name, pickle->name_bytes - strlen("data.pkl"), "byteorder", 9);
    if (order && (order->bytes != 6 || memcmp(order->data, "little", 6)))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s was written on a big-endian machine", f->path);
    return read_tensors(f, z, pickle, e);
}

static gv_status read_file(struct tensor_file *f, struct error *e)
{
    if (is_old(f->map))
        return gv_fail(e, GV_ERR_UNSUPPORTED,
                       "%s was written by a PyTorch before 1.6 or in its old form; torch.load and torch.save it again",
                       f->path);
    struct zip z = { .f = f, .map = f->map, .bytes = f->map_bytes, .e = e };
    gv_status  status = read_zip(f, &z, e);
    free(z.record);
    return status;
}

const struct tensor_file_kind gv_file_pth = { "pth", is_pth, read_file };
