#define _GNU_SOURCE /* dladdr */
#include "core/module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Beside the object that this code is in; so an installed tree and a build tree work wherever they lie. */
static void *open_beside(const char *file, struct error *e)
{
    Dl_info     self;
    char        path[4096];
    const char *slash = NULL;

    if (dladdr((void *)(uintptr_t)gv_module_open, &self) && self.dli_fname)
        slash = strrchr(self.dli_fname, '/');
    if (slash &&
        snprintf(path, sizeof path, "%.*s/%s", (int)(slash - self.dli_fname), self.dli_fname, file) < (int)sizeof path) {
        void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (module)
            return module;
    }
    void *module = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!module)
        gv_fail(e, GV_ERR_UNSUPPORTED, "this machine or build has no %s: %s", file, dlerror());
    return module;
}

/* A module once opened stays: the libraries behind it do not all survive being unloaded. */
gv_status gv_module_open(struct device **out, const char *name, const struct device_params *p, struct error *e)
{
    char             file[64];
    device_module_fn entry;

    snprintf(file, sizeof file, "libgenvid_%s.so", name);
    void *module = open_beside(file, e);
    if (!module)
        return GV_ERR_UNSUPPORTED;
    void *symbol = dlsym(module, GV_MODULE_ENTRY);
    if (!symbol)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is no module of genvid: it has no %s", file, GV_MODULE_ENTRY);
    memcpy(&entry, &symbol, sizeof entry); /* POSIX's way from an object pointer to a function pointer */
    const struct device_module *m = entry();
    if (strcmp(m->version, GV_VERSION) || m->ops_bytes != sizeof(struct device_ops) ||
        m->device_bytes != sizeof(struct device) || m->run_bytes != sizeof(struct run))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is of another build (version %s) than the library (%s)", file, m->version,
                       GV_VERSION);
    return m->open(out, p, e);
}
