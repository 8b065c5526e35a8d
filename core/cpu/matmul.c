/* Linear layers on our own kernels: y = gate ⊙ act(x · wᵀ + bias).
 *
 * A weight [M, K] is packed into panels of up to 64 output columns (table's choice; the last panel is narrower, a multiple of
 * 16): for each step of k the panel's columns lie side by side, in bf16 as pairs of k, which is what vdpbf16ps reads. Rows of x
 * are read where they are: the kernel broadcasts from six to 24 of them at a time.
 *
 *   for each block of ROWS rows, which then stay in L2, for each panel (one slice of gv_parallel_for):
 *       for each chunk of K that leaves the panel's part in L2:  c += x[rows, chunk] · panel[chunk]   (c: on the stack)
 *       finish each row: bias, act, gate, add, convert
 *
 * Sums run in the order of k whatever the blocking, so a row's result depends neither on the threads nor on its neighbours:
 * the same token gives the same bits in a batch of one and of a thousand.
 *
 * x of another type than w, and an odd K in bf16, are converted first into scratch. */
#include "core/cpu/cpu.h"
#include "core/cpu/parallel.h"

enum {
    STEP = 24,   /* rows finished together when K needs one chunk only: a multiple of every kernel's tile */
    ROWS = 4 * STEP,     /* of x in a slice: with K = 1536 in bf16 they are 288 KB, beside a panel of 192 KB in an L2 of 1 MB */
    MOST_ROWS = 4 * ROWS, /* with a small K */
    SLICES = 48, /* wanted, before rows grow */
    CHUNK = 2048 /* of k: the panel's part is 256 KB in bf16 */
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* ---- packing ------------------------------------------------------------------------------------------------------------- */

/* A weight as rows of segments of c elements, each padded with zeros to cp: a linear layer is one segment; a convolution has one
 * for each tap of each place (dt, dh), so that an odd number of channels can be read in pairs. Columns of a folded convolution
 * (gv_cpu_fold) are pixel after pixel, each shifted by a tap. */
struct pack {
    char       *dst;
    const char *src;
    enum dtype  src_type, type;
    int64_t     M, O;             /* columns; rows of src */
    int64_t     places, taps, kw; /* taps of a place as packed, and in src */
    int64_t     c, cp;
    int         panel;
    const struct cpu_kernels *k;
};

/* Elements of a segment in the packed weight: even in bf16. */
static int64_t padded(int64_t c, enum dtype type)
{
    return type == GV_F32 ? c : round_up(c, 2);
}

static struct pack pack_of(const struct tensor *w)
{
    const int64_t fold = gv_cpu_fold(w), kw = w->rank == 5 ? w->dim[3] : 1, c = w->dim[w->rank - 1];

