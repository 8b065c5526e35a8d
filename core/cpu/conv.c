/* Convolution over [T, H, W, C], channels last, on the kernels of matmul.c: no im2col. For one (dt, dh) of the kernel, the kw taps
 * and C channels that an output pixel needs are kw·C contiguous elements of x, and the next pixel's are stride_w·C further on:
 * that is a product with overlapping rows, and a convolution is a sum of kt·kh of them ("batch-reduce").
 *
 *   for each panel of output channels, for each piece of an output row (one slice of gv_parallel_for):
 *       for each group of (dt, dh) whose part of the panel stays in L2:  c += Σ x[t+dt, h+dh, w..] · panel[dt, dh]
 *       finish: bias, add, convert
 *
 * Padding in t and h leaves out (dt, dh) pairs. Padding in w concerns the first and last pixels of a row: the ends of all rows
 * of x are first copied, with their zeros, into scratch ("rims"), and those pixels read there. Where that does not pay (rows
 * of a few pixels) or x cannot be read in place (another type than w; an odd C in bf16), all of x is copied, padded in w.
 *
 * A convolution to eight channels or fewer is folded: as many neighbouring pixels as fit share the 16 columns of a panel and
 * count as one pixel of a convolution with a longer stride and a wider kernel. From 32 channels to three that is twice as fast.
 *
 * Nothing depends on the thread count: slices come from shapes, and each pixel's sum has one order. */
#include "core/cpu/cpu.h"
#include "core/cpu/parallel.h"

enum {
    PIXELS = 120,        /* in a slice, at most */
    PLACES = 32,         /* (dt, dh) pairs in one call of a kernel */
    L2_PART = 320 * 1024 /* bytes of a panel in one call of a kernel, if more than one place */
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

struct conv {
    const struct cpu_kernels *k;
    const char *x;
    char       *rim; /* [T, H, 2, span, C]: left and right ends of x's rows with their padding; or the whole copy */
    const char *w;
    struct tensor y;
    enum dtype  x_type, type; /* x as given; w, and x as read */
    const float *bias;
    bool        add, copy; /* copy: all of x is in rim, padded in w */
    int64_t     T, H, W, C, Cp;
    int64_t     kt, kh, kw, st, sh, sw, pt, ph, pw, pw_hi;
    int64_t     To, Ho, Wo, O; /* folded: groups of pixels, and their channels */
    int64_t     fold, row;     /* pixels in a group; elements in a row of y */
    int64_t     left, right, span; /* output pixels that need a rim; pixels in a rim */
    int64_t     pieces, each;      /* slices of a row; pixels in one, without rims */
};

/* ---- shapes -------------------------------------------------------------------------------------------------------------- */

static int64_t stride_of(int s)
{
    return s ? s : 1;
}

/* A kernel of one tap in h and w is a product: all pixels of a frame are one row. */
static void flatten(struct conv *c)
{
    if (c->kh == 1 && c->kw == 1 && c->sh == 1 && c->sw == 1 && !c->ph && !c->pw && !c->pw_hi && c->Ho == c->H) {
        c->W *= c->H, c->Wo *= c->Ho;
        c->H = c->Ho = 1;
        if (c->kt == 1 && c->st == 1 && !c->pt && c->To == c->T) {
            c->W *= c->T, c->Wo *= c->To;
            c->T = c->To = 1;
        }
    }
}

/* Groups of fold pixels take the place of pixels. With a stride of its own, only a group's first pixel is used. */
static void fold(struct conv *c, int64_t pixels)
{
    c->row = c->Wo * c->O;
    c->kw += pixels - 1;
    c->fold = c->sw == 1 ? pixels : 1;
    if (c->sw == 1) {
        c->sw = pixels;
        c->Wo = (c->Wo + pixels - 1) / pixels;
        c->O *= pixels;
    }
    c->pw_hi = larger(c->pw_hi, (c->Wo - 1) * c->sw + c->kw - c->W - c->pw); /* where the last window ends */
}

static void rims(struct conv *c)
{
    /* the first pixel whose window ends behind the row: w·sw - pw + kw > W */
    const int64_t inside = c->W + c->pw >= c->kw ? (c->W + c->pw - c->kw) / c->sw + 1 : 0;

    c->left = smaller((c->pw + c->sw - 1) / c->sw, c->Wo);
    c->right = larger(c->Wo - inside, 0);
    c->span = (larger(c->left, c->right) - 1) * c->sw + c->kw;
    c->copy = c->x_type != c->type || c->Cp != c->C;
    if ((c->left || c->right) && (c->left + c->right > c->Wo || 4 * c->span > c->W))
        c->copy = true;
}

/* Pieces of a row are equal but for the ends: inside they are whole tiles of 24 pixels, which the rims would spoil. */
static void pieces(struct conv *c)
{
    const int64_t rim = c->copy ? 0 : c->left + c->right, inside = c->Wo - rim, most = PIXELS - rim;

    c->pieces = larger(1, (inside + most - 1) / most);
    c->each = smaller(most, ((inside + c->pieces - 1) / c->pieces + 23) / 24 * 24);
    c->pieces = larger(1, (inside + c->each - 1) / larger(1, c->each));
}

static int64_t piece_begin(const struct conv *c, int64_t i)
{
    return i == 0 ? 0 : i == c->pieces ? c->Wo : (c->copy ? 0 : c->left) + i * c->each;
}

static struct conv conv_of(const struct cpu_device *d, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o)
{
    struct conv c = {
        .k = &d->k, .x = x.data, .w = w.data, .y = y, .x_type = x.type, .type = w.type, .bias = o->bias.data, .add = o->add,
        .T = x.dim[0], .H = x.dim[1], .W = x.dim[2], .C = x.dim[3], .Cp = x.dim[3] + (w.type == GV_BF16 ? x.dim[3] % 2 : 0),
        .kt = w.dim[1], .kh = w.dim[2], .kw = w.dim[3],
        .st = stride_of(o->stride[0]), .sh = stride_of(o->stride[1]), .sw = stride_of(o->stride[2]),
        .pt = o->pad_lo[0], .ph = o->pad_lo[1], .pw = o->pad_lo[2], .pw_hi = o->pad_hi[2],
        .To = y.dim[0], .Ho = y.dim[1], .Wo = y.dim[2], .O = y.dim[3],
    };

