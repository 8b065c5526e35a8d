/* What the CUDA kernels of attention/ are handed: one call, told in device addresses, by value. The door (attn_cuda.c) fills
 * it from struct attn_call, takes the scratch and chooses the kernel; kernels see nothing of the engine above this header, so
 * that they can be built and tried alone.
 *
 *   module.c         the module's one door
 *   attn_cuda.c      struct attn_call → struct attn_args; the choice; errors in words
 *   attn_simple.cu   every rule of the contract, any head size; compute_80 PTX
 *   attn_sm90.cu     the Hopper kernel; hopper.cuh: its instructions
 *   attn_decode.cu   few queries: keys split over the multiprocessors, then merged
 *
 * Every address is device memory, the plan's lists included: gv_plan_on (attention.h) puts a plan that a policy made on the
 * host there, once a forward. A launch is queued on the stream and returns; nothing here waits or allocates. */
#ifndef GV_ATTENTION_CUDA_ATTN_CUDA_H
#define GV_ATTENTION_CUDA_ATTN_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "attention/plan.h"

struct attn_ops;
extern const struct attn_ops gv_attn_cuda_ops; /* attn_cuda.c */

enum { ATTN_MAX_SOURCES = 8 }; /* GV_ATTN_SOURCES, which attention.h has beside things that C++ cannot read */

/* [B, N, A, D] of f32 or bf16; the last dimension is contiguous. b is 0 where all rows of a batch share one. */
struct attn_array {
    void      *data; /* NULL: absent */
    enum dtype type;
    int64_t    b, n, a; /* strides in elements */
};
/* f32 [B, A, N]: natural-log LSE, -inf where no key was read. */
struct attn_lse {
    float  *data; /* NULL: absent */
    int64_t b, a; /* strides in elements; that of n is 1 */
};
struct attn_keys {
    struct attn_array k, v;
    int64_t           n;
    float             log_weight;
    const float      *key_bias; /* [n] or NULL */
    bool              always;   /* read whole, after the listed entries; no entry names it */
};
struct attn_result {
    struct attn_array o;
    struct attn_lse   lse;
};

/* Fields as in struct attn_call and struct attn_plan, whose comments are the contract: order of reading, empty rows, seeds,
 * split points. */
struct attn_args {
    int64_t            B, Nq, A, A_kv, D, Dv;
    int64_t            rows, tiles; /* list rows of queries: Nq, or the length of q_order; tiles of GV_TILE_Q of them */
    struct attn_array  q;
    int                n_sources;
    struct attn_keys   source[ATTN_MAX_SOURCES];
    struct attn_result out, seed,
        first;                      /* seed.o.data, first.o.data NULL: absent. seed's and first's lse are there where o is */
    float           scale;          /* of q·k, never 0 */
    const float    *bias;           /* [A, Nq, n of source 0], dense only, or NULL */
    int64_t         bias_a, bias_n; /* its strides */
    const int32_t  *q_order;        /* [rows] or NULL */
    const uint32_t *skip;           /* bits by list row, or NULL */

    const uint32_t    *row; /* NULL: dense over every source */
    const gv_kv_entry *entries;
    const uint32_t    *split, *order; /* or NULL */
    int                list_batch, list_heads;
    struct attn_mask   mask; /* qseg, kseg, allow: device addresses */
};

/* What a kernel may want to know of the device; read once when it is opened. */
struct attn_chip {
    int   major, minor, multiprocessors;
    int   shared_bytes;      /* that one block may ask for */
    void *encode_tensor_map; /* cuTensorMapEncodeTiled of the driver, or NULL */
};

/* Each kernel: whether it can do the call (pure, looks at no address but for alignment and NULL), the scratch it wants (pure,
 * 256-byte aligned when given), and the launch. */
bool        gv_attn_simple_takes(const struct attn_chip *chip, const struct attn_args *a);
cudaError_t gv_attn_simple(const struct attn_chip *chip, const struct attn_args *a, cudaStream_t stream);

bool        gv_attn_sm90_takes(const struct attn_chip *chip, const struct attn_args *a);
size_t      gv_attn_sm90_scratch(const struct attn_chip *chip, const struct attn_args *a);
cudaError_t gv_attn_sm90(const struct attn_chip *chip, const struct attn_args *a, void *scratch, cudaStream_t stream);

bool        gv_attn_decode_takes(const struct attn_chip *chip, const struct attn_args *a);
size_t      gv_attn_decode_scratch(const struct attn_chip *chip, const struct attn_args *a);
cudaError_t gv_attn_decode(const struct attn_chip *chip, const struct attn_args *a, void *scratch, cudaStream_t stream);

/* dst = the union of n partials over disjoint keys: gv_attn_merge. [B, N, A, Dv] each. */
enum { ATTN_MAX_PARTS = 16 };
struct attn_merge_args {
    int64_t            B, N, A, Dv;
    int                n;
    struct attn_result dst, part[ATTN_MAX_PARTS];
};
cudaError_t gv_attn_merge_launch(const struct attn_merge_args *m, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
