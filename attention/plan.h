/* struct attn_plan: which keys each query tile reads. The only thing a sparse policy makes and the only thing a kernel reads.
 *
 * A row is one query tile of one (batch, head): row = (batch * list_heads + head) * tiles + tile. Its entries are key
 * segments of up to 64 tokens. In each part of a row the unmasked entries come first, ascending by (source, start), then the
 * masked ones, ascending: the hot loop holds no mask code. entries == NULL means dense. An empty row is legal: O = 0,
 * LSE = -inf. */
#ifndef GV_ATTENTION_PLAN_H
#define GV_ATTENTION_PLAN_H

#include "core/tensor.h"

/* start:22 (token within its source) | length-1:6 (1..64) | source:3 | masked:1. All ones = padding.
 * Entries of 64 tokens that start at a multiple of 64 are the fast path; any start is legal. */
typedef uint32_t gv_kv_entry;
#define GV_KV_PADDING UINT32_MAX

static inline gv_kv_entry kv_entry(uint32_t start, uint32_t length, uint32_t source, bool masked)
{
    return start << 10 | (length - 1) << 4 | source << 1 | (uint32_t)masked;
}
static inline uint32_t kv_start(gv_kv_entry e)
{
    return e >> 10;
}
static inline uint32_t kv_length(gv_kv_entry e)
{
    return (e >> 4 & 63) + 1;
}
static inline uint32_t kv_source(gv_kv_entry e)
{
    return e >> 1 & 7;
}
static inline bool kv_masked(gv_kv_entry e)
{
    return e & 1;
}

enum { GV_TILE_Q = 128, GV_KV_BLOCK = 64 };

/* The element rule, applied inside masked entries only: query i may read key j ... Positions are those of the whole
 * sequence: query_start is the position of row 0 of q, key_start[source] of a source's token 0. A call with q_order does
 * not move positions: the query of list row n is row q_order[n] of q, and i counts those. One with head_order does: i and j
 * count tokens in the head's order. */
enum attn_mask_kind {
    MASK_NONE,         /* always */
    MASK_CAUSAL,       /* if j <= i + a and (b = 0 or j > i + a - b or j < sink): b latest keys and a sink */
    MASK_WINDOW,       /* if i - a <= j <= i + b or j < sink */
    MASK_BLOCK_CAUSAL, /* if j < (i / a + 1) · a */
    MASK_SEGMENTS      /* if bit kseg[j] of allow[qseg[i]] is set */
};
struct attn_mask {
    enum attn_mask_kind kind;
    int64_t             a, b, sink;
    int64_t             query_start, key_start[8];
    const uint8_t      *qseg, *kseg; /* [Nq], [N of source 0]; values < 64. By row, not by position; masked entries of
                                        other sources are refused */
    const uint64_t     *allow;       /* [64] */
};

struct device;
struct attn_plan {
    const struct device *device; /* whose memory the lists and the mask's arrays lie in; NULL: the host's, as policies make them */
    int                tile_q;            /* GV_TILE_Q */
    int                batch, list_heads; /* 1 = shared */
    int                tiles;
    const uint32_t    *row;     /* [rows + 1] into entries */
    const gv_kv_entry *entries; /* NULL = dense */
    const uint32_t    *split;   /* [rows] first entry of the second part (the first part's partial can be kept), or NULL */
    const uint32_t    *order;   /* [rows] schedule: head-major, longest rows first; or NULL */
    struct attn_mask   mask;
    double             density; /* pairs computed / all pairs */
};

/* Positions that row q of q may read: lo..hi, and all below sink. Not for segments. */
struct mask_range {
    int64_t lo, hi, sink;
};
struct mask_range gv_mask_range(const struct attn_mask *m, int64_t q);
/* True if row q of q may read token k of a source under the rule. */
bool gv_mask_allows(const struct attn_mask *m, int64_t q, int source, int64_t k);

/* Refuses a plan that would count a key twice, reads out of range, is out of order, or hides a pair in an unmasked entry.
 * n_keys: tokens of each source. For tests and debug builds: O(entries). */
gv_status gv_plan_check(const struct attn_plan *p, int64_t n_queries, int n_sources, const int64_t *n_keys, struct error *e);

/* What a policy answers about the pairs of a query tile and a key block. */
enum block_verdict {
    BLOCK_NONE, /* no pair */
    BLOCK_SOME, /* those that the plan's mask allows */
    BLOCK_ALL
};
struct plan_block {
    int     head;   /* of list_heads */
    int64_t q0, q1; /* query rows [q0, q1) */
    int64_t k0, k1; /* keys [k0, k1) of source 0 */
};
struct plan_shape {
    int              list_heads;
    int64_t          n_queries, n_keys;
    struct attn_mask mask;
};
/* A plan in host memory from a verdict on every (head, tile, block of GV_KV_BLOCK), with its order and density. */
gv_status gv_plan_from_blocks(struct attn_plan *p, const struct plan_shape                                           *s,
                              enum block_verdict (*verdict)(const void *arg, const struct plan_block *b), const void *arg,
                              struct error *e);
/* A plan of exactly the pairs that the shape's mask (any kind but segments) allows. */
gv_status gv_plan_from_mask(struct attn_plan *p, const struct plan_shape *s, struct error *e);
/* Gives back what a policy's build made. */
void gv_plan_free(struct attn_plan *p);

#endif
