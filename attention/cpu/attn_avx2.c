/* Inner loops of the blocked kernel for AVX2 and FMA, in f32 (bf16 is widened when it is packed). Layouts and meaning:
 * attn_flash.h. A register tile is 4 rows x 16 queries: 8 accumulators of 16 registers, enough for two products a cycle. */
#include <immintrin.h>
#include <math.h>

#include "attention/cpu/attn_flash.h"

enum { ROWS = 4, LANES = 16 };

typedef __m256 tile[ROWS][2];

/* acc += rows [steps][8] · lanes [steps][32], for 4 of the rows and 16 of the lanes. */
static inline __attribute__((always_inline)) void multiply(tile acc, const float *rows, const float *lanes, int64_t steps)
{
    for (int64_t t = 0; t < steps; t++, rows += FLASH_PANEL, lanes += FLASH_LANES) {
        const __m256 b0 = _mm256_load_ps(lanes), b1 = _mm256_load_ps(lanes + 8);
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            const __m256 a = _mm256_broadcast_ss(rows + i);
            acc[i][0] = _mm256_fmadd_ps(a, b0, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(a, b1, acc[i][1]);
        }
    }
}

static void scores(float *s, const uint32_t *q, const uint32_t *k, int panels, int64_t steps, float scale, const float *add)
{
    const __m256 factor = _mm256_set1_ps(scale);

    for (int p = 0; p < panels; p++, k += steps * FLASH_PANEL, s += FLASH_PANEL * FLASH_LANES, add += FLASH_PANEL)
        for (int part = 0; part < 4; part++) {
            const int row = part / 2 * ROWS, lane = part % 2 * LANES;
            tile      acc;
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++)
                acc[i][0] = acc[i][1] = _mm256_setzero_ps();
            multiply(acc, (const float *)k + row, (const float *)q + lane, steps);
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++) {
                const __m256 more = _mm256_set1_ps(add[row + i]);
                float       *to = s + (row + i) * FLASH_LANES + lane;
                _mm256_store_ps(to, _mm256_fmadd_ps(acc[i][0], factor, more));
                _mm256_store_ps(to + 8, _mm256_fmadd_ps(acc[i][1], factor, more));
            }
        }
}

static void accumulate(float *acc, const uint32_t *p, const struct flash_values *v, int n, int64_t panels, int64_t panel_words,
                       const float *keep)
{
    for (int64_t panel = 0; panel < panels; panel++, acc += FLASH_PANEL * FLASH_LANES)
        for (int part = 0; part < 4; part++) {
            const int    row = part / 2 * ROWS, lane = part % 2 * LANES;
            const float *lanes = (const float *)p + lane;
            float       *to = acc + row * FLASH_LANES + lane;
            tile         sum;
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++) {
                sum[i][0] = _mm256_mul_ps(_mm256_load_ps(to + i * FLASH_LANES), _mm256_load_ps(keep + lane));
                sum[i][1] = _mm256_mul_ps(_mm256_load_ps(to + i * FLASH_LANES + 8), _mm256_load_ps(keep + lane + 8));
            }
            for (int i = 0; i < n; i++) {
                multiply(sum, (const float *)v[i].words + panel * panel_words + row, lanes, v[i].steps);
                lanes += v[i].steps * FLASH_LANES;
            }
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++) {
                _mm256_store_ps(to + i * FLASH_LANES, sum[i][0]);
                _mm256_store_ps(to + i * FLASH_LANES + 8, sum[i][1]);
            }
        }
}

/* 2^x for x up to 100: exactly 1 at 0, 0 at and below -126. The polynomial is attn_avx512.c's. A NaN stays one. */
static inline __m256 exp2_of(__m256 x)
{
    const __m256 there = _mm256_cmp_ps(x, _mm256_set1_ps(-126), _CMP_NLE_UQ);
    const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
    __m256       y = _mm256_set1_ps(0x1.5c08e6p-10f);
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0x1.3d0c52p-7f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0x1.c6b6e4p-5f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0x1.ebf918p-3f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0x1.62e428p-1f));
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(there, _mm256_mul_ps(y, _mm256_castsi256_ps(power)));
}

static void soften(uint32_t *words, const float *s, int rows, float *m, float *l, float *keep)
{
    float *p = (float *)words;

    for (int lane = 0; lane < FLASH_LANES; lane += 8) {
        const __m256 before = _mm256_load_ps(m + lane);
        __m256       max = before, sum = _mm256_setzero_ps();

        for (int i = 0; i < rows; i++)
            max = _mm256_max_ps(max, _mm256_load_ps(s + i * FLASH_LANES + lane));
        /* nothing read yet: any finite reference makes every weight 0 */
        const __m256 from = _mm256_andnot_ps(_mm256_cmp_ps(max, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ), max);
        const __m256 old = exp2_of(_mm256_sub_ps(before, from));
        for (int i = 0; i < rows; i++) {
            const __m256 e = exp2_of(_mm256_sub_ps(_mm256_load_ps(s + i * FLASH_LANES + lane), from));
            sum = _mm256_add_ps(sum, e);
            _mm256_store_ps(p + i * FLASH_LANES + lane, e);
        }
        _mm256_store_ps(m + lane, max);
        _mm256_store_ps(keep + lane, old);
        _mm256_store_ps(l + lane, _mm256_fmadd_ps(_mm256_load_ps(l + lane), old, sum));
    }
}

static void mass(float *sum, const float *s, int rows, const float *from)
{
    for (int lane = 0; lane < FLASH_LANES; lane += 8) {
        const __m256 ref = _mm256_load_ps(from + lane);
        __m256       all = _mm256_setzero_ps();

        for (int i = 0; i < rows; i++)
            all = _mm256_add_ps(all, exp2_of(_mm256_sub_ps(_mm256_load_ps(s + i * FLASH_LANES + lane), ref)));
        _mm256_store_ps(sum + lane, all);
    }
}

const struct attn_inner gv_attn_avx2_f32 = {
    .name = "avx2", .per_word = 1, .scores = scores, .soften = soften, .mass = mass, .accumulate = accumulate
};
