/* Rates of the operations that a render spends its time in, on random data. */
#ifndef GV_PIPELINES_BENCH_H
#define GV_PIPELINES_BENCH_H

#include "core/run.h"

/* JSON, freed with free(); about `seconds` in all, at least one call of each. NULL when memory ran out. */
char *gv_bench_json(struct device *d, double seconds);
/* Attention masks x lengths from 4,096 to 131,072, as many as fit the time; left_out says how many did not. */
char *gv_bench_attention_json(struct device *d, double seconds);

#endif