    return (struct pack){ .src = w->data, .src_type = w->type, .type = w->type, .M = w->dim[0] * fold, .O = w->dim[0],
                          .places = w->rank == 5 ? w->dim[1] * w->dim[2] : 1, .taps = kw + fold - 1, .kw = kw, .c = c,
                          .cp = padded(c, w->type) };
}

static void pack_segment(const struct pack *p, void *panel, int64_t width, int64_t column, int64_t seg)
{
    enum { PART = 512 };
    const size_t  size = gv_cpu_size(p->src_type);
    const int64_t tap = seg % p->taps - column / p->O;
    const int64_t from = ((column % p->O * p->places + seg / p->taps) * p->kw + tap) * p->c;
    uint32_t      raw[PART];
    float         v[PART];

    if (tap < 0 || tap >= p->kw)
        return;
    for (int64_t at = 0; at < p->c; at += PART) {
        const int64_t n = smaller(PART, p->c - at), k0 = seg * p->cp + at;

        memcpy(raw, p->src + (size_t)(from + at) * size, (size_t)n * size); /* may be unaligned: a mapped file */
        p->k->to_f32(v, raw, p->src_type, n);
        if (p->type == GV_F32)
            for (int64_t i = 0; i < n; i++)
                ((float *)panel)[(k0 + i) * width + column % p->panel] = v[i];
        else
            for (int64_t i = 0; i < n; i++)
                ((uint16_t *)panel)[((k0 + i) / 2 * width + column % p->panel) * 2 + (k0 + i) % 2] = gv_bf16_of_f32(v[i]);
    }
}

static void pack_panel(void *arg, int64_t i)
{
    const struct pack *p = arg;
    const int64_t      from = i * p->panel, n = smaller(p->panel, p->M - from), width = round_up(n, 16);
    const int64_t      n_seg = p->places * p->taps, K = n_seg * p->cp;
    char              *panel = p->dst + (size_t)(from * K) * gv_cpu_size(p->type);

    if (n < width || p->c < p->cp || p->taps > p->kw)
        memset(panel, 0, (size_t)(width * K) * gv_cpu_size(p->type));
    for (int64_t column = from; column < from + n; column++)
        for (int64_t seg = 0; seg < n_seg; seg++)
            pack_segment(p, panel, width, column, seg);
}

size_t gv_cpu_packed_bytes(const struct tensor *w)
{
    const struct pack p = pack_of(w);

    return (size_t)(round_up(p.M, 16) * p.places * p.taps * p.cp) * gv_cpu_size(w->type);
}

void gv_cpu_pack(struct device *d, void *dst, struct tensor src, enum dtype type)
{
    const struct cpu_device *cpu = gv_cpu_of(d);
    struct pack              p = pack_of(&src);

    p.dst = dst;
    p.type = type;
    p.cp = padded(p.c, type);
    p.panel = cpu->k.panel;
    p.k = &cpu->k;
    gv_parallel_for(d, (p.M + p.panel - 1) / p.panel, pack_panel, &p);
}

/* ---- product ------------------------------------------------------------------------------------------------------------- */

struct product {
    const struct cpu_kernels *k;
    struct cpu_rows x, y; /* x in w's type */
    const char     *w;
    enum dtype      type; /* of w */
    int64_t         M, K; /* K as packed */
    int64_t         panels, each; /* rows in a block */
    const float    *bias, *gate;
    int64_t         gate_stride;
    const int32_t  *group;
    enum act        act;
    bool            add;
};

static void finish_rows(const struct product *p, const float *c, int64_t row, int64_t rows, int64_t column, int64_t ldc)
{
    const int64_t      at_once = p->gate && p->group ? 1 : rows; /* each row may have a gate of its own */
    struct gemm_finish f = { .y_stride = p->y.stride, .type = p->y.type, .ldc = ldc, .rows = at_once,
                             .n = smaller(ldc, p->M - column), .bias = p->bias ? p->bias + column : NULL, .act = p->act,
                             .add = p->add };

    for (int64_t i = 0; i < rows; i += at_once) {
        f.y = p->y.data + (row + i) * p->y.stride + column * (int64_t)gv_cpu_size(p->y.type);
        f.c = c + i * ldc;
        if (p->gate)
            f.gate = p->gate + (p->group ? p->group[row + i] : 0) * p->gate_stride + column;
        p->k->gemm_finish(&f);
    }
}

/* Rows [row, row + rows) of one panel. */
static void product_rows(const struct product *p, int64_t row, int64_t rows, int64_t column, int64_t width)
{
    const int64_t size = (int64_t)gv_cpu_size(p->type), parts = (p->K + CHUNK - 1) / CHUNK;
    const int64_t part = round_up((p->K + parts - 1) / parts, 2);
    const int64_t y_size = (int64_t)gv_cpu_size(p->y.type);
    _Alignas(64) float c[ROWS * GV_PANEL_MAX];

    for (int64_t i = row; i < row + rows; i++)
        gv_prefetch_row(p->y.data + i * p->y.stride + column * y_size, smaller(width, p->M - column) * y_size);
    for (int64_t k = 0; k < p->K; k += part) {
        const void *const      a = p->x.data + row * p->x.stride + k * size;
        const struct gemm_tile t = {
            .c = c, .ldc = width, .a = &a, .n_a = 1, .lda = p->x.stride / size,
            .b = p->w + (column * p->K + k * width) * size, .k = smaller(part, p->K - k),
            .rows = (int)rows, .width = (int)width, .accumulate = k > 0,
        };

        if (p->type == GV_F32)
            p->k->gemm_f32(&t);
        else
            p->k->gemm_bf16(&t);
    }
    finish_rows(p, c, row, rows, column, width);
}

static void product_slice(void *arg, int64_t i)
{
    const struct product *p = arg;
    const int64_t column = i % p->panels * p->k->panel, width = smaller(p->k->panel, round_up(p->M - column, 16));
    const int64_t from = i / p->panels * p->each, to = smaller(from + p->each, p->x.n), step = p->K > CHUNK ? ROWS : STEP;

    for (int64_t row = from; row < to; row += step)
        product_rows(p, row, smaller(step, to - row), column, width);
}

struct convert {
    const struct cpu_kernels *k;
    struct cpu_rows x;
    char      *dst;
    enum dtype type;
    int64_t    dp; /* row in dst, padded */
};

static void convert_row(void *arg, int64_t row)
{
    const struct convert *c = arg;
    char                 *dst = c->dst + row * c->dp * (int64_t)gv_cpu_size(c->type);

    gv_cpu_convert(c->k, dst, c->type, c->x.data + row * c->x.stride, c->x.type, c->x.d);
    if (c->dp > c->x.d)
        memset(dst + c->x.d * (int64_t)gv_cpu_size(c->type), 0, (size_t)(c->dp - c->x.d) * gv_cpu_size(c->type));
}

static bool converts(struct tensor x, struct tensor w)
{
    return x.type != w.type || padded(w.dim[1], w.type) != w.dim[1];
}

size_t gv_cpu_linear_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o)
{
    (void)d, (void)y, (void)o;
    return converts(x, w) ? (size_t)(gv_cpu_rows(x).n * padded(w.dim[1], w.type)) * gv_cpu_size(w.type) : 0;
}

