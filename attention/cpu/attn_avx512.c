/* Inner loops of the blocked kernel for AVX-512: f32, and bf16 products with vdpbf16ps. Layouts and meaning: attn_flash.h.
 *
 * A register tile is 8 rows x 32 queries: 16 accumulators, 2 registers of queries, one broadcast row at a time. Per step that
 * is 10 loads for 16 products of 4 (Zen 4) or fewer cycles' latency, so that the products never wait. Measured on Zen 4, tile
 * alone, share of the vdpbf16ps peak: 8x2 98.6% at 64 steps, 4x4 100%, 12x2 98%, 6x4 96%; 8x2 divides both a block of keys and
 * every head size in use, and keeps the 32 queries' P in 16 KiB.
 *
 * vdpbf16ps treats denormals as zero and rounds each pair's sum once; both are far below bf16's own rounding. */
#include <immintrin.h>
#include <math.h>

#include "attention/cpu/attn_flash.h"

typedef __m512 tile[FLASH_PANEL][2];

static inline __m512 product(__m512 sum, __m512i a, __m512i b, const int per_word)
{
    if (per_word == 2)
        return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
}

/* acc += rows [steps][8] · lanes [steps][32]. */
static inline __attribute__((always_inline)) void multiply(tile acc, const uint32_t *rows, const uint32_t *lanes, int64_t steps,
                                                           const int per_word)
{
    for (int64_t t = 0; t < steps; t++, rows += FLASH_PANEL, lanes += FLASH_LANES) {
        const __m512i b0 = _mm512_load_si512(lanes), b1 = _mm512_load_si512(lanes + 16);
#pragma GCC unroll 8
        for (int i = 0; i < FLASH_PANEL; i++) {
            const __m512i a = _mm512_set1_epi32((int)rows[i]);
            acc[i][0] = product(acc[i][0], a, b0, per_word);
            acc[i][1] = product(acc[i][1], a, b1, per_word);
        }
    }
}

static inline __attribute__((always_inline)) void scores(float *s, const uint32_t *q, const uint32_t *k, int panels,
                                                         int64_t steps, float scale, const float *add, const int per_word)
{
    const __m512 factor = _mm512_set1_ps(scale);

    for (int p = 0; p < panels; p++, k += steps * FLASH_PANEL, s += FLASH_PANEL * FLASH_LANES, add += FLASH_PANEL) {
        tile acc;
#pragma GCC unroll 8
        for (int i = 0; i < FLASH_PANEL; i++)
            acc[i][0] = acc[i][1] = _mm512_setzero_ps();
        multiply(acc, k, q, steps, per_word);
#pragma GCC unroll 8
        for (int i = 0; i < FLASH_PANEL; i++) {
            const __m512 more = _mm512_set1_ps(add[i]);
            _mm512_store_ps(s + i * FLASH_LANES, _mm512_fmadd_ps(acc[i][0], factor, more));
            _mm512_store_ps(s + i * FLASH_LANES + 16, _mm512_fmadd_ps(acc[i][1], factor, more));
        }
    }
}

static inline __attribute__((always_inline)) void accumulate(float *acc, const uint32_t *p, const struct flash_values *v, int n,
                                                             int64_t panels, int64_t panel_words, const float *keep,
                                                             const int per_word)
{
    const __m512 keep0 = _mm512_load_ps(keep), keep1 = _mm512_load_ps(keep + 16);

    for (int64_t panel = 0; panel < panels; panel++, acc += FLASH_PANEL * FLASH_LANES) {
        const uint32_t *lanes = p;
        tile            sum;
#pragma GCC unroll 8
        for (int i = 0; i < FLASH_PANEL; i++) {
            sum[i][0] = _mm512_mul_ps(_mm512_load_ps(acc + i * FLASH_LANES), keep0);
            sum[i][1] = _mm512_mul_ps(_mm512_load_ps(acc + i * FLASH_LANES + 16), keep1);
        }
        for (int i = 0; i < n; i++) {
            multiply(sum, v[i].words + panel * panel_words, lanes, v[i].steps, per_word);
            lanes += v[i].steps * FLASH_LANES;
        }
#pragma GCC unroll 8
        for (int i = 0; i < FLASH_PANEL; i++) {
            _mm512_store_ps(acc + i * FLASH_LANES, sum[i][0]);
            _mm512_store_ps(acc + i * FLASH_LANES + 16, sum[i][1]);
        }
    }
}

