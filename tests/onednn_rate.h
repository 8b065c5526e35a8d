/* oneDNN as a yardstick for opcheck --bench: the same product or convolution, weights in the order it likes best, run by it
 * alone. The library does not use oneDNN; see tests/BENCH.md for why. */
#ifndef GV_TESTS_ONEDNN_RATE_H
#define GV_TESTS_ONEDNN_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct onednn_rate;

/* [n, k] · [m, k]ᵀ + bias. NULL if oneDNN is not in this build or cannot. */
struct onednn_rate *onednn_linear(int threads, bool bf16, int64_t n, int64_t m, int64_t k);
/* Frames, rows, columns of the output; channels in and out; kernel kt, and kh = kw with "same" padding. */
struct onednn_rate *onednn_conv(int threads, bool bf16, const int64_t shape[7]);
void onednn_run(struct onednn_rate *r);
void onednn_close(struct onednn_rate *r);

#endif
