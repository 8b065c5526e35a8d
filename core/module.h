/* A device in a shared object of its own, opened at run time: libgenvid_<name>.so beside the library, or wherever the loader
 * finds it. So nothing in libgenvid links a driver, and one build runs with and without the device.
 *
 * The module links the engine's core again, whose functions keep no state; what crosses the border are struct device, struct
 * run and the tables they point to. Both sides must therefore be of one build, which the sizes and the version tell. */
#ifndef GV_CORE_MODULE_H
#define GV_CORE_MODULE_H

#include "core/run.h"

struct device_module {
    const char *version; /* of the library that it was built with */
    size_t      ops_bytes, device_bytes, run_bytes;
    gv_status (*open)(struct device **out, const struct device_params *p, struct error *e);
};
/* What a module exports under this name. */
typedef const struct device_module *(*device_module_fn)(void);
#define GV_MODULE_ENTRY "gv_device_module"

/* Opens the device `name` of its module. UNSUPPORTED when there is no such module here, when it was built for another version,
 * or when a library or a driver it needs is missing: the message says which. */
gv_status gv_module_open(struct device **out, const char *name, const struct device_params *p, struct error *e);

#endif
