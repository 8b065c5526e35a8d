/* Which device a test runs on, and memory that the test and the device both reach: GV_TEST_DEVICE=cuda runs the suites that
 * take part on the GPU, without a word changed in them. */
#ifndef GV_TESTS_DEVICE_H
#define GV_TESTS_DEVICE_H

#include "core/run.h"

const char *test_device(void); /* GV_TEST_DEVICE, or "cpu" */
bool        test_on_cpu(void);

/* Page-aligned memory at one address on both sides: plain on the CPU; pinned and mapped for a CUDA device, which must be open.
 * NULL if there is none. Slow to take and, from the device, slow to reach. */
void *test_shared_alloc(struct device *d, size_t bytes);
void  test_shared_free(struct device *d, void *p, size_t bytes);

#endif