    flatten(&c);
    fold(&c, gv_cpu_fold(&w));
    rims(&c);
    pieces(&c);
    return c;
}

static size_t rim_bytes(const struct conv *c)
{
    const int64_t width = c->copy ? c->W + c->pw + c->pw_hi : 2 * c->span;

    if (!c->copy && !c->left && !c->right)
        return 0;
    return (size_t)(c->T * c->H * width * c->Cp) * gv_cpu_size(c->type);
}

size_t gv_cpu_conv_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o)
{
    const struct conv c = conv_of(gv_cpu_of(d), y, x, w, o);

    return rim_bytes(&c);
}

/* ---- the ends of rows ---------------------------------------------------------------------------------------------------- */

/* Pixels [from, from + n) of a row of x, which may lie outside it: zeros there. */
static void copy_pixels(const struct conv *c, char *dst, const char *row, int64_t from, int64_t n)
{
    const size_t pixel = (size_t)c->Cp * gv_cpu_size(c->type), source = (size_t)c->C * gv_cpu_size(c->x_type);

    for (int64_t i = from; i < from + n; i++, dst += pixel) {
        if (c->Cp != c->C || i < 0 || i >= c->W)
            memset(dst, 0, pixel);
        if (i >= 0 && i < c->W)
            gv_cpu_convert(c->k, dst, c->type, row + (size_t)i * source, c->x_type, c->C);
    }
}

static void rim_row(void *arg, int64_t i)
{
    const struct conv *c = arg;
    const char        *row = c->x + (size_t)(i * c->W * c->C) * gv_cpu_size(c->x_type);
    const size_t       pixel = (size_t)c->Cp * gv_cpu_size(c->type);

    if (c->copy) {
        const int64_t width = c->W + c->pw + c->pw_hi;

        copy_pixels(c, c->rim + (size_t)(i * width) * pixel, row, -c->pw, width);
        return;
    }
    char *left = c->rim + (size_t)(2 * i * c->span) * pixel;

    copy_pixels(c, left, row, -c->pw, c->span);
    copy_pixels(c, left + (size_t)c->span * pixel, row, (c->Wo - c->right) * c->sw - c->pw, c->span);
}

/* ---- the sums ------------------------------------------------------------------------------------------------------------ */

/* Where the window of output pixel w begins in row (t, h) of x. */
static const void *window(const struct conv *c, int64_t t, int64_t h, int64_t w)
{
    const int64_t row = t * c->H + h, size = (int64_t)gv_cpu_size(c->type) * c->Cp;

    if (c->copy)
        return c->rim + (row * (c->W + c->pw + c->pw_hi) + w * c->sw) * size;
    if (w < c->left)
        return c->rim + (2 * row * c->span + w * c->sw) * size;
    if (w >= c->Wo - c->right)
        return c->rim + ((2 * row + 1) * c->span + (w - (c->Wo - c->right)) * c->sw) * size;
    return c->x + (row * c->W + w * c->sw - c->pw) * size;
}

/* A piece of an output row, and one panel. */
struct piece {
    int64_t t, h, from, to; /* output */
    int64_t column, width;
    float  *c;
};

