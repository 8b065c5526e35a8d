/* When something that was computed may stand in for computing it again. Decides only: takes numbers and answers, touches no
 * tensor. What is kept lies in a cache (cache.h); who asks is approx.c. */
#ifndef GV_ATTENTION_REUSE_H
#define GV_ATTENTION_REUSE_H

#include <stdbool.h>
#include <stdint.h>

/* When a choice of blocks, or what was kept beside it, is made anew. */
enum { GV_REFRESH_STEPS = 8 };
struct refresh {
    int    every;                      /* in every n-th step since the last; 1 = each step; 0 = not by number */
    int    n_at, at[GV_REFRESH_STEPS]; /* in these steps, counted from 0 (AdaSpa: 10 and 30 of 50) */
    double drift;                      /* when the mean query or key moved by more than this share (HASTE); < 0 = not by that */
    int    across;                     /* layers: one of n chooses, those behind it take its choice (HyLRA); 1 = each */
};
/* last: the step of the last refresh, < 0 when there was none; drift: how far the means have moved since. */
bool gv_refresh_due(const struct refresh *f, int step, int last, double drift);
/* Does a choice outlive its call? Else nothing needs to be kept. */
bool gv_refresh_lasts(const struct refresh *f);
/* The layer whose choice this one takes; its own number when it chooses. */
int gv_refresh_source(const struct refresh *f, int layer);

/* FlashBlock over blocks of video frames: passes 0 ... steps - 1 denoise a block, pass `steps` writes its keys and values.
 * True where every head reads the history anew; else the heads of the calibrated mask do, and the others take what they kept.
 * Source: Flash_Block (arXiv 2602.05305), video path; its release also reuses in the writing pass (reuse_in_commit). */
bool gv_history_is_read(bool kept, int pass, int steps, bool reuse_in_commit);

/* FlashBlock's other rule, made for blocks of text, where a step settles a few tokens: what a block read of what lies before it
 * stands while fewer than `tau` of its tokens have changed since it was read; tau 0 reads anew in every step. `changed` counts from
 * that reading on, and so has in it what changed in that very step. First steps and writing passes are gv_history_is_read's.
 * Source: Flash_Block (arXiv 2602.05305), text path, its scheduler: tau 2 of blocks of 4 or 8 tokens. */
bool gv_dirty_is_read(int64_t changed, int64_t tau);

#endif
