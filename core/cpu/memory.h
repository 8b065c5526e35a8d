/* How much memory this process may still take. */
#ifndef GV_CORE_CPU_MEMORY_H
#define GV_CORE_CPU_MEMORY_H

#include <stddef.h>

/* Bytes that can be had without swapping and without being killed for it: what Linux calls available, or less where a control
 * group (a container, a batch job, a systemd unit) or one around it allows less. What a group holds of files counts as free, for
 * it is given back on demand. Elsewhere half of the memory. root: "", or where a test keeps its proc/ and sys/. */
size_t gv_free_memory(const char *root);

#endif