/* c (+)= Σ over places [first, first + n) of the kernel, which all lie inside x. */
static void sum_places(const struct conv *c, const struct piece *p, int64_t first, int64_t n, bool accumulate)
{
    const int64_t size = (int64_t)gv_cpu_size(c->type), K = c->kw * c->Cp;
    const int64_t cut[4] = { p->from, c->copy ? p->to : larger(p->from, smaller(p->to, c->left)),
                             c->copy ? p->to : larger(p->from, smaller(p->to, c->Wo - c->right)), p->to };

    for (int part = 0; part < 3; part++) { /* left rim, x itself, right rim */
        const int64_t w = cut[part], rows = cut[part + 1] - w;
        const void   *a[PLACES];

        if (rows <= 0)
            continue;
        for (int64_t i = 0; i < n; i++)
            a[i] = window(c, p->t * c->st - c->pt + (first + i) / c->kh, p->h * c->sh - c->ph + (first + i) % c->kh, w);
        const struct gemm_tile tile = {
            .c = p->c + (w - p->from) * p->width, .ldc = p->width, .a = a, .n_a = n, .lda = c->sw * c->Cp,
            .b = c->w + (p->column * c->kt * c->kh + first * p->width) * K * size, .k = K,
            .rows = (int)rows, .width = (int)p->width, .accumulate = accumulate,
        };

        if (c->type == GV_F32)
            c->k->gemm_f32(&tile);
        else
            c->k->gemm_bf16(&tile);
    }
}

/* Places [first, first + n), which are contiguous in the packed weight, in groups that leave their part of it in L2. */
static void sum_run(const struct conv *c, const struct piece *p, int64_t first, int64_t n, bool accumulate)
{
    const int64_t part = c->kw * c->Cp * p->width * (int64_t)gv_cpu_size(c->type);
    const int64_t most = larger(1, smaller(PLACES, L2_PART / part));

    for (int64_t i = 0; i < n; i += most)
        sum_places(c, p, first + i, smaller(most, n - i), accumulate || i);
}

/* All places of the kernel that lie inside x. */
static void sum_piece(const struct conv *c, const struct piece *p)
{
    const int64_t t0 = p->t * c->st - c->pt, h0 = p->h * c->sh - c->ph;
    const int64_t dt_from = larger(0, -t0), dt_to = smaller(c->kt, c->T - t0);
    const int64_t dh_from = larger(0, -h0), dh_to = smaller(c->kh, c->H - h0);

    if (dt_from >= dt_to || dh_from >= dh_to)
        memset(p->c, 0, (size_t)((p->to - p->from) * p->width) * sizeof(float));
    else if (dh_to - dh_from == c->kh)
        sum_run(c, p, dt_from * c->kh, (dt_to - dt_from) * c->kh, false);
    else
        for (int64_t dt = dt_from; dt < dt_to; dt++)
            sum_run(c, p, dt * c->kh + dh_from, dh_to - dh_from, dt > dt_from);
}

/* Sums to y; the last group of a row may reach behind it. */
static void finish_piece(const struct conv *c, const struct piece *p, char *y)
{
    const int64_t      size = (int64_t)gv_cpu_size(c->y.type), n = smaller(p->width, c->O - p->column);
    const int64_t      behind = larger(0, p->to * c->O - c->row);
    const float       *bias = c->bias ? c->bias + p->column : NULL;
    float              repeated[16];
    struct gemm_finish f = { .y = y, .y_stride = c->O * size, .type = c->y.type, .c = p->c, .ldc = p->width,
                             .rows = p->to - p->from - (behind > 0), .n = n, .bias = bias, .add = c->add };

    if (bias && c->fold > 1) {
        for (int64_t i = 0; i < c->O; i++)
            repeated[i] = bias[i % (c->O / c->fold)];
        f.bias = repeated;
    }
    c->k->gemm_finish(&f);
    if (behind) {
        f.y = y + f.rows * f.y_stride;
        f.c += f.rows * f.ldc;
        f.rows = 1;
        f.n = n - behind;
        c->k->gemm_finish(&f);
    }
}

static void conv_slice(void *arg, int64_t i)
{
    const struct conv *c = arg;
    const int64_t      rows = c->To * c->Ho * c->pieces, n = i % rows;
    _Alignas(64) float sums[PIXELS * GV_PANEL_MAX];
    struct piece       p = { .column = i / rows * c->k->panel, .c = sums };

    p.width = smaller(c->k->panel, (c->O - p.column + 15) / 16 * 16);
    p.from = piece_begin(c, n % c->pieces);
    p.to = piece_begin(c, n % c->pieces + 1);
    p.h = n / c->pieces % c->Ho;
    p.t = n / c->pieces / c->Ho;

    const int64_t size = (int64_t)gv_cpu_size(c->y.type), bytes = smaller(p.width, c->O - p.column) * size;
    char         *y = (char *)c->y.data + ((p.t * c->Ho + p.h) * c->row + p.from * c->O + p.column) * size;

    for (int64_t w = 0; w < p.to - p.from; w++)
        gv_prefetch_row(y + w * c->O * size, bytes);
    sum_piece(c, &p);
    finish_piece(c, &p, y);
}

void gv_cpu_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *ws)
{
    struct conv c = conv_of(gv_cpu_of(r->device), y, x, w, o);

    c.rim = ws;
    if (rim_bytes(&c))
        gv_parallel_for(r->device, c.T * c.H, rim_row, &c);
    gv_parallel_for(r->device, c.To * c.Ho * c.pieces * ((c.O + c.k->panel - 1) / c.k->panel), conv_slice, &c);
}
