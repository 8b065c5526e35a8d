/* What a device brings for this room: struct device carries the table without looking inside. Arguments as in attention.h,
 * already checked. */
#ifndef GV_ATTENTION_ATTN_OPS_H
#define GV_ATTENTION_ATTN_OPS_H

#include "attention/attention.h"

struct attn_ops {
    /* On the null device that stands for this one: takes its scratch and does nothing else. */
    void (*attention)(struct run *r, const struct attn_call *c);
    void (*merge)(struct run *r, const struct attn_partial *dst, const struct attn_partial *parts, int n);
};

#endif
