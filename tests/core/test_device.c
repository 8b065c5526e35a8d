/* Devices: what is refused at the door, memory counted against a budget, and the null device, which counts without having. */
#include "core/device.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/ops.h"

enum { MIB = 1 << 20 };

static struct device *open_cpu(size_t budget)
{
    struct device             *d;
    struct error               e = { 0 };
    const struct device_params p = { .name = "cpu", .threads = 2, .budget = budget, .precision = "f32" };
    gv_device_open(&d, &p, &e);
    assert_string_equal(e.text, "");
    return d;
}

static void refuse(const struct device_params *p, gv_status status, const char *word)
{
    struct device *d = (struct device *)(void *)&status;
    struct error   e = { 0 };
    assert_int_equal(gv_device_open(&d, p, &e), status);
    assert_int_equal(e.code, status);
    assert_null(d);
    if (!strstr(e.text, word))
        fail_msg("\"%s\" is not in: %s", word, e.text);
}

static void unknown_devices_levels_and_precisions_are_refused_by_name(void **state)
{
    (void)state;
    refuse(&(struct device_params){ .name = "tpu" }, GV_ERR_UNSUPPORTED, "tpu");
    refuse(&(struct device_params){ .name = "" }, GV_ERR_UNSUPPORTED, "cpu");
    refuse(&(struct device_params){ .name = "cpu", .cpu_level = "mmx" }, GV_ERR_ARGUMENT, "mmx");
    refuse(&(struct device_params){ .name = "cpu", .precision = "f8" }, GV_ERR_ARGUMENT, "f8");
}

/* Where there is no GPU, the module, its libraries or its driver are missing: in words, and never by a crash. */
static void a_gpu_opens_or_says_what_is_missing(void **state)
{
    (void)state;
    struct device  *d = NULL;
    struct error    e = { 0 };
    const gv_status status = gv_device_open(&d, &(struct device_params){ .name = "cuda" }, &e);

    if (status == GV_OK) {
        assert_int_equal(d->kind, GV_DEVICE_CUDA);
        assert_true(d->what[0] && d->budget > 0);
        gv_device_close(&d);
        return;
    }
    assert_null(d);
    assert_true(status == GV_ERR_UNSUPPORTED || status == GV_ERR_DEVICE || status == GV_ERR_MEMORY);
    assert_true(strstr(e.text, "libgenvid_cuda.so") || strstr(e.text, "driver") || strstr(e.text, "GPU") ||
                strstr(e.text, "CUDA"));
}

static void every_precision_and_level_opens(void **state)
{
    (void)state;
    static const char *const level[] = { NULL, "c", "avx2", "avx512", "avx512bf16" };
    for (size_t i = 0; i < sizeof level / sizeof *level; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct device             *d;
            struct error               e = { 0 };
            const struct device_params p = {
                .name = "cpu", .threads = 1, .cpu_level = level[i], .precision = bf16 ? "bf16" : "f32"
            };
            if (gv_device_open(&d, &p, &e)) { /* a level that this processor lacks says so */
                assert_int_equal(e.code, GV_ERR_UNSUPPORTED);
                continue;
            }
            assert_int_equal(d->compute, bf16 ? GV_BF16 : GV_F32);
            assert_string_equal(d->name, "cpu");
            gv_device_close(&d);
            assert_null(d);
        }
}

static void memory_is_aligned_counted_and_given_back(void **state)
{
    (void)state;
    struct device *d = open_cpu(0);
    struct error   e = { 0 };
    void          *p[3];
    assert_true(d->budget > 0); /* what is free */
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(gv_device_alloc(d, i * 100 + 1, "test", &p[i], &e), GV_OK);
        assert_int_equal((uintptr_t)p[i] % GV_ALIGN, 0);
        memset(p[i], 0, i * 100 + 1);
    }
    assert_int_equal(atomic_load(&d->in_use), 64 + 128 + 256);
    for (size_t i = 0; i < 3; i++)
        gv_device_free(d, p[i], i * 100 + 1);
    gv_device_free(d, NULL, 1000);
    assert_int_equal(atomic_load(&d->in_use), 0);
    assert_int_equal(atomic_load(&d->peak), 64 + 128 + 256);
    assert_int_equal(gv_device_alloc(d, 0, "nothing", &p[0], &e), GV_OK);
    gv_device_free(d, p[0], 0);
    assert_int_equal(atomic_load(&d->in_use), 0);
    gv_device_close(&d);
}

static void past_the_budget_is_refused_with_the_arithmetic(void **state)
{
    (void)state;
    struct device *d = open_cpu(8 * MIB);
    struct error   e = { 0 };
    void          *p, *q = d;
    assert_int_equal(gv_device_alloc(d, 5 * MIB, "weights", &p, &e), GV_OK);
    assert_int_equal(gv_device_alloc(d, 4 * MIB, "scratch", &q, &e), GV_ERR_MEMORY);
    assert_null(q);
    assert_string_equal(e.text, "scratch of 4 MiB does not fit: 5 of the 8 MiB budget of device cpu are in use");
    assert_int_equal(atomic_load(&d->in_use), 5 * MIB);
    e = (struct error){ 0 };
    assert_int_equal(gv_device_alloc(d, 3 * MIB, "scratch", &q, &e), GV_OK); /* to the last byte */
    gv_device_free(d, p, 5 * MIB);
    gv_device_free(d, q, 3 * MIB);
    gv_device_close(&d);
}

