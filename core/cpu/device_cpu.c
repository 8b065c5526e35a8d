/* The CPU device: memory, weights, and the table of operations (pointwise.c, layout.c, matmul.c, conv.c).
 *
 * It computes in bf16 where the processor multiplies bf16 (AVX512-BF16) and in f32 elsewhere; device_params.precision overrides.
 * bf16 on a processor without it is emulated: half the memory, at a price in time. Weights are packed for the kernels of this
 * processor, so packed memory never leaves the machine. Operations are finished when they return; sync has nothing to do. */
#define _GNU_SOURCE /* madvise, sched_getaffinity */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif

#include "core/cpu/cpu.h"
#include "core/cpu/features.h"
#include "core/cpu/memory.h"
#include "core/cpu/parallel.h"

enum { MAX_THREADS = 1024, HUGE_PAGE = 2 << 20 };

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

/* Large blocks (scratch, weights) begin at a huge page and ask for them: a tile reads up to 24 rows at once, each in a page of
 * its own, more than the first-level TLB holds together with the panel and the sums. */
static void *cpu_alloc(struct device *d, size_t bytes)
{
    const bool large = bytes >= 2 * HUGE_PAGE;
    void      *p = NULL;

    (void)d;
    if (posix_memalign(&p, large ? HUGE_PAGE : GV_ALIGN, bytes))
        return NULL;
#if defined(__linux__)
    if (large)
        madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* only a wish */
#endif
    return p;
}

static void cpu_free(struct device *d, void *p, size_t bytes)
{
    (void)d, (void)bytes;
    free(p);
}

static void cpu_upload(struct run *r, struct tensor dst, const void *src)
{
    (void)r;
    memcpy(dst.data, src, gv_tensor_bytes(dst));
}

static void cpu_download(struct run *r, void *dst, struct tensor src)
{
    (void)r;
    memcpy(dst, src.data, gv_tensor_bytes(src));
}

static void cpu_sync(struct run *r)
{
    (void)r;
}

static void cpu_close(struct device *d)
{
    struct cpu_device *cpu = d->impl;

    gv_pool_close(cpu->pool);
    free(cpu);
}

/* ---- weights ------------------------------------------------------------------------------------------------------------- */

static size_t cpu_prepared_bytes(struct device *d, const struct tensor *w, enum weight_use use)
{
    (void)d;
    return use == WEIGHT_PLAIN ? gv_dtype_bytes(w->type, gv_tensor_count(*w)) : gv_cpu_packed_bytes(w);
}

struct plain {
    const struct cpu_kernels *k;
    char       *dst;
    const char *src;
    enum dtype  dst_type, src_type;
    int64_t     n;
};

/* The source may lie at any address of a mapped file. */
static void plain_slice(void *arg, int64_t i)
{
    enum { PART = 1024 };
    const struct plain *p = arg;
    const size_t        dst_size = gv_dtype_bytes(p->dst_type, 1), src_size = gv_dtype_bytes(p->src_type, 1);
    const size_t        from = (size_t)i * PART;
    const int64_t       n = p->n - (int64_t)from < PART ? p->n - (int64_t)from : PART;
    _Alignas(64) char   raw[PART * sizeof(float)];

    memcpy(raw, p->src + from * src_size, (size_t)n * src_size);
    gv_cpu_convert(p->k, p->dst + from * dst_size, p->dst_type, raw, p->src_type, n);
}

static bool is_float(enum dtype t)
{
    return t == GV_F32 || t == GV_BF16 || t == GV_F16;
}

static gv_status cpu_prepare(struct device *d, void *dst, struct tensor src, enum dtype type, enum weight_use use,
                             struct tensor *out, struct error *e)
{
    const bool packed = use != WEIGHT_PLAIN;

