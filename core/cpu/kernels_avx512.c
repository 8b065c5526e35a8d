/* AVX-512, and AVX512-BF16 over it: two tables from one file, because the compiler needs one set of flags to see both; nothing
 * of the second is called unless the processor has it.
 *
 * Products. A tile of c stays in registers: 24 of 32, shaped by the panel's width so that loads (one panel vector, or one
 * broadcast of x) stay well under the one multiply a cycle:
 *
 *     columns  64   48   32   16        per step of k (a pair in bf16): 24 multiplies,
 *     rows      6    8   12   24        4+6, 3+8, 2+12, 1+24 loads; broadcasts are two a cycle
 *
 * Rows that are left over take smaller tiles. bf16 without AVX512-BF16 is widened in registers and multiplied in f32. */
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

/* Round to nearest even by hand: vcvtneps2bf16 would flush subnormals, and exists only with AVX512-BF16. */
static inline __m256i narrow(vec v)
{
    const __m512i   u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i   rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);

    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000)), 16));
}

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

/* One tile: MR rows, NV vectors of columns, both constants at every call. */
ALWAYS void tile_f32(const struct gemm_tile *t, int row, const int MR, const int NV)
{
    __m512       acc[TILE_MAX];
    const float *b = t->b;
    float       *c = t->c + row * t->ldc;

    for (int i = 0; i < MR; i++)
        for (int j = 0; j < NV; j++)
            acc[i * NV + j] = t->accumulate ? _mm512_loadu_ps(c + i * t->ldc + 16 * j) : _mm512_setzero_ps();
    for (int64_t p = 0; p < t->n_a; p++) {
        const float *a = (const float *)t->a[p] + row * t->lda;

        for (int64_t k = 0; k < t->k; k++, b += 16 * NV) {
            __m512 v[4];

            for (int j = 0; j < NV; j++)
                v[j] = _mm512_loadu_ps(b + 16 * j);
            for (int i = 0; i < MR; i++)
                for (int j = 0; j < NV; j++)
                    acc[i * NV + j] = _mm512_fmadd_ps(_mm512_set1_ps(a[i * t->lda + k]), v[j], acc[i * NV + j]);
        }
    }
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < NV; j++)
            _mm512_storeu_ps(c + i * t->ldc + 16 * j, acc[i * NV + j]);
}

static inline int pair_at(const uint16_t *a)
{
    int pair;

    memcpy(&pair, a, sizeof pair);
    return pair;
}

/* The same in bf16: a step is a pair of k. With native, vdpbf16ps; else both halves are widened and multiplied in f32. */
ALWAYS __m512 multiply_pair(__m512 acc, __m512i b, int a, bool native)
{
    const __m512i even = _mm512_slli_epi32(b, 16), odd = _mm512_and_si512(b, _mm512_set1_epi32((int)0xffff0000));

    if (native)
        return _mm512_dpbf16_ps(acc, (__m512bh)b, (__m512bh)_mm512_set1_epi32(a));
    acc = _mm512_fmadd_ps(_mm512_castsi512_ps(even), _mm512_castsi512_ps(_mm512_set1_epi32((int)((unsigned)a << 16))), acc);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(odd), _mm512_castsi512_ps(_mm512_set1_epi32((int)((unsigned)a & 0xffff0000u))), acc);
}

ALWAYS void tile_bf16(const struct gemm_tile *t, int row, const int MR, const int NV, bool native)
{
    __m512          acc[TILE_MAX];
    const uint16_t *b = t->b;
    float          *c = t->c + row * t->ldc;

    for (int i = 0; i < MR; i++)
        for (int j = 0; j < NV; j++)
            acc[i * NV + j] = t->accumulate ? _mm512_loadu_ps(c + i * t->ldc + 16 * j) : _mm512_setzero_ps();
    for (int64_t p = 0; p < t->n_a; p++) {
        const uint16_t *a = (const uint16_t *)t->a[p] + row * t->lda;

        for (int64_t k = 0; k < t->k; k += 2, b += 32 * NV) {
            __m512i v[4];

            for (int j = 0; j < NV; j++)
                v[j] = _mm512_loadu_si512(b + 32 * j);
            for (int i = 0; i < MR; i++)
                for (int j = 0; j < NV; j++)
                    acc[i * NV + j] = multiply_pair(acc[i * NV + j], v[j], pair_at(a + i * t->lda + k), native);
        }
    }
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < NV; j++)
            _mm512_storeu_ps(c + i * t->ldc + 16 * j, acc[i * NV + j]);
}

/* Rows [*row, rows) in tiles of MR, as far as they go. */
ALWAYS void tiles(const struct gemm_tile *t, int *row, const int MR, const int NV, const int kind)
{
    for (; *row + MR <= t->rows; *row += MR) {
        if (kind == 0)
            tile_f32(t, *row, MR, NV);
        else
            tile_bf16(t, *row, MR, NV, kind == 2);
    }
}

ALWAYS void gemm(const struct gemm_tile *t, const int kind)
{
    int row = 0;

    switch (t->width) {
    case 64:
        tiles(t, &row, 6, 4, kind), tiles(t, &row, 3, 4, kind), tiles(t, &row, 1, 4, kind);
        break;
    case 48:
        tiles(t, &row, 8, 3, kind), tiles(t, &row, 4, 3, kind), tiles(t, &row, 1, 3, kind);
        break;
    case 32:
        tiles(t, &row, 12, 2, kind), tiles(t, &row, 6, 2, kind), tiles(t, &row, 3, 2, kind), tiles(t, &row, 1, 2, kind);
        break;
    default:
        tiles(t, &row, 24, 1, kind), tiles(t, &row, 12, 1, kind), tiles(t, &row, 6, 1, kind), tiles(t, &row, 3, 1, kind);
        tiles(t, &row, 1, 1, kind);
        break;
    }
}

static void gemm_f32_avx512(const struct gemm_tile *t)
{
    gemm(t, 0);
}

static void gemm_bf16_avx512(const struct gemm_tile *t)
{
    gemm(t, 1);
}

static void gemm_bf16_avx512bf16(const struct gemm_tile *t)
{
    gemm(t, 2);
}

void gv_kernels_avx512(struct cpu_kernels *k)
{
    fill_rows_vec(k);
    k->name = "avx512";
    k->panel = 64;
    k->gemm_f32 = gemm_f32_avx512;
    k->gemm_bf16 = gemm_bf16_avx512;
}

void gv_kernels_avx512bf16(struct cpu_kernels *k)
{
    k->name = "avx512bf16";
    k->gemm_bf16 = gemm_bf16_avx512bf16;
}
