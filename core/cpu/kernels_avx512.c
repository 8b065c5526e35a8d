/* AVX-512 without BF16: bf16 saves memory here, not time. See kernels_512.h. */
#include "core/cpu/kernels_512.h"

static void gemm_f32_avx512(const struct gemm_tile *t)
{
    gemm(t, F32);
}

static void gemm_bf16_avx512(const struct gemm_tile *t)
{
    gemm(t, BF16);
}

void gv_kernels_avx512(struct cpu_kernels *k)
{
    fill_rows_vec(k);
    k->name = "avx512";
    k->panel = 64;
    k->gemm_f32 = gemm_f32_avx512;
    k->gemm_bf16 = gemm_bf16_avx512;
}
