/* Pictures in a terminal, and small PNG files. */
#ifndef CLI_PICTURE_H
#define CLI_PICTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct cli_pixels {
    int            width, height;
    const uint8_t *rgb;    /* 3 bytes a pixel */
    size_t         stride; /* bytes from row to row */
};

/* What a terminal understands. KITTY: Kitty's graphics protocol; ITERM: iTerm2's inline images; BLOCKS: half-blocks in 24-bit
 * colour, BLOCKS_256 in the palette of 256. */
enum cli_graphics { GRAPHICS_NONE, GRAPHICS_BLOCKS_256, GRAPHICS_BLOCKS, GRAPHICS_ITERM, GRAPHICS_KITTY };

/* Of the terminal behind fd, told from the environment; NONE where it is none or NO_COLOR is set. GENVID_GRAPHICS overrides: none,
 * blocks, iterm, kitty. */
enum cli_graphics cli_graphics_of(int fd);

/* From the first column on, fitted into the terminal behind out; the cursor ends in the first column of the line below. Returns
 * the rows that were used, 0 for NONE. */
int cli_picture_draw(FILE *out, enum cli_graphics g, const struct cli_pixels *p);

/* Under a temporary name first. False with errno set. */
bool cli_picture_write(const char *path, const struct cli_pixels *p);

#endif
