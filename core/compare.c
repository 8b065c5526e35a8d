#include "core/compare.h"

#include <math.h>
#include <string.h>

enum { STRIP = 4096 };

/* Elements [from, from + n) of a contiguous tensor as f32. */
static void read_strip(struct run *r, float *out, struct tensor t, int64_t from, int64_t n)
{
    uint16_t      half[STRIP];
    struct tensor flat = slice(reshape(t, 1, DIMS(gv_tensor_count(t))), 0, from, n);

    if (t.type == GV_F32) {
        gv_download(r, out, flat);
        return;
    }
    gv_download(r, half, flat);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)half[i] << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

static bool is_readable(struct tensor t)
{
    return (t.type == GV_F32 || t.type == GV_BF16) && !t.packed && gv_tensor_contiguous(t);
}

void gv_compare(struct run *r, struct difference *out, struct tensor a, struct tensor b)
{
    const int64_t count = gv_tensor_count(a);
    float         x[STRIP], y[STRIP];

    if (!gv_run_ready(r))
        return;
    if (!is_readable(a) || !is_readable(b) || gv_tensor_count(b) != count) {
        gv_run_fail(r, GV_ERR_INTERNAL, "compare: tensors of %lld and %lld elements do not fit", (long long)count,
                    (long long)gv_tensor_count(b));
        return;
    }
    if (gv_device_is_null(r->device))
        return;
    for (int64_t from = 0; from < count && gv_run_ready(r); from += STRIP) {
        const int64_t n = count - from < STRIP ? count - from : STRIP;

        read_strip(r, x, a, from, n);
        read_strip(r, y, b, from, n);
        for (int64_t i = 0; i < n; i++) {
            const double p = (double)x[i], q = (double)y[i];

            out->difference += (p - q) * (p - q);
            out->reference += q * q;
            out->difference1 += fabs(p - q);
            out->reference1 += fabs(q);
            out->product += p * q;
            out->square += p * p;
        }
    }
}

double gv_relative_l2(const struct difference *d)
{
    return d->difference == 0 ? 0 : sqrt(d->difference / d->reference);
}

double gv_relative_l1(const struct difference *d)
{
    return d->difference1 == 0 ? 0 : d->difference1 / d->reference1;
}

double gv_cosine(const struct difference *d)
{
    return d->square == 0 && d->reference == 0 ? 1 : d->product / sqrt(d->square * d->reference);
}
