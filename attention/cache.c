#include "attention/cache.h"

#include <stdlib.h>
#include <string.h>

struct slot {
    struct cache_key key;
    struct tensor    whole;
    size_t           bytes;
    int              axis; /* that grows */
    int64_t          length;
    int64_t          next; /* row that gv_cache_append writes once the slot is full */
};

/* A table searched in order: a model has some hundred slots at most, and a search is nothing beside an operation. */
struct cache {
    struct device *device;
    size_t         budget, bytes;
    struct slot   *slot;
    int            n, capacity;
};

gv_status gv_cache_open(struct cache **out, struct device *d, size_t budget, struct error *e)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a cache");
    (*out)->device = d;
    (*out)->budget = budget;
    return GV_OK;
}

static struct slot *find(const struct cache *c, struct cache_key key)
{
    for (int i = 0; i < c->n; i++) {
        const struct cache_key k = c->slot[i].key;

        if (k.layer == key.layer && k.stream == key.stream && k.kind == key.kind)
            return &c->slot[i];
    }
    return NULL;
}

static void release(struct cache *c, struct slot *s)
{
    gv_device_free(c->device, s->whole.data, s->bytes);
    c->bytes -= s->bytes;
    *s = c->slot[--c->n];
}

void gv_cache_drop(struct cache *c, struct cache_key key)
{
    struct slot *s = find(c, key);

    if (s)
        release(c, s);
}

void gv_cache_clear(struct cache *c)
{
    while (c->n)
        release(c, &c->slot[c->n - 1]);
}

void gv_cache_close(struct cache **c)
{
    if (!*c)
        return;
    gv_cache_clear(*c);
    free((*c)->slot);
    free(*c);
    *c = NULL;
}

size_t gv_cache_bytes(const struct cache *c)
{
    return c->bytes;
}

static gv_status add(struct cache *c, struct cache_key key, struct tensor shape, struct error *e)
{
    const size_t bytes = gv_tensor_bytes(shape);
    void        *data;

    if (bytes > c->budget || c->bytes > c->budget - bytes)
        return gv_fail(e, GV_ERR_MEMORY, "the cache's budget of %zu bytes has no room for %zu more beside %zu", c->budget,
                       bytes, c->bytes);
    if (c->n == c->capacity) {
        const int    want = c->capacity ? c->capacity * 2 : 64;
        struct slot *grown = realloc(c->slot, (size_t)want * sizeof *grown);
        if (!grown)
            return gv_fail(e, GV_ERR_MEMORY, "no memory for a cache of %d slots", want);
        c->slot = grown;
        c->capacity = want;
    }
    TRY(gv_device_alloc(c->device, bytes, "what is kept between steps", &data, e));
    shape.data = data;
    c->slot[c->n++] = (struct slot){ .key = key, .whole = shape, .bytes = bytes };
    c->bytes += bytes;
    return GV_OK;
}

struct tensor gv_cache_slot(struct run *r, struct cache *c, struct cache_key key, enum dtype type, int rank, const int64_t *dim)
{
    const struct tensor shape = gv_tensor(NULL, type, rank, dim);

    if (!gv_run_ready(r))
        return (struct tensor){ 0 };
    struct slot *s = find(c, key);
    if (s && (s->whole.type != type || !gv_tensor_same_shape(s->whole, shape))) {
        release(c, s);
        s = NULL;
    }
    if (!s) {
        struct error e = { 0 };
        if (add(c, key, shape, &e) != GV_OK) {
            gv_run_fail(r, e.code, "%s", e.text);
            return (struct tensor){ 0 };
        }
        s = &c->slot[c->n - 1];
    }
    return s->whole;
}

void gv_cache_set_length(struct cache *c, struct cache_key key, int axis, int64_t length)
{
    struct slot *s = find(c, key);

    s->axis = axis;
    s->length = length;
}

void gv_cache_append(struct run *r, struct cache *c, struct cache_key key, struct tensor x, int axis, int64_t sink)
{
    struct slot *s = gv_run_ready(r) ? find(c, key) : NULL;

    for (int64_t done = 0, n = s ? x.dim[axis] : 0; done < n;) {
        const int64_t room = s->whole.dim[axis];
        bool          full = s->length == room;
        int64_t       at = full ? (s->next < sink ? sink : s->next) : s->length;
        int64_t       count = n - done < room - at ? n - done : room - at;

        if (count <= 0) { /* nothing but the sink fits */
            s->next = sink;
            if (sink >= room)
                return;
            continue;
        }
        gv_copy(r, slice(s->whole, axis, at, count), slice(x, axis, done, count));
        done += count;
        if (full)
            s->next = at + count < room ? at + count : sink;
        else
            s->length = at + count;
        s->axis = axis;
    }
}

struct tensor gv_cache_get(const struct cache *c, struct cache_key key)
{
    const struct slot *s = find(c, key);

    return s && s->length ? slice(s->whole, s->axis, 0, s->length) : (struct tensor){ 0 };
}

void gv_cache_put(struct run *r, struct cache *c, struct cache_key key, struct tensor x)
{
    const struct tensor kept = gv_cache_slot(r, c, key, x.type, x.rank, x.dim);

    gv_copy(r, kept, x);
    if (gv_run_ready(r))
        gv_cache_set_length(c, key, 0, x.dim[0]);
}
