/* How much memory may be taken, on made-up machines: a folder with proc/ and sys/ as Linux lays them out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/cpu/memory.h"
#include "tests/fixture.h"

static char root[256];

/* A file of the machine, with the folders on its way. */
static void put(const char *path, const char *text)
{
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0777);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int new_machine(void **state)
{
    (void)state;
    fixture_temp(root);
    put("proc/meminfo", "MemTotal:  8000000 kB\nMemFree: 1 kB\nMemAvailable:    1000000 kB\n");
    return 0;
}

static int scrap(void **state)
{
    (void)state;
    fixture_remove(root);
    return 0;
}

enum { MIB = 1 << 20 };
static const size_t machine = (size_t)1000000 * 1024;

static void without_groups_it_is_what_the_machine_has(void **state)
{
    (void)state;
    assert_int_equal(gv_free_memory(root), machine);
    put("proc/self/cgroup", "0::/\n"); /* the root has no limit files */
    assert_int_equal(gv_free_memory(root), machine);
}

static void a_group_of_version_2_limits_less_what_it_uses_but_files(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/jobs/render\n");
    put("sys/fs/cgroup/jobs/render/memory.max", "104857600\n");    /* 100 MiB */
    put("sys/fs/cgroup/jobs/render/memory.current", "73400320\n"); /* 70 MiB */
    put("sys/fs/cgroup/jobs/render/memory.stat",
        "anon 10485760\nfile 62914560\ninactive_file 20971520\nactive_file 10485760\n");
    assert_int_equal(gv_free_memory(root), 60 * MIB);
    put("sys/fs/cgroup/jobs/render/memory.high", "94371840\n"); /* 90 MiB: beyond it the group is slowed down */
    assert_int_equal(gv_free_memory(root), 50 * MIB);
}

static void a_limit_around_the_group_binds_too(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/jobs/render\n");
    put("sys/fs/cgroup/jobs/render/memory.max", "max\n");
    put("sys/fs/cgroup/jobs/render/memory.current", "73400320\n");
    assert_int_equal(gv_free_memory(root), machine);
    put("sys/fs/cgroup/jobs/memory.max", "209715200\n");
    put("sys/fs/cgroup/jobs/memory.current", "104857600\n");
    assert_int_equal(gv_free_memory(root), 100 * MIB);
}

static void a_container_sees_its_own_group_as_the_root(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/docker/abc\n"); /* a path of the host's */
    put("sys/fs/cgroup/memory.max", "33554432\n");
    put("sys/fs/cgroup/memory.current", "0\n");
    assert_int_equal(gv_free_memory(root), 32 * MIB);
}

static void version_1_keeps_memory_in_a_tree_of_its_own(void **state)
{
    (void)state;
    put("proc/self/cgroup", "12:cpu,cpuacct:/a\n9:memory:/slurm/job_7\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "104857600\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", "83886080\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.stat", "inactive_file 1\ntotal_inactive_file 10485760\ntotal_active_file 0\n");
    assert_int_equal(gv_free_memory(root), 30 * MIB);
    put("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "9223372036854771712\n"); /* its way to say none */
    assert_int_equal(gv_free_memory(root), machine);
}

static void a_full_group_has_nothing_left(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/full\n");
    put("sys/fs/cgroup/full/memory.max", "1048576\n");
    put("sys/fs/cgroup/full/memory.current", "2097152\n");
    assert_int_equal(gv_free_memory(root), 0);
}

#define MADE(f) cmocka_unit_test_setup_teardown(f, new_machine, scrap)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MADE(without_groups_it_is_what_the_machine_has),   MADE(a_group_of_version_2_limits_less_what_it_uses_but_files),
        MADE(a_limit_around_the_group_binds_too),          MADE(a_container_sees_its_own_group_as_the_root),
        MADE(version_1_keeps_memory_in_a_tree_of_its_own), MADE(a_full_group_has_nothing_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
