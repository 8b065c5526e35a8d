/* Between the blocked kernels' plan of work (attn_flash.c, scores_flash.c) and their inner loops (attn_avx2.c, attn_avx512.c).
 *
 * Queries lie across the lanes, keys and channels down the rows, so that maximum, sum and rescaling are lane by lane and no
 * shuffle is needed between the two products:
 *
 *     scores   S[key][32 queries]     =  K[key][d] · Q[d][32]         keys broadcast
 *     output   acc[channel][32]      +=  V[key][channel] · P[key][32]  values broadcast
 *
 * Everything packed is counted in 32-bit words, which hold one f32 or a pair of bf16 neighbours along the summed dimension,
 * as vdpbf16ps wants them; the two types then share every layout:
 *
 *     Q  [steps][32 queries]              steps = words of one head: D or D/2
 *     K  [panel of 8 keys][steps][8]
 *     V  [block of 64 keys][panel of 8 channels][64 or 32 key words][8]
 *     P  [key words][32 queries] */
#ifndef GV_ATTENTION_CPU_ATTN_FLASH_H
#define GV_ATTENTION_CPU_ATTN_FLASH_H

#include "attention/cpu/attn_cpu.h"

enum {
    FLASH_LANES = 32,  /* queries of one pass: 2 AVX-512 registers */
    FLASH_PANEL = 8,   /* keys or channels that a register tile holds: 8 x 2 accumulators of 32 registers */
    FLASH_GROUP = 256, /* keys between two rescalings: S is 32 KiB and P 16, beside 8 KiB of Q: L1 and L2 of any core */
};

/* Values of some consecutive keys, from the first channel panel on. */
struct flash_values {
    const uint32_t *words;
    int             steps; /* key words */
};

struct attn_inner {
    const char *name;
    int         per_word; /* 2: bf16, 1: f32 */
    /* S = K·Q · scale + add[row], over `panels` panels. */
    void (*scores)(float *s, const uint32_t *q, const uint32_t *k, int panels, int64_t steps, float scale, const float *add);
    /* S is in powers of two. m, l: running maximum and sum of 32 queries; keep: what the old sum was multiplied by.
     * rows is a multiple of FLASH_PANEL; p may be s where per_word is 1. */
    void (*soften)(uint32_t *p, const float *s, int rows, float *m, float *l, float *keep);
    /* sum[lane] = Σ 2^(s[row][lane] - from[lane]) over any number of rows; a lane whose from is +inf gets 0. */
    void (*mass)(float *sum, const float *s, int rows, const float *from);
    /* acc = acc · keep + V·P over `panels` panels of channels, panel_words apart. */
    void (*accumulate)(float *acc, const uint32_t *p, const struct flash_values *v, int n, int64_t panels, int64_t panel_words,
                       const float *keep);
    /* Optional: faster ways to do what attn_flash.c does in C, where both sides are bf16 (packing) and for whole groups of 16
     * rows (finish). They return false when a shape is not theirs. */
    bool (*pack_rows)(uint32_t *dst, const void *src, enum dtype type, int64_t stride, int lanes, int rows, int64_t D);
    bool (*pack_values)(uint32_t *dst, const void *src, enum dtype type, int64_t stride, int rows, int64_t Dv,
                        int64_t panel_words);
    bool (*finish)(void *const *row, enum dtype type, const float *acc, const float *inv, int64_t Dv);
    /* s[key][lane] += row[lane][key] · log2(e), for `keys` keys and all lanes; attn_flash.c does it one by one. */
    void (*add_bias)(float *s, const float *const *row, int keys);
};

/* For processors with CPU_AVX2, CPU_AVX512, CPU_AVX512BF16. */
extern const struct attn_inner gv_attn_avx2_f32, gv_attn_avx512_f32, gv_attn_avx512_bf16;
/* bf16 products where everything is bf16 and the processor has them; else f32, of the widest kind; NULL: plain C. */
const struct attn_inner *gv_attn_inner(const struct device *d, bool bf16);

/* n rows of D elements, `stride` elements apart, to words. K: lanes FLASH_PANEL, panel after panel. Q: lanes FLASH_LANES. Rows
 * up to a whole panel or FLASH_LANES are zeroed. */
struct flash_rows {
    const void *data;
    enum dtype  type;
    int64_t     stride;
    int         n;
    int64_t     D;
};
void gv_flash_pack_rows(const struct attn_inner *in, uint32_t *dst, const struct flash_rows *src, int lanes);

void gv_attn_flash(struct run *r, const struct attn_call *c, const struct attn_inner *inner);

/* scores_flash.c: scores.h's exact mass (stride 1, lse) and antidiagonal sums (lse absent). */
void gv_score_flash(struct run *r, const struct score_call *c, int stride, struct tensor lse, const struct attn_inner *inner);

#endif
