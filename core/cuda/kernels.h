/* Launchers of the device's own kernels: plain structs of device addresses in, a launch error out. Between the C files, which
 * know tensors and runs, and the .cu files, which know neither. Every launch is queued on the stream and returns.
 *
 * All of them are compute_80 PTX: any GPU since Ampere compiles them when the module is opened. Arithmetic is f32 throughout. */
#ifndef GV_CORE_CUDA_KERNELS_H
#define GV_CORE_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "core/tensor.h"

/* The values of enum act and enum norm_kind (core/ops.h, which C++ cannot read); device_cuda.c asserts that they agree. */
enum cu_act { CU_NONE, CU_GELU_TANH, CU_GELU_ERF, CU_SILU, CU_QUICK_GELU };
enum cu_norm_kind { CU_LAYER, CU_RMS, CU_L2 };

/* [n, d], rows `stride` elements apart. data NULL: absent. */
struct cu_rows {
    void      *data;
    enum dtype type;
    int64_t    n, d, stride;
};
/* f32 [G, d]: row group[n] for row n, or row 0 of every n where group is NULL. */
struct cu_table {
    const float *data; /* NULL: absent */
    int64_t      stride;
};

struct cu_norm {
    struct cu_rows  y, x;
    int             kind, act;
    float           eps;
    const float    *weight, *bias; /* or NULL */
    struct cu_table scale, shift;
    const int32_t  *group;     /* or NULL */
    const float    *cos, *sin; /* or NULL */
    int64_t         cos_stride, sin_stride, rope_rows;
    int             head, halves;
};
cudaError_t gv_cu_norm(const struct cu_norm *a, cudaStream_t stream);

/* y = act(a), act(a) ⊙ b, a + b (row n of b: n mod b.n). */
cudaError_t gv_cu_act(struct cu_rows y, struct cu_rows a, int act, cudaStream_t stream);
cudaError_t gv_cu_glu(struct cu_rows y, struct cu_rows a, struct cu_rows b, int act, cudaStream_t stream);
cudaError_t gv_cu_add(struct cu_rows y, struct cu_rows a, struct cu_rows b, cudaStream_t stream);

/* What follows a product: y = gate ⊙ act(x + bias), or y += that. */
struct cu_finish {
    struct cu_rows  y;
    const float    *x;    /* [n, d], contiguous; NULL inside struct cu_conv */
    const float    *bias; /* or NULL */
    int             act;
    struct cu_table gate;
    const int32_t  *group;
    bool            add;
};
cudaError_t gv_cu_finish(const struct cu_finish *a, cudaStream_t stream);

enum { CU_TERMS = 5 };
struct cu_lincomb {
    float       *y;
    const float *x[CU_TERMS];
    float        factor[CU_TERMS];
    int          n_terms;
    int64_t      n;
};
cudaError_t gv_cu_lincomb(const struct cu_lincomb *a, cudaStream_t stream);
/* *bad = 1 if one is not finite. */
cudaError_t gv_cu_finite(struct cu_rows x, unsigned *bad, cudaStream_t stream);

/* dst = src between f32, bf16 and f16, or a fill where src is NULL. Strides in elements. */
struct cu_copy {
    void       *dst;
    const void *src;
    enum dtype  dst_type, src_type;
    float       value;
    int         rank;
    int64_t     dim[GV_MAX_RANK], dst_stride[GV_MAX_RANK], src_stride[GV_MAX_RANK];
};
cudaError_t gv_cu_copy(const struct cu_copy *a, cudaStream_t stream);
cudaError_t gv_cu_gather(struct cu_rows y, struct cu_rows table, const int32_t *index, cudaStream_t stream);

struct cu_patches {
    float         *x; /* [T, H, W, C] */
    int64_t        T, H, W, C;
    int            p[3];
    struct cu_rows rows;
};
cudaError_t gv_cu_patchify(const struct cu_patches *a, cudaStream_t stream);
cudaError_t gv_cu_unpatchify(const struct cu_patches *a, cudaStream_t stream);
/* Frames of [H, W] pixels of `bytes` bytes each, doubled. */
cudaError_t gv_cu_upsample(void *y, const void *x, int64_t T, int64_t H, int64_t W, int64_t bytes, cudaStream_t stream);

struct cu_noise {
    float   *y; /* [T, H, W, C] */
    int64_t  T, H, W, C, t0;
    uint64_t seed;
    uint32_t purpose, block, step;
};
cudaError_t gv_cu_noise(const struct cu_noise *a, cudaStream_t stream);

/* The product that any shape and type can fall back on: w * x over [T, H, W, C] with taps, in f32 with plain multiply-adds, and
 * what follows it. A matrix product is one pixel a row, one tap. */
struct cu_conv {
    const void      *x, *w; /* w [O, kt, kh, kw, C], contiguous */
    enum dtype       x_type, w_type;
    int64_t          x_pixel;       /* elements from one pixel to the next */
    int64_t          T, H, W, C, O; /* of the input */
    int64_t          To, Ho, Wo;
    int              k[3], stride[3], pad[3]; /* pad: in front */
    struct cu_finish out;                     /* y [To · Ho · Wo, O] */
};
cudaError_t gv_cu_conv(const struct cu_conv *a, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