/* 2^x for x up to 100, exactly 1 at 0 and 0 below -200; relative error 2e-7 (minimax polynomial of degree 5 on [-1/2, 1/2]). A NaN
 * stays one: vmaxps gives its second operand then. */
static inline __m512 exp2_of(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-200), x);
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
    __m512       y = _mm512_set1_ps(0x1.5c08e6p-10f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0x1.3d0c52p-7f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0x1.c6b6e4p-5f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0x1.ebf918p-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0x1.62e428p-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(y, n);
}

/* Two rows of weights become one row of words. */
static inline __attribute__((always_inline)) void put_weights(uint32_t *p, int pair, int half, __m512 even, __m512 odd,
                                                              const int per_word)
{
    if (per_word == 2) {
        const __m256i lo = (__m256i)_mm512_cvtneps_pbh(even), hi = (__m256i)_mm512_cvtneps_pbh(odd);
        const __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(lo), _mm512_slli_epi32(_mm512_cvtepu16_epi32(hi), 16));
        _mm512_store_si512(p + pair * FLASH_LANES + half * 16, both);
        return;
    }
    _mm512_store_ps(p + 2 * pair * FLASH_LANES + half * 16, even);
    _mm512_store_ps(p + (2 * pair + 1) * FLASH_LANES + half * 16, odd);
}

static inline __attribute__((always_inline)) void soften(uint32_t *p, const float *s, int rows, float *m, float *l, float *keep,
                                                         const int per_word)
{
    for (int half = 0; half < 2; half++, s += 16, m += 16, l += 16, keep += 16) {
        __m512 top[4], sum[4];

        for (int i = 0; i < 4; i++) {
            top[i] = _mm512_load_ps(m);
            sum[i] = _mm512_setzero_ps();
        }
        for (int i = 0; i < rows; i += 4)
            for (int j = 0; j < 4; j++)
                top[j] = _mm512_max_ps(top[j], _mm512_load_ps(s + (i + j) * FLASH_LANES));
        const __m512 max = _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
        /* nothing read yet: any finite reference makes every weight 0 */
        const __m512 from =
            _mm512_mask_mov_ps(max, _mm512_cmp_ps_mask(max, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ), _mm512_setzero_ps());
        const __m512 old = exp2_of(_mm512_sub_ps(_mm512_load_ps(m), from));
        for (int i = 0; i < rows; i += 4) {
            __m512 e[4];
            for (int j = 0; j < 4; j++) {
                e[j] = exp2_of(_mm512_sub_ps(_mm512_load_ps(s + (i + j) * FLASH_LANES), from));
                sum[j] = _mm512_add_ps(sum[j], e[j]);
            }
            put_weights(p, i / 2, half, e[0], e[1], per_word);
            put_weights(p, i / 2 + 1, half, e[2], e[3], per_word);
        }
        const __m512 all = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
        _mm512_store_ps(m, max);
        _mm512_store_ps(keep, old);
        _mm512_store_ps(l, _mm512_fmadd_ps(_mm512_load_ps(l), old, all));
    }
}

static void mass(float *sum, const float *s, int rows, const float *from)
{
    for (int half = 0; half < 2; half++, s += 16, sum += 16, from += 16) {
        const __m512 ref = _mm512_load_ps(from);
        __m512       all[4];

        for (int j = 0; j < 4; j++)
            all[j] = _mm512_setzero_ps();
        int i = 0;
        for (; i + 4 <= rows; i += 4)
            for (int j = 0; j < 4; j++)
                all[j] = _mm512_add_ps(all[j], exp2_of(_mm512_sub_ps(_mm512_load_ps(s + (i + j) * FLASH_LANES), ref)));
        for (; i < rows; i++)
            all[0] = _mm512_add_ps(all[0], exp2_of(_mm512_sub_ps(_mm512_load_ps(s + i * FLASH_LANES), ref)));
        _mm512_store_ps(sum, _mm512_add_ps(_mm512_add_ps(all[0], all[1]), _mm512_add_ps(all[2], all[3])));
    }
}

