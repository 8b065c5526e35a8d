/* The CPU device's own state, and the operations that fill its table. For files in core/cpu only. */
#ifndef GV_CORE_CPU_CPU_H
#define GV_CORE_CPU_CPU_H

#include "core/cpu/kernels.h"
#include "core/ops.h"

struct cpu_pool;

struct cpu_device {
    struct device      base;
    unsigned           flags; /* enum cpu_flag */
    struct cpu_pool   *pool;
    struct cpu_kernels k;
};

/* The CPU device behind d: d itself, or the one that the null device stands for. */
static inline const struct cpu_device *gv_cpu_of(const struct device *d)
{
    while (d->stands_for)
        d = d->stands_for;
    return d->impl;
}

/* Any tensor as evenly strided rows of its last dimension. Strides in bytes. */
struct cpu_rows {
    char      *data;
    int64_t    stride; /* bytes from row to row */
    int64_t    n, d;   /* rows, elements in a row */
    enum dtype type;
};

static inline size_t gv_cpu_size(enum dtype type)
{
    return type == GV_F32 ? sizeof(float) : sizeof(uint16_t);
}

static inline struct cpu_rows gv_cpu_rows(struct tensor t)
{
    struct cpu_rows r = { .data = t.data, .n = 1, .d = t.dim[t.rank - 1], .type = t.type };

    for (int i = 0; i < t.rank - 1; i++)
        r.n *= t.dim[i];
    for (int i = t.rank - 2; i >= 0; i--) /* a dimension of 1 has a stride without meaning */
        if (t.dim[i] > 1) {
            r.stride = t.stride[i] * (int64_t)gv_cpu_size(t.type);
            break;
        }
    return r;
}

/* Elements between the rows of an optional table; 0 if it is absent or a single row. */
static inline int64_t gv_cpu_row_stride(struct tensor t)
{
    return present(t) ? gv_cpu_rows(t).stride / (int64_t)gv_cpu_size(t.type) : 0;
}

/* n contiguous elements from any float type to any. layout.c */
void gv_cpu_convert(const struct cpu_kernels *k, void *dst, enum dtype dst_type, const void *src, enum dtype src_type, int64_t n);

/* Pixels that share a panel when a convolution has few outputs (a VAE's last has three): the panel's 16 columns are those of
 * neighbouring pixels, whose windows overlap, so the kernel grows by a tap a pixel, with zeros where it does not reach. */
static inline int64_t gv_cpu_fold(const struct tensor *w)
{
    return w->rank == 5 && w->dim[3] > 1 && w->dim[0] <= 8 ? 16 / w->dim[0] : 1;
}

/* matmul.c. Weights of linear layers [M, K] and convolutions [O, kt, kh, kw, C] in the kernels' order. */
size_t gv_cpu_packed_bytes(const struct tensor *w);
void   gv_cpu_pack(struct device *d, void *dst, struct tensor src, enum dtype type);
size_t gv_cpu_linear_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o);
void   gv_cpu_linear(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o, void *ws);
/* conv.c */
size_t gv_cpu_conv_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o);
void   gv_cpu_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *ws);
/* pointwise.c */
void gv_cpu_norm(struct run *r, struct tensor y, struct tensor x, const struct norm_opts *o);
void gv_cpu_glu(struct run *r, struct tensor y, struct tensor a, struct tensor b, int act);
void gv_cpu_act(struct run *r, struct tensor y, struct tensor x, int act);
void gv_cpu_add(struct run *r, struct tensor y, struct tensor a, struct tensor b);
void gv_cpu_lincomb(struct run *r, struct tensor y, int n, const struct lincomb_term *terms);
void gv_cpu_check_finite(struct run *r, struct tensor x, const char *what);
/* layout.c */
void gv_cpu_copy(struct run *r, struct tensor dst, struct tensor src);
void gv_cpu_fill(struct run *r, struct tensor dst, float value);
void gv_cpu_gather(struct run *r, struct tensor y, struct tensor table, struct tensor index);
void gv_cpu_patchify(struct run *r, struct tensor rows, struct tensor x, const int *patch);
void gv_cpu_unpatchify(struct run *r, struct tensor x, struct tensor rows, const int *patch);
void gv_cpu_upsample(struct run *r, struct tensor y, struct tensor x);
void gv_cpu_noise(struct run *r, struct tensor y, const struct noise_key *key);

#endif
