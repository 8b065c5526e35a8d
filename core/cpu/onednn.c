/* oneDNN: the only file that includes its header. To come; the own kernels of matmul.c and conv.c do the work until then. */
#include <dnnl_version.h>

#if DNNL_VERSION_MAJOR != 2
#error "genvid uses the C API of oneDNN 2.x, which version 3 changed: build with -DGV_ONEDNN=OFF"
#endif

typedef int gv_onednn_empty;
