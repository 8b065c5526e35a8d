/* AVX-512: its vector for kernels_vec.h, and its products. Included by kernels_avx512.c and kernels_avx512bf16.c alone, which
 * differ in the compiler's flags and so in what the #if below choose.
 *
 * Products. A tile of c stays in registers: 24 of 32, shaped by the panel's width so that loads (one panel vector, or one
 * broadcast of x) stay well under the one multiply a cycle:
 *
 *     columns  64   48   32   16        per step of k (a pair in bf16): 24 multiplies,
 *     rows      6    8   12   24        4+6, 3+8, 2+12, 1+24 loads; broadcasts are two a cycle
 *
 * Rows that are left over take smaller tiles. bf16 without AVX512-BF16 is widened in registers and multiplied in f32. With
 * the panel in L2 a tile runs at 96-100% of the peak for K from 64 to 2048. */
#ifndef GV_CORE_CPU_KERNELS_512_H
#define GV_CORE_CPU_KERNELS_512_H

#include <immintrin.h>
#include <math.h>

#include "core/cpu/kernels.h"

/* ---- the vector of kernels_vec.h --------------------------------------------------------------------------------------------- */

typedef __m512 vec;
enum { LANES = 16 };

static inline __mmask16 first(int m)
{
    return (__mmask16)((1u << m) - 1);
}

static inline vec set(float f)
{
    return _mm512_set1_ps(f);
}

static inline vec widen(__m256i bf16)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
}

/* Round to nearest even; by hand, it is a tenth of a norm. The instruction turns subnormals into zero. */
#if defined(__AVX512BF16__)
static inline __m256i narrow(vec v)
{
    return (__m256i)_mm512_cvtneps_pbh(v);
}
#else
static inline __m256i narrow(vec v)
{
    const __m512i   u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i   rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);

    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000)), 16));
}
#endif

static inline vec get(const void *p, enum dtype type, int64_t i, int m)
{
    const uint16_t *h = (const uint16_t *)p + i;

    if (type == GV_F32)
        return m == LANES ? _mm512_loadu_ps((const float *)p + i) : _mm512_maskz_loadu_ps(first(m), (const float *)p + i);
    const __m256i raw = m == LANES ? _mm256_loadu_si256((const void *)h) : _mm256_maskz_loadu_epi16(first(m), h);

    return type == GV_BF16 ? widen(raw) : _mm512_cvtph_ps(raw);
}

static inline void put(void *p, enum dtype type, int64_t i, int m, vec v)
{
    uint16_t *h = (uint16_t *)p + i;

    if (type == GV_F32) {
        if (m == LANES)
            _mm512_storeu_ps((float *)p + i, v);
        else
            _mm512_mask_storeu_ps((float *)p + i, first(m), v);
        return;
    }
    const __m256i raw = type == GV_BF16 ? narrow(v) : _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);

    if (m == LANES)
        _mm256_storeu_si256((void *)h, raw);
    else
        _mm256_mask_storeu_epi16(h, first(m), raw);
}

static inline vec plus(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

static inline vec minus(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

static inline vec times(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

static inline vec over(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}

static inline vec madd(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vec most(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline vec least(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}

static inline float sum(vec v)
{
    return _mm512_reduce_add_ps(v);
}

static inline vec nearest(vec v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vec power2(vec v, vec n)
{
    return _mm512_scalef_ps(v, n);
}

static inline vec negative(vec v, vec a, vec b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), b, a);
}

static inline vec only(vec v, int m)
{
    return _mm512_maskz_mov_ps(first(m), v);
}

static inline bool all_finite(vec v)
{
    return !_mm512_fpclass_ps_mask(v, 0x99); /* quiet and signalling NaN, both infinities */
}

/* Even lanes a·c - b·s, odd lanes b·c + a·s; each angle serves two lanes. */
static inline void turn_pairs(float *p, vec c, vec s)
{
    const __m512i low = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const vec     a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + LANES);

    _mm512_storeu_ps(p, _mm512_fmaddsub_ps(a, _mm512_permutexvar_ps(low, c),
                                           times(_mm512_permute_ps(a, 0xb1), _mm512_permutexvar_ps(low, s))));
    _mm512_storeu_ps(p + LANES, _mm512_fmaddsub_ps(b, _mm512_permutexvar_ps(high, c),
                                                   times(_mm512_permute_ps(b, 0xb1), _mm512_permutexvar_ps(high, s))));
}

#include "core/cpu/kernels_vec.h"

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

#define ALWAYS static inline __attribute__((always_inline))
enum { TILE_MAX = 24 };

/* The rows of x that a tile reads, by one pointer for three of them: an address is a pointer plus 0, 1 or 2 strides, and 24 rows
 * need no more than the registers there are. */
struct tile_rows {
    const char *p[TILE_MAX / 3];
    int64_t     stride; /* bytes */
};

ALWAYS struct tile_rows tile_rows(const void *a, int64_t row, int64_t stride, const int MR)
{
    struct tile_rows r = { .stride = stride };

#pragma GCC unroll 8
    for (int g = 0; 3 * g < MR; g++)
        r.p[g] = (const char *)a + (row + 3 * g) * stride;
    return r;
}

/* The 32 bits at the front of row i: an f32, or a pair of bf16. */
ALWAYS int tile_front(const struct tile_rows *r, const int i)
{
    int bits;

    memcpy(&bits, r->p[i / 3] + i % 3 * r->stride, sizeof bits);
    return bits;
}

ALWAYS void tile_advance(struct tile_rows *r, const int MR)
{
#pragma GCC unroll 8
    for (int g = 0; 3 * g < MR; g++)
        r->p[g] += sizeof(int);
}

/* What the next tile will read, while this one computes: each row is a new stream, which hardware notices too late. */
ALWAYS void tile_prefetch(const struct tile_rows *r, const int MR)
{
#pragma GCC unroll 24
    for (int i = 0; i < MR; i++)
        _mm_prefetch(r->p[i / 3] + (i % 3 + MR) * r->stride, _MM_HINT_T0);
}

enum { F32, BF16 }; /* kinds of product */

#if defined(__AVX512BF16__)
ALWAYS __m512 multiply_pairs(__m512 acc, __m512i b, __m512i x)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)b, (__m512bh)x);
}
#else
ALWAYS __m512 multiply_pairs(__m512 acc, __m512i b, __m512i x)
{
    const __m512i odd = _mm512_set1_epi32((int)0xffff0000);

    acc = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), acc);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, odd)), _mm512_castsi512_ps(_mm512_and_si512(b, odd)), acc);
}
#endif

