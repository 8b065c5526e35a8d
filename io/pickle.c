#include "io/pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a pickle may name. Nothing of it is code here: the machine builds the value that the call would have given. */
enum meaning { MAKES_DICT, MAKES_TENSOR, MAKES_PARAMETER, IS_STORAGE };
static const struct {
    const char  *module, *name;
    enum meaning meaning;
    enum dtype   type;
} globals[] = {
    { "collections", "OrderedDict", MAKES_DICT, 0 },
    { "torch._utils", "_rebuild_tensor_v2", MAKES_TENSOR, 0 },
    { "torch._utils", "_rebuild_parameter", MAKES_PARAMETER, 0 },
    { "torch", "FloatStorage", IS_STORAGE, GV_F32 },
    { "torch", "DoubleStorage", IS_STORAGE, GV_F64 },
    { "torch", "HalfStorage", IS_STORAGE, GV_F16 },
    { "torch", "BFloat16Storage", IS_STORAGE, GV_BF16 },
    { "torch", "LongStorage", IS_STORAGE, GV_I64 },
    { "torch", "IntStorage", IS_STORAGE, GV_I32 },
    { "torch", "ByteStorage", IS_STORAGE, GV_U8 },
    { "torch", "BoolStorage", IS_STORAGE, GV_U8 },
};
enum { N_GLOBALS = sizeof globals / sizeof *globals, NAME_BYTES = 96 };

struct machine {
    struct pickle       *p;
    const unsigned char *begin, *at, *end;
    const char          *name;
    struct error        *e;
    struct pickle_value *stack, *memo;
    int                  n, room, n_memo, memo_room, node_room, storage_room, tensor_room, items;
    bool                 stopped;
    gv_status            failed; /* why something did not grow */
};

static gv_status refuse(struct machine *m, const char *why)
{
    return gv_fail(m->e, GV_ERR_MODEL, "%s: byte %lld: %s", m->name, (long long)(m->at - m->begin), why);
}

/* ---- memory: arrays that grow up to a limit ---- */

/* The array with room for one more element than n, moved if need be; NULL after a failure, which stands in m->failed. */
static void *grow(struct machine *m, void *array, int n, int *room, size_t bytes, int limit, const char *what)
{
    if (n < *room)
        return array;
    int   wanted = n < 8 ? 8 : n > limit / 2 ? limit : 2 * n;
    void *grown = n < limit ? realloc(array, (size_t)wanted * bytes) : NULL;
    if (grown)
        *room = wanted;
    else
        m->failed = n < limit ? gv_fail(m->e, GV_ERR_MEMORY, "no memory to read %s", m->name) : refuse(m, what);
    return grown;
}

static gv_status push(struct machine *m, struct pickle_value v)
{
    struct pickle_value *stack = grow(m, m->stack, m->n, &m->room, sizeof *stack, GV_PICKLE_STACK, "its stack is too deep");
    if (!stack)
        return m->failed;
    m->stack = stack;
    m->stack[m->n++] = v;
    return GV_OK;
}

static gv_status pop(struct machine *m, struct pickle_value *v)
{
    *v = (struct pickle_value){ .kind = PICKLE_MARK };
    if (!m->n || m->stack[m->n - 1].kind == PICKLE_MARK)
        return refuse(m, "it takes from an empty stack");
    *v = m->stack[--m->n];
    return GV_OK;
}

static gv_status push_container(struct machine *m, enum pickle_kind kind)
{
    struct pickle      *p = m->p;
    struct pickle_node *node =
        grow(m, p->node, p->n_nodes, &m->node_room, sizeof *node, GV_PICKLE_NODES, "too many containers");
    if (!node)
        return m->failed;
    p->node = node;
    p->node[p->n_nodes] = (struct pickle_node){ 0 };
    return push(m, (struct pickle_value){ .kind = kind, .index = p->n_nodes++ });
}

static gv_status append(struct machine *m, int node, const struct pickle_value *item, int n)
{
    struct pickle_node *c = &m->p->node[node];
    if (n > GV_PICKLE_ITEMS - m->items)
        return refuse(m, "too many items in containers");
    if (n > c->room - c->n) {
        int                  wanted = c->n + n > 2 * c->room ? c->n + n : 2 * c->room;
        struct pickle_value *grown = realloc(c->item, (size_t)wanted * sizeof *grown);
        if (!grown)
            return gv_fail(m->e, GV_ERR_MEMORY, "no memory to read %s", m->name);
        c->item = grown;
        c->room = wanted;
    }
    for (int i = 0; i < n; i++)
        c->item[c->n++] = item[i];
    m->items += n;
    return GV_OK;
}

