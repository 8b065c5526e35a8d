/* cpuid and xgetbv, read by hand: the processor must have an instruction set and the operating system must save its registers. */
#include "core/cpu/features.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/cpu/cpu.h"

#if defined(__x86_64__)
enum {
    XCR0_AVX = 0x6,     /* XMM, YMM */
    XCR0_AVX512 = 0xe6  /* and opmask, ZMM's upper halves, ZMM16-31 */
};

static unsigned saved_registers(void)
{
    unsigned lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static unsigned present_flags(void)
{
    const unsigned leaf7_512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    unsigned       a, b, c, d, xcr0, flags = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    xcr0 = saved_registers();
    if ((xcr0 & XCR0_AVX) != XCR0_AVX || !(c & bit_FMA) || !(c & bit_F16C))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
        return 0;
    flags = CPU_AVX2;
    if ((xcr0 & XCR0_AVX512) != XCR0_AVX512 || (b & leaf7_512) != leaf7_512)
        return flags;
    flags |= CPU_AVX512;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16))
        flags |= CPU_AVX512BF16;
    return flags;
}
#else
static unsigned present_flags(void)
{
    return 0;
}
#endif

bool gv_cpu_detect(unsigned *flags, const char *level)
{
    static const struct {
        const char *name;
        unsigned    flags;
    } levels[] = {
        { "c", 0 },
        { "avx2", CPU_AVX2 },
        { "avx512", CPU_AVX2 | CPU_AVX512 },
        { "avx512bf16", CPU_AVX2 | CPU_AVX512 | CPU_AVX512BF16 },
    };

    *flags = present_flags();
    if (!level)
        return true;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (!strcmp(level, levels[i].name)) {
            *flags &= levels[i].flags;
            return true;
        }
    return false;
}

unsigned gv_cpu_flags(const struct device *d)
{
    return gv_cpu_of(d)->flags;
}
