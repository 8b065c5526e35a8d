/* Convolutions: the plain kernel, which does what follows the sum as well. */
#include "core/cuda/cuda.h"

size_t gv_cuda_conv_workspace(struct device *d, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o)
{
    (void)d, (void)y, (void)x, (void)w, (void)o;
    return 0;
}

void gv_cuda_conv(struct run *r, struct tensor y, struct tensor x, struct tensor w, const struct conv_opts *o, void *ws)
{
    struct cu_conv a = { .x = x.data,
                         .w = w.data,
                         .x_type = x.type,
                         .w_type = w.type,
                         .x_pixel = x.dim[3],
                         .T = x.dim[0],
                         .H = x.dim[1],
                         .W = x.dim[2],
                         .C = x.dim[3],
                         .O = w.dim[0],
                         .To = y.dim[0],
                         .Ho = y.dim[1],
                         .Wo = y.dim[2],
                         .out = { .y = gv_cuda_rows(y), .bias = o->bias.data, .add = o->add } };

    (void)ws;
    for (int i = 0; i < 3; i++) {
        a.k[i] = (int)w.dim[i + 1];
        a.stride[i] = o->stride[i] ? o->stride[i] : 1;
        a.pad[i] = o->pad_lo[i];
    }
    gv_cuda_ok(r, gv_cu_conv(&a, gv_cuda_of(r->device)->stream), "conv");
}
