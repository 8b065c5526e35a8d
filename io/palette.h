/* 256 colours for a picture. */
#ifndef GV_IO_PALETTE_H
#define GV_IO_PALETTE_H

#include "io/frame.h"

/* palette: 0xffRRGGBB, chosen for this picture; index [height, index_stride]. A picture of no more than 256 colours (told apart
 * by the upper five bits of each channel) keeps them; others are dithered by an 8 × 8 pattern, which stands still in time.
 * Errors: MEMORY. */
gv_status gv_palette_make(uint32_t palette[256], uint8_t *index, ptrdiff_t index_stride, const uint8_t *rgb, int width,
                          int height, struct error *e);

#endif
