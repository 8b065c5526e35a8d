/* The door to the CUDA kernels of attention: struct attn_call → struct attn_args, the choice, the scratch. Shapes were checked in
 * attention.c. The choice looks at shapes and at addresses' alignment, so that the same request takes the same kernel. */
#include "attention/cuda/attn_cuda.h"

#include <math.h>

#include "attention/attn_ops.h"
#include "core/cuda/cuda.h"

_Static_assert((int)ATTN_MAX_SOURCES == GV_ATTN_SOURCES && (int)ATTN_MAX_PARTS == GV_ATTN_PARTS, "limits of attention.h");

static struct attn_array array_of(struct tensor t)
{
    if (!present(t))
        return (struct attn_array){ 0 };
    return (struct attn_array){
        .data = t.data, .type = t.type, .b = t.dim[0] == 1 ? 0 : t.stride[0], .n = t.stride[1], .a = t.stride[2]
    };
}

static struct attn_result result_of(const struct attn_partial *p)
{
    struct attn_result to = { 0 };

    if (!p)
        return to;
    to.o = array_of(p->o);
    if (present(p->lse))
        to.lse = (struct attn_lse){ p->lse.data, p->lse.stride[0], p->lse.stride[1] };
    return to;
}

static struct attn_chip chip_of(struct run *r)
{
    const struct cuda_device *d = gv_cuda_of(r->device);

    return (struct attn_chip){ d->major, d->minor, d->multiprocessors, d->shared_bytes, d->encode_tensor_map };
}

static void fill_plan(struct attn_args *a, const struct attn_call *c)
{
    const struct attn_plan *p = c->plan;

    if (!p)
        return;
    a->row = p->entries ? p->row : NULL;
    a->entries = p->entries;
    a->split = p->entries ? p->split : NULL;
    a->order = p->order;
    a->list_batch = p->batch;
    a->list_heads = p->list_heads;
    a->mask = p->mask;
    a->skip = c->skip;
}

static struct attn_args args_of(const struct attn_call *c)
{
    struct attn_args a = {
        .B = c->q.dim[0],
        .Nq = c->q.dim[1],
        .A = c->q.dim[2],
        .D = c->q.dim[3],
        .A_kv = c->source[0].k.dim[2],
        .Dv = c->source[0].v.dim[3],
        .rows = present(c->q_order) ? c->q_order.dim[0] : c->q.dim[1],
        .q = array_of(c->q),
        .n_sources = c->n_sources,
        .out = result_of(&c->out),
        .seed = result_of(c->seed),
        .first = result_of(c->first),
        .scale = c->scale != 0 ? c->scale : (float)(1 / sqrt((double)c->q.dim[3])),
        .q_order = c->q_order.data,
        .list_batch = 1,
        .list_heads = 1,
    };

    a.tiles = (a.rows + GV_TILE_Q - 1) / GV_TILE_Q;
    if (present(c->bias)) {
        a.bias = c->bias.data;
        a.bias_a = c->bias.stride[0];
        a.bias_n = c->bias.stride[1];
    }
    for (int i = 0; i < c->n_sources; i++)
        a.source[i] = (struct attn_keys){ .k = array_of(c->source[i].k),
                                          .v = array_of(c->source[i].v),
                                          .n = c->source[i].k.dim[1],
                                          .log_weight = c->source[i].log_weight,
                                          .key_bias = c->source[i].key_bias.data,
                                          .always = c->source[i].always };
    fill_plan(&a, c);
    return a;
}

static size_t no_scratch(const struct attn_chip *chip, const struct attn_args *a)
{
    (void)chip, (void)a;
    return 0;
}
static cudaError_t simple(const struct attn_chip *chip, const struct attn_args *a, void *scratch, cudaStream_t stream)
{
    (void)scratch;
    return gv_attn_simple(chip, a, stream);
}

/* The first that takes a call computes it. attn_decode.cu is not among them: it has not run on a GPU yet, and waits for
 * tests/bench_attention_cuda.py check. */
static const struct {
    bool (*takes)(const struct attn_chip *chip, const struct attn_args *a);
    size_t (*scratch)(const struct attn_chip *chip, const struct attn_args *a);
    cudaError_t (*launch)(const struct attn_chip *chip, const struct attn_args *a, void *scratch, cudaStream_t stream);
} kernels[] = {
    { gv_attn_sm90_takes, gv_attn_sm90_scratch, gv_attn_sm90 },
    { gv_attn_simple_takes, no_scratch, simple },
};

static void attention(struct run *r, const struct attn_call *c)
{
    const struct attn_args a = args_of(c);
    const struct attn_chip chip = chip_of(r);
    const bool             null = gv_device_is_null(r->device);
    const size_t           n = sizeof kernels / sizeof kernels[0];
    size_t                 chosen = n, bytes = 0;

    /* The null device has no addresses to judge by, so it counts what any of them would want. */
    for (size_t i = 0; i < n && (null || chosen == n); i++)
        if (kernels[i].takes(&chip, &a)) {
            const size_t want = kernels[i].scratch(&chip, &a);
            bytes = want > bytes ? want : bytes;
            chosen = i;
        }
    if (chosen == n) {
        gv_run_fail(r, GV_ERR_UNSUPPORTED, "attention: heads of %lld are wider than the CUDA kernels take", (long long)a.Dv);
        return;
    }
    void *scratch = bytes ? gv_scratch_bytes(r, bytes) : NULL;
    if (!null && gv_run_ready(r))
        gv_cuda_ok(r, kernels[chosen].launch(&chip, &a, scratch, gv_cuda_of(r->device)->stream), "attention");
}

static void merge(struct run *r, const struct attn_partial *dst, const struct attn_partial *parts, int n)
{
    struct attn_merge_args m = {
        .B = dst->o.dim[0], .N = dst->o.dim[1], .A = dst->o.dim[2], .Dv = dst->o.dim[3], .n = n, .dst = result_of(dst)
    };

    for (int i = 0; i < n; i++)
        m.part[i] = result_of(&parts[i]);
    gv_cuda_ok(r, gv_attn_merge_launch(&m, gv_cuda_of(r->device)->stream), "attention: merge");
}

const struct attn_ops gv_attn_cuda_ops = { .attention = attention, .merge = merge };
