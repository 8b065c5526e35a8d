/* Noise as torch draws it, against numbers drawn by torch itself on the CPU and on an H200 (tests/reference/noise.py). */
#include "core/rng_torch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixture.h"

static const char *const seeds[] = { "0", "42", "1099511627783" };

/* torch's vectorised logarithm and sine are good to 1e-7 or so of values up to 6; the GPU's fast sine to 3e-6. */
static const double cpu_tolerance = 2e-6, cuda_tolerance = 5e-6;

static void numbers_of_the_cpu_are_torchs(void **state)
{
    static const int sizes[] = { 1, 2, 7, 15, 16, 17, 31, 100, 1000, 4096 };
    struct golden    g;
    double           worst = 0;
    (void)state;
    golden_open(&g, "noise");
    for (size_t s = 0; s < 3; s++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            char    name[64];
            float   x[4096];
            int64_t n;
            snprintf(name, sizeof name, "cpu.%s.%d", seeds[s], sizes[k]);
            const float *want = golden_get(&g, name, &n);
            assert_int_equal(n, sizes[k]);
            gv_torch_cpu_normal(x, n, strtoull(seeds[s], NULL, 10));
            for (int64_t i = 0; i < n; i++)
                worst = fmax(worst, fabs((double)x[i] - (double)want[i]));
        }
    print_message("  at most %.1e apart\n", worst);
    assert_true(worst < cpu_tolerance);
    golden_close(&g);
}

static void numbers_of_the_gpu_are_torchs(void **state)
{
    static const int sizes[] = { 7, 1000, 270337, 1081345, 16 * 21 * 60 * 104 };
    struct golden    g;
    double           worst = 0;
    (void)state;
    golden_open(&g, "noise");
    float *x = malloc((size_t)sizes[4] * sizeof *x);
    for (size_t s = 0; s < 3; s++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            char    name[64], at_name[72];
            int64_t n, n_at;
            snprintf(name, sizeof name, "cuda.%s.%d", seeds[s], sizes[k]);
            snprintf(at_name, sizeof at_name, "%s.at", name);
            const float *want = golden_get(&g, name, &n), *at = golden_get(&g, at_name, &n_at);
            assert_int_equal(n, n_at);
            gv_torch_cuda_normal(x, sizes[k], strtoull(seeds[s], NULL, 10), (struct torch_grid){ 132, 2048 });
            for (int64_t i = 0; i < n; i++)
                worst = fmax(worst, fabs((double)x[(int64_t)at[i]] - (double)want[i]));
        }
    print_message("  at most %.1e apart\n", worst);
    assert_true(worst < cuda_tolerance);
    free(x);
    golden_close(&g);
}

static void a_smaller_gpu_draws_others_only_beyond_its_grid(void **state)
{
    enum { SMALL = 2 * 2048, N = 3 * 4 * SMALL };
    static float a[N], b[N];
    int          same = 0;
    (void)state;
    gv_torch_cuda_normal(a, SMALL, 5, (struct torch_grid){ 2, 2048 });
    gv_torch_cuda_normal(b, SMALL, 5, (struct torch_grid){ 132, 2048 });
    assert_memory_equal(a, b, SMALL * sizeof *a);
    gv_torch_cuda_normal(a, N, 5, (struct torch_grid){ 2, 2048 });
    gv_torch_cuda_normal(b, N, 5, (struct torch_grid){ 132, 2048 });
    for (int i = SMALL; i < N; i++)
        same += a[i] == b[i];
    assert_memory_equal(a, b, SMALL * sizeof *a);
    assert_true(same < 10);
}

static void numbers_are_normal(void **state)
{
    enum { COUNT = 100000 };
    float *x = malloc(COUNT * sizeof *x);
    (void)state;
    for (int k = 0; k < 2; k++) {
        double sum = 0, square = 0;
        if (k)
            gv_torch_cuda_normal(x, COUNT, 9, (struct torch_grid){ 132, 2048 });
        else
            gv_torch_cpu_normal(x, COUNT, 9);
        for (int i = 0; i < COUNT; i++) {
            sum += (double)x[i];
            square += (double)x[i] * (double)x[i];
        }
        assert_true(fabs(sum / COUNT) < 5 / sqrt(COUNT)); /* five sigma */
        assert_true(fabs(square / COUNT - 1) < 5 * sqrt(2.0 / COUNT));
    }
    free(x);
}

static void names_of_modes(void **state)
{
    static const char *const bad[] = { "torch",
                                       "torch-cuda:",
                                       "torch-cuda:132",
                                       "torch-cuda:132x",
                                       "torch-cuda:0x2048",
                                       "torch-cuda:132x100",
                                       "torch-cuda:132x2048x",
                                       "torch-cuda:-1x2048",
                                       "torch-cuda:99999999999x2048",
                                       "",
                                       "GENVID" };
    enum noise_mode          m;
    struct torch_grid        g;
    (void)state;
    assert_true(gv_noise_mode(&m, &g, NULL) && m == NOISE_GENVID);
    assert_true(gv_noise_mode(&m, &g, "genvid") && m == NOISE_GENVID);
    assert_true(gv_noise_mode(&m, &g, "torch-cpu") && m == NOISE_TORCH_CPU);
    assert_true(gv_noise_mode(&m, &g, "torch-cuda") && m == NOISE_TORCH_CUDA && g.sms == 132 && g.threads == 2048);
    assert_true(gv_noise_mode(&m, &g, "torch-cuda:108x1536") && g.sms == 108 && g.threads == 1536);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (gv_noise_mode(&m, &g, bad[i]))
            fail_msg("\"%s\" was taken", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_the_cpu_are_torchs),
        cmocka_unit_test(numbers_of_the_gpu_are_torchs),
        cmocka_unit_test(a_smaller_gpu_draws_others_only_beyond_its_grid),
        cmocka_unit_test(numbers_are_normal),
        cmocka_unit_test(names_of_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