static void sizes_that_wrap_around_are_refused(void **state)
{
    (void)state;
    struct device *d = open_cpu(0), *null;
    struct error   e = { 0 };
    void          *p;
    assert_int_equal(gv_device_null(&null, d, &e), GV_OK);
    assert_int_equal(gv_device_alloc(d, SIZE_MAX, "all", &p, &e), GV_ERR_MEMORY);
    assert_int_equal(gv_device_alloc(null, SIZE_MAX - 3, "all", &p, NULL), GV_ERR_MEMORY);
    assert_int_equal(gv_device_alloc(null, SIZE_MAX / 2, "half", &p, NULL), GV_OK);
    assert_int_equal(gv_device_alloc(null, SIZE_MAX / 2 + 128, "half", &p, NULL), GV_ERR_MEMORY);
    assert_int_equal(atomic_load(&null->in_use), (size_t)1 << 63);
    gv_device_close(&null);
    gv_device_close(&d);
}

static void the_null_device_counts_and_has_nothing(void **state)
{
    (void)state;
    struct device *d = open_cpu(MIB), *null;
    struct error   e = { 0 };
    void          *p = d;
    assert_int_equal(gv_device_null(&null, d, &e), GV_OK);
    assert_true(gv_device_is_null(null));
    assert_false(gv_device_is_null(d));
    assert_int_equal(null->compute, d->compute);
    assert_int_equal(gv_device_alloc(null, (size_t)1 << 50, "petabyte", &p, &e), GV_OK); /* the budget is for plan to compare */
    assert_null(p);
    assert_int_equal(atomic_load(&null->peak), (size_t)1 << 50);
    assert_int_equal(atomic_load(&d->in_use), 0);
    gv_device_free(null, NULL, (size_t)1 << 50);
    assert_int_equal(atomic_load(&null->in_use), 0);
    gv_device_close(&null);
    gv_device_close(&d);
}

/* The null device answers questions of size as the device it stands for, so that its peak is the real one's. */
static void the_null_device_asks_the_real_one_about_sizes(void **state)
{
    (void)state;
    struct device *d = open_cpu(0), *null;
    struct error   e = { 0 };
    struct tensor  w = gv_tensor(NULL, GV_F32, 2, DIMS(37, 53)), x = gv_tensor(NULL, GV_F32, 2, DIMS(11, 53)),
                  y = gv_tensor(NULL, GV_F32, 2, DIMS(11, 37));
    const struct linear_opts o = { .act = ACT_SILU };
    assert_int_equal(gv_device_null(&null, d, &e), GV_OK);
    for (int use = WEIGHT_PLAIN; use <= WEIGHT_LINEAR; use++)
        assert_int_equal(null->ops->prepared_bytes(null, &w, (enum weight_use)use),
                         d->ops->prepared_bytes(d, &w, (enum weight_use)use));
    assert_int_equal(null->ops->linear_workspace(null, y, x, w, &o), d->ops->linear_workspace(d, y, x, w, &o));
    gv_device_close(&null);
    gv_device_close(&d);
}

/* A program's signals are for its own threads: a read of one that waits for a line has to be the one that a Ctrl-C ends. */
static void threads_of_the_pool_take_no_signals(void **state)
{
    (void)state;
    struct device *d = open_cpu(0);
    DIR           *tasks = opendir("/proc/self/task");
    struct dirent *task;
    int            others = 0;
    if (!tasks)
        skip();
    while ((task = readdir(tasks))) {
        char               path[300], line[200];
        unsigned long long blocked = 0;
        if (*task->d_name == '.' || atoi(task->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        while (fgets(line, sizeof line, f))
            sscanf(line, "SigBlk: %llx", &blocked);
        fclose(f);
        assert_true(blocked >> (SIGINT - 1) & 1);
        assert_true(blocked >> (SIGTERM - 1) & 1);
        others++;
    }
    closedir(tasks);
    assert_int_equal(others, 1); /* of the two threads asked for, the caller is one */
    gv_device_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_devices_levels_and_precisions_are_refused_by_name),
        cmocka_unit_test(a_gpu_opens_or_says_what_is_missing),
        cmocka_unit_test(every_precision_and_level_opens),
        cmocka_unit_test(memory_is_aligned_counted_and_given_back),
        cmocka_unit_test(past_the_budget_is_refused_with_the_arithmetic),
        cmocka_unit_test(sizes_that_wrap_around_are_refused),
        cmocka_unit_test(the_null_device_counts_and_has_nothing),
        cmocka_unit_test(the_null_device_asks_the_real_one_about_sizes),
        cmocka_unit_test(threads_of_the_pool_take_no_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
