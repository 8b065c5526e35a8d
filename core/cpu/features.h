/* What this processor can do, and how much of it a device was told to use. Read once when the device opens; every table of
 * kernels (core/cpu, attention/cpu) is filled from these flags: C first, then AVX2, then AVX-512 over it. */
#ifndef GV_CORE_CPU_FEATURES_H
#define GV_CORE_CPU_FEATURES_H

#include "core/device.h"

enum cpu_flag {
    CPU_AVX2 = 1,      /* with FMA and F16C */
    CPU_AVX512 = 2,    /* F, BW, VL, DQ */
    CPU_AVX512BF16 = 4 /* vdpbf16ps, vcvtne2ps2bf16 */
};

/* Of the processor and the operating system, up to a level: "c", "avx2", "avx512", "avx512bf16"; NULL = all present. Each
 * level contains the ones below it. False for an unknown name. */
bool gv_cpu_detect(unsigned *flags, const char *level);

/* Of a CPU device, or of the null device that stands for one. */
unsigned gv_cpu_flags(const struct device *d);

#endif
