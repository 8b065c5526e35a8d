#include "attention/scores.h"

#include "attention/cpu/attn_cpu.h"

static bool misfit(struct run *r, const char *what, struct tensor t)
{
    char text[64];

    gv_run_fail(r, GV_ERR_INTERNAL, "block scores: %s does not fit: %s", what, gv_tensor_shape_text(t, text, sizeof text));
    return false;
}

static bool is_table(struct tensor t, int64_t b, int64_t a, int64_t n)
{
    return t.type == GV_F32 && t.rank == 3 && t.dim[0] == b && t.dim[1] == a && t.dim[2] == n && gv_tensor_contiguous(t);
}

static bool is_tokens(const struct run *r, struct tensor t)
{
    return t.rank == 4 && !t.packed && (t.type == GV_F32 || t.type == r->compute) && t.dim[1] > 0 && t.dim[2] > 0 &&
           t.dim[3] > 0 && (t.dim[3] == 1 || t.stride[3] == 1);
}

static bool check(struct run *r, const struct score_call *c)
{
    if (!is_tokens(r, c->q))
        return misfit(r, "q", c->q);
    if (!is_tokens(r, c->k) || c->k.dim[0] != c->q.dim[0] || c->q.dim[2] % c->k.dim[2] || c->k.dim[3] != c->q.dim[3])
        return misfit(r, "k", c->k);
    if (c->block < GV_KV_BLOCK || c->block % GV_KV_BLOCK || c->score.rank != 4 || c->score.type != GV_F32 ||
        !gv_tensor_contiguous(c->score) || c->score.dim[0] != c->q.dim[0] || c->score.dim[1] != c->q.dim[2] ||
        c->score.dim[2] != (c->q.dim[1] + GV_TILE_Q - 1) / GV_TILE_Q ||
        c->score.dim[3] != (c->k.dim[1] + c->block - 1) / c->block)
        return misfit(r, "score", c->score);
    if (r->device->kind != GV_DEVICE_CPU) {
        gv_run_fail(r, GV_ERR_UNSUPPORTED, "block scores: no kernel for device %s", r->device->name);
        return false;
    }
    return true;
}

void gv_score_pooled(struct run *r, const struct score_call *c, struct tensor q_same, struct tensor k_same)
{
    if (!gv_run_ready(r) || !check(r, c))
        return;
    if (present(q_same) && !is_table(q_same, c->q.dim[0], c->q.dim[2], c->score.dim[2]))
        misfit(r, "q_same", q_same);
    if (present(k_same) && !is_table(k_same, c->k.dim[0], c->k.dim[2], c->score.dim[3]))
        misfit(r, "k_same", k_same);
    const struct mark m = arena_mark(&r->scratch);
    gv_score_pooled_cpu(r, c, q_same, k_same, NULL);
    arena_release(&r->scratch, m);
}

void gv_score_chunks(struct run *r, const struct score_call *c, const struct chunking *chunks)
{
    const struct tensor none = { 0 };

    if (!gv_run_ready(r) || !check(r, c))
        return;
    const struct mark m = arena_mark(&r->scratch);
    gv_score_pooled_cpu(r, c, none, none, chunks);
    arena_release(&r->scratch, m);
}

void gv_score_antidiagonal(struct run *r, const struct score_call *c, int stride)
{
    if (!gv_run_ready(r) || !check(r, c))
        return;
    if (stride < 1 || GV_KV_BLOCK % stride) {
        gv_run_fail(r, GV_ERR_INTERNAL, "block scores: a stride of %d does not divide %d", stride, GV_KV_BLOCK);
        return;
    }
    const struct mark m = arena_mark(&r->scratch);
    gv_score_antidiagonal_cpu(r, c, stride);
    arena_release(&r->scratch, m);
}

void gv_score_exact(struct run *r, const struct score_call *c, struct tensor lse)
{
    if (!gv_run_ready(r) || !check(r, c))
        return;
    if (!is_table(lse, c->q.dim[0], c->q.dim[2], c->q.dim[1])) {
        misfit(r, "lse", lse);
        return;
    }
    const struct mark m = arena_mark(&r->scratch);
    gv_score_exact_cpu(r, c, lse);
    arena_release(&r->scratch, m);
}

void gv_score_lines(struct run *r, struct tensor q, struct tensor k, int64_t rows, struct tensor column, struct tensor distance)
{
    if (!gv_run_ready(r))
        return;
    if (!is_tokens(r, q) || rows < 1 || rows > q.dim[1])
        misfit(r, "q", q);
    else if (!is_tokens(r, k) || k.dim[0] != q.dim[0] || k.dim[1] != q.dim[1] || q.dim[2] % k.dim[2] || k.dim[3] != q.dim[3])
        misfit(r, "k", k);
    else if (!is_table(column, q.dim[0], q.dim[2], q.dim[1]))
        misfit(r, "column", column);
    else if (!is_table(distance, q.dim[0], q.dim[2], q.dim[1]))
        misfit(r, "distance", distance);
    else if (r->device->kind != GV_DEVICE_CPU)
        gv_run_fail(r, GV_ERR_UNSUPPORTED, "block scores: no kernel for device %s", r->device->name);
    const struct mark m = arena_mark(&r->scratch);
    if (gv_run_ready(r))
        gv_score_lines_cpu(r, q, k, rows, column, distance);
    arena_release(&r->scratch, m);
}
