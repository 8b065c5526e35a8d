/* Every operation a model may call: documented here, checked once in ops.c, done by the device's table.
 *
 * Common to all: the run comes first, then destinations, then sources. Shapes, types and aliasing that do not fit fail the
 * run with INTERNAL (a model's mistake) in words; a type pair the device lacks fails with UNSUPPORTED. Operations are queued
 * on the device and may not be finished on return. "act type" is run->compute or f32. Sums are in f32.
 *
 * A fusion is an option, not an operation: the text of a model is the same whether a device fuses or not. */
#ifndef GV_CORE_OPS_H
#define GV_CORE_OPS_H

#include "core/run.h"

enum act { ACT_NONE, ACT_GELU_TANH, ACT_GELU_ERF, ACT_SILU, ACT_QUICK_GELU };

/* Adapters (LoRA) belong here when they come: a low-rank pair beside w, added before act. */
struct linear_opts {
    struct tensor bias;  /* f32 [M] or absent; where all else is bf16 a device may round it to bf16, as checkpoints hold it */
    enum act      act;   /* of x · wᵀ + bias */
    struct tensor gate;  /* f32 [G, M] or absent: the result is multiplied by gate[group[n]] */
    struct tensor group; /* i32 [N] or absent: all of group 0 */
    bool          add;   /* y += instead of y = ; y must then be f32 */
};

/* y = gate ⊙ act(x · wᵀ + bias), or y += that.
 *   y [N, M] act type or f32, rows may be strided; may not overlap x
 *   x [N, K] act type or f32, rows may be strided
 *   w [M, K] prepared with WEIGHT_LINEAR */
void gv_linear(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct linear_opts *o);

enum norm_kind {
    NORM_LAYER, /* (x - mean) / sqrt(var + eps), biased variance */
    NORM_RMS,   /* x / sqrt(mean(x²) + eps) */
    NORM_L2     /* x · sqrt(D) / max(‖x‖₂, eps): the Wan VAE's "RMS_norm" */
};

/* Rotary embedding, applied after weight and bias to every head of the row. Tables from attention/rope.h. */
struct rope {
    struct tensor cos, sin; /* f32 [N', head/2]; row n of x uses row n mod N' */
    int           head;     /* head size, even; D is a multiple of it */
    bool          halves;   /* true: pairs (i, i + head/2), as Qwen; false: pairs (2i, 2i+1), as Wan */
};

struct norm_opts {
    enum norm_kind kind;
    float          eps;
    struct tensor  weight, bias; /* f32 [D] or absent */
    struct tensor  scale,
        shift; /* f32 [G, D] (rows may be strided) or absent: y = norm · (1 + scale) + shift, after weight and bias */
    struct tensor      group; /* i32 [N] or absent: all of group 0 */
    enum act           act;   /* last but for rope */
    const struct rope *rope;  /* or NULL */
};

/* Normalise each row. y [N, D] act type or f32; x [N, D] act type or f32; both may have any rank whose last dimension is D
 * and whose rows are evenly strided. y may be x. */
void gv_norm(struct run *r, struct tensor y, struct tensor x, const struct norm_opts *o);

struct conv_opts {
    struct tensor bias;      /* f32 [O] or absent; rounded as in linear_opts */
    int           stride[3]; /* t, h, w; 0 means 1 */
    int           pad_lo[3]; /* zeros in front of t, h, w */
    int           pad_hi[3]; /* zeros behind */
    bool          add;       /* y += : a residual; of a bf16 y the sum may be rounded to bf16 before */
};

/* y = w * x + bias over [T, H, W, C], channels last; a 2-D convolution is one with kt = 1.
 *   y [T', H', W', O] act type or f32     x [T, H, W, C] act type, contiguous
 *   w [O, kt, kh, kw, C] prepared with WEIGHT_CONV
 * Causality is the caller's: earlier frames stand in front of x, as rows of the same buffer. */
void gv_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o);

/* Pointwise; shapes equal, rows evenly strided, act type or f32 each. */
void gv_act(struct run *r, struct tensor y, struct tensor x, enum act act); /* y = act(x); y may be x */
void gv_glu(struct run *r, struct tensor y, struct tensor a, struct tensor b,
            enum act act); /* y = act(a) ⊙ b; y may be either */
/* y = a + b; b may have fewer rows than a, whose number divides a's: row n of a takes row n mod b's. y may be a. */
void gv_add(struct run *r, struct tensor y, struct tensor a, struct tensor b);

/* dst = src, any strides on either side, converting between f32, bf16 and f16 (round to nearest even). No overlap. */
void gv_copy(struct run *r, struct tensor dst, struct tensor src);
void gv_fill(struct run *r, struct tensor dst, float value); /* any strides; f32 or act type */

/* y[n] = table[index[n]]. y [N, D] act type or f32; table [V, D] f32, bf16 or f16; index i32 [N], each in [0, V). */
void gv_gather(struct run *r, struct tensor y, struct tensor table, struct tensor index);

/* y = Σ factor · x over up to GV_LINCOMB_TERMS terms, f32, contiguous, equal shapes; y may be one of them. Solver steps. */
enum { GV_LINCOMB_TERMS = 5 };
struct lincomb_term {
    float         factor;
    struct tensor x;
};
void gv_lincomb(struct run *r, struct tensor y, int n, const struct lincomb_term *terms);

/* Patches to rows and back. x [T, H, W, C] f32, patch (pt, ph, pw) divides it; N = T/pt · H/ph · W/pw, tokens in t, h, w order.
 *   patchify:   rows [N, C·pt·ph·pw] act type, channel slowest: the flattened weight of a Conv3d with kernel = stride
 *   unpatchify: rows [N, pt·ph·pw·C] act type or f32, channel fastest: Wan's head (transformer_wan.py, forward's tail) */
void gv_patchify(struct run *r, struct tensor rows, struct tensor x, const int patch[3]);
void gv_unpatchify(struct run *r, struct tensor x, struct tensor rows, const int patch[3]);

/* Nearest-neighbour doubling of H and W. x [T, H, W, C], y [T, 2H, 2W, C], equal types, contiguous. */
void gv_upsample(struct run *r, struct tensor y, struct tensor x);

/* Standard normal numbers keyed by (seed, purpose, block, step, c, t, y, x): the same on every device, and independent of
 * the order in which they are made. y [T, H, W, C] f32, contiguous; t0: first frame's index in the whole clip. */
struct noise_key {
    uint64_t seed;
    uint32_t purpose; /* 0: initial latents; 1: re-noise of a few-step schedule */
    uint32_t block, step;
    int64_t  t0;
};
void gv_noise(struct run *r, struct tensor y, const struct noise_key *key);

/* Fail the run, naming r->where and `what`, if x [f32] holds a NaN or an infinity: at once, or, on a device that works while the
 * host runs ahead, by the next download or sync at the latest. */
void gv_check_finite(struct run *r, struct tensor x, const char *what);
void gv_fail_not_finite(struct run *r, const char *what); /* the sentence, for devices */

void gv_upload(struct run *r, struct tensor dst, const void *host); /* contiguous, dst's type */
void gv_download(struct run *r, void *host, struct tensor src);     /* finished on return; zeros on the null device */
void gv_sync(struct run *r); /* wait until all that is queued is done: before host memory that an upload reads goes away */
/* Scratch filled from the host. */
struct tensor gv_scratch_from(struct run *r, enum dtype type, int rank, const int64_t *dim, const void *host);

#endif
