/* The one attention call. Lists of key blocks per query tile in, (output, log-sum-exp) out, partial results merged exactly.
 *
 *   layout   what the tokens are: order, positions           attention/layout.h
 *   policy   which pairs matter                              attention/policy.h
 *   plan     the same, as work: lists of key entries         attention/plan.h
 *   kernel   does the work; knows no policy and no video     attention/cpu, attention/cuda
 *   cache    keys, values and partials from before           attention/cache.h
 *
 * Everything composite (cached prefixes, cached complements, ring steps, split decoding) is a merge of partials by their
 * LSE, which is the natural logarithm of Σ exp(scaled score): see gv_attn_merge. */
#ifndef GV_ATTENTION_ATTENTION_H
#define GV_ATTENTION_ATTENTION_H

#include "attention/plan.h"
#include "core/ops.h"

enum { GV_ATTN_SOURCES = 8, GV_ATTN_PARTS = 16, GV_ORDERED_MAX_HEAD = 1024 };

/* One source of keys and values: a block's own, extra context, text, memory, pages. B is 1 where all rows share it. */
struct attn_source {
    struct tensor k, v;       /* [B or 1, N, A_kv, D], [B or 1, N, A_kv, Dv]; act type, last dimension contiguous */
    float         log_weight; /* added to every score of this source */
    struct tensor key_bias;   /* f32 [N] added to the scores of each key, or absent */
    bool          always;     /* every key is read by every query; the plan's entries do not name this source */
};

/* A result that can be united with others: normalised output and LSE. */
struct attn_partial {
    struct tensor o;   /* f32 or act type [B, Nq, A, Dv] */
    struct tensor lse; /* f32 [B, A, Nq]; -inf where no key was read, and o is then 0 */
};

/* Each head's tokens in an order of its own: token n of head a, in the lists, is row table[of[a]][n] of q, of source 0's keys and
 * values, and of out, seed and first. Kernels read and write where the tokens lie, so an order costs no copy. With as many keys in
 * source 0 as queries, no grouped queries, no q_order, no bias (of source 0), no mask of segments; heads of up to
 * GV_ORDERED_MAX_HEAD, on the CPU. */
struct attn_head_order {
    const int32_t *table; /* host [any][Nq], each a permutation */
    const uint8_t *of;    /* host [A] */
};

struct attn_call {
    struct tensor              q; /* [B, Nq, A, D]; A is a multiple of A_kv (grouped queries) */
    int                        n_sources;
    struct attn_source         source[GV_ATTN_SOURCES];
    struct attn_partial        out;   /* o [B, Nq, A, Dv] act type or f32; lse may be absent */
    const struct attn_plan    *plan;  /* NULL = dense over every source */
    float                      scale; /* of q·k; 0 = 1/sqrt(D); UMT5 passes 1 */
    struct tensor              bias;  /* f32 [A, Nq, N of source 0] added to the scaled scores, or absent (UMT5); dense only */
    const struct attn_partial *seed;  /* start from this partial; the lists then hold only what it does not */
    const struct attn_partial *first; /* keep here the partial of each list's first part (plan->split), seed included */
    const uint32_t            *skip;  /* host bitmap of list rows that are not computed: their output is left as it was */
    struct tensor              q_order; /* i32 [M], M <= Nq, distinct: row i of the lists is row q_order[i] of q, out, seed,
                                           first and bias; rows it does not name are left as they were. Or absent */
    const struct attn_head_order *head_order; /* or NULL */
};

/* Order of reading, which fixes the result to the bit: the row's entries as listed (dense: the sources that are not
 * `always`, in order, cut at multiples of 64), then the `always` sources in order. They belong to the second part of a
 * split list. Any number of threads, and any cut of the queries into tasks, gives the same bits. */

/* Check, choose a kernel, run it. On the null device: the checks, the kernel's scratch, the FLOPs. Fails the run with INTERNAL on shapes that
 * do not fit, UNSUPPORTED on what the device's kernels lack. */
void gv_attention(struct run *r, const struct attn_call *c);

/* p with its lists where the run's device reads them: in scratch, until the caller's mark; on the CPU p as it is. A call does it
 * itself for a plan that lies on the host; whoever makes several calls with one plan does it once. n_queries, n_keys: lengths of
 * the mask's qseg and kseg. */
struct attn_plan gv_plan_on(struct run *r, const struct attn_plan *p, int64_t n_queries, int64_t n_keys);

/* The common case: o = softmax(q kᵀ / sqrt(D)) v, all [B, N, A, D]. */
void gv_attention_dense(struct run *r, struct tensor o, struct tensor q, struct tensor k, struct tensor v);

/* dst = the union of up to GV_ATTN_PARTS partials over disjoint keys, in f32; dst may be parts[0]. An empty part (LSE = -inf) changes nothing,
 * bit for bit. */
void gv_attn_merge(struct run *r, const struct attn_partial *dst, const struct attn_partial *parts, int n);

#endif
