/* Each head in the order of axes that suits it: some heads look at places near their own, some at frames near their own, and a fixed
 * pattern of lists fits a head only where what it reads lies together. A model's tokens have one order (layout.h); here a static
 * plan's lists are read in each head's own (struct attn_head_order): the kernel, which packs queries, keys and values anyway, takes
 * them from where the order says, and writes each output where its query was. Nothing is copied for it.
 *
 * A head takes the order in which the plan's lists hold most of its softmax. The first call of a site (a layer and stream) that could
 * leave something out is computed exactly instead, and its LSE says what all keys sum to; every eighth query tile says, in each order,
 * what the lists hold. The choice stays for the render.
 *
 * What may surprise:
 *   - Order is not the business of the step that normalises and rotates: keys stay as the model made them, for a choice, a refresh or
 *     a sample reads them too, and a rotation depends on a token, not on its place in the sequence.
 *   - All batch rows of a call share a choice.
 *   - The choice reads the LSE on the host: on the CPU alone, other devices refuse with UNSUPPORTED, in the dry run too.
 *
 * Sources: two orders: Xi et al. 2025, "Sparse VideoGen", which samples queries too, by their outputs' error; all six:
 * Zhao et al. 2025, "PAROAttention", which chooses offline. */
#ifndef GV_ATTENTION_AXES_H
#define GV_ATTENTION_AXES_H

#include "attention/attention.h"
#include "attention/layout.h"

struct attn_axes {
    int      n; /* orders to choose among, the first n of gv_axes_name; 0 or 1: heads stay as they are */
    int      sites, heads;
    int64_t  tokens;
    int32_t *order; /* [n][tokens]: raster index of each token */
    uint8_t *of;    /* [sites][heads] order of each head; NONE: not chosen yet */
};
enum { GV_AXES_NONE = 255, GV_ATTN_HEADS = 256 };

/* For the grid of a layout in raster order. Errors: ARGUMENT (another order, no grid, more than 256 heads), MEMORY. */
struct axes_shape {
    int n, sites, heads;
};
gv_status gv_axes_open(struct attn_axes *x, const struct attn_layout *l, const struct axes_shape *shape, struct error *e);
void      gv_axes_close(struct attn_axes *x);

static inline bool gv_axes_chosen(const struct attn_axes *x, int site)
{
    return x->of[(int64_t)site * x->heads] != GV_AXES_NONE;
}

/* Chooses for a site; the call's output is exact. call: one source, the tokens' own keys; plan: static, for any head. */
void gv_axes_choose(struct run *r, struct attn_axes *x, int site, const struct attn_call *call, const struct attn_plan *plan);
/* The call by its plan, each head in the site's order. */
void gv_axes_attend(struct run *r, const struct attn_axes *x, int site, const struct attn_call *call);

#endif