ALWAYS __m512 multiply(__m512 acc, __m512i b, int a, const int kind)
{
    const __m512i x = _mm512_set1_epi32(a);

    return kind == BF16 ? multiply_pairs(acc, b, x) : _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(b), acc);
}

/* One tile: MR rows, NV vectors of columns, both constants at every call. A step is one k in f32, a pair in bf16. */
ALWAYS void tile(const struct gemm_tile *t, int row, const int MR, const int NV, const int kind)
{
    const int64_t steps = kind == F32 ? t->k : t->k / 2, stride = t->lda * (kind == F32 ? 4 : 2);
    const char   *b = t->b;
    float        *c = t->c + row * t->ldc;
    __m512        acc[TILE_MAX];

#pragma GCC unroll 24
    for (int i = 0; i < MR * NV; i++)
        acc[i] = t->accumulate ? _mm512_loadu_ps(c + i / NV * t->ldc + 16 * (i % NV)) : _mm512_setzero_ps();
    for (int64_t p = 0; p < t->n_a; p++) {
        struct tile_rows x = tile_rows(t->a[p], row, stride, MR);

        for (int64_t k = 0; k < steps;) {
            const int64_t line = k + 16 < steps ? k + 16 : steps; /* a cache line of each row */

            tile_prefetch(&x, MR);
            for (; k < line; k++, b += 64 * NV) {
                __m512i v[4];

#pragma GCC unroll 4
                for (int j = 0; j < NV; j++)
                    v[j] = _mm512_loadu_si512(b + 64 * j);
#pragma GCC unroll 24
                for (int i = 0; i < MR * NV; i++)
                    acc[i] = multiply(acc[i], v[i % NV], tile_front(&x, i / NV), kind);
                tile_advance(&x, MR);
            }
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < MR * NV; i++)
        _mm512_storeu_ps(c + i / NV * t->ldc + 16 * (i % NV), acc[i]);
}

/* Rows [*row, rows) in tiles of MR, as far as they go. */
ALWAYS void tiles(const struct gemm_tile *t, int *row, const int MR, const int NV, const int kind)
{
    for (; *row + MR <= t->rows; *row += MR)
        tile(t, *row, MR, NV, kind);
}

ALWAYS void gemm(const struct gemm_tile *t, const int kind)
{
    int row = 0;

    switch (t->width) {
    case 64:
        tiles(t, &row, 6, 4, kind), tiles(t, &row, 3, 4, kind), tiles(t, &row, 2, 4, kind), tiles(t, &row, 1, 4, kind);
        break;
    case 48:
        tiles(t, &row, 8, 3, kind), tiles(t, &row, 4, 3, kind), tiles(t, &row, 2, 3, kind), tiles(t, &row, 1, 3, kind);
        break;
    case 32:
        tiles(t, &row, 12, 2, kind), tiles(t, &row, 6, 2, kind), tiles(t, &row, 3, 2, kind), tiles(t, &row, 2, 2, kind);
        tiles(t, &row, 1, 2, kind);
        break;
    default:
        tiles(t, &row, 24, 1, kind), tiles(t, &row, 12, 1, kind), tiles(t, &row, 6, 1, kind), tiles(t, &row, 3, 1, kind);
        tiles(t, &row, 2, 1, kind), tiles(t, &row, 1, 1, kind);
        break;
    }
}

#undef ALWAYS

#endif
