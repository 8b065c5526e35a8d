/* How far one tensor is from another: for receipts, calibration and tests. Tensors are brought to the host strip by strip and
 * summed there in double, one after the other: the same numbers on every device and with any number of threads, and nothing
 * for a frame to wait for, because only sampled steps are compared. */
#ifndef GV_CORE_COMPARE_H
#define GV_CORE_COMPARE_H

#include "core/ops.h"

struct difference {
    double difference, reference;   /* Σ(a - b)², Σb² */
    double difference1, reference1; /* Σ|a - b|, Σ|b| */
    double product, square;         /* Σab, Σa² */
};

/* a, b: contiguous, f32 or bf16 each, equally many elements. Adds to *out, which the caller has zeroed. On the null device
 * adds nothing. */
void gv_compare(struct run *r, struct difference *out, struct tensor a, struct tensor b);

double gv_relative_l2(const struct difference *d); /* ‖a - b‖ / ‖b‖; 0 where both are 0 */
double gv_relative_l1(const struct difference *d); /* Σ|a - b| / Σ|b|; infinite where b is 0 and a is not */
double gv_cosine(const struct difference *d);      /* 1 where both are 0 */

#endif
