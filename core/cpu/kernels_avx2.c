/* AVX2 with FMA and F16C. To come: until then the table stays plain C. */
#include "core/cpu/kernels.h"

void gv_kernels_avx2(struct cpu_kernels *k)
{
    (void)k;
}