/* ---- arguments of opcodes ---- */

static gv_status take(struct machine *m, size_t n, const unsigned char **out)
{
    *out = m->at;
    if (n > (size_t)(m->end - m->at))
        return refuse(m, "it ends within an instruction");
    m->at += n;
    return GV_OK;
}

static gv_status take_number(struct machine *m, int bytes, uint64_t *out)
{
    const unsigned char *p;
    *out = 0;
    TRY(take(m, (size_t)bytes, &p));
    for (int i = bytes - 1; i >= 0; i--)
        *out = *out << 8 | p[i];
    return GV_OK;
}

static gv_status push_int(struct machine *m, int bytes)
{
    uint64_t u;
    TRY(take_number(m, bytes, &u));
    return push(m, (struct pickle_value){ .kind = PICKLE_INT, .i = bytes == 4 ? (int32_t)(uint32_t)u : (int64_t)u });
}

/* Two's complement of any length up to eight bytes; a longer one is no size of anything. */
static gv_status push_long(struct machine *m, int length_bytes)
{
    uint64_t n, u;
    TRY(take_number(m, length_bytes, &n));
    if (n > 8)
        return refuse(m, "an integer of more than 64 bits");
    TRY(take_number(m, (int)n, &u));
    if (n && n < 8 && u >> (8 * n - 1))
        u |= UINT64_MAX << 8 * n;
    return push(m, (struct pickle_value){ .kind = PICKLE_INT, .i = (int64_t)u });
}

static gv_status push_text(struct machine *m, int length_bytes)
{
    uint64_t             n;
    const unsigned char *p;
    TRY(take_number(m, length_bytes, &n));
    if (n > GV_PICKLE_BYTES)
        return refuse(m, "it ends within a text");
    TRY(take(m, (size_t)n, &p));
    return push(m, (struct pickle_value){ .kind = PICKLE_TEXT, .size = (int)n, .text = (const char *)p });
}

static gv_status push_float(struct machine *m)
{
    const unsigned char *p;
    TRY(take(m, 8, &p));
    return push(m, (struct pickle_value){ .kind = PICKLE_FLOAT }); /* no float of a pickle is wanted */
}

static gv_status take_line(struct machine *m, const char **text, int *size)
{
    const unsigned char *nl = memchr(m->at, '\n', (size_t)(m->end - m->at));
    *text = (const char *)m->at;
    *size = 0;
    if (!nl || nl - m->at > 1024)
        return refuse(m, "a name without an end");
    *size = (int)(nl - m->at);
    m->at = nl + 1;
    return GV_OK;
}

/* ---- names ---- */

static bool is_text(const char *text, int size, const char *wanted)
{
    return (size_t)size == strlen(wanted) && !memcmp(text, wanted, (size_t)size);
}