/* As many as fill a part of L2, because the panels are read anew for each block of rows; fewer if there would be too few slices
 * to share out. Of shapes alone. */
static int64_t rows_in_slice(const struct product *p)
{
    int64_t each = p->K * (int64_t)gv_cpu_size(p->type) <= 1024 ? MOST_ROWS : ROWS;

    while (each > STEP && (p->x.n + each - 1) / each * p->panels < SLICES)
        each /= 2;
    const int64_t blocks = (p->x.n + each - 1) / each;

    return round_up((p->x.n + blocks - 1) / blocks, STEP);
}

void gv_cpu_linear(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o, void *ws)
{
    const struct cpu_kernels *k = &gv_cpu_of(r->device)->k;
    struct product p = { .k = k, .x = gv_cpu_rows(x), .y = gv_cpu_rows(y), .w = w.data, .type = w.type, .M = w.dim[0],
                         .K = padded(w.dim[1], w.type), .bias = o->bias.data, .gate = o->gate.data,
                         .gate_stride = gv_cpu_row_stride(o->gate), .group = o->group.data, .act = o->act, .add = o->add };

    if (converts(x, w)) {
        struct convert c = { k, p.x, ws, w.type, p.K };

        gv_parallel_for(r->device, p.x.n, convert_row, &c);
        p.x = (struct cpu_rows){ ws, p.K * (int64_t)gv_cpu_size(w.type), p.x.n, p.K, w.type };
    }
    p.panels = (p.M + k->panel - 1) / k->panel;
    p.each = rows_in_slice(&p);
    const int64_t blocks = (p.x.n + p.each - 1) / p.each;

    gv_parallel_for(r->device, blocks * p.panels, product_slice, &p);
}
