/* The CUDA module's one door: the device of core/cuda with the kernels of this room. See core/module.h. */
#include "core/module.h"

#include "attention/cuda/attn_cuda.h"
#include "core/cuda/cuda.h"

static gv_status open_device(struct device **out, const struct device_params *p, struct error *e)
{
    TRY(gv_device_cuda_open(out, p, e));
    (*out)->attention = &gv_attn_cuda_ops;
    return GV_OK;
}

__attribute__((visibility("default"))) const struct device_module *gv_device_module(void);

const struct device_module *gv_device_module(void)
{
    static const struct device_module module = {
        .version = GV_VERSION,
        .ops_bytes = sizeof(struct device_ops),
        .device_bytes = sizeof(struct device),
        .run_bytes = sizeof(struct run),
        .open = open_device,
    };
    return &module;
}
