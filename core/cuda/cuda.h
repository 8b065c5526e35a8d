/* The CUDA device, for the C files of this folder and of attention/cuda.
 *
 *   device_cuda.c  memory, weights, the table
 *   linear.c       matrix products: cuBLASLt, with its plans kept by shape
 *   conv.c         convolutions: cuDNN
 *   kernels.h      launchers of the device's own kernels: norm.cu pointwise.cu layout.cu conv_plain.cu
 *
 * One stream carries all work of all runs on the device, weights included: order is what makes scratch, and a slot that a
 * layer's weights are streamed into, safe to use again. */
#ifndef GV_CORE_CUDA_CUDA_H
#define GV_CORE_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <pthread.h>

#include "core/cuda/kernels.h"
#include "core/ops.h"

struct linear_plan;
struct conv_plan;
struct cudnnContext;

enum { CU_STAGES = 2 };
#define CU_STAGE_BYTES     ((size_t)8 << 20)
#define CU_WORKSPACE_BYTES ((size_t)64 << 20) /* of the libraries; one call at a time uses it, which the stream sees to */

struct cuda_device {
    struct device   base;
    int             major, minor, multiprocessors, shared_bytes;
    void           *encode_tensor_map; /* the driver's cuTensorMapEncodeTiled, or NULL */
    cudaStream_t    stream;
    pthread_mutex_t lock; /* plans, stages */
    bool            lock_made;

    void       *workspace;
    unsigned   *flag;                  /* device: a word that check_finite sets */
    unsigned   *flag_host;             /* pinned */
    char       *stage_host[CU_STAGES]; /* pinned, CU_STAGE_BYTES each */
    char       *stage[CU_STAGES];      /* device */
    cudaEvent_t stage_free[CU_STAGES];
    int         next_stage;

    cublasLtHandle_t     lt;
    struct linear_plan  *plans;
    struct cudnnContext *cudnn;
    struct conv_plan    *convolutions;
};

gv_status gv_device_cuda_open(struct device **out, const struct device_params *p, struct error *e);

/* Of a device or the null device that stands for it. */
struct cuda_device *gv_cuda_of(struct device *d);

/* False, and the run has failed in words, unless s is success. */
bool gv_cuda_ok(struct run *r, cudaError_t s, const char *what);

/* Rows of a tensor as kernels take them; the tensor's rows are evenly strided (ops.c has checked). */
struct cu_rows gv_cuda_rows(struct tensor t);

size_t gv_cuda_linear_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w,
                                const struct linear_opts *o);
void   gv_cuda_linear(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o, void *ws);
void   gv_cuda_linear_close(struct cuda_device *c);
gv_status gv_cuda_conv_open(struct cuda_device *c, struct error *e);
void      gv_cuda_conv_close(struct cuda_device *c);
size_t gv_cuda_conv_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o);
void   gv_cuda_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *ws);

#endif
