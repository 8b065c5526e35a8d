/* What the CPU kernels of attention/ share: how a list row is read, how tensors of any act type are read, and the choice
 * between the plain C kernel and the blocked one. Only attention.c and the files of this folder include it.
 *
 *   attn_walk.c    a list row → segments of keys, in the order that the contract fixes
 *   attn_c.c       one query row at a time; every rule of the contract, nothing fast: the reference
 *   attn_flash.c   the blocked kernel's plan of work: tasks, packing, groups of keys; portable
 *   attn_avx2.c    its inner loops: f32
 *   attn_avx512.c  its inner loops: f32, and bf16 products where the processor has them
 *   scores_cpu.c   block scores, for policies that choose
 *   scores_flash.c the dear ones of them, with the same inner loops */
#ifndef GV_ATTENTION_CPU_ATTN_CPU_H
#define GV_ATTENTION_CPU_ATTN_CPU_H

#include <string.h>

#include "attention/attention.h"
#include "attention/scores.h"

/* A run of keys of one source that a tile reads: at most 64. */
struct attn_segment {
    int64_t start;
    int     source, length;
    bool    masked; /* the plan's rule holds inside */
    int     part;   /* 1 behind the plan's split point; always 0 in a plan without one */
};

/* One list row being read. */
struct attn_walk {
    const struct attn_call *c;
    const gv_kv_entry      *entry, *split, *end; /* NULL when dense */
    bool                    always;              /* in the always sources (or dense) */
    int                     source;
    int64_t                 start;
};

/* Row of lists for tile `tile` of (batch b, head h). */
int64_t gv_attn_row(const struct attn_call *c, int64_t b, int64_t h, int64_t tile);
void    gv_attn_walk(struct attn_walk *w, const struct attn_call *c, int64_t b, int64_t h, int64_t tile);
bool    gv_attn_walk_next(struct attn_walk *w, struct attn_segment *s); /* false when there is no more */
bool    gv_attn_skipped(const struct attn_call *c, int64_t b, int64_t h, int64_t tile);

/* Rows of the lists; the row of q that stands behind one for head h; and the row of source s behind its token j. */
static inline int64_t attn_rows(const struct attn_call *c)
{
    return present(c->q_order) ? c->q_order.dim[0] : c->q.dim[1];
}
static inline const int32_t *attn_order_of(const struct attn_call *c, int64_t h)
{
    return c->head_order ? c->head_order->table + c->head_order->of[h] * c->q.dim[1]
                         : (const int32_t *)c->q_order.data; /* NULL where it is absent */
}
static inline int64_t attn_q_row(const struct attn_call *c, int64_t h, int64_t i)
{
    const int32_t *order = attn_order_of(c, h);

    return order ? order[i] : i;
}
static inline int64_t attn_key_row(const struct attn_call *c, int64_t h, int source, int64_t j)
{
    return c->head_order && source == 0 ? attn_order_of(c, h)[j] : j;
}
/* The number by which a mask knows row q of q: its place in the head's order, which list row i is; else q itself. */
static inline int64_t attn_q_place(const struct attn_call *c, int64_t i, int64_t q)
{
    return c->head_order ? i : q;
}
static inline int64_t attn_tiles(const struct attn_call *c)
{
    return (attn_rows(c) + GV_TILE_Q - 1) / GV_TILE_Q;
}
float gv_attn_scale(const struct attn_call *c);

static inline float bf16_to_f32(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float          f;

    memcpy(&f, &bits, sizeof f);
    return f;
}
/* Round to nearest even; a NaN stays one. */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Address of element (b, n, a, 0) of [B or 1, N, A, D]. */
static inline void *attn_at(struct tensor t, int64_t b, int64_t n, int64_t a)
{
    const int64_t i = (t.dim[0] == 1 ? 0 : b) * t.stride[0] + n * t.stride[1] + a * t.stride[2];

    return (char *)t.data + i * (t.type == GV_BF16 ? 2 : 4);
}
static inline float *attn_lse_at(struct tensor t, int64_t b, int64_t a, int64_t n)
{
    return (float *)t.data + b * t.stride[0] + a * t.stride[1] + n;
}

/* A vector of f32 or bf16 to f32 and back. */
void gv_attn_read(float *dst, const void *src, enum dtype type, int64_t n);
void gv_attn_write(void *dst, enum dtype type, const float *src, int64_t n);

/* The whole call on a CPU device; on the null device that stands for one, its scratch. */
void gv_attn_cpu(struct run *r, const struct attn_call *c);
void gv_attn_c(struct run *r, const struct attn_call *c);
void gv_attn_merge_cpu(struct run *r, const struct attn_partial *dst, const struct attn_partial *parts, int n);

enum { GV_SCORE_MAX_HEAD = 1024 };
/* chunks: NULL = every block for itself */
void gv_score_pooled_cpu(struct run *r, const struct score_call *c, struct tensor q_same, struct tensor k_same,
                         const struct chunking *chunks);
void gv_score_antidiagonal_cpu(struct run *r, const struct score_call *c, int stride);
void gv_score_exact_cpu(struct run *r, const struct score_call *c, struct tensor lse);
void gv_score_lines_cpu(struct run *r, struct tensor q, struct tensor k, int64_t rows, struct tensor column,
                        struct tensor distance);

#endif
