/* The instructions of sm_90a that the Hopper kernels are made of, one function each: barriers in shared memory (mbarrier),
 * bulk tensor copies (TMA), matrix products of a warpgroup (wgmma). PTX ISA 8.0 and up, sections of the same names.
 *
 * Matrices in shared memory are kept as TMA's 128-byte swizzle leaves them: panels of 64 columns, a row of a panel is 128
 * bytes, eight rows are one swizzle atom of 1024 bytes. So a panel starts at a multiple of 1024. */
#ifndef GV_ATTENTION_CUDA_HOPPER_CUH
#define GV_ATTENTION_CUDA_HOPPER_CUH

#include <cuda.h>
#include <stdint.h>

static __device__ __forceinline__ uint32_t smem_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void mbar_init(uint32_t bar, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
static __device__ __forceinline__ void mbar_expect(uint32_t bar, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void mbar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* Until the phase of that parity is over. With GV_SPIN_LIMIT a barrier that never comes ends the kernel with an error. */
static __device__ __forceinline__ void mbar_wait(uint32_t bar, int parity)
{
    uint32_t done;
#ifdef GV_SPIN_LIMIT
    int spins = 0;
#endif
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.b32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(bar), "r"(parity)
                     : "memory");
#ifdef GV_SPIN_LIMIT
        if (!done && ++spins > GV_SPIN_LIMIT)
            __trap();
#endif
    } while (!done);
}

static __device__ __forceinline__ void tma_load(uint32_t dst, const CUtensorMap *map, uint32_t bar, int c0, int c1, int c2,
                                                int c3)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}
static __device__ __forceinline__ void tma_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

template <int N> static __device__ __forceinline__ void registers_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> static __device__ __forceinline__ void registers_give()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
static __device__ __forceinline__ void named_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
static __device__ __forceinline__ void named_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

static __device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int PENDING> static __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
/* The compiler does not know that a wgmma still writes (or reads) registers after it was issued: no use may move over this. */
template <int N> static __device__ __forceinline__ void hold(float (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(x[i])::"memory");
}
template <int N> static __device__ __forceinline__ void hold(uint32_t (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+r"(x[i])::"memory");
}

/* Descriptor of a panel at `address`: 128-byte swizzle, 1024 bytes from one group of eight rows to the next; `panel` bytes to
 * the next panel of 64 columns, which only operands with columns of N (values) read. */
static __device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, int panel)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)(panel >> 4) << 16 | (address & 0x3FFFF) >> 4;
}

/* d[64 x N] (+)= A · B over 16 of the summed dimension, bf16 in, f32 out. In d, thread t of the warpgroup holds, for the j-th
 * 8 columns, rows r = 16 (t / 32) + t % 32 / 4 in d[4j], d[4j + 1] and r + 8 in d[4j + 2], d[4j + 3], at columns
 * 8j + 2 (t % 4) and the next. That is also how wgmma_rs wants A, 16 columns in four words.
 *   ss: A and B from shared memory, both with the summed dimension along rows of a panel
 *   rs: A from registers, B from shared memory with the summed dimension down the rows of a panel */

#define ACC_32                                                                                                                 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                                   \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ACC_64                                                                                                                 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                                   \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                                         \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                         \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ACC_88                                                                                                                 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                                   \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                                         \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                         \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                                         \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                                         \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define ACC_96                                                                                                                 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                                   \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                                         \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                         \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                                         \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                                         \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define F8(d, i)                                                                                                               \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define F32(d, i) F8(d, i), F8(d, i + 8), F8(d, i + 16), F8(d, i + 24)
#define F64(d)    F32(d, 0), F32(d, 32)
#define F88(d)    F32(d, 0), F32(d, 32), F8(d, 64), F8(d, 72), F8(d, 80)
#define F96(d)    F32(d, 0), F32(d, 32), F32(d, 64)

static __device__ __forceinline__ void wgmma_ss(float (&d)[32], uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" ACC_32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
                 : F32(d, 0)
                 : "l"(a), "l"(b), "r"(add));
}
static __device__ __forceinline__ void wgmma_ss(float (&d)[64], uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ACC_64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
                 : F64(d)
                 : "l"(a), "l"(b), "r"(add));
}
static __device__ __forceinline__ void wgmma_ss(float (&d)[96], uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %98, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" ACC_96 "}, %96, %97, p, 1, 1, 0, 0;\n}"
                 : F96(d)
                 : "l"(a), "l"(b), "r"(add));
}
static __device__ __forceinline__ void wgmma_rs(float (&d)[32], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" ACC_32 "},"
                 " {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : F32(d, 0)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}
static __device__ __forceinline__ void wgmma_rs(float (&d)[64], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ACC_64 "},"
                 " {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : F64(d)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}
#undef ACC_32
#undef ACC_64
#undef ACC_88
#undef ACC_96
#undef F8
#undef F32
#undef F64
#undef F88
#undef F96

#endif
