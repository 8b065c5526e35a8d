/* The null device computes nothing. It stands for another device, whose answers about sizes it passes on, so that one pass of
 * a pipeline over it counts exactly the memory that the real pass will take, and checks every shape on the way. It needs no
 * weights and no GPU. */
#include <stdlib.h>
#include <string.h>

#include "core/ops.h"

static struct device *real(struct device *d)
{
    return d->stands_for;
}

static void *null_alloc(struct device *d, size_t bytes)
{
    (void)d, (void)bytes;
    return NULL;
}
static void null_free(struct device *d, void *p, size_t bytes)
{
    (void)d, (void)p, (void)bytes;
}
static void null_upload(struct run *r, struct tensor dst, const void *src)
{
    (void)r, (void)dst, (void)src;
}
static void null_download(struct run *r, void *dst, struct tensor src)
{
    (void)r;
    memset(dst, 0, gv_tensor_bytes(src));
}
static void null_sync(struct run *r)
{
    (void)r;
}
static size_t null_prepared_bytes(struct device *d, const struct tensor *w, enum weight_use use)
{
    return real(d)->ops->prepared_bytes(real(d), w, use);
}
static gv_status null_prepare(struct device *d, void *dst, struct tensor src, enum dtype type, enum weight_use use,
                              struct tensor *out, struct error *e)
{
    (void)d, (void)dst, (void)use, (void)e;
    *out = src;
    out->type = type;
    out->data = NULL;
    return GV_OK;
}
static size_t null_linear_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w,
                                    const struct linear_opts *o)
{
    return real(d)->ops->linear_workspace(real(d), y, x, w, o);
}
static void null_linear(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o, void *ws)
{
    (void)r, (void)y, (void)x, (void)w, (void)o, (void)ws;
}
static size_t null_conv_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w,
                                  const struct conv_opts *o)
{
    return real(d)->ops->conv_workspace(real(d), y, x, w, o);
}
static void null_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *ws)
{
    (void)r, (void)y, (void)x, (void)w, (void)o, (void)ws;
}
static void null_norm(struct run *r, struct tensor y, struct tensor x, const struct norm_opts *o)
{
    (void)r, (void)y, (void)x, (void)o;
}
static void null_glu(struct run *r, struct tensor y, struct tensor a, struct tensor b, int act)
{
    (void)r, (void)y, (void)a, (void)b, (void)act;
}
static void null_act(struct run *r, struct tensor y, struct tensor x, int act)
{
    (void)r, (void)y, (void)x, (void)act;
}
static void null_add(struct run *r, struct tensor y, struct tensor a, struct tensor b)
{
    (void)r, (void)y, (void)a, (void)b;
}
static void null_pair(struct run *r, struct tensor y, struct tensor x)
{
    (void)r, (void)y, (void)x;
}
static void null_fill(struct run *r, struct tensor dst, float value)
{
    (void)r, (void)dst, (void)value;
}
static void null_gather(struct run *r, struct tensor y, struct tensor table, struct tensor index)
{
    (void)r, (void)y, (void)table, (void)index;
}
static void null_lincomb(struct run *r, struct tensor y, int n, const struct lincomb_term *terms)
{
    (void)r, (void)y, (void)n, (void)terms;
}
static void null_patch(struct run *r, struct tensor a, struct tensor b, const int *patch)
{
    (void)r, (void)a, (void)b, (void)patch;
}
static void null_noise(struct run *r, struct tensor y, const struct noise_key *key)
{
    (void)r, (void)y, (void)key;
}
static void null_check_finite(struct run *r, struct tensor x, const char *what)
{
    (void)r, (void)x, (void)what;
}

void gv_device_null_close(struct device *d)
{
    free(d);
}

gv_status gv_device_null(struct device **out, struct device *d, struct error *e)
{
    static const struct device_ops ops = {
        .alloc = null_alloc,
        .free = null_free,
        .upload = null_upload,
        .download = null_download,
        .sync = null_sync,
        .close = gv_device_null_close,
        .prepared_bytes = null_prepared_bytes,
        .prepare = null_prepare,
        .linear_workspace = null_linear_workspace,
        .linear = null_linear,
        .conv_workspace = null_conv_workspace,
        .conv = null_conv,
        .norm = null_norm,
        .glu = null_glu,
        .act = null_act,
        .add = null_add,
        .copy = null_pair,
        .fill = null_fill,
        .gather = null_gather,
        .lincomb = null_lincomb,
        .patchify = null_patch,
        .unpatchify = null_patch,
        .upsample = null_pair,
        .noise = null_noise,
        .check_finite = null_check_finite,
    };
    *out = calloc(1, sizeof **out);
    if (!*out)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the null device");
    **out = (struct device){
        .ops = &ops,
        .kind = d->kind,
        .name = d->name,
        .stands_for = d,
        .compute = d->compute,
        .log = d->log,
        .attention = d->attention,
    };
    return GV_OK;
}
