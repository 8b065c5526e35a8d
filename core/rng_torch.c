/* On the CPU: MT19937 seeded with the seed's lower 32 bits. From 16 numbers on, uniforms of 24 bits fill the tensor and are turned
 * into normals sixteen at a time, the first eight with the second eight; where the size is no multiple of 16, the last sixteen are
 * drawn again. Below 16, uniforms of 53 bits make pairs, the cosine first.
 *
 * On the GPU: Philox 4x32-10 with the thread's number as subsequence. A grid of at most sms · threads/256 blocks of 256 walks over
 * the tensor; each thread draws four normals and puts them one grid apart. The sine comes first in a pair.
 *
 * Sources: pytorch aten/src/ATen/native/cpu/DistributionTemplates.h (normal_fill), aten/src/ATen/core/DistributionsHelper.h
 * (normal_distribution), aten/src/ATen/core/MT19937RNGEngine.h, aten/src/ATen/native/cuda/DistributionTemplates.h
 * (calc_execution_policy, distribution_elementwise_grid_stride_kernel); CUDA's curand_normal.h (Box-Muller). */
#include "core/rng_torch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"

static const double two_pi = 6.283185307179586476925;

/* ---- MT19937 (Matsumoto and Nishimura, 1998) --------------------------------------------------------------------------- */

enum { N = 624, M = 397 };

struct twister {
    uint32_t state[N];
    int      at;
};

static void twister_seed(struct twister *g, uint32_t seed)
{
    g->state[0] = seed;
    for (uint32_t i = 1; i < N; i++)
        g->state[i] = 1812433253u * (g->state[i - 1] ^ g->state[i - 1] >> 30) + i;
    g->at = N;
}

static uint32_t twister_next(struct twister *g)
{
    if (g->at == N) {
        for (int i = 0; i < N; i++) {
            const uint32_t y = (g->state[i] & 0x80000000u) | (g->state[(i + 1) % N] & 0x7fffffffu);
            g->state[i] = g->state[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        g->at = 0;
    }
    uint32_t y = g->state[g->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static float uniform_24(struct twister *g)
{
    return (float)(twister_next(g) & 0xffffffu) * 0x1p-24f;
}

static double uniform_53(struct twister *g)
{
    const uint64_t high = twister_next(g), low = twister_next(g);
    return (double)((high << 32 | low) & 0x1fffffffffffffu) * 0x1p-53;
}

/* ---- on the CPU -------------------------------------------------------------------------------------------------------- */

/* Uniforms to normals; angles and radii are rounded to f32 where torch's are. */
static void fill_16(float x[16])
{
    for (int j = 0; j < 8; j++) {
        const float radius = sqrtf(-2.0f * (float)log((double)(1.0f - x[j])));
        const float angle = (float)two_pi * x[j + 8];
        x[j] = radius * (float)cos((double)angle);
        x[j + 8] = radius * (float)sin((double)angle);
    }
}

static void few(float *out, int64_t n, struct twister *g)
{
    for (int64_t i = 0; i < n; i += 2) {
        const double angle = two_pi * uniform_53(g), radius = sqrt(-2.0 * log1p(-uniform_53(g)));
        out[i] = (float)(radius * cos(angle));
        if (i + 1 < n)
            out[i + 1] = (float)(radius * sin(angle));
    }
}

void gv_torch_cpu_normal(float *out, int64_t n, uint64_t seed)
{
    struct twister g;
    twister_seed(&g, (uint32_t)seed);
    if (n < 16) {
        few(out, n, &g);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = uniform_24(&g);
    for (int64_t i = 0; i + 16 <= n; i += 16)
        fill_16(out + i);
    if (n % 16 == 0)
        return;
    for (int64_t i = n - 16; i < n; i++)
        out[i] = uniform_24(&g);
    fill_16(out + n - 16);
}

/* ---- on the GPU -------------------------------------------------------------------------------------------------------- */

static void box_muller(float out[2], uint32_t a, uint32_t b)
{
    const float u = (float)a * 0x1p-32f + 0x1p-33f;
    const float v = (float)b * (float)(0x1p-32 * 6.2831855) + (float)(0x1p-33 * 6.2831855);
    const float radius = sqrtf(-2.0f * (float)log((double)u));
    out[0] = radius * (float)sin((double)v);
    out[1] = radius * (float)cos((double)v);
}

void gv_torch_cuda_normal(float *out, int64_t n, uint64_t seed, struct torch_grid grid)
{
    enum { BLOCK = 256 };
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    const int64_t  most = (int64_t)grid.sms * (grid.threads / BLOCK), wanted = (n + BLOCK - 1) / BLOCK;
    const int64_t  step = (wanted < most ? wanted : most) * BLOCK; /* threads of the grid */
    for (int64_t round = 0; round * 4 * step < n; round++)
        for (int64_t thread = 0; thread < step; thread++) {
            const uint32_t counter[4] = { (uint32_t)round, 0, (uint32_t)thread, (uint32_t)(thread >> 32) };
            uint32_t       word[4];
            float          normal[4];
            gv_philox(word, counter, key);
            box_muller(normal, word[0], word[1]);
            box_muller(normal + 2, word[2], word[3]);
            for (int64_t i = 0; i < 4; i++) {
                const int64_t at = round * 4 * step + i * step + thread;
                if (at < n)
                    out[at] = normal[i];
            }
        }
}

/* ---- names ------------------------------------------------------------------------------------------------------------- */

bool gv_noise_mode(enum noise_mode *mode, struct torch_grid *grid, const char *name)
{
    char end;
    *grid = (struct torch_grid){ 0, 0 };
    *mode = NOISE_GENVID;
    if (!name || !strcmp(name, "genvid"))
        return true;
    *mode = NOISE_TORCH_CPU;
    if (!strcmp(name, "torch-cpu"))
        return true;
    *mode = NOISE_TORCH_CUDA;
    *grid = (struct torch_grid){ 132, 2048 };
    if (!strcmp(name, "torch-cuda"))
        return true;
    if (strspn(name, "torch-cuda:x0123456789") != strlen(name) || strlen(name) > 24 ||
        sscanf(name, "torch-cuda:%dx%d%c", &grid->sms, &grid->threads, &end) != 2)
        return false;
    return grid->sms >= 1 && grid->sms <= 1024 && grid->threads >= 256 && grid->threads <= 4096 && grid->threads % 256 == 0;
}
