/* AVX512-BF16: products of bf16 pairs, and rounding to bf16 in one instruction. The products in f32 stay those of AVX-512. See
 * kernels_512.h. */
#include "core/cpu/kernels_512.h"

static void gemm_bf16_avx512bf16(const struct gemm_tile *t)
{
    gemm(t, BF16);
}

void gv_kernels_avx512bf16(struct cpu_kernels *k)
{
    fill_rows_vec(k);
    k->name = "avx512bf16";
    k->gemm_bf16 = gemm_bf16_avx512bf16;
}
