#include "tests/diffusion/model_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/device.h"

void case_open(struct model_case *c, const char *name, const char *precision, enum dtype weights)
{
    char source[512];
    memset(c, 0, sizeof *c);
    const struct device_params p = { .name = test_device(), .threads = 2, .precision = precision };
    assert_int_equal(gv_device_open(&c->device, &p, &c->error), GV_OK);
    assert_int_equal(gv_run_open(&c->run, c->device, c->device->compute, (size_t)256 << 20, &c->error), GV_OK);
    golden_open(&c->golden, name);
    fixture_temp(c->folder);
    snprintf(source, sizeof source, "%s/%s", GV_TEST_DATA, name);
    fixture_model(c->folder, source, NULL, weights, 0);
}

void case_close(struct model_case *c)
{
    fixture_remove(c->folder);
    golden_close(&c->golden);
    gv_run_close(&c->run);
    gv_device_close(&c->device);
}

bool case_is_f32(const struct model_case *c)
{
    return c->run.compute == GV_F32;
}

struct tensor case_upload(struct model_case *c, int rank, const int64_t *dim, const float *host)
{
    return gv_scratch_from(&c->run, GV_F32, rank, dim, host);
}

float *case_download(struct run *r, struct tensor t)
{
    float        *host = malloc((size_t)gv_tensor_count(t) * sizeof *host + 1);
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor f = gv_scratch(r, GV_F32, t.rank, t.dim);
    gv_copy(r, f, t);
    gv_download(r, host, f);
    arena_release(&r->scratch, mark);
    assert_string_equal(r->err.text, "");
    return host;
}

void case_compare(struct model_case *c, const char *what, const float *ours, const char *golden_name, const char *error_name)
{
    int64_t      n;
    const float *theirs = golden_get(&c->golden, golden_name, &n);
    double       error = relative_error(ours, theirs, n), limit = 1e-4;
    if (!case_is_f32(c)) {
        char name[96];
        snprintf(name, sizeof name, "bf16_error.%s", error_name);
        limit = 1.5 * (double)golden_number(&c->golden, name);
    }
    print_message("  %-28s error %.2e  limit %.2e\n", what, error, limit);
    if (!(error <= limit))
        fail_msg("%s: relative error %g exceeds %g", what, error, limit);
}
