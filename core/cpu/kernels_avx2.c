/* AVX2 with FMA and F16C. The row kernels are those of AVX-512 on shorter vectors (kernels_vec.h).
 *
 * Products: panels of 16 columns, two vectors; a tile of six rows keeps 12 sums in the 16 registers. bf16 is widened in
 * registers, four rows at a time, and multiplied in f32: it saves memory, not time. */
#include <immintrin.h>
#include <math.h>

#include "core/cpu/kernels.h"

/* ---- the vector of kernels_vec.h --------------------------------------------------------------------------------------------- */

typedef __m256 vec;
enum { LANES = 8, PANEL = 16 };

static inline vec set(float f)
{
    return _mm256_set1_ps(f);
}

static inline vec widen(__m128i bf16)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
}

static inline __m128i narrow(vec v)
{
    const __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256  nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256i high = _mm256_srli_epi32(
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan)), 16);
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x88);

    return _mm256_castsi256_si128(halves);
}

static inline vec get(const void *p, enum dtype type, int64_t i, int m)
{
    const size_t size = type == GV_F32 ? sizeof(float) : sizeof(uint16_t);
    const char  *at = (const char *)p + (size_t)i * size;
    float        part[LANES] = { 0 };

    if (m < LANES) {
        memcpy(part, at, (size_t)m * size);
        at = (const char *)part;
    }
    if (type == GV_F32)
        return _mm256_loadu_ps((const float *)(const void *)at);
    const __m128i raw = _mm_loadu_si128((const __m128i *)(const void *)at);

    return type == GV_BF16 ? widen(raw) : _mm256_cvtph_ps(raw);
}

static inline void put(void *p, enum dtype type, int64_t i, int m, vec v)
{
    const size_t size = type == GV_F32 ? sizeof(float) : sizeof(uint16_t);
    char        *at = (char *)p + (size_t)i * size;
    float        part[LANES];
    char        *to = m < LANES ? (char *)part : at;

    if (type == GV_F32)
        _mm256_storeu_ps((float *)(void *)to, v);
    else
        _mm_storeu_si128((__m128i *)(void *)to,
                         type == GV_BF16 ? narrow(v) : _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    if (m < LANES)
        memcpy(at, part, (size_t)m * size);
}

static inline vec plus(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

static inline vec minus(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}

static inline vec times(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}

static inline vec over(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}

static inline vec madd(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vec most(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

static inline vec least(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}

static inline float sum(vec v)
{
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline vec nearest(vec v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* n from -126 to 127, as exponential2() gives it. */
static inline vec power2(vec v, vec n)
{
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);

    return _mm256_mul_ps(v, _mm256_castsi256_ps(exponent));
}

static inline vec negative(vec v, vec a, vec b)
{
    return _mm256_blendv_ps(b, a, v);
}

static inline vec only(vec v, int m)
{
    const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);

    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(m), lane)));
}

static inline bool all_finite(vec v)
{
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    const __m256i full = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(v), exponent), exponent);

    return !_mm256_movemask_epi8(full);
}

static inline void turn_pairs(float *p, vec c, vec s)
{
    const __m256i low = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0), high = _mm256_set_epi32(7, 7, 6, 6, 5, 5, 4, 4);
    const vec     a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + LANES);

    _mm256_storeu_ps(p, _mm256_fmaddsub_ps(a, _mm256_permutevar8x32_ps(c, low),
                                           times(_mm256_permute_ps(a, 0xb1), _mm256_permutevar8x32_ps(s, low))));
    _mm256_storeu_ps(p + LANES, _mm256_fmaddsub_ps(b, _mm256_permutevar8x32_ps(c, high),
                                                   times(_mm256_permute_ps(b, 0xb1), _mm256_permutevar8x32_ps(s, high))));
}

#include "core/cpu/kernels_vec.h"

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS void tile_load(__m256 *acc, const struct gemm_tile *t, const float *c, const int MR)
{
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < 2; j++)
            acc[2 * i + j] = t->accumulate ? _mm256_loadu_ps(c + i * t->ldc + LANES * j) : _mm256_setzero_ps();
}

ALWAYS void tile_store(const __m256 *acc, const struct gemm_tile *t, float *c, const int MR)
{
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < 2; j++)
            _mm256_storeu_ps(c + i * t->ldc + LANES * j, acc[2 * i + j]);
}

ALWAYS void tile_f32(const struct gemm_tile *t, int row, const int MR)
{
    __m256       acc[12];
    const float *b = t->b;
    float       *c = t->c + row * t->ldc;

    tile_load(acc, t, c, MR);
    for (int64_t p = 0; p < t->n_a; p++) {
        const float *a = (const float *)t->a[p] + row * t->lda;

        for (int64_t k = 0; k < t->k; k++, b += PANEL) {
            const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + LANES);

            for (int i = 0; i < MR; i++) {
                const __m256 x = _mm256_broadcast_ss(a + i * t->lda + k);

                acc[2 * i] = _mm256_fmadd_ps(x, b0, acc[2 * i]);
                acc[2 * i + 1] = _mm256_fmadd_ps(x, b1, acc[2 * i + 1]);
            }
        }
    }
    tile_store(acc, t, c, MR);
}

ALWAYS __m256 even_of(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

ALWAYS __m256 odd_of(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

ALWAYS void tile_bf16(const struct gemm_tile *t, int row, const int MR)
{
    __m256          acc[12];
    const uint16_t *b = t->b;
    float          *c = t->c + row * t->ldc;

    tile_load(acc, t, c, MR);
    for (int64_t p = 0; p < t->n_a; p++) {
        const uint16_t *a = (const uint16_t *)t->a[p] + row * t->lda;

        for (int64_t k = 0; k < t->k; k += 2, b += 2 * PANEL) {
            const __m256i b0 = _mm256_loadu_si256((const void *)b), b1 = _mm256_loadu_si256((const void *)(b + PANEL));

            for (int i = 0; i < MR; i++) {
                int pair;

                memcpy(&pair, a + i * t->lda + k, sizeof pair);
                const __m256i x = _mm256_set1_epi32(pair);

                acc[2 * i] = _mm256_fmadd_ps(even_of(x), even_of(b0), acc[2 * i]);
                acc[2 * i + 1] = _mm256_fmadd_ps(even_of(x), even_of(b1), acc[2 * i + 1]);
                acc[2 * i] = _mm256_fmadd_ps(odd_of(x), odd_of(b0), acc[2 * i]);
                acc[2 * i + 1] = _mm256_fmadd_ps(odd_of(x), odd_of(b1), acc[2 * i + 1]);
            }
        }
    }
    tile_store(acc, t, c, MR);
}

static void gemm_f32_avx2(const struct gemm_tile *t)
{
    int row = 0;

    for (; row + 6 <= t->rows; row += 6)
        tile_f32(t, row, 6);
    for (; row + 3 <= t->rows; row += 3)
        tile_f32(t, row, 3);
    for (; row < t->rows; row++)
        tile_f32(t, row, 1);
}

static void gemm_bf16_avx2(const struct gemm_tile *t)
{
    int row = 0;

    for (; row + 4 <= t->rows; row += 4)
        tile_bf16(t, row, 4);
    for (; row < t->rows; row++)
        tile_bf16(t, row, 1);
}

void gv_kernels_avx2(struct cpu_kernels *k)
{
    fill_rows_vec(k);
    k->name = "avx2";
    k->panel = PANEL;
    k->gemm_f32 = gemm_f32_avx2;
    k->gemm_bf16 = gemm_bf16_avx2;
}
