/* AVX-512. To come: until then the table stays as it is. */
#include "core/cpu/kernels.h"

void gv_kernels_avx512(struct cpu_kernels *k)
{
    (void)k;
}

void gv_kernels_avx512bf16(struct cpu_kernels *k)
{
    (void)k;
}
