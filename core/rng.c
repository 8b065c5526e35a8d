#include "core/rng.h"

#include <math.h>

#include "core/ops.h"

void gv_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Two words → two normals. In double, rounded once: the same bits wherever libm is good to half an ulp of f32. */
static void box_muller(float out[2], uint32_t a, uint32_t b)
{
    double u = ((double)a + 0.5) * 0x1p-32, angle = 6.283185307179586476925 * (((double)b + 0.5) * 0x1p-32);
    double radius = sqrt(-2.0 * log(u));
    out[0] = (float)(radius * cos(angle));
    out[1] = (float)(radius * sin(angle));
}

/* Counter: [x:16 | y:16, t:32, channels/4:16 | purpose:16, step:12 | causal block:20]. Sides up to 65,536 latents. */
void gv_rng_normal_row(float *out, int64_t n_c, const struct noise_key *key, int64_t t, int64_t y, int64_t x)
{
    const uint32_t k[2] = { (uint32_t)key->seed, (uint32_t)(key->seed >> 32) };
    for (int64_t c = 0; c < n_c; c += 4) {
        const uint32_t counter[4] = {
            (uint32_t)x | (uint32_t)y << 16,
            (uint32_t)t,
            (uint32_t)(c / 4) | key->purpose << 16,
            key->step | key->block << 12,
        };
        uint32_t word[4];
        float    normal[4];
        gv_philox(word, counter, k);
        box_muller(normal, word[0], word[1]);
        box_muller(normal + 2, word[2], word[3]);
        for (int64_t i = 0; i < 4 && c + i < n_c; i++)
            out[c + i] = normal[i];
    }
}