/* ---- transposes ---- */

/* Mask of the first n of 16 words. */
static inline __mmask16 first_of(int64_t n)
{
    return _cvtu32_mask16(n < 16 ? (1u << n) - 1 : 0xffff);
}

/* 16 x 16 words in place. */
static inline __attribute__((always_inline)) void transpose(__m512i x[16])
{
    __m512i y[16];

    for (int i = 0; i < 8; i++) {
        y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        x[4 * i] = _mm512_unpacklo_epi64(y[4 * i], y[4 * i + 2]);
        x[4 * i + 1] = _mm512_unpackhi_epi64(y[4 * i], y[4 * i + 2]);
        x[4 * i + 2] = _mm512_unpacklo_epi64(y[4 * i + 1], y[4 * i + 3]);
        x[4 * i + 3] = _mm512_unpackhi_epi64(y[4 * i + 1], y[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) { /* x[4j + i] holds columns i, i+4, i+8, i+12 of rows 4j.. */
        const __m512i a = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88), b = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xdd), d = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xdd);
        y[i] = _mm512_shuffle_i32x4(a, b, 0x88);
        y[4 + i] = _mm512_shuffle_i32x4(c, d, 0x88);
        y[8 + i] = _mm512_shuffle_i32x4(a, b, 0xdd);
        y[12 + i] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        x[i] = y[i];
}

static bool finish(void *const *row, enum dtype type, const float *acc, const float *inv, int64_t Dv)
{
    for (int64_t d = 0; d < Dv; d += 16) {
        const int64_t   left = Dv - d;
        const __mmask16 some = first_of(left);

        for (int half = 0; half < 2; half++) {
            const __m512 factor = _mm512_load_ps(inv + half * 16);
            __m512i      x[16];
            /* channels past Dv that are not there are not read: acc ends with a whole panel of 8 */
            for (int i = 0; i < 16; i++)
                x[i] = i < left
                           ? _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(acc + (d + i) * FLASH_LANES + half * 16), factor))
                           : _mm512_setzero_si512();
            transpose(x);
            for (int i = 0; i < 16; i++) {
                void *to = row[half * 16 + i];
                if (!to)
                    continue;
                if (type == GV_F32)
                    _mm512_mask_storeu_epi32((float *)to + d, some, x[i]);
                else
                    _mm256_mask_storeu_epi16((uint16_t *)to + d, some, (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(x[i])));
            }
        }
    }
    return true;
}

static void add_bias(float *s, const float *const *row, int keys)
{
    const __m512 log2e = _mm512_set1_ps(0x1.715476p0f);

    for (int half = 0; half < 2; half++)
        for (int k = 0; k < keys; k += 16) {
            __m512i x[16];

            for (int i = 0; i < 16; i++)
                x[i] = _mm512_maskz_loadu_epi32(first_of(keys - k), row[half * 16 + i] + k);
            transpose(x);
            for (int i = 0; i < 16 && k + i < keys; i++) {
                float *to = s + (k + i) * FLASH_LANES + half * 16;
                _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_castsi512_ps(x[i]), log2e, _mm512_load_ps(to)));
            }
        }
}

/* Rows of one type and its packed form alike: words [step][lanes], lanes 8 (keys) or 32 (queries); rows past the end are 0. */
static bool pack_rows_words(uint32_t *dst, const char *src, int64_t stride_bytes, int lanes, int rows, int64_t words)
{
    for (int first = 0; first < rows; first += 16)
        for (int64_t t = 0; t < words; t += 16) {
            const int64_t   left = words - t;
            const __mmask16 some = first_of(left);
            __m512i         x[16];

            for (int i = 0; i < 16; i++)
                x[i] = first + i < rows ? _mm512_maskz_loadu_epi32(some, src + (first + i) * stride_bytes + 4 * t)
                                        : _mm512_setzero_si512();
            transpose(x);
            for (int i = 0; i < 16 && i < left; i++)
                if (lanes == FLASH_PANEL) {
                    uint32_t *to = dst + (first / 8 * words + t + i) * FLASH_PANEL;
                    _mm256_store_si256((__m256i *)to, _mm512_castsi512_si256(x[i]));
                    if (first + 8 < rows)
                        _mm256_store_si256((__m256i *)(to + words * FLASH_PANEL), _mm512_extracti64x4_epi64(x[i], 1));
                } else {
                    _mm512_store_si512(dst + (t + i) * FLASH_LANES + first, x[i]);
                }
        }
    if (lanes == FLASH_LANES && rows <= 16)
        for (int64_t t = 0; t < words; t++)
            _mm512_store_si512(dst + t * FLASH_LANES + 16, _mm512_setzero_si512());
    return true;
}

