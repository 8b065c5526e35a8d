/* Normal numbers as torch.randn draws them from a fresh generator, so that a seed means what it means elsewhere: "torch-cpu" (a
 * generator on the CPU, as diffusers' examples and ComfyUI have it) and "torch-cuda" (one on the GPU, as Wan's own code). Numbers
 * in the order of the tensor's memory. Equal to the last few bits: torch's own logarithm and sine differ from libm's by as much. */
#ifndef GV_CORE_RNG_TORCH_H
#define GV_CORE_RNG_TORCH_H

#include <stdbool.h>
#include <stdint.h>

/* torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed)), f32. n >= 0. */
void gv_torch_cpu_normal(float *out, int64_t n, uint64_t seed);

/* torch.randn(n, device="cuda", ...), f32, on a GPU of so many multiprocessors with so many threads each: beyond 256 · the
 * threads of a grid, the numbers depend on both. H100 and H200 (SXM): 132 and 2048. */
struct torch_grid {
    int sms, threads;
};
void gv_torch_cuda_normal(float *out, int64_t n, uint64_t seed, struct torch_grid grid);

/* "genvid", "torch-cpu", "torch-cuda" or "torch-cuda:SMSxTHREADS"; false: none of these. grid is {0, 0} but for torch-cuda. */
enum noise_mode { NOISE_GENVID, NOISE_TORCH_CPU, NOISE_TORCH_CUDA };
bool gv_noise_mode(enum noise_mode *mode, struct torch_grid *grid, const char *name);

#endif