    if (!is_float(src.type) || !is_float(type) || (packed && type == GV_F16))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "the CPU cannot make a weight of type %s from one of type %s",
                       gv_dtype_info(type)->name, gv_dtype_info(src.type)->name);
    if (packed) {
        gv_cpu_pack(d, dst, src, type);
    } else {
        struct plain p = { &gv_cpu_of(d)->k, dst, src.data, type, src.type, gv_tensor_count(src) };

        gv_parallel_for(d, (p.n + 1023) / 1024, plain_slice, &p);
    }
    *out = gv_tensor(dst, type, src.rank, src.dim);
    out->packed = packed;
    return GV_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static const struct device_ops cpu_ops = {
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .sync = cpu_sync,
    .close = cpu_close,
    .prepared_bytes = cpu_prepared_bytes,
    .prepare = cpu_prepare,
    .linear_workspace = gv_cpu_linear_workspace,
    .linear = gv_cpu_linear,
    .conv_workspace = gv_cpu_conv_workspace,
    .conv = gv_cpu_conv,
    .norm = gv_cpu_norm,
    .glu = gv_cpu_glu,
    .act = gv_cpu_act,
    .add = gv_cpu_add,
    .copy = gv_cpu_copy,
    .fill = gv_cpu_fill,
    .gather = gv_cpu_gather,
    .lincomb = gv_cpu_lincomb,
    .patchify = gv_cpu_patchify,
    .unpatchify = gv_cpu_unpatchify,
    .upsample = gv_cpu_upsample,
    .noise = gv_cpu_noise,
    .check_finite = gv_cpu_check_finite,
};

/* Best first, each over the one before. */
static void fill_kernels(struct cpu_device *cpu)
{
    gv_kernels_c(&cpu->k);
#if defined(__x86_64__)
    if (cpu->flags & CPU_AVX2)
        gv_kernels_avx2(&cpu->k);
    if (cpu->flags & CPU_AVX512)
        gv_kernels_avx512(&cpu->k);
    if (cpu->flags & CPU_AVX512BF16)
        gv_kernels_avx512bf16(&cpu->k);
#endif
}

/* Those this process may run on: a container or taskset may leave it fewer than there are. */
static int core_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__)
    cpu_set_t set;

    if (!sched_getaffinity(0, sizeof set, &set))
        n = CPU_COUNT(&set);
#endif
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

static gv_status choose_compute(const struct cpu_device *cpu, const char *precision, enum dtype *out, struct error *e)
{
    *out = cpu->flags & CPU_AVX512BF16 ? GV_BF16 : GV_F32;
    if (precision && !strcmp(precision, "f32"))
        *out = GV_F32;
    else if (precision && !strcmp(precision, "bf16"))
        *out = GV_BF16;
    else if (precision)
        return gv_fail(e, GV_ERR_ARGUMENT, "precision is \"%s\"; the CPU has f32 and bf16", precision);
    return GV_OK;
}

static gv_status cpu_open(struct cpu_device *cpu, const struct device_params *p, struct error *e)
{
    if (!gv_cpu_detect(&cpu->flags, p->cpu_level))
        return gv_fail(e, GV_ERR_ARGUMENT, "cpu_level is \"%s\"; it is one of c, avx2, avx512, avx512bf16", p->cpu_level);
    if (p->threads < 0 || p->threads > MAX_THREADS)
        return gv_fail(e, GV_ERR_ARGUMENT, "threads is %d; it is from 0 (one per core) to %d", p->threads, MAX_THREADS);
    TRY(choose_compute(cpu, p->precision, &cpu->base.compute, e));
    fill_kernels(cpu);
    cpu->base.ops = &cpu_ops;
    cpu->base.kind = GV_DEVICE_CPU;
    cpu->base.name = "cpu";
    cpu->base.log = p->log;
    cpu->base.budget = p->budget ? p->budget : gv_free_memory("");
    if (!cpu->base.budget) /* none left, where 0 would mean no limit */
        cpu->base.budget = 1;
    cpu->base.impl = cpu;
    cpu->pool = gv_pool_open(p->threads ? p->threads : core_count());
    if (!cpu->pool)
        return gv_fail(e, GV_ERR_MEMORY, "the CPU device could not start %d threads", p->threads ? p->threads : core_count());
    gv_log(p->log, GV_LOG_DEBUG, "cpu: %s, %d threads, computes in %s, budget %zu MiB", cpu->k.name, gv_pool_threads(cpu->pool),
           gv_dtype_info(cpu->base.compute)->name, cpu->base.budget >> 20);
    return GV_OK;
}

gv_status gv_device_cpu_open(struct device **out, const struct device_params *p, struct error *e)
{
    struct cpu_device *cpu = calloc(1, sizeof *cpu);

    *out = NULL;
    if (!cpu)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the CPU device");
    const gv_status status = cpu_open(cpu, p, e);

    if (status == GV_OK)
        *out = &cpu->base;
    else
        free(cpu);
    return status;
}
