#include "diffusion/blocks.h"

#include <math.h>

void gv_time_embedding(float *out, const float *time, int n, int half)
{
    for (int k = 0; k < n; k++)
        for (int i = 0; i < half; i++) {
            float angle = time[k] * expf(-9.210340371976184f * (float)i / (float)half);
            out[(k * 2) * half + i] = cosf(angle);
            out[(k * 2 + 1) * half + i] = sinf(angle);
        }
}
