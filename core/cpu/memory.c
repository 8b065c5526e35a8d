/* Control groups come in two forms. Version 2 has one tree: /proc/self/cgroup says "0::/path", the group is
 * /sys/fs/cgroup/path with memory.max, memory.high and memory.current. Version 1 has a tree for memory alone: "9:memory:/path"
 * and /sys/fs/cgroup/memory/path with memory.limit_in_bytes and memory.usage_in_bytes. A limit binds everything below it, so
 * every folder up to the root of the tree counts. Inside of a container the path may be one that only the host sees: folders
 * that are not there are passed over, and the root of the tree is then the container's own group.
 * Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst. */
#include "core/cpu/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH = 4096, LINE = 4400 };

struct form {
    const char *tree;
    const char *limit[2], *usage; /* files */
    const char *files[2];         /* rows of memory.stat */
};
static const struct form forms[] = {
    { "/sys/fs/cgroup", { "memory.max", "memory.high" }, "memory.current", { "inactive_file", "active_file" } },
    { "/sys/fs/cgroup/memory",
      { "memory.limit_in_bytes", NULL },
      "memory.usage_in_bytes",
      { "total_inactive_file", "total_active_file" } },
};

static FILE *open_in(const char *folder, const char *name)
{
    char path[PATH];
    return (size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path ? fopen(path, "r") : NULL;
}

/* The number in a file of one; `none` where there is no file or it says "max". */
static uint64_t number_in(const char *folder, const char *name, uint64_t none)
{
    unsigned long long n = none;
    FILE              *f = open_in(folder, name);
    if (f && fscanf(f, "%llu", &n) != 1)
        n = none;
    if (f)
        fclose(f);
    return n;
}

/* Bytes of the group's memory that are copies of files. */
static uint64_t file_bytes(const char *folder, const struct form *g)
{
    char               name[64];
    unsigned long long n;
    uint64_t           sum = 0;
    FILE              *f = open_in(folder, "memory.stat");
    while (f && fscanf(f, "%63s %llu", name, &n) == 2)
        if (!strcmp(name, g->files[0]) || !strcmp(name, g->files[1]))
            sum += n;
    if (f)
        fclose(f);
    return sum;
}

/* What one group may still take; UINT64_MAX where it has no limit. */
static uint64_t free_in_group(const char *folder, const struct form *g)
{
    uint64_t limit = number_in(folder, g->limit[0], UINT64_MAX);
    if (g->limit[1]) {
        const uint64_t high = number_in(folder, g->limit[1], UINT64_MAX);
        limit = high < limit ? high : limit;
    }
    if (limit >= (uint64_t)1 << 60) /* version 1 writes a huge number for none */
        return UINT64_MAX;
    uint64_t       used = number_in(folder, g->usage, 0);
    const uint64_t files = file_bytes(folder, g);
    used = used > files ? used - files : 0;
    return used < limit ? limit - used : 0;
}

/* The least of the group at path and all around it. */
static uint64_t free_in_tree(const char *root, const struct form *g, const char *path)
{
    char      folder[PATH];
    const int tree = snprintf(folder, sizeof folder, "%s%s%s", root, g->tree, strcmp(path, "/") ? path : "");
    const int top = (int)(strlen(root) + strlen(g->tree));
    uint64_t  least = UINT64_MAX;
    if (tree < 0 || tree >= PATH)
        return least;
    for (;;) {
        const uint64_t n = free_in_group(folder, g);
        least = n < least ? n : least;
        char *slash = strrchr(folder, '/');
        if (!slash || slash - folder < top)
            return least;
        *slash = 0;
    }
}

static uint64_t free_in_groups(const char *root)
{
    char     line[LINE];
    uint64_t least = UINT64_MAX;
    FILE    *f = open_in(root, "proc/self/cgroup");
    while (f && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path || path[1] != '/')
            continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        const struct form *g = !controllers[1] ? &forms[0] : !strcmp(controllers + 1, "memory") ? &forms[1] : NULL;
        const uint64_t     n = g ? free_in_tree(root, g, path) : UINT64_MAX;
        least = n < least ? n : least;
    }
    if (f)
        fclose(f);
    return least;
}

static uint64_t available(const char *root)
{
    char               line[128];
    unsigned long long kib = 0;
    FILE              *f = open_in(root, "proc/meminfo");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib ? (uint64_t)kib * 1024 : (uint64_t)sysconf(_SC_PHYS_PAGES) / 2 * (uint64_t)sysconf(_SC_PAGESIZE);
}

size_t gv_free_memory(const char *root)
{
    const uint64_t machine = available(root), group = free_in_groups(root);
    return (size_t)(group < machine ? group : machine);
}