static bool pack_rows_f32(uint32_t *dst, const void *src, enum dtype type, int64_t stride, int lanes, int rows, int64_t D)
{
    return type == GV_F32 && rows && pack_rows_words(dst, src, stride * 4, lanes, rows, D);
}

static void scores_f32(float *s, const uint32_t *q, const uint32_t *k, int panels, int64_t steps, float scale, const float *add)
{
    scores(s, q, k, panels, steps, scale, add, 1);
}

static void soften_f32(uint32_t *p, const float *s, int rows, float *m, float *l, float *keep)
{
    soften(p, s, rows, m, l, keep, 1);
}

static void accumulate_f32(float *acc, const uint32_t *p, const struct flash_values *v, int n, int64_t panels,
                           int64_t panel_words, const float *keep)
{
    accumulate(acc, p, v, n, panels, panel_words, keep, 1);
}

const struct attn_inner gv_attn_avx512_f32 = {
    .name = "avx512",
    .per_word = 1,
    .scores = scores_f32,
    .soften = soften_f32,
    .mass = mass,
    .accumulate = accumulate_f32,
    .pack_rows = pack_rows_f32,
    .finish = finish,
    .add_bias = add_bias,
};

static bool pack_rows_bf16(uint32_t *dst, const void *src, enum dtype type, int64_t stride, int lanes, int rows, int64_t D)
{
    return type == GV_BF16 && D % 2 == 0 && rows && pack_rows_words(dst, src, stride * 2, lanes, rows, D / 2);
}

/* Pairs of rows to words, 16 channels at a time: two panels of 8. */
static bool pack_values_bf16(uint32_t *dst, const void *src, enum dtype type, int64_t stride, int rows, int64_t Dv,
                             int64_t panel_words)
{
    if (type != GV_BF16)
        return false;
    for (int k = 0; k < rows; k += 2) {
        const uint16_t *even = (const uint16_t *)src + k * stride, *odd = even + stride;

        for (int64_t d = 0; d < Dv; d += 16) {
            const int64_t   left = Dv - d;
            const __mmask16 some = first_of(left);
            const __m512i   lo = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, even + d));
            const __m512i   hi =
                k + 1 < rows ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, odd + d)) : _mm512_setzero_si512();
            const __m512i both = _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
            uint32_t     *to = dst + d / 8 * panel_words + k / 2 * FLASH_PANEL;

            _mm256_store_si256((__m256i *)to, _mm512_castsi512_si256(both));
            if (left > 8)
                _mm256_store_si256((__m256i *)(to + panel_words), _mm512_extracti64x4_epi64(both, 1));
        }
    }
    return true;
}

static void scores_bf16(float *s, const uint32_t *q, const uint32_t *k, int panels, int64_t steps, float scale,
                        const float *add)
{
    scores(s, q, k, panels, steps, scale, add, 2);
}

static void soften_bf16(uint32_t *p, const float *s, int rows, float *m, float *l, float *keep)
{
    soften(p, s, rows, m, l, keep, 2);
}

static void accumulate_bf16(float *acc, const uint32_t *p, const struct flash_values *v, int n, int64_t panels,
                            int64_t panel_words, const float *keep)
{
    accumulate(acc, p, v, n, panels, panel_words, keep, 2);
}

const struct attn_inner gv_attn_avx512_bf16 = {
    .name = "avx512bf16",
    .per_word = 2,
    .scores = scores_bf16,
    .soften = soften_bf16,
    .mass = mass,
    .accumulate = accumulate_bf16,
    .pack_rows = pack_rows_bf16,
    .pack_values = pack_values_bf16,
    .finish = finish,
    .add_bias = add_bias,
};