/* A hostile name in a message: short and printable. */
static const char *shown(char out[NAME_BYTES], const char *text, int size)
{
    int n = size < NAME_BYTES - 1 ? size : NAME_BYTES - 1;
    for (int i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[n] = '\0';
    return out;
}

static gv_status push_global(struct machine *m, const char *module, int module_size, const char *name, int name_size)
{
    for (int i = 0; i < N_GLOBALS; i++)
        if (is_text(module, module_size, globals[i].module) && is_text(name, name_size, globals[i].name))
            return push(m, (struct pickle_value){ .kind = PICKLE_GLOBAL, .index = i });
    char a[NAME_BYTES], b[NAME_BYTES];
    return gv_fail(
        m->e, GV_ERR_MODEL,
        "%s: byte %lld: it asks for %s.%s; nothing of a pickle is run here, and only tensors and dictionaries are read",
        m->name, (long long)(m->at - m->begin), shown(a, module, module_size), shown(b, name, name_size));
}

static gv_status push_named(struct machine *m)
{
    const char *module, *name;
    int         module_size, name_size;
    TRY(take_line(m, &module, &module_size));
    TRY(take_line(m, &name, &name_size));
    return push_global(m, module, module_size, name, name_size);
}

static gv_status push_stacked_name(struct machine *m)
{
    struct pickle_value module, name;
    TRY(pop(m, &name));
    TRY(pop(m, &module));
    if (module.kind != PICKLE_TEXT || name.kind != PICKLE_TEXT)
        return refuse(m, "a name that is not text");
    return push_global(m, module.text, module.size, name.text, name.size);
}

/* ---- containers ---- */

/* Where the items above the last mark begin. */
static gv_status find_mark(struct machine *m, int *first)
{
    for (int i = m->n; i > 0; i--)
        if (m->stack[i - 1].kind == PICKLE_MARK) {
            *first = i;
            return GV_OK;
        }
    return refuse(m, "it looks for a mark that is not there");
}

/* The last n values become a tuple; below them are `marks` marks to drop. */
static gv_status make_tuple(struct machine *m, int n, int marks)
{
    if (n > m->n)
        return refuse(m, "it takes from an empty stack");
    for (int i = m->n - n; i < m->n; i++)
        if (m->stack[i].kind == PICKLE_MARK)
            return refuse(m, "a mark inside of a tuple");
    TRY(push_container(m, PICKLE_TUPLE));
    struct pickle_value tuple = m->stack[--m->n];
    TRY(append(m, tuple.index, m->stack + m->n - n, n));
    m->n -= n + marks;
    return push(m, tuple);
}

static gv_status make_marked_tuple(struct machine *m)
{
    int first = 0;
    TRY(find_mark(m, &first));
    return make_tuple(m, m->n - first, 1);
}

/* Items from `first` on go into the container below them (and below a mark, if there is one). */
static gv_status put_items(struct machine *m, int first, int marks, enum pickle_kind kind)
{
    int n = m->n - first, at = first - marks - 1;
    if (at < 0 || n < 0 || m->stack[at].kind != kind)
        return refuse(m, kind == PICKLE_LIST ? "items for what is no list" : "items for what is no dictionary");
    if (kind == PICKLE_DICT && n % 2)
        return refuse(m, "a key without a value");
    for (int i = first; i < m->n; i++)
        if (m->stack[i].kind == PICKLE_MARK)
            return refuse(m, "a mark inside of a container");
    TRY(append(m, m->stack[at].index, m->stack + first, n));
    m->n = at + 1;
    return GV_OK;
}

static gv_status put_marked(struct machine *m, enum pickle_kind kind)
{
    int first = 0;
    TRY(find_mark(m, &first));
    return put_items(m, first, 1, kind);
}

static gv_status drop_to_mark(struct machine *m)
{
    int first = 0;
    TRY(find_mark(m, &first));
    m->n = first - 1;
    return GV_OK;
}

/* ---- memo ---- */

static gv_status memo_put(struct machine *m, uint64_t at)
{
    if (!m->n || m->stack[m->n - 1].kind == PICKLE_MARK)
        return refuse(m, "it remembers what is not there");
    if (at >= GV_PICKLE_MEMO)
        return refuse(m, "its memo is too large");
    while ((uint64_t)m->n_memo <= at) {
        struct pickle_value *memo =
            grow(m, m->memo, m->n_memo, &m->memo_room, sizeof *memo, GV_PICKLE_MEMO, "its memo is too large");
        if (!memo)
            return m->failed;
        m->memo = memo;
        m->memo[m->n_memo++] = (struct pickle_value){ .kind = PICKLE_MARK }; /* nothing was put here */
    }
    m->memo[at] = m->stack[m->n - 1];
    return GV_OK;
}

static gv_status memo_put_number(struct machine *m, int bytes)
{
    uint64_t at;
    TRY(take_number(m, bytes, &at));
    return memo_put(m, at);
}

static gv_status memo_get(struct machine *m, int bytes)
{
    uint64_t at;
    TRY(take_number(m, bytes, &at));
    if (at >= (uint64_t)m->n_memo || m->memo[at].kind == PICKLE_MARK)
        return refuse(m, "it recalls what was never remembered");
    return push(m, m->memo[at]);
}

/* ---- torch's objects ---- */

/* ("storage", torch.FloatStorage, "0", "cpu", 1024) */
static gv_status make_storage(struct machine *m)
{
    struct pickle_value id;
    struct pickle      *p = m->p;
    TRY(pop(m, &id));
    const struct pickle_value *v = id.kind == PICKLE_TUPLE ? p->node[id.index].item : NULL;
    if (!v || p->node[id.index].n != 5 || v[0].kind != PICKLE_TEXT || !is_text(v[0].text, v[0].size, "storage") ||
        v[1].kind != PICKLE_GLOBAL || globals[v[1].index].meaning != IS_STORAGE || v[2].kind != PICKLE_TEXT ||
        v[4].kind != PICKLE_INT || v[4].i < 0)
        return refuse(m, "a storage is not (\"storage\", type, key, place, count)");
    struct pickle_storage *storage =
        grow(m, p->storage, p->n_storages, &m->storage_room, sizeof *storage, GV_ST_TENSORS, "too many storages");
    if (!storage)
        return m->failed;
    p->storage = storage;
    p->storage[p->n_storages] =
        (struct pickle_storage){ .key = v[2].text, .key_bytes = v[2].size, .type = globals[v[1].index].type, .count = v[4].i };
    return push(m, (struct pickle_value){ .kind = PICKLE_STORAGE, .index = p->n_storages++ });
}

static gv_status take_sizes(struct machine *m, struct pickle_value v, int64_t out[GV_ST_RANK], int *rank)
{
    if (v.kind != PICKLE_TUPLE || m->p->node[v.index].n > GV_ST_RANK)
        return refuse(m, "sizes of a tensor are not a tuple of at most 8 integers");
    const struct pickle_node *c = &m->p->node[v.index];
    for (*rank = 0; *rank < c->n; ++*rank) {
        if (c->item[*rank].kind != PICKLE_INT || c->item[*rank].i < 0)
            return refuse(m, "sizes of a tensor are not a tuple of at most 8 integers");
        out[*rank] = c->item[*rank].i;
    }
    return GV_OK;
}

static bool strides_are_contiguous(const struct pickle_tensor *t, const int64_t *stride, int64_t count)
{
    int64_t wanted = 1;
    for (int i = t->rank - 1; i >= 0 && count; i--) {
        if (t->dim[i] != 1 && stride[i] != wanted)
            return false;
        wanted *= t->dim[i];
    }
    return true;
}

/* _rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks[, metadata]) */
static gv_status make_tensor(struct machine *m, const struct pickle_node *args)
{
    struct pickle_tensor       t = { 0 };
    struct pickle             *p = m->p;
    int64_t                    stride[GV_ST_RANK];
    int                        rank;
    const struct pickle_value *v = args->item;
    if (args->n < 4 || args->n > 7 || v[0].kind != PICKLE_STORAGE || v[1].kind != PICKLE_INT || v[1].i < 0)
        return refuse(m, "a tensor is not (storage, offset, sizes, strides, ...)");
    TRY(take_sizes(m, v[2], t.dim, &t.rank));
    TRY(take_sizes(m, v[3], stride, &rank));
    if (rank != t.rank)
        return refuse(m, "a tensor has not as many strides as sizes");
    t.storage = v[0].index;
    t.offset = v[1].i;
    const struct pickle_storage *s = &p->storage[t.storage];
    struct st_entry              size = { .type = GV_U8, .rank = t.rank };
    memcpy(size.dim, t.dim, sizeof size.dim);
    if (!gv_st_entry_size(&size) || t.offset > s->count || size.bytes > (uint64_t)(s->count - t.offset))
        return refuse(m, "a tensor reaches beyond its storage");
    t.contiguous = strides_are_contiguous(&t, stride, (int64_t)size.bytes);
    struct pickle_tensor *tensor =
        grow(m, p->tensor, p->n_tensors, &m->tensor_room, sizeof *tensor, GV_ST_TENSORS, "too many tensors");
    if (!tensor)
        return m->failed;
    p->tensor = tensor;
    p->tensor[p->n_tensors] = t;
    return push(m, (struct pickle_value){ .kind = PICKLE_TENSOR, .index = p->n_tensors++ });
}

static gv_status reduce(struct machine *m)
{
    struct pickle_value args, what;
    TRY(pop(m, &args));
    TRY(pop(m, &what));
    if (what.kind != PICKLE_GLOBAL || args.kind != PICKLE_TUPLE)
        return refuse(m, "it calls what is no function");
    const struct pickle_node *c = &m->p->node[args.index];
    switch (globals[what.index].meaning) {
    case MAKES_DICT: return c->n ? refuse(m, "a dictionary with arguments") : push_container(m, PICKLE_DICT);
    case MAKES_TENSOR: return make_tensor(m, c);
    case MAKES_PARAMETER:
        return c->n && c->item[0].kind == PICKLE_TENSOR ? push(m, c->item[0]) : refuse(m, "a parameter without a tensor");
    case IS_STORAGE: break;
    }
    return refuse(m, "it calls a storage type");
}

/* Attributes of a dictionary or a tensor (a state_dict's _metadata): dropped. */
static gv_status build(struct machine *m)
{
    struct pickle_value state;
    TRY(pop(m, &state));
    enum pickle_kind kind = m->n ? m->stack[m->n - 1].kind : PICKLE_MARK;
    return kind == PICKLE_DICT || kind == PICKLE_TENSOR ? GV_OK : refuse(m, "it sets attributes of what has none");
}

/* ---- the machine ---- */

static gv_status check_protocol(struct machine *m)
{
    uint64_t version;
    TRY(take_number(m, 1, &version));
    return version >= 2 && version <= 5 ? GV_OK : refuse(m, "its pickle protocol is not one from 2 to 5");
}

static gv_status stop(struct machine *m)
{
    TRY(pop(m, &m->p->root));
    m->stopped = true;
    return GV_OK;
}

static gv_status duplicate(struct machine *m)
{
    struct pickle_value v;
    TRY(pop(m, &v));
    TRY(push(m, v));
    return push(m, v);
}

static gv_status step(struct machine *m)
{
    const unsigned char *op;
    struct pickle_value  v;
    uint64_t             frame;
    char                 text[64];
    TRY(take(m, 1, &op));
    switch (*op) {
    case 0x80: return check_protocol(m);
    case 0x95: return take_number(m, 8, &frame); /* a hint for buffered readers */
    case '.': return stop(m);
    case '(': return push(m, (struct pickle_value){ .kind = PICKLE_MARK });
    case '0': return pop(m, &v);
    case '1': return drop_to_mark(m);
    case '2': return duplicate(m);
    case 'N': return push(m, (struct pickle_value){ .kind = PICKLE_NONE });
    case 0x88: return push(m, (struct pickle_value){ .kind = PICKLE_INT, .i = 1 });
    case 0x89: return push(m, (struct pickle_value){ .kind = PICKLE_INT, .i = 0 });
    case 'K': return push_int(m, 1);
    case 'M': return push_int(m, 2);
    case 'J': return push_int(m, 4);
    case 0x8a: return push_long(m, 1);
    case 0x8b: return push_long(m, 4);
    case 'G': return push_float(m);
    case 'U':
    case 'C':
    case 0x8c: return push_text(m, 1);
    case 'T':
    case 'B':
    case 'X': return push_text(m, 4);
    case 0x8d:
    case 0x8e: return push_text(m, 8);
    case ')': return push_container(m, PICKLE_TUPLE);
    case 't': return make_marked_tuple(m);
    case 0x85: return make_tuple(m, 1, 0);
    case 0x86: return make_tuple(m, 2, 0);
    case 0x87: return make_tuple(m, 3, 0);
    case ']': return push_container(m, PICKLE_LIST);
    case 'a': return put_items(m, m->n - 1, 0, PICKLE_LIST);
    case 'e': return put_marked(m, PICKLE_LIST);
    case '}': return push_container(m, PICKLE_DICT);
    case 's': return put_items(m, m->n - 2, 0, PICKLE_DICT);
    case 'u': return put_marked(m, PICKLE_DICT);
    case 'c': return push_named(m);
    case 0x93: return push_stacked_name(m);
    case 'q': return memo_put_number(m, 1);
    case 'r': return memo_put_number(m, 4);
    case 0x94: return memo_put(m, (uint64_t)m->n_memo);
    case 'h': return memo_get(m, 1);
    case 'j': return memo_get(m, 4);
    case 'Q': return make_storage(m);
    case 'R': return reduce(m);
    case 'b': return build(m);
    }
    snprintf(text, sizeof text, "the instruction 0x%02x is not one of those that tensors need", *op);
    return refuse(m, text);
}

gv_status gv_pickle_read(struct pickle *p, const unsigned char *bytes, size_t n, const char *name, struct error *e)
{
    struct machine m = { .p = p, .begin = bytes, .at = bytes, .end = bytes + n, .name = name, .e = e };
    gv_status      status = GV_OK;
    *p = (struct pickle){ 0 };
    if (n > GV_PICKLE_BYTES)
        return gv_fail(e, GV_ERR_MODEL, "%s has %zu bytes; at most %d are read", name, n, GV_PICKLE_BYTES);
    while (!status && !m.stopped)
        status = step(&m);
    free(m.stack);
    free(m.memo);
    return status;
}

void gv_pickle_free(struct pickle *p)
{
    for (int i = 0; i < p->n_nodes; i++)
        free(p->node[i].item);
    free(p->node);
    free(p->storage);
    free(p->tensor);
    *p = (struct pickle){ 0 };
}
