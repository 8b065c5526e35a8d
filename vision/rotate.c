/* core/ops.h has rotation as a part of gv_norm only. A root-mean-square norm whose eps dwarfs every mean square is a
 * multiplication by 1 / sqrt(eps), and eps = 2^80 with a weight of 2^40 multiplies by exactly 1: no bit of x is lost as
 * long as |x| lies between 2^-86 and 2^27 (smaller ones become subnormal or 0 on the way). */
#include "vision/rotate.h"

#include <math.h>

void gv_rotate(struct run *r, struct tensor x, const struct rope *rope)
{
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor weight = gv_scratch(r, GV_F32, 1, &x.dim[x.rank - 1]);
    gv_fill(r, weight, 0x1p40F);
    gv_norm(r, x, x, &(struct norm_opts){ .kind = NORM_RMS, .eps = 0x1p80F, .weight = weight, .rope = rope });
    arena_release(&r->scratch, mark);
}

void gv_rotation_rates(float *rate, int n, int width, double theta)
{
    for (int i = 0; i < n; i++)
        rate[i] = 1 / (float)pow(theta, (double)((float)(2 * i) / (float)width));
}

void gv_rotation_fill(float *cosine, float *sine, const float *rate, int n, float position)
{
    for (int i = 0; i < n; i++) {
        const float angle = position * rate[i];
        cosine[i] = (float)cos((double)angle);
        sine[i] = (float)sin((double)angle);
    }
}
