/* See device.h. The driver is found at run time, as the module finds it: a test links no CUDA. */
#include "tests/device.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

const char *test_device(void)
{
    const char *name = getenv("GV_TEST_DEVICE");

    return name && *name ? name : "cpu";
}

bool test_on_cpu(void)
{
    return !strcmp(test_device(), "cpu");
}

enum { PAGE = 4096, REGISTER_PORTABLE_MAPPED = 3 };

static size_t pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
}

/* The driver's cuMemHostRegister and cuMemHostUnregister, found at run time as the module finds them: a test links no CUDA. */
static void *driver(const char *symbol)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);

    return library ? dlsym(library, symbol) : NULL;
}

void *test_shared_alloc(struct device *d, size_t bytes)
{
    int (*enter)(void *, size_t, unsigned);
    void *p = aligned_alloc(PAGE, pages(bytes)), *symbol;

    if (!p || d->kind == GV_DEVICE_CPU)
        return p;
    symbol = driver("cuMemHostRegister_v2");
    memcpy(&enter, &symbol, sizeof enter);
    if (symbol && enter(p, pages(bytes), REGISTER_PORTABLE_MAPPED) == 0)
        return p;
    free(p);
    return NULL;
}

void test_shared_free(struct device *d, void *p, size_t bytes)
{
    int (*leave)(void *);
    void *symbol = p && d->kind != GV_DEVICE_CPU ? driver("cuMemHostUnregister") : NULL;

    (void)bytes;
    memcpy(&leave, &symbol, sizeof leave);
    if (symbol)
        leave(p);
    free(p);
}
