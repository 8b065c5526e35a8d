/* Counter-based noise: Philox 4x32-10 keyed by the request's seed, with the place of the number as its counter, so that any
 * device, in any order and any split of the work, makes the same normal numbers. Channels are made four at a time by
 * Box-Muller. Source of the generator: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, fig. 2. */
#ifndef GV_CORE_RNG_H
#define GV_CORE_RNG_H

#include <stdint.h>

struct noise_key;

/* Philox 4x32-10: one block of four words. */
void gv_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* n_c standard normal numbers: channels 0..n_c-1 of position (t, y, x); t counts from the start of the whole clip. */
void gv_rng_normal_row(float *out, int64_t n_c, const struct noise_key *key, int64_t t, int64_t y, int64_t x);

#endif
