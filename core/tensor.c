#include "core/tensor.h"

#include <assert.h>
#include <stdio.h>

const struct dtype_info *gv_dtype_info(enum dtype type)
{
    static const struct dtype_info info[GV_DTYPES] = {
        [GV_F32] = { "F32", 1, 4 },        [GV_BF16] = { "BF16", 1, 2 }, [GV_F16] = { "F16", 1, 2 },
        [GV_F64] = { "F64", 1, 8 },        [GV_F8E4M3] = { "F8_E4M3", 1, 1 }, [GV_I32] = { "I32", 1, 4 },
        [GV_I64] = { "I64", 1, 8 },        [GV_U8] = { "U8", 1, 1 },
    };
    assert(type >= 0 && type < GV_DTYPES);
    return &info[type];
}

size_t gv_dtype_bytes(enum dtype type, int64_t n)
{
    const struct dtype_info *i = gv_dtype_info(type);
    assert(n >= 0 && n % i->block == 0);
    return (size_t)(n / i->block) * (size_t)i->bytes;
}

struct tensor gv_tensor(void *data, enum dtype type, int rank, const int64_t *dim)
{
    assert(rank > 0 && rank <= GV_MAX_RANK);
    struct tensor t = { .data = data, .type = type, .rank = (int8_t)rank };
    int64_t       step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        assert(dim[i] >= 0);
        t.dim[i] = dim[i];
        t.stride[i] = step;
        step *= dim[i];
    }
    return t;
}

int64_t gv_tensor_count(struct tensor t)
{
    if (!present(t))
        return 0;
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++)
        n *= t.dim[i];
    return n;
}

bool gv_tensor_contiguous(struct tensor t)
{
    int64_t step = 1;
    for (int i = t.rank - 1; i >= 0; i--) {
        if (t.dim[i] != 1 && t.stride[i] != step)
            return false;
        step *= t.dim[i];
    }
    return true;
}

size_t gv_tensor_bytes(struct tensor t)
{
    return gv_dtype_bytes(t.type, gv_tensor_count(t));
}

const char *gv_tensor_shape_text(struct tensor t, char *text, size_t bytes)
{
    size_t n = (size_t)snprintf(text, bytes, "[");
    for (int i = 0; i < t.rank && n < bytes; i++)
        n += (size_t)snprintf(text + n, bytes - n, i ? ", %lld" : "%lld", (long long)t.dim[i]);
    if (n < bytes)
        snprintf(text + n, bytes - n, "]");
    return text;
}

bool gv_tensor_same_shape(struct tensor a, struct tensor b)
{
    if (a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i])
            return false;
    return true;
}

/* Views of nothing stay nothing: after a failure a run hands out tensors without data, and the null device has none. */
static void *moved(struct tensor t, int64_t elements)
{
    if (!t.data)
        return NULL;
    const struct dtype_info *i = gv_dtype_info(t.type);
    assert(elements % i->block == 0);
    return (unsigned char *)t.data + elements / i->block * i->bytes;
}

struct tensor slice(struct tensor t, int axis, int64_t from, int64_t count)
{
    assert(axis >= 0 && axis < t.rank && from >= 0 && count >= 0 && from + count <= t.dim[axis] && !t.packed);
    t.data = moved(t, from * t.stride[axis]);
    t.dim[axis] = count;
    return t;
}

struct tensor row(struct tensor t, int64_t i)
{
    assert(t.rank > 1);
    t = slice(t, 0, i, 1);
    for (int k = 0; k + 1 < t.rank; k++) {
        t.dim[k] = t.dim[k + 1];
        t.stride[k] = t.stride[k + 1];
    }
    t.rank--;
    return t;
}

struct tensor reshape(struct tensor t, int rank, const int64_t *dim)
{
    assert(gv_tensor_contiguous(t) && !t.packed);
    struct tensor u = gv_tensor(t.data, t.type, rank, dim);
    assert(gv_tensor_count(u) == gv_tensor_count(t));
    return u;
}

struct tensor permute(struct tensor t, const int *axes)
{
    assert(!t.packed);
    struct tensor u = t;
    for (int i = 0; i < t.rank; i++) {
        assert(axes[i] >= 0 && axes[i] < t.rank);
        u.dim[i] = t.dim[axes[i]];
        u.stride[i] = t.stride[axes[i]];
    }
    return u;
}

struct tensor heads(struct tensor t, int64_t n_heads)
{
    int last = t.rank - 1;
    assert(t.rank < GV_MAX_RANK && n_heads > 0 && t.dim[last] % n_heads == 0);
    int64_t step = t.stride[last], size = t.dim[last] / n_heads;
    t.dim[last] = n_heads;
    t.stride[last] = step * size;
    t.dim[last + 1] = size;
    t.stride[last + 1] = step;
    t.rank++;
    return t;
}
